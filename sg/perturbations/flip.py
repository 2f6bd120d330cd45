"""Flips along axes drawn afresh, of the patch and of its target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg import params


@dataclass(frozen=True)
class Flips:
    """Axes (0 is z) to flip, one after the other; an axis that comes twice is back where it was."""

    axes: tuple[int, ...]


def draw(rng: np.random.Generator, effect: params.Flip) -> Flips:
    """One flip, and further ones as long as `again` allows, at most `most`."""
    axes = [int(rng.integers(3))]
    while len(axes) < effect.most and rng.random() < effect.again:
        axes.append(int(rng.integers(3)))
    return Flips(tuple(axes))


def flip(patch: np.ndarray, drawn: Flips) -> np.ndarray:
    """The flipped patch (z, y, x), contiguous; the patch itself where the flips cancel each other."""
    for axis in drawn.axes:
        patch = np.flip(patch, axis)
    return np.ascontiguousarray(patch)
