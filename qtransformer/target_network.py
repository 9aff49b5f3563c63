"""The target network: a copy that follows slowly, and what it says of the states that steps lead to."""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import assert_never

from qtransformer.augmentation import Augmented
from qtransformer.batch import Batch
from qtransformer.config import Backup, Bootstrap, TargetConfig
from qtransformer.frame_encoder import FrameEncoder, numbered
from qtransformer.models.q_transformer import QOutput, QTransformer
from qtransformer.targets import NStep


class Contexts(NamedTuple):
    """What the target network is told of the states that targets ask for; every frame of them is encoded once."""

    batch: Batch
    states: Int[Tensor, "k"]
    """Frames numbered through all segments (`numbered`), in rising order."""
    windows: Float[Tensor, "k s e"]
    """The history of each."""

    def of(self, states: Int[Tensor, "m"]) -> Float[Tensor, "m s e"]:
        """Windows of some of the states."""
        return self.windows[torch.searchsorted(self.states, states)]


class TargetNetwork:
    """Values to bootstrap from.

    Args:
        online: the network that learns; it is copied.
        config: how targets are made.
        encoder: of frames.
    """

    def __init__(self, online: QTransformer, config: TargetConfig, encoder: FrameEncoder) -> None:
        self.network, self._config, self._encoder = copy.deepcopy(online).requires_grad_(False), config, encoder

    @torch.no_grad()
    def follow(self, online: QTransformer) -> None:
        """Move towards the online network."""
        follow(self.network.parameters(), online.parameters(), self._config.target_rate)

    def encode(self, seen: Augmented, ahead: NStep) -> Contexts:
        """The states that are bootstrapped from and, where each dimension backs up from the next one, the steps' own."""
        batch = seen.batch
        match self._config.backup:
            case Backup.n_step:
                states = _states_ahead(batch, ahead)
            case Backup.bellman:
                states = torch.cat([_states_ahead(batch, ahead), _of_steps(batch)])
            case unknown:
                assert_never(unknown)
        states = states.unique()
        return Contexts(batch, states, self._encoder.windows_of(self.network, seen, states))

    def next_probs(self, contexts: Contexts, ahead: NStep, generator: torch.Generator) -> Float[Tensor, "k v"]:
        """Representation of the value of the state that each step bootstraps from; of 0 where it does not."""
        bootstraps = _bootstraps(ahead)
        states, place = _states_ahead(contexts.batch, ahead).unique(return_inverse=True)
        next_probs = self.network.value_head.to_probs(torch.zeros(bootstraps.numel(), device=bootstraps.device))
        if len(states):
            next_probs[bootstraps.flatten()] = self._state_values(contexts, states, generator)[place]
        return next_probs

    def values(self, contexts: Contexts, bins: Int[Tensor, "k n"]) -> tuple[QOutput, Bool[Tensor, "k n a"]]:
        """Values of every bin at the logged prefixes, and which bins may be chosen from."""
        output = self.network(contexts.of(_of_steps(contexts.batch)), bins)
        return output, self.network.allowed(output.policy_logits, self._mask)

    @property
    def _mask(self) -> float:
        return self._config.behavior_mask if self._config.mask_bootstrap else 0.0

    def _state_values(self, contexts: Contexts, states: Int[Tensor, "k"], generator: torch.Generator) -> Float[Tensor, "k v"]:
        """Representation of the value of states: of what the policy would do there, if `targets.bootstrap` says nothing else."""
        context = contexts.of(states)
        match self._config.bootstrap:
            case Bootstrap.logged:
                bins = self.network.tokenizer.encode(contexts.batch.actions).flatten(0, 1)[states]
                return self.network.value_probs(context, bins)
            case Bootstrap.first:
                return self.network.greedy(context, self._mask, dims=1).chosen_probs[:, -1]
            case Bootstrap.chain if self._config.proposals and self._config.mask_bootstrap:
                proposals = self._config.bootstrap_proposals or self._config.proposals
                return self.network.propose(context, proposals, self._mask, generator)[1]
            case Bootstrap.chain:
                return self.network.greedy(context, self._mask).chosen_probs[:, -1]
            case unknown:
                assert_never(unknown)


@torch.no_grad()
def follow(slow: Iterable[nn.Parameter], fast: Iterable[nn.Parameter], rate: float) -> None:
    """Move weights a share of the way towards others."""
    torch._foreach_lerp_(list(slow), list(fast), rate)  # pyright: ignore[reportPrivateImportUsage]  # as torch.optim's own averages do


def _bootstraps(ahead: NStep) -> Bool[Tensor, "b t"]:
    """Steps whose target holds the value of a later state."""
    return (ahead.discounts > 0) & ahead.valid


def _states_ahead(batch: Batch, ahead: NStep) -> Int[Tensor, "m"]:
    """Numbers of the frames they are bootstrapped from, one for each such step."""
    return numbered(batch, ahead.frame)[_bootstraps(ahead)]


def _of_steps(batch: Batch) -> Int[Tensor, "k"]:
    """Numbers of the steps' own frames."""
    return numbered(batch, batch.step_frames).flatten()
