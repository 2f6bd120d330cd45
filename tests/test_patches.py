from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

from sg.errors import InputError
from sg.patches import ROW, PatchCache, write_cache
from tests.hand_made import name, noise

SIZE = (4, 8, 8)


def rows(count: int) -> np.ndarray:
    table = np.zeros(count, ROW)
    table["pattern"] = np.arange(count) // 3
    table["scan"] = [name(i).encode() for i in range(count)]
    table["corner"] = np.arange(count)[:, None]
    table["extent"] = SIZE
    return table


def write(path: Path, patches: np.ndarray, compression: str = "none", order=None) -> Path:
    order = range(len(patches)) if order is None else order
    write_cache(
        path,
        rows(len(patches)),
        ((i, patches[i]) for i in order),
        hu_min=-1000,
        hu_max=1000,
        patterns=7,
        patch_size=patches.shape[1:],
        compression=compression,
    )
    return path


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_patches_and_rows_read_back_as_they_were_written(tmp_path, compression):
    patches = noise(1, (20, *SIZE))
    cache = PatchCache(write(tmp_path / "c.h5", patches, compression))
    np.testing.assert_array_equal(cache.read(range(20)), patches)
    np.testing.assert_array_equal(cache.read([7, 7, 0]), patches[[7, 7, 0]])
    np.testing.assert_array_equal(cache.rows, rows(20))
    assert (cache.patch_size, cache.hu_min, cache.hu_max, cache.patterns, len(cache)) == (
        SIZE,
        -1000,
        1000,
        7,
        20,
    )


def test_reading_fills_a_given_buffer_and_copies_nothing(tmp_path):
    patches = noise(2, (5, *SIZE))
    cache = PatchCache(write(tmp_path / "c.h5", patches))
    buffer = np.empty((2, *SIZE), np.int16)
    assert cache.read([4, 1], buffer) is buffer
    np.testing.assert_array_equal(buffer, patches[[4, 1]])
    assert cache.read([], buffer[:0]).shape == (0, *SIZE)
    for wrong in (buffer[:1], buffer.astype(np.int32), np.empty((2, 4, 8, 16), np.int16)[..., ::2]):
        with pytest.raises(ValueError, match="out must be int16"):
            cache.read([4, 1], wrong)


@pytest.mark.parametrize("index", [-1, 5])
def test_a_row_that_there_is_not_is_an_index_error(tmp_path, index):
    cache = PatchCache(write(tmp_path / "c.h5", noise(2, (5, *SIZE))))
    with pytest.raises(IndexError, match="rows are 0 to 4"):
        cache.read([0, index])


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_the_same_patches_in_the_same_order_are_the_same_bytes(tmp_path, compression):
    patches = noise(3, (9, *SIZE))
    order = [3, 1, 0, 2, 8, 7, 4, 5, 6]
    a, b = (write(tmp_path / f"{i}.h5", patches, compression, order) for i in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_a_cache_may_be_empty(tmp_path):
    cache = PatchCache(write(tmp_path / "c.h5", np.zeros((0, *SIZE), np.int16)))
    assert (len(cache), cache.read([]).shape) == (0, (0, *SIZE))


def test_every_row_needs_a_patch_and_no_patch_comes_twice(tmp_path):
    patches = noise(1, (3, *SIZE))
    with pytest.raises(ValueError, match="3 rows, but 2 patches"):
        write(tmp_path / "a.h5", patches, order=[0, 2])
    with pytest.raises(ValueError, match="patch 1: must be new"):
        write(tmp_path / "b.h5", patches, order=[0, 1, 1])
    with pytest.raises(ValueError, match="int16"):
        write(tmp_path / "c.h5", patches.astype(np.float32))


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_64_zeroed_bytes_anywhere_are_named_and_never_returned(tmp_path, compression):
    patches = noise(4, (40, *SIZE))
    path = write(tmp_path / "c.h5", patches, compression)
    whole = path.read_bytes()
    rng = np.random.default_rng(6)
    named = whole_still = 0
    for trial in range(60):
        at = int(rng.integers(len(whole) - 64))
        damaged = tmp_path / f"damaged-{trial}.h5"
        damaged.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        cache = PatchCache(damaged)
        try:
            table = cache.rows
            np.testing.assert_array_equal(table, rows(40))
            for i in range(40):
                np.testing.assert_array_equal(cache.read([i])[0], patches[i])
            assert (cache.patch_size, cache.hu_min, cache.hu_max, cache.patterns) == (SIZE, -1000, 1000, 7)
        except InputError as found:
            error = str(found)
            named += str(damaged) in error and (
                "patch of row" not in error or f"row {i} (scan {name(i)}" in error
            )
            continue
        whole_still += 1
    assert named + whole_still == 60
    assert named > 50  # the others hit bytes that hold nothing


def test_the_patches_beside_a_damaged_one_can_still_be_read(tmp_path):
    patches = noise(5, (6, *SIZE))
    path = write(tmp_path / "c.h5", patches)
    whole = path.read_bytes()
    at = whole.index(patches[3].tobytes())
    path.write_bytes(whole[: at + 100] + bytes(64) + whole[at + 164 :])
    cache = PatchCache(path)
    with pytest.raises(
        InputError, match=r"the patch of row 3 \(scan 000000000003, corner \[3, 3, 3\]\) is damaged"
    ):
        cache.read([2, 3])
    np.testing.assert_array_equal(cache.read([2, 4]), patches[[2, 4]])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.999])
