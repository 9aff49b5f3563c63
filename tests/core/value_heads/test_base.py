"""What holds for every head."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.errors import ConfigError
from qtransformer.value_heads import CategoricalHead, make_value_head

every_head = pytest.mark.parametrize("kind", list(ValueKind))


def test_many_bins_move_the_first_value_no_further_than_few() -> None:
    heads = [make_value_head(ValueConfig(v_min=0.0, v_max=1.0, num_bins=bins)) for bins in (51, 255, 1001)]
    first = [float(head.q_values(head.initial_logits(0.05))) for head in heads]
    np.testing.assert_allclose(first, 0.05, atol=3e-3)


@every_head
@pytest.mark.parametrize("num_bins", [51, 101])
@pytest.mark.parametrize("initial", [0.0, 0.05, 0.5, 1.0])
def test_initial_logits_decode_to_the_value_they_are_asked_for(kind: ValueKind, num_bins: int, initial: float) -> None:
    """Small probabilities are raised a little, so that every bin can still learn: a hundredth of the range is allowed."""
    head = make_value_head(ValueConfig(kind=kind, num_bins=num_bins))
    logits = head.initial_logits(initial)
    assert logits.shape == (head.num_outputs,)
    assert torch.isfinite(logits).all()
    assert float(head.q_values(logits)) == pytest.approx(initial, abs=0.01)


@every_head
@given(target=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_losses_and_gradients_are_finite_for_every_finite_target(kind: ValueKind, target: float) -> None:
    head = make_value_head(ValueConfig(kind=kind, v_min=-2.0, v_max=3.0))
    logits = torch.linspace(-40, 40, head.num_outputs).requires_grad_()
    loss = head.loss(logits, torch.tensor(target))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@every_head
def test_a_backup_is_reward_plus_discounted_value_and_ignores_the_future_at_discount_zero(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind))
    ahead = head.to_probs(torch.tensor([0.5, 0.5, 0.9, 0.2]))
    backup = head.backup(torch.tensor([0.1, 1.0, 0.0, 0.0]), torch.tensor([0.9, 0.0, 0.0, 0.5]), ahead)
    torch.testing.assert_close(head.to_value(backup), torch.tensor([0.55, 1.0, 0.0, 0.1]), atol=3e-4, rtol=0)


@every_head
def test_a_gradient_step_moves_the_value_towards_the_target(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind))
    logits = head.initial_logits(0.3).requires_grad_()
    before = head.q_values(logits).detach()
    head.loss(logits, torch.tensor(0.9)).backward()
    assert logits.grad is not None
    assert head.q_values(logits - 0.1 * logits.grad) > before


@every_head
def test_an_empty_range_is_refused(kind: ValueKind) -> None:
    with pytest.raises(ConfigError, match=r"value\.v_min=.* must be below value\.v_max="):
        make_value_head(ValueConfig(kind=kind, v_min=1.0, v_max=1.0))


@every_head
def test_a_configuration_names_its_head(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind, v_min=-1.0, v_max=2.0, num_bins=33))
    assert (head.v_min, head.v_max) == (-1.0, 2.0)
    assert head.num_outputs == (33 if isinstance(head, CategoricalHead) else 1)
