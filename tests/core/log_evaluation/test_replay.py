"""What a replay reports of each logged frame is what robot and training would have made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qtransformer.learner import QLearner
from qtransformer.log_evaluation import replay as replay_module
from qtransformer.log_evaluation.replay import replay, stream
from qtransformer.log_evaluation.scores import replay_scores
from qtransformer.policy import Policy

NO_MASK = {"behavior_mask": 0.0}


@pytest.fixture
def episodes(make_episode) -> list:
    return [make_episode(2 + i % 3, i, end=("terminated", "truncated")[i % 2]) for i in range(5)]


@pytest.fixture
def make_policy(make_config, make_network, make_dataset):
    def make(**changes) -> Policy:
        config, data = make_config(**changes), make_dataset()
        return Policy(make_network(config), config, data.action_spec, data.observation_spec, torch.device("cpu"))

    return make


@pytest.mark.parametrize("changes", [{"algo": "q", "model": {"history": 3}}, {"algo": "bc"}, {"algo": "mc"}])
def test_it_chooses_what_the_policy_would_on_the_robot(changes, make_policy, episodes, observe) -> None:
    policy = make_policy(**changes)
    found, frame = replay(policy, episodes), 0
    for episode in episodes:
        policy.reset()
        for t in range(len(episode) + 1):
            decision = policy.decide(observe(episode, t))
            np.testing.assert_array_equal(found.greedy[frame], decision.bins)
            scaled = policy.action_spec.to_scaled(decision.action)
            np.testing.assert_allclose(found.greedy_actions[frame], scaled, atol=1e-5)
            if policy.imitates:
                assert np.isnan(found.greedy_value[frame])
            else:
                np.testing.assert_allclose(found.greedy_value[frame], decision.value, atol=1e-5)
            frame += 1
    assert frame == len(found.greedy)


def test_a_replay_is_the_same_again_and_exact_whatever_the_training_rounded(make_policy, episodes) -> None:
    def told(policy: Policy) -> dict[str, np.ndarray]:
        found = replay(policy, episodes)
        return {name: getattr(found, name) for name in ("greedy", "q_logged", "log_policy", "target")}

    drawing = make_policy(targets={"proposals": 3, "behavior_mask": 0.1})
    before = told(drawing)
    for other in (drawing, make_policy(targets={"proposals": 3, "behavior_mask": 0.1}, optim={"precision": "bfloat16"})):
        for name, values in told(other).items():
            np.testing.assert_array_equal(values, before[name], name)


def test_frames_know_their_episode_and_whether_they_act(make_policy, episodes) -> None:
    found = replay(make_policy(), episodes)
    assert found.episode.tolist() == [i for i, e in enumerate(episodes) for _ in range(len(e) + 1)]
    assert found.has_action.tolist() == [t < len(e) for e in episodes for t in range(len(e) + 1)]
    assert found.first.tolist() == [t == 0 for e in episodes for t in range(len(e) + 1)]
    assert found.last.tolist() == [t == len(e) - 1 for e in episodes for t in range(len(e) + 1)]
    assert found.success[found.first].tolist() == [e.success for e in episodes]


def test_frames_at_once_do_not_matter(make_policy, episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(targets={"time_steps": 3})
    whole = replay(policy, episodes)
    monkeypatch.setattr(replay_module, "FRAMES_AT_ONCE", 7)
    pieces = replay(policy, episodes)
    for name in ("episode", "greedy", "mc_return", "has_target", "q_logged", "target"):
        a, b = (getattr(r, name)[whole.has_action] for r in (whole, pieces))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_episodes_go_together_as_far_as_their_frames_let_them(make_episode) -> None:
    """Episodes of T steps have T + 1 frames; one that is too long comes alone, none is left out."""
    episodes = [make_episode(length, 0) for length in (2, 3, 9, 1, 1, 1, 2)]
    found = [[len(e) for e in chunk] for chunk in replay_module.chunked(episodes, 7)]
    assert found == [[2, 3], [9], [1, 1, 1], [2]]
    assert list(replay_module.chunked([], 7)) == []


def test_monte_carlo_targets_are_the_returns(make_policy, make_episode) -> None:
    """Three steps, reward 1 at the last, discount .5."""
    found = replay(make_policy(algo="mc", targets={"discount": 0.5}), [make_episode(3, 0, success=True)])
    assert found.mc_return.tolist() == pytest.approx([0.25, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(found.target[:3], found.mc_return[:3, None].repeat(3, 1), atol=1e-4)
    assert found.has_target.tolist() == [True, True, True, False]


def test_a_whole_actions_target_is_reward_and_discounted_value_of_the_next_choice(make_policy, make_episode) -> None:
    discount = 0.9
    policy = make_policy(targets={"discount": discount})
    ended, cut = (replay(policy, [make_episode(2, 0, end=end, success=False)]) for end in ("terminated", "truncated"))
    value = cut.greedy_value
    np.testing.assert_allclose(cut.bellman[:2], discount * value[1:], atol=1e-6)
    assert ended.bellman[1] == 0.0
    rewarded = replay(policy, [make_episode(2, 0, end="terminated", success=True)])
    assert rewarded.bellman[1] == pytest.approx(1.0)


def test_temporal_targets_bootstrap_from_the_checkpoint_itself(make_policy, make_episode) -> None:
    """One step at a time, no floor, no mask: every dimension's target is r + discount * value of the next greedy action."""
    settings = {"backup": "n_step", "bootstrap": "chain", "floor": "none", "behavior_mask": 0.0, "discount": 0.9}
    found = replay(make_policy(targets=settings), [make_episode(3, 1, end="truncated")])
    np.testing.assert_allclose(found.target[:3], found.bellman[:3, None].repeat(3, 1), atol=1e-4)


