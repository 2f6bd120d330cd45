"""A plain folder of scans, however deep; and what any layout does with the files that it finds.

No file is passed over in silence: it is a scan, part of one, known to hold none (and counted), or set aside with a
reason. Links to folders are not followed. Only scans and DICOM files are held in memory one by one, so there may be any
number of other files; and nothing depends on the order in which the file system lists them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from errno import EACCES
from pathlib import Path

from sg import console
from sg.cohorts import series
from sg.cohorts.records import Entry
from sg.cohorts.walking import LISTED, Aside, leads_to_folder, walk
from sg.errors import InputError
from sg.formats import dicom
from sg.formats.files import check_file, unreadable
from sg.params import Source
from sg.scans import READ, Refusal, files_of, stem_of, suffix_of

TRUTH = "truth"  # of phantoms: <stem>.h5
KNOWN = {
    ".bat", ".bib", ".bmp", ".bval", ".bvec", ".css", ".csv", ".dll", ".doc", ".docx", ".dvc", ".exe", ".gif",
    ".gitignore", ".htm", ".html", ".ico", ".inf", ".ini", ".ipynb", ".jar", ".jpeg", ".jpg", ".js", ".json",
    ".jsonl", ".log", ".md", ".md5", ".odt", ".pdf", ".png", ".ppt", ".pptx", ".ps1", ".py", ".rst", ".rtf", ".sh",
    ".sha1", ".sha256", ".svg", ".tex", ".toml", ".tsv", ".txt", ".url", ".webp", ".xls", ".xlsx", ".xml", ".yaml",
    ".yml",
}  # fmt: skip
KNOWN_NAMES = {
    "authors", "changelog", "copying", "license", "licence", "md5sums", "notice", "readme", "sha256sums",
    "thumbs.db",
}  # fmt: skip
CATALOGUE = "DICOMDIR"  # names the DICOM files of a medium, holds none
DETACHED = (".mhd", ".nhdr", ".hdr", ".hdr.gz")  # headers of voxels that are in another file
VOXELS = (".raw.gz", ".img.gz", ".raw", ".zraw", ".img")
STEP = 1000  # files between two signs of progress

# What a file is; for what holds no scan any other word, under which it is counted
SCAN, DICOM, PART = "a scan", "a DICOM file", "part of a scan"


@dataclass(frozen=True)
class Refused:
    """A path (relative to `cohort.raw`) that a layout sets aside unread."""

    path: Path
    rule: str
    reason: str


@dataclass
class Listing:
    """What a layout found in a source, before any scan is read."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)  # what kind of file that holds no scan -> how many
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def list_folder(raw: Path, source: Source, workers: int) -> Listing:
    """Every scan below the source's folder, sorted by path and series UID.

    A patient is whom DICOM files name; of other scans, the file's name without its suffix.
    """
    listing = survey(raw, Path(source.path), workers)
    stems = Counter(entry.patient for entry in listing.entries if not entry.files)
    for name, count in sorted(stems.items()):
        if count > 1:
            listing.warnings.append(
                f"{count} files in {source.path} are named {name}, so they count as one patient; if they are not, say whose "
                "they are in a CSV file (the source's `patients`)"
            )
    return listing


def survey(raw: Path, folder: Path, workers: int) -> Listing:
    """All files below `raw / folder`, sorted out by what they are, and the DICOM files grouped into series.

    At most `workers` processes read the headers of DICOM files; the result does not depend on their number.
    """
    listing, files, lost = _sort_out(raw, folder)
    found = series.find(raw, files, lost, workers)
    listing.entries += found.entries
    listing.refused += [Refused(path, refusal.rule, refusal.reason) for path, refusal in found.refused]
    listing.ignored += found.ignored
    listing.warnings += found.warnings
    return _in_order(listing)


