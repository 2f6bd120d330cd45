"""Where a scan's voxels lie: spacing, field of view, range, the way they are stored, and how they lie in the scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg.cohorts.phantom import anatomy
from sg.cohorts.phantom.anatomy import Patient
from sg.cohorts.phantom.fields import Lattice
from sg.params import BODY_BOTTOM_MM, BODY_TOP_MM, RANGE_LEAST_MM, PhantomShared

# The way the stored axes (i, j, k) run: to the Left, Posterior, Superior, or the other way. In a row of patients
# these take turns, so that a reader meets all of them in a small cohort. LUNA16 has some scans turned by 180 degrees.
ORIENTATIONS = {"chest": ("LPS", "LPS", "RAS", "LPS", "LPS"), "abdomen": ("RAS", "LAS", "LPS")}
OBLIQUE = 0.2  # share of scans whose axes are not those of the scanner
FIELD_MM = (290.0, 430.0)  # least and largest field of view, as in seven real scans (333 to 461 mm)
PART_MM = (92.0, 135.0)  # length of a scan of the apices or the bases alone
RANGE_SD_MM = 8.0  # by how much an operator's choice of either end strays
OUTLINE_MM = 12.0  # lattice on which the body is measured; the field of view is not chosen any finer
IN_PLANE, BETWEEN, ORIGIN, TURNED_ORIGIN = 3, 3, 2, 6  # decimals that spacings and origins are written with


@dataclass(frozen=True)
class Grid:
    """The scan's voxels: `lattice` along the patient's axes, how the stored axes run along it, and where it is.

    A point p of the patient lies at `rotation` @ p + `offset_mm` in the scanner's world (LPS mm).
    """

    lattice: Lattice
    orientation: str
    rotation: np.ndarray
    offset_mm: np.ndarray

    @property
    def size(self) -> tuple[int, int, int]:
        """(x, y, z)."""
        return self.lattice.shape[::-1]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(x, y, z), as written: the lattice's own but for its rounding errors."""
        return tuple(round(mm, BETWEEN) for mm in self.lattice.spacing_mm)

    @property
    def signs(self) -> tuple[int, int, int]:
        """+1 where the stored axis (x, y, z) runs as the lattice does, -1 where it runs the other way."""
        return tuple(
            1 if letter == along else -1 for letter, along in zip(self.orientation, "LPS", strict=True)
        )

    @property
    def direction(self) -> np.ndarray:
        """World directions (3, 3) of the stored axes: column k is where voxel index k (x, y, z) grows to."""
        return self.rotation * np.array(self.signs)

    @property
    def origin_mm(self) -> np.ndarray:
        """World position (3) of the first stored voxel, as written."""
        return np.round(self.world(self._first())[0], TURNED_ORIGIN)

    def _first(self) -> np.ndarray:
        """The first stored voxel in the patient, (1, 3)."""
        axes = (self.lattice.x, self.lattice.y, self.lattice.z)
        return np.array([[axis[0 if sign > 0 else -1] for axis, sign in zip(axes, self.signs, strict=True)]])

    def snapped(self) -> Grid:
        """The same grid, moved so that the origin has as many decimals as are written."""
        first = self.world(self._first())[0]
        decimals = ORIGIN if np.array_equal(self.rotation, np.eye(3)) else TURNED_ORIGIN
        return Grid(
            self.lattice, self.orientation, self.rotation, self.offset_mm + np.round(first, decimals) - first
        )

    def world(self, points_mm: np.ndarray) -> np.ndarray:
        """World positions (n, 3) of points (n, 3) of the patient; sums, not BLAS, whose bits depend on its threads."""
        return (points_mm[:, None, :] * self.rotation[None, :, :]).sum(axis=2) + self.offset_mm

    def stored(self, array: np.ndarray) -> np.ndarray:
        """An array (z, y, x) on the lattice as it is stored, and the other way round."""
        return np.ascontiguousarray(array[tuple(slice(None, None, sign) for sign in self.signs[::-1])])


@dataclass(frozen=True)
class Outline:
    """The box of a body's skin in the patient, mm, between two heights."""

    left: tuple[float, float]  # along x
    back: tuple[float, float]  # along y

    @property
    def width_mm(self) -> float:
        return self.left[1] - self.left[0]

    @property
    def middle_mm(self) -> tuple[float, float]:
        """(x, y)."""
        return sum(self.left) / 2, sum(self.back) / 2


