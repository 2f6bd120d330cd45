"""Candidates become patches of whom they belong to: where, how many, and what is refused."""

import json

import numpy as np
import pytest

from sg.errors import InputError
from sg.params import NoduleTarget
from sg.storage import open_h5
from sg.targets import nodules
from sg.targets.metrics import auc
from sg.targets.tasks import write_task
from tests.targets.cohort import candidate, finish, position, scan_row, serving, write_scan

SHAPE = (10, 18, 20)
RECIPE = NoduleTarget(kind="nodule-classification", patch_size=(4, 4, 4), negatives=2.0)


@pytest.fixture
def cohort(tmp_path):
    """Two patients in each split; in each one nodule (bright) and five others (dark); voxels hold where they are."""
    scans, findings = [], []
    rng = np.random.default_rng(0)
    for number in range(6):
        row = scan_row(number, ("train", "validation", "test")[number // 2])
        image = rng.integers(-1000, -800, SHAPE)
        image[4:8, 7:11, 8:12] = 100 + number
        write_scan(tmp_path, row, image)
        scans.append(row)
        findings.append(candidate(row, (6, 9, 10), "nodule"))
        findings += [candidate(row, (2 + step, 3, 3 + step), "non-nodule") for step in range(5)]
    return scans, findings, finish(tmp_path)


def write(cohort, path, recipe=RECIPE, seed=1):
    scans, findings, folder = cohort
    return write_task(path, "ncc", recipe, serving(scans, "ncc"), findings, folder, seed)


def read(path):
    with open_h5(path) as file:
        return file["patches"][...], file["rows"][...], dict(file.attrs)


def test_negatives_of_training_and_validation_are_thinned_and_test_candidates_all_kept(cohort, tmp_path):
    facts, warnings = write(cohort, tmp_path / "ncc.h5")
    _, rows, attributes = read(tmp_path / "ncc.h5")
    for split, negatives in (("train", 4), ("validation", 4), ("test", 10)):
        here = rows[rows["split"] == split.encode()]
        assert (here["label"].sum(), (here["label"] == 0).sum()) == (2, negatives)
    assert facts.startswith("train 2 nodules and 4 others in 2 patients; ")
    assert json.loads(attributes["facts"])["negatives_left_out"] == {"train": 6, "validation": 6}
    assert warnings == json.loads(attributes["warnings"]) == []
    assert (attributes["metric"], attributes["kind"], attributes["task"]) == (
        "AUC",
        "nodule-classification",
        "ncc",
    )


def test_a_fraction_of_negatives_is_rounded_down(cohort, tmp_path):
    write(cohort, tmp_path / "ncc.h5", RECIPE.model_copy(update={"negatives": 1.4}))
    _, rows, _ = read(tmp_path / "ncc.h5")
    train = rows[rows["split"] == b"train"]
    assert (train["label"] == 0).sum() == 2


def test_labels_and_centres_are_those_of_the_findings(cohort, tmp_path):
    write(cohort, tmp_path / "ncc.h5")
    _, rows, _ = read(tmp_path / "ncc.h5")
    known = {(one.scan, one.centre_mm): one.label for one in cohort[1]}
    patients = {row.scan: (row.patient, row.split) for row in cohort[0]}
    for row in rows:
        scan = row["scan"].decode()
        assert row["label"] == (known[scan, tuple(row["centre_mm"])] == "nodule")
        assert (row["patient"].decode(), row["split"].decode()) == patients[scan]


def test_a_patch_has_its_candidate_in_the_middle(cohort, tmp_path):
    write(cohort, tmp_path / "ncc.h5")
    patches, rows, _ = read(tmp_path / "ncc.h5")
    for patch, row in zip(patches, rows, strict=True):
        if row["label"]:  # the bright box is 4 voxels a side around the candidate
            assert (patch == 100 + int(row["scan"].decode(), 16)).all()


def test_a_candidate_at_the_edge_stays_in_the_middle_of_air(cohort, tmp_path):
    scans, _, folder = cohort
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 900
    write_scan(folder, scans[0], image)
    cut = nodules.cut_candidates(
        nodules.read_resampled(folder / f"{scans[0].scan}.h5"),
        scans[0],
        [candidate(scans[0], (9, 0, 10), "nodule")],
        (4, 4, 4),
    )
    patch = cut.patches[0]
    assert patch[2, 2, 2] == image[9, 0, 10]
    assert np.array_equal(patch[:3, 2:], image[7:10, 0:2, 8:12])
    assert (patch[3] == -1000).all()
    assert (patch[:, :2] == -1000).all()
    assert cut.padded == 1


def test_a_patch_larger_than_the_scan_is_filled_up(cohort):
    scans, _, folder = cohort
    scan = nodules.read_resampled(folder / f"{scans[0].scan}.h5")
    cut = nodules.cut_candidates(scan, scans[0], [candidate(scans[0], (5, 9, 10), "nodule")], (32, 32, 32))
    assert np.count_nonzero(cut.patches[0] != -1000) == np.count_nonzero(scan.image != -1000)


def test_a_candidate_outside_its_scan_is_named_and_left_out(cohort, tmp_path):
    scans, findings, _ = cohort
    findings.append(
        candidate(scans[5], (9.6, 3, 3), "non-nodule")
    )  # past the middle between 9 and 10, which is none
    _, warnings = write(cohort, tmp_path / "ncc.h5")
    assert len(warnings) == 1
    assert (
        f"non-nodule candidate of scan {scans[5].scan} at {position(9.6, 3, 3)} mm lies outside"
        in warnings[0]
    )
    _, rows, attributes = read(tmp_path / "ncc.h5")
    assert (rows["split"] == b"test").sum() == 12
    assert json.loads(attributes["warnings"]) == warnings


def test_the_baseline_is_fitted_on_training_candidates_alone(cohort, tmp_path):
    write(cohort, tmp_path / "ncc.h5")
    scans, findings, folder = cohort
    with open_h5(tmp_path / "ncc.h5") as file:
        first = file["baseline/logistic-regression"][...]
        rows = file["rows"][...]
        assert "fitted on 6 training candidates" in file["baseline/logistic-regression"].attrs["description"]
    test = rows[rows["split"] == b"test"]
    assert first.shape == test.shape
    assert auc(test["label"], first) == 1  # bright against dark
    # other labels of the test candidates change nothing
    swapped = {"nodule": "non-nodule", "non-nodule": "nodule"}
    test_scans = {row.scan for row in scans if row.split == "test"}
    others = [
        type(one)(**{**vars(one), "label": swapped[one.label]}) if one.scan in test_scans else one
        for one in findings
    ]
    write((scans, others, folder), tmp_path / "other.h5")
    with open_h5(tmp_path / "other.h5") as file:
        assert np.array_equal(file["baseline/logistic-regression"][...], first)


def test_features_of_a_patch_by_hand():
    patch = np.full((4, 4, 4), -1000, np.int16)
    patch[1:3, 1:3, 1] = 0  # 4 of the 8 voxels of the central half
    assert nodules.central_features(patch, (2.0, 1.0, 3.0)) == (-500.0, pytest.approx(4 * 6 / 1000))


def test_equal_input_gives_equal_bytes_and_another_seed_other_negatives(cohort, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(cohort, tmp_path / f"{name}.h5", seed=seed)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "c.h5").read_bytes()


def test_a_split_with_one_class_is_refused(cohort, tmp_path):
    scans, findings, folder = cohort
    for split in ("train", "validation", "test"):
        mine = {row.scan for row in scans if row.split == split}
        without = [one for one in findings if one.label == "non-nodule" or one.scan not in mine]
        with pytest.raises(
            InputError, match=rf"targets.recipes.ncc: the {split} patients must have both .* 0 nodules"
        ):
            write((scans, without, folder), tmp_path / "ncc.h5")


def test_a_split_without_patients_is_refused(cohort, tmp_path):
    scans, findings, folder = cohort
    some = [row for row in scans if row.split != "test"]
    with pytest.raises(
        InputError, match="the test patients must have both nodules and other candidates, but have 0"
    ):
        write((some, findings, folder), tmp_path / "ncc.h5")


def test_a_task_that_no_scan_serves_is_refused(cohort, tmp_path):
    _, findings, folder = cohort
    idle = [scan_row(number, "train", use=("pretrain",)) for number in range(3)]
    with pytest.raises(InputError, match=r"no usable scan serves the task ncc \(0 name it"):
        write((idle, findings, folder), tmp_path / "ncc.h5")


def test_every_scan_is_logged_in_the_role_in_which_it_serves_the_task(cohort, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(nodules.logs, "opened", lambda *line: said.append(line))
    write(cohort, tmp_path / "ncc.h5")
    roles = ["fine_tune", "fine_tune", "early_stopping", "early_stopping", "test", "test"]
    assert said == [(row.scan, role, "ncc") for row, role in zip(cohort[0], roles, strict=True)]


def test_scans_that_were_set_aside_are_left_out_and_counted(cohort, tmp_path):
    scans, _, folder = cohort
    finish(folder, refused=[scans[4]])
    _, warnings = write(cohort, tmp_path / "ncc.h5")
    assert len(warnings) == 1
    assert warnings[0].startswith("ncc: 1 of 6 scans were set aside on resampling")
    _, rows, _ = read(tmp_path / "ncc.h5")
    assert scans[4].scan.encode() not in rows["scan"]
