"""Which episodes succeeded, for logs that do not say so: by the option `success` of a reader, or by rewards that are 0 and 1."""

from collections.abc import Collection
from typing import Literal

import numpy as np

from qtransformer.errors import ConfigError, DatasetError

Successes = Literal["all", "none"] | Collection[int]
"""Which episodes succeeded: all, none, or those of these indices."""


def succeeding(successes: Successes | None, episodes: Collection[int], where: str) -> Collection[int] | None:
    """The indices that the option means; refused where it is none of its forms or names episodes that do not exist."""
    if successes is None:
        return None
    if successes == "all":
        return episodes
    if successes == "none":
        return ()
    if isinstance(successes, str) or not all(isinstance(i, int) for i in successes):
        raise ConfigError(f"{where}: success expected all, none or a list of episode indices, found {successes!r}; choose one")
    unknown = [i for i in successes if i not in episodes]
    if unknown:
        raise DatasetError(f"{where}: success names episodes {unknown[:5]} that the dataset does not have; correct the list")
    return set(successes)


def refuse_success(successes: Successes, where: str) -> None:
    """Raise: the option would be ignored by a dataset that itself says how each episode went."""
    raise DatasetError(
        f"{where}: success:{successes} is for datasets that do not say which episodes succeeded, and this one does; "
        "leave it out, or write other labels with `qtransformer data relabel`"
    )


def success_of_rewards(rewards: np.ndarray, where: str) -> bool:
    """Whether a reward of 1 occurs. Other rewards than 0 and 1 are refused: which of them mean success would be a guess.

    What is no number at all is left for `check_episode` to refuse.
    """
    if not np.isin(rewards[np.isfinite(rewards)], (0.0, 1.0)).all():
        raise DatasetError(
            f"{where}: rewards other than 0 and 1 do not tell whether it succeeded; "
            "say so: success:all, success:none or a list of episode indices, success:[0,3]"
        )
    return bool((rewards == 1.0).any())
