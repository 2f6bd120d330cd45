"""Whether the patches of a pattern look alike: needs no truth.

By their correlations, within a pattern and across; and by how well a linear classifier tells the patterns apart in
validation patients, from what the auto-encoder's encoder makes of the patches.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from sg.networks.autoencoder import AutoEncoder
from sg.patches import PatchCache
from sg.quality.controls import embedded
from sg.quality.table import RESAMPLES, interval
from sg.randomness import generator

# Patches held at a time.
BLOCK = 64
# Of each pattern and split, so many patches at most tell how well patterns are told apart.
EXAMPLES = 50
STEPS = 1000


@dataclass(frozen=True)
class Alike:
    """Mean normalised cross-correlations in [-1, 1] over pairs of patches."""

    within: dict[int, float]  # by pattern, over pairs of its patches
    mean_within: float  # over patterns; NaN if none has a pair
    across: float  # over pairs from two patterns; NaN if there is none
    flat: int  # patches of one value, which correlate with nothing and are left out


def correlations(cache: PatchCache) -> Alike:
    """How alike the fixed training patches of a pattern are, against those of others.

    The mean over all pairs follows from the sum of the patches, each less its mean and of length 1: of n of them
    (|sum|^2 - n) / (n (n - 1)). Memory is that of a block of patches, whatever their number.
    """
    rows = cache.rows
    fixed = (rows["resolution"] == 0) & (rows["split"] == b"train")
    within: dict[int, float] = {}
    everything = np.zeros(int(np.prod(cache.patch_size)))
    pairs, inner, total, flat = 0, 0.0, 0, 0
    for pattern in np.unique(rows["pattern"][fixed]):
        indices = np.flatnonzero(fixed & (rows["pattern"] == pattern))
        sums, count = _normalized_sum(cache, indices)
        flat += len(indices) - count
        squared = float(sums @ sums)
        if count > 1:
            within[int(pattern)] = (squared - count) / (count * (count - 1))
        everything += sums
        inner += squared
        pairs += count * count
        total += count
    others = total * total - pairs
    across = (float(everything @ everything) - inner) / others if others else float("nan")
    return Alike(within, float(np.mean(list(within.values()))) if within else float("nan"), across, flat)


def _normalized_sum(cache: PatchCache, indices: np.ndarray) -> tuple[np.ndarray, int]:
    sums, count = np.zeros(int(np.prod(cache.patch_size))), 0
    for start in range(0, len(indices), BLOCK):
        some = indices[start : start + BLOCK]
        patches = cache.read(some).reshape(len(some), -1).astype(np.float64)
        patches -= patches.mean(axis=1, keepdims=True)
        length = np.sqrt(np.einsum("ij,ij->i", patches, patches))
        kept = length > 0
        sums += (patches[kept] / length[kept, None]).sum(axis=0)
        count += int(np.count_nonzero(kept))
    return sums, count


# ------------------------------------------------------------------------------------ told apart by a classifier


@dataclass(frozen=True)
class Told:
    """How well the patterns are told apart in validation patients; NaN where that cannot be asked."""

    accuracy: float
    low: float
    high: float
    untrained: float
    chance: float
    warnings: tuple[str, ...]


def told_apart(cache: PatchCache, trained: AutoEncoder, untrained: AutoEncoder, seed: int) -> Told:
    """Accuracy on validation patches of a logistic regression learned from training patches, fixed ones only.

    Of each pattern at most EXAMPLES patches a split, evenly spaced in their order; a patch is given as its embedding by
    an encoder, standardised. The interval is by a bootstrap over validation patients.
    """
    rows = cache.rows
    fixed = rows["resolution"] == 0
    learned, asked = (
        _spaced(rows, np.flatnonzero(fixed & (rows["split"] == split))) for split in (b"train", b"validation")
    )
    there = [np.unique(rows["pattern"][indices]) for indices in (learned, asked)]
    chance = 1 / cache.patterns if cache.patterns else np.nan
    said = []
    if lacking := cache.patterns - len(there[1]):
        said.append(f"{lacking} of {cache.patterns} patterns have no validation patch for the classifier")
    if len(there[0]) < 2 or len(asked) == 0:
        said.append(
            "a classifier needs two patterns with training patches, and validation patches: there is none"
        )
        return Told(np.nan, np.nan, np.nan, np.nan, chance, tuple(said))
    accuracies, right = [], np.empty(0)
    for name, model in (("untrained", untrained), ("trained", trained)):
        vectors = [_vectors(cache, indices, model) for indices in (learned, asked)]
        predicted, converged = classified(vectors[0], rows["pattern"][learned], vectors[1])
        if not converged:
            said.append(f"the classifier on the {name} encoder did not converge in {STEPS} steps")
        right = predicted == rows["pattern"][asked]
        accuracies.append(float(right.mean()))
    low, high = _over_patients(right, rows["patient"][asked], seed)
    return Told(accuracies[1], low, high, accuracies[0], chance, tuple(said))


def classified(learned: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, bool]:
    """Labels of vectors (m, d) by a logistic regression on vectors (n, d) with labels, and whether it converged.

    Features are standardised by those learned from; one that never varies is 0. One thread works: products of matrices
    are added up in another order by more of them, and the steps of the fit carry that on until labels differ.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = learned.mean(axis=0, dtype=np.float64), learned.std(axis=0, dtype=np.float64)
    deviation[deviation <= 1e-6 * np.maximum(1e-6, np.abs(mean))] = np.inf
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(max_iter=STEPS).fit((learned - mean) / deviation, labels)
        predicted = model.predict((asked - mean) / deviation)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return predicted, converged


def _spaced(rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Of each pattern at most EXAMPLES of the indices, evenly spaced."""
    kept = []
    for pattern in np.unique(rows["pattern"][indices]):
        mine = indices[rows["pattern"][indices] == pattern]
        kept.append(
            mine[np.unique(np.linspace(0, len(mine) - 1, min(EXAMPLES, len(mine))).round().astype(int))]
        )
    return np.concatenate(kept) if kept else indices


def _vectors(cache: PatchCache, indices: np.ndarray, model: AutoEncoder) -> np.ndarray:
    blocks = (indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK))
    return np.concatenate([embedded(model, cache.read(some), cache.hu_min, cache.hu_max) for some in blocks])


def _over_patients(right: np.ndarray, patient: np.ndarray, seed: int) -> tuple[float, float]:
    """The interval of the share that is right (n,), of patients drawn with replacement."""
    patients, whose = np.unique(patient, return_inverse=True)
    if len(patients) < 2:
        return np.nan, np.nan
    rng = generator(seed, "quality", "classifier", "bootstrap")
    drawn = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), RESAMPLES)
    count, hits = np.bincount(whose), np.bincount(whose, weights=right)
    return interval((drawn @ hits) / (drawn @ count))
