"""The newest message of every topic, with what its age, its order and its neighbours say about it."""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from qtransformer_datasets.rosbag.ros_messages import stamp_ns
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS


class Clock(Protocol):
    """Both clocks that a robot's samples go by."""

    def monotonic_ns(self) -> int:
        """Never jumps: ages and time-outs go by it."""
        ...

    def ros_ns(self) -> int:
        """ROS time, simulated or not: may jump."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A message that was taken."""

    message: Any
    stamp_ns: int
    """When it was measured, in ROS time: its header's stamp, or its receipt where it has none."""
    received_ns: int
    """When it came, in monotonic time."""
    lag_ns: int
    """How old it was then, by its stamp and ROS time."""
    header_ns: int | None
    """Its header's stamp, whatever clock that is of; see `message_stamp_ns`."""


class LatestSamples:
    """One slot per topic, or part of one (`shared_joints`); nothing queues. What is not newer than what is there is dropped, and
    does not make its topic look alive.

    `counts` has (topic, what): taken, out_of_order, repeated_stamp, future, no_stamp, bad_stamp.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        cameras: Iterable[str] = (),
        require_stamps: bool = False,
        by_receipt: bool = False,
        max_future_s: float = 0.05,
        max_identical: int = 0,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._clock, self._cameras = clock, frozenset(cameras)
        self._require_stamps, self._by_receipt = require_stamps, by_receipt
        self._max_future_s, self._max_identical = max_future_s, max_identical
        self._samples: dict[str, Sample] = {}
        self._digests: dict[str, tuple[int, int]] = {}
        """Topic of a camera to the checksum of its newest image, and how many in a row had it."""

    def __getitem__(self, topic: str) -> Sample:
        return self._samples[topic]

    def __contains__(self, topic: str) -> bool:
        return topic in self._samples

    def put(self, topic: str, message: Any) -> str:
        """Take a message, or say why not; "" if it was taken."""
        now = self._clock.ros_ns()
        header = message_stamp_ns(message)
        why = self._refuse(topic, header, now)
        if why:
            return why
        stamp = now if self._by_receipt or not header else header
        before = self._samples.get(topic)
        # Stamps of receipt may repeat, where ROS time stands still between two messages; they never run backwards. A header that
        # repeats itself is the same measurement again, whatever its clock.
        if before and header and header == before.header_ns:
            return self._count(topic, "repeated_stamp")
        if before and stamp < before.stamp_ns:
            return self._count(topic, "out_of_order")
        received = self._clock.monotonic_ns()
        self._samples[topic] = Sample(message=message, stamp_ns=stamp, received_ns=received, lag_ns=now - stamp, header_ns=header)
        self.counts[topic, "taken"] += 1
        if topic in self._cameras and self._max_identical:
            self._note_pixels(topic, message)
        return ""

    def clear(self) -> None:
        """Forget all samples; the counts stay."""
        self._samples.clear()
        self._digests.clear()

    def age_s(self, topic: str) -> float | None:
        """Time since the topic's newest sample came [s]; None before the first."""
        sample = self._samples.get(topic)
        return None if sample is None else (self._clock.monotonic_ns() - sample.received_ns) / NANOSECONDS

    def lag_s(self, topic: str) -> float:
        """How old the topic's newest sample was when it came [s]: what comes steadily may come late."""
        return self._samples[topic].lag_ns / NANOSECONDS

    def taken(self, topic: str) -> int:
        """How many samples of a topic were taken so far."""
        return self.counts[topic, "taken"]

    def frozen(self, topic: str) -> bool:
        """Whether a camera sent `max_identical` images in a row that are the same to the last bit: no sensor does."""
        return bool(self._max_identical) and self._digests.get(topic, (0, 0))[1] >= self._max_identical

    def stamps(self, topics: Iterable[str]) -> dict[str, int]:
        """Topic to stamp [ns], for those that have a sample."""
        return {topic: self._samples[topic].stamp_ns for topic in topics if topic in self._samples}

    def skew_s(self, topics: Iterable[str]) -> float:
        """Largest difference of stamps between topics [s]: samples far apart do not describe one moment."""
        stamps = self.stamps(topics).values()
        return (max(stamps) - min(stamps)) / NANOSECONDS if stamps else 0.0

    def messages(self, topics: Iterable[str]) -> Mapping[str, Any]:
        return {topic: self._samples[topic].message for topic in topics}

    def _refuse(self, topic: str, header: int | None, now: int) -> str:
        if header is not None and header < 0:
            return self._count(topic, "bad_stamp")
        if header == 0 and self._require_stamps:
            return self._count(topic, "no_stamp")
        if header and not self._by_receipt and header - now > self._max_future_s * NANOSECONDS:
            return self._count(topic, "future")
        return ""

    def _count(self, topic: str, what: str) -> str:
        self.counts[topic, what] += 1
        return what

    def _note_pixels(self, topic: str, message: Any) -> None:
        digest = zlib.crc32(memoryview(message.data).cast("B"))
        before, repeats = self._digests.get(topic, (None, 0))
        self._digests[topic] = (digest, repeats + 1 if digest == before else 1)


def message_stamp_ns(message: Any) -> int | None:
    """The stamp of a message's header [ns], 0 if it was not set; None for types without a header."""
    header = getattr(message, "header", None)
    return None if header is None else stamp_ns(header.stamp)
