"""Recipes for data: who acts while episodes are logged.

The papers log about 8% demonstrations and 92% noisy replays. Noise that averages to zero would teach cloning the expert
back, and a benchmark on such data says nothing about Q-learning. So the noise here has *modes*, drawn per episode, and a
*bias*: aims are off to preferred sides, closes come too high, declarations too soon. Episodes of a mode still succeed
sometimes, so successes carry the bias too; only their value tells the good action from the usual one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qtransformer_sim.controller import GripperPose
from qtransformer_sim.env import ACTION_SPEC, RobotEnv
from qtransformer_sim.expert import Grasp, ScriptedExpert, action


@dataclass(frozen=True)
class Mode:
    """A way of doing the task badly. All zeros is the expert."""

    offset: tuple[float, float] = (0.0, 0.0)
    """Mean error of the aim in the gripper frame, along and across the closing direction [m]."""
    offset_spread: float = 0.0
    """Standard deviation of that error, drawn per attempt [m]."""
    turn: float = 0.0
    """Mean error of the gripper's turn [rad]."""
    turn_spread: float = 0.0
    """Standard deviation of that error, drawn per attempt [rad]."""
    height: float = 0.0
    """Mean height above the grasp at which the gripper closes [m]."""
    height_spread: float = 0.0
    """Standard deviation of that height, drawn per attempt; it never aims below the grasp [m]."""
    wander: float = 0.0
    """Share of steps spent on a random motion instead of progress."""
    haste: float = 0.0
    """Chance per step of declaring what is held but not yet lifted enough."""
    gives_up: float = 0.0
    """Chance of declaring falsely after a miss instead of trying again."""
    forgets: float = 0.0
    """Chance per step of not declaring what is lifted."""
    shies: float = 0.0
    """Chance, once there, of declaring falsely instead of closing."""
    plunge: bool = False
    """Ignore the objects: sink at random, close near the table, rise."""


CLEAN = Mode()
MODES: dict[str, Mode] = {
    "right": Mode(
        offset=(0.026, 0.014),
        offset_spread=0.014,
        turn=0.3,
        turn_spread=0.15,
        height=0.008,
        height_spread=0.004,
        wander=0.05,
        gives_up=0.35,
    ),
    "far": Mode(offset=(0.010, 0.036), offset_spread=0.010, wander=0.1, gives_up=0.6),
    "near": Mode(offset=(0.0, -0.036), offset_spread=0.012, gives_up=0.8),
    "crossed": Mode(offset=(0.015, 0.020), offset_spread=0.010, turn=1.3, turn_spread=0.15, gives_up=0.8),
    "high": Mode(offset=(0.010, 0.0), offset_spread=0.010, height=0.025, height_spread=0.012, gives_up=0.7),
    "dither": Mode(offset=(0.012, 0.006), offset_spread=0.010, wander=0.45, gives_up=0.5),
    "hasty": Mode(offset=(0.010, 0.006), offset_spread=0.008, haste=0.6),
    "forgetful": Mode(offset=(0.010, 0.008), offset_spread=0.010, forgets=0.85),
    "plunge": Mode(plunge=True),
    "shy": Mode(offset_spread=0.004, shies=1.0),
    "loose": Mode(offset_spread=0.016, turn_spread=0.35, height_spread=0.010, wander=0.15),
    "wild": Mode(offset_spread=0.035, turn_spread=0.8, height_spread=0.03, wander=0.25, gives_up=0.3),
}
"""Named modes. `loose` and `wild` are noise around the expert, `shy` is the expert that never closes; the others are biased."""


@dataclass(frozen=True)
class Recipe:
    """Who acts in which share of episodes, and how shaky the hands are."""

    name: str
    demo_share: float
    """Share of episodes in which the clean expert acts."""
    modes: Mapping[str, float] = field(default_factory=dict)
    """Relative frequency of each mode of `MODES` in the other episodes."""
    strength: float = 1.0
    """Factor on the modes' mean errors."""
    jitter_share: float = 0.0
    """Share of a noisy episode's steps whose motion is shaken."""
    jitter: tuple[float, float, float, float] = (0.012, 0.012, 0.015, 0.12)
    """Standard deviations of that shaking: dx, dy, dz [m], dyaw [rad]."""
    fumble: float = 0.0
    """Chance per noisy step that the gripper does the opposite; a tenth of it, that the episode is declared done."""

    def draw_mode(self, rng: np.random.Generator) -> str:
        """The name of the mode for an episode; "expert" for a clean one."""
        if rng.random() < self.demo_share or not self.modes:
            return "expert"
        weights = np.array(list(self.modes.values()))
        return str(rng.choice(list(self.modes), p=weights / weights.sum()))


