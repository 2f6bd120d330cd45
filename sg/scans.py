"""Reading a scan: its voxels in HU and its geometry, or a refusal with a reason in words.

A scan that cannot be vouched for is refused. The length that the header states is held against the bytes that are
there, compressed streams are read to their end with their checksum, nothing is allocated before the sizes are known
to be possible, and the voxels come from the very bytes that were checked, never from a library's second reading.

Read are NIfTI (.nii, .nii.gz, pairs of .hdr and .img), MetaImage (.mha, .mhd with .raw or .zraw), NRRD (.nrrd, .nhdr
with its data file) and DICOM series of CT images. Arrays are (z, y, x) as stored; positions are mm (x, y, z) in LPS,
as ITK has them. The *place* of a scan is its file, or the files of a DICOM series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType

import numpy as np

from sg.formats import dicom, metaimage, nifti, nrrd
from sg.formats.files import CHUNK, Inflating, Refusal, Stream, check_file, unreadable
from sg.formats.headers import Geometry, Header, by
from sg.params import Limits

__all__ = [
    "READ",
    "Examined",
    "Geometry",
    "Header",
    "Place",
    "Refusal",
    "Scan",
    "digest",
    "examine",
    "files_of",
    "format_of",
    "read_header",
    "read_scan",
    "stem_of",
    "suffix_of",
]

Place = Path | Sequence[Path]

FORMATS: dict[str, ModuleType] = {"NIfTI": nifti, "MetaImage": metaimage, "NRRD": nrrd}
READ = "NIfTI (.nii, .nii.gz, .hdr with .img), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr) and DICOM"

# The most that a study may allow; for label maps, which are read without the study's limits
VOXELS_MAX = 2**33
AIR_HU = -500
DISTINCT_CHUNK = 1 << 16  # voxels among which a CT mostly has enough distinct values already


@dataclass(frozen=True)
class Scan:
    """A scan as read: voxels (z, y, x), int16 where all are whole numbers in its range, else float32."""

    array: np.ndarray
    geometry: Geometry
    modality: str  # CT


@dataclass(frozen=True)
class Examined:
    """What reading a scan tells without keeping its voxels."""

    geometry: Geometry
    modality: str
    low: float  # least value, HU
    high: float
    bytes: int  # that the voxels take as stored, decompressed


def suffix_of(path: Path) -> str:
    """The suffix of a format in files of its own, in lower case; empty for any other name, those of DICOM too."""
    name = path.name.lower()
    suffixes = (suffix for module in FORMATS.values() for suffix in module.SUFFIXES)
    return next((suffix for suffix in suffixes if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The file's name without the suffix of its format."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def format_of(place: Place) -> str:
    """The name of the format that a scan is read as: that of its suffix, else DICOM."""
    suffix = suffix_of(_files(place)[0])
    return next((name for name, module in FORMATS.items() if suffix in module.SUFFIXES), "DICOM")


def files_of(place: Place, root: Path) -> tuple[Path, ...]:
    """The files of a scan in the order in which they are hashed: those of a series, or a file and the data file it names.

    Refusal if one is missing, empty or lies outside `root`, or if the header cannot be read that far.
    """
    files = _files(place)
    for path in files:
        check_file(path, root)
    module = _module(files)
    if module is None:
        return files
    with _system_errors(files[0]):
        data = module.data_file(files[0])
    if data is None:
        return files
    check_file(data, root, files[0])
    return *files, data


def digest(files: Sequence[Path]) -> tuple[str, int]:
    """SHA-256 (hex) over the bytes of all files in order, and the number of bytes."""
    total, count = hashlib.sha256(), 0
    for path in files:
        with _system_errors(path), open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
                count += len(chunk)
    return total.hexdigest(), count


def read_header(place: Place, root: Path, limits: Limits | None) -> Header | dicom.Stack:
    """What the headers say, checked against themselves and the files' lengths; no voxel is read.

    Of the limits those count that are to be known before reading: spacing and the most voxels. The files must lie below
    `root`, links resolved. Raises Refusal.
    """
    with _opened(place, root, limits) as (header, _):
        return header


# Values that are no numbers are counted, so numpy need not warn of them
@np.errstate(invalid="ignore", over="ignore")
def read_scan(place: Place, root: Path, limits: Limits | None) -> Scan:
    """Read a scan in HU, or raise Refusal.

    The files must lie below `root`, links resolved. With limits, the scan must satisfy them and look like a CT;
    without (None) it may be anything with a geometry, such as a label map.
    """
    with _opened(place, root, limits) as (header, parts):
        seen, kept = _Seen(limits), _Kept(prod(header.geometry.size))
        for part in parts:
            seen.add(part)
            kept.add(part)
    _check_extent(header.geometry, limits)
    seen.check(limits)
    return Scan(kept.array.reshape(header.geometry.size[::-1]), header.geometry, header.modality)


@np.errstate(invalid="ignore", over="ignore")
def examine(place: Place, root: Path, limits: Limits | None) -> Examined:
    """Do all that `read_scan` does to a scan, but keep none of its voxels: in little memory, however large it is."""
    with _opened(place, root, limits) as (header, parts):
        seen = _Seen(limits)
        for part in parts:
            seen.add(part)
    _check_extent(header.geometry, limits)
    seen.check(limits)
    return Examined(header.geometry, header.modality, float(seen.low), float(seen.high), header.bytes)


# ------------------------------------------------------------------------------------------- opening


def _files(place: Place) -> tuple[Path, ...]:
    return (place,) if isinstance(place, Path) else tuple(place)


def _module(files: Sequence[Path]) -> ModuleType | None:
    """The format of a scan that lies in files of its own; None for the files of a DICOM series."""
    suffix = suffix_of(files[0]) if len(files) == 1 else ""
    return next((module for module in FORMATS.values() if suffix in module.SUFFIXES), None)


@contextmanager
def _opened(
    place: Place, root: Path, limits: Limits | None
) -> Iterator[tuple[Header | dicom.Stack, Iterator[np.ndarray]]]:
    """A scan's checked header, and its voxels in HU, part by part (n,), in the order of storage.

    A part is only good until the next one is asked for.
    """
    files = _files(place)
    for path in files:
        check_file(path, root)
    with _system_errors(files[0]):
        module = _module(files)
        if module is not None:
            header = module.read_header(files[0], root)
            _check_header(header, limits)
            with open(header.file, "rb", buffering=0) as file:
                stream = (Inflating if header.compressed else Stream)(file, header.file.name, header.start)
                stream.check_length(header.offset + header.bytes)
                stream.skip(header.offset)
                yield header, _streamed(header, stream)
        elif dicom.looks_like_dicom(files[0]):
            stack = dicom.read_stack(files)
            _check_header(stack, limits)
            yield stack, (plane.reshape(-1) for plane in dicom.planes(stack))
        else:
            raise Refusal("format", f"{files[0].name} is of no format that is read: {READ}.")


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses (permission, a failing disk) into a refusal of this file."""
    try:
        yield
    except OSError as error:
        raise unreadable(Path(error.filename) if error.filename else path, error) from None


