"""Headers of NRRD files: .nrrd with the voxels behind them, .nhdr with a data file.

Source: "Definition of NRRD File Format" of Teem (NRRD0001 to NRRD0005); what SimpleITK makes of a field is what the
tests hold this against. `space origin` is the centre of the first voxel and `space directions` lead from centre to
centre, whatever `centerings` says. Read are the spaces that say how the patient lies; here it is LPS.
"""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np

from sg.formats.files import AGAIN, Refusal, check_file
from sg.formats.headers import Geometry, Header, by, grid
from sg.formats.text import HEADER_MAX, check_text, named_file, numbers

SUFFIXES = (".nrrd", ".nhdr")
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip
# What each axis of the world must be multiplied by to lead to the left, to the back and to the head
SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
COMPRESSED = {"raw": False, "gz": True, "gzip": True}
FIELDS = (
    "axis maxs", "axis mins", "block size", "byte skip", "centerings", "centers", "content", "data file", "dimension",
    "encoding", "endian", "kinds", "labels", "line skip", "max", "measurement frame", "min", "number", "old max",
    "old min", "sample units", "sizes", "space", "space dimension", "space directions", "space origin", "space units",
    "spacings", "thicknesses", "type", "units",
)  # fmt: skip
NAMES = {name.replace(" ", ""): name for name in FIELDS} | {"centers": "centerings"}  # as some write them
SPATIAL_KINDS = ("domain", "space", "none", "???")
MODALITIES = ("modality", "0008|0060")  # keys under which Slicer and ITK keep it
SPACING_TOLERANCE = 1e-3  # relative, between the spacing and what the directions say

Fields = dict[str, str]


def read_header(path: Path, root: Path) -> Header:
    """The header, whose data file is there and inside the folder. Raises Refusal."""
    fields, keys, end = _fields(path)
    dtype, compressed = _dtype(fields), _compressed(fields)
    geometry = _geometry(fields)
    _check_values(fields, keys)
    data = _data_file(path, fields)
    file, end = (path, end) if data is None else (data, 0)
    check_file(file, root, path)
    start, offset = _first_voxel(fields, file, end, compressed, prod(geometry.size) * dtype.itemsize)
    return Header(geometry, "CT", file, start, offset, compressed, dtype, 1.0, 0.0)


def data_file(path: Path) -> Path | None:
    """The file that a header says its voxels are in; None where they follow it. Raises Refusal."""
    fields, _, _ = _fields(path)
    return _data_file(path, fields)


def _fields(path: Path) -> tuple[Fields, Fields, int]:
    """The fields of a header by their names without spaces, its keys, and the number of bytes that it takes.

    A header that names a data file may end without an empty line.
    """
    with open(path, "rb") as file:
        text = file.read(HEADER_MAX)
    if not re.match(rb"NRRD000[1-5][ \t]*(\r?\n|\Z)", text):
        raise Refusal("format", "The file is named as NRRD but does not begin as one (NRRD0001 to NRRD0005).")
    last = re.search(rb"\n\r?\n", text)
    end = last.end() if last else len(text)
    check_text(text[:end])
    fields: Fields = {}
    keys: Fields = {}
    for line in text[:end].decode("latin-1").split("\n")[1:]:
        if line.strip() and not line.startswith("#"):
            _add(line, fields, keys)
    if last is None and "data file" not in fields:
        raise Refusal("truncated", f"The header ends before the empty line that the voxels follow; {AGAIN}.")
    if "data file" in fields and text[end:].strip():
        raise Refusal("surplus", "The header names a data file, but something follows in its own file too.")
    return fields, keys, end


def _add(line: str, fields: Fields, keys: Fields) -> None:
    """Add what a line says: `field: value` or `key:=value`."""
    name, _, value = line.partition(":")
    field = NAMES.get(name.strip().lower().replace(" ", ""))
    if field and not value.startswith("="):
        if field in fields:
            raise Refusal("header", f"The header gives {field} twice.")
        fields[field] = value.strip()
        return
    name, assigned, value = line.partition(":=")
    if not assigned:
        raise Refusal(
            "header", f"The header has a line that is not a field or a key of NRRD: {line.strip()[:60]!r}."
        )
    keys[name.strip()] = value.strip()


