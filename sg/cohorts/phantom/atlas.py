"""The atlas: an average chest, as shapes in mm.

Atlas positions are LPS: x to the patient's left, y to the back, z up, with the origin in the midline at the carina,
about half-way between breastbone and back. A function of this module takes positions `a` = (x, y, z), float32 arrays
of one shape (or of shapes that broadcast), and gives the distance to one organ's surface, negative inside. Sizes and
places are those of an average adult lying on the back after a deep breath, as anatomy textbooks and CT show them,
rounded; they make plausible images, not a statistical model of people.
"""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.fields import ellipsoid, smooth_maximum, smooth_minimum, tube

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
Path = tuple[np.ndarray, np.ndarray]  # points (n, 3) and radii (n)

# The muscles' outer surface: half-width, front, back, and the power of the superellipse. Above the arm pits the
# shoulders widen and flatten into a lens, then fall away to the neck.
_Z_TRUNK = [-380, -250, -180, -100, -40, 0, 40, 75, 100, 118, 134, 150, 166, 200]
_TRUNK = {
    "half": [136, 135, 141, 147, 149, 152, 160, 172, 175, 163, 133, 94, 66, 60],
    "front": [-92, -94, -99, -106, -104, -97, -85, -72, -62, -56, -50, -45, -42, -44],
    "back": [99, 99, 105, 113, 117.5, 118.5, 116, 110, 104, 97, 89, 82, 76, 66],
    "power": [2.4, 2.4, 2.45, 2.45, 2.45, 2.5, 2.45, 2.3, 2.15, 2.0, 1.9, 1.9, 2.0, 2.0],
}
Z_CAVITY = [-380, -250, -185, -130, -80, -40, 0, 40, 66, 86, 100, 112, 120]
CAVITY = {
    "half": [120, 121, 128, 135, 135, 132, 126, 116, 104, 88, 70, 46, 14],
    "front": [-80, -84, -88, -94, -95, -90, -80, -63, -45, -26, -12, 2, 12],
    "back": [58, 66, 84, 98, 104, 105, 103, 96, 87, 76, 65, 53, 42],
}
CAVITY_POWER = 2.4


def _profile(z: np.ndarray, knots: list[float], values: list[float]) -> np.ndarray:
    return np.interp(z, knots, values).astype(np.float32)


def _outline(
    a: Arrays, half: np.ndarray, front: np.ndarray, back: np.ndarray, power: np.ndarray
) -> np.ndarray:
    """Nearly the distance to a body of superelliptic sections."""
    x, y, _ = a
    depth = (back - front) / 2
    u, v = np.abs(x) / half, np.abs(y - (front + back) / 2) / depth
    f = np.maximum((u**power + v**power) ** (1 / power), np.float32(1e-3))
    slope = np.sqrt((u ** (power - 1) / half) ** 2 + (v ** (power - 1) / depth) ** 2) / f ** (power - 1)
    # Near the axis the first-order distance is meaningless but large and negative, which is all that is asked of it.
    return (f - 1) / np.maximum(slope, 1 / np.maximum(half, depth))


def trunk(a: Arrays) -> np.ndarray:
    """The body without its fat, breasts and arms: the outer surface of the muscles, up to the neck."""
    half, front, back, power = (
        _profile(a[2], _Z_TRUNK, _TRUNK[k]) for k in ("half", "front", "back", "power")
    )
    return _outline(a, half, front, back, power)


def cavity(a: Arrays) -> np.ndarray:
    """What the ribs and the abdominal muscles enclose, without the room of the vertebrae's arches and their muscles."""
    half, front, back = (_profile(a[2], Z_CAVITY, CAVITY[k]) for k in ("half", "front", "back"))
    gutter = _profile(a[1], [56, 72, 105], [14, 24, 34])
    behind = np.minimum(gutter - np.abs(a[0]), a[1] - np.float32(60))
    return smooth_maximum(_outline(a, half, front, back, np.float32(CAVITY_POWER)), behind, 8)


DOME_TOP_MM = {"lung_right": -103.0, "lung_left": -113.0}
_DOME_DROP_MM = 92.0  # from the top of a dome to the bottom of the recesses, far beyond the wall


