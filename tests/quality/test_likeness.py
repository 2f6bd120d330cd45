from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from sg.networks.autoencoder import untrained
from sg.patches import PatchCache
from sg.quality import likeness
from sg.quality.controls import embedded
from sg.quality.likeness import classified, correlations, told_apart
from tests.hand_made import noise
from tests.quality.hand_made import SIZE, cache_of

# ----------------------------------------------------------------------------------------- correlations


def test_correlations_are_the_means_over_all_pairs(tmp_path):
    common = noise(10, SIZE).astype(float)
    groups = [(0.5 * common + 0.5 * noise(20 + g, (5, *SIZE))).astype(np.int16) for g in range(3)]
    alike = correlations(PatchCache(cache_of(tmp_path / "c.h5", groups)))
    flat = [(g, patch.ravel().astype(float)) for g, group in enumerate(groups) for patch in group]
    within, across = {g: [] for g in range(3)}, []
    for (g, a), (h, b) in itertools.combinations(flat, 2):
        (within[g] if g == h else across).append(np.corrcoef(a, b)[0, 1])
    for g in range(3):
        assert alike.within[g] == pytest.approx(np.mean(within[g]))
    assert alike.mean_within == pytest.approx(np.mean([np.mean(values) for values in within.values()]))
    assert alike.across == pytest.approx(np.mean(across))
    assert alike.flat == 0


def test_equal_patches_correlate_by_one_and_their_negatives_by_minus_one(tmp_path):
    patch = noise(1, SIZE)
    alike = correlations(
        PatchCache(cache_of(tmp_path / "c.h5", [np.stack([patch] * 4), np.stack([-patch] * 2)]))
    )
    assert alike.within == {0: pytest.approx(1), 1: pytest.approx(1)}
    assert alike.across == pytest.approx(-1)


def test_patches_of_one_value_are_left_out_and_counted(tmp_path):
    patch, flat = noise(1, SIZE), np.full(SIZE, -1000, np.int16)
    alike = correlations(
        PatchCache(cache_of(tmp_path / "c.h5", [np.stack([patch, flat, patch]), np.stack([flat])]))
    )
    assert (alike.within, alike.flat) == ({0: pytest.approx(1)}, 2)
    assert np.isnan(alike.across)


# ------------------------------------------------------------------------------------ told apart by a classifier


