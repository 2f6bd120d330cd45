"""Patients: maps that can be undone, organs that vary each on their own, volumes as drawn, nobody in another's place."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sg.cohorts.phantom import anatomy, atlas, skeleton
from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.cohorts.phantom.organ_maps import VARIATIONS
from sg.cohorts.phantom.variants import NONE, Variants
from sg.randomness import generator
from tests.cohorts.phantom import variation

MANY = 20


@cache
def patient(number: int) -> anatomy.Patient:
    return anatomy.draw_patient(lambda purpose: generator(3, "test", str(number), purpose), 0.0)


def lattice(step: float, x=(-190, 190), y=(-150, 165), z=(-340, 140)) -> Lattice:
    return Lattice(*(np.arange(low, high, step, dtype=float) for low, high in (x, y, z)))


@cache
def seen(number: int, step: float = 15.0) -> anatomy.Survey:
    """A coarse survey, cheap enough to take of many."""
    box = lattice(step, *anatomy.SURVEY_BOX_MM)
    return anatomy.Survey(box, anatomy.shapes(patient(number), box))


def own_centre(one: anatomy.Patient, name: str) -> np.ndarray:
    return one.maps[name].to_patient(np.array([VARIATIONS[name].centre_mm], float))[0]


@pytest.mark.parametrize("number", range(3))
def test_every_organ_s_map_and_its_inverse_cancel_out(number):
    one = patient(number)
    rng = np.random.default_rng(number)
    assert list(one.maps) == list(VARIATIONS)
    for name, organ in one.maps.items():
        points = np.array(VARIATIONS[name].centre_mm) + rng.uniform(-60, 60, (20, 3))
        back = np.empty_like(points)
        for row, p in enumerate(organ.to_patient(points)):
            here = Lattice(*(np.array([v, v + 1]) for v in p))
            back[row] = [part[0, 0, 0] for part in organ.to_atlas(here)]
        np.testing.assert_allclose(back, points, atol=0.02)


@pytest.mark.parametrize("number", range(8))
def test_no_map_folds(number):
    """The atlas volume of a small cell stays positive everywhere: the determinant of the map's derivative."""
    one = anatomy.draw_patient(lambda purpose: generator(4, "test", str(number), purpose), 1.0)
    box = lattice(18, (-220, 220), (-170, 180), (-380, 190))
    for organ in one.maps.values():
        slopes = [np.gradient(organ.noise.on(box), 18.0, axis=axis) for axis in (3, 2, 1)]
        derivative = np.moveaxis(np.stack(slopes, axis=-1), 0, -2) + organ.matrix
        assert np.linalg.det(derivative).min() > 0.3 * np.linalg.det(organ.matrix)


def test_a_patient_does_not_depend_on_the_order_of_drawing():
    again = anatomy.draw_patient(lambda purpose: generator(3, "test", "1", purpose), 0.0)
    box = lattice(40)
    one, other = anatomy.shapes(patient(1), box), anatomy.shapes(again, box)
    assert all((one[name] == other[name]).all() for name in one)


def test_distances_are_float32_and_agree_between_lattices():
    """A node of a coarse lattice is a node of a finer one: the same point has the same distance."""
    coarse, fine = lattice(30), lattice(15)
    one, other = anatomy.shapes(patient(2), coarse), anatomy.shapes(patient(2), fine)
    for name, distance in one.items():
        assert distance.dtype == np.float32, name
        twice = other[name][::2, ::2, ::2][tuple(slice(n) for n in coarse.shape)]
        np.testing.assert_allclose(distance, twice, atol=0.01, err_msg=name)


@pytest.mark.parametrize("number", range(4))
def test_organs_and_lobes_have_the_volumes_that_were_drawn(number):
    """As a scan is painted: distances at nodes 6 mm apart, interpolated to voxels of 3 mm, which are counted."""
    one = patient(number)
    voxels = lattice(3)
    coarse = voxels.coarser(2)
    d = {
        name: interpolated(distance, coarse, voxels) for name, distance in shapes_of_note(one, coarse).items()
    }
    right, left = d["lung_right"] < 0, d["lung_left"] < 0
    oblique, horizontal = d["fissure_right_oblique"] < 0, d["fissure_right_horizontal"] < 0
    upper_left = d["fissure_left_oblique"] < 0
    sizes = one.sizes
    for name, mask, wanted in (
        ("liver", d["liver"] < 0, sizes.liver_ml),
        ("spleen", d["spleen"] < 0, sizes.spleen_ml),
        ("lungs", right | left, sizes.lungs_ml),
    ):
        assert mask.sum() * 0.027 == pytest.approx(wanted, rel=0.03), name
    for lobe, mask in {
        "lung_right_upper": right & oblique & horizontal,
        "lung_right_middle": right & oblique & ~horizontal,
        "lung_right_lower": right & ~oblique,
        "lung_left_upper": left & upper_left,
        "lung_left_lower": left & ~upper_left,
    }.items():
        assert mask.sum() * 0.027 == pytest.approx(sizes.lobes_ml[lobe], rel=0.04), lobe


