"""BraTS 2018's folders and the Decathlon's brain task as nibabel and SimpleITK read them."""

from __future__ import annotations

import json
import re
from functools import cache
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from sg.cohorts.phantom.brain.rendering import BrainScan, draw_brain
from sg.cohorts.phantom.layouts import Place, brats, decathlon_brain
from sg.params import BrainPhantoms
from sg.randomness import generator

CONTRASTS = ("t1", "t1ce", "t2", "flair")


def draw_of(number: int):
    return lambda purpose: generator(21, "test", str(number), purpose)


@cache
def drawn() -> BrainScan:
    recipe = BrainPhantoms(layout="brats", train=1, validation=0, test=0, spacing_mm=6.0)
    return draw_brain(draw_of(0), recipe)


def made(grade: str = "HGG", spacing: float = 1.0) -> SimpleNamespace:
    """A scan written down by hand: 2 x 3 x 4 voxels (z, y, x), each contrast and label told from the others."""
    ramp = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, :3] = 1, 2, 4
    first = spacing / 2 - 0.5
    return SimpleNamespace(
        contrasts={name: ramp + 100 * number for number, name in enumerate(CONTRASTS)},
        labels=labels,
        grade=grade,
        spacing_mm=spacing,
        origin_mm=(first, first - 239.0, first),
        head=SimpleNamespace(age=61.25),
        survival_days=300,
        resection="GTR",
    )


def test_the_files_of_a_case_stand_where_brats_has_them(tmp_path):
    stem = "HGG/Brats18_2013_4_1/Brats18_2013_4_1"
    brats.write(tmp_path, stem, made(), draw_of(0))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.gz"))
    assert found == sorted(f"{stem}_{name}.nii.gz" for name in (*CONTRASTS, "seg"))
    for name in CONTRASTS:
        image = nibabel.load(tmp_path / f"{stem}_{name}.nii.gz")
        assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, made().contrasts[name])
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(tmp_path / f"{stem}_seg.nii.gz").dataobj).T, made().labels
    )


def test_the_world_is_that_of_the_real_files(tmp_path):
    """Affine as two real cases of 240 x 240 x 155 voxels have it, one of UPENN-GBM and one of TCGA-LGG."""
    brats.write(tmp_path, "a/b/c", made(), draw_of(0))
    expected = [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    image = nibabel.load(tmp_path / "a/b/c_t2.nii.gz")
    np.testing.assert_array_equal(image.affine, expected)
    assert image.header.get_xyzt_units()[0] == "mm"
    other = sitk.ReadImage(str(tmp_path / "a/b/c_t2.nii.gz"))
    assert other.GetOrigin() == (0, -239, 0)
    assert other.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_coarser_voxels_begin_at_the_same_corner_of_the_frame(tmp_path):
    brats.write(tmp_path, "a/b/c", made(spacing=3.0), draw_of(0))
    image = sitk.ReadImage(str(tmp_path / "a/b/c_t1.nii.gz"))
    # The corner of a first voxel of 1 mm at 0 is -0.5; so is that of one of 3 mm whose centre is at 1.
    assert image.GetOrigin() == pytest.approx((1.0, -238.0, 1.0))
    assert image.GetSpacing() == pytest.approx((3, 3, 3))


def test_the_survival_table_names_high_grade_only(tmp_path):
    high = brats.write(tmp_path, "HGG/x/x", made(), draw_of(0))
    low = brats.write(tmp_path, "LGG/y/y", made("LGG"), draw_of(0))
    brats.finish(tmp_path, [("LGG/y/y", low), ("HGG/x/x", high)])
    text = (tmp_path / "survival_data.csv").read_text()
    assert text == "BraTS18ID,Age,Survival,ResectionStatus\nx,61.250,300,GTR\n"


def test_names_are_as_the_real_ones_and_no_two_alike():
    stems = [brats.stem(Place(n, "train", n), draw_of(n)) for n in range(300)]
    names = [stem.split("/")[1] for stem in stems]
    assert len(set(names)) == 300
    pattern = r"(HGG|LGG)/(Brats18_(CBICA_[A-Z]{3}|TCIA(0[1-9]|1[0-3])_\d{3}|2013_\d+)_1)/\2"
    assert all(re.fullmatch(pattern, stem) for stem in stems)
    assert 0.15 < np.mean([stem.startswith("LGG") for stem in stems]) < 0.38


def test_the_folder_is_that_of_the_grade_which_the_scan_turns_out_to_have():
    assert brats.stem(Place(0, "train", 0), draw_of(0)).startswith(drawn().grade)


def test_the_decathlon_has_four_channels_in_its_order_and_its_own_labels(tmp_path):
    decathlon_brain.write(tmp_path, "BRATS_001", made(), draw_of(0))
    image = nibabel.load(tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    assert image.shape == (4, 3, 2, 4)
    assert image.get_data_dtype() == np.float32
    # FLAIR, T1w, t1gd, T2w: the fourth, first, second and third of the contrasts made here
    np.testing.assert_array_equal(np.asarray(image.dataobj)[0, 0, 0], [300, 0, 100, 200])
    labels = nibabel.load(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    # BraTS 1 (core), 2 (oedema), 4 (enhancing) -> 2, 1, 3
    np.testing.assert_array_equal(np.asarray(labels.dataobj)[:, 0, 0], [2, 1, 3, 0])
    np.testing.assert_array_equal(labels.affine, image.affine)


def test_the_decathlon_s_table_names_what_is_there(tmp_path):
    names = [decathlon_brain.stem(Place(n, "train", n), draw_of(n)) for n in (0, 11)]
    assert names == ["BRATS_001", "BRATS_012"]
    for name in names:
        decathlon_brain.write(tmp_path, name, made(), draw_of(0))
    decathlon_brain.finish(tmp_path, [(name, None) for name in names])
    table = json.loads((tmp_path / "dataset.json").read_text())
    assert table["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert table["labels"]["1"] == "edema"
    assert table["numTraining"] == len(table["training"]) == 2
    for case in table["training"]:
        assert (tmp_path / case["image"]).is_file()
        assert (tmp_path / case["label"]).is_file()


def test_a_drawn_scan_comes_back_voxel_by_voxel_and_byte_by_byte(tmp_path):
    scan = drawn()
    for folder in ("a", "b"):
        brats.write(tmp_path / folder, "HGG/x/x", scan, draw_of(0))
    one, two = (sorted((tmp_path / folder).rglob("*.gz")) for folder in ("a", "b"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    for path in one:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        name = path.name.split("_")[1].split(".")[0]
        np.testing.assert_array_equal(array, scan.labels if name == "seg" else scan.contrasts[name])
