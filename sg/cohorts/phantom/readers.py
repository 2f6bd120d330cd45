"""Four radiologists who read a chest scan as LIDC's did, and disagree as they did.

LIDC's process: each of four readers marks what he or she takes for a nodule of 3 mm or more (outlined in every slice,
and rated), for a nodule under 3 mm (a point), or for something else of 3 mm or more (a point), and sees the others' marks
before the second look; nobody has to agree (Armato et al., Med Phys 2011;38:915). How much they disagree is fitted to
the 6859 outlined nodules of the published readings, measured for this purpose: by diameter (mm) the share of lesions
outlined by one, two, three and four readers; two readers' Dice; standard deviation of the ratings within a lesion about
0.8 (texture 0.6).

    mm     1    2    3    4        mm     Dice
    4-6   .36  .24  .21  .19      3-6    .72
    6-8   .20  .18  .21  .42      6-10   .77
    8-12  .15  .11  .13  .61     10-20   .80
    12-20 .09  .07  .17  .67     20-60   .84
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.grid import Grid
from sg.cohorts.phantom.opacities import Opacity
from sg.cohorts.phantom.rendering import Scan

READERS = 4
LEAST_MM = 3.0  # what looks smaller is marked by a point
# Log odds of outlining a lesion of 8 mm, and how they grow with the logarithm of the diameter; standard deviations of
# what is the lesion's own (conspicuity) and of what is the reader's.
ODDS, ODDS_BY_SIZE, ODDS_OF_LESION, ODDS_OF_READER = 1.0, 2.6, 2.4, 0.4
# Standard deviation of a reader's boundary about the true one, mm: at 0 mm, and more with the radius. A Dice of two balls
# whose boundaries lie D apart is 1 - 1.5 |D| / r.
BOUNDARY_MM, BOUNDARY_BY_RADIUS = 0.3, 0.068
SHARE_OF_BIAS = 0.3  # of its variance: the same all over a nodule; the rest varies along the surface
# How many marks of each kind a reader sets in a scan, on average, on what is no nodule
OTHERS, SMALL, MISTAKEN = 6.0, 3.0, 0.2
RATINGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How nodules of one texture are rated: their margin, and what is added to ratings that go by size."""

    margin: float
    subtlety: float
    malignancy: float


# After the mean ratings by texture in the published readings (5 solid, 3 part-solid, 1 ground glass)
LOOKS = {
    5: Look(4.5, 0.0, 0.0),
    4: Look(3.5, -0.2, 0.2),
    3: Look(2.7, -0.4, 0.2),
    2: Look(2.3, -1.1, 0.1),
    1: Look(1.9, -1.7, 0.1),
}


@dataclass(frozen=True)
class Outlined:
    """A nodule of 3 mm or more as one reader sees it.

    `ratings` has the values of RATINGS; `mask` is boolean (z, y, x), its first voxel `first` (z, y, x) of the array as
    the scan is stored.
    """

    ratings: tuple[int, ...]
    mask: np.ndarray
    first: tuple[int, int, int]


@dataclass(frozen=True)
class Reading:
    """All that one reader marks in a scan; voxels are (z, y, x) of the array as it is stored."""

    nodules: list[Outlined]
    small: list[tuple[int, int, int]]
    others: list[tuple[int, int, int]]


@dataclass(frozen=True)
class _Reader:
    odds: float
    bias: float  # of all boundaries, in units of their standard deviation
    strictness: np.ndarray  # of each rating, in steps


def read(scan: Scan, draw: Draw) -> list[Reading]:
    """The readings of a chest scan. All chance comes from `draw("readers")`."""
    rng = draw("readers")
    readers = [
        _Reader(rng.normal(0, ODDS_OF_READER), rng.normal(), rng.normal(0, 0.4, len(RATINGS)))
        for _ in range(READERS)
    ]
    readings = [Reading([], [], []) for _ in readers]
    for nodule in scan.shown.nodules:
        lesion = _Lesion(scan, nodule)
        conspicuity = rng.normal() + LOOKS[nodule.texture].subtlety / 2
        truth = lesion.ratings(conspicuity)
        for reader, reading in zip(readers, readings, strict=True):
            # Everything is drawn for every reader, seen or not, so that one reader's chance is not another's.
            odds = ODDS + ODDS_BY_SIZE * np.log(nodule.diameter_mm / 8) + ODDS_OF_LESION * conspicuity
            seen = rng.random() < 1 / (1 + np.exp(-odds - reader.odds))
            looks_mm = nodule.diameter_mm * np.exp(rng.normal(0, 0.12))
            mask = lesion.as_drawn(reader.bias, rng)
            ratings = _rated(truth, reader, rng)
            if seen and looks_mm >= LEAST_MM:
                reading.nodules.append(Outlined(ratings, *_stored(scan.grid, mask, lesion.region)))
            elif seen:
                reading.small.append(stored_voxel(scan.grid, nodule.centre_mm))
    _mark_look_alikes(scan, readings, rng)
    return readings


