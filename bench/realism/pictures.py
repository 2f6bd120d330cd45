"""Pictures of phantoms in three planes, and a page of phantoms beside real scans."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from bench.realism.cohort import chest_of
from bench.realism.measures import at_grid
from bench.realism.real import Chest
from sg.cohorts.phantom.making import Job

mpl.use("Agg")
from matplotlib import pyplot as plt

PHANTOMS = 8
WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0)}  # HU; level 40, width 400 and -600, 1500
SIDE_MM = 380.0  # of each picture
PLANES = ("axial", "coronal", "sagittal")


def write_phantoms(folder: Path, jobs: list[Job]) -> None:
    """phantom-1.png and so on: a phantom's three planes, in a soft tissue and in a lung window."""
    for number, job in enumerate(jobs, 1):
        scan = chest_of(job)
        figure, axes = plt.subplots(2, 3, figsize=(9, 6), facecolor="black")
        for row, window in zip(axes, WINDOWS.values(), strict=True):
            draw(row, scan.hu, scan.grid.spacing_mm, window)
        _save(figure, folder / f"phantom-{number}.png")


def write_beside(path: Path, jobs: list[Job], chests: list[Chest]) -> None:
    """A page of real chests (left) and as many phantoms (right), at about the same spacing."""
    figure, axes = plt.subplots(
        len(chests), 6, figsize=(18, 3 * len(chests)), facecolor="black", squeeze=False
    )
    for row, chest, job in zip(axes, chests, jobs, strict=False):
        scan = chest_of(job)
        draw(row[:3], *at_grid(chest.hu, chest.spacing_mm), WINDOWS["lung"])
        draw(row[3:], scan.hu, scan.grid.spacing_mm, WINDOWS["lung"])
    _save(figure, path)


def draw(
    axes: np.ndarray, hu: np.ndarray, spacing_mm: tuple[float, float, float], window: tuple[float, float]
) -> None:
    """The three planes through the middle of a scan (the sagittal one through the right lung), head up."""
    z, y, x = hu.shape
    planes = (hu[z // 2], hu[::-1, y // 2], hu[::-1, :, x // 3])
    dx, dy, dz = spacing_mm
    sizes = ((x * dx, y * dy), (x * dx, z * dz), (y * dy, z * dz))
    for axis, plane, (width, height) in zip(axes, planes, sizes, strict=True):
        axis.imshow(
            plane,
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            extent=(-width / 2, width / 2, -height / 2, height / 2),
        )
        axis.set_xlim(-SIDE_MM / 2, SIDE_MM / 2)
        axis.set_ylim(-SIDE_MM / 2, SIDE_MM / 2)
        axis.set_facecolor("black")
        axis.axis("off")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    figure.savefig(path, dpi=72, facecolor="black", metadata={"Software": None})
    plt.close(figure)
