"""Resampling a CT of 512 x 512 x 300 voxels to 1 mm: SimpleITK's cubic B-spline against that of sg.

    python -m bench.resampling [--quick]

The volume is CT-like (body, lungs, texture, noise). Both sides clip, sample and round alike, each round in a process
of its own on one thread, in turn. Times are core-seconds of the second of two samplings; the first number of each
side is the median. Memory is the most that a process holds less what it held before it read the volume, its libraries
warm; so volume and result count. Differences are in HU: of all voxels, and of those 8 voxels or more from every side.
The last line is SimpleITK's time over ours. --quick takes a volume of 256 x 256 x 100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk

from bench.scanning import ROOT, picture
from sg.resampling import Sampling, resample_image, sampling
from sg.scans import Geometry

SHAPE, QUICK = (300, 512, 512), (100, 256, 256)  # z, y, x
SPACING_MM = (0.75, 0.75, 1.5)  # x, y, z
NEW_MM = (1.0, 1.0, 1.0)
HU = (-1000, 1000)
ROUNDS = 3
EDGE = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


def how_of(shape: tuple[int, ...]) -> Sampling:
    """The new grid of an upright volume of that shape (z, y, x)."""
    along = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return sampling(Geometry(shape[::-1], SPACING_MM, (0.0, 0.0, 0.0), along), NEW_MM)


def by_simpleitk(array: np.ndarray) -> np.ndarray:
    """HU on the new grid, int16, with every step done by SimpleITK or NumPy, in as little memory as they allow."""
    how = how_of(array.shape)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.GetImageFromArray(np.clip(array, *HU, dtype=np.float32))
    grid = (how.size, sitk.Transform(), sitk.sitkBSpline, how.start, how.step, np.eye(3).ravel().tolist())
    values = sitk.GetArrayFromImage(sitk.Resample(image, *grid, HU[0]))
    np.clip(values, *HU, out=values)
    return np.rint(values, out=values).astype(np.int16)


def by_sg(array: np.ndarray) -> np.ndarray:
    """HU on the new grid, int16."""
    return resample_image(array, how_of(array.shape), *HU, anti_alias=False)


SIDES = {"SimpleITK": by_simpleitk, "sg": by_sg}


@dataclass(frozen=True)
class Round:
    """What one process took."""

    seconds: float  # of one core
    memory: float  # MB


def held() -> float:
    """The most memory that this process has held, MB; getrusage would count what its parent held when it was started."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 / 1e6


def work(side: str, source: Path, target: Path) -> None:
    """One round, in its own process: resample a volume, keep the result, and print what it took as JSON."""
    resample = SIDES[side]
    resample(picture(0, (24, 24, 24)))  # loads libraries and compiles
    before = held()
    array = np.load(source)
    resample(array)  # as in a worker, whose pages an earlier scan has touched
    start = time.process_time()
    made = resample(array)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "memory": held() - before}))
    np.save(target, made)


def taken(side: str, source: Path, target: Path) -> Round:
    """A round of a side."""
    command = [sys.executable, "-m", "bench.resampling", "--side", side, str(source), str(target)]
    said = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, env={**os.environ, **ONE_THREAD}
    )
    return Round(**json.loads(said.stdout))


def main() -> None:
    """Time and compare both sides, or be one of them for a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a volume of 256 x 256 x 100")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, source, target = options.side
        work(side, Path(source), Path(target))
        return

    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        source = Path(name) / "volume.npy"
        targets = {side: Path(name) / f"{side}.npy" for side in SIDES}
        array = picture(1, QUICK if options.quick else SHAPE)
        np.save(source, array)
        rounds: dict[str, list[Round]] = {side: [] for side in SIDES}
        for _ in range(ROUNDS):
            for side, target in targets.items():
                rounds[side].append(taken(side, source, target))
        theirs, ours = (np.load(target) for target in targets.values())

    larger = max(array.nbytes, ours.nbytes) / 1e6
    sizes = " to ".join(" x ".join(map(str, volume.shape[::-1])) for volume in (array, ours))
    print(f"{sizes} voxels (x, y, z), the larger {larger:.0f} MB as int16")
    times = {side: median(one.seconds for one in made) for side, made in rounds.items()}
    for side, made in rounds.items():
        memory = max(one.memory for one in made)
        each = ", ".join(f"{one.seconds:.2f}" for one in made)
        print(
            f"{side}: {times[side]:.2f} core-seconds ({each}), {memory:.0f} MB, {memory / larger:.2f} times the larger"
        )
    apart = np.abs(theirs.astype(int) - ours)
    inside = apart[(slice(EDGE, -EDGE),) * 3]
    print(
        f"largest difference: {apart.max()} HU, {inside.max()} HU inside; {(apart > 0).mean():.1e} of voxels differ"
    )
    print(f"ratio {times['SimpleITK'] / times['sg']:.1f}")


if __name__ == "__main__":
    main()
