"""Outlines of masks, as chains of the pixels just outside, which is how LIDC's readers outlined nodules."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = ndimage.generate_binary_structure(2, 2)
# The eight neighbours (y, x) of a pixel, clockwise as a picture shows them, from the left on
AROUND = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))


def outer_borders(mask: np.ndarray) -> list[np.ndarray]:
    """The pixels just outside each part of a mask (y, x), in order around it, as arrays (n, 2) of x and y.

    A chain's pixels touch at sides or corners, the last one is the first again, and none is of the mask: what lies
    strictly within the polygon is the part, with its holes and clefts of a pixel or two filled. The mask must leave a
    margin of one pixel. Parts that touch at a corner are one.
    """
    parts, count = ndimage.label(mask, SQUARE)
    chains = []
    for number in range(1, count + 1):
        part = ndimage.binary_fill_holes(parts == number)
        chains.append(_chain(ndimage.binary_dilation(part, CROSS)))
    return chains


def _chain(shape: np.ndarray) -> np.ndarray:
    """The border of one connected shape by Moore's neighbour tracing: from each pixel on to the next one clockwise."""
    bounded = np.pad(shape, 1)
    start = tuple(int(v) for v in np.argwhere(bounded)[0])  # the leftmost of the top row: nothing to its left
    chain, here, looking = [start], start, 0
    first_step = None
    while True:
        for turn in range(8):
            dy, dx = AROUND[(looking + turn) % 8]
            if bounded[here[0] + dy, here[1] + dx]:
                break
        step = (looking + turn) % 8
        if here == start:
            if step == first_step:
                break
            first_step = step if first_step is None else first_step
        here = (here[0] + dy, here[1] + dx)
        chain.append(here)
        # Go on from the pixel that was looked at just before this one, which is outside.
        looking = (step // 2 * 2 + 6) % 8
    return np.array(chain)[:, ::-1] - 1
