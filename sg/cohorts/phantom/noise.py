"""Reconstruction kernels: how sharp a scan is and how its noise looks.

The noise of filtered back-projection has a power spectrum that rises with the frequency and falls with the square of
the kernel's window, f A(f)^2 (Riederer, Pelc and Chesler, Phys Med Biol 1978;23:446), folded at the highest frequency
of the voxels where these are coarser than the kernel (Kijewski and Judy, Phys Med Biol 1987;32:565): voxels of 3 mm
show it nearly white. Rays that passed more bring more noise, and only at the frequencies across them. So the noise of
the rays from side to side, which pass most in chest and shoulders, is drawn apart: its grain is long from side to side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft, ndimage

from sg.cohorts.phantom.rays import WATER_PER_MM, Blocks, Rays
from sg.compiled import compiled

KernelName = Literal["smooth", "standard", "sharp"]


@dataclass(frozen=True)
class Kernel:
    """A(f) = 2^-((f / half)^2) (1 + more (1 - 2^-((f / edge)^2))), f in cycles per mm.

    Point spreads of CT are nearly Gaussian (Nickoloff and Riley, Med Phys 1985;12:437). Half is reached at 0.31 to 0.37
    per mm with hybrid iterative and 0.47 with plain filtered back-projection (PMC8292685, table 5); the noise of real
    scans has the correlation of neighbours that 0.30 to 0.40 give (`python -m bench.noise`). About 0.95 with
    edges raised by a quarter around 0.4 per mm, for lung or bone (recalled, not checked).
    """

    half: float
    more: float = 0.0
    edge: float = 1.0

    @property
    def edge_mm(self) -> float:
        """Width of the ramp that has the variance of the Gaussian part of the point spread: an edge, as it is seen."""
        sd = np.sqrt(np.log(2) / 2) / (np.pi * self.half)
        return float(np.sqrt(12) * sd)

    def window(self, frequency: np.ndarray) -> np.ndarray:
        """A(f), any shape."""
        edges = 1 - 2.0 ** -((frequency / self.edge) ** 2)
        return 2.0 ** -((frequency / self.half) ** 2) * (1 + self.more * edges)


KERNELS: dict[str, Kernel] = {
    "smooth": Kernel(0.30),
    "standard": Kernel(0.40),
    "sharp": Kernel(0.62, 1.6, 0.45),
}
HIGHEST = 1.6  # cycles per mm beyond which no kernel here lets anything through
SIDEWAYS = 4  # the rays counted as from side to side: the square of this power of their sine is a share
DIRECTIONS = 16
TAPS_FROM, LEAST_TAP = 64, 0.004


def spectra(
    kernel: Kernel, spacing_mm: tuple[float, float], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Power of the noise of the rays from side to side and of the others, float32 (ky, kx half), each of variance 1.

    `spacing_mm` and `shape` are (y, x). Also the share of the former in the whole when all rays are equally noisy.
    """
    fy = np.fft.fftfreq(shape[0], spacing_mm[0])[:, None]
    fx = np.fft.rfftfreq(shape[1], spacing_mm[1])[None, :]
    sideways, others = np.zeros((2, shape[0], fx.shape[1]))
    folds_y, folds_x = (int(HIGHEST * mm + 0.5) for mm in spacing_mm)
    for fold_y in range(-folds_y, folds_y + 1):
        for fold_x in range(-folds_x, folds_x + 1):
            y, x = fy + fold_y / spacing_mm[0], fx + fold_x / spacing_mm[1]
            radius = np.sqrt(y * y + x * x)
            power = radius * kernel.window(radius) ** 2
            share = _sideways(np.abs(y) / np.maximum(radius, 1e-9))
            sideways += power * share
            others += power * (1 - share)
    # Every frequency of the half plane but those with kx = 0 and the highest stands for two.
    twice = np.full(fx.shape[1], 2.0)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    both = [(power * twice).sum() for power in (sideways, others)]
    count = shape[0] * shape[1]
    first, second = (
        (power * (count / total)).astype(np.float32)
        for power, total in zip((sideways, others), both, strict=True)
    )
    return first, second, both[0] / (both[0] + both[1])


def _sideways(sine: np.ndarray) -> np.ndarray:
    return sine**SIDEWAYS


