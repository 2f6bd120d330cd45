from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sg.cohorts.records import ScanRow, write_rows
from sg.coordinates import discover, write_discovery
from sg.crops import read_crops
from sg.cutting import cut
from sg.neighbors import rank, read_ranking, write_ranking
from sg.networks.autoencoder import untrained
from sg.patches import ROW, write_cache
from sg.quality.measuring import (
    Sources,
    _patch_mm,
    in_a_line,
    measure,
    nearest_patterns,
    overlaps,
    write_quality,
)
from sg.quality.study import FRAMES
from sg.resampled import read_resampled
from sg.truth import read_truth
from sg.weights import save_tensors
from tests.hand_made import embeddings, name, noise, roles, scan_row, settings, write_scan, write_truth_file
from tests.quality.hand_made import row, study, write_thumbnails

TRAIN, VALIDATION = 9, 3
# Scans 0 and 3 are of one patient.
PATIENTS = ["patient-0", *[f"patient-{0 if i == 3 else i}" for i in range(1, TRAIN + VALIDATION)]]
SPLITS = ["train"] * TRAIN + ["validation"] * VALIDATION
ROLES = roles(PATIENTS, SPLITS)
NO_JITTER = {"side": (50, 79), "shift": (-10, 9), "crops": 0}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Scans of noise of many shapes; some cannot hold what others can, nor a jittered crop, which is always off to a side.

    Each has a way into the atlas of its own.
    """
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "resampled").mkdir()
    (folder / "truth").mkdir()
    rng = np.random.default_rng(4)
    for i in range(TRAIN + VALIDATION):
        shape = (6 + i % 3, 12 + i % 4, 14 + i % 2)
        write_scan(folder / "resampled", i, noise(i, shape), origin_mm=(10.0 + i, -5.0, 2.5))
        nodes = rng.normal(size=(1, 3, 2, 2, 2)) * 8
        write_truth_file(
            folder / "truth" / f"{name(i)}.h5",
            nodes,
            np.ones((20, 20, 20)),
            grid_spacing_mm=(200.0,) * 3,
            grid_origin_mm=(-50.0,) * 3,
            origin_mm=(-20.0,) * 3,
            spacing_mm=(10.0,) * 3,
        )
    found = embeddings(np.arange(TRAIN + VALIDATION)[:, None] ** 1.5, SPLITS, PATIENTS)
    ranking, metrics = rank(found, "Flat", "all")
    write_ranking(folder, ranking, metrics)
    write_thumbnails(
        folder / "thumbnails.h5", np.stack([noise(50 + i, (8, 8, 8)) for i in range(TRAIN + VALIDATION)])
    )
    rows = [scan_row(i, SPLITS[i], patient=PATIENTS[i]) for i in range(TRAIN + VALIDATION)]
    write_rows(folder / "scans.csv", ScanRow, rows)
    save_tensors(folder / "autoencoder.safetensors", untrained(2, 2, 99).state_dict())
    (folder / "card.json").write_text(json.dumps({"width": 2, "depth": 2}))
    return folder


def sources(cohort: Path, folder: Path, truth: str = "truth", **changes) -> Sources:
    """What is discovered and cut with these settings, in `folder`."""
    asked = {
        "patterns": 3,
        "k": 4,
        "k_validation": 2,
        "jitter": {"side": (50, 60), "shift": (40, 60), "crops": 1},
    }
    found = discover(
        read_ranking(cohort / "neighbors.h5", ROLES),
        cohort / "resampled",
        settings(**(asked | changes)),
        3,
        1,
    )
    write_discovery(folder, found)
    crops = np.concatenate(found.crops)
    rows = np.zeros(len(crops), ROW)
    for field in ROW.names:
        rows[field] = crops[field]
    images = {
        row["scan"]: read_resampled(cohort / "resampled" / f"{row['scan'].decode()}.h5").image for row in rows
    }
    patches = (cut(images[row["scan"]], row["corner"], row["extent"], (2, 4, 4)) for row in rows)
    write_cache(folder / "patterns.h5", rows, enumerate(patches), hu_min=-1000, hu_max=1000, patterns=3,
                patch_size=(2, 4, 4), compression="none")  # fmt: skip
    return Sources(
        folder,
        cohort / truth,
        folder / "patterns.h5",
        cohort / "neighbors.h5",
        cohort / "thumbnails.h5",
        cohort / "scans.csv",
        cohort,
    )


def plain_errors(cohort: Path, folder: Path, split: bytes) -> list[float]:
    """The patterns' median distances of the fixed crops that were cut, straight from crops.csv and the truths."""
    crops = read_crops(folder / "crops.csv")
    crops = crops[crops["resolution"] == 0]
    medians = []
    for pattern in range(3):
        mine = crops[crops["pattern"] == pattern]
        places = [
            read_truth(cohort / "truth" / f"{crop['scan'].decode()}.h5").atlas_by(
                np.array([0]), crop["centre_mm"][None]
            )[0]
            for crop in mine
        ]
        reference = int(np.flatnonzero((mine["rank"] == 0) & (mine["split"] == b"train"))[0])
        apart = np.linalg.norm(np.array(places) - places[reference], axis=1)
        wanted = mine["split"] == split
        wanted[reference] = False
        medians.append(float(np.median(apart[wanted])))
    return medians


