"""Long and flat pieces of bodies: rods and plates, and how far each voxel is from the nearest of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.canvas import LABEL, Canvas
from sg.cohorts.phantom.fields import Lattice
from sg.compiled import compiled

FAR_MM = 99.0  # what a distance is where no piece is near


@dataclass(frozen=True)
class Rod:
    """A piece along a path (n, 3) in the patient: its half thickness along `outward` (n, 3) and across, mm."""

    kind: int
    path: np.ndarray
    outward: np.ndarray
    thick_mm: np.ndarray  # (n)
    high_mm: np.ndarray  # (n)


def tube(kind: int, path: np.ndarray, radii_mm: np.ndarray | Sequence[float] | float) -> Rod:
    """A round rod along a path (n, 3) with a radius for each of its points, or one for all."""
    radii = np.broadcast_to(np.asarray(radii_mm, float), len(path))
    return Rod(kind, path, np.broadcast_to(np.array([0.0, 1.0, 0.0]), path.shape), radii, radii)


def smoothed(path: np.ndarray, times: int) -> np.ndarray:
    """A path (n, 3) through the same points with `times` pieces for each of its own (Catmull-Rom)."""
    before, after = 2 * path[0] - path[1], 2 * path[-1] - path[-2]
    p = np.vstack([before, path, after])
    t = (np.arange(times) / times)[None, :, None]
    a, b, c, d = (p[k : k + len(path) - 1, None, :] for k in range(4))
    between = 0.5 * (
        2 * b + t * (c - a) + t**2 * (2 * a - 5 * b + 4 * c - d) + t**3 * (3 * b - a - 3 * c + d)
    )
    return np.vstack([between.reshape(-1, 3), path[-1]])


def origin_and_step(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Position of a lattice's first point and its spacing, both (x, y, z); 1 along an axis with a single point."""
    axes = (lattice.x, lattice.y, lattice.z)
    step = [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in axes]
    return np.array([axis[0] for axis in axes]), np.array(step)


def near_rods(
    lattice: Lattice, rods: Sequence[Rod], distance: np.ndarray, kind: np.ndarray, beyond_mm: float = 5.0
) -> None:
    """Bring the distance to these rods, as far as `beyond_mm` from their surface, into the field (z, y, x) of that to the
    nearest piece, and its kind."""
    pieces, kinds = [], []
    for r in rods:
        ends = (
            r.path[:-1],
            r.path[1:],
            r.outward[:-1],
            r.thick_mm[:-1],
            r.thick_mm[1:],
            r.high_mm[:-1],
            r.high_mm[1:],
        )
        pieces.append(np.column_stack(ends))
        kinds.append(np.full(len(r.path) - 1, r.kind, np.uint8))
    if pieces:
        start, step = origin_and_step(lattice)
        _near_rods(np.concatenate(pieces), np.concatenate(kinds), start, step, beyond_mm, distance, kind)


def near_plates(
    lattice: Lattice, plates: np.ndarray, half_mm: float, number: int, distance: np.ndarray, kind: np.ndarray
) -> None:
    """Bring the distance to triangles (n, 3, 3), `half_mm` thick to either side, into such a field."""
    _near_plates(plates, half_mm, np.uint8(number), *origin_and_step(lattice), distance, kind)


def paint_rods(
    canvas: Canvas,
    rods: Sequence[Rod],
    hu: Sequence[float],
    label: str | None,
    within: np.ndarray | None = None,
) -> None:
    """Paint rods, each at the HU of its kind; with `within`, a distance on the coarse lattice, only inside that shape.

    What is thinner than a voxel keeps its volume: it is drawn about as wide as one and accordingly fainter.
    """
    if not rods:
        return
    ends = np.vstack([r.path for r in rods])
    reach = max(max(r.thick_mm.max(), r.high_mm.max()) for r in rods) + float(canvas.voxel_mm)
    region = canvas.lattice.region(ends.min(axis=0) - reach, ends.max(axis=0) + reach)
    if region is None:
        return
    box = canvas.lattice.box(region)
    distance, kind = np.full(box.shape, FAR_MM, np.float32), np.zeros(box.shape, np.uint8)
    # A rod of radius r whose edge fades over a voxel v holds pi (r^2 + v^2 / 12) in a section, if r is v / 2 or more.
    fading = float(canvas.voxel_mm) ** 2 / 12
    thick, high = (
        [np.maximum(getattr(r, side), 2 * np.sqrt(fading)) for r in rods] for side in ("thick_mm", "high_mm")
    )
    faint = np.array(
        [np.mean(r.thick_mm * r.high_mm) / np.mean(t * h) for r, t, h in zip(rods, thick, high, strict=True)],
        np.float32,
    )
    wide = [
        Rod(n, r.path, r.outward, np.sqrt(t**2 - fading), np.sqrt(h**2 - fading))
        for n, (r, t, h) in enumerate(zip(rods, thick, high, strict=True))
    ]
    near_rods(box, wide, distance, kind)
    if within is not None:
        distance = np.maximum(distance, canvas.finer(within, region))
    values = np.array([hu[r.kind] for r in rods], np.float32)
    share = np.clip(np.float32(0.5) - distance / canvas.voxel_mm, 0, 1) * faint[kind]
    canvas.blend(region, share, values[kind])
    if label is not None:
        canvas.labels[region][share > 0.5] = LABEL[label]


