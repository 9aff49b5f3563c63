"""What an arm is allowed to be told: the filter that every command passes on its way to a topic.

Everything is bounded relative to where the arm *is*, never to where it was told to be: whatever the history, a command lies within
one allowed step of the measured state. Every bound is an interval that contains the measured value, so that applying one bound
never undoes another, and no bound ever sets an arm in motion by itself: an arm found outside its limits may move inwards, or stay.

This is a software limit, no safety function: an arm near people needs its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qtransformer_ros.arm.motion import Command, JointMotion, Motion, PoseMotion, TwistMotion
from qtransformer_ros.arm.safety_limits import JointRange, OutOfBounds, SafetyLimits, limited_joints, loosened, loosens

__all__ = [
    "Clamp",
    "JointRange",
    "Measured",
    "OutOfBounds",
    "Refusal",
    "SafeCommand",
    "SafetyLimits",
    "limited_joints",
    "loosened",
    "loosens",
    "restrict",
    "rotation_matrix",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Where the arm is."""

    joints: Mapping[str, float] = field(default_factory=dict)
    """Positions by name [rad] or [m]."""
    position: np.ndarray | None = None
    """Tool point in the base frame, float64 (3,) [m]; None: not measured."""
    orientation: np.ndarray | None = None
    """Tool in the base frame, unit quaternion x y z w, float64 (4,)."""
    velocities: Mapping[str, float] = field(default_factory=dict)
    """What the joints were last commanded to [rad/s]: `SafeCommand.velocities`; empty after a hold, for the arm stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """One number that was made smaller."""

    kind: str
    """Which limit: position, step, velocity, acceleration, workspace."""
    what: str
    """Joint, axis, or `linear`, `angular`."""
    wanted: float
    given: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeCommand:
    command: Command
    clamps: tuple[Clamp, ...] = ()
    velocities: Mapping[str, float] = field(default_factory=dict)
    """Of joints, one control period into the motion [rad/s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing may be sent: hold."""

    reason: str
    not_finite: bool = False


class _Refused(Exception):
    def __init__(self, reason: str, not_finite: bool = False) -> None:
        super().__init__(reason)
        self.refusal = Refusal(reason=reason, not_finite=not_finite)


def restrict(command: Command, limits: SafetyLimits, measured: Measured, period_s: float) -> SafeCommand | Refusal:
    """The command within all limits, or why there is none. Never raises for what a policy or a sensor may say."""
    try:
        return _restrict(command, limits, measured, period_s)
    except _Refused as refused:
        return refused.refusal


def _restrict(command: Command, limits: SafetyLimits, measured: Measured, period_s: float) -> SafeCommand:
    motion = command.motion
    _check_finite(motion, command.switches)
    _check_measured(measured)
    clamps: list[Clamp] = []
    velocities: dict[str, float] = {}
    # What overflows on the way becomes infinite, and is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(motion, JointMotion):
            safe, velocities = _joints(motion, limits, measured, period_s, clamps)
        elif isinstance(motion, TwistMotion):
            safe = _twist(motion, limits, measured, period_s, clamps)
        else:
            safe = _pose(motion, limits, measured, clamps)
    _check_finite(safe, {})
    bounds = [c for c in clamps if c.kind in ("position", "workspace")]
    if bounds and limits.out_of_bounds is OutOfBounds.hold:
        first = bounds[0]
        raise _Refused(f"{first.kind} limit of {first.what}: {first.wanted:.4g} was wanted, {first.given:.4g} is the limit")
    return SafeCommand(command=replace(command, motion=safe), clamps=tuple(clamps), velocities=velocities)


def _numbers(motion: Motion) -> dict[str, np.ndarray]:
    if isinstance(motion, JointMotion):
        return {"positions": motion.positions, "times": np.asarray(motion.times_s)}
    if isinstance(motion, TwistMotion):
        return {"linear": motion.linear, "angular": motion.angular}
    return {"position": motion.position, "orientation": motion.orientation}


_SHAPES = {"linear": (3,), "angular": (3,), "position": (3,), "orientation": (4,)}


def _check_finite(motion: Motion, switches: Mapping[str, np.ndarray]) -> None:
    """First of all: NaN compares as false with every limit."""
    for name, numbers in {**_numbers(motion), **switches}.items():
        numbers = np.asarray(numbers, np.float64)
        if not np.isfinite(numbers).all():
            raise _Refused(f"{name} expected finite numbers, found {numbers.tolist()}", not_finite=True)
        if name in _SHAPES and numbers.shape != _SHAPES[name]:
            raise _Refused(f"{name} expected {_SHAPES[name][0]} numbers, found shape {numbers.shape}")


def _check_measured(measured: Measured) -> None:
    for name, numbers, shape in (("position", measured.position, (3,)), ("orientation", measured.orientation, (4,))):
        if numbers is not None and (np.shape(numbers) != shape or not np.isfinite(numbers).all()):
            raise _Refused(f"measured {name} of the tool is {np.asarray(numbers).tolist()}")
    if measured.orientation is not None and abs(np.linalg.norm(measured.orientation) - 1) > 1e-3:
        raise _Refused(f"measured orientation {measured.orientation.tolist()} is no unit quaternion")


def _joints(
    motion: JointMotion, limits: SafetyLimits, measured: Measured, period_s: float, clamps: list[Clamp]
) -> tuple[JointMotion, dict[str, float]]:
    """Point by point, each reachable from the one before it; the first from the measured positions."""
    _check_chunk(motion, limits, measured)
    _check_tool_inside(limits, measured)
    wanted, times = np.asarray(motion.positions, np.float64), np.asarray(motion.times_s, np.float64)
    safe = np.empty_like(wanted)
    velocities = {}
    for j, name in enumerate(motion.joints):
        own = limits.joints[name]
        start = here = measured.joints[name]
        speed, speed_later, then = measured.velocities.get(name, 0.0), None, 0.0
        for k, (time, target) in enumerate(zip(times, wanted[:, j], strict=True)):
            target = float(target)
            after = float(time) - then
            step = limits.max_step_m if own.prismatic else limits.max_step_rad
            # A point further off in time may be further off in space: from the one before it, and from where the arm is.
            near, far = step * max(1.0, after / period_s), step * max(1.0, float(time) / period_s)
            faster = limits.max_joint_accel * after
            for kind, low, high in (
                ("position", min(own.low, start), max(own.high, start)),
                ("step", max(here - near, start - far), min(here + near, start + far)),
                ("velocity", here - own.velocity * after, here + own.velocity * after),
                ("acceleration", here + (min(speed, 0.0) - faster) * after, here + (max(speed, 0.0) + faster) * after),
            ):
                target = _clamped(target, low, high, kind, name, clamps)
            speed, here, then = (target - here) / after, target, float(time)
            safe[k, j] = here
            if speed_later is None and then >= period_s * (1 - 1e-6):
                speed_later = speed
        velocities[name] = speed if speed_later is None else speed_later
    return replace(motion, positions=safe), velocities


def _check_chunk(motion: JointMotion, limits: SafetyLimits, measured: Measured) -> None:
    times = motion.times_s
    if np.shape(motion.positions) != (len(times), len(motion.joints)) or not times or not motion.joints:
        raise _Refused(
            f"joint motion expected positions (points, joints) = ({len(times)}, {len(motion.joints)}), at least one of each, "
            f"found {np.shape(motion.positions)}"
        )
    if not all(a < b for a, b in zip((0.0, *times), times, strict=False)):
        raise _Refused(f"times of a joint motion expected to increase from above 0, found {times}")
    if len(set(motion.joints)) != len(motion.joints):
        raise _Refused(f"joint motion names a joint twice: {', '.join(motion.joints)}")
    for name in motion.joints:
        if name not in limits.joints:
            raise _Refused(f"joint {name} has no limits; they are known of {', '.join(limits.joints) or 'no joint'}")
        if name not in measured.joints:
            raise _Refused(f"joint {name} is not measured")
        if not math.isfinite(measured.joints[name]) or not math.isfinite(measured.velocities.get(name, 0.0)):
            raise _Refused(f"measured state of joint {name} is not finite")


def _check_tool_inside(limits: SafetyLimits, measured: Measured) -> None:
    if not limits.has_workspace:
        return
    if measured.position is None:
        raise _Refused("the workspace is limited, and the tool's pose is not measured")
    low, high = limits.workspace_min, limits.workspace_max
    if not all(a <= x <= b for a, x, b in zip(low, measured.position, high, strict=True)):
        raise _Refused(f"the tool is outside the workspace, at {np.round(measured.position, 4).tolist()} m")


def _twist(motion: TwistMotion, limits: SafetyLimits, measured: Measured, period_s: float, clamps: list[Clamp]) -> TwistMotion:
    linear = _shortened(np.asarray(motion.linear, np.float64), limits.max_step_m / period_s, "linear", clamps)
    angular = _shortened(np.asarray(motion.angular, np.float64), limits.max_step_rad / period_s, "angular", clamps)
    if limits.has_workspace:
        if measured.position is None or measured.orientation is None:
            raise _Refused("the workspace is limited, and the tool's pose is not measured")
        tool_to_base = rotation_matrix(measured.orientation)
        ahead = measured.position + tool_to_base @ linear * period_s
        inside = _in_box(ahead, limits, measured.position, clamps)
        if (inside != ahead).any():
            linear = tool_to_base.T @ (inside - measured.position) / period_s
    return TwistMotion(linear=linear, angular=angular)


def _pose(motion: PoseMotion, limits: SafetyLimits, measured: Measured, clamps: list[Clamp]) -> PoseMotion:
    if measured.position is None or measured.orientation is None:
        raise _Refused("a pose is commanded, and the tool's pose is not measured")
    size = math.hypot(*motion.orientation)
    if not 0.1 <= size <= 10:
        raise _Refused(f"orientation expected a quaternion of length 1, found length {size:.3g}")
    inside = _in_box(np.asarray(motion.position, np.float64), limits, measured.position, clamps)
    way = _shortened(inside - measured.position, limits.max_step_m, "linear", clamps)
    orientation = _turned(measured.orientation, np.asarray(motion.orientation) / size, limits.max_step_rad, clamps)
    return PoseMotion(position=measured.position + way, orientation=orientation)


def _clamped(wanted: float, low: float, high: float, kind: str, what: str, clamps: list[Clamp]) -> float:
    given = min(max(wanted, low), high)
    if given != wanted:
        clamps.append(Clamp(kind=kind, what=what, wanted=wanted, given=given))
    return given


def _shortened(vector: np.ndarray, longest: float, what: str, clamps: list[Clamp]) -> np.ndarray:
    """The vector, no longer than `longest`; its direction is kept."""
    length = math.hypot(*vector)
    if length <= longest:
        return vector
    clamps.append(Clamp(kind="step", what=what, wanted=length, given=longest))
    return vector * (longest / length)


def _in_box(point: np.ndarray, limits: SafetyLimits, here: np.ndarray, clamps: list[Clamp]) -> np.ndarray:
    """Per axis within the workspace, or, for a tool already outside, no further out than it is."""
    edges = zip("xyz", point, limits.workspace_min, limits.workspace_max, here, strict=True)
    return np.array(
        [
            _clamped(float(wanted), min(low, float(now)), max(high, float(now)), "workspace", axis, clamps)
            for axis, wanted, low, high, now in edges
        ]
    )


def _turned(start: np.ndarray, end: np.ndarray, largest: float, clamps: list[Clamp]) -> np.ndarray:
    """`end`, or as far towards it from `start` as `largest` [rad] allows, along the shorter way. Unit quaternions x y z w."""
    end = end if start @ end >= 0 else -end
    half = 2 * math.atan2(math.hypot(*(end - start)), math.hypot(*(end + start)))  # exact for small angles, unlike acos
    if 2 * half <= largest:
        return end
    clamps.append(Clamp(kind="step", what="angular", wanted=2 * half, given=largest))
    share = largest / (2 * half)
    between = (math.sin((1 - share) * half) * start + math.sin(share * half) * end) / math.sin(half)
    return between / math.hypot(*between)


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Unit quaternion x y z w to a rotation (3, 3)."""
    x, y, z, w = quaternion / math.hypot(*quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
