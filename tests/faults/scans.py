"""Damage small scans of every format, and see what reading makes of them.

    python -m tests.faults.scans --count 2000

Each outcome is one of: *same* voxels and geometry (to 1e-3 mm); *refused* with a rule and a reason; or *different*. A
different scan is a failure, but where nothing in the format can tell: bodies without a checksum, the header fields of
`UNTOLD`, each with its reason, another scan's voxels of the same size, and the first and last slices of a series.
Whether a damage hit only such places is decided by putting just them back: what then still reads as a different scan is
a failure. So is another number of voxels, a warning, or any exception but a refusal. After a first reading the sha256
of scans.csv tells every damage, those too.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sg.formats.headers import by
from sg.isolated import each
from sg.params import Limits
from sg.scans import Place, Refusal, Scan, digest, files_of, read_scan
from tests.faults.damages import ANYWHERE, OF_A_PLACE
from tests.faults.formats import FORMATS, SHAPE, UNTOLD, Format
from tests.scan_files import ct

OTHER_SHAPE = (SHAPE[0], SHAPE[1], SHAPE[2] + 2)
LIMITS = Limits(
    spacing_mm=(0.1, 10.0),
    slices_min=3,
    extent_min_mm=10.0,
    voxels_max=2**20,
    air_share_min=0.05,
    distinct_min=64,
)
BATCH = 50  # damages in one process
SECONDS = 120.0  # for a batch
SAME_MM = 1e-3  # how far the corners of the same grid may be apart
OUTCOMES = ("same", "refused", "different", "cannot be told")
PARTS = ("header bit", "header bytes", "body bit", "body bytes")
LYING, OTHERS, MISSING, LINK = ("lying header", "other scan's file", "missing file", "link out of the folder")


@dataclass
class Whole:
    """An undamaged scan on disk and in memory."""

    format: Format
    root: Path
    place: Place
    contents: dict[Path, bytes]  # of its files; those of a series along z
    scan: Scan
    sha256: str
    others: list[list[bytes]]  # contents of the files of a scan of equal size, and of another

    def without(self, damaged: Damaged) -> Place:
        """The place as a folder would give it again: without a slice that is no longer there."""
        if not self.format.in_many_files or damaged.content is not None or damaged.link:
            return self.place
        return tuple(path for path in self.place if path != damaged.path)

    def restore(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(self.contents[path])


@dataclass(frozen=True)
class Damaged:
    """What became of one file of a scan."""

    path: Path
    content: bytes | None  # None: no longer a file
    link: bool = False  # to the same bytes outside of the folder
    untold: str = ""  # why nothing at all can tell


@dataclass
class Tally:
    """What came of a format's damages."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (damage, outcome)
    rules: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    unnoticed: list[str] = field(default_factory=list)  # by the sha256

    def add(self, other: Tally) -> None:
        self.outcomes.update(other.outcomes)
        self.rules.update(other.rules)
        self.failures += other.failures
        self.unnoticed += other.unnoticed


# ------------------------------------------------------------------------------------------------ damage


def kinds(format: Format) -> tuple[str, ...]:
    """What can happen to a scan of this format. The whole file of another scan is a whole scan, not damage."""
    others = (OTHERS,) if format.data or format.in_many_files else ()
    return (*ANYWHERE, *PARTS, LYING, *others, MISSING, LINK)


def damage(kind: str, whole: Whole, rng: np.random.Generator) -> Damaged:
    """One file of the scan, damaged."""
    paths = list(whole.contents)
    path = paths[rng.integers(len(paths))]
    if kind in ANYWHERE:
        return Damaged(path, ANYWHERE[kind](whole.contents[path], rng))
    if kind in PARTS:
        return _in_part(*kind.split(), whole, rng)
    if kind == LYING:
        path = paths[0] if whole.format.data else path
        lies = list(whole.format.lies.values())
        return Damaged(path, lies[rng.integers(len(lies))](whole.contents[path]))
    if kind == OTHERS:
        return _exchanged(path, whole, rng)
    if kind == MISSING:
        last = whole.format.in_many_files and path in (paths[0], paths[-1])
        return Damaged(path, None, untold="nothing says how many slices there were" if last else "")
    return Damaged(path, None, link=True)


