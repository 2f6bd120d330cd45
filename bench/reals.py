"""The seven good scans of the folder that SG_REAL_CT names, read and resampled as the pipeline does. Never copied."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg.errors import InputError
from sg.orientation import turn_of, turned
from sg.resampling import resample_image, sampling
from sg.scans import Geometry, read_scan

# One patient each. The last two show the lung bases and the apices alone.
PATIENTS = {
    "LIDC-IDRI-0001": "LIDC-IDRI/LIDC-IDRI-0001",
    "lungdx-a0001": "mixed/lungdx-a0001.mhd",
    "lungdx-a0002": "mixed/nested/lungdx-a0002.nrrd",
    "cmb-crc-01068": "mixed/cmb-crc-01068.nii.gz",
    "ricord-001012": "mixed/ricord-001012.nii.gz",
    "rider-pilot-0117": "mixed/nested/rider-pilot-0117.nii.gz",
    "lungfcp-0001": "mixed/nested/deeper/lungfcp-0001.mha",
}
GRID_MM = 3.0
HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Real:
    """One patient's scan, HU (z, y, x) along the nearest axes of LPS, spacing (x, y, z), and the same at 3 mm, int16."""

    name: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    coarse: np.ndarray


def read(names: list[str]) -> list[Real]:
    """The scans of those names; InputError where SG_REAL_CT is not set or a scan is not there."""
    folder = os.environ.get("SG_REAL_CT", "")
    if not folder or not Path(folder).is_dir():
        raise InputError(
            f"SG_REAL_CT must name the folder of real scans to compare with, got {folder!r}; "
            "set it, or leave this measurement out: phantoms alone cannot make it"
        )
    return [_read(Path(folder), name) for name in names]


def _read(folder: Path, name: str) -> Real:
    path = folder / PATIENTS[name]
    if not path.exists():
        raise InputError(f"{path}: SG_REAL_CT must hold the scan {name}; see its README for the layout")
    place = sorted(path.rglob("*.dcm")) if path.is_dir() else path
    scan = read_scan(place, folder, None)
    turn = turn_of(scan.geometry)
    spacing = tuple(scan.geometry.spacing_mm[axis] for axis in turn.axes)
    return Real(name, turned(scan.array, turn), spacing, resampled(scan.array, scan.geometry))


def resampled(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A stored scan at 3 mm, clipped to [-1000, 1000] HU, as the stage `resample` makes it."""
    return resample_image(array, sampling(geometry, (GRID_MM,) * 3), *HU, anti_alias=False)
