"""How scans of every format are written, how their headers may lie, and where damage to them cannot be told."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from sg.scans import Place
from tests.dicom_files import write_multiframe, write_series
from tests.scan_files import SPACING_MM, write_itk, write_nifti, write_pair

SHAPE = (6, 16, 12)  # z, y, x
NX, NY, NZ = SHAPE[::-1]
GZIP = b"\x1f\x8b"

# Header fields that nothing else in the file repeats, and so nobody can find changed
UNTOLD = {
    "NIfTI": {
        "dim": "sizes of the same product take the same number of bytes",
        "datatype": "another type of the same width takes the same number of bytes",
        "scl_slope": "stands alone",
        "scl_inter": "stands alone",
        "sform_code": "where it is 0 the qform stands alone",
        "qform_code": "where it is 0 the sform stands alone",
        "srow_x": "the qform repeats it, but to a tenth of a voxel, as either may be rounded",
        "srow_y": "the qform repeats it, but to a tenth of a voxel, as either may be rounded",
        "srow_z": "the qform repeats it, but to a tenth of a voxel, as either may be rounded",
    },
    "MetaImage": {
        "DimSize": "sizes of the same product take the same number of bytes",
        "ElementType": "another type of the same width takes the same number of bytes",
        "ElementSpacing": "stands alone",
        "Offset": "stands alone",
        "TransformMatrix": "stands alone, but must be a rotation, mirrored or not",
    },
    "NRRD": {
        "sizes": "sizes of the same product take the same number of bytes",
        "type": "another type of the same width takes the same number of bytes",
        "space": "stands alone, but must be one of three",
        "space directions": "stand alone, but must be at right angles",
        "space origin": "stands alone",
    },
    "DICOM series": {
        "RescaleSlope": "may differ from slice to slice",
        "RescaleIntercept": "may differ from slice to slice",
        "PixelRepresentation": "stands alone: a slice of its own may have negative numbers",
        "ImagePositionPatient": "to a tenth of the slices' distance, as scanners round",
        "ImageOrientationPatient": "to 1e-4, as scanners round",
        "PixelSpacing": "to 1e-4 of itself, as scanners round",
    },
    "DICOM multi-frame": {
        "Rows": "sizes of the same product take the same number of bytes",
        "Columns": "sizes of the same product take the same number of bytes",
        "RescaleSlope": "stands alone",
        "RescaleIntercept": "stands alone",
        "PixelRepresentation": "stands alone",
        "PixelSpacing": "stands alone",
        "ImageOrientationPatient": "stands alone, but must be at right angles",
        "ImagePositionPatient": "to a tenth of the slices' distance, as scanners round",
    },
}

# How far the numbers of some of them may be off and pass for rounded, in their own units
ROUNDED = {
    "DICOM series": {
        "ImagePositionPatient": 0.11 * SPACING_MM[2],
        "ImageOrientationPatient": 2e-4,
        "PixelSpacing": 1e-3,
    },
    "DICOM multi-frame": {"ImagePositionPatient": 0.11 * SPACING_MM[2]},
}

Change = Callable[[bytes], bytes]
# path, whole content, damaged content, whether the grid is the same to a tenth of a voxel -> what was damaged, but with
# all untold places as they were
PutBack = Callable[[Path, bytes, bytes, bool], bytes]


@dataclass(frozen=True)
class Format:
    """How a scan is written, and where its files can be damaged unseen."""

    name: str
    family: str  # of UNTOLD
    write: Callable[[Path, np.ndarray], Place]
    header: Callable[[Path, bytes], int]  # how many of a file's first bytes are header
    put_back: PutBack
    lies: dict[str, Change]  # of a file that has a header
    data: str = ""  # suffix of the file that holds only voxels, where there is one

    @property
    def in_many_files(self) -> bool:
        return self.family == "DICOM series"


def _ranges_back(whole: bytes, damaged: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    """The damaged bytes with those of some places as they were; other lengths cannot be compared."""
    if len(whole) != len(damaged):
        return damaged
    restored = bytearray(damaged)
    for start, stop in ranges:
        restored[start:stop] = whole[start:stop]
    return bytes(restored)


def _nifti_ranges(rounded: bool) -> list[tuple[int, int]]:
    fields = nib.Nifti1Header().template_dtype.fields
    names = [name for name in UNTOLD["NIfTI"] if rounded or not name.startswith("srow")]
    return [(fields[name][1], fields[name][1] + fields[name][0].itemsize) for name in names]


def _nifti_back(path: Path, whole: bytes, damaged: bytes, rounded: bool) -> bytes:
    """The header's untold fields, and voxels that no checksum guards."""
    if whole[:2] == GZIP:
        try:
            inside = gzip.decompress(damaged)
        except (OSError, EOFError, zlib.error):
            return damaged
        return gzip.compress(_ranges_back(gzip.decompress(whole), inside, _nifti_ranges(rounded)), mtime=0)
    if path.suffix == ".img":
        return _ranges_back(whole, damaged, [(0, len(whole))])
    return _ranges_back(whole, damaged, [*_nifti_ranges(rounded), (352, len(whole))])


