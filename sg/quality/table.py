"""How near the crops of each control lie to their references: a table with intervals.

The error of a pattern is the median distance of its crops in the atlas, that of a control the median of its patterns'.
The possible gain is what the best choice of patients is nearer than a random one; a control's share of it is
(random - control) / (random - oracle-point), a ratio of means over patterns, so that no pattern on which there is little
to gain decides; a few on which there is much can, where K is small.

Intervals are by a bootstrap over references and patients at once, for both are a sample: each resample draws as many
patterns and, apart from them, as many patients as there are, with replacement. Which patients a control chose stands; a
crop then counts as often as its patient was drawn, and a pattern whose patients were all left out not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sg.compiled import compiled
from sg.frames import Frame
from sg.quality.choosing import Crops, by_distance, chosen, of_others
from sg.quality.study import Study
from sg.randomness import generator

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Row:
    """A row of controls.csv: a control in a frame; NaN where unknown."""

    frame: str  # none for affine registration, which needs no frame
    control: str
    k: int  # patients of a pattern, the reference being one of them
    patients: int  # to choose from
    patterns: int  # with a known error
    error_mm: float
    error_low: float
    error_high: float
    share: float
    share_low: float
    share_high: float
    against_nearest_mm: float  # mean over patterns of what the control's error is more than that of `nearest`
    against_nearest_low: float
    against_nearest_high: float
    spread_mm: float
    purity: float


@dataclass(frozen=True)
class Resamples:
    """How often each pattern (b, p) and each patient (b, n) was drawn in each of b resamples."""

    patterns: np.ndarray
    patients: np.ndarray

    @classmethod
    def draw(cls, study: Study, among: np.ndarray, seed: int) -> Resamples:
        """Drawn with replacement, as many as there are; of the patients those `among` (n,) the study's."""
        rng = generator(seed, "quality", "", "bootstrap")
        patterns, patients = len(study.patterns), int(among.sum())
        weights = np.zeros((RESAMPLES, len(among)), np.int64)
        drawn = rng.multinomial(patterns, np.full(patterns, 1 / patterns), RESAMPLES)
        weights[:, among] = rng.multinomial(patients, np.full(patients, 1 / patients), RESAMPLES)
        return cls(drawn, weights)

    def errors(self, study: Study, crops: Crops) -> np.ndarray:
        """The patterns' errors in every resample, (b, p); NaN where none of a pattern's crops was drawn."""
        order = np.argsort(crops.mm, axis=1, kind="stable")  # NaN last
        mm, scan = (np.take_along_axis(array, order, axis=1) for array in (crops.mm, crops.scan))
        patient = np.where(scan < 0, 0, study.patient[scan])
        return weighted_medians(mm, patient, self.patients)


@compiled
def weighted_medians(values, column, weights):
    """Medians (b, p) of rows (p, n), sorted with NaN last, value j counting weights[:, column[:, j]] (b, ...) times.

    The median of the values so repeated; NaN where none is left.
    """
    medians = np.full((weights.shape[0], values.shape[0]), np.nan)
    for b in range(weights.shape[0]):
        for p in range(values.shape[0]):
            total = 0
            for j in range(values.shape[1]):
                if np.isnan(values[p, j]):
                    break
                total += weights[b, column[p, j]]
            if total == 0:
                continue
            below, above = (total - 1) // 2, total // 2
            upto, j = 0, -1
            while upto <= below:
                j += 1
                upto += weights[b, column[p, j]]
            low = values[p, j]
            while upto <= above:
                j += 1
                upto += weights[b, column[p, j]]
            medians[b, p] = (low + values[p, j]) / 2
    return medians


