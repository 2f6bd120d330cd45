"""What is known of all persons and scans of a phantom cohort: truth/people.csv, acquisition.csv and twins.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sg.cohorts.phantom.rendering import Scan
from sg.cohorts.records import write_rows


@dataclass(frozen=True)
class PersonRow:
    """A row of people.csv: who a scan shows. Volumes are those aimed at, whether or not the scan shows all of it.

    NaN, 0 or an empty text stands for what a person has not.
    """

    scan: str
    sex: str
    age_years: float
    height_cm: float
    weight_kg: float
    fat_mm: float
    liver_ml: float
    spleen_ml: float
    lungs_ml: float
    scoliosis_mm: float
    azygos: int
    effusion: str  # lung_right or lung_left
    effusion_mm: float
    emphysema: float
    removed_lobe: str
    nodules: int  # or liver lesions, shown or not
    shown: int


@dataclass(frozen=True)
class AcquisitionRow:
    """A row of acquisition.csv: how a scan was made. Tuples are (x, y, z)."""

    scan: str
    covers: str
    phase: str
    kernel: str
    thickness_mm: float
    noise_hu: float
    modulation: float
    streaks: float
    motion_diaphragm_mm: float
    motion_heart_mm: float
    motion_doubled: int
    table: str
    things: tuple[str, ...]
    padding_hu: str  # empty where nothing is padded
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]  # row by row; a column is where one index grows to
    orientation: str


@dataclass(frozen=True)
class TwinOfRow:
    """A row of twins.csv: a scan, and the scan of another cohort that shows the same person."""

    scan: str
    cohort: str
    twin: str


def person_row(name: str, scan: Scan) -> PersonRow:
    """Who the scan of that name shows."""
    patient, found = scan.person.patient, scan.person.findings
    build, sizes, variants = patient.habitus, patient.sizes, patient.variants
    effusion = variants.effusion
    return PersonRow(
        name,
        build.sex,
        round(float(build.age_years), 1),
        round(float(build.height_cm), 1),
        round(float(build.weight_kg), 1),
        round(float(build.fat_mm), 1),
        round(float(sizes.liver_ml), 1),
        round(float(sizes.spleen_ml), 1),
        round(float(sizes.lungs_ml), 1),
        round(float(variants.scoliosis_mm), 1),
        int(variants.azygos),
        "" if effusion is None else effusion.side,
        0.0 if effusion is None else round(float(effusion.depth_mm), 1),
        round(float(variants.emphysema), 3),
        variants.removed_lobe or "",
        len(found.nodules) + len(found.lesions),
        len(scan.shown.nodules) + len(scan.shown.lesions),
    )


def acquisition_row(name: str, scan: Scan) -> AcquisitionRow:
    """How the scan of that name was made."""
    made, grid = scan.acquisition, scan.grid
    return AcquisitionRow(
        name,
        made.covers,
        made.phase,
        made.kernel,
        float(made.thickness_mm),
        float(made.noise_hu),
        float(made.modulation),
        float(made.streaks),
        float(made.motion.diaphragm_mm),
        float(made.motion.heart_mm),
        int(made.motion.doubled),
        made.table,
        made.things,
        "" if made.padding_hu is None else str(made.padding_hu),
        grid.size,
        tuple(map(float, grid.spacing_mm)),
        tuple(map(float, grid.origin_mm)),
        tuple(map(float, grid.direction.ravel())),
        grid.orientation,
    )


def write_tables(
    folder: Path,
    people: Sequence[PersonRow],
    acquisitions: Sequence[AcquisitionRow],
    twins: Sequence[TwinOfRow],
) -> None:
    """The three tables, in the order given."""
    write_rows(folder / "people.csv", PersonRow, people)
    write_rows(folder / "acquisition.csv", AcquisitionRow, acquisitions)
    write_rows(folder / "twins.csv", TwinOfRow, twins)
