"""Cubic B-splines through the voxels of a volume, sampled on a grid along the same axes.

On such a grid the spline is a product of three of one dimension, so that each axis is worked out by itself: a
recursion forwards and one backwards turn the values of a line into coefficients, and four of these are weighed for
each new voxel. The volume is mirrored about the centres of its first and last voxels (d c b | a b c d | c b a).

Smoothing before a coarser grid: a Gaussian commutes with the spline's recursions under this mirror, so it widens
the four weights and costs nothing else. Its full width at half maximum is sqrt(ratio^2 - 1) voxels of the finer
grid, so that a voxel of it, smoothed, is as wide as one of the coarser grid.

Sources: M. Unser, Splines: a perfect fit for signal and image processing, IEEE Signal Processing Magazine 16(6),
1999 (recursions); M. J. Cardoso et al., Scale factor point spread function matching, MICCAI 2015 (the width).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sg.compiled import compiled

POLE = np.float32(math.sqrt(3) - 2)
TURN = np.float32((math.sqrt(3) - 2) / ((math.sqrt(3) - 2) ** 2 - 1))  # of the recursion, at the far mirror
# So many voxels away, a voxel counts 7e-10 of its value: less than 1e-5 HU.
HORIZON = 16
# Positions this near to whole voxels are these voxels, which changes less than 0.01 HU.
WHOLE = 1e-6
# A Gaussian is cut off so many standard deviations from its centre; 6e-5 of it lie beyond.
CUT_OFF = 4.0
# Columns that a loop works on together: their lines stay in the nearest cache, and fill its vectors.
WIDTH = 128
# Planes read together where they interleave in memory: as many as share a line of the cache, in int16.
TOGETHER = 32
# Rows that are turned together between the order of a volume and that of a transposed one.
TILE = 16
# Added to a float32 below 2^22 and taken away again, it leaves a whole number, halves to even. np.rint is a call.
EVEN = np.float32(1.5 * 2**23)
# Rows of the volume that are finished together, those that they share with their neighbours not counted.
ROWS = 32


def smoothing(ratio: float) -> np.ndarray:
    """Weights, summing to 1, of a voxel and its neighbours before a grid that is coarser by `ratio`, float64.

    The voxel itself stands in the middle. A ratio of at most 1 changes nothing: a single 1.
    """
    if ratio <= 1:
        return np.ones(1)
    sigma = math.sqrt((ratio**2 - 1) / (8 * math.log(2)))
    reach = math.ceil(CUT_OFF * sigma)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


@dataclass(frozen=True)
class Axis:
    """How `count` new voxels come of the `side` old ones along an axis: n weighed coefficients each.

    `opening`, float32 (at most HORIZON,), weighs the first old voxels into the first value of the forward recursion.
    `index`, int64, and `weights`, float32, are (count, n), n being a multiple of 4: which coefficients, and how much
    of each, the recursions' gain included. Where new voxels are old ones, the coefficients are the values, and
    `opening` is empty.
    """

    side: int
    opening: np.ndarray
    index: np.ndarray
    weights: np.ndarray

    @property
    def count(self) -> int:
        """New voxels along the axis."""
        return len(self.index)

    @property
    def still(self) -> bool:
        """Whether every voxel stays what and where it is."""
        return not len(self.opening) and self.count == self.side


def axis(side: int, count: int, start: float, step: float, smooth: np.ndarray) -> Axis:
    """New voxels at start + step * (0, 1, ..., count - 1), in voxels of the old axis, smoothed by `smooth` before.

    Positions lie within the field of view, from -0.5 to side - 0.5.
    """
    positions = start + step * np.arange(count)
    nearest = np.rint(positions).astype(np.int64)
    # Of a single voxel, all mirror images are itself.
    if side == 1 or (len(smooth) == 1 and np.abs(positions - nearest).max() < WHOLE):
        weights = np.zeros((count, 4), np.float32)
        weights[:, 0] = 1
        return Axis(side, np.empty(0, np.float32), np.repeat(nearest[:, None], 4, axis=1), weights)

    below = np.floor(positions)
    t = (positions - below)[:, None]
    # Six times the spline's values: what both recursions would have to multiply by.
    cubic = np.hstack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * (1 - t) ** 2 + 3 * (1 - t) ** 3, t**3])
    reach = len(smooth) // 2
    taps = len(smooth) + 3
    weights = np.zeros((count, math.ceil(taps / 4) * 4))
    for offset, share in enumerate(smooth):
        weights[:, offset : offset + 4] += share * cubic
    first = below.astype(np.int64)[:, None] - 1 - reach
    # Places that only fill up the fours have no weight.
    index = mirrored(first + np.minimum(np.arange(weights.shape[1]), taps - 1), side)
    return Axis(side, _opening(side), index, weights.astype(np.float32))


def mirrored(index: np.ndarray, side: int) -> np.ndarray:
    """The voxels of an axis of `side` voxels, at least 2, that are seen at any whole index."""
    period = 2 * side - 2
    index = np.mod(index, period)
    return np.minimum(index, period - index)


def _opening(side: int) -> np.ndarray:
    """Weights of the first voxels in the forward recursion's first value: a geometric sum over all mirror images."""
    pole, period = math.sqrt(3) - 2, 2 * side - 2
    voxels = np.arange(side)
    weights = pole**voxels + pole ** (period - voxels)
    weights[[0, -1]] = 1, pole ** (side - 1)  # which the mirrors pass through
    return (weights[:HORIZON] / (1 - pole**period)).astype(np.float32)


