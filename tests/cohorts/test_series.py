"""A DICOM series is one scan wherever its files are, and none if one of them may be lost."""

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from sg.cohorts import series
from sg.cohorts.folder import survey
from sg.formats.files import Refusal
from tests.cohorts.breaking import upper_case
from tests.dicom_files import uid, write_multiframe, write_series
from tests.scan_files import ct, write_nifti

PLANES = ct()[:4, :6, :5]
MARK = bytes(128) + b"DICM"


def files(entry):
    return {str(path) for path in entry.files}


def rules(listing):
    return [(str(refused.path), refused.rule) for refused in listing.refused]


def change(path, **elements):
    ds = dcmread(path)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


def test_a_series_is_one_entry_with_its_files_in_the_order_of_their_uids(tmp_path):
    write_series(tmp_path / "a" / "b", PLANES, patient=" P7 ", shuffle=True)
    listing = survey(tmp_path, Path(), 1)
    (entry,) = listing.entries
    assert (entry.path, entry.patient, entry.series) == (Path("a/b"), "P7", uid("chest"))
    assert (entry.split, entry.truth, entry.marks) == (None, None, ())
    uids = [dcmread(tmp_path / path).SOPInstanceUID for path in entry.files]
    assert uids == sorted(uids)
    assert len(uids) == 4
    assert (listing.refused, listing.warnings, dict(listing.ignored)) == ([], [], {})


def test_series_are_told_apart_in_one_folder_and_put_together_over_several(tmp_path):
    for number, path in enumerate(write_series(tmp_path, PLANES, series="spread")):
        (tmp_path / f"part {number % 2}").mkdir(exist_ok=True)
        path.rename(tmp_path / f"part {number % 2}" / path.name)
    for name in ("first", "second"):
        for path in write_series(tmp_path / name, PLANES, series=name):
            path.rename(tmp_path / "part 0" / f"{name} {path.name}")
    found = {
        entry.series: (str(entry.path), len(entry.files)) for entry in survey(tmp_path, Path(), 1).entries
    }
    assert found == {uid("spread"): (".", 4), uid("first"): ("part 0", 4), uid("second"): ("part 0", 4)}


def test_files_are_known_by_their_mark_whatever_they_are_called(tmp_path):
    names = ["IM0001", "CT.1.2.840.2", "c.dat", "d.IMA"]
    for path, name in zip(write_series(tmp_path, PLANES), names, strict=True):
        path.rename(tmp_path / name)
    (entry,) = survey(tmp_path, Path(), 1).entries
    assert files(entry) == set(names)


def test_scans_of_all_formats_stand_beside_each_other_sorted(tmp_path):
    write_series(tmp_path / "b", PLANES)
    write_multiframe(tmp_path / "d" / "all.dcm", PLANES, series="frames", patient="P2")
    write_nifti(tmp_path / "c.nii", PLANES)
    assert [str(entry.path) for entry in survey(tmp_path, Path(), 1).entries] == ["b", "c.nii", "d"]


def test_the_paths_of_a_source_are_relative_to_raw(tmp_path):
    write_series(tmp_path / "mine", PLANES)
    write_series(tmp_path / "other", PLANES, series="other")
    (entry,) = survey(tmp_path, Path("mine"), 1).entries
    assert entry.path == Path("mine")
    assert files(entry) == {f"mine/{i:03d}.dcm" for i in range(4)}