def stored_voxel(grid: Grid, point_mm: np.ndarray) -> tuple[int, int, int]:
    """The voxel (z, y, x) of the stored array that holds a point of the patient."""
    axes = (grid.lattice.z, grid.lattice.y, grid.lattice.x)
    index = []
    for axis, sign, at in zip(axes, grid.signs[::-1], point_mm[::-1], strict=True):
        nearest = int(np.clip(np.floor((at - axis[0]) / (axis[1] - axis[0]) + 0.5), 0, len(axis) - 1))
        index.append(nearest if sign > 0 else len(axis) - 1 - nearest)
    return tuple(index)


class _Lesion:
    """A nodule as the scan's labels have it, in a box of the lattice with room around it."""

    def __init__(self, scan: Scan, nodule: Opacity) -> None:
        lattice = scan.grid.lattice
        spacing = np.array(lattice.spacing_mm)
        self.nodule = nodule
        self.boundary_mm = BOUNDARY_MM + BOUNDARY_BY_RADIUS * nodule.diameter_mm / 2
        reach = nodule.reach_mm + 3 * self.boundary_mm + 2 * spacing
        self.region = lattice.region(nodule.centre_mm - reach, nodule.centre_mm + reach)
        box = lattice.box(self.region)
        self.spacing_mm = spacing[::-1]
        mask = scan.labels[self.region] == LABEL["nodule"]
        mask &= ~_nearer_to_others(box, nodule, scan.shown.nodules)
        distance = nodule.distance(box)
        if not mask.any():  # it lies between the voxels
            mask.flat[np.argmin(distance)] = True
        # How far from the boundary: by the nodule's own shape, which knows where in a voxel it runs; but not far
        # along strands, which readers rarely follow. On which side: by the labels, which know what else is there.
        beyond = ndimage.distance_transform_edt(~mask, self.spacing_mm) - spacing.max()
        self.distance_mm = np.where(mask, -np.abs(distance), np.maximum(np.abs(distance), beyond))

    def as_drawn(self, bias: float, rng: np.random.Generator) -> np.ndarray:
        """A reader's mask: the boundary moved as a whole, and by something that varies along it."""
        own = (bias + rng.normal()) / np.sqrt(2)
        width = np.maximum(0.22 * self.nodule.diameter_mm / self.spacing_mm, 0.5)
        wobble = ndimage.gaussian_filter(rng.standard_normal(self.distance_mm.shape), width, mode="wrap")
        wobble /= max(float(wobble.std()), 1e-6)
        moved = np.sqrt(SHARE_OF_BIAS) * own + np.sqrt(1 - SHARE_OF_BIAS) * wobble
        # Bounded, because fine strands know their distance only nearby.
        mask = self.distance_mm < self.boundary_mm * np.clip(moved, -2.5, 2.5)
        # An outline runs within the image.
        mask[:, [0, -1]] = mask[:, :, [0, -1]] = False
        return _in_one_piece(mask, self.distance_mm)

    def ratings(self, conspicuity: float) -> np.ndarray:
        """What readers give it on average, by its size, make and shape, in the order of RATINGS."""
        nodule, look = self.nodule, LOOKS[self.nodule.texture]
        size = np.log(nodule.diameter_mm / 4.2)
        z, y, x = np.nonzero(self.distance_mm < 0)
        points = np.stack([z, y, x], axis=1) * self.spacing_mm
        # A voxel's own variance counts too, so that a nodule of one voxel is as round as the voxel.
        spread = np.cov(points.T, ddof=0) + np.diag(self.spacing_mm**2) / 12
        widths = np.sqrt(np.linalg.eigvalsh(spread))
        means = {
            "subtlety": 3.2 + 1.05 * size + look.subtlety + 0.5 * conspicuity,
            "internalStructure": 1,
            "calcification": nodule.calcification,
            "sphericity": 1.2 + 3.4 * widths[0] / widths[-1],
            "margin": look.margin - 0.2 * (nodule.spiculation - 1),
            "lobulation": nodule.lobulation,
            "spiculation": nodule.spiculation,
            "texture": nodule.texture + 0.3 * (nodule.texture == 5) - 0.3 * (nodule.texture == 1),
            "malignancy": 2.3
            + size
            + look.malignancy
            + 0.2 * (nodule.spiculation - 1)
            - 1.2 * nodule.calcified,
        }
        return np.array([means[name] for name in RATINGS])


