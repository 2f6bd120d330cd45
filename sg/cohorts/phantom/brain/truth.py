"""What is known of a head, written beside its scan: tissues, atlas positions, the case and its acquisition.

As for chests: each map's displacement (atlas minus patient, mm; what the tumour has pushed included) at the nodes of a
coarse grid in the patient's frame, to be interpolated linearly along each axis, and for every tissue the map that it
follows, or none (-1): cortex and sulci, folia, veins, lesions and tumour are a patient's own and have no position.
Atlas positions are mm from the anterior commissure, x to the left, y to the back, z up.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sg.cohorts.phantom.brain import tumour as growth
from sg.cohorts.phantom.brain.anatomy import FIELD_MM, atlas_positions, shapes
from sg.cohorts.phantom.brain.rendering import COUNTERPARTS, TISSUES, BrainScan
from sg.cohorts.phantom.fields import Lattice, interpolated
from sg.storage import create_h5, write_array

GRID_MM = 8.0
LABEL_BLOCK = (32, 64, 64)


def displacements(scan: BrainScan) -> tuple[Lattice, np.ndarray, float]:
    """A grid of GRID_MM over the frame, each map's displacement at its nodes, and the interpolation error, mm.

    Displacements are float32 (maps, 3: x, y, z; z, y, x), in the order of the head's maps. The error is the 95th
    percentile over the centres of the grid's cells in the brain.
    """
    half = GRID_MM / 2
    axes = (np.arange(-half, side + GRID_MM + half, half) for side in FIELD_MM)
    fine = Lattice(*(axis[: len(axis) // 2 * 2 - 1] for axis in axes))  # begins and ends with a node
    mask = shapes(scan.head, fine)["mask"]
    pushed = growth.pushed(scan.tumour, fine, mask)
    here = np.stack(np.broadcast_arrays(*fine.grids))
    fields = np.stack([one - here for one in atlas_positions(scan.head, fine, pushed).values()])
    nodes, centres = (slice(None, None, 2),) * 3, (slice(1, None, 2),) * 3
    grid, between = fine.box(nodes), fine.box(centres)
    kept = np.ascontiguousarray(fields[(slice(None), slice(None), *nodes)])
    off = interpolated(kept, grid, between) - fields[(slice(None), slice(None), *centres)]
    errors = np.sqrt((off**2).sum(axis=1))[:, mask[centres] < 0]
    return grid, kept, round(float(np.percentile(errors, 95)), 4)


def map_of_label(scan: BrainScan) -> list[int]:
    """For each tissue the number of the map that says its atlas position, -1 where it has none."""
    names = list(scan.head.maps)
    return [names.index(COUNTERPARTS[one]) if one in COUNTERPARTS else -1 for one in TISSUES]


def write_brain_truth(path: Path, scan: BrainScan, split: str | None = None) -> float:
    """Write truth/<case>.h5 of one scan, in which cohort split it was made; returns the interpolation error, mm."""
    grid, fields, error = displacements(scan)
    with create_h5(path) as file:
        file.attrs["case"] = json.dumps(_case(scan, split), sort_keys=True)
        file.attrs["acquisition"] = json.dumps(
            {
                "field_tesla": scan.field_tesla,
                "sequences": {name: asdict(one) for name, one in scan.sequences.items()},
            },
            sort_keys=True,
        )
        dataset = write_array(file, "displacements", fields)
        dataset.attrs["maps"] = json.dumps(list(scan.head.maps))
        # The frame's first voxel of 1 mm lies at (0, -239, 0) of the files' world.
        dataset.attrs["grid_origin_mm"] = [axis[0] for axis in (grid.x, grid.y, grid.z)]
        dataset.attrs["grid_spacing_mm"] = [GRID_MM] * 3
        dataset.attrs["rotation"], dataset.attrs["offset_mm"] = np.eye(3), [0.0, -239.0, 0.0]
        dataset.attrs["interpolation_error_mm"] = error
        blocks = tuple(min(side, most) for side, most in zip(scan.tissues.shape, LABEL_BLOCK, strict=True))
        dataset = write_array(file, "labels", scan.tissues, chunks=blocks, compression="blosc2")
        dataset.attrs["names"] = json.dumps(TISSUES)
        dataset.attrs["map_of_label"] = map_of_label(scan)
        dataset.attrs["origin_mm"], dataset.attrs["spacing_mm"] = scan.origin_mm, [scan.spacing_mm] * 3
        dataset.attrs["direction"] = np.eye(3)
    return error


def _case(scan: BrainScan, split: str | None) -> dict[str, object]:
    tumour, head = scan.tumour, scan.head
    return {
        "grade": tumour.grade,
        "lobe": tumour.lobe,
        "tumour_centre_mm": [round(float(v), 3) for v in np.add(tumour.centre_mm, (0, -239, 0))],
        "volumes_ml": scan.volumes_ml,
        "age": head.age,
        "sex": "M" if head.male else "F",
        "ventricles_relative_radius": list(head.ventricles),
        "survival_days": scan.survival_days,
        "resection": scan.resection,
        "split": split,
    }
