"""How an organ comes to have the volume in the image that was drawn for its patient.

Walls, the diaphragm and neighbours cut organs, so no size of the atlas' shape says how much of it is seen. The volume is
measured on a coarse lattice and the one thing that is free is solved for it: how high a dome of the diaphragm stands
for a lung, the scale of a map for an organ below, the height of a fissure for a lobe.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sg.cohorts.phantom import atlas as average
from sg.cohorts.phantom import surfaces
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.habitus import Sizes
from sg.cohorts.phantom.organ_maps import VARIATIONS, OrganMap
from sg.cohorts.phantom.surfaces import Distances, Fissure, Maps

STEP_MM = 9.0  # of the lattice that a chest is measured on
_STEPS_MM = {"liver": 9.0, "spleen": 6.0}
# Scans are painted from distances at nodes 6 mm apart, interpolated linearly. That draws rounded surfaces in by some
# h^2 / 12 over their radius of curvature, more at edges: so much on average, measured on liver, spleen and lungs.
PAINTED_LOSS_MM = 0.3
SCALES = (0.5, 1.8)  # least and largest of an organ's map
LIFTS_MM = (-110.0, 90.0)  # least and largest of a dome of the diaphragm
_LUNG_BOX_MM = ((-190.0, 190.0), (-150.0, 165.0), (-300.0, 170.0))


def filled(distance: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Share of each cell of the lattice that a shape fills, from its distance: a soft edge one cell wide."""
    step = np.float32(np.mean(lattice.spacing_mm))
    return np.clip(np.float32(0.5) - distance / step, 0, 1)


def volume_ml(distance: np.ndarray, lattice: Lattice) -> float:
    """Volume of a shape, from its distance on a lattice."""
    return float(filled(distance, lattice).sum(dtype=np.float64) * np.prod(lattice.spacing_mm) / 1000)


def chest_volume_ml(maps: Maps, lift_mm: float) -> float:
    """Volume of both lungs if both domes stood so much higher than in the atlas."""
    lattice = Lattice(*(np.arange(low, high, 4 * STEP_MM / 3) for low, high in _LUNG_BOX_MM))
    d = surfaces.wall(maps, lattice)
    d["middle"] = surfaces.with_rims(surfaces.middle(maps, lattice))
    total = 0.0
    for name in ("lung_right", "lung_left"):
        a = maps[name].lifted(lift_mm).to_atlas(lattice)
        above = average.above_dome(a, name == "lung_left")
        total += volume_ml(surfaces.over_diaphragm(surfaces.around_lung(name, a, d), above), lattice)
    return total


def solve_chest(
    maps: Maps, sizes: Sizes, fissures: dict[str, Fissure]
) -> tuple[dict[str, float], dict[str, Fissure]]:
    """How far each lung's base is lifted (`OrganMap.lifted`), and the fissures: lungs and lobes then have their volumes."""
    lattice = Lattice(*(np.arange(low, high, STEP_MM) for low, high in _LUNG_BOX_MM))
    d = surfaces.wall(maps, lattice)
    d["middle"] = surfaces.with_rims(surfaces.middle(maps, lattice))
    lifts, solved = {}, {}
    for name in ("lung_right", "lung_left"):
        x, y, z = maps[name].to_atlas(lattice)
        near = surfaces.around_lung(name, (x, y, z), d) < 4 * STEP_MM  # which a lift changes a little
        per_mm = (maps[name].lifted(1.0).to_atlas(lattice)[2] - z)[near]
        x, y, z = x[near], y[near], z[near]
        walls = {wall: d[wall][near] for wall in ("cavity", "middle")}
        left_to_share = sizes.lung_ml(name)

        def share(
            lift: float, name: str = name, x: np.ndarray = x, y: np.ndarray = y, z: np.ndarray = z,
            per_mm: np.ndarray = per_mm, walls: Distances = walls,
        ) -> np.ndarray:  # fmt: skip
            a = (x, y, z + np.float32(lift) * per_mm)
            above = average.above_dome(a, name == "lung_left")
            painted = surfaces.over_diaphragm(surfaces.around_lung(name, a, walls), above)
            return filled(painted + np.float32(PAINTED_LOSS_MM), lattice)

        cell_ml = float(np.prod(lattice.spacing_mm)) / 1000
        lift = _root(
            lambda lift, share=share, cell_ml=cell_ml: float(share(lift).sum(dtype=np.float64)) * cell_ml,
            sizes.lung_ml(name),
            LIFTS_MM,
        )
        lifts[name] = lift
        weight, a = share(lift), (x, y, z + np.float32(lift) * per_mm)
        for label in ("oblique", "horizontal") if name == "lung_right" else ("oblique",):
            key = f"fissure_{name.removeprefix('lung_')}_{label}"
            distance = surfaces.fissure(key, a, fissures[key].noise.on(lattice)[0][near])
            below = "lower" if label == "oblique" else "middle"
            share_below = sizes.lobes_ml[f"{name}_{below}"] / left_to_share
            solved[key] = Fissure(_quantile(-distance, weight, share_below), fissures[key].noise)
            # The horizontal fissure divides what is above the oblique one.
            weight = weight * (distance + solved[key].shift_mm < 0)
            left_to_share -= sizes.lobes_ml[f"{name}_{below}"]
    return lifts, solved


def solve_abdomen(maps: dict[str, OrganMap], sizes: Sizes) -> dict[str, OrganMap]:
    """The maps, those of liver and spleen scaled to their volumes."""
    solved = dict(maps)
    for name, wanted in (("liver", sizes.liver_ml), ("spleen", sizes.spleen_ml)):
        organ, centre = maps[name], np.array(VARIATIONS[name].centre_mm)
        corners = average.corners(name)
        ends = organ.enlarged(1.25, centre).to_patient(corners)
        low, high, step = ends.min(axis=0), ends.max(axis=0), _STEPS_MM[name]
        lattice = Lattice(*(np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)))
        d = surfaces.wall(maps, lattice) | surfaces.middle(maps, lattice)
        d["above"] = surfaces.above(maps, lattice)
        bounds = np.maximum(surfaces.below_diaphragm(d), -surfaces.central(d))
        for other in surfaces.before(name):
            d[other] = surfaces.abdominal(other, solved[other], lattice, d, bounds)

        def volume(
            factor: float, name: str = name, organ: OrganMap = organ, centre: np.ndarray = centre,
            lattice: Lattice = lattice, d: Distances = d, bounds: np.ndarray = bounds,
        ) -> float:  # fmt: skip
            shape = surfaces.abdominal(name, organ.enlarged(factor, centre), lattice, d, bounds)
            return volume_ml(shape + np.float32(PAINTED_LOSS_MM), lattice)

        solved[name] = organ.enlarged(_root(volume, wanted, SCALES), centre)
    return solved


def _root(volume: Callable[[float], float], wanted: float, within: tuple[float, float]) -> float:
    """Where a monotonic function reaches the wanted volume, to a thousandth of it; the nearer end where it does not.

    False position, the stale end's error halved (the Illinois rule).
    """
    low, high = within
    at_low, at_high = volume(low) - wanted, volume(high) - wanted
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    middle = low
    for _ in range(30):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        error = volume(middle) - wanted
        if abs(error) < 1e-3 * wanted:
            break
        if error * at_high < 0:
            low, at_low = high, at_high
        else:
            at_low /= 2
        high, at_high = middle, error
    return middle


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value that the given share of the weights lies below."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order], dtype=np.float64)
    return float(np.interp(share * total[-1], total - weights[order] / 2, values[order]))
