"""MSE: a scalar value in the attainable range, trained by squared error (the papers' regression baseline)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qtransformer.value_heads.base import ValueHead


class MSE(ValueHead):
    """One number per action bin, squashed into [v_min, v_max] by a sigmoid (Q-Transformer, section 4.2: Q in [0, 1])."""

    def __init__(self, v_min: float, v_max: float) -> None:
        super().__init__(v_min, v_max, 1)

    def activate(self, logits: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 1"]:
        return self.v_min + (self.v_max - self.v_min) * logits.sigmoid()

    def to_probs(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b 1"]:
        return self.clamp(value)[..., None]

    def to_value(self, probs: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return probs[..., 0]

    def loss_to_probs(self, logits: Float[Tensor, "*b 1"], target_probs: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return 0.5 * (self.activate(logits) - target_probs).square()[..., 0]

    def initial_logits(self, value: float) -> Float[Tensor, "1"]:
        unit = min(max((value - self.v_min) / (self.v_max - self.v_min), 1e-3), 1 - 1e-3)
        return torch.tensor([math.log(unit / (1 - unit))])
