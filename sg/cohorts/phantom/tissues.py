"""How dense each tissue is, in HU at 120 kV, without and with contrast medium.

Means and spreads between patients are from the literature where a source stands; the others are what textbooks give
(Prokop and Galanski, Spiral and Multislice Computed Tomography of the Body, Thieme 2003; recalled, not checked), with
a spread of about a tenth. Every key is a mean; texture within a tissue is the painters'.
"""

from __future__ import annotations

from typing import Literal

from sg.cohorts.phantom.anatomy import Draw
from sg.cohorts.phantom.habitus import draw_habitus

# Chest angiography about half a minute after the injection; an abdominal scan after more than a minute.
Phase = Literal["none", "arterial", "venous"]

# Without contrast medium: (mean, standard deviation between patients).
UNENHANCED: dict[str, tuple[float, float]] = {
    # Subcutaneous fat; what lies in the trunk holds small vessels and septa: -101 and -93 HU in men and women of the
    # Framingham study (Rosenquist et al., JACC Cardiovasc Imaging 2013;6:762; recalled, not checked).
    "fat": (-109, 6), "mediastinum": (-102, 6), "muscle": (52, 5), "skin": (45, 10), "gland": (38, 8),
    "heart": (47, 3.5),  # the septum shows against blood under about 38 HU (Foster et al., Can Assoc Radiol J 2003;54:26)
    # In livers without fat the spleen is 1 to 18 HU less dense than the liver (Park et al., Radiology 2011;258:760).
    "spleen": (51.5, 4.3),
    "kidneys": (31, 4), "medulla": (30, 4), "pancreas": (40, 8), "adrenals": (22, 12), "wall": (40, 5), "soft": (42, 6),
    "bowel": (30, 10), "fluid": (16, 10), "bile": (9, 5), "nodes": (38, 8),
    "thyroid": (105, 16),  # its iodine shows (recalled, not checked)
    "cartilage": (95, 15), "disc": (85, 12), "cord": (34, 6), "cerebrospinal": (12, 6),
    # Compact bone; much of what a voxel of the shell shows is partial volume.
    "cortex": (1050, 130), "lung": (-850, 22),
}  # fmt: skip

# Rise with contrast medium. In a chest angiogram the right heart may be denser than the left or less, as the bolus is
# early or late; aortic 290 to 360, portal 145 +- 20 and a liver 20 to 30 above its unenhanced value belong to a later
# arterial phase (Radiopaedia, "late arterial phase", revised 2023). More than a minute after the injection a liver
# rises by 50 HU, aorta and portal vein reach 150 to 180 (Bae, Radiology 2010;256:32; recalled, not checked).
RISES: dict[str, dict[str, tuple[float, float]]] = {
    "arterial": {
        "blood": (255, 70), "blood_right": (290, 110), "cava_upper": (380, 170), "cava_lower": (25, 20),
        "portal": (45, 35), "hepatic": (10, 8), "heart": (62, 18), "liver": (16, 9), "spleen": (62, 20),
        "kidneys": (115, 28), "medulla": (28, 14), "pancreas": (48, 16), "adrenals": (38, 12), "thyroid": (75, 25),
    },
    "venous": {
        "blood": (112, 18), "blood_right": (112, 18), "cava_upper": (110, 20), "cava_lower": (75, 28),
        "portal": (124, 20), "hepatic": (112, 24), "heart": (62, 13), "liver": (50, 11), "spleen": (68, 12),
        "kidneys": (148, 22), "medulla": (122, 30), "pancreas": (54, 14), "adrenals": (42, 12), "thyroid": (70, 20),
    },
}  # fmt: skip
RISES_ANY: dict[str, tuple[float, float]] = {
    "muscle": (10, 3), "wall": (36, 11), "soft": (24, 8), "nodes": (32, 12), "gland": (16, 8), "skin": (8, 4),
}  # fmt: skip


def draw_hu(draw: Draw, phase: Phase) -> dict[str, float]:
    """Mean HU of each tissue of a person (`draw` is the person's) in a phase of the contrast medium.

    The unenhanced values of a person are the same in every phase, and a rise never makes a tissue less dense.
    """
    rng = draw("tissues")
    hu = {name: rng.normal(mean, sd) for name, (mean, sd) in UNENHANCED.items()}
    # 58.8 +- 10.8 HU in 3,357 adults, 6.2 % of them at 40 or less (Boyce et al., AJR 2010;194:623).
    fatty, healthy = rng.normal(28, 10), rng.normal(61.2, 7)
    hu["liver"] = fatty if rng.random() < 0.07 else healthy
    # Interquartile ranges of blood: 40 to 47.5 HU, in anaemia 25 to 36 (Sci Rep 2022;12:21380).
    pale, red = rng.normal(31, 6), rng.normal(44, 4.5)
    blood = pale if rng.random() < 0.2 else red
    hu |= dict.fromkeys(("blood", "blood_right", "cava_upper", "cava_lower", "portal", "hepatic"), blood)
    # 226 +- 44 HU under 30 years, 2.5 HU less for every year (first lumbar vertebra; Jang et al., Radiology 2019;291:360).
    age = draw_habitus(draw("habitus")).age_years
    hu["marrow"] = max(226 - 2.5 * (age - 27) + rng.normal(0, 36), 45)
    hu["muscle"] -= 0.2 * (age - 60)  # fat grows into it
    if phase != "none":
        rng = draw(f"contrast/{phase}")
        for name, (mean, sd) in (RISES[phase] | RISES_ANY).items():
            hu[name] += max(rng.normal(mean, sd), 0.1 * mean)
    return {name: float(value) for name, value in hu.items()}
