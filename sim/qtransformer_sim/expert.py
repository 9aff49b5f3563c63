"""A scripted expert that sees the objects' poses, and a random baseline that sees nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError
from qtransformer.types import ActionSpec
from qtransformer_sim.controller import GripperPose
from qtransformer_sim.env import ACTION_SPEC, RobotEnv
from qtransformer_sim.objects import SceneObject
from qtransformer_sim.tasks import GraspTask

YAWS = np.linspace(-np.pi / 2, np.pi / 2, 10, endpoint=False)
"""Directions of closing that are tried [rad]; half a turn, for a gripper has no front."""
BAND = 0.012
"""Half the breadth of the strip that the fingers grip [m]."""
HOVER = 0.075
"""Height above the grasp at which position and turn are corrected before the descent [m]."""

ENOUGH_POINTS = 24
"""Surface points in the strip that make a firm grip; fewer are a corner or a thin arm."""


@dataclass(frozen=True)
class Grasp:
    """Where to close, and on what."""

    item: SceneObject
    pose: GripperPose
    anchor: np.ndarray
    """Where the object was when the grasp was planned, (3,) [m]."""
    score: float
    """Lower is better."""


class ScriptedExpert:
    """Picks an easy grasp nearby, aligns above it, descends, closes, lifts, and declares; opens and plans again after a miss."""

    def __init__(self, env: RobotEnv) -> None:
        if not isinstance(env.task, GraspTask):
            raise ConfigError(
                f"the expert knows only the task 'grasp', found {type(env.task).__name__}; choose task=grasp, or another actor"
            )
        self.env = env
        self.task: GraspTask = env.task
        self.grasp: Grasp | None = None
        self.missed: list[Grasp] = []

    def reset(self) -> None:
        """Forget the last episode's plan."""
        self.grasp = None
        self.missed = []

    def act(self, observation: Any) -> np.ndarray:
        """The next action, float32 (6,) in robot units. The observation is ignored: this expert asks the simulator."""
        del observation
        return self.after_closing() if self.env.arm.gripper_closed else self.before_closing()

    def after_closing(self) -> np.ndarray:
        """Lift what is held and declare it; open where nothing is."""
        held = self.task.held(self.env.arm)
        if held is None:
            self.forget_grasp()
            return action(gripper=0.0)
        # A little higher than asked for, against slip while the declaration is judged.
        if self.task.lifted_by(held) > self.task.LIFT + 0.012:
            return action(gripper=1.0, terminate=1.0)
        return action(dz=ACTION_SPEC.high[2], gripper=1.0)

    def before_closing(self) -> np.ndarray:
        """Go to the grasp, and close when there."""
        if self.grasp is None or self.has_moved(self.grasp):
            self.grasp = self.plan()
        return self.approach(self.aim(self.grasp))

    def aim(self, grasp: Grasp) -> GripperPose:
        """Where to close for a planned grasp."""
        return grasp.pose

    def forget_grasp(self) -> None:
        """After a miss: plan again, and rather on another object."""
        if self.grasp is not None:
            self.missed.append(self.grasp)
        self.grasp = None

    def approach(self, target: GripperPose) -> np.ndarray:
        """One action towards a grasp pose: above it first, then down, then close."""
        pose = self.env.arm.gripper_pose()
        error, turn = target.position - pose.position, target.yaw - pose.yaw
        aligned = np.linalg.norm(error[:2]) < 0.012 and abs(turn) < 0.12
        if aligned and abs(error[2]) < 0.01:
            return action(gripper=1.0)
        dz = error[2] if aligned else max(error[2] + HOVER, ACTION_SPEC.low[2])
        cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
        return action(cos * error[0] + sin * error[1], cos * error[1] - sin * error[0], dz, turn)

    def has_moved(self, grasp: Grasp) -> bool:
        return bool(np.linalg.norm(grasp.item.position(self.env.bullet) - grasp.anchor) > 0.008)

    def plan(self) -> Grasp:
        """The best grasp on any object within reach."""
        bullet, pose = self.env.bullet, self.env.arm.gripper_pose()
        within_reach = [item for item in self.task.objects if self.task.within_reach(item)]
        clouds = [item.surface(bullet) for item in within_reach]
        scene = np.concatenate(clouds)
        grasps = [
            grasp_at(item, item.position(bullet), cloud, scene, yaw, offset, pose, self.env.arm.model.finger_zone)
            for item, cloud in zip(within_reach, clouds, strict=True)
            for yaw in YAWS
            for offset in (-0.018, 0.0, 0.018)
        ]
        return min(grasps, key=lambda grasp: grasp.score + sum(distrust(grasp, miss) for miss in self.missed))


