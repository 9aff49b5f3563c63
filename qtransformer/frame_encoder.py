"""Frames of a batch to tokens, as an update sees them: jittered, and where it pays in bfloat16."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import assert_never

from qtransformer.augmentation import Augmented, as_seen
from qtransformer.batch import Batch
from qtransformer.config import Precision
from qtransformer.models.q_transformer import QTransformer, window_index


class FrameEncoder:
    """The one part of an update that may be computed in bfloat16: convolutions are most of its work, and what follows decides
    between values that differ by less than bfloat16 can tell."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.device = device
        self.in_bfloat16 = _in_bfloat16(precision, device)

    def windows_of_steps(self, network: QTransformer, seen: Augmented) -> Float[Tensor, "k s e"]:
        """History windows of all steps of the batch's segments, k of them."""
        batch = seen.batch
        frames = slice(batch.lead + batch.steps)
        images = as_seen({name: x[:, frames] for name, x in batch.images.items()}, seen.jitter)
        remembered = None if batch.remembered is None else batch.remembered[:, frames]
        tokens = self._encode(network, images, batch.proprio[:, frames], batch.instruction[:, frames], remembered)
        return network.windows(tokens, batch.episode_start[:, frames], batch.lead, batch.steps)

    def windows_of(self, network: QTransformer, seen: Augmented, states: Int[Tensor, "k"]) -> Float[Tensor, "k s e"]:
        """History windows of some frames of the batch, numbered through all segments (`numbered`).

        It encodes no frame but those the windows hold: most are of no use to any target, since returns end on the way.
        """
        batch, length = seen.batch, seen.batch.rewards.shape[1]
        start = states - states % length + batch.episode_start.flatten()[states]
        frames, place = window_index(states, start, network.config.history).unique(return_inverse=True)
        images = as_seen(
            {name: x.flatten(0, 1).index_select(0, frames)[:, None] for name, x in batch.images.items()},
            {name: draw[:, frames // length] for name, draw in seen.jitter.items()},
        )
        proprio, instruction = (x.flatten(0, 1)[frames][:, None] for x in (batch.proprio, batch.instruction))
        remembered = None if batch.remembered is None else batch.remembered.flatten(0, 1)[frames][:, None]
        return network.add_age(self._encode(network, images, proprio, instruction, remembered)[:, 0][place])

    def _encode(
        self,
        network: QTransformer,
        images: dict[str, Float[Tensor, "b f c h w"]],
        proprio: Float[Tensor, "b f p"],
        instruction: Float[Tensor, "b f d"],
        remembered: Float[Tensor, "b f m p"] | None,
    ) -> Float[Tensor, "b f s e"]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            return network.encode_frames(images, proprio, instruction, remembered).float()


def _in_bfloat16(precision: Precision, device: torch.device) -> bool:
    match precision:
        case Precision.auto:
            return computes_in_bfloat16(device)
        case Precision.float32:
            return False
        case Precision.bfloat16:
            return True
        case unknown:
            assert_never(unknown)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there; processors that only emulate it are slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def numbered(batch: Batch, frame: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Frames of each segment, numbered through all segments of the batch."""
    rows, length = batch.rewards.shape
    return frame + length * torch.arange(rows, device=frame.device)[:, None]
