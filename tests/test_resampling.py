"""Resampling: where voxels land, what values they get, and which files are made, kept and refused."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import sg.resampling
from sg.cohorts.records import FileRow, FindingRow, QuarantineRow, ScanRow, read_rows
from sg.errors import InputError
from sg.formats.dicom import read_instance
from sg.params import Resample
from sg.processes import Lost
from sg.resampled import Resampled, read_resampled, resampled_scans
from sg.resampling import (
    resample_cohort,
    resample_image,
    resample_labels,
    sampling,
    thumbnail,
    write_resampled,
)
from sg.scans import Geometry, digest, files_of
from sg.storage import open_h5
from sg.targets.nodules import cut_candidates
from tests.closure import ROOT
from tests.dicom_files import write_series

LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
STUDY = Resample(
    spacing_mm=(2.0, 2.0, 2.5),
    anti_alias=False,
    oblique="resample",
    hu_min=-1000.0,
    hu_max=1000.0,
    shape_min=(4, 4, 4),
    thumbnail_shape=(4, 8, 8),
)


def upright(size, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Geometry:
    return Geometry(tuple(size), tuple(spacing), tuple(origin), LPS)


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1001, shape).astype(np.int16)


# ------------------------------------------------------------------------------------------- values


def test_a_scan_that_has_the_spacing_keeps_every_voxel():
    scan = noise((5, 6, 7))
    for spacing in (None, (0.7, 0.8, 2.5)):
        how = sampling(upright((7, 6, 5), (0.7, 0.8, 2.5), (-9.0, 4.0, 1.0)), spacing)
        assert np.array_equal(resample_image(scan, how, -1000, 1000, anti_alias=False), scan)
        assert np.allclose(how.origin_mm, (-9.0, 4.0, 1.0))


def test_hu_are_clipped_and_rounded_half_to_even():
    how = sampling(upright((6, 1, 1)), None)
    scan = np.array([[[-3024, -999.5, 0.5, 1.5, 2.5, 3071]]], np.float32)
    assert resample_image(scan, how, -1000, 1000, anti_alias=False).ravel().tolist() == [
        -1000,
        -1000,
        0,
        2,
        2,
        1000,
    ]


def test_padding_far_below_air_does_not_ring_into_the_patient():
    padded = np.full((6, 12, 24), 40, np.int16)
    padded[..., :8] = -3024
    air = np.maximum(padded, -1000)
    how = sampling(upright((24, 12, 6)), (0.7, 0.7, 0.7))
    assert np.array_equal(
        resample_image(padded, how, -1000, 1000, anti_alias=False),
        resample_image(air, how, -1000, 1000, anti_alias=False),
    )


def test_overshoot_of_the_spline_is_clipped():
    step = np.full((6, 6, 16), -1000, np.int16)
    step[..., 8:] = 1000
    made = resample_image(
        step, sampling(upright((16, 6, 6)), (0.45, 1.0, 1.0)), -1000, 1000, anti_alias=False
    )
    assert (made.min(), made.max()) == (-1000, 1000)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(0.5, 2.2)] * 3), st.tuples(*[st.floats(0.6, 3.0)] * 3))
def test_a_linear_ramp_stays_linear_within_1_hu_away_from_the_edges(old, new):
    size = (36, 34, 32)
    x, y, z = (np.arange(n) * s for n, s in zip(size, old, strict=True))
    ramp = (5 * x - 3 * y[:, None] + 4 * z[:, None, None]).astype(np.float32)
    how = sampling(upright(size, old), new)
    made = resample_image(ramp, how, -1000, 1000, anti_alias=False)
    mx, my, mz = (
        o + s * np.arange(n) for o, s, n in zip(how.origin_mm, how.spacing_mm, how.size, strict=True)
    )
    expected = 5 * mx - 3 * my[:, None] + 4 * mz[:, None, None]

    def interior(axis, voxels, spacing):  # mirroring bends the ramp in the last voxels, by 0.27 ** distance
        return (axis > 8 * spacing) & (axis < (voxels - 9) * spacing)

    inside = np.ix_(*(interior(a, n, s) for a, n, s in zip((mz, my, mx), size[::-1], old[::-1], strict=True)))
    assert expected[inside].size
    assert np.abs(made[inside] - expected[inside]).max() <= 1


def test_the_spline_is_the_mirrored_cubic_one_that_scipy_computes_too():
    scan = noise((9, 10, 11), 3)
    how = sampling(upright((11, 10, 9), (1.0, 1.5, 2.0)), (0.8, 1.1, 2.3))
    steps = [np.arange(n) * s / o for n, s, o in zip(how.size, (0.8, 1.1, 2.3), (1.0, 1.5, 2.0), strict=True)]
    starts = [(n - 1) / 2 - (s[-1]) / 2 for n, s in zip((11, 10, 9), steps, strict=True)]
    x, y, z = (start + step for start, step in zip(starts, steps, strict=True))
    expected = ndimage.map_coordinates(
        scan.astype(float), np.meshgrid(z, y, x, indexing="ij"), order=3, mode="mirror"
    )
    made = resample_image(scan, how, -1000, 1000, anti_alias=False)
    assert np.abs(made - np.clip(expected, -1000, 1000)).max() <= 0.51  # rounding


def gaussian(volume: np.ndarray, ratios_zyx) -> np.ndarray:
    """HU smoothed as before a grid that is coarser by these ratios, by scipy."""
    values = np.clip(volume, -1000, 1000).astype(float)
    for axis, ratio in enumerate(ratios_zyx):
        if ratio > 1:
            sigma = math.sqrt((ratio**2 - 1) / (8 * math.log(2)))
            values = ndimage.gaussian_filter1d(
                values, sigma, axis, mode="mirror", radius=math.ceil(4 * sigma)
            )
    return values


def test_anti_aliasing_smooths_a_scan_along_the_axes_that_become_coarser():
    scan = noise((12, 30, 28), 6)
    how = sampling(upright((28, 30, 12), (0.8, 0.8, 3.0)), (2.0, 1.0, 1.5))
    assert how.coarser == pytest.approx((2.5, 1.25, 0.5))
    made = resample_image(scan, how, -1000, 1000, anti_alias=True)
    expected = resample_image(gaussian(scan, (0.5, 1.25, 2.5)), how, -1000, 1000, anti_alias=False)
    assert np.abs(made.astype(int) - expected).max() <= 1  # rounding
    assert made.std() < 0.6 * resample_image(scan, how, -1000, 1000, anti_alias=False).std()


def test_anti_aliasing_changes_nothing_on_a_finer_grid():
    scan = noise((6, 7, 8), 6)
    for spacing in (None, (0.6, 1.0, 0.9)):
        how = sampling(upright((8, 7, 6)), spacing)
        plain, smoothed = (
            resample_image(scan, how, -1000, 1000, anti_alias=anti_alias) for anti_alias in (False, True)
        )
        assert np.array_equal(plain, smoothed)


def test_anti_aliasing_of_an_oblique_scan_smooths_its_stored_axes_by_what_the_grid_is_coarser_along_them():
    # Turned by 30 degrees about z: along its x, the new voxels of 2 x 4 mm are sqrt(4 * 3/4 + 16 * 1/4) mm long.
    turn = np.array([[math.sqrt(3) / 2, -0.5, 0], [0.5, math.sqrt(3) / 2, 0], [0, 0, 1]])
    geometry = Geometry((24, 26, 10), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0), tuple(turn.ravel()))
    scan = noise((10, 26, 24), 8)
    how = sampling(geometry, (2.0, 4.0, 1.0))
    ratios = (math.sqrt(3 + 4), math.sqrt(1 + 12), 0.5)
    assert (how.oblique, how.coarser) == (True, pytest.approx(ratios))
    made = resample_image(scan, how, -1000, 1000, anti_alias=True)
    expected = resample_image(gaussian(scan, ratios[::-1]), how, -1000, 1000, anti_alias=False)
    assert np.abs(made.astype(int) - expected).max() <= 1  # rounding


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(0.5, 4.0)] * 3),
    st.tuples(*[st.floats(0.5, 4.0)] * 3),
)
def test_labels_are_never_mixed(size, old, new):
    labels = np.random.default_rng(size).choice([0, 7, 200], size[::-1]).astype(np.uint8)
    made = resample_labels(labels, sampling(upright(size, old), new))
    assert made.dtype == np.uint8
    assert set(np.unique(made)) <= set(np.unique(labels))


def test_a_label_halfway_is_that_of_the_larger_index_wherever_the_scan_lies():
    labels = np.arange(20, dtype=np.uint8).reshape(1, 1, 20)
    for origin in (0.0, -173.26, 1e4 / 3):
        how = sampling(upright((20, 1, 1), (0.7, 1.0, 1.0), (origin, 0.1, 0.3)), (1.4, 1.0, 1.0))
        assert resample_labels(labels, how).ravel().tolist() == list(range(1, 20, 2))


# ------------------------------------------------------------------------------------------- geometry


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(1, 600)] * 3),
    st.tuples(*[st.floats(0.2, 5.0)] * 3),
    st.tuples(*[st.floats(0.2, 5.0)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_the_field_of_view_keeps_its_size_to_half_a_voxel_and_its_centre(size, old, new, origin):
    how = sampling(upright(size, old, origin), new)
    for axis in range(3):
        extent = size[axis] * old[axis]
        assert how.size[axis] == max(1, math.floor(extent / new[axis] + 0.5))
        before = origin[axis] + old[axis] * (size[axis] - 1) / 2
        after = how.origin_mm[axis] + new[axis] * (how.size[axis] - 1) / 2
        assert after == pytest.approx(before, abs=1e-9 * (1 + abs(before)) + 1e-9)
        if extent >= new[axis] / 2:  # then every new centre is inside, and nothing is made up
            assert how.start[axis] >= -0.5
            assert how.start[axis] + how.step[axis] * (how.size[axis] - 1) <= size[axis] - 0.5


def stored_as(volume, geometry, order, flips):
    """An upright volume as a scanner would have stored it with permuted and reversed axes, and its geometry.

    `order[i]` is the axis of LPS along which the stored index i runs, `flips[i]` whether backwards.
    """
    columns, corner = [], np.array(geometry.origin_mm)
    for axis, flip in zip(order, flips, strict=True):
        unit = np.eye(3)[axis]
        if flip:
            corner = corner + unit * geometry.spacing_mm[axis] * (geometry.size[axis] - 1)
        columns.append(-unit if flip else unit)
    stored = volume.transpose([2 - axis for axis in reversed(order)])
    stored = stored[tuple(slice(None, None, -1 if flip else None) for flip in reversed(flips))]
    return np.ascontiguousarray(stored), Geometry(
        tuple(geometry.size[axis] for axis in order),
        tuple(geometry.spacing_mm[axis] for axis in order),
        tuple(corner),
        tuple(np.array(columns).T.ravel()),
    )


def blob(geometry: Geometry, centre_mm, width_mm) -> np.ndarray:
    """A bright ball with soft edges, from the positions of the voxels as the geometry gives them."""
    k, j, i = np.indices(geometry.size[::-1])
    distance = np.linalg.norm(geometry.position_mm(np.stack([i, j, k], -1)) - centre_mm, axis=-1)
    return (-1000 + 1800 * np.exp(-((distance / width_mm) ** 2))).astype(np.int16)


def brightest_mm(image: np.ndarray, how) -> np.ndarray:
    made = Resampled(image, None, how.spacing_mm, how.origin_mm, "p", -1000, 1000)
    return made.position_mm(ndimage.center_of_mass(np.maximum(image + 900.0, 0)))


ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.mark.parametrize("anti_alias", [False, True], ids=["plain", "smoothed"])
@pytest.mark.parametrize("spacing", [None, (1.5, 1.5, 1.5), (3.0, 2.0, 2.5)], ids=str)
def test_all_48_ways_of_storing_a_scan_give_the_same_bytes_with_its_blob_in_place(spacing, anti_alias):
    geometry = upright((24, 20, 16), (1.0, 1.4, 2.1), (-50.0, 30.0, -700.0))
    place = np.array([-41.0, 47.0, -686.0])
    volume = blob(geometry, place, 4.0)
    labels = (volume > -200).astype(np.uint8)
    how = sampling(geometry, spacing)
    image, mask = (
        resample_image(volume, how, -1000, 1000, anti_alias=anti_alias),
        resample_labels(labels, how),
    )
    assert (np.abs(brightest_mm(image, how) - place) <= np.array(how.spacing_mm) / 2).all()
    assert len(ORIENTATIONS) == 48
    for order, flips in ORIENTATIONS:
        stored, seen = stored_as(volume, geometry, order, flips)
        other = sampling(seen, spacing)
        assert np.array_equal(resample_image(stored, other, -1000, 1000, anti_alias=anti_alias), image)
        assert np.array_equal(resample_labels(stored_as(labels, geometry, order, flips)[0], other), mask)
        assert np.allclose(other.origin_mm, how.origin_mm)
        assert other.spacing_mm == how.spacing_mm


@pytest.mark.parametrize("degrees", [10, 25, 44])
@pytest.mark.parametrize("spacing", [None, (1.6, 1.6, 1.6)], ids=str)
def test_an_oblique_scan_comes_onto_the_axes_whole_with_its_blob_in_place(degrees, spacing):
    a, b = np.radians(degrees), np.radians(7)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn = about_z @ about_x @ np.diag([-1.0, -1.0, 1.0])
    geometry = Geometry((26, 24, 20), (1.2, 1.2, 1.5), (30.0, -20.0, 100.0), tuple(turn.ravel()))
    place = geometry.position_mm([9.0, 15.0, 12.0])
    how = sampling(geometry, spacing)
    image = resample_image(blob(geometry, place, 4.0), how, -1000, 1000, anti_alias=False)
    assert (np.abs(brightest_mm(image, how) - place) <= np.array(how.spacing_mm) / 2).all()
    corners = (np.array(list(itertools.product((-0.5, 0.5), repeat=3))) + 0.5) * geometry.size - 0.5
    reach = geometry.position_mm(corners)
    low = np.array(how.origin_mm) - np.array(how.spacing_mm) / 2
    high = low + np.array(how.size) * how.spacing_mm
    assert (low - np.array(how.spacing_mm) / 2 <= reach.min(0)).all()
    assert (reach.max(0) <= high + np.array(how.spacing_mm) / 2).all()
    assert (image[0, 0, 0], image[-1, -1, -1]) == (-1000, -1000)  # beyond the field of view
    assert resample_labels(np.ones((20, 24, 26), np.uint8), how)[0, 0, 0] == 0


def smooth(positions_mm: np.ndarray) -> np.ndarray:
    """A picture that is known everywhere, HU (...,) at positions (..., 3): waves of 40 to 60 mm."""
    x, y, z = np.moveaxis(positions_mm, -1, 0)
    return 700 * np.sin(x / 8) * np.cos(y / 9 + 1) + 200 * np.sin(z / 7 + y / 10)


def tilted(degrees: float) -> np.ndarray:
    """The axes of a scan whose gantry is tilted: slices lean over, and follow one another straight along z."""
    t = np.radians(degrees)
    return np.array([[1, 0, 0], [0, np.cos(t), 0], [0, np.sin(t), 1]])


@pytest.mark.parametrize("degrees", [-25, 8, 20])
@pytest.mark.parametrize("turn", [np.diag([1.0, 1, 1]), np.diag([-1.0, -1, 1])], ids=["as-is", "turned"])
def test_a_scan_made_with_a_tilted_gantry_is_straight_afterwards(degrees, turn):
    geometry = Geometry(
        (40, 38, 36), (2.0, 2.0, 2.5), (-30.0, 20.0, 500.0), tuple((tilted(degrees) @ turn).ravel())
    )
    how = sampling(geometry, (2.0, 2.0, 2.0))
    k, j, i = np.indices(geometry.size[::-1])
    image = resample_image(
        smooth(geometry.position_mm(np.stack([i, j, k], -1))).astype(np.float32),
        how,
        -1000,
        1000,
        anti_alias=False,
    )
    made = Resampled(image, None, how.spacing_mm, how.origin_mm, "p", -1000, 1000)
    positions = made.position_mm(np.moveaxis(np.indices(image.shape), 0, -1))
    index = geometry.index(positions)
    inside = ((index > 5) & (index < np.array(geometry.size) - 6)).all(axis=-1)
    assert inside.mean() > 0.25
    assert np.abs(image - smooth(positions))[inside].max() < 5
    beyond = ((index < -1) | (index > geometry.size)).any(axis=-1)
    assert beyond.any()
    assert (image[beyond] == -1000).all()


def turned_about(z_degrees: float, x_degrees: float) -> np.ndarray:
    """The rotation about x and then about z."""
    a, b = np.radians(z_degrees), np.radians(x_degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return about_z @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])


@pytest.mark.parametrize("degrees", [(10, 7), (-25, 3), (40, -12)], ids=str)
@pytest.mark.parametrize("stored", [np.eye(3), np.diag([-1.0, -1, 1]), np.eye(3)[:, [2, 0, 1]]], ids=str)
def test_nearest_axes_keep_the_voxels_of_an_oblique_scan_and_say_where_they_lie(degrees, stored):
    scan = noise((8, 9, 10))
    turn = turned_about(*degrees) @ stored
    geometry = Geometry((10, 9, 8), (1.2, 1.2, 1.5), (30.0, -20.0, 100.0), tuple(turn.ravel()))
    how = sampling(geometry, None, nearest_axes=True)
    image = resample_image(scan, how, -1000, 1000, anti_alias=True)
    assert np.array_equal(np.sort(image, axis=None), np.sort(scan, axis=None))
    made = Resampled(image, None, how.spacing_mm, how.origin_mm, "p", -1000, 1000, how.direction)
    # Every voxel lies where the header put it, and the axes lead nearest to the patient's
    index = geometry.index(made.position_mm(np.moveaxis(np.indices(image.shape), 0, -1)))
    assert np.allclose(index, np.rint(index), atol=1e-6)
    x, y, z = np.rint(index).astype(int).reshape(-1, 3).T
    assert np.array_equal(scan[z, y, x], image.ravel())
    axes = np.array(how.direction).reshape(3, 3)
    assert np.allclose(axes, turned_about(*degrees))
    assert np.linalg.det(axes) == pytest.approx(1)
    places = np.random.default_rng(0).uniform(-50, 50, (7, 3))
    assert np.allclose(made.position_mm(made.voxel(places)), places)


def test_nearest_axes_of_an_oblique_scan_give_the_values_of_the_same_scan_stored_straight():
    scan, size, spacing = noise((16, 18, 20), 5), (20, 18, 16), (1.0, 1.4, 2.0)
    turn = tuple((turned_about(12, 5) @ np.diag([-1.0, -1, 1])).ravel())
    oblique = sampling(Geometry(size, spacing, (3.0, 4.0, 5.0), turn), (1.5, 1.5, 1.5), nearest_axes=True)
    straight = sampling(
        Geometry(size, spacing, (3.0, 4.0, 5.0), tuple(np.diag([-1.0, -1, 1]).ravel())), (1.5, 1.5, 1.5)
    )
    for anti_alias in (False, True):
        one, other = (
            resample_image(scan, how, -1000, 1000, anti_alias=anti_alias) for how in (oblique, straight)
        )
        assert np.array_equal(one, other)
    labels = (scan > 300).astype(np.uint8)
    assert np.array_equal(resample_labels(labels, oblique), resample_labels(labels, straight))


def test_turned_upright_about_its_centre_a_scan_keeps_its_centre():
    geometry = Geometry((21, 19, 17), (1.0, 1.4, 2.0), (3.0, 4.0, 5.0), tuple(turned_about(12, 5).ravel()))
    how = sampling(geometry, (2.0, 2.0, 2.0), nearest_axes=True)
    made = Resampled(
        np.zeros(how.size[::-1], np.int16),
        None,
        how.spacing_mm,
        how.origin_mm,
        "p",
        -1000,
        1000,
        how.direction,
    )
    middle = (np.array(how.size) - 1) / 2
    assert np.allclose(made.position_mm(middle[::-1]), geometry.position_mm([10.0, 9.0, 8.0]))
    assert np.allclose(
        made.upright_origin_mm + middle * how.spacing_mm, geometry.position_mm([10.0, 9.0, 8.0])
    )
    straight = sampling(upright((21, 19, 17)), None, nearest_axes=True)
    assert straight == sampling(upright((21, 19, 17)), None)


@pytest.mark.parametrize("degrees", [-25, 8, 20])
def test_nearest_axes_leave_a_tilted_gantry_to_the_interpolation(degrees):
    for turn in (np.eye(3), turned_about(10, 5)):
        axes = tuple((turn @ tilted(degrees)).ravel())
        geometry = Geometry((40, 38, 36), (2.0, 2.0, 2.5), (-30.0, 20.0, 500.0), axes)
        how = sampling(geometry, (2.0, 2.0, 2.0), nearest_axes=True)
        assert how == sampling(geometry, (2.0, 2.0, 2.0))
        assert how.oblique


def test_a_mirrored_grid_is_never_taken_for_a_turned_one():
    # The mirror image about the plane across (1, 1, 1) is as near to a permutation of the axes as to the axes
    mirror = np.eye(3) - 2 / 3 * np.ones((3, 3))
    for columns in (mirror, turned_about(10, 5) @ np.diag([1.0, 1, -1])):
        geometry = Geometry((12, 12, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(columns.ravel()))
        how = sampling(geometry, None, nearest_axes=True)
        assert np.linalg.det(np.array(how.direction).reshape(3, 3)) == pytest.approx(1)
        # Where a place of the scan comes to lie is still where it is in the patient
        scan = noise((12, 12, 12))
        image = resample_image(scan, how, -1000, 1000, anti_alias=False)
        made = Resampled(image, None, how.spacing_mm, how.origin_mm, "p", -1000, 1000, how.direction)
        if not how.oblique:
            index = np.rint(geometry.index(made.position_mm([[3, 4, 5]]))).astype(int)[0]
            assert image[3, 4, 5] == scan[tuple(index[::-1])]


def test_rounding_in_the_header_is_not_taken_for_an_oblique_scan():
    scan = noise((8, 9, 10))
    slight = np.array(LPS).reshape(3, 3) + np.array([[0, 1e-4, 0], [-1e-4, 0, 2e-4], [0, -2e-4, 0]])
    how = sampling(Geometry((10, 9, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(slight.ravel())), None)
    assert np.array_equal(resample_image(scan, how, -1000, 1000, anti_alias=False), scan)


def test_voxel_and_position_are_each_others_inverse():
    made = Resampled(
        np.zeros((4, 5, 6), np.int16), None, (2.0, 3.0, 5.0), (-7.0, 11.0, 13.0), "p", -1000, 1000
    )
    assert made.position_mm([1, 2, 3]).tolist() == [-7 + 2 * 3, 11 + 3 * 2, 13 + 5 * 1]
    places = np.random.default_rng(0).uniform(-9, 9, (2, 7, 3))
    assert np.allclose(made.voxel(made.position_mm(places)), places)


def test_a_thumbnail_weighs_voxels_by_a_tent_as_wide_as_its_own_voxels():
    # 4 voxels on 2: centres 0.5 and 2.5, weights 1 - distance / 2, so (3, 3, 1, 0) / 7 and its mirror image
    line = np.array([0, 7, 14, 21], np.int16).reshape(1, 1, 4)
    assert thumbnail(line, (1, 1, 2)).ravel().tolist() == [5, 16]
    # 2 voxels on 4: centres -0.25, 0.25, 0.75, 1.25; plain linear, the edge continued
    assert thumbnail(np.array([[[0, 100]]], np.int16), (1, 1, 4)).ravel().tolist() == [0, 25, 75, 100]
    for axis in range(3):
        assert np.array_equal(
            thumbnail(np.moveaxis(line, 2, axis), (np.ones(3, int) + np.eye(3, dtype=int)[axis])).ravel(),
            [5, 16],
        )
    flat = np.full((13, 17, 19), -873, np.int16)
    assert (thumbnail(flat, (4, 8, 32)) == -873).all()


# --------------------------------------------------------------------------------------------- files


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def scan_file(raw: Path, name: str, shape=(12, 20, 22), truth=False, **more) -> ScanRow:
    """A small MetaImage or NIfTI scan in `raw` and its row of scans.csv."""
    array = noise(shape, sum(name.encode()))
    paths = [name, f"{name.split('.')[0]}-labels.nii.gz"] if truth else [name]
    digests = []
    for path in paths:
        image = sitk.GetImageFromArray(array if path == name else (array > 500).astype(np.uint8))
        image.SetSpacing((1.8, 1.8, 2.0))
        image.SetOrigin((10.0, -20.0, 30.0))
        sitk.WriteImage(image, str(raw / path))
        digests.append(digest(files_of(raw / path, raw)))
    facts = {
        "scan": digests[0][0][:12],
        "patient": name.split(".")[0],
        "source": "own",
        "layout": "folder",
        "use": ("pretrain",),
        "split": "train",
        "path": name,
        "series": "",
        "truth": paths[1] if truth else "",
        "modality": "CT",
        "size": shape[::-1],
        "spacing_mm": (1.8, 1.8, 2.0),
        "orientation": "LPS",
        "bytes": digests[0][1],
        "sha256": digests[0][0],
        "truth_sha256": digests[1][0] if truth else "",
    }
    return ScanRow(**{**facts, **more})


class Folders:
    """Where one stage would keep its runs: every run starts from what the one before has left."""

    def __init__(self, home: Path, raw: Path) -> None:
        self.raw, self.now, self.store = raw, home / "resampled", home / "store"
        self.store.mkdir(parents=True, exist_ok=True)

    def run(self, scans, study=STUDY, code="code", workers=1, files=()):
        output = self.now.with_name("output")
        output.mkdir()
        try:
            tally = resample_cohort(
                scans,
                files,
                self.raw,
                study,
                code,
                earlier=self.now,
                store=self.store,
                output=output,
                workers=workers,
            )
        except BaseException:
            for file in output.iterdir():
                file.unlink()
            output.rmdir()
            raise
        for file in [*self.store.iterdir(), *(self.now.iterdir() if self.now.exists() else ())]:
            file.unlink()
        if self.now.exists():
            self.now.rmdir()
        output.rename(self.now)
        return tally

    def content(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted(self.now.iterdir())}


@pytest.fixture
def folders(tmp_path: Path, raw: Path) -> Folders:
    return Folders(tmp_path / "a", raw)


def counts(tally) -> tuple[int, int]:
    return len(tally.made), len(tally.kept)


def four_scans(raw: Path) -> list[ScanRow]:
    return [
        scan_file(raw, "anna.nii.gz"),
        scan_file(raw, "bela.mhd", truth=True, use=("liver",), split="test"),
        scan_file(raw, "carl.mha"),
        scan_file(raw, "dora.nii", truth=True, use=("pretrain", "liver"), split="validation"),
    ]


def test_the_bytes_are_those_of_every_other_run_on_one_worker_or_two(tmp_path, raw):
    scans = four_scans(raw)
    runs = [Folders(tmp_path / name, raw) for name in "abc"]
    for folders, workers, rows in zip(runs, (1, 1, 2), (scans, scans[::-1], scans), strict=True):
        assert len(folders.run(rows, workers=workers).made) == 4
    first, *others = (folders.content() for folders in runs)
    assert sorted(first) == sorted([f"{row.scan}.h5" for row in scans] + ["quarantine.csv", "thumbnails.h5"])
    assert all(other == first for other in others)


def test_a_file_holds_the_scan_on_the_new_grid_and_reads_back(folders, raw):
    row = scan_file(raw, "bela.mhd", truth=True)
    folders.run([row])
    made = read_resampled(folders.now / f"{row.scan}.h5", labels=True)
    how = sampling(upright((22, 20, 12), (1.8, 1.8, 2.0), (10.0, -20.0, 30.0)), STUDY.spacing_mm)
    source = noise((12, 20, 22), sum(b"bela.mhd"))
    assert np.array_equal(made.image, resample_image(source, how, -1000, 1000, anti_alias=False))
    assert np.array_equal(made.labels, resample_labels(source > 500, how))
    assert (made.image.dtype, made.labels.dtype) == (np.int16, np.uint8)
    assert (made.spacing_mm, made.origin_mm) == ((2.0, 2.0, 2.5), how.origin_mm)
    assert (made.patient, made.hu_min, made.hu_max) == ("bela", -1000.0, 1000.0)
    with open_h5(folders.now / f"{row.scan}.h5") as file:
        assert (file.attrs["scan"], file.attrs["intensity"]) == (row.scan, "HU")
        assert file.attrs["direction"].tolist() == list(LPS)
        assert all(file[name].fletcher32 for name in ("image", "labels", "thumbnail"))


def test_on_the_nearest_axes_a_finding_is_cut_where_it_lies_in_the_patient(folders, raw):
    axes = turned_about(15, 8)
    geometry = Geometry((40, 36, 24), (1.8, 1.8, 2.0), (10.0, -20.0, 30.0), tuple(axes.ravel()))
    place = geometry.position_mm([30.0, 8.0, 17.0])
    image = sitk.GetImageFromArray(blob(geometry, place, 4.0))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    row = scan_file(raw, "nodule.mha")
    sitk.WriteImage(image, str(raw / row.path))
    sha256, size = digest([raw / row.path])
    row = replace(row, scan=sha256[:12], sha256=sha256, bytes=size)
    finding = FindingRow(row.scan, "candidate", "nodule", tuple(map(float, place)), 4.0, "source")
    for oblique in ("nearest-axes", "resample"):
        folders.run([row], STUDY.model_copy(update={"oblique": oblique}))
        made = read_resampled(folders.now / f"{row.scan}.h5")
        assert np.allclose(made.direction, axes.ravel() if oblique == "nearest-axes" else LPS)
        (patch,) = cut_candidates(made, row, [finding], (5, 5, 5)).patches
        assert np.unravel_index(patch.argmax(), patch.shape) == (2, 2, 2)
    assert made.direction == LPS


def series(raw: Path, name: str, array: np.ndarray, **geometry) -> tuple[ScanRow, list[FileRow]]:
    """An array (z, y, x) as a DICOM series in a folder of its own, and its rows of scans.csv and files.csv."""
    paths = write_series(raw / name, array, series=name, spacing_mm=(1.8, 1.8, 2.0), shuffle=True, **geometry)
    paths.sort(key=lambda path: read_instance(path).uid)
    sha256, size = digest(paths)
    row = scan_file(raw, "any.nii", shape=array.shape)
    row = replace(row, scan=sha256[:12], patient=name, path=name, series=name, bytes=size, sha256=sha256)
    return row, [FileRow(row.scan, str(path.relative_to(raw))) for path in paths]


def test_a_dicom_series_is_read_from_the_files_that_the_table_names(folders, raw):
    row, files = series(raw, "p1", noise((12, 20, 22)), origin_mm=(10.0, -20.0, 30.0))
    (raw / "p1" / "of-another-series.dcm").write_bytes(b"x")
    other = scan_file(raw, "carl.mha")
    assert folders.run([row, other], files=files).refused == []
    how = sampling(upright((22, 20, 12), (1.8, 1.8, 2.0), (10.0, -20.0, 30.0)), STUDY.spacing_mm)
    made = read_resampled(folders.now / f"{row.scan}.h5")
    assert np.array_equal(made.image, resample_image(noise((12, 20, 22)), how, -1000, 1000, anti_alias=False))
    assert np.allclose(made.origin_mm, how.origin_mm)


def test_a_dicom_series_with_a_slice_changed_or_gone_is_set_aside(folders, raw):
    (one, its), (two, others) = (
        series(raw, name, noise((12, 20, 22), seed)) for seed, name in enumerate("pq")
    )
    path = raw / its[3].file
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    (raw / others[5].file).unlink()
    folders.run([one, two, scan_file(raw, "carl.mha")], files=[*its, *others])
    assert {row.path: row.rule for row in read_rows(folders.now / "quarantine.csv", QuarantineRow)} == {
        "p": "changed",
        "q": "changed",
    }


def test_a_tilted_and_a_straight_series_of_one_patient_agree(folders, raw):
    made = []
    for degrees in (0, 15):
        origin, axes = np.array([-36.0, -36.0, 40.0]), tilted(degrees)
        geometry = Geometry((40, 40, 40), (1.8, 1.8, 2.0), tuple(origin), tuple(axes.ravel()))
        k, j, i = np.indices((40, 40, 40))
        array = np.rint(smooth(geometry.position_mm(np.stack([i, j, k], -1)))).astype(np.int16)
        row, files = series(raw, f"tilted-{degrees}", array, origin_mm=origin, direction=axes)
        assert folders.run([row], files=files).refused == []
        made.append(read_resampled(folders.now / f"{row.scan}.h5"))
    straight, slanted = made
    positions = straight.position_mm(np.moveaxis(np.indices(straight.image.shape), 0, -1))[6:-6, 6:-6, 6:-6]
    there = ndimage.map_coordinates(
        slanted.image.astype(float), np.moveaxis(slanted.voxel(positions), -1, 0), order=3, cval=np.nan
    )
    leaning = geometry.index(positions)
    inside = ((leaning > 5) & (leaning < 34)).all(axis=-1)
    assert inside.mean() > 0.4
    assert np.abs(there - straight.image[6:-6, 6:-6, 6:-6])[inside].max() < 8


def test_thumbnails_are_those_of_the_usable_scans_in_the_order_of_their_names(folders, raw):
    scans = [*four_scans(raw), scan_file(raw, "tiny.nii", shape=(2, 20, 22))]
    tally = folders.run(scans)
    usable = sorted(scans[:4], key=lambda row: row.scan)
    assert (len(tally.made), [row.rule for row in tally.refused]) == (4, ["too-small"])
    assert resampled_scans(scans, folders.now) == scans[:4]
    with open_h5(folders.now / "thumbnails.h5") as file:
        assert [scan.decode() for scan in file["scan"]] == [row.scan for row in usable]
        assert [patient.decode() for patient in file["patient"]] == [row.patient for row in usable]
        assert [split.decode() for split in file["split"]] == [row.split for row in usable]
        assert file["pretrain"][:].tolist() == ["pretrain" in row.use for row in usable]
        assert [file[name].dtype.str for name in ("thumbnails", "scan", "patient", "split")] == [
            "<i2",
            "|S12",
            "|S64",
            "|S10",
        ]
        assert (file.attrs["hu_min"], file.attrs["hu_max"]) == (-1000, 1000)
        for index, row in enumerate(usable):
            image = read_resampled(folders.now / f"{row.scan}.h5").image
            assert np.array_equal(file["thumbnails"][index], thumbnail(image, (4, 8, 8)))


# --------------------------------------------------------------------------------- what is done again


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the scans that were read, in order."""
    names: list[str] = []

    def noting(path, root, limits):
        names.append(path.name)
        return original(path, root, limits)

    original = sg.resampling.read_scan
    monkeypatch.setattr(sg.resampling, "read_scan", noting)
    return names


