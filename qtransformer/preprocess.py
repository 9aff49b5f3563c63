"""From what a robot gives to what the network reads: the only implementation, for training, simulation and robot.

Images stay uint8 until they are on the device; scaling and augmentation run there, batched.
"""

import zlib
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

INSTRUCTION_DIM = 64
"""Width of the hashed instruction features."""


def encode_instruction(text: str) -> Float[np.ndarray, "d"]:
    """A bag of hashed words and word pairs: a fixed, download-free embedding that tells instructions apart.

    Each n-gram sets one of `INSTRUCTION_DIM` places to +1 or -1 (signed feature hashing), then the vector is scaled to length 1.
    The empty instruction is the zero vector.
    """
    words = text.lower().split()
    features = np.zeros(INSTRUCTION_DIM, np.float32)
    for gram in words + [f"{a} {b}" for a, b in pairwise(words)]:
        code = zlib.crc32(gram.encode())
        features[code % INSTRUCTION_DIM] += 1.0 if code & (1 << 31) else -1.0
    norm = float(np.linalg.norm(features))
    return features / norm if norm > 0 else features


def images_to_float(images: UInt8[Tensor, "*b h w c"]) -> Float[Tensor, "*b c h w"]:
    """uint8 RGB to float32 in [-1, 1]. The channel axis moves in name only: memory stays channels-last, as convolutions like it."""
    return images.movedim(-1, -3).float().div_(127.5).sub_(1.0)


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
    """Colour channels of each row of images, scaled and offset by its own draw."""
    scale, offset = draw[:, :, None, :, None, None].to(images.device)
    return images * (1 + scale) + offset
