"""Topics that come much more slowly than a contract's ticks: most observations then repeat what the one before them showed."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from qtransformer_datasets.rosbag.plans import Plan
from qtransformer_datasets.rosbag.report import BagReport
from qtransformer_datasets.rosbag.topic_contract import TopicContract

SLOW = 0.45
"""Share of `control_hz` below which a topic is slow. A sample for every second tick, give or take jitter, is not."""


def warn_of_slow_topics(path: Path, contract: TopicContract, plans: Sequence[Plan], reports: Sequence[BagReport]) -> None:
    """One warning for a dataset. Commands are none of it: they may well be given once and hold."""
    indices = {id(plan.index): plan.index for plan in plans}.values()
    observed = dict.fromkeys(part.name for index in indices for _, part in index.readings(contract.observed))
    rates = {name: _rate(name, reports) for name in observed}
    slow = [f"{name} ({rate:.3g} Hz)" for name, rate in rates.items() if 0 < rate < SLOW * contract.control_hz]
    if slow:
        warnings.warn(
            f"{path}: control_hz {contract.control_hz:g} is far above the rate of {', '.join(slow)}: most ticks repeat a value; "
            "bring control_hz in the contract near the slowest topic",
            stacklevel=4,
        )


def _rate(name: str, reports: Sequence[BagReport]) -> float:
    """The middle of a topic's rates over the bags that tell one [Hz]; 0 where none does."""
    rates = [topic.rate_hz for report in reports for topic in report.topics if topic.topic == name and topic.rate_hz > 0]
    return median(rates) if rates else 0.0