def above_dome(a: Arrays, left: bool) -> np.ndarray:
    """Distance to what lies above one side's dome of the diaphragm (negative above).

    A dome is flat on top and steep along the wall, where the lung's edge reaches into the recesses.
    """
    x, y, z = a
    outward = x if left else -x
    top = np.float32(DOME_TOP_MM["lung_left" if left else "lung_right"])
    u = (outward - 60) / np.where(outward > 60, np.float32(66), np.float32(118))
    v = (y - 2) / np.where(y > 2, np.float32(94), np.float32(108))
    square = u * u + v * v
    rest = 1 / np.sqrt(1 + square * square)
    dome = top - np.float32(_DOME_DROP_MM) * square * rest - np.float32(0.14) * y
    # d/dr of r^2 / sqrt(1 + r^4) is 2 r / (1 + r^4)^1.5; r changes by 1 over some 90 mm.
    slope = np.float32(_DOME_DROP_MM / 90 * 2) * np.sqrt(square) * rest * rest * rest
    return (dome - z) / np.sqrt(1 + slope * slope)


def lung_sides(a: Arrays, left: bool) -> np.ndarray:
    """What bounds a lung towards the middle and at the top (the rest bounds itself: wall, diaphragm, heart)."""
    x, y, z = a
    outward = x if left else -x
    # In front the lungs nearly meet behind the breastbone; behind the heart the right one comes closer to the middle.
    inner = [3, 4, 11, 15, 12, 19, 27, 38] if left else [3, 4, 10, 14, 7, 18, 27, 38]
    # Fat fills the angle between heart and diaphragm.
    angle = 0.45 * np.maximum(-92 - z, 0) * np.clip((10 - y) / 40, 0, 1)
    middle = _profile(y, [-95, -66, -42, 4, 27, 48, 72, 105], inner) + 0.2 * np.maximum(z - 26, 0) + angle
    apex = ellipsoid(outward, y, z, (60, 22, 36), (66, 92, 80))
    upper = np.where(z > 36, apex, np.float32(-60))
    return np.maximum((middle - outward).astype(np.float32), upper)


_OBLIQUE_TILT = {"lung_right": 1.25, "lung_left": 1.4}  # mm up for each mm back
_OBLIQUE_HEIGHT = {"lung_right": -74.0, "lung_left": -62.0}  # z of the fissure in front of the hilum, y = -20
_HORIZONTAL_HEIGHT = -36.0


def oblique_fissure(a: Arrays, left: bool) -> np.ndarray:
    """Signed distance to a lung's oblique fissure: negative above and in front of it.

    It runs from the back at the level of the third thoracic vertebra down to the front end of the diaphragm, bulging
    forward in its lower and turning a little outward in its upper part, as a propeller does.
    """
    x, y, z = a
    side = "lung_left" if left else "lung_right"
    outward = x if left else -x
    tilt = np.float32(_OBLIQUE_TILT[side])
    curve = 0.0016 * np.square(y - 10) * np.where(y < 10, 1, -0.6)
    height = _OBLIQUE_HEIGHT[side] + tilt * (y + 20) + curve + (0.16 + 0.0016 * y) * (outward - 60)
    return ((height - z) / np.sqrt(1 + tilt * tilt)).astype(np.float32)


def horizontal_fissure(a: Arrays) -> np.ndarray:
    """Signed distance to the right lung's horizontal fissure, a shallow dome: negative above."""
    x, y, z = a
    height = _HORIZONTAL_HEIGHT - 0.0025 * np.square(-x - 62) - 0.002 * np.square(y + 30) + 0.12 * (y + 30)
    return (height - z).astype(np.float32)


def heart(a: Arrays) -> np.ndarray:
    """The heart with both atria, without the great vessels."""
    x, y, z = a
    # Its long axis runs to the left, forward and down.
    c, s = np.float32(np.cos(0.65)), np.float32(np.sin(0.65))
    dx, dy, dz = x - 25, y + 37, z + 73
    along, across, up = c * dx - s * dy * 0.8 - s * dz * 0.5, s * dx * 0.8 + c * dy, s * dx * 0.5 + c * dz
    ventricles = ellipsoid(along, across, up, (0, 0, 0), (60, 43, 50))
    right_atrium = ellipsoid(x, y, z, (-22, -20, -64), (27, 33, 43))
    left_atrium = ellipsoid(x, y, z, (2, 12, -42), (36, 20, 26))
    below = ellipsoid(x, y, z, (22, -40, -100), (50, 38, 34))  # lies on the diaphragm, which cuts it
    return smooth_minimum(
        smooth_minimum(smooth_minimum(ventricles, below, 16), right_atrium, 14), left_atrium, 12
    )


