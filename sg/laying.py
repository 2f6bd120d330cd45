"""Where a coordinate lies in scans: what is known of each, and the corner and centre of the patch laid there.

Corners are the first voxel (z, y, x) of a box; extents its sides. In frame `voxel` a coordinate is the corner itself,
as published; in `body` and `lungs` it is the patch's centre as a fraction of the box, rounded half up to a corner in
each patient.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sg.admissible import Zyx
from sg.frames import Box, Frame
from sg.params import Jitter


@dataclass(frozen=True)
class Survey:
    """What coordinates need of a scan, so that its volume is opened once."""

    scan: str
    shape: Zyx
    boxes: Mapping[Frame, tuple[Box, str]]  # as `sg.frames.find_boxes` gives them
    spacing_mm: tuple[float, float, float]  # (x, y, z), as are positions
    origin_mm: tuple[float, float, float]
    tissue: bytes | None = None  # the tissue mask, packed

    def unpacked(self) -> np.ndarray:
        """The tissue mask, boolean (z, y, x)."""
        bits = np.frombuffer(zlib.decompress(self.tissue), np.uint8)
        return np.unpackbits(bits, count=math.prod(self.shape)).reshape(self.shape).astype(bool)


class Places:
    """Where a coordinate lies in each of many surveyed scans, worked out for all of them at once."""

    def __init__(self, surveys: Mapping[str, Survey], size: Zyx, frame: Frame) -> None:
        self.scans = sorted(surveys)
        self.row = {scan: row for row, scan in enumerate(self.scans)}
        self.size, self.frame = size, frame
        ordered = [surveys[scan] for scan in self.scans]
        self.shape = np.array([s.shape for s in ordered], np.int64)  # (m, 3)
        boxes = [s.boxes[frame][0] for s in ordered]
        self.start = np.array([box.start for box in boxes], np.float64)
        self.extent = np.array([box.stop for box in boxes], np.float64) - self.start
        self.spacing_mm = np.array([s.spacing_mm for s in ordered])
        self.origin_mm = np.array([s.origin_mm for s in ordered])

    def coordinate(self, scan: str, corner: Zyx) -> tuple[float, float, float]:
        """A corner in the frame: itself, or the patch's centre as a fraction of the scan's box."""
        return tuple(map(float, corner)) if self.frame == "voxel" else self.fraction(scan, corner)

    def fraction(self, scan: str, corner: Zyx) -> tuple[float, float, float]:
        """The patch's centre as a fraction of the scan's box (in frame `voxel`, of the scan)."""
        i = self.row[scan]
        return tuple(((np.array(corner) + np.array(self.size) / 2 - self.start[i]) / self.extent[i]).tolist())

    def exact(self, coordinate: Sequence[float], scans: Sequence[str] | None = None) -> np.ndarray:
        """The coordinate's corner in those scans, or in every one, float64 (m, 3), not rounded."""
        rows = slice(None) if scans is None else [self.row[scan] for scan in scans]
        start, extent = self.start[rows], self.extent[rows]
        if self.frame == "voxel":
            return np.broadcast_to(np.asarray(coordinate, np.float64), start.shape)
        return start + np.asarray(coordinate) * extent - np.array(self.size) / 2

    def corners(self, coordinate: Sequence[float]) -> np.ndarray:
        """The coordinate's corner in every scan, int64 (m, 3), rounded half up; it may lie outside."""
        # A billionth against halves that arithmetic has left just below themselves.
        return np.floor(self.exact(coordinate) + 0.5 + 1e-9).astype(np.int64)

    def inside(self, corners: np.ndarray) -> np.ndarray:
        """Whether the patch at each scan's corner lies in the scan, boolean (m,)."""
        return ((corners >= 0) & (corners + np.array(self.size) <= self.shape)).all(axis=1)

    def holds(self, corners: np.ndarray, jitter: JitterRange | None) -> np.ndarray:
        """Whether the patch at each scan's corner lies in the scan, and a jittered crop of it, boolean (m,)."""
        holding = self.inside(corners)
        for axis in (1, 2) if jitter else ():
            side = self.shape[:, axis]
            low, high = jitter.bounds(axis, np.zeros(len(side)), side, side - self.size[axis])
            holding &= (corners[:, axis] >= low) & (corners[:, axis] <= high)
        return holding

    def holders(
        self, scan: str, rows: np.ndarray, first: Zyx, shape: Zyx, jitter: JitterRange | None
    ) -> np.ndarray:
        """How many scans of those rows can hold the patch of each corner of `scan`, and a jittered crop of it.

        int32 of that shape, `first` being the first corner. Along each axis a scan holds the corners of an interval,
        so it adds one to a box; all boxes come from the differences at their corners, summed up.
        """
        i = self.row[scan]
        starts, stops = np.empty((2, 3, len(rows)), np.int64)
        for axis, (begin, side) in enumerate(zip(first, shape, strict=True)):
            corner = np.arange(begin, begin + side, dtype=np.float64)
            if self.frame != "voxel":
                fraction = (corner + self.size[axis] / 2 - self.start[i, axis]) / self.extent[i, axis]
                corner = (
                    self.start[rows, axis, None]
                    + fraction * self.extent[rows, axis, None]
                    - self.size[axis] / 2
                )
            there = np.broadcast_to(np.floor(corner + 0.5 + 1e-9), (len(rows), side))
            low, high = np.zeros(len(rows)), self.shape[rows, axis] - self.size[axis]
            if jitter and axis > 0:
                low, high = jitter.bounds(axis, low, high + self.size[axis], high)
            holds = (there >= low[:, None]) & (there <= high[:, None])
            starts[axis] = holds.argmax(axis=1)
            stops[axis] = np.where(holds.any(axis=1), side - holds[:, ::-1].argmax(axis=1), starts[axis])
        count = np.zeros([side + 1 for side in shape], np.int32)
        for corner in np.ndindex(2, 2, 2):
            z, y, x = (stops[axis] if far else starts[axis] for axis, far in enumerate(corner))
            np.add.at(count, (z, y, x), -1 if sum(corner) % 2 else 1)
        for axis in range(3):
            np.cumsum(count, axis=axis, out=count)
        return count[:-1, :-1, :-1]

    def centres_mm(self, rows: np.ndarray, corners: np.ndarray, extents: np.ndarray) -> np.ndarray:
        """World positions (n, 3) in (x, y, z) of the centres of boxes (n, 3) in the scans of those rows."""
        middle = (corners + (extents - 1) / 2)[:, ::-1]
        mm = middle * self.spacing_mm[rows] + self.origin_mm[rows]
        return np.round(mm, 4) + 0.0  # never -0


