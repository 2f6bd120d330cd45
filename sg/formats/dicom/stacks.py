"""One DICOM series as a stack of slices: checked against each other, and put in order along their normal.

Source: DICOM PS3.3, the Image Plane, CT Image and Multi-frame Functional Groups modules. Frames of a multi-frame file
are slices like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sg.formats.dicom.datasets import Fields, Source, opened, parse
from sg.formats.dicom.frames import BEFORE_PIXELS, DECODERS, Pixels, locate
from sg.formats.dicom.instances import TAGS as IDENTITY
from sg.formats.dicom.instances import Instance, instance
from sg.formats.files import AGAIN, Refusal
from sg.formats.headers import ANGLE_TOLERANCE, Geometry, by, check_spacing, grid

KEYWORDS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "SliceThickness", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable",
)  # fmt: skip
TAGS = (*IDENTITY, *(tag_for_keyword(keyword) for keyword in KEYWORDS))
# How far a slice may lie from its place on the straight, even line of slices, in distances of slices
PLACE_TOLERANCE = 0.1
SAME_PLACE_MM = 1e-3
# How far SpacingBetweenSlices may be from the slices' distance, as a share
DISTANCE_TOLERANCE = 0.01
# How far orientation or pixel spacing (as a share) of slices may differ: 1e-4 is 0.05 pixels over 512
AGREEMENT = 1e-4
HOUNSFIELD = ("", "HU", "US")  # RescaleType; missing and US (unspecified) are usual in CT


@dataclass(frozen=True)
class Slice:
    """One slice: where it lies (mm, LPS), where its pixels are, and what makes HU of them."""

    path: Path
    name: str  # for people
    pixels: Pixels
    frame: int
    position_mm: tuple[float, ...]  # of the first pixel's centre
    orientation: tuple[float, ...]  # along a row, down a column
    spacing_mm: tuple[float, ...]  # between rows, between columns
    between_mm: tuple[float, ...] | None
    thickness_mm: tuple[float, ...] | None
    slope: float
    intercept: float
    phase: tuple[tuple[str, str], ...]  # what may tell two slices at one place apart

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the largest value that the stored bits can stand for."""
        half = 1 << (self.pixels.stored - 1)
        ends = (-half, half - 1) if self.pixels.signed else (0, 2 * half - 1)
        return self.slope * ends[0] + self.intercept, self.slope * ends[1] + self.intercept


@dataclass(frozen=True)
class Stack:
    """A whole series, from z = 0 on in the direction row x column."""

    slices: tuple[Slice, ...]
    geometry: Geometry
    modality: str  # CT
    dtype: np.dtype  # of the planes

    @property
    def bytes(self) -> int:
        """What the voxels take, decoded."""
        return prod(self.geometry.size) * self.dtype.itemsize


@dataclass(frozen=True)
class _Member:
    """A file of the series."""

    name: str
    identity: Instance
    slices: list[Slice]


def read_stack(files: Sequence[Path]) -> Stack:
    """The slices of one series in order, with every check that needs no voxel. Raises Refusal.

    Slices may be shifted against each other along a straight line, as a tilted gantry leaves them: the grid is then
    sheared, and nothing is resampled. CT that was compressed with loss is read like any other (JPEG 2000, JPEG-LS); lossy
    JPEG is not, of which the decoder at hand reads 8 bits only.
    """
    root = os.path.commonpath([path.parent for path in files])
    members = [_read(path, os.path.relpath(path, root)) for path in files]
    _check_identity(members)
    slices = [part for member in members for part in member.slices]
    _check_agreement(slices)
    slices, affine = _in_order(slices)
    first = slices[0].pixels
    geometry = grid((first.columns, first.rows, len(slices)), affine, sheared=True)
    return Stack(tuple(slices), geometry, "CT", _dtype(slices))


