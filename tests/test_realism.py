"""Laws of the measures by which phantoms are held against real scans, on inputs made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from bench.realism import registration
from bench.realism.measures import (
    affine_residual,
    at_grid,
    boxes,
    explained_share,
    interval,
    masks,
    noise_of,
    participation_ratio,
    quantile_distance,
)
from bench.realism.targets import TARGETS, population


def chest(shape: tuple[int, int, int] = (60, 90, 120)) -> np.ndarray:
    """A box of soft tissue, 60 x 80 voxels in the middle of the plane, with two lungs of 30 x 20 in it."""
    hu = np.full(shape, -1000, np.int16)
    hu[:, 15:75, 20:100] = 40
    hu[10:50, 25:55, 30:50] = hu[10:50, 25:55, 70:90] = -850
    return hu


@pytest.mark.parametrize(("variances", "expected"), [([1, 1, 1, 1], 4), ([9, 0, 0, 0], 1), ([4, 4, 0, 0], 2)])
def test_the_effective_dimension_of_equal_variances_is_their_number(variances, expected):
    samples = np.random.default_rng(0).standard_normal((4000, 4)) * np.sqrt(variances)
    assert participation_ratio(samples) == pytest.approx(expected, rel=0.01)


def test_the_effective_dimension_does_not_grow_with_the_number_of_patients():
    # 40 equal variances: without the correction 60 samples would give 1 / (1 / 40 + 1 / 59), about 24
    rng = np.random.default_rng(0)
    few = [participation_ratio(rng.standard_normal((60, 40))) for _ in range(50)]
    assert np.mean(few) == pytest.approx(40, rel=0.03)


def test_the_explained_share_is_what_the_variances_say():
    rng = np.random.default_rng(0)
    predictor = rng.standard_normal((5000, 1))
    samples = np.column_stack(
        [predictor * 2 + rng.standard_normal((5000, 1)), rng.standard_normal((5000, 1))]
    )
    assert explained_share(predictor, samples) == pytest.approx(4 / (4 + 1 + 1), abs=0.02)


def test_predictors_without_a_bearing_explain_nothing_on_average():
    rng = np.random.default_rng(0)
    shares = [
        explained_share(rng.standard_normal((30, 7)), rng.standard_normal((30, 12))) for _ in range(200)
    ]
    assert np.mean(shares) == pytest.approx(0, abs=0.01)


def test_an_affine_map_leaves_nothing_and_a_bend_what_it_is():
    rng = np.random.default_rng(0)
    points = rng.uniform(-100, 100, (300, 3))
    matrix, shift = rng.standard_normal((3, 3)), np.array([5.0, -7, 11])
    assert affine_residual(points, points @ matrix.T + shift) < 1e-9
    # x -> x^2 / 100 on a symmetric lattice has no linear part: what is left is its standard deviation
    x, y, z = np.meshgrid(*(np.arange(-5.0, 6),) * 3)
    lattice = np.column_stack([x.ravel(), y.ravel(), z.ravel()])
    bent = lattice + np.column_stack([lattice[:, 0] ** 2 / 100, *np.zeros((2, len(lattice)))])
    assert affine_residual(lattice, bent) == pytest.approx((lattice[:, 0] ** 2 / 100).std())


def test_a_bootstrap_interval_of_a_mean_is_two_standard_errors_to_each_side():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = interval(values, np.mean)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(400), rel=0.1)


def test_quantiles_that_are_shifted_lie_as_far_apart_as_the_shift():
    assert quantile_distance(np.arange(10.0), np.arange(10.0) - 7) == 7


def test_boxes_of_a_hand_made_chest():
    found = boxes(chest(), (3.0, 3.0, 3.0))
    # body 80 x 60 voxels, lungs from 30 to 90 and from 25 to 55: ratios 60 / 80 and 30 / 60
    assert found.body_mm[:2].tolist() == [240, 180]
    assert found.ratio[:2] == pytest.approx([0.75, 0.5])
    # centres in x both at 60; in y at 40 and 45
    assert found.offset_mm[:2].tolist() == [0, -15]


def test_masks_hold_the_lungs_with_their_vessels_and_the_body_around():
    hu = chest()
    hu[30, 40, 30:50] = 50  # a vessel of one voxel through the right lung
    body, lungs = masks(hu.astype(np.float32), (3.0, 3.0, 3.0))
    assert lungs[30, 40, 32:48].all()
    assert not lungs[:, :, 55:65].any()
    assert (body & (hu == -850)).sum() == (hu == -850).sum()
    assert not body[hu == -1000].any()


def test_blocks_are_averaged_where_voxels_are_fine():
    hu = np.arange(4 * 6 * 6).reshape(4, 6, 6).astype(np.int16)
    coarse, spacing = at_grid(hu, (1.0, 1.5, 3.0))
    assert coarse.shape == (4, 3, 2)
    assert spacing == (3.0, 3.0, 3.0)
    assert coarse[0, 0, 0] == hu[0, :2, :3].mean()


def test_noise_is_measured_where_tissue_is_even_whatever_its_slope():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 60, 96)[None, None, :]
    field = rng.standard_normal((12, 96, 96)) * 12
    sd, white = noise_of((40 + ramp + field).astype(np.float32))
    # the calmer half of the squares pulls neither the median nor, by much, the spectrum down
    assert sd == pytest.approx(12, rel=0.05)
    blurred = ndimage.gaussian_filter(field, (0, 1, 1))
    _, smooth = noise_of((40 + ramp + blurred / blurred.std() * 12).astype(np.float32))
    assert smooth < white - 0.05


def test_noise_of_a_scan_without_soft_tissue_is_unknown():
    assert np.isnan(noise_of(np.full((4, 32, 32), -1000, np.float32))).all()


def test_a_known_shift_is_found_by_registration():
    hu = chest()
    # flat boxes say too little: some texture, as tissue has
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(hu.shape), 2)
    hu = np.where(hu > -1000, hu + 100 * texture / texture.std(), hu)
    fixed, moving = (registration.prepare(hu, (3.0,) * 3, origin) for origin in ((0, 0, 0), (12.0, -9, 6)))
    found = registration.affine(fixed, moving)
    point = np.array([[180.0, 133, 87]])
    assert registration.moved(found, point)[0] == pytest.approx(point[0] + (12, -9, 6), abs=1)
    assert registration.surface_distance(fixed, moving, found) < 1


def test_surfaces_that_are_apart_by_a_voxel_are_measured_so():
    hu = chest()
    fixed = registration.prepare(hu, (4.5,) * 3, (0, 0, 0))
    # every surface across the shift moves by 4.5 mm, those along it lie on themselves but for their rims
    apart = registration.surface_distance(fixed, fixed, sitk.TranslationTransform(3, (4.5, 0.0, 0.0)))
    assert 0.5 < apart < 4.5
    assert registration.surface_distance(fixed, fixed, sitk.TranslationTransform(3)) == 0


def test_a_target_is_met_within_its_tolerance_only():
    target = population("liver, ml", 1200, 300, "")
    assert target.met(1050, 300)
    assert not target.met(1049, 300)
    assert not target.met(1200, 199)
    assert not target.met(float("nan"), 300)
    assert not target.met(1200)


def test_every_target_has_a_source_and_a_tolerance():
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    for target in TARGETS:
        assert target.source
        assert target.low < target.high