def fresh(folders: Folders, scans, **more) -> dict[str, bytes]:
    other = Folders(folders.now.parent / "fresh", folders.raw)
    other.run(scans, **more)
    return other.content()


def test_an_added_scan_is_the_only_one_that_is_read_and_a_removed_one_goes(folders, raw, read):
    anna, carl, emil = (scan_file(raw, f"{name}.nii") for name in ("anna", "carl", "emil"))
    folders.run([anna, carl])
    read.clear()
    tally = folders.run([anna, carl, emil])
    assert (read, tally.made, counts(tally)) == (["emil.nii"], [emil], (1, 2))
    read.clear()
    assert counts(folders.run([anna, emil])) == (0, 2)
    assert read == []
    assert folders.content() == fresh(folders, [anna, emil])


@pytest.mark.parametrize(
    "change",
    [
        {"code": "other code"},
        {"study": STUDY.model_copy(update={"spacing_mm": (3.0, 2.0, 2.5)})},
        {"study": STUDY.model_copy(update={"hu_max": 900.0})},
        {"study": STUDY.model_copy(update={"anti_alias": True})},
        {"study": STUDY.model_copy(update={"thumbnail_shape": (4, 4, 4)})},
    ],
    ids=["code", "spacing", "clip", "smoothing", "thumbnail"],
)
def test_other_code_or_parameters_keep_no_scan(folders, raw, change):
    scans = [scan_file(raw, "anna.nii"), scan_file(raw, "carl.nii")]
    folders.run(scans)
    tally = folders.run(scans, **change)
    assert counts(tally) == (2, 0)
    assert folders.content() == fresh(folders, scans, **change)


