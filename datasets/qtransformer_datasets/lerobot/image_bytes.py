"""Images inside files: PNG out, PNG and JPEG in. What a header declares is checked before a pixel is decoded."""

import struct
import zlib

import cv2
import numpy as np

from qtransformer.errors import DatasetError

_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that carry the size of the image."""


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (h, w, 3) RGB as PNG, without loss."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise DatasetError(f"an image of shape {image.shape} cannot be encoded as PNG; check its size")
    return data.tobytes()


def decode_image(data: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
    """uint8 (h, w, 3) RGB. Refuses damaged images, and those of another size or with other channels than `shape`."""
    try:
        width, height = _png_size(data) if data.startswith(_PNG) else _jpeg_size(data)
    except (ValueError, IndexError, struct.error) as error:
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


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height; walks all chunks, because decoders let a bad checksum or a missing end pass as an image."""
    at, size = len(_PNG), None
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
            raise ValueError(f"wrong checksum of chunk {kind!r}")
        if size is None:
            size = struct.unpack_from(">II", data, at + 8)
        if kind == b"IEND":
            return size
        at += 12 + length


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height, from the first frame header."""
    if not data.startswith(b"\xff\xd8") or data.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise ValueError(f"starts with {data[:4]!r}, ends with {data[-2:]!r}")
    at = 2
    while True:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        if marker in _SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length
