"""Lattices, noise and distances, against hand-worked values and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg.cohorts.phantom.fields import (
    COEFFICIENT_MOST,
    SPLINE_SD,
    Lattice,
    draw_noise,
    ellipsoid,
    interpolated,
    segment_distance,
    smooth_minimum,
    tube,
    tubes_nearby,
)


def cube(side: int, spacing: float) -> Lattice:
    axis = spacing * (np.arange(side) - (side - 1) / 2)
    return Lattice(axis, axis.copy(), axis.copy())


def test_interpolation_is_exact_for_linear_fields():
    coarse = Lattice(np.arange(5) * 4.0, np.arange(6) * 3.0, np.arange(4) * 5.0)
    fine = Lattice(np.linspace(0, 16, 9), np.linspace(1, 14, 7), np.linspace(0, 15, 11))
    x, y, z = coarse.grids
    u, v, w = fine.grids
    np.testing.assert_allclose(
        interpolated(2 * x - y + 3 * z + 1, coarse, fine), 2 * u - v + 3 * w + 1, atol=1e-5
    )


@given(st.floats(1, 4), st.integers(2, 30), st.floats(0.5, 6))
def test_a_coarser_lattice_holds_the_finer_one(factor, count, step):
    axis = 3.0 + step * np.arange(count)
    coarse = Lattice(axis, axis, axis).coarser(factor)
    assert coarse.x[0] < axis[0]
    assert coarse.x[-1] > axis[-1]
    assert coarse.spacing_mm[0] == pytest.approx(factor * step)


def test_noise_has_its_standard_deviation_and_is_the_same_on_a_lattice_and_at_points():
    noise = draw_noise(np.random.default_rng(1), np.zeros(3), 200, 20, 3.0)
    lattice = cube(24, 11)
    field = noise.on(lattice)
    assert field.std() == pytest.approx(3.0, rel=0.1)
    z, y, x = np.meshgrid(*lattice.axes, indexing="ij")
    points = np.column_stack([x.ravel(), y.ravel(), z.ravel()])
    np.testing.assert_allclose(noise.at(points), field.reshape(3, -1).T, atol=1e-4)


def test_coefficients_of_noise_are_bounded():
    noise = draw_noise(np.random.default_rng(0), np.zeros(3), 200, 20, 3.0)
    assert np.abs(noise.coefficients).max() == pytest.approx(COEFFICIENT_MOST * 3.0 / SPLINE_SD, rel=1e-5)


def test_noise_fades_to_nothing_beyond_its_coefficients():
    noise = draw_noise(np.random.default_rng(0), np.zeros(3), 20, 20, 3.0)
    far = 20 * 3 + 50.0
    assert (noise.on(Lattice(*(np.array([far, far + 1]),) * 3)) == 0).all()


def test_distance_to_a_ball_is_exact():
    x, y, z = (np.array([v], np.float32) for v in (3, 4, 12))  # 13 mm from the origin
    assert ellipsoid(x, y, z, (0, 0, 0), (5, 5, 5))[0] == pytest.approx(8, rel=1e-5)
    assert ellipsoid(x / 13, y / 13, z / 13, (0, 0, 0), (5, 5, 5))[0] == pytest.approx(-4, rel=1e-4)
    assert ellipsoid(x * 0, y * 0, z * 0, (0, 0, 0), (5, 5, 5))[0] < -4.9


def test_distance_to_a_round_ended_segment():
    p, q = np.array([0.0, 0, 0]), np.array([10.0, 0, 0])
    beside = segment_distance(*(np.array([v], np.float32) for v in (5, 3, 4)), p, q, 1, 3)
    assert beside[0] == pytest.approx(5 - 2)  # 5 mm off the middle, where the radius is 2
    beyond = segment_distance(*(np.array([v], np.float32) for v in (13, 4, 0)), p, q, 1, 3)
    assert beyond[0] == pytest.approx(5 - 3)


def test_distance_to_tubes_is_that_to_their_nearest_segment():
    rng = np.random.default_rng(0)
    paths = [(rng.uniform(-30, 30, (n, 3)), rng.uniform(1, 6, n)) for n in (2, 5)]
    x, y, z = (rng.uniform(-60, 60, (4, 5, 6)).astype(np.float32) for _ in range(3))
    expected = np.min(
        [
            segment_distance(x, y, z, p[k], p[k + 1], r[k], r[k + 1])
            for p, r in paths
            for k in range(len(r) - 1)
        ],
        axis=0,
    )
    np.testing.assert_allclose(tubes_nearby(x, y, z, paths, np.inf), expected, atol=1e-4)
    np.testing.assert_allclose(tubes_nearby(x, y, z, paths, 12.0), np.minimum(expected, 12), atol=1e-4)
    np.testing.assert_allclose(
        tube(x, y, z, *paths[0]), segment_distance(x, y, z, *paths[0][0], *paths[0][1]), atol=1e-4
    )


def test_a_smooth_union_differs_from_the_union_only_near_the_seam():
    a, b = np.array([0.0, 0, 5]), np.array([0.0, 9, 5])
    # width / 4 deep in the seam, nothing 9 mm off
    np.testing.assert_allclose(smooth_minimum(a, b, 8), [-2, 0, 5 - 2])
