"""The tables of discovery: patterns.csv, crops.csv and positions.csv.

Corners are the first voxel (z, y, x) of a box, extents its sides; positions are (x, y, z) in mm, LPS.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg.cohorts.records import read_rows, write_rows
from sg.errors import InputError

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
# A row of positions.csv: where a pattern's centre lies in the reference scan of every training patient.
POSITION_COLUMNS = ["pattern", "scan", "centre_x_mm", "centre_y_mm", "centre_z_mm", "fits"]


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


def read_positions(path: Path) -> Iterator[tuple[int, str, tuple[float, float, float], bool]]:
    """The rows of positions.csv one by one: pattern, scan, centre in mm (x, y, z), whether the patch fits there."""
    for pattern, scan, x, y, z, fits in _read_table(path, POSITION_COLUMNS):
        yield int(pattern), scan, (float(x), float(y), float(z)), fits == "1"


def _triples(cells: list[str]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    return tuple(map(int, cells[:3])), tuple(map(int, cells[3:6])), tuple(map(float, cells[6:]))


def write_crops(path: Path, crops: Iterable[np.ndarray]) -> None:
    """Write crops.csv from arrays of CROP, one after another."""
    _write_table(path, CROP_COLUMNS, (cells for rows in crops for cells in _crop_cells(rows)))


def write_positions(
    path: Path, scans: Sequence[str], positions: Iterable[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Write positions.csv: of each pattern its centres in mm (n, 3) in those scans (n), and whether it fits (n,)."""
    _write_table(path, POSITION_COLUMNS, _position_cells(scans, positions))


def _crop_cells(crops: np.ndarray) -> Iterator[list[object]]:
    for pattern, rank, resolution, scan, patient, split, corner, extent, centre in crops:
        texts = (text.decode() for text in (scan, patient, split))
        centres = (repr(float(value)) for value in centre)
        yield [pattern, rank, resolution, *texts, *corner, *extent, *centres]


def _position_cells(
    scans: Sequence[str], positions: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[list[object]]:
    for pattern, (centres, fits) in enumerate(positions):
        for scan, centre, fit in zip(scans, centres, fits, strict=True):
            yield [pattern, scan, *(repr(float(value)) for value in centre), int(fit)]


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
