"""Phantoms as public data sets lay out their files: one module for each data set.

Each module has `stem` (the path of a patient's scan in the cohort, without ending, which is known before the scan is
made), `write` (the scan's files; returns its lines of the cohort's tables) and `finish` (the tables). All bytes follow
from the arguments: no time, no host and no library's version gets into a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.params import SPLITS, PhantomRecipe


@dataclass(frozen=True)
class Place:
    """Where one patient belongs: its number in the cohort and its number within its split."""

    number: int
    split: str
    turn: int


def places(recipe: PhantomRecipe) -> list[Place]:
    """Every patient of a cohort: training, then validation, then test."""
    pairs = [(split, turn) for split in SPLITS for turn in range(getattr(recipe, split))]
    return [Place(number, split, turn) for number, (split, turn) in enumerate(pairs)]


def draw_uid(rng: np.random.Generator) -> str:
    """A DICOM UID of the kind that needs no registration: 2.25 and a random 128-bit number."""
    low, high = (int(v) for v in rng.integers(0, 2**64, 2, dtype=np.uint64))
    number = (high << 64 | low) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62  # version 4 of RFC 4122
    return f"2.25.{number}"
