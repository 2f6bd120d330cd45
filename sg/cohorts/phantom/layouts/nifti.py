"""NIfTI files, and the dataset.json of the Medical Segmentation Decathlon, as its tasks and BraTS write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np


def ras_affine(direction: np.ndarray, spacing_mm: Sequence[float], origin_mm: Sequence[float]) -> np.ndarray:
    """Index (x, y, z) to world as NIfTI has it, RAS: x and y of LPS with the other sign. (4, 4)."""
    flip = np.array([-1, -1, 1])
    affine = np.eye(4)
    affine[:3, :3] = flip[:, None] * direction * spacing_mm
    affine[:3, 3] = flip * origin_mm
    return affine + 0.0  # no minus before a zero


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """An array (z, y, x) or (channel, z, y, x) as a compressed NIfTI file, stored (x, y, z, channel)."""
    image = nibabel.Nifti1Image(np.moveaxis(array, (-1, -2, -3), (0, 1, 2)), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    # No name and no time in the gzip header, so that equal scans are equal files.
    path.write_bytes(gzip.compress(image.to_bytes(), 4, mtime=0))


def write_case(folder: Path, name: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    """A case of the Decathlon: imagesTr/<name>.nii.gz and labelsTr/<name>.nii.gz."""
    for kind, array in (("imagesTr", image), ("labelsTr", labels)):
        (folder / kind).mkdir(exist_ok=True)
        write_nifti(folder / kind / f"{name}.nii.gz", array, affine)


def describe(folder: Path, names: Sequence[str], own: dict[str, object]) -> None:
    """dataset.json, with the keys of the real ones. `own` is what the task says of itself, in their order."""
    pairs = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]
    made = {"reference": "made by this repository", "licence": "Apache-2.0", "release": "1.0"}
    head = {key: own[key] for key in ("name", "description")}
    kinds = {key: own[key] for key in ("tensorImageSize", "modality", "labels")}
    cases = {"numTraining": len(names), "numTest": 0, "training": pairs, "test": []}
    text = json.dumps(head | made | kinds | cases, indent=2) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")
