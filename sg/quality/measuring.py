"""How well discovery worked: what the stage `quality` writes.

On phantoms: how far, in an atlas, the crops of a pattern lie from its reference, against every control. On any data: how
alike the patches of a pattern are, and how well patterns are told apart.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sg.cohorts.records import ScanRow, read_rows
from sg.errors import InputError
from sg.neighbors import read_ranking
from sg.networks.autoencoder import AutoEncoder, untrained
from sg.patches import PatchCache
from sg.quality.choosing import Crops
from sg.quality.controls import orderings
from sg.quality.likeness import Alike, Told, correlations, told_apart
from sg.quality.registration import Registered, registered
from sg.quality.study import Study, read_study
from sg.quality.table import NEAREST, POINT, RANDOM, Errors, Resamples, Row, asked, controls, table
from sg.roles import Roles
from sg.weights import load_tensors


@dataclass(frozen=True)
class Sources:
    """Where that lies which quality is measured on."""

    discovered: Path  # folder of coordinates
    truth: Path  # folder of <scan>.h5
    cache: Path  # patterns.h5
    ranking: Path  # neighbors.h5
    thumbnails: Path  # thumbnails.h5
    scans: Path  # scans.csv
    embedding: Path  # folder of the auto-encoder


@dataclass(frozen=True)
class Measured:
    """A row of quality's patterns.csv; distances in mm are medians over crops, NaN where there is no truth."""

    pattern: int
    scan: str  # of the reference
    crops: int  # training crops with a known distance, the reference left out
    crops_mm: float
    random_mm: float
    oracle_mm: float
    validation: int
    validation_mm: float
    spread_mm: float
    purity: float
    nearest_pattern_mm: float  # to the nearest other pattern in the atlas
    overlap: float  # share of its patch that one other pattern's covers there, the one that covers most
    within: float  # mean normalised cross-correlation between its patches


@dataclass(frozen=True)
class Quality:
    """What the stage writes."""

    controls: list[Row]
    patterns: list[Measured]
    figures: dict[str, Any]


def measure(sources: Sources, roles: Roles, registrations: int, seed: int) -> Quality:
    """Measure the discovery that lies in `sources`; `registrations` of each pattern for the affine control, 0 for none.

    Fixed crops only, for the jittered ones are off by intention. Without truth there are no controls.
    """
    study = read_study(sources.discovered, sources.truth)
    cache = PatchCache(sources.cache)
    trained, first = _encoders(sources.embedding, seed)
    alike, told = correlations(cache), told_apart(cache, trained, first, seed)
    affine, rows = None, []
    orders = {}
    if study.known:
        ranking = read_ranking(sources.ranking, roles)
        orders = orderings(study, ranking, sources.thumbnails, read_rows(sources.scans, ScanRow), first)
        if registrations:
            affine = registered(study, sources.thumbnails, sources.truth, registrations, seed)
        rows = table(study, orders, study.k, seed=seed, registered=affine and affine.crops)
    among = asked(study, None)
    crops = controls(study, study.frame, orders, study.k, among)
    crops.setdefault(NEAREST, _none(study))
    patterns = _patterns(study, crops, alike)
    figures = _figures(study, rows, patterns, alike, told)
    figures |= _gain(study, crops, Resamples.draw(study, among, seed))
    figures["warnings"] = [*_doubts(study, crops[NEAREST], affine), *_likeness_doubts(alike, told)]
    return Quality(rows, patterns, figures)


