"""Discoveries of a few voxels, written by hand, and the files that quality is measured on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.crops import CROP, PatternRow, SurveyRow, write_crops, write_patterns, write_surveys
from sg.frames import Box
from sg.laying import Survey
from sg.patches import ROW, write_cache
from sg.quality.study import Laid, Study
from sg.storage import create_h5, write_array
from tests.hand_made import name, noise, write_truth_file

SIZE = (2, 3, 4)
JITTER = {"side": [50, 79], "shift": [-10, 9], "crops": 1}


def row(
    number: int,
    split: str = "train",
    body: Box = Box((0, 0, 0), (20, 20, 20)),
    lungs: Box | None = None,
    patient: str | None = None,
    shape: tuple[int, int, int] = (20, 20, 20),
    spacing_mm: tuple[float, float, float] = (5.0,) * 3,
    origin_mm: tuple[float, float, float] = (0.0,) * 3,
) -> SurveyRow:
    """Scan `number`: 20 voxels of 5 mm along every axis, the first centre at 0; of a patient of its own.

    A shape is (z, y, x), spacing and origin are (x, y, z).
    """
    boxes = {"body": (body, "body"), "lungs": (lungs or body, "lungs")}
    seen = Survey(name(number), shape, boxes, spacing_mm, origin_mm)
    return SurveyRow.of(seen, patient or f"patient-{number}", split)


def write_truth(folder: Path, number: int, shift_mm, own_below_x: float = -np.inf) -> None:
    """An atlas in which the point p of this scan is p + shift; something of the patient's own below some x."""
    folder.mkdir(exist_ok=True)
    nodes = np.broadcast_to(np.reshape(shift_mm, (1, 3, 1, 1, 1)), (1, 3, 2, 2, 2))
    labels = np.broadcast_to(np.arange(0, 101, 10) >= own_below_x, (11, 11, 11))
    write_truth_file(
        folder / f"{name(number)}.h5", nodes, labels, grid_spacing_mm=(100.0,) * 3, spacing_mm=(10.0,) * 3
    )


def write_discovered(
    folder: Path,
    surveys: Sequence[SurveyRow],
    corners: Sequence[tuple[int, tuple[int, int, int]]],
    validation: Sequence[tuple[int, int, tuple[float, float, float]]] = (),
    **settings,
) -> Path:
    """Patterns on corners (scan, corner), crops in validation patients (pattern, scan, centre in mm) alone."""
    folder.mkdir()
    write_patterns(
        folder / "patterns.csv",
        [
            PatternRow(p, name(scan), f"patient-{scan}", *corner, 0.5, 0.5, 0.5, 0.2)
            for p, (scan, corner) in enumerate(corners)
        ],
    )
    write_surveys(folder / "surveys.csv", surveys)
    crops = [
        (
            p,
            1,
            resolution,
            name(scan).encode(),
            b"x",
            b"validation",
            (0, 0, 0),
            SIZE,
            np.add(centre, 40 * resolution),
        )
        for p, scan, centre in validation
        for resolution in (0, 1)
    ]
    write_crops(folder / "crops.csv", [np.array(crops, CROP)])
    known = {"frame": "body", "k": 3, "patch_size": SIZE, "jitter": JITTER}
    (folder / "metrics.json").write_text(json.dumps(known | settings))
    return folder


def study(
    mm,
    patient: Sequence[int] | None = None,
    reference: Sequence[int] | None = None,
    k: int | None = 3,
    **changes,
) -> Study:
    """A study in frame body in which the patterns (p) lie that far off along x in the scans (s); NaN: do not fit.

    Every scan is a patient's own unless patients are given; pattern p is of scan p. `body_mm` (p, s) are the whole body's
    distances, the patterns' own unless they are given, and `own` (p, s) says which crops are nearest to their own pattern.
    """
    mm = np.array(mm, float)
    patterns, scans = mm.shape
    patient = np.arange(scans) if patient is None else np.array(patient)
    reference = np.arange(patterns) if reference is None else np.array(reference)
    fits = np.isfinite(mm) & (patient[reference][:, None] != patient)
    atlas = np.zeros((patterns, scans, 3))
    atlas[..., 0] = mm
    own, body_mm = (np.array(changes.pop(key, plain), float) for key, plain in
                    (("own", np.ones(mm.shape)), ("body_mm", mm)))  # fmt: skip
    laid = Laid(fits, np.where(fits, mm, np.nan), atlas, own, body_mm)
    return Study(
        patterns=[PatternRow(p, name(reference[p]), "", 0, 0, 0, 0, 0, 0, 0) for p in range(patterns)],
        surveys=[row(i, patient=f"patient-{patient[i]}") for i in range(scans)],
        scans=np.array([name(i) for i in range(scans)], "S12"),
        patients=np.array([f"patient-{i}" for i in range(patient.max() + 1)], "S64"),
        patient=patient,
        first=np.array([np.flatnonzero(patient == i)[0] for i in range(patient.max() + 1)]),
        reference=reference,
        frame="body",
        k=k,
        patch_size=SIZE,
        centre=np.zeros((patterns, 3)),
        organ=np.zeros(patterns, int),
        origin=np.zeros((patterns, 3)),
        frames={"body": laid},
        validation=[np.empty(0)] * patterns,
        without_truth=0,
    )


def cache_of(
    path: Path, groups: Sequence[np.ndarray], validation: Sequence[np.ndarray] | None = None
) -> Path:
    """Group g of patches (n, z, y, x) is pattern g; each has a jittered and a validation patch of noise beside it.

    With `validation` its patches are those of validation patients 0, 1, ... instead.
    """
    rows, patches = [], []
    size = groups[0].shape[1:]
    for g, group in enumerate(groups):
        for rank, patch in enumerate(group):
            rows.append((g, rank, 0, b"s", b"p", b"train", (0, 0, 0), size))
            rows.append((g, rank, 1, b"s", b"p", b"train", (0, 0, 0), size))
            patches += [patch, noise(rank, size)]
        for i, patch in enumerate([noise(99, size)] if validation is None else validation[g]):
            rows.append((g, i + 1, 0, b"s", f"v{i}".encode(), b"validation", (0, 0, 0), size))
            patches.append(patch)
    write_cache(
        path,
        np.array(rows, ROW),
        enumerate(patches),
        hu_min=-1000,
        hu_max=1000,
        patterns=len(groups),
        patch_size=size,
        compression="none",
    )
    return path


def write_thumbnails(path: Path, images: np.ndarray) -> None:
    """thumbnails.h5 of scans 0, 1, ..., in the opposite order."""
    with create_h5(path) as file:
        write_array(file, "thumbnails", images[::-1].astype(np.int16))
        write_array(file, "scan", np.array([name(i) for i in reversed(range(len(images)))], "S12"))
        file.attrs["hu_min"], file.attrs["hu_max"] = -1000.0, 1000.0
