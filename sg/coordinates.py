"""Where patterns are: a reference, a corner on it, and the crops laid in its nearest patients.

Corners are the first voxel (z, y, x) of a box; extents its sides. In frame `voxel` a coordinate is the corner itself,
as published; in `body` and `lungs` it is the patch's centre as a fraction of the box, rounded half up to a corner in
each patient.

Departures from the published code: a corner is drawn once, uniformly among all that are admissible, instead of in up
to 200 tries; a reference is not lost to a draw that came near an earlier pattern; a crop that would leave a
patient's scan is never cut short, the next nearest patient steps in.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import console, logs
from sg.admissible import Admissible, Zyx, admissible, draw, exclude_near
from sg.crops import CROP, PatternRow, write_crops, write_patterns, write_positions
from sg.errors import InputError
from sg.frames import Box, Frame, find_box
from sg.neighbors import Ranking
from sg.params import Coordinates, Jitter
from sg.processes import Lost, spread
from sg.randomness import generator
from sg.resampled import read_resampled
from sg.roles import PRETRAIN, Role

# From so many scans on a process of its own pays for its start.
SCANS_A_PROCESS = 32


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


# ------------------------------------------------------------------------------------------------ survey


@dataclass(frozen=True)
class Survey:
    """What coordinates need of a scan, so that its volume is opened once."""

    scan: str
    shape: Zyx
    box: Box
    found: str  # what the box is around: lungs, body, scan
    spacing_mm: tuple[float, float, float]  # (x, y, z), as are positions
    origin_mm: tuple[float, float, float]
    tissue: bytes | None  # the tissue mask, packed

    def unpacked(self) -> np.ndarray:
        """The tissue mask, boolean (z, y, x)."""
        bits = np.frombuffer(zlib.decompress(self.tissue), np.uint8)
        return np.unpackbits(bits, count=math.prod(self.shape)).reshape(self.shape).astype(bool)


def survey(folder: Path, scan: str, role: Role, frame: Frame, tissue_hu: float | None) -> Survey:
    """Open one resampled scan in a role: its box, its geometry and, with a `tissue_hu`, its tissue mask.

    The mask takes some 2 % of the scan.
    """
    logs.opened(scan, role, PRETRAIN)
    volume = read_resampled(folder / f"{scan}.h5")
    box, found = find_box(volume.image, volume.spacing_mm, frame)
    packed = None
    if tissue_hu is not None:
        packed = zlib.compress(np.packbits(volume.image >= tissue_hu).tobytes(), 1)
    return Survey(scan, tuple(volume.image.shape), box, found, volume.spacing_mm, volume.origin_mm, packed)


def survey_all(
    scans: Mapping[str, Role], with_tissue: set[str], folder: Path, settings: Coordinates, workers: int
) -> dict[str, Survey]:
    """Every scan surveyed, each opened once in its role; those named with their tissue mask."""
    jobs = [
        (folder, scan, role, settings.frame, settings.rule.tissue_hu if scan in with_tissue else None)
        for scan, role in scans.items()
    ]
    processes = min(workers, max(1, len(jobs) // SCANS_A_PROCESS))
    found = {}
    results = spread(_survey, jobs, processes)
    for (_, scan, *_), result in console.track(results, "surveying scans", len(jobs), "scans"):
        if isinstance(result, Lost):
            raise InputError(
                f"{folder / scan}.h5: the memory did not suffice to survey this scan; use fewer workers (SG_WORKERS=1)"
            )
        found[scan] = result
    return found


def _survey(job: tuple[Path, str, Role, Frame, float | None]) -> Survey:
    return survey(*job)


class Places:
    """Where a coordinate lies in each of many surveyed scans, worked out for all of them at once."""

    def __init__(self, surveys: dict[str, Survey], size: Zyx, frame: Frame) -> None:
        self.scans = sorted(surveys)
        self.row = {scan: row for row, scan in enumerate(self.scans)}
        self.size, self.frame = size, frame
        ordered = [surveys[scan] for scan in self.scans]
        self.shape = np.array([s.shape for s in ordered], np.int64)  # (m, 3)
        self.start = np.array([s.box.start for s in ordered], np.float64)
        self.extent = np.array([s.box.stop for s in ordered], np.float64) - self.start
        self.spacing_mm = np.array([s.spacing_mm for s in ordered])
        self.origin_mm = np.array([s.origin_mm for s in ordered])

    def coordinate(self, scan: str, corner: Zyx) -> tuple[float, float, float]:
        """A corner in the frame: itself, or the patch's centre as a fraction of the scan's box."""
        return tuple(map(float, corner)) if self.frame == "voxel" else self.fraction(scan, corner)

    def fraction(self, scan: str, corner: Zyx) -> tuple[float, float, float]:
        """The patch's centre as a fraction of the scan's box (in frame `voxel`, of the scan)."""
        i = self.row[scan]
        return tuple(((np.array(corner) + np.array(self.size) / 2 - self.start[i]) / self.extent[i]).tolist())

    def exact(self, coordinate: Sequence[float]) -> np.ndarray:
        """The coordinate's corner in every scan, float64 (m, 3), not rounded."""
        if self.frame == "voxel":
            return np.broadcast_to(np.asarray(coordinate, np.float64), self.start.shape)
        return self.start + np.asarray(coordinate) * self.extent - np.array(self.size) / 2

    def corners(self, coordinate: Sequence[float]) -> np.ndarray:
        """The coordinate's corner in every scan, int64 (m, 3), rounded half up; it may lie outside."""
        # A billionth against halves that arithmetic has left just below themselves.
        return np.floor(self.exact(coordinate) + 0.5 + 1e-9).astype(np.int64)

    def inside(self, corners: np.ndarray) -> np.ndarray:
        """Whether the patch at each scan's corner lies in the scan, boolean (m,)."""
        return ((corners >= 0) & (corners + np.array(self.size) <= self.shape)).all(axis=1)

    def patches(self, coordinate: Sequence[float], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres in mm (n, 3) of the patch laid in the scans of those rows, and whether it fits there."""
        corners = self.corners(coordinate)[rows]
        extents = np.broadcast_to(np.array(self.size), corners.shape)
        centres = self.centres_mm(rows, corners, extents)
        return centres, ((corners >= 0) & (corners + extents <= self.shape[rows])).all(axis=1)

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


# --------------------------------------------------------------------------------------------- discovery


@dataclass(frozen=True)
class Discovery:
    """What the stage writes: patterns, their crops (CROP, ordered), the places in all training patients, figures."""

    patterns: list[PatternRow]
    crops: list[np.ndarray]  # one array a pattern
    position_scans: list[str]
    positions: list[
        tuple[np.ndarray, np.ndarray]
    ]  # of each pattern: centres in mm (n, 3), whether it fits (n,)
    metrics: dict


def discover(ranking: Ranking, folder: Path, settings: Coordinates, seed: int, workers: int) -> Discovery:
    """Draw `settings.patterns` patterns on references, and lay their crops in the nearest patients.

    References are taken in a random order, none twice. On each, one corner is drawn uniformly among those that
    border, tissue and distance admit and enough patients can hold; the distance is to every earlier pattern's
    coordinate as it lies in this reference, in its voxels (in frame `voxel` that is the published distance between
    corners). A reference without such a corner is refused, and the next one taken.

    Each scan that the ranking names is opened in `folder` once (a reference that replaces a refused one, once more);
    memory grows with the patterns by their packed tissue masks only. InputError if params ask for more than there is
    (`demands`), if the ranking turns out not to be deep enough, or if the references do not suffice: it counts what
    each rule refused.
    """
    wanted = demands(ranking, settings)
    references = [scan.decode() for scan in ranking.reference]
    order = generator(seed, "coordinates", purpose="references").permutation(len(references))
    first = {references[i] for i in order[: settings.patterns]}
    surveys = survey_all(_ranked(ranking), first, folder, settings, workers)
    drawing = _Drawing(
        ranking, Places(surveys, settings.patch_size, settings.frame), settings, wanted, seed, Counter()
    )
    reference_rows = np.array([drawing.places.row[scan] for scan in references])
    patterns, crops, positions, coordinates = [], [], [], []
    for i in order.tolist():
        if len(patterns) == settings.patterns:
            break
        seen = surveys[references[i]]
        if seen.tissue is None:
            seen = survey(folder, seen.scan, "neighbours", settings.frame, settings.rule.tissue_hu)
        placed = drawing.place(i, seen, coordinates)
        if placed is None:
            continue
        corner, share = placed
        coordinates.append(drawing.places.coordinate(seen.scan, corner))
        fraction = (round(part, 6) for part in drawing.places.fraction(seen.scan, corner))
        patient = ranking.patient[ranking.train[i, 0]].decode()
        crops.append(drawing.lay(len(patterns), i, coordinates[-1]))
        patterns.append(PatternRow(len(patterns), seen.scan, patient, *corner, *fraction, share))
        positions.append(drawing.places.patches(coordinates[-1], reference_rows))
    if len(patterns) < settings.patterns:
        raise InputError(_too_few(len(patterns), len(references), settings, drawing.tally))
    metrics = _metrics(settings, wanted, surveys, crops, drawing.tally)
    return Discovery(patterns, crops, references, positions, metrics)


def _ranked(ranking: Ranking) -> dict[str, Role]:
    """The scans that a ranking names, and in which role, in the order of its table."""
    role_of: dict[int, Role] = dict.fromkeys(np.unique(ranking.train).tolist(), "neighbours")
    role_of |= dict.fromkeys(np.unique(ranking.validation).tolist(), "early_stopping")
    return {ranking.scan[row].decode(): role_of[row] for row in sorted(role_of)}


def demands(ranking: Ranking, settings: Coordinates) -> dict[str, int | None]:
    """How many patients of each split a pattern takes; None for all into which it fits.

    InputError, naming the parameter, if more patterns are asked for than there are references, more patients than
    there are of a split, or more than the ranking holds.
    """
    there = {split: ranking.patients(split) for split in ("train", "validation")}
    if settings.patterns > len(ranking.reference):
        raise InputError(
            f"coordinates.patterns: every pattern needs a reference of its own, and there are {len(ranking.reference)} "
            f"training patients, got {settings.patterns}; ask for at most {len(ranking.reference)}, or add patients"
        )
    wanted = {}
    for split, key, asked, what in (
        ("train", "k", settings.k, "training"),
        ("validation", "k_validation", settings.k_validation, "validation"),
    ):
        if there[split] == 0:
            raise InputError(
                f"coordinates.{key}: a pattern needs {what} patients, and there are none; add some (cohort.sources "
                "with `pretrain` in their use, cohort.splits)"
            )
        if asked != "all" and asked > there[split]:
            raise InputError(
                f"coordinates.{key}: there are only {there[split]} {what} patients, got {asked}; "
                f"set it to {there[split]} or less, or take every one of them (`{key}: all`)"
            )
        depth = (ranking.train if split == "train" else ranking.validation).shape[1]
        if depth < (there[split] if asked == "all" else asked):
            raise InputError(
                f"neighbors.depth: the ranking must hold at least coordinates.{key} ({asked}) {what} patients, it "
                f"holds {depth}; raise neighbors.depth, or set it to `all`"
            )
        wanted[split] = None if asked == "all" else asked
    return wanted


@dataclass(frozen=True)
class _Drawing:
    """Draws corners on references and lays them in the patients around; `tally` counts what happens."""

    ranking: Ranking
    places: Places
    settings: Coordinates
    wanted: dict[str, int | None]
    seed: int
    tally: Counter

    @property
    def splits(self) -> tuple[tuple[str, np.ndarray, JitterRange | None], ...]:
        """The splits with their rankings and how their crops are jittered."""
        jitter = JitterRange.of(self.settings.jitter, self.settings.patch_size)
        jitter = jitter if self.settings.jitter.crops else None
        return ("train", self.ranking.train, jitter), ("validation", self.ranking.validation, None)

    def place(
        self, reference: int, seen: Survey, coordinates: Sequence[Sequence[float]]
    ) -> tuple[Zyx, float] | None:
        """The corner drawn on a reference, with its tissue score; None, counted, if no corner is admissible."""
        allowed = admissible(seen.unpacked(), self.settings.patch_size, self.settings.rule)
        counts = dict(allowed.counts)
        left = {"border": counts["positions"] - counts["border"], "tissue": len(allowed)}
        counts["patients"] = self._keep_holdable(reference, seen.scan, allowed)
        left["patients"] = len(allowed)
        earlier = [self.places.exact(coordinate)[self.places.row[seen.scan]] for coordinate in coordinates]
        counts["min_distance"] = exclude_near(allowed, earlier, self.settings.min_distance)
        left["min_distance"] = len(allowed)
        self.tally.update({f"positions {rule}": count for rule, count in counts.items()})
        self.tally["references"] += 1
        for rule, count in left.items():
            if not count:
                self.tally[f"refused {rule}"] += 1
                return None
        (corner,) = draw(allowed, 1, generator(self.seed, "coordinates", seen.scan, "corner"))
        return corner, allowed.share_at(corner)

    def lay(self, pattern: int, reference: int, coordinate: Sequence[float]) -> np.ndarray:
        """The crops (CROP) of a pattern in training and validation patients."""
        corners = self.places.corners(coordinate)
        inside = self.places.inside(corners)
        laid = []
        for split, ranked, jitter in self.splits:
            first = int(split == "validation")
            taken = []
            for rank, row in enumerate(ranked[reference], start=first):
                at = self.places.row[self.ranking.scan[row].decode()]
                corner, shape = tuple(corners[at].tolist()), tuple(self.places.shape[at].tolist())
                if not inside[at] or (jitter and not jitter.fits(corner, shape)):
                    self.tally["passed_over"] += 1
                    continue
                taken.append(self._crops(pattern, rank, row, at, corner, shape, jitter))
                if len(taken) == self.wanted[split]:
                    break
            wanted = self.wanted[split]
            if len(taken) < self._needed(split):
                # With a whole ranking the corner was drawn among those that enough patients can hold.
                raise InputError(
                    f"neighbors.depth: a pattern of reference {self.ranking.reference[reference].decode()} fits into only "
                    f"{len(taken)} of the {ranked.shape[1]} nearest {split} patients that the ranking holds, and {wanted} "
                    "are asked for; raise neighbors.depth, or set it to `all`"
                )
            self.tally["stepped_in"] += sum(
                int(c["rank"][0]) - first >= (wanted or ranked.shape[1]) for c in taken
            )
            laid += taken
        return np.concatenate(laid)

    def _keep_holdable(self, reference: int, scan: str, allowed: Admissible) -> int:
        """Take out of the mask the corners that the reference, or too few patients, can hold; how many.

        How many patients can is known where the ranking is whole.
        """
        taken = 0
        for split, ranked, jitter in self.splits:
            if not allowed.mask.size:
                continue
            rows = np.array([self.places.row[self.ranking.scan[row].decode()] for row in ranked[reference]])
            hit = np.zeros_like(allowed.mask)
            if split == "train":  # the reference is the first of its neighbours and must hold its own pattern
                own = self.places.holders(scan, rows[:1], allowed.first, allowed.mask.shape, jitter)
                hit |= allowed.mask & (own < 1)
            if ranked.shape[1] >= self.ranking.patients(split):
                holders = self.places.holders(scan, rows, allowed.first, allowed.mask.shape, jitter)
                hit |= allowed.mask & (holders < self._needed(split))
            taken += int(np.count_nonzero(hit))
            allowed.mask[hit] = False
        return taken

    def _needed(self, split: str) -> int:
        """Patients without which a pattern is none; with `all` another beside the reference, and one for validation."""
        return self.wanted[split] or (2 if split == "train" else 1)

    def _crops(
        self, pattern: int, rank: int, row: int, at: int, corner: Zyx, shape: Zyx, jitter: JitterRange | None
    ) -> np.ndarray:
        size = self.settings.patch_size
        jittered = self.settings.jitter.crops if jitter else 0
        crops = np.zeros(1 + jittered, CROP)
        crops["pattern"], crops["rank"], crops["resolution"] = pattern, rank, range(1 + jittered)
        for name in ("scan", "patient", "split"):
            crops[name] = getattr(self.ranking, name)[row]
        crops[0]["corner"], crops[0]["extent"] = corner, size
        if jitter:
            rng = generator(self.seed, "coordinates", f"{pattern} {self.places.scans[at]}", "jitter")
            for crop in crops[1:]:
                crop["corner"], crop["extent"] = jitter.draw(corner, size, shape, rng)
        crops["centre_mm"] = self.places.centres_mm(np.full(len(crops), at), crops["corner"], crops["extent"])
        return crops


_RULES = {
    "border": "had no position inside coordinates.rule.border",
    "tissue": "had none there between coordinates.rule.tissue_min and tissue_max",
    "patients": "had none that coordinates.k and k_validation patients can hold",
    "min_distance": "had none coordinates.min_distance away from the earlier patterns",
}


_POSITION_RULES = ("border", "tissue_min", "tissue_max", "patients", "min_distance")


def _too_few(patterns: int, references: int, settings: Coordinates, tally: Counter) -> str:
    refused = "; ".join(f"{tally[f'refused {rule}']} {words}" for rule, words in _RULES.items())
    positions = ", ".join(f"{rule} {tally[f'positions {rule}']}" for rule in _POSITION_RULES)
    return (
        f"coordinates.patterns: {settings.patterns} patterns need as many references with an admissible position, "
        f"{patterns} of {references} have one: {refused}. Of {tally['positions positions']} positions the rules refused: "
        f"{positions}. Widen the rule that refuses most, ask for fewer patterns, or add patients (neighbors.references, "
        "unless it is `all`)"
    )


def _metrics(
    settings: Coordinates,
    wanted: dict[str, int | None],
    surveys: dict[str, Survey],
    crops: list[np.ndarray],
    tally: Counter,
) -> dict:
    refused = {rule: tally[f"refused {rule}"] for rule in _RULES}
    found = Counter(seen.found for seen in surveys.values())
    warnings = []
    fallback = {"lungs": {"body": "no lungs were found, the body's box stands in"}, "body": {}, "voxel": {}}
    sentences = {**fallback[settings.frame]}
    if settings.frame != "voxel":
        sentences["scan"] = "no body was found, the whole scan stands in for its box"
    for what, words in sentences.items():
        if named := sorted(seen.scan for seen in surveys.values() if seen.found == what):
            more = ", ..." if len(named) > 5 else ""
            warnings.append(f"in {len(named)} of {len(surveys)} scans {words}: {', '.join(named[:5])}{more}")
    if sum(refused.values()):
        parts = "; ".join(f"{count} {_RULES[rule]}" for rule, count in refused.items() if count)
        warnings.append(f"{sum(refused.values())} of {tally['references']} references were refused: {parts}")
    return {
        "patch_size": list(settings.patch_size),
        "patterns": len(crops),
        "frame": settings.frame,
        "k": wanted["train"] or "all",
        "k_validation": wanted["validation"] or "all",
        "crops": sum(map(len, crops)),
        "references_refused": sum(refused.values()),
        "refused": refused,
        "positions": {rule: tally[f"positions {rule}"] for rule in ("positions", *_POSITION_RULES)},
        "stepped_in": tally["stepped_in"],
        "passed_over": tally["passed_over"],
        "boxes": {what: found[what] for what in ("lungs", "body", "scan")},
        "warnings": warnings,
    }


def write_discovery(folder: Path, found: Discovery) -> None:
    """Write patterns.csv, crops.csv, positions.csv and metrics.json."""
    write_patterns(folder / "patterns.csv", found.patterns)
    write_crops(folder / "crops.csv", found.crops)
    write_positions(folder / "positions.csv", found.position_scans, found.positions)
    text = json.dumps(found.metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
