"""Headers of NIfTI-1 and NIfTI-2 files in one piece (.nii, .nii.gz).

Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group. NIfTI's world is RAS; here it is LPS.
"""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from sg.formats.files import Inflating, Refusal, Stream
from sg.formats.headers import Geometry, Header, by, check_spacing, grid

SUFFIXES = (".nii.gz", ".nii")
TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
EXTENSIONS_MAX = 1 << 26  # bytes between the header and the voxels
SPACING_TOLERANCE = 1e-3  # relative, between the spacing and what the matrix says
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0, 1.0])

NiftiHeader = nib.Nifti1Header | nib.Nifti2Header


def read_header(path: Path, stream: Stream) -> Header:
    """The header at the beginning of the stream, which then stands behind it. Raises Refusal."""
    header, order, length = _raw_header(stream)
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and length + 4 <= offset <= length + EXTENSIONS_MAX):
        raise Refusal("header", f"The header says that the voxels begin at byte {offset:g}, which cannot be.")
    dtype = _dtype(header, order)
    slope, intercept = _scaling(header)
    geometry = _geometry(header, _size(header))
    compressed = isinstance(stream, Inflating)
    return Header(geometry, "CT", path, 0, int(offset), compressed, dtype, slope, intercept)


def _raw_header(stream: Stream) -> tuple[NiftiHeader, str, int]:
    """nibabel's view of the header, unchecked; its byte order and its length."""
    first = stream.take(4)
    lengths = {order: struct.unpack(f"{order}i", first)[0] for order in "<>"}
    order = next((order for order, length in lengths.items() if length in (348, 540)), None)
    if order is None:
        raise Refusal("format", "The file is named as NIfTI but does not begin as one.")
    kind = nib.Nifti1Header if lengths[order] == 348 else nib.Nifti2Header
    header = kind(first + stream.take(lengths[order] - 4), endianness=order, check=False)
    if header["magic"].tobytes().rstrip(b"\0") != kind.single_magic.rstrip(b"\0"):
        raise Refusal(
            "format",
            "This is not a NIfTI file in one piece (.nii, .nii.gz); pairs of .hdr and .img are not read.",
        )
    return header, order, lengths[order]


def _dtype(header: NiftiHeader, order: str) -> np.dtype:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in TYPES:
        raise Refusal(
            "format", f"The voxels are not plain numbers (NIfTI type {code}: colours, complex or unknown)."
        )
    dtype = np.dtype(TYPES[code]).newbyteorder(order)
    if bits != 8 * dtype.itemsize:
        raise Refusal(
            "header", f"The header contradicts itself: type {code} has {8 * dtype.itemsize} bits, not {bits}."
        )
    return dtype


def _scaling(header: NiftiHeader) -> tuple[float, float]:
    """Slope and intercept. NIfTI has 0 for no scaling; nibabel and others write NaN for it."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise Refusal(
            "header", f"The header scales the values by {slope:g} and {intercept:g}, which are no numbers."
        )
    return slope, intercept


def _size(header: NiftiHeader) -> tuple[int, ...]:
    axes, *sizes = (int(n) for n in header["dim"])
    if not 3 <= axes <= 7:
        raise Refusal("header", f"The header gives the scan {axes} axes; it must have 3.")
    if min(sizes[:axes]) < 1:
        raise Refusal("header", f"The header gives a size of {by(sizes[:axes])} voxels, which cannot be.")
    if max(sizes[3:axes], default=1) > 1:
        raise Refusal(
            "format", f"The file holds several volumes ({by(sizes[:axes])} voxels), not one scan; split it."
        )
    return tuple(sizes[:3])


def _geometry(header: NiftiHeader, size: tuple[int, ...]) -> Geometry:
    """The grid of the sform, else of the qform; if the file has both they must agree."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in (0, 2):
        name = {1: "metres", 3: "micrometres"}.get(unit, f"the unknown unit {unit}")
        raise Refusal("spacing", f"The voxel spacing is given in {name}; it must be in millimetres.")
    pixdim = [float(value) for value in header["pixdim"][1:4]]
    check_spacing(pixdim)
    grids = [grid(size, affine) for affine in _affines(header)]
    if not grids:
        raise Refusal(
            "header",
            "The header does not say how the patient lies (its qform and sform codes are 0), so left and right cannot "
            "be told.",
        )
    if np.abs(np.divide(grids[0].spacing_mm, pixdim) - 1).max() > SPACING_TOLERANCE:
        raise Refusal(
            "header",
            f"The header contradicts itself: the voxel spacing is {by(pixdim)} mm in one place and "
            f"{by(grids[0].spacing_mm)} mm in its matrix.",
        )
    difference = grids[0].difference(grids[-1])
    if difference:
        raise Refusal(
            "header", f"The header gives two positions of the scan (sform and qform): {difference}."
        )
    return grids[0]


def _affines(header: NiftiHeader) -> list[np.ndarray]:
    """The matrices to LPS that the header declares valid, the sform first."""
    affines = []
    if int(header["sform_code"]) > 0:
        affines.append(header.get_sform())
    if int(header["qform_code"]) > 0:
        try:
            affines.append(header.get_qform())
        except (ValueError, nib.spatialimages.HeaderDataError):
            raise Refusal("header", "The header's rotation of the scan (qform) is not a rotation.") from None
    return [RAS_TO_LPS[:, None] * affine for affine in affines]
