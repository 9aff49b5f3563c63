"""Small MDPs, and a Q-Transformer with a table in place of what it would learn.

Tokens spell out the state and the bins chosen so far, and the heads look the spelling up. Everything between (windows, prefixes,
kept memory, argmax) is the code that acts and learns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qtransformer import ActionTokenizer, ObservationSpec
from qtransformer.batch import Batch
from qtransformer.config import ModelConfig
from qtransformer.models.q_transformer import QTransformer
from qtransformer.value_heads import ValueHead
from qtransformer.value_heads.rebinning import move_moments, projection

DISCOUNT = 0.8


@dataclass(frozen=True)
class MDP:
    """A small MDP with product actions; joint action a in state s has equally likely outcomes (s, a, o)."""

    bins: tuple[int, ...]
    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    """Where the log stopped watching: a bootstrap all the same."""

    @property
    def actions(self) -> np.ndarray:
        return np.array(list(product(*(range(a) for a in self.bins))))

    def q_star(self) -> np.ndarray:
        """Flat-action value iteration, (states, joint actions)."""
        return self._solve(lambda q: q.max(-1))

    def q_uniform(self) -> np.ndarray:
        """Values of acting at random."""
        return self._solve(lambda q: q.mean(-1))

    def q_of(self, policy: np.ndarray) -> np.ndarray:
        """Values of a policy that takes joint action `policy[s]` in state s."""
        return self._solve(lambda q: q[np.arange(len(q)), policy])

    def _solve(self, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        q = np.zeros(self.reward.shape[:2])
        for _ in range(200):
            q = (self.reward + DISCOUNT * ~self.terminated * value(q)[self.next_state]).mean(-1)
        return q


def random_mdp(bins: tuple[int, ...], seed: int, outcomes: int = 4, states: int = 3) -> MDP:
    """Rewards of 1 on some terminations, small ones on the way; no return leaves [0, 1]."""
    rng = np.random.default_rng(seed)
    shape = (states, int(np.prod(bins)), outcomes)
    terminated = rng.random(shape) < 0.3
    success = terminated & (rng.random(shape) < rng.random((*shape[:2], 1)))
    reward = np.where(terminated, success, 0.04 * rng.random(shape))
    truncated = ~terminated & (rng.random(shape) < 0.3)
    return MDP(bins, rng.integers(0, states, shape), reward, terminated, truncated)


def costly_mdp(bins: tuple[int, ...], seed: int, outcomes: int = 3, states: int = 3) -> MDP:
    """-1 per step until it ends, which the last state never does: its value is -1 / (1 - DISCOUNT)."""
    mdp = random_mdp(bins, seed, outcomes, states)
    terminated, next_state = mdp.terminated.copy(), mdp.next_state.copy()
    terminated[-1], next_state[-1] = False, states - 1
    return MDP(bins, next_state, np.full_like(mdp.reward, -1.0), terminated, mdp.truncated & ~terminated)


def log_of(mdp: MDP, keep: np.ndarray | None = None) -> Batch:
    """Every outcome of every action (that `keep` keeps), once: segments of a step and the frame after it."""
    s, a, o = (x.ravel() for x in np.indices(mdp.reward.shape))
    chosen = np.ones(len(s), bool) if keep is None else keep[s, a]
    s, a, o = s[chosen], a[chosen], o[chosen]
    centers = ActionTokenizer(mdp.bins).decode(torch.from_numpy(mdp.actions[a]))

    def frames(first: np.ndarray | Tensor, second: np.ndarray | Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(first), torch.as_tensor(second)], 1)

    none = np.zeros(len(s), bool)
    ended = mdp.terminated[s, a, o] | mdp.truncated[s, a, o]
    zero = np.zeros(len(s), np.float32)
    return Batch(
        lead=0,
        steps=1,
        images={},
        proprio=frames(s, mdp.next_state[s, a, o])[..., None].float(),
        instruction=torch.zeros(len(s), 2, 64),
        episode_start=torch.zeros(len(s), 2, dtype=torch.long),
        has_action=frames(~none, ~ended),
        actions=frames(centers, torch.zeros_like(centers)),
        rewards=frames(mdp.reward[s, a, o].astype(np.float32), zero),
        terminated=frames(mdp.terminated[s, a, o], none),
        truncated=frames(mdp.truncated[s, a, o], none),
        lost_final=frames(none, none),
        mc_return=frames(mdp.q_uniform()[s, a].astype(np.float32), zero),
        success=frames(none, none),
    )


class Spelling(nn.Module):
    """In the proprioception tokeniser's place: a token that names the state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.pad(features[:, :1], (0, self.width - 1))


