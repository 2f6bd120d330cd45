"""The patch cache: int16 patches in one HDF5 file, each a chunk with a checksum, and a row of facts about each.

    cache = PatchCache(paths.PATTERNS)
    hu = cache.read(np.flatnonzero(cache.rows["split"] == b"train")[:64])  # int16 (64, z, y, x)

A row holds all that it takes to cut the patch again from its resampled scan: corner and extent of the box (z, y, x)
in voxels; `sg.cutting.cut` is what cuts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from sg.errors import InputError
from sg.storage import create_h5, empty_array, open_checked, open_h5, reading, write_array

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
        self._patches[index] = patch
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


class PatchCache:
    """A cache for reading. Nothing is opened before it is needed, and patches anew in every process.

    InputError naming the file if it is missing, damaged, cut off or not a cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._facts: dict | None = None
        self._forget()

    def _forget(self) -> None:
        self._file: h5py.File | None = None
        self._process = -1

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> np.ndarray:
        """Facts of every patch (ROW, n)."""
        return self._fact("rows")

    @property
    def patch_size(self) -> Zyx:
        """Shape of a patch (z, y, x)."""
        return self._fact("patch_size")

    @property
    def hu_min(self) -> float:
        """HU at which the scans were clipped from below."""
        return self._fact("hu_min")

    @property
    def hu_max(self) -> float:
        """HU at which the scans were clipped from above."""
        return self._fact("hu_max")

    @property
    def patterns(self) -> int:
        """Number of patterns (pseudo labels); 0 for random sub-volumes."""
        return self._fact("patterns")

    def read(self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The patches of those rows, int16 (n, z, y, x), into `out` (C order) if it is given.

        Every patch's checksum is tested; a damaged one is an InputError that names the file and the row.
        """
        indices = np.asarray(indices, np.int64)
        shape = (len(indices), *self.patch_size)
        if out is None:
            out = np.empty(shape, np.int16)
        elif out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
            raise ValueError(f"out must be int16 {shape} in C order, got {out.dtype} {out.shape}")
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(
                f"{self.path}: rows are 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}"
            )
        patches, memory, stored = self._opened()
        for number, index in enumerate(indices):
            # The plain h5py interface takes longer over the selection than HDF5 over the patch.
            stored.select_hyperslab((int(index), 0, 0, 0), (1, *self.patch_size))
            try:
                patches.read(memory, stored, out[number : number + 1])
            except (OSError, RuntimeError) as error:
                raise self._damaged(int(index), error) from error
        return out

    def close(self) -> None:
        """Close the file, in the process that opened it; reading opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._forget()

    def _fact(self, name: str):
        if self._facts is None:
            self._facts = _facts(self.path)
        return self._facts[name]

    def _opened(self):
        if self._file is None or self._process != os.getpid():
            # A file opened before a fork is left to the parent: not used here, and not closed.
            self._inherited = self._file
            self._file = open_checked(self.path)
            self._process = os.getpid()
            with reading(self.path):
                patches = self._file["patches"].id
            self._handles = (patches, h5py.h5s.create_simple((1, *self.patch_size)), patches.get_space())
        return self._handles

    def _damaged(self, index: int, error: Exception) -> InputError:
        row = self.rows[index]
        return InputError(
            f"{self.path}: the patch of row {index} (scan {row['scan'].decode()}, corner {row['corner'].tolist()}) is "
            f"damaged, its checksum or block cannot be read ({' '.join(str(error).split())}); delete the file and run "
            "`dvc repro` to make it again"
        )


def _facts(path: Path) -> dict:
    with open_h5(path) as file:
        patches, rows = file["patches"], file["rows"][...]
        size = tuple(int(side) for side in file.attrs["patch_size"])
        if rows.dtype != ROW or patches.dtype != np.int16 or patches.shape != (len(rows), *size):
            raise InputError(
                f"{path}: a cache must hold `patches` int16 ({len(rows)}, {', '.join(map(str, size))}) beside its rows, "
                f"got {patches.dtype} {patches.shape}; run `dvc repro patches`"
            )
        if patches.size and (patches.chunks != (1, *size) or not patches.fletcher32):
            raise InputError(
                f"{path}: every patch must be a block with a checksum of its own; run `dvc repro patches`"
            )
        return {
            "rows": rows,
            "patch_size": size,
            "hu_min": float(file.attrs["hu_min"]),
            "hu_max": float(file.attrs["hu_max"]),
            "patterns": int(file.attrs["patterns"]),
        }
