"""Which part of a split each episode goes to: a pure function of labels, shares and seed."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Episode


def split_episodes(
    success: Sequence[bool], shares: Mapping[str, float], seed: int, keys: Sequence[Hashable] | None = None
) -> dict[str, list[int]]:
    """Episodes of each part, in their original order.

    Without `keys`, successes and failures are divided apart, each by the shares to within one episode. With `keys`, episodes of
    the same key stay together, and whole groups go to the part that lacks most.

    Args:
        success: per episode.
        shares: part to its share; they add up to 1.
        seed: of the draw.
        keys: per episode.

    Raises:
        DatasetError: a part would be empty.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    if keys is None:
        for outcome in (True, False):
            _divide([i for i, s in enumerate(success) if bool(s) is outcome], shares, rng, parts)
    else:
        _deal(keys, shares, rng, parts)
    for name, indices in parts.items():
        if not indices:
            raise DatasetError(
                f"split: part '{name}' would hold none of {len(success)} episodes; give it a larger share, or name fewer parts"
            )
        indices.sort()
    return parts


def group_keys(episodes: Sequence[Episode], by: str, where: str) -> list[Hashable]:
    """The value of `by` of every episode: its instruction, or what its info says.

    Raises:
        ConfigError: an episode's info has no such key.
    """
    if by == "instruction":
        return [episode.instruction for episode in episodes]
    for index, episode in enumerate(episodes):
        if by not in episode.info:
            known = ", ".join(["instruction", *map(str, episode.info)])
            raise ConfigError(f"{where}, episode {index}: by={by} is not in its info; there are: {known}")
    return [str(episode.info[by]) for episode in episodes]


def _divide(indices: list[int], shares: Mapping[str, float], rng: np.random.Generator, parts: dict[str, list[int]]) -> None:
    """Shuffle, then cut where the cumulated shares fall; earlier parts take what an empty stratum leaves over."""
    shuffled = rng.permutation(indices).astype(int).tolist()
    cuts = np.round(np.cumsum([0.0, *shares.values()]) * len(shuffled)).astype(int)
    for name, start, stop in zip(shares, cuts[:-1], cuts[1:], strict=True):
        parts[name] += shuffled[start:stop]


def _deal(keys: Sequence[Hashable], shares: Mapping[str, float], rng: np.random.Generator, parts: dict[str, list[int]]) -> None:
    """Groups in random order, large ones first, each to the part that is furthest below its share."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    shuffled = [list(groups.values())[i] for i in rng.permutation(len(groups))]
    for group in sorted(shuffled, key=len, reverse=True):
        neediest = max(shares, key=lambda name: shares[name] * len(keys) - len(parts[name]))
        parts[neediest] += group
