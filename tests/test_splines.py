"""Splines along the axes: their values, their edges, what smoothing does to them, and that only numbers decide."""

from __future__ import annotations

import math
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sg import splines

PLAIN = np.ones(1)
LOW, HIGH = -1000.0, 1000.0


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1001, shape).astype(np.int16)


def centred(shape, step, smooth=None) -> list[splines.Axis]:
    """Axes (z, y, x) of a new grid with the same field of view, to half a voxel, and the same centre."""
    axes = []
    for number, (side, pace) in enumerate(zip(shape, step, strict=True)):
        count = max(1, math.floor(side / pace + 0.5))
        start = (side - 1) / 2 - pace * (count - 1) / 2
        axes.append(splines.axis(side, count, start, pace, smooth[number] if smooth else PLAIN))
    return axes


def positions(shape, step) -> list[np.ndarray]:
    counts = [max(1, math.floor(side / pace + 0.5)) for side, pace in zip(shape, step, strict=True)]
    return [
        (side - 1) / 2 + pace * (np.arange(count) - (count - 1) / 2)
        for side, pace, count in zip(shape, step, counts, strict=True)
    ]


def by_simpleitk(volume: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """HU before rounding at all (z, y, x) of the places along each axis, each evenly spaced."""
    image = sitk.GetImageFromArray(np.clip(volume, LOW, HIGH).astype(np.float64))
    steps = [float(place[1] - place[0]) if len(place) > 1 else 1.0 for place in reversed(places)]
    starts = [float(place[0]) for place in reversed(places)]
    size = [len(place) for place in reversed(places)]
    along = np.eye(3).ravel().tolist()
    made = sitk.Resample(image, size, sitk.Transform(), sitk.sitkBSpline, starts, steps, along, -1e6)
    return np.clip(sitk.GetArrayFromImage(made), LOW, HIGH)


def by_scipy(volume: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    values = np.clip(volume, LOW, HIGH).astype(float)
    grid = np.meshgrid(*places, indexing="ij")
    return np.clip(ndimage.map_coordinates(values, grid, order=3, mode="mirror"), LOW, HIGH)


def smooth_volume(shape, seed) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2, mode="wrap")
    return (values / max(np.abs(values).max(), 1e-9) * 1400).astype(np.int16)


# ------------------------------------------------------------------------------------------- values


def test_a_line_of_two_voxels_worked_out_by_hand():
    # Mirrored, 0 and 60 alternate for ever, and so do coefficients a and b with (4a + 2b) / 6 = 0, (4b + 2a) / 6 = 60:
    # -60 and 120. At 1/4 their weights are (27, 235, 121, 1) / 384: (27 * 120 - 235 * 60 + 121 * 120 - 60) / 384 = 9.4.
    # Halfway they are (1, 23, 23, 1) / 48: (120 - 23 * 60 + 23 * 120 - 60) / 48 = 30.
    line = np.array([0, 60], np.int16).reshape(1, 1, 2)
    axes = [
        splines.axis(1, 1, 0, 1, PLAIN),
        splines.axis(1, 1, 0, 1, PLAIN),
        splines.axis(2, 3, 0.0, 0.25, PLAIN),
    ]
    assert splines.sampled(line, axes, LOW, HIGH).ravel().tolist() == [0, 9, 30]


def test_a_single_bright_voxel_becomes_the_cardinal_spline():
    # Coefficients of a unit pulse fall off as sqrt(3) * (sqrt(3) - 2) ** |k|; 1/2 lies between weights 1, 23, 23, 1.
    line = np.zeros(41, np.int16)
    line[20] = 1000
    pole = math.sqrt(3) - 2
    c = [1000 * math.sqrt(3) * pole ** abs(k) for k in range(-3, 6)]
    expected = [(c[k] + 23 * c[k + 1] + 23 * c[k + 2] + c[k + 3]) / 48 for k in range(2, 5)]
    axes = [*[splines.axis(1, 1, 0, 1, PLAIN)] * 2, splines.axis(41, 3, 20.5, 1.0, PLAIN)]
    made = splines.sampled(line.reshape(1, 1, -1), axes, LOW, HIGH).ravel()
    assert made.tolist() == [round(value) for value in expected]


STEPS = st.sampled_from([0.31, 0.5, 0.7, 0.93, 1.0, 1.37, 2.0, 3.3, 7.0, 45.0])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(3, 40)] * 3), st.tuples(STEPS, STEPS, STEPS), st.booleans(), st.integers(0, 99)
)
def test_every_voxel_up_to_the_edges_is_simpleitks(shape, step, rough, seed):
    assume(np.prod([side / pace for side, pace in zip(shape, step, strict=True)]) < 1e5)
    volume = noise(shape, seed) if rough else smooth_volume(shape, seed)
    made = splines.sampled(volume, centred(shape, step), LOW, HIGH)
    assert np.abs(made - by_simpleitk(volume, positions(shape, step))).max() < 0.505


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.sampled_from([1, 2, 3, 5, 17, 60])] * 3),
    st.tuples(STEPS, STEPS, STEPS),
    st.integers(0, 99),
)
def test_every_voxel_up_to_the_edges_is_scipys_for_axes_of_one_or_two_voxels_too(shape, step, seed):
    # SimpleITK reads beyond its coefficients where an axis has two voxels.
    assume(np.prod([side / pace for side, pace in zip(shape, step, strict=True)]) < 1e5)
    volume = noise(shape, seed)
    made = splines.sampled(volume, centred(shape, step), LOW, HIGH)
    assert np.abs(made - by_scipy(volume, positions(shape, step))).max() < 0.505