def _nifti_lie(**fields: object) -> Change:
    def change(content: bytes) -> bytes:
        compressed = content[:2] == GZIP
        inside = gzip.decompress(content) if compressed else content
        header = nib.Nifti1Header(inside[:348], check=False)
        for key, value in fields.items():
            header[key] = value
        inside = header.binaryblock + inside[348:]
        return gzip.compress(inside, mtime=0) if compressed else inside

    return change


NIFTI_LIES = {
    "a slice more": _nifti_lie(dim=[3, NX, NY, NZ + 1, 1, 1, 1, 1]),
    "a slice less": _nifti_lie(dim=[3, NX, NY, NZ - 1, 1, 1, 1, 1]),
    "other sizes of the same product": _nifti_lie(dim=[3, NY, NX, NZ, 1, 1, 1, 1]),
    "two volumes": _nifti_lie(dim=[4, NX, NY, NZ // 2, 2, 1, 1, 1]),
    "millions of slices": _nifti_lie(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    "another spacing": _nifti_lie(pixdim=[1, 3, 3, 5, 1, 1, 1, 1]),
    "another type": _nifti_lie(datatype=8, bitpix=32),
    "type against width": _nifti_lie(datatype=2),
    "voxels further on": _nifti_lie(vox_offset=368),
    "another origin": _nifti_lie(srow_x=[-4, 0, 0, 45]),
}


def _line(key: str) -> re.Pattern[bytes]:
    return re.compile(rb"^%b[ \t]*[=:][^\n]*" % key.encode(), re.MULTILINE)


def _text_back(family: str, end: Callable[[bytes], int], guarded: bool) -> PutBack:
    """Put back the lines of the untold fields, and voxels that no checksum guards."""

    def put_back(path: Path, whole: bytes, damaged: bytes, rounded: bool) -> bytes:
        start, damaged_start = end(whole), end(damaged)
        head, body = damaged[:damaged_start], damaged[damaged_start:]
        for key in UNTOLD[family]:
            line = _line(key).search(whole[:start])
            if line:
                head = _line(key).sub(lambda _, line=line: line.group(), head, count=1)
        if not guarded:
            body = _ranges_back(whole[start:], body, [(0, len(whole) - start)])
        return head + body

    return put_back


def _metaimage_end(content: bytes) -> int:
    """Where the header ends; 0 for a data file."""
    found = re.search(rb"^ElementDataFile[ \t]*[=:][^\n]*(\n|\Z)", content, re.MULTILINE)
    return found.end() if found else 0


def _nrrd_end(content: bytes) -> int:
    if not content.startswith(b"NRRD"):
        return 0
    found = content.find(b"\n\n")
    return len(content) if found < 0 else found + 2


def _text_lie(end: Callable[[bytes], int], **fields: str) -> Change:
    def change(content: bytes) -> bytes:
        head = content[: end(content)]
        for key, value in fields.items():
            key = key.replace("_", " ")
            line = _line(key).search(head)
            separator = line.group()[len(key) :][: 3 if b" = " in line.group() else 2]
            head = head.replace(line.group(), key.encode() + separator + value.encode())
        return head + content[end(content) :]

    return change


def _metaimage_lie(**fields: str) -> Change:
    return _text_lie(_metaimage_end, **fields)


def _nrrd_lie(**fields: str) -> Change:
    return _text_lie(_nrrd_end, **fields)


METAIMAGE_LIES = {
    "a slice more": _metaimage_lie(DimSize=f"{NX} {NY} {NZ + 1}"),
    "a slice less": _metaimage_lie(DimSize=f"{NX} {NY} {NZ - 1}"),
    "other sizes of the same product": _metaimage_lie(DimSize=f"{NY} {NX} {NZ}"),
    "two volumes": _metaimage_lie(NDims="4", DimSize=f"{NX} {NY} {NZ // 2} 2"),
    "millions of slices": _metaimage_lie(DimSize="2000000 2000000 2000000"),
    "another spacing": _metaimage_lie(ElementSpacing="3 3 5"),
    "one spacing less": _metaimage_lie(ElementSpacing="3 3"),
    "another type": _metaimage_lie(ElementType="MET_INT"),
    "axes that are none": _metaimage_lie(TransformMatrix="1 0 0 0 2 0 0 0 1"),
    "slanted axes": _metaimage_lie(TransformMatrix="1 0 0 0 1 0 0 0.2 0.98"),
    "compression": _metaimage_lie(CompressedData="True"),
    "no compression": _metaimage_lie(CompressedData="False"),
}
NRRD_LIES = {
    "a slice more": _nrrd_lie(sizes=f"{NX} {NY} {NZ + 1}"),
    "a slice less": _nrrd_lie(sizes=f"{NX} {NY} {NZ - 1}"),
    "other sizes of the same product": _nrrd_lie(sizes=f"{NY} {NX} {NZ}"),
    "two volumes": _nrrd_lie(dimension="4", sizes=f"{NX} {NY} {NZ // 2} 2"),
    "millions of slices": _nrrd_lie(sizes="2000000 2000000 2000000"),
    "another spacing": _nrrd_lie(space_directions="(3,0,0) (0,3,0) (0,0,5)"),
    "one direction less": _nrrd_lie(space_directions="(3,0,0) (0,3,0) none"),
    "another type": _nrrd_lie(type="int"),
    "slanted axes": _nrrd_lie(space_directions="(4,0,0) (0,3,0) (0,1,5)"),
    "another space": _nrrd_lie(space="scanner-xyz"),
    "compression": _nrrd_lie(encoding="gzip"),
    "no compression": _nrrd_lie(encoding="raw"),
}


def _stored(path: Path, level: int = 0) -> Path:
    """Compress a gzip file anew in blocks without compression, as in a file that was compressed in haste."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=level, mtime=0))
    return path


def _nifti(name: str, write: Callable[[Path, np.ndarray], Place], data: str = "") -> Format:
    def header(path: Path, content: bytes) -> int:
        if path.suffix == ".gz":
            return 10  # gzip's own
        return 0 if path.suffix == ".img" else min(352, len(content))

    return Format(name, "NIfTI", write, header, _nifti_back, NIFTI_LIES, data)


def _text(name: str, family: str, file: str, compress: bool, data: str = "") -> Format:
    end = _metaimage_end if family == "MetaImage" else _nrrd_end

    def write(folder: Path, array: np.ndarray) -> Path:
        return write_itk(folder / file, array, compress)

    return Format(
        name, family, write, lambda _, content: end(content), _text_back(family, end, compress),
        METAIMAGE_LIES if family == "MetaImage" else NRRD_LIES, data,
    )  # fmt: skip


# Explicit little endian, as the tests write it: tag, two letters, and the length in two bytes
_ELEMENT = {
    keyword: re.compile(
        re.escape(struct.pack("<HH", *divmod(tag_for_keyword(keyword), 1 << 16))) + rb"[A-Z]{2}(..)",
        re.DOTALL,
    )
    for family in ("DICOM series", "DICOM multi-frame")
    for keyword in UNTOLD[family]
}
_PIXELS = re.compile(rb"\xe0\x7f\x10\x00O[BW]\0\0(....)", re.DOTALL)


def _dicom_header(path: Path, content: bytes) -> int:
    return _PIXELS.search(content).end()


def _dicom_body(content: bytes) -> list[tuple[int, int]]:
    """Where the pixels are: all of them, or what lies inside the pieces of compressed ones."""
    found = _PIXELS.search(content)
    if found.group(1) != b"\xff\xff\xff\xff":
        return [(found.end(), len(content))]
    ranges, at = [], found.end()
    while content[at : at + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        ranges.append((at + 8, at + 8 + length))
        at += 8 + length
    return ranges[1:]  # behind the table of offsets


def _dicom_back(family: str) -> PutBack:
    def put_back(path: Path, whole: bytes, damaged: bytes, rounded: bool) -> bytes:
        ranges = _dicom_body(whole)
        for keyword in UNTOLD[family]:
            for found in _ELEMENT[keyword].finditer(whole[: _dicom_header(path, whole)]):
                start, stop = found.end(), found.end() + int.from_bytes(found.group(1), "little")
                tolerance = ROUNDED[family].get(keyword, np.inf)
                if _near(whole[start:stop], damaged[start:stop], tolerance):
                    ranges.append((start, stop))
        return _ranges_back(whole, damaged, ranges)

    return put_back


def _near(whole: bytes, damaged: bytes, tolerance: float) -> bool:
    """Whether the numbers of a field are what they were but for what may be rounded."""
    if tolerance == np.inf:
        return True
    try:
        numbers = [np.array(content.decode("ascii").split("\\"), float) for content in (whole, damaged)]
    except ValueError:
        return False
    return len(numbers[0]) == len(numbers[1]) and np.linalg.norm(numbers[0] - numbers[1]) <= tolerance


def _dicom_lie(**fields: object) -> Change:
    def change(content: bytes) -> bytes:
        ds = dcmread(BytesIO(content))
        for key, value in fields.items():
            setattr(ds, key, value)
        lying = BytesIO()
        ds.save_as(lying)
        return lying.getvalue()

    return change


def _lie_of_spacing(content: bytes) -> bytes:
    ds = dcmread(BytesIO(content))
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [3, 3]
    lying = BytesIO()
    ds.save_as(lying)
    return lying.getvalue()


SERIES_LIES = {
    "a row more": _dicom_lie(Rows=NY + 1),
    "a column less": _dicom_lie(Columns=NX - 1),
    "other sizes of the same product": _dicom_lie(Rows=NX, Columns=NY),
    "millions of voxels": _dicom_lie(Rows=65535, Columns=65535),
    "two frames": _dicom_lie(NumberOfFrames=2),
    "another spacing": _dicom_lie(PixelSpacing=[3, 3]),
    "another orientation": _dicom_lie(ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
    "another place": _dicom_lie(ImagePositionPatient=[0, 0, 99]),
    "another series": _dicom_lie(SeriesInstanceUID="1.2.3"),
    "another patient": _dicom_lie(PatientID="P2"),
    "another modality": _dicom_lie(Modality="MR"),
    "bytes for words": _dicom_lie(BitsAllocated=8, BitsStored=8, HighBit=7),
    "colours": _dicom_lie(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
}
FRAME_LIES = {
    "a row more": _dicom_lie(Rows=NY + 1),
    "a column less": _dicom_lie(Columns=NX - 1),
    "other sizes of the same product": _dicom_lie(Rows=NX, Columns=NY),
    "millions of voxels": _dicom_lie(Rows=65535, Columns=65535),
    "a frame more": _dicom_lie(NumberOfFrames=NZ + 1),
    "a frame less": _dicom_lie(NumberOfFrames=NZ - 1),
    "another spacing": _lie_of_spacing,
    "another modality": _dicom_lie(Modality="MR"),
    "bytes for words": _dicom_lie(BitsAllocated=8, BitsStored=8, HighBit=7),
}


def _series(name: str, syntax: str) -> Format:
    def write(folder: Path, array: np.ndarray) -> tuple[Path, ...]:
        series = f"series {zlib.crc32(array.tobytes())}"
        return tuple(write_series(folder, array, series=series, transfer_syntax=syntax))

    back = _dicom_back("DICOM series")
    return Format(name, "DICOM series", write, _dicom_header, back, SERIES_LIES)


def _frames(name: str, syntax: str) -> Format:
    def write(folder: Path, array: np.ndarray) -> Path:
        return write_multiframe(folder / "a.dcm", array, transfer_syntax=syntax)

    back = _dicom_back("DICOM multi-frame")
    return Format(name, "DICOM multi-frame", write, _dicom_header, back, FRAME_LIES)


FORMATS = {
    format.name: format
    for format in (
        _nifti(".nii", lambda folder, array: write_nifti(folder / "a.nii", array)),
        _nifti(".nii float", lambda folder, array: write_nifti(folder / "a.nii", array.astype(np.float32))),
        _nifti(".nii.gz", lambda folder, array: write_nifti(folder / "a.nii.gz", array)),
        _nifti(".nii.gz stored", lambda folder, array: _stored(write_nifti(folder / "a.nii.gz", array))),
        _nifti(".hdr + .img", lambda folder, array: write_pair(folder / "a.hdr", array), ".img"),
        _nifti(".hdr.gz + .img.gz", lambda folder, array: write_pair(folder / "a.hdr.gz", array), ".img.gz"),
        _text(".mha", "MetaImage", "a.mha", False),
        _text(".mha zlib", "MetaImage", "a.mha", True),
        _text(".mhd + .raw", "MetaImage", "a.mhd", False, ".raw"),
        _text(".mhd + .zraw", "MetaImage", "a.mhd", True, ".zraw"),
        _text(".nrrd", "NRRD", "a.nrrd", False),
        _text(".nrrd gzip", "NRRD", "a.nrrd", True),
        _text(".nhdr + .raw", "NRRD", "a.nhdr", False, ".raw"),
        _text(".nhdr + .raw.gz", "NRRD", "a.nhdr", True, ".raw.gz"),
        _series("DICOM", ExplicitVRLittleEndian),
        _series("DICOM RLE", RLELossless),
        _series("DICOM JPEG", JPEGLosslessSV1),
        _series("DICOM JPEG-LS", JPEGLSLossless),
        _series("DICOM JPEG 2000", JPEG2000Lossless),
        _frames("DICOM frames", ExplicitVRLittleEndian),
        _frames("DICOM frames RLE", RLELossless),
    )
}
