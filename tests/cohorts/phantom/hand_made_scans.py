"""Scans with balls for nodules, made by hand: every layout's files can be checked against what is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.spatial.transform import Rotation

from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.findings import Shown
from sg.cohorts.phantom.grid import Grid
from sg.cohorts.phantom.places import Place
from sg.cohorts.phantom.rendering import Scan

OBLIQUE = Rotation.from_euler("xyz", [4.0, -3.0, 5.5], degrees=True).as_matrix()
# Every way that scans are stored, and some turned by a few degrees besides
ORIENTATIONS = [
    ("LPS", np.eye(3)),
    ("RAS", np.eye(3)),
    ("LAS", np.eye(3)),
    ("LPS", OBLIQUE),
    ("RAS", OBLIQUE),
]


@dataclass(frozen=True)
class Ball:
    """A nodule, as much of one as layouts and readers look at."""

    centre_mm: np.ndarray
    diameter_mm: float
    texture: int = 5
    spiculation: int = 1
    lobulation: int = 2
    calcification: int = 6

    @property
    def calcified(self) -> bool:
        return self.calcification < 6

    @property
    def reach_mm(self) -> float:
        return self.diameter_mm / 2

    def distance(self, lattice: Lattice) -> np.ndarray:
        x, y, z = (g - np.float32(c) for g, c in zip(lattice.grids, self.centre_mm, strict=True))
        return np.sqrt(x * x + y * y + z * z) - np.float32(self.diameter_mm / 2)


def scan_of(
    balls: Sequence[Ball],
    look_alikes: Sequence[Sequence[float]] = (),
    *,
    size: tuple[int, int, int] = (40, 36, 30),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.5),
    orientation: str = "LPS",
    rotation: np.ndarray = OBLIQUE,
    padding_hu: int | None = None,
    seed: int = 0,
) -> Scan:
    """A scan of a lung full of noise with balls in it, its lattice (x, y, z) about the patient's origin."""
    axes = (s * (np.arange(n) - (n - 1) / 2) for n, s in zip(size, spacing_mm, strict=True))
    lattice = Lattice(*axes)
    labels = np.full(lattice.shape, LABEL["lung_left_upper"], np.uint8)
    hu = np.random.default_rng(seed).integers(-1000, -700, lattice.shape).astype(np.int16)
    for ball in balls:
        inside = ball.distance(lattice) < 0
        labels[inside], hu[inside] = LABEL["nodule"], 40
    if padding_hu is not None:
        hu[:, :3, :3] = padding_hu
    grid = Grid(lattice, orientation, rotation, np.array([12.5, -31.0, -170.25])).snapped()
    # What the layouts write of an acquisition
    acquired = SimpleNamespace(
        grid=grid, phase="arterial", kernel="sharp", thickness_mm=2.0, padding_hu=padding_hu
    )
    shown = Shown(
        list(balls),
        [],
        [Place("nodule", ball.centre_mm) for ball in balls],
        [Place("fork", np.array(place, float)) for place in look_alikes],
    )
    return Scan(None, acquired, hu, labels, shown)


def drawing(seed: int) -> Callable[[str], np.random.Generator]:
    """A generator for each purpose."""
    return lambda purpose: np.random.default_rng([seed, *purpose.encode()])