def test_what_is_no_volume_is_dropped_from_its_series_and_counted(tmp_path):
    paths = write_series(tmp_path, PLANES)
    change(paths[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    change(paths[1], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", Modality="SR")
    listing = survey(tmp_path, Path(), 1)
    assert [files(entry) for entry in listing.entries] == [{"002.dcm", "003.dcm"}]
    assert listing.ignored == {"DICOM localizer": 1, "DICOM dose report": 1}


def test_another_modality_is_left_to_the_reader(tmp_path):
    write_series(tmp_path, PLANES, modality="MR")
    listing = survey(tmp_path, Path(), 1)
    assert (len(listing.entries), listing.refused) == (1, [])


def test_an_equal_file_is_a_copy_and_one_that_differs_stays(tmp_path):
    paths = write_series(tmp_path / "s", PLANES)
    shutil.copyfile(paths[0], tmp_path / "s" / "z.dcm")
    listing = survey(tmp_path, Path(), 1)
    assert files(listing.entries[0]) == {f"s/{i:03d}.dcm" for i in range(4)}
    assert listing.ignored == {"DICOM copy": 1}
    change(tmp_path / "s" / "z.dcm", PatientWeight="70")
    listing = survey(tmp_path, Path(), 1)
    assert len(listing.entries[0].files) == 5
    assert not listing.ignored


def test_a_series_that_lies_whole_in_one_folder_lies_in_others_again_the_fullest_first(tmp_path):
    write_series(tmp_path / "b" / "whole", PLANES)
    shutil.copytree(tmp_path / "b" / "whole", tmp_path / "c")
    for name in ("a", "b/part"):
        write_series(tmp_path / name, PLANES[:2], extra=lambda ds, z: setattr(ds, "PatientWeight", "70"))
    listing = survey(tmp_path, Path(), 1)
    assert [(str(entry.path), len(entry.files)) for entry in listing.entries] == [
        ("b/whole", 4), ("c", 4), ("a", 2), ("b/part", 2)
    ]  # fmt: skip
    assert {entry.series for entry in listing.entries} == {uid("chest")}
    assert not listing.ignored


def test_folders_that_share_slices_make_one_series_if_none_holds_it_whole(tmp_path):
    paths = write_series(tmp_path / "a", PLANES)
    (tmp_path / "b").mkdir()
    shutil.copyfile(paths[2], tmp_path / "b" / "again.dcm")
    paths[3].rename(tmp_path / "b" / "last.dcm")
    listing = survey(tmp_path, Path(), 1)
    assert [files(entry) for entry in listing.entries] == [
        {"a/000.dcm", "a/001.dcm", "a/002.dcm", "b/last.dcm"}
    ]
    assert listing.ignored == {"DICOM copy": 1}


@pytest.mark.parametrize("content", [b"", b"no DICOM", MARK + b"\x02\x00\x10\x00UI\xff\x00"])
def test_beside_a_file_that_cannot_be_read_no_series_is_vouched_for(tmp_path, content):
    write_series(tmp_path / "a", PLANES)
    write_series(tmp_path / "b", PLANES, series="beside")
    (tmp_path / "b" / "x.dcm").write_bytes(content)
    listing = survey(tmp_path, Path(), 1)
    assert [entry.series for entry in listing.entries] == [uid("chest")]
    of_series, of_file = listing.refused
    assert (str(of_series.path), of_series.rule) == ("b", "slices")
    assert f"The series {uid('beside')} may lack a slice: b/x.dcm lies beside its files" in of_series.reason
    assert str(of_file.path) == "b/x.dcm"


def test_every_series_of_the_folder_is_refused_even_one_that_goes_on_elsewhere(tmp_path):
    for number, path in enumerate(write_series(tmp_path, PLANES)):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        path.rename(tmp_path / str(number % 2) / path.name)
    for path in write_series(tmp_path / "other", PLANES, series="other"):
        path.rename(tmp_path / "1" / f"other {path.name}")
    (tmp_path / "1" / "x.dcm").touch()
    (tmp_path / "1" / "y.dcm").touch()
    listing = survey(tmp_path, Path(), 1)
    assert listing.entries == []
    assert rules(listing) == [(".", "slices"), ("1", "slices"), ("1/x.dcm", "empty"), ("1/y.dcm", "empty")]
    assert "1/x.dcm and 1 more lie beside its files" in listing.refused[0].reason


def test_a_dicom_file_outside_the_raw_folder_is_not_read(tmp_path):
    paths = write_series(tmp_path / "raw", PLANES)
    paths[0].rename(tmp_path / "outside.dcm")
    paths[0].symlink_to(tmp_path / "outside.dcm")
    assert rules(survey(tmp_path / "raw", Path(), 1)) == [(".", "slices"), ("000.dcm", "outside-folder")]


def without_suffixes(folder):
    for number, path in enumerate(write_series(folder, PLANES)):
        path.rename(folder / f"IM{number}")
    return folder


@pytest.mark.parametrize("content", [b"", bytes(500)])
def test_a_file_named_like_its_neighbours_may_be_a_slice_that_lost_its_mark(tmp_path, content):
    (without_suffixes(tmp_path) / "IM9").write_bytes(content)
    listing = survey(tmp_path, Path(), 1)
    assert rules(listing) == [(".", "slices"), ("IM9", "format")]
    assert "IM9 lies beside its files and cannot be read" in listing.refused[0].reason


def test_a_text_or_another_kind_of_name_is_no_lost_slice(tmp_path):
    (without_suffixes(tmp_path) / "VERSION").write_bytes(b"1.0\r\n")
    (tmp_path / "x.bin").write_bytes(bytes(500))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "IM9").write_bytes(bytes(500))
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    listing = survey(tmp_path, Path(), 1)
    assert len(listing.entries) == 1
    assert {rule for _, rule in rules(listing)} == {"format", "link"}


def test_a_slice_whose_name_cannot_be_used_is_lost_to_its_series(tmp_path):
    paths = write_series(tmp_path, PLANES)
    paths[3].rename(tmp_path / "bad\nname.dcm")
    listing = survey(tmp_path, Path(), 1)
    assert {rule for _, rule in rules(listing)} == {"slices", "name"}
    assert r"bad\nname.dcm lies beside" in listing.refused[0].reason


def test_files_without_any_uid_are_a_series_in_each_folder(tmp_path):
    def anonymous(ds, _):
        del ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID
        ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"

    for name in ("p/ct", "q/ct"):
        write_series(tmp_path / name, PLANES, extra=anonymous)
    listing = survey(tmp_path, Path(), 1)
    assert [(e.patient, e.series, len(e.files)) for e in listing.entries] == [
        ("p/ct", None, 4),
        ("q/ct", None, 4),
    ]
    assert "2 DICOM series name no patient (PatientID), so each study" in listing.warnings[0]


def test_a_file_that_lost_its_series_is_missed_by_those_beside_it(tmp_path):
    change(write_series(tmp_path, PLANES)[3], SeriesInstanceUID="")
    assert rules(survey(tmp_path, Path(), 1)) == [(".", "slices"), ("003.dcm", "header")]


def test_without_a_patient_a_study_is_one_and_a_warning_counts_the_series(tmp_path):
    for name in ("soft", "sharp"):
        write_series(tmp_path / name, PLANES, series=name, patient="")
    write_series(tmp_path / "named", PLANES, series="named", patient="P2")
    listing = survey(tmp_path, Path(), 1)
    assert [entry.patient for entry in listing.entries] == ["P2", uid(""), uid("")]
    (warning,) = listing.warnings
    assert warning.startswith("2 DICOM series name no patient")


def test_the_number_of_processes_and_of_files_for_each_changes_nothing(tmp_path, monkeypatch):
    write_series(tmp_path / "a", PLANES)
    write_series(tmp_path / "b", PLANES, series="b")
    (tmp_path / "b" / "x.dcm").touch()
    alone = survey(tmp_path, Path(), 1)
    monkeypatch.setattr(series, "BATCH", 2)
    assert survey(tmp_path, Path(), 3) == alone


def test_a_file_that_breaks_the_program_that_reads_it_costs_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "BATCH", 3)
    monkeypatch.setattr(series, "BATCH_SECONDS", 1.0)
    monkeypatch.setattr(series, "FILE_SECONDS", 1.0)
    names = ["a", "crash", "b", "c", "d", "e", "hang", "f"]
    answers = dict(series._answers(upper_case, tmp_path, names, 2))
    refused = {name: answers.pop(name) for name in ("crash", "hang")}
    assert answers == {name: name.upper() for name in "abcdef"}
    assert [(type(answer), answer.rule) for answer in refused.values()] == [
        (Refusal, "crashed"),
        (Refusal, "time"),
    ]
