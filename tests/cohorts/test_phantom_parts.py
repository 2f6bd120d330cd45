"""The parts that phantoms are made of, against hand-worked values and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg.cohorts.phantom import acquisition, anatomy, findings, vessels
from sg.cohorts.phantom.fields import (
    Lattice,
    draw_noise,
    ellipsoid,
    interpolated,
    segment_distance,
    smooth_minimum,
)
from sg.cohorts.phantom.vessels import Tree
from sg.errors import InputError
from sg.randomness import generator


def patient(number: int, abdominal: bool = False) -> anatomy.Patient:
    return anatomy.draw_patient(lambda purpose: generator(3, "test", str(number), purpose), abdominal)


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


def test_a_smooth_union_differs_from_the_union_only_near_the_seam():
    a, b = np.array([0.0, 0, 5]), np.array([0.0, 9, 5])
    np.testing.assert_allclose(
        smooth_minimum(a, b, 8), [-2, 0, 5 - 2]
    )  # width / 4 deep in the seam, nothing 9 mm off


@pytest.mark.parametrize("number", range(3))
def test_every_organ_s_map_and_its_inverse_cancel_out(number):
    one = patient(number)
    rng = np.random.default_rng(number)
    for name, organ in one.maps.items():
        points = np.array(anatomy.VARIATIONS[name].centre_mm) + rng.uniform(-60, 60, (40, 3))
        back = np.empty_like(points)
        for row, p in enumerate(organ.to_patient(points)):
            lattice = Lattice(*(np.array([v, v + 1]) for v in p))
            back[row] = [part[0, 0, 0] for part in organ.to_atlas(lattice)]
        np.testing.assert_allclose(back, points, atol=0.01)


def test_organs_vary_each_on_their_own():
    """Organ centres, seen in the frame of the body (size, posture and place taken out), do not move together."""
    names = [
        "lung_right",
        "lung_left",
        "heart",
        "aorta",
        "trachea",
        "spine",
        "sternum",
        "liver",
        "spleen",
        "stomach",
    ]
    seen = []
    for number in range(120):
        one = patient(number)
        body = one.maps["body"]
        centres = [
            one.maps[n].to_patient(np.array([anatomy.VARIATIONS[n].centre_mm], float))[0] for n in names
        ]
        seen.append(
            [
                body.matrix @ c + body.offset_mm - anatomy.VARIATIONS[n].centre_mm
                for n, c in zip(names, centres, strict=True)
            ]
        )
    seen = np.array(seen)  # (patients, organs, 3)
    assert (seen.std(axis=0) > 1.5).all()
    for axis in range(3):
        correlation = np.corrcoef(seen[:, :, axis].T)[np.triu_indices(len(names), 1)]
        assert np.abs(correlation).max() < 0.35  # 4 standard errors of 120 independent pairs


def test_sizes_of_organs_vary_each_on_their_own():
    sizes = []
    for number in range(120):
        one = patient(number)
        habitus = abs(np.linalg.det(one.maps["body"].matrix))
        sizes.append(
            [np.log(habitus / abs(np.linalg.det(one.maps[n].matrix))) for n in ("heart", "liver", "spleen")]
        )
    sizes = np.array(sizes)
    assert (sizes.std(axis=0) > 0.08).all()
    assert np.abs(np.corrcoef(sizes.T)[np.triu_indices(3, 1)]).max() < 0.35


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_lungs_keep_clear_of_wall_heart_and_diaphragm(number):
    one = patient(number)
    axes = [
        one.centre_mm[k] + np.arange(low, high, 12.0)
        for k, low, high in ((0, -160, 161), (1, -120, 121), (2, -240, 110))
    ]
    d = anatomy.shapes(one, Lattice(*axes))
    lungs = (d["lung_right"] < 0) | (d["lung_left"] < 0)
    assert lungs.any()
    assert not (lungs & (d["heart"] < 0)).any()
    assert not (lungs & (d["cavity"] > 0)).any()
    assert not (lungs & (d["liver"] < 0)).any()
    assert not ((d["cavity"] < 0) & (d["trunk"] > -10)).any()


def test_a_thin_vessel_keeps_its_volume():
    """pi r^2 l, for vessels from a quarter of a voxel to two voxels wide."""
    lattice = cube(40, 2.0)
    for radius in (0.25, 0.6, 1.1, 2.0):
        p, q = np.array([[-25.0, 0.3, 0.2]]), np.array([[25.0, 6.0, -9.0]])
        tree = Tree(p, q, np.array([radius]), np.array([radius]))
        length = np.linalg.norm(q - p)
        volume = vessels.coverage(tree, lattice).sum() * 8
        assert volume == pytest.approx(np.pi * radius**2 * length, rel=0.1)


def test_a_tree_reaches_every_leaf_and_thickens_towards_its_root():
    leaves = np.random.default_rng(0).uniform(-50, 50, (40, 3))
    nodes, parents = vessels.grow(np.array([90.0, 0, 0]), leaves, np.random.default_rng(1))
    assert parents[0] == -1
    assert (parents[1:] < np.arange(1, len(parents))).all()
    assert all(np.abs(nodes - leaf).sum(axis=1).min() < 1e-9 for leaf in leaves)
    radii = vessels.radii_of(parents)
    assert (radii[parents[1:]] >= radii[1:]).all()
    # The root carries 40 leaves: r^p = 40 leaf^p
    power = vessels.BRANCHING_POWER
    assert radii[0] == pytest.approx(40 ** (1 / power) * vessels.LEAF_RADIUS_MM)


def test_noise_of_a_scan_has_the_asked_for_deviation_and_is_correlated():
    field = acquisition.noise(np.random.default_rng(0), (60, 60, 60), 20.0)
    assert field.std() == pytest.approx(20, rel=0.02)
    assert np.corrcoef(field[:, :, :-1].ravel(), field[:, :, 1:].ravel())[0, 1] > 0.3


def test_findings_without_room_are_refused_in_words():
    lattice = cube(12, 4.0)
    full = np.broadcast_to(np.float32(-3), lattice.shape)
    with pytest.raises(
        InputError, match=r"room for its liver lesions \(nodules\), got room for 0 of 3; ask for fewer"
    ):
        findings.draw_lesions(np.random.default_rng(0), 3, full, lattice, lattice, 60.0)


def test_a_finding_s_diameter_is_that_of_the_ball_of_its_volume():
    ball = findings.Piece(np.zeros(3), (6.0, 6.0, 6.0), np.eye(3))
    assert findings._measured("solid", np.zeros(3), (ball,), 0.0).diameter_mm == pytest.approx(12, rel=0.02)
    leaf = findings.Piece(np.zeros(3), (12.0, 9.0, 2.0), np.eye(3))  # 8 * 12 * 9 * 2 = 12^3
    assert findings._measured("scar", np.zeros(3), (leaf,), 0.0).diameter_mm == pytest.approx(12, rel=0.04)
