"""Cells in child processes, as many at a time as there are cores or GPUs. What is finished is never run again."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.side_by_side import LOG as TRAIN_LOG
from qtransformer.cli.side_by_side import POLL_SECONDS, Training, stop_with_parent
from qtransformer.cli.studies import probing, results
from qtransformer.cli.studies.cells import Cell
from qtransformer.cli.studies.grids import PROBE_SEED, Data, Study
from qtransformer.cli.studies.record import began_on, commit, curve_rows, probe_row, result_row
from qtransformer.errors import QTransformerError

LOG, PROBED = "cell.log", "probed.json"

Child = subprocess.Popen[bytes]
Stages = Iterator[Child | None]
"""The children of a cell, one after the other; None while it waits for what another process is doing."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a study keeps what it makes."""

    out: Path
    runs: Path
    data: Path


@dataclass(slots=True)
class Job:
    """A cell that is being run."""

    cell: Cell
    run: Path
    device: str
    claim: int
    """Descriptor of the lock on its run. Children hold it too, so it is free when the last of them has saved and gone."""
    stages: Stages
    child: Child | None = None

    def advance(self) -> bool:
        """Start the next stage if the last one is over; true when none is left.

        Raises:
            QTransformerError: the child failed.
        """
        if self.child is not None:
            if self.child.poll() is None:
                return False
            if self.child.returncode:
                raise QTransformerError(f"ended with exit code {self.child.returncode}; {last_words(self.run)}")
        try:
            self.child = next(self.stages)
        except StopIteration:
            return True
        return False


