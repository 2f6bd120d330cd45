"""How lungs are painted."""

import dataclasses
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from sg.cohorts.phantom import anatomy, vessels
from sg.cohorts.phantom.canvas import LABEL, Canvas
from sg.cohorts.phantom.fields import Lattice, Noise
from sg.cohorts.phantom.painting.lungs import TILE, fine_noise, paint_lungs
from sg.cohorts.phantom.scene import Scene
from sg.cohorts.phantom.variants import LOBES, Effusion, Variants
from sg.randomness import generator

SPACING = 4.0
LOBE_NAMES = [lobe for lobes in LOBES.values() for lobe in lobes]


def draw(purpose: str) -> np.random.Generator:
    return generator(11, "phantom", "test/0", purpose)


@cache
def patient() -> anatomy.Patient:
    return anatomy.draw_patient(draw, 0.0)


def painted(own: Variants, spacing: float = SPACING, corner: float = 0.0) -> Scene:
    one = dataclasses.replace(patient(), variants=own)
    survey = anatomy.survey(one)
    trees = vessels.draw_lung_trees(one, survey, draw)
    axes = [np.arange(low + corner, high, spacing) for low, high in ((-160, 161), (-130, 131), (-250, 150))]
    lattice = Lattice(*axes)
    coarse = lattice.coarser(max(6 / spacing, 1))
    person = SimpleNamespace(patient=one, survey=survey, trees=trees, draw=draw)
    hu = {"lung": -850.0, "blood": 45.0, "blood_right": 45.0, "cava_lower": 45.0, "fluid": 15.0}
    scene = Scene(Canvas(lattice, coarse), person, anatomy.shapes(one, coarse), hu)
    scene.canvas.hu[:] = -90
    paint_lungs(scene)
    return scene


@pytest.fixture(scope="module")
def plain() -> Scene:
    return painted(Variants())


def hu_of(scene: Scene, *names: str) -> np.ndarray:
    return scene.canvas.hu[np.isin(scene.canvas.labels, [LABEL[name] for name in names])]


def test_fine_noise_is_the_periodic_b_spline_of_its_coefficients():
    """Inside one tile it equals fields.Noise, which scipy evaluates at single points."""
    step, sd = 2.5, 10.0
    axis = np.arange(8.0, 60, 3.1)
    lattice = Lattice(axis, axis + 1, axis + 2)
    field = fine_noise(np.random.default_rng(0), lattice, step, sd)
    tile = np.random.default_rng(0).standard_normal((TILE, TILE, TILE), dtype=np.float32) * (
        sd / (151 / 315) ** 1.5
    )
    noise = Noise(tile[None].astype(np.float32), np.zeros(3), step)
    z, y, x = np.meshgrid(lattice.z, lattice.y, lattice.x, indexing="ij")
    expected = noise.at(np.column_stack([x.ravel(), y.ravel(), z.ravel()]))[:, 0].reshape(field.shape)
    assert np.abs(field - expected).max() < 1e-3


def test_fine_noise_has_its_standard_deviation_and_repeats_after_a_tile():
    axis = np.arange(0.0, 90, 1.7)
    here = fine_noise(np.random.default_rng(1), Lattice(axis, axis, axis), 2.0, 10.0)
    assert here.std() == pytest.approx(10, rel=0.05)
    there = fine_noise(np.random.default_rng(1), Lattice(axis - TILE * 2.0, axis, axis), 2.0, 10.0)
    assert np.abs(here - there).max() < 1e-2


def test_all_lobes_are_there_and_in_their_places(plain):
    labels, z = plain.canvas.labels, plain.canvas.lattice.z
    height = {name: z[np.nonzero(labels == LABEL[name])[0]].mean() for name in LOBE_NAMES}
    assert height["lung_right_upper"] > height["lung_right_middle"]
    assert height["lung_right_upper"] > height["lung_right_lower"]
    assert height["lung_left_upper"] > height["lung_left_lower"]
    x = plain.canvas.lattice.x
    for lung, lobes in LOBES.items():
        side = x[np.nonzero(np.isin(labels, [LABEL[name] for name in lobes]))[2]].mean()
        assert (side < 0) == (lung == "lung_right")


