from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from sg.crops import CROP, PatternRow, write_crops, write_patterns, write_positions
from sg.patches import ROW, PatchCache, write_cache
from sg.quality import bootstrap_median, correlations, in_a_line, measure, write_quality
from tests.hand_made import name, noise, write_truth_file

SIZE = (2, 3, 4)


def write_truth(folder: Path, scan: str, shift_mm, missing_below_x: float = -np.inf) -> None:
    """An atlas in which the point p of this scan is p + shift; something of the patient's own below some x."""
    folder.mkdir(exist_ok=True)
    nodes = np.broadcast_to(np.reshape(shift_mm, (1, 3, 1, 1, 1)), (1, 3, 2, 2, 2))
    labels = np.broadcast_to(np.arange(0, 101, 10) >= missing_below_x, (11, 11, 11))
    write_truth_file(
        folder / f"{scan}.h5", nodes, labels, grid_spacing_mm=(100.0,) * 3, spacing_mm=(10.0,) * 3
    )


# ---------------------------------------------------------------------------------------- whole


def write_discovered(folder: Path, patterns: int = 2, train: int = 3, everyone: int = 6) -> Path:
    """Patterns at (50, 50, 50) in their reference, scan 0 and 1, and in the scans after it, validation scan 9 too.

    In scan i every pattern lies at (50 + i, 50, 50); a jittered crop is 40 mm off, which must not matter.
    """
    folder.mkdir()
    write_patterns(
        folder / "patterns.csv",
        [PatternRow(p, name(p), f"patient-{p}", 0, 0, 0, 0.5, 0.5, 0.5, 0.2) for p in range(patterns)],
    )
    crops = []
    for p in range(patterns):
        for rank in range(train):
            for resolution in (0, 1):
                centre = (50 + p + rank, 50 + 40 * resolution, 50)
                crops.append(
                    (p, rank, resolution, name(p + rank).encode(), b"x", b"train", (0, 0, 0), SIZE, centre)
                )
        crops.append((p, 1, 0, name(9).encode(), b"x", b"validation", (0, 0, 0), SIZE, (59, 50, 50)))
    write_crops(folder / "crops.csv", [np.array(crops, CROP)])
    centres = np.array([(50 + i, 50, 50) for i in range(everyone)], float)
    fits = np.arange(everyone) != everyone - 1
    write_positions(
        folder / "positions.csv", [name(i) for i in range(everyone)], [(centres, fits)] * patterns
    )
    return folder


def cache_of(path: Path, groups: list[np.ndarray]) -> Path:
    """Group g of patches (n, z, y, x) is pattern g; each has a jittered and a validation patch of noise beside it."""
    rows, patches = [], []
    for g, group in enumerate(groups):
        for rank, patch in enumerate(group):
            rows.append((g, rank, 0, b"s", b"p", b"train", (0, 0, 0), SIZE))
            rows.append((g, rank, 1, b"s", b"p", b"train", (0, 0, 0), SIZE))
            patches += [patch, noise(rank, SIZE)]
        rows.append((g, 1, 0, b"s", b"p", b"validation", (0, 0, 0), SIZE))
        patches.append(noise(99, SIZE))
    kwargs = {
        "hu_min": -1000,
        "hu_max": 1000,
        "patterns": len(groups),
        "patch_size": SIZE,
        "compression": "none",
    }
    write_cache(path, np.array(rows, ROW), enumerate(patches), **kwargs)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return cache_of(tmp_path / "patterns.h5", [noise(1, (3, *SIZE)), noise(2, (3, *SIZE))])


