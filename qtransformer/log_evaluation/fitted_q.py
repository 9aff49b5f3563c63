"""Fitted Q evaluation (Le et al. 2019): what a policy is worth, learned from the log by a network that is not its own.

Targets bootstrap with the action the judged policy would take in the next state. There is no maximum, so the fixed point is that
policy's own value, whatever the policy believes of itself.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtransformer.batch import Batch
from qtransformer.log_evaluation.replay import FRAMES_AT_ONCE, chunked, stream
from qtransformer.models.q_transformer import QTransformer, window_index
from qtransformer.preprocess import images_to_float
from qtransformer.target_network import follow
from qtransformer.types import Episode

ACTIONS_AT_ONCE = 4096
"""Actions valued in one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """A log as the critic sees it: `k` frames, each encoded once, T + 1 for every episode of T steps."""

    tokens: Float[Tensor, "k s e"]
    window: Int[Tensor, "k w"]
    """Frames of each frame's history, oldest first."""
    bins: Int[Tensor, "k n"]
    """Logged actions, in the critic's bins."""
    rewards: Float[Tensor, "k"]
    continues: Float[Tensor, "k"]
    """1 where the next frame is bootstrapped from, 0 after a termination."""
    usable: Bool[Tensor, "k"]
    """Steps with an action whose next frame was logged."""
    first: Bool[Tensor, "k"]
    """First frames of episodes."""


@torch.no_grad()
def encode(critic: QTransformer, episodes: Iterable[Episode]) -> Transitions:
    """All frames of a log through the critic's encoders."""
    device, tokens, batches = critic.proprio_mean.device, list[Tensor](), list[Batch]()
    for chunk in chunked(episodes, FRAMES_AT_ONCE):
        batch = stream(chunk, 1.0, lookahead=0, memory=critic.memory).to(device)
        images = {name: images_to_float(x) for name, x in batch.images.items()}
        tokens.append(critic.encode_frames(images, batch.proprio, batch.instruction, batch.remembered)[0])
        batches.append(batch)

    def join(read: Callable[[Batch], Tensor]) -> Tensor:
        return torch.cat([read(batch)[0] for batch in batches])

    sizes = [batch.steps for batch in batches]
    offsets = torch.repeat_interleave(torch.tensor([0, *sizes[:-1]]).cumsum(0), torch.tensor(sizes)).to(device)
    start = join(lambda b: b.episode_start) + offsets
    now = torch.arange(len(start), device=device)
    return Transitions(
        tokens=torch.cat(tokens),
        window=window_index(now, start, critic.config.history),
        bins=critic.tokenizer.encode(join(lambda b: b.actions)),
        rewards=join(lambda b: b.rewards),
        continues=(~join(lambda b: b.terminated)).float(),
        usable=join(lambda b: b.has_action) & ~join(lambda b: b.lost_final),
        first=start == now,
    )


def q_of(critic: QTransformer, log: Transitions, frames: Int[Tensor, "b"], bins: Int[Tensor, "b n"]) -> Float[Tensor, "b v"]:
    """Raw outputs for whole actions at some frames of a log."""
    context = critic.add_age(log.tokens[log.window[frames]])
    return critic.q_head.at(critic.hidden(context, bins), bins[..., None])[:, -1, 0]


@torch.no_grad()
def action_values(critic: QTransformer, log: Transitions, bins: Int[Tensor, "k n"]) -> Float[Tensor, "k"]:
    """Value of one action at every frame of a log."""
    frames = torch.arange(len(bins), device=bins.device).split(ACTIONS_AT_ONCE)
    return torch.cat([critic.value_head.q_values(q_of(critic, log, part, bins[part])) for part in frames])


def evaluate_policy(
    critic: QTransformer,
    log: Transitions,
    policy_bins: Int[Tensor, "k n"],
    *,
    discount: float,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    target_rate: float = 0.05,
) -> QTransformer:
    """Fitted Q evaluation: a critic of the policy that takes `policy_bins`, going on from another critic.

    Its encoders stay as they are, so that frames need no encoding again; everything after them learns.

    Args:
        critic: where to start; left as it is.
        log: logged transitions.
        policy_bins: action the judged policy takes at every frame, in the critic's bins.
        discount: per environment step.
        steps: gradient steps.
        batch_size: transitions per step.
        learning_rate: of Adam.
        target_rate: share of the weights that enters the target network at each step.
    """
    online, target = copy.deepcopy(critic).requires_grad_(True), copy.deepcopy(critic).requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=learning_rate)
    order = epochs(log.usable.nonzero()[:, 0], steps * batch_size, seed=0)  # the same draws for every checkpoint
    head = critic.value_head
    for step, now in enumerate(order.split(batch_size)):
        with torch.no_grad():
            # After a termination the next frame is no part of the episode's future; its value is multiplied by 0.
            ahead = head.activate(q_of(target, log, now + 1, policy_bins[now + 1]))
            goal = head.backup(log.rewards[now], discount * log.continues[now], ahead)
        loss = head.loss_to_probs(q_of(online, log, now, log.bins[now]), goal).mean()
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        follow(target.parameters(), online.parameters(), target_rate)
    return online.requires_grad_(False)


def epochs(items: Int[Tensor, "k"], count: int, seed: int) -> Int[Tensor, "m"]:
    """`count` items, each as often as any other (but for a last, cut epoch), every epoch in another random order."""
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-count // len(items))
    return torch.cat([items[torch.randperm(len(items), generator=generator).to(items.device)] for _ in range(rounds)])[:count]
