"""Everything about a bag but its payload: when each message came, what was announced, and which episodes that makes."""

import struct
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.suggest import suggest
from qtransformer_datasets.rosbag.consumed_ticks import Samples, TickReport, UnseenSample, follow
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, CameraTopic, EpisodeRule, StampSource, VectorTopic
from qtransformer_datasets.rosbag.message_types import (
    BY_ROS_NAME,
    CAMERA_TYPES,
    CONSUMED_TYPE,
    REWARD_TYPES,
    SERVICE_EVENT_SUFFIX,
    STREAMED_TYPES,
    VECTOR_TYPES,
    WORD_TYPES,
)
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, encode_image, stamp_ns, word_of
from qtransformer_datasets.rosbag.storage import Bag, RawMessage, bag_errors, open_bag, salvaged, typestore
from qtransformer_datasets.rosbag.tick_sync import FOREVER, NANOSECONDS, Gap, Stream, Ticks, Window, synchronise
from qtransformer_datasets.rosbag.topic_contract import TopicContract

_SERVICE_EVENTS = ("request_sent", "request_received", "response_sent", "response_received")


@dataclass(frozen=True, slots=True)
class TopicTimes:
    """When the messages of a topic came, in the order of recording."""

    receive: np.ndarray
    """int64 (N,) [ns]"""
    times: np.ndarray
    """int64 (N,) [ns], by the contract's clock."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class BagIndex:
    bag: Bag
    topics: dict[str, TopicTimes]
    """Of observations and commands."""
    words: dict[str, list[tuple[int, str]]]
    """Topics of words: (receipt [ns], word) of each message."""
    rewards: list[tuple[int, float]]
    """(receipt [ns], reward) of each message."""
    image_sizes: dict[str, tuple[int, int]]
    """(height, width) of the first image of each camera that the contract does not resize, by topic."""
    decisions: list[TickReport]
    """Of a policy that reports what it saw."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An episode, or one of those that gaps split it into."""

    ticks: Ticks
    """Positions of samples are those of `TopicTimes`."""
    window: Window
    is_end: bool
    """Whether the episode ends here: its outcome belongs to this piece."""


def index_bag(path: Path, contract: TopicContract, partial: bool = False) -> BagIndex:
    """Open and scan a bag. Raises DatasetError for one that is broken, or lacks a topic of the contract."""
    bag = open_bag(path, partial)
    try:
        return _index(bag, contract, partial)
    except DatasetError as error:
        if not partial or bag.is_salvage:
            raise
        return _index(salvaged(bag, str(error)), contract, partial)


def timed_messages(
    bag: Bag, topics: Collection[str], clock: StampSource, start: int | None = None, stop: int | None = None
) -> Iterator[tuple[RawMessage, int]]:
    """Messages received in [start, stop) with their time by the clock [ns]: of those with no stamp, or stamp 0, the receipt."""
    for message in bag.messages(topics, start, stop):
        yield message, message_time(bag, message, clock)


def message_time(bag: Bag, message: RawMessage, clock: StampSource) -> int:
    """[ns]; see `timed_messages`."""
    kind = BY_ROS_NAME.get(bag.types.get(message.topic, ""))
    is_stamped = kind is not None and kind.stamped and clock is StampSource.header
    return (_stamp(bag, message) if is_stamped else 0) or message.receive_ns


def deserialize(bag: Bag, message: RawMessage) -> Any:
    """The message as an object; arrays are views of its bytes."""
    with bag_errors(f"{bag.path}: {message.topic}"):
        return typestore().deserialize_cdr(memoryview(message.data), bag.types[message.topic])


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
    """What of a window can be read, and the gaps that keep it from being one piece."""
    return _consumed_pieces(index, window, contract) if contract.ticks else _clocked_pieces(index, window, contract)


