"""A phantom cohort as others read it: with SimpleITK, nibabel and h5py, never through the code that wrote it."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers Blosc2 with HDF5
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from sg.cohorts.phantom.making import jobs, make, make_one
from sg.cohorts.phantom.person import draw_person
from sg.errors import InputError
from sg.params import AnyPhantoms, ChestPhantoms, LiverPhantoms, PhantomShared

SHARED = PhantomShared(
    spacing_xy_mm=(4.0, 5.0),
    spacing_z_mm=(4.0, 5.0),
    noise_hu=(10.0, 20.0),
    chest_range_mm=(-208.0, 107.0),
    abdomen_range_mm=(-328.0, -58.0),
    parts=0.0,
    oblique_deg=6.0,
    nodule_mm=(8.0, 30.0),
    variants=0.2,
    truth_grid_mm=20.0,
)
RECIPES: dict[str, AnyPhantoms] = {
    "chests": ChestPhantoms(
        layout="luna16", train=2, validation=0, test=1, nodules=(1, 3), candidates=12, twins_of=None, twins=0
    ),
    "livers": LiverPhantoms(layout="decathlon-liver", train=1, validation=1, test=0, lesions=(1, 2)),
}


def made(folder: Path, cohort: str, seed: int = 7, workers: int = 1, **changes) -> Path:
    folder.mkdir()
    recipe = RECIPES["chests" if cohort not in RECIPES else cohort].model_copy(update=changes)
    make(folder, seed, cohort, RECIPES | {cohort: recipe}, SHARED, workers)
    return folder


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("phantom") / "chests", "chests")


@pytest.fixture(scope="module")
def livers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("phantom") / "livers", "livers")


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
        return {
            "labels": file["labels"][()],
            "names": json.loads(file["labels"].attrs["names"]),
            "lesions": file["lesions"][()],
        }


def mask(t: dict, *names: str) -> np.ndarray:
    return np.isin(t["labels"], [t["names"].index(name) for name in names])


# --------------------------------------------------------------------------------------------- chests


def test_world_positions_of_nodules_fall_on_dense_nodule_voxels(chests):
    annotations = table(chests / "annotations.csv")
    headers = list(chests.glob("subset*/*.mhd"))
    assert len(headers) == 3
    directions = set()
    for header in headers:
        image = sitk.ReadImage(str(header))
        directions.add(image.GetDirection())
        t, values = truth(chests, header.stem), sitk.GetArrayViewFromImage(image)
        assert t["labels"].shape == values.shape
        nodule = mask(t, "nodule")
        for row in (row for row in annotations if row["seriesuid"] == header.stem):
            index = np.array(image.TransformPhysicalPointToContinuousIndex(point(row)))[::-1]
            # Small or flat ones may have their centre beside the nearest voxel: half a voxel off, no more
            near = np.argwhere(nodule) - index
            assert np.abs(near).max(axis=1).min() <= 1
            k, j, i = np.rint(index).astype(int)
            assert values[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].max() > -700
    assert len(directions) > 1


def test_every_nodule_that_is_shown_has_a_candidate_among_look_alikes(chests):
    candidates, annotations = table(chests / "candidates_V2.csv"), table(chests / "annotations.csv")
    assert sum(row["class"] == "0" for row in candidates) > 2 * len(annotations)

    def gap(candidate, nodule) -> float:
        """In radii of the nodule."""
        if candidate["seriesuid"] != nodule["seriesuid"]:
            return np.inf
        return np.linalg.norm(np.subtract(point(candidate), point(nodule))) / float(nodule["diameter_mm"]) * 2

    for candidate in candidates:
        if candidate["class"] == "1":
            assert min(gap(candidate, nodule) for nodule in annotations) < 1
    for nodule in annotations:
        assert min(gap(row, nodule) for row in candidates if row["class"] == "1") < 1


# --------------------------------------------------------------------------------------------- livers


def test_liver_labels_are_those_of_the_truth_where_nibabel_puts_them(livers):
    for path in (livers / "labelsTr").glob("*.nii.gz"):
        label = nibabel.load(path)
        t = truth(livers, path.name.removesuffix(".nii.gz"))
        values = np.asanyarray(label.dataobj)
        np.testing.assert_array_equal(values == 1, mask(t, "liver", "liver_vessels").transpose(2, 1, 0))
        np.testing.assert_array_equal(values == 2, mask(t, "liver_lesion").transpose(2, 1, 0))
        for centre in t["lesions"]["centre_mm"]:
            ras = np.array([-centre[0], -centre[1], centre[2], 1])
            near = np.argwhere(values == 2) - (np.linalg.inv(label.affine) @ ras)[:3]
            assert np.abs(near).max(axis=1).min() <= 1


def test_the_liver_lies_to_the_right_and_the_spleen_to_the_left(livers):
    for path in (livers / "imagesTr").glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        t = truth(livers, path.name.removesuffix(".nii.gz"))
        x = {}
        for name in ("liver", "spine", "spleen"):
            middle = np.argwhere(mask(t, name)).mean(axis=0)[::-1]
            x[name] = image.TransformContinuousIndexToPhysicalPoint(middle.tolist())[0]
        assert x["liver"] < x["spine"] < x["spleen"]  # x grows to the left


# ------------------------------------------------------------------------------------------- tables


def test_people_and_acquisitions_are_listed_scan_by_scan(chests):
    stems = {path.stem for path in (chests / "truth").glob("*.h5")}
    people = table(chests / "truth" / "people.csv")
    scans = table(chests / "truth" / "acquisition.csv")
    assert {row["scan"] for row in people} == {row["scan"] for row in scans} == stems
    assert len(people) == len(scans) == len(stems) == 3
    assert table(chests / "truth" / "twins.csv") == []
    assert all(row["sex"] in ("female", "male") and 500 < float(row["liver_ml"]) < 3000 for row in people)
    annotations = table(chests / "annotations.csv")
    for row in people:
        assert (
            int(row["shown"])
            == sum(a["seriesuid"] == row["scan"] for a in annotations)
            <= int(row["nodules"])
        )


def test_the_listed_geometry_is_the_scan_s(chests):
    for row in table(chests / "truth" / "acquisition.csv"):
        (header,) = chests.glob(f"subset*/{row['scan']}.mhd")
        image = sitk.ReadImage(str(header))
        for name, found in (
            ("size", image.GetSize()),
            ("spacing_mm", image.GetSpacing()),
            ("origin_mm", image.GetOrigin()),
            ("direction", image.GetDirection()),
        ):
            np.testing.assert_allclose([float(v) for v in row[name].split()], found, atol=1e-9)
        if row["padding_hu"]:
            array = sitk.GetArrayViewFromImage(image)
            assert (array[:, 0, 0] == int(row["padding_hu"])).all()
        assert 10 <= float(row["noise_hu"]) <= 20


def test_the_marker_names_the_layout(chests):
    mark = json.loads((chests / "truth" / "phantom.json").read_text())
    assert mark["layout"] == "luna16"
    assert mark["scans"] == 3 == len(list((chests / "truth").glob("*.h5")))
    assert "not patients" in mark["phantom"]


# ---------------------------------------------------------------------------------------- determinism


def test_two_runs_and_two_workers_give_the_same_bytes(tmp_path, chests):
    again = hashes(made(tmp_path / "a", "chests", workers=2, test=0))
    scans = {name: content for name, content in again.items() if name.endswith((".mhd", ".raw", ".h5"))}
    assert len(scans) == 2 * 3
    assert scans.items() <= hashes(chests).items()
    for name in ("annotations.csv", "candidates_V2.csv", "truth/people.csv", "truth/acquisition.csv"):
        assert set((tmp_path / "a" / name).read_text().splitlines()) <= set(
            (chests / name).read_text().splitlines()
        )


def test_a_patient_made_alone_is_the_same_as_in_its_cohort(tmp_path, livers):
    (tmp_path / "truth").mkdir()
    make_one(jobs(tmp_path, 7, "livers", RECIPES, SHARED)[1])
    alone = hashes(tmp_path)
    assert set(alone) == {f"{kind}/liver_100.{end}" for kind, end in
                          (("imagesTr", "nii.gz"), ("labelsTr", "nii.gz"), ("truth", "h5"))}  # fmt: skip
    assert alone.items() <= hashes(livers).items()


def test_other_seeds_and_other_cohorts_are_other_persons():
    recipes = RECIPES | {"others": RECIPES["chests"]}
    chosen = [(7, "chests", 0), (7, "chests", 1), (8, "chests", 0), (7, "others", 0)]
    persons = []
    for seed, cohort, number in chosen:
        job = jobs(Path(), seed, cohort, recipes, SHARED)[number]
        persons.append(draw_person(job.draw_of_person, job.recipe, SHARED))
    builds = {(person.patient.habitus.height_cm, person.patient.habitus.weight_kg) for person in persons}
    assert len(builds) == 4


def test_findings_that_do_not_fit_are_refused_with_cohort_and_patient(tmp_path, monkeypatch):
    monkeypatch.setattr("sg.cohorts.phantom.places.TRIES", 1)
    wide = SHARED.model_copy(update={"nodule_mm": (80.0, 80.0)})
    crowded = RECIPES["chests"].model_copy(update={"train": 0, "nodules": (40, 40)})
    (tmp_path / "crowded").mkdir()
    with pytest.raises(
        InputError, match=r"phantom\.recipes\.crowded, test patient 1: .* \(nodules\), got room for \d+ of 40"
    ):
        make(tmp_path / "crowded", 7, "crowded", {"crowded": crowded}, wide, 1)
