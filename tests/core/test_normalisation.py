from typing import Any

import pytest

from qtransformer.normalisation import shifted


def stats(mean: float, std: float) -> dict[str, Any]:
    return {"proprio_mean": [0.0, mean], "proprio_std": [1.0, std]}


@pytest.mark.parametrize(
    ("kept", "found", "says"),
    [
        ((0.2, 0.1), (0.2, 0.1), False),
        ((0.2, 0.1), (0.49, 0.1), False),
        ((0.2, 0.1), (0.51, 0.1), True),  # more than three standard deviations away
        ((0.2, 0.1), (0.2, 0.29), False),
        ((0.2, 0.1), (0.2, 0.31), True),  # more than three times as wide
        ((0.2, 0.1), (0.2, 0.032), True),  # less than a third as wide
        ((0.2, 0.1), (0.2, 0.0), False),  # a value that does not vary says nothing of its spread
        ((0.2, 0.0), (3.1, 0.5), False),  # nor one that did not: the network divides by 1 then
        ((0.2, 0.0), (3.3, 0.0), True),
    ],
)
def test_what_counts_as_other_proprioception(kept, found, says) -> None:
    phrases = shifted(["x", "angle"], stats(*kept), stats(*found))
    assert len(phrases) == says
    assert all(phrase.startswith("'angle' is ") for phrase in phrases)
