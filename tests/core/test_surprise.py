"""A policy expects less of what has disappointed in this episode, of that alone, and only until the next one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.agreement import logged_bin_chosen
from qtransformer.policy import Policy
from qtransformer.surprise import REMEMBERED, TRACE, Surprise

HERE, FAR = np.zeros(3), np.full(3, 4.0)
LEFT, RIGHT = np.array([-1.0, 0.0]), np.array([1.0, 0.0])


def test_by_hand() -> None:
    """Left here promised .8 and led to .5: .9 * .5 - .8 = -.35. Right there promised .6 and led to .4: .9 * .4 - .6 = -.24, and
    .9 * TRACE of that goes to the step before."""
    surprise = Surprise(width=0.3, discount=0.9)
    surprise.observe_value(0.8)
    assert (surprise.penalty(HERE, np.stack([LEFT, RIGHT])) == 0).all(), "nothing was done yet"
    surprise.record_action(HERE, LEFT, 0.8)
    surprise.observe_value(0.5)
    np.testing.assert_allclose(surprise.penalty(HERE, np.stack([LEFT, RIGHT])), [-0.35, 0.0], atol=1e-4)
    surprise.record_action(FAR, RIGHT, 0.6)
    surprise.observe_value(0.4)
    np.testing.assert_allclose(surprise.penalty(HERE, LEFT[None]), -0.35 - 0.9 * TRACE * 0.24, atol=1e-4)
    np.testing.assert_allclose(surprise.penalty(FAR, np.stack([LEFT, RIGHT])), [0.0, -0.24], atol=1e-4)
    beside = np.full(3, 0.3)  # one width away
    np.testing.assert_allclose(surprise.penalty(beside, LEFT[None]), np.exp(-0.5) * (-0.35 - 0.9 * TRACE * 0.24), atol=1e-4)
    surprise.forget()
    assert (surprise.penalty(HERE, LEFT[None]) == 0).all()


@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_it_never_promises_more(values: list[float]) -> None:
    surprise = Surprise(width=0.5, discount=1.0)
    for value in values:
        surprise.observe_value(value)
        assert (surprise.penalty(HERE, np.stack([LEFT, RIGHT])) <= 0).all()
        surprise.record_action(HERE, LEFT, value)
    surprise.observe_value(2.0)
    gained = Surprise(width=0.5, discount=1.0)
    gained.record_action(HERE, LEFT, 0.2)
    gained.observe_value(0.9)
    assert gained.penalty(HERE, LEFT[None])[0] == 0, "what went better than expected"


def test_a_cost_per_step_is_no_disappointment_and_hides_none() -> None:
    """-1 a step and .9: what promised -2.8 and led to -2 was right; what led to -3 promised .9 too much."""
    surprise = Surprise(width=0.3, discount=0.9, reward=-1.0)
    surprise.record_action(HERE, LEFT, -2.8)
    surprise.observe_value(-2.0)
    np.testing.assert_allclose(surprise.penalty(HERE, LEFT[None]), 0.0, atol=1e-9)
    surprise.forget()
    surprise.record_action(HERE, LEFT, -2.8)
    surprise.observe_value(-3.0)
    np.testing.assert_allclose(surprise.penalty(HERE, LEFT[None]), -0.9, atol=1e-9)


def test_what_was_not_carried_out_disappoints_nobody() -> None:
    surprise = Surprise(width=0.3, discount=0.9)
    surprise.record_action(HERE, LEFT, 0.8)
    surprise.undo_last()
    surprise.undo_last()  # there is nothing more to take back
    surprise.observe_value(0.1)
    assert (surprise.penalty(HERE, np.stack([LEFT, RIGHT])) == 0).all()


def test_what_somebody_else_led_to_disappoints_nobody() -> None:
    surprise = Surprise(width=0.3, discount=0.9)
    surprise.record_action(HERE, LEFT, 0.8)
    surprise.interrupt()
    surprise.observe_value(0.1)
    assert (surprise.penalty(HERE, np.stack([LEFT, RIGHT])) == 0).all()
    surprise.record_action(HERE, RIGHT, 0.4)
    surprise.undo_last()
    surprise.record_action(HERE, RIGHT, 0.4)
    surprise.observe_value(0.1)
    np.testing.assert_allclose(surprise.penalty(HERE, RIGHT[None]), 0.09 - 0.4, atol=1e-4)


def test_without_proprioception_actions_alone_are_alike() -> None:
    surprise, nowhere = Surprise(width=0.3, discount=0.9), np.zeros(0)
    surprise.record_action(nowhere, LEFT, 0.8)
    surprise.observe_value(0.5)
    np.testing.assert_allclose(surprise.penalty(nowhere, np.stack([LEFT, RIGHT])), [-0.35, 0.0], atol=1e-4)


def test_an_episode_without_an_end_keeps_the_newest_alone() -> None:
    surprise = Surprise(width=0.3, discount=0.9)
    surprise.record_action(FAR, LEFT, 1.0)
    for _ in range(REMEMBERED):
        surprise.observe_value(0.5)
        surprise.record_action(HERE, RIGHT, 0.5)
    assert surprise.penalty(FAR, LEFT[None])[0] == pytest.approx(0.0, abs=1e-6)
    assert surprise.penalty(HERE, RIGHT[None])[0] < 0


@pytest.fixture
def make_policy(make_config, make_network, make_dataset):
    def make(surprise: float) -> Policy:
        config, data = make_config(targets={"proposals": 4, "behavior_mask": 0.1, "surprise": surprise}), make_dataset()
        return Policy(make_network(config), config, data.action_spec, data.observation_spec, torch.device("cpu"))

    return make


def test_a_policy_does_something_else_where_it_has_been_disappointed(make_policy, make_episode, observe, monkeypatch) -> None:
    """Of two candidates the first is worth more; what it led to is not. Back there the second is taken, elsewhere and in another
    episode the first."""
    policy, seen = make_policy(0.3), [observe(make_episode(1, seed), 0) for seed in (0, 1, 2)]
    seen[1]["proprio"] = seen[0]["proprio"] + 3.0
    seen[2]["proprio"] = seen[0]["proprio"] - 3.0
    bins = torch.zeros(1, 2, 3, dtype=torch.long)
    bins[0, 1, 0] = 4

    def act(observation: dict, *values: float) -> int:
        probs = policy.network.value_head.to_probs(torch.tensor([values]))
        monkeypatch.setattr(policy.network, "candidates", lambda *_: (bins, probs))
        return int(policy.decide(observation).bins[0])

    assert act(seen[0], 0.8, 0.6) == 0
    assert act(seen[1], 0.3, 0.2) == 0
    assert act(seen[0], 0.5, 0.45) == 4
    assert act(seen[2], 0.5, 0.45) == 0
    policy.reset()
    assert act(seen[0], 0.8, 0.6) == 0


def test_while_somebody_else_acts_nothing_is_put_down_to_the_policy(make_policy, make_episode, observe) -> None:
    policy, observation = make_policy(0.3), observe(make_episode(2, 0), 0)
    policy.decide(observation)
    policy._surprise._expected = 100.0  # whatever comes would disappoint
    policy.shadow(observation)
    policy.decide(observation)
    assert policy._surprise._credits == [0.0, 0.0]


def test_what_followed_from_another_s_actions_is_no_surprise(make_policy, make_episode) -> None:
    """A log replayed to a policy: its own actions, which nobody took, are not to blame for what the logged ones led to."""
    plain, surprised, episode = make_policy(0.0), make_policy(0.3), make_episode(12, 1)
    np.testing.assert_array_equal(logged_bin_chosen(plain, episode), logged_bin_chosen(surprised, episode))


def test_without_disappointment_it_chooses_as_ever(make_policy, make_episode, observe) -> None:
    plain, surprised = make_policy(0.0), make_policy(0.3)
    for seed in range(6):
        observation = observe(make_episode(2, seed), 0)
        a, b = plain.decide(observation), surprised.decide(observation)
        np.testing.assert_array_equal(a.bins, b.bins)
        np.testing.assert_array_equal(a.q_values, b.q_values)
        plain.reset()
        surprised.reset()
