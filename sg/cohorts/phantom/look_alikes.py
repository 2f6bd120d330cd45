"""What is taken for a nodule and is none.

Readers and detectors are misled by vessels at forks, bends and crossings, by scars, bands and plates of collapsed lung,
pleural thickening and plaques, lymph nodes in fissures and hila, rib ends and cartilage that bulge inwards, osteophytes
beside the spine, the top of the diaphragm, plugs of mucus and small infiltrates. What is there to be mistaken is drawn
first, whoever lists it; the list then takes such things and fills up with places on vessels and edges.

Lymph nodes in the lung are solid, sharp, round, oval or polygonal, within 15 mm of the pleura and mostly below the carina
(Schreuder et al., Radiol Cardiothorac Imaging 2020;2:e190159). How many of each a patient has is set by hand, so that
some two fifths of 40 candidates are as dense and as large as nodules.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sg.cohorts.phantom.opacities import (
    Opacity,
    Piece,
    Strand,
    band,
    draw_direction,
    draw_turn,
    leaf,
    lobes,
    organ_around,
    unevenness,
)
from sg.cohorts.phantom.places import Ground, Place, clear_of, no_room
from sg.cohorts.phantom.trees import Tree
from sg.cohorts.phantom.vessels import Trees

# How many of each a patient has on average (Poisson).
DRAWN = {
    "scar": 2.4, "band": 1.4, "plate": 0.8, "infiltrate": 1.4, "plaque": 1.0, "pleural thickening": 1.6,
    "fissural lymph node": 1.4, "subpleural lymph node": 1.4, "hilar lymph node": 1.2, "rib end": 2.0, "osteophyte": 1.5,
    "mucus plug": 2.0,
}  # fmt: skip
LISTED_SHARE = 0.5  # most of the list that stands on things drawn for the purpose
# What the rest of the list stands on, as shares.
FOUND = {
    "vessel": 0.22, "fork": 0.2, "bend": 0.08, "crossing": 0.13, "hilar vessel": 0.08, "wall": 0.08, "mediastinum": 0.05,
    "diaphragm": 0.06, "fissure": 0.03, "airway": 0.03, "lung": 0.04,
}  # fmt: skip
FEW = 100  # up to so many candidates stand on vessels that are plainly seen, more on thin ones too
RADIUS_MM = (1.3, 0.7)  # least radius of those
GAP_MM = 5.0  # least distance of two candidates, and of one from a nodule's edge
ROUNDS = 12  # times that the list is filled up before there is taken to be no room


# ----------------------------------------------------------------------------------------------- drawn


def draw_drawn(
    rng: np.random.Generator, nodules: list[Opacity], ground: Ground, trees: Trees
) -> list[Opacity]:
    """What a patient has that looks like a nodule, clear of the nodules; the same however many are listed."""
    drawn: list[Opacity] = []
    for kind, mean in DRAWN.items():
        for _ in range(int(rng.poisson(mean))):
            one = _draw_one(rng, kind, [*nodules, *drawn], ground, trees)
            if one is not None:
                drawn.append(one)
    return drawn


def _draw_one(
    rng: np.random.Generator, kind: str, others: list[Opacity], ground: Ground, trees: Trees
) -> Opacity | None:
    """One of a kind, where there is room."""
    centres = np.array([o.centre_mm for o in others]).reshape(-1, 3)
    radii = np.array([o.diameter_mm / 2 for o in others])
    points = [p for p in SPOTS[kind](rng, ground, trees) if clear_of(p, 6.0, centres, radii, GAP_MM)]
    if not points:
        return None
    pieces, hu = MAKERS[kind](rng, points[0], ground, trees)
    low, high = np.min([p.box_mm[0] for p in pieces], axis=0), np.max([p.box_mm[1] for p in pieces], axis=0)
    organ = None
    if kind not in OUT_OF_LUNG:
        organ = organ_around(ground.lungs_mm, ground.lattice, points[0], float((high - low).max()) + 4)
    size = float(np.prod(np.sort(high - low)[:2])) ** 0.5  # its length does not make it larger
    thick = float(np.min(high - low)) / 2
    return Opacity(
        kind,
        points[0],
        size,
        pieces,
        hu,
        organ,
        uneven=unevenness(rng, points[0], max(size / 2, thick), 0.12 * thick / max(size / 2, thick)),
        edge_mm=float(rng.uniform(2, 4) if kind == "infiltrate" else rng.uniform(0, 1.5)),
    )


def _soft_hu(rng: np.random.Generator) -> float:
    """As dense as a solid nodule."""
    return float(np.clip(rng.normal(25, 25), -60, 90))


def _deep(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    return ground.among(ground.lungs_mm < -8, rng, 12)


def _low(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """Not far above the diaphragm."""
    return ground.among((ground.lungs_mm < -8) & (ground.d["above"] > -40), rng, 12)


def _outer(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """On the surface of the lung along the chest wall."""
    near = (np.abs(ground.lungs_mm) < 6) & (ground.d["cavity"] > -12)
    return ground.onto(ground.lungs_mm, ground.among(near, rng, 16), -0.5)


def _apical(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """On the surface of the lung, oftener the higher."""
    points = _outer(rng, ground, trees)
    return points[np.argsort(-points[:, 2] + rng.normal(0, 40, len(points)))]


def _on_fissure(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """On a fissure, within 15 mm of the pleura, mostly below the carina."""
    lungs = ground.lungs_mm
    points = ground.among((ground.fissures_mm < 6) & (lungs < -5) & (lungs > -15), rng, 16)
    points = ground.onto(ground.fissures_mm, points, 1.0)
    return points[(points[:, 2] < 0) | (rng.random(len(points)) < 0.15)]


def _under_pleura(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """Within 15 mm of the pleura, mostly below the carina."""
    points = ground.among((ground.lungs_mm < -3) & (ground.lungs_mm > -15), rng, 16)
    return points[(points[:, 2] < 0) | (rng.random(len(points)) < 0.15)]


def _at_hilum(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """Beside a large vessel of the lung."""
    points = _aside(trees.blood, rng, 24, (3.0, 9.0), 4.0)
    return points[ground.at(ground.lungs_mm, points) < -2]


def _at_ribs(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """On the surface of the lung in front, a few cm beside the midline, where ribs meet their cartilage."""
    lattice = ground.lattice
    x, y, z = lattice.grids
    aside = (np.abs(x) > 28) & (np.abs(x) < 80) & (y < -15) & (z < 70)
    near = (np.abs(ground.lungs_mm) < 6) & (ground.d["cavity"] > -12) & aside
    points = ground.onto(ground.lungs_mm, ground.among(near, rng, 16), 1.0)
    # The first rib's end, behind the collar bone, misleads most often.
    return points[np.argsort(-points[:, 2] + rng.normal(0, 35, len(points)))]


def _beside_spine(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """On the surface of the lung beside the spine; on the left the aorta keeps most of it smooth."""
    near = (ground.d["spine"] < 12) & (np.abs(ground.lungs_mm) < 8)
    points = ground.onto(ground.lungs_mm, ground.among(near, rng, 32), 1.0)
    points = points[ground.at(ground.d["spine"], points) < 7] if len(points) else points
    return points[(points[:, 0] < 0) | (rng.random(len(points)) < 0.25)]


def _in_airway(rng: np.random.Generator, ground: Ground, trees: Trees) -> np.ndarray:
    """In the middle of a piece of a small airway."""
    air = trees.air
    chosen = np.flatnonzero((air.r_start < 4) & (((air.end - air.start) ** 2).sum(axis=1) > 4**2))
    if len(chosen) == 0:
        return np.empty((0, 3))
    chosen = chosen[rng.integers(len(chosen), size=16)]
    points = (air.start[chosen] + air.end[chosen]) / 2
    return points[ground.at(ground.lungs_mm, points) < -5]


def _scar(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A lump longer than it is wide, with strands to all sides."""
    turn, thick = draw_turn(rng), float(np.clip(rng.lognormal(np.log(3.2), 0.45), 1.6, 8))
    radii = (thick * rng.uniform(2, 3.6), thick * rng.uniform(0.8, 1.3), thick * rng.uniform(0.4, 0.8))
    pieces: list[Piece | Strand] = [Piece(centre, radii, turn)]
    for _ in range(int(rng.integers(1, 4))):
        bump = thick * rng.uniform(0.5, 0.8)
        pieces.append(Piece(centre + turn[0] * radii[0] * rng.uniform(-0.9, 0.9), (bump, bump, bump), turn))
    for _ in range(int(rng.integers(2, 6))):
        way = turn[0] * rng.choice([-1, 1]) + 0.6 * draw_direction(rng)
        end = centre + way * radii[0] * rng.uniform(1.3, 2.4)
        pieces.append(Strand(centre, end, max(thick * 0.35, 1.0), 0.6))
    return tuple(pieces), _soft_hu(rng)