def _nearer_to_others(box: Lattice, nodule: Opacity, nodules: list[Opacity]) -> np.ndarray:
    """Where on a lattice another nodule's ball is nearer than this one's, boolean (z, y, x)."""

    def gap(one: Opacity) -> np.ndarray:
        x, y, z = (g - np.float32(at) for g, at in zip(box.grids, one.centre_mm, strict=True))
        return np.sqrt(x * x + y * y + z * z) - np.float32(one.diameter_mm / 2)

    own, nearer = gap(nodule), np.zeros(box.shape, bool)
    for other in nodules:
        if other is not nodule:
            nearer |= gap(other) < own
    return nearer


def _in_one_piece(mask: np.ndarray, distance_mm: np.ndarray) -> np.ndarray:
    """The part of a mask that holds most; the innermost voxel if there is none."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    if count == 0:
        inner = np.full(mask.shape, np.inf)
        inner[:, 1:-1, 1:-1] = distance_mm[:, 1:-1, 1:-1]
        mask.flat[np.argmin(inner)] = True
        return mask
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _rated(truth: np.ndarray, reader: _Reader, rng: np.random.Generator) -> tuple[int, ...]:
    """One reader's ratings. Calcification is a kind, not a grade: now and then it is missed, or called central."""
    rated = np.clip(np.rint(truth + reader.strictness + rng.normal(0, 0.7, len(truth))), 1, 5).astype(int)
    rated[RATINGS.index("internalStructure")] = 1
    kind, doubt = int(truth[RATINGS.index("calcification")]), rng.random()
    rated[RATINGS.index("calcification")] = kind if kind == 6 or doubt > 0.25 else 6 if doubt > 0.1 else 5
    return tuple(int(value) for value in rated)


def _mark_look_alikes(scan: Scan, readings: list[Reading], rng: np.random.Generator) -> None:
    """Points on what is no nodule, and a few outlines of it. What strikes one reader strikes others too."""
    places = scan.shown.look_alikes
    striking = rng.normal(size=len(places))
    for reading in readings:
        counts = rng.poisson([MISTAKEN, SMALL, OTHERS])
        order = np.argsort(-(striking + 0.8 * rng.normal(size=len(places))))
        mistaken, small, others = np.split(order, np.cumsum(counts))[:3]
        for number in mistaken:
            reading.nodules.append(_mistaken(scan, places[number].centre_mm, rng))
        reading.small.extend(stored_voxel(scan.grid, places[number].centre_mm) for number in small)
        reading.others.extend(stored_voxel(scan.grid, places[number].centre_mm) for number in others)


def _mistaken(scan: Scan, centre_mm: np.ndarray, rng: np.random.Generator) -> Outlined:
    """The outline of a ball that a reader sees where there is none."""
    radius = float(np.clip(rng.lognormal(np.log(2.5), 0.2), LEAST_MM / 2, 5))
    lattice = scan.grid.lattice
    reach = radius + 2 * np.array(lattice.spacing_mm)
    region = lattice.region(centre_mm - reach, centre_mm + reach)
    x, y, z = (grid - np.float32(at) for grid, at in zip(lattice.box(region).grids, centre_mm, strict=True))
    distance = np.sqrt(x * x + y * y + z * z) - radius
    mask = distance < 0
    mask[:, [0, -1]] = mask[:, :, [0, -1]] = False
    ratings = np.clip(np.rint(rng.normal([2.5, 1, 6, 3.5, 3.5, 1.5, 1.3, 4.3, 2.2], 0.8)), 1, 5).astype(int)
    ratings[1:3] = 1, 6
    rated = tuple(int(value) for value in ratings)
    return Outlined(rated, *_stored(scan.grid, _in_one_piece(mask, distance), region))


def _stored(
    grid: Grid, mask: np.ndarray, region: tuple[slice, slice, slice]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A mask on a region of the lattice as it lies in the stored array, and where that begins (z, y, x)."""
    first = tuple(
        part.start if sign > 0 else count - part.stop
        for part, sign, count in zip(region, grid.signs[::-1], grid.lattice.shape, strict=True)
    )
    return grid.stored(mask), first
