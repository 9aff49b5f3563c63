"""Intervals for success rates that vary between training seeds as well as between episodes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from qtransformer.evaluate import wilson

DRAWS = 4000
"""Resamplings behind an interval."""


class Estimate(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def success_rate(outcomes: Sequence[Bool[np.ndarray, "_"]], seed: int = 0) -> Estimate:
    """Mean success over training seeds, with the interval of the hierarchical bootstrap: seeds are drawn, then their episodes.

    With one seed, episodes alone are drawn, and the interval says nothing of what another training would give. With few seeds it
    is a little too narrow, as every bootstrap of few values. Where all episodes ended alike nothing varies between
    draws, and the interval is Wilson's.

    Args:
        outcomes: one array a training seed: which episodes succeeded.
        seed: of the resampling.
    """
    _require(outcomes)
    rng, count = np.random.default_rng(seed), len(outcomes)
    rates, sizes = np.array([o.mean() for o in outcomes]), np.array([len(o) for o in outcomes])
    if rates.min() == rates.max() and rates[0] in (0.0, 1.0):
        return Estimate(rates[0], *wilson(int((rates * sizes).sum()), int(sizes.sum())))
    seeds = rng.integers(count, size=(DRAWS, count))
    # Drawing n episodes with replacement succeeds as often as a binomial of the seed's own rate.
    means = (rng.binomial(sizes[seeds], rates[seeds]) / sizes[seeds]).mean(-1)
    return Estimate(float(rates.mean()), *_interval(means))


def success_difference(
    ours: Mapping[int, Bool[np.ndarray, "_"]], theirs: Mapping[int, Bool[np.ndarray, "_"]], seed: int = 0
) -> Estimate:
    """Mean difference of success over the training seeds that both have, paired by seed and by scene.

    Raises:
        ValueError: no seed in common, or scenes that do not match.
    """
    shared = sorted(ours.keys() & theirs.keys())
    _require([ours[s] for s in shared])
    if any(len(ours[s]) != len(theirs[s]) for s in shared):
        raise ValueError(f"paired seeds need the same scenes, found {[(len(ours[s]), len(theirs[s])) for s in shared]} episodes")
    differences = [ours[s].astype(np.int64) - theirs[s] for s in shared]
    shares = np.array([[(d == value).mean() for value in (-1, 0, 1)] for d in differences])
    sizes = np.array([len(d) for d in differences])
    rng = np.random.default_rng(seed)
    seeds = rng.integers(len(shared), size=(DRAWS, len(shared)))
    drawn = rng.multinomial(sizes[seeds], shares[seeds])  # differences of -1, 0 and 1 among the episodes drawn
    means = ((drawn[..., 2] - drawn[..., 0]) / sizes[seeds]).mean(-1)
    return Estimate(float(np.mean([d.mean() for d in differences])), *_interval(means))


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _require(outcomes: Sequence[np.ndarray]) -> None:
    if not outcomes or any(len(o) == 0 for o in outcomes):
        raise ValueError(f"expected at least one seed, each with episodes, found {[len(o) for o in outcomes]} episodes")
