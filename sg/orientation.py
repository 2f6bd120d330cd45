"""Turning a stored array onto the axes of the patient: which stored axis runs along which of LPS, and which way.

Nothing is interpolated: axes are only permuted and reversed, to the nearest of LPS.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sg.formats.headers import Geometry


@dataclass(frozen=True)
class Turn:
    """How stored axes run along LPS; all parts are in the order x (left), y (posterior), z (superior)."""

    axes: tuple[int, int, int]  # the stored axis (0: x, 1: y, 2: z) that is nearest
    reversed: tuple[bool, bool, bool]  # whether that axis runs the other way


def turn_of(geometry: Geometry) -> Turn:
    """The turn that brings a scan nearest to the axes of LPS; its axes may be oblique or sheared."""
    direction = np.array(geometry.direction, float).reshape(3, 3)
    axes = max(itertools.permutations(range(3)), key=lambda axes: sum(abs(direction[range(3), axes])))
    return Turn(axes, tuple(bool(component < 0) for component in direction[range(3), axes]))


def turned(array: np.ndarray, turn: Turn) -> np.ndarray:
    """A view of a stored array (z, y, x) with its axes permuted and reversed."""
    order = tuple(2 - axis for axis in reversed(turn.axes))
    return array.transpose(order)[
        tuple(slice(None, None, -1 if flip else None) for flip in reversed(turn.reversed))
    ]
