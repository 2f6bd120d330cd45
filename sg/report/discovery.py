"""The embedding and the discovered patterns: the page's third and fourth sections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sg import paths
from sg.params import Params
from sg.report import figures, quality
from sg.report.figures import Curve
from sg.report.pictures import Box, Picture, axial, coronal, picture, thinned
from sg.report.tables import evenly, figure, number, read_json, read_table, said, text
from sg.report.thumbnails import Thumbnails, read_thumbnails, spacing_zyx
from sg.storage import open_h5

REFERENCES = 2
RECONSTRUCTIONS = 4
AVERAGED = 200  # training scans behind the mean scan: enough, and few to read


def embedding(root: Path, study: Params) -> dict[str, Any]:
    """Loss curves, reconstructions, the space, and references with their nearest and farthest patients."""
    history = read_table(root / paths.EMBED / "history.csv", ["epoch", "train", "validation"])
    with open_h5(root / paths.EMBEDDINGS) as file:
        vectors = file["vectors"][...].astype(np.float64)
        scans, patients, splits = (
            [text(value) for value in file[name][...]] for name in ("scan", "patient", "split")
        )
    thumbnails = read_thumbnails(root)
    source_of = {row["scan"]: row["source"] for row in read_table(root / paths.SCANS, ["scan", "source"])}
    sources = [source_of.get(scan, "") for scan in scans]
    return {
        "epochs": len(history),
        "features": vectors.shape[1],
        "scans": len(scans),
        "curves": loss_chart(history, "mean squared error", "embed", "of the auto-encoder"),
        "reconstructions": _reconstructions(root, thumbnails, study),
        "space": _space(vectors, splits, sources),
        "sources": list(zip(figures.MARK_SIGNS, sorted(set(sources)), strict=False)),
        "references": [
            _neighborhood(root, thumbnails, vectors, scans, patients, splits, reference, study.report.crops)
            for reference in _references(root)
        ],
    }


def loss_chart(history: list[dict[str, str]], loss: str, name: str, what: str) -> figures.Chart:
    """Training and validation loss over epochs, the epoch of the least validation loss marked."""
    train, validation = ([number(row[column]) for row in history] for column in ("train", "validation"))
    epochs = [number(row["epoch"]) for row in history]
    best = int(np.nanargmin(validation)) if np.isfinite(validation).any() else None
    lines = [Curve(train, 0, dashed=True, x=epochs), Curve(validation, 0, best=best, x=epochs)]
    least = (
        f"; least validation loss {figure(validation[best])} at epoch {epochs[best]:g}"
        if best is not None
        else ""
    )
    log = figures.spans_decades(lines)
    return figures.curves(
        lines, "epoch", loss, f"loss {what} over {len(history)} epochs{least}", f"loss-{name}", log=log
    )


def patterns(root: Path, study: Params) -> dict[str, Any]:
    """The gallery of patterns, in the order in which they were drawn, and how well discovery worked."""
    table = read_table(
        root / paths.PATTERNS_TABLE,
        [
            "pattern",
            "scan",
            "patient",
            "corner_z",
            "corner_y",
            "corner_x",
            "fraction_z",
            "fraction_y",
            "fraction_x",
            "tissue",
        ],
    )
    metrics = read_json(root / paths.COORDINATES_METRICS)
    with open_h5(root / paths.PATTERNS) as file:
        rows = file["rows"][...]
        size = tuple(int(side) for side in file.attrs["patch_size"])
    shown = sorted(table, key=lambda row: int(row["pattern"]))[: study.report.patterns]
    frame = metrics.get("frame", study.coordinates.frame)
    found = quality.quality(root, frame)
    return {
        "count": len(table),
        "patches": len(rows),
        "by_split": [
            (split, int((rows["split"] == split.encode()).sum())) for split in ("train", "validation")
        ],
        "size": size,
        "frame": frame,
        "frame_name": quality.FRAMES.get(frame, frame),
        "metrics": [(key.replace("_", " "), value) for key, value in _flat(metrics)],
        "gallery": [_gallery_row(root, row, rows, size, study.report.crops, found) for row in shown],
        "quality": found,
    }


def _flat(tree: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """(key, value) in words of nested figures, those below a key after its name."""
    flat = []
    for key, value in sorted(tree.items()):
        if key in ("warnings", "notes"):
            continue
        if isinstance(value, dict):
            flat += _flat(value, f"{before}{key}: ")
        else:
            flat.append((f"{before}{key}", said(value)))
    return flat


# --------------------------------------------------------------------------------------- embedding


def _reconstructions(root: Path, thumbnails: Thumbnails, study: Params) -> dict[str, Any]:
    """Middle coronal slices of inputs and outputs of the auto-encoder, beside the mean scan and its error.

    The mean scan is what an output comes to that takes nothing from its input: of training scans, evenly spaced.
    """
    with open_h5(root / paths.EMBED / "reconstructions.h5") as file:
        scans = [text(scan) for scan in file["scan"][:RECONSTRUCTIONS]]
        inputs = file["inputs"][:RECONSTRUCTIONS].astype(np.float64)
        outputs = file["outputs"][:RECONSTRUCTIONS].astype(np.float64)
    low, high = study.resample.hu_min, study.resample.hu_max
    average, averaged = _mean_scan(root)
    average = (average - low) / (high - low)
    shown = []
    for scan, before, after in zip(scans, inputs, outputs, strict=True):
        real, _ = thumbnails.pictures(scan)
        pair = [
            replace(picture(coronal(volume * (high - low) + low), (1, 1), alt), aspect=real.aspect)
            for volume, alt in (
                (before, f"input: {real.alt}"),
                (after, f"reconstruction: {real.alt}"),
            )
        ]
        shown.append(
            {
                "patient": thumbnails.patients[scan],
                "pictures": pair,
                "error": float(np.mean((after - before) ** 2)),
                "mean_error": float(np.mean((average - before) ** 2)),
            }
        )
    alt = f"middle coronal slice of the mean of {averaged} training scans"
    mean_picture = picture(coronal(average * (high - low) + low), (1, 1), alt)
    return {
        "shown": shown,
        "mean": replace(mean_picture, aspect=shown[0]["pictures"][0].aspect) if shown else mean_picture,
        "averaged": averaged,
        # What the outputs err less than the mean scan does, as a share: 1 gives all back, 0 nothing of a scan's own.
        "kept": 1 - sum(row["error"] for row in shown) / max(sum(row["mean_error"] for row in shown), 1e-300),
    }


def _mean_scan(root: Path) -> tuple[np.ndarray, int]:
    """The mean thumbnail (z, y, x), HU, of training scans that patterns are learned from, and of how many."""
    with open_h5(root / paths.THUMBNAILS) as file:
        rows = np.flatnonzero((file["split"][...] == b"train") & file["pretrain"][...])
        rows = rows[evenly(len(rows), AVERAGED)]
        total = np.zeros(file["thumbnails"].shape[1:])
        for row in rows:
            total += file["thumbnails"][row]
    return total / max(len(rows), 1), len(rows)


def _space(vectors: np.ndarray, splits: list[str], sources: list[str]) -> figures.Chart | None:
    """The vectors along the two directions in which they differ most (principal components), by split and source."""
    if len(vectors) < 3 or vectors.shape[1] < 2:
        return None
    centred = vectors - vectors.mean(axis=0)
    _, strength, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a principal direction is a matter of chance; its largest part is made positive.
    directions = directions[:2] * np.sign(directions[[0, 1], np.abs(directions[:2]).argmax(axis=1)])[:, None]
    points = np.round(centred @ directions.T, 6)
    share = 100 * strength[:2] ** 2 / max(float(np.sum(strength**2)), 1e-300)
    groups = [
        (points[[one == (split, source) for one in zip(splits, sources, strict=True)]], series, mark)
        for series, split in enumerate(("train", "validation", "test"))
        for mark, source in enumerate(sorted(set(sources)))
    ]
    return figures.scatter(
        [group for group in groups if len(group[0])],
        f"first component, {share[0]:.0f} % of the variance",
        f"second component, {share[1]:.0f} %",
        f"{len(vectors)} scans along the two main directions of the embedding, coloured by split"
        + (", marked by source" if len(set(sources)) > 1 else ""),
        "space",
    )


def _references(root: Path) -> list[str]:
    """The reference scans of the first patterns, each once."""
    table = read_table(root / paths.PATTERNS_TABLE, ["pattern", "scan"])
    ordered = [row["scan"] for row in sorted(table, key=lambda row: int(row["pattern"]))]
    return list(dict.fromkeys(ordered))[:REFERENCES]


def _neighborhood(
    root: Path,
    thumbnails: Thumbnails,
    vectors: np.ndarray,
    scans: list[str],
    patients: list[str],
    splits: list[str],
    reference: str,
    pictures: int,
) -> dict[str, Any]:
    """A reference, its nearest training patients, its nearest validation patient, and the farthest training patient."""
    with open_h5(root / paths.RANKING) as file:
        ranked = [text(scan) for scan in file["scan"][...]]
        place = [text(scan) for scan in file["reference"][...]].index(reference)
        nearest = [
            (split, rank, ranked[row], float(distance))
            for split in ("train", "validation")
            for rank, (row, distance) in enumerate(
                zip(file[split][place], file[f"{split}_distance"][place], strict=True)
            )
        ]
    train = [entry for entry in nearest if entry[0] == "train"][:pictures]
    validation = [entry for entry in nearest if entry[0] == "validation"][:1]
    shown = [
        {
            "what": _standing(scan == reference, split, rank),
            "patient": thumbnails.patients[scan],
            "distance": distance,
            "pictures": thumbnails.pictures(scan),
        }
        for split, rank, scan, distance in train + validation
    ]
    scan, distance = _farthest(vectors, scans, patients, splits, reference)
    if scan not in [entry[2] for entry in train]:
        shown.append(
            {
                "what": "the farthest",
                "patient": thumbnails.patients[scan],
                "distance": distance,
                "pictures": thumbnails.pictures(scan),
            }
        )
    return {"patient": thumbnails.patients[reference], "shown": shown}


def _standing(is_reference: bool, split: str, rank: int) -> str:
    if is_reference:
        return "the reference"
    return f"no. {rank}" if split == "train" else "nearest of validation"


def _farthest(
    vectors: np.ndarray, scans: list[str], patients: list[str], splits: list[str], reference: str
) -> tuple[str, float]:
    """The training patient whose nearest scan is farthest from the reference, and that distance (L2)."""
    distance = np.sqrt(((vectors - vectors[scans.index(reference)]) ** 2).sum(axis=1))
    nearest: dict[str, tuple[float, str]] = {}
    for scan, patient, split, value in zip(scans, patients, splits, distance, strict=True):
        if split == "train":
            nearest[patient] = min(nearest.get(patient, (np.inf, "")), (float(value), scan))
    value, scan = max(nearest.values())
    return scan, value


# ---------------------------------------------------------------------------------------- patterns


def _gallery_row(
    root: Path,
    pattern: dict[str, str],
    rows: np.ndarray,
    size: tuple[int, ...],
    crops: int,
    found: dict[str, Any],
) -> dict[str, Any]:
    """One pattern: where its reference crop lies, that crop, and crops at evenly spaced ranks up to the farthest."""
    name = int(pattern["pattern"])
    mine = np.flatnonzero((rows["pattern"] == name) & (rows["resolution"] == 0) & (rows["split"] == b"train"))
    mine = mine[np.argsort(rows["rank"][mine], kind="stable")]
    chosen = [int(mine[place]) for place in evenly(len(mine), crops)]
    with open_h5(root / paths.PATTERNS) as file:
        patches = [file["patches"][index] for index in chosen]
    shown = []
    for index, patch in zip(chosen, patches, strict=True):
        row = rows[index]
        scan, patient, rank = text(row["scan"]), text(row["patient"]), int(row["rank"])
        _, *pixel = (
            float(mm * extent / side)
            for mm, extent, side in zip(spacing_zyx(root, scan), row["extent"], patch.shape, strict=True)
        )
        who = "the reference" if rank == 0 else f"neighbour {rank}"
        alt = f"middle axial slice of pattern {name} in {who}, patient {patient}"
        shown.append(
            {"rank": rank, "patient": patient, "picture": picture(axial(patch), (pixel[0], pixel[1]), alt)}
        )
    return {
        "pattern": name,
        "patient": pattern["patient"],
        "fractions": [number(pattern[f"fraction_{axis}"]) for axis in "zyx"],
        "tissue": number(pattern["tissue"]),
        "place": _place(root, pattern, size),
        "crops": shown,
        "quality": found["patterns"].get(name),
    }


def _place(root: Path, pattern: dict[str, str], size: tuple[int, ...]) -> Picture:
    """The coronal slice of the reference through the middle of the pattern, with its outline."""
    z, y, x = (int(pattern[f"corner_{axis}"]) for axis in "zyx")
    with open_h5(root / paths.scan(pattern["scan"])) as file:
        image = file["image"]
        depth, _, width = image.shape
        # Only this one slice is read, however large the scan is.
        middle = image[:, y + size[1] // 2, :]
    z_mm, _, x_mm = spacing_zyx(root, pattern["scan"])
    outline = Box(
        100 * x / width, 100 * (depth - z - size[0]) / depth, 100 * size[2] / width, 100 * size[0] / depth
    )
    alt = f"coronal slice of patient {pattern['patient']} with the outline of pattern {pattern['pattern']}"
    upright = thinned(middle[::-1])
    aspect = (width * x_mm) / (depth * z_mm)
    return replace(picture(upright, (1, 1), alt, outline), aspect=aspect)
