"""Synthetic heads in MR: signal equations against worked values, anatomy and tumours against laws."""

from __future__ import annotations

import heapq
import json
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from sg.cohorts.phantom.brain import anatomy, contrasts, loops, tumour
from sg.cohorts.phantom.brain.contrasts import Sequence
from sg.cohorts.phantom.brain.rendering import (
    COUNTERPARTS,
    TISSUE,
    TISSUES,
    BrainScan,
    draw_brain,
    scan_lattice,
)
from sg.cohorts.phantom.brain.truth import write_brain_truth
from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.params import BrainPhantoms
from sg.randomness import generator

RECIPE = BrainPhantoms(layout="brats", train=1, validation=0, test=0, spacing_mm=4.0)


def draw_of(number: int):
    return lambda purpose: generator(11, "test", str(number), purpose)


@cache
def scan(number: int) -> BrainScan:
    return draw_brain(draw_of(number), RECIPE)


def of_grade(grade: str) -> BrainScan:
    return scan(next(n for n in range(40) if tumour.draw_grade(draw_of(n))[0] == grade))


def sequence(**times: float | None) -> Sequence:
    fields = {"repetition": 600.0, "echo": 12.0, "inversion": None, "flip_deg": None}
    return Sequence(**(fields | times), slice_mm=1.0, first_mm=0.0, blur_mm=0.0, noise=0.0, unevenness=0.0,
                    scale=100.0, offset=0.0, gamma=1.0)  # fmt: skip


# ------------------------------------------------------------------------------------------ signals


def test_a_spin_echo_after_one_relaxation_time_each_keeps_what_the_equation_says():
    # TR = T1 and TE = T2: (1 - 1/e) / e
    value = contrasts.signal(sequence(repetition=800.0, echo=80.0), 0.5, 800.0, 80.0)
    assert value == pytest.approx(0.5 * (1 - np.exp(-1)) * np.exp(-1))


def test_inversion_at_the_null_time_leaves_no_fluid_and_most_of_the_white_matter():
    water, repetition = 4300.0, 9000.0
    null = water * np.log(2 / (1 + np.exp(-repetition / water)))
    flair = sequence(repetition=repetition, echo=100.0, inversion=null)
    assert contrasts.signal(flair, 1.0, water, 1400.0) == pytest.approx(0, abs=1e-9)
    assert contrasts.signal(flair, 0.7, 838.0, 69.0) > 0.1


def test_a_gradient_echo_of_ninety_degrees_is_a_spin_echo_without_the_echo():
    # cos 90 = 0: M (1 - E) exp(-TE/T2)
    spoiled = sequence(repetition=500.0, echo=5.0, flip_deg=90.0)
    expected = (1 - np.exp(-0.5)) * np.exp(-0.1)
    assert contrasts.signal(spoiled, 1.0, 1000.0, 50.0) == pytest.approx(expected)


@pytest.mark.parametrize("number", range(3))
def test_tissues_are_ordered_as_radiologists_know_them_whatever_the_scanner(number):
    draw = draw_of(number)
    field, sequences = contrasts.draw_sequences(draw)
    table = contrasts.draw_signals(draw, field, sequences)
    t1, t1ce, t2, flair = (
        dict(zip(table, column, strict=True)) for column in np.array(list(table.values())).T
    )
    assert t1["white"] > t1["grey"] > t1["csf"]
    assert t2["csf"] > t2["oedema"] > t2["grey"] > t2["white"]
    assert flair["oedema"] > flair["grey"] > flair["white"] > flair["csf"]
    assert t1ce["enhancing"] > 1.2 * t1ce["white"]
    assert t1["enhancing"] < t1["white"]


def test_rician_noise_in_air_has_the_rayleigh_mean():
    image = np.zeros((20, 40, 40), np.float32)
    lattice = Lattice(np.arange(40.0), np.arange(40.0), np.arange(20.0))
    noisy = Sequence(600, 12, None, None, 5.0, 0.0, 0.0, 0.2, 0.0, 1000.0, 0.0, 1.0)
    measured = contrasts.acquire(image, np.ones(image.shape, bool), lattice, noisy, draw_of(0), "t1")
    assert measured.mean() / 1000 == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.02)


