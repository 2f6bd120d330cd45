"""Skin, fat, breasts and muscles, and the fat that fills the cavity.

A muscle is a slab of the wall: so deep below the muscles' outer surface, or so high above the ribs' inner one, within
a window of angle and height. What no muscle fills is fat.
"""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom import skeleton
from sg.cohorts.phantom.canvas import LABEL, WHOLE
from sg.cohorts.phantom.painting.limbs import paint_arms
from sg.cohorts.phantom.painting.pieces import paint_rods, smoothed, tube
from sg.cohorts.phantom.scene import Scene
from sg.compiled import compiled

# Muscles of the neck on the left: (path, radius of its middle), by the body's map: from the ear to the breastbone, from
# the neck's vertebrae to the first rib and to the shoulder blade, before and behind the spine, along the windpipe, and
# the trapezius' upper edge.
NECK = (
    ([(52, 20, 200), (42, -12, 128), (24, -50, 58)], 9.0), ([(20, 26, 190), (30, 24, 135), (48, 8, 98)], 8.0),
    ([(24, 34, 190), (36, 40, 140), (58, 30, 100)], 7.0), ([(32, 46, 190), (46, 56, 140), (70, 72, 92)], 8.5),
    ([(9, 8, 190), (8, 14, 140), (6, 26, 92)], 6.0), ([(12, 58, 190), (16, 68, 140), (22, 86, 92)], 13.0),
    ([(30, 62, 190), (38, 68, 146), (62, 62, 118), (118, 42, 112)], 10.0), ([(84, 62, 98), (112, 34, 100)], 10.0),
    ([(12, -14, 170), (14, -26, 120), (14, -50, 64)], 4.5), ([(68, -36, 66), (100, -30, 58)], 5.5),
)  # fmt: skip
# Vessels of neck and arm pit: inner jugular vein, carotid, outer jugular; axillary artery and vein (cage's map).
JUGULAR = ([(30, 0, 200), (30, -10, 120), (26, -24, 70)], 5.5)
AXILLARY = ([(72, 2, 106), (100, 0, 92), (128, -4, 74), (150, -4, 82)], 3.4)
SKIN_MM = 1.9  # 1.5 to 2 mm on the trunk (Laurent et al., Vaccine 2007;25:6423; recalled, not checked)
GRAIN = 32  # nodes of the periodic noise along an axis
# Folds and hollows of the body's surface: step and standard deviation, mm; at least so much stays on the muscles.
UNEVEN_MM = ((75.0, 2.6), (26.0, 1.1))
LEAST_FAT_MM = 2.0
DENSE_BREASTS = (0.12, 0.55)  # share of a breast that gland fills, from nearly all fat to dense


def paint_walls(scene: Scene) -> None:
    """Skin, fat with septa, breasts, muscles with fat between them, and the fat that fills the cavity."""
    canvas, hu, patient = scene.canvas, scene.hu, scene.patient
    uneven = sum(scene.texture(f"outline/{step:.0f}", step, sd) for step, sd in UNEVEN_MM)
    scene.d["skin"] = np.minimum(scene.d["skin"] + uneven, scene.d["trunk"] - np.float32(LEAST_FAT_MM))
    paint_arms(scene)
    fields = [canvas.finer(scene.d[name], WHOLE) for name in ("skin", "trunk", "cavity")]
    atlas = [canvas.finer(field, WHOLE) for field in patient.maps["body"].to_atlas(canvas.coarse)]
    wide = canvas.finer(scene.texture("wall", 22, 1.0), WHOLE)
    rng = scene.draw("walls")
    table = rng.standard_normal((GRAIN, GRAIN, GRAIN)).astype(np.float32)
    # Of the person: how thick muscles are, how much fat runs in them, how dense the breasts are.
    build, dense = np.exp(rng.normal(0, 0.16)), rng.uniform(*DENSE_BREASTS)
    marbled = np.clip(rng.uniform(-0.3, 0.7) + (patient.habitus.age_years - 45) / 60, 0, 1)
    own = np.array(
        [build, marbled, dense if patient.habitus.breast_mm else 0.0, canvas.voxel_mm, SKIN_MM], np.float32
    )
    values = np.array([hu[name] for name in ("skin", "fat", "muscle", "gland", "mediastinum")], np.float32)
    labels = np.array([LABEL["fat"], LABEL["muscle"], LABEL["mediastinum"]], np.uint8)
    heights = np.arange(-420, 260, 4.0)
    lattice = canvas.lattice
    places = [axis.astype(np.float32) for axis in (lattice.x, lattice.y, lattice.z)]
    _wall(
        canvas.hu, canvas.labels, *fields, *atlas, wide, *places, skeleton.spine_axis(heights), table, own, values, labels
    )  # fmt: skip
    _paint_neck(scene)


