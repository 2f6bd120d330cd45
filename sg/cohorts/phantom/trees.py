"""Branching trees: growing them into a space, their radii, and the share of each voxel that they fill.

A tree grows leaf by leaf (constructive optimisation: Schreiner and Buxbaum, IEEE Trans Biomed Eng 1993;40:482): each
new leaf is joined to the nearest branch, at the point that costs the least wall and blood, so that trunks form where
many leaves lie beyond, and branch angles follow from the radii as Murray (PNAS 1926;12:207) derived them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sg.cohorts.phantom.fields import Lattice
from sg.compiled import compiled

LEAF_RADIUS_MM = 1.1
# A parent's radius to this power is the sum of its children's. Murray's law says 3; in human pulmonary arteries on CT it
# is 2.9 +- 1.1 (Dong et al., Am J Physiol Heart Circ Physiol 2020;319:H432), theory for elastic ones says 2.33 (Nakamura
# and Awa, Physiol Rep 2014;2:e00236).
BRANCHING_POWER = 3.0


@dataclass(frozen=True)
class Tree:
    """Straight pieces of vessel in the patient: from `start` (n, 3) to `end`, radii `r_start` and `r_end` (n), mm."""

    start: np.ndarray
    end: np.ndarray
    r_start: np.ndarray
    r_end: np.ndarray

    @staticmethod
    def of(trees: list[Tree]) -> Tree:
        """All pieces of several trees."""
        return Tree(
            *(np.concatenate([getattr(t, f) for t in trees]) for f in ("start", "end", "r_start", "r_end"))
        )


def grow(root: np.ndarray, leaves: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 3) of a tree from a root (3) to leaves (m, 3), and the index of each one's parent (-1 for the root).

    Leaves are joined in the order given: the first ones make the trunks. Children come after their parents. Long
    branches bend a little half-way (tortuosity 0.026: Dong et al. 2020).
    """
    root, leaves = (np.ascontiguousarray(points, float) for points in (root, leaves))
    nodes, parents = _joined(root, leaves, _earlier(leaves), 2 / BRANCHING_POWER, DETOUR)
    return _bent(nodes, parents, rng)


# What a mm of the way from the root costs beside a mm of new branch: 0 makes the shortest tree, whose branches wind
# through their lobe, 1 and more a fan (balancing factor: Cuntz et al., PLoS Comput Biol 2010;6:e1000877).
DETOUR = 0.2
BEND_MM = 7.0  # longer branches bend