def test_thick_slices_average_what_they_hold_and_touch_nothing_in_plane():
    image = np.zeros((20, 3, 3), np.float32)
    image[10:, 1, 1] = 1
    lattice = Lattice(np.arange(3.0), np.arange(3.0), np.arange(20.0))
    thick = Sequence(600, 12, None, None, 4.0, 0.5, 0.0, 0.0, 0.0, 1000.0, 0.0, 1.0)
    measured = contrasts.acquire(image, np.ones(image.shape, bool), lattice, thick, draw_of(0), "t1")
    # Slices begin at -2, 2, 6, 10, ...: the step lies on a border of slices, whose middles are at planes 7.5 and 11.5.
    np.testing.assert_allclose(measured[6:13, 1, 1], [1, 1, 125, 375, 625, 875, 1000], atol=1)
    assert measured[:, 0, 0].max() == 1  # nothing, but never 0 in the brain


# --------------------------------------------------------------------------------------------- loops


def test_sampling_is_exact_for_linear_fields_and_wraps_where_it_is_periodic():
    z, y, x = np.meshgrid(np.arange(4.0), np.arange(5.0), np.arange(6.0), indexing="ij")
    field = (2 * x - y + 3 * z)[None].astype(np.float32)
    at = [
        np.array([[[v]]], np.float32) for v in (12.0, 7.0, 5.0)
    ]  # nodes 2.5, 1.0, 2.0 at origin 2, step 4, 3, 2...
    origin, step = np.array([2.0, 4.0, 1.0]), np.array([4.0, 3.0, 2.0])
    assert loops.sampled(field, *at, origin, step, False)[0, 0, 0, 0] == pytest.approx(2 * 2.5 - 1 + 3 * 2)
    turned = [a + period for a, period in zip(at, (24.0, 15.0, 8.0), strict=True)]
    assert loops.sampled(field, *turned, origin, step, True) == loops.sampled(field, *at, origin, step, True)


def test_distance_to_a_level_of_a_linear_field_is_exact():
    z, _, x = np.meshgrid(*(np.arange(6.0),) * 3, indexing="ij")
    field = (3 * x + 4 * z - 10).astype(np.float32)  # slope 5 a voxel, voxels of 2 mm
    distance = loops.level_distance(field, 2.0, 0.0)
    np.testing.assert_allclose(distance, field / 2.5, rtol=1e-5)


def test_travel_times_agree_with_a_search_along_paths():
    """Along the axes both are exact; elsewhere the front is never slower than Dijkstra's steps nor faster than straight."""
    rng = np.random.default_rng(2)
    speed = np.ones((9, 10, 11), np.float32)
    speed[rng.random(speed.shape) < 0.25] = 0
    speed[4, 5, :] = 1
    start = np.zeros(speed.shape, bool)
    start[4, 5, 5] = True
    times = loops.travel_times(speed, start, 2.0, 3)
    steps = _dijkstra(speed, (4, 5, 5), 2.0)
    np.testing.assert_allclose(times[4, 5, :], 2.0 * np.abs(np.arange(11) - 5), rtol=1e-5)
    reached = np.isfinite(steps)
    np.testing.assert_array_equal(times < 1e6, reached)
    assert (times[reached] <= steps[reached] + 1e-3).all()
    z, y, x = np.meshgrid(*(np.arange(n) for n in speed.shape), indexing="ij")
    straight = 2.0 * np.sqrt((z - 4) ** 2 + (y - 5) ** 2 + (x - 5) ** 2)
    assert (times[reached] >= straight[reached] - 1e-3).all()


def _dijkstra(speed: np.ndarray, start: tuple[int, int, int], spacing: float) -> np.ndarray:
    times = np.full(speed.shape, np.inf)
    times[start] = 0
    queue = [(0.0, start)]
    while queue:
        time, node = heapq.heappop(queue)
        for axis in range(3):
            for way in (-1, 1):
                n = list(node)
                n[axis] += way
                n = tuple(n)
                if all(0 <= v < e for v, e in zip(n, speed.shape, strict=True)) and speed[n] > 0:
                    later = time + spacing / speed[n]
                    if later < times[n]:
                        times[n] = later
                        heapq.heappush(queue, (later, n))
    return times


