"""From what a robot gives to what the network reads: the only implementation, for training, simulation and robot.

Images stay uint8 until they are on the device; scaling runs there, batched.
"""

import zlib
from itertools import pairwise

import numpy as np
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
