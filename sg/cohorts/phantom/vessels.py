"""The vessel trees and airways inside the lungs.

A tree grows from the hilum towards leaves spread over the lung, splitting them in two as it goes, so that it fills
its lung. About half of the leaves stand at the same atlas positions in everybody (give or take some millimetres),
the others are the patient's own: large branches agree between patients, small ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from sg.cohorts.phantom.anatomy import Patient
from sg.cohorts.phantom.atlas import above_dome, cavity, heart, lung_sides
from sg.cohorts.phantom.fields import Lattice
from sg.randomness import generator

HILA = {
    "lung_right": {"artery": (-33, 4, -15), "vein": (-30, 6, -40)},
    "lung_left": {"artery": (39, 12, -8), "vein": (34, 8, -40)},
}
LEAVES_SHARED = 70
LEAVES_OWN = 70
LEAF_RADIUS_MM = 1.1
BRANCHING_POWER = 2.6  # a parent's radius to this power is the sum of its children's


@dataclass(frozen=True)
class Tree:
    """Straight pieces of vessel in the patient: from `start` (n, 3) to `end`, radii `r_start` and `r_end` (n), mm."""

    start: np.ndarray
    end: np.ndarray
    r_start: np.ndarray
    r_end: np.ndarray

    @staticmethod
    def of(trees: list[Tree]) -> Tree:
        return Tree(
            *(np.concatenate([getattr(t, f) for t in trees]) for f in ("start", "end", "r_start", "r_end"))
        )


def draw_trees(patient: Patient, lung: str, rng: np.random.Generator) -> tuple[Tree, Tree]:
    """The vessels and the small airways of one lung (`lung_right` or `lung_left`), in the patient."""
    vessels = []
    airways: list[Tree] = []
    for kind, root in HILA[lung].items():
        shared = _shared_leaves(lung, kind)
        leaves = np.vstack([shared + rng.normal(0, 3.5, shared.shape), _leaves(lung, LEAVES_OWN, rng)])
        nodes, parents = grow(np.array(root, float) + rng.normal(0, 2, 3), leaves, rng)
        radii = radii_of(parents) * np.exp(rng.normal(0, 0.08))
        where = patient.maps[lung].to_patient(nodes)
        children = np.flatnonzero(parents >= 0)
        vessels.append(
            Tree(where[parents[children]], where[children], radii[children] * 1.08, radii[children])
        )
        if kind == "artery":
            # Airways run along the arteries, as long as they are wide enough to be seen.
            wide = children[radii[children] > 1.9]
            beside = patient.maps[lung].to_patient(nodes + (0, 3.0, 2.0) + radii[:, None] * (0.25, 0.7, 0.5))
            airways.append(Tree(beside[parents[wide]], beside[wide], radii[wide] * 0.85, radii[wide] * 0.75))
    return Tree.of(vessels), Tree.of(airways)


@cache
def _shared_leaves(lung: str, kind: str) -> np.ndarray:
    """Atlas positions of the leaves that everybody has: the same in every study, whatever its seed."""
    return _leaves(lung, LEAVES_SHARED, generator(0, "phantom", "atlas", f"{lung}/{kind}"))


def _leaves(lung: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions spread over the atlas lung, (count, 3): each the farthest of some draws from those before it."""
    drawn = rng.uniform((-125, -80, -200), (125, 85, 100), (count * 40, 3))
    left = lung == "lung_left"
    drawn = drawn[(drawn[:, 0] > 0) == left]
    a = tuple(column.astype(np.float32) for column in drawn.T)
    depth = np.maximum(np.maximum(cavity(a) + 2.5, lung_sides(a, left)), above_dome(a, left) + 2)
    inside = drawn[np.maximum(depth, -heart(a)) < -4]
    chosen = [inside[0]]
    rest = inside[1:]
    nearest = np.full(len(rest), np.inf)
    for number in range(1, count):
        nearest = np.minimum(nearest, ((rest - chosen[-1]) ** 2).sum(axis=1))
        pool = slice((number * 7) % max(len(rest) - 12, 1), None)
        candidates = np.arange(len(rest))[pool][:12]
        chosen.append(rest[candidates[np.argmax(nearest[candidates])]])
    return np.array(chosen)


