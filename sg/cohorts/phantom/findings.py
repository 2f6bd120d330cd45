"""Nodules, liver lesions and look-alikes: where they are and what they are made of.

LUNA16's layout gets lung nodules, Decathlon's gets liver lesions (its label 2): the recipe's `nodules` counts the
one or the other. Look-alikes are LUNA16's negatives. About half stand on bends and forks of vessels, some on the
large vessels of the hilum, some on the pleura; the others on things drawn for the purpose, scars and bands in the lung
and thickened pleura, as dense as nodules but flat or long. So neither density nor volume alone tells a nodule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.fields import Lattice, ellipsoid
from sg.cohorts.phantom.vessels import Tree, forks
from sg.errors import InputError

EDGE_MM = 9.0  # least distance of a finding from the edge of the scan
APART_MM = 8.0  # least gap between two findings
TRIES = 2000  # places tried for one finding before there is taken to be no room for it


@dataclass(frozen=True)
class Piece:
    """An ellipsoid: `centre_mm`, `radii_mm`, and rows of `turn` as its axes."""

    centre_mm: np.ndarray
    radii_mm: tuple[float, float, float]
    turn: np.ndarray

    def distance(self, lattice: Lattice) -> np.ndarray:
        """Nearly the distance to its surface on a lattice, negative inside."""
        x, y, z = (g - np.float32(c) for g, c in zip(lattice.grids, self.centre_mm, strict=True))
        t = self.turn.astype(np.float32)
        rotated = [t[k, 0] * x + t[k, 1] * y + t[k, 2] * z for k in range(3)]
        return ellipsoid(*rotated, (0, 0, 0), self.radii_mm)


@dataclass(frozen=True)
class Opacity:
    """Something drawn into an organ: the union of its pieces, at one density."""

    kind: str  # solid, ground-glass, lesion, scar, plaque
    centre_mm: np.ndarray
    diameter_mm: float  # of the ball of the same volume
    pieces: tuple[Piece, ...]
    hu: float

    @property
    def reach_mm(self) -> float:
        """Radius of a ball about the centre that holds it all."""
        return max(
            float(np.sqrt(((p.centre_mm - self.centre_mm) ** 2).sum())) + max(p.radii_mm) for p in self.pieces
        )

    def distance(self, lattice: Lattice) -> np.ndarray:
        """Nearly the distance to its surface on a lattice, negative inside."""
        total = None
        for piece in self.pieces:
            d = piece.distance(lattice)
            total = d if total is None else np.minimum(total, d)
        return total


def draw_nodules(
    rng: np.random.Generator,
    count: int,
    lungs_mm: np.ndarray,
    coarse: Lattice,
    grid: Lattice,
    trees: Tree,
    soft_hu: float,
) -> list[Opacity]:
    """Lung nodules: solid or ground glass, alone, at the pleura or on a vessel. `lungs_mm`: distance on `coarse`.

    They are 6 to 28 mm wide, but no narrower than about two voxels: the voxel at the centre is always the nodule's.
    """
    nodules: list[Opacity] = []
    least = max(6.0, 1.9 * max(grid.spacing_mm))
    for _ in _tries(nodules, count, "lung nodules (nodules)"):
        diameter = float(np.clip(rng.lognormal(np.log(12.5), 0.36), least, 28))
        place = rng.choice(["alone", "pleura", "vessel"], p=[0.5, 0.27, 0.23])
        if place == "vessel":
            where = _near(forks(trees, (0.9, 2.2)), rng)
        else:
            depth = (-0.75, -0.45) if place == "pleura" else (-12.0, -0.8)
            where = _within(lungs_mm, coarse, (depth[0] * diameter - 1, depth[1] * diameter), rng)
        if _fits(where, diameter / 2, grid, nodules) and _depth(lungs_mm, coarse, where) < -0.3 * diameter:
            ground_glass = rng.random() < 0.13
            hu = rng.normal(-420, 70) if ground_glass else rng.normal(soft_hu - 8, 28)
            kind = "ground-glass" if ground_glass else "solid"
            nodules.append(_lobed(rng, kind, where, diameter, float(hu), 0.3))
    return nodules


def draw_lesions(
    rng: np.random.Generator,
    count: int,
    liver_mm: np.ndarray,
    coarse: Lattice,
    grid: Lattice,
    liver_hu: float,
) -> list[Opacity]:
    """Liver lesions, darker than the liver. `liver_mm`: distance on `coarse`."""
    lesions: list[Opacity] = []
    for _ in _tries(lesions, count, "liver lesions (nodules)"):
        diameter = float(np.clip(rng.lognormal(np.log(22), 0.35), 10, 45))
        where = _within(liver_mm, coarse, (-60.0, -0.45 * diameter), rng)
        if _fits(where, diameter / 2, grid, lesions):
            lesions.append(_lobed(rng, "lesion", where, diameter, liver_hu - float(rng.uniform(25, 60)), 0.0))
    return lesions


def draw_look_alikes(
    rng: np.random.Generator,
    count: int,
    nodules: list[Opacity],
    lungs_mm: np.ndarray,
    coarse: Lattice,
    grid: Lattice,
    trees: Tree,
    soft_hu: float,
) -> tuple[list[np.ndarray], list[Opacity]]:
    """Places (x, y, z mm) of look-alikes, and the opacities that some of them stand on."""
    places: list[np.ndarray] = []
    drawn: list[Opacity] = []
    for _ in _tries(places, count, "look-alikes (candidates)"):
        kind = rng.choice(["fork", "hilum", "pleura", "scar", "plaque"], p=[0.42, 0.1, 0.14, 0.2, 0.14])
        if kind in ("fork", "hilum"):
            where = _near(forks(trees, (1.3, 2.6) if kind == "fork" else (2.6, 6.0)), rng)
        else:
            depth = (-60.0, -6.0) if kind == "scar" else (-4.0, -1.0)
            where = _within(lungs_mm, coarse, depth, rng)
        if not _fits(where, 0.0, grid, nodules) or _depth(lungs_mm, coarse, where) > -0.5:
            continue
        if any(((where - place) ** 2).sum() < APART_MM**2 for place in places):
            continue
        places.append(where)
        if kind in ("scar", "plaque"):
            drawn.append(_flat(rng, str(kind), where, float(rng.normal(soft_hu - 8, 28)), lungs_mm, coarse))
    return places, drawn


def _tries(found: list, count: int, what: str) -> Iterator[None]:
    """Yield until that many are found. InputError where they do not fit."""
    for _ in range(TRIES * count):
        if len(found) == count:
            return
        yield
    if len(found) < count:
        raise InputError(
            f"phantom.recipes: a patient must have room for its {what}, got room for {len(found)} of {count}; ask for fewer"
        )


def _lobed(
    rng: np.random.Generator, kind: str, centre: np.ndarray, diameter: float, hu: float, spiculated: float
) -> Opacity:
    """A lumpy ball of the given equivalent diameter, with spicules for the given share of them."""
    radius = diameter / 2
    pieces = [Piece(centre, tuple(radius * rng.uniform(0.82, 1.05, 3)), _turn(rng))]
    for _ in range(int(rng.integers(2, 5))):
        bump = radius * rng.uniform(0.4, 0.65)
        pieces.append(Piece(centre + _direction(rng) * (radius * 1.02 - bump), (bump, bump, bump), np.eye(3)))
    if rng.random() < spiculated:
        for _ in range(int(rng.integers(4, 9))):
            length = radius * rng.uniform(0.45, 0.8)
            turn = _turn(rng)
            pieces.append(Piece(centre + turn[0] * radius * 0.9, (length, 0.9, 0.9), turn))
    return _measured(kind, centre, tuple(pieces), hu)


def _flat(
    rng: np.random.Generator, kind: str, centre: np.ndarray, hu: float, lungs_mm: np.ndarray, coarse: Lattice
) -> Opacity:
    """A scar: a band or a leaf in the lung. A plaque: a leaf along the pleura."""
    if kind == "plaque":
        normal = _gradient(lungs_mm, coarse, centre)
        turn = _turn(rng)
        side = turn[0] - normal * (turn[0] * normal).sum()
        side /= max(float(np.sqrt((side * side).sum())), 1e-6)
        turn = np.stack([side, np.cross(normal, side), normal])
        radii = (float(rng.uniform(8, 16)), float(rng.uniform(6, 12)), float(rng.uniform(1.8, 3.2)))
    else:
        turn = _turn(rng)
        radii = (float(rng.uniform(9, 18)), float(rng.uniform(2.2, 8)), float(rng.uniform(1.2, 2.4)))
    return _measured(kind, centre, (Piece(centre, radii, turn),), hu)


def _measured(kind: str, centre: np.ndarray, pieces: tuple[Piece, ...], hu: float) -> Opacity:
    """The opacity with its equivalent diameter, from its volume on a fine lattice."""
    drawn = Opacity(kind, centre, 0.0, pieces, hu)
    reach = drawn.reach_mm
    axes = [c + np.linspace(-reach, reach, 28) for c in centre]
    inside = np.count_nonzero(drawn.distance(Lattice(*axes)) < 0)
    volume = inside * (2 * reach / 27) ** 3
    return Opacity(kind, centre, float((6 * volume / np.pi) ** (1 / 3)), pieces, hu)


def _within(
    distance: np.ndarray, coarse: Lattice, depth: tuple[float, float], rng: np.random.Generator
) -> np.ndarray | None:
    """A random place whose distance lies in that range; None if there is none."""
    index = np.flatnonzero((distance > depth[0]) & (distance < depth[1]))
    if len(index) == 0:
        return None
    z, y, x = np.unravel_index(index[rng.integers(len(index))], distance.shape)
    node = np.array([coarse.x[x], coarse.y[y], coarse.z[z]])
    return node + (rng.random(3) - 0.5) * coarse.spacing_mm


def _near(points: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """One of the points, a millimetre or so beside it; None if there are none."""
    if len(points) == 0:
        return None
    return points[rng.integers(len(points))] + rng.normal(0, 0.7, 3)


def _fits(where: np.ndarray | None, radius: float, grid: Lattice, others: list[Opacity]) -> bool:
    """Whether the place is within the scan and clear of other findings."""
    if where is None:
        return False
    for position, axis in zip(where, (grid.x, grid.y, grid.z), strict=True):
        if not axis[0] + EDGE_MM + radius < position < axis[-1] - EDGE_MM - radius:
            return False
    gaps = [np.sqrt(((where - o.centre_mm) ** 2).sum()) - o.diameter_mm / 2 - radius for o in others]
    return all(gap > APART_MM for gap in gaps)


def _node(coarse: Lattice, where: np.ndarray) -> tuple[int, int, int]:
    index = []
    for axis, position in zip(coarse.axes, where[::-1], strict=True):
        index.append(int(np.clip(round((position - axis[0]) / (axis[1] - axis[0])), 1, len(axis) - 2)))
    return tuple(index)


def _depth(distance: np.ndarray, coarse: Lattice, where: np.ndarray) -> float:
    """The distance at the lattice point next to a place."""
    return float(distance[_node(coarse, where)])


def _gradient(distance: np.ndarray, coarse: Lattice, where: np.ndarray) -> np.ndarray:
    """Unit vector (x, y, z) in which the distance grows."""
    z, y, x = _node(coarse, where)
    slope = np.array(
        [
            distance[z, y, x + 1] - distance[z, y, x - 1],
            distance[z, y + 1, x] - distance[z, y - 1, x],
            distance[z + 1, y, x] - distance[z - 1, y, x],
        ],
        float,
    ) / np.array(coarse.spacing_mm)
    return slope / max(float(np.sqrt((slope * slope).sum())), 1e-6)


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.sqrt((vector * vector).sum())


def _turn(rng: np.random.Generator) -> np.ndarray:
    """Three random axes, each at right angles to the others, as rows."""
    first = _direction(rng)
    second = np.cross(first, _direction(rng))
    second /= np.sqrt((second * second).sum())
    return np.stack([first, second, np.cross(first, second)])
