"""Groups of episodes that batches are balanced between, and the share of the steps that each is given."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.stream.frames import Frames

BALANCES = ("none", "success", "source", "instruction")


def grouped(
    frames: Frames, *, filter: str, balance: str, weights: Sequence[float] | None
) -> tuple[list[np.ndarray], list[Fraction]]:
    """Frames of every group in stream order, int64, and the groups' shares.

    Weights share the steps out between sources, as they are written and whatever the sources' sizes; `balance` shares each
    source's part equally between the groups it finds there. Without weights, all sources count as one. What a filter leaves
    nothing of has no share.

    Raises:
        ConfigError: a name that does not exist, or weights beside a balance between sources.
        DatasetError: a filter that leaves nothing at all, or data that are one group to balance.
    """
    if filter not in ("all", "success"):
        raise ConfigError(f"filter expected 'all' or 'success', found {filter!r}; choose one")
    if balance not in BALANCES:
        raise ConfigError(f"balance expected one of {', '.join(BALANCES)}, found {balance!r}; choose one")
    if weights is not None and balance == "source":
        raise ConfigError("balance 'source' gives every source the same weight, but weights were given; leave one of them out")
    drawn = frames.success if filter == "success" else np.ones(len(frames), bool)
    if not drawn.any():
        raise DatasetError(
            f"expected successful episodes to imitate, found none among {_episodes(frames)}; say "
            "which did (dataset={path:...,success:[0,3]}, or `qtransformer data relabel`), or imitate all: bc_filter_success=false"
        )
    labels = _labels(frames, balance)
    if balance != "none" and len(np.unique(labels)) < 2:
        raise DatasetError(f"balance {balance!r} expected two groups or more, found one; use balance='none' or other data")
    groups, shares = list[np.ndarray](), list[Fraction]()
    for number, weight in enumerate([1.0] if weights is None else weights):
        of_source = drawn if weights is None else drawn & (frames.source_id == number)
        found = np.unique(labels[of_source])
        if not len(found):
            continue  # failures alone, say: nothing of them is left under this filter, the rest of a training needs them
        groups += [np.flatnonzero(of_source & (labels == label)) for label in found]
        shares += [Fraction(str(weight)) / len(found)] * len(found)
    return groups, shares


def _labels(frames: Frames, balance: str) -> np.ndarray:
    if balance == "none":
        return np.zeros(len(frames), bool)
    return {"success": frames.success, "source": frames.source_id, "instruction": frames.instruction_id}[balance]


def _episodes(frames: Frames) -> int:
    return int((~frames.has_action).sum())