@compiled
def _near_rods(pieces, kinds, start, step, beyond, distance, kind):
    """Bring the distance to round-ended elliptic rods into a field; `pieces` rows: p, q, outward, radii."""
    depth, height, width = distance.shape
    for n in range(len(pieces)):
        px, py, pz, qx, qy, qz, nx, ny, nz, t0, t1, h0, h1 = pieces[n]
        dx, dy, dz = qx - px, qy - py, qz - pz
        length = max(dx * dx + dy * dy + dz * dz, 1e-9)
        along = (
            nx * dx + ny * dy + nz * dz
        ) / length  # what of the outward vector runs along the rod is taken out
        nx, ny, nz = nx - along * dx, ny - along * dy, nz - along * dz
        norm = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
        nx, ny, nz = nx / norm, ny / norm, nz / norm
        reach = max(max(t0, t1), max(h0, h1)) + beyond
        x0 = max(int((min(px, qx) - reach - start[0]) / step[0]) + 1, 0)
        x1 = min(int((max(px, qx) + reach - start[0]) / step[0]) + 1, width)
        y0 = max(int((min(py, qy) - reach - start[1]) / step[1]) + 1, 0)
        y1 = min(int((max(py, qy) + reach - start[1]) / step[1]) + 1, height)
        z0 = max(int((min(pz, qz) - reach - start[2]) / step[2]) + 1, 0)
        z1 = min(int((max(pz, qz) + reach - start[2]) / step[2]) + 1, depth)
        for k in range(z0, z1):
            w = start[2] + k * step[2] - pz
            for j in range(y0, y1):
                v = start[1] + j * step[1] - py
                for i in range(x0, x1):
                    u = start[0] + i * step[0] - px
                    t = min(max((u * dx + v * dy + w * dz) / length, 0.0), 1.0)
                    a, b, c = u - t * dx, v - t * dy, w - t * dz
                    square = a * a + b * b + c * c
                    if square > reach * reach:
                        continue
                    out = a * nx + b * ny + c * nz
                    thick, high = t0 + t * (t1 - t0), h0 + t * (h1 - h0)
                    across = max(square - out * out, 0.0)
                    f = np.sqrt((out / thick) ** 2 + across / (high * high)) + 1e-6
                    slope = np.sqrt((out / (thick * thick)) ** 2 + across / high**4) / f + 1e-6
                    d = max((f - 1) / slope, -min(thick, high))
                    if d < distance[k, j, i]:
                        distance[k, j, i] = d
                        kind[k, j, i] = kinds[n]


@compiled
def _near_plates(plates, half_mm, number, start, step, distance, kind):
    """Bring the distance to triangles (n, 3, 3), so thick, into a field."""
    depth, height, width = distance.shape
    reach = half_mm + 5.0
    for n in range(len(plates)):
        tri = plates[n]
        ax, ay, az = tri[0]
        e0x, e0y, e0z = tri[1, 0] - ax, tri[1, 1] - ay, tri[1, 2] - az
        e1x, e1y, e1z = tri[2, 0] - ax, tri[2, 1] - ay, tri[2, 2] - az
        d00, d01, d11 = (
            e0x * e0x + e0y * e0y + e0z * e0z,
            e0x * e1x + e0y * e1y + e0z * e1z,
            e1x * e1x + e1y * e1y + e1z * e1z,
        )
        whole = max(d00 * d11 - d01 * d01, 1e-9)
        lows, highs = np.zeros(3, np.int64), np.zeros(3, np.int64)
        sizes = (width, height, depth)
        for axis in range(3):
            least = min(tri[0, axis], min(tri[1, axis], tri[2, axis])) - reach
            most = max(tri[0, axis], max(tri[1, axis], tri[2, axis])) + reach
            lows[axis] = max(int((least - start[axis]) / step[axis]) + 1, 0)
            highs[axis] = min(int((most - start[axis]) / step[axis]) + 1, sizes[axis])
        for k in range(lows[2], highs[2]):
            w = start[2] + k * step[2] - az
            for j in range(lows[1], highs[1]):
                v = start[1] + j * step[1] - ay
                for i in range(lows[0], highs[0]):
                    u = start[0] + i * step[0] - ax
                    d20, d21 = u * e0x + v * e0y + w * e0z, u * e1x + v * e1y + w * e1z
                    s, t = (d11 * d20 - d01 * d21) / whole, (d00 * d21 - d01 * d20) / whole
                    if s < 0 or t < 0 or s + t > 1:  # the nearest point lies on an edge
                        best, bs, bt = 1e9, 0.0, 0.0
                        for edge in range(3):
                            if edge == 0:
                                es, et = min(max(d20 / d00, 0.0), 1.0), 0.0
                            elif edge == 1:
                                es, et = 0.0, min(max(d21 / d11, 0.0), 1.0)
                            else:
                                along = ((d21 - d01) - (d20 - d00)) / max(d00 - 2 * d01 + d11, 1e-9)
                                et = min(max(along, 0.0), 1.0)
                                es = 1 - et
                            a, b, c = (
                                u - es * e0x - et * e1x,
                                v - es * e0y - et * e1y,
                                w - es * e0z - et * e1z,
                            )
                            square = a * a + b * b + c * c
                            if square < best:
                                best, bs, bt = square, es, et
                        s, t = bs, bt
                    a, b, c = u - s * e0x - t * e1x, v - s * e0y - t * e1y, w - s * e0z - t * e1z
                    d = np.sqrt(a * a + b * b + c * c) - half_mm
                    if d < distance[k, j, i]:
                        distance[k, j, i] = d
                        kind[k, j, i] = number
