"""Gliomas: what is drawn of them, how they push the brain, and where core, rim and oedema end up.

Volumes are fitted to 53 high-grade and 11 low-grade cases of the BraTS 2018 validation set, for which the label counts
of a good network (DMFNet, whole tumour Dice 0.91) are published beside its code: high grade, core median
28 ml (s.d. of the logarithm 0.80), oedema 49 ml (0.69), uncorrelated, enhancing share of the core 0.71 +- 0.15, whole
tumour 95 +- 40 ml; low grade, core 57 ml (2.1, here narrowed to 1.0), oedema 34 ml (1.5, here 1.1), whole 107 ml.
Sites: frontal 40, temporal 29, parietal 14, occipital 3 %, deep 14 % (Larjavaara et al., Neuro-Oncology 2007;9:319).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom.brain.anatomy import Draw, Head, atlas_positions, shapes
from sg.cohorts.phantom.brain.loops import travel_times
from sg.cohorts.phantom.fields import Lattice, draw_noise

LOW_GRADE_SHARE = 75 / 285  # of BraTS 2018
LOBES = {"frontal": 0.40, "temporal": 0.29, "parietal": 0.14, "occipital": 0.03, "deep": 0.14}


@dataclass(frozen=True)
class Tumour:
    """A glioma as drawn: place and sizes; its form comes from `draw` as it grows."""

    grade: str  # HGG or LGG
    lobe: str
    centre_mm: np.ndarray  # x, y, z
    core_ml: float
    oedema_ml: float
    enhancing: float  # share of the core, 0 for none
    push: float  # volume that the tumour adds to the brain over the core's
    axes: np.ndarray  # (3, 3): stretches and turns the core

    @property
    def radius_mm(self) -> float:
        """Of the ball of the core's volume."""
        return float((3 * self.core_ml * 1000 / (4 * np.pi)) ** (1 / 3))


def draw_grade(draw: Draw) -> tuple[str, float]:
    """Grade and age: 60 +- 12 years in high grade (BraTS 2018's survival table), 42 +- 13 in low grade (recalled)."""
    rng = draw("grade")
    grade = "LGG" if rng.random() < LOW_GRADE_SHARE else "HGG"
    mean, sd, least, most = (42, 13, 19, 75) if grade == "LGG" else (60.3, 12.0, 20, 88)
    return grade, round(float(np.clip(rng.normal(mean, sd), least, most)), 3)


def draw_tumour(draw: Draw, head: Head, grade: str) -> Tumour:
    """A tumour in that head, where there is room for it."""
    rng = draw("tumour")
    if grade == "HGG":
        core = float(np.clip(rng.lognormal(np.log(28), 0.75), 3, 110))
        oedema = float(np.clip(rng.lognormal(np.log(49), 0.65), 6, 170))
        enhancing = float(np.clip(rng.normal(0.71, 0.15), 0.25, 0.98))
        push = float(rng.uniform(0.4, 1.0))
    else:
        core = float(np.clip(rng.lognormal(np.log(42), 0.85), 4, 110))
        oedema = float(np.clip(rng.lognormal(np.log(26), 1.0), 1.5, 110))
        enhancing = float(rng.uniform(0.02, 0.12)) if rng.random() < 0.25 else 0.0
        push = float(rng.uniform(0.08, 0.4))
    stretch = np.exp(rng.normal(0, 0.16, 3))
    turn, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    axes = turn @ np.diag(stretch / stretch.prod() ** (1 / 3))
    radius = (3 * core * 1000 / (4 * np.pi)) ** (1 / 3)
    lobe = str(rng.choice(list(LOBES), p=list(LOBES.values())))
    centre = _site(rng, head, lobe, radius)
    return Tumour(grade, lobe, centre, core, oedema, enhancing, push, axes)


def lobes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """Which atlas positions lie in which lobe, roughly: bool arrays."""
    side = np.abs(x)
    below = z < 0.8 + 0.42 * y - 2  # the lateral fissure
    deep = (side < 30) & (np.abs(y - 8) < 38) & (np.abs(z - 8) < 20)
    occipital = y > 62
    temporal = below & (z < 14) & (y > -24) & (y < 50) & (side > 22)
    frontal = (y < -6 + 0.42 * (z - 10)) & ~temporal
    parietal = ~frontal & ~temporal & ~occipital
    parts = {"temporal": temporal, "frontal": frontal, "parietal": parietal, "occipital": occipital}
    return {name: part & ~deep for name, part in parts.items()} | {"deep": deep}


