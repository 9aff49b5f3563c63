"""A simulated robot that waits: one control step per complete command."""

from typing import Any

import numpy as np

from qtransformer_ros.simulated.robot import SimRobot, StepResult
from qtransformer_ros.simulated.trajectory import CommandRefused, finite, read_twist
from qtransformer_sim.env import RobotEnv


class LockstepRobot(SimRobot):
    """Takes one control step of `RobotEnv` when twist, gripper and terminate have each been heard since the last."""

    def __init__(self, env: RobotEnv) -> None:
        super().__init__(env)
        self._heard: dict[str, tuple[float, ...]] = {}

    def reset(self, seed: int | None = None, *, split: str = "train", num_objects: int = 3) -> int:
        self._heard = {}
        return super().reset(seed, split=split, num_objects=num_objects)

    def twist(self, linear: Any, angular: Any, stamp_ns: int = 0) -> None:
        """Velocities of the tool in its frame (3,) [m/s], (3,) [rad/s]. A stamp before this episode's start is refused."""
        vx, vy, vz, wz = read_twist(linear, angular)
        if 0 < stamp_ns < self.ros_ns - self.steps * self.period_ns:
            self._heard = {}  # what came with it is as old
            raise CommandRefused("the twist was decided before this episode")
        hz = self.env.observation_spec.control_hz
        self._hear("twist", (vx / hz, vy / hz, vz / hz, wz / hz))

    def gripper(self, values: Any) -> None:
        """One number: more than 0.5 closes."""
        self._hear("gripper", tuple(finite(values, 1, "gripper")))

    def terminate(self, declared: bool) -> None:
        """Whether the policy declares the task done; said with every command."""
        self._hear("terminate", (float(declared),))

    def trajectory(self, message: Any) -> None:
        self._refuse("a trajectory")

    def positions(self, values: Any) -> None:
        self._refuse("joint positions")

    def pose(self, position: Any, quaternion: Any, frame: str = "") -> None:
        self._refuse("a target pose")

    def step(self) -> StepResult | None:
        """Take the control step, if its command is complete."""
        if len(self._heard) < 3 or self.paused or self.done or self.stopped:
            return None
        parts = (*self._heard["twist"], *self._heard["gripper"], *self._heard["terminate"])
        self._heard = {}
        # float32 as `rollout` gives it: what was multiplied by the rate in float64, and divided by it, comes back to the bit.
        self.observation, reward, terminated, truncated, info = self.env.step(np.array(parts, np.float32))
        self.time_ns += self.period_ns
        return self._step_result(reward, terminated, truncated, info)

    def press(self) -> None:
        super().press()
        self._heard = {}

    def _hear(self, part: str, values: tuple[float, ...]) -> None:
        self._refuse_if_stopped()
        if not self.done:  # an answer to the last observation of an episode comes too late, and that is no fault
            self._heard[part] = values

    def _refuse(self, what: str) -> None:
        raise CommandRefused(f"in lockstep the robot takes a twist, a gripper command and terminate, found {what}")