def sampled(array: np.ndarray, axes: Sequence[Axis], low: float, high: float) -> np.ndarray:
    """The spline through an array (z, y, x) of any real numbers, along its axes (z, y, x): int16, rounded half to even.

    Values are clipped to [low, high] before and after. Memory beside array and result: about 50 rows (z, x) of the
    result as float32, and more where smoothing reaches further than that.
    """
    along_z, along_y, along_x = axes
    out = np.empty((along_z.count, along_y.count, along_x.count), np.int16)
    blocks = list(_blocks(along_y))
    length = max(block.end - block.begin for block in blocks)
    # Row r is window[:, r % length]: what the loops read together lies together.
    window = np.empty((along_z.count, length, along_x.count), np.float32)
    planes = _planes(array)
    read = 0
    for block in blocks:
        for row in range(read, block.end):
            _in_plane(next(planes), along_z, along_x, low, high, window[:, row % length])
        _finish(
            window,
            block.begin,
            read,
            block.end,
            along_y.opening,
            along_y.index[block.rows] - block.begin,
            along_y.weights[block.rows],
            np.float32(low),
            np.float32(high),
            out[:, block.rows],
        )
        read = block.end
    return out


@dataclass(frozen=True)
class _Block:
    """New rows that are finished together, and the old rows [begin, end) which must be at hand for them."""

    rows: slice
    begin: int
    end: int


