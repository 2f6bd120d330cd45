"""What MetaImage and NRRD have in common: headers of text, numbers in them, and data files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sg.formats.files import AGAIN, Refusal

HEADER_MAX = 1 << 20  # bytes
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"[-+.0-9eE]+")


def check_text(header: bytes) -> None:
    """Refuse a header with bytes that no text has; letters of any encoding are fine."""
    found = _NO_TEXT.search(header)
    if found:
        raise Refusal(
            "damaged",
            f"The header is a text, but its byte {found.start():,} is no character (0x{found.group()[0]:02x}); {AGAIN}.",
        )


def numbers(words: list[str]) -> list[float]:
    """The finite numbers that all words are; an empty list if one is none."""
    try:
        values = [float(word) for word in words if _NUMBER.fullmatch(word)]
    except ValueError:
        return []
    return values if len(values) == len(words) and np.isfinite(values).all() else []


def named_file(path: Path, name: str) -> Path:
    """The data file that the header `path`, read as Latin-1, calls `name`. Refusal of one outside the header's folder."""
    if "\0" in name or "\\" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise Refusal(
            "outside-folder", f"The header names the data file {name[:120]!r}, outside its own folder."
        )
    try:
        return path.parent / name.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return path.parent / name
