"""What findings are made of: pieces, their union within an organ, and how big it comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sg.cohorts.phantom.fields import (
    SPLINE_SD,
    Lattice,
    Noise,
    draw_noise,
    ellipsoid,
    interpolated,
    segment_distance,
    smooth_minimum,
)

OVERLAP_MM = 0.5  # so far a finding reaches into the surface it lies on, so that no air is left between them
NEAR_MM = 4.0  # thin strands are looked at no further away than this


@dataclass(frozen=True)
class Piece:
    """An ellipsoid: `centre_mm`, `radii_mm`, and rows of `turn` as its axes."""

    centre_mm: np.ndarray
    radii_mm: tuple[float, float, float]
    turn: np.ndarray

    @property
    def box_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (x, y, z) of the box around it."""
        half = np.sqrt(((self.turn * np.array(self.radii_mm)[:, None]) ** 2).sum(axis=0))
        return self.centre_mm - half, self.centre_mm + half

    def distance(self, lattice: Lattice) -> np.ndarray:
        """Nearly the distance to its surface on a lattice, negative inside."""
        x, y, z = (g - np.float32(c) for g, c in zip(lattice.grids, self.centre_mm, strict=True))
        t = self.turn.astype(np.float32)
        rotated = [t[k, 0] * x + t[k, 1] * y + t[k, 2] * z for k in range(3)]
        return ellipsoid(*rotated, (0, 0, 0), self.radii_mm)

    def scaled(self, factor: float, about_mm: np.ndarray) -> Piece:
        """The piece, larger by a factor as seen from a point."""
        radii = tuple(r * factor for r in self.radii_mm)
        return Piece(about_mm + (self.centre_mm - about_mm) * factor, radii, self.turn)


@dataclass(frozen=True)
class Strand:
    """A round-ended strand that tapers from `r_start` at `start_mm` to `r_end` at `end_mm`."""

    start_mm: np.ndarray
    end_mm: np.ndarray
    r_start: float
    r_end: float

    @property
    def box_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (x, y, z) of the box around it."""
        radius = max(self.r_start, self.r_end)
        return np.minimum(self.start_mm, self.end_mm) - radius, np.maximum(
            self.start_mm, self.end_mm
        ) + radius

    def distance(self, lattice: Lattice) -> np.ndarray:
        """The distance to its surface on a lattice, negative inside; NEAR_MM where it is further away than that."""
        low, high = self.box_mm
        total = np.full(lattice.shape, NEAR_MM, np.float32)
        region = _region(lattice, low - NEAR_MM, high + NEAR_MM)
        if all(part.start < part.stop for part in region):
            grids = lattice.box(region).grids
            here = segment_distance(*grids, self.start_mm, self.end_mm, self.r_start, self.r_end)
            total[region] = np.minimum(here, np.float32(NEAR_MM))
        return total

    def scaled(self, factor: float, about_mm: np.ndarray) -> Strand:
        """The strand, larger by a factor as seen from a point."""
        start, end = (about_mm + (p - about_mm) * factor for p in (self.start_mm, self.end_mm))
        return Strand(start, end, self.r_start * factor, self.r_end * factor)


def _region(lattice: Lattice, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[slice, slice, slice]:
    """Slices (z, y, x), perhaps empty, of a lattice that may be one point thin."""
    pairs = zip(lattice.axes, low_mm[::-1], high_mm[::-1], strict=True)
    return tuple(slice(*(int(i) for i in np.searchsorted(axis, (low, high)))) for axis, low, high in pairs)


@dataclass(frozen=True)
class Organ:
    """The surface of what an opacity lies in: distances on a lattice around it, negative inside the organ."""

    lattice: Lattice
    distance: np.ndarray

    def on(self, lattice: Lattice) -> np.ndarray:
        """The distance on another lattice; beyond its own it goes on as it was."""
        return interpolated(self.distance, self.lattice, lattice)


def organ_around(distance: np.ndarray, lattice: Lattice, centre_mm: np.ndarray, reach_mm: float) -> Organ:
    """The part of an organ's distance (on a lattice) that matters within `reach_mm` of a point."""
    region = []
    for axis, position in zip(lattice.axes, centre_mm[::-1], strict=True):
        first = int(np.searchsorted(axis, position - reach_mm)) - 1
        last = int(np.searchsorted(axis, position + reach_mm)) + 1
        first = min(max(first, 0), len(axis) - 2)
        region.append(slice(first, max(last, first + 2)))
    return Organ(lattice.box(tuple(region)), distance[tuple(region)])