def _blocks(along: Axis) -> Iterator[_Block]:
    """All new rows, in blocks of about ROWS old ones; those that are read for a block are at hand for it."""
    count = max(1, ROWS * along.count // along.side)
    beyond = HORIZON if len(along.opening) else 0
    end = 0
    for first in range(0, along.count, count):
        rows = slice(first, min(first + count, along.count))
        index = along.index[rows]
        begin = min(int(index.min()), max(end - 1, 0))  # the recursion goes on from the last row read
        end = max(end, min(along.side, int(index.max()) + 1 + beyond))
        yield _Block(rows, begin, end)


def _planes(array: np.ndarray) -> Iterator[np.ndarray]:
    """The planes (z, x) of an array (z, y, x), row by row."""
    along_z, along_y, along_x = map(abs, array.strides)
    if along_y > min(along_z, along_x):
        yield from array.transpose(1, 0, 2)
        return
    # Neighbours in memory lie in different planes.
    for row in range(0, array.shape[1], TOGETHER):
        yield from array[:, row : row + TOGETHER].transpose(1, 0, 2).copy("K")


def _in_plane(
    plane: np.ndarray, along_z: Axis, along_x: Axis, low: float, high: float, out: np.ndarray
) -> None:
    """out (new z, new x) = plane (z, x), clipped, along both axes; that which makes less of it comes first."""
    values = np.clip(
        plane, low, high, out=np.empty(plane.shape, np.float32), casting="same_kind", dtype=np.float32
    )
    if along_z.count * along_x.side < along_z.side * along_x.count:
        _along(values, along_z, between := np.empty((along_z.count, along_x.side), np.float32))
        _along(between.T, along_x, out.T)
    else:
        _along(values.T, along_x, (between := np.empty((along_z.side, along_x.count), np.float32)).T)
        _along(between, along_z, out)


def _along(source: np.ndarray, along: Axis, out: np.ndarray) -> None:
    if along.still:
        out[...] = source
    else:
        _lines(source, along.opening, along.index, along.weights, out)


@compiled
def _lines(source, opening, index, weights, out):
    """out (count, m) = source (side, m) sampled along its first axis; see Axis. Either may be a transposed array."""
    side, columns = source.shape
    count, taps = index.shape
    block = np.empty((side, WIDTH), np.float32)
    made = np.empty((TILE, WIDTH), np.float32)
    for left in range(0, columns, WIDTH):
        width = min(WIDTH, columns - left)
        for top in range(0, side, TILE):
            for j in range(width):
                for row in range(top, min(top + TILE, side)):
                    block[row, j] = source[row, left + j]

        if opening.size:
            for j in range(width):
                block[0, j] *= opening[0]
            for row in range(1, opening.size):
                for j in range(width):
                    block[0, j] += opening[row] * block[row, j]
            for row in range(1, side):
                for j in range(width):
                    block[row, j] += POLE * block[row - 1, j]
            for j in range(width):
                block[side - 1, j] = TURN * (block[side - 1, j] + POLE * block[side - 2, j])
            for row in range(side - 2, -1, -1):
                for j in range(width):
                    block[row, j] = POLE * (block[row + 1, j] - block[row, j])

        for top in range(0, count, TILE):
            rows = min(TILE, count - top)
            for row in range(rows):
                new = top + row
                for k in range(0, taps, 4):
                    a, b, c, d = index[new, k], index[new, k + 1], index[new, k + 2], index[new, k + 3]
                    p, q = weights[new, k], weights[new, k + 1]
                    r, s = weights[new, k + 2], weights[new, k + 3]
                    if k == 0:
                        for j in range(width):
                            made[row, j] = (
                                p * block[a, j] + q * block[b, j] + r * block[c, j] + s * block[d, j]
                            )
                    else:
                        for j in range(width):
                            made[row, j] += (
                                p * block[a, j] + q * block[b, j] + r * block[c, j] + s * block[d, j]
                            )
            for j in range(width):
                for row in range(rows):
                    out[top + row, left + j] = made[row, j]


@compiled
def _finish(window, first, fresh, end, opening, index, weights, low, high, out):
    """out (z, count, x), int16: what is sampled of rows [first, end) of the window; those from `fresh` on are new in it.

    The forward recursion goes on over the new rows, in the window; the backward one starts at the last of them.
    """
    planes, length, columns = window.shape
    count, taps = index.shape
    last = end - first - 1
    block = np.empty((end - first, columns), np.float32)
    made = np.empty(columns, np.float32)
    rounded = np.empty(columns, np.int16)
    for z in range(planes):
        if opening.size:
            if fresh == 0:
                for j in range(columns):
                    window[z, 0, j] *= opening[0]
                for row in range(1, opening.size):
                    for j in range(columns):
                        window[z, 0, j] += opening[row] * window[z, row, j]
            for row in range(max(fresh, 1), end):
                here, before = row % length, (row - 1) % length
                for j in range(columns):
                    window[z, here, j] += POLE * window[z, before, j]

        for row in range(end - first):
            here = (first + row) % length
            for j in range(columns):
                block[row, j] = window[z, here, j]
        if opening.size:
            # Exact at the end of the volume; elsewhere any start will do, HORIZON rows beyond what is sampled.
            for j in range(columns):
                block[last, j] = TURN * (block[last, j] + POLE * block[last - 1, j])
            for row in range(last - 1, -1, -1):
                for j in range(columns):
                    block[row, j] = POLE * (block[row + 1, j] - block[row, j])

        for row in range(count):
            for k in range(0, taps, 4):
                a, b, c, d = index[row, k], index[row, k + 1], index[row, k + 2], index[row, k + 3]
                p, q, r, s = weights[row, k], weights[row, k + 1], weights[row, k + 2], weights[row, k + 3]
                if k == 0:
                    for j in range(columns):
                        made[j] = p * block[a, j] + q * block[b, j] + r * block[c, j] + s * block[d, j]
                else:
                    for j in range(columns):
                        made[j] += p * block[a, j] + q * block[b, j] + r * block[c, j] + s * block[d, j]
            for j in range(columns):
                rounded[j] = np.int16((min(max(made[j], low), high) + EVEN) - EVEN)
            out[z, row] = rounded