def kinds(patterns: int, count: int, seed: int, amplitude: int = 300) -> list[np.ndarray]:
    """Patches (count, 4, 4, 4) of each pattern: noise about a value of the pattern's own."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(count, 4, 4, 4)) * amplitude + 400 * p - 400).clip(-1000, 1000).astype(np.int16)
        for p in range(patterns)
    ]


def test_patterns_that_differ_are_told_apart_and_those_that_do_not_by_chance(tmp_path):
    model, first = untrained(2, 2, 1), untrained(2, 2, 2)
    unlike = PatchCache(cache_of(tmp_path / "a.h5", kinds(3, 20, 1, 5), kinds(3, 10, 2, 5)))
    told = told_apart(unlike, model, first, 1)
    assert (told.accuracy, told.low, told.high, told.untrained) == (1, 1, 1, 1)
    assert (told.chance, told.warnings) == (pytest.approx(1 / 3), ())
    alike = PatchCache(
        cache_of(
            tmp_path / "b.h5",
            [kinds(1, 20, p)[0] for p in range(3)],
            [kinds(1, 10, 9 + p)[0] for p in range(3)],
        )
    )
    told = told_apart(alike, model, first, 1)
    assert told.low < 1 / 3 < told.high
    assert told.low < told.accuracy < told.high < 0.8


def test_the_accuracy_and_its_interval_are_over_validation_patients(tmp_path, monkeypatch):
    """Of 3 patients with patches of 2 patterns the classifier on the trained encoder has 2, 1 and 0 right."""
    cache = PatchCache(cache_of(tmp_path / "c.h5", kinds(2, 4, 1), kinds(2, 3, 2)))
    trained, fixed = untrained(2, 2, 1), cache.rows["resolution"] == 0
    patches = cache.read(np.flatnonzero(fixed & (cache.rows["split"] == b"train")))
    of_trained = embedded(trained, patches, cache.hu_min, cache.hu_max)
    asked = []

    def predicting(learned, labels, vectors):
        asked.append((len(learned), labels.tolist(), len(vectors)))
        if np.array_equal(learned, of_trained):
            return np.array([0, 0, 1, 1, 0, 0]), True  # of pattern 0 in patients 0, 1, 2, then of pattern 1
        return np.array([1, 1, 1, 0, 0, 1]), True

    monkeypatch.setattr(likeness, "classified", predicting)
    told = told_apart(cache, trained, untrained(2, 2, 2), 1)
    assert asked == [(8, [0] * 4 + [1] * 4, 6)] * 2
    assert (told.accuracy, told.untrained) == (0.5, pytest.approx(1 / 6))
    # Three draws among shares of 1, 1/2 and 0: all three the same with a chance of 1/27, over 2.5 %.
    assert (told.low, told.high) == (0, 1)


def test_a_classifier_is_logistic_regression_on_standardised_features():
    rng = np.random.default_rng(0)
    learned, asked = (rng.normal(size=(n, 3)) * (1, 1000, 0) + (0, 5000, 7) for n in (60, 200))
    labels = (learned[:, 0] + (learned[:, 1] - 5000) / 1000 + rng.normal(size=60) > 0).astype(int)
    predicted, converged = classified(learned, labels, asked)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(learned, labels)
    np.testing.assert_array_equal(predicted, pipeline.predict(asked))
    assert converged
    assert np.mean(predicted == (asked[:, 0] + (asked[:, 1] - 5000) / 1000 > 0)) > 0.85


def test_a_classifier_is_fitted_on_one_thread_whatever_linear_algebra_has(monkeypatch):
    fit, threads = LogisticRegression.fit, []

    def watched(model, *data):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(model, *data)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    vectors = np.arange(8.0)[:, None]
    with threadpool_limits(2, user_api="blas"):
        classified(vectors, vectors[:, 0] > 3, vectors)
    assert threads
    assert set(threads) == {1}


def test_what_a_classifier_lacks_is_said(tmp_path, monkeypatch):
    model = untrained(2, 2, 1)
    alone = PatchCache(cache_of(tmp_path / "a.h5", kinds(1, 3, 1), kinds(1, 2, 1)))
    told = told_apart(alone, model, model, 1)
    assert np.isnan([told.accuracy, told.low, told.untrained]).all()
    assert "needs two patterns" in told.warnings[0]
    groups = kinds(3, 4, 1)
    lacking = PatchCache(cache_of(tmp_path / "b.h5", groups, [groups[0], groups[1], groups[2][:0]]))
    assert told_apart(lacking, model, model, 1).warnings == (
        "1 of 3 patterns have no validation patch for the classifier",
    )
    monkeypatch.setattr(likeness, "STEPS", 1)
    whole = PatchCache(cache_of(tmp_path / "c.h5", groups, groups))
    assert [
        warning
        for warning in told_apart(whole, model, model, 1).warnings
        if "did not converge in 1 steps" in warning
    ]


def test_at_most_so_many_patches_of_a_pattern_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(likeness, "EXAMPLES", 3)
    cache = PatchCache(cache_of(tmp_path / "a.h5", kinds(2, 9, 1), kinds(2, 2, 2)))
    fixed = np.flatnonzero((cache.rows["resolution"] == 0) & (cache.rows["split"] == b"train"))
    kept = cache.rows[likeness._spaced(cache.rows, fixed)]
    assert kept["rank"].tolist() == [0, 4, 8] * 2
    assert kept["pattern"].tolist() == [0] * 3 + [1] * 3
