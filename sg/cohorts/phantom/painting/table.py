"""What is not the patient: the table and its mattress, clothes or a blanket, wires."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from sg.cohorts.phantom.canvas import WHOLE, Canvas
from sg.cohorts.phantom.fields import draw_noise, segment_distance

TableShape = Literal["none", "flat", "arc", "cradle"]
CLOTH_HU = -250.0  # cotton; a fold is thinner than a voxel and mostly air
COPPER_HU = 3000.0  # a wire of 1 mm, as such scanners cut it off


def paint_table(canvas: Canvas, skin_mm: np.ndarray, shape: TableShape, rng: np.random.Generator) -> None:
    """A mattress on a shell and, under it, a second shell: flat, an arc, or a trough with slanting sides.

    `skin_mm` is the distance to the body on the coarse lattice. Only what is no body is painted.
    """
    if shape == "none":
        return
    x, y = canvas.lattice.x, canvas.lattice.y
    inside = skin_mm < 0
    if not inside.any():
        return
    across = canvas.coarse.x[inside.any(axis=(0, 1))]
    back = canvas.coarse.y[inside.any(axis=(0, 2))][-1] + rng.uniform(0, 4)
    middle = (across[0] + across[-1]) / 2 + rng.normal(0, 8)
    u = x - middle
    half = rng.uniform(195, 260)  # of its width
    top, bottom = _surfaces(shape, u, half, rng)
    mattress_mm, foam, shell = rng.uniform(8, 45), rng.uniform(-985, -880), rng.uniform(-200, 500)
    thick, filled = rng.uniform(1.5, 3.2), rng.uniform(-1000, -930)
    # Distances in the plane (y, x) below the top of the mattress and the two shells; the body sinks in.
    sink = rng.uniform(4, 22)
    depth = y[:, None] - (back - sink - top)[None, :]
    under = y[:, None] - (back - sink + mattress_mm - bottom)[None, :]
    second = under - rng.uniform(28, 60) if shape != "cradle" else under - rng.uniform(45, 75)
    tops = depth - mattress_mm
    ends = (np.abs(u) - half)[None, :]
    layers = [
        (np.maximum(np.maximum(-depth, tops), ends), foam),
        (np.maximum(np.maximum(-tops, second), ends), filled),
        (np.maximum(np.abs(tops) - thick / 2, ends), shell),
        (np.maximum(np.abs(second) - thick / 2, ends - 15), shell),
    ]
    if rng.random() < 0.4:  # a rail or a cable under it
        rail = np.hypot(
            (u - rng.normal(0, 60))[None, :] / rng.uniform(1, 6), second + rng.uniform(-20, -8)
        ) - rng.uniform(3, 6)
        layers.append((rail, rng.uniform(-300, 600)))
    _paint_sheets(canvas, layers)


def _surfaces(
    shape: TableShape, u: np.ndarray, half: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How far above its middle the upper side of a table rises at a distance from the middle, and the lower side."""
    if shape == "flat":
        return 0 * u, 0 * u
    if shape == "arc":
        rise = u**2 / (2 * rng.uniform(330, 650))
        return rise, rise * rng.uniform(0.8, 1.1)
    flat, slope = half * rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.45)
    rise = slope * np.maximum(np.abs(u) - flat, 0)
    return u**2 / (2 * rng.uniform(500, 900)), rise


def _paint_sheets(canvas: Canvas, layers: list[tuple[np.ndarray, float]]) -> None:
    """Blend layers, given by distances (y, x), into all slices where there is no body."""
    voxel = float(canvas.lattice.spacing_mm[0])
    plane_hu = np.full(layers[0][0].shape, -1000.0)
    for distance, hu in layers:
        share = np.clip(0.5 - distance / voxel, 0, 1)
        plane_hu += share * (hu - plane_hu)
    rows = np.flatnonzero((plane_hu != -1000).any(axis=1))
    if len(rows):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        more = (plane_hu[part] + 1000).astype(np.float32)
        # What the voxels of the skin hold of air holds that much of the table.
        hu = canvas.hu[:, part]
        air = np.clip(hu / np.float32(-1000), 0, 1) * (canvas.labels[:, part] == 0)
        hu += air * more


