"""A dataset in words and columns, for a person: what is in it, and everything that is wrong with it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qtransformer.errors import QTransformerError
from qtransformer_datasets.curation.survey import (
    Column,
    Progress,
    Share,
    Summary,
    open_anyway,
    reports_on,
    size_on_disk,
    summarise,
    survey,
)
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.formats import format_of

MAX_LINES = 12
"""Problems, instructions and attributes listed before the rest is only counted."""
MAX_PARTS = 3
"""Parts of a dataset (bags of a folder) described before the rest is only counted."""
_BARS = " ▁▂▃▄▅▆▇█"


class Report(NamedTuple):
    """What is known of a dataset, for a person and for a program."""

    text: str
    numbers: dict[str, Any]


def inspect_dataset(path: str | os.PathLike[str]) -> str:
    """A report of what lies at a path. Reads all of it, one episode at a time, and goes on after every problem."""
    return inspect_source(DataSource(path=str(path))).text


def inspect_source(source: DataSource, progress: Progress = iter) -> Report:
    """The report on a dataset; of one that cannot be opened, the reasons alone."""
    problems, head = list[str](), dataset_head(source)
    episodes = open_anyway(source, problems)
    reports = reports_on(source, episodes)
    if episodes is None:
        text = "\n\n".join([head, *_parts(reports), _problems(problems)])
        return Report(text, {"path": source.path, "problems": problems, "reports": reports})
    found = survey(episodes, progress)
    found.problems[:0] = problems
    summary = summarise(found)
    return Report(inspect_text(summary, head, reports), asdict(summary) | {"reports": reports})


def inspect_text(summary: Summary, head: str, reports: Sequence[str] = ()) -> str:
    """One screen."""
    cameras = [[name, " x ".join(map(str, numbers["shape"]))] for name, numbers in summary.cameras.items()]
    sections = [
        head,
        _counts(summary),
        _table(["camera", "image (h, w, c)"], cameras),
        _proprio_table(summary.proprio),
        _action_table(summary.actions),
        _counted("instructions", {text: share.episodes for text, share in summary.instructions.items()}),
        _attributes(summary.attributes),
        *_parts(reports),
        _problems(summary.problems),
    ]
    return "\n\n".join(section for section in sections if section)


def stats_text(summary: Summary, head: str) -> str:
    """Every dimension with its quantiles, and success by instruction."""
    sections = [
        head,
        _counts(summary),
        _quantile_table("action", summary.actions),
        _quantile_table("proprio", summary.proprio),
        _color_table(summary.cameras),
        _share_table(summary.instructions),
    ]
    if summary.problems:
        sections.append(f"problems      {len(summary.problems)}; `qtransformer data validate` lists them")
    return "\n\n".join(section for section in sections if section)


def dataset_head(source: DataSource) -> str:
    """What lies where, and how it is read."""
    path = Path(source.path)
    size = f"{size_on_disk(path) / 1e6:.2f} MB" if path.exists() else "-"
    try:
        name = format_of(path, source.format).name
    except QTransformerError:
        name = "unknown"
    return f"dataset       {source}\nformat        {name}, {size}"


def _counts(summary: Summary) -> str:
    if summary.success is None:
        return f"episodes      0 readable of {summary.unreadable}"
    share, q, ends, rewards = summary.success, summary.lengths, summary.ends, summary.rewards
    unread = f" ({summary.unreadable} more unreadable)" if summary.unreadable else ""
    seconds = summary.steps / summary.control_hz
    return "\n".join(
        [
            f"episodes      {summary.episodes}{unread}",
            f"steps         {summary.steps}   at {summary.control_hz:g} Hz: {_duration(seconds)}",
            f"success       {share.successes}/{share.episodes} = {100 * share.rate:.1f} %"
            f"   (95 % Wilson interval {100 * share.low:.1f} to {100 * share.high:.1f} %)",
            f"length        min {q[0]}   25 % {q[1]}   median {q[2]}   75 % {q[3]}   max {q[4]} steps"
            f"   |{_bars(summary.length_histogram)}|",
            f"ends          {ends['terminated']} terminated, {ends['truncated']} truncated, "
            f"{ends['without_final_observation']} without final observation",
            f"rewards       min {rewards['min']:g}   max {rewards['max']:g}   nonzero in "
            f"{100 * rewards['nonzero_share']:.1f} % of steps   mean sum {rewards['mean_sum']:.4g}",
        ]
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _proprio_table(columns: Sequence[Column]) -> str:
    rows = [[c.name, c.unit, *(f"{n:.4g}" for n in (c.mean, c.std, c.min, c.max))] for c in columns]
    return _table(["proprio", "unit", "mean", "std", "min", "max"], rows)


def _action_table(columns: Sequence[Column]) -> str:
    """Statistics in robot units, the histogram over the whole of [low, high]."""
    rows = [
        [c.name, c.unit, *(f"{n:.4g}" for n in (c.low, c.high, c.min, c.max, c.mean)), f"|{_bars(c.histogram)}|"] for c in columns
    ]
    return _table(["action", "unit", "low", "high", "min", "max", "mean", "histogram, low to high"], rows)


def _quantile_table(title: str, columns: Sequence[Column]) -> str:
    names = ("mean", "std", "min", "q01", "q10", "median", "q90", "q99", "max")
    rows = [[c.name, c.unit, *(f"{getattr(c, name):.4g}" for name in names)] for c in columns]
    return _table([title, "unit", *names], rows)


def _color_table(cameras: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [name, " x ".join(map(str, c["shape"])), *(" ".join(f"{n:5.1f}" for n in c[key]) for key in ("mean", "std"))]
        for name, c in cameras.items()
        if "mean" in c
    ]
    return _table(["camera", "image (h, w, c)", "mean R G B", "std R G B"], rows)


def _share_table(shares: Mapping[str, Share]) -> str:
    rows = [
        [
            repr(text)[:80],
            f"{s.episodes}",
            f"{s.successes}",
            f"{100 * s.rate:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}]",
            f"{s.mean_length:.1f}",
        ]
        for text, s in shares.items()
    ]
    return _table(["instruction", "episodes", "successes", "success [95 %]", "mean length"], rows)


def _bars(counts: Sequence[int]) -> str:
    """Bars by eighths; a bin that is not empty is never blank."""
    top = max(max(counts), 1)
    return "".join(_BARS[int(np.ceil(count / top * (len(_BARS) - 1)))] for count in counts)


def _counted(title: str, counts: Mapping[str, int]) -> str:
    rows = [[repr(text)[:80], str(count)] for text, count in list(counts.items())[:MAX_LINES]]
    return _table([title, "episodes"], rows + _and_more(len(counts)))


def _attributes(attributes: Mapping[str, Any]) -> str:
    rows = [[str(name), _short(value)] for name, value in list(attributes.items())[:MAX_LINES]]
    return _table(["attribute", "value"], rows + _and_more(len(attributes)))


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return "problems      none found"
    lines = [f"  - {problem}" for problem in problems[:MAX_LINES]]
    more = [f"  and {len(problems) - MAX_LINES} more"] if len(problems) > MAX_LINES else []
    return "\n".join([f"problems      {len(problems)}", *lines, *more])


def _parts(reports: Sequence[str]) -> list[str]:
    more = len(reports) - MAX_PARTS
    return [*reports[:MAX_PARTS], *([f"and {more} more; `qtransformer data validate` shows all"] if more > 0 else [])]


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
