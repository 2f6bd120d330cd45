"""Lungs: lobes and fissures, their tissue, vessels and airways, and what variants make of them."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom import vessels
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.fields import Lattice, ellipsoid
from sg.cohorts.phantom.habitus import LUNG_INSPIRATION
from sg.cohorts.phantom.scene import Scene
from sg.cohorts.phantom.trees import Tree, coverage
from sg.cohorts.phantom.variants import AZYGOS_RADIUS_MM, LOBES, azygos_path
from sg.compiled import compiled

Region = tuple[slice, slice, slice]

# Density of the tissue between the vessels. At full inspiration the commonest HU of four whole chests, two parts and
# a shallow breath measured here lies at -835 to -900 (mean -868, s.d. 22); the gradient towards the back at 3 to 6 HU a
# cm, at full inspiration slight (Millar and Denison, Thorax 1989;44:485).
GRADIENT_HU_PER_CM = (4.3, 1.4)
VESSELS_HU = 16.0  # what the drawn vessels add to the mean of the lung
# Texture: B-spline noise of these steps (mm) and standard deviations (HU): regions, segments, lobules (10 to 25 mm:
# Webb, Radiology 2006;239:322, recalled), and the smallest vessels and septa, which no tree here reaches.
COARSE_TEXTURE = (("lung-regions", 45.0, 9.0), ("lung-segments", 14.0, 9.0))
FINE_TEXTURE = (("lung-lobules", 5.0, 9.0), ("lung-septa", 2.7, 12.0))
# Vessels and septa stand out of the tissue brighter than air spaces do darker: so much of the square is added.
SKEWED = 0.3
SCARS = 0.9  # mean number of small scars in a patient; enough to be met with, no more is claimed
TILE = 48  # fine noise repeats after so many steps
# A fissure is two layers of pleura. Some are incomplete: on CT the right oblique one in 48 %, the left in 43 %, the
# horizontal one in 63 % (Aziz et al., J Thorac Imaging 2004;19:186).
FISSURE_MM = 0.25
AZYGOS_FISSURE_MM = 0.9  # four layers
INCOMPLETE = {"fissure_right_oblique": 0.48, "fissure_left_oblique": 0.43, "fissure_right_horizontal": 0.63}


def paint_lungs(scene: Scene) -> None:
    """Both lungs, lobe by lobe, with all that runs in them, and fluid beside them."""
    canvas, d = scene.canvas, scene.d
    lungs_mm = np.minimum(d["lung_right"], d["lung_left"])
    region = canvas.region_of(lungs_mm)
    if region is not None:
        inside_mm = canvas.finer(lungs_mm, region)
        inside = np.clip(np.float32(0.5) - inside_mm / canvas.voxel_mm, 0, 1)
        canvas.blend(region, inside, _tissue(scene, lungs_mm, region))
        _label_lobes(scene, region, inside_mm)
        if scene.patient.variants.emphysema > 0:
            _paint_emphysema(scene, region, inside)
        _paint_fissures(scene, region, inside)
        _paint_trees(scene, region, inside_mm)
        _paint_scars(scene)
    if (d["effusion"] < 0).any():
        # Pleural fluid has 0 to 20 HU (recalled, not checked).
        canvas.paint(d["effusion"], float(scene.draw("effusion-hu").normal(11, 4)), "effusion")


# ------------------------------------------------------------------------------------------------ tissue


def _tissue(scene: Scene, lungs_mm: np.ndarray, region: Region) -> np.ndarray:
    """HU of the lung without what can be told apart in it, float32 on the region's voxels."""
    canvas, coarse = scene.canvas, scene.canvas.coarse
    rng = scene.draw("lung-tissue")
    # The same tissue in more air.
    thinned = float(np.exp(-LUNG_INSPIRATION * scene.patient.inspiration))
    density = (1000 + scene.hu["lung"] - VESSELS_HU) * thinned
    gradient = max(rng.normal(*GRADIENT_HU_PER_CM), 1.0) * thinned**2
    field = np.float32(density - 1000) + np.float32(gradient / 10) * (coarse.grids[1] - 5)
    for purpose, step, sd in COARSE_TEXTURE:
        field = field + scene.texture(purpose, step, sd)
    field = field + _dependent(scene, lungs_mm, rng)
    if scene.patient.variants.effusion is not None:  # fluid squeezes the lung beside it
        field = field + 400 * np.exp(np.minimum(-scene.d["effusion"], 0) / np.float32(6))
    tissue = canvas.finer(field.astype(np.float32), region)
    box = canvas.lattice.box(region)
    fine, variance = np.float32(0), 0.0
    for purpose, step, sd in FINE_TEXTURE:
        # What is finer than a voxel is averaged in it: noise of variance step^2 / 3 along each axis by a box.
        seen = (4 * step**2 / (4 * step**2 + float(canvas.voxel_mm) ** 2)) ** 0.75
        fine = fine + fine_noise(scene.draw(purpose), box, step, sd * seen)
        variance += (sd * seen) ** 2
    tissue += fine
    fine *= fine
    fine -= np.float32(variance)
    fine *= np.float32(SKEWED / np.sqrt(variance))
    tissue += fine
    return tissue


