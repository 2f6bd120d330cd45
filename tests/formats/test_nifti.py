"""Pairs of .hdr and .img are read as nibabel and SimpleITK wrote them, or refused in words."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from sg.formats import nifti
from sg.scans import Refusal, digest, files_of, read_header, read_scan
from tests.scan_files import (
    LIMITS,
    ORIGIN_MM,
    SHAPE,
    SPACING_MM,
    ct,
    write_itk,
    write_nifti,
    write_pair,
    write_with_header,
)


def check_refused(path, rule, words=""):
    with pytest.raises(Refusal) as caught:
        read_scan(path, path.parent, LIMITS)
    assert (caught.value.rule, words in caught.value.reason) == (rule, True), caught.value
    assert caught.value.reason.endswith(".")


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.img.gz"])
def test_a_pair_is_read_as_simpleitk_wrote_it(tmp_path, name):
    header = write_itk(tmp_path / name, ct()).with_name(name.replace("img", "hdr"))
    scan = read_scan(header, tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct())
    np.testing.assert_allclose(scan.geometry.origin_mm, ORIGIN_MM)
    assert (scan.geometry.spacing_mm, scan.geometry.orientation) == (SPACING_MM, "LPS")


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("name", ["a.hdr", "a.hdr.gz"])
def test_a_pair_is_read_as_nibabel_wrote_it(tmp_path, kind, name):
    affine = np.diag([-4.0, 3, 5, 1])
    image = kind(ct(1).transpose(), affine)
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"in between"))
    nib.save(image, tmp_path / name)
    path = tmp_path / name
    scan = read_scan(path, tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct(1))
    np.testing.assert_allclose(scan.geometry.affine, np.diag([-1.0, -1, 1, 1]) @ nib.load(path).affine)
    assert [file.name for file in files_of(path, tmp_path)] == [name, name.replace("hdr", "img")]


def test_the_names_of_a_pair_may_be_in_capitals_and_each_file_compressed_by_itself(tmp_path):
    path = write_pair(tmp_path / "a.hdr", ct())
    content, voxels = path.read_bytes(), (tmp_path / "a.img").read_bytes()
    for name, header, data, stored in (
        ("B.HDR", content, "B.IMG", voxels),
        ("c.hdr", content, "c.img.gz", gzip.compress(voxels)),
        ("d.hdr.gz", gzip.compress(content), "d.img", voxels),
        ("e.hdr", gzip.compress(content + bytes(4)), "e.img", gzip.compress(voxels)),
    ):
        (tmp_path / name).write_bytes(header)
        (tmp_path / data).write_bytes(stored)
        np.testing.assert_array_equal(read_scan(tmp_path / name, tmp_path, LIMITS).array, ct())
        assert files_of(tmp_path / name, tmp_path) == (tmp_path / name, tmp_path / data)


@pytest.mark.parametrize("compressed", [False, True])
def test_voxels_of_a_pair_may_begin_further_on(tmp_path, compressed):
    path = write_pair(tmp_path / "a.hdr", ct(), vox_offset=32)
    content = b"\1" * 32 + ct().tobytes()
    (tmp_path / "a.img").write_bytes(gzip.compress(content) if compressed else content)
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())
    if not compressed:
        np.testing.assert_array_equal(nib.load(path).get_fdata().transpose(), ct())
    write_pair(path, ct(), vox_offset=32)  # and the voxels from the beginning
    check_refused(path, "truncated")


def test_the_hash_of_a_pair_is_over_both_files(tmp_path):
    path = write_pair(tmp_path / "a.hdr", ct())
    before = digest(files_of(path, tmp_path))
    assert before[1] == 348 + ct().nbytes
    write_pair(path, ct(1))
    assert digest(files_of(path, tmp_path)) != before


def test_a_pair_without_its_partner_or_with_two_is_refused(tmp_path):
    path = write_pair(tmp_path / "a.hdr", ct())
    (tmp_path / "a.img.gz").write_bytes(gzip.compress(ct(1).tobytes()))
    check_refused(path, "header", "a.img and a.img.gz; take away the wrong one")
    (tmp_path / "a.img.gz").unlink()
    (tmp_path / "a.img").unlink()
    check_refused(path, "missing-data-file", "a.img, which is not there")
    with pytest.raises(Refusal, match="missing-data-file"):
        files_of(path, tmp_path)


def test_a_partner_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    path = write_pair(tmp_path / "in" / "a.hdr", ct())
    (tmp_path / "in" / "a.img").rename(tmp_path / "a.img")
    (tmp_path / "in" / "a.img").symlink_to(tmp_path / "a.img")
    check_refused(path, "outside-folder", "a link that leads out")


def test_an_analyze_header_does_not_say_how_the_patient_lies(tmp_path):
    nib.save(nib.AnalyzeImage(ct().transpose(), np.diag([4.0, 3, 5, 1])), tmp_path / "a.hdr")
    check_refused(tmp_path / "a.hdr", "format", "Analyze 7.5, which do not say how the patient lies")


def test_a_header_that_says_the_voxels_are_elsewhere_than_its_name_does_is_refused(tmp_path):
    pair = write_pair(tmp_path / "a.hdr", ct())
    pair.rename(tmp_path / "a.nii")
    check_refused(tmp_path / "a.nii", "format", "in another file; only pairs of .hdr and .img")
    write_nifti(tmp_path / "b.nii", ct()).rename(tmp_path / "b.hdr")
    (tmp_path / "b.img").write_bytes(ct().tobytes())
    check_refused(tmp_path / "b.hdr", "format", "follow it in the same file; name the file .nii")


@pytest.mark.parametrize("content", [b"!INTERFILE :=\n" * 50, bytes(348), b"ENVI"])
def test_another_programs_hdr_is_refused(tmp_path, content):
    path = write_pair(tmp_path / "a.hdr", ct())
    path.write_bytes(content)
    check_refused(path, "format", "does not begin as one")


@pytest.mark.parametrize(
    ("fields", "rule", "words"),
    [
        ({"dim": [4, 20, 24, 9, 2, 1, 1, 1]}, "format", "several volumes"),
        ({"dim": [3, 20, 24, 19, 1, 1, 1, 1]}, "truncated", "there are 17,280"),
        ({"dim": [3, 20, 24, 17, 1, 1, 1, 1]}, "surplus", "do not belong together"),
        ({"sform_code": 0, "qform_code": 0}, "header", "left and right cannot be told"),
        ({"srow_x": [-4, 0, 0, 60]}, "header", "two positions"),
        ({"qform_code": 17408}, "header", "qform_code as 17408, which cannot be"),
        ({"sform_code": -1}, "header", "sform_code as -1"),
        ({"vox_offset": -16}, "header", "begin at byte -16"),
        ({"vox_offset": 1e9}, "header", "begin at byte 1e+09"),
        ({"vox_offset": 352}, "truncated", ""),
    ],
)
def test_a_pairs_header_that_cannot_be_is_refused(tmp_path, fields, rule, words):
    check_refused(write_pair(tmp_path / "a.hdr", ct(), **fields), rule, words)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("field", ["srow_x", "quatern_c", "qoffset_z"])
@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0xFF800000])
def test_a_position_that_is_no_number_of_any_kind_is_refused_without_a_warning(tmp_path, field, bits):
    path = write_pair(tmp_path / "a.hdr", ct())
    content = bytearray(path.read_bytes())
    start = nib.Nifti1Header().template_dtype.fields[field][1]
    content[start : start + 4] = bits.to_bytes(4, "little")  # NaN that signals, NaN, minus infinity
    path.write_bytes(content)
    check_refused(path, "header", "not numbers")


def test_one_volume_with_a_fourth_axis_is_a_scan(tmp_path):
    path = write_pair(tmp_path / "a.hdr", ct(), dim=[4, *SHAPE[::-1], 1, 1, 1, 1])
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())


@pytest.mark.parametrize("name", ["a.hdr", "a.hdr.gz"])
def test_a_pair_cut_anywhere_is_refused(tmp_path, name):
    path = write_pair(tmp_path / name, ct())
    for file in files_of(path, tmp_path):
        whole = file.read_bytes()
        for length in [1, 3, *np.linspace(4, len(whole) - 1, 25).astype(int), len(whole) - 8]:
            file.write_bytes(whole[:length])
            with pytest.raises(Refusal) as caught:
                read_scan(path, tmp_path, LIMITS)
            assert caught.value.rule in ("truncated", "damaged", "header", "format"), length
        file.write_bytes(whole)


def test_a_wrong_checksum_of_either_file_is_refused(tmp_path):
    path = write_pair(tmp_path / "a.hdr.gz", ct())
    for file in files_of(path, tmp_path):
        whole = file.read_bytes()
        file.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
        check_refused(path, "checksum", file.name)
        file.write_bytes(whole + b"\1")
        check_refused(path, "surplus", file.name)
        file.write_bytes(whole)


def test_a_compressed_header_that_unpacks_to_a_mountain_is_refused(tmp_path):
    path = write_pair(tmp_path / "a.hdr.gz", ct())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(nifti.EXTENSIONS_MAX + 1), 1))
    check_refused(path, "surplus", "holds more than 67,108,864 bytes")


def test_a_pair_and_one_file_of_the_same_scan_agree(tmp_path):
    pair, single = write_pair(tmp_path / "a.hdr", ct()), write_nifti(tmp_path / "b.nii", ct())
    geometries = [read_header(path, tmp_path, LIMITS).geometry for path in (pair, single)]
    assert geometries[0] == geometries[1]
    image = sitk.ReadImage(str(pair))
    np.testing.assert_allclose(geometries[0].origin_mm, image.GetOrigin())


def test_a_qfac_of_0_is_taken_as_1_as_simpleitk_does(tmp_path):
    path = write_with_header(
        tmp_path / "a.nii", ct(), pixdim=[0, *SPACING_MM, 1, 1, 1, 1], sform_code=0, vox_offset=352
    )
    image = sitk.ReadImage(str(path))
    geometry = read_header(path, tmp_path, LIMITS).geometry
    np.testing.assert_allclose(geometry.direction, image.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(geometry.origin_mm, image.GetOrigin(), atol=1e-3)