def along_z(thickness_mm: float, between_mm: float) -> np.ndarray:
    """Taps (odd count) that correlate white noise along z as slices of a thickness do; their squares sum to 1.

    The slice's profile is taken as a triangle as wide at half height as the slice is thick, which helical
    interpolation makes of a rectangle (Kalender, Computed Tomography, 2011; recalled, not checked): slices that touch
    have a correlation of 0.25, as noise measured on real scans has (0.2 to 0.4; `python -m bench.noise`).
    """
    reach = int(np.ceil(2 * thickness_mm / between_mm))
    count = 2 * reach + 1
    lags = np.arange(8 * count)
    lags = np.minimum(lags, 8 * count - lags) * (between_mm / thickness_mm)
    # Correlation of a triangle with itself: the cubic B-spline.
    correlation = np.where(lags < 1, 2 / 3 - lags**2 + lags**3 / 2, np.maximum(2 - lags, 0) ** 3 / 6)
    taps = np.fft.irfft(np.sqrt(np.maximum(np.fft.rfft(correlation).real, 0)), 8 * count)
    taps = np.concatenate([taps[-reach:], taps[: reach + 1]])
    return taps / np.sqrt((taps**2).sum())


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    kernel: KernelName,
    thickness_mm: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Noise of the rays from side to side and of all others, each float32 (z, y, x) of standard deviation 1.

    `spacing_mm` is (x, y, z). Also the share of the former in the variance where all rays are equally noisy.
    """
    padded = tuple(fft.next_fast_len(n, real=True) for n in shape[1:])
    sideways, others, share = spectra(KERNELS[kernel], spacing_mm[1::-1], padded)
    taps = along_z(thickness_mm, spacing_mm[2]).astype(np.float32)
    fields = []
    for power in (sideways, others):
        waves = _waves(rng, (shape[0], *power.shape), taps, padded[1] % 2 == 0)
        waves *= np.sqrt(power)
        fields.append(fft.irfft2(waves, padded, norm="ortho", overwrite_x=True)[:, : shape[1], : shape[2]])
    return fields[0], fields[1], share


def _waves(rng: np.random.Generator, shape: tuple[int, int, int], taps: np.ndarray, even: bool) -> np.ndarray:
    """White noise's half plane of Fourier coefficients, complex64 (z, ky, kx half), correlated along z by the taps.

    Only the real part of the inverse of those with kx = 0 is heard, and of the highest where the number of columns is
    even: they are made louder by the square root of 2, so that nothing is missing.
    """
    drawn = rng.standard_normal((shape[0] + len(taps) - 1, *shape[1:], 2), dtype=np.float32)
    drawn[:, :, 0] *= np.float32(np.sqrt(2))
    if even:
        drawn[:, :, -1] *= np.float32(np.sqrt(2))
    waves = np.zeros((*shape, 2), np.float32)
    for number, tap in enumerate(taps):
        waves += (tap * np.float32(np.sqrt(0.5))) * drawn[number : number + shape[0]]
    return waves.view(np.complex64)[..., 0]


def levels(hu: np.ndarray, blocks: Blocks, modulation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard deviations of the noise of the rays from side to side and of the others on the blocks, and the blocks' HU.

    The variance that a ray brings is exp(modulation x its attenuation): 1 for a tube whose current is the same for
    every ray and behind no filter that evens them out, less as both follow the patient. In units of what is measured in
    large organs: the upper quartile over all soft tissue, for the middle of the body has the most noise.
    """
    coarse = blocks.averaged(hu)
    rays = Rays(blocks.lattice, np.pi * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS)
    water = np.maximum(coarse + 1000, 0) * np.float32(WATER_PER_MM / 1000)
    variance = np.exp(np.float32(modulation) * rays.sums(water))
    sideways = _sideways(np.sin(rays.angles))
    both = [rays.mean(variance, w / w.sum()) for w in (sideways, 1 - sideways)]
    share = sideways.mean()
    organs = (share * both[0] + (1 - share) * both[1])[(coarse > -50) & (coarse < 300)]
    scale = 1 / np.sqrt(np.percentile(organs, 75)) if len(organs) else 1.0
    first, second = (np.sqrt(part) * np.float32(scale) for part in both)
    return first, second, coarse


def blurred(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], kernel: KernelName, thickness_mm: float
) -> np.ndarray:
    """A painted volume (z, y, x) as sharp as the kernel and the slice's thickness leave it.

    What is painted is already averaged over voxels, which a scan's voxels are not. Where the scanner blurs less than
    that, nothing is blurred further, and edges are made as steep as it would show them, without overshoot.
    """

    def along(frequency: np.ndarray) -> np.ndarray:
        return np.sinc(frequency * thickness_mm) ** 2  # the triangle of `along_z`

    in_plane = KERNELS[kernel].window
    edge_mm = KERNELS[kernel].edge_mm
    # A triangle as wide at half height as t has the variance t^2 / 6, that of a box sqrt(2) t wide.
    axes = ((along, np.sqrt(2) * thickness_mm), (in_plane, edge_mm), (in_plane, edge_mm))
    for axis, (mm, (window, wide_mm)) in enumerate(zip(spacing_mm[::-1], axes, strict=True)):
        if wide_mm < mm:
            hu = _steepened(hu.swapaxes(axis, 2), np.float32(min(mm / wide_mm - 1, 1) / 2)).swapaxes(axis, 2)
        taps = response(window, mm)
        if len(taps) > 1:
            hu = ndimage.correlate1d(hu, taps, axis=axis, mode="nearest")
    return np.ascontiguousarray(hu)


@compiled
def _steepened(hu, more):
    """What lies between its two neighbours along the last axis moves away from their middle, up to either of them.

    An edge painted as a ramp, one voxel wide, becomes 1 / (1 + 2 more) as wide; peaks and even places stay.
    """
    out = np.empty_like(hu)
    planes, rows, columns = hu.shape
    for i in range(planes):
        for j in range(rows):
            out[i, j, 0] = hu[i, j, 0]
            out[i, j, columns - 1] = hu[i, j, columns - 1]
            for k in range(1, columns - 1):
                before, here, after = hu[i, j, k - 1], hu[i, j, k], hu[i, j, k + 1]
                low, high = min(before, after), max(before, after)
                if low < here < high:
                    here = min(max(here + more * (here + here - before - after), low), high)
                out[i, j, k] = here
    return out


def response(window: Callable[[np.ndarray], np.ndarray], voxel_mm: float) -> np.ndarray:
    """Taps (odd count) that make of averages over voxels what a window of frequencies (per mm) leaves of the object.

    A single 1 where nothing is to be done.
    """
    frequency = np.fft.rfftfreq(TAPS_FROM, voxel_mm)
    wanted = window(frequency)
    gain = np.minimum(wanted / np.sinc(frequency * voxel_mm), np.maximum(wanted, 1))
    taps = np.fft.irfft(gain, TAPS_FROM)
    heard = np.flatnonzero(np.abs(taps[: TAPS_FROM // 2]) > LEAST_TAP)[-1]
    taps = np.concatenate([taps[TAPS_FROM - heard :], taps[: heard + 1]])
    return taps / taps.sum()
