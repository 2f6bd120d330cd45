"""What some patients have and the atlas has not: variants of the chest (layer d of the anatomy).

An azygos lobe, fluid in the pleural space, emphysema, a bent spine, a lobe that a surgeon took out. `draw_variants`
chooses, before anything is known of the patient's organs; `apply` changes the organs' distances accordingly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sg.cohorts.phantom.atlas import CAVITY, Z_CAVITY
from sg.cohorts.phantom.fields import Lattice, smooth_maximum

if TYPE_CHECKING:
    from sg.cohorts.phantom.anatomy import Patient

FAR_MM = 99.0  # the distance to what a patient has not
LOBES = {
    "lung_right": ("lung_right_upper", "lung_right_middle", "lung_right_lower"),
    "lung_left": ("lung_left_upper", "lung_left_lower"),
}
# How often each variant is the first of a patient who has any. Cohorts are to hold all of them, so the rare ones stand in
# here on purpose far above their share of the population: an azygos lobe is found on 1.2 % of CTs (Aziz et al., J Thorac
# Imaging 2004;19:186), in 0.3 % by all studies together (Clin Anat 2021, doi 10.1002/ca.23737); a lobectomy in fewer
# still. The others are common: emphysema on 28.5 % of baseline CTs of smokers and 1.6 % of never smokers' (Henschke et
# al., Lung Cancer 2015;88:42), scoliosis on 8.3 % of adults' chest films (Carter and Haynes, Int J Epidemiol 1987;16:537).
FIRST = {"emphysema": 0.3, "effusion": 0.25, "scoliosis": 0.2, "removed": 0.15, "azygos": 0.1}
ANOTHER = 0.12  # chance of each other variant beside the first
# Which lobe was taken out: upper ones most often, as cancers lie (5 lobes, sum 1).
REMOVED = {
    "lung_right_upper": 0.32,
    "lung_right_middle": 0.08,
    "lung_right_lower": 0.2,
    "lung_left_upper": 0.25,
    "lung_left_lower": 0.15,
}
DOME_RISE_MM = (8.0, 24.0)  # of the diaphragm over a removed lobe; the middle lobe is small and counts half


@dataclass(frozen=True)
class Effusion:
    """Free fluid in one pleural space of a patient lying on the back; `depth_mm` at its thickest."""

    side: str  # lung_right or lung_left
    depth_mm: float


@dataclass(frozen=True)
class Variants:
    """Which variants a patient has. The default has none."""

    scoliosis_mm: float = 0.0  # the spine's sideways bend, positive to the left; built into the organs' maps
    azygos: bool = False
    effusion: Effusion | None = None
    emphysema: float = 0.0  # severity: the share of the lungs' worst regions that is destroyed, 0 to 1
    removed_lobe: str | None = None  # label of the lobe
    rise_mm: float = 0.0  # how much higher the diaphragm stands on that lobe's side

    def dome_rise_mm(self, lung: str) -> float:
        """How much higher than by its map this lung's dome of the diaphragm stands, mm."""
        return self.rise_mm if self.removed_lobe in LOBES[lung] else 0.0


NONE = Variants()


def draw_variants(rng: np.random.Generator, share: float) -> Variants:
    """The variants of one patient, who has any with probability `share`."""
    if rng.random() >= share:
        return NONE
    names = list(FIRST)
    chosen = {names[int(rng.choice(len(names), p=list(FIRST.values())))]}
    chosen |= {name for name in names if rng.random() < ANOTHER}
    lobe = str(rng.choice(list(REMOVED), p=list(REMOVED.values())))
    rise = float(rng.uniform(*DOME_RISE_MM)) * (0.5 if lobe == "lung_right_middle" else 1.0)
    effusion = Effusion(str(rng.choice(list(LOBES))), float(rng.uniform(14, 48)))
    # A bow of 200 mm with a Cobb angle of 15 to 45 degrees is high by an eighth of length times angle; most thoracic
    # curves are convex to the right (recalled, not checked).
    bend = float(rng.uniform(6, 22) * rng.choice([-1, 1], p=[0.7, 0.3]))
    return Variants(
        scoliosis_mm=bend if "scoliosis" in chosen else 0.0,
        azygos="azygos" in chosen and _divisible(chosen, lobe),
        effusion=effusion if "effusion" in chosen else None,
        emphysema=float(rng.uniform(0.15, 1.0)) if "emphysema" in chosen else 0.0,
        removed_lobe=lobe if "removed" in chosen else None,
        rise_mm=rise if "removed" in chosen else 0.0,
    )


def _divisible(chosen: set[str], lobe: str) -> bool:
    """Whether the right upper lobe, which an azygos fissure divides, is still there."""
    return not ("removed" in chosen and lobe == "lung_right_upper")


