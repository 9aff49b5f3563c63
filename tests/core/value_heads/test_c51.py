import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import C51


def test_backup_equals_a_worked_example() -> None:
    """Support 0, 1, 2, 3, 4; Z is 0 w.p. .2, 2 w.p. .5, 4 w.p. .3; reward 1, discount .5.

    1 + .5 Z: 1 w.p. .2, exactly on location 1; 2 w.p. .5, on location 2; 3 w.p. .3, on location 3.
    With reward .5 everything lies half way: .1 on 0, .1 + .25 on 1, .25 + .15 on 2, .15 on 3.
    With reward 3 the last atom, 5, is beyond the support: .2 on 3, .5 + .3 on 4.
    """
    head = C51(0.0, 4.0, 5)
    z = torch.tensor([0.2, 0.0, 0.5, 0.0, 0.3]).expand(3, -1)
    backup = head.backup(torch.tensor([1.0, 0.5, 3.0]), torch.tensor([0.5, 0.5, 0.5]), z)
    expected = torch.tensor([[0, 0.2, 0.5, 0.3, 0], [0.1, 0.35, 0.4, 0.15, 0], [0, 0, 0, 0.2, 0.8]])
    torch.testing.assert_close(backup, expected)


def test_uneven_fractions_are_split_by_distance() -> None:
    """Support 0, .5, 1; Z = 1 surely; reward .1, discount .6: the atom .7 gives .6 to location .5 and .4 to location 1."""
    backup = C51(0.0, 1.0, 3).backup(torch.tensor([0.1]), torch.tensor([0.6]), torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(backup, torch.tensor([[0, 0.6, 0.4]]))


def test_without_a_future_the_target_is_the_reward_alone() -> None:
    head = C51(0.0, 4.0, 5)
    probs = torch.rand(7, 5).softmax(-1)
    torch.testing.assert_close(head.backup(torch.full((7,), 3.25), torch.zeros(7), probs), head.to_probs(torch.full((7,), 3.25)))


def test_a_backup_without_reward_or_discount_copies_the_distribution() -> None:
    head = C51(-1.0, 1.0, 21)
    probs = torch.randn(5, 21, generator=torch.Generator().manual_seed(0)).softmax(-1)
    torch.testing.assert_close(head.backup(torch.zeros(5), torch.ones(5), probs), probs)


@given(st.floats(0, 0.5, width=32), st.floats(0, 0.5, width=32), st.integers(0, 10_000))
def test_the_mean_obeys_bellman_inside_the_support(reward: float, discount: float, seed: int) -> None:
    head = C51(0.0, 1.0, 31)
    probs = torch.randn(31, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    backup = head.backup(torch.tensor(reward), torch.tensor(discount), probs)
    torch.testing.assert_close(head.to_value(backup), reward + discount * head.to_value(probs), atol=1e-5, rtol=0)
    torch.testing.assert_close(backup.sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
