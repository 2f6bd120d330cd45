"""From tissues to the four contrasts: relaxation, signal equations, and what a scanner and its operators add.

Relaxation times at 1.5 and 3 T. T1 of grey and white matter, putamen and caudate: Wright et al., MAGMA 2008;21:121
(MPRAGE). T2 of grey and white matter: Stanisz et al., Magn Reson Med 2005;54:507 (recalled, not checked). Tumour T1 of
1850 to 3200 ms and T2 of 115 to 225 ms at 3 T mark dense tumour (tissue sampling of gliomas, Neuro-Oncology abstracts;
these bounds fix the order, the values within them are chosen). The others, proton densities included, are recalled from
textbooks: water rich and iron poor means long, iron rich means a short T2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.brain.anatomy import COMMISSURE_MM, Draw
from sg.cohorts.phantom.fields import Lattice, draw_noise

CONTRASTS = ("t1", "t1ce", "t2", "flair")


@dataclass(frozen=True)
class Tissue:
    """Proton density (water 1), T1 and T2 in ms at (1.5 T, 3 T), and contrast medium in mmol/l when it was given."""

    density: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    uptake: float = 0.0


TISSUES = {
    "csf": Tissue(1.0, (4000, 4300), (1400, 1400)),
    "grey": Tissue(0.82, (1197, 1607), (95, 99), 0.05),
    "white": Tissue(0.70, (646, 838), (72, 69), 0.02),
    "caudate": Tissue(0.82, (1109, 1395), (86, 80), 0.04),
    "putamen": Tissue(0.81, (1084, 1332), (80, 71), 0.04),
    "pallidum": Tissue(0.76, (850, 1050), (66, 52), 0.04),
    "thalamus": Tissue(0.78, (930, 1210), (82, 75), 0.04),
    "stem": Tissue(0.73, (730, 930), (80, 76), 0.025),
    "cerebellum": Tissue(0.81, (1120, 1450), (92, 94), 0.05),
    "vein": Tissue(0.80, (1350, 1650), (32, 28), 1.2),  # the T2 stands for the loss by flow
    "dura": Tissue(0.55, (900, 1050), (34, 32), 0.5),
    "choroid": Tissue(0.88, (1500, 1800), (150, 150), 0.9),
    "lesion": Tissue(0.79, (950, 1210), (118, 112)),
    "oedema": Tissue(0.85, (1200, 1500), (150, 142), 0.02),
    "infiltrated": Tissue(0.86, (1450, 1850), (180, 170), 0.03),
    "enhancing": Tissue(0.85, (1350, 1850), (155, 145), 0.55),
    "necrosis": Tissue(0.93, (2000, 2400), (320, 300), 0.05),
}
RELAXIVITY = (4.3e-3, 3.9e-3)  # per ms and mmol/l of a gadolinium chelate in plasma, 1.5 and 3 T (recalled)


@dataclass(frozen=True)
class Sequence:
    """One contrast's measurement. Times in ms; without `flip_deg` a spin echo, without `inversion` no inversion."""

    repetition: float
    echo: float
    inversion: float | None
    flip_deg: float | None
    slice_mm: float  # 1: a three-dimensional measurement; else thick slices along z
    first_mm: float  # where the first slice begins within the first slice's thickness
    blur_mm: float
    noise: float  # standard deviation of each channel over the signal of white matter
    unevenness: float  # standard deviation of the logarithm of the bias field
    scale: float  # what white matter measures
    offset: float  # of that
    gamma: float


def draw_sequences(draw: Draw) -> tuple[int, dict[str, Sequence]]:
    """Field strength (0: 1.5 T, 1: 3 T) and the four measurements of one study."""
    rng = draw("protocol")
    field = int(rng.random() < 0.45)
    sequences = {}
    for name in CONTRASTS:
        rng = draw(f"sequence {name}")
        # T1 is measured in three dimensions in many studies, T2 and FLAIR mostly in slices of 3 to 6 mm.
        volume = rng.random() < {"t1": 0.35, "t1ce": 0.55, "t2": 0.2, "flair": 0.2}[name]
        slice_mm = 1.0 if volume else float(rng.choice([3.0, 4.0, 5.0, 6.0], p=[0.35, 0.15, 0.35, 0.15]))
        inversion = flip = None
        if name in ("t1", "t1ce") and volume:
            repetition, echo, flip = rng.uniform(7, 11), rng.uniform(2.5, 4.5), rng.uniform(12, 18)
        elif name in ("t1", "t1ce"):
            repetition, echo = rng.uniform(450, 700), rng.uniform(9, 15)
        elif name == "t2":
            repetition, echo = rng.uniform(3500, 6000), rng.uniform(80, 105)
        else:
            repetition, echo = rng.uniform(8000, 10500), rng.uniform(85, 125)
            water = TISSUES["csf"].t1[field]
            # The inversion time that leaves no signal of fluid, met within a few per cent.
            inversion = water * np.log(2 / (1 + np.exp(-repetition / water))) * rng.uniform(0.96, 1.03)
        sequences[name] = Sequence(
            float(repetition),
            float(echo),
            None if inversion is None else float(inversion),
            None if flip is None else float(flip),
            slice_mm,
            float(rng.uniform(0, 1)),
            float(rng.uniform(0.35, 0.75)),
            float(rng.uniform(0.012, 0.04)),
            float(rng.uniform(0.02, 0.10)),
            float(np.exp(rng.uniform(np.log(90), np.log(1100)))),
            float(rng.uniform(0, 0.04)),
            float(rng.uniform(0.9, 1.1)),
        )
    return field, sequences


