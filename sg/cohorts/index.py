"""The index of a cohort: every scan with its patient, split, hash and findings, and what was set aside and why.

Each scan is read in a process of its own, with limits of memory and time. No result depends on their number. Scans
that show one patient under several names have one name here, so that no patient stands on two sides of a split.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sg import console
from sg.cohorts.decathlon import list_decathlon
from sg.cohorts.folder import TRUTH, Listing, inside, list_folder, names
from sg.cohorts.luna16 import list_luna16
from sg.cohorts.records import Entry, FileRow, FindingRow, QuarantineRow, ScanRow, TwinRow, write_rows
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.isolated import bound_memory, each, memory_for
from sg.params import Cohort, Limits, Source
from sg.roles import RoleRow, decide_roles
from sg.scans import Geometry, Place, Refusal, digest, files_of, read_header, read_scan, stem_of
from sg.splits import SPLITS, Claim, Splits, decide
from sg.twins import Likeness, Pair, find, likeness

LAYOUTS: dict[str, Callable[[Path, Source, int], Listing]] = {
    "folder": list_folder,
    "luna16": list_luna16,
    "decathlon": list_decathlon,
}
IDENTITY_DIGITS = 12
PATIENT_BYTES = 64  # as artifacts store a patient's name
SECONDS = 1800.0  # that reading one scan may take: 2^31 voxels from a slow share
WARNINGS_SHOWN = 10


@dataclass(frozen=True)
class Measured:
    """What reading a scan tells."""

    geometry: Geometry
    modality: str
    bytes: int
    sha256: str
    truth_sha256: str
    likeness: Likeness


@dataclass(frozen=True)
class Index:
    """The tables of a cohort, ready to be written."""

    scans: list[ScanRow]
    files: list[FileRow]
    findings: list[FindingRow]
    quarantine: list[QuarantineRow]
    twins: list[TwinRow]
    roles: list[RoleRow]
    summary: dict[str, Any]
    truths: dict[str, Path]  # scan -> file of what is known about a phantom


@dataclass
class _Item:
    """One listed scan on its way into the tables."""

    source: str
    entry: Entry
    measured: Measured | None = None
    refusal: Refusal | None = None
    double_of: _Item | None = None  # the scan that this one is the same as

    @property
    def usable(self) -> bool:
        return self.refusal is None

    @property
    def scan(self) -> str:
        return self.measured.sha256[:IDENTITY_DIGITS] if self.measured else ""

    def __str__(self) -> str:
        return f"{shown(self.entry.path)} of {self.source}"


@dataclass
class _Sayings:
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def build(settings: Cohort, seed: int, workers: int) -> Index:
    """Find, read and judge every scan of all sources.

    InputError where `cohort.raw` or a source is not there or malformed, or too few patients can be used.
    """
    raw = _raw(settings.raw)
    said = _Sayings()
    listings = {
        name: _listing(raw, name, source, workers, said) for name, source in sorted(settings.sources.items())
    }
    items = [_Item(name, entry) for name, listing in listings.items() for entry in listing.entries]
    jobs = [(raw, item.entry, settings.limits) for item in items]
    answers = console.track(
        each(_measure_bounded, jobs, workers, SECONDS), "reading scans", len(jobs), "scans"
    )
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, Refusal):
            item.refusal = answer
        else:
            item.measured = answer
    _set_doubles_aside(items, settings.sources, said)
    quarantine = _quarantine(items, listings)
    if not any(item.usable for item in items):
        raise _nothing_usable(raw, quarantine)
    twins, merged = _unite(items, settings.twin_correlation, said)
    try:
        splits = decide(_claims(items, settings.sources), settings.splits, seed)
    except InputError as error:
        raise InputError(f"{error}; refused were, by rule: {_rules(quarantine)}") from None
    said.notes.extend(splits.notes)
    said.warnings.extend(splits.warnings)
    scans = sorted(
        (_row(item, settings.sources, splits) for item in items if item.usable), key=lambda row: row.scan
    )
    findings = _findings(items, said)
    truths = _truths(raw, items, settings.sources)
    summary = _summary(scans, findings, quarantine, listings, said) | {
        "twins": len(twins),
        "patients_merged": merged,
    }
    return Index(scans, _files(items), findings, quarantine, twins, decide_roles(scans), summary, truths)


def write(index: Index, folder: Path) -> None:
    """Write the tables, summary.json and truth/ into a folder."""
    write_rows(folder / "scans.csv", ScanRow, index.scans)
    write_rows(folder / "files.csv", FileRow, index.files)
    write_rows(folder / "findings.csv", FindingRow, index.findings)
    write_rows(folder / "quarantine.csv", QuarantineRow, index.quarantine)
    write_rows(folder / "twins.csv", TwinRow, index.twins)
    write_rows(folder / "roles.csv", RoleRow, index.roles)
    text = json.dumps(index.summary, indent=2, sort_keys=True, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    for scan, path in sorted(index.truths.items()):
        (folder / TRUTH).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / TRUTH / f"{scan}.h5")


def show(summary: dict[str, Any]) -> None:
    """Say on the console what was read, what was refused by which rule, the twins, and how the patients are split."""
    parts = [*summary["by_source"].values(), summary]
    rows = [("scans read", *(part["scans"] for part in parts))]
    rows += [
        (f"refused: {rule}", *(part["refused"].get(rule, 0) for part in parts)) for rule in summary["refused"]
    ]
    blank = [""] * (len(parts) - 1)
    rows.append(("twins found: pairs of scans", *blank, summary["twins"]))
    rows.append(("twins found: patients' names replaced", *blank, summary["patients_merged"]))
    rows += [(f"patients: {split}", *(part["patients"][split] for part in parts)) for split in SPLITS]
    console.counts(list(summary["by_source"]), rows)
    for warning in summary["warnings"][:WARNINGS_SHOWN]:
        console.warn(warning)
    if len(summary["warnings"]) > WARNINGS_SHOWN:
        console.warn(f"{len(summary['warnings']) - WARNINGS_SHOWN} more are in summary.json")


def sentence(summary: dict[str, Any]) -> str:
    """The same in a line."""
    patients = ", ".join(f"{summary['patients'][split]} {split}" for split in SPLITS)
    refused = summary["refused"]
    rules = f" ({', '.join(f'{rule} {count}' for rule, count in refused.items())})" if refused else ""
    pairs = "pair" if summary["twins"] == 1 else "pairs"
    twins = f"; {summary['twins']} {pairs} of twins" if summary["twins"] else ""
    return f"{summary['scans']} scans, patients: {patients}; {sum(refused.values())} refused{rules}{twins}"


# ------------------------------------------------------------------------------------------ listing


def _raw(name: str) -> Path:
    raw = Path(name)
    if not raw.is_dir():
        what = "is not a folder" if raw.exists() else "does not exist"
        raise InputError(
            f"cohort.raw: must be the folder that holds the raw data, got {name!r}, which {what}; correct it"
        )
    return raw


def _listing(raw: Path, name: str, source: Source, workers: int, said: _Sayings) -> Listing:
    """What a source lists, with the patients that its table names and without what is to be left out."""
    folder = inside(raw, source.path, f"cohort.sources.{name}.path")
    if not folder.is_dir():
        raise InputError(
            f"cohort.sources.{name}.path: must be a folder, got {source.path!r}, which is a file; correct it"
        )
    listing = LAYOUTS[source.layout](raw, source, workers)
    lists = {Path(file) for file in (source.patients, source.leave_out) if file is not None}
    listing.refused = [refused for refused in listing.refused if refused.path not in lists]
    said.notes.extend(f"{name}: {note}" for note in listing.notes)
    said.warnings.extend(f"{name}: {warning}" for warning in listing.warnings)
    if not listing.entries and not listing.refused:
        raise InputError(
            f"cohort.sources.{name}: {folder} holds no scans in the layout {source.layout!r}; correct its path or layout"
        )
    if source.patients is not None:
        _name_patients(raw, name, source, listing, said)
    if source.leave_out is not None:
        _leave_out(raw, name, source, listing, said)
    for number, entry in enumerate(listing.entries):
        patient = _short(entry.patient)
        if patient != entry.patient:
            listing.entries[number] = replace(entry, patient=patient)
            said.notes.append(
                f"{name}: the patient {entry.patient} is called {patient}: at most {PATIENT_BYTES} plain characters"
            )
    return listing


def _name_patients(raw: Path, name: str, source: Source, listing: Listing, said: _Sayings) -> None:
    """Replace the patients of the entries that the source's table names; of several lines the narrowest counts."""
    setting = f"cohort.sources.{name}.patients"
    path = inside(raw, source.patients, setting)
    patients: dict[str, str] = {}
    for line, (key, patient) in _two_columns(path, setting):
        if not key or not patient:
            raise InputError(f"{path}, line {line}: path and patient must not be empty ({setting})")
        if patients.setdefault(key, patient) != patient:
            raise InputError(
                f"{path}, line {line}: {key} is given to {patients[key]} and to {patient}; keep one ({setting})"
            )
    used = set()
    for number, entry in enumerate(listing.entries):
        known = [key for key in names(entry, source) if key in patients]
        used.update(known)
        own = {form for file in entry.files for form in (str(file), str(file.relative_to(source.path)))}
        if len(whose := sorted({patients[key] for key in own.intersection(known)})) > 1:
            raise InputError(
                f"{path}: files of one series ({entry.path}) are given to {' and to '.join(whose)}; a series is of one "
                f"patient, keep one ({setting})"
            )
        if known:
            listing.entries[number] = replace(entry, patient=patients[known[0]])
    for key in sorted(set(patients) - used):
        said.warnings.append(f"{name}: {source.patients} names {key}, which matches no scan")


