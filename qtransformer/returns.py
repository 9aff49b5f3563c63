"""Discounted returns of an episode."""

import numpy as np
from jaxtyping import Float


def returns_to_go(rewards: Float[np.ndarray, "t"], discount: float, final: float = 0.0) -> Float[np.ndarray, "t"]:
    """Discounted return that followed each step, float64; `final` is what follows the last one."""
    returns, ahead = np.zeros(len(rewards)), final
    for t in range(len(rewards) - 1, -1, -1):
        ahead = float(rewards[t]) + discount * ahead
        returns[t] = ahead
    return returns