# ------------------------------------------------------------------------------------- mass effect


def test_what_a_tumour_pushes_keeps_its_volume_and_nothing_moves_at_the_skull():
    one = tumour.Tumour("HGG", "frontal", np.zeros(3), 30.0, 0.0, 0.5, 0.5, np.eye(3))
    axis = np.arange(-60.0, 61, 2)
    lattice = Lattice(axis, axis.copy(), axis.copy())
    u = tumour.pushed(one, lattice, np.full(lattice.shape, -100.0))
    along = u[0, 30, 30, :]  # on the x axis through the centre
    r = axis[50]  # 40 mm
    # 15 ml were added: r0^3 = r^3 - 3 * 15000 / (4 pi)
    assert r - along[50] == pytest.approx((r**3 - 3 * 15000 / (4 * np.pi)) ** (1 / 3), rel=1e-3)
    assert np.all(np.diff(axis - along) > 0)  # nothing is folded over
    assert not tumour.pushed(one, lattice, np.zeros(lattice.shape)).any()


# ------------------------------------------------------------------------------------- whole heads


@pytest.mark.parametrize("number", range(3))
def test_background_is_0_in_all_contrasts_and_the_brain_is_one_piece_of_human_size(number):
    one = scan(number)
    inside = one.contrasts["t1"] > 0
    for image in one.contrasts.values():
        assert image.dtype == np.int16
        assert image.shape == scan_lattice(4.0).shape == (39, 60, 60)
        np.testing.assert_array_equal(image > 0, inside)
        assert not image[~inside].any()
    assert ndimage.label(inside)[1] == 1
    np.testing.assert_array_equal(one.tissues > 0, inside)
    # 1469 +- 102 ml in men, 1289 +- 111 ml in women (Matsumae 1996); two real masks hold 1433 and 1603 ml.
    assert 1100 < one.volumes_ml["brain"] < 1750
    tissue = np.isin(
        one.tissues, [TISSUE[n] for n in ("csf", "ventricles", "vein", "dura", "background")], invert=True
    )
    assert 900 < tissue.sum() * 0.064 < 1500


@pytest.mark.parametrize("number", range(3))
def test_fluid_is_dark_in_t1_and_flair_and_bright_in_t2(number):
    one = scan(number)
    ventricles = ndimage.binary_erosion(one.tissues == TISSUE["ventricles"]) | _purest(one, "ventricles")
    white = ndimage.binary_erosion(one.tissues == TISSUE["white"])
    level = {name: image[white].mean() for name, image in one.contrasts.items()}
    fluid = {name: np.median(image[ventricles]) for name, image in one.contrasts.items()}
    assert fluid["t1"] < 0.85 * level["t1"]
    assert fluid["flair"] < 0.85 * level["flair"]
    assert fluid["t2"] > 1.4 * level["t2"]


def _purest(one: BrainScan, name: str) -> np.ndarray:
    """Voxels of a tissue with most of it around."""
    share = ndimage.uniform_filter((one.tissues == TISSUE[name]).astype(float), 3)
    return (one.tissues == TISSUE[name]) & (share >= np.percentile(share[one.tissues == TISSUE[name]], 70))


def test_a_high_grade_tumour_has_a_rim_around_its_core_and_oedema_that_shines_in_flair():
    one = of_grade("HGG")
    labels = one.labels
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    around = ndimage.binary_dilation(labels == 1, iterations=1) & (labels != 1)
    assert np.isin(labels[around], (4,)).mean() > 0.6  # necrosis lies within the rim
    tumorous = labels > 0
    assert (one.contrasts["t1"][tumorous] > 0).all()
    for name in ("csf", "ventricles", "background"):
        assert not tumorous[one.tissues == TISSUE[name]].any()
    white = ndimage.binary_erosion(one.tissues == TISSUE["white"])
    assert np.median(one.contrasts["flair"][labels == 2]) > 1.15 * np.median(one.contrasts["flair"][white])
    assert np.median(one.contrasts["t1ce"][labels == 4]) > 1.1 * np.median(one.contrasts["t1ce"][white])
    assert one.volumes_ml["core"] == pytest.approx((labels == 1).sum() * 0.064, abs=0.01)


