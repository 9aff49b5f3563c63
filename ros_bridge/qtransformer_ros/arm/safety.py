"""What an arm is allowed to be told: the filter that every command passes on its way to a topic.

Everything is bounded relative to where the arm *is*, never to where it was told to be: whatever the history, a command lies within
one allowed step of the measured state. Every bound is an interval that contains the measured value, so that applying one bound
never undoes another, and no bound ever sets an arm in motion by itself: an arm found outside its limits may move inwards, or stay.

This is a software limit, no safety function: an arm near people needs its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qtransformer_ros.arm.motion import Command, JointMotion, Motion, PoseMotion, TwistMotion
from qtransformer_ros.arm.rotation import angle_between, inverse, nearer_of_both, rotate, shortened, slerp
from qtransformer_ros.arm.safety_limits import JointRange, OutOfBounds, SafetyLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Where the arm is."""

    joints: Mapping[str, float] = field(default_factory=dict)
    """Positions by name [rad] or [m]."""
    position: np.ndarray | None = None
    """Tool point in the base frame, float64 (3,) [m]; None: not measured."""
    orientation: np.ndarray | None = None
    """Tool in the base frame, unit quaternion x y z w, float64 (4,)."""
    commanded_velocities: Mapping[str, float] = field(default_factory=dict)
    """Not measured: what the joints were last commanded to [rad/s] or [m/s], `SafeCommand.velocities`; empty after a hold, for the
    arm stands."""


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
    """Of joints, one control period into the motion [rad/s] or [m/s]."""


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
    wanted, times = np.asarray(motion.positions, np.float64), np.asarray(motion.times_s, np.float64).tolist()
    safe = np.empty_like(wanted)
    velocities = {}
    for j, name in enumerate(motion.joints):
        velocity = measured.commanded_velocities.get(name, 0.0)
        safe[:, j], velocities[name] = _joint_path(
            name, wanted[:, j].tolist(), times, measured.joints[name], velocity, limits, period_s, clamps
        )
    return replace(motion, positions=safe), velocities


def _joint_path(
    name: str,
    wanted: Sequence[float],
    times: Sequence[float],
    start: float,
    velocity: float,
    limits: SafetyLimits,
    period_s: float,
    clamps: list[Clamp],
) -> tuple[list[float], float]:
    """One joint's positions (points,) within its bounds, and its velocity one control period into the motion."""
    path, previous, previous_time, velocity_after_period = [], start, 0.0, None
    for target, time in zip(wanted, times, strict=True):
        dt = time - previous_time
        bounds = joint_bounds(limits.joints[name], limits, start, previous, velocity, time=time, dt=dt, period_s=period_s)
        for kind, low, high in bounds:
            target = _clamped(target, low, high, kind, name, clamps)
        velocity = (target - previous) / dt
        previous, previous_time = target, time
        path.append(target)
        if velocity_after_period is None and time >= period_s * (1 - 1e-6):
            velocity_after_period = velocity
    return path, velocity if velocity_after_period is None else velocity_after_period


def joint_bounds(
    joint: JointRange,
    limits: SafetyLimits,
    start: float,
    previous: float,
    velocity: float,
    *,
    time: float,
    dt: float,
    period_s: float,
) -> tuple[tuple[str, float, float], ...]:
    """What bounds one joint at one point of a motion: (kind, low, high), [rad] or [m].

    Every interval holds `previous`. Therefore clamping to one after the other ends within all of them: a later one moves a value
    only towards `previous`, and whatever lies between `previous` and a value of an interval is of that interval, too.

    Args:
        start: the measured position.
        previous: the position at the point before, itself within its bounds; at the first point, `start`.
        velocity: on the way to `previous` [rad/s] or [m/s]; at the first point, what was last commanded.
        time: of this point, since the motion began [s].
        dt: since the point before [s].
        period_s: the control period [s].
    """
    step = limits.max_step_m if joint.prismatic else limits.max_step_rad
    # A point further off in time may be further off in space: from the one before it, and from where the arm is.
    from_previous, from_start = step * max(1.0, dt / period_s), step * max(1.0, time / period_s)
    gain = limits.max_joint_accel * dt
    return (
        ("position", min(joint.low, start), max(joint.high, start)),
        ("step", max(previous - from_previous, start - from_start), min(previous + from_previous, start + from_start)),
        ("velocity", previous - joint.velocity * dt, previous + joint.velocity * dt),
        ("acceleration", previous + (min(velocity, 0.0) - gain) * dt, previous + (max(velocity, 0.0) + gain) * dt),
    )


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
        if not math.isfinite(measured.joints[name]):
            raise _Refused(f"the measured position of joint {name} is {measured.joints[name]}")
        if not math.isfinite(velocity := measured.commanded_velocities.get(name, 0.0)):
            raise _Refused(f"the velocity last commanded to joint {name} is {velocity}")


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
        tool_to_base = measured.orientation / math.hypot(*measured.orientation)
        ahead = measured.position + rotate(tool_to_base, linear) * period_s
        inside = _in_box(ahead, limits, measured.position, clamps)
        if (inside != ahead).any():
            linear = rotate(inverse(tool_to_base), inside - measured.position) / period_s
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
    short = shortened(vector, longest)
    if short is not vector:
        clamps.append(Clamp(kind="step", what=what, wanted=math.hypot(*vector), given=longest))
    return short


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
    turn = angle_between(start, end)
    if turn <= largest:
        return nearer_of_both(start, end)
    clamps.append(Clamp(kind="step", what="angular", wanted=turn, given=largest))
    return slerp(start, end, largest / turn)
