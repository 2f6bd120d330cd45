"""A scan is read as it was written, in HU and LPS, or refused with a rule and a reason."""

import gzip
import hashlib
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sg.scans import (
    Geometry,
    Refusal,
    digest,
    examine,
    files_of,
    format_of,
    read_header,
    read_scan,
    stem_of,
    suffix_of,
)
from tests.scan_files import (
    LIMITS,
    ORIGIN_MM,
    SHAPE,
    SPACING_MM,
    ct,
    edit_header,
    nifti,
    write_itk,
    write_nifti,
    write_with_header,
)

FORMATS = ["a.nii", "a.nii.gz", "a.mha", "a.mhd"]
GOOD = Geometry(SHAPE[::-1], SPACING_MM, ORIGIN_MM, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def refusal(path, limits=LIMITS, root=None):
    with pytest.raises(Refusal) as caught:
        read_scan(path, root or path.parent, limits)
    return caught.value


def check_refused(path, rule, words="", limits=LIMITS, root=None):
    caught = refusal(path, limits, root)
    assert (caught.rule, words in caught.reason) == (rule, True), caught
    assert caught.reason.endswith(".")


# ------------------------------------------------------------------------------------ as it was written


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_a_scan_is_read_as_simpleitk_wrote_it(tmp_path, name, compress):
    path = write_itk(tmp_path / name, ct(), compress)
    scan = read_scan(path, tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct())
    assert scan.array.dtype == np.int16
    assert scan.geometry.difference(GOOD) == ""
    assert (scan.geometry.size, scan.geometry.orientation, scan.modality) == (GOOD.size, "LPS", "CT")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_scan_is_read_as_nibabel_wrote_it(tmp_path, kind, name):
    scan = read_scan(write_nifti(tmp_path / name, ct(), kind=kind), tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, ct())
    assert scan.geometry.difference(GOOD) == ""


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_every_type_and_byte_order_of_nifti_is_read(tmp_path, dtype, order):
    values = (ct() % 100).astype(np.dtype(dtype).newbyteorder(order))
    image = nib.Nifti1Image(
        values.transpose(), np.eye(4), nib.Nifti1Header(endianness=order), dtype=values.dtype
    )
    image.set_sform(np.eye(4), 1)
    nib.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(f"{order}i", 348)
    scan = read_scan(tmp_path / "a.nii", tmp_path, None)
    np.testing.assert_array_equal(scan.array, ct() % 100)
    assert scan.array.dtype == np.int16


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_every_type_of_metaimage_is_read(tmp_path, dtype, suffix):
    path = write_itk(tmp_path / f"a{suffix}", (ct() % 100).astype(dtype))
    np.testing.assert_array_equal(read_scan(path, tmp_path, None).array, ct() % 100)


@pytest.mark.parametrize("compress", [False, True])
def test_big_endian_metaimage_is_read_as_simpleitk_reads_it(tmp_path, compress):
    path = write_itk(tmp_path / "a.mhd", ct())
    voxels = ct().astype(">i2").tobytes()
    (tmp_path / "a.raw").write_bytes(zlib.compress(voxels) if compress else voxels)
    edit_header(path, BinaryDataByteOrderMSB="True", CompressedData=str(compress))
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), ct())


def test_slope_and_intercept_are_applied_as_nibabel_does(tmp_path):
    stored = (ct() // 4).astype(np.int16)
    path = write_with_header(tmp_path / "a.nii.gz", stored, scl_slope=4.0, scl_inter=-24.0)
    scan = read_scan(path, tmp_path, LIMITS)
    np.testing.assert_array_equal(scan.array, stored * 4 - 24)
    np.testing.assert_array_equal(scan.array, nib.load(path).get_fdata().transpose())
    assert scan.array.dtype == np.int16


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_no_slope_means_no_scaling(tmp_path, slope):
    path = write_with_header(tmp_path / "a.nii", ct(), scl_slope=slope, scl_inter=np.nan)
    np.testing.assert_array_equal(read_scan(path, tmp_path, LIMITS).array, ct())


def test_fractions_of_hu_are_kept_as_float32(tmp_path):
    values = ct() + np.float64(0.25)
    scan = read_scan(write_nifti(tmp_path / "a.nii", values), tmp_path, LIMITS)
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, values)


