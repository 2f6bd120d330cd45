"""A whole data/ folder as the stages write it, small and made up, for the page to show."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from sg import paths
from sg.cohorts.records import QuarantineRow, ScanRow, TwinRow, write_rows
from sg.params import Params, parse
from sg.plan import write_plan
from sg.roles import RoleRow, decide_roles
from sg.storage import create_h5, write_array

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE, SPACING = (56, 64, 72), (4.0, 4.0, 5.0)  # (z, y, x); mm (x, y, z)
PATCH = (16, 32, 32)
PATTERNS, K, K_VALIDATION = 5, 6, 2
SPLITS = ["train"] * 10 + ["validation"] * 4 + ["test"] * 5
SAME = (0, 1, 2)  # scans of one patient, who is in the training split
TRIALS = 3


@dataclass(frozen=True)
class Made:
    """A study and where its artifacts lie."""

    root: Path
    study: Params
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Makes a study: `tasks` and `methods` by name, `truth` or none, the `splits` and names of its patients."""

    def make(**variant: Any) -> Made:
        return write_study(tmp_path_factory.mktemp("study"), **variant)

    return make


@pytest.fixture(scope="session")
def made(make_study: Callable[..., Made]) -> Made:
    """The usual study: two tasks, two methods, truth, refusals and warnings. Not to be changed."""
    return make_study()


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """The usual study in a folder of its own, to be changed."""
    shutil.copytree(made.root / "data", tmp_path / "data")
    return replace(made, root=tmp_path)


def write_study(
    root: Path,
    *,
    tasks: tuple[str, ...] = ("ncc", "lcs"),
    methods: tuple[str, ...] = ("models-genesis", "semantic-genesis"),
    truth: bool = True,
    trials: int = TRIALS,
    refusals: int = 4,
    splits: Sequence[str] = SPLITS,
    patient: str = "1.3.6.1.4.1.14519.{:04d}",
) -> Made:
    """Write every artifact that the page reads, and give the parameters that belong to it."""
    study = parameters(tasks, methods, trials)
    rng = np.random.default_rng(7)
    scans = [scan_row(index, split, patient) for index, split in enumerate(splits)]
    scans = sorted(scans, key=lambda row: row.scan)
    (root / paths.COHORT).mkdir(parents=True)
    write_cohort(root, scans, refusals)
    volumes = write_scans(root, scans)
    write_embedding(root, scans, rng)
    write_patterns(root, scans, volumes, rng, truth)
    write_plan(
        lambda path: made_path(root / path),
        study.plan,
        [],
        study.finetune.tasks,
        study.finetune.initializations,
        study.pretrain.shared.network,
    )
    for method in methods:
        write_method(root, method, volumes, rng)
    scores = {}
    for task in tasks:
        write_target(root, task, scans, rng)
        for number, initialization in enumerate(study.finetune.initializations):
            write_trials(root, task, initialization, trials, rng)
            scores[task, initialization] = list(0.72 + 0.09 * number + rng.normal(0, 0.02, trials))
    write_evaluation(root, study, scores)
    return Made(root, study, scores)


