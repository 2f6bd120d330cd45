"""The patients of the cohort that are most like any one scan, as a table and as a picture: `sg neighbors`.

Distance is that of the stage `neighbors`, Euclidean between embeddings; a patient counts by its nearest scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import paths
from sg.cohorts.records import ScanRow
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.neighbors import Embeddings
from sg.placing import SAME, Placed
from sg.report.pictures import axial, coronal
from sg.report.tables import text
from sg.report.thumbnails import Thumbnails
from sg.sheets import WINDOW, Cell, Row, draw

COLUMNS = 30  # neighbours in one picture


@dataclass(frozen=True)
class Neighbour:
    """A patient of the cohort by its scan that is nearest."""

    rank: int  # from 1
    patient: str
    scan: str
    split: str
    distance: float


def in_cohort(scan: str, rows: Sequence[ScanRow]) -> ScanRow | None:
    """The cohort's row of this very scan, whatever it serves; None if the cohort has not got it."""
    return next((row for row in rows if row.scan == scan), None)


def check_request(k: int, drawn: bool) -> None:
    """InputError if `k` neighbours cannot be listed or, where they are to be, drawn. A command asks this first."""
    if k < 1:
        raise InputError(f"--k: there must be at least 1 neighbour, got {k}")
    if drawn and k > COLUMNS:
        raise InputError(f"--picture: can show at most {COLUMNS} neighbours, got --k {k}; give a smaller one")


def nearest(
    query: Placed, own: ScanRow | None, embeddings: Embeddings, k: int, every: bool
) -> list[Neighbour]:
    """The `k` nearest patients, or as many as there are; ties by scan id.

    Searched are the patients that may be neighbours (the training patients of pre-training); with `every` all that are
    embedded, which is for looking only. A scan of the cohort is no neighbour of itself, nor is any other of its patient;
    `own` is its row there.
    InputError if nobody is left to be searched.
    """
    pool = np.full(len(embeddings.scan), True) if every else embeddings.neighbours.copy()
    if own is not None:
        pool &= embeddings.patient != own.patient.encode()
    rows = np.flatnonzero(pool)
    if not len(rows):
        raise InputError(
            f"{paths.EMBEDDINGS}: there is no other patient to compare with; add scans to the study"
        )
    difference = embeddings.vectors[rows].astype(np.float64) - query.vector
    distance = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    # The rows are sorted by scan id, which a stable sort keeps among equals
    order = np.argsort(distance, kind="stable")
    _, first = np.unique(embeddings.patient[rows[order]], return_index=True)
    chosen = order[np.sort(first)][:k]
    return [
        Neighbour(
            rank,
            text(embeddings.patient[rows[place]]),
            text(embeddings.scan[rows[place]]),
            text(embeddings.split[rows[place]]),
            float(distance[place]),
        )
        for rank, place in enumerate(chosen, 1)
    ]


def lines(
    query: Placed, own: ScanRow | None, found: Sequence[Neighbour], embeddings: Embeddings, every: bool
) -> Iterator[str]:
    """What to tell a person: what was searched, whether the cohort has the scan itself, and a line for each neighbour."""
    pool = embeddings.patient if every else embeddings.patient[embeddings.neighbours]
    who = "all embedded patients, of any split" if every else "those that may be neighbours (split train)"
    yield f"{shown(query.found.path)}: compared with {who}: {len(np.unique(pool))} patients"
    if own is not None:
        yield (
            f"this scan is in the cohort: scan {own.scan} of patient {shown(own.patient)} ({own.split}, for "
            f"{', '.join(own.use) or 'nothing'}); the patient is left out of the list"
        )
    for one in found:
        if own is None and one.distance <= SAME * float(np.linalg.norm(query.vector)):
            yield (
                f"patient {shown(one.patient)} may be the one of this scan: at a distance of {one.distance:.3g} from scan "
                f"{one.scan} it may be the same scan in another file"
            )
    heads = ("rank", "distance", "split", "scan", "patient")
    rows = [(str(one.rank), f"{one.distance:.6g}", one.split, one.scan, shown(one.patient)) for one in found]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def picture(query: Placed, found: Sequence[Neighbour], thumbnails: Thumbnails, path: Path) -> None:
    """Draw the scan and its neighbours beside each other, as PNG: middle coronal and axial slices of their thumbnails.

    All in the proportions of the body and on one scale. InputError where a thumbnail is missing or damaged.
    """
    image = query.thumbnail.image
    voxel = tuple(extent / side for extent, side in zip(query.thumbnail.extent_mm, image.shape, strict=True))
    shows = [("this scan", query.found.patient, image, voxel)]
    for one in found:
        shows.append((f"no. {one.rank}: {one.distance:.4g}", one.patient, *thumbnails.volume(one.scan)))
    rows = [
        Row(
            title,
            ["middle slice"],
            [
                Cell(cut(volume), (mm[vertical], mm[2]), words, patient, marked=index == 0)
                for index, (words, patient, volume, mm) in enumerate(shows)
            ],
        )
        for title, cut, vertical in (("Coronal", coronal, 0), ("Axial", axial, 1))
    ]
    note = (
        f"The scan and the patients nearest to it in the embedding, with their distances. Thumbnails, in the proportions "
        f"of the body, on one scale; the patient's left is on the right. {WINDOW}."
    )
    draw(rows, note, path)