def test_a_cache_cut_off_anywhere_is_an_input_error(tmp_path, share):
    path = write(tmp_path / "c.h5", noise(4, (40, *SIZE)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"c\.h5"):
        len(PatchCache(path))
    with pytest.raises(InputError, match=r"c\.h5"):
        PatchCache(path).read([0])


def test_a_missing_file_and_one_that_is_no_cache_are_input_errors(tmp_path):
    from sg.storage import create_h5, write_array

    with pytest.raises(InputError, match=r"c\.h5: there is no such file"):
        PatchCache(tmp_path / "c.h5").read([0])
    with create_h5(tmp_path / "other.h5") as file:
        write_array(file, "patches", np.zeros((2, *SIZE), np.float32))
        write_array(file, "rows", rows(2))
        file.attrs["patch_size"] = SIZE
    with pytest.raises(InputError, match=r"patches must be int16 along 4 axes, got float32 \(2, 4, 8, 8\)"):
        len(PatchCache(tmp_path / "other.h5"))
    with create_h5(tmp_path / "plain.h5") as file:
        write_array(file, "patches", np.zeros((2, *SIZE), np.int16))
        write_array(file, "rows", rows(2))
        file.attrs["patch_size"] = SIZE
        file.attrs["hu_min"], file.attrs["hu_max"], file.attrs["patterns"] = -1000, 1000, 1
    with pytest.raises(InputError, match="a checksum of its own"):
        len(PatchCache(tmp_path / "plain.h5"))


def test_a_cache_opened_before_a_fork_reads_in_parent_and_children(tmp_path):
    patches = noise(7, (64, *SIZE))
    cache = PatchCache(write(tmp_path / "c.h5", patches))
    cache.read([0])
    children = []
    for child in range(4):
        process = os.fork()
        if process == 0:
            order = np.random.default_rng(child).permutation(64).repeat(20)
            os._exit(0 if (cache.read(order) == patches[order]).all() else 1)
        children.append(process)
    for _ in range(50):
        np.testing.assert_array_equal(cache.read(range(64)), patches)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_a_cache_goes_to_another_process_by_its_path_alone(tmp_path):
    patches = noise(8, (4, *SIZE))
    cache = PatchCache(write(tmp_path / "c.h5", patches))
    cache.read([0])
    copy = pickle.loads(pickle.dumps(cache))
    cache.close()
    np.testing.assert_array_equal(copy.read([3]), patches[[3]])
    np.testing.assert_array_equal(cache.read([3]), patches[[3]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows["pattern"], r"rows must be a table along 1 axis, got int32 \(3,\)"),
        (lambda rows: rows[:, None], r"rows must be a table along 1 axis, got a table \(3, 1\)"),
        (
            lambda rows: repack_fields(rows[["pattern", "rank"]]),
            "must have resolution <i4, .*, got no resolution, .*, no extent;",
        ),
        (
            lambda _: np.zeros(3, [*ROW.descr[:-1], ("extent", "<i4", 2)]),
            r"`rows` must have extent <i4 \(3,\), got extent <i4 \(2,\);",
        ),
        (
            lambda rows: repack_fields(rows[[*ROW.names[1:], "pattern"]]),
            "must have the fields pattern, rank, .* in this order, got rank, resolution, .* pattern;",
        ),
    ],
)
def test_rows_that_are_another_table_are_named_by_what_differs(tmp_path, change, words):
    path = write(tmp_path / "c.h5", noise(1, (3, *SIZE)))
    with h5py.File(path, "r+") as file:
        del file["rows"]
        file["rows"] = change(rows(3))
    with pytest.raises(InputError, match=words):
        len(PatchCache(path))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("patch_size", 8, "patch_size must be 3 whole numbers, got "),
        ("patch_size", [4.0, 8.0, 8.0], "patch_size must be 3 whole numbers, got "),
        ("hu_min", "low", "hu_min must be a number, got 'low'"),
        ("hu_max", [1.0, 2.0], "hu_max must be a number, got "),
        ("hu_max", -1000.0, "hu_min must be less than hu_max, both finite, got -1000 and -1000"),
        ("patterns", 1.5, "patterns must be a whole number, got "),
        ("patterns", -1, "patterns must be at least 0 .* got -1 and 4 x 8 x 8"),
    ],
)
def test_what_a_cache_says_of_itself_must_be_possible(tmp_path, name, value, words):
    path = write(tmp_path / "c.h5", noise(1, (3, *SIZE)))
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=rf"c\.h5: {words}"):
        len(PatchCache(path))