def grasp_at(
    item: SceneObject,
    center: np.ndarray,
    cloud: np.ndarray,
    scene: np.ndarray,
    yaw: float,
    offset: float,
    pose: GripperPose,
    finger_zone: tuple[float, float],
) -> Grasp:
    """The grasp of an object that closes along `yaw`, `offset` [m] beside the object's centre (3,).

    `cloud` (n, 3) are the object's own surface points, `scene` (m, 3) those of all objects, base frame [m];
    the open fingers come down at distances `finger_zone` [m].
    """
    along, across = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    strip = cloud[np.abs((cloud[:, :2] - center[:2]) @ across - offset) < BAND]
    if len(strip) < 6:
        return Grasp(item, pose, center, np.inf)
    u = (strip[:, :2] - center[:2]) @ along
    middle, width, top = (u.min() + u.max()) / 2, np.ptp(u), strip[:, 2].max()
    point = center[:2] + middle * along + offset * across
    turn = nearest_turn(yaw, pose.yaw)
    relative = scene[:, :2] - point
    distance = np.abs(relative @ along)
    in_the_way = (np.abs(relative @ across) < BAND + 0.006) & (distance > finger_zone[0]) & (distance < finger_zone[1])
    score = (
        0.15 * in_the_way.sum()
        + 40.0 * max(0.0, width - 0.05)
        + 8.0 * width
        + 12.0 * float(np.hypot(middle, offset))
        # Nearness decides between objects: a camera can tell which is nearest, but hardly which is easiest.
        + 20.0 * float(np.linalg.norm(point - pose.position[:2]))
        + 0.8 * abs(turn - pose.yaw)
        + 0.04 * max(0, ENOUGH_POINTS - len(strip))
    )
    height = max(0.006, top - 0.05)
    return Grasp(item, GripperPose(np.array([*point, height]), turn), center, float(score))


def distrust(grasp: Grasp, miss: Grasp) -> float:
    """What a miss adds to a grasp's score: something for the same object, more for the same place on it."""
    if grasp.item.body != miss.item.body or not np.isfinite(grasp.score):
        return 0.0
    apart = np.linalg.norm((grasp.pose.position - grasp.anchor - miss.pose.position + miss.anchor)[:2])
    return 0.4 + 1.0 * float(apart < 0.015 and abs(np.sin(grasp.pose.yaw - miss.pose.yaw)) < 0.5)


def nearest_turn(yaw: float, current: float) -> float:
    """`yaw` plus the multiple of half a turn that brings it nearest to `current` [rad]."""
    return float(yaw + np.pi * np.round((current - yaw) / np.pi))


def action(
    dx: float = 0.0, dy: float = 0.0, dz: float = 0.0, dyaw: float = 0.0, gripper: float = 0.0, terminate: float = 0.0
) -> np.ndarray:
    """An action in robot units, clipped to the limits, float32 (6,)."""
    return np.clip([dx, dy, dz, dyaw, gripper, terminate], ACTION_SPEC.low, ACTION_SPEC.high).astype(np.float32)


class RandomActor:
    """Uniform over the action limits; switches are fair coins."""

    def __init__(self, action_spec: ActionSpec, seed: int) -> None:
        self.action_spec = action_spec
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Nothing is remembered between episodes but the generator's state."""

    def act(self, observation: Any) -> np.ndarray:
        """A random action, float32 (n,) in robot units."""
        del observation
        return self._rng.uniform(self.action_spec.low, self.action_spec.high).astype(np.float32)
