"""One synthetic patient: the anatomy, in four layers that are drawn apart.

(a) The habitus: sex, age, height, weight, fat; all organs share the frame that follows from it. (b) The inspiration: it
widens the cage a little, lowers the carina against the spine, stretches the heart, and lets the lungs hold more, for
which the diaphragm stands lower. (c) Each organ's own size, shift, turn and shape (`organ_maps`); the volumes of lungs,
lobes, liver and spleen are drawn, and the organs fitted to them (`sizing`). (d) What has no counterpart in the atlas:
fat, the fissures' own curves, the variants, and what other modules draw (vessels, airways, findings).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom import atlas as average
from sg.cohorts.phantom import sizing, skeleton, surfaces, variants
from sg.cohorts.phantom.fields import Lattice, draw_noise
from sg.cohorts.phantom.habitus import (
    BMI,
    BUILD_CM,
    LUNG_INSPIRATION,
    SUPINE_CT,
    Habitus,
    Sizes,
    draw_habitus,
    draw_sizes,
)
from sg.cohorts.phantom.organ_maps import (
    BODY_MIDDLE_MM,
    BODY_REACH_MM,
    VARIATIONS,
    Frame,
    OrganMap,
    Variation,
    draw_map,
    rotation,
    times,
)
from sg.cohorts.phantom.surfaces import Fissure
from sg.cohorts.phantom.variants import Variants, draw_variants

__all__ = [
    "VARIATIONS", "Draw", "Fissure", "Habitus", "OrganMap", "Patient", "Sizes", "Survey", "Variation", "draw_patient",
    "shapes", "survey",
]  # fmt: skip

Draw = Callable[[str], np.random.Generator]

LUNGS_L = 5.3  # volume of the atlas' lungs as people of average build fill them
INSPIRATION_LOWERS_MM = 7.0  # the domes, for each standard deviation of inspiration
CHEST_SHARE = 0.8
FISSURE_NOISE_MM, FISSURE_STEP_MM = 4.5, 55.0
# How much of the way that the diaphragm stands higher or lower the heart on it and the organs below follow.
HEART_FOLLOWS = 0.55
_FOLLOWS = {
    "liver": ("lung_right", 0.85),
    "spleen": ("lung_left", 0.45),
    "stomach": ("lung_left", 0.35),
    "kidneys": ("lung_right", 0.1),
}


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: the organs' maps and what is not a map.

    `inspiration` is in standard deviations from an ordinary deep breath, `sizes` what the volumes were fitted to.
    """

    maps: dict[str, OrganMap]
    habitus: Habitus
    inspiration: float
    sizes: Sizes
    fissures: Mapping[str, Fissure]
    variants: Variants
    width: float  # size of the trunk along x relative to the atlas
    height: float  # and along z

    @property
    def fat_mm(self) -> float:
        """Thickness of the fat under the skin."""
        return self.habitus.fat_mm


SURVEY_MM = 8.0
# x, y, z of the patient: it holds every body
SURVEY_BOX_MM = ((-236.0, 236.0), (-180.0, 188.0), (-400.0, 200.0))


@dataclass(frozen=True)
class Survey:
    """The organs' distances (as `shapes` gives them) on a coarse lattice fixed to the patient, whatever is scanned."""

    lattice: Lattice
    d: dict[str, np.ndarray]


def survey(patient: Patient) -> Survey:
    """The whole body at a spacing of SURVEY_MM: to measure organs and to choose places by."""
    lattice = Lattice(*(np.arange(low, high + SURVEY_MM / 2, SURVEY_MM) for low, high in SURVEY_BOX_MM))
    return Survey(lattice, shapes(patient, lattice))


def carina_level(patient: Patient) -> int:
    """Number of the thoracic vertebra at whose level, disc below included, the carina lies.

    The atlas' carina (z = 0) lies at the disc below the fifth (at T5 to T6 in most people: Clin Anat 2016;29:165); the
    patient's where the spine's own map has it. Vertebrae are numbered as skeleton.DISC_PLANES: the first is C5's.
    """
    here = Lattice(*(np.array([v, v + 1.0]) for v in (0.0, 45.0, 0.0)))
    z = patient.maps["spine"].to_atlas(here)[2][0, 0, 0]
    wholly_above = int(np.count_nonzero(z < skeleton.DISC_PLANES))  # C5, C6, C7, T1, ...
    return wholly_above - 2


