"""Every scan on one kind of grid and in one range of intensity: orientation, interpolation, thumbnails, files.

The axes of a resampled scan run along LPS (x to the patient's left, y to posterior, z to superior), whatever the
order and sense in which the scan was stored; those of an oblique scan only nearly, where the study asks for the
nearest axes: nothing is interpolated for the turn then, and the direction in the file says where they lead.
Field of view: the output has round(size * spacing / new spacing) voxels along an axis, at least one, and the centre
of the field of view stays where it was.

Intensity: HU are clipped to [hu_min, hu_max] before interpolation, so that padding of -2048 or -3024 becomes air
instead of ringing into the patient, and again after it, because a cubic spline overshoots at edges; then rounded
to the nearest whole HU, halves to even.

Boundary: the spline sees the volume mirrored about the centres of its first and last voxels. New voxel centres of
a scan along the axes always lie inside its field of view; what an oblique scan does not cover is hu_min, and 0 in
labels.

Anti-aliasing, where it is asked for: a Gaussian along each stored axis on which the new grid is coarser precedes the
spline (sg/splines.py has its width), between the clips. Of an oblique scan, the spacing of the new grid along a
stored axis is the root mean square of its three spacings, weighed by the squared components of that axis: voxels of
a new grid that has one spacing count the same in every direction. Labels are not smoothed.

Scans along the axes (or taken for such) go through sg/splines.py, other ones and labels through SimpleITK.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sg import console, splines
from sg.cohorts.records import FileRow, QuarantineRow, ScanRow, write_rows
from sg.errors import InputError
from sg.orientation import Turn, turn_of, turned
from sg.params import Resample
from sg.processes import Lost, spread
from sg.resampled import QUARANTINE, Resampled
from sg.scans import Geometry, Place, Refusal, Scan, digest, files_of, read_scan
from sg.storage import create_h5, empty_array, fixed_texts, open_h5, write_array

THUMBNAILS = "thumbnails.h5"

# A direction so near to the axes that turning the scan onto them moves none of its voxels by more than this share
# of the smallest spacing is taken for rounding in the header.
OBLIQUE_VOXELS = 0.1
# Two grids whose voxels differ in place by less than this share of a voxel are the same: nothing is interpolated.
SAME_VOXELS = 1e-3
# A grid that is much too fine for its scans must not ask for terabytes.
VOXELS_MAX = 2**31
# Blocks of at most this shape in the files: about the size of what is read at once, a patch.
BLOCK = (32, 64, 64)


# ------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Sampling:
    """How a stored grid becomes an output grid along LPS: first turned, then sampled unless `same`.

    Sampling happens in coordinates that have nothing to do with where the patient lay: `source_*` describe the turned
    array in them, `start` and `step` the output grid; both are (x, y, z). Unless `oblique`, they are voxels of the
    turned array. `coarser` says how many of those voxels a new one is long, along each axis of the turned array.
    `direction` is that of the output grid, 3 x 3 by rows, with axes in its columns.
    """

    turn: Turn
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    same: bool
    oblique: bool
    coarser: tuple[float, float, float]
    source_spacing: tuple[float, float, float]
    source_direction: tuple[float, ...]
    start: tuple[float, float, float]
    step: tuple[float, float, float]


def sampling(
    geometry: Geometry, spacing_mm: Sequence[float] | None, *, nearest_axes: bool = False
) -> Sampling:
    """The output grid of a scan with the given spacing (x, y, z) in mm; None keeps the scan's own.

    Stored axes are permuted and reversed to the nearest axes of LPS. If the scan is then still oblique or sheared (see
    OBLIQUE_VOXELS), the output grid is the box along the axes that holds its whole field of view. With `nearest_axes` it
    is the box along the scan's own axes where these are at right angles, to the same tolerance.
    """
    direction = np.array(geometry.direction, float).reshape(3, 3)
    turn = turn_of(geometry)
    size = np.array(geometry.size)[list(turn.axes)]
    own = np.array(geometry.spacing_mm, float)[list(turn.axes)]
    columns = direction[:, turn.axes] * np.where(turn.reversed, -1.0, 1.0)
    # From the stored first voxel: half a field of view along every stored axis.
    centre = geometry.origin_mm + direction @ (
        np.array(geometry.spacing_mm) * (np.array(geometry.size) - 1) / 2
    )

    new = own if spacing_mm is None else np.array(spacing_mm, float)
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * (size - 1) / 2 * own

    def leads_along(axes: np.ndarray) -> bool:
        moved = np.linalg.norm(corners @ (columns - axes).T, axis=1).max()
        return bool(moved <= OBLIQUE_VOXELS * own.min())

    oblique, along = not leads_along(np.eye(3)), np.eye(3)
    if oblique and nearest_axes:
        rotation = _nearest_rotation(columns)
        if leads_along(rotation):
            oblique, along = False, rotation
    extent = np.abs(columns) @ (size * own) if oblique else size * own
    count = np.maximum(1, np.floor(extent / new + 0.5)).astype(int)
    if oblique:
        source_spacing, source_direction, step = own, columns, new
        middle = columns @ (own * (size - 1) / 2)
        coarser = np.sqrt(new**2 @ columns**2) / own
    else:
        # In voxels of the scan: at simple ratios the coordinates are then exact, and ties stay ties everywhere.
        source_spacing, source_direction, step = np.ones(3), np.eye(3), new / own
        middle = (size - 1) / 2
        coarser = step
    same = not oblique and bool((count == size).all() and (np.abs(step - 1) * size / 2 < SAME_VOXELS).all())
    return Sampling(
        turn=turn,
        size=tuple(map(int, count)),
        spacing_mm=tuple(map(float, new)),
        origin_mm=tuple(map(float, centre - along @ (new * (count - 1) / 2))),
        direction=tuple(map(float, along.ravel())),
        same=same,
        oblique=oblique,
        coarser=tuple(map(float, coarser)),
        source_spacing=tuple(map(float, source_spacing)),
        source_direction=tuple(map(float, source_direction.ravel())),
        start=tuple(map(float, middle - step * (count - 1) / 2)),
        step=tuple(map(float, step)),
    )


def _nearest_rotation(columns: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) that is nearest to a matrix in the sum of squares, by its polar decomposition."""
    left, _, right = np.linalg.svd(columns)
    mirrored = np.linalg.det(left @ right) < 0
    return left @ np.diag([1.0, 1.0, -1.0 if mirrored else 1.0]) @ right


