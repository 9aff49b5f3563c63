"""The target network: a copy that follows slowly, and what it says of the states that steps lead to."""

import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtransformer.augmentation import Augmented
from qtransformer.config import Bootstrap, TargetConfig
from qtransformer.frame_encoder import FrameEncoder, numbered
from qtransformer.models.q_transformer import QOutput, QTransformer
from qtransformer.targets import NStep


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
        for target, learned in zip(self.network.parameters(), online.parameters(), strict=True):
            target.lerp_(learned, self._config.target_rate)

    def next_probs(self, seen: Augmented, ahead: NStep, generator: torch.Generator) -> Float[Tensor, "k v"]:
        """Representation of the value of the state that each step bootstraps from; of 0 where it does not."""
        frames, head = numbered(seen.batch, ahead.frame), self.network.value_head
        bootstraps = (ahead.discounts > 0) & ahead.valid
        states, place = frames[bootstraps].unique(return_inverse=True)
        next_probs = head.to_probs(torch.zeros(frames.numel(), device=frames.device))
        if len(states):
            context = self._encoder.windows_of(self.network, seen, states)
            next_probs[bootstraps.flatten()] = self._state_values(seen, states, context, generator)[place]
        return next_probs

    def values(self, seen: Augmented, bins: Int[Tensor, "k n"]) -> tuple[QOutput, Bool[Tensor, "k n a"]]:
        """Values of every bin at the logged prefixes, and which bins may be chosen from."""
        steps = numbered(seen.batch, seen.batch.step_frames).flatten()
        output = self.network(self._encoder.windows_of(self.network, seen, steps), bins)
        return output, self.network.allowed(output.policy_logits, self._mask)

    @property
    def _mask(self) -> float:
        return self._config.behavior_mask if self._config.mask_bootstrap else 0.0

    def _state_values(
        self, seen: Augmented, states: Int[Tensor, "k"], context: Float[Tensor, "k s e"], generator: torch.Generator
    ) -> Float[Tensor, "k v"]:
        """Representation of the value of states, whose windows are `context`: of what the policy would do there, if
        `targets.bootstrap` says nothing else."""
        if self._config.bootstrap is Bootstrap.logged:
            return self.network.value_probs(context, self.network.tokenizer.encode(seen.batch.actions).flatten(0, 1)[states])
        if self._config.bootstrap is Bootstrap.first:
            return self.network.greedy(context, self._mask, dims=1).chosen_probs[:, -1]
        if self._config.proposals and self._config.mask_bootstrap:
            proposals = self._config.bootstrap_proposals or self._config.proposals
            return self.network.propose(context, proposals, self._mask, generator)[1]
        return self.network.greedy(context, self._mask).chosen_probs[:, -1]
