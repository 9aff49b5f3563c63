"""Tasks: what lies on the table, what is asked, and when it is achieved or lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pybullet

from qtransformer_sim.arm import Arm
from qtransformer_sim.bullet import Bullet
from qtransformer_sim.controller import Workspace
from qtransformer_sim.objects import SceneObject, draw_sound_number, object_numbers, place_object

TABLE_COLOR = (0.33, 0.35, 0.38, 1.0)
MAT_COLOR = (0.86, 0.84, 0.79, 1.0)
"""Pale and grey, for the objects are saturated."""
MAX_SETTLING_STEPS = 120
"""Physics steps after which objects count as lying still: 1 s at the usual 120 Hz."""


@dataclass(frozen=True)
class TaskOutcome:
    """What a task says after a control step."""

    success: bool = False
    terminated: bool = False
    reason: str = ""
    """Why the episode ended; "" while it goes on."""


class Task(Protocol):
    """What `RobotEnv` needs of a task."""

    instruction: str
    proprio_names: tuple[str, ...]
    """Values that the task adds to proprioception, because a policy must see what decides the episode."""
    proprio_units: tuple[str, ...]
    objects: list[SceneObject]

    def reset(self, bullet: Bullet, workspace: Workspace, rng: np.random.Generator) -> None:
        """Furnish an emptied world; the arm is added afterwards."""
        ...

    def proprio(self) -> list[float]:
        """Values of `proprio_names`."""
        ...

    def outcome(self, arm: Arm, declared: bool) -> TaskOutcome:
        """Called once after every control step; `declared` says that the policy chose to end the episode."""
        ...


def build_table(bullet: Bullet, workspace: Workspace) -> None:
    """A table whose top is z = 0 of the base frame, with a pale mat under the workspace."""
    (x0, y0, _), (x1, y1, _) = workspace.low, workspace.high
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    bullet.box((0.32, 0.42, 0.03), (center_x, center_y, -0.03), TABLE_COLOR)
    bullet.box(((x1 - x0) / 2 + 0.03, (y1 - y0) / 2 + 0.03, 0.0005), (center_x, center_y, 0.0005), MAT_COLOR, solid=False)


class GraspTask:
    """Lift any object out of the clutter, then declare it.

    A close that catches nothing, and an object lost from the closed gripper, each use up one attempt. The episode is lost
    when the attempts are used up, when the declaration is false, or when no object is left within reach.
    """

    instruction = "pick up any object"
    proprio_names: tuple[str, ...] = ("attempts_left",)
    proprio_units: tuple[str, ...] = ("1",)

    LIFT = 0.08
    """Height above its place of rest at which an object counts as lifted [m]."""
    ATTEMPTS = 3
    SPREAD = 0.1
    """Objects are placed up to this far from the workspace's middle, along each axis [m]."""
    GAP = 0.055
    """Least distance between the centres of placed objects [m]: clutter, but no overlap that would fling them apart."""
    SCALES = (0.55, 0.75)
    """Object sizes relative to the original, whose typical 9 cm side would just fit between the open fingers."""

    def __init__(self, split: str = "train", num_objects: int = 3) -> None:
        self.num_objects = num_objects
        self._numbers = object_numbers(split)
        self.objects: list[SceneObject] = []

    def reset(self, bullet: Bullet, workspace: Workspace, rng: np.random.Generator) -> None:
        self.bullet = bullet
        self.workspace = workspace
        self.attempts_left = self.ATTEMPTS
        self._close_counted = False
        build_table(bullet, workspace)
        middle = (np.array(workspace.low) + np.array(workspace.high))[:2] / 2
        self.objects = []
        for xy in scatter(self.num_objects, self.SPREAD, self.GAP, rng):
            number, mesh = draw_sound_number(self._numbers, rng)
            quaternion = rng.normal(size=4)
            quaternion /= np.linalg.norm(quaternion)
            scale = float(rng.uniform(*self.SCALES))
            self.objects.append(place_object(bullet, number, mesh, middle + xy, scale, quaternion))
        settle(bullet, self.objects)
        self._rest_height = {item.body: item.position(bullet)[2] for item in self.objects}

    def proprio(self) -> list[float]:
        return [float(self.attempts_left)]

    def outcome(self, arm: Arm, declared: bool) -> TaskOutcome:
        held = self.held(arm)
        if declared:
            lifted = held is not None and self.lifted_by(held) > self.LIFT
            return TaskOutcome(True, True, "lifted") if lifted else TaskOutcome(terminated=True, reason="false declaration")
        self._count_attempt(arm.gripper_closed, held is not None)
        if self.attempts_left == 0:
            return TaskOutcome(terminated=True, reason="no attempts left")
        if not any(self.within_reach(item) for item in self.objects):
            return TaskOutcome(terminated=True, reason="no object within reach")
        return TaskOutcome()

    def held(self, arm: Arm) -> SceneObject | None:
        """The object between the closed fingers, if any."""
        if not arm.gripper_closed:
            return None
        return next((item for item in self.objects if arm.holds(item.body)), None)

    def lifted_by(self, item: SceneObject) -> float:
        """Height of an object above its place of rest [m]."""
        return float(item.position(self.bullet)[2] - self._rest_height[item.body])

    def within_reach(self, item: SceneObject) -> bool:
        position = item.position(self.bullet)
        return position[2] > -0.01 and self.workspace.contains(position, margin=0.03)

    def _count_attempt(self, closed: bool, holding: bool) -> None:
        """Spend an attempt the first time that a closed gripper is found empty; opening it arms the next."""
        if not closed:
            self._close_counted = False
        elif not holding and not self._close_counted:
            self._close_counted = True
            self.attempts_left -= 1


def scatter(count: int, spread: float, gap: float, rng: np.random.Generator) -> np.ndarray:
    """`count` points in a square of half side `spread`, at least `gap` apart where they fit, (count, 2) [m]."""
    points: list[np.ndarray] = []
    while len(points) < count:
        candidates = rng.uniform(-spread, spread, size=(20, 2))
        distances = [min((float(np.linalg.norm(c - p)) for p in points), default=gap) for c in candidates]
        far_enough = [c for c, distance in zip(candidates, distances, strict=True) if distance >= gap]
        points.append(far_enough[0] if far_enough else candidates[int(np.argmax(distances))])
    return np.array(points)


def settle(bullet: Bullet, objects: list[SceneObject]) -> None:
    """Let objects fall until they lie still, then put them to sleep: Bullet wakes them at the first touch.

    Untouched objects that are awake cost a fifth of the physics.
    """
    for step in range(1, MAX_SETTLING_STEPS + 1):
        bullet.stepSimulation()
        if step % 12 == 0 and all(is_still(bullet, item) for item in objects):
            break
    for item in objects:
        bullet.changeDynamics(item.body, -1, activationState=pybullet.ACTIVATION_STATE_SLEEP)


def is_still(bullet: Bullet, item: SceneObject) -> bool:
    """Slower than 2 cm/s and 0.5 rad/s."""
    linear, angular = bullet.getBaseVelocity(item.body)
    return max(map(abs, linear)) < 0.02 and max(map(abs, angular)) < 0.5


TASKS: dict[str, Callable[..., Task]] = {"grasp": GraspTask}
"""Tasks by name; each is called with `split` and `num_objects`. A further task is a further entry."""
