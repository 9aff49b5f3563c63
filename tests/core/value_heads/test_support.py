"""Where the range of values starts, and how it widens."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.errors import ConfigError
from qtransformer.value_heads import make_value_head
from qtransformer.value_heads.support import (
    GROWTH,
    MAX_CLIPPED,
    WINDOW,
    Beyond,
    Support,
    SupportGrowth,
    accepts,
    count_beyond,
    find_support,
    initial_value,
    resolved,
    widened,
)

EACH_STEP_COSTS = {"return_min": -10.0, "return_max": -1.0, "reward_min": -1.0, "reward_max": -1.0,
                   "going_on_reward_min": -1.0, "going_on_reward_max": -1.0, "mean_return": -7.0}  # fmt: skip


def stats(**changes: float) -> Any:
    """Of a sparse success that ends the episode, but for what is said."""
    sparse = {"return_min": 0.0, "return_max": 1.0, "reward_min": 0.0, "reward_max": 1.0, "going_on_reward_min": 0.0,
              "going_on_reward_max": 0.0, "mean_return": 0.3}  # fmt: skip
    return SimpleNamespace(**(sparse | changes))


def found(data: Any, discount: float = 0.98, **ends: Any) -> Support:
    return find_support(ValueConfig(**ends), data, discount)


def test_a_sparse_success_has_the_range_from_0_to_1_for_good() -> None:
    """Start and limit are one: nothing that training sees can move an end. So the default equals a fixed [0, 1]."""
    assert found(stats()) == found(stats(), v_min=0.0, v_max=1.0) == Support(v_min=0.0, v_max=1.0, lowest=0.0, highest=1.0)
    open_ended, fixed = ValueConfig(), ValueConfig(v_min=0.0, v_max=1.0)
    assert resolved(open_ended, found(stats()), stats()) == resolved(fixed, found(stats()), stats())
    assert resolved(fixed, found(stats()), stats()).initial == 0.05


def test_demonstrations_alone_leave_room_for_failure_and_data_without_reward_for_success() -> None:
    assert found(stats(return_min=0.8)) == found(stats())
    assert found(stats(return_max=0.0, reward_max=0.0)) == found(stats())


@pytest.mark.parametrize(("only", "low", "high"), [(1.0, 0.0, 1.0), (-2.0, -2.0, 0.0), (100.0, 0.0, 100.0)])
def test_a_single_return_is_set_beside_that_of_no_reward(only: float, low: float, high: float) -> None:
    data = stats(return_min=only, return_max=only, reward_min=only, reward_max=only)
    assert (found(data).v_min, found(data).v_max) == (low, high)


def test_a_cost_per_step_may_go_on_for_ever_and_its_end_is_open() -> None:
    support = found(stats(**EACH_STEP_COSTS))
    assert (support.v_min, support.v_max, support.highest) == (-10.0, -1.0, -1.0)
    assert support.lowest == pytest.approx(-50.0)
    assert found(stats(**EACH_STEP_COSTS), discount=1.0).lowest == -math.inf


def test_a_reward_worse_than_any_return_widens_the_range() -> None:
    """-5, then 3 on success: a policy that fails after the first step ends with -5."""
    data = stats(return_min=-2.06, return_max=3.0, reward_min=-5.0, reward_max=3.0, going_on_reward_min=-5.0)
    assert found(data).v_min == -5.0


def test_an_end_that_is_fixed_stays_and_the_other_is_open() -> None:
    support = found(stats(**EACH_STEP_COSTS), v_min=-20.0)
    assert (support.v_min, support.lowest, support.v_max) == (-20.0, -20.0, -1.0)
    assert found(stats(), v_max=-3.0) == Support(v_min=-4.0, v_max=-3.0, lowest=-4.0, highest=-3.0)
    assert found(stats(), v_min=7.0) == Support(v_min=7.0, v_max=8.0, lowest=7.0, highest=8.0)
    with pytest.raises(ConfigError, match=r"value\.v_min=.* must be below value\.v_max="):
        make_value_head(resolved(ValueConfig(v_min=2.0, v_max=2.0), found(stats(), v_min=2.0, v_max=2.0), stats()))


numbers = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: x + 0.0)
"""No subnormal ones: a hundredth of the smallest is 0, which follows no scale. Nor -0.0, which bounds no interval from above."""


@st.composite
def any_stats(draw: st.DrawFn) -> Any:
    """Of any rewards, some of which went on."""
    rewards = sorted(draw(st.lists(numbers, min_size=2, max_size=5)))
    low, high = sorted((draw(numbers), draw(numbers)))
    going = sorted((draw(st.sampled_from(rewards)), draw(st.sampled_from(rewards))))
    return stats(return_min=low, return_max=high, reward_min=rewards[0], reward_max=rewards[-1], going_on_reward_min=going[0],
                 going_on_reward_max=going[1], mean_return=draw(st.floats(low, high)))  # fmt: skip


@given(any_stats(), st.floats(0.0, 0.99), st.sampled_from([0.01, 0.5, 4.0, 100.0]))
def test_the_range_holds_all_that_was_seen_lies_within_limits_and_follows_the_scale(
    data: Any, discount: float, scale: float
) -> None:
    support, head = found(data, discount), resolved(ValueConfig(), found(data, discount), data)
    assert support.lowest <= support.v_min <= min(data.return_min, data.reward_min)
    assert support.highest >= support.v_max >= max(data.return_max, data.reward_max)
    assert support.v_min < support.v_max
    assert head.initial is not None
    assert support.v_min <= head.initial <= support.v_max
    bound = (1 - discount) * 1e-9 + 1e-6
    for reward in (data.going_on_reward_min, data.going_on_reward_max):  # no backup leaves the limits
        assert support.lowest - bound <= reward + discount * support.lowest
        assert reward + discount * support.highest <= support.highest + bound
    if data.return_min != data.return_max or data.return_min:
        times = found(SimpleNamespace(**{k: scale * v for k, v in vars(data).items()}), discount)
        for name in ("v_min", "v_max", "lowest", "highest"):
            assert getattr(times, name) == pytest.approx(scale * getattr(support, name), rel=1e-6, abs=1e-300)


def test_a_fresh_network_starts_near_the_low_end_and_not_above_the_data() -> None:
    for data, expected in [
        (stats(), 0.05),
        (stats(mean_return=0.02), 0.02),
        (stats(return_max=100.0, reward_max=100.0, mean_return=30.0), 5.0),
        (stats(**EACH_STEP_COSTS), -9.55),
    ]:
        config = resolved(ValueConfig(), found(data), data)
        assert config.initial == pytest.approx(expected)
    assert resolved(ValueConfig(initial=0.4), found(stats()), stats()).initial == 0.4
    fixed = ValueConfig(v_min=-1.0, v_max=1.0)
    assert initial_value(fixed, make_value_head(fixed)) == pytest.approx(-0.9)
    assert initial_value(ValueConfig(initial=0.2), make_value_head(ValueConfig())) == 0.2


@given(st.floats(-100, 0), st.floats(0.1, 100), st.booleans(), st.booleans())
def test_growth_moves_only_the_ends_asked_for_outwards_and_within_limits(v_min, v_max, down, up) -> None:
    limits = (-150.0, 120.0)
    low, high = widened(v_min, v_max, limits, down, up)
    assert limits[0] <= low <= v_min
    assert v_max <= high <= limits[1]
    assert (low < v_min) == down
    assert (high > v_max) == up
    if down and up and low > limits[0] and high < limits[1]:
        assert high - low == pytest.approx((2 * GROWTH - 1) * (v_max - v_min))


def test_any_factor_is_reached_in_logarithmically_many_moves_and_then_nothing_moves() -> None:
    low, high, moves = -1.0, 0.0, 0
    while (after := widened(low, high, (-1000.0, 0.0), True, True)) != (low, high):
        (low, high), moves = after, moves + 1
    assert (low, high) == (-1000.0, 0.0)
    assert moves == math.ceil(math.log(1000, GROWTH))


def growth() -> SupportGrowth:
    return SupportGrowth(Support(v_min=0.0, v_max=1.0, lowest=-5.0, highest=5.0))


def see(counted: SupportGrowth, below: int, above: int, targets: int = 1000) -> None:
    counted.see(Beyond(torch.tensor(below), torch.tensor(above), torch.tensor(targets)))


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        (0, 0, (0.0, 1.0)),
        (20, 0, (-0.5, 1.0)),
        (0, 20, (0.0, 1.5)),
        (9, 9, (0.0, 1.0)),
        (1000, 1000, (-0.5, 1.5)),
    ],
)
def test_an_end_moves_when_a_window_had_more_than_its_share_beyond(below, above, expected) -> None:
    counted = growth()
    for _ in range(3):
        see(counted, below, above)
    assert counted.decide(0.0, 1.0, WINDOW - 2) == (0.0, 1.0), "nothing is decided within a window"
    assert counted.decide(0.0, 1.0, WINDOW - 1) == pytest.approx(expected)
    assert counted.decide(0.0, 1.0, 2 * WINDOW - 1) == (0.0, 1.0), "a decision starts the count anew"


def test_updates_weigh_by_how_many_targets_they_had() -> None:
    counted = growth()
    see(counted, 0, 1, targets=1)
    see(counted, 0, 0, targets=int(2 / MAX_CLIPPED))
    see(counted, 0, 0, targets=0)
    assert counted.decide(0.0, 1.0, WINDOW - 1) == (0.0, 1.0)


@pytest.mark.parametrize("kind", list(ValueKind))
def test_targets_beyond_are_counted_where_they_hold_and_claims_beyond_are_not_believed(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind, v_min=-1.0, v_max=1.0))
    rewards, discounts = torch.tensor([0.5, -0.5, 0.1, 0.0, 2.0]), torch.tensor([0.9, 0.9, 0.9, 1.0, 0.0])
    ahead, counted = torch.tensor([0.9, -0.9, 0.9, 1.2, 0.0]), torch.tensor([True, True, True, True, False])
    assert tuple(map(int, count_beyond(head, rewards, discounts, ahead, counted))) == (1, 1, 4)


def test_what_was_left_open_accepts_any_range_and_nothing_else() -> None:
    learned = ValueConfig(v_min=-7.5, v_max=1.0, initial=-7.0)
    assert accepts(ValueConfig(), learned)
    assert accepts(ValueConfig(v_max=1.0), learned)
    assert not accepts(ValueConfig(v_max=2.0), learned)
    assert not accepts(ValueConfig(num_bins=31), learned)
