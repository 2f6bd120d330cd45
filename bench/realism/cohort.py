"""Phantoms made on the spot, and what is measured of each: from the labels of its whole trunk, and from its chest scan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from bench.phantoms import CHESTS, SHARED
from bench.realism import registration
from bench.realism.measures import Boxes, Look, affine_residual, boxes, look
from sg.cohorts.phantom import making, rendering, skeleton
from sg.cohorts.phantom.anatomy import SURVEY_BOX_MM, OrganMap, Patient
from sg.cohorts.phantom.canvas import COUNTERPARTS, LABEL, LABELS
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.grid import Grid
from sg.cohorts.phantom.making import LAYOUTS, Job
from sg.cohorts.phantom.rendering import Scan
from sg.cohorts.phantom.variants import NONE
from sg.processes import spread

SEED = 7
TRUNK_MM = 4.0  # spacing of the scan that sizes are taken from
LOBES = ("lung_right_upper", "lung_right_middle", "lung_right_lower", "lung_left_upper", "lung_left_lower")
IN_LUNG = ("lung_vessels", "bronchi", "emphysema", "scar", "nodule")
# What centres are taken of: what lies wholly within that scan. Kidneys count as two.
CENTRES = (
    *((lobe,) for lobe in LOBES), ("heart", "chambers"), ("sternum",), ("liver", "liver_vessels", "liver_lesion"),
    ("gall_bladder",), ("spleen",), ("stomach",),
)  # fmt: skip
# Organs (maps into the atlas) whose points registrations are judged by; muscle, fat and bowel have no landmarks.
CHEST_ORGANS = ("lung_right", "lung_left", "heart", "aorta", "trachea", "spine", "cage", "sternum")
ABDOMEN_ORGANS = ("liver", "spleen", "stomach")
POINTS = 150  # of an organ
LEAST_POINTS = 20  # with counterparts, for an organ to count


@dataclass(frozen=True)
class Nodule:
    """One nodule that a scan shows, and the mean HU of its voxels (NaN if it has none)."""

    kind: str
    diameter_mm: float
    hu: float


@dataclass(frozen=True)
class Figures:
    """All that is measured of one phantom. Volumes in ml; centres (organs, 3) in patient coordinates, mm, NaN where
    there is none.
    """

    healthy: bool  # no variant
    bsa_m2: float
    liver: float
    spleen: float
    lobes: np.ndarray
    lungs: float
    centres: np.ndarray
    carina_level: float
    boxes: Boxes | None
    look: Look
    nodules: list[Nodule]


@dataclass(frozen=True)
class Registered:
    """One pair: mean distance from the counterpart, mm, over organs of the chest and of the abdomen, before
    registration, after the best affine map there is, after affine and B-spline registration;
    and the distance of the lungs' surfaces after these two. `organs` has each organ's own distances after these two,
    `chest_voxels` their means over the chest where every voxel counts alike.
    """

    chest: tuple[float, float, float, float]
    abdomen: tuple[float, float, float, float]
    surfaces: tuple[float, float]
    organs: dict[str, tuple[float, float]]
    chest_voxels: tuple[float, float]


def jobs(count: int, seed: int = SEED) -> list[Job]:
    """The first patients of a cohort named `bench`."""
    recipe = CHESTS.model_copy(update={"train": count})
    return making.jobs(Path(), seed, "bench", {"bench": recipe}, SHARED)


def measured(jobs: list[Job], workers: int) -> list[Figures]:
    """Figures of each patient, in order."""
    found = {job.place.number: figures for job, figures in spread(figures_of, jobs, workers)}
    return [found[job.place.number] for job in jobs]


def registered(pairs: list[tuple[Job, Job]], workers: int) -> list[Registered]:
    """Each pair's distances, in order."""
    found = {pair[0].place.number: result for pair, result in spread(register, pairs, workers)}
    return [found[first.place.number] for first, _ in pairs]


def chest_of(job: Job) -> Scan:
    """A patient's chest scan."""
    return LAYOUTS[CHESTS.layout].scan(job)