def test_a_low_grade_tumour_is_mostly_core_that_does_not_enhance():
    one = of_grade("LGG")
    assert (one.labels == 1).sum() > 4 * (one.labels == 4).sum()
    assert one.grade == "LGG"


def test_a_quarter_of_the_tumours_are_of_low_grade_in_younger_patients():
    drawn = [tumour.draw_grade(draw_of(n)) for n in range(1000)]
    low = np.array([grade == "LGG" for grade, _ in drawn])
    ages = np.array([age for _, age in drawn])
    assert low.mean() == pytest.approx(75 / 285, abs=0.04)
    assert ages[~low].mean() == pytest.approx(60, abs=1.5)
    assert ages[low].mean() < 46


def test_the_same_seed_gives_the_same_bytes_and_another_patient_another_brain():
    again = draw_brain(draw_of(0), RECIPE)
    for name, image in scan(0).contrasts.items():
        assert image.tobytes() == again.contrasts[name].tobytes()
    assert scan(0).labels.tobytes() == again.labels.tobytes()
    both = (scan(0).contrasts["t1"] > 0) & (scan(1).contrasts["t1"] > 0)
    assert (scan(0).tissues[both] != scan(1).tissues[both]).mean() > 0.3  # folds are each patient's own


def test_older_heads_have_wider_ventricles_and_sulci():
    young, old = ([anatomy.draw_head(draw_of(n), age) for n in range(6)] for age in (25, 80))
    for measure in (lambda h: h.ventricles[0], lambda h: h.sulcus_mm, lambda h: h.third):
        assert np.mean([measure(h) for h in old]) > 1.25 * np.mean([measure(h) for h in young])


def test_folds_are_waves_of_the_period_asked_for():
    field = anatomy.narrow_band(np.random.default_rng(0), 24.0, 3.0)[0]
    assert field.std() == pytest.approx(1, rel=1e-4)
    power = np.abs(np.fft.fftn(field)) ** 2
    k = np.fft.fftfreq(90, 3.0)
    frequency = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    assert (power * frequency).sum() / power.sum() * 24 == pytest.approx(1, abs=0.1)
    # Waves of one length in all directions: the correlation at three quarters of it is sin(u)/u, u = 3 pi / 2: negative.
    assert np.mean(field * np.roll(field, 6, axis=0)) < -0.05


def test_truth_tells_tissues_and_atlas_positions(tmp_path: Path):
    one = scan(0)
    error = write_brain_truth(tmp_path / "a.h5", one, "test")
    write_brain_truth(tmp_path / "b.h5", one, "test")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert error < 1.0
    with h5py.File(tmp_path / "a.h5") as file:
        labels, fields = file["labels"], file["displacements"]
        names, maps = json.loads(labels.attrs["names"]), json.loads(fields.attrs["maps"])
        assert tuple(names) == TISSUES
        np.testing.assert_array_equal(labels[...], one.tissues)
        follows = labels.attrs["map_of_label"]
        for number, name in enumerate(names):
            assert follows[number] == (maps.index(COUNTERPARTS[name]) if name in COUNTERPARTS else -1)
        assert follows[names.index("enhancing")] == follows[names.index("grey")] == -1
        case = json.loads(file.attrs["case"])
        assert case["grade"] == one.grade
        assert case["split"] == "test"
        # The middle of both thalami lies 7 mm over the commissure and 18 mm behind it.
        grid = Lattice(
            *(
                o + 8.0 * np.arange(n)
                for o, n in zip(fields.attrs["grid_origin_mm"], fields.shape[:1:-1], strict=True)
            )
        )
        field = interpolated(fields[maps.index("deep")], grid, one.lattice)
        here = one.tissues == TISSUE["thalamus"]
        positions = np.stack([f[here] for f in field + np.stack(np.broadcast_arrays(*one.lattice.grids))])
    assert np.abs(positions.mean(axis=1) - (0, 18, 7)).max() < 4
