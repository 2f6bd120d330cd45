"""`sg neighbors`: the right patients in the right order, and the scan's own left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sg import alike, paths
from sg.cohorts.records import ScanRow, read_rows
from sg.errors import InputError
from sg.inspection import Found
from sg.neighbors import read_embeddings, read_ranking
from sg.outside import Thumbnail
from sg.placing import Placed, place_one, read_embedder
from sg.report.thumbnails import read_thumbnails
from sg.roles import read_roles
from sg.stage import load
from tests.hand_made import embeddings, name, scan_row
from tests.scan_files import ct, write_nifti
from tests.test_cli import sg

SPLITS = ["train", "train", "train", "validation", "test", "train"]


def query(*vector: float, scan: str = "f" * 12) -> Placed:
    """A scan with this vector, of the cohort if its id is one of there."""
    small = Thumbnail(scan, np.zeros((2, 3, 4), np.int16), (20.0, 30.0, 40.0))
    found = Found(Path("mine.nii"), Path("mine.nii"), Path(), "me", None)
    return Placed(found, small, np.array(vector, np.float32), "")


def on_a_line(patients=None):
    """Scan i at i on a line."""
    return embeddings(np.arange(6)[:, None], SPLITS, patients)


def test_training_patients_are_ranked_by_distance_and_all_only_if_asked_for():
    found = alike.nearest(query(3.9), None, on_a_line(), 3, every=False)
    assert [(one.rank, one.scan, one.split) for one in found] == [
        (1, name(5), "train"),
        (2, name(2), "train"),
        (3, name(1), "train"),
    ]
    assert [one.distance for one in found] == pytest.approx([1.1, 1.9, 2.9], rel=1e-6)
    found = alike.nearest(query(3.9), None, on_a_line(), 9, every=True)
    assert [int(one.scan, 16) for one in found] == [4, 3, 5, 2, 1, 0]
    assert found[0].split == "test"


def test_a_patient_counts_once_by_its_nearest_scan_and_ties_go_by_scan_id():
    several = on_a_line(["a", "b", "a", "v", "t", "b"])
    found = alike.nearest(query(1.5), None, several, 8, every=False)
    assert [(one.patient, int(one.scan, 16)) for one in found] == [("b", 1), ("a", 2)]
    found = alike.nearest(query(0.5), None, on_a_line(), 2, every=False)
    assert [int(one.scan, 16) for one in found] == [0, 1]


def test_the_patient_of_a_scan_of_the_cohort_is_left_out_with_all_its_scans():
    several = on_a_line(["a", "b", "a", "v", "t", "c"])
    row = scan_row(0, "train", patient="a")
    mine = query(0.0, scan=name(0))
    assert alike.in_cohort(name(0), [scan_row(1, "train"), row]) is row
    assert alike.in_cohort("f" * 12, [row]) is None
    found = alike.nearest(mine, row, several, 8, every=False)
    assert [one.patient for one in found] == ["b", "c"]
    said = list(alike.lines(mine, row, found, several, every=False))
    assert said[0] == "mine.nii: compared with those that may be neighbours (split train): 3 patients"
    assert said[1] == (
        f"this scan is in the cohort: scan {name(0)} of patient a (train, for pretrain); the patient is left out of the list"
    )
    assert said[2].split() == ["rank", "distance", "split", "scan", "patient"]
    assert said[3].split() == ["1", "1", "train", name(1), "b"]


@given(
    vectors=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=6, max_size=6),
    at=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    k=st.integers(1, 9),
)
def test_no_patient_that_is_left_out_is_nearer_than_one_in_the_list(vectors, at, k):
    table = embeddings(np.array(vectors), SPLITS)
    found = alike.nearest(query(*at), None, table, k, every=False)
    distance = np.linalg.norm(np.array(vectors, float) - at, axis=1)[table.neighbours]
    assert [one.distance for one in found] == pytest.approx(sorted(distance)[:k])


def test_what_cannot_be_listed_or_drawn_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="--k: there must be at least 1 neighbour, got 0"):
        alike.check_request(0, drawn=False)
    alone = embeddings(np.zeros((1, 1)), ["train"])
    with pytest.raises(InputError, match="no other patient to compare with"):
        alike.nearest(query(0.0, scan=name(0)), scan_row(0, "train"), alone, 1, every=False)
    with pytest.raises(InputError, match="at most 30 neighbours, got --k 31"):
        alike.check_request(31, drawn=True)
    alike.check_request(31, drawn=False)
    alike.check_request(30, drawn=True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--k", 0), "--k: there must be at least 1 neighbour, got 0\n"),
        (
            ("--k", 31, "--picture", "p.png"),
            "--picture: can show at most 30 neighbours, got --k 31; give a smaller one\n",
        ),
    ],
)
def test_a_wrong_number_is_said_before_anything_is_read(tmp_path, asked, words):
    # Here is no study, which would be said otherwise.
    done = sg("neighbors", "a.nii", *asked, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)


def test_a_patient_who_may_be_the_scans_own_under_another_name_is_said():
    table = on_a_line()
    for at, named in ((2.0001, True), (2.01, False)):
        mine = query(at)
        found = alike.nearest(mine, None, table, 2, every=False)
        said = "\n".join(alike.lines(mine, None, found, table, every=False))
        assert (f"patient {found[0].patient} may be the one of this scan" in said) == named
        assert f"patient {found[1].patient} may be" not in said


def test_a_picture_holds_middle_slices_in_the_proportions_of_the_body(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(alike, "draw", lambda rows, note, path: sheets.append(rows))
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    found = [alike.Neighbour(1, "p", name(1), "train", 0.25)]
    alike.picture(
        query(0.0), found, SimpleNamespace(volume=lambda scan: (volume, (7.0, 8.0, 9.0))), tmp_path / "p"
    )
    (rows,) = sheets
    mine, other = rows[0].cells
    assert (mine.title, mine.pixel, mine.marked) == ("this scan", (10, 10), True)
    assert (other.title, other.name, other.pixel, other.marked) == ("no. 1: 0.25", "p", (7, 9), False)
    np.testing.assert_array_equal(other.hu, [[16, 17, 18, 19], [4, 5, 6, 7]])  # y = 1, head up
    assert rows[1].cells[1].pixel == (8, 9)
    np.testing.assert_array_equal(rows[1].cells[1].hu, volume[1])


def test_for_a_reference_of_the_cohort_the_list_is_the_pipelines_own_ranking(placed, monkeypatch, tmp_path):
    monkeypatch.chdir(placed.root)
    roles = read_roles(paths.ROLES)
    table, ranking = read_embeddings(paths.EMBEDDINGS, roles), read_ranking(paths.RANKING, roles)
    scans = read_rows(paths.SCANS, ScanRow)
    embedder = read_embedder(load())
    for row, reference in zip(ranking.train, ranking.reference, strict=True):
        own = alike.in_cohort(reference.decode(), scans)
        _, mine = place_one(Path("scans") / own.path, embedder, 1)
        assert mine.thumbnail.scan == own.scan
        found = alike.nearest(mine, own, table, 99, every=False)
        assert [one.scan for one in found] == [ranking.scan[place].decode() for place in row[1:]]
    alike.picture(mine, found, read_thumbnails(Path()), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG"


def test_the_command_lists_and_draws_and_says_what_it_searched(placed, tmp_path):
    write_nifti(tmp_path / "new.nii.gz", ct(9, (24, 32, 32)))
    picture = tmp_path / "p.png"
    done = sg("neighbors", tmp_path / "new.nii.gz", "--k", 2, "--picture", picture, cwd=placed.root)
    assert done.returncode == 0, done.stderr
    first, heads, *rows = done.stdout.splitlines()
    assert first.startswith(
        f"{tmp_path / 'new.nii.gz'}: compared with those that may be neighbours (split train): "
    )
    assert heads.split() == ["rank", "distance", "split", "scan", "patient"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert {row.split()[2] for row in rows} == {"train"}
    assert picture.stat().st_size > 1000
    (tmp_path / "bad.nii").write_text("no scan")
    done = sg("neighbors", tmp_path / "bad.nii", cwd=placed.root)
    assert (done.returncode, done.stdout) == (1, "")
    assert "bad.nii: format: " in done.stderr
    assert "Traceback" not in done.stderr
