"""Headers of MetaImage files: .mha with the voxels behind them, .mhd with a .raw or .zraw.

Source: the documentation of MetaIO; what SimpleITK makes of a field is what the tests hold this against. MetaImage's
world is LPS. `AnatomicalOrientation` repeats the matrix and `CenterOfRotation` moves nothing: readers use neither.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sg.formats.files import AGAIN, Refusal, check_file
from sg.formats.headers import Geometry, Header, by, check_spacing, grid
from sg.formats.text import HEADER_MAX, check_text, named_file, numbers

SUFFIXES = (".mha", ".mhd")
SKIPPED_MAX = 2.0**53  # bytes; beyond it a number of the header is no exact one
# MET_LONG and MET_ULONG are left out: their width depends on the machine that wrote them
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip

Fields = dict[str, str]


def read_header(path: Path, root: Path) -> Header:
    """The header, whose data file is there and inside the folder. Raises Refusal."""
    fields, end = _fields(path)
    dtype = _dtype(fields)
    geometry = _geometry(fields)
    compressed = _flag(fields, "CompressedData")
    data = _data_file(path, fields)
    file, start = (path, end) if data is None else (data, _skipped(fields, compressed))
    check_file(file, root, path)
    if compressed:
        _check_compressed_size(fields, file, start)
    return Header(geometry, "CT", file, start, 0, compressed, dtype, 1.0, 0.0)


def data_file(path: Path) -> Path | None:
    """The file that a header says its voxels are in; None where they follow it. Raises Refusal."""
    return _data_file(path, _fields(path)[0])


def _fields(path: Path) -> tuple[Fields, int]:
    """The fields of a header, and the number of bytes that it takes."""
    with open(path, "rb") as file:
        text = file.read(HEADER_MAX)
    if not re.search(rb"^[ \t]*(ObjectType|NDims|DimSize)[ \t]*[=:]", text, re.MULTILINE):
        raise Refusal("format", "The file is named as MetaImage but does not begin as one.")
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][^\n]*(\n|\Z)", text, re.MULTILINE)
    if last is None:
        raise Refusal("truncated", f"The header ends before it says where the voxels are; {AGAIN}.")
    check_text(text[: last.end()])
    fields: Fields = {}
    for line in text[: last.end()].decode("latin-1").split("\n"):
        if not line.strip():
            continue
        parts = re.split("[=:]", line, maxsplit=1)
        if len(parts) != 2:
            raise Refusal(
                "header", f"The header has a line that is not `name = value`: {line.strip()[:60]!r}."
            )
        key = parts[0].strip()
        if key in fields:
            raise Refusal("header", f"The header gives {key[:60]} twice.")
        fields[key] = parts[1].strip()
    return fields, last.end()


def _dtype(fields: Fields) -> np.dtype:
    kind = fields.get("ElementType", "")
    if kind not in TYPES or _numbers(fields, "ElementNumberOfChannels", 1, "1") != [1]:
        raise Refusal(
            "format", f"The voxels are of a kind that is not read ({kind[:40]}); write them as MET_SHORT."
        )
    if not _flag(fields, "BinaryData", "True"):
        raise Refusal("format", "The voxels are written as text; write them as binary data.")
    scaling = [*_numbers(fields, "ElementToIntensityFunctionSlope", 1, "1"),
               *_numbers(fields, "ElementToIntensityFunctionOffset", 1, "0")]  # fmt: skip
    if scaling != [1, 0]:
        raise Refusal(
            "header",
            f"The header scales the values by {scaling[0]:g} and {scaling[1]:g}, which most readers pass over.",
        )
    modality = fields.get("Modality", "MET_MOD_CT")
    if modality not in ("MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN"):
        raise Refusal("not-ct", f"The header says that this is not a CT ({modality[:40]}).")
    dtype = np.dtype(TYPES[kind])
    order = _only(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    if order not in fields and dtype.itemsize > 1:
        raise Refusal("header", f"The header does not give the order of the bytes of a voxel ({order}).")
    return dtype.newbyteorder(">" if _flag(fields, order) else "<")


def _geometry(fields: Fields) -> Geometry:
    (axes,) = _numbers(fields, "NDims", 1)
    if axes not in (3, 4):
        raise Refusal("format", f"The header gives {axes:g} axes; a scan has 3.")
    n = int(axes)
    sizes = _numbers(fields, "DimSize", n)
    if not all(1 <= size == int(size) for size in sizes):
        raise Refusal("header", f"The header gives a size of {by(sizes)} voxels, which cannot be.")
    if sizes[3:] not in ([], [1]):
        raise Refusal(
            "format", f"The file holds several volumes ({by(sizes)} voxels), not one scan; split it."
        )
    unit = fields.get("DistanceUnits", "mm")
    if unit not in ("mm", "?"):
        raise Refusal("spacing", f"The voxel spacing is given in {unit[:20]}; it must be in millimetres.")
    named = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    if named not in fields:
        raise Refusal("spacing", "The header does not give the voxel spacing (ElementSpacing).")
    spacing = np.array(_numbers(fields, named, n)[:3])
    check_spacing(spacing)
    axes_field = _only(fields, "TransformMatrix", "Rotation", "Orientation")
    origin_field = _only(fields, "Offset", "Position", "Origin")
    for field in (axes_field, origin_field):
        if field not in fields:
            raise Refusal(
                "header",
                f"The header does not say how the patient lies (it has no {field}), so left and right cannot be told.",
            )
    matrix = _numbers(fields, axes_field, n * n)
    affine = np.eye(4)
    # A row of the file is the direction of one axis, which is a column of the matrix
    affine[:3, :3] = np.reshape(matrix, (n, n))[:3, :3].T * spacing
    affine[:3, 3] = _numbers(fields, origin_field, n)[:3]
    geometry = grid([int(size) for size in sizes[:3]], affine)
    difference = np.abs(np.divide(geometry.spacing_mm, spacing) - 1).max()
    if difference > 1e-3:
        raise Refusal("header", f"The header's axes are not of length 1 (off by {difference:.2g}).")
    return geometry


def _data_file(path: Path, fields: Fields) -> Path | None:
    name = fields["ElementDataFile"]
    if name.lower() == "local":
        return None
    if not name or name.split()[0] == "LIST" or "%" in name:
        raise Refusal("format", "The voxels are spread over several files; write the scan into one.")
    return named_file(path, name)


def _skipped(fields: Fields, compressed: bool) -> int:
    """Bytes at the beginning of a data file that are not voxels."""
    (skipped,) = _numbers(fields, "HeaderSize", 1, "0")
    if not 0 <= skipped <= SKIPPED_MAX or skipped != int(skipped) or (skipped and compressed):
        raise Refusal(
            "header", f"The header says HeaderSize = {skipped:g}, so the file's length cannot be checked."
        )
    return int(skipped)


def _check_compressed_size(fields: Fields, file: Path, start: int) -> None:
    if "CompressedDataSize" not in fields:
        return
    (claimed,) = _numbers(fields, "CompressedDataSize", 1)
    there = file.stat().st_size - start
    if claimed != there:
        raise Refusal(
            "truncated" if there < claimed else "surplus",
            f"The header says that {file.name} holds {claimed:,.0f} compressed bytes, there are {there:,}; {AGAIN}.",
        )


def _only(fields: Fields, *synonyms: str) -> str:
    """The one of several names of a field that the header uses; it must not use two with different values."""
    used = [name for name in synonyms if name in fields]
    if len({fields[name] for name in used}) > 1:
        raise Refusal(
            "header", f"The header contradicts itself: {' and '.join(used)} mean the same and differ."
        )
    return used[0] if used else synonyms[0]


def _numbers(fields: Fields, key: str, count: int, default: str | None = None) -> list[float]:
    text = fields.get(key, default)
    if text is None:
        raise Refusal("header", f"The header does not give {key}.")
    values = numbers(text.split())
    if len(values) != count:
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise Refusal("header", f"The header must give {key} as {wanted}, it says {text[:60]!r}.")
    return values


def _flag(fields: Fields, key: str, default: str = "False") -> bool:
    text = fields.get(key, default).lower()
    if text not in ("true", "t", "1", "false", "f", "0"):
        raise Refusal("header", f"The header must give {key} as True or False, it says {text[:60]!r}.")
    return text in ("true", "t", "1")
