from __future__ import annotations

import numpy as np
import pytest

from sg.quality.choosing import by_distance, by_vectors, chosen, taken
from sg.quality.table import (
    Errors,
    Resamples,
    asked,
    interval,
    medians_of_rows,
    share,
    table,
    weighted_medians,
)
from tests.quality.hand_made import study

NAN = np.nan


def rows_by_control(rows, frame="body"):
    return {row.control: row for row in rows if row.frame == frame}


@pytest.fixture
def shifted():
    """Patients at places on a line, which a pattern's distances are; five patterns of the first five of 40."""
    places = np.random.default_rng(0).permutation(40) * 3.0
    mm = np.abs(places - places[:5, None])
    mm[np.arange(5), np.arange(5)] = NAN
    return study(mm, k=6), places


def test_an_order_by_the_very_shift_has_the_whole_gain_and_one_by_chance_about_none(shifted):
    of, places = shifted
    chance = np.random.default_rng(1).normal(size=(40, 3))
    orders = {"nearest": by_vectors(of, places[:, None]), "geometry": by_vectors(of, chance)}
    found = rows_by_control(table(of, orders, of.k, seed=1))
    assert list(found) == ["nearest", "geometry", "random", "oracle-body", "oracle-point"]
    assert (found["nearest"].share, found["nearest"].share_low, found["nearest"].share_high) == (1, 1, 1)
    assert found["nearest"].error_mm == found["oracle-point"].error_mm
    assert abs(found["geometry"].share) < 0.35
    assert found["geometry"].against_nearest_low > 0
    assert (found["random"].share, found["random"].k, found["random"].patients) == (0, 6, 40)


def test_figures_are_those_of_a_hand_worked_table():
    """Two patterns; the order takes distances 2, 4 and 10, 20; all are 2, 4, 8, 16 and 10, 20, 40, 60; best 2, 4; 10, 20."""
    of = study(
        [[NAN, 16, 2, 4, 8], [60, NAN, 10, 40, 20]],
        body_mm=[[NAN, 1, 9, 9, 2], [1, NAN, 9, 2, 9]],
        own=[[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]],
    )
    other = np.array([[1, 4, 2, 3], [4, 0, 2, 3]])
    orders = {"nearest": np.array([[2, 3, 1, 4], [2, 4, 0, 3]]), "geometry": other}
    found = rows_by_control(table(of, orders, 3, seed=1))
    # Medians 3 and 15, 12 and 40 (16, 8; 20, 60), random 6 and 30.
    assert [found[name].error_mm for name in ("nearest", "geometry", "random")] == [9, 26, 18]
    assert found["nearest"].share == 1
    assert found["geometry"].share == pytest.approx(((6 - 12) + (30 - 40)) / ((6 - 3) + (30 - 15)))
    assert found["geometry"].against_nearest_mm == pytest.approx((9 + 25) / 2)
    # Places are at x = mm: of 2, 4 the spread is sqrt(2), of 10, 20 sqrt(50).
    assert found["nearest"].spread_mm == pytest.approx((np.sqrt(2) + np.sqrt(50)) / 2)
    # Their own: 0, 1 and 1, 0 of the order's crops, 1, 1 and 0, 1 of the other's.
    assert [found[name].purity for name in ("nearest", "geometry", "random")] == [0.5, 0.75, 6 / 8]
    assert {row.patterns for row in found.values()} == {2}
    # By the whole body 16, 8 and 60, 40 are taken.
    assert found["oracle-body"].error_mm == (12 + 50) / 2
    assert found["oracle-body"].share == pytest.approx(((6 - 12) + (30 - 50)) / ((6 - 3) + (30 - 15)))


def test_fewer_patients_to_choose_from_keep_the_references(shifted):
    of, places = shifted
    among = np.zeros(40, bool)
    among[5:15] = True
    assert asked(of, among).sum() == 15
    found = rows_by_control(table(of, {"nearest": by_vectors(of, places[:, None])}, 4, among, 1))
    assert {row.patients for row in found.values()} == {15}
    expected = [np.sort(np.abs(places[:15] - places[p]))[1:4] for p in range(5)]
    assert found["oracle-point"].error_mm == np.median(np.median(expected, axis=1))
    everyone = [np.median(np.delete(np.abs(places[:15] - places[p]), p)) for p in range(5)]
    assert found["random"].error_mm == np.median(everyone)


def test_where_everybody_is_taken_there_is_no_gain_to_share(shifted):
    of, places = shifted
    for k in (None, 40):
        found = rows_by_control(table(of, {"nearest": by_vectors(of, places[:, None])}, k, seed=1))
        assert found["nearest"].error_mm == found["random"].error_mm
        assert np.isnan([row.share for row in found.values()]).all()
        assert found["nearest"].k == 40


def test_affine_crops_are_held_against_the_stage_s_frame(shifted):
    of, places = shifted
    affine = taken(of.frames["body"], np.tile([20, 30], (5, 1)))
    rows = table(of, {"nearest": by_vectors(of, places[:, None])}, 6, seed=1, registered=affine)
    found = rows_by_control(rows, "none")["affine"]
    mm = np.abs(places[[20, 30]] - places[:5, None]).mean(axis=1)
    assert (found.k, found.error_mm) == (3, np.median(mm))
    nearest = chosen(of, of.frames["body"], by_vectors(of, places[:, None]), 6, np.ones(40, bool))
    assert found.against_nearest_mm == pytest.approx((mm - nearest.median_mm).mean())


