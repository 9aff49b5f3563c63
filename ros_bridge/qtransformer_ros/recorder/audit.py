"""Whether a recorded episode is good for anything.

It is judged by the code that will read the bag: what that accepts will be read, and what it complains about would have been
refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.contract_fit import fit_problems
from qtransformer_datasets.rosbag.index import BagIndex
from qtransformer_datasets.rosbag.pieces import pieces, windows
from qtransformer_datasets.rosbag.report import BagReport, report_bag
from qtransformer_datasets.rosbag.tick_sync import Gap
from qtransformer_datasets.rosbag.topic_contract import TopicContract

RATE_SHARE = 0.9
"""Share of the rate it needs at which a topic may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What became of an episode."""

    name: str
    counts: dict[str, int]
    """Messages per topic, extra ones included."""
    rates_hz: dict[str, tuple[float, float]]
    """Observed topics: (found, needed)."""
    steps: int
    outcome: str
    report: BagReport
    problems: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return not self.problems

    def verdict(self) -> str:
        """`ok`, or `failed: ...`."""
        return "ok" if self.is_ok else "failed: " + "; ".join(self.problems)

    def text(self) -> str:
        """One line for a person."""
        messages = sum(self.counts.values())
        return f"{self.name}: {self.steps} steps, {self.outcome or 'no outcome'}, {messages} messages, audit {self.verdict()}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        own = {"name": self.name, "ok": self.is_ok, "problems": list(self.problems), "steps": self.steps, "outcome": self.outcome}
        topics = [asdict(topic) for topic in self.report.topics]
        return {
            **own,
            "counts": self.counts,
            "rates_hz": self.rates_hz,
            "topics": topics,
            "gaps": [list(g) for g in self.report.gaps],
        }


def audit(
    index: BagIndex, contract: TopicContract, counts: Mapping[str, int], outcome: str = "", seen: tuple[str, ...] = ()
) -> Audit:
    """Judge an episode by what a reader will find. `outcome`: where the contract does not take it from a topic; `seen`: problems
    known already."""
    problems, gaps, steps = list(seen), list[Gap](), 0
    ticks = [contract.ticks.topic] if contract.ticks else []
    needed = dict.fromkeys([*index.topics, *contract.event_topics(), *ticks])
    missing = [topic for topic in needed if not counts.get(topic)]
    if missing:
        problems.append(f"no message on {', '.join(missing)}")
    else:
        unfit = fit_problems(index, contract)
        problems += unfit
        steps = 0 if unfit else _cut(index, contract, gaps, problems)
    report = report_bag(index, gaps, int(steps > 0), tuple(problems))
    if gaps:
        problems.append(report.gaps_text())
    rates = _rates(index, report, contract)
    problems += [
        f"{t} came at {found:.2f} Hz and is needed at {least:.2f} Hz" for t, (found, least) in rates.items() if 0 < found < least
    ]
    outcome = _outcome(index, contract) or outcome
    if contract.outcome and not outcome:
        problems.append("nothing said how it ended")
    return Audit(
        name=index.bag.path.name,
        counts=dict(counts),
        rates_hz=rates,
        steps=steps,
        outcome=outcome,
        report=report,
        problems=tuple(problems),
    )


def _cut(index: BagIndex, contract: TopicContract, gaps: list[Gap], problems: list[str]) -> int:
    """Steps a reader will find; what keeps it from them goes to `gaps` and `problems`."""
    steps, marked = 0, windows(index, contract.episodes)
    if not marked:
        problems.append("nothing said that it started")
    for window in marked:
        try:
            own, holes = pieces(index, window, contract)
        except DatasetError as error:
            problems.append(str(error).removeprefix(f"{index.bag.path}: "))
            continue
        gaps += holes
        steps += sum(len(piece.ticks.times) - 1 for piece in own)
        if not own:
            problems.append(f"no step in which every topic has a sample: {report_bag(index).ranges_text()}")
    return steps


def _rates(index: BagIndex, report: BagReport, contract: TopicContract) -> dict[str, tuple[float, float]]:
    """A topic, or a part of one, is needed once per tick, or as often as its tolerance says where that is longer."""
    found = {topic.topic: topic.rate_hz for topic in report.topics}
    readings = index.readings(contract.observed)
    needed = {p.name: RATE_SHARE * min(contract.control_hz, 1 / contract.tolerance_of(s)) for s, p in readings}
    return {name: (found[name], least) for name, least in needed.items()}


def _outcome(index: BagIndex, contract: TopicContract) -> str:
    rule = contract.outcome
    said = [rule.outcome(word) for _, word in index.words.get(rule.topic, [])] if rule else []
    return next((outcome for outcome in reversed(said) if outcome), "")
