"""Heads with gliomas as BraTS 2018 lays them out: HGG|LGG/<case>/<case>_{t1,t1ce,t2,flair,seg}.nii.gz, int16.

The world is that of the real files: first voxel at (0, -239, 0), axes to the left, to the back and up (LPS), which
NIfTI's RAS affine writes as diag(-1, -1, 1) with an offset of (0, 239, 0). Labels are 1 necrotic and non-enhancing core,
2 oedema, 4 enhancing. survival_data.csv names high-grade cases only. No name tells a case's split: the real training set
has none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.brain.anatomy import Draw
from sg.cohorts.phantom.brain.rendering import BrainScan
from sg.cohorts.phantom.brain.tumour import draw_grade
from sg.cohorts.phantom.layouts import Place
from sg.cohorts.phantom.layouts.nifti import ras_affine, write_nifti

# Where the 285 training cases of 2018 come from (recalled, not checked): CBICA, TCIA, the challenge of 2013.
SOURCES = {"CBICA": 88 / 285, "TCIA": 167 / 285, "2013": 30 / 285}


def stem(place: Place, draw: Draw) -> str:
    """Path of a case's files up to the contrast, as HGG/Brats18_TCIA02_131_1/Brats18_TCIA02_131_1."""
    grade, _ = draw_grade(draw)
    rng = draw("case name")
    source = str(rng.choice(list(SOURCES), p=list(SOURCES.values())))
    # The number within the source is the patient's own, so that no two cases share a name.
    if source == "CBICA":
        name = f"Brats18_CBICA_{_letters(place.number)}_1"
    elif source == "TCIA":
        name = f"Brats18_TCIA{rng.integers(1, 14):02d}_{101 + place.number}_1"
    else:
        name = f"Brats18_2013_{place.number}_1"
    return f"{grade}/{name}/{name}"


def _letters(number: int) -> str:
    """AAA, AAB, ...: three letters, or more where it takes them."""
    letters = ""
    while number or len(letters) < 3:
        number, digit = divmod(number, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def write(folder: Path, stem: str, scan: BrainScan, draw: Draw) -> list[str]:
    """The case's four contrasts and its labels; returns its line of survival_data.csv, none for low grade."""
    path = folder / stem
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, array in (scan.contrasts | {"seg": scan.labels.astype(np.int16)}).items():
        write_nifti(path.with_name(f"{path.name}_{name}.nii.gz"), array, affine_of(scan))
    if scan.grade != "HGG":
        return []
    return [f"{path.name},{scan.head.age:.3f},{scan.survival_days},{scan.resection}"]


def finish(folder: Path, written: Sequence[tuple[str, list[str]]]) -> None:
    """survival_data.csv."""
    lines = ["BraTS18ID,Age,Survival,ResectionStatus", *sorted(line for _, some in written for line in some)]
    (folder / "survival_data.csv").write_text("\n".join(lines) + "\n", encoding="ascii")


def affine_of(scan: BrainScan) -> np.ndarray:
    """Index (x, y, z) to NIfTI's world (4, 4): upright, as all of these scans."""
    return ras_affine(np.eye(3), (scan.spacing_mm,) * 3, scan.origin_mm)
