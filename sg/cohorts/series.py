"""DICOM files as they lie in folders, grouped into series: one series is one scan, wherever its files are.

Headers are read in processes of their own. A series is refused if it may lack a slice: if a file that lies beside its
files cannot be read, nobody can tell whether that is one of them.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from sg import console
from sg.cohorts.records import Entry
from sg.cohorts.walking import shown
from sg.formats import dicom
from sg.formats.files import AGAIN, check_file
from sg.isolated import bound_memory, each
from sg.scans import Refusal

BATCH = 500  # files whose headers one process reads
BATCH_SECONDS = 120.0
FILE_SECONDS = 60.0  # for a file by itself, whose batch broke down
MEMORY_BYTES = 2**30
HEAD_BYTES = 132
TEXT = bytes({*range(32, 127), *b"\t\n\v\f\r"})


@dataclass
class Found:
    """The series of a source. Paths are relative to `cohort.raw`."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[tuple[Path, Refusal]] = field(default_factory=list)  # files, and folders of series
    ignored: Counter[str] = field(
        default_factory=Counter
    )  # what DICOM files without a volume are -> how many
    warnings: list[str] = field(default_factory=list)


@dataclass
class Lost:
    """Files of a folder that cannot be read: the first by name, and how many."""

    first: str
    count: int = 1

    def add(self, other: Lost) -> Lost:
        return Lost(min(self.first, other.first), self.count + other.count)


class Strays:
    """Files that are set aside beside DICOM files with names like theirs, and so may be lost slices.

    A name is like another if both have the same suffix, or both one of DICOM, or both none. A text is no slice.
    """

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._open: dict[str, dict[str, tuple[bool, Lost | None]]] = {}  # folders not yet left
        self.lost: dict[str, Lost] = {}

    def dicom(self, folder: str, suffix: str) -> None:
        """There is a DICOM file in the folder."""
        kinds = self._open.setdefault(folder, {})
        kinds[_like(suffix)] = (True, kinds.get(_like(suffix), (False, None))[1])

    def set_aside(self, folder: str, name: str, suffix: str) -> None:
        """A file in the folder was set aside."""
        like = _like(suffix)
        path = os.path.join(folder, name)
        if not _is_text(self._raw / path):
            kinds = self._open.setdefault(folder, {})
            known, lost = kinds.get(like, (False, None))
            kinds[like] = (known, lost.add(Lost(path)) if lost else Lost(path))

    def leave(self, folder: str) -> None:
        """The folder has been seen to its end."""
        for known, lost in self._open.pop(folder, {}).values():
            if known and lost:
                _note(self.lost, folder, lost)


def find(raw: Path, files: Sequence[str], lost: dict[str, Lost], workers: int) -> Found:
    """The series of DICOM files (relative to raw); `lost` says by folder what else may be slices.

    Files that name no series are one series in each folder, unless others there do name one. At most `workers`
    processes read headers; the result does not depend on their number.
    """
    found, lost = Found(), dict(lost)
    series: dict[tuple[str, str], list[_Slice]] = {}  # SeriesInstanceUID, or none and the folder

    def refuse(name: str, refusal: Refusal) -> None:
        found.refused.append((Path(name), refusal))
        _note(lost, os.path.dirname(name), Lost(name))

    for name, answer in _answers(_instances, raw, sorted(files), workers):
        if isinstance(answer, Refusal):
            refuse(name, answer)
        elif answer.kind:
            found.ignored[f"DICOM {answer.kind}"] += 1
        else:
            key = (answer.series, "" if answer.series else os.path.dirname(name))
            one = _Slice(answer.uid, Path(name), answer.patient.strip(), sys.intern(answer.study))
            series.setdefault(key, []).append(one)
    naming = {os.path.dirname(one.path) for (uid, _), slices in series.items() if uid for one in slices}
    for key in [key for key in series if not key[0] and key[1] in naming]:
        for one in series.pop(key):
            reason = f"{one.path.name} names no series (SeriesInstanceUID), and files beside it do; {AGAIN}."
            refuse(str(one.path), Refusal("header", reason))
    nameless = 0
    for (uid, _), slices in series.items():
        nameless += sum(_add(found, raw, uid, copy, lost) for copy in _copies(slices))
    if nameless:
        found.warnings.append(
            f"{nameless} DICOM series name no patient (PatientID), so each study (StudyInstanceUID), or else each folder, "
            "counts as one; where that is wrong, say whose they are in a CSV file (the source's `patients`)"
        )
    return found


class _Slice(NamedTuple):
    """One file of a series."""

    uid: str  # SOPInstanceUID
    path: Path
    patient: str
    study: str


