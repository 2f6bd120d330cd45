"""One patient's scan in HU, its organ labels and its findings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom import acquisition, anatomy, atlas, findings, vessels
from sg.cohorts.phantom.acquisition import Grid
from sg.cohorts.phantom.anatomy import Draw, Patient
from sg.cohorts.phantom.fields import Lattice, draw_noise, ellipsoid, interpolated, segment_distance
from sg.cohorts.phantom.findings import Opacity
from sg.params import PhantomRecipe, PhantomShared

LABELS = (
    "background", "fat", "muscle", "mediastinum", "lung_right", "lung_left", "heart", "aorta", "great_vessels",
    "trachea", "esophagus", "lung_vessels", "spine", "ribs", "sternum", "shoulder", "diaphragm", "liver", "spleen",
    "stomach", "kidneys", "bowel", "nodule", "liver_lesion",
)  # fmt: skip
LABEL = {name: value for value, name in enumerate(LABELS)}

COARSE_MM = 6.0  # distances are computed on a lattice about so coarse, or the scan's own if that is coarser
POINT_SPREAD = (0.35, 0.45, 0.45)  # voxels (z, y, x)


@dataclass(frozen=True)
class Scan:
    """A phantom: `hu` int16 and `labels` uint8 (z, y, x) on the grid's lattice (LPS), and what was put in."""

    patient: Patient
    grid: Grid
    hu: np.ndarray
    labels: np.ndarray
    nodules: list[Opacity]
    look_alikes: list[np.ndarray]
    candidates: list[np.ndarray]  # one for each nodule, as a detector would place it


class Canvas:
    """A volume being painted, organ over organ, with soft edges one voxel wide."""

    def __init__(self, lattice: Lattice, coarse: Lattice) -> None:
        self.lattice, self.coarse = lattice, coarse
        self.voxel_mm = np.float32(np.mean(lattice.spacing_mm))
        self.hu = np.full(lattice.shape, -1000, np.float32)
        self.labels = np.zeros(lattice.shape, np.uint8)

    def finer(self, field: np.ndarray, region: tuple[slice, slice, slice]) -> np.ndarray:
        """A field of the coarse lattice at the voxels of a region."""
        return interpolated(field, self.coarse, self.lattice.box(region))

    def region_of(self, distance: np.ndarray, margin_mm: float = 4.0) -> tuple[slice, slice, slice] | None:
        """The box of voxels around where a distance on the coarse lattice is under the margin."""
        near = distance < margin_mm
        low, high = [], []
        for axis, nodes in enumerate(self.coarse.axes):
            index = np.flatnonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))
            if len(index) == 0:
                return None
            low.append(nodes[max(index[0] - 1, 0)])
            high.append(nodes[min(index[-1] + 1, len(nodes) - 1)])
        return self.lattice.region(np.array(low[::-1]), np.array(high[::-1]))

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, label: str) -> None:
        """Paint a shape given on the coarse lattice; `hu` may be a field there too."""
        region = self.region_of(distance)
        if region is not None:
            if isinstance(hu, np.ndarray):
                hu = self.finer(hu, region)
            self.paint_region(region, self.finer(distance, region), hu, label)

    def paint_region(
        self, region: tuple, distance: np.ndarray, hu: float | np.ndarray, label: str | None
    ) -> None:
        """Paint a shape given on the voxels of a region; without a label it leaves the labels."""
        share = np.clip(np.float32(0.5) - distance / self.voxel_mm, 0, 1)
        self.blend(region, share, hu)
        if label is not None:
            self.labels[region][distance < 0] = LABEL[label]

    def blend(self, region: tuple, share: np.ndarray, hu: float | np.ndarray) -> None:
        """Mix `hu` in with the given share of each voxel."""
        part = self.hu[region]
        part += share * (np.asarray(hu, np.float32) - part)


WHOLE = (slice(None), slice(None), slice(None))


