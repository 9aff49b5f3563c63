"""Trainings as child processes at the same time, with one progress display."""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from qtransformer.checkpoint import latest_resumable
from qtransformer.cli.compose import compose_settings
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.train import run_config
from qtransformer.config import to_dict
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.metrics import read_jsonl

POLL_SECONDS = 0.5
LOG = "train.log"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Training:
    """One training: `qtransformer train` with these arguments."""

    name: str
    run: Path
    arguments: tuple[str, ...]

    def config(self) -> RunConfig:
        return run_config(compose_settings("train", [*self.arguments, f"run={self.run}"]))

    def step(self) -> int:
        """Steps logged so far."""
        lines = read_jsonl(self.run / "metrics.jsonl")
        return int(lines[-1]["step"]) if lines else 0

    def is_complete(self) -> bool:
        """Raises ConfigError where the directory holds a training with other settings."""
        if not RunConfig.exists(self.run):
            return False
        wanted, found = self.config(), RunConfig.load(self.run)
        machine = {"threads": found.train.threads, "device": found.train.device}  # it goes on as it began, on whatever is here now
        wanted = replace(wanted, train=replace(wanted.train, **machine))
        if wanted != found:
            raise ConfigError(
                f"{self.run} was trained with other settings ({_first_difference(found, wanted)}); "
                "choose another out=... or delete it"
            )
        checkpoint = latest_resumable(self.run)
        return checkpoint is not None and checkpoint.name == f"step_{wanted.train.steps:07d}"

    def start(self, held: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Train in a child process, which goes on where an earlier one stopped. `held` are file descriptors it keeps open."""
        verb = ["resume"] if RunConfig.exists(self.run) else ["train", *self.arguments]
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "qtransformer.cli.main", *verb, f"run={self.run}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=stop_with_parent,
                pass_fds=held,
            )


def train_side_by_side(trainings: Sequence[Training], meanwhile: Callable[[Training], None] = lambda ended: None) -> None:
    """Train what is not complete; the others are stopped (and saved) if one fails or this process is interrupted.

    Args:
        trainings: what to train.
        meanwhile: called with each that ends while another goes on: its share of the machine is free.
    """
    todo = [training for training in trainings if not training.is_complete()]
    if not todo:
        return
    total = sum(training.config().train.steps for training in todo)
    bar = tqdm(total=total, desc="train " + " and ".join(t.name for t in todo), unit="step")
    children = [training.start() for training in todo]
    running = dict(zip(todo, children, strict=True))
    try:
        while running:
            time.sleep(POLL_SECONDS)
            ended = [training for training, child in running.items() if child.poll() is not None]
            running = {training: child for training, child in running.items() if training not in ended}
            _raise_if_failed(todo, children)
            _show(bar, todo)
            for training in ended if running else ():
                meanwhile(training)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        bar.close()


def _show(bar: tqdm, todo: Sequence[Training]) -> None:
    steps = {training.name: training.step() for training in todo}
    bar.n = sum(steps.values())
    bar.set_postfix(steps)


def _raise_if_failed(todo: Sequence[Training], children: Sequence[subprocess.Popen[bytes]]) -> None:
    for training, child in zip(todo, children, strict=True):
        if child.poll():
            log = training.run / LOG
            last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
            raise QTransformerError(f"training {training.run} ended with exit code {child.returncode}; {log} says: {last}")


def _first_difference(found: RunConfig, wanted: RunConfig) -> str:
    for name in ("dataset", *to_dict(wanted.train)):
        old, new = (", ".join(map(str, c.datasets)) if name == "dataset" else to_dict(c.train)[name] for c in (found, wanted))
        if old != new:
            return f"{name}: there {old}, asked for {new}"
    return "env: its data came from another environment"


def stop_with_parent() -> None:
    """Whoever is killed must not leave trainings behind that hold their run's lock (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
