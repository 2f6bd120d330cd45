"""The upper arms: beside the head where they are raised, as they mostly are, else beside the body."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom import skeleton
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.painting.grain import grain
from sg.cohorts.phantom.painting.pieces import FAR_MM, near_rods, smoothed, tube
from sg.cohorts.phantom.painting.placing import beside, depth
from sg.cohorts.phantom.scene import Scene
from sg.cohorts.phantom.skeleton import HEAD_RADIUS_MM, HUMERAL_HEAD

RAISED_SHARE = 0.85  # of patients; the others cannot raise their arms, or were not asked to
MUSCLE_MM = np.array([36.0, 36, 34, 27])  # radius of the arm without its fat, along the bone
FAT_SHARE = 0.55  # how thick its fat is, of that of the chest


def arms_raised(scene: Scene) -> bool:
    """Whether this person's arms lie beside the head."""
    return bool(scene.draw("arms").random() < RAISED_SHARE)


def humerus(scene: Scene, side: int) -> np.ndarray:
    """Path of one upper arm's bone (n, 3) in the patient, from its head; `side` is 1 for the left, -1 for the right.

    An arm beside the body lies outside it.
    """
    survey, mirror = scene.person.survey, np.array([side, 1, 1])
    head = beside(survey, HUMERAL_HEAD[None] * mirror, scene.patient.maps["cage"], 20.0, HEAD_RADIUS_MM + 6)
    bone = head + (skeleton.humerus(arms_raised(scene)) - HUMERAL_HEAD) * mirror
    clear = np.array([0.0, 0.0, 1.0, 1.0]) * (MUSCLE_MM[2] + FAT_SHARE * scene.patient.fat_mm)
    for _ in range(3):
        outside, _ = depth(survey, "skin", bone)
        bone[:, 0] += side * np.clip(clear - outside, 0, 30) * (clear > 0)
    return bone


def paint_arms(scene: Scene) -> None:
    """Both upper arms but for their bones, to be painted before the trunk, into which they run."""
    canvas, hu = scene.canvas, scene.hu
    arms = []
    for side in (-1, 1):
        path = smoothed(humerus(scene, side), 3)
        arms.append(tube(0, path, np.interp(np.arange(len(path)) / 3, np.arange(len(MUSCLE_MM)), MUSCLE_MM)))
    fat_mm = np.float32(FAT_SHARE * scene.patient.fat_mm)
    for arm in arms:
        reach = MUSCLE_MM.max() + float(fat_mm) + 6
        region = canvas.lattice.region(arm.path.min(axis=0) - reach, arm.path.max(axis=0) + reach)
        if region is None:
            continue
        box = canvas.lattice.box(region)
        distance = np.full(box.shape, FAR_MM, np.float32)
        near_rods(box, [arm], distance, np.zeros(box.shape, np.uint8), float(fat_mm) + 5)
        fine, wide = grain(scene, "arm-grain", box, 6.0), grain(scene, "arm-muscles", box, 21.0)
        canvas.paint_region(region, distance - fat_mm, hu["skin"], "fat")
        canvas.paint_region(region, distance - fat_mm + np.float32(1.9), hu["fat"] + 4 * fine, None)
        gap = np.float32(0.9) - 5 * np.abs(wide)
        muscle = np.maximum(distance + np.float32(1.5) * wide, gap)
        canvas.paint_region(region, muscle, hu["muscle"] + 4 * fine, None)
        canvas.labels[region][distance < 0] = LABEL["arms"]