@pytest.mark.parametrize("padding", [-2048, -3024])
def test_filling_outside_the_circle_is_no_reason_to_refuse(tmp_path, padding):
    values = ct()
    values[:, :6] = padding
    scan = read_scan(write_nifti(tmp_path / "a.nii.gz", values), tmp_path, LIMITS)
    assert scan.array.min() == padding


def test_a_gzip_file_of_several_members_and_zeros_behind_is_whole(tmp_path):
    content = nifti(ct()).to_bytes()
    parts = [gzip.compress(content[i : i + 5000], mtime=0) for i in range(0, len(content), 5000)]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(parts) + bytes(2_000_000))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii.gz", tmp_path, LIMITS).array, ct())


def test_contents_decide_whether_a_nifti_file_is_compressed(tmp_path):
    content = nifti(ct()).to_bytes()
    (tmp_path / "a.nii").write_bytes(gzip.compress(content))
    (tmp_path / "b.nii.gz").write_bytes(content)
    for name in ("a.nii", "b.nii.gz"):
        np.testing.assert_array_equal(read_scan(tmp_path / name, tmp_path, LIMITS).array, ct())


def test_one_volume_with_a_fourth_axis_is_a_scan(tmp_path):
    image = nib.Nifti1Image(ct().transpose()[..., None], np.diag([4.0, 3, 5, 1]))
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii", tmp_path, LIMITS).array, ct())
    sitk.WriteImage(sitk.GetImageFromArray(ct()[None], isVector=False), str(tmp_path / "b.mha"))
    np.testing.assert_array_equal(read_scan(tmp_path / "b.mha", tmp_path, None).array, ct())


# ---------------------------------------------------------------------------------------------- geometry

positions = st.tuples(*[st.floats(-500, 500, width=32)] * 3)
spacings = st.tuples(*[st.floats(0.25, 9.5, width=32)] * 3)
rotations = st.integers(0, 2**32 - 1)
mirrors = st.sampled_from([np.diag(s) for s in ([1, 1, 1], [-1, 1, 1], [1, -1, -1], [1, 1, -1])])
swaps = st.sampled_from([np.eye(3)[list(p)] for p in ([0, 1, 2], [2, 0, 1], [1, 0, 2])])


