"""A resampled cohort of a few small scans, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.records import FindingRow, QuarantineRow, ScanRow, write_rows
from sg.resampled import Resampled
from sg.resampling import write_resampled
from sg.roles import TASK_ROLES, Roles, decide_roles

SPACING = (2.0, 1.0, 3.0)  # (x, y, z), so that a mistaken order shows
ORIGIN = (-10.0, 5.0, 100.0)


def scan_row(number: int, split: str, use=("ncc", "lcs"), truth="truth", patient=None) -> ScanRow:
    return ScanRow(
        f"{number:012x}",
        patient or f"patient{number}",
        *("source", "folder", tuple(use), split, f"{number}.nii", "", truth, "CT"),
        *((20, 18, 10), SPACING, "LPS", 1, "0" * 64, "0" * 64),
    )


def serving(scans: Sequence[ScanRow], task: str) -> list[ScanRow]:
    """The scans that `targets` gives to a task."""
    return Roles(decide_roles(scans)).scans(scans, task, *TASK_ROLES.values())


def position(z: float, y: float, x: float) -> tuple[float, float, float]:
    """mm (x, y, z) of a voxel."""
    return tuple(o + s * v for o, s, v in zip(ORIGIN, SPACING, (x, y, z), strict=True))


def candidate(scan: ScanRow, voxel, label: str) -> FindingRow:
    return FindingRow(scan.scan, "candidate", label, position(*voxel), float("nan"), "source")


def write_scan(folder: Path, row: ScanRow, image: np.ndarray, labels: np.ndarray | None = None) -> None:
    made = Resampled(image.astype(np.int16), labels, SPACING, ORIGIN, row.patient, -1000.0, 1000.0)
    write_resampled(folder / f"{row.scan}.h5", row.scan, made, image[:2, :2, :2].astype(np.int16), "key")


def finish(folder: Path, refused=()) -> Path:
    rows = [QuarantineRow(row.path, row.source, "too-small", "It is too small.", row.scan) for row in refused]
    write_rows(folder / "quarantine.csv", QuarantineRow, rows)
    return folder
