"""Headers of NIfTI-1 and NIfTI-2: files in one piece (.nii, .nii.gz), and pairs of a header (.hdr) and voxels (.img).

Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group. NIfTI's world is RAS; here it is LPS. Contents,
not names, decide whether a file is compressed; a pair's files may be compressed one by one.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from sg.formats.files import CHUNK, GZIP, Inflating, Refusal, Stream, check_file
from sg.formats.headers import Geometry, Header, by, check_spacing, grid

PAIR_SUFFIXES = (".hdr.gz", ".hdr")
SUFFIXES = (".nii.gz", ".nii", *PAIR_SUFFIXES)
VOXEL_SUFFIXES = (".img", ".img.gz")
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
XFORM_CODE_MAX = 5  # NIFTI_XFORM_TEMPLATE_OTHER
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0, 1.0])

NiftiHeader = nib.Nifti1Header | nib.Nifti2Header


def read_header(path: Path, root: Path) -> Header:
    """The header, whose data file, if it is one of a pair, is there and inside the folder. Raises Refusal."""
    data = data_file(path)
    with open(path, "rb", buffering=0) as file:
        stream = (_CompressedHeader if _is_compressed(path) else Stream)(file, path.name)
        header, order, length = _raw_header(stream, paired=data is not None)
        if data is not None and isinstance(stream, _CompressedHeader):
            stream.read_out()
    dtype = _dtype(header, order)
    slope, intercept = _scaling(header)
    geometry = _geometry(header, _size(header))
    offset, least = float(header["vox_offset"]), 0 if data else length + 4
    if not (offset.is_integer() and least <= offset <= length + EXTENSIONS_MAX):
        raise Refusal("header", f"The header says that the voxels begin at byte {offset:g}, which cannot be.")
    if data is not None:
        check_file(data, root, path)
    voxels = data or path
    return Header(geometry, "CT", voxels, 0, int(offset), _is_compressed(voxels), dtype, slope, intercept)


def data_file(path: Path) -> Path | None:
    """The file of the voxels that belongs to the header of a pair; None for a file in one piece. Raises Refusal."""
    suffix = next((suffix for suffix in PAIR_SUFFIXES if path.name.lower().endswith(suffix)), "")
    if not suffix:
        return None
    stem, upper = path.name[: -len(suffix)], path.name[-len(suffix) :].isupper()
    names = [stem + (voxels.upper() if upper else voxels) for voxels in VOXEL_SUFFIXES]
    there = [path.with_name(name) for name in names if os.path.lexists(path.with_name(name))]
    if len(there) > 1:
        raise Refusal(
            "header", f"Two files could hold the voxels, {' and '.join(names)}; take away the wrong one."
        )
    return there[0] if there else path.with_name(names[0])


def _is_compressed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP


class _CompressedHeader(Inflating):
    def read_out(self) -> None:
        """Read on through the extensions to the end of the stream, where its checksum is."""
        while piece := self._next(CHUNK):
            self.position += len(piece)
            if self.position > EXTENSIONS_MAX:
                raise Refusal("surplus", f"The header {self._name} holds more than {EXTENSIONS_MAX:,} bytes.")


def _raw_header(stream: Stream, paired: bool) -> tuple[NiftiHeader, str, int]:
    """nibabel's view of the header, unchecked; its byte order and its length."""
    first = stream.take(4)
    lengths = {order: struct.unpack(f"{order}i", first)[0] for order in "<>"}
    order = next((order for order, length in lengths.items() if length in (348, 540)), None)
    if order is None:
        raise Refusal("format", "The file is named as NIfTI but does not begin as one.")
    kind = nib.Nifti1Header if lengths[order] == 348 else nib.Nifti2Header
    header = kind(first + stream.take(lengths[order] - 4), endianness=order, check=False)
    magic = header["magic"].tobytes().rstrip(b"\0")
    if magic not in (kind.pair_magic.rstrip(b"\0"), kind.single_magic.rstrip(b"\0")):
        raise Refusal(
            "format",
            "The header has no mark of NIfTI, as those of Analyze 7.5, which do not say how the patient lies; write the "
            "scan anew as NIfTI from its source.",
        )
    if (magic == kind.pair_magic.rstrip(b"\0")) != paired:
        raise Refusal(
            "format",
            "The header says that its voxels follow it in the same file; name the file .nii."
            if paired
            else "The header says that its voxels are in another file; only pairs of .hdr and .img are read so.",
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
    for code in ("sform_code", "qform_code"):
        if not 0 <= int(header[code]) <= XFORM_CODE_MAX:
            raise Refusal("header", f"The header gives {code} as {int(header[code])}, which cannot be.")
    if int(header["sform_code"]) > 0:
        _check_finite(header, "srow_x", "srow_y", "srow_z")
        affines.append(header.get_sform())
    if int(header["qform_code"]) > 0:
        _check_finite(header, "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
        try:
            if header["pixdim"][0] == 0:  # the standard has it taken as 1
                header = header.copy()
                header["pixdim"][0] = 1
            affines.append(header.get_qform())
        except (ValueError, nib.spatialimages.HeaderDataError):
            raise Refusal("header", "The header's rotation of the scan (qform) is not a rotation.") from None
    return [RAS_TO_LPS[:, None] * affine for affine in affines]


def _check_finite(header: NiftiHeader, *fields: str) -> None:
    if not all(np.isfinite(header[field]).all() for field in fields):
        raise Refusal("header", "The header's position of the patient holds values that are not numbers.")
