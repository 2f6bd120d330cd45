"""How a patient is scanned: field of view, slices, orientation of the stored axes, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.anatomy import Patient
from sg.cohorts.phantom.fields import Lattice
from sg.params import PhantomShared

NOISE_WIDTH = (0.45, 0.6, 0.6)  # voxels (z, y, x): reconstruction kernels correlate neighbouring voxels
OUTSIDE_HU = -2000.0  # what some scanners write outside the circle that they reconstruct

# The way the stored axes (i, j, k) run: to the Left, Posterior, Superior, or the other way. In a row of patients
# these take turns, so that a reader meets all of them in a small cohort. LUNA16 has some scans turned by 180 degrees.
ORIENTATIONS = {
    "luna16": ("LPS", "LPS", "RAS", "LPS", "LPS"),
    "decathlon": ("RAS", "LAS", "LPS"),
}


@dataclass(frozen=True)
class Grid:
    """The scan's voxels: `lattice` in LPS, and how the stored axes run along it."""

    lattice: Lattice
    orientation: str

    @property
    def size(self) -> tuple[int, int, int]:
        """(x, y, z)."""
        return self.lattice.shape[::-1]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.lattice.spacing_mm

    @property
    def signs(self) -> tuple[int, int, int]:
        """+1 where the stored axis (x, y, z) runs as LPS does, -1 where it runs the other way."""
        return tuple(
            1 if letter == along else -1 for letter, along in zip(self.orientation, "LPS", strict=True)
        )

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """LPS position of the first stored voxel."""
        axes = (self.lattice.x, self.lattice.y, self.lattice.z)
        return tuple(float(axis[0 if sign > 0 else -1]) for axis, sign in zip(axes, self.signs, strict=True))

    def stored(self, array: np.ndarray) -> np.ndarray:
        """An array (z, y, x) on the lattice as it is stored, and the other way round."""
        return np.ascontiguousarray(array[tuple(slice(None, None, sign) for sign in self.signs[::-1])])


def draw_grid(
    patient: Patient, number: int, layout: str, shared: PhantomShared, rng: np.random.Generator
) -> Grid:
    """The grid of one patient's scan.

    The field of view holds the body with some margin, but is 280 to 360 mm wide, so that a large body is cut at the
    sides. Chest scans reach from above the lungs to below them, 280 to 350 mm in a patient of average height; liver
    scans from the heart or the dome of the liver to below the kidneys, 220 to 320 mm. The spacing has three decimals
    and the origin two, as they are written, so that what is written is what was computed with.
    """
    in_plane = round(float(rng.uniform(*shared.spacing_xy_mm)), 3)
    between = round(float(rng.uniform(*shared.spacing_z_mm)), 3)
    body = 2 * (151 * patient.width + patient.fat_mm)
    count = round(float(np.clip(body + rng.uniform(6, 36), 280, 360)) / in_plane)
    if layout == "luna16":
        top, bottom = rng.uniform(98, 116), rng.uniform(-234, -182)
    else:
        top, bottom = rng.uniform(-92, -25), rng.uniform(-345, -312)
    slices = round(float(top - bottom) * patient.height / between)
    shift = rng.normal(0, 5, 2)
    middle = patient.centre_mm[:2] + shift
    high = patient.centre_mm[2] + top * patient.height
    origin = [round(float(m - in_plane * (count - 1) / 2), 2) for m in middle]
    origin.append(round(float(high - between * (slices - 1)), 2))
    axes = (
        o + s * np.arange(n)
        for o, s, n in zip(origin, (in_plane, in_plane, between), (count, count, slices), strict=True)
    )
    turns = ORIENTATIONS[layout]
    return Grid(Lattice(*axes), turns[number % len(turns)])


def noise(rng: np.random.Generator, shape: tuple[int, int, int], sd_hu: float) -> np.ndarray:
    """Noise of the given standard deviation, correlated between neighbouring voxels, float32 (z, y, x)."""
    field = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, NOISE_WIDTH, mode="wrap", truncate=3)
    gain = 1.0
    for width in NOISE_WIDTH:
        taps = np.exp(-0.5 * (np.arange(-int(3 * width + 0.5), int(3 * width + 0.5) + 1) / width) ** 2)
        gain *= float((taps**2).sum() / taps.sum() ** 2)
    field *= np.float32(sd_hu / np.sqrt(gain))
    return field
