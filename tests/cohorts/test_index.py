"""The tables of a cohort: identity, patients, splits, findings, and what was set aside and why."""

import json
import math
import re
import shutil

import numpy as np
import pytest

from sg.cohorts import index
from sg.cohorts.records import Entry, FileRow, FindingRow, QuarantineRow, ScanRow, TwinRow, read_rows
from sg.errors import InputError
from sg.params import Cohort, Source, SplitFractions
from sg.roles import RoleRow, decide_roles
from sg.scans import digest, files_of
from sg.splits import place
from tests.cohorts import here
from tests.dicom_files import uid, write_series
from tests.scan_files import LIMITS, ORIGIN_MM, SHAPE, SPACING_MM, ct, edit_header, write_itk, write_nifti


def source(layout="folder", path="own", use=("pretrain",), leave_out=None, patients=None):
    return Source(layout=layout, path=path, use=list(use), leave_out=leave_out, patients=patients)


def cohort(raw, **sources):
    return Cohort(
        raw=str(raw),
        sources=sources or {"own": source()},
        limits=LIMITS,
        twin_correlation=0.99,
        splits=SplitFractions(train=0.6, validation=0.2, test=0.2),
    )


@pytest.fixture
def processes():
    """Asked for by tests that read in processes, as a stage does."""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, request):
    """All other tests read in their own process, for speed."""
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(index, "each", here.each)


@pytest.fixture
def raw(tmp_path):
    """A folder with four good scans of four patients."""
    root = tmp_path / "raw"
    write_nifti(root / "own" / "a.nii.gz", ct(1))
    write_nifti(root / "own" / "b.nii", ct(2))
    write_itk(root / "own" / "deep" / "c.mha", ct(3), compress=True)
    write_itk(root / "own" / "d.mhd", ct(4))
    return root


def written(cohort_index, folder):
    folder.mkdir(parents=True)
    index.write(cohort_index, folder)
    return folder


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# -------------------------------------------------------------------------------------------- the tables


def test_a_scan_is_named_by_its_content_and_described_by_its_header(raw):
    rows = {row.patient: row for row in index.build(cohort(raw), 1, 1).scans}
    assert sorted(rows) == ["a", "b", "c", "d"]
    d = rows["d"]
    sha256, size = digest(files_of(raw / "own" / "d.mhd", raw))
    assert (d.scan, d.sha256, d.bytes) == (sha256[:12], sha256, size)
    assert (d.path, d.layout, d.source, d.use) == ("own/d.mhd", "folder", "own", ("pretrain",))
    assert (d.size, d.spacing_mm, d.orientation, d.modality) == (SHAPE[::-1], SPACING_MM, "LPS", "CT")
    assert (d.truth, d.truth_sha256) == ("", "")
    assert [row.scan for row in index.build(cohort(raw), 1, 1).scans] == sorted(
        row.scan for row in rows.values()
    )


def test_tables_read_back_as_they_were_written(raw, tmp_path):
    (raw / "own" / 'broken, "quoted".nii').write_bytes(b"x")
    made = index.build(cohort(raw), 1, 1)
    folder = written(made, tmp_path / "out")
    assert read_rows(folder / "scans.csv", ScanRow) == made.scans
    assert read_rows(folder / "quarantine.csv", QuarantineRow) == made.quarantine
    assert read_rows(folder / "findings.csv", FindingRow) == made.findings == []
    assert read_rows(folder / "files.csv", FileRow) == made.files == []
    assert read_rows(folder / "twins.csv", TwinRow) == made.twins == []
    assert read_rows(folder / "roles.csv", RoleRow) == made.roles == decide_roles(made.scans)
    assert json.loads((folder / "summary.json").read_text()) == made.summary


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.usefixtures("processes")
def test_any_number_of_processes_writes_the_same_bytes(raw, tmp_path, workers):
    (raw / "own" / "broken.nii").write_bytes((raw / "own" / "b.nii").read_bytes()[:-1])
    in_processes = written(index.build(cohort(raw), 1, workers), tmp_path / "processes")
    shutil.move(raw, tmp_path / "elsewhere")
    again = written(index.build(cohort(tmp_path / "elsewhere"), 1, 2), tmp_path / "again")
    assert contents(in_processes) == contents(again)


