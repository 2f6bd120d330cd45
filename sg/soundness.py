"""Whether caches of patches are whole: every patch read with its checksum, every row held against the rules.

A file is checked in processes of their own (sg/isolated.py), so that whatever damage does to HDF5 costs an answer and
not the command. Fletcher's checksum, which HDF5 keeps, cannot tell a 16-bit word of ones from one of zeros; any other
change of stored bytes shows. Bytes between the stored parts belong to nothing and are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sg import console
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.isolated import bound_memory, each, memory_for
from sg.patches import PatchCache
from sg.scans import Refusal
from sg.storage import data_set, open_h5, remedy

ROWS_EACH = 2048  # patches that one process reads; some 0.5 GB at the published size
SECONDS = 1800.0  # that this may take, from a slow share
NAMED = 50  # damaged rows that are named; of the others only the number
SPLITS = (b"train", b"validation")
# The filter that keeps a checksum of each block
FLETCHER32 = h5py.h5z.FILTER_FLETCHER32


@dataclass(frozen=True)
class Checked:
    """What was found of one cache."""

    path: Path
    patches: int | None  # that there are; None where the file itself cannot be used
    damage: dict[int, str]  # row -> what is wrong with it or its patch
    reason: str  # why the file itself cannot be used; empty where it can

    @property
    def good(self) -> int:
        """Patches in which nothing is wrong, nor in their rows."""
        return 0 if self.patches is None else self.patches - len(self.damage)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong at all."""
        return not self.reason and not self.damage


def check(paths: Sequence[Path], workers: int) -> list[Checked]:
    """Check each cache once, in the order given, with at most `workers` processes.

    InputError for a path that is no file; PermissionError for one that may not be read.
    """
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if not path.is_file():
            what = "is a folder; name the .h5 files in it" if path.is_dir() else "there is no such file"
            raise InputError(f"{shown(path)}: {what}")
        path.open("rb").close()
    structures = list(each(_in_bounds, [(structure, path) for path in paths], workers, SECONDS))
    return [_check_patches(path, found, workers) for path, found in zip(paths, structures, strict=True)]


def lines(checked: Checked) -> Iterator[str]:
    """What to tell a person of one cache."""
    path = shown(checked.path)
    if checked.reason:
        yield f"{path}: no patch can be vouched for: {shown(checked.reason)}"
        return
    damaged = f", {len(checked.damage)} damaged" if checked.damage else ""
    yield f"{path}: {checked.good} of {checked.patches} patches good{damaged}"
    for row in sorted(checked.damage)[:NAMED]:
        yield f"  row {row}: {shown(checked.damage[row])}"
    if len(checked.damage) > NAMED:
        yield f"  and {len(checked.damage) - NAMED} more rows"
    if checked.damage:
        yield f"  {remedy(checked.path)}"


def _check_patches(path: Path, found: tuple[int, dict[int, str]] | Refusal, workers: int) -> Checked:
    """The cache whose structure was found so: the reason against it, or its number of rows with the damaged ones."""
    if isinstance(found, Refusal):
        return Checked(path, None, {}, found.reason)
    patches, damage = found
    starts = range(0, patches, ROWS_EACH)
    jobs = [(damaged_patches, path, start, min(start + ROWS_EACH, patches)) for start in starts]
    answers = each(_in_bounds, jobs, workers, SECONDS)
    for (*_, start, stop), answer in console.track(
        zip(jobs, answers, strict=True), f"checking {path.name}", len(jobs), "blocks"
    ):
        if isinstance(answer, Refusal):  # whichever of them it was
            answer = dict.fromkeys(range(start, stop), answer.reason)
        damage = answer | damage
    return Checked(path, patches, damage, "")


# --------------------------------------------------------------------------------- in their processes


def _in_bounds(look: Callable[..., Any], path: Path, *more: int) -> Any:
    """What `look(path, *more)` says, in no more memory than the file explains."""
    bound_memory(memory_for(path.stat().st_size))
    return look(path, *more)


def structure(path: Path) -> tuple[int, dict[int, str]]:
    """The number of rows, and the rows that break a rule. Refusal if the file is not a whole cache."""
    cache = PatchCache(path)
    try:
        with open_h5(path) as file:
            stored = data_set(file, path, "patches", np.int16, 4), data_set(file, path, "rows", np.void, 1)
            problem = next(filter(None, (_misplaced(part, path.stat().st_size) for part in stored)), "")
        if problem:
            raise Refusal("damaged", problem)
        return len(cache), _broken_rows(cache.rows, cache.patterns)
    except InputError as error:
        raise Refusal("damaged", _without(path, error)) from None


