"""Fine texture of a person: noise that is cheap at every voxel, and the same at every point whatever the lattice."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.scene import Scene
from sg.compiled import compiled

NODES = 32  # along an axis; beyond them the noise repeats itself


def table(scene: Scene, purpose: str) -> np.ndarray:
    """Standard normal values at the nodes of a periodic lattice, float32, the person's own for a purpose."""
    return scene.draw(purpose).standard_normal((NODES, NODES, NODES)).astype(np.float32)


def grain(scene: Scene, purpose: str, lattice: Lattice, step_mm: float) -> np.ndarray:
    """Smooth noise of standard deviation about 1 with grains of about `step_mm`, float32 (z, y, x)."""
    field = np.empty(lattice.shape, np.float32)
    x, y, z = (axis.astype(np.float32) for axis in (lattice.x, lattice.y, lattice.z))
    _fill(field, table(scene, purpose), x, y, z, np.float32(1 / step_mm))
    return field


@compiled
def _fill(field, nodes, x, y, z, scale):
    """Two octaves on lattices turned against each other, so that no lattice shows."""

    def at(u, v, w):
        i, j, k = np.floor(u), np.floor(v), np.floor(w)
        u, v, w = u - i, v - j, w - k
        u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
        i0, j0, k0 = int(i) & 31, int(j) & 31, int(k) & 31
        i1, j1, k1 = (i0 + 1) & 31, (j0 + 1) & 31, (k0 + 1) & 31
        a = nodes[k0, j0, i0] + u * (nodes[k0, j0, i1] - nodes[k0, j0, i0])
        b = nodes[k0, j1, i0] + u * (nodes[k0, j1, i1] - nodes[k0, j1, i0])
        c = nodes[k1, j0, i0] + u * (nodes[k1, j0, i1] - nodes[k1, j0, i0])
        d = nodes[k1, j1, i0] + u * (nodes[k1, j1, i1] - nodes[k1, j1, i0])
        a, c = a + v * (b - a), c + v * (d - c)
        return a + w * (c - a)

    for k in range(len(z)):
        for j in range(len(y)):
            for i in range(len(x)):
                u, v, w = x[i] * scale, y[j] * scale, z[k] * scale
                first = at(0.8 * u + 0.6 * v, 0.8 * v - 0.6 * u, w)
                second = at(1.3 * (0.5 * u - 0.87 * w) + 11, 1.3 * v + 5, 1.3 * (0.87 * u + 0.5 * w) + 3)
                field[k, j, i] = np.float32(1.25) * (first + 0.8 * second)
