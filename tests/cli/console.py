"""The console command as a user runs it: a real process, its exit code, and what it prints."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import HDF5Writer, open_episodes

COMMAND = [sys.executable, "-m", "qtransformer.cli.main"]
TINY = ["model.embed_dim=32", "model.encoder_width=8", "model.num_layers=1", "model.head_dim=16", "optim.batch_segments=4"]
TINY += ["threads=1", "device=cpu"]

ACTION = ActionSpec(names=("dx", "close"), low=(-0.05, 0.0), high=(0.05, 1.0), units=("m", "1"), discrete=(0, 2))
OBSERVATION = ObservationSpec(
    cameras={"wrist": (16, 16, 3)}, proprio_names=("x", "width"), proprio_units=("m", "m"), control_hz=4.0
)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence on stderr; no traceback and nothing else that looks like an error."""
        assert "Traceback" not in self.err, self.err
        [line] = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line


def qtransformer(*arguments: str, prefix: str = "", timeout: float = 120) -> Result:
    """Run the command to its end. `prefix` is shell before it, for instance a ulimit."""
    command = ["bash", "-c", f'{prefix} exec "$@"', "bash", *COMMAND, *arguments] if prefix else [*COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    return Result(done.returncode, done.stdout, done.stderr)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, so that its workers can be killed with it."""
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill_hard(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()[0]}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def write_dataset(path: Path, observation: ObservationSpec = OBSERVATION, action: ActionSpec = ACTION) -> Path:
    """Eight small random episodes."""
    rng = np.random.default_rng(0)
    with HDF5Writer(path, action, observation) as writer:
        for index in range(8):
            writer.append(_episode(rng, observation, action, success=index % 2 == 0))
    return path


def successes(path: Path) -> list[bool]:
    return [episode.success for episode in open_episodes(path)]


def loses(episode: Episode) -> bool:
    """A label for `data relabel function=tests.cli.console:loses`: the opposite of what the log says."""
    return not episode.success


def _episode(rng: np.random.Generator, observation: ObservationSpec, action: ActionSpec, success: bool) -> Episode:
    steps = 6
    rewards, ends = np.zeros(steps, np.float32), np.zeros(steps, bool)
    rewards[-1], ends[-1] = float(success), True
    actions = rng.uniform(-1, 1, (steps, len(action))).astype(np.float32)
    actions[:, 1] = np.sign(actions[:, 1])
    return Episode(
        images={name: rng.integers(0, 256, (steps + 1, *shape), np.uint8) for name, shape in observation.cameras.items()},
        proprio=rng.normal(size=(steps + 1, len(observation.proprio_names))).astype(np.float32),
        actions=actions,
        rewards=rewards,
        terminated=ends,
        truncated=np.zeros(steps, bool),
        success=success,
    )
