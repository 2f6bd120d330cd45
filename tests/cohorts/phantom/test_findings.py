"""Findings: that they are where, as large and as many as they are said to be."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sg.cohorts.phantom import anatomy, findings, vessels
from sg.cohorts.phantom.canvas import LABEL, Canvas
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.findings import Findings
from sg.cohorts.phantom.lesions import SIZE_MM, draw_lesions
from sg.cohorts.phantom.look_alikes import GAP_MM, branching, crossings
from sg.cohorts.phantom.nodules import draw_diameter, draw_nodule, draw_nodules
from sg.cohorts.phantom.opacities import Opacity, Organ, Piece, Strand, measured, organ_around
from sg.cohorts.phantom.painting.findings import filled, paint_findings
from sg.cohorts.phantom.person import Person
from sg.cohorts.phantom.places import Ground
from sg.cohorts.phantom.scene import Scene
from sg.cohorts.phantom.trees import Tree
from sg.errors import InputError
from sg.params import ChestPhantoms, LiverPhantoms, PhantomShared
from sg.randomness import generator

SHARED = PhantomShared(
    spacing_xy_mm=(3.0, 3.0),
    spacing_z_mm=(3.0, 3.0),
    noise_hu=(10.0, 30.0),
    chest_range_mm=(-208.0, 107.0),
    abdomen_range_mm=(-328.0, -58.0),
    parts=0.0,
    oblique_deg=0.0,
    nodule_mm=(4.0, 30.0),
    variants=0.0,
    truth_grid_mm=20.0,
)
CHEST = ChestPhantoms(
    layout="luna16", train=1, validation=0, test=0, nodules=(3, 3), candidates=40, twins_of=None, twins=0
)
LIVER = LiverPhantoms(layout="decathlon-liver", train=1, validation=0, test=0, lesions=(3, 3))


def draw(purpose: str) -> np.random.Generator:
    return generator(3, "phantom", "test/0", purpose)


@cache
def body() -> tuple:
    patient = anatomy.draw_patient(draw, 0.0)
    survey = anatomy.survey(patient)
    return patient, survey, vessels.draw_lung_trees(patient, survey, draw)


@cache
def found(candidates: int = 40) -> Findings:
    recipe = CHEST.model_copy(update={"candidates": candidates})
    return findings.draw_findings(*body(), recipe, SHARED, draw)


@cache
def ground() -> Ground:
    return Ground(body()[1])


def axes(low: float, high: float, step: float) -> np.ndarray:
    return np.arange(low, high + step / 2, step)


BOX = Lattice(*(axes(-14, 14, 0.5),) * 3)


def ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Piece:
    return Piece(np.array(centre), (radius,) * 3, np.eye(3))


def opacity(*pieces: Piece | Strand, organ: Organ | None = None) -> Opacity:
    return Opacity("solid", np.zeros(3), 0.0, pieces, 30.0, organ)


# ------------------------------------------------------------------------------------------ opacities


def test_the_distance_to_a_ball_is_exact():
    z, y, x = np.meshgrid(*BOX.axes, indexing="ij")
    np.testing.assert_allclose(
        opacity(ball(5.0)).distance(BOX), np.sqrt(x * x + y * y + z * z) - 5, atol=0.01
    )


def test_a_ball_measures_its_own_diameter():
    assert measured(opacity(ball(6.0))).diameter_mm == pytest.approx(12.0, rel=0.02)


def test_what_the_pleura_cuts_off_does_not_count():
    # Lung where x < -0.5: with the overlap of 0.5 mm the pleura passes through the ball's middle.
    x = np.broadcast_to(BOX.grids[0] + np.float32(0.5), BOX.shape)
    half = measured(opacity(ball(6.0), organ=Organ(BOX, x.astype(np.float32))))
    assert half.diameter_mm == pytest.approx(12 / 2 ** (1 / 3), rel=0.03)
    # The centre of mass of half a ball is 3/8 of its radius from the cut.
    np.testing.assert_allclose(half.centre_mm, (-3 / 8 * 6, 0, 0), atol=0.2)


def test_the_centre_of_a_bent_thing_lies_inside_it():
    corner = opacity(
        Strand(np.array([-10.0, 0, 0]), np.array([0.0, 10, 0]), 1.5, 1.5),
        Strand(np.array([10.0, 0, 0]), np.array([0.0, 10, 0]), 1.5, 1.5),
    )
    seen = measured(corner)
    x, y, z = (np.array([c, c + 1]) for c in seen.centre_mm)
    assert corner.distance(Lattice(x, y, z))[0, 0, 0] < 0


def test_scaling_an_opacity_scales_its_distances():
    drawn = draw_nodule(np.random.default_rng(1), "solid", np.zeros(3), 12.0)
    larger = Lattice(*(2 * axis for axis in (BOX.x, BOX.y, BOX.z)))
    near = drawn.distance(BOX) < 1.9  # strands are looked at nearby only
    np.testing.assert_allclose(
        drawn.scaled(2.0).distance(larger)[near], 2 * drawn.distance(BOX)[near], atol=1e-3
    )


def test_an_organ_around_a_point_is_the_organ():
    ball_mm = opacity(ball(9.0)).distance(BOX)
    part = organ_around(ball_mm, BOX, np.array([2.0, 1, 0]), 3.0)
    here = Lattice(axes(0, 4, 0.5), axes(-1, 3, 0.5), axes(-2, 2, 0.5))
    assert part.distance.size < ball_mm.size / 20
    np.testing.assert_allclose(part.on(here), opacity(ball(9.0)).distance(here), atol=0.05)


@pytest.mark.parametrize("radius", [1.5, 4.0])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (0.7, 0.7, 2.5)])
def test_a_ball_keeps_its_volume_in_voxels_of_any_size(radius, spacing):
    lattice = Lattice(*(axes(-9.3, 9, step) for step in spacing))
    share = filled(opacity(ball(radius)).distance, lattice, spacing, 0.8, 0.0)
    assert share.sum() * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.08)


# -------------------------------------------------------------------------------------------- nodules


def test_nodules_lie_in_the_lungs_and_are_as_large_as_they_say():
    nodules = draw_nodules(np.random.default_rng(5), 12, (4.0, 30.0), ground(), body()[2].blood)
    assert len(nodules) == 12
    for nodule in nodules:
        assert 4 <= nodule.diameter_mm <= 30
        low, high = nodule.box_mm
        step = nodule.diameter_mm / 24
        lattice = Lattice(*(axes(a, b, step) for a, b in zip(low, high, strict=True)))
        inside = nodule.distance(lattice) < 0
        assert (6 * inside.sum() * step**3 / np.pi) ** (1 / 3) == pytest.approx(nodule.diameter_mm, rel=0.06)
        z, y, x = np.nonzero(inside)
        points = np.column_stack([lattice.x[x], lattice.y[y], lattice.z[z]])
        assert ground().at(ground().lungs_mm, points).max() < 0.6


def test_nodules_keep_clear_of_each_other():
    nodules = draw_nodules(np.random.default_rng(6), 12, (4.0, 30.0), ground(), body()[2].blood)
    centres = np.array([n.centre_mm for n in nodules])
    gaps = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(axis=2))
    assert gaps[~np.eye(12, dtype=bool)].min() > 8


def test_half_of_the_solid_nodules_are_smaller_than_half_of_lunas():
    rng = np.random.default_rng(0)
    drawn = [draw_diameter(rng, "solid", (0.1, 100.0)) for _ in range(2000)]
    assert np.median(drawn) == pytest.approx(6.4, rel=0.06)


@pytest.mark.parametrize(
    ("kind", "texture", "calcified"),
    [
        ("solid", (5,), False),
        ("calcified", (5,), True),
        ("part-solid", (3, 4), False),
        ("ground-glass", (1, 2), False),
    ],
)
def test_ratings_follow_from_the_type(kind, texture, calcified):
    rng = np.random.default_rng(2)
    for _ in range(20):
        nodule = draw_nodule(rng, kind, np.zeros(3), 14.0)
        assert nodule.texture in texture
        assert nodule.calcified == calcified
        assert (nodule.hu < -300) == (kind in ("part-solid", "ground-glass"))
        assert bool(nodule.cores) or kind != "part-solid"


def test_nodules_that_do_not_fit_are_refused_in_words(monkeypatch):
    monkeypatch.setattr("sg.cohorts.phantom.places.TRIES", 15)
    with pytest.raises(InputError, match="room for the lung nodules"):
        draw_nodules(np.random.default_rng(0), 8, (119.0, 120.0), ground(), body()[2].blood)


# --------------------------------------------------------------------------------------- look-alikes


def test_as_many_look_alikes_as_asked_for_stand_apart_and_clear_of_nodules():
    for count in (0, 40, 600):
        here = found(count)
        assert len(here.look_alikes) == count
        if count:
            centres = np.array([place.centre_mm for place in here.look_alikes])
            gaps = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(axis=2)) + 99 * np.eye(count)
            assert gaps.min() >= GAP_MM
            for nodule in here.nodules:
                away = np.sqrt(((centres - nodule.centre_mm) ** 2).sum(axis=1))
                assert away.min() >= GAP_MM + nodule.diameter_mm / 2


def test_the_body_is_the_same_however_many_candidates_are_listed():
    few, many = found(0), found(600)
    for name in ("nodules", "drawn", "candidates"):
        assert len(getattr(few, name)) == len(getattr(many, name)) > 0
    for one, other in zip([*few.nodules, *few.drawn], [*many.nodules, *many.drawn], strict=True):
        np.testing.assert_array_equal(one.distance(BOX), other.distance(BOX))


def test_look_alikes_that_do_not_fit_are_refused_in_words(monkeypatch):
    monkeypatch.setattr("sg.cohorts.phantom.look_alikes.GAP_MM", 60.0)
    with pytest.raises(InputError, match="room for the look-alikes"):
        findings.draw_findings(*body(), CHEST, SHARED, draw)


def test_forks_bends_and_crossings_of_a_small_tree():
    # A trunk along z forks at (0, 0, 10); one branch bends at (10, 0, 20); a vessel passes the trunk 3 mm beside it.
    start = np.array([(0, 0, 0), (0, 0, 10), (0, 0, 10), (10, 0, 20), (-5, 3, 5)], float)
    end = np.array([(0, 0, 10), (10, 0, 20), (-10, 0, 20), (20, 0, 12), (5, 3, 5)], float)
    tree = Tree(start, end, np.full(5, 2.0), np.full(5, 2.0))
    forks, bends = branching(tree, 1.0)
    np.testing.assert_array_equal(forks, [(0, 0, 10)])
    np.testing.assert_array_equal(bends, [(10, 0, 20)])
    np.testing.assert_array_equal(crossings(tree, 1.0), [(0, 1.5, 5)])
    assert len(branching(tree, 2.5)[0]) == len(crossings(tree, 2.5)) == 0


def test_a_detector_finds_every_nodule_within_its_radius_and_some_twice():
    nodules = draw_nodules(np.random.default_rng(7), 12, (4.0, 30.0), ground(), body()[2].blood)
    seen = findings._detected(nodules * 40, np.random.default_rng(0))
    for nodule, places in zip(nodules * 40, seen, strict=True):
        for place in places:
            away = np.sqrt(((place.centre_mm - nodule.centre_mm) ** 2).sum())
            assert place.kind == "nodule"
            assert away < nodule.diameter_mm / 2
    # LUNA16: 1,557 for 1,166; 480 draws of that share have a standard deviation of 0.022.
    assert np.mean([len(places) for places in seen]) == pytest.approx(1557 / 1166, abs=0.07)


# ---------------------------------------------------------------------------------------- what is seen


def painted(spacing: tuple[float, float, float], centre: np.ndarray, one: Findings) -> Canvas:
    """A small canvas of lung around a point with these findings on it."""
    lattice = Lattice(*(c + s * (np.arange(20) - 9.37) for c, s in zip(centre, spacing, strict=True)))
    canvas = Canvas(lattice, lattice.coarser(2))
    canvas.hu[:] = -850
    patient, survey, trees = body()
    scene = Scene(canvas, Person(patient, survey, trees, one, draw), {}, {"liver": 100.0})
    paint_findings(scene)
    return canvas


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.5), (3.0, 3.0, 3.0), (2.4, 2.4, 10.0)])
def test_the_voxel_of_a_nodules_centre_bears_its_label_whatever_the_spacing(spacing):
    for nodule in draw_nodules(np.random.default_rng(8), 4, (3.0, 5.0), ground(), body()[2].blood):
        # The centre lies at the same place between voxels as the lattice's point 9.37.
        canvas = painted(spacing, nodule.centre_mm, Findings([nodule], [], [], [], []))
        assert canvas.labels[9, 9, 9] == LABEL["nodule"]


def test_vessels_are_seen_through_ground_glass_and_not_through_solid_nodules():
    for kind, seen in (("ground-glass", True), ("solid", False)):
        nodule = draw_nodule(np.random.default_rng(3), kind, np.zeros(3), 20.0)
        lattice = Lattice(*(axes(-24, 24, 2.0),) * 3)
        canvas = Canvas(lattice, lattice.coarser(2))
        canvas.hu[:] = -850
        canvas.hu[:, 12, 12] = 200  # a vessel along z
        patient, survey, trees = body()
        person = Person(patient, survey, trees, Findings([nodule], [], [], [], []), draw)
        paint_findings(Scene(canvas, person, {}, {"liver": 100.0}))
        assert (canvas.hu[12, 12, 12] > 150) == seen


# --------------------------------------------------------------------------------------------- lesions


def test_lesions_lie_in_the_liver_and_are_darker_but_for_rims():
    lesions = draw_lesions(np.random.default_rng(4), 16, ground())
    for lesion in lesions:
        assert SIZE_MM[0] <= lesion.diameter_mm <= SIZE_MM[1] * 1.2
        assert min(lesion.hu, lesion.core_hu) < -5
        low, high = lesion.box_mm
        lattice = Lattice(*(axes(a, b, lesion.diameter_mm / 12) for a, b in zip(low, high, strict=True)))
        z, y, x = np.nonzero(lesion.distance(lattice) < 0)
        points = np.column_stack([lattice.x[x], lattice.y[y], lattice.z[z]])
        assert ground().at(ground().d["liver"], points).max() < 0.6


def test_a_cyst_stays_near_water_whatever_the_contrast_does_to_the_liver():
    here = findings.draw_findings(*body(), LIVER, SHARED, draw)
    cyst = next(
        one
        for seed in range(40)
        for one in draw_lesions(np.random.default_rng(seed), 3, ground())
        if one.kind == "cyst" and one.diameter_mm > 12
    )
    assert len(here.lesions) == 3
    canvas = painted((2.0, 2.0, 2.0), cyst.centre_mm, Findings([], [cyst], [], [], []))
    assert canvas.hu[9, 9, 9] == pytest.approx(8, abs=45)
    assert canvas.labels[9, 9, 9] == LABEL["liver_lesion"]