def figures_of(job: Job) -> Figures:
    """Render one patient twice, the trunk and the chest, and measure."""
    scan = chest_of(job)
    person = scan.person
    lattice = Lattice(*(np.arange(low, high, TRUNK_MM) for low, high in SURVEY_BOX_MM))
    whole = replace(scan.acquisition, grid=Grid(lattice, "LPS", np.eye(3), np.zeros(3)))
    labels = rendering.render(person, whole, job.draw).labels
    counts = np.bincount(labels.ravel(), minlength=len(LABELS)) * TRUNK_MM**3 / 1000
    ml = dict(zip(LABELS, counts, strict=True))
    patient = person.patient
    return Figures(
        healthy=patient.variants == NONE,
        bsa_m2=patient.habitus.surface_m2,
        liver=ml["liver"] + ml["liver_vessels"] + ml["liver_lesion"],
        spleen=ml["spleen"],
        lobes=np.array([ml[lobe] for lobe in LOBES]),
        lungs=sum(ml[name] for name in (*LOBES, *IN_LUNG)),
        centres=_centres(labels, lattice),
        carina_level=carina_level(patient),
        boxes=boxes(scan.hu, scan.grid.spacing_mm),
        look=look(scan.hu, scan.grid.spacing_mm),
        nodules=_nodules(scan),
    )


def _centres(labels: np.ndarray, lattice: Lattice) -> np.ndarray:
    masks = [np.isin(labels, [LABEL[name] for name in names]) for names in CENTRES]
    kidneys = labels == LABEL["kidneys"]
    left = np.broadcast_to(lattice.grids[0] > 0, labels.shape)
    return np.array([_centre(mask, lattice) for mask in (*masks, kidneys & left, kidneys & ~left)])


def _centre(mask: np.ndarray, lattice: Lattice) -> np.ndarray:
    index = np.nonzero(mask)
    if len(index[0]) == 0:
        return np.full(3, np.nan)
    return np.array(
        [axis[i].mean() for axis, i in zip((lattice.x, lattice.y, lattice.z), index[::-1], strict=True)]
    )


def carina_level(patient: Patient) -> float:
    """Number of the thoracic vertebra, the disc below it included, that the carina lies before: 5 for T5."""
    carina = patient.maps["trachea"].to_patient(np.zeros((1, 3)))
    behind = carina + np.array([0, float(skeleton.spine_axis(np.float64(0))), 0])
    height = to_atlas(patient.maps["spine"], behind)[0, 2]
    nearest = np.abs(np.array([skeleton.thoracic_mm(n) for n in range(12)]) - height)
    return float(nearest.argmin() + 1)


def _nodules(scan: Scan) -> list[Nodule]:
    found = []
    lattice = scan.grid.lattice
    marked = scan.labels == LABEL["nodule"]
    for one in scan.shown.nodules:
        reach = one.diameter_mm / 2
        region = lattice.region(one.centre_mm - reach, one.centre_mm + reach)
        hu = float("nan")
        if region is not None:
            x, y, z = (
                g - np.float32(c) for g, c in zip(lattice.box(region).grids, one.centre_mm, strict=True)
            )
            core = marked[region] & (x * x + y * y + z * z <= (0.7 * reach) ** 2)
            hu = float(scan.hu[region][core].mean()) if core.any() else hu
        found.append(Nodule(one.kind, one.diameter_mm, hu))
    return found


# -------------------------------------------------------------------------------------------- pairs