def _in_part(part: str, what: str, whole: Whole, rng: np.random.Generator) -> Damaged:
    """A bit or a few bytes of a file's header or of its body changed."""
    bounds = {}
    for path, content in whole.contents.items():
        end = whole.format.header(path, content)
        bounds[path] = (0, end) if part == "header" else (end, len(content))
    paths = [path for path, (start, stop) in bounds.items() if start < stop]
    path = paths[rng.integers(len(paths))]
    content, (start, stop) = whole.contents[path], bounds[path]
    return Damaged(path, content[:start] + OF_A_PLACE[what](content[start:stop], rng) + content[stop:])


def _exchanged(path: Path, whole: Whole, rng: np.random.Generator) -> Damaged:
    """A slice of another series, or another scan's voxels under a header."""
    number = int(rng.integers(len(whole.others)))
    paths = list(whole.contents)
    if whole.format.in_many_files:
        return Damaged(path, whole.others[number][paths.index(path)])
    why = "" if number else "nothing ties a data file to its header but its size"
    return Damaged(paths[-1], whole.others[number][-1], untold=why)


# ----------------------------------------------------------------------------------------------- running


def write(format: Format, folder: Path) -> Whole:
    """A whole scan of the format below the folder, and two others elsewhere."""
    root = folder / "raw"
    place = format.write(root, ct(0, SHAPE))
    paths = files_of(place, root)
    others = []
    for number, shape in enumerate((SHAPE, OTHER_SHAPE)):
        home = folder / f"other{number}"
        other = files_of(format.write(home, ct(number + 1, shape)), home)
        others.append([path.read_bytes() for path in other])
    return Whole(
        format, root, place, {path: path.read_bytes() for path in paths}, read_scan(place, root, LIMITS),
        digest(paths)[0], others,
    )  # fmt: skip


def run(name: str, count: int, seed: int = 0, workers: int = 1) -> Tally:
    """Damage a scan of the format `count` times, each time anew, all kinds of damage in turn.

    This happens in processes of their own: a decoder that breaks down over a scan costs that process, and the scan
    is refused for it, as in the pipeline.
    """
    jobs = [(name, first, min(first + BATCH, count), seed) for first in range(0, count, BATCH)]
    tally = Tally()
    while jobs:
        split = []
        for job, answer in zip(jobs, each(_batch, jobs, workers, SECONDS), strict=True):
            _, first, last, _ = job
            if isinstance(answer, Tally):
                tally.add(answer)
            elif last - first > 1:
                middle = (first + last) // 2
                split += [(name, first, middle, seed), (name, middle, last, seed)]
            else:
                tally.rules[answer.rule] += 1
                tally.outcomes[_kind(FORMATS[name], first), "refused"] += 1
        jobs = split
    return tally


def _batch(name: str, first: int, last: int, seed: int) -> Tally:
    """The damages number `first` to `last`, the latter left out."""
    tally = Tally()
    with TemporaryDirectory() as home:
        folder = Path(home)
        whole = write(FORMATS[name], folder)
        for number in range(first, last):
            kind, damaged = _damaged(whole, number, seed)
            _put(damaged, folder)
            label = f"{name}, {kind} {number} of {damaged.path.name}"
            if _unnoticed(whole, damaged):
                tally.unnoticed.append(label)
            tally.outcomes[kind, _outcome(whole, damaged, tally, label)] += 1
            whole.restore(damaged.path)
    return tally


def _kind(format: Format, number: int) -> str:
    return kinds(format)[number % len(kinds(format))]


def _damaged(whole: Whole, number: int, seed: int) -> tuple[str, Damaged]:
    kind = _kind(whole.format, number)
    rng = np.random.default_rng([seed, number])
    while True:
        damaged = damage(kind, whole, rng)
        # A block of zeros in place of zeros is no damage
        if damaged.content != whole.contents[damaged.path]:
            return kind, damaged


def _put(damaged: Damaged, folder: Path) -> None:
    if damaged.link:
        outside = folder / "outside"
        outside.write_bytes(damaged.path.read_bytes())
        damaged.path.unlink()
        damaged.path.symlink_to(outside)
    elif damaged.content is None:
        damaged.path.unlink()
    else:
        damaged.path.write_bytes(damaged.content)


