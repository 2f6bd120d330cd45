"""AUC and IoU by hand, by independent formulas, and over resampled patients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from sg.targets import metrics


def test_auc_of_three_right_pairs_of_four():
    truth, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    # 0.35 beats 0.1 and loses to 0.4; 0.8 beats both
    assert metrics.auc(truth, scores) == pytest.approx(3 / 4)


def test_a_tie_counts_half():
    assert metrics.auc(np.array([0, 1, 0]), np.array([0.5, 0.5, 0.2])) == pytest.approx(1.5 / 2)


def test_auc_does_not_exist_for_one_class():
    assert math.isnan(metrics.auc(np.array([1, 1]), np.array([0.2, 0.4])))


def test_scores_that_are_not_numbers_tell_nothing_apart():
    truth = np.array([0, 1, 1, 0])
    assert metrics.auc(truth, np.full(4, np.nan)) == pytest.approx(0.5)
    assert metrics.candidate_scores(
        truth, np.array([0, 0, 1, 1]), np.full((1, 4), np.nan)
    ).scores() == pytest.approx(0.5)


candidates = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 6)), min_size=2, max_size=30
).filter(lambda rows: {row[0] for row in rows} == {0, 1})


@settings(max_examples=60, deadline=None)
@given(candidates)
def test_auc_is_the_rank_sum_formula_and_the_sum_of_what_patients_add(rows):
    truth, patient, scores = (np.array(column) for column in zip(*rows, strict=True))
    patient = np.unique(patient, return_inverse=True)[1]
    scores = scores / 6
    p, n = truth.sum(), (1 - truth).sum()
    expected = (rankdata(scores)[truth == 1].sum() - p * (p + 1) / 2) / (p * n)
    assert metrics.auc(truth, scores) == pytest.approx(expected)
    assert metrics.candidate_scores(truth, patient, scores[None]).scores() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(candidates, st.integers(0, 2**32 - 1))
def test_auc_of_a_resample_is_that_of_the_patients_repeated(rows, seed):
    truth, patient, scores = (np.array(column) for column in zip(*rows, strict=True))
    patient = np.unique(patient, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    both = np.stack([scores / 6, rng.random(len(scores))])
    patients = patient.max() + 1
    drawn = rng.integers(patients, size=patients)
    rows_drawn = np.concatenate([np.flatnonzero(patient == one) for one in drawn])
    got = metrics.candidate_scores(truth, patient, both).resampled(
        np.bincount(drawn, minlength=patients)[None]
    )[0]
    if truth[rows_drawn].min() == truth[rows_drawn].max():
        assert math.isnan(got)
    else:
        expected = np.mean([metrics.auc(truth[rows_drawn], one[rows_drawn]) for one in both])
        assert got == pytest.approx(expected)


def test_iou_of_two_masks_sharing_one_voxel_of_three():
    assert metrics.iou(np.array([[1, 1, 0]]), np.array([[0, 1, 1]])) == pytest.approx(1 / 3)


def test_iou_of_two_empty_masks_does_not_exist_and_of_one_is_zero():
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    assert math.isnan(metrics.iou(empty, empty))
    assert metrics.iou(full, empty) == 0
    assert metrics.iou(full, full) == 1


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        metrics.iou(np.ones(2), np.ones(3))


def test_iou_over_the_set_is_not_the_mean_over_scans():
    both = metrics.VoxelScores(np.array([0, 1, 1]), np.array([[1, 90, 0]]), np.array([[2, 100, 0]]))
    assert both.scores() == pytest.approx([91 / 102])
    assert both.mean_per_scan() == pytest.approx([(0.5 + 0.9) / 2])  # the empty scan has no IoU


def test_iou_of_a_resample_draws_all_scans_of_a_patient():
    both = metrics.VoxelScores(
        np.array([0, 1, 1]), np.array([[1, 9, 3], [2, 0, 0]]), np.array([[2, 10, 4], [2, 5, 5]])
    )
    got = both.resampled(np.array([[2, 0], [1, 1], [0, 2]]))
    assert got == pytest.approx([(1 / 2 + 1) / 2, (13 / 16 + 2 / 12) / 2, (12 / 14 + 0) / 2])
