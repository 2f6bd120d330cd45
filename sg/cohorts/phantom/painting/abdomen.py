"""What lies below the diaphragm, and the diaphragm itself."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom import skeleton, trees
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.painting.bowel import paint_bowel
from sg.cohorts.phantom.painting.grain import grain
from sg.cohorts.phantom.painting.pieces import FAR_MM, near_rods, paint_rods, smoothed, tube
from sg.cohorts.phantom.scene import Scene

LIVER_BRANCHES = 48  # ends of each of the liver's two trees
RUGAE_MM = 3.2  # how far the stomach's folds stand out
COLLAPSED_SHARE = 0.35  # of stomachs are empty
DRUNK_SHARE = 0.12  # hold contrast medium that was drunk


def paint_abdomen(scene: Scene) -> None:
    """What lies below the diaphragm: fat first, then hollow organs, solid ones, vessels, the diaphragm."""
    d = scene.d
    below = np.maximum(3 - d["above"], d["cavity"] + 3)
    _paint_loins(scene, below)
    _paint_mesentery(scene, below)
    paint_bowel(scene, np.maximum(below + 1, -d["spine"] + 10))
    _paint_pancreas(scene, below)
    _paint_kidneys(scene)
    _paint_stomach(scene)
    _paint_spleen(scene)
    _paint_liver(scene)
    _paint_gall_bladder(scene)
    _paint_vessels(scene, below)
    _paint_diaphragm(scene)


def _axis_points(x: list[float], back: list[float], z: list[float]) -> np.ndarray:
    """Points (n, 3) of the spine's map at x, so far behind the middle of the vertebral bodies, at heights z."""
    heights = np.array(z, float)
    return np.column_stack([x, skeleton.spine_axis(heights) + np.array(back), heights]).astype(float)


def _paint_loins(scene: Scene, below: np.ndarray) -> None:
    """Psoas and the square muscle of the loins, on both sides of the spine."""
    spine, build = scene.patient.maps["spine"], np.exp(scene.draw("loins").normal(0, 0.15))
    rods = []
    for side in (-1, 1):
        mirror = np.array([side, 1, 1])
        psoas = _axis_points([20, 28, 36, 42], [0, 2, 2, 2], [-178, -230, -300, -380]) * mirror
        square = _axis_points([58, 64, 70], [24, 26, 26], [-186, -270, -380]) * mirror
        rods.append(tube(0, smoothed(spine.to_patient(psoas), 3), np.linspace(4, 21, 10) * build))
        rods.append(tube(0, smoothed(spine.to_patient(square), 3), np.linspace(7, 13, 7) * build))
    paint_rods(scene.canvas, rods, (scene.hu["muscle"],), "muscle", below - 3)


def _paint_mesentery(scene: Scene, below: np.ndarray) -> None:
    """Small vessels and nodes in the fat of the belly."""
    rng, body = scene.draw("mesentery"), scene.patient.maps["body"]
    root = np.array([4.0, -6, -235])
    leaves = np.column_stack([rng.uniform(-80, 85, 40), rng.uniform(-70, 0, 40), rng.uniform(-372, -200, 40)])
    nodes, parents = trees.grow(root, leaves, rng)
    where, radii = body.to_patient(nodes), trees.radii_of(parents, 0.9)
    children = np.flatnonzero(parents >= 0)
    tree = trees.Tree(where[parents[children]], where[children], radii[parents[children]], radii[children])
    region = scene.canvas.region_of(below)
    if region is None or min(scene.canvas.lattice.box(region).shape) < 2:
        return
    share = trees.coverage(tree, scene.canvas.lattice.box(region))
    share *= np.clip(-scene.canvas.finer(below, region) / scene.canvas.voxel_mm, 0, 1)
    scene.canvas.blend(region, share, scene.hu["portal"])


