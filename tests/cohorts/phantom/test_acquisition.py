"""How phantoms are scanned: where voxels lie, what noise and blur follow from kernels, what is painted around the body."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.noise import measure
from sg.cohorts.phantom import anatomy
from sg.cohorts.phantom.acquisition import acquire, draw_acquisition
from sg.cohorts.phantom.artefacts import Motion, move, pad, streaks
from sg.cohorts.phantom.canvas import LABEL, Canvas
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.grid import FIELD_MM, PART_MM, draw_range, rotation
from sg.cohorts.phantom.noise import KERNELS, along_z, blurred, levels, noise, response
from sg.cohorts.phantom.painting.table import paint_table, paint_things
from sg.cohorts.phantom.rays import WATER_PER_MM, Blocks, Rays
from sg.errors import InputError
from sg.params import BODY_BOTTOM_MM, BODY_TOP_MM, PhantomShared
from sg.randomness import generator

SHARED = PhantomShared(
    spacing_xy_mm=(2.4, 3.2), spacing_z_mm=(2.5, 3.5), noise_hu=(10.0, 30.0), chest_range_mm=(-208.0, 107.0),
    abdomen_range_mm=(-328.0, -58.0), parts=0.5, oblique_deg=6.0, nodule_mm=(4.0, 30.0), variants=0.2, truth_grid_mm=20.0,
)  # fmt: skip


def chance(item: str):
    return lambda purpose: generator(3, "test", item, purpose)


@pytest.fixture(scope="module")
def patient():
    return anatomy.draw_patient(chance("patient"), 0.0)


@pytest.fixture(scope="module")
def drawn(patient):
    """Forty studies of one body, numbered."""
    return [
        draw_acquisition(patient, n, "chest", SHARED, chance(f"person {n}"), chance(f"scan {n}"))
        for n in range(40)
    ]


def lattice(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Lattice:
    """Around the origin; shape is (z, y, x), spacing (x, y, z)."""
    return Lattice(*(s * (np.arange(n) - (n - 1) / 2) for n, s in zip(shape[::-1], spacing_mm, strict=True)))


def cylinder(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Canvas:
    """A canvas with an upright cylinder of water, 60 mm in radius, labelled muscle."""
    fine = lattice(shape, spacing_mm)
    canvas = Canvas(fine, fine.coarser(2))
    x, y, _ = fine.grids
    inside = np.broadcast_to(np.hypot(x, y) < 60, shape)
    canvas.hu[inside] = 0
    canvas.labels[inside] = LABEL["muscle"]
    return canvas


def round_body(canvas: Canvas) -> dict[str, np.ndarray]:
    """The distances that acquisition asks for, of that cylinder, on the coarse lattice; no diaphragm, no heart."""
    x, y, z = canvas.coarse.grids
    skin = np.hypot(x, y) - 60 + 0 * z
    far = np.full_like(skin, 500)
    return {"skin": skin, "cavity": skin + 10, "heart": far, "above": far}


# ------------------------------------------------------------------------------------------------ grid


def test_what_is_written_of_a_grid_is_what_is_computed_with(drawn):
    for one in drawn:
        grid = one.grid
        assert grid.spacing_mm == tuple(round(s, 3) for s in grid.spacing_mm)
        np.testing.assert_allclose(grid.spacing_mm, grid.lattice.spacing_mm, atol=1e-9)
        if np.array_equal(grid.rotation, np.eye(3)):
            assert all(float(f"{value:.2f}") == value for value in grid.origin_mm)
        # The last stored voxel, from the header alone, is where the lattice says.
        last = grid.origin_mm + grid.direction @ (np.array(grid.spacing_mm) * (np.array(grid.size) - 1))
        axes = (grid.lattice.x, grid.lattice.y, grid.lattice.z)
        far = np.array([[axis[-1 if sign > 0 else 0] for axis, sign in zip(axes, grid.signs, strict=True)]])
        np.testing.assert_allclose(last, grid.world(far)[0], atol=1e-5)


def test_directions_are_orthonormal_and_some_scans_are_oblique(drawn):
    angles = []
    for one in drawn:
        np.testing.assert_allclose(one.grid.direction.T @ one.grid.direction, np.eye(3), atol=1e-12)
        turn = one.grid.rotation
        angles.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    angles = np.array(angles)
    assert angles.max() <= SHARED.oblique_deg
    oblique = (angles > 1e-6).mean()
    assert 0.02 < oblique < 0.4  # a fifth of forty: three standard errors are 0.19


def test_a_quarter_turn_about_z_brings_x_to_y():
    np.testing.assert_allclose(rotation(np.array([0, 0, 3.0]), 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1),
       st.floats(0, 20))  # fmt: skip
def test_a_rotation_keeps_its_axis_and_turns_by_its_angle(axis, degrees):
    turn = rotation(np.array(axis), degrees)
    np.testing.assert_allclose(turn @ axis, axis, atol=1e-12)
    assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(np.deg2rad(degrees)))


def test_stored_and_back_is_the_same_array(drawn):
    array = np.arange(24).reshape(2, 3, 4)
    for one in drawn[:5]:
        np.testing.assert_array_equal(one.grid.stored(one.grid.stored(array)), array)
    assert {one.grid.orientation for one in drawn[:5]} == {"LPS", "RAS"}


def test_scans_stay_within_the_body_and_parts_are_long_enough(drawn):
    seen = set()
    for one in drawn:
        z = one.grid.lattice.z
        seen.add(one.covers)
        assert z[0] >= BODY_BOTTOM_MM
        assert z[-1] <= BODY_TOP_MM
        length = z[-1] - z[0]
        if one.covers in ("apices", "bases"):
            assert 90 - one.grid.spacing_mm[2] <= length <= PART_MM[1]
        else:
            assert length > 230
        if one.covers == "apices":
            assert z[0] > -60  # of the carina, more or less
        if one.covers == "bases":
            assert z[-1] < 0
        wide = one.grid.lattice.x[-1] - one.grid.lattice.x[0]
        assert FIELD_MM[0] - 5 <= wide <= FIELD_MM[1] + 5
    assert seen == {"chest", "apices", "bases", "chest-abdomen"}


def test_a_twin_s_scan_is_another_reconstruction_of_the_same_study(patient, drawn):
    for n in range(6):
        twin = draw_acquisition(patient, n, "chest", SHARED, chance(f"person {n}"), chance(f"twin {n}"))
        same = ("covers", "phase", "motion", "table", "things")
        assert [getattr(twin, name) for name in same] == [getattr(drawn[n], name) for name in same]
        np.testing.assert_array_equal(twin.grid.rotation, drawn[n].grid.rotation)
        assert twin.grid.spacing_mm != drawn[n].grid.spacing_mm
        for one, other in zip(twin.grid.lattice.axes, drawn[n].grid.lattice.axes, strict=True):
            step = max(one[1] - one[0], other[1] - other[0])
            assert abs(one[0] - other[0]) <= step
            assert abs(one[-1] - other[-1]) <= step


@pytest.mark.parametrize("ends", [(-380.0, -300.0), (100.0, 180.0), (-40.0, 40.0)])
def test_no_scan_leaves_the_body_or_is_shorter_than_80_mm(patient, ends):
    shared = SHARED.model_copy(update={"chest_range_mm": ends, "parts": 0.7})
    for n in range(60):
        _, bottom, top = draw_range(patient, "chest", shared, np.random.default_rng(n))
        assert bottom >= BODY_BOTTOM_MM
        assert top <= BODY_TOP_MM
        assert top - bottom >= 79.999


def test_a_scan_is_drawn_the_same_again_and_recorded_in_plain_values(patient, drawn):
    again = draw_acquisition(patient, 7, "chest", SHARED, chance("person 7"), chance("scan 7"))
    fields = [{k: v for k, v in asdict(one).items() if k != "grid"} for one in (again, drawn[7])]
    assert json.loads(json.dumps(fields[0])) == json.loads(json.dumps(fields[1]))
    np.testing.assert_array_equal(again.grid.origin_mm, drawn[7].grid.origin_mm)


def test_noise_lies_within_the_asked_for_range_and_rises_with_the_kernel(drawn):
    by_kernel = {k: [one.noise_hu for one in drawn if one.kernel == k] for k in KERNELS}
    assert all(10 <= sd <= 30 for values in by_kernel.values() for sd in values)
    assert np.mean(by_kernel["smooth"]) < np.mean(by_kernel["standard"]) < np.mean(by_kernel["sharp"])


# ----------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.5), (3.0, 3.0, 3.0)])
def test_both_parts_of_the_noise_have_unit_variance_and_are_independent(kernel, spacing):
    sideways, others, share = noise(np.random.default_rng(0), (24, 75, 80), spacing, kernel, 2.5)
    assert sideways.std() == pytest.approx(1, rel=0.02)
    assert others.std() == pytest.approx(1, rel=0.02)
    assert abs((sideways * others).mean()) < 0.02
    # The share of the fourth power of the sine over a circle is 3/8, were the pixels as fine as the kernel.
    assert share == pytest.approx(3 / 8, abs=0.02)
    # Rays from side to side bring a grain that is long from side to side.
    along_x, along_y = ((sideways * np.roll(sideways, 1, axis)).mean() for axis in (2, 1))
    if spacing[0] < 1:
        assert along_x > along_y + 0.2


@pytest.mark.parametrize("kernel", ["smooth", "standard"])
def test_the_noise_s_spectrum_is_the_ramp_times_the_window_squared(kernel):
    """f A(f)^2, measured on voxels fine enough that nothing folds; bands of 0.1 per mm."""
    mm = 0.45
    sideways, others, share = noise(np.random.default_rng(1), (40, 120, 120), (mm, mm, 2.0), kernel, 2.0)
    field = np.sqrt(share) * sideways + np.sqrt(1 - share) * others
    power = (np.abs(np.fft.fft2(field)) ** 2).mean(axis=0)
    f = np.fft.fftfreq(120, mm)
    radius = np.hypot(f[:, None], f[None, :])
    expected = radius * 2.0 ** (-2 * (radius / KERNELS[kernel].half) ** 2)
    scale = power.sum() / expected.sum()
    for low in (0.05, 0.15, 0.25, 0.35):
        band = (radius >= low) & (radius < low + 0.1)
        assert power[band].mean() == pytest.approx(scale * expected[band].mean(), rel=0.06)


def test_coarse_voxels_fold_the_noise_to_nearly_white():
    sideways, others, share = noise(np.random.default_rng(2), (20, 90, 90), (3, 3, 3), "sharp", 3.0)
    field = np.sqrt(share) * sideways + np.sqrt(1 - share) * others
    for axis in (1, 2):
        assert abs((field * np.roll(field, 1, axis)).mean()) < 0.03


def test_slices_that_touch_have_a_quarter_of_their_noise_in_common():
    """The cubic B-spline, a triangle's correlation with itself: (1/6) / (2/3) one width apart, 23/32 half of one."""
    for thickness, expected in ((3.0, 1 / 4), (6.0, 23 / 32), (1.5, 0.0)):
        taps = along_z(thickness, 3.0)
        assert (taps**2).sum() == pytest.approx(1)
        assert (taps[1:] * taps[:-1]).sum() == pytest.approx(expected, abs=0.01)


