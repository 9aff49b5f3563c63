"""Whether data are what a checkpoint's normalisation was made for."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KEYS = ("proprio_mean", "proprio_std")
"""The statistics that normalise a network's input."""
MAX_SHIFT = 3.0
"""Standard deviations that a mean may lie away from the checkpoint's."""
MAX_RATIO = 3.0
"""How many times as wide, or as narrow, as the checkpoint's a distribution may be."""


def shifted(names: Sequence[str], kept: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Proprioception whose mean or spread in `found` is far from that in `kept`, a phrase for each.

    Both hold `proprio_mean` and `proprio_std`, (p,), in the units of the data.
    """
    phrases = []
    for i, name in enumerate(names):
        mean, std = (float(kept[key][i]) for key in KEYS)
        other_mean, other_std = (float(found[key][i]) for key in KEYS)
        width = std if std > 1e-6 else 1.0  # as the network's own
        varies = min(std, other_std) > 1e-6
        if abs(other_mean - mean) > MAX_SHIFT * width or (varies and abs(np.log(other_std / std)) > np.log(MAX_RATIO)):
            phrases.append(f"'{name}' is {other_mean:.4g} ± {other_std:.2g}, the checkpoint's {mean:.4g} ± {std:.2g}")
    return phrases


def kept_normalisation(names: Sequence[str], kept: Mapping[str, Any], found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Statistics `found` of data with those of `kept` that normalise: weights go on with the normalisation they were learned under.

    A warning tells where these data lie far from it; `where` names the checkpoint.
    """
    far = shifted(names, kept, found)
    if far:
        warnings.warn(
            f"{where} was trained on other proprioception: in these data {'; '.join(far)}. Its normalisation is kept; "
            "check units and robot, or train afresh without init",
            stacklevel=2,
        )
    return {**found, **{key: kept[key] for key in KEYS}}
