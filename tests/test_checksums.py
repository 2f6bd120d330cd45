"""The checksum against HDF5's own, which stores it behind every block."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg.checksums import copied_fletcher32


def stored_by_hdf5(words: np.ndarray) -> int:
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset("x", data=words, chunks=words.shape, fletcher32=True)
        file.flush()
        _, block = made.id.read_direct_chunk((0,))
        return int.from_bytes(block[-4:], "little")


def ours(words: np.ndarray, before: int = 0) -> int:
    source = np.frombuffer(b"x" * before + words.tobytes() + b"behind", np.uint8)
    target = np.full((1, len(words)), 7, np.int16)
    ((total, stored),) = copied_fletcher32(source, np.array([before]), target).tolist()
    np.testing.assert_array_equal(target[0], words)
    assert stored == int.from_bytes(b"behi", "little")
    return total


def test_the_sum_of_three_words_worked_by_hand():
    # big-endian words 1, 2, 0xFFFF: 1, 3, then 65538 -> 3; sums 1, 4, then 65542 -> 7
    words = np.frombuffer(b"\0\1\0\2\xff\xff", "<i2")
    assert ours(words) == 7 << 16 | 3


@pytest.mark.parametrize("value", [0, -1, 1, 256, 32767, -32768, -1000])
@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 359, 361, 65535, 65536, 2**20, 2**20 + 1])
def test_constant_blocks_have_the_sum_that_hdf5_stores(value, count):
    words = np.full(count, value, np.int16)
    assert ours(words) == stored_by_hdf5(words)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 3000),
    st.sampled_from([(-32768, 32768), (-1000, 1001), (-1, 1), (0, 2), (32766, 32768)]),
)
def test_any_block_has_the_sum_that_hdf5_stores(seed, count, limits):
    words = np.random.default_rng(seed).integers(*limits, count, np.int16)
    assert ours(words) == stored_by_hdf5(words)


def test_a_block_of_the_largest_size_has_the_sum_that_hdf5_stores():
    words = np.full(2**25, -2, np.int16)  # 64 MiB of nearly the largest words
    assert ours(words) == stored_by_hdf5(words)


@pytest.mark.parametrize("before", [1, 2, 3, 64, 101])
def test_a_block_at_any_place_has_the_same_sum(before):
    words = np.random.default_rng(0).integers(-1000, 1001, 999, np.int16)
    assert ours(words, before) == stored_by_hdf5(words)


def test_several_blocks_are_copied_each_to_its_own_row():
    words = np.random.default_rng(0).integers(-1000, 1001, (5, 300), np.int16)
    order = np.array([3, 3, 0])
    targets = np.empty((3, 300), np.int16)
    sums = copied_fletcher32(words.reshape(-1).view(np.uint8), order * 600, targets)
    np.testing.assert_array_equal(targets, words[order])
    assert sums[:, 0].tolist() == [stored_by_hdf5(words[i]) for i in order]


@pytest.mark.parametrize(("there", "stored"), [(0, -1), (3, -1), (4, 0xFFFEFDFC), (9, 0xFFFEFDFC)])
def test_the_sum_behind_a_block_is_read_unless_the_source_ends_before(there, stored):
    words = np.arange(300, dtype=np.int16)
    behind = bytes([0xFC, 0xFD, 0xFE, 0xFF, 1, 2, 3, 4, 5])[:there]
    source = np.frombuffer(words.tobytes() + behind, np.uint8)
    sums = copied_fletcher32(source, np.zeros(1, np.int64), np.empty((1, 300), np.int16))
    assert sums.tolist() == [[stored_by_hdf5(words), stored]]
