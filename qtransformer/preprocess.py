"""From what a robot gives to what the network reads: the only implementation, for training, simulation and robot.

Images stay uint8 until they are on the device; scaling and augmentation run there, batched.
"""

import zlib
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
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
    b, f, h, w, c = images.shape
    shift: Int[Tensor, "b 2"] = torch.randint(-max_shift, max_shift + 1, (b, 2), generator=generator).to(images.device)
    rows = (torch.arange(h, device=images.device) + shift[:, :1]).clamp(0, h - 1)
    cols = (torch.arange(w, device=images.device) + shift[:, 1:]).clamp(0, w - 1)
    shifted = images.gather(2, rows[:, None, :, None, None].expand(b, f, h, w, c))
    return shifted.gather(3, cols[:, None, None, :, None].expand(b, f, h, w, c))


def color_jitter(images: Float[Tensor, "b f c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b f c h w"]:
    """Scale and shift the colour channels of every segment by its own draw: what a thing is does not depend on the lamp."""
    if strength == 0:
        return images
    draw = (torch.rand(2, len(images), 1, 3, 1, 1, generator=generator) * 2 - 1).to(images.device) * strength
    return images * (1 + draw[0]) + draw[1]
