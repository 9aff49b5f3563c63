"""How often a policy does what was logged: the plainest sign that a training has fitted its data."""

from collections.abc import Iterator

import numpy as np
import torch

from qtransformer.policy import Policy
from qtransformer.types import Episode, Observation


def observations(episode: Episode) -> Iterator[Observation]:
    """What the robot saw before each of its actions."""
    for t in range(len(episode)):
        images = {name: rows[t] for name, rows in episode.images.items()}
        yield {"images": images, "proprio": episode.proprio[t], "instruction": episode.instruction}


def logged_bin_chosen(policy: Policy, episode: Episode) -> np.ndarray:
    """Per step and dimension, whether the policy's own greedy action lies in the bin of the logged one, bool (t, n).

    The policy sees the logged observations in order, as it would on the robot, and decides each whole action itself: a dimension
    is judged after the policy's own earlier dimensions, not after the logged ones. What followed from the logged actions is no
    surprise to it.
    """
    policy.reset()
    chosen = np.stack([policy.shadow(observation).bins for observation in observations(episode)])
    policy.reset()
    logged = policy.network.tokenizer.encode(torch.tensor(episode.actions)).numpy()
    return chosen == logged
