"""Outlines against hand-worked ones and another library's polygons."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Polygon
from scipy import ndimage

from sg.cohorts.phantom.contours import outer_borders


def mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_one_pixel_is_outlined_by_its_four_neighbours():
    (chain,) = outer_borders(mask("...", ".#.", "..."))
    assert chain.tolist() == [[1, 0], [2, 1], [1, 2], [0, 1], [1, 0]]  # x, y; clockwise from the top


def test_a_corner_of_pixels_is_followed_closely():
    (chain,) = outer_borders(mask("......", "...#..", "..##..", "......"))
    assert chain.tolist() == [[3, 0], [4, 1], [4, 2], [3, 3], [2, 3], [1, 2], [2, 1], [3, 0]]


def test_parts_have_chains_of_their_own_and_holes_have_none():
    ring = mask(".......", ".###...", ".#.#.#.", ".###...", ".......")
    solid = ring | mask(".......", ".......", "..#....", ".......", ".......")
    chains = outer_borders(ring)
    assert len(chains) == 2
    assert [chain.tolist() for chain in chains] == [chain.tolist() for chain in outer_borders(solid)]


def test_parts_that_touch_at_a_corner_have_one_chain():
    assert len(outer_borders(mask("....", ".#..", "..#.", "...."))) == 1


def test_chains_run_closed_pixel_by_pixel_around_what_they_enclose():
    rng = np.random.default_rng(3)
    for _ in range(40):
        field = ndimage.gaussian_filter(rng.normal(size=(30, 34)), rng.uniform(1, 4))
        blobs = np.pad(field > np.quantile(field, 0.75), 1)
        parts, count = ndimage.label(blobs, np.ones((3, 3)))
        chains = outer_borders(blobs)
        assert len(chains) == count
        for number, chain in enumerate(chains, 1):
            steps = np.abs(np.diff(chain, axis=0)).max(axis=1)
            assert (chain[0] == chain[-1]).all()
            assert (steps == 1).all()
            part = parts == number
            assert not part[chain[:, 1], chain[:, 0]].any()
            y, x = np.nonzero(part)
            assert Polygon(chain).contains_points(np.column_stack([x, y])).all()


def test_what_a_chain_encloses_is_the_part_itself_where_that_has_no_clefts():
    y, x = np.mgrid[-9:10, -12:13]
    ellipse = (x / 9) ** 2 + (y / 5.5) ** 2 < 1
    (chain,) = outer_borders(ellipse)
    columns, rows = np.meshgrid(np.arange(25), np.arange(19))
    inside = Polygon(chain).contains_points(np.column_stack([columns.ravel(), rows.ravel()])).reshape(19, 25)
    inside[chain[:, 1], chain[:, 0]] = False
    np.testing.assert_array_equal(inside, ellipse)
