"""Reading shuffled batches of 64 patches: the cache, which tests checksums, against a NumPy memory map, which cannot.

    python -m bench.cache_read [--depths 16 32] [--patches 2048]

Patches are int16, 64 x 64 in plane and 16 or 32 slices deep. Both sides read the same rows; both files are in the page
cache, and have been read once when the clock starts. An epoch reads every patch once; the sides take turns batch by batch,
and the median batch counts, because a machine that is not quiet halts now one side and now the other. It is timed as
pre-training reads, each batch a new array (`cache.read(rows)` against `array[rows]`), and into one array that is reused,
where the memory map is read in NumPy's fastest way (`take` without a test of the bounds). What is read must be equal.
Besides, whole epochs with two threads reading ahead, as `batches` gives them, the map's rows through the same threads. The
last line is ours over theirs, in patches a second, each batch a new array, at the largest depth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from bench.timing import in_turn
from sg.patches import ROW, PatchCache, write_cache
from sg.threads import ahead

PLANE = (64, 64)
BATCH = 64
ROUNDS = 5
THREADS = 2


def write(folder: Path, count: int, depth: int) -> tuple[Path, Path]:
    """The same patches of noise as a cache and as plain rows."""
    rng = np.random.default_rng(0)
    size = (depth, *PLANE)
    patches = rng.integers(-1000, 1001, (count, *size), np.int16)
    cache, rows = folder / f"{depth}.h5", folder / f"{depth}.npy"
    np.save(rows, patches)
    facts = np.zeros(count, ROW)
    write_cache(
        cache, facts, enumerate(patches), hu_min=-1000, hu_max=1000, patterns=1, patch_size=size, compression="none"
    )  # fmt: skip
    return cache, rows


def epoch(sides: dict[str, Callable[[np.ndarray], np.ndarray]], count: int) -> dict[str, list[float]]:
    """Read every patch once from each side, in shuffled batches, in turn; seconds of each batch."""
    order = np.random.default_rng(0).permutation(count)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for start in range(0, count - BATCH + 1, BATCH):
        these = order[start : start + BATCH]
        for name, (seconds,) in in_turn(
            {name: partial(read, these) for name, read in sides.items()}, 1
        ).items():
            taken[name].append(seconds)
    return taken


def read_ahead(rows: np.ndarray, cache: PatchCache) -> dict[str, float]:
    """Patches a second of shuffled epochs that threads read ahead, the sides in turn; medians."""

    def drained(batches: Iterable[object]) -> None:
        deque(batches, maxlen=0)

    taken: dict[str, list[float]] = {}
    for seed in range(ROUNDS):
        order = np.random.default_rng(seed).permutation(len(rows))
        these = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        sides = {
            "memory map": lambda these=these: drained(ahead(rows.__getitem__, these, THREADS, THREADS + 1)),
            "cache": lambda order=order: drained(cache.batches(order, BATCH, workers=THREADS)),
        }
        for name, (seconds,) in in_turn(sides, 1).items():
            taken.setdefault(name, []).append(seconds)
    return {name: len(rows) / median(seconds) for name, seconds in taken.items()}


def compare(folder: Path, count: int, depth: int) -> float:
    """Time both sides at one depth; ours over theirs, in patches a second, each batch a new array."""
    cache_path, rows_path = write(folder, count, depth)
    rows, cache = np.load(rows_path, mmap_mode="r"), PatchCache(cache_path)
    batch = np.empty((BATCH, depth, *PLANE), np.int16)
    uses: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
        "new arrays": {"memory map": lambda these: rows[these], "cache": cache.read},
        "a reused array": {
            "memory map": lambda these: np.take(rows, these, axis=0, out=batch[: len(these)], mode="clip"),
            "cache": lambda these: cache.read(these, batch[: len(these)]),
        },
    }
    megabytes = rows.nbytes / 1e6
    print(
        f"{count} patches of {depth} x 64 x 64, {megabytes:.0f} MB, in batches of {BATCH}; both sides read the same"
    )
    some = np.random.default_rng(1).permutation(count)[:BATCH]
    speeds: dict[str, dict[str, float]] = {}
    for use, readers in uses.items():
        theirs = readers["memory map"](some).copy()
        np.testing.assert_array_equal(readers["cache"](some), theirs)
        epoch(readers, count)
        rounds = [epoch(readers, count) for _ in range(ROUNDS)]
        speeds[use] = {
            name: BATCH / median(seconds for taken in rounds for seconds in taken[name]) for name in readers
        }
    speeds[f"{THREADS} threads reading ahead"] = read_ahead(rows, cache)
    cache.close()
    ratios = {use: sides["cache"] / sides["memory map"] for use, sides in speeds.items()}
    for use, sides in speeds.items():
        each = ", ".join(f"{name} {speed:.0f}" for name, speed in sides.items())
        print(f"{use}, patches a second: {each}; {ratios[use]:.2f} times")
    return ratios["new arrays"]


def main() -> None:
    """Compare at each depth, and print the ratio at the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[16, 32], help="slices of a patch")
    parser.add_argument("--patches", type=int, default=2048, help="patches in a file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        ratios = [compare(Path(name), options.patches, depth) for depth in sorted(options.depths)]
    print(f"ratio {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
