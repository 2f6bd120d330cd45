from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sg.quality import registration
from sg.quality.registration import as_image, carried, registered
from tests.quality.hand_made import row, study, write_thumbnails, write_truth

# (x, y, z) in mm and radius of soft blobs within a body, in a field of view of 20 voxels of 5 mm.
BLOBS = (((30, 30, 35), 12, -900), ((65, 35, 60), 14, -900), ((45, 70, 40), 9, 700), ((70, 65, 25), 8, 500))


def blobby(matrix=np.eye(3), shift=np.zeros(3), sides=(24, 32, 32)) -> np.ndarray:
    """A thumbnail (z, y, x) of blobs in which what lies at p mm of the plain one lies at matrix @ p + shift."""
    z, y, x = ((np.arange(side) + 0.5) * 100 / side - 2.5 for side in sides)
    at = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)
    at = (at - shift) @ np.linalg.inv(matrix).T
    image = np.full(len(at), -1000.0)
    image += 1040 / (1 + np.exp((np.linalg.norm((at - 47.5) / (1, 0.9, 1.1), axis=1) - 38) / 2))
    for centre, radius, hu in BLOBS:
        image += hu / (1 + np.exp((np.linalg.norm(at - centre, axis=1) - radius) / 2))
    return image.reshape(list(reversed(sides))).transpose(2, 1, 0).clip(-1000, 1000)


MATRIX = np.array([[1.06, 0.03, 0], [-0.04, 0.95, 0.02], [0, 0, 1.04]])


@pytest.mark.parametrize(
    ("matrix", "shift"),
    [(np.eye(3), (6.0, -4.0, 5.0)), (MATRIX, (2.0, 1.0, -3.0)), (np.eye(3), (0.0, 0.0, 0.0))],
)
def test_a_known_affine_shift_is_recovered(matrix, shift):
    fixed = as_image(blobby(), row(0))
    moving = as_image(blobby(matrix, np.array(shift)), row(1))
    for point in ((30.0, 30, 35), (60, 60, 40), (47.5, 47.5, 47.5)):
        found = carried(np.array(point), fixed, moving)
        assert np.linalg.norm(found - (matrix @ point + shift)) < 1.5, point


def test_a_thumbnail_fills_its_scan_s_field_of_view():
    image = as_image(np.zeros((4, 10, 20)), row(0))  # the scan reaches from -2.5 to 97.5 mm
    assert image.GetSpacing() == (5.0, 10.0, 25.0)
    assert image.GetOrigin() == (0.0, 2.5, 10.0)
    assert image.GetSize() == (20, 10, 4)


def test_a_thumbnail_of_unlike_sides_has_each_axis_own_spacing():
    seen = row(0, shape=(4, 10, 20), spacing_mm=(2.0, 3.0, 8.0), origin_mm=(100.0, 200.0, 300.0))
    image = as_image(np.zeros((8, 6, 5)), seen)  # 40, 30 and 32 mm
    assert image.GetSpacing() == (8.0, 5.0, 4.0)
    assert image.GetOrigin() == (100 - 1 + 4, 200 - 1.5 + 2.5, 300 - 4 + 2)


@pytest.fixture
def cohort(tmp_path):
    """Four patients whose anatomy is that of the first, moved by 4 mm along x for each, which the atlas undoes."""
    write_thumbnails(tmp_path / "t.h5", np.stack([blobby(shift=np.array([4.0 * i, 0, 0])) for i in range(4)]))
    for i in range(4):
        write_truth(tmp_path / "truth", i, (-4.0 * i, 0, 0))
    point = np.array([[40.0, 40, 40], [44.0, 50, 40]])
    return replace(study(np.zeros((2, 4))), centre=point, origin=point - [[0, 0, 0], [4, 0, 0]]), tmp_path


def test_centres_are_carried_to_patients_drawn_at_random_each_pattern_its_own(cohort):
    of, folder = cohort
    found = registered(of, folder / "t.h5", folder / "truth", 2, 1)
    assert (found.registrations, found.failed) == (4, 0)
    assert all(len({*scans}) == 2 and p not in scans for p, scans in enumerate(found.crops.scan.tolist()))
    assert (found.crops.mm < 1.5).all()  # left in place they would be 4 mm and more off
    assert (found.crops.own == 1).all()
    again = registered(of, folder / "t.h5", folder / "truth", 2, 1)
    assert again.crops.mm.tobytes() == found.crops.mm.tobytes()
    all_others = registered(of, folder / "t.h5", folder / "truth", 9, 1)
    assert np.sort(all_others.crops.scan).tolist() == [[1, 2, 3], [0, 2, 3]]


def test_where_registration_fails_centres_of_the_fields_of_view_stand_in_and_are_counted(cohort, monkeypatch):
    of, folder = cohort

    def failing(*_):
        raise RuntimeError("all samples map outside moving image buffer")

    monkeypatch.setattr(registration, "carried", failing)
    found = registered(of, folder / "t.h5", folder / "truth", 3, 1)
    assert found.failed == found.registrations == 6
    # Fields of view lie alike, so the point stays where it is and the atlas is 4 mm off for each patient between.
    np.testing.assert_allclose(np.sort(found.crops.mm), [[4, 8, 12], [4, 4, 8]], atol=1e-4)
    # Fields of view 10 mm further for each patient take the point along, 6 mm beyond its place.
    further = replace(of, surveys=[row(i, origin_mm=(10.0 * i, 0.0, 0.0)) for i in range(4)])
    found = registered(further, folder / "t.h5", folder / "truth", 3, 1)
    np.testing.assert_allclose(np.sort(found.crops.mm), [[6, 12, 18], [6, 6, 12]], atol=1e-4)