def _band(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A band of 15 to 45 mm."""
    return band(rng, centre, rng.uniform(15, 45), rng.uniform(0.9, 2.4), draw_direction(rng)), _soft_hu(rng)


def _plate(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """Collapsed lung: a leaf that lies nearly flat."""
    normal = np.array([0, 0, 1.0]) + 0.5 * draw_direction(rng)
    radii = (rng.uniform(8, 20), rng.uniform(4, 10), rng.uniform(0.9, 2.2))
    return (leaf(centre, radii, normal / np.sqrt((normal**2).sum()), draw_direction(rng)),), _soft_hu(rng)


def _plaque(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A leaf along the pleura, calcified in some (asbestos plaques)."""
    normal = ground.slope(ground.lungs_mm, centre[None])[0]
    radii = (rng.uniform(6, 15), rng.uniform(4, 10), rng.uniform(1.5, 3.5))
    hu = float(rng.uniform(150, 500)) if rng.random() < 0.15 else _soft_hu(rng)
    return (leaf(centre, radii, normal, draw_direction(rng)),), hu


def _thickening(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A lump of pleura, wider than high."""
    normal = ground.slope(ground.lungs_mm, centre[None])[0]
    height = float(np.clip(rng.lognormal(np.log(3.2), 0.4), 1.8, 8))
    base = leaf(
        centre,
        (height * rng.uniform(1.2, 2.6), height * rng.uniform(1, 1.8), height),
        normal,
        draw_direction(rng),
    )
    return (base, *(p for p in lobes(rng, centre - normal * height * 0.2, height * 0.7, 1))), _soft_hu(rng)


def _flat_node(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """An oval or three-cornered node with its flat side to the fissure."""
    normal = ground.slope(ground.fissures_mm, centre[None])[0]
    r = float(np.clip(rng.lognormal(np.log(2.7), 0.3), 1.6, 5.5))
    node = leaf(
        centre, (r * rng.uniform(1.2, 1.9), r, r * rng.uniform(0.45, 0.7)), normal, draw_direction(rng)
    )
    strand = Strand(centre, centre + (node.turn[0] - 0.3 * normal) * r * rng.uniform(1.8, 3), r * 0.4, 0.3)
    return (node, strand), _soft_hu(rng)


def _cornered_node(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A flat oval or three-cornered node, held by a strand to the pleura and others to the lobules' walls."""
    normal = ground.slope(ground.lungs_mm, centre[None])[0]
    r = float(np.clip(rng.lognormal(np.log(2.8), 0.3), 1.6, 5.5))
    node = leaf(
        centre, (r * rng.uniform(1.2, 1.9), r, r * rng.uniform(0.45, 0.7)), normal, draw_direction(rng)
    )
    ways = (0.9 * normal + 0.3 * draw_direction(rng), node.turn[0], -node.turn[0] + 0.5 * draw_direction(rng))
    strands = [Strand(centre, centre + way * r * rng.uniform(2.2, 4), max(r * 0.4, 0.9), 0.6) for way in ways]
    return (node, *strands[: int(rng.integers(2, 4))]), _soft_hu(rng)


def _infiltrate(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """A few lumps along a small airway's way, some grown together, not as dense as soft tissue throughout."""
    along, pieces = draw_direction(rng), []
    for _ in range(int(rng.integers(3, 7))):
        r = float(np.clip(rng.lognormal(np.log(2.6), 0.35), 1.3, 6))
        place = centre + along * rng.normal(0, 5) + rng.normal(0, 2, 3)
        pieces.append(Piece(place, tuple(r * rng.uniform(0.7, 1.2, 3)), draw_turn(rng)))
    return tuple(pieces), float(rng.uniform(-450, 40))


def _node(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """An oval node, calcified in some."""
    r = rng.uniform(3, 6)
    hu = float(rng.uniform(200, 600)) if rng.random() < 0.12 else _soft_hu(rng)
    return (Piece(centre, (r * rng.uniform(1.2, 1.8), r, r * rng.uniform(0.7, 1)), draw_turn(rng)),), hu


def _bulge(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """The end of a rib and its cartilage, knobby and half calcified, bulging inwards."""
    normal = ground.slope(ground.lungs_mm, centre[None])[0]
    r = rng.uniform(3, 6.5)
    knob = leaf(
        centre, (r * rng.uniform(1.1, 1.8), r, r * rng.uniform(0.6, 0.95)), normal, draw_direction(rng)
    )
    return (knob,), float(rng.uniform(70, 350))


def _spur(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """An osteophyte: a ledge of bone on the side of the spine, where a disc meets a body."""
    normal = ground.slope(ground.d["spine"], centre[None])[0]
    r = rng.uniform(3.5, 7)
    ledge = leaf(
        centre, (r * rng.uniform(1, 1.7), r * rng.uniform(0.5, 0.8), r), normal, np.array([0, 1.0, 0])
    )
    return (ledge,), float(rng.uniform(150, 500))


def _plug(rng: np.random.Generator, centre: np.ndarray, ground: Ground, trees: Trees) -> tuple:
    """Mucus that fills and widens a piece of airway."""
    air = trees.air
    piece = int(np.argmin((((air.start + air.end) / 2 - centre) ** 2).sum(axis=1)))
    wide = rng.uniform(1.0, 1.6)
    r, s = (max(float(v[piece]) * wide, 1.2) + 0.5 for v in (air.r_start, air.r_end))
    return (Strand(air.start[piece], air.end[piece], r, s),), float(rng.normal(15, 12))


Spots = Callable[[np.random.Generator, Ground, Trees], np.ndarray]
SPOTS: dict[str, Spots] = {
    "scar": _deep, "band": _deep, "plate": _low, "infiltrate": _deep, "plaque": _outer, "pleural thickening": _apical,
    "fissural lymph node": _on_fissure, "subpleural lymph node": _under_pleura, "hilar lymph node": _at_hilum,
    "rib end": _at_ribs, "osteophyte": _beside_spine, "mucus plug": _in_airway,
}  # fmt: skip
MAKERS: dict[str, Callable[[np.random.Generator, np.ndarray, Ground, Trees], tuple]] = {
    "scar": _scar, "band": _band, "plate": _plate, "infiltrate": _infiltrate, "plaque": _plaque,
    "pleural thickening": _thickening, "fissural lymph node": _flat_node, "subpleural lymph node": _cornered_node,
    "hilar lymph node": _node, "rib end": _bulge, "osteophyte": _spur, "mucus plug": _plug,
}  # fmt: skip
OUT_OF_LUNG = ("rib end", "osteophyte", "mucus plug")  # the lung's surface does not cut these off


# ---------------------------------------------------------------------------------------------- listed


def list_places(
    rng: np.random.Generator,
    count: int,
    nodules: list[Opacity],
    drawn: list[Opacity],
    ground: Ground,
    trees: Trees,
) -> list[Place]:
    """So many candidates that are no nodules. NoRoom where there is no room for them."""
    most = min(len(drawn), int(np.ceil(LISTED_SHARE * count)))
    chosen = [drawn[index] for index in rng.permutation(len(drawn))[:most]]
    listing = _List(nodules, count)
    for one in chosen:
        listing.add(one.kind, one.centre_mm[None] + rng.normal(0, 0.6, 3))
    pools = _Pools(rng, ground, trees, RADIUS_MM[count > FEW])
    for _ in range(ROUNDS):
        missing = count - len(listing.places)
        if missing <= 0:
            break
        for kind, quota in zip(FOUND, rng.multinomial(missing, list(FOUND.values())), strict=True):
            if quota:
                listing.add(kind, pools.draw(kind, 3 * int(quota) + 8), int(quota))
    if len(listing.places) < count:
        raise no_room("look-alikes (candidates)", len(listing.places), count)
    return listing.places


class _List:
    """Candidates so far; none stands too near another or a nodule."""

    def __init__(self, nodules: list[Opacity], count: int) -> None:
        self.places: list[Place] = []
        self._centres = np.full((count + len(nodules), 3), np.inf)
        self._reach = np.full(count + len(nodules), GAP_MM)
        for index, nodule in enumerate(nodules):
            self._centres[index] = nodule.centre_mm
            self._reach[index] += nodule.diameter_mm / 2
        self._used, self._most = len(nodules), count

    def add(self, kind: str, points: np.ndarray, quota: int = 1) -> None:
        """Take those of the points, in order, that are clear of all others, up to a quota."""
        for point in points:
            if quota == 0 or len(self.places) == self._most:
                return
            near = ((self._centres[: self._used] - point) ** 2).sum(axis=1) < self._reach[: self._used] ** 2
            if not near.any():
                self._centres[self._used] = point
                self._used += 1
                quota -= 1
                self.places.append(Place(kind, point))


class _Pools:
    """Places of every kind that anybody has."""

    def __init__(self, rng: np.random.Generator, ground: Ground, trees: Trees, radius_mm: float) -> None:
        self._rng, self._ground, self._trees, self._radius = rng, ground, trees, radius_mm
        nodes = branching(trees.blood, radius_mm)
        self._points = {"fork": nodes[0], "bend": nodes[1], "crossing": crossings(trees.blood, radius_mm)}

    def draw(self, kind: str, count: int) -> np.ndarray:
        """About so many random places of a kind, in the lungs or on their surface."""
        rng, ground = self._rng, self._ground
        lungs, d = ground.lungs_mm, ground.d
        if kind in self._points:
            some = self._points[kind]
            points = some[rng.integers(len(some), size=count)] if len(some) else some
            points = points + rng.normal(0, 0.7, points.shape)
        elif kind == "vessel":
            points = _aside(self._trees.blood, rng, count, (self._radius, 3.0), 0.0)
        elif kind == "hilar vessel":
            points = _aside(self._trees.blood, rng, count, (2.6, 12.0), 0.0)
        elif kind == "airway":
            points = _aside(self._trees.air, rng, count, (0.5, 6.0), 0.5)
        elif kind == "lung":
            points = ground.among(lungs < -6, rng, count)
        elif kind == "fissure":
            points = ground.among((ground.fissures_mm < 6) & (lungs < -5), rng, count)
            points = ground.onto(ground.fissures_mm, points, 0.7)
        else:
            near = (np.abs(lungs) < 6) & {
                "wall": d["cavity"] > -12,
                "diaphragm": d["above"] > -10,
                "mediastinum": (d["cavity"] < -14) & (d["above"] < -14),
            }[kind]
            points = ground.onto(lungs, ground.among(near, rng, count), rng.uniform(-4, 0.5))
        return points[ground.at(lungs, points) < 2] if len(points) else points


def _aside(
    tree: Tree, rng: np.random.Generator, count: int, radius_mm: tuple[float, float], gap_mm: float
) -> np.ndarray:
    """Random points along a tree's pieces of such radii, beside them by their radius and a gap, or on the axis for 0."""
    radius = (tree.r_start + tree.r_end) / 2
    chosen = np.flatnonzero((radius >= radius_mm[0]) & (radius <= radius_mm[1]))
    if len(chosen) == 0:
        return np.empty((0, 3))
    chosen = chosen[rng.integers(len(chosen), size=count)]
    along = tree.end[chosen] - tree.start[chosen]
    points = tree.start[chosen] + along * rng.random((count, 1)) + rng.normal(0, 0.5, (count, 3))
    if gap_mm == 0:
        return points
    aside = np.cross(along, rng.standard_normal((count, 3)))
    aside /= np.maximum(np.sqrt((aside**2).sum(axis=1, keepdims=True)), 1e-6)
    return points + aside * (radius[chosen, None] + gap_mm)


def branching(tree: Tree, radius_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) at which vessels of at least that radius fork, and those at which they bend by over 30 degrees."""
    starts, ends = _keys(tree.start), _keys(tree.end)
    order = np.argsort(starts, kind="stable")
    first = np.searchsorted(starts[order], ends, side="left")
    children = np.searchsorted(starts[order], ends, side="right") - first
    wide = tree.r_end >= radius_mm
    single = np.flatnonzero((children == 1) & wide)
    way, on = (tree.end[i] - tree.start[i] for i in (single, order[first[single]]))
    lengths = np.sqrt((way**2).sum(axis=1) * (on**2).sum(axis=1))
    bent = (way * on).sum(axis=1) < np.cos(np.deg2rad(30)) * lengths
    return tree.end[(children >= 2) & wide], tree.end[single[bent]]


def _keys(points: np.ndarray) -> np.ndarray:
    """A number for each of (n, 3) points, the same for points equal to 0.01 mm."""
    x, y, z = np.round(points * 100).astype(np.int64).T
    return (x * 1_000_003 + y) * 1_000_003 + z


def crossings(tree: Tree, radius_mm: float) -> np.ndarray:
    """Points (n, 3) where two vessels of at least that radius pass each other closely and do not meet."""
    from scipy.spatial import cKDTree

    wide = np.flatnonzero(tree.r_end >= radius_mm)
    middle = (tree.start[wide] + tree.end[wide]) / 2
    pairs = cKDTree(middle).query_pairs(6.0, output_type="ndarray")
    if len(pairs) == 0:
        return np.empty((0, 3))
    a, b = wide[pairs[:, 0]], wide[pairs[:, 1]]
    starts, ends = _keys(tree.start), _keys(tree.end)
    meet = (starts[a] == starts[b]) | (starts[a] == ends[b]) | (ends[a] == starts[b])
    mid = (middle[pairs[:, 0]] + middle[pairs[:, 1]]) / 2
    gap = np.sqrt(((middle[pairs[:, 0]] - middle[pairs[:, 1]]) ** 2).sum(axis=1))
    return mid[~meet & (gap < tree.r_end[a] + tree.r_end[b] + 2.5)]
