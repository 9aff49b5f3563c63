"""Scores of a checkpoint from a log alone, as pure functions; formulas, sources and what they are worth: docs/log_evaluation.md.

Arrays in, numbers out. A score is NaN where it does not exist: a cloned policy has no values, not every
training has a behaviour classifier, a log may hold no failures.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from qtransformer.log_evaluation.ranking import ranks
from qtransformer.log_evaluation.replay import Replay
from qtransformer.metrics import calibration_error, calibration_table

BVFT_RESOLUTION = 0.05
"""Width of the steps of value that a tournament averages in, as a share of the attainable range."""


def replay_scores(replay: Replay, v_min: float, v_max: float) -> dict[str, float]:
    """Everything that one checkpoint's replay says on its own.

    Args:
        replay: the checkpoint on the log.
        v_min: lowest attainable return.
        v_max: highest attainable return.
    """
    acted, success = replay.has_action, replay.success[replay.has_action]
    q, returns = replay.q_logged[acted, -1], replay.mc_return[acted]
    episode_q = episode_means(q, replay.episode[acted])
    episode_success = replay.success[replay.first]
    matches = (replay.greedy == replay.logged)[acted].mean(-1)
    likelihood = np.full(acted.sum(), np.nan) if replay.log_policy is None else replay.log_policy[acted].mean(-1)
    return {
        "td_error": td_error(replay),
        "calibration_error": expected_calibration_error(q, returns, v_min, v_max),
        "return_correlation": correlation(q, returns),
        "auc_step": auc(q, success),
        "auc_episode": auc(episode_q, episode_success),
        "auc_last": auc(replay.q_logged[replay.last, -1], episode_success),
        "initial_value": float(replay.greedy_value[replay.first].mean()),
        "opc": opc(q, success),
        "soft_opc": soft_opc(q, success),
        "match_success": mean_or_nan(matches[success]),
        "match_failure": mean_or_nan(matches[~success]),
        "match_gap": mean_or_nan(matches[success]) - mean_or_nan(matches[~success]),
        "likelihood_success": mean_or_nan(likelihood[success]),
        "likelihood_gap": mean_or_nan(likelihood[success]) - mean_or_nan(likelihood[~success]),
    }


def td_error(replay: Replay) -> float:
    """Root mean squared difference of value and target, over the dimensions and steps that have one."""
    return float(np.sqrt(np.mean(td_error_per_dimension(replay) ** 2))) if replay.has_target.any() else np.nan


def td_error_per_dimension(replay: Replay) -> Float[np.ndarray, "n"]:
    """The same for every dimension of the action; NaN for a cloned policy."""
    if not replay.has_target.any():
        return np.full(replay.q_logged.shape[1], np.nan)
    difference = (replay.q_logged - replay.target)[replay.has_target].astype(np.float64)
    return np.sqrt((difference**2).mean(0))


def expected_calibration_error(
    predicted: Float[np.ndarray, "k"], outcome: Float[np.ndarray, "k"], v_min: float, v_max: float
) -> float:
    """|mean prediction - mean outcome| over ten bins of prediction, weighted by count: as training logs it."""
    if not np.isfinite(predicted).all():
        return np.nan
    return calibration_error(calibration_table(torch.from_numpy(predicted), torch.from_numpy(outcome), v_min, v_max))


def correlation(a: Float[np.ndarray, "k"], b: Float[np.ndarray, "k"]) -> float:
    """Pearson's correlation; NaN where either never changes."""
    if len(a) < 2 or not np.isfinite(a).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def auc(values: Float[np.ndarray, "k"], positive: Bool[np.ndarray, "k"]) -> float:
    """Chance that a positive has the higher value than a negative; ties count half."""
    if not np.isfinite(values).all() or positive.all() or not positive.any():
        return np.nan
    n = int(positive.sum())
    return float((ranks(values)[positive].sum() - n * (n - 1) / 2) / (n * (len(values) - n)))


def soft_opc(q: Float[np.ndarray, "k"], positive: Bool[np.ndarray, "k"], prior: float = 1.0) -> float:
    """SoftOPC (Irpan et al. 2019): prior * E[Q | positive] - E[Q].

    Steps of successful episodes are known to be effective (positive); those of failures are unlabelled.

    Args:
        q: values of the logged actions.
        positive: steps of successful episodes.
        prior: p(y = 1), the share of all logged actions that are effective; not known, and the same for every checkpoint.
    """
    return prior * mean_or_nan(q[positive]) - mean_or_nan(q)


def opc(q: Float[np.ndarray, "k"], positive: Bool[np.ndarray, "k"], prior: float = 1.0) -> float:
    """OPC (Irpan et al. 2019): max over thresholds b of prior * P(Q > b | positive) - P(Q > b)."""
    if not positive.any() or not np.isfinite(q).all():
        return np.nan
    thresholds = np.concatenate([[-np.inf], np.unique(q)])
    above_positive = 1 - np.searchsorted(np.sort(q[positive]), thresholds, side="right") / positive.sum()
    above = 1 - np.searchsorted(np.sort(q), thresholds, side="right") / len(q)
    return float((prior * above_positive - above).max())


def bvft(
    q: Float[np.ndarray, "m k"],
    target: Float[np.ndarray, "m k"],
    v_min: float,
    v_max: float,
    resolution: float = BVFT_RESOLUTION,
) -> Float[np.ndarray, "m"]:
    """Losses of the batch value-function tournament (Xie and Jiang 2021; Zhang and Jiang 2021); lower is better.

    For checkpoints i and j, states fall into the same cell where both Q_i and Q_j fall into the same step of `resolution`.
    Averaging Q_i's Bellman target within cells projects it; loss(i, j) is how far Q_i lies from that projection, and i's loss
    is its greatest over all j.

    Args:
        q: value of the k logged actions under each of m checkpoints.
        target: r + discount * Q(s', greedy action) under the same checkpoint.
        v_min: lowest attainable return.
        v_max: highest attainable return.
        resolution: width of a step, as a share of the attainable range.
    """
    steps = np.floor((q - v_min) / (v_max - v_min) / resolution).astype(np.int64)
    steps -= steps.min()
    width = int(steps.max()) + 1
    losses = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        for j in range(len(q)):
            _, cell = np.unique(steps[i] * width + steps[j], return_inverse=True)
            cell = cell.reshape(-1)
            projected = np.bincount(cell, target[i]) / np.bincount(cell)
            losses[i, j] = np.sqrt(((q[i] - projected[cell]) ** 2).mean())
    return losses.max(1)


def episode_means(values: Float[np.ndarray, "k"], episode: np.ndarray) -> Float[np.ndarray, "e"]:
    """Mean of each episode's steps."""
    return np.bincount(episode, values) / np.bincount(episode)


def mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
