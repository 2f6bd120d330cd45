"""Spine, ribs with their cartilage, breastbone, collar bones, shoulder blades and upper arms.

Bones other than the spine are pieces (rods and plates) with a distance to the nearest, laid down at once as a shell of
compact bone around marrow: joints between pieces then leave no trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom import skeleton
from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.painting import limbs
from sg.cohorts.phantom.painting.pieces import FAR_MM, Rod, near_plates, near_rods, origin_and_step
from sg.cohorts.phantom.painting.placing import beside, hugging
from sg.cohorts.phantom.scene import Scene
from sg.compiled import compiled

GRAIN = 32  # nodes of the periodic noise along an axis
RIB_WAVER_MM = 1.4


@dataclass(frozen=True)
class Bone:
    """What a kind of bone is made of: a shell so thick, and what it and the inside measure."""

    label: str
    shell_mm: float
    shell_hu: float
    inside_hu: float
    grain_hu: float


def paint_bones(scene: Scene) -> None:
    """Spine, ribs with their cartilage, breastbone, collar bones, shoulder blades and upper arms."""
    grain = scene.draw("trabeculae").standard_normal((GRAIN, GRAIN, GRAIN)).astype(np.float32)
    kinds = _kinds(scene)
    distance = np.full(scene.canvas.lattice.shape, FAR_MM, np.float32)
    kind = np.zeros(scene.canvas.lattice.shape, np.uint8)
    _add_sternum(scene, distance, kind)
    rods = [*_ribs(scene), *_girdle(scene)]
    near_rods(scene.canvas.lattice, rods, distance, kind)
    _add_plates(scene, distance, kind)
    values = np.array([[b.shell_mm, b.shell_hu, b.inside_hu, b.grain_hu] for b in kinds], np.float32)
    labels = np.array([LABEL[b.label] for b in kinds], np.uint8)
    canvas = scene.canvas
    start, step = origin_and_step(canvas.lattice)
    _lay(canvas.hu, canvas.labels, distance, kind, values, labels, grain, start, step, canvas.voxel_mm)
    _paint_spine(scene, grain)


RIB, CARTILAGE, STERNUM, CLAVICLE, SCAPULA, HUMERUS = range(6)


def _kinds(scene: Scene) -> list[Bone]:
    """What the bones of this person are made of, in the order of their numbers."""
    hu, age = scene.hu, scene.patient.habitus.age_years
    cortex, marrow = hu["cortex"], hu["marrow"]
    calcified = np.clip((age - 35) / 40, 0, 1) * scene.draw("calcified-cartilage").uniform(0, 1)
    return [
        Bone("ribs", 0.75, cortex * 0.95, marrow * 0.9 + 10, 45),
        Bone(
            "cartilage",
            0.8,
            hu["cartilage"] + 500 * calcified,
            hu["cartilage"] + 60 * calcified,
            90 * calcified,
        ),
        Bone("sternum", 0.9, cortex * 0.75, marrow * 0.75, 35),
        Bone("clavicles", 1.6, cortex, marrow * 0.9 + 40, 50),
        Bone("scapulae", 1.3, cortex * 0.9, marrow + 60, 50),
        Bone("arms", 2.2, cortex * 1.05, marrow * 0.8 - 40, 50),
    ]


def _ribs(scene: Scene) -> Iterable[Rod]:
    """Ribs along the wall that they enclose, their heads at the vertebrae."""
    maps, survey = scene.patient.maps, scene.person.survey
    rng = scene.draw("ribs")
    pairs = rng.normal(0, (0.0, 0.0, 1.9), (12, 3))  # both ribs of a pair stand higher or lower together
    for number, rib in enumerate(skeleton.rib_paths()):
        own = pairs[number // 2] + rng.normal(0, 1, 3) * (0, 0, 1.3)
        high = np.float64(
            np.interp(number // 2, [0, 1, 6, 11], [5.0, 5.6, 6.8, 5.0]) * np.exp(rng.normal(0, 0.1))
        )
        root = maps["spine"].to_patient(rib.root)
        wall = maps["cage"].to_patient(rib.wall + own)
        # Cage and spine vary apart: behind, the wall's path gives way to where the vertebra is.
        apart = root[-1] - maps["cage"].to_patient(rib.root[-1:])[0]
        wall += apart * np.linspace(1, 0, len(wall))[:, None] ** 2
        # A rib is no arc of a circle: it wavers on its way, and is thickest at its angle and wide at its front end.
        wall[:, 2] += _wavering(len(wall), rng) * RIB_WAVER_MM
        wall, outward = hugging(survey, wall, 5.2)
        path = np.vstack([root, wall])
        normals = np.vstack([np.repeat(outward[:1], 2, axis=0), outward])
        along = np.linspace(0, 1, len(wall))
        own_thick = np.interp(along, [0, 0.12, 0.35, 1], [4.0, 4.3, 3.2, 3.1]) * np.exp(rng.normal(0, 0.09))
        thick = np.concatenate([[5.0, 4.4], own_thick * (1 + 0.08 * _wavering(len(wall), rng))])
        own_high = high * np.interp(along, [0, 0.2, 0.8, 1], [0.86, 0.95, 1.0, 1.2])
        height = np.concatenate([[5.0, 4.6], own_high * (1 + 0.08 * _wavering(len(wall), rng))])
        yield Rod(RIB, path, normals, thick, height)
        if rib.cartilage is not None:
            gristle = maps["cage"].to_patient(rib.cartilage + own)
            gristle[0] = wall[-1]
            fine = np.linspace(0, 2, 9)
            gristle = np.column_stack([_through(gristle[:, k], fine) for k in range(3)])
            gristle[1:-1], outward = (part[1:-1] for part in hugging(survey, gristle, 5.2))
            normals = np.vstack([outward[:1], outward, outward[-1:]])
            yield Rod(CARTILAGE, gristle, normals, np.full(9, 4.2), np.linspace(high, 6.0, 9))


def _wavering(count: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth course of standard deviation about 1 along a path of `count` points."""
    knots = np.linspace(0, count - 1, 6)
    return np.interp(np.arange(count), knots, rng.normal(0, 1.2, 6))


