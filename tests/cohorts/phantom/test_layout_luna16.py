"""LUNA16's files as SimpleITK reads and writes them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from sg.cohorts.phantom.layouts import luna16, places
from sg.params import ChestPhantoms
from tests.cohorts.phantom.hand_made_scans import OBLIQUE, ORIENTATIONS, Ball, drawing, scan_of

BALLS = [Ball(np.array([-6.2, 4.4, 7.3]), 9.0), Ball(np.array([8.0, -7.0, -9.0]), 6.0)]


def write(folder: Path, scan, name: str = "subset3/2.25.7") -> tuple[sitk.Image, luna16.Lines]:
    lines = luna16.write(folder, name, scan, drawing(0))
    return sitk.ReadImage(str(folder / f"{name}.mhd")), lines


@pytest.mark.parametrize(("orientation", "rotation"), ORIENTATIONS)
def test_the_header_is_the_one_that_itk_writes(tmp_path, orientation, rotation):
    image, _ = write(tmp_path, scan_of(BALLS, orientation=orientation, rotation=rotation))
    again = tmp_path / "itk" / "2.25.7.mhd"
    again.parent.mkdir()
    for key in image.GetMetaDataKeys():  # what the reader noted
        image.EraseMetaData(key)
    sitk.WriteImage(image, str(again))
    assert (tmp_path / "subset3" / "2.25.7.mhd").read_text() == again.read_text()
    assert (tmp_path / "subset3" / "2.25.7.raw").read_bytes() == again.with_suffix(".raw").read_bytes()


@pytest.mark.parametrize(("orientation", "rotation"), ORIENTATIONS)
def test_world_positions_of_nodules_fall_on_their_middles(tmp_path, orientation, rotation):
    scan = scan_of(BALLS, orientation=orientation, rotation=rotation)
    image, lines = write(tmp_path, scan)
    dense = sitk.GetArrayFromImage(image) == 40
    assert np.count_nonzero(dense) == np.count_nonzero(scan.hu == 40)
    for line, ball in zip(lines["annotations.csv"], BALLS, strict=True):
        series, *numbers = line.split(",")
        *position, diameter = map(float, numbers)
        # The middle of the dense voxels nearest to it, in voxels: less than half a voxel off on each axis
        index = np.array(image.TransformPhysicalPointToContinuousIndex(position))
        z, y, x = np.nonzero(dense)
        voxels = np.column_stack([x, y, z])
        near = voxels[np.abs((voxels - index) * image.GetSpacing()).max(axis=1) < ball.diameter_mm]
        assert np.abs(near.mean(axis=0) - index).max() < 0.5
        assert (series, diameter) == ("2.25.7", ball.diameter_mm)


def test_candidates_are_nodules_of_class_1_among_look_alikes_of_class_0(tmp_path):
    places_mm = [(x, 0.0, 2.0) for x in (-15, -1, 15)]
    _, lines = write(tmp_path, scan_of(BALLS, places_mm, rotation=np.eye(3)))
    rows = [line.split(",") for line in lines["candidates_V2.csv"]]
    assert [row[4] for row in rows] == ["0", "1", "0", "1", "0"]  # by x: -15, -6.2, -1, 8, 15


def test_tables_are_sorted_by_series_and_have_ten_digits(tmp_path):
    written = []
    for name in ("subset0/2.25.9", "subset1/2.25.31", "subset7/2.25.4"):
        _, lines = write(tmp_path, scan_of(BALLS, rotation=OBLIQUE), name)
        written.append((name, lines))
    luna16.finish(tmp_path, written)
    with open(tmp_path / "annotations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seriesuid"] for row in rows] == ["2.25.31"] * 2 + ["2.25.4"] * 2 + ["2.25.9"] * 2
    assert list(rows[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    assert all(len(re.sub(r"^-?0*|\.", "", rows[0][f"coord{axis}"])) <= 10 for axis in "XYZ")
    header = (tmp_path / "candidates_V2.csv").read_text().splitlines()[0]
    assert header == "seriesuid,coordX,coordY,coordZ,class"


def test_patients_take_turns_in_the_subsets_of_their_split():
    recipe = ChestPhantoms(
        layout="luna16", train=6, validation=3, test=4, nodules=(0, 0), candidates=0, twins_of=None, twins=0
    )
    stems = [luna16.stem(place, drawing(place.number)) for place in places(recipe)]
    assert [stem[:7] for stem in stems] == [f"subset{n}" for n in (0, 1, 2, 3, 4, 0, 5, 6, 5, 7, 8, 9, 7)]
    names = {stem[8:] for stem in stems}
    assert len(names) == 13
    assert all(re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", name) and len(name) <= 64 for name in names)


def test_a_scan_without_findings_has_no_lines(tmp_path):
    _, lines = write(tmp_path, scan_of([]))
    luna16.finish(tmp_path, [("subset3/2.25.7", lines)])
    assert (tmp_path / "annotations.csv").read_text() == "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    assert (tmp_path / "candidates_V2.csv").read_text() == "seriesuid,coordX,coordY,coordZ,class\n"
