"""From resampled scans to caches of patches: pattern crops into one, random sub-volumes into the other."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from sg import console, logs
from sg.admissible import Zyx, admissible_in, draw
from sg.cohorts.records import ScanRow
from sg.compiled import compiled
from sg.errors import InputError
from sg.params import Patches
from sg.patches import ROW, CacheWriter
from sg.randomness import generator
from sg.resampled import read_resampled
from sg.roles import PRETRAIN, Role
from sg.threads import ahead

Made = TypeVar("Made")
Box = tuple[Sequence[int], Sequence[int]]  # corner and extent (z, y, x)


# Patches that are cut together, and then written: few enough to stay in the cache.
BATCH_BYTES = 4 * 2**20
# Added to a float32 below 2^22 and taken away again, it leaves a whole number, halves to even. np.rint is a call.
EVEN = np.float32(1.5 * 2**23)


def cut(
    image: np.ndarray, corner: Sequence[int], extent: Sequence[int], size: Zyx, out: np.ndarray | None = None
) -> np.ndarray:
    """The box of an int16 image (z, y, x), resized to `size` where its extent differs; int16, rounded, ties to even.

    Linear along each axis, voxel centres aligned, only from voxels of the box (its outermost ones reach over the
    edge), no smoothing before a reduction. Into `out`, int16 of that size, if it is given. ValueError if the box leaves
    the image.
    """
    stops = [c + e for c, e in zip(corner, extent, strict=True)]
    if any(c < 0 or stop > side for c, stop, side in zip(corner, stops, image.shape, strict=True)):
        raise ValueError(f"the box from {list(corner)} to {stops} leaves the image {image.shape}")
    box = image[tuple(slice(c, stop) for c, stop in zip(corner, stops, strict=True))]
    if out is None:
        out = np.empty(size, np.int16)
    if box.shape == tuple(size):
        out[...] = box
    else:
        low, high, weight = zip(*map(_neighbours, box.shape, size), strict=True)
        _resize(box, *low, *high, *weight, out)
    return out


@functools.cache
def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `new` voxels along an axis of `old`: the one below, the one above, and the weight of the latter."""
    if old == new:
        low, high, weight = range(new), range(new), np.zeros(new)
    else:
        at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = np.minimum(at.astype(np.intp), max(0, old - 2))
        high, weight = np.minimum(low + 1, old - 1), at - low
    # Unsigned, for numba lets signed ones count from the end.
    return np.array(low, np.uint32), np.array(high, np.uint32), weight.astype(np.float32)


@compiled
def _resize(box, low_z, low_y, low_x, high_z, high_y, high_x, weight_z, weight_y, weight_x, out):
    """Linear resizing in float32, along z, then y, then x: a plane, a line and a voxel at a time."""
    rows, width = box.shape[1:]
    plane = np.empty((rows, width), np.float32)
    line = np.empty(width, np.float32)
    for z in range(out.shape[0]):
        weight = weight_z[z]
        for y in range(rows):
            below, above, made = box[low_z[z], y], box[high_z[z], y], plane[y]
            if weight == 0:
                for x in range(width):
                    made[x] = below[x]
            else:
                for x in range(width):
                    first = np.float32(below[x])
                    made[x] = first + (np.float32(above[x]) - first) * weight
        for y in range(out.shape[1]):
            before, behind, weight, made = plane[low_y[y]], plane[high_y[y]], weight_y[y], out[z, y]
            for x in range(width):
                line[x] = before[x] + (behind[x] - before[x]) * weight
            for x in range(out.shape[2]):
                left, right = line[low_x[x]], line[high_x[x]]
                made[x] = np.int16(((left + (right - left) * weight_x[x]) + EVEN) - EVEN)


# ------------------------------------------------------------------------------------------ both caches


@dataclass(frozen=True)
class Caches:
    """What was written."""

    patterns: int  # patches of patterns
    random: int  # random sub-volumes
    scans: int
    warnings: list[str]


@dataclass(frozen=True)
class _Opened:
    image: np.ndarray
    clip: tuple[float, float]
    counts: dict[str, int]  # of positions, in all and refused by each rule
    boxes: list[Box]  # of the crops, then of random sub-volumes


