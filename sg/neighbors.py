"""The nearest patients of training patients in the space of the embedding.

Distance is Euclidean between embeddings, as in the paper; neighbours are distinct patients. Where a patient has
several scans, the one with the smallest id is its reference, and the one nearest to another's reference stands for
it there. Training and validation patients are ranked apart, to the same training references: to learn from the ones,
to stop by the others.

The vectors are held twice, as they were read and less their mean in the index of faiss; everything else goes in blocks,
but for the ranking itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sg.errors import InputError
from sg.randomness import generator
from sg.roles import PRETRAIN, Roles
from sg.storage import create_h5, data_set, open_h5, write_array

# Queries put to the index at once, patients asked for beyond what is needed (ties at the end of the ranking), and answers
# held at once, however many patients must be asked for.
BLOCK = 1024
SPARE = 16
ANSWERS = 2**24
# Vectors that are worked on at once, and that an index is trained on at most.
ROWS = 4096
TRAINED = 2**18
# faiss doubles what it holds when it is full: sixteen equal parts end where they fill it.
PARTS = 16
# faiss computes |a|^2 - 2ab + |b|^2 in single precision: its squared distances are off by some 1e-6 of the squared
# lengths, so whatever comes nearer to the last one found than this might as well be farther.
ROUNDING = 1e-5
# References on which an approximate index is held against exact search.
RECALL_REFERENCES = 256

# faiss ends the process, without a word of ours, for links or bits of these numbers: HNSW0, HNSW1, PQ4x0.
_ENDS_THE_PROCESS = re.compile(r"HNSW0*[01](?!\d)|(?<!\d)0+(?!\d)")
# What faiss says, and what we do
_COMPLAINTS = (
    ("could not parse (?:index|code|2 layer)|unbalanced parentheses|stoi", "it is no index that faiss knows"),
    (r"points \((\d+)\) should be at least as large as number of clusters \((\d+)\)",
     r"it learns from at least \2 vectors, and \1 are there"),
    ("multiple of the number of subquantizers", "PQ must cut a vector into parts of one length"),
)  # fmt: skip
_EXACT = "`Flat` is exact and always works"


@dataclass(frozen=True)
class Ranking:
    """Patients by distance from the reference scans of training patients.

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


# What each table of it holds, along how many axes
_OF_A_RANKING = {
    "reference": (np.bytes_, 1),
    "train": (np.int32, 2),
    "validation": (np.int32, 2),
    "train_distance": (np.float32, 2),
    "validation_distance": (np.float32, 2),
    "scan": (np.bytes_, 1),
    "patient": (np.bytes_, 1),
    "split": (np.bytes_, 1),
}


@dataclass(frozen=True)
class Embeddings:
    """One vector a scan: `vectors` float32 (m, d) and the tables beside it (m,), sorted by scan id."""

    vectors: np.ndarray
    scan: np.ndarray
    patient: np.ndarray
    split: np.ndarray
    neighbours: np.ndarray  # bool: may be a reference, or a neighbour to learn from
    stopping: np.ndarray  # bool: may be a neighbour to stop by


