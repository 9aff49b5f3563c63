"""What images say of their size, whoever stores them."""

import cv2
import numpy as np
import pytest

from qtransformer_datasets.episodes.image_header import declared_size

IMAGE = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)


def encoded(kind: str, *options: int) -> bytes:
    return cv2.imencode(kind, IMAGE, options)[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        encoded(".png"),
        encoded(".jpg"),
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
        encoded(".jpg").replace(b"\xff\xc0", b"\xff\xff\xc0", 1),
    ],
    ids=["PNG", "JPEG", "progressive JPEG", "fill bytes before a segment", "a fill byte before the frame"],
)
def test_height_and_width_are_told(data: bytes) -> None:
    assert declared_size(data) == declared_size(memoryview(data)) == (48, 64)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "bytes b''"),
        (encoded(".png")[:24], "within its own header"),
        (encoded(".jpg")[:30], "within its own header"),
        (b"\xff\xd8\xff\xe0\x00\x10" + bytes(20), "not a valid JPEG: no marker at byte 20"),
    ],
)
def test_what_is_no_image_is_told(data: bytes, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        declared_size(data)
