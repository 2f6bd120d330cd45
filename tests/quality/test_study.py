from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sg.errors import InputError
from sg.frames import Box
from sg.quality.study import located, read_study
from sg.truth import read_truth
from tests.hand_made import name, write_truth_file
from tests.quality.hand_made import row, write_discovered, write_truth


def box(x: int = 0, y: int = 0) -> Box:
    """A box of ten voxels a side, that far along x and y."""
    return Box((4, 2 + y, 2 + x), (14, 12 + y, 12 + x))


@pytest.fixture
def discovered(tmp_path: Path) -> Path:
    """Bodies of scans 0 to 4 that lie i voxels (5 i mm) further along x, with lungs besides 2 i voxels along y.

    The atlas has that much of the bodies' way back and 2 i mm along z. Scan 5 has no truth, scan 9 is validation's.
    """
    surveys = [row(i, body=box(i), lungs=box(i, 2 * i)) for i in range(6)] + [row(9, "validation")]
    for i in range(5):
        write_truth(tmp_path / "truth", i, (-5 * i, 0, 2 * i))
    write_truth(tmp_path / "truth", 9, (0, 7, 0))
    # Their centres lie at (5 + 1.5, 6 + 1, 6 + 0.5) voxels, 5 mm each.
    centre = (32.5, 35.0, 32.5)
    return write_discovered(
        tmp_path / "discovered",
        surveys,
        [(0, (6, 6, 5)), (2, (8, 6, 7))],
        [(0, 9, centre), (1, 9, centre)],
    )


def test_distances_in_every_frame_are_those_of_the_place_carried_there(discovered, tmp_path):
    study = read_study(discovered, tmp_path / "truth")
    nan = np.nan
    np.testing.assert_allclose(study.centre, [(32.5, 35, 32.5), (42.5, 35, 42.5)])
    np.testing.assert_allclose(study.origin, [(32.5, 35, 32.5), (32.5, 35, 46.5)], atol=1e-4)
    # The body's frame undoes the way along x, and 2 i mm are left; `voxel` undoes nothing; the lungs move on along y.
    away = np.array([nan, 1, 2, 3, 4, nan])
    np.testing.assert_allclose(study.frames["body"].mm[0], 2 * away, atol=1e-4)
    np.testing.assert_allclose(study.frames["voxel"].mm[0], np.hypot(5, 2) * away, atol=1e-4)
    np.testing.assert_allclose(study.frames["lungs"].mm[0], np.hypot(10, 2) * away, atol=1e-4)
    np.testing.assert_allclose(study.frames["body"].mm[1], 2 * np.array([2, 1, nan, 1, 2, nan]), atol=1e-4)
    for frame in ("voxel", "body", "lungs"):
        assert study.frames[frame].fits.tolist() == [[False, *[True] * 5], [True, True, False, *[True] * 3]]
    assert (study.frame, study.k, study.without_truth, study.known) == ("body", 3, 1, True)
    # By truth 9: 7 mm along y; and 10 mm x, 14 mm z off the second's origin at (32.5, 35, 46.5).
    assert [values.tolist() for values in study.validation] == [
        [pytest.approx(7.0, abs=1e-4)],
        [pytest.approx(np.hypot(7, 14), abs=1e-4)],
    ]


def test_the_whole_body_s_distance_is_the_mean_over_points_carried_by_the_frame(discovered, tmp_path):
    """All of a body is shifted alike here, so the mean is the distance of any of its points."""
    study = read_study(discovered, tmp_path / "truth")
    away = np.array([0, 1, 2, 3, 4, np.nan])
    np.testing.assert_allclose(study.frames["body"].body_mm[0], 2 * away, atol=1e-4)
    np.testing.assert_allclose(study.frames["voxel"].body_mm[0], np.hypot(5, 2) * away, atol=1e-4)


def test_on_the_voxel_grid_a_point_keeps_its_voxel_whatever_the_scan_s_size(tmp_path):
    surveys = [row(0), row(1, shape=(25, 30, 18), origin_mm=(3.0, 0.0, -4.0))]
    for i in range(2):
        write_truth(tmp_path / "truth", i, (0, 0, 0))
    study = read_study(
        write_discovered(tmp_path / "discovered", surveys, [(0, (6, 6, 5))]), tmp_path / "truth"
    )
    # Every point of the body is at the same voxel there, 3 and 4 mm away.
    np.testing.assert_allclose(study.frames["voxel"].body_mm, [[0, 5]], atol=1e-4)
    np.testing.assert_allclose(study.frames["voxel"].mm, [[np.nan, 5]], atol=1e-4)


def test_of_the_body_only_what_has_a_place_in_the_atlas_counts(tmp_path):
    """Boxes that grow along x: a point at x there moves by as much as it lies from the start, those at larger x more."""
    surveys = [row(0, body=Box((0, 0, 0), (10, 10, 10))), row(1, body=Box((0, 0, 0), (10, 10, 20)))]
    write_truth(tmp_path / "truth", 0, (0, 0, 0), own_below_x=30)
    write_truth(tmp_path / "truth", 1, (0, 0, 0))
    discovered = write_discovered(tmp_path / "discovered", surveys, [(0, (2, 2, 2))])
    study = read_study(discovered, tmp_path / "truth")
    # The fractions 0.1, 0.3, ... of 10 voxels, less half a voxel: 2.5 to 42.5 mm. Labels are 10 mm wide, and from 30 mm on
    # of the organ: the points at 32.5 and 42.5 mm count, which move by 35 and 45 mm.
    at = np.array([2.5, 12.5, 22.5, 32.5, 42.5])
    moved = 2 * (at + 2.5) - (at + 2.5)
    assert study.frames["body"].body_mm[0, 1] == pytest.approx(
        moved[np.floor(at / 10 + 0.5) >= 3].mean(), abs=1e-4
    )