@dataclass(frozen=True)
class Opacity:
    """Something drawn into an organ: the union of its pieces within the organ, at one density, perhaps with cores.

    The ratings are those of LIDC's readers: texture 1 ground glass, 3 part-solid, 5 solid; spiculation and lobulation
    1 none to 5 marked; calcification 1 popcorn, 3 solid, 4 non-central, 5 central, 6 absent.
    """

    kind: str
    centre_mm: np.ndarray
    diameter_mm: float  # of the ball of the same volume as what is seen of it
    pieces: tuple[Piece | Strand, ...]
    hu: float
    organ: Organ | None = None
    round_mm: float = 0.0  # where pieces meet, the edge between them is rounded this wide
    uneven: Noise | None = None  # how far its surface stands out and in, mm
    edge_mm: float = 0.0  # its border fades over so much
    cores: tuple[Piece, ...] = ()  # parts of another density
    core_hu: float = 0.0
    texture: int = 5
    spiculation: int = 1
    lobulation: int = 1
    calcification: int = 6

    @property
    def calcified(self) -> bool:
        return self.calcification < 6

    @property
    def box_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (x, y, z) of the box around its pieces, uneven as they are."""
        low, high = zip(*(piece.box_mm for piece in self.pieces), strict=True)
        margin = 0.0 if self.uneven is None else 3 * SPLINE_SD * float(self.uneven.coefficients.std())
        return np.min(low, axis=0) - margin, np.max(high, axis=0) + margin

    @property
    def reach_mm(self) -> float:
        """Radius of a ball about the centre that holds it all."""
        low, high = self.box_mm
        far = np.maximum(high - self.centre_mm, self.centre_mm - low)
        return float(np.sqrt((far * far).sum()))

    def distance(self, lattice: Lattice) -> np.ndarray:
        """Nearly the distance to its surface on a lattice, float32 (z, y, x), negative inside."""
        return self._within(union(self.pieces, lattice, self.round_mm, self.uneven), lattice)

    def core_distance(self, lattice: Lattice) -> np.ndarray:
        """The same for its cores, which it must have."""
        return self._within(union(self.cores, lattice, self.round_mm / 2), lattice)

    def _within(self, distance: np.ndarray, lattice: Lattice) -> np.ndarray:
        if self.organ is None:
            return distance
        return np.maximum(distance, self.organ.on(lattice) - np.float32(OVERLAP_MM))

    def scaled(self, factor: float) -> Opacity:
        """The opacity, larger by a factor about its centre, still cut off by the organ."""
        return replace(
            self,
            diameter_mm=self.diameter_mm * factor,
            pieces=tuple(piece.scaled(factor, self.centre_mm) for piece in self.pieces),
            cores=tuple(piece.scaled(factor, self.centre_mm) for piece in self.cores),
            round_mm=self.round_mm * factor,
            uneven=None if self.uneven is None else _scaled_noise(self.uneven, factor, self.centre_mm),
        )


def _scaled_noise(noise: Noise, factor: float, about_mm: np.ndarray) -> Noise:
    origin = about_mm + (noise.origin_mm - about_mm) * factor
    return Noise(noise.coefficients * np.float32(factor), origin, noise.step_mm * factor)


def union(
    pieces: Sequence[Piece | Strand], lattice: Lattice, round_mm: float, uneven: Noise | None = None
) -> np.ndarray:
    """Distance to a union of pieces on a lattice: ellipsoids, rounded where they meet and made uneven, and strands."""
    total = np.full(lattice.shape, np.inf, np.float32)
    for piece in pieces:
        if isinstance(piece, Piece):
            here = piece.distance(lattice)
            total = smooth_minimum(here, total, round_mm) if round_mm > 0 else np.minimum(total, here)
    if uneven is not None:
        total += uneven.on(lattice)[0]
    for piece in pieces:
        if isinstance(piece, Strand):
            np.minimum(total, piece.distance(lattice), out=total)
    return total


POINTS = 32  # along the longest side of the lattice that an opacity is measured on


def measured(drawn: Opacity) -> Opacity:
    """The opacity with the diameter of what is seen of it, and its centre in the middle of that.

    The centre always lies inside: where the centre of mass does not, or nearly not, the innermost point stands for it.
    Nothing seen: a diameter of 0 and the centre as it was.
    """
    low, high = drawn.box_mm
    step = float((high - low).max()) / (POINTS - 1)
    axes = [a + step * np.arange(int(np.ceil((b - a) / step)) + 1) for a, b in zip(low, high, strict=True)]
    lattice = Lattice(*axes)
    distance = drawn.distance(lattice)
    inside = np.nonzero(distance < 0)
    if len(inside[0]) == 0:
        return replace(drawn, diameter_mm=0.0)
    diameter = (6 * len(inside[0]) * step**3 / np.pi) ** (1 / 3)
    middle = tuple(round(float(index.mean())) for index in inside)
    if distance[middle] > -0.15 * diameter:
        middle = np.unravel_index(np.argmin(distance), distance.shape)
        centre = [axis[index] for axis, index in zip(lattice.axes, middle, strict=True)]
    else:
        centre = [float(axis[index].mean()) for axis, index in zip(lattice.axes, inside, strict=True)]
    return replace(drawn, diameter_mm=float(diameter), centre_mm=np.array(centre[::-1]))


# ---------------------------------------------------------------------------------------------- shapes


def lobes(rng: np.random.Generator, centre: np.ndarray, radius: float, bumps: int) -> tuple[Piece, ...]:
    """A ball that is not quite round, with so many bumps."""
    pieces = [Piece(centre, tuple(radius * rng.uniform(0.62, 1.12, 3)), draw_turn(rng))]
    for _ in range(bumps):
        bump = radius * rng.uniform(0.35, 0.65)
        place = centre + draw_direction(rng) * (radius * rng.uniform(0.95, 1.3) - bump)
        pieces.append(Piece(place, (bump, bump, bump), np.eye(3)))
    return tuple(pieces)


def spicules(rng: np.random.Generator, centre: np.ndarray, radius: float, count: int) -> tuple[Strand, ...]:
    """Fine strands that radiate from a ball and taper."""
    strands = []
    for _ in range(count):
        way = draw_direction(rng)
        # Most end soon, some run on to the pleura or a vessel.
        end = centre + way * radius * (1.2 + min(rng.exponential(0.4), 1.8))
        strands.append(Strand(centre + way * radius * 0.7, end, radius * rng.uniform(0.12, 0.22), 0.3))
    return tuple(strands)


def unevenness(rng: np.random.Generator, centre: np.ndarray, radius: float, share: float) -> Noise:
    """Noise for a surface about so far from a centre: bumps of a size like its radius, `share` of it high."""
    return draw_noise(rng, centre, 2.2 * radius, max(0.75 * radius, 0.8), share * radius, components=1)


def band(
    rng: np.random.Generator, centre: np.ndarray, length: float, radius: float, along: np.ndarray
) -> tuple[Strand, ...]:
    """A strand of uneven thickness, bent in the middle."""
    half = along * length / 2
    middle = centre + draw_direction(rng) * length * rng.uniform(0.03, 0.12)
    r = radius * rng.uniform(0.7, 1.3, 3)
    return Strand(centre - half, middle, r[0], r[1]), Strand(middle, centre + half, r[1], r[2])


def leaf(
    centre: np.ndarray, radii: tuple[float, float, float], normal: np.ndarray, side: np.ndarray
) -> Piece:
    """An ellipsoid whose third axis lies along `normal`, and the first as nearly along `side` as can be."""
    first = side - normal * (side * normal).sum()
    first /= max(float(np.sqrt((first * first).sum())), 1e-6)
    return Piece(centre, radii, np.stack([first, np.cross(normal, first), normal]))


def draw_direction(rng: np.random.Generator) -> np.ndarray:
    """A random unit vector."""
    vector = rng.standard_normal(3)
    return vector / np.sqrt((vector * vector).sum())


def draw_turn(rng: np.random.Generator) -> np.ndarray:
    """Three random axes, each at right angles to the others, as rows."""
    first = draw_direction(rng)
    second = np.cross(first, draw_direction(rng))
    second /= np.sqrt((second * second).sum())
    return np.stack([first, second, np.cross(first, second)])
