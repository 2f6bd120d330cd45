"""A picture of what a cache of patches holds: a row for each pattern, and its crops from the nearest on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sg.errors import InputError
from sg.patches import PatchCache
from sg.report.pictures import axial
from sg.report.tables import evenly, text
from sg.sheets import WINDOW, Cell, Row, draw

PATTERNS = 200  # rows of one picture: more would be taller than viewers show
CROPS = 40


def show(cache: PatchCache, patterns: int, crops: int, path: Path) -> str:
    """Draw a cache as a PNG and say what is on it.

    A row shows the middle axial slices of the unjittered training crops of one pattern, at evenly spaced places from the
    reference to the farthest neighbour; the first `patterns` patterns in number. A cache of random sub-volumes has a row
    for a scan instead. Voxels are drawn square in the patch's plane, because a cache does not say their size.
    InputError for a cache without such patches, or one that is damaged.
    """
    if not (1 <= patterns <= PATTERNS and 1 <= crops <= CROPS):
        raise InputError(
            f"a picture can have 1 to {PATTERNS} rows and 1 to {CROPS} crops in each, got {patterns} and {crops}"
        )
    groups = list(_groups(cache.rows, cache.patterns))
    if not groups:
        raise InputError(f"{cache.path}: there must be unjittered patches of training patients, got none")
    rows = [
        _row(cache, title, words, indices[evenly(len(indices), crops)])
        for title, words, indices in groups[:patterns]
    ]
    what = "pattern" if cache.patterns else "scan"
    which = f"the first {len(rows)} of {len(groups)}" if len(rows) < len(groups) else f"all {len(groups)}"
    note = (
        f"{which} {what}s. Middle axial slices of patches of {' × '.join(map(str, cache.patch_size))} voxels (z × y × x), "
        f"fixed crops in training patients. {WINDOW}."
    )
    draw(rows, note[0].upper() + note[1:], path)
    return f"{which} {what}s, {sum(len(row.cells) for row in rows)} of {len(cache)} patches"


def _groups(rows: np.ndarray, patterns: int) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Title, further words and cache rows of each pattern, or of each scan where there are no patterns."""
    fixed = np.flatnonzero((rows["resolution"] == 0) & (rows["split"] == b"train"))
    names = rows["pattern" if patterns else "scan"][fixed]
    for name in np.unique(names):
        mine = fixed[names == name]
        # Rank -1 is an unknown one: then the order of the cache
        mine = mine[np.argsort(rows["rank"][mine], kind="stable")]
        first = text(rows["patient"][mine[0]])
        count = f"{len(mine)} patches"
        if patterns:
            yield f"Pattern {name}", [first, count], mine
        else:
            yield text(name) or "unknown scan", [first, count], mine


def _row(cache: PatchCache, title: str, words: list[str], indices: np.ndarray) -> Row:
    cells = []
    for index, patch in zip(indices, cache.read(indices), strict=True):
        row = cache.rows[index]
        # Of random sub-volumes all in a row are of one scan, which stands on its left
        name = text(row["patient"]) if cache.patterns else ""
        cells.append(Cell(axial(patch), (1, 1), _standing(row, cache.patterns), name, row["rank"] == 0))
    return Row(title, words, cells)


def _standing(row: np.ndarray, patterns: int) -> str:
    """What a crop is: the reference, a neighbour, or where it was cut."""
    if not patterns:
        return "z, y, x " + ", ".join(map(str, row["corner"].tolist()))
    if row["rank"] < 0:
        return "of unknown rank"
    return "reference" if row["rank"] == 0 else f"no. {row['rank']}"
