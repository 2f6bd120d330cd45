"""Phantoms as LUNA16 and the Medical Segmentation Decathlon lay out their data sets.

LUNA16: subset0..9/<series>.mhd and .raw (16-bit), annotations.csv (nodules), candidates_V2.csv (nodules, class 1, and
look-alikes, class 0), positions in LPS mm as ITK reads them. Training patients stand in subsets 0 to 4 in turn,
validation in 5 and 6, test in 7 to 9; a subset without a patient has no folder.
Decathlon: imagesTr/liver_<n>.nii.gz, labelsTr/liver_<n>.nii.gz (0 background, 1 liver, 2 cancer), dataset.json. Case
numbers run from 0 for training, from 100 for validation, from 115 for test, which are the ranges that the liver cases
are split by; imagesTs is not there, because every case has its labels.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from sg.cohorts.phantom.acquisition import Grid
from sg.cohorts.phantom.rendering import LABEL, Scan
from sg.params import PhantomRecipe

SUBSETS = {"train": (0, 1, 2, 3, 4), "validation": (5, 6), "test": (7, 8, 9)}
CASES = {"train": 0, "validation": 100, "test": 115}


@dataclass(frozen=True)
class Place:
    """Where one patient belongs: its number in the cohort and its number within its split."""

    number: int
    split: str
    turn: int


def places(recipe: PhantomRecipe) -> list[Place]:
    """Every patient of a cohort: training, then validation, then test."""
    counts = {"train": recipe.train, "validation": recipe.validation, "test": recipe.test}
    pairs = [(split, turn) for split, count in counts.items() for turn in range(count)]
    return [Place(number, split, turn) for number, (split, turn) in enumerate(pairs)]


def series_name(rng: np.random.Generator) -> str:
    """A DICOM UID of the kind that needs no registration: 2.25 and a random 128-bit number."""
    low, high = (int(v) for v in rng.integers(0, 2**64, 2, dtype=np.uint64))
    number = (high << 64 | low) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62  # version 4 of RFC 4122
    return f"2.25.{number}"


# --------------------------------------------------------------------------------------------- LUNA16


def luna16_stem(place: Place, rng: np.random.Generator) -> str:
    """Path of a scan without its ending, relative to the cohort."""
    subsets = SUBSETS[place.split]
    return f"subset{subsets[place.turn % len(subsets)]}/{series_name(rng)}"


def write_luna16(folder: Path, stem: str, scan: Scan) -> None:
    """The scan as <stem>.mhd and <stem>.raw."""
    path = folder / stem
    path.parent.mkdir(exist_ok=True)
    raw = path.with_name(path.name + ".raw")
    raw.write_bytes(scan.grid.stored(scan.hu).astype("<i2").tobytes())
    path.with_name(path.name + ".mhd").write_text(_mhd_header(scan.grid, raw.name), encoding="ascii")


def _mhd_header(grid: Grid, raw: str) -> str:
    signs = grid.signs
    matrix = [signs[row] if row == column else 0 for column in range(3) for row in range(3)]
    # MetaImage names the ends where the axes start: RAI is what ITK calls LPS by where they go.
    start = "".join(
        {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}[letter] for letter in grid.orientation
    )
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": _numbers(matrix),
        "Offset": _numbers(grid.origin_mm),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": start,
        "ElementSpacing": _numbers(grid.spacing_mm),
        "DimSize": _numbers(grid.size),
        "ElementType": "MET_SHORT",
        "ElementDataFile": raw,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _numbers(values: object) -> str:
    return " ".join(f"{round(value, 4):.10g}" for value in values)


def luna16_rows(stem: str, scan: Scan) -> tuple[list[str], list[str]]:
    """The scan's lines of annotations.csv and of candidates_V2.csv."""
    series = stem.rsplit("/", 1)[1]

    def position(point: np.ndarray) -> str:
        return ",".join(f"{value:.4f}" for value in point)

    annotations = [f"{series},{position(n.centre_mm)},{n.diameter_mm:.4f}" for n in scan.nodules]
    rows = [(place, 1) for place in scan.candidates] + [(place, 0) for place in scan.look_alikes]
    # By position, so that the order of the lines does not give the class away.
    rows.sort(key=lambda row: tuple(row[0]))
    return annotations, [f"{series},{position(place)},{label}" for place, label in rows]


def finish_luna16(folder: Path, rows: list[tuple[list[str], list[str]]]) -> None:
    """annotations.csv and candidates_V2.csv."""
    annotations = [
        "seriesuid,coordX,coordY,coordZ,diameter_mm",
        *(line for first, _ in rows for line in first),
    ]
    candidates = ["seriesuid,coordX,coordY,coordZ,class", *(line for _, second in rows for line in second)]
    (folder / "annotations.csv").write_text("\n".join(annotations) + "\n", encoding="ascii")
    (folder / "candidates_V2.csv").write_text("\n".join(candidates) + "\n", encoding="ascii")


# ------------------------------------------------------------------------------------------ Decathlon


def decathlon_stem(place: Place) -> str:
    """Name of a case, without folder and ending."""
    return f"liver_{CASES[place.split] + place.turn}"


def write_decathlon(folder: Path, stem: str, scan: Scan) -> None:
    """The scan and its liver labels as imagesTr/<stem>.nii.gz and labelsTr/<stem>.nii.gz."""
    grid = scan.grid
    liver = np.zeros(scan.labels.shape, np.uint8)
    liver[scan.labels == LABEL["liver"]] = 1
    liver[scan.labels == LABEL["liver_lesion"]] = 2
    # NIfTI's world is RAS: x and y of LPS with the other sign.
    flip = np.array([-1, -1, 1])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(flip * grid.signs * grid.spacing_mm)
    affine[:3, 3] = flip * grid.origin_mm
    for name, array in (("imagesTr", scan.hu), ("labelsTr", liver)):
        (folder / name).mkdir(exist_ok=True)
        image = nibabel.Nifti1Image(grid.stored(array).transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        # No name and no time in the gzip header, so that equal scans are equal files.
        (folder / name / f"{stem}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 4, mtime=0))


def finish_decathlon(folder: Path, stems: list[str]) -> None:
    """dataset.json, with the keys of the real one."""
    description = {
        "name": "Liver",
        "description": "Liver and cancer segmentation (synthetic phantoms, not patients)",
        "reference": "made by this repository",
        "licence": "Apache-2.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(stems),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{s}.nii.gz", "label": f"./labelsTr/{s}.nii.gz"} for s in stems],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
