"""What painters put on a canvas: where bones, vessels and muscles lie, how dense they are, whatever the lattice."""

from types import SimpleNamespace

import numpy as np
import pytest

from sg.cohorts.phantom import anatomy, skeleton, tissues
from sg.cohorts.phantom.canvas import LABEL, Canvas
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.habitus import draw_habitus
from sg.cohorts.phantom.painting import limbs
from sg.cohorts.phantom.painting.abdomen import paint_abdomen
from sg.cohorts.phantom.painting.bones import paint_bones
from sg.cohorts.phantom.painting.grain import grain
from sg.cohorts.phantom.painting.mediastinum import paint_mediastinum
from sg.cohorts.phantom.painting.pieces import paint_rods, smoothed, tube
from sg.cohorts.phantom.painting.placing import depth, hugging
from sg.cohorts.phantom.painting.walls import paint_walls
from sg.cohorts.phantom.person import Person
from sg.cohorts.phantom.scene import Scene
from sg.randomness import generator

PAINTERS = (paint_walls, paint_abdomen, paint_mediastinum, paint_bones)


def _draw(number):
    return lambda purpose: generator(8, "painting", str(number), purpose)


def _person(number):
    draw = _draw(number)
    patient = anatomy.draw_patient(draw, 0.0)
    return Person(patient, anatomy.survey(patient), None, None, draw)


def _lattice(low, high, step):
    return Lattice(*(np.arange(a, b, step, dtype=float) for a, b in zip(low, high, strict=True)))


def _scene(person, lattice, phase):
    canvas = Canvas(lattice, lattice.coarser(6.0 / float(np.mean(lattice.spacing_mm))))
    return Scene(
        canvas, person, anatomy.shapes(person.patient, canvas.coarse), tissues.draw_hu(person.draw, phase)
    )


def _painted(person, lattice, phase):
    scene = _scene(person, lattice, phase)
    for paint in PAINTERS:
        paint(scene)
    return scene


@pytest.fixture(scope="module", params=[0, 1])
def person(request):
    return _person(request.param)


@pytest.fixture(scope="module")
def whole(person):
    return _painted(person, _lattice((-195, -150, -330), (195, 160, 130), 4.0), "arterial")


def _where(scene, label):
    return scene.canvas.labels == LABEL[label]


def test_every_part_of_the_body_is_there(whole):
    names = {
        "fat", "muscle", "mediastinum", "heart", "chambers", "aorta", "pulmonary_artery", "pulmonary_veins",
        "great_vessels", "trachea", "esophagus", "lymph_nodes", "spine", "ribs", "cartilage", "sternum", "clavicles",
        "scapulae", "arms", "diaphragm", "liver", "liver_vessels", "spleen", "stomach", "kidneys", "bowel",
    }  # fmt: skip
    present = set(np.unique(whole.canvas.labels))
    assert {name for name in names if LABEL[name] not in present} == set()


def test_nothing_outside_the_skin_but_arms_and_everything_inside_is_no_air(whole):
    skin = whole.canvas.finer(whole.d["skin"], (slice(None),) * 3)
    outside = whole.canvas.labels[skin > 6]
    assert set(np.unique(outside)) <= {LABEL["background"], LABEL["fat"], LABEL["arms"]}
    wall = whole.canvas.finer(whole.d["cavity"], (slice(None),) * 3)
    assert whole.canvas.hu[(skin < -4) & (wall > 4) & ~_where(whole, "trachea")].min() > -300


def test_ribs_lie_in_the_wall_that_they_carry(whole):
    x, _, _ = whole.canvas.lattice.grids
    lateral = _where(whole, "ribs") & (np.abs(x) > 60)
    above_cavity = whole.canvas.finer(whole.d["cavity"], (slice(None),) * 3)[lateral]
    under_surface = whole.canvas.finer(whole.d["trunk"], (slice(None),) * 3)[lateral]
    assert np.mean((above_cavity > -1.5) & (above_cavity < 12)) > 0.97
    assert np.mean(under_surface < 1) > 0.97


def test_the_cord_runs_in_a_canal_behind_every_vertebral_body(whole, person):
    z = skeleton.levels_mm()[4:15].astype(float)
    front = skeleton.spine_axis(z).astype(float)
    radius = skeleton.spine_radius(z).astype(float)
    middle = np.column_stack([np.zeros(len(z)), front, z])
    canal = middle + np.column_stack([np.zeros(len(z)), radius * 0.87 + 7.2, np.zeros(len(z))])
    hu = {}
    for name, points in (("body", middle), ("canal", canal)):
        where = person.patient.maps["spine"].to_patient(points)
        axes = (whole.canvas.lattice.x, whole.canvas.lattice.y, whole.canvas.lattice.z)
        i, j, k = (np.abs(a[:, None] - w).argmin(axis=0) for a, w in zip(axes, where.T, strict=True))
        hu[name] = whole.canvas.hu[k, j, i]
    assert np.median(hu["canal"]) < 60 < np.median(hu["body"])


