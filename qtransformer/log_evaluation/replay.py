"""What a checkpoint makes of every frame of a log: the one forward pass from which all log-only scores are taken."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from qtransformer.batch import Batch
from qtransformer.config import Precision
from qtransformer.learner import QLearner
from qtransformer.memory import Memory
from qtransformer.models.q_transformer import QTransformer
from qtransformer.policy import Policy
from qtransformer.preprocess import encode_instruction, images_to_float
from qtransformer.returns import returns_to_go
from qtransformer.types import Episode

FRAMES_AT_ONCE = 512
"""Frames per forward pass, or one episode if that is longer; bounds the memory that images and proposals take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """`k` frames in the order of the log: T + 1 for every episode of T steps, the last without an action.

    Values are those of whole actions (of the last dimension); NaN where a cloned policy has none.
    """

    episode: Int[np.ndarray, "k"]
    """Which episode a frame belongs to, counted from 0."""
    has_action: Bool[np.ndarray, "k"]
    success: Bool[np.ndarray, "k"]
    """Whether the frame's episode succeeded."""
    mc_return: Float[np.ndarray, "k"]
    """Return that followed, under the checkpoint's own discount."""
    logged: Int[np.ndarray, "k n"]
    """Bins of the logged action."""
    greedy: Int[np.ndarray, "k n"]
    """Bins the policy chooses."""
    greedy_actions: Float[np.ndarray, "k n"]
    """The same action, scaled to [-1, 1]."""
    greedy_value: Float[np.ndarray, "k"]
    bellman: Float[np.ndarray, "k"]
    """reward + discount * `greedy_value` of the next frame: the target of a whole action over one step."""
    has_bellman: Bool[np.ndarray, "k"]
    """Steps whose next frame was logged."""
    q_logged: Float[np.ndarray, "k n"]
    """Value of the logged bin of every dimension."""
    log_policy: Float[np.ndarray, "k n"] | None = None
    """The behaviour classifier's log-probability of the logged bin [nat]; None where none was learned."""
    target: Float[np.ndarray, "k n"]
    """The checkpoint's own training target, with itself as the target network."""
    has_target: Bool[np.ndarray, "k"]

    @property
    def first(self) -> Bool[np.ndarray, "k"]:
        """First frames of episodes."""
        return np.diff(self.episode, prepend=-1) > 0

    @property
    def last(self) -> Bool[np.ndarray, "k"]:
        """Frames of episodes' last actions."""
        return self.has_action & ~np.append(self.has_action[1:], False)

    @property
    def has_values(self) -> bool:
        return bool(np.isfinite(self.greedy_value).all())


