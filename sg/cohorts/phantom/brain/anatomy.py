"""The average brain as formulas, and how one head differs from it.

Atlas coordinates are those of the stereotaxic atlases but for the signs: mm from the anterior commissure, x to the
left, y to the back, z up; places and radii of structures are read off the MNI152 brain (recalled, not measured anew).
A head has four maps of its own to the atlas (cerebrum, deep structures, brain stem, cerebellum), drawn apart, so that
its parts differ from the atlas and from each other's differences. What no atlas has is drawn for each head: the
cortical folds, which are level sets of a narrow-band random field (gyri as wide as its half wavelength), the folia of
the cerebellum, and the veins along the sulci. Age widens ventricles and sulci and thins the cortex.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import fft

from sg.cohorts.phantom.brain.loops import level_distance, sampled
from sg.cohorts.phantom.fields import (
    Lattice,
    Noise,
    draw_noise,
    ellipsoid,
    interpolated,
    smooth_maximum,
    smooth_minimum,
    tubes_nearby,
)
from sg.cohorts.phantom.organ_maps import rotation

Draw = Callable[[str], np.random.Generator]

# Where the commissure lies in the data sets' frame of 240 x 240 x 155 mm, and the atlas' mean size in it (x, y, z), by
# which the masks' mean volume lies between those of two real brains there (1433 and 1603 ml).
COMMISSURE_MM = np.array([119.0, 117.0, 66.0])
MEAN_SIZE = np.array([0.965, 0.945, 0.90])
FIELD_MM = (240.0, 240.0, 155.0)


@dataclass(frozen=True)
class Variation:
    """How a part varies about its centre in the atlas: standard deviations (x, y, z where three)."""

    centre_mm: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    stretch: tuple[float, float, float]
    turn_deg: float
    noise_mm: float
    step_mm: float


VARIATIONS = {
    "cerebrum": Variation((0, 17, 15), (0.7, 1.5, 1.5), (0.015, 0.015, 0.02), 1.0, 1.8, 42),
    "deep": Variation((0, 8, 8), (0.5, 1.8, 1.8), (0.05, 0.05, 0.06), 2.0, 1.1, 26),
    "stem": Variation((0, 25, -28), (0.5, 1.5, 2.0), (0.06, 0.06, 0.05), 2.5, 0.9, 30),
    "cerebellum": Variation((0, 62, -32), (0.7, 2.0, 2.0), (0.04, 0.05, 0.06), 3.0, 1.6, 30),
}


@dataclass(frozen=True)
class PartMap:
    """Where a point of the head lies in the atlas, by one part: `matrix` @ (p - `origin_mm`) + noise(p)."""

    matrix: np.ndarray
    origin_mm: np.ndarray
    noise: Noise

    def on(self, lattice: Lattice) -> np.ndarray:
        """Atlas positions of a lattice, float32 (3: x, y, z; z, y, x)."""
        positions = self.noise.on(lattice)
        x, y, z = (g - np.float32(o) for g, o in zip(lattice.grids, self.origin_mm, strict=True))
        for total, row in zip(positions, self.matrix.astype(np.float32), strict=True):
            total += row[0] * x + row[1] * y + row[2] * z
        return positions


@dataclass(frozen=True)
class Head:
    """One head, without any tumour: its maps, its age and what follows from it, and its own folding."""

    age: float
    male: bool
    maps: dict[str, PartMap]
    ventricles: tuple[float, float]  # radius relative to the atlas, right and left
    third: float  # half width of the third ventricle, mm
    sulcus_mm: float  # half width of the sulci at their mouth
    cortex_mm: float
    rim_mm: float  # fluid that skull stripping leaves over the gyri
    folds: np.ndarray  # narrow-band field, periodic
    fine_folds: np.ndarray
    fold_step_mm: float
    bends: Noise  # of the sheets of the sulci, mm
    depth: Noise  # depth of the sulci, mm, about their mean
    folia: Noise  # unevenness of the cerebellar folia, mm


MALE_SHARE = 0.58  # gliomas are more frequent in men: 1.4 to 1 (CBTRUS; recalled, not checked)
FOLD_BOX_MM = 270.0


def draw_head(draw: Draw, age: float) -> Head:
    """A head of that age; all other chance comes from `draw(purpose)`."""
    rng = draw("head")
    male = bool(rng.random() < MALE_SHARE)
    # Intracranial volume 1469 +- 102 ml in men, 1289 +- 111 ml in women (Matsumae et al., J Neurosurg 1996;84:982):
    # 7 to 8 % in volume, of which the rest of this comes from the shape.
    overall = np.log((1469 if male else 1289) / 1389) / 3 + rng.normal(0, 0.022)
    size = MEAN_SIZE * np.exp(overall + rng.normal(0, (0.012, 0.012, 0.015)))
    turn = rotation(rng.normal(0, (2.0, 1.0, 1.0)))  # what registration to the frame leaves
    habitus = np.linalg.inv(turn @ np.diag(size))
    middle = COMMISSURE_MM + rng.normal(0, (0.8, 1.5, 1.5))
    maps = {name: _draw_map(draw(name), one, habitus, middle) for name, one in VARIATIONS.items()}
    years = max(age - 20, 0)
    # Ventricles: 16.2 ml in the twenties, 24.9 ml in the forties (218 Koreans; Clin Anat 2008, recalled as the source of
    # the abstract), growing faster beyond; wide spread.
    volume = 14.5 + 0.30 * years + 0.006 * max(age - 45, 0) ** 2
    radius = np.sqrt(volume / 32) * rng.lognormal(0, 0.17)
    sides = rng.normal(0, 0.05)
    step = 3.0
    period = rng.normal(24.0, 1.2)
    return Head(
        age,
        male,
        maps,
        (float(radius * np.exp(sides)), float(radius * np.exp(-sides))),
        float(np.clip(0.8 + 0.028 * years * rng.lognormal(0, 0.3), 0.8, 5)),
        # Sulci widen by about 0.7 mm a decade (Kochunov et al., Hum Brain Mapp 2005;26:210).
        float(np.clip((0.15 + 0.006 * years) * rng.lognormal(0, 0.2), 0.15, 1.1)),
        # 2.7 mm on gyri, 2.2 mm in sulci (Fischl and Dale, PNAS 2000;97:11050), 0.01 mm less a year.
        float(np.clip(2.9 - 0.007 * years + rng.normal(0, 0.12), 2.1, 3.2)),
        float(rng.uniform(0.1, 0.7) + 0.005 * years),
        narrow_band(draw("folds"), period, step),
        narrow_band(draw("fine folds"), period * 0.55, step),
        step,
        draw_noise(draw("bends"), COMMISSURE_MM, 130, 13, 2.2),
        draw_noise(draw("sulcal depth"), COMMISSURE_MM, 130, 26, 5.0, components=1),
        draw_noise(draw("folia"), np.add(COMMISSURE_MM, (0, 62, -32)), 60, 13, 1.1, components=1),
    )


def _draw_map(
    rng: np.random.Generator, variation: Variation, habitus: np.ndarray, middle_mm: np.ndarray
) -> PartMap:
    """atlas = c + own (habitus (p - middle) - c - shift), where c is the part's centre in the atlas."""
    c = np.array(variation.centre_mm, float)
    shift = rng.normal(0, 1, 3) * variation.shift_mm
    stretch = np.exp(rng.normal(0, 1, 3) * variation.stretch)
    own = np.linalg.inv(rotation(rng.normal(0, 1, 3) * variation.turn_deg) @ np.diag(stretch))
    matrix = own @ habitus
    offset = c - own @ (c + shift)
    origin = middle_mm - np.linalg.inv(matrix) @ offset
    return PartMap(matrix, origin, draw_noise(rng, COMMISSURE_MM, 130, variation.step_mm, variation.noise_mm))


