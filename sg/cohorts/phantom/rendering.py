"""One person's scan in HU, its organ labels and what of the findings it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom import acquisition, anatomy, tissues
from sg.cohorts.phantom.acquisition import Acquisition, Grid
from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.canvas import Canvas
from sg.cohorts.phantom.findings import Shown, shown
from sg.cohorts.phantom.painting.abdomen import paint_abdomen
from sg.cohorts.phantom.painting.bones import paint_bones
from sg.cohorts.phantom.painting.findings import paint_findings
from sg.cohorts.phantom.painting.lungs import paint_lungs
from sg.cohorts.phantom.painting.mediastinum import paint_mediastinum
from sg.cohorts.phantom.painting.walls import paint_walls
from sg.cohorts.phantom.person import Person
from sg.cohorts.phantom.scene import Scene

COARSE_MM = 6.0  # distances are computed on a lattice about so coarse, or the scan's own if that is coarser


@dataclass(frozen=True)
class Scan:
    """A phantom's scan: `hu` int16 and `labels` uint8 (z, y, x) on the grid's lattice, and what of the findings it shows.

    The lattice runs along the patient's axes; the grid says how these lie in the scanner's world and are stored.
    """

    person: Person
    acquisition: Acquisition
    hu: np.ndarray
    labels: np.ndarray
    shown: Shown

    @property
    def grid(self) -> Grid:
        return self.acquisition.grid


def render(person: Person, acquired: Acquisition, draw: Draw) -> Scan:
    """The scan of a person; `draw(purpose)` is the scan's own chance (noise), the person's comes with the person."""
    lattice = acquired.grid.lattice
    coarse = lattice.coarser(max(COARSE_MM / float(np.mean(lattice.spacing_mm)), 1.0))
    canvas = Canvas(lattice, coarse)
    scene = Scene(
        canvas, person, anatomy.shapes(person.patient, coarse), tissues.draw_hu(person.draw, acquired.phase)
    )
    paint_walls(scene)
    paint_abdomen(scene)
    paint_lungs(scene)
    paint_mediastinum(scene)
    paint_bones(scene)
    paint_findings(scene)  # last, so that what is in the tables is not painted over
    hu = acquisition.acquire(canvas, scene.d, acquired, person.draw, draw)
    return Scan(person, acquired, hu, canvas.labels, shown(person.findings, canvas))
