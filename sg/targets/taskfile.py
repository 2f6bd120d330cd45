"""The file of a target task: patches to learn from and what the test patients are predicted on.

Patches are int16 HU (or the modality's own units), (n, z, y, x), one chunk each with a checksum. A classification
holds those of all splits, with their labels; a segmentation those of training and validation with their masks, and
whole volumes of the test scans.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sg.storage import empty_array, open_checked, reading, write_array

PATCH_OF_CLASSIFICATION = np.dtype(
    [("scan", "S12"), ("patient", "S64"), ("split", "S10"), ("label", "u1"), ("centre_mm", "f8", 3)]
)
PATCH_OF_SEGMENTATION = np.dtype([("scan", "S12"), ("patient", "S64"), ("split", "S10"), ("corner", "i4", 3)])

# One chunk of a whole volume: 128 KiB of int16.
VOLUME_CHUNK = (16, 64, 64)


class TaskFile:
    """A task's file, opened for reading; to be used in a `with`. InputError if it is damaged or missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = ExitStack()

    def __enter__(self) -> TaskFile:
        with reading(self.path):
            self._file = self._open.enter_context(open_checked(self.path))
            attributes = self._file.attrs
            self.task, self.kind, self.metric = (str(attributes[name]) for name in ("task", "kind", "metric"))
            self.patch_size = tuple(int(side) for side in attributes["patch_size"])
            self.hu_min, self.hu_max = float(attributes["hu_min"]), float(attributes["hu_max"])
            self.rows = self._file["rows"][...]
            if self.kind == "segmentation":
                self.window = tuple(int(side) for side in attributes["window"])
                self.overlap = float(attributes["overlap"])
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of_split(self, split: str) -> np.ndarray:
        """Numbers of the patches of a split, in order."""
        return np.flatnonzero(self.rows["split"] == split.encode())

    def patches(self, indices: Sequence[int]) -> np.ndarray:
        """The patches of those numbers, int16 (n, z, y, x)."""
        return self._read("patches", indices)

    def masks(self, indices: Sequence[int]) -> np.ndarray:
        """The structure in the patches of those numbers, uint8 (n, z, y, x) of 0 and 1; segmentation only."""
        return self._read("masks", indices)

    def test_scans(self) -> list[str]:
        """The scans whose whole volumes are stored, sorted; segmentation only."""
        with reading(self.path):
            return sorted(self._file["volumes"])

    def patient(self, scan: str) -> str:
        """The patient of such a scan."""
        with reading(self.path):
            return str(self._file["volumes"][scan].attrs["patient"])

    def volume(self, scan: str, part: str) -> np.ndarray:
        """`image` (int16) or `truth` (uint8) of such a scan, (z, y, x)."""
        with reading(self.path):
            return self._file["volumes"][scan][part][...]

    def _read(self, name: str, indices: Sequence[int]) -> np.ndarray:
        with reading(self.path):
            stored = self._file[name]
            out = np.empty((len(indices), *stored.shape[1:]), stored.dtype)
            for place, index in enumerate(indices):
                stored.read_direct(out, np.s_[int(index)], np.s_[place])
        return out


class Appended:
    """A data set that grows patch by patch, so that memory does not grow with the cohort."""

    def __init__(self, file: h5py.File, name: str, patch_size: Sequence[int], dtype: str) -> None:
        side = tuple(patch_size)
        self._data = file.create_dataset(
            name,
            shape=(0, *side),
            maxshape=(None, *side),
            chunks=(1, *side),
            dtype=dtype,
            fletcher32=True,
            track_times=False,
        )

    def add(self, patches: np.ndarray) -> None:
        """Put (n, z, y, x) at the end."""
        if len(patches):
            start = len(self._data)
            self._data.resize(start + len(patches), axis=0)
            self._data[start:] = patches


def write_head(
    file: h5py.File, task: str, kind: str, metric: str, patch_size: Sequence[int], hu: tuple[float, float]
) -> None:
    """The attributes that every task's file has."""
    for name, value in {"task": task, "kind": kind, "metric": metric}.items():
        file.attrs[name] = value
    file.attrs["patch_size"] = np.array(patch_size, "i4")
    file.attrs["hu_min"], file.attrs["hu_max"] = (float(bound) for bound in hu)


def write_facts(file: h5py.File, facts: dict[str, Any], warnings: Sequence[str]) -> None:
    """Counts and warnings for the report, as JSON in two attributes."""
    file.attrs["facts"] = json.dumps(facts, sort_keys=True, allow_nan=False)
    file.attrs["warnings"] = json.dumps(list(warnings))


def write_volume(
    group: h5py.Group, image: np.ndarray, truth: np.ndarray, patient: str, spacing_mm: Sequence[float]
) -> None:
    """A whole test scan, int16 and uint8 (z, y, x)."""
    write_array(group, "image", image, chunks=VOLUME_CHUNK, fletcher32=True)
    write_mask(group, "truth", truth)
    group.attrs["patient"] = patient
    group.attrs["spacing_mm"] = np.array(spacing_mm, "f8")


def write_mask(group: h5py.Group, name: str, mask: np.ndarray) -> h5py.Dataset:
    """A mask as uint8 (z, y, x), compressed: masks are nearly empty."""
    return write_array(
        group, name, mask.astype(np.uint8), chunks=VOLUME_CHUNK, fletcher32=True, compression="blosc2"
    )


def growing_masks(group: h5py.Group, name: str, shape: tuple[int, int, int, int]) -> h5py.Dataset:
    """Room for masks of one scan, uint8 (trials, z, y, x), to be written one trial after the other."""
    return empty_array(
        group, name, shape, "u1", chunks=(1, *VOLUME_CHUNK), fletcher32=True, compression="blosc2"
    )