def _through(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The parabola through three values at 0, 1 and 2."""
    a, b, c = values
    return a + at * (b - a) + at * (at - 1) / 2 * (c - 2 * b + a)


def _girdle(scene: Scene) -> Iterable[Rod]:
    """Collar bones, the rods of the shoulder blades, and the upper arms."""
    cage = scene.patient.maps["cage"]
    along = np.array([[0.0, 1.0, 0.0]])
    for side in (-1, 1):
        mirror = np.array([side, 1, 1])
        for kind, atlas, thick, under in (
            (CLAVICLE, skeleton.CLAVICLE, [8.0, 6.5, 5.0, 5.0, 6.0], 5.0),
            (SCAPULA, skeleton.ACROMION, [5.0, 5.5, 4.0], 5.0),
            (SCAPULA, skeleton.CORACOID, [5.5, 4.5, 4.0], 6.0),
            (
                SCAPULA,
                skeleton.GLENOID + np.array([(-13, 6, -2), (-8, 4, -1), (-1, 0, 1)]),
                [7.0, 10.0, 13.0],
                9.0,
            ),
        ):
            path = beside(scene.person.survey, atlas * mirror, cage, 9.0, under)
            if kind == CLAVICLE:  # it meets the breastbone
                path[0] = scene.patient.maps["sternum"].to_patient(atlas[:1] * mirror)[0]
            yield Rod(kind, path, np.repeat(along, len(path), axis=0), np.array(thick), np.array(thick))
        # The blade's outer edge is thick, its middle thin.
        edge = beside(scene.person.survey, skeleton.BLADE[:3] * mirror, cage, skeleton.BLADE_OFF_MM[:3], 7.0)
        yield Rod(
            SCAPULA, edge, np.repeat(along, 3, axis=0), np.array([6.0, 4.6, 3.6]), np.array([6.0, 4.6, 3.6])
        )
        bone = limbs.humerus(scene, side)
        radii = np.array([skeleton.HEAD_RADIUS_MM, 15.0, 11.5, 12.0])
        yield Rod(HUMERUS, bone, np.repeat(along, len(bone), axis=0), radii, radii)


def _add_plates(scene: Scene, distance: np.ndarray, kind: np.ndarray) -> None:
    """Bring the distance to the shoulder blades, triangles with a triangular spine on their back, into the field."""
    cage, survey = scene.patient.maps["cage"], scene.person.survey
    plates = []
    for side in (-1, 1):
        mirror = np.array([side, 1, 1])
        blade = beside(survey, skeleton.BLADE * mirror, cage, skeleton.BLADE_OFF_MM, 7.0)
        middle = beside(
            survey, skeleton.BLADE_MIDDLE[None] * mirror, cage, skeleton.BLADE_MIDDLE_OFF_MM, 10.0
        )[0]
        plates += [[blade[k], blade[(k + 1) % len(blade)], middle] for k in range(len(blade))]
        # The spine rises from the blade's back to the acromion: its root lies on the blade.
        ridge = beside(survey, skeleton.SCAPULAR_SPINE * mirror, cage, 18.0, 4.0)
        plates += [[ridge[0], ridge[2], 0.5 * (blade[0] + middle)], [*ridge]]
    near_plates(scene.canvas.lattice, np.array(plates), 2.3, SCAPULA, distance, kind)


def _add_sternum(scene: Scene, distance: np.ndarray, kind: np.ndarray) -> None:
    """Bring the distance to the breastbone into the field of the nearest bone."""
    sternum, lattice = scene.patient.maps["sternum"], scene.canvas.lattice
    ends = sternum.to_patient(
        np.array([(x, y, z) for x in (-32.0, 32) for y, z in ((-108, -134), (-45, 54))])
    )
    region = lattice.region(ends.min(axis=0) - 8, ends.max(axis=0) + 8)
    if region is not None:
        distance[region] = skeleton.sternum(sternum.to_atlas(lattice.box(region)))
        kind[region] = STERNUM


@compiled
def _lay(hu, labels, distance, kind, values, names, grain, start, step, voxel):
    """Lay the bones down: `values` (kinds, 4) shell in mm, shell HU, inside HU, grain HU; `names` their labels.

    The shares of shell and inside are those of a plane cut through a voxel, so that a thin shell keeps its mass.
    """
    count = grain.shape[0]
    depth, height, width = distance.shape
    for k in range(depth):
        gz = int(np.floor((start[2] + k * step[2]) / 5.0)) % count
        for j in range(height):
            gy = int(np.floor((start[1] + j * step[1]) / 5.0)) % count
            for i in range(width):
                d = distance[k, j, i]
                if d > 0.5 * voxel:
                    continue
                shell, compact, inner, rough = values[kind[k, j, i]]
                share = min(max(0.5 - d / voxel, 0.0), 1.0)
                core = min(max(0.5 - (d + shell) / voxel, 0.0), 1.0)
                gx = int(np.floor((start[0] + i * step[0]) / 5.0)) % count
                inside = inner + rough * grain[gz, gy, gx]
                hu[k, j, i] = hu[k, j, i] * (1 - share) + (share - core) * compact + core * inside
                if d < 0:
                    labels[k, j, i] = names[kind[k, j, i]]


# ---------------------------------------------------------------------------------------------- spine


def _paint_spine(scene: Scene, grain: np.ndarray) -> None:
    """Vertebrae with their discs, arches and processes around the canal, on the voxels themselves."""
    canvas, spine, hu = scene.canvas, scene.patient.maps["spine"], scene.hu
    ends = spine.to_patient(
        np.array(
            [
                (x, y, z)
                for x in (-48.0, 48.0)
                for y, z in ((0, 140), (90, 140), (22, -60), (112, -60), (8, -370), (98, -370))
            ]
        )
    )
    region = canvas.lattice.region(ends.min(axis=0) - 8, ends.max(axis=0) + 8)
    if region is None:
        return
    x, y, z = spine.to_atlas(canvas.lattice.box(region))
    table = np.arange(-420, 200, 2.0)
    axis, radius = skeleton.spine_axis(table), skeleton.spine_radius(table)
    slope = np.gradient(axis, 2.0).astype(np.float32)
    rng = scene.draw("vertebrae")
    age = scene.patient.habitus.age_years
    spurs = rng.exponential(np.clip((age - 40) / 18, 0.05, 2.5), skeleton.LEVELS).astype(np.float32)
    marrow = hu["marrow"] + rng.normal(0, 9, skeleton.LEVELS)
    values = np.array(
        [hu["cortex"], hu["disc"], hu["cord"], hu["cerebrospinal"], hu["mediastinum"]], np.float32
    )
    part_hu, part_labels = canvas.hu[region], canvas.labels[region]
    _vertebrae(
        part_hu, part_labels, x, y, z, axis, radius, slope, skeleton.levels_mm(), skeleton.DISC_PLANES,
        spurs, marrow.astype(np.float32), values, grain, np.float32(canvas.voxel_mm), np.uint8(LABEL["spine"]),
    )  # fmt: skip


@compiled
def _vertebrae(
    hu, labels, xs, ys, zs, axis, radii, slopes, middles, planes, spurs, marrow, values, grain, voxel, label
):
    """Paint vertebrae at atlas positions; the tables of the axis start at z = -420 mm, in steps of 2 mm."""
    compact, gristle, cord, fluid, fat = values
    count, last = grain.shape[0], len(axis) - 1
    for k in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            for i in range(hu.shape[2]):
                x, y, z = xs[k, j, i], ys[k, j, i], zs[k, j, i]
                at = min(max((z + 420) / 2, 0.0), last - 1e-3)
                below = int(at)
                part = at - below
                middle = axis[below] + part * (axis[below + 1] - axis[below])
                back = y - middle
                if back < -35 or back > 75 or abs(x) > 52:
                    continue
                slope = slopes[below]
                # Planes across the column, not across the body: an endplate stands at right angles to the axis.
                z = z + slope * back
                at = min(max((z + 420) / 2, 0.0), last - 1e-3)
                below = int(at)
                radius = radii[below]
                deep = radius * 0.87
                tube = 8.2 if z > -140 else 9.5
                canal_y = deep + 0.86 * tube
                canal = np.sqrt(x * x + ((back - canal_y) * 1.12) ** 2) - tube
                level = 0
                while level < len(planes) - 1 and z < planes[level]:
                    level += 1
                top = planes[level - 1] if level > 0 else middles[0] * 2 - planes[0]
                height = top - planes[level]
                p = z - (top + planes[level]) / 2
                disc = 3.0 + 0.045 * max(60 - z, 0.0) * 0.5
                disc = min(disc, 9.0)
                half = (height - disc) / 2
                edge = min(abs(p) / max(half, 1.0), 1.3)
                # Body: narrower at its waist, hollow behind, spurred at the endplates in the old.
                r = radius - 1.3 + 1.6 * edge * edge + (spurs[level] * edge**8 * 0.5 if back < 4 else 0.0)
                side = np.sqrt(x * x + (back * 1.15) ** 2) - r
                side = max(side, back - deep + 2.2 - 1.2 * edge)
                hollow = 1 - min((x * x + back * back * 1.3) / (radius * radius), 1.0)  # endplates are
                endplate = abs(p) - half + 2.6 * hollow
                body = max(side, endplate)
                ring = max(side + 1.0, -endplate)
                # Posterior elements of this vertebra and of the one above, whose process reaches down.
                arch = 99.0
                for up in range(2):
                    n = level - up
                    if n < 0:
                        continue
                    high_n = (planes[n - 1] if n > 0 else middles[0] * 2 - planes[0]) - planes[n]
                    q = z - middles[n]
                    behind = back - canal_y
                    lumbar = 1.0 if n >= 15 else (0.5 if n >= 13 else 0.0)
                    # Pedicle
                    ax = abs(x)
                    u, v = ax - tube - 2.2, q - 0.14 * high_n
                    pedicle = max(np.sqrt(u * u + v * v * 0.45) - 3.3, max(deep - 5 - back, behind - 3))
                    # Lamina: a ring behind the canal, sinking towards the back
                    w = q + 0.30 * behind * (1 - 0.6 * lumbar)
                    lamina = max(abs(canal - 2.8) - 2.8, max(-behind + 1, abs(w + 1.5) - 0.40 * high_n))
                    # Spinous process
                    far = behind - tube - 2
                    steep = 0.25 if n < 4 else (0.9 if n < 11 else (0.6 if n < 13 else 0.2))
                    tall = 5.0 + 1.0 * lumbar * 6
                    reach = 31.0 if n < 13 else 29.0
                    w = q + 2 + steep * far
                    spinous = max(
                        max(ax - 2.6 - 0.06 * max(far, 0.0), abs(w) - tall), max(-far - 4, far - reach)
                    )
                    # Transverse process
                    length = 44.0 if n >= 15 else (36.0 - 1.1 * max(n - 3, 0) if n >= 3 else 30.0)
                    if 13 <= n < 15:
                        length = 22.0
                    u = behind - 2 - (0.45 * (1 - lumbar) + 0.10) * (ax - tube)
                    v = q - 1.5
                    across = np.sqrt(u * u + v * v) - (4.6 - 1.2 * lumbar)
                    transverse = max(across, max(ax - length, tube + 1 - ax))
                    # Facet joints: thick pillars, parted by a gap between two vertebrae
                    u, v = ax - tube - 3.5 - 3 * lumbar, behind - 5.0
                    pillar = max(np.sqrt(u * u + v * v) - 5.0 - 1.5 * lumbar, abs(q) - 0.5 * high_n + 0.6)
                    for shape in (pedicle, lamina, spinous, transverse, pillar):
                        if shape < arch:
                            arch = shape
                arch = max(arch, -canal + 0.2)
                d = min(body, arch)
                value, here = hu[k, j, i], False
                share = min(max(0.5 - canal / voxel, 0.0), 1.0)
                if share > 0:
                    inner = np.sqrt(x * x + (back - canal_y) ** 2)
                    content = cord if inner < 4.6 else (fluid if inner < 7.2 else 0.5 * (fluid + fat))
                    value = value * (1 - share) + content * share
                    here = canal < 0
                share = min(max(0.5 - ring / voxel, 0.0), 1.0)
                if share > 0:
                    value = value * (1 - share) + gristle * share
                    here = here or ring < 0
                share = min(max(0.5 - d / voxel, 0.0), 1.0)
                if share > 0:
                    shell = (0.45 if endplate > side else 0.75) if body < arch else 1.1
                    core = min(max(0.5 - (d + shell) / voxel, 0.0), 1.0)
                    gx, gy, gz = (
                        int(np.floor(x / 5)) % count,
                        int(np.floor(y / 5)) % count,
                        int(np.floor(z / 5)) % count,
                    )
                    inside = marrow[level] + 28 * grain[gz, gy, gx]
                    if arch < body:
                        inside += 90
                    else:
                        inside += 90 * max(edge - 0.75, 0.0)  # denser towards the endplates
                    value = value * (1 - share) + (share - core) * compact + core * inside
                    here = here or d < 0
                hu[k, j, i] = value
                if here:
                    labels[k, j, i] = label