def paint_things(
    canvas: Canvas, skin_mm: np.ndarray, things: tuple[str, ...], rng: np.random.Generator
) -> None:
    """Clothes or a blanket in folds around the body, and the leads of an electrocardiogram on it."""
    if "clothes" in things:
        _paint_clothes(canvas, skin_mm, rng)
    if "leads" in things:
        for _ in range(int(rng.integers(1, 4))):
            _paint_lead(canvas, skin_mm, rng)


def _paint_clothes(canvas: Canvas, skin_mm: np.ndarray, rng: np.random.Generator) -> None:
    """One or two sheets of cloth at a changing distance from the skin."""
    coarse = canvas.coarse
    middle = np.array([axis.mean() for axis in (coarse.x, coarse.y, coarse.z)])
    reach = max(float(np.ptp(axis)) for axis in (coarse.x, coarse.y, coarse.z)) / 2 + 20
    voxel = np.float32(canvas.lattice.spacing_mm[0])
    skin = canvas.finer(skin_mm, WHOLE)
    near = (skin > 0) & (skin < 40) & (canvas.labels == 0)
    index = np.flatnonzero(near)
    skin = skin.ravel()[index]
    air = np.zeros(len(index), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        folds = draw_noise(rng, middle, reach, rng.uniform(16, 28), rng.uniform(3, 8), components=1).on(
            coarse
        )[0]
        folds = canvas.finer(folds, WHOLE).ravel()[index]
        away = np.abs(skin - np.float32(rng.uniform(2, 9)) - np.maximum(folds, -4))
        thick = np.float32(rng.uniform(0.3, 1.0))
        air = np.maximum(air, np.clip(1 - away / voxel, 0, 1) * min(thick / voxel, np.float32(1)))
    hu = canvas.hu.reshape(-1)
    hu[index] += air * (np.float32(CLOTH_HU) - hu[index])


def _paint_lead(canvas: Canvas, skin_mm: np.ndarray, rng: np.random.Generator) -> None:
    """A wire over the front of the chest, with an electrode where it begins."""
    coarse = canvas.coarse
    slices, _, columns = skin_mm.shape
    way = rng.uniform(0, 2 * np.pi)
    z, x = rng.uniform(0.1, 0.9) * (slices - 1), rng.uniform(0.3, 0.7) * (columns - 1)
    points = []
    for _ in range(24):
        k, i = round(z), round(x)
        if not (0 <= k < slices and 0 <= i < columns):
            break
        inside = np.flatnonzero(skin_mm[k, :, i] < 0)
        if len(inside) == 0 or inside[0] == 0:
            break
        j = inside[0]
        outer, inner = float(skin_mm[k, j - 1, i]), float(skin_mm[k, j, i])
        step = coarse.spacing_mm[1]
        points.append(
            (coarse.x[i], coarse.y[j - 1] + step * outer / max(outer - inner, 1e-3) - 2.0, coarse.z[k])
        )
        way += rng.normal(0, 0.35)
        z, x = z + 1.6 * np.sin(way), x + 1.6 * np.cos(way)
    path = np.array(points).reshape(-1, 3)
    for p, q in pairwise(path):
        _paint_rod(canvas, p, q, 0.45, COPPER_HU)
    if len(path):
        _paint_rod(canvas, path[0], path[0] + (0, 0, 0.1), 3.0, 100.0)


def _paint_rod(canvas: Canvas, p: np.ndarray, q: np.ndarray, radius_mm: float, hu: float) -> None:
    """A rod that keeps its volume where it is thinner than a voxel."""
    voxel = float(canvas.voxel_mm)
    drawn = max(radius_mm, 0.55 * voxel)
    region = canvas.lattice.region(np.minimum(p, q) - drawn - voxel, np.maximum(p, q) + drawn + voxel)
    if region is None:
        return
    distance = segment_distance(*canvas.lattice.box(region).grids, p, q, drawn, drawn)
    share = np.clip(np.float32(0.5) - distance / canvas.voxel_mm, 0, 1) * np.float32((radius_mm / drawn) ** 2)
    canvas.blend(region, share * (canvas.labels[region] == 0), hu)