def survey_without_dicom(raw: Path, folder: Path, layout: str) -> Listing:
    """The same for a layout without DICOM: a folder that holds such files is set aside, once, and none is read."""
    listing, files, _ = _sort_out(raw, folder)
    for parent, count in Counter(map(os.path.dirname, files)).items():
        what = "1 DICOM file" if count == 1 else f"{count} DICOM files"
        reason = f"The folder holds {what}, which are no part of the layout {layout}; make them a source of layout folder."
        listing.refused.append(Refused(Path(parent), "format", reason))
    return _in_order(listing)


def names(entry: Entry, source: Source) -> list[str]:
    """What a list may call a scan, narrow names first: a file of it, its series UID, its path, a folder that it lies in.

    Paths count from `cohort.raw` or from the source's folder. Of the source's own folder only a series that lies
    in it directly has the name: it may also be that of a folder inside.
    """
    top = Path(source.path)
    files = entry.files or (entry.path,)
    folders = {folder for parent in {file.parent for file in files} for folder in (parent, *parent.parents)}
    below = [folder for folder in folders if folder.is_relative_to(top) and folder != top]
    below.sort(key=lambda folder: (-len(folder.parts), folder))
    wide = [form for path in (entry.path, *below) for form in _forms(path, top)]
    narrow = [form for path in files for form in _forms(path, top)]
    return list(dict.fromkeys([*narrow, *([entry.series] if entry.series else []), *wide]))


def inside(raw: Path, name: str, setting: str) -> Path:
    """`raw / name`, which a setting names, if it is there and inside. InputError otherwise."""
    path = raw / name
    if not path.resolve().is_relative_to(raw.resolve()):
        raise InputError(
            f"{setting}: must stay inside cohort.raw ({raw}), got {name!r}, which leads out of it by a link"
        )
    if not path.exists():
        raise InputError(f"{setting}: there is no {name!r} in {raw}; correct the name or put it there")
    return path


def check_table(path: Path, raw: Path) -> None:
    """InputError unless a data set's table is an ordinary, filled file below `raw`, links resolved."""
    try:
        check_file(path, raw)
    except Refusal as refusal:
        raise InputError(f"{path}: {refusal.reason[0].lower()}{refusal.reason[1:]}") from None


def _forms(path: Path, top: Path) -> tuple[str, str]:
    return str(path), str(path.relative_to(top))


def _in_order(listing: Listing) -> Listing:
    """By path and series UID; of the copies of a series the fullest first, since of equal scans the first is used."""
    first: dict[str | None, Path] = {None: Path()}
    for entry in listing.entries:
        first[entry.series] = min(first.get(entry.series, entry.path), entry.path)

    def rank(entry: Entry) -> tuple:
        path = first[entry.series] if entry.series else entry.path
        return path, entry.series or "", -len(entry.files), entry.path

    listing.entries.sort(key=rank)
    listing.refused.sort(key=lambda refused: (str(refused.path), refused.rule, refused.reason))
    return listing


def _sort_out(raw: Path, folder: Path) -> tuple[Listing, list[str], dict[str, series.Lost]]:
    """Everything but DICOM listed; the DICOM files; and by folder what is set aside there that may be one."""
    listing, aside, strays = Listing(), Aside(), series.Strays(raw)
    files: list[str] = []

    def unlisted(path: str, error: OSError) -> None:
        words = (error.strerror or "for an unknown reason").lower()
        aside.add("unreadable", (path, "unreadable", f"The folder cannot be listed: {words}."))

    parts, total = _parts(raw, folder)
    truth = str(folder / TRUTH)
    with console.Progress("looking through the folder", total, "files") as progress:
        for number, (here, entry) in enumerate(walk(raw, folder, unlisted), 1):
            if number % STEP == 0:
                progress.step(STEP)
            if entry is None:
                strays.leave(here)
                continue
            path = os.path.join(here, entry.name)
            if path.startswith(f"{truth}/") and entry.name.endswith(".h5"):
                listing.ignored[TRUTH] += 1
                continue
            suffix = _suffix(entry.name)
            try:
                what = _what(raw, path, suffix, entry, parts)
            except Refusal as refusal:
                kind = refusal.rule if refusal.rule != "format" else suffix.removeprefix(".") or "no suffix"
                aside.add(kind, (path, refusal.rule, refusal.reason))
                if refusal.rule != "link":
                    strays.set_aside(here, entry.name, suffix)
                continue
            if what == SCAN:
                listing.entries.append(Entry(Path(path), stem_of(Path(path)), None, None, None))
            elif what == DICOM:
                files.append(path)
                strays.dicom(here, suffix)
            elif what != PART:
                listing.ignored[what] += 1
    listing.refused += [Refused(Path(path), rule, reason) for path, rule, reason in aside.rows()]
    for kind, count, more in aside.counts():
        listing.ignored[f"{kind}, not read"] += more
        listing.warnings.append(
            f"{count:,} files were set aside unread ({kind}); the first {LISTED} of a kind are listed one by one, the other "
            f"{more:,} are only counted"
        )
    return listing, files, strays.lost