def test_a_damaged_scan_is_set_aside_and_the_others_go_on(raw):
    content = (raw / "own" / "a.nii.gz").read_bytes()
    (raw / "own" / "cut.nii.gz").write_bytes(content[:-100])
    write_nifti(raw / "own" / "flat.nii.gz", np.zeros(SHAPE, np.int16))
    (raw / "own" / "archive.zip").write_bytes(b"PK")
    made = index.build(cohort(raw), 1, 1)
    assert made.summary["scans"] == 4
    assert [(row.path, row.rule) for row in made.quarantine] == [
        ("own/archive.zip", "format"),
        ("own/cut.nii.gz", "truncated"),
        ("own/flat.nii.gz", "constant"),
    ]
    assert made.summary["refused"] == {"constant": 1, "format": 1, "truncated": 1}
    assert made.summary["by_source"]["own"]["refused"] == made.summary["refused"]


def test_the_counts_of_the_summary_are_those_of_the_tables(raw):
    (raw / "own" / "notes.txt").touch()
    made = index.build(cohort(raw), 1, 1)
    assert sum(made.summary["patients"].values()) == 4
    assert made.summary["by_source"]["own"]["ignored"] == {"txt": 1}
    assert index.sentence(made.summary).startswith("4 scans, patients: ")
    assert index.sentence(made.summary).endswith("; 0 refused")
    assert (made.summary["twins"], made.summary["patients_merged"]) == (0, 0)


def test_what_is_known_of_a_phantom_is_copied_under_the_scans_name(raw, tmp_path):
    (raw / "own" / "truth").mkdir()
    (raw / "own" / "truth" / "d.h5").write_bytes(b"of d")
    (raw / "own" / "truth" / "gone.h5").write_bytes(b"of none")
    made = index.build(cohort(raw), 1, 1)
    (d,) = [row.scan for row in made.scans if row.patient == "d"]
    folder = written(made, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (folder / "truth").iterdir()} == {f"{d}.h5": b"of d"}


# ---------------------------------------------------------------------------------------- the same twice


def test_the_same_content_twice_is_kept_once_naming_the_first(raw):
    shutil.copy(raw / "own" / "a.nii.gz", raw / "own" / "zz.nii.gz")
    made = index.build(cohort(raw), 1, 1)
    (row,) = made.quarantine
    assert (row.path, row.rule) == ("own/zz.nii.gz", "duplicate")
    assert row.reason == "This is the same scan as own/a.nii.gz of own (equal content)."


def test_a_copy_under_another_patients_name_has_the_split_of_the_first(raw):
    for name in ("one", "two"):
        write_nifti(raw / "other" / f"{name}.nii", ct(9 if name == "one" else 10))
    shutil.copy(raw / "own" / "a.nii.gz", raw / "other" / "renamed.nii.gz")
    write_nifti(raw / "other" / "extra" / "renamed.nii.gz", ct(12))  # another scan of that patient
    made = index.build(cohort(raw, own=source(), other=source(path="other")), 1, 1)
    splits = {row.patient: row.split for row in made.scans}
    # "other" comes before "own", so the copy is the one that is kept, and a is the same patient
    assert [row.path for row in made.quarantine] == ["own/a.nii.gz"]
    assert len({row.split for row in made.scans if row.patient == "renamed"}) == 1
    assert "a" not in splits


def test_a_double_that_served_more_is_a_warning(raw):
    shutil.copytree(raw / "own", raw / "again")
    sources = {"a": source(use=["pretrain"]), "b": source(path="again", use=["pretrain", "lcs"])}
    write_nifti(raw / "again" / "e.nii", ct(5))
    write_nifti(raw / "again" / "f.nii", ct(6))
    write_nifti(raw / "again" / "g.nii", ct(7))
    made = index.build(cohort(raw, **sources), 1, 1)
    assert made.summary["refused"] == {"duplicate": 4}
    assert any("which does not serve lcs; add that to the use of a" in w for w in made.summary["warnings"])


