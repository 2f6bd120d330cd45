"""What was read, who is who, and what each may be used for: the page's second section."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sg import paths
from sg.cohorts.records import ScanRow, TwinRow, read_rows
from sg.params import Params
from sg.plan import read_plan
from sg.report.refusals import refusals
from sg.report.tables import Tallies, evenly, read_json, tally
from sg.report.thumbnails import Thumbnails, read_thumbnails
from sg.roles import RoleRow
from sg.storage import open_h5

SPLITS = ("train", "validation", "test")
GALLERY_MAX = 48
TWINS_MAX = 50
KINDS_MAX = 30
WARNINGS_MAX = 200
# (column of roles.csv, what the page calls it, what it means there)
ROLES = (
    ("embed", "embed", "has a place in the embedding"),
    ("neighbours", "neighbours", "may be a reference or one of its neighbours"),
    ("pretrain", "pre-train", "networks learn from it in pre-training"),
    ("early_stopping", "early stopping", "its loss says when a training stops"),
    ("fine_tune", "fine-tune", "networks learn a task from it"),
    ("test", "test", "networks are scored on it"),
)


def material(root: Path, study: Params) -> dict[str, Any]:
    """Sources, refusals, twins, roles, warnings and pictures of the scans, for the template."""
    scans = read_rows(root / paths.SCANS, ScanRow)
    twins = read_rows(root / paths.TWINS, TwinRow)
    thumbnails = read_thumbnails(root)
    sources = _sources(study, scans)
    refused = refusals(root, sources)
    said = warnings(root, study)
    return {
        "scans": len(scans),
        "patients": len({row.patient for row in scans}),
        "in_two_splits": _in_two_splits(scans),
        "sources": [
            _source(name, study, [row for row in scans if row.source == name], thumbnails)
            | {"refused": refused["by_source"][name], "twins": _pairs_of(name, scans, twins)}
            for name in sources
        ],
        "total": _figures(scans, thumbnails) | {"refused": refused["count"], "twins": len(twins)},
        "synthetic": synthetic(study),
        "refused": refused,
        "twins": _twins(scans, twins, thumbnails),
        "roles": _roles(read_rows(root / paths.ROLES, RoleRow)),
        "ignored": _ignored(root, sources),
        "warnings": said[:WARNINGS_MAX],
        "warnings_left_out": max(0, len(said) - WARNINGS_MAX),
        "gallery": _gallery(scans, twins, thumbnails),
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


def _ignored(root: Path, sources: Sequence[str]) -> dict[str, Any]:
    """The files beside the scans that were not taken for scans, by kind; of very many kinds the commonest."""
    by_source = read_json(root / paths.COHORT_SUMMARY).get("by_source", {})
    counts = Counter(
        {
            (name, kind): count
            for name, source in by_source.items()
            for kind, count in source.get("ignored", {}).items()
            if count
        }
    )
    table = tally(counts, sources)
    return {
        "count": counts.total(),
        "table": Tallies(table.columns, table.rows[:KINDS_MAX]),
        "kinds_left_out": max(0, len(table.rows) - KINDS_MAX),
    }


def _sentences(said: object) -> list[str]:
    return [] if not said else [said] if isinstance(said, str) else list(map(str, said))


def _sources(study: Params, scans: Sequence[ScanRow]) -> list[str]:
    """The sources in the order of the parameters; one that scans.csv alone names would be stale and is not hidden."""
    return [*study.cohort.sources, *sorted({row.source for row in scans}.difference(study.cohort.sources))]


def _source(name: str, study: Params, scans: Sequence[ScanRow], thumbnails: Thumbnails) -> dict[str, Any]:
    source = study.cohort.sources.get(name)
    return {
        "name": name,
        "layout": source.layout if source else "–",
        "use": source.use if source else [],
        **_figures(scans, thumbnails),
    }


def _figures(scans: Sequence[ScanRow], thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "scans": len(scans),
        "usable": sum(row.scan in thumbnails.rows for row in scans),
        "patients": {split: len({row.patient for row in scans if row.split == split}) for split in SPLITS},
        "spacing": _ranges([row.spacing_mm for row in scans]),
        "size": _ranges([row.size for row in scans]),
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


def _pairs_of(source: str, scans: Sequence[ScanRow], twins: Sequence[TwinRow]) -> int:
    mine = {row.scan for row in scans if row.source == source}
    return sum(not mine.isdisjoint((pair.scan, pair.twin)) for pair in twins)


def _twins(scans: Sequence[ScanRow], twins: Sequence[TwinRow], thumbnails: Thumbnails) -> dict[str, Any]:
    """Pairs of scans that show one patient, those with the least alike thumbnails first: they are to be looked at."""
    rows = {row.scan: row for row in scans}
    # Equal voxels leave nothing to judge by eye.
    ordered = sorted(twins, key=lambda pair: (pair.by == "voxels", pair.correlation, pair.scan, pair.twin))

    def side(scan: str) -> dict[str, Any]:
        return {
            "scan": scan,
            "row": rows.get(scan),
            "picture": thumbnails.coronal_picture(scan) if scan in thumbnails.rows else None,
        }

    return {
        "pairs": len(twins),
        "scans": len({scan for pair in twins for scan in (pair.scan, pair.twin)}),
        "patients": len({pair.patient for pair in twins}),
        "by_voxels": sum(pair.by == "voxels" for pair in twins),
        "renamed": sum(pair.patients != "" for pair in twins),
        "apart": [pair for pair in twins if not _on_one_side(rows.get(pair.scan), rows.get(pair.twin))],
        "shown": [
            {"pair": pair, "sides": [side(pair.scan), side(pair.twin)]} for pair in ordered[:TWINS_MAX]
        ],
        "left_out": max(0, len(twins) - TWINS_MAX),
    }


def _on_one_side(first: ScanRow | None, second: ScanRow | None) -> bool:
    return first is None or second is None or first.split == second.split


def _roles(rows: Sequence[RoleRow]) -> dict[str, Any]:
    """How many patients of each split have each role, and for which use; and who is tested and has a part in learning."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for column, _, _ in ROLES:
            granted = getattr(row, column)
            uses = granted if isinstance(granted, tuple) else [""] if granted == "yes" else []
            counts.update((column, use, row.split) for use in uses)
    return {
        "rows": [
            {
                "name": name,
                "use": use,
                "meaning": meaning,
                "counts": [counts[column, use, split] for split in SPLITS],
            }
            for column, name, meaning in ROLES
            for use in sorted({use for found, use, _ in counts if found == column}) or [""]
        ],
        "splits": [sum(row.split == split for row in rows) for split in SPLITS],
        "tested": sum(row.test != () for row in rows),
        "learnt_and_tested": sorted(
            row.patient
            for row in rows
            if row.test
            and (row.pretrain == "yes" or row.neighbours == "yes" or row.fine_tune or row.early_stopping)
        ),
    }


def _gallery(scans: Sequence[ScanRow], twins: Sequence[TwinRow], thumbnails: Thumbnails) -> dict[str, Any]:
    """The usable scans, source after source and patient after patient; of very many an even sample."""
    usable = sorted(
        (row for row in scans if row.scan in thumbnails.rows),
        key=lambda row: (row.source, row.patient, row.path, row.scan),
    )
    doubled = {scan for pair in twins for scan in (pair.scan, pair.twin)}
    return {
        "usable": len(usable),
        "shown": [
            {"row": row, "pictures": thumbnails.pictures(row.scan), "twin": row.scan in doubled}
            for row in (usable[place] for place in evenly(len(usable), GALLERY_MAX))
        ],
    }
