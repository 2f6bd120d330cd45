"""A patient's build, and how large it lets one expect the organs to be.

Sources: height, weight: means between those of Chinese adults, whose livers the liver formula is of, and of American
ones (NHANES 2007-2010, Vital Health Stat 11 2012;252: men 176, women 162 cm; figures recalled, not checked), standard
deviations 6.5 to 7 cm. Age: that of people who get a chest CT (screening trials take them at 55 to 74). Body surface:
Mosteller, N Engl J Med 1987;317:1098. Total lung capacity: Hall et al., Eur Respir J 2021;57:2000289 (GLI), supine CT
volume about 0.89 of it: 5.34 +- 1.20 l on CT (Garfield et al., Int J COPD 2012, PMC3292389), and 10 % less lying than
standing (Yamada et al., Respiration 2020;99:598, PMC7490509), where the lobes' shares are from too. Liver: Feng et al.,
World J Gastroenterol 2017;23:4968, 1205 +- 258 ml. Spleen: J Clin Diagn Res 2019, 195 +- 78 ml.
Thickness of fat and size of breasts are from no table: bodies are to be as wide and thick as real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

Sex = Literal["female", "male"]

_HEIGHT_CM = {"female": (160.5, 6.5), "male": (173.0, 7.0)}
BMI = (24.8, 0.15)  # median, standard deviation of the logarithm; kg/m2
BUILD_CM, BUILD_SURFACE_M2 = 166.8, 1.79  # mean height and body surface of the above
_FAT_MM = {"female": 15.0, "male": 12.0}

LIVER_ML, LIVER_ML_PER_M2, LIVER_REST_ML = 1205.0, 758.26, 215.6
SPLEEN_ML = (195.0, 78.0)
SUPINE_CT = 0.885  # of the total lung capacity in a body plethysmograph
LUNG_CHANCE, LUNG_INSPIRATION = 0.12, 0.06  # standard deviations of the logarithm of the lungs' volume
# Shares of the lungs' volume in %: (mean, what it loses when the left lung gains 1, standard deviation besides).
LEFT_LUNG_SD = 1.5
LOBES = {
    "lung_right_upper": (17.9, -0.33, 2.35),
    "lung_right_middle": (9.3, -0.17, 1.58),
    "lung_right_lower": (26.5, -0.50, 2.49),
    "lung_left_upper": (23.1, 0.20, 2.08),
    "lung_left_lower": (23.2, 0.80, 2.08),
}


@dataclass(frozen=True)
class Habitus:
    """Build of one adult. `fat_mm` lies under all of the skin, `belly_mm` besides in front of the abdomen.

    `breast_mm` is a breast's radius, 0 for none.
    """

    sex: Sex
    age_years: float
    height_cm: float
    weight_kg: float
    fat_mm: float
    belly_mm: float
    breast_mm: float

    @property
    def bmi(self) -> float:
        """kg / m2."""
        return self.weight_kg / (self.height_cm / 100) ** 2

    @property
    def surface_m2(self) -> float:
        """Body surface by Mosteller's formula."""
        return float(np.sqrt(self.height_cm * self.weight_kg / 3600))

    @property
    def lung_capacity_l(self) -> float:
        """Total lung capacity that is expected at this sex, age and height, l."""
        age, height = np.log(self.age_years), np.log(self.height_cm)
        if self.sex == "male":
            return float(np.exp(-10.5861 + 0.1433 * age + 2.3155 * height))
        return float(np.exp(-10.1128 + 0.1062 * age + 2.2259 * height))


@dataclass(frozen=True)
class Sizes:
    """The volumes that a patient's organs will have in the image, ml; `lobes` by label, which make up both lungs."""

    liver_ml: float
    spleen_ml: float
    lobes_ml: dict[str, float]

    @property
    def lungs_ml(self) -> float:
        return sum(self.lobes_ml.values())

    def lung_ml(self, name: str) -> float:
        """Volume of one lung (`lung_right` or `lung_left`)."""
        return sum(volume for lobe, volume in self.lobes_ml.items() if lobe.startswith(name))


def draw_habitus(rng: np.random.Generator) -> Habitus:
    """One adult's build."""
    sex: Sex = "female" if rng.random() < 0.5 else "male"
    age = float(np.clip(rng.normal(61, 12), 25, 90))
    height = float(_HEIGHT_CM[sex][0] + _HEIGHT_CM[sex][1] * _bounded(rng))
    bmi = float(BMI[0] * np.exp(BMI[1] * _bounded(rng)))
    stout = (bmi / BMI[0]) ** 2
    fat = _FAT_MM[sex] * stout * np.exp(0.22 * _bounded(rng))
    belly = fat * rng.uniform(0, 0.5 if sex == "male" else 0.3)
    breast = rng.uniform(42, 56) * stout**0.2 if sex == "female" else 0.0
    fat = float(np.clip(fat, 4, 34))
    return Habitus(sex, age, height, bmi * (height / 100) ** 2, fat, float(min(belly, 14)), float(breast))


def draw_sizes(habitus: Habitus, inspiration: float, rng: np.random.Generator) -> Sizes:
    """Organ volumes of a patient; `inspiration` in standard deviations from that of an ordinary deep breath."""
    expected = LIVER_ML + LIVER_ML_PER_M2 * (habitus.surface_m2 - BUILD_SURFACE_M2)
    liver = max(expected + LIVER_REST_ML * _bounded(rng), 560.0)
    # Volumes of spleens are skewed: a log-normal distribution of that mean and standard deviation.
    spread = np.sqrt(np.log1p((SPLEEN_ML[1] / SPLEEN_ML[0]) ** 2))
    spleen = SPLEEN_ML[0] * np.exp(spread * _bounded(rng) - spread**2 / 2)
    lungs = 1000 * SUPINE_CT * habitus.lung_capacity_l
    lungs *= np.exp(LUNG_CHANCE * _bounded(rng) + LUNG_INSPIRATION * inspiration)
    return Sizes(
        float(liver), float(spleen), {k: float(v * lungs / 100) for k, v in _draw_shares(rng).items()}
    )


def _draw_shares(rng: np.random.Generator) -> dict[str, float]:
    """Each lobe's share of the lungs' volume in %, together 100.

    One draw moves volume from one lung to the other; in each lung the lobes vary besides, with sum 0: independent
    normal draws less their sum, which each lobe gives back in proportion to its variance.
    """
    shift = LEFT_LUNG_SD * _bounded(rng)
    shares = {}
    for side in ("lung_right", "lung_left"):
        lobes = {name: lobe for name, lobe in LOBES.items() if name.startswith(side)}
        variances = _unconditioned(tuple(sd**2 for _, _, sd in lobes.values()))
        drawn = np.array([np.sqrt(v) * _bounded(rng) for v in variances])
        drawn -= variances / variances.sum() * drawn.sum()
        for (name, (mean, gain, _)), own in zip(lobes.items(), drawn, strict=True):
            shares[name] = mean + gain * shift + float(own)
    return shares


@cache
def _unconditioned(variances: tuple[float, ...]) -> np.ndarray:
    """Variances v of independent normal variables that have the given ones once their sum is known to be 0.

    Then each has v - v^2 / sum(v).
    """
    wanted = np.array(variances)
    v = 2 * wanted
    for _ in range(200):
        v = wanted / (1 - v / v.sum())
    return v


def _bounded(rng: np.random.Generator) -> float:
    """A standard normal draw, those beyond 2.6 moved there: nobody is a freak."""
    return float(np.clip(rng.normal(), -2.6, 2.6))
