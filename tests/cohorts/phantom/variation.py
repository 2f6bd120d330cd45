"""How much patients differ, measured on their surveys: the definitions that the phantoms' targets are stated in.

Centres: the volume centroids of ORGANS, from distances with soft edges; of those that go on beyond the chest (vessels,
windpipe, gullet) only what lies at the heights of the lungs; both kidneys apart. In mm; x and y relative to the middle of
the body's box (of all within the skin at the heights of the lungs, without arms), z relative to the middle of the box of
both lungs. Boxes are of the surfaces, found between lattice planes by linear interpolation.
"""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.anatomy import Patient, Survey, shapes
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.sizing import filled

ORGANS = (
    "lung_right", "lung_left", "heart", "aorta", "pulmonary_artery", "trachea", "esophagus", "sternum", "liver",
    "gall_bladder", "spleen", "stomach", "kidney_right", "kidney_left",
)  # fmt: skip
LONG = ("aorta", "pulmonary_artery", "trachea", "esophagus")
# Painted one over the other, the order that decides whose map a point has.
PAINTED = (
    ("trunk", "body"), ("kidneys", "kidneys"), ("stomach", "stomach"), ("spleen", "spleen"),
    ("gall_bladder", "gall_bladder"), ("liver", "liver"), ("lung_right", "lung_right"), ("lung_left", "lung_left"),
    ("esophagus", "esophagus"), ("heart", "heart"), ("great_vessels", "aorta"), ("pulmonary_artery", "heart"),
    ("aorta", "aorta"), ("trachea", "trachea"), ("spine", "spine"), ("sternum", "sternum"),
)  # fmt: skip


def box(distance: np.ndarray, lattice: Lattice) -> np.ndarray:
    """(3, 2): from and to along x, y and z of a surface."""
    sides = []
    for number, nodes in ((2, lattice.x), (1, lattice.y), (0, lattice.z)):
        depth = distance.min(axis=tuple(axis for axis in range(3) if axis != number))
        step = nodes[1] - nodes[0]
        inside = np.flatnonzero(depth < 0)
        first, last = inside[0], inside[-1]
        low, high = nodes[first], nodes[last]
        if first > 0:
            low += step * depth[first] / (depth[first - 1] - depth[first])
        if last < len(nodes) - 1:
            high -= step * depth[last] / (depth[last + 1] - depth[last])
        sides.append((low, high))
    return np.array(sides)


def boxes(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (3, 2) of the body at the heights of the lungs and of both lungs."""
    d, lattice = survey.d, survey.lattice
    lungs = box(np.minimum(d["lung_right"], d["lung_left"]), lattice)
    beside = (lattice.z < lungs[2, 0]) | (lattice.z > lungs[2, 1])
    body = box(np.where(beside[:, None, None], np.float32(99), d["skin"]), lattice)
    return body, lungs


def centres(survey: Survey) -> np.ndarray:
    """(organs, 3): see above."""
    d, lattice = survey.d, survey.lattice
    x, y, z = lattice.grids
    body, lungs = boxes(survey)
    found = []
    for organ in ORGANS:
        share = filled(d["kidneys" if organ.startswith("kidney") else organ], lattice)
        if organ in LONG:
            share = share * ((z > lungs[2, 0]) & (z < lungs[2, 1]))
        if organ.startswith("kidney"):
            share = share * ((x > 0) == (organ == "kidney_left"))
        found.append([(share * axis).sum() / share.sum() for axis in (x, y, z)])
    return np.array(found) - (*body[:2].mean(axis=1), lungs[2].mean())


def effective_dimension(values: np.ndarray) -> float:
    """Participation ratio of the spectrum of the covariance of values (n, k): (sum of l)^2 / sum of l^2."""
    spectrum = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


def explained(values: np.ndarray, by: np.ndarray) -> float:
    """Adjusted share of the total variance of values (n, k) that a linear regression on `by` (n, m) explains."""
    n, m = by.shape
    design = np.column_stack([np.ones(n), by])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    share = 1 - (rest**2).sum() / ((values - values.mean(axis=0)) ** 2).sum()
    return float(1 - (1 - share) * (n - 1) / (n - m - 1))


def affine_residual_mm(moving: np.ndarray, fixed: np.ndarray) -> float:
    """Root mean square distance (mm) of points (n, 3) from their counterparts after the best affine map."""
    design = np.column_stack([moving, np.ones(len(moving))])
    rest = fixed - design @ np.linalg.lstsq(design, fixed, rcond=None)[0]
    return float(np.sqrt((rest**2).sum(axis=1).mean()))


def corresponding(one: Patient, other: Patient, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) of one patient, all nodes of the lattice in an organ that has a map, and the other's counterparts.

    A point's counterpart has the same position in the atlas by the map of the organ that the point is in, so that every
    organ counts by its volume.
    """
    d = shapes(one, lattice)
    owner = np.full(lattice.shape, -1)
    for number, (shape, _) in enumerate(PAINTED):
        owner[d[shape] < 0] = number
    z, y, x = np.meshgrid(*lattice.axes, indexing="ij")
    here, there = [], []
    for number, (_, name) in enumerate(PAINTED):
        mine = owner == number
        if mine.any():
            here.append(np.column_stack([x[mine], y[mine], z[mine]]))
            atlas = np.column_stack([axis[mine] for axis in one.maps[name].to_atlas(lattice)])
            there.append(other.maps[name].to_patient(atlas.astype(float)))
    return np.vstack(here), np.vstack(there)
