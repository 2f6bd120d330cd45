"""Moving points of a patient to where they belong: along the wall of the chest, between ribs and muscles."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.anatomy import OrganMap, Survey


def depth(survey: Survey, name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The survey's distance to a shape at points (n, 3), and the unit vectors (n, 3) along which it grows.

    Beyond the survey it is what it is at its edge.
    """
    lattice, field = survey.lattice, survey.d[name]
    first = np.array([lattice.x[0], lattice.y[0], lattice.z[0]])
    index = (points - first) / lattice.spacing_mm
    shifts = [sign * 0.75 * np.eye(3)[axis] for axis in range(3) for sign in (1, -1)]
    value, *ends = (
        ndimage.map_coordinates(field, (index + shift).T[::-1], order=1, mode="nearest")
        for shift in (0, *shifts)
    )
    slope = np.column_stack([ends[2 * axis] - ends[2 * axis + 1] for axis in range(3)])
    return value, slope / np.maximum(np.sqrt((slope**2).sum(axis=1)), 1e-6)[:, None]


def hugging(survey: Survey, path: np.ndarray, outside_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """The path (n, 3) moved to so far outside the cavity, and the unit vectors (n, 3) that point away from the cavity.

    Where the wall is too thin for that, it lies as far under the muscles' outer surface instead.
    """
    for _ in range(3):
        above, outward = depth(survey, "cavity", path)
        path = path + np.clip(outside_mm - above, -14, 14)[:, None] * outward
        over, out = depth(survey, "trunk", path)
        path = path - np.maximum(over + outside_mm, 0)[:, None] * out
    return path, outward


def beside(
    survey: Survey, points: np.ndarray, cage: OrganMap, above_ribs_mm: float | np.ndarray, under_mm: float
) -> np.ndarray:
    """Atlas points in the patient, moved to be at least so far outside the cavity and under the muscles' surface.

    Where the wall is too thin for both, outside the cavity.
    """
    points = cage.to_patient(points)
    for _ in range(3):
        over, outward = depth(survey, "trunk", points)
        points = points - np.maximum(over + under_mm, 0)[:, None] * outward
        above, outward = depth(survey, "cavity", points)
        points = points + np.maximum(above_ribs_mm - above, 0)[:, None] * outward
    return points
