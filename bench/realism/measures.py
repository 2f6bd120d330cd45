"""Measures that treat phantoms and real scans alike: from numbers, or from HU on a grid, without any labels.

Arrays are (z, y, x), spacings (x, y, z) in mm, positions (x, y, z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.frames import body_box, lungs_box

GRID_MM = 3.0  # scans are compared at about this spacing
AIR_HU, SKIN_HU = -400.0, -300.0
QUANTILES = tuple(np.arange(0.05, 1, 0.1).round(2))
SOFT_HU = (-30.0, 160.0)  # muscle, blood and organs, with or without contrast medium
WINDOW = 8  # voxels: the side of the squares that noise is measured in
BOOTSTRAPS = 1000


# ------------------------------------------------------------------------------------------- cohorts


def participation_ratio(samples: np.ndarray) -> float:
    """Effective dimension of samples (n, dimensions): (sum of eigenvalues)^2 / sum of squares, of their covariance.

    With equal variances in k directions it is k. The covariance of n samples has a sum of squares that is too large by
    chance; for normal samples its mean is known, and what is too much is taken off, so that the ratio does not grow
    with n. Source: Gao et al., bioRxiv 2017 (214262) for the ratio; the correction from the moments of the Wishart
    distribution, E tr S^2 = (1 + 1/m) tr C^2 + (tr C)^2 / m with m = n - 1. Recalled, not checked.
    """
    m = len(samples) - 1
    centred = samples - samples.mean(axis=0)
    gram = centred @ centred.T / m  # has the covariance's eigenvalues
    total, squares = np.trace(gram), (gram**2).sum()
    corrected = (squares - total**2 / m) / (1 + 1 / m)
    return float(total**2 / max(corrected, total**2 / samples.shape[1]))


def explained_share(predictors: np.ndarray, samples: np.ndarray) -> float:
    """Share of the variance of samples (n, dimensions), all dimensions together, that a linear fit explains.

    `predictors` is (n, p). Adjusted for p (Ezekiel's formula: 1 - (1 - R2) (n - 1) / (n - p - 1)), so that it is 0 on
    average where they explain nothing.
    """
    n, p = predictors.shape
    design = np.column_stack([np.ones(n), predictors])
    fit, *_ = np.linalg.lstsq(design, samples, rcond=None)
    rest = ((samples - design @ fit) ** 2).sum()
    total = ((samples - samples.mean(axis=0)) ** 2).sum()
    return float(1 - rest / total * (n - 1) / (n - p - 1))


def affine_residual(points: np.ndarray, counterparts: np.ndarray) -> float:
    """Root mean square distance, mm, that the best affine map of points (n, 3) leaves to their counterparts."""
    design = np.column_stack([points, np.ones(len(points))])
    fit, *_ = np.linalg.lstsq(design, counterparts, rcond=None)
    return float(np.sqrt(((counterparts - design @ fit) ** 2).sum(axis=1).mean()))


def interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], float], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of values (n, ...), by drawing patients with repetition (percentiles)."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(BOOTSTRAPS)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def quantile_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance of two lists of quantiles at the same levels: the earth mover's distance, as far as these tell."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).mean())


# -------------------------------------------------------------------------------------------- boxes


@dataclass(frozen=True)
class Boxes:
    """Body and lung box of a scan by `sg.frames`, mm from its first voxel's corner: `low` and `high` (x, y, z)."""

    body_low: np.ndarray
    body_high: np.ndarray
    lungs_low: np.ndarray
    lungs_high: np.ndarray

    @property
    def body_mm(self) -> np.ndarray:
        return self.body_high - self.body_low

    @property
    def ratio(self) -> np.ndarray:
        """Size of the lung box over that of the body box (x, y, z)."""
        return (self.lungs_high - self.lungs_low) / self.body_mm

    @property
    def offset_mm(self) -> np.ndarray:
        """Centre of the lung box from that of the body box."""
        return (self.lungs_low + self.lungs_high - self.body_low - self.body_high) / 2

    @property
    def predictors(self) -> np.ndarray:
        """What the boxes say in plane, where the scan's range has no part in it, and the height of the lungs (7)."""
        return np.array([*self.body_mm[:2], *self.offset_mm[:2], *(self.lungs_high - self.lungs_low)])


def boxes(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Boxes | None:
    """The boxes of a scan; None where body or lungs are not found."""
    body, lungs = body_box(hu, spacing_mm), lungs_box(hu, spacing_mm)
    if body is None or lungs is None:
        return None
    edges = (body.start, body.stop, lungs.start, lungs.stop)
    return Boxes(*(np.array(edge[::-1]) * spacing_mm for edge in edges))


# ---------------------------------------------------------------------------------- values and noise


@dataclass(frozen=True)
class Look:
    """What a chest scan looks like at about 3 mm, whoever is on it. HU, and shares of voxels."""

    lung_mean: float
    lung_p15: float
    lung_under_950: float
    lung_over_600: float
    lung_quantiles: np.ndarray
    rest_quantiles: np.ndarray
    noise: float
    frequency: float  # cycles per voxel


def at_grid(
    hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Means of blocks of voxels, so that the spacing is about GRID_MM where it was finer; float32."""
    factors = [max(1, round(GRID_MM / mm)) for mm in spacing_mm[::-1]]
    shape = [side // factor for side, factor in zip(hu.shape, factors, strict=True)]
    part = hu[tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))].astype(np.float32)
    part = np.clip(part, -1024, 3071)  # what lies outside the reconstructed circle is air
    blocks = part.reshape(*(value for pair in zip(shape, factors, strict=True) for value in pair))
    return blocks.mean(axis=(1, 3, 5)), tuple(mm * f for mm, f in zip(spacing_mm, factors[::-1], strict=True))


def masks(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The body (filled slice by slice) and the lungs with the vessels in them, both boolean, by thresholds."""
    plane = ndimage.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    steps = max(1, round(4.0 / spacing_mm[0]))
    dense = ndimage.binary_opening(hu >= SKIN_HU, plane, steps)
    body = _largest(dense, 1)
    body = np.stack([ndimage.binary_fill_holes(one) for one in body])
    air = _largest((hu < AIR_HU) & ndimage.binary_erosion(body, plane, 2), 2, share=0.15)
    ball = _ball(9.0, spacing_mm)
    pad = [(side // 2 + 1,) * 2 for side in ball.shape]
    closed = ndimage.binary_closing(np.pad(air, pad), ball)
    return body, closed[tuple(slice(before, -after) for before, after in pad)] & body


def _largest(mask: np.ndarray, count: int, share: float = 0.0) -> np.ndarray:
    """The largest connected pieces of a mask, up to `count` of them, no smaller than `share` of the largest."""
    labels, found = ndimage.label(mask)
    if found == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    chosen = [n for n in np.argsort(sizes)[::-1][:count] if sizes[n] > 0 and sizes[n] >= share * sizes.max()]
    return np.isin(labels, chosen)


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    reach = [int(radius_mm / mm) for mm in spacing_mm[::-1]]
    z, y, x = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    return (x * spacing_mm[0]) ** 2 + (y * spacing_mm[1]) ** 2 + (z * spacing_mm[2]) ** 2 <= radius_mm**2


def look(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Look:
    """Measure one scan."""
    hu, spacing_mm = at_grid(hu, spacing_mm)
    body, lungs = masks(hu, spacing_mm)
    inside, rest = hu[lungs], hu[body & ~ndimage.binary_dilation(lungs)]
    noise, frequency = noise_of(hu)
    return Look(
        lung_mean=float(inside.mean()),
        lung_p15=float(np.quantile(inside, 0.15)),
        lung_under_950=float((inside < -950).mean()),
        lung_over_600=float((inside > -600).mean()),
        lung_quantiles=np.quantile(inside, QUANTILES),
        rest_quantiles=np.quantile(rest, QUANTILES),
        noise=noise,
        frequency=frequency,
    )


def noise_of(hu: np.ndarray) -> tuple[float, float]:
    """Standard deviation of the noise in soft tissue, HU, and its mean frequency in plane, cycles per voxel.

    Both from axial squares that are soft tissue throughout: smooth change (a plane) is taken off each. The standard
    deviation is the median over squares. The frequency is the mean radius in the power spectrum weighted by power, up
    to half a cycle per voxel: 0.31 for white noise in squares of 8, less for smooth noise. NaN without such squares.
    """
    calm = ndimage.uniform_filter(hu, (1, 3, 3))
    soft = (calm > SOFT_HU[0]) & (calm < SOFT_HU[1])
    origin = -((WINDOW - 1) // 2) - (WINDOW + 1) % 2
    whole = ndimage.minimum_filter(
        soft.astype(np.uint8), (1, WINDOW, WINDOW), origin=(0, origin + 1, origin + 1)
    )
    z, y, x = np.nonzero(whole[:, : -WINDOW + 1, : -WINDOW + 1])
    keep = (y % (WINDOW // 2) == 0) & (x % (WINDOW // 2) == 0)
    if not keep.any():
        return float("nan"), float("nan")
    squares = np.stack(
        [hu[k, j : j + WINDOW, i : i + WINDOW] for k, j, i in zip(z[keep], y[keep], x[keep], strict=True)]
    ).astype(np.float64)
    ramp = np.arange(WINDOW) - (WINDOW - 1) / 2
    scale = (ramp**2).sum() * WINDOW
    squares -= squares.mean(axis=(1, 2), keepdims=True)
    for slope in (ramp[:, None], ramp[None, :]):
        squares -= (squares * slope).sum(axis=(1, 2), keepdims=True) / scale * slope
    sd = np.sqrt((squares**2).sum(axis=(1, 2)) / (WINDOW**2 - 3))
    # The calmer half: in the others an edge between tissues is in the square.
    calmest = squares[sd <= np.median(sd)]
    power = (np.abs(np.fft.fft2(calmest)) ** 2).mean(axis=0)
    axis = np.fft.fftfreq(WINDOW)
    radius = np.hypot(axis[:, None], axis[None, :])
    within = (radius > 0) & (radius <= 0.5)
    return float(np.median(sd)), float((power * radius)[within].sum() / power[within].sum())
