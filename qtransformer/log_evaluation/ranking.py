"""How alike two rankings are, and with what certainty."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with its 95% bootstrap interval."""

    rho: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rho:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ranks(values: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse.reshape(-1)]


def spearman(a: Float[np.ndarray, "k"], b: Float[np.ndarray, "k"]) -> float:
    """Rank correlation; NaN where either never changes."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def rank_correlation(score: Float[np.ndarray, "m"], outcomes: Shaped[np.ndarray, "m e"], draws: int = 2000) -> RankCorrelation:
    """Spearman between a score of m checkpoints and their success over e episodes that all of them played.

    The interval covers both what other checkpoints and what other episodes would have said: each draw takes checkpoints and
    episodes with replacement. Draws in which nothing differs are left out.
    """
    rng, found = np.random.default_rng(0), []
    m, e = outcomes.shape
    for _ in range(draws):
        rows, columns = rng.integers(m, size=m), rng.integers(e, size=e)
        found.append(spearman(score[rows], outcomes[rows][:, columns].mean(1)))
    low, high = np.nanquantile(found, [0.025, 0.975]) if np.isfinite(found).any() else (np.nan, np.nan)
    return RankCorrelation(spearman(score, outcomes.mean(1)), float(low), float(high))
