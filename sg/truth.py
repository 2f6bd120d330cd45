"""What is known of a phantom, read back: organ labels, and where the points of the body lie in the atlas.

`truth/<scan>.h5` is written by `sg.cohorts.phantom.truth`, which says what it holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg.errors import InputError
from sg.storage import open_h5


@dataclass(frozen=True)
class Truth:
    """Labels of a scan's voxels, and the maps that they follow into the atlas.

    `displacements` float32 (maps, 3, z, y, x) holds atlas minus patient position (x, y, z) in mm at the nodes of a grid
    in patient coordinates with `grid_origin_mm` and `grid_spacing_mm` (x, y, z). A point p of the patient lies at
    `rotation` @ p + `offset_mm` in the scan's world (LPS). `labels` uint8 (z, y, x) has `names`, and lies in the world by
    `origin_mm`, `spacing_mm` and `direction` (column k: where index k of x, y, z grows to). `map_of_label[label]` is the
    number of the label's map, -1 for what has no counterpart in the atlas.
    """

    displacements: np.ndarray
    grid_origin_mm: np.ndarray
    grid_spacing_mm: np.ndarray
    rotation: np.ndarray
    offset_mm: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    map_of_label: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: np.ndarray
    direction: np.ndarray

    def labels_at(self, points_mm: np.ndarray) -> np.ndarray:
        """Label (n) of the voxel that holds each world position (n, 3); -1 outside the scan."""
        # The inverse of a rotation is its transpose: index = direction.T @ (point - origin) / spacing
        shift = np.asarray(points_mm, np.float64) - self.origin_mm
        index = (shift[:, :, None] * self.direction[None]).sum(axis=1) / self.spacing_mm
        size = np.array(self.labels.shape[::-1])
        outside = ~np.isfinite(index).all(axis=1)
        nearest = np.floor(np.where(outside[:, None], 0, index) + 0.5).astype(np.int64)
        outside |= ((nearest < 0) | (nearest >= size)).any(axis=1)
        x, y, z = np.where(outside[:, None], 0, nearest).T
        return np.where(outside, -1, self.labels[z, y, x].astype(np.int64))

    def atlas_at(self, points_mm: np.ndarray) -> np.ndarray:
        """Atlas positions (n, 3) in mm of world positions (n, 3), by the map of the label that is there.

        NaN outside the scan, outside the body and where the patient has something of its own.
        """
        labels = self.labels_at(points_mm)
        return self.atlas_by(np.where(labels < 0, -1, self.map_of_label[labels]), points_mm)

    def atlas_by(self, maps: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
        """Where each of the given maps (n, -1 for none) puts world positions (n, 3), whatever is there: (n, 3) in mm.

        NaN without a map and off the grid.
        """
        maps = np.asarray(maps)
        shift = np.where((maps < 0)[:, None], np.nan, np.asarray(points_mm, np.float64) - self.offset_mm)
        patient = (shift[:, :, None] * self.rotation[None]).sum(axis=1)
        atlas = np.full((len(maps), 3), np.nan)
        for number in np.unique(maps[maps >= 0]):
            here = np.flatnonzero(maps == number)
            atlas[here] = patient[here] + self._displacement(int(number), patient[here])
        return atlas

    def nearest_map(self, point_mm: np.ndarray) -> int:
        """Number of the map of that voxel, of those which have one, that is nearest to a world position (3)."""
        z, y, x = np.nonzero(self.map_of_label[self.labels] >= 0)
        if len(z) == 0:
            return -1
        shift = (np.asarray(point_mm, np.float64) - self.origin_mm) @ self.direction
        index = np.column_stack([x, y, z])
        nearest = index[(((index * self.spacing_mm) - shift) ** 2).sum(axis=1).argmin()]
        return int(self.map_of_label[self.labels[tuple(nearest[::-1])]])

    def _displacement(self, number: int, points: np.ndarray) -> np.ndarray:
        """Trilinear displacement (n, 3) of a map at patient positions (n, 3); NaN off the grid."""
        nodes = self.displacements[number]
        shape = np.array(nodes.shape[:0:-1])  # (x, y, z)
        place = (points - self.grid_origin_mm) / self.grid_spacing_mm
        outside = ((place < 0) | (place > shape - 1)).any(axis=1)
        place = np.where(outside[:, None], 0, place)
        low = np.minimum(np.floor(place).astype(np.int64), np.maximum(shape - 2, 0))
        weight = place - low
        total = np.zeros((len(place), 3))
        for corner in np.ndindex(2, 2, 2):
            share = np.prod(np.where(corner, weight, 1 - weight), axis=1)
            x, y, z = np.minimum(low + corner, shape - 1).T
            total += share[:, None] * nodes[:, z, y, x].T
        total[outside] = np.nan
        return total


def read_truth(path: Path) -> Truth:
    """A phantom's truth. InputError if the file is damaged or holds something else."""
    with open_h5(path) as file:
        try:
            grid, voxels = file["displacements"], file["labels"]
            truth = Truth(
                grid[...],
                *(np.array(grid.attrs[name], np.float64) for name in ("grid_origin_mm", "grid_spacing_mm")),
                *(np.array(grid.attrs[name], np.float64) for name in ("rotation", "offset_mm")),
                voxels[...],
                tuple(json.loads(voxels.attrs["names"])),
                np.array(voxels.attrs["map_of_label"], np.int64),
                *(
                    np.array(voxels.attrs[name], np.float64)
                    for name in ("origin_mm", "spacing_mm", "direction")
                ),
            )
        except KeyError as missing:
            raise _wrong(path, f"it lacks {missing.args[0]}") from None
        except (TypeError, ValueError) as error:
            raise _wrong(path, str(error)) from None
    _check(path, truth)
    return truth


