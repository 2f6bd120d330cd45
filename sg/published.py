"""The patch arrays that the authors of Semantic Genesis and TransVW publish, as a cache of patches.

Their arrays (TransVW_data.zip, Zenodo record 4625321; made by pattern_generator_3D of Semantic Genesis) are, for each fold k
of 50 classes,

    train_data{1,2,3}_vwGen_ex_ref_fold{k}.0.npy    train_label{1,2,3}_vwGen_ex_ref_fold{k}.0.npy
    val_data1_vwGen_ex_ref_fold{k}.0.npy            val_label1_vwGen_ex_ref_fold{k}.0.npy

with patches float (n, x, y, z) of 64 x 64 x 32 voxels, HU from -1000 to 1000 scaled to [0, 1], and classes (n, 1) counted
through the folds. data1 are the fixed crops, data2 and data3 the jittered ones. By the code n is 50 * 200 - 1 (for
validation 50 * 30 - 1), because the last patch of each fold is lost; here n is what the file says. A class's patches follow
each other by the rank of their patient, the reference first.

The arrays do not tell scan, patient or position, nor the side of a jittered box; nor what x and y are beyond the authors'
order of axes: a cache's plane is theirs, transposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from sg import console
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.formats.files import Refusal, check_file
from sg.patches import ROW, CacheWriter, Zyx

HU_MIN, HU_MAX = -1000.0, 1000.0
# Linear resizing in floats leaves its range by rounding alone; this much is a five-hundredth of a HU
ROUNDING = 1e-6
BLOCK_BYTES = 8 * 2**20  # of an array that are looked at together
CLASSES_MAX = 100_000

_NAME = re.compile(r"(train|val)_(data|label)([1-9])_\w+_fold([0-9]+)(?:\.0)?\.npy")
# What NumPy raises for a file that is no array, and its readers of headers by version
_NO_ARRAY = (ValueError, OverflowError, TypeError, OSError, SyntaxError, TokenError)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SPLITS = {"train": b"train", "val": b"validation"}


@dataclass(frozen=True)
class Part:
    """One data array with its labels, vouched for but for the values of the patches."""

    data: Path
    split: bytes  # train or validation
    resolution: int  # 0 for the fixed crops
    size: Zyx  # of a patch
    labels: np.ndarray  # int32 (n,)


@dataclass(frozen=True)
class Imported:
    """What was written."""

    patches: int
    validation: int  # of these
    patterns: int
    size: Zyx
    ignored: int  # .npy files that are none of these arrays


def find_parts(folder: Path) -> tuple[list[Part], int]:
    """The arrays of a folder, in the order train before validation, then by fold and crop; and the .npy files passed over.

    InputError where labels are missing, an array is damaged or of another kind, two disagree, or a class or split has
    no patch.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: there is no such folder; name the one that holds the arrays")
    there = sorted(path for path in folder.iterdir() if path.name.endswith(".npy"))
    named: dict[tuple[str, ...], Path] = {}
    for path in there:
        match = _NAME.fullmatch(path.name)
        if match and (twin := named.setdefault(match.groups(), path)) != path:
            raise InputError(
                f"{shown(path)}: is the same array by its name as {twin.name}; take one of them away"
            )
    parts = []
    for kind, what, crop, fold in sorted(named, key=lambda key: (key[0], int(key[3]), key[2], key[1])):
        other = "label" if what == "data" else "data"
        path = named[kind, what, crop, fold]
        if (kind, other, crop, fold) not in named:
            raise InputError(
                f"{shown(path)}: its {'labels' if other == 'label' else other} must lie beside it, there is no "
                f"{path.name.replace(f'_{what}', f'_{other}', 1)}; copy both together"
            )
        if what == "data":
            labels = named[kind, other, crop, fold]
            parts.append(_part(path, labels, _SPLITS[kind], int(crop) - 1))
    _check_all(parts, folder)
    return parts, len(there) - len(named)


def write_published(folder: Path, path: Path) -> Imported:
    """Write the arrays of `folder` as one cache: patches int16 HU (z, y, x), uncompressed.

    Values become HU by v * 2000 - 1000, rounded. Rows have no scan or patient, corner -1, and extent -1 where the arrays
    do not tell it. The rank is the place in the class where the patches of each class follow each other (validation
    patients begin with 1), else -1. A block of some 8 MB is in memory at a time. InputError as `find_parts`, and for a
    value that is no number or not in [0, 1].
    """
    parts, ignored = find_parts(folder)
    rows = np.concatenate([_rows(part) for part in parts])
    size, patterns = parts[0].size, int(rows["pattern"].max()) + 1
    with CacheWriter(path, len(rows), size, "none") as writer:
        patches = (patch for part in parts for patch in _patches(part))
        for index, patch in console.track(enumerate(patches), "importing patches", len(rows), "patches"):
            writer.write(index, patch)
        writer.finish(rows, HU_MIN, HU_MAX, patterns)
    return Imported(len(rows), int((rows["split"] == b"validation").sum()), patterns, size, ignored)