def test_the_middle_of_a_cylinder_is_noisier_than_its_rim_by_the_rays_it_lies_on():
    """Every ray through the middle passed 120 mm; independent sums over directions say what those through the rim did."""
    canvas = cylinder((4, 64, 64), (5.0, 5.0, 5.0))
    blocks = Blocks.of(canvas.lattice)
    sideways, others, _ = levels(canvas.hu, blocks, 1.0)
    total = np.sqrt(3 / 8 * sideways[1] ** 2 + 5 / 8 * others[1] ** 2)
    theta = np.linspace(0, np.pi, 2000)
    for column, at_mm in ((31, 2.5), (41, 47.5)):
        chords = 2 * np.sqrt(np.maximum(60**2 - (at_mm * np.cos(theta)) ** 2, 0))
        expected = np.sqrt(np.exp(WATER_PER_MM * chords).mean())
        middle = np.sqrt(np.exp(WATER_PER_MM * 120))
        assert total[31, column] / total[31, 31] == pytest.approx(expected / middle, rel=0.04)


def test_rays_through_a_block_sum_up_to_its_length():
    volume = np.zeros((1, 40, 40), np.float32)
    volume[0, 10:30, 18:22] = 1  # 20 by 4 voxels of 2 mm
    rays = Rays(lattice((2, 40, 40), (2.0, 2.0, 2.0)), np.array([0.0, np.pi / 2]))
    sums = rays.sums(volume)[0]
    assert sums[0].max() == pytest.approx(40)  # across x, the rays run along y
    assert sums[1].max() == pytest.approx(8)
    np.testing.assert_allclose(sums.sum(axis=1) * 2, 80 * 4)  # of mm^2, from either side


