"""Whether what is measured of an arm follows what it is told: numbers that stay the same under commands are no measurement."""

import numpy as np

from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.arm.motion import JointMotion, Motion, TwistMotion
from qtransformer_ros.arm.rotation import angle_between
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.control.buffer import Clock

LEAST_MOTION = 1e-3
"""Of one control period [m] or [rad]: what is less may be swallowed by a controller's dead band, and need not be seen."""


class MotionWatch:
    """Every bound of a command is relative to where the arm is: a driver that says the same place again and again, under new
    stamps, leaves velocities unbounded. A moving arm never repeats its place to the last bit.

    Args:
        timeout_s: how long they may stay the same after a command to move [s]; 0: for ever.
        period_s: for which a commanded velocity lasts [s].
    """

    def __init__(self, clock: Clock, timeout_s: float, period_s: float) -> None:
        self._clock, self._timeout_s, self._period_s = clock, timeout_s, period_s
        self._seen: tuple[object, ...] = ()
        self._told_ns: int | None = None
        """When the arm was first told to move since `_seen` was measured anew."""

    def forget(self) -> None:
        """The arm stands: what it was told before counts no more."""
        self._seen, self._told_ns = (), None

    def complaint(self, motion: Motion, measured: Measured) -> str:
        """Take note of a motion that is to be sent; "" or why it must not be."""
        seen = _place(motion, measured)
        if not self._timeout_s or not seen:
            return ""
        now = self._clock.monotonic_ns()
        if seen != self._seen:
            self._seen, self._told_ns = seen, None
        if self._told_ns is None:
            self._told_ns = now if _moves(motion, measured, self._period_s) else None
            return ""
        waited_s = (now - self._told_ns) / NANOSECONDS
        if waited_s <= self._timeout_s:
            return ""
        return (
            f"unmoved: told to move {waited_s:.2f} s ago, and measured in the same place to the last bit ever since: "
            "its driver repeats itself, or the arm does not follow"
        )


def _place(motion: Motion, measured: Measured) -> tuple[object, ...]:
    """The measurement that a motion is bounded by, to be compared; empty: there is none."""
    if isinstance(motion, JointMotion) or measured.position is None or measured.orientation is None:
        return tuple(measured.joints.items())
    return (*measured.position.tolist(), *measured.orientation.tolist())


def _moves(motion: Motion, measured: Measured, period_s: float) -> bool:
    """Whether a motion leads away from where the arm is by as much as must be seen."""
    if isinstance(motion, JointMotion):
        here = np.array([measured.joints.get(joint, np.nan) for joint in motion.joints])
        ways = np.abs(motion.positions[-1] - here)
    elif isinstance(motion, TwistMotion):
        ways = np.array([np.linalg.norm(motion.linear), np.linalg.norm(motion.angular)]) * period_s
    elif measured.position is None or measured.orientation is None:
        return False  # nor would a pose be sent
    else:
        turn = angle_between(measured.orientation, motion.orientation)
        ways = np.array([np.linalg.norm(motion.position - measured.position), turn])
    return bool((ways > LEAST_MOTION).any())
