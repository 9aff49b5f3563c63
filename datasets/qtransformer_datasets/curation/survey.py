"""Reading a dataset once and going on after every problem: what `inspect`, `stats`, `validate` and `split` know of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.intervals import wilson
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.check import problems_of
from qtransformer_datasets.episodes.frozen_cameras import frozen_cameras
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.episodes.unsaid import UnsaidError
from qtransformer_datasets.episodes.wild_values import PROPRIO_REMEDY, WildValues
from qtransformer_datasets.formats import format_of

HISTOGRAM_BINS = 16

STAND_INS: Mapping[str, Any] = {"dones": "terminated", "control_hz": 1}
"""Options under which a dataset that leaves things unsaid is read all the same, with a note."""

Progress = Callable[[Iterable[int]], Iterable[int]]
"""Wraps the indices of episodes while they are read: a progress bar."""


class Doubts:
    """What is odd about episodes that can be read all the same: most often a sensor failed while they were recorded."""

    def __init__(self, source: LoggedEpisodes) -> None:
        self._source, self._wild = source, WildValues(source.observation_spec.proprio_names)

    def of_episode(self, index: int, episode: Episode) -> list[str]:
        """A sentence each; what only the others can show is told by `of_whole`."""
        self._wild.include_episode(episode.proprio[: len(episode) + episode.has_final_observation], index)
        return frozen_cameras(episode, self._source.observation_spec.control_hz, self._source.where(index))

    def of_whole(self) -> list[str]:
        """Of all episodes that were looked at."""
        return [wild.sentence(self._source.where(wild.episode), "proprio", PROPRIO_REMEDY) for wild in self._wild.found()]


@dataclass(slots=True)
class Survey:
    """The small arrays of every readable episode; images are looked at and let go."""

    source: LoggedEpisodes
    episodes: dict[int, Episode] = field(default_factory=dict)
    """By index, without images."""
    problems: list[str] = field(default_factory=list)
    """Of the whole, then of its episodes."""
    doubts: list[str] = field(default_factory=list)
    """Of episodes that can be read all the same; see `Doubts`."""
    colors: dict[str, "ColorStats"] = field(default_factory=dict)
    """Per camera."""


class ColorStats:
    """Running mean and deviation of a camera's channels, 0 to 255."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(3), np.zeros(3)

    def add(self, rows: np.ndarray) -> None:
        """Images, uint8 (t, h, w, 3)."""
        mean, std = (np.asarray(x).ravel() for x in cv2.meanStdDev(np.ascontiguousarray(rows).reshape(-1, rows.shape[2], 3)))
        count = rows.size // 3
        self._count += count
        self._sum += count * mean
        self._squares += count * (std**2 + mean**2)

    @property
    def mean(self) -> list[float]:
        return (self._sum / self._count).tolist()

    @property
    def std(self) -> list[float]:
        mean = self._sum / self._count
        return np.sqrt(np.maximum(self._squares / self._count - mean**2, 0)).tolist()


def open_anyway(source: DataSource, problems: list[str]) -> LoggedEpisodes | None:
    """As the dataset says; where it leaves things unsaid, add that to `problems` and open it under a stand-in.

    A setting that does not exist is no matter of the dataset, and raises ConfigError as elsewhere.
    """
    try:
        return source.open()
    except ConfigError:
        raise
    except QTransformerError as error:
        problems += problems_of(error)
        unsaid = error.options if isinstance(error, UnsaidError) else ()
    if not unsaid or not set(unsaid) <= set(STAND_INS):
        return None
    stand_ins = {name: STAND_INS[name] for name in unsaid}
    try:
        episodes = replace(source, options={**source.options, **stand_ins}).open()
    except QTransformerError as error:
        problems += problems_of(error)
        return None
    shown = " ".join(f"{name}={value}" for name, value in stand_ins.items())
    problems.append(f"shown as if {shown}, wherever it does not say so itself")
    return episodes


def problems_of_whole(source: LoggedEpisodes) -> list[str]:
    """What is wrong with a dataset beside its episodes."""
    try:
        return list(source.problems)
    except QTransformerError as error:  # damage that its episodes will tell again
        return [str(error)]


def reports_on(source: DataSource, episodes: LoggedEpisodes | None) -> list[str]:
    """What a format tells of a dataset part by part (of bags: topics, rates, gaps), also of one that could not be opened."""
    try:
        if episodes is None:
            kind = format_of(source.path, source.format)
            return [part.text() for part in kind.load(kind.report)(Path(source.path))] if kind.report else []
        return [part.text() for part in episodes.reports]
    except QTransformerError:  # why it could not be opened is told already
        return []