@given(positions, spacings, rotations, mirrors, swaps)
@settings(max_examples=60, deadline=None)
def test_positions_agree_with_simpleitk_and_nibabel(tmp_path_factory, origin, spacing, turn, mirror, swap):
    folder = tmp_path_factory.mktemp("grid")
    direction = Rotation.random(random_state=np.random.default_rng(turn)).as_matrix() @ mirror @ swap
    array = np.zeros((4, 3, 5), np.int16)
    index = [(0, 0, 0), (4, 0, 0), (0, 2, 0), (0, 0, 3), (4, 2, 3), (1.5, 0.25, 2)]
    for name in ("a.mha", "a.nii"):
        path = write_itk(folder / name, array, direction=direction, spacing_mm=spacing, origin_mm=origin)
        geometry = read_header(path, folder, None).geometry
        image = sitk.ReadImage(str(path))
        theirs = [image.TransformContinuousIndexToPhysicalPoint([float(v) for v in i]) for i in index]
        np.testing.assert_allclose(geometry.position_mm(index), theirs, atol=1e-3)
        np.testing.assert_allclose(geometry.direction, image.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(geometry.index(theirs), index, atol=1e-3)
    affine = np.diag([-1.0, -1, 1, 1]) @ geometry.affine
    path = write_nifti(folder / "b.nii", array, affine)
    mine = read_header(path, folder, None).geometry.position_mm(index) * [-1, -1, 1]  # LPS to RAS
    np.testing.assert_allclose(mine, nib.affines.apply_affine(nib.load(path).affine, index), atol=1e-3)


def test_orientation_names_where_the_stored_axes_lead(tmp_path):
    path = write_nifti(tmp_path / "a.nii", ct(), np.diag([2.0, 2, 4, 1]))
    assert read_header(path, tmp_path, None).geometry.orientation == "RAS"
    sagittal = np.array(
        [[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]
    )  # x leads to posterior, y to inferior, z to the left
    geometry = read_header(write_itk(tmp_path / "a.mha", ct(), direction=sagittal), tmp_path, None).geometry
    assert (geometry.orientation, geometry.slices) == ("PIL", SHAPE[1])


def test_a_grid_a_fifth_of_a_voxel_away_is_another():
    nudged = Geometry(GOOD.size, SPACING_MM, (ORIGIN_MM[0] + 0.6, *ORIGIN_MM[1:]), GOOD.direction)
    assert GOOD.difference(nudged) == "their corners are up to 0.6 mm apart"
    assert (
        GOOD.difference(Geometry((1, 2, 3), SPACING_MM, ORIGIN_MM, GOOD.direction))
        == "20 x 24 x 18 against 1 x 2 x 3 voxels"
    )


def test_sform_and_qform_must_agree(tmp_path):
    image = nifti(ct())
    moved = image.affine.copy()
    moved[0, 3] += 20
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "a.nii")
    check_refused(tmp_path / "a.nii", "header", "(sform and qform): their corners are up to 20 mm apart")


@pytest.mark.parametrize("keep", ["sform_code", "qform_code"])
def test_one_of_sform_and_qform_is_enough(tmp_path, keep):
    drop = {"sform_code", "qform_code"} - {keep}
    path = write_with_header(tmp_path / "a.nii", ct(), **dict.fromkeys(drop, 0))
    assert read_header(path, tmp_path, LIMITS).geometry.difference(GOOD) == ""


def test_a_scan_that_does_not_say_how_the_patient_lies_is_refused(tmp_path):
    path = write_with_header(tmp_path / "a.nii", ct(), sform_code=0, qform_code=0)
    check_refused(path, "header", "left and right cannot be told")


def test_a_tilted_gantry_is_refused(tmp_path):
    image = nifti(ct())
    tilted = image.affine.copy()
    tilted[1, 2] = 0.5
    image.set_sform(tilted, 1)
    image.header["qform_code"] = 0
    image.header["pixdim"][3] = np.hypot(5, 0.5)
    nib.save(image, tmp_path / "a.nii")
    check_refused(tmp_path / "a.nii", "header", "tilted gantry")
    path = edit_header(write_itk(tmp_path / "b.mha", ct()), TransformMatrix="1 0 0 0 1 0 0 0.1 1")
    check_refused(path, "header", "tilted gantry")


# ---------------------------------------------------------------------------------------------- identity


def test_the_hash_is_over_the_header_and_then_its_data_file(tmp_path):
    path = write_itk(tmp_path / "a.mhd", ct())
    files = files_of(path, tmp_path)
    assert [file.name for file in files] == ["a.mhd", "a.raw"]
    content = path.read_bytes() + (tmp_path / "a.raw").read_bytes()

    assert digest(files) == (hashlib.sha256(content).hexdigest(), len(content))


def test_names_of_formats_are_told_in_any_case():
    names = ["a.NII.GZ", "1.2.3.mhd", "b.nii", "c.mha", "d.nrrd", "e.hdr.gz", "f.dcm", "g.img"]
    suffixes = [".nii.gz", ".mhd", ".nii", ".mha", ".nrrd", ".hdr.gz", "", ""]
    assert [suffix_of(Path(name)) for name in names] == suffixes
    assert [stem_of(Path(n)) for n in ("x/a.NII.GZ", "1.2.3.mhd", "f.dcm")] == ["a", "1.2.3", "f.dcm"]


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.raw", "a.zraw"])
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    compress = name in ("a.nii.gz", "a.zraw")
    path = write_itk(tmp_path / (name if "raw" not in name else "a.mhd"), ct(), compress)
    whole = (tmp_path / name).read_bytes()
    for length in [1, 3, 200, 347, 351, *np.linspace(352, len(whole) - 1, 25).astype(int), len(whole) - 8]:
        (tmp_path / name).write_bytes(whole[:length])
        caught = refusal(path)
        assert caught.rule in ("truncated", "format", "damaged"), (length, caught)
        assert caught.rule == "truncated" or length < 352


def test_an_empty_file_is_refused(tmp_path):
    for name in FORMATS:
        (tmp_path / name).write_bytes(b"")
        check_refused(tmp_path / name, "empty", f"The file {name} is empty (0 bytes)")
    path = write_itk(tmp_path / "b.mhd", ct())
    (tmp_path / "b.raw").write_bytes(b"")
    check_refused(path, "empty", "b.raw is empty (0 bytes)")


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_or_zeros_under_a_scans_name_is_refused(tmp_path, name):
    for content in (b"Please ask the PACS team for this scan.\n" * 50, bytes(10_000), b"\x1f\x8b"):
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name).rule in ("format", "truncated", "damaged")