@pytest.mark.parametrize(
    "changes",
    [{}, {"frame": "body"}, {"k": "all"}, {"jitter": NO_JITTER}, {"k_validation": 3}],
)
def test_the_nearest_patients_crops_are_those_that_were_cut(cohort, tmp_path, changes):
    where = sources(cohort, tmp_path, **changes)
    found = measure(where, ROLES, 0, 1)
    expected = plain_errors(cohort, tmp_path, b"train")
    assert [row.crops_mm for row in found.patterns] == pytest.approx(expected, abs=1e-9)
    (own,) = (
        row
        for row in found.controls
        if (row.frame, row.control) == (changes.get("frame", "voxel"), "nearest")
    )
    assert own.error_mm == pytest.approx(np.median(expected))
    assert found.figures["crops_mm"] == pytest.approx(np.median(expected), abs=1e-4)
    validation = plain_errors(cohort, tmp_path, b"validation")
    assert [row.validation_mm for row in found.patterns] == pytest.approx(validation, abs=1e-9)
    crops = read_crops(tmp_path / "crops.csv")
    fixed = crops[(crops["resolution"] == 0) & (crops["split"] == b"train")]
    assert found.figures["crops"] == len(fixed) - 3
    assert {int(rank) for rank in fixed["rank"]} > {0, 1, 2}