def read_vectors(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The tables `vectors` float32 (m, d), `scan`, `patient` and `split` (m,), texts, of a file of embeddings.

    InputError if one is of another kind, if their lengths disagree, or if a vector is not finite.
    """
    with open_h5(path) as file:
        vectors = data_set(file, path, "vectors", np.float32, 2)[...]
        texts = {name: data_set(file, path, name, np.bytes_, 1)[...] for name in ("scan", "patient", "split")}
    _of_one_length(path, "embed", {"vectors": vectors, **texts})
    parts = _parts(np.arange(len(vectors)), ROWS)
    broken = np.concatenate(
        [~np.isfinite(vectors[part]).all(axis=1) for part in parts] or [np.empty(0, bool)]
    )
    if broken.any():
        first = min(texts["scan"][broken].tolist()).decode(errors="backslashreplace")
        raise InputError(
            f"{path}: embeddings must be finite, those of {broken.sum()} of {len(broken)} scans are not "
            f"(the first is {first}); lower embed.training.learning_rate and run `dvc repro embed`"
        )
    return vectors, texts["scan"], texts["patient"], texts["split"]


def _of_one_length(path: Path, stage: str, tables: dict[str, np.ndarray]) -> None:
    if len({len(table) for table in tables.values()}) > 1:
        got = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        raise InputError(
            f"{path}: there must be as many rows in each of its tables, got {got}; run `dvc repro {stage}`"
        )


def read_embeddings(path: Path, roles: Roles) -> Embeddings:
    """The embeddings, vouched for: finite, and not all alike; and what their patients may be used for.

    InputError as `read_vectors`, if the training patients are fewer than two, if their
    vectors are equal to within single precision (the auto-encoder then tells nobody from anybody), or if the roles
    disagree.
    """
    vectors, scan, patient, split = read_vectors(path)
    roles.check(path, patient, split, PRETRAIN)
    if (scan[1:] < scan[:-1]).any():
        order = np.argsort(scan, kind="stable")
        vectors, scan, patient, split = (column[order] for column in (vectors, scan, patient, split))
    found = Embeddings(
        vectors,
        scan,
        patient,
        split,
        roles.mask(patient, "neighbours"),
        roles.mask(patient, "early_stopping"),
    )
    train = np.flatnonzero(found.neighbours)
    patients = len(np.unique(found.patient[train]))
    if patients < 2:
        raise InputError(
            f"{path}: discovery compares training patients with each other and needs at least 2, got {patients}; "
            "add scans whose source has `pretrain` in its use"
        )
    least = np.min([vectors[part].min(axis=0) for part in _parts(train, ROWS)], axis=0)
    most = np.max([vectors[part].max(axis=0) for part in _parts(train, ROWS)], axis=0)
    if (most - least).max(initial=0) <= 1e-6 * max(np.abs([least, most]).max(initial=0), 1e-30):
        raise InputError(
            f"{path}: the embeddings of all {len(train)} training scans are equal, so no patient is nearer than "
            "another; train the auto-encoder longer or with another learning rate (section embed)"
        )
    return found


def draw_references(embeddings: Embeddings, count: int | Literal["all"], seed: int) -> np.ndarray:
    """Rows of the references: of so many training patients, drawn at random, the scan with the smallest id; sorted.

    All training patients if `count` is "all" or more than there are.
    """
    train = np.flatnonzero(embeddings.neighbours)
    # Sorted by scan id, so the first scan of a patient is the one with the smallest.
    _, first = np.unique(embeddings.patient[train], return_index=True)
    references = np.sort(train[first])
    if count == "all" or count >= len(references):
        return references
    drawn = generator(seed, "neighbors", purpose="references").permutation(len(references))[:count]
    return np.sort(references[drawn])


def rank(
    embeddings: Embeddings,
    index: str,
    depth: int | Literal["all"],
    search: str | None = None,
    references: np.ndarray | None = None,
) -> tuple[Ranking, dict[str, float | list[str]]]:
    """Rank training and validation patients around references (rows, sorted); and metrics of it.

    Without `references` they are those of all training patients. `index` is a faiss index_factory string and `search`
    what its ParameterSpace sets on it; what it finds is ranked anew by distances in double precision, so that an exact
    index gives exactly the order of those. `depth` patients of each split are kept; all there are, if `depth` is "all"
    or more than that. An index that finds too few for a reference is helped out by exact search there, which is
    counted.

    InputError if faiss does not take the strings, or not for so few vectors, or if the ranking cannot be held in
    memory.
    """
    train, validation = map(np.flatnonzero, (embeddings.neighbours, embeddings.stopping))
    references = draw_references(embeddings, "all", 0) if references is None else references
    # Patients by number: comparing texts of 64 bytes for every reference would take as long as their distances.
    _, patient = np.unique(embeddings.patient, return_inverse=True)
    there = {"train": len(np.unique(patient[train])), "validation": len(np.unique(patient[validation]))}
    kept = {split: count if depth == "all" else min(depth, count) for split, count in there.items()}
    _refuse_too_large(len(references), kept, embeddings.vectors)
    metrics: dict[str, float | list[str]] = {
        "scans": len(embeddings.scan),
        "training_patients": there["train"],
        "validation_patients": there["validation"],
        "dimensions": embeddings.vectors.shape[1],
    }
    results, warnings = {}, []
    for split, pool in (("train", train), ("validation", validation)):
        asked = _Search(embeddings.vectors, patient, pool, index, search)
        results[split] = asked.rank(references, kept[split])
        if asked.helped:
            warnings.append(
                f"the index {index!r} found fewer than {kept[split]} {split} patients for {asked.helped} of "
                f"{len(references)} references, which were ranked exactly"
            )
        del asked  # its vectors, before another index takes as much
        metrics[f"depth_{split}"] = kept[split]
        metrics[f"recall_{split}"] = (
            1.0
            if index == "Flat"
            else _recall(embeddings.vectors, patient, pool, results[split][0], references)
        )
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


def _refuse_too_large(references: int, kept: dict[str, int], vectors: np.ndarray) -> None:
    """InputError if a ranking, of a row and a distance an entry, and the vectors twice exceed the machine's memory."""
    deep = sum(kept.values())
    needed = 8 * references * deep + 2 * vectors.nbytes
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > most:
        raise InputError(
            f"neighbors.depth: the ranking of {deep} patients ({kept['train']} training, {kept['validation']} "
            f"validation) around each of {references} references, with {len(vectors)} vectors, takes "
            f"{needed / 1e9:.1f} GB, and this machine has {most / 1e9:.1f} GB of memory; lower neighbors.depth (a little "
            "above coordinates.k is enough) or neighbors.references"
        )


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The rows in parts of at most that size."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class _Search:
    """One split's scans in a faiss index, answering with distinct patients in exact order."""

    def __init__(
        self,
        vectors: np.ndarray,
        patient: np.ndarray,
        pool: np.ndarray,
        index: str,
        search: str | None = None,
    ) -> None:
        self.vectors, self.patient, self.pool, self.name = vectors, patient, pool, index
        self.helped = 0
        self._in_pool = np.zeros(len(vectors), bool)
        self._in_pool[pool] = True
        if len(pool):
            self._mean = mean_of(vectors, pool)
            self._index = build_index(vectors, pool, self._mean, index, search)
            self._lengths = np.concatenate(
                [
                    np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
                    for centred in (
                        vectors[part] - self._mean for part in _parts(np.arange(len(vectors)), ROWS)
                    )
                ]
            )

    def rank(self, references: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 and distances float32, both (references, depth)."""
        rows = np.empty((len(references), depth), np.int32)
        distances = np.empty((len(references), depth), np.float32)
        for open_ in _parts(np.arange(len(references) if depth else 0), BLOCK):
            asked = min(depth + SPARE, len(self.pool))
            while len(open_):
                left = []
                for i, (candidates, whole) in zip(open_, self._ask(references[open_], asked), strict=True):
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

    def _ask(self, references: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, bool]]:
        """Candidates of each reference, and whether they are all that the index can give."""
        everything = count == len(self.pool)
        if self.name == "Flat" and everything:
            yield from ((self.pool, True) for _ in references)
            return
        for part in _parts(references, max(1, ANSWERS // count)):
            _, found = self._index.search(self.vectors[part] - self._mean, count)
            for row in found:
                there = row >= 0
                yield self.pool[row[there]], everything or not there.all()

    def _distinct(
        self, reference: int, candidates: np.ndarray, depth: int, whole: bool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The nearest `depth` distinct patients among the candidates; None if others might belong among them."""
        if self._in_pool[reference]:  # an approximate index may miss even the vector that it is asked about
            candidates = np.append(candidates, reference)
        candidates = np.unique(candidates)
        squared = self._squared(reference, candidates)
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

    def _squared(self, reference: int, candidates: np.ndarray) -> np.ndarray:
        """Squared distances in double precision, (candidates,)."""
        squared = np.empty(len(candidates))
        for part in _parts(np.arange(len(candidates)), ROWS):
            difference = self.vectors[candidates[part]].astype(np.float64)
            difference -= self.vectors[reference]
            squared[part] = np.einsum("ij,ij->i", difference, difference)
        return squared


def mean_of(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The mean of some rows of vectors (n, d), float32 (d,).

    Taken off all vectors it changes no distance, but lessens the rounding of faiss.
    """
    total = sum(vectors[part].sum(axis=0, dtype=np.float64) for part in _parts(rows, ROWS))
    return (total / len(rows)).astype(np.float32)


def build_index(vectors: np.ndarray, rows: np.ndarray, mean: np.ndarray, name: str, search: str | None):
    """A faiss index of some rows of vectors float32 (n, d) less their mean (d,), searched with those parameters.

    On one thread, for some indexes are built otherwise on two; trained, where it has to be, on at most TRAINED of the
    rows. InputError if faiss does not take the name, or not for so few vectors, or not the parameters.
    """
    import faiss

    what = (
        f"neighbors.index: faiss must be able to build it from {len(rows)} vectors of {vectors.shape[1]} numbers, got "
        f"{name!r}"
    )
    if _ENDS_THE_PROCESS.search(name):
        raise InputError(f"{what}: HNSW takes numbers from 2, all else from 1; {_EXACT}")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index = faiss.index_factory(vectors.shape[1], name)
        if not index.is_trained:
            some = np.linspace(0, len(rows) - 1, min(TRAINED, len(rows))).astype(int)
            index.train(vectors[rows[some]] - mean)
        for part in _parts(rows, -(-len(rows) // PARTS)):
            taken = vectors[part]
            taken -= mean
            index.add(taken)
    except RuntimeError as error:
        raise InputError(f"{what}: {_why(error)}; {_EXACT}") from None
    finally:
        faiss.omp_set_num_threads(threads)
    try:
        faiss.ParameterSpace().set_index_parameters(index, search or "")
    except RuntimeError as error:
        raise InputError(
            f"neighbors.search: faiss must be able to set it on the index {name!r}, got {search!r}: {_why(error)}; "
            "IVF takes nprobe, HNSW efSearch, and `Flat` nothing (null)"
        ) from None
    return index


def _why(error: RuntimeError) -> str:
    """What faiss complains of, in our words where they are known, and never with the place in its code."""
    complaint = str(error)
    for sign, words in _COMPLAINTS:
        if found := re.search(sign, complaint):
            return found.expand(words)
    return re.split(r"Error: |' failed: |\.cpp:\d+: (?:\w+::\w+:)?", complaint)[-1].splitlines()[0]


def _recall(
    vectors: np.ndarray, patient: np.ndarray, pool: np.ndarray, found: np.ndarray, references: np.ndarray
) -> float:
    """Share of the exactly nearest patients that were found, over at most RECALL_REFERENCES references."""
    depth = found.shape[1]
    if depth == 0:
        return 1.0
    some = np.unique(np.linspace(0, len(references) - 1, min(RECALL_REFERENCES, len(references))).astype(int))
    exact, _ = _Search(vectors, patient, pool, "Flat").rank(references[some], depth)
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

    InputError if the file is missing or damaged, if its tables are of other kinds or lengths, if its rows lead outside,
    or if it and the roles disagree.
    """
    with open_h5(path) as file:
        found = Ranking(
            **{name: data_set(file, path, name, *kind)[...] for name, kind in _OF_A_RANKING.items()}
        )
    for names in (("scan", "patient", "split"), ("reference", "train", "validation")):
        _of_one_length(path, "neighbors", {name: getattr(found, name) for name in names})
    for split in ("train", "validation"):
        rows, distances = getattr(found, split), getattr(found, f"{split}_distance")
        if rows.shape != distances.shape:
            raise InputError(
                f"{path}: {split}_distance must be {rows.shape}, a distance for each row of {split}, got "
                f"{distances.shape}; run `dvc repro neighbors`"
            )
    roles.check(path, found.patient, found.split, PRETRAIN)
    for rows, role in ((found.train, "neighbours"), (found.validation, "early_stopping")):
        if rows.size and not (rows.min() >= 0 and rows.max() < len(found.scan)):
            raise InputError(
                f"{path}: rows must lie within the table of {len(found.scan)} scans; run `dvc repro neighbors`"
            )
        # Rows first: they are numbers, and far more of them than names.
        ranked = np.unique(found.patient[np.unique(rows)])
        if not (allowed := roles.mask(ranked, role)).all():
            raise InputError(
                f"{path}: ranks {ranked[~allowed][0].decode()!r}, which has not the role {role!r}; run `dvc repro neighbors`"
            )
    others = found.scan[found.train[:, :1]] != found.reference[:, None]
    if others.any():
        first = np.flatnonzero(others)[0]
        raise InputError(
            f"{path}: each reference must be the first of its own training patients, got "
            f"{found.scan[found.train[first, 0]].decode()!r} before {found.reference[first].decode()!r}; run "
            "`dvc repro neighbors`"
        )
    return found
