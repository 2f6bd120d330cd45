"""Twins: scans that show one patient are found by their content, and scans of different patients are not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import sg.twins
from bench.phantoms import CHESTS, LIVERS, SHARED
from sg.cohorts import index
from sg.cohorts.phantom import layouts
from sg.cohorts.phantom.making import Job, render_one
from sg.cohorts.records import QuarantineRow, ScanRow, TwinRow, read_rows
from sg.params import Cohort, Source, SplitFractions
from sg.scans import Geometry
from sg.twins import OUTSIDE, Likeness, find, likeness
from tests.cohorts import here
from tests.dicom_files import write_series
from tests.scan_files import LIMITS

PATIENTS = 12
CORRELATION = 0.99
LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

Stored = tuple[np.ndarray, Geometry]


@cache
def phantom(number: int, layout: str = "luna16") -> Stored:
    """A phantom patient's scan (z, y, x) along LPS and its grid."""
    recipe = (CHESTS if layout == "luna16" else LIVERS).model_copy(update={"train": number + 1})
    shared = SHARED.model_copy(update={"spacing_xy_mm": (4.0, 5.0), "spacing_z_mm": (4.0, 5.0)})
    scan = render_one(Job(Path(), 5, layout, layouts.places(recipe)[number], recipe, shared))
    axes = scan.grid.lattice.axes
    origin = tuple(float(axis[0]) for axis in axes[::-1])
    return scan.hu, Geometry(scan.hu.shape[::-1], scan.grid.spacing_mm, origin, LPS)


@pytest.fixture(scope="module")
def patients() -> list[Stored]:
    return [phantom(number) for number in range(PATIENTS)]


@pytest.fixture(scope="module")
def known(patients) -> list[Likeness]:
    return [likeness(*patient) for patient in patients]


def on_its_field_of_view(array: np.ndarray, geometry: Geometry) -> Stored:
    """An array that covers the field of view of a geometry with other voxels, and its own geometry."""
    share = np.array(geometry.size) / array.shape[::-1]
    spacing = tuple(float(value) for value in geometry.spacing_mm * share)
    return array, replace(geometry, size=array.shape[::-1], spacing_mm=spacing)


def stored_as(array: np.ndarray, geometry: Geometry, order, flips) -> Stored:
    """An upright scan as stored with its axis i (x, y, z) along axis `order[i]` of LPS, backwards where `flips[i]`."""
    unit = np.eye(3)[:, order] * np.where(flips, -1.0, 1.0)
    stored = array.transpose([2 - axis for axis in reversed(order)])
    stored = stored[tuple(slice(None, None, -1 if flip else None) for flip in reversed(flips))]
    pick = [geometry.size[axis] for axis in order], [geometry.spacing_mm[axis] for axis in order]
    return stored, Geometry(*map(tuple, pick), geometry.origin_mm, tuple(unit.ravel()))


def kernel(array: np.ndarray, sharpness: float, noise_hu: float = 0.0) -> np.ndarray:
    """The same scan from another reconstruction: sharper with more noise, or (negative) smoother."""
    values = array + sharpness * (array - ndimage.gaussian_filter(array.astype(float), 1))
    noise = np.random.default_rng(0).normal(0, noise_hu, array.shape)
    return np.clip(np.rint(values + noise), -2048, 3071).astype(np.int16)


def cropped(array: np.ndarray, geometry: Geometry, z=slice(None), y=slice(None), x=slice(None)) -> Stored:
    part = array[z, y, x]
    return part, replace(geometry, size=part.shape[::-1])


# ------------------------------------------------------------------------------------------- equal voxels

ALIKE: dict[str, Callable[[np.ndarray, Geometry], Stored]] = {
    "flipped": lambda a, g: stored_as(a, g, (0, 1, 2), (True, False, True)),
    "permuted": lambda a, g: stored_as(a, g, (2, 0, 1), (False, True, False)),
    "float64": lambda a, g: (a.astype(float), g),
    "big-endian": lambda a, g: (a.astype(">i2"), g),
    "fractions-below-half": lambda a, g: (a + np.float32(0.4), g),
    "elsewhere-in-space": lambda a, g: (a, replace(g, origin_mm=(7.0, -900.0, 3.0))),
}


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE.keys())
def test_a_scan_stored_in_another_way_has_equal_voxels(patients, known, change):
    twin = likeness(*change(*patients[3]))
    assert twin.voxels == known[3].voxels
    assert np.array_equal(twin.thumbnail, known[3].thumbnail)
    pairs = find([*known, twin], CORRELATION)
    assert [(p.first, p.second, p.by, p.correlation) for p in pairs] == [(3, PATIENTS, "voxels", 1.0)]


def test_padding_below_air_makes_no_difference(patients):
    array, geometry = patients[0]
    padded = [np.where(np.indices(array.shape)[2] < 5, value, array) for value in (-1024, -2048, -3024)]
    assert len({likeness(one, geometry).voxels for one in padded}) == 1