def _encoders(folder: Path, seed: int) -> tuple[AutoEncoder, AutoEncoder]:
    """The auto-encoder of the study, and the same one before its training."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        width, depth = int(card["width"]), int(card["depth"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'card.json'}: cannot be read ({error}); run `dvc repro embed`") from None
    trained = untrained(width, depth, seed)
    load_tensors(trained, folder / "autoencoder.safetensors")
    return trained, untrained(width, depth, seed)


def _none(study: Study) -> Crops:
    """No crops of any pattern."""
    patterns = len(study.patterns)
    nothing = np.empty((patterns, 0))
    return Crops(nothing.astype(int), nothing, np.empty((patterns, 0, 3)), nothing)


def _patterns(study: Study, crops: dict[str, Crops], alike: Alike) -> list[Measured]:
    nearest = crops[NEAREST]
    known = np.isfinite(nearest.mm).sum(axis=1)
    errors = [crops[name].median_mm for name in (NEAREST, RANDOM, POINT)]
    spread, purity = nearest.spread_mm, nearest.purity
    apart, overlap = nearest_patterns(study.origin), overlaps(study.origin, _patch_mm(study))
    rows = []
    for p, row in enumerate(study.patterns):
        validation = study.validation[p][np.isfinite(study.validation[p])]
        rows.append(
            Measured(
                row.pattern,
                row.scan,
                int(known[p]),
                *(float(error[p]) for error in errors),
                len(validation),
                float(np.median(validation)) if len(validation) else np.nan,
                *(float(figure[p]) for figure in (spread, purity, apart, overlap)),
                alike.within.get(row.pattern, np.nan),
            )
        )
    return rows


def nearest_patterns(origin: np.ndarray) -> np.ndarray:
    """Distance of each place (p, 3) to the nearest other one, (p,); NaN where there is none, or it is unknown."""
    apart = np.linalg.norm(origin[:, None] - origin, axis=-1)
    np.fill_diagonal(apart, np.nan)
    least = np.where(np.isnan(apart), np.inf, apart).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(least), least, np.nan)


def overlaps(origin: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Share of each box (centre (p, 3), sides (p, 3)) that its most overlapping other one covers; NaN as above."""
    low, high = origin - sides / 2, origin + sides / 2
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    share = np.prod(np.maximum(common, 0), axis=-1) / np.prod(sides, axis=-1)[:, None]
    np.fill_diagonal(share, np.nan)
    most = np.where(np.isnan(share), -np.inf, share).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(most), most, np.nan)


def _patch_mm(study: Study) -> np.ndarray:
    """Sides (x, y, z) of each pattern's patch in its reference, mm (p, 3)."""
    spacing = np.array([study.surveys[at].survey.spacing_mm for at in study.reference])
    return np.array(study.patch_size[::-1]) * spacing


def _figures(
    study: Study, rows: Sequence[Row], patterns: Sequence[Measured], alike: Alike, told: Told
) -> dict[str, Any]:
    own = {row.control: row for row in rows if row.frame == study.frame}
    figures: dict[str, Any] = {
        "patterns": len(patterns),
        "crops": sum(row.crops for row in patterns),
        "frame": study.frame,
    }
    for name, control, part in (
        ("crops_mm", NEAREST, "error"),
        ("random_mm", RANDOM, "error"),
        ("oracle_mm", POINT, "error"),
        ("share", NEAREST, "share"),
        ("geometry_share", "geometry", "share"),
    ):
        row = own.get(control)
        middle = "error_mm" if part == "error" else part
        figures[name] = number(getattr(row, middle)) if row else None
        figures[f"{name}_interval"] = (
            _pair(getattr(row, f"{part}_low"), getattr(row, f"{part}_high")) if row else None
        )
    nearest = own.get(NEAREST)
    figures["spread_mm"] = number(nearest.spread_mm) if nearest else None
    spacing = float(np.mean([row.survey.spacing_mm for row in study.surveys]))
    figures["spread_voxels"] = number(nearest.spread_mm / spacing) if nearest else None
    figures["purity"] = number(nearest.purity) if nearest else None
    figures["nearest_pattern_mm"] = _middle(row.nearest_pattern_mm for row in patterns)
    overlap = np.array([row.overlap for row in patterns])
    figures["overlap"] = (
        number(float(overlap[np.isfinite(overlap)].mean())) if np.isfinite(overlap).any() else None
    )
    figures["validation_mm"] = _middle(row.validation_mm for row in patterns)
    figures["correlation_within"] = number(alike.mean_within)
    figures["correlation_across"] = number(alike.across)
    figures["classifier_accuracy"] = number(told.accuracy)
    figures["classifier_accuracy_interval"] = _pair(told.low, told.high)
    figures["classifier_untrained"] = number(told.untrained)
    figures["classifier_chance"] = number(told.chance)
    return figures