def _copies(slices: list[_Slice]) -> list[list[_Slice]]:
    """The files of a series; in parts, where folders hold the series again.

    If what lies in one folder (folders in it included) is the whole series, then files in other folders are no more of
    it, but copies, whole or in part, perhaps in another encoding or damaged: each folder is a scan by itself.
    """
    whole: list[list[_Slice]] = []
    waiting = [slices]
    while waiting:
        part = waiting.pop()
        depth = len(_common(one.path for one in part).parts)
        groups: dict[str, list[_Slice]] = {}
        for one in part:
            parts = one.path.parts[depth:]
            groups.setdefault(parts[0] if len(parts) > 1 else "", []).append(one)
        sizes = [len({one.uid for one in group}) for group in groups.values()]
        if len(groups) > 1 and max(sizes) == len({one.uid for one in part}) and all(one.uid for one in part):
            waiting += groups.values()
        else:
            whole.append(part)
    return whole


def _add(found: Found, raw: Path, uid: str, slices: list[_Slice], lost: dict[str, Lost]) -> bool:
    """Add a series to what was found, or its refusal. True if it is used and names no patient."""
    kept = _without_doubles(raw, slices)
    if len(kept) < len(slices):
        found.ignored["DICOM copy"] += len(slices) - len(kept)
    folder = _common(one.path for one in kept)
    try:
        _check(uid, slices, lost)
    except Refusal as refusal:
        found.refused.append((folder, refusal))
        return False
    # Files of one series that name several patients are refused when they are read
    patients = {one.patient for one in kept} - {""}
    patient = min(patients or {one.study for one in kept} - {""} or {str(folder)})
    files = tuple(one.path for one in kept)
    found.entries.append(Entry(folder, patient, None, uid or None, None, files=files))
    return not patients


def _without_doubles(raw: Path, slices: list[_Slice]) -> list[_Slice]:
    """The files in order, by SOPInstanceUID and path, and of equal ones the first alone."""
    kept: list[_Slice] = []
    for uid, group in groupby(sorted(slices), attrgetter("uid")):
        doubles = list(group)
        if not uid or len(doubles) == 1:
            kept += doubles
            continue
        # By content, not pair by pair: a careless anonymiser gives all slices one UID
        different = {_content(raw / one.path): one for one in reversed(doubles)}
        kept += sorted(different.values())
    return kept


def _check(uid: str, slices: list[_Slice], lost: dict[str, Lost]) -> None:
    """Refuse a series beside whose files lies what may be a slice of it and cannot be read."""
    name = f"The series {uid}" if uid else "The series"
    beside = None
    for folder in {os.path.dirname(one.path) for one in slices} & lost.keys():
        beside = beside.add(lost[folder]) if beside else lost[folder]
    if beside:
        what = "lies" if beside.count == 1 else f"and {beside.count - 1} more lie"
        raise Refusal(
            "slices",
            f"{name} may lack a slice: {shown(beside.first)} {what} beside its files and cannot be read; copy what "
            "cannot be read again from its source, or move it out of the folder if it is no slice.",
        )


def _common(paths: Iterable[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def _answers(
    work: Callable[[Path, Sequence[str]], list[Any]], raw: Path, files: Sequence[str], workers: int
) -> Iterator[tuple[str, Any]]:
    """Each file with its answer, a Refusal if need be. Of a batch that breaks down every file is tried by itself."""
    if not files:
        return
    size = min(BATCH, math.ceil(len(files) / workers))
    batches = [files[start : start + size] for start in range(0, len(files), size)]
    again: list[str] = []
    with console.Progress("reading DICOM headers", len(files), "files") as progress:
        jobs = [(raw, batch) for batch in batches]
        for batch, answers in zip(batches, each(work, jobs, workers, BATCH_SECONDS), strict=True):
            if isinstance(answers, Refusal):
                again += batch
                continue
            yield from zip(batch, answers, strict=True)
            progress.step(len(batch))
        jobs = [(raw, [name]) for name in again]
        for name, answers in zip(again, each(work, jobs, workers, FILE_SECONDS), strict=True):
            yield name, answers if isinstance(answers, Refusal) else answers[0]
            progress.step()


def _instances(raw: Path, files: Sequence[str]) -> list[dicom.Instance | Refusal]:
    bound_memory(MEMORY_BYTES)
    return [_instance(raw, name) for name in files]


def _instance(raw: Path, name: str) -> dicom.Instance | Refusal:
    try:
        check_file(raw / name, raw)
        return dicom.read_instance(raw / name)
    except Refusal as refusal:
        return refusal


def _content(path: Path) -> str:
    """What is equal for equal files."""
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(path)


def _like(suffix: str) -> str:
    return dicom.SUFFIXES[0] if suffix in dicom.SUFFIXES else suffix


def _note(lost: dict[str, Lost], folder: str, more: Lost) -> None:
    lost[folder] = lost[folder].add(more) if folder in lost else more


def _is_text(path: Path) -> bool:
    """Whether a file is there and begins as a plain text does."""
    try:
        if not path.is_file():  # to open a pipe would wait for ever
            return False
        with open(path, "rb", buffering=0) as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return bool(head) and not head.translate(None, TEXT)