def _what(raw: Path, path: str, suffix: str, entry: os.DirEntry[str], parts: Container[str]) -> str:
    """What a file or link is. Refusal of what no reader is given."""
    if leads_to_folder(entry, through_links=True):
        raise Refusal(
            "link", "This is a link to a folder, and links are not followed; put the folder itself here."
        )
    _check_name(path)
    name = entry.name.lower()
    if name.startswith("."):
        return "hidden"
    if suffix_of(Path(name)):
        return SCAN
    if path in parts or (suffix in VOXELS and path[: -len(suffix)] in parts):
        # What a header names may still be a slice
        return DICOM if dicom.looks_like_dicom(raw / path) else PART
    if suffix in KNOWN or name in KNOWN_NAMES:
        return suffix.removeprefix(".") or name
    if name.upper() == CATALOGUE:
        return f"DICOM {CATALOGUE}"
    if suffix in dicom.SUFFIXES:
        return DICOM
    if not entry.is_file(follow_symlinks=False):
        check_file(raw / path, raw)
    if dicom.looks_like_dicom(raw / path):
        return DICOM
    if not os.access(raw / path, os.R_OK, effective_ids=True):
        raise unreadable(Path(path), PermissionError(EACCES, os.strerror(EACCES)))
    if suffix in VOXELS:
        raise Refusal("format", "These are bare voxels that no header (.mhd, .nhdr, .hdr) here names.")
    raise Refusal("format", f"The file is of no known format ({suffix or 'no suffix'}); read are {READ}.")


def _check_name(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal("name", "The file's name is not valid UTF-8; rename it.") from None
    if not path.isprintable():
        raise Refusal(
            "name", "The name of the file or of its folder holds characters that cannot be shown; rename it."
        )


def _suffix(name: str) -> str:
    """The last suffix in lower case, or both of compressed voxels; empty for a number, as in IM.000012 or 1.2.840."""
    name = name.lower()
    both = next((suffix for suffix in VOXELS if name.endswith(suffix)), None)
    suffix = both or os.path.splitext(name)[1]
    return "" if suffix[1:].isdigit() or suffix == "." else suffix


def _parts(raw: Path, folder: Path) -> tuple[set[str], int]:
    """What voxels apart from their header are called, and how many steps the walk takes.

    Those are the files that headers name, and without its suffix the path of each header that does not tell.
    """
    parts: set[str] = set()
    total = 0
    for here, entry in walk(raw, folder, lambda path, error: None):
        total += 1
        suffix = suffix_of(Path(entry.name)) if entry is not None else ""
        if not suffix:
            continue
        path = os.path.join(here, entry.name)
        try:
            parts |= {os.path.relpath(file, raw) for file in files_of(raw / path, raw)[1:]}
        except Refusal:
            # The scan is refused when it is read, with this reason; the voxels beside it are taken for its own
            if suffix in DETACHED:
                parts.add(path[: -len(suffix)])
    return parts, total
