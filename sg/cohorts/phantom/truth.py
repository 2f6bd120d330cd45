"""What is known of a phantom, written beside it: organ labels, findings, atlas positions, person and acquisition.

A voxel's position in the atlas is that of its own organ's map: organs slide against each other, so that no one smooth
field could say it. Truth keeps each map as a displacement (atlas minus patient, mm) at the nodes of a coarse grid in
patient coordinates, to be interpolated linearly along each axis, and for every label the map that it follows, or none:
what a patient has of its own (small vessels and airways, findings, fat, variants) has no counterpart in the atlas, and
no position. Interpolation errs by the maps' curvature: its 95th percentile over the centres of the grid's cells in the
body, the worst places, is the attribute `interpolation_error_mm`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.anatomy import OrganMap, Patient
from sg.cohorts.phantom.canvas import COUNTERPARTS, LABELS
from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.cohorts.phantom.rendering import Scan
from sg.cohorts.phantom.variants import without_counterpart
from sg.storage import create_h5, write_array

LABEL_BLOCK = (32, 64, 64)
FINDING = np.dtype([("kind", "S16"), ("centre_mm", "<f8", 3), ("diameter_mm", "<f8")])


def displacements(patient: Patient, lattice: Lattice, step_mm: float) -> tuple[Lattice, np.ndarray, float]:
    """A coarse grid over a scan's lattice, each map's displacement at its nodes, and the interpolation error, mm.

    Displacements are float32 (maps, 3: x, y, z; z, y, x), in the order of the patient's maps.
    """
    axes = []
    for axis in (lattice.x, lattice.y, lattice.z):
        count = int(np.ceil((axis[-1] - axis[0]) / step_mm)) + 2
        middle = (axis[0] + axis[-1]) / 2
        axes.append(middle + step_mm * (np.arange(count) - (count - 1) / 2))
    grid = Lattice(*axes)
    centres = Lattice(*((axis[:-1] + axis[1:]) / 2 for axis in axes))
    fields = [_displacement(organ, grid) for organ in patient.maps.values()]
    errors = [
        np.sqrt(((interpolated(field, grid, centres) - _displacement(organ, centres)) ** 2).sum(axis=0))
        for field, organ in zip(fields, patient.maps.values(), strict=True)
    ]
    return grid, np.stack(fields), round(float(np.percentile(np.stack(errors), 95)), 4)


def _displacement(organ: OrganMap, lattice: Lattice) -> np.ndarray:
    return np.stack(
        [position - here for position, here in zip(organ.to_atlas(lattice), lattice.grids, strict=True)]
    )


def map_of_label(patient: Patient) -> list[int]:
    """For each label the number of the map that says its atlas position, -1 where it has none."""
    names = list(patient.maps)
    known = set(COUNTERPARTS) - without_counterpart(patient)
    return [names.index(COUNTERPARTS[label]) if label in known else -1 for label in LABELS]


def write_truth(path: Path, scan: Scan, step_mm: float) -> float:
    """Write truth/<stem>.h5 of one scan; returns the interpolation error, mm."""
    grid, patient = scan.grid, scan.person.patient
    coarse, fields, error = displacements(patient, grid.lattice, step_mm)
    found = [*scan.shown.nodules, *scan.shown.lesions]
    findings = np.zeros(len(found), FINDING)
    centres = grid.world(np.array([one.centre_mm for one in found]).reshape(-1, 3))
    for row, one, centre in zip(findings, found, centres, strict=True):
        row["kind"], row["centre_mm"], row["diameter_mm"] = one.kind.encode(), centre, one.diameter_mm
    with create_h5(path) as file:
        file.attrs["acquisition"] = json.dumps(_recorded(scan), sort_keys=True)
        dataset = write_array(file, "displacements", fields)
        dataset.attrs["maps"] = json.dumps(list(patient.maps))
        dataset.attrs["grid_origin_mm"] = [axis[0] for axis in (coarse.x, coarse.y, coarse.z)]
        dataset.attrs["grid_spacing_mm"] = [step_mm] * 3
        dataset.attrs["rotation"], dataset.attrs["offset_mm"] = grid.rotation, grid.offset_mm
        dataset.attrs["interpolation_error_mm"] = error
        labels = grid.stored(scan.labels)
        blocks = tuple(min(side, most) for side, most in zip(labels.shape, LABEL_BLOCK, strict=True))
        dataset = write_array(file, "labels", labels, chunks=blocks, compression="blosc2")
        dataset.attrs["names"] = json.dumps(LABELS)
        dataset.attrs["map_of_label"] = map_of_label(patient)
        dataset.attrs["origin_mm"], dataset.attrs["spacing_mm"] = grid.origin_mm, grid.spacing_mm
        dataset.attrs["direction"] = grid.direction
        write_array(file, "lesions", findings)
    return error


def _recorded(scan: Scan) -> dict[str, object]:
    """The acquisition in plain values."""
    fields = asdict(scan.acquisition)
    grid = scan.grid
    fields["grid"] = {
        "size": list(grid.size),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": grid.origin_mm.tolist(),
        "direction": grid.direction.tolist(),
        "orientation": grid.orientation,
    }
    return fields
