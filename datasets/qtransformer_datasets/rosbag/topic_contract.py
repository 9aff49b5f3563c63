"""Which topics of a robot are its cameras, its proprioception and its commands: one YAML file for bags and for a live node.

    control_hz: 10
    clock: header
    tolerance_s: 0.1
    cameras:
      wrist: {topic: /wrist/image_raw, size: [84, 84]}
    proprio:
      - {topic: /joint_states, type: JointState, joints: [shoulder, elbow], units: rad}
    action:
      - {topic: /commands, type: JointTrajectory, joints: [shoulder, elbow], units: rad, low: -3.14, high: 3.14}
    instruction: {text: pick up the cube}
    outcome: {topic: /episode/outcome}
    ticks: {topic: /qtransformer_policy/consumed}

Cameras and joints are found by name, never by order. Where a list of one value per dimension is expected, one value may
stand for all. Nothing here needs ROS or a bag library; what the messages become is in `ros_messages`.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from qtransformer.errors import ConfigError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets.rosbag.message_types import (
    ARRAY_TYPES,
    CAMERA_TYPES,
    FIXED_TYPES,
    JOINT_TYPES,
    NUMBER_TYPES,
    VECTOR_TYPES,
)
from qtransformer_datasets.rosbag.strict_yaml import nearest, parse, read_yaml

T = TypeVar("T")

CONTRACTS = (Path(__file__).parents[2] / "contracts", Path(sys.prefix) / "share" / "qtransformer_ros" / "contracts")
"""Where contracts are that come with the project: in a checkout, and in an environment that it is installed into."""
IMAGE_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")


class Clock(Enum):
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
            raise ConfigError(f"encoding '{self.encoding}' is unknown; {nearest(self.encoding, IMAGE_ENCODINGS)}")
        if self.encoding and self.type != "Image":
            raise ConfigError("encoding overrules that of an Image; a CompressedImage carries its own: remove it")
        _check_tolerance(self.tolerance_s)


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
        _check_tolerance(self.tolerance_s)
        self._check_choice()
        for name in ("joints", "values", "names"):
            _check_unique(getattr(self, name), name)
        if self.names and len(self.names) != len(self):
            raise ConfigError(f"names expected {len(self)} entries, one per dimension, found {len(self.names)}")
        if self.type in FIXED_TYPES and self.units:
            raise ConfigError(f"units of {self.type} are fixed: remove them")
        if self.type not in FIXED_TYPES:
            _spread(self.units, len(self), "units")

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
        return _spread(self.units, len(self), "units")

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
                raise ConfigError(f"{self.type} has no value '{value}'; {nearest(value, known)}")


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
            raise ConfigError(f"per_step turns velocities into increments, and {self.type} is no twist: remove it")

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
        _check_unique((*self.success, *self.failure, *self.timeout), "words for outcomes")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicContract:
    """See the module docstring. `load` reads one from a file."""

    control_hz: float
    """Rate of ticks: observations, and the decisions on them [Hz]."""
    tolerance_s: float
    """Age up to which a sample still counts, for topics that do not say their own [s]."""
    action: tuple[ActionTopic | NextState, ...]
    cameras: Mapping[str, CameraTopic] = field(default_factory=dict)
    proprio: tuple[VectorTopic, ...] = ()
    clock: Clock = Clock.header
    instruction: TextRule | None = None
    episodes: EpisodeRule | None = None
    outcome: OutcomeRule | None = None
    reward: RewardRule | None = None
    """By default 1 at the last step of a success."""
    ticks: TickRule | None = None
    """By default `control_hz` ticks a second, from the first moment at which every topic has a sample."""

    def __post_init__(self) -> None:
        if not 0 < self.control_hz <= 1000:
            raise ConfigError(f"control_hz expected a rate up to 1000 Hz, found {self.control_hz}")
        _check_tolerance(self.tolerance_s)
        if not self.cameras and not self.proprio:
            raise ConfigError("expected at least one camera or one entry of proprio, found neither")
        if not self.action:
            raise ConfigError("action expected at least one entry, found none")
        _check_unique(self.proprio_names, "names of proprio")
        _check_unique(self.action_names, "names of action")
        for entry in self.action:
            if isinstance(entry, NextState):
                for name in entry.of:
                    self._check_next_state(entry, name)
        if self.ticks:
            self._check_ticks()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TopicContract":
        """Read a contract. Raises ConfigError naming file and place."""
        return parse(cls, read_yaml(Path(path)), str(path))

    @staticmethod
    def shipped(name: str) -> Path:
        """The file of a contract that comes with the project. Raises ConfigError naming those there are."""
        files = {path.stem: path for folder in reversed(CONTRACTS) for path in folder.glob("*.yaml")}
        if name not in files:
            raise ConfigError(f"no contract '{name}' comes with the project; {nearest(name, sorted(files))}")
        return files[name]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; unset entries are left out."""
        return _plain(asdict(self))

    def resolved(self, namespace: str = "") -> "TopicContract":
        """The same with relative topics made absolute, as ROS does for a node in `namespace`."""
        return _resolved(self, "/" + namespace.strip("/") if namespace.strip("/") else "")

    @property
    def proprio_names(self) -> tuple[str, ...]:
        return tuple(name for source in self.proprio for name in source.dimension_names)

    @property
    def proprio_units(self) -> tuple[str, ...]:
        return tuple(unit for source in self.proprio for unit in source.dimension_units)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(name for entry in self.action for name in entry.dimension_names)

    @property
    def observed(self) -> tuple[CameraTopic | VectorTopic, ...]:
        """Everything that must have a sample at every tick."""
        return (*self.cameras.values(), *self.proprio)

    @property
    def commanded(self) -> tuple[ActionTopic, ...]:
        """Every topic of commands."""
        return tuple(entry for entry in self.action if isinstance(entry, ActionTopic))

    def tolerance_of(self, source: CameraTopic | VectorTopic) -> float:
        """[s]"""
        return self.tolerance_s if source.tolerance_s is None else source.tolerance_s

    def event_topics(self) -> tuple[str, ...]:
        """Topics of words: episode boundaries, outcome, instruction."""
        rules = [self.instruction, self.outcome]
        if self.episodes:
            rules += [self.episodes.start, self.episodes.stop, self.episodes.discard]
        return tuple(dict.fromkeys(rule.topic for rule in rules if rule and rule.topic))

    def limits(self) -> list[tuple[float, float] | None]:
        """(low, high) per action dimension; None where the contract leaves it to the data."""
        return [pair for entry in self.action for pair in _limits(entry)]

    def action_spec(self, limits: Sequence[tuple[float, float] | None] | None = None) -> ActionSpec:
        """The spec, with `limits` where the contract says none. Raises ConfigError where neither does."""
        pairs = [own or given for own, given in zip(self.limits(), limits or self.limits(), strict=True)]
        names = self.action_names
        unlimited = [name for name, pair in zip(names, pairs, strict=True) if pair is None]
        if unlimited:
            raise ConfigError(
                f"action dimensions {', '.join(unlimited)} have no limits; give `low` and `high` in the contract, "
                "or take them from the data with limits_from_data=True"
            )
        return ActionSpec(
            names=names,
            low=tuple(pair[0] for pair in pairs if pair),
            high=tuple(pair[1] for pair in pairs if pair),
            units=tuple(unit for entry in self.action for unit in self._units(entry)),
            discrete=tuple(n for entry in self.action for n in _spread(entry.discrete, len(entry), "discrete")),
        )

    def observation_spec(self, native_sizes: Mapping[str, tuple[int, int]] | None = None) -> ObservationSpec:
        """The spec; `native_sizes` gives (height, width) of cameras that are not resized."""
        sizes = {name: camera.size or (native_sizes or {}).get(name) for name, camera in self.cameras.items()}
        unknown = [name for name, size in sizes.items() if size is None]
        if unknown:
            raise ConfigError(f"cameras {', '.join(unknown)} have no size; give `size` in the contract")
        return ObservationSpec(
            cameras={name: (*size, 3) for name, size in sizes.items() if size},
            proprio_names=self.proprio_names,
            proprio_units=self.proprio_units,
            control_hz=self.control_hz,
        )

    def _units(self, entry: ActionTopic | NextState) -> Iterator[str]:
        if isinstance(entry, ActionTopic):
            yield from entry.dimension_units
        else:
            yield from (self.proprio_units[self.proprio_names.index(name)] for name in entry.of)

    def _check_ticks(self) -> None:
        if self.clock is not Clock.header:
            raise ConfigError("ticks that a policy reports name samples by their header stamps: use clock: header")
        bare = [source.topic for source in self.observed if not (CAMERA_TYPES | VECTOR_TYPES)[source.type].stamped]
        if bare:
            raise ConfigError(
                f"ticks that a policy reports name samples by their header stamps, and {bare[0]} has none: publish it stamped"
            )

    def _check_next_state(self, entry: NextState, name: str) -> None:
        if name not in self.proprio_names:
            raise ConfigError(f"action of '{name}' is not among proprio; {nearest(name, self.proprio_names)}")
        quaternions = [n for s in self.proprio if s.type == "PoseStamped" for n in _quaternion_names(s)]
        if entry.next_state is NextStateMode.difference and name in quaternions:
            raise ConfigError(f"action of '{name}': the difference of quaternions is no rotation; use next_state: absolute")


