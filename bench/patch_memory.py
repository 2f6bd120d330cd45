"""The memory that writing the caches takes, for so many patches and for four times as many.

    python -m bench.patch_memory [--quick]

Each round is a process of its own that writes the caches as the stage `patches` does, with two workers, from the same
60 scans: of 11 patterns and 50 neighbours, then of 44, three crops each. Memory is the most that the process has held
(VmHWM), and of the processes that it has started, if any, the largest. The last line is the second over the first.
--quick takes 16 smaller scans, 2 and 8 patterns of 10 neighbours.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.resampled_scans import Zyx, lay, write_scans
from bench.resampling import held
from bench.scanning import ROOT

SCANS, PATTERNS, K = 60, 11, 50
SHAPE: Zyx = (120, 160, 160)
SIZE: Zyx = (32, 64, 64)
TIMES = 4
JITTERED = 2
WORKERS = 2
ROUNDS = 3


def work(source: Path, folder: Path) -> None:
    """One round, in its own process: write the caches, and print what it took as JSON, MB."""
    laid = pickle.loads(source.read_bytes())
    before, others = held(), children()
    done = laid.write(folder, WORKERS)
    # Libraries start a process as they are imported; it is none of the writing.
    started = children() if children() > others else 0
    print(json.dumps({"before": before, "most": held(), "children": started, "patches": done.patterns}))


def children() -> float:
    """The most memory that any process has held which this one started and has seen end, MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


def taken(source: Path, folder: Path) -> dict[str, float]:
    """What a round took."""
    command = [sys.executable, "-m", "bench.patch_memory", "--work", str(source), str(folder)]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return json.loads(said.stdout)


def main() -> None:
    """Measure both, or be one of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 smaller scans")
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return

    scans, patterns, k = (16, 2, 10) if options.quick else (SCANS, PATTERNS, K)
    shape = (64, 112, 112) if options.quick else SHAPE
    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        folder = Path(name) / "resampled"
        folder.mkdir()
        rows = write_scans(folder, scans, shape)
        sources = {}
        for count in (patterns, TIMES * patterns):
            sources[count] = Path(name) / f"{count}.pickle"
            sources[count].write_bytes(pickle.dumps(lay(folder, rows, SIZE, count, k, JITTERED)))
        rounds: dict[int, list[dict[str, float]]] = {count: [] for count in sources}
        for _ in range(ROUNDS):
            for count, source in sources.items():
                rounds[count].append(taken(source, Path(name) / "patches"))

    print(f"{scans} scans of {' x '.join(map(str, shape))} voxels (z, y, x), {WORKERS} workers")
    most = []
    for count, made in rounds.items():
        most.append(median(max(one["most"], one["children"]) for one in made))
        each = ", ".join(f"{one['most']:.0f}" for one in made)
        print(
            f"{count} patterns of {k} neighbours, {made[0]['patches']} patches: {most[-1]:.0f} MB ({each}), of which "
            f"{median(one['before'] for one in made):.0f} MB before; child processes: "
            f"{max(one['children'] for one in made):.0f} MB"
        )
    print(f"ratio {most[1] / most[0]:.3f}")


if __name__ == "__main__":
    main()
