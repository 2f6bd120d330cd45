"""Where a patient's point lies in the atlas, organ by organ.

Every organ has a map of its own from the patient to the atlas: a frame that it shares with others (build, inspiration,
where the diaphragm stands), then its own shift, turn and stretch, then smooth noise of its own, all drawn independently
of other organs. So organs slide against each other, and no single smooth warp makes one patient of another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sg.cohorts.phantom.atlas import Arrays
from sg.cohorts.phantom.fields import Lattice, Noise, draw_noise

# A lung whose base stands higher is compressed between these heights of the atlas: the apex stays, all that lies at the
# diaphragm moves by the whole.
LIFT_FROM_MM, LIFT_WHOLE_MM = 60.0, -90.0
# A box that holds every patient: the noise of the maps covers it.
BODY_MIDDLE_MM, BODY_REACH_MM = np.array([0.0, 0.0, -100.0]), 310.0


@dataclass(frozen=True)
class Variation:
    """How much an organ varies about its centre: standard deviations, for x, y and z.

    `noise_mm` is that of its noise, whose coefficients are `noise_step_mm` apart. A `compact` organ keeps its
    proportions whatever the build; others (long ones, walls) stretch with it. `bend` is its share of a spine's bend. An
    organ in two halves (kidneys) moves besides by `apart_mm`, each side on its own.
    """

    centre_mm: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    stretch: tuple[float, float, float]
    turn_deg: float
    noise_mm: float
    noise_step_mm: float = 52.0
    compact: bool = False
    bend: float = 0.0
    apart_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


VARIATIONS: dict[str, Variation] = {
    "body": Variation((0, 0, -80), (3.2, 3.2, 0), (0.012, 0.012, 0.0), 0.0, 1.7, bend=0.35),
    "cage": Variation((0, 5, -60), (2, 1.5, 3), (0.012, 0.015, 0.012), 1.0, 1.8, bend=0.5),
    "lung_right": Variation((-62, 5, -40), (2, 2.5, 2.5), (0.012, 0.015, 0.015), 1.2, 2.0, bend=0.5),
    "lung_left": Variation((68, 5, -45), (2, 2.5, 2.5), (0.012, 0.015, 0.015), 1.2, 2.0, bend=0.5),
    "heart": Variation((10, -28, -60), (6, 5, 5.5), (0.04, 0.04, 0.04), 3.5, 2.0, 42.0, True, 0.2),
    "aorta": Variation((10, 10, -30), (6.5, 5.5, 6.5), (0.05, 0.05, 0.04), 2.5, 2.0, bend=0.6),
    "trachea": Variation((0, 14, 20), (5.5, 5, 3.5), (0.06, 0.06, 0.05), 2.5, 2.0, 42.0, bend=0.3),
    "esophagus": Variation((4, 28, 0), (6, 4, 5), (0.06, 0.06, 0.04), 1.5, 2.2, 42.0, bend=0.5),
    "spine": Variation((0, 45, -80), (2.5, 2.5, 8), (0.04, 0.04, 0.015), 1.0, 1.5, bend=1.0),
    "sternum": Variation((0, -80, -25), (6, 2, 8.5), (0.08, 0.04, 0.06), 2.0, 1.0, bend=0.3),
    "liver": Variation((-105, 12, -130), (4.5, 4.5, 2.5), (0.02, 0.02, 0.02), 2.2, 2.2, 46.0, True),
    "gall_bladder": Variation((-50, -38, -210), (9, 9, 9), (0.12, 0.14, 0.14), 12.0, 1.5, 40.0, True),
    "spleen": Variation((108, 58, -168), (7.5, 8, 9), (0.06, 0.06, 0.06), 6.0, 2.2, 40.0, True),
    "stomach": Variation((52, -26, -172), (9.5, 8, 9), (0.08, 0.08, 0.08), 5.0, 2.5, 42.0, True),
    "kidneys": Variation(
        (0, 50, -250), (1.5, 2.5, 3), (0.03, 0.06, 0.06), 2.0, 2.5, 46.0, True, apart_mm=(6.5, 6.5, 10)
    ),
}


@dataclass(frozen=True)
class OrganMap:
    """Where a point of the patient lies in the atlas, by one organ: `matrix` @ p + `offset_mm` + noise(p)."""

    matrix: np.ndarray
    offset_mm: np.ndarray
    noise: Noise

    def to_atlas(self, lattice: Lattice) -> Arrays:
        """Atlas positions x, y, z of a lattice of patient positions, each float32 (z, y, x)."""
        x, y, z = lattice.grids
        noise = self.noise.on(lattice)
        m = self.matrix.astype(np.float32)
        for row, total in enumerate(noise):
            total += m[row, 0] * x + np.float32(self.offset_mm[row])
            total += m[row, 1] * y
            total += m[row, 2] * z
        return tuple(noise)

    def to_patient(self, atlas_mm: np.ndarray) -> np.ndarray:
        """Patient positions (n, 3) of atlas positions (n, 3): the inverse, by fixed-point iteration.

        The noise changes by much less than the way along which it changes, so that each round shrinks the error by a
        factor of about 3 or more; from some 10 mm to some thousandths of one.
        """
        inverse = np.linalg.inv(self.matrix)
        points = times(inverse, atlas_mm - self.offset_mm)
        for _ in range(14):
            points = times(inverse, atlas_mm - self.offset_mm - self.noise.at(points))
        return points

    def enlarged(self, factor: float, centre_mm: np.ndarray) -> OrganMap:
        """The map of the same organ, larger by so much about an atlas position."""
        return replace(
            self, matrix=self.matrix / factor, offset_mm=centre_mm + (self.offset_mm - centre_mm) / factor
        )

    def shifted(self, by_mm: np.ndarray) -> OrganMap:
        """The map of the same organ, further along by so much (x, y, z of the patient)."""
        return replace(self, offset_mm=self.offset_mm - times(self.matrix, np.asarray(by_mm, float)[None])[0])

    def lifted(self, by_mm: float) -> OrganMap:
        """A lung's map with its base higher by so much, its apex where it is, and what lies between in proportion.

        The same coefficient all over a plane makes the same shift all over it: B-splines sum to 1, and follow a line.
        """
        noise = self.noise
        z = noise.origin_mm[2] + noise.step_mm * np.arange(noise.coefficients.shape[1])
        middle = times(np.linalg.inv(self.matrix), -self.offset_mm[None])[0]
        here = self.matrix[2, 2] * z + (self.matrix[2, :2] * middle[:2]).sum() + self.offset_mm[2]
        share = np.clip((LIFT_FROM_MM - here) / (LIFT_FROM_MM - LIFT_WHOLE_MM), 0, 1)
        coefficients = noise.coefficients.copy()
        coefficients[2] -= (by_mm * share).astype(np.float32)[:, None, None]  # atlas = patient - lift
        return replace(self, noise=replace(noise, coefficients=coefficients))


@dataclass(frozen=True)
class Frame:
    """What organs share: patient = `matrix` @ atlas + `offset_mm`."""

    matrix: np.ndarray
    offset_mm: np.ndarray

    @staticmethod
    def of(
        size: tuple[float, float, float], turn: np.ndarray, offset_mm: tuple[float, float, float]
    ) -> Frame:
        return Frame(turn * np.asarray(size), np.asarray(offset_mm, float))


def draw_map(rng: np.random.Generator, variation: Variation, frame: Frame, bend_mm: float) -> OrganMap:
    """One organ's map in a frame.

    The organ's centre c goes to the frame's place of c + shift; about it the organ is stretched and turned.
    """
    c = np.array(variation.centre_mm, float)
    middle = times(frame.matrix, (c + rng.normal(0, 1, 3) * variation.shift_mm)[None])[0] + frame.offset_mm
    stretch = np.exp(rng.normal(0, 1, 3) * variation.stretch)
    own = rotation(rng.normal(0, 1, 3) * variation.turn_deg) * stretch
    if variation.compact:
        # Half of what the frame is larger by: small people have hearts and livers less small than their chests.
        around = own * float(np.sqrt(np.cbrt(abs(np.linalg.det(frame.matrix)))))
    else:
        around = _product(frame.matrix, own)
    matrix = np.linalg.inv(around)
    noise = draw_noise(rng, BODY_MIDDLE_MM, BODY_REACH_MM, variation.noise_step_mm, variation.noise_mm)
    if bend_mm:
        noise = _bent(noise, variation.bend * bend_mm)
    if any(variation.apart_mm):
        noise = _parted(noise, rng.normal(0, 1, (2, 3)) * variation.apart_mm)
    return OrganMap(matrix, c - times(matrix, middle[None])[0], noise)


def _bent(noise: Noise, bend_mm: float) -> Noise:
    """The noise with a sideways bend: to the left by `bend_mm` at the eighth thoracic vertebra, back a little below.

    The same coefficient all over a plane makes the same shift all over it: B-splines sum to 1.
    """
    z = noise.origin_mm[2] + noise.step_mm * np.arange(noise.coefficients.shape[1])
    shift = bend_mm * (np.exp(-(((z + 60) / 85) ** 2)) - 0.45 * np.exp(-(((z + 250) / 70) ** 2)))
    coefficients = noise.coefficients.copy()
    coefficients[0] -= shift.astype(np.float32)[:, None, None]  # atlas = patient - bend
    return replace(noise, coefficients=coefficients)


def _parted(noise: Noise, shifts_mm: np.ndarray) -> Noise:
    """The noise with a shift (x, y, z) of the right and one of the left half, smooth in between."""
    x = noise.origin_mm[0] + noise.step_mm * np.arange(noise.coefficients.shape[3])
    left = 1 / (1 + np.exp(-x / 14))
    shift = shifts_mm[0][:, None] * (1 - left) + shifts_mm[1][:, None] * left
    return replace(noise, coefficients=noise.coefficients - shift.astype(np.float32)[:, None, None, :])


def times(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """matrix @ point for each of (n, 3) points, without BLAS (whose bits may depend on its threads)."""
    return (points[:, None, :] * matrix[None, :, :]).sum(axis=2)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b, likewise."""
    return (a[:, :, None] * b[None, :, :]).sum(axis=1)


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
        matrix = _product(turn, matrix)
    return matrix