def replay(policy: Policy, episodes: Iterable[Episode], worst_reward: float = 0.0) -> Replay:
    """Run a policy over logged episodes, a few at a time. `worst_reward` is the least of the data, of which targets' floors take
    account where time limits cut episodes short."""
    exact = replace(policy.config, optim=replace(policy.config.optim, precision=Precision.float32))  # as the policy decides
    learner = QLearner(exact, policy.network, policy.device)
    policy.reset()  # the draws of proposals begin anew
    parts, count = list[dict[str, np.ndarray]](), 0
    for chunk in chunked(episodes, FRAMES_AT_ONCE):
        batch = stream(chunk, policy.config.targets.discount, learner.lookahead, worst_reward, policy.network.memory)
        part = _replay_stream(policy, learner, batch)
        part["episode"] = np.repeat(np.arange(count, count + len(chunk)), [len(e) + 1 for e in chunk])
        count += len(chunk)
        parts.append(part)
    return Replay(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


@torch.no_grad()
def _replay_stream(policy: Policy, learner: QLearner, batch: Batch) -> dict[str, np.ndarray]:
    batch = batch.to(policy.device)
    held_out, decision = learner.evaluate_batch(batch), policy.greedy(contexts(policy.network, batch))
    head, steps = policy.network.value_head, slice(0, batch.steps)
    value, q_logged = head.to_value(decision.chosen_probs[:, -1]), held_out.q_values
    if policy.imitates:  # its values were never trained
        value, q_logged = torch.full_like(value, torch.nan), torch.full_like(q_logged, torch.nan)
    ahead = policy.config.targets.discount * ~batch.terminated[0, steps] * value.roll(-1)
    tensors = {
        "has_action": batch.has_action[0, steps],
        "success": batch.success[0, steps],
        "mc_return": batch.mc_return[0, steps],
        "logged": held_out.bins,
        "greedy": decision.bins,
        "greedy_actions": policy.network.tokenizer.decode(decision.bins),
        "greedy_value": value,
        "bellman": head.clamp(batch.rewards[0, steps] + ahead),
        "has_bellman": batch.has_action[0, steps] & ~batch.lost_final[0, steps],
        "q_logged": q_logged,
        "target": held_out.target,
        "has_target": held_out.valid,
    }
    if held_out.log_policy is not None:
        tensors["log_policy"] = held_out.log_policy
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def contexts(network: QTransformer, batch: Batch) -> Float[torch.Tensor, "k s e"]:
    """History windows of all steps of a batch."""
    images = {name: images_to_float(x[:, : batch.steps]) for name, x in batch.images.items()}
    remembered = None if batch.remembered is None else batch.remembered[:, : batch.steps]
    tokens = network.encode_frames(images, batch.proprio[:, : batch.steps], batch.instruction[:, : batch.steps], remembered)
    return network.windows(tokens, batch.episode_start[:, : batch.steps], 0, batch.steps)


def stream(
    episodes: Sequence[Episode], discount: float, lookahead: int, worst_reward: float = 0.0, memory: Memory | None = None
) -> Batch:
    """Whole episodes end to end as one segment, every frame of it a step: nothing is left out and nothing drawn twice.

    The lookahead frames repeat the last one; as it has no action, no target reads them. `worst_reward` is the least of the data: a
    negative one bounds what may have followed a time limit.
    """
    lengths = [len(episode) for episode in episodes]
    starts = np.concatenate([[0], np.cumsum([length + 1 for length in lengths])[:-1]])
    frames = sum(lengths) + len(lengths)

    def rows(arrays: Iterable[np.ndarray], pad: bool = True) -> torch.Tensor:
        """Per-step arrays (a row of zeros is added for the final observation) or per-frame ones, joined and extended."""
        whole = np.concatenate([np.concatenate([a, np.zeros_like(a[:1])]) if pad else a for a in arrays])
        return torch.from_numpy(np.concatenate([whole, np.repeat(whole[-1:], lookahead, 0)]))[None]

    def spread(per_episode: Sequence[np.ndarray] | Sequence[bool] | np.ndarray) -> torch.Tensor:
        return rows([np.repeat(np.asarray(per_episode), [length + 1 for length in lengths], 0)], pad=False)

    def bound(episode: Episode) -> np.ndarray:
        """What the return is at least of every frame, as if the worst reward followed a time limit for ever, as training has it."""
        after = 0.0
        if episode.truncated[-1] and not episode.terminated[-1]:
            after = worst_reward / (1 - discount) if discount < 1 else -np.inf
        return np.append(returns_to_go(episode.rewards, discount, after), after).astype(np.float32)

    proprio = rows([e.proprio for e in episodes], pad=False)
    first = spread(starts)
    bootstrapped = [e.truncated & ~e.terminated for e in episodes]
    return Batch(
        lead=0,
        steps=frames,
        images={name: rows([e.images[name] for e in episodes], pad=False) for name in episodes[0].images},
        proprio=proprio,
        remembered=None if memory is None else torch.from_numpy(memory.of_frames(proprio[0].numpy(), first[0].numpy()))[None],
        instruction=spread(np.stack([encode_instruction(e.instruction) for e in episodes])),
        episode_start=first,
        has_action=rows([np.ones(length, bool) for length in lengths]),
        actions=rows([e.actions for e in episodes]),
        rewards=rows([e.rewards for e in episodes]),
        terminated=rows([e.terminated for e in episodes]),
        truncated=rows(bootstrapped),
        lost_final=rows([b & (not e.has_final_observation) for b, e in zip(bootstrapped, episodes, strict=True)]),
        mc_return=rows([returns_to_go(e.rewards, discount).astype(np.float32) for e in episodes]),
        success=spread([e.success for e in episodes]),
        return_bound=rows(map(bound, episodes), pad=False) if worst_reward < 0 else None,
    )


def chunked(episodes: Iterable[Episode], frames: int) -> Iterator[list[Episode]]:
    """Episodes in order, as many together as have no more than so many frames; a longer one comes alone."""
    chunk, count = list[Episode](), 0
    for episode in episodes:
        length = len(episode) + 1
        if chunk and count + length > frames:
            yield chunk
            chunk, count = [], 0
        chunk.append(episode)
        count += length
    if chunk:
        yield chunk
