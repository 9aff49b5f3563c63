"""How an episode went, for datasets that say less than an `Episode`: rewards, success, and why it ended.

LeRobot's columns `next.reward`, `next.done`, `next.success` and `next.truncated` are all optional, and teleoperated datasets
have none of them. What they do not say is derived so:

- success: `next.success`, beside which the option `success` is refused; else that option; else a reward of 1 where rewards are
  0 and 1; else, without any reward, the episode is a demonstration and succeeded: recording with LeRobot throws failures away
  and repeats them.
- rewards: `next.reward`; else 1 at the last step of a success, 0 elsewhere.
- the end: `next.truncated` and `next.done`; else a success terminated, and everything else was cut short (truncated).
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.successes import success_of_rewards
from qtransformer_datasets.lerobot.parquet_guard import numbers

REWARD, DONE, SUCCESS, TRUNCATED = "next.reward", "next.done", "next.success", "next.truncated"
COLUMNS = (REWARD, DONE, SUCCESS, TRUNCATED)


class EpisodeOutcome(NamedTuple):
    rewards: np.ndarray
    """float32 (T,)."""
    success: bool
    terminated: bool
    """At the last step."""
    truncated: bool


def outcome(table: pa.Table, episode: int, successes: Collection[int] | None, where: str) -> EpisodeOutcome:
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
        return EpisodeOutcome(rewards.astype(np.float32), success, terminated, truncated)


def _success(given: dict[str, np.ndarray], episode: int, successes: Collection[int] | None, where: str) -> bool:
    if SUCCESS in given:
        return bool(given[SUCCESS].any())
    if successes is not None:
        return episode in successes
    if REWARD not in given:
        return True
    return success_of_rewards(given[REWARD], where)


def _check_done(done: np.ndarray, where: str) -> None:
    if done[:-1].any():
        raise DatasetError(
            f"{where}: {DONE} expected at the last step only, found at step {int(done.argmax())} of {len(done)}; "
            "split the episode there, or leave it out (episodes=...)"
        )