@pytest.mark.parametrize("name", ["a.nii", "a.mha", "a.mhd", "a.nii.gz", "b.nii.gz", "z.mha"])
def test_bytes_behind_the_voxels_are_refused(tmp_path, name):
    path = write_itk(tmp_path / name, ct(), compress=name in ("a.nii.gz", "z.mha"))
    file = files_of(path, tmp_path)[-1]
    if name == "b.nii.gz":
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + bytes(7)))
    else:
        file.write_bytes(file.read_bytes() + b"\1" * 7)
    check_refused(path, "surplus")


def test_a_wrong_gzip_checksum_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ct())
    content = bytearray(path.read_bytes())
    content[-7] ^= 1  # the CRC is the last but one word
    path.write_bytes(content)
    check_refused(path, "checksum", "its content has changed")
    content[-7] ^= 1
    content[-2] ^= 1  # the last word is the length
    path.write_bytes(content)
    check_refused(path, "checksum")


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_a_wrong_zlib_checksum_is_refused(tmp_path, suffix):
    path = write_itk(tmp_path / f"a{suffix}", ct(), compress=True)
    file = files_of(path, tmp_path)[-1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    check_refused(path, "checksum")


def test_stored_blocks_zeroed_inside_a_gzip_file_are_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.nii.gz"
    content = bytearray(gzip.compress(nifti(ct()).to_bytes(), compresslevel=0))
    content[5000:6000] = bytes(1000)
    path.write_bytes(content)
    assert nib.load(path).get_fdata().shape == SHAPE[::-1]
    check_refused(path, "checksum")


def test_a_missing_data_file_is_named(tmp_path):
    path = write_itk(tmp_path / "a.mhd", ct())
    (tmp_path / "a.raw").unlink()
    check_refused(path, "missing-data-file", "a.raw, which is not there")
    check_refused(tmp_path / "none.nii", "missing-data-file", "none.nii is not there")


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../out.raw", "sub/../../out.raw", "..\\out.raw", "C:\\out.raw"]
)
def test_a_header_that_points_outside_its_folder_is_refused(tmp_path, name):
    (tmp_path / "out.raw").write_bytes(ct().tobytes())
    path = edit_header(write_itk(tmp_path / "in" / "a.mhd", ct()), ElementDataFile=name)
    check_refused(path, "outside-folder", "outside its own folder", root=tmp_path)
    with pytest.raises(Refusal):
        files_of(path, tmp_path)


