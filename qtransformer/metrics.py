"""Numbers that tell how a training goes: gathered on the device, averaged when a line is written."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from qtransformer.errors import StorageError
from qtransformer.files import explained_storage_errors, write_text

CALIBRATION_BINS = 10
"""Bins of predicted value in which prediction and outcome are compared."""


TIMED_EVERY = 10
"""On a GPU one update in so many is timed: telling its sections apart takes waiting for the device at each, which leaves
it idle."""


class Stopwatch:
    """Wall-clock seconds per named section of an update.

    Args:
        device: that the update runs on.
        step: of the update; on a GPU `seconds` stay empty but for every `TIMED_EVERY`th.
    """

    def __init__(self, device: torch.device, step: int = 0) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._runs = device, device.type != "cuda" or step % TIMED_EVERY == 0

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        if not self._runs:
            yield
            return
        start = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return perf_counter()


class Metrics:
    """What one update reports."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        """Of each section; empty where the update was not timed."""
        self.skipped = False
        """The update was not applied, because its loss or gradient was not finite."""
        self.means: dict[str, tuple[Tensor, Tensor]] = {}
        """Name to (mean, how many samples it stands for)."""
        self.calibration: Float[Tensor, "10 3"] | None = None
        """See `calibration_table`."""

    def mean(self, name: str, value: Tensor, weight: Tensor | None = None) -> Tensor:
        """Record a mean and hand it on."""
        self.means[name] = (value.detach(), torch.ones((), device=value.device) if weight is None else weight)
        return value

    def calibrate(self, predicted: Float[Tensor, "k"], outcome: Float[Tensor, "k"], low: float, high: float) -> None:
        """Record predictions beside outcomes."""
        self.calibration = calibration_table(predicted, outcome, low, high)


class Meter:
    """Averages of `Metrics` between two lines of the log."""

    def __init__(self) -> None:
        self._updates: list[Metrics] = []

    def add(self, metrics: Metrics) -> None:
        self._updates.append(metrics)

    def read(self) -> dict[str, float]:
        """Averages over the applied updates since the last reading, and how many were skipped, if any; a name whose
        weight was 0 throughout is left out."""
        updates, self._updates = self._updates, []
        applied = [m for m in updates if not m.skipped]
        result = {"skipped": float(len(updates) - len(applied))} if len(applied) < len(updates) else {}
        for name in dict.fromkeys(name for m in applied for name in m.means):
            pairs = [m.means[name] for m in applied if name in m.means]
            weight = torch.stack([w.float() for _, w in pairs])
            total = torch.stack([torch.where(w > 0, v.float() * w, 0.0) for v, w in pairs]).sum()
            if float(weight.sum()) > 0:
                result[name] = float(total / weight.sum())
        tables = [m.calibration for m in applied if m.calibration is not None]
        if tables:
            result["calibration_error"] = calibration_error(torch.stack(tables).sum(0))
        timed = [m.seconds for m in updates if m.seconds]
        for name in dict.fromkeys(name for seconds in timed for name in seconds):
            result[f"seconds/{name}"] = sum(seconds.get(name, 0.0) for seconds in timed) / len(timed)
        return result


def calibration_table(predicted: Float[Tensor, "k"], outcome: Float[Tensor, "k"], low: float, high: float) -> Float[Tensor, "10 3"]:
    """Per bin of predicted value between `low` and `high`: sum of predictions, sum of outcomes, count."""
    index = ((predicted - low) / (high - low) * CALIBRATION_BINS).long().clamp(0, CALIBRATION_BINS - 1)
    rows = torch.stack([predicted, outcome, torch.ones_like(predicted)], -1)
    return torch.zeros(CALIBRATION_BINS, 3, device=predicted.device).index_add_(0, index, rows)


def calibration_error(table: Float[Tensor, "bins 3"]) -> float:
    """Expected calibration error: |mean prediction - mean outcome| per bin, weighted by count."""
    return float((table[:, 0] - table[:, 1]).abs().sum() / table[:, 2].sum().clamp_min(1))


class JsonLines:
    """`metrics.jsonl`: one line per logged step; a resumed run goes on after the step it resumes from.

    Raises:
        StorageError: the disk is full or not writable before there is anything to lose.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        kept = [line for line in read_jsonl(path) if line["step"] <= resume_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._path, self._torn, self._told = path, False, False

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line, or lose it with a warning at the first: what is being learned is worth more than what is said of it."""
        line = json.dumps({"step": step, **values}) + "\n"
        try:
            with explained_storage_errors(self._path), self._path.open("a") as file:  # anew, so that nothing waits
                file.write("\n" + line if self._torn else line)
            self._torn = False
        except StorageError as error:
            self._torn = True
            self._warn_once(
                f"{error}. The line of step {step} is lost, and those after it until one can be written; training goes on"
            )

    def _warn_once(self, message: str) -> None:
        if not self._told:
            warnings.warn(message, stacklevel=3)
        self._told = True


def read_jsonl(path: Path) -> list[dict]:
    """All lines of a metrics file that are whole; [] if there is none."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            parsed = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue  # the last line of a killed run may be cut
        if isinstance(parsed, dict) and isinstance(parsed.get("step"), int):
            lines.append(parsed)
    return lines
