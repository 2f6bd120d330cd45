"""The nearest patients of every training patient in the space of the embedding.

Distance is Euclidean between embeddings, as in the paper; neighbours are distinct patients. Where a patient has
several scans, the one with the smallest id is its reference, and the one nearest to another's reference stands for
it there. Training and validation patients are ranked apart, to the same training references: to learn from the ones,
to stop by the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sg.errors import InputError
from sg.roles import PRETRAIN, Roles
from sg.storage import create_h5, open_h5, write_array

# Queries put to the index at once, and patients asked for beyond what is needed (ties at the end of the ranking).
BLOCK = 1024
SPARE = 16
# faiss computes |a|^2 - 2ab + |b|^2 in single precision: its squared distances are off by some 1e-6 of the squared
# lengths, so whatever comes nearer to the last one found than this might as well be farther.
ROUNDING = 1e-5
# References on which an approximate index is held against exact search.
RECALL_REFERENCES = 256


@dataclass(frozen=True)
class Ranking:
    """Patients by distance from each training patient's reference scan.

    `train` (n, depth) and `validation` (n, depth of validation) are rows of the tables `scan`, `patient`, `split`
    (m,); `train[:, 0]` are the references themselves, at distance 0. Patients in a row differ; ties go by scan id.
    """

    reference: np.ndarray  # S12 (n,), sorted
    train: np.ndarray  # int32
    validation: np.ndarray  # int32
    train_distance: np.ndarray  # float32
    validation_distance: np.ndarray  # float32
    scan: np.ndarray  # S12 (m,), sorted
    patient: np.ndarray  # S64 (m,)
    split: np.ndarray  # S10 (m,)

    def patients(self, split: str) -> int:
        """Number of distinct patients of a split."""
        return len(np.unique(self.patient[self.split == split.encode()]))


@dataclass(frozen=True)
class Embeddings:
    """One vector a scan: `vectors` float32 (m, d) and the tables beside it (m,), sorted by scan id."""

    vectors: np.ndarray
    scan: np.ndarray
    patient: np.ndarray
    split: np.ndarray
    neighbours: np.ndarray  # bool: may be a reference, or a neighbour to learn from
    stopping: np.ndarray  # bool: may be a neighbour to stop by


def read_embeddings(path: Path, roles: Roles) -> Embeddings:
    """The embeddings, vouched for: finite, and not all alike; and what their patients may be used for.

    InputError if a value is not finite, if the training patients are fewer than two, if their vectors are equal to
    within single precision (the auto-encoder then tells nobody from anybody), or if the roles disagree.
    """
    with open_h5(path) as file:
        vectors, scan, patient, split = (file[name][...] for name in ("vectors", "scan", "patient", "split"))
    roles.check(path, patient, split, PRETRAIN)
    order = np.argsort(scan, kind="stable")
    patient = patient[order]
    found = Embeddings(
        vectors[order],
        scan[order],
        patient,
        split[order],
        roles.mask(patient, "neighbours"),
        roles.mask(patient, "early_stopping"),
    )
    broken = ~np.isfinite(found.vectors).all(axis=1)
    if broken.any():
        first = found.scan[broken][0].decode()
        raise InputError(
            f"{path}: embeddings must be finite, those of {broken.sum()} of {len(broken)} scans are not "
            f"(the first is {first}); lower embed.training.learning_rate and run `dvc repro embed`"
        )
    train = found.neighbours
    patients = len(np.unique(found.patient[train]))
    if patients < 2:
        raise InputError(
            f"{path}: discovery compares training patients with each other and needs at least 2, got {patients}; "
            "add scans whose source has `pretrain` in its use"
        )
    spread = np.ptp(found.vectors[train], axis=0).max(initial=0)
    if spread <= 1e-6 * max(np.abs(found.vectors[train]).max(initial=0), 1e-30):
        raise InputError(
            f"{path}: the embeddings of all {train.sum()} training scans are equal, so no patient is nearer than "
            "another; train the auto-encoder longer or with another learning rate (section embed)"
        )
    return found


def rank(
    embeddings: Embeddings, index: str, depth: int | Literal["all"]
) -> tuple[Ranking, dict[str, float | list[str]]]:
    """Rank training and validation patients around every training patient's reference; and metrics of it.

    `index` is a faiss index_factory string; what it finds is ranked anew by distances in double precision, so that
    an exact index gives exactly the order of those. `depth` patients of each split are kept; all there are, if
    `depth` is "all" or more than that. An index that finds too few for a reference is helped out by exact search
    there, which is counted. InputError if faiss does not take the string, or not for so few vectors.
    """
    train, validation = map(np.flatnonzero, (embeddings.neighbours, embeddings.stopping))
    # Sorted by scan id, so the first scan of a patient is the one with the smallest.
    _, first = np.unique(embeddings.patient[train], return_index=True)
    references = np.sort(train[first])
    metrics: dict[str, float | list[str]] = {
        "scans": len(embeddings.scan),
        "training_patients": len(references),
        "validation_patients": len(np.unique(embeddings.patient[validation])),
        "dimensions": embeddings.vectors.shape[1],
    }
    results, warnings = {}, []
    for split, pool in (("train", train), ("validation", validation)):
        search = _Search(embeddings.vectors, embeddings.patient, pool, index)
        there = len(np.unique(embeddings.patient[pool]))
        kept = there if depth == "all" else min(depth, there)
        results[split] = search.rank(references, kept)
        if search.helped:
            warnings.append(
                f"the index {index!r} found fewer than {kept} {split} patients for {search.helped} of "
                f"{len(references)} references, which were ranked exactly"
            )
        metrics[f"depth_{split}"] = kept
        metrics[f"recall_{split}"] = _recall(search, results[split][0], references, kept)
    distance = results["train"][1]
    metrics["distance_nearest_median"] = float(np.median(distance[:, 1])) if distance.shape[1] > 1 else 0.0
    metrics["distance_median"] = float(np.median(distance[:, 1:])) if distance.shape[1] > 1 else 0.0
    metrics["warnings"] = warnings
    ranking = Ranking(
        embeddings.scan[references],
        results["train"][0],
        results["validation"][0],
        results["train"][1],
        results["validation"][1],
        embeddings.scan,
        embeddings.patient,
        embeddings.split,
    )
    return ranking, metrics


class _Search:
    """One split's scans in a faiss index, answering with distinct patients in exact order."""

    def __init__(self, vectors: np.ndarray, patient: np.ndarray, pool: np.ndarray, index: str) -> None:
        self.vectors, self.patient, self.pool, self.name = vectors, patient, pool, index
        self.helped = 0
        if len(pool):
            # The mean taken off, which changes no distance but lessens the rounding of faiss.
            centred = vectors - vectors[pool].mean(axis=0, dtype=np.float64).astype(np.float32)
            self._centred = np.ascontiguousarray(centred)
            self._lengths = np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
            self._index = _build(self._centred[pool], index)

    def rank(self, references: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 and distances float32, both (references, depth)."""
        rows = np.empty((len(references), depth), np.int32)
        distances = np.empty((len(references), depth), np.float32)
        for start in range(0, len(references) if depth else 0, BLOCK):
            open_ = np.arange(start, min(start + BLOCK, len(references)))
            asked = min(depth + SPARE, len(self.pool))
            while len(open_):
                found = self._ask(references[open_], asked)
                whole = asked == len(self.pool)
                left = []
                for i, candidates in zip(open_, found, strict=True):
                    answer = self._distinct(references[i], candidates, depth, whole)
                    if answer is None and whole:
                        self.helped += 1
                        answer = self._distinct(references[i], self.pool, depth, True)
                    if answer is None:
                        left.append(i)
                    else:
                        rows[i], distances[i] = answer
                open_ = np.array(left, dtype=np.int64)
                asked = min(2 * asked, len(self.pool))
        return rows, distances

    def _ask(self, references: np.ndarray, count: int) -> list[np.ndarray]:
        if self.name == "Flat" and count == len(self.pool):
            return [self.pool] * len(references)
        _, found = self._index.search(self._centred[references], count)
        return [self.pool[row[row >= 0]] for row in found]

    def _distinct(
        self, reference: int, candidates: np.ndarray, depth: int, whole: bool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The nearest `depth` distinct patients among the candidates; None if others might belong among them."""
        candidates = np.sort(candidates)
        difference = self.vectors[candidates].astype(np.float64) - self.vectors[reference]
        squared = np.einsum("ij,ij->i", difference, difference)
        farthest = squared.max(initial=0)
        own = self.patient[candidates] == self.patient[reference]
        usable = ~own | (candidates == reference)
        candidates, squared = candidates[usable], squared[usable]
        # Ties by scan id, which is the order of the rows; but the reference stands before its doubles.
        order = np.lexsort((candidates, candidates != reference, squared))
        _, first = np.unique(self.patient[candidates[order]], return_index=True)
        order = order[np.sort(first)][:depth]
        if len(order) < depth:
            return None
        doubt = ROUNDING * (self._lengths[reference] + self._lengths[candidates].max())
        if not whole and squared[order[-1]] >= farthest - doubt:
            return None
        return candidates[order].astype(np.int32), np.sqrt(squared[order]).astype(np.float32)


def _build(vectors: np.ndarray, name: str):
    """A trained faiss index of these vectors; on one thread, for some indexes are built otherwise on two."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index = faiss.index_factory(vectors.shape[1], name)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        why = str(error).split("Error: ")[-1].splitlines()[0]
        raise InputError(
            f"neighbors.index: faiss must be able to build it from {len(vectors)} vectors of {vectors.shape[1]} "
            f"numbers, got {name!r}: {why}; `Flat` is exact and always works"
        ) from None
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _recall(search: _Search, found: np.ndarray, references: np.ndarray, depth: int) -> float:
    """Share of the exactly nearest patients that the index found, over at most RECALL_REFERENCES references."""
    if search.name == "Flat" or depth == 0:
        return 1.0
    some = np.unique(np.linspace(0, len(references) - 1, min(RECALL_REFERENCES, len(references))).astype(int))
    exact, _ = _Search(search.vectors, search.patient, search.pool, "Flat").rank(references[some], depth)
    both = [len(np.intersect1d(ours, theirs)) for ours, theirs in zip(found[some], exact, strict=True)]
    return float(np.mean(both) / depth)


def write_ranking(folder: Path, ranking: Ranking, metrics: dict) -> None:
    """Write neighbors.h5 and metrics.json."""
    with create_h5(folder / "neighbors.h5") as file:
        for name, array in vars(ranking).items():
            write_array(file, name, array, fletcher32=True)
    text = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")


def read_ranking(path: Path, roles: Roles) -> Ranking:
    """The ranking of neighbors.h5.

    InputError if the file is missing or damaged, if its rows lead outside, or if it and the roles disagree.
    """
    with open_h5(path) as file:
        found = Ranking(**{name: file[name][...] for name in Ranking.__dataclass_fields__})
    roles.check(path, found.patient, found.split, PRETRAIN)
    for rows, role in ((found.train, "neighbours"), (found.validation, "early_stopping")):
        if rows.size and not (rows.min() >= 0 and rows.max() < len(found.scan)):
            raise InputError(
                f"{path}: rows must lie within the table of {len(found.scan)} scans; run `dvc repro neighbors`"
            )
        ranked = np.unique(found.patient[rows])
        if not (allowed := roles.mask(ranked, role)).all():
            raise InputError(
                f"{path}: ranks {ranked[~allowed][0].decode()!r}, which has not the role {role!r}; run `dvc repro neighbors`"
            )
    return found
