"""Walking through a folder of any number of files, and remembering what was set aside on the way, in bounded memory."""

from __future__ import annotations

import os
from bisect import insort
from collections.abc import Callable, Iterator
from pathlib import Path

LISTED = 100  # paths of a kind that are remembered
KINDS = 50
OTHER = "other kinds"
OPEN_FOLDERS = 100  # one inside the other; a process may open some thousand files

Row = tuple[str, str, str]  # path, rule, reason


def walk(
    raw: Path, folder: Path, unlisted: Callable[[str, OSError], None]
) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    """All that lies below `raw / folder`, other than folders, each with the folder that it lies in.

    None stands behind the last of each folder. Folders are relative to raw ("" is raw itself) and come as the file
    system lists them; links to folders are not followed. `unlisted` is told of folders that cannot be listed.
    """
    way: list[tuple[str, Iterator[os.DirEntry[str]]]] = []

    def enter(path: str) -> None:
        try:
            entries = os.scandir(raw / path)
            # Every folder on the way stays open. Where that would be too many, what lies in it is held instead.
            way.append((path, entries if len(way) < OPEN_FOLDERS else iter(list(entries))))
        except OSError as error:
            unlisted(path, error)

    enter("" if folder == Path() else str(folder))
    while way:
        here, entries = way[-1]
        try:
            entry = next(entries, None)
        except OSError as error:
            unlisted(here, error)
            entry = None
        if entry is not None and leads_to_folder(entry, through_links=False):
            enter(os.path.join(here, entry.name))
            continue
        if entry is None:
            way.pop()
        yield here, entry


def leads_to_folder(entry: os.DirEntry[str], through_links: bool) -> bool:
    """Whether an entry is a folder, or with `through_links` a link to one; no for links that lead nowhere."""
    try:
        return entry.is_dir(follow_symlinks=through_links)
    except OSError:
        return False


def shown(path: str | Path) -> str:
    """A path as text that can be written into a table, whatever bytes its name is made of."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Aside:
    """What is set aside: of each kind the first paths, of the kinds the first by name; all others are counted only.

    What is remembered does not depend on the order in which files come.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._other = _Kind()

    def add(self, kind: str, row: Row) -> None:
        if kind not in self._kinds and len(self._kinds) == KINDS:
            last = max(self._kinds)
            if kind > last:
                self._other.add(row)
                return
            self._other.join(self._kinds.pop(last))
        self._kinds.setdefault(kind, _Kind()).add(row)

    def rows(self) -> list[Row]:
        """What is remembered."""
        return [row for _, kind in self._named() for row in kind.rows]

    def counts(self) -> list[tuple[str, int, int]]:
        """Kinds of which not all paths are remembered: name, number of files, and how many of them are not."""
        return [
            (name, kind.count, kind.count - len(kind.rows))
            for name, kind in self._named()
            if kind.count > len(kind.rows)
        ]

    def _named(self) -> list[tuple[str, _Kind]]:
        return [*sorted(self._kinds.items()), (OTHER, self._other)]


class _Kind:
    def __init__(self) -> None:
        self.rows: list[Row] = []  # sorted
        self.count = 0

    def add(self, row: Row) -> None:
        self.count += 1
        if len(self.rows) < LISTED or row < self.rows[-1]:
            insort(self.rows, row)
            del self.rows[LISTED:]

    def join(self, kind: _Kind) -> None:
        """Add what another kind has seen."""
        for row in kind.rows:
            self.add(row)
        self.count += kind.count - len(kind.rows)
