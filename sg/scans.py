"""Reading a scan file: its voxels in HU and its geometry, or a refusal with a reason in words.

A file that cannot be vouched for is refused. The length that the header states is held against the bytes that are
there, compressed streams are read to their end with their checksum, nothing is allocated before the sizes are known
to be possible, and the voxels come from the very bytes that were checked, never from a library's second reading.

Read are NIfTI in one file (.nii, .nii.gz) and MetaImage (.mha, .mhd with .raw or .zraw). Arrays are (z, y, x) as
stored; positions are mm (x, y, z) in LPS, as ITK has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from sg.formats import metaimage, nifti
from sg.formats.files import CHUNK, GZIP, Inflating, Refusal, Stream, check_file, unreadable
from sg.formats.headers import Geometry, Header, by
from sg.params import Limits

__all__ = [
    "Geometry",
    "Header",
    "Refusal",
    "Scan",
    "digest",
    "files_of",
    "read_header",
    "read_scan",
    "stem_of",
    "suffix_of",
]

# The most that a study may allow; for label maps, which are read without the study's limits
VOXELS_MAX = 2**33
DISTINCT_CHUNK = 1 << 16  # voxels among which a CT mostly has enough distinct values already


@dataclass(frozen=True)
class Scan:
    """A scan as read: voxels (z, y, x), int16 where all are whole numbers in its range, else float32."""

    array: np.ndarray
    geometry: Geometry
    modality: str  # CT


def suffix_of(path: Path) -> str:
    """The suffix of a format that is read, in lower case; empty for any other name."""
    name = path.name.lower()
    return next((suffix for suffix in (*nifti.SUFFIXES, *metaimage.SUFFIXES) if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The file's name without the suffix of its format."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def files_of(path: Path, root: Path) -> tuple[Path, ...]:
    """The files of a scan in the order in which they are hashed: itself, then the data file that it names.

    Refusal if one is missing, empty or lies outside `root`, or if the header cannot be read that far.
    """
    check_file(path, root)
    with _system_errors(path):
        data = metaimage.data_file(path) if suffix_of(path) in metaimage.SUFFIXES else None
    if data is None:
        return (path,)
    check_file(data, root, path)
    return path, data


def digest(files: Sequence[Path]) -> tuple[str, int]:
    """SHA-256 (hex) over the bytes of all files in order, and the number of bytes."""
    total, count = hashlib.sha256(), 0
    for path in files:
        with _system_errors(path), open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
                count += len(chunk)
    return total.hexdigest(), count


def read_header(path: Path, root: Path, limits: Limits | None) -> Header:
    """What the header says, checked against itself, the file's length and the limits; no voxel is read.

    `path` must lie below `root`, links resolved. Raises Refusal.
    """
    with _opened(path, root, limits) as (header, _):
        return header


def read_scan(path: Path, root: Path, limits: Limits | None) -> Scan:
    """Read a scan in HU, or raise Refusal.

    `path` must lie below `root`, links resolved. With limits, the scan must satisfy them and look like a CT; without
    (None) it may be anything with a geometry, such as a label map.
    """
    with _opened(path, root, limits) as (header, stream):
        voxels = np.empty(prod(header.geometry.size), header.dtype)
        stream.fill(memoryview(voxels.view(np.uint8)))
        stream.finish()
    array = _in_units(voxels, header.slope, header.intercept).reshape(header.geometry.size[::-1])
    if limits is not None:
        _check_ct(array.reshape(-1), limits)
    return Scan(array, header.geometry, header.modality)


@contextmanager
def _opened(path: Path, root: Path, limits: Limits | None) -> Iterator[tuple[Header, Stream]]:
    """A file's checked header, and the stream that stands at its first voxel."""
    suffix = suffix_of(path)
    if not suffix:
        raise Refusal(
            "format",
            f"{path.name} is of no format that is read: NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd).",
        )
    check_file(path, root)
    with _system_errors(path):
        known = metaimage.read_header(path, root) if suffix in metaimage.SUFFIXES else None
        with open(known.file if known else path, "rb", buffering=0) as file:
            start = known.start if known else 0
            compressed = known.compressed if known else file.read(2) == GZIP
            stream = (Inflating if compressed else Stream)(file, Path(file.name).name, start)
            header = known or nifti.read_header(path, stream)
            _check_header(header, limits)
            stream.check_length(header.offset + header.bytes)
            stream.skip(header.offset - stream.position)
            yield header, stream


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses (permission, a failing disk) into a refusal of this file."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from None