def _bent(nodes: np.ndarray, parents: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The tree with a node more in the middle of each long branch, off the straight line."""
    ways = nodes[1:] - nodes[parents[1:]]
    lengths = np.sqrt((ways * ways).sum(axis=1))
    long = np.flatnonzero(lengths > BEND_MM) + 1
    aside = rng.standard_normal((len(long), 3)) * (0.08 * lengths[long - 1])[:, None]
    middles = (nodes[long] + nodes[parents[long]]) / 2 + aside
    # A middle goes directly before the node it leads to.
    before = np.zeros(len(nodes), np.intp)
    before[long] = 1
    place = np.arange(len(nodes)) + np.cumsum(before)
    result, index = np.empty((len(nodes) + len(long), 3)), np.empty(len(nodes) + len(long), np.intp)
    result[place], result[place[long] - 1] = nodes, middles
    index[place] = np.where(parents >= 0, place[parents], -1)
    index[place[long] - 1], index[place[long]] = place[parents[long]], place[long] - 1
    return result, index


NEARBY = 8  # leaves whose ways from the root are looked at for a place to join the next one to


def _earlier(leaves: np.ndarray) -> np.ndarray:
    """For each leaf the nearest of those before it, (n, NEARBY), -1 for none.

    Among the first half, quarter, ... of all, so that few trees of positions need to be built: a leaf of the second half
    is looked up among all of the first.
    """
    near = np.full((len(leaves), NEARBY), -1, np.int64)
    for n in range(min(len(leaves), NEARBY)):
        near[n, :n] = np.arange(n)
    known = NEARBY
    while known < len(leaves):
        after = min(2 * known, len(leaves))
        near[known:after] = cKDTree(leaves[:known]).query(leaves[known:after], NEARBY)[1]
        known = after
    return near


@compiled
def _joined(
    root: np.ndarray, leaves: np.ndarray, earlier: np.ndarray, area_power: float, detour: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and parents (before their children) of the tree that joins the leaves one after the other.

    A branch that feeds n leaves has a section of n ** area_power.
    """
    most = 2 * len(leaves) + 1
    at = np.zeros((most, 3))
    parent = np.full(most, -1, np.int64)
    fed = np.zeros(most)  # leaves beyond each node's own branch
    path = np.zeros(most)  # from the root, mm; not kept up to date as forks move, which changes it little
    seen = np.full(most, -1, np.int64)  # the last leaf that looked at a node
    at[0] = root
    count = 1
    for leaf in range(len(leaves)):
        t = leaves[leaf]
        best, cost, reach = -1, np.inf, np.inf
        for e in earlier[leaf]:
            if e < 0:
                break
            c = 1 if e == 0 else 2 * e  # the leaf's node
            while c > 0 and seen[c] != leaf:
                seen[c] = leaf
                branch = c
                c = parent[c]
                p = at[c]
                d = at[branch] - p
                length = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
                share = ((t[0] - p[0]) * d[0] + (t[1] - p[1]) * d[1] + (t[2] - p[2]) * d[2]) / length**2
                share = min(max(share, 0.05), 0.95)
                w0, w1, w2 = (
                    t[0] - p[0] - share * d[0],
                    t[1] - p[1] - share * d[1],
                    t[2] - p[2] - share * d[2],
                )
                square = w0 * w0 + w1 * w1 + w2 * w2
                if square > reach:
                    continue
                way = np.sqrt(square) + 1e-6
                # A branch that turns back is longer for its blood than it looks, and all of the way counts in part.
                cosine = (w0 * d[0] + w1 * d[1] + w2 * d[2]) / (way * length)
                price = way * (1.3 - 0.5 * cosine) + detour * (path[c] + share * length)
                if price < cost:
                    best, cost, reach = branch, price, (price / 0.8) ** 2  # no price is under 0.8 of the way
        new = count
        at[new] = t
        fed[new] = 1.0
        if best < 0:
            parent[new] = 0
            path[new] = np.sqrt(((t - root) ** 2).sum())
            count += 1
            continue
        # The fork stands where section times length of the three branches is least (Weiszfeld's iteration).
        c, p = best, parent[best]
        wp, wc = (fed[c] + 1) ** area_power + 0.4, fed[c] ** area_power
        wp = min(wp, 0.92 * (wc + 1.0))
        fork = 0.4 * at[p] + 0.4 * at[c] + 0.2 * t
        for _ in range(12):
            total = 0.0
            mean = np.zeros(3)
            for q, weight in ((at[p], wp), (at[c], wc), (t, 1.0)):
                gap = np.sqrt((fork[0] - q[0]) ** 2 + (fork[1] - q[1]) ** 2 + (fork[2] - q[2]) ** 2) + 1e-3
                total += weight / gap
                mean += q * (weight / gap)
            fork = mean / total
        j = count + 1
        at[j] = fork
        parent[j], parent[c], parent[new] = p, j, j
        fed[j] = fed[c]
        path[j] = path[p] + np.sqrt(((fork - at[p]) ** 2).sum())
        path[new] = path[j] + np.sqrt(((t - fork) ** 2).sum())
        count += 2
        walk = j
        while walk > 0:
            fed[walk] += 1.0
            walk = parent[walk]
    # Parents first: order by depth, equal depths as they are.
    depth = np.zeros(count, np.int64)
    for n in range(count):
        walk = n
        while parent[walk] >= 0:
            depth[n] += 1
            walk = parent[walk]
    order = np.argsort(depth, kind="mergesort")
    rank = np.empty(count, np.int64)
    for n in range(count):
        rank[order[n]] = n
    nodes = np.empty((count, 3))
    parents = np.full(count, -1, np.int64)
    for n in range(count):
        nodes[n] = at[order[n]]
        if parent[order[n]] >= 0:
            parents[n] = rank[parent[order[n]]]
    return nodes, parents


def radii_of(parents: np.ndarray, leaf_mm: float = LEAF_RADIUS_MM) -> np.ndarray:
    """Radius at every node, mm, from the leaves to the root (children come after their parents)."""
    power = np.zeros(len(parents))
    leaf = np.ones(len(parents), bool)
    leaf[parents[parents >= 0]] = False
    power[leaf] = leaf_mm**BRANCHING_POWER
    for node in range(len(parents) - 1, 0, -1):
        power[parents[node]] += power[node]
    return power ** (1 / BRANCHING_POWER)


def spread(points: np.ndarray, count: int, rng: np.random.Generator, far: int = 48) -> np.ndarray:
    """Some of the points (n, 3), in a random order but for the first ones.

    Each of the first `far`, which make the trunks of a tree, is the farthest of eight draws from those before it.
    """
    order = rng.permutation(len(points))[:count]
    nearest = np.full(len(order), np.inf)
    for n, draws in enumerate(rng.integers(0, len(order), (min(far, len(order)), 8))):
        draws = np.maximum(draws, n)
        best = draws[np.argmax(nearest[draws])]
        order[[n, best]], nearest[[n, best]] = order[[best, n]], nearest[[best, n]]
        nearest = np.minimum(nearest, ((points[order] - points[order[n]]) ** 2).sum(axis=1))
    return points[order]


def coverage(tree: Tree, lattice: Lattice) -> np.ndarray:
    """Share of each voxel that the tree fills, float32 (z, y, x), in [0, 1].

    A vessel thinner than a voxel keeps its volume: it is drawn about as wide as a voxel and accordingly fainter.
    """
    filled = np.zeros(lattice.shape, np.float32)
    pieces = np.column_stack([tree.start, tree.end, tree.r_start, tree.r_end]).astype(np.float32)
    axes = (axis.astype(np.float32) for axis in (lattice.x, lattice.y, lattice.z))
    _fill(pieces, *axes, np.float32(np.mean(lattice.spacing_mm)), filled)
    return filled


@compiled
def _fill(
    pieces: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, voxel: float, filled: np.ndarray
) -> None:
    """Raise `filled` (z, y, x) to each piece's share of the voxels around it; a piece: start, end, two radii."""
    least, half = np.float32(0.55) * voxel, np.float32(0.5)
    one, zero, square = np.float32(1), np.float32(0), voxel * voxel / np.float32(12)
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    size = (len(x), len(y), len(z))
    origin = (x[0], y[0], z[0])
    step = (x[1] - x[0], y[1] - y[0], z[1] - z[0])
    for n in range(len(pieces)):
        piece = pieces[n]
        r, s = piece[6], piece[7]
        reach = max(r, s, least) + half * voxel
        for axis in range(3):
            low = min(piece[axis], piece[axis + 3]) - reach
            high = max(piece[axis], piece[axis + 3]) + reach
            first[axis] = max(np.int64(np.ceil((low - origin[axis]) / step[axis])), 0)
            last[axis] = min(np.int64(np.floor((high - origin[axis]) / step[axis])) + 1, size[axis])
        dx, dy, dz = piece[3] - piece[0], piece[4] - piece[1], piece[5] - piece[2]
        length = max(dx * dx + dy * dy + dz * dz, np.float32(1e-9))
        for k in range(first[2], last[2]):
            w = z[k] - piece[2]
            for j in range(first[1], last[1]):
                v = y[j] - piece[1]
                for i in range(first[0], last[0]):
                    u = x[i] - piece[0]
                    t = min(max((u * dx + v * dy + w * dz) / length, zero), one)
                    a, b, c = u - t * dx, v - t * dy, w - t * dz
                    radius = r + t * (s - r)
                    drawn = max(radius, least)
                    # A rod of radius R whose edge fades over one voxel v holds pi (R^2 + v^2 / 12) in a section.
                    edge = np.sqrt(drawn * drawn - square)
                    share = half + (edge - np.sqrt(a * a + b * b + c * c)) / voxel
                    if share > zero:
                        share = min(share, one) * (radius / drawn) * (radius / drawn)
                        if share > filled[k, j, i]:
                            filled[k, j, i] = share