# --------------------------------------------------------------------------------------- interpolation


def resample_image(
    array: np.ndarray, how: Sampling, hu_min: float, hu_max: float, *, anti_alias: bool
) -> np.ndarray:
    """HU of a stored array (z, y, x) on the output grid, int16: cubic B-spline between clips, see the module.

    `anti_alias` smooths before a coarser grid. Memory beside the array and the result, which are never whole as
    floating-point numbers unless the scan is oblique: see `splines.sampled`.
    """
    volume = turned(array, how.turn)
    if how.same:
        values = np.empty(volume.shape, np.int16)
        for plane, made in zip(volume, values, strict=True):
            made[...] = np.rint(_clipped(plane, hu_min, hu_max))
        return values
    kernels = [splines.smoothing(ratio if anti_alias else 1.0) for ratio in reversed(how.coarser)]
    if not how.oblique:
        sides = zip(volume.shape, how.size[::-1], how.start[::-1], how.step[::-1], kernels, strict=True)
        return splines.sampled(volume, [splines.axis(*side) for side in sides], hu_min, hu_max)

    import SimpleITK as sitk

    values = _sampled(_smoothed(_clipped(volume, hu_min, hu_max), kernels), how, sitk.sitkBSpline, hu_min)
    np.clip(values, hu_min, hu_max, out=values)
    return np.rint(values, out=values).astype(np.int16)


