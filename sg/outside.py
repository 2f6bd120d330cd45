"""Scans that need not be of the cohort, brought to the thumbnails that the embedding is learned on.

A scan is found and vouched for as `sg scan` does it, and resampled as the stage `resample` does it, in a process of its own:
a scan that is in the cohort comes out with the same thumbnail, voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import console
from sg.cohorts.records import ScanRow
from sg.inspection import SECONDS, Found, Inspection, find
from sg.isolated import bound_memory, each, machine_memory, memory_for
from sg.params import Limits, Resample
from sg.resampling import resample_scan, thumbnail
from sg.scans import Place, Refusal, digest, examine, files_of, read_header


@dataclass(frozen=True)
class Thumbnail:
    """The whole of a scan, small."""

    scan: str  # the first 12 hex digits of the SHA-256 over its files, by which a cohort knows it
    image: np.ndarray  # int16 (z, y, x), HU clipped
    extent_mm: tuple[float, float, float]  # of the whole (z, y, x)


def thumbnails(
    paths: Sequence[Path], limits: Limits, settings: Resample, workers: int
) -> tuple[Inspection, Iterator[tuple[Found, Thumbnail | Refusal]]]:
    """What was refused or ignored unread, and every scan of the files and folders with its thumbnail, by path.

    Thumbnails are made as they are asked for. InputError for a path where there is nothing.
    """
    found, inspection = find(paths, workers)
    found.sort(key=lambda item: (str(item.path), item.series or ""))
    jobs = [(item.place, item.root, limits, settings) for item in found]
    answers = zip(found, each(_thumbnail, jobs, workers, SECONDS), strict=True)
    return inspection, console.track(answers, "reading scans", len(found), "scans")


def _thumbnail(place: Place, root: Path, limits: Limits, settings: Resample) -> Thumbnail:
    """Read and shrink one scan. Raises Refusal."""
    bound_memory(memory_for(0))
    bound_memory(memory_for(read_header(place, root, limits).bytes))
    seen = examine(place, root, limits)
    # From here on its size is known to be true; how much resampling takes is a matter of the new grid
    bound_memory(machine_memory())
    sha256, _ = digest(files_of(place, root))
    files = () if isinstance(place, Path) else tuple(str(file.relative_to(root)) for file in place)
    row = ScanRow(
        scan=sha256[:12],
        patient="",
        source="",
        layout="",
        use=(),
        split="",
        path=str(place.relative_to(root)) if isinstance(place, Path) else ".",
        series="",
        truth="",
        modality=seen.modality,
        size=seen.geometry.size,
        spacing_mm=seen.geometry.spacing_mm,
        orientation=seen.geometry.orientation,
        bytes=seen.bytes,
        sha256=sha256,
        truth_sha256="",
    )
    try:
        resampled = resample_scan(row, files, root, settings)
    except RuntimeError as error:  # SimpleITK's way of saying so
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            raise MemoryError from error
        raise
    x, y, z = resampled.spacing_mm
    extent = tuple(float(n * side) for n, side in zip(resampled.image.shape, (z, y, x), strict=True))
    return Thumbnail(row.scan, thumbnail(resampled.image, settings.thumbnail_shape), extent)
