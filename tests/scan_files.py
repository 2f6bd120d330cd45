"""Small CTs written by nibabel and SimpleITK, as users have them, for the tests of reading."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from sg.params import Limits

LIMITS = Limits(
    spacing_mm=(0.1, 10.0),
    slices_min=16,
    extent_min_mm=64.0,
    voxels_max=2**24,
    air_share_min=0.05,
    distinct_min=256,
)
SHAPE = (18, 24, 20)  # z, y, x
SPACING_MM = (4.0, 3.0, 5.0)  # x, y, z
ORIGIN_MM = (-40.0, -30.0, 7.0)


def ct(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """HU from -1000 to 1000, int16."""
    return np.random.default_rng(seed).integers(-1000, 1001, shape).astype(np.int16)


def write_itk(path: Path, array: np.ndarray, compress: bool = False, direction=None, **geometry) -> Path:
    """Write an array (z, y, x) with SimpleITK, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.get("spacing_mm", SPACING_MM))
    image.SetOrigin(geometry.get("origin_mm", ORIGIN_MM))
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def nifti(
    array: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image
) -> nib.Nifti1Image:
    """An array (z, y, x) as a NIfTI image with sform and qform; RAS affine, by default the geometry above."""
    if affine is None:
        affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
        affine[:3, 3] = (-ORIGIN_MM[0], -ORIGIN_MM[1], ORIGIN_MM[2])
    image = kind(array.transpose(), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image


def write_nifti(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image
) -> Path:
    """Write an array (z, y, x) with nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nifti(array, affine, kind), path)
    return path


def write_with_header(path: Path, array: np.ndarray, **fields) -> Path:
    """A NIfTI file of these voxels whose header says what `fields` say, true or not; compressed for .nii.gz."""
    content = bytearray(nifti(array).to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for key, value in fields.items():
        header[key] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content), mtime=0) if path.suffix == ".gz" else bytes(content))
    return path


def edit_header(path: Path, **fields: str | None) -> Path:
    """Change, add (in front) or take away (None) fields of a MetaImage header; voxels behind it stay."""
    head, _, rest = path.read_bytes().partition(b"ElementDataFile")
    last, _, voxels = rest.partition(b"\n")
    lines = [*head.decode("latin-1").splitlines(), f"ElementDataFile{last.decode('latin-1')}"]
    for key, value in fields.items():
        kept = [line for line in lines if line.partition(" = ")[0] != key]
        if value is not None:
            at = next((i for i, line in enumerate(lines) if line.partition(" = ")[0] == key), 1)
            kept.insert(at, f"{key} = {value}")
        lines = kept
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n" + voxels)
    return path


def write_pair(path: Path, array: np.ndarray, **fields) -> Path:
    """Write an array (z, y, x) as the pair of `path` (.hdr, .hdr.gz) and its .img, as nibabel does; the header's path.

    Its header says what `fields` say, true or not. Both files are compressed for .hdr.gz.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nifti(array)
    nib.save(nib.Nifti1Pair(image.dataobj, None, image.header), path)
    header = nib.Nifti1Header(image.header.binaryblock, check=False)
    header["magic"], header["vox_offset"] = b"ni1", 0
    for key, value in fields.items():
        header[key] = value
    content = header.binaryblock
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def edit_nrrd(path: Path, changes: dict[str, str | None]) -> Path:
    """Change, add or take away (None) fields of an NRRD header; a key ends in `=`. Voxels behind it stay."""
    head, blank, voxels = path.read_bytes().partition(b"\n\n")
    lines = head.decode("latin-1").splitlines()
    for field, value in changes.items():
        at = next((i for i, line in enumerate(lines) if line.partition(":")[0] == field), len(lines))
        lines[at : at + 1] = (
            [] if value is None else [f"{field.removesuffix('=')}:{'=' * field.endswith('=') or ' '}{value}"]
        )
    path.write_bytes("\n".join(lines).encode("latin-1") + (blank or b"\n") + voxels)
    return path
