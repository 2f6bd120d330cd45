"""Whether the crops of a pattern show the same anatomy.

On phantoms the position of every organ in an atlas is known: the transfer error of a pattern is the median distance
there, in mm, between the centres of its crops and that of its reference. It is held against the same coordinate laid
in patients drawn at random. On any data: how alike the patches of a pattern are, against patches of others.

The atlas is that of what the reference shows: the organ at its centre, or the nearest one where there is fat or air.
Its map says of every crop, whatever lies at its centre, how far from the reference's place in this organ it is. So no
crop is left out for having missed the organ.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from sg.crops import read_crops, read_patterns, read_positions
from sg.patches import PatchCache
from sg.randomness import generator
from sg.truth import read_truth

# Resamples of the patterns behind an interval, and the share of them within it.
RESAMPLES = 2000
LEVEL = 0.95
# Patches held at a time while their correlations are summed.
BLOCK = 64


@dataclass(frozen=True)
class Measured:
    """A row of quality's patterns.csv; distances in mm are medians, NaN where there is no truth."""

    pattern: int
    scan: str  # of the reference
    crops: int  # training crops of scans with truth, the reference left out
    crops_mm: float
    random: int
    random_mm: float
    validation: int
    validation_mm: float
    within: float  # mean normalised cross-correlation between its patches


def measure(
    discovered: Path, cache: Path, truth: Path, random_patients: int, seed: int
) -> tuple[list[Measured], dict]:
    """The quality of the patterns in the folder `discovered`, whose patches `cache` holds; and all in figures.

    `truth` is the folder of <scan>.h5 as `sg.truth` reads them; what it does not hold has no distances. `crops_mm` and the
    other figures over all patterns are medians of the patterns' medians, with 95 % intervals by bootstrap over
    patterns. Random patients are drawn for each pattern among the training patients it fits into, the reference left
    out, none twice; `random_mm` is theirs. Fixed crops only, for the jittered ones are off by intention.
    """
    patterns = read_patterns(discovered / "patterns.csv")
    centres, unknown = _distances(
        discovered, truth, random_patients, seed, {row.pattern: row.scan for row in patterns}
    )
    alike = correlations(PatchCache(cache))
    rows = []
    for row in patterns:
        of = {
            kind: centres.get((row.pattern, kind), np.empty(0)) for kind in ("crops", "random", "validation")
        }
        known = {kind: values[np.isfinite(values)] for kind, values in of.items()}
        figures = [figure for values in known.values() for figure in (len(values), _median(values))]
        rows.append(Measured(row.pattern, row.scan, *figures, alike.within.get(row.pattern, np.nan)))
    return rows, _summarized(rows, alike, unknown, centres, seed)