def test_distances_are_medians_in_the_atlas_from_the_reference(tmp_path, cache):
    discovered = write_discovered(tmp_path / "discovered")
    # Scan i's own coordinates are i mm off along x and 0, 2, 4, ... along y.
    for i in (*range(6), 9):
        write_truth(tmp_path / "truth", name(i), (-i, 2 * i, 0))
    rows, figures = measure(discovered, cache, tmp_path / "truth", 20, 1)
    # Pattern 0: crops in scans 1 and 2 lie 2 and 4 mm off along y; pattern 1: in 2 and 3, by 2 and 4 again.
    assert [row.crops_mm for row in rows] == pytest.approx([3.0, 3.0], abs=1e-4)
    # All others of scans 0 to 4 (5 does not hold it): 2, 4, 6, 8; and 2, 2, 4, 6.
    assert [row.random_mm for row in rows] == pytest.approx([5.0, 3.0], abs=1e-4)
    assert [(row.crops, row.random, row.validation) for row in rows] == [(2, 4, 1), (2, 4, 1)]
    assert [row.validation_mm for row in rows] == pytest.approx([18.0, 16.0], abs=1e-4)
    assert figures["crops_mm"] == pytest.approx(3.0)
    assert figures["random_mm"] == pytest.approx(4.0)
    assert figures["gain_mm"] == pytest.approx(1.0)
    assert (figures["patterns"], figures["crops"], figures["random"], figures["warnings"]) == (2, 4, 8, [])
    assert in_a_line(figures).startswith(
        "2 patterns: crops lie 3.0 mm (median, in the atlas) from their reference, random patients' 4.0 mm "
        "(gain pattern by pattern 1.0 mm, 95 % interval 0.0 to 2.0); patches correlate by "
    )


def test_random_patients_are_drawn_without_the_reference_and_without_repetition(tmp_path, cache):
    discovered = write_discovered(tmp_path / "discovered", patterns=1)
    for i in range(6):
        write_truth(tmp_path / "truth", name(i), (0, 100 * (i == 0), 0))
    # Were the reference drawn, a distance of 0 would be among those of 100 mm and more.
    rows, _ = measure(discovered, cache, tmp_path / "truth", 3, 1)
    assert rows[0].random == 3
    assert rows[0].random_mm > 99
    a, b = (measure(discovered, cache, tmp_path / "truth", 2, seed)[0][0].random_mm for seed in (1, 1))
    assert a == b


def test_without_truth_there_are_no_distances_and_a_sentence_says_so(tmp_path, cache):
    discovered = write_discovered(tmp_path / "discovered")
    rows, figures = measure(discovered, cache, tmp_path / "truth", 4, 1)
    for key in ("crops_mm", "random_mm", "gain_mm", "validation_mm", "crops_mm_interval"):
        assert figures[key] is None
    assert figures["correlation_within"] is not None
    assert any("no distances in mm" in warning for warning in figures["warnings"])
    assert "no atlas" in in_a_line(figures)
    write_quality(tmp_path, rows, figures)
    assert json.loads((tmp_path / "metrics.json").read_text()) == figures
    with open(tmp_path / "patterns.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["pattern"], row["scan"], row["crops_mm"]) for row in table] == [
        ("0", name(0), ""),
        ("1", name(1), ""),
    ]


def test_a_crop_that_missed_the_organ_counts_by_how_far(tmp_path, cache):
    """In scan 2 nothing of the organ is where its crops are: their distances are as if there were."""
    discovered = write_discovered(tmp_path / "discovered")
    for i in (*range(6), 9):
        write_truth(tmp_path / "truth", name(i), (-i, 2 * i, 0), missing_below_x=90 if i == 2 else -np.inf)
    rows, figures = measure(discovered, cache, tmp_path / "truth", 20, 1)
    assert [(row.crops, row.random, row.validation) for row in rows] == [(2, 4, 1), (2, 4, 1)]
    assert [row.crops_mm for row in rows] == pytest.approx([3.0, 3.0], abs=1e-4)
    assert figures["warnings"] == []


