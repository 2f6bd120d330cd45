"""Local shuffling: the voxels of many small windows change places, each within its window.

Every window is read from the patch as it was and written to the copy, as published: where windows overlap, the
later one is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg import params
from sg.compiled import compiled


@dataclass(frozen=True)
class Windows:
    """How many windows, and the seed of their places, sizes and permutations."""

    count: int
    seed: int


def draw(rng: np.random.Generator, effect: params.Shuffle) -> Windows:
    """The windows of one patch."""
    return Windows(effect.windows, int(rng.integers(2**63)))


def shuffle(patch: np.ndarray, drawn: Windows) -> np.ndarray:
    """The patch (z, y, x) with its windows shuffled, a copy."""
    rng = np.random.Generator(np.random.PCG64(drawn.seed))
    starts, sides = _place(rng, drawn.count, patch.shape)
    words = rng.integers(2**32, size=int(sides.prod(axis=1).sum()), dtype=np.uint32)
    out = np.array(patch, order="C")
    _permute(np.ascontiguousarray(patch), starts, sides, words, out)
    return out


def places(drawn: Windows, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First voxels and sides of the windows in a patch of that shape, int64 (count, 3), in the order of writing."""
    return _place(np.random.Generator(np.random.PCG64(drawn.seed)), drawn.count, shape)


def _place(
    rng: np.random.Generator, count: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Sides uniform in 1..a tenth of the patch's (at least 1), then starts uniform among those that fit."""
    dimension = np.array(shape)
    sides = 1 + (rng.random((count, 3)) * np.maximum(dimension // 10, 1)).astype(np.int64)
    starts = (rng.random((count, 3)) * (dimension - sides + 1)).astype(np.int64)
    return starts, sides


@compiled
def _permute(patch, starts, sides, words, out):
    """Fisher and Yates' shuffle of each window while it is copied; words are its uniform 32-bit numbers.

    Scaling a word to a range of at most some hundred voxels is uneven by less than 1e-7.
    """
    most = 0
    for window in range(len(sides)):
        most = max(most, sides[window, 0] * sides[window, 1] * sides[window, 2])
    voxels = np.empty(most, patch.dtype)
    used = 0
    for window in range(len(starts)):
        z0, y0, x0 = starts[window]
        nz, ny, nx = sides[window]
        count = 0
        for z in range(z0, z0 + nz):
            for y in range(y0, y0 + ny):
                for x in range(x0, x0 + nx):
                    other = (np.uint64(words[used]) * np.uint64(count + 1)) >> np.uint64(32)
                    voxels[count] = voxels[other]
                    voxels[other] = patch[z, y, x]
                    count += 1
                    used += 1
        count = 0
        for z in range(z0, z0 + nz):
            for y in range(y0, y0 + ny):
                for x in range(x0, x0 + nx):
                    out[z, y, x] = voxels[count]
                    count += 1