def outline(patient: Patient, bottom_mm: float, top_mm: float) -> Outline:
    """The box of the body at seven heights between two, to about OUTLINE_MM / 4."""
    x = np.arange(-276.0, 277.0, OUTLINE_MM)
    y = np.arange(-216.0, 217.0, OUTLINE_MM)
    skin = anatomy.shapes(patient, Lattice(x, y, np.linspace(bottom_mm, top_mm, 7)))["skin"]
    ends = []
    for axis, nodes in ((2, x), (1, y)):
        nearest = skin.min(axis=tuple(a for a in range(3) if a != axis))
        inside = np.flatnonzero(nearest < 0)
        low, high = inside[0], inside[-1]
        ends.append((float(nodes[low] + max(nearest[low], -6)), float(nodes[high] - max(nearest[high], -6))))
    return Outline(*ends)


def draw_range(
    patient: Patient, protocol: str, shared: PhantomShared, rng: np.random.Generator
) -> tuple[str, float, float]:
    """What a scan covers (chest, apices, bases, chest-abdomen or abdomen) and its lower and upper end, mm of the patient.

    Ends follow the patient's height and stay within the body; where that leaves less than RANGE_LEAST_MM, the end that
    is free to moves.
    """
    bottom, top = shared.abdomen_range_mm if protocol == "abdomen" else shared.chest_range_mm
    bottom, top = (end + rng.normal(0, RANGE_SD_MM) for end in (bottom, top))
    length = rng.uniform(*PART_MM)
    part = ("apices", "bases", "chest-abdomen")[int(rng.integers(3))]
    covers = protocol
    if rng.random() < shared.parts and protocol == "chest":
        covers = part
    if covers == "apices":
        bottom = top - length
    elif covers == "bases":
        top = bottom + length
    elif covers == "chest-abdomen":
        bottom = min(shared.abdomen_range_mm[0] + rng.normal(0, RANGE_SD_MM), bottom)
    tall = float(np.clip(patient.height, 0.8, 1.2))
    least, most = max(BODY_BOTTOM_MM, BODY_BOTTOM_MM * tall), min(BODY_TOP_MM, BODY_TOP_MM * tall)
    bottom, top = np.clip((bottom * tall, top * tall), least, most)
    # A part is as long as it was drawn, in mm, even of a small patient: shorter ones serve nobody.
    if covers == "apices":
        bottom = max(top - length, least)
    elif covers == "bases":
        top = min(bottom + length, most)
    top = min(max(top, bottom + RANGE_LEAST_MM), most)
    return covers, float(min(bottom, top - RANGE_LEAST_MM)), float(top)


def draw_grid(
    patient: Patient,
    number: int,
    protocol: str,
    shared: PhantomShared,
    study: np.random.Generator,
    scan: np.random.Generator,
) -> tuple[str, Outline, Grid]:
    """What a scan covers, the outline of the body there and the grid of voxels, for the patient of that number.

    What is covered and how the patient lies comes from the study's chance, the voxels from the scan's. The field of view
    is about as wide as the body, so that some bodies are cut at the sides. The spacing has three decimals and the origin
    two (six where the axes are oblique), as they are written, so that what is written is what was computed with.
    """
    in_plane = round(float(scan.uniform(*shared.spacing_xy_mm)), IN_PLANE)
    between = round(float(scan.uniform(*shared.spacing_z_mm)), BETWEEN)
    covers, bottom, top = draw_range(patient, protocol, shared, study)
    body = outline(patient, bottom, top)
    field = float(np.clip(body.width_mm + study.normal(4, 20), *FIELD_MM))
    count, slices = round(field / in_plane), int((top - bottom) / between) + 1
    middle = np.array(body.middle_mm) + study.normal(0, 5, 2)
    origin = [*(middle - in_plane * (count - 1) / 2), bottom + (top - bottom - between * (slices - 1)) / 2]
    axes = (
        o + s * np.arange(n)
        for o, s, n in zip(origin, (in_plane, in_plane, between), (count, count, slices), strict=True)
    )
    turns = ORIENTATIONS[protocol]
    offset = np.array([scan.normal(0, 7), scan.normal(0, 7), scan.uniform(-350, 150)])
    axis, angle = study.normal(size=3), study.uniform(0, shared.oblique_deg)
    turn = rotation(axis, angle) if study.random() < OBLIQUE and shared.oblique_deg > 0 else np.eye(3)
    return covers, body, Grid(Lattice(*axes), turns[number % len(turns)], turn, offset).snapped()


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation (3, 3) about an axis (3) of any length, by Rodrigues' formula."""
    x, y, z = axis / np.sqrt((axis * axis).sum())
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    outer = np.outer((x, y, z), (x, y, z))
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return c * np.eye(3) + s * cross + (1 - c) * outer
