"""The Decathlon's liver task as nibabel and SimpleITK read it."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from sg.cohorts.phantom.canvas import LABEL
from sg.cohorts.phantom.layouts import decathlon, places
from sg.params import LiverPhantoms
from tests.cohorts.phantom.hand_made_scans import ORIENTATIONS, drawing, scan_of


def liver_scan(**keywords):
    scan = scan_of([], **keywords)
    scan.labels[:] = 0
    scan.labels[10:20, 12:24, 5:25] = LABEL["liver"]
    scan.labels[12, 12:24, 8] = LABEL["liver_vessels"]
    scan.labels[14:17, 16:19, 9:12] = LABEL["liver_lesion"]
    scan.labels[21:24, 12:24, 5:25] = LABEL["spleen"]
    return scan


@pytest.mark.parametrize(("orientation", "rotation"), ORIENTATIONS)
def test_every_voxel_lies_in_the_world_where_the_scan_has_it(tmp_path, orientation, rotation):
    scan = liver_scan(orientation=orientation, rotation=rotation)
    decathlon.write(tmp_path, "liver_3", scan, drawing(0))
    path = tmp_path / "imagesTr" / "liver_3.nii.gz"
    image, other = nibabel.load(path), sitk.ReadImage(str(path))
    lattice = scan.grid.lattice
    rng = np.random.default_rng(1)
    for k, j, i in np.column_stack([rng.integers(0, n, 20) for n in lattice.shape]):
        point = scan.grid.world(np.array([[lattice.x[i], lattice.y[j], lattice.z[k]]]))[0]
        index = np.linalg.inv(image.affine) @ [-point[0], -point[1], point[2], 1]
        np.testing.assert_allclose(index[:3], np.rint(index[:3]), atol=1e-3)
        assert image.dataobj[tuple(np.rint(index[:3]).astype(int))] == scan.hu[k, j, i]
        assert other[other.TransformPhysicalPointToIndex(point)] == scan.hu[k, j, i]
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    assert image.header.get_data_dtype() == np.int16


def test_labels_are_background_liver_with_its_vessels_and_cancer(tmp_path):
    scan = liver_scan(orientation="RAS", rotation=np.eye(3))
    decathlon.write(tmp_path, "liver_3", scan, drawing(0))
    label = nibabel.load(tmp_path / "labelsTr" / "liver_3.nii.gz")
    values = np.asanyarray(label.dataobj)
    assert values.dtype == np.uint8
    # 10 * 12 * 20 voxels of liver, of which 27 are a lesion; RAS turns x and y round
    assert [np.count_nonzero(values == v) for v in (1, 2)] == [2400 - 27, 27]
    assert set(zip(*(axis.tolist() for axis in np.nonzero(values == 2)), strict=True)) == {
        (39 - x, 35 - y, z) for x in range(9, 12) for y in range(16, 19) for z in range(14, 17)
    }
    image = nibabel.load(tmp_path / "imagesTr" / "liver_3.nii.gz")
    np.testing.assert_array_equal(label.affine, image.affine)


def test_case_numbers_say_the_split_and_dataset_json_lists_every_case(tmp_path):
    recipe = LiverPhantoms(layout="decathlon-liver", train=3, validation=1, test=2, lesions=(0, 1))
    stems = [decathlon.stem(place, drawing(0)) for place in places(recipe)]
    assert stems == [f"liver_{n}" for n in (0, 1, 2, 100, 115, 116)]
    decathlon.finish(tmp_path, [(stem, None) for stem in stems])
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert set(described) == {
        "name", "description", "reference", "licence", "release", "tensorImageSize", "modality", "labels", "numTraining",
        "numTest", "training", "test",
    }  # fmt: skip
    assert described["name"] == "Liver"
    assert described["tensorImageSize"] == "3D"
    assert described["modality"] == {"0": "CT"}
    assert described["labels"] == {"0": "background", "1": "liver", "2": "cancer"}
    assert (described["numTraining"], described["numTest"], described["test"]) == (6, 0, [])
    assert described["training"][3] == {
        "image": "./imagesTr/liver_100.nii.gz",
        "label": "./labelsTr/liver_100.nii.gz",
    }