def test_a_scan_that_changes_hands_is_made_anew(folders, raw):
    row = scan_file(raw, "anna.nii")
    folders.run([row])
    assert counts(folders.run([replace(row, patient="berta")])) == (1, 0)
    assert read_resampled(folders.now / f"{row.scan}.h5").patient == "berta"


def test_a_damaged_file_of_an_earlier_run_is_made_anew(folders, raw):
    scans = [scan_file(raw, "anna.nii"), scan_file(raw, "carl.nii")]
    folders.run(scans)
    whole = folders.content()
    zero_a_block(folders.now / f"{scans[0].scan}.h5")
    tally = folders.run(scans)
    assert counts(tally) == (1, 1)
    assert folders.content() == whole


def test_a_file_that_is_kept_is_never_written_to(folders, raw):
    row = scan_file(raw, "anna.nii")
    folders.run([row])
    elsewhere = folders.now.with_name("cache.h5")
    os.link(folders.now / f"{row.scan}.h5", elsewhere)
    elsewhere.chmod(0o444)
    before = (elsewhere.read_bytes(), elsewhere.stat().st_mtime_ns)
    folders.run([row])
    assert counts(folders.run([row], code="other")) == (1, 0)
    assert (elsewhere.read_bytes(), elsewhere.stat().st_mtime_ns) == before