def _read(path: Path, name: str) -> _Member:
    with opened(path, name) as file:
        fields = parse(file, TAGS, BEFORE_PIXELS)
        identity = instance(path, fields)
        if identity.kind:
            raise Refusal(
                "not-ct", f"The file {name} is no slice of a CT but something else: {identity.kind}."
            )
        if identity.modality != "CT":
            raise Refusal(
                "not-ct", f"The scan is of modality {identity.modality or 'unknown'}, not CT; so says {name}."
            )
        count = 1 if fields.value("NumberOfFrames") is None else fields.whole("NumberOfFrames")
        groups = fields.items("PerFrameFunctionalGroupsSequence")
        if count < 1 or ((groups or count > 1) and len(groups) != count):
            raise Refusal(
                "header", f"{name} claims {count} frames and tells of {len(groups)} where they lie; {AGAIN}."
            )
        pixels = locate(file, fields, _syntax(file, fields), count)
    shared = fields.items("SharedFunctionalGroupsSequence")[:1]
    slices = [
        _slice(
            path,
            f"frame {i + 1} of {name}" if count > 1 else name,
            pixels,
            i,
            [*groups[i : i + 1], *shared, fields],
        )
        for i in range(count)
    ]
    return _Member(name, identity, slices)


def _syntax(file: Source, fields: Fields) -> str:
    """The transfer syntax; Refusal where it is none that is read."""
    syntax = Fields(fields.data.file_meta, file.title).text("TransferSyntaxUID")
    if not syntax:
        # A data set without the header of a file: which of the two it is pydicom has seen
        return ImplicitVRLittleEndian if fields.data.original_encoding[0] else ExplicitVRLittleEndian
    if syntax not in DECODERS:
        raise Refusal(
            "format",
            f"The pixels of {file.title} are stored as {UID(syntax).name}, which is not read; convert the series to JPEG "
            "2000 lossless or decompress it.",
        )
    return syntax


def _slice(path: Path, name: str, pixels: Pixels, frame: int, levels: list[Fields]) -> Slice:
    """A slice of what its own, the shared and the file's level of the header say; the first that has a word counts."""
    measures = _macro(levels, "PixelMeasuresSequence")
    position = _macro(levels, "PlanePositionSequence").numbers("ImagePositionPatient", 3)
    orientation = _macro(levels, "PlaneOrientationSequence").numbers("ImageOrientationPatient", 6)
    spacing = measures.numbers("PixelSpacing", 2)
    if position is None or orientation is None:
        raise Refusal(
            "header",
            f"{name} does not say where in the patient it lies (ImagePositionPatient and -Orientation).",
        )
    if spacing is None:
        raise Refusal(
            "spacing", f"{name} does not give the distance of its pixels in the patient (PixelSpacing)."
        )
    slope, intercept = _rescale(_macro(levels, "PixelValueTransformationSequence"), levels[-1], name)
    return Slice(
        path, name, pixels, frame, position, orientation, spacing,
        measures.numbers("SpacingBetweenSlices", 1), measures.numbers("SliceThickness", 1),
        slope, intercept, _phase(levels),
    )  # fmt: skip


def _macro(levels: list[Fields], keyword: str) -> Fields:
    """The item of a functional group at the first level that has one; else the file's own level."""
    for level in levels[:-1]:
        if items := level.items(keyword):
            return items[0]
    return levels[-1]


def _rescale(values: Fields, file: Fields, name: str) -> tuple[float, float]:
    slope, intercept = values.numbers("RescaleSlope", 1), values.numbers("RescaleIntercept", 1)
    if slope is None or intercept is None or file.value("ModalityLUTSequence") is not None:
        raise Refusal(
            "header", f"{name} does not say which HU its values stand for (RescaleSlope, RescaleIntercept)."
        )
    if not slope[0] > 0:
        raise Refusal("header", f"{name} gives a rescale slope of {slope[0]:g}, which cannot be; {AGAIN}.")
    unit = values.text("RescaleType").upper()
    if unit not in HOUNSFIELD:
        raise Refusal("not-ct", f"The values of {name} are of the kind {unit[:20]}, not Hounsfield units.")
    return slope[0], intercept[0]


