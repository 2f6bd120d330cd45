"""What files and folders hold, said without a pipeline: every scan, its geometry, and whether it can be used and why.

Scans are found as the layout `folder` finds them and read as the stage `cohort` reads them, in processes of their own,
so that what is called usable here is usable there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from sg import console
from sg.cohorts import series
from sg.cohorts.folder import KNOWN, KNOWN_NAMES, survey
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.formats.dicom import looks_like_dicom
from sg.formats.files import check_file, unreadable
from sg.formats.headers import by
from sg.isolated import bound_memory, each, memory_for
from sg.params import Limits
from sg.scans import (
    READ,
    Geometry,
    Place,
    Refusal,
    examine,
    files_of,
    format_of,
    read_header,
    stem_of,
    suffix_of,
)
from sg.stage import PARAMS, load

if TYPE_CHECKING:
    from rich.text import Text

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "folder.yaml"
SECONDS = 1800.0  # that reading one scan may take, from a slow share
BATCH_SECONDS = 300.0
BATCH = 16
BATCHES_EACH = 4  # at least so many for each worker, so that they end at about the same time
SMALL_BYTES = 2**25

# What is decided by sizes alone; the voxels may be fine, and their range is said all the same
BY_SIZE = ("spacing", "too-small")
ANGLE_SHOWN = 0.1  # degrees; less is rounding
PATIENT_CELLS = 16
PATH_CELLS = 30  # a column of paths that is narrower is hard to read


@dataclass(frozen=True)
class Inspected:
    """A scan, or a file that is none. None stands for what could not be learned."""

    path: Path  # as given, or below a folder that was given; of a DICOM series the folder of its files
    files: int
    format: str | None  # NIfTI, MetaImage, NRRD, DICOM
    patient: str | None
    series: str | None  # SeriesInstanceUID
    refusal: Refusal | None
    geometry: Geometry | None = None
    modality: str | None = None
    low_hu: float | None = None
    high_hu: float | None = None
    bytes: int | None = None  # that the voxels take, decoded

    def as_dict(self) -> dict[str, Any]:
        """The object that `sg scan --json` writes; its help explains the keys."""
        grid = self.geometry
        return {
            "path": _valid(str(self.path)),
            "files": self.files,
            "format": self.format,
            "usable": self.refusal is None,
            "rule": self.refusal and self.refusal.rule,
            "reason": self.refusal and _valid(self.refusal.reason),
            "modality": self.modality,
            "patient": self.patient and _valid(self.patient),
            "series": self.series,
            "size": grid and list(grid.size),
            "spacing_mm": grid and list(grid.spacing_mm),
            "origin_mm": grid and list(grid.origin_mm),
            "direction": grid and list(grid.direction),
            "orientation": grid and grid.orientation,
            "oblique_degrees": grid and round(oblique_degrees(grid), 3),
            "tilt_degrees": grid and round(tilt_degrees(grid), 3),
            "low_hu": self.low_hu,
            "high_hu": self.high_hu,
            "bytes": self.bytes,
        }


@dataclass
class Inspection:
    """All that was found; the scans are sorted by path."""

    scans: list[Inspected] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)  # what kind of file that holds no scan -> how many
    warnings: list[str] = field(default_factory=list)

    @property
    def refused(self) -> list[Inspected]:
        """The scans, and the files that are none, that cannot be used."""
        return [scan for scan in self.scans if scan.refusal is not None]

    @property
    def summary(self) -> str:
        """How many are usable, refused by which rule, and ignored."""
        refused = Counter(scan.refusal.rule for scan in self.refused)
        return (
            f"{len(self.scans) - len(self.refused)} usable, {len(self.refused)} refused{_counts(refused)}, "
            f"{self.ignored.total()} other files ignored{_counts(self.ignored)}"
        )


@dataclass(frozen=True)
class Found:
    """A scan to be read."""

    path: Path  # as Inspected has it
    place: Place  # below root
    root: Path
    patient: str
    series: str | None


@dataclass(frozen=True)
class _Looked:
    """What reading a scan told."""

    files: int
    geometry: Geometry
    modality: str
    bytes: int
    refusal: Refusal | None
    low_hu: float | None
    high_hu: float | None


def inspect(paths: Sequence[Path], limits: Limits, workers: int) -> Inspection:
    """Find and read every scan in the files and folders given, each once, however many of them name it.

    InputError for a path where there is nothing.
    """
    found, inspection = find(paths, workers)
    answers = console.track(_answers(found, limits, workers), "reading scans", len(found), "scans")
    inspection.scans += [_inspected(item, answer) for item, answer in answers]
    inspection.scans.sort(key=lambda scan: (str(scan.path), scan.series or ""))
    return inspection


def find(paths: Sequence[Path], workers: int) -> tuple[list[Found], Inspection]:
    """The scans in the files and folders given, each once and not read yet; and what is refused or ignored already.

    InputError for a path where there is nothing.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise InputError(f"{shown(path)}: there is no such file or folder; correct the path")
    inspection = Inspection()
    return _find(list(dict.fromkeys(paths)), workers, inspection), inspection


