"""A whole phantom cohort, patient by patient, in parallel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg.cohorts.phantom import layouts
from sg.cohorts.phantom.layouts import Place
from sg.cohorts.phantom.rendering import LABELS, Scan, render
from sg.cohorts.phantom.truth import write_truth
from sg.console import Progress
from sg.errors import InputError
from sg.params import PhantomRecipe, PhantomShared
from sg.processes import Lost, spread
from sg.randomness import generator


@dataclass(frozen=True)
class Job:
    """One patient to make: all that its files follow from, and where they go."""

    folder: Path
    seed: int
    cohort: str
    place: Place
    recipe: PhantomRecipe
    shared: PhantomShared

    def draw(self, purpose: str) -> np.random.Generator:
        """The patient's generator for one purpose; no other patient and no other purpose shares it."""
        return generator(self.seed, "phantom", f"{self.cohort}/{self.place.number}", purpose)


@dataclass(frozen=True)
class Made:
    """What is known of one written patient."""

    stem: str
    rows: tuple[list[str], list[str]]  # lines of annotations.csv and candidates_V2.csv
    findings: int
    interpolation_error_mm: float


def make(
    folder: Path, seed: int, cohort: str, recipe: PhantomRecipe, shared: PhantomShared, workers: int
) -> list[Made]:
    """Write a cohort into an empty folder: scans and tables in the recipe's layout, and truth/.

    Nothing depends on `workers`; each holds one scan at a time.
    """
    (folder / "truth").mkdir()
    jobs = [Job(folder, seed, cohort, place, recipe, shared) for place in layouts.places(recipe)]
    made = _run(jobs, workers)
    if recipe.layout == "luna16":
        layouts.finish_luna16(folder, [one.rows for one in made])
    else:
        layouts.finish_decathlon(folder, [one.stem for one in made])
    mark = {
        "phantom": "synthetic scans with known truth; made by this repository, not patients",
        "layout": recipe.layout,
        "scans": len(made),
        "labels": list(LABELS),
        "truth_grid_mm": shared.truth_grid_mm,
        "interpolation_error_mm_largest": max(one.interpolation_error_mm for one in made),
    }
    text = json.dumps(mark, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "truth" / "phantom.json").write_text(text, encoding="utf-8")
    return made


def make_one(job: Job) -> Made:
    """Render and write one patient."""
    scan = render_one(job)
    if job.recipe.layout == "luna16":
        stem = layouts.luna16_stem(job.place, job.draw("series"))
        layouts.write_luna16(job.folder, stem, scan)
        rows = layouts.luna16_rows(stem, scan)
    else:
        stem = layouts.decathlon_stem(job.place)
        layouts.write_decathlon(job.folder, stem, scan)
        rows = ([], [])
    error = write_truth(
        job.folder / "truth" / f"{stem.rsplit('/', 1)[-1]}.h5", scan, job.shared.truth_grid_mm
    )
    return Made(stem, rows, len(scan.nodules), error)


def render_one(job: Job) -> Scan:
    """One patient's scan, not written."""
    return render(job.draw, job.place.number, job.recipe, job.shared)


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
