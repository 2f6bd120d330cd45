"""Colon and small bowel: tubes through the fat of the belly with stool, fluid and gas in them."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.painting.grain import grain
from sg.cohorts.phantom.painting.pieces import FAR_MM, Rod, near_rods, smoothed, tube
from sg.cohorts.phantom.scene import Scene

# The colon by the body's map: up the right side, across behind the front wall, up to the spleen, down the left side.
COLON_MM = np.array(
    [(-86, 30, -372), (-88, 26, -310), (-90, 16, -262), (-78, -22, -240), (-48, -58, -246), (-8, -66, -256),
     (34, -62, -246), (66, -46, -218), (92, -6, -186), (98, 34, -202), (96, 44, -270), (90, 44, -372)], float
)  # fmt: skip
SMALL_LOOPS = 18
ORAL_CONTRAST_SHARE = 0.3  # of patients have drunk contrast medium (the habit differs between hospitals)


def paint_bowel(scene: Scene, within: np.ndarray) -> None:
    """Colon, small bowel and duodenum, inside a shape given on the coarse lattice; what is painted later covers them."""
    canvas, hu, rng = scene.canvas, scene.hu, scene.draw("bowel")
    rods, opaque = _loops(scene, rng)
    ends = np.vstack([r.path for r in rods])
    region = canvas.lattice.region(ends.min(axis=0) - 30, ends.max(axis=0) + 30)
    oral = rng.uniform(120, 320) if rng.random() < ORAL_CONTRAST_SHARE else None
    if region is None:
        return
    box = canvas.lattice.box(region)
    distance, kind = np.full(box.shape, FAR_MM, np.float32), np.zeros(box.shape, np.uint8)
    near_rods(box, rods, distance, kind)
    fine, wide = grain(scene, "stool", box, 7.0), grain(scene, "haustra", box, 24.0)
    distance += 2.2 * wide
    distance = np.maximum(distance, canvas.finer(within, region))
    canvas.paint_region(region, distance, hu["wall"] + 3 * fine, "bowel")
    inside = distance + np.float32(2.2)
    # Stool holds gas in small bubbles; a loop's fluid may be opaque; gas gathers in front.
    stool = np.float32(hu["bowel"]) + 14 * fine - 480 * np.clip(fine + 0.5 * wide - np.float32(0.5), 0, 1.4)
    fluid = np.float32(hu["bowel"] if oral is None else oral) + 6 * fine
    values = np.where(kind == 0, stool, np.where(opaque[kind], fluid, np.float32(hu["bowel"]) + 8 * fine))
    canvas.paint_region(region, inside, values, None)
    _, y, _ = box.grids
    level = _levels(rods, rng)
    canvas.paint_region(
        region, np.maximum(inside + np.float32(0.5), y - level[kind] - 5 * wide), -920.0, None
    )
    # Bowel is a patient's own: whatever of it is gas belongs to it too.
    canvas.labels[region][distance < 0] = LABEL["bowel"]


def _loops(scene: Scene, rng: np.random.Generator) -> tuple[list[Rod], np.ndarray]:
    """The colon (kind 0) and the loops (other kinds), and which of them an opaque drink has reached."""
    body = scene.patient.maps["body"]
    colon = body.to_patient(COLON_MM + rng.normal(0, 9, COLON_MM.shape))
    path = smoothed(colon, 4)
    rods = [tube(0, path, np.clip(rng.normal(17, 4, len(path)), 9, 27))]
    for number in range(SMALL_LOOPS):
        start = np.array([rng.uniform(-64, 80), rng.uniform(-60, 16), rng.uniform(-372, -232)])
        steps = rng.normal(0, 1, (5, 3)) * (24, 12, 15)
        loop = start + np.vstack([np.zeros(3), np.cumsum(steps, axis=0) * 0.7])
        loop = body.to_patient(np.clip(loop, (-88, -66, -385), (90, 18, -218)))
        rods.append(tube(number + 1, smoothed(loop, 3), rng.uniform(9, 14)))
    duodenum = np.array(
        [(12, -40, -214), (-30, -26, -206), (-46, -2, -222), (-42, 8, -262), (-6, 4, -282), (24, 0, -262)]
    )
    rods.append(
        tube(SMALL_LOOPS + 1, smoothed(body.to_patient(duodenum + rng.normal(0, 4, duodenum.shape)), 3), 10.5)
    )
    return rods, rng.random(SMALL_LOOPS + 2) < 0.7


def _levels(rods: list[Rod], rng: np.random.Generator) -> np.ndarray:
    """y in front of which each loop holds gas, float32: most of the colon does, few of the others."""
    levels = []
    for rod in rods:
        front, back = rod.path[:, 1].min() - rod.thick_mm.max(), rod.path[:, 1].max() + rod.thick_mm.max()
        share = (
            rng.uniform(0.05, 0.45)
            if rod.kind == 0
            else (rng.uniform(0, 0.5) if rng.random() < 0.25 else -1.0)
        )
        levels.append(front + share * (back - front))
    return np.array(levels, np.float32)
