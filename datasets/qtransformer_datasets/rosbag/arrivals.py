"""When the messages of a topic came, and, where publishers share it, whose they are; of a bag that is read or recorded."""

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.shared_joints import Names, SharedJoints
from qtransformer_datasets.rosbag.storage import Bag, RawMessage

_FRAME_AT = 12
"""Where a header's frame begins: behind four bytes that say how it is encoded, and its stamp."""


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
class TopicPart(TopicTimes):
    """The messages of a topic; of one that publishers share (`shared_joints`), those of one of them."""

    name: str
    topic: str
    places: np.ndarray
    """int64 (N,): which messages of the topic they are."""
    joints: tuple[str, ...] = ()
    """Which of the joints that are needed of a shared topic it tells."""
    topic_count: int = 0
    """How many messages the topic has in all."""


class Arrivals:
    """The messages of one topic, one by one."""

    def __init__(self, topic: str, *, is_shared: bool) -> None:
        self.topic = topic
        self._is_shared = is_shared
        self._receive, self._times = array("q"), array("q")
        self._known = dict[Names, int]()
        """Of a shared topic: the sets of joints that its messages name, numbered as they came up."""
        self._numbers = array("q")
        """Of a shared topic: the number of each message's set."""

    def add(self, bag: Bag, message: RawMessage, time: int) -> None:
        """Take note of a message with its time by the contract's clock [ns]. Raises DatasetError for one that is too short."""
        if self._is_shared:
            self._numbers.append(self._known.setdefault(_joint_names(bag, message), len(self._known)))
        self._receive.append(message.receive_ns)
        self._times.append(time)

    def times(self) -> TopicTimes:
        """Of all of them."""
        return TopicTimes(np.array(self._receive, np.int64), np.array(self._times, np.int64))

    def names(self) -> dict[Names, tuple[int, int]]:
        """The sets of joints that messages of a shared topic name, in the order in which they came up, with the places of the first
        and the last message of each."""
        last = {number: place for place, number in enumerate(self._numbers)}
        first = {number: len(self._numbers) - 1 - place for place, number in enumerate(reversed(self._numbers))}
        return {names: (first[number], last[number]) for names, number in self._known.items()}

    def parts(self, joints: Sequence[str]) -> Iterator[TopicPart]:
        """The topic as one; of a shared one its parts that tell any of these joints, if there are any."""
        shared, numbers = SharedJoints(self.topic, joints), np.array(self._numbers, np.int64)
        labels = {names: shared.label(names) for names in self._known}
        found = list(dict.fromkeys(filter(None, labels.values())))
        for label in found:
            same = [names for names in self._known if labels[names] == label]
            places = np.flatnonzero(np.isin(numbers, [self._known[names] for names in same]))
            yield self._part(label, places, shared.told(same[0]))
        if not found:
            yield self._part(self.topic, np.arange(len(self._times)), ())

    def _part(self, name: str, places: np.ndarray, joints: tuple[str, ...]) -> TopicPart:
        own = self.times()
        return TopicPart(own.receive[places], own.times[places], name, self.topic, places, joints, topic_count=len(own))


def _joint_names(bag: Bag, message: RawMessage) -> Names:
    """The joints that a message names behind its header, without deserialising the rest: CDR aligns lengths to four bytes, and
    counts the zero that ends a text."""
    data, found = message.data, list[str]()
    try:
        number_at = struct.Struct("<I" if data[1] else ">I").unpack_from
        at = _behind(_FRAME_AT, *number_at(data, _FRAME_AT))
        (count,) = number_at(data, at)
        at += 4
        for _ in range(count):
            (length,) = number_at(data, at)
            found.append(bytes(data[at + 4 : at + 3 + length]).decode(errors="replace"))
            at = _behind(at, length)
    except (struct.error, IndexError) as error:
        raise DatasetError(f"{bag.path}: {message.topic} has a message too short for its joints; the bag is damaged") from error
    return frozenset(found)


def _behind(at: int, length: int) -> int:
    """Where the number behind a text stands, whose length stands at `at`."""
    return (at + 4 + length + 3) // 4 * 4
