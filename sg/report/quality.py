"""How well discovery worked: the part of the page that stage `quality` measures for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg import paths
from sg.report import figures
from sg.report.figures import Dot
from sg.report.tables import number, read_json, read_table

FRAMES = {"voxel": "voxel grid", "body": "body's box", "lungs": "lungs' box"}
NEAREST, RANDOM, GEOMETRY, ORACLE = "nearest", "random", "geometry", "oracle-point"


@dataclass(frozen=True)
class Meaning:
    """What a control is: its name in the figure, and in words."""

    name: str
    words: str


# In the order of the table and the figure: the two ends outside, what is judged between them.
CONTROLS = {
    RANDOM: Meaning("random patients", "patients drawn at random: what no knowledge of them gives"),
    GEOMETRY: Meaning(
        "geometry alone",
        "nearest by the body's box, field of view, range and voxel size, without a look at the anatomy",
    ),
    "thumbnails": Meaning("raw thumbnails", "nearest by the small whole scans themselves, voxel by voxel"),
    "pca": Meaning("PCA of thumbnails", "nearest by the main components of the small whole scans"),
    "untrained": Meaning(
        "untrained encoder", "nearest by the auto-encoder's vectors before it learned anything"
    ),
    NEAREST: Meaning("nearest patients", "nearest by the auto-encoder's vectors: what this study does"),
    "affine": Meaning(
        "affine registration",
        "the reference's place carried over by registering the patients, instead of by a coordinate",
    ),
    "oracle-body": Meaning("oracle, whole body", "patients whose whole body is known to be most alike"),
    ORACLE: Meaning(
        "oracle, that place",
        "patients in whom the coordinate is known to hit best: no choice of patients can do better",
    ),
}
METRICS = (
    "crops_mm",
    "random_mm",
    "oracle_mm",
    "spread_mm",
    "spread_voxels",
    "purity",
    "nearest_pattern_mm",
    "correlation_within",
    "correlation_across",
    "classifier_accuracy",
    "classifier_untrained",
    "classifier_chance",
)
FIGURES = ("error_mm", "share", "against_nearest_mm")


@dataclass(frozen=True)
class Figure:
    """A number with its interval; NaN where unknown."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return not math.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def against(self, other: float) -> str:
        """`above` or `below` where the interval lies all on one side of a number, else `not shown`."""
        if self.bounded and self.low > other:
            return "above"
        return "below" if self.bounded and self.high < other else "not shown"


@dataclass(frozen=True)
class Control:
    """A row of controls.csv."""

    frame: str
    control: str
    k: int
    patients: int
    patterns: int
    error: Figure
    share: Figure
    against_nearest: Figure
    spread_mm: float
    purity: float

    @property
    def meaning(self) -> Meaning:
        """What it is; a control that this page does not know is called by its name."""
        return CONTROLS.get(self.control, Meaning(self.control, ""))


def quality(root: Path, frame: str) -> dict[str, Any]:
    """All that `quality` found, for the page of a study whose patterns lie in this frame."""
    metrics = read_json(root / paths.QUALITY / "metrics.json")
    rows = read_controls(root / paths.QUALITY / "controls.csv")
    own = {row.control: row for row in rows if row.frame in (frame, "none")}
    patterns = read_patterns(root / paths.QUALITY / "patterns.csv")
    known = [row for row in patterns if not math.isnan(row["crops_mm"] + row["random_mm"])]
    return {
        "metrics": {name: number(metrics.get(name)) for name in METRICS},
        "classifier_interval": metrics.get("classifier_accuracy_interval"),
        "choice": choice(own),
        "geometry": geometry(own),
        "own": [own[name] for name in (*CONTROLS, *sorted(set(own) - set(CONTROLS))) if name in own],
        "nearest": own.get(NEAREST),
        "frames": frames(rows),
        "chart": chart(rows, frame),
        "series": [
            (series, figures.MARK_SIGNS[series - 1], name)
            for series, (known_frame, name) in enumerate(FRAMES.items(), 1)
            if any(row.frame == known_frame for row in rows)
        ],
        "patterns": {row["pattern"]: row for row in patterns},
        "against_chance": against_chance(known),
        "nearer": sum(row["crops_mm"] < row["random_mm"] for row in known),
        "known": len(known),
    }


