"""Whether values mean what they say: predicted value of a step against the return that followed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from qtransformer import metrics
from qtransformer.evaluate import EpisodeResult
from qtransformer.intervals import wilson
from qtransformer.metrics import CALIBRATION_BINS


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


def reliability(results: Iterable[EpisodeResult], v_min: float, v_max: float) -> list[ReliabilityBin]:
    """The bins of predicted value that hold any step, lowest first.

    Steps of one episode share one outcome, so an interval counts episodes, not steps: it is Wilson's for that many draws of a
    return in [v_min, v_max], which is never too narrow, for no such return varies more than a success or failure.
    """
    table: list[list[tuple[float, float, int]]] = [[] for _ in range(CALIBRATION_BINS)]
    span = v_max - v_min
    for episode, result in enumerate(results):
        for value, outcome in zip(result.values, result.returns, strict=False):
            if np.isfinite(value) and np.isfinite(outcome):
                index = int(np.clip(np.floor((value - v_min) / span * CALIBRATION_BINS), 0, CALIBRATION_BINS - 1))
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
    """`metrics.calibration_error` of these bins; nan without steps."""
    sums = [(b.predicted * b.steps, b.outcome * b.steps, b.steps) for b in table]
    return metrics.calibration_error(torch.tensor(sums, dtype=torch.float64)) if sums else float("nan")
