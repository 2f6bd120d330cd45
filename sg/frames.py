"""What a coordinate is relative to: the voxel grid, the body's box or the lungs' box.

A box is found by thresholds and connected components, on every n-th voxel so that they lie about 2 mm apart: the
bounds of an organ are not known any better, and a scan of 1 mm costs an eighth. Thresholds are in HU and are those
between air, lung and soft tissue that the anatomy gives; they are no part of a study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

Frame = Literal["voxel", "body", "lungs"]

GRID_MM = 2.0
BODY_HU = -300.0  # at or over: soft tissue, fat, bone, a table's shell; under: air, lung, clothes, foam
LUNG_HU = -400.0  # under: air and lung
TABLE_MM = 4.0  # what is thinner than twice this in plane, such as a table's shell, is not the body
BODY_LITRES = 0.5
# The largest air space in chest scans cut to 8 cm of the lungs held 0.7 litres and more, in an abdomen (gas) 0.25.
LUNGS_LITRES = 0.4
SECOND_LUNG = 0.15  # of the largest air space: the other lung, where it is apart, is larger than this


class Box(NamedTuple):
    """A box in voxel edges (z, y, x): voxel i reaches from i to i + 1, so the whole scan is (0, 0, 0) to its shape."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]


def find_boxes(
    image: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[Frame, tuple[Box, Literal["lungs", "body", "scan"]]]:
    """The box of every frame in an image (z, y, x) in HU with spacing (x, y, z), and what it was found around.

    Where no lungs are found the body stands in, where no body is found the whole scan; `voxel` is the whole scan.
    """
    whole = (Box((0, 0, 0), tuple(image.shape)), "scan")
    found = _cored(image, spacing_mm)
    if found is None:
        return {"voxel": whole, "body": whole, "lungs": whole}
    body = (_body(found), "body")
    lungs = _lungs(found)
    return {"voxel": whole, "body": body, "lungs": (lungs, "lungs") if lungs else body}


def body_box(image: np.ndarray, spacing_mm: tuple[float, float, float]) -> Box | None:
    """The box around the largest thing denser than air, without the table; None if it is under half a litre."""
    found = _cored(image, spacing_mm)
    return _body(found) if found else None


def lungs_box(image: np.ndarray, spacing_mm: tuple[float, float, float]) -> Box | None:
    """The box around the largest air space inside the body, and the other lung where it is apart.

    Inside means that the body closes around it in the axial slice, so that lungs cut by the first or last slice count
    and the air around the patient does not. None if the largest is under 0.4 litres.
    """
    found = _cored(image, spacing_mm)
    return _lungs(found) if found else None


class _Cored(NamedTuple):
    """Every n-th voxel of an image and the core of the body there: what both boxes are found in; all (z, y, x)."""

    shape: tuple[int, ...]  # of the image
    coarse: np.ndarray
    steps: tuple[int, ...]
    voxel_mm: tuple[float, ...]
    core: np.ndarray
    radius: int


def _cored(image: np.ndarray, spacing_mm: tuple[float, float, float]) -> _Cored | None:
    coarse, steps, voxel_mm = _coarse(image, spacing_mm)
    core, radius = _core(coarse, voxel_mm)
    return None if core is None else _Cored(image.shape, coarse, steps, voxel_mm, core, radius)


def _body(found: _Cored) -> Box:
    (around,) = ndimage.find_objects(found.core.view(np.uint8))
    return _full(around, (0, found.radius, found.radius), found.steps, found.shape)


def _lungs(found: _Cored) -> Box | None:
    coarse, core = found.coarse, found.core
    # Of all that is dense only what the core belongs to: a hollow table closes around air as well.
    dense, _ = ndimage.label(coarse >= LUNG_HU)
    body = dense == np.bincount(dense[core]).argmax()
    holes, count = ndimage.label(~body, _in_plane())
    outside = np.zeros(count + 1, bool)
    for edge in (holes[:, 0], holes[:, -1], holes[:, :, 0], holes[:, :, -1]):
        outside[np.unique(edge)] = True
    spaces, count = ndimage.label((coarse < LUNG_HU) & ~outside[holes])
    sizes = np.bincount(spaces.ravel(), minlength=count + 1)[1:]
    if count == 0 or sizes.max() * np.prod(found.voxel_mm) < LUNGS_LITRES * 1e6:
        return None
    boxes = ndimage.find_objects(spaces)
    lungs = [boxes[i] for i in np.flatnonzero(sizes >= SECOND_LUNG * sizes.max())]
    around = [
        slice(min(box[axis].start for box in lungs), max(box[axis].stop for box in lungs))
        for axis in range(3)
    ]
    return _full(around, (0, 0, 0), found.steps, found.shape)


def _core(coarse: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray | None, int]:
    """The body less its rim, boolean, and the width of that rim in voxels; None if there is none of half a litre.

    The rim is taken off in plane only: a table is a sheet along z, and slices may be as thick as it.
    """
    radius = max(1, round(TABLE_MM / voxel_mm[1]))
    labels, count = ndimage.label(ndimage.binary_erosion(coarse >= BODY_HU, _in_plane(), radius))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if count == 0 or sizes.max() * np.prod(voxel_mm) < BODY_LITRES * 1e6:
        return None, radius
    return labels == sizes.argmax() + 1, radius


def _in_plane() -> np.ndarray:
    """The four neighbours of a voxel in its slice."""
    cross = ndimage.generate_binary_structure(3, 1)
    cross[[0, 2]] = False
    return cross


def _coarse(
    image: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, ...], tuple[float, ...]]:
    """Every n-th voxel, the n of each axis, and the spacing of what is left; all (z, y, x)."""
    zyx_mm = spacing_mm[::-1]
    steps = tuple(max(1, int(GRID_MM / mm)) for mm in zyx_mm)
    voxel_mm = tuple(step * mm for step, mm in zip(steps, zyx_mm, strict=True))
    return image[:: steps[0], :: steps[1], :: steps[2]], steps, voxel_mm


def _full(
    coarse: Sequence[slice], margin: tuple[int, int, int], steps: tuple[int, ...], shape: tuple[int, ...]
) -> Box:
    """A box of the coarse grid, widened by a margin there, in voxel edges of the full one."""
    start = (
        max(0, (part.start - more) * step) for part, more, step in zip(coarse, margin, steps, strict=True)
    )
    stop = (
        min(side, (part.stop + more) * step)
        for part, more, step, side in zip(coarse, margin, steps, shape, strict=True)
    )
    return Box(tuple(start), tuple(stop))
