from __future__ import annotations

import numpy as np
import pytest

from sg.frames import Box, body_box, find_boxes, lungs_box

SPACING_MM = (3.0, 3.0, 4.0)  # (x, y, z): 36 cubic mm a voxel, no coarser grid
BODY = (slice(0, 40), slice(10, 70), slice(8, 92))
LEFT, RIGHT = (slice(6, 34), slice(20, 60), slice(54, 84)), (slice(9, 36), slice(24, 58), slice(16, 46))


def chest(lungs: bool = True, table: bool = True) -> np.ndarray:
    """A box of tissue in air, two boxes of lung in it (1.2 and 0.9 litres), and a hollow table under it."""
    image = np.full((40, 90, 100), -1000, np.int16)
    if table:
        image[:, 78:88, 4:96] = 100
        image[:, 79:87, 5:95] = -1000
    image[BODY] = 40
    if lungs:
        image[LEFT] = -850
        image[RIGHT] = -820
    return image


def test_the_lungs_box_reaches_around_both_lungs_and_no_hollow_table():
    assert lungs_box(chest(), SPACING_MM) == Box((6, 20, 16), (36, 60, 84))


def test_lungs_cut_by_the_first_and_last_slice_are_still_inside_the_body():
    assert lungs_box(chest()[10:30], SPACING_MM) == Box((0, 20, 16), (20, 60, 84))


def test_the_body_box_leaves_the_table_out():
    assert body_box(chest(), SPACING_MM) == Box((0, 10, 8), (40, 70, 92))


def test_a_small_gas_bubble_is_no_lung_but_a_small_lung_is():
    image = chest()
    image[LEFT] = 40
    image[2:5, 60:66, 60:80] = -1000  # 13 ml: stomach
    assert lungs_box(image, SPACING_MM) == Box((9, 24, 16), (36, 58, 46))
    image[30:40, 20:50, 54:80] = -850  # 0.28 litres, a quarter of the other
    assert lungs_box(image, SPACING_MM) == Box((9, 20, 16), (40, 58, 80))


def test_on_a_fine_grid_the_box_is_right_to_the_voxels_looked_at():
    fine = chest().repeat(4, axis=0).repeat(3, axis=1).repeat(3, axis=2)
    box = lungs_box(fine, (1.0, 1.0, 1.0))  # every second voxel is looked at
    np.testing.assert_allclose(box.start, (24, 60, 48), atol=1)
    np.testing.assert_allclose(box.stop, (144, 180, 252), atol=1)
    assert lungs_box(fine[:-3, :-1], (1.0, 1.0, 1.0)).stop[1] <= fine.shape[1] - 1


@pytest.mark.parametrize(
    ("image", "frame", "expected"),
    [
        (chest(), "lungs", (lungs_box(chest(), SPACING_MM), "lungs")),
        (chest(lungs=False), "lungs", (Box((0, 10, 8), (40, 70, 92)), "body")),
        (chest(), "body", (Box((0, 10, 8), (40, 70, 92)), "body")),
        (np.full((10, 20, 30), -1000, np.int16), "lungs", (Box((0, 0, 0), (10, 20, 30)), "scan")),
        (np.full((10, 20, 30), -1000, np.int16), "body", (Box((0, 0, 0), (10, 20, 30)), "scan")),
        (chest(), "voxel", (Box((0, 0, 0), (40, 90, 100)), "scan")),
    ],
)
def test_the_body_stands_in_for_lungs_and_the_scan_for_the_body(image, frame, expected):
    assert find_boxes(image, SPACING_MM)[frame] == expected


def test_noise_and_the_smallest_scans_have_no_box_and_no_error():
    for shape in ((1, 1, 1), (16, 32, 32), (3, 200, 2)):
        noise = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
        assert lungs_box(noise, SPACING_MM) is None
        assert body_box(noise, (0.5, 0.5, 0.5)) is None