def test_the_quarantine_names_the_scan_where_its_content_was_read(raw):
    shutil.copy(raw / "own" / "a.nii.gz", raw / "own" / "zz.nii.gz")
    (raw / "own" / "cut.nii").write_bytes((raw / "own" / "b.nii").read_bytes()[:-1])
    made = index.build(cohort(raw), 1, 1)
    (a,) = [row.scan for row in made.scans if row.patient == "a"]
    assert {row.path: row.scan for row in made.quarantine} == {"own/zz.nii.gz": a, "own/cut.nii": ""}


# ----------------------------------------------------------------------------------------- dicom series


def test_a_dicom_series_is_one_scan_of_the_patient_that_it_names(raw, tmp_path):
    paths = write_series(raw / "own" / "study" / "s", ct(8), patient="P8", shuffle=True)
    made = index.build(cohort(raw), 1, 1)
    (row,) = [row for row in made.scans if row.patient == "P8"]
    files = [raw / line.file for line in made.files]
    assert sorted(files) == sorted(paths)
    assert (row.path, row.series, row.size, row.modality) == ("own/study/s", uid("chest"), SHAPE[::-1], "CT")
    assert (row.sha256, row.bytes) == digest(files)
    assert {line.scan for line in made.files} == {row.scan}
    assert read_rows(written(made, tmp_path / "out") / "files.csv", FileRow) == made.files


def test_a_series_that_two_sources_have_is_kept_once(raw):
    write_series(raw / "own" / "s", ct(8), patient="P8")
    shutil.copytree(raw / "own" / "s", raw / "other" / "copy")
    write_series(raw / "other" / "t", ct(9), series="another", patient="P9")
    made = index.build(cohort(raw, own=source(), other=source(path="other")), 1, 1)
    (row,) = made.quarantine
    assert (row.path, row.rule) == ("own/s", "duplicate")
    assert row.reason == "This is the same scan as other/copy of other (equal series UID)."
    assert {line.file.split("/")[1] for line in made.files} == {"copy", "t"}


# ------------------------------------------------------------------------------------------------ twins


