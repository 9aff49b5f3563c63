"""Everything about a bag but its payload: when each message came and whose it is, and what was announced."""

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.arrivals import Arrivals, TopicPart, TopicTimes
from qtransformer_datasets.rosbag.consumed_ticks import TickReport
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, StampSource, VectorTopic
from qtransformer_datasets.rosbag.message_types import BY_ROS_NAME, SERVICE_EVENT_SUFFIX
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, stamp_ns, word_of
from qtransformer_datasets.rosbag.shared_joints import Names
from qtransformer_datasets.rosbag.storage import Bag, RawMessage, bag_errors, typestore
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_datasets.rosbag.trials import Trials

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
    """(height, width) of the first readable image of each camera that the contract does not resize, by topic."""
    misfits: list[tuple[str, str]]
    """(topic, why) of every entry of the contract that can read none of the messages of its topic (`trials`)."""
    decisions: list[TickReport]
    """Of a policy that reports what it saw."""

    def readings(self, sources: Iterable[Source]) -> list[tuple[Source, TopicPart]]:
        """Entries of the contract, each as often as there are parts that it reads, with those."""
        return [(source, part) for source in sources for part in self.parts.values() if _is_read(source, part)]


def _is_read(source: CameraTopic | VectorTopic, part: TopicPart) -> bool:
    if isinstance(source, CameraTopic) or not part.joints:
        return part.topic == source.topic
    return part.topic == source.topic and not set(part.joints).isdisjoint(source.joints)


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
        self._trials, self._rewards = Trials(needed), list[tuple[int, float]]()
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
            if self._trials.awaits(topic, self.bag.types[topic]):
                self._try(message)
        if topic in self._words:
            self._words[topic].append((message.receive_ns, _word(self.bag, message)))
        if topic == self._reward:
            self._rewards.append((message.receive_ns, float(deserialize(self.bag, message).data)))
        if topic == self._ticks:
            self._decisions.append(_tick_report(self.bag, message))

    def _try(self, message: RawMessage) -> None:
        try:
            content = deserialize(self.bag, message)
        except DatasetError as error:
            self._trials.refuse(message.topic, str(error).removeprefix(f"{self.bag.path}: {message.topic}: "))
        else:
            self._trials.include(message.topic, content)

    def build(self) -> BagIndex:
        topics = {topic: own.times() for topic, own in self._arrivals.items()}
        parts = {part.name: part for topic, own in self._arrivals.items() for part in own.parts(self._shared.get(topic, ()))}
        names = {topic: self._arrivals[topic].names() for topic in self._shared}
        sizes, misfits = self._trials.image_sizes, self._trials.misfits()
        return BagIndex(self.bag, topics, parts, names, self._words, self._rewards, sizes, misfits, self._decisions)


def _stamp(bag: Bag, message: RawMessage) -> int:
    """The stamp of the header a message begins with [ns], without deserialising the rest."""
    try:
        seconds, nanoseconds = struct.unpack_from("<iI" if message.data[1] else ">iI", message.data, 4)
    except (struct.error, IndexError) as error:
        raise DatasetError(f"{bag.path}: {message.topic} has a message too short for its header; the bag is damaged") from error
    return seconds * NANOSECONDS + nanoseconds


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
