"""The 200 nearest of every scan by 512 numbers: sg's ranking through faiss against loops of NumPy distances.

    python -m bench.neighbors [--sizes 2000 10000]

Published: a distance for every pair, one by one, and a sort for each reference. Beside it a loop over the references
alone, with all distances of one as one NumPy expression. Both take as many references as are timed and are scaled up to
all; ours ranks all of them, index built and distances made anew in double precision included. All on one thread, from
the same float32 vectors (a mixture of 20 Gaussians); the rankings must be equal. The last line is the published time
over ours at the largest size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import faiss
import numpy as np

from bench.timing import in_turn, line
from sg.neighbors import Embeddings, rank

DIMENSIONS, GROUPS = 512, 20
DEPTH = 200
REFERENCES = 40  # that the loops are timed on
ROUNDS = 3


def embeddings(count: int) -> Embeddings:
    """So many training scans, each of its own patient."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((GROUPS, DIMENSIONS))
    vectors = centres[rng.integers(GROUPS, size=count)] + rng.standard_normal((count, DIMENSIONS))
    names = [f"{number:012x}" for number in range(count)]
    yes = np.ones(count, bool)
    return Embeddings(
        vectors.astype(np.float32),
        np.array(names, "S12"),
        np.array(names, "S64"),
        np.full(count, b"train", "S10"),
        yes,
        ~yes,
    )


def by_pairs(vectors: np.ndarray, reference: int) -> np.ndarray:
    """Rows by distance from a reference, a pair at a time, as published."""
    distances = np.zeros(len(vectors))
    for other in range(len(vectors)):
        distances[other] = np.linalg.norm(vectors[reference] - vectors[other])
    return np.argsort(distances, kind="stable")


def by_reference(vectors: np.ndarray, reference: int) -> np.ndarray:
    """The same, all distances at once."""
    return np.argsort(np.linalg.norm(vectors - vectors[reference], axis=1), kind="stable")


def compare(count: int) -> float:
    """Time all sides at one size; how many times as fast as published ours is."""
    given = embeddings(count)
    some = np.linspace(0, count - 1, REFERENCES).astype(int)
    # In double precision, lest the loops order near ties by rounding; timed are the vectors as they are.
    exact = given.vectors.astype(np.float64)
    found = rank(given, "Flat", DEPTH)[0].train
    loops: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "pair by pair": by_pairs,
        "reference by reference": by_reference,
    }
    for loop in loops.values():
        np.testing.assert_array_equal([loop(exact, one)[:DEPTH] for one in some], found[some])

    sides = {
        name: lambda loop=loop: [loop(given.vectors, one) for one in some] for name, loop in loops.items()
    }
    sides["sg"] = lambda: rank(given, "Flat", DEPTH)
    taken = in_turn(sides, ROUNDS)
    print(
        f"{count} scans x {DIMENSIONS} numbers, {DEPTH} nearest; rankings of {REFERENCES} references are equal"
    )
    scale = count / REFERENCES
    for name in loops:
        print(f"{line(name, taken[name], scale)}, timed on {REFERENCES} references, {scale:g} times that")
    print(line("sg", taken["sg"]))
    theirs, closer = (scale * median(taken[name]) / median(taken["sg"]) for name in loops)
    print(f"{theirs:.1f} times as fast as pair by pair, {closer:.1f} times as reference by reference")
    return theirs


def main() -> None:
    """Compare at each size, and print the ratio at the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 10_000], help="scans")
    faiss.omp_set_num_threads(1)
    ratios = [compare(count) for count in sorted(parser.parse_args().sizes)]
    print(f"ratio {ratios[-1]:.1f}")


if __name__ == "__main__":
    main()
