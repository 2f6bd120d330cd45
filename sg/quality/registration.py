"""The affine control: a pattern's centre carried to other patients by registering their thumbnails.

No frame is involved: the reference's thumbnail is laid over the other's by an affine transform in mm (SimpleITK, Mattes
mutual information, three resolutions), begun with the centres of the fields of view on each other. Every voxel of the
grid counts instead of a random sample, and one thread works, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from sg import console
from sg.crops import SurveyRow
from sg.quality.choosing import Crops
from sg.quality.controls import read_thumbnails
from sg.quality.study import Study, located
from sg.randomness import generator
from sg.truth import read_truth

BINS = 32
STEPS = 100
# Of the grids that are registered one after another: their voxels in those of the thumbnail, and smoothing.
SHRINK, SMOOTH_MM = (4, 2, 1), (20.0, 10.0, 5.0)
# A finer grid costs time and tells an affine transform nothing more.
VOXELS = 32_768


@dataclass(frozen=True)
class Registered:
    """The affine control's crops, and how many registrations failed, so that matching centres stand in for them."""

    crops: Crops
    registrations: int
    failed: int


def registered(study: Study, thumbnails: Path, truth: Path, registrations: int, seed: int) -> Registered:
    """Each pattern's centre carried to that many other patients, drawn at random, none twice; fewer if there are fewer."""
    patterns = len(study.patterns)
    scan = np.full((patterns, min(registrations, len(study.patients) - 1)), -1)
    for pattern, at in enumerate(study.reference):
        others = np.delete(study.first, study.patient[at])
        rng = generator(seed, "quality", str(pattern), "registered patients")
        scan[pattern] = rng.choice(others, scan.shape[1], replace=False)
    centres, failed = np.full((*scan.shape, 3), np.nan), 0
    images, _ = read_thumbnails(thumbnails, study.scans)
    pairs = [(pattern, i) for pattern in range(patterns) for i in range(scan.shape[1])]
    for pattern, i in console.track(pairs, "registering thumbnails", len(pairs), "pairs"):
        fixed, moving = study.reference[pattern], scan[pattern, i]
        try:
            centres[pattern, i] = carried(
                study.centre[pattern],
                as_image(images[fixed], study.surveys[fixed]),
                as_image(images[moving], study.surveys[moving]),
            )
        except RuntimeError:  # SimpleITK's way of saying that the images came apart
            failed += 1
            centres[pattern, i] = (
                study.centre[pattern] - _middle(study.surveys[fixed]) + _middle(study.surveys[moving])
            )
    return Registered(_located(study, truth, scan, centres), len(pairs), failed)


def carried(point_mm: np.ndarray, fixed: sitk.Image, moving: sitk.Image) -> np.ndarray:
    """Where a point (3) of the fixed image's world lies in the moving one's by the best affine transform between them.

    RuntimeError if the registration fails.
    """
    # Two threads add up the metric in an order of their own; the method's own number of threads does not reach that far.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.01, numberOfIterations=STEPS, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    finest = max(1, round((fixed.GetNumberOfPixels() / VOXELS) ** (1 / 3)))
    method.SetShrinkFactorsPerLevel([factor * finest for factor in SHRINK])
    method.SetSmoothingSigmasPerLevel(SMOOTH_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    return np.array(start.TransformPoint(point_mm.tolist()))


def as_image(thumbnail: np.ndarray, row: SurveyRow) -> sitk.Image:
    """A thumbnail (z, y, x) where it lies in the world: it fills the field of view of its scan."""
    seen = row.survey
    spacing_mm = np.array(seen.spacing_mm)
    sides_mm = np.array(seen.shape[::-1]) * spacing_mm
    own_mm = sides_mm / thumbnail.shape[::-1]
    image = sitk.GetImageFromArray(thumbnail.astype(np.float32))
    image.SetSpacing(own_mm.tolist())
    image.SetOrigin((np.array(seen.origin_mm) - spacing_mm / 2 + own_mm / 2).tolist())
    return image


def _middle(row: SurveyRow) -> np.ndarray:
    """Centre of a scan's field of view, mm (3)."""
    seen = row.survey
    return np.array(seen.origin_mm) + (np.array(seen.shape[::-1]) - 1) / 2 * seen.spacing_mm


def _located(study: Study, truth: Path, scan: np.ndarray, centres: np.ndarray) -> Crops:
    """Crops with those centres (p, n, 3) in those scans (p, n); each truth is read once."""
    atlas, own = np.full(centres.shape, np.nan), np.full(scan.shape, np.nan)
    for at in np.unique(scan):
        path = truth / f"{study.surveys[at].scan}.h5"
        if path.is_file():
            pattern, i = np.nonzero(scan == at)
            atlas[pattern, i], own[pattern, i] = located(
                read_truth(path), study.organ, study.origin, pattern, centres[pattern, i]
            )
    return Crops(scan, np.linalg.norm(atlas - study.origin[:, None], axis=-1), atlas, own)
