"""Nodule false-positive reduction: is a candidate a nodule? A patch around each candidate, and a simple baseline.

The test candidates are all kept; of the negatives of training and validation patients a share is drawn, because
there are hundreds to a nodule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import logs
from sg.cohorts.records import FindingRow, ScanRow
from sg.errors import InputError
from sg.params import NoduleTarget
from sg.randomness import generator
from sg.resampled import Resampled, read_resampled
from sg.roles import TASK_ROLES
from sg.storage import create_h5, fixed_texts, write_array
from sg.targets.taskfile import PATCH_OF_CLASSIFICATION, Appended, write_facts, write_head

POSITIVE = "nodule"
SPLITS = ("train", "validation", "test")

# What the baseline sees: brightness as of soft tissue, in the central half of the patch along every axis.
BRIGHT_HU = -150


@dataclass(frozen=True)
class Cut:
    """The candidates of one scan, cut."""

    rows: np.ndarray  # PATCH_OF_CLASSIFICATION
    patches: np.ndarray  # int16 (n, z, y, x)
    features: np.ndarray  # float64 (n, 2): mean HU and bright volume (ml) of the central region
    padded: int  # candidates whose patch reaches over the edge of the scan
    outside: list[str]  # sentences on candidates that do not lie in their scan


def write_nodules(
    path: Path,
    task: str,
    recipe: NoduleTarget,
    scans: Sequence[ScanRow],
    findings: Sequence[FindingRow],
    folder: Path,
    seed: int,
    warnings: list[str],
) -> str:
    """Write the task's file from the candidates of these scans; a line of facts. Adds to `warnings`.

    `scans` serve the task and lie resampled in `folder`. InputError if a split lacks nodules or other candidates.
    """
    kept, left = choose(task, recipe, scans, findings, seed)
    # Classes are counted here, before the work, and again below, when candidates outside their scan have dropped out.
    _check_classes(task, [(scan.split, one.label == POSITIVE) for scan in scans for one in kept[scan.scan]])
    cut_rows, features, padded = [], [], 0
    hu: tuple[float, float] | None = None
    with create_h5(path) as file:
        patches = Appended(file, "patches", recipe.patch_size, "<i2")
        for scan in scans:
            if not kept[scan.scan]:
                continue
            logs.opened(scan.scan, TASK_ROLES[scan.split], task)
            resampled = read_resampled(folder / f"{scan.scan}.h5")
            hu = (resampled.hu_min, resampled.hu_max)
            cut = cut_candidates(resampled, scan, kept[scan.scan], recipe.patch_size)
            patches.add(cut.patches)
            cut_rows.append(cut.rows)
            features.append(cut.features)
            padded += cut.padded
            warnings += cut.outside
        rows, features = np.concatenate(cut_rows), np.concatenate(features)
        _check_classes(task, [(row["split"].decode(), bool(row["label"])) for row in rows])
        write_head(file, task, recipe.kind, "AUC", recipe.patch_size, hu)
        write_array(file, "rows", rows)
        _write_baseline(file, rows, features)
        facts = {"candidates": count(rows), "negatives_left_out": left, "padded": padded}
        write_facts(file, facts, warnings)
    return _in_one_line(facts)


def choose(
    task: str, recipe: NoduleTarget, scans: Sequence[ScanRow], findings: Sequence[FindingRow], seed: int
) -> tuple[dict[str, list[FindingRow]], dict[str, int]]:
    """The candidates to keep, by scan, in the order of findings.csv; and how many negatives of each split are not.

    At most `negatives` times as many negatives as positives are drawn among those of training and of validation.
    """
    split_of = {scan.scan: scan.split for scan in scans}
    candidates = [one for one in findings if one.kind == "candidate" and one.scan in split_of]
    dropped: set[int] = set()
    left = {}
    for split in ("train", "validation"):
        here = [number for number, one in enumerate(candidates) if split_of[one.scan] == split]
        negatives = [number for number in here if candidates[number].label != POSITIVE]
        most = int(recipe.negatives * (len(here) - len(negatives)))
        left[split] = max(0, len(negatives) - most)
        if left[split]:
            rng = generator(seed, "targets", task, f"negatives {split}")
            kept = rng.choice(len(negatives), size=most, replace=False)
            dropped |= set(negatives) - {negatives[place] for place in kept}
    by_scan: dict[str, list[FindingRow]] = {scan.scan: [] for scan in scans}
    for number, one in enumerate(candidates):
        if number not in dropped:
            by_scan[one.scan].append(one)
    return by_scan, left


def cut_candidates(
    resampled: Resampled, scan: ScanRow, candidates: Sequence[FindingRow], patch_size: tuple[int, int, int]
) -> Cut:
    """A patch around each candidate, whose voxel is patch[z // 2, y // 2, x // 2].

    Near the edge what lies outside the scan is filled with hu_min (air), so that the candidate stays in the middle;
    so is a patch larger than the scan. A candidate outside the scan is left out and named.
    """
    half = np.array(patch_size) // 2
    size = np.array(resampled.image.shape)
    patient = fixed_texts([scan.patient], 64)[0]
    rows, patches, features, padded, outside = [], [], [], 0, []
    for one in candidates:
        voxel = np.floor(resampled.voxel(one.centre_mm) + 0.5).astype(np.int64)
        if (voxel < 0).any() or (voxel >= size).any():
            outside.append(
                f"the {one.label} candidate of scan {scan.scan} at {one.centre_mm} mm lies outside "
                "the scan and is left out"
            )
            continue
        corner = voxel - half
        patch = cut_padded(resampled.image, corner, patch_size, round(resampled.hu_min))
        padded += bool((corner < 0).any() or (corner + patch_size > size).any())
        rows.append((scan.scan, patient, scan.split, one.label == POSITIVE, one.centre_mm))
        patches.append(patch)
        features.append(central_features(patch, resampled.spacing_mm))
    return Cut(
        np.array(rows, PATCH_OF_CLASSIFICATION),
        np.array(patches, "<i2").reshape(-1, *patch_size),
        np.array(features, np.float64).reshape(-1, 2),
        padded,
        outside,
    )


def cut_padded(image: np.ndarray, corner: np.ndarray, size: tuple[int, int, int], fill: int) -> np.ndarray:
    """The block of that size at a corner that may lie outside the image (z, y, x), `fill` where there is none."""
    out = np.full(size, fill, image.dtype)
    first = np.maximum(corner, 0)
    last = np.minimum(corner + size, image.shape)
    if (last > first).all():
        inside = tuple(slice(a, b) for a, b in zip(first - corner, last - corner, strict=True))
        out[inside] = image[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return out


def central_features(patch: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Mean HU, and the volume at or over -150 HU in ml, of the central half of the patch along every axis."""
    centre = patch[tuple(slice(side // 2 - side // 4, side // 2 + max(1, side // 4)) for side in patch.shape)]
    return float(centre.mean()), np.count_nonzero(centre >= BRIGHT_HU) * float(np.prod(spacing_mm)) / 1000


def _write_baseline(file, rows: np.ndarray, features: np.ndarray) -> None:
    """Scores of a logistic regression on the two features, fitted on training candidates, for the test candidates."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = rows["split"] == b"train", rows["split"] == b"test"
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(features[train], rows["label"][train])
    scores = model.predict_proba(features[test])[:, 1].astype(np.float32)
    stored = write_array(file, "baseline/logistic-regression", scores)
    weights = ", ".join(f"{weight:.3g}" for weight in model[-1].coef_[0])
    stored.attrs["description"] = (
        f"logistic regression on the mean HU and the volume at or over {BRIGHT_HU} HU of the central half of the patch, "
        f"fitted on {np.count_nonzero(train)} training candidates (weights per standard deviation: {weights})"
    )


def _check_classes(task: str, members: Sequence[tuple[str, bool]]) -> None:
    for split in SPLITS:
        labels = [label for where, label in members if where == split]
        if not any(labels) or all(labels):
            raise InputError(
                f"targets.recipes.{task}: the {split} patients must have both nodules and other candidates, but have "
                f"{sum(labels)} nodules and {len(labels) - sum(labels)} others; give them more patients, or take the task "
                "out of plan.targets"
            )


def count(rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Patients, positives and negatives of each split."""
    table = {}
    for split in SPLITS:
        here = rows[rows["split"] == split.encode()]
        table[split] = {
            "patients": len(np.unique(here["patient"])),
            "positives": int(np.count_nonzero(here["label"])),
            "negatives": int(np.count_nonzero(here["label"] == 0)),
        }
    return table


def _in_one_line(facts: dict) -> str:
    parts = [
        f"{split} {one['positives']} nodules and {one['negatives']} others in {one['patients']} patients"
        for split, one in facts["candidates"].items()
    ]
    return "; ".join(parts) + f"; {facts['padded']} padded at the edge"
