import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import ActionSpec, ActionTokenizer
from qtransformer.errors import ConfigError, QTransformerError

bins_per_dim = st.lists(st.integers(2, 300), min_size=1, max_size=4)
numbers = st.floats(-3, 3, width=32)


@given(bins_per_dim, st.data())
def test_bins_always_exist_and_round_trips_move_an_action_by_at_most_half_a_bin(num_bins: list[int], data) -> None:
    tokenizer = ActionTokenizer(num_bins)
    action = torch.tensor([data.draw(numbers) for _ in num_bins])
    bins = tokenizer.encode(action)
    assert (bins >= 0).all()
    assert (bins < torch.tensor(num_bins)).all()
    moved = (tokenizer.decode(bins) - action.clamp(-1, 1)).abs()
    assert (moved <= 1.0 / torch.tensor(num_bins) + 1e-6).all()


@given(bins_per_dim)
def test_there_are_as_many_bins_as_asked_for_and_centres_keep_theirs(num_bins: list[int]) -> None:
    """256 bins are 256 intervals with 256 centres, not 256 edges with 255."""
    tokenizer = ActionTokenizer(num_bins)
    every_bin = torch.arange(max(num_bins))[:, None].minimum(torch.tensor(num_bins) - 1)
    assert torch.equal(tokenizer.encode(tokenizer.decode(every_bin)), every_bin)
    for i, a in enumerate(num_bins):
        grid = torch.linspace(-1, 1, 20 * a + 1)
        action = torch.zeros(len(grid), len(num_bins))
        action[:, i] = grid
        assert len(tokenizer.encode(action)[:, i].unique()) == a


def test_the_bounds_fall_into_the_outermost_bins() -> None:
    tokenizer = ActionTokenizer([256, 2, 3])
    upper, lower = torch.ones(3), -torch.ones(3)
    assert tokenizer.encode(upper).tolist() == [255, 1, 2]
    assert tokenizer.encode(lower).tolist() == [0, 0, 0]
    assert tokenizer.encode(1.5 * upper).tolist() == [255, 1, 2]
    just_below = torch.nextafter(upper, torch.zeros(3))
    assert tokenizer.encode(just_below).tolist() == [255, 1, 2]


def test_edges_lie_where_equal_intervals_have_them() -> None:
    tokenizer = ActionTokenizer([4])
    assert tokenizer.encode(torch.tensor([[-1.0], [-0.51], [-0.5], [-0.01], [0.0], [0.49], [0.5]])).flatten().tolist() == [
        0, 0, 1, 1, 2, 2, 3,
    ]  # fmt: skip
    torch.testing.assert_close(tokenizer.decode(torch.arange(4)[:, None])[:, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_raise(bad: float) -> None:
    with pytest.raises(QTransformerError, match=r"expected finite numbers, found -?(nan|inf) in dimension 1 of row 0; "):
        ActionTokenizer([4, 4]).encode(torch.tensor([[0.0, bad]]))


def test_switches_have_one_bin_per_value_and_are_exact() -> None:
    tokenizer = ActionTokenizer([2, 3, 8], [True, True, False])
    action = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    bins = tokenizer.encode(action)
    assert bins.tolist() == [[0, 0, 4], [1, 1, 4], [1, 2, 4]]
    torch.testing.assert_close(tokenizer.decode(bins)[:, :2], action[:, :2], rtol=0, atol=0)


def test_unequal_bins_are_padded_by_bins_that_do_not_exist() -> None:
    tokenizer = ActionTokenizer([2, 4])
    assert tokenizer.max_bins == 4
    assert tokenizer.bin_exists.tolist() == [[True, True, False, False], [True] * 4]
    torch.testing.assert_close(tokenizer.bin_centers[0], torch.tensor([-0.5, 0.5, 0.5, 0.5]))


def test_a_spec_gives_switches_their_values_and_the_rest_the_bins_asked_for(action_spec: ActionSpec) -> None:
    assert ActionTokenizer.from_spec(action_spec, 16).num_bins == (16, 2, 16)
    assert ActionTokenizer.from_spec(action_spec, [5, 9, 7]).num_bins == (5, 2, 7)
    assert ActionTokenizer.from_spec(action_spec, 16).switches == (False, True, False)
    with pytest.raises(ConfigError, match="3 dimensions"):
        ActionTokenizer.from_spec(action_spec, [5, 9])


@pytest.mark.parametrize("bins", [[], [1], [4, 0]])
def test_fewer_than_two_bins_are_refused(bins: list[int]) -> None:
    with pytest.raises(ConfigError, match="2 bins"):
        ActionTokenizer(bins)
