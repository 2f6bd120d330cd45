"""What files and folders hold, told right whatever they are called and however often they are named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from sg import inspection
from sg.errors import InputError
from sg.formats.headers import Geometry
from sg.inspection import inspect, limits_of, lines, oblique_degrees, shown, tilt_degrees
from tests.dicom_files import uid, write_series
from tests.scan_files import LIMITS, ORIGIN_MM, SPACING_MM, ct, write_itk, write_nifti

GOOD = {
    "a.nii.gz": ("NIfTI", 1),
    "b.nii": ("NIfTI", 1),
    "c.mha": ("MetaImage", 1),
    "d.mhd": ("MetaImage", 2),
    "deep/e.nrrd": ("NRRD", 1),
    "deep/f": ("DICOM", 18),
}
REFUSED = {
    "bad/cut.nii.gz": "truncated",
    "bad/text.nii": "format",
    "bad/thin.nii": "too-small",
    "bad/unknown.xyz": "format",
    "bad/grey.nii": "not-ct",
}
TILT = np.array([[1, 0, 0], [0, 1, np.sin(0.2)], [0, 0, np.cos(0.2)]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of good and bad scans of every format, with a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate(GOOD):
        path = folder / name
        if path.suffix.startswith(".ni") or path.suffix == ".gz":
            write_nifti(path, ct(number))
        elif path.suffix:
            write_itk(path, ct(number), compress=True)
        else:
            write_series(path, ct(number), direction=TILT, patient="P7")
    bad = folder / "bad"
    bad.mkdir()
    (bad / "cut.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:-3000])
    (bad / "text.nii").write_text("Dear Sir or Madam, " * 100)
    write_nifti(bad / "thin.nii", ct(shape=(3, 24, 20)))
    (bad / "unknown.xyz").write_text("?")
    write_nifti(bad / "grey.nii", ct().clip(0, 255))
    (folder / "readme.txt").write_text("About these scans.")
    return folder


@pytest.fixture(scope="module")
def inspected(folder):
    return inspect([folder], LIMITS, 2)


def of(inspection, root):
    return {str(scan.path.relative_to(root)): scan for scan in inspection.scans}


def told(inspection, paths, width=110):
    return [line.plain for text in lines(inspection, paths, width) for line in text.split()]


def test_every_format_is_told_with_its_geometry_range_and_patient(inspected, folder):
    scans = of(inspected, folder)
    for number, (name, (kind, files)) in enumerate(GOOD.items()):
        scan, values = scans[name], ct(number)
        assert scan.refusal is None, scan
        assert (scan.format, scan.files, scan.modality) == (kind, files, "CT")
        assert scan.geometry.size == (20, 24, 18)
        np.testing.assert_allclose(scan.geometry.spacing_mm, SPACING_MM, rtol=1e-6)
        np.testing.assert_allclose(scan.geometry.origin_mm, ORIGIN_MM, rtol=1e-6)
        assert (scan.low_hu, scan.high_hu) == (values.min(), values.max())
        assert scan.bytes in ((values.nbytes,) if kind != "DICOM" else (values.nbytes, 2 * values.nbytes))
    assert [scans[name].patient for name in GOOD] == ["a", "b", "c", "d", "e", "P7"]
    assert scans["deep/f"].series == uid("chest")
    assert scans["a.nii.gz"].series is None


def test_each_refused_file_is_told_with_its_rule_and_reason(inspected, folder):
    refused = {str(scan.path.relative_to(folder)): scan.refusal for scan in inspected.refused}
    assert {name: refusal.rule for name, refusal in refused.items()} == REFUSED
    assert "copy it again from its source" in refused["bad/cut.nii.gz"].reason
    assert inspected.ignored == {"txt": 1}


def test_what_could_be_learned_of_a_refused_scan_is_told(inspected, folder):
    scans = of(inspected, folder)
    cut, thin, grey, text = (
        scans[f"bad/{name}"] for name in ("cut.nii.gz", "thin.nii", "grey.nii", "text.nii")
    )
    assert (cut.geometry.size, cut.low_hu) == ((20, 24, 18), None)
    assert (thin.geometry.size, thin.low_hu, thin.high_hu) == (
        (20, 24, 3),
        ct(shape=(3, 24, 20)).min(),
        ct(shape=(3, 24, 20)).max(),
    )
    assert (grey.geometry.size, grey.modality) == ((20, 24, 18), None)
    assert (text.geometry, text.format, text.patient) == (None, None, "text")


def test_scans_are_sorted_by_path(inspected):
    names = [str(scan.path) for scan in inspected.scans]
    assert names == sorted(names)


def test_objects_are_plain_json_in_which_numbers_are_numbers(inspected, folder):
    objects = json.loads(json.dumps([scan.as_dict() for scan in inspected.scans], allow_nan=False))
    good = next(item for item in objects if item["path"] == str(folder / "deep" / "f"))
    assert good["usable"] is True
    assert (good["rule"], good["reason"]) == (None, None)
    assert (good["size"], good["orientation"]) == ([20, 24, 18], "LPS")
    assert good["spacing_mm"] == pytest.approx(SPACING_MM)
    assert len(good["direction"]) == 9
    assert good["tilt_degrees"] == pytest.approx(np.degrees(0.2), abs=1e-3)
    bad = next(item for item in objects if item["rule"] == "truncated")
    assert (bad["usable"], bad["low_hu"], bad["reason"][-1]) == (False, None, ".")
    assert all(item.keys() == good.keys() for item in objects)


def test_paths_that_overlap_yield_each_scan_once(inspected, folder):
    series = sorted((folder / "deep" / "f").iterdir())
    again = [
        folder,
        folder / "deep",
        folder / "a.nii.gz",
        folder / "bad" / "cut.nii.gz",
        *series,
        folder / "bad" / ".." / "bad",
    ]
    once = [scan.as_dict() for scan in inspected.scans]
    assert [scan.as_dict() for scan in inspect(again, LIMITS, 2).scans] == once
    parts = inspect([folder / "a.nii.gz", folder / "deep", folder / "deep", folder / "a.nii.gz"], LIMITS, 2)
    assert [scan.path for scan in parts.scans] == [
        folder / "a.nii.gz",
        folder / "deep" / "e.nrrd",
        folder / "deep" / "f",
    ]


def test_files_named_one_by_one_are_put_together(folder, tmp_path):
    series = sorted((folder / "deep" / "f").iterdir())
    other = write_series(tmp_path / "other", ct(7), series="other", patient="P8")
    data = sorted(folder.glob("d.*"))
    found = inspect([*series, *other, *data], LIMITS, 2)
    assert {(scan.path, scan.files, scan.patient) for scan in found.scans} == {
        (folder / "deep" / "f", 18, "P7"),
        (tmp_path / "other", 18, "P8"),
        (folder / "d.mhd", 2, "d"),
    }
    assert not found.refused


def test_dicom_files_without_a_volume_and_texts_among_others_are_ignored_but_answered_alone(folder, tmp_path):
    (plan,) = write_series(tmp_path / "plan", ct(shape=(1, 24, 20)), modality="RTPLAN", extra=as_plan)
    readme = folder / "readme.txt"
    found = inspect([plan, readme, folder / "b.nii"], LIMITS, 1)
    assert [scan.path for scan in found.scans] == [folder / "b.nii"]
    assert found.ignored == {"txt": 1, "DICOM RTPLAN": 1}
    for path, why in (
        (plan, "000.dcm holds no scan, it is a DICOM RTPLAN."),
        (readme, "readme.txt is of no format"),
    ):
        (alone,) = inspect([path], LIMITS, 1).scans
        assert (alone.refusal.rule, alone.format) == ("format", None)
        assert alone.refusal.reason.startswith(why)


def as_plan(ds, z):
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"


def test_series_that_share_a_folder_are_told_apart_by_their_uids(tmp_path):
    write_series(tmp_path / "a", ct(1), series="one")
    for path in write_series(tmp_path / "b", ct(2), series="two"):
        path.rename(tmp_path / "a" / f"b{path.name}")
    found = inspect([tmp_path], LIMITS, 1)
    ends = sorted(uid(name)[-8:] for name in ("one", "two"))
    lines = [line.split("  ")[0] for line in told(found, [tmp_path]) if line.startswith("a ")]
    assert sorted(lines) == [f"a (series ...{end})" for end in ends]


def test_a_single_file_is_looked_at_alone(folder):
    (scan,) = inspect([folder / "deep" / "e.nrrd"], LIMITS, 1).scans
    assert (scan.path, scan.refusal) == (folder / "deep" / "e.nrrd", None)
    (slice_,) = inspect([folder / "deep" / "f" / "000.dcm"], LIMITS, 1).scans
    assert (slice_.path, slice_.refusal.rule) == (folder / "deep" / "f" / "000.dcm", "too-small")


def test_a_reader_that_breaks_down_over_small_scans_costs_none_of_them(tmp_path, monkeypatch):
    for number in range(8):
        write_nifti(tmp_path / f"{number}.nii", ct(number))
    monkeypatch.setattr(inspection, "_look_at_all", break_down)
    found = inspect([tmp_path], LIMITS, 1)
    assert [(scan.path.name, scan.refusal) for scan in found.scans] == [(f"{n}.nii", None) for n in range(8)]


def break_down(places, limits):
    """Stands for reading several scans of which one takes the process down."""
    os.abort()


def test_an_empty_folder_holds_nothing_and_refuses_nothing(tmp_path):
    found = inspect([tmp_path], LIMITS, 1)
    assert (found.scans, found.summary) == ([], "0 usable, 0 refused, 0 other files ignored")
    assert told(found, [tmp_path])[-1].startswith("there is no scan here")


def test_a_path_where_nothing_is_is_an_input_error(tmp_path, folder):
    with pytest.raises(InputError, match=r"nowhere\\x1b\.nii: there is no such file or folder"):
        inspect([folder, tmp_path / "nowhere\x1b.nii"], LIMITS, 1)


def test_links_and_what_is_no_file_are_refused(tmp_path):
    (tmp_path / "to-nothing.nii").symlink_to(tmp_path / "nothing.nii")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    paths = sorted(tmp_path.iterdir())
    rules = {scan.path.name: scan.refusal.rule for scan in inspect(paths, LIMITS, 1).scans}
    assert rules == {"loop": "unreadable", "pipe": "format", "to-nothing.nii": "missing-data-file"}


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "secret").write_text("?")
    (tmp_path / "secret").chmod(0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    (scan,) = inspect([tmp_path / "secret"], LIMITS, 1).scans
    assert scan.refusal.rule == "unreadable"


@pytest.mark.parametrize("width", [80, 110])
def test_lines_fit_the_terminal_and_hold_every_path_whole(tmp_path, width):
    long = tmp_path / ("a-name-of-a-folder/" * 8) / f"{'scan' * 20}.nii"
    write_nifti(long, ct())
    write_nifti(tmp_path / "short.nii", ct())
    (long.parent / "bad.nii").write_text("no scan, but text")
    found = inspect([tmp_path], LIMITS, 1)
    text = told(found, [tmp_path], width)
    assert max(map(cell_len, text)) <= width
    for scan in found.scans:
        assert str(scan.path.relative_to(tmp_path)) in "".join(text)
    assert text[-1] == "2 usable, 1 refused (format 1), 0 other files ignored"


def test_short_paths_stand_beside_what_is_told_of_them(inspected, folder):
    (line,) = (line for line in told(inspected, [folder]) if line.startswith("deep/f "))
    assert line.split() == ["deep/f", "20x24x18", "4x3x5", "LPS*", "-1000..1000", "P7", "ok"]


def test_a_single_file_is_described_at_length(folder):
    text = told(inspect([folder / "d.mhd"], LIMITS, 1), [folder / "d.mhd"])
    assert text[-1].split() == ["verdict", "ok"]
    assert "  format       MetaImage, 2 files" in text
    assert "  extent       80 x 72 x 90 mm" in text
    assert "  intensity    -1000 to 1000 HU" in text


def test_nothing_that_controls_a_terminal_is_shown(tmp_path):
    assert shown("a\x1b[31m\nb\u202e\udcff é") == r"a\x1b[31m\nb\u202e\udcff é"
    name = os.fsdecode(b"e\x1b[2Jvil\xff.nii")
    write_nifti(tmp_path / "good.nii", ct()).rename(tmp_path / name)
    for paths in ([tmp_path], [tmp_path / name]):
        found = inspect(paths, LIMITS, 1)
        text = "".join(told(found, paths))
        assert found.refused[0].refusal.rule == "name"
        assert text.isprintable()
        json.dumps(found.scans[0].as_dict()["path"]).encode("ascii")
        assert "udc" in found.scans[0].as_dict()["path"]


def test_angles_of_turned_and_sheared_axes():
    turn, tilt = np.radians(10), np.radians(12)
    straight = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    turned = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, -1]]
    sheared = [[1, 0, 0], [0, 1, np.sin(tilt)], [0, 0, np.cos(tilt)]]

    def axes(matrix):
        return Geometry(straight.size, straight.spacing_mm, straight.origin_mm, tuple(np.ravel(matrix)))

    assert (oblique_degrees(straight), tilt_degrees(straight)) == (0, 0)
    assert oblique_degrees(axes(turned)) == pytest.approx(10)
    assert tilt_degrees(axes(turned)) == pytest.approx(0, abs=1e-6)
    assert tilt_degrees(axes(sheared)) == pytest.approx(12)


def test_limits_are_those_of_the_working_directory_else_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = inspection.CONFIG
    assert limits_of(None) == (inspection.load(here).cohort.limits, here)
    text = here.read_text().replace("slices_min: 16", "slices_min: 5")
    Path("params.yaml").write_text(text)
    assert limits_of(None)[0].slices_min == 5
    Path("other.yaml").write_text(text.replace("slices_min: 5", "slices_min: 6"))
    limits, source = limits_of(Path("other.yaml"))
    assert (limits.slices_min, source) == (6, Path("other.yaml"))


def test_limits_that_cannot_be_had_are_an_input_error_that_names_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"none\.yaml: there is no such file; .* with --params"):
        limits_of(Path("none.yaml"))
    monkeypatch.setattr(inspection, "CONFIG", tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"there is no params\.yaml here; .* with --params"):
        limits_of(None)
    Path("params.yaml").write_text("lr: 1\n")
    with pytest.raises(InputError, match=r"(?s)params\.yaml: lr: there is no such parameter.*with --params"):
        limits_of(None)