def planted(raw, name, seed, folder="own"):
    """The voxels of `ct(seed)` once more, as float64 and flipped, so that no byte is the same."""
    affine = np.diag([SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    return write_nifti(raw / folder / name, ct(seed)[:, :, ::-1].astype(float), affine)


def test_twins_have_the_first_name_and_are_listed_with_the_names_that_they_had(raw):
    planted(raw, "twin.nii", 2)
    write_nifti(raw / "own" / "more" / "twin.nii", ct(12))
    made = index.build(cohort(raw), 1, 1)
    scans = {row.path: row for row in made.scans}
    one, other = scans["own/b.nii"], scans["own/twin.nii"]
    assert made.twins == [TwinRow(one.scan, other.scan, "voxels", 1.0, "b", "b and twin")]
    assert {scans[f"own/{name}"].patient for name in ("b.nii", "twin.nii", "more/twin.nii")} == {"b"}
    assert {row.patient for row in made.scans} == set("abcd")
    assert (made.summary["twins"], made.summary["patients_merged"]) == (1, 1)
    assert made.summary["warnings"][-1] == (
        "own/b.nii of own (patient b) and own/twin.nii of own (patient twin) show one patient: their voxels are equal; "
        "both are called b now"
    )
    assert index.sentence(made.summary).endswith("; 1 pair of twins")


def test_twins_that_have_one_name_already_are_listed_without_a_warning(raw):
    planted(raw, "deep/b.nii", 2)
    (raw / "own" / "who.csv").write_text("path,patient\ndeep,b\n")
    made = index.build(cohort(raw, own=source(patients="own/who.csv")), 1, 1)
    assert [(row.by, row.patient, row.patients) for row in made.twins] == [("voxels", "b", "")]
    assert made.summary["patients_merged"] == 0
    assert not any("show one patient" in text for text in made.summary["warnings"])


def test_names_that_twins_link_over_others_are_one_patient(raw):
    planted(raw, "x/z.nii", 1)
    planted(raw, "y/z.nii", 2)
    made = index.build(cohort(raw), 1, 1)
    scans = {row.path: row.patient for row in made.scans}
    assert scans["own/a.nii.gz"] == scans["own/b.nii"] == scans["own/x/z.nii"] == scans["own/y/z.nii"] == "a"
    assert made.summary["patients_merged"] == 2


def test_a_copy_links_the_names_of_its_patients_too(raw):
    shutil.copy(raw / "own" / "a.nii.gz", raw / "own" / "zz.nii.gz")
    write_nifti(raw / "own" / "more" / "zz.nii.gz", ct(12))
    made = index.build(cohort(raw), 1, 1)
    assert {row.path: row.patient for row in made.scans}["own/more/zz.nii.gz"] == "a"
    assert any(
        "are the same scan; both patients are called a now" in text for text in made.summary["warnings"]
    )


# ------------------------------------------------------------------------------------- patients and lists


def test_a_table_names_the_patients_and_a_line_for_no_scan_is_a_warning(raw):
    (raw / "who.csv").write_text("path,patient\nown/a.nii.gz,P1\n./b.nii,P1\ngone.nii,P9\n")
    made = index.build(cohort(raw, own=source(patients="who.csv")), 1, 1)
    rows = {row.path: row for row in made.scans}
    assert [rows[f"own/{name}"].patient for name in ("a.nii.gz", "b.nii", "d.mhd")] == ["P1", "P1", "d"]
    assert rows["own/a.nii.gz"].split == rows["own/b.nii"].split
    assert made.summary["warnings"] == ["own: who.csv names gone.nii, which matches no scan"]


def test_lists_name_a_file_of_a_series_a_folder_or_a_series(raw):
    for name in "pqrs":
        write_series(raw / "own" / "dicom" / name, ct(ord(name)), series=name, patient=name)
    write_nifti(raw / "own" / "dicom" / "t.nii", ct(9))
    (raw / "who.csv").write_text(
        f"path,patient\nown/dicom/,all\ndicom/q/003.dcm,file\n{uid('r')},series\nown/dicom/s,folder\n"
    )
    made = index.build(cohort(raw, own=source(patients="who.csv")), 1, 1)
    patients = {row.path.removeprefix("own/dicom/"): row.patient for row in made.scans if "dicom" in row.path}
    assert patients == {"p": "all", "q": "file", "r": "series", "s": "folder", "t.nii": "all"}
    (raw / "out.list").write_text(f"{uid('p')}\nown/dicom/q/000.dcm\n./dicom/r/\n")
    made = index.build(cohort(raw, own=source(leave_out="out.list")), 1, 1)
    assert {row.path for row in made.scans if "dicom" in row.path} == {"own/dicom/s", "own/dicom/t.nii"}
    assert made.summary["by_source"]["own"]["ignored"] == {"left out": 3}
    assert made.summary["warnings"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,who\na,b\n", "must have the columns path and patient, got ['file', 'who']"),
        ("path,patient\na.nii.gz,\n", "line 2: path and patient must not be empty"),
        ("path,patient\na.nii.gz,x\na.nii.gz,y\n", "line 3: a.nii.gz is given to x and to y"),
        ("", "must have the columns"),
    ],
)
def test_a_malformed_table_of_patients_is_an_error(raw, text, words):
    (raw / "who.csv").write_text(text)
    with pytest.raises(InputError, match=r"cohort\.sources\.own\.patients") as caught:
        index.build(cohort(raw, own=source(patients="who.csv")), 1, 1)
    assert words in str(caught.value)


def test_a_list_leaves_scans_out_and_a_line_for_no_scan_is_a_warning(raw):
    (raw / "own" / "out.list").write_text("# artefacts\n\nown/a.nii.gz\n./d.mhd\nnone.nii\n")
    made = index.build(cohort(raw, own=source(leave_out="own/out.list")), 1, 1)
    assert made.quarantine == []
    assert sorted(row.patient for row in made.scans) == ["b", "c"]
    assert made.summary["by_source"]["own"]["ignored"] == {"left out": 2}
    assert made.summary["warnings"] == ["own: own/out.list names none.nii, which matches no scan"]


def test_a_list_takes_away_what_was_set_aside_too(raw):
    (raw / "own" / "deep" / "e.foo").write_bytes(b"x")
    (raw / "own" / "f.foo").write_bytes(b"x")
    (raw / "out.list").write_text("own/f.foo\nown/deep\n")
    made = index.build(cohort(raw, own=source(leave_out="out.list")), 1, 1)
    assert (made.quarantine, made.summary["warnings"]) == ([], [])
    assert made.summary["by_source"]["own"]["ignored"] == {"left out": 3}


def test_files_of_one_series_that_are_given_to_two_patients_are_an_error(raw):
    write_series(raw / "own" / "s", ct(9), series="s")
    (raw / "who.csv").write_text("path,patient\nown/s/000.dcm,x\ns/001.dcm,y\n")
    with pytest.raises(InputError, match=r"files of one series \(own/s\) are given to x and to y"):
        index.build(cohort(raw, own=source(patients="who.csv")), 1, 1)


def test_a_patients_name_fits_into_64_plain_characters(raw):
    name = "Müller " + "x" * 100
    write_nifti(raw / "own" / f"{name}.nii", ct(5))
    write_nifti(raw / "own" / f"{name}y.nii", ct(6))
    patients = {row.patient for row in index.build(cohort(raw), 1, 1).scans} - {*"abcd"}
    assert len(patients) == 2
    assert all(
        len(patient) == 64 and patient.isascii() and patient.startswith("M_ller xxx") for patient in patients
    )


def test_patients_keep_their_split_when_others_come(raw):
    before = {row.patient: row.split for row in index.build(cohort(raw), 1, 1).scans}
    fractions = [(0.6, "train"), (0.8, "validation"), (1.0, "test")]
    by_hash = {p: next(split for most, split in fractions if place(1, p) < most) for p in before}
    assert set(by_hash.values()) >= {"train", "validation"}, "choose another seed: these four need no filling"
    assert before == by_hash
    for number in range(3):
        write_nifti(raw / "own" / f"new{number}.nii.gz", ct(20 + number))
    after = {row.patient: row.split for row in index.build(cohort(raw), 1, 1).scans}
    assert {patient: after[patient] for patient in before} == before


# --------------------------------------------------------------------------------------- public layouts


@pytest.fixture
def luna(tmp_path):
    root = tmp_path / "raw"
    for subset in range(10):
        write_itk(root / "luna" / f"subset{subset}" / f"1.2.{subset}.mhd", ct(30 + subset))
    inside = np.add(ORIGIN_MM, np.multiply(SPACING_MM, (3, 4, 5)))
    lines = ["seriesuid,coordX,coordY,coordZ,class"]
    lines += [f"1.2.{i},{inside[0]},{inside[1]},{inside[2]},{i % 2}" for i in range(10)]
    lines += [f"1.2.0,{ORIGIN_MM[0] - 50},0,20,0"]
    (root / "luna" / "candidates_V2.csv").write_text("\n".join(lines) + "\n")
    (root / "luna" / "annotations.csv").write_text(
        f"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,{inside[0]},{inside[1]},{inside[2]},7.5\n"
    )
    return root


def test_findings_are_rows_of_their_scan_and_those_outside_it_are_counted(luna):
    made = index.build(cohort(luna, luna=source("luna16", "luna", ["pretrain", "ncc"])), 1, 1)
    scan = {row.patient: row.scan for row in made.scans}
    mine = [row for row in made.findings if row.scan == scan["1.2.3"]]
    assert [(row.kind, row.label) for row in mine] == [("candidate", "nodule"), ("nodule", "nodule")]
    assert mine[1].diameter_mm == 7.5
    assert math.isnan(mine[0].diameter_mm)
    assert mine[0].centre_mm == tuple(np.add(ORIGIN_MM, np.multiply(SPACING_MM, (3, 4, 5))))
    assert made.summary["by_source"]["luna"]["findings"] == {
        "candidate: non-nodule": 5,
        "candidate: nodule": 5,
        "nodule: nodule": 1,
    }
    assert made.summary["warnings"] == ["luna: 1 findings lie outside their scan and are set aside"]
    assert made.summary["patients"] == {"train": 5, "validation": 2, "test": 3}


def test_twins_in_two_splits_of_their_data_set_are_kept_for_the_stricter(luna):
    twin = luna / "luna" / "subset9" / "1.2.9.mhd"
    write_itk(twin, ct(30)[::-1].astype(np.float32), direction=np.diag([1.0, 1, -1]))
    made = index.build(cohort(luna, luna=source("luna16", "luna", ["pretrain", "ncc"])), 1, 1)
    (pair,) = made.twins
    assert {row.path: (row.patient, row.split) for row in made.scans if row.patient == pair.patient} == {
        "luna/subset0/1.2.0.mhd": ("1.2.0", "test"),
        "luna/subset9/1.2.9.mhd": ("1.2.0", "test"),
    }
    assert any("it is kept for test" in note for note in made.summary["notes"])


def test_findings_of_a_scan_that_was_set_aside_are_counted(luna):
    (luna / "luna" / "subset3" / "1.2.3.raw").unlink()
    made = index.build(cohort(luna, luna=source("luna16", "luna", ["pretrain", "ncc"])), 1, 1)
    assert [row.rule for row in made.quarantine] == ["missing-data-file"]
    assert "luna: 2 findings are of scans that were set aside" in made.summary["notes"]


def labels(seed=0):
    return (ct(seed) > 700).astype(np.uint8)


@pytest.fixture
def liver(tmp_path):
    root = tmp_path / "raw"
    numbers = (0, 1, 2, 100, 101, 115, 116)
    for number in numbers:
        write_nifti(root / "liver" / "imagesTr" / f"liver_{number}.nii.gz", ct(number))
        write_nifti(root / "liver" / "labelsTr" / f"liver_{number}.nii.gz", labels(number))
    write_nifti(root / "liver" / "imagesTs" / "liver_131.nii.gz", ct(131))
    cases = [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"} for n in numbers
    ]
    tree = {"name": "Liver", "training": cases, "test": ["./imagesTs/liver_131.nii.gz"]}
    (root / "liver" / "dataset.json").write_text(json.dumps(tree))
    return root


def test_cases_have_their_label_map_and_its_hash(liver):
    made = index.build(cohort(liver, liver=source("decathlon", "liver", ["lcs"])), 1, 1)
    rows = {row.patient: row for row in made.scans}
    assert [rows[f"liver_{n}"].split for n in (0, 100, 115)] == ["train", "validation", "test"]
    row = rows["liver_0"]
    assert row.truth == "liver/labelsTr/liver_0.nii.gz"
    assert row.truth_sha256 == digest([liver / row.truth])[0]
    assert len(rows) == 7


def test_unlabelled_cases_serve_pre_training_alone(liver):
    made = index.build(cohort(liver, liver=source("decathlon", "liver", ["pretrain", "lcs"])), 1, 1)
    uses = {row.patient: row.use for row in made.scans}
    assert uses["liver_131"] == ("pretrain",)
    assert uses["liver_0"] == ("pretrain", "lcs")


def test_label_maps_that_cannot_be_used_set_their_scan_aside(liver):
    folder = liver / "liver" / "labelsTr"
    write_nifti(folder / "liver_0.nii.gz", labels()[:-1])
    write_nifti(folder / "liver_1.nii.gz", labels(), np.diag([2.0, 3, 5, 1]))
    write_nifti(folder / "liver_2.nii.gz", labels() + np.float32(0.5))
    write_nifti(folder / "liver_100.nii.gz", labels().astype(np.int16) - 1)
    (folder / "liver_115.nii.gz").write_bytes((folder / "liver_115.nii.gz").read_bytes()[:-9])
    made = index.build(cohort(liver, liver=source("decathlon", "liver", ["lcs"])), 1, 1)
    assert [row.rule for row in made.quarantine] == ["labels"] * 5
    text = " ".join(row.reason for row in made.quarantine)
    for words in (
        "its grid is not the scan's: 20 x 24 x 18 against 20 x 24 x 17 voxels",
        "its grid is not the scan's: their corners are up to",
        "whole numbers from 0 to 255, they run from 0.5 to 1.5",
        "they run from -1 to 0",
        "the compressed file liver_115.nii.gz ends too early",
    ):
        assert words in text
    assert sorted(row.patient for row in made.scans) == ["liver_101", "liver_116"]


# ------------------------------------------------------------------------------------------- what stops


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "got '.*nowhere', which does not exist"), ("raw/own/b.nii", "which is not a folder")],
)
def test_a_raw_folder_that_is_not_there_stops(raw, name, words):
    with pytest.raises(
        InputError, match=rf"^cohort\.raw: must be the folder that holds the raw data, .*{words}"
    ):
        index.build(cohort(raw.parent / name), 1, 1)