def _gain(study: Study, crops: dict[str, Crops], drawn: Resamples) -> dict[str, Any]:
    """How much nearer the crops lie than random ones, pattern by pattern: the median, and its interval."""
    random, nearest = (
        Errors(crops[name].median_mm, drawn.errors(study, crops[name])) for name in (RANDOM, NEAREST)
    )
    middle, *ends = (random - nearest).median(drawn.patterns)
    return {"gain_mm": number(middle), "gain_mm_interval": _pair(*ends)}


def _doubts(study: Study, crops: Crops, affine: Registered | None) -> list[str]:
    """Sentences on what the distances do not tell."""
    if not study.known:
        return ["none of the scans has a known position in an atlas, so there are no distances in mm"]
    said = []
    lost = int((~np.isfinite(study.origin).all(axis=1)).sum())
    if lost:
        said.append(
            f"{lost} of {len(study.patterns)} references are scans whose place in an atlas is not known, and have no "
            "distances"
        )
    if study.without_truth:
        said.append(
            f"{study.without_truth} scans that patterns are laid in have no known position in an atlas"
        )
    known = np.isfinite(study.origin).all(axis=1)
    laid = int((crops.scan[known] >= 0).sum())
    unknown = laid - int(np.isfinite(crops.mm[known]).sum())
    if unknown:
        said.append(f"{unknown} of {laid} crops have no distance and were left out")
    if study.k is None or study.k >= len(study.patients):
        said.append(
            "every training patient is taken, so there is no choice of patients to judge: the nearest are the random ones"
        )
    if affine:
        known = np.isfinite(study.origin).all(axis=1)
        off = int((~np.isfinite(affine.crops.mm[known])).sum())
        if affine.failed:
            said.append(
                f"{affine.failed} of {affine.registrations} affine registrations failed; matching centres stand in"
            )
        if off:
            said.append(
                f"{off} of {affine.registrations} centres were carried to where no map into the atlas reaches"
            )
    return said


def _likeness_doubts(alike: Alike, told: Told) -> list[str]:
    flat = f"{alike.flat} patches of a single value correlate with nothing and were left out"
    return [*([flat] if alike.flat else []), *told.warnings]


def _middle(values) -> float | None:
    """Median of what is known, as JSON has it."""
    known = [value for value in values if np.isfinite(value)]
    return number(float(np.median(known))) if known else None


def _pair(low: float, high: float) -> list[float] | None:
    return [number(low), number(high)] if np.isfinite([low, high]).all() else None


def number(value: float) -> float | None:
    """A figure as JSON has it: to four decimals and never -0, null where it is not known."""
    return round(float(value), 4) + 0.0 if np.isfinite(value) else None


def write_quality(folder: Path, found: Quality) -> None:
    """Write controls.csv and patterns.csv, an empty cell where there is no figure, and metrics.json."""
    for name, kind, rows in (("controls", Row, found.controls), ("patterns", Measured, found.patterns)):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([field.name for field in fields(kind)])
            for row in rows:
                cells = (number(value) if isinstance(value, float) else value for value in astuple(row))
                writer.writerow(["" if cell is None else cell for cell in cells])
    text = json.dumps(found.figures, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")


def in_a_line(figures: dict[str, Any]) -> str:
    """What the figures say, for the end of the stage."""
    likeness = "patches correlate by {} within a pattern and by {} with those of others".format(
        *("unknown" if figures[f"correlation_{what}"] is None else f"{figures[f'correlation_{what}']:.2f}"
          for what in ("within", "across"))
    )  # fmt: skip
    if figures["crops_mm"] is None:
        return f"{figures['patterns']} patterns, no atlas: their {likeness}"
    random = "unknown" if figures["random_mm"] is None else f"{figures['random_mm']:.1f} mm"
    return (
        f"{figures['patterns']} patterns: crops lie {figures['crops_mm']:.1f} mm (median, in the atlas) from their "
        f"reference, random patients' {random}{_of_gain(figures)}; {likeness}"
    )


def _of_gain(figures: dict[str, Any]) -> str:
    if figures["share"] is None or figures["share_interval"] is None:
        return ""
    low, high = figures["share_interval"]
    return (
        f" ({100 * figures['share']:.0f} % of what the best choice of patients would gain, 95 % interval {100 * low:.0f} "
        f"to {100 * high:.0f})"
    )