def resample_labels(array: np.ndarray, how: Sampling) -> np.ndarray:
    """Labels of a stored array (z, y, x) on the output grid, uint8: those of the nearest voxel.

    Halfway between two voxels, that with the larger index.
    """
    labels = np.ascontiguousarray(turned(array, how.turn), np.uint8)
    if how.same:
        return labels
    import SimpleITK as sitk

    return _sampled(labels, how, sitk.sitkNearestNeighbor, 0)


def _clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A float32 copy in C order (a turned array is not), which np.clip alone would not make."""
    return np.clip(
        values, low, high, out=np.empty(values.shape, np.float32), casting="same_kind", dtype=np.float32
    )


def _smoothed(values: np.ndarray, kernels: Sequence[np.ndarray]) -> np.ndarray:
    """The same array (z, y, x), smoothed in place by a kernel along each axis, mirrored as the spline is."""
    from scipy.ndimage import correlate1d

    for axis, kernel in enumerate(kernels):
        if len(kernel) > 1:
            correlate1d(values, kernel, axis, output=values, mode="mirror")
    return values


def _sampled(array: np.ndarray, how: Sampling, interpolator: int, outside: float) -> np.ndarray:
    import SimpleITK as sitk

    # Scans are what is spread over the cores; the result is the same for any number of threads.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.GetImageFromArray(array)
    del array  # often the only reference: the spline is about to need much memory
    image.SetSpacing(how.source_spacing)
    image.SetDirection(how.source_direction)
    along = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    sampled = sitk.Resample(
        image, how.size, sitk.Transform(), interpolator, how.start, how.step, along, outside
    )
    return sitk.GetArrayFromImage(sampled)


def thumbnail(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The whole image (z, y, x) resized to `shape`, int16; its proportions are not kept.

    Linear, voxel centres aligned; where the thumbnail is coarser, the linear kernel is widened to its spacing, so
    that every voxel counts. Weights that would reach over the edge go to the voxels inside.
    """
    along_z, along_y, along_x = (
        _linear_weights(old, new) for old, new in zip(image.shape, shape, strict=True)
    )
    # Slice by slice, so that the volume never exists as floats. Sparse products add in a fixed order; a BLAS may not.
    planes = np.empty((image.shape[0], shape[1] * shape[2]))
    for index, plane in enumerate(image):
        planes[index] = (along_x @ (along_y @ plane.astype(float)).T).T.ravel()
    return np.rint(along_z @ planes).astype(np.int16).reshape(shape)


def _linear_weights(old: int, new: int):
    """Sparse matrix (new, old) that resizes an axis, rows summing to 1."""
    from scipy.sparse import csr_array

    ratio = old / new
    centres = (np.arange(new)[:, None] + 0.5) * ratio - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - centres) / max(1.0, ratio))
    return csr_array(weights / weights.sum(axis=1, keepdims=True))


# ------------------------------------------------------------------------------------------- one scan


