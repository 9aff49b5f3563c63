"""What a batch looks like this time: mirrored, shifted, in another light, with noise. All follows from the generator."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qtransformer.batch import Batch
from qtransformer.config import OptimConfig
from qtransformer.preprocess import images_to_float

Jitter = dict[str, Float[Tensor, "2 b 3"]]
"""Every camera's draw for `color_jitter`; empty where colours stay as they are."""


class Augmented(NamedTuple):
    """A batch as an update sees it."""

    batch: Batch
    jitter: Jitter
    """Colours wait until an image is about to be encoded (`as_seen`), for many images of a batch never are."""

    def to(self, device: torch.device) -> "Augmented":
        return Augmented(self.batch.to(device), {name: draw.to(device) for name, draw in self.jitter.items()})


def augment(
    batch: Batch, optim: OptimConfig, proprio_std: Float[Tensor, "p"], mirrored: Sequence[int], generator: torch.Generator
) -> Augmented:
    """The batch, mirrored, with shifted images and noisy proprioception, and how its colours are to be jittered.

    Args:
        batch: images uint8; best on the CPU.
        optim: how much of each.
        proprio_std: unit of the noise.
        mirrored: action dimensions that change sign in a mirror.
        generator: on the CPU.
    """
    if mirrored:
        batch = mirror(batch, torch.rand(len(batch.rewards), generator=generator) < 0.5, mirrored)
    shifted = {name: random_shift(x, optim.max_shift, generator) for name, x in batch.images.items()}
    jitter: Jitter = {}
    if optim.color_jitter:
        jitter = {name: draw_color_jitter(len(x), optim.color_jitter, generator) for name, x in shifted.items()}
    noise = torch.randn(batch.proprio.shape, generator=generator).to(batch.proprio.device) * proprio_std
    return Augmented(replace(batch, images=shifted, proprio=batch.proprio + optim.proprio_noise * noise), jitter)


def mirror(batch: Batch, flipped: Bool[Tensor, "b"], dims: Sequence[int]) -> Batch:
    """Some segments as a mirror shows them: images left to right, actions of the given dimensions negated."""
    flipped = flipped.to(batch.actions.device)
    images = {name: torch.where(flipped[:, None, None, None, None], x.flip(-2), x) for name, x in batch.images.items()}
    actions = batch.actions.clone()
    actions[..., list(dims)] *= torch.where(flipped, -1.0, 1.0)[:, None, None]
    return replace(batch, images=images, actions=actions)


def as_seen(images: dict[str, UInt8[Tensor, "b f h w c"]], jitter: Jitter) -> dict[str, Float[Tensor, "b f c h w"]]:
    """Images as the network takes them, their colours jittered."""
    seen = {name: images_to_float(x) for name, x in images.items()}
    return {name: color_jitter(x, jitter[name]) for name, x in seen.items()} if jitter else seen


def random_shift(images: UInt8[Tensor, "b f h w c"], max_shift: int, generator: torch.Generator) -> UInt8[Tensor, "b f h w c"]:
    """Shift every segment by its own whole number of pixels, edges repeated (DrQ's augmentation, one draw per segment).

    A shift of a wrist camera's image changes what the action in that image means: keep it to a pixel or two there.
    """
    if max_shift == 0:
        return images
    b, _, h, w, _ = images.shape
    shifts = torch.randint(-max_shift, max_shift + 1, (b, 2), generator=generator).tolist()
    shifted = torch.empty_like(images)
    # Whole rows are copied segment by segment: a gather with one index a pixel takes 20 times as long.
    for out, source, (down, right) in zip(shifted, images, shifts, strict=True):
        top, bottom, left, end = max(0, -down), h - max(0, down), max(0, -right), w - max(0, right)
        out[:, top:bottom, left:end] = source[:, top + down : bottom + down, left + right : end + right]
        out[:, top:bottom, :left] = out[:, top:bottom, left : left + 1]
        out[:, top:bottom, end:] = out[:, top:bottom, end - 1 : end]
        out[:, :top] = out[:, top : top + 1]
        out[:, bottom:] = out[:, bottom - 1 : bottom]
    return shifted


def draw_color_jitter(count: int, strength: float, generator: torch.Generator) -> Float[Tensor, "2 b 3"]:
    """Scale and offset of the colour channels for each of `count` segments: what a thing is does not depend on the lamp."""
    return (torch.rand(2, count, 3, generator=generator) * 2 - 1) * strength


def color_jitter(images: Float[Tensor, "b f c h w"], draw: Float[Tensor, "2 b 3"]) -> Float[Tensor, "b f c h w"]:
    """Colour channels of each row of images, scaled and offset by its own draw.

    Memory is channels-last: three factors would be looped over at every pixel, a row of them is one long product.
    """
    pixels = images.movedim(-3, -1)
    scale, offset = draw[:, :, None, None].to(images.device).repeat(1, 1, 1, 1, images.shape[-1])
    return (pixels.flatten(-2) * (1 + scale)).add_(offset).unflatten(-1, pixels.shape[-2:]).movedim(-1, -3)
