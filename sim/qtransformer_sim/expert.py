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
ALONG = np.array([[np.cos(yaw), np.sin(yaw)] for yaw in YAWS])
"""Unit vectors of these directions, and of those across them, each (yaw, 2)."""
ACROSS = np.array([[-np.sin(yaw), np.cos(yaw)] for yaw in YAWS])
OFFSETS = np.array([-0.018, 0.0, 0.018])
"""Distances beside the object's centre at which to close that are tried [m]."""
BAND = 0.012
"""Half the breadth of the strip that the fingers grip [m]."""
HOVER = 0.075
"""Height above the grasp at which position and turn are corrected before the descent [m]."""

LEAST_POINTS = 6
"""Surface points in the strip below which there is nothing to grip."""
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
        scene, zone = np.concatenate(clouds)[:, :2], self.env.arm.model.finger_zone
        nothing_firm = Grasp(within_reach[0], pose, within_reach[0].position(bullet), np.inf)
        grasps = [
            grasp
            for item, cloud in zip(within_reach, clouds, strict=True)
            for grasp in grasps_on(item, item.position(bullet), cloud, scene, pose, zone)
        ]
        return min(grasps, key=lambda grasp: grasp.score + sum(distrust(grasp, miss) for miss in self.missed), default=nothing_firm)


def grasps_on(
    item: SceneObject,
    center: np.ndarray,
    cloud: np.ndarray,
    scene: np.ndarray,
    pose: GripperPose,
    finger_zone: tuple[float, float],
) -> list[Grasp]:
    """The grasps of an object, whose centre is (3,): along each of `YAWS`, at each of `OFFSETS`, where there is enough to grip.

    `cloud` (n, 3) are the object's own surface points, `scene` (m, 2) where those of all objects lie on the table, base frame [m];
    the open fingers come down at distances `finger_zone` [m]. Arrays below are (yaw, offset) or (yaw, offset, point).
    """
    flat = cloud[:, :2] - center[:2]
    # Axis by axis, and lengths by dot products: other ways of computing the same round otherwise, and collected data would change.
    u, v = (np.array([flat @ axis for axis in axes])[:, None] for axes in (ALONG, ACROSS))
    in_strip = np.abs(v - OFFSETS[:, None]) < BAND
    count = np.count_nonzero(in_strip, axis=-1)
    low, high, top = (  # what lies beside the strip counts as a metre away, where no object reaches
        np.where(in_strip, u, 1.0).min(-1),
        np.where(in_strip, u, -1.0).max(-1),
        np.where(in_strip, cloud[:, 2], -1.0).max(-1),
    )
    middle, width = (low + high) / 2, high - low
    point = center[:2] + middle[..., None] * ALONG[:, None] + OFFSETS[:, None] * ACROSS[:, None]
    distance, beside = (
        np.abs((axes @ scene.T)[:, None] - np.sum(point * axes[:, None], -1)[..., None]) for axes in (ALONG, ACROSS)
    )
    in_the_way = (beside < BAND + 0.006) & (distance > finger_zone[0]) & (distance < finger_zone[1])
    away = point - pose.position[:2]
    turn = np.array([nearest_turn(yaw, pose.yaw) for yaw in YAWS])
    score = (
        0.15 * np.count_nonzero(in_the_way, axis=-1)
        + 40.0 * np.maximum(0.0, width - 0.05)
        + 8.0 * width
        + 12.0 * np.hypot(middle, OFFSETS)
        # Nearness decides between objects: a camera can tell which is nearest, but hardly which is easiest.
        + 20.0 * np.sqrt(away[..., None, :] @ away[..., None])[..., 0, 0]
        + 0.8 * np.abs(turn - pose.yaw)[:, None]
        + 0.04 * np.maximum(0, ENOUGH_POINTS - count)
    )
    height = np.maximum(0.006, top - 0.05)
    return [
        Grasp(item, GripperPose(np.array([*point[at], height[at]]), float(turn[at[0]])), center, float(score[at]))
        for at in zip(*np.nonzero(count >= LEAST_POINTS), strict=True)
    ]


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
