"""What is left of a broken bag, and sizes checked before anything is unpacked.

An MCAP file is a row of records (opcode, length, content) that can be walked from its beginning without the index at its
end, which a killed recorder never wrote; chunks are records that hold compressed records. A cut-off sqlite3 file still
gives the rows of the pages it has.
"""

import mmap
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lz4.frame

from qtransformer.errors import DatasetError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_CHUNK_BYTES = 1 << 30
"""What a chunk may declare to unpack to: it is held in memory. Recorders write chunks of about a megabyte."""
_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 3, 4, 5, 6
_CHUNK_HEAD = struct.Struct("<QQQI")  # first time, last time, unpacked size, CRC

SalvagedMessage = tuple[str, str, int, bytes]
"""Topic, ROS type, time of receipt [ns], content."""


def unpack_zstd(data: bytes, limit: int) -> bytes:
    """Raises DatasetError where more than `limit` bytes come out, before they do."""
    return _bounded(zstd.ZstdDecompressor(), data, limit)


def check_mcap(path: Path) -> None:
    """Raise a DatasetError if a chunk does not unpack to what it declares: readers believe that size."""
    with _mapped(path) as data:
        for opcode, begin, end in _records(data):
            if opcode == _CHUNK and _chunk_parts(data[begin:end])[0]:
                _unpack(data[begin:end])


def salvage_mcap(path: Path, damage: list[str]) -> Iterator[SalvagedMessage]:
    """Every readable message of an MCAP file in the order of writing; what is lost is noted in `damage`."""
    schemas, channels = dict[int, str](), dict[int, tuple[str, str]]()
    with _mapped(path) as data:
        end = len(_MAGIC)
        for opcode, begin, end in _records(data):
            if opcode != _CHUNK:
                yield from _message(opcode, data[begin:end], schemas, channels)
                continue
            try:
                yield from _chunk_messages(data[begin:end], schemas, channels)
            except Exception as error:  # one bad chunk of many: as in `bag_errors`, nearly any type
                damage.append(f"{path.name}: a chunk at byte {begin} is lost ({error})")
        if bytes(data[-len(_MAGIC) :]) != _MAGIC:
            damage.append(f"{path.name}: cut off after {end} bytes of whole records")
            rest = data[end + 9 :]
            if data[end : end + 1] == bytes([_CHUNK]) and not _chunk_parts(rest)[0]:
                yield from _chunk_messages(rest, schemas, channels)


def salvage_sqlite(path: Path, damage: list[str]) -> Iterator[SalvagedMessage]:
    """Every readable row of a sqlite3 bag in the order of writing; what is lost is noted in `damage`."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as database:
        database.execute("PRAGMA writable_schema = ON")  # reads a file shorter than its header says; nothing is written
        try:
            topics = {row[0]: row[1:] for row in database.execute("SELECT id, name, type FROM topics")}
            for topic, time, content in database.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED"):
                if topic in topics and isinstance(time, int) and isinstance(content, bytes):
                    yield *topics[topic], time, content
        except sqlite3.Error as error:
            damage.append(f"{path.name}: rows after a damaged page are lost ({error})")


def _chunk_messages(chunk: memoryview, schemas: dict[int, str], channels: dict[int, tuple[str, str]]) -> Iterator[SalvagedMessage]:
    content = _unpack(chunk)
    for opcode, begin, end in _records(content, 0):
        yield from _message(opcode, content[begin:end], schemas, channels)


def _message(
    opcode: int, record: memoryview, schemas: dict[int, str], channels: dict[int, tuple[str, str]]
) -> Iterator[SalvagedMessage]:
    try:
        if opcode == _SCHEMA:
            schemas[struct.unpack_from("<H", record)[0]] = _text(record, 2)[0]
        elif opcode == _CHANNEL:
            channel, schema = struct.unpack_from("<HH", record)
            channels[channel] = (_text(record, 4)[0], schemas.get(schema, ""))
        elif opcode == _MESSAGE:
            channel, _, time = struct.unpack_from("<HIQ", record)
            if channel in channels:
                yield *channels[channel], time, bytes(record[22:])
    except (struct.error, UnicodeDecodeError):
        return  # a record that is not what its opcode says; those after it may be


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DatasetError(f"{path}: expected MCAP, found other bytes; copy the file again")
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # unmapped with its last view


def _records(data: memoryview, position: int = len(_MAGIC)) -> Iterator[tuple[int, int, int]]:
    """(opcode, begin, end) of every whole record."""
    while position + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, position)
        position += 9
        if position + length > len(data):
            return
        yield opcode, position, position + length
        position += length


def _chunk_parts(chunk: memoryview) -> tuple[str, int, memoryview]:
    """Compression, declared size, packed content."""
    try:
        _, _, size, _ = _CHUNK_HEAD.unpack_from(chunk)
        compression, position = _text(chunk, _CHUNK_HEAD.size)
        (packed,) = struct.unpack_from("<Q", chunk, position)
    except (struct.error, UnicodeDecodeError) as error:
        raise DatasetError(f"a chunk's header is damaged ({error}); copy the file again") from error
    return compression, size, chunk[position + 8 : position + 8 + packed]


def _unpack(chunk: memoryview) -> memoryview:
    compression, size, packed = _chunk_parts(chunk)
    if size > MAX_CHUNK_BYTES:
        raise DatasetError(f"a chunk declares {size} bytes, more than {MAX_CHUNK_BYTES}; do not trust the file")
    if not compression:
        return packed
    kinds = {"zstd": zstd.ZstdDecompressor, "lz4": lz4.frame.LZ4FrameDecompressor}
    if compression not in kinds:
        raise DatasetError(f"a chunk is compressed by {compression!r}; only zstd and lz4 are read")
    content = _bounded(kinds[compression](), bytes(packed), size)
    if len(content) != size:
        raise DatasetError(f"a chunk declares {size} bytes, holds {len(content)}; copy the file again")
    return memoryview(content)


def _bounded(decompressor: Any, data: bytes, limit: int) -> bytes:
    content = decompressor.decompress(data, max_length=limit + 1)
    if len(content) > limit:
        raise DatasetError(f"compressed data unpacks to more than the {limit} bytes it may; do not trust the file")
    return content


def _text(record: memoryview, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", record, position)
    return bytes(record[position + 4 : position + 4 + length]).decode(), position + 4 + length