MOSTLY_RIGHT = {
    "right": 0.60,
    "far": 0.08,
    "near": 0.08,
    "crossed": 0.05,
    "high": 0.07,
    "dither": 0.03,
    "hasty": 0.03,
    "forgetful": 0.01,
    "plunge": 0.05,
}
"""One preferred side, so that the successes agree on a wrong aim, and enough of the other sides to tell it apart."""
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("expert", demo_share=1.0),
        Recipe("demo", 0.08, MOSTLY_RIGHT, jitter_share=0.5, fumble=0.02),
        Recipe("low", 0.02, MOSTLY_RIGHT, strength=1.22, jitter_share=0.5, fumble=0.03),
        Recipe("stitching", 0.0, {"shy": 0.5, "right": 0.5}, strength=1.22),
        Recipe("full", 0.08, {"loose": 0.5, "wild": 0.35, "plunge": 0.15}, jitter_share=0.5, fumble=0.03),
    )
}
"""`demo` for the demonstration, `low` where successes are scarce, `full` unbiased noise, `expert` clean.

In `stitching` half of the episodes approach as the expert does and always fail, for they never close; the other half close, but
aim beside and succeed by luck. The best route is in no successful episode: who imitates successes, or regresses to the returns that
followed, learns to keep away from it, and only a bootstrap from one half to the other finds it.
"""


class NoisyExpert(ScriptedExpert):
    """The scripted expert in one of a recipe's modes, drawn anew at every `reset`."""

    def __init__(self, env: RobotEnv, recipe: Recipe, seed: int) -> None:
        super().__init__(env)
        self.recipe = recipe
        self.mode = "expert"
        """Name of this episode's mode."""
        self._rng = np.random.default_rng(seed)
        self._mode = CLEAN

    def reset(self) -> None:
        """Draw the next episode's mode and its first attempt's errors."""
        super().reset()
        self.mode = self.recipe.draw_mode(self._rng)
        self._mode = MODES.get(self.mode, CLEAN)
        self._draw_errors()

    def act(self, observation: Any) -> np.ndarray:
        """The next action, float32 (6,) in robot units."""
        if self.mode == "expert":
            return super().act(observation)
        return self._shake(self._plunge() if self._mode.plunge else self._choose(observation))

    def aim(self, grasp: Grasp) -> GripperPose:
        """The planned grasp, off by this attempt's errors."""
        yaw = grasp.pose.yaw + self._turn
        cos, sin = np.cos(yaw), np.sin(yaw)
        along, across = self._offset
        shift = np.array([cos * along - sin * across, sin * along + cos * across, self._height])
        return self.env.arm.model.workspace.clip(GripperPose(grasp.pose.position + shift, yaw))

    def forget_grasp(self) -> None:
        super().forget_grasp()
        self._draw_errors()

    def _draw_errors(self) -> None:
        mode, strength = self._mode, self.recipe.strength
        self._offset = self._rng.normal(strength * np.array(mode.offset), mode.offset_spread)
        self._turn = float(self._rng.normal(strength * mode.turn, mode.turn_spread))
        self._height = max(0.0, float(self._rng.normal(strength * mode.height, mode.height_spread)))

    def _choose(self, observation: Any) -> np.ndarray:
        mode, held = self._mode, self.task.held(self.env.arm)
        closed = self.env.arm.gripper_closed
        if self._rng.random() < mode.wander:
            return self._random_motion(closed)
        if closed and held is None and self._rng.random() < mode.gives_up:
            return action(gripper=1.0, terminate=1.0)
        if held is not None and self._rng.random() < mode.haste:
            return action(gripper=1.0, terminate=1.0)
        chosen = super().act(observation)
        if mode.shies and chosen[4] > 0.5 and not closed and self._rng.random() < mode.shies:
            return action(terminate=1.0)
        if chosen[5] > 0.5 and self._rng.random() < mode.forgets:
            return self._random_motion(closed)
        return chosen

    def _random_motion(self, closed: bool) -> np.ndarray:
        """A motion drawn uniformly; the fingers stay as they are."""
        motion = self._rng.uniform(ACTION_SPEC.low[:4], ACTION_SPEC.high[:4])
        return action(*(0.7 * motion), gripper=float(closed))

    def _plunge(self) -> np.ndarray:
        """Downward-biased random motion; once closed, upward, and now and then a declaration."""
        closed, height = self.env.arm.gripper_closed, self.env.arm.gripper_pose().position[2]
        dx, dy, dz, dyaw = 0.6 * self._rng.uniform(ACTION_SPEC.low[:4], ACTION_SPEC.high[:4])
        if closed:
            declare = self._rng.random() < (0.7 if height > 0.11 else 0.03)
            return action(dx, dy, 0.05, dyaw, gripper=float(self._rng.random() > 0.1), terminate=float(declare))
        close = self._rng.random() < (0.6 if height < 0.03 else 0.02)
        return action(dx, dy, dz - 0.035, dyaw, gripper=float(close))

    def _shake(self, chosen: np.ndarray) -> np.ndarray:
        """Add the recipe's jitter and fumbling, within the limits."""
        shaken = chosen.astype(np.float64)
        if self._rng.random() < self.recipe.jitter_share:
            shaken[:4] += self._rng.normal(0.0, self.recipe.jitter)
        if self._rng.random() < self.recipe.fumble:
            shaken[4] = 1.0 - shaken[4]
        if self._rng.random() < 0.1 * self.recipe.fumble:
            shaken[5] = 1.0
        return np.clip(shaken, ACTION_SPEC.low, ACTION_SPEC.high).astype(np.float32)
