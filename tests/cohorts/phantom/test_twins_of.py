"""Persons who are scanned again in another cohort, under other names and in another format."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers Blosc2 with HDF5
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from sg.cohorts.phantom.making import jobs, make, make_one
from sg.params import AnyPhantoms, ChestPhantoms
from sg.scans import read_scan
from sg.twins import find, likeness
from tests.cohorts.test_phantom import RECIPES, SHARED
from tests.scan_files import LIMITS

AGAIN: dict[str, AnyPhantoms] = RECIPES | {
    "again": ChestPhantoms(
        layout="lidc", train=1, validation=0, test=1, nodules=(0, 1), candidates=9, twins_of="chests", twins=1
    )
}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> dict[str, Path]:
    """`again`, and of `chests` the patient who has a twin there."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("chests", "again")}
    (folders["chests"] / "truth").mkdir()
    make_one(jobs(folders["chests"], 7, "chests", AGAIN, SHARED)[0])
    make(folders["again"], 7, "again", AGAIN, SHARED, 1)
    return folders


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "truth" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def twins(**changes: int) -> list[str]:
    """Split and turn of the places that are twins, and whose, of a cohort with such numbers."""
    recipes = AGAIN | {"again": AGAIN["again"].model_copy(update=changes)}
    return [
        f"{job.place.split} {job.place.turn} is {job.twin_of.place.split} {job.twin_of.place.turn}"
        for job in jobs(Path(), 7, "again", recipes, SHARED)
        if job.twin_of is not None
    ]


def test_the_first_of_every_split_in_turn_are_twins():
    assert twins(train=4, test=3, twins=3) == ["train 0 is train 0", "train 1 is train 1", "test 0 is test 0"]
    assert twins(train=0, test=2, twins=1) == ["test 0 is test 0"]


def test_the_list_names_scans_of_both_cohorts(cohorts):
    (row,) = rows(cohorts["again"], "twins")
    (there,) = cohorts["chests"].glob("subset*/*.mhd")
    (here,) = cohorts["again"].glob("LIDC-IDRI/LIDC-IDRI-0001/*/*")
    assert row == {"scan": here.name, "cohort": "chests", "twin": there.stem}
    assert len(rows(cohorts["again"], "people")) == 2


def test_twins_are_one_person_and_two_scans(cohorts):
    again = {row["scan"]: row for row in rows(cohorts["again"], "people")}
    for row in rows(cohorts["again"], "twins"):
        displacements, sizes, findings = [], [], []
        for folder, name in ((cohorts["again"], row["scan"]), (cohorts["chests"], row["twin"])):
            with h5py.File(folder / "truth" / f"{name}.h5") as file:
                field = file["displacements"]
                origin, step = field.attrs["grid_origin_mm"], field.attrs["grid_spacing_mm"]
                nodes = [
                    o + s * np.arange(n) for o, s, n in zip(origin, step, field.shape[:1:-1], strict=True)
                ]
                displacements.append((nodes, field[()]))
                sizes.append(file["labels"].shape)
                rotation, offset = field.attrs["rotation"], field.attrs["offset_mm"]
                # Where the findings are in the patient, whatever the scanner's world is
                findings.append((file["lesions"]["centre_mm"] - offset) @ rotation)
        assert sizes[0] != sizes[1]
        # Both grids sample the same smooth maps: at a place in the middle they say the same but for interpolation
        places = np.array([(-40.0, 10.0, -60.0), (50.0, -5.0, -20.0)])
        said = [
            RegularGridInterpolator(nodes, field.transpose(0, 1, 4, 3, 2)[number, axis])(places)
            for nodes, field in displacements
            for number in range(3)
            for axis in range(3)
        ]
        np.testing.assert_allclose(said[:9], said[9:], atol=3.0)
        assert np.abs(said[:9]).max() > 3
        common = [one for one in findings[0] if np.abs(findings[1] - one).max(axis=1).min() < 1e-6]
        assert len(common) >= 1
        assert int(again[row["scan"]]["nodules"]) >= len(common)


def test_a_twin_made_alone_is_the_same_as_in_its_cohort(cohorts, tmp_path):
    (tmp_path / "truth").mkdir()
    made = make_one(jobs(tmp_path, 7, "again", AGAIN, SHARED)[0])
    assert made.twin is not None
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 30
    for file in files:
        other = cohorts["again"] / file.relative_to(tmp_path)
        assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def test_the_finder_of_twins_finds_the_pair_and_no_other(cohorts):
    """At the threshold of every configuration; the other scan of `again` is of somebody else."""
    (there,) = cohorts["chests"].glob("subset*/*.mhd")
    series = [folder for folder in sorted(cohorts["again"].glob("LIDC-IDRI/*/*/*")) if folder.is_dir()]
    scans = [read_scan(there, cohorts["chests"], LIMITS)]
    scans += [read_scan(tuple(sorted(one.glob("*.dcm"))), cohorts["again"], LIMITS) for one in series]
    pairs = find([likeness(scan.array, scan.geometry) for scan in scans], 0.99)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1)]