def _paint_pancreas(scene: Scene, below: np.ndarray) -> None:
    """Pancreas, lobed and fattier in the old, and adrenals."""
    canvas, hu, rng = scene.canvas, scene.hu, scene.draw("pancreas")
    body, kidneys = scene.patient.maps["body"], scene.patient.maps["kidneys"]
    path = np.array(
        [(-24, -4, -244), (-24, -8, -226), (-4, -20, -212), (24, -14, -202), (52, 10, -190), (72, 24, -180)]
    )
    path = smoothed(body.to_patient(path + rng.normal(0, 4, path.shape)), 3)
    shrunk = np.clip(1.12 - 0.006 * (scene.patient.habitus.age_years - 40), 0.7, 1.15)
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.2, 0.45, 0.7, 1], [11, 13, 7.5, 9, 8]) * shrunk
    region = canvas.lattice.region(path.min(axis=0) - 18, path.max(axis=0) + 18)
    if region is not None:
        box = canvas.lattice.box(region)
        distance = np.full(box.shape, FAR_MM, np.float32)
        near_rods(box, [tube(0, path, radii)], distance, np.zeros(box.shape, np.uint8))
        lobes = grain(scene, "pancreas-lobes", box, 6.5)
        distance = np.maximum(distance + 1.8 * lobes, canvas.finer(below, region))
        fatty = np.float32(np.clip(rng.normal(0.8, 0.6) + (1.1 - shrunk) * 3, 0, 2.5))
        canvas.paint_region(region, distance, hu["pancreas"] - 16 * fatty * np.maximum(lobes, 0), None)
    rods = []
    for side, x, z in ((-1, 40, -200), (1, 46, -190)):
        at = np.array([(x * side, 44, z - 14.0), (x * side * 0.9, 34, z), (x * side * 1.1, 46, z - 16)])
        limbs = kidneys.to_patient(at + rng.normal(0, 1.5, 3))
        rods += [tube(0, limbs[:2], rng.uniform(2.2, 3.6)), tube(0, limbs[1:], rng.uniform(2.0, 3.2))]
    paint_rods(canvas, rods, (hu["adrenals"],), None, below)


def _paint_kidneys(scene: Scene) -> None:
    """Kidneys: cortex, pyramids of medulla, and the sinus with its fat and urine."""
    canvas, d, hu = scene.canvas, scene.d, scene.hu
    region = canvas.region_of(d["kidneys"])
    if region is None:
        return
    rng, box = scene.draw("kidneys-inside"), canvas.lattice.box(region)
    distance = canvas.finer(d["kidneys"], region)
    x, y, z = (canvas.finer(field, region) for field in scene.patient.maps["kidneys"].to_atlas(canvas.coarse))
    wide = grain(scene, "pyramids", box, 15.0)
    canvas.paint_region(region, distance, hu["kidneys"] + 2 * wide, "kidneys")
    pyramids = np.maximum(distance + np.float32(rng.normal(7.5, 0.8)), -3.2 * wide - 1.0)
    canvas.paint_region(region, pyramids, hu["medulla"], None)
    # The sinus opens towards the middle; in the old more of it is fat.
    low = z + np.where(x < 0, np.float32(258), np.float32(244))
    sinus = np.sqrt(((np.abs(x) - 44) / 1.15) ** 2 + ((y - 47) / 0.7) ** 2 + (low / 2.1) ** 2) - np.float32(
        9 + 0.06 * (scene.patient.habitus.age_years - 50)
    )
    sinus = np.maximum(sinus, distance + 1.0) + 1.5 * wide
    canvas.paint_region(region, sinus, hu["mediastinum"] + 8 * wide, None)
    canvas.paint_region(region, sinus + np.float32(5.0), hu["fluid"] - 10, None)


def _paint_stomach(scene: Scene) -> None:
    """Stomach: a folded wall, fluid and food, and air in front; or empty, its walls together."""
    canvas, d, hu = scene.canvas, scene.d, scene.hu
    region = canvas.region_of(d["stomach"])
    if region is None:
        return
    rng, box = scene.draw("stomach-inside"), canvas.lattice.box(region)
    distance = canvas.finer(d["stomach"], region)
    fine, folds = grain(scene, "food", box, 9.0), grain(scene, "rugae", box, 11.0)
    canvas.paint_region(region, distance, hu["wall"] + 3 * fine, "stomach")
    thick = rng.uniform(9, 14) if rng.random() < COLLAPSED_SHARE else rng.uniform(3.0, 5.0)
    lumen = distance + np.float32(thick) + np.abs(folds) * np.float32(RUGAE_MM)
    food, drunk = rng.uniform(0, 1), rng.random() < DRUNK_SHARE
    content = hu["fluid"] + (rng.uniform(120, 260) if drunk else 0) + food * (22 + 12 * fine)
    bubbles = np.float32(140 * food) * np.maximum(fine - 1.2, 0)
    canvas.paint_region(region, lumen, content - bubbles, None)
    middle = scene.patient.maps["stomach"].to_patient(np.array([[50.0, -34.0, -170.0]]))[0, 1]
    level = np.float32(middle + rng.normal(-6, 12))
    canvas.paint_region(region, np.maximum(lumen + 0.5, box.grids[1] - level + 0.4 * fine), -940.0, None)