def _check_header(header: Header | dicom.Stack, limits: Limits | None) -> None:
    """Refuse what must not be read: more voxels than anyone wants, or a spacing that says that they are wrong."""
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


def _check_extent(geometry: Geometry, limits: Limits | None) -> None:
    """Refuse a scan that is too small for a study; after reading it, because damage is the better reason."""
    if limits is None:
        return
    if geometry.slices < limits.slices_min:
        raise Refusal(
            "too-small", f"The scan has {geometry.slices} slices; at least {limits.slices_min} are needed."
        )
    extent = [n * value for n, value in zip(geometry.size, geometry.spacing_mm, strict=True)]
    if min(extent) < limits.extent_min_mm:
        raise Refusal(
            "too-small",
            f"The scan covers {by(extent)} mm; at least {limits.extent_min_mm:g} mm along every axis are needed.",
        )


# -------------------------------------------------------------------------------------------- voxels


def _streamed(header: Header, stream: Stream) -> Iterator[np.ndarray]:
    """The voxels of a stream that stands at the first of them, and at the end the check that nothing follows."""
    left = prod(header.geometry.size)
    buffer = np.empty(min(left, CHUNK), header.dtype)
    while left:
        part = buffer[: min(left, CHUNK)]
        stream.fill(memoryview(part.view(np.uint8)))
        left -= part.size
        yield _in_units(part, header.slope, header.intercept)
    stream.finish()


