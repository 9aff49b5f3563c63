import pytest

from qtransformer.evaluate import EpisodeResult, Evaluation
from qtransformer.report.pairing import Pairing, pair


def outcomes(text: str, first_seed: int = 0) -> Evaluation:
    results = tuple(
        EpisodeResult(seed=first_seed + i, success=c == "+", steps=1, reward=0.0, terminated=True) for i, c in enumerate(text)
    )
    return Evaluation(results=results, seconds=0.0)


def test_seeds_are_matched_not_positions() -> None:
    assert pair(outcomes("++--+"), outcomes("+-+-", first_seed=1)) == Pairing(wins=1, losses=1, both=1, neither=1)
    assert pair(outcomes("+"), outcomes("+", first_seed=5)).episodes == 0


@pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (8, 2, 0.109375), (3, 3, 1.0)])
def test_mcnemar(wins: int, losses: int, p: float) -> None:
    assert Pairing(wins=wins, losses=losses, both=4, neither=9).p_value == pytest.approx(p)
