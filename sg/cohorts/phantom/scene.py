"""What the painters paint with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.anatomy import Draw, Patient
from sg.cohorts.phantom.canvas import Canvas
from sg.cohorts.phantom.fields import Lattice, draw_noise
from sg.cohorts.phantom.person import Person

MIDDLE_MM, REACH_MM = (
    np.array([0.0, 0.0, -110.0]),
    300.0,
)  # a box that holds every patient, in patient coordinates


@dataclass(frozen=True)
class Scene:
    """A canvas and the person to be painted on it, as the contrast medium shows it.

    `d` holds the distances to the organs on the canvas' coarse lattice, `hu` the mean HU of each tissue.
    """

    canvas: Canvas
    person: Person
    d: dict[str, np.ndarray]
    hu: dict[str, float]

    @property
    def patient(self) -> Patient:
        return self.person.patient

    @property
    def draw(self) -> Draw:
        return self.person.draw

    def texture(self, purpose: str, step_mm: float, sd: float, lattice: Lattice | None = None) -> np.ndarray:
        """A smooth random field of the person, float32 (z, y, x), on the coarse lattice or another.

        The same at every point of the body whatever the lattice.
        """
        noise = draw_noise(self.draw(purpose), MIDDLE_MM, REACH_MM, step_mm, sd, components=1)
        return noise.on(lattice or self.canvas.coarse)[0]
