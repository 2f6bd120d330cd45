"""Which corners of a scan a patch may be cut at, known for every position at once, and draws among them.

Corners are the first voxel (z, y, x) of a patch.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sg.compiled import compiled
from sg.errors import InputError
from sg.params import TissueRule

Zyx = tuple[int, int, int]


def tissue_sums(tissue: np.ndarray, size: Zyx) -> np.ndarray:
    """Twice the tissue score summed over every box of `size`: int32 (z, y, x) by corner, empty where none fits.

    A voxel scores 1 if it is tissue (boolean, z, y, x), else 0.5 if the next one along z is, else 0; beyond the last
    slice there is no tissue. As published (pattern_generator_3D.py), where the same is a loop over three slices.
    InputError for boxes of 2^30 voxels or more, whose sums 32 bits might not hold.
    """
    return _sums(
        tissue.view(np.uint8), 1, (0, 0, 0), [s - p + 1 for s, p in _pairs(tissue.shape, size)], size
    )


def _sums(values: np.ndarray, least: int, first: Zyx, count: Sequence[int], size: Zyx) -> np.ndarray:
    """tissue_sums of what is `least` or more in `values`, for so many corners (z, y, x), `first` being the first."""
    if math.prod(size) >= 2**30:
        raise InputError(
            f"coordinates.patch_size: a patch must have fewer than 2^30 voxels, got {list(size)}; make it smaller"
        )
    sums = np.zeros([max(0, n) for n in count], np.int32)
    if sums.size:
        _slide(values, np.int32(least), *first, *size, sums)
    return sums


def _pairs(*sequences: Sequence[int]) -> list[tuple[int, ...]]:
    return list(zip(*sequences, strict=True))


@compiled
def _slide(values, least, z0, y0, x0, pz, py, px, sums):
    """Running sums of the scores along z, y and x in one pass, plane by plane; see tissue_sums.

    A plane's columns are the scores of the last pz slices; a row's lines, the columns of its last py rows.
    """
    slices, rows, width = sums.shape[0] + pz - 1, sums.shape[1] + py - 1, sums.shape[2] + px - 1
    tissue = np.empty((2, rows, width), np.uint8)  # of this slice and of the next
    scores = np.zeros((pz, rows, width), np.uint8)  # of the last slices
    columns = np.zeros((rows, width), np.int32)
    lines = np.empty(width, np.int32)
    for z in range(-1, slices):
        this, after = tissue[z % 2], tissue[(z + 1) % 2]
        if z0 + z + 1 < values.shape[0]:
            for y in range(rows):
                row, into = values[z0 + z + 1, y0 + y], after[y]
                for x in range(width):
                    into[x] = row[x0 + x] >= least
        else:
            after[:] = 0
        if z < 0:
            continue

        for y in range(rows):
            here, above, score, column = this[y], after[y], scores[z % pz, y], columns[y]
            for x in range(width):
                made = np.uint8(here[x] + (here[x] | above[x]))
                column[x] += np.int32(made) - np.int32(score[x])
                score[x] = made
        if z < pz - 1:
            continue

        lines[:] = 0
        for y in range(rows):
            column = columns[y]
            if y < py:
                for x in range(width):
                    lines[x] += column[x]
            else:
                left = columns[y - py]
                for x in range(width):
                    lines[x] += column[x] - left[x]
            if y < py - 1:
                continue
            out = sums[z - pz + 1, y - py + 1]
            total = np.int32(0)
            for x in range(px):
                total += lines[x]
            out[0] = total
            ahead = lines[px:]
            for x in range(width - px):
                total += ahead[x] - lines[x]
                out[x + 1] = total


@dataclass(frozen=True)
class Admissible:
    """The corners of one scan that a patch may be cut at.

    `mask` (z, y, x) is over the corners inside the border, the first of them being `first`; `sums`, int32, are the
    tissue_sums of the patch at each, `most` the largest that a patch can have. `counts` says how many of all
    `positions` each rule refused.
    """

    mask: np.ndarray
    sums: np.ndarray
    most: int
    first: Zyx
    counts: dict[str, int]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.mask))

    def corner(self, number: int) -> Zyx:
        """The admissible corner of that number, in the order of the array."""
        return self.corners([number])[0]

    def corners(self, numbers: Iterable[int]) -> list[Zyx]:
        """The admissible corners of those numbers, in the order given."""
        upto = np.cumsum([0, *(np.count_nonzero(plane) for plane in self.mask)])
        found = []
        for number in numbers:
            z = int(np.searchsorted(upto, number, side="right")) - 1
            inside = np.flatnonzero(self.mask[z])[number - upto[z]]
            y, x = divmod(int(inside), self.mask.shape[2])
            found.append((z + self.first[0], y + self.first[1], x + self.first[2]))
        return found

    def share_at(self, corner: Zyx) -> float:
        """Mean tissue score of the patch at a corner inside the border."""
        return int(self.sums[tuple(c - f for c, f in _pairs(corner, self.first))]) / self.most


def admissible(tissue: np.ndarray, size: Zyx, rule: TissueRule) -> Admissible:
    """Which corners the border and the tissue rule leave, in a boolean image (z, y, x) of what is tissue.

    The border is the least distance of the patch from each side of the scan; the mean tissue score must lie in
    [tissue_min, tissue_max], ends included. (The published borders are one voxel wider at the far sides, and four
    along z, for no stated reason.)
    """
    return _admissible(tissue.view(np.uint8), 1, size, rule)


def admissible_in(image: np.ndarray, size: Zyx, rule: TissueRule) -> Admissible:
    """The same in an int16 image (z, y, x) in HU, of which voxels at or over `rule.tissue_hu` are tissue."""
    return _admissible(image, math.ceil(min(max(rule.tissue_hu, -(2**15)), 2**15)), size, rule)


def _admissible(values: np.ndarray, least: int, size: Zyx, rule: TissueRule) -> Admissible:
    first = tuple(rule.border)
    positions = math.prod(max(0, s - p + 1) for s, p in _pairs(values.shape, size))
    count = [max(0, s - p - 2 * b + 1) for s, p, b in _pairs(values.shape, size, first)]
    sums = _sums(values, least, first, count, size)
    most = 2 * math.prod(size)
    # The decisions are on quotients as floats have them, for one sum at a time instead of for each.
    fewest = bisect_left(range(most + 1), rule.tissue_min, key=lambda total: total / most)
    largest = bisect_right(range(most + 1), rule.tissue_max, key=lambda total: total / most) - 1
    enough, mask = sums >= fewest, sums <= largest
    counts = {
        "positions": positions,
        "border": positions - sums.size,
        "tissue_min": sums.size - int(np.count_nonzero(enough)),
        "tissue_max": sums.size - int(np.count_nonzero(mask)),
    }
    mask &= enough
    return Admissible(mask, sums, most, first, counts)


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
    return places.corners(map(int, chosen))