def _leave_out(raw: Path, name: str, source: Source, listing: Listing, said: _Sayings) -> None:
    """Drop what the source's list names, scans and files set aside; a line that names none is a warning."""
    path = inside(raw, source.leave_out, f"cohort.sources.{name}.leave_out")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (UnicodeDecodeError, OSError):
        raise InputError(
            f"cohort.sources.{name}.leave_out: {path} must be a text file (UTF-8), one scan a line"
        ) from None
    unwanted = {_named(line) for line in lines if line and not line.startswith("#")}
    kept, used = [], set()
    for entry in listing.entries:
        known = unwanted.intersection(names(entry, source))
        used |= known
        if not known:
            kept.append(entry)
    refused = []
    for row in listing.refused:
        known = unwanted.intersection(names(Entry(row.path, "", None, None, None), source))
        used |= known
        if not known:
            refused.append(row)
    left_out = len(listing.entries) - len(kept) + len(listing.refused) - len(refused)
    listing.entries, listing.refused = kept, refused
    if left_out:
        listing.ignored["left out"] += left_out
    for line in sorted(unwanted - used):
        said.warnings.append(f"{name}: {source.leave_out} names {line}, which matches no scan")


def _named(line: str) -> str:
    """A path as `names` has it."""
    return line.removeprefix("./").rstrip("/")


