"""The surfaces of a patient's organs, and who gives way where they meet.

A point is in an organ when its position in the atlas, by that organ's map, is. Lungs end at the chest wall, at the
diaphragm and at whatever lies in the mediastinum; what lies below the diaphragm ends there; of two organs of the abdomen
the softer gives way. All distances are in mm, negative inside, float32 (z, y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sg.cohorts.phantom import atlas as average
from sg.cohorts.phantom import skeleton
from sg.cohorts.phantom.atlas import Arrays
from sg.cohorts.phantom.fields import (
    Lattice,
    Noise,
    ellipsoid,
    smooth_maximum,
    smooth_minimum,
    tubes_nearby,
)
from sg.cohorts.phantom.habitus import Habitus
from sg.cohorts.phantom.organ_maps import OrganMap

REACH_MM = 40.0  # further away than this, the distance to an organ that is no wall says only that it is far
Maps = Mapping[str, OrganMap]
Distances = dict[str, np.ndarray]
# What lies in the middle of the chest, and the rim of fat that each keeps clear of lungs.
RIMS_MM = {
    "heart": 3.5, "aorta": 2.5, "great_vessels": 2.5, "pulmonary_artery": 2, "upper_mediastinum": 0, "trachea": 3,
    "esophagus": 2.5, "spine": 3,
}  # fmt: skip
_CENTRAL = ("aorta", "great_vessels", "esophagus", "spine")  # of these, what goes on below the diaphragm


@dataclass(frozen=True)
class Fissure:
    """How one patient's fissure differs from the atlas': its signed distance is larger by `shift_mm` and by the noise."""

    shift_mm: float
    noise: Noise


def wall(maps: Maps, lattice: Lattice) -> Distances:
    """trunk and cavity: the muscles' outer surface, and what ribs and muscles enclose."""
    trunk = average.trunk(maps["body"].to_atlas(lattice))
    return {"trunk": trunk, "cavity": np.maximum(average.cavity(maps["cage"].to_atlas(lattice)), trunk + 11)}


def skin(habitus: Habitus, body: Arrays, trunk_mm: np.ndarray) -> np.ndarray:
    """The body's surface: the trunk under its fat, thin at the neck, thicker at the flanks and in front of the abdomen;
    and the breasts.
    """
    x, y, z = body
    front = np.clip(-y / 60, 0, 1)
    fat = np.float32(habitus.fat_mm) * np.interp(z, [80, 140], [1, 0.45]).astype(np.float32)
    fat *= 1 + np.float32(0.12) * np.clip(np.abs(x) / 80 - 1, 0, 1)
    fat += np.float32(habitus.belly_mm) * front * np.clip((-80 - z) / 80, 0, 1)
    surface = trunk_mm - fat
    if habitus.breast_mm:
        r, centre = habitus.breast_mm, (84, -92 - habitus.fat_mm * 0.7, -46)
        surface = smooth_minimum(
            surface, ellipsoid(np.abs(x), y, z, centre, (r * 1.3, r * 0.46, r * 1.2)), 26
        )
    return surface


def middle(maps: Maps, lattice: Lattice) -> Distances:
    """The organs in the middle of the chest (RIMS_MM); the heart goes on below the diaphragm."""
    by_heart, by_aorta = (maps[name].to_atlas(lattice) for name in ("heart", "aorta"))
    vessels = {"heart": by_heart, "aorta": by_aorta}
    return {
        "heart": nearby(maps["heart"], lattice, "heart", average.heart),
        "aorta": tubes_nearby(*by_aorta, [average.AORTA], REACH_MM),
        "pulmonary_artery": tubes_nearby(*by_heart, average.PULMONARY_ARTERY, REACH_MM),
        "great_vessels": _union(
            tubes_nearby(*a, [tube for m, tube in average.GREAT_VESSELS if m == name], REACH_MM)
            for name, a in vessels.items()
        ),
        "upper_mediastinum": tubes_nearby(*by_aorta, average.UPPER_MEDIASTINUM, REACH_MM),
        "trachea": tubes_nearby(*maps["trachea"].to_atlas(lattice), average.TRACHEA, REACH_MM),
        "esophagus": tubes_nearby(*maps["esophagus"].to_atlas(lattice), [average.ESOPHAGUS], REACH_MM),
        "spine": skeleton.spine_body(maps["spine"].to_atlas(lattice)),
    }