def narrow_band(rng: np.random.Generator, period_mm: float, step_mm: float) -> np.ndarray:
    """A random field (1, z, y, x) of unit variance whose waves are all about `period_mm` long, periodic.

    Its zeros in a plane are a labyrinth of lines about half a period apart, as sulci on a cortex are.
    """
    count = round(FOLD_BOX_MM / step_mm)
    spectrum = fft.rfftn(rng.standard_normal((count, count, count), dtype=np.float32))
    whole, half = fft.fftfreq(count, step_mm), fft.rfftfreq(count, step_mm)
    frequency = np.sqrt(whole[:, None, None] ** 2 + whole[None, :, None] ** 2 + half[None, None, :] ** 2)
    spectrum *= np.exp(-0.5 * ((frequency * period_mm - 1) / 0.24) ** 2)
    field = fft.irfftn(spectrum, s=(count, count, count)).astype(np.float32)
    return (field / field.std())[None]


# ------------------------------------------------------------------------------------- the average brain


def cerebrum(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance to the hull of the cerebrum, fissures and sulci filled."""
    side = np.abs(x)
    narrow = 1 + np.float32(0.0022) * np.clip(12 - y, 0, None)  # the frontal lobes are narrower
    dome = _rounded_box(x * narrow, y, z, (0, 17, 8), (69, 87, 69), 2.15)
    base = np.float32(-19) + 0.16 * np.clip(y + 8, 0, 48) - 0.11 * np.clip(y - 48, 0, 60)
    base = base + 0.10 * np.clip(side - 12, 0, 40)
    upper = smooth_maximum(dome, 0.95 * (base - z), 14)
    temporal = tubes_nearby(side, y, z, [(TEMPORAL_PATH, TEMPORAL_RADII)], 40.0)
    hull = smooth_minimum(upper, temporal, 12)
    return smooth_maximum(hull, 0.9 * (tentorium(side, y) + 1 - z), 5)


TEMPORAL_PATH = np.array([[38, -8, -30], [46, 12, -27], [50, 36, -16], [48, 56, -4]], float)
TEMPORAL_RADII = np.array([13.5, 17.5, 18.0, 17.0])


def tentorium(side: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the tentorium: falls to the sides and to the back; far below in front of the notch."""
    roof = 2 - 0.38 * np.clip(y - 42, 0, None) - 0.010 * side * side
    return roof - 2.2 * np.clip(34 - y, 0, None)


def cerebellum(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance to the cerebellum as it would be without the cerebrum over it."""
    halves = ellipsoid(np.abs(x), y, z, (24, 64, -30), (31, 30, 29))
    return smooth_minimum(halves, ellipsoid(x, y, z, (0, 55, -20), (22, 26, 27)), 8)


STEM_PATH = np.array(
    [[0, 20, -4], [0, 21, -14], [0, 24, -28], [0, 32, -44], [0, 39, -57], [0, 45, -78]], float
)
STEM_RADII = np.array([11.0, 10.5, 12.0, 10.0, 8.0, 6.5])
PEDUNCLE_PATH = np.array([[17, 8, 2], [12, 12, -10], [7, 16, -22]], float)
PEDUNCLE_RADII = np.array([5.0, 6.0, 6.5])


def stem(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance to midbrain with its peduncles, pons and medulla."""
    side = np.abs(x)
    axis = tubes_nearby(x, y, z, [(STEM_PATH, STEM_RADII)], 40.0)
    peduncles = tubes_nearby(side, y, z, [(PEDUNCLE_PATH, PEDUNCLE_RADII)], 40.0)
    pons = ellipsoid(x, y, z, (0, 19, -31), (18, 13, 13.5))
    return smooth_minimum(smooth_minimum(axis, pons, 5), peduncles, 4)


def falx(x: np.ndarray, y: np.ndarray, z: np.ndarray, half_mm: float) -> np.ndarray:
    """The gap between the hemispheres: in the midline, outside the ellipse of the corpus callosum."""
    ring = np.sqrt(((y - 6) / 40) ** 2 + ((z - 2) / 27) ** 2)
    return np.maximum(np.abs(x) - np.float32(half_mm), (1 - ring) * 30)


def sylvian(x: np.ndarray, y: np.ndarray, z: np.ndarray, half_mm: float) -> np.ndarray:
    """The lateral fissure on both sides, and the fluid over the insula at its bottom."""
    side = np.abs(x)
    height = z - (0.8 + 0.42 * y)
    open_mm = np.float32(half_mm) * (1 + np.clip(1 - np.abs(y + 16) / 20, 0, 1))
    reach = np.maximum(np.abs(y - 5) - 30, 37 - side)
    lips = np.maximum(np.abs(height) * np.float32(0.92) - open_mm, reach)
    bowl = np.abs(side - (38.5 - 0.006 * (y - 2) ** 2)) - np.float32(half_mm)
    edge = (np.sqrt(((y - 3) / 25) ** 2 + ((z - 3) / 15) ** 2) - 1) * 15
    return np.minimum(lips, np.maximum(bowl, edge))


VENTRICLE_PATH = np.array(
    [[11, -34, 1], [9, -26, 9], [8.5, -8, 18], [11, 12, 22.5], [18, 30, 21], [25, 40, 13]], float
)
VENTRICLE_RADII = np.array([3.0, 5.0, 4.6, 4.6, 5.6, 7.0])
WING_PATH = np.array([[14, -31, 7], [16, -14, 17], [17, 8, 24], [23, 28, 22]], float)
WING_RADII = np.array([1.8, 2.2, 2.2, 3.0])
OCCIPITAL_PATH = np.array([[25, 40, 13], [27, 54, 9], [24, 68, 8]], float)
OCCIPITAL_RADII = np.array([7.0, 4.0, 1.5])
TEMPORAL_HORN_PATH = np.array([[25, 40, 13], [34, 32, -3], [35, 17, -14], [30, 6, -18]], float)
TEMPORAL_HORN_RADII = np.array([7.0, 3.2, 2.2, 2.0])
AQUEDUCT_PATH = np.array([[0, 26, -6], [0, 38, -24]], float)
AQUEDUCT_RADII = np.array([0.9, 1.2])


def ventricles(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, sizes: tuple[float, float], third: float
) -> np.ndarray:
    """Lateral ventricles of the given relative radii (right, left), the third (half width in mm) and the fourth."""
    parts = []
    for sign, size in zip((-1, 1), sizes, strict=True):
        u = np.float32(sign) * x
        horns = (
            tubes_nearby(u, y, z, [(path, radii * size)], 25.0)
            for path, radii in (
                (VENTRICLE_PATH, VENTRICLE_RADII),
                (WING_PATH, WING_RADII),
                (OCCIPITAL_PATH, OCCIPITAL_RADII),
                (TEMPORAL_HORN_PATH, TEMPORAL_HORN_RADII),
            )
        )
        side = reduce(lambda a, b: smooth_minimum(a, b, 4), horns)
        parts.append(np.maximum(side, np.float32(0.8) - u))  # the septum between them
    parts.append(ellipsoid(x, y, z, (0, 12, -1), (third, 13, 10)))
    parts.append(ellipsoid(x, y, z, (0, 42, -33), (7, 5, 12)))
    parts.append(tubes_nearby(x, y, z, [(AQUEDUCT_PATH, AQUEDUCT_RADII)], 25.0))
    return reduce(np.minimum, parts)


def nuclei(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """The grey nuclei of both sides: caudate, putamen, pallidum, thalamus, hippocampus (with the amygdala)."""
    side = np.abs(x)
    slant = side - 0.16 * y  # putamen and pallidum lie oblique, further out at the back
    caudate = tubes_nearby(side, y, z, [(CAUDATE_PATH, CAUDATE_RADII)], 25.0)
    hippocampus = tubes_nearby(side, y, z, [(HIPPOCAMPUS_PATH, HIPPOCAMPUS_RADII)], 25.0)
    return {
        "caudate": caudate,
        "putamen": ellipsoid(slant, y, z, (25.5, -1, 1), (5.2, 17, 10.5)),
        "pallidum": ellipsoid(slant, y, z, (18.5, 3, -1), (3.8, 9, 6.5)),
        "thalamus": ellipsoid(side - 0.2 * (y - 18), y, z, (11.5, 18, 7), (8.5, 15, 9)),
        "hippocampus": hippocampus,
    }


CAUDATE_PATH = np.array([[11, -22, 1], [14, -14, 7], [15.5, 0, 16], [18, 14, 20], [24, 28, 18]], float)
CAUDATE_RADII = np.array([4.5, 5.6, 3.6, 2.4, 1.6])
HIPPOCAMPUS_PATH = np.array([[22, 4, -20], [27, 16, -16], [29, 30, -9]], float)
HIPPOCAMPUS_RADII = np.array([7.0, 4.6, 3.4])


def _rounded_box(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple, radii: tuple, power: float
) -> np.ndarray:
    """Nearly the distance to a superellipsoid, between an ellipsoid (power 2) and a box."""
    u, v, w = (np.abs(p - c) / np.float32(r) for p, c, r in zip((x, y, z), centre, radii, strict=True))
    f = (u**power + v**power + w**power + np.float32(1e-6)) ** np.float32(1 / power)
    long = np.sqrt((u * radii[0]) ** 2 + (v * radii[1]) ** 2 + (w * radii[2]) ** 2) / f
    return (f - 1) * np.maximum(long, min(radii) / 2)


# ------------------------------------------------------------------------------------------- one head


def before(lattice: Lattice, pushed_mm: np.ndarray | None) -> np.ndarray:
    """Where the points of a lattice lay before a tumour pushed them, float32 (3: x, y, z; z, y, x)."""
    positions = np.stack(np.broadcast_arrays(*lattice.grids))
    return positions if pushed_mm is None else positions - pushed_mm


def atlas_positions(
    head: Head, lattice: Lattice, pushed_mm: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Atlas positions by every map, float32 (3: x, y, z; z, y, x), of points that a tumour pushed by `pushed_mm`."""
    whole = {name: one.on(lattice) for name, one in head.maps.items()}
    if pushed_mm is None:
        return whole
    x, y, z = before(lattice, pushed_mm)
    origin = np.array([axis[0] for axis in (lattice.x, lattice.y, lattice.z)])
    step = np.array(lattice.spacing_mm)
    return {name: sampled(field, x, y, z, origin, step, False) for name, field in whole.items()}


def shapes(head: Head, lattice: Lattice, pushed_mm: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Distances (mm, negative inside) on a lattice, float32 (z, y, x).

    Keys: mask (what skull stripping leaves), cerebrum (its hull), falx, cerebellum, stem, ventricles, caudate, putamen,
    pallidum, thalamus, hippocampus, core (what lies within the insula); and depth (positive inside the cerebrum, from
    its hull or the nearest fissure).
    """
    atlas = atlas_positions(head, lattice, pushed_mm)
    d = {"cerebrum": cerebrum(*atlas["cerebrum"])}
    gap = 0.3 + head.sulcus_mm * 0.5
    d["falx"] = falx(*atlas["cerebrum"], gap)
    clefts = np.minimum(d["falx"], sylvian(*atlas["cerebrum"], 0.6 + head.sulcus_mm * 0.8))
    d["depth"] = smooth_minimum(-d["cerebrum"] - np.float32(head.rim_mm * 0.5), clefts, 5)
    # The cerebellum fills what the tentorium leaves, and ends in front at the stem and the petrous bones.
    x, y, _ = atlas["cerebrum"]
    lobe = smooth_maximum(cerebellum(*atlas["cerebellum"]), 29 + 0.005 * x * x - y, 8)
    d["cerebellum"] = smooth_maximum(lobe, 0.5 - d["cerebrum"], 2)
    d["stem"] = stem(*atlas["stem"])
    d["ventricles"] = ventricles(*atlas["deep"], head.ventricles, head.third)
    d |= nuclei(*atlas["deep"])
    cisterns = ellipsoid(*atlas["deep"], (0, 30, -13), (32, 24, 17))
    lower = smooth_minimum(smooth_minimum(d["cerebellum"], d["stem"], 14), cisterns, 10)
    d["mask"] = smooth_minimum(d["cerebrum"], lower, 11) - np.float32(head.rim_mm)
    # Between the deep grey matter and the insula there are no sulci.
    d["core"] = ellipsoid(*atlas["deep"], (0, 6, 5), (35, 40, 25))
    return {name: one.astype(np.float32) for name, one in d.items()}


def folded(
    head: Head, d: dict[str, np.ndarray], coarse: Lattice, fine: Lattice, pushed_mm: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The cortex' surface on the fine lattice, from the shapes on the coarse one.

    Returns the distance from the surface (mm, positive in the tissue, negative in the fluid of sulci and fissures), and
    the distance from the sheets in the middle of the sulci, signed, both float32 (z, y, x).
    """
    depth = d["depth"]
    # Sulci run from the surface inwards: each point looks the field up nearly at the surface over it.
    inwards = np.stack(np.gradient(depth, *coarse.spacing_mm[::-1])[::-1])
    steep = np.sqrt((inwards**2).sum(axis=0)) + np.float32(1e-3)
    outwards = before(coarse, pushed_mm) - inwards / steep * (np.clip(depth, -3, 24) * np.float32(0.72))
    outwards += head.bends.on(coarse)
    x, y, z = interpolated(outwards.astype(np.float32), coarse, fine)
    origin, step = np.zeros(3), np.full(3, head.fold_step_mm)
    voxel = float(np.mean(fine.spacing_mm))
    here = interpolated(depth, coarse, fine)
    reach = np.minimum(
        np.clip(12.5 + head.depth.on(coarse)[0], 4.5, 26), np.clip(1.5 + 0.9 * d["core"], 1.5, 30)
    )
    bottom = interpolated(reach, coarse, fine)
    # The slopes of fields of unit variance are about 2 pi / period; flat places must not turn into lakes.
    sheets = level_distance(sampled(head.folds, x, y, z, origin, step, True)[0], voxel, 0.15)
    surface = smooth_minimum(here, _sulci(sheets, here, bottom, head.sulcus_mm), 2.5)
    shallow = level_distance(sampled(head.fine_folds, x, y, z, origin, step, True)[0], voxel, 0.28)
    surface = smooth_minimum(
        surface, _sulci(shallow, here, bottom * np.float32(0.4), head.sulcus_mm * 0.7), 2.0
    )
    return surface, sheets


def _sulci(sheets: np.ndarray, depth: np.ndarray, bottom: np.ndarray, half_mm: float) -> np.ndarray:
    """Distance to sulci along sheets, as deep as `bottom`, twice as wide at their mouth as at their bottom."""
    over = np.maximum(depth - bottom, 0)
    width = np.float32(half_mm) * (np.float32(0.55) + np.float32(0.45) * np.exp(-np.maximum(depth, 0) / 5))
    return np.sqrt(sheets * sheets + over * over) - width
