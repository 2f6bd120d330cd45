"""The noise of CT, measured where a scan is homogeneous: how strong, how grainy, how far it reaches along each axis.

    SG_REAL_CT=/folder python -m bench.noise [--phantoms 4]

Each real scan is measured as it is and resampled to 3 mm as the pipeline resamples it; phantoms are made at in-plane
voxels and slice distances like those of the real scans, with each kernel, and at 3 mm. Columns: standard deviation in
HU, mean frequency of the power spectrum as a share of the grid's highest, correlation of neighbours along x, y and z,
and the power in the three thirds of the frequencies (shares; white noise has 0.11, 0.33, 0.56).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bench.phantoms import CHESTS, SHARED, rendered
from bench.reals import GRID_MM, PATIENTS, read
from sg.errors import InputError

REGION_MM = 24.0  # side of the square regions, in plane
SMOOTH_MM = 4.0  # what is left of a scan after this much smoothing is anatomy, not noise
UNEVEN_HU = 8.0  # most standard deviation of that in a region
SOFT_HU = (0.0, 300.0)  # heart, vessels, liver, muscle
BANDS = 3
GRIDS_MM = ((0.8, 2.5), (1.5, 2.5), (3.0, 3.0))  # voxels of phantoms: in plane, along z


@dataclass(frozen=True)
class Measured:
    """Noise of one scan. `bands` holds shares of the power by radial frequency, up to the grid's highest."""

    sd_hu: float
    frequency: float  # mean of the spectrum, as a share of the grid's highest (1 / (2 spacing))
    along: tuple[float, float, float]  # correlation of neighbours along x, y and z
    bands: tuple[float, ...]
    regions: int

    def line(self) -> str:
        along = " ".join(f"{r:5.2f}" for r in self.along)
        bands = " ".join(f"{share:.2f}" for share in self.bands)
        return f"{self.sd_hu:6.1f}  {self.frequency:.2f}  {along}  {bands}  {self.regions:5d}"


HEADER = f"{'':44s} sd HU  freq      x     y     z  thirds of power regions"


def measure(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Measured:
    """The noise of a scan (z, y, x) with spacing (x, y, z), in its homogeneous regions of soft tissue.

    A region is a square of 24 mm in one slice whose anatomy (the scan smoothed by 4 mm) changes by less than 8 HU; a
    plane is taken off. The standard deviation is the median over regions, the rest are means over them. InputError
    where there are fewer than five.
    """
    hu = np.clip(hu, -1000, 1000).astype(np.float32)
    zyx_mm = np.array(spacing_mm[::-1])
    anatomy = ndimage.gaussian_filter(hu, SMOOTH_MM / zyx_mm)
    side = [max(8, round(REGION_MM / mm)) for mm in spacing_mm[:2]]
    low, high = (f(anatomy, (1, side[1], side[0])) for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    soft = (low > SOFT_HU[0]) & (high < SOFT_HU[1])
    mean, square = (ndimage.uniform_filter(a, (1, side[1], side[0])) for a in (anatomy, anatomy**2))
    even = soft & (square - mean**2 < UNEVEN_HU**2)
    inside = np.zeros_like(even)
    # The slice above is needed too, and smoothing knows no anatomy beyond the ends.
    inside[1:-1, side[1] : -side[1], side[0] : -side[0]] = True
    even &= inside
    regions = list(_apart(even, side))
    if len(regions) < 5:
        raise InputError(
            f"a scan whose noise is measured must have 5 homogeneous regions of soft tissue, got {len(regions)}"
        )
    pieces = np.stack([_flattened(hu[z, y : y + side[1], x : x + side[0]]) for z, y, x in regions])
    above = np.stack([_flattened(hu[z + 1, y : y + side[1], x : x + side[0]]) for z, y, x in regions])
    variance = (pieces**2).mean()
    along = (
        (pieces[:, :, 1:] * pieces[:, :, :-1]).mean() / variance,
        (pieces[:, 1:] * pieces[:, :-1]).mean() / variance,
        (pieces * above).mean() / np.sqrt(variance * (above**2).mean()),
    )
    frequency, power = _spectrum(pieces)
    band = np.minimum((frequency * BANDS).astype(int), BANDS - 1)
    seen = (frequency <= 1) & (frequency > 0)
    total = power[seen].sum()
    bands = tuple(float(power[seen & (band == n)].sum() / total) for n in range(BANDS))
    return Measured(
        float(np.median(pieces.std(axis=(1, 2)))),
        float((power * frequency)[seen].sum() / total),
        tuple(float(r) for r in along),
        bands,
        len(regions),
    )


def _apart(even: np.ndarray, side: list[int]) -> Iterator[tuple[int, int, int]]:
    """First voxels (z, y, x) of regions that do not overlap."""
    for z in np.flatnonzero(even.any(axis=(1, 2))):
        free = even[z].copy()
        for y, x in np.argwhere(free):
            if free[y, x]:
                free[max(y - side[1] + 1, 0) : y + side[1], max(x - side[0] + 1, 0) : x + side[0]] = False
                yield int(z), int(y - side[1] // 2), int(x - side[0] // 2)


def _flattened(region: np.ndarray) -> np.ndarray:
    """The region (y, x) less the plane that fits it best, in HU."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in region.shape)
    slope_y = (region * y[:, None]).sum() / ((y**2).sum() * len(x))
    slope_x = (region * x[None, :]).sum() / ((x**2).sum() * len(y))
    return region - region.mean() - slope_y * y[:, None] - slope_x * x[None, :]


def _spectrum(pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radial frequency, as a share of the highest, and mean power, both (ky, kx)."""
    power = (np.abs(np.fft.fft2(pieces)) ** 2).mean(axis=0)
    fy, fx = (np.fft.fftfreq(n) * 2 for n in power.shape)
    return np.hypot(fy[:, None], fx[None, :]), power


def main() -> None:
    """Print a line for each real scan and each kind of phantom."""
    parser = argparse.ArgumentParser(description="Measure the noise of real scans and of phantoms like them.")
    parser.add_argument("--phantoms", type=int, default=2, help="phantoms at each spacing")
    count = parser.parse_args().phantoms
    print(HEADER)
    for real in read(list(PATIENTS)):
        name, (x, _, z) = real.name, real.spacing_mm
        _show(f"{name}, {x:.2f} x {z:.1f} mm", real.hu, real.spacing_mm)
        _show(f"{name}, 3 mm", real.coarse, (GRID_MM,) * 3)
    for x, z in GRIDS_MM:
        shared = SHARED.model_copy(update={"spacing_xy_mm": (x, x), "spacing_z_mm": (z, z)})
        for scan in rendered(CHESTS, count, 5, shared, workers=1):
            how = scan.acquisition
            name = f"{how.kernel}, {x} x {z} mm, slices of {how.thickness_mm:.1f}"
            _show(name, scan.hu, (x, x, z))


def _show(name: str, hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    try:
        print(f"{name:44s}{measure(hu, spacing_mm).line()}", flush=True)
    except InputError as error:
        print(f"{name:44s}{error}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
