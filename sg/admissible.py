"""Which corners of a scan a patch may be cut at, known for every position at once, and draws among them.

Corners are the first voxel (z, y, x) of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sg.params import TissueRule

Zyx = tuple[int, int, int]


def tissue_sums(tissue: np.ndarray, size: Zyx) -> np.ndarray:
    """Twice the tissue score summed over every box of `size`: int32 (z, y, x) by corner, empty where none fits.

    A voxel scores 1 if it is tissue (boolean, z, y, x), else 0.5 if the next one along z is, else 0; beyond the last
    slice there is no tissue. As published (pattern_generator_3D.py), where the same is a loop over three slices. One
    pass: a summed-area table and the differences of its corners, axis by axis. Where the table overflows its 32 bits
    it does so modulo 2^32, which the differences take back.
    """
    if any(side < part for side, part in zip(tissue.shape, size, strict=True)):
        return np.zeros([max(0, s - p + 1) for s, p in zip(tissue.shape, size, strict=True)], np.int32)
    table = np.zeros([side + 1 for side in tissue.shape], np.int32)
    inner = table[1:, 1:, 1:]
    np.multiply(tissue, 2, out=inner, casting="unsafe")
    inner[:-1] += tissue[1:] & ~tissue[:-1]
    for axis in range(3):
        np.cumsum(inner, axis=axis, out=inner)
    for axis, part in enumerate(size):
        far, near = ([slice(None)] * 3, [slice(None)] * 3)
        far[axis], near[axis] = slice(part, None), slice(None, -part)
        table = table[tuple(far)] - table[tuple(near)]
    return table


@dataclass(frozen=True)
class Admissible:
    """The corners of one scan that a patch may be cut at.

    `mask` (z, y, x) is over the corners inside the border, the first of them being `first`; `share` the mean tissue
    score of the patch at each. `counts` says how many of all `positions` each rule refused.
    """

    mask: np.ndarray
    share: np.ndarray
    first: Zyx
    counts: dict[str, int]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.mask))

    def corner(self, number: int) -> Zyx:
        """The admissible corner of that number, in the order of the array."""
        upto = np.cumsum(np.count_nonzero(self.mask, axis=(1, 2)))
        z = int(np.searchsorted(upto, number, side="right"))
        inside = np.flatnonzero(self.mask[z])[number - (int(upto[z - 1]) if z else 0)]
        y, x = divmod(int(inside), self.mask.shape[2])
        return (z + self.first[0], y + self.first[1], x + self.first[2])

    def share_at(self, corner: Zyx) -> float:
        """Mean tissue score of the patch at a corner inside the border."""
        return float(self.share[tuple(c - f for c, f in zip(corner, self.first, strict=True))])


def admissible(tissue: np.ndarray, size: Zyx, rule: TissueRule) -> Admissible:
    """Which corners the border and the tissue rule leave, in a boolean image (z, y, x) of what is tissue.

    The border is the least distance of the patch from each side of the scan; the mean tissue score must lie in
    [tissue_min, tissue_max], ends included. (The published borders are one voxel wider at the far sides, and four
    along z, for no stated reason.)
    """
    counts = {"positions": math.prod(max(0, s - p + 1) for s, p in zip(tissue.shape, size, strict=True))}
    first = tuple(rule.border)
    inner = [max(0, s - p - 2 * b + 1) for s, p, b in zip(tissue.shape, size, first, strict=True)]
    counts["border"] = counts["positions"] - math.prod(inner)
    if 0 in inner:
        counts |= {"tissue_min": 0, "tissue_max": 0}
        return Admissible(np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0), np.float32), first, counts)
    # One slice more than the patches reach, for the score looks at the next one.
    ends = [
        b + n + p - 1 + (axis == 0) for axis, (b, n, p) in enumerate(zip(first, inner, size, strict=True))
    ]
    part = tissue[tuple(slice(b, end) for b, end in zip(first, ends, strict=True))]
    share = tissue_sums(part, size)[: inner[0]] / np.float64(2 * math.prod(size))
    low, high = share < rule.tissue_min, share > rule.tissue_max
    counts |= {"tissue_min": int(np.count_nonzero(low)), "tissue_max": int(np.count_nonzero(high))}
    return Admissible(~(low | high), share, first, counts)


def exclude_near(places: Admissible, earlier: Iterable[Sequence[float]], distance: float) -> int:
    """Take out of the mask every corner nearer than `distance` (voxels, Euclidean) to an earlier one; how many."""
    taken = 0
    for corner in earlier:
        near, offsets = [], []
        for c, first, side in zip(corner, places.first, places.mask.shape, strict=True):
            low = min(max(math.ceil(c - distance) - first, 0), side)
            near.append(slice(low, max(low, math.floor(c + distance) - first + 1)))
            offsets.append(np.arange(near[-1].start, min(near[-1].stop, side)) + first - c)
        squared = sum(part**2 for part in np.meshgrid(*offsets, indexing="ij", sparse=True))
        ball = places.mask[tuple(near)]
        hit = ball & (squared < distance**2)
        taken += int(np.count_nonzero(hit))
        ball &= ~hit
    return taken


def draw(places: Admissible, count: int, rng: np.random.Generator) -> list[Zyx]:
    """Up to `count` corners, uniformly among the admissible ones, none twice; all of them if there are no more."""
    there = len(places)
    chosen = rng.choice(there, size=min(count, there), replace=False) if there else []
    return [places.corner(int(number)) for number in chosen]
