"""Losses as pure functions of network outputs; only `QLearner` steps an optimiser."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import assert_never

from qtransformer.config import Conservative
from qtransformer.value_heads import ValueHead


def masked_mean(values: Float[Tensor, "b n"], valid: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean over dimensions and over the valid samples of a batch; 0 if there is none."""
    return (values.mean(-1) * valid).sum() / valid.sum().clamp_min(1)


def draw_unseen(
    bins: Int[Tensor, "b n"], num_bins: Int[Tensor, "n"], count: int, generator: torch.Generator
) -> Int[Tensor, "b n c"]:
    """`count` bins of each dimension other than the taken one, drawn uniformly with replacement."""
    others = (num_bins - 1)[:, None]
    offset = 1 + (torch.rand(*bins.shape, count, generator=generator).to(bins.device) * others).long().clamp(max=others - 1)
    return (bins[..., None] + offset) % num_bins[:, None]


def conservative_loss(
    kind: Conservative,
    head: ValueHead,
    q_logits: Float[Tensor, "b n c v"],
    q_values: Float[Tensor, "b n c"],
    unseen: Bool[Tensor, "b n c"],
    q_data: Float[Tensor, "b n"],
) -> Float[Tensor, "b n"]:
    """Push bins that were not taken towards the lowest attainable return (Q-Transformer, Eq. 2).

    Averaged over a dimension's unseen bins, so that the weight means the same for 2 bins and for 256, and a uniform draw of them
    stands for all. The scalar or expected *value* is regressed, never the logit: a logit of 0 is a value of one half. Values
    are measured in units of the attainable range, so that the weight means the same for returns of 1 and of 100, too.

    Args:
        kind: how.
        head: what logits mean.
        q_logits: outputs of some bins of every dimension; `q_values` their values.
        unseen: which of them were not taken (the rest is ignored).
        q_data: value of the bin that was taken.
    """
    match kind:
        case Conservative.squared:
            penalty = 0.5 * ((q_values - head.v_min) / head.span).square()
        case Conservative.cross_entropy:
            penalty = head.loss(q_logits, torch.full_like(q_values, head.v_min))
        case Conservative.logsumexp:
            everywhere = torch.cat([q_values.masked_fill(~unseen, -torch.inf), q_data[..., None]], -1) / head.span
            return everywhere.logsumexp(-1) - q_data / head.span
        case unknown:
            assert_never(unknown)
    return (penalty * unseen).sum(-1) / unseen.sum(-1)


def behavior_loss(
    policy_logits: Float[Tensor, "b n a"], bins: Int[Tensor, "b n"], bin_exists: Bool[Tensor, "n a"]
) -> Float[Tensor, "b n"]:
    """Cross-entropy of the behaviour classifier with the logged bins."""
    logits = policy_logits.masked_fill(~bin_exists, -torch.inf)
    return F.cross_entropy(logits.movedim(-1, 1), bins, reduction="none")
