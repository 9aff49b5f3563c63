"""Everything about a bag but its payload: when each message came and whose it is, and what was announced."""

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qtransformer.errors import DatasetError
from qtransformer.suggest import suggest
from qtransformer_datasets.rosbag.arrivals import Arrivals, TopicPart, TopicTimes
from qtransformer_datasets.rosbag.consumed_ticks import TickReport
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, StampSource, VectorTopic
from qtransformer_datasets.rosbag.message_types import (
    BY_ROS_NAME,
    CAMERA_TYPES,
    CONSUMED_TYPE,
    REWARD_TYPES,
    SERVICE_EVENT_SUFFIX,
    VECTOR_TYPES,
    WORD_TYPES,
)
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, encode_image, stamp_ns, word_of
from qtransformer_datasets.rosbag.shared_joints import Names, SharedJoints
from qtransformer_datasets.rosbag.storage import Bag, RawMessage, bag_errors, open_bag, salvaged, typestore
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract

Source = TypeVar("Source", bound=CameraTopic | VectorTopic)

_SERVICE_EVENTS = ("request_sent", "request_received", "response_sent", "response_received")


@dataclass(frozen=True, slots=True)
class BagIndex:
    bag: Bag
    topics: dict[str, TopicTimes]
    """Of observations and commands."""
    parts: dict[str, TopicPart]
    """Of the same, by name: what is there of shared topics that the contract needs, and all others as they are."""
    names: dict[str, dict[Names, tuple[int, int]]]
    """Shared topic to the sets of joints that its messages name, in the order in which they came up: which is the first message of
    each, and which the last."""
    words: dict[str, list[tuple[int, str]]]
    """Topics of words: (receipt [ns], word) of each message."""
    rewards: list[tuple[int, float]]
    """(receipt [ns], reward) of each message."""
    image_sizes: dict[str, tuple[int, int]]
    """(height, width) of the first image of each camera that the contract does not resize, by topic."""
    decisions: list[TickReport]
    """Of a policy that reports what it saw."""

    def readings(self, sources: Iterable[Source]) -> list[tuple[Source, TopicPart]]:
        """Entries of the contract, each as often as there are parts that it reads, with those."""
        return [(source, part) for source in sources for part in self.parts.values() if _is_read(source, part)]


def _is_read(source: CameraTopic | VectorTopic, part: TopicPart) -> bool:
    if isinstance(source, CameraTopic) or not part.joints:
        return part.topic == source.topic
    return part.topic == source.topic and not set(part.joints).isdisjoint(source.joints)


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
        self._shared = contract.shared_joints()
        needed = (*contract.observed, *contract.commanded)
        self._arrivals = {s.topic: Arrivals(s.topic, is_shared=s.topic in self._shared) for s in needed}
        self._words: dict[str, list[tuple[int, str]]] = {topic: [] for topic in contract.event_topics()}
        self._reward = contract.reward.topic if contract.reward else ""
        self._ticks = contract.ticks.topic if contract.ticks else ""
        self._native = {camera.topic: camera for camera in contract.cameras.values() if camera.size is None}
        self._sizes, self._rewards = dict[str, tuple[int, int]](), list[tuple[int, float]]()
        self._decisions = list[TickReport]()

    @property
    def wanted(self) -> set[str]:
        """The topics that matter."""
        return {*self._arrivals, *self._words, self._reward, self._ticks} - {""}

    def add(self, message: RawMessage, time: int) -> None:
        """Take a message of a wanted topic with its time by the contract's clock [ns]."""
        topic = message.topic
        if topic in self._arrivals:
            self._arrivals[topic].add(self.bag, message, time)
            if topic in self._native and topic not in self._sizes:
                self._sizes[topic] = _image_size(self.bag, message, self._native[topic])
        if topic in self._words:
            self._words[topic].append((message.receive_ns, _word(self.bag, message)))
        if topic == self._reward:
            self._rewards.append((message.receive_ns, float(deserialize(self.bag, message).data)))
        if topic == self._ticks:
            self._decisions.append(_tick_report(self.bag, message))

    def build(self) -> BagIndex:
        topics = {topic: own.times() for topic, own in self._arrivals.items()}
        parts = {part.name: part for topic, own in self._arrivals.items() for part in own.parts(self._shared.get(topic, ()))}
        names = {topic: self._arrivals[topic].names() for topic in self._shared}
        return BagIndex(self.bag, topics, parts, names, self._words, self._rewards, self._sizes, self._decisions)


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


def check_joints(index: BagIndex, contract: TopicContract) -> None:
    """Every joint of a shared topic is told, by one publisher."""
    for topic, joints in contract.shared_joints().items():
        shared, names = SharedJoints(topic, joints), index.names[topic]
        try:
            _take_all(shared, names)
        except DatasetError as error:
            raise DatasetError(f"{index.bag.path}: {topic}: {error}") from error
        if shared.untold:
            hint = suggest(shared.untold[0], sorted({name for own in names for name in own}))
            raise DatasetError(
                f"{index.bag.path}: {topic} expected the joints {', '.join(shared.untold)}, which none of its "
                f"{len(index.topics[topic])} messages names; {hint}: correct the contract, or record who tells them, too"
            )


def _take_all(shared: SharedJoints, names: dict[Names, tuple[int, int]]) -> None:
    """As they came. One that has ended gives way to one that tells the same: its publisher came to name joints besides that nobody
    needs, or stopped doing so."""
    for own, (first, _) in names.items():
        for rival in shared.rivals(own):
            if names[rival][1] < first and shared.told(rival) == shared.told(own):
                shared.drop(rival)
        shared.take(own)


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
