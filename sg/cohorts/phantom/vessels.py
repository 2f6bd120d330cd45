"""The vessel trees and airways inside the lungs.

As far as the lobes, arteries, veins and bronchi follow the atlas, by the maps of the lung and of what they come from:
in everybody the same but for those maps. Beyond, they are each patient's own: every lobe is filled with leaves, evenly
spread, and its trees grow towards these. Airways run beside the arteries; the veins' leaves lie between the arteries'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.anatomy import SURVEY_MM, Draw, Patient, Survey
from sg.cohorts.phantom.atlas import GREAT_VESSELS, PULMONARY_ARTERY
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.trees import Tree, grow, radii_of, spread
from sg.cohorts.phantom.variants import LOBES


@dataclass(frozen=True)
class Trees:
    """The vessels and the small airways of both lungs; airways by the radius of what is open."""

    arteries: Tree
    veins: Tree
    air: Tree

    @cached_property
    def blood(self) -> Tree:
        """All vessels."""
        return Tree.of([self.arteries, self.veins])


@dataclass(frozen=True)
class Source:
    """Where vessels enter a lung: the end of one of the atlas' great vessels, by the heart's map.

    `stems` lead on to the lobes that it feeds or drains, to atlas positions by the lung's map.
    """

    at: np.ndarray
    stems: dict[str, tuple[float, float, float]]


# Lobar branching as in anatomy textbooks: on the right the upper lobe's artery leaves before the hilum, on the left the
# artery rides over the bronchus; upper veins run in front, lower ones below and behind. The great vessels' ends follow
# the heart, as its atlas has them.
_ARTERY = [path[-1] for path, _ in PULMONARY_ARTERY]
_VEIN = [path[-1] for _, (path, _) in GREAT_VESSELS[:4]]
ARTERIES = {
    "lung_right": (
        Source(_ARTERY[2], {"lung_right_upper": (-52, -2, 14)}),
        Source(_ARTERY[3], {"lung_right_middle": (-58, -12, -56), "lung_right_lower": (-50, 26, -70)}),
    ),
    "lung_left": (
        Source(_ARTERY[5], {"lung_left_upper": (53, 4, 14)}),
        Source(_ARTERY[6], {"lung_left_lower": (53, 28, -66)}),
    ),
}
VEINS = {
    "lung_right": (
        Source(_VEIN[0], {"lung_right_upper": (-53, -14, -6), "lung_right_middle": (-54, -18, -60)}),
        Source(_VEIN[1], {"lung_right_lower": (-49, 28, -76)}),
    ),
    "lung_left": (
        Source(_VEIN[2], {"lung_left_upper": (53, -14, -10)}),
        Source(_VEIN[3], {"lung_left_lower": (50, 32, -76)}),
    ),
}
# Lobar bronchi: from a place by the windpipe's map to one by the lung's.
BRONCHI = {
    "lung_right": (
        ("lung_right_upper", (-18, 19, -16), (-46, 10, 2)),
        ("lung_right_middle", (-36, 18, -34), (-50, -4, -56)),
        ("lung_right_lower", (-36, 18, -34), (-44, 32, -72)),
    ),
    "lung_left": (
        ("lung_left_upper", (42, 18, -32), (55, 4, -10)),
        ("lung_left_lower", (42, 18, -32), (47, 36, -68)),
    ),
}
# Leaves of one kind of vessel in a ml of lung, and their radius: so that vessels' shares of the lung at every depth are
# those of real scans at 3 mm (docs/phantom.md).
LEAVES_PER_ML = 1.7
LEAF_RADIUS_MM = 0.45
LEAF_DEPTH_MM = (0.8, 0.8)  # least distance of a leaf to the pleura, and the mean of what comes on top
DENSE_MM = 20.0  # leaves stand densest within a fifth of this from the pleura, half as dense in the middle
POINTS_PER_NODE = 2
AIRWAY_LEAST_MM = 1.3  # narrower airways are not seen
# Inner diameter of a bronchus over that of the artery beside it: 0.62 +- 0.13 (J Comput Assist Tomogr 1997;21:306), 0.79
# +- 0.16 (Diaz et al., Respirology 2017;22:108).
AIRWAY_TO_ARTERY = 0.72


def wall_mm(lumen_mm: np.ndarray) -> np.ndarray:
    """How thick an airway's wall is at a radius of its lumen, mm.

    So that the lumen is about two thirds of the outer diameter (0.66 +- 0.06: Kim et al., J Comput Assist Tomogr
    1995;19:365), and walls of segmental bronchi are 1.0 to 1.1 mm thick (1.12 +- 0.19 mm: J Comput Assist Tomogr
    1997;21:306).
    """
    return 0.25 + 0.35 * lumen_mm


def draw_lung_trees(patient: Patient, survey: Survey, draw: Draw) -> Trees:
    """All trees of a person's lungs, in patient coordinates."""
    arteries: list[Tree] = []
    veins: list[Tree] = []
    air: list[Tree] = []
    for lung in LOBES:
        rng = draw(f"{lung}/trees")
        points = lobe_points(survey, lung, rng)
        leaves = {lobe: _leaves(here, rng) for lobe, here in points.items()}
        leaf_mm = LEAF_RADIUS_MM * float(np.exp(rng.normal(0, 0.06)))
        for number, kind in enumerate((ARTERIES, VEINS)):
            for source in kind[lung]:
                mine = {lobe: leaves[lobe][number::2] for lobe in source.stems if lobe in leaves}
                if mine:
                    grown = _grown(patient, lung, source, mine, rng)
                    radii = radii_of(grown.parents, leaf_mm)
                    (arteries if kind is ARTERIES else veins).append(_pieces(grown, radii))
                    if kind is ARTERIES:
                        air.append(_airways(patient, lung, grown, radii))
    return Trees(Tree.of(arteries), Tree.of(veins), Tree.of(air))


