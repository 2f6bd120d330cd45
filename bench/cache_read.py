"""Reading shuffled batches of 64 patches: the cache, which tests checksums, against a NumPy memory map, which cannot.

    python -m bench.cache_read [--depths 16 32] [--patches 2048]

Patches are int16, 64 x 64 in plane and 16 or 32 slices deep. Both sides read the same rows into one reused array; both
files are in the page cache. An epoch reads every patch once. Each round opens both files anew: the first epoch is what
a worker sees that has just started (the memory map's pages are then given to the process one by one), the later ones
are what it sees from then on. What is read must be equal. The last line is ours over theirs, in patches a second, of
later epochs at the largest depth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from bench.timing import in_turn
from sg.patches import ROW, PatchCache, write_cache

PLANE = (64, 64)
BATCH = 64
ROUNDS = 5


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


def epoch(read: Callable[[np.ndarray], object], count: int, seed: int) -> None:
    """Read every patch once, in shuffled batches."""
    order = np.random.default_rng(seed).permutation(count)
    for start in range(0, count, BATCH):
        read(order[start : start + BATCH])


def compare(folder: Path, count: int, depth: int) -> float:
    """Time both sides at one depth; ours over theirs, in patches a second, of later epochs."""
    cache_path, rows_path = write(folder, count, depth)
    batch = np.empty((BATCH, depth, *PLANE), np.int16)
    first: dict[str, list[float]] = {"memory map": [], "cache": []}
    later: dict[str, list[float]] = {"memory map": [], "cache": []}
    for number in range(ROUNDS):
        rows, cache = np.load(rows_path, mmap_mode="r"), PatchCache(cache_path)
        assert len(cache) == count  # the rows are read here, before the clock runs
        readers = {
            "memory map": lambda these, rows=rows: np.take(rows, these, axis=0, out=batch[: len(these)]),
            "cache": lambda these, cache=cache: cache.read(these, batch[: len(these)]),
        }
        some = np.random.default_rng(number).permutation(count)[:BATCH]
        sides = {
            name: lambda read=read, seed=number: epoch(read, count, seed) for name, read in readers.items()
        }
        for name, (seconds,) in in_turn(sides, 1).items():
            first[name].append(seconds)
        for name, (seconds,) in in_turn(sides, 1).items():
            later[name].append(seconds)
        theirs = readers["memory map"](some).copy()
        np.testing.assert_array_equal(readers["cache"](some), theirs)
        cache.close()
    megabytes = batch.nbytes / BATCH * count / 1e6
    print(
        f"{count} patches of {depth} x 64 x 64, {megabytes:.0f} MB, in batches of {BATCH}; both sides read the same"
    )
    ratios = []
    for what, taken in (("first epoch", first), ("later epoch", later)):
        speeds = {name: count / median(seconds) for name, seconds in taken.items()}
        ratios.append(speeds["cache"] / speeds["memory map"])
        each = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
        print(f"{what}, patches a second: {each}; {ratios[-1]:.2f} times")
    return ratios[-1]


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