def signal(sequence: Sequence, density: float, t1: float, t2: float) -> float:
    """Signal of one tissue, of fully relaxed protons of water: spin echo, inversion recovery or spoiled gradient echo.

    Spin echo: M (1 - exp(-TR/T1)) exp(-TE/T2). Inversion recovery (magnitude): M |1 - 2 exp(-TI/T1) + exp(-TR/T1)|
    exp(-TE/T2). Spoiled gradient echo of flip angle a: M sin a (1 - E)/(1 - cos a E) exp(-TE/T2), E = exp(-TR/T1)
    (Haacke et al., Magnetic Resonance Imaging, 1999; T2 stands for T2*, whose part is small at these echo times).
    """
    recovered = np.exp(-sequence.repetition / t1)
    decay = np.exp(-sequence.echo / t2)
    if sequence.flip_deg is not None:
        angle = np.deg2rad(sequence.flip_deg)
        return float(density * np.sin(angle) * (1 - recovered) / (1 - np.cos(angle) * recovered) * decay)
    if sequence.inversion is not None:
        return float(density * abs(1 - 2 * np.exp(-sequence.inversion / t1) + recovered) * decay)
    return float(density * (1 - recovered) * decay)


def draw_signals(draw: Draw, field: int, sequences: dict[str, Sequence]) -> dict[str, np.ndarray]:
    """Each tissue's signal in the four contrasts, white matter 1, float32 (4); tissues vary by some per cent."""
    rng = draw("relaxation")
    table = {}
    for name, tissue in TISSUES.items():
        own = np.exp(rng.normal(0, (0.01, 0.035, 0.035)))
        if name in ("lesion", "oedema", "infiltrated", "enhancing", "necrosis"):
            own = np.exp(rng.normal(0, (0.02, 0.10, 0.15)))
        uptake = tissue.uptake * rng.lognormal(0, 0.3)
        density, t1, t2 = tissue.density * own[0], tissue.t1[field] * own[1], tissue.t2[field] * own[2]
        values = []
        for contrast, sequence in sequences.items():
            with_agent = 1 / (1 / t1 + RELAXIVITY[field] * uptake) if contrast == "t1ce" else t1
            values.append(signal(sequence, density, with_agent, t2))
        table[name] = np.array(values)
    return {name: (values / table["white"]).astype(np.float32) for name, values in table.items()}


def acquire(
    image: np.ndarray, inside: np.ndarray, lattice: Lattice, sequence: Sequence, draw: Draw, contrast: str
) -> np.ndarray:
    """One contrast as measured and resampled to the common grid, int16 (z, y, x), 0 outside and at least 1 inside.

    `image` is the signal on the scan's lattice (white matter 1), `inside` what skull stripping left.
    """
    spacing = float(lattice.z[1] - lattice.z[0])
    bias = draw_noise(draw(f"bias {contrast}"), COMMISSURE_MM, 140, 95, sequence.unevenness, components=1)
    image = image * np.exp(bias.on(lattice)[0])
    blur = sequence.blur_mm / spacing
    if blur > 0.2:
        image = ndimage.gaussian_filter(image, (0, blur, blur), mode="nearest", truncate=3)
    image = _sliced(image, sequence, spacing, draw(f"noise {contrast}"))
    image = np.maximum(image, 0)
    values = sequence.scale * (sequence.offset + image ** np.float32(sequence.gamma))
    return np.where(inside, np.clip(np.rint(values), 1, 32767), 0).astype(np.int16)


def _sliced(image: np.ndarray, sequence: Sequence, spacing_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The image as measured in slices, with Rician noise, and resampled to the planes, linear between slices."""
    ratio = sequence.slice_mm / spacing_mm
    if ratio < 1.5:
        noisy = _rician(image, sequence.noise, rng)
        # Registration to the common frame resamples between voxels.
        return ndimage.gaussian_filter(noisy, 0.35, mode="nearest", truncate=3)
    planes = len(image)
    starts = np.arange(-sequence.first_mm * ratio, planes, ratio)
    slices = np.empty((len(starts), *image.shape[1:]), np.float32)
    cells = np.arange(planes)
    for number, start in enumerate(starts):
        weights = np.clip(np.minimum(cells + 1, start + ratio) - np.maximum(cells, start), 0, None)
        weights = (weights / max(weights.sum(), 1e-6)).astype(np.float32)
        used = np.flatnonzero(weights)
        slices[number] = sum(weights[k] * image[k] for k in used)
    slices = _rician(slices, sequence.noise, rng)
    place = np.clip((cells + 0.5 - starts[0]) / ratio - 0.5, 0, len(starts) - 1 - 1e-6)
    lower = np.minimum(place.astype(np.intp), len(starts) - 2)
    share = (place - lower).astype(np.float32)[:, None, None]
    return slices[lower] * (1 - share) + slices[lower + 1] * share


def _rician(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of a complex signal with normal noise in both channels."""
    real = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sd)
    imaginary = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sd)
    return np.sqrt(real * real + imaginary * imaginary)
