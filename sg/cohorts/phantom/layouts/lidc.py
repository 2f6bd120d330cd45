"""LIDC-IDRI: LIDC-IDRI/<patient>/<study>/<series>/1-001.dcm and so on, and the radiologists' XML beside them.

An outline in the XML is the chain of pixels just outside the nodule; its own pixels are not part of it (Armato et al.,
Med Phys 2011;38:915, and the schema's notes). Each of the four readers worked at another site, and sites wrote the same
things differently: names of nodules, digits of positions, order of slices, indentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.contours import outer_borders
from sg.cohorts.phantom.layouts import Place, draw_uid
from sg.cohorts.phantom.layouts.dicom import Names, Slice, write_series
from sg.cohorts.phantom.readers import RATINGS, Outlined, Reading, read
from sg.cohorts.phantom.rendering import Scan

COLLECTION = "LIDC-IDRI"


@dataclass(frozen=True)
class _Site:
    """How one site's workstation writes.

    Names take a number, from `first` on, or from any where that is None. `padded` positions have six decimals and a
    blank; `upward` outlines go from the feet to the head.
    """

    nodule: str
    other: str
    first: int | None
    padded: bool
    upward: bool
    indent: str


SITES = (
    _Site("Nodule {:03d}", "_Non-nodule {:03d}", 1, True, True, "  "),
    _Site("IL057_{}", "IL057_{}", None, False, False, "  "),
    _Site("MI014_{}", "MI014_{}", None, False, False, ""),
    _Site("{}", "{}", 0, False, False, "\t"),
)


def stem(place: Place, draw: Draw) -> str:
    """The folder of a scan's series, relative to the cohort."""
    rng = draw("series")
    study, series = draw_uid(rng), draw_uid(rng)
    return f"{COLLECTION}/{COLLECTION}-{place.number + 1:04d}/{study}/{series}"


def write(folder: Path, name: str, scan: Scan, draw: Draw) -> None:
    """The DICOM series, and <number>.xml beside it."""
    patient, study, series = name.split("/")[1:]
    here = folder / name
    here.mkdir(parents=True)
    names = Names(patient, study, series)
    slices = write_series(here, scan, names, COLLECTION, draw("dicom"))
    text = message(read(scan, draw), slices, names, draw("message"))
    (here / f"{int(patient.rsplit('-', 1)[1])}.xml").write_text(text, encoding="utf-8")


def finish(folder: Path, written: Sequence[tuple[str, None]]) -> None:
    """The data set has no tables of its own."""


def message(
    readings: Sequence[Reading], slices: Sequence[Slice], names: Names, rng: np.random.Generator
) -> str:
    """The XML of a scan's readings; `slices` in the order of the stored array."""
    head = f"""<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage uid="{draw_uid(rng)}" xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.nih.gov  http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd">
<ResponseHeader>
<Version>1.8.1</Version>
<MessageId>{rng.integers(-(2**31), 2**31)}</MessageId>
<DateRequest>2000-01-01</DateRequest>
<TimeRequest>00:00:00</TimeRequest>
<RequestingSite>removed</RequestingSite>
<ServicingSite>removed</ServicingSite>
<TaskDescription>Second unblinded read</TaskDescription>
<CtImageFile>removed</CtImageFile>
<SeriesInstanceUid>{names.series}</SeriesInstanceUid>
<DateService>2000-01-01</DateService>
<TimeService>00:00:00</TimeService>
<ResponseDescription>1 - Reading complete</ResponseDescription>
<StudyInstanceUID>{names.study}</StudyInstanceUID></ResponseHeader>
"""
    lines: list[str] = []
    for reading, site in zip(readings, SITES, strict=True):
        any_number = int(rng.integers(1, 200000))
        session = _Session(site, slices, any_number if site.first is None else site.first)
        lines += session.lines(reading, int(rng.integers(-(2**31), 2**31)))
    return head + "".join(f"{line}\n" for line in lines) + "</LidcReadMessage>\n"


class _Session:
    """One reader's part of the message, in the manner of a site."""

    def __init__(self, site: _Site, slices: Sequence[Slice], first: int) -> None:
        self._site, self._slices = site, slices
        self._numbers = {site.nodule: first, site.other: first}  # one row of numbers if they are named alike

    def lines(self, reading: Reading, reader: int) -> Iterator[str]:
        yield "<readingSession>"
        body = [("annotationVersion", "3.12"), ("servicingRadiologistID", reader)]
        body += [("unblindedReadNodule", self._outlined(nodule)) for nodule in reading.nodules]
        body += [("unblindedReadNodule", self._small(voxel)) for voxel in reading.small]
        body += [("nonNodule", self._other(voxel)) for voxel in reading.others]
        for name, content in body:
            yield from self._element(name, content, 1)
        yield "</readingSession>"

    def _element(self, name: str, content: object, depth: int) -> Iterator[str]:
        """An element whose content is a text or a list of (name, content)."""
        indent = self._site.indent * depth
        if isinstance(content, list):
            yield f"{indent}<{name}>"
            for child, inner in content:
                yield from self._element(child, inner, depth + 1)
            yield f"{indent}</{name}>"
        else:
            yield f"{indent}<{name}>{content}</{name}>"

    def _outlined(self, nodule: Outlined) -> list:
        ratings = list(zip(RATINGS, nodule.ratings, strict=True))
        rois = []
        z, y, x = nodule.first
        for k, plane in enumerate(nodule.mask):
            for border in outer_borders(plane):
                points = [("edgeMap", [("xCoord", u + x), ("yCoord", v + y)]) for u, v in border.tolist()]
                rois.append((float(self._slices[z + k].z), self._roi(z + k, points)))
        rois.sort(key=lambda roi: roi[0], reverse=not self._site.upward)
        return [
            ("noduleID", self._next(self._site.nodule)),
            ("characteristics", ratings),
            *(("roi", roi) for _, roi in rois),
        ]

    def _small(self, voxel: tuple[int, int, int]) -> list:
        k, y, x = voxel
        point = [("edgeMap", [("xCoord", x), ("yCoord", y)])]
        return [("noduleID", self._next(self._site.nodule)), ("roi", self._roi(k, point))]

    def _roi(self, k: int, points: list) -> list:
        return [*self._where(k), ("inclusion", "TRUE"), *points]

    def _other(self, voxel: tuple[int, int, int]) -> list:
        k, y, x = voxel
        name = self._next(self._site.other)
        return [("nonNoduleID", name), *self._where(k), ("locus", [("xCoord", x), ("yCoord", y)])]

    def _where(self, k: int) -> list:
        z = self._slices[k].z
        # The same number in every manner of writing it.
        text = f"{z} " if self._site.padded else str(float(z))
        return [("imageZposition", text), ("imageSOP_UID", self._slices[k].uid)]

    def _next(self, name: str) -> str:
        self._numbers[name] += 1
        return name.format(self._numbers[name] - 1)