def shapes_of_note(one: anatomy.Patient, box: Lattice) -> dict[str, np.ndarray]:
    names = ("liver", "spleen", "lung_right", "lung_left")
    return {
        name: distance
        for name, distance in anatomy.shapes(one, box).items()
        if name in names or name.startswith("fissure")
    }


@pytest.mark.parametrize("number", range(6))
def test_nothing_is_in_another_s_place(number):
    d = seen(number).d
    lungs = (d["lung_right"] < 0) | (d["lung_left"] < 0)
    assert not (lungs & (d["middle"] < 0)).any()
    assert not (lungs & (d["cavity"] > 0)).any()
    assert not (lungs & (d["above"] > 0)).any()
    assert not ((d["cavity"] < 0) & (d["trunk"] > -10)).any()
    assert not ((d["trunk"] < 0) & (d["skin"] > 0)).any()
    below = ["liver", "gall_bladder", "spleen", "stomach", "kidneys"]
    for name in below:
        assert (d[name] < 0).any(), name
        assert not ((d[name] < 0) & ((d["above"] < 0) | (d["cavity"] > 0) | (d["spine"] < 0))).any()
        for other in below[: below.index(name)]:
            assert not ((d[name] < 0) & (d[other] < 0)).any(), (name, other)


def test_lobes_lie_as_lobes_do():
    """Upper above and in front of lower; the middle lobe in front, below the upper one."""
    d, box = seen(0).d, seen(0).lattice
    x, y, z = box.grids

    def middle(mask):
        return [(mask * axis).sum() / mask.sum() for axis in (x, y, z)]

    right = d["lung_right"] < 0
    oblique, horizontal = d["fissure_right_oblique"] < 0, d["fissure_right_horizontal"] < 0
    upper, between, lower = (
        middle(m) for m in (right & oblique & horizontal, right & oblique & ~horizontal, right & ~oblique)
    )
    assert upper[2] > lower[2] + 40
    assert upper[2] > between[2] + 40
    assert between[1] < lower[1] - 40
    assert between[0] < 0


def test_organs_slide_against_each_other():
    """With another heart, drawn anew, a patient is the same but for the chest's scale and domes, which make room."""

    def other_heart(purpose: str) -> np.random.Generator:
        return generator(4 if purpose == "heart" else 3, "test", "0", purpose)

    one, other = patient(0), anatomy.draw_patient(other_heart, 0.0)
    moved = {
        name: np.linalg.norm(own_centre(other, name) - own_centre(one, name))
        for name in ("heart", "aorta", "trachea", "esophagus", "spine", "sternum", "cage", "lung_right")
    }
    assert moved.pop("heart") > 5
    assert max(moved.values()) < 2.5


def test_every_organ_has_shifts_of_its_own():
    """Less what a linear regression on the places of body and cage explains."""
    names = [
        "heart",
        "aorta",
        "trachea",
        "esophagus",
        "spine",
        "sternum",
        "liver",
        "spleen",
        "stomach",
        "kidneys",
    ]
    places = np.array([np.concatenate([own_centre(patient(n), name) for name in names]) for n in range(MANY)])
    frame = np.array(
        [[1, *own_centre(patient(n), "cage"), *own_centre(patient(n), "body")] for n in range(MANY)]
    )
    own = places - frame @ np.linalg.lstsq(frame, places, rcond=None)[0]
    assert (own.std(axis=0) > 1).all()


def test_the_two_kidneys_move_apart():
    points = np.array([(-60.0, 50, -258), (60.0, 50, -244)])
    places = np.array([patient(n).maps["kidneys"].to_patient(points) for n in range(MANY)])
    assert np.corrcoef(places[:, 0, 2], places[:, 1, 2])[0, 1] < 0.75
    assert (places[:, 0, 2] - places[:, 1, 2]).std() > 7


def test_a_carina_lies_at_the_level_that_the_spine_s_map_says():
    levels = [anatomy.carina_level(patient(n)) for n in range(MANY)]
    assert np.isin(levels, (5, 6)).mean() > 0.85  # T5 to T6 in most: Clin Anat 2016;29:165
    assert len(set(levels)) > 1
    # By hand: the plane of the disc below T5 is the eighth, after C5, C6, C7 and T1 to T5.
    one, organ = patient(0), patient(0).maps["spine"]
    silent = replace(organ.noise, coefficients=organ.noise.coefficients * 0)
    for above_disc, level in ((1.0, 5), (-1.0, 6)):
        z = float(skeleton.DISC_PLANES[7]) + above_disc
        plain = anatomy.OrganMap(np.eye(3), np.array([0, 0, z]), silent)
        assert anatomy.carina_level(replace(one, maps={"spine": plain})) == level


