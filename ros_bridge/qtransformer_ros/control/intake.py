"""What comes in from a robot: every message is looked at before it may be used, and refused by name rather than guessed at."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Observation
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, StampSource, VectorTopic
from qtransformer_datasets.rosbag.message_types import SHARED_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.ros_messages import encode_image, encode_observation, encode_vector, sent_form, word_of
from qtransformer_datasets.rosbag.shared_joints import SharedJoints, told_by
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.control.buffer import Clock, LatestSamples

UNUSABLE = (DatasetError, AttributeError, TypeError, ValueError, OverflowError, BufferError)
"""What a message of the wrong kind can raise when it is read."""
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


class Intake:
    """The newest usable message of every topic that a policy and its limits need; of a topic of joints that publishers share, of
    each part (`shared_joints`).

    `counts` has (topic or part, what), as `LatestSamples.counts`, (topic, "rejected") for what could not be used, and
    (topic, "foreign") for what tells only joints that nobody needs.
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
        joint_timeout_s: float = math.inf,
    ) -> None:
        """`joints`: of `joint_topic`, a JointState, where the arm is measured; `pose_topic`: the same for the tool, whose poses are
        refused where they say another frame than `base_frame`; `joint_timeout_s`: silence after which a joint may come from another
        publisher [s], never in lockstep, where silence is no age."""
        self.contract = contract
        self.cameras = tuple(camera.topic for camera in contract.cameras.values())
        self._observed = tuple(dict.fromkeys(source.topic for source in contract.observed))
        self._topics = tuple(dict.fromkeys((*self._observed, *(t for t in (joint_topic, pose_topic) if t))))
        self._joint_topic, self._pose_topic, self._base_frame = joint_topic, pose_topic, base_frame
        self._sources: dict[str, list[CameraTopic | VectorTopic]] = {topic: [] for topic in self._topics}
        for source in contract.observed:
            self._sources[source.topic].append(source)
        self._joints = VectorTopic(topic=joint_topic, type="JointState", joints=joints, units=("1",)) if joint_topic else None
        self._shared = _shared_topics(contract, self._observed, self._joints)
        self._joint_timeout_s = math.inf if lockstep else joint_timeout_s
        self._pose = VectorTopic(topic=pose_topic, type="PoseStamped", values=_POSE) if pose_topic else None
        if lockstep:
            _check_stamped(contract)
        self.samples = LatestSamples(
            clock,
            cameras=self.cameras,
            require_stamps=require_stamps,
            by_receipt=contract.clock is StampSource.receive,
            # In lockstep the clock is as old as its last message, and what follows it is newer.
            max_future_s=math.inf if lockstep else 0.05,
            max_identical=0 if lockstep else max_identical,
        )
        self.counts: Counter[tuple[str, str]] = self.samples.counts
        self._rejections: dict[tuple[str, str], tuple[int, str]] = {}
        """Topic and part to how many messages in a row were rejected, and why the last one; part "": what belongs to none."""
        self._forms: dict[str, str] = {}
        """Topic to what its images were like at first."""
        rule = contract.instruction
        self._instruction_topic = rule.topic if rule else ""
        self.instruction: str | None = instruction or (rule.text if rule else "") or (None if self._instruction_topic else "")
        """None: the contract names a topic for it, and nothing has come."""
        self._tool: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None)
        self._positions: dict[str, float] = {}

    @property
    def observed(self) -> tuple[str, ...]:
        """Topics and parts that an observation is made of."""
        return self._parts(self._observed)

    @property
    def required(self) -> tuple[str, ...]:
        """The same, and what the arm is measured by. Joints that nobody has told yet are one part of their topic."""
        return self._parts(self._topics)

    def receive(self, topic: str, message: Any) -> str:
        """Take a message, or say why not; "" if it was taken or is of no interest."""
        if topic == self._instruction_topic:
            return self._receive_instruction(topic, message)
        if topic not in self._sources:
            return ""
        part = ""
        try:
            part = self._part(topic, message)
            if not part:
                self.counts[topic, "foreign"] += 1
                return ""
            positions, tool = self._look_at(topic, message)
            why = self.samples.put(part, message)
        except UNUSABLE as error:
            return self._reject(topic, part, str(error) or type(error).__name__)
        if why in ("out_of_order", "repeated_stamp"):
            return why  # an old message is no broken one: only its topic ages
        if why:
            return self._reject(topic, part, _WORDS[why])
        self._rejections.pop((topic, part), None)
        self._positions |= positions
        self._tool = tool or self._tool
        return ""

    def rejected(self, topic: str) -> tuple[int, str]:
        """How many messages of a topic, or of its worst part, were rejected in a row, and why the last one."""
        return max((own for (other, _), own in self._rejections.items() if other == topic), default=(0, ""))

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
        self._rejections.clear()
        self._tool, self._positions = (None, None), {}
        self.forget_forms()

    def forget_forms(self) -> None:
        """Let cameras change the size and the colours of their images, and forgive publishers that told the joints of others."""
        self._forms.clear()
        for topic in self._shared:
            self._rejections.pop((topic, ""), None)

    def _parts(self, topics: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part for topic in topics for part in (self._shared[topic].parts if topic in self._shared else (topic,)))

    def _part(self, topic: str, message: Any) -> str:
        """The part of its topic that a message belongs to; "" if it tells nothing that is needed. Raises one of UNUSABLE."""
        shared = self._shared.get(topic)
        if shared is None:
            return topic
        names = frozenset(message.name)
        if not names:
            raise DatasetError("it names no joint; repair what publishes it")
        for rival in shared.rivals(names):
            if self._is_silent(shared.label(rival)):
                shared.drop(rival)
        return shared.take(names)

    def _is_silent(self, part: str) -> bool:
        age = self.samples.age_s(part)
        return age is None or age > self._joint_timeout_s

    def _look_at(self, topic: str, message: Any) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray] | None]:
        """Raise one of UNUSABLE if the message is; return what it says of the joints and the tool."""
        for source in self._sources[topic]:
            if isinstance(source, CameraTopic):
                self._check_form(topic, sent_form(source, message))
            else:
                _numbers(source, message)
        positions, tool = dict[str, float](), None
        if self._joints and topic == self._joint_topic:
            positions = _numbers(self._joints, message)
        if self._pose and topic == self._pose_topic:
            pose = np.array([*_numbers(self._pose, message).values()])
            size = math.hypot(*pose[3:])
            if not 0.9 <= size <= 1.1:
                raise DatasetError(f"orientation expected a quaternion of length 1, found length {size:.3g}")
            self._check_frame(message.header.frame_id)
            tool = pose[:3], pose[3:] / size
        return positions, tool

    def _reject(self, topic: str, part: str, why: str) -> str:
        count, _ = self._rejections.get((topic, part), (0, ""))
        self._rejections[topic, part] = (count + 1, why)
        self.counts[topic, "rejected"] += 1
        return why

    def _reject_damaged(self) -> None:
        for camera in self.contract.cameras.values():
            try:
                encode_image(camera, self.samples[camera.topic].message)
            except UNUSABLE as error:
                self._reject(camera.topic, camera.topic, str(error) or type(error).__name__)

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
            return self._reject(topic, topic, str(error) or type(error).__name__)
        return ""


