"""The Medical Segmentation Decathlon's Task01_BrainTumour: imagesTr, labelsTr and dataset.json.

An image holds the four contrasts along its fourth axis (FLAIR, T1w, t1gd, T2w), as float32 (recalled, not checked), in
the world of BraTS, whose cases these are. Labels are 0 background, 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour.
Numbers begin at 1; imagesTs is not there, because every case has its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.brain.anatomy import Draw
from sg.cohorts.phantom.brain.rendering import BrainScan
from sg.cohorts.phantom.layouts import Place
from sg.cohorts.phantom.layouts.brats import affine_of
from sg.cohorts.phantom.layouts.nifti import describe, write_case

CHANNELS = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
VALUES = {2: 1, 1: 2, 4: 3}  # of the labels, BraTS to Decathlon


def stem(place: Place, draw: Draw) -> str:
    """Name of a case, without folder and ending."""
    return f"BRATS_{place.number + 1:03d}"


def write(folder: Path, name: str, scan: BrainScan, draw: Draw) -> None:
    """The four contrasts as imagesTr/<name>.nii.gz and the labels as labelsTr/<name>.nii.gz."""
    labels = np.zeros_like(scan.labels)
    for brats, value in VALUES.items():
        labels[scan.labels == brats] = value
    image = np.stack([scan.contrasts[one] for one in CHANNELS]).astype(np.float32)
    write_case(folder, name, image, labels, affine_of(scan))


def finish(folder: Path, written: Sequence[tuple[str, None]]) -> None:
    """dataset.json, with the keys of the real one."""
    own = {
        "name": "BRATS",
        "description": "Gliomas segmentation tumour and oedema in brain images (synthetic phantoms, not patients)",
        "tensorImageSize": "4D",
        "modality": {str(number): one for number, one in enumerate(CHANNELS.values())},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    describe(folder, [name for name, _ in written], own)
