"""What a run left behind. Every part may be missing, and a damaged one is named instead of failing the page."""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.errors import CheckpointError
from qtransformer.evaluate import Evaluation
from qtransformer.metrics import read_jsonl
from qtransformer.report.palette import OURS, method_color, rank
from qtransformer.report.video import DISTRIBUTIONS, INDEX

T = TypeVar("T")

LABELS = {
    OURS: "Q-Transformer",
    "bc": "Behaviour cloning",
    "mc": "Monte-Carlo",
    "expert": "Scripted expert",
    "random": "Random",
}


class Curves:
    """The lines of a `metrics.jsonl`."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.lines = [line for line in lines if isinstance(line, dict) and _finite(line.get("step"))]

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one metric; what is not finite is left out."""
        rows = [(line["step"], line[name]) for line in self.lines if _finite(line.get(name))]
        steps, values = np.array(rows, np.float64).reshape(-1, 2).T
        return steps, values

    def last(self, name: str) -> float | None:
        values = self.series(name)[1]
        return float(values[-1]) if len(values) else None

    def mean(self, name: str) -> float | None:
        values = self.series(name)[1]
        return float(values.mean()) if len(values) else None

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.lines for name in line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One actor that was evaluated."""

    name: str
    label: str
    evaluation: Evaluation
    not_as_trained: str = ""
    """Settings it acted by that were not its training's."""

    @property
    def title(self) -> str:
        """What its results stand under: its label, and how it acted where that was not as trained."""
        return f"{self.label}, {self.not_as_trained}" if self.not_as_trained else self.label

    @property
    def color(self) -> str:
        return method_color(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """How often the logged episodes succeed."""

    success: float
    low: float
    high: float
    episodes: int
    steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One video and what it shows."""

    path: Path
    seed: int
    success: bool
    steps: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributions:
    """Value distributions over an episode; see `film`."""

    probs: np.ndarray
    """(t, v)"""
    locations: np.ndarray
    """(v,)"""
    values: np.ndarray
    """(t,)"""
    success: bool
    seed: int
    label: str
    """Of the film, which tells how the actor acted where that was not as trained."""


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything a page is made from."""

    run: Path
    config: dict[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=lambda: Curves([]))
    baselines: dict[str, Curves] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)
    """Ours first."""
    data: DataSummary | None = None
    films: list[Film] = field(default_factory=list)
    distributions: Distributions | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of the best checkpoint."""
    learned: dict[str, Any] = field(default_factory=dict)
    """Configuration in the best checkpoint: it has numbers where the run's leaves a choice to the data."""
    damaged: list[str] = field(default_factory=list)
    """Files that exist but cannot be understood."""

    @property
    def ours(self) -> Method | None:
        return next((m for m in self.methods if m.name == OURS), None)

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest attainable return."""
        value = (self.learned or self.config).get("value", {})
        value = value if isinstance(value, dict) else {}
        low, high = value.get("v_min", 0.0), value.get("v_max", 1.0)
        return (float(low), float(high)) if _finite(low) and _finite(high) and low < high else (0.0, 1.0)


def read_record(run: Path) -> Record:
    """Gather what there is."""
    record = Record(run=run)

    def read(path: Path, parse: Callable[[Path], T], missing: T) -> T:
        if not path.exists():
            return missing
        try:
            return parse(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            record.damaged.append(f"{path.relative_to(run)}: {type(error).__name__}: {error}")
            return missing

    record.config = read(run / "config.json", _mapping, {})
    record.curves = read(run / "metrics.jsonl", _curves, Curves([]))
    for path in sorted(run.glob("baselines/*/metrics.jsonl"), key=lambda p: rank(p.parent.name)):
        record.baselines[path.parent.name] = read(path, _curves, Curves([]))
    evaluations = sorted(run.glob("evaluations/*.json"), key=lambda p: rank(p.stem))
    record.methods = [m for path in evaluations if (m := read(path, _method, None)) is not None]
    record.data = read(run / "data.json", _data, None)
    record.films = read(run / "videos" / INDEX, _films, [])
    for path in (run / DISTRIBUTIONS, run / "videos" / DISTRIBUTIONS):
        record.distributions = record.distributions or read(path, _distributions, None)
    with suppress(CheckpointError):
        record.metadata = read(resolve_checkpoint(run) / "metadata.json", _mapping, {})
        record.learned = read(resolve_checkpoint(run) / "config.json", _mapping, {})
    return record


def method_label(name: str) -> str:
    """How a method is called where its file does not say."""
    return LABELS.get(name, name)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    if not isinstance(data, dict):
        raise ValueError("not a mapping")
    return data


def _curves(path: Path) -> Curves:
    return Curves(read_jsonl(path))


def _method(path: Path) -> Method:
    data = _mapping(path)
    evaluation = Evaluation.from_dict(data)
    if not evaluation.results:
        raise ValueError("no results")
    return Method(
        name=path.stem,
        label=str(data.get("label") or method_label(path.stem)),
        evaluation=evaluation,
        not_as_trained=str(data.get("not_as_trained") or ""),
    )


def _data(path: Path) -> DataSummary:
    data: Mapping[str, Any] = _mapping(path)
    return DataSummary(
        success=float(data["success"]),
        low=float(data["low"]),
        high=float(data["high"]),
        episodes=int(data["episodes"]),
        steps=int(data["steps"]) if _finite(data.get("steps")) else None,
    )


def _films(path: Path) -> list[Film]:
    entries = [(path.parent / Path(str(e["file"])).name, e) for e in json.loads(path.read_text())]
    return [
        Film(path=p, seed=int(e["seed"]), success=bool(e["success"]), steps=int(e["steps"]), label=str(e["label"]))
        for p, e in entries
        if p.is_file()
    ]


def _distributions(path: Path) -> Distributions:
    with np.load(path, allow_pickle=False) as file:
        result = Distributions(
            probs=file["probs"].astype(np.float64),
            locations=file["locations"].astype(np.float64),
            values=file["values"].astype(np.float64),
            success=bool(file["success"]) if "success" in file else True,
            seed=int(file["seed"]) if "seed" in file else -1,
            label=str(file["label"]) if "label" in file else "",
        )
    if result.probs.shape != (len(result.values), len(result.locations)) or result.probs.size == 0:
        raise ValueError(f"probs {result.probs.shape} fit neither values nor locations")
    return result