def render(draw: Draw, number: int, recipe: PhantomRecipe, shared: PhantomShared) -> Scan:
    """The scan of patient `number`; all chance comes from `draw(purpose)`."""
    patient = anatomy.draw_patient(draw, abdominal=recipe.layout == "decathlon")
    grid = acquisition.draw_grid(patient, number, recipe.layout, shared, draw("grid"))
    coarse = grid.lattice.coarser(max(COARSE_MM / float(np.mean(grid.spacing_mm)), 1.0))
    d = anatomy.shapes(patient, coarse)
    canvas = Canvas(grid.lattice, coarse)

    _paint_walls(canvas, patient, d, draw)
    _paint_abdomen(canvas, patient, d, draw)
    lungs_mm = _paint_lungs(canvas, patient, d, draw)
    trees = _paint_trees(canvas, patient, lungs_mm, draw)
    _paint_mediastinum(canvas, patient, d)
    _paint_bones(canvas, patient, draw)
    # Last, so that what is in the tables is not painted over.
    nodules, look_alikes = _paint_findings(canvas, patient, d, recipe, lungs_mm, trees, draw)
    hu = _acquired(canvas, grid, shared, draw)
    candidates = _detected(nodules, draw("candidates"))
    return Scan(patient, grid, hu, canvas.labels, nodules, look_alikes, candidates)


def _texture(draw: Draw, canvas: Canvas, purpose: str, step_mm: float, sd: float) -> np.ndarray:
    """A smooth random field on the coarse lattice."""
    lattice = canvas.coarse
    middle = np.array([a.mean() for a in (lattice.x, lattice.y, lattice.z)])
    reach = max(float(a[-1] - a[0]) / 2 for a in (lattice.x, lattice.y, lattice.z))
    return draw_noise(draw(purpose), middle, reach, step_mm, sd, components=1).on(lattice)[0]


def _paint_walls(canvas: Canvas, patient: Patient, d: dict[str, np.ndarray], draw: Draw) -> None:
    """Skin, fat, muscles with fat between them, and the fat that fills the cavity."""
    hu = patient.hu
    texture = _texture(draw, canvas, "wall", 16, 1.0)
    canvas.paint(d["skin"], hu["fat"] + 6 * texture, "fat")
    skin = np.abs(canvas.finer(d["skin"], WHOLE) + np.float32(1.0)) - np.float32(1.0)
    canvas.paint_region(WHOLE, skin, np.float32(10), None)
    # Muscles lie in layers with fat between them.
    waves = _texture(draw, canvas, "layers", 30, 1.0)
    depth = d["trunk"] + 2.5 * texture
    layer = np.minimum(np.abs(depth + 9 + 2 * waves), np.abs(depth + 21 - 4 * waves)) - np.maximum(
        1.1 + 0.9 * waves, 0
    )
    canvas.paint(d["trunk"], hu["muscle"] + 7 * texture, "muscle")
    region = canvas.region_of(d["trunk"])
    canvas.paint_region(region, canvas.finer(np.maximum(layer, d["trunk"] + 4), region), hu["fat"] + 15, None)
    canvas.paint(d["cavity"], hu["mediastinum"] + 12 * texture, "mediastinum")


