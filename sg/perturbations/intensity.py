"""Non-linear intensity: voxels go through a monotone Bezier curve from (0, 0) to (1, 1), or its falling reading.

The control points (u1, u2) and (u3, u4) are uniform in the unit square, which makes both coordinates of the curve
monotone in its parameter. The falling map pairs the abscissae with the ordinates in reverse order, as published
(sorting only one of them), and is not 1 minus the rising one.

The map is a table here: every voxel is mapped as the curve maps a value within 1/8192 of its own, a quarter of a
HU in a range of 2,000; where the curve is not nearly upright, to within 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg import params
from sg.compiled import compiled

# Published: 100,000 samples, and an interpolation among them for every voxel.
SAMPLES = 2001
BINS = 8192


@dataclass(frozen=True)
class Curve:
    """A cubic Bezier curve by its inner control points (x, y), and whether it is read falling."""

    controls: tuple[tuple[float, float], tuple[float, float]]
    falling: bool


def draw(rng: np.random.Generator, effect: params.Intensity) -> Curve:
    """A curve with uniform control points."""
    u1, u2, u3, u4 = (float(value) for value in rng.random(4))
    return Curve(((u1, u2), (u3, u4)), bool(rng.random() < effect.inverted))


def remap(patch: np.ndarray, drawn: Curve) -> np.ndarray:
    """The patch (z, y, x) in [0, 1] with every voxel mapped, float32 in [0, 1]."""
    table = np.interp(np.arange(BINS + 1) / BINS, *samples(drawn))
    out = np.empty(patch.shape, np.float32)
    _look_up(np.ascontiguousarray(patch).reshape(-1), table, out.reshape(-1))
    return out


def samples(drawn: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Points on the map: abscissae rising from 0 to 1, ordinates rising from 0 to 1 or falling from 1 to 0."""
    t = np.linspace(0, 1, SAMPLES)
    first, second, last = 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    (x1, y1), (x2, y2) = drawn.controls
    # Accumulating the maximum takes out what rounding may leave of a fall where the curve stands still.
    x = np.minimum(np.maximum.accumulate(first * x1 + second * x2 + last), 1)
    y = np.minimum(np.maximum.accumulate(first * y1 + second * y2 + last), 1)
    return x, y[::-1].copy() if drawn.falling else y


@compiled
def _look_up(values, table, out):
    """out = the table at values in [0, 1], linear between its evenly spaced nodes."""
    bins = len(table) - 1
    for index in range(len(values)):
        # So said, a value that is no number is 0, and nothing outside the table is read.
        place = np.float64(values[index]) * bins
        place = place if place > 0 else 0.0
        place = place if place < bins else np.float64(bins)
        node = min(int(place), bins - 1)
        left, right = table[node], table[node + 1]
        mapped = left + (place - node) * (right - left)
        # Rounding must not pass the next node, for the map to be monotone.
        out[index] = min(max(mapped, min(left, right)), max(left, right))
