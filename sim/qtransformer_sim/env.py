"""Arm x Task x Camera as a Gymnasium environment that speaks robot units."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Text

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_sim.arm import ARMS, Arm
from qtransformer_sim.bullet import Bullet
from qtransformer_sim.camera import CAMERAS, render
from qtransformer_sim.controller import GripperPose
from qtransformer_sim.studio import Studio
from qtransformer_sim.tasks import TASKS, Task

ACTION_SPEC = ActionSpec(
    names=("dx", "dy", "dz", "dyaw", "gripper", "terminate"),
    low=(-0.03, -0.03, -0.05, -0.4, 0.0, 0.0),
    high=(0.03, 0.03, 0.05, 0.4, 1.0, 1.0),
    units=("m", "m", "m", "rad", "1", "1"),
    discrete=(0, 0, 0, 0, 2, 2),
)
"""Increments in the gripper frame (x along the closing direction, z up), then two switches: close, and declare done."""

START_HEIGHT = (0.17, 0.20)
"""Height of the fingertips above the table when an episode starts [m]."""
START_SPREAD = 0.04
"""Distance of the start from the workspace's middle, along each axis [m]."""
START_YAW = 0.4
"""Largest turn at the start [rad]."""


class RobotEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """An arm with a task in front of cameras. `make_env` composes one.

    A control step either moves the gripper or moves the fingers: while the gripper opens or closes, the arm holds its pose,
    because fingers that close under way push objects over. A declaration holds still, too, and is judged after that
    control period.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 -- Gymnasium declares it so

    def __init__(
        self,
        arm: Arm,
        task: Task,
        cameras: Mapping[str, tuple[int, int]],
        *,
        max_steps: int,
        control_hz: float,
        seed: int | None,
        physics_hz: float = 120.0,
    ) -> None:
        self.render_mode = "rgb_array"
        self._substeps = _whole_substeps(control_hz, physics_hz)
        self.bullet = Bullet(1 / physics_hz)
        self.arm, self.task, self.cameras, self.max_steps = arm, task, dict(cameras), max_steps
        self.metadata = {**self.metadata, "render_fps": control_hz}
        self._running = False
        self._steps, self._has_scene = 0, False
        self._studio: Studio | None = None
        self._studio_is_stale = True
        self._seed = seed
        joints = tuple(f"joint_{i + 1}" for i in range(len(arm.model.joints)))
        self.action_spec = ACTION_SPEC
        self.observation_spec = ObservationSpec(
            cameras={name: (height, width, 3) for name, (height, width) in self.cameras.items()},
            proprio_names=(*POSE_NAMES, *task.proprio_names, *joints),
            proprio_units=(*POSE_UNITS, *task.proprio_units, *("rad" for _ in joints)),
            control_hz=control_hz,
        )
        low, high = np.array(ACTION_SPEC.low, np.float32), np.array(ACTION_SPEC.high, np.float32)
        self.action_space = Box(low, high, dtype=np.float32)
        self.observation_space = observation_space(self.observation_spec, task.instruction)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode. Everything random in it follows from `info["seed"]`: reset(seed=that) repeats it bit for bit."""
        seed = self._seed if seed is None else seed
        self._seed = None
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        rng = np.random.default_rng(self.episode_seed)
        self.bullet.clear()
        self.task.reset(self.bullet, self.arm.model.workspace, rng)
        self.arm.load(self.bullet)
        self.arm.reset(self._start_pose(rng))
        self._steps, self._has_scene = 0, True
        self._running = True
        self._studio_is_stale = True
        return self.observe(), {"success": False, "seed": self.episode_seed, "reason": ""}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take one action (6,) in robot units; what exceeds the limits is clipped."""
        if not self._running:
            raise QTransformerError("step() needs a running episode, found none or one that has ended: call reset() first")
        action = self._checked(action)
        self._act(action)
        reward, terminated, truncated, info = self.finish_step(declared=bool(action[5] > 0.5))
        return self.observe(), reward, terminated, truncated, info

    def finish_step(self, declared: bool) -> tuple[float, bool, bool, dict[str, Any]]:
        """End a control step: (reward, terminated, truncated, info), as `step` returns them."""
        outcome = self.task.outcome(self.arm, declared)
        self._steps += 1
        truncated = not outcome.terminated and self._steps >= self.max_steps
        self._running = not (outcome.terminated or truncated)
        info = {
            "success": outcome.success,
            "seed": self.episode_seed,
            "reason": outcome.reason or ("time limit" if truncated else ""),
        }
        return float(outcome.success), outcome.terminated, truncated, info

    def observe(self) -> dict[str, Any]:
        """What a policy is given now."""
        images = {name: self.image(name) for name in self.cameras}
        return {"images": images, "proprio": self.proprio(), "instruction": self.task.instruction}

    def image(self, camera: str) -> np.ndarray:
        """What a camera sees now, uint8 (h, w, 3)."""
        return render(self.bullet, self.arm.model.camera(camera), self.cameras[camera], self.arm.gripper_to_base())

    def proprio(self) -> np.ndarray:
        """What the robot feels now, float32 (p,)."""
        pose = self.arm.gripper_pose()
        values = [*pose.position, np.sin(pose.yaw), np.cos(pose.yaw), self.arm.gripper_width(), float(self.arm.gripper_closed)]
        return np.array([*values, *self.task.proprio(), *self.arm.joint_positions()], np.float32)

    def render(self, size: tuple[int, int] = (240, 320)) -> np.ndarray:  # type: ignore[override]
        """A spectator's view, uint8 (h, w, 3), independent of the policy's cameras."""
        if not self._has_scene:
            raise QTransformerError("render() needs an episode: call reset() first")
        if self._studio is None:
            self._studio = Studio()
        if self._studio_is_stale:
            self._studio.build(self.arm, self.task.objects, self.arm.model.workspace)
            self._studio_is_stale = False
        return self._studio.frame(self.bullet, self.arm, size)

    def close(self) -> None:
        """Free the physics worlds. Closing twice is harmless."""
        self._running = False
        self.bullet.close()
        if self._studio is not None:
            self._studio.close()
            self._studio = None

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, np.float64)
        if action.shape != (len(ACTION_SPEC),) or not np.isfinite(action).all():
            raise QTransformerError(
                f"an action must be {len(ACTION_SPEC)} finite numbers {ACTION_SPEC.names}, found {action.tolist()}"
            )
        return np.clip(action, ACTION_SPEC.low, ACTION_SPEC.high)

    def _act(self, action: np.ndarray) -> None:
        close, declare = bool(action[4] > 0.5), bool(action[5] > 0.5)
        switching = close != self.arm.gripper_closed
        if not declare:
            self.arm.command_gripper(close)
        self.arm.command(np.zeros(4) if switching or declare else action[:4])
        for _ in range(self._substeps):
            self.bullet.stepSimulation()

    def _start_pose(self, rng: np.random.Generator) -> GripperPose:
        workspace = self.arm.model.workspace
        middle = (np.array(workspace.low) + np.array(workspace.high))[:2] / 2
        xy = middle + rng.uniform(-START_SPREAD, START_SPREAD, size=2)
        return GripperPose(np.array([*xy, rng.uniform(*START_HEIGHT)]), float(rng.uniform(-START_YAW, START_YAW)))


POSE_NAMES = ("gripper_x", "gripper_y", "gripper_z", "gripper_sin_yaw", "gripper_cos_yaw", "gripper_width", "gripper_closed")
POSE_UNITS = ("m", "m", "m", "1", "1", "m", "1")


def observation_space(spec: ObservationSpec, instruction: str) -> Dict:
    """The Gymnasium space of the observation dictionary; no length or angle of a table-top arm comes near 10 m or rad."""
    images: dict[str, Space[Any]] = {name: Box(0, 255, shape, np.uint8) for name, shape in spec.cameras.items()}
    proprio = Box(-10.0, 10.0, (len(spec.proprio_names),), np.float32)
    letters = "".join(sorted({*instruction, *"abcdefghijklmnopqrstuvwxyz "}))
    return Dict({"images": Dict(images), "proprio": proprio, "instruction": Text(max_length=200, min_length=0, charset=letters)})


def _whole_substeps(control_hz: float, physics_hz: float) -> int:
    """Physics steps of a control step; a rate that does not divide the physics' would silently be another."""
    exact = physics_hz / control_hz
    if exact > 0.5 and math.isclose(exact, round(exact), rel_tol=1e-5):
        return round(exact)
    near = sorted({physics_hz / max(1, steps) for steps in (math.floor(exact), math.ceil(exact))})
    raise ConfigError(
        f"control_hz expected to divide physics_hz={physics_hz:g}, found {control_hz:g}: {exact:.4g} physics steps a control step; "
        f"choose control_hz={' or '.join(f'{rate:g}' for rate in near)}, or physics_hz={control_hz * max(1, round(exact)):g}"
    )


