"""The atlas: an average chest, as shapes in mm.

Atlas positions are LPS: x to the patient's left, y to the back, z up, with the origin in the midline at the carina,
half-way between breastbone and back. A function of this module takes positions `a` = (x, y, z), float32 arrays of one
shape, and gives the distance to one organ's surface, negative inside. Sizes and places are those of an average adult as
anatomy textbooks give them, rounded; they make plausible images, not a statistical model of people.
"""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.fields import ellipsoid, smooth_maximum, smooth_minimum, tube

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]

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
    """The heart with both atria, without the great vessels."""
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
    """The aorta from its root to below the kidneys."""
    return tube(*a, _AORTA, _AORTA_RADII)


# The other great vessels: (organ whose map they follow, path, radii)
GREAT_VESSELS = tuple(
    (organ, np.array(path, float), np.array(radii, float))
    for organ, path, radii in (
        ("heart", [(18, -46, -38), (16, -34, -14), (12, -14, -8)], [14, 13.5, 13]),  # pulmonary trunk
        ("heart", [(12, -14, -8), (-14, -2, -14), (-34, 4, -16)], [12, 10.5, 9]),  # right pulmonary artery
        ("heart", [(12, -14, -8), (26, 4, -6), (40, 14, -8)], [12, 10, 8.5]),  # left
        ("heart", [(-2, 12, -42), (-32, 10, -44)], [9, 7]),  # pulmonary veins
        ("heart", [(6, 12, -42), (36, 14, -42)], [9, 7]),
        (
            "aorta",
            [(-24, -20, -45), (-26, -16, 0), (-24, -18, 45), (-34, -20, 80)],
            [10, 9, 8, 7],
        ),  # upper vena cava
        (
            "aorta",
            [(-20, -18, 42), (0, -28, 38), (26, -20, 55), (40, -10, 85)],
            [7, 6.5, 6.5, 6],
        ),  # left brachiocephalic
        ("aorta", [(-5, -14, 28), (-14, -2, 60), (-20, 4, 110)], [6.5, 6, 5]),  # arteries of the arch
        ("aorta", [(5, -4, 30), (9, 4, 70), (14, 8, 120)], [5, 4.5, 4.5]),
        ("aorta", [(14, 14, 26), (22, 16, 60), (36, 16, 95)], [5.5, 5, 5]),
        (
            "heart",
            [(-20, -4, -62), (-19, 4, -95)],
            [11, 11],
        ),  # lower vena cava, above and below the diaphragm
        ("aorta", [(-20, 6, -95), (-23, 14, -150), (-22, 20, -230), (-20, 22, -370)], [11, 12, 11, 10]),
    )
)
TRACHEA = tuple(
    (np.array(path, float), np.array(radii, float))
    for path, radii in (
        ([(0, 10, 135), (0, 14, 60), (0, 18, 2)], [8.5, 8.5, 8.5]),
        ([(0, 18, 2), (-18, 19, -16), (-36, 18, -34)], [7.5, 7, 6]),
        ([(0, 18, 2), (20, 20, -18), (42, 18, -32)], [7, 6.5, 5.5]),
    )
)
ESOPHAGUS = (
    np.array([(4, 28, 130), (4, 31, 20), (2, 32, -60), (10, 20, -120), (25, -2, -145)], float),
    np.array([7, 7, 7.5, 8, 9], float),
)


def liver(a: Arrays) -> np.ndarray:
    """The liver without what the diaphragm and the abdominal wall cut off."""
    x, y, z = a
    right = ellipsoid(x, y, z, (-72, 4, -168), (62, 78, 80))
    tip = ellipsoid(x, y, z, (-92, 12, -225), (34, 52, 58))
    left = ellipsoid(x, y, z, (4, -44, -145), (74, 32, 36))
    body = smooth_minimum(smooth_minimum(right, tip, 22), left, 26)
    hilum = ellipsoid(x, y, z, (-14, 12, -196), (26, 30, 34))
    return smooth_maximum(body, -hilum, 14)


def spleen(a: Arrays) -> np.ndarray:
    """The spleen, hollow towards the stomach."""
    x, y, z = a
    c, s = np.float32(np.cos(0.5)), np.float32(np.sin(0.5))
    dx, dy = x - 88, y - 37
    body = ellipsoid(c * dx + s * dy, -s * dx + c * dy, z, (0, 0, -168), (29, 50, 54))
    hilum = ellipsoid(x, y, z, (50, 12, -168), (30, 30, 32))
    return smooth_maximum(body, -hilum, 10)


def stomach(a: Arrays) -> np.ndarray:
    """The stomach, wall included."""
    fundus = ellipsoid(*a, (56, -8, -148), (40, 42, 36))
    body = ellipsoid(*a, (44, -48, -196), (32, 26, 46))
    return smooth_minimum(fundus, body, 20)


def kidneys(a: Arrays) -> np.ndarray:
    """Both kidneys."""
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
    """The breastbone."""
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
