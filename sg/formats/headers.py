"""What the header of a scan file says: the grid of its voxels in the patient, and how they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np

from sg.formats.files import Refusal

# How far a tilted gantry may slant the slices: the least sine of the angle between an axis and the plane of the others
SLANT_MIN = 0.7
# How far axes may be from right angles: 1e-3 is half a millimetre over 500 mm, more than rounding explains
ANGLE_TOLERANCE = 1e-3
# How far apart two grids may be that are taken for the same, in voxels
PLACE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an array (z, y, x) lie. All parts are in the order x, y, z of the stored axes.

    The axes are at right angles, but for scans made with a tilted gantry, whose slices are shifted against each other.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]  # centre of the first voxel, LPS
    direction: tuple[
        float, ...
    ]  # 3 x 3 by rows; the columns are the axes' unit vectors in LPS, as ITK has them

    @property
    def affine(self) -> np.ndarray:
        """The 4 x 4 matrix from a voxel's index (x, y, z, 1) to its centre in mm (LPS)."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing_mm
        affine[:3, 3] = self.origin_mm
        return affine

    @property
    def orientation(self) -> str:
        """Where the stored axes x, y, z mainly lead, e.g. LPS or RAS."""
        return "".join(nib.aff2axcodes(self.affine, labels=(("R", "L"), ("A", "P"), ("I", "S"))))

    @property
    def slices(self) -> int:
        """Voxels along the axis that leads most nearly from the feet to the head."""
        return next(n for n, axis in zip(self.size, self.orientation, strict=True) if axis in "IS")

    def position_mm(self, index: np.ndarray | Sequence[float]) -> np.ndarray:
        """Positions in mm (..., 3), LPS, of voxel indices (..., 3) in the order x, y, z, fractions allowed."""
        affine = self.affine
        return np.asarray(index) @ affine[:3, :3].T + affine[:3, 3]

    def index(self, position_mm: np.ndarray | Sequence[float]) -> np.ndarray:
        """Voxel indices (..., 3), x, y, z with fractions, of positions (..., 3) in mm, LPS."""
        affine = self.affine
        return (np.asarray(position_mm) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T

    def corners_mm(self) -> np.ndarray:
        """Centres (8, 3) of the corner voxels in mm, LPS."""
        return self.position_mm(list(product(*((0, n - 1) for n in self.size))))

    def difference(self, other: Geometry) -> str:
        """How another grid differs, in words; empty where both are the same to within a tenth of a voxel."""
        if self.size != other.size:
            return f"{by(self.size)} against {by(other.size)} voxels"
        apart = float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())
        if apart > PLACE_TOLERANCE * min(self.spacing_mm):
            return f"their corners are up to {apart:.3g} mm apart"
        return ""


@dataclass(frozen=True)
class Header:
    """A header, checked against itself. The stream of voxels begins at byte `start` of `file`."""

    geometry: Geometry
    modality: str  # CT
    file: Path
    start: int
    offset: int  # of the first voxel in what comes out of the stream
    compressed: bool
    dtype: np.dtype
    slope: float
    intercept: float

    @property
    def bytes(self) -> int:
        """What the voxels take as stored, once decompressed."""
        return prod(self.geometry.size) * self.dtype.itemsize


def grid(size: Sequence[int], affine: np.ndarray, sheared: bool = False) -> Geometry:
    """Geometry of a 4 x 4 matrix from voxel indices (x, y, z) to LPS.

    Refusal where it is no right-angled grid; if it may be `sheared`, where its axes nearly lie in one plane.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not np.isfinite(spacing).all():
        raise Refusal("header", "The header's position of the patient holds values that are not numbers.")
    check_spacing(spacing)
    direction = affine[:3, :3] / spacing
    if sheared:
        _check_slant(direction)
    else:
        check_direction(direction)
    return Geometry(
        tuple(int(n) for n in size),
        tuple(float(v) for v in spacing),
        tuple(float(v) for v in affine[:3, 3]),
        tuple(float(v) for v in direction.ravel()),
    )


def check_spacing(spacing: Iterable[float]) -> None:
    """Refuse distances between voxels that are not positive numbers."""
    spacing = list(spacing)
    if not all(0 < value < np.inf for value in spacing):
        raise Refusal("spacing", f"The header gives a voxel spacing of {by(spacing)} mm, which cannot be.")


def check_direction(direction: np.ndarray) -> None:
    """Refuse a 3 x 3 matrix whose columns are not unit vectors at right angles; mirrored ones are fine."""
    off = np.abs(direction.T @ direction - np.eye(3)).max()
    if not off <= ANGLE_TOLERANCE:
        raise Refusal(
            "header",
            f"The scan's axes are not at right angles or not of length 1 (off by {off:.2g}), as with a tilted gantry; "
            "straighten the scan first.",
        )


def _check_slant(direction: np.ndarray) -> None:
    """Refuse a 3 x 3 matrix of unit columns that span hardly any volume."""
    slant = abs(np.linalg.det(direction))
    if not slant >= SLANT_MIN:
        raise Refusal(
            "header",
            f"The slices are shifted against each other more than any tilted gantry does (by an angle of "
            f"{np.degrees(np.arccos(min(1.0, slant))):.0f} degrees).",
        )


def by(values: Iterable[float]) -> str:
    """Numbers as people write sizes: 512 x 512 x 300."""
    return " x ".join(
        f"{value:.6g}" if isinstance(value, float) or abs(value) >= 10**12 else str(value) for value in values
    )
