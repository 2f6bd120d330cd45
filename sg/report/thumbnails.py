"""Pictures of whole scans, from the thumbnails that the embedding is learned on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import paths
from sg.errors import InputError
from sg.report.pictures import Picture, axial, coronal, picture
from sg.report.tables import text
from sg.storage import open_h5


@dataclass(frozen=True)
class Thumbnails:
    """The table of thumbnails.h5; the pictures themselves are read one by one."""

    root: Path
    rows: dict[str, int]  # scan -> row
    patients: dict[str, str]  # scan -> patient

    def pictures(self, scan: str) -> tuple[Picture, Picture]:
        """The middle coronal and the middle axial slice of a scan, in the proportions of the body."""
        volume, (z_mm, y_mm, x_mm) = self.volume(scan)
        who = f"patient {self.patients[scan]}"
        return (
            picture(coronal(volume), (z_mm, x_mm), f"middle coronal slice of {who}"),
            picture(axial(volume), (y_mm, x_mm), f"middle axial slice of {who}"),
        )

    def coronal_picture(self, scan: str) -> Picture:
        """The first of the two alone."""
        volume, (z_mm, _, x_mm) = self.volume(scan)
        return picture(
            coronal(volume), (z_mm, x_mm), f"middle coronal slice of patient {self.patients[scan]}"
        )

    def volume(self, scan: str) -> tuple[np.ndarray, tuple[float, float, float]]:
        """A thumbnail (z, y, x) and the size of its voxels (z, y, x), mm."""
        if scan not in self.rows:
            raise InputError(
                f"{self.root / paths.THUMBNAILS}: there is no scan {scan}; run `dvc repro` to make it again"
            )
        with open_h5(self.root / paths.THUMBNAILS) as file:
            volume = file["thumbnails"][self.rows[scan]]
        # A thumbnail has the same shape whatever the scan's; the scan itself knows its extent.
        z_mm, y_mm, x_mm = (
            extent / side for extent, side in zip(extent_mm(self.root, scan), volume.shape, strict=True)
        )
        return volume, (z_mm, y_mm, x_mm)


def read_thumbnails(root: Path) -> Thumbnails:
    """The table of thumbnails.h5."""
    with open_h5(root / paths.THUMBNAILS) as file:
        scans = [text(scan) for scan in file["scan"][...]]
        patients = [text(patient) for patient in file["patient"][...]]
    return Thumbnails(
        root, {scan: row for row, scan in enumerate(scans)}, dict(zip(scans, patients, strict=True))
    )


def spacing_zyx(root: Path, scan: str) -> tuple[float, float, float]:
    """Voxel size (z, y, x) of a resampled scan, mm."""
    with open_h5(root / paths.scan(scan)) as file:
        x, y, z = (float(side) for side in file.attrs["spacing_mm"])
    return z, y, x


def extent_mm(root: Path, scan: str) -> tuple[float, float, float]:
    """Extent (z, y, x) of a resampled scan, mm."""
    with open_h5(root / paths.scan(scan)) as file:
        shape = file["image"].shape
    z, y, x = (side * size for side, size in zip(shape, spacing_zyx(root, scan), strict=True))
    return z, y, x
