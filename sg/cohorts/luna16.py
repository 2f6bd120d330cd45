"""LUNA16's layout: subset0 to subset9 of <seriesuid>.mhd, annotations.csv, candidates_V2.csv.

Source: https://luna16.grand-challenge.org/Data/. Positions in its tables are world mm as ITK has them (LPS). LUNA16
names no patients: a series is a patient. The split is Models Genesis': subsets 0-4 train, 5-6 validation, 7-9 test.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sg.cohorts.folder import Listing, check_table, survey_without_dicom
from sg.cohorts.records import Mark
from sg.errors import InputError
from sg.params import Source

SPLIT_OF_SUBSET = dict(enumerate(["train"] * 5 + ["validation"] * 2 + ["test"] * 3))
CANDIDATES = ("candidates_V2.csv", "candidates.csv")  # the first that is there
TABLE_FOLDERS = (".", "CSVFILES", "evaluationScript/annotations")  # where the archives' tables end up


def list_luna16(raw: Path, source: Source, workers: int) -> Listing:
    """The scans of the subset folders with their split and marks; scans elsewhere (lung masks) are only counted.

    Missing tables are a warning, malformed ones an InputError.
    """
    listing = survey_without_dicom(raw, Path(source.path), "luna16")
    marks, tables = _marks(raw, raw / source.path, listing)
    entries, elsewhere = [], 0
    for entry in listing.entries:
        subset = _subset(entry.path.relative_to(source.path))
        if subset is None:
            elsewhere += 1
            continue
        own = SPLIT_OF_SUBSET[subset]
        entries.append(
            replace(entry, split=own, series=entry.patient, marks=tuple(marks.get(entry.patient, ())))
        )
    listing.entries = entries
    if elsewhere:
        listing.ignored["scan outside the subset folders"] += elsewhere
    absent = sorted(set(marks) - {entry.series for entry in entries})
    if absent:
        listing.notes.append(
            f"{tables} name {len(absent)} series of which there is no scan in {source.path}, {absent[0]} first"
        )
    return listing


def _subset(path: Path) -> int | None:
    """The subset's number from the folder nearest to the file that has one in its name."""
    matches = [re.fullmatch(r"subset([0-9])", part, re.IGNORECASE) for part in path.parts[:-1]]
    numbers = [int(match[1]) for match in matches if match]
    return numbers[-1] if numbers else None


def _marks(raw: Path, folder: Path, listing: Listing) -> tuple[dict[str, list[Mark]], str]:
    """What the tables mark in each series, and the names of the tables that were found."""
    marks: dict[str, list[Mark]] = {}
    found = []
    for names, read in ((("annotations.csv",), _nodules), (CANDIDATES, _candidates)):
        paths = [folder / place / name for name in names for place in TABLE_FOLDERS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            listing.warnings.append(f"{folder.name} has no {names[0]}, so its scans have no such findings")
            continue
        check_table(path, raw)
        found.append(path.name)
        for series, mark in read(path):
            marks.setdefault(series, []).append(mark)
    return marks, " and ".join(found)


def _nodules(path: Path) -> Iterator[tuple[str, Mark]]:
    for line, row in _rows(path, ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]):
        diameter = _number(path, line, "diameter_mm", row["diameter_mm"])
        yield row["seriesuid"], Mark("nodule", "nodule", _position(path, line, row), diameter)


def _candidates(path: Path) -> Iterator[tuple[str, Mark]]:
    labels = {"0": "non-nodule", "1": "nodule"}
    for line, row in _rows(path, ["seriesuid", "coordX", "coordY", "coordZ", "class"]):
        if row["class"] not in labels:
            raise InputError(
                f"{path}, line {line}: class must be 0 or 1, got {row['class']!r}; restore the file"
            )
        yield row["seriesuid"], Mark("candidate", labels[row["class"]], _position(path, line, row), math.nan)


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(columns) <= set(reader.fieldnames or []):
                raise InputError(
                    f"{path}: must have the columns {', '.join(columns)}, got {reader.fieldnames}; restore the file"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {reader.line_num}: must have {len(reader.fieldnames)} cells; restore the file"
                    )
                yield reader.line_num, {key: value.strip() for key, value in row.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV file of UTF-8 text ({error}); restore the file") from None


def _position(path: Path, line: int, row: dict[str, str]) -> tuple[float, float, float]:
    x, y, z = (_number(path, line, key, row[key]) for key in ("coordX", "coordY", "coordZ"))
    return x, y, z


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {line}: {column} must be a number, got {cell!r}; restore the file")
    return value
