import math

import pytest

from qtransformer.evaluate import EpisodeResult
from qtransformer.intervals import wilson
from qtransformer.report.calibration import calibration_error, reliability


def episode(values: tuple[float, ...], returns: tuple[float, ...]) -> EpisodeResult:
    return EpisodeResult(seed=0, success=False, steps=len(values), reward=0.0, terminated=True, values=values, returns=returns)


def test_bins_worked_by_hand() -> None:
    results = [episode((0.12, 0.18, 0.95), (0.0, 1.0, 1.0)), episode((0.15, 1.0), (0.5, 1.0)), episode((-0.3,), (0.25,))]
    first, second, last = reliability(results, 0.0, 1.0)
    assert (first.predicted, first.outcome, first.steps, first.episodes) == (-0.3, 0.25, 1, 1)
    assert (second.steps, second.episodes, last.steps, last.episodes) == (3, 2, 2, 2)
    assert (second.predicted, second.outcome) == pytest.approx((0.15, 0.5))
    assert (last.predicted, last.outcome) == pytest.approx((0.975, 1.0))
    assert (second.low, second.high) == pytest.approx(wilson(1, 2))
    # (.55 * 1 + .35 * 3 + .025 * 2) / 6
    assert calibration_error([first, second, last]) == pytest.approx(1.65 / 6)


def test_bins_follow_the_value_range() -> None:
    (only,) = reliability([episode((-3.75, -3.25), (-4.0, 0.0))], -5.0, 5.0)
    assert (only.predicted, only.outcome, only.steps) == (-3.5, -2.0, 2)
    low, high = wilson(0.3, 1)  # pyright: ignore[reportArgumentType]
    assert (only.low, only.high) == pytest.approx((-5 + 10 * low, -5 + 10 * high))


def test_actors_without_values_have_no_bins() -> None:
    assert reliability([episode((), ())], 0.0, 1.0) == []
    assert reliability([episode((math.nan,), (1.0,))], 0.0, 1.0) == []
    assert math.isnan(calibration_error([]))
