"""A dataset on one screen, for a person: what is in it, and everything that is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.robomimic_hdf5 import HDF5Episodes

MAX_LINES = 12
"""Problems, instructions and attributes listed before the rest is only counted."""
HISTOGRAM_BINS = 16
_BARS = " ▁▂▃▄▅▆▇█"
_Z95 = 1.959964
"""Normal quantile of a two-sided 95 % interval."""


def inspect_dataset(path: str | os.PathLike[str]) -> str:
    """A report of a robomimic HDF5 file. Reads all of it, one episode at a time, and goes on after every problem."""
    path, problems = Path(path), list[str]()
    source = _open(path, problems)
    sections = [_head(path)]
    if source is not None:
        episodes = _Summaries(source, problems)
        sections += [*episodes.sections(), _attributes(source)]
    sections.append(_problems(problems))
    return "\n\n".join(section for section in sections if section)


class _Summaries:
    """The small arrays of every readable episode; images are looked at and let go."""

    def __init__(self, source: HDF5Episodes, problems: list[str]) -> None:
        self.actions_spec, self.spec, self.count = source.action_spec, source.observation_spec, len(source)
        self.episodes = [_without_images(episode) for episode in _readable(source, problems)]
        steps = sum(map(len, self.episodes))
        if not source.is_foreign and len(self.episodes) == self.count and source.declared_total != steps:
            problems.append(f"{source.path}: total says {source.declared_total} steps, its demos have {steps}")

    def sections(self) -> list[str]:
        if not self.episodes:
            return [f"episodes      0 readable of {self.count}", _cameras(self.spec)]
        return [
            self._counts(),
            _cameras(self.spec),
            _proprio_table(self.spec, np.concatenate([e.proprio for e in self.episodes])),
            _action_table(self.actions_spec, np.concatenate([e.actions for e in self.episodes])),
            _counted("instructions", Counter(e.instruction for e in self.episodes)),
        ]

    def _counts(self) -> str:
        episodes = self.episodes
        lengths, wins = np.array([len(e) for e in episodes]), sum(e.success for e in episodes)
        low, high = wilson_interval(wins, len(episodes))
        q = np.percentile(lengths, [0, 25, 50, 75, 100]).astype(int)
        terminated = sum(bool(e.terminated[-1]) for e in episodes)
        truncated = sum(bool(e.truncated[-1] and not e.terminated[-1]) for e in episodes)
        lost = sum(not e.has_final_observation for e in episodes)
        rewards = np.concatenate([e.rewards for e in episodes])
        sums = np.array([e.rewards.sum() for e in episodes])
        unread = f" ({self.count - len(episodes)} more unreadable)" if len(episodes) < self.count else ""
        return "\n".join(
            [
                f"episodes      {len(episodes)}{unread}",
                f"steps         {lengths.sum()}",
                f"success       {wins}/{len(episodes)} = {100 * wins / len(episodes):.1f} %"
                f"   (95 % Wilson interval {100 * low:.1f} to {100 * high:.1f} %)",
                f"length        min {q[0]}   25 % {q[1]}   median {q[2]}   75 % {q[3]}   max {q[4]} steps"
                f"   |{_histogram(lengths, q[0], q[4])}|",
                f"ends          {terminated} terminated, {truncated} truncated, {lost} without final observation",
                f"rewards       min {rewards.min():g}   max {rewards.max():g}   nonzero in "
                f"{100 * (rewards != 0).mean():.1f} % of steps"
                f"   mean sum {sums.mean():.4g}",
                f"control       {self.spec.control_hz:g} Hz",
            ]
        )


def wilson_interval(wins: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a success rate; honest at 0 and at 1."""
    rate, z2 = wins / count, _Z95**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 * np.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def _open(path: Path, problems: list[str]) -> HDF5Episodes | None:
    """As the file says; where it leaves things unsaid, report that and show the rest under a stand-in."""
    try:
        return HDF5Episodes(path)
    except QTransformerError as error:
        problems.append(str(error))
    try:
        source = HDF5Episodes(path, dones="terminated", control_hz=1.0)
    except QTransformerError:
        return None
    problems.append("shown as if dones='terminated' and, where it is unknown, control_hz=1.0")
    return source


def _readable(source: HDF5Episodes, problems: list[str]) -> Iterator[Episode]:
    for index in range(len(source)):
        try:
            yield source.read(index)
        except DatasetError as error:
            problems.append(str(error))


def _without_images(episode: Episode) -> Episode:
    episode.images = {}
    return episode


def _head(path: Path) -> str:
    size = f"{path.stat().st_size / 1e6:.2f} MB" if path.is_file() else "-"
    return f"file          {path}\nsize          {size}"


def _cameras(spec: ObservationSpec) -> str:
    return _table(["camera", "image (h, w, c)"], [[name, f"{h} x {w} x {c}"] for name, (h, w, c) in spec.cameras.items()])


def _proprio_table(spec: ObservationSpec, rows: np.ndarray) -> str:
    values = rows.astype(np.float64)
    columns = zip(spec.proprio_names, spec.proprio_units, values.mean(0), values.std(0), values.min(0), values.max(0), strict=True)
    return _table(
        ["proprio", "unit", "mean", "std", "min", "max"],
        [[name, unit, *(f"{number:.4g}" for number in numbers)] for name, unit, *numbers in columns],
    )


def _action_table(spec: ActionSpec, scaled: np.ndarray) -> str:
    """Statistics in robot units, the histogram over the whole of [low, high]."""
    rows = []
    for i, values in enumerate(spec.to_units(scaled).astype(np.float64).T):
        numbers = [spec.low[i], spec.high[i], values.min(), values.max(), values.mean()]
        rows.append(
            [
                spec.names[i],
                spec.units[i],
                *(f"{n:.4g}" for n in numbers),
                f"|{_histogram(values, spec.low[i], spec.high[i])}|",
            ]
        )
    return _table(["action", "unit", "low", "high", "min", "max", "mean", "histogram, low to high"], rows)


def _histogram(values: np.ndarray, low: float, high: float) -> str:
    """Bars by eighths; a bin that is not empty is never blank."""
    counts, _ = np.histogram(values, bins=HISTOGRAM_BINS, range=(float(low), float(high)))
    top = max(int(counts.max()), 1)
    return "".join(_BARS[int(np.ceil(count / top * (len(_BARS) - 1)))] for count in counts)


def _counted(title: str, counter: Counter[str]) -> str:
    rows = [[repr(text)[:80], str(count)] for text, count in counter.most_common(MAX_LINES)]
    return _table([title, "episodes"], rows + _and_more(len(counter)))


def _attributes(source: HDF5Episodes) -> str:
    rows = [[str(name), _short(value)] for name, value in list(source.attributes.items())[:MAX_LINES]]
    return _table(["attribute", "value"], rows + _and_more(len(source.attributes)))


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return "problems      none found"
    lines = [f"  - {problem}" for problem in problems[:MAX_LINES]]
    more = [f"  and {len(problems) - MAX_LINES} more"] if len(problems) > MAX_LINES else []
    return "\n".join([f"problems      {len(problems)}", *lines, *more])


def _and_more(count: int) -> list[list[str]]:
    return [[f"and {count - MAX_LINES} more"]] if count > MAX_LINES else []


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 90 else text[:87] + "..."


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Columns padded to their widest entry."""
    if not rows:
        return ""
    lines = [row + [""] * (len(header) - len(row)) for row in [header, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
