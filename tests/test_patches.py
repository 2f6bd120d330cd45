from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import h5py
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

from sg.blocks import MappedFile
from sg.errors import InputError
from sg.patches import ROW, CacheWriter, PatchCache, write_cache
from sg.storage import create_h5, empty_array, filters, stored_blocks, write_array
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
    for trial in range(200):
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
    assert named + whole_still == 200
    assert named > 170  # the others hit bytes that hold nothing


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


# -------------------------------------------------------------------------------------- beside HDF5


def plainly(path: Path, patches: np.ndarray, order: list[int], most: int) -> Path:
    """A cache as HDF5 writes it by itself."""
    with create_h5(path) as file:
        made = empty_array(
            file,
            "patches",
            (most, *patches.shape[1:]),
            np.int16,
            chunks=(1, *patches.shape[1:]),
            fletcher32=True,
        )
        for index in order:
            made[index] = patches[index]
        if len(patches) < most:
            made.resize(len(patches), axis=0)
        write_array(file, "rows", rows(len(patches)), fletcher32=True)
        file.attrs["patch_size"] = np.array(patches.shape[1:], np.int64)
        file.attrs["hu_min"], file.attrs["hu_max"], file.attrs["patterns"] = -1000.0, 1000.0, 7
    return path


@pytest.mark.parametrize("size", [SIZE, (1, 1, 1), (3, 5, 7), (32, 64, 64)])
@pytest.mark.parametrize(("count", "most"), [(1, 1), (1, 3), (5, 5), (5, 9)])
def test_ready_blocks_make_the_file_that_hdf5_makes(tmp_path, size, count, most):
    patches = np.random.default_rng(0).integers(-32768, 32768, (count, *size), np.int16)
    order = np.random.default_rng(1).permutation(count).tolist()
    with CacheWriter(tmp_path / "ours.h5", most, size, "none") as writer:
        for index in order:
            # a patch need not lie in one piece
            writer.write(index, np.asfortranarray(patches[index]))
        writer.finish(rows(count), -1000, 1000, 7)
    theirs = plainly(tmp_path / "theirs.h5", patches, order, most)
    assert (tmp_path / "ours.h5").read_bytes() == theirs.read_bytes()
    np.testing.assert_array_equal(PatchCache(theirs).read(range(count)), patches)
    with h5py.File(tmp_path / "ours.h5") as file:
        np.testing.assert_array_equal(file["patches"][...], patches)


def blocks_of(path: Path) -> list[tuple[int, int]]:
    with h5py.File(path) as file:
        found: list[tuple[int, int]] = []
        file["patches"].id.chunk_iter(lambda block: found.append((block.byte_offset, block.size)))
    return found


def test_a_flipped_bit_in_any_byte_of_a_block_is_found_and_stays_nowhere(tmp_path):
    patches = noise(9, (3, *SIZE))
    path = write(tmp_path / "c.h5", patches)
    start, size = blocks_of(path)[1]
    whole = path.read_bytes()
    assert whole[start : start + size - 4] == patches[1].tobytes()
    buffer = np.empty((1, *SIZE), np.int16)
    for at in range(start, start + size):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        cache = PatchCache(path)
        with pytest.raises(InputError, match=r"c\.h5: the patch of row 1 \(scan 000000000001"):
            cache.read([1], buffer)
        assert not buffer.any()
        np.testing.assert_array_equal(cache.read([0, 2]), patches[[0, 2]])


def test_a_block_of_zeros_is_told_from_one_of_ones(tmp_path):
    """Both are 0 modulo 65535."""
    path = write(tmp_path / "c.h5", np.full((2, *SIZE), -1, np.int16))
    (start, size), _ = blocks_of(path)
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(size - 4) + content[start + size - 4 :])
    with pytest.raises(InputError, match=r"row 0 .* damaged"):
        PatchCache(path).read([0])


def test_a_checksum_of_swapped_bytes_is_not_taken(tmp_path):
    """HDF5 takes it, for files of its versions before 1.6.3; no cache is of those."""
    path = write(tmp_path / "c.h5", noise(9, (3, *SIZE)))
    start, size = blocks_of(path)[1]
    content = bytearray(path.read_bytes())
    a, b, c, d = content[start + size - 4 : start + size]
    content[start + size - 4 : start + size] = bytes([b, a, d, c])
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert file["patches"][1].any()
    with pytest.raises(InputError, match=r"row 1 .* damaged"):
        PatchCache(path).read([1])


