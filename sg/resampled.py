"""Resampled scans as other stages read them: one file a scan, made by `sg/resampling.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sg.cohorts.records import QuarantineRow, ScanRow, read_rows
from sg.errors import InputError
from sg.storage import open_h5, remedy

QUARANTINE = "quarantine.csv"
ALONG = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # the direction of a grid along the patient's axes


@dataclass(frozen=True)
class Resampled:
    """A resampled scan. Its voxel (z, y, x) lies at origin + direction @ (spacing * (x, y, z)), mm in LPS.

    The direction is a rotation (3 x 3 by rows); it turns nothing but where `resample.oblique` is nearest-axes.
    """

    image: np.ndarray  # int16 (z, y, x), HU
    labels: np.ndarray | None  # uint8 (z, y, x)
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    patient: str
    hu_min: float
    hu_max: float
    direction: tuple[float, ...] = ALONG

    def position_mm(self, zyx: np.ndarray) -> np.ndarray:
        """Positions (x, y, z) in mm, (..., 3), of voxel indices (z, y, x), (..., 3), which may lie between voxels."""
        along = np.asarray(zyx, float)[..., ::-1] * self.spacing_mm
        return (along if self.direction == ALONG else along @ self._axes.T) + self.origin_mm

    def voxel(self, position_mm: np.ndarray) -> np.ndarray:
        """Voxel indices (z, y, x), (..., 3), not rounded, of positions (x, y, z) in mm: position_mm's inverse."""
        shift = np.asarray(position_mm, float) - self.origin_mm
        return ((shift if self.direction == ALONG else shift @ self._axes) / self.spacing_mm)[..., ::-1]

    @property
    def upright_origin_mm(self) -> tuple[float, float, float]:
        """Where the first voxel would lie if the scan were turned about its centre until its axes are the patient's."""
        if self.direction == ALONG:
            return self.origin_mm
        half = (np.array(self.image.shape[::-1]) - 1) / 2 * self.spacing_mm
        return tuple(map(float, self.origin_mm + self._axes @ half - half))

    @property
    def _axes(self) -> np.ndarray:
        return np.array(self.direction).reshape(3, 3)


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
                f"{remedy(path)}"
            )
        return Resampled(
            image,
            structures,
            tuple(map(float, file.attrs["spacing_mm"])),
            tuple(map(float, file.attrs["origin_mm"])),
            str(file.attrs["patient"]),
            float(file.attrs["hu_min"]),
            float(file.attrs["hu_max"]),
            tuple(map(float, file.attrs["direction"])),
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
