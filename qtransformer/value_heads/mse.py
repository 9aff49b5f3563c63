"""MSE: a scalar value in the attainable range, trained by squared error (the papers' regression baseline)."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtransformer.value_heads.base import ValueHead


class MSE(ValueHead):
    """One number per action bin, squashed into [v_min, v_max] by a sigmoid (Q-Transformer, section 4.2: Q in [0, 1]).

    The squared error is measured in units of the range.
    """

    def __init__(self, v_min: float, v_max: float) -> None:
        super().__init__(v_min, v_max, 1)

    def activate(self, logits: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 1"]:
        return self.v_min + self.span * logits.sigmoid()

    def to_probs(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b 1"]:
        return self.clamp(value)[..., None]

    def to_value(self, probs: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return probs[..., 0]

    def loss_to_probs(self, logits: Float[Tensor, "*b 1"], target_probs: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return 0.5 * ((self.activate(logits) - target_probs) / self.span).square()[..., 0]

    def to_logits(self, probs: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 1"]:
        return torch.logit((probs - self.v_min) / self.span, eps=1e-3)
