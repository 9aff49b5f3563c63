"""What a bag holds, topic by topic, for a person and for `validate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.arrivals import Arrivals, TopicPart
from qtransformer_datasets.rosbag.contract_entries import StampSource
from qtransformer_datasets.rosbag.index import BagIndex, timed_messages
from qtransformer_datasets.rosbag.message_types import SHARED_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.storage import Bag, find_bags, open_bag, salvaged
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS, Gap

MAX_GAPS = 5
"""Gaps named in an error before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """The times of one topic, by the contract's clock; of one that publishers share, of one of them."""

    topic: str
    """Its name, or that of the part (`shared_joints`)."""
    type: str
    count: int
    first_s: float = 0.0
    """First and last sample, from the bag's first on [s]."""
    last_s: float = 0.0
    rate_hz: float = 0.0
    """By the median distance of samples."""
    jitter_s: float = 0.0
    """Standard deviation of the distance of samples, those beyond three medians aside [s]."""
    largest_gap_s: float = 0.0
    largest_gap_at_s: float = 0.0
    duplicates: int = 0
    """Samples with the time of another."""
    out_of_order: int = 0
    """Samples recorded after a later one."""
    dropped: int = 0
    """Samples that would fill its gaps at its rate."""
    lost: int = 0
    """Messages of the topic that metadata.yaml counts and the bag does not hold."""


@dataclass(frozen=True, slots=True)
class BagReport:
    path: Path
    topics: tuple[TopicReport, ...] = ()
    gaps: tuple[tuple[str, float, float], ...] = ()
    """Gaps that cost ticks: topic, begin from the bag's first sample on [s], length [s]; negative where a clock jumps back."""
    episodes: int | None = 0
    """None where no contract says what an episode is."""
    problems: tuple[str, ...] = ()

    def text(self) -> str:
        """A table of topics, then gaps and problems."""
        header = [
            "topic",
            "type",
            "count",
            "Hz",
            "jitter",
            "largest gap",
            "dropped",
            "lost",
            "duplicates",
            "disorder",
            "from",
            "to",
        ]
        rows = [
            [
                t.topic,
                t.type,
                str(t.count),
                f"{t.rate_hz:.1f}",
                f"{1e3 * t.jitter_s:.1f} ms",
                f"{t.largest_gap_s:.3f} s at {t.largest_gap_at_s:.2f} s",
                str(t.dropped),
                str(t.lost),
                str(t.duplicates),
                str(t.out_of_order),
                f"{t.first_s:.2f} s",
                f"{t.last_s:.2f} s",
            ]
            for t in self.topics
        ]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
        gaps = [self.gaps_text()] if self.gaps else []
        episodes = [] if self.episodes is None else [f"episodes      {self.episodes}"]
        return "\n".join([f"bag           {self.path}", *episodes, *table, *gaps, *self.problems])

    def gaps_text(self) -> str:
        """`/wrist: nothing for 0.512 s at 3.10 s, ...`"""
        named = [
            f"{topic}: nothing for {length:.3f} s at {start:.2f} s"
            if length >= 0
            else f"{topic}: its clock jumps back by {-length:.3f} s at {start:.2f} s"
            for topic, start, length in self.gaps[:MAX_GAPS]
        ]
        more = [f"and {len(self.gaps) - MAX_GAPS} more gaps"] if len(self.gaps) > MAX_GAPS else []
        return ", ".join([*named, *more])

    def ranges_text(self) -> str:
        """`/wrist 0.00 to 9.90 s, ...`"""
        return ", ".join(f"{t.topic} {t.first_s:.2f} to {t.last_s:.2f} s" for t in self.topics)


def report_bag(index: BagIndex, gaps: Sequence[Gap] = (), episodes: int = 0, problems: tuple[str, ...] = ()) -> BagReport:
    """Of the topics of a contract."""
    return _report(index.bag, list(index.parts.values()), gaps, episodes, problems)


def inspect_bag(path: Path) -> BagReport:
    """All topics of a bag, readable or not, with no contract: what there is to write one from."""
    bag = open_bag(path, partial=True)
    try:
        return _inspect(bag)
    except DatasetError as error:
        return _inspect(salvaged(bag, str(error)))


def report_path(path: Path) -> list[BagReport]:
    """The same of every bag at a path; of one that nothing can be read of, why."""
    return list(map(_inspected, find_bags(path)))


def _inspected(path: Path) -> BagReport:
    try:
        return inspect_bag(path)
    except DatasetError as error:
        return BagReport(path, episodes=None, problems=(str(error),))


def _inspect(bag: Bag) -> BagReport:
    shared = {VECTOR_TYPES[kind].name for kind in SHARED_TYPES}
    arrivals = {topic: Arrivals(topic, is_shared=kind in shared) for topic, kind in bag.types.items()}
    for message, time in timed_messages(bag, bag.types, StampSource.header):
        arrivals[message.topic].add(bag, message, time)
    return _report(bag, [part for own in arrivals.values() for part in _parts(own)], (), None, bag.damage)


def _parts(arrivals: Arrivals) -> list[TopicPart]:
    """Of a topic that publishers share all there are."""
    names = sorted({name for own in arrivals.names() for name in own})
    return list(arrivals.parts(names))


def _report(
    bag: Bag,
    parts: Sequence[TopicPart],
    gaps: Sequence[Gap],
    episodes: int | None,
    problems: tuple[str, ...],
) -> BagReport:
    origin = min((int(part.times.min()) for part in parts if len(part)), default=0)
    return BagReport(
        bag.path,
        tuple(_topic_report(bag, part, origin) for part in parts),
        tuple((gap.topic, (gap.start - origin) / NANOSECONDS, gap.length / NANOSECONDS) for gap in gaps),
        episodes,
        problems,
    )


def _topic_report(bag: Bag, part: TopicPart, origin: int) -> TopicReport:
    kind, lost = bag.types[part.topic], max(bag.declared.get(part.topic, 0) - part.topic_count, 0)
    if not len(part):
        return TopicReport(part.name, kind, 0, lost=lost)
    times = (np.sort(part.times) - origin) / NANOSECONDS
    steps = np.diff(times)
    usual = steps[steps <= 3 * np.median(steps)] if len(steps) else steps
    median = float(np.median(steps)) if len(steps) else 0.0
    widest = int(steps.argmax()) if len(steps) else 0
    return TopicReport(
        part.name,
        kind,
        len(part),
        first_s=float(times[0]),
        last_s=float(times[-1]),
        rate_hz=1 / median if median > 0 else 0.0,
        jitter_s=float(usual.std()) if len(usual) else 0.0,
        largest_gap_s=float(steps[widest]) if len(steps) else 0.0,
        largest_gap_at_s=float(times[widest]),
        duplicates=int((steps == 0).sum()),
        out_of_order=int((np.diff(part.times) < 0).sum()),
        dropped=int(np.maximum(np.round(steps / median) - 1, 0).sum()) if median > 0 else 0,
        lost=lost,
    )