def _check(path: Path, truth: Truth) -> None:
    """Shapes and numbers as `Truth` says, else InputError."""
    shape = truth.displacements.shape
    if len(shape) != 5 or shape[1] != 3 or 0 in shape:
        raise _wrong(path, f"`displacements` must be (maps, 3, z, y, x), got {shape}")
    if truth.labels.ndim != 3 or truth.labels.dtype != np.uint8:
        raise _wrong(path, f"`labels` must be uint8 (z, y, x), got {truth.labels.dtype} {truth.labels.shape}")
    vectors = (
        truth.grid_origin_mm,
        truth.grid_spacing_mm,
        truth.offset_mm,
        truth.origin_mm,
        truth.spacing_mm,
    )
    turns = (truth.rotation, truth.direction)
    if any(v.shape != (3,) for v in vectors) or any(turn.shape != (3, 3) for turn in turns):
        raise _wrong(
            path, "origins and spacings must be three numbers, rotation and direction three by three"
        )
    if not (truth.grid_spacing_mm > 0).all() or not (truth.spacing_mm > 0).all():
        raise _wrong(path, "spacings must be positive")
    if any(
        np.abs((turn[:, :, None] * turn[:, None, :]).sum(axis=0) - np.eye(3)).max() > 1e-6 for turn in turns
    ):
        raise _wrong(path, "rotation and direction must be orthonormal")
    numbers = truth.map_of_label
    if numbers.shape != (len(truth.names),) or numbers.min() < -1 or numbers.max() >= shape[0]:
        raise _wrong(
            path,
            f"`map_of_label` must name one of {shape[0]} maps, or -1, for each of {len(truth.names)} labels",
        )
    if truth.labels.size and int(truth.labels.max()) >= len(truth.names):
        raise _wrong(
            path, f"`labels` holds {int(truth.labels.max())}, but there are {len(truth.names)} names"
        )


def _wrong(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: must be a phantom's truth, but {why}; run `dvc repro phantom` to make it again"
    )
