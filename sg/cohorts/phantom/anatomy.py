"""The atlas of a chest, and how one synthetic patient differs from it.

Atlas positions are mm in LPS: x to the patient's left, y to the back, z up, with the origin in the midline at the
carina, half-way between breastbone and back. Every organ has a map of its own from the patient to the atlas: the
patient's habitus (size and posture, shared), then the organ's own shift, turn and stretch, then smooth noise of its
own, all drawn independently of the other organs. A point is in an organ when its position in the atlas, by that
organ's map, is. Where organs meet, one gives way: lungs end at the chest wall, at the diaphragm and at whatever lies
in the mediastinum; what lies below the diaphragm ends there.

Sizes and places are those of an average adult as anatomy textbooks give them, rounded; they make plausible images,
not a statistical model of people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sg.cohorts.phantom.fields import (
    Lattice,
    Noise,
    draw_noise,
    ellipsoid,
    smooth_maximum,
    smooth_minimum,
    tube,
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


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

        The noise is much smoother than it is large, so each round shrinks the error by a factor of 5 or more.
        """
        inverse = np.linalg.inv(self.matrix)
        points = _times(inverse, atlas_mm - self.offset_mm)
        for _ in range(6):
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


# ---------------------------------------------------------------------------------- shapes in the atlas

_Z_TRUNK = [-360, -250, -180, -100, -40, 0, 40, 80, 110, 150]
_TRUNK = {
    "half": [136, 134, 143, 150, 151, 149, 150, 150, 144, 112],
    "front": [-86, -90, -95, -99, -97, -88, -74, -54, -36, -25],
    "back": [88, 87, 90, 97, 101, 101, 99, 94, 86, 80],
}
_Z_CAVITY = [-360, -250, -185, -120, -60, 0, 40, 70, 90, 106]
_CAVITY = {
    "half": [116, 116, 127, 134, 131, 121, 106, 82, 57, 24],
    "front": [-76, -80, -84, -87, -82, -68, -48, -24, -4, 10],
    "back": [52, 58, 76, 83, 84, 82, 76, 68, 58, 46],
}


def _outline(a: Arrays, z_knots: list[float], profile: dict[str, list[float]], power: float) -> np.ndarray:
    """Nearly the distance to a body of superelliptic sections whose half-width, front and back change with z."""
    x, y, z = a
    half, front, back = (
        np.interp(z, z_knots, profile[k]).astype(np.float32) for k in ("half", "front", "back")
    )
    depth = (back - front) / 2
    u, v = np.abs(x) / half, np.abs(y - (front + back) / 2) / depth
    f = np.maximum((u**power + v**power) ** (1 / power), np.float32(1e-3))
    slope = np.sqrt((u ** (power - 1) / half) ** 2 + (v ** (power - 1) / depth) ** 2) / f ** (power - 1)
    # Near the axis the first-order distance is meaningless but large and negative, which is all that is asked of it.
    return (f - 1) / np.maximum(slope, 1 / np.maximum(half, depth))


def trunk(a: Arrays) -> np.ndarray:
    """The body without its fat and breasts: the outer surface of the muscles."""
    return _outline(a, _Z_TRUNK, _TRUNK, 2.6)


def cavity(a: Arrays) -> np.ndarray:
    """What the ribs and the abdominal muscles enclose."""
    return _outline(a, _Z_CAVITY, _CAVITY, 2.3)


def above_dome(a: Arrays, left: bool) -> np.ndarray:
    """Distance to what lies above one side's dome of the diaphragm (negative above)."""
    x, y, z = a
    outward, top = (x, np.float32(-124)) if left else (-x, np.float32(-113))
    u = (outward - 58) / np.where(outward > 58, np.float32(76), np.float32(125))
    v = (y + 8) / np.float32(86)
    dome = top - 78 * (u * u + v * v) - 0.16 * y
    slope = 156 * np.sqrt((u / 95) ** 2 + (v / 86) ** 2)
    return (dome - z) / np.sqrt(1 + slope * slope)