def _check_header(header: Header, limits: Limits | None) -> None:
    """What can be refused without reading a voxel."""
    size, spacing = header.geometry.size, header.geometry.spacing_mm
    most = VOXELS_MAX if limits is None else limits.voxels_max
    if prod(size) > most:
        raise Refusal("too-large", f"The header claims {by(size)} voxels; at most {most:,} in all are read.")
    if limits is None:
        return
    low, high = limits.spacing_mm
    if not all(low <= value <= high for value in spacing):
        raise Refusal(
            "spacing", f"The voxel spacing is {by(spacing)} mm; each must be from {low:g} to {high:g} mm."
        )
    if header.geometry.slices < limits.slices_min:
        raise Refusal(
            "too-small",
            f"The scan has {header.geometry.slices} slices; at least {limits.slices_min} are needed.",
        )
    extent = [n * value for n, value in zip(size, spacing, strict=True)]
    if min(extent) < limits.extent_min_mm:
        raise Refusal(
            "too-small",
            f"The scan covers {by(extent)} mm; at least {limits.extent_min_mm:g} mm along every axis are needed.",
        )


def _in_units(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values (n,) in their unit: int16 where all are whole numbers in its range, else float32."""
    if not voxels.dtype.isnative:
        voxels = voxels.byteswap(inplace=True).view(voxels.dtype.newbyteorder("="))
    if (slope, intercept) == (1, 0):
        if voxels.dtype == np.int16:
            return voxels
        return _narrow(voxels, lambda part: part)
    return _narrow(voxels, lambda part: part * np.float64(slope) + np.float64(intercept))


def _narrow(voxels: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The scaled values, part by part so that no temporary is as large as the scan."""
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    most = float(np.finfo(np.float32).max)
    whole, unusable = True, 0
    for part in map(scaled, _parts(voxels)):
        if part.dtype.kind == "f":
            unusable += int(np.count_nonzero(~(np.abs(part) <= most)))
            whole = whole and not unusable and bool((part == np.rint(part)).all())
        whole = whole and bool(low <= part.min() and part.max() <= high)
    if unusable:
        raise Refusal(
            "not-finite", f"{unusable:,} of {voxels.size:,} voxels hold no number (NaN or infinite)."
        )
    result = np.empty(voxels.shape, np.int16 if whole else np.float32)
    for part, values in zip(_parts(result), _parts(voxels), strict=True):
        part[:] = scaled(values)
    return result


def _check_ct(values: np.ndarray, limits: Limits) -> None:
    """Refuse voxels (n,) that cannot be those of a CT of a chest in HU.

    Values far below air (-2048, -3024) are the usual filling outside a scanner's circle, and pass.
    """
    low, high = values.min(), values.max()
    span = f"the values run from {low:g} to {high:g}"
    if low == high:
        raise Refusal(
            "constant", f"All voxels have the same value, {low:g}; there is no picture in this file."
        )
    if low >= 0 and high <= 255:
        raise Refusal("not-ct", f"This is a picture in grey values, not a CT in Hounsfield units: {span}.")
    if low >= 0 and high > 1000:
        raise Refusal(
            "not-ct",
            f"This is not a CT in Hounsfield units: {span}, none is negative; perhaps the offset of -1024 was lost.",
        )
    air = sum(int(np.count_nonzero(part < -500)) for part in _parts(values)) / values.size
    if high <= 0 or air < limits.air_share_min:
        raise Refusal(
            "not-ct",
            f"This does not look like a CT of a chest in Hounsfield units: {span}, {100 * air:.1f} % of the voxels are "
            f"air (under -500 HU); at least {100 * limits.air_share_min:g} % are expected, and some over 0.",
        )
    distinct = values[:0]
    for part in _parts(values, DISTINCT_CHUNK):
        distinct = np.union1d(distinct, part)
        if distinct.size > limits.distinct_min:
            return
    raise Refusal(
        "not-ct",
        f"The scan has only {distinct.size} different values, a CT more than {limits.distinct_min}; it was coarsened.",
    )


def _parts(values: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    for start in range(0, values.size, size):
        yield values[start : start + size]