def _two_columns(path: Path, setting: str) -> Iterator[tuple[int, tuple[str, str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"path", "patient"} <= set(reader.fieldnames or []):
                raise InputError(
                    f"{path}: must have the columns path and patient, got {reader.fieldnames} ({setting})"
                )
            for row in reader:
                yield reader.line_num, (_named((row["path"] or "").strip()), (row["patient"] or "").strip())
    except (UnicodeDecodeError, csv.Error, IsADirectoryError) as error:
        raise InputError(
            f"{path}: must be a CSV file of UTF-8 text ({error}); save it as such ({setting})"
        ) from None


def _short(patient: str) -> str:
    """A patient's name as artifacts can store it: at most 64 printable ASCII characters."""
    if patient.isascii() and patient.isprintable() and len(patient) <= PATIENT_BYTES:
        return patient
    mark = hashlib.sha256(patient.encode("utf-8", "surrogatepass")).hexdigest()[:IDENTITY_DIGITS]
    plain = "".join(c if c.isascii() and c.isprintable() else "_" for c in patient)
    return f"{plain[: PATIENT_BYTES - IDENTITY_DIGITS - 1]}-{mark}"


# ------------------------------------------------------------------------------------------ reading


def measure(raw: Path, entry: Entry, limits: Limits) -> Measured:
    """Hash a scan and its label map and read both, in that order. Raises Refusal."""
    place = _absolute(raw, entry)
    files = files_of(place, raw)
    label_files = _label_files(raw, entry)
    before = _state(files + label_files)
    sha256, size = digest(files)
    scan = read_scan(place, raw, limits)
    geometry, modality, alike = scan.geometry, scan.modality, likeness(scan.array, scan.geometry)
    del scan
    truth_sha256 = ""
    if entry.truth is not None:
        truth_sha256, _ = digest(label_files)
        _check_labels(raw / entry.truth, raw, geometry)
    if _state(files + label_files) != before:
        raise Refusal(
            "changed", "The file changed while it was being read; run again when nothing writes to it."
        )
    return Measured(geometry, modality, size, sha256, truth_sha256, alike)


def _absolute(raw: Path, entry: Entry) -> Place:
    return tuple(raw / file for file in entry.files) or raw / entry.path


def _label_files(raw: Path, entry: Entry) -> tuple[Path, ...]:
    try:
        return files_of(raw / entry.truth, raw) if entry.truth is not None else ()
    except Refusal as refusal:
        raise _of_labels(refusal) from None


def _check_labels(path: Path, raw: Path, geometry: Geometry) -> None:
    """Refuse a label map that is not on the scan's grid or holds anything but whole numbers from 0 to 255."""
    try:
        difference = geometry.difference(read_header(path, raw, None).geometry)
        if difference:
            raise Refusal("labels", f"its grid is not the scan's: {difference}.")
        labels = read_scan(path, raw, None).array
    except Refusal as refusal:
        raise _of_labels(refusal) from None
    if labels.dtype != np.int16 or labels.min() < 0 or labels.max() > 255:
        values = f"they run from {labels.min():g} to {labels.max():g}"
        raise Refusal("labels", f"The label map's values must be whole numbers from 0 to 255, {values}.")


def _of_labels(refusal: Refusal) -> Refusal:
    return Refusal("labels", f"The label map cannot be used: {refusal.reason[0].lower()}{refusal.reason[1:]}")


def _state(files: Sequence[Path]) -> list[tuple[int, int]]:
    try:
        return [(status.st_size, status.st_mtime_ns) for status in map(os.stat, files)]
    except OSError:
        return []


def _measure_bounded(raw: Path, entry: Entry, limits: Limits) -> Measured:
    """The same within the memory that the sizes in the headers explain."""
    bound_memory(memory_for(0))
    declared = read_header(_absolute(raw, entry), raw, limits).bytes
    if entry.truth is not None:
        try:
            declared += read_header(raw / entry.truth, raw, None).bytes
        except Refusal as refusal:
            raise _of_labels(refusal) from None
    bound_memory(memory_for(declared))
    return measure(raw, entry, limits)


# ------------------------------------------------------------------------------------------ judging


def _set_doubles_aside(items: Sequence[_Item], sources: Mapping[str, Source], said: _Sayings) -> None:
    """Keep of scans with equal content or series UID the first, by source and path."""
    seen: dict[str, _Item] = {}
    identities: dict[str, str] = {}
    for item in items:
        if item.measured is None:
            continue
        first, what = next(
            ((seen[key], what) for key, what in _same(item).items() if key in seen),
            (None, ""),
        )
        if first is not None:
            item.double_of = first
            reason = f"This is the same scan as {first} (equal {what})."
            if item.measured.sha256 != first.measured.sha256:
                reason = f"It has the series UID of {first}, though not the same bytes; a series is one scan."
            item.refusal = Refusal("duplicate", reason)
            lost = sorted(set(_uses(item, sources)) - set(_uses(first, sources)))
            if lost:
                said.warnings.append(
                    f"{item.source}: {shown(item.entry.path)} is {first}, which does not serve {', '.join(lost)}; add "
                    f"that to the use of {first.source} if it should"
                )
            continue
        seen |= dict.fromkeys(_same(item), item)
        if identities.setdefault(item.scan, item.measured.sha256) != item.measured.sha256:
            raise InputError(
                f"{item.entry.path}: another scan begins with the same hash {item.scan}; leave one of them out"
            )


def _same(item: _Item) -> dict[str, str]:
    """What two files of one scan share, and how to call it."""
    same = {f"series {item.entry.series}": "series UID"} if item.entry.series else {}
    return same | ({f"content {item.measured.sha256}": "content"} if item.measured else {})


def _unite(items: Sequence[_Item], correlation: float, said: _Sayings) -> tuple[list[TwinRow], int]:
    """Give scans that show one patient one name, the first; the pairs of twins, and how many names are no more."""
    usable = [item for item in items if item.usable]
    pairs = find([item.measured.likeness for item in usable], correlation)
    twins = [(usable[pair.first], usable[pair.second], pair) for pair in pairs]
    doubles = [(item.double_of, item) for item in items if item.double_of is not None]
    before = {item.entry.patient for item in usable}
    names = _joined(
        before, [(a.entry.patient, b.entry.patient) for a, b in [*(twin[:2] for twin in twins), *doubles]]
    )
    rows = []
    for first, second, pair in twins:
        had = [first.entry.patient, second.entry.patient]
        called = " and ".join(had) if had[0] != had[1] else ""
        rows.append(
            TwinRow(first.scan, second.scan, pair.by, round(pair.correlation, 6), names[had[0]], called)
        )
        if called:
            said.warnings.append(
                f"{first} (patient {had[0]}) and {second} (patient {had[1]}) show one patient: {_why(pair)}; both are "
                f"called {names[had[0]]} now"
            )
    for first, second in doubles:
        had = [first.entry.patient, second.entry.patient]
        if had[1] in before and had[0] != had[1]:
            said.warnings.append(
                f"{first} (patient {had[0]}) and {second} (patient {had[1]}) are the same scan; both patients are called "
                f"{names[had[0]]} now"
            )
    for item in items:
        item.entry = replace(item.entry, patient=names.get(item.entry.patient, item.entry.patient))
    return rows, len(before) - len({item.entry.patient for item in usable})


def _why(pair: Pair) -> str:
    return (
        "their voxels are equal"
        if pair.by == "voxels"
        else f"their thumbnails correlate at {pair.correlation:.4f}"
    )


def _joined(kept: Collection[str], links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """For every name the first of those kept that links lead to, directly or over others."""
    groups = {name: {name} for name in kept}
    for one, other in links:
        mine, theirs = groups.setdefault(one, {one}), groups.setdefault(other, {other})
        if mine is not theirs:
            groups |= dict.fromkeys(theirs, mine)
            mine |= theirs
    return {name: min(group.intersection(kept)) for name, group in groups.items()}


def _uses(item: _Item, sources: Mapping[str, Source]) -> tuple[str, ...]:
    """What a scan serves: unlabelled cases of a data set of labelled ones serve pre-training alone."""
    source = sources[item.source]
    if source.layout == "decathlon" and item.entry.truth is None:
        return tuple(use for use in source.use if use == "pretrain")
    return tuple(source.use)


def _claims(items: Sequence[_Item], sources: Mapping[str, Source]) -> list[Claim]:
    return [
        Claim(
            item.entry.patient,
            frozenset(_same(item)),
            item.entry.split,
            _uses(item, sources) if item.usable else (),
        )
        for item in items
    ]


# ------------------------------------------------------------------------------------------- tables


def _row(item: _Item, sources: Mapping[str, Source], splits: Splits) -> ScanRow:
    measured, entry = item.measured, item.entry
    return ScanRow(
        scan=item.scan,
        patient=entry.patient,
        source=item.source,
        layout=sources[item.source].layout,
        use=_uses(item, sources),
        split=splits.of[entry.patient],
        path=str(entry.path),
        series=entry.series or "",
        truth="" if entry.truth is None else str(entry.truth),
        modality=measured.modality,
        size=measured.geometry.size,
        spacing_mm=measured.geometry.spacing_mm,
        orientation=measured.geometry.orientation,
        bytes=measured.bytes,
        sha256=measured.sha256,
        truth_sha256=measured.truth_sha256,
    )


def _files(items: Sequence[_Item]) -> list[FileRow]:
    """The files of the usable scans that are DICOM series, by scan, each in the order of hashing."""
    rows = [FileRow(item.scan, str(file)) for item in items if item.usable for file in item.entry.files]
    return sorted(rows, key=lambda row: row.scan)


def _findings(items: Sequence[_Item], said: _Sayings) -> list[FindingRow]:
    """The marks of all usable scans; those outside their scan, and of scans set aside, are counted in a sentence."""
    rows = []
    outside: Counter[str] = Counter()
    orphaned: Counter[str] = Counter()
    for item in items:
        if not item.usable:
            orphaned[item.source] += len(item.entry.marks)
            continue
        for mark in item.entry.marks:
            index = item.measured.geometry.index(mark.centre_mm)
            if not ((index >= -0.5) & (index <= np.array(item.measured.geometry.size) - 0.5)).all():
                outside[item.source] += 1
                continue
            rows.append(
                FindingRow(item.scan, mark.kind, mark.label, mark.centre_mm, mark.diameter_mm, item.source)
            )
    said.warnings.extend(
        f"{source}: {n} findings lie outside their scan and are set aside" for source, n in outside.items()
    )
    said.notes.extend(
        f"{source}: {n} findings are of scans that were set aside" for source, n in orphaned.items() if n
    )
    return sorted(rows, key=lambda row: (row.scan, row.kind))


def _quarantine(items: Sequence[_Item], listings: Mapping[str, Listing]) -> list[QuarantineRow]:
    rows = [
        QuarantineRow(shown(refused.path), name, refused.rule, refused.reason, "")
        for name, listing in listings.items()
        for refused in listing.refused
    ]
    rows += [
        QuarantineRow(shown(item.entry.path), item.source, item.refusal.rule, item.refusal.reason, item.scan)
        for item in items
        if item.refusal is not None
    ]
    return sorted(rows, key=lambda row: (row.path, row.source, row.rule))


def _truths(raw: Path, items: Sequence[_Item], sources: Mapping[str, Source]) -> dict[str, Path]:
    found = {}
    for item in items:
        path = raw / sources[item.source].path / TRUTH / f"{stem_of(item.entry.path)}.h5"
        if item.usable and path.is_file() and path.resolve().is_relative_to(raw.resolve()):
            found[item.scan] = path
    return found


def _summary(
    scans: Sequence[ScanRow],
    findings: Sequence[FindingRow],
    quarantine: Sequence[QuarantineRow],
    listings: Mapping[str, Listing],
    said: _Sayings,
) -> dict[str, Any]:
    def patients(rows: Sequence[ScanRow]) -> dict[str, int]:
        return {split: len({row.patient for row in rows if row.split == split}) for split in SPLITS}

    by_source = {}
    for name, listing in listings.items():
        mine = [row for row in scans if row.source == name]
        by_source[name] = {
            "scans": len(mine),
            "patients": patients(mine),
            "refused": dict(sorted(Counter(row.rule for row in quarantine if row.source == name).items())),
            "ignored": dict(sorted(listing.ignored.items())),
            "findings": dict(
                sorted(Counter(f"{row.kind}: {row.label}" for row in findings if row.source == name).items())
            ),
        }
    return {
        "scans": len(scans),
        "patients": patients(scans),
        "by_source": by_source,
        "refused": dict(sorted(Counter(row.rule for row in quarantine).items())),
        "notes": said.notes,
        "warnings": said.warnings,
    }


def _nothing_usable(raw: Path, quarantine: Sequence[QuarantineRow]) -> InputError:
    example = f", {quarantine[0].path} for one: {quarantine[0].reason}" if quarantine else "."
    return InputError(
        f"cohort.raw: there is no usable scan in {raw}; refused were, by rule: {_rules(quarantine)}{example} "
        "Correct cohort.raw, cohort.sources or cohort.limits, or the files"
    )


def _rules(quarantine: Sequence[QuarantineRow]) -> str:
    return (
        ", ".join(f"{rule} {n}" for rule, n in sorted(Counter(row.rule for row in quarantine).items()))
        or "none"
    )