@dataclass(frozen=True)
class _Batch:
    clip: tuple[float, float]  # of the scan
    counts: dict[str, int]  # of its positions
    boxes: list[Box]
    patches: np.ndarray  # int16 (n, z, y, x), one a box


def write_caches(
    folder: Path,
    crops: np.ndarray,
    patterns: int,
    patch_size: Zyx,
    learned: Sequence[ScanRow],
    stopping: Sequence[ScanRow],
    resampled: Path,
    settings: Patches,
    seed: int,
    workers: int,
) -> Caches:
    """Write patterns.h5, random.h5 and metrics.json into `folder`; each resampled scan is opened once.

    `crops` (sg.crops.CROP) of `patterns` patterns keep their order in patterns.h5. random.h5 has, of every scan in
    `learned` and `stopping` (those that may be learned from and stopped by in pre-training), `sub_volumes` corners
    (of the latter `sub_volumes_validation`) drawn uniformly among the admissible ones, none twice, sorted by scan; it
    depends on `patch_size` but on no coordinate. A scan with fewer admissible corners gives those it has, and is
    counted. Workers read and cut, the caller writes: at most `workers` + 1 scans are in memory and twice as many batches
    of patches as workers, however many patches there are. InputError if a split has no admissible corner at all, scans
    were clipped differently, or a crop is of any other scan.
    """
    facts = {row.scan: row for row in (*learned, *stopping)}
    role_of: dict[str, Role] = dict.fromkeys(facts, "early_stopping")
    role_of |= dict.fromkeys((row.scan for row in learned), "pretrain")
    wanted = {"pretrain": settings.sub_volumes, "early_stopping": settings.sub_volumes_validation}
    by_scan = _crops_by_scan(crops, facts)

    scans = sorted(by_scan)
    starts = {
        scan: range(0, len(by_scan[scan]) + wanted[role_of[scan]], _patches_together(patch_size))
        for scan in scans
    }

    def opened(scan: str) -> _Opened:
        logs.opened(scan, role_of[scan], PRETRAIN)
        volume = read_resampled(resampled / f"{scan}.h5")
        allowed = admissible_in(volume.image, patch_size, settings.rule)
        drawn = draw(allowed, wanted[role_of[scan]], generator(seed, "patches", scan, "sub-volumes"))
        laid = crops[by_scan[scan]]
        boxes = [*zip(laid["corner"].tolist(), laid["extent"].tolist(), strict=True)]
        boxes += [(corner, patch_size) for corner in drawn]
        return _Opened(volume.image, (volume.hu_min, volume.hu_max), allowed.counts, boxes)

    def batch(source: _Once[_Opened], start: int, stop: int) -> _Batch:
        found = source()
        boxes = found.boxes[start:stop]
        patches = np.empty((len(boxes), *patch_size), np.int16)
        for (corner, extent), patch in zip(boxes, patches, strict=True):
            cut(found.image, corner, extent, patch_size, patch)
        return _Batch(found.clip, found.counts, boxes, patches)

    def jobs() -> Iterator[Callable[[], _Batch | _Opened]]:
        """Each scan is opened before the patches of the one before are cut, so that nobody waits for it."""
        coming = [_Once(partial(opened, scan)) for scan in scans[:1]]
        yield from coming
        for here, following in zip_longest(scans, scans[1:]):
            source = coming.pop()
            if following:
                coming.append(_Once(partial(opened, following)))
                yield coming[0]
            for start in starts[here]:
                yield partial(batch, source, start, start + starts[here].step)

    short, random_rows, clip = [], [], None
    tally: dict[str, Counter] = defaultdict(Counter)
    with (
        CacheWriter(folder / "patterns.h5", len(crops), patch_size, settings.compression) as of_patterns,
        CacheWriter(
            folder / "random.h5",
            sum(wanted[role] for role in role_of.values()),
            patch_size,
            settings.compression,
        ) as of_random,
    ):
        # Threads, because volumes need not be sent to them, and reading and compiled loops let go of the lock.
        work = ahead(lambda job: job(), jobs(), workers if workers > 1 else 0, 2 * workers)
        made = (result for result in work if isinstance(result, _Batch))
        for scan in console.track(scans, "cutting patches", len(scans), "scans"):
            indices, drawn = iter(by_scan[scan]), 0
            for found in islice(made, len(starts[scan])):
                if (clip := clip or found.clip) != found.clip:
                    raise InputError(
                        f"{resampled / scan}.h5: all scans must be clipped alike, at {list(clip)} HU, got "
                        f"{list(found.clip)}; run `dvc repro resample`"
                    )
                for (corner, _), patch in zip(found.boxes, found.patches, strict=True):
                    if (index := next(indices, None)) is not None:
                        of_patterns.write(index, patch)
                    else:
                        of_random.write(len(random_rows), patch)
                        random_rows.append(_random_row(facts[scan], corner, patch_size))
                        drawn += 1
            tally[facts[scan].split].update(found.counts)
            if drawn < wanted[role_of[scan]]:
                short.append((scan, drawn))
        rows = np.array(random_rows, ROW)
        _some_in_each(rows, {"train": learned, "validation": stopping}, settings, tally)
        of_patterns.finish(_pattern_rows(crops), *clip, patterns)
        of_random.finish(rows, *clip, 0)
    done = Caches(len(crops), len(rows), len(by_scan), _shortage(short, facts))
    figures = {
        "patterns": done.patterns,
        "random": done.random,
        "scans": done.scans,
        "warnings": done.warnings,
    }
    text = json.dumps(figures, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    return done


def _crops_by_scan(crops: np.ndarray, facts: dict[str, ScanRow]) -> dict[str, list[int]]:
    """Numbers of the crops in each of the scans; InputError for a crop that is of none of them, or of another split."""
    by_scan: dict[str, list[int]] = {scan: [] for scan in facts}
    for index, (scan, split) in enumerate(zip(crops["scan"].tolist(), crops["split"].tolist(), strict=True)):
        name = scan.decode()
        if name not in facts or facts[name].split != split.decode():
            raise InputError(
                f"data/coordinates/crops.csv: pattern {crops[index]['pattern']} has a crop of scan {name} for "
                f"{split.decode()}, for which data/cohort/roles.csv does not give it; run `dvc repro coordinates`"
            )
        by_scan[name].append(index)
    return by_scan


def _pattern_rows(crops: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(crops), ROW)
    for name in ROW.names:
        rows[name] = crops[name]
    return rows


def _random_row(scan: ScanRow, corner: Zyx, size: Zyx) -> tuple:
    return (-1, -1, 0, scan.scan.encode(), scan.patient.encode(), scan.split.encode(), corner, tuple(size))


def _some_in_each(
    rows: np.ndarray, scans: dict[str, Sequence[ScanRow]], settings: Patches, tally: dict[str, Counter]
) -> None:
    for split, those in scans.items():
        if not np.isin(rows["scan"], [row.scan.encode() for row in those]).any():
            refused = ", ".join(
                f"{rule} {tally[split][rule]}" for rule in ("border", "tissue_min", "tissue_max")
            )
            raise InputError(
                f"patches.rule: no position in any of {len(those)} {split} scans satisfies it (border "
                f"{list(settings.rule.border)}, tissue {settings.rule.tissue_min:g} to {settings.rule.tissue_max:g} at or "
                f"over {settings.rule.tissue_hu:g} HU). Of {tally[split]['positions']} positions the rules refused: "
                f"{refused}. Make the border smaller or the range of tissue wider"
            )


def _shortage(short: list[tuple[str, int]], facts: dict[str, ScanRow]) -> list[str]:
    if not short:
        return []
    named = ", ".join(f"{scan} ({count})" for scan, count in short[:5]) + (", ..." if len(short) > 5 else "")
    return [
        f"in {len(short)} of {len(facts)} scans patches.rule admits fewer positions than sub-volumes are asked for; "
        f"all of them were taken: {named}"
    ]


def _patches_together(size: Zyx) -> int:
    return max(1, BATCH_BYTES // (2 * math.prod(size)))


class _Once(Generic[Made]):
    """The result of a function, made by the first who asks, while others wait."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make, self._lock, self._made = make, Lock(), None

    def __call__(self) -> Made:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made