def _distances(
    discovered: Path, truth: Path, random_patients: int, seed: int, references: dict[int, str]
) -> tuple[dict[tuple[int, str], np.ndarray], int]:
    """Atlas distances to the reference's centre by (pattern, kind), NaN where unknown; and references without truth.

    Empty if no scan has truth. A scan's truth is read once, and once for each pattern that it is the reference of.
    """
    crops = read_crops(discovered / "crops.csv")
    crops = crops[crops["resolution"] == 0]
    asked: list[tuple[int, str, str, tuple[float, ...]]] = []  # pattern, kind, scan, centre
    for crop in crops:
        train = crop["split"] == b"train"
        kind = "validation" if not train else "reference" if crop["rank"] == 0 else "crops"
        asked.append((int(crop["pattern"]), kind, crop["scan"].decode(), tuple(crop["centre_mm"])))
    possible: dict[int, list[tuple[str, tuple[float, ...]]]] = {pattern: [] for pattern in references}
    for pattern, scan, centre, fits in read_positions(discovered / "positions.csv"):
        if fits and scan != references[pattern]:
            possible[pattern].append((scan, centre))
    for pattern, places in possible.items():
        rng = generator(seed, "quality", str(pattern), "random patients")
        for i in rng.choice(len(places), min(random_patients, len(places)), replace=False) if places else ():
            asked.append((pattern, "random", *places[i]))
    origin: dict[int, np.ndarray] = {}
    organ: dict[int, int] = {}
    for pattern, kind, scan, centre in asked:
        if kind == "reference" and (path := truth / f"{scan}.h5").is_file():
            known = read_truth(path)
            organ[pattern] = known.nearest_map(np.array(centre))
            origin[pattern] = known.atlas_by(np.array([organ[pattern]]), np.array([centre]))[0]
    by_scan: dict[str, list[int]] = {}
    for number, (_, kind, scan, _) in enumerate(asked):
        if kind != "reference":
            by_scan.setdefault(scan, []).append(number)
    there = {scan: truth / f"{scan}.h5" for scan in sorted(by_scan) if (truth / f"{scan}.h5").is_file()}
    if not there and not origin:
        return {}, 0
    where = np.full((len(asked), 3), np.nan)
    for scan, path in there.items():
        numbers = by_scan[scan]
        maps = np.array([organ.get(asked[number][0], -1) for number in numbers])
        where[numbers] = read_truth(path).atlas_by(maps, np.array([asked[number][3] for number in numbers]))
    unplaced = np.full(3, np.nan)
    distances: dict[tuple[int, str], list[float]] = {}
    for (pattern, kind, _, _), place in zip(asked, where, strict=True):
        if kind != "reference":
            distance = float(np.linalg.norm(place - origin.get(pattern, unplaced)))
            distances.setdefault((pattern, kind), []).append(distance)
    lost = sum(not np.isfinite(origin.get(pattern, unplaced)).all() for pattern in references)
    return {key: np.array(values) for key, values in distances.items()}, lost


# ---------------------------------------------------------------------------------------- correlations


@dataclass(frozen=True)
class Alike:
    """Mean normalised cross-correlations in [-1, 1] over pairs of patches."""

    within: dict[int, float]  # by pattern, over pairs of its patches
    mean_within: float  # over patterns; NaN if none has a pair
    across: float  # over pairs from two patterns; NaN if there is none
    flat: int  # patches of one value, which correlate with nothing and are left out


def correlations(cache: PatchCache) -> Alike:
    """How alike the fixed training patches of a pattern are, against those of others.

    The mean over all pairs follows from the sum of the patches, each less its mean and of length 1: of n of them
    (|sum|^2 - n) / (n (n - 1)). Memory is that of a block of patches, whatever their number.
    """
    rows = cache.rows
    fixed = (rows["resolution"] == 0) & (rows["split"] == b"train")
    within: dict[int, float] = {}
    everything = np.zeros(int(np.prod(cache.patch_size)))
    pairs, inner, total, flat = 0, 0.0, 0, 0
    for pattern in np.unique(rows["pattern"][fixed]):
        indices = np.flatnonzero(fixed & (rows["pattern"] == pattern))
        sums, count = _normalized_sum(cache, indices)
        flat += len(indices) - count
        squared = float(sums @ sums)
        if count > 1:
            within[int(pattern)] = (squared - count) / (count * (count - 1))
        everything += sums
        inner += squared
        pairs += count * count
        total += count
    others = total * total - pairs
    across = (float(everything @ everything) - inner) / others if others else float("nan")
    return Alike(within, float(np.mean(list(within.values()))) if within else float("nan"), across, flat)


def _normalized_sum(cache: PatchCache, indices: np.ndarray) -> tuple[np.ndarray, int]:
    sums, count = np.zeros(int(np.prod(cache.patch_size))), 0
    for start in range(0, len(indices), BLOCK):
        some = indices[start : start + BLOCK]
        patches = cache.read(some).reshape(len(some), -1).astype(np.float64)
        patches -= patches.mean(axis=1, keepdims=True)
        length = np.sqrt(np.einsum("ij,ij->i", patches, patches))
        kept = length > 0
        sums += (patches[kept] / length[kept, None]).sum(axis=0)
        count += int(np.count_nonzero(kept))
    return sums, count


