"""Nodules, liver lesions, and what looks like nodules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.fields import Lattice, draw_noise
from sg.cohorts.phantom.lesions import NATIVE_HU
from sg.cohorts.phantom.nodules import SUBSOLID
from sg.cohorts.phantom.opacities import Opacity
from sg.cohorts.phantom.scene import Scene

SUB_MM = (0.8, 1.5)  # voxels are divided into parts of such a size, by the size of what is painted
GRAIN_MM = 4.0  # findings are uneven at this scale
# What is drawn is a patient's own and has no counterpart in the atlas, bony ends and spurs included.
LABELS = {
    "fissural lymph node": "lymph_nodes", "subpleural lymph node": "lymph_nodes", "hilar lymph node": "lymph_nodes",
    "mucus plug": "bronchi",
}  # fmt: skip


def paint_findings(scene: Scene) -> None:
    """What the tables list, and what is there to be mistaken for it."""
    found = scene.person.findings
    for number, opacity in enumerate(found.drawn):
        _paint(scene, opacity, opacity.hu, LABELS.get(opacity.kind, "scar"), f"drawn/{number}")
    for number, nodule in enumerate(found.nodules):
        _paint(scene, nodule, nodule.hu, "nodule", f"nodule/{number}")
    for number, lesion in enumerate(found.lesions):
        liver = NATIVE_HU if lesion.kind == "cyst" else scene.hu["liver"]
        _paint(scene, lesion, liver + lesion.hu, "liver_lesion", f"lesion/{number}")


def _paint(scene: Scene, opacity: Opacity, hu: float, label: str, name: str) -> None:
    """Paint one opacity with its cores; its centre's voxel bears its label, however small it is."""
    canvas = scene.canvas
    margin = float(max(canvas.lattice.spacing_mm)) + opacity.edge_mm
    low, high = opacity.box_mm
    region = canvas.lattice.region(low - margin, high + margin)
    if region is None:
        return
    box, spacing = canvas.lattice.box(region), canvas.lattice.spacing_mm
    sub_mm = float(np.clip(opacity.diameter_mm / 8, *SUB_MM))
    share = filled(opacity.distance, box, spacing, sub_mm, opacity.edge_mm)
    if not share.any():
        return
    hazy = opacity.kind in SUBSOLID
    grain = draw_noise(scene.draw(f"grain/{name}"), opacity.centre_mm, opacity.reach_mm + 8, GRAIN_MM, 1.0, 1)
    target = np.float32(hu) + np.float32(45 if hazy else 9) * grain.on(box)[0]
    if hazy:
        target = np.maximum(target, canvas.hu[region])  # vessels are seen through ground glass
    canvas.blend(region, share, target)
    if opacity.cores:
        core = filled(opacity.core_distance, box, spacing, sub_mm, 0.7 * opacity.edge_mm)
        canvas.blend(region, core, np.float32(opacity.core_hu + hu - opacity.hu))
    canvas.labels[region][share > 0.5] = LABEL[label]
    middle = canvas.lattice.region(*(opacity.centre_mm + s * np.array(spacing) / 2 for s in (-1, 1)))
    if middle is not None:
        canvas.labels[tuple(part.start for part in middle)] = LABEL[label]


def filled(
    distance: Callable[[Lattice], np.ndarray],
    lattice: Lattice,
    spacing_mm: tuple[float, float, float],
    sub_mm: float,
    edge_mm: float,
) -> np.ndarray:
    """Share of each voxel of a lattice (x, y, z spacing given) that a shape fills, float32 (z, y, x), in [0, 1].

    Voxels are divided into parts of at most `sub_mm`, so that what is thinner than a voxel keeps its volume; the border
    fades over `edge_mm`.
    """
    counts = [int(np.ceil(step / sub_mm)) for step in spacing_mm]
    axes = [
        (axis[:, None] + step * ((np.arange(count) + 0.5) / count - 0.5)).ravel()
        for axis, step, count in zip((lattice.x, lattice.y, lattice.z), spacing_mm, counts, strict=True)
    ]
    part_mm = float(np.mean([step / count for step, count in zip(spacing_mm, counts, strict=True)]))
    share = np.clip(np.float32(0.5) - distance(Lattice(*axes)) / np.float32(max(part_mm, edge_mm)), 0, 1)
    z, y, x = lattice.shape
    return share.reshape(z, counts[2], y, counts[1], x, counts[0]).mean(axis=(1, 3, 5))