def test_links_out_of_the_folder_are_refused_and_links_within_are_read(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    path = write_itk(raw / "a.mhd", ct())
    write_itk(out / "a.mhd", ct())
    (raw / "a.raw").unlink()
    (raw / "a.raw").symlink_to(out / "a.raw")
    check_refused(path, "outside-folder", "a link that leads out", root=raw)
    write_nifti(out / "b.nii", ct())
    (raw / "b.nii").symlink_to(out / "b.nii")
    check_refused(raw / "b.nii", "outside-folder", root=raw)
    (raw / "c.nii").symlink_to(raw / "c.nii")
    assert refusal(raw / "c.nii").rule == "unreadable"
    write_nifti(raw / "d" / "d.nii", ct())
    (raw / "e.nii").symlink_to(Path("d") / "d.nii")
    np.testing.assert_array_equal(read_scan(raw / "e.nii", raw, LIMITS).array, ct())
    (tmp_path / "entry").symlink_to(raw)  # the root itself may be a link
    np.testing.assert_array_equal(
        read_scan(tmp_path / "entry" / "e.nii", tmp_path / "entry", LIMITS).array, ct()
    )


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    check_refused(tmp_path / "a.nii", "format", "not a file")
    (tmp_path / "b.nii").mkdir()
    check_refused(tmp_path / "b.nii", "format", "not a file")


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", ct())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    check_refused(path, "unreadable", "permission denied")


@pytest.mark.parametrize("dim", [[3, 30000, 30000, 30000, 1, 1, 1, 1], [3, 20, 24, 19, 1, 1, 1, 1]])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path, dim, name):
    path = write_with_header(tmp_path / name, ct(), dim=dim)
    caught = refusal(path)
    assert caught.rule == ("too-large" if dim[1] == 30000 else "truncated"), caught


def test_a_claim_within_the_limit_that_no_compression_explains_is_refused(tmp_path):
    path = write_with_header(
        tmp_path / "a.nii.gz", ct(), dim=[3, 256, 256, 256, 1, 1, 1, 1], datatype=64, bitpix=64
    )
    check_refused(path, "truncated", "compressed bytes cannot hold")
    path = edit_header(
        write_itk(tmp_path / "b.mha", ct(), compress=True), DimSize="256 256 256", ElementType="MET_DOUBLE"
    )
    check_refused(path, "truncated", "compressed bytes cannot hold")


def test_terabytes_are_refused_for_label_maps_too(tmp_path):
    path = edit_header(write_itk(tmp_path / "a.mhd", ct()), DimSize="2000000 2000000 2000000")
    check_refused(path, "too-large", "2000000 x 2000000 x 2000000 voxels", limits=None)


@pytest.mark.parametrize(
    "dim",
    [
        [0, 1, 1, 1, 1, 1, 1, 1],
        [3, 20, -24, 18, 1, 1, 1, 1],
        [9, 2, 2, 2, 2, 2, 2, 2],
        [2, 20, 24, 1, 1, 1, 1, 1],
    ],
)
def test_impossible_sizes_are_refused(tmp_path, dim):
    assert refusal(write_with_header(tmp_path / "a.nii", ct(), dim=dim)).rule == "header"


@pytest.mark.parametrize(
    ("fields", "rule", "words"),
    [
        ({"pixdim": [1, 0, 3, 5, 1, 1, 1, 1]}, "spacing", "0 x 3 x 5 mm, which cannot be"),
        ({"pixdim": [1, np.nan, 3, 5, 1, 1, 1, 1]}, "spacing", "nan x 3 x 5 mm"),
        ({"pixdim": [1, 4, 3, 9, 1, 1, 1, 1], "qform_code": 0}, "header", "4 x 3 x 9 mm in one place and 4 x 3 x 5 mm"),
        ({"xyzt_units": 1}, "spacing", "metres"),
        ({"xyzt_units": 3}, "spacing", "micrometres"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "header", "not numbers"),
        ({"srow_x": [0, 0, 0, 0]}, "spacing", "cannot be"),
        ({"quatern_b": 3.0, "sform_code": 0}, "header", "not a rotation"),
        ({"datatype": 128, "bitpix": 24}, "format", "not plain numbers"),
        ({"datatype": 32, "bitpix": 64}, "format", "not plain numbers"),
        ({"bitpix": 8}, "header", "type 4 has 16 bits, not 8"),
        ({"magic": b"ni1"}, "format", "pairs of .hdr and .img"),
        ({"vox_offset": 4}, "header", "begin at byte 4"),
        ({"vox_offset": 352.5}, "header", "begin at byte 352.5"),
        ({"vox_offset": 1e30}, "header", "begin at byte 1e+30"),
        ({"vox_offset": 368}, "truncated", ""),
        ({"scl_slope": np.inf, "scl_inter": 0}, "header", "no numbers"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "header", "no numbers"),
        ({"scl_slope": 1e38, "scl_inter": 0}, "not-finite", "hold no number"),
        ({"dim": [4, 20, 24, 9, 2, 1, 1, 1]}, "format", "several volumes (20 x 24 x 9 x 2 voxels)"),
        ({"dim": [3, 20, 24, 17, 1, 1, 1, 1]}, "surplus", "do not belong together"),
    ],
)  # fmt: skip
def test_a_nifti_header_that_cannot_be_is_refused(tmp_path, fields, rule, words):
    check_refused(write_with_header(tmp_path / "a.nii", ct(), **fields), rule, words)


