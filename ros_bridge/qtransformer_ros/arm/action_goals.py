"""What a contract's actions mean: one motion, of joints or of the tool, and switches beside it."""

from dataclasses import dataclass

from qtransformer.errors import ConfigError
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, JointField, NextState, NextStateMode
from qtransformer_datasets.rosbag.message_types import ARRAY_TYPES, JOINT_TYPES, NUMBER_TYPES
from qtransformer_datasets.rosbag.topic_contract import TopicContract

METRIC = ("rad", "m")
QUATERNION = ("qx", "qy", "qz", "qw")
TOOL_TYPES = ("TwistStamped", "Twist", "PoseStamped", "WrenchStamped")


@dataclass(frozen=True, slots=True, kw_only=True)
class JointGoal:
    joints: tuple[str, ...]
    dims: tuple[int, ...]
    """Action dimensions, one per joint."""
    relative: bool
    """Increments on the measured positions, rather than positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwistGoal:
    dims: dict[str, int]
    """`vx` ... `wz` to action dimension; the rest is 0."""
    per_step: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseGoal:
    dims: dict[str, int]
    """`x` ... `qw` to action dimension; the rest stays as measured."""


Goal = JointGoal | TwistGoal | PoseGoal


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    topic: str
    type: str
    dims: tuple[int, ...]


def read_action(contract: TopicContract) -> tuple[Goal, ActionTopic | NextState, tuple[Switch, ...]]:
    """The contract's one motion, the entry it comes from, and its switches."""
    motions, switches, first = [], [], 0
    # An array is a gripper's, or some other switch's, beside a motion; alone, an array of positions is the motion itself.
    beside = any(isinstance(entry, NextState) or entry.type in (*JOINT_TYPES, *TOOL_TYPES) for entry in contract.action)
    for entry in contract.action:
        dims = tuple(range(first, first + len(entry)))
        first += len(entry)
        if isinstance(entry, ActionTopic) and _switches(entry, beside):
            switches.append(Switch(topic=entry.topic, type=entry.type, dims=dims))
        else:
            motions.append((_goal(contract, entry, dims), entry))
    if len(motions) != 1:
        found = ", ".join(where(entry) for _, entry in motions) or "none"
        raise ConfigError(
            f"the contract's action expected exactly one motion (of joints, or of the tool), found {len(motions)}: {found}; "
            "command a gripper by an array, a number or a Bool on a topic of its own"
        )
    return *motions[0], tuple(switches)


def _goal(contract: TopicContract, entry: ActionTopic | NextState, dims: tuple[int, ...]) -> Goal:
    if isinstance(entry, NextState):
        return JointGoal(joints=_joints_of(contract, entry), dims=dims, relative=entry.next_state is NextStateMode.difference)
    by_value = dict(zip(entry.chosen, dims, strict=True))
    if entry.type in ("TwistStamped", "Twist"):
        return TwistGoal(dims=by_value, per_step=entry.per_step)
    if entry.type == "PoseStamped":
        if 0 < len(by_value.keys() & QUATERNION) < 4:
            raise ConfigError(f"{where(entry)}: a part of a quaternion is no orientation; give all of qx, qy, qz, qw, or none")
        return PoseGoal(dims=by_value)
    if entry.type == "WrenchStamped" or entry.field is not JointField.position or not _metric(entry):
        raise ConfigError(
            f"{where(entry)}: only joint positions in rad and m, velocities and poses of the tool are commanded, "
            "not forces, joint velocities or other units"
        )
    return JointGoal(joints=entry.chosen, dims=dims, relative=False)


def _joints_of(contract: TopicContract, entry: NextState) -> tuple[str, ...]:
    """The joints whose positions the named proprioception is."""
    joint_of = {
        name: joint
        for source in contract.proprio
        if source.type == "JointState" and source.field is JointField.position
        for name, joint, unit in zip(source.dimension_names, source.joints, source.dimension_units, strict=True)
        if unit in METRIC
    }
    strange = [name for name in entry.of if name not in joint_of]
    if strange:
        raise ConfigError(
            f"{where(entry)}: {', '.join(strange)} are no joint positions [rad or m] of a JointState: the contract does not say "
            "which topic would command them; log the commands, and name their topic in the contract's action"
        )
    return tuple(joint_of[name] for name in entry.of)


def where(entry: ActionTopic | NextState) -> str:
    """What an entry of the contract is called in a message."""
    return f"{entry.type} on {entry.topic}" if isinstance(entry, ActionTopic) else f"next_state of {', '.join(entry.of)}"


def _switches(entry: ActionTopic, beside_a_motion: bool) -> bool:
    return entry.type in NUMBER_TYPES or (entry.type in ARRAY_TYPES and (beside_a_motion or not _metric(entry)))


def _metric(entry: ActionTopic) -> bool:
    return all(unit in METRIC for unit in entry.dimension_units) and not any(entry.discrete)