def key_of(row: ScanRow, settings: Resample, code: str) -> str:
    """Hex digest of all that a resampled scan depends on; `code` is the digest of the code that makes it."""
    facts = {
        "scan": row.sha256,
        "truth": row.truth_sha256,
        "patient": row.patient,
        "settings": settings.model_dump(mode="json"),
        "code": code,
        "SimpleITK": version("SimpleITK"),  # so that one cohort never holds two interpolations
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def resample_scan(row: ScanRow, files: Sequence[str], raw: Path, settings: Resample) -> Resampled:
    """Read one scan, and its label map if it has one, below `raw`, and resample it.

    `files` are those of a DICOM series, from files.csv, in the order of hashing; none for a scan of another format.
    Refusal if its bytes are no longer those that were indexed (rule `changed`), if the result would be smaller
    than `shape_min` (`too-small`) or absurdly large (`too-large`), or if the label map is not one of this scan
    (`labels`); and whatever the reader refuses.

    Memory at the peak, for n voxels read and m made: 2 n + 2 m bytes and about 50 rows (z, x) of the result as
    float32, see `splines.sampled`; 2 n + 4 m with labels; 2 n more where the scan holds fractions of a HU. An oblique
    scan takes the larger of 14 n + 4 m, in SimpleITK's spline, whose coefficients are doubles, and 6 n + 8 m.
    """
    place = tuple(raw / file for file in files) or raw / row.path
    _unchanged(place, raw, row.path, row.sha256)
    scan = read_scan(place, raw, None)
    how = sampling(scan.geometry, settings.spacing_mm, nearest_axes=settings.oblique == "nearest-axes")
    _check_size(how, settings)
    image = resample_image(scan.array, how, settings.hu_min, settings.hu_max, anti_alias=settings.anti_alias)
    geometry = scan.geometry
    del scan
    labels = None
    if row.truth:
        _unchanged(raw / row.truth, raw, row.truth, row.truth_sha256)
        labels = resample_labels(_label_values(read_scan(raw / row.truth, raw, None), geometry), how)
    return Resampled(
        image,
        labels,
        how.spacing_mm,
        how.origin_mm,
        row.patient,
        settings.hu_min,
        settings.hu_max,
        how.direction,
    )


def _unchanged(place: Place, raw: Path, name: str, sha256: str) -> None:
    try:
        found, _ = digest(files_of(place, raw))
    except Refusal as refusal:
        if refusal.rule == "unreadable":
            raise
        raise Refusal(
            "changed", f"It is not as it was when the cohort was indexed. {refusal.reason}"
        ) from None
    if found != sha256:
        raise Refusal("changed", f"The bytes of {name} are not those that the cohort was indexed with.")


def _check_size(how: Sampling, settings: Resample) -> None:
    shape = how.size[::-1]
    if any(side < least for side, least in zip(shape, settings.shape_min, strict=True)):
        raise Refusal(
            "too-small",
            f"After resampling it has {_times(shape)} voxels (z, y, x); resample.shape_min asks for at least "
            f"{_times(settings.shape_min)}.",
        )
    if math.prod(shape) > VOXELS_MAX:
        raise Refusal(
            "too-large",
            f"After resampling it would have {_times(shape)} voxels (z, y, x), more than {VOXELS_MAX:,}; "
            "resample.spacing_mm is too fine for it.",
        )


def _label_values(truth: Scan, geometry: Geometry) -> np.ndarray:
    """The label map as uint8 (z, y, x), once it is known to lie on the scan's grid and to hold labels."""
    if difference := geometry.difference(truth.geometry):
        raise Refusal("labels", f"Its label map lies on another grid than the scan: {difference}.")
    with np.errstate(invalid="ignore"):
        labels = truth.array.astype(np.uint8)
    if not np.array_equal(labels, truth.array):
        raise Refusal("labels", "Its label map holds other values than whole numbers from 0 to 255.")
    return labels


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


# -------------------------------------------------------------------------------------------- files


def write_resampled(path: Path, scan: str, resampled: Resampled, small: np.ndarray, key: str) -> None:
    """Write a resampled scan with its thumbnail as one file, whole or not at all. Equal content, equal bytes."""
    aside = path.with_name(f".{path.name}.part")
    with create_h5(aside) as file:
        for name, array in (("image", resampled.image), ("labels", resampled.labels), ("thumbnail", small)):
            if array is not None:
                # Compressed, because it halves real scans (label maps: 1 in 100) and reads no slower.
                write_array(
                    file, name, array, chunks=_blocks(array.shape), fletcher32=True, compression="blosc2"
                )
        file.attrs["scan"] = scan
        file.attrs["patient"] = resampled.patient
        file.attrs["spacing_mm"] = np.array(resampled.spacing_mm)
        file.attrs["origin_mm"] = np.array(resampled.origin_mm)
        file.attrs["direction"] = np.array(resampled.direction)
        file.attrs["intensity"] = "HU"
        file.attrs["hu_min"] = float(resampled.hu_min)
        file.attrs["hu_max"] = float(resampled.hu_max)
        file.attrs["key"] = key
    os.replace(aside, path)


def _blocks(shape: Sequence[int]) -> tuple[int, ...]:
    """Blocks of at most BLOCK that divide the shape evenly, for the last ones are stored in full."""
    return tuple(math.ceil(side / math.ceil(side / most)) for side, most in zip(shape, BLOCK, strict=True))


def write_thumbnails(path: Path, scans: Sequence[ScanRow], files: Sequence[Path], settings: Resample) -> None:
    """Gather the thumbnails of resampled scans (their files in the order of `scans`) into one file, row by row."""
    shape = settings.thumbnail_shape
    with create_h5(path) as target:
        gathered = empty_array(
            target, "thumbnails", (len(scans), *shape), np.int16, chunks=(1, *shape), fletcher32=True
        )
        for index, file in enumerate(files):
            with open_h5(file) as source:
                gathered[index] = source["thumbnail"][...]
        write_array(target, "scan", fixed_texts([row.scan for row in scans], 12))
        write_array(target, "patient", fixed_texts([row.patient for row in scans], 64))
        write_array(target, "split", fixed_texts([row.split for row in scans], 10))
        write_array(target, "pretrain", np.array(["pretrain" in row.use for row in scans], bool))
        target.attrs["hu_min"] = float(settings.hu_min)
        target.attrs["hu_max"] = float(settings.hu_max)


# ------------------------------------------------------------------------------------------ all scans


@dataclass(frozen=True)
class Tally:
    """What became of the scans of a cohort."""

    made: list[ScanRow]
    kept: list[ScanRow]  # from an earlier run
    refused: list[QuarantineRow]

    def __str__(self) -> str:
        made, kept = len(self.made), len(self.kept)
        text = f"{made + kept} scans: {made} made, {kept} kept"
        return f"{text}; {len(self.refused)} set aside ({_by_rule(self.refused)})" if self.refused else text


@dataclass(frozen=True)
class _Job:
    row: ScanRow
    files: tuple[str, ...]
    raw: Path
    settings: Resample
    key: str
    target: Path


def resample_cohort(
    scans: Sequence[ScanRow],
    files: Sequence[FileRow],
    raw: Path,
    settings: Resample,
    code: str,
    *,
    earlier: Path,
    store: Path,
    output: Path,
    workers: int,
) -> Tally:
    """Fill `output` with a file for each scan, thumbnails.h5 and quarantine.csv; `files` are those of DICOM series.

    A scan that `earlier` (the folder of the last run) or `store` (finished scans of a run that was killed) holds
    whole and with the current key is taken from there; the others are made by `workers` processes, each in its
    own file in `store`. The result depends neither on what was there nor on the workers. Raw files of scans that
    are taken over are not read again: a change in them makes the cohort anew first.
    InputError if there is no scan, or none that can be used.
    """
    scans = sorted(scans, key=lambda row: row.scan)
    fixed_texts([row.patient for row in scans], 64)  # what thumbnails.h5 cannot hold is said before the work
    series: dict[str, list[str]] = {}
    for line in files:
        series.setdefault(line.scan, []).append(line.file)
    found: dict[str, Path] = {}
    jobs = []
    for row in console.track(scans, "resample: looking for finished scans", len(scans), "scans"):
        key = key_of(row, settings, code)
        places = [place / f"{row.scan}.h5" for place in (store, earlier)]
        if whole := next((file for file in places if _is_whole(file, key)), None):
            found[row.scan] = whole
        else:
            names = tuple(series.get(row.scan, ()))
            jobs.append(_Job(row, names, raw.absolute(), settings, key, store.absolute() / f"{row.scan}.h5"))
    if jobs and not raw.is_dir():
        raise InputError(f"cohort.raw: there is no folder {raw}; correct the parameter in params.yaml")
    kept = {*found}

    refused: dict[str, QuarantineRow] = {}
    for job, result in console.track(spread(_make, jobs, workers), "resample", len(jobs), "scans"):
        if result is None:
            found[job.row.scan] = job.target
        else:
            refused[job.row.scan] = _lost(job.row) if isinstance(result, Lost) else result
    rows = [refused[row.scan] for row in scans if row.scan in refused]
    usable = [row for row in scans if row.scan in found]
    if not usable:
        raise InputError(
            f"resample: none of {len(scans)} scans can be used ({_by_rule(rows)}). "
            f"The first, {rows[0].path}: {rows[0].reason}"
            if rows
            else "data/cohort/scans.csv: it names no scan; put scans under cohort.raw"
        )
    for row in usable:
        _link(found[row.scan], output / f"{row.scan}.h5")
    write_thumbnails(output / THUMBNAILS, usable, [output / f"{row.scan}.h5" for row in usable], settings)
    write_rows(output / QUARANTINE, QuarantineRow, rows)
    return Tally(
        [row for row in usable if row.scan not in kept], [row for row in usable if row.scan in kept], rows
    )


def show(tally: Tally) -> None:
    """Say on the console what was made, kept and refused by which rule, and the patients left in each split."""
    usable = tally.made + tally.kept
    sources = sorted({row.source for row in [*usable, *tally.refused]})

    def line(what: str, rows: Sequence[ScanRow] | Sequence[QuarantineRow]) -> list[object]:
        return [what, *(sum(row.source == source for row in rows) for source in sources), len(rows)]

    def patients(split: str, *sources: str) -> int:
        return len({row.patient for row in usable if row.split == split and row.source in sources})

    rules = sorted({row.rule for row in tally.refused})
    rows = [line("scans made", tally.made), line("scans kept", tally.kept)]
    rows += [line(f"refused: {rule}", [row for row in tally.refused if row.rule == rule]) for rule in rules]
    rows += [
        [
            f"patients left: {split}",
            *(patients(split, source) for source in sources),
            patients(split, *sources),
        ]
        for split in ("train", "validation", "test")
    ]
    console.counts(sources, rows)


def _make(job: _Job) -> QuarantineRow | None:
    """Resample one scan into its file, in whichever process; why not, where it cannot be."""
    try:
        resampled = resample_scan(job.row, job.files, job.raw, job.settings)
    except Refusal as refusal:
        return QuarantineRow(job.row.path, job.row.source, refusal.rule, refusal.reason, job.row.scan)
    except RuntimeError as error:  # SimpleITK's way of saying so
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            raise MemoryError from error
        raise
    small = thumbnail(resampled.image, job.settings.thumbnail_shape)
    write_resampled(job.target, job.row.scan, resampled, small, job.key)
    return None


def _lost(row: ScanRow) -> QuarantineRow:
    reason = (
        f"Resampling it ended its process twice, the second time with nothing else going on; its {_times(row.size)} "
        "voxels (x, y, z) may need more memory than there is."
    )
    return QuarantineRow(row.path, row.source, "memory", reason, row.scan)


def _is_whole(path: Path, key: str) -> bool:
    """Whether a file has that key and every one of its blocks can be read; False sends the scan to be made anew."""
    try:
        with open_h5(path) as file:
            if file.attrs["key"] != key:
                return False
            for name in ("image", "labels", "thumbnail"):
                if name in file:
                    for block in file[name].iter_chunks():
                        file[name][block]
    except InputError:
        return False
    return True


def _link(file: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system cannot do that. Never written to again."""
    file = file.resolve()
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
            raise
        shutil.copyfile(file, target)


def _by_rule(rows: Sequence[QuarantineRow]) -> str:
    return ", ".join(f"{rule}: {count}" for rule, count in sorted(Counter(row.rule for row in rows).items()))
