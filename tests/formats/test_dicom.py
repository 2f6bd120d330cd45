"""A DICOM series is read as SimpleITK reads it, slice by slice, or refused with a rule and a reason."""

import logging
import os
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.tag import Tag
from scipy.spatial.transform import Rotation

from sg.formats.dicom import looks_like_dicom, planes, read_instance, read_stack
from sg.formats.files import Refusal
from tests import dicom_files
from tests.dicom_files import set_pixels, stored, write_multiframe, write_series
from tests.scan_files import ORIGIN_MM, SPACING_MM, ct

SMALL = (5, 20, 18)  # z, y, x; GDCM writes no smaller JPEG 2000
CORNER = (17, 19, 4)  # x, y, z
COMPRESSED = [
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,  # GDCM writes it without any error
    uid.JPEG2000Lossless,
    uid.JPEG2000,  # the same
]
NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]


def small(seed=0):
    return ct(seed, SMALL)


def read(files):
    stack = read_stack(files)
    array = np.stack(list(planes(stack)))
    assert array.dtype == stack.dtype
    assert array.shape == stack.geometry.size[::-1]
    assert stack.bytes == array.nbytes
    return stack, array


def refusal(files):
    with pytest.raises(Refusal) as caught:
        read([files] if isinstance(files, Path) else files)
    assert caught.value.reason.endswith(".")
    return caught.value


def check_refused(files, rule, *words):
    caught = refusal(files)
    assert caught.rule == rule, caught
    for word in words:
        assert word in caught.reason, caught


