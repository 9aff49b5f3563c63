"""The states of a running policy, and everything a status tells of one."""

from dataclasses import dataclass
from enum import Enum


class RunState(Enum):
    idle = "IDLE"
    """Configured, not activated."""
    running = "RUNNING"
    paused = "PAUSED"
    """By request, at the start, or after an e-stop: waits for `start`."""
    hold = "HOLD"
    """By a failure that may pass: the arm was told to stay where it is; resumes by itself only with `auto_resume`."""
    estop = "ESTOP"
    """Latched."""
    fault = "FAULT"
    """By a failure that will not pass: only `reset` leads out, into PAUSED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a status tells."""

    state: RunState
    reason: str
    """A word, a colon and a sentence; "" while running."""
    ages_s: dict[str, float | None]
    """Topic to the time since its newest sample [s]; None before the first."""
    skew_s: float
    counts: dict[str, int]
    """commands, requests, misses, dropped_answers, skewed, unusable, non_finite, refused, time_jumps, holds, below_min_value."""
    topics: dict[str, dict[str, int]]
    """Topic to taken, rejected, out_of_order, repeated_stamp, future, no_stamp, bad_stamp."""
    clamps: dict[str, int]
    """Limit to how often it was hit: action, position, step, velocity, acceleration, workspace."""
    inference_p50_ms: float | None
    """Of the last few hundred answers; None before the first."""
    inference_p99_ms: float | None