@pytest.mark.parametrize(
    ("fields", "rule", "words"),
    [
        ({"ElementSpacing": "0 3 5"}, "spacing", "0 x 3 x 5 mm, which cannot be"),
        ({"ElementSpacing": "-4 3 5"}, "spacing", "cannot be"),
        ({"ElementSpacing": "nan 3 5"}, "header", "as 3 numbers"),
        ({"ElementSpacing": "4 3"}, "header", "as 3 numbers, it says '4 3'"),
        ({"ElementSpacing": None}, "spacing", "does not give the voxel spacing"),
        ({"DimSize": "20 24"}, "header", "DimSize as 3 numbers"),
        ({"DimSize": "20 24 18.5"}, "header", "20 x 24 x 18.5 voxels, which cannot be"),
        ({"DimSize": "20 24 0"}, "header", "cannot be"),
        ({"DimSize": "20 24 19"}, "truncated", "claims 18,240 bytes, there are 17,280"),
        ({"DimSize": "20 24 17"}, "surplus", "do not belong together"),
        ({"DimSize": None}, "header", "does not give DimSize"),
        ({"NDims": "2"}, "format", "2 axes"),
        ({"NDims": "4", "DimSize": "20 24 9 2"}, "format", "several volumes"),
        ({"Offset": "1 2 1e400"}, "header", "Offset as 3 numbers"),
        ({"Position": "1 2 3"}, "header", "Offset and Position mean the same and differ"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, "header", "length"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "spacing", "cannot be"),
        ({"ElementType": "MET_LONG"}, "format", "MET_LONG"),
        ({"ElementType": "MET_FLOAT_MATRIX"}, "format", "kind that is not read"),
        ({"ElementNumberOfChannels": "3"}, "format", "not read"),
        ({"BinaryData": "False"}, "format", "written as text"),
        ({"CompressedData": "perhaps"}, "header", "True or False"),
        ({"CompressedData": "True"}, "damaged", "cannot be unpacked"),
        ({"ElementToIntensityFunctionSlope": "2"}, "header", "scales the values by 2 and 0"),
        ({"DistanceUnits": "cm"}, "spacing", "given in cm"),
        ({"Modality": "MET_MOD_MR"}, "not-ct", "MET_MOD_MR"),
        ({"HeaderSize": "-1"}, "header", "HeaderSize = -1"),
        ({"HeaderSize": "100"}, "truncated", ""),
        ({"ElementDataFile": "LIST"}, "format", "several files"),
        ({"ElementDataFile": "a%03d.raw 1 18 1"}, "format", "several files"),
        ({"ElementDataFile": ""}, "format", ""),
        ({"Comment = x\nNDims": "3"}, "header", "NDims twice"),
        ({"Comment\nX": "1"}, "header", "not `name = value`: 'Comment'"),
    ],
)  # fmt: skip
def test_a_metaimage_header_that_cannot_be_is_refused(tmp_path, fields, rule, words):
    check_refused(edit_header(write_itk(tmp_path / "a.mhd", ct()), **fields), rule, words)


def test_a_metaimage_header_that_ends_early_is_refused(tmp_path):
    path = write_itk(tmp_path / "a.mhd", ct())
    path.write_text(path.read_text().partition("ElementDataFile")[0])
    check_refused(path, "truncated", "before it says where the voxels are")