def test_one_voxel_of_one_hu_more_or_another_shape_is_another_scan(patients, known):
    array, geometry = patients[0]
    other = array.copy()
    other[9, 9, 9] += 1
    assert likeness(other, geometry).voxels != known[0].voxels
    flat = Geometry((4, 2, 3), (9.0, 9.0, 9.0), (0.0, 0.0, 0.0), LPS)
    line = np.arange(24, dtype=np.int16)
    assert (
        likeness(line.reshape(3, 2, 4), flat).voxels
        != likeness(line.reshape(3, 4, 2), replace(flat, size=(2, 4, 3))).voxels
    )


# ---------------------------------------------------------------------------------------- equal patients

TWINS: dict[str, Callable[[np.ndarray, Geometry], Stored]] = {
    "sharper-and-noisier": lambda a, g: (kernel(a, 1.5, 60), g),
    "smoother": lambda a, g: (kernel(a, -0.8), g),
    "every-other-slice": lambda a, g: on_its_field_of_view(a[::2], g),
    "coarser-in-plane": lambda a, g: on_its_field_of_view(ndimage.zoom(a, (1, 0.6, 0.6), order=1), g),
    "less-field-of-view": lambda a, g: cropped(a, g, y=slice(3, -3), x=slice(3, -3)),
    "recentred-field-of-view": lambda a, g: cropped(a, g, y=slice(2, None), x=slice(None, -2)),
    "upper-half-of-the-body": lambda a, g: cropped(a, g, z=slice(len(a) // 2, None)),
    "slices-missing-at-one-end": lambda a, g: cropped(a, g, z=slice(2, None)),
    "no-padding-outside-the-circle": lambda a, g: (np.maximum(a, -1000), g),
    "turned-by-two-degrees": lambda a, g: (ndimage.rotate(a, 2, (1, 2), False, order=1, cval=-1000), g),
}


@pytest.mark.parametrize("change", TWINS.values(), ids=TWINS.keys())
def test_another_reconstruction_of_a_patient_is_found_and_nothing_else(patients, known, change):
    twins = [likeness(*change(*patient)) for patient in patients[:3]]
    pairs = find([*known, *twins], CORRELATION)
    assert [(p.first, p.second, p.by) for p in pairs] == [(n, PATIENTS + n, "thumbnail") for n in range(3)]


@pytest.mark.parametrize("signs", [s for s in itertools.product((1, -1), repeat=3) if -1 in s], ids=str)
def test_a_mirror_image_whose_header_does_not_say_so_is_a_twin(patients, known, signs):
    z, y, x = signs
    array, geometry = patients[1]
    for other in (array, kernel(array, 1.0, 30)):
        pairs = find([*known, likeness(other[::z, ::y, ::x], geometry)], CORRELATION)
        assert [(p.first, p.second, p.by) for p in pairs] == [(1, PATIENTS, "thumbnail")]


def test_no_two_of_12_patients_are_twins(known):
    assert find(known, CORRELATION) == []
    assert find(known, 0.975) == []  # with room to spare


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["luna16", "decathlon-liver"])
def test_no_two_of_200_patients_are_twins(layout):
    many = [likeness(*phantom(number, layout)) for number in range(200 if layout == "luna16" else 100)]
    assert find(many, 0.98) == []


# --------------------------------------------------------------------------------------------- thumbnails


def test_a_thumbnail_is_the_mean_of_cubes_around_the_centre_whatever_the_voxels():
    # 6 mm voxels: a cube of 12 mm is the mean of 8
    array = np.random.default_rng(0).integers(-900, 900, (20, 40, 40)).astype(np.int16)
    geometry = Geometry((40, 40, 20), (6.0, 6.0, 6.0), (0.0, 0.0, 0.0), LPS)
    thumbnail = likeness(array, geometry).thumbnail
    inside = thumbnail != OUTSIDE
    assert thumbnail.shape == (32, 32, 32)
    field = np.zeros((32, 32, 32), bool)
    field[11:21, 6:26, 6:26] = True
    assert not inside[~field].any()
    assert inside[11:21, 16, 6:26].all()
    assert not inside[15, 6, 6]  # beyond the circle that a scanner reconstructs
    means = array.reshape(10, 2, 20, 2, 20, 2).mean((1, 3, 5)).ravel()
    assert np.abs(thumbnail[field] - means)[inside[field]].max() <= 0.5 + 1e-9
    finer = likeness(*on_its_field_of_view(array.repeat(3, 0).repeat(2, 1).repeat(5, 2), geometry)).thumbnail
    assert np.array_equal(finer != OUTSIDE, inside)
    assert np.abs(finer.astype(int) - thumbnail).max() <= 1  # rounding of halves


def test_voxels_that_lie_in_two_cubes_count_in_both_by_their_parts():
    # 8 mm voxels: from the centre, cubes of 12 mm hold one voxel and half of the next, then the other half and one
    array = np.broadcast_to(np.arange(40, dtype=np.int16), (40, 40, 40))
    geometry = Geometry((40, 40, 40), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0), LPS)
    row = likeness(array, geometry).thumbnail[16, 16]
    assert row[16:20].tolist() == [20, 22, 23, 25]  # rounded from 20 1/3, 21 2/3, 23 1/3, 24 2/3