def test_noise_measured_in_a_phantom_of_water_is_what_was_asked_for(patient):
    """The measure that real scans are held against, on a body without anatomy."""
    one = draw_acquisition(patient, 0, "chest", SHARED, chance("patient"), chance("water"))
    shape, spacing = (24, 70, 70), (2.0, 2.0, 3.0)
    canvas = cylinder(shape, spacing)
    canvas.hu[canvas.labels > 0] = 50
    plain = replace(
        one, grid=replace(one.grid, lattice=canvas.lattice), table="none", things=(), padding_hu=None, streaks=0.0,
        motion=Motion(0.0, 0.0, 50.0, 15.0, 0.0, False), noise_hu=20.0, kernel="smooth", thickness_mm=3.0,
    )  # fmt: skip
    hu = acquire(canvas, round_body(canvas), plain, chance("person"), chance("measured"))
    found = measure(hu, spacing)
    assert found.sd_hu == pytest.approx(20, rel=0.1)
    assert found.along[2] == pytest.approx(0.25, abs=0.06)


def test_noise_is_not_measured_where_there_is_nothing_even():
    with pytest.raises(InputError, match="5 homogeneous regions of soft tissue, got 0"):
        measure(np.full((10, 60, 60), -1000), (3.0, 3.0, 3.0))


