"""Roles follow from a patient's split and from what its scans serve; tables that say otherwise are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg.cohorts.records import write_rows
from sg.errors import InputError
from sg.roles import TASK_ROLES, RoleRow, Roles, decide_roles, read_roles
from tests.hand_made import roles, scan_row

# One patient of every kind, by hand.
SCANS = [
    scan_row(0, "train", ("pretrain", "ncc")),
    scan_row(1, "validation", ("pretrain", "ncc")),
    scan_row(2, "test", ("pretrain", "ncc")),
    scan_row(3, "train", ("lcs",)),
    scan_row(4, "train", ("pretrain",)),
    scan_row(5, "train", ("lcs",), "patient-4"),
    scan_row(6, "test", ("pretrain",)),
]
TABLE = [
    RoleRow("patient-0", "train", "yes", "yes", "yes", (), ("ncc",), ()),
    RoleRow("patient-1", "validation", "yes", "no", "no", ("ncc", "pretrain"), (), ()),
    RoleRow("patient-2", "test", "yes", "no", "no", (), (), ("ncc",)),
    RoleRow("patient-3", "train", "no", "no", "no", (), ("lcs",), ()),
    RoleRow("patient-4", "train", "yes", "yes", "yes", (), ("lcs",), ()),
    RoleRow("patient-6", "test", "yes", "no", "no", (), (), ()),
]


def test_a_patient_of_every_kind_has_the_roles_derived_by_hand():
    assert decide_roles(SCANS) == TABLE


def test_roles_depend_neither_on_the_order_of_the_scans_nor_on_that_of_their_uses():
    turned = [replace(row, use=row.use[::-1]) for row in reversed(SCANS)]
    assert decide_roles(turned) == decide_roles(SCANS)


people = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.tuples(
        st.sampled_from(list(TASK_ROLES)),
        st.lists(st.sets(st.sampled_from(["pretrain", "ncc", "lcs"]), min_size=1), min_size=1, max_size=3),
    ),
)


@given(people)
def test_of_every_use_a_patient_has_the_role_of_its_split_and_no_other(people):
    scans = [
        scan_row(number, split, tuple(sorted(use)), patient)
        for number, (patient, split, use) in enumerate(
            (patient, split, use) for patient, (split, uses) in people.items() for use in uses
        )
    ]
    known = Roles(decide_roles(scans))
    for patient, (split, uses) in people.items():
        for use in ("pretrain", "ncc", "lcs"):
            has = {role for role in RoleRow.__annotations__ if role not in ("patient", "split")}
            has = {role for role in has if known.may(patient, role, use)}
            served = use in set().union(*uses)
            if use == "pretrain":
                rest = {"train": {"neighbours", "pretrain"}, "validation": {"early_stopping"}, "test": set()}
                assert has == ({"embed"} | rest[split] if served else set())
            else:
                assert has == ({TASK_ROLES[split]} if served else set())


def test_a_scan_is_given_for_a_use_only_if_it_serves_it_itself():
    known = Roles(decide_roles(SCANS))

    def given_for(use, *which):
        return [int(row.scan, 16) for row in known.scans(SCANS, use, *which)]

    assert given_for("pretrain", "pretrain") == [0, 4]  # patient-4's other scan serves lcs alone
    assert given_for("pretrain", "early_stopping") == [1]
    assert given_for("pretrain", "embed") == [0, 1, 2, 4, 6]
    assert given_for("ncc", *TASK_ROLES.values()) == [0, 1, 2]
    assert given_for("lcs", *TASK_ROLES.values()) == [3, 5]
    assert given_for("bms", *TASK_ROLES.values()) == []


def test_many_patients_are_asked_about_at_once():
    known = Roles(TABLE)
    patients = np.array(["patient-2", "patient-0", "patient-0", "patient-3"], "S64")
    assert known.mask(patients, "neighbours").tolist() == [False, True, True, False]
    assert known.mask(patients, "fine_tune", "lcs").tolist() == [False, False, False, True]
    assert known.mask(patients[:0], "embed").tolist() == []


def test_a_role_that_there_is_not_is_a_bug_and_no_quiet_no():
    with pytest.raises(AttributeError):
        Roles(TABLE).may("patient-0", "pre_train")


def test_a_patient_in_two_splits_is_a_bug_of_ours():
    with pytest.raises(AssertionError, match="patient-0 stands in train and test"):
        decide_roles([scan_row(0, "train"), scan_row(1, "test", patient="patient-0")])


def test_the_table_reads_back_as_it_was_written(tmp_path):
    write_rows(tmp_path / "roles.csv", RoleRow, TABLE)
    known = read_roles(tmp_path / "roles.csv")
    for row, use in itertools.product(TABLE, ("pretrain", "ncc", "lcs")):
        for role in ("embed", "neighbours", "pretrain", "early_stopping", "fine_tune", "test"):
            assert known.may(row.patient, role, use) == Roles(TABLE).may(row.patient, role, use)


def test_a_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match=r"roles\.csv: there is no such file; run `dvc repro`"):
        read_roles(tmp_path / "roles.csv")


@pytest.mark.parametrize(
    "changed",
    [
        {"split": "test"},
        {"split": "all"},
        {"neighbours": "no"},
        {"pretrain": "maybe"},
        {"early_stopping": ("ncc",)},
        {"test": ("lcs",)},
    ],
)
def test_roles_that_contradict_each_other_or_the_split_are_refused(tmp_path, changed):
    write_rows(tmp_path / "roles.csv", RoleRow, [replace(TABLE[0], **changed), *TABLE[1:]])
    with pytest.raises(
        InputError, match=r"roles\.csv: the roles of the patient 'patient-0' contradict .*`dvc repro`"
    ):
        read_roles(tmp_path / "roles.csv")


def test_a_patient_named_twice_is_refused(tmp_path):
    write_rows(tmp_path / "roles.csv", RoleRow, [*TABLE, TABLE[2]])
    with pytest.raises(InputError, match=r"roles\.csv: names the patient 'patient-2' twice"):
        read_roles(tmp_path / "roles.csv")


def test_a_patient_that_the_table_does_not_name_is_said_in_words():
    with pytest.raises(InputError, match=r"roles\.csv: has no patient 'eve'; run `dvc repro`"):
        Roles(TABLE).may("eve", "embed")
    with pytest.raises(InputError, match=r"scans\.csv: has the patient 'eve' in train, .* does not name it"):
        Roles(TABLE).scans([*SCANS, scan_row(9, "train", patient="eve")], "ncc", "fine_tune")


def test_scans_of_other_splits_or_uses_than_the_table_knows_are_refused():
    known = Roles(TABLE)
    for row, message in (
        (replace(SCANS[2], split="train"), "'patient-2' in train, for ncc, pretrain, but .* has it in test"),
        (replace(SCANS[3], use=("ncc",)), "'patient-3' in train, for ncc, but .* has it in train, for lcs"),
    ):
        with pytest.raises(InputError, match=message):
            known.scans([row], "ncc", "fine_tune")


def test_a_file_is_of_the_table_if_its_patients_have_their_splits_and_uses():
    known = roles(["a", "b"], ["train", "test"])
    known.check(
        "f.h5", np.array(["b", "a", "a"], "S64"), np.array(["test", "train", "train"], "S10"), "pretrain"
    )
    known.check("f.h5", np.array([], "S64"), np.array([], "S10"), "pretrain")
    for splits, uses in ((["train", "train"], ["pretrain"]), (["train", "test"], ["ncc"])):
        with pytest.raises(
            InputError, match=r"f\.h5: has the patient .* stale or was edited: run `dvc repro`"
        ):
            known.check("f.h5", np.array(["a", "b"], "S64"), np.array(splits, "S10"), *uses)