@pytest.mark.parametrize("shift", [-0.5, -0.2, 1 / 3, 7.25, 100.0])
def test_a_grid_may_lie_anywhere_in_the_field_of_view(shift):
    volume = noise((9, 140, 11), 4)
    places = [np.arange(9.0), shift + 1.1 * np.arange(30), np.arange(11.0)]
    axes = [splines.axis(9, 9, 0.0, 1.0, PLAIN), splines.axis(140, 30, shift, 1.1, PLAIN)]
    made = splines.sampled(volume, [*axes, splines.axis(11, 11, 0.0, 1.0, PLAIN)], LOW, HIGH)
    assert np.abs(made - by_simpleitk(volume, places)).max() < 0.505


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(0, 99))
def test_a_grid_of_the_same_voxels_keeps_every_value(shape, seed):
    volume = noise(shape, seed)
    assert np.array_equal(splines.sampled(volume, centred(shape, (1, 1, 1)), LOW, HIGH), volume)


def test_every_third_voxel_is_kept_as_it_is():
    volume = noise((9, 12, 15))
    assert np.array_equal(
        splines.sampled(volume, centred(volume.shape, (3, 3, 3)), LOW, HIGH), volume[1::3, 1::3, 1::3]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 30)] * 3),
    st.tuples(*[st.floats(0.4, 12)] * 3),
    st.integers(-1000, 1000),
    st.booleans(),
)
def test_a_constant_volume_stays_that_constant(shape, step, value, smoothed):
    assume(np.prod([side / pace + 1 for side, pace in zip(shape, step, strict=True)]) < 1e5)
    axes = centred(shape, step, [splines.smoothing(pace) for pace in step] if smoothed else None)
    assert (splines.sampled(np.full(shape, value, np.int16), axes, LOW, HIGH) == value).all()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("ratio", [0.6, 1.7])
def test_a_ramp_stays_a_ramp_away_from_the_edges(number, ratio):
    shape, step = [5, 5, 5], [1.0, 1.0, 1.0]
    shape[number], step[number] = 90, ratio
    ramp = (20.0 * np.arange(90) - 900).reshape([-1 if axis == number else 1 for axis in range(3)])
    made = splines.sampled(np.broadcast_to(ramp, shape), centred(shape, step), LOW, HIGH)
    place = positions(shape, step)[number]
    inside = (place > 8) & (place < 81)  # the mirror bends it beyond, by 0.27 ** distance
    lines = np.moveaxis(made, number, -1)[..., inside]
    assert np.abs(lines - (20 * place - 900)[inside]).max() <= 0.51


def test_values_are_clipped_before_and_after():
    step = np.full((4, 4, 20), -3024, np.int16)
    step[..., 10:] = 3071
    made = splines.sampled(step, centred(step.shape, (1, 1, 0.3)), LOW, HIGH)
    assert (made.min(), made.max()) == (-1000, 1000)
    tame = splines.sampled(np.clip(step, -1000, 1000), centred(step.shape, (1, 1, 0.3)), LOW, HIGH)
    assert np.array_equal(made, tame)


def test_halves_are_rounded_to_even():
    values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 999.5]).reshape(1, 1, -1)
    made = splines.sampled(values, centred(values.shape, (1, 1, 1)), LOW, HIGH)
    assert made.ravel().tolist() == [-2, -2, 0, 0, 2, 2, 1000]