def test_scans_too_small_to_tell_apart_are_twins_only_by_their_voxels(patients):
    array, geometry = patients[0]

    def cube(mm):
        half = [round(mm / spacing / 2) for spacing in geometry.spacing_mm[::-1]]
        middle = [n // 2 for n in array.shape]
        part = tuple(slice(m - h, m + h) for m, h in zip(middle, half, strict=True))
        return [
            likeness(*cropped(a, geometry, *part)) for a in (array, kernel(array, -0.8), array.astype(float))
        ]

    assert [(p.first, p.second, p.by) for p in find(cube(120), CORRELATION)] == [(0, 2, "voxels")]
    assert len(find(cube(200), CORRELATION)) == 3


# ------------------------------------------------------------------------------------------ finding pairs


def test_pairs_are_the_same_in_any_blocks_and_whatever_single_precision_rounds(patients, known, monkeypatch):
    twins = [likeness(kernel(array, 2.0, 150), geometry) for array, geometry in patients[:4]]
    many = [*known, *twins, known[2]]
    pairs = find(many, 0.94)
    assert len(pairs) > 5
    monkeypatch.setattr(sg.twins, "BLOCK", 3)
    assert find(many, 0.94) == pairs
    exact = sg.twins._correlations
    for rounding in (-5e-4, 5e-4):
        monkeypatch.setattr(sg.twins, "_correlations", partial(rounded, exact, rounding))
        assert find(many, 0.94) == pairs


def rounded(exact, rounding: float, *blocks: np.ndarray) -> np.ndarray:
    values = exact(*blocks)
    return values + rounding * np.where(np.indices(values.shape).sum(0) % 2, 1, -1)


def test_one_scan_or_none_has_no_twin(known):
    assert find([], CORRELATION) == find(known[:1], CORRELATION) == []


def test_empty_pictures_are_no_twins():
    flat = Geometry((60, 60, 60), (5.0,) * 3, (0.0,) * 3, LPS)
    one, other = (likeness(np.full((60, 60, 60), value, np.int16), flat) for value in (-1000, 40))
    assert find([one, other], 0.9) == []


# -------------------------------------------------------------------------------------------- in a cohort


def write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(image, str(path))


def test_planted_twins_are_found_and_made_one_patient_on_one_side_of_a_split(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "each", here.each)
    raw = tmp_path / "raw" / "own"
    raw.mkdir(parents=True)
    for number, (array, geometry) in enumerate(patients):
        write(raw / f"p{number:02}.mha", array, geometry)
    planted = {
        "z-other-kernel.nii.gz": (0, (kernel(patients[0][0], 1.5, 60), patients[0][1])),
        "z-flipped.nii": (1, stored_as(*patients[1], (0, 1, 2), (True, True, False))),
        "z-float64.nrrd": (2, (patients[2][0].astype(float), patients[2][1])),
        "a-smooth-and-mirrored.mhd": (4, (kernel(patients[4][0], -0.8)[:, :, ::-1], patients[4][1])),
    }
    for name, (_, scan) in planted.items():
        write(raw / name, *scan)
    array, geometry = patients[3]
    write_series(
        raw / "dicom", array.clip(-1024), patient="z-dicom", spacing_mm=geometry.spacing_mm,
        origin_mm=np.array(geometry.origin_mm), shuffle=True,
    )  # fmt: skip
    study = Cohort(
        raw=str(tmp_path / "raw"),
        sources={"own": Source(layout="folder", path="own", use=["pretrain"], leave_out=None, patients=None)},
        limits=LIMITS,
        twin_correlation=CORRELATION,
        splits=SplitFractions(train=0.6, validation=0.2, test=0.2),
    )
    made = index.build(study, 1, 1)
    (tmp_path / "out").mkdir()
    index.write(made, tmp_path / "out")
    scans = {row.path: row for row in read_rows(tmp_path / "out" / "scans.csv", ScanRow)}
    assert read_rows(tmp_path / "out" / "quarantine.csv", QuarantineRow) == []
    expected = {
        frozenset((f"own/p{number:02}.mha", f"own/{name}")) for name, (number, _) in planted.items()
    } | {frozenset(("own/p03.mha", "own/dicom"))}
    paths = {row.scan: row.path for row in scans.values()}
    twins = read_rows(tmp_path / "out" / "twins.csv", TwinRow)
    assert {frozenset((paths[row.scan], paths[row.twin])) for row in twins} == expected
    assert made.summary["twins"] == made.summary["patients_merged"] == 5
    for row in twins:
        one, other = (scans[paths[name]] for name in (row.scan, row.twin))
        assert one.patient == other.patient == row.patient
        assert one.split == other.split
    assert scans["own/p04.mha"].patient == "a-smooth-and-mirrored"
    assert scans["own/dicom"].patient == "p03"
    assert len({row.patient for row in scans.values()}) == PATIENTS
    assert len(made.summary["warnings"]) == 5
    assert sum(
        "own/p00.mha of own (patient p00)" in text and "own/z-other-kernel.nii.gz of own" in text
        for text in made.summary["warnings"]
    ) == 1  # fmt: skip
