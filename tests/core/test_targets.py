"""Bootstrapped targets, worked by hand. What they converge to is in `test_bellman.py`."""

from typing import Any

import pytest
import torch

from qtransformer import C51, MSE, HLGauss, TwoHot
from qtransformer.batch import Batch
from qtransformer.targets import backup_from_next_dimension, backup_from_next_state, n_step, raise_to_floor, with_next_action
from qtransformer.value_heads import ValueHead

HEADS = [HLGauss(0, 1, 101), TwoHot(0, 1, 101), C51(0, 1, 101), MSE(0, 1)]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)


def segment(rewards: list[float], *, lead: int = 0, steps: int, ends: dict[int, str] | None = None) -> Batch:
    """One segment of frames; `ends` names frames whose action ends an episode, the next frame being its final observation."""
    f, ends = len(rewards), ends or {}

    def at(*names: str) -> torch.Tensor:
        return torch.tensor([[ends.get(i) in names for i in range(f)]])

    final = torch.tensor([[i - 1 in ends for i in range(f)]])
    empty: dict[str, Any] = {"images": {}, "instruction": torch.zeros(1, f, 64), "proprio": torch.zeros(1, f, 1)}
    return Batch(
        lead=lead, steps=steps, **empty, episode_start=torch.zeros(1, f, dtype=torch.long), has_action=~final,
        actions=torch.zeros(1, f, 1), rewards=torch.tensor([rewards]), terminated=at("terminated"),
        truncated=at("truncated", "lost"), lost_final=at("lost"), mc_return=torch.zeros(1, f), success=torch.zeros(1, f) > 0,
    )  # fmt: skip


def test_one_step_is_the_reward_and_the_next_frame() -> None:
    ahead = n_step(segment([0.5, 0.25, 0.0], steps=2), 1, 0.9)
    torch.testing.assert_close(ahead.rewards, torch.tensor([[0.5, 0.25]]))
    torch.testing.assert_close(ahead.discounts, torch.tensor([[0.9, 0.9]]))
    assert ahead.frame.tolist() == [[1, 2]]
    assert ahead.valid.all()


def test_lead_in_frames_are_passed_over() -> None:
    ahead = n_step(segment([9.0, 9.0, 0.5, 0.25, 0.0], lead=2, steps=2), 1, 0.9)
    torch.testing.assert_close(ahead.rewards, torch.tensor([[0.5, 0.25]]))
    assert ahead.frame.tolist() == [[3, 4]]


def test_what_is_known_of_all_frames_is_read_at_the_step_frames() -> None:
    batch = segment([9.0, 9.0, 0.5, 0.25, 0.0], lead=2, steps=2)
    assert batch.step_frames.tolist() == [[2, 3]]
    assert batch.of_steps(batch.rewards).tolist() == [0.5, 0.25]
    assert batch.of_steps(torch.zeros(1, 5, 3)).shape == (2, 3)


def test_several_steps_sum_discounted_rewards() -> None:
    """1 + .5 * 2 + .25 * 4 = 3, then .125 V(frame 3)."""
    ahead = n_step(segment([1.0, 2.0, 4.0, 8.0], steps=1), 3, 0.5)
    assert ahead.rewards.tolist() == [[3.0]]
    assert ahead.discounts.tolist() == [[0.125]]
    assert ahead.frame.tolist() == [[3]]


@pytest.mark.parametrize("time_steps", [1, 3])
def test_a_termination_has_no_future(time_steps: int) -> None:
    batch = segment([0.0, 1.0, 0.0, 7.0, 7.0], steps=2, ends={1: "terminated"})
    ahead = n_step(batch, time_steps, 0.5)
    assert ahead.rewards[0, 1] == 1.0
    assert ahead.discounts[0, 1] == 0.0
    assert ahead.valid.all()


@pytest.mark.parametrize("time_steps", [1, 3])
def test_a_truncation_bootstraps_once_from_its_final_observation(time_steps: int) -> None:
    batch = segment([0.0, 1.0, 0.0, 7.0, 7.0], steps=2, ends={1: "truncated"})
    ahead = n_step(batch, time_steps, 0.5)
    assert ahead.rewards[0, 1] == 1.0
    assert ahead.discounts[0, 1] == 0.5
    assert ahead.frame[0, 1] == 2
    assert ahead.valid.all()


def test_sums_are_cut_at_the_episodes_end_and_never_reach_the_next_episode() -> None:
    """From frame 0 with three steps: terminated, .5 * 1 and no future; truncated, .5 * 1 and .25 V(frame 2)."""
    for end, discount in (("terminated", 0.0), ("truncated", 0.25)):
        ahead = n_step(segment([0.0, 1.0, 0.0, 7.0], steps=1, ends={1: end}), 3, 0.5)
        assert ahead.rewards.tolist() == [[0.5]]
        assert ahead.discounts.tolist() == [[discount]]
        if end == "truncated":
            assert ahead.frame.tolist() == [[2]]


def test_final_observations_carry_no_target() -> None:
    ahead = n_step(segment([0.0, 1.0, 0.0, 0.0], steps=3, ends={1: "truncated"}), 1, 0.5)
    assert ahead.valid.tolist() == [[True, True, False]]


def test_a_truncation_whose_final_observation_was_lost_is_masked_wherever_a_sum_reaches_it() -> None:
    batch = segment([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], steps=3, ends={2: "lost"})
    assert n_step(batch, 1, 0.5).valid.tolist() == [[True, True, False]]
    assert n_step(batch, 2, 0.5).valid.tolist() == [[True, False, False]]
    terminated = segment([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], steps=3, ends={2: "terminated"})
    assert n_step(terminated, 2, 0.5).valid.all(), "a termination needs no final observation"