def medians_of_rows(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Medians (b,) of rows (b, p), each value counting as often as its weight says; NaN counts for nothing."""
    order = np.argsort(values, axis=1, kind="stable")
    values = np.take_along_axis(values, order, axis=1)
    weights = np.where(np.isnan(values), 0, np.take_along_axis(weights, order, axis=1))
    upto = np.cumsum(weights, axis=1)
    total = upto[:, -1:]
    low, high = (
        np.take_along_axis(values, (upto > middle).argmax(axis=1)[:, None], axis=1)[:, 0]
        for middle in ((total - 1) // 2, total // 2)
    )
    return np.where(total[:, 0] > 0, (low + high) / 2, np.nan)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval (LEVEL) of the values of the resamples that have one; NaN if none has."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Errors:
    """The patterns' errors under one control: (p,) as they are, and (b, p) in every resample."""

    mm: np.ndarray
    resampled: np.ndarray

    def median(self, drawn: np.ndarray) -> tuple[float, float, float]:
        """Their median with its interval; `drawn` (b, p) are the resamples of the patterns."""
        known = self.mm[np.isfinite(self.mm)]
        if len(known) < 2:
            return (float(known[0]) if len(known) else np.nan), np.nan, np.nan
        return float(np.median(known)), *interval(medians_of_rows(self.resampled, drawn))

    def __sub__(self, other: Errors) -> Errors:
        return Errors(self.mm - other.mm, self.resampled - other.resampled)

    def mean(self, drawn: np.ndarray) -> tuple[float, float, float]:
        """Their mean with its interval."""
        return _of_means(self, None, drawn)


def share(control: Errors, random: Errors, oracle: Errors, drawn: np.ndarray) -> tuple[float, float, float]:
    """The control's share of the possible gain with its interval; NaN where there is nothing to gain."""
    return _of_means(random - control, random - oracle, drawn)


def _of_means(above: Errors, below: Errors | None, drawn: np.ndarray) -> tuple[float, float, float]:
    """Weighted means of `above` over the patterns, or their ratios to those of `below`."""

    def ratio(above: np.ndarray, below: np.ndarray, weights: np.ndarray) -> np.ndarray:
        counted = np.isfinite(above) & np.isfinite(below)
        over, under = (
            np.where(counted, weights * np.where(counted, part, 0), 0).sum(axis=1) for part in (above, below)
        )
        return np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)

    parts = [(above.mm[None], above.resampled), *([(below.mm[None], below.resampled)] if below else [])]
    if below is None:
        parts.append(tuple(np.ones_like(part) for part in parts[0]))
    (point,) = ratio(parts[0][0], parts[1][0], np.ones_like(parts[0][0]))
    if not np.isfinite(point) or np.isfinite(above.mm).sum() < 2:
        return float(point), np.nan, np.nan
    return float(point), *interval(ratio(parts[0][1], parts[1][1], drawn))


# ---------------------------------------------------------------------------------------------- the table

NEAREST, RANDOM, BODY, POINT = "nearest", "random", "oracle-body", "oracle-point"


def controls(
    study: Study, frame: Frame, orderings: Mapping[str, np.ndarray], k: int | None, among: np.ndarray
) -> dict[str, Crops]:
    """The crops of every control in a frame: of the orderings, of a random choice and of both oracles."""
    laid = study.frames[frame]
    found = {name: chosen(study, laid, order, k, among) for name, order in orderings.items()}
    found[RANDOM] = chosen(study, laid, of_others(study), None, among)
    found[BODY] = chosen(study, laid, by_distance(study, laid.body_mm), k, among)
    found[POINT] = chosen(study, laid, by_distance(study, laid.mm), k, among)
    return found


def table(
    study: Study,
    orderings: Mapping[str, np.ndarray],
    k: int | None,
    patients: np.ndarray | None = None,
    seed: int = 0,
    registered: Crops | None = None,
) -> list[Row]:
    """Every control in every frame of the study, for `k` patients of a pattern (None: all).

    `orderings` are orders (`sg.quality.choosing`) by name; that of `nearest`, if it is there, is what others are held
    against. `patients`, bool (n,), are those to choose from; the references' are always among them. `registered` are
    the crops of the affine control, which is held against the stage's own frame. The same `seed` gives the same
    resamples, whatever the orderings and k.
    """
    among = asked(study, patients)
    drawn = Resamples.draw(study, among, seed)
    rows = []
    for frame in study.frames:
        crops = controls(study, frame, orderings, k, among)
        errors = {name: Errors(found.median_mm, drawn.errors(study, found)) for name, found in crops.items()}
        rows += [_row(frame, name, k, among, crops[name], errors[name], errors, drawn) for name in crops]
        if frame == study.frame and registered is not None:
            affine = Errors(registered.median_mm, drawn.errors(study, registered))
            own = registered.scan.shape[1] + 1
            rows.append(_row("none", "affine", own, among, registered, affine, errors, drawn))
    return rows


def asked(study: Study, patients: np.ndarray | None) -> np.ndarray:
    """The mask of patients to choose from, bool (n,), the references' among them; all without one."""
    among = np.ones(len(study.patients), bool) if patients is None else np.array(patients, bool)
    among[study.patient[study.reference]] = True
    return among


def _row(
    frame: str,
    control: str,
    k: int | None,
    among: np.ndarray,
    crops: Crops,
    error: Errors,
    errors: Mapping[str, Errors],
    drawn: Resamples,
) -> Row:
    patients = int(among.sum())
    unknown = (np.nan, np.nan, np.nan)
    # Where everybody is taken there is no choice, and what differs is only which scan stands for a patient.
    everybody = k is None or k >= patients
    own = crops.own[np.isfinite(crops.own)]
    spread = crops.spread_mm[np.isfinite(crops.spread_mm)]
    return Row(
        frame,
        control,
        patients if k is None else k,
        patients,
        int(np.isfinite(error.mm).sum()),
        *error.median(drawn.patterns),
        *(unknown if everybody else share(error, errors[RANDOM], errors[POINT], drawn.patterns)),
        *((error - errors[NEAREST]).mean(drawn.patterns) if NEAREST in errors else unknown),
        float(np.median(spread)) if len(spread) else np.nan,
        float(own.mean()) if len(own) else np.nan,
    )
