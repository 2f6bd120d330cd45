"""The atlas' bones stand where anatomy has them."""

from itertools import pairwise

import numpy as np
import pytest

from sg.cohorts.phantom import skeleton


def _at(*points):
    return tuple(np.array(points, np.float32).T)


def test_the_disc_below_the_fifth_thoracic_vertebra_lies_at_the_carina():
    assert skeleton.DISC_PLANES[7] == 0  # C5, C6, C7, T1, ..., T5: the eighth
    assert skeleton.thoracic_mm(4) > 0 > skeleton.thoracic_mm(5)


def test_vertebrae_follow_each_other_and_grow_downwards():
    middles = skeleton.levels_mm()
    assert len(middles) == skeleton.LEVELS
    gaps = -np.diff(middles)
    assert (np.diff(gaps) >= -1e-3).all()
    assert gaps[0] == pytest.approx(16.5)
    assert gaps[-1] == pytest.approx(36)


def test_the_surface_of_a_vertebral_body_is_its_radius_from_the_axis():
    z = -60.0
    axis, radius = float(skeleton.spine_axis(np.array(z))), float(skeleton.spine_radius(np.array(z)))
    behind = axis + radius * skeleton.AP_SHARE
    inside, side, back = skeleton.spine_body(_at((0, axis, z), (radius, axis, z), (0, behind, z)))
    assert inside == pytest.approx(-radius)
    assert side == pytest.approx(0, abs=1e-3)
    assert back == pytest.approx(0, abs=1e-3)


def test_there_are_twelve_pairs_of_ribs_each_the_mirror_image_of_the_other_and_two_float():
    ribs = skeleton.rib_paths()
    assert len(ribs) == 24
    mirror = np.array([-1, 1, 1])
    for right, left in zip(ribs[::2], ribs[1::2], strict=True):
        np.testing.assert_array_equal(right.wall * mirror, left.wall)
        np.testing.assert_array_equal(right.root * mirror, left.root)
    assert [rib.cartilage is None for rib in ribs[::2]] == [False] * 10 + [True] * 2


def test_heads_of_the_second_to_tenth_ribs_touch_the_disc_above_their_vertebra():
    for number in range(1, 10):
        head = skeleton.rib_paths()[2 * number].root[0]
        above = skeleton.DISC_PLANES[3 + number - 1]
        assert abs(head[2] - above) < 3, number
        beside = np.hypot(head[0], (head[1] - skeleton.spine_axis(head[2])) / skeleton.AP_SHARE)
        assert beside == pytest.approx(float(skeleton.spine_radius(head[2])), abs=2), number


def test_ribs_sink_on_their_way_and_do_not_cross():
    walls = [rib.wall for rib in skeleton.rib_paths()[::2]]
    for wall in walls:
        assert (np.diff(wall[:, 2]) < 0).all()
    for upper, lower in pairwise(walls[:10]):
        assert (upper[:, 2] - lower[:, 2] > 8).all()


def test_the_breastbone_has_a_joint_between_manubrium_and_body():
    z = np.array([30.0, 6.0, -50.0])
    manubrium, joint, body = skeleton.sternum(
        (np.zeros(3, np.float32), skeleton.sternum_axis(z).astype(np.float32), z.astype(np.float32))
    )
    assert manubrium < -4
    assert body < -4
    assert joint > 0


def test_arms_go_up_or_down_from_the_same_head():
    up, down = skeleton.humerus(True), skeleton.humerus(False)
    np.testing.assert_array_equal(up[0], down[0])
    assert (np.diff(up[:, 2]) > 0).all()
    assert (np.diff(down[:, 2]) < 0).all()
    # An upper arm's bone is some 30 cm long.
    for path in (up, down):
        assert 200 < np.sqrt((np.diff(path, axis=0) ** 2).sum(axis=1)).sum() < 340
