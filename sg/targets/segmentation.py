"""Segmentation of one structure: patches with masks to learn from, whole test scans, and simple baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from sg import logs
from sg.cohorts.records import ScanRow
from sg.errors import InputError
from sg.params import SegmentationTarget
from sg.randomness import generator
from sg.resampled import Resampled, read_resampled
from sg.roles import TASK_ROLES
from sg.storage import create_h5, fixed_texts, write_array
from sg.targets.taskfile import (
    PATCH_OF_SEGMENTATION,
    Appended,
    write_facts,
    write_head,
    write_mask,
    write_volume,
)

SPLITS = ("train", "validation", "test")


@dataclass
class Histograms:
    """How often each value occurs in the structure and outside it, over training scans."""

    hu_min: int
    inside: np.ndarray  # int64 (values,), from hu_min on
    outside: np.ndarray

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Count the voxels of one scan, int16 and bool (z, y, x)."""
        for counts, values in ((self.inside, image[mask]), (self.outside, image[~mask])):
            counts += np.bincount(values.astype(np.int64) - self.hu_min, minlength=len(counts))


@dataclass
class Tally:
    """Patients, and voxels of the structure, by split."""

    patients: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    structure: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))  # voxels of it

    def count(self, scan: ScanRow, mask: np.ndarray) -> None:
        """Count a scan and its mask (z, y, x)."""
        self.patients[scan.split].add(scan.patient)
        self.structure[scan.split] += int(np.count_nonzero(mask))


def write_segmentation(
    path: Path,
    task: str,
    recipe: SegmentationTarget,
    scans: Sequence[ScanRow],
    folder: Path,
    seed: int,
    warnings: list[str],
) -> str:
    """Write the task's file from the label maps of these scans; a line of facts. Adds to `warnings`.

    `scans` serve the task and lie resampled in `folder`. Scans without a label map cannot be learned from or
    scored; they are left out and counted. InputError if a split is left without patients or without the structure.
    """
    unlabelled = [scan.scan for scan in scans if not scan.truth]
    scans = [scan for scan in scans if scan.truth]
    _check_splits(task, scans)
    tally = Tally()
    if unlabelled:
        warnings.append(
            f"{task}: {len(unlabelled)} scans without a label map are left out: {', '.join(unlabelled)}"
        )
    rows: list[np.ndarray] = []
    histograms: Histograms | None = None
    with create_h5(path) as file:
        images = Appended(file, "patches", recipe.patch_size, "<i2")
        masks = Appended(file, "masks", recipe.patch_size, "u1")
        volumes = file.create_group("volumes")
        for scan in scans:
            logs.opened(scan.scan, TASK_ROLES[scan.split], task)
            resampled = read_resampled(folder / f"{scan.scan}.h5", labels=True)
            mask = _mask(resampled, scan, recipe, folder)
            histograms = histograms or _empty(resampled)
            tally.count(scan, mask)
            if scan.split == "test":
                group = volumes.create_group(scan.scan)
                write_volume(group, resampled.image, mask, scan.patient, resampled.spacing_mm)
                continue
            corners = draw_corners(task, recipe, scan, mask, seed, warnings)
            images.add(_blocks(resampled.image, corners, recipe.patch_size))
            masks.add(_blocks(mask, corners, recipe.patch_size))
            rows.append(_rows(scan, corners))
            if scan.split == "train":
                histograms.add(resampled.image, mask)
        _check_structure(task, recipe, tally)
        hu = (resampled.hu_min, resampled.hu_max)
        write_head(file, task, recipe.kind, "IoU", recipe.patch_size, hu)
        file.attrs["window"], file.attrs["overlap"] = np.array(recipe.window, "i4"), recipe.overlap
        write_array(file, "rows", np.concatenate(rows))
        _write_baselines(file, *best_window(histograms), len(tally.patients["train"]))
        patients = {split: len(names) for split, names in tally.patients.items()}
        patches = sum(map(len, rows))
        write_facts(file, {"patches": patches, "patients": patients, "unlabelled": len(unlabelled)}, warnings)
    have = ", ".join(f"{number} {split}" for split, number in patients.items())
    return f"{patches} patches, {len(scans) - len(rows)} whole test scans; patients: {have}"


