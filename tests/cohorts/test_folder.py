"""No file of a folder is passed over in silence, whatever lies there and however much of it."""

import os
import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import pytest

from sg.cohorts import walking
from sg.cohorts.folder import inside, list_folder, names
from sg.cohorts.records import Entry
from sg.errors import InputError
from sg.params import Source
from tests.dicom_files import write_series
from tests.scan_files import ct, write_itk, write_nifti


def source(path="."):
    return Source(layout="folder", path=path, use=["pretrain"], leave_out=None, patients=None)


def touch(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def listed(root, path="."):
    listing = list_folder(root, source(path), 1)
    return listing, [str(e.path) for e in listing.entries], {str(r.path): r.rule for r in listing.refused}


def reasons(root):
    return {str(r.path): r.reason for r in list_folder(root, source(), 1).refused}


def test_scans_are_found_at_any_depth_sorted_and_a_patient_is_the_stem(tmp_path):
    touch(tmp_path, "z.nii.gz", "a/b/c.MHD", "a/k.mha", "1.2.3.nii", "a/n.nrrd", "a/b/h.nhdr", "p.hdr")
    listing, paths, refused = listed(tmp_path)
    assert paths == ["1.2.3.nii", "a/b/c.MHD", "a/b/h.nhdr", "a/k.mha", "a/n.nrrd", "p.hdr", "z.nii.gz"]
    assert [entry.patient for entry in listing.entries] == ["1.2.3", "c", "h", "k", "n", "p", "z"]
    assert not refused


def test_a_folder_named_truth_hides_nothing_but_what_phantoms_keep_there(tmp_path):
    touch(tmp_path, "truth/a.h5", "truth/b.nii", "truth/c.foo")
    listing, paths, refused = listed(tmp_path)
    assert (paths, refused, listing.ignored) == (["truth/b.nii"], {"truth/c.foo": "format"}, {"truth": 1})


def test_paths_are_relative_to_raw_not_to_the_source(tmp_path):
    touch(tmp_path, "mine/a.nii", "other/b.nii")
    assert listed(tmp_path, "mine")[1] == ["mine/a.nii"]


def test_files_known_to_hold_no_scan_are_counted(tmp_path):
    touch(
        tmp_path,
        "a.json",
        "b.JSON",
        "c.csv",
        "README",
        "d.txt",
        ".DS_Store",
        "._a.nii.gz",
        "truth/a.h5",
        "DICOMDIR",
    )
    listing, paths, refused = listed(tmp_path)
    assert (paths, refused) == ([], {})
    assert listing.ignored == {
        "json": 2, "csv": 1, "readme": 1, "txt": 1, "hidden": 2, "truth": 1, "DICOM DICOMDIR": 1
    }  # fmt: skip


def test_other_formats_are_set_aside_with_what_is_read(tmp_path):
    touch(tmp_path, "c.zip", "d", "e.npy", "sub/truth/a.h5", "IM.000012")
    listing, paths, refused = listed(tmp_path)
    assert (paths, set(refused.values())) == ([], {"format"})
    assert list(refused) == ["IM.000012", "c.zip", "d", "e.npy", "sub/truth/a.h5"]
    said = [refused.reason for refused in listing.refused]
    assert all("read are NIfTI (.nii, .nii.gz, .hdr with .img), MetaImage" in reason for reason in said)
    assert "no known format (no suffix)" in said[0]
    assert "no known format (.zip)" in said[1]


def test_voxels_belong_to_the_header_that_names_them_or_are_set_aside(tmp_path):
    write_itk(tmp_path / "a.mhd", ct())
    write_itk(tmp_path / "b.mhd", ct(), compress=True)
    path = write_itk(tmp_path / "c.mhd", ct())
    (tmp_path / "c.raw").rename(tmp_path / "voxels of c.dat")
    path.write_text(path.read_text().replace("c.raw", "voxels of c.dat"))
    write_itk(tmp_path / "d.nhdr", ct())
    write_itk(tmp_path / "e.nhdr", ct(), compress=True)
    write_nifti(tmp_path / "f.hdr", ct(), kind=nib.Nifti1Pair)
    touch(tmp_path, "lost.raw", "lost.img.gz", "sub/a.raw")
    listing, paths, refused = listed(tmp_path)
    assert paths == ["a.mhd", "b.mhd", "c.mhd", "d.nhdr", "e.nhdr", "f.hdr"]
    assert refused == dict.fromkeys(["lost.img.gz", "lost.raw", "sub/a.raw"], "format")
    assert "bare voxels that no header" in listing.refused[0].reason


def test_voxels_beside_a_damaged_header_of_their_name_are_its_own(tmp_path):
    touch(tmp_path, "a.mhd", "a.zraw", "b.hdr", "b.img", "c.nhdr", "c.raw.gz", content=b"no header")
    assert listed(tmp_path)[1:] == (["a.mhd", "b.hdr", "c.nhdr"], {})


def test_links_are_followed_to_files_inside_and_nowhere_else(tmp_path):
    raw = tmp_path / "raw"
    touch(raw, "b.nii", "sub/x.dat")
    touch(tmp_path / "out", "a.nii", "secret.dat")
    (raw / "folder").symlink_to(tmp_path / "out")
    (raw / "round").symlink_to(raw)
    (raw / "one").symlink_to(raw / "other")
    (raw / "other").symlink_to(raw / "one")
    (raw / "nowhere").symlink_to(raw / "gone")
    (raw / "out.dat").symlink_to(tmp_path / "out" / "secret.dat")
    (raw / "fine.nii").symlink_to(raw / "b.nii")
    _, paths, refused = listed(raw)
    assert paths == ["b.nii", "fine.nii"]
    assert refused == {
        "folder": "link", "round": "link", "one": "unreadable", "other": "unreadable",
        "nowhere": "missing-data-file", "out.dat": "outside-folder", "sub/x.dat": "format",
    }  # fmt: skip


def test_a_pipe_is_set_aside_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert listed(tmp_path)[2] == {"pipe": "format", "pipe.dcm": "format"}


@contextmanager
def not_root():
    """A folder in which this process is a user without rights of his own, if it may become one."""
    if os.geteuid():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_what_may_not_be_read_or_listed_is_set_aside_with_the_reason():
    with not_root() as raw:
        touch(raw, "a.dat", "b", "shut/x.nii", "fine.nii")
        for name in ("a.dat", "b", "shut"):
            (raw / name).chmod(0)
        try:
            said = reasons(raw)
        finally:
            (raw / "shut").chmod(0o700)
    assert said == {
        "a.dat": "The file a.dat cannot be read: permission denied.",
        "b": "The file b cannot be read: permission denied.",
        "shut": "The folder cannot be listed: permission denied.",
    }


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path):
    with open(bytes(tmp_path) + b"/\xff.nii", "wb") as file:
        file.write(b"x")
    _, paths, refused = listed(tmp_path)
    assert (paths, list(refused.values())) == ([], ["name"])