class _Lying:
    """A data set whose blocks are not where they are; the file's own index has a checksum."""

    name = "/patches"

    def __init__(self, blocks: list[tuple[int, int, int, int]]) -> None:
        self.id, self._blocks = self, blocks

    def __len__(self) -> int:
        return 3

    def get_create_plist(self):
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 4))
        made.set_fletcher32()
        return made

    def chunk_iter(self, note) -> None:
        for row, offset, size, mask in self._blocks:
            note(h5py.h5d.StoreInfo((row, 0), mask, offset, size))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((0, 0, 12, 0), ""),
        ((1, 90, 12, 0), "every block must lie in the file's 100 bytes, got that of row 1 at 90 with 12"),
        ((1, 2**63 + 5, 12, 0), "got that of row 1 at 9223372036854775813"),
        ((1, 50, 2**63, 0), "got that of row 1 at 50 with 9223372036854775808 bytes"),
        ((1, 10, 12, 0), "a place of its own, got those of rows 0 and 1 one over the other"),
        ((1, 0, 12, 0), "a place of its own"),
        ((1, 50, 12, 1), "the block of row 1 was stored without a checksum"),
        ((0, 50, 12, 0), "got that of row 1 at 18446744073709551615"),
        ((3, 50, 12, 0), "got that of row 1 at"),
    ],
)
def test_blocks_that_lie_nowhere_or_over_another_are_refused(tmp_path, change, words):
    path = tmp_path / "c.h5"
    path.write_bytes(bytes(100))
    blocks = [(0, 0, 12, 0), (1, 50, 12, 0), (2, 70, 12, 0)]
    blocks[0 if not words else 1] = change
    if not words:
        at, size = stored_blocks(path, _Lying(blocks))
        assert (at.tolist(), size.tolist()) == ([0, 50, 70], [12, 12, 12])
        return
    with pytest.raises(InputError, match=rf"c\.h5: patches: .*{words}"):
        stored_blocks(path, _Lying(blocks))


def test_a_block_of_another_length_is_refused(tmp_path):
    path = write(tmp_path / "c.h5", noise(9, (3, *SIZE)))
    with h5py.File(path, "r+") as file:
        file["patches"].id.write_direct_chunk((1, 0, 0, 0), bytes(100))
    with pytest.raises(InputError, match=r"the block of row 1 must take 516 bytes, .* got 100"):
        len(PatchCache(path))


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_a_block_spared_its_checksum_is_refused(tmp_path, compression):
    path = write(tmp_path / "c.h5", noise(9, (3, *SIZE)), compression)
    with h5py.File(path, "r+") as file:
        mask = 1 << filters(file["patches"]).index(h5py.h5z.FILTER_FLETCHER32)
        _, block = file["patches"].id.read_direct_chunk((2, 0, 0, 0))
        file["patches"].id.write_direct_chunk((2, 0, 0, 0), block[:-4], mask)
    with pytest.raises(InputError, match="block of row 2 was stored without a checksum"):
        len(PatchCache(path))


def test_an_external_link_and_a_virtual_data_set_are_refused(tmp_path):
    beside = write(tmp_path / "beside.h5", noise(9, (3, *SIZE)))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["patches"] = h5py.ExternalLink(str(beside), "/patches")
    layout = h5py.VirtualLayout((3, *SIZE), "i2")
    layout[:] = h5py.VirtualSource(str(beside), "patches", (3, *SIZE))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("patches", layout)
    for file, words in (("link.h5", "must not be a link"), ("virtual.h5", "is a virtual data set")):
        with pytest.raises(InputError, match=rf"{file}: .*{words}"):
            PatchCache(tmp_path / file).read([0])


@pytest.mark.parametrize("compression", ["none", "blosc2"])
@pytest.mark.parametrize("change", ["shortened", "replaced", "rewritten", "gone"])
@pytest.mark.parametrize("read_before", [True, False])
def test_a_cache_that_changes_while_it_is_open_is_an_input_error(tmp_path, compression, change, read_before):
    path = write(tmp_path / "c.h5", noise(1, (40, *SIZE)), compression)
    other = write(tmp_path / "other.h5", noise(2, (40, *SIZE)), compression)
    cache = PatchCache(path)
    assert len(cache) == 40
    if read_before:
        cache.read([0])
    match change:
        case "shortened":
            os.truncate(path, 9000)
        case "replaced":
            os.replace(other, path)
        case "rewritten":
            path.write_bytes(other.read_bytes())
            os.utime(path, ns=(1, 1))
        case "gone":
            path.unlink()
    with pytest.raises(InputError, match=r"c\.h5: (the cache must stay as it is|there is no such|truncated)"):
        cache.read(range(40))


# -------------------------------------------------------------------------------- subsets and batches


def labelled(path: Path, compression: str = "none") -> PatchCache:
    """36 patches: 3 patterns x 4 ranks x 3 resolutions, rank 3 in validation."""
    patches = noise(11, (36, *SIZE))
    table = rows(36)
    table["pattern"], table["rank"], table["resolution"] = np.indices((3, 4, 3)).reshape(3, 36)
    table["split"] = np.where(table["rank"] == 3, b"validation", b"train")
    write_cache(
        path,
        table,
        enumerate(patches),
        hu_min=-1000,
        hu_max=1000,
        patterns=3,
        patch_size=SIZE,
        compression=compression,
    )
    return PatchCache(path)


