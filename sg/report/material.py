"""What was read and what was set aside: the page's second section."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sg import paths
from sg.cohorts.records import QuarantineRow, ScanRow, read_rows
from sg.params import Params
from sg.plan import read_plan
from sg.report.tables import evenly, read_json
from sg.report.thumbnails import read_thumbnails
from sg.storage import open_h5

SPLITS = ("train", "validation", "test")
REFUSALS_MAX = 200
SAMPLE = 12


def material(root: Path, study: Params) -> dict[str, Any]:
    """Sources, refusals, warnings and a sample of the scans, for the template."""
    scans = read_rows(root / paths.SCANS, ScanRow)
    refused = [("reading", row) for row in read_rows(root / paths.QUARANTINE, QuarantineRow)]
    refused += [("resampling", row) for row in read_rows(root / paths.RESAMPLED_QUARANTINE, QuarantineRow)]
    return {
        "scans": len(scans),
        "patients": len({row.patient for row in scans}),
        "in_two_splits": _in_two_splits(scans),
        "sources": [_source(name, study, scans, refused) for name in study.cohort.sources],
        "synthetic": synthetic(study),
        "refused": len(refused),
        "rules": sorted(
            Counter(row.rule for _, row in refused).items(), key=lambda item: (-item[1], item[0])
        ),
        "refusals": refused[:REFUSALS_MAX],
        "refusals_left_out": max(0, len(refused) - REFUSALS_MAX),
        "duplicates": sum("duplicate" in row.rule for _, row in refused),
        "ignored": _ignored(root, study),
        "warnings": warnings(root, study),
        "sample": _sample(root, scans),
    }


def synthetic(study: Params) -> list[str]:
    """The sources that are phantoms made by this study, by name."""
    if Path(study.cohort.raw) != paths.RAW:
        return []
    return [
        name
        for name, source in study.cohort.sources.items()
        if Path(source.path).parts[:1] and Path(source.path).parts[0] in study.phantom.cohorts
    ]


def warnings(root: Path, study: Params) -> list[tuple[str, str]]:
    """(stage, sentence) of every warning and note that the stages left in their JSON files, in the order of the pipeline."""
    files = {
        "cohort": [paths.COHORT_SUMMARY],
        "embed": [paths.EMBED / "card.json"],
        "neighbors": [paths.NEIGHBORS / "metrics.json"],
        "coordinates": [paths.COORDINATES_METRICS],
        "patches": [paths.PATCHES / "metrics.json"],
        "quality": [paths.QUALITY / "metrics.json"],
        "pretrain": [paths.method(name) / "card.json" for name in study.plan.methods],
        "evaluate": [paths.EVALUATE / "notes.json"],
    }
    found = []
    for stage, places in files.items():
        for place in places:
            # Not every stage has something to say in JSON.
            content = read_json(root / place) if (root / place).is_file() else {}
            found += [
                (stage, sentence)
                for kind in ("warnings", "notes")
                for sentence in _sentences(content.get(kind))
            ]
    for row in read_plan(root / paths.TARGETS_PLAN):
        with open_h5(root / paths.target(row["task"])) as file:
            said = json.loads(file.attrs.get("warnings", "[]"))
        found += [(f"targets {row['task']}", sentence) for sentence in _sentences(said)]
    return found


def _ignored(root: Path, study: Params) -> list[tuple[str, list[tuple[str, int]]]]:
    """For each source with any: the files beside its scans that were not taken for scans, counted by kind."""
    by_source = read_json(root / paths.COHORT_SUMMARY).get("by_source", {})
    found = []
    for name in study.cohort.sources:
        kinds = by_source.get(name, {}).get("ignored", {})
        if some := sorted((kind, count) for kind, count in kinds.items() if count):
            found.append((name, some))
    return found


def _sentences(said: object) -> list[str]:
    return [] if not said else [said] if isinstance(said, str) else list(map(str, said))


def _source(
    name: str, study: Params, scans: Sequence[ScanRow], refused: Sequence[tuple[str, QuarantineRow]]
) -> dict[str, Any]:
    mine = [row for row in scans if row.source == name]
    return {
        "name": name,
        "layout": study.cohort.sources[name].layout,
        "use": study.cohort.sources[name].use,
        "scans": len(mine),
        "patients": {split: len({row.patient for row in mine if row.split == split}) for split in SPLITS},
        "spacing": _ranges([row.spacing_mm for row in mine]),
        "size": _ranges([row.size for row in mine]),
        "refused": sum(row.source == name for _, row in refused),
    }


def _in_two_splits(scans: Sequence[ScanRow]) -> list[str]:
    """Patients who stand in more than one split, which none should."""
    splits: dict[str, set[str]] = {}
    for row in scans:
        splits.setdefault(row.patient, set()).add(row.split)
    return sorted(patient for patient, found in splits.items() if len(found) > 1)


def _ranges(rows: Sequence[Sequence[float]]) -> str:
    """Least to largest in plane and along the scan: `2.4–3.2 × 2.5–3.5`; of (x, y, z)."""
    if not rows:
        return "–"
    plane = [value for row in rows for value in row[:2]]
    along = [row[2] for row in rows]
    return " × ".join(
        f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}–{high:.3g}"
        for low, high in ((min(plane), max(plane)), (min(along), max(along)))
    )


def _sample(root: Path, scans: Sequence[ScanRow]) -> list[dict[str, Any]]:
    """Scans evenly spaced through the usable ones, source after source."""
    thumbnails = read_thumbnails(root)
    usable = sorted(
        (row for row in scans if row.scan in thumbnails.rows), key=lambda row: (row.source, row.scan)
    )
    return [
        {"row": usable[place], "pictures": thumbnails.pictures(usable[place].scan)}
        for place in evenly(len(usable), SAMPLE)
    ]
