"""Rows in several arrays are read as if they lay in one."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer_datasets.stream.image_rows import Buffers, ImageRows, joined_crc32

ROWS = np.random.default_rng(0).integers(0, 256, (40, 2, 3, 3), np.uint8)


def cut(*places: int) -> ImageRows:
    parts = np.split(ROWS, sorted(places))
    return ImageRows(parts, [None] * len(parts))


cuts = st.lists(st.integers(0, 40), max_size=4)


@settings(max_examples=80, deadline=None)
@given(places=cuts, index=st.lists(st.lists(st.integers(0, 39), min_size=4, max_size=4), max_size=5))
def test_gathering_is_indexing(places, index):
    index = np.array(index, np.int64).reshape(-1, 4)
    assert np.array_equal(cut(*places).gather(index), ROWS[index])


@settings(max_examples=80, deadline=None)
@given(places=cuts, rows=st.slices(40).filter(lambda rows: (rows.step or 1) > 0))
def test_slicing_is_slicing(places, rows):
    assert np.array_equal(cut(*places)[rows], ROWS[rows])


def test_rows_within_one_array_are_not_copied():
    rows = cut(20)
    assert np.shares_memory(rows[3:9], ROWS)
    assert np.shares_memory(rows[20:40], ROWS)
    assert not np.shares_memory(rows[19:21], ROWS)
    assert rows.shape == ROWS.shape


@settings(max_examples=60, deadline=None)
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_checksums_join(first, second):
    assert joined_crc32(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_a_checksum_that_is_known_is_believed_and_others_are_computed():
    whole = zlib.crc32(ROWS.data)
    assert cut().crc32() == cut(1, 7, 7, 39).crc32() == whole
    parts = np.split(ROWS, [10])
    assert ImageRows(parts, [zlib.crc32(parts[0].copy().data), None]).crc32() == whole
    assert ImageRows(parts, [123, None]).crc32() != whole
    assert not ImageRows(parts, [123, None]).is_whole()
    assert cut(3).is_whole()


@pytest.mark.parametrize("held", [0, 1, 9])
def test_buffers_are_lent_again_once_they_are_let_go(held):
    buffers = Buffers((2, 2))
    kept = [buffers.take() for _ in range(held)]
    views = [buffer[:1] for buffer in kept]
    del kept
    for i, view in enumerate(views):
        view[:] = i
    first = buffers.take()
    where = first.ctypes.data
    first[:] = 255
    del first
    assert buffers.take().ctypes.data == where
    assert [int(view[0, 0]) for view in views] == list(range(held))