# ------------------------------------------------------------------------------------------------ blur


@pytest.mark.parametrize(("kernel", "thickness"), [("smooth", 2.5), ("standard", 5.0)])
def test_a_painted_wave_comes_out_as_weak_as_window_and_slice_profile_make_it(kernel, thickness):
    """A wave of 6 mm in plane: painted over voxels of 0.75 mm it has lost sinc(f v), scanned it has A(f) left."""
    spacing = (0.75, 0.75, 2.5)
    fine = lattice((24, 16, 64), spacing)
    x, _, z = fine.grids
    f = 1 / 6
    wave = np.sinc(f * 0.75) * np.cos(2 * np.pi * f * x) * np.ones(fine.shape)
    scanned = blurred(wave.astype(np.float32), spacing, kernel, thickness)
    left = np.abs(scanned[12, 8, 16:48]).max() / np.abs(np.cos(2 * np.pi * f * fine.x[16:48])).max()
    assert left == pytest.approx(2.0 ** -((f / KERNELS[kernel].half) ** 2), rel=0.03)
    f = 1 / 20  # along z: a triangle as wide at half height as the slice is thick has sinc^2
    wave = np.sinc(f * 2.5) * np.cos(2 * np.pi * f * z) * np.ones(fine.shape)
    scanned = blurred(wave.astype(np.float32), spacing, kernel, thickness)
    most = np.abs(scanned[8:16, 8, 32]).max() / np.abs(np.cos(2 * np.pi * f * fine.z[8:16])).max()
    assert most == pytest.approx(np.sinc(f * thickness) ** 2, rel=0.03)


def test_an_edge_painted_one_coarse_voxel_wide_gets_as_steep_as_the_kernel_shows_it():
    """A kernel's edge of w mm, painted over voxels of v mm: what is between is moved from the middle by v / w.

    Voxels of 3 mm and a Gaussian that falls to half at 0.40 per mm: w = sqrt(12) 0.468 mm = 1.62 mm.
    """
    edge = np.zeros((5, 9, 9), np.float32)
    edge[:, :, 4], edge[:, :, 5:] = 60, 100
    scanned = blurred(edge, (3.0, 3.0, 3.0), "standard", 1.0)
    assert scanned[2, 4, 4] == pytest.approx(50 + 10 * 3 / 1.6228, rel=0.01)
    assert scanned.min() == 0
    assert scanned.max() == 100
    np.testing.assert_allclose(scanned[:, :, :4], 0)  # no overshoot beside it
    turned = blurred(np.ascontiguousarray(edge.swapaxes(1, 2)), (3.0, 3.0, 3.0), "standard", 1.0)
    np.testing.assert_allclose(turned.swapaxes(1, 2), scanned, rtol=1e-6)


