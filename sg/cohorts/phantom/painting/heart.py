"""The heart: muscle, four chambers, the fat in its grooves and its coronary arteries."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.painting.pieces import paint_rods, smoothed, tube
from sg.cohorts.phantom.scene import Scene
from sg.compiled import compiled

# The atlas' heart in axes of its own: along towards the apex, across towards the left chambers, up (as in `atlas.heart`).
CENTRE_MM = np.array([26.0, -36, -66])
C, S = np.cos(0.65), np.sin(0.65)
AXES = np.array([[C, -0.8 * S, -0.5 * S], [0.8 * S, C, 0], [0.5 * S, 0, C]])
RADII_MM = np.array([60.0, 46, 47])
# Coronary arteries as (along, across, up) in radii: the right one around the base, the left anterior descending one
# over the septum to the apex, the circumflex one around the base behind.
CORONARIES = (
    [
        (-0.52, -0.30, 0.78),
        (-0.45, -0.85, 0.25),
        (-0.42, -0.80, -0.42),
        (-0.35, -0.2, -0.92),
        (0.1, 0.0, -0.99),
    ],
    [(-0.52, 0.02, 0.85), (-0.1, -0.12, 0.99), (0.35, -0.12, 0.93), (0.75, -0.05, 0.66), (0.98, 0.0, 0.15)],
    [(-0.52, 0.10, 0.83), (-0.5, 0.62, 0.60), (-0.48, 0.87, 0.05), (-0.45, 0.75, -0.48)],
)
CALCIFIED_SHARE = (
    0.12  # of men and women at 45, growing by 0.02 a year (order of MESA's shares; recalled, not checked)
)


def paint_heart(scene: Scene) -> None:
    """Muscle and chambers within the heart's shape, fat in the grooves, pericardium, coronary arteries."""
    canvas, hu, heart = scene.canvas, scene.hu, scene.patient.maps["heart"]
    region = canvas.region_of(scene.d["heart"], 6.0)
    if region is None:
        return
    rng = scene.draw("heart")
    a = [canvas.finer(field, region) for field in heart.to_atlas(canvas.coarse)]
    rough = canvas.finer(scene.texture("heart", 12, 1.0), region)
    # Of the person: fat under the pericardium, thickness of the left ventricle's wall, fullness of the chambers.
    own = np.array(
        [min(rng.gamma(3.0, 1.0), 6.0), rng.normal(10, 1.2), rng.normal(0, 1.2), canvas.voxel_mm], np.float32
    )
    values = np.array(
        [hu["heart"], hu["blood"], hu["blood_right"], hu["cava_lower"], hu["mediastinum"]], np.float32
    )
    labels = np.array([LABEL["heart"], LABEL["chambers"], LABEL["fat"]], np.uint8)
    _chambers(
        canvas.hu[region], canvas.labels[region], canvas.finer(scene.d["heart"], region), *a, rough,
        CENTRE_MM.astype(np.float32), AXES.astype(np.float32), own, values, labels,
    )  # fmt: skip
    _paint_coronaries(scene, rng)


def _paint_coronaries(scene: Scene, rng: np.random.Generator) -> None:
    """Coronary arteries, and in some, mostly the old, calcium in pieces of their walls."""
    heart, age = scene.patient.maps["heart"], scene.patient.habitus.age_years
    back = np.linalg.inv(AXES)
    vessels, plaques = [], []
    calcified = rng.random() < np.clip(CALCIFIED_SHARE + 0.02 * (age - 45), 0.02, 0.85)
    burden = int(rng.integers(1, 9)) if calcified else 0
    for points in CORONARIES:
        frame = smoothed(np.array(points) * RADII_MM * 0.985, 4)
        path = heart.to_patient(CENTRE_MM + (back[None] * frame[:, None, :]).sum(axis=2))
        vessels.append(tube(0, path, np.linspace(2.2, 1.2, len(path))))
        for first in rng.integers(0, len(path) - 3, burden):
            if rng.random() < 0.5:
                plaques.append(tube(1, path[first : first + 2], rng.uniform(1.0, 2.2)))
    values = (scene.hu["blood"], 650.0)
    paint_rods(scene.canvas, vessels, values, "heart")
    paint_rods(scene.canvas, plaques, values, "heart")


