"""Intervals of success rates: of episodes alone, and of training seeds that vary as well."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from qtransformer.errors import QTransformerError

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""
DRAWS = 4000
"""Resamplings behind an interval."""


class Estimate(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, episodes: int) -> tuple[float, float]:
    """95% Wilson score interval of a proportion (Wilson 1927): right also near 0 and 1, where +- intervals are not."""
    if episodes == 0:
        return 0.0, 1.0
    p, z2 = successes / episodes, Z_95 * Z_95
    center = (p + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = Z_95 / (1 + z2 / episodes) * math.sqrt(p * (1 - p) / episodes + z2 / (4 * episodes**2))
    return max(0.0, center - half), min(1.0, center + half)


def no_worse(success: float, best: float, episodes: int) -> bool:
    """Whether a success rate is below another by at most the standard error of their difference, both from `episodes` episodes.

    The one-standard-error rule (Breiman et al. 1984): what chance explains is no reason to prefer the shorter training.
    """
    rate = (success + best) / 2
    return success >= best or (best - success) ** 2 <= 2 * rate * (1 - rate) / episodes


def success_rate(outcomes: Sequence[Bool[np.ndarray, "_"]]) -> Estimate:
    """Mean success over training seeds, with the interval of the hierarchical bootstrap: seeds are drawn, then their episodes.

    With one seed, episodes alone are drawn, and the interval says nothing of what another training would give. With few seeds it
    is a little too narrow, as every bootstrap of few values. Where all episodes ended alike nothing varies between
    draws, and the interval is Wilson's.

    Args:
        outcomes: one array a training seed: which episodes succeeded.

    Raises:
        QTransformerError: no seed, or one without episodes.
    """
    _require(outcomes)
    rng, count = np.random.default_rng(0), len(outcomes)
    rates, sizes = np.array([o.mean() for o in outcomes]), np.array([len(o) for o in outcomes])
    if rates.min() == rates.max() and rates[0] in (0.0, 1.0):
        return Estimate(rates[0], *wilson(int((rates * sizes).sum()), int(sizes.sum())))
    seeds = rng.integers(count, size=(DRAWS, count))
    # Drawing n episodes with replacement succeeds as often as a binomial of the seed's own rate.
    means = (rng.binomial(sizes[seeds], rates[seeds]) / sizes[seeds]).mean(-1)
    return Estimate(float(rates.mean()), *_interval(means))


def success_difference(ours: Mapping[int, Bool[np.ndarray, "_"]], theirs: Mapping[int, Bool[np.ndarray, "_"]]) -> Estimate:
    """Mean difference of success over the training seeds that both have, paired by seed and by scene.

    Raises:
        QTransformerError: no seed in common, or scenes that do not match.
    """
    shared = sorted(ours.keys() & theirs.keys())
    _require([ours[s] for s in shared])
    if any(len(ours[s]) != len(theirs[s]) for s in shared):
        raise QTransformerError(
            f"paired seeds need the same scenes, found {[(len(ours[s]), len(theirs[s])) for s in shared]} episodes of seeds "
            f"{shared}; judge both on as many"
        )
    differences = [ours[s].astype(np.int64) - theirs[s] for s in shared]
    shares = np.array([[(d == value).mean() for value in (-1, 0, 1)] for d in differences])
    sizes = np.array([len(d) for d in differences])
    rng = np.random.default_rng(0)
    seeds = rng.integers(len(shared), size=(DRAWS, len(shared)))
    drawn = rng.multinomial(sizes[seeds], shares[seeds])  # differences of -1, 0 and 1 among the episodes drawn
    means = ((drawn[..., 2] - drawn[..., 0]) / sizes[seeds]).mean(-1)
    return Estimate(float(np.mean([d.mean() for d in differences])), *_interval(means))


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _require(outcomes: Sequence[np.ndarray]) -> None:
    if not outcomes or any(len(o) == 0 for o in outcomes):
        raise QTransformerError(
            f"expected at least one seed, each with episodes, found {[len(o) for o in outcomes]} episodes; train and judge it first"
        )