def test_the_compressed_size_that_a_metaimage_header_states_is_held_against_the_file(tmp_path):
    path = write_itk(tmp_path / "a.mhd", ct(), compress=True)
    edit_header(path, CompressedDataSize="1000")
    check_refused(path, "surplus", "1,000 compressed bytes")


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_that_are_no_numbers_are_counted_and_refused(tmp_path, value, dtype):
    values = ct().astype(dtype)
    with np.errstate(over="ignore"):
        values[3, 4, 5] = values[0, 0, 0] = value
    for name in ("a.nii.gz", "a.mha"):
        path = write_nifti(tmp_path / name, values) if "nii" in name else write_itk(tmp_path / name, values)
        check_refused(path, "not-finite", f"2 of {values.size:,} voxels hold no number")


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_signalling_nans_are_refused_without_a_warning(tmp_path, slope):
    path = write_with_header(tmp_path / "a.nii", ct().astype(np.float32), scl_slope=slope, scl_inter=0)
    content = bytearray(path.read_bytes())
    content[352:356] = struct.pack("<I", 0x7F800001)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_refused(path, "not-finite", "1 of")


@pytest.mark.parametrize("value", [0, -1024, 255])
def test_a_constant_image_is_refused(tmp_path, value):
    path = write_nifti(tmp_path / "a.nii.gz", np.full(SHAPE, value, np.int16))
    check_refused(path, "constant", f"the same value, {value}")