def lung_sides(a: Arrays, left: bool) -> np.ndarray:
    """What bounds a lung towards the middle and at the top (the rest bounds itself: wall, diaphragm, heart)."""
    x, y, z = a
    outward = x if left else -x
    middle = np.interp(y, [-75, -55, -40, 28, 90], [4, 7, 15, 18, 40]) + 0.22 * np.maximum(z - 30, 0)
    apex = ellipsoid(outward, y, z, (50, 14, 38), (50, 54, 62))
    upper = np.where(z > 38, apex, np.float32(-60))
    return np.maximum((middle - outward).astype(np.float32), upper)


def heart(a: Arrays) -> np.ndarray:
    x, y, z = a
    # Its long axis runs to the left, forward and down.
    c, s = np.float32(np.cos(0.65)), np.float32(np.sin(0.65))
    dx, dy, dz = x - 26, y + 34, z + 64
    along, across, up = c * dx - s * dy * 0.8 - s * dz * 0.5, s * dx * 0.8 + c * dy, s * dx * 0.5 + c * dz
    ventricles = ellipsoid(along, across, up, (0, 0, 0), (60, 45, 47))
    right_atrium = ellipsoid(x, y, z, (-22, -18, -58), (28, 34, 40))
    left_atrium = ellipsoid(x, y, z, (2, 12, -42), (36, 20, 26))
    return smooth_minimum(smooth_minimum(ventricles, right_atrium, 14), left_atrium, 12)


_AORTA = np.array(
    [(2, -26, -48), (-9, -30, -20), (-10, -27, 5), (-3, -16, 22), (8, 2, 28), (17, 20, 23), (22, 33, 8), (23, 38, -20),
     (20, 36, -80), (13, 31, -150), (5, 24, -230), (2, 20, -300), (2, 18, -370)], float
)  # fmt: skip
_AORTA_RADII = np.array([14.5, 15, 14.5, 13.5, 12.5, 12, 12, 11.5, 11, 10.5, 9.5, 8.5, 8.0])


def aorta(a: Arrays) -> np.ndarray:
    return tube(*a, _AORTA, _AORTA_RADII)


# The other great vessels: (organ whose map they follow, path, radii)
GREAT_VESSELS: tuple[tuple[str, list[tuple], list[float]], ...] = (
    ("heart", [(18, -46, -38), (16, -34, -14), (12, -14, -8)], [14, 13.5, 13]),  # pulmonary trunk
    ("heart", [(12, -14, -8), (-14, -2, -14), (-34, 4, -16)], [12, 10.5, 9]),  # right pulmonary artery
    ("heart", [(12, -14, -8), (26, 4, -6), (40, 14, -8)], [12, 10, 8.5]),  # left
    ("heart", [(-2, 12, -42), (-32, 10, -44)], [9, 7]),  # pulmonary veins
    ("heart", [(6, 12, -42), (36, 14, -42)], [9, 7]),
    (
        "aorta",
        [(-24, -20, -45), (-26, -16, 0), (-24, -18, 45), (-34, -20, 80)],
        [10, 9, 8, 7],
    ),  # superior vena cava
    (
        "aorta",
        [(-20, -18, 42), (0, -28, 38), (26, -20, 55), (40, -10, 85)],
        [7, 6.5, 6.5, 6],
    ),  # left brachiocephalic
    ("aorta", [(-5, -14, 28), (-14, -2, 60), (-20, 4, 110)], [6.5, 6, 5]),  # arteries of the arch
    ("aorta", [(5, -4, 30), (9, 4, 70), (14, 8, 120)], [5, 4.5, 4.5]),
    ("aorta", [(14, 14, 26), (22, 16, 60), (36, 16, 95)], [5.5, 5, 5]),
    ("heart", [(-20, -4, -62), (-19, 4, -95)], [11, 11]),  # inferior vena cava, above and below the diaphragm
    ("aorta", [(-20, 6, -95), (-23, 14, -150), (-22, 20, -230), (-20, 22, -370)], [11, 12, 11, 10]),
)
TRACHEA = (
    ([(0, 10, 135), (0, 14, 60), (0, 18, 2)], [8.5, 8.5, 8.5]),
    ([(0, 18, 2), (-18, 19, -16), (-36, 18, -34)], [7.5, 7, 6]),
    ([(0, 18, 2), (20, 20, -18), (42, 18, -32)], [7, 6.5, 5.5]),
)
ESOPHAGUS = ([(4, 28, 130), (4, 31, 20), (2, 32, -60), (10, 20, -120), (25, -2, -145)], [7, 7, 7.5, 8, 9])


