"""Heart, vessels, windpipe, gullet, and what lies in the fat between them."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom import atlas, skeleton
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.fields import ellipsoid
from sg.cohorts.phantom.painting.grain import grain
from sg.cohorts.phantom.painting.heart import paint_heart
from sg.cohorts.phantom.painting.pieces import FAR_MM, near_rods, paint_rods, smoothed, tube
from sg.cohorts.phantom.scene import Scene

# Where lymph nodes lie, by the map of an organ: right and left of the windpipe, under the aortic arch, under the
# carina, at both hila, beside the gullet, before the vessels, in the arm pits, along the coeliac trunk.
NODES = (
    ("trachea", (-15, 2, 26)), ("trachea", (-15, 8, 8)), ("trachea", (-14, 0, 44)), ("trachea", (13, 10, 30)),
    ("aorta", (22, 0, 6)), ("aorta", (28, -8, 14)), ("trachea", (0, 17, -20)), ("trachea", (-6, 20, -30)),
    ("heart", (-42, 8, -24)), ("heart", (-44, 16, -40)), ("heart", (44, 14, -22)), ("heart", (46, 20, -38)),
    ("esophagus", (8, 34, -60)), ("esophagus", (-4, 36, -85)), ("aorta", (0, -42, 22)), ("aorta", (12, -40, 34)),
    ("cage", (118, -8, 30)), ("cage", (126, 10, 12)), ("cage", (122, -18, 8)), ("cage", (-118, -8, 30)),
    ("cage", (-126, 10, 12)), ("cage", (-122, -18, 8)), ("cage", (116, -24, 44)), ("cage", (-116, -24, 44)),
    ("aorta", (-6, 4, -205)), ("aorta", (16, 6, -215)), ("trachea", (-22, 6, 66)), ("trachea", (24, 6, 70)),
)  # fmt: skip


def paint_mediastinum(scene: Scene) -> None:
    """Heart, vessels, windpipe, gullet, thymus, thyroid and lymph nodes."""
    canvas, d, hu = scene.canvas, scene.d, scene.hu
    _paint_thymus(scene)
    _paint_nodes(scene)
    _paint_esophagus(scene)
    _paint_azygos(scene)
    _paint_great_vessels(scene)
    paint_heart(scene)  # its chambers cover the ends of the vessels
    canvas.paint(d["pulmonary_artery"], hu["blood_right"], "pulmonary_artery")
    _paint_aorta(scene)
    _paint_trachea(scene)


def _paint_aorta(scene: Scene) -> None:
    """The aorta: a wall of 1.5 to 2 mm, which shows where the blood is pale, and plaques of calcium in the old."""
    canvas, d, hu = scene.canvas, scene.d, scene.hu
    canvas.paint(d["aorta"], hu["heart"], "aorta")
    canvas.paint(d["aorta"] + 1.6, hu["blood"], "aorta")
    rng, age = scene.draw("plaques"), scene.patient.habitus.age_years
    count = int(rng.poisson(np.clip((age - 48) / 4, 0, 9)))
    path, radii = smoothed(atlas.AORTA[0], 4), np.interp(np.arange(4 * len(atlas.AORTA[1]) - 3) / 4,
                                                         np.arange(len(atlas.AORTA[1])), atlas.AORTA[1])  # fmt: skip
    plaques = []
    for _ in range(count):
        n = int(rng.integers(8, len(path) - 1))
        along = path[n + 1] - path[n]
        side = np.cross(along, rng.normal(0, 1, 3))
        side *= (radii[n] - 1.2) / max(float(np.sqrt((side**2).sum())), 1e-6)
        ends = np.array([path[n], path[n] + along * rng.uniform(0.2, 0.8)]) + side
        plaques.append(tube(0, scene.patient.maps["aorta"].to_patient(ends), rng.uniform(0.7, 1.8)))
    paint_rods(canvas, plaques, (rng.uniform(450, 900),), "aorta")


def _paint_great_vessels(scene: Scene) -> None:
    """The other great vessels: contrast medium is not equally dense in what comes from the arm, the belly, the lungs."""
    canvas, maps = scene.canvas, scene.patient.maps
    vessels = atlas.GREAT_VESSELS
    rods = [
        tube(number, maps[organ].to_patient(smoothed(path, 3)), np.interp(
            np.arange(3 * len(path) - 2) / 3, np.arange(len(path)), radii))
        for number, (organ, (path, radii)) in enumerate(vessels)
    ]  # fmt: skip
    region = canvas.region_of(scene.d["great_vessels"])
    if region is None:
        return
    box = canvas.lattice.box(region)
    distance, nearest = np.full(box.shape, FAR_MM, np.float32), np.zeros(box.shape, np.uint8)
    near_rods(box, rods, distance, nearest)
    values = np.array([scene.hu[_blood_of(organ, path)] for organ, (path, _) in vessels], np.float32)
    shape = canvas.finer(scene.d["great_vessels"], region)
    canvas.paint_region(region, shape, values[nearest], "great_vessels")
    # What hangs on the heart's map has a label of its own, by which it is found in the atlas.
    on_heart = np.array([organ == "heart" for organ, _ in vessels])[nearest]
    canvas.labels[region][(shape < 0) & on_heart] = LABEL["pulmonary_veins"]


def _blood_of(organ: str, path: np.ndarray) -> str:
    """Whose blood runs in a great vessel, by where the atlas has it: pulmonary vein or artery, upper or lower cava."""
    if path[-1, 2] < -80:
        return "cava_lower"
    return "cava_upper" if organ == "aorta" and path[0, 0] < -15 and path[0, 2] < 60 else "blood"


def _paint_azygos(scene: Scene) -> None:
    """The azygos vein, up the right front of the spine and forward over the right bronchus; its fellow on the left."""
    spine, rng = scene.patient.maps["spine"], scene.draw("azygos")
    z = np.array([-210.0, -160, -110, -60, -20, 6])
    front = skeleton.spine_axis(z) - skeleton.AP_SHARE * skeleton.spine_radius(z)
    right = spine.to_patient(np.column_stack([np.full(6, -6.0) + rng.normal(0, 1.5, 6), front - 2.5, z]))
    arch = scene.patient.maps["aorta"].to_patient(np.array([(-18.0, 10, 16), (-23, -8, 16)]))
    left = spine.to_patient(np.column_stack([np.full(4, 12.0) + rng.normal(0, 1.5, 4), front[:4] + 2, z[:4]]))
    radius = rng.normal(3.6, 0.6)
    rods = [tube(0, smoothed(np.vstack([right, arch]), 3), radius), tube(0, smoothed(left, 2), 0.6 * radius)]
    paint_rods(scene.canvas, rods, (scene.hu["cava_lower"],), None)


def _paint_esophagus(scene: Scene) -> None:
    """The gullet: a muscular tube, here and there with air in it."""
    canvas, d, rng = scene.canvas, scene.d, scene.draw("esophagus")
    gape = scene.texture("gullet", 24, 1.0)
    gullet_mm = np.maximum(d["esophagus"] + 0.5, 2 - d["stomach"])  # it ends where the stomach begins
    canvas.paint(gullet_mm, scene.hu["soft"], "esophagus")
    open_mm = np.float32(rng.uniform(4.5, 8.5))  # how far under the surface the air begins
    canvas.paint(gullet_mm + np.maximum(open_mm - 1.6 * gape, 2.4), -700.0, None)


def _paint_trachea(scene: Scene) -> None:
    """Windpipe and main bronchi with their walls, whose cartilage is calcified in some of the old."""
    canvas, d, age = scene.canvas, scene.d, scene.patient.habitus.age_years
    ring = 60 + 260 * scene.draw("rings").beta(1, 6) * np.clip((age - 50) / 25, 0, 1)
    rough = scene.texture("rings", 8, 1.0)
    canvas.paint(
        d["trachea"] - 1.9, scene.hu["soft"] + np.maximum(ring * (0.5 + 0.7 * rough), -20), "trachea"
    )
    canvas.paint(d["trachea"], -985.0, "trachea")


def _paint_thymus(scene: Scene) -> None:
    """What is left of the thymus behind the breastbone: soft strands in the young, fat in the old; thyroid in the neck."""
    hu, age = scene.hu, scene.patient.habitus.age_years
    rng = scene.draw("thymus")
    left = np.clip((72 - age) / 45, 0.04, 1) * rng.uniform(0.3, 1)
    for side, shift in ((-1, (-6, -54, 6)), (1, (9, -52, 2))):
        centre = scene.patient.maps["aorta"].to_patient(np.array([shift], float))[0]
        _blob(scene, centre, (9, 6, 26), hu["soft"], 0.75 * left, None, f"thymus{side}")
    size = np.exp(rng.normal(0, 0.2))
    for side in (-1, 1):
        centre = scene.patient.maps["trachea"].to_patient(
            np.array([(17.0 * side, 5, 128 + rng.normal(0, 4))])
        )[0]
        _blob(scene, centre, (8 * size, 10 * size, 22 * size), hu["thyroid"], 1.0, None, "thyroid")


def _paint_nodes(scene: Scene) -> None:
    """Lymph nodes, small ones mostly; some hold fat in their middle."""
    rng, hu = scene.draw("lymph-nodes"), scene.hu
    for organ, place in NODES:
        shown, shift, size = rng.random() < 0.75, rng.normal(0, 3.0, 3), rng.lognormal(np.log(3.1), 0.32)
        stretch, fatty = np.exp(rng.normal(0, 0.28, 3)), rng.random() < 0.4
        if not shown:
            continue
        radii = tuple(np.minimum(size * stretch, 7.5))
        centre = scene.patient.maps[organ].to_patient(np.array([place], float) + shift)[0]
        _blob(scene, centre, radii, hu["nodes"], 1.0, "lymph_nodes", None)
        if fatty and size > 3.2:
            _blob(scene, centre, tuple(0.45 * r for r in radii), hu["fat"] + 30, 1.0, None, None)


def _blob(
    scene: Scene,
    centre: np.ndarray,
    radii: tuple,
    hu: float,
    most: float,
    label: str | None,
    rough: str | None,
) -> None:
    """An ellipsoid, its surface roughened by the texture of that purpose, blended in by `most` at most."""
    canvas = scene.canvas
    reach = np.array(radii) * 1.3 + 4
    region = canvas.lattice.region(centre - reach, centre + reach)
    if region is None:
        return
    distance = ellipsoid(*canvas.lattice.box(region).grids, tuple(centre), radii)
    if rough is not None:
        distance = distance + np.float32(2.2) * grain(scene, rough, canvas.lattice.box(region), 7.0)
    share = np.clip(np.float32(0.5) - distance / canvas.voxel_mm, 0, 1) * np.float32(most)
    canvas.blend(region, share, hu)
    if label is not None:
        canvas.labels[region][distance < 0] = LABEL[label]