# ------------------------------------------------------------------------------------------------ jitter


@dataclass(frozen=True)
class JitterRange:
    """In-plane sides and shifts of a jittered crop, scaled from a patch 64 wide to this one; all inclusive.

    `sides` (n, 2) are the (y, x) sides a crop may have, one row for each x side; `shift_y`, `shift_x` the ranges.
    """

    sides: np.ndarray
    shift_y: tuple[int, int]
    shift_x: tuple[int, int]

    @classmethod
    def of(cls, jitter: Jitter, size: Zyx) -> JitterRange:
        """Published: 50..79 and -10..9 of 64. Scaled bounds are rounded half up, sides are at least 1."""
        y, x = size[1:]
        low, high = (max(1, _half_up(side * x / 64)) for side in jitter.side)
        sides = [(max(1, _half_up(side * y / x)), side) for side in range(low, high + 1)]
        shift_y, shift_x = (tuple(_half_up(shift * part / 64) for shift in jitter.shift) for part in (y, x))
        return cls(np.array(sides, np.int64), shift_y, shift_x)

    def places(self, corner: Zyx, shape: Zyx) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each side: the first shifts (n, 2) in (y, x) that fit, how many fit (n, 2), and how many pairs (n,)."""
        first, count = np.empty_like(self.sides), np.empty_like(self.sides)
        for axis, (low, high) in enumerate((self.shift_y, self.shift_x)):
            start, side = corner[axis + 1], shape[axis + 1]
            first[:, axis] = max(low, -start)
            last = np.minimum(high, side - self.sides[:, axis] - start)
            count[:, axis] = np.maximum(0, last - first[:, axis] + 1)
        return first, count, count.prod(axis=1)

    def fits(self, corner: Zyx, shape: Zyx) -> bool:
        """Whether any jittered crop of this corner lies inside the scan."""
        return bool(self.places(corner, shape)[2].any())

    def bounds(
        self, axis: int, low: np.ndarray, side: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The corners (least and largest, of many scans) along y or x for which a jittered crop fits as well.

        `side` is the scan's; the smallest crop is the one that fits if any does.
        """
        first, last = self.shift_y if axis == 1 else self.shift_x
        least = self.sides[0, axis - 1]
        fits = side >= least
        return np.maximum(low, -last), np.where(fits, np.minimum(high, side - least - first), -1)

    def draw(self, corner: Zyx, size: Zyx, shape: Zyx, rng: np.random.Generator) -> tuple[Zyx, Zyx]:
        """Corner and extent of one crop, uniform among all sides and shifts that fit; z is as it is.

        The same distribution as the published redrawing until one fits, which also never ended where none did.
        """
        first, count, pairs = self.places(corner, shape)
        upto = np.cumsum(pairs)
        number = int(rng.integers(upto[-1]))
        i = int(np.searchsorted(upto, number, side="right"))
        dy, dx = divmod(number - (int(upto[i - 1]) if i else 0), int(count[i, 1]))
        y, x = corner[1] + int(first[i, 0]) + dy, corner[2] + int(first[i, 1]) + dx
        return (corner[0], y, x), (size[0], int(self.sides[i, 0]), int(self.sides[i, 1]))


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)