def read_controls(path: Path) -> list[Control]:
    """The rows of controls.csv, in order."""
    columns = ["frame", "control", "k", "patients", "patterns", "spread_mm", "purity", *FIGURES]
    columns += [f"{name.removesuffix('_mm')}_{end}" for name in FIGURES for end in ("low", "high")]
    return [
        Control(
            row["frame"],
            row["control"],
            *(int(row[name]) for name in ("k", "patients", "patterns")),
            *(
                Figure(
                    number(row[name]),
                    *(number(row[f"{name.removesuffix('_mm')}_{end}"]) for end in ("low", "high")),
                )
                for name in FIGURES
            ),
            number(row["spread_mm"]),
            number(row["purity"]),
        )
        for row in read_table(path, columns)
    ]


def read_patterns(path: Path) -> list[dict[str, Any]]:
    """The figures of every pattern, by its number; NaN where unknown."""
    names = ("crops_mm", "random_mm", "spread_mm", "nearest_pattern_mm")
    rows = [
        {"pattern": int(row["pattern"])} | {name: number(row[name]) for name in names}
        for row in read_table(path, ["pattern", *names])
    ]
    return sorted(rows, key=lambda row: row["pattern"])


def choice(own: dict[str, Control]) -> str:
    """What the choice of the nearest patients is worth: `none` was made, or its share of the gain is ..."""
    if NEAREST not in own or not own[NEAREST].error.known:
        return "unknown"
    if own[NEAREST].k >= own[NEAREST].patients:
        return "none"
    return own[NEAREST].share.against(0) if own[NEAREST].share.known else "unknown"


def geometry(own: dict[str, Control]) -> str:
    """Geometry alone against the nearest patients: its error is `above`, `below` or `not shown` to differ."""
    if GEOMETRY not in own or not own[GEOMETRY].against_nearest.bounded or choice(own) in ("none", "unknown"):
        return "unknown"
    return own[GEOMETRY].against_nearest.against(0)


def frames(rows: Sequence[Control]) -> list[dict[str, Any]]:
    """Nearest and random patients and the oracle, frame by frame."""
    found: dict[str, dict[str, Control]] = {}
    for row in rows:
        found.setdefault(row.frame, {})[row.control] = row
    wanted = (NEAREST, RANDOM, ORACLE)
    return [
        {"frame": frame, "name": FRAMES.get(frame, frame), **{name.replace("-", "_"): of[name] for name in wanted}}
        for frame, of in found.items()
        if all(name in of for name in wanted)
    ]  # fmt: skip


def chart(rows: Sequence[Control], frame: str) -> figures.Chart | None:
    """The error of every control, a series for each frame; None where none is known."""
    rows = [row for row in rows if row.error.known]
    if not rows:
        return None
    order = [*CONTROLS, *sorted({row.control for row in rows} - set(CONTROLS))]
    names = [name for name in order if any(row.control == name for row in rows)]
    series = list(FRAMES)
    # Affine registration needs no frame; it stands in the study's own row.
    dots = [
        Dot(
            names.index(row.control),
            row.error.value,
            row.error.low,
            row.error.high,
            series.index(at) if (at := frame if row.frame == "none" else row.frame) in series else 0,
        )
        for row in rows
    ]
    own = {row.control: row.error.value for row in rows if row.frame in (frame, "none")}
    said = ", ".join(f"{CONTROLS[name].name} {own[name]:.3g}" for name in CONTROLS if name in own)
    return figures.dots(
        dots,
        [rows_name.name if (rows_name := CONTROLS.get(name)) else name for name in names],
        "median distance in the atlas, mm",
        f"errors of {len(names)} ways to choose patients, with intervals, relative to the {FRAMES.get(frame, frame)}, "
        f"mm: {said}",
        "controls",
    )


def against_chance(known: Sequence[dict[str, Any]]) -> figures.Chart | None:
    """Each pattern's error in the nearest patients over that in random ones; None where none is known."""
    if not known:
        return None
    nearer = sum(row["crops_mm"] < row["random_mm"] for row in known)
    return figures.against_chance(
        [row["crops_mm"] for row in known],
        [row["random_mm"] for row in known],
        [str(row["pattern"]) if len(known) <= 40 else "" for row in known],
        f"median atlas distance of {len(known)} patterns: {nearer} lie nearer in the nearest patients than in random",
    )