def grow(root: np.ndarray, leaves: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 3) of a tree and the index of each one's parent (-1 for the root)."""
    nodes, parents = [root], [-1]
    waiting = [(0, np.arange(len(leaves)))]
    while waiting:
        parent, mine = waiting.pop()
        points = leaves[mine]
        here = nodes[parent]
        target = points[0] if len(mine) == 1 else points.mean(axis=0)
        way = target - here
        length = float(np.sqrt((way * way).sum()))
        # A branch goes part of the way before it splits; a long one bends half-way.
        share = 1.0 if len(mine) == 1 else 0.42
        bend = here + way * share / 2 + rng.normal(0, 0.07 * length * share + 0.4, 3)
        if length * share > 9:
            nodes.append(bend)
            parents.append(parent)
            parent = len(nodes) - 1
        nodes.append(here + way * share)
        parents.append(parent)
        if len(mine) > 1:
            axis = int(np.argmax(np.ptp(points, axis=0)))
            order = np.argsort(points[:, axis], kind="stable")
            cut = int(np.clip(round(len(mine) * rng.uniform(0.32, 0.68)), 1, len(mine) - 1))
            waiting += [(len(nodes) - 1, mine[order[:cut]]), (len(nodes) - 1, mine[order[cut:]])]
    return np.array(nodes), np.array(parents)


def radii_of(parents: np.ndarray) -> np.ndarray:
    """Radius at every node, mm, from the leaves to the root (children come after their parents)."""
    power = np.zeros(len(parents))
    leaf = np.ones(len(parents), bool)
    leaf[parents[parents >= 0]] = False
    power[leaf] = LEAF_RADIUS_MM**BRANCHING_POWER
    for node in range(len(parents) - 1, 0, -1):
        power[parents[node]] += power[node]
    return power ** (1 / BRANCHING_POWER)


def forks(tree: Tree, radius_mm: tuple[float, float]) -> np.ndarray:
    """Ends of pieces (n, 3) at which a vessel of such a radius bends or branches."""
    chosen = (tree.r_end >= radius_mm[0]) & (tree.r_end <= radius_mm[1])
    return tree.end[chosen]


def coverage(tree: Tree, lattice: Lattice) -> np.ndarray:
    """Share of each voxel that the tree fills, float32 (z, y, x), in [0, 1].

    A vessel thinner than a voxel keeps its volume: it is drawn about as wide as a voxel and accordingly fainter.
    """
    voxel = float(np.mean(lattice.spacing_mm))
    least = 0.55 * voxel
    filled = np.zeros(lattice.shape, np.float32)
    x, y, z = (axis.astype(np.float32) for axis in (lattice.x, lattice.y, lattice.z))
    first, last = _boxes(tree, lattice, least, voxel)
    for n in np.flatnonzero((first < last).all(axis=1)):
        (x0, y0, z0), (x1, y1, z1) = first[n], last[n]
        p, d = tree.start[n].astype(np.float32), (tree.end[n] - tree.start[n]).astype(np.float32)
        r, s = np.float32(tree.r_start[n]), np.float32(tree.r_end[n])
        u = x[None, None, x0:x1] - p[0]
        v = y[None, y0:y1, None] - p[1]
        w = z[z0:z1, None, None] - p[2]
        t = (u * d[0] + v * d[1] + w * d[2]) / max(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], np.float32(1e-9))
        t = np.minimum(np.maximum(t, np.float32(0)), np.float32(1))
        distance = np.sqrt((u - t * d[0]) ** 2 + (v - t * d[1]) ** 2 + (w - t * d[2]) ** 2)
        radius = r + t * (s - r)
        drawn = np.maximum(radius, np.float32(least))
        # A rod of radius R whose edge fades over one voxel v holds pi (R^2 + v^2 / 12) in a section.
        edge = np.sqrt(drawn**2 - np.float32(voxel**2 / 12))
        share = np.minimum(
            np.maximum(0.5 + (edge - distance) * np.float32(1 / voxel), np.float32(0)), np.float32(1)
        )
        share *= (radius / drawn) ** 2
        part = filled[z0:z1, y0:y1, x0:x1]
        np.maximum(part, share, out=part)
    return filled


def _boxes(tree: Tree, lattice: Lattice, least: float, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """First voxels and those after the last (n, 3: x, y, z) of the boxes around the tree's pieces, within the lattice."""
    reach = (np.maximum(np.maximum(tree.r_start, tree.r_end), least) + voxel / 2)[:, None]
    origin = np.array([lattice.x[0], lattice.y[0], lattice.z[0]])
    size = np.array(lattice.shape[::-1])
    low = (np.minimum(tree.start, tree.end) - reach - origin) / lattice.spacing_mm
    high = (np.maximum(tree.start, tree.end) + reach - origin) / lattice.spacing_mm
    return np.clip(np.ceil(low), 0, size).astype(int), np.clip(np.floor(high) + 1, 0, size).astype(int)
