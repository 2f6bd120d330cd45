"""NRRD is read as SimpleITK reads it, or refused in words."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from sg.formats.nrrd import TYPES
from sg.scans import Refusal, files_of, read_header, read_scan
from tests.scan_files import LIMITS, ORIGIN_MM, SHAPE, SPACING_MM, ct, edit_nrrd, write_itk

NAMES = ["a.nrrd", "a.nhdr"]


def check_refused(path, rule, words="", limits=LIMITS, root=None):
    with pytest.raises(Refusal) as caught:
        read_scan(path, root or path.parent, limits)
    assert (caught.value.rule, words in caught.value.reason) == (rule, True), caught.value
    assert caught.value.reason.endswith(".")


def check_as_simpleitk(path):
    """Voxels and positions are those that SimpleITK reads."""
    image, scan = sitk.ReadImage(str(path)), read_scan(path, path.parent, None)
    np.testing.assert_array_equal(scan.array, sitk.GetArrayFromImage(image))
    geometry = scan.geometry
    np.testing.assert_allclose(geometry.spacing_mm, image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(geometry.origin_mm, image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(geometry.direction, image.GetDirection(), atol=1e-6)
    return scan


# ------------------------------------------------------------------------------------ as it was written


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compress", [False, True])
def test_a_scan_is_read_as_simpleitk_wrote_it(tmp_path, name, compress):
    scan = read_scan(write_itk(tmp_path / name, ct(), compress), tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct())
    assert (scan.geometry.size, scan.geometry.orientation, scan.modality) == (SHAPE[::-1], "LPS", "CT")
    assert (scan.geometry.spacing_mm, scan.geometry.origin_mm) == (SPACING_MM, ORIGIN_MM)


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_name_of_every_type_is_read_in_both_byte_orders(tmp_path, code, endian):
    path = write_itk(tmp_path / "a.nhdr", np.zeros((3, 4, 5), np.int16))
    values = ct(shape=(3, 4, 5)) % 100
    (tmp_path / "a.raw").write_bytes(values.astype(np.dtype(code).newbyteorder(endian[0])).tobytes())
    for name in (TYPES[code][0].upper(), *TYPES[code]):
        edit_nrrd(path, {"type": name, "endian": endian if code[1] != "1" else None})
        np.testing.assert_array_equal(check_as_simpleitk(path).array, values, name)


@pytest.mark.parametrize(
    ("space", "orientation"),
    [
        ("left-posterior-superior", "LPS"),
        ("LPS", "LPS"),
        ("right-anterior-superior", "RAS"),
        ("ras", "RAS"),
        ("left-anterior-superior", "LAS"),
        ("LAS", "LAS"),
    ],
)
def test_every_space_of_a_patient_is_turned_into_lps(tmp_path, space, orientation):
    path = edit_nrrd(write_itk(tmp_path / "a.nrrd", ct()), {"space": space})
    geometry = read_header(path, tmp_path, LIMITS).geometry
    assert geometry.orientation == orientation
    signs = [1 if letter in "LPS" else -1 for letter in orientation]
    np.testing.assert_allclose(geometry.origin_mm, np.multiply(ORIGIN_MM, signs))
    check_as_simpleitk(path)


@pytest.mark.parametrize("at", range(4))
def test_a_fourth_axis_with_one_volume_is_passed_over_wherever_it_is(tmp_path, at):
    def among(words, extra):
        return " ".join([*words[:at], extra, *words[at:]])

    path = write_itk(tmp_path / "a.nrrd", ct())
    changes = {
        "dimension": "4",
        "sizes": among([str(n) for n in SHAPE[::-1]], "1"),
        "space directions": among(["(4,0,0)", "( 0, 3, 0 )", "(0,0,5)"], "none"),
        "kinds": among(["domain", "space", "domain"], "list"),
    }
    scan = read_scan(edit_nrrd(path, changes), tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct())
    assert scan.geometry.spacing_mm == SPACING_MM
    check_refused(
        edit_nrrd(path, {"sizes": among(["20", "24", "9"], "2")}), "format", "several volumes or channels"
    )


def test_comments_keys_other_line_ends_and_fields_without_meaning_here_change_nothing(tmp_path):
    path = write_itk(tmp_path / "a.nrrd", ct())
    edit_nrrd(
        path,
        {
            "# type": "float",
            "sizes=": "1 2 3",
            "a: b=": "c:=d",
            "modality=": "CT",
            "content": "Thorax: Größe",
            "centers": "cell cell cell",
            "thicknesses": "nan nan 5",
            "space units": '"mm" "mm" "mm"',
            "spacings": "nan NaN 5",
            "axis mins": "nan nan nan",
            "labels": '"a b" "" "c"',
            "old min": "nan",
            "number": str(np.prod(SHAPE)),
            "min": "-1000",
        },
    )
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())
    head, blank, voxels = path.read_bytes().partition(b"\n\n")
    path.write_bytes((head + blank).replace(b"\n", b"\r\n") + voxels)
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())


def test_centring_moves_no_voxel(tmp_path):
    path = write_itk(tmp_path / "a.nrrd", ct())
    for centring in ("cell", "node"):
        edit_nrrd(path, {"centerings": " ".join([centring] * 3)})
        assert check_as_simpleitk(path).geometry.origin_mm == ORIGIN_MM


# -------------------------------------------------------------------------------------------- data files


@pytest.mark.parametrize("compressed", [gzip.compress, zlib.compress, None])
@pytest.mark.parametrize(
    "skip", [{"byte skip": "7"}, {"line skip": "2"}, {"line skip": "2", "byte skip": "7"}]
)
def test_lines_are_skipped_in_the_file_and_bytes_in_what_comes_out(tmp_path, compressed, skip):
    path = edit_nrrd(
        write_itk(tmp_path / "a.nhdr", ct()), {"encoding": "gzip" if compressed else "raw", **skip}
    )
    content = b"\1" * 7 * ("byte skip" in skip) + ct().tobytes()
    (tmp_path / "a.raw").write_bytes(
        b"P5\n20 24\n" * ("line skip" in skip) + (compressed(content) if compressed else content)
    )
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())
    if compressed is not zlib.compress:  # which Teem takes for raw
        check_as_simpleitk(path)


def test_voxels_may_be_counted_from_the_end_of_a_raw_file(tmp_path):
    path = edit_nrrd(write_itk(tmp_path / "a.nhdr", ct()), {"byte skip": "-1"})
    (tmp_path / "a.raw").write_bytes(b"another program's header" + ct().tobytes())
    np.testing.assert_array_equal(check_as_simpleitk(path).array, ct())
    (tmp_path / "a.raw").write_bytes(ct().tobytes()[1:])
    check_refused(path, "truncated")
    check_refused(edit_nrrd(path, {"encoding": "gzip"}), "header", "byte skip: -1")


def test_a_data_file_may_lie_deeper_and_have_any_name(tmp_path):
    path = write_itk(tmp_path / "a.nhdr", ct())
    (tmp_path / "sub dir").mkdir()
    for name in ("sub dir/Größe 1.raw", "./a b.raw"):
        (tmp_path / name).write_bytes(ct().tobytes())
        path.write_bytes(path.read_bytes().partition(b"data")[0] + f"datafile:{name}\n\n".encode())
        np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())
        assert files_of(path, tmp_path) == (path, tmp_path / name)


@pytest.mark.parametrize("name", ["/etc/hostname", "../out.raw", "sub/../../out.raw", "C:\\out.raw"])
def test_a_header_that_points_outside_its_folder_is_refused(tmp_path, name):
    (tmp_path / "out.raw").write_bytes(ct().tobytes())
    path = edit_nrrd(write_itk(tmp_path / "in" / "a.nhdr", ct()), {"data file": name})
    check_refused(path, "outside-folder", "outside its own folder", root=tmp_path)


def test_a_missing_linked_or_empty_data_file_is_refused(tmp_path):
    path = write_itk(tmp_path / "in" / "a.nhdr", ct())
    voxels = tmp_path / "in" / "a.raw"
    voxels.rename(tmp_path / "a.raw")
    check_refused(path, "missing-data-file", "a.raw, which is not there")
    voxels.symlink_to(tmp_path / "a.raw")
    check_refused(path, "outside-folder", "a link that leads out", root=tmp_path)
    voxels.unlink()
    voxels.write_bytes(b"")
    check_refused(path, "empty", "a.raw is empty")


# ----------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({"space": None}, "header", "how the patient lies (its space is ''), so left and right"),
        ({"space": None, "space dimension": "3"}, "header", "how the patient lies"),
        ({"space": "scanner-xyz"}, "header", "its space is 'scanner-xyz'"),
        ({"space": "3D-right-handed"}, "header", "left and right cannot be told"),
        ({"space dimension": "2"}, "header", "contradicts itself"),
        ({"space directions": None}, "header", "it has no space directions"),
        ({"space directions": None, "spacings": "4 3 5"}, "header", "left and right cannot be told"),
        ({"space directions": "(4,0,0) (0,3,0) none"}, "header", "2 axes in the patient"),
        ({"space directions": "(4,0,0) (0,3,0)"}, "header", "space directions as 3 values"),
        ({"space directions": "(4,0,0) (0,3,0) (0,0,5"}, "header", "space directions as 3 values"),
        ({"space directions": "(4,0,0) (0,3,0) (0,5)"}, "header", "space directions as 3 of (x,y,z)"),
        ({"space directions": "(4,0,0) (0,3,0) (0,0,nan)"}, "header", "space directions as 3 of (x,y,z)"),
        ({"space directions": "(4,0,0) (0,3,0) (0,0,1e400)"}, "header", "as 3 of (x,y,z)"),
        ({"space directions": "(4,0,0) (0,3,0) (0,0,0)"}, "spacing", "cannot be"),
        ({"space directions": "(4,0,0) (0,3,0) (0,0.1,5)"}, "header", "tilted gantry"),
        ({"space origin": None}, "header", "space origin as 1 of (x,y,z), it does not"),
        ({"space origin": "none"}, "header", "no position"),
        ({"space origin": "(1,2)"}, "header", "space origin as 1 of (x,y,z), it says '(1,2)'"),
        ({"space units": '"cm" "cm" "cm"'}, "spacing", "must be in millimetres"),
        ({"space units": '"mm" "mm"'}, "header", "space units as 3 values"),
        ({"units": '"mm" "mm" "um"'}, "spacing", '"um"'),
        ({"spacings": "4 3 6"}, "header", "6 in one place and 5 mm in its space directions"),
        ({"spacings": "4 3 x"}, "header", "contradicts itself"),
        ({"axis mins": "0 0 nan"}, "header", "two positions"),
        ({"dimension": "2"}, "format", "2 axes"),
        ({"dimension": "5"}, "format", "5 axes"),
        ({"dimension": None}, "header", "does not give dimension"),
        ({"sizes": "20 24"}, "header", "sizes as 3 numbers"),
        ({"sizes": "20 24 -18"}, "header", "sizes as 3 numbers"),
        ({"sizes": "20 24 0"}, "header", "cannot be"),
        ({"sizes": "20 24 19"}, "truncated", "claims 18,240 bytes, there are 17,280"),
        ({"sizes": "20 24 17"}, "surplus", "do not belong together"),
        ({"sizes": "2000000 2000000 2000000"}, "too-large", "2000000 x 2000000 x 2000000"),
        ({"number": "8641"}, "header", "8641 voxels in all"),
        ({"kinds": "domain domain time"}, "format", "of kind time"),
        ({"type": "char"}, "format", "not read (char)"),
        ({"type": "block", "block size": "2"}, "format", "not read (block)"),
        ({"type": None}, "header", "does not give type"),
        ({"endian": None}, "header", "endian as little or big, it says ''"),
        ({"endian": "middle"}, "header", "it says 'middle'"),
        ({"encoding": "ascii"}, "format", "an encoding that is not read (ascii)"),
        ({"encoding": "hex"}, "format", "not read (hex)"),
        ({"encoding": "bzip2"}, "format", "not read (bzip2)"),
        ({"encoding": None}, "header", "does not give encoding"),
        ({"encoding": "gzip"}, "damaged", "cannot be unpacked"),
        ({"data file": "LIST"}, "format", "several files"),
        ({"data file": "a%03d.raw 1 18 1"}, "format", "several files"),
        ({"data file": None}, "truncated", "before the empty line"),
        ({"datafile": "b.raw"}, "header", "data file twice"),
        ({"byte skip": "-2"}, "header", "byte skip: -2, which cannot be"),
        ({"byte skip": "1.5"}, "header", "cannot be"),
        ({"byte skip": "100"}, "truncated", ""),
        ({"line skip": "-1"}, "header", "line skip: -1"),
        ({"line skip": "1000000000000"}, "truncated", "lines that are to be skipped"),
        ({"old min": "-1024", "old max": "3071"}, "header", "scaled when the file was written"),
        ({"modality=": "MR"}, "not-ct", "(MR)"),
        ({"0008|0060=": "PT"}, "not-ct", "(PT)"),
        ({"space origins": "(1,2,3)"}, "header", "not a field or a key of NRRD: 'space origins"),
        ({"content": "a\0b"}, "damaged", "no character (0x00)"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_refused(tmp_path, changes, rule, words):
    path = edit_nrrd(write_itk(tmp_path / "a.nhdr", ct()), changes)
    with pytest.raises(Refusal) as caught:
        read_scan(path, tmp_path, LIMITS)
    assert (caught.value.rule, words in caught.value.reason) == (rule, True), caught.value
    assert caught.value.reason.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_nrrd_is_refused(tmp_path, name):
    path = write_itk(tmp_path / name, ct())
    for magic in (b"NRRD0006", b"NRRD00.01", b"nrrd0004", b"P5"):
        path.write_bytes(magic + path.read_bytes()[8:])
        check_refused(path, "format", "does not begin as one")


def test_a_detached_header_with_voxels_behind_it_is_refused(tmp_path):
    path = write_itk(tmp_path / "a.nhdr", ct())
    path.write_bytes(path.read_bytes() + b"\n\n" + ct().tobytes())
    check_refused(path, "surplus", "something follows in its own file")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, name, compress):
    path = write_itk(tmp_path / name, ct(), compress)
    for file in files_of(path, tmp_path):
        whole = file.read_bytes()
        for length in [3, 7, 9, *np.linspace(10, len(whole) - 1, 40).astype(int), len(whole) - 8]:
            file.write_bytes(whole[:length])
            if file.suffix == ".nhdr" and length == len(whole) - 1:
                continue  # the end of the last line
            with pytest.raises(Refusal):
                read_scan(path, tmp_path, LIMITS)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_checksum_and_bytes_behind_the_voxels_are_refused(tmp_path, name):
    path = write_itk(tmp_path / name, ct(), compress=True)
    file = files_of(path, tmp_path)[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    check_refused(path, "checksum", "its content has changed")
    file.write_bytes(whole + b"\1")
    check_refused(path, "surplus")


# ------------------------------------------------------------------------------------------- real scans

REAL_CT = os.environ.get("SG_REAL_CT", "")


@pytest.mark.skipif(not REAL_CT, reason="SG_REAL_CT does not name a folder of real scans")
def test_real_scans_are_read_as_simpleitk_reads_them():
    root = Path(REAL_CT)
    path = root / "mixed/nested/lungdx-a0002.nrrd"
    scan = read_scan(path, root, LIMITS)
    assert scan.geometry.size == (512, 512, 30)
    np.testing.assert_array_equal(scan.array, check_as_simpleitk(path).array)
    check_refused(root / "brain/pyradiomics-brain1.nrrd", "not-ct", root=root)
