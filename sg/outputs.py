"""Files that a command writes where the user says: whole or not at all, and never over what is there unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sg.cohorts.walking import shown
from sg.errors import InputError


def check_free(path: Path, force: bool) -> None:
    """InputError if a file cannot be put at `path`: its folder is missing, or something is there and not to be replaced.

    A command with much to do asks this first.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"{shown(path)}: there is no folder {shown(path.parent)} to put it in; make it first"
        )
    if path.is_dir():
        raise InputError(f"{shown(path)}: is a folder; name a file to write")
    if os.path.lexists(path) and not force:
        raise InputError(f"{shown(path)}: is there already; give another name, or --force to replace it")


@contextmanager
def whole(path: Path, force: bool) -> Iterator[Path]:
    """Where to write what shall lie at `path`; it is put there when the body succeeds, and removed when it fails.

    InputError as `check_free`, before the body and again after it.
    """
    check_free(path, force)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        check_free(path, force)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
