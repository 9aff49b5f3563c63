"""How an episode went, for datasets that say less than an `Episode`: rewards, success, and why it ended.

LeRobot's columns `next.reward`, `next.done`, `next.success` and `next.truncated` are all optional, and teleoperated datasets
have none of them. What they do not say is derived so:

- success: `next.success`; else the option `success`; else a reward of 1 where rewards are 0 and 1; else, without any reward,
  the episode is a demonstration and succeeded: recording with LeRobot throws failures away and repeats them.
- rewards: `next.reward`; else 1 at the last step of a success, 0 elsewhere.
- the end: `next.truncated` and `next.done`; else a success terminated, and everything else was cut short (truncated).
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from qtransformer.errors import DatasetError
from qtransformer_datasets.lerobot.parquet_guard import numbers

REWARD, DONE, SUCCESS, TRUNCATED = "next.reward", "next.done", "next.success", "next.truncated"
COLUMNS = (REWARD, DONE, SUCCESS, TRUNCATED)
Successes = Literal["all", "none"] | Collection[int]
"""Which episodes succeeded: all, none, or those of these indices."""


class Outcome(NamedTuple):
    rewards: np.ndarray
    """float32 (T,)."""
    success: bool
    terminated: bool
    """At the last step."""
    truncated: bool


def outcome(table: pa.Table, episode: int, successes: Collection[int] | None, where: str) -> Outcome:
    given = {name: numbers(table, name, 1, where)[:, 0] for name in COLUMNS if name in table.column_names}
    success = _success(given, episode, successes, where)
    rewards = given.get(REWARD)
    if rewards is None:
        rewards = (np.arange(len(table)) == len(table) - 1) & success
    truncated = bool(given[TRUNCATED][-1]) if TRUNCATED in given else not success
    terminated = not truncated
    if DONE in given:
        _check_done(given[DONE].astype(bool), where)
        if TRUNCATED in given and not given[DONE][-1]:
            terminated, truncated = False, True  # it simply stops
    with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, which check_episode reports
        return Outcome(rewards.astype(np.float32), success, terminated, truncated)


def succeeding(successes: Successes | None, episodes: Collection[int], where: str) -> Collection[int] | None:
    """The indices that the option means; refused where it is none of its forms or names episodes that do not exist."""
    if successes is None:
        return None
    if successes == "all":
        return episodes
    if successes == "none":
        return ()
    if isinstance(successes, str) or not all(isinstance(i, int) for i in successes):
        raise DatasetError(f"{where}: success expected 'all', 'none' or a list of episode indices, found {successes!r}; choose one")
    unknown = [i for i in successes if i not in episodes]
    if unknown:
        raise DatasetError(f"{where}: success names episodes {unknown[:5]}, which the dataset has not; correct the list")
    return set(successes)


def _success(given: dict[str, np.ndarray], episode: int, successes: Collection[int] | None, where: str) -> bool:
    if SUCCESS in given:
        return bool(given[SUCCESS].any())
    if successes is not None:
        return episode in successes
    if REWARD not in given:
        return True
    if not np.isin(given[REWARD], (0.0, 1.0)).all():
        raise DatasetError(
            f"{where}: rewards other than 0 and 1 do not tell whether it succeeded; "
            "say so: success='all', 'none' or a list of episode indices"
        )
    return bool((given[REWARD] == 1.0).any())


def _check_done(done: np.ndarray, where: str) -> None:
    if done[:-1].any():
        raise DatasetError(
            f"{where}: {DONE} expected at the last step only, found at step {int(done.argmax())} of {len(done)}; "
            "split the episode there, or leave it out (episodes=...)"
        )
