"""What is sent to an arm, before it becomes a message: plain data, so that limits and tests need no ROS."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class JointMotion:
    """Joint positions to pass through: a positions-only chunk."""

    joints: tuple[str, ...]
    positions: np.ndarray
    """float64 (points, j) [rad] or [m]."""
    times_s: tuple[float, ...]
    """When each point is due after the start, strictly increasing [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwistMotion:
    """A velocity of the tool, in the tool's frame, held for one control period."""

    linear: np.ndarray
    """float64 (3,) [m/s]."""
    angular: np.ndarray
    """float64 (3,) [rad/s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseMotion:
    """Where the tool is to be, in the base frame."""

    position: np.ndarray
    """float64 (3,) [m]."""
    orientation: np.ndarray
    """float64 (4,) x y z w."""


Motion = JointMotion | TwistMotion | PoseMotion


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One decision: a motion, and the switches that go to topics of their own."""

    motion: Motion
    switches: dict[str, np.ndarray] = field(default_factory=dict)
    """Topic to its numbers, float64 (k,), in the contract's order: gripper, terminate."""
