"""Whether the messages of a topic are what the contract's entries expect, tried on as few of them as will do.

One that can be read settles it for an entry: single bad messages, such as a command to stop, matter only where a tick uses them. An
entry that can read none at all is a mistake of the contract, and is told as such before any episode is read.
"""

from collections.abc import Iterable
from typing import Any

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, VectorTopic
from qtransformer_datasets.rosbag.message_types import CAMERA_TYPES, SHARED_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.ros_messages import encode_image, encode_vector, sent_form
from qtransformer_datasets.rosbag.shared_joints import told_by


class _Trial:
    """Of one entry."""

    def __init__(self, source: CameraTopic | VectorTopic) -> None:
        self.source, self.ros_type = source, (CAMERA_TYPES | VECTOR_TYPES)[source.type].name
        self.is_settled, self.complaint = False, ""


class Trials:
    """Of all entries of a contract."""

    def __init__(self, sources: Iterable[CameraTopic | VectorTopic]) -> None:
        self._trials: dict[str, list[_Trial]] = {}
        for source in sources:
            self._trials.setdefault(source.topic, []).append(_Trial(source))
        self.image_sizes: dict[str, tuple[int, int]] = {}
        """(height, width) of the first readable image of each camera that the contract does not resize, by topic."""

    def awaits(self, topic: str, ros_type: str) -> bool:
        """Whether an entry has read no message of this topic yet, though it is of its type: others are told without a trial."""
        return any(trial.ros_type == ros_type and not trial.is_settled for trial in self._trials[topic])

    def include(self, topic: str, message: Any) -> None:
        """Have every entry that has read none try this message."""
        for trial in self._trials[topic]:
            if not trial.is_settled:
                self._try(trial, message)

    def refuse(self, topic: str, why: str) -> None:
        """Take note of a message that is none at all."""
        for trial in self._trials[topic]:
            trial.complaint = trial.complaint or why

    def misfits(self) -> list[tuple[str, str]]:
        """(topic, why) of every entry that could read none of the messages it tried."""
        trials = (trial for own in self._trials.values() for trial in own)
        return [(trial.source.topic, trial.complaint) for trial in trials if trial.complaint and not trial.is_settled]

    def _try(self, trial: _Trial, message: Any) -> None:
        try:
            trial.is_settled = self._reads(trial.source, message)
        except DatasetError as error:
            trial.complaint = trial.complaint or str(error)

    def _reads(self, source: CameraTopic | VectorTopic, message: Any) -> bool:
        """False of a message of another publisher, which tells nothing. Raises DatasetError for one that is unreadable."""
        if isinstance(source, CameraTopic):
            if source.size is None:
                height, width, _ = encode_image(source, message).shape
                self.image_sizes[source.topic] = height, width
            else:
                sent_form(source, message)  # as good, without decoding
            return True
        if source.type in SHARED_TYPES and set(source.joints).isdisjoint(message.name):
            return False
        own, _ = told_by(source, message.name if source.type in SHARED_TYPES else ())
        encode_vector(own, message)
        return True