def test_of_a_reference_in_fat_the_nearest_organ_is_the_pattern_s(tmp_path, cache):
    """Two organs with maps of their own, that of the second 7 mm further on in every other scan."""
    discovered = write_discovered(tmp_path / "discovered", patterns=1)
    (tmp_path / "truth").mkdir()
    labels = np.zeros((11, 11, 11))
    labels[:, :, 2], labels[:, :, 7] = 1, 2  # of a reference at x = 50, the second is nearer
    for i in (*range(6), 9):
        fields = np.zeros((2, 3, 2, 2, 2))
        fields[0, 0], fields[1, 0] = 100 * i, -i + 7 * (i > 0)
        write_truth_file(
            tmp_path / "truth" / f"{name(i)}.h5",
            fields,
            labels,
            grid_spacing_mm=(100.0,) * 3,
            spacing_mm=(10.0,) * 3,
        )
    rows, _ = measure(discovered, cache, tmp_path / "truth", 20, 1)
    assert (rows[0].crops_mm, rows[0].random_mm) == (
        pytest.approx(7.0, abs=1e-4),
        pytest.approx(7.0, abs=1e-4),
    )


def test_scans_without_truth_are_left_out_and_counted(tmp_path, cache):
    discovered = write_discovered(tmp_path / "discovered")
    for i in (1, 2, 3, 4, 5):
        write_truth(tmp_path / "truth", name(i), (-i, 2 * i, 0))
    rows, figures = measure(discovered, cache, tmp_path / "truth", 20, 1)
    assert (rows[0].crops, rows[0].random) == (0, 0)
    assert np.isnan(rows[0].crops_mm)
    assert figures["crops_mm"] == pytest.approx(3.0, abs=1e-4)
    # Of pattern 0 all 7; of pattern 1, whose reference is scan 1, scan 0 among the random ones and validation scan 9.
    assert any(warning.startswith("9 of 14 crops have no distance") for warning in figures["warnings"])
    assert any(
        warning.startswith("1 of 2 references are scans whose place in an atlas is not known")
        for warning in figures["warnings"]
    )


# ----------------------------------------------------------------------------------------- correlations


def test_correlations_are_the_means_over_all_pairs(tmp_path):
    common = noise(10, SIZE).astype(float)
    groups = [(0.5 * common + 0.5 * noise(20 + g, (5, *SIZE))).astype(np.int16) for g in range(3)]
    alike = correlations(PatchCache(cache_of(tmp_path / "c.h5", groups)))
    flat = [(g, patch.ravel().astype(float)) for g, group in enumerate(groups) for patch in group]
    within, across = {g: [] for g in range(3)}, []
    for (g, a), (h, b) in itertools.combinations(flat, 2):
        (within[g] if g == h else across).append(np.corrcoef(a, b)[0, 1])
    for g in range(3):
        assert alike.within[g] == pytest.approx(np.mean(within[g]))
    assert alike.mean_within == pytest.approx(np.mean([np.mean(values) for values in within.values()]))
    assert alike.across == pytest.approx(np.mean(across))
    assert alike.flat == 0


def test_equal_patches_correlate_by_one_and_their_negatives_by_minus_one(tmp_path):
    patch = noise(1, SIZE)
    alike = correlations(
        PatchCache(cache_of(tmp_path / "c.h5", [np.stack([patch] * 4), np.stack([-patch] * 2)]))
    )
    assert alike.within == {0: pytest.approx(1), 1: pytest.approx(1)}
    assert alike.across == pytest.approx(-1)


def test_patches_of_one_value_are_left_out_and_counted(tmp_path):
    patch, flat = noise(1, SIZE), np.full(SIZE, -1000, np.int16)
    alike = correlations(
        PatchCache(cache_of(tmp_path / "c.h5", [np.stack([patch, flat, patch]), np.stack([flat])]))
    )
    assert (alike.within, alike.flat) == ({0: pytest.approx(1)}, 2)
    assert np.isnan(alike.across)


def test_the_bootstrap_interval_of_a_median_covers_it_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_median(rng.normal(3.0, 1.0, 25), rng)
        covered += low <= 3.0 <= high
    assert 178 <= covered <= 199  # 95 % of 200 is 190
    assert bootstrap_median(np.array([1.0]), rng) is None
