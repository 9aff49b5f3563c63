"""How a policy is run: rates, time-outs and patience. What an arm may be told is in `safety_limits`."""

import math
from dataclasses import dataclass
from enum import Enum

from qtransformer.errors import ConfigError


class BelowMinValue(Enum):
    """What to do about an action that the policy itself expects little of."""

    hold = "hold"
    ask = "ask"
    """PAUSED: a person looks, and calls `start`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How a policy is run. What is not in `SafetyLimits`."""

    control_hz: float
    """Rate of decisions [Hz]."""
    image_timeout_s: float = 0.5
    """Age from which a camera is stale [s]."""
    joint_timeout_s: float = 0.2
    """The same for everything else that is measured [s]."""
    unmoved_timeout_s: float = 0.5
    """Time for which the measured arm may stay the same, to the last bit, after a command to move [s]; 0: for ever. In lockstep and
    in dry runs it always may."""
    max_sync_skew_s: float = 0.1
    """Largest difference of stamps within one observation [s]."""
    inference_timeout_s: float = 0.0
    """Age from which an answer is too old to act on [s]; 0: one and a half control periods."""
    max_consecutive_misses: int = 3
    """Ticks in a row without an answer, or without samples that belong together, that make a hold."""
    max_consecutive_rejections: int = 3
    """Unusable messages of one topic in a row that make a hold."""
    start_paused: bool = True
    auto_resume: bool = False
    """Whether a hold ends by itself, in RUNNING rather than PAUSED. For simulators."""
    fresh_frames_to_resume: int = 5
    """Samples of every topic before a hold counts as passed."""
    dry_run: bool = False
    """Decide, check, propose; command nothing, not even a hold."""
    lockstep: bool = False
    """Decide once on every complete set of samples with one stamp, however long that takes; the simulator waits."""
    require_stamps: bool = False
    """Refuse messages whose stamp was not set, rather than take their receipt for it."""
    max_identical_images: int = 0
    """Images in a row, the same to the last bit, from which a camera counts as frozen; 0: never, as simulators render so."""
    min_value: float | None = None
    """Expected return below which an action is not taken; None: every action is."""
    below_min_value: BelowMinValue = BelowMinValue.hold
    estop_timeout_s: float = 0.0
    """Silence of the e-stop topic that counts as pressed [s]; 0: it need not be heard."""
    max_episode_s: float = 0.0
    """Running time after which the policy is paused [s]; 0: none."""

    def __post_init__(self) -> None:
        above = ("control_hz", "image_timeout_s", "joint_timeout_s", "max_sync_skew_s", "max_consecutive_misses")
        for name in (*above, "max_consecutive_rejections", "fresh_frames_to_resume"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} expected a finite number above 0, found {getattr(self, name)}")
        for name in ("unmoved_timeout_s", "inference_timeout_s", "max_identical_images", "estop_timeout_s", "max_episode_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} expected a finite number from 0, found {getattr(self, name)}")
        if self.max_identical_images == 1:
            raise ConfigError("max_identical_images expected 0 (off) or at least 2: a single image repeats nothing")
        if self.min_value is not None and not math.isfinite(self.min_value):
            raise ConfigError(f"min_value expected a finite number, found {self.min_value}")

    @property
    def period_s(self) -> float:
        return 1 / self.control_hz

    @property
    def answer_timeout_s(self) -> float:
        return self.inference_timeout_s or 1.5 * self.period_s
