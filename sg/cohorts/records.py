"""What every layout yields, and the tables of a cohort: scans.csv, files.csv, findings.csv, quarantine.csv, twins.csv.

Positions in mm are (x, y, z) in LPS; sizes and spacings are (x, y, z).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar

from sg.errors import InputError

Row = TypeVar("Row")


@dataclass(frozen=True)
class Mark:
    """A labelled place in a scan, as a layout knows it, before the scan has an identity."""

    kind: str  # nodule, candidate
    label: str  # the class: nodule, non-nodule
    centre_mm: tuple[float, float, float]
    diameter_mm: float  # NaN where the data set gives none


@dataclass(frozen=True)
class Entry:
    """A scan as a layout lists it, not read yet. Paths are relative to `cohort.raw`."""

    path: Path  # the file; of a DICOM series the folder that holds all its files
    patient: str
    split: str | None  # the data set's own: train, validation, test; None where it has none
    series: str | None  # SeriesInstanceUID, where the files or the layout name it
    truth: Path | None  # label map on the scan's grid
    marks: tuple[Mark, ...] = ()
    files: tuple[Path, ...] = ()  # of a DICOM series, in the order of SOPInstanceUID; else empty

    @property
    def place(self) -> Path | tuple[Path, ...]:
        """What to read, relative to `cohort.raw`: the file, or the files of a DICOM series."""
        return self.files or self.path


@dataclass(frozen=True)
class ScanRow:
    """A row of scans.csv."""

    scan: str  # the first 12 hex digits of sha256
    patient: str
    source: str
    layout: str
    use: tuple[str, ...]  # pretrain and/or tasks
    split: str  # train, validation, test
    path: str  # relative to cohort.raw; of a DICOM series its folder, the files are in files.csv
    series: str  # SeriesInstanceUID; empty where there is none
    truth: str  # relative to cohort.raw; empty where there is none
    modality: str  # CT
    size: tuple[int, int, int]  # voxels (x, y, z) as stored
    spacing_mm: tuple[float, float, float]
    orientation: str  # of the stored axes, e.g. LPS, RAS
    bytes: int
    sha256: str
    truth_sha256: str  # of the label map's file(s); empty where there is none


@dataclass(frozen=True)
class FindingRow:
    """A row of findings.csv."""

    scan: str
    kind: str
    label: str
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    source: str


@dataclass(frozen=True)
class QuarantineRow:
    """A row of quarantine.csv: what was set aside, and why."""

    path: str
    source: str
    rule: str
    reason: str
    scan: str  # empty where the content was not read


@dataclass(frozen=True)
class FileRow:
    """A row of files.csv: one file of a scan that is a DICOM series, in the order of hashing."""

    scan: str
    file: str  # relative to cohort.raw


@dataclass(frozen=True)
class TwinRow:
    """A row of twins.csv: two scans that show one patient, whatever they are called."""

    scan: str
    twin: str
    by: str  # voxels: equal on the axes of LPS; thumbnail: alike
    correlation: float  # of their thumbnails; 1 where the voxels are equal
    patient: str  # that both have now
    patients: str  # that they had, where these differ: A and B


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Write rows as CSV with a header; tuples with spaces between their parts, floats so that they read back equal."""
    lines = [[_cell(value) for value in astuple(row)] for row in rows]
    # Before Python 3.13 a carriage return alone is no reason to quote, but ends the line when it is read
    plain = not any("\r" in cell for line in lines for cell in line)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL if plain else csv.QUOTE_ALL)
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(lines)
    path.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of such a table. InputError if the file is missing, its columns are others, or a cell cannot be one."""
    names = [field.name for field in fields(kind)]
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != names:
                raise InputError(
                    f"{path}: the columns must be {names}, got {header}; run `dvc repro` to make it again"
                )
            return [
                kind(*(_value(field.type, cell) for field, cell in zip(fields(kind), line, strict=True)))
                for line in reader
            ]
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: a line cannot be read ({error}); run `dvc repro` to make it again"
        ) from None


def of_use(rows: Sequence[ScanRow], use: str) -> list[ScanRow]:
    """The scans that serve `use` (pretrain, or a task), in the order of scans.csv."""
    return [row for row in rows if use in row.use]


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_cell, value))
    return repr(value) if isinstance(value, float) else str(value)


def _value(annotation: str, cell: str) -> object:
    """A cell as the field's annotation says (annotations are texts here)."""
    if annotation.startswith("tuple["):
        inner = annotation[6:-1].split(",")[0]
        return tuple(_value(inner, part) for part in cell.split())
    return {"str": str, "int": int, "float": float}[annotation](cell)
