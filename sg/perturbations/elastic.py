"""Elastic warp: every voxel is read from a place displaced in its plane by smooth noise.

Published: dx, dy = alpha * gaussian(U(-1, 1) noise, sigma along all three axes, zeros outside the patch); dz = 0;
linear reading, the patch mirrored at its edges. Off the borders this displaces with a standard deviation of
alpha * 3^-1/2 / (2 pi^1/2 sigma)^3/2, which is 3.79 voxels for alpha 991 and sigma 8.

Here the noise is drawn in cells half a sigma wide instead of one voxel, with the variance of their voxels' sum.
A Gaussian of that sigma cannot tell: each covariance along an axis, borders included, stays within half a per
cent of the variance, from a two-hundredth part of the random numbers at full size.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from sg import params
from sg.compiled import compiled

CELLS_PER_SIGMA = 2
PUBLISHED_WIDTH = 64


@dataclass(frozen=True)
class Warp:
    """A warp of one patch: alpha and sigma in voxels of this patch, and the seed of its noise."""

    alpha: float
    sigma: float
    seed: int


def draw(rng: np.random.Generator, effect: params.Elastic, shape: tuple[int, int, int]) -> Warp:
    """A warp of a patch of that shape (z, y, x).

    Sigma goes with the patch's width (x), and so does the displacement: its standard deviation is in proportion
    to alpha / sigma^1.5, so alpha goes with the width to the power of 2.5.
    """
    scale = shape[2] / PUBLISHED_WIDTH
    return Warp(effect.alpha * scale**2.5, effect.sigma * scale, int(rng.integers(2**63)))


def warp(patch: np.ndarray, drawn: Warp) -> np.ndarray:
    """The warped patch, float32 (z, y, x), of a float32 patch in [0, 1]."""
    out = np.empty_like(patch, order="C")
    _sample(np.ascontiguousarray(patch), displacement(drawn, patch.shape), out)
    return out


def displacement(drawn: Warp, shape: tuple[int, int, int]) -> np.ndarray:
    """Where each voxel is read from, less where it is: float32 (2, z, y, x), along y and along x, in voxels."""
    smooth = [_smoothing(side, drawn.sigma) for side in shape]
    rng = np.random.Generator(np.random.PCG64(drawn.seed))
    noise = rng.random((2, *(along.shape[1] for along in smooth)), dtype=np.float32)
    noise = (2 * noise - 1) * np.float32(drawn.alpha)
    field = np.empty((2, *shape), np.float32)
    _spread(noise, *smooth, field)
    return field


@functools.lru_cache(maxsize=64)
def _smoothing(side: int, sigma: float) -> np.ndarray:
    """Share of each noise cell in the displacement of each voxel along one axis: float32 (side, cells).

    The cells divide the side evenly. Weights sum to 1 over whole numbers as scipy's do, and count the square root
    of a cell's width, so that a cell has the variance of the voxels that it stands for.
    """
    cells = min(side, math.ceil(CELLS_PER_SIGMA * side / sigma))
    width = side / cells
    centres = (np.arange(cells) + 0.5) * width - 0.5
    reach = math.ceil(4 * sigma)
    total = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).sum()
    distance = np.arange(side)[:, None] - centres
    weights = (np.exp(-(distance**2) / (2 * sigma**2)) * (math.sqrt(width) / total)).astype(np.float32)
    weights.setflags(write=False)  # shared by all callers
    return weights


@compiled
def _spread(noise, along_z, along_y, along_x, field):
    """field (2, z, y, x) = noise (2, cz, cy, cx) smoothed along one axis after the other."""
    _, cz, cy, cx = noise.shape
    _, nz, ny, nx = field.shape
    rows = np.zeros((cy, nx), np.float32)
    planes = np.empty((cz, ny, nx), np.float32)
    for axis in range(2):
        for c in range(cz):
            rows[:] = 0
            for j in range(cy):
                for i in range(cx):
                    value = noise[axis, c, j, i]
                    for x in range(nx):
                        rows[j, x] += along_x[x, i] * value
            for y in range(ny):
                for x in range(nx):
                    planes[c, y, x] = 0
                for j in range(cy):
                    weight = along_y[y, j]
                    for x in range(nx):
                        planes[c, y, x] += weight * rows[j, x]
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    field[axis, z, y, x] = 0
                for c in range(cz):
                    weight = along_z[z, c]
                    for x in range(nx):
                        field[axis, z, y, x] += weight * planes[c, y, x]


@compiled
def _sample(patch, field, out):
    """Read the patch linearly, in the plane, at each voxel's displaced place; mirrored at its edges (d c b a | a b c d)."""
    nz, ny, nx = patch.shape
    one = np.float32(1)
    half = np.float32(0.5)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                # Half a voxel on, the mirrored patch repeats every two sides and turns back at each.
                v = np.float32(y) + half + field[0, z, y, x]
                u = np.float32(x) + half + field[1, z, y, x]
                v -= np.float32(2 * ny) * np.floor(v / np.float32(2 * ny))
                u -= np.float32(2 * nx) * np.floor(u / np.float32(2 * nx))
                v = min(v, np.float32(2 * ny) - v) - half
                u = min(u, np.float32(2 * nx) - u) - half
                j = int(np.floor(v))
                i = int(np.floor(u))
                b = v - np.float32(j)
                a = u - np.float32(i)
                # Both ends twice, so that not even an infinite displacement reads outside the patch.
                j0, j1 = min(max(j, 0), ny - 1), max(min(j + 1, ny - 1), 0)
                i0, i1 = min(max(i, 0), nx - 1), max(min(i + 1, nx - 1), 0)
                top = patch[z, j0, i0] * (one - a) + patch[z, j0, i1] * a
                bottom = patch[z, j1, i0] * (one - a) + patch[z, j1, i1] * a
                value = top * (one - b) + bottom * b
                # Rounding alone can leave [0, 1].
                out[z, y, x] = min(max(value, np.float32(0)), one)