def survey(source: LoggedEpisodes, progress: Progress = iter) -> Survey:
    """Read every episode once."""
    found = Survey(source, problems=problems_of_whole(source))
    colors: dict[str, ColorStats] = defaultdict(ColorStats)
    doubts = Doubts(source)
    for index in progress(range(len(source))):
        try:
            episode = source.read(index)
        except QTransformerError as error:
            found.problems += problems_of(error)
            continue
        found.doubts += doubts.of_episode(index, episode)
        for camera, rows in episode.images.items():
            colors[camera].add(rows)
        episode.images = {}
        found.episodes[index] = episode
    found.doubts += doubts.of_whole()
    found.colors = dict(colors)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One dimension of actions or proprioception over all episodes, in its unit."""

    name: str
    unit: str
    low: float
    """Lower limit; the least value where there is no limit."""
    high: float
    mean: float
    std: float
    min: float
    q01: float
    q10: float
    median: float
    q90: float
    q99: float
    max: float
    histogram: list[int]
    """Counts from `low` to `high`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How often something succeeded."""

    episodes: int
    successes: int
    rate: float
    low: float
    """95 % Wilson interval."""
    high: float
    mean_length: float
    """Steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A dataset in numbers; `dataclasses.asdict` gives what the verbs write as JSON."""

    path: str
    bytes: int
    episodes: int
    """Readable ones."""
    unreadable: int
    steps: int
    control_hz: float
    success: Share | None
    """None where no episode is readable."""
    instructions: dict[str, Share]
    """The most frequent first."""
    lengths: list[int]
    """Minimum, quartiles and maximum [steps]."""
    length_histogram: list[int]
    ends: dict[str, int]
    """Episodes terminated, truncated, and those without a final observation."""
    rewards: dict[str, float]
    cameras: dict[str, dict[str, Any]]
    actions: list[Column]
    proprio: list[Column]
    attributes: Mapping[str, Any]
    problems: list[str]


def summarise(found: Survey) -> Summary:
    """The numbers of a survey."""
    source, episodes = found.source, list(found.episodes.values())
    lengths = np.array([len(e) for e in episodes])
    quartiles = np.percentile(lengths, [0, 25, 50, 75, 100]).astype(int).tolist() if episodes else []
    by_instruction: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_instruction[episode.instruction].append(episode)
    instructions = sorted(by_instruction.items(), key=lambda item: -len(item[1]))
    return Summary(
        path=str(source.path),
        bytes=size_on_disk(source.path),
        episodes=len(episodes),
        unreadable=len(source) - len(episodes),
        steps=int(lengths.sum()),
        control_hz=source.observation_spec.control_hz,
        success=_share(episodes) if episodes else None,
        instructions={text: _share(group) for text, group in instructions},
        lengths=quartiles,
        length_histogram=_histogram(lengths, quartiles[0], quartiles[-1]) if episodes else [],
        ends={
            "terminated": sum(bool(e.terminated[-1]) for e in episodes),
            "truncated": sum(bool(e.truncated[-1] and not e.terminated[-1]) for e in episodes),
            "without_final_observation": sum(not e.has_final_observation for e in episodes),
        },
        rewards=_reward_numbers(episodes) if episodes else {},
        cameras=_cameras(source.observation_spec, found.colors),
        actions=_action_columns(source.action_spec, episodes) if episodes else [],
        proprio=_proprio_columns(source.observation_spec, episodes) if episodes else [],
        attributes=source.attributes,
        problems=[*found.problems, *found.doubts],
    )


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())


def _share(episodes: Sequence[Episode]) -> Share:
    wins = sum(e.success for e in episodes)
    low, high = wilson(wins, len(episodes))
    return Share(
        episodes=len(episodes),
        successes=wins,
        rate=wins / len(episodes),
        low=low,
        high=high,
        mean_length=float(np.mean([len(e) for e in episodes])),
    )


def _reward_numbers(episodes: Sequence[Episode]) -> dict[str, float]:
    rewards = np.concatenate([e.rewards for e in episodes]).astype(np.float64)
    return {
        "min": float(rewards.min()),
        "max": float(rewards.max()),
        "nonzero_share": float((rewards != 0).mean()),
        "mean_sum": float(np.mean([e.rewards.sum(dtype=np.float64) for e in episodes])),
    }


def _cameras(spec: ObservationSpec, colors: Mapping[str, ColorStats]) -> dict[str, dict[str, Any]]:
    return {
        name: {"shape": list(shape), **({"mean": colors[name].mean, "std": colors[name].std} if name in colors else {})}
        for name, shape in spec.cameras.items()
    }


def _action_columns(spec: ActionSpec, episodes: Sequence[Episode]) -> list[Column]:
    values = spec.to_units(np.concatenate([e.actions for e in episodes])).astype(np.float64)
    return [_column(*each) for each in zip(spec.names, spec.units, values.T, spec.low, spec.high, strict=True)]


def _proprio_columns(spec: ObservationSpec, episodes: Sequence[Episode]) -> list[Column]:
    values = np.concatenate([e.proprio for e in episodes]).astype(np.float64)
    return [
        _column(name, unit, rows, float(rows.min()), float(rows.max()))
        for name, unit, rows in zip(spec.proprio_names, spec.proprio_units, values.T, strict=True)
    ]


def _column(name: str, unit: str, values: np.ndarray, low: float, high: float) -> Column:
    q01, q10, median, q90, q99 = np.percentile(values, [1, 10, 50, 90, 99]).tolist()
    return Column(
        name=name,
        unit=unit,
        low=low,
        high=high,
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        q01=q01,
        q10=q10,
        median=median,
        q90=q90,
        q99=q99,
        max=float(values.max()),
        histogram=_histogram(values, low, high),
    )


def _histogram(values: np.ndarray, low: float, high: float) -> list[int]:
    held = np.clip(values, low, high)  # float32 can round a limit to beyond it, where nothing is counted
    return np.histogram(held, bins=HISTOGRAM_BINS, range=(float(low), float(high)))[0].tolist()