@pytest.mark.parametrize(("end", "valid"), [("truncated", [True, False, False]), ("terminated", [True, True, False])])
def test_behaviour_is_not_judged_by_a_state_whose_action_is_not_logged(end: str, valid: list[bool]) -> None:
    batch = segment([0.0, 1.0, 0.0, 0.0], steps=3, ends={1: end})
    assert with_next_action(n_step(batch, 1, 0.5), batch).valid.tolist() == [valid]


@every_head
def test_n_step_over_dimensions_gives_every_dimension_the_same_reward_and_future(head: ValueHead) -> None:
    """.1 + .5 * .6 = .4; terminated: .7 alone."""
    ahead = head.to_probs(torch.tensor([0.6, 0.9]))
    probs = backup_from_next_state(head, torch.tensor([0.1, 0.7]), torch.tensor([0.5, 0.0]), ahead, 3)
    torch.testing.assert_close(head.to_value(probs), torch.tensor([[0.4] * 3, [0.7] * 3]), atol=3e-4, rtol=0)


def logits_of(head: ValueHead, values: torch.Tensor) -> torch.Tensor:
    if isinstance(head, MSE):
        return torch.logit(values.clamp(1e-6, 1 - 1e-6))[..., None]
    return head.to_probs(values).clamp_min(1e-12).log()


@every_head
def test_per_dimension_backup_worked_by_hand(head: ValueHead) -> None:
    """Dimensions 1 and 2 take the maximum of the next, without discount or reward; dimension 3 takes r + g V(s')."""
    values = torch.tensor([[[0.9, 0.9, 0.9], [0.2, 0.6, 0.1], [0.3, 0.1, 0.05]]])
    logits, allowed = logits_of(head, values), torch.ones(1, 3, 3, dtype=torch.bool)
    ahead = head.to_probs(torch.tensor([0.8]))
    reward, discount = torch.tensor([0.1]), torch.tensor([0.5])
    probs = backup_from_next_dimension(head, reward, discount, ahead, head.q_values(logits), logits, allowed)
    torch.testing.assert_close(head.to_value(probs), torch.tensor([[0.6, 0.3, 0.5]]), atol=5e-4, rtol=0)


def test_forbidden_and_padding_bins_are_left_out_of_the_maximum() -> None:
    head = MSE(0, 1)
    values = torch.tensor([[[0.9, 0.9, 0.9], [0.2, 0.6, 0.99]]])
    logits = logits_of(head, values)
    allowed = torch.tensor([[[True, True, True], [True, True, False]]])
    probs = backup_from_next_dimension(
        head, torch.zeros(1), torch.zeros(1), torch.zeros(1, 1), head.q_values(logits), logits, allowed
    )
    torch.testing.assert_close(probs[0, 0, 0], torch.tensor(0.6))


def test_c51_copies_the_greedy_bins_distribution_between_dimensions_and_projects_after_the_last() -> None:
    """Support 0, .5, 1. Dimension 2's bins: (.5, 0, .5) with mean .5 and (.1, .2, .7) with mean .8: the second is copied.
    Dimension 2 itself: reward .25, discount .5, next (.2, 0, .8): atoms .25 (.5 on 0, .5 on .5) and .75 -> (.1, .5, .4)."""
    head = C51(0, 1, 3)
    probs = torch.tensor([[[[0.3, 0.3, 0.4]] * 2, [[0.5, 0.0, 0.5], [0.1, 0.2, 0.7]]]])
    logits = probs.clamp_min(1e-12).log()
    ahead = torch.tensor([[0.2, 0.0, 0.8]])
    found = backup_from_next_dimension(
        head, torch.tensor([0.25]), torch.tensor([0.5]), ahead, head.q_values(logits), logits, torch.ones(1, 2, 2) > 0
    )
    torch.testing.assert_close(found, torch.tensor([[[0.1, 0.2, 0.7], [0.1, 0.5, 0.4]]]))


@every_head
def test_the_floor_is_per_sample_and_raises_only_smaller_targets(head: ValueHead) -> None:
    targets = torch.tensor([[0.2, 0.5], [0.6, 0.1]])
    floor = torch.tensor([[0.4, 0.4], [0.3, 0.0]])
    probs, bootstrap_wins = raise_to_floor(head, head.to_probs(targets), floor)
    torch.testing.assert_close(head.to_value(probs), torch.tensor([[0.4, 0.5], [0.6, 0.1]]), atol=3e-4, rtol=0)
    assert bootstrap_wins.tolist() == [[False, True], [True, True]]


@every_head
def test_no_floor_leaves_targets_as_they_are(head: ValueHead) -> None:
    probs = head.to_probs(torch.tensor([[0.0, 0.7]]))
    raised, bootstrap_wins = raise_to_floor(head, probs, torch.full((1, 2), -torch.inf))
    assert torch.equal(raised, probs)
    assert bootstrap_wins.all()


def test_the_floor_enters_c51_as_a_point_mass() -> None:
    head = C51(0, 1, 3)
    raised, _ = raise_to_floor(head, torch.tensor([[[0.5, 0.2, 0.3]]]), torch.tensor([[0.75]]))
    torch.testing.assert_close(raised, torch.tensor([[[0.0, 0.5, 0.5]]]))


@every_head
def test_targets_stay_in_the_attainable_range(head: ValueHead) -> None:
    ahead = head.to_probs(torch.ones(2))
    probs = backup_from_next_state(head, torch.tensor([1.0, -1.0]), torch.tensor([0.98, 0.5]), ahead, 2)
    values = head.to_value(probs)
    assert values.max() <= 1.0 + 1e-5
    assert values.min() >= -1e-5
    torch.testing.assert_close(values, torch.tensor([[1.0] * 2, [0.0] * 2]), atol=1e-4, rtol=0)
