"""The range of returns a value head covers: taken from the data, widened while training where targets ask for more.

`ValueConfig` leaves an end open (None) or fixes it. An open end starts where the data are and moves outwards only:

* It starts at the most extreme return-to-go of any step, or reward if that is more extreme: no return that is known is clipped,
  and demonstrations alone, which all succeed, still have room for a failure below them.
* Returns that the data do not show may exist: a policy may be better than the data's, and where rewards are negative an episode
  cut short by a time limit looks better than it was. Values of those come from bootstrapping, so an end moves when more than a
  little of the targets fall beyond it.
* It never moves beyond the limit that no backup passes: a reward of the extreme size at every step, for ever. Where no step that
  goes on is rewarded (a sparse success that ends the episode) the start is the limit, and nothing ever moves.

Ends never move back: what a range too wide costs is small (benchmarks/bench_support.py), and a range that only widens cannot swing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtransformer.config import ValueConfig
from qtransformer.value_heads.base import ValueHead

INITIAL_SHARE = 0.05
"""Where in its range a fresh network's value lies, unless the data's mean return is lower."""
WINDOW = 100
"""Updates between two decisions: about the time that values and the target network take to answer to a wider range."""
MAX_CLIPPED = 0.01
"""Share of bootstrapped targets of a window that may lie beyond an end before it moves."""
TOLERANCE = 1e-3
"""How far beyond an end, in ranges, a target counts: a twentieth of a bin, well above rounding."""
GROWTH = 1.5
"""Factor by which the range grows at once: ten times the range takes six moves, and at most a third of the bins is idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Ends of the attainable range to start with, and how far each may move."""

    v_min: float
    v_max: float
    lowest: float
    """`v_min` itself where that end is fixed; -inf where nothing bounds it (no discount)."""
    highest: float

    def including(self, v_min: float, v_max: float) -> "Support":
        """As wide as another range, too: what fine-tuning starts from."""
        low, high = min(v_min, self.v_min), max(v_max, self.v_max)
        return Support(v_min=low, v_max=high, lowest=min(low, self.lowest), highest=max(high, self.highest))


def find_support(config: ValueConfig, stats: Any, discount: float) -> Support:
    """Fixed ends from the configuration, open ones from the data; see the module's docstring.

    Args:
        config: v_min, v_max: None where the end is open.
        stats: return_min, return_max, reward_min, reward_max over all steps; going_on_reward_min, going_on_reward_max over those
            after which the episode may go on. Returns are discounted by `discount`.
        discount: per step.
    """
    low, high = min(stats.return_min, stats.reward_min), max(stats.return_max, stats.reward_max)
    if low == high:  # one return is no range: 0 is what no reward at all would give, 1 what a success would
        low, high = (min(low, 0.0), max(high, 0.0)) if low else (0.0, 1.0)
    lowest = min(low, -_perpetual_return(-stats.going_on_reward_min, discount))
    highest = max(high, _perpetual_return(stats.going_on_reward_max, discount))
    if config.v_min is not None:
        low = lowest = config.v_min
        high = high if low < high else low + 1.0
    if config.v_max is not None:
        high = highest = config.v_max
        low = low if low < high or config.v_min is not None else high - 1.0
    return Support(v_min=low, v_max=high, lowest=min(low, lowest), highest=max(high, highest))


def _perpetual_return(reward: float, discount: float) -> float:
    """The return of `reward` at every step, without end; -inf where it is not positive, since then ending is better."""
    if reward <= 0:
        return -math.inf
    return reward / (1 - discount) if discount < 1 else math.inf


def resolved(config: ValueConfig, support: Support, stats: Any) -> ValueConfig:
    """The configuration with numbers in the place of everything that was open: what rebuilds the head without the data."""
    known = replace(config, v_min=support.v_min, v_max=support.v_max)
    if config.initial is not None:
        return known
    initial = _near_low_end(support.v_min, support.v_max)
    if config.v_min is None or config.v_max is None:
        initial = max(min(initial, stats.mean_return), support.v_min)
    return replace(known, initial=initial)


def initial_value(config: ValueConfig, head: ValueHead) -> float:
    """What a fresh network predicts."""
    return _near_low_end(head.v_min, head.v_max) if config.initial is None else config.initial


def _near_low_end(v_min: float, v_max: float) -> float:
    return v_min + INITIAL_SHARE * (v_max - v_min)


def accepts(asked: ValueConfig, found: ValueConfig) -> bool:
    """Whether a head that was learned is the one asked for, what was left open fitting anything."""
    open_ends = {name: getattr(found, name) for name in ("v_min", "v_max", "initial") if getattr(asked, name) is None}
    return replace(asked, **open_ends) == found


class Beyond(NamedTuple):
    """How many of an update's bootstrapped targets lie beyond the range."""

    below: Tensor
    above: Tensor
    targets: Tensor
    """All of them."""


class SupportGrowth:
    """Counts bootstrapped targets beyond the range and says when it widens. Its counts are part of the state of training."""

    def __init__(self, support: Support) -> None:
        self.limits = (support.lowest, support.highest)
        self.seen = torch.zeros(3, dtype=torch.float64)
        """Targets since the last decision: those below the range, those above, all."""

    def see(self, beyond: Beyond) -> None:
        """Take in an update's targets."""
        self.seen = self.seen.to(beyond.targets.device) + torch.stack(beyond)

    def decide(self, v_min: float, v_max: float, step: int) -> tuple[float, float]:
        """The range from here on; a decision falls due every `WINDOW` steps, and counting begins anew."""
        if (step + 1) % WINDOW:
            return v_min, v_max
        below, above, count = self.seen.tolist()
        self.seen = torch.zeros_like(self.seen)
        return widened(v_min, v_max, self.limits, below > MAX_CLIPPED * count, above > MAX_CLIPPED * count)


def widened(v_min: float, v_max: float, limits: tuple[float, float], down: bool, up: bool) -> tuple[float, float]:
    """The range grown by `GROWTH` at the ends that are asked for, as far as the limits let it."""
    more = (GROWTH - 1) * (v_max - v_min)
    return (max(v_min - more, limits[0]) if down else v_min, min(v_max + more, limits[1]) if up else v_max)


def count_beyond(head: ValueHead, rewards: Tensor, discounts: Tensor, next_values: Tensor, counted: Tensor) -> Beyond:
    """How many of the targets `reward + discount * V` that are `counted` lie beyond the range.

    V itself is limited to the range first: what it claims beyond (in the padding of HL-Gauss) no target ever asked for.
    """
    target = rewards + discounts * head.clamp(next_values)
    margin = TOLERANCE * head.span
    below, above = (target < head.v_min - margin) & counted, (target > head.v_max + margin) & counted
    return Beyond(below.sum(), above.sum(), counted.sum())


def state_of(head: ValueHead, growth: SupportGrowth) -> dict[str, Tensor]:
    """Range and counts as tensors, exactly."""
    return {"support.range": torch.tensor([head.v_min, head.v_max], dtype=torch.float64), "support.seen": growth.seen.clone()}


def range_in(state: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """The range in a state of training; None in one from before ranges could move."""
    found = state.get("support.range")
    return None if found is None else (float(found[0]), float(found[1]))
