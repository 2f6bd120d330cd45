"""Painting over: boxes filled with noise, or everything but some boxes.

Sides and places are fractions of the patch's as published: in-painted boxes measure a sixth to a third of each
side, kept boxes what is left of it by 3/7 to 4/7; both stay three voxels off the edges, as far as a small patch
has room. Noise is uniform in [0, 1), one value a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg import params

MARGIN = 3

Zyx = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A block of voxels by its first voxel and its sides, (z, y, x)."""

    start: Zyx
    side: Zyx

    @property
    def slices(self) -> tuple[slice, ...]:
        """Its place in an array (z, y, x)."""
        return tuple(slice(first, first + side) for first, side in zip(self.start, self.side, strict=True))


@dataclass(frozen=True)
class Painted:
    """Boxes that are filled with noise, and the noise's seed."""

    boxes: tuple[Box, ...]
    seed: int


@dataclass(frozen=True)
class Kept:
    """Boxes outside which everything is noise, and the noise's seed."""

    boxes: tuple[Box, ...]
    seed: int


def draw_painted(rng: np.random.Generator, effect: params.Inpaint, shape: Zyx) -> Painted:
    """One box to fill, and further ones as long as `again` allows, at most `boxes`."""
    bounds = [(dimension // 6, dimension // 3) for dimension in shape]
    return Painted(_draw_boxes(rng, effect.boxes, effect.again, bounds, shape), int(rng.integers(2**63)))


def draw_kept(rng: np.random.Generator, effect: params.Outpaint, shape: Zyx) -> Kept:
    """One box to keep, and further ones as long as `again` allows, at most `boxes`."""
    bounds = [(dimension - 4 * dimension // 7, dimension - 3 * dimension // 7) for dimension in shape]
    return Kept(_draw_boxes(rng, effect.boxes, effect.again, bounds, shape), int(rng.integers(2**63)))


def paint_in(patch: np.ndarray, drawn: Painted) -> np.ndarray:
    """The patch (z, y, x) with noise in the boxes, a copy; where boxes overlap, the later one's."""
    rng = np.random.Generator(np.random.PCG64(drawn.seed))
    out = np.array(patch, order="C")
    for box in drawn.boxes:
        out[box.slices] = rng.random(box.side, dtype=np.float32)
    return out


def paint_out(patch: np.ndarray, drawn: Kept) -> np.ndarray:
    """Noise of the patch's shape (z, y, x) in which the boxes are the patch's."""
    out = np.random.Generator(np.random.PCG64(drawn.seed)).random(patch.shape, dtype=np.float32)
    for box in drawn.boxes:
        out[box.slices] = patch[box.slices]
    return out


def _draw_boxes(
    rng: np.random.Generator, most: int, again: float, bounds: list[tuple[int, int]], shape: Zyx
) -> tuple[Box, ...]:
    boxes = [_draw_box(rng, bounds, shape)]
    while len(boxes) < most and rng.random() < again:
        boxes.append(_draw_box(rng, bounds, shape))
    return tuple(boxes)


def _draw_box(rng: np.random.Generator, bounds: list[tuple[int, int]], shape: Zyx) -> Box:
    """Sides uniform within the bounds, ends included; then the place, uniform within the margins."""
    side = tuple(int(rng.integers(low, high, endpoint=True)) for low, high in bounds)
    start = []
    for dimension, length in zip(shape, side, strict=True):
        margin = min(MARGIN, (dimension - length) // 2)
        start.append(int(rng.integers(margin, dimension - length - margin, endpoint=True)))
    return Box(tuple(start), side)