def test_lungs_are_as_dense_as_real_ones_at_full_inspiration(plain):
    """Real chests resampled to 3 mm: commonest HU -835 to -900; a quarter of the lung lies 20 to 60 HU above the median."""
    hu = hu_of(plain, *LOBE_NAMES, "lung_vessels")
    counts, edges = np.histogram(hu, np.arange(-1000, -500, 5))
    assert -905 < edges[counts.argmax()] < -820
    low, middle, high = np.percentile(hu, [25, 50, 75])
    assert 10 < middle - low < 40
    assert high - middle > middle - low  # vessels make the upper side long


def test_the_back_is_denser_than_the_front(plain):
    canvas = plain.canvas
    inside = np.isin(canvas.labels, [LABEL[name] for name in LOBE_NAMES])
    y = np.broadcast_to(canvas.lattice.y[None, :, None], inside.shape)[inside]
    hu = canvas.hu[inside]
    front, back = y < np.percentile(y, 25), y > np.percentile(y, 75)
    assert 10 < np.median(hu[back]) - np.median(hu[front]) < 90


def test_vessels_are_denser_and_bronchi_darker_than_their_walls(plain):
    assert hu_of(plain, "lung_vessels").mean() > -350
    assert np.isin(LABEL["bronchi"], plain.canvas.labels)


def test_without_variants_there_is_neither_emphysema_nor_fluid(plain):
    assert len(hu_of(plain, "emphysema", "effusion")) == 0


def test_emphysema_lies_below_minus_950():
    hu = hu_of(painted(Variants(emphysema=0.8)), "emphysema")
    assert len(hu) > 500
    assert np.percentile(hu, 80) < -930
    assert np.median(hu) < -950


def test_fluid_is_water_and_the_lung_beside_it_squeezed():
    scene = painted(Variants(effusion=Effusion("lung_right", 40.0)))
    fluid = hu_of(scene, "effusion")
    assert len(fluid) * SPACING**3 / 1000 > 100  # ml
    assert 0 < np.median(fluid) < 25
    beside = scene.canvas.finer(scene.d["effusion"], (slice(None),) * 3)
    lung = np.isin(scene.canvas.labels, [LABEL[name] for name in LOBES["lung_right"]])
    near, far = lung & (beside > 2) & (beside < 8), lung & (beside > 30)
    assert np.median(scene.canvas.hu[near]) > np.median(scene.canvas.hu[far]) + 60


def test_no_voxel_bears_the_label_of_a_removed_lobe():
    scene = painted(Variants(removed_lobe="lung_right_upper", rise_mm=12))
    assert not (scene.canvas.labels == LABEL["lung_right_upper"]).any()
    assert (scene.canvas.labels == LABEL["lung_right_middle"]).any()


def test_the_same_person_looks_alike_on_another_lattice(plain):
    """Density in cubes of 16 mm agrees between 4 mm voxels and 4 mm voxels that lie elsewhere."""
    other = painted(Variants(), corner=2.0)

    def cubes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        lattice = scene.canvas.lattice
        z, y, x = np.meshgrid(*lattice.axes, indexing="ij")
        inside = np.isin(scene.canvas.labels, [LABEL[name] for name in LOBE_NAMES])
        key = ((z // 16 + 20) * 10000 + (y // 16 + 20) * 100 + (x // 16 + 20)).astype(np.int64)[inside]
        total = np.bincount(key, scene.canvas.hu[inside], minlength=500000)
        count = np.bincount(key, minlength=500000)
        return total, count

    (a, n), (b, m) = cubes(plain), cubes(other)
    both = (n > 50) & (m > 50)
    assert both.sum() > 200
    means = a[both] / n[both], b[both] / m[both]
    assert np.corrcoef(*means)[0, 1] > 0.8
