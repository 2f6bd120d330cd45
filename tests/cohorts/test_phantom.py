"""A phantom cohort as others read it: with SimpleITK, nibabel and h5py, never through the code that wrote it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers Blosc2 with HDF5
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.interpolate import RegularGridInterpolator

from sg.cohorts.phantom import layouts
from sg.cohorts.phantom.making import Job, make, make_one
from sg.params import PhantomRecipe, PhantomShared

SHARED = PhantomShared(
    spacing_xy_mm=(4.0, 5.0), spacing_z_mm=(4.0, 5.0), noise_hu=(10.0, 20.0), truth_grid_mm=12.0
)
LUNA16 = PhantomRecipe(layout="luna16", train=6, validation=2, test=3, nodules=(1, 3), candidates=5)
LIVER = PhantomRecipe(layout="decathlon", train=3, validation=1, test=1, nodules=(1, 2), candidates=0)


def made(folder: Path, recipe: PhantomRecipe, seed: int = 7, cohort: str = "c", workers: int = 1) -> Path:
    folder.mkdir()
    make(folder, seed, cohort, recipe, SHARED, workers)
    return folder


@pytest.fixture(scope="module")
def luna16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("phantom") / "luna16", LUNA16)


@pytest.fixture(scope="module")
def liver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("phantom") / "liver", LIVER)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def point(row: dict[str, str]) -> list[float]:
    return [float(row[f"coord{axis}"]) for axis in "XYZ"]


def truth(folder: Path, stem: str) -> dict:
    with h5py.File(folder / "truth" / f"{stem}.h5") as file:
        atlas = file["atlas"]
        return {
            "atlas": atlas[()],
            "origin": atlas.attrs["grid_origin_mm"],
            "spacing": atlas.attrs["grid_spacing_mm"],
            "error": atlas.attrs["interpolation_error_mm"],
            "labels": file["labels"][()],
            "names": json.loads(file["labels"].attrs["names"]),
            "lesions": file["lesions"][()],
        }


def mask(t: dict, *names: str) -> np.ndarray:
    return np.isin(t["labels"], [t["names"].index(name) for name in names])


def atlas_at(t: dict, points_mm: np.ndarray) -> np.ndarray:
    """Linear interpolation of the coarse grid by scipy, at LPS points (n, 3)."""
    axes = [
        o + s * np.arange(n)
        for o, s, n in zip(t["origin"], t["spacing"], t["atlas"].shape[:0:-1], strict=True)
    ]
    parts = [
        RegularGridInterpolator(axes[::-1], part.astype(float))(points_mm[:, ::-1]) for part in t["atlas"]
    ]
    return np.stack(parts, axis=1)


def image_points(image: sitk.Image, zyx: np.ndarray) -> np.ndarray:
    return np.array([image.TransformContinuousIndexToPhysicalPoint([float(v) for v in p[::-1]]) for p in zyx])


# --------------------------------------------------------------------------------------------- LUNA16


def test_patients_take_turns_in_the_subsets_of_their_split(luna16):
    counts = {folder.name: len(list(folder.glob("*.mhd"))) for folder in luna16.glob("subset*")}
    # 6 for training over 0 to 4, 2 for validation over 5 and 6, 3 for test over 7 to 9
    assert counts == {
        "subset0": 2, "subset1": 1, "subset2": 1, "subset3": 1, "subset4": 1,
        "subset5": 1, "subset6": 1, "subset7": 1, "subset8": 1, "subset9": 1,
    }  # fmt: skip


def test_series_names_are_valid_uids_and_differ(luna16):
    names = [path.stem if path.suffix == ".mhd" else path.name for path in luna16.glob("subset*/*.mhd")]
    assert len(set(names)) == 11
    assert all(re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", name) and len(name) <= 64 for name in names)


def test_raw_files_hold_exactly_what_the_header_says(luna16):
    for header in luna16.glob("subset*/*.mhd"):
        fields = dict(line.split(" = ") for line in header.read_text().splitlines())
        size = [int(n) for n in fields["DimSize"].split()]
        assert fields["ElementType"] == "MET_SHORT"
        assert (header.parent / fields["ElementDataFile"]).stat().st_size == 2 * np.prod(size)


def test_every_patient_has_its_look_alikes_and_a_candidate_for_each_nodule(luna16):
    candidates, annotations = table(luna16 / "candidates_V2.csv"), table(luna16 / "annotations.csv")
    for header in luna16.glob("subset*/*.mhd"):
        mine = [row for row in candidates if row["seriesuid"] == header.stem]
        nodules = [row for row in annotations if row["seriesuid"] == header.stem]
        assert sum(row["class"] == "0" for row in mine) == LUNA16.candidates
        assert sum(row["class"] == "1" for row in mine) == len(nodules)
        assert 1 <= len(nodules) <= 3
        for nodule in nodules:
            gaps = [
                np.linalg.norm(np.subtract(point(nodule), point(row))) for row in mine if row["class"] == "1"
            ]
            assert min(gaps) < float(nodule["diameter_mm"]) / 2


def test_world_positions_of_nodules_fall_on_dense_nodule_voxels_in_every_orientation(luna16):
    orientations = set()
    annotations = table(luna16 / "annotations.csv")
    for header in luna16.glob("subset*/*.mhd"):
        image = sitk.ReadImage(str(header))
        direction = np.array(image.GetDirection()).reshape(3, 3)
        orientations.add(tuple(np.diag(direction)))
        labels = truth(luna16, header.stem)
        values = sitk.GetArrayViewFromImage(image)
        assert labels["labels"].shape == values.shape
        for row in (row for row in annotations if row["seriesuid"] == header.stem):
            i, j, k = image.TransformPhysicalPointToIndex(point(row))
            assert mask(labels, "nodule")[k, j, i]
            assert values[k, j, i] > -650
    assert orientations == {(1, 1, 1), (-1, -1, 1)}


def test_look_alikes_lie_in_the_lungs_and_away_from_nodules(luna16):
    annotations = table(luna16 / "annotations.csv")
    for header in luna16.glob("subset*/*.mhd"):
        image = sitk.ReadImage(str(header))
        t = truth(luna16, header.stem)
        lung = mask(t, "lung_right", "lung_left", "lung_vessels", "nodule")
        rows = [row for row in table(luna16 / "candidates_V2.csv") if row["seriesuid"] == header.stem]
        for row in (row for row in rows if row["class"] == "0"):
            i, j, k = image.TransformPhysicalPointToIndex(point(row))
            assert lung[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].any()
            for nodule in (n for n in annotations if n["seriesuid"] == header.stem):
                gap = np.linalg.norm(np.subtract(point(nodule), point(row)))
                assert gap > float(nodule["diameter_mm"]) / 2 + 7.9


def test_the_annotated_diameter_is_that_of_the_labelled_volume(luna16):
    """Over all nodules: the label's volume is the annotated balls' to 25 % (some of a nodule at the pleura is cut off)."""
    annotated = sum(np.pi / 6 * float(row["diameter_mm"]) ** 3 for row in table(luna16 / "annotations.csv"))
    labelled = 0.0
    for header in luna16.glob("subset*/*.mhd"):
        voxel = np.prod(sitk.ReadImage(str(header)).GetSpacing())
        labelled += voxel * np.count_nonzero(mask(truth(luna16, header.stem), "nodule"))
    assert labelled == pytest.approx(annotated, rel=0.25)


def test_tissues_have_their_density_and_organs_their_size(luna16):
    litres: dict[str, list[float]] = {}
    for header in luna16.glob("subset*/*.mhd"):
        image = sitk.ReadImage(str(header))
        hu = sitk.GetArrayViewFromImage(image)
        t = truth(luna16, header.stem)
        for name in t["names"]:
            litres.setdefault(name, []).append(
                np.count_nonzero(mask(t, name)) * np.prod(image.GetSpacing()) / 1e6
            )
        assert -920 < np.median(hu[mask(t, "lung_right")]) < -750
        assert -130 < np.median(hu[mask(t, "fat")]) < -75
        assert 25 < np.median(hu[mask(t, "muscle")]) < 90
        assert -1024 <= np.percentile(hu[mask(t, "trachea")], 10) < -850
        assert np.median(hu[mask(t, "spine")]) > 120
        assert hu.min() >= -2000
        assert hu.max() <= 3071
    for name, low, high in (
        ("lung_right", 1.0, 3.5), ("lung_left", 0.8, 3.5), ("heart", 0.35, 1.2), ("aorta", 0.06, 0.3), ("ribs", 0.2, 0.8),
    ):  # fmt: skip
        assert low < np.mean(litres[name]) < high, name
    assert all(np.mean(values) > 0 for name, values in litres.items() if name != "liver_lesion")


# ---------------------------------------------------------------------------------------------- liver


def test_case_numbers_say_the_split(liver):
    names = {path.name for path in (liver / "imagesTr").iterdir()}
    assert names == {f"liver_{n}.nii.gz" for n in (0, 1, 2, 100, 115)}
    assert {path.name for path in (liver / "labelsTr").iterdir()} == names


def test_dataset_json_has_the_real_one_s_keys_and_lists_every_case(liver):
    described = json.loads((liver / "dataset.json").read_text())
    assert set(described) == {
        "name", "description", "reference", "licence", "release", "tensorImageSize", "modality", "labels", "numTraining",
        "numTest", "training", "test",
    }  # fmt: skip
    assert described["labels"] == {"0": "background", "1": "liver", "2": "cancer"}
    assert described["numTraining"] == len(described["training"]) == 5
    for case in described["training"]:
        assert (liver / case["image"]).is_file()
        assert (liver / case["label"]).is_file()


def test_nifti_world_agrees_with_the_truth_in_every_orientation(liver):
    codes = set()
    for path in (liver / "labelsTr").glob("*.nii.gz"):
        label, image = nibabel.load(path), nibabel.load(liver / "imagesTr" / path.name)
        t = truth(liver, path.name.removesuffix(".nii.gz"))
        codes.add("".join(nibabel.aff2axcodes(label.affine)))
        np.testing.assert_array_equal(label.affine, image.affine)
        values = np.asanyarray(label.dataobj)
        assert values.dtype == np.uint8
        np.testing.assert_array_equal(values == 1, mask(t, "liver").transpose(2, 1, 0))
        assert len(t["lesions"]) >= 1
        for centre in t["lesions"]["centre_mm"]:
            ras = np.array([-centre[0], -centre[1], centre[2], 1])
            i, j, k = np.rint(np.linalg.inv(label.affine) @ ras)[:3].astype(int)
            assert values[i, j, k] == 2
    assert codes == {"RAS", "LAS", "LPS"}


def test_the_liver_lies_to_the_right_and_the_spleen_to_the_left_and_behind(liver):
    for path in (liver / "imagesTr").glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        t = truth(liver, path.name.removesuffix(".nii.gz"))
        middle = image_points(image, np.argwhere(mask(t, "spine")).mean(axis=0)[None])[0]
        organ = image_points(image, np.argwhere(mask(t, "liver")).mean(axis=0)[None])[0]
        spleen = image_points(image, np.argwhere(mask(t, "spleen")).mean(axis=0)[None])[0]
        assert organ[0] < middle[0] < spleen[0]  # x grows to the left
        assert organ[1] < middle[1]  # y grows to the back


def test_no_range_of_hu_is_the_liver(liver):
    """The best of many ranges, chosen for each scan with the truth in hand, overlaps it by less than two thirds."""
    for path in (liver / "imagesTr").glob("*.nii.gz"):
        hu = np.asanyarray(nibabel.load(path).dataobj)
        organ = np.asanyarray(nibabel.load(liver / "labelsTr" / path.name).dataobj) > 0
        best = 0.0
        for low in range(-20, 160, 10):
            for width in (20, 40, 60, 80, 120):
                chosen = (hu >= low) & (hu < low + width)
                best = max(best, np.count_nonzero(chosen & organ) / np.count_nonzero(chosen | organ))
        assert best < 2 / 3


# ---------------------------------------------------------------------------------------------- truth


def test_the_marker_names_the_layout_and_the_labels(luna16):
    mark = json.loads((luna16 / "truth" / "phantom.json").read_text())
    assert mark["layout"] == "luna16"
    assert mark["scans"] == 11 == len(list((luna16 / "truth").glob("*.h5")))
    assert mark["labels"] == truth(luna16, next((luna16 / "truth").glob("*.h5")).stem)["names"]


def test_the_coarse_grid_has_an_atlas_position_for_every_voxel_of_the_body(luna16):
    for header in list(luna16.glob("subset*/*.mhd"))[:4]:
        image, t = sitk.ReadImage(str(header)), truth(luna16, header.stem)
        body = np.argwhere(t["labels"] > 0)
        assert np.isfinite(atlas_at(t, image_points(image, body[::97]))).all()


def test_organs_lie_at_the_same_atlas_position_in_every_patient(luna16):
    """The middle of an organ strays less in the atlas than within the box of the body."""
    for name, most_mm in (("lung_right", 10), ("lung_left", 10), ("heart", 6)):
        in_box, in_atlas = [], []
        for header in sorted(luna16.glob("subset*/*.mhd")):
            image, t = sitk.ReadImage(str(header)), truth(luna16, header.stem)
            middle = image_points(image, np.argwhere(mask(t, name)).mean(axis=0)[None])[0]
            body = image_points(image, np.argwhere(t["labels"] > 0)[::11])
            in_box.append(
                (middle - body.min(axis=0)) / np.ptp(body, axis=0) * (330, 230, 300)
            )  # mm of an average box
            in_atlas.append(atlas_at(t, middle[None])[0])
        stray = np.linalg.norm(np.std(in_atlas, axis=0))
        assert stray < most_mm
        assert stray < np.linalg.norm(np.std(in_box, axis=0))


def test_the_stated_interpolation_error_is_that_of_an_independent_sample(luna16):
    from sg.cohorts.phantom import acquisition, anatomy
    from sg.cohorts.phantom.fields import Lattice

    place = layouts.places(LUNA16)[0]
    job = Job(luna16, 7, "c", place, LUNA16, SHARED)
    t = truth(luna16, layouts.luna16_stem(place, job.draw("series")).split("/")[1])
    patient = anatomy.draw_patient(job.draw, abdominal=False)
    grid = acquisition.draw_grid(patient, 0, "luna16", SHARED, job.draw("grid")).lattice
    rng = np.random.default_rng(0)
    lattice = Lattice(*(np.sort(rng.uniform(a[0], a[-1], 30)) for a in (grid.x, grid.y, grid.z)))
    d = anatomy.shapes(patient, lattice)
    exact = anatomy.blended_atlas(patient, lattice, d)
    z, y, x = np.meshgrid(*lattice.axes, indexing="ij")
    points = np.column_stack([x.ravel(), y.ravel(), z.ravel()])[(d["skin"] < 0).ravel()]
    difference = atlas_at(t, points) - exact.reshape(3, -1).T[(d["skin"] < 0).ravel()]
    error = np.percentile(np.linalg.norm(difference, axis=1), 95)
    assert error < 1.15 * t["error"]
    assert error > 0.4 * t["error"]
    assert t["error"] < 2


# ---------------------------------------------------------------------------------------- determinism


def test_two_runs_and_two_workers_give_the_same_bytes(tmp_path):
    small = LUNA16.model_copy(update={"train": 1, "validation": 1, "test": 0})
    first = hashes(made(tmp_path / "a", small))
    assert len(first) == 2 * 3 + 3
    assert hashes(made(tmp_path / "b", small, workers=2)) == first


def test_a_patient_made_alone_is_the_same_as_in_its_cohort(tmp_path, liver):
    (tmp_path / "truth").mkdir()
    make_one(Job(tmp_path, 7, "c", layouts.places(LIVER)[3], LIVER, SHARED))
    alone = hashes(tmp_path)
    assert set(alone) == {f"{kind}/liver_100.{end}" for kind, end in
                          (("imagesTr", "nii.gz"), ("labelsTr", "nii.gz"), ("truth", "h5"))}  # fmt: skip
    assert alone.items() <= hashes(liver).items()


def test_other_seeds_and_other_cohorts_are_other_patients(tmp_path):
    one = LIVER.model_copy(update={"train": 1, "validation": 0, "test": 0})
    prints = [
        hashes(made(tmp_path / name, one, seed, cohort))["imagesTr/liver_0.nii.gz"]
        for name, seed, cohort in (("a", 1, "c"), ("b", 2, "c"), ("c", 1, "d"))
    ]
    assert len(set(prints)) == 3


def test_a_cohort_may_have_neither_nodules_nor_candidates_nor_training_patients(tmp_path):
    bare = LUNA16.model_copy(
        update={"train": 0, "validation": 0, "test": 1, "nodules": (0, 0), "candidates": 0}
    )
    folder = made(tmp_path / "bare", bare)
    assert (folder / "annotations.csv").read_text() == "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    assert (folder / "candidates_V2.csv").read_text() == "seriesuid,coordX,coordY,coordZ,class\n"
    assert [p.parent.name for p in folder.glob("subset*/*.mhd")] == ["subset7"]
