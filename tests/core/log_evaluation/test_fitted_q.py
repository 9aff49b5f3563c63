"""Fitted Q evaluation against exact policy evaluation, on small random MDPs with product actions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.log_evaluation.fitted_q import action_values, encode, epochs, evaluate_policy, q_of
from qtransformer.models.q_transformer import QTransformer
from qtransformer.types import Episode
from qtransformer.value_heads import make_value_head
from tests.core.tabular import DISCOUNT, MDP, learned_q, random_mdp, tabular_network


def episodes_of(mdp: MDP, network: QTransformer) -> list[Episode]:
    """Every outcome of every action once, as an episode of one step; what does not terminate is cut off by a time limit."""
    found = []
    for s, a, o in np.ndindex(mdp.reward.shape):
        action = network.tokenizer.decode(torch.from_numpy(mdp.actions[a])).numpy()
        ends = np.array([mdp.terminated[s, a, o]])
        found.append(
            Episode(
                images={},
                proprio=np.array([[s], [mdp.next_state[s, a, o]]], np.float32),
                actions=action[None],
                rewards=np.array([mdp.reward[s, a, o]], np.float32),
                terminated=ends,
                truncated=~ends,
            )
        )
    return found


def fit(mdp: MDP, policy: np.ndarray, kind: ValueKind = ValueKind.hl_gauss, episodes: list[Episode] | None = None) -> QTransformer:
    """The table that fitted Q evaluation arrives at for a policy that takes joint action `policy[s]`."""
    network = tabular_network(mdp, make_value_head(ValueConfig(kind=kind)))
    episodes = episodes_of(mdp, network) if episodes is None else episodes
    log = encode(network, episodes)
    states = np.concatenate([e.proprio[:, 0] for e in episodes]).astype(int)
    bins = torch.from_numpy(mdp.actions[policy[states]])
    whole = int(log.usable.sum())
    return evaluate_policy(network, log, bins, discount=DISCOUNT, steps=500, batch_size=whole, learning_rate=0.3, target_rate=0.5)


@pytest.mark.parametrize(("bins", "seed"), [((4,), 0), ((3, 2), 1), ((2, 2, 2), 2)])
def test_values_are_those_of_exact_policy_evaluation(bins: tuple[int, ...], seed: int) -> None:
    mdp = random_mdp(bins, seed)
    policy = np.random.default_rng(seed).integers(len(mdp.actions), size=len(mdp.reward))
    np.testing.assert_allclose(learned_q(fit(mdp, policy), mdp), mdp.q_of(policy), atol=0.015)


@pytest.mark.parametrize("kind", [ValueKind.mse, ValueKind.two_hot])
def test_every_head_can_judge(kind: ValueKind) -> None:
    mdp = random_mdp((3, 2), 4)
    policy = np.array([5, 0, 2])
    np.testing.assert_allclose(learned_q(fit(mdp, policy, kind), mdp), mdp.q_of(policy), atol=0.03)


def test_a_better_policy_is_told_from_a_worse_one_and_neither_is_taken_for_the_best() -> None:
    mdp = random_mdp((3, 2), 1)
    best, worst = mdp.q_star().argmax(-1), mdp.q_star().argmin(-1)
    values = [learned_q(fit(mdp, policy), mdp)[np.arange(3), policy] for policy in (best, worst)]
    assert (values[0] > values[1] + 0.1).all()
    np.testing.assert_allclose(values[0], mdp.q_star().max(-1), atol=0.015)


def test_steps_whose_final_observation_was_lost_are_left_out() -> None:
    """Their rewards are spoilt here: had they been used, the values would be wrong."""
    mdp = random_mdp((2, 2), 3)
    policy = np.array([1, 3, 0])
    network = tabular_network(mdp, make_value_head(ValueConfig()))
    episodes = episodes_of(mdp, network)
    spoilt = [replace(e, rewards=e.rewards + 1, has_final_observation=False) for e in episodes if e.truncated[-1]]
    found = learned_q(fit(mdp, policy, episodes=episodes + spoilt), mdp)
    np.testing.assert_allclose(found, mdp.q_of(policy), atol=0.015)


def test_every_transition_is_drawn_equally_often() -> None:
    drawn = epochs(torch.tensor([3, 5, 9]), 8, seed=0)
    assert sorted(drawn[:6].tolist()) == [3, 3, 5, 5, 9, 9]
    assert len(set(drawn[6:].tolist())) == 2


def test_the_critic_it_starts_from_is_left_as_it_was() -> None:
    mdp = random_mdp((2, 2), 3)
    network = tabular_network(mdp, make_value_head(ValueConfig()))
    log = encode(network, episodes_of(mdp, network))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate_policy(network, log, log.bins, discount=DISCOUNT, steps=3, batch_size=8)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_history_reaches_back_to_the_start_of_its_episode_and_not_beyond(make_config, make_network, make_episode) -> None:
    """Frames of the second chunk and of the second episode of a chunk: 20 episodes of 2 steps, 3 frames each."""
    network = make_network(make_config(model={"history": 3}))
    log = encode(network, [make_episode(2, seed) for seed in range(20)])
    expected = [[3 * e + max(0, t - age) for age in (2, 1, 0)] for e in range(20) for t in range(3)]
    assert log.window.tolist() == expected
    assert log.first.tolist() == [True, False, False] * 20
    assert log.usable.tolist() == [True, True, False] * 20


def test_values_of_logged_actions_are_the_networks_own(make_config, make_network, make_episode) -> None:
    network, episode = make_network(make_config()), make_episode(4, 1)
    log = encode(network, [episode])
    output = network(network.add_age(log.tokens[log.window]), log.bins)
    expected = output.q_values[:, -1].gather(1, log.bins[:, -1:])[:, 0]
    torch.testing.assert_close(action_values(network, log, log.bins), expected)
    assert q_of(network, log, torch.tensor([2]), log.bins[2:3]).shape == (1, network.value_head.num_outputs)