def _path(points: list[tuple[float, float, float]], radii: list[float]) -> Path:
    return np.array(points, float), np.array(radii, float)


AORTA = _path(
    [(2, -26, -48), (-9, -30, -20), (-10, -27, 5), (-3, -16, 22), (8, 2, 28), (17, 20, 23), (22, 33, 8), (23, 38, -20),
     (20, 36, -80), (13, 29, -150), (5, 20, -230), (2, 16, -300), (2, 14, -370)],
    [14.5, 15, 14.5, 13.5, 12.5, 12, 12, 11.5, 11, 10.5, 9.5, 8.5, 8.0],
)  # fmt: skip


def aorta(a: Arrays) -> np.ndarray:
    """The aorta from its root to below the kidneys."""
    return tube(*a, *AORTA)


# Trunk, right and left main branch, and the beginnings of the lobar ones; they follow the heart's map.
PULMONARY_ARTERY = (
    _path([(18, -46, -38), (16, -34, -14), (12, -14, -8)], [14, 13.5, 13]),
    _path([(12, -14, -8), (-14, -3, -15), (-34, 4, -18)], [12, 10.5, 9]),
    _path([(-34, 4, -18), (-46, 1, 4)], [7, 5]),
    _path([(-34, 4, -18), (-45, 12, -44)], [8.5, 6.5]),
    _path([(12, -14, -8), (26, 4, -5), (38, 16, -10)], [12, 10.5, 9.5]),
    _path([(38, 16, -10), (47, 12, 10)], [7, 5]),
    _path([(38, 16, -10), (49, 22, -44)], [8.5, 6.5]),
)
# The other great vessels: (organ whose map they follow, path and radii)
GREAT_VESSELS = (
    ("heart", _path([(-2, 12, -42), (-32, 6, -40), (-44, 2, -30)], [9, 7, 5])),  # pulmonary veins, upper right
    ("heart", _path([(-4, 14, -48), (-34, 16, -56), (-44, 20, -66)], [8.5, 7, 5])),  # lower right
    ("heart", _path([(6, 12, -40), (36, 4, -30), (46, 0, -18)], [9, 7, 5])),  # upper left
    ("heart", _path([(6, 14, -46), (36, 20, -56), (46, 24, -66)], [8.5, 7, 5])),  # lower left
    ("heart", _path([(-20, -4, -62), (-19, 4, -95)], [11, 11])),  # lower vena cava above the diaphragm
    ("aorta", _path([(-20, 6, -95), (-23, 14, -150), (-22, 20, -230), (-20, 22, -370)], [11, 12, 11, 10])),  # below it
    ("aorta", _path([(-24, -20, -45), (-26, -16, 0), (-24, -18, 45), (-34, -20, 80)], [10, 9, 8, 7])),  # upper vena cava
    ("aorta", _path([(-20, -18, 42), (0, -28, 38), (26, -20, 55), (40, -10, 85)], [7, 6.5, 6.5, 6])),  # left brachiocephalic
    ("aorta", _path([(-5, -14, 28), (-14, -2, 60), (-24, 2, 110), (-28, 8, 180)], [6.5, 6, 5, 4.5])),  # of the arch
    ("aorta", _path([(5, -4, 30), (9, 4, 70), (20, 6, 120), (27, 10, 180)], [5, 4.5, 4.5, 4.2])),
    ("aorta", _path([(14, 14, 26), (23, 15, 60), (34, 10, 100), (60, -4, 124), (95, -14, 114)], [5.5, 5, 5, 5, 4.5])),
    ("aorta", _path([(-20, 0, 86), (-34, 2, 106), (-60, -6, 124), (-95, -14, 114)], [5, 5, 5, 4.5])),  # right subclavian
)  # fmt: skip
# Fat and fascia between the great vessels above the arch and the windpipe: lungs stay beside them, and the vessels are
# bulges of the mediastinum. Chosen by eye.
UPPER_MEDIASTINUM = (
    _path([(-16, -10, 34), (-19, -10, 62), (-22, -6, 92), (-26, 0, 120)], [13, 15, 15, 13]),
    _path([(13, -2, 34), (17, 0, 62), (24, 0, 92), (28, 2, 120)], [13, 16, 16, 13]),
)
TRACHEA = (
    _path([(0, 6, 190), (0, 10, 135), (0, 14, 60), (0, 18, 2)], [8.5, 8.5, 8.5, 8.5]),
    _path([(0, 18, 2), (-18, 19, -16), (-36, 18, -34)], [7.5, 7, 6]),
    _path([(0, 18, 2), (20, 20, -18), (42, 18, -32)], [7, 6.5, 5.5]),
)
ESOPHAGUS = _path(
    [(2, 24, 190), (4, 27, 120), (4, 31, 20), (2, 31, -60), (10, 20, -120), (25, -2, -145)],
    [6, 6.5, 7, 7.5, 8, 9],
)


