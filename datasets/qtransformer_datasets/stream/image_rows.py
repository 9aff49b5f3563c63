"""The images of one camera, wherever they lie: in memory, in memory-mapped files, or end to end in several of either."""

import itertools
import math
import weakref
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0xEDB88320
"""Of CRC-32, lowest power in the highest bit."""


class ImageRows:
    """uint8 (N, h, w, 3), RGB, end to end over one or several arrays, which are not copied.

    `crc32s` holds the CRC-32 of each array's bytes, or None where nobody has read them yet.
    """

    def __init__(self, parts: Sequence[np.ndarray], crc32s: Sequence[int | None]) -> None:
        self.mapped = any(isinstance(part, np.memmap) for part in parts)
        """Whether a row may have to come from a disk."""
        self._parts = [part.view(np.ndarray) for part in parts]  # slices of a memmap are slow to make
        self._crc32s = list(crc32s)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @classmethod
    def joined(cls, rows: Sequence["ImageRows"]) -> "ImageRows":
        joined = cls([p for r in rows for p in r._parts], [c for r in rows for c in r._crc32s])
        joined.mapped = any(r.mapped for r in rows)
        return joined

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._parts[0].shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Consecutive rows; a view where one array holds them all."""
        start, stop, step = rows.indices(len(self))
        part = int(np.searchsorted(self._starts, start, "right")) - 1
        if step == 1 and part < len(self._parts) and stop <= self._starts[part + 1]:
            return self._parts[part][start - self._starts[part] : stop - self._starts[part]]
        return self.gather(np.arange(start, stop, step))

    def gather(self, index: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        """The rows at the given places, `index.shape + (h, w, 3)`, in a new array or in `into`."""
        into = np.empty((*index.shape, *self.shape[1:]), np.uint8) if into is None else into
        places, rows = index.reshape(-1), into.reshape(-1, *self.shape[1:])
        for part, begin, end in self._runs(places):
            own = places[begin:end] - self._starts[part]
            # Under "raise", take would fill an array of its own first and copy that.
            self._parts[part].take(own, axis=0, out=rows[begin:end], mode="clip")
        return into

    def _runs(self, places: np.ndarray) -> list[tuple[int, int, int]]:
        """Runs of places within one array: which array, first place, the one after the last."""
        if len(self._parts) == 1:
            return [(0, 0, len(places))]
        parts = np.searchsorted(self._starts, places, "right") - 1
        bounds = np.flatnonzero(np.diff(parts, prepend=-1, append=-1)).tolist()
        return [(int(parts[begin]), begin, end) for begin, end in itertools.pairwise(bounds)]

    def crc32(self) -> int:
        """CRC-32 of all bytes; only arrays of which it is not known are read."""
        total = 0
        for i, part in enumerate(self._parts):
            known = self._crc32s[i]
            crc = self._crc32s[i] = zlib.crc32(part.data) if known is None else known
            total = joined_crc32(total, crc, part.nbytes)
        return total

    def is_whole(self) -> bool:
        """Whether all bytes, read again, still have the CRC-32 that is known of them."""
        return all(known is None or zlib.crc32(part.data) == known for part, known in zip(self._parts, self._crc32s, strict=True))


class Buffers:
    """Arrays of one shape, handed out again once nobody holds them: memory fresh from the system costs more than the copy.

    Ordinary memory, not pinned: a copy to a GPU has read it by the time it returns.
    """

    KEPT = 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape, self._free = shape, list[bytearray]()

    def take(self) -> np.ndarray:
        """A uint8 array of any content."""
        memory = self._free.pop() if self._free else bytearray(math.prod(self._shape))
        lent = np.frombuffer(memory, np.uint8)  # every view of it, and every tensor, keeps this array alive
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return lent.reshape(self._shape)

    def _take_back(self, memory: bytearray) -> None:
        if len(self._free) < self.KEPT:
            self._free.append(memory)


@lru_cache(maxsize=64)
def _shift(length: int) -> int:
    """x to the power of 8 * length, modulo the polynomial."""
    power, square = 1 << 31, 1 << 23
    while length:
        if length & 1:
            power = _product(power, square)
        square, length = _product(square, square), length >> 1
    return power


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the polynomial of CRC-32."""
    result = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            result ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


def joined_crc32(first: int, second: int, length: int) -> int:
    """CRC-32 of two byte strings end to end, from the CRC-32 of each and the length of the second."""
    return _product(first, _shift(length)) ^ second
