"""Trees in general, and those of the lungs."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from sg.cohorts.phantom import anatomy, vessels
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.trees import BRANCHING_POWER, Tree, coverage, grow, radii_of, spread
from sg.cohorts.phantom.variants import LOBES, Variants
from sg.cohorts.phantom.vessels import Trees, at_points, draw_lung_trees, in_lobe, lobe_points
from sg.randomness import generator


def draw(purpose: str) -> np.random.Generator:
    return generator(5, "phantom", "test/0", purpose)


@pytest.fixture(scope="module")
def person() -> tuple[anatomy.Patient, anatomy.Survey, Trees]:
    patient = anatomy.draw_patient(draw, 0.0)
    survey = anatomy.survey(patient)
    return patient, survey, draw_lung_trees(patient, survey, draw)


def rod(radius: float, length: float = 60.0) -> Tree:
    way = np.array([0.3, 0.5, 0.81])
    way /= np.sqrt((way * way).sum())
    r = np.array([radius])
    return Tree((-way * length / 2)[None], (way * length / 2)[None], r, r)


def volume_mm3(tree: Tree, spacing: float) -> float:
    axis = np.arange(-45, 45, spacing)
    return float(coverage(tree, Lattice(axis, axis, axis)).sum() * spacing**3)


@pytest.mark.parametrize("spacing", [0.7, 1.5, 3.0])
@pytest.mark.parametrize("radius", [0.3, 1.0, 4.0])
def test_a_vessel_keeps_its_volume_whatever_the_voxels(radius, spacing):
    length = 60.0
    ends = (
        4 / 3 * max(radius, 0.55 * spacing) * radius**2
    )  # rounded, thin ones as wide as they are drawn: pi r^2 4/3 R
    assert volume_mm3(rod(radius), spacing) == pytest.approx(np.pi * (radius**2 * length + ends), rel=0.06)


def test_overlapping_pieces_count_once():
    one = rod(2.0)
    assert (coverage(Tree.of([one, one]), cube()) == coverage(one, cube())).all()


def cube() -> Lattice:
    axis = np.arange(-45.0, 45, 3)
    return Lattice(axis, axis, axis)


def test_every_leaf_hangs_on_the_root_and_parents_come_first():
    rng = np.random.default_rng(0)
    leaves = rng.uniform(-50, 50, (300, 3))
    nodes, parents = grow(np.zeros(3), leaves, rng)
    assert (nodes[0] == 0).all()
    assert parents[0] == -1
    assert (parents[1:] < np.arange(1, len(parents))).all()
    ends = nodes[np.setdiff1d(np.arange(len(nodes)), parents)]
    assert {tuple(end) for end in ends} == {tuple(leaf) for leaf in leaves}
    # A binary tree of n leaves has n - 1 forks; the root has one branch.
    assert np.count_nonzero(np.bincount(parents[1:]) == 2) == len(leaves) - 1


def test_one_leaf_makes_one_straight_short_branch():
    nodes, parents = grow(np.zeros(3), np.array([[3.0, 0, 0]]), np.random.default_rng(0))
    assert nodes.tolist() == [[0, 0, 0], [3, 0, 0]]
    assert parents.tolist() == [-1, 0]


def test_the_fork_of_two_equal_leaves_lies_half_way_between_them():
    nodes, parents = grow(np.zeros(3), np.array([[5.0, 2, 0], [5.0, -2, 0]]), np.random.default_rng(0))
    fork = nodes[parents == 0][0]
    assert np.allclose(fork[1:], 0, atol=0.05)
    assert 0 < fork[0] < 5


def test_a_tree_is_short_and_so_are_the_ways_from_its_root():
    """Between the two extremes: the minimum spanning tree, which has the least length, and straight ways to each leaf."""
    root, leaves = np.array([-60.0, 0, 0]), np.random.default_rng(4).uniform(-50, 50, (200, 3))
    nodes, parents = grow(root, leaves, np.random.default_rng(0))
    pieces = np.sqrt(((nodes[1:] - nodes[parents[1:]]) ** 2).sum(axis=1))
    everything = np.vstack([root, leaves])
    assert pieces.sum() < 1.8 * minimum_spanning_tree(cdist(everything, everything)).sum()
    way = np.zeros(len(nodes))
    for node in range(1, len(nodes)):
        way[node] = way[parents[node]] + pieces[node - 1]
    straight = np.sqrt(((nodes - root) ** 2).sum(axis=1))
    ends = np.setdiff1d(np.arange(len(nodes)), parents)
    assert (way[ends] / straight[ends]).mean() < 1.5


def test_radii_follow_murray():
    # 0 - 1 - (2, 3 - (4, 5)): three leaves beyond 1, two beyond 3
    radii = radii_of(np.array([-1, 0, 1, 1, 3, 3]), 0.5)
    leaf = 0.5**BRANCHING_POWER
    assert radii == pytest.approx((np.array([3, 3, 1, 2, 1, 1]) * leaf) ** (1 / BRANCHING_POWER))


def test_spread_chooses_each_point_once_and_the_first_far_apart():
    points = np.random.default_rng(0).uniform(0, 100, (2000, 3))
    chosen = spread(points, 1500, np.random.default_rng(1))
    assert len(np.unique(chosen, axis=0)) == 1500

    def least_gap(some: np.ndarray) -> float:
        gaps = np.sqrt(((some[:, None] - some[None]) ** 2).sum(axis=2))
        return float(gaps[np.triu_indices(len(some), 1)].min())

    assert least_gap(chosen[:20]) > 2 * least_gap(chosen[-20:])


def test_vessels_fill_both_lungs_up_to_the_pleura(person):
    _, survey, trees = person
    lungs = np.minimum(survey.d["lung_right"], survey.d["lung_left"])
    nodes = np.argwhere(lungs < -6)[::7]
    places = np.column_stack(
        [
            axis[nodes[:, 2 - k]]
            for k, axis in enumerate((survey.lattice.x, survey.lattice.y, survey.lattice.z))
        ]
    )
    ends = trees.blood.end
    gaps = np.array([np.sqrt(((ends - place) ** 2).sum(axis=1).min()) for place in places])
    assert (
        np.percentile(gaps, 95) < 10
    )  # no place is far from a vessel, as about secondary lobules of 10 to 25 mm
    depth = at_points(lungs, survey.lattice, ends)
    assert (depth < 0).mean() > 0.95


def test_arteries_and_veins_of_a_lobe_stay_on_its_side_of_the_fissures(person):
    _, survey, _ = person
    for lung, lobes in LOBES.items():
        points = lobe_points(survey, lung, np.random.default_rng(0))
        assert set(points) == set(lobes)
        for lobe, here in points.items():
            d = {name: at_points(survey.d[name], survey.lattice, here) for name in vessels.FISSURES[lung]}
            assert in_lobe(lobe, d).all()
            assert all((at_points(survey.d[lung], survey.lattice, here) < -vessels.LEAF_DEPTH_MM[0]).tolist())


def test_airways_are_two_thirds_of_their_outer_width():
    lumen = np.array([1.0, 2.0, 4.0])
    share = lumen / (lumen + vessels.wall_mm(lumen))
    assert ((share > 0.6) & (share < 0.72)).all()


def test_the_lobar_part_follows_the_atlas_and_the_rest_is_the_persons_own(person):
    patient, survey, trees = person
    other = draw_lung_trees(patient, survey, lambda purpose: generator(6, "phantom", "test/0", purpose))
    for kind in (vessels.ARTERIES, vessels.VEINS):
        for lung, sources in kind.items():
            for source in sources:
                ends = patient.maps[lung].to_patient(np.array(list(source.stems.values()), float))
                for end in ends:
                    for one in (trees, other):
                        assert np.sqrt(((one.blood.end - end) ** 2).sum(axis=1)).min() < 1e-6
    mine = {tuple(end) for end in trees.blood.end}
    shared = sum(tuple(end) in mine for end in other.blood.end)
    assert shared == 10  # five lobes, artery and vein


def test_the_same_person_has_the_same_trees(person):
    patient, survey, trees = person
    again = draw_lung_trees(patient, survey, draw)
    for name in ("start", "end", "r_start", "r_end"):
        assert (getattr(again.blood, name) == getattr(trees.blood, name)).all()
        assert (getattr(again.air, name) == getattr(trees.air, name)).all()


def test_a_removed_lobe_has_no_vessels(person):
    patient, _, trees = person
    without = dataclasses.replace(patient, variants=Variants(removed_lobe="lung_left_lower"))
    fewer = draw_lung_trees(without, anatomy.survey(without), draw)
    stem = np.array([vessels.ARTERIES["lung_left"][1].stems["lung_left_lower"]], float)
    where = patient.maps["lung_left"].to_patient(stem)[0]

    def has(one: Trees) -> bool:
        return bool((np.sqrt(((one.blood.end - where) ** 2).sum(axis=1)) < 1e-6).any())

    assert has(trees)
    assert not has(fewer)
