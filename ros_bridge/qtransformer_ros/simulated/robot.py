"""The simulated robot behind `qtransformer-sim`, without ROS: what commands do to a `RobotEnv`, and what time does.

Here is what both of its modes share: `lockstep.LockstepRobot` takes control steps, one per complete command: the code of
`qtransformer eval`. `real_time.RealTimeRobot` lets physics run, and moves the arm as ros2_control's controllers and MoveIt
Servo would. Both judge the same episodes.

Commands raise CommandRefused where they are not carried out. Time is simulated time: it starts at 1 s, for a stamp of 0 says
that nobody knows, and never goes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.simulated.trajectory import CommandRefused
from qtransformer_sim.controller import MAX_JOINT_SPEED, GripperPose
from qtransformer_sim.env import RobotEnv

START_NS = NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a control step went."""

    reward: float
    success: bool
    done: bool
    event: str
    """What ended the episode: `success`, `failure` or `timeout`; "" while it goes on."""


class SimRobot:
    """Episodes, the e-stop, what is measured. `env` is the robot's own from now on; `reset` comes first."""

    def __init__(self, env: RobotEnv) -> None:
        self.env = env
        self.joints = tuple(f"joint_{i + 1}" for i in range(len(env.arm.model.joints)))
        self.period_ns = round(NANOSECONDS / env.observation_spec.control_hz)
        self.time_ns = START_NS
        self.clock_offset_ns = 0
        """ROS time, which is what stamps mean, minus `time_ns`."""
        self.steps = 0
        """Control steps of this episode."""
        self.done = True
        """No episode runs."""
        self.paused = False
        self.stopped = False
        """The e-stop is pressed: latched until `release`."""

    @property
    def ros_ns(self) -> int:
        """ROS time [ns]."""
        return self.time_ns + self.clock_offset_ns

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The proprioception that no joint has."""
        return tuple(n for n in self.env.observation_spec.proprio_names if n not in self.joints)

    def reset(self, seed: int | None = None, *, split: str = "train", num_objects: int = 3) -> int:
        """Start an episode, one control period after whatever was before. Returns its seed."""
        make: Any = type(self.env.task)  # called as `TASKS` are
        self.env.task = make(split=split, num_objects=num_objects)
        self.observation, info = self.env.reset(seed=seed)
        self.time_ns += self.period_ns
        self.steps, self.done = 0, False
        if self.stopped:
            self._freeze()
        return int(info["seed"])

    def press(self) -> None:
        """Stop at once and stay so: every command is refused until `release`."""
        self.stopped = True
        self._freeze()

    def release(self) -> None:
        """Take commands again. Nothing moves by it."""
        self.stopped = False

    def joint_positions(self) -> np.ndarray:
        """float64 (j,) [rad]"""
        return self.env.arm.joint_positions()

    def tool_state(self) -> Mapping[str, float]:
        """`tool_names` to their numbers."""
        proprio = dict(zip(self.env.observation_spec.proprio_names, self.env.proprio().tolist(), strict=True))
        return {name: proprio[name] for name in self.tool_names}

    def tool_pose(self) -> GripperPose:
        return self.env.arm.gripper_pose()

    def _freeze(self) -> None:
        """Make the pose that is measured the one that is commanded."""
        positions = self.joint_positions()
        self.env.arm.drive(positions, np.full(len(positions), MAX_JOINT_SPEED))
        self.env.arm.controller.reset()

    def _refuse_if_stopped(self) -> None:
        if self.stopped:
            raise CommandRefused("the e-stop is pressed: release it first")

    def _step_result(self, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> StepResult:
        self.steps += 1
        self.done = terminated or truncated
        success = bool(info["success"])
        event = ("success" if success else "failure") if terminated else "timeout" if truncated else ""
        return StepResult(reward=reward, success=success, done=self.done, event=event)