def _paint_neck(scene: Scene) -> None:
    """Muscles of the neck and the shoulder's upper side, the veins beside them and the vessels of the arm."""
    canvas, maps, rng = scene.canvas, scene.patient.maps, scene.draw("neck")
    build = np.exp(rng.normal(0, 0.12))
    muscles, vessels, injected = [], [], rng.choice((-1, 1))
    for side in (-1, 1):
        mirror = np.array([side, 1, 1])
        for points, radius in NECK:
            path = maps["body"].to_patient(
                (np.array(points, float) + rng.normal(0, 1.5, (len(points), 3))) * mirror
            )
            path = smoothed(path, 3)
            taper = np.sin(np.pi * np.linspace(0.12, 0.88, len(path))) ** 0.7
            muscles.append(tube(0, path, build * radius * taper))
        jugular = maps["body"].to_patient(np.array(JUGULAR[0], float) * mirror)
        vessels.append(tube(0, smoothed(jugular, 3), JUGULAR[1] * np.exp(rng.normal(0, 0.25))))
        axillary = maps["cage"].to_patient(np.array(AXILLARY[0], float) * mirror)
        vessels.append(tube(1, smoothed(axillary, 3), AXILLARY[1]))
        # The vein of the arm that the medium goes into is the densest of all.
        kind = 2 if side == injected else 0
        vessels.append(tube(kind, smoothed(axillary + np.array([0.0, -8, -5]), 3), AXILLARY[1] * 1.25))
    hu = scene.hu
    within = np.maximum(scene.d["trunk"] + 1.5, 2 - scene.d["cavity"])
    paint_rods(canvas, muscles, (hu["muscle"],), "muscle", within)
    paint_rods(canvas, vessels, (hu["cava_lower"], hu["blood"], hu["cava_upper"]), None, within)