def test_pictures_that_are_no_ct_are_refused(tmp_path):
    def name(array):
        return write_nifti(tmp_path / "a.nii", array)

    check_refused(name((ct() % 256).astype(np.uint8)), "not-ct", "picture in grey values")
    check_refused(name(ct() % 256), "not-ct", "the values run from 0 to 255")
    check_refused(name((ct() / 2000 + 0.5).astype(np.float32)), "not-ct", "grey values")
    check_refused(name((ct() + 1024).astype(np.uint16)), "not-ct", "perhaps the offset of -1024 was lost")
    check_refused(name(np.maximum(ct(), -400)), "not-ct", "0.0 % of the voxels are air")
    check_refused(name(np.minimum(ct(), 0)), "not-ct", "some over 0")
    check_refused(name((ct() // 100) * 100), "not-ct", "only 21 different values")


def test_absurd_spacing_and_scans_that_are_too_small_are_refused(tmp_path):
    check_refused(
        write_itk(tmp_path / "a.mha", ct(), spacing_mm=(0.01, 3, 5)), "spacing", "from 0.1 to 10 mm"
    )
    check_refused(write_itk(tmp_path / "a.mha", ct(), spacing_mm=(4, 3, 40)), "spacing", "4 x 3 x 40 mm")
    check_refused(
        write_itk(tmp_path / "b.mha", ct(shape=(15, 24, 20))), "too-small", "15 slices; at least 16"
    )
    check_refused(write_itk(tmp_path / "c.mha", ct(), spacing_mm=(4, 3, 3)), "too-small", "80 x 72 x 54 mm")


# --------------------------------------------------------------------------------------- without voxels


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
def test_examining_a_scan_tells_what_reading_it_tells(tmp_path, name):
    path = write_itk(tmp_path / name, ct())
    scan, seen = read_scan(path, tmp_path, LIMITS), examine(path, tmp_path, LIMITS)
    assert (seen.geometry, seen.modality) == (scan.geometry, scan.modality)
    assert (seen.low, seen.high, seen.bytes) == (ct().min(), ct().max(), 2 * ct().size)


def test_examining_refuses_what_reading_refuses(tmp_path):
    values = ct().astype(np.float32)
    values[3, 4, 5] = np.nan
    broken = write_nifti(tmp_path / "a.nii.gz", values)
    flat = write_nifti(tmp_path / "b.nii", np.zeros(SHAPE, np.int16))
    cut = write_nifti(tmp_path / "c.nii.gz", ct())
    cut.write_bytes(cut.read_bytes()[:-100])
    for path in (broken, flat, cut):
        with pytest.raises(Refusal) as caught:
            examine(path, tmp_path, LIMITS)
        assert str(caught.value) == str(refusal(path))


def test_examining_a_scan_takes_little_memory_however_large_it_is(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ct(shape=(120, 256, 256)))  # 16 MB
    tracemalloc.start()
    try:
        examine(path, tmp_path, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 2**22 * 3
        tracemalloc.reset_peak()
        read_scan(path, tmp_path, LIMITS)
        assert tracemalloc.get_traced_memory()[1] > 2**24
    finally:
        tracemalloc.stop()


def test_a_scan_turns_to_float32_where_its_first_fraction_stands(tmp_path):
    values = ct(shape=(40, 200, 200)).astype(np.float64)
    values[39, 199, 199] = 0.5
    values[0, 0, 0] = -3024
    scan = read_scan(write_nifti(tmp_path / "a.nii.gz", values), tmp_path, LIMITS)
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, values)


def test_the_format_is_that_of_the_suffix_or_dicom():
    names = ["a.nii", "b.NII.GZ", "c.mha", "d.mhd", "e.nrrd", "f.nhdr", "g.hdr", "IM0001", "h.dcm"]
    found = [format_of(Path(name)) for name in names]
    assert found == ["NIfTI", "NIfTI", *["MetaImage"] * 2, *["NRRD"] * 2, "NIfTI", "DICOM", "DICOM"]
    assert format_of((Path("h.dcm"), Path("i.dcm"))) == "DICOM"


# ------------------------------------------------------------------------------------------- real scans

# shape (x, y, z) and spacing as the folder's README lists them
REAL = {
    "mixed/lungdx-a0001.mhd": ((256, 256, 64), (1.68, 1.68, 5)),
    "mixed/cmb-crc-01068.nii.gz": ((256, 256, 100), (1.80, 1.80, 2.5)),
    "mixed/ricord-001012.nii.gz": ((256, 256, 124), (1.41, 1.41, 2.5)),
    "mixed/nested/rider-pilot-0117.nii.gz": ((256, 256, 95), (1.29, 1.29, 0.8)),
    "mixed/nested/deeper/lungfcp-0001.mha": ((256, 256, 98), (1.52, 1.52, 1.0)),
    "abdomen/totalsegmentator-example.nii.gz": ((122, 101, 112), (3.0, 3.0, 3.0)),
}
REAL_CT = os.environ.get("SG_REAL_CT", "")
needs_real_ct = pytest.mark.skipif(not REAL_CT, reason="SG_REAL_CT does not name a folder of real scans")


@needs_real_ct
@pytest.mark.parametrize("name", REAL)
def test_real_scans_are_read_with_their_known_geometry_and_the_voxels_that_simpleitk_reads(name):
    root = Path(REAL_CT)
    scan = read_scan(root / name, root, LIMITS)
    size, spacing = REAL[name]
    assert scan.geometry.size == size
    np.testing.assert_allclose(scan.geometry.spacing_mm, spacing, atol=0.0051)
    image = sitk.ReadImage(str(root / name))
    np.testing.assert_array_equal(scan.array, sitk.GetArrayFromImage(image))
    corner = [n - 1 for n in size]
    np.testing.assert_allclose(
        scan.geometry.position_mm(corner), image.TransformIndexToPhysicalPoint(corner), atol=1e-3
    )
    np.testing.assert_allclose(scan.geometry.origin_mm, image.GetOrigin(), atol=1e-3)


@needs_real_ct
def test_real_mr_and_label_maps_are_not_taken_for_ct():
    root = Path(REAL_CT)
    for name in (
        "brain/upenn-gbm-00002-t2",
        "brain/tcga-fg-6692-t1",
        "abdomen/totalsegmentator-example-labels-whole-grid",
    ):
        check_refused(root / f"{name}.nii.gz", "not-ct", root=root)
    labels = read_scan(root / "abdomen/totalsegmentator-example-labels-whole-grid.nii.gz", root, None)
    image = read_scan(root / "abdomen/totalsegmentator-example.nii.gz", root, LIMITS)
    assert image.geometry.difference(labels.geometry) == ""
    assert (labels.array == 5).any()
