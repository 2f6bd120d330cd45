"""Straight rays through a scan: how much lies along them, and what they bring back. On a lattice of some 5 mm.

Noise and streaks follow from what the rays of each direction had to pass, so both are computed from these sums.
Parallel rays in each slice, as in the textbook (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.compiled import compiled

IN_PLANE_MM, ALONG_MM = 5.0, 6.0
WATER_PER_MM = 0.0192  # attenuation of water at 70 keV (NIST XCOM; recalled, not checked)


@dataclass(frozen=True)
class Rays:
    """Parallel rays through a coarse lattice: `angles` in radians, of the direction across the rays, from x to y.

    Volumes are float32 (z, y, x) on `lattice`; sums along rays float32 (z, angle, bin).
    """

    lattice: Lattice
    angles: np.ndarray

    def sums(self, volume: np.ndarray) -> np.ndarray:
        """Integrals along the rays, in units of the volume times mm."""
        return _sums(volume, *self._turns(), self._bins()) * np.float32(self.lattice.spacing_mm[0])

    def mean(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The weighted mean over directions (weights sum to 1) of the values of the rays through each point."""
        return _mean(values, weights.astype(np.float32), *self._turns(), self.lattice.shape)

    def _turns(self) -> tuple[np.ndarray, np.ndarray]:
        return np.cos(self.angles).astype(np.float32), np.sin(self.angles).astype(np.float32)

    def _bins(self) -> int:
        """As many as cross the lattice's diagonal; the middle one runs through its middle."""
        _, rows, columns = self.lattice.shape
        return 2 * (int(np.hypot(rows, columns) / 2) + 2) + 1


@compiled
def _sums(volume, cosines, sines, bins):
    slices, rows, columns = volume.shape
    sums = np.zeros((slices, len(cosines), bins), np.float32)
    for z in range(slices):
        for y in range(rows):
            v = np.float32(y - (rows - 1) / 2)
            for x in range(columns):
                value = volume[z, y, x]
                if value == 0:
                    continue
                u = np.float32(x - (columns - 1) / 2)
                for a in range(len(cosines)):
                    s = u * cosines[a] + v * sines[a] + np.float32(bins // 2)
                    below = int(s)
                    share = s - np.float32(below)
                    sums[z, a, below] += value * (np.float32(1) - share)
                    sums[z, a, below + 1] += value * share
    return sums


@compiled
def _mean(values, weights, cosines, sines, shape):
    slices, rows, columns = shape
    bins = values.shape[2]
    mean = np.zeros(shape, np.float32)
    for z in range(slices):
        for y in range(rows):
            v = np.float32(y - (rows - 1) / 2)
            for x in range(columns):
                u = np.float32(x - (columns - 1) / 2)
                total = np.float32(0)
                for a in range(len(cosines)):
                    s = u * cosines[a] + v * sines[a] + np.float32(bins // 2)
                    below = int(s)
                    low = values[z, a, below]
                    total += weights[a] * (low + (s - np.float32(below)) * (values[z, a, below + 1] - low))
                mean[z, y, x] = total
    return mean


@dataclass(frozen=True)
class Blocks:
    """A lattice in blocks of voxels: volumes are averaged over them, and fields on them interpolated back."""

    fine: Lattice
    factors: tuple[int, int, int]  # voxels to a block, (z, y, x)

    @staticmethod
    def of(fine: Lattice) -> Blocks:
        x, _, z = fine.spacing_mm
        in_plane = max(1, round(IN_PLANE_MM / x))
        return Blocks(fine, (max(1, round(ALONG_MM / z)), in_plane, in_plane))

    @property
    def lattice(self) -> Lattice:
        """The middles of the blocks; the last may reach beyond the voxels."""
        axes = []
        for axis, factor in zip(self.fine.axes[::-1], self.factors[::-1], strict=True):
            step = float(axis[1] - axis[0])
            axes.append(axis[0] + step * ((factor - 1) / 2 + factor * np.arange(-(-len(axis) // factor))))
        return Lattice(*axes)

    def averaged(self, volume: np.ndarray) -> np.ndarray:
        """Means over the blocks, float32; the last holds what is left."""
        for axis in (2, 1, 0):
            length, factor = volume.shape[axis], self.factors[axis]
            starts = np.arange(0, length, factor)
            counts = np.minimum(factor, length - starts).astype(np.float32)
            shape = [1, 1, 1]
            shape[axis] = len(starts)
            volume = np.add.reduceat(volume, starts, axis=axis) / counts.reshape(shape)
        return volume

    def spread(self, field: np.ndarray) -> np.ndarray:
        """A field on the blocks at the voxels, linear between the blocks' middles and constant beyond them."""
        lattice = self.lattice
        axes = [np.concatenate([2 * a[:1] - a[1:2], a, 2 * a[-1:] - a[-2:-1]]) for a in lattice.axes[::-1]]
        return interpolated(np.pad(field, 1, mode="edge"), Lattice(*axes), self.fine)
