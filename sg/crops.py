"""The tables of discovery: patterns.csv, crops.csv and surveys.csv.

Corners are the first voxel (z, y, x) of a box, extents its sides; positions are (x, y, z) in mm, LPS.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from sg.cohorts.records import read_rows, write_rows
from sg.errors import InputError
from sg.frames import Box
from sg.laying import Survey

# A row of crops.csv. rank is the place in the ranking of its split's patients: 0 is the reference itself, the nearest
# validation patient is 1; gaps are patients that the pattern does not fit into. Resolution 0 is the fixed crop.
CROP = np.dtype(
    [
        ("pattern", "i4"),
        ("rank", "i4"),
        ("resolution", "i4"),
        ("scan", "S12"),
        ("patient", "S64"),
        ("split", "S10"),
        ("corner", "i4", 3),
        ("extent", "i4", 3),
        ("centre_mm", "f8", 3),
    ]
)
CROP_COLUMNS = [
    *("pattern", "rank", "resolution", "scan", "patient", "split"),
    *("corner_z", "corner_y", "corner_x", "extent_z", "extent_y", "extent_x"),
    *("centre_x_mm", "centre_y_mm", "centre_z_mm"),
]


@dataclass(frozen=True)
class PatternRow:
    """A row of patterns.csv: a pattern on its reference.

    `fraction` is the patch's centre as a fraction of the frame's box (in frame `voxel`, of the scan); `tissue` the
    patch's mean tissue score.
    """

    pattern: int
    scan: str
    patient: str
    corner_z: int
    corner_y: int
    corner_x: int
    fraction_z: float
    fraction_y: float
    fraction_x: float
    tissue: float


@dataclass(frozen=True)
class SurveyRow:
    """A row of surveys.csv: a scan that patterns may be laid in, its geometry and its boxes, all in its own voxels.

    Boxes are from the first voxel to the one behind the last; `found` says what stands in for a body or lungs that were
    not found (lungs, body, scan). With it a coordinate of any frame is laid without opening a volume.
    """

    scan: str
    patient: str
    split: str
    shape_z: int
    shape_y: int
    shape_x: int
    spacing_x_mm: float
    spacing_y_mm: float
    spacing_z_mm: float
    origin_x_mm: float
    origin_y_mm: float
    origin_z_mm: float
    body_start_z: int
    body_start_y: int
    body_start_x: int
    body_stop_z: int
    body_stop_y: int
    body_stop_x: int
    lungs_start_z: int
    lungs_start_y: int
    lungs_start_x: int
    lungs_stop_z: int
    lungs_stop_y: int
    lungs_stop_x: int
    body_found: str
    lungs_found: str

    @classmethod
    def of(cls, seen: Survey, patient: str, split: str) -> SurveyRow:
        """The row of a surveyed scan."""
        (body, body_found), (lungs, lungs_found) = seen.boxes["body"], seen.boxes["lungs"]
        numbers = (
            *seen.shape,
            *seen.spacing_mm,
            *seen.origin_mm,
            *body.start,
            *body.stop,
            *lungs.start,
            *lungs.stop,
        )
        return cls(seen.scan, patient, split, *numbers, body_found, lungs_found)

    @property
    def survey(self) -> Survey:
        """What it is the row of, without the tissue mask."""
        numbers = astuple(self)[3:-2]
        shape, spacing_mm, origin_mm, *corners = (numbers[i : i + 3] for i in range(0, len(numbers), 3))
        body, lungs = Box(*corners[:2]), Box(*corners[2:])
        boxes = {
            "voxel": (Box((0, 0, 0), shape), "scan"),
            "body": (body, self.body_found),
            "lungs": (lungs, self.lungs_found),
        }
        return Survey(self.scan, shape, boxes, spacing_mm, origin_mm)


def write_patterns(path: Path, rows: Iterable[PatternRow]) -> None:
    """Write patterns.csv."""
    write_rows(path, PatternRow, rows)


def read_patterns(path: Path) -> list[PatternRow]:
    """The rows of patterns.csv."""
    return read_rows(path, PatternRow)


def read_crops(path: Path) -> np.ndarray:
    """The rows of crops.csv as an array of CROP, in the table's order. InputError if it is missing or another table."""
    return np.fromiter(
        (
            (int(p), int(k), int(r), scan.encode(), patient.encode(), split.encode(), *_triples(rest))
            for p, k, r, scan, patient, split, *rest in _read_table(path, CROP_COLUMNS)
        ),
        CROP,
    )


def write_surveys(path: Path, rows: Iterable[SurveyRow]) -> None:
    """Write surveys.csv."""
    write_rows(path, SurveyRow, rows)


def read_surveys(path: Path) -> list[SurveyRow]:
    """The rows of surveys.csv."""
    return read_rows(path, SurveyRow)


def _triples(cells: list[str]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    return tuple(map(int, cells[:3])), tuple(map(int, cells[3:6])), tuple(map(float, cells[6:]))


def write_crops(path: Path, crops: Iterable[np.ndarray]) -> None:
    """Write crops.csv from arrays of CROP, one after another."""
    _write_table(path, CROP_COLUMNS, (cells for rows in crops for cells in _crop_cells(rows)))


def _crop_cells(crops: np.ndarray) -> Iterator[list[object]]:
    for pattern, rank, resolution, scan, patient, split, corner, extent, centre in crops:
        texts = (text.decode() for text in (scan, patient, split))
        centres = (repr(float(value)) for value in centre)
        yield [pattern, rank, resolution, *texts, *corner, *extent, *centres]


def _write_table(path: Path, columns: list[str], rows: Iterable[list[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _read_table(path: Path, columns: list[str]) -> Iterator[list[str]]:
    try:
        file = open(path, encoding="utf-8", newline="")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None
    with file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header != columns:
            raise InputError(
                f"{path}: the columns must be {columns}, got {header}; run `dvc repro` to make it again"
            )
        yield from rows