def test_a_patient_s_other_scans_are_not_its_neighbours_and_small_scans_hold_no_pattern(tmp_path):
    surveys = [row(0), row(1, patient="patient-0"), row(2), row(3, body=Box((0, 0, 0), (2, 20, 20)))]
    for i in range(4):
        write_truth(tmp_path / "truth", i, (i, 0, 0))
    discovered = write_discovered(tmp_path / "discovered", surveys, [(0, (17, 6, 5)), (3, (0, 6, 5))])
    study = read_study(discovered, tmp_path / "truth")
    # Centre 18 of 20 is at 1.8 of 2, and the patch of 2 would begin at 0.8: 1, and end at 3.
    assert study.frames["body"].fits.tolist() == [[False, False, True, True], [True, True, True, False]]
    assert np.isnan(study.frames["body"].mm[0, :2]).all()
    assert study.patients.tolist() == [b"patient-0", b"patient-2", b"patient-3"]
    assert study.first.tolist() == [0, 2, 3]


def test_a_scan_that_holds_no_jittered_crop_of_a_pattern_does_not_hold_it(tmp_path):
    """Ten of 20 voxels along x, and at least 3 wide, a crop begins at 7 at most; in scan i the pattern does at 5 + i."""
    jitter = {"side": [50, 79], "shift": [160, 160], "crops": 1}
    surveys = [row(i, body=box(i)) for i in range(5)]
    for crops, expected in ((1, [False, True, True, False, False]), (0, [False, True, True, True, True])):
        discovered = write_discovered(
            tmp_path / f"{crops}", surveys, [(0, (6, 6, 5))], jitter=jitter | {"crops": crops}
        )
        study = read_study(discovered, tmp_path / "truth")
        assert study.frames["body"].fits.tolist() == [expected]


def test_a_crop_that_missed_the_organ_counts_by_how_far(discovered, tmp_path):
    before = read_study(discovered, tmp_path / "truth")
    write_truth(tmp_path / "truth", 1, (-5, 0, 2), own_below_x=90)
    after = read_study(discovered, tmp_path / "truth")
    np.testing.assert_array_equal(before.frames["body"].mm, after.frames["body"].mm)


def test_of_a_reference_in_fat_the_nearest_organ_is_the_pattern_s(tmp_path):
    """Two organs with maps of their own, that of the second 7 mm further on in every other scan."""
    (tmp_path / "truth").mkdir()
    labels = np.zeros((11, 11, 11))
    labels[:, :, 1], labels[:, :, 5] = 1, 2  # of a reference at x = 32.5, the second is nearer
    for i in range(3):
        fields = np.zeros((2, 3, 2, 2, 2))
        fields[0, 0], fields[1, 0] = 100 * i, 7 * (i > 0)
        write_truth_file(
            tmp_path / "truth" / f"{name(i)}.h5", fields, labels, grid_spacing_mm=(100.0,) * 3, spacing_mm=(10.0,) * 3
        )  # fmt: skip
    discovered = write_discovered(tmp_path / "discovered", [row(i) for i in range(3)], [(0, (6, 6, 5))])
    study = read_study(discovered, tmp_path / "truth")
    np.testing.assert_allclose(study.frames["voxel"].mm[0], [np.nan, 7, 7], atol=1e-4)


def test_a_crop_is_its_pattern_s_own_unless_another_is_nearer_by_that_one_s_organ(tmp_path):
    """Origins at x = 10 and 50; the second organ's map adds 20, so its crop at 25 is 5 mm off and at 35 15 mm."""
    fields = np.zeros((2, 3, 2, 2, 2))
    fields[1, 0] = 20
    write_truth_file(tmp_path / "t.h5", fields, np.ones((3, 3, 3)), grid_spacing_mm=(100.0,) * 3)
    organ, origin = np.array([0, 1]), np.array([(10.0, 0, 0), (50.0, 0, 0)])
    centres = np.array([(10.0, 0, 0), (25.0, 0, 0), (25.0, 0, 0), (-1.0, 0, 0)])
    atlas, own = located(read_truth(tmp_path / "t.h5"), organ, origin, np.array([0, 0, 1, 0]), centres)
    # At x = 25 the first is 15 mm off, the second 50 - 45 = 5 mm; -1 is off the maps.
    np.testing.assert_allclose(atlas[:, 0], [10, 25, 45, np.nan])
    np.testing.assert_array_equal(own, [1, 0, 1, np.nan])


def test_of_every_crop_a_study_says_whether_it_is_its_pattern_s_own(discovered, tmp_path):
    """Origins 14 mm apart along z; in scan i crops of the first lie 2 i mm further on, of the second 2 i - 4 mm."""
    body = read_study(discovered, tmp_path / "truth").frames["body"]
    # In scan 4 that of the first is 8 mm off, and 6 mm from the second's origin.
    np.testing.assert_array_equal(body.own, [[1, 1, 1, 1, 0, np.nan], [1, 1, 1, 1, 1, np.nan]])


def test_without_truth_nothing_is_known(discovered, tmp_path):
    study = read_study(discovered, tmp_path / "nowhere")
    assert not study.known
    assert study.frames["lungs"].fits.any()
    assert np.isnan(study.origin).all()
    assert study.without_truth == 7


def test_tables_of_two_runs_are_refused(discovered, tmp_path):
    other = write_discovered(tmp_path / "other", [row(7)], [(0, (6, 6, 5))])
    with pytest.raises(InputError, match=r"surveys\.csv: lacks references .*dvc repro coordinates"):
        read_study(other, tmp_path / "truth")
    (discovered / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
        read_study(discovered, tmp_path / "truth")