def _dtype(fields: Fields) -> np.dtype:
    kind = " ".join(_field(fields, "type").lower().split())
    code = next((code for code, names in TYPES.items() if kind in names), None)
    if code is None:
        raise Refusal(
            "format", f"The voxels are of a kind that is not read ({kind[:40]}); write them as short."
        )
    dtype = np.dtype(code)
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big") and (dtype.itemsize > 1 or endian):
        raise Refusal("header", f"The header must give endian as little or big, it says {endian[:40]!r}.")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _compressed(fields: Fields) -> bool:
    encoding = _field(fields, "encoding").lower()
    if encoding not in COMPRESSED:
        raise Refusal(
            "format",
            f"The voxels are written in an encoding that is not read ({encoding[:40]}); use gzip or raw.",
        )
    return COMPRESSED[encoding]


def _check_values(fields: Fields, keys: Fields) -> None:
    """Refuse values that are not CT numbers as they stand."""
    for key in ("old min", "old max"):
        if fields.get(key, "nan").lower() != "nan":
            raise Refusal(
                "header",
                f"The values were scaled when the file was written (old min and old max in its header: "
                f"{fields[key][:40]}), which most readers pass over.",
            )
    for key in MODALITIES:
        if keys.get(key, "CT").upper() != "CT":
            raise Refusal("not-ct", f"The header says that this is not a CT ({keys[key][:40]}).")


def _geometry(fields: Fields) -> Geometry:
    axes, sizes = _axes(fields)
    signs = _world(fields)
    vectors = _vectors(fields, "space directions", len(sizes))
    spatial = [axis for axis in range(axes) if vectors[axis] is not None]
    if len(spatial) != 3:
        raise Refusal(
            "header",
            f"The header gives the direction of {len(spatial)} axes in the patient (space directions); a scan has 3.",
        )
    if any(sizes[axis] != 1 for axis in range(axes) if axis not in spatial):
        raise Refusal(
            "format",
            f"The file holds several volumes or channels ({by(sizes)} voxels), not one scan; split it.",
        )
    kinds = _per_axis(fields, "kinds", axes, r"\S+")
    for axis in spatial:
        if kinds and kinds[axis].lower() not in SPATIAL_KINDS:
            raise Refusal(
                "format", f"An axis of the scan is not one of space but of kind {kinds[axis][:40]}."
            )
    (origin,) = _vectors(fields, "space origin", 1)
    if origin is None:
        raise Refusal("header", "The header gives no position in the patient (space origin: none).")
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([vectors[axis] for axis in spatial]) * np.reshape(signs, (3, 1))
    affine[:3, 3] = np.multiply(origin, signs)
    geometry = grid([sizes[axis] for axis in spatial], affine)
    _check_repeated(fields, axes, spatial, geometry)
    return geometry


def _axes(fields: Fields) -> tuple[int, list[int]]:
    """The number of axes, and the voxels along each."""
    dimension = _field(fields, "dimension")
    if dimension not in ("3", "4"):
        raise Refusal("format", f"The header gives {dimension[:20]} axes; a scan has 3.")
    words = _field(fields, "sizes").split()
    if len(words) != int(dimension) or not all(re.fullmatch("[0-9]{1,18}", word) for word in words):
        raise Refusal(
            "header", f"The header must give sizes as {dimension} numbers, it says {fields['sizes'][:60]!r}."
        )
    sizes = [int(word) for word in words]
    if min(sizes) < 1:
        raise Refusal("header", f"The header gives a size of {by(sizes)} voxels, which cannot be.")
    if fields.get("number", str(prod(sizes))) != str(prod(sizes)):
        raise Refusal(
            "header",
            f"The header contradicts itself: {fields['number'][:40]} voxels in all, but {by(sizes)}.",
        )
    return int(dimension), sizes


def _world(fields: Fields) -> tuple[int, int, int]:
    """The signs that turn the header's world into LPS."""
    space = fields.get("space", "").lower()
    if space not in SPACES or "space directions" not in fields:
        said = f"its space is {space[:40]!r}" if space not in SPACES else "it has no space directions"
        raise Refusal(
            "header",
            f"The header does not say how the patient lies ({said}), so left and right cannot be told.",
        )
    if fields.get("space dimension", "3") != "3":
        raise Refusal("header", f"The header contradicts itself: {space} has 3 dimensions.")
    units = _per_axis(fields, "space units", 3, r'"[^"]*"')
    if any(unit.strip('" ').lower() != "mm" for unit in units):
        raise Refusal(
            "spacing", f"The voxel spacing is given in {' '.join(units)[:40]}; it must be in millimetres."
        )
    return SPACES[space]


