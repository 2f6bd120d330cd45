"""Searching up to a million patients: exact, IVF and HNSW indexes of faiss, as the stage `neighbors` builds them.

    python -m bench.search [--like data/embed/embeddings.h5] [--sizes 10000 100000 1000000] [--kinds Flat IVF HNSW]

Patients are vectors of 512 numbers drawn from a mixture of Gaussians. Without --like it is a made-up one: 40 groups in 24
directions, each with a covariance of its own, and a little noise along all axes. With --like it is fitted to those
embeddings: their leading directions (at most 24), a mixture in these, noise for the rest; where they have fewer numbers,
the directions are laid into 512 at random, which changes no distance between them.

For each size and index, a row as soon as it is known: seconds to build the index, its size, milliseconds of one batch of
44 references (the paper's C) whose 200 nearest are asked for (median of some batches), the share of the exactly nearest
200 that it finds, milliseconds a reference in a block of 1024, and from how many references on building and searching it
is cheaper than building and searching `Flat`. An index is kept for all of its searches and given up before the next one
is built, so that at most two times the vectors are held. All times are those of the processor, on one thread: waiting for
a shared machine is not counted. The stage's distances in double precision come on top and are not in it. The last line
is the time of an exact query over that of the widest HNSW search (of the widest other, without HNSW) at the largest size.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import process_time

import faiss
import numpy as np
from sklearn.mixture import GaussianMixture

from sg.neighbors import BLOCK, build_index, mean_of
from sg.storage import open_h5

DIMENSIONS, DIRECTIONS, GROUPS = 512, 24, 40
NOISE = 0.05
C, K = 44, 200
BATCHES = 5
DRAWN = 10_000  # vectors drawn at once
SIZES = [10_000, 100_000]
# The searches of each kind of index, narrow to wide.
SEARCHES = {
    "Flat": [None],
    "IVF": ["nprobe=1", "nprobe=16", "nprobe=64", "nprobe=256"],
    "HNSW": [None, "efSearch=512", "efSearch=1024"],
}


@dataclass(frozen=True)
class Mixture:
    """Gaussians (g) in some directions (r) of a space (d), and equal noise along all of its axes."""

    shares: np.ndarray  # (g,)
    means: np.ndarray  # (g, r)
    roots: np.ndarray  # (g, r, r), of the covariances
    directions: np.ndarray  # (r, d), orthonormal
    noise: float

    def draw(self, count: int) -> np.ndarray:
        """So many vectors, float32 (count, d); the origin is the mean of what it was fitted to."""
        rng = np.random.default_rng(0)
        drawn = np.empty((count, self.directions.shape[1]), np.float32)
        for start in range(0, count, DRAWN):
            rows = drawn[start : start + DRAWN]
            group = rng.choice(len(self.shares), size=len(rows), p=self.shares)
            inner = np.einsum(
                "nrs,ns->nr", self.roots[group], rng.standard_normal((len(rows), self.means.shape[1]))
            )
            rng.standard_normal(dtype=np.float32, out=rows)
            rows *= np.float32(self.noise)
            rows += (inner + self.means[group]) @ self.directions
        return drawn

    def laid_into(self, dimensions: int) -> Mixture:
        """The same in a space of more dimensions, its directions laid there at random."""
        if dimensions <= (own := self.directions.shape[1]):
            return self
        axes = np.linalg.qr(np.random.default_rng(3).standard_normal((dimensions, own)))[0].T
        return replace(self, directions=self.directions @ axes)


def made_up() -> Mixture:
    """The mixture that stands in for embeddings."""
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIRECTIONS)))[0].T
    roots = rng.standard_normal((GROUPS, DIRECTIONS, DIRECTIONS)) / math.sqrt(DIRECTIONS)
    return Mixture(
        rng.dirichlet(np.full(GROUPS, 5.0)),
        rng.standard_normal((GROUPS, DIRECTIONS)),
        roots,
        directions,
        NOISE,
    )


def fitted(path: Path) -> Mixture:
    """The mixture of some embeddings, as many groups as there are ten scans for each."""
    with open_h5(path) as file:
        vectors = file["vectors"][...].astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    kept = min(DIRECTIONS, np.count_nonzero(lengths > 1e-6 * lengths[0]), max(1, len(vectors) // 4))
    inner = centred @ axes[:kept].T
    groups = min(GROUPS, max(1, len(vectors) // 10))
    scale = inner.std(axis=0).mean()
    model = GaussianMixture(groups, reg_covar=1e-3 * scale**2, random_state=0).fit(inner)
    rest = centred - inner @ axes[:kept]
    return Mixture(
        model.weights_, model.means_, np.linalg.cholesky(model.covariances_), axes[:kept], float(rest.std())
    )


def name_of(kind: str, count: int) -> str:
    """The index_factory string of a kind for so many vectors.

    IVF has some four square roots of them as cells, as faiss advises, but 39 vectors at least to learn each from.
    """
    cells = 2 ** round(math.log2(min(4 * math.sqrt(count), count / 39)))
    return {"Flat": "Flat", "IVF": f"IVF{cells},Flat", "HNSW": "HNSW32,Flat"}[kind]


def stored(index: faiss.Index) -> float:
    """What an index holds, MB, counted as it would be written, without a copy of it."""
    count = 0

    def add(part: bytes) -> int:
        nonlocal count
        count += len(part)
        return len(part)

    writer = faiss.PyCallbackIOWriter(add)
    faiss.write_index(index, faiss.BufferedIOWriter(writer))
    return count / 1e6


@dataclass(frozen=True)
class Row:
    """A line of the table: what one search of one index takes and finds."""

    patients: int
    index: str
    build: float  # s
    megabytes: float
    batch: float  # s
    found: np.ndarray  # (references, K)
    query: float  # s, of one reference among BLOCK

    def line(self, exact: Row | None) -> str:
        """As a line of the table, held against the exact search where there is one."""
        hits, pays = "", ""
        if exact:
            each = [len(np.intersect1d(*pair)) for pair in zip(self.found, exact.found, strict=True)]
            hits = f"{np.mean(each) / K:.3f}"
            saved = exact.query - self.query
            if self is not exact:
                pays = f"{(self.build - exact.build) / saved:.0f}" if saved > 0 else "never"
        return (
            f"| {self.patients} | {self.index} | {self.build:.2f} | {self.megabytes:.0f} | {1000 * self.batch:.1f} | "
            f"{hits} | {1000 * self.query:.2f} | {pays} |"
        )


def rows(vectors: np.ndarray, kind: str) -> Iterator[Row]:
    """Build an index and search it in all of its ways."""
    count = len(vectors)
    everyone = np.arange(count)
    mean = mean_of(vectors, everyone)
    rng = np.random.default_rng(2)
    batches = [vectors[rng.choice(count, C, replace=False)] - mean for _ in range(BATCHES)]
    block = vectors[rng.choice(count, min(BLOCK, count), replace=False)] - mean
    start = process_time()
    index = build_index(vectors, everyone, mean, name_of(kind, count), None)
    built, megabytes = process_time() - start, stored(index)
    for settings in SEARCHES[kind]:
        faiss.ParameterSpace().set_index_parameters(index, settings or "")
        taken, found = [], []
        for batch in batches:
            start = process_time()
            found.append(index.search(batch, K)[1])
            taken.append(process_time() - start)
        start = process_time()
        index.search(block, K)
        query = (process_time() - start) / len(block)
        name = f"{name_of(kind, count)}{f', {settings}' if settings else ''}"
        yield Row(count, name, built, megabytes, median(taken), np.concatenate(found), query)


def compare(mixture: Mixture, count: int, kinds: list[str]) -> float:
    """Build and search the indexes of one size, print a row for each; how many times as fast as exact the last is."""
    vectors = mixture.draw(count)
    exact = last = None
    for kind in kinds:
        for last in rows(vectors, kind):
            exact = exact or (last if kind == "Flat" else None)
            print(last.line(exact), flush=True)
    return exact.query / last.query if exact else math.nan


def main() -> None:
    """Print the table, and the ratio at the largest size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", type=Path, help="embeddings.h5 that the mixture is fitted to")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="patients")
    parser.add_argument("--kinds", choices=SEARCHES, nargs="+", default=list(SEARCHES), help="indexes")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    mixture = (fitted(options.like) if options.like else made_up()).laid_into(DIMENSIONS)
    groups, directions = mixture.means.shape
    print(
        f"a {f'mixture fitted to {options.like}' if options.like else 'made-up mixture'} of {groups} Gaussians in "
        f"{directions} of {mixture.directions.shape[1]} dimensions, noise {mixture.noise:.3g}; batches of {C} references, "
        f"{K} nearest, one thread"
    )
    print("| patients | index | build, s | MB | batch, ms | recall@200 | a reference, ms | pays from C |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    ratios = [compare(mixture, count, options.kinds) for count in sorted(options.sizes)]
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
    print(f"ratio {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