def test_the_tables_have_every_control_in_every_frame_and_equal_bytes(cohort, tmp_path):
    where = sources(cohort, tmp_path)
    written = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        found = measure(where, ROLES, 2, 1)
        write_quality(tmp_path / folder, found)
        written.append({file: (tmp_path / folder / file).read_bytes()
                        for file in ("controls.csv", "patterns.csv", "metrics.json")})  # fmt: skip
    assert written[0] == written[1]
    with open(tmp_path / "one" / "controls.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["nearest", "geometry", "thumbnails", "pca", "untrained", "random", "oracle-body", "oracle-point"]
    assert {(row["frame"], row["control"]) for row in rows} == {
        *((frame, control) for frame in FRAMES for control in names),
        ("none", "affine"),
    }
    assert list(rows[0]) == [
        *("frame", "control", "k", "patients", "patterns", "error_mm", "error_low", "error_high"),
        *(
            "share",
            "share_low",
            "share_high",
            "against_nearest_mm",
            "against_nearest_low",
            "against_nearest_high",
        ),
        *("spread_mm", "purity"),
    ]
    assert {row["patients"] for row in rows} == {str(TRAIN - 1)}
    with open(tmp_path / "one" / "patterns.csv", newline="") as file:
        (header, *lines) = csv.reader(file)
    assert header == [
        *("pattern", "scan", "crops", "crops_mm", "random_mm", "oracle_mm", "validation", "validation_mm"),
        *("spread_mm", "purity", "nearest_pattern_mm", "overlap", "within"),
    ]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    figures = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert figures == found.figures
    assert set(figures) == {
        *("patterns", "crops", "frame", "spread_mm", "spread_voxels", "purity", "nearest_pattern_mm", "overlap"),
        *(f"{part}{end}" for part in ("crops_mm", "random_mm", "oracle_mm", "gain_mm", "share", "geometry_share",
                                      "classifier_accuracy") for end in ("", "_interval")),
        *("validation_mm", "correlation_within", "correlation_across"),
        *("classifier_untrained", "classifier_chance", "warnings"),
    }  # fmt: skip
    by_name = {row["control"]: row for row in rows if row["frame"] == "voxel"}
    assert figures["oracle_mm"] == float(by_name["oracle-point"]["error_mm"])
    assert figures["geometry_share"] == float(by_name["geometry"]["share"])
    assert figures["share_interval"] == [float(by_name["nearest"][f"share_{end}"]) for end in ("low", "high")]
    assert figures["spread_voxels"] == pytest.approx(
        figures["spread_mm"] / 3, abs=1e-4
    )  # voxels of 2 x 3 x 4 mm
    assert figures["gain_mm"] == pytest.approx(
        np.median([row.random_mm - row.crops_mm for row in found.patterns]), abs=1e-4
    )
    assert "% of what the best choice of patients would gain" in in_a_line(figures)


def test_without_truth_there_are_no_distances_and_all_else_is_there(cohort, tmp_path):
    found = measure(sources(cohort, tmp_path, truth="nowhere"), ROLES, 2, 1)
    assert found.controls == []
    for key in ("crops_mm", "random_mm", "oracle_mm", "gain_mm", "share", "geometry_share", "validation_mm", "spread_mm",
                "purity", "crops_mm_interval", "nearest_pattern_mm", "overlap"):  # fmt: skip
        assert found.figures[key] is None
    for key in ("correlation_within", "correlation_across", "classifier_accuracy", "classifier_untrained"):
        assert np.isfinite(found.figures[key])
    assert found.figures["warnings"][0].endswith("there are no distances in mm")
    assert "no atlas" in in_a_line(found.figures)
    write_quality(tmp_path, found)
    assert (tmp_path / "controls.csv").read_text().startswith("frame,control,k,")
    with open(tmp_path / "patterns.csv", newline="") as file:
        assert [row["crops_mm"] for row in csv.DictReader(file)] == ["", "", ""]


def test_scans_without_truth_are_left_out_and_counted(cohort, tmp_path):
    where = sources(cohort, tmp_path)
    whole = measure(where, ROLES, 0, 1)
    reference = whole.patterns[0].scan
    (tmp_path / "truth").mkdir()
    for path in (cohort / "truth").iterdir():
        if path.stem != reference:
            (tmp_path / "truth" / path.name).hardlink_to(path)
    found = measure(replace(where, truth=tmp_path / "truth"), ROLES, 1, 1)
    assert np.isnan(found.patterns[0].crops_mm)
    assert np.isnan(found.patterns[0].overlap)
    assert found.patterns[0].crops == 0
    assert all(row.patterns == 2 for row in found.controls)
    said = " ".join(found.figures["warnings"])
    assert "1 of 3 references are scans whose place in an atlas is not known" in said
    assert "1 scans that patterns are laid in have no known position" in said


def test_with_all_patients_there_is_no_choice_and_that_is_said(cohort, tmp_path):
    found = measure(sources(cohort, tmp_path, k="all"), ROLES, 0, 1)
    assert found.figures["share"] is None
    assert found.figures["share_interval"] is None
    assert any("there is no choice of patients" in warning for warning in found.figures["warnings"])
    assert "best choice" not in in_a_line(found.figures)


def test_the_nearest_other_pattern_and_the_overlap_of_boxes():
    origin = np.array([(0.0, 0, 0), (3, 4, 0), (0, 0, 30), (np.nan,) * 3])
    np.testing.assert_allclose(nearest_patterns(origin), [5, 5, 30, np.nan])
    # Boxes of 10 and 8 a side, 3 and 4 apart: 10 + 8 over 2 less 3, and 4, in common, and 8 along z.
    sides = np.array([(10.0, 10, 10), (8, 8, 8), (10, 10, 10), (10, 10, 10)])
    np.testing.assert_allclose(overlaps(origin, sides), [6 * 5 * 8 / 1000, 6 * 5 * 8 / 512, 0, np.nan])
    assert np.isnan(nearest_patterns(origin[:1])).all()
    assert np.isnan(overlaps(origin[:1], sides[:1])).all()


def test_a_patch_has_the_sides_of_its_reference_s_voxels():
    surveys = [row(0, spacing_mm=(1.0, 10.0, 100.0)), row(1), row(2, spacing_mm=(2.0, 10.0, 100.0))]
    of = replace(study(np.zeros((2, 3)), reference=[2, 0]), surveys=surveys)
    assert _patch_mm(of).tolist() == [[8, 30, 200], [4, 30, 200]]  # 2 x 3 x 4 voxels (z, y, x)