def make_env(
    *,
    task: str = "grasp",
    arm: str = "kuka",
    cameras: Mapping[str, tuple[int, int]] | None = None,
    split: str = "train",
    max_steps: int = 24,
    control_hz: float = 4.0,
    num_objects: int = 3,
    seed: int | None = None,
    physics_hz: float = 120.0,
) -> RobotEnv:
    """Compose an environment by name.

    Args:
        task: A key of `TASKS`.
        arm: A key of `ARMS`.
        cameras: Names from `CAMERAS` to image sizes (height, width); `{"wrist": (64, 64)}` if None.
        split: Which objects: "train", "validation" or "test".
        max_steps: Control steps after which an episode is truncated.
        control_hz: Control steps per second [Hz]; divides `physics_hz`.
        num_objects: Objects on the table.
        seed: Seed of the first episode, if its reset is given none.
        physics_hz: Physics steps per second [Hz].
    """
    cameras = {"wrist": (64, 64)} if cameras is None else cameras
    for kind, name, known in (("task", task, TASKS), ("arm", arm, ARMS), *(("camera", name, CAMERAS) for name in cameras)):
        if name not in known:
            raise ConfigError(f"{kind} must be one of {sorted(known)}, found '{name}'")
    return RobotEnv(
        Arm(ARMS[arm], 1 / control_hz),
        TASKS[task](split=split, num_objects=num_objects),
        cameras,
        max_steps=max_steps,
        control_hz=control_hz,
        seed=seed,
        physics_hz=physics_hz,
    )


def GraspEnv(**settings: Any) -> RobotEnv:
    """`make_env(task="grasp", ...)`."""
    return make_env(**{"task": "grasp", **settings})