def itk(files):
    """SimpleITK's array and image of files in the order of z."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), image


def edit(path, change):
    """Rewrite a file whose data set `change` has changed."""
    ds = dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def cut_out(ds, *keywords):
    for keyword in keywords:
        delattr(ds, keyword)


# ------------------------------------------------------------------------------------ as it was written


@pytest.mark.parametrize("syntax", NATIVE + COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("bits", "signed"), [(16, True), (16, False), (13, True), (12, False)])
def test_every_transfer_syntax_gives_the_voxels_that_were_written(tmp_path, syntax, bits, signed):
    array = small()
    # Signed values with a rescale that leaves some of them negative
    intercept = 0 if signed else -1024
    files = write_series(
        tmp_path,
        array,
        transfer_syntax=syntax,
        bits_stored=bits,
        signed=signed,
        intercept=intercept,
        shuffle=True,
    )
    np.testing.assert_array_equal(read(files[::-1])[1], array)


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        *((syntax, bits) for syntax in NATIVE for bits in (8, 32, 31)),
        (uid.RLELossless, 8),
        (uid.JPEGLSLossless, 8),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_pixels_of_one_and_of_four_bytes_are_read(tmp_path, syntax, bits, signed):
    array = abs(small()) % 100 if bits == 8 else small()
    files = write_series(
        tmp_path, array, transfer_syntax=syntax, bits_stored=bits, signed=signed, intercept=-1024 * (bits > 8)
    )
    if bits == 8 and syntax == uid.ExplicitVRBigEndian:
        for path in files:
            edit(path, lambda ds: setattr(ds["PixelData"], "VR", "OB"))
    np.testing.assert_array_equal(read(files)[1], array)


def test_slices_with_an_odd_number_of_bytes_are_read(tmp_path):
    array = ct(0, (3, 3, 5)) % 100
    files = write_series(tmp_path, array, bits_stored=8, intercept=0)
    np.testing.assert_array_equal(read(files)[1], array)


def test_what_stands_in_unused_bits_does_not_count(tmp_path):
    array = small()

    def overlay(ds, z):
        pixels = np.frombuffer(ds.PixelData, "<u2") | 0xF000
        ds.PixelData = pixels.tobytes()

    files = write_series(tmp_path, array, bits_stored=12, signed=False, extra=overlay)
    np.testing.assert_array_equal(read(files)[1], array)


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    array = small() * 2
    scales = [(2, 0), (1, -1024), (2, -2000), (1, 10), (2, 4)]

    def rescale(ds, z):
        ds.RescaleSlope, ds.RescaleIntercept = scales[z]
        set_pixels(ds, stored(array[z], *scales[z]))

    stack, read_array = read(write_series(tmp_path, array, extra=rescale))
    np.testing.assert_array_equal(read_array, array)
    assert stack.dtype == np.int32


def test_the_type_is_the_narrowest_that_holds_all_that_the_bits_can_say(tmp_path):
    for bits, signed, slope, intercept, dtype in (
        (12, False, 1, -1024, np.int16),  # -1024 to 3071
        (16, True, 1, 0, np.int16),
        (16, True, 1, -1024, np.int32),
        (16, False, 1, 0, np.int32),
        (32, False, 1, 0, np.int64),
        (16, True, 0.5, 0, np.float32),
    ):
        files = write_series(
            tmp_path, small() * 0 + 3, bits_stored=bits, signed=signed, slope=slope, intercept=intercept
        )
        stack, array = read(files)
        assert stack.dtype == dtype
        assert (array == 3).all()


def test_fractions_of_hu_are_kept(tmp_path):
    array = small()
    files = write_series(tmp_path, array, slope=0.25, intercept=-1000.5)
    np.testing.assert_allclose(read(files)[1], np.rint((array + 1000.5) * 4) / 4 - 1000.5)
    np.testing.assert_allclose(read(files)[1], itk(files)[0], atol=1e-4)


# ------------------------------------------------------------------------------------------- geometry

angles = st.floats(-180, 180)
signs = st.sampled_from([-1.0, 1.0])


@settings(max_examples=20, deadline=None)
@given(
    rotation=st.tuples(angles, angles, angles),
    axes=st.permutations([0, 1, 2]),
    flips=st.tuples(signs, signs, signs),
    oblique=st.booleans(),
    spacing=st.tuples(*[st.floats(0.3, 6).map(lambda value: round(value, 4))] * 3),
    origin=st.tuples(*[st.floats(-500, 500).map(lambda value: round(value, 3))] * 3),
)
def test_voxels_lie_where_simpleitk_has_them(
    tmp_path_factory, rotation, axes, flips, oblique, spacing, origin
):
    folder = tmp_path_factory.mktemp("series")
    direction = np.eye(3)[list(axes)] * flips
    if oblique:
        direction = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ direction
    array = small()
    files = write_series(
        folder, array, spacing_mm=spacing, origin_mm=origin, direction=direction, shuffle=True
    )
    stack, read_array = read(sorted(files))
    # SimpleITK keeps the order of the files, here it is always along row x column
    mirrored = np.linalg.det(direction) < 0
    itk_array, image = itk(files[::-1] if mirrored else files)
    np.testing.assert_array_equal(read_array, itk_array)
    np.testing.assert_array_equal(read_array, array[::-1] if mirrored else array)
    assert np.linalg.det(stack.geometry.affine[:3, :3]) > 0
    for index in ((0, 0, 0), (17, 0, 0), (0, 19, 0), (0, 0, 4), CORNER):
        there = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(stack.geometry.position_mm(index), there, atol=1e-3)


def test_a_tilted_gantry_leaves_a_sheared_grid(tmp_path):
    # Slices leaning back by 30 degrees along a table that moves by 5 mm: the normal is (0, 1/2, cos 30 degrees), the
    # next slice lies 5 mm up the table, and so 5 cos 30 = 4.33 mm along the normal
    lean = np.sqrt(3) / 2
    direction = np.array([[1, 0, 0], [0, lean, 0], [0, -0.5, 1]])
    array = small()
    files = write_series(tmp_path, array, spacing_mm=(4, 3, 5), origin_mm=(1, 2, 3), direction=direction)
    stack, read_array = read(files)
    np.testing.assert_array_equal(read_array, array)
    np.testing.assert_allclose(stack.geometry.spacing_mm, (4, 3, 5))
    np.testing.assert_allclose(
        stack.geometry.position_mm([[0, 0, 0], [0, 0, 4], [1, 0, 0], [0, 2, 1]]),
        [[1, 2, 3], [1, 2, 23], [5, 2, 3], [1, 2 + 6 * lean, 3 - 3 + 5]],
        atol=1e-6,
    )
    for between, fine in ((5, True), (5 * lean, True), (4.6, False)):
        for path in files:
            edit(path, lambda ds, value=between: setattr(ds, "SpacingBetweenSlices", value))
        if fine:
            read_stack(files)
        else:
            check_refused(files, "spacing", "4.6 mm from slice to slice", "the slices lie 5 mm apart")


def test_slices_that_are_shifted_more_than_a_gantry_tilts_are_refused(tmp_path):
    direction = np.array([[1, 0, 0], [0, 1, np.sin(1)], [0, 0, np.cos(1)]])  # 57 degrees
    check_refused(write_series(tmp_path, small(), direction=direction), "header", "tilted gantry", "57")


def test_a_single_slice_is_a_scan_of_one_slice_for_the_limits_to_refuse(tmp_path):
    stack, array = read(write_series(tmp_path, small()[:1]))
    assert stack.geometry.size == (18, 20, 1)
    assert stack.geometry.spacing_mm == SPACING_MM
    np.testing.assert_array_equal(array, small()[:1])


@pytest.mark.parametrize("stated", [5, -5, 5.04, 0])
def test_a_stated_distance_of_slices_that_fits_is_taken_whatever_its_sign(tmp_path, stated):
    files = write_series(tmp_path, small(), extra=lambda ds, z: setattr(ds, "SpacingBetweenSlices", stated))
    assert read_stack(files).geometry.spacing_mm == SPACING_MM


def test_positions_may_be_rounded(tmp_path):
    def jitter(ds, z):
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], ds.ImagePositionPatient[2] + 0.2 * (-1) ** z]

    read_stack(write_series(tmp_path, small(), extra=jitter))


# ---------------------------------------------------------------------------------------- multi-frame


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("per_frame", [False, True])
def test_an_enhanced_ct_is_read_frame_by_frame(tmp_path, syntax, per_frame):
    array = small()
    path = write_multiframe(
        tmp_path / "a.dcm", array, transfer_syntax=syntax, order=[3, 0, 4, 1, 2], per_frame=per_frame
    )
    stack, read_array = read([path])
    np.testing.assert_array_equal(read_array, array)
    assert stack.geometry.spacing_mm == SPACING_MM
    assert stack.geometry.origin_mm == ORIGIN_MM


def test_several_multi_frame_files_are_one_volume(tmp_path):
    array = small()
    files = [
        write_multiframe(tmp_path / f"{name}.dcm", array, order=order)
        for name, order in (("a", [4, 0]), ("b", [1, 3, 2]))
    ]
    for path, count in zip(files, (2, 3), strict=True):
        assert dcmread(path).NumberOfFrames == count
    np.testing.assert_array_equal(read(files)[1], array)


def test_an_enhanced_ct_lies_where_simpleitk_has_it(tmp_path):
    direction = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix()
    path = write_multiframe(tmp_path / "a.dcm", small(), direction=direction, slope=2, intercept=-1025)
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    stack, read_array = read([path])
    np.testing.assert_array_equal(read_array, array)
    there = image.TransformIndexToPhysicalPoint(CORNER)
    np.testing.assert_allclose(stack.geometry.position_mm(CORNER), there, atol=1e-3)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_compressed_frames_in_several_pieces_are_put_together_by_their_table(tmp_path, table):
    def in_pieces(ds, index):
        frames = pieces_of(ds.PixelData)
        content, starts, lengths = b"", [], []
        for frame in frames:
            starts.append(len(content))
            half = len(frame) // 4 * 2
            parts = [frame] if table == "extended" else [frame[:half], frame[half:]]
            content += b"".join(item(part) for part in parts)
            lengths.append(len(frame))
        offsets = struct.pack(f"<{len(starts)}L", *starts) if table == "basic" else b""
        ds.PixelData = item(offsets) + content
        if table == "extended":
            ds.ExtendedOffsetTable = struct.pack(f"<{len(starts)}Q", *starts)
            ds.ExtendedOffsetTableLengths = struct.pack(f"<{len(starts)}Q", *lengths)

    path = write_multiframe(tmp_path / "a.dcm", small(), transfer_syntax=uid.JPEGLSLossless, extra=in_pieces)
    if table == "none":
        check_refused(path, "damaged", "10 pieces of compressed pixels for 5 frames")
    else:
        np.testing.assert_array_equal(read([path])[1], small())


def item(content):
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def pieces_of(encapsulated):
    """The pieces behind the first, which is the table of offsets."""
    found, at = [], 0
    while at < len(encapsulated):
        length = struct.unpack_from("<L", encapsulated, at + 4)[0]
        found.append(encapsulated[at + 8 : at + 8 + length])
        at += 8 + length
    return found[1:]


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (lambda ds: setattr(ds, "NumberOfFrames", 4), "header", "4 frames and tells of 5"),
        (lambda ds: setattr(ds, "NumberOfFrames", 0), "header", "0 frames"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "header", "5 frames and tells of 4"),
        (lambda ds: cut_out(ds, "PerFrameFunctionalGroupsSequence"), "header", "tells of 0"),
        (lambda ds: cut_out(ds, "SharedFunctionalGroupsSequence"), "header", "frame 1 of a.dcm does not say where"),
        (lambda ds: cut_out(ds.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"), "spacing", "frame 1 of a.dcm"),
        (lambda ds: cut_out(ds.SharedFunctionalGroupsSequence[0], "PixelValueTransformationSequence"), "header", "which HU"),
        (lambda ds: cut_out(ds.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence"), "header", "frame 3 of a.dcm"),
    ],
)  # fmt: skip
def test_a_multi_frame_header_that_leaves_something_out_is_refused(tmp_path, change, rule, words):
    check_refused(edit(write_multiframe(tmp_path / "a.dcm", small()), change), rule, words)


# ------------------------------------------------------------------------------------------ instances


def test_an_instance_says_what_the_header_says(tmp_path):
    path = write_series(tmp_path, small(), series="s", patient="Müller^X")[0]
    edit(path, lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"))
    edit(path, lambda ds: setattr(ds, "PatientID", "Müller"))
    found = read_instance(path)
    assert found.path == path
    assert found.series == dicom_files.uid("s")
    assert (found.patient, found.modality, found.kind) == ("Müller", "CT", "")
    assert found.uid == dcmread(path).SOPInstanceUID
    assert found.study == dcmread(path).StudyInstanceUID


def test_series_in_one_folder_are_told_apart(tmp_path):
    one = write_series(tmp_path / "x", small(0), series="one")
    two = write_series(tmp_path / "y", small(1), series="two")
    for path in two:
        path.rename(tmp_path / "x" / f"two-{path.name}")
    series = {}
    for path in sorted((tmp_path / "x").iterdir()):
        series.setdefault(read_instance(path).series, []).append(path)
    assert set(series) == {dicom_files.uid("one"), dicom_files.uid("two")}
    np.testing.assert_array_equal(read(series[dicom_files.uid("one")])[1], small(0))
    np.testing.assert_array_equal(read(series[dicom_files.uid("two")])[1], small(1))
    check_refused([*one, *series[dicom_files.uid("two")]], "slices", "contradict", "series is", "two-000.dcm")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SOPClassUID": uid.XRayRadiationDoseSRStorage, "Modality": "SR"}, "dose report"),
        ({"SOPClassUID": uid.ComprehensiveSRStorage, "Modality": "SR"}, "structured report"),
        ({"SOPClassUID": uid.SegmentationStorage, "Modality": "SEG"}, "SEG"),
        ({"SOPClassUID": uid.RTStructureSetStorage, "Modality": "RTSTRUCT"}, "RTSTRUCT"),
        ({"SOPClassUID": uid.GrayscaleSoftcopyPresentationStateStorage}, "presentation state"),
        ({"SOPClassUID": uid.KeyObjectSelectionDocumentStorage}, "key object selection"),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, "secondary capture"),
        ({"SOPClassUID": uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage}, "secondary capture"),
        ({"SOPClassUID": uid.MediaStorageDirectoryStorage, "Modality": ""}, "DICOMDIR"),
        ({"SOPClassUID": "", "Modality": "SEG"}, "SEG"),
        ({"SOPClassUID": uid.MRImageStorage, "Modality": "MR"}, ""),
        ({"SOPClassUID": ""}, ""),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_named_and_refused(tmp_path, change, kind):
    files = write_series(tmp_path, small(), extra=lambda ds, z: ds.update(as_dataset(change)))
    for path in files:
        edit(path, lambda ds: setattr(ds.file_meta, "MediaStorageSOPClassUID", change.get("SOPClassUID", "")))
    found = read_instance(files[0])
    assert (found.kind, found.modality) == (kind, change.get("Modality", "CT"))
    if kind or found.modality != "CT":
        check_refused(files, "not-ct", kind or "modality MR")
    else:
        read_stack(files)


def as_dataset(values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_anonymised_files_without_any_uid_are_read(tmp_path):
    empty = dict.fromkeys(
        ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"), ""
    )
    files = write_series(tmp_path, small(), extra=lambda ds, z: ds.update(as_dataset(empty)))
    found = [read_instance(path) for path in files]
    assert {(one.series, one.study, one.patient, one.modality) for one in found} == {("", "", "", "CT")}
    np.testing.assert_array_equal(read(files)[1], small())


def test_a_file_without_its_first_bytes_is_read_if_its_name_says_dicom(tmp_path):
    for syntax in NATIVE[:2]:
        files = write_series(tmp_path / syntax, small(), transfer_syntax=syntax)
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[144 + struct.unpack_from("<L", content, 140)[0] :])
        assert looks_like_dicom(files[0])
        assert read_instance(files[0]).series == dicom_files.uid("chest")
        np.testing.assert_array_equal(read(files)[1], small())


def test_dicom_is_known_by_its_mark_or_its_name(tmp_path):
    path = write_series(tmp_path, small())[0]
    bare = path.rename(tmp_path / "IM000001")
    (tmp_path / "text.dcm").write_text("no DICOM at all")
    (tmp_path / "short").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert looks_like_dicom(bare)
    assert looks_like_dicom(tmp_path / "text.dcm")
    assert looks_like_dicom(Path("a.IMA"))
    for other in ("short", "pipe", "missing"):
        assert not looks_like_dicom(tmp_path / other)
    assert not looks_like_dicom(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"no DICOM at all\n" * 100, b"\0" * 5000, b"\0" * 128 + b"DICM", os.urandom(3000)],
    ids=["empty", "byte", "text", "zeros", "mark", "noise"],
)
def test_what_only_has_the_name_is_refused(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    for attempt in (read_instance, lambda path: read_stack([path])):
        with pytest.raises(Refusal) as caught:
            attempt(path)
        assert caught.value.rule == (
            "format" if content.strip(b"\0") != b"DICM" and content else "header" if content else "empty"
        )


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.dcm")
    with pytest.raises(Refusal, match="format"):
        read_instance(tmp_path / "a.dcm")
    check_refused(tmp_path / "b.dcm", "unreadable", "no such file")


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write_series(tmp_path, small())[0]
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(Refusal, match="unreadable"):
        read_instance(path)


# -------------------------------------------------------------------------------------------- refused

EVERY, ONE = None, 2  # which slices are changed


@pytest.mark.parametrize(
    ("where", "change", "rule", "words"),
    [
        (EVERY, {"Modality": "MR"}, "not-ct", "modality MR"),
        (ONE, {"Modality": "PT"}, "not-ct", "modality PT, not CT; so says 002.dcm"),
        (ONE, {"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, "not-ct", "something else: localizer"),
        (ONE, {"SeriesInstanceUID": "1.2.3"}, "slices", "in 000.dcm and 1.2.3 in 002.dcm"),
        (ONE, {"PatientID": "P2"}, "slices", "patient is P1 in 000.dcm and P2 in 002.dcm"),
        (ONE, {"PatientID": ""}, "slices", "patient is P1 in 000.dcm and missing in 002.dcm"),
        (ONE, {"PixelSpacing": [3, 4.1]}, "slices", "pixel spacing is 3 x 4 in 000.dcm and 3 x 4.1 in 002.dcm"),
        (ONE, {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "slices", "orientation is 1 x 0 x 0 x 0 x 1 x 0 in 000.dcm"),
        (ONE, {"ImagePositionPatient": [-40, -30, 12]}, "slices", "first 001.dcm and 002.dcm"),
        (ONE, {"ImagePositionPatient": [-40, -30, 18]}, "slices", "4 to 6 mm apart, and 00"),
        (ONE, {"ImagePositionPatient": [-41, -30, 17]}, "slices", "002.dcm lies most out of place"),
        (ONE, {"ImagePositionPatient": [-40, -30, 97]}, "slices", "missing"),
        (ONE, {"SOPInstanceUID": dicom_files.uid("P1", "chest", 0)}, "slices", "002.dcm are the same slice"),
        (ONE, {"ImagePositionPatient": None}, "header", "002.dcm does not say where in the patient"),
        (ONE, {"ImageOrientationPatient": None}, "header", "002.dcm does not say where in the patient"),
        (ONE, {"PixelSpacing": None, "ImagerPixelSpacing": [3, 4]}, "spacing", "002.dcm does not give"),
        (ONE, {"RescaleSlope": None}, "header", "002.dcm does not say which HU"),
        (ONE, {"RescaleIntercept": None}, "header", "002.dcm does not say which HU"),
        (ONE, {"RescaleSlope": 0}, "header", "slope of 0"),
        (ONE, {"RescaleSlope": -1}, "header", "slope of -1"),
        (ONE, {"RescaleType": "Z_EFF"}, "not-ct", "Z_EFF"),
        (ONE, {"ModalityLUTSequence": [Dataset()]}, "header", "which HU"),
        (EVERY, {"SpacingBetweenSlices": 4.9}, "spacing", "4.9 mm from slice to slice"),
        (EVERY, {"PixelSpacing": [0, 4]}, "spacing", "cannot be"),
        (EVERY, {"PixelSpacing": [-3, 4]}, "spacing", ""),
        (EVERY, {"PixelSpacing": 3}, "header", "PixelSpacing as 2 numbers, 000.dcm says '3.0'"),
        (EVERY, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "header", "not at right angles"),
        (EVERY, {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "header", "length 1"),
        (EVERY, {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "header", "length 1"),
        (ONE, {"PhotometricInterpretation": "MONOCHROME1"}, "format", "MONOCHROME1"),
        (ONE, {"SamplesPerPixel": 3}, "format", "3 values a pixel"),
        (ONE, {"Rows": 10, "Columns": 36}, "slices", "size is 18 x 20 in 000.dcm and 36 x 10 in 002.dcm"),
        (ONE, {"Rows": 21}, "truncated", "756 bytes, and then that they take 720"),
        (ONE, {"Rows": 19}, "surplus", "684 bytes, and then that they take 720"),
        (ONE, {"Rows": 0}, "header", "18 x 0 pixels"),
        (ONE, {"Rows": None}, "header", "Rows as a whole number, 002.dcm does not say it"),
        (ONE, {"BitsAllocated": 1}, "format", "1 bits"),
        (ONE, {"BitsAllocated": 32}, "truncated", ""),
        (ONE, {"BitsStored": 12}, "header", "contradicts itself"),
        (ONE, {"HighBit": 11}, "header", "contradicts itself"),
        (ONE, {"PixelRepresentation": 2}, "header", "contradicts itself"),
        (ONE, {"NumberOfFrames": 2}, "header", "2 frames"),
        (ONE, {"PixelData": None}, "truncated", "002.dcm is cut"),
    ],
)  # fmt: skip
def test_slices_that_lack_or_contradict_something_are_refused(tmp_path, where, change, rule, words):
    def apply(ds, z):
        if where in (EVERY, z):
            for keyword, value in change.items():
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)

    check_refused(write_series(tmp_path, small(), extra=apply), rule, words)


def test_a_missing_slice_is_placed(tmp_path):
    files = write_series(tmp_path, ct(0, (9, 6, 4)))
    check_refused(
        [*files[:3], *files[4:]],
        "slices",
        "1 slice is missing",
        "between 002.dcm and 004.dcm",
        "10 mm apart",
        "others 5 mm",
    )
    check_refused([files[0], *files[3:]], "slices", "2 slices are missing", "between 000.dcm and 003.dcm")
    check_refused([*files[:8:2], *files[8:]][1:-1] + files[3:4], "slices", "")
    read_stack(files[::2])  # every other slice is a coarser grid: nothing tells that any is missing


def test_doubled_slices_are_told_from_several_phases(tmp_path):
    one = write_series(tmp_path / "a", small(), extra=lambda ds, z: setattr(ds, "AcquisitionNumber", 1))
    two = write_series(tmp_path / "b", small(1), extra=lambda ds, z: setattr(ds, "AcquisitionNumber", 2))
    for path in two:
        edit(path, lambda ds: setattr(ds, "SOPInstanceUID", ds.SOPInstanceUID[:-2]))
    check_refused(
        [*one, *two],
        "slices",
        "5 of 10 slices",
        "a/000.dcm and b/000.dcm",
        "AcquisitionNumber 1 and 2",
        "phases",
    )
    check_refused([*one, two[3]], "slices", "1 of 6 slices", "a/003.dcm and b/003.dcm")
    check_refused([*one[:1], two[0]], "slices", "1 of 2 slices")


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (uid.JPEGBaseline8Bit, "JPEG Baseline"),
        (uid.JPEGExtended12Bit, "JPEG Extended"),
        (uid.HTJ2KLossless, "High-Throughput JPEG 2000"),
        (uid.MPEG4HP41, "MPEG-4"),
        (uid.DeflatedExplicitVRLittleEndian, "deflated"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_what_no_decoder_at_hand_reads_is_refused_by_its_name(tmp_path, syntax, name):
    deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    files = write_series(
        tmp_path,
        small(),
        transfer_syntax=syntax if deflated else uid.RLELossless,
    )
    if not deflated:
        for path in files:
            ds = dcmread(path)
            ds.file_meta.TransferSyntaxUID = syntax
            ds.save_as(path, implicit_vr=False, little_endian=True, force_encoding=True)
    check_refused(files, "format", name)


# -------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, syntax):
    files = write_series(tmp_path, small(), transfer_syntax=syntax)
    whole = files[1].read_bytes()
    for length in [*range(1, len(whole), 37), len(whole) - 1, len(whole) - 2, len(whole) - 8]:
        files[1].write_bytes(whole[:length])
        assert refusal(files).rule in (
            "truncated",
            "damaged",
            "header",
            "format",
            "not-ct",
            "spacing",
            "slices",
        )


def test_a_file_cut_within_its_pixels_is_refused_by_its_length(tmp_path):
    files = write_series(tmp_path, small())
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-10])
    check_refused(
        files, "truncated", "001.dcm is cut", f"end at byte {len(whole):,}, the file at {len(whole) - 10:,}"
    )


def test_what_follows_the_pixels_must_be_a_data_set(tmp_path):
    def padding(ds, z):
        ds.add_new(Tag(0xFFFC, 0xFFFC), "OB", b"\0" * 20)

    files = write_series(tmp_path, small(), extra=padding)
    np.testing.assert_array_equal(read(files)[1], small())
    whole = files[1].read_bytes()
    for more in (b"\0", b"\0" * 100, b"another file", whole):
        files[1].write_bytes(whole + more)
        check_refused(files, "surplus", "Something else follows the pixels in 001.dcm")
    files[1].write_bytes(whole[:-1])
    check_refused(files, "truncated", "001.dcm")


def test_a_stream_that_no_decoder_reads_is_refused_with_the_files_name(tmp_path, capfd):
    for syntax in COMPRESSED:
        files = write_series(tmp_path / syntax, small(), transfer_syntax=syntax)
        content = bytearray(files[3].read_bytes())
        start = content.index(dcmread(files[3]).PixelData) + 20
        content[start : start + 8] = b"\xff" * 8
        files[3].write_bytes(content)
        check_refused(files, "damaged", "003.dcm", syntax.name)
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_that_its_decoder_makes_up_in_part_is_refused(tmp_path, capfd):
    array = ct(0, (2, 64, 64))
    files = write_series(tmp_path, array, transfer_syntax=uid.JPEGLosslessSV1)
    content = bytearray(files[1].read_bytes())
    middle = content.index(dcmread(files[1]).PixelData) + 2000
    content[middle : middle + 1000] = b"\0" * 1000
    files[1].write_bytes(content)
    check_refused(files, "damaged", "001.dcm")
    assert capfd.readouterr() == ("", "")


def test_more_bits_in_the_stream_than_in_the_header_are_refused(tmp_path):
    def narrow(ds, z):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7

    for syntax in (uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        files = write_series(tmp_path / syntax, small(), transfer_syntax=syntax, extra=narrow)
        check_refused(files, "damaged", "have 16 bits, the header has room for 8")


def test_run_lengths_that_make_too_much_are_refused(tmp_path):
    def longer(ds, z):
        # One segment: runs of 120 times the same value, of which three make a slice
        header = struct.pack("<16L", 1, 64, *[0] * 14)
        ds.PixelData = item(b"") + item(header + struct.pack("2B", 257 - 120, 7) * (3 if z != 2 else 4))

    files = write_series(
        tmp_path, small() * 0, bits_stored=8, intercept=0, transfer_syntax=uid.RLELossless, extra=longer
    )
    check_refused(files, "damaged", "002.dcm")
    assert (read(files[:2])[1] == 7).all()


def test_deep_nesting_is_refused(tmp_path):
    # Sequences of undefined length in one another, 5,000 deep
    head = struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    files = write_series(tmp_path, small())
    content = files[0].read_bytes()
    pixels = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    files[0].write_bytes(content[:pixels] + head * 5000 + content[pixels:])
    check_refused(files, "damaged", "000.dcm cannot be read: its header is damaged")


@pytest.mark.filterwarnings("ignore:The value length")
def test_texts_longer_than_any_the_standard_allows_are_refused(tmp_path):
    path = write_series(tmp_path, small()[:1], extra=lambda ds, z: setattr(ds, "Modality", "CT" * 300))[0]
    check_refused(path, "damaged", "The Modality of 000.dcm is too long")


def test_a_length_that_is_a_lie_takes_no_memory(tmp_path):
    path = write_series(tmp_path, small()[:1])[0]
    content = path.read_bytes()
    element = struct.pack("<HH2sHL", 0x0029, 0x1010, b"OB", 0, 0xFFFFFFF0)
    at = content.index(struct.pack("<HH2s", 0x0028, 0x0002, b"US"))
    path.write_bytes(content[:at] + element + content[at:])
    check_refused(path, "truncated", "is cut")
    # The same for a field that is read
    name = struct.pack("<HH2s", 0x0010, 0x0020, b"LO")
    path.write_bytes(content.replace(name, struct.pack("<HH2sHL", 0x0010, 0x0020, b"UN", 0, 0xFFFFFFF0)[:-2]))
    assert isinstance(refusal(path), Refusal)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_header_gives_a_scan_or_a_refusal(tmp_path_factory, data):
    files, whole = damaged_series(tmp_path_factory)
    content = bytearray(whole)
    pixels = whole.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(128, pixels + 11))] = data.draw(st.integers(0, 255))
    files[2].write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for attempt in (lambda: read(files), lambda: read_instance(files[2])):
            with suppress(Refusal):
                attempt()


_cached = {}


def damaged_series(tmp_path_factory):
    if not _cached:
        files = write_series(tmp_path_factory.mktemp("damaged"), small())
        _cached["files"], _cached["whole"] = files, files[2].read_bytes()
    return _cached["files"], _cached["whole"]


def test_pydicom_keeps_quiet_and_is_left_as_it_was(tmp_path, caplog, capfd):
    files = write_series(tmp_path, small())
    content = files[0].read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    files[0].write_bytes(
        content
    )  # claims implicit value representations: pydicom warns and reads it all the same
    level = logging.getLogger("pydicom").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(files)[1], small())
    assert (capfd.readouterr(), caplog.text) == (("", ""), "")
    assert logging.getLogger("pydicom").level == level


# ----------------------------------------------------------------------------------------- real scans

REAL_CT = Path(os.environ.get("SG_REAL_CT", ""))
needs_real_ct = pytest.mark.skipif(
    not os.environ.get("SG_REAL_CT"), reason="SG_REAL_CT does not name a folder of real scans"
)


def real(folder):
    """The DICOM files of a folder, by name."""
    return sorted(path for path in (REAL_CT / folder).rglob("*") if path.is_file() and looks_like_dicom(path))


@needs_real_ct
@pytest.mark.parametrize(
    ("folder", "size", "spacing"),
    [
        ("LIDC-IDRI/LIDC-IDRI-0001", (512, 512, 133), (0.70, 0.70, 2.5)),
        ("LIDC-IDRI/LIDC-IDRI-0002", (512, 512, 12), (0.68, 0.68, 1.25)),
        ("mixed/dicom-jpeg-lossless", (512, 512, 16), (0.70, 0.70, 1.25)),
        ("abdomen/totalsegmentator-dicom20", (512, 512, 20), (0.98, 0.98, 2.0)),
    ],
)
def test_real_series_are_read_as_simpleitk_reads_them(folder, size, spacing):
    stack, array = read(real(folder))
    assert stack.geometry.size == size
    np.testing.assert_allclose(stack.geometry.spacing_mm, spacing, atol=0.0051)
    expected, image = itk([part.path for part in stack.slices])
    np.testing.assert_array_equal(array, expected)
    corner = [n - 1 for n in size]
    there = image.TransformIndexToPhysicalPoint(corner)
    np.testing.assert_allclose(stack.geometry.position_mm(corner), there, atol=1e-3)


@needs_real_ct
def test_the_real_damaged_series_are_refused_for_what_is_wrong_with_them():
    check_refused(real("damaged/dicom-cut-slice"), "truncated", "1-084.dcm is cut", "526,458", "53,248")
    check_refused(real("damaged/dicom-jpeg2000-broken"), "damaged", "000300.dcm", "JPEG 2000")
