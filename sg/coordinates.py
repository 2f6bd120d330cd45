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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import console
from sg.admissible import Zyx, admissible, draw, exclude_near
from sg.crops import CROP, PatternRow, write_crops, write_patterns, write_positions
from sg.errors import InputError
from sg.frames import Box, Frame, find_box
from sg.neighbors import Ranking
from sg.params import Coordinates, Jitter
from sg.processes import Lost, spread
from sg.randomness import generator
from sg.resampling import read_resampled

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


def survey(folder: Path, scan: str, frame: Frame, tissue_hu: float | None) -> Survey:
    """Open one resampled scan: its box, its geometry and, with a `tissue_hu`, its tissue mask (some 2 % of the scan)."""
    volume = read_resampled(folder / f"{scan}.h5")
    box, found = find_box(volume.image, volume.spacing_mm, frame)
    packed = None
    if tissue_hu is not None:
        packed = zlib.compress(np.packbits(volume.image >= tissue_hu).tobytes(), 1)
    return Survey(scan, tuple(volume.image.shape), box, found, volume.spacing_mm, volume.origin_mm, packed)


def survey_all(
    scans: Sequence[str], with_tissue: set[str], folder: Path, settings: Coordinates, workers: int
) -> dict[str, Survey]:
    """Every scan surveyed, each opened once; those named with their tissue mask."""
    jobs = [
        (folder, scan, settings.frame, settings.rule.tissue_hu if scan in with_tissue else None)
        for scan in scans
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


def _survey(job: tuple[Path, str, Frame, float | None]) -> Survey:
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
    border, tissue and distance admit; the distance is to every earlier pattern's coordinate as it lies in this
    reference, in its voxels (in frame `voxel` that is the published distance between corners). A reference without
    such a corner, or whose pattern fits into fewer than K patients, is refused, and the next one is taken.

    Each scan in `folder` is opened once (a reference that replaces a refused one, once more); memory grows with the
    patterns by their packed tissue masks only. InputError if params ask for more than there is (`demands`), or if
    the references do not suffice: it counts what each rule refused.
    """
    wanted = demands(ranking, settings)
    references = [scan.decode() for scan in ranking.reference]
    order = generator(seed, "coordinates", purpose="references").permutation(len(references))
    first = {references[i] for i in order[: settings.patterns]}
    scans = [
        scan.decode() for scan, split in zip(ranking.scan, ranking.split, strict=True) if split != b"test"
    ]
    surveys = survey_all(scans, first, folder, settings, workers)
    layer = _Layer(ranking, Places(surveys, settings.patch_size, settings.frame), settings, wanted, seed)
    tally = Counter()
    patterns, crops, positions, coordinates = [], [], [], []
    reference_rows = np.array([layer.places.row[scan] for scan in references])
    for i in order:
        if len(patterns) == settings.patterns:
            break
        scan = references[i]
        seen = surveys[scan]
        if seen.tissue is None:
            seen = survey(folder, scan, settings.frame, settings.rule.tissue_hu)
        placed = _place(seen, coordinates, layer.places, settings, seed, tally)
        if placed is None:
            continue
        corner, share = placed
        coordinate = layer.places.coordinate(scan, corner)
        rows = layer.lay(len(patterns), int(i), coordinate, tally)
        if rows is None:
            continue
        fraction = layer.places.fraction(scan, corner)
        patient = ranking.patient[ranking.train[i, 0]].decode()
        patterns.append(
            PatternRow(len(patterns), scan, patient, *corner, *(round(f, 6) for f in fraction), share)
        )
        crops.append(rows)
        coordinates.append(coordinate)
        positions.append(layer.everywhere(coordinate, reference_rows))
    if len(patterns) < settings.patterns:
        raise InputError(_too_few(len(patterns), len(references), settings, tally))
    return Discovery(
        patterns, crops, references, positions, _metrics(settings, wanted, surveys, crops, tally)
    )


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
        if asked != "all" and asked > depth:
            raise InputError(
                f"neighbors.depth: the ranking must hold at least coordinates.{key} ({asked}) {what} patients, it "
                f"holds {depth}; raise neighbors.depth, or set it to `all`"
            )
        wanted[split] = None if asked == "all" else asked
    return wanted


def _place(
    seen: Survey,
    coordinates: Sequence[Sequence[float]],
    places: Places,
    settings: Coordinates,
    seed: int,
    tally: Counter,
) -> tuple[Zyx, float] | None:
    """The corner drawn on a reference, with its tissue score; None, counted, if no corner is admissible."""
    allowed = admissible(seen.unpacked(), settings.patch_size, settings.rule)
    row = places.row[seen.scan]
    counts = dict(allowed.counts)
    left = counts["positions"] - counts["border"]
    inside = len(allowed)
    counts["min_distance"] = exclude_near(
        allowed, (places.exact(c)[row] for c in coordinates), settings.min_distance
    )
    tally.update({f"positions {rule}": count for rule, count in counts.items()})
    tally["references"] += 1
    if not len(allowed):
        tally["refused " + ("border" if not left else "tissue" if not inside else "min_distance")] += 1
        return None
    (corner,) = draw(allowed, 1, generator(seed, "coordinates", seen.scan, "corner"))
    return corner, allowed.share_at(corner)


class _Layer:
    """Lays patterns in the patients around their references."""

    def __init__(
        self,
        ranking: Ranking,
        places: Places,
        settings: Coordinates,
        wanted: dict[str, int | None],
        seed: int,
    ) -> None:
        self.ranking, self.places, self.settings, self.wanted, self.seed = (
            ranking,
            places,
            settings,
            wanted,
            seed,
        )
        self.jitter = JitterRange.of(settings.jitter, settings.patch_size)
        self._row = np.array([places.row.get(scan.decode(), -1) for scan in ranking.scan])

    def lay(
        self, pattern: int, reference: int, coordinate: Sequence[float], tally: Counter
    ) -> np.ndarray | None:
        """The crops (CROP) of a pattern in training and validation patients; None, counted, if too few can hold it."""
        corners = self.places.corners(coordinate)
        inside = self.places.inside(corners)
        rows, seen = [], Counter()
        for split, ranked in (("train", self.ranking.train), ("validation", self.ranking.validation)):
            jittered = self.settings.jitter.crops if split == "train" else 0
            taken = []
            for rank, row in enumerate(ranked[reference], start=split == "validation"):
                at = self._row[row]
                corner, shape = tuple(corners[at].tolist()), tuple(self.places.shape[at].tolist())
                if not inside[at] or (jittered and not self.jitter.fits(corner, shape)):
                    seen["passed_over"] += 1
                    continue
                taken.append(self._crops(pattern, rank, row, corner, shape, jittered))
                if len(taken) == self.wanted[split]:
                    break
            if not self._enough(split, len(taken), ranked.shape[1], reference):
                tally["refused patients"] += 1
                return None
            nearest = self.wanted[split] or len(ranked[reference])
            seen["stepped_in"] += sum(
                int(crop[0]["rank"]) - (split == "validation") >= nearest for crop in taken
            )
            rows += taken
        tally.update(seen)
        return self._located(np.concatenate(rows))

    def everywhere(self, coordinate: Sequence[float], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres in mm (n, 3) of the patch laid in the scans of those rows, and whether it fits there."""
        corners = self.places.corners(coordinate)
        extents = np.broadcast_to(np.array(self.settings.patch_size), (len(rows), 3))
        return self.places.centres_mm(rows, corners[rows], extents), self.places.inside(corners)[rows]

    def _crops(self, pattern: int, rank: int, row: int, corner: Zyx, shape: Zyx, jittered: int) -> np.ndarray:
        size = self.settings.patch_size
        crops = np.zeros(1 + jittered, CROP)
        crops["pattern"], crops["rank"], crops["resolution"] = pattern, rank, range(1 + jittered)
        for name in ("scan", "patient", "split"):
            crops[name] = getattr(self.ranking, name)[row]
        crops[0]["corner"], crops[0]["extent"] = corner, size
        if jittered:
            rng = generator(
                self.seed, "coordinates", f"{pattern} {self.ranking.scan[row].decode()}", "jitter"
            )
            for crop in crops[1:]:
                crop["corner"], crop["extent"] = self.jitter.draw(corner, size, shape, rng)
        return crops

    def _located(self, crops: np.ndarray) -> np.ndarray:
        rows = np.array([self.places.row[scan.decode()] for scan in crops["scan"]])
        crops["centre_mm"] = self.places.centres_mm(rows, crops["corner"], crops["extent"])
        return crops

    def _enough(self, split: str, taken: int, depth: int, reference: int) -> bool:
        """Whether a pattern has its patients (with `all`: one beside the reference, and one for validation)."""
        wanted = self.wanted[split]
        if wanted is None:
            return taken >= (2 if split == "train" else 1)
        if taken < wanted and depth < self.ranking.patients(split):
            raise InputError(
                f"neighbors.depth: a pattern of reference {self.ranking.reference[reference].decode()} fits into only "
                f"{taken} of the {depth} nearest {split} patients that the ranking holds, and {wanted} are asked for; "
                "raise neighbors.depth, or set it to `all`"
            )
        return taken >= wanted


_RULES = {
    "border": "had no position inside coordinates.rule.border",
    "tissue": "had none there between coordinates.rule.tissue_min and tissue_max",
    "min_distance": "had none coordinates.min_distance away from the earlier patterns",
    "patients": "had a pattern that too few patients can hold (coordinates.k, k_validation)",
}


def _too_few(patterns: int, references: int, settings: Coordinates, tally: Counter) -> str:
    refused = "; ".join(f"{tally[f'refused {rule}']} {words}" for rule, words in _RULES.items())
    positions = ", ".join(
        f"{rule} {tally[f'positions {rule}']}"
        for rule in ("border", "tissue_min", "tissue_max", "min_distance")
    )
    return (
        f"coordinates.patterns: {settings.patterns} patterns need as many references with an admissible position, "
        f"{patterns} of {references} have one: {refused}. Of {tally['positions positions']} positions the rules refused: "
        f"{positions}. Widen the rule that refuses most, ask for fewer patterns, or add patients"
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
        "positions": {
            rule: tally[f"positions {rule}"]
            for rule in ("positions", "border", "tissue_min", "tissue_max", "min_distance")
        },
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
