"""Patches with masks, whole test scans, and baselines that know training patients alone."""

import json

import numpy as np
import pytest

from sg.errors import InputError
from sg.params import SegmentationTarget
from sg.storage import open_h5
from sg.targets import segmentation
from sg.targets.metrics import iou
from sg.targets.tasks import write_task
from tests.targets.cohort import finish, scan_row, serving, write_scan

SHAPE = (10, 18, 20)
SIZE = (4, 8, 8)
RECIPE = SegmentationTarget(
    kind="segmentation", patch_size=SIZE, labels=[1, 2], patches=7, window=SIZE, overlap=0.25
)


def scene(number):
    """An organ of 50..90 HU with a tumour (label 2) and a bone of the same brightness elsewhere, in air."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    z, y, x = rng.integers(0, 4, 3)
    labels[z : z + 5, y : y + 9, x : x + 9] = 1
    labels[z, y, x] = 2
    labels[9, 17, 19] = 3
    image = np.where(labels > 0, rng.integers(50, 91, SHAPE), rng.integers(-900, -500, SHAPE))
    return image, labels


@pytest.fixture
def cohort(tmp_path):
    scans = [scan_row(number, ("train", "validation", "test")[number // 2]) for number in range(6)]
    for number, row in enumerate(scans):
        write_scan(tmp_path, row, *scene(number))
    return scans, finish(tmp_path)


def write(cohort, path, recipe=RECIPE, seed=1):
    scans, folder = cohort
    return write_task(path, "lcs", recipe, serving(scans, "lcs"), [], folder, seed)


def test_patches_and_masks_are_cut_where_their_rows_say(cohort, tmp_path):
    facts, warnings = write(cohort, tmp_path / "lcs.h5")
    with open_h5(tmp_path / "lcs.h5") as file:
        patches, masks, rows = file["patches"][...], file["masks"][...], file["rows"][...]
        assert json.loads(file.attrs["facts"])["patches"] == len(rows) == 4 * 7
    assert set(rows["split"]) == {b"train", b"validation"}
    for patch, mask, row in zip(patches, masks, rows, strict=True):
        image, labels = scene(int(row["scan"].decode(), 16))
        box = tuple(slice(a, a + b) for a, b in zip(row["corner"], SIZE, strict=True))
        assert np.array_equal(patch, image[box])
        assert np.array_equal(mask, np.isin(labels[box], [1, 2]))
    assert facts == "28 patches, 2 whole test scans; patients: 2 train, 2 validation, 2 test"
    assert warnings == []


def test_the_larger_half_of_a_scans_patches_is_centred_in_the_structure(cohort, tmp_path):
    write(cohort, tmp_path / "lcs.h5")
    with open_h5(tmp_path / "lcs.h5") as file:
        rows = file["rows"][...]
    middle = np.array(SIZE) // 2
    last = np.array(SHAPE) - SIZE
    for scan in np.unique(rows["scan"]):
        labels = scene(int(scan.decode(), 16))[1]
        # a centre that would push the patch over the edge was moved in; so ask for a voxel that moves to this corner
        wanted = {tuple(np.clip(voxel - middle, 0, last)) for voxel in np.argwhere(np.isin(labels, [1, 2]))}
        corners = [tuple(corner) for corner in rows[rows["scan"] == scan]["corner"]]
        assert all(corner in wanted for corner in corners[:4])
        assert all(0 <= side <= most for corner in corners for side, most in zip(corner, last, strict=True))


def test_whole_test_scans_are_stored_with_their_truth(cohort, tmp_path):
    write(cohort, tmp_path / "lcs.h5")
    scans, _ = cohort
    with open_h5(tmp_path / "lcs.h5") as file:
        assert sorted(file["volumes"]) == [row.scan for row in scans if row.split == "test"]
        for row in scans[4:]:
            image, labels = scene(int(row.scan, 16))
            volume = file["volumes"][row.scan]
            assert np.array_equal(volume["image"][...], image)
            assert np.array_equal(volume["truth"][...], np.isin(labels, [1, 2]))
            assert volume.attrs["patient"] == row.patient
            assert tuple(volume.attrs["spacing_mm"]) == (2.0, 1.0, 3.0)


def test_baselines_are_the_window_of_training_patients_and_its_largest_component(cohort, tmp_path):
    write(cohort, tmp_path / "lcs.h5")
    with open_h5(tmp_path / "lcs.h5") as file:
        described = file["baseline/threshold"].attrs["description"]
        assert "the window 50..90 HU that has the largest IoU on 2 training patients" in described
        for scan in file["volumes"]:
            image, labels = scene(int(scan, 16))
            truth = np.isin(labels, [1, 2])
            window = file["baseline/threshold"][scan][...]
            assert np.array_equal(window, (image >= 50) & (image <= 90))
            assert iou(truth, window) == pytest.approx(truth.sum() / (truth.sum() + 1))  # the bone voxel
            assert iou(truth, file["baseline/threshold-component"][scan][...]) == 1


def test_the_best_window_is_that_of_trying_each_one():
    rng = np.random.default_rng(5)
    for _ in range(20):
        histograms = segmentation.Histograms(-3, rng.integers(0, 5, 8), rng.integers(0, 9, 8))
        scores = {}
        for lo in range(8):
            for hi in range(lo, 8):
                hits = histograms.inside[lo : hi + 1].sum()
                scores[lo - 3, hi - 3] = hits / (
                    histograms.inside.sum() + histograms.outside[lo : hi + 1].sum()
                )
        lo, hi, score = segmentation.best_window(histograms)
        assert score == pytest.approx(max(scores.values()))
        assert scores[lo, hi] == pytest.approx(score)


def test_the_largest_component_hangs_together_by_faces():
    mask = np.zeros((1, 3, 4), bool)
    mask[0, 0, :2] = True
    mask[0, 1, 2:] = True  # touches the first part at a corner only
    mask[0, 2, 2] = True
    assert np.array_equal(
        np.argwhere(segmentation.largest_component(mask)), [[0, 1, 2], [0, 1, 3], [0, 2, 2]]
    )
    assert not segmentation.largest_component(np.zeros((2, 2, 2), bool)).any()


def test_a_scan_without_the_structure_has_uniform_patches_and_is_named(cohort, tmp_path):
    scans, folder = cohort
    write_scan(folder, scans[0], scene(0)[0], np.zeros(SHAPE, np.uint8))
    _, warnings = write(cohort, tmp_path / "lcs.h5")
    assert warnings == [
        f"lcs: scan {scans[0].scan} (train) holds nothing of the structure: its patches are all uniform"
    ]


def test_scans_without_a_label_map_are_left_out_and_counted(cohort, tmp_path):
    scans, folder = cohort
    more = [*scans, scan_row(6, "test", truth="")]
    write_scan(folder, more[-1], scene(6)[0])
    _, warnings = write((more, folder), tmp_path / "lcs.h5")
    assert warnings == [f"lcs: 1 scans without a label map are left out: {more[-1].scan}"]
    with open_h5(tmp_path / "lcs.h5") as file:
        assert more[-1].scan not in file["volumes"]


def test_a_scan_keeps_its_patches_when_others_come(cohort, tmp_path):
    scans, folder = cohort
    more = [*scans, scan_row(6, "train")]
    write_scan(folder, more[-1], *scene(6))
    found = []
    for name, rows in (("a", scans), ("b", more)):
        write((rows, folder), tmp_path / f"{name}.h5")
        with open_h5(tmp_path / f"{name}.h5") as file:
            table = file["rows"][...]
            found.append(table[table["scan"] == scans[0].scan.encode()]["corner"])
    assert np.array_equal(*found)


def test_every_scan_is_logged_in_the_role_in_which_it_serves_the_task(cohort, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(segmentation.logs, "opened", lambda *line: said.append(line))
    write(cohort, tmp_path / "lcs.h5")
    roles = ["fine_tune", "fine_tune", "early_stopping", "early_stopping", "test", "test"]
    assert said == [(row.scan, role, "lcs") for row, role in zip(cohort[0], roles, strict=True)]


def test_equal_input_gives_equal_bytes(cohort, tmp_path):
    for name in "ab":
        write(cohort, tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_what_cannot_be_learned_or_scored_is_refused(cohort, tmp_path):
    scans, folder = cohort
    cases = [
        (
            scans[:4],
            RECIPE,
            "every split needs patients with a label map, but there are 2 train, 2 validation, 0 test",
        ),
        (
            scans,
            RECIPE.model_copy(update={"labels": [7]}),
            r"labels: \[7\] must occur in the label maps of the train",
        ),
        (
            scans,
            RECIPE.model_copy(update={"patch_size": (16, 8, 8)}),
            r"a patch must fit into every scan, but scan 0{12} has the shape \(10, 18, 20\) and the patch \(16, 8, 8\)",
        ),
    ]
    for rows, recipe, message in cases:
        with pytest.raises(InputError, match=message):
            write((rows, folder), tmp_path / "lcs.h5", recipe)
    write_scan(folder, scans[0], scene(0)[0])
    with pytest.raises(InputError, match="must hold the labels of truth, but has none"):
        write(cohort, tmp_path / "lcs.h5")