def _consumed_pieces(index: BagIndex, window: Window, contract: TopicContract) -> tuple[list[Piece], list[Gap]]:
    """By the ticks that a policy reported."""
    assert contract.ticks

    def samples(source: CameraTopic | VectorTopic, is_streamed: bool = False) -> Samples:
        own = index.topics[source.topic]
        tolerance = round(contract.tolerance_of(source) * NANOSECONDS)
        return Samples(source.topic, own.receive, own.times, tolerance, is_streamed)

    try:
        runs, gaps = follow(
            index.decisions,
            [samples(source) for source in contract.observed],
            [samples(source, _is_streamed(source)) for source in contract.commanded],
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
    sources = [(source, False) for source in contract.observed] + [(source, True) for source in contract.commanded]
    tolerances = [round(contract.tolerance_of(source) * NANOSECONDS) for source, _ in sources]
    widest = {topic: max(t for (s, _), t in zip(sources, tolerances, strict=True) if s.topic == topic) for topic in index.topics}
    resets = _resets(index, window, widest)
    edges = {topic: [window.start, *(r.starts.get(topic, r.first) for r in resets), window.stop] for topic in index.topics}
    found, gaps = list[Piece](), [gap for reset in resets for gap in reset.gaps]
    for stretch in range(len(resets) + 1):
        positions = [_received(index.topics[s.topic], *edges[s.topic][stretch : stretch + 2]) for s, _ in sources]
        if stretch == 0:
            positions = [
                _with_held(index.topics[source.topic], window.start, own, tolerance) if is_command else own
                for (source, is_command), own, tolerance in zip(sources, positions, tolerances, strict=True)
            ]
        streams = [
            Stream(source.topic, index.topics[source.topic].times[own], tolerance, is_command)
            for (source, is_command), own, tolerance in zip(sources, positions, tolerances, strict=True)
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
    """Jumps of all topics in order of receipt; those that are a topic's first message since another's jump are the same."""
    found = list[_Reset]()
    jumps = [(int(own.receive[at]), t, at) for t, own in index.topics.items() for at in _jumps(own, window, tolerances[t])]
    for receive, topic, at in sorted(jumps):
        own = index.topics[topic]
        if not found or own.receive[at - 1] >= found[-1].first:
            found.append(_Reset(receive, {}, []))
        found[-1].starts[topic] = receive
        found[-1].gaps.append(Gap(topic, int(own.times[at - 1]), int(own.times[at] - own.times[at - 1])))
    return found


def _jumps(topic: TopicTimes, window: Window, tolerance: int) -> Iterator[int]:
    """Positions of messages from which the clock runs anew, having jumped back by more than the tolerance."""
    inside = _received(topic, window.start, window.stop)
    begin, times = 0, topic.times[inside]
    while begin < len(times):
        back = np.flatnonzero(np.maximum.accumulate(times[begin:]) - times[begin:] > tolerance)
        if not len(back):
            return
        begin += int(back[0])
        yield int(inside[begin])


def _received(topic: TopicTimes, start: int, stop: int) -> np.ndarray:
    """Positions of the messages received in [start, stop)."""
    return np.flatnonzero((topic.receive >= start) & (topic.receive < stop))


def _with_held(topic: TopicTimes, start: int, own: np.ndarray, tolerance: int) -> np.ndarray:
    """The positions, and before them the last command from before the window, if it holds until the first within."""
    before = np.flatnonzero(topic.receive < start)
    if not len(before):
        return own
    held = before[topic.receive[before].argmax()]
    holds = not len(own) or topic.times[own[0]] - topic.times[held] <= tolerance
    return np.append(held, own) if holds else own


def _index(bag: Bag, contract: TopicContract, partial: bool) -> BagIndex:
    check_topics(bag, contract, partial)
    index = IndexBuilder(bag, contract)
    for message, time in timed_messages(bag, index.wanted, contract.clock):
        index.add(message, time)
    built = index.build()
    _check_counts(built, contract, partial)
    return built


class IndexBuilder:
    """The index of a bag that is being read, or recorded, message by message."""

    def __init__(self, bag: Bag, contract: TopicContract) -> None:
        self.bag = bag
        self._times = {source.topic: (array("q"), array("q")) for source in (*contract.observed, *contract.commanded)}
        self._words: dict[str, list[tuple[int, str]]] = {topic: [] for topic in contract.event_topics()}
        self._reward = contract.reward.topic if contract.reward else ""
        self._ticks = contract.ticks.topic if contract.ticks else ""
        self._native = {camera.topic: camera for camera in contract.cameras.values() if camera.size is None}
        self._sizes, self._rewards = dict[str, tuple[int, int]](), list[tuple[int, float]]()
        self._decisions = list[TickReport]()

    @property
    def wanted(self) -> set[str]:
        """The topics that matter."""
        return {*self._times, *self._words, self._reward, self._ticks} - {""}

    def add(self, message: RawMessage, time: int) -> None:
        """Take a message of a wanted topic with its time by the contract's clock [ns]."""
        topic = message.topic
        if topic in self._times:
            self._times[topic][0].append(message.receive_ns)
            self._times[topic][1].append(time)
            if topic in self._native and topic not in self._sizes:
                self._sizes[topic] = _image_size(self.bag, message, self._native[topic])
        if topic in self._words:
            self._words[topic].append((message.receive_ns, _word(self.bag, message)))
        if topic == self._reward:
            self._rewards.append((message.receive_ns, float(deserialize(self.bag, message).data)))
        if topic == self._ticks:
            self._decisions.append(_tick_report(self.bag, message))

    def build(self) -> BagIndex:
        topics = {topic: TopicTimes(*(np.array(column, np.int64) for column in own)) for topic, own in self._times.items()}
        return BagIndex(self.bag, topics, self._words, self._rewards, self._sizes, self._decisions)


def _stamp(bag: Bag, message: RawMessage) -> int:
    """The stamp of the header a message begins with [ns], without deserialising the rest."""
    try:
        seconds, nanoseconds = struct.unpack_from("<iI" if message.data[1] else ">iI", message.data, 4)
    except (struct.error, IndexError) as error:
        raise DatasetError(f"{bag.path}: {message.topic} has a message too short for its header; the bag is damaged") from error
    return seconds * NANOSECONDS + nanoseconds


def _image_size(bag: Bag, message: RawMessage, camera: CameraTopic) -> tuple[int, int]:
    with bag_errors(f"{bag.path}: {message.topic}"):
        height, width, _ = encode_image(camera, deserialize(bag, message)).shape
        return height, width


def _word(bag: Bag, message: RawMessage) -> str:
    if bag.types[message.topic].endswith(SERVICE_EVENT_SUFFIX):
        kind = message.data[4] if len(message.data) > 4 else len(_SERVICE_EVENTS)
        return _SERVICE_EVENTS[kind] if kind < len(_SERVICE_EVENTS) else ""
    return word_of(deserialize(bag, message))


def _tick_report(bag: Bag, message: RawMessage) -> TickReport:
    content = deserialize(bag, message)
    said = {str(value.key): str(value.value) for status in content.status[:1] for value in status.values}
    digest = said.pop(DIGEST_KEY, "")
    try:
        values = [(topic, int(stamp)) for topic, stamp in said.items()]
    except ValueError as error:
        raise DatasetError(
            f"{bag.path}: {message.topic} expected stamps in whole nanoseconds ({error}); repair what publishes it"
        ) from error
    stamps = {topic if topic.startswith("/") else f"/{topic}": stamp for topic, stamp in values}
    return TickReport(message.receive_ns, stamp_ns(content.header.stamp), stamps, digest)


def check_topics(bag: Bag, contract: TopicContract, partial: bool = False) -> None:
    """Every topic of the contract is there and of its type. Of a broken bag what is announced may be lost."""
    sources = (*contract.observed, *contract.commanded)
    expected = {source.topic: {(CAMERA_TYPES | VECTOR_TYPES)[source.type].name} for source in sources}
    if contract.reward:
        expected[contract.reward.topic] = {kind.name for kind in REWARD_TYPES.values()}
    if contract.ticks:
        expected[contract.ticks.topic] = {CONSUMED_TYPE.name}
    words = {kind.name for kind in WORD_TYPES.values()}
    announced = {*contract.event_topics(), *([contract.reward.topic] if contract.reward else [])}
    optional = announced if partial else set[str]()
    missing = [topic for topic in (*expected, *contract.event_topics()) if topic not in bag.types and topic not in optional]
    if missing:
        hint = suggest(missing[0], list(bag.types)) if bag.types else "the bag has no topic at all"
        raise DatasetError(f"{bag.path}: has no topic {', '.join(missing)}; {hint}: correct the contract, or leave this bag out")
    for topic, kinds in expected.items():
        if bag.types.get(topic, min(kinds)) not in kinds:
            raise DatasetError(f"{bag.path}: {topic} expected {' or '.join(kinds)}, found {bag.types[topic]}; correct the contract")
    for topic in bag.types.keys() & set(contract.event_topics()):
        if bag.types[topic] not in words and not bag.types[topic].endswith(SERVICE_EVENT_SUFFIX):
            raise DatasetError(f"{bag.path}: {topic} expected words ({', '.join(words)}), found {bag.types[topic]}")


def _check_counts(index: BagIndex, contract: TopicContract, partial: bool) -> None:
    bag, found = index.bag, {topic: len(own) for topic, own in index.topics.items()}
    if contract.ticks:
        found[contract.ticks.topic] = len(index.decisions)
    empty = [topic for topic, count in found.items() if not count]
    if empty:
        raise DatasetError(f"{bag.path}: no message on {', '.join(empty)}; leave this bag out, or correct the contract")
    fewer = [f"{t} {n} of {bag.declared[t]}" for t, n in found.items() if n < bag.declared.get(t, 0)]
    if fewer and not partial:
        raise DatasetError(f"{bag.path}: messages are lost ({', '.join(fewer)}); copy it again, or use partial=True")