def liver(a: Arrays) -> np.ndarray:
    """The liver without what the diaphragm and the abdominal wall cut off."""
    x, y, z = a
    right = ellipsoid(x, y, z, (-72, 4, -168), (62, 78, 80))
    tip = ellipsoid(x, y, z, (-92, 12, -225), (34, 52, 58))
    left = ellipsoid(x, y, z, (4, -44, -145 - 0), (74, 32, 36))
    body = smooth_minimum(smooth_minimum(right, tip, 22), left, 26)
    hilum = ellipsoid(x, y, z, (-14, 12, -196), (26, 30, 34))
    return smooth_maximum(body, -hilum, 14)


def spleen(a: Arrays) -> np.ndarray:
    x, y, z = a
    c, s = np.float32(np.cos(0.5)), np.float32(np.sin(0.5))
    dx, dy = x - 88, y - 37
    body = ellipsoid(c * dx + s * dy, -s * dx + c * dy, z, (0, 0, -168), (29, 50, 54))
    hilum = ellipsoid(x, y, z, (50, 12, -168), (30, 30, 32))
    return smooth_maximum(body, -hilum, 10)


def stomach(a: Arrays) -> np.ndarray:
    fundus = ellipsoid(*a, (56, -8, -148), (40, 42, 36))
    body = ellipsoid(*a, (44, -48, -196), (32, 26, 46))
    return smooth_minimum(fundus, body, 20)


def kidneys(a: Arrays) -> np.ndarray:
    x, y, z = a
    right = ellipsoid(x, y, z, (-58, 46, -258), (26, 24, 52))
    left = ellipsoid(x, y, z, (58, 44, -244), (26, 24, 54))
    return np.minimum(right, left)


_Z_SPINE = [-370, -260, -140, -40, 60, 140]
_Y_SPINE = [32, 34, 44, 51, 40, 22]
VERTEBRA_MM = 25.0


def spine_axis(z: np.ndarray) -> np.ndarray:
    """y of the middle of the vertebral bodies at a height z."""
    return np.interp(z, _Z_SPINE, _Y_SPINE).astype(np.float32)


def spine_body(a: Arrays) -> np.ndarray:
    """The column of the vertebral bodies, discs included."""
    x, y, z = a
    radius = np.interp(z, [-370, -200, 0, 120], [24, 20, 16, 13]).astype(np.float32)
    v = (y - spine_axis(z)) * np.float32(1.15)
    return np.sqrt(x * x + v * v) - radius


def sternum_axis(z: np.ndarray) -> np.ndarray:
    """y of the middle of the breastbone at a height z."""
    return np.interp(z, [-115, -60, 0, 50], [-97, -92, -79, -55])


def sternum(a: Arrays) -> np.ndarray:
    x, y, z = a
    half = np.interp(z, [-115, -95, -40, 20, 50], [4, 15, 14, 19, 24]).astype(np.float32)
    plate = np.maximum(np.abs(x) - half, np.abs(y - sternum_axis(z).astype(np.float32)) - 5.5)
    return np.maximum(plate, np.abs(z + 31) - 82)


def rib_paths() -> list[tuple[np.ndarray, np.ndarray | None]]:
    """For each of 24 ribs the path of the bone in the atlas (n, 3) and that of its cartilage (None for the floating).

    A rib leaves the spine, follows the wall and sinks on its way forward.
    """
    ribs = []
    for number in range(12):
        head = 84 - 22.5 * number
        reach = np.interp(number, [0, 1, 6, 9, 10, 11], [148, 150, 150, 128, 92, 62])
        sink = np.interp(number, [0, 3, 7, 11], [40, 80, 108, 76])
        angle = np.deg2rad(np.linspace(24, reach, 13))
        share = (angle - angle[0]) / np.deg2rad(150 - 24)
        z = head - sink * (0.85 * share + 0.15 * share**2)
        half, front, back = (np.interp(z, _Z_CAVITY, _CAVITY[k]) for k in ("half", "front", "back"))
        half, depth, middle = half + 4, (back - front) / 2 + 4, (front + back) / 2
        power = 2 / 2.3
        x = half * np.abs(np.sin(angle)) ** power
        y = middle + depth * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        root = np.array(
            [
                (17, float(spine_axis(np.float64(head))) + 8, head),
                (24, float(spine_axis(np.float64(head))) + 20, head),
            ]
        )
        bone = np.vstack([root, np.column_stack([x, y, z])])
        cartilage = None
        if number < 10:
            end_z = max(40 - 17.5 * number, -104.0)
            end = np.array([15, float(sternum_axis(np.float64(end_z))), end_z])
            between = (bone[-1] + end) / 2 + (0, -3, -6)
            cartilage = np.vstack([bone[-1], between, end])
        for side in (-1, 1):
            mirror = np.array([side, 1, 1])
            ribs.append((bone * mirror, None if cartilage is None else cartilage * mirror))
    return ribs