def _in_units(part: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values (n,) in their unit, in the byte order of this machine."""
    if not part.dtype.isnative:
        part = part.byteswap().view(part.dtype.newbyteorder("="))
    return part if (slope, intercept) == (1, 0) else part * np.float64(slope) + np.float64(intercept)


class _Seen:
    """What is known of voxels that went by, part by part."""

    def __init__(self, limits: Limits | None) -> None:
        self.low, self.high = np.inf, -np.inf
        self._size = self._unusable = self._air = 0
        self._enough = 0 if limits is None else limits.distinct_min
        self._distinct: np.ndarray | None = None

    def add(self, part: np.ndarray) -> None:
        """Take a part (n,) into account."""
        self._size += part.size
        if part.dtype.kind == "f":
            most = float(np.finfo(np.float32).max)
            self._unusable += int(np.count_nonzero(~(np.abs(part) <= most)))
            if self._unusable:
                return
        self.low, self.high = min(self.low, part.min()), max(self.high, part.max())
        self._air += int(np.count_nonzero(part < AIR_HU))
        for start in range(0, part.size, DISTINCT_CHUNK):
            if self._distinct is not None and self._distinct.size > self._enough:
                break
            values = np.unique(part[start : start + DISTINCT_CHUNK])
            self._distinct = values if self._distinct is None else np.union1d(self._distinct, values)

    def check(self, limits: Limits | None) -> None:
        """Refuse voxels that are no numbers and, with limits, that cannot be those of a CT of a chest in HU.

        Values far below air (-2048, -3024) are the usual filling outside a scanner's circle, and pass.
        """
        if self._unusable:
            raise Refusal(
                "not-finite",
                f"{self._unusable:,} of {self._size:,} voxels hold no number (NaN or infinite).",
            )
        if limits is None:
            return
        low, high = self.low, self.high
        span = f"the values run from {low:g} to {high:g}"
        if low == high:
            raise Refusal(
                "constant", f"All voxels have the same value, {low:g}; there is no picture in this file."
            )
        if low >= 0 and high <= 255:
            raise Refusal(
                "not-ct", f"This is a picture in grey values, not a CT in Hounsfield units: {span}."
            )
        if low >= 0 and high > 1000:
            raise Refusal(
                "not-ct",
                f"This is not a CT in Hounsfield units: {span}, none is negative; perhaps the offset of -1024 was lost.",
            )
        air = self._air / self._size
        if high <= 0 or air < limits.air_share_min:
            raise Refusal(
                "not-ct",
                f"This does not look like a CT of a chest in Hounsfield units: {span}, {100 * air:.1f} % of the voxels are "
                f"air (under {AIR_HU} HU); at least {100 * limits.air_share_min:g} % are expected, and some over 0.",
            )
        if self._distinct.size <= limits.distinct_min:
            raise Refusal(
                "not-ct",
                f"The scan has only {self._distinct.size} different values, a CT more than {limits.distinct_min}; it was "
                "coarsened.",
            )


class _Kept:
    """Voxels gathered part by part: int16 as long as all are whole numbers in its range, else float32."""

    def __init__(self, size: int) -> None:
        self.array = np.empty(size, np.int16)
        self._done = 0

    def add(self, part: np.ndarray) -> None:
        """Append a part (n,)."""
        if self.array.dtype == np.int16 and not _fits_int16(part):
            wider = np.empty(self.array.shape, np.float32)
            wider[: self._done] = self.array[: self._done]
            self.array = wider
        self.array[self._done : self._done + part.size] = part
        self._done += part.size


def _fits_int16(part: np.ndarray) -> bool:
    if part.dtype == np.int16:
        return True
    whole = part.dtype.kind != "f" or bool((part == np.rint(part)).all())
    return whole and bool(part.min() >= -(2**15) and part.max() < 2**15)
