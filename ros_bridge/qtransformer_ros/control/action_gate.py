"""From a decided action to a command that may be sent, or to why there is none."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from qtransformer.errors import QTransformerError
from qtransformer.types import ActionSpec
from qtransformer_ros.arm.motion import Command
from qtransformer_ros.arm.safety import Measured, Refusal, SafeCommand, restrict
from qtransformer_ros.arm.safety_limits import SafetyLimits
from qtransformer_ros.control.effects import DecidedAction
from qtransformer_ros.control.runtime_settings import BelowMinValue, RuntimeSettings


class Consequence(Enum):
    """What an action that cannot be taken leads to."""

    hold = "hold"
    ask = "ask"
    """A person is to look."""
    strike = "strike"
    """A hold, and a fault when it happens again and again."""
    fault = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    reason: str
    """A word, a colon and a sentence."""
    consequence: Consequence
    count: str = ""
    """Under which name it is counted; "": not at all."""


class ActionGate:
    """Looks at an action before and after it becomes a command.

    `limits` may be exchanged; `velocities` are those that the joints were last commanded to [rad/s] or [m/s], by name; `clamps`
    counts how often which limit was hit; `excused` lets the next action be of any value: a person who was asked has said so.
    """

    def __init__(self, spec: ActionSpec, limits: SafetyLimits, settings: RuntimeSettings) -> None:
        self.limits = limits
        self.velocities: dict[str, float] = {}
        self.excused = False
        self.clamps: Counter[str] = Counter()
        self._spec, self._settings = spec, settings

    def check(
        self, answer: DecidedAction, to_command: Callable[[np.ndarray], Command], measured: Measured
    ) -> SafeCommand | Rejection:
        """The command within all limits, or why there is none."""
        action = np.asarray(answer.action, np.float64)
        if why := self._unusable(action) or self._too_little(answer.value):
            return why
        try:
            command = to_command(self._as_logged(action))
        except QTransformerError as error:  # out of reach, for instance
            return Rejection(reason=f"limits: {error}", consequence=Consequence.hold)
        except Exception as error:  # a defect, and no reason to let an arm go on
            reason = f"fault: an action became no command: {type(error).__name__}: {error}"
            return Rejection(reason=reason, consequence=Consequence.fault)
        found = restrict(command, self.limits, measured, self._settings.period_s)
        if isinstance(found, Refusal):
            return _rejection(found)
        self.velocities = dict(found.velocities)
        self.clamps.update(clamp.kind for clamp in found.clamps)
        return found

    def _unusable(self, action: np.ndarray) -> Rejection | None:
        if action.shape == (len(self._spec),) and np.isfinite(action).all():
            return None
        reason = f"bad_action: expected {len(self._spec)} finite numbers, found {action.tolist()}"
        return Rejection(reason=reason, consequence=Consequence.strike, count="non_finite")

    def _too_little(self, value: float | None) -> Rejection | None:
        least, excused, self.excused = self._settings.min_value, self.excused, False
        if least is None or excused or (value is not None and value >= least):  # NaN is less than anything
            return None
        reason = f"low_value: the policy expects a return of {value}, below {least:g}"
        asks = self._settings.below_min_value is BelowMinValue.ask
        return Rejection(reason=reason, consequence=Consequence.ask if asks else Consequence.hold, count="below_min_value")

    def _as_logged(self, action: np.ndarray) -> np.ndarray:
        """Within the action's own limits, and as it comes back from scaling: what `qtransformer eval` gives an environment."""
        clipped = np.clip(action, self._spec.low, self._spec.high)
        self.clamps["action"] += int((clipped != action).sum())
        return self._spec.to_units(self._spec.to_scaled(clipped))


def _rejection(refusal: Refusal) -> Rejection:
    if refusal.not_finite:
        return Rejection(reason=f"bad_action: {refusal.reason}", consequence=Consequence.strike, count="non_finite")
    return Rejection(reason=f"limits: {refusal.reason}", consequence=Consequence.hold, count="refused")