def test_without_a_nearest_nothing_is_held_against_it(shifted):
    of, _ = shifted
    rows = table(of, {"one": by_distance(of, of.frames["body"].mm)}, 6, seed=1)
    assert np.isnan([row.against_nearest_mm for row in rows]).all()
    assert rows_by_control(rows)["one"].share == 1


# ------------------------------------------------------------------------------------------- resampling


def plain_resamples(of, drawn, crops_by_name):
    """Errors, shares and differences of every resample, in loops over repeated values."""
    errors = {}
    for name, crops in crops_by_name.items():
        errors[name] = []
        for patients in drawn.patients:
            medians = []
            for mm, scans in zip(crops.mm, crops.scan, strict=True):
                values = [
                    v
                    for v, scan in zip(mm, scans, strict=True)
                    if scan >= 0 and np.isfinite(v)
                    for _ in range(patients[of.patient[scan]])
                ]
                medians.append(np.median(values) if values else NAN)
            errors[name].append(medians)
    result = []
    for b, patterns in enumerate(drawn.patterns):
        mine = {name: np.repeat(errors[name][b], patterns) for name in errors}
        known = mine["nearest"][np.isfinite(mine["nearest"])]
        all_known = np.isfinite(list(mine.values())).all(axis=0)
        over = (mine["random"] - mine["nearest"])[all_known].sum()
        under = (mine["random"] - mine["point"])[all_known].sum()
        result.append((np.median(known) if len(known) else NAN, over / under if under > 0 else NAN))
    return np.array(result)


def test_the_bootstrap_is_that_of_plain_loops():
    rng = np.random.default_rng(3)
    # Many ties, and patterns unlike each other, so that it matters which of them are drawn.
    mm = rng.integers(0, 12, (6, 9)) * np.array([1.0, 1, 2, 3, 5, 8])[:, None]
    mm[rng.random(mm.shape) < 0.2] = NAN
    of = study(mm, k=3)
    everyone = np.ones(9, bool)
    drawn = Resamples.draw(of, everyone, 5)
    drawn = Resamples(drawn.patterns[:150], drawn.patients[:150])
    laid = of.frames["body"]
    crops = {
        "nearest": chosen(of, laid, np.stack([np.delete(np.arange(9), p) for p in range(6)]), 3, everyone),
        "random": chosen(of, laid, np.stack([np.delete(np.arange(9), p) for p in range(6)]), None, everyone),
        "point": chosen(of, laid, by_distance(of, laid.mm), 3, everyone),
    }
    errors = {name: Errors(found.median_mm, drawn.errors(of, found)) for name, found in crops.items()}
    expected = plain_resamples(of, drawn, crops)
    assert np.isnan(errors["nearest"].resampled).any()  # all of a pattern's patients left out
    np.testing.assert_allclose(medians_of_rows(errors["nearest"].resampled, drawn.patterns), expected[:, 0])
    assert errors["nearest"].median(drawn.patterns)[1:] == pytest.approx(interval(expected[:, 0]))
    found = share(errors["nearest"], errors["random"], errors["point"], drawn.patterns)
    assert found[1:] == pytest.approx(interval(expected[:, 1]))
    without = share(errors["nearest"], errors["random"], errors["point"], np.ones_like(drawn.patterns))
    assert abs(without[1] - found[1]) > 0.02  # the drawn patterns have a say in it


def test_a_weighted_median_is_that_of_the_repeated_values():
    rng = np.random.default_rng(0)
    values = np.sort(rng.integers(0, 5, (20, 7)).astype(float), axis=1)
    values[::3, 5:] = NAN
    column, weights = rng.integers(0, 4, (20, 7)), rng.integers(0, 3, (50, 4))
    found = weighted_medians(values, column, weights)
    for b in range(50):
        for p in range(20):
            repeated = np.repeat(values[p], weights[b, column[p]])
            repeated = repeated[np.isfinite(repeated)]
            assert found[b, p] == np.median(repeated) if len(repeated) else np.isnan(found[b, p])


def test_resamples_draw_patterns_and_patients_apart_and_the_same_ones_again():
    of = study(np.zeros((4, 9)))
    among = np.arange(9) < 6
    drawn, again, other = (Resamples.draw(of, among, seed) for seed in (1, 1, 2))
    assert (drawn.patterns.sum(axis=1) == 4).all()
    assert (drawn.patients.sum(axis=1) == 6).all()
    assert (drawn.patients[:, 6:] == 0).all()
    np.testing.assert_array_equal(drawn.patients, again.patients)
    assert (drawn.patients != other.patients).any()


def test_the_interval_covers_the_error_of_all_patients_about_as_often_as_it_says():
    """Patterns and patients are samples: error is a pattern's own plus a patient's, both normal, about 10."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        mm = 10 + 2 * rng.normal(size=(15, 1)) + 2 * rng.normal(size=40) + rng.normal(size=(15, 40))
        of = study(mm)
        drawn = Resamples.draw(of, np.ones(40, bool), trial)
        crops = chosen(of, of.frames["body"], np.stack([np.delete(np.arange(40), p) for p in range(15)]), None,
                       np.ones(40, bool))  # fmt: skip
        _, low, high = Errors(crops.median_mm, drawn.errors(of, crops)).median(drawn.patterns)
        covered += low <= 10 <= high
    assert covered >= 88
    assert covered < 100
