"""The Medical Segmentation Decathlon's Task03_Liver: imagesTr, labelsTr and dataset.json.

Labels are 0 background, 1 liver, 2 cancer. Case numbers run from 0 for training, from 100 for validation, from 115 for
test, which are the ranges that the liver cases are split by; imagesTs is not there, because every case has its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.layouts import Place
from sg.cohorts.phantom.layouts.nifti import describe, ras_affine, write_case
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
    grid = scan.grid
    affine = ras_affine(grid.direction, grid.spacing_mm, grid.origin_mm)
    write_case(folder, name, grid.stored(scan.hu), grid.stored(values[scan.labels]), affine)


def finish(folder: Path, written: Sequence[tuple[str, None]]) -> None:
    """dataset.json, with the keys of the real one."""
    own = {
        "name": "Liver",
        "description": "Liver and cancer segmentation (synthetic phantoms, not patients)",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
    }
    describe(folder, [name for name, _ in written], own)
