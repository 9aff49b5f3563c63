"""Scores by hand-worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qtransformer.log_evaluation.scores import auc, bvft, correlation, episode_means, expected_calibration_error, opc, soft_opc

Q = np.array([0.9, 0.8, 0.3, 0.1])
EFFECTIVE = np.array([True, False, True, False])


def test_auc_counts_pairs() -> None:
    """.9 beats both negatives, .3 beats .1 alone: 3 of 4. A tie counts half."""
    assert auc(Q, EFFECTIVE) == pytest.approx(0.75)
    assert auc(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [[True] * 4, [False] * 4])
def test_auc_needs_both_kinds(labels: list[bool]) -> None:
    assert np.isnan(auc(Q, np.array(labels)))


def test_soft_opc_is_the_excess_of_successes() -> None:
    """Mean of the effective (.9 + .3) / 2 = .6, of all .525."""
    assert soft_opc(Q, EFFECTIVE) == pytest.approx(0.075)
    assert soft_opc(Q, EFFECTIVE, prior=0.5) == pytest.approx(-0.225)


def test_opc_takes_the_best_threshold() -> None:
    """Shares above b among the effective and among all: b=.1: 1 and .75; b=.3: .5 and .5; b=.8: .5 and .25; b=.9: 0 and 0."""
    assert opc(Q, EFFECTIVE) == pytest.approx(0.25)


def test_opc_with_a_prior_weighs_the_effective_less() -> None:
    """.5 * (1, 1, .5, .5, 0) - (1, .75, .5, .25, 0) over the thresholds (-inf, .1, .3, .8, .9) is at best 0."""
    assert opc(Q, EFFECTIVE, prior=0.5) == pytest.approx(0.0)
    assert opc(np.array([0.9, 0.1, 0.1, 0.1]), np.array([True, False, False, False]), prior=0.5) == pytest.approx(0.25)


def test_opc_of_a_perfect_ranking_is_the_share_of_the_unlabelled() -> None:
    assert opc(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False])) == pytest.approx(0.5)


@given(arrays(np.float64, 12, elements=st.floats(0, 1)), arrays(np.bool_, 12))
def test_opc_is_the_maximum_over_all_thresholds(q: np.ndarray, positive: np.ndarray) -> None:
    if not positive.any():
        assert np.isnan(opc(q, positive))
        return
    every = [(q[positive] > b).mean() - (q > b).mean() for b in [-1.0, *q]]
    assert opc(q, positive) == pytest.approx(max(every))


def test_calibration_is_that_of_the_training_log() -> None:
    """As in test_metrics: [.2, .3): |.5 - 1|; [.9, 1]: |1.9 - 2|; together .6 / 4."""
    predicted, outcome = np.array([0.25, 0.25, 0.9, 1.0], np.float32), np.array([1.0, 0.0, 1.0, 1.0], np.float32)
    assert expected_calibration_error(predicted, outcome, 0.0, 1.0) == pytest.approx(0.15)
    assert np.isnan(expected_calibration_error(predicted * np.nan, outcome, 0.0, 1.0))


def test_correlation_of_what_never_changes_does_not_exist() -> None:
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(1.0)
    assert np.isnan(correlation(np.ones(3), np.arange(3.0)))


def test_means_are_taken_within_episodes() -> None:
    assert episode_means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1])).tolist() == [2.0, 5.0]


def test_a_tournament_is_lost_to_the_opponent_that_shows_the_inconsistency() -> None:
    """Q_0 tells the first two steps from the last two, Q_1 tells nothing. Targets within Q_0's cells average to .2 and .8.
    Q_0 is .1 off everywhere. Q_1 alone is consistent (its targets average to .5), but in Q_0's cells it is .3 off."""
    q = np.array([[0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]])
    target = np.array([[0.1, 0.3, 0.9, 0.7], [0.1, 0.3, 0.9, 0.7]])
    assert bvft(q, target, 0.0, 1.0, resolution=0.5).tolist() == pytest.approx([0.1, 0.3])
    assert bvft(q[1:], target[1:], 0.0, 1.0, resolution=0.5).tolist() == pytest.approx([0.0], abs=1e-12)
