"""Losses as pure functions of network outputs; only `QLearner` steps an optimiser."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtransformer.config import Conservative
from qtransformer.value_heads import ValueHead


def take(values: Float[Tensor, "b n a *v"], bins: Int[Tensor, "b n"]) -> Float[Tensor, "b n *v"]:
    """The entry of one bin of each dimension."""
    index = bins.reshape(*bins.shape, 1, *([1] * (values.ndim - 3))).expand(-1, -1, 1, *values.shape[3:])
    return values.gather(2, index)[:, :, 0]


def masked_mean(values: Float[Tensor, "b n"], valid: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean over dimensions and over the valid samples of a batch; 0 if there is none."""
    return (values.mean(-1) * valid).sum() / valid.sum().clamp_min(1)


def conservative_loss(
    kind: Conservative,
    head: ValueHead,
    q_logits: Float[Tensor, "b n a v"],
    q_values: Float[Tensor, "b n a"],
    bins: Int[Tensor, "b n"],
    bin_exists: Bool[Tensor, "n a"],
) -> Float[Tensor, "b n"]:
    """Push bins that were not taken towards the lowest attainable return (Q-Transformer, Eq. 2).

    Averaged over a dimension's unseen bins, so that the weight means the same for 2 bins and for 256. The scalar or expected
    *value* is regressed, never the logit: a logit of 0 is a value of one half.
    """
    unseen = bin_exists & ~F.one_hot(bins, q_values.shape[-1]).bool()
    count = unseen.sum(-1)
    match kind:
        case Conservative.squared:
            penalty = 0.5 * (q_values - head.v_min).square()
        case Conservative.cross_entropy:
            penalty = head.loss(q_logits, torch.full_like(q_values, head.v_min))
        case Conservative.logsumexp:
            everywhere = q_values.masked_fill(~bin_exists, -torch.inf).logsumexp(-1)
            return everywhere - take(q_values, bins)
    return (penalty * unseen).sum(-1) / count


def behavior_loss(
    policy_logits: Float[Tensor, "b n a"], bins: Int[Tensor, "b n"], bin_exists: Bool[Tensor, "n a"]
) -> Float[Tensor, "b n"]:
    """Cross-entropy of the behaviour classifier with the logged bins."""
    logits = policy_logits.masked_fill(~bin_exists, -torch.inf)
    return F.cross_entropy(logits.movedim(-1, 1), bins, reduction="none")