def _dependent(scene: Scene, lungs_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much denser the lung is along the back, where its own weight folds it, HU on the coarse lattice.

    A thin band in most, dependent atelectasis in some three of ten.
    """
    folded = rng.random() < 0.3
    most, thick = (rng.uniform(120, 320), rng.uniform(4, 9)) if folded else (rng.uniform(10, 60), 5.0)
    spacing = scene.canvas.coarse.spacing_mm[1]
    back = np.clip(np.gradient(lungs_mm, spacing, axis=1), 0, 1)
    patches = np.clip(0.6 + scene.texture("dependent", 22, 0.6), 0, 1.6)
    return np.float32(most) * np.exp(np.minimum(lungs_mm, 0) / np.float32(thick)) * back * patches


def fine_noise(rng: np.random.Generator, lattice: Lattice, step_mm: float, sd: float) -> np.ndarray:
    """Smooth noise with a step of a few mm at the points of a lattice, float32 (z, y, x).

    A cubic B-spline with normal coefficients that repeat after TILE steps: fields.Noise over the whole body would
    need millions of them.
    """
    tile = rng.standard_normal((TILE, TILE, TILE), dtype=np.float32)
    tile *= np.float32(sd / (151 / 315) ** 1.5)  # as fields.SPLINE_SD
    first, weights = zip(*(_taps(axis / step_mm) for axis in lattice.axes), strict=True)
    field = np.empty(lattice.shape, np.float32)
    _spline(tile, *first, *weights, field)
    return field


def _taps(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of four coefficients for each position, in [0, TILE), and their weights (n, 4)."""
    below = np.floor(position)
    t = position - below
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return (below.astype(np.int64) - 1) % TILE, (np.stack(weights, axis=1) / 6).astype(np.float32)


@compiled
def _spline(
    tile: np.ndarray,
    first_z: np.ndarray,
    first_y: np.ndarray,
    first_x: np.ndarray,
    weight_z: np.ndarray,
    weight_y: np.ndarray,
    weight_x: np.ndarray,
    field: np.ndarray,
) -> None:
    """Sums of periodic cubic B-splines, one axis after the other."""
    size = len(tile)
    plane = np.empty((size, size), np.float32)
    row = np.empty(size, np.float32)
    for k in range(len(first_z)):
        plane[:] = 0
        for tap in range(4):
            plane += weight_z[k, tap] * tile[(first_z[k] + tap) % size]
        for j in range(len(first_y)):
            row[:] = 0
            for tap in range(4):
                row += weight_y[j, tap] * plane[(first_y[j] + tap) % size]
            for i in range(len(first_x)):
                total = np.float32(0)
                for tap in range(4):
                    total += weight_x[i, tap] * row[(first_x[i] + tap) % size]
                field[k, j, i] = total


def _paint_emphysema(scene: Scene, region: Region, inside: np.ndarray) -> None:
    """Centrilobular emphysema: holes of 3 to 10 mm, in clusters, mostly in the upper parts, below -950 HU.

    Their HU after Gevenois et al., Am J Respir Crit Care Med 1996;154:187 (recalled): -950 and less.
    """
    canvas, severity = scene.canvas, scene.patient.variants.emphysema
    box = canvas.lattice.box(region)
    where = scene.texture("emphysema", 34, 0.8) + np.clip((canvas.coarse.grids[2] + 20) / 90, -0.8, 0.8)
    holes = fine_noise(scene.draw("emphysema-holes"), box, 5.0, 1.0)
    holes += canvas.finer(where, region) - np.float32(2.5 - 2.2 * severity)
    share = np.clip(holes * 1.8, 0, 1) * inside
    canvas.blend(region, share, np.float32(scene.draw("emphysema-hu").normal(-985, 4)))
    canvas.labels[region][(share > 0.7) & (inside > 0.5)] = LABEL["emphysema"]


def _paint_scars(scene: Scene) -> None:
    """A few small scars: flat bands near the pleura, mostly at the top of the lungs and above the diaphragm."""
    canvas, survey, rng = scene.canvas, scene.person.survey, scene.draw("scars")
    depth = np.minimum(survey.d["lung_right"], survey.d["lung_left"])
    places = np.argwhere((depth < -5) & (depth > -13))
    for _ in range(min(int(rng.poisson(SCARS)), 4)):
        z, y, x = places[rng.integers(len(places))]
        lattice = survey.lattice
        centre = np.array([lattice.x[x], lattice.y[y], lattice.z[z]])
        radii = np.array([rng.uniform(7, 16), rng.uniform(2, 7), rng.uniform(0.7, 1.5)])
        turn, hu = _axes(rng), float(rng.uniform(-250, 40))
        region = canvas.lattice.region(centre - radii[0] - 4, centre + radii[0] + 4)
        if region is not None:
            # A leaf thinner than a voxel is drawn a voxel thick and accordingly fainter.
            drawn = np.maximum(radii, float(canvas.voxel_mm) / 2)
            grids = canvas.lattice.box(region).grids
            here = [g - np.float32(c) for g, c in zip(grids, centre, strict=True)]
            own = [sum(np.float32(axis[k]) * here[k] for k in range(3)) for axis in turn]
            distance = ellipsoid(*own, (0, 0, 0), tuple(drawn))
            distance = np.maximum(
                distance, canvas.finer(np.minimum(scene.d["lung_right"], scene.d["lung_left"]), region)
            )
            share = np.clip(np.float32(0.5) - distance / canvas.voxel_mm, 0, 1) * np.float32(
                (radii / drawn).prod()
            )
            canvas.blend(region, share, hu)
            canvas.labels[region][distance < 0] = LABEL["scar"]


def _axes(rng: np.random.Generator) -> np.ndarray:
    """Three random axes at right angles to each other, as rows."""
    first, other = rng.standard_normal((2, 3))
    first /= np.sqrt((first * first).sum())
    second = np.cross(first, other)
    second /= np.sqrt((second * second).sum())
    return np.stack([first, second, np.cross(first, second)])


# ------------------------------------------------------------------------------------------------ lobes


def _label_lobes(scene: Scene, region: Region, inside_mm: np.ndarray) -> None:
    canvas, d = scene.canvas, scene.d
    labels = canvas.labels[region]
    is_right = canvas.finer(d["lung_right"] - d["lung_left"], region) < 0
    for lung, fissures in vessels.FISSURES.items():
        mine = (inside_mm < 0) & (is_right if lung == "lung_right" else ~is_right)
        signed = {name: canvas.finer(d[name], region)[mine] for name in fissures}
        found = np.zeros(len(signed[fissures[0]]), np.uint8)
        for lobe in LOBES[lung]:
            found[vessels.in_lobe(lobe, signed)] = LABEL[lobe]
        labels[mine] = found


def _paint_fissures(scene: Scene, region: Region, inside: np.ndarray) -> None:
    """The fissures as thin sheets, with gaps where they are incomplete, and the sheet of an azygos lobe."""
    canvas, d = scene.canvas, scene.d
    rng = scene.draw("fissures")
    gaps = canvas.finer(scene.texture("fissure-gaps", 40, 1.0), region)
    right = canvas.finer(d["lung_right"] - d["lung_left"], region) < 0
    oblique = canvas.finer(d["fissure_right_oblique"], region)
    for name, chance in INCOMPLETE.items():
        level = rng.normal(-0.6, 0.5) if rng.random() < chance else -9.0
        distance = canvas.finer(d[name], region)
        there = (right if "right" in name else ~right) & (gaps > level)
        if name == "fissure_right_horizontal":
            there &= oblique < 0
        _sheet(scene, region, distance, there * inside, FISSURE_MM)
    if scene.patient.variants.azygos:
        sheet = canvas.finer(d["fissure_azygos"], region)
        _sheet(scene, region, sheet, right * inside, AZYGOS_FISSURE_MM)


def _sheet(scene: Scene, region: Region, distance: np.ndarray, where: np.ndarray, thick_mm: float) -> None:
    """Blend in a sheet, which a voxel thicker than itself dilutes."""
    voxel = max(float(scene.canvas.voxel_mm), thick_mm)
    share = np.clip(1 - np.abs(distance) / np.float32(voxel), 0, 1) * np.float32(thick_mm / voxel)
    scene.canvas.blend(region, share * where, -60.0)


# ------------------------------------------------------------------------------------------------ trees

HILUM_MM = 16.0  # so far from the lung its vessels are drawn in the fat of the hilum


def _paint_trees(scene: Scene, region: Region, inside_mm: np.ndarray) -> None:
    """Vessels and airways in the lungs and, in the fat of the hila, on the way to them."""
    canvas, d = scene.canvas, scene.d
    trees = scene.person.trees
    # Arteries hold what the right heart pumps, veins what the left heart gets.
    bloods = [(trees.arteries, "blood_right"), (trees.veins, "blood")]
    box = canvas.lattice.box(region)
    # Beside the lungs only towards the middle: not in the wall, the diaphragm or the spine.
    wall_mm = canvas.finer(np.maximum(np.maximum(d["cavity"] + 2, d["above"] + 3), 4 - d["spine"]), region)
    allowed_mm = np.minimum(inside_mm, np.maximum(inside_mm - HILUM_MM, wall_mm))
    allowed = np.clip(np.float32(0.5) - allowed_mm / canvas.voxel_mm, 0, 1)
    if scene.patient.variants.azygos:
        path, radius = azygos_path(scene.patient), np.full(8, AZYGOS_RADIUS_MM)
        bloods.append((Tree(path[:-1], path[1:], radius, radius), "cava_lower"))
    labels = canvas.labels[region]
    for tree, blood in bloods:
        share = coverage(tree, box) * allowed
        canvas.blend(region, share, scene.hu[blood])
        labels[share > 0.5] = LABEL["lung_vessels"]
    air = trees.air
    thick_start, thick_end = vessels.wall_mm(air.r_start), vessels.wall_mm(air.r_end)
    walls = Tree(air.start, air.end, air.r_start + thick_start, air.r_end + thick_end)
    outer = coverage(walls, box) * allowed
    canvas.blend(region, outer, 0.0)
    canvas.blend(region, coverage(air, box) * allowed, -995.0)
    labels[outer > 0.5] = LABEL["bronchi"]
