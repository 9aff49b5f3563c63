"""Which stretches of a bag are episodes, and which message gives each tick what: by markers, gaps and clocks that jump."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.arrivals import TopicPart
from qtransformer_datasets.rosbag.consumed_ticks import Samples, UnseenSample, follow
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, CameraTopic, EpisodeRule, VectorTopic
from qtransformer_datasets.rosbag.index import BagIndex
from qtransformer_datasets.rosbag.message_types import STREAMED_TYPES
from qtransformer_datasets.rosbag.tick_sync import FOREVER, NANOSECONDS, Gap, Stream, Ticks, Window, synchronise
from qtransformer_datasets.rosbag.topic_contract import TopicContract


@dataclass(frozen=True, slots=True)
class Piece:
    """An episode, or one of those that gaps split it into."""

    ticks: Ticks
    """Positions of samples are those of the parts that `BagIndex.readings` gives of what is observed, and of what is commanded."""
    window: Window
    is_end: bool
    """Whether the episode ends here: its outcome belongs to this piece."""


def windows(index: BagIndex, rule: EpisodeRule | None) -> list[Window]:
    """The episodes of a bag as its markers say; all of it where there is no rule."""
    if rule is None:
        return [Window()]
    marks = sorted(
        (time, kind)
        for kind, event in enumerate((rule.discard, rule.stop, rule.start))
        for time, word in (index.words.get(event.topic, []) if event else [])
        if event and event.matches(word)
    )
    starts, found, begin = [time for time, kind in marks if kind == 2], list[Window](), -1
    for time, kind in [*marks, (FOREVER, 2)]:
        if begin >= 0 and kind > 0:
            found.append(Window(begin, time, next((s for s in starts if s > begin), FOREVER)))
        begin = time if kind == 2 else -1
    return found


def pieces(index: BagIndex, window: Window, contract: TopicContract) -> tuple[list[Piece], list[Gap]]:
    """What of a window can be read, and the gaps that keep it from being one piece.

    Raises DatasetError: a policy's report of a sample that is not there.
    """
    return _consumed_pieces(index, window, contract) if contract.ticks else _clocked_pieces(index, window, contract)


def _consumed_pieces(index: BagIndex, window: Window, contract: TopicContract) -> tuple[list[Piece], list[Gap]]:
    """By the ticks that a policy reported."""
    assert contract.ticks

    def samples(source: CameraTopic | VectorTopic, part: TopicPart, is_streamed: bool = False) -> Samples:
        tolerance = round(contract.tolerance_of(source) * NANOSECONDS)
        return Samples(part.name, part.receive, part.times, tolerance, is_streamed)

    try:
        runs, gaps = follow(
            index.decisions,
            [samples(source, part) for source, part in index.readings(contract.observed)],
            [samples(source, part, _is_streamed(source)) for source, part in index.readings(contract.commanded)],
            window,
            topic=contract.ticks.topic,
            hz=contract.control_hz,
            tolerance=round(contract.tolerance_s * NANOSECONDS),
            is_damaged=index.bag.is_salvage,
        )
    except UnseenSample as error:
        raise DatasetError(f"{index.bag.path}: {error}") from error
    return [Piece(run, window, is_end=run is runs[-1]) for run in runs], gaps


def _is_streamed(source: ActionTopic) -> bool:
    """Positions, point by point; a gripper or another switch is told, and perhaps told again."""
    return source.type in STREAMED_TYPES and not any(source.discrete)


def _clocked_pieces(index: BagIndex, window: Window, contract: TopicContract) -> tuple[list[Piece], list[Gap]]:
    """By ticks of the clock.

    A clock that jumps back, beyond the reordering that the topic's tolerance allows, parts the window like a gap.
    """
    observed, commanded = index.readings(contract.observed), index.readings(contract.commanded)
    sources = [(*reading, False) for reading in observed] + [(*reading, True) for reading in commanded]
    tolerances = [round(contract.tolerance_of(source) * NANOSECONDS) for source, _, _ in sources]
    widest = {name: max(t for (_, p, _), t in zip(sources, tolerances, strict=True) if p.name == name) for name in index.parts}
    resets = _resets(index, window, widest)
    edges = {name: [window.start, *(r.starts.get(name, r.first) for r in resets), window.stop] for name in index.parts}
    found, gaps = list[Piece](), [gap for reset in resets for gap in reset.gaps]
    for stretch in range(len(resets) + 1):
        positions = [_received(part, *edges[part.name][stretch : stretch + 2]) for _, part, _ in sources]
        if stretch == 0:
            positions = [
                _with_held(part, window.start, own, tolerance) if is_command else own
                for (_, part, is_command), own, tolerance in zip(sources, positions, tolerances, strict=True)
            ]
        streams = [
            Stream(part.name, part.times[own], tolerance, is_command)
            for (_, part, is_command), own, tolerance in zip(sources, positions, tolerances, strict=True)
        ]
        runs, holes = synchronise(streams, contract.control_hz)
        for run in runs:
            is_last = stretch == len(resets) and run is runs[-1]
            is_end = is_last and all(hole.start + hole.length <= run.times[-1] for hole in holes)
            samples = tuple(own[chosen] for own, chosen in zip(positions, run.samples, strict=True))
            found.append(Piece(Ticks(run.times, samples), window, is_end))
        gaps += holes
    return found, list(dict.fromkeys(gaps))


@dataclass(frozen=True, slots=True)
class _Reset:
    """A clock that jumped back, as it shows in one or more topics."""

    first: int
    """Receipt of the first message by the new time [ns]."""
    starts: dict[str, int]
    """The same for each topic that shows it: topics are recorded one after the other."""
    gaps: list[Gap]


def _resets(index: BagIndex, window: Window, tolerances: dict[str, int]) -> list[_Reset]:
    """Jumps of all parts in order of receipt; those that are a part's first message since another's jump are the same."""
    found = list[_Reset]()
    jumps = [(int(own.receive[at]), t, at) for t, own in index.parts.items() for at in _jumps(own, window, tolerances[t])]
    for receive, topic, at in sorted(jumps):
        own = index.parts[topic]
        if not found or own.receive[at - 1] >= found[-1].first:
            found.append(_Reset(receive, {}, []))
        found[-1].starts[topic] = receive
        found[-1].gaps.append(Gap(topic, int(own.times[at - 1]), int(own.times[at] - own.times[at - 1])))
    return found


def _jumps(part: TopicPart, window: Window, tolerance: int) -> Iterator[int]:
    """Positions of messages from which the clock runs anew, having jumped back by more than the tolerance."""
    inside = _received(part, window.start, window.stop)
    begin, times = 0, part.times[inside]
    while begin < len(times):
        back = np.flatnonzero(np.maximum.accumulate(times[begin:]) - times[begin:] > tolerance)
        if not len(back):
            return
        begin += int(back[0])
        yield int(inside[begin])


def _received(part: TopicPart, start: int, stop: int) -> np.ndarray:
    """Positions of a part's messages received in [start, stop)."""
    return np.flatnonzero((part.receive >= start) & (part.receive < stop))


def _with_held(part: TopicPart, start: int, own: np.ndarray, tolerance: int) -> np.ndarray:
    """The positions, and before them the last command from before the window, if it holds until the first within."""
    before = np.flatnonzero(part.receive < start)
    if not len(before):
        return own
    held = before[part.receive[before].argmax()]
    holds = not len(own) or part.times[own[0]] - part.times[held] <= tolerance
    return np.append(held, own) if holds else own