def _part(data: Path, labels: Path, split: bytes, resolution: int) -> Part:
    patches, classes = _mapped(data), _mapped(labels)
    if patches.ndim != 4 or 0 in patches.shape or not _is_float(patches.dtype):
        raise InputError(
            f"{shown(data)}: patches must be float32 or float64 (n, x, y, z) with none of them 0, got {patches.dtype} "
            f"{patches.shape}"
        )
    n = len(patches)
    if classes.shape not in [(n, 1), (n,)]:
        raise InputError(
            f"{shown(labels)}: there must be one label for each of the {n} patches of {data.name}, (n, 1) or (n,), got "
            f"{classes.shape}; the two files are not of one run"
        )
    if not (_is_float(classes.dtype) or classes.dtype.kind in "iu"):
        raise InputError(f"{shown(labels)}: labels must be numbers, got {classes.dtype}")
    values = np.array(classes).reshape(n)
    bad = ~((values >= 0) & (values < CLASSES_MAX) & (values == np.floor(values)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{shown(labels)}: a label must be a whole number from 0 to {CLASSES_MAX - 1}, got {values[row]!s} in row {row}"
        )
    x, y, z = patches.shape[1:]
    return Part(data, split, resolution, (z, y, x), values.astype(np.int32))


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" and dtype.itemsize in (4, 8)


def _mapped(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped and not read. InputError unless the file is exactly as long as its header says."""
    try:
        check_file(path, path.parent)
        array = np.lib.format.open_memmap(path, mode="r")
    except Refusal as refusal:
        raise InputError(f"{shown(path)}: {refusal.reason}") from None
    except PermissionError:
        raise
    except _NO_ARRAY as error:
        needed = _accounted_for(path)
        if needed is not None and needed != path.stat().st_size:
            raise _of_other_length(path, needed) from None
        why = " ".join(str(error).split())
        raise InputError(
            f"{shown(path)}: not a whole .npy file of numbers ({why}); it has {path.stat().st_size} bytes; copy it again "
            "from its source"
        ) from None
    needed = array.offset + array.nbytes
    if path.stat().st_size != needed:
        raise _of_other_length(path, needed)
    return array


def _accounted_for(path: Path) -> int | None:
    """The bytes of the whole file by its header; None where that cannot be read or is not of plain numbers."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            return None if dtype.hasobject else file.tell() + math.prod(shape) * dtype.itemsize
    except (*_NO_ARRAY, KeyError):
        return None


def _of_other_length(path: Path, needed: int) -> InputError:
    return InputError(
        f"{shown(path)}: its header accounts for {needed} bytes, the file has {path.stat().st_size}; copy it again from "
        "its source"
    )


def _check_all(parts: list[Part], folder: Path) -> None:
    """InputError unless the parts are one whole: both splits, one size of patch, classes without gaps."""
    for split, name in ((b"train", "train_data1"), (b"validation", "val_data1")):
        if not any(part.split == split for part in parts):
            raise InputError(
                f"{shown(folder)}: there must be patches to learn from and to stop by, got no "
                f"{name}_vwGen_ex_ref_fold1.0.npy or the like; name the folder that holds both"
            )
    first = parts[0]
    for part in parts:
        if part.size != first.size:
            raise InputError(
                f"{shown(part.data)}: all patches must have one size, {first.size[::-1]} (x, y, z) as in {first.data.name}, "
                f"got {part.size[::-1]}"
            )
    learned = np.unique(np.concatenate([part.labels for part in parts if part.split == b"train"]))
    if not np.array_equal(learned, np.arange(len(learned))):
        lacking = int(np.setdiff1d(np.arange(learned[-1]), learned)[0])
        raise InputError(
            f"{shown(folder)}: the classes of training patches must run from 0 without a gap, {lacking} is missing below "
            f"{learned[-1]}; put all folds into the folder"
        )
    for part in parts:
        unknown = np.setdiff1d(part.labels, learned)
        if len(unknown):
            raise InputError(
                f"{shown(part.data)}: class {unknown[0]} must have training patches too, there are classes 0 to "
                f"{learned[-1]}; put all folds into the folder"
            )


def _rows(part: Part) -> np.ndarray:
    """Rows (ROW, n) of a part, with what its arrays tell."""
    rows = np.zeros(len(part.labels), ROW)
    rows["pattern"], rows["resolution"], rows["split"] = part.labels, part.resolution, part.split
    rows["rank"] = _ranks(part.labels, first=0 if part.split == b"train" else 1)
    rows["corner"] = -1
    # Jittered boxes are as deep as the patch, and 50 to 79 voxels wide and high: nobody wrote down which
    rows["extent"] = part.size if part.resolution == 0 else (part.size[0], -1, -1)
    return rows


def _ranks(labels: np.ndarray, first: int) -> np.ndarray:
    """Place of each patch in its class, from `first`; -1 throughout where a class is not all together."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    if len(np.unique(labels[starts])) < len(starts):
        return np.full(len(labels), -1)
    return np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels))) + first


def _patches(part: Part) -> Iterator[np.ndarray]:
    """Patches int16 (z, y, x) in HU, one by one."""
    array = _mapped(part.data)
    step = max(1, BLOCK_BYTES // array[0].nbytes)
    for start in range(0, len(array), step):
        # Mapped anew each time, so that what was read does not stay in this process's memory
        block = np.array(_mapped(part.data)[start : start + step], np.float64)
        wrong = ~((block >= -ROUNDING) & (block <= 1 + ROUNDING))
        if wrong.any():
            row, *voxel = (int(axis) for axis in np.argwhere(wrong)[0])
            raise InputError(
                f"{shown(part.data)}: values must be numbers in [0, 1], got {block[row, *voxel]:g} in row {start + row} at "
                f"voxel {tuple(voxel)}, the first of {int(wrong.sum())} in rows {start} to {start + len(block) - 1}; "
                "HU must be scaled by (HU + 1000) / 2000, and a damaged file copied again"
            )
        hu = np.rint(block * (HU_MAX - HU_MIN) + HU_MIN).clip(HU_MIN, HU_MAX).astype(np.int16)
        for patch in hu.transpose(0, 3, 2, 1):
            yield np.ascontiguousarray(patch)