def draw_patient(draw: Draw, variants_share: float) -> Patient:
    """A patient, all of whose chance comes from `draw(purpose)`: one generator per organ, so that organs vary apart.

    `variants_share` is the chance of having any variant.
    """
    habitus = draw_habitus(draw("habitus"))
    inspiration = float(np.clip(draw("inspiration").normal(), -2.5, 2.0))
    sizes = draw_sizes(habitus, inspiration, draw("sizes"))
    own_variants = draw_variants(draw("variants"), variants_share)

    frames = _frames(habitus, inspiration, sizes, draw("frame"))
    bend = own_variants.scoliosis_mm
    maps = {
        name: draw_map(draw(name), VARIATIONS[name], frames[name], bend)
        for name in VARIATIONS
        if name not in surfaces.ABDOMEN
    }
    # Large lungs have grown in a large chest: most of what the organs' own sizes make a chest too small or too large by
    # is made up for by its scale, the rest by the diaphragm.
    lift = INSPIRATION_LOWERS_MM * -inspiration
    factor = sizing.chest_volume_ml(maps, lift) / sizes.lungs_ml
    factor = float(factor ** (-CHEST_SHARE / 3))
    maps = {name: organ.enlarged(factor, np.zeros(3)) for name, organ in maps.items()}
    fissures = {name: _draw_fissure(draw(name)) for name in surfaces.FISSURES}
    # The heart lies on the diaphragm, whose height hardly depends on where the heart is.
    lifts, _ = sizing.solve_chest(maps, sizes, fissures)
    maps["heart"] = maps["heart"].shifted((0, 0, HEART_FOLLOWS * float(np.mean(list(lifts.values())))))
    lifts, fissures = sizing.solve_chest(maps, sizes, fissures)
    for name, lift in lifts.items():
        maps[name] = maps[name].lifted(lift + own_variants.dome_rise_mm(name))

    abdomen = frames["abdomen"]
    for name, (lung, share) in _FOLLOWS.items():
        rise = _rise(maps[lung], lung, abdomen) * share
        frame = Frame(abdomen.matrix, abdomen.offset_mm + np.array([0, 0, rise]))
        maps[name] = draw_map(draw(name), VARIATIONS[name], frame, 0.0)
    maps["gall_bladder"] = draw_map(
        draw("gall_bladder"), VARIATIONS["gall_bladder"], _hung_on(maps["liver"], "gall_bladder"), 0.0
    )
    maps = sizing.solve_abdomen(maps, sizes)
    size = np.sqrt((np.linalg.inv(maps["body"].matrix) ** 2).sum(axis=0))
    return Patient(
        {name: maps[name] for name in VARIATIONS}, habitus, inspiration, sizes, fissures, own_variants,
        float(size[0]), float(size[2]),
    )  # fmt: skip