def test_a_source_that_is_not_there_or_holds_nothing_stops(raw):
    with pytest.raises(InputError, match=r"^cohort\.sources\.own\.path: there is no 'gone' in"):
        index.build(cohort(raw, own=source(path="gone")), 1, 1)
    (raw / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"^cohort\.sources\.own: .*empty holds no scans in the layout 'folder'"
    ):
        index.build(cohort(raw, own=source(path="empty")), 1, 1)
    with pytest.raises(
        InputError, match=r"^cohort\.sources\.own: .*own holds no scans in the layout 'luna16'"
    ):
        index.build(cohort(raw, own=source("luna16")), 1, 1)


def test_no_usable_scan_stops_with_counts_by_rule_and_an_example(tmp_path):
    for name in ("a.nii", "b.nii"):
        write_nifti(tmp_path / "own" / name, np.zeros(SHAPE, np.int16))
    (tmp_path / "own" / "c.zip").touch()
    with pytest.raises(
        InputError, match=r"no usable scan in .*by rule: constant 2, format 1, own/a\.nii for one: All voxels"
    ):
        index.build(cohort(tmp_path), 1, 1)


def test_one_usable_patient_stops_with_counts_by_rule(raw):
    for name in ("a.nii.gz", "b.nii", "d.raw"):
        (raw / "own" / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"pretrain needs usable scans of at least 2 patients.*got 1.*by rule: empty 3"
    ):
        index.build(cohort(raw), 1, 1)