def _paint_abdomen(canvas: Canvas, patient: Patient, d: dict[str, np.ndarray], draw: Draw) -> None:
    """What lies below the diaphragm."""
    hu = patient.hu
    rng = draw("bowel")
    below = np.maximum(3 - d["above"], d["cavity"] + 4)
    loops = rng.uniform((-95, -70, -360), (95, 20, -215), (26, 3))
    for loop in patient.maps["body"].to_patient(loops):
        _paint_loop(canvas, rng, loop, below, hu["bowel"])
    texture = _texture(draw, canvas, "parenchyma", 13, 1.0)
    canvas.paint(d["kidneys"], hu["kidneys"] + 8 * texture, "kidneys")
    canvas.paint(d["stomach"], hu["wall"], "stomach")
    level = patient.maps["stomach"].to_patient(np.array([[50.0, -36.0, -170.0]]))[0, 1] + rng.normal(0, 9)
    canvas.paint(d["stomach"] + 4, hu["fluid"] + 6 * texture, "stomach")
    canvas.paint(
        np.maximum(d["stomach"] + 4.5, canvas.coarse.grids[1] - np.float32(level)), -930.0, "stomach"
    )
    canvas.paint(d["spleen"], hu["spleen"] + 4 * texture, "spleen")
    canvas.paint(d["liver"], hu["liver"] + 5 * texture, "liver")
    _paint_liver_vessels(canvas, patient, d["liver"], draw("liver-vessels"))
    shell = np.maximum(np.abs(d["above"] - 0.5) - 2, d["cavity"])
    canvas.paint(shell, hu["muscle"], "diaphragm")


def _paint_loop(
    canvas: Canvas, rng: np.random.Generator, centre_mm: np.ndarray, below: np.ndarray, bowel_hu: float
) -> None:
    """A loop of bowel, with gas on top in some."""
    radii, hu = rng.uniform(12, 26, 3), bowel_hu + rng.normal(0, 8)
    gas, level = rng.random() < 0.4, centre_mm[1] - rng.uniform(0, 8)
    region = canvas.lattice.region(centre_mm - radii - 4, centre_mm + radii + 4)
    if region is None:
        return
    x, y, z = canvas.lattice.box(region).grids
    loop = np.maximum(ellipsoid(x, y, z, tuple(centre_mm), tuple(radii)), canvas.finer(below, region))
    canvas.paint_region(region, loop, hu, "bowel")
    if gas:
        canvas.paint_region(region, np.maximum(loop + 3, y - np.float32(level)), -900.0, "bowel")


def _paint_liver_vessels(
    canvas: Canvas, patient: Patient, liver_mm: np.ndarray, rng: np.random.Generator
) -> None:
    """Portal and hepatic veins: a little brighter than the liver with contrast medium, a little darker without."""
    root = np.array([-26.0, 10, -180])
    leaves = rng.uniform((-125, -55, -235), (20, 60, -115), (36, 3))
    nodes, parents = vessels.grow(root, leaves, rng)
    where = patient.maps["liver"].to_patient(nodes)
    radii = vessels.radii_of(parents) * 1.5
    children = np.flatnonzero(parents >= 0)
    tree = vessels.Tree(where[parents[children]], where[children], radii[children], radii[children])
    region = canvas.region_of(liver_mm)
    if region is None:
        return
    inside = np.clip(-canvas.finer(liver_mm, region) / canvas.voxel_mm - 1, 0, 1)
    share = vessels.coverage(tree, canvas.lattice.box(region)) * inside
    contrast = patient.hu["blood"] > 80
    canvas.blend(region, share, patient.hu["liver"] + (22 if contrast else -14))


def _paint_lungs(canvas: Canvas, patient: Patient, d: dict[str, np.ndarray], draw: Draw) -> np.ndarray:
    """Both lungs, denser towards the back where the patient lies on; returns the distance to either."""
    texture = _texture(draw, canvas, "lung", 9, 9.0) + _texture(draw, canvas, "lung-wide", 45, 12.0)
    back = (canvas.coarse.grids[1] - np.float32(patient.centre_mm[1])) / 80
    density = patient.hu["lung"] + texture + np.float32(draw("gradient").uniform(12, 40)) * back
    for name in ("lung_right", "lung_left"):
        canvas.paint(d[name], density, name)
    return np.minimum(d["lung_right"], d["lung_left"])