@pytest.mark.parametrize("name", ["a\rb.nii", "a\nb.nii", "a\x1b[31m.nii", "a\nb/c.dcm"])
def test_a_name_that_cannot_be_shown_is_set_aside(tmp_path, name):
    touch(tmp_path, name)
    _, paths, refused = listed(tmp_path)
    assert (paths, list(refused.values())) == ([], ["name"])


def test_odd_and_long_names_are_fine(tmp_path):
    odd = ["-rf.nii", "a b, 'c' \"d\".nii", "größe µ.nii", "患者.nii", "*.nii", "%s {0}.nii"]
    deep = "/".join(["x" * 99] * 3 + ["scan.nii"])
    touch(tmp_path, *odd, deep)
    assert len(deep) > 300
    _, paths, refused = listed(tmp_path)
    assert (sorted(paths), refused) == (sorted([*odd, deep]), {})


def test_files_of_one_name_are_one_patient_and_a_warning_says_so(tmp_path):
    for patient in "ab":
        write_nifti(tmp_path / patient / "ct.nii.gz", ct())
        write_series(tmp_path / patient, ct()[:2, :4, :4], series=patient, patient="P1")
    listing, _, _ = listed(tmp_path)
    assert {entry.patient for entry in listing.entries} == {"ct", "P1"}
    (warning,) = listing.warnings
    assert "2 files in . are named ct, so they count as one patient" in warning


