"""A threshold on Q: what it promises of successes, and what it does to episodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.errors import ConfigError
from qtransformer.evaluate import EpisodeResult
from qtransformer.value_threshold import calibrate_threshold, stops


def episode(values: list[float], success: bool) -> EpisodeResult:
    return EpisodeResult(seed=0, success=success, steps=len(values), reward=float(success), terminated=True, values=tuple(values))


def test_the_threshold_is_the_right_one_of_the_successes_lowest_values() -> None:
    results = [episode([0.9, low, 0.95], True) for low in (0.5, 0.1, 0.4, 0.3, 0.2, 0.6, 0.7, 0.8, 0.85)]
    results += [episode([0.0], False)]  # failures do not count
    assert calibrate_threshold(results, 0.2) == 0.2  # floor(.2 * 10) = 2nd smallest of nine


def test_too_few_successes_are_refused_with_the_number_needed() -> None:
    with pytest.raises(ConfigError, match="need 19 successful episodes"):
        calibrate_threshold([episode([0.5], True)] * 18, 0.05)
    assert calibrate_threshold([episode([0.5], True)] * 19, 0.05) == 0.5


def test_policies_without_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="algo=q"):
        calibrate_threshold([episode([], True)], 0.5)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_rates_outside_of_zero_and_one_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate_threshold([episode([0.5], True)], rate)


def test_stops_by_hand() -> None:
    results = [
        episode([0.5, 0.4, 0.9], True),
        episode([0.5, 0.2, 0.9], True),
        episode([0.1, 0.1, 0.1, 0.1], False),
        episode([0.5, 0.5, 0.2], False),
        episode([0.5, 0.5], False),
    ]
    found = stops(results, 0.3)
    assert (found.false_stops, found.stopped_failures, found.failures) == (0.5, 2, 3)
    assert found.steps_saved == (4 + 1) / 2  # stopped before its first of four, and before its last of three


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.05, 0.1, 0.3]))
def test_on_the_calibration_episodes_no_more_are_stopped_than_asked(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    results = [episode(list(rng.uniform(size=5)), bool(rng.uniform() < 0.7)) for _ in range(200)]
    threshold = calibrate_threshold(results, rate)
    found = stops(results, threshold)
    assert found.stopped_successes == int(rate * (found.successes + 1)) - 1  # the k-th itself is not below


def test_fresh_successes_are_stopped_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        draws = rng.normal(size=(99 + 50, 4))
        episodes = [episode(list(row), True) for row in draws]
        rates.append(stops(episodes[99:], calibrate_threshold(episodes[:99], 0.1)).false_stops)
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)
