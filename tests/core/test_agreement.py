"""Agreement counts the policy's own whole decision, step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from qtransformer.action_tokenizer import ActionTokenizer
from qtransformer.agreement import logged_bin_chosen
from qtransformer.types import Episode


class Scripted:
    """A policy that takes given bins, and remembers what it saw."""

    def __init__(self, bins: np.ndarray) -> None:
        self.network = SimpleNamespace(tokenizer=ActionTokenizer([4, 2], [False, True]))
        self.bins, self.seen, self.resets = bins, [], 0

    def reset(self) -> None:
        self.step, self.resets = 0, self.resets + 1

    def shadow(self, observation: Any) -> Any:
        self.seen.append(
            (float(observation["proprio"][0]), int(observation["images"]["wrist"][0, 0, 0]), observation["instruction"])
        )
        self.step += 1
        return SimpleNamespace(bins=self.bins[self.step - 1])


def test_every_dimension_is_compared_with_the_logged_bin() -> None:
    actions = np.array([[-1.0, -1.0], [-0.1, 1.0], [0.1, 1.0]], np.float32)  # bins 0 0, 1 1, 2 1
    episode = Episode(
        images={"wrist": np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)},
        proprio=np.arange(4, dtype=np.float32)[:, None],
        actions=actions,
        rewards=np.zeros(3, np.float32),
        terminated=np.zeros(3, bool),
        truncated=np.array([False, False, True]),
        instruction="pick",
    )
    policy = Scripted(np.array([[0, 0], [1, 0], [3, 1]]))
    agreed = logged_bin_chosen(policy, episode)  # pyright: ignore[reportArgumentType]
    assert agreed.tolist() == [[True, True], [True, False], [False, True]]
    assert policy.seen == [(0.0, 0, "pick"), (1.0, 1, "pick"), (2.0, 2, "pick")], "not the last observation: nothing follows it"
    assert policy.resets == 2