def test_the_order_in_which_a_file_system_lists_names_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "LISTED", 3)
    monkeypatch.setattr(walking, "KINDS", 2)
    touch(
        tmp_path,
        *(f"{i % 3}/{i}.{kind}" for i in range(20) for kind in ("nii", "dat", "h5", "npy", "zip", "a")),
    )
    write_series(tmp_path / "s", ct()[:3, :4, :4])
    touch(tmp_path, "s/broken.dcm")
    scandir, found = os.scandir, []
    for order in (sorted, lambda items, key: sorted(items, key=key, reverse=True)):
        monkeypatch.setattr(os, "scandir", lambda path, o=order: iter(o(scandir(path), key=lambda e: e.name)))
        found.append(list_folder(tmp_path, source(), 1))
    monkeypatch.undo()
    assert found[0] == found[1]
    assert [str(refused.path) for refused in found[0].refused if refused.path.suffix == ".a"] == [
        "0/0.a", "0/12.a", "0/15.a"
    ]  # fmt: skip
    assert found[0].ignored == {"a, not read": 17, "dat, not read": 17, "other kinds, not read": 57}


def test_files_of_unknown_kind_are_listed_up_to_a_number_and_then_counted(tmp_path):
    touch(tmp_path, *(f"{i:03d}.dat" for i in range(130)), "a.npy", *(f"{i:03d}" for i in range(101)))
    listing, _, refused = listed(tmp_path)
    assert listing.ignored == {"dat, not read": 30, "no suffix, not read": 1}
    assert sorted(refused) == sorted(
        [*(f"{i:03d}.dat" for i in range(100)), "a.npy", *(f"{i:03d}" for i in range(100))]
    )
    assert listing.warnings == [
        "130 files were set aside unread (dat); the first 100 of a kind are listed one by one, the other 30 are only "
        "counted",
        "101 files were set aside unread (no suffix); the first 100 of a kind are listed one by one, the other 1 are only "
        "counted",
    ]


def test_the_number_of_kinds_is_bounded_too(tmp_path):
    touch(tmp_path, *(f"a.k{i:03d}" for i in range(200)))
    listing, _, refused = listed(tmp_path)
    assert len(refused) == walking.KINDS + walking.LISTED
    assert listing.ignored == {"other kinds, not read": 50}


def test_memory_does_not_grow_with_the_number_of_files_that_are_no_scans(tmp_path):
    files = 20_000
    (tmp_path / "one.dat").write_bytes(b"x")
    for i in range(files - 1):
        os.link(tmp_path / "one.dat", tmp_path / f"{i}.dat")
    peaks = []
    for _ in range(2):  # the first may load or remember something once
        tracemalloc.start()
        listing, _, _ = listed(tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert listing.ignored == {"dat, not read": files - 100}
    assert min(peaks) < 10 * files, "bytes: less than a name takes"


def test_folders_may_be_deeper_than_the_files_that_a_process_may_open(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "OPEN_FOLDERS", 3)
    touch(tmp_path, *("/".join("abcdef"[:n]) + f"/{n}.nii" for n in range(1, 7)))
    assert len(listed(tmp_path)[1]) == 6


def test_a_list_may_name_a_scan_by_file_series_or_folder():
    plain = Entry(Path("mine/p/a.nii"), "a", None, None, None)
    assert names(plain, source("mine")) == ["mine/p/a.nii", "p/a.nii", "mine/p", "p"]
    files = (Path("mine/p/1/x"), Path("mine/p/2/y"))
    series = Entry(Path("mine/p"), "P", None, "1.2.3", None, files=files)
    assert names(series, source("mine")) == [
        "mine/p/1/x", "p/1/x", "mine/p/2/y", "p/2/y", "1.2.3", "mine/p", "p", "mine/p/1", "p/1", "mine/p/2", "p/2"
    ]  # fmt: skip


def test_the_source_s_own_folder_names_only_the_series_that_lies_in_it_directly():
    assert names(Entry(Path("a/b.nii"), "b", None, None, None), source("a")) == ["a/b.nii", "b.nii"]
    top = Entry(Path(), "P", None, None, None, files=(Path("x"),))
    assert names(top, source()) == ["x", "."]


def test_a_name_in_the_parameters_must_be_there_and_inside(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"cohort.sources.a.path: there is no 'x' in"):
        inside(tmp_path / "raw", "x", "cohort.sources.a.path")
    with pytest.raises(InputError, match="leads out of it by a link"):
        inside(tmp_path / "raw", "link", "cohort.sources.a.path")
