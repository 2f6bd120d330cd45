"""Searching up to a million patients: exact, IVF and HNSW indexes of faiss, as `neighbors.index` names them.

    python -m bench.search [--like data/embed/embeddings.h5] [--sizes 10000 100000] [--full]

Patients are drawn from a mixture of Gaussians. Without --like it is a made-up one of 512 numbers: 40 groups in 24
directions, each with a covariance of its own, and a little noise along all others. With --like it is fitted to those
embeddings: their leading directions (at most 24), a mixture in these, noise for the rest; it has their dimensions.
--full adds a million patients (some 7 GB of memory).

For each size and index: seconds to build it, its size in memory, milliseconds of one batch of 44 references (the paper's
C) whose 200 nearest are asked for, over several batches with the indexes taken in turn, and the share of the exactly
nearest 200 that it finds. An index is used as the stage uses it, with faiss's own settings of search; `, nprobe 16` is
IVF looking into 16 cells instead of one, which the stage cannot ask for. The last column is what it takes to build the
index and search around every patient, as the stage does, reckoned from one of its blocks of 1024 references; its
distances made anew in double precision are not in it. One thread. The last line is the time of an exact query over that
of HNSW at the largest size.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import faiss
import numpy as np
from sklearn.mixture import GaussianMixture

from bench.timing import in_turn
from sg.neighbors import BLOCK
from sg.storage import open_h5

DIMENSIONS, DIRECTIONS, GROUPS = 512, 24, 40
NOISE = 0.05
C, K = 44, 200
BATCHES = 5
DRAWN = 10_000  # vectors drawn at once
SIZES, FULL = [10_000, 100_000], 1_000_000
PROBES = 16


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


@dataclass
class Built:
    """An index and what it took."""

    index: faiss.Index
    seconds: float
    megabytes: float
    probes: int | None = None

    def search(self, references: np.ndarray) -> np.ndarray:
        """Rows of the nearest K of each reference."""
        if self.probes is None:
            return self.index.search(references, K)[1]
        settings = faiss.SearchParametersIVF(nprobe=self.probes)
        return self.index.search(references, K, params=settings)[1]


def build(name: str, vectors: np.ndarray) -> Built:
    """An index of that name, as the stage builds it."""
    start = perf_counter()
    index = faiss.index_factory(vectors.shape[1], name)
    index.train(vectors)
    index.add(vectors)
    return Built(index, perf_counter() - start, stored(index))


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


def compare(mixture: Mixture, count: int) -> float:
    """Build and search all indexes of one size, print a row for each; exact over HNSW."""
    vectors = mixture.draw(count)
    exact = build("Flat", vectors)
    # The exact index holds them all; so they need not lie in memory twice.
    vectors = faiss.rev_swig_ptr(exact.index.get_xb(), vectors.size).reshape(vectors.shape)
    lists = 2 ** round(math.log2(math.sqrt(count)))
    ivf, hnsw = (build(name, vectors) for name in (f"IVF{lists},Flat", "HNSW32,Flat"))
    all_built = {
        "Flat": exact,
        f"IVF{lists},Flat": ivf,
        f"IVF{lists},Flat, nprobe {PROBES}": Built(ivf.index, ivf.seconds, ivf.megabytes, PROBES),
        "HNSW32,Flat": hnsw,
    }
    rng = np.random.default_rng(2)
    batches = [vectors[rng.choice(count, C, replace=False)] for _ in range(BATCHES)]
    times: dict[str, list[float]] = {name: [] for name in all_built}
    found: dict[str, list[np.ndarray]] = {name: [] for name in all_built}
    for batch in batches:
        sides = {
            name: lambda name=name, built=built, batch=batch: found[name].append(built.search(batch))
            for name, built in all_built.items()
        }
        for name, (seconds,) in in_turn(sides, 1).items():
            times[name].append(seconds)
    truth = np.concatenate(found["Flat"])
    block = vectors[rng.choice(count, min(BLOCK, count), replace=False)]
    for name, built in all_built.items():
        query = median(times[name])
        hits = [len(np.intersect1d(*pair)) for pair in zip(np.concatenate(found[name]), truth, strict=True)]
        start = perf_counter()
        built.search(block)
        whole = built.seconds + (perf_counter() - start) * count / len(block)
        print(
            f"| {count} | {name} | {built.seconds:.2f} | {built.megabytes:.0f} | {1000 * query:.1f} | "
            f"{np.mean(hits) / K:.3f} | {whole:.0f} |",
            flush=True,
        )
    return median(times["Flat"]) / median(times["HNSW32,Flat"])


def main() -> None:
    """Print the table, and the ratio at the largest size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", type=Path, help="embeddings.h5 that the mixture is fitted to")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="patients")
    parser.add_argument("--full", action="store_true", help="a million patients too")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    mixture = fitted(options.like) if options.like else made_up()
    groups, directions = mixture.means.shape
    print(
        f"a {f'mixture fitted to {options.like}' if options.like else 'made-up mixture'} of {groups} Gaussians in "
        f"{directions} of {mixture.directions.shape[1]} dimensions, noise {mixture.noise:.3g}; batches of {C} references, "
        f"{K} nearest, one thread"
    )
    print("| patients | index | build, s | MB | batch, ms | recall@200 | all patients, s |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    ratios = [
        compare(mixture, count) for count in sorted({*options.sizes, *([FULL] if options.full else [])})
    ]
    print(f"ratio {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
