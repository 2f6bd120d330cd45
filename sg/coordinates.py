"""Where patterns are: a reference, a corner on it, and the crops laid in its nearest patients (`sg.laying`).

Departures from the published code: a corner is drawn once, uniformly among all that are admissible, instead of in up
to 200 tries; a reference is not lost to a draw that came near an earlier pattern; a crop that would leave a
patient's scan is never cut short, the next nearest patient steps in.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import console, logs
from sg.admissible import Admissible, Zyx, admissible, draw, exclude_near
from sg.crops import CROP, PatternRow, SurveyRow, write_crops, write_patterns, write_surveys
from sg.errors import InputError
from sg.frames import find_boxes
from sg.laying import JitterRange, Places, Survey
from sg.neighbors import Ranking
from sg.params import Coordinates
from sg.processes import Lost, spread
from sg.randomness import generator
from sg.resampled import read_resampled
from sg.roles import PRETRAIN, Role

# From so many scans on a process of its own pays for its start.
SCANS_A_PROCESS = 32


# ------------------------------------------------------------------------------------------------ survey


def survey(folder: Path, scan: str, role: Role, tissue_hu: float | None) -> Survey:
    """Open one resampled scan in a role: its boxes, its geometry and, with a `tissue_hu`, its tissue mask.

    The mask takes some 2 % of the scan.
    """
    logs.opened(scan, role, PRETRAIN)
    volume = read_resampled(folder / f"{scan}.h5")
    boxes = find_boxes(volume.image, volume.spacing_mm)
    packed = None
    if tissue_hu is not None:
        packed = zlib.compress(np.packbits(volume.image >= tissue_hu).tobytes(), 1)
    return Survey(scan, tuple(volume.image.shape), boxes, volume.spacing_mm, volume.upright_origin_mm, packed)


def survey_all(
    scans: Mapping[str, Role], with_tissue: set[str], folder: Path, settings: Coordinates, workers: int
) -> dict[str, Survey]:
    """Every scan surveyed, each opened once in its role; those named with their tissue mask."""
    jobs = [
        (folder, scan, role, settings.rule.tissue_hu if scan in with_tissue else None)
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


def _survey(job: tuple[Path, str, Role, float | None]) -> Survey:
    return survey(*job)


# --------------------------------------------------------------------------------------------- discovery


@dataclass(frozen=True)
class Discovery:
    """What the stage writes: patterns, their crops (CROP, ordered), the scans that they may lie in, figures."""

    patterns: list[PatternRow]
    crops: list[np.ndarray]  # one array a pattern
    surveys: list[SurveyRow]  # sorted by scan
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
    patterns, crops, coordinates = [], [], []
    for i in order.tolist():
        if len(patterns) == settings.patterns:
            break
        seen = surveys[references[i]]
        if seen.tissue is None:
            seen = survey(folder, seen.scan, "neighbours", settings.rule.tissue_hu)
        placed = drawing.place(i, seen, coordinates)
        if placed is None:
            continue
        corner, share = placed
        coordinates.append(drawing.places.coordinate(seen.scan, corner))
        fraction = (round(part, 6) for part in drawing.places.fraction(seen.scan, corner))
        patient = ranking.patient[ranking.train[i, 0]].decode()
        crops.append(drawing.lay(len(patterns), i, coordinates[-1]))
        patterns.append(PatternRow(len(patterns), seen.scan, patient, *corner, *fraction, share))
    if len(patterns) < settings.patterns:
        raise InputError(_too_few(len(patterns), len(references), settings, drawing.tally))
    metrics = _metrics(settings, wanted, surveys, crops, drawing.tally)
    rows = [
        SurveyRow.of(surveys[scan.decode()], patient.decode(), split.decode())
        for scan, patient, split in zip(ranking.scan, ranking.patient, ranking.split, strict=True)
        if scan.decode() in surveys
    ]
    return Discovery(patterns, crops, rows, metrics)


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
        earlier = [self.places.exact(coordinate, [seen.scan])[0] for coordinate in coordinates]
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
    found = Counter(seen.boxes[settings.frame][1] for seen in surveys.values())
    warnings = []
    fallback = {"lungs": {"body": "no lungs were found, the body's box stands in"}, "body": {}, "voxel": {}}
    sentences = {**fallback[settings.frame]}
    if settings.frame != "voxel":
        sentences["scan"] = "no body was found, the whole scan stands in for its box"
    for what, words in sentences.items():
        if named := sorted(seen.scan for seen in surveys.values() if seen.boxes[settings.frame][1] == what):
            more = ", ..." if len(named) > 5 else ""
            warnings.append(f"in {len(named)} of {len(surveys)} scans {words}: {', '.join(named[:5])}{more}")
    if sum(refused.values()):
        parts = "; ".join(f"{count} {_RULES[rule]}" for rule, count in refused.items() if count)
        warnings.append(f"{sum(refused.values())} of {tally['references']} references were refused: {parts}")
    return {
        "patch_size": list(settings.patch_size),
        "patterns": len(crops),
        "frame": settings.frame,
        "jitter": settings.jitter.model_dump(mode="json"),
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
    """Write patterns.csv, crops.csv, surveys.csv and metrics.json."""
    write_patterns(folder / "patterns.csv", found.patterns)
    write_crops(folder / "crops.csv", found.crops)
    write_surveys(folder / "surveys.csv", found.surveys)
    text = json.dumps(found.metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
