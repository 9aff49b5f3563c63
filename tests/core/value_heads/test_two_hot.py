import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import TwoHot
from qtransformer.errors import ConfigError


@given(st.floats(-3.0, 5.0, width=32), st.integers(2, 101))
def test_mass_on_two_neighbours_decodes_exactly(value: float, num_bins: int) -> None:
    head = TwoHot(-3.0, 5.0, num_bins)
    probs = head.to_probs(torch.tensor(value))
    places = (probs > 1e-5).nonzero()[:, 0]
    assert len(places) in (1, 2)
    assert places[-1] - places[0] <= 1
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(head.to_value(probs)) == pytest.approx(value, abs=8.0 * 1e-5)  # float32 rounding


def test_the_nearer_location_gets_the_more_mass() -> None:
    torch.testing.assert_close(TwoHot(0.0, 1.0, 5).to_probs(torch.tensor(0.3)), torch.tensor([0, 0.8, 0.2, 0, 0]))


@pytest.mark.parametrize(("value", "edge"), [(-1e30, 0.0), (7.0, 1.0), (3.4e38, 1.0)])
def test_returns_outside_the_range_are_clamped_to_it(value: float, edge: float) -> None:
    head = TwoHot(0.0, 1.0, 11)
    assert float(head.to_value(head.to_probs(torch.tensor(value)))) == edge


def test_one_bin_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        TwoHot(0.0, 1.0, 1)
