"""The limits of an arm: how far and how fast joints and tool may go, and whether a change of them loosens any."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from qtransformer.errors import ConfigError

Vector = tuple[float, float, float]


class OutOfBounds(Enum):
    """What to do with a motion that leaves position limits or workspace. All other limits always clamp."""

    clamp = "clamp"
    hold = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class JointRange:
    """How far and how fast one joint may go."""

    low: float = -math.inf
    """[rad], or [m] if `prismatic`."""
    high: float = math.inf
    velocity: float
    """[rad/s] or [m/s]."""
    prismatic: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a joint's position limits expected low < high, found [{self.low}, {self.high}]")
        if not 0 < self.velocity < math.inf:
            raise ConfigError(f"a joint's velocity limit expected a finite number above 0, found {self.velocity}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyLimits:
    """All limits as they are enforced: margins and scales are applied already (`limited_joints`)."""

    joints: Mapping[str, JointRange] = field(default_factory=dict)
    """Joints that may be commanded, by name; any other is refused."""
    max_joint_accel: float = math.inf
    """Bounds how fast a joint gains speed [rad/s^2] or [m/s^2]; slowing down is never delayed."""
    max_step_m: float = 0.05
    """Way of the tool, or of a prismatic joint, in one control period [m]."""
    max_step_rad: float = 0.2
    """Turn of the tool, or of a joint, in one control period [rad]."""
    workspace_min: Vector = (-math.inf, -math.inf, -math.inf)
    """Lower corner of the box that the tool point stays in, base frame [m]. Twists and poses are kept inside; joint motions
    are refused once the measured tool is outside, because nothing here knows the arm's kinematics."""
    workspace_max: Vector = (math.inf, math.inf, math.inf)
    out_of_bounds: OutOfBounds = OutOfBounds.clamp

    def __post_init__(self) -> None:
        for name in ("max_joint_accel", "max_step_m", "max_step_rad"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} expected a number above 0, found {getattr(self, name)}")
        if len(self.workspace_min) != 3 or len(self.workspace_max) != 3:
            found = f"{self.workspace_min} and {self.workspace_max}"
            raise ConfigError(f"workspace_min and workspace_max expected three numbers each, x, y, z [m], found {found}")
        if not all(low < high for low, high in zip(self.workspace_min, self.workspace_max, strict=True)):
            raise ConfigError(f"workspace_min expected below workspace_max, found {self.workspace_min} and {self.workspace_max}")

    @property
    def has_workspace(self) -> bool:
        return any(math.isfinite(edge) for edge in (*self.workspace_min, *self.workspace_max))


def intersected(ranges: Mapping[str, JointRange], own: Mapping[str, JointRange]) -> dict[str, JointRange]:
    """All joints of both; where both know one, the narrower end of each limit.

    Raises ConfigError: a joint whose limits have nothing in common.
    """
    found = {**ranges, **own}
    for name in ranges.keys() & own.keys():
        a, b = ranges[name], own[name]
        low, high, velocity = max(a.low, b.low), min(a.high, b.high), min(a.velocity, b.velocity)
        if not low < high:
            raise ConfigError(
                f"joint {name}: the model allows [{a.low}, {a.high}], the parameters [{b.low}, {b.high}], together nothing; "
                "correct the parameters"
            )
        found[name] = replace(a, low=low, high=high, velocity=velocity)
    return found


def limited_joints(
    ranges: Mapping[str, JointRange], joints: Sequence[str], *, margin_rad: float = 0.05, velocity_scale: float = 1.0
) -> dict[str, JointRange]:
    """The ranges of `joints`, narrowed by `margin_rad` at both ends (not of prismatic joints) and slowed down.

    Raises ConfigError: a joint without a range, or nothing left of one.
    """
    if not (0 <= margin_rad < math.inf and 0 < velocity_scale <= 1):
        raise ConfigError(f"expected margin_rad from 0 and velocity_scale in (0, 1], found {margin_rad} and {velocity_scale}")
    missing = [name for name in joints if name not in ranges]
    if missing:
        raise ConfigError(f"joints {', '.join(missing)} have no limits; limits are known of {', '.join(ranges) or 'none'}")
    narrowed = {}
    for name in joints:
        own = ranges[name]
        margin = 0.0 if own.prismatic else margin_rad
        if not own.low + margin < own.high - margin:
            raise ConfigError(
                f"joint {name}: a margin of {margin} rad leaves nothing of [{own.low}, {own.high}]; use a smaller one"
            )
        narrowed[name] = replace(own, low=own.low + margin, high=own.high - margin, velocity=own.velocity * velocity_scale)
    return narrowed


def loosened(old: SafetyLimits, new: SafetyLimits) -> tuple[str, ...]:
    """Names of the limits that `new` loosens; none: it is as strict as `old` everywhere."""
    names = [name for name in ("max_joint_accel", "max_step_m", "max_step_rad") if getattr(new, name) > getattr(old, name)]
    if any(n < o for o, n in zip(old.workspace_min, new.workspace_min, strict=True)):
        names.append("workspace_min")
    if any(n > o for o, n in zip(old.workspace_max, new.workspace_max, strict=True)):
        names.append("workspace_max")
    if old.out_of_bounds is OutOfBounds.hold and new.out_of_bounds is OutOfBounds.clamp:
        names.append("out_of_bounds")
    for joint, range_ in new.joints.items():
        before = old.joints.get(joint)
        if before is None or range_.low < before.low or range_.high > before.high or range_.velocity > before.velocity:
            names.append(f"limits of joint {joint}")
        elif range_.prismatic != before.prismatic:
            names.append(f"kind of joint {joint}")
    return tuple(names)


def refusal_to_change(old: SafetyLimits, new: SafetyLimits, *, running: bool) -> str:
    """Why `new` cannot take the place of `old` without other topics, or while `running`; "" if it can."""
    looser = loosened(old, new)
    if looser and running:
        return f"limits are not loosened while running ({', '.join(looser)}): stop first"
    if set(new.joints) != set(old.joints) or new.has_workspace > old.has_workspace:
        return "other joints, or a workspace where there was none, need other topics: configure again"
    return ""