def _quaternion_names(source: VectorTopic) -> list[str]:
    return [name for name, value in zip(source.dimension_names, source.chosen, strict=True) if value.startswith("q")]


def _limits(entry: ActionTopic | NextState) -> list[tuple[float, float] | None]:
    if not entry.low:
        return [None] * len(entry)
    return list(zip(_spread(entry.low, len(entry), "low"), _spread(entry.high, len(entry), "high"), strict=True))


def _spread(values: tuple[T, ...], count: int, name: str) -> tuple[T, ...]:
    """One value per dimension; a single one stands for all."""
    if len(values) not in (1, count):
        raise ConfigError(f"{name} expected one value, or {count}, one per dimension; found {len(values)}")
    return values * count if len(values) == 1 else values


def _check_limits(low: tuple[float, ...], high: tuple[float, ...], discrete: tuple[int, ...], count: int) -> None:
    if bool(low) != bool(high):
        raise ConfigError("low and high belong together: give both, or neither")
    if low:
        for a, b in zip(_spread(low, count, "low"), _spread(high, count, "high"), strict=True):
            if not (math.isfinite(a) and math.isfinite(b) and a < b):
                raise ConfigError(f"limits expected finite low < high, found [{a}, {b}]")
    if any(n < 0 or n == 1 for n in _spread(discrete, count, "discrete")):
        raise ConfigError(f"discrete expected 0, or a number of values from 2 on, found {discrete}")


def _check_type(name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise ConfigError(f"type '{name}' is unknown; {nearest(name, list(known))}")


def _check_tolerance(tolerance_s: float | None) -> None:
    if tolerance_s is not None and not 0 < tolerance_s <= 86_400:
        raise ConfigError(f"tolerance_s expected from above 0 to 86400 s, found {tolerance_s}")


def _check_unique(names: Sequence[str], what: str) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"{what} expected to differ, found '{repeated[0]}' twice; rename one by `names`")


def _resolved(value: Any, namespace: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: _resolved(getattr(value, f.name), namespace) for f in fields(value)}
        if own.get("topic") and not own["topic"].startswith("/"):
            own["topic"] = f"{namespace}/{own['topic']}"
        return replace(value, **own)
    if isinstance(value, Mapping):
        return {name: _resolved(item, namespace) for name, item in value.items()}
    return tuple(_resolved(item, namespace) for item in value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None and v != () and v != ""}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