def register(pair: tuple[Job, Job]) -> Registered:
    """Register the second patient's chest to the first's, and see where known counterparts come to lie."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    scan, target = (chest_of(job) for job in pair)
    one, other = scan.person, target.person
    fixed, moving = _prepared(scan), _prepared(target)
    affine = registration.affine(fixed, moving)
    deformable = registration.bspline(fixed, moving, affine)
    start = registration.centred(fixed, moving)
    matched = {}
    for organ in (*CHEST_ORGANS, *ABDOMEN_ORGANS):
        pair_of_points = counterparts(organ, scan, one.patient, target, other.patient)
        if len(pair_of_points[0]) >= LEAST_POINTS:
            matched[organ] = pair_of_points

    def distances(organs: tuple[str, ...]) -> tuple[float, float, float, float]:
        chosen = [matched[organ] for organ in organs if organ in matched]
        if not chosen:
            return (float("nan"),) * 4
        before, after, last = (
            float(np.mean([_mean_distance(registration.moved(t, p), q) for p, q in chosen]))
            for t in (start, affine, deformable)
        )
        best = affine_residual(*(np.concatenate([points[n] for points in chosen]) for n in (0, 1)))
        return before, best, after, last

    surfaces = tuple(registration.surface_distance(fixed, moving, t) for t in (affine, deformable))
    organs = {
        organ: tuple(_mean_distance(registration.moved(t, p), q) for t in (affine, deformable))
        for organ, (p, q) in matched.items()
    }
    inside = [organ for organ in CHEST_ORGANS if organ in organs]
    weights = [_voxels(scan, organ) for organ in inside]
    voxels = np.average([organs[organ] for organ in inside], axis=0, weights=weights)
    return Registered(
        distances(CHEST_ORGANS),
        distances(ABDOMEN_ORGANS),
        surfaces,
        organs,
        (float(voxels[0]), float(voxels[1])),
    )


def _prepared(scan: Scan) -> registration.Prepared:
    lattice = scan.grid.lattice
    return registration.prepare(scan.hu, scan.grid.spacing_mm, (lattice.x[0], lattice.y[0], lattice.z[0]))


def _mean_distance(points: np.ndarray, others: np.ndarray) -> float:
    return float(np.sqrt(((points - others) ** 2).sum(axis=1)).mean())


def counterparts(
    organ: str, scan: Scan, patient: Patient, other_scan: Scan, other: Patient
) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) of an organ in a scan, and those of another patient at the same places of the atlas.

    Drawn at random from the voxels of the organ. A point whose counterpart lies outside the other scan, or in
    something else (where organs meet, one gives way), has none.
    """
    labels = _labels(organ)
    index = np.argwhere(np.isin(scan.labels, labels))
    if len(index) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3))
    index = index[np.random.default_rng(0).integers(0, len(index), POINTS)]
    lattice = scan.grid.lattice
    points = np.column_stack([lattice.x[index[:, 2]], lattice.y[index[:, 1]], lattice.z[index[:, 0]]])
    there = other.maps[organ].to_patient(to_atlas(patient.maps[organ], points))
    same = np.isin(_labels_at(other_scan, there), labels)
    return points[same], there[same]


def _labels(organ: str) -> list[int]:
    """Values in the label image of what one organ's map places."""
    return [LABEL[label] for label, name in COUNTERPARTS.items() if name == organ]


def _voxels(scan: Scan, organ: str) -> int:
    return int(np.isin(scan.labels, _labels(organ)).sum())


def to_atlas(organ: OrganMap, points_mm: np.ndarray) -> np.ndarray:
    """Atlas positions (n, 3) of single patient positions (n, 3)."""
    return points_mm @ organ.matrix.T + organ.offset_mm + organ.noise.at(points_mm)


def _labels_at(scan: Scan, points_mm: np.ndarray) -> np.ndarray:
    """Label of the voxel at each patient position (n, 3), -1 outside the scan."""
    lattice = scan.grid.lattice
    index = [
        np.rint((points_mm[:, n] - axis[0]) / (axis[1] - axis[0])).astype(int)
        for n, axis in enumerate((lattice.x, lattice.y, lattice.z))
    ]
    inside = np.all(
        [(i >= 0) & (i < side) for i, side in zip(index, scan.labels.shape[::-1], strict=True)], axis=0
    )
    labels = np.full(len(points_mm), -1)
    x, y, z = (i[inside] for i in index)
    labels[inside] = scan.labels[z, y, x]
    return labels
