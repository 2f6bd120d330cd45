"""Perturbations of a patch, which the restoration task undoes: draws and effects apart.

`draw` makes every random choice and returns frozen records of plain numbers; `apply` has no chance in it, so the
same records perturb the same patch alike, whenever and wherever. A field of noise or a permutation is not kept in
a record but the seed that it follows from: one record is some numbers long, not half a megabyte.

A recipe is a list of steps: a step happens with probability `p` and then applies one effect of its list, chosen
by weight. Semantic Genesis warps always and then does one of four effects; Models Genesis goes through flips,
shuffling, intensity and painting, each with its probability. What they published is for patches of 64 x 64 x 32;
sizes here go with the patch. Source: Zhou et al., "Models Genesis", 2021; Haghighi et al., "Learning
Semantics-enriched Representation via Self-discovery, Self-classification, and Self-restoration", 2020, and what
their public code does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg import params
from sg.errors import InputError
from sg.perturbations import elastic, flip, intensity, painting, shuffling

# Of smaller patches the published boxes (a third of a side, three voxels off the edges) do not fit any more.
SIDE_MIN = 8

Drawn = elastic.Warp | flip.Flips | shuffling.Windows | intensity.Curve | painting.Painted | painting.Kept
Shape = tuple[int, int, int]


def check_shape(shape: Sequence[int]) -> None:
    """InputError unless patches of that shape (z, y, x) are large enough to be perturbed."""
    if len(shape) != 3 or min(shape) < SIDE_MIN:
        raise InputError(
            f"perturbations: a patch must have three sides of at least {SIDE_MIN} voxels, got {tuple(shape)}; "
            "make coordinates.patch_size larger, or leave the recipe's perturbations empty"
        )


def draw(rng: np.random.Generator, steps: Sequence[params.Step], shape: Shape) -> tuple[Drawn, ...]:
    """All the chance of perturbing one patch of that shape (z, y, x): the effects to apply, in order.

    Equal generators, steps and shapes give equal records. InputError for a side under 8 voxels; an empty list of
    steps suits every shape and draws nothing.
    """
    if steps:
        check_shape(shape)
    drawn = []
    for step in steps:
        if rng.random() < step.p:
            drawn.append(_draw_effect(rng, _choose(rng, step.one_of), shape))
    return tuple(drawn)


def apply(patch: np.ndarray, drawn: Sequence[Drawn]) -> tuple[np.ndarray, np.ndarray]:
    """Perturbed patch and restoration target, float32 (z, y, x), of a patch in [0, 1]; both stay in [0, 1].

    The target is the patch as it was, so that the warp has to be undone as well, except that a flip turns both:
    nothing in a patch says that it was flipped. The patch itself is never written to, but may be what is returned.
    """
    perturbed = target = patch
    for effect in drawn:
        match effect:
            case elastic.Warp():
                perturbed = elastic.warp(perturbed, effect)
            case flip.Flips():
                perturbed, target = flip.flip(perturbed, effect), flip.flip(target, effect)
            case shuffling.Windows():
                perturbed = shuffling.shuffle(perturbed, effect)
            case intensity.Curve():
                perturbed = intensity.remap(perturbed, effect)
            case painting.Painted():
                perturbed = painting.paint_in(perturbed, effect)
            case painting.Kept():
                perturbed = painting.paint_out(perturbed, effect)
    return perturbed, target


def _choose(rng: np.random.Generator, effects: Sequence[params.AnyEffect]) -> params.AnyEffect:
    """One of the effects, by weight."""
    edges = np.cumsum([effect.weight for effect in effects])
    return effects[int(np.searchsorted(edges[:-1], rng.random() * edges[-1], side="right"))]


def _draw_effect(rng: np.random.Generator, effect: params.AnyEffect, shape: Shape) -> Drawn:
    match effect:
        case params.Elastic():
            return elastic.draw(rng, effect, shape)
        case params.Flip():
            return flip.draw(rng, effect)
        case params.Shuffle():
            return shuffling.draw(rng, effect)
        case params.Intensity():
            return intensity.draw(rng, effect)
        case params.Inpaint():
            return painting.draw_painted(rng, effect, shape)
        case params.Outpaint():
            return painting.draw_kept(rng, effect, shape)
