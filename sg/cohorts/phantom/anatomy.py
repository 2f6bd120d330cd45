"""How one synthetic patient differs from the atlas.

Every organ has a map of its own from the patient to the atlas: the
patient's habitus (size and posture, shared), then the organ's own shift, turn and stretch, then smooth noise of its
own, all drawn independently of the other organs. A point is in an organ when its position in the atlas, by that
organ's map, is. Where organs meet, one gives way: lungs end at the chest wall, at the diaphragm and at whatever lies
in the mediastinum; what lies below the diaphragm ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sg.cohorts.phantom import atlas as average
from sg.cohorts.phantom.atlas import Arrays
from sg.cohorts.phantom.fields import (
    Lattice,
    Noise,
    draw_noise,
    ellipsoid,
    smooth_maximum,
    smooth_minimum,
    tube_nearby,
)


@dataclass(frozen=True)
class Variation:
    """How much an organ varies about its centre: standard deviations, for x, y and z."""

    centre_mm: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    stretch: tuple[float, float, float]
    turn_deg: float
    noise_mm: float


VARIATIONS: dict[str, Variation] = {
    "body": Variation((0, 0, -80), (0, 0, 0), (0.0, 0.0, 0.0), 0, 2.5),
    "cage": Variation((0, 5, -60), (2, 2, 4), (0.035, 0.04, 0.03), 1.0, 2.0),
    "lung_right": Variation((-62, 5, -40), (3, 4, 8), (0.04, 0.05, 0.05), 2.0, 3.0),
    "lung_left": Variation((68, 5, -45), (3, 4, 8), (0.04, 0.05, 0.05), 2.0, 3.0),
    "heart": Variation((15, -28, -60), (6, 4, 8), (0.09, 0.09, 0.09), 7.0, 2.5),
    "aorta": Variation((10, 10, -30), (4, 4, 7), (0.07, 0.07, 0.05), 2.0, 2.0),
    "trachea": Variation((0, 14, 20), (3, 3, 6), (0.08, 0.08, 0.05), 2.0, 1.5),
    "spine": Variation((0, 45, -80), (2, 3, 8), (0.06, 0.06, 0.03), 1.0, 2.5),
    "sternum": Variation((0, -80, -25), (2, 2, 6), (0.12, 0.05, 0.08), 2.0, 1.0),
    "liver": Variation((-50, 0, -180), (7, 6, 9), (0.09, 0.08, 0.09), 5.0, 4.5),
    "spleen": Variation((90, 42, -168), (7, 6, 10), (0.15, 0.15, 0.15), 9.0, 3.0),
    "stomach": Variation((52, -28, -170), (8, 6, 9), (0.16, 0.16, 0.16), 8.0, 4.0),
    "kidneys": Variation((0, 50, -250), (4, 4, 10), (0.06, 0.08, 0.08), 3.0, 2.0),
}


@dataclass(frozen=True)
class OrganMap:
    """Where a point of the patient lies in the atlas, by one organ: `matrix` @ p + `offset_mm` + noise(p)."""

    matrix: np.ndarray
    offset_mm: np.ndarray
    noise: Noise

    def to_atlas(self, lattice: Lattice) -> Arrays:
        """Atlas positions x, y, z of a lattice of patient positions, each float32 (z, y, x)."""
        x, y, z = lattice.grids
        noise = self.noise.on(lattice)
        m = self.matrix.astype(np.float32)
        for row, total in enumerate(noise):
            total += m[row, 0] * x + np.float32(self.offset_mm[row])
            total += m[row, 1] * y
            total += m[row, 2] * z
        return tuple(noise)

    def to_patient(self, atlas_mm: np.ndarray) -> np.ndarray:
        """Patient positions (n, 3) of atlas positions (n, 3): the inverse, by fixed-point iteration.

        The noise changes by much less than the way along which it changes, so that each round shrinks the error by a
        factor of about 3 or more; from some 10 mm to some thousandths of one.
        """
        inverse = np.linalg.inv(self.matrix)
        points = _times(inverse, atlas_mm - self.offset_mm)
        for _ in range(9):
            points = _times(inverse, atlas_mm - self.offset_mm - self.noise.at(points))
        return points


def _times(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """matrix @ point for each of (n, 3) points, without BLAS (whose bits may depend on its threads)."""
    return (points[:, None, :] * matrix[None, :, :]).sum(axis=2)


def _rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
        matrix = turn @ matrix
    return matrix


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: the organs' maps and what is not a map."""

    maps: dict[str, OrganMap]
    centre_mm: np.ndarray  # where the atlas origin lies in the scanner, LPS
    width: float  # size along x relative to the atlas
    height: float  # and along z
    fat_mm: float  # subcutaneous fat
    belly_mm: float  # more of it, in front of the abdomen
    breast_mm: float  # radius of the breasts, 0 for none
    hu: dict[str, float]  # mean of each tissue


