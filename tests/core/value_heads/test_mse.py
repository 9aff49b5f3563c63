import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import MSE


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_values_stay_in_the_attainable_range_whatever_the_logit(logit: float) -> None:
    value = float(MSE(-2.0, 3.0).q_values(torch.tensor([logit])))
    assert -2.0 <= value <= 3.0


def test_loss_is_half_the_squared_distance_of_the_value() -> None:
    """Logit 0 is the value 1 on [0, 2]; the target 1.6 is .3 ranges away; targets beyond the range count as its edge."""
    logits = torch.zeros(3, 1)
    torch.testing.assert_close(MSE(0.0, 2.0).loss(logits, torch.tensor([1.6, 1.0, 9.0])), torch.tensor([0.045, 0.0, 0.125]))


def test_a_logit_of_zero_is_the_middle_of_the_range() -> None:
    assert float(MSE(0.0, 1.0).q_values(torch.zeros(1))) == 0.5