def parameters(tasks: tuple[str, ...], methods: tuple[str, ...], trials: int) -> Params:
    """The demo's parameters with other lists."""
    tree = yaml.safe_load((REPOSITORY / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    training = next(iter(tree["finetune"]["training"].values()))
    recipes = {"ncc": tree["targets"]["recipes"]["ncc"], "lcs": tree["targets"]["recipes"]["lcs"]}
    tree["plan"] = {"methods": list(methods), "targets": list(tasks)}
    tree["pretrain"]["recipes"] = {name: tree["pretrain"]["recipes"][name] for name in methods}
    tree["targets"]["recipes"] = {name: recipes[name] for name in tasks}
    tree["finetune"] |= {
        "tasks": list(tasks),
        "initializations": ["scratch", *methods] if tasks else [],
        "trials": trials,
        "training": dict.fromkeys(tasks, training),
    }
    for source in tree["cohort"]["sources"].values():
        source["use"] = [use for use in source["use"] if use in ("pretrain", *tasks)] or ["pretrain"]
    tree["report"] |= {"patterns": 4, "crops": 5}
    return parse(yaml.safe_dump(tree), "the test's study")


def made_path(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with open(made_path(path), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if cell != cell else cell for cell in row] for row in rows])


def write_json(path: Path, tree: object) -> None:
    made_path(path).write_text(
        json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )


def place_of(index: int) -> str:
    return f"luna16/subset0/{index}.mhd"


def scan_row(index: int, split: str, patient: str) -> ScanRow:
    name = f"{(index * 7919 + 12345) % 0xFFFFFF:012x}"
    return ScanRow(
        scan=name, patient=patient.format(SAME[0] if index in SAME else index), source="luna16", layout="luna16",
        use=("pretrain", "ncc"), split=split, path=place_of(index), series="", truth="", modality="CT",
        size=(72, 64, 56), spacing_mm=(4.0, 4.0, 5.0), orientation="LPS", bytes=516096, sha256=name * 5 + "abcd",
        truth_sha256="",
    )  # fmt: skip


def twin_rows(scans: list[ScanRow]) -> list[TwinRow]:
    """The three scans of one patient: a flipped copy under another name, and one of another kernel."""
    first, copy, kernel = sorted(
        (row for row in scans if row.path in {place_of(index) for index in SAME}), key=lambda row: row.path
    )
    return [
        TwinRow(
            first.scan, copy.scan, "voxels", 1.0, first.patient, f"{first.patient} and {first.patient}-copy"
        ),
        TwinRow(first.scan, kernel.scan, "thumbnail", 0.99347, first.patient, ""),
    ]


def write_cohort(root: Path, scans: list[ScanRow], refusals: int) -> None:
    write_rows(root / paths.SCANS, ScanRow, scans)
    reasons = [
        ("truncated", "the file ends after 1,204 of 516,096 bytes; copy it again"),
        ("duplicate", "the same scan as luna16/subset0/3.mhd; one of them is enough"),
        ("spacing", "the slices lie 25 mm apart; the limits allow 0.1 to 10 mm"),
        ("not-finite", "12 voxels are no numbers"),
    ]
    rows = [
        QuarantineRow(f"luna16/subset1/bad-{n}.mhd", "luna16", *reasons[n % 4], "") for n in range(refusals)
    ]
    write_rows(root / paths.QUARANTINE, QuarantineRow, rows)
    write_rows(made_path(root / paths.RESAMPLED_QUARANTINE), QuarantineRow, [])
    write_rows(root / paths.TWINS, TwinRow, twin_rows(scans))
    write_rows(root / paths.ROLES, RoleRow, decide_roles(scans))
    write_json(
        root / paths.COHORT_SUMMARY,
        {
            "scans": len(scans),
            "by_source": {
                "luna16": {"ignored": {"txt": 3, "left out": 0, "hidden": 1}},
                "liver": {"ignored": {}},
            },
            "warnings": ["no patients.csv: each file is a patient"],
            "notes": ["the split validation was empty and took 4 patients"],
        },
    )


@cache
def torso(number: int) -> np.ndarray:
    """A chest as one knows it, int16 HU (z, y, x) in LPS: liver at the patient's right, below; heart at the left."""
    rng = np.random.default_rng(number)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    dx, dz, size = rng.uniform(-0.08, 0.08), rng.uniform(-0.1, 0.1), rng.uniform(0.9, 1.1)
    hu = np.full(SHAPE, -1000.0)

    def ball(cz: float, cy: float, cx: float, rz: float, ry: float, rx: float) -> np.ndarray:
        return ((z - cz - dz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx - dx) / rx) ** 2 < size**2

    hu[(y / 0.75) ** 2 + ((x - dx) / 0.9) ** 2 < size**2] = -90
    hu[(y / 0.65) ** 2 + ((x - dx) / 0.8) ** 2 < size**2] = 40
    for side in (-1, 1):
        hu[ball(0.25, 0, side * 0.38, 0.75, 0.5, 0.3)] = -850
    hu[ball(-0.05, -0.15, 0.12, 0.35, 0.3, 0.25)] = 45
    hu[ball(-0.75, 0, -0.35, 0.45, 0.5, 0.45)] = 110
    hu[(((y - 0.5) / 0.12) ** 2 + ((x - dx) / 0.12) ** 2) < 1] = 400
    for _ in range(12):
        cz, cy, cx = (
            rng.uniform(-0.3, 0.8),
            rng.uniform(-0.4, 0.4),
            rng.choice([-1, 1]) * rng.uniform(0.2, 0.55),
        )
        hu[((z - cz) ** 2 * 3 + (y - cy) ** 2 + (x - cx) ** 2) < 0.003] = 30
    return np.clip(hu + rng.normal(0, 20, SHAPE), -1000, 1000).astype(np.int16)


def write_scans(root: Path, scans: list[ScanRow]) -> dict[str, np.ndarray]:
    volumes = {}
    for number, row in enumerate(scans):
        volumes[row.scan] = torso(number)
        with create_h5(root / paths.scan(row.scan)) as file:
            write_array(file, "image", volumes[row.scan], chunks=(16, 64, 64), fletcher32=True)
            file.attrs["spacing_mm"], file.attrs["origin_mm"] = SPACING, (0.0, 0.0, 0.0)
            file.attrs["scan"], file.attrs["patient"] = row.scan, row.patient
    with create_h5(root / paths.THUMBNAILS) as file:
        write_array(file, "thumbnails", np.stack([thumbnail(volumes[row.scan]) for row in scans]))
        write_names(file, scans)
        write_array(file, "pretrain", np.ones(len(scans), bool))
        file.attrs["hu_min"], file.attrs["hu_max"] = -1000.0, 1000.0
    return volumes


def thumbnail(volume: np.ndarray) -> np.ndarray:
    return volume[np.ix_(*(np.linspace(0, side - 1, 32).astype(int) for side in volume.shape))]


def write_names(file: h5py.Group, scans: list[ScanRow]) -> None:
    for name, kind in (("scan", "S12"), ("patient", "S64"), ("split", "S10")):
        write_array(file, name, np.array([getattr(row, name).encode() for row in scans], kind))


def write_embedding(root: Path, scans: list[ScanRow], rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(len(scans), 8)).astype(np.float32)
    with create_h5(made_path(root / paths.EMBEDDINGS)) as file:
        write_array(file, "vectors", vectors)
        write_names(file, scans)
    with (
        h5py.File(root / paths.THUMBNAILS) as thumbnails,
        create_h5(root / paths.EMBED / "reconstructions.h5") as file,
    ):
        shown = [place for place, row in enumerate(scans) if row.split == "validation"]
        inputs = (thumbnails["thumbnails"][shown].astype(np.float32) + 1000) / 2000
        write_array(file, "inputs", inputs)
        write_array(file, "outputs", 0.8 * inputs + 0.05)
        write_array(file, "scan", np.array([scans[place].scan.encode() for place in shown], "S12"))
    write_history(root / paths.EMBED / "history.csv", 20, rng)
    write_json(root / paths.EMBED / "card.json", {"channels": 8, "warnings": []})
    train = [place for place, row in enumerate(scans) if row.split == "train"]
    validation = [place for place, row in enumerate(scans) if row.split == "validation"]
    with create_h5(made_path(root / paths.RANKING)) as file:
        for split, members in (("train", train), ("validation", validation)):
            distance = np.linalg.norm(vectors[train][:, None] - vectors[members][None], axis=2)
            order = np.argsort(distance, axis=1, kind="stable")
            write_array(file, split, np.array(members, np.int32)[order])
            write_array(file, f"{split}_distance", np.take_along_axis(distance, order, 1).astype(np.float32))
        write_array(file, "reference", np.array([scans[place].scan.encode() for place in train], "S12"))
        write_names(file, scans)
    write_json(
        root / paths.NEIGHBORS / "metrics.json",
        {"distance_median": 3.5, "warnings": ["depth: 10 of 12 kept"]},
    )


def write_history(path: Path, epochs: int, rng: np.random.Generator, parts: tuple[str, ...] = ()) -> None:
    falling = 0.12 * np.exp(-np.arange(epochs) / 4) + 0.004
    rows = [
        [epoch + 1, 0.001, *(v * f for f in (1, 1.2) for v in [falling[epoch]] * (1 + len(parts)))]
        for epoch in range(epochs)
    ]
    names = [
        "train",
        *(f"train_{part}" for part in parts),
        "validation",
        *(f"validation_{part}" for part in parts),
    ]
    write_csv(path, ["epoch", "learning_rate", *names], rows)


def write_patterns(
    root: Path, scans: list[ScanRow], volumes: dict[str, np.ndarray], rng: np.random.Generator, truth: bool
) -> None:
    train = [row for row in scans if row.split == "train"]
    validation = [row for row in scans if row.split == "validation"]
    kind = np.dtype(
        [("pattern", "i4"), ("rank", "i4"), ("resolution", "i4"), ("scan", "S12"), ("patient", "S64"),
         ("split", "S10"), ("corner", "i4", 3), ("extent", "i4", 3)]
    )  # fmt: skip
    table, rows, patches = [], [], []
    for pattern in range(PATTERNS):
        reference = train[pattern]
        corner = [int(rng.integers(2, side - size - 2)) for side, size in zip(SHAPE, PATCH, strict=True)]
        share = [(c + size / 2) / side for c, size, side in zip(corner, PATCH, SHAPE, strict=True)]
        table.append([pattern, reference.scan, reference.patient, *corner, *share, 0.12])
        others = [row for row in train if row is not reference]
        members = [(rank, row) for rank, row in enumerate([reference, *others[: K - 1]])]
        members += list(enumerate(validation[:K_VALIDATION]))
        for rank, row in members:
            for resolution in range(3 if row.split == "train" else 1):
                rows.append((pattern, rank, resolution, row.scan, row.patient, row.split, corner, PATCH))
                block = tuple(slice(c, c + size) for c, size in zip(corner, PATCH, strict=True))
                patches.append(volumes[row.scan][block])
    header = [
        "pattern",
        "scan",
        "patient",
        *(f"{what}_{axis}" for what in ("corner", "fraction") for axis in "zyx"),
        "tissue",
    ]
    write_csv(root / paths.PATTERNS_TABLE, header, table)
    write_json(
        root / paths.COORDINATES_METRICS,
        {
            "frame": "lungs",
            "patterns": PATTERNS,
            "references_refused": {"tissue": 3},
            "stepped_in": 1,
            "warnings": [],
        },
    )
    with create_h5(made_path(root / paths.PATTERNS)) as file:
        write_array(file, "patches", np.stack(patches), chunks=(1, *PATCH), fletcher32=True)
        rows = [(*row[:3], *(text.encode() for text in row[3:6]), *row[6:]) for row in rows]
        write_array(file, "rows", np.array(rows, kind))
        file.attrs["patch_size"] = np.array(PATCH, "i4")
        file.attrs["hu_min"], file.attrs["hu_max"], file.attrs["patterns"] = -1000.0, 1000.0, PATTERNS
    write_quality(root, truth)


NEAREST_MM = [14.5, 20.0, 11.0, 31.0, 17.0]  # by pattern; in random patients 24 and up
# frame, control, error and its interval, share of the gain, what it is farther than nearest
CONTROLS = [
    ("voxel", "nearest", (30.5, 25.0, 36.0), (0.21, 0.05, 0.4), (0.0, 0.0, 0.0)),
    ("voxel", "random", (34.0, 28.0, 41.0), (0.0, 0.0, 0.0), (3.5, 1.0, 6.0)),
    ("voxel", "oracle-point", (12.5, 9.0, 15.0), (1.0, 1.0, 1.0), (-18.0, -22.0, -14.0)),
    ("lungs", "nearest", (17.0, 13.0, 21.0), (0.382, 0.104, 0.617), (0.0, 0.0, 0.0)),
    ("lungs", "geometry", (20.5, 16.0, 24.0), (0.15, -0.06, 0.31), (3.2, 1.1, 5.4)),
    ("lungs", "oracle-body", (9.5, 7.0, 12.0), (0.81, 0.7, 0.9), (-7.0, -9.0, -5.0)),
    ("lungs", "oracle-point", (6.25, 4.0, 8.0), (1.0, 1.0, 1.0), (-10.0, -13.0, -8.0)),
    ("lungs", "random", (26.0, 21.0, 30.0), (0.0, 0.0, 0.0), (8.0, 3.0, 12.0)),
    ("none", "affine", (11.5, 8.0, 15.0), (0.7, 0.5, 0.85), (-5.5, -8.0, -2.0)),
]


def write_quality(root: Path, truth: bool, k: int = K, patients: int = 40) -> None:
    """What stage `quality` writes: for the study's frame and another, or for data without truth."""
    names = ["error_mm", "error_low", "error_high", "share", "share_low", "share_high"]
    names += ["against_nearest_mm", "against_nearest_low", "against_nearest_high", "spread_mm", "purity"]
    rows = [
        [frame, control, k, patients, PATTERNS, *error, *share, *against, 15.25, 0.725]
        for frame, control, error, share, against in CONTROLS
    ]
    write_csv(
        root / paths.QUALITY / "controls.csv",
        ["frame", "control", "k", "patients", "patterns", *names],
        rows if truth else [],
    )
    header = ["pattern", "scan", "crops", "crops_mm", "random_mm", "oracle_mm", "validation", "validation_mm"]
    header += ["spread_mm", "purity", "nearest_pattern_mm", "overlap", "within"]
    known = [
        [n, f"{n:012x}", 5, NEAREST_MM[n], 24.0 + n, 6.0, 2, 18.0, 15.0 + n, 0.8, 44.5 + n, 0.1, 0.5]
        for n in range(PATTERNS)
    ]
    write_csv(
        root / paths.QUALITY / "patterns.csv",
        header,
        known if truth else [[*row[:2], 0, "", "", "", 0, *[""] * 5, 0.5] for row in known],
    )
    figures = {
        "crops_mm": 17.0, "random_mm": 26.0, "oracle_mm": 6.25, "gain_mm": 11.0, "gain_mm_interval": [-4.0, 15.0],
        "share": 0.382, "share_interval": [0.104, 0.617], "geometry_share": 0.15, "spread_mm": 15.25,
        "spread_voxels": 5.08, "purity": 0.725, "nearest_pattern_mm": 46.5, "overlap": 0.1, "validation_mm": 18.0,
    }  # fmt: skip
    write_json(
        root / paths.QUALITY / "metrics.json",
        {
            **(figures if truth else dict.fromkeys(figures)),
            "patterns": PATTERNS,
            "crops": 80,
            "frame": "lungs",
            "correlation_within": 0.571,
            "correlation_across": -0.082,
            "classifier_accuracy": 0.845,
            "classifier_accuracy_interval": [0.79, 0.89],
            "classifier_untrained": 0.62,
            "classifier_chance": 0.2,
            "warnings": [],
        },
    )


def write_method(root: Path, method: str, volumes: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    folder = root / paths.method(method)
    discovered = method == "semantic-genesis"
    write_history(
        made_path(folder / "history.csv"),
        12,
        rng,
        ("restoration", "classification") if discovered else ("restoration",),
    )
    card = {
        "method": method,
        "network": {"architecture": "unet", "channels_in": 1, "width": 8, "depth": 4, "norm": "batch"},
        "hu_min": -1000.0,
        "hu_max": 1000.0,
        "patch_size": list(PATCH),
        "patterns": PATTERNS if discovered else 0,
        "losses": {"restoration": 1.0, "classification": 0.01 if discovered else 0.0},
        "epochs": 12,
        "best_epoch": 12,
        "best_validation": 0.00512,
        "parameters": 1196000,
    }
    write_json(folder / "card.json", card)
    original = np.stack([volume[20:36, 16:48, 16:48] for volume in list(volumes.values())[:8]])
    original = ((original.astype(np.float32) + 1000) / 2000).astype(np.float32)
    perturbed = original.copy()
    perturbed[:, 4:12, 8:20, 6:22] = rng.uniform(size=perturbed[:, 4:12, 8:20, 6:22].shape)
    with create_h5(folder / "examples.h5") as file:
        write_array(file, "original", original)
        write_array(file, "perturbed", perturbed)
        write_array(file, "restored", np.float32(0.9) * original + np.float32(0.03))


def write_target(root: Path, task: str, scans: list[ScanRow], rng: np.random.Generator) -> None:
    segmentation = task == "lcs"
    fields = [("scan", "S12"), ("patient", "S64"), ("split", "S10")]
    fields += [("corner", "i4", 3)] if segmentation else [("label", "u1"), ("centre_mm", "f8", 3)]
    with create_h5(made_path(root / paths.target(task))) as file:
        file.attrs["task"], file.attrs["kind"] = (
            task,
            "segmentation" if segmentation else "nodule-classification",
        )
        file.attrs["metric"] = "IoU" if segmentation else "AUC"
        file.attrs["warnings"] = json.dumps(["2 candidates lie outside their scan"])
        rows = []
        for row in scans:
            if segmentation and row.split == "test":
                group = file.create_group(f"volumes/{row.scan}")
                group.attrs["patient"] = row.patient
                continue
            for number in range(4):
                names = (row.scan.encode(), row.patient.encode(), row.split.encode())
                rows.append((*names, (0, 0, 0)) if segmentation else (*names, number == 0, (0.0, 0.0, 0.0)))
        write_array(file, "rows", np.array(rows, np.dtype(fields)))


def write_trials(root: Path, task: str, initialization: str, trials: int, rng: np.random.Generator) -> None:
    rows = []
    for trial in range(trials):
        for epoch in range(1, 9 + trial):
            value = float(0.7 * np.exp(-epoch / 5) + rng.uniform(0, 0.04))
            rows.append([trial, epoch, 0.001, value, value * 1.1])
    header = ["trial", "epoch", "learning_rate", "train", "validation"]
    write_csv(root / paths.trials(task, initialization) / "history.csv", header, rows)


def write_evaluation(root: Path, study: Params, scores: dict[tuple[str, str], list[float]]) -> None:
    summary, trials, pairs, baselines = [], [], [], []
    nan = float("nan")
    for task in study.finetune.tasks:
        metric = "IoU" if task == "lcs" else "AUC"
        for number, name in enumerate(study.finetune.initializations):
            mine = scores[task, name]
            sd = float(np.std(mine, ddof=1)) if len(mine) > 1 else nan
            p = (nan, nan, "") if number == 0 or len(mine) == 1 else (0.0131 / number, 0.0262 / number, "+")
            mean = float(np.mean(mine))
            summary.append([task, metric, name, len(mine), mean, sd, *p, mean - 0.05, mean + 0.04])
            trials += [[task, metric, name, trial, score, nan] for trial, score in enumerate(mine)]
            pairs += [
                [
                    task,
                    metric,
                    other,
                    name,
                    float(np.mean(scores[task, other])) - mean,
                    0.021,
                    0.042,
                    -0.12,
                    -0.01,
                ]
                for other in study.finetune.initializations[:number]
            ]
        baselines.append([task, metric, "threshold", "voxels between 60 and 160 HU", 0.815])
    write_csv(
        root / paths.EVALUATE / "summary.csv",
        [
            "task",
            "metric",
            "initialization",
            "trials",
            "mean",
            "sd",
            "p",
            "p_corrected",
            "mark",
            "low",
            "high",
        ],
        summary,
    )
    write_csv(
        root / paths.EVALUATE / "trials.csv",
        ["task", "metric", "initialization", "trial", "score", "mean_per_scan"],
        trials,
    )
    write_csv(
        root / paths.EVALUATE / "pairs.csv",
        ["task", "metric", "first", "second", "difference", "p", "p_corrected", "low", "high"],
        pairs,
    )
    write_csv(
        root / paths.EVALUATE / "baselines.csv", ["task", "metric", "name", "description", "score"], baselines
    )
    write_json(root / paths.EVALUATE / "notes.json", {"warnings": []})
