"""A whole phantom cohort, patient by patient, in parallel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sg.cohorts.phantom import tables
from sg.cohorts.phantom.acquisition import draw_acquisition
from sg.cohorts.phantom.brain.rendering import BrainScan, draw_brain
from sg.cohorts.phantom.brain.truth import write_brain_truth
from sg.cohorts.phantom.layouts import (
    Place,
    brats,
    decathlon,
    decathlon_brain,
    lidc,
    luna16,
    places,
)
from sg.cohorts.phantom.person import draw_person
from sg.cohorts.phantom.places import NoRoom
from sg.cohorts.phantom.rendering import Scan, render
from sg.cohorts.phantom.tables import AcquisitionRow, PersonRow, TwinOfRow
from sg.cohorts.phantom.truth import write_truth
from sg.console import Progress
from sg.errors import InputError
from sg.params import AnyPhantoms, ChestPhantoms, PhantomShared
from sg.processes import Lost, spread
from sg.randomness import generator


@dataclass(frozen=True)
class Origin:
    """Whose chance a person's body comes from: a place in a cohort."""

    cohort: str
    recipe: AnyPhantoms
    place: Place


@dataclass(frozen=True)
class Job:
    """One patient to make: all that its files follow from, and where they go.

    `twin_of` is the patient of another cohort whose person this is.
    """

    folder: Path
    seed: int
    cohort: str
    place: Place
    recipe: AnyPhantoms
    shared: PhantomShared
    twin_of: Origin | None = None

    def draw(self, purpose: str) -> np.random.Generator:
        """The scan's generator for one purpose; no other patient and no other purpose shares it."""
        return _draw(self.seed, self.cohort, self.place, purpose)

    @property
    def person(self) -> Origin:
        """Whom the scan shows."""
        return self.twin_of or Origin(self.cohort, self.recipe, self.place)

    def draw_of_person(self, purpose: str) -> np.random.Generator:
        """The person's generator for one purpose: the same for each of its scans."""
        return _draw(self.seed, self.person.cohort, self.person.place, purpose)


@dataclass(frozen=True)
class Known:
    """What the tables of truth/ say of one scan; of a brain nothing but how many findings it shows."""

    findings: int
    person: PersonRow | None = None
    acquisition: AcquisitionRow | None = None
    interpolation_error_mm: float = 0.0


@dataclass(frozen=True)
class Made:
    """What is known of one written patient. `lines` is what its layout's tables say of it."""

    stem: str
    lines: Any
    known: Known
    twin: TwinOfRow | None


class Layout(NamedTuple):
    """How the patients of one data set are made and written."""

    files: ModuleType  # what names and writes them: `stem`, `write` and `finish`, as sg.cohorts.phantom.layouts says
    scan: Callable[[Job], Any]
    know: Callable[[Path, Any, Job], Known]  # writes truth/<name>.h5 of a scan


def _body(protocol: str, job: Job) -> Scan:
    """A scan of the body by a protocol (chest, abdomen)."""
    try:
        person = draw_person(job.draw_of_person, job.person.recipe, job.shared)
    except NoRoom as error:
        place = job.person.place
        raise InputError(
            f"phantom.recipes.{job.person.cohort}, {place.split} patient {place.turn + 1}: {error}"
        ) from error
    acquired = draw_acquisition(
        person.patient, job.place.number, protocol, job.shared, job.draw_of_person, job.draw
    )
    return render(person, acquired, job.draw)


def _know_body(path: Path, scan: Scan, job: Job) -> Known:
    error = write_truth(path, scan, job.shared.truth_grid_mm)
    found = len(scan.shown.nodules) + len(scan.shown.lesions)
    return Known(
        found,
        tables.person_row(path.stem, scan),
        tables.acquisition_row(path.stem, scan),
        error,
    )


def _brain(job: Job) -> BrainScan:
    return draw_brain(job.draw, job.recipe)


def _know_brain(path: Path, scan: BrainScan, job: Job) -> Known:
    error = write_brain_truth(path, scan, job.place.split)
    return Known(1, interpolation_error_mm=error)  # a tumour each


