"""The Medical Segmentation Decathlon's Task03_Liver: imagesTr, labelsTr and dataset.json.

Labels are 0 background, 1 liver, 2 cancer. Case numbers run from 0 for training, from 100 for validation, from 115 for
test, which are the ranges that the liver cases are split by; imagesTs is not there, because every case has its labels.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.grid import Grid
from sg.cohorts.phantom.layouts import Place
from sg.cohorts.phantom.rendering import Scan

CASES = {"train": 0, "validation": 100, "test": 115}
# What counts as the liver, and as cancer: the real labels take the vessels within the liver for liver.
VALUES = {"liver": 1, "liver_vessels": 1, "liver_lesion": 2}


def stem(place: Place, draw: Draw) -> str:
    """Name of a case, without folder and ending."""
    return f"liver_{CASES[place.split] + place.turn}"


def write(folder: Path, name: str, scan: Scan, draw: Draw) -> None:
    """The scan and its labels as imagesTr/<name>.nii.gz and labelsTr/<name>.nii.gz."""
    values = np.zeros(256, np.uint8)
    for label, value in VALUES.items():
        values[LABEL[label]] = value
    affine = ras_affine(scan.grid)
    for kind, array in (("imagesTr", scan.hu), ("labelsTr", values[scan.labels])):
        (folder / kind).mkdir(exist_ok=True)
        write_nifti(folder / kind / f"{name}.nii.gz", scan.grid.stored(array), affine)


def finish(folder: Path, written: Sequence[tuple[str, None]]) -> None:
    """dataset.json, with the keys of the real one."""
    names = [name for name, _ in written]
    description = {
        "name": "Liver",
        "description": "Liver and cancer segmentation (synthetic phantoms, not patients)",
        "reference": "made by this repository",
        "licence": "Apache-2.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def ras_affine(grid: Grid) -> np.ndarray:
    """Index (x, y, z) to world as NIfTI has it, RAS: x and y of LPS with the other sign. (4, 4)."""
    flip = np.array([-1, -1, 1])
    affine = np.eye(4)
    affine[:3, :3] = flip[:, None] * grid.direction * grid.spacing_mm
    affine[:3, 3] = flip * grid.origin_mm
    return affine


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """An array (z, y, x) as a compressed NIfTI file."""
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    # No name and no time in the gzip header, so that equal scans are equal files.
    path.write_bytes(gzip.compress(image.to_bytes(), 4, mtime=0))
