from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2_contingency, chisquare

from sg.admissible import admissible, admissible_in, draw, exclude_near, tissue_sums
from sg.errors import InputError
from sg.params import TissueRule
from tests.hand_made import noise


def rule(border=(0, 0, 0), low=0.0, high=1.0) -> TissueRule:
    return TissueRule(border=border, tissue_hu=-150.0, tissue_min=low, tissue_max=high)


def published_score(image: np.ndarray, corner, size, threshold: float = -150.0) -> float:
    """Sum of the scores of a patch, as published: the first of three slices whose voxel reaches the threshold."""
    total = 0.0
    for z, y, x in itertools.product(*(range(c, c + s) for c, s in zip(corner, size, strict=True))):
        first = 2
        for step in (0, 1, 2):
            if z + step < image.shape[0] and image[z + step, y, x] >= threshold:
                first = step
                break
        total += 1 - first / 2
    return total


def corners(shape, size):
    return itertools.product(*(range(s - p + 1) for s, p in zip(shape, size, strict=True)))


@pytest.mark.parametrize("size", [(2, 3, 4), (1, 1, 1), (7, 6, 5), (3, 6, 1)])
def test_the_tissue_score_of_every_position_is_that_of_the_published_loop(size):
    image = noise(1, (7, 6, 5))
    sums = tissue_sums(image >= -150, size)
    for corner in corners(image.shape, size):
        assert sums[corner] / 2 == published_score(image, corner, size)
    assert sums.size == len(list(corners(image.shape, size)))


def test_a_voxel_below_tissue_scores_half_and_the_last_slice_sees_none_above():
    tissue = np.zeros((4, 1, 1), bool)
    tissue[2] = True
    assert tissue_sums(tissue, (1, 1, 1)).ravel().tolist() == [0, 1, 2, 0]


def test_a_patch_larger_than_the_scan_has_no_position():
    assert tissue_sums(np.ones((4, 4, 4), bool), (5, 2, 2)).size == 0
    places = admissible(np.ones((4, 4, 4), bool), (5, 2, 2), rule())
    assert (len(places), places.counts["positions"]) == (0, 0)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.permutations(range(3)),
)
def test_sums_of_any_shape_size_and_share_of_tissue_are_those_of_the_published_loop(
    shape, size, share, seed, axes
):
    tissue = np.random.default_rng(seed).random(shape) < share
    turned = tissue.transpose(axes)  # the loops take any strides
    sums = tissue_sums(turned, size)
    assert sums.shape == tuple(max(0, s - p + 1) for s, p in zip(turned.shape, size, strict=True))
    image = np.where(turned, 0, -1000)
    for corner in corners(turned.shape, size):
        assert sums[corner] / 2 == published_score(image, corner, size)


def test_a_patch_whose_sums_might_leave_32_bits_is_refused_before_any_memory_is_taken():
    tissue = np.broadcast_to(np.True_, (2**11, 2**10, 2**10))  # one voxel in memory
    with pytest.raises(InputError, match=r"fewer than 2\^30 voxels, got \[1024, 1024, 1024\]"):
        tissue_sums(tissue, (2**10, 2**10, 2**10))


@pytest.mark.parametrize("hu", [-150.0, -150.5, -149.5, -1e6, 1e6, 32767.0, 32767.5, -32768.0])
def test_an_image_is_judged_as_what_is_tissue_in_it(hu):
    image = noise(3, (6, 7, 8))
    image[0, 0, :4] = -151, -150, 32767, -32768
    whole = TissueRule(border=(1, 0, 2), tissue_hu=hu, tissue_min=0.3, tissue_max=0.7)
    for turned in (image, image[:, ::-1], image.T):
        of_image = admissible_in(turned, (2, 3, 2), whole)
        of_tissue = admissible(turned >= hu, (2, 3, 2), whole)
        np.testing.assert_array_equal(of_image.mask, of_tissue.mask)
        np.testing.assert_array_equal(of_image.sums, of_tissue.sums)
        assert (of_image.first, of_image.counts) == (of_tissue.first, of_tissue.counts)


