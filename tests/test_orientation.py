"""Which stored axis runs along which axis of the patient, and turning an array by that."""

import itertools

import numpy as np
import pytest

from sg.formats.headers import Geometry
from sg.orientation import Turn, turn_of, turned

VOLUME = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # z, y, x along LPS


def geometry(direction, size=(4, 3, 2)) -> Geometry:
    return Geometry(tuple(size), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.ravel(direction).astype(float)))


def test_a_scan_that_lies_along_lps_is_not_turned():
    turn = turn_of(geometry(np.eye(3)))
    assert turn == Turn((0, 1, 2), (False, False, False))
    assert np.array_equal(turned(VOLUME, turn), VOLUME)


def test_a_sagittal_scan_stored_from_the_head_down_is_turned_by_hand():
    # stored x leads to posterior, stored y to inferior, stored z to the left
    turn = turn_of(geometry([[0, 0, 1], [1, 0, 0], [0, -1, 0]]))
    assert turn == Turn((2, 0, 1), (False, False, True))
    stored = np.empty((4, 2, 3), int)  # z: left, y: inferior, x: posterior
    for z, y, x in np.ndindex(VOLUME.shape):
        stored[x, 1 - z, y] = VOLUME[z, y, x]
    assert np.array_equal(turned(stored, turn), VOLUME)


@pytest.mark.parametrize("about_degrees", [0, 20])
@pytest.mark.parametrize("tilt_degrees", [0, 20])
def test_all_48_ways_of_storing_are_undone_also_oblique_and_sheared(about_degrees, tilt_degrees):
    a, t = np.radians([about_degrees, tilt_degrees])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(t), 0], [0, np.sin(t), 1]])
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            # stored axis i (x, y, z) runs along axis order[i], backwards if flips[i]
            columns = (about_z @ tilt)[:, order] * np.where(flips, -1, 1)
            stored = VOLUME.transpose([2 - axis for axis in reversed(order)])
            stored = stored[tuple(slice(None, None, -1 if flip else None) for flip in reversed(flips))]
            turn = turn_of(geometry(columns, stored.shape[::-1]))
            assert np.array_equal(turned(stored, turn), VOLUME)


def test_turning_copies_nothing():
    stored = VOLUME.copy()
    turned(stored, turn_of(geometry(np.diag([-1, 1, -1]))))[0, 0, 0] = 99
    assert stored[-1, 0, -1] == 99
