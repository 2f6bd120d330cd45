"""How a person is scanned: contrast medium, kernel, slices, noise, movement, what lies around the body.

Drawn apart from anatomy, and recorded beside the truth. What belongs to the study (contrast phase, what is covered, how
the patient lies and moves, the table) comes from chance of the person's, the reconstruction (voxels, kernel, slices, noise,
padding) from the scan's: two scans of one person are two reconstructions of one study. The chances of each kind are
judged from a dozen public scans and what textbooks call common; no survey is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.anatomy import Draw, Patient
from sg.cohorts.phantom.artefacts import Motion, draw_motion, move, pad, streaks
from sg.cohorts.phantom.canvas import Canvas
from sg.cohorts.phantom.grid import Grid, draw_grid
from sg.cohorts.phantom.noise import KernelName, blurred, levels, noise
from sg.cohorts.phantom.painting.table import TableShape, paint_table, paint_things
from sg.cohorts.phantom.rays import Blocks
from sg.cohorts.phantom.tissues import Phase
from sg.params import PhantomShared

__all__ = ["Acquisition", "Grid", "acquire", "draw_acquisition", "noise"]

# What scanners write outside the circle that they reconstruct, as seen in LIDC-IDRI, CMB-CRC, RICORD and others.
PADDINGS = (-1024, -2000, -2048, -3024)
LEAST_HU, MOST_HU = -1024, 3071  # 12 bits
KERNEL_CHANCES: dict[str, dict[KernelName, float]] = {
    "chest": {"smooth": 0.3, "standard": 0.45, "sharp": 0.25},
    "abdomen": {"smooth": 0.4, "standard": 0.6},
}
# Where within the range of noise a kernel's scans lie.
NOISE_WITHIN = {"smooth": (0.0, 0.6), "standard": (0.15, 0.8), "sharp": (0.5, 1.0)}
THICKEST_MM = 5.0  # of slices that overlap; thicker ones touch
WIDTH_MM = 375.0  # of an average body; a wider one has more noise
NOISE_PER_MM = 0.004  # half of exp(0.019 / 2 per mm), for the tube's current follows the body half-way


@dataclass(frozen=True)
class Acquisition:
    """One scan of one person, but for the noise itself.

    `noise_hu` is the noise's standard deviation in large organs. `modulation` says how unevenly it is spread (see
    `noise.levels`), `streaks` how strong beam hardening is (about 1), `padding_hu` what stands outside the circle
    (None: all is reconstructed).
    """

    grid: Grid
    covers: str  # chest, apices, bases, chest-abdomen, abdomen
    phase: Phase
    kernel: KernelName
    thickness_mm: float  # of a slice; their distance is the grid's
    noise_hu: float
    modulation: float
    streaks: float
    motion: Motion
    table: TableShape
    things: tuple[str, ...]
    padding_hu: int | None


def draw_acquisition(
    patient: Patient,
    number: int,
    protocol: str,
    shared: PhantomShared,
    person: Draw,
    scan: Draw,
) -> Acquisition:
    """How the patient of that number is scanned. `protocol`: chest or abdomen; `person` and `scan` draw for a purpose.

    The scan shows what such a protocol shows, or, with a chance of `shared.parts`, the apices or the bases alone or the
    abdomen too.
    """
    phase = "none"
    if person("phase").random() < (0.8 if protocol == "abdomen" else 0.5):
        phase = "venous" if protocol == "abdomen" else "arterial"
    covers, body, grid = draw_grid(patient, number, protocol, shared, person("study grid"), scan("grid"))
    study, rng = person("study"), scan("acquisition")
    kernels = list(KERNEL_CHANCES[protocol])
    chances = np.cumsum(list(KERNEL_CHANCES[protocol].values()))
    kernel = kernels[int(np.searchsorted(chances, rng.random(), side="right"))]
    between = grid.spacing_mm[2]
    overlap = rng.random()
    ratio = 1.0 if overlap < 0.6 else rng.uniform(1.2, 2.0) if overlap < 0.85 else rng.uniform(0.5, 0.9)
    thickness = min(float(ratio) * between, max(between, THICKEST_MM))
    return Acquisition(
        grid=grid,
        covers=covers,
        phase=phase,
        kernel=kernel,
        thickness_mm=max(round(thickness, 2), 0.5),
        noise_hu=_draw_noise(rng, shared, kernel, body.width_mm),
        modulation=round(float(rng.uniform(0.5, 1.0)), 3),
        streaks=round(float(rng.lognormal(-0.2, 0.6)), 3),
        motion=draw_motion(study),
        table=("arc", "arc", "cradle", "flat", "none")[int(study.integers(5))],
        things=tuple(
            thing for thing, chance in (("clothes", 0.6), ("leads", 0.2)) if study.random() < chance
        ),
        padding_hu=int(rng.choice(PADDINGS)) if rng.random() < 0.6 else None,
    )


def _draw_noise(rng: np.random.Generator, shared: PhantomShared, kernel: str, width_mm: float) -> float:
    """Noise in HU within the asked-for range, higher with sharper kernels and wider bodies."""
    low, high = shared.noise_hu
    least, most = NOISE_WITHIN[kernel]
    level = low + (high - low) * rng.uniform(least, most)
    return round(float(np.clip(level * np.exp(NOISE_PER_MM * (width_mm - WIDTH_MM)), low, high)), 2)


def acquire(
    canvas: Canvas, d: dict[str, np.ndarray], acquired: Acquisition, person: Draw, scan: Draw
) -> np.ndarray:
    """The scan as measured, int16 (z, y, x): all that `acquired` names, in the order in which it comes about.

    `d` holds the distances to the organs on the canvas' coarse lattice; `person` and `scan` draw for a purpose. What the
    circle leaves out loses its label.
    """
    paint_table(canvas, d["skin"], acquired.table, person("table"))
    paint_things(canvas, d["skin"], acquired.things, person("things"))
    move(canvas, d, acquired.motion)
    spacing_mm, kernel = acquired.grid.spacing_mm, acquired.kernel
    blocks = Blocks.of(canvas.lattice)
    sideways_sd, others_sd, _ = levels(canvas.hu, blocks, acquired.modulation)
    errors = streaks(canvas.hu, blocks, acquired.streaks)
    hu = blurred(canvas.hu, spacing_mm, kernel, acquired.thickness_mm)
    hu += blocks.spread(errors)
    sideways, others, share = noise(scan("noise"), hu.shape, spacing_mm, kernel, acquired.thickness_mm)
    sideways *= blocks.spread(sideways_sd * np.float32(acquired.noise_hu * np.sqrt(share)))
    others *= blocks.spread(others_sd * np.float32(acquired.noise_hu * np.sqrt(1 - share)))
    hu += sideways
    hu += others
    np.rint(hu, out=hu)
    measured = np.clip(hu, LEAST_HU, MOST_HU, out=hu).astype(np.int16)
    if acquired.padding_hu is not None:
        pad(canvas, measured, acquired.padding_hu)
    return measured