@given(st.integers(0, 36), st.integers(0, 36), st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 0, 1]))
def test_limits_at_and_beside_a_possible_share_decide_as_the_quotients_do(low, high, below, above):
    size = (2, 3, 3)
    low, high = sorted((low, high))

    def beside(number, way):
        return min(max(np.nextafter(number / 36, number / 36 + way), 0.0), 1.0)

    low, high = sorted((beside(low, below), beside(high, above)))
    tissue = noise(4, (7, 7, 7)) >= -150
    tissue[:3], tissue[5:] = False, True
    places = admissible(tissue, size, rule(low=low, high=high))
    shares = tissue_sums(tissue, size) / np.float64(36)
    np.testing.assert_array_equal(places.mask, (shares >= low) & (shares <= high))


@given(
    arrays(bool, st.tuples(*[st.integers(1, 7)] * 3)),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.tuples(*[st.integers(0, 2)] * 3),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_the_admissible_corners_are_those_of_brute_force(tissue, size, border, limits):
    image = np.where(tissue, 0, -1000)
    voxels = np.prod(size)
    expected, inside, low, high = [], 0, 0, 0
    for corner in corners(tissue.shape, size):
        far = zip(corner, size, border, tissue.shape, strict=True)
        if any(c < b or c + p > s - b for c, p, b, s in far):
            continue
        inside += 1
        share = published_score(image, corner, size) / voxels
        low, high = low + (share < limits[0]), high + (share > limits[1])
        if limits[0] <= share <= limits[1]:
            expected.append((corner, share))
    places = admissible(tissue, size, rule(border, *limits))
    assert [places.corner(number) for number in range(len(places))] == [corner for corner, _ in expected]
    assert [places.share_at(corner) for corner, _ in expected] == pytest.approx(
        [share for _, share in expected]
    )
    backwards = range(len(places) - 1, -1, -1)
    assert places.corners(backwards) == [corner for corner, _ in reversed(expected)]
    total = len(list(corners(tissue.shape, size)))
    assert places.counts == {
        "positions": total,
        "border": total - inside,
        "tissue_min": low,
        "tissue_max": high,
    }


@given(
    st.lists(st.tuples(*[st.floats(-3, 12)] * 3), max_size=4),
    st.floats(0, 6),
    st.tuples(*[st.integers(0, 2)] * 3),
)
def test_what_is_near_an_earlier_corner_is_excluded_and_nothing_else(earlier, distance, border):
    places = admissible(np.ones((9, 8, 10), bool), (2, 2, 2), rule(border))
    everything = [places.corner(number) for number in range(len(places))]
    taken = exclude_near(places, earlier, distance)
    near = [
        any(sum((a - b) ** 2 for a, b in zip(corner, other, strict=True)) < distance**2 for other in earlier)
        for corner in everything
    ]
    left = [corner for corner, close in zip(everything, near, strict=True) if not close]
    assert [places.corner(number) for number in range(len(places))] == left
    assert taken == sum(near)


def test_at_exactly_the_least_distance_a_corner_stays():
    places = admissible(np.ones((1, 1, 11), bool), (1, 1, 1), rule())
    assert exclude_near(places, [(0.0, 0.0, 5.0)], 5.0) == 9
    assert [places.corner(number)[2] for number in range(len(places))] == [0, 10]


def test_draws_are_uniform_among_the_admissible_corners():
    image = noise(2, (6, 7, 8))
    places = admissible(image >= -150, (2, 3, 3), rule((0, 1, 0), 0.6, 0.7))
    rng = np.random.default_rng(5)
    drawn = [draw(places, 1, rng)[0] for _ in range(4000)]
    allowed = [places.corner(number) for number in range(len(places))]
    assert 20 < len(allowed) < 80
    assert chisquare([drawn.count(corner) for corner in allowed]).pvalue > 0.001
    # And like drawing corners anywhere until one is admissible, as the published code does.
    tries = [tuple(int(rng.integers(0, n)) for n in (5, 5, 6)) for _ in range(20000)]
    tried = [corner for corner in tries if corner in set(allowed)]
    counts = [[sample.count(corner) for corner in allowed] for sample in (drawn, tried)]
    assert chi2_contingency(counts).pvalue > 0.001


def test_several_draws_repeat_no_corner_and_take_all_if_there_are_no_more():
    places = admissible(np.ones((3, 3, 3), bool), (2, 2, 2), rule())
    for count in (1, 5, 8, 30):
        drawn = draw(places, count, np.random.default_rng(count))
        assert len(drawn) == len(set(drawn)) == min(count, 8)
    assert (
        draw(
            admissible(np.ones((3, 3, 3), bool), (2, 2, 2), rule(low=0, high=0.1)),
            4,
            np.random.default_rng(0),
        )
        == []
    )
