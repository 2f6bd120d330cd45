"""Resampled scans as other stages read them: one file a scan, made by `sg/resampling.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sg.cohorts.records import QuarantineRow, ScanRow, read_rows
from sg.errors import InputError
from sg.storage import open_h5

QUARANTINE = "quarantine.csv"


@dataclass(frozen=True)
class Resampled:
    """A resampled scan. Its voxel (z, y, x) lies at origin + spacing * (x, y, z), mm in LPS."""

    image: np.ndarray  # int16 (z, y, x), HU
    labels: np.ndarray | None  # uint8 (z, y, x)
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    patient: str
    hu_min: float
    hu_max: float

    def position_mm(self, zyx: np.ndarray) -> np.ndarray:
        """Positions (x, y, z) in mm, (..., 3), of voxel indices (z, y, x), (..., 3), which may lie between voxels."""
        return np.asarray(zyx, float)[..., ::-1] * self.spacing_mm + self.origin_mm

    def voxel(self, position_mm: np.ndarray) -> np.ndarray:
        """Voxel indices (z, y, x), (..., 3), not rounded, of positions (x, y, z) in mm: position_mm's inverse."""
        return ((np.asarray(position_mm, float) - self.origin_mm) / self.spacing_mm)[..., ::-1]


def read_resampled(path: Path, labels: bool = False) -> Resampled:
    """The resampled scan of a file, its label map (if it has one) only if asked for.

    InputError naming the file if it is missing, damaged or of another kind.
    """
    with open_h5(path) as file:
        image = _volume(file, "image", np.int16, path)
        structures = _volume(file, "labels", np.uint8, path) if labels and "labels" in file else None
        if structures is not None and structures.shape != image.shape:
            raise InputError(
                f"{path}: labels must have the image's shape {image.shape}, got {structures.shape}; "
                "delete it and run `dvc repro`"
            )
        return Resampled(
            image,
            structures,
            tuple(map(float, file.attrs["spacing_mm"])),
            tuple(map(float, file.attrs["origin_mm"])),
            str(file.attrs["patient"]),
            float(file.attrs["hu_min"]),
            float(file.attrs["hu_max"]),
        )


def _volume(file: h5py.File, name: str, dtype: type, path: Path) -> np.ndarray:
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype != dtype or found.ndim != 3 or 0 in found.shape:
        raise InputError(
            f"{path}: {name} must be a volume of {np.dtype(dtype)} (z, y, x); run `dvc repro resample`"
        )
    return found[...]


def resampled_scans(scans: Sequence[ScanRow], folder: Path) -> list[ScanRow]:
    """Those of the scans that were resampled into `folder`: all that its quarantine.csv does not set aside."""
    refused = {row.scan for row in read_rows(folder / QUARANTINE, QuarantineRow)}
    return [row for row in scans if row.scan not in refused]