def _paint_trees(canvas: Canvas, patient: Patient, lungs_mm: np.ndarray, draw: Draw) -> vessels.Tree:
    """Vessels, fissures and small airways; returns the vessels."""
    region = canvas.region_of(lungs_mm)
    pairs = [vessels.draw_trees(patient, name, draw(f"{name}/trees")) for name in ("lung_right", "lung_left")]
    blood, air = vessels.Tree.of([p[0] for p in pairs]), vessels.Tree.of([p[1] for p in pairs])
    if region is None:
        return blood
    box = canvas.lattice.box(region)
    inside_mm = canvas.finer(lungs_mm, region)
    inside = np.clip(np.float32(0.5) - inside_mm / canvas.voxel_mm, 0, 1)
    for fissure in _fissures(canvas, patient, draw("fissures")):
        share = np.clip(1 - canvas.finer(fissure, region) / canvas.voxel_mm, 0, 1) * inside
        canvas.blend(region, share * np.float32(0.3), -500.0)
    walls = vessels.Tree(air.start, air.end, air.r_start + 1.3, air.r_end + 1.1)
    canvas.blend(region, vessels.coverage(walls, box) * inside * np.float32(0.75), -100.0)
    canvas.blend(region, vessels.coverage(air, box) * inside, -960.0)
    share = vessels.coverage(blood, box) * inside
    canvas.blend(region, share, 0.4 * patient.hu["blood"] + 24.0)
    part = canvas.labels[region]
    part[(share > 0.5) & (inside_mm < 0)] = LABEL["lung_vessels"]
    return blood