def test_scoliosis_bends_the_spine_to_its_side_and_the_cage_less(monkeypatch):
    """By the whole bend at the eighth thoracic vertebra, back a little further down."""
    bent = Variants(scoliosis_mm=20.0)
    levels = np.array([(0.0, 45, -60), (0.0, 45, -250)])
    places = []
    for variants in (NONE, bent):
        monkeypatch.setattr(anatomy, "draw_variants", lambda rng, share, variants=variants: variants)
        one = anatomy.draw_patient(lambda purpose: generator(3, "test", "0", purpose), 0.5)
        places.append([one.maps[name].to_patient(levels)[:, 0] for name in ("spine", "cage")])
    shift = np.array(places[1]) - np.array(places[0])
    assert shift[0, 0] == pytest.approx(20, rel=0.15)
    assert shift[0, 1] < -3
    assert 0 < shift[1, 0] < 0.7 * shift[0, 0]


def test_patients_differ_in_many_ways_that_their_boxes_do_not_tell():
    """With 20 patients, no more than 19 dimensions can be seen: of 100, over 12 are."""
    places = np.array([variation.centres(seen(n)).ravel() for n in range(MANY)])
    sides = np.array([np.concatenate([b.ravel() for b in variation.boxes(seen(n))]) for n in range(MANY)])
    assert variation.effective_dimension(places) > 7
    body, lungs = sides[:, :6].reshape(MANY, 3, 2), sides[:, 6:].reshape(MANY, 3, 2)
    sizes = np.column_stack([np.ptp(body[:, :2], axis=2), np.ptp(lungs, axis=2)])
    offsets = lungs[:, :2].mean(axis=2) - body[:, :2].mean(axis=2)
    assert variation.explained(places, np.column_stack([sizes, offsets])) < 0.5


def test_lungs_fill_the_body_as_in_real_chests():
    """Lung box over body box in real scans: 0.76 +- 0.07 from front to back, 0.72 +- 0.06 from side to side."""
    shares = []
    for n in range(MANY):
        body, lungs = variation.boxes(seen(n))
        shares.append((np.ptp(lungs, axis=1) / np.ptp(body, axis=1))[:2])
    across, deep = np.mean(shares, axis=0)
    assert across == pytest.approx(0.72, abs=0.03)
    assert deep == pytest.approx(0.76, abs=0.035)


def test_an_affine_map_leaves_some_ten_mm_between_patients():
    box = lattice(24, z=(-300, 120))
    rest = [
        variation.affine_residual_mm(*variation.corresponding(patient(n), patient(n + 1), box))
        for n in range(6)
    ]
    assert 6 < np.mean(rest) < 11.5


def test_measures_of_variation_by_hand():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    moved = points @ np.array([[1, 0.2, 0], [0, 1.1, 0], [0.1, 0, 0.9]]) + (3, 4, 5)
    assert variation.affine_residual_mm(points, moved) == pytest.approx(0, abs=1e-9)
    # Two directions of equal variance, and nothing else.
    square = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0.0]])
    assert variation.effective_dimension(square) == pytest.approx(2)
    values = rng.normal(size=(400, 2))
    assert variation.explained(values, values[:, :1]) == pytest.approx(0.5, abs=0.06)
    assert variation.explained(values, rng.normal(size=(400, 3))) == pytest.approx(0, abs=0.02)


def test_a_lung_moves_with_its_diaphragm_and_not_at_its_apex():
    """Atlas positions of the same places: the base by the whole lift, the apex not at all, half way by half."""
    lung = patient(0).maps["lung_right"]
    places = lung.to_patient(np.array([(-62.0, 2.0, 90.0), (-62.0, 2.0, -15.0), (-62.0, 2.0, -150.0)]))
    change = lung.lifted(30.0).noise.at(places) - lung.noise.at(places)
    np.testing.assert_allclose(change[:, :2], 0, atol=1e-5)
    # Turns of the map and the rounded corners of a B-spline account for the rest.
    np.testing.assert_allclose(change[:, 2], (0, -15, -30), atol=3)


def test_lungs_end_at_the_same_place_of_the_atlas_wherever_the_diaphragm_stands():
    for number in range(4):
        one = patient(number)
        top = np.array([(-62.0, 2.0, atlas.DOME_TOP_MM["lung_right"])])
        column = one.maps["lung_right"].to_patient(top)[0]
        here = Lattice(*(np.array([v, v + 1.0]) for v in column))
        assert abs(anatomy.shapes(one, here)["above"][0, 0, 0]) < 3