def without_counterpart(patient: Patient) -> frozenset[str]:
    """Labels that have no position in the atlas in this patient, though they have one in others.

    Where a lobe is missing the others of that lung have filled its place; an azygos fissure makes two of one lobe.
    """
    variants = patient.variants
    labels: set[str] = set()
    for lobes in LOBES.values():
        if variants.removed_lobe in lobes:
            labels |= set(lobes)
    if variants.azygos:
        labels.add("lung_right_upper")
    return frozenset(labels)


def apply(patient: Patient, lattice: Lattice, d: dict[str, np.ndarray]) -> None:
    """Change the distances `d` on a lattice to what this patient's variants make of them, in place.

    Reads lung_right, lung_left and the fissures; adds effusion and fissure_azygos (negative outward of the fissure),
    far away where there are none.
    """
    variants = patient.variants
    far = np.full(lattice.shape, FAR_MM, np.float32)
    d["effusion"], d["fissure_azygos"] = far, far
    if variants.removed_lobe is not None:
        _remove_lobe(variants.removed_lobe, d)
    if variants.azygos:
        d["fissure_azygos"] = _azygos_fissure(patient, lattice)
    if variants.effusion is not None:
        side = variants.effusion.side
        surface = _fluid_surface(patient, lattice, variants.effusion)
        space = d[side]
        d["effusion"] = np.maximum(space, surface)
        d[side] = smooth_maximum(space, -surface, 6)


def _remove_lobe(lobe: str, d: dict[str, np.ndarray]) -> None:
    """Move the fissures so that nothing of a lobe is left and its neighbours fill its place."""
    if lobe in LOBES["lung_left"]:
        d["fissure_left_oblique"] = np.full_like(
            d["fissure_left_oblique"], FAR_MM if lobe == "lung_left_upper" else -FAR_MM
        )
        return
    oblique, horizontal = d["fissure_right_oblique"], d["fissure_right_horizontal"]
    if lobe == "lung_right_upper":  # what is left turns upwards, the lower lobe most
        d["fissure_right_horizontal"] = np.full_like(horizontal, FAR_MM)
        d["fissure_right_oblique"] = oblique + np.float32(14)
    elif lobe == "lung_right_middle":
        d["fissure_right_horizontal"] = np.full_like(horizontal, -FAR_MM)
        d["fissure_right_oblique"] = oblique + np.float32(10)
    else:  # the middle lobe takes the base, the upper lobe the back
        d["fissure_right_oblique"] = np.full_like(oblique, -FAR_MM)


def _fluid_surface(patient: Patient, lattice: Lattice, effusion: Effusion) -> np.ndarray:
    """Distance to what lies behind the surface of free fluid (negative in it), if the pleural space went on.

    In a patient lying on the back the fluid is a sickle behind the lung, thickest a little above the base, thinning
    towards the apex, and creeping up the side wall.
    """
    x, y, z = patient.maps[effusion.side].to_atlas(lattice)
    depth = np.interp(z, [-200, -150, -110, -40, 30, 80], [0.8, 1.0, 0.95, 0.6, 0.2, 0.0])
    wall = np.interp(z, Z_CAVITY, CAVITY["back"])
    meniscus = 16 * np.maximum((np.abs(x) - 72) / 40, 0) ** 2
    level = wall - 2.5 - np.float32(effusion.depth_mm) * depth - meniscus
    return ((level - y) * np.float32(0.93)).astype(np.float32)


# The azygos vein in the lower edge of its fissure: atlas positions by the right lung's map.
AZYGOS_Z_MM, AZYGOS_RADIUS_MM = 16.0, 4.0


def _azygos_outward(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far to the right of the middle the azygos fissure lies: convex outward, most so half-way up, mm in the atlas."""
    bow = 30 + 16 * np.sin(np.clip((z - AZYGOS_Z_MM) / 64, 0, 1) * (0.75 * np.pi))
    return bow - 14 * ((y - 14) / 42) ** 2


def azygos_path(patient: Patient) -> np.ndarray:
    """The azygos vein's way (n, 3) in the patient, from beside the spine to the upper vena cava."""
    y = np.linspace(58, -26, 9)
    path = np.column_stack([-_azygos_outward(y, np.full(9, AZYGOS_Z_MM)), y, np.full(9, AZYGOS_Z_MM)])
    return patient.maps["lung_right"].to_patient(path)


def _azygos_fissure(patient: Patient, lattice: Lattice) -> np.ndarray:
    """Signed distance to a sheet from the azygos vein up to the apex, negative outward of it; far away below the vein."""
    x, y, z = patient.maps["lung_right"].to_atlas(lattice)
    sheet = (_azygos_outward(y, z) + x) * 0.9  # x grows to the left; the sheet's slope is about 0.5
    return np.where(z < AZYGOS_Z_MM, FAR_MM, sheet).astype(np.float32)