Draw = Callable[[str], np.random.Generator]


def draw_patient(draw: Draw, abdominal: bool) -> Patient:
    """A patient, all of whose chance comes from `draw(purpose)`: one generator per organ, so that organs vary apart.

    `abdominal`: the contrast phase is that of a liver scan, else that of a chest scan.
    """
    rng = draw("habitus")
    overall = rng.normal(0, 0.035)
    size = np.exp(overall + rng.normal(0, (0.045, 0.055, 0.035)))
    turn = _rotation(rng.normal(0, (1.5, 1.0, 2.5)))
    centre = np.array([rng.normal(0, 7), rng.normal(0, 7), rng.uniform(-350, 150)])
    fat = float(np.clip(rng.lognormal(np.log(13), 0.45), 5, 30))
    belly = float(fat * rng.uniform(0, 0.8))
    breast = float(rng.uniform(38, 62)) if rng.random() < 0.5 else 0.0

    habitus = np.linalg.inv(turn @ np.diag(size))
    maps = {name: _draw_map(draw(name), variation, habitus, centre) for name, variation in VARIATIONS.items()}
    return Patient(
        maps,
        centre,
        float(size[0]),
        float(size[2]),
        fat,
        belly,
        breast,
        _draw_hu(draw("contrast"), abdominal),
    )


def _draw_map(
    rng: np.random.Generator, variation: Variation, habitus: np.ndarray, centre_mm: np.ndarray
) -> OrganMap:
    """atlas = c + own (habitus (p - centre) - c - shift), where c is the organ's centre in the atlas."""
    c = np.array(variation.centre_mm, float)
    shift = rng.normal(0, 1, 3) * variation.shift_mm
    stretch = np.exp(rng.normal(0, 1, 3) * variation.stretch)
    own = np.linalg.inv(_rotation(rng.normal(0, 1, 3) * variation.turn_deg) @ np.diag(stretch))
    matrix = own @ habitus
    offset = c - own @ (c + shift) - matrix @ centre_mm
    middle = centre_mm + np.linalg.inv(habitus) @ np.array([0, 0, -90.0])
    noise = draw_noise(rng, middle, 290, 52, variation.noise_mm)
    return OrganMap(matrix, offset, noise)


def _draw_hu(rng: np.random.Generator, abdominal: bool) -> dict[str, float]:
    """Mean HU of each tissue. Contrast medium in half of the chest scans (arterial) and most liver scans (venous)."""
    n = rng.normal
    hu = {
        "fat": n(-105, 6), "muscle": n(52, 6), "blood": n(42, 4), "heart": n(40, 5), "liver": n(56, 8),
        "spleen": n(48, 4), "kidneys": n(32, 4), "wall": n(38, 5), "fluid": n(15, 10), "mediastinum": n(-85, 12),
        "cartilage": n(105, 15), "marrow": n(190, 35), "cortex": n(480, 70), "lung": n(-850, 22), "soft": n(42, 6),
        "bowel": n(28, 10),
    }  # fmt: skip
    if rng.random() < 0.15:
        hu["liver"] = n(25, 12)  # fatty
    if rng.random() < (0.8 if abdominal else 0.5):
        if abdominal:
            rise = {
                "blood": n(105, 18),
                "heart": n(90, 18),
                "liver": n(48, 12),
                "spleen": n(66, 12),
                "kidneys": n(140, 20),
            }
        else:
            rise = {
                "blood": n(190, 50),
                "heart": n(150, 45),
                "liver": n(18, 10),
                "spleen": n(55, 20),
                "kidneys": n(110, 25),
            }
        rise |= {"muscle": n(8, 3), "wall": n(30, 8), "soft": n(22, 8)}
        for name, more in rise.items():
            hu[name] += more
    return {name: float(value) for name, value in hu.items()}


