"""Perturbing a patch of 64 x 64 x 32: the published forms, written out in NumPy and scipy, against ours.

    python -m bench.perturbations

Each line is the least time of several alternating runs, in ms a patch; the last line is the smallest gain.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from sg.perturbations import elastic, intensity, shuffling

SHAPE = (32, 64, 64)
WINDOWS = 10_000
ROUNDS = 7


def published_elastic(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise a voxel, smoothed along three axes, for each of two displaced axes; linear reading."""
    dy, dx = (gaussian_filter(rng.uniform(-1, 1, SHAPE), 8, mode="constant", cval=0) * 991 for _ in range(2))
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return map_coordinates(patch, (z, y + dy, x + dx), order=1, mode="reflect")


def published_shuffling(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One window after the other: sides and place, its voxels permuted and put into the copy."""
    out = patch.copy()
    bounds = random.Random(int(rng.integers(2**63)))
    for _ in range(WINDOWS):
        side = [bounds.randint(1, dimension // 10) for dimension in SHAPE]
        start = [bounds.randint(0, dimension - length) for dimension, length in zip(SHAPE, side, strict=True)]
        window = tuple(slice(first, first + length) for first, length in zip(start, side, strict=True))
        voxels = patch[window].ravel()
        rng.shuffle(voxels)
        out[window] = voxels.reshape(side)
    return out


def published_bezier(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """100,000 points of the curve, sorted, and an interpolation for every voxel."""
    points = np.array([(0, 0), *rng.random((2, 2)), (1, 1)])
    t = np.linspace(0, 1, 100_000)
    bernstein = np.array([t**3, 3 * t**2 * (1 - t), 3 * t * (1 - t) ** 2, (1 - t) ** 3])
    x, y = points.T @ bernstein
    return np.interp(patch, np.sort(x), np.sort(y))


def our_elastic(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The warp of sg."""
    return elastic.warp(patch, elastic.Warp(991.0, 8.0, int(rng.integers(2**63))))


def our_shuffling(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The windows of sg."""
    return shuffling.shuffle(patch, shuffling.Windows(WINDOWS, int(rng.integers(2**63))))


def our_bezier(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The intensity map of sg."""
    u1, u2, u3, u4 = rng.random(4)
    return intensity.remap(patch, intensity.Curve(((u1, u2), (u3, u4)), falling=False))


def least_ms(sides: list[Callable[[], object]]) -> list[float]:
    """Least time of each over some rounds in turn, after one that does not count (compilation, caches)."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(1 + ROUNDS):
        for side, taken in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            taken.append(1000 * (time.perf_counter() - start))
    return [min(taken[1:]) for taken in times]


def main() -> None:
    """Print a line for each effect, and the ratio."""
    rng = np.random.default_rng(0)
    patch = rng.random(SHAPE, dtype=np.float32)
    pairs = {
        "elastic": (published_elastic, our_elastic),
        f"{WINDOWS} windows": (published_shuffling, our_shuffling),
        "Bezier": (published_bezier, our_bezier),
    }
    gains = []
    for name, (published, ours) in pairs.items():
        theirs_ms, ours_ms = least_ms([lambda f=published: f(patch, rng), lambda f=ours: f(patch, rng)])
        gains.append(theirs_ms / ours_ms)
        print(f"{name}: published {theirs_ms:.2f} ms, ours {ours_ms:.2f} ms, {gains[-1]:.1f} times as fast")
    print(f"ratio {min(gains):.1f}")


if __name__ == "__main__":
    main()