# ------------------------------------------------------------------------------------------------ lobes


def in_lobe(lobe: str, d: dict[str, np.ndarray]) -> np.ndarray:
    """Whether points lie on a lobe's side of the fissures; `d` holds the fissures' signed distances there."""
    if lobe.startswith("lung_left"):
        below = d["fissure_left_oblique"] >= 0
        return below if lobe == "lung_left_lower" else ~below
    below = d["fissure_right_oblique"] >= 0
    if lobe == "lung_right_lower":
        return below
    above = d["fissure_right_horizontal"] < 0
    return ~below & (above if lobe == "lung_right_upper" else ~above)


FISSURES = {
    "lung_right": ("fissure_right_oblique", "fissure_right_horizontal"),
    "lung_left": ("fissure_left_oblique",),
}


def lobe_points(survey: Survey, lung: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Positions (n, 3) where leaves may stand in each lobe, some to each node of the survey; no lobe without any."""
    lattice = survey.lattice
    z, y, x = (np.repeat(index, POINTS_PER_NODE) for index in np.nonzero(survey.d[lung] < 4))
    points = np.column_stack([lattice.x[x], lattice.y[y], lattice.z[z]])
    points = points + rng.uniform(-0.5, 0.5, points.shape) * lattice.spacing_mm
    least = LEAF_DEPTH_MM[0] + rng.exponential(LEAF_DEPTH_MM[1], len(points))
    names = (lung, *FISSURES[lung])
    here = {name: at_points(survey.d[name], lattice, points) for name in names}
    deep = (here[lung] < -least) & (rng.random(len(points)) < np.clip(1.2 + here[lung] / DENSE_MM, 0.5, 1))
    for name in FISSURES[lung]:  # few vessels run close to a fissure
        deep &= np.abs(here[name]) > 2.5
    chosen = {lobe: points[deep & in_lobe(lobe, here)] for lobe in LOBES[lung]}
    return {lobe: found for lobe, found in chosen.items() if len(found) >= 8}


def at_points(field: np.ndarray, lattice: Lattice, points: np.ndarray) -> np.ndarray:
    """A field (z, y, x) at points (n, 3), linear between the lattice's nodes."""
    origin = np.array([lattice.x[0], lattice.y[0], lattice.z[0]])
    index = ((points - origin) / lattice.spacing_mm).T[::-1]
    return ndimage.map_coordinates(field, index, order=1, mode="nearest")


def _leaves(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Leaves of arteries and veins, in turn, from where they may stand."""
    ml = len(points) * SURVEY_MM**3 / 1000 / POINTS_PER_NODE
    return spread(points, 2 * max(int(LEAVES_PER_ML * ml), 2), rng)


# ------------------------------------------------------------------------------------------------ trees


@dataclass(frozen=True)
class Grown:
    """A tree's nodes (n, 3), each one's parent, and the lobe in which it is a patient's own ("" for the atlas' part)."""

    nodes: np.ndarray
    parents: np.ndarray
    lobes: np.ndarray


def _grown(
    patient: Patient, lung: str, source: Source, leaves: dict[str, np.ndarray], rng: np.random.Generator
) -> Grown:
    """The tree of one source, to the leaves of the lobes it leads to."""
    nodes = [patient.maps["heart"].to_patient(source.at[None])]
    parents, lobes = [np.array([-1])], [""]
    for lobe, points in leaves.items():
        first = len(lobes)
        end = patient.maps[lung].to_patient(np.array([source.stems[lobe]], float))
        grown, below = grow(end[0], points, rng)
        nodes.append(grown)
        parents.append(np.where(below < 0, 0, below + first))
        lobes += ["", *[lobe] * (len(grown) - 1)]
    return Grown(np.vstack(nodes), np.concatenate(parents), np.array(lobes))


def _pieces(grown: Grown, radii: np.ndarray) -> Tree:
    """The pieces between nodes and their parents; the last ones taper."""
    nodes, parents = grown.nodes, grown.parents
    child = np.flatnonzero(parents >= 0)
    leaf = np.ones(len(parents), bool)
    leaf[parents[child]] = False
    r = radii[child]
    return Tree(
        nodes[parents[child]],
        nodes[child],
        np.minimum(radii[parents[child]], 1.12 * r),
        np.where(leaf[child], 0.75, 1.0) * r,
    )


def _airways(patient: Patient, lung: str, grown: Grown, radii: np.ndarray) -> Tree:
    """The lobar bronchi by the atlas, and the airways beside the arteries as far as they are wide enough to be seen."""
    parents, lumen = grown.parents, AIRWAY_TO_ARTERY * radii
    where = _beside(grown.nodes, parents, radii + lumen + wall_mm(lumen))
    trees = []
    for lobe, start, end in BRONCHI[lung]:
        mine = np.flatnonzero(grown.lobes == lobe)
        if len(mine) > 0:
            stem = parents[mine[0]]
            where[stem] = patient.maps[lung].to_patient(np.array([end], float))[0]
            first = patient.maps["trachea"].to_patient(np.array([start], float))
            wide = mine[lumen[mine] > AIRWAY_LEAST_MM]
            r = lumen[wide]
            trees.append(Tree(first, where[[stem]], 1.15 * lumen[[stem]], lumen[[stem]]))
            trees.append(
                Tree(where[parents[wide]], where[wide], np.minimum(lumen[parents[wide]], 1.1 * r), r)
            )
    return Tree.of(trees)


def _beside(nodes: np.ndarray, parents: np.ndarray, gap_mm: np.ndarray) -> np.ndarray:
    """Points beside the nodes, at right angles to the branch that ends there, towards the lung's middle and back."""
    way = nodes - nodes[np.maximum(parents, 0)]
    way /= np.maximum(np.sqrt((way * way).sum(axis=1)), 1e-6)[:, None]
    towards = np.array([-np.sign(nodes[:, 0].mean()) * 0.6, 0.7, 0.4])
    aside = towards - way * (way * towards).sum(axis=1)[:, None]
    aside /= np.maximum(np.sqrt((aside * aside).sum(axis=1)), 1e-6)[:, None]
    return nodes + aside * gap_mm[:, None]
