"""The entries of a topic contract: cameras, numbers, commands, and the rules that mark episodes, outcomes and ticks.

Each checks itself as it is made; what concerns several of them is checked by the contract.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest
from qtransformer_datasets.rosbag.message_types import (
    ARRAY_TYPES,
    CAMERA_TYPES,
    FIXED_TYPES,
    JOINT_TYPES,
    NUMBER_TYPES,
    VECTOR_TYPES,
)

T = TypeVar("T")

IMAGE_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")


class StampSource(Enum):
    """What a message is timed by. Messages without a stamp, or with stamp 0, are timed by their receipt."""

    header = "header"
    """Its header's stamp: when it was measured."""
    receive = "receive"
    """When the recorder received it: what a robot could know, and when."""


class JointField(Enum):
    position = "position"
    velocity = "velocity"
    effort = "effort"


class NextStateMode(Enum):
    difference = "difference"
    """The value at the next tick minus the value now."""
    absolute = "absolute"
    """The value at the next tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraTopic:
    topic: str
    type: str = "Image"
    """`Image` or `CompressedImage` (JPEG or PNG)."""
    size: tuple[int, int] | None = None
    """(height, width) to resize to by area interpolation, aspect not kept; by default as it comes."""
    encoding: str = ""
    """Overrules the encoding an `Image` says it has."""
    tolerance_s: float | None = None
    """Age up to which a sample still counts [s]; by default the contract's."""

    def __post_init__(self) -> None:
        _check_type(self.type, CAMERA_TYPES)
        if self.size is not None and not all(1 <= side <= 1 << 14 for side in self.size):
            raise ConfigError(f"size expected (height, width) from 1 to {1 << 14}, found {self.size}")
        if self.encoding and self.encoding not in IMAGE_ENCODINGS:
            raise ConfigError(f"encoding '{self.encoding}' is unknown; {suggest(self.encoding, IMAGE_ENCODINGS)}")
        if self.encoding and self.type != "Image":
            raise ConfigError("encoding overrules that of an Image; a CompressedImage carries its own: remove it")
        check_tolerance(self.tolerance_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorTopic:
    """Numbers of one topic, in the order of this contract."""

    topic: str
    type: str
    """A key of `message_types.VECTOR_TYPES`."""
    joints: tuple[str, ...] = ()
    """JointState, JointTrajectory: which joints."""
    field: JointField = JointField.position
    """JointState, JointTrajectory: which of their numbers."""
    values: tuple[str, ...] = ()
    """Pose, twist, wrench: which of `x y z qx qy qz qw`, `vx .. wz`, `fx .. tz`; by default all. Arrays: a name for every
    element. Single numbers: its name."""
    names: tuple[str, ...] = ()
    """What the dimensions are called in the specs; by default `<joint>.<field>`, or `values`."""
    units: tuple[str, ...] = ()
    """One unit per dimension, as `rad`, `m`, `1`. Pose, twist and wrench have theirs."""
    tolerance_s: float | None = None
    """Age up to which a sample still counts [s]; by default the contract's."""

    def __post_init__(self) -> None:
        _check_type(self.type, VECTOR_TYPES)
        check_tolerance(self.tolerance_s)
        self._check_choice()
        for name in ("joints", "values", "names"):
            check_unique(getattr(self, name), name)
        if self.names and len(self.names) != len(self):
            raise ConfigError(f"names expected {len(self)} entries, one per dimension, found {len(self.names)}")
        if self.type in FIXED_TYPES and self.units:
            raise ConfigError(f"units of {self.type} are fixed: remove them")
        if self.type not in FIXED_TYPES:
            spread(self.units, len(self), "units")

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Joints, or values, in the contract's order."""
        return self.joints or self.values or tuple(VECTOR_TYPES[self.type].values)

    @property
    def dimension_names(self) -> tuple[str, ...]:
        return self.names or tuple(f"{joint}.{self.field.value}" for joint in self.joints) or self.chosen

    @property
    def dimension_units(self) -> tuple[str, ...]:
        if self.type in FIXED_TYPES:
            return tuple(FIXED_TYPES[self.type].values[name][1] for name in self.chosen)
        return spread(self.units, len(self), "units")

    def _check_choice(self) -> None:
        if self.type in JOINT_TYPES:
            if not self.joints or self.values:
                raise ConfigError(f"{self.type} expected `joints`, a list of joint names, and no `values`")
            return
        if self.joints or self.field is not JointField.position:
            raise ConfigError(f"{self.type} has no joints: remove `joints` and `field`")
        if self.type in ARRAY_TYPES and not self.values:
            raise ConfigError(f"{self.type} carries no names: expected `values`, a name for each of its elements")
        if self.type in NUMBER_TYPES and len(self.values) != 1:
            raise ConfigError(f"{self.type} is one number: expected `values` with its name, found {len(self.values)}")
        known = list(VECTOR_TYPES[self.type].values)
        for value in self.values if known else ():
            if value not in known:
                raise ConfigError(f"{self.type} has no value '{value}'; {suggest(value, known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionTopic(VectorTopic):
    """What a robot was commanded, as the action that led to the next observation."""

    low: tuple[float, ...] = ()
    """Lower limit per dimension, in its unit. Without limits they must be taken from the data, by option."""
    high: tuple[float, ...] = ()
    discrete: tuple[int, ...] = (0,)
    """Number of distinct values of a dimension that is a switch, else 0."""
    per_step: bool = False
    """TwistStamped, Twist: the action is how far that velocity goes within one control period, in m and rad."""

    def __post_init__(self) -> None:
        VectorTopic.__post_init__(self)  # `super()` does not survive `slots=True` in Python 3.10
        _check_limits(self.low, self.high, self.discrete, len(self))
        if self.per_step and self.type not in ("TwistStamped", "Twist"):
            raise ConfigError(f"per_step turns velocities into increments, and {self.type} is not a twist: remove it")

    @property
    def dimension_units(self) -> tuple[str, ...]:
        units = VectorTopic.dimension_units.__get__(self)
        return tuple(unit.removesuffix("/s") for unit in units) if self.per_step else units


@dataclass(frozen=True, slots=True, kw_only=True)
class NextState:
    """Actions that nobody logged: where proprioception went next."""

    next_state: NextStateMode
    of: tuple[str, ...]
    """Names of proprioceptive dimensions."""
    names: tuple[str, ...] = ()
    """What they are called as actions; by default the same, with `d_` before differences."""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    discrete: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.of:
            raise ConfigError("of expected at least one name of a proprioceptive dimension, found none")
        if self.names and len(self.names) != len(self.of):
            raise ConfigError(f"names expected {len(self.of)} entries, one per dimension, found {len(self.names)}")
        _check_limits(self.low, self.high, self.discrete, len(self.of))

    def __len__(self) -> int:
        return len(self.of)

    @property
    def dimension_names(self) -> tuple[str, ...]:
        prefix = "d_" if self.next_state is NextStateMode.difference else ""
        return self.names or tuple(prefix + name for name in self.of)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """A moment marked by a message: String, Bool (`true`, `false`), or a recorded service call (`request_received`, ...)."""

    topic: str
    words: tuple[str, ...] = ()
    """Which words mark it; none: any message does."""

    def matches(self, word: str) -> bool:
        return not self.words or word in self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRule:
    """Where episodes begin and end within one bag. Without a rule one bag is one episode."""

    start: EventRule
    stop: EventRule | None = None
    """By default an episode ends where the next starts, or with the bag."""
    discard: EventRule | None = None
    """Ends an episode and drops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """A text from the contract itself, the last message of a String topic, or the bag's `custom_data`: exactly one."""

    text: str = ""
    topic: str = ""
    custom_data: str = ""
    """Key of `custom_data` in metadata.yaml."""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.text, self.topic, self.custom_data))) != 1:
            raise ConfigError("expected exactly one of text, topic, custom_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRule:
    """How an episode went: the last word on a String or Bool topic after its start, or the bag's `custom_data`."""

    topic: str = ""
    custom_data: str = ""
    """Key of `custom_data` in metadata.yaml."""
    success: tuple[str, ...] = ("success", "true")
    """Words for: achieved, terminated."""
    failure: tuple[str, ...] = ("failure", "false")
    """Words for: not achieved, terminated: nothing that follows would count."""
    timeout: tuple[str, ...] = ("timeout",)
    """Words for: not achieved when time ran out; truncated."""

    def __post_init__(self) -> None:
        if bool(self.topic) == bool(self.custom_data):
            raise ConfigError("expected exactly one of topic, custom_data")
        check_unique((*self.success, *self.failure, *self.timeout), "words for outcomes")

    def outcome(self, word: str) -> str:
        """`success`, `failure`, `timeout`, or "" for any other word."""
        return next((name for name in OUTCOMES if word in getattr(self, name)), "")


OUTCOMES = ("success", "failure", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """Rewards of a Float32 or Float64 topic, summed over each step."""

    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRule:
    """Ticks as a policy reports them, rather than by the clock: one diagnostic_msgs/DiagnosticArray for every decision, published
    before its commands. Header: when it was decided; `status[0].values`: topic to the header stamp [ns] of the sample it saw."""

    topic: str


def spread(values: tuple[T, ...], count: int, name: str) -> tuple[T, ...]:
    """One value per dimension; a single one stands for all."""
    if len(values) not in (1, count):
        raise ConfigError(f"{name} expected one value, or {count}, one per dimension; found {len(values)}")
    return values * count if len(values) == 1 else values


def _check_limits(low: tuple[float, ...], high: tuple[float, ...], discrete: tuple[int, ...], count: int) -> None:
    if bool(low) != bool(high):
        raise ConfigError("low and high belong together: give both, or neither")
    if low:
        for a, b in zip(spread(low, count, "low"), spread(high, count, "high"), strict=True):
            if not (math.isfinite(a) and math.isfinite(b) and a < b):
                raise ConfigError(f"limits expected finite low < high, found [{a}, {b}]")
    if any(n < 0 or n == 1 for n in spread(discrete, count, "discrete")):
        raise ConfigError(f"discrete expected 0, or a number of values from 2 on, found {discrete}")


def _check_type(name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise ConfigError(f"type '{name}' is unknown; {suggest(name, list(known))}")


def check_tolerance(tolerance_s: float | None) -> None:
    if tolerance_s is not None and not 0 < tolerance_s <= 86_400:
        raise ConfigError(f"tolerance_s expected from above 0 to 86400 s, found {tolerance_s}")


def check_unique(names: Sequence[str], what: str) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"{what} expected to differ, found '{repeated[0]}' twice; rename one by `names`")
