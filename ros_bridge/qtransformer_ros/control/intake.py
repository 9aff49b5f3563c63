"""What comes in from a robot: every message is looked at before it may be used, and refused by name rather than guessed at."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Observation
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, StampSource, VectorTopic
from qtransformer_datasets.rosbag.message_types import VECTOR_TYPES
from qtransformer_datasets.rosbag.ros_messages import encode_image, encode_observation, encode_vector, sent_form, word_of
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.control.buffer import Clock, LatestSamples

UNUSABLE = (DatasetError, AttributeError, TypeError, ValueError, OverflowError, BufferError)
"""What a message of the wrong kind can raise when it is read."""
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


class Intake:
    """The newest usable message of every topic that a policy and its limits need.

    `counts` has (topic, what), as `LatestSamples.counts`, and (topic, "rejected") for what could not be used.
    """

    def __init__(
        self,
        contract: TopicContract,
        clock: Clock,
        *,
        joints: tuple[str, ...] = (),
        joint_topic: str = "",
        pose_topic: str = "",
        base_frame: str = "",
        instruction: str = "",
        require_stamps: bool = False,
        max_identical: int = 0,
        lockstep: bool = False,
    ) -> None:
        """`joints`: of `joint_topic`, a JointState, where the arm is measured; `pose_topic`: the same for the tool, whose poses are
        refused where they say another frame than `base_frame`."""
        self.contract = contract
        self.cameras = tuple(camera.topic for camera in contract.cameras.values())
        self.observed = tuple(dict.fromkeys(source.topic for source in contract.observed))
        self.required = tuple(dict.fromkeys((*self.observed, *(t for t in (joint_topic, pose_topic) if t))))
        self._joint_topic, self._pose_topic, self._base_frame = joint_topic, pose_topic, base_frame
        self._sources: dict[str, list[CameraTopic | VectorTopic]] = {topic: [] for topic in self.required}
        for source in contract.observed:
            self._sources[source.topic].append(source)
        self._joints = VectorTopic(topic=joint_topic, type="JointState", joints=joints, units=("1",)) if joint_topic else None
        self._pose = VectorTopic(topic=pose_topic, type="PoseStamped", values=_POSE) if pose_topic else None
        if lockstep:
            _check_stamped(contract)
        self.samples = LatestSamples(
            self.required,
            clock,
            cameras=self.cameras,
            require_stamps=require_stamps,
            by_receipt=contract.clock is StampSource.receive,
            # In lockstep the clock is as old as its last message, and what follows it is newer.
            max_future_s=math.inf if lockstep else 0.05,
            max_identical=0 if lockstep else max_identical,
        )
        self.counts: Counter[tuple[str, str]] = self.samples.counts
        self.rejections: dict[str, tuple[int, str]] = {}
        """Topic to how many messages in a row were rejected, and why the last one."""
        self._forms: dict[str, str] = {}
        """Topic to what its images were like at first."""
        rule = contract.instruction
        self._instruction_topic = rule.topic if rule else ""
        self.instruction: str | None = instruction or (rule.text if rule else "") or (None if self._instruction_topic else "")
        """None: the contract names a topic for it, and nothing has come."""
        self._tool: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None)
        self._positions: dict[str, float] = {}

    def receive(self, topic: str, message: Any) -> str:
        """Take a message, or say why not; "" if it was taken or is of no interest."""
        if topic == self._instruction_topic:
            return self._receive_instruction(topic, message)
        if topic not in self._sources:
            return ""
        try:
            positions, tool = self._look_at(topic, message)
            why = self.samples.put(topic, message)
        except UNUSABLE as error:
            return self.reject(topic, str(error) or type(error).__name__)
        if why in ("out_of_order", "repeated_stamp"):
            return why  # an old message is no broken one: only its topic ages
        if why:
            return self.reject(topic, _WORDS[why])
        self.rejections.pop(topic, None)
        self._positions = positions or self._positions
        self._tool = tool or self._tool
        return ""

    def reject(self, topic: str, why: str) -> str:
        count, _ = self.rejections.get(topic, (0, ""))
        self.rejections[topic] = (count + 1, why)
        self.counts[topic, "rejected"] += 1
        return why

    def observation(self) -> Observation:
        """The observation of now. Raises one of UNUSABLE where an image turns out to be damaged, which is then rejected."""
        try:
            return encode_observation(self.contract, self.samples.messages(self.observed), self.instruction or "")
        except UNUSABLE:
            self._reject_damaged()
            raise

    def measured(self, commanded_velocities: Mapping[str, float] | None = None) -> Measured:
        """Where the arm was last seen."""
        position, orientation = self._tool
        commanded = commanded_velocities or {}
        return Measured(joints=dict(self._positions), position=position, orientation=orientation, commanded_velocities=commanded)

    def forget(self) -> None:
        """Forget all samples, where the arm was, and what images were like."""
        self.samples.clear()
        self.rejections.clear()
        self._tool, self._positions = (None, None), {}
        self.forget_forms()

    def forget_forms(self) -> None:
        """Let cameras change the size and the colours of their images."""
        self._forms.clear()

    def _look_at(self, topic: str, message: Any) -> tuple[dict[str, float] | None, tuple[np.ndarray, np.ndarray] | None]:
        """Raise one of UNUSABLE if the message is; return what it says of the joints and the tool."""
        for source in self._sources[topic]:
            if isinstance(source, CameraTopic):
                self._check_form(topic, sent_form(source, message))
            else:
                _finite(source, message)
        positions = tool = None
        if self._joints and topic == self._joint_topic:
            positions = dict(zip(self._joints.joints, _finite(self._joints, message).tolist(), strict=True))
        if self._pose and topic == self._pose_topic:
            pose = _finite(self._pose, message)
            size = math.hypot(*pose[3:])
            if not 0.9 <= size <= 1.1:
                raise DatasetError(f"orientation expected a quaternion of length 1, found length {size:.3g}")
            self._check_frame(message.header.frame_id)
            tool = pose[:3], pose[3:] / size
        return positions, tool

    def _reject_damaged(self) -> None:
        for camera in self.contract.cameras.values():
            try:
                encode_image(camera, self.samples[camera.topic].message)
            except UNUSABLE as error:
                self.reject(camera.topic, str(error) or type(error).__name__)

    def _check_frame(self, frame: str) -> None:
        """Holds, limits and commands take the tool's numbers for those of `base_frame`. Who names no frame is believed."""
        if frame and self._base_frame and frame.lstrip("/") != self._base_frame.lstrip("/"):
            raise DatasetError(f"frame_id expected '{self._base_frame}', found '{frame}'; set base_frame, or transform the pose")

    def _check_form(self, topic: str, form: str) -> None:
        first = self._forms.setdefault(topic, form)
        if form != first:
            raise DatasetError(f"images were {first}, and now one is {form}; reset after a change")

    def _receive_instruction(self, topic: str, message: Any) -> str:
        try:
            self.instruction = word_of(message)
        except UNUSABLE as error:
            return self.reject(topic, str(error) or type(error).__name__)
        return ""


_WORDS = {
    "future": "its stamp is in the future; synchronise the clocks",
    "no_stamp": "it has no stamp, and stamps are required",
    "bad_stamp": "its stamp is negative",
}


def _finite(source: VectorTopic, message: Any) -> np.ndarray:
    values = encode_vector(source, message)
    # The policy's own type: what overflows float32 is as infinite to it as infinity.
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        named = zip(source.chosen, values.tolist(), finite, strict=True)
        raise DatasetError("not finite: " + ", ".join(f"{name} = {value}" for name, value, good in named if not good))
    return values


def _check_stamped(contract: TopicContract) -> None:
    """Samples of one instant are known by their common stamp."""
    if contract.clock is StampSource.receive:
        raise ConfigError("lockstep goes by stamps, and the contract's clock is receive; use clock: header")
    bare = [s.topic for s in contract.proprio if not VECTOR_TYPES[s.type].stamped]
    if bare:
        raise ConfigError(f"lockstep goes by stamps, and messages of {', '.join(bare)} have none")
