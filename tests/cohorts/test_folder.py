"""No file of a folder is passed over in silence."""

import pytest

from sg.cohorts.folder import inside, list_folder
from sg.errors import InputError
from sg.params import Source
from tests.scan_files import ct, write_itk, write_nifti


def source(path="."):
    return Source(layout="folder", path=path, use=["pretrain"], leave_out=None, patients=None)


def touch(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def listed(root, path="."):
    listing = list_folder(root, source(path))
    return listing, [str(e.path) for e in listing.entries], {str(r.path): r.rule for r in listing.refused}


def test_scans_are_found_at_any_depth_sorted_and_a_patient_is_the_stem(tmp_path):
    touch(tmp_path, "z.nii.gz", "a/b/c.MHD", "a/k.mha", "1.2.3.nii")
    listing, paths, refused = listed(tmp_path)
    assert paths == ["1.2.3.nii", "a/b/c.MHD", "a/k.mha", "z.nii.gz"]
    assert [entry.patient for entry in listing.entries] == ["1.2.3", "c", "k", "z"]
    assert not refused


def test_paths_are_relative_to_raw_not_to_the_source(tmp_path):
    touch(tmp_path, "mine/a.nii", "other/b.nii")
    assert listed(tmp_path, "mine")[1] == ["mine/a.nii"]


def test_files_known_to_hold_no_scan_are_counted(tmp_path):
    touch(tmp_path, "a.json", "b.JSON", "c.csv", "README", "d.txt", ".DS_Store", "._a.nii.gz", "truth/a.h5")
    listing, paths, refused = listed(tmp_path)
    assert (paths, refused) == ([], {})
    assert listing.ignored == {"json": 2, "csv": 1, "readme": 1, "txt": 1, "hidden": 2, "truth": 1}


def test_other_formats_are_set_aside_with_what_this_version_reads(tmp_path):
    touch(tmp_path, "a.nrrd", "b.hdr", "b.img", "c.zip", "d", "e.npy", "sub/truth/a.h5")
    listing, paths, refused = listed(tmp_path)
    assert (paths, set(refused.values())) == ([], {"format"})
    assert list(refused) == ["a.nrrd", "b.hdr", "b.img", "c.zip", "d", "e.npy", "sub/truth/a.h5"]
    assert all("this version reads NIfTI (.nii, .nii.gz) and MetaImage" in r.reason for r in listing.refused)
    assert "NRRD format" in listing.refused[0].reason


def test_a_folder_of_dicom_is_one_row_whatever_its_files_are_called(tmp_path):
    touch(tmp_path, "p/1.dcm", "p/2.DCM", "p/info.txt")
    touch(tmp_path, "q/CT.1.2.840.1", "q/IM0001", content=bytes(128) + b"DICM" + bytes(9))
    listing, _, refused = listed(tmp_path)
    assert refused == {"p": "format", "q": "format"}
    assert "2 DICOM files" in listing.refused[0].reason


def test_voxels_belong_to_the_header_that_names_them_or_are_set_aside(tmp_path):
    write_itk(tmp_path / "a.mhd", ct())
    write_itk(tmp_path / "b.mhd", ct(), compress=True)
    path = write_itk(tmp_path / "c.mhd", ct())
    (tmp_path / "c.raw").rename(tmp_path / "voxels of c.raw")
    path.write_text(path.read_text().replace("c.raw", "voxels of c.raw"))
    touch(tmp_path, "lost.raw")
    _, paths, refused = listed(tmp_path)
    assert paths == ["a.mhd", "b.mhd", "c.mhd"]
    assert refused == {"lost.raw": "format"}


def test_links_to_folders_are_not_followed_and_said(tmp_path):
    touch(tmp_path / "out", "a.nii")
    raw = tmp_path / "raw"
    touch(raw, "b.nii")
    (raw / "link").symlink_to(tmp_path / "out")
    (raw / "round").symlink_to(raw)
    _, paths, refused = listed(raw)
    assert (paths, refused) == (["b.nii"], {"link": "link", "round": "link"})


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path):
    with open(bytes(tmp_path) + b"/\xff.nii", "wb") as file:
        file.write(b"x")
    _, paths, refused = listed(tmp_path)
    assert (paths, list(refused.values())) == ([], ["name"])


@pytest.mark.parametrize("name", ["a\rb.nii", "a\nb.nii", "a\x1b[31m.nii"])
def test_a_name_that_cannot_be_shown_is_set_aside(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    _, paths, refused = listed(tmp_path)
    assert (paths, list(refused.values())) == ([], ["name"])


def test_files_of_one_name_are_one_patient_and_a_warning_says_so(tmp_path):
    for patient in "ab":
        write_nifti(tmp_path / patient / "ct.nii.gz", ct())
    listing, _, _ = listed(tmp_path)
    assert {entry.patient for entry in listing.entries} == {"ct"}
    assert "2 files in . are named ct, so they count as one patient" in listing.warnings[0]


def test_a_name_in_the_parameters_must_be_there_and_inside(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"cohort.sources.a.path: there is no 'x' in"):
        inside(tmp_path / "raw", "x", "cohort.sources.a.path")
    with pytest.raises(InputError, match="leads out of it by a link"):
        inside(tmp_path / "raw", "link", "cohort.sources.a.path")
