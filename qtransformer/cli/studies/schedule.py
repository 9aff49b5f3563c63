"""Cells in child processes, as many at a time as there are cores; what is finished is never run again."""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from qtransformer.checkpoint import latest_resumable
from qtransformer.cli import collect
from qtransformer.cli.side_by_side import POLL_SECONDS, Training, stop_with_parent
from qtransformer.cli.studies import results
from qtransformer.cli.studies.cells import Cell
from qtransformer.errors import QTransformerError
from qtransformer.metrics import read_jsonl

CURVE_POINTS = 40
LOG = "cell.log"


class CellStopped(Exception):
    """The study is being stopped: not a failure."""


@dataclass(slots=True)
class Schedule:
    """Runs cells and records their results.

    Args:
        runs: folder of the trainings' directories.
        data: folder of the logged episodes.
        out: folder of the results.
        device: of all trainings.
        workers: cells at a time.
    """

    runs: Path
    data: Path
    out: Path
    device: str
    workers: int
    _children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, cells: Sequence[Cell]) -> list[str]:
        """Run all cells, in their order. Returns a sentence for each that failed; the others are not kept from ending."""
        failures: list[str] = []
        bar = tqdm(total=sum(cell.steps for cell in cells), desc=f"study, {len(cells)} cells", unit="step")
        pool = ThreadPoolExecutor(max_workers=self.workers)
        jobs: dict[Future[None], Cell] = {pool.submit(self._cell, cell): cell for cell in cells}
        waiting = set(jobs)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                failures += [f"cell {jobs[job].identity}: {error}" for job in done if (error := job.exception())]
                bar.n = sum(self._training(cell).step() for cell in cells)
                bar.set_postfix(left=len(waiting), failed=len(failures))
        finally:
            self._stop()
            pool.shutdown(wait=True, cancel_futures=True)
            bar.close()
        return failures

    def _stop(self) -> None:
        """Trainings save on SIGTERM, and go on when the study is run again."""
        with self._guard:
            self._stopped = True
            for child in self._children:
                child.send_signal(signal.SIGTERM)

    def _cell(self, cell: Cell) -> None:
        training = self._training(cell)
        with self._lock_of(cell.data_name):
            if not (self.data / cell.data_name).exists():
                self._call(cell, "collect", *cell.collect_arguments(self.data, workers=1))
        if not training.is_complete():
            self._wait(training.start(), cell)
        judged = training.run / "judged.json"
        checkpoint = latest_resumable(training.run)
        scenes = (f"split={cell.split}", f"seed={cell.first_scene}", f"episodes={cell.episodes}")
        self._call(cell, "eval", f"run={checkpoint}", *scenes, f"device={self.device}", "workers=1", f"json={judged}")
        self._record(cell, training, json.loads(judged.read_text()))

    def _training(self, cell: Cell) -> Training:
        return Training(cell.identity, self.runs / cell.identity, tuple(cell.train_arguments(self.data, self.device)))

    def _lock_of(self, name: str) -> threading.Lock:
        """Cells of a seed wait for one another's data."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    def _call(self, cell: Cell, *words: str) -> None:
        run = self.runs / cell.identity
        run.mkdir(parents=True, exist_ok=True)
        with (run / LOG).open("ab") as log:
            command = [sys.executable, "-m", "qtransformer.cli.main", *words]
            child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=stop_with_parent)
        self._wait(child, cell)

    def _wait(self, child: subprocess.Popen[bytes], cell: Cell) -> None:
        with self._guard:
            self._children.add(child)
            if self._stopped:
                child.send_signal(signal.SIGTERM)
        code = child.wait()
        with self._guard:
            self._children.discard(child)
        if self._stopped:
            raise CellStopped("stopped")
        if code:
            raise QTransformerError(f"ended with exit code {code}; {last_words(self.runs / cell.identity)}")

    def _record(self, cell: Cell, training: Training, judged: dict[str, Any]) -> None:
        lines = read_jsonl(training.run / "metrics.jsonl")
        found, config = collect.count(self.data / cell.data_name), cell.config
        firsts = [r["values"][0] for r in judged["results"] if r["values"]]
        row = {
            "cell": cell.identity,
            "data": str(cell.data),
            "data_success": f"{found.successes / found.episodes:.3f}",
            "overrides": " ".join(cell.overrides),
            "seed": cell.seed,
            "algo": config["algo"],
            "value": config["value"]["kind"],
            "steps": cell.steps,
            "train_seconds": round(training_seconds(lines, config)),
            "split": cell.split,
            "first_scene": cell.first_scene,
            "episodes": judged["episodes"],
            "success": f"{judged['success']:.4f}",
            "outcomes": "".join("01"[r["success"]] for r in judged["results"]),
            "mean_steps": f"{judged['mean_steps']:.1f}",
            "q_start": f"{sum(firsts) / len(firsts):.3f}" if firsts else "",
            "date": date.today().isoformat(),
            "commit": commit(),
            "machine": machine(),
            "command": shlex.join(["qtransformer", "train", *training.arguments, f"run={training.run}"]),
        }
        results.append(self.out / results.CURVES, results.CURVE_FIELDS, curve(cell.identity, lines))
        results.append(self.out / results.CELLS, results.CELL_FIELDS, [row])


def last_words(run: Path) -> str:
    """The last line of whichever log was written last."""
    logs = [path for path in (run / LOG, run / "train.log") if path.exists()]
    if not logs:
        return "it left no log"
    log = max(logs, key=lambda path: path.stat().st_mtime)
    return f"{log} says: {(log.read_text(errors='replace').strip().splitlines() or ['nothing'])[-1]}"


def training_seconds(lines: Sequence[dict[str, Any]], config: dict[str, Any]) -> float:
    """Wall-clock of the gradient steps, without saving and validating, interruptions left out."""
    transitions, seconds, before = config["optim"]["batch_segments"] * config["optim"]["segment_steps"], 0.0, 0
    for line in lines:
        if "samples_per_second" in line:
            seconds += (line["step"] - before) * transitions / line["samples_per_second"]
            before = line["step"]
    return seconds


def curve(identity: str, lines: Sequence[dict[str, Any]]) -> list[dict[str, object]]:
    """At most `CURVE_POINTS` lines of the log, and every validation."""
    names = results.CURVE_FIELDS[2:]
    merged: dict[int, dict[str, Any]] = {}
    for line in lines:
        merged.setdefault(int(line["step"]), {}).update({k: f"{line[k]:.4g}" for k in names if k in line})
    stride = -(-len(merged) // CURVE_POINTS)
    kept = [step for i, step in enumerate(sorted(merged)) if i % stride == 0 or "validation_success" in merged[step]]
    return [{"cell": identity, "step": step, **merged[step]} for step in kept]


def commit() -> str:
    """The version of the code, as git names it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def machine() -> str:
    """What it was run on, without names of hosts."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
