"""LUNA16: subset0..9/<series>.mhd and .raw, annotations.csv (nodules) and candidates_V2.csv.

Source: https://luna16.grand-challenge.org/Data/. Positions are LPS mm, as ITK reads them; candidates_V2.csv has the
nodules as class 1 and the look-alikes as class 0. Training patients stand in subsets 0 to 4 in turn, validation in 5 and
6, test in 7 to 9, as sg.cohorts.luna16 splits them; a subset without a patient has no folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.grid import Grid
from sg.cohorts.phantom.layouts import Place, draw_uid
from sg.cohorts.phantom.rendering import Scan

SUBSETS = {"train": (0, 1, 2, 3, 4), "validation": (5, 6), "test": (7, 8, 9)}
# MetaImage names the ends where the axes start, so that RAI is what ITK calls LPS by where they go.
STARTS = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
HEADERS = {
    "annotations.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm",
    "candidates_V2.csv": "seriesuid,coordX,coordY,coordZ,class",
}
Lines = dict[str, list[str]]  # of each table


def stem(place: Place, draw: Draw) -> str:
    """Path of a scan without its ending, relative to the cohort."""
    subsets = SUBSETS[place.split]
    return f"subset{subsets[place.turn % len(subsets)]}/{draw_uid(draw('series'))}"


def write(folder: Path, name: str, scan: Scan, draw: Draw) -> Lines:
    """The scan as <name>.mhd and <name>.raw (16-bit); its lines of the tables, for what of the findings it shows."""
    header = folder / f"{name}.mhd"
    header.parent.mkdir(exist_ok=True)
    raw = folder / f"{name}.raw"
    raw.write_bytes(scan.grid.stored(scan.hu).astype("<i2").tobytes())
    header.write_text(mhd_header(scan.grid, raw.name), encoding="ascii")

    series, shown = raw.stem, scan.shown
    nodules = [(one.centre_mm, _digits(one.diameter_mm)) for one in shown.nodules]
    candidates = [(one.centre_mm, "1") for one in shown.candidates]
    candidates += [(one.centre_mm, "0") for one in shown.look_alikes]
    # By position, so that the order of the lines does not give the class away.
    candidates.sort(key=lambda row: tuple(row[0]))
    return {
        table: [f"{series},{_position(scan.grid, centre)},{last}" for centre, last in rows]
        for table, rows in zip(HEADERS, (nodules, candidates), strict=True)
    }


def finish(folder: Path, written: Sequence[tuple[str, Lines]]) -> None:
    """annotations.csv and candidates_V2.csv, sorted by series as the data set's are."""
    by_series = sorted(written, key=lambda one: one[0].rsplit("/", 1)[-1])
    for table, header in HEADERS.items():
        lines = [header, *(line for _, of in by_series for line in of[table])]
        (folder / table).write_text("\n".join(lines) + "\n", encoding="ascii")


def mhd_header(grid: Grid, raw: str) -> str:
    """The header as ITK writes it, numbers with all the digits that a double has."""
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": _all_digits(grid.direction.T.ravel()),  # one axis after the other
        "Offset": _all_digits(grid.origin_mm),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "".join(STARTS[letter] for letter in grid.orientation),
        "ElementSpacing": _all_digits(grid.spacing_mm),
        "DimSize": _all_digits(grid.size),
        "ElementType": "MET_SHORT",
        "ElementDataFile": raw,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _all_digits(values: Iterable[float]) -> str:
    # Rounded where sums of steps have left a last digit that nobody measured; 0.0 takes the sign off a zero.
    return " ".join(f"{round(float(value), 12) + 0.0:.17g}" for value in values)


def _position(grid: Grid, centre_mm: np.ndarray) -> str:
    return ",".join(_digits(value) for value in grid.world(centre_mm[None])[0])


def _digits(value: float) -> str:
    """Ten significant digits, as the data set's tables have them."""
    return f"{value:.10g}"
