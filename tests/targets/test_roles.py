"""A task's file learns from, stops by and scores on nobody that roles.csv does not give it for that."""

import pytest

from sg.errors import InputError
from sg.roles import Roles, decide_roles
from sg.targets.roles import check_tasks
from tests.hand_made import scan_row
from tests.targets import samples

SPLITS = ("train", "validation", "test")
PATIENTS = [(f"{split}{number}", split) for split in SPLITS for number in range(4)]


def known(use="ncc lcs", **moved):
    """The roles of the samples' patients, but for those of another split."""
    scans = [
        scan_row(i, moved.get(patient, split), tuple(use.split()), patient)
        for i, (patient, split) in enumerate(PATIENTS)
    ]
    return Roles(decide_roles(scans))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    samples.classification(folder / "ncc.h5")
    samples.segmentation(folder / "lcs.h5")
    return folder


def test_files_whose_patients_have_their_roles_pass(folder):
    check_tasks(["lcs", "ncc", "ncc"], folder, known())
    check_tasks([], folder / "nowhere", known())


@pytest.mark.parametrize("task", ["ncc", "lcs"])
@pytest.mark.parametrize(
    ("patient", "split", "role"),
    [("train1", "test", "fine_tune"), ("validation3", "train", "early_stopping"), ("test0", "train", "test")],
)
def test_a_patient_without_its_role_is_named(folder, task, patient, split, role):
    with pytest.raises(
        InputError,
        match=rf"{task}\.h5: has the patient '{patient}' in the role '{role}', .*`dvc repro targets@{task}`",
    ):
        check_tasks([task], folder, known(**{patient: split}))


def test_a_role_for_another_task_is_none_for_this(folder):
    with pytest.raises(InputError, match=r"lcs\.h5: has the patient 'train0' in the role 'fine_tune'"):
        check_tasks(["lcs"], folder, known("ncc"))
