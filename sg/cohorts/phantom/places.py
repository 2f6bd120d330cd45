"""Where findings may stand: places in and around the lungs, and what makes a place too crowded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.anatomy import Survey
from sg.cohorts.phantom.fields import Lattice
from sg.errors import InputError

TRIES = 100  # places tried for one finding before there is taken to be no room for it


@dataclass(frozen=True)
class Place:
    """A place in the patient, mm, and what is there (nodule, or the kind of the look-alike)."""

    kind: str
    centre_mm: np.ndarray


@dataclass(frozen=True)
class Ground:
    """A person's survey, asked for places. Points are (n, 3): x, y, z in mm of the patient."""

    survey: Survey

    @property
    def lattice(self) -> Lattice:
        return self.survey.lattice

    @property
    def d(self) -> dict[str, np.ndarray]:
        return self.survey.d

    @cached_property
    def lungs_mm(self) -> np.ndarray:
        """Distance to the lungs on the survey's lattice, negative inside either."""
        return np.minimum(self.d["lung_right"], self.d["lung_left"])

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the right lung is the nearer one."""
        return self.d["lung_right"] < self.d["lung_left"]

    @cached_property
    def fissures_mm(self) -> np.ndarray:
        """Distance to the nearest fissure of the lung, never negative."""
        d = self.d
        # The horizontal fissure lies in front of the oblique one only.
        horizontal = np.maximum(np.abs(d["fissure_right_horizontal"]), d["fissure_right_oblique"])
        right = np.minimum(np.abs(d["fissure_right_oblique"]), horizontal)
        return np.where(self.right, right, np.abs(d["fissure_left_oblique"]))

    @cached_property
    def upper(self) -> np.ndarray:
        """1 on what is nearer to the upper lobes than to the others, else 0, float32."""
        d = self.d
        right = np.maximum(d["fissure_right_oblique"], d["fissure_right_horizontal"])
        return (np.where(self.right, right, d["fissure_left_oblique"]) < 0).astype(np.float32)

    def at(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """A field of the survey's lattice at points, linear between its nodes."""
        first = np.array([axis[0] for axis in self.lattice.axes])
        index = (points[:, ::-1] - first) / np.array(self.lattice.spacing_mm[::-1])
        return ndimage.map_coordinates(field, index.T, order=1, mode="nearest")

    def slope(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Unit vectors (n, 3) along which a field grows at points."""
        steps = np.diag(self.lattice.spacing_mm) / 2
        sides = [self.at(field, points + step) - self.at(field, points - step) for step in steps]
        slope = np.stack(sides, axis=1).astype(float)
        return slope / np.maximum(np.sqrt((slope**2).sum(axis=1)), 1e-6)[:, None]

    def among(self, nodes: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random points within half a cell of nodes of a mask on the lattice; none where the mask is empty."""
        index = np.flatnonzero(nodes)
        if len(index) == 0:
            return np.empty((0, 3))
        z, y, x = np.unravel_index(index[rng.integers(len(index), size=count)], nodes.shape)
        points = np.column_stack([self.lattice.x[x], self.lattice.y[y], self.lattice.z[z]])
        return points + (rng.random(points.shape) - 0.5) * self.lattice.spacing_mm

    def onto(self, field: np.ndarray, points: np.ndarray, level: np.ndarray | float) -> np.ndarray:
        """Points moved along a distance's slope to where it has a level; those that do not get there are left out."""
        if len(points) == 0:
            return points
        level = np.broadcast_to(np.asarray(level, float), len(points))
        for _ in range(2):
            points = points + self.slope(field, points) * (level - self.at(field, points))[:, None]
        return points[np.abs(self.at(field, points) - level) < 1.0]


class NoRoom(InputError):
    """More of something is asked for than a patient has room for."""


def no_room(what: str, found: int, count: int) -> NoRoom:
    """What to raise where only so many of so many fit."""
    return NoRoom(f"there must be room for the {what}, got room for {found} of {count}; ask for fewer")


def tries(found: list, count: int, what: str) -> Iterator[None]:
    """Yield until that many are found. NoRoom where they do not fit."""
    for _ in range(TRIES * count):
        if len(found) >= count:
            return
        yield
    if len(found) < count:
        raise no_room(what, len(found), count)


def clear_of(where: np.ndarray, radius: float, centres: np.ndarray, radii: np.ndarray, gap_mm: float) -> bool:
    """Whether a ball is that far from all other balls (n, 3) and (n)."""
    if len(centres) == 0:
        return True
    gaps = np.sqrt(((centres - where) ** 2).sum(axis=1)) - radii - radius
    return bool(gaps.min() > gap_mm)