def _phase(levels: list[Fields]) -> tuple[tuple[str, str], ...]:
    content = [item for level in levels[:-1] for item in level.items("FrameContentSequence")]
    said = (
        ("AcquisitionNumber", levels[-1].value("AcquisitionNumber")),
        ("TemporalPositionIdentifier", levels[-1].value("TemporalPositionIdentifier")),
        ("TemporalPositionIndex", content[0].value("TemporalPositionIndex") if content else None),
    )
    return tuple((keyword, str(value)) for keyword, value in said if value is not None)


def _check_identity(members: list[_Member]) -> None:
    """Refuse files of several series or patients, and the same instance twice."""
    wanted: tuple[tuple[str, Callable[[_Member], str]], ...] = (
        ("series", lambda member: member.identity.series),
        ("study", lambda member: member.identity.study),
        ("patient", lambda member: member.identity.patient),
    )
    first, seen = members[0], {}
    for member in members:
        for what, of in wanted:
            if of(member) != of(first):
                raise _contradiction(what, first.name, of(first), member.name, of(member))
        uid = member.identity.uid
        if uid and uid in seen:
            raise Refusal(
                "slices",
                f"{seen[uid]} and {member.name} are the same slice twice (SOPInstanceUID); take one of them away.",
            )
        seen[uid] = member.name


def _check_agreement(slices: list[Slice]) -> None:
    """Refuse slices that differ in what must be the same for all, and axes that are not at right angles."""
    first = slices[0]
    size = (first.pixels.columns, first.pixels.rows)
    for part in slices:
        other = (part.pixels.columns, part.pixels.rows)
        if other != size:
            raise _contradiction("size", first.name, by(size), part.name, by(other))
    spacing = np.array([part.spacing_mm for part in slices])
    orientation = np.array([part.orientation for part in slices])
    for what, values, tolerance in (
        ("pixel spacing", spacing, AGREEMENT * np.abs(spacing[0])),
        ("orientation", orientation, AGREEMENT),
    ):
        odd = np.flatnonzero((np.abs(values - values[0]) > tolerance).any(axis=1))
        if odd.size:
            said = (by(map(float, values[i])) for i in (0, odd[0]))
            raise _contradiction(what, first.name, next(said), slices[odd[0]].name, next(said))
    check_spacing(first.spacing_mm)
    axes = np.reshape(first.orientation, (2, 3))
    off = np.abs(axes @ axes.T - np.eye(2)).max()
    if not off <= ANGLE_TOLERANCE:
        raise Refusal(
            "header",
            f"The rows and columns of {first.name} are not at right angles or not of length 1 (off by {off:.2g}); "
            f"{AGAIN}.",
        )


def _contradiction(what: str, name: str, value: object, other_name: str, other_value: object) -> Refusal:
    return Refusal(
        "slices",
        f"The slices contradict each other: {what} is {value or 'missing'} in {name} and {other_value or 'missing'} in "
        f"{other_name}; put only the files of one volume together.",
    )


