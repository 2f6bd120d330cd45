"""From resampled scans to caches of patches: pattern crops into one, random sub-volumes into the other."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sg import console, logs
from sg.admissible import Zyx, admissible, draw
from sg.cohorts.records import ScanRow
from sg.errors import InputError
from sg.params import Patches
from sg.patches import ROW, CacheWriter
from sg.randomness import generator
from sg.resampled import Resampled, read_resampled
from sg.roles import PRETRAIN, Role

Item = TypeVar("Item")
Result = TypeVar("Result")


def cut(image: np.ndarray, corner: Sequence[int], extent: Sequence[int], size: Zyx) -> np.ndarray:
    """The box of an int16 image (z, y, x), resized to `size` where its extent differs; int16, rounded, ties to even.

    Linear along each axis, voxel centres aligned, only from voxels of the box (its outermost ones reach over the
    edge), no smoothing before a reduction. ValueError if the box leaves the image.
    """
    stops = [c + e for c, e in zip(corner, extent, strict=True)]
    if any(c < 0 or stop > side for c, stop, side in zip(corner, stops, image.shape, strict=True)):
        raise ValueError(f"the box from {list(corner)} to {stops} leaves the image {image.shape}")
    box = image[tuple(slice(c, stop) for c, stop in zip(corner, stops, strict=True))]
    if box.shape == tuple(size):
        return np.ascontiguousarray(box)
    values = box.astype(np.float32)
    for axis, (old, new) in enumerate(zip(box.shape, size, strict=True)):
        if old != new:
            values = _resized(values, axis, old, new)
    return np.rint(values).astype(np.int16)


def _resized(values: np.ndarray, axis: int, old: int, new: int) -> np.ndarray:
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    low = np.minimum(at.astype(np.intp), max(0, old - 2))
    weight = (at - low).astype(np.float32).reshape([new if i == axis else 1 for i in range(3)])
    below = np.take(values, low, axis)
    return below + (np.take(values, np.minimum(low + 1, old - 1), axis) - below) * weight


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
    scan: str
    volume: Resampled
    corners: list[Zyx]  # of random sub-volumes


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
    counted. At most `workers` + 1 scans are in memory. InputError if a split has no admissible corner at all, scans
    were clipped differently, or a crop is of any other scan.
    """
    facts = {row.scan: row for row in (*learned, *stopping)}
    role_of: dict[str, Role] = dict.fromkeys(facts, "early_stopping")
    role_of |= dict.fromkeys((row.scan for row in learned), "pretrain")
    wanted = {"pretrain": settings.sub_volumes, "early_stopping": settings.sub_volumes_validation}
    by_scan = _crops_by_scan(crops, facts)

    def opened(scan: str) -> _Opened:
        logs.opened(scan, role_of[scan], PRETRAIN)
        volume = read_resampled(resampled / f"{scan}.h5")
        allowed = admissible(volume.image >= settings.rule.tissue_hu, patch_size, settings.rule)
        corners = draw(allowed, wanted[role_of[scan]], generator(seed, "patches", scan, "sub-volumes"))
        return _Opened(scan, volume, corners)

    short, random_rows, clip = [], [], None
    with (
        CacheWriter(folder / "patterns.h5", len(crops), patch_size, settings.compression) as of_patterns,
        CacheWriter(
            folder / "random.h5",
            sum(wanted[role] for role in role_of.values()),
            patch_size,
            settings.compression,
        ) as of_random,
    ):
        work = _ahead(opened, sorted(by_scan), workers)
        for found in console.track(work, "cutting patches", len(by_scan), "scans"):
            image, limits = found.volume.image, (found.volume.hu_min, found.volume.hu_max)
            if (clip := clip or limits) != limits:
                raise InputError(
                    f"{resampled / found.scan}.h5: all scans must be clipped alike, at {list(clip)} HU, got "
                    f"{list(limits)}; run `dvc repro resample`"
                )
            for index in by_scan[found.scan]:
                of_patterns.write(
                    index, cut(image, crops[index]["corner"], crops[index]["extent"], patch_size)
                )
            for corner in found.corners:
                of_random.write(len(random_rows), cut(image, corner, patch_size, patch_size))
                random_rows.append(_random_row(facts[found.scan], corner, patch_size))
            if len(found.corners) < wanted[role_of[found.scan]]:
                short.append((found.scan, len(found.corners)))
        rows = np.array(random_rows, ROW)
        _some_in_each(rows, {"train": learned, "validation": stopping}, settings)
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


def _some_in_each(rows: np.ndarray, scans: dict[str, Sequence[ScanRow]], settings: Patches) -> None:
    for split, those in scans.items():
        if not np.isin(rows["scan"], [row.scan.encode() for row in those]).any():
            raise InputError(
                f"patches.rule: no position in any of {len(those)} {split} scans satisfies it (border "
                f"{list(settings.rule.border)}, tissue {settings.rule.tissue_min:g} to {settings.rule.tissue_max:g} at or "
                f"over {settings.rule.tissue_hu:g} HU); make the border smaller or the range of tissue wider"
            )


def _shortage(short: list[tuple[str, int]], facts: dict[str, ScanRow]) -> list[str]:
    if not short:
        return []
    named = ", ".join(f"{scan} ({count})" for scan, count in short[:5]) + (", ..." if len(short) > 5 else "")
    return [
        f"in {len(short)} of {len(facts)} scans patches.rule admits fewer positions than sub-volumes are asked for; "
        f"all of them were taken: {named}"
    ]


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function` of every item, in the items' order, made ahead by threads, at most `workers` results at a time.

    Threads, because volumes need not be sent to them, and reading and NumPy's arithmetic let go of the interpreter's
    lock. With one worker everything happens in the caller, one by one.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