LAYOUTS = {
    "luna16": Layout(luna16, partial(_body, "chest"), _know_body),
    "lidc": Layout(lidc, partial(_body, "chest"), _know_body),
    "decathlon-liver": Layout(decathlon, partial(_body, "abdomen"), _know_body),
    "brats": Layout(brats, _brain, _know_brain),
    "decathlon-brain": Layout(decathlon_brain, _brain, _know_brain),
}


def jobs(
    folder: Path,
    seed: int,
    cohort: str,
    recipes: Mapping[str, AnyPhantoms],
    shared: PhantomShared,
) -> list[Job]:
    """Every patient of a cohort; a recipe's twins are the first of every split in turn."""
    recipe = recipes[cohort]
    twins: dict[Place, Origin] = {}
    if isinstance(recipe, ChestPhantoms) and recipe.twins_of is not None:
        counts, other = recipe.twins_by_split(), recipes[recipe.twins_of]
        there = {(place.split, place.turn): place for place in places(other)}
        twins = {
            place: Origin(recipe.twins_of, other, there[place.split, place.turn])
            for place in places(recipe)
            if place.turn < counts[place.split]
        }
    return [Job(folder, seed, cohort, place, recipe, shared, twins.get(place)) for place in places(recipe)]


def make(
    folder: Path,
    seed: int,
    cohort: str,
    recipes: Mapping[str, AnyPhantoms],
    shared: PhantomShared,
    workers: int,
) -> list[Made]:
    """Write a cohort into an empty folder: scans and tables in its recipe's layout, and truth/.

    Of the other recipes only that of a cohort that has twins here is looked at. Nothing depends on `workers`; each holds
    one scan at a time.
    """
    (folder / "truth").mkdir()
    made = _run(jobs(folder, seed, cohort, recipes, shared), workers)
    layout = recipes[cohort].layout
    LAYOUTS[layout].files.finish(folder, [(one.stem, one.lines) for one in made])
    known = [one.known for one in made]
    bodies = [one for one in known if one.person is not None]
    if bodies:
        tables.write_tables(
            folder / "truth",
            [one.person for one in bodies],
            [one.acquisition for one in bodies],
            [one.twin for one in made if one.twin is not None],
        )
    mark = {
        "phantom": "synthetic scans with known truth; made by this repository, not patients",
        "layout": layout,
        "scans": len(made),
        "interpolation_error_mm_largest": max(one.interpolation_error_mm for one in known),
    }
    text = json.dumps(mark, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "truth" / "phantom.json").write_text(text, encoding="utf-8")
    return made


def make_one(job: Job) -> Made:
    """Render and write one patient."""
    layout = LAYOUTS[job.recipe.layout]
    stem = layout.files.stem(job.place, job.draw)
    scan = layout.scan(job)
    lines = layout.files.write(job.folder, stem, scan, job.draw)
    known = layout.know(job.folder / "truth" / f"{_name(stem)}.h5", scan, job)
    return Made(stem, lines, known, _twin(job, stem))


def render_one(job: Job) -> Scan | BrainScan:
    """One patient's scan, not written."""
    return LAYOUTS[job.recipe.layout].scan(job)


def _twin(job: Job, stem: str) -> TwinOfRow | None:
    """The row of twins.csv of a twin: what the other scan is called follows from its place, without making it."""
    if job.twin_of is None:
        return None
    other = LAYOUTS[job.twin_of.recipe.layout].files.stem(job.twin_of.place, job.draw_of_person)
    return TwinOfRow(_name(stem), job.twin_of.cohort, _name(other))


def _name(stem: str) -> str:
    """What truth/ and its tables call a scan: the last part of its path."""
    return stem.rsplit("/", 1)[-1]


def _draw(seed: int, cohort: str, place: Place, purpose: str) -> np.random.Generator:
    return generator(seed, "phantom", f"{cohort}/{place.number}", purpose)


def _run(jobs: list[Job], workers: int) -> list[Made]:
    """Every job's result, in the order of the jobs."""
    made: dict[int, Made] = {}
    with Progress("phantoms", len(jobs), "scans") as progress:
        for job, one in spread(make_one, jobs, workers):
            if isinstance(one, Lost):
                raise InputError(
                    f"phantom {job.cohort}/{job.place.number}: a scan must fit into memory, and this one did not; "
                    "close other programs or raise phantom.shared.spacing_xy_mm and spacing_z_mm"
                )
            made[job.place.number] = one
            progress.step()
    return [made[job.place.number] for job in jobs]
