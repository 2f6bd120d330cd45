from __future__ import annotations

import numpy as np
import pytest

from sg.quality.choosing import Crops, by_distance, by_ranking, by_vectors, chosen, of_others
from tests.hand_made import in_a_row
from tests.quality.hand_made import study

NAN = np.nan
EVERYBODY = np.ones(9, bool)


def crops(mm, places, own=None) -> Crops:
    """Crops (p, n) at places (p, n, 3)."""
    mm = np.array(mm, float)
    return Crops(
        np.zeros(mm.shape, int),
        mm,
        np.array(places, float),
        np.ones(mm.shape) if own is None else np.array(own),
    )


def test_an_order_takes_of_each_patient_the_nearest_scan_and_leaves_out_the_reference_s():
    of = study(np.zeros((2, 6)), patient=[0, 0, 1, 2, 2, 3], reference=[0, 3])
    order = by_distance(of, np.array([[0, 9, 5, 4, 3, NAN], [1, 0, 7, 0, 0, 1.0]]))
    assert order.tolist() == [[4, 2, 5], [1, 5, 2]]


def test_equal_distances_go_by_scan():
    of = study(np.zeros((1, 4)))
    assert by_distance(of, np.array([[0, 2, 1, 1.0]])).tolist() == [[2, 3, 1]]


def test_vectors_are_ordered_by_their_distance_from_each_reference():
    of = study(np.zeros((2, 4)))
    assert by_vectors(of, np.array([[0, 0], [3, 4], [0, 6], [-1, 0]])).tolist() == [[3, 1, 2], [2, 0, 3]]


def test_the_study_s_own_ranking_is_taken_as_deep_as_it_goes():
    of = study(np.zeros((2, 5)), reference=[0, 3])
    assert by_ranking(of, in_a_row(5, 2)).tolist() == [[1, 2, 3, 4], [2, 4, 1, 0]]
    assert by_ranking(of, in_a_row(5, 2, depth=3)).tolist() == [[1, 2, -1, -1], [2, 4, -1, -1]]


def test_who_cannot_hold_a_pattern_is_passed_over_and_the_next_steps_in():
    of = study([[NAN, 1, NAN, 3, 4], [0, NAN, 2, 3, 4]])
    order = np.array([[2, 4, 3, 1], [3, 2, -1, -1]])
    found = chosen(of, of.frames["body"], order, 3, np.ones(5, bool))
    assert found.scan.tolist() == [[4, 3], [3, 2]]
    assert found.mm.tolist() == [[4, 3], [3, 2]]
    found = chosen(of, of.frames["body"], order, 4, np.array([True, True, True, False, True]))
    np.testing.assert_array_equal(found.scan, [[4, 1, -1], [2, -1, -1]])
    np.testing.assert_array_equal(found.mm, [[4, 1, NAN], [2, NAN, NAN]])


def test_all_takes_everybody_and_random_is_everybody_else_s_reference_scan():
    of = study(np.zeros((2, 6)), patient=[0, 0, 1, 2, 2, 3], reference=[0, 3])
    assert of_others(of).tolist() == [[2, 3, 5], [0, 2, 5]]
    found = chosen(of, of.frames["body"], of_others(of), None, np.ones(4, bool))
    assert found.scan.tolist() == [[2, 3, 5], [0, 2, 5]]


def test_the_spread_is_the_root_mean_square_about_the_centroid():
    # Of (0, 0, 0), (4, 0, 0), (2, 6, 0) the centroid is (2, 2, 0): 8 + 8 + 16 over 2.
    places = [[(0, 0, 0), (4, 0, 0), (2, 6, 0), (NAN,) * 3], [(1, 1, 1), *[(NAN,) * 3] * 3]]
    found = crops(np.zeros((2, 4)), places)
    assert found.spread_mm[0] == pytest.approx(4.0)
    assert np.isnan(found.spread_mm[1])


def test_purity_is_the_share_of_the_crops_that_are_known():
    found = crops(np.zeros((3, 4)), np.zeros((3, 4, 3)), [[1, 0, 1, 1], [NAN, 0, 1, NAN], [NAN] * 4])
    np.testing.assert_array_equal(found.purity, [0.75, 0.5, NAN])


def test_a_pattern_s_error_is_the_median_of_what_is_known():
    found = crops([[1, 5, 2, NAN], [NAN] * 4], np.zeros((2, 4, 3)))
    np.testing.assert_array_equal(found.median_mm, [2, NAN])
