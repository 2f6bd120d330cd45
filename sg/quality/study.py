"""What the controls of discovery are measured on: every pattern laid in every training scan, in each frame.

On phantoms the position of every organ in an atlas is known. The atlas of a pattern is that of what its reference shows:
the organ at its centre, or the nearest one where there is fat or air. Its map says of every scan, whatever lies at the
pattern's place there, how far from the reference's place in this organ it is. So no crop is left out for having missed
the organ, and whoever picks patients, by whatever rule, has only to put the columns of these arrays in an order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg import console
from sg.crops import PatternRow, SurveyRow, read_crops, read_patterns, read_surveys
from sg.errors import InputError
from sg.frames import Frame
from sg.laying import JitterRange, Places
from sg.params import Jitter
from sg.truth import Truth, read_truth

FRAMES: tuple[Frame, ...] = ("voxel", "body", "lungs")
# Points along each axis of the reference's box that the whole-body deformation is judged by.
POINTS = 5


@dataclass(frozen=True)
class Laid:
    """The patterns (p) laid in all training scans (s) by one frame; what is not known is NaN.

    A pattern has no mm and does not fit in the scans of its reference's patient.
    """

    fits: np.ndarray  # bool (p, s): the scan holds the patch, and a jittered crop of it
    mm: np.ndarray  # (p, s): distance in the atlas from the reference's place; NaN where it does not fit
    atlas: np.ndarray  # (p, s, 3): the place there, by the map of the reference's organ
    own: np.ndarray  # (p, s): 1 where no other pattern's place is nearer, by that one's own map, else 0
    body_mm: (
        np.ndarray
    )  # (p, s): mean distance over the points of the reference's box carried over by the frame


@dataclass(frozen=True)
class Study:
    """Patterns (p), training patients (n) and their scans (s, sorted), with where each pattern lies in each."""

    patterns: list[PatternRow]
    surveys: list[SurveyRow]  # of the training scans, in their order
    scans: np.ndarray  # S12 (s,)
    patients: np.ndarray  # S64 (n,), sorted
    patient: np.ndarray  # int (s,): whose scan it is
    first: np.ndarray  # int (n,): the scan of each patient with the smallest id, its reference scan
    reference: np.ndarray  # int (p,): the scan that the pattern was drawn on
    frame: Frame  # of the crops that were cut
    k: int | None  # patients of a pattern, its reference being one of them; None for all
    patch_size: tuple[int, int, int]
    centre: np.ndarray  # (p, 3): of the patch in its reference, mm
    organ: np.ndarray  # int (p,): the map of what the reference shows, -1 where unknown
    origin: np.ndarray  # (p, 3): the reference's place in the atlas by that map, mm; NaN where unknown
    frames: Mapping[Frame, Laid]
    validation: list[np.ndarray]  # of each pattern: distances of its crops in validation patients
    without_truth: (
        int  # scans of those that patterns are laid in, training and validation, that have no truth
    )

    @property
    def known(self) -> bool:
        """Whether any distance is known."""
        return any(np.isfinite(laid.mm).any() for laid in self.frames.values())


def read_study(discovered: Path, truth: Path, frames: Sequence[Frame] = FRAMES) -> Study:
    """The study of the patterns in the folder `discovered`; `truth` is the folder of <scan>.h5 as `sg.truth` reads them.

    Every truth is read once, and once more for the references. InputError if tables are missing or of two runs.
    """
    settings = _settings(discovered / "metrics.json")
    patterns = read_patterns(discovered / "patterns.csv")
    rows = read_surveys(discovered / "surveys.csv")
    surveys = [row for row in rows if row.split == "train"]
    scans = np.array([row.scan for row in surveys], "S12")
    patients, first, patient = np.unique(
        np.array([row.patient for row in surveys], "S64"), return_index=True, return_inverse=True
    )
    column = {row.scan: i for i, row in enumerate(surveys)}
    if any(row.scan not in column for row in patterns):
        raise InputError(
            f"{discovered / 'surveys.csv'}: lacks references of patterns.csv; run `dvc repro coordinates` to make both again"
        )
    reference = np.array([column[row.scan] for row in patterns])
    laying = _Laying(patterns, surveys, settings, frames)
    anchors = _anchors(laying, truth)
    validation = _validation_crops(discovered / "crops.csv", len(patterns))
    there = {row.scan: truth / f"{row.scan}.h5" for row in rows if (truth / f"{row.scan}.h5").is_file()}
    atlas, own = (np.full((len(frames), len(patterns), len(surveys), *end), np.nan) for end in ((3,), ()))
    body_mm = np.full(own.shape, np.nan)
    validation_mm: list[list[float]] = [[] for _ in patterns]
    shape = (len(frames), len(patterns))
    every = np.tile(np.arange(len(patterns)), len(frames))
    for scan, path in console.track(there.items(), "reading truths", len(there), "scans"):
        if scan not in column and scan not in validation:
            continue
        known = read_truth(path)
        if scan in column:
            at = column[scan]
            places, whose = located(
                known, anchors.organ, anchors.origin, every, laying.centres[:, :, at].reshape(-1, 3)
            )
            atlas[:, :, at], own[:, :, at] = places.reshape((*shape, 3)), whose.reshape(shape)
            body_mm[:, :, at] = anchors.carried(known, laying, at)
        for pattern, centre in validation.get(scan, ()):
            place = known.atlas_by(anchors.organ[[pattern]], centre[None])[0]
            validation_mm[pattern].append(float(np.linalg.norm(place - anchors.origin[pattern])))
    mm = np.linalg.norm(atlas - anchors.origin[:, None], axis=-1)
    others = patient[reference][:, None] != patient
    fits = laying.fits & others
    return Study(
        patterns,
        surveys,
        scans,
        patients,
        patient,
        first,
        reference,
        settings["frame"],
        None if settings["k"] == "all" else int(settings["k"]),
        tuple(settings["patch_size"]),
        np.array([laying.centre(pattern) for pattern in range(len(patterns))]),
        anchors.organ,
        anchors.origin,
        {
            frame: Laid(fits[f], np.where(fits[f], mm[f], np.nan), atlas[f], own[f], body_mm[f])
            for f, frame in enumerate(frames)
        },
        [np.array(values) for values in validation_mm],
        len(rows) - len(there),
    )


def _settings(path: Path) -> dict:
    """Frame, k, patch size and jitter, as the stage `coordinates` had them."""
    try:
        return {
            key: value
            for key, value in json.loads(path.read_text(encoding="utf-8")).items()
            if key in ("frame", "k", "patch_size", "jitter")
        }
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); run `dvc repro coordinates` to make it"
        ) from None


def _validation_crops(path: Path, patterns: int) -> dict[str, list[tuple[int, np.ndarray]]]:
    """By scan: the pattern and centre in mm (3) of each fixed crop in validation patients."""
    crops = read_crops(path)
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    for crop in crops[(crops["resolution"] == 0) & (crops["split"] == b"validation")]:
        if crop["pattern"] >= patterns:
            raise InputError(f"{path}: has patterns that patterns.csv lacks; run `dvc repro coordinates`")
        found.setdefault(crop["scan"].decode(), []).append((int(crop["pattern"]), crop["centre_mm"]))
    return found


class _Laying:
    """The patterns (p) laid in training scans (s) by frames (f): `centres` (f, p, s, 3) in mm, `fits` bool (f, p, s)."""

    def __init__(
        self,
        patterns: Sequence[PatternRow],
        surveys: Sequence[SurveyRow],
        settings: dict,
        frames: Sequence[Frame],
    ) -> None:
        self.patterns = patterns
        size = tuple(settings["patch_size"])
        of_scan = {row.scan: row.survey for row in surveys}
        self.places = [Places(of_scan, size, frame) for frame in frames]
        asked = Jitter.model_validate_json(json.dumps(settings["jitter"]))
        jitter = JitterRange.of(asked, size) if asked.crops else None
        self.centres = np.empty((len(frames), len(patterns), len(surveys), 3))
        self.fits = np.empty(self.centres.shape[:3], bool)
        rows, extent = np.arange(len(surveys)), np.broadcast_to(np.array(size), (len(surveys), 3))
        for f, places in enumerate(self.places):
            for p, row in enumerate(patterns):
                corner = (row.corner_z, row.corner_y, row.corner_x)
                corners = places.corners(places.coordinate(row.scan, corner))
                self.centres[f, p] = places.centres_mm(rows, corners, extent)
                self.fits[f, p] = places.holds(corners, jitter)

    def centre(self, pattern: int) -> np.ndarray:
        """Where the centre of a pattern's patch lies in its reference, mm (3): the same by every frame."""
        return self.centres[0, pattern, self.places[0].row[self.patterns[pattern].scan]]

    def edges(self, frame: int, fractions: np.ndarray, pattern: int) -> np.ndarray:
        """Points of the box of a pattern's reference, given as fractions (n, 3), in voxel edges (n, 3) there."""
        places = self.places[frame]
        row = places.row[self.patterns[pattern].scan]
        return places.start[row] + fractions * places.extent[row]

    def mm(self, frame: int, fractions: np.ndarray, pattern: int, row: int) -> np.ndarray:
        """Those points carried into the scan of that row by the frame, mm (n, 3)."""
        places = self.places[frame]
        if places.frame == "voxel":
            edges = self.edges(frame, fractions, pattern)
        else:
            edges = places.start[row] + fractions * places.extent[row]
        return (edges - 0.5)[:, ::-1] * places.spacing_mm[row] + places.origin_mm[row]


