"""Lung nodules: how many of which type and size, how they look, and where they stand.

Size: diameters are log-normal, with the median of LUNA16's 1,186 nodules, 6.4 mm, and a mean near theirs, 8.3 mm (Setio
et al., Med Image Anal 2017; 3 to 33 mm; recalled, not checked).
Types: in screening 79 % are solid, 17 % ground glass and 4 % part-solid (PanCan: McWilliams et al., N Engl J Med
2013;369:910; recalled, not checked), 88, 4 and 4 % of 89 nodules of NLST (BMC Med Imaging 2021, doi
10.1186/s12880-021-00594-4, table 2); about a tenth of LIDC's are calcified (recalled, not checked). In that table 82 %
have smooth margins and 4 % spicules, and 43 % lie under the pleura. That large ones are lobulated and spiculated
oftener is known, by how much is set by hand, as is the share on vessels and fissures.
Lobes: subsolid nodules are mostly in the upper lobes (Mets et al., Eur Radiol 2017;27:689), others a little more there
than the lobes' volumes would have it (PanCan; recalled, not checked).
Density: pure ground glass about -600 HU, the small ones less (PMC3388248); what counts as solid in ground glass is over
-400 or over -160 HU (Lee et al., PLoS One 2018;13:e0205490); solid nodules without contrast medium have 20 to 40 HU,
over 200 HU if calcified (Swensen et al., Radiology 2000; recalled, not checked).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sg.cohorts.phantom.opacities import (
    Opacity,
    Piece,
    draw_direction,
    lobes,
    measured,
    organ_around,
    spicules,
    unevenness,
)
from sg.cohorts.phantom.places import Ground, clear_of, tries
from sg.cohorts.phantom.trees import Tree

APART_MM = 8.0  # least gap between two nodules
TYPES = {"solid": 0.73, "calcified": 0.09, "ground-glass": 0.11, "part-solid": 0.07}
STANDS = {"alone": 0.37, "pleura": 0.28, "fissure": 0.08, "vessel": 0.27}
SUBSOLID = ("ground-glass", "part-solid")
UPPER_ODDS = {
    True: 2.2,
    False: 1.3,
}  # how much likelier a place in the upper lobes is, for subsolid nodules and others
BATCH = 48  # places looked at together


def draw_nodules(
    rng: np.random.Generator, count: int, size_mm: tuple[float, float], ground: Ground, blood: Tree
) -> list[Opacity]:
    """So many nodules of diameters within `size_mm`. InputError where there is no room for them."""
    nodules: list[Opacity] = []
    for _ in tries(nodules, count, "lung nodules (nodules)"):
        kind = str(rng.choice(list(TYPES), p=list(TYPES.values())))
        diameter = draw_diameter(rng, kind, size_mm)
        where = _place(rng, kind, diameter / 2, ground, blood, nodules)
        if where is None:
            continue
        nodule = _fitted(draw_nodule(rng, kind, where, diameter), diameter, ground)
        if nodule is not None and _clear(nodule.centre_mm, diameter / 2, nodules):
            nodules.append(nodule)
    return nodules


def draw_diameter(rng: np.random.Generator, kind: str, size_mm: tuple[float, float]) -> float:
    """A diameter within `size_mm`. Calcified nodules are small, part-solid ones larger than others."""
    median = {"calcified": 5.6, "part-solid": 12.0, "ground-glass": 8.0}.get(kind, 6.4)
    low, high = size_mm
    for _ in range(50):
        diameter = float(rng.lognormal(np.log(median), 0.4 if kind == "calcified" else 0.6))
        if low <= diameter <= high:
            return diameter
    return float(rng.uniform(low, high))


def draw_nodule(rng: np.random.Generator, kind: str, centre: np.ndarray, diameter: float) -> Opacity:
    """A nodule of a type (of `TYPES`) about a centre, of some diameter if nothing cuts it off."""
    # The larger, the more uneven: most small ones are smooth.
    large = float(np.clip((diameter - 5) / 15, 0, 1))
    bumps = int(rng.integers(2, 6)) if rng.random() < 0.15 + 0.6 * large else int(rng.integers(0, 2))
    spiky = kind != "calcified" and rng.random() < 0.04 + 0.36 * large
    strands = int(rng.integers(5, 16)) if spiky else 0
    radius = diameter / 2
    pieces = (*lobes(rng, centre, radius, bumps), *spicules(rng, centre, radius, strands))
    look = Opacity(
        kind,
        centre,
        diameter,
        pieces,
        hu=float(np.clip(rng.normal(28, 22), -40, 90)),
        round_mm=0.25 * radius,
        uneven=unevenness(rng, centre, radius, rng.uniform(0.05, 0.16)),
        edge_mm=float(rng.uniform(0, 1)),
        spiculation=int(np.clip(1 + strands // 3, 1, 5)),
        lobulation=1 + min(bumps, 4),
    )
    if kind == "ground-glass":
        hu = float(np.clip(rng.normal(-600, 80), -750, -400))
        look = replace(look, hu=hu, edge_mm=float(rng.uniform(1.5, 3.5)), texture=int(rng.integers(1, 3)))
    elif kind == "part-solid":
        share = rng.uniform(0.3, 0.7)
        core = lobes(rng, centre + draw_direction(rng) * radius * (1 - share) * 0.5, radius * share, 2)
        hu = float(np.clip(rng.normal(-560, 80), -700, -350))
        look = replace(look, hu=hu, core_hu=look.hu, cores=core, texture=3 + (share > 0.5), edge_mm=2.0)
    elif kind == "calcified":
        look = _calcified(rng, look, radius)
    return look


def _calcified(rng: np.random.Generator, nodule: Opacity, radius: float) -> Opacity:
    """Calcified throughout, in the middle, or like popcorn."""
    pattern, dense = int(rng.choice([3, 5, 1], p=[0.45, 0.35, 0.2])), float(rng.uniform(250, 900))
    if pattern == 3:
        return replace(nodule, hu=dense, calcification=3)
    if pattern == 5:
        cores = lobes(rng, nodule.centre_mm, radius * rng.uniform(0.35, 0.6), 1)
    else:
        places = [
            nodule.centre_mm + draw_direction(rng) * radius * 0.5 for _ in range(int(rng.integers(3, 6)))
        ]
        cores = tuple(Piece(p, (radius * rng.uniform(0.15, 0.3),) * 3, np.eye(3)) for p in places)
    return replace(nodule, cores=cores, core_hu=dense, calcification=pattern)


def _fitted(nodule: Opacity, diameter: float, ground: Ground) -> Opacity | None:
    """The nodule scaled so that what the pleura leaves of it has that diameter; None where it leaves too little."""
    anchor = nodule
    organ = organ_around(ground.lungs_mm, ground.lattice, nodule.centre_mm, 2.5 * nodule.reach_mm + 4)
    for _ in range(5):
        seen = measured(replace(anchor, organ=organ))
        if abs(seen.diameter_mm - diameter) < 0.01 * diameter:
            return replace(seen, diameter_mm=diameter)
        factor = diameter / max(seen.diameter_mm, 0.3 * diameter)
        if anchor.diameter_mm * factor > 1.8 * diameter:
            return None
        anchor = anchor.scaled(factor)
    return None


def _place(
    rng: np.random.Generator, kind: str, radius: float, ground: Ground, blood: Tree, others: list[Opacity]
) -> np.ndarray | None:
    """A place for such a nodule, clear of the others."""
    stand = str(rng.choice(list(STANDS), p=list(STANDS.values())))
    lungs = ground.lungs_mm
    deep = -radius - 2
    if stand == "vessel":
        points = _beside(blood, radius, rng)
    elif stand == "fissure":
        near = (ground.fissures_mm < 6) & (lungs < deep - 4)
        points = ground.onto(ground.fissures_mm, ground.among(near, rng, BATCH), 0.7 * radius)
    elif stand == "pleura":
        points = ground.among((lungs < 0) & (lungs > -8 - radius), rng, BATCH)
        deep = -0.1 * radius
        points = ground.onto(lungs, points, -radius * rng.uniform(0.2, 0.85, len(points)))
    else:
        points = ground.among(lungs < deep - 3, rng, BATCH)
    points = points[ground.at(lungs, points) < deep]
    odds = UPPER_ODDS[kind in SUBSOLID]
    points = points[rng.random(len(points)) < np.maximum(ground.at(ground.upper, points), 1 / odds)]
    return next((p for p in points if _clear(p, radius, others)), None)


def _clear(where: np.ndarray, radius: float, others: list[Opacity]) -> bool:
    centres = np.array([o.centre_mm for o in others]).reshape(-1, 3)
    return clear_of(where, radius, centres, np.array([o.diameter_mm / 2 for o in others]), APART_MM)


def _beside(blood: Tree, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Places on the side of vessels 2 to 5 mm wide."""
    size = (blood.r_start + blood.r_end) / 2
    chosen = np.flatnonzero((size > 0.9) & (size < 2.5))
    if len(chosen) == 0:
        return np.empty((0, 3))
    chosen = chosen[rng.integers(len(chosen), size=BATCH)]
    share = rng.random((BATCH, 1))
    on_axis = blood.start[chosen] + share * (blood.end[chosen] - blood.start[chosen])
    along = blood.end[chosen] - blood.start[chosen]
    aside = np.cross(along, rng.standard_normal((BATCH, 3)))
    aside /= np.maximum(np.sqrt((aside**2).sum(axis=1, keepdims=True)), 1e-6)
    return on_axis + aside * (size[chosen, None] + 0.7 * radius)
