"""LUNA16's layout: subsets are splits, series are patients, tables are marks in LPS mm."""

import math

import pytest

from sg.cohorts.luna16 import list_luna16
from sg.cohorts.records import Mark
from sg.errors import InputError
from sg.params import Source

SOURCE = Source(layout="luna16", path="luna", use=["pretrain", "ncc"], leave_out=None, patients=None)
NODULES = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,-10.5,20.25,-300,6.5\n9.9.9,1,2,3,4\n"
CANDIDATES = "seriesuid,coordX,coordY,coordZ,class\n1.2.3,-10,20,-300,1\n1.2.4,1,2,3,0\n"


@pytest.fixture
def luna(tmp_path):
    for subset in range(10):
        folder = tmp_path / "luna" / f"subset{subset}"
        folder.mkdir(parents=True)
        (folder / f"1.2.{subset}.mhd").touch()
        (folder / f"1.2.{subset}.raw").touch()
    (tmp_path / "luna" / "annotations.csv").write_text(NODULES)
    (tmp_path / "luna" / "candidates_V2.csv").write_text(CANDIDATES)
    return tmp_path


def test_subsets_are_splits_and_the_series_is_the_patient(luna):
    entries = list_luna16(luna, SOURCE, 1).entries
    assert [entry.split for entry in entries] == ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    assert (
        [entry.series for entry in entries]
        == [entry.patient for entry in entries]
        == [f"1.2.{i}" for i in range(10)]
    )
    assert str(entries[0].path) == "luna/subset0/1.2.0.mhd"


def test_annotations_and_candidates_are_marks_of_their_series(luna):
    marks = {entry.series: entry.marks for entry in list_luna16(luna, SOURCE, 1).entries}
    nodule, candidate = marks["1.2.3"]
    assert nodule == Mark("nodule", "nodule", (-10.5, 20.25, -300.0), 6.5)
    assert (candidate.kind, candidate.label, candidate.centre_mm) == (
        "candidate",
        "nodule",
        (-10.0, 20.0, -300.0),
    )
    assert math.isnan(candidate.diameter_mm)
    assert [mark.label for mark in marks["1.2.4"]] == ["non-nodule"]
    assert marks["1.2.5"] == ()


def test_series_of_the_tables_without_a_scan_are_counted(luna):
    (note,) = list_luna16(luna, SOURCE, 1).notes
    assert (
        note
        == "annotations.csv and candidates_V2.csv name 1 series of which there is no scan in luna, 9.9.9 first"
    )


def test_scans_outside_the_subsets_such_as_lung_masks_are_counted_not_read(luna):
    masks = luna / "luna" / "seg-lungs-LUNA16"
    masks.mkdir()
    (masks / "1.2.3.mhd").touch()
    listing = list_luna16(luna, SOURCE, 1)
    assert len(listing.entries) == 10
    assert listing.ignored["scan outside the subset folders"] == 1


def test_tables_are_found_where_the_archives_put_them_and_their_lack_is_a_warning(luna):
    folder = luna / "luna"
    (folder / "CSVFILES").mkdir()
    (folder / "annotations.csv").rename(folder / "CSVFILES" / "annotations.csv")
    (folder / "candidates_V2.csv").unlink()
    listing = list_luna16(luna, SOURCE, 1)
    assert [mark.kind for mark in listing.entries[3].marks] == ["nodule"]
    assert listing.warnings == ["luna has no candidates_V2.csv, so its scans have no such findings"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seriesuid,x,y,z,class\n", "must have the columns seriesuid, coordX, coordY, coordZ, class"),
        (CANDIDATES + "1.2.3,1,2,3,2\n", "line 4: class must be 0 or 1, got '2'"),
        (CANDIDATES + "1.2.3,1,two,3,0\n", "line 4: coordY must be a number, got 'two'"),
        (CANDIDATES + "1.2.3,1,nan,3,0\n", "line 4: coordY must be a number"),
        (CANDIDATES + "1.2.3,1,2\n", "line 4: must have 5 cells"),
        ("", "is empty (0 bytes)"),
        (b"\xff\xfe\x00", "not a CSV file"),
    ],
)
def test_a_malformed_table_is_an_error_with_its_line(luna, text, words):
    path = luna / "luna" / "candidates_V2.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"candidates_V2\.csv") as caught:
        list_luna16(luna, SOURCE, 1)
    assert words in str(caught.value)


def test_a_table_that_is_a_link_out_of_the_raw_folder_is_refused_and_not_shown(luna, tmp_path_factory):
    secret = tmp_path_factory.mktemp("outside") / "passwd"
    secret.write_text("root:x:0:0:secret\n")
    path = luna / "luna" / "annotations.csv"
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(InputError, match=r"annotations\.csv: the file .* is a link that leads out") as caught:
        list_luna16(luna, SOURCE, 1)
    assert "secret" not in str(caught.value)


def test_dicom_is_no_part_of_this_layout_and_set_aside_unread_once_a_folder(luna):
    for name in ("1.dcm", "2.DCM"):
        (luna / "luna" / "more").mkdir(exist_ok=True)
        (luna / "luna" / "more" / name).write_bytes(b"no DICOM")
    (refused,) = list_luna16(luna, SOURCE, 1).refused
    assert (str(refused.path), refused.rule) == ("luna/more", "format")
    assert "2 DICOM files, which are no part of the layout luna16" in refused.reason
