"""Every reader of one-file formats puts voxels where SimpleITK and nibabel put them."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sg.scans import read_header, read_scan
from tests.scan_files import nifti, write_itk

ATOL_MM = 1e-3
FORMATS = ["a.nii", "b.nii.gz", "c.img", "d.img.gz", "e.mha", "f.mhd", "g.nrrd", "h.nhdr"]
SHAPE = (4, 3, 5)  # z, y, x
ARRAY = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
INDEX = [(0, 0, 0), (4, 0, 0), (0, 2, 0), (0, 0, 3), (4, 2, 3), (1.5, 0.25, 2)]  # x, y, z

origins = st.tuples(*[st.floats(-500, 500, width=32)] * 3)
spacings = st.tuples(*[st.floats(0.25, 9.5, width=32)] * 3)
orders = st.permutations(range(3))
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)
turns = st.one_of(
    st.just((0.0, 0.0, 0.0)),
    st.tuples(*[st.sampled_from([0.0, 90.0, 180.0, 270.0])] * 3),
    st.tuples(*[st.floats(-5, 5)] * 3),  # oblique by a few degrees
    st.tuples(*[st.floats(-180, 180)] * 3),
)
placed = given(origins, spacings, orders, flips, turns)


def direction_of(order, flip, turn):
    """A 3 x 3 matrix whose columns are the unit vectors of the stored axes."""
    return Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.eye(3)[list(order)] @ np.diag(flip)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grids")


@placed
@settings(max_examples=40, deadline=None)
def test_every_format_agrees_with_simpleitk_on_where_voxels_are(folder, origin, spacing, order, flip, turn):
    direction = direction_of(order, flip, turn)
    geometries = []
    for name in FORMATS:
        written = write_itk(
            folder / name,
            ARRAY,
            direction=direction,
            spacing_mm=spacing,
            origin_mm=origin,
            compress=name == "h.nhdr",
        )
        image = sitk.ReadImage(str(written))
        path = written.with_name(name.replace(".img", ".hdr"))
        scan = read_scan(path, folder, None)
        geometry = scan.geometry
        theirs = [image.TransformContinuousIndexToPhysicalPoint([float(v) for v in i]) for i in INDEX]
        np.testing.assert_allclose(geometry.position_mm(INDEX), theirs, atol=ATOL_MM)
        np.testing.assert_allclose(geometry.direction, image.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(geometry.index(theirs), INDEX, atol=1e-3)
        np.testing.assert_array_equal(scan.array, ARRAY)
        geometries.append(geometry)
    assert not any(geometries[0].difference(other) for other in geometries)


@placed
@settings(max_examples=40, deadline=None)
def test_nifti_in_one_and_in_two_files_agrees_with_nibabel(folder, origin, spacing, order, flip, turn):
    affine = np.eye(4)
    affine[:3, :3] = direction_of(order, flip, turn) * spacing
    affine[:3, 3] = origin
    for name, kind in (
        ("i.nii", nib.Nifti1Image),
        ("j.nii.gz", nib.Nifti2Image),
        ("k.hdr", nib.Nifti1Pair),
        ("l.hdr", nib.Nifti2Pair),
    ):
        nib.save(nifti(ARRAY, affine, kind), folder / name)
        mine = read_header(folder / name, folder, None).geometry.position_mm(INDEX) * [
            -1,
            -1,
            1,
        ]  # LPS to RAS
        theirs = nib.load(folder / name).affine
        np.testing.assert_allclose(mine, nib.affines.apply_affine(theirs, INDEX), atol=ATOL_MM)
