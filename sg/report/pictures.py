"""Slices of CT as pictures for the page: windowed, upright, in their true proportions."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

# The window of the pictures, HU: lungs and soft tissue both keep some contrast.
WINDOW_HU = (-1000.0, 400.0)
# Pictures are drawn smaller than this on the page; more pixels would only make the page heavy.
PIXELS_MAX = 160


@dataclass(frozen=True)
class Box:
    """A rectangle on a picture, in percent of its width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    source: str  # data URI
    alt: str
    aspect: float  # width / height as it is to be shown
    box: Box | None = None


def picture(hu: np.ndarray, pixel_mm: tuple[float, float], alt: str, box: Box | None = None) -> Picture:
    """A picture of a slice (row, column) in HU whose pixels measure `pixel_mm` (height, width)."""
    height_mm, width_mm = (extent * size for extent, size in zip(hu.shape, pixel_mm, strict=True))
    return Picture(png(gray(hu)), alt, width_mm / height_mm, box)


def coronal(volume: np.ndarray, y: int | None = None) -> np.ndarray:
    """The coronal slice at `y` (the middle one without it) of a volume (z, y, x) in LPS, as (row, column).

    Head up, and the patient's left on the viewer's right, as a radiologist looks at it.
    """
    return volume[::-1, volume.shape[1] // 2 if y is None else y, :]


def axial(volume: np.ndarray, z: int | None = None) -> np.ndarray:
    """The axial slice at `z` (the middle one without it) of a volume (z, y, x) in LPS, as (row, column).

    Front up, seen from the feet, so that the patient's left is on the viewer's right.
    """
    return volume[volume.shape[0] // 2 if z is None else z]


def gray(hu: np.ndarray) -> np.ndarray:
    """HU as gray levels 0 to 255 within the window, uint8. NaN, which no pixel should be, is black."""
    low, high = WINDOW_HU
    share = (np.clip(np.nan_to_num(hu, nan=low).astype(np.float64), low, high) - low) / (high - low)
    return np.floor(share * 255 + 0.5).astype(np.uint8)


def thinned(image: np.ndarray) -> np.ndarray:
    """Every n-th row and column of an image (row, column), so that no side has more than PIXELS_MAX pixels."""
    step = -(-max(image.shape) // PIXELS_MAX)
    return image[::step, ::step]


def png(levels: np.ndarray) -> str:
    """Data URI of a PNG of gray levels uint8 (row, column); the PNG holds the pixels and nothing else."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(thinned(levels))).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