def limits_of(file: Path | None) -> tuple[Limits, Path]:
    """The limits that a scan must satisfy, and the file that they are from: this one, or what there is.

    That is params.yaml of the working directory, or configs/folder.yaml of the checkout that this is installed from.
    InputError if there is neither, or problems in it.
    """
    source = file or next((path for path in (PARAMS, CONFIG) if path.is_file()), None)
    if source is None or not source.is_file():
        missing = f"{shown(source)}: there is no such file" if source else f"there is no {PARAMS} here"
        raise InputError(
            f"{missing}; name a complete configuration, such as configs/folder.yaml, with --params"
        )
    try:
        return load(source).cohort.limits, source
    except InputError as error:
        raise InputError(f"{error}\nAnother configuration can be named with --params") from None


def oblique_degrees(geometry: Geometry) -> float:
    """The largest angle between an axis of the voxels and the axis of the patient that is nearest to it."""
    axes = np.abs(np.reshape(geometry.direction, (3, 3)))
    along = axes.max(axis=0)
    across = np.sqrt(((axes**2).sum(axis=0) - along**2).clip(0))
    return float(np.degrees(np.arctan2(across, along)).max())


def tilt_degrees(geometry: Geometry) -> float:
    """How far the axes of the voxels are from right angles, as with a tilted gantry."""
    axes = np.reshape(geometry.direction, (3, 3))
    return float(np.degrees(np.arcsin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max()))))


# ------------------------------------------------------------------------------------------ finding


def _find(paths: Sequence[Path], workers: int, inspection: Inspection) -> list[Found]:
    """The scans that the files are and the folders hold; what is none goes into the inspection."""
    folders: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            folders.setdefault(path.resolve(), path)
    found = []
    for real, folder in folders.items():
        if not any(other in folders for other in real.parents):
            found += _in_folder(folder, workers, inspection)
    refused = {_real(scan.path) for scan in inspection.scans}
    files = [path for path in paths if not path.is_dir() and _real(path) not in refused]
    found += _in_files(files, len(paths) == 1, workers, inspection)
    return found if len(paths) == 1 else _each_once(found)


def _in_folder(folder: Path, workers: int, inspection: Inspection) -> list[Found]:
    listing = survey(folder, Path(), workers)
    for refused in listing.refused:
        _refuse(inspection, folder / refused.path, Refusal(refused.rule, refused.reason))
    inspection.ignored += listing.ignored
    inspection.warnings += listing.warnings
    found = []
    for entry in listing.entries:
        place = tuple(folder / file for file in entry.files) or folder / entry.path
        found.append(Found(folder / entry.path, place, folder, entry.patient, entry.series))
    return found


def _in_files(paths: Sequence[Path], alone: bool, workers: int, inspection: Inspection) -> list[Found]:
    """The scans that single files are: DICOM files put together to series, data files to their headers.

    What is known to hold no scan is ignored among others, as in a folder; alone it is answered.
    """
    found: list[Found] = []
    data: set[Path] = set()
    others: list[Path] = []
    for path in paths:
        if shown(path.name) != path.name:
            reason = (
                "The file's name is not valid UTF-8, or holds characters that cannot be shown; rename it."
            )
            _refuse(inspection, path, Refusal("name", reason))
        elif not suffix_of(path):
            others.append(path)
        else:
            found.append(Found(path, path, path.parent, stem_of(path), None))
            try:
                data.update(map(_real, files_of(path, path.parent)[1:]))
            except Refusal:
                continue  # it is refused when it is read, with this reason
    dicom: list[Path] = []
    for path in others:
        kind = path.suffix.lower()
        if _real(path) in data:
            continue
        if not alone and (kind in KNOWN or path.name.lower() in KNOWN_NAMES):
            inspection.ignored[kind.removeprefix(".") or path.name.lower()] += 1
            continue
        try:
            _check_dicom(path)
            dicom.append(path)
        except Refusal as refusal:
            _refuse(inspection, path, refusal)
    return found + _in_series(dicom, alone, workers, inspection)


