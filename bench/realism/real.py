"""Real chest scans to hold the phantoms against. They are looked at where they lie and never copied."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from bench.realism import registration

# Whole chests of the folder that SG_REAL_CT names. Contrast medium in the first and in cmb-crc-01068.
CHESTS = {
    "LIDC-IDRI-0001": "LIDC-IDRI/LIDC-IDRI-0001",
    "lungdx-a0001": "mixed/lungdx-a0001.mhd",
    "lungdx-a0002": "mixed/nested/lungdx-a0002.nrrd",
    "cmb-crc-01068": "mixed/cmb-crc-01068.nii.gz",
    "ricord-001012": "mixed/ricord-001012.nii.gz",
}

# Those of them whose lungs are whole and show no large disease: registration can be expected to bring them together.
SOUND = ("LIDC-IDRI-0001", "lungdx-a0001", "cmb-crc-01068")


@dataclass(frozen=True)
class Chest:
    """One real scan, HU (z, y, x) along the patient's axes (LPS), spacing (x, y, z)."""

    name: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]


def read(folder: Path) -> list[Chest]:
    """The whole chests of a folder laid out as SG_REAL_CT is; those that are not there are left out."""
    chests = []
    for name, place in CHESTS.items():
        path = folder / place
        if not path.exists():
            continue
        if path.is_dir():
            series = next(one.parent for one in sorted(path.rglob("*.dcm")))
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
            image = reader.Execute()
        else:
            image = sitk.ReadImage(str(path))
        image = sitk.DICOMOrient(image, "LPS")
        chests.append(Chest(name, sitk.GetArrayFromImage(image), image.GetSpacing()))
    return chests


def register(chests: list[Chest]) -> np.ndarray:
    """Distance of the lungs' surfaces, mm, after affine and after B-spline registration, of all ordered pairs of sound
    chests.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    ready = [registration.prepare(one.hu, one.spacing_mm, (0, 0, 0)) for one in chests if one.name in SOUND]
    distances = []
    for fixed, moving in permutations(ready, 2):
        affine = registration.affine(fixed, moving)
        transforms = (affine, registration.bspline(fixed, moving, affine))
        distances.append([registration.surface_distance(fixed, moving, one) for one in transforms])
    return np.array(distances)