def shapes(patient: Patient, lattice: Lattice) -> dict[str, np.ndarray]:
    """Distance to each organ on a lattice of patient positions, float32 (z, y, x), negative inside.

    Keys: skin, trunk, cavity, above (the diaphragm), lung_right, lung_left, heart, aorta, great_vessels, trachea,
    esophagus, spine (bodies and discs), middle (all of these from the heart on, with a rim), sternum, liver, spleen,
    stomach, kidneys.
    """
    atlas = {name: organ.to_atlas(lattice) for name, organ in patient.maps.items()}
    d: dict[str, np.ndarray] = {}
    d["trunk"] = average.trunk(atlas["body"])
    d["skin"] = _skin(patient, atlas["body"], d["trunk"])
    d["cavity"] = np.maximum(average.cavity(atlas["cage"]), d["trunk"] + 11)
    right, left = (
        average.above_dome(atlas[name], name == "lung_left") for name in ("lung_right", "lung_left")
    )
    to_left = 1 / (1 + np.exp(-atlas["body"][0] / 9))
    d["above"] = right + to_left * (left - right)

    d["heart"] = smooth_maximum(average.heart(atlas["heart"]), np.maximum(d["above"], d["cavity"] + 5), 6)
    d["aorta"] = average.aorta(atlas["aorta"])
    d["great_vessels"] = _union(tube_nearby(*atlas[m], p, r, 25) for m, p, r in average.GREAT_VESSELS)
    d["trachea"] = _union(tube_nearby(*atlas["trachea"], p, r, 60) for p, r in average.TRACHEA)
    d["esophagus"] = tube_nearby(*atlas["trachea"], *average.ESOPHAGUS, 25)
    d["spine"] = average.spine_body(atlas["spine"])
    d["sternum"] = average.sternum(atlas["sternum"])
    # The lungs leave room for all of these, and for some fat around them.
    rims = {"heart": 3.5, "aorta": 2.5, "great_vessels": 2, "trachea": 3, "esophagus": 2.5, "spine": 3}
    d["middle"] = _union(d[name] - rim for name, rim in rims.items())
    for name in ("lung_right", "lung_left"):
        sides = average.lung_sides(atlas[name], name == "lung_left")
        lung = smooth_maximum(np.maximum(d["cavity"] + 2.5, sides), d["above"] + 2, 6)
        d[name] = np.maximum(lung, -d["middle"])
    below = np.maximum(3 - d["above"], d["cavity"] + 3)
    for name, shape in (
        ("liver", average.liver),
        ("spleen", average.spleen),
        ("stomach", average.stomach),
        ("kidneys", average.kidneys),
    ):
        d[name] = smooth_maximum(shape(atlas[name]), below, 5)
    return d


def _union(distances: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.minimum, distances)


def _skin(patient: Patient, a: Arrays, trunk_mm: np.ndarray) -> np.ndarray:
    """The body's surface: the trunk under its fat, thicker in front of the abdomen, and the breasts."""
    x, y, z = a
    front = np.clip(-y / 60, 0, 1)
    fat = patient.fat_mm + patient.belly_mm * front * np.clip((-80 - z) / 80, 0, 1)
    skin = trunk_mm - fat.astype(np.float32)
    if patient.breast_mm:
        r = patient.breast_mm
        breast = ellipsoid(
            np.abs(x), y, z, (78, -84 - patient.fat_mm * 0.6, -40), (r * 1.15, r * 0.75, r * 1.2)
        )
        skin = smooth_minimum(skin, breast, 16)
    return skin


BLEND_MM, DEEP_MM, REST_MM = 10.0, 30.0, 15.0


def blended_atlas(patient: Patient, lattice: Lattice, d: dict[str, np.ndarray]) -> np.ndarray:
    """Atlas position (x, y, z) of every lattice point, float32 (3, z, y, x): by the organ that it lies in.

    Between organs the maps are mixed with weights exp(-distance / BLEND_MM), which level off DEEP_MM inside; the
    distance of the rest of the body is held at REST_MM. Deep in a large organ a point is where that organ's map says to
    within a few per cent of the difference between the maps; in the middle of the aorta to within a quarter of it.
    """
    total = np.zeros((3, *lattice.shape), np.float32)
    weights = np.zeros(lattice.shape, np.float32)
    for name, organ in patient.maps.items():
        if name == "body":
            distance = np.full(lattice.shape, REST_MM, np.float32)
        elif name == "cage":
            distance = np.abs(d["cavity"] - 5) - 4  # the ribs lie just outside the cavity
        else:
            distance = d[name]
        weight = 1 / (np.exp(distance / BLEND_MM) + np.float32(np.exp(-DEEP_MM / BLEND_MM)))
        for row, position in enumerate(organ.to_atlas(lattice)):
            total[row] += weight * position
        weights += weight
    return total / weights