def _check_dicom(path: Path) -> None:
    """Refuse a file that cannot be read or is not DICOM, which is the last of the formats that it may be."""
    check_file(path, path.parent)
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from None
    if not looks_like_dicom(path):
        raise Refusal("format", f"{path.name} is of no format that is read: {READ}.")


def _in_series(paths: Sequence[Path], alone: bool, workers: int, inspection: Inspection) -> list[Found]:
    """The series of DICOM files that were named one by one."""
    if not paths:
        return []
    given = {_real(path): path for path in paths}
    root = Path(os.path.commonpath([path.parent for path in given]))
    listing = series.find(root, [str(path.relative_to(root)) for path in given], {}, workers)
    for path, refusal in listing.refused:
        _refuse(inspection, given.get(root / path, root / path), refusal)
    if alone:
        for kind in listing.ignored:
            reason = f"{paths[0].name} holds no scan, it is a {kind}."
            _refuse(inspection, paths[0], Refusal("format", reason))
    else:
        inspection.ignored += listing.ignored
    inspection.warnings += listing.warnings
    found = []
    for entry in listing.entries:
        files = tuple(root / file for file in entry.files)
        parents = {given[file].parent for file in files}
        if len(files) == 1:
            path = given[files[0]]
        else:
            path = parents.pop() if len(parents) == 1 else root / entry.path
        found.append(Found(path, files, root / entry.path, entry.patient, entry.series))
    return found


def _each_once(found: Sequence[Found]) -> list[Found]:
    """Without those whose files are all among those of another."""
    kept: list[Found] = []
    seen: set[Path] = set()
    for item in sorted(found, key=lambda item: -len(_files(item.place))):
        files = set(map(_real, _files(item.place)))
        if not files <= seen:
            kept.append(item)
            seen |= files
    return kept


def _files(place: Place) -> tuple[Path, ...]:
    return (place,) if isinstance(place, Path) else tuple(place)


def _real(path: Path) -> Path:
    """A file by its own name in its real folder: a link is another file than what it leads to."""
    return _real_folder(path.parent) / path.name


@lru_cache(maxsize=1 << 16)
def _real_folder(path: Path) -> Path:
    return path.resolve()


def _refuse(inspection: Inspection, path: Path, refusal: Refusal) -> None:
    inspection.scans.append(Inspected(path, 1, None, None, None, refusal))


# ------------------------------------------------------------------------------------------ reading


def _answers(
    found: Sequence[Found], limits: Limits, workers: int
) -> Iterator[tuple[Found, _Looked | Refusal]]:
    """Each scan with what reading it told, not in order."""
    batches = list(_batches(found, workers))
    # The large ones first: they would leave the others of the workers idle in the end
    yield from _alone([batch[0] for batch in batches if len(batch) == 1], limits, workers)
    batches = [batch for batch in batches if len(batch) > 1]
    jobs = [([(item.place, item.root) for item in batch], limits) for batch in batches]
    again: list[Found] = []
    for batch, answers in zip(batches, each(_look_at_all, jobs, workers, BATCH_SECONDS), strict=True):
        if isinstance(answers, Refusal):  # one of them is to blame
            again += batch
        else:
            yield from zip(batch, answers, strict=True)
    yield from _alone(again, limits, workers)


def _alone(found: Sequence[Found], limits: Limits, workers: int) -> Iterator[tuple[Found, _Looked | Refusal]]:
    jobs = [(item.place, item.root, limits) for item in found]
    yield from zip(found, each(_look, jobs, workers, SECONDS), strict=True)