def draw_corners(
    task: str,
    recipe: SegmentationTarget,
    scan: ScanRow,
    mask: np.ndarray,
    seed: int,
    warnings: list[str],
) -> np.ndarray:
    """Corners (z, y, x) of a scan's patches, int64 (patches, 3).

    The first half (the larger one, of an odd number) is centred on uniform voxels of the structure and moved into
    the scan where it would reach over the edge; the others are uniform among all corners. A scan without the
    structure has uniform ones alone and is named in `warnings`.
    """
    rng = generator(seed, "targets", task, f"corners {scan.scan}")
    last = np.array(mask.shape) - recipe.patch_size
    if (last < 0).any():
        raise InputError(
            f"targets.recipes.{task}.patch_size: a patch must fit into every scan, but scan {scan.scan} has the shape "
            f"{mask.shape} and the patch {tuple(recipe.patch_size)}; raise resample.shape_min or use smaller patches"
        )
    corners = rng.integers(0, last, size=(recipe.patches, 3), endpoint=True)
    structure = np.flatnonzero(mask)
    if structure.size == 0:
        warnings.append(
            f"{task}: scan {scan.scan} ({scan.split}) holds nothing of the structure: its patches are all uniform"
        )
        return corners
    centred = (recipe.patches + 1) // 2
    voxels = np.unravel_index(rng.choice(structure, size=centred), mask.shape)
    corners[:centred] = np.clip(np.stack(voxels, axis=1) - np.array(recipe.patch_size) // 2, 0, last)
    return corners


def best_window(histograms: Histograms) -> tuple[int, int, float]:
    """The window of values [lo, hi] whose voxels have the largest IoU with the structure, and that IoU.

    Every window is tried; of equal ones that with the largest lo, then the smallest hi: one that ends at values that
    occur.
    """
    inside = np.concatenate([[0], np.cumsum(histograms.inside)])
    outside = np.concatenate([[0], np.cumsum(histograms.outside)])
    best = (0, 0, -1.0)
    for lo in range(len(histograms.inside)):
        hits = inside[lo + 1 :] - inside[lo]
        scores = hits / (inside[-1] + outside[lo + 1 :] - outside[lo])
        hi = int(np.argmax(scores))
        if scores[hi] >= best[2]:
            best = (lo, lo + hi, float(scores[hi]))
    return best[0] + histograms.hu_min, best[1] + histograms.hu_min, best[2]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask (z, y, x) that hangs together by faces, the first of equals; an empty one stays so."""
    from scipy.ndimage import label

    parts, found = label(mask)
    if found == 0:
        return mask
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _write_baselines(file: h5py.File, lo: int, hi: int, iou: float, patients: int) -> None:
    """Masks of two baselines for every test scan: a window of values, and its largest component."""
    fitted = f"the window {lo}..{hi} HU that has the largest IoU on {patients} training patients ({100 * iou:.1f} %)"
    for name, description in (
        ("threshold", fitted),
        ("threshold-component", f"largest component of {fitted}"),
    ):
        group = file.create_group(f"baseline/{name}")
        group.attrs["description"] = description
        for scan in sorted(file["volumes"]):
            image = file["volumes"][scan]["image"][...]
            mask = (image >= lo) & (image <= hi)
            write_mask(group, scan, largest_component(mask) if name.endswith("component") else mask)


def _empty(resampled: Resampled) -> Histograms:
    lo, hi = round(resampled.hu_min), round(resampled.hu_max)
    return Histograms(lo, np.zeros(hi - lo + 1, np.int64), np.zeros(hi - lo + 1, np.int64))


def _mask(resampled: Resampled, scan: ScanRow, recipe: SegmentationTarget, folder: Path) -> np.ndarray:
    if resampled.labels is None:
        raise InputError(
            f"{folder / scan.scan}.h5: must hold the labels of {scan.truth}, but has none; run `dvc repro resample`"
        )
    return np.isin(resampled.labels, recipe.labels)


def _blocks(array: np.ndarray, corners: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Blocks of one size at corners inside the array, (n, z, y, x); masks become uint8."""
    blocks = [
        array[tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))]
        for corner in corners
    ]
    return np.stack(blocks).astype(np.uint8 if array.dtype == bool else array.dtype)


def _rows(scan: ScanRow, corners: np.ndarray) -> np.ndarray:
    patient = fixed_texts([scan.patient], 64)[0]
    return np.array([(scan.scan, patient, scan.split, corner) for corner in corners], PATCH_OF_SEGMENTATION)


def _check_splits(task: str, scans: Sequence[ScanRow]) -> None:
    counts = {split: len({scan.patient for scan in scans if scan.split == split}) for split in SPLITS}
    if not all(counts.values()):
        have = ", ".join(f"{number} {split}" for split, number in counts.items())
        raise InputError(
            f"targets.recipes.{task}: every split needs patients with a label map, but there are {have}; "
            "give it more patients, or take the task out of plan.targets"
        )


def _check_structure(task: str, recipe: SegmentationTarget, tally: Tally) -> None:
    for split, voxels in tally.structure.items():
        if voxels == 0:
            raise InputError(
                f"targets.recipes.{task}.labels: {recipe.labels} must occur in the label maps of the {split} patients, "
                f"but none of their {len(tally.patients[split])} has a voxel of it; correct the values"
            )
