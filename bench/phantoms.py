"""Phantoms for the measurements here, made on the spot: the same for the same seed, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sg.cohorts.phantom import layouts
from sg.cohorts.phantom.making import Job, render_one
from sg.cohorts.phantom.rendering import Scan
from sg.params import ChestPhantoms, LiverPhantoms, PhantomShared
from sg.processes import spread

SHARED = PhantomShared(
    spacing_xy_mm=(3.0, 3.0),
    spacing_z_mm=(3.0, 3.0),
    noise_hu=(5.0, 12.0),
    chest_range_mm=(-208.0, 107.0),
    abdomen_range_mm=(-328.0, -58.0),
    parts=0.0,
    oblique_deg=0.0,
    nodule_mm=(4.0, 30.0),
    variants=0.2,
    truth_grid_mm=20.0,
)
CHESTS = ChestPhantoms(
    layout="luna16", train=1, validation=0, test=0, nodules=(1, 4), candidates=40, twins_of=None, twins=0
)
LIVERS = LiverPhantoms(layout="decathlon-liver", train=1, validation=0, test=0, lesions=(0, 3))


def rendered(
    recipe: ChestPhantoms | LiverPhantoms,
    count: int,
    seed: int,
    shared: PhantomShared = SHARED,
    workers: int = 2,
) -> Iterator[Scan]:
    """The first `count` training patients of a cohort named `bench`, in order."""
    places = layouts.places(recipe.model_copy(update={"train": count}))
    jobs = [Job(Path(), seed, "bench", place, recipe, shared) for place in places]
    waiting: dict[int, Scan] = {}
    following = 0
    for job, scan in spread(render_one, jobs, workers):
        waiting[job.place.number] = scan
        while following in waiting:
            yield waiting.pop(following)
            following += 1
