"""What training needs to know of the data at large: normalisation, the support of the value head, success."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtransformer_datasets.stream.frames import EpisodeRecord, Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStats:
    """Numbers over a whole dataset. Returns are discounted."""

    proprio_mean: np.ndarray
    """float32 (p,), over all frames, final observations included."""
    proprio_std: np.ndarray
    """float32 (p,), population; 0 where a value never changes, so whoever divides must set a floor."""
    action_min: np.ndarray
    """float32 (n,), scaled actions."""
    action_max: np.ndarray
    """float32 (n,), scaled actions."""
    success_rate: float
    mean_length: float
    """Steps per episode."""
    mean_return: float
    """Mean discounted return of first steps."""
    return_min: float
    """Least discounted return-to-go of any step."""
    return_max: float
    """Greatest discounted return-to-go of any step."""
    truncated_share: float
    """Share of episodes that end by a time limit and not by termination."""
    reward_min: float
    reward_max: float
    going_on_reward_min: float
    """Least reward of a step that does not terminate its episode, 0 if there is none."""
    going_on_reward_max: float


def measure(frames: Frames, records: Sequence[EpisodeRecord]) -> DatasetStats:
    starts = np.array([record.start for record in records])
    steps = frames.has_action
    going_on = frames.rewards[steps & ~frames.terminated]
    proprio = frames.proprio.astype(np.float64)
    return DatasetStats(
        proprio_mean=proprio.mean(0).astype(np.float32),
        proprio_std=proprio.std(0).astype(np.float32),
        action_min=frames.actions[steps].min(0),
        action_max=frames.actions[steps].max(0),
        success_rate=float(np.mean([record.success for record in records])),
        mean_length=float(np.mean([record.length for record in records])),
        mean_return=float(frames.mc_return[starts].mean(dtype=np.float64)),
        return_min=float(frames.mc_return[steps].min()),
        return_max=float(frames.mc_return[steps].max()),
        truncated_share=float((frames.truncated & ~frames.terminated).sum() / len(records)),
        reward_min=float(frames.rewards[steps].min()),
        reward_max=float(frames.rewards[steps].max()),
        going_on_reward_min=float(going_on.min()) if len(going_on) else 0.0,
        going_on_reward_max=float(going_on.max()) if len(going_on) else 0.0,
    )
