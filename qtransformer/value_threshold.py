"""When a policy should rather stop: a threshold on its own Q-values with a known rate of false stops.

A value below the threshold stops the episode. Where the threshold is the k-th smallest of the lowest values that n successful
held-out episodes reached, k = floor(rate (n + 1)), a further successful episode is stopped with a probability of at most `rate`
(split conformal prediction; Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021, arXiv 2107.07511), if it comes from the
same distribution. What it promises holds for successes; how many failures it catches has to be measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtransformer.errors import ConfigError
from qtransformer.evaluate import EpisodeResult
from qtransformer.intervals import wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """What a threshold does to episodes that were acted without it."""

    threshold: float
    successes: int
    stopped_successes: int
    failures: int
    stopped_failures: int
    steps_saved: float
    """Mean number of steps that a stopped failure would still have acted."""

    @property
    def false_stops(self) -> float:
        """Share of the successful episodes that are stopped."""
        return self.stopped_successes / max(1, self.successes)

    @property
    def caught(self) -> float:
        """Share of the failed episodes that are stopped."""
        return self.stopped_failures / max(1, self.failures)

    def to_dict(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "successes": self.successes,
            "false_stops": self.false_stops,
            "false_stops_interval": wilson(self.stopped_successes, self.successes),
            "failures": self.failures,
            "caught": self.caught,
            "caught_interval": wilson(self.stopped_failures, self.failures),
            "steps_saved": self.steps_saved,
        }

    def __str__(self) -> str:
        low, high = wilson(self.stopped_successes, self.successes)
        below, above = wilson(self.stopped_failures, self.failures)
        return (
            f"stops {self.false_stops:.3f} [{low:.3f}, {high:.3f}] of {self.successes} successes and "
            f"{self.caught:.3f} [{below:.3f}, {above:.3f}] of {self.failures} failures, {self.steps_saved:.1f} steps early"
        )


def calibrate_threshold(results: Sequence[EpisodeResult], rate: float) -> float:
    """The threshold that stops at most a share `rate` of successful episodes like those in `results`.

    Raises:
        ConfigError: the results carry no values, or hold too few successes for so small a rate.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"the rate of false stops must lie between 0 and 1, found {rate}")
    if any(not r.values for r in results):
        raise ConfigError("the policy has no values (algo=bc learns none): train one with algo=q or algo=mc")
    lowest = sorted(min(r.values) for r in results if r.success)
    rank = math.floor(rate * (len(lowest) + 1))
    if rank < 1:
        needed = math.ceil(1 / rate) - 1
        raise ConfigError(
            f"{rate:g} false stops need {needed} successful episodes to calibrate on, found {len(lowest)}: raise episodes="
        )
    return lowest[rank - 1]


def stops(results: Sequence[EpisodeResult], threshold: float) -> Stops:
    """What the threshold would have done to these episodes."""
    successes, failures = [r for r in results if r.success], [r for r in results if not r.success]
    ends = [next((i for i, v in enumerate(r.values) if v < threshold), None) for r in failures]
    saved = [r.steps - end for r, end in zip(failures, ends, strict=True) if end is not None]
    return Stops(
        threshold=threshold,
        successes=len(successes),
        stopped_successes=sum(min(r.values) < threshold for r in successes),
        failures=len(failures),
        stopped_failures=len(saved),
        steps_saved=sum(saved) / max(1, len(saved)),
    )