@compiled
def _wall(hu, labels, skin, trunk, cavity, ax, ay, az, wide, px, py, pz, spine, table, own, values, names):
    """Paint what lies between skin and cavity; `spine` holds y of the vertebrae from z = -420 mm in steps of 4 mm."""

    def noise(u, v, w):
        i, j, k = np.floor(u), np.floor(v), np.floor(w)
        u, v, w = u - i, v - j, w - k
        u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
        i0, j0, k0 = int(i) % 32, int(j) % 32, int(k) % 32
        i1, j1, k1 = (i0 + 1) % 32, (j0 + 1) % 32, (k0 + 1) % 32
        a = table[k0, j0, i0] + u * (table[k0, j0, i1] - table[k0, j0, i0])
        b = table[k0, j1, i0] + u * (table[k0, j1, i1] - table[k0, j1, i0])
        c = table[k1, j0, i0] + u * (table[k1, j0, i1] - table[k1, j0, i0])
        d = table[k1, j1, i0] + u * (table[k1, j1, i1] - table[k1, j1, i0])
        a, c = a + v * (b - a), c + v * (d - c)
        return a + w * (c - a)

    def ramp(value, low, high):
        return min(max((value - low) / (high - low), 0.0), 1.0)

    build, marbled, dense, voxel, skin_mm = own
    skin_hu, fat_hu, muscle_hu, gland_hu, visceral_hu = values
    for k in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            for i in range(hu.shape[2]):
                s = skin[k, j, i]
                if s > 0.5 * voxel:
                    continue
                q, c = -trunk[k, j, i], cavity[k, j, i]
                X, Y, Z = ax[k, j, i], ay[k, j, i], az[k, j, i]
                lateral, rough = abs(X), wide[k, j, i]
                body = min(max(0.5 - s / voxel, 0.0), 1.0)
                fine = noise((0.8 * px[i] + 0.6 * py[j]) / 7, (0.8 * py[j] - 0.6 * px[i]) / 7, pz[k] / 9)
                # Fat, in lobes with thin septa between them.
                lobes = noise(px[i] / 13 + 7, py[j] / 13, pz[k] / 15)
                septum = max(1 - abs(lobes + 0.35 * fine) / 0.16, 0.0)
                value = fat_hu + 4 * rough + 3 * fine + 34 * septum * septum
                if q < 0:  # the fascia half-way through the fat
                    sheet = max(1 - abs(-s - 0.55 * (-s - q) + 1.5 * lobes) / 1.4, 0.0)
                    value += 24 * sheet * ramp(fine, -0.6, 0.6)
                name = names[0]
                if q < 3 and dense > 0 and Y < -20:
                    # Glands fan out behind the nipple, under a layer of fat.
                    deep = -s
                    near = np.sqrt((lateral - 82) ** 2 + (Z + 52) ** 2 * 0.9)
                    room = min(ramp(deep, 5.0, 12.0), ramp(-q, 2.0, 7.0)) * ramp(68 - near, 0.0, 26.0)
                    if room > 0:
                        grown = (
                            ramp(1.1 * lobes + 0.8 * fine + 3.2 * dense - 1.0 - near / 60, -0.25, 0.25) * room
                        )
                        value += grown * (gland_hu - value)
                if q > -0.5 * voxel and c > -0.5 * voxel:
                    thick = max(q + c, 9.0)
                    angle = np.arctan2(lateral / 150, -(Y - 2) / 95) * 57.2958
                    back = Y - spine[min(max(int((Z + 420) / 4), 0), len(spine) - 1)]
                    wave = 1.3 * rough
                    outer = q + 0.8 * fine  # from the outer surface inwards
                    inner = c + wave
                    best, own_best = 99.0, 99.0
                    # Intercostal muscles, thin, between the ribs.
                    v = abs(c - 4.6) - 4.0
                    if angle < 130:
                        v += 6 * ramp(Z, 66.0, 92.0)  # above the first rib there are none
                    best = min(best, v)
                    # Pectoralis major and minor
                    if Y < 10 and Z > -100:
                        width = 13 * build * ramp(angle, 2.0, 26.0) * (1 - 0.55 * ramp(angle, 50.0, 85.0))
                        width *= ramp(Z, -88.0, -40.0)
                        width = min(width, thick - 9)
                        v = max(max(outer - width, -outer - 1), max(4 - angle, angle - 96) * 1.5)
                        best = min(best, v)
                        width = min(8 * build * ramp(angle, 22.0, 34.0), thick - 12)
                        v = max(abs(inner - 14 - 2 * rough) - 0.5 * width, max(20 - angle, angle - 66) * 1.5)
                        best = min(best, max(v, max(-48 - Z, Z - 62)))
                    # Serratus on the ribs
                    if 55 < angle < 150:
                        width = 5.5 * build * ramp(angle, 62.0, 80.0) * (1 - ramp(angle, 125.0, 148.0))
                        width = min(width, thick - 9)
                        teeth = 2.0 * np.sin((Z + 1.1 * lateral) * 0.28)
                        v = max(
                            abs(inner - 9.5 - 0.5 * width) - 0.5 * width - 0.3 * teeth, max(-150 - Z, Z - 45)
                        )
                        best = min(best, v)
                    # Latissimus and teres
                    if 82 < angle < 170 and Z < 40:
                        width = 13 * build * ramp(angle, 86.0, 118.0) * (1 - 0.7 * ramp(angle, 130.0, 165.0))
                        width *= 0.55 + 0.75 * ramp(Z, -120.0, -10.0)
                        width = min(width, thick - 10)
                        v = max(max(outer - 1 - width, 0.6 - outer), max(-215 - Z, Z - 32))
                        best = min(best, v)
                    # Muscles around the shoulder blade, parted by fat
                    if angle > 92 and Z > -92 and Z < 112 and lateral > 38:
                        gap = abs(outer - 13 - 3 * rough - 0.04 * (angle - 130) ** 2 / 10) - 1.2
                        v = max(max(11.5 - inner, 3.0 - outer), -gap)
                        v = max(v, max(-84 + 0.25 * (140 - angle) - Z, (112 - angle) * 1.4 + 9 * rough))
                        v = max(v, 0.8 - abs(lobes + 0.6 * fine + 0.4) * 8)
                        best = min(best, v)
                    # Deltoid, and what wraps the head of the humerus
                    if lateral > 100 and Z > 0:
                        v = max(max(outer - 19 * build, 0.8 - outer), max(112 - lateral, 8 - Z))
                        v = max(v, 0.7 - abs(noise(px[i] / 15, py[j] / 15, pz[k] / 40) + 0.3 * fine) * 7)
                        best = min(best, v)
                    # Where the neck meets the chest: bundles of muscle with fat, vessels and fascia between them. They are
                    # each patient's own and, as fat is, no muscle of the atlas.
                    if Z > 34 and Y < 40:
                        bundle = 5.5 * (noise(px[i] / 19, py[j] / 15 + 3, pz[k] / 44) + 0.25 * fine) - 0.8
                        v = max(max(1.5 - outer, 2.5 - c), (44 - Z) * 0.5)
                        own_best = max(v, -bundle - 0.9 * build)
                    # Trapezius
                    if angle > 120 and Z > -150:
                        reach = 24 + 62 * ramp(Z, -130.0, 60.0)
                        width = 7.5 * build * (1 - 0.6 * ramp(lateral, 0.6 * reach, reach))
                        v = max(max(outer - width, -outer), lateral - reach)
                        best = min(best, max(v, 1.2 - lateral))
                    # Erector spinae in two columns
                    if angle > 120 and lateral < 66:
                        far = 46 + 10 * ramp(-Z, 120.0, 240.0)
                        corner = max(11 - outer, 0.0)
                        v = max(lateral - far + 0.02 * (outer - 14) ** 2 + 0.09 * corner * corner, 4 - outer)
                        if Z < -60:
                            v = max(
                                v, -0.3 - abs(lateral - 0.42 * far - 3 * rough - 0.2 * (outer - 12)) * 0.6
                            )
                        best = min(best, max(v, 16 - back))
                    # Straight and oblique muscles of the belly
                    if Z < -100 and angle < 150:
                        width = min(10.5 * build * ramp(-Z, 100.0, 135.0), thick - 3)
                        a = (lateral - 35 - 2 * rough) / 31
                        b = (outer - 0.5 * width - 0.3) / (0.5 * width + 0.6)
                        best = min(best, ((a * a * a * a + b * b * b * b) ** 0.25 - 1) * (0.5 * width + 0.6))
                        taper = ramp(150 - angle, 0.0, 26.0)
                        low = ramp(-Z, 118.0 - 0.5 * (angle - 40), 150.0 - 0.5 * (angle - 40))
                        if low > 0 and angle > 30:
                            sheet = min(max((thick - 4) / 3, 2.0), 7.5) * (0.35 + 0.65 * taper)
                            place = outer / sheet
                            v = sheet * (abs(place - np.floor(place) - 0.46) - 0.46) - 0.8 + 0.7 * rough
                            if place > 3:
                                v = outer - 3 * sheet
                            best = min(best, max(max(v, 0.1 - outer), (34 - angle) * 1.5) + (1 - low) * 6)
                    # Fat grows into muscles along their fibres.
                    streak = noise(px[i] / 4.5, py[j] / 4.5, pz[k] / 16)
                    share = min(max(0.5 - min(best, own_best) / voxel, 0.0), 1.0)
                    pale = ramp(streak + 0.35 * rough, 0.75 - 0.5 * marbled, 1.7 - 0.4 * marbled)
                    # Bundles lie in thin sheets of fat, which follow the wall and bend.
                    sheet = 0.9 * noise(px[i] / 24, py[j] / 24, pz[k] / 30 + 11) + 0.25 * lobes
                    layer = q / 11 + sheet
                    off = 11 * abs(layer - np.floor(layer) - 0.5)
                    plane = ramp(1.2 - off, 0.0, 0.8) * ramp(lobes - 0.4 * fine, -0.1, 0.8)
                    pale = max(pale, (0.4 + 0.6 * marbled) * plane)
                    meat = muscle_hu + 3 * rough + 3 * streak - 60 * pale
                    between = 0.6 * value + 0.4 * (fat_hu + 50)  # small vessels and fascia
                    inside = between + share * (meat - between)
                    edge = min(max(0.5 + q / voxel, 0.0), 1.0)
                    value += edge * (inside - value)
                    if q > 0 and best < 0:
                        name = names[1]
                if c < 0.5 * voxel:
                    filled = min(max(0.5 - c / voxel, 0.0), 1.0)
                    strand = max(1 - abs(noise(px[i] / 9, py[j] / 9, pz[k] / 9 + 5)) / 0.17, 0.0)
                    inside = visceral_hu + 5 * rough + 4 * fine + 46 * strand
                    value += filled * (inside - value)
                    if c < 0:
                        name = names[2]
                crust = min(max(0.5 - (s + skin_mm) / voxel, 0.0), 1.0)  # what lies under the skin
                value = crust * value + (body - crust) * (skin_hu + 6 * fine)
                hu[k, j, i] = value + (1 - body) * hu[k, j, i]
                if s < 0:
                    labels[k, j, i] = name