# ---------------------------------------------------------------------------------------- all together


def bootstrap_median(values: np.ndarray, rng: np.random.Generator) -> list[float] | None:
    """The 95 % percentile interval of the median of `values` (n,), by resampling them; None for fewer than two."""
    if len(values) < 2:
        return None
    medians = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    return [round(float(v), 4) for v in np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def _summarized(rows: list[Measured], alike: Alike, lost: int, centres: dict, seed: int) -> dict:
    warnings = []
    if not centres:
        warnings.append("none of the scans has a known position in an atlas, so there are no distances in mm")
    if lost:
        warnings.append(
            f"{lost} of {len(rows)} references are scans whose place in an atlas is not known, and have no distances"
        )
    crops = {kind: sum(len(v) for (_, k), v in centres.items() if k == kind) for kind in ("crops", "random")}
    unknown = sum(int(np.isnan(values).sum()) for values in centres.values())
    if unknown:
        warnings.append(
            f"{unknown} of {sum(map(len, centres.values()))} crops have no distance and were left out"
        )
    if alike.flat:
        warnings.append(f"{alike.flat} patches of a single value correlate with nothing and were left out")
    figures: dict = {"patterns": len(rows), "crops": crops["crops"], "random": crops["random"]}
    for kind in ("crops", "random", "validation"):
        values = np.array([getattr(row, f"{kind}_mm") for row in rows])
        values = values[np.isfinite(values)]
        figures[f"{kind}_mm"] = _number(_median(values))
        figures[f"{kind}_mm_interval"] = bootstrap_median(
            values, generator(seed, "quality", kind, "bootstrap")
        )
    gain = np.array([row.random_mm - row.crops_mm for row in rows])
    gain = gain[np.isfinite(gain)]
    figures["gain_mm"] = _number(_median(gain))
    figures["gain_mm_interval"] = bootstrap_median(gain, generator(seed, "quality", "gain", "bootstrap"))
    figures["correlation_within"] = _number(alike.mean_within)
    figures["correlation_across"] = _number(alike.across)
    return figures | {"warnings": warnings}


def write_quality(folder: Path, rows: list[Measured], figures: dict) -> None:
    """Write patterns.csv, an empty cell where there is no figure, and metrics.json."""
    with open(folder / "patterns.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Measured)])
        for row in rows:
            cells = ((_number(v) if isinstance(v, float) else v) for v in astuple(row))
            writer.writerow(["" if cell is None else cell for cell in cells])
    text = json.dumps(figures, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")


def in_a_line(figures: dict) -> str:
    """What the figures say, for the end of the stage."""
    alike = _against(figures["correlation_within"], figures["correlation_across"])
    if figures["crops_mm"] is None:
        return f"{figures['patterns']} patterns, no atlas: their patches correlate by {alike} with those of others"
    random = "unknown" if figures["random_mm"] is None else f"{figures['random_mm']:.1f} mm"
    return (
        f"{figures['patterns']} patterns: crops lie {figures['crops_mm']:.1f} mm (median, in the atlas) from their "
        f"reference, random patients' {random}{_gain(figures)}; patches correlate by {alike} with those of others"
    )


def _gain(figures: dict) -> str:
    if figures["gain_mm_interval"] is None:
        return ""
    low, high = figures["gain_mm_interval"]
    return f" (gain pattern by pattern {figures['gain_mm']:.1f} mm, 95 % interval {low:.1f} to {high:.1f})"


def _against(within: float | None, across: float | None) -> str:
    return ", ".join("unknown" if value is None else f"{value:.2f}" for value in (within, across)).replace(
        ", ", " within a pattern and by "
    )


def _median(values: np.ndarray | Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _number(value: float) -> float | None:
    """A figure as JSON has it: to four decimals, null where it is not known."""
    return round(value, 4) if np.isfinite(value) else None