def test_blood_in_the_chambers_is_as_dense_as_what_comes_from_lungs_and_veins(whole):
    inside = whole.canvas.hu[_where(whole, "chambers")]
    low, high = sorted((whole.hu["blood"], whole.hu["blood_right"]))
    assert 0.9 * low < np.median(inside) < 1.1 * high
    muscle = whole.canvas.hu[_where(whole, "heart")]
    assert np.median(muscle) < np.median(inside)


def test_liver_spleen_and_muscle_have_the_persons_own_density(whole):
    for label, name in (("liver", "liver"), ("spleen", "spleen"), ("muscle", "muscle")):
        assert np.median(whole.canvas.hu[_where(whole, label)]) == pytest.approx(whole.hu[name], abs=9), label


def test_a_part_is_painted_as_it_stands_in_the_whole(whole, person):
    part = _painted(person, _lattice((-195, -150, -50), (195, 160, 30), 4.0), "arterial")
    z = whole.canvas.lattice.z
    first = int(np.flatnonzero(z == part.canvas.lattice.z[0])[0])
    inner = slice(2, len(part.canvas.lattice.z) - 2)
    other = whole.canvas.hu[first : first + len(part.canvas.lattice.z)]
    difference = np.abs(part.canvas.hu - other)[inner]
    # Shapes are known on coarse lattices that differ between the two; textures are the person's.
    assert np.median(difference) < 1
    assert np.mean(difference > 60) < 0.03


def test_arms_that_are_not_raised_lie_beside_even_the_stoutest_body():
    # One person in seven does not raise them, and of a scene only the person's own chance says who.
    lowered = [n for n in range(200) if not limbs.arms_raised(SimpleNamespace(draw=_draw(n)))]
    assert 12 <= len(lowered) <= 50  # 30 expected; four standard deviations of 5
    person = _person(max(lowered, key=lambda n: draw_habitus(_draw(n)("habitus")).bmi))
    middle_and_elbow = limbs.humerus(Scene(None, person, {}, {}), 1)[2:]
    outside, _ = depth(person.survey, "skin", middle_and_elbow)
    assert (outside > 0.9 * limbs.MUSCLE_MM[2:]).all()


def test_two_slices_can_be_painted_and_what_only_one_of_them_shows(person):
    lattice = _lattice((-150, -120, -3), (150, 130, 9), 6.0)
    scene = _painted(person, lattice, "venous")
    paint_rods(scene.canvas, [tube(0, np.array([(0.0, 0, -9), (0, 0, -4.5)]), 1.0)], (500.0,), None)
    assert np.isfinite(scene.canvas.hu).all()


def test_a_path_along_the_wall_keeps_its_distance_from_the_cavity(person):
    angles = np.linspace(0.3, 2.6, 12)
    path = np.column_stack([120 * np.sin(angles), -90 * np.cos(angles), np.full(12, -30.0)])
    moved, outward = hugging(person.survey, path, 5.0)
    above, _ = depth(person.survey, "cavity", moved)
    np.testing.assert_allclose(above, 5, atol=1.0)
    np.testing.assert_allclose((outward**2).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("radius_mm", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("step_mm", [1.0, 3.0])
def test_a_rod_keeps_its_volume_however_thin_it_is(radius_mm, step_mm):
    lattice = _lattice((-20, -20, -30), (20.1, 20.1, 30.1), step_mm)
    canvas = Canvas(lattice, lattice.coarser(2.0))
    canvas.hu[:] = 0
    along = np.array([(-0.3, 0.4, -20.0), (0.9, -0.2, 20.0)])
    paint_rods(canvas, [tube(0, along, radius_mm)], (100.0,), None)
    _, _, z = lattice.grids
    share = canvas.hu[np.broadcast_to(np.abs(z) < 12, lattice.shape)].sum() / 100 * step_mm**3
    length = step_mm * int((np.abs(lattice.z) < 12).sum())
    assert share == pytest.approx(np.pi * radius_mm**2 * length, rel=0.12)


def test_a_smoothed_path_passes_through_its_points():
    path = np.array([(0.0, 0, 0), (10, 3, 0), (14, -2, 7), (30, 0, 9)])
    fine = smoothed(path, 5)
    assert len(fine) == 16
    np.testing.assert_allclose(fine[::5], path, atol=1e-12)


def test_grain_is_the_same_at_a_point_whatever_the_lattice_and_has_unit_spread(person):
    scene = Scene(None, person, {}, {})
    wide = grain(scene, "food", _lattice((-90, -90, -90), (90, 90, 90), 3.0), 9.0)
    part = grain(scene, "food", _lattice((-30, -60, 0), (30, 0, 60), 3.0), 9.0)
    np.testing.assert_allclose(wide[30:50, 10:30, 20:40], part, atol=1e-4)
    assert wide.mean() == pytest.approx(0, abs=0.12)
    assert wide.std() == pytest.approx(1, abs=0.2)
