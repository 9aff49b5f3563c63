"""Joint trajectories as ros2_control's joint_trajectory_controller takes them, and refuses them; and NaN, which it takes.

Velocities of the tool are read here, too. Messages are looked at by their fields only: those of rclpy do, and so does anything
shaped like them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer.errors import QTransformerError
from qtransformer_datasets.rosbag.ros_messages import stamp_ns
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS

MAX_AHEAD_S = 5.0
"""How far in the future a trajectory may start [s]; a stamp beyond is of another clock."""


class CommandRefused(QTransformerError):
    """A command that a robot does not carry out, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Waypoints to pass through, from where the joints are."""

    start_ns: int
    """ROS time at which it starts."""
    times_s: np.ndarray
    """float64 (n + 1,): when each waypoint is due after the start, the first at 0, strictly increasing."""
    positions: np.ndarray
    """float64 (n + 1, j) [rad]; the first is where the joints were."""
    velocities: np.ndarray | None
    """float64 (n + 1, j) [rad/s]; None: straight lines between the waypoints."""

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(float(self.times_s[-1]) * NANOSECONDS)

    def at(self, now_ns: int) -> np.ndarray:
        """Joint positions (j,) [rad] due now: linear between waypoints, cubic where they have velocities."""
        t = float(np.clip((now_ns - self.start_ns) / NANOSECONDS, 0.0, self.times_s[-1]))
        after = int(np.clip(np.searchsorted(self.times_s, t, side="right"), 1, len(self.times_s) - 1))
        span = self.times_s[after] - self.times_s[after - 1]
        u = (t - self.times_s[after - 1]) / span
        p, q = self.positions[after - 1 : after + 1]
        if self.velocities is None:
            return p + u * (q - p)
        v, w = self.velocities[after - 1 : after + 1] * span
        return (2 * u**3 - 3 * u**2 + 1) * p + (u**3 - 2 * u**2 + u) * v + (3 * u**2 - 2 * u**3) * q + (u**3 - u**2) * w


def read_trajectory(message: Any, joints: Sequence[str], here: np.ndarray, now_ns: int) -> Trajectory:
    """A trajectory_msgs/JointTrajectory with at least one point, from `here` (j,) [rad]. Raises CommandRefused."""
    order = _order(list(message.joint_names), joints)
    times_ns = [stamp_ns(point.time_from_start) for point in message.points]
    if times_ns[0] < 0 or (np.diff(times_ns) <= 0).any():
        raise CommandRefused(f"time_from_start must increase strictly from 0 on, found {[t / NANOSECONDS for t in times_ns]}")
    positions = _columns(message.points, "positions", order)
    velocities = _columns(message.points, "velocities", order) if any(len(p.velocities) for p in message.points) else None
    if any(len(p.effort) for p in message.points):
        raise CommandRefused("efforts are not supported: command positions")
    if velocities is not None and velocities[-1].any():
        raise CommandRefused("the last point must be at rest, found velocities that are not 0")
    start_ns = stamp_ns(message.header.stamp) or now_ns
    if start_ns + times_ns[-1] < now_ns:
        raise CommandRefused(f"the trajectory ended {(now_ns - start_ns - times_ns[-1]) / NANOSECONDS:.3f} s ago")
    if start_ns - now_ns > MAX_AHEAD_S * NANOSECONDS:
        raise CommandRefused(
            f"the trajectory starts {(start_ns - now_ns) / NANOSECONDS:.3f} s ahead, more than {MAX_AHEAD_S:g}: "
            "set use_sim_time where it is published, or send stamp 0"
        )
    times_s = np.array(times_ns) / NANOSECONDS
    if times_s[0] > 0:
        times_s = np.concatenate([[0.0], times_s])
        positions = np.concatenate([here[None], positions])
        velocities = None if velocities is None else np.concatenate([np.zeros((1, len(here))), velocities])
    elif len(times_s) == 1:  # at once
        times_s, positions = np.array([0.0, 1e-9]), np.repeat(positions, 2, axis=0)
        velocities = None
    return Trajectory(start_ns=start_ns, times_s=times_s, positions=positions, velocities=velocities)


def finite(values: Any, count: int, what: str) -> np.ndarray:
    """`count` finite numbers as float64 (count,). Raises CommandRefused."""
    array = np.asarray(values, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise CommandRefused(f"{what}: expected {count} finite numbers, found {array.tolist()}")
    return array


def _order(names: list[str], joints: Sequence[str]) -> list[int]:
    """Where each of the arm's joints stands in the message."""
    if sorted(names) != sorted(joints):
        raise CommandRefused(f"expected the joints {', '.join(joints)} in any order, found {', '.join(names) or 'none'}")
    return [names.index(joint) for joint in joints]


def _columns(points: Any, field: str, order: list[int]) -> np.ndarray:
    """One field of all points in the arm's order, (n, j)."""
    return np.array([finite(getattr(p, field), len(order), f"{field} of point {i}")[order] for i, p in enumerate(points)])


def read_twist(linear: Any, angular: Any) -> tuple[float, float, float, float]:
    """vx vy vz [m/s] and wz [rad/s] of a twist in the tool's frame."""
    vx, vy, vz = finite(linear, 3, "linear velocity")
    wx, wy, wz = finite(angular, 3, "angular velocity")
    if wx or wy:
        raise CommandRefused(f"the gripper points down: expected no turn about x and y, found {wx:g} and {wy:g} rad/s")
    return float(vx), float(vy), float(vz), float(wz)