def _paint_spleen(scene: Scene) -> None:
    """Spleen: even but in the arterial phase, when it takes up contrast medium in bands."""
    canvas, d, hu = scene.canvas, scene.d, scene.hu
    region = canvas.region_of(d["spleen"])
    if region is None:
        return
    wide = grain(scene, "spleen-bands", canvas.lattice.box(region), 14.0)
    early = np.clip((hu["blood"] - 190) / 100, 0, 1)
    distance = canvas.finer(d["spleen"], region)
    canvas.paint_region(region, distance, hu["spleen"] + (2 + 14 * np.float32(early)) * wide, "spleen")


def _paint_liver(scene: Scene) -> None:
    """Liver: its parenchyma, fat spared or heaped in places, the cleft of its round ligament, its vessels."""
    canvas, d, hu, patient = scene.canvas, scene.d, scene.hu, scene.patient
    region = canvas.region_of(d["liver"])
    if region is None:
        return
    rng, box = scene.draw("liver-inside"), canvas.lattice.box(region)
    # The lower vena cava runs in the liver's flesh, without the fat that parts other organs.
    around = 3.5 * np.clip(2 - d["great_vessels"] / 4, 0, 1) * (d["above"] > 0)
    distance = canvas.finer(d["liver"] - around.astype(np.float32), region)
    wide = canvas.finer(scene.texture("liver-wide", 30, 1.0), region)
    fine = grain(scene, "liver-grain", box, 8.0)
    patchy = np.float32(rng.gamma(2.0, 1.2))
    value = np.float32(hu["liver"]) + patchy * wide + np.float32(2.5) * fine
    canvas.paint_region(region, distance, value, "liver")
    cleft = patient.maps["liver"].to_patient(np.array([(4.0, -74, -206), (4, -40, -190), (0, -18, -180)]))
    paint_rods(canvas, [tube(0, cleft, (4.5, 4.0, 2.5))], (hu["mediastinum"] + 15,), None)
    if min(box.shape) > 1:
        _paint_liver_trees(scene, region, distance, rng)


def _paint_liver_trees(scene: Scene, region: tuple, distance: np.ndarray, rng: np.random.Generator) -> None:
    """Portal veins from the hilum and hepatic veins towards the lower vena cava, a patient's own beyond their roots."""
    canvas, hu, liver = scene.canvas, scene.hu, scene.patient.maps["liver"]
    box = canvas.lattice.box(region)
    inside = np.clip(-distance / canvas.voxel_mm - 0.7, 0, 1)
    roots = {
        "portal": [(-14, 0, -186), (-34, 4, -180), (-62, 6, -178)],
        "hepatic": [(-20, 14, -108), (-30, 10, -122)],
    }
    for name, root in roots.items():
        leaves = rng.uniform((-128, -62, -246), (62, 74, -98), (LIVER_BRANCHES * 4, 3))
        where = liver.to_patient(np.vstack([root, leaves]))
        kept = _inside(scene, where[len(root) :])[:LIVER_BRANCHES]
        start = where[len(root) - 1]
        nodes, parents = trees.grow(start, where[len(root) :][kept], rng)
        radii = np.minimum(trees.radii_of(parents, 1.35 if name == "portal" else 1.5), 5.5)
        children = np.flatnonzero(parents >= 0)
        stem = np.arange(len(root) - 1)
        tree = trees.Tree.of(
            [
                trees.Tree(
                    nodes[parents[children]], nodes[children], radii[parents[children]], radii[children]
                ),
                trees.Tree(where[stem], where[stem + 1], np.full(len(stem), 6.0), np.full(len(stem), 5.5)),
            ]
        )
        share = trees.coverage(tree, box) * inside
        canvas.blend(region, share, hu[name])
        canvas.labels[region][share > 0.5] = LABEL["liver_vessels"]


