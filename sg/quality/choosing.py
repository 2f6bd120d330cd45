"""Which patients a pattern is laid in: the orders of the controls, and the crops that an order gives.

An order is an int array (patterns, patients - 1): of each pattern the scans of all other patients, the first choice
first, one scan of a patient; -1 where the ranking ends before. It knows nothing of frames; who cannot hold the pattern is
passed over as crops are chosen, as in the stage `coordinates`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.neighbors import Ranking
from sg.quality.study import Laid, Study


@dataclass(frozen=True)
class Crops:
    """Crops of every pattern (p), the references left out: at most n each, the first choice first, then nothing."""

    scan: np.ndarray  # int (p, n): columns of the study, -1 for none
    mm: np.ndarray  # (p, n), NaN for none and where unknown; likewise:
    atlas: np.ndarray  # (p, n, 3)
    own: np.ndarray  # (p, n)

    @property
    def median_mm(self) -> np.ndarray:
        """Of each pattern, (p,)."""
        return row_medians(self.mm)

    @property
    def spread_mm(self) -> np.ndarray:
        """Root mean square (n - 1) of the places in the atlas about their centroid, (p,); NaN for fewer than two."""
        known = np.isfinite(self.atlas).all(axis=-1)
        count = known.sum(axis=1)
        places = np.where(known[..., None], self.atlas, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            centroid = places.sum(axis=1) / count[:, None]
            apart = np.where(known[..., None], self.atlas - centroid[:, None], 0)
            return np.where(count > 1, np.sqrt((apart**2).sum(axis=(1, 2)) / (count - 1)), np.nan)

    @property
    def purity(self) -> np.ndarray:
        """Share of each pattern's crops that no other pattern is nearer to, (p,)."""
        known = np.isfinite(self.own)
        with np.errstate(invalid="ignore"):
            return np.where(known, self.own, 0).sum(axis=1) / np.where(
                known.any(axis=1), known.sum(axis=1), np.nan
            )


def row_medians(values: np.ndarray) -> np.ndarray:
    """Medians of the rows of (p, n) over what is known; NaN where nothing is."""
    return np.array(
        [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values]
    )


def by_distance(study: Study, distance: np.ndarray) -> np.ndarray:
    """The order by a distance (patterns, scans): of each patient the nearest scan, ties by scan id, NaN last.

    The reference's patient is left out.
    """
    order = np.empty((len(study.patterns), len(study.patients) - 1), np.int64)
    scans = np.arange(len(study.scans))
    for pattern, row in enumerate(np.where(np.isnan(distance), np.inf, distance)):
        ranked = np.lexsort((scans, row))
        ranked = ranked[study.patient[ranked] != study.patient[study.reference[pattern]]]
        _, nearest = np.unique(study.patient[ranked], return_index=True)
        order[pattern] = ranked[np.sort(nearest)]
    return order


def by_vectors(study: Study, vectors: np.ndarray) -> np.ndarray:
    """The order by Euclidean distance between vectors (scans, d) of the study's scans, from each reference."""
    vectors = np.asarray(vectors, np.float64)
    return by_distance(
        study, np.stack([np.sqrt(((vectors - vectors[at]) ** 2).sum(axis=1)) for at in study.reference])
    )


def by_ranking(study: Study, ranking: Ranking) -> np.ndarray:
    """The order that the stage `neighbors` found, as deep as it goes."""
    column = {scan: i for i, scan in enumerate(study.scans.tolist())}
    line = {scan: i for i, scan in enumerate(ranking.reference.tolist())}
    order = np.full((len(study.patterns), len(study.patients) - 1), -1)
    for pattern, at in enumerate(study.reference):
        ranked = ranking.train[line[study.scans[at]], 1:]
        order[pattern, : len(ranked)] = [column[scan] for scan in ranking.scan[ranked].tolist()]
    return order


def of_others(study: Study) -> np.ndarray:
    """The reference scans of all other patients, in the order of the patients: what a random choice draws from."""
    return np.stack([np.delete(study.first, study.patient[at]) for at in study.reference])


def chosen(study: Study, laid: Laid, order: np.ndarray, k: int | None, among: np.ndarray) -> Crops:
    """The crops of the first k - 1 patients of an order that can hold them, of those `among` (n,) which are asked.

    None takes all of them.
    """
    most = order.shape[1] if k is None else min(k - 1, order.shape[1])
    scan = np.full((len(order), most), -1)
    for pattern, ranked in enumerate(order):
        ranked = ranked[ranked >= 0]
        held = ranked[laid.fits[pattern, ranked] & among[study.patient[ranked]]][:most]
        scan[pattern, : len(held)] = held
    return taken(laid, scan)


def taken(laid: Laid, scan: np.ndarray) -> Crops:
    """The crops in those scans (p, n)."""
    patterns = np.arange(len(scan))[:, None]
    none = scan < 0
    mm, own = (np.where(none, np.nan, array[patterns, scan]) for array in (laid.mm, laid.own))
    return Crops(scan, mm, np.where(none[..., None], np.nan, laid.atlas[patterns, scan]), own)