def _outcome(whole: Whole, damaged: Damaged, tally: Tally, label: str) -> str:
    read = _read(whole.without(damaged), whole.root)
    if isinstance(read, Refusal):
        tally.rules[read.rule] += 1
        if not (read.rule and read.reason.endswith(".")):
            tally.failures.append(f"{label}: refused without a reason, {read}")
        return "refused"
    if isinstance(read, str):
        tally.failures.append(f"{label}: {read}")
        return "different"
    difference = _difference(whole.scan, read)
    if not difference:
        return "same"
    if damaged.untold:
        return "cannot be told"
    if damaged.content is not None and read.array.size == whole.scan.array.size:
        rounded = not whole.scan.geometry.difference(read.geometry)
        content = whole.format.put_back(damaged.path, whole.contents[damaged.path], damaged.content, rounded)
        if content != damaged.content:
            damaged.path.write_bytes(content)
            again = _read(whole.place, whole.root)
            if isinstance(again, Refusal) or (isinstance(again, Scan) and not _difference(whole.scan, again)):
                return "cannot be told"
    tally.failures.append(f"{label}: {difference}")
    return "different"


def _read(place: Place, root: Path) -> Scan | Refusal | str:
    """The scan, its refusal, or the traceback of what should never happen."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning is a refusal that was forgotten
        try:
            return read_scan(place, root, LIMITS)
        except Refusal as refusal:
            return refusal
        except Exception:
            return traceback.format_exc()


def _difference(whole: Scan, read: Scan) -> str:
    """How another scan differs, in words; empty where voxels and positions are the same."""
    if whole.geometry.size != read.geometry.size:
        return f"{by(whole.geometry.size)} against {by(read.geometry.size)} voxels"
    apart = np.linalg.norm(whole.geometry.corners_mm() - read.geometry.corners_mm(), axis=1).max()
    if apart > SAME_MM:
        return f"corners are up to {apart:.3g} mm apart"
    different = np.count_nonzero(whole.array != read.array)
    return f"{different} of {whole.array.size} voxels differ" if different else ""


def _unnoticed(whole: Whole, damaged: Damaged) -> bool:
    """Whether the second reading of a scan would take what is there for what the first has read."""
    try:
        return digest(files_of(whole.without(damaged), whole.root))[0] == whole.sha256
    except Refusal:
        return False


# ------------------------------------------------------------------------------------------------- table


def table(tallies: dict[str, Tally]) -> str:
    """Format x damage x outcome as text."""
    lines = [f"{'format':20} {'damage':24}" + "".join(f"{outcome:>16}" for outcome in OUTCOMES)]
    total: Counter[str] = Counter()
    for name, tally in tallies.items():
        for kind in kinds(FORMATS[name]):
            counts = [tally.outcomes[kind, outcome] for outcome in OUTCOMES]
            total.update(dict(zip(OUTCOMES, counts, strict=True)))
            if any(counts):
                lines.append(f"{name:20} {kind:24}" + "".join(f"{count:16,}" for count in counts))
    lines.append(f"{'all':20} {'':24}" + "".join(f"{total[outcome]:16,}" for outcome in OUTCOMES))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="damages per format")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--format", choices=list(FORMATS), action="append", help="only this one (repeat for more)"
    )
    arguments = parser.parse_args()
    tallies = {}
    for name in arguments.format or FORMATS:
        started = time.perf_counter()
        tallies[name] = run(name, arguments.count, arguments.seed, arguments.workers)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(table(tallies))
    print("\nFields that nothing in the format repeats:")
    for family, fields in UNTOLD.items():
        for key, reason in fields.items():
            print(f"  {family:18} {key:24} {reason}")
    rules = sum((tally.rules for tally in tallies.values()), Counter())
    print("\nRefused by rule: " + ", ".join(f"{rule} {count:,}" for rule, count in rules.most_common()))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    unnoticed = [label for tally in tallies.values() for label in tally.unnoticed]
    print(f"\n{len(failures)} failures; {len(unnoticed)} damages that the sha256 does not tell")
    print("\n".join([*failures, *unnoticed]))
    return bool(failures or unnoticed)


if __name__ == "__main__":
    sys.exit(main())
