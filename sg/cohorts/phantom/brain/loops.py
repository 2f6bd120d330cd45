"""The loops over voxels that arrays cannot say."""

from __future__ import annotations

import numpy as np

from sg.compiled import compiled


@compiled
def sampled(field, x, y, z, origin, step, periodic):
    """A field (components, z, y, x) at positions, trilinear: float32 (components, *positions' shape).

    `x`, `y` and `z` are float32 arrays of one shape (three axes); `origin` and `step` (x, y, z) say where the nodes
    are. Beyond the nodes the field repeats where it is `periodic` and else stays as it is at the edge.
    """
    parts, depth, height, width = field.shape
    out = np.empty((parts, *x.shape), np.float32)
    one = np.float32(1)
    for k in range(x.shape[0]):
        for j in range(x.shape[1]):
            for i in range(x.shape[2]):
                a = (x[k, j, i] - origin[0]) / step[0]
                b = (y[k, j, i] - origin[1]) / step[1]
                c = (z[k, j, i] - origin[2]) / step[2]
                if not periodic:
                    a = min(max(a, 0.0), width - 1.0)
                    b = min(max(b, 0.0), height - 1.0)
                    c = min(max(c, 0.0), depth - 1.0)
                i0, j0, k0 = int(np.floor(a)), int(np.floor(b)), int(np.floor(c))
                u, v, w = np.float32(a - i0), np.float32(b - j0), np.float32(c - k0)
                if periodic:
                    i0, j0, k0 = i0 % width, j0 % height, k0 % depth
                    i1, j1, k1 = (i0 + 1) % width, (j0 + 1) % height, (k0 + 1) % depth
                else:
                    i1, j1, k1 = min(i0 + 1, width - 1), min(j0 + 1, height - 1), min(k0 + 1, depth - 1)
                for p in range(parts):
                    near = (field[p, k0, j0, i0] * (one - u) + field[p, k0, j0, i1] * u) * (one - v)
                    near += (field[p, k0, j1, i0] * (one - u) + field[p, k0, j1, i1] * u) * v
                    far = (field[p, k1, j0, i0] * (one - u) + field[p, k1, j0, i1] * u) * (one - v)
                    far += (field[p, k1, j1, i0] * (one - u) + field[p, k1, j1, i1] * u) * v
                    out[p, k, j, i] = near * (one - w) + far * w
    return out


@compiled
def level_distance(field, voxel_mm, least_slope):
    """First-order distance (mm, with the field's sign) to where a field (z, y, x) is zero, float32.

    It is field / |gradient|; where the gradient is under `least_slope` (per mm), that is taken instead.
    """
    depth, height, width = field.shape
    out = np.empty(field.shape, np.float32)
    for k in range(depth):
        k0, k1 = max(k - 1, 0), min(k + 1, depth - 1)
        for j in range(height):
            j0, j1 = max(j - 1, 0), min(j + 1, height - 1)
            for i in range(width):
                i0, i1 = max(i - 1, 0), min(i + 1, width - 1)
                a = (field[k, j, i1] - field[k, j, i0]) / (i1 - i0)
                b = (field[k, j1, i] - field[k, j0, i]) / (j1 - j0)
                c = (field[k1, j, i] - field[k0, j, i]) / (k1 - k0)
                slope = np.sqrt(a * a + b * b + c * c) / voxel_mm
                out[k, j, i] = field[k, j, i] / max(slope, least_slope)
    return out


@compiled
def blend(images, share, values):
    """Mix tissue signals (contrasts) into images (contrasts, z, y, x), in place: share (z, y, x) of each voxel."""
    for k in range(share.shape[0]):
        for j in range(share.shape[1]):
            for i in range(share.shape[2]):
                s = share[k, j, i]
                if s > 0:
                    for c in range(images.shape[0]):
                        images[c, k, j, i] += s * (values[c] - images[c, k, j, i])


@compiled
def travel_times(speed, start, spacing_mm, rounds):
    """Least travel time from a region to every voxel, where the front moves at `speed` (mm per unit of time).

    The eikonal equation |grad T| = 1 / speed by fast sweeping (Zhao, Math. Comp. 2005;74:603): `rounds` times in each
    of eight directions. `start` is bool, `speed` float32 (z, y, x); times float32, 1e6 where the front does not come.
    """
    depth, height, width = speed.shape
    far = np.float32(1e6)
    times = np.full(speed.shape, far, np.float32)
    for k in range(depth):
        for j in range(height):
            for i in range(width):
                if start[k, j, i]:
                    times[k, j, i] = 0
    for sweep in range(8 * rounds):
        up, down, along = sweep & 1, sweep & 2, sweep & 4
        for kk in range(depth):
            k = kk if up else depth - 1 - kk
            for jj in range(height):
                j = jj if down else height - 1 - jj
                for ii in range(width):
                    i = ii if along else width - 1 - ii
                    v = speed[k, j, i]
                    if v <= 0 or start[k, j, i]:
                        continue
                    a = min(times[max(k - 1, 0), j, i], times[min(k + 1, depth - 1), j, i])
                    b = min(times[k, max(j - 1, 0), i], times[k, min(j + 1, height - 1), i])
                    c = min(times[k, j, max(i - 1, 0)], times[k, j, min(i + 1, width - 1)])
                    low, high = min(a, b, c), max(a, b, c)
                    mid = a + b + c - low - high
                    if low >= far:
                        continue
                    h = spacing_mm / v
                    t = low + h
                    if t > mid:
                        t = (low + mid + np.sqrt(max(2 * h * h - (low - mid) ** 2, 0.0))) / 2
                        if t > high:
                            total = low + mid + high
                            squares = low * low + mid * mid + high * high
                            t = (total + np.sqrt(max(total * total - 3 * (squares - h * h), 0.0))) / 3
                    if t < times[k, j, i]:
                        times[k, j, i] = t
    return times
