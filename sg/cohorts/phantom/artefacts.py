"""What a scanner makes of a body besides its picture: movement, streaks, and the circle that it reconstructs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from sg.cohorts.phantom.canvas import Canvas
from sg.cohorts.phantom.rays import WATER_PER_MM, Blocks, Rays

DENSE_HU = 150.0  # what is denser hardens the beam otherwise than water, for which scanners correct
STREAK_DIRECTIONS = 48
HARDENING = 0.08  # error of a ray that passed bone of attenuation b: this times b^2 (see `streaks`)
STREAK_MOST_HU = 60.0
CALM_MM = 6.0  # from the wall of the chest inwards, over which movement sets in


@dataclass(frozen=True)
class Motion:
    """How far the diaphragm and the heart moved while slice after slice was taken, mm; 0 is not at all.

    `breath_mm` and `beat_mm` are how far the table went during one breath or beat: the outlines swing with it along z.
    `doubled`: two moments are seen in one slice, as where it was put together from two turns of the tube.
    """

    diaphragm_mm: float
    heart_mm: float
    breath_mm: float
    beat_mm: float
    phase: float
    doubled: bool


def draw_motion(rng: np.random.Generator) -> Motion:
    """Half of all scans show the heart moving, a fifth the diaphragm; by some mm, as the contours in real scans do."""
    heart = float(rng.uniform(0.8, 3.0)) if rng.random() < 0.5 else 0.0
    diaphragm = float(rng.uniform(1.5, 5.0)) if rng.random() < 0.2 else 0.0
    return Motion(
        round(diaphragm, 2),
        round(heart, 2),
        round(float(rng.uniform(25, 70)), 2),
        round(float(rng.uniform(10, 25)), 2),
        round(float(rng.uniform(0, 2 * np.pi)), 3),
        bool(rng.random() < 0.6),
    )


def move(canvas: Canvas, d: dict[str, np.ndarray], motion: Motion) -> None:
    """Shift what is painted around the heart and the domes of the diaphragm, slice by slice. Labels stay: the mean place."""
    inside = np.clip(d["cavity"] / np.float32(-CALM_MM), 0, 1)  # ribs, spine and breastbone stay
    if motion.heart_mm:
        reach = motion.heart_mm * np.array([0.5, 0.8, 0.8])
        _swing(canvas, inside * _bump(d["heart"] / 28), reach, motion.beat_mm, motion)
    if motion.diaphragm_mm:
        reach = motion.diaphragm_mm * np.array([1.0, 0.15, 0.0])
        _swing(canvas, inside * _bump(d["above"] / 45), reach, motion.breath_mm, motion)


def _bump(t: np.ndarray) -> np.ndarray:
    """1 at 0, falling smoothly to 0 at -1 and 1."""
    return np.maximum(1 - t * t, 0) ** 2


def _swing(
    canvas: Canvas,
    near: np.ndarray,
    reach_mm: np.ndarray,
    wave_mm: float,
    motion: Motion,
) -> None:
    """Move what is near (a share on the coarse lattice) by `reach_mm` (z, y, x), swinging along z in waves."""
    region = canvas.region_of(-near, 0.0)
    if region is None or min(part.stop - part.start for part in region) < 4:
        return
    box = canvas.lattice.box(region)
    share = canvas.finer(near.astype(np.float32), region)
    swing = np.sin(2 * np.pi * box.z / wave_mm + motion.phase)
    before = canvas.hu[region]
    voxels = (reach_mm / box.spacing_mm[::-1]).astype(np.float32)
    index = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in box.shape), indexing="ij", sparse=True)
    after = np.zeros_like(before)
    moments = (1.0, -0.6) if motion.doubled else (1.0,)
    for moment in moments:
        way = share * (moment * swing).astype(np.float32)[:, None, None]
        where = np.stack([i + voxel * way for i, voxel in zip(index, voxels, strict=True)])
        after += ndimage.map_coordinates(before, where, order=1, mode="nearest", output=np.float32)
    canvas.hu[region] = after / np.float32(len(moments))


def streaks(hu: np.ndarray, blocks: Blocks, strength: float) -> np.ndarray:
    """Dark and bright streaks between and beside what is dense, HU on the blocks, float32; `strength` about 1.

    The beam hardens along each ray by bone and contrast medium as it does not by water, and the ray's sum comes out
    too small by an amount that grows with the square of what it passed of these (Joseph and Spital, J Comput Assist
    Tomogr 1978;2:100). Reconstructed, that error is dark bands between dense things and streaks beside them. The size
    of the error is chosen so that the band between the shoulders is some 20 HU deep, as in scans (recalled).
    """
    dense = blocks.averaged(np.maximum(hu - np.float32(DENSE_HU), 0))
    dense[dense < 20] = 0  # of noise and edges
    rays = Rays(blocks.lattice, np.pi * (np.arange(STREAK_DIRECTIONS) + 0.5) / STREAK_DIRECTIONS)
    missing = rays.sums(dense * np.float32(WATER_PER_MM / 1000)) ** 2 * np.float32(-HARDENING * strength)
    # The ramp of filtered back-projection, on padded rays.
    step = rays.lattice.spacing_mm[0]
    count = fft.next_fast_len(2 * missing.shape[2], real=True)
    ramp = np.fft.rfftfreq(count, step).astype(np.float32)
    filtered = fft.irfft(fft.rfft(missing, count, axis=2) * ramp, count, axis=2)[:, :, : missing.shape[2]]
    error = rays.mean(filtered, np.full(STREAK_DIRECTIONS, np.pi / STREAK_DIRECTIONS))
    error *= np.float32(1000 / WATER_PER_MM)
    return np.float32(STREAK_MOST_HU) * np.tanh(error / np.float32(STREAK_MOST_HU))


def pad(canvas: Canvas, hu: np.ndarray, padding_hu: int) -> None:
    """What lies outside the circle within the field of view was not reconstructed: padding, and no labels."""
    x, y, _ = (axis.astype(np.float64) for axis in canvas.lattice.grids)
    step = canvas.lattice.spacing_mm[0]
    radius = (x[0, 0, -1] - x[0, 0, 0] + step) / 2
    outside = ((x - x.mean()) ** 2 + (y - y.mean()) ** 2 > radius**2)[0]
    hu[:, outside] = padding_hu
    canvas.labels[:, outside] = 0