def test_where_no_classifier_was_learned_there_is_no_likelihood(make_policy, episodes) -> None:
    found = replay(make_policy(targets=NO_MASK), episodes)
    assert found.log_policy is None
    assert np.isnan(replay_scores(found, 0.0, 1.0)["likelihood_gap"])


@pytest.mark.parametrize("changes", [{}, {"algo": "bc", "targets": NO_MASK}, {"cloning_steps": 2, "targets": NO_MASK}], ids=str)
def test_every_classifier_that_was_learned_tells_its_likelihood(changes, make_policy, episodes) -> None:
    """A training that clones before it learns values has one without a mask, too."""
    policy = make_policy(**changes)
    found = replay(policy, episodes)
    assert found.log_policy is not None
    assert (found.log_policy < 0).all()
    assert replay_scores(found, 0.0, 1.0)["likelihood_success"] == pytest.approx(
        found.log_policy[found.has_action & found.success].mean(), rel=1e-5
    )


def test_a_step_that_lost_its_final_observation_has_no_target(make_policy, make_episode) -> None:
    lost = replace(make_episode(3, 1, end="truncated"), has_final_observation=False)
    found = replay(make_policy(), [lost])
    assert found.has_target.tolist() == found.has_bellman.tolist() == [True, True, False, False]


def test_a_stream_says_the_same_as_the_datasets_segments(make_dataset, make_config, make_network) -> None:
    """The learner judges a stream of whole episodes and a segment of the same frames alike, which begins elsewhere."""
    data = make_dataset()
    judged_alike(data, make_config(targets={"time_steps": 2}), make_network(make_config()))


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_a_floor_takes_account_of_what_a_time_limit_cut_off(
    discount, make_dataset, make_config, make_network, make_episode
) -> None:
    """Every step costs something, and more such steps may follow where the log was cut short."""
    plain = [make_episode(3 + i % 3, i, end=("terminated", "truncated")[i // 2 % 2]) for i in range(8)]
    data = make_dataset([replace(e, rewards=e.rewards - np.float32(0.1)) for e in plain], discount)
    settings = {"time_steps": 2, "floor": "sample", "discount": discount}
    config = make_config(targets=settings, value={"v_min": -1.0, "v_max": 1.0})
    network = make_network(config)
    judged_alike(data, config, network)
    policy = Policy(network, config, data.action_spec, data.observation_spec, torch.device("cpu"))
    found, without = replay(policy, data.episodes(), data.stats.reward_min), replay(policy, data.episodes())
    assert (found.target <= without.target + 1e-6).all()
    assert (found.target < without.target - 1e-3).any(), "the log's own return would have been the higher target"


def judged_alike(data, config, network) -> None:
    """By the learner, as a stream of whole episodes and as a segment of the same frames."""
    learner = QLearner(config, network, torch.device("cpu"))
    whole = learner.evaluate_batch(stream(list(data.episodes()), data.discount, learner.lookahead, data.stats.reward_min))
    batch = next(data.segments(batch_size=1, lead=0, steps=data.num_frames, lookahead=2, seed=0))
    segment = learner.evaluate_batch(batch)
    for name in ("q_values", "target"):
        a, b = (getattr(h, name)[h.valid].sort(0).values for h in (whole, segment))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