class Schedule:
    """Runs cells and records their results.

    Args:
        folders: where all is kept.
        devices: one for each cell that may run at a time.
        study: that asks.
    """

    def __init__(self, folders: Folders, devices: Sequence[str], study: Study) -> None:
        self.folders, self._free, self._study = folders, list(devices), study
        self._slots = len(devices)
        self._jobs: list[Job] = []
        self._failures: list[str] = []

    def run(self, cells: Sequence[Cell]) -> list[str]:
        """Run cells in their order. Returns a sentence for each that failed; the others end all the same."""
        queue, ended = deque(cells), 0
        began = {cell.identity: self.training(cell).step() for cell in cells}
        bar = progress_bar(sum(cell.steps for cell in cells), sum(began.values()))
        try:
            while queue or self._jobs:
                self._start(queue)
                for job in list(self._jobs):
                    if self._is_over(job):
                        ended += job.cell.steps
                        began.pop(job.cell.identity)
                now = {job.cell.identity: self.training(job.cell).step() for job in self._jobs}
                bar.set_postfix(running=len(self._jobs), waiting=len(queue), failed=len(self._failures), refresh=False)
                bar.update(ended + sum((began | now).values()) - bar.n)
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
            bar.close()
        return self._failures

    def training(self, cell: Cell, device: str = "cpu") -> Training:
        run = self.folders.runs / cell.run_name
        return Training(cell.run_name, run, tuple(cell.train_arguments(self.folders.data, device)))

    def _start(self, queue: deque[Cell]) -> None:
        """Fill the free places. A cell whose training another cell or study is at comes later: by then it may be done."""
        for _ in range(len(queue)):
            if not self._free:
                return
            cell = queue.popleft()
            claim = claimed(self.folders.runs / f"{cell.run_name}.lock")
            if claim is None:
                queue.append(cell)
                continue
            device = self._free.pop()
            self._jobs.append(Job(cell, self.training(cell).run, device, claim, self._stages(cell, device, claim)))

    def _is_over(self, job: Job) -> bool:
        try:
            if not job.advance():
                return False
        except Exception as error:  # whatever it is, the other cells can do without this one
            told = str(error) if isinstance(error, QTransformerError) else f"{type(error).__name__}: {error}"
            self._failures.append(f"cell {job.cell}: {told}")
            tqdm.write(f"failed: {self._failures[-1]}", file=sys.stderr)
        self._jobs.remove(job)
        self._free.append(job.device)
        os.close(job.claim)
        return True

    def _stages(self, cell: Cell, device: str, claim: int) -> Stages:
        """Collect, train, judge, probe: whatever of it is not done. A judged cell is trained again where it is to be probed and its
        checkpoint is gone."""
        out, run = self.folders.out, self.training(cell).run
        if cell.identity in results.finished(out, self._study.probed_on):
            return
        if RunConfig.exists(run):
            device = RunConfig.load(run).train.device  # it goes on where it began, whichever GPU is free
        training, version = self.training(cell, device), began_on(run)
        is_judged = cell.identity in results.read_cells(out)
        yield from self._collect(cell.data, cell.seed, run)  # also where all is trained: what it was trained on is compared
        if not training.is_complete():
            yield training.start([claim])
        if not is_judged:
            yield from self._judge(cell, training, device, version, claim)
        if self._study.probe is not None:
            yield from self._collect(self._study.probe, PROBE_SEED, run)
            yield from self._probe(cell, self._study.probe, run, claim)

    def _judge(self, cell: Cell, training: Training, device: str, version: str, claim: int) -> Stages:
        run, out = training.run, self.folders.out
        scenes = (f"split={cell.split}", f"seed={cell.first_scene}", f"episodes={cell.episodes}")
        judged = run / f"judged_{cell.identity}.json"
        own = (f"device={device}", "workers=1", f"json={judged}")
        yield self._child(run, "eval", f"run={self._checkpoint(cell)}", *scenes, *own, held=claim)
        outcome = json.loads(judged.read_text())
        row = result_row(cell, training, self.folders.data / cell.data_file, outcome, version)
        results.append(out / results.CURVES, results.CURVE_FIELDS, curve_rows(cell.identity, run))
        results.append(out / results.CELLS, results.CELL_FIELDS, [row])

    def _probe(self, cell: Cell, data: Data, run: Path, claim: int) -> Stages:
        version = commit()  # a probe's own: the training may be older
        words = (str(self.folders.data / data.file(PROBE_SEED)), str(self._checkpoint(cell)), str(run / PROBED))
        yield self._child(run, *words, held=claim, module=probing.__name__)
        row = probe_row(cell, str(self._study.probed_on), json.loads((run / PROBED).read_text()), version)
        results.append(self.folders.out / results.PROBES, results.PROBE_FIELDS, [row])

    def _checkpoint(self, cell: Cell) -> Path:
        return self.folders.runs / cell.run_name / "checkpoints" / f"step_{cell.steps:07d}"

    def _collect(self, data: Data, seed: int, run: Path) -> Stages:
        """Episodes, on all places: other cells wait for them too."""
        path = self.folders.data / data.file(seed)
        while not path.exists():
            claim = claimed(path.with_name(f".{path.name}.lock"))
            if claim is None:
                yield None
                continue
            try:
                if not path.exists():
                    words = data.collect_arguments(seed, self.folders.data, self._slots)
                    yield self._child(run, "collect", *words, held=claim)
            finally:
                os.close(claim)

    def _child(self, run: Path, *words: str, held: int, module: str = "qtransformer.cli.main") -> Child:
        run.mkdir(parents=True, exist_ok=True)
        with (run / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=stop_with_parent,
                pass_fds=(held,),
            )

    def _stop(self) -> None:
        """Trainings save when they are asked to end, and go on when the study is run again."""
        children = [job.child for job in self._jobs if job.child is not None]
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        for job in self._jobs:
            with suppress(OSError):
                os.close(job.claim)


def progress_bar(total: int, done: int) -> tqdm:
    """Gradient steps of all cells; a log gets a line a minute."""
    interval = 1 if sys.stderr.isatty() else 60
    return tqdm(total=total, initial=done, desc="study", unit="step", smoothing=0.05, mininterval=interval)


def claimed(path: Path) -> int | None:
    """A descriptor that locks a file for this process and its children; None where others have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def last_words(run: Path) -> str:
    """The last line of the log that was written last."""
    logs = [path for path in (run / LOG, run / TRAIN_LOG) if path.exists()]
    if not logs:
        return "it left no log"
    log = max(logs, key=lambda path: path.stat().st_mtime)
    return f"{log} says: {(log.read_text(errors='replace').strip().splitlines() or ['nothing'])[-1]}"