def damaged_patches(path: Path, start: int, stop: int) -> dict[int, str]:
    """Of the rows from `start` to before `stop` those whose patch cannot be read or has impossible values, and why."""
    cache, damage = PatchCache(path), {}
    low, high = np.rint(cache.hu_min), np.rint(cache.hu_max)
    patch = np.empty((1, *cache.patch_size), np.int16)
    for row in range(start, stop):
        try:
            cache.read([row], patch)
        except InputError:
            facts = cache.rows[row]
            scan = (
                f" of scan {facts['scan'].decode(errors='backslashreplace')}, corner {facts['corner'].tolist()},"
                if facts["scan"]
                else ""
            )
            damage[row] = f"its patch{scan} is damaged: its checksum fails or its block cannot be read"
            continue
        if patch.min() < low or patch.max() > high:
            damage[row] = (
                f"its values must lie in {low:g} to {high:g} HU, to which the scans were clipped, got {patch.min()} to "
                f"{patch.max()}"
            )
    return damage


def _without(path: Path, error: InputError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _misplaced(stored: h5py.Dataset, file_size: int) -> str:
    """What is wrong with the blocks of a data set: outside the file, two in one place, or spared their checksum."""
    if stored.size == 0 or stored.chunks is None:
        return "" if stored.size == 0 else f"{stored.name} must be kept in blocks with checksums"
    plist = stored.id.get_create_plist()
    position = next(
        (i for i in range(plist.get_nfilters()) if plist.get_filter(i)[0] == FLETCHER32),
        None,
    )
    if position is None:
        return f"{stored.name} must be kept in blocks with checksums"
    places: list[tuple[int, int]] = []
    spared = []

    # h5py stops at the first answer that is not None
    def look(chunk: h5py.h5d.StoreInfo) -> None:
        places.append((chunk.byte_offset, chunk.size))
        if chunk.filter_mask & 1 << position:
            spared.append(chunk.chunk_offset[0])

    stored.id.chunk_iter(look)
    if spared:
        return (
            f"the block of {stored.name} at row {min(spared)} must have a checksum, it is stored without one"
        )
    at, size = np.array(sorted(places), np.uint64).T
    if at[-1] + size[-1] > file_size or (at[1:] < at[:-1] + size[:-1]).any():
        return f"every block of {stored.name} must have a place of its own in the file, they overlap or lie beyond its end"
    return ""


def _broken_rows(rows: np.ndarray, patterns: int) -> dict[int, str]:
    """Rows (sg.patches.ROW, n) that say what cannot be, each with the first rule that it breaks.

    A row may leave open where its patch was cut, all of it: no scan, corner -1, and extents of -1 where unknown.
    """
    labelled = f"0 to {patterns - 1}" if patterns else "-1, that of random sub-volumes"
    known = rows["scan"] != b""
    least, most = (0, patterns - 1) if patterns else (-1, -1)
    corner, extent = rows["corner"], rows["extent"]
    rules = [
        ((rows["pattern"] < least) | (rows["pattern"] > most), "pattern", f"its pattern must be {labelled}"),
        (rows["rank"] < -1, "rank", "its rank must be at least 0, or -1 where it has none"),
        (rows["resolution"] < 0, "resolution", "its resolution must be at least 0"),
        (~np.isin(rows["split"], SPLITS), "split", "its split must be train or validation"),
        (known & ~_names(rows["scan"]), "scan", "its scan must be 12 hexadecimal digits"),
        (known & (corner < 0).any(axis=1), "corner", "its corner must lie inside the scan"),
        (known & (extent < 1).any(axis=1), "extent", "its extent must be at least 1"),
        (~known & (corner != -1).any(axis=1), "corner", "without a scan its corner must be -1"),
        (
            ~known & ((extent < 1) & (extent != -1)).any(axis=1),
            "extent",
            "its extent must be at least 1, or -1",
        ),
        (_in_two(rows["patient"], rows["split"]), "patient", "its patient is in the other split elsewhere"),
        (_in_two(rows["scan"], rows["patient"]), "scan", "its scan is another patient's elsewhere"),
    ]
    damage: dict[int, str] = {}
    for broken, name, rule in rules:
        for row in np.flatnonzero(broken).tolist():
            value = rows[name][row]
            got = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value.tolist()
            damage.setdefault(row, f"{rule}, got {got!r}")
    return damage


def _names(scans: np.ndarray) -> np.ndarray:
    """Which of many names, S12 (n,), are 12 hexadecimal digits, as boolean (n,)."""
    letters = np.ascontiguousarray(scans).view(np.uint8).reshape(-1, scans.dtype.itemsize)
    return np.isin(letters, np.frombuffer(b"0123456789abcdef", np.uint8)).all(axis=1)


def _in_two(names: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows (n,) whose name, unless empty, stood in another group in an earlier row."""
    _, first, which = np.unique(names, return_index=True, return_inverse=True)
    return (names != b"") & (groups != groups[first[which]])