def test_neither_strides_nor_types_nor_byte_order_change_a_byte():
    volume = noise((21, 70, 33))
    axes = centred(volume.shape, (0.8, 1.9, 1.3))
    made = splines.sampled(volume, axes, LOW, HIGH)
    wide = np.zeros((42, 140, 66), np.int16)
    wide[::2, ::2, ::2] = volume
    for other in (
        np.asfortranarray(volume),
        wide[::2, ::2, ::2],
        np.ascontiguousarray(volume[::-1, ::-1])[::-1, ::-1],
        volume.astype(">i2"),
        volume.astype(np.int32),
        volume.astype(">f4"),
        volume.astype(np.float64),
    ):
        assert np.array_equal(splines.sampled(other, axes, LOW, HIGH), made)
    assert (made.dtype, made.flags.c_contiguous) == (np.dtype(np.int16), True)


def test_the_input_is_left_as_it_was():
    volume = noise((12, 13, 14)) * np.float32(3)
    before = volume.copy()
    splines.sampled(volume, centred(volume.shape, (1.5, 0.8, 1)), LOW, HIGH)
    assert np.array_equal(volume, before)


@pytest.mark.parametrize("step", [(1.0, 1.2, 1.2), (0.6, 1.4, 1.4), (2.0, 0.9, 1.0), (3.0, 3.0, 3.0)])
def test_volume_result_and_all_between_are_less_than_three_volumes(step):
    volume = noise((60, 250, 200))
    axes = centred(volume.shape, step)
    splines.sampled(volume, axes, LOW, HIGH)  # compiled
    tracemalloc.start()
    made = splines.sampled(volume, axes, LOW, HIGH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.nbytes + peak < 3 * max(volume.nbytes, made.nbytes)


# ---------------------------------------------------------------------------------------- smoothing


def test_no_smoothing_unless_the_grid_is_coarser():
    for ratio in (0.2, 0.999, 1.0):
        assert splines.smoothing(ratio).tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(st.floats(1.01, 30))
def test_a_smoothed_voxel_is_as_wide_as_one_of_the_coarser_grid(ratio):
    weights = splines.smoothing(ratio)
    assert weights.sum() == pytest.approx(1)
    assert np.array_equal(weights, weights[::-1])
    if ratio > 2:  # before, the Gaussian is narrower than the voxels that it is told at
        distance = np.arange(len(weights)) - len(weights) // 2
        width = 2 * math.sqrt(2 * math.log(2)) * math.sqrt((weights * distance**2).sum())
        assert math.hypot(width, 1) == pytest.approx(ratio, rel=5e-3)  # the cut tails


@pytest.mark.parametrize("step", [(2.5, 1.0, 1.0), (1.0, 3.4, 1.0), (0.7, 2.0, 4.5), (1.9, 12.0, 1.2)])
def test_smoothing_is_a_gaussian_along_the_coarser_axes_before_the_spline(step):
    volume = noise((23, 61, 31), 5)
    smoothed = volume.astype(float)
    for number, ratio in enumerate(step):
        if ratio > 1:
            sigma = math.sqrt(ratio**2 - 1) / (2 * math.sqrt(2 * math.log(2)))
            reach = math.ceil(4 * sigma)
            smoothed = ndimage.gaussian_filter1d(smoothed, sigma, number, mode="mirror", radius=reach)
    axes = centred(volume.shape, step, [splines.smoothing(ratio) for ratio in step])
    made = splines.sampled(volume, axes, LOW, HIGH)
    assert np.abs(made - by_scipy(smoothed, positions(volume.shape, step))).max() < 0.505


@pytest.mark.parametrize("number", range(3))
def test_smoothing_removes_what_the_coarser_grid_would_fold_into_a_false_pattern(number):
    # Stripes of 2.4 voxels on a grid of 3: without smoothing they come back as stripes of 12 voxels.
    shape, step = [6, 6, 6], [1.0, 1.0, 1.0]
    shape[number], step[number] = 240, 3.0
    stripes = 900 * np.sin(2 * np.pi * np.arange(240) / 2.4)
    volume = np.broadcast_to(stripes.reshape([-1 if axis == number else 1 for axis in range(3)]), shape)
    folded = splines.sampled(volume, centred(shape, step), LOW, HIGH)
    axes = centred(shape, step, [splines.smoothing(pace) for pace in step])
    clean = np.moveaxis(splines.sampled(volume, axes, LOW, HIGH), number, 0)[
        4:-4
    ]  # the mirror breaks stripes
    assert np.abs(folded).max() > 700
    assert np.abs(clean).max() < 20


# ----------------------------------------------------------------------------------------- bytes


def some_bytes(seed: int) -> bytes:
    volume = noise((40, 90, 50), seed)
    step = (0.9, 1.7, 1.3)
    axes = centred(volume.shape, step, [splines.smoothing(pace) for pace in step])
    return splines.sampled(volume, axes, LOW, HIGH).tobytes()


def test_the_bytes_are_the_same_in_one_process_and_in_two():
    here = [some_bytes(seed) for seed in range(4)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(some_bytes, range(4))) == here