def above(maps: Maps, lattice: Lattice) -> np.ndarray:
    """Distance to what lies above the diaphragm: one dome for each lung, one passing into the other in the middle."""
    right, left = (
        average.above_dome(maps[name].to_atlas(lattice), name == "lung_left")
        for name in ("lung_right", "lung_left")
    )
    to_left = 1 / (1 + np.exp(-maps["body"].to_atlas(lattice)[0] / 9))
    return right + to_left * (left - right)


def heart(d: Distances) -> np.ndarray:
    """The heart as the diaphragm and the wall bound it."""
    return smooth_maximum(d["heart"], np.maximum(d["above"], d["cavity"] + 5), 6)


def with_rims(d: Distances) -> np.ndarray:
    """Distance to the union of what `middle` gives, each with its rim."""
    return _union(d[name] - np.float32(rim) for name, rim in RIMS_MM.items())


def around_lung(name: str, lung: Arrays, d: Distances) -> np.ndarray:
    """A lung (`lung` its atlas positions) as wall and mediastinum bound it (cavity, middle), without diaphragm."""
    sides = average.lung_sides(lung, name == "lung_left")
    wide = smooth_maximum(d["cavity"] + np.float32(1.5), sides, 6)
    return smooth_maximum(wide, -d["middle"], 8)  # no lung reaches into the angle between two vessels


def over_diaphragm(bounded: np.ndarray, above: np.ndarray) -> np.ndarray:
    """A lung from what `around_lung` says and the distance to what is above the diaphragm."""
    return smooth_maximum(bounded, above + 2, 6)


def below_diaphragm(d: Distances) -> np.ndarray:
    """What bounds the abdomen's organs: diaphragm and wall."""
    return np.maximum(3 - d["above"], d["cavity"] + 3)


def central(d: Distances) -> np.ndarray:
    """What the abdomen's organs give way to in the middle, with a rim of fat."""
    return _union(d[name] - np.float32(2.5) for name in _CENTRAL)


ABDOMEN: dict[str, tuple[Callable[[Arrays], np.ndarray], tuple[str, ...], float]] = {
    # shape, which of the others it gives way to, and how deep the fat between it and these is
    "kidneys": (average.kidneys, (), 0.0),
    "gall_bladder": (average.gall_bladder, ("kidneys",), 2.0),
    "liver": (average.liver, ("kidneys", "gall_bladder"), 1.0),
    "spleen": (average.spleen, ("kidneys", "liver"), 2.0),
    "stomach": (average.stomach, ("kidneys", "gall_bladder", "liver", "spleen"), 2.5),
}


def before(name: str) -> list[str]:
    """The organs of the abdomen that do not give way to this one, in the order to find them in."""
    names = list(ABDOMEN)
    return names[: names.index(name)]


def abdominal(name: str, organ: OrganMap, lattice: Lattice, d: Distances, bounds: np.ndarray) -> np.ndarray:
    """An organ of the abdomen within `bounds` and beside those in `d` that it gives way to."""
    shape, others, gap = ABDOMEN[name]
    distance = smooth_maximum(nearby(organ, lattice, name, shape), bounds, 5)
    for other in others:
        distance = np.maximum(distance, np.float32(gap) - d[other])
    return distance


FISSURES = {
    "fissure_right_oblique": ("lung_right", lambda a: average.oblique_fissure(a, left=False)),
    "fissure_right_horizontal": ("lung_right", average.horizontal_fissure),
    "fissure_left_oblique": ("lung_left", lambda a: average.oblique_fissure(a, left=True)),
}  # the lung each lies in, and the atlas'


def fissure(name: str, lung: Arrays, noise_mm: np.ndarray) -> np.ndarray:
    """Signed distance to a fissure, negative above, moved by its own noise only."""
    return FISSURES[name][1](lung) + noise_mm


def nearby(organ: OrganMap, lattice: Lattice, box: str, shape: Callable[[Arrays], np.ndarray]) -> np.ndarray:
    """Distance to a shape of the atlas that lies within a box of atlas.BOXES; REACH_MM at most."""
    distance = np.full(lattice.shape, REACH_MM, np.float32)
    ends = organ.to_patient(average.corners(box))
    margin = REACH_MM + 12  # the noise bends the box
    region = lattice.region(ends.min(axis=0) - margin, ends.max(axis=0) + margin)
    if region is not None:
        here = shape(organ.to_atlas(lattice.box(region)))
        distance[region] = np.minimum(here, np.float32(REACH_MM))
    return distance


def _union(distances: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.minimum, distances)
