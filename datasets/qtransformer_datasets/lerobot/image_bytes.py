"""Images inside files: PNG out, PNG and JPEG in. What a header declares is checked before a pixel is decoded."""

import struct
import zlib

import cv2
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.image_header import JPEG, PNG, declared_size


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (h, w, 3) RGB as PNG, without loss."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise DatasetError(f"an image of shape {image.shape} cannot be encoded as PNG; check its size")
    return data.tobytes()


def decode_image(data: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
    """uint8 (h, w, 3) RGB. Refuses damaged images, and those of another size or with other channels than `shape`."""
    try:
        height, width = _size_of_whole(data)
    except (ValueError, struct.error) as error:
        raise DatasetError(
            f"{where}: expected a PNG or JPEG image, found damage ({error}); restore it, or remove the episode"
        ) from error
    if (height, width) != shape[:2]:
        raise DatasetError(
            f"{where}: expected an image of {shape[0]} x {shape[1]}, found {height} x {width}; correct the feature's shape"
        )
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DatasetError(f"{where}: expected a PNG or JPEG image, found damage; restore it, or remove the episode")
    if image.dtype != np.uint8 or image.shape != shape:
        kind = {1: "grey", 4: "RGBA"}.get(1 if image.ndim == 2 else image.shape[2], "other")
        raise DatasetError(
            f"{where}: expected uint8 RGB, found {kind} {image.dtype}; convert it, or leave this camera out (cameras=...)"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size_of_whole(data: bytes) -> tuple[int, int]:
    """(height, width) of an image that is all there: decoders let a bad checksum or a missing end pass as an image."""
    if data.startswith(PNG):
        _check_chunks(data)
    elif not data.startswith(JPEG) or data.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise ValueError(f"starts with {data[:4]!r}, ends with {data[-2:]!r}")
    return declared_size(data)


def _check_chunks(data: bytes) -> None:
    """Walk a PNG to its end."""
    at, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
            raise ValueError(f"wrong checksum of chunk {kind!r}")
        at += 12 + length
