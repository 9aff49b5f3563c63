import numpy as np
import pytest

from qtransformer.log_evaluation.ranking import rank_correlation, ranks, spearman


def test_ties_share_their_mean_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_spearman_by_hand() -> None:
    """Ranks 0 1 2 3 against 1 0 2 3: 1 - 6 * 2 / (4 * 15) = .8. Only the order counts."""
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.1, 5.0, 900.0])) == pytest.approx(0.8)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_an_interval_narrows_with_episodes_and_checkpoints() -> None:
    rng = np.random.default_rng(0)

    def width(checkpoints: int, episodes: int) -> float:
        rate = np.linspace(0.4, 0.6, checkpoints)
        found = rank_correlation(rate, rng.random((checkpoints, episodes)) < rate[:, None], draws=300)
        return found.high - found.low

    assert width(30, 200) < width(30, 8)
    assert width(30, 200) < width(8, 200)


def test_other_episodes_could_have_ranked_otherwise() -> None:
    """The score is the success itself, so whichever checkpoints are drawn agree: only the draw of episodes can disagree."""
    outcomes = np.random.default_rng(2).random((12, 20)) < 0.5
    found = rank_correlation(outcomes.mean(1), outcomes, draws=300)
    assert found.rho == pytest.approx(1.0)
    assert found.low < 0.9


def test_a_score_that_says_nothing_has_an_interval_around_zero() -> None:
    rng = np.random.default_rng(1)
    outcomes = rng.random((40, 100)) < np.linspace(0.2, 0.8, 40)[:, None]
    found = rank_correlation(rng.random(40), outcomes, draws=300)
    assert found.low < 0 < found.high


def test_it_prints_in_one_line() -> None:
    outcomes = np.array([[False, False], [True, False], [True, True]])
    assert str(rank_correlation(np.array([1.0, 2.0, 3.0]), outcomes, draws=50)).startswith("1.00 [")
