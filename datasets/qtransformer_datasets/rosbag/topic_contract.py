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

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets.rosbag.contract_entries import (
    ActionTopic,
    CameraTopic,
    EpisodeRule,
    NextState,
    NextStateMode,
    OutcomeRule,
    RewardRule,
    StampSource,
    TextRule,
    TickRule,
    VectorTopic,
    check_tolerance,
    check_unique,
    spread,
)
from qtransformer_datasets.rosbag.message_types import CAMERA_TYPES, SHARED_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.strict_yaml import parse, read_yaml

CONTRACTS = (Path(__file__).parents[2] / "contracts", Path(sys.prefix) / "share" / "qtransformer_ros" / "contracts")
"""Where contracts are that come with the project: in a checkout, and in an environment that it is installed into."""


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
    clock: StampSource = StampSource.header
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
        check_tolerance(self.tolerance_s)
        if not self.cameras and not self.proprio:
            raise ConfigError("expected at least one camera or one entry of proprio, found neither")
        if not self.action:
            raise ConfigError("action expected at least one entry, found none")
        check_unique(self.proprio_names, "names of proprio")
        check_unique(self.action_names, "names of action")
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
            raise ConfigError(f"no contract '{name}' comes with the project; {suggest(name, sorted(files))}")
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

    def shared_joints(self) -> dict[str, tuple[str, ...]]:
        """Topic to the joints needed of it, of all whose publishers may each tell some of them (`shared_joints`)."""
        found: dict[str, dict[str, None]] = {}
        for source in (*self.proprio, *self.commanded):
            if source.type in SHARED_TYPES:
                found.setdefault(source.topic, {}).update(dict.fromkeys(source.joints))
        return {topic: tuple(joints) for topic, joints in found.items()}

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
            discrete=tuple(n for entry in self.action for n in spread(entry.discrete, len(entry), "discrete")),
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
        if self.clock is not StampSource.header:
            raise ConfigError("ticks that a policy reports name samples by their header stamps: use clock: header")
        bare = [source.topic for source in self.observed if not (CAMERA_TYPES | VECTOR_TYPES)[source.type].stamped]
        if bare:
            raise ConfigError(
                f"ticks that a policy reports name samples by their header stamps, and {bare[0]} has none: publish it stamped"
            )

    def _check_next_state(self, entry: NextState, name: str) -> None:
        if name not in self.proprio_names:
            raise ConfigError(f"action of '{name}' is not among proprio; {suggest(name, self.proprio_names)}")
        quaternions = [n for s in self.proprio if s.type == "PoseStamped" for n in _quaternion_names(s)]
        if entry.next_state is NextStateMode.difference and name in quaternions:
            raise ConfigError(f"action of '{name}': the difference of quaternions is not a rotation; use next_state: absolute")


def _quaternion_names(source: VectorTopic) -> list[str]:
    return [name for name, value in zip(source.dimension_names, source.chosen, strict=True) if value.startswith("q")]


def _limits(entry: ActionTopic | NextState) -> list[tuple[float, float] | None]:
    if not entry.low:
        return [None] * len(entry)
    return list(zip(spread(entry.low, len(entry), "low"), spread(entry.high, len(entry), "high"), strict=True))


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
