import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.errors import QTransformerError
from qtransformer.intervals import no_worse, success_difference, success_rate, wilson


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (0, 10, 0.0, 0.27754),
        (10, 10, 0.72247, 1.0),
        (1, 2, 0.09453, 0.90547),
        (5, 10, 0.23659, 0.76341),
        (124, 200, 0.55107, 0.68441),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_of_known_counts(successes: int, episodes: int, low: float, high: float) -> None:
    """(p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.96; 0 of 10: high = z2/n / (1 + z2/n) = .38415 / 1.38415."""
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=2e-5)


@given(st.integers(1, 1000), st.data())
def test_wilson_intervals_hold_the_rate_and_mirror(episodes: int, data) -> None:
    successes = data.draw(st.integers(0, episodes))
    low, high = wilson(successes, episodes)
    assert -1e-12 <= low <= successes / episodes + 1e-12
    assert successes / episodes - 1e-12 <= high <= 1 + 1e-12
    assert wilson(episodes - successes, episodes) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(
    ("success", "best", "expected"),
    [
        (0.6, 0.65, True),
        (0.57, 0.65, True),
        (0.56, 0.65, False),
        (0.7, 0.65, True),
        (1.0, 1.0, True),
        (0.96, 1.0, False),
        (0.0, 0.0, True),
    ],
)
def test_a_rate_is_no_worse_within_the_standard_error_of_a_difference(success: float, best: float, expected: bool) -> None:
    """Of 60 episodes: sqrt(2 * .61 * .39 / 60) = .089 below .65, sqrt(2 * .98 * .02 / 60) = .026 below 1."""
    assert no_worse(success, best, 60) is expected


def seeds_of(rng: np.random.Generator, rates: np.ndarray, episodes: int) -> list[np.ndarray]:
    return [rng.random(episodes) < rate for rate in rates]


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Five seeds whose true rates spread by .06 around .6: five are a little narrow, one of episodes alone hopeless."""
    rng = np.random.default_rng(0)
    held, naive = 0, 0
    for _ in range(300):
        outcomes = seeds_of(rng, rng.normal(0.6, 0.06, 5).clip(0, 1), 300)
        _, low, high = success_rate(outcomes)
        held += low <= 0.6 <= high
        mean = np.concatenate(outcomes).mean()
        naive += abs(mean - 0.6) <= 1.96 * np.sqrt(mean * (1 - mean) / 1500)
    assert 0.82 <= held / 300 <= 0.97
    assert naive < 0.75 * held


def test_one_seed_has_the_interval_of_its_episodes() -> None:
    mean, low, high = success_rate([np.arange(400) < 100])
    assert mean == 0.25
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)


def test_outcomes_that_are_all_alike_still_have_an_interval() -> None:
    """The rule of three: of 0 in 300 the upper end is about 3.8 in 300 (Wilson, 95%)."""
    none, always = success_rate([np.zeros(300, bool)]), success_rate([np.ones(150, bool)] * 2)
    assert (none.mean, none.low) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert none.high == pytest.approx(0.0126, abs=2e-4)
    assert always == pytest.approx((1.0, 1 - none.high, 1.0))


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = success_rate([np.arange(300) < 150] * 4)
    apart = success_rate([np.arange(300) < n for n in (60, 120, 180, 240)])
    assert alike.mean == apart.mean == 0.5
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=5))
def test_intervals_hold_their_mean_lie_within_0_and_1_and_repeat(raw: list[list[bool]]) -> None:
    outcomes = [np.array(row) for row in raw]
    estimate = success_rate(outcomes)
    assert 0 <= estimate.low <= estimate.mean + 1e-9
    assert estimate.mean - 1e-9 <= estimate.high <= 1
    assert estimate == success_rate(outcomes)


def test_a_difference_is_paired_by_seed_and_scene() -> None:
    """Two arms that succeed in the same scenes but for 30 of 300: far tighter than two independent rates."""
    rng = np.random.default_rng(1)
    theirs = {seed: rng.random(300) < 0.5 for seed in (0, 1, 2)}
    ours = {seed: won | (np.arange(300) % 10 == 0) for seed, won in theirs.items()}
    mean, low, high = success_difference({**ours, 7: np.ones(300, bool)}, theirs)  # seed 7 has no partner
    gained = np.mean([(ours[s] & ~theirs[s]).mean() for s in theirs])
    assert mean == pytest.approx(gained)
    assert 0 < low < mean < high < mean + 0.03
    assert success_difference(theirs, ours).mean == pytest.approx(-mean)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(QTransformerError, match="at least one seed"):
        success_rate([])
    with pytest.raises(QTransformerError, match="at least one seed"):
        success_difference({0: np.ones(3, bool)}, {1: np.ones(3, bool)})
    with pytest.raises(QTransformerError, match="same scenes"):
        success_difference({0: np.ones(3, bool)}, {0: np.ones(4, bool)})
