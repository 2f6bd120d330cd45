"""How well a task is done: AUC over candidates, IoU over voxels, and both over resampled test patients.

A resample of patients is a row of counts: how often each patient was drawn. AUC and IoU of a resample follow from
sums that are kept for each patient, exactly and without going back to candidates or voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class PatientScores(Protocol):
    """What each test patient adds to the score of each trial."""

    @property
    def patients(self) -> int:
        """How many test patients there are."""

    def mean_per_scan(self) -> np.ndarray | None:
        """The mean over the scans of each trial's score, (trials,); None where the metric has none for a scan."""

    def scores(self) -> np.ndarray:
        """The score of each trial on all test patients, float64 (trials,)."""

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """The mean over the trials of the score on each resample, float64 (resamples,).

        `draws` is (resamples, patients), how often each patient was drawn. NaN where the score does not exist.
        """


def auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of `scores` (m,) for `truth` (m,) of 0 and 1; ties count half.

    A score that is not a number ranks below all others, so that a trial which diverged is scored as what it is: one
    that tells nothing apart has 0.5. NaN if `truth` holds one class only. Scores are in [0, 1].
    """
    from sklearn.metrics import roc_auc_score

    if truth.min() == truth.max():
        return float("nan")
    return float(roc_auc_score(truth, ranked(scores)))


def ranked(scores: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] with -1 in place of what is not a number, float64."""
    return np.nan_to_num(np.asarray(scores, np.float64), nan=-1.0)


def iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Intersection over union of two boolean masks of equal shape, in [0, 1]; NaN if both are empty."""
    return float(ratio(*overlap(truth, predicted)))


def overlap(truth: np.ndarray, predicted: np.ndarray) -> tuple[int, int]:
    """Voxels of the intersection and of the union of two boolean masks. ValueError unless the shapes agree."""
    if truth.shape != predicted.shape:
        raise ValueError(f"masks must have one shape, got {truth.shape} and {predicted.shape}")
    truth, predicted = truth.astype(bool, copy=False), predicted.astype(bool, copy=False)
    return int(np.count_nonzero(truth & predicted)), int(np.count_nonzero(truth | predicted))


def ratio(part: np.ndarray | int, whole: np.ndarray | int) -> np.ndarray:
    """part / whole as float64, NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)


@dataclass(frozen=True)
class CandidateScores:
    """Of AUC: how many pairs of a positive and a negative candidate are in the right order, by patient."""

    right: np.ndarray  # float64 (trials, patients, patients): positives of one over negatives of the other
    positives: np.ndarray  # int64 (patients,)
    negatives: np.ndarray  # int64 (patients,)

    @property
    def patients(self) -> int:
        """See PatientScores."""
        return len(self.positives)

    def mean_per_scan(self) -> None:
        """None: a scan may hold one class only."""

    def scores(self) -> np.ndarray:
        """AUC of each trial: the share of pairs in the right order (Mann and Whitney, 1947)."""
        return ratio(self.right.sum(axis=(1, 2)), self.positives.sum() * self.negatives.sum())

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """See PatientScores. A resample that holds one class only has no AUC: NaN."""
        draws = draws.astype(np.float64)
        right = np.einsum("rp,pq,rq->r", draws, self.right.mean(axis=0), draws, optimize=True)
        return ratio(right, (draws @ self.positives) * (draws @ self.negatives))


def candidate_scores(truth: np.ndarray, patient: np.ndarray, scores: np.ndarray) -> CandidateScores:
    """Count the pairs in the right order; `truth` (m,) of 0 and 1, `patient` (m,) numbers from 0, `scores` (trials, m)."""
    patients = int(patient.max()) + 1
    positive = truth.astype(bool)
    right = np.zeros((len(scores), patients, patients))
    for other in range(patients):
        negatives = np.flatnonzero(~positive & (patient == other))
        for trial, values in enumerate(ranked(scores)):
            below = np.sort(values[negatives])
            places = [np.searchsorted(below, values[positive], side) for side in ("left", "right")]
            np.add.at(right[trial, :, other], patient[positive], (places[0] + places[1]) / 2)
    return CandidateScores(
        right,
        np.bincount(patient[positive], minlength=patients),
        np.bincount(patient[~positive], minlength=patients),
    )


@dataclass(frozen=True)
class VoxelScores:
    """Of IoU: voxels of intersection and union, by scan."""

    patient: np.ndarray  # int64 (scans,), numbers from 0
    intersection: np.ndarray  # int64 (trials, scans)
    union: np.ndarray  # int64 (trials, scans)

    @property
    def patients(self) -> int:
        """See PatientScores."""
        return int(self.patient.max()) + 1

    def scores(self) -> np.ndarray:
        """IoU of each trial over all voxels of the set at once, as published."""
        return ratio(self.intersection.sum(axis=1), self.union.sum(axis=1))

    def mean_per_scan(self) -> np.ndarray:
        """Mean over the scans of each trial's IoU, (trials,); scans in which both masks are empty have none."""
        each = ratio(self.intersection, self.union)
        return ratio(np.nansum(each, axis=1), np.count_nonzero(~np.isnan(each), axis=1))

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """See PatientScores. All scans of a patient are drawn together."""
        times = draws[:, self.patient].astype(np.float64)  # (resamples, scans)
        return ratio(times @ self.intersection.T, times @ self.union.T).mean(axis=1)
