"""Resampled scans for benches, as `resample` writes them, and the crops of patterns that `coordinates` lays in them.

They are CT-like and of a few seeds only: patterns are cut at the same cost from any scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.scanning import picture
from sg.cohorts.records import ScanRow
from sg.coordinates import discover
from sg.cutting import Caches, write_caches
from sg.neighbors import Embeddings, rank
from sg.params import Coordinates, Jitter, Patches, TissueRule
from sg.resampled import Resampled
from sg.resampling import write_resampled

Zyx = tuple[int, int, int]
HU = (-1000.0, 1000.0)
SPACING_MM = (1.5, 1.5, 2.5)
SEEDS = 6
VALIDATION = 4  # scans, for `patches` asks for some
RULE = TissueRule(border=(4, 12, 12), tissue_hu=-150, tissue_min=0, tissue_max=1)


@dataclass(frozen=True)
class Laid:
    """Scans in a folder, and the crops (sg.crops.CROP) of so many patterns."""

    folder: Path
    patch_size: Zyx
    learned: list[ScanRow]
    stopping: list[ScanRow]
    patterns: int
    crops: np.ndarray

    @property
    def scans(self) -> list[ScanRow]:
        """All of them."""
        return [*self.learned, *self.stopping]

    def file(self, scan: str) -> Path:
        """Where a scan lies."""
        return self.folder / f"{scan}.h5"

    def write(self, folder: Path, workers: int) -> Caches:
        """The caches, as the stage `patches` writes them, with one random sub-volume a scan beside the patterns."""
        settings = Patches(sub_volumes=1, sub_volumes_validation=1, rule=RULE, compression="none")
        folder.mkdir()
        taken = (self.crops, self.patterns, self.patch_size, self.learned, self.stopping, self.folder)
        return write_caches(folder, *taken, settings, 1, workers)


def write_scans(folder: Path, count: int, shape: Zyx) -> list[ScanRow]:
    """Write so many scans of one shape, the last of them for validation; the rows that scans.csv has of them."""
    images = [np.clip(picture(seed, shape), *map(int, HU)) for seed in range(min(SEEDS, count))]
    rows = []
    for number in range(count):
        scan, split = f"{number:012x}", "train" if number < count - VALIDATION else "validation"
        path, patient = f"{scan}.nii", f"patient-{number}"
        facts = (split, path, "", "", "CT", shape[::-1], SPACING_MM, "LPS", 1, "0" * 64, "")
        rows.append(ScanRow(scan, patient, "bench", "folder", ("pretrain",), *facts))
        # Every file its own, so that the page cache holds as much as it would of as many patients.
        image = np.roll(images[number % len(images)], number, axis=0)
        resampled = Resampled(image, None, SPACING_MM, (0.0, 0.0, 0.0), patient, *HU)
        write_resampled(folder / f"{scan}.h5", scan, resampled, np.zeros((2, 2, 2), np.int16), "bench")
    return rows


def lay(folder: Path, rows: list[ScanRow], patch_size: Zyx, patterns: int, k: int, jittered: int) -> Laid:
    """Patterns of K neighbours in those scans, with so many jittered crops beside the fixed one."""
    learned = [row for row in rows if row.split == "train"]
    stopping = [row for row in rows if row.split == "validation"]
    splits = np.array([row.split for row in rows], "S10")
    vectors = np.random.default_rng(0).standard_normal((len(rows), 8), dtype=np.float32)
    embeddings = Embeddings(
        vectors,
        np.array([row.scan for row in rows], "S12"),
        np.array([row.patient for row in rows], "S64"),
        splits,
        splits == b"train",
        splits == b"validation",
    )
    settings = Coordinates(
        patterns=patterns,
        k=k,
        k_validation=1,
        frame="voxel",
        patch_size=patch_size,
        min_distance=0.0,
        rule=RULE,
        jitter=Jitter(side=(50, 79), shift=(-10, 9), crops=jittered),
    )
    found = discover(rank(embeddings, "Flat", "all")[0], folder, settings, 1, 1)
    return Laid(folder, patch_size, learned, stopping, patterns, np.concatenate(found.crops))
