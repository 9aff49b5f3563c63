"""Whether values mean what they say: predicted value of a step against the return that followed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qtransformer.evaluate import EpisodeResult, wilson

BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The steps whose predicted value fell into one interval."""

    predicted: float
    """Mean prediction."""
    outcome: float
    """Mean return."""
    low: float
    """95% interval of the mean return."""
    high: float
    steps: int
    episodes: int


def reliability(results: Iterable[EpisodeResult], v_min: float, v_max: float, bins: int = BINS) -> list[ReliabilityBin]:
    """The bins of predicted value that hold any step, lowest first.

    Steps of one episode share one outcome, so an interval counts episodes, not steps: it is Wilson's for that many draws of a
    return in [v_min, v_max], which is never too narrow, for no such return varies more than a success or failure.
    """
    table: list[list[tuple[float, float, int]]] = [[] for _ in range(bins)]
    span = v_max - v_min
    for episode, result in enumerate(results):
        for value, outcome in zip(result.values, result.returns, strict=False):
            if np.isfinite(value) and np.isfinite(outcome):
                index = int(np.clip(np.floor((value - v_min) / span * bins), 0, bins - 1))
                table[index].append((value, outcome, episode))
    return [_summary(rows, v_min, span) for rows in table if rows]


def _summary(rows: list[tuple[float, float, int]], v_min: float, span: float) -> ReliabilityBin:
    predicted, outcome = float(np.mean([r[0] for r in rows])), float(np.mean([r[1] for r in rows]))
    episodes = len({r[2] for r in rows})
    share = min(1.0, max(0.0, (outcome - v_min) / span))
    low, high = wilson(share * episodes, episodes)  # pyright: ignore[reportArgumentType]  # the formula holds for any share
    return ReliabilityBin(
        predicted=predicted,
        outcome=outcome,
        low=v_min + low * span,
        high=v_min + high * span,
        steps=len(rows),
        episodes=episodes,
    )


def calibration_error(table: Iterable[ReliabilityBin]) -> float:
    """Distance of prediction and outcome per bin, averaged over steps as in `metrics.calibration_error`; nan without steps."""
    table = list(table)
    steps = sum(b.steps for b in table)
    return sum(abs(b.predicted - b.outcome) * b.steps for b in table) / steps if steps else float("nan")