def liver(a: Arrays) -> np.ndarray:
    """The liver without what the diaphragm and the abdominal wall cut off."""
    x, y, z = a
    right = ellipsoid(x, y, z, (-76, 8, -160), (66, 88, 84))
    tip = ellipsoid(x, y, z, (-98, 16, -222), (34, 56, 56))
    left = ellipsoid(x, y, z, (8, -48, -138), (78, 36, 38))
    body = smooth_minimum(smooth_minimum(right, tip, 22), left, 26)
    hilum = ellipsoid(x, y, z, (-14, 14, -196), (26, 32, 34))
    return smooth_maximum(body, -hilum, 14)


def gall_bladder(a: Arrays) -> np.ndarray:
    """The gall bladder, under the liver: a pear, its blind end forward and down."""
    x, y, z = a
    fundus = ellipsoid(x, y, z, (-54, -46, -216), (15, 16, 18))
    neck = ellipsoid(x, y, z, (-42, -26, -202), (9, 17, 11))
    return smooth_minimum(fundus, neck, 12)


def spleen(a: Arrays) -> np.ndarray:
    """The spleen, hollow towards the stomach."""
    x, y, z = a
    c, s = np.float32(np.cos(0.5)), np.float32(np.sin(0.5))
    dx, dy = x - 88, y - 44
    body = ellipsoid(c * dx + s * dy, -s * dx + c * dy, z, (0, 0, -168), (29, 50, 54))
    hilum = ellipsoid(x, y, z, (50, 18, -168), (30, 30, 32))
    return smooth_maximum(body, -hilum, 10)


def stomach(a: Arrays) -> np.ndarray:
    """The stomach, wall included."""
    fundus = ellipsoid(*a, (56, -2, -150), (40, 44, 38))
    body = ellipsoid(*a, (44, -46, -198), (32, 28, 48))
    return smooth_minimum(fundus, body, 20)


def kidneys(a: Arrays) -> np.ndarray:
    """Both kidneys, their upper ends closer to the spine than the lower ones."""
    x, y, z = a
    right = ellipsoid(x - 0.2 * (z + 258), y, z, (-60, 50, -258), (26, 24, 52))
    left = ellipsoid(x + 0.2 * (z + 244), y, z, (60, 50, -244), (26, 24, 54))
    return np.minimum(right, left)


# Boxes (x, y, z from, to) that hold an organ, mm, for looking no further than around them.
BOXES = {
    "heart": ((-62, -110, -150), (105, 45, 12)),
    "liver": ((-148, -98, -290), (94, 108, -72)),
    "gall_bladder": ((-74, -68, -240), (-28, -4, -184)),
    "spleen": ((42, -12, -228), (140, 102, -108)),
    "stomach": ((8, -80, -252), (102, 48, -106)),
    "kidneys": ((-104, 20, -318), (104, 82, -184)),
}


def corners(organ: str) -> np.ndarray:
    """The corners (8, 3) of an organ's box."""
    sides = np.stack(np.meshgrid(*zip(*BOXES[organ], strict=True), indexing="ij"), axis=-1)
    return sides.reshape(-1, 3).astype(float)
