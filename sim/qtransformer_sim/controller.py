"""Cartesian control: increments in the gripper frame become limited joint targets.

No physics in here and no simulator: a ROS node can run the same controller on a real arm by handing in its own inverse
kinematics.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_LEAD = 0.015
"""How far the commanded pose may be ahead of the measured one, per axis [m]: a blocked arm stores up no motion."""
MAX_YAW_LEAD = 0.1
"""The same for the turn [rad]."""
MAX_JOINT_SPEED = 2.5
"""[rad/s]"""


@dataclass(frozen=True)
class GripperPose:
    """Pose of a gripper that points down: the point between its fingertips, and its turn about the vertical."""

    position: np.ndarray
    """float (3,) in the base frame [m]."""
    yaw: float
    """Angle from the base frame's x axis to the direction in which the fingers close [rad]."""


@dataclass(frozen=True)
class Workspace:
    """The box that commanded poses never leave."""

    low: tuple[float, float, float]
    """Lower corner in the base frame [m]."""
    high: tuple[float, float, float]
    """Upper corner in the base frame [m]."""
    max_yaw: float
    """Largest turn to either side [rad]."""

    def clip(self, pose: GripperPose) -> GripperPose:
        return GripperPose(np.clip(pose.position, self.low, self.high), float(np.clip(pose.yaw, -self.max_yaw, self.max_yaw)))

    def contains(self, point: np.ndarray, margin: float = 0.0) -> bool:
        """Whether a point (3,) [m] lies above the workspace's floor plan, widened by `margin` [m]."""
        return bool(np.all(point[:2] >= np.array(self.low[:2]) - margin) and np.all(point[:2] <= np.array(self.high[:2]) + margin))


@dataclass(frozen=True)
class JointCommand:
    """Joint targets and the speeds at which to approach them, so that all joints arrive together."""

    positions: np.ndarray
    """float (j,) [rad]."""
    speeds: np.ndarray
    """float (j,) [rad/s], positive."""


class CartesianController:
    """Owns the commanded pose. One call of `command` per control period."""

    def __init__(self, workspace: Workspace, solve_ik: Callable[[GripperPose], np.ndarray], control_dt: float) -> None:
        self.workspace = workspace
        self.solve_ik = solve_ik
        self.control_dt = control_dt
        self.commanded: GripperPose | None = None
        """Where the gripper was last told to be; None before the first command."""

    def reset(self) -> None:
        """Forget the commanded pose; the next command starts from the measured one."""
        self.commanded = None

    def command(self, delta: np.ndarray, measured: GripperPose, joints: np.ndarray) -> JointCommand:
        """Advance the commanded pose by `delta` (dx, dy, dz [m] in the gripper frame, dyaw [rad]) and solve for the joints.

        `joints` (j,) are the measured positions [rad]; the speeds bring each joint to its target within 80% of the period.
        """
        start = self._near(measured)
        cos, sin = np.cos(start.yaw), np.sin(start.yaw)
        shift = np.array([cos * delta[0] - sin * delta[1], sin * delta[0] + cos * delta[1], delta[2]])
        self.commanded = self.workspace.clip(GripperPose(start.position + shift, start.yaw + float(delta[3])))
        positions = self.solve_ik(self.commanded)
        speeds = np.abs(positions - joints) / (0.8 * self.control_dt)
        return JointCommand(positions, np.clip(speeds, 0.05, MAX_JOINT_SPEED))

    def _near(self, measured: GripperPose) -> GripperPose:
        """The commanded pose, pulled to within the allowed lead of the measured one."""
        if self.commanded is None:
            return measured
        ahead = np.clip(self.commanded.position - measured.position, -MAX_LEAD, MAX_LEAD)
        turn = np.clip(self.commanded.yaw - measured.yaw, -MAX_YAW_LEAD, MAX_YAW_LEAD)
        return GripperPose(measured.position + ahead, float(measured.yaw + turn))
