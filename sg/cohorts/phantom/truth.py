"""What is known of a phantom, written beside it: atlas positions, organ labels, findings.

The atlas position is kept at the nodes of a coarse grid, to be interpolated linearly along each axis. It has no
closed form between the nodes, and the interpolation errs where two organs' maps meet. The error is measured for each
scan: at the centres of every second coarse cell along each axis, and at the centres of such cells' edges along x, y
and z, as far as they lie in the body, the interpolated position is held against the position computed there directly.
The 95th percentile of their distance, in mm, is the attribute `interpolation_error_mm`: it is about 1 mm (0.8 to 1.4)
for a grid of 12 mm and about half of that for one of 8 mm. A scan's own positions err less, because these places, midway
between nodes, are the worst.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.anatomy import Patient, blended_atlas, shapes
from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.cohorts.phantom.rendering import LABELS, Scan
from sg.storage import create_h5, write_array

LABEL_BLOCK = (32, 64, 64)
FINDING = np.dtype([("centre_mm", "<f8", 3), ("diameter_mm", "<f8")])


def atlas_grid(patient: Patient, lattice: Lattice, step_mm: float) -> tuple[Lattice, np.ndarray, float]:
    """The coarse grid over a scan, the atlas positions at its nodes, and the interpolation error.

    Positions are float32 (3: x, y, z; z, y, x) in mm, NaN further than one cell's diagonal outside of the body, so
    that interpolation has all eight neighbours everywhere in it.
    """
    axes = []
    for axis in (lattice.x, lattice.y, lattice.z):
        count = int(np.ceil((axis[-1] - axis[0]) / step_mm)) + 1
        middle = (axis[0] + axis[-1]) / 2
        axes.append(middle + step_mm * (np.arange(count) - (count - 1) / 2))
    grid = Lattice(*axes)
    d = shapes(patient, grid)
    atlas = blended_atlas(patient, grid, d)
    error = _interpolation_error(patient, grid, atlas)
    atlas[:, d["skin"] > step_mm * np.sqrt(3)] = np.nan
    return grid, atlas, error


def _interpolation_error(patient: Patient, grid: Lattice, atlas: np.ndarray) -> float:
    errors = []
    for shifted in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        axes = []
        for axis, shift in zip((grid.x, grid.y, grid.z), shifted, strict=True):
            axes.append(((axis[:-1] + axis[1:]) / 2 if shift else axis)[::2])
        between = Lattice(*axes)
        d = shapes(patient, between)
        difference = interpolated(atlas, grid, between) - blended_atlas(patient, between, d)
        errors.append(np.sqrt((difference**2).sum(axis=0))[d["skin"] < 0])
    return round(float(np.percentile(np.concatenate(errors), 95)), 4)


def write_truth(path: Path, scan: Scan, step_mm: float) -> float:
    """Write truth/<stem>.h5 of one scan; returns the interpolation error, mm."""
    grid, atlas, error = atlas_grid(scan.patient, scan.grid.lattice, step_mm)
    findings = np.zeros(len(scan.nodules), FINDING)
    for row, finding in zip(findings, scan.nodules, strict=True):
        row["centre_mm"], row["diameter_mm"] = finding.centre_mm, finding.diameter_mm
    with create_h5(path) as file:
        dataset = write_array(file, "atlas", atlas)
        dataset.attrs["grid_origin_mm"] = [axis[0] for axis in (grid.x, grid.y, grid.z)]
        dataset.attrs["grid_spacing_mm"] = [step_mm] * 3
        dataset.attrs["interpolation_error_mm"] = error
        labels = scan.grid.stored(scan.labels)
        blocks = tuple(min(side, most) for side, most in zip(labels.shape, LABEL_BLOCK, strict=True))
        dataset = write_array(file, "labels", labels, chunks=blocks, compression="blosc2")
        dataset.attrs["names"] = json.dumps(LABELS)
        write_array(file, "lesions", findings)
    return error
