"""The sizes that a parquet file declares, read from its footer in plain Python.

The library offers them too, but ends the whole process where a damaged footer contradicts itself. The footer is one struct in
Thrift's compact encoding; only four of its numbers are wanted, the rest is walked over.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

MAX_FOOTER_BYTES = 1 << 26
_ROWS, _GROUPS = 3, 4
_COLUMNS, _COLUMN_META = 1, 3
_VALUES, _UNCOMPRESSED = 5, 6
"""Numbers of the fields in parquet's FileMetaData, RowGroup, ColumnChunk and ColumnMetaData."""


class DeclaredSizes(NamedTuple):
    rows: int
    bytes: int
    """After decompression, and at eight bytes for every value that is not stored but repeated."""


def declared_sizes(path: Path) -> DeclaredSizes:
    """ValueError, IndexError or KeyError where the footer is damaged."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= min(end, MAX_FOOTER_BYTES):
            raise ValueError(f"a footer of {length} bytes")
        file.seek(end - length)
        footer = _Compact(file.read(length)).struct()
    columns = [chunk[_COLUMN_META] for group in footer[_GROUPS] for chunk in group[_COLUMNS]]
    return DeclaredSizes(footer[_ROWS], sum(max(column[_UNCOMPRESSED], 8 * column[_VALUES]) for column in columns))


class _Compact:
    """A cursor over bytes in the compact encoding. Every element takes a byte or more, so damage cannot make it endless."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while header := self.byte():
            number = number + (header >> 4) if header >> 4 else self.integer()
            kind = header & 15
            fields[number] = kind == 1 if kind in (1, 2) else self.value(kind)
        return fields

    def value(self, kind: int) -> Any:
        if kind in (1, 2, 3):  # outside of structs a truth value takes a byte
            return self.byte()
        if kind in (4, 5, 6):
            return self.integer()
        if kind in (7, 8):
            size = 8 if kind == 7 else self.varint()
            self.at += size
            return None
        if kind in (9, 10):
            header = self.byte()
            count = header >> 4 if header >> 4 < 15 else self.varint()
            return [self.value(header & 15) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"a footer with a field of kind {kind}")  # maps, too: parquet has none

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a footer with a number of more than ten bytes")

    def integer(self) -> int:
        """Zigzag: 0, -1, 1, -2, ..."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)
