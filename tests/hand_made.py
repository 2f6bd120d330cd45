"""Small resampled scans and rankings, written by hand for the tests of discovery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sg.cohorts.records import ScanRow
from sg.neighbors import Embeddings, Ranking, rank
from sg.params import Coordinates
from sg.resampled import Resampled
from sg.resampling import write_resampled
from sg.roles import Roles, decide_roles
from sg.storage import create_h5, write_array

SPACING_MM = (2.0, 3.0, 4.0)


def name(number: int) -> str:
    """A scan's id."""
    return f"{number:012x}"


def noise(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """HU of every size, about half of them tissue at -150."""
    return np.random.default_rng(seed).integers(-1000, 701, shape).astype(np.int16)


def write_scan(
    folder: Path, number: int, image: np.ndarray, origin_mm=(0.0, 0.0, 0.0), clip=(-1000.0, 1000.0)
) -> None:
    """<name>.h5 as `resample` writes it; the patient is patient-<number>."""
    resampled = Resampled(image, None, SPACING_MM, origin_mm, f"patient-{number}", *clip)
    write_resampled(
        folder / f"{name(number)}.h5", name(number), resampled, np.zeros((2, 2, 2), np.int16), "key"
    )


def embeddings(vectors: np.ndarray, splits: list[str], patients: list[str] | None = None) -> Embeddings:
    """Scan i is name(i) of patient-<i>, unless patients are given."""
    patients = patients or [f"patient-{i}" for i in range(len(splits))]
    split = np.array(splits, "S10")
    return Embeddings(
        np.asarray(vectors, np.float32),
        np.array([name(i) for i in range(len(splits))], "S12"),
        np.array(patients, "S64"),
        split,
        split == b"train",
        split == b"validation",
    )


def roles(patients: Sequence[str], splits: Sequence[str], use: tuple[str, ...] = ("pretrain",)) -> Roles:
    """The roles of patients in these splits, one scan a name."""
    rows = [
        scan_row(i, split, use, patient)
        for i, (patient, split) in enumerate(zip(patients, splits, strict=True))
    ]
    return Roles(decide_roles(rows))


def in_a_row(train: int, validation: int, depth: int | str = "all") -> Ranking:
    """Scan i lies at i on a line, so that the nearest are the neighbours in number; training scans come first."""
    splits = ["train"] * train + ["validation"] * validation
    return rank(embeddings(np.arange(train + validation)[:, None], splits), "Flat", depth)[0]


def settings(**changes) -> Coordinates:
    """Small patches in frame `voxel`, every position admissible, one jittered crop."""
    values = {
        "patterns": 3,
        "k": 3,
        "k_validation": 1,
        "frame": "voxel",
        "patch_size": (2, 4, 4),
        "min_distance": 0.0,
        "rule": {"border": (0, 0, 0), "tissue_hu": -150.0, "tissue_min": 0.0, "tissue_max": 1.0},
        "jitter": {"side": (50, 79), "shift": (-10, 9), "crops": 1},
    }
    return Coordinates(**(values | changes))


def scan_row(
    number: int, split: str, use: tuple[str, ...] = ("pretrain",), patient: str | None = None
) -> ScanRow:
    """A row of scans.csv; of patient-<number> unless another is given."""
    return ScanRow(
        name(number), patient or f"patient-{number}", "hand", "folder", use, split, f"{number}.nii", "", "", "CT",
        (8, 8, 8), SPACING_MM, "LPS", 1, "0" * 64, "",
    )  # fmt: skip


def write_truth_file(path: Path, displacements, labels, **attributes) -> None:
    """A phantom's truth: maps (n, 3, z, y, x), labels (z, y, x) of which 0 has no counterpart and n is map n - 1.

    Grid and scan lie along the world from 0 with 1 mm spacing, unless attributes of `sg.truth.Truth` say otherwise.
    """
    maps = len(displacements)
    plain = {
        "displacements": {"grid_origin_mm": np.zeros(3), "grid_spacing_mm": np.ones(3), "rotation": np.eye(3),
                          "offset_mm": np.zeros(3)},
        "labels": {"names": json.dumps(["own", *map(str, range(maps))]), "map_of_label": np.arange(-1, maps),
                   "origin_mm": np.zeros(3), "spacing_mm": np.ones(3), "direction": np.eye(3)},
    }  # fmt: skip
    with create_h5(path) as file:
        for kind, array in (
            ("displacements", np.asarray(displacements, "<f4")),
            ("labels", np.asarray(labels, "u1")),
        ):
            dataset = write_array(file, kind, array)
            for key, value in plain[kind].items():
                dataset.attrs[key] = attributes.get(key, value)
