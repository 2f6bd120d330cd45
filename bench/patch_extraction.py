"""Cutting the patches of 44 patterns from 50 neighbours each, of 60 scans: the published form against sg's caches.

    python -m bench.patch_extraction [--quick] [--shape 120 160 160] [--jittered 2]

Published: for every neighbour of every pattern the resampled scan, float64 in [0, 1], is loaded whole from its .npy
file, the crop cut, resized where it must be, and kept in one float64 array in memory. The authors resize with
scikit-image; this uses scipy.ndimage.zoom (linear, voxel centres aligned), which scikit-image calls. It is timed
on some patterns and scaled up. Ours is the code of the stage `patches`, with one worker and with two: each scan is
opened once, checksums tested, and patches go to an HDF5 file with a checksum each; it also draws and writes one random
sub-volume a scan. All files are in the page cache, on both sides. Fixed crops must be equal, resized ones to rounding.
A neighbour has a fixed crop and two jittered ones, as in the paper, unless --jittered says otherwise; one load serves
all of them, as published.

The last line is the published time, which has one thread, over ours with two workers, as the stage runs on two cores;
the one before is that with one worker, on one core. --quick takes 8 patterns of 10 neighbours of 16 smaller scans.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from scipy.ndimage import zoom

from bench.resampled_scans import HU, Laid, Zyx, lay, write_scans
from bench.timing import in_turn, line
from sg.patches import PatchCache
from sg.resampled import read_resampled

SCANS, PATTERNS, K = 60, 44, 50
SHAPE: Zyx = (120, 160, 160)
SIZE: Zyx = (32, 64, 64)
SHARE = 11  # one pattern of so many is timed on the published side
WORKERS = 2  # what is timed beside one
ROUNDS = 3


def neighbours_of(laid: Laid, patterns: range) -> list[np.ndarray]:
    """The crops of each training neighbour of some patterns together, in the order of the patterns."""
    chosen = np.isin(laid.crops["pattern"], patterns) & (laid.crops["split"] == b"train")
    crops = laid.crops[chosen]
    starts = np.flatnonzero(crops["resolution"] == 0)
    return np.split(crops, starts[1:])


def published(folder: Path, neighbours: list[np.ndarray], size: Zyx) -> np.ndarray:
    """The patches of all crops, float64 (n, z, y, x) in [0, 1], the scan loaded anew for each neighbour."""
    cache = np.zeros((sum(map(len, neighbours)), *size))
    row = 0
    for crops in neighbours:
        volume = np.load(folder / f"{crops[0]['scan'].decode()}.npy")
        for crop in crops:
            box = tuple(slice(c, c + e) for c, e in zip(crop["corner"], crop["extent"], strict=True))
            patch = volume[box]
            if patch.shape != size:
                factors = [new / old for new, old in zip(size, patch.shape, strict=True)]
                patch = zoom(patch, factors, order=1, mode="nearest", grid_mode=True)
            cache[row] = patch
            row += 1
    return cache


def furthest(
    laid: Laid, folder: Path, neighbours: list[np.ndarray], theirs: np.ndarray
) -> tuple[float, float]:
    """Largest difference of both sides' patches in HU: of fixed crops, and of resized ones (0 without any)."""
    cache = PatchCache(folder / "patterns.h5")
    crops = np.concatenate(neighbours)
    names = ["pattern", "rank", "resolution", "split"]
    row_of = {row: number for number, row in enumerate(cache.rows[names].tolist())}
    numbers = [row_of[crop] for crop in crops[names].tolist()]
    made = cache.read(numbers)
    cache.close()
    apart = np.array(
        [np.abs(patch * (HU[1] - HU[0]) + HU[0] - own).max() for patch, own in zip(theirs, made, strict=True)]
    )
    resized = (crops["extent"] != laid.patch_size).any(axis=1)
    return apart[~resized].max(initial=0), apart[resized].max(initial=0)


def main() -> None:
    """Make the scans, compare and time both sides, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="8 patterns of 10 neighbours of 16 smaller scans"
    )
    parser.add_argument("--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="voxels of a scan")
    parser.add_argument("--jittered", type=int, default=2, help="resized crops beside the fixed one")
    options = parser.parse_args()
    scans, patterns, k = (16, 8, 10) if options.quick else (SCANS, PATTERNS, K)
    shape = tuple(options.shape or ((64, 112, 112) if options.quick else SHAPE))
    share = 4 if options.quick else SHARE

    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        folder, written = Path(name) / "resampled", Path(name) / "patches"
        folder.mkdir()
        laid = lay(folder, write_scans(folder, scans, shape), SIZE, patterns, k, options.jittered)
        neighbours = neighbours_of(laid, range(0, patterns, share))
        for scan in {crops[0]["scan"].decode() for crops in neighbours}:
            image = read_resampled(laid.file(scan)).image
            np.save(folder / f"{scan}.npy", (image.astype(np.float64) - HU[0]) / (HU[1] - HU[0]))
        theirs = published(folder, neighbours, SIZE)
        laid.write(written, 1)
        fixed, resized = furthest(laid, written, neighbours, theirs)
        of_one = theirs.nbytes / len(theirs)
        assert fixed < 1e-6
        assert resized < 0.51  # half a HU of rounding, and of single precision
        sides = {
            "published": lambda: published(folder, neighbours, SIZE),
            "sg": lambda: laid.write(written, 1),
            f"sg, {WORKERS} workers": lambda: laid.write(written, WORKERS),
        }
        # What was written before is removed first, which is no part of extraction.
        taken = in_turn(sides, ROUNDS, lambda: shutil.rmtree(written, ignore_errors=True))

    crops = np.count_nonzero(laid.crops["split"] == b"train")
    scale = crops / len(theirs)
    print(
        f"{crops} training patches of {patterns} patterns and {k} neighbours, and {len(laid.crops) - crops} validation "
        f"patches; {scans} scans of {' x '.join(map(str, shape))} voxels (z, y, x)"
    )
    print(f"fixed crops are equal; resized ones differ by at most {resized:.2f} HU, with rounding")
    print(
        f"{line('published', taken['published'], scale)}, timed on {len(theirs)} patches, {scale:g} times that; "
        f"{crops * of_one / 1e9:.1f} GB in memory"
    )
    for name in list(taken)[1:]:
        print(line(name, taken[name]))
    alone, ratio = (scale * median(taken["published"]) / median(taken[name]) for name in list(taken)[1:])
    print(f"with one worker: {alone:.1f} times as fast")
    print(f"ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
