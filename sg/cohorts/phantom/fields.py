"""Scalar and vector fields on lattices: what the synthetic anatomy is computed with.

A shape is a signed distance in mm, negative inside, exact or nearly so around its surface. Distances are smooth,
so they are computed on a lattice twice as coarse as the scan and interpolated; edges stay where they are to a
fraction of a voxel. Arrays are (z, y, x); positions and vectors are (x, y, z) in mm. No matrix product is used, so
that no bit depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.compiled import compiled


@dataclass(frozen=True)
class Lattice:
    """An axis-aligned lattice of positions: `x`, `y` and `z` are equally spaced and ascending, in mm."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(x, y, z)."""
        return tuple(float(axis[1] - axis[0]) for axis in (self.x, self.y, self.z))

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(z, y, x), the order of the arrays."""
        return self.z, self.y, self.x

    @property
    def grids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 positions x, y and z, each of a shape that broadcasts to the lattice's."""
        x, y, z = (axis.astype(np.float32) for axis in (self.x, self.y, self.z))
        return x[None, None, :], y[None, :, None], z[:, None, None]

    def coarser(self, factor: float) -> Lattice:
        """A lattice of `factor` times the spacing, from half a fine voxel before the first to beyond the last."""
        coarse = []
        for axis in (self.x, self.y, self.z):
            step = float(axis[1] - axis[0])
            count = int(np.ceil((len(axis) - 0.5) / factor)) + 2
            coarse.append(axis[0] - step / 2 + step * factor * np.arange(count))
        return Lattice(*coarse)

    def box(self, region: tuple[slice, slice, slice]) -> Lattice:
        """The part of the lattice in those slices (z, y, x)."""
        z, y, x = region
        return Lattice(self.x[x], self.y[y], self.z[z])

    def region(self, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[slice, slice, slice] | None:
        """Slices (z, y, x) of the points within [low, high] (x, y, z); None where there is none."""
        slices = []
        for axis, low, high in zip(self.axes, low_mm[::-1], high_mm[::-1], strict=True):
            step = axis[1] - axis[0]
            first = max(int(np.ceil((low - axis[0]) / step)), 0)
            last = min(int(np.floor((high - axis[0]) / step)), len(axis) - 1)
            if last < first:
                return None
            slices.append(slice(first, last + 1))
        return tuple(slices)


def interpolated(field: np.ndarray, coarse: Lattice, fine: Lattice) -> np.ndarray:
    """A field (..., z, y, x) on the coarse lattice at the points of the fine one, linear along each axis.

    The fine lattice must lie within the coarse one (by up to a rounding error beyond the last node).
    """
    # x first and z last: the last step, which makes the most numbers, then moves whole planes.
    for number in (2, 1, 0):
        nodes, points = coarse.axes[number], fine.axes[number]
        axis = field.ndim - 3 + number
        position = (points - nodes[0]) / (nodes[1] - nodes[0])
        below = np.clip(position.astype(np.intp), 0, len(nodes) - 2)
        share = (position - below).astype(np.float32)
        shape = [1] * field.ndim
        shape[axis] = len(share)
        share = share.reshape(shape)
        lower = np.take(field, below, axis=axis)
        upper = np.take(field, below + 1, axis=axis)
        upper -= lower
        upper *= share
        upper += lower
        field = upper
    return field


@dataclass(frozen=True)
class Noise:
    """A smooth random field: a cubic B-spline with independent normal coefficients.

    `coefficients` is float32 (components, z, y, x), `origin_mm` (x, y, z) the position of the first, `step_mm` their
    distance. Beyond the coefficients the field fades to nothing.
    """

    coefficients: np.ndarray
    origin_mm: np.ndarray
    step_mm: float

    def on(self, lattice: Lattice) -> np.ndarray:
        """The field on a lattice, float32 (components, z, y, x)."""
        field = self.coefficients
        for number in (2, 1, 0):  # as in `interpolated`
            position = (lattice.axes[number] - self.origin_mm[2 - number]) / self.step_mm
            field = _spline_along(field, position, number + 1)
        return field

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """The field at points (n, 3), as (n, components)."""
        index = ((points_mm - self.origin_mm) / self.step_mm).T[::-1]
        return np.stack(
            [
                ndimage.map_coordinates(
                    c.astype(np.float64), index, order=3, mode="grid-constant", prefilter=False
                )
                for c in self.coefficients
            ],
            axis=1,
        )


# Standard deviation of a cubic B-spline with unit normal coefficients, mean over positions: each axis contributes
# sum of B(t)^2 = 151/315 on average, and there are three.
SPLINE_SD = float((151 / 315) ** 1.5)
COEFFICIENT_MOST = 2.5


def draw_noise(
    rng: np.random.Generator,
    centre_mm: np.ndarray,
    reach_mm: float,
    step_mm: float,
    sd_mm: float,
    components: int = 3,
) -> Noise:
    """Smooth noise of the given standard deviation within `reach_mm` of a centre along every axis.

    Coefficients further out than COEFFICIENT_MOST standard deviations are moved there: the field's slope is bounded.
    """
    count = 2 * int(np.ceil(reach_mm / step_mm)) + 3
    drawn = rng.standard_normal((components, count, count, count))
    coefficients = np.clip(drawn, -COEFFICIENT_MOST, COEFFICIENT_MOST) * (sd_mm / SPLINE_SD)
    origin = np.asarray(centre_mm, float) - step_mm * (count - 1) / 2
    return Noise(coefficients.astype(np.float32), origin, step_mm)


def _spline_along(field: np.ndarray, position: np.ndarray, axis: int) -> np.ndarray:
    """Cubic B-spline sums along one axis at positions in units of coefficients; 0 beyond the coefficients."""
    count = field.shape[axis]
    first = np.floor(position).astype(np.intp) - 1
    t = position - np.floor(position)
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    index = first[:, None] + np.arange(4)
    within = (index >= 0) & (index < count)
    weights = np.where(within, np.stack(weights, axis=1), 0).astype(np.float32)
    before, after = field.shape[:axis], field.shape[axis + 1 :]
    flat = np.ascontiguousarray(field).reshape(int(np.prod(before)), count, int(np.prod(after)))
    total = np.empty((flat.shape[0], len(position), flat.shape[2]), np.float32)
    _weighted_sums(flat, np.clip(index, 0, count - 1), weights, total)
    return total.reshape(*before, len(position), *after)


@compiled
def _weighted_sums(field: np.ndarray, index: np.ndarray, weights: np.ndarray, total: np.ndarray) -> None:
    """total[a, j, b] = the sum over four taps k of weights[j, k] field[a, index[j, k], b]."""
    for a in range(field.shape[0]):
        for j in range(len(index)):
            p, q, r, s = weights[j]
            f, g, h, i = (
                field[a, index[j, 0]],
                field[a, index[j, 1]],
                field[a, index[j, 2]],
                field[a, index[j, 3]],
            )
            out = total[a, j]
            for b in range(len(out)):
                out[b] = (p * f[b] + q * g[b]) + (r * h[b] + s * i[b])


# --------------------------------------------------------------------------------------------- shapes


def ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """Nearly the distance to an ellipsoid with axes along x, y and z; exact for a ball."""
    u, v, w = ((p - c) / r for p, c, r in zip((x, y, z), centre, radii, strict=True))
    f = np.sqrt(u * u + v * v + w * w + np.float32(1e-8))  # never 0, not even at the centre
    # The gradient of f has this length; (f - 1) / |grad f| is the first-order distance near the surface.
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return f * (f - 1) / np.maximum(slope, np.float32(1e-4 / max(radii)))


def tube(x: np.ndarray, y: np.ndarray, z: np.ndarray, path: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to a tube along a polyline (n, 3) whose radius (n) changes linearly between its points."""
    return tubes_nearby(x, y, z, [(path, radii)], np.inf)


def tubes_nearby(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    tubes: Iterable[tuple[np.ndarray, np.ndarray]],
    reach_mm: float,
) -> np.ndarray:
    """Distance to the union of tubes, each a path (n, 3) and its radii (n); further away than `reach_mm` it is that.

    Positions are float32 arrays of one shape.
    """
    pieces = np.vstack([np.column_stack([p[:-1], p[1:], r[:-1], r[1:]]) for p, r in tubes], dtype=np.float32)
    distance = np.empty(x.size, np.float32)
    _nearest_piece(
        np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel(), np.ascontiguousarray(z).ravel(),
        pieces, np.float32(reach_mm), distance,
    )  # fmt: skip
    return distance.reshape(x.shape)


@compiled
def _nearest_piece(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    pieces: np.ndarray,
    reach: np.float32,
    distance: np.ndarray,
) -> None:
    """Distance of each point to the nearest of the pieces (start, end, both radii), at most `reach`."""
    nothing, whole = np.float32(0), np.float32(1)
    for i in range(len(x)):
        best = reach
        for k in range(len(pieces)):
            px, py, pz, qx, qy, qz, r, s = pieces[k]
            far = best + max(r, s)
            if x[i] < min(px, qx) - far or x[i] > max(px, qx) + far:
                continue
            if y[i] < min(py, qy) - far or y[i] > max(py, qy) + far:
                continue
            if z[i] < min(pz, qz) - far or z[i] > max(pz, qz) + far:
                continue
            dx, dy, dz = qx - px, qy - py, qz - pz
            u, v, w = x[i] - px, y[i] - py, z[i] - pz
            length = max(dx * dx + dy * dy + dz * dz, np.float32(1e-9))
            t = min(max((u * dx + v * dy + w * dz) / length, nothing), whole)
            u, v, w = u - t * dx, v - t * dy, w - t * dz
            best = min(best, np.sqrt(u * u + v * v + w * w) - (r + t * (s - r)))
        distance[i] = best


def segment_distance(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, p: np.ndarray, q: np.ndarray, r: float, s: float
) -> np.ndarray:
    """Distance to a round-ended segment from p (radius r) to q (radius s)."""
    dx, dy, dz = (float(v) for v in q - p)
    x, y, z = x - np.float32(p[0]), y - np.float32(p[1]), z - np.float32(p[2])
    length = max(dx * dx + dy * dy + dz * dz, 1e-9)
    t = np.clip((x * np.float32(dx) + y * np.float32(dy) + z * np.float32(dz)) / np.float32(length), 0, 1)
    x, y, z = x - t * np.float32(dx), y - t * np.float32(dy), z - t * np.float32(dz)
    return np.sqrt(x * x + y * y + z * z) - (np.float32(r) + t * np.float32(s - r))


def smooth_minimum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The minimum of two distances (the union of shapes), rounded where they are within `width` mm of each other."""
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - h * h * (width / 4)


def smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The maximum of two distances (the intersection of shapes), rounded likewise."""
    return -smooth_minimum(-a, -b, width)