class Total(NamedTuple):
    """All that a sum remembers: room it needs none."""

    of_tokens: Tensor

    def for_copies(self, copies: int, room: int) -> "Total":
        return Total(self.of_tokens.repeat_interleave(copies, 0))


class RunningSum(nn.Module):
    """In the transformer's place, causal and with a memory: the sum of all tokens so far, which spells state and prefix."""

    def forward(self, x: Tensor, past: list[Total] | None = None) -> tuple[Tensor, list[Total]]:
        total = x.cumsum(1) + (0 if past is None else past[0].of_tokens)
        return total, [Total(total[:, -1:])]


class Table(nn.Module):
    """In a head's place: outputs looked up by state and prefix."""

    def __init__(self, states: int, bins: tuple[int, ...], initial: Tensor) -> None:
        super().__init__()
        shapes = [(states, *bins[:i], max(bins)) for i in range(len(bins))]
        self.tables = nn.ParameterList([initial.expand(*shape, -1).clone() for shape in shapes])

    def forward(self, hidden: Tensor, first_dim: int = 0) -> Tensor:
        rows = [self.tables[i][self.spelt(hidden[:, i - first_dim], i)] for i in range(first_dim, first_dim + hidden.shape[1])]
        return torch.stack(rows, 1)

    def at(self, hidden: Tensor, bins: Tensor) -> Tensor:
        dims = range(bins.shape[1])
        return torch.stack([self.tables[i][(*(x[:, None] for x in self.spelt(hidden[:, i], i)), bins[:, i])] for i in dims], 1)

    def rebin(
        self, hidden: Tensor, exists: Tensor, old: ValueHead, new: ValueHead, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Entry by entry: a table has no inputs to fit on."""
        move = projection(old, new)
        for table in self.tables:
            table.data.copy_(new.to_logits(old.activate(table.data) @ move))
            state = optimizer.state.get(table, {}) if optimizer else {}
            move_moments({k: v.movedim(-1, 0) if v.ndim else v for k, v in state.items()}, move.T)

    @staticmethod
    def spelt(hidden: Tensor, dim: int) -> tuple[Tensor, ...]:
        return tuple(hidden[:, : dim + 1].round().long().T)


def tabular_network(mdp: MDP, head: ValueHead, initial: float = 0.05) -> QTransformer:
    n, states = len(mdp.bins), len(mdp.reward)
    spec = ObservationSpec(cameras={}, proprio_names=("state",), proprio_units=("1",), control_hz=1.0)
    config = ModelConfig(embed_dim=n + 1, num_heads=1, num_layers=1)
    network = QTransformer(config, head, ActionTokenizer(mdp.bins), spec, torch.zeros(1), torch.ones(1))
    network.requires_grad_(False)
    network.proprio_tokenizer, network.transformer = Spelling(n + 1), RunningSum()  # pyright: ignore[reportAttributeAccessIssue]
    for name, parameter in network.named_parameters():
        if name.startswith(("slot_embedding", "age_embedding", "start", "action_embedding")):
            parameter.zero_()
    for i, a in enumerate(mdp.bins):
        network.action_embedding[i, :a, i + 1] = torch.arange(a).float()
    logits = head.initial_logits(initial)
    network.q_head, network.mc_head = Table(states, mdp.bins, logits), Table(states, mdp.bins, logits)  # pyright: ignore[reportAttributeAccessIssue]
    network.policy_head = Table(states, mdp.bins, torch.zeros(1))  # pyright: ignore[reportAttributeAccessIssue]
    return network


def learned_q(network: QTransformer, mdp: MDP) -> np.ndarray:
    """The last dimension's value of every joint action in every state: what is comparable with the flat Q*."""
    states, actions = len(mdp.reward), torch.from_numpy(mdp.actions)
    context = nn.functional.pad(torch.arange(states).float()[:, None, None], (0, len(mdp.bins)))
    rows = [network(context[s : s + 1].expand(len(actions), -1, -1), actions) for s in range(states)]
    return torch.stack([row.q_values[:, -1].gather(1, actions[:, -1:])[:, 0] for row in rows]).detach().numpy()
