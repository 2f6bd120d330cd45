"""The bones of the atlas: spine, breastbone, ribs, collar bones, shoulder blades and upper arms, as shapes and paths in mm.

Sizes and places are those of an average adult as anatomy textbooks give them, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.atlas import CAVITY, Z_CAVITY, Arrays

_Z_SPINE = [-370, -260, -140, -40, 60, 140]
_Y_SPINE = [34, 37, 48, 54, 44, 26]
_Z_RADIUS = [-370, -200, 0, 120]
_RADIUS = [24, 20, 16, 13]
AP_SHARE = 1 / 1.15  # depth of a vertebral body over its width

# Height of each vertebra with the disc below it, mm, from the fifth cervical to the fifth lumbar: they grow downwards.
# The carina, and with it z = 0, lies at the disc below the fifth thoracic (Clin Anat 2016;29:165).
_HEIGHTS = np.array(
    [16, 17, 18, 19.5, 20, 20.5, 21.5, 22, 22.5, 23, 23.5, 24.5, 26, 28, 30, 33, 34, 35, 36, 36]
)  # fmt: skip
_FIRST_THORACIC = 3
DISC_PLANES = (np.cumsum(_HEIGHTS)[_FIRST_THORACIC + 4] - np.cumsum(_HEIGHTS)).astype(
    np.float32
)  # descending
LEVELS = len(_HEIGHTS)


def levels_mm(first: float = _HEIGHTS[0]) -> np.ndarray:
    """z of the middle of each vertebra, disc included, from the fifth cervical down."""
    tops = np.concatenate([[DISC_PLANES[0] + first], DISC_PLANES[:-1]])
    return ((tops + DISC_PLANES) / 2).astype(np.float32)


def thoracic_mm(number: int) -> float:
    """z of the middle of a thoracic vertebra, 0 for the first."""
    return float(levels_mm()[_FIRST_THORACIC + number])


def spine_axis(z: np.ndarray) -> np.ndarray:
    """y of the middle of the vertebral bodies at a height z."""
    return np.interp(z, _Z_SPINE, _Y_SPINE).astype(np.float32)


def spine_radius(z: np.ndarray) -> np.ndarray:
    """Half the width of the vertebral bodies at a height z."""
    return np.interp(z, _Z_RADIUS, _RADIUS).astype(np.float32)


def spine_body(a: Arrays) -> np.ndarray:
    """The column of the vertebral bodies, discs included."""
    x, y, z = a
    v = (y - spine_axis(z)) * np.float32(1 / AP_SHARE)
    return np.sqrt(x * x + v * v) - spine_radius(z)


_Z_STERNUM, _Y_STERNUM = [-130, -115, -60, 0, 50], [-96, -97, -92, -79, -55]
_STERNAL_ANGLE_MM = 6.0  # the joint between manubrium and body


def sternum_axis(z: np.ndarray) -> np.ndarray:
    """y of the middle of the breastbone at a height z."""
    return np.interp(z, _Z_STERNUM, _Y_STERNUM)


def sternum(a: Arrays) -> np.ndarray:
    """The breastbone: manubrium, a joint, body, and a thin xiphoid process."""
    x, y, z = a
    half = np.interp(z, [-130, -112, -100, -70, -20, 4, 8, 30, 50], [3, 6, 14, 17, 13, 15, 17, 27, 24])
    thick = np.interp(z, [-130, -112, -100, 0, 30, 50], [2.0, 2.5, 4.8, 5.2, 6.5, 7.0])
    notch = np.where(z > 40, 0.5 * (z - 40), 0) - 0.012 * x * x  # the upper edge sinks in the middle
    u, v = np.abs(x) / half, np.abs(y - sternum_axis(z) - 0.004 * x * x) / thick
    plate = ((u**4 + v**4) ** 0.25 - 1) * thick  # rounded edges; nearly the distance in front and behind
    joint = 1.2 - np.abs(z - _STERNAL_ANGLE_MM)
    return np.maximum(np.maximum(plate, joint), np.maximum(z + notch - 47, -130 - z)).astype(np.float32)


@dataclass(frozen=True)
class Rib:
    """One rib: `root` (2, 3) at its vertebra, head and tubercle; `wall` (n, 3) round the chest; `cartilage` (m, 3)."""

    root: np.ndarray
    wall: np.ndarray
    cartilage: np.ndarray | None  # None for the floating ribs


def rib_paths() -> list[Rib]:
    """The 24 ribs of the atlas, right and left in turn from the first pair down.

    A rib leaves the spine, touches the transverse process, follows the wall and sinks on its way forward.
    """
    ribs, above = [], None
    for number in range(12):
        middle = thoracic_mm(number)
        head = middle + (4 if number in (0, 10, 11) else 0.42 * _HEIGHTS[_FIRST_THORACIC + number])
        reach = np.interp(number, [0, 1, 6, 9, 10, 11], [148, 150, 148, 128, 92, 62])
        sink = np.interp(number, [0, 3, 7, 9, 11], [42, 88, 112, 108, 70])
        angle = np.deg2rad(np.linspace(26, reach, 16))
        share = (angle - angle[0]) / np.deg2rad(150 - 26)
        z = middle - 7 - sink * (1.35 * share - 0.35 * share**2)  # steepest behind
        half, front, back = (np.interp(z, Z_CAVITY, CAVITY[k]) for k in ("half", "front", "back"))
        half, depth, mid = half + 5, (back - front) / 2 + 5, (front + back) / 2
        power = 2 / 2.3
        x = half * np.abs(np.sin(angle)) ** power
        y = mid + depth * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        wall = np.column_stack([x, y, z])
        axis, radius = float(spine_axis(np.float64(middle))), float(spine_radius(np.float64(middle)))
        root = np.array([(radius - 1, axis + 5, head), (radius + 14, axis + radius + 13, middle + 2)])
        cartilage = None
        if number < 10:
            if number < 7:
                end_z = 41 - 17.0 * number if number < 5 else -36 - 13.0 * (number - 2)
                end = np.array([16.0, float(sternum_axis(np.float64(end_z))), end_z])
            else:
                end = above[1] - (0, 0, 7)  # it joins the one above it
            between = (wall[-1] * 0.55 + end * 0.45) + (0, -2, -14 if number > 2 else -3)
            cartilage = above = np.vstack([wall[-1], between, end])
        for side in (-1, 1):
            mirror = np.array([side, 1, 1])
            ribs.append(Rib(root * mirror, wall * mirror, None if cartilage is None else cartilage * mirror))
    return ribs


# The left shoulder, by the cage's map: collar bone, shoulder blade (a plate with a spine on its back) and upper arm.
CLAVICLE = np.array([(21, -60, 44), (45, -62, 56), (75, -48, 72), (105, -26, 88), (138, -4, 104)], float)
GLENOID = np.array([132.0, 18, 80])
# The blade's corners: at the glenoid, half-way down its outer edge, its lower angle, its upper angle; and its hollow middle.
BLADE = np.array([(128.0, 26, 74), (146, 52, 12), (118, 92, -55), (74, 88, 90)], float)
BLADE_MIDDLE = np.array([106.0, 76, 28])
# How far each of them lies at least from the cavity: the blade stands off the ribs towards the side, some 35 degrees to
# the coronal plane, with a muscle's thickness between.
BLADE_OFF_MM = np.array([29.0, 29, 14, 11])
BLADE_MIDDLE_OFF_MM = 14.0
SCAPULAR_SPINE = np.array(
    [(70, 92, 68), (114, 66, 84), (150, 40, 106)], float
)  # medial end, neck, root of the acromion
ACROMION = np.array([(144, 36, 106), (156, 12, 114), (140, -6, 108)], float)
CORACOID = np.array([(124, 12, 92), (116, -12, 96), (126, -28, 90)], float)
HUMERAL_HEAD = np.array([156.0, 18, 82])
HEAD_RADIUS_MM = 22.0


def humerus(raised: bool) -> np.ndarray:
    """The left upper arm's bone from the middle of its head to the elbow (n, 3)."""
    if raised:
        return HUMERAL_HEAD + np.array([(0, 0, 0), (12, -4, 30), (30, -12, 100), (38, -24, 250)], float)
    return HUMERAL_HEAD + np.array([(0, 0, 0), (12, 0, -26), (30, 14, -120), (42, 26, -290)], float)