def _inside(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Which of the points (n, 3) lie well within the liver of the person's survey, in their order."""
    lattice, liver_mm = scene.person.survey.lattice, scene.person.survey.d["liver"]
    index = [
        np.clip(np.rint((points[:, axis] - nodes[0]) / (nodes[1] - nodes[0])), 0, len(nodes) - 1).astype(int)
        for axis, nodes in enumerate((lattice.x, lattice.y, lattice.z))
    ]
    return np.flatnonzero(liver_mm[index[2], index[1], index[0]] < -7)


def _paint_gall_bladder(scene: Scene) -> None:
    """Gall bladder: bile in a thin wall; stones in some."""
    canvas, hu, rng = scene.canvas, scene.hu, scene.draw("bile")
    bladder_mm = scene.d["gall_bladder"]
    canvas.paint(bladder_mm, hu["wall"], "gall_bladder")
    canvas.paint(bladder_mm + 1.8, hu["bile"], "gall_bladder")
    region = canvas.region_of(bladder_mm, 0.0)
    # One adult in seven has stones, of which CT shows half (Shaffer, Gut Liver 2012;6:172; recalled, not checked).
    stones, where, size = rng.random() < 0.08, rng.normal(0, 3, 3), rng.uniform(2, 5)
    if stones and region is not None:
        centre = scene.patient.maps["gall_bladder"].to_patient(np.array([[-54.0, -38, -218]]))[0] + where
        ends = centre + np.array([(0.0, 0, 0), (1, 0, 0)])
        paint_rods(canvas, [tube(0, ends, size)], (rng.uniform(120, 700),), None, bladder_mm + 2)


def _paint_vessels(scene: Scene, below: np.ndarray) -> None:
    """Portal and splenic vein, the arteries of the belly, and the kidneys' vessels."""
    maps, rng = scene.patient.maps, scene.draw("belly-vessels")
    aorta, liver, spleen, kidneys = (
        maps[name].to_patient for name in ("aorta", "liver", "spleen", "kidneys")
    )

    def at(place, *points):
        return place(np.array(points, float)) + rng.normal(0, 1.5, (len(points), 3))

    hilum, confluence = at(liver, (-14, 0, -186)), at(aorta, (2, -14, -222))
    trunk = at(aorta, (7, 20, -205), (4, -4, -212))
    rods = [
        tube(0, smoothed(np.vstack([confluence, hilum]), 2), 6.5),
        tube(
            0,
            smoothed(np.vstack([confluence, at(aorta, (34, -2, -204)), at(spleen, (66, 30, -172))]), 4),
            4.2,
        ),
        tube(0, smoothed(np.vstack([confluence, at(aorta, (-2, -16, -270), (-6, -14, -350))]), 2), 5.0),
        tube(1, np.vstack([at(aorta, (8, 24, -192), (4, 4, -196)), hilum + np.array([2.0, -4, -8])]), 2.8),
        tube(1, np.vstack([at(aorta, (4, 4, -196), (36, 2, -198)), at(spleen, (66, 28, -168))]), 2.6),
        tube(1, smoothed(np.vstack([trunk, at(aorta, (4, -12, -250), (2, -12, -350))]), 2), 3.2),
    ]
    for side in (-1, 1):
        gate = at(kidneys, (44.0 * side, 46, -252))
        rods.append(tube(1, np.vstack([at(aorta, (6, 20, -232)), gate]), 2.6))
        rods.append(tube(2, np.vstack([at(aorta, (-18, 14, -228)), gate + np.array([0.0, -4, 4])]), 3.8))
    values = [scene.hu[name] for name in ("portal", "blood", "cava_lower")]
    paint_rods(scene.canvas, rods, values, None, below - 1)


def _paint_diaphragm(scene: Scene) -> None:
    """The diaphragm, a thin sheet under the lungs, and its crura on both sides of the aorta."""
    canvas, d, hu, rng = scene.canvas, scene.d, scene.hu, scene.draw("diaphragm")
    thin = 1.5 + 0.5 * scene.texture("diaphragm-slips", 20, 1.0)
    canvas.paint(np.maximum(np.abs(d["above"] - 0.8) - thin, d["cavity"]), hu["muscle"], "diaphragm")
    spine, rods = scene.patient.maps["spine"], []
    for side, low in ((-1, -262.0), (1, -240.0)):
        z = [-128.0, -165, -200, low]
        wide = np.array([19.0, 15, 13, 11]) + rng.normal(0, 1, 4)
        front = [
            -skeleton.AP_SHARE * float(skeleton.spine_radius(np.array(h))) - gap
            for h, gap in zip(z, (13, 9, 6, 3), strict=True)
        ]
        path = spine.to_patient(_axis_points(list(wide * side), front, z))
        thick = np.array([3.0, 4.5, 4.5, 2.0]) * np.exp(rng.normal(0, 0.2))
        rods.append(tube(0, smoothed(path, 3), np.interp(np.arange(10) / 3, np.arange(4), thick)))
    paint_rods(canvas, rods, (hu["muscle"],), "diaphragm")
