"""All findings of a person: nodules, liver lesions, what looks like them, and where a detector would see them.

LUNA16's layout gets lung nodules, Decathlon's gets liver lesions (its label 2). LUNA16's negatives are of two sorts:
some stand on things drawn for the purpose, scars, bands, thickened pleura, lymph nodes and the like, which are there
in every patient whether listed or not, and as dense and as large as nodules; the others are places on vessels, walls
and edges that anybody has, as detectors that take every blob yield them (in LUNA16 all but 1,557 of 754,975).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.anatomy import Draw, Patient, Survey
from sg.cohorts.phantom.canvas import Canvas
from sg.cohorts.phantom.lesions import draw_lesions
from sg.cohorts.phantom.look_alikes import draw_drawn, list_places
from sg.cohorts.phantom.nodules import draw_nodules
from sg.cohorts.phantom.opacities import Opacity
from sg.cohorts.phantom.places import Ground, Place
from sg.cohorts.phantom.vessels import Trees
from sg.params import ChestPhantoms, LiverPhantoms, PhantomShared

__all__ = ["Findings", "Opacity", "Place", "Shown", "draw_findings", "shown"]

EDGE_MM = 9.0  # a finding nearer to the edge of the scan is not listed
# LUNA16 has 1,557 candidates for the 1,166 nodules that they hit (candidates_V2; recalled, not checked).
SEEN_TWICE = 1557 / 1166 - 1


@dataclass(frozen=True)
class Findings:
    """All findings of a person, in patient coordinates; a lesion's `hu` is its difference from the liver."""

    nodules: list[Opacity]
    lesions: list[Opacity]
    look_alikes: list[Place]  # listed as candidates that are no nodules
    drawn: list[Opacity]  # what some of these stand on
    candidates: list[tuple[Place, ...]]  # for each nodule, where a detector would place it


@dataclass(frozen=True)
class Shown:
    """What a scan shows of them: whatever lies within it."""

    nodules: list[Opacity]
    lesions: list[Opacity]
    candidates: list[Place]
    look_alikes: list[Place]


def draw_findings(
    patient: Patient,
    survey: Survey,
    trees: Trees,
    recipe: ChestPhantoms | LiverPhantoms,
    shared: PhantomShared,
    draw: Draw,
) -> Findings:
    """A person's findings, drawn without knowing the scan: nodules for the chest layouts, lesions for the liver's.

    InputError where the patient has no room for as many as the recipe asks for.
    """
    rng, ground = draw("findings"), Ground(survey)
    least, most = recipe.lesions if isinstance(recipe, LiverPhantoms) else recipe.nodules
    count = int(rng.integers(least, most + 1))
    if isinstance(recipe, LiverPhantoms):
        return Findings([], draw_lesions(rng, count, ground), [], [], [])
    nodules = draw_nodules(rng, count, shared.nodule_mm, ground, trees.blood)
    drawn = draw_drawn(draw("look-alikes"), nodules, ground, trees)
    places = list_places(draw("candidates"), recipe.candidates, nodules, drawn, ground, trees)
    return Findings(nodules, [], places, drawn, _detected(nodules, draw("detected")))


def _detected(nodules: list[Opacity], rng: np.random.Generator) -> list[tuple[Place, ...]]:
    """Where a detector would place each nodule, off its centre by less than its radius (else LUNA16 calls it missed).

    Some it finds twice.
    """
    found = []
    for nodule in nodules:
        radius, times = nodule.diameter_mm / 2, 1 + int(rng.random() < SEEN_TWICE)
        shifts = rng.normal(0, 0.25 * radius + 0.5, (times, 3))
        far = np.sqrt((shifts**2).sum(axis=1, keepdims=True)) / (0.8 * radius)
        shifts /= np.maximum(far, 1)
        found.append(tuple(Place("nodule", nodule.centre_mm + shift) for shift in shifts))
    return found


def shown(found: Findings, canvas: Canvas) -> Shown:
    """What lies within the scan, EDGE_MM from its edge at least."""
    axes = (canvas.lattice.x, canvas.lattice.y, canvas.lattice.z)

    def inside(one: Opacity | Place) -> bool:
        return all(
            axis[0] + EDGE_MM < position < axis[-1] - EDGE_MM
            for position, axis in zip(one.centre_mm, axes, strict=True)
        )

    pairs = zip(found.nodules, found.candidates, strict=True)
    both = [(nodule, places) for nodule, places in pairs if inside(nodule)]
    return Shown(
        [nodule for nodule, _ in both],
        [lesion for lesion in found.lesions if inside(lesion)],
        [place for _, places in both for place in places],
        [place for place in found.look_alikes if inside(place)],
    )
