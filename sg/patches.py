"""The patch cache: int16 patches in one HDF5 file, each a chunk with a checksum, and a row of facts about each.

    cache = PatchCache(paths.PATTERNS)
    fixed = cache.select(splits=["train"], patterns=range(10), resolutions=[0])
    for indices, hu in cache.batches(fixed, 64, rng=rng, workers=2):  # int16 (64, z, y, x), shuffled
        labels = cache.rows["pattern"][indices]

A row holds all that it takes to cut the patch again from its resampled scan: corner and extent of the box (z, y, x)
in voxels; `sg.cutting.cut` is what cuts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Literal

import h5py
import numpy as np

from sg.blocks import MappedFile
from sg.checksums import copied_fletcher32
from sg.errors import InputError
from sg.storage import (
    BLOSC2,
    create_h5,
    data_set,
    empty_array,
    filters,
    open_checked,
    open_h5,
    reading,
    remedy,
    stored_blocks,
    write_array,
)
from sg.threads import ahead

# A random sub-volume has pattern and rank -1 and resolution 0.
ROW = np.dtype(
    [
        ("pattern", "i4"),
        ("rank", "i4"),
        ("resolution", "i4"),
        ("scan", "S12"),
        ("patient", "S64"),
        ("split", "S10"),
        ("corner", "i4", 3),
        ("extent", "i4", 3),
    ]
)
Zyx = tuple[int, int, int]

# A network to classify so many patterns can still be held in memory; what a damaged file says need not be.
PATTERNS_MAX = 1_000_000


class CacheWriter:
    """A cache being written, by one process in a fixed order: equal patches in equal order are equal bytes.

    Room is made for `most` patches; `finish` gives the rows, which may be fewer, and closes the file.
    """

    def __init__(
        self, path: Path, most: int, patch_size: Zyx, compression: Literal["none", "blosc2"]
    ) -> None:
        self.patch_size = tuple(patch_size)
        self._file = create_h5(path)
        shape = (most, *self.patch_size)
        self._patches = empty_array(
            self._file,
            "patches",
            shape,
            np.int16,
            chunks=(1, *self.patch_size),
            fletcher32=True,
            compression=compression,
        )
        self._written = np.zeros(most, bool)
        # Ready blocks, checksum included, go past HDF5, whose own sum takes ten times as long.
        ready = most > 0 and compression == "none"
        self._block = np.empty(math.prod(self.patch_size) + 2, np.int16) if ready else None

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, index: int, patch: np.ndarray) -> None:
        """Write one patch, int16 (z, y, x), each index once."""
        if patch.shape != self.patch_size or patch.dtype != np.int16 or self._written[index]:
            raise ValueError(
                f"patch {index}: must be new and int16 {self.patch_size}, got {patch.dtype} {patch.shape}"
            )
        if self._block is None:
            self._patches[index] = patch
        else:
            words = np.ascontiguousarray(patch).reshape(-1).view(np.uint8)
            total = copied_fletcher32(words, np.zeros(1, np.int64), self._block[None, :-2])
            self._block[-2:] = total[0, :1].astype("<u4").view(np.int16)
            self._patches.id.write_direct_chunk((index, 0, 0, 0), self._block)
        self._written[index] = True

    def finish(self, rows: np.ndarray, hu_min: float, hu_max: float, patterns: int) -> None:
        """Write the rows (ROW) of the patches, the first len(rows) of which must have been written, and close."""
        if not self._written[: len(rows)].all() or self._written[len(rows) :].any():
            raise ValueError(f"{len(rows)} rows, but {self._written.sum()} patches were written")
        if len(rows) < len(self._written):
            self._patches.resize(len(rows), axis=0)
        write_array(self._file, "rows", rows.astype(ROW, copy=False), fletcher32=True)
        self._file.attrs["patch_size"] = np.array(self.patch_size, np.int64)
        self._file.attrs["hu_min"], self._file.attrs["hu_max"] = float(hu_min), float(hu_max)
        self._file.attrs["patterns"] = int(patterns)
        self._file.close()


def write_cache(
    path: Path,
    rows: np.ndarray,
    chunks: Iterable[tuple[int, np.ndarray]],
    *,
    hu_min: float,
    hu_max: float,
    patterns: int,
    patch_size: Zyx,
    compression: Literal["none", "blosc2"],
) -> None:
    """Write a whole cache: `rows` (ROW, n) and, in whatever fixed order, (index, patch int16 (z, y, x)) of each row.

    `patterns` is the number of pseudo labels, 0 for random sub-volumes. ValueError if a row has no patch.
    """
    with CacheWriter(path, len(rows), patch_size, compression) as writer:
        for index, patch in chunks:
            writer.write(index, patch)
        writer.finish(rows, hu_min, hu_max, patterns)


@dataclass
class _Facts:
    """What a cache says of itself, read once."""

    rows: np.ndarray
    patch_size: Zyx
    hu_min: float
    hu_max: float
    patterns: int
    # Where each patch's block begins in the file; None if only HDF5 can read the blocks.
    offsets: np.ndarray | None
    identity: tuple[int, ...]


@dataclass
class _Opened:
    """What one process has opened of a cache, and the lock of its threads."""

    lock: RLock = field(default_factory=RLock)
    mapped: MappedFile | None = None
    file: h5py.File | None = None
    handles: tuple | None = None


class PatchCache:
    """A cache for reading, by any number of threads. Nothing is opened before it is needed, and anew in every process.

    InputError naming the file if it is missing, damaged, cut off or not a cache, or was replaced or changed since
    it was first opened here.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._facts: _Facts | None = None
        # By process: after a fork, neither the parent's files are used nor its lock, which a thread may have held.
        self._opened: dict[int, _Opened] = {}

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> np.ndarray:
        """Facts of every patch (ROW, n)."""
        return self._known().rows

    @property
    def patch_size(self) -> Zyx:
        """Shape of a patch (z, y, x)."""
        return self._known().patch_size

    @property
    def hu_min(self) -> float:
        """HU at which the scans were clipped from below."""
        return self._known().hu_min

    @property
    def hu_max(self) -> float:
        """HU at which the scans were clipped from above."""
        return self._known().hu_max

    @property
    def patterns(self) -> int:
        """Number of patterns (pseudo labels); 0 for random sub-volumes."""
        return self._known().patterns

    def select(
        self,
        *,
        patterns: Iterable[int] | None = None,
        resolutions: Iterable[int] | None = None,
        splits: Iterable[str] | None = None,
    ) -> np.ndarray:
        """Indices int64 (m,), ascending, of the rows that are of the given patterns, resolutions and splits.

        None stands for all. InputError for a value that no row has: a typing error would select too little.
        """
        chosen = np.ones(len(self), bool)
        wanted = {
            "pattern": patterns,
            "resolution": resolutions,
            "split": splits if splits is None else [split.encode() for split in splits],
        }
        for name, values in wanted.items():
            if values is None:
                continue
            values, there = list(values), self.rows[name]
            missing = [value for value in values if not (there == value).any()]
            if missing:
                got = ", ".join(repr(v.decode()) if isinstance(v, bytes) else str(v) for v in missing)
                raise InputError(
                    f"{self.path}: a {name} to select must be that of some row, got {got}; there are {_listed(there)}"
                )
            chosen &= np.isin(there, values)
        return np.flatnonzero(chosen)

    def batches(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int,
        *,
        rng: np.random.Generator | None = None,
        workers: int = 1,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(indices int64 (m,), patches int16 (m, z, y, x)) of those rows, `size` at a time, the last batch what is left.

        In the order given, or shuffled by `rng`, which is drawn from once, here. `workers` threads read ahead, at
        most so many batches and one more; they change nothing in the batches. 0 reads in the caller.
        """
        if size < 1 or workers < 0:
            raise ValueError(
                f"size must be at least 1 and workers at least 0, got size {size}, workers {workers}"
            )
        order = _row_numbers(indices)
        if rng is not None:
            order = rng.permutation(order)
        groups = (order[start : start + size] for start in range(0, len(order), size))
        return ahead(lambda group: (group, self.read(group)), groups, workers, workers + 1)

    def read(self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The patches of those rows, int16 (n, z, y, x), into `out` (C order) if it is given.

        Every patch's checksum is tested; a damaged one is an InputError that names the file and the row.
        """
        indices = _row_numbers(indices)
        shape = (len(indices), *self.patch_size)
        if out is None:
            out = np.empty(shape, np.int16)
        elif out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
            raise ValueError(f"out must be int16 {shape} in C order, got {out.dtype} {out.shape}")
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(
                f"{self.path}: rows are 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}"
            )
        if self._known().offsets is None:
            self._read_through_hdf5(indices, out)
        else:
            self._read_blocks(indices, out)
        self._unchanged()
        return out

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        opened = self._opened.pop(os.getpid(), None)
        if opened is not None:
            with opened.lock:
                if opened.file is not None:
                    opened.file.close()

    def _read_blocks(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Blocks from their places in the file: HDF5 takes five times as long, most of it for the checksum."""
        mapped, places = self._mapped(), self._known().offsets[indices]
        size = 2 * math.prod(self.patch_size) + 4
        patches = out.reshape(len(indices), math.prod(self.patch_size))
        if mapped.in_memory(places, size):
            self._whole(indices, mapped.bytes, places, patches)
            return
        for number, place in enumerate(places.tolist()):
            these = slice(number, number + 1)
            try:
                block = mapped.copy(place, size)
            except OSError as error:
                raise self._damaged(int(indices[number]), str(error)) from error
            self._whole(indices[these], block, np.zeros(1, np.int64), patches[these])

    def _whole(
        self, indices: np.ndarray, source: np.ndarray, places: np.ndarray, patches: np.ndarray
    ) -> None:
        """Fill the patches, int16 (n, words), of those rows from those places; InputError if a checksum fails."""
        sums = copied_fletcher32(source, places, patches)
        if (damaged := sums[:, 0] != sums[:, 1]).any():
            patches[damaged] = 0  # damaged values stay nowhere
            raise self._damaged(int(indices[damaged][0]), "Fletcher's sum is another one")

    def _read_through_hdf5(self, indices: np.ndarray, out: np.ndarray) -> None:
        opened = self._mine()
        with opened.lock:  # the selection is shared
            patches, memory, stored = self._handles(opened)
            for number, index in enumerate(indices.tolist()):
                # The plain h5py interface takes longer over the selection than HDF5 over the patch.
                stored.select_hyperslab((index, 0, 0, 0), (1, *self.patch_size))
                try:
                    patches.read(memory, stored, out[number : number + 1])
                except (OSError, RuntimeError) as error:
                    raise self._damaged(index, str(error)) from error

    def _mine(self) -> _Opened:
        return self._opened.setdefault(os.getpid(), _Opened())

    def _known(self) -> _Facts:
        if self._facts is None:
            with self._mine().lock:
                if self._facts is None:
                    self._facts = _facts(self.path)
        return self._facts

    def _mapped(self) -> MappedFile:
        opened = self._mine()
        with opened.lock:
            if opened.mapped is None:
                try:
                    mapped = MappedFile(self.path)
                except FileNotFoundError:
                    raise self._changed("is gone") from None
                self._unchanged(mapped.status)
                opened.mapped = mapped
            return opened.mapped

    def _handles(self, opened: _Opened) -> tuple:
        if opened.file is None:
            opened.file = open_checked(self.path)
            self._unchanged(os.fstat(opened.file.id.get_vfd_handle()))
            with reading(self.path):
                patches = opened.file["patches"].id
            opened.handles = (
                patches,
                h5py.h5s.create_simple((1, *self.patch_size)),
                patches.get_space(),
            )
        return opened.handles

    def _unchanged(self, status: os.stat_result | None = None) -> None:
        """InputError unless the file is still the one whose facts are known."""
        try:
            now = _identity(status or os.stat(self.path))
        except FileNotFoundError:
            raise self._changed("is gone") from None
        if now != self._known().identity:
            raise self._changed("was replaced or changed")

    def _changed(self, what: str) -> InputError:
        return InputError(
            f"{self.path}: the cache must stay as it is while it is read, but it {what}; start again when nothing "
            "writes it any more"
        )

    def _damaged(self, index: int, complaint: str) -> InputError:
        self._unchanged()
        row = self.rows[index]
        scan = row["scan"].decode(errors="backslashreplace")
        return InputError(
            f"{self.path}: the patch of row {index} (scan {scan}, corner {row['corner'].tolist()}) is "
            f"damaged, its checksum or block cannot be read ({' '.join(complaint.split())}); "
            f"{remedy(self.path)}"
        )


def _row_numbers(indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """The numbers of rows, int64 (n,). ValueError if they are none: a mask would be taken for rows 0 and 1."""
    given = np.asarray(indices)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(
            f"rows are asked for by their numbers, integers (n,), got {given.dtype} {given.shape}; np.flatnonzero gives "
            "those of a mask"
        )
    return given.astype(np.int64)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _listed(values: np.ndarray) -> str:
    """What there is, in words: numbers as a range, names one by one."""
    there = np.unique(values).tolist()
    if not there:
        return "no rows"
    if isinstance(there[0], bytes):
        return ", ".join(name.decode(errors="replace") for name in there)
    return f"{len(there)} from {there[0]} to {there[-1]}"


def _facts(path: Path) -> _Facts:
    with open_h5(path) as file:
        identity = _identity(os.fstat(file.id.get_vfd_handle()))
        rows = _rows(file, path)
        size = tuple(map(int, _numbers(file, path, "patch_size", 3, "iu")))
        patches = data_set(file, path, "patches", np.int16, 4)
        if patches.shape != (len(rows), *size):
            raise InputError(
                f"{path}: a cache must hold `patches` {(len(rows), *size)}, by its rows and patch_size, got "
                f"{patches.shape}; {remedy(path)}"
            )
        hu_min, hu_max = (float(_numbers(file, path, name, 1, "iuf")[0]) for name in ("hu_min", "hu_max"))
        patterns = int(_numbers(file, path, "patterns", 1, "iu")[0])
        _check_facts(path, size, hu_min, hu_max, patterns)
        offsets = None
        if patches.size:
            if patches.chunks != (1, *size) or not patches.fletcher32:
                raise InputError(
                    f"{path}: every patch must be a block with a checksum of its own; {remedy(path)}"
                )
            # Of others it is not known how much memory unpacking takes: a small block of deflate may hold gigabytes.
            if foreign := set(filters(patches)) - {h5py.h5z.FILTER_FLETCHER32, BLOSC2}:
                raise InputError(
                    f"{path}: patches must be stored as they are or packed with Blosc2, got HDF5's filter "
                    f"{min(foreign)}; {remedy(path)}"
                )
            offsets, sizes = stored_blocks(path, patches)
            # Only what HDF5 would add up in just this way; it unpacks, and finds its way past a foreign header.
            if filters(patches) == [h5py.h5z.FILTER_FLETCHER32] and file.userblock_size == 0:
                wanted = 2 * math.prod(size) + 4
                if (sizes != wanted).any():
                    row = int(np.argmax(sizes != wanted))
                    raise InputError(
                        f"{path}: the block of row {row} must take {wanted} bytes, as its patch and checksum do, got "
                        f"{sizes[row]}; {remedy(path)}"
                    )
            else:
                offsets = None
        return _Facts(
            rows=rows,
            patch_size=size,
            hu_min=hu_min,
            hu_max=hu_max,
            patterns=patterns,
            offsets=offsets,
            identity=identity,
        )


def _rows(file: h5py.File, path: Path) -> np.ndarray:
    """The rows of a cache (ROW, n); InputError, naming the fields that differ, if they are another table."""
    rows = data_set(file, path, "rows", np.void, 1)
    if rows.dtype == ROW:
        return rows[...]
    fields = {name: rows.dtype[name] for name in rows.dtype.names or ()}
    wanted = {name: ROW[name] for name in ROW.names}
    wrong = [f"{name} {_kind(kind)}" for name, kind in wanted.items() if fields.get(name) != kind]
    got = [
        f"{name} {_kind(fields[name])}" if name in fields else f"no {name}"
        for name, kind in wanted.items()
        if fields.get(name) != kind
    ]
    if wrong:
        differs = f"must have {', '.join(wrong)}, got {', '.join(got)}"
    else:
        differs = (
            f"must have the fields {', '.join(wanted)} and no others, in this order, got {', '.join(fields)}"
        )
    raise InputError(f"{path}: `rows` {differs}; {remedy(path)}")


def _kind(kind: np.dtype) -> str:
    return f"{kind.base.str.lstrip('|')} {kind.shape}" if kind.shape else kind.str.lstrip("|")


def _numbers(file: h5py.File, path: Path, name: str, count: int, kinds: str) -> np.ndarray:
    """So many numbers of these kinds (of NumPy's) that an attribute holds; InputError if it holds anything else."""
    found = np.ravel(file.attrs[name])
    if found.dtype.kind not in kinds or len(found) != count:
        what = "number" if "f" in kinds else "whole number"
        what = f"a {what}" if count == 1 else f"{count} {what}s"
        raise InputError(f"{path}: {name} must be {what}, got {file.attrs[name]!r}; {remedy(path)}")
    return found


def _check_facts(path: Path, size: Zyx, hu_min: float, hu_max: float, patterns: int) -> None:
    """InputError if a cache says of itself what cannot be."""
    if not (math.isfinite(hu_min) and math.isfinite(hu_max) and hu_min < hu_max):
        raise InputError(
            f"{path}: hu_min must be less than hu_max, both finite, got {hu_min:g} and {hu_max:g}; {remedy(path)}"
        )
    if not 0 <= patterns <= PATTERNS_MAX or min(size) < 1:
        raise InputError(
            f"{path}: patterns must be 0 to {PATTERNS_MAX} and every side of a patch at least 1, got {patterns} and "
            f"{' x '.join(map(str, size))}; {remedy(path)}"
        )
