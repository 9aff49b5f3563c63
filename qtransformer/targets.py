"""Bootstrapped targets as pure functions (Q-Transformer, section 4; Eq. 1). Tensors in, tensors out, no gradient.

A value is handled as its head represents it (`probs`): a categorical head keeps mass on locations, MSE a scalar. So C51 backs up
whole distributions, every other head their means, through the same lines.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtransformer.action_tokenizer import take
from qtransformer.batch import Batch
from qtransformer.value_heads import ValueHead


class NStep(NamedTuple):
    """A return summed over up to K steps, and where it goes on from there."""

    rewards: Float[Tensor, "b t"]
    """Discounted sum of the rewards on the way."""
    discounts: Float[Tensor, "b t"]
    """Factor of the value bootstrapped afterwards; 0 after a termination."""
    frame: Int[Tensor, "b t"]
    """Frame of the segment whose value is bootstrapped."""
    valid: Bool[Tensor, "b t"]
    """False where there is no action, or where the log lost the final observation of a truncated episode."""


def n_step(batch: Batch, time_steps: int, discount: float) -> NStep:
    """Sum rewards over `time_steps` steps, cut at the episode's end. A truncation bootstraps, a termination does not."""
    frame = batch.step_frames
    rewards = torch.zeros_like(batch.rewards[:, : batch.steps])
    discounts = torch.ones_like(rewards)
    running = batch.has_action.gather(1, frame)
    valid = running.clone()
    for _ in range(time_steps):
        rewards = rewards + torch.where(running, discounts * batch.rewards.gather(1, frame), 0.0)
        ends = batch.terminated.gather(1, frame)
        discounts = torch.where(running, discounts * torch.where(ends, 0.0, discount), discounts)
        valid &= ~(running & batch.lost_final.gather(1, frame))
        frame = frame + running.long()
        running = running & ~ends & batch.has_action.gather(1, frame)
    return NStep(rewards, discounts, frame, valid)


def with_next_action(ahead: NStep, batch: Batch) -> NStep:
    """Without the steps that bootstrap from a state whose action is not logged, as the last one of a truncated episode is."""
    return ahead._replace(valid=ahead.valid & ((ahead.discounts == 0) | batch.has_action.gather(1, ahead.frame)))


def backup_from_next_state(
    head: ValueHead,
    rewards: Float[Tensor, "b"],
    discounts: Float[Tensor, "b"],
    next_probs: Float[Tensor, "b v"],
    n: int,
) -> Float[Tensor, "b n v"]:
    """n-step over dimensions: every dimension's target is `R + gamma V(s')`."""
    return head.backup(rewards, discounts, next_probs)[:, None].expand(-1, n, -1)


def backup_from_next_dimension(
    head: ValueHead,
    rewards: Float[Tensor, "b"],
    discounts: Float[Tensor, "b"],
    next_probs: Float[Tensor, "b v"],
    q_values: Float[Tensor, "b n a"],
    q_logits: Float[Tensor, "b n a v"],
    allowed: Bool[Tensor, "b n a"],
) -> Float[Tensor, "b n v"]:
    """Eq. 1: dimension i < n takes the maximum over the bins of dimension i + 1 at the same state (no reward, no discount
    between the dimensions of one action); dimension n takes `R + gamma V(s')`."""
    best = q_values.masked_fill(~allowed, -torch.inf).argmax(-1)[:, 1:]
    best_logits = take(q_logits[:, 1:], best)
    zero = torch.zeros(best_logits.shape[:2], device=best_logits.device)
    within = head.backup(zero, zero + 1, head.activate(best_logits))
    return torch.cat([within, head.backup(rewards, discounts, next_probs)[:, None]], dim=1)


def raise_to_floor(
    head: ValueHead, probs: Float[Tensor, "b n v"], floor: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "b n v"], Bool[Tensor, "b n"]]:
    """The larger of target and floor (Q-Transformer, section 4.2), and where the bootstrap was the larger one.

    A target that is not a number stays one, so that training stops instead of hiding it.
    """
    floor_wins = floor >= head.to_value(probs)
    return torch.where(floor_wins[..., None], head.to_probs(floor), probs), ~floor_wins