def _in_order(slices: list[Slice]) -> tuple[list[Slice], np.ndarray]:
    """Slices along their normal, and the 4 x 4 matrix from voxel indices (x, y, z) to mm. Refusal where any is missing."""
    first = slices[0]
    axes = np.reshape(first.orientation, (2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    normal = np.cross(*axes)
    positions = np.array([part.position_mm for part in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[i] for i in order], positions[order]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[0] * first.spacing_mm[1], axes[1] * first.spacing_mm[0]
    affine[:3, 2] = _step(slices, positions, normal)
    affine[:3, 3] = positions[0]
    return slices, affine


def _step(slices: list[Slice], positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """From one slice to the next, in mm. `positions` (n, 3) ascend along the normal."""
    if len(slices) == 1:
        # One slice has no distance to the next; its thickness is what the limits then find too small
        thickness = slices[0].thickness_mm
        return normal * (thickness[0] if thickness and thickness[0] > 0 else 1.0)
    _check_doubles(slices, positions @ normal)
    _check_phases(slices)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    distance = float(np.linalg.norm(step))
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if off.max() > PLACE_TOLERANCE * distance:
        raise _uneven(slices, positions, positions @ normal)
    for part in slices:
        # 0 says nothing; a tilted gantry's distance is meant along the normal, or along the table
        stated = abs(part.between_mm[0]) if part.between_mm else 0
        stated = stated or distance
        if all(abs(stated - real) > DISTANCE_TOLERANCE * real for real in (distance, float(step @ normal))):
            raise Refusal(
                "spacing",
                f"{part.name} gives {stated:g} mm from slice to slice (SpacingBetweenSlices), the slices lie {distance:g} "
                "mm apart.",
            )
    return step


def _check_doubles(slices: list[Slice], places: np.ndarray) -> None:
    """Refuse two slices in one plane. `places` (n,) ascend, in mm."""
    gaps = np.diff(places)
    double = np.flatnonzero(gaps < max(SAME_PLACE_MM, PLACE_TOLERANCE * np.median(gaps)))
    if not double.size:
        return
    one, other = slices[double[0]], slices[double[0] + 1]
    differ = [
        f"{keyword} {value} and {dict(other.phase)[keyword]}"
        for keyword, value in one.phase
        if dict(other.phase).get(keyword, value) != value
    ]
    why = ""
    if differ:
        why = f" They differ in {', '.join(differ)}: the series holds several phases; put one alone."
    raise Refusal(
        "slices",
        f"{double.size} of {len(slices)} slices lie where another one does, first {one.name} and {other.name}; a volume "
        f"has one slice at each place.{why}",
    )


def _check_phases(slices: list[Slice]) -> None:
    """Refuse slices of several phases in turn: along the scan, a phase that was left does not come again."""
    left: set[tuple[tuple[str, str], ...]] = set()
    for one, other in pairwise(slices):
        if one.phase == other.phase:
            continue
        left.add(one.phase)
        if other.phase in left:
            said = " and ".join(
                f"{keyword} {value}" for part in (one, other) for keyword, value in part.phase
            )
            raise Refusal(
                "slices",
                f"Slices of several phases lie between each other, as {one.name} and {other.name} do ({said}); put one "
                "phase alone.",
            )


def _uneven(slices: list[Slice], positions: np.ndarray, places: np.ndarray) -> Refusal:
    """What keeps the slices from being a regular grid, in words."""
    gaps = np.diff(places)
    typical = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * typical)
    if wide.size:
        at = wide[0]
        missing = int(np.rint(gaps[wide] / typical - 1).sum())
        return Refusal(
            "slices",
            f"{missing} {'slice is' if missing == 1 else 'slices are'} missing, the first between {slices[at].name} and "
            f"{slices[at + 1].name}, which lie {gaps[at]:.4g} mm apart, the others {typical:.4g} mm; copy the whole series.",
        )
    steps = np.diff(positions, axis=0)
    at = int(np.argmax(np.linalg.norm(steps - np.median(steps, axis=0), axis=1)))
    return Refusal(
        "slices",
        f"The slices do not lie evenly on a straight line: they are {gaps.min():.4g} to {gaps.max():.4g} mm apart, and "
        f"{slices[at + 1].name} lies most out of place; such a series is no regular grid.",
    )


def _dtype(slices: list[Slice]) -> np.dtype:
    """The narrowest type that holds every HU the slices can stand for."""
    if all(part.slope.is_integer() and part.intercept.is_integer() for part in slices):
        low = min(part.value_range[0] for part in slices)
        high = max(part.value_range[1] for part in slices)
        for dtype in (np.int16, np.int32, np.int64):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return np.dtype(dtype)
    return np.dtype(np.float32)
