"""A simulated robot whose physics runs: trajectories, positions, velocities and poses as an arm's controllers carry them out."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.simulated.robot import SimRobot, StepResult
from qtransformer_ros.simulated.trajectory import CommandRefused, Trajectory, finite, read_trajectory, read_twist
from qtransformer_sim.controller import MAX_JOINT_SPEED, CartesianController, GripperPose
from qtransformer_sim.env import RobotEnv

HALT_S = 0.1
"""A twist that has run out slows down to rest within [s]."""
SERVO_SUBSTEPS = 2
"""Physics steps per step of Cartesian control: inverse kinematics cost as much as 7 of physics."""
MAX_SPEED = 0.25
"""Of the tool on its way to a target pose [m/s]."""
MAX_TURN = 1.5
"""Of the tool on its way to a target pose [rad/s]."""
MAX_TILT = 0.1
"""How far from pointing down a target pose may ask the gripper to be [rad]."""


@dataclass(frozen=True, slots=True)
class _Twist:
    """A velocity of the tool, good until it runs out."""

    velocity: np.ndarray
    """float64 (4,): x y z [m/s] in the tool's frame, yaw [rad/s]."""


@dataclass(frozen=True, slots=True)
class _Goal:
    """A pose to go to."""

    pose: GripperPose


class RealTimeRobot(SimRobot):
    """Physics runs; the newest motion replaces the one before it."""

    twist_timeout_s = 0.25
    """Age at which a twist runs out [s]: the tool slows down and stands."""
    cmd_timeout_s = 0.0
    """Age at which any other motion is broken off [s]; 0: it is carried to its end."""

    def __init__(self, env: RobotEnv) -> None:
        super().__init__(env)
        arm, dt = env.arm, env.bullet.sim_dt
        self._servo = CartesianController(arm.model.workspace, arm.solve_ik, SERVO_SUBSTEPS * dt)
        self._max_speeds = np.full(len(self.joints), MAX_JOINT_SPEED)
        self._substeps = 0
        self._epoch_ns = self.time_ns
        self._idle()

    def reset(self, seed: int | None = None, *, split: str = "train", num_objects: int = 3) -> int:
        seed = super().reset(seed, split=split, num_objects=num_objects)
        self._epoch_ns, self._substeps = self.time_ns, 0
        self._idle()
        self._declared = False
        self._outcome_ns = self.time_ns + self.period_ns
        return seed

    def trajectory(self, message: Any) -> None:
        """trajectory_msgs/JointTrajectory; without points: stop."""
        self._refuse_if_stopped()
        if not len(message.points):
            self._freeze()
            self._idle()
            return
        self._move(read_trajectory(message, self.joints, self._here(), self.ros_ns))

    def positions(self, values: Any) -> None:
        """Joint positions (j,) [rad], the arm's order: go there as fast as the joints may."""
        self._refuse_if_stopped()
        self._move(finite(values, len(self.joints), "joint positions"))

    def twist(self, linear: Any, angular: Any, stamp_ns: int = 0) -> None:
        """Velocities of the tool in its frame (3,) [m/s], (3,) [rad/s], held until they run out."""
        del stamp_ns  # its age counts from now: the sender's clock need not be ours
        self._refuse_if_stopped()
        self._move(_Twist(np.array(read_twist(linear, angular))))

    def pose(self, position: Any, quaternion: Any, frame: str = "") -> None:
        """The tool's position (3,) [m] and orientation (4,) x y z w in the base frame: only a turn about z."""
        self._refuse_if_stopped()
        if frame not in ("", "base_link"):
            raise CommandRefused(f"a target pose is expected in base_link, found '{frame}'")
        x, y, z = finite(position, 3, "target position")
        qx, qy, qz, qw = finite(quaternion, 4, "target orientation")
        norm = math.hypot(qx, qy, qz, qw)
        if abs(norm - 1) > 0.01 or 2 * math.asin(min(1.0, math.hypot(qx, qy) / norm)) > MAX_TILT:
            raise CommandRefused(
                f"the gripper points down: expected a unit quaternion that turns about z, found {[qx, qy, qz, qw]}"
            )
        yaw = math.remainder(2 * math.atan2(qz, qw), 2 * math.pi)
        self._move(_Goal(self._servo.workspace.clip(GripperPose(np.array([x, y, z]), yaw))))

    def gripper(self, values: Any) -> None:
        """One number: more than 0.5 closes."""
        self._refuse_if_stopped()
        closed = bool(finite(values, 1, "gripper")[0] > 0.5)
        if closed != self.env.arm.gripper_closed:
            self.env.arm.command_gripper(closed)
            self._outcome_ns = self.time_ns + self.period_ns  # fingers take a control period to close: half-way they tell nothing

    def terminate(self, declared: bool) -> None:
        """The policy declares the task done: the arm stands still, and one control period later is judged."""
        self._refuse_if_stopped()
        if declared and not self._declared:
            self._declared = True
            self._outcome_ns = self.time_ns + self.period_ns
            self._freeze()
            self._idle()

    def press(self) -> None:
        super().press()
        self._idle()

    def advance(self) -> StepResult | None:
        """One physics step. Returns the result of a control step where one ends."""
        self._drive()
        self.env.bullet.stepSimulation()
        self._substeps += 1
        self.time_ns = self._epoch_ns + round(self._substeps * self.env.bullet.sim_dt * NANOSECONDS)
        if self.done or self.time_ns < self._outcome_ns:
            return None
        self._outcome_ns += self.period_ns
        declared, self._declared = self._declared, False
        return self._step_result(*self.env.finish_step(declared))

    @property
    def moving(self) -> bool:
        """Whether a motion is being carried out."""
        return self._motion is not None

    def _move(self, motion: "Trajectory | np.ndarray | _Twist | _Goal") -> None:
        cartesian = isinstance(motion, _Twist | _Goal)
        if cartesian and not isinstance(self._motion, _Twist | _Goal):
            self._servo.reset()  # from where the arm is, whatever the servo did before
        self._motion, self._since_ns = motion, self.time_ns

    def _idle(self) -> None:
        """No motion: the motors keep their last targets."""
        self._motion: Trajectory | np.ndarray | _Twist | _Goal | None = None
        self._since_ns = self.time_ns
        self._servo.reset()
        self._target: np.ndarray | None = None

    def _here(self) -> np.ndarray:
        """Where a trajectory starts: at what the joints are told while they are, so that a stream of them does not jerk."""
        return self.joint_positions() if self._target is None else self._target

    def _drive(self) -> None:
        """Set the motors for the coming physics step."""
        motion, age_s = self._motion, (self.time_ns - self._since_ns) / NANOSECONDS
        if motion is None:
            return
        if isinstance(motion, _Twist):
            self._drive_twist(motion, age_s)
        elif 0 < self.cmd_timeout_s <= age_s:
            self._idle()
        elif isinstance(motion, _Goal):
            self._drive_goal(motion)
        elif isinstance(motion, Trajectory):
            self._drive_joints(motion.at(self.ros_ns))
            if self.ros_ns >= motion.end_ns:
                self._motion = None
        else:
            self._drive_joints(motion)
            self._motion = None

    def _drive_joints(self, positions: np.ndarray) -> None:
        self._target = positions
        self.env.arm.drive(positions, self._max_speeds)

    def _drive_twist(self, motion: _Twist, age_s: float) -> None:
        share = 1.0 - max(0.0, age_s - self.twist_timeout_s) / HALT_S
        if share <= 0:
            self._freeze()
            self._idle()
        elif self._substeps % SERVO_SUBSTEPS == 0:
            self._drive_servo(share * motion.velocity * self._servo.control_dt)

    def _drive_goal(self, motion: _Goal) -> None:
        if self._substeps % SERVO_SUBSTEPS:
            return
        here, dt = self._servo.commanded or self.tool_pose(), self._servo.control_dt
        way, turn = motion.pose.position - here.position, motion.pose.yaw - here.yaw
        steps = max(float(np.linalg.norm(way)) / (MAX_SPEED * dt), abs(turn) / (MAX_TURN * dt))
        cos, sin = math.cos(here.yaw), math.sin(here.yaw)
        delta = np.array([cos * way[0] + sin * way[1], cos * way[1] - sin * way[0], way[2], turn])
        self._drive_servo(delta / max(1.0, steps))
        if steps <= 1:
            self._motion = None

    def _drive_servo(self, delta: np.ndarray) -> None:
        command = self._servo.command(delta, self.tool_pose(), self.joint_positions())
        self._target = command.positions
        self.env.arm.drive(command.positions, command.speeds)
