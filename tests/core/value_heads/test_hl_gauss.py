import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import HLGauss
from qtransformer.errors import ConfigError

any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(any_float32)
def test_every_finite_target_gives_a_distribution_and_finite_gradients(value: float) -> None:
    head = HLGauss(0.0, 1.0)
    logits = torch.linspace(-30.0, 30.0, head.num_outputs).requires_grad_()
    target = torch.tensor(value)
    probs = head.to_probs(target)
    assert torch.isfinite(probs).all()
    assert (probs >= 0).all()
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(head.to_value(probs)) == pytest.approx(min(max(value, 0.0), 1.0), abs=1e-4)
    loss = head.loss(logits, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@given(st.lists(st.floats(-0.25, 1.25, width=32), min_size=2, max_size=20))
def test_decoding_keeps_the_order_of_targets(values: list[float]) -> None:
    head = HLGauss(0.0, 1.0)
    decoded = head.to_value(head.to_probs(torch.tensor(sorted(values))))
    assert (decoded.diff() >= -1e-5).all()


def test_bins_carry_the_gaussian_mass_between_their_edges() -> None:
    """Against Phi from the standard library, in float64."""
    head = HLGauss(0.0, 1.0, 51, 0.75)
    width = 1.0 / (51 - 2 * 4 * 0.75)
    edges = np.arange(52) * width - 4 * 0.75 * width
    mass = np.diff([0.5 * (1 + math.erf((e - 0.3) / (0.75 * width * math.sqrt(2)))) for e in edges])
    np.testing.assert_allclose(head.to_probs(torch.tensor(0.3)), mass / mass.sum(), atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_histogram_and_is_least_at_it() -> None:
    head = HLGauss(0.0, 1.0)
    probs = head.to_probs(torch.tensor([0.2, 0.9]))
    logits = torch.randn(2, 51, generator=torch.Generator().manual_seed(0))
    expected = -(probs * (logits - logits.logsumexp(-1, keepdim=True))).sum(-1)
    torch.testing.assert_close(head.loss(logits, torch.tensor([0.2, 0.9])), expected)
    at_target = head.loss(probs.clamp_min(1e-12).log(), torch.tensor([0.2, 0.9]))
    assert (at_target < expected).all()


@pytest.mark.parametrize(("bins", "ratio"), [(51, 0.0), (51, -1.0), (6, 0.75), (10, 2.0)])
def test_a_support_too_small_for_its_padding_is_refused(bins: int, ratio: float) -> None:
    with pytest.raises(ConfigError, match="num_bins"):
        HLGauss(0.0, 1.0, bins, ratio)