def _site(rng: np.random.Generator, head: Head, lobe: str, radius_mm: float) -> np.ndarray:
    """A centre in the lobe, where a good part of the ball of that radius lies in the brain."""
    axes = (np.arange(low + 2, high, 4.0) for low, high in ((40, 200), (30, 225), (5, 150)))
    lattice = Lattice(*axes)
    d = shapes(head, lattice)
    position = atlas_positions(head, lattice)["cerebrum"]
    there = lobes(*position)[lobe]
    # White matter and the cortex' lower side; a small tumour may lie anywhere, a large one needs depth.
    room = np.minimum(d["depth"] - 4, np.minimum(-d["mask"] - 6, d["ventricles"] + 2))
    room = np.minimum(room, np.minimum(d["stem"], d["cerebellum"]))
    for share in (0.4, 0.25, 0.0):
        fits = np.flatnonzero(there & (room > share * radius_mm))
        if len(fits):
            break
    if not len(fits):
        fits = np.array([int(np.argmax(np.where(there, room, -np.inf)))])
    k, j, i = np.unravel_index(int(rng.choice(fits)), room.shape)
    return np.array([lattice.x[i], lattice.y[j], lattice.z[k]]) + rng.uniform(-2, 2, 3)


def pushed(tumour: Tumour, lattice: Lattice, mask_mm: np.ndarray) -> np.ndarray:
    """How far the tumour has pushed what now lies at the points of a lattice, float32 (3: x, y, z; z, y, x).

    Tissue makes way along the radius and keeps its volume: what lies at r came from r0, where r^3 - r0^3 is the added
    volume over 4 pi / 3, all of it from some way outside the centre on. Under the skull nothing moves.
    """
    x, y, z = (g - np.float32(c) for g, c in zip(lattice.grids, tumour.centre_mm, strict=True))
    r = np.sqrt(x * x + y * y + z * z) + np.float32(0.1)
    added = 3000 / (4 * np.pi) * (tumour.push * tumour.core_ml + 0.12 * tumour.oedema_ml)
    cube = r**3
    came = np.cbrt(cube - np.float32(added) * (1 - np.exp(-cube / np.float32(added))))
    way = (1 - came / r) * np.clip(-mask_mm / 14, 0, 1)
    return np.stack([way * x, way * y, way * z]).astype(np.float32)


def core_field(tumour: Tumour, lattice: Lattice, allowed: np.ndarray, draw: Draw) -> np.ndarray:
    """Distance-like field (mm), negative in the core, whose volume is as drawn: float32 (z, y, x)."""
    rel = [g - np.float32(c) for g, c in zip(lattice.grids, tumour.centre_mm, strict=True)]
    total = None
    for row in tumour.axes.T.astype(np.float32):
        part = (row[0] * rel[0] + row[1] * rel[1] + row[2] * rel[2]) ** 2
        total = part if total is None else total + part
    field = np.sqrt(total)
    radius = tumour.radius_mm
    for purpose, step, sd in (
        ("core form", 0.85, 0.22),
        ("core edge", 0.36, 0.10),
        ("core fringe", 0.16, 0.035),
    ):
        noise = draw_noise(
            draw(purpose), tumour.centre_mm, 2.4 * radius, step * radius, sd * radius, components=1
        )
        field = field + noise.on(lattice)[0]
    return field - level(field, allowed, tumour.core_ml, lattice)


def rim_field(
    tumour: Tumour, core: np.ndarray, lattice: Lattice, inside: np.ndarray, draw: Draw
) -> np.ndarray:
    """Distance-like field (mm), negative in the necrosis of an enhancing core, where the rim is of uneven thickness."""
    radius = tumour.radius_mm
    noise = draw_noise(
        draw("rim"), tumour.centre_mm, 2.4 * radius, 0.45 * radius, 0.13 * radius, components=1
    )
    fine = draw_noise(draw("rim edge"), tumour.centre_mm, 2.4 * radius, 3.5, 0.6, components=1)
    field = core + noise.on(lattice)[0] + fine.on(lattice)[0]
    return np.maximum(
        field - level(field, inside, tumour.core_ml * (1 - tumour.enhancing), lattice),
        core + 1.2,  # some rim everywhere
    )


def oedema_times(
    tumour: Tumour, lattice: Lattice, white: np.ndarray, grey: np.ndarray, core: np.ndarray, draw: Draw
) -> tuple[np.ndarray, float]:
    """Travel times from the core through the tissue, and up to which time the oedema reaches: float32 (z, y, x).

    It runs along white matter, hardly into grey matter and not into fluid. `white` and `grey` are shares (z, y, x).
    """
    noise = draw_noise(draw("oedema"), tumour.centre_mm, 130, 11, 0.55, components=1).on(lattice)[0]
    broad = draw_noise(draw("oedema reach"), tumour.centre_mm, 130, 34, 0.5, components=1).on(lattice)[0]
    speed = (white + np.float32(0.16) * grey) * np.exp(noise + broad)
    tissue = (white + grey) > 0.5
    speed[~tissue] = 0
    times = travel_times(speed.astype(np.float32), core < 0, float(np.mean(lattice.spacing_mm)), 3)
    return times, level(times, tissue & (core > 0), tumour.oedema_ml, lattice)


def level(field: np.ndarray, allowed: np.ndarray, volume_ml: float, lattice: Lattice) -> float:
    """The value under which the field lies in the given volume of the allowed voxels, or in all of them."""
    values = field[allowed]
    count = round(volume_ml * 1000 / float(np.prod(lattice.spacing_mm)))
    if count <= 0 or not len(values):
        return -np.inf
    return float(np.partition(values, min(count, len(values) - 1))[min(count, len(values) - 1)])
