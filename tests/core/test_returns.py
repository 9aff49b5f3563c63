import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.returns import returns_to_go
from qtransformer_datasets.stream.frames import discounted_returns


def test_what_followed_is_discounted_once_per_step() -> None:
    """.5 * .5 + 1 = 1.25 at the step before the last, .5 * 1.25 + 0 = .625 before it; with 8 to come: .5 + .5 * 8 = 4.5, ..."""
    np.testing.assert_array_equal(returns_to_go(np.array([0.0, 1.0, 0.5]), 0.5), [0.625, 1.25, 0.5])
    np.testing.assert_array_equal(returns_to_go(np.array([0.0, 1.0, 0.5]), 0.5, final=8.0), [1.625, 3.25, 4.5])
    assert returns_to_go(np.zeros(2), 1.0, final=-np.inf).tolist() == [-np.inf, -np.inf]


@given(
    st.lists(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12), min_size=1, max_size=4), st.floats(0, 1), st.data()
)
def test_a_stream_of_episodes_has_the_same_returns_to_the_last_digit(episodes: list[list[float]], discount: float, data) -> None:
    """Frame by frame from the end, a final observation being where episodes part."""
    rewards = np.concatenate([[*rewards, 0.0] for rewards in episodes]).astype(np.float32)
    has_action = np.concatenate([[True] * len(rewards) + [False] for rewards in episodes])
    finals = np.where(has_action, 0.0, data.draw(st.floats(-50, 0)))
    expected, ahead = np.zeros(len(rewards)), 0.0
    for i in range(len(rewards) - 1, -1, -1):
        ahead = float(rewards[i]) + discount * ahead if has_action[i] else float(finals[i])
        expected[i] = ahead
    np.testing.assert_array_equal(discounted_returns(rewards, has_action, discount, finals), expected.astype(np.float32))
    per_episode = [returns_to_go(np.float32(rewards), discount, float(finals[-1])) for rewards in episodes]
    np.testing.assert_array_equal(np.concatenate(per_episode), expected[has_action])


@pytest.mark.parametrize("discount", [0.98, 1.0])
def test_a_stream_without_finals_ends_in_nothing(discount: float) -> None:
    rewards, has_action = np.array([1.0, 1.0, 0.0, 2.0, 0.0], np.float32), np.array([True, True, False, True, False])
    assert discounted_returns(rewards, has_action, discount).tolist() == pytest.approx([1 + discount, 1, 0, 2, 0])
