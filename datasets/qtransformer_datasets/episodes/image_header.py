"""The size that a compressed image declares, read before anything of that size is allocated."""

import struct

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"


def declared_size(data: bytes | memoryview) -> tuple[int, int]:
    """(height, width) of a PNG or JPEG; a ValueError says what is found instead of one."""
    try:
        if bytes(data[: len(PNG)]) == PNG:
            width, height, _depth = struct.unpack_from(">IIB", data, 16)
            return height, width
        if bytes(data[: len(JPEG)]) == JPEG:
            return _jpeg_size(data)
    except struct.error as error:
        raise ValueError("one that ends within its own header") from error
    raise ValueError(f"bytes {bytes(data[:8])!r}")


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """From the frame header, SOF0 to SOF15; those three numbers in between are other segments."""
    position = len(JPEG)
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        if marker == 0xFFFF:  # a fill byte, of which any number may come before a marker (ITU-T T.81, B.1.1.2)
            position += 1
            continue
        if not 0xFF01 <= marker < 0xFFFF or length < 2:
            raise ValueError(f"not a valid JPEG: no marker at byte {position}")
        position += 2 + length
