from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from sg import coordinates
from sg.coordinates import demands, discover, survey, write_discovery
from sg.crops import CROP, SurveyRow, read_crops, read_patterns, read_surveys
from sg.errors import InputError
from sg.frames import Box, find_boxes
from sg.laying import JitterRange, Places, Survey
from sg.neighbors import rank
from sg.params import Jitter
from sg.processes import Lost
from tests.hand_made import SPACING_MM, embeddings, in_a_row, name, noise, settings, write_scan

JITTER = Jitter(side=(50, 79), shift=(-10, 9), crops=2)


# Corners of a patch of 2 x 4 x 4 in the eight training scans below.
POSITIONS = sum((5 + i % 2) * (9 + i % 3) * 11 for i in range(8))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Eight training and three validation scans of noise, all somewhat larger than 6 x 12 x 14."""
    folder = tmp_path / "resampled"
    folder.mkdir()
    for i in range(11):
        write_scan(folder, i, noise(i, (6 + i % 2, 12 + i % 3, 14)), origin_mm=(10.0 * i, -5.0, 2.5))
    return folder


def opens(monkeypatch) -> Counter:
    """Counts how often each resampled scan is opened."""
    counter = Counter()
    read = coordinates.read_resampled

    def counted(path):
        counter[path.stem] += 1
        return read(path)

    monkeypatch.setattr(coordinates, "read_resampled", counted)
    return counter


# ------------------------------------------------------------------------------------------------ whole


def test_every_pattern_has_its_own_reference_and_its_nearest_patients_in_order(scans):
    ranking = in_a_row(8, 3)
    found = discover(ranking, scans, settings(patterns=5, k=4, k_validation=2), 1, 1)
    assert [row.pattern for row in found.patterns] == list(range(5))
    assert len({row.scan for row in found.patterns}) == 5
    for pattern, crops in zip(found.patterns, found.crops, strict=True):
        i = ranking.reference.tolist().index(pattern.scan.encode())
        # Fits anywhere in these scans or not: the fixed crop of the reference is the corner itself, rank 0.
        assert tuple(crops[0]["corner"]) == (pattern.corner_z, pattern.corner_y, pattern.corner_x)
        assert (crops[0]["rank"], crops[0]["resolution"], crops[0]["scan"]) == (0, 0, pattern.scan.encode())
        for split, ranked, first, resolutions in (
            (b"train", ranking.train[i], 0, [0, 1]),
            (b"validation", ranking.validation[i], 1, [0]),
        ):
            mine = crops[crops["split"] == split]
            assert mine["scan"].tolist() == [ranking.scan[ranked[rank - first]] for rank in mine["rank"]]
            assert len(set(mine["rank"].tolist())) == {b"train": 4, b"validation": 2}[split]
            assert mine["resolution"].tolist() == resolutions * len(set(mine["rank"].tolist()))
            assert (np.diff(mine["rank"]) >= 0).all()
        assert crops["patient"].tolist() == [f"patient-{int(scan, 16)}".encode() for scan in crops["scan"]]
        assert pattern.tissue == pytest.approx(_tissue(scans, pattern))


def _tissue(folder: Path, pattern) -> float:
    tissue = coordinates.read_resampled(folder / f"{pattern.scan}.h5").image >= -150
    score = tissue.astype(float)
    score[:-1] += 0.5 * (tissue[1:] & ~tissue[:-1])
    z, y, x = pattern.corner_z, pattern.corner_y, pattern.corner_x
    return score[z : z + 2, y : y + 4, x : x + 4].mean()


def test_every_scan_is_opened_once_whatever_the_number_of_patterns_and_neighbours(scans, monkeypatch):
    for changes in (
        {},
        {"patterns": 8, "k": 8, "k_validation": 3},
        {"frame": "lungs", "patterns": 6, "k": "all"},
    ):
        counter = opens(monkeypatch)
        discover(in_a_row(8, 3), scans, settings(**changes), 1, 1)
        assert counter == {name(i): 1 for i in range(11)}


def test_more_patterns_keep_the_earlier_ones(scans):
    few = discover(in_a_row(8, 3), scans, settings(patterns=3), 1, 1)
    many = discover(in_a_row(8, 3), scans, settings(patterns=7), 1, 1)
    assert many.patterns[:3] == few.patterns
    for a, b in zip(few.crops, many.crops, strict=False):
        np.testing.assert_array_equal(a, b)


def test_the_same_bytes_in_whatever_order_processes_survey_and_others_for_another_seed(
    scans, tmp_path, monkeypatch
):
    workers_used = set()

    def out_of_order(function, jobs, workers):
        workers_used.add(workers)
        jobs = list(jobs) if workers == 1 else list(jobs)[::-1]
        return ((job, pickle.loads(pickle.dumps(function(job)))) for job in jobs)

    monkeypatch.setattr(coordinates, "spread", out_of_order)
    monkeypatch.setattr(coordinates, "SCANS_A_PROCESS", 2)
    for folder, seed, workers in (("one", 1, 1), ("two", 1, 2), ("other", 2, 1)):
        (tmp_path / folder).mkdir()
        write_discovery(tmp_path / folder, discover(in_a_row(8, 3), scans, settings(), seed, workers))
    assert workers_used == {1, 2}
    for file in ("patterns.csv", "crops.csv", "surveys.csv", "metrics.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert (tmp_path / "one" / "crops.csv").read_bytes() != (tmp_path / "other" / "crops.csv").read_bytes()


def test_every_scan_that_the_ranking_names_is_logged_in_its_role_and_no_other_is_opened(scans, monkeypatch):
    said = set()
    monkeypatch.setattr(coordinates.logs, "opened", lambda *line: said.add(line))
    opened = opens(monkeypatch)
    found = embeddings(np.arange(11)[:, None], ["train"] * 7 + ["test"] + ["validation"] * 3)
    discover(rank(found, "Flat", "all")[0], scans, settings(), 1, 1)
    roles = ["neighbours"] * 7 + [None] + ["early_stopping"] * 3
    assert said == {(name(i), role, "pretrain") for i, role in enumerate(roles) if role}
    assert set(opened) == {scan for scan, *_ in said}


def test_a_scan_that_exhausts_the_memory_is_named(scans, monkeypatch):
    monkeypatch.setattr(
        coordinates, "spread", lambda function, jobs, workers: ((job, Lost()) for job in jobs)
    )
    with pytest.raises(InputError, match=rf"{name(0)}\.h5: the memory did not suffice .*SG_WORKERS=1"):
        discover(in_a_row(8, 3), scans, settings(), 1, 1)


def test_the_tables_read_back_as_they_were_written(scans, tmp_path):
    found = discover(in_a_row(8, 3), scans, settings(), 1, 1)
    write_discovery(tmp_path, found)
    assert read_patterns(tmp_path / "patterns.csv") == found.patterns
    crops = read_crops(tmp_path / "crops.csv")
    assert crops.dtype == CROP
    np.testing.assert_array_equal(crops, np.concatenate(found.crops))
    assert read_surveys(tmp_path / "surveys.csv") == found.surveys
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["patch_size"], metrics["patterns"], metrics["crops"]) == ([2, 4, 4], 3, 3 * (3 * 2 + 1))


def test_a_crops_centre_in_mm_follows_from_corner_extent_and_geometry(scans):
    found = discover(in_a_row(8, 3), scans, settings(), 1, 1)
    for crops in found.crops:
        for crop in crops:
            number = int(crop["scan"], 16)
            middle = [c + (e - 1) / 2 for c, e in zip(crop["corner"], crop["extent"], strict=True)]
            expected = (10 * number + 2 * middle[2], -5 + 3 * middle[1], 2.5 + 4 * middle[0])
            assert crop["centre_mm"] == pytest.approx(expected)


def test_surveys_lay_a_pattern_again_where_it_was_laid(scans):
    """By the table alone, in another order and without any volume."""
    for frame in ("voxel", "body"):
        found = discover(in_a_row(8, 3), scans, settings(frame=frame), 1, 1)
        assert [row.scan for row in found.surveys] == [name(i) for i in range(11)]
        assert [row.split for row in found.surveys] == ["train"] * 8 + ["validation"] * 3
        at = Places({row.scan: row.survey for row in reversed(found.surveys)}, (2, 4, 4), frame)
        for pattern, crops in zip(found.patterns, found.crops, strict=True):
            corner = (pattern.corner_z, pattern.corner_y, pattern.corner_x)
            corners = at.corners(at.coordinate(pattern.scan, corner))
            fixed = crops[crops["resolution"] == 0]
            rows = [at.row[scan.decode()] for scan in fixed["scan"]]
            np.testing.assert_array_equal(corners[rows], fixed["corner"])
            np.testing.assert_array_equal(
                at.centres_mm(np.array(rows), corners[rows], fixed["extent"]), fixed["centre_mm"]
            )
            assert at.holds(corners, JitterRange.of(settings().jitter, (2, 4, 4)))[rows].all()


def test_a_survey_s_row_is_that_of_its_scan(tmp_path):
    image = np.full((40, 90, 100), -1000, np.int16)
    image[2:, 10:70, 8:92] = 40
    image[6:34, 20:60, 54:84] = -850
    write_scan(tmp_path, 1, image, origin_mm=(1.5, -2.25, 3.0))
    row = SurveyRow.of(survey(tmp_path, name(1), "neighbours", None), "somebody", "train")
    assert (row.scan, row.patient, row.split) == (name(1), "somebody", "train")
    assert (row.shape_z, row.shape_y, row.shape_x) == (40, 90, 100)
    assert (row.spacing_x_mm, row.spacing_y_mm, row.spacing_z_mm) == SPACING_MM
    assert (row.origin_x_mm, row.origin_y_mm, row.origin_z_mm) == (1.5, -2.25, 3.0)
    assert (row.body_start_z, row.body_start_y, row.body_start_x) == (2, 10, 8)
    assert (row.body_stop_z, row.body_stop_y, row.body_stop_x) == (40, 70, 92)
    assert (row.lungs_start_z, row.lungs_start_y, row.lungs_start_x) == (6, 20, 54)
    assert (row.lungs_stop_z, row.lungs_stop_y, row.lungs_stop_x) == (34, 60, 84)
    assert (row.body_found, row.lungs_found) == ("body", "lungs")
    assert row.survey.boxes == find_boxes(image, SPACING_MM)


def test_crops_lie_inside_their_scans_and_have_the_right_extent(scans):
    found = discover(in_a_row(8, 3), scans, settings(patterns=8, k="all", k_validation="all"), 3, 1)
    crops = np.concatenate(found.crops)
    shapes = np.array([(6 + i % 2, 12 + i % 3, 14) for i in (int(scan, 16) for scan in crops["scan"])])
    assert (crops["corner"] >= 0).all()
    assert (crops["corner"] + crops["extent"] <= shapes).all()
    fixed = crops[crops["resolution"] == 0]
    assert (fixed["extent"] == (2, 4, 4)).all()
    jittered = crops[crops["resolution"] > 0]
    # 50..79 of 64, for a patch 4 wide: 3.1 to 4.9
    assert (jittered["extent"][:, 0] == 2).all()
    assert set(jittered["extent"][:, 1:].ravel().tolist()) <= {3, 4, 5}
    assert (jittered["extent"][:, 1] == jittered["extent"][:, 2]).all()


# ------------------------------------------------------------------------- references and what refuses them


def test_patterns_keep_the_least_distance_in_the_reference(scans):
    found = discover(in_a_row(8, 3), scans, settings(patterns=5, min_distance=3.0), 1, 1)
    corners = np.array([(row.corner_z, row.corner_y, row.corner_x) for row in found.patterns])
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=2)[np.triu_indices(5, 1)]
    assert apart.min() >= 3
    assert found.metrics["positions"]["min_distance"] > 0


def test_a_reference_without_an_admissible_position_is_passed_over_and_counted(scans, monkeypatch):
    before = discover(in_a_row(8, 3), scans, settings(patterns=2), 1, 1)
    spoilt = before.patterns[0].scan
    write_scan(scans, int(spoilt, 16), np.full((6, 13, 14), 1000, np.int16))
    counter = opens(monkeypatch)
    found = discover(in_a_row(8, 3), scans, settings(patterns=2, rule=_rule(high=0.9)), 1, 1)
    assert spoilt not in {row.scan for row in found.patterns}
    assert found.metrics["references_refused"] == 1
    assert found.metrics["refused"] == {"border": 0, "tissue": 1, "patients": 0, "min_distance": 0}
    assert any("1 of 3 references were refused" in warning for warning in found.metrics["warnings"])
    # Only the reference that steps in for it is opened a second time.
    assert sorted(counter.values()) == [1] * 10 + [2]


def _rule(border=(0, 0, 0), low=0.0, high=1.0) -> dict:
    return {"border": border, "tissue_hu": -150.0, "tissue_min": low, "tissue_max": high}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": _rule(border=(3, 0, 0))}, "0 of 8 have one: 8 had no position inside coordinates.rule.border"),
        ({"rule": _rule(high=0.01)}, "8 had none there between coordinates.rule.tissue_min and tissue_max"),
        ({"rule": _rule(low=0.99)}, f"8 had none there .* Of {POSITIONS} .*: border 0, tissue_min {POSITIONS},"),
        ({"min_distance": 100.0}, "1 of 8 have one: .* 7 had none coordinates.min_distance away from the ea"),
    ],
)  # fmt: skip
def test_when_no_reference_is_left_the_error_counts_what_each_rule_refused(scans, changes, message):
    with pytest.raises(InputError, match=f"coordinates.patterns: 3 patterns need .*{message}"):
        discover(in_a_row(8, 3), scans, settings(**changes), 1, 1)


def test_a_corner_is_uniform_among_the_admissible_ones_of_its_reference(tmp_path, monkeypatch):
    for i in range(3):
        write_scan(tmp_path, i, noise(i, (3, 5, 6)))
    volumes = {name(i): coordinates.read_resampled(tmp_path / f"{name(i)}.h5") for i in range(3)}
    monkeypatch.setattr(coordinates, "read_resampled", lambda path: volumes[path.stem])
    ranking = in_a_row(2, 1)
    drawn = Counter()
    for seed in range(600):
        for row in discover(ranking, tmp_path, settings(patterns=2, k=2, jitter=_none()), seed, 1).patterns:
            if row.scan == name(0):
                drawn[row.corner_z, row.corner_y, row.corner_x] += 1
    assert sum(drawn.values()) == 600
    assert len(drawn) == 2 * 2 * 3
    assert chisquare(list(drawn.values())).pvalue > 0.001


def _none() -> dict:
    return {"side": (50, 79), "shift": (-10, 9), "crops": 0}


# --------------------------------------------------------------------------- patients that cannot hold it


@pytest.fixture
def short_neighbours(tmp_path: Path) -> Path:
    """Scan 0 is long along z; scans 1 and 2, nearest to it, are not; the others are."""
    for i in range(8):
        write_scan(tmp_path, i, noise(i, (4 if i in (1, 2) else 30, 10, 10)))
    return tmp_path


def test_a_patient_that_cannot_hold_a_pattern_is_replaced_by_the_next_nearest(short_neighbours):
    # A border that leaves only corners beyond slice 4.
    found = discover(in_a_row(6, 2), short_neighbours, settings(patterns=4, k=3, rule=_rule((8, 0, 0))), 1, 1)
    of_0 = next(crops for row, crops in zip(found.patterns, found.crops, strict=True) if row.scan == name(0))
    fixed = of_0[(of_0["resolution"] == 0) & (of_0["split"] == b"train")]
    assert fixed["scan"].tolist() == [name(0).encode(), name(3).encode(), name(4).encode()]
    assert fixed["rank"].tolist() == [0, 3, 4]
    assert found.metrics["stepped_in"] >= 2
    assert found.metrics["refused"]["border"] <= 2  # the two short ones, if their turn came


def test_a_ranking_that_is_not_deep_enough_for_that_names_its_depth(short_neighbours):
    with pytest.raises(
        InputError, match=r"neighbors\.depth: a pattern of reference .* fits into only [12] of the 3"
    ):
        discover(
            in_a_row(6, 2, depth=3), short_neighbours, settings(patterns=4, k=3, rule=_rule((8, 0, 0))), 1, 1
        )


def test_all_takes_every_patient_that_can_hold_it(short_neighbours):
    found = discover(
        in_a_row(6, 2),
        short_neighbours,
        settings(patterns=4, k="all", k_validation="all", rule=_rule((8, 0, 0))),
        1,
        1,
    )
    for crops in found.crops:
        fixed = crops[crops["resolution"] == 0]
        assert sorted(fixed["scan"].tolist()) == [name(i).encode() for i in (0, 3, 4, 5, 6, 7)]
    assert (found.metrics["k"], found.metrics["stepped_in"], found.metrics["passed_over"]) == ("all", 0, 8)


def test_a_reference_without_a_position_that_enough_patients_can_hold_is_refused(short_neighbours):
    with pytest.raises(
        InputError, match=r"2 had no position .* 4 had none that coordinates.k and k_validation"
    ):
        discover(in_a_row(6, 2), short_neighbours, settings(patterns=4, k=6, rule=_rule((8, 0, 0))), 1, 1)


@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.integers(0, 5)] * 3),
            st.tuples(*[st.integers(1, 14)] * 3),
            st.tuples(*[st.integers(2, 14)] * 3),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["voxel", "body"]),
    st.sampled_from([None, (3, 6, -3, 2), (8, 9, 0, 0), (2, 3, 1, 3), (1, 9, -4, -2)]),
    st.tuples(*[st.integers(0, 3)] * 3),
)
def test_how_many_patients_can_hold_each_corner_is_what_trying_each_gives(boxes, frame, jitter, first):
    size, shape = (2, 3, 4), (5, 4, 6)
    surveys = {
        name(i): Survey(
            name(i),
            scan,
            {frame: (Box(start, tuple(a + b for a, b in zip(start, extent, strict=True))), "")},
            SPACING_MM,
            (0, 0, 0),
        )
        for i, (start, extent, scan) in enumerate(boxes)
    }
    at = Places(surveys, size, frame)
    ranges = jitter and JitterRange(
        np.array([[side, side + 1] for side in range(jitter[0], jitter[1] + 1)]), jitter[2:], jitter[2:]
    )
    counted = at.holders(name(0), np.arange(len(boxes)), first, shape, ranges)
    for index in np.ndindex(shape):
        corner = tuple(f + i for f, i in zip(first, index, strict=True))
        corners = at.corners(at.coordinate(name(0), corner))
        holds = at.inside(corners)
        if ranges:
            holds = [
                ok and ranges.fits(tuple(c), tuple(s))
                for ok, c, s in zip(holds, corners, at.shape, strict=True)
            ]
        assert counted[index] == sum(holds)
        np.testing.assert_array_equal(at.holds(corners, ranges), holds)


@pytest.mark.parametrize(
    ("ranking", "changes", "message"),
    [
        ((8, 3), {"k": 9}, r"coordinates\.k: there are only 8 training patients, got 9; .*`k: all`"),
        (
            (8, 3),
            {"k_validation": 4},
            r"coordinates\.k_validation: there are only 3 .* got 4.*`k_validation: all`",
        ),
        ((8, 0), {}, r"coordinates\.k_validation: a pattern needs validation patients, and there are none"),
        ((8, 3), {"patterns": 9}, r"coordinates\.patterns: .* 8 training patients, got 9"),
        ((8, 3, 2), {"k": 3}, r"neighbors\.depth: .* coordinates\.k \(3\) training patients, it holds 2"),
        ((8, 3, 2), {"k": 2, "k_validation": 3}, r"neighbors\.depth: .* coordinates\.k_validation \(3\)"),
        (
            (8, 3, 2),
            {"k": 2, "k_validation": "all"},
            r"neighbors\.depth: .* coordinates\.k_validation \(all\)",
        ),
    ],
)
def test_more_than_there_is_is_refused_before_any_scan_is_opened(tmp_path, ranking, changes, message):
    with pytest.raises(InputError, match=message):
        discover(in_a_row(*ranking), tmp_path / "nowhere", settings(**changes), 1, 1)


def test_all_asks_for_whatever_there_is():
    everyone = settings(k="all", k_validation="all")
    assert demands(in_a_row(8, 3), everyone) == {"train": None, "validation": None}


# ------------------------------------------------------------------------------------------------ frames


def places(boxes: list[Box], frame: str, size=(2, 4, 4), shape=(20, 40, 40)) -> Places:
    surveys = {
        name(i): Survey(name(i), shape, {frame: (box, "")}, SPACING_MM, (0.0, 0.0, 0.0))
        for i, box in enumerate(boxes)
    }
    return Places(surveys, size, frame)


def test_a_fraction_of_one_box_becomes_a_corner_in_another_rounded_half_up():
    at = places([Box((0, 0, 0), (10, 10, 10)), Box((4, 5, 6), (9, 35, 21))], "body")
    coordinate = at.coordinate(name(0), (1, 3, 0))
    # centres 2, 5, 2 of 10
    assert coordinate == pytest.approx((0.2, 0.5, 0.2))
    # 4 + 0.2 * 5 - 1 = 4; 5 + 0.5 * 30 - 2 = 18; 6 + 0.2 * 15 - 2 = 7
    assert at.corners(coordinate).tolist() == [[1, 3, 0], [4, 18, 7]]
    # 0.25 of 10 is 2.5: 4 + 1.25 - 1 = 4.25, 5 + 7.5 - 2 = 10.5 up to 11, 6 + 3.75 - 2 = 7.75
    assert at.corners((0.25, 0.25, 0.25))[1].tolist() == [4, 11, 8]


def test_in_the_voxel_frame_the_corner_is_the_same_everywhere():
    at = places([Box((0, 0, 0), (20, 40, 40))] * 3, "voxel")
    assert at.corners(at.coordinate(name(1), (3, 4, 5))).tolist() == [[3, 4, 5]] * 3


@given(
    st.tuples(*[st.integers(0, 15)] * 3),
    st.tuples(*[st.integers(1, 37)] * 3),
    st.tuples(*[st.integers(0, 30)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
)
def test_a_coordinate_gives_its_own_corner_back_in_the_reference(start, extent, corner, size):
    box = Box(start, tuple(s + e for s, e in zip(start, extent, strict=True)))
    at = places([box, Box((0, 0, 0), (20, 40, 40))], "lungs", size)
    assert tuple(at.corners(at.coordinate(name(0), corner))[0]) == corner


def test_in_the_body_frame_patterns_follow_the_body_through_the_scans(tmp_path):
    for i in range(4):
        image = np.full((20, 60, 60), -1000, np.int16)
        image[:, 4 + 3 * i : 44 + 3 * i, 2 + 4 * i : 42 + 4 * i] = 50  # 0.77 litres, moving
        write_scan(tmp_path, i, image)
    rule = _rule(low=0.5)
    found = discover(in_a_row(3, 1), tmp_path, settings(frame="body", k=3, rule=rule, jitter=_none()), 1, 1)
    for crops in found.crops:
        numbers = np.array([int(scan, 16) for scan in crops["scan"]])
        relative = crops["corner"] - np.stack([0 * numbers, 3 * numbers, 4 * numbers], axis=1)
        assert (relative == relative[0]).all()
    assert found.metrics["boxes"] == {"lungs": 0, "body": 4, "scan": 0}
    assert found.metrics["warnings"] == []


def test_a_frame_that_is_not_found_is_said(scans):
    metrics = discover(in_a_row(8, 3), scans, settings(frame="lungs"), 1, 1).metrics
    assert metrics["boxes"] == {"lungs": 0, "body": 0, "scan": 11}
    (warning,) = metrics["warnings"]
    assert warning.startswith("in 11 of 11 scans no body was found, the whole scan stands in for its box: ")


def test_a_tissue_mask_survives_its_packing(tmp_path):
    image = noise(3, (5, 7, 9))
    write_scan(tmp_path, 1, image)
    np.testing.assert_array_equal(survey(tmp_path, name(1), "neighbours", -150.0).unpacked(), image >= -150)


# ------------------------------------------------------------------------------------------------ jitter


def test_jitter_has_the_published_ranges_at_the_published_size_and_is_scaled_elsewhere():
    paper = JitterRange.of(JITTER, (32, 64, 64))
    assert paper.sides.tolist() == [[side, side] for side in range(50, 80)]
    assert (paper.shift_y, paper.shift_x) == ((-10, 9), (-10, 9))
    half = JitterRange.of(JITTER, (16, 32, 64))
    assert half.sides[0].tolist() == [25, 50]
    assert half.sides[-1].tolist() == [40, 79]  # 39.5 rounded half up
    assert half.shift_y == (-5, 5)  # 4.5 likewise


@given(
    st.tuples(st.just(0), st.integers(0, 90), st.integers(0, 60)),
    st.tuples(st.just(32), st.integers(50, 160), st.integers(50, 120)),
    st.integers(0, 2**32),
)
def test_a_jittered_crop_lies_inside_the_scan_with_side_and_shift_in_range(corner, shape, seed):
    ranges = JitterRange.of(JITTER, (32, 64, 64))
    possible = [
        (side, dy, dx)
        for side in range(50, 80)
        for dy in (-10, 0, 9)
        for dx in (-10, 0, 9)
        if 0 <= corner[1] + dy <= shape[1] - side and 0 <= corner[2] + dx <= shape[2] - side
    ]
    if possible:
        assert ranges.fits(corner, shape)
    if not ranges.fits(corner, shape):
        return
    at, extent = ranges.draw(corner, (32, 64, 64), shape, np.random.default_rng(seed))
    assert at[0] == corner[0]
    assert extent[0] == 32
    assert extent[1] == extent[2]
    assert 50 <= extent[1] <= 79
    assert all(-10 <= a - c <= 9 for a, c in zip(at[1:], corner[1:], strict=True))
    assert all(a >= 0 and a + e <= s for a, e, s in zip(at, extent, shape, strict=True))


def test_jittered_crops_are_distributed_as_by_redrawing_until_one_fits():
    jitter = JitterRange.of(Jitter(side=(3, 6), shift=(-2, 2), crops=1), (1, 64, 64))
    corner, shape = (0, 1, 3), (1, 6, 9)
    fits = [
        (side, y, x)
        for side in range(3, 7)
        for y in range(-1, 4)
        for x in range(1, 6)
        if 0 <= y <= shape[1] - side and x <= shape[2] - side
    ]
    rng = np.random.default_rng(1)
    drawn = Counter()
    for _ in range(6000):
        (_, y, x), (_, side, _) = jitter.draw(corner, (1, 64, 64), shape, rng)
        drawn[side, y, x] += 1
    assert set(drawn) == set(fits)
    assert chisquare([drawn[key] for key in fits]).pvalue > 0.001


def test_where_no_jittered_crop_fits_the_patient_is_passed_over(tmp_path):
    for i in range(5):
        write_scan(tmp_path, i, noise(i, (4, 4 if i == 1 else 9, 9)))
    # Sides of 5 to 6 do not fit into 4 voxels, though the patch does.
    wide = {"side": (80, 96), "shift": (-20, 20), "crops": 1}
    found = discover(in_a_row(4, 1), tmp_path, settings(patterns=3, k=3, jitter=wide), 1, 1)
    crops = np.concatenate(found.crops)
    assert name(1).encode() not in set(crops["scan"].tolist())
    assert found.metrics["stepped_in"] > 0


@pytest.mark.parametrize("depth", ["all", 3])
def test_the_reference_always_holds_its_own_pattern(scans, depth):
    """Jitter that must grow and may only shift upwards fits no corner at the far side, though the patch itself does."""
    jitter = {"side": (70, 79), "shift": (0, 9), "crops": 1}
    ranking = in_a_row(8, 3, depth)
    for seed in range(5):
        found = discover(ranking, scans, settings(patch_size=(2, 8, 8), jitter=jitter, k=2), seed, 1)
        for pattern, crops in zip(found.patterns, found.crops, strict=True):
            assert (crops[0]["rank"], crops[0]["scan"]) == (0, pattern.scan.encode())
