"""Every patient has one split, decided by rules that more patients do not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg.errors import InputError
from sg.params import SplitFractions
from sg.splits import SPLITS, Claim, decide, needed, place

FRACTIONS = SplitFractions(train=0.6, validation=0.2, test=0.2)


def claim(patient, own=None, uses=("pretrain",), same=()):
    return Claim(patient, frozenset(same), own, tuple(uses))


def crowd(n, **more):
    return [claim(f"patient-{i:03d}", **more) for i in range(n)]


def test_the_data_sets_own_split_is_kept():
    own = {"a": "train", "b": "validation", "c": "test"}
    decided = decide([claim(p, s) for p, s in own.items()] + crowd(20), FRACTIONS, 1)
    assert {p: decided.of[p] for p in own} == own
    assert not decided.warnings


def test_a_series_that_a_twin_source_tests_on_is_not_trained_on():
    luna = claim("1.2.3", "test", ["ncc"], ["series 1.2.3"])
    twin = claim("LIDC-IDRI-0001", None, [], ["series 1.2.3"])  # set aside as a duplicate
    other_scan = claim("LIDC-IDRI-0001", None, ["pretrain"], ["series 9.9"])
    decided = decide([luna, twin, other_scan, *crowd(20, uses=["pretrain", "ncc"])], FRACTIONS, 1)
    assert decided.of["LIDC-IDRI-0001"] == decided.of["1.2.3"] == "test"


@pytest.mark.parametrize("order", [("train", "test"), ("test", "train")])
def test_of_two_own_splits_the_stricter_wins_and_a_note_says_so(order):
    decided = decide([*(claim("twice", own) for own in order), *crowd(20)], FRACTIONS, 1)
    assert decided.of["twice"] == "test"
    assert any("twice is in train and test" in note for note in decided.notes)


def test_shares_of_many_patients_are_the_fractions():
    of = decide(crowd(3000), FRACTIONS, 1).of
    shares = [np.mean([split == s for split in of.values()]) for s in SPLITS]
    # three binomial standard deviations
    assert np.abs(np.array(shares) - (0.6, 0.2, 0.2)).max() < 3 * np.sqrt(0.6 * 0.4 / 3000)


@given(st.integers(30, 80), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_more_patients_move_nobody(n, more, seed):
    few, many = decide(crowd(n), FRACTIONS, seed), decide(crowd(n + more), FRACTIONS, seed)
    if not few.notes and not many.notes:
        assert few.of == {patient: many.of[patient] for patient in few.of}


@given(st.permutations(list(range(9))))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_scans_does_not_matter(order):
    claims = [
        claim(f"p{i % 7}", ["train", None, "test"][i % 3], ["pretrain", "ncc"], [f"s{i % 4}"])
        for i in range(9)
    ]
    assert decide([claims[i] for i in order], FRACTIONS, 3) == decide(claims, FRACTIONS, 3)


@given(
    st.integers(7, 12),
    st.integers(0, 2**31),
    st.sampled_from([("pretrain",), ("ncc",), ("pretrain", "ncc"), ("pretrain", "lcs", "ncc")]),
    st.sampled_from([(0.6, 0.2, 0.2), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.9, 0.1, 0.0)]),
    st.sampled_from([None, "train", "validation", "test"]),
)
@settings(max_examples=150, deadline=None)
def test_with_seven_patients_every_split_that_is_needed_has_one(n, seed, uses, fractions, own):
    shares = SplitFractions(**dict(zip(SPLITS, fractions, strict=True)))
    decided = decide(crowd(n, uses=uses, own=own), shares, seed)
    for use in uses:
        assert set(needed(use)) <= set(decided.of.values())


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_use_has_its_splits_when_sources_differ_in_theirs(seed):
    claims = [claim(f"a{i}", "train", ["pretrain", "ncc"]) for i in range(4)]
    claims += [claim(f"b{i}", None, ["lcs"]) for i in range(3)] + [
        claim(f"c{i}", None, ["pretrain"]) for i in range(3)
    ]
    decided = decide(claims, FRACTIONS, seed)
    for use in ("pretrain", "ncc", "lcs"):
        mine = {decided.of[c.patient] for c in claims if use in c.uses}
        assert set(needed(use)) <= mine


def test_an_empty_split_takes_the_smallest_hash_and_says_so():
    claims = crowd(7)
    everything_trains = SplitFractions(train=1.0, validation=0.0, test=0.0)
    decided = decide(claims, everything_trains, 1)
    smallest = min((c.patient for c in claims), key=lambda patient: place(1, patient))
    assert [p for p, split in decided.of.items() if split == "validation"] == [smallest]
    assert decided.notes == (
        f"no patient of pretrain was in validation, so it takes those with the smallest hash: {smallest} (from train)",
    )


def test_taking_patients_out_of_a_data_sets_own_split_is_a_warning():
    decided = decide(crowd(5, own="train"), FRACTIONS, 1)
    assert "departs from the data set's own split" in decided.warnings[0]


def test_patients_without_a_split_of_their_own_are_taken_first():
    claims = [*crowd(6, own="train"), claim("free-1"), claim("free-2")]
    decided = decide(claims, SplitFractions(train=1.0, validation=0.0, test=0.0), 5)
    assert next(p for p, s in decided.of.items() if s == "validation").startswith("free")


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_two_patients_train_and_validate_and_a_warning_names_the_missing_test(seed):
    decided = decide(crowd(2, uses=["pretrain", "ncc"]), FRACTIONS, seed)
    assert sorted(decided.of.values()) == ["train", "validation"]
    assert "ncc has no patient for test" in decided.warnings[-1]


def test_one_patient_is_an_error_that_says_what_to_do():
    with pytest.raises(
        InputError, match=r"pretrain needs usable scans of at least 2 patients.*got 1; add scans"
    ):
        decide([claim("only"), claim("unusable", uses=[])], FRACTIONS, 1)


def test_a_patient_without_usable_scan_fills_no_split():
    decided = decide(
        [*crowd(3), *(claim(f"bad{i}", own="validation", uses=[]) for i in range(9))], FRACTIONS, 1
    )
    usable = [decided.of[f"patient-{i:03d}"] for i in range(3)]
    assert {"train", "validation"} <= set(usable)
