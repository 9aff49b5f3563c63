"""What became of bags that are not whole, in words: those left out, and those of which a part is read."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from qtransformer_datasets.rosbag.report import BagReport

MAX_TOLD = 3
"""Reasons told before the rest is only counted."""


def warn_of_lost_bags(path: Path, reports: Sequence[BagReport]) -> None:
    """One warning for a dataset: how many bags it lacks, wholly or in part, which, and why."""
    lost = [report for report in reports if not report.episodes]
    torn = [report for report in reports if report.episodes and report.problems]
    told = [f"left out {len(lost)} of {len(reports)} bags"] if lost else []
    told += [f"read {len(torn)} of {len(reports)} bags in part"] if torn else []
    if told:
        reasons = first_of([report.problems[0] for report in (*lost, *torn)])
        more = "`qtransformer data validate` with the same options tells of each"
        warnings.warn(f"{path}: {', '.join(told)}: {reasons}; {more}", stacklevel=4)


def first_of(problems: Sequence[str]) -> str:
    """A few of them as one sentence."""
    more = [f"and {len(problems) - MAX_TOLD} more"] if len(problems) > MAX_TOLD else []
    return "; ".join([*problems[:MAX_TOLD], *more])
