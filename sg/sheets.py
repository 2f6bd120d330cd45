"""A sheet of CT slices as one PNG: rows of pictures with words under each, in the manner of the report's galleries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sg.cohorts.walking import shown
from sg.report.pictures import WINDOW_HU, gray

PAPER, INK, SOFT, ACCENT = "#fdfdfb", "#1c2321", "#5b6663", "#0f6b64"  # of the report's page, in the light
DPI = 130
CELL = 1.15  # inches that the widest picture takes; all of a sheet have one scale
GAP = 0.12
WORDS = 0.36  # below a picture, two lines
LABEL = 1.5  # left of a row
LETTERS = 19  # of a name that fit below a picture, in the small font
LABEL_LETTERS = 19  # the same on the left of a row
NOTE_LETTERS = 15  # of the note that fit in an inch
LINE = 0.15
WINDOW = f"Window {WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Cell:
    """One picture."""

    hu: np.ndarray  # (row, column)
    pixel: tuple[float, float]  # height and width, in a unit that is the same on the whole sheet
    title: str
    name: str
    marked: bool = False  # drawn in a frame, with a bold title


@dataclass(frozen=True)
class Row:
    """A row of pictures and what stands on its left: a bold line, and lines below it."""

    title: str
    words: Sequence[str]
    cells: Sequence[Cell]


def draw(rows: Sequence[Row], note: str, path: Path) -> None:
    """Draw the rows one below the other, and the note at the foot, as a PNG. Equal rows, equal pixels.

    Characters that the font lacks are drawn as boxes.
    """
    extents = [
        (cell.hu.shape[0] * cell.pixel[0], cell.hu.shape[1] * cell.pixel[1])
        for row in rows
        for cell in row.cells
    ]
    scale = CELL / max(max(extent) for extent in extents)
    cell_width = scale * max(width for _, width in extents)
    heights = [max(scale * cell.hu.shape[0] * cell.pixel[0] for cell in row.cells) for row in rows]
    columns = max(len(row.cells) for row in rows)
    width = LABEL + columns * (max(cell_width, CELL) + GAP) + GAP
    notes = wrap(note, int(NOTE_LETTERS * (width - 2 * GAP)))
    height = GAP + sum(heights) + len(rows) * (WORDS + GAP) + LINE * len(notes) + GAP
    # Nothing of the user's settings; a name may hold a dollar sign and is no formula
    style = {"font.family": ["DejaVu Sans"], "text.parse_math": False}
    with rc_context(style), catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box, which says so too
        figure = Figure((width, height), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(figure)
        top = height - GAP
        for row, tall in zip(rows, heights, strict=True):
            _label(figure, row, GAP, top)
            for column, cell in enumerate(row.cells):
                left = LABEL + column * (max(cell_width, CELL) + GAP)
                _picture(figure, cell, left, top, scale)
                _words(figure, cell, left, top - tall)
            top -= tall + WORDS + GAP
        for number, line in enumerate(notes):
            _text(figure, GAP, top - LINE * number, line, SOFT, 7)
        figure.savefig(path, format="png", metadata={"Software": None})


def _label(figure: Figure, row: Row, left: float, top: float) -> None:
    _text(figure, left, top - 0.02, shown(row.title), INK, 8.5, weight="bold")
    for number, line in enumerate(row.words, 1):
        _text(figure, left, top - 0.02 - LINE * number, short(line, LABEL_LETTERS), SOFT, 7)


def _picture(figure: Figure, cell: Cell, left: float, top: float, scale: float) -> None:
    width, height = figure.get_size_inches()
    tall, wide = (scale * side * size for side, size in zip(cell.hu.shape, cell.pixel, strict=True))
    axes = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
    # As colours, because a map of grays is off by one here and there
    axes.imshow(np.repeat(gray(cell.hu)[..., None], 3, axis=2), aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=cell.marked, color=ACCENT, linewidth=2)


def _words(figure: Figure, cell: Cell, left: float, bottom: float) -> None:
    weight = "bold" if cell.marked else "normal"
    _text(figure, left, bottom - 0.04, short(cell.title, LETTERS), INK, 7.5, weight=weight)
    _text(figure, left, bottom - 0.19, short(cell.name, LETTERS), SOFT, 6.5)


def _text(
    figure: Figure, left: float, top: float, text: str, colour: str, points: float, weight: str = "normal"
) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, top / height, text, color=colour, fontsize=points, va="top", weight=weight)


def short(text: str, most: int) -> str:
    """The text with what cannot be shown written out, its middle left out where it is longer than `most`."""
    text = shown(text)
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"