CLAVICLE = np.array([(20, -58, 48), (50, -56, 58), (85, -42, 78), (125, -22, 96)], float)


def scapula(a: Arrays, left: bool) -> np.ndarray:
    """A thin plate behind the upper ribs."""
    x, y, z = a
    outward = x if left else -x
    across, along = np.float32(0.80), np.float32(0.60)
    dx, dy = outward - 104, y - 74
    thickness = np.abs(across * dy + along * dx) - 2.6
    width = np.interp(z, [-60, 60, 95], [6, 34, 30]).astype(np.float32)
    return np.maximum(np.maximum(thickness, np.abs(across * dx - along * dy) - width), np.abs(z - 18) - 75)


# --------------------------------------------------------------------------------------- the patient


def shapes(patient: Patient, lattice: Lattice) -> dict[str, np.ndarray]:
    """Distance to each organ on a lattice of patient positions, float32 (z, y, x), negative inside.

    Keys: skin, trunk, cavity, above (the diaphragm), lung_right, lung_left, heart, aorta, great_vessels, trachea,
    esophagus, spine (bodies and discs), middle (all of these from the heart on, with a rim), sternum, liver, spleen,
    stomach, kidneys.
    """
    atlas = {name: organ.to_atlas(lattice) for name, organ in patient.maps.items()}
    d: dict[str, np.ndarray] = {}
    d["trunk"] = trunk(atlas["body"])
    d["skin"] = _skin(patient, atlas["body"], d["trunk"])
    d["cavity"] = np.maximum(cavity(atlas["cage"]), d["trunk"] + 11)
    right, left = (above_dome(atlas[name], name == "lung_left") for name in ("lung_right", "lung_left"))
    to_left = 1 / (1 + np.exp(-atlas["body"][0] / 9))
    d["above"] = right + to_left * (left - right)

    d["heart"] = smooth_maximum(heart(atlas["heart"]), np.maximum(d["above"], d["cavity"] + 5), 6)
    d["aorta"] = aorta(atlas["aorta"])
    d["great_vessels"] = _union(tube(*atlas[m], np.array(p, float), np.array(r)) for m, p, r in GREAT_VESSELS)
    d["trachea"] = _union(tube(*atlas["trachea"], np.array(p, float), np.array(r)) for p, r in TRACHEA)
    d["esophagus"] = tube(*atlas["trachea"], np.array(ESOPHAGUS[0], float), np.array(ESOPHAGUS[1]))
    d["spine"] = spine_body(atlas["spine"])
    d["sternum"] = sternum(atlas["sternum"])
    # The lungs leave room for all of these, and for some fat around them.
    rims = {"heart": 3.5, "aorta": 2.5, "great_vessels": 2, "trachea": 3, "esophagus": 2.5, "spine": 3}
    d["middle"] = _union(d[name] - rim for name, rim in rims.items())
    for name in ("lung_right", "lung_left"):
        sides = lung_sides(atlas[name], name == "lung_left")
        lung = smooth_maximum(np.maximum(d["cavity"] + 2.5, sides), d["above"] + 2, 6)
        d[name] = np.maximum(lung, -d["middle"])
    below = np.maximum(3 - d["above"], d["cavity"] + 3)
    for name, shape in (("liver", liver), ("spleen", spleen), ("stomach", stomach), ("kidneys", kidneys)):
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