KILLED = """
import sys
from pathlib import Path
from sg.cohorts.records import ScanRow, read_rows
from sg.params import Resample
from sg.resampling import resample_cohort

if __name__ == "__main__":
    home, raw, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    study = Resample.model_validate_json((home / "study.json").read_text())
    (home / "output").mkdir()
    print("begun", flush=True)
    resample_cohort(
        read_rows(home / "scans.csv", ScanRow), [], raw, study, "code",
        earlier=home / "resampled", store=home / "store", output=home / "output", workers=workers,
    )
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_in_the_middle_leaves_its_finished_scans_to_the_next(tmp_path, raw, workers):
    scans = [scan_file(raw, f"p{number:02}.nii", shape=(24, 60, 60)) for number in range(10)]
    folders = Folders(tmp_path / "a", raw)
    home = folders.now.parent
    sg.resampling.write_rows(home / "scans.csv", ScanRow, scans)
    (home / "study.json").write_text(STUDY.model_dump_json())
    (home / "killed.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(home / "killed.py"), str(home), str(raw), str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(folders.store.glob("[!.]*.h5"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    while processes_of(process.pid):  # Dask's workers end by themselves when their parent does
        assert time.monotonic() < deadline
        time.sleep(0.01)
    finished = len(list(folders.store.glob("[!.]*.h5")))
    assert 3 <= finished < 10
    for file in (home / "output").iterdir():
        file.unlink()
    (home / "output").rmdir()
    tally = folders.run(scans)
    assert counts(tally) == (10 - finished, finished)
    assert folders.content() == fresh(folders, scans)


def processes_of(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = place.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(int(place.parent.name))
    return found


# ------------------------------------------------------------------------------------- what is refused


def refusals(folders: Folders, scans) -> dict[str, QuarantineRow]:
    folders.run(scans)
    return {row.path: row for row in read_rows(folders.now / "quarantine.csv", QuarantineRow)}


def test_a_scan_whose_bytes_changed_is_set_aside_and_the_others_go_on(folders, raw):
    scans = [scan_file(raw, f"{name}.mhd", truth=name == "dora") for name in ("anna", "carl", "dora", "emil")]
    data = raw / "anna.raw"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    (raw / "carl.raw").unlink()
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((12, 20, 22), np.uint8)), str(raw / scans[2].truth))
    refused = refusals(folders, scans)
    assert {path: row.rule for path, row in refused.items()} == dict.fromkeys(
        ["anna.mhd", "carl.mhd", "dora.mhd"], "changed"
    )
    assert (
        refused["anna.mhd"].reason == "The bytes of anna.mhd are not those that the cohort was indexed with."
    )
    assert "carl.raw, which is not there" in refused["carl.mhd"].reason
    assert "The bytes of dora-labels.nii.gz are not those" in refused["dora.mhd"].reason
    assert sorted(folders.content()) == sorted([f"{scans[3].scan}.h5", "quarantine.csv", "thumbnails.h5"])


def test_a_label_map_that_is_not_of_the_scan_is_refused_with_the_scan(folders, raw):
    scans = [scan_file(raw, f"{name}.nii", truth=True) for name in ("anna", "carl", "dora", "emil")]

    def relabel(row, array, origin):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.8, 1.8, 2.0))
        image.SetOrigin(origin)
        sitk.WriteImage(image, str(raw / row.truth))
        return replace(row, truth_sha256=digest(files_of(raw / row.truth, raw))[0])

    here = (10.0, -20.0, 30.0)
    ones = np.ones((12, 20, 22))
    scans[0] = relabel(scans[0], ones[:-1], here)
    scans[1] = relabel(scans[1], ones, (10.0, -20.0, 35.0))
    scans[2] = relabel(scans[2], ones * 300, here)
    refused = refusals(folders, scans)
    assert {row.rule for row in refused.values()} == {"labels"}
    assert "22 x 20 x 12 against 22 x 20 x 11 voxels" in refused["anna.nii"].reason
    assert "5 mm apart" in refused["carl.nii"].reason
    assert "whole numbers from 0 to 255" in refused["dora.nii"].reason
    assert "emil.nii" not in refused


def test_a_grid_too_fine_for_the_memory_is_refused_before_any_is_taken(folders, raw, read):
    row = scan_file(raw, "anna.nii")
    with pytest.raises(InputError, match=r"too-large: 1.*resample\.spacing_mm is too fine"):
        folders.run([row], study=STUDY.model_copy(update={"spacing_mm": (0.001, 0.001, 0.001)}))


def test_no_usable_scan_is_an_error_that_counts_what_each_rule_refused(folders, raw):
    scans = [scan_file(raw, "anna.nii"), *(scan_file(raw, f"t{n}.nii", shape=(2, 20, 22)) for n in range(2))]
    (raw / "anna.nii").write_bytes((raw / "t0.nii").read_bytes())
    with pytest.raises(InputError, match=r"none of 3 scans can be used \(changed: 1, too-small: 2\)"):
        folders.run(scans)
    with pytest.raises(InputError, match=r"scans\.csv: it names no scan"):
        folders.run([])


def test_the_table_at_the_end_counts_by_source_and_rule_and_what_is_left_of_each_split(folders, raw, capsys):
    scans = [
        scan_file(raw, "anna.nii"),
        scan_file(raw, "bela.mhd", split="test"),
        scan_file(raw, "carl.mha", source="far", patient="anna"),
        scan_file(raw, "dora.nii", source="far", shape=(2, 20, 22), split="validation"),
    ]
    folders.run(scans[:1])
    sg.resampling.show(folders.run(scans))
    lines = [line.rsplit(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["far", "own", "all"],
        ["scans made", "1", "1", "2"],
        ["scans kept", "0", "1", "1"],
        ["refused: too-small", "1", "0", "1"],
        ["patients left: train", "1", "1", "1"],
        ["patients left: validation", "0", "0", "0"],
        ["patients left: test", "0", "1", "1"],
    ]


def test_a_missing_raw_folder_is_named(folders, raw):
    row = scan_file(raw, "anna.nii")
    folders.raw = raw.with_name("gone")
    with pytest.raises(InputError, match=r"cohort\.raw: there is no folder .*gone"):
        folders.run([row])


def test_a_scan_that_takes_its_process_down_is_set_aside_with_its_size(folders, raw, monkeypatch):
    scans = [scan_file(raw, "anna.nii"), scan_file(raw, "carl.nii")]

    def some_lost(function, jobs, workers):
        for job in jobs:
            yield job, Lost() if job.row.path == "carl.nii" else function(job)

    monkeypatch.setattr(sg.resampling, "spread", some_lost)
    refused = refusals(folders, scans)
    assert (list(refused), refused["carl.nii"].rule) == (["carl.nii"], "memory")
    assert "22 x 20 x 12 voxels" in refused["carl.nii"].reason


def zero_a_block(path: Path) -> None:
    """Zero 40 bytes in the middle of a stored block of the image."""
    with open_h5(path) as file:
        block = file["image"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = block.byte_offset + block.size // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "abc.h5"
    image = noise((12, 20, 22))
    made = Resampled(image, (image > 0).astype(np.uint8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "p", -1000, 1000)
    write_resampled(path, "abc", made, thumbnail(image, (4, 4, 4)), "key")
    return path


def test_a_truncated_file_is_reported_in_words(written):
    content = written.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        written.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"abc\.h5: (truncated|not an HDF5 file)"):
            read_resampled(written, labels=True)


def test_a_damaged_block_is_found_by_its_checksum_and_the_file_named(written):
    zero_a_block(written)
    with pytest.raises(InputError, match=r"abc\.h5: damaged: a stored block fails its checksum"):
        read_resampled(written, labels=True)


def test_a_file_of_another_kind_is_named(tmp_path, written):
    with sg.resampling.create_h5(tmp_path / "empty.h5"):
        pass
    with pytest.raises(InputError, match=r"empty\.h5: incomplete: it lacks 'image'"):
        read_resampled(tmp_path / "empty.h5")
    with sg.resampling.create_h5(tmp_path / "flat.h5") as file:
        file["image"] = np.zeros((3, 3))
    with pytest.raises(InputError, match=r"flat\.h5: image must be a volume of int16"):
        read_resampled(tmp_path / "flat.h5")
    with pytest.raises(InputError, match=r"gone\.h5: there is no such file"):
        read_resampled(tmp_path / "gone.h5")