def test_blur_keeps_even_places_as_they_are():
    for kernel in KERNELS.values():
        for mm in (0.6, 1.5, 3.0):
            assert response(kernel.window, mm).sum() == pytest.approx(1)


# ------------------------------------------------------------------------------------------- artefacts


def test_between_two_dense_rods_runs_a_dark_band():
    canvas = cylinder((4, 64, 64), (3.0, 3.0, 6.0))
    x, y, _ = canvas.lattice.grids
    for side in (-36, 36):
        canvas.hu[np.broadcast_to(np.hypot(x - side, y) < 9, canvas.hu.shape)] = 1500
    blocks = Blocks.of(canvas.lattice)
    error = blocks.spread(streaks(canvas.hu, blocks, 1.0))[1]
    between, beside = error[31:33, 26:38].mean(), error[50:54, 26:38].mean()
    assert between < -3
    assert between < beside - 3
    assert np.abs(streaks(canvas.hu, blocks, 0.0)).max() == 0


def test_motion_bends_the_heart_s_edge_and_nothing_far_from_it():
    canvas = cylinder((40, 40, 40), (3.0, 3.0, 3.0))
    x, y, z = canvas.coarse.grids
    d = round_body(canvas) | {"heart": np.hypot(x, y) - 25 + 0 * z}
    xf, yf, _ = canvas.lattice.grids
    canvas.hu += np.broadcast_to(
        np.where(np.hypot(xf, yf) < 25, np.float32(100), np.float32(0)), canvas.hu.shape
    )
    before = canvas.hu.copy()
    move(canvas, d, Motion(0.0, 3.0, 50.0, 15.0, 0.3, False))
    changed = np.abs(canvas.hu - before)
    radius = np.broadcast_to(np.hypot(xf, yf), changed.shape)
    assert changed[np.abs(radius - 25) < 4].max() > 40
    assert changed[radius > 58].max() == 0
    # Slices differ where they did not before.
    assert np.ptp(canvas.hu[5:35, 20, :], axis=0).max() > 40


def test_outside_the_circle_are_padding_and_no_labels():
    canvas = cylinder((2, 20, 20), (3.0, 3.0, 3.0))  # 60 mm wide: the body's 120 are cut
    hu = np.zeros(canvas.hu.shape, np.int16)
    pad(canvas, hu, -2000)
    x, y, _ = canvas.lattice.grids
    outside = np.broadcast_to(np.hypot(x, y) > 30, hu.shape)
    np.testing.assert_array_equal(hu == -2000, outside)
    np.testing.assert_array_equal(canvas.labels == 0, outside)


@pytest.mark.parametrize("shape", ["flat", "arc", "cradle"])
def test_a_table_lies_under_the_body_and_leaves_it_alone(shape):
    canvas = cylinder((3, 90, 90), (3.0, 3.0, 3.0))
    before = canvas.hu.copy()
    paint_table(canvas, round_body(canvas)["skin"], shape, np.random.default_rng(4))
    changed = canvas.hu != before
    assert not (changed & (canvas.labels > 0)).any()
    y = np.broadcast_to(canvas.lattice.y[None, :, None], changed.shape)
    assert changed.any()
    assert y[changed].min() > 0  # y grows to the back
    assert canvas.hu[changed].max() > -600  # a shell
    np.testing.assert_array_equal(canvas.hu[0], canvas.hu[2])


def test_clothes_and_leads_lie_on_the_body_and_not_in_it():
    canvas = cylinder((40, 60, 60), (3.0, 3.0, 3.0))
    before = canvas.hu.copy()
    paint_things(canvas, round_body(canvas)["skin"], ("clothes", "leads"), np.random.default_rng(5))
    changed = canvas.hu != before
    assert changed.any()
    assert not (changed & (canvas.labels > 0)).any()
    x, y, _ = canvas.lattice.grids
    assert np.broadcast_to(np.hypot(x, y), changed.shape)[changed].max() < 60 + 40 + 5