_WORDS = {
    "future": "its stamp is in the future; synchronise the clocks",
    "no_stamp": "it has no stamp, and stamps are required",
    "bad_stamp": "its stamp is negative",
}


def _shared_topics(contract: TopicContract, observed: tuple[str, ...], measured: VectorTopic | None) -> dict[str, SharedJoints]:
    """Those of the observed topics, and the measured one, that publishers may share."""
    joints = {topic: own for topic, own in contract.shared_joints().items() if topic in observed}
    if measured:
        joints.setdefault(measured.topic, measured.joints)
    extra = {measured.topic: measured.joints} if measured else {}
    return {topic: SharedJoints(topic, own, extra.get(topic, ())) for topic, own in joints.items()}


def _numbers(source: VectorTopic, message: Any) -> dict[str, float]:
    """What a message tells of an entry, by joint or value. Raises DatasetError for what is not finite."""
    if source.type in SHARED_TYPES and set(source.joints).isdisjoint(message.name):
        return {}
    source, _ = told_by(source, getattr(message, "name", ()))
    values = encode_vector(source, message)
    # The policy's own type: what overflows float32 is as infinite to it as infinity.
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        named = zip(source.chosen, values.tolist(), finite, strict=True)
        raise DatasetError("not finite: " + ", ".join(f"{name} = {value}" for name, value, good in named if not good))
    return dict(zip(source.chosen, values.tolist(), strict=True))


def _check_stamped(contract: TopicContract) -> None:
    """Samples of one instant are known by their common stamp."""
    if contract.clock is StampSource.receive:
        raise ConfigError("lockstep goes by stamps, and the contract's clock is receive; use clock: header")
    bare = [s.topic for s in contract.proprio if not VECTOR_TYPES[s.type].stamped]
    if bare:
        raise ConfigError(f"lockstep goes by stamps, and messages of {', '.join(bare)} have none")
