"""What the phantoms should be like: each target with its source, fixed before any phantom was measured.

`reference` is what people or real scans are like, `low` and `high` the tolerance that the phantoms' figure must lie
in; where a spread is given too, it has a tolerance of its own. Tolerances: the mean within half a standard deviation of
the source's, the standard deviation within a factor of 1.5 (2 where it comes from five scans), unless a reason stands
beside. `docs/phantom.md` says how each is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.realism.cohort import LOBES


@dataclass(frozen=True)
class Target:
    """One figure's target. `real`: what the five chests of SG_REAL_CT measure by the same code, where that can be."""

    name: str
    reference: str
    low: float
    high: float
    source: str
    spread: tuple[float, float] | None = None
    real: str = ""
    digits: int = 2

    def met(self, value: float, spread: float | None = None) -> bool:
        """Whether a figure, and its spread where one is asked for, lies within the tolerance; NaN never does."""
        inside = self.low <= value <= self.high
        if self.spread is not None:
            inside &= spread is not None and self.spread[0] <= spread <= self.spread[1]
        return bool(inside)


def population(name: str, mean: float, sd: float, source: str, factor: float = 1.5, **more: object) -> Target:
    """A target for a quantity that people have with this mean and standard deviation."""
    return Target(
        name, f"{mean:g} ± {sd:g}", mean - sd / 2, mean + sd / 2, source, (sd / factor, sd * factor), **more
    )


CHECKED, RECALLED = "abstract checked", "recalled, not checked"
LOBE_SHARES = {
    "lung_right_upper": (17.9, 2.4), "lung_right_middle": (9.3, 1.6), "lung_right_lower": (26.5, 2.6),
    "lung_left_upper": (23.1, 2.1), "lung_left_lower": (23.2, 2.4),
}  # fmt: skip
YAMADA = "Yamada et al., Respiration 2020 (PMC7490509), 32 volunteers, supine; table 3 checked"
REAL = "five chests of SG_REAL_CT, by the same code"
SOUND = "the three of them with sound lungs, 6 ordered pairs"

# Quantiles of HU (5, 15, ... 95 %) of the five chests at about 3 mm, mean over scans, and the largest distance of one of
# them from the mean of the others.
REAL_LUNG = np.array([-927.1, -890.7, -871.6, -854.0, -837.2, -818.0, -793.8, -756.2, -673.0, -456.1])
REAL_REST = np.array([-118.2, -97.7, -75.9, -47.8, -14.7, 16.0, 38.4, 55.8, 91.1, 316.4])