def _check_repeated(fields: Fields, axes: int, spatial: list[int], geometry: Geometry) -> None:
    """Hold what else the header says of the axes against the space directions."""
    spacings = _per_axis(fields, "spacings", axes, r"\S+")
    for axis, spacing in zip(spatial, geometry.spacing_mm, strict=True):
        if not spacings or spacings[axis].lower() == "nan":
            continue
        said = numbers([spacings[axis]])
        if not said or abs(said[0] / spacing - 1) > SPACING_TOLERANCE:
            raise Refusal(
                "header",
                f"The header contradicts itself: the voxel spacing is {spacings[axis][:40]} in one place and "
                f"{spacing:g} mm in its space directions.",
            )
    for key in ("axis mins", "axis maxs"):
        limits = _per_axis(fields, key, axes, r"\S+")
        if any(limits[axis].lower() != "nan" for axis in spatial if limits):
            raise Refusal(
                "header",
                "The header gives two positions of the scan (axis mins or maxs, and space directions).",
            )
    units = _per_axis(fields, "units", axes, r'"[^"]*"')
    for axis in spatial:
        if units and units[axis].strip('" ').lower() not in ("mm", "", "???"):
            raise Refusal(
                "spacing", f"The voxel spacing is given in {units[axis][:40]}; it must be in millimetres."
            )


def _vectors(fields: Fields, key: str, count: int) -> list[list[float] | None]:
    """`count` vectors (x, y, z), or None for each that is `none`."""
    words = _per_axis(fields, key, count, r"none|\([^()]*\)")
    vectors = [
        None if word == "none" else numbers(re.split(r"\s*,\s*", word[1:-1].strip())) for word in words
    ]
    if not vectors or any(vector is not None and len(vector) != 3 for vector in vectors):
        said = fields.get(key)
        raise Refusal(
            "header",
            f"The header must give {key} as {count} of (x,y,z), it "
            f"{'does not' if said is None else f'says {said[:60]!r}'}.",
        )
    return vectors


def _per_axis(fields: Fields, key: str, count: int, pattern: str) -> list[str]:
    """The values of a field that has one for each of `count` axes; an empty list where the field is missing."""
    if key not in fields:
        return []
    words = re.findall(pattern, fields[key])
    if len(words) != count or re.sub(pattern, "", fields[key]).strip():
        raise Refusal(
            "header",
            f"The header must give {key} as {count} values, it says {fields[key][:60]!r}.",
        )
    return words


def _data_file(path: Path, fields: Fields) -> Path | None:
    name = fields.get("data file")
    if name is None:
        return None
    if not name or name.split()[0] == "LIST" or "%" in name:
        raise Refusal("format", "The voxels are spread over several files; write the scan into one.")
    return named_file(path, name)


def _first_voxel(fields: Fields, file: Path, start: int, compressed: bool, total: int) -> tuple[int, int]:
    """Where in the file the stream begins whose voxels take `total` bytes, and where in it the first voxel is.

    Lines are skipped in the file, bytes in what is decompressed; -1 bytes means that the voxels end with the file.
    """
    start = _behind_lines(file, start, _skipped(fields, "line skip"))
    skipped = _skipped(fields, "byte skip", least=0 if compressed else -1)
    if compressed:
        return start, skipped
    if skipped >= 0:
        return start + skipped, 0
    return max(start, file.stat().st_size - total), 0


def _skipped(fields: Fields, key: str, least: int = 0) -> int:
    text = fields.get(key, "0")
    if not re.fullmatch("-?[0-9]{1,18}", text) or int(text) < least:
        raise Refusal("header", f"The header says {key}: {text[:40]}, which cannot be.")
    return int(text)


def _behind_lines(file: Path, start: int, lines: int) -> int:
    """Where the bytes behind this many lines begin."""
    with open(file, "rb") as content:
        content.seek(start)
        for _ in range(lines):
            if not content.readline(HEADER_MAX).endswith(b"\n"):
                raise Refusal(
                    "truncated", f"The file {file.name} ends before the {lines} lines that are to be skipped."
                )
        return content.tell()


def _field(fields: Fields, key: str) -> str:
    if not fields.get(key):
        raise Refusal("header", f"The header does not give {key}.")
    return fields[key]