@dataclass(frozen=True)
class _Anchors:
    """What is known of the references (p): organs, their places in the atlas, and points of the body."""

    organ: np.ndarray  # int (p,): number of a map, -1 for none
    origin: np.ndarray  # (p, 3)
    points: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]
    # of each frame and pattern: fractions (n, 3), maps (n,) and atlas places (n, 3) of the points inside the body

    def carried(self, known: Truth, laying: _Laying, row: int) -> np.ndarray:
        """Mean atlas distance (f, p) of the points of the body carried into the scan of that row; NaN off its maps."""
        parts = [
            (maps, laying.mm(f, fractions, p, row), places)
            for f, by_pattern in enumerate(self.points)
            for p, (fractions, maps, places) in enumerate(by_pattern)
        ]
        maps, points, places = (np.concatenate(part) for part in zip(*parts, strict=True))
        apart = np.linalg.norm(known.atlas_by(maps, points) - places, axis=1)
        whose = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        finite = np.isfinite(apart)
        total = np.bincount(whose[finite], apart[finite], len(parts))
        count = np.bincount(whose[finite], minlength=len(parts))
        mean = np.divide(total, count, out=np.full(len(parts), np.nan), where=count > 0)
        return mean.reshape(len(self.points), -1)


def located(
    known: Truth, organ: np.ndarray, origin: np.ndarray, pattern: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where crops of patterns (m,) with centres (m, 3) in mm of one scan lie in the atlas, (m, 3), and whose they are.

    `organ` and `origin` are those of all patterns (p): the place is by the pattern's own organ. The second, (m,), is 1
    where no other pattern's place is nearer, each by its own organ, and else 0. NaN where unknown.
    """
    atlas, to_all = np.full((len(pattern), 3), np.nan), np.full((len(pattern), len(organ)), np.nan)
    for number in np.unique(organ[organ >= 0]):
        by_map = known.atlas_by(np.full(len(pattern), number), centres)
        mine = organ[pattern] == number
        atlas[mine] = by_map[mine]
        here = np.flatnonzero(organ == number)
        to_all[:, here] = np.linalg.norm(by_map[:, None] - origin[here], axis=-1)
    to_own = to_all[np.arange(len(pattern)), pattern]
    least = np.where(np.isnan(to_all), np.inf, to_all).min(axis=1)
    return atlas, np.where(np.isnan(to_own), np.nan, to_own <= least)


def _anchors(laying: _Laying, truth: Path) -> _Anchors:
    patterns, frames = len(laying.patterns), len(laying.places)
    organ, origin = np.full(patterns, -1), np.full((patterns, 3), np.nan)
    steps = (np.arange(POINTS) + 0.5) / POINTS
    fractions = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    none = (np.empty((0, 3)), np.empty(0, int), np.empty((0, 3)))
    points = [[none] * patterns for _ in range(frames)]
    for p, row in enumerate(laying.patterns):
        path = truth / f"{row.scan}.h5"
        if not path.is_file():
            continue
        known = read_truth(path)
        centre = laying.centre(p)
        organ[p] = known.nearest_map(centre)
        origin[p] = known.atlas_by(organ[[p]], centre[None])[0]
        for f, places in enumerate(laying.places):
            at = laying.mm(f, fractions, p, places.row[row.scan])
            labels = known.labels_at(at)
            maps = np.where(labels < 0, -1, known.map_of_label[labels])
            places_there = known.atlas_by(maps, at)
            inside = np.isfinite(places_there).all(axis=1)
            points[f][p] = (fractions[inside], maps[inside], places_there[inside])
    return _Anchors(organ, origin, points)