TARGETS = (
    population("liver volume, ml", 1205, 258, f"Feng et al., WJG 2017;23:4968, 369 adults; {CHECKED}", digits=0),
    Target(
        "liver volume on body surface, R²", "0.30", 0.15, 0.45, f"the same (0.299); {CHECKED}"
    ),
    population("spleen volume, ml", 195, 78, f"Jasper, JCDR 2019;13(8):TC01, 100 patients; {CHECKED}", digits=0),
    Target(
        "spleen volume and body surface, size of the correlation", "none significant at n = 100", 0.0, 0.2,
        f"the same; Prassopoulos et al., Eur Radiol 1997;7:246: under 0.05, 140 patients; both {CHECKED}",
    ),
    population(
        "lung volume, l", 5.34, 1.20, f"Garfield et al., Int J COPD 2012 (PMC3292389), 59 patients; {CHECKED}"
    ),
    *(
        population(f"{lobe.removeprefix('lung_').replace('_', ' ')} lobe, % of the lungs", *LOBE_SHARES[lobe], YAMADA,
                   digits=1)
        for lobe in LOBES
    ),
    Target(
        "carina at T5 or T6, share", "most people", 0.5, 1.0,
        f"Clin Anat 2016;29:165, 100 thoracic CT; {CHECKED}",
    ),
    Target(
        "body box, front to back, mm", "248 to 284", 248, 284, "four real chests, rough masks (as given)",
        real="261 (240 to 273)", digits=0,
    ),
    Target(
        "body box, side to side, mm", "360 to 432", 360, 432, "four real chests, rough masks (as given)",
        real="386 (331 to 449)", digits=0,
    ),
    population(
        "lung box over body box, front to back", 0.76, 0.07, "four real chests, rough masks (as given)", 2.0,
        real="0.74 ± 0.03",
    ),
    population(
        "lung box over body box, side to side", 0.72, 0.06, "four real chests, rough masks (as given)", 2.0,
        real="0.69 ± 0.05",
    ),
    Target(
        "lung box's centre in the body box, front to back, s.d., mm", "about 6", 3, 12,
        "four real chests, rough masks (as given), a factor of 2", real="5.3", digits=1,
    ),
    Target(
        "lung box's centre in the body box, side to side, s.d., mm", "about 12", 2, 12,
        "from the real scans' figure by this code, less its own interval (1.8 to 8.6), to the one given", real="3.0",
        digits=1,
    ),
    Target(
        "effective dimension of the organs' centres", "at least 12", 12, 39, "as given; nothing found to check it by",
        digits=1,
    ),
    Target(
        "share of their variance that body and lung box explain", "at most 0.5", 0, 0.5,
        "as given; nothing found to check it by",
    ),
    Target(
        "organs of the chest after affine registration, mm", "6 to 10", 6, 10,
        f"as given; landmarks on chest CT of different patients, 8.4 ± 5.2: Yan et al., IEEE TMI 2022; {RECALLED}",
        digits=1,
    ),
    Target(
        "organs of the chest after B-spline registration, mm", "3 to 6", 3, 6, f"as given; {RECALLED}", digits=1,
    ),
    Target(
        "organs of the abdomen after B-spline registration, mm", "6 to 14", 6, 14,
        "liver landmarks between patients 10 to 12 mm after deformable registration: Zhao et al., ICCV 2019, as quoted "
        "in issue 59 of microsoft/Recursive-Cascaded-Networks; checked there", digits=1,
    ),
    Target(
        "lungs' surfaces after affine registration, mm", "4 to 8", 4, 8, SOUND, digits=1,
    ),
    Target(
        "lungs' surfaces after B-spline registration, mm", "2 to 4.5", 2, 4.5, SOUND, digits=1,
    ),
    Target(
        "HU of the lungs: distance of quantiles from real scans", "at most 59", 0, 59,
        f"{REAL}: the largest of one from the others", real="12 to 59", digits=0,
    ),
    Target(
        "HU of the body without lungs: distance of quantiles", "at most 37", 0, 37,
        f"{REAL}: the largest of one from the others", real="21 to 37", digits=0,
    ),
    Target("mean HU of the lungs, vessels included", "-818 to -738", -840, -740, REAL, real="-781 ± 32", digits=0),
    Target("15th percentile of HU in the lungs", "-908 to -866", -925, -866, REAL, real="-891 ± 16", digits=0),
    Target(
        "lung under -950 HU, %", "2.0 ± 2.7", 0, 4.7,
        f"Zach et al., Invest Radiol 2012 (PMC3703944), 92 healthy people; {CHECKED}", real="0.5 to 5.5", digits=1,
    ),
    Target("lung over -600 HU (vessels, walls, disease), %", "8 to 17", 7, 17, REAL, real="11 ± 4", digits=1),
    Target("noise in soft tissue at 3 mm, HU", "7 to 14", 6, 16, REAL, real="11 ± 3", digits=1),
    Target(
        "noise's mean frequency in plane, cycles a voxel", "0.29 to 0.35", 0.27, 0.36, REAL, real="0.31 ± 0.03"
    ),
    Target(
        "nodules' diameter, median, mm", "6.4", 5.4, 8.4,
        "LUNA16's annotations.csv, the first 139 of 1186 (quartiles 5.1 and 10.9, mean 8.4); checked in a public copy",
        digits=1,
    ),
    Target(
        "nodules that are solid or calcified, share", "0.88", 0.7, 0.95,
        "78 of 89 in NLST (BMC Med Imaging 2021, s12880-021-00594-4, table 2); checked. Rarer kinds may stand in more often",
    ),
    Target(
        "core of solid nodules of 8 mm and more, mean HU", "-50 to 80", -50, 80, RECALLED, digits=0,
    ),
)  # fmt: skip