# ------------------------------------------------------------------------------------------- processes


@pytest.mark.usefixtures("processes")
def test_a_scan_is_read_within_the_memory_that_its_header_explains(raw):
    jobs = [(raw, Entry(raw / "own" / "b.nii", "b", None, None, None), LIMITS)]
    (measured,) = index.each(index._measure_bounded, jobs, 1, 60)
    assert measured.sha256 == digest([raw / "own" / "b.nii"])[0]


@pytest.mark.usefixtures("processes")
def test_a_header_that_claims_terabytes_is_refused_in_its_process(raw):
    edit_header(raw / "own" / "d.mhd", DimSize="9999999 9999999 9999999")
    made = index.build(cohort(raw), 1, 2)
    assert [(row.path, row.rule) for row in made.quarantine] == [("own/d.mhd", "too-large")]


# ------------------------------------------------------------------------------------------- at the end


def test_the_table_at_the_end_counts_by_source_rule_and_split(luna, capsys):
    write_nifti(luna / "own" / "a.nii", ct(1))
    planted(luna, "b.nii", 1)
    (luna / "own" / "cut.nii").write_bytes((luna / "own" / "a.nii").read_bytes()[:-1])
    sources = {"luna": source("luna16", "luna", ["pretrain", "ncc"]), "own": source()}
    index.show(index.build(cohort(luna, **sources), 1, 1).summary)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    header, *lines = text.splitlines()
    assert header.split() == ["luna", "own", "all"]
    table = {what: numbers for what, *numbers in (re.split(" {2,}", line) for line in lines)}
    assert table["scans read"] == ["10", "2", "12"]
    assert table["refused: truncated"] == ["0", "1", "1"]
    assert table["twins found: pairs of scans"] == ["1"]
    assert table["twins found: patients' names replaced"] == ["1"]
    assert [sum(map(int, table[f"patients: {split}"][:2])) for split in ("train", "validation", "test")] == [
        int(table[f"patients: {split}"][2]) for split in ("train", "validation", "test")
    ]


def test_one_source_needs_no_columns_of_its_own(raw, capsys):
    index.show(index.build(cohort(raw), 1, 1).summary)
    assert capsys.readouterr().out.splitlines()[0].split() == ["scans", "read", "4"]