def _batches(found: Sequence[Found], workers: int) -> Iterator[list[Found]]:
    """Scans for one process each: small files several together, because to begin a process takes as long as to read one.

    Series of DICOM files stay alone, which native decoders may read.
    """
    size = min(BATCH, len(found) // (BATCHES_EACH * workers))
    batch: list[Found] = []
    for item in found:
        if (
            isinstance(item.place, Path)
            and os.path.isfile(item.place)
            and item.place.stat().st_size < SMALL_BYTES
        ):
            batch.append(item)
        else:
            yield [item]
        if len(batch) >= size and batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _look_at_all(places: Sequence[tuple[Place, Path]], limits: Limits) -> list[_Looked | Refusal]:
    answers: list[_Looked | Refusal] = []
    for place, root in places:
        try:
            answers.append(_look(place, root, limits))
        except Refusal as refusal:
            answers.append(refusal)
    return answers


def _look(place: Place, root: Path, limits: Limits) -> _Looked:
    """Read a scan within the memory that its header explains. Raises Refusal where not even the header can be used."""
    bound_memory(memory_for(0))
    header = read_header(place, root, None)
    bound_memory(memory_for(header.bytes))
    files = len(_files(place)) + (isinstance(place, Path) and header.file != place)
    refusal, seen = None, None
    try:
        seen = examine(place, root, limits)
    except Refusal as error:
        refusal = error
        if refusal.rule in BY_SIZE:
            with suppress(Refusal):
                seen = examine(place, root, None)
    low, high = (seen.low, seen.high) if seen else (None, None)
    return _Looked(files, header.geometry, header.modality, header.bytes, refusal, low, high)


def _inspected(item: Found, answer: _Looked | Refusal) -> Inspected:
    if isinstance(answer, Refusal):
        known = None if answer.rule == "format" else format_of(item.place)
        return Inspected(item.path, len(_files(item.place)), known, item.patient, item.series, answer)
    refusal = answer.refusal
    return Inspected(
        item.path,
        answer.files,
        format_of(item.place),
        item.patient,
        item.series,
        refusal,
        answer.geometry,
        None if refusal and refusal.rule == "not-ct" else answer.modality,
        answer.low_hu,
        answer.high_hu,
        answer.bytes,
    )


# ----------------------------------------------------------------------------------------- speaking


def lines(inspection: Inspection, paths: Sequence[Path], width: int) -> Iterator[Text]:
    """What to tell a person who asked for these paths, for a terminal of `width` columns."""
    from rich.text import Text

    only = paths[0] if len(paths) == 1 else None
    if only and not only.is_dir():
        for scan in inspection.scans:
            yield from description(scan, width)
        return
    if only:
        yield Text(shown(only), style="bold")
    if inspection.scans:
        yield from table(inspection, only, width)
    yield Text(
        f"\n{inspection.summary}" if inspection.scans else "there is no scan here; " + inspection.summary
    )


def table(inspection: Inspection, base: Path | None, width: int) -> Iterator[Text]:
    """A line for each scan, then the refused ones with their reasons, for a terminal of `width` columns.

    Paths are shown relative to `base` where there is one, and stand on lines of their own where beside the rest
    there is no room for them.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    names = _names(inspection.scans, base)
    verdicts = [_verdict(scan) for scan in inspection.scans]
    heads = ("size", "spacing mm", "axes", "HU", "patient")
    rows = [_cells(scan) for scan in inspection.scans]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    room = width - sum(widths) - 2 * (len(widths) + 1) - max(map(len, ["verdict", *verdicts]))
    longest = max(map(cell_len, ["scan", *names]))
    beside = min(longest, room) if longest <= room or (room >= PATH_CELLS and longest <= 2 * room) else 0
    for name, row, verdict in [("scan", heads, "verdict"), *zip(names, rows, verdicts, strict=True)]:
        cells = "".join(set_cell_size(cell, size) + "  " for cell, size in zip(row, widths, strict=True))
        first, *others = _folded(name, beside or width)
        if beside:
            yield Text.assemble(
                set_cell_size(first, beside), "  ", cells, (verdict, _STYLES.get(verdict, "red"))
            )
            yield from map(Text, others)
        else:
            yield from map(Text, [first, *others])
            yield Text.assemble("  ", cells, (verdict, _STYLES.get(verdict, "red")))
    if any(scan.geometry and _askew(scan.geometry) for scan in inspection.scans):
        yield Text("\n* oblique to the patient's axes, or of a tilted gantry (--json says by how much)")
    if inspection.refused:
        yield Text("\nrefused", style="bold")
    for name, scan in zip(names, inspection.scans, strict=True):
        if scan.refusal is not None:
            yield from map(Text, _folded(name, width))
            why = f"{scan.refusal.rule}: {shown(scan.refusal.reason)}"
            yield Text(fill(why, width, initial_indent="    ", subsequent_indent="    "))


def description(scan: Inspected, width: int) -> Iterator[Text]:
    """All that is known of one scan, a line for each thing, for a terminal of `width` columns."""
    from rich.text import Text

    yield from (Text(line, style="bold") for line in _folded(shown(scan.path), width))
    for name, value in _facts(scan):
        yield Text(f"  {name:<13}{shown(value)}")
    yield Text(f"  {'verdict':<13}").append(_verdict(scan), _STYLES.get(_verdict(scan), "red"))
    if scan.refusal is not None:
        yield Text("\n" + fill(shown(scan.refusal.reason), width))


_STYLES = {"ok": "green", "verdict": ""}


def _facts(scan: Inspected) -> Iterator[tuple[str, str]]:
    if scan.format is not None:
        yield "format", scan.format + (f", {scan.files} files" if scan.files > 1 else "")
    if scan.modality is not None:
        yield "modality", scan.modality
    if scan.patient is not None:
        yield "patient", scan.patient
    if scan.series is not None:
        yield "series", scan.series
    if scan.geometry is not None:
        grid = scan.geometry
        extent = [float(n * step) for n, step in zip(grid.size, grid.spacing_mm, strict=True)]
        yield "size", f"{by(grid.size)} voxels (x, y, z)"
        yield "spacing", f"{by(grid.spacing_mm)} mm"
        yield "extent", f"{by(extent)} mm"
        yield "first voxel", f"{', '.join(f'{value:.6g}' for value in grid.origin_mm)} mm (LPS)"
        yield "orientation", grid.orientation + _askew(grid)
    if scan.low_hu is not None:
        yield "intensity", f"{scan.low_hu:g} to {scan.high_hu:g} HU"
    if scan.bytes is not None:
        yield "voxels", f"{scan.bytes / 1e6:,.1f} MB, decoded"


def _cells(scan: Inspected) -> tuple[str, str, str, str, str]:
    grid, patient = scan.geometry, shown(scan.patient or "")
    return (
        "x".join(map(str, grid.size)) if grid else "",
        "x".join(f"{value:.3g}" for value in grid.spacing_mm) if grid else "",
        grid.orientation + ("*" if _askew(grid) else "") if grid else "",
        f"{scan.low_hu:.5g}..{scan.high_hu:.5g}" if scan.low_hu is not None else "",
        patient if len(patient) <= PATIENT_CELLS else f"{patient[: PATIENT_CELLS - 1]}…",
    )


def _verdict(scan: Inspected) -> str:
    return "ok" if scan.refusal is None else scan.refusal.rule


def _askew(geometry: Geometry) -> str:
    """How the axes differ from the patient's and from right angles, in words; empty where they do not."""
    oblique, tilt = oblique_degrees(geometry), tilt_degrees(geometry)
    words = f", oblique by {oblique:.1f} degrees" if oblique >= ANGLE_SHOWN else ""
    return words + (f", gantry tilted by {tilt:.1f} degrees" if tilt >= ANGLE_SHOWN else "")


def _names(scans: Sequence[Inspected], base: Path | None) -> list[str]:
    """What to call each scan; several series in one folder by the ends of their UIDs too."""
    many = Counter(scan.path for scan in scans)
    return [
        shown(scan.path.relative_to(base) if base else scan.path)
        + (f" (series ...{shown(scan.series[-8:])})" if scan.series and many[scan.path] > 1 else "")
        for scan in scans
    ]


def _folded(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most `width` cells, broken behind a slash where there is one in the latter half."""
    from rich.cells import chop_cells

    while text:
        line = chop_cells(text, width)[0]
        slash = line.rfind("/") + 1
        if len(line) < len(text) and slash > len(line) // 2:
            line = line[:slash]
        yield line
        text = text[len(line) :]


def _counts(counter: Counter[str]) -> str:
    return f" ({', '.join(f'{name} {n}' for name, n in sorted(counter.items()))})" if counter else ""


def _valid(text: str) -> str:
    """Text of Unicode characters only, whatever bytes a name is made of."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
