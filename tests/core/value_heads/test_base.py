"""What holds for every head."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.errors import ConfigError
from qtransformer.value_heads import CategoricalHead, make_value_head

every_head = pytest.mark.parametrize("kind", list(ValueKind))
RANGES = [(0.0, 1.0), (-1.0, 1.0), (-5.0, 0.0), (0.0, 100.0), (-300.0, 20.0), (10.0, 11.0), (100.0, 101.0)]
"""The last is about as far from 0, measured in ranges, as float32 can tell values apart to 1e-5."""


@pytest.mark.parametrize("ends", RANGES, ids=str)
@pytest.mark.parametrize("num_bins", [51, 101, 201])
@pytest.mark.parametrize(("kind", "ratio"), [*((k, 0.75) for k in ValueKind), *((ValueKind.hl_gauss, r) for r in (0.5, 1.0, 2.0))])
def test_decode_of_encode_is_the_value_over_the_whole_attainable_range(kind, ratio, num_bins, ends) -> None:
    head = make_value_head(ValueConfig(kind=kind, v_min=ends[0], v_max=ends[1], num_bins=num_bins, sigma_ratio=ratio))
    values = torch.linspace(*ends, 1001)
    probs = head.to_probs(values)
    torch.testing.assert_close(head.to_value(probs), values, atol=1e-4 * head.span, rtol=0)
    if isinstance(head, CategoricalHead):
        torch.testing.assert_close(probs.sum(-1), torch.ones(1001), atol=1e-5, rtol=0)
    reward = torch.full_like(values, 0.25 * head.span)
    backup = head.backup(reward, torch.ones_like(values), probs)
    ahead = values < ends[1] - 0.3 * head.span  # of a value so near the end, a distribution would be cut off
    torch.testing.assert_close(head.to_value(backup)[ahead], (values + reward)[ahead], atol=1e-4 * head.span, rtol=0)


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
def test_bfloat16_around_a_head_leaves_values_their_digits(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind))
    probs = head.to_probs(torch.linspace(0.0, 1.0, 1001))
    with torch.autocast("cpu", torch.bfloat16):
        values = head.to_value(probs)
    assert torch.equal(values, head.to_value(probs))
    assert len(values.unique()) == 1001
    if isinstance(head, CategoricalHead):
        assert head.to_value(probs.bfloat16()).dtype == torch.float32


class Copies(TorchDispatchMode):
    """Counts tensors that are copied to another type or device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@every_head
def test_what_a_head_knows_is_copied_once_and_learned_with_though_acting_came_first(kind: ValueKind) -> None:
    """To another type, in the place of another device."""
    head = make_value_head(ValueConfig(kind=kind))
    logits = torch.randn(3, head.num_outputs, dtype=torch.float64, requires_grad=True)
    returns = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)

    def everything() -> torch.Tensor:
        backup = head.backup(returns, returns, head.activate(logits))
        return (head.q_values(logits) + head.loss(logits, returns) + head.loss_to_probs(logits, backup)).sum()

    with torch.inference_mode():
        everything()
    with Copies() as copies:
        everything().backward()
    assert copies.count == 0
    assert logits.grad is not None


@every_head
def test_an_empty_range_is_refused(kind: ValueKind) -> None:
    with pytest.raises(ConfigError, match=r"value\.v_min=.* must be below value\.v_max="):
        make_value_head(ValueConfig(kind=kind, v_min=1.0, v_max=1.0))


@every_head
def test_a_configuration_names_its_head(kind: ValueKind) -> None:
    head = make_value_head(ValueConfig(kind=kind, v_min=-1.0, v_max=2.0, num_bins=33))
    assert (head.v_min, head.v_max) == (-1.0, 2.0)
    assert head.num_outputs == (33 if isinstance(head, CategoricalHead) else 1)