def _frames(habitus: Habitus, inspiration: float, sizes: Sizes, rng: np.random.Generator) -> dict[str, Frame]:
    """The frame of every organ's map, and that of the abdomen.

    Cages are as wide and deep as the lungs in them are large, and deeper in stout people; the rest of a lung's volume is
    the diaphragm's height. Height goes into the length of the trunk.
    """
    lungs = np.log(SUPINE_CT * habitus.lung_capacity_l / LUNGS_L)
    chance = np.log(sizes.lungs_ml / 1000 / LUNGS_L) - LUNG_INSPIRATION * inspiration - lungs
    stout, tall = np.log(habitus.bmi / BMI[0]), np.log(habitus.height_cm / BUILD_CM)
    wide = 0.31 * (lungs + chance) + 0.10 * stout + 0.006 * inspiration
    deep = 0.36 * (lungs + chance) + 0.15 * stout + 0.012 * inspiration
    long = 0.24 * (lungs + chance) + 0.25 * tall
    across = np.exp([wide, deep, long] + rng.normal(0, 1, 3) * (0.012, 0.015, 0.012))
    turn = rotation(rng.normal(0, 1, 3) * (1.0, 0.6, 1.5))
    cage = Frame.of(across, turn, (0, 0, 0))
    # With a deep breath the carina comes down a vertebra's third, and the heart hangs steeper.
    spine = Frame.of(across, turn, (0, 0, 5 * inspiration))
    heart = Frame.of(across * np.exp(np.array([-0.03, -0.01, 0.045]) * inspiration), turn, (0, 0, 0))
    # Fat in the belly makes the abdomen deep; how wide it is follows the cage only in part.
    abdomen = Frame.of(np.exp([0.6 * wide, 0.6 * deep + 0.1 * stout, 0.2 * long]), turn, (0, 0, 0))
    named = {"spine": spine, "heart": heart, "abdomen": abdomen}
    return {name: named.get(name, cage) for name in (*VARIATIONS, "abdomen")}


def _draw_fissure(rng: np.random.Generator) -> Fissure:
    noise = draw_noise(rng, BODY_MIDDLE_MM, BODY_REACH_MM, FISSURE_STEP_MM, FISSURE_NOISE_MM, components=1)
    return Fissure(0.0, noise)


def _rise(lung: OrganMap, name: str, frame: Frame) -> float:
    """How much higher a dome's top stands in the patient than where a frame puts the atlas' dome, mm."""
    top = np.array([[62.0 if name == "lung_left" else -62.0, 2.0, average.DOME_TOP_MM[name]]])
    stands = lung.to_patient(top)[0, 2]
    return float(stands - (times(frame.matrix, top) + frame.offset_mm)[0, 2])


def _hung_on(organ: OrganMap, name: str) -> Frame:
    """The frame of something that goes where an organ goes."""
    matrix = np.linalg.inv(organ.matrix)
    centre = np.array([VARIATIONS[name].centre_mm], float)
    return Frame(matrix, (organ.to_patient(centre) - times(matrix, centre))[0])


def shapes(patient: Patient, lattice: Lattice) -> dict[str, np.ndarray]:
    """Distance to each organ on a lattice of patient positions, float32 (z, y, x), negative inside.

    Keys: skin, trunk, cavity, above (the diaphragm), lung_right, lung_left, heart, aorta, great_vessels,
    pulmonary_artery, trachea, esophagus, spine (bodies and discs), middle (all of these from the heart on, with a rim),
    sternum, liver, gall_bladder, spleen, stomach, kidneys; and signed distances, negative above and in front:
    fissure_right_oblique, fissure_right_horizontal (which counts above the oblique one only), fissure_left_oblique; and
    what `variants.apply` adds. Distances to organs in the chest's middle and to the abdomen's are surfaces.REACH_MM at
    most.
    """
    maps = patient.maps
    d = surfaces.wall(maps, lattice) | surfaces.middle(maps, lattice)
    d["skin"] = surfaces.skin(patient.habitus, maps["body"].to_atlas(lattice), d["trunk"])
    d["above"] = surfaces.above(maps, lattice)
    d["sternum"] = skeleton.sternum(maps["sternum"].to_atlas(lattice))
    d["middle"] = surfaces.with_rims(d)
    d["heart"] = surfaces.heart(d)
    for name in ("lung_right", "lung_left"):
        a = maps[name].to_atlas(lattice)
        d[name] = surfaces.over_diaphragm(surfaces.around_lung(name, a, d), d["above"])
        for fissure, (lung, _) in surfaces.FISSURES.items():
            if lung == name:
                own = patient.fissures[fissure]
                d[fissure] = surfaces.fissure(fissure, a, own.noise.on(lattice)[0] + np.float32(own.shift_mm))
    bounds = np.maximum(surfaces.below_diaphragm(d), -surfaces.central(d))
    for name in surfaces.ABDOMEN:
        d[name] = surfaces.abdominal(name, maps[name], lattice, d, bounds)
    variants.apply(patient, lattice, d)
    return d