def test_any_patterns_resolutions_and_splits_can_be_selected(tmp_path):
    cache = labelled(tmp_path / "c.h5")
    assert cache.select().tolist() == list(range(36))
    assert cache.select(resolutions=[0]).tolist() == list(range(0, 36, 3))
    assert cache.select(patterns=[2, 0], resolutions=[1, 2], splits=["validation"]).tolist() == [
        10,
        11,
        34,
        35,
    ]
    assert cache.select(patterns=[]).tolist() == []
    with pytest.raises(InputError, match=r"c\.h5: a pattern .* got 7; there are 3 from 0 to 2"):
        cache.select(patterns=[0, 7])
    with pytest.raises(InputError, match=r"a split .* got 'test'; there are train, validation"):
        cache.select(splits=["test"])


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_batches_are_the_same_whatever_the_workers_and_the_order_is_the_generators(tmp_path, compression):
    cache = labelled(tmp_path / "c.h5", compression)
    patches, chosen = noise(11, (36, *SIZE)), cache.select(splits=["train"])
    orders = []
    for workers in (0, 1, 2, 5):
        made = list(cache.batches(chosen, 8, rng=np.random.default_rng(3), workers=workers))
        assert [len(hu) for _, hu in made] == [8, 8, 8, 3]
        for indices, hu in made:
            np.testing.assert_array_equal(hu, patches[indices])
        orders.append(np.concatenate([indices for indices, _ in made]).tolist())
    assert orders == [np.random.default_rng(3).permutation(chosen).tolist()] * 4
    assert np.concatenate([i for i, _ in cache.batches([5, 3, 3], 2)]).tolist() == [5, 3, 3]
    assert list(cache.batches([], 4)) == []
    with pytest.raises(ValueError, match="size must be at least 1"):
        cache.batches([1], 0)


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_threads_may_read_one_cache_at_the_same_time(tmp_path, compression):
    patches = noise(12, (64, *SIZE))
    cache = PatchCache(write(tmp_path / "c.h5", patches, compression))

    def read(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(64).repeat(4)
        return bool((cache.read(order) == patches[order]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(40)))


def test_what_is_not_in_memory_is_read_and_tested_too(tmp_path, monkeypatch):
    patches = noise(9, (6, *SIZE))
    path = write(tmp_path / "c.h5", patches)
    monkeypatch.setattr(MappedFile, "in_memory", lambda *_: False)
    cache = PatchCache(path)
    np.testing.assert_array_equal(cache.read([4, 0, 4]), patches[[4, 0, 4]])
    content = bytearray(path.read_bytes())
    content[blocks_of(path)[2][0] + 7] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"the patch of row 2 .*Fletcher's sum"):
        PatchCache(path).read([1, 2, 3])

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(InputError, match=r"the patch of row 1 .*Input/output error"):
        PatchCache(path).read([1])


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_forked_workers_read_the_cache_that_the_parent_has_open(tmp_path, compression):
    cache = labelled(tmp_path / "c.h5", compression)
    patches = noise(11, (36, *SIZE))
    cache.read([0])
    groups = [indices for indices, _ in cache.batches(range(36), 5, rng=np.random.default_rng(0))]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for indices, hu in zip(groups, pool.map(cache.read, groups), strict=True):
            np.testing.assert_array_equal(hu, patches[indices])


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
        ("patterns", -1, "patterns must be 0 to 1000000 .* got -1 and 4 x 8 x 8"),
        ("patterns", 10**11, "patterns must be 0 to 1000000 .* got 100000000000 and 4 x 8 x 8"),
    ],
)
def test_what_a_cache_says_of_itself_must_be_possible(tmp_path, name, value, words):
    path = write(tmp_path / "c.h5", noise(1, (3, *SIZE)))
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=rf"c\.h5: {words}"):
        len(PatchCache(path))


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_a_child_reads_although_a_thread_of_the_parent_was_just_reading(tmp_path, compression):
    cache = labelled(tmp_path / "c.h5", compression)
    cache.read([0])
    held, forked = Event(), Event()

    def hold() -> None:
        with cache._mine().lock:
            held.set()
            forked.wait()

    thread = Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if (cache.read([7]) == noise(11, (36, *SIZE))[7]).all() else 1)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_rows_are_asked_for_by_numbers_and_a_mask_is_not_taken_for_some(tmp_path, compression):
    cache = PatchCache(write(tmp_path / "c.h5", noise(1, (5, *SIZE)), compression))
    assert cache.read([]).shape == (0, *SIZE)
    for wrong in (cache.rows["pattern"] == 1, [0.7], [[0, 1]], 3):
        with pytest.raises(ValueError, match="by their numbers, integers"):
            cache.read(wrong)
        with pytest.raises(ValueError, match="by their numbers, integers"):
            next(cache.batches(wrong, 2))


@pytest.mark.parametrize("packed", [{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}])
def test_blocks_packed_by_what_may_unpack_to_any_size_are_refused(tmp_path, packed):
    path = write(tmp_path / "c.h5", noise(1, (3, *SIZE)))
    with h5py.File(path, "r+") as file:
        patches = file["patches"][...]
        del file["patches"]
        file.create_dataset("patches", data=patches, chunks=(1, *SIZE), fletcher32=True, **packed)
    with pytest.raises(InputError, match=r"as they are or packed with Blosc2, got HDF5's filter [0-9]+"):
        PatchCache(path).read([0])