@compiled
def _chambers(hu, labels, heart, ax, ay, az, rough, centre, axes, own, values, names):
    """Paint the heart at atlas positions; `rough` is a smooth noise of standard deviation 1."""
    fat_mm, wall_mm, full, voxel = own
    muscle, left, right, lower, fat = values
    for k in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            for i in range(hu.shape[2]):
                d = heart[k, j, i]
                if d > 4.0:
                    continue
                n = rough[k, j, i]
                x, y, z = ax[k, j, i], ay[k, j, i], az[k, j, i]
                u, v, w = x - centre[0], y - centre[1], z - centre[2]
                along = axes[0, 0] * u + axes[0, 1] * v + axes[0, 2] * w
                across = axes[1, 0] * u + axes[1, 1] * v + axes[1, 2] * w
                up = axes[2, 0] * u + axes[2, 1] * v + axes[2, 2] * w
                # Fat under the pericardium, most in the groove between atria and ventricles and at the right edge.
                base = (along + 30 + 0.25 * across) / 7
                groove = np.exp(-base * base)
                between = (across + 7) / 8
                furrow = np.exp(-between * between) if up > 0 or along > 20 else 0.0
                coat = max(
                    0.45 * fat_mm * (1 + 0.8 * n) + (2 + 1.6 * fat_mm) * groove + 1.3 * fat_mm * furrow, 0.0
                )
                coat = min(coat, 11.0)
                surface = d + coat
                # Left ventricle: a thick-walled egg. Right ventricle: a thin-walled crescent around it.
                a, b, c = (along - 4) / 47, (across - 13) / 31, (up + 2) / 34
                f = np.sqrt(a * a + b * b + c * c) + 1e-6
                egg = (f - 1) * f / np.sqrt((a / 47) ** 2 + (b / 31) ** 2 + (c / 34) ** 2 + 1e-12)
                cavity = egg + wall_mm + 0.9 * n - full
                cavity = max(cavity, -28 - along)
                crescent = max(
                    max(surface + 3.5 + 0.7 * n, 1.5 - egg), max(across - 14, max(-27 - along, along - 40))
                )
                a, b, c = (x - 2) / 33, (y - 12) / 17.5, (z + 42) / 23.5
                f = np.sqrt(a * a + b * b + c * c) + 1e-6
                atrium_left = (f - 1) * f / np.sqrt(
                    (a / 33) ** 2 + (b / 17.5) ** 2 + (c / 23.5) ** 2 + 1e-12
                ) - full
                atrium_left = max(atrium_left, along + 31)
                a, b, c = (x + 23) / 26.5, (y + 20) / 31.5, (z + 60) / 37
                f = np.sqrt(a * a + b * b + c * c) + 1e-6
                atrium_right = (f - 1) * f / np.sqrt(
                    (a / 26.5) ** 2 + (b / 31.5) ** 2 + (c / 37) ** 2 + 1e-12
                ) - full
                atrium_right = max(max(atrium_right, along + 33), 2.0 - atrium_left)
                value, name = hu[k, j, i], labels[k, j, i]
                # The pericardium is a line in the fat.
                line = 0.34 * max(1 - abs(d - 1.2) / voxel, 0.0)
                value += line * (20 - value)
                share = min(max(0.5 - d / voxel, 0.0), 1.0)
                value += share * (fat - value)
                if d < 0:
                    name = names[2]
                share = min(max(0.5 - surface / voxel, 0.0), 1.0)
                value += share * (muscle + 3 * n - value)
                if surface < 0:
                    name = names[0]
                mixed = 0.5 + 0.5 * min(
                    max((z + 40) / 40 + 0.9 * n, -1.0), 1.0
                )  # streams from above and below
                for number in range(4):
                    if number == 0:
                        shape, blood = cavity, left
                    elif number == 1:
                        shape, blood = crescent, right
                    elif number == 2:
                        shape, blood = atrium_left, left
                    else:
                        shape, blood = atrium_right, right + 0.55 * (1 - mixed) * (lower - right)
                    shape = max(shape, surface + 1.5)
                    share = min(max(0.5 - shape / voxel, 0.0), 1.0)
                    value += share * (blood + 0.012 * n * blood - value)
                    if shape < 0:
                        name = names[1]
                hu[k, j, i] = value
                labels[k, j, i] = name