def _fissures(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> list[np.ndarray]:
    """Distance to the fissures between the lobes: oblique in both lungs, horizontal in front of it in the right."""
    distances = []
    for name in ("lung_right", "lung_left"):
        x, y, z = patient.maps[name].to_atlas(canvas.coarse)
        outside = x > 0 if name == "lung_right" else x < 0
        tilt, height = rng.normal(0.95, 0.08), rng.normal(-38, 6)
        oblique = (z - height - tilt * (y - 10)) / np.float32(np.sqrt(1 + tilt * tilt))
        distances.append(np.abs(oblique) + 99 * outside)
        if name == "lung_right":
            horizontal = np.abs(z + 42 + rng.normal(0, 5) - 0.1 * x)
            distances.append(np.maximum(horizontal, -oblique) + 99 * outside)
    return distances


def _paint_findings(
    canvas: Canvas,
    patient: Patient,
    d: dict[str, np.ndarray],
    recipe: PhantomRecipe,
    lungs_mm: np.ndarray,
    trees: vessels.Tree,
    draw: Draw,
) -> tuple[list[Opacity], list[np.ndarray]]:
    """Nodules and look-alikes, or liver lesions."""
    rng = draw("findings")
    count = int(rng.integers(recipe.nodules[0], recipe.nodules[1] + 1))
    grid, coarse = canvas.lattice, canvas.coarse
    if recipe.layout == "decathlon":
        lesions = findings.draw_lesions(rng, count, d["liver"], coarse, grid, patient.hu["liver"])
        for lesion in lesions:
            _paint_opacity(canvas, lesion, d["liver"], "liver_lesion")
        return lesions, []
    soft = patient.hu["soft"]
    nodules = findings.draw_nodules(rng, count, lungs_mm, coarse, grid, trees, soft)
    places, drawn = findings.draw_look_alikes(
        rng, recipe.candidates, nodules, lungs_mm, coarse, grid, trees, soft
    )
    for opacity in drawn:
        _paint_opacity(canvas, opacity, lungs_mm, None)
    for nodule in nodules:
        _paint_opacity(canvas, nodule, lungs_mm, "nodule")
    return nodules, places


def _paint_opacity(canvas: Canvas, opacity: Opacity, organ_mm: np.ndarray, label: str | None) -> None:
    reach = opacity.reach_mm + 2 * float(canvas.voxel_mm)
    region = canvas.lattice.region(opacity.centre_mm - reach, opacity.centre_mm + reach)
    distance = np.maximum(opacity.distance(canvas.lattice.box(region)), canvas.finer(organ_mm, region))
    canvas.paint_region(region, distance, opacity.hu, label)


def _paint_mediastinum(canvas: Canvas, patient: Patient, d: dict[str, np.ndarray]) -> None:
    """Heart, vessels, windpipe and gullet."""
    hu = patient.hu
    canvas.paint(d["esophagus"], hu["soft"], "esophagus")
    muscle_mm = d["heart"]
    canvas.paint(muscle_mm, 0.5 * (hu["heart"] + 65), "heart")
    canvas.paint(muscle_mm + 8, hu["heart"], "heart")
    canvas.paint(d["great_vessels"], hu["blood"], "great_vessels")
    canvas.paint(d["aorta"], hu["blood"], "aorta")
    canvas.paint(d["trachea"] - 1.5, -20.0, "trachea")
    canvas.paint(d["trachea"], -985.0, "trachea")


def _paint_bones(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Spine, ribs with their cartilage, breastbone, collar bones and shoulder blades."""
    hu = patient.hu
    _paint_spine(canvas, patient)
    bent = draw("ribs").normal(0, 1.2, (24, 3))
    for (bone, cartilage), shift in zip(atlas.rib_paths(), bent, strict=True):
        if cartilage is not None:
            path = patient.maps["cage"].to_patient(cartilage)
            _paint_rod(canvas, path, (4.8, None), hu["cartilage"], 0.0, "ribs")
        path = patient.maps["cage"].to_patient(bone + shift * (0.3, 0.3, 1))
        _paint_rod(canvas, path, (4.9, 2.7), hu["cortex"], hu["marrow"], "ribs")
    for side in (-1, 1):
        path = patient.maps["sternum"].to_patient(atlas.CLAVICLE * (side, 1, 1))
        _paint_rod(canvas, path, (6.0, 3.6), hu["cortex"], hu["marrow"], "shoulder")
    coarse = canvas.coarse
    cage = patient.maps["cage"].to_atlas(coarse)
    for left in (False, True):
        canvas.paint(atlas.scapula(cage, left), hu["cortex"] * 0.9, "shoulder")
    plate = atlas.sternum(patient.maps["sternum"].to_atlas(coarse))
    canvas.paint(plate, hu["cortex"] * 0.8, "sternum")
    canvas.paint(plate + 2.2, hu["marrow"] * 0.8, "sternum")


def _paint_rod(
    canvas: Canvas,
    path: np.ndarray,
    radii: tuple[float, float | None],
    outer: float,
    inner: float,
    label: str,
) -> None:
    """A bone along a path: cortex, and marrow within the second radius."""
    reach = radii[0] + 2 * float(canvas.voxel_mm)
    for p, q in pairwise(path):
        region = canvas.lattice.region(np.minimum(p, q) - reach, np.maximum(p, q) + reach)
        if region is None:
            continue
        axis = segment_distance(*canvas.lattice.box(region).grids, p, q, 0.0, 0.0)
        canvas.paint_region(region, axis - np.float32(radii[0]), outer, label)
        if radii[1] is not None:
            canvas.paint_region(region, axis - np.float32(radii[1]), inner, label)


def _paint_spine(canvas: Canvas, patient: Patient) -> None:
    """Vertebrae with their discs, arches and processes around the canal, on the voxels themselves."""
    hu = patient.hu
    spine = patient.maps["spine"]
    ends = spine.to_patient(
        np.array([(-50.0, 10, z) for z in (-370, 140)] + [(50.0, 100, z) for z in (-370, 140)])
    )
    region = canvas.lattice.region(ends.min(axis=0) - 8, ends.max(axis=0) + 8)
    if region is None:
        return
    x, y, z = a = spine.to_atlas(canvas.lattice.box(region))
    body = atlas.spine_body(a)
    middle = atlas.spine_axis(z)
    phase = np.abs((z / np.float32(atlas.VERTEBRA_MM)) % 1 - np.float32(0.5)) * np.float32(atlas.VERTEBRA_MM)
    disc = phase - np.float32(9.2)  # positive within 3.3 mm of the plane between two vertebrae
    canvas.paint_region(region, body, hu["cartilage"], "spine")
    bone = np.maximum(body - np.float32(0.6), disc)
    canvas.paint_region(region, bone, hu["cortex"] * 0.75, "spine")
    canvas.paint_region(region, bone + np.float32(2.4), hu["marrow"], "spine")
    back = y - middle
    canal = np.sqrt(x * x + (back - 24) ** 2) - np.float32(8.5)
    arch = np.maximum(np.abs(canal - np.float32(2.4)) - np.float32(2.6), phase - np.float32(9))
    spinous = np.maximum(
        np.maximum(np.abs(x) - 2.6, np.abs(back - 42) - 12), np.abs(phase - 3 - (back - 42) * 0.2) - 5
    )
    across = np.sqrt((back - 24 - np.abs(x) * 0.12) ** 2 + phase * phase) - np.float32(4.6)
    transverse = np.maximum(np.maximum(across, np.abs(x) - 31), 9 - np.abs(x))
    process = np.minimum(np.minimum(arch, spinous), transverse)
    canvas.paint_region(region, process, hu["cortex"] * 0.95, "spine")
    canvas.paint_region(region, canal, np.float32(25), "spine")


def _acquired(canvas: Canvas, grid: Grid, shared: PhantomShared, draw: Draw) -> np.ndarray:
    """The scan as measured: table, partial volume, noise, and what lies outside the reconstructed circle."""
    rng = draw("acquisition")
    x, y, _ = grid.lattice.grids
    if rng.random() < 0.7:
        _paint_table(canvas, rng)
    hu = ndimage.gaussian_filter(canvas.hu, POINT_SPREAD, mode="nearest", truncate=3)
    hu += acquisition.noise(draw("noise"), hu.shape, float(rng.uniform(*shared.noise_hu)))
    np.clip(hu, -1024, 3071, out=hu)
    if rng.random() < 0.3:
        radius = (x[0, 0, -1] - x[0, 0, 0]) / 2 + np.float32(canvas.voxel_mm / 2)
        outside = (x - x.mean()) ** 2 + (y - y.mean()) ** 2 > radius**2
        hu[np.broadcast_to(outside, hu.shape) & (canvas.labels == 0)] = acquisition.OUTSIDE_HU
    return np.rint(hu).astype(np.int16)


def _paint_table(canvas: Canvas, rng: np.random.Generator) -> None:
    """The table under the patient: a mattress and two shells, curved upwards at the sides."""
    lattice = canvas.lattice
    x, y, _ = lattice.grids
    back = lattice.y[np.flatnonzero((canvas.labels == LABEL["fat"]).any(axis=(0, 2)))[-1]]
    rise = np.float32(rng.uniform(14, 30)) * ((x - x.mean()) / 160) ** 2
    depth = np.broadcast_to(y + rise - np.float32(back + rng.uniform(0, 3)), lattice.shape)
    free = canvas.labels == 0
    mattress, shell, hollow = rng.uniform(-920, -820), rng.uniform(-250, 250), rng.uniform(25, 45)
    for top, thickness, hu in ((0, 12, mattress), (12, 3, shell), (12 + hollow, 3, shell)):
        sheet = np.abs(depth - np.float32(top + thickness / 2)) - np.float32(thickness / 2)
        canvas.blend(WHOLE, np.clip(np.float32(0.5) - sheet / canvas.voxel_mm, 0, 1) * free, float(hu))


def _detected(nodules: list[Opacity], rng: np.random.Generator) -> list[np.ndarray]:
    """Where a detector would place each nodule: within a fifth of its radius per axis, or a millimetre."""
    return [n.centre_mm + np.clip(rng.normal(0, 0.1, 3), -0.2, 0.2) * n.diameter_mm / 2 for n in nodules]
