"""A plain folder of scans, however deep; and what any layout does with the files that it finds.

No file is passed over in silence: it is a scan, part of one, known to hold none (and counted), or set aside with a
reason. Links to folders are not followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sg.cohorts.records import Entry
from sg.errors import InputError
from sg.formats import metaimage
from sg.formats.files import check_file
from sg.params import Source
from sg.scans import Refusal, files_of, stem_of, suffix_of

TRUTH = "truth"  # of phantoms: <stem>.h5
KNOWN = {
    ".bib", ".bmp", ".bval", ".bvec", ".css", ".csv", ".doc", ".docx", ".dvc", ".gif", ".gitignore",
    ".htm", ".html", ".ini", ".ipynb", ".jpeg", ".jpg", ".json", ".jsonl", ".log", ".md", ".md5", ".odt",
    ".pdf", ".png", ".ppt", ".pptx", ".ps1", ".py", ".rst", ".rtf", ".sh", ".sha1", ".sha256", ".svg",
    ".tex", ".toml", ".tsv", ".txt", ".url", ".webp", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
}  # fmt: skip
KNOWN_NAMES = {
    "authors", "changelog", "copying", "license", "licence", "md5sums", "notice", "readme", "sha256sums",
    "thumbs.db",
}  # fmt: skip
DICOM = (".dcm", ".dicom", ".ima")
VOXELS = (".raw", ".zraw")
READ = "this version reads NIfTI (.nii, .nii.gz) and MetaImage (.mha, .mhd)"


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


def list_folder(raw: Path, source: Source) -> Listing:
    """Every scan below the source's folder; a patient is a file's name without its suffix. Paths are sorted."""
    listing = survey(raw, Path(source.path))
    names = Counter(entry.patient for entry in listing.entries)
    for name, count in sorted(names.items()):
        if count > 1:
            listing.warnings.append(
                f"{count} files in {source.path} are named {name}, so they count as one patient; if they are not, say whose "
                "they are in a CSV file (the source's `patients`)"
            )
    return listing


def survey(raw: Path, folder: Path) -> Listing:
    """All files below `raw / folder`, sorted out by what they are."""
    listing = Listing()
    dicom: Counter[Path] = Counter()
    files = _walk(raw, folder, listing)
    scans = [path for path in files if suffix_of(path)]
    voxels = _voxel_files(raw, scans)
    for path in files:
        suffix = path.suffix.lower()
        if _undecodable(path):
            listing.refused.append(Refused(path, "name", "The file's name is not valid UTF-8; rename it."))
        elif not str(path).isprintable():
            listing.refused.append(
                Refused(
                    path,
                    "name",
                    "The name of the file or of its folder holds characters that cannot be shown; rename it.",
                )
            )
        elif path.name.startswith("."):
            listing.ignored["hidden"] += 1
        elif suffix_of(path):
            listing.entries.append(Entry(path, stem_of(path), None, None, None))
        elif path in voxels:
            continue
        elif suffix in VOXELS:
            listing.refused.append(
                Refused(path, "format", "These are bare voxels that no header (.mhd) here names.")
            )
        elif suffix in KNOWN or path.name.lower() in KNOWN_NAMES:
            listing.ignored[suffix.removeprefix(".") or path.name.lower()] += 1
        elif suffix in DICOM or path.name.upper() == "DICOMDIR" or _is_dicom(raw / path):
            dicom[path.parent] += 1
        else:
            listing.refused.append(Refused(path, "format", _unread(path, suffix)))
    for parent, count in dicom.items():
        what = "1 DICOM file" if count == 1 else f"{count} DICOM files"
        listing.refused.append(Refused(parent, "format", f"The folder holds {what}; {READ}."))
    listing.refused.sort(key=lambda refused: str(refused.path))
    return listing


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


def _walk(raw: Path, folder: Path, listing: Listing) -> list[Path]:
    """All files below a folder, relative to raw, sorted; links to folders and what cannot be listed are set aside."""

    def unlisted(error: OSError) -> None:
        words = (error.strerror or "for an unknown reason").lower()
        path = Path(os.fsdecode(error.filename)).relative_to(raw)
        listing.refused.append(Refused(path, "unreadable", f"The folder cannot be listed: {words}."))

    found = []
    for parent, folders, names in os.walk(raw / folder, onerror=unlisted):
        here = Path(parent).relative_to(raw)
        if here == folder / TRUTH:
            listing.ignored[TRUTH] += len(names)
            folders.clear()
            continue
        for name in folders:
            if (raw / here / name).is_symlink():
                reason = "This is a link to a folder, and links are not followed; put the folder itself here."
                listing.refused.append(Refused(here / name, "link", reason))
        found += [here / name for name in names]
    return sorted(found)


def _undecodable(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _voxel_files(raw: Path, scans: Sequence[Path]) -> set[Path]:
    """Files that belong to the header of another: those it names, and those of its name beside it."""
    named = set()
    for path in scans:
        if suffix_of(path) in metaimage.SUFFIXES:
            named |= {path.with_suffix(suffix) for suffix in VOXELS}
            try:
                named |= {file.relative_to(raw) for file in files_of(raw / path, raw)[1:]}
            except Refusal:
                continue  # the scan is refused when it is read, with this reason
    return named


def _is_dicom(path: Path) -> bool:
    """Whether a file of any name begins as DICOM files do (PS3.10: 128 bytes, then DICM)."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _unread(path: Path, suffix: str) -> str:
    if suffix in (".nrrd", ".nhdr"):
        return f"The file is in NRRD format; {READ}."
    if suffix in (".hdr", ".img"):
        return f"The file is half of a pair (.hdr and .img), as Analyze and old NIfTI have it; {READ}."
    return f"The file is of no known format ({suffix or 'no suffix'}); {READ}."
