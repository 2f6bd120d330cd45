"""Liver lesions: metastases, some with a bright rim or a dark core, and cysts.

Sizes: log-normal between 5 and 60 mm, about as in LiTS, whose tumours measure 38 mm3 to 349 cm3 (Bilic et al., Med Image
Anal 2023;84:102680; diameters of 4 to 87 mm as balls; recalled, not checked), half of them under 2 cm.
Looks: of 74 colorectal metastases in the portal venous phase 62 had an enhancing rim, 36 a thick rim, 38 a denser centre
(Ann Acad Med Singapore 2003;32:191); on CT most are darker than the liver by 20 to 70 HU (recalled). Rims that outshine
the liver itself are few. Small lesions of even and very low density are mostly cysts, sharp-edged and near water
(PubMed 12439304: 78 % of 881 lesions under 15 mm in patients with gastric and colorectal cancer were benign,
6.4 +- 3.1 mm wide, most with a sharp margin and very dark); LiTS counts them rarely as tumours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sg.cohorts.phantom.opacities import Opacity, lobes, measured, organ_around, unevenness
from sg.cohorts.phantom.places import Ground, clear_of, tries

SIZE_MM = (5.0, 60.0)
APART_MM = 5.0
NATIVE_HU = (
    56.0  # the liver without contrast medium: what a cyst's `hu` is the difference from, as it takes up none
)
CYSTS = 0.15
RIMS = 0.12


def draw_lesions(rng: np.random.Generator, count: int, ground: Ground) -> list[Opacity]:
    """So many lesions within the liver; `hu` is their difference from it. InputError where there is no room."""
    liver = ground.d["liver"]
    lesions: list[Opacity] = []
    for _ in tries(lesions, count, "liver lesions (lesions)"):
        cyst = rng.random() < CYSTS
        diameter = float(np.clip(rng.lognormal(np.log(10.0 if cyst else 18.0), 0.6), *SIZE_MM))
        points = ground.among(liver < -0.35 * diameter, rng, 8)
        centres = np.array([o.centre_mm for o in lesions]).reshape(-1, 3)
        radii = np.array([o.diameter_mm / 2 for o in lesions])
        where = next((p for p in points if clear_of(p, diameter / 2, centres, radii, APART_MM)), None)
        if where is None:
            continue
        drawn = draw_lesion(rng, "cyst" if cyst else "metastasis", where, diameter)
        seen = measured(
            replace(drawn, organ=organ_around(liver, ground.lattice, where, 1.5 * drawn.reach_mm + 4))
        )
        if seen.diameter_mm >= max(SIZE_MM[0], 0.7 * diameter):
            lesions.append(seen)
    return lesions


def draw_lesion(rng: np.random.Generator, kind: str, centre: np.ndarray, diameter: float) -> Opacity:
    """A cyst or a metastasis about a centre, of about some diameter."""
    radius = diameter / 2
    if kind == "cyst":
        hu = float(rng.normal(8, 5)) - NATIVE_HU
        return Opacity(kind, centre, diameter, lobes(rng, centre, radius, 0), hu)
    pieces = lobes(rng, centre, radius, int(rng.integers(1, 5)))
    look = Opacity(
        kind,
        centre,
        diameter,
        pieces,
        hu=-float(np.clip(rng.normal(38, 15), 10, 75)),
        round_mm=0.35 * radius,
        uneven=unevenness(rng, centre, radius, 0.1),
        edge_mm=float(rng.uniform(1, 4)),
    )
    if diameter > 10 and rng.random() < RIMS:
        inner = tuple(p.scaled(0.78, centre) for p in pieces)
        return replace(look, hu=float(rng.uniform(5, 30)), cores=inner, core_hu=look.hu)
    if diameter > 14 and rng.random() < 0.5:
        core = lobes(rng, centre, radius * rng.uniform(0.35, 0.6), 2)
        return replace(look, cores=core, core_hu=look.hu + float(rng.uniform(-28, 14)))
    return look
