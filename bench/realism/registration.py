"""Registration of one chest to another with SimpleITK: affine, then B-spline, as atlas methods do it.

Both use Mattes' mutual information on a few thousand voxels of the body, so that contrast medium in one of the two does
not matter, from coarse to fine. Real scans and phantoms are treated alike, by what the images show alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from bench.realism.measures import masks

SPACING_MM = 4.5
KNOTS_MM = (80.0, 40.0)  # of the B-spline, coarse and fine
WINDOW_HU = (-1000.0, 300.0)
BINS = 32
SAMPLES = {"affine": 0.3, "bspline": 0.1}  # share of the voxels
SEED = 1


@dataclass(frozen=True)
class Prepared:
    """A scan at SPACING_MM: HU in the window, its body and its lungs."""

    image: sitk.Image
    body: sitk.Image
    lungs: sitk.Image


def prepare(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], origin_mm: tuple[float, float, float]
) -> Prepared:
    """HU (z, y, x) along the patient's axes with the position of the first voxel, made ready."""
    image = sitk.GetImageFromArray(np.clip(hu, *WINDOW_HU).astype(np.float32))
    image.SetSpacing(tuple(map(float, spacing_mm)))
    image.SetOrigin(tuple(map(float, origin_mm)))
    blur = [max(SPACING_MM**2 - mm**2, 0.01) ** 0.5 / 2 for mm in spacing_mm]
    size = [max(int(n * mm / SPACING_MM), 1) for n, mm in zip(image.GetSize(), spacing_mm, strict=True)]
    image = sitk.Resample(
        sitk.SmoothingRecursiveGaussian(image, blur),
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (SPACING_MM,) * 3,
        image.GetDirection(),
        -1000.0,
    )
    body, lungs = masks(sitk.GetArrayFromImage(image), image.GetSpacing())
    return Prepared(image, _like(body, image), _like(lungs, image))


def _like(mask: np.ndarray, image: sitk.Image) -> sitk.Image:
    out = sitk.GetImageFromArray(mask.astype(np.uint8))
    out.CopyInformation(image)
    return out


def _centre(mask: sitk.Image) -> np.ndarray:
    """Centre of gravity of a mask in world coordinates, mm."""
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0).mean(axis=0)[::-1]
    return np.array(mask.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def _method(
    fixed: Prepared, samples: float, shrink: list[int], sigmas: list[float]
) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(samples, SEED)
    method.SetMetricFixedMask(sitk.BinaryDilate(fixed.body, [2, 2, 0]))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(sigmas)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def centred(fixed: Prepared, moving: Prepared) -> sitk.AffineTransform:
    """The shift that brings the lungs' centres of gravity upon each other, from `fixed` to `moving`."""
    start = sitk.AffineTransform(3)
    start.SetCenter(_centre(fixed.lungs).tolist())
    start.SetTranslation((_centre(moving.lungs) - _centre(fixed.lungs)).tolist())
    return start


def affine(fixed: Prepared, moving: Prepared) -> sitk.Transform:
    """From positions in `fixed` to positions in `moving`, starting from the lungs' centres upon each other."""
    method = _method(fixed, SAMPLES["affine"], [4, 2, 1], [2, 1, 0])
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.02, numberOfIterations=150, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(centred(fixed, moving), inPlace=False)
    return method.Execute(fixed.image, moving.image)


def bspline(fixed: Prepared, moving: Prepared, first: sitk.Transform) -> sitk.Transform:
    """As `affine`, with a B-spline on top of `first`."""
    extent = [n * SPACING_MM for n in fixed.image.GetSize()]
    start = sitk.BSplineTransformInitializer(
        fixed.image, [max(round(mm / KNOTS_MM[0]), 1) for mm in extent], order=3
    )
    method = _method(fixed, SAMPLES["bspline"], [2, 1], [1, 0])
    method.SetMovingInitialTransform(first)
    method.SetInitialTransformAsBSpline(
        start, inPlace=True, scaleFactors=[1, round(KNOTS_MM[0] / KNOTS_MM[1])]
    )
    method.SetOptimizerAsLBFGS2(solutionAccuracy=1e-5, numberOfIterations=40, deltaConvergenceTolerance=1e-5)
    deformable = method.Execute(fixed.image, moving.image)
    return sitk.CompositeTransform([first, deformable])


def moved(transform: sitk.Transform, points_mm: np.ndarray) -> np.ndarray:
    """Where a transform takes points (n, 3)."""
    return np.array([transform.TransformPoint(point) for point in points_mm.tolist()]).reshape(-1, 3)


def surface_distance(fixed: Prepared, moving: Prepared, transform: sitk.Transform) -> float:
    """Mean distance, mm, between the surfaces of the lungs of `fixed` and those of `moving` brought onto them.

    Surfaces that one of the scans cuts off (within two voxels of its first or last slice) are left out.
    """
    inside = sitk.Resample(
        sitk.Cast(moving.lungs, sitk.sitkFloat32), fixed.image, transform, sitk.sitkLinear, 0.0
    )
    there = sitk.Cast(moving.lungs, sitk.sitkUInt8) * 0 + 1
    seen = (
        sitk.GetArrayFromImage(sitk.Resample(there, fixed.image, transform, sitk.sitkNearestNeighbor, 0)) > 0
    )
    seen = ndimage.binary_erosion(seen, iterations=2, border_value=0)
    one = sitk.GetArrayFromImage(fixed.lungs) > 0
    other = sitk.GetArrayFromImage(inside) > 0.5
    rims = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (one, other)]
    if not all((rim & seen).any() for rim in rims):
        return float("nan")
    distances = [
        ndimage.distance_transform_edt(~rims[1 - n], SPACING_MM)[rims[n] & seen].mean() for n in (0, 1)
    ]
    return float(np.mean(distances))
