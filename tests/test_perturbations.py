"""Laws of the perturbations, and their agreement with the published formulas written out plainly."""

import ctypes
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

import sg
from sg import params
from sg.errors import InputError
from sg.perturbations import apply, draw, elastic, flip, intensity, painting, shuffling

PUBLISHED = (32, 64, 64)

ELASTIC = params.Elastic(effect="elastic", weight=1.0, alpha=991.0, sigma=8.0)
FLIP = params.Flip(effect="flip", weight=1.0, again=0.4, most=3)
SHUFFLE = params.Shuffle(effect="shuffle", weight=1.0, windows=20)
INTENSITY = params.Intensity(effect="intensity", weight=1.0, inverted=0.5)
INPAINT = params.Inpaint(effect="inpaint", weight=1.0, boxes=5, again=0.95)
OUTPAINT = params.Outpaint(effect="outpaint", weight=1.0, boxes=5, again=0.95)
EVERY = [
    params.Step(p=1.0, one_of=[effect]) for effect in (ELASTIC, FLIP, SHUFFLE, INTENSITY, INPAINT, OUTPAINT)
]
SEMANTIC_GENESIS = [
    params.Step(p=1.0, one_of=[ELASTIC]),
    params.Step(p=1.0, one_of=[SHUFFLE, INTENSITY, INPAINT, OUTPAINT]),
]
MODELS_GENESIS = [
    params.Step(p=0.4, one_of=[FLIP]),
    params.Step(p=0.5, one_of=[SHUFFLE]),
    params.Step(p=0.9, one_of=[INTENSITY]),
    params.Step(
        p=0.9,
        one_of=[INPAINT.model_copy(update={"weight": 0.2}), OUTPAINT.model_copy(update={"weight": 0.8})],
    ),
]

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(*[st.integers(8, 19)] * 3)


def patch_of(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Uniform noise with some voxels at the ends of the range, 0 and 1."""
    rng = np.random.default_rng(seed)
    patch = rng.random(shape, dtype=np.float32)
    patch[rng.random(shape) < 0.2] = 0
    patch[rng.random(shape) < 0.2] = 1
    return patch


# --------------------------------------------------------------------------------------- all effects


@settings(max_examples=30, deadline=None)
@given(seeds, shapes, st.sampled_from([*[[step] for step in EVERY], EVERY, SEMANTIC_GENESIS, MODELS_GENESIS]))
def test_perturbed_and_target_stay_in_0_to_1_and_keep_shape_and_kind(seed, shape, steps):
    perturbed, target = apply(patch_of(seed, shape), draw(np.random.default_rng(seed), steps, shape))
    for image in (perturbed, target):
        assert image.shape == shape
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1


@settings(max_examples=20, deadline=None)
@given(seeds, shapes)
def test_the_same_generator_draws_the_same_and_the_same_draws_replay_bit_for_bit(seed, shape):
    first = draw(np.random.default_rng(seed), EVERY, shape)
    second = draw(np.random.default_rng(seed), EVERY, shape)
    assert first == second
    patch = patch_of(seed, shape)
    for one, other in zip(apply(patch, first), apply(patch, second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_generators_draw_otherwise():
    assert len({draw(np.random.default_rng(seed), EVERY, PUBLISHED) for seed in range(20)}) == 20


def test_a_record_holds_only_plain_numbers_and_cannot_be_changed():
    for record in draw(np.random.default_rng(0), EVERY, PUBLISHED):
        assert (
            eval(
                repr(record), vars(elastic) | vars(flip) | vars(shuffling) | vars(intensity) | vars(painting)
            )
            == record
        )
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.seed = 1


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.one_of[0].effect)
def test_the_patch_is_never_written_to_and_is_the_target(step):
    patch = patch_of(1, (16, 24, 24))
    before = patch.copy()
    patch.setflags(write=False)
    perturbed, target = apply(patch, draw(np.random.default_rng(1), [step], patch.shape))
    np.testing.assert_array_equal(patch, before)
    assert not np.array_equal(perturbed, patch)
    if step.one_of[0].effect == "flip":
        np.testing.assert_array_equal(target, perturbed)
    else:
        np.testing.assert_array_equal(target, patch)


def test_no_steps_leave_a_patch_of_any_size_as_it_is():
    patch = patch_of(0, (1, 2, 3))
    perturbed, target = apply(patch, draw(np.random.default_rng(0), [], patch.shape))
    np.testing.assert_array_equal(perturbed, patch)
    np.testing.assert_array_equal(target, patch)


def test_a_side_under_8_voxels_is_refused_in_words():
    with pytest.raises(
        InputError, match=r"at least 8 voxels, got \(7, 64, 64\); make coordinates.patch_size"
    ):
        draw(np.random.default_rng(0), EVERY, (7, 64, 64))


def names(drawn) -> tuple[str, ...]:
    return tuple(type(record).__name__ for record in drawn)


def test_semantic_genesis_warps_always_and_then_does_one_of_four_equally_often():
    draws = [names(draw(np.random.default_rng(seed), SEMANTIC_GENESIS, (8, 8, 8))) for seed in range(2000)]
    assert {drawn[0] for drawn in draws} == {"Warp"}
    counts = [
        sum(drawn[1:] == (name,) for drawn in draws) for name in ("Windows", "Curve", "Painted", "Kept")
    ]
    assert sum(counts) == 2000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_models_genesis_does_each_of_its_steps_as_often_as_published():
    draws = [names(draw(np.random.default_rng(seed), MODELS_GENESIS, (8, 8, 8))) for seed in range(2000)]
    # 0.9 of painting is in-painting in a fifth of the cases: 0.18, and 0.72 out-painting.
    for name, share in {"Flips": 0.4, "Windows": 0.5, "Curve": 0.9, "Painted": 0.18, "Kept": 0.72}.items():
        count = sum(name in drawn for drawn in draws)
        assert stats.chisquare([count, 2000 - count], [2000 * share, 2000 * (1 - share)]).pvalue > 1e-3, name
    # The steps are independent: the 2 x 2 table of the first two has the product of their probabilities.
    table = [
        sum((("Flips" in drawn) == flips) and (("Windows" in drawn) == windows) for drawn in draws)
        for flips in (True, False)
        for windows in (True, False)
    ]
    assert stats.chisquare(table, [2000 * p for p in (0.2, 0.2, 0.3, 0.3)]).pvalue > 1e-3


# ------------------------------------------------------------------------------------------- elastic


def published_displacement(rng, shape, alpha, sigma):
    """One axis of the published field, written out: smoothed noise times alpha, zeros outside the patch."""
    return ndimage.gaussian_filter(rng.uniform(-1, 1, shape), sigma, mode="constant", cval=0) * alpha


def test_displacement_off_the_borders_is_3_79_voxels_for_the_published_values():
    closed_form = 991 * 3**-0.5 / (2 * np.pi**0.5 * 8) ** 1.5
    assert closed_form == pytest.approx(3.79, abs=0.005)
    # Off the borders in the plane; along z the 32 slices are 2 sigma on both sides, which is 0.3 % short of it.
    core = [
        elastic.displacement(elastic.Warp(991.0, 8.0, seed), PUBLISHED)[:, 16, 26:38:4, 26:38:4]
        for seed in range(600)
    ]
    assert np.std(core) == pytest.approx(closed_form, rel=0.03)


def test_displacement_has_the_mean_spread_and_shape_of_the_published_formula_at_every_voxel():
    # Half the published size, for speed: sigma 4, alpha 991 / 2^2.5.
    shape, drawn = (16, 32, 32), elastic.draw(np.random.default_rng(0), ELASTIC, (16, 32, 32))
    assert drawn.alpha == pytest.approx(991 / 2**2.5)
    assert drawn.sigma == 4
    rng = np.random.default_rng(1)
    theirs = np.array([published_displacement(rng, shape, drawn.alpha, drawn.sigma) for _ in range(1500)])
    ours = np.concatenate(
        [elastic.displacement(dataclasses.replace(drawn, seed=s), shape) for s in range(750)]
    )
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    # Voxel by voxel, borders and corners included: 1,500 draws give a spread within 8 % or so (4 standard errors).
    ratio = ours.std(axis=0) / theirs.std(axis=0)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.min() > 0.87
    assert ratio.max() < 1.15
    # As smooth: the correlation of a voxel with one 4 (a sigma) and 8 further on.
    for lag in (4, 8):
        correlations = [np.corrcoef(f[:, 8, 16, 10], f[:, 8, 16, 10 + lag])[0, 1] for f in (ours, theirs)]
        assert correlations[0] == pytest.approx(correlations[1], abs=0.08)
    # As Gaussian, in one voxel and in its extremes.
    assert stats.ks_2samp(ours[:, 8, 16, 16], theirs[:, 8, 16, 16]).pvalue > 1e-3
    assert stats.ks_2samp(np.abs(ours).max((1, 2, 3)), np.abs(theirs).max((1, 2, 3))).pvalue > 1e-3


@pytest.mark.parametrize(
    ("side", "sigma"), [(64, 8.0), (32, 8.0), (32, 4.0), (16, 2.0), (8, 1.0), (24, 3.0), (9, 0.3)]
)
def test_covariance_of_the_noise_cells_is_that_of_the_published_smoothing(side, sigma):
    theirs = ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode="constant")
    ours = elastic._smoothing(side, sigma).astype(float)
    expected = theirs @ theirs.T
    np.testing.assert_allclose(ours @ ours.T, expected, atol=0.005 * expected.max())


@pytest.mark.parametrize("alpha", [991.0, 20_000.0])
def test_reading_agrees_with_scipy_where_displacements_leave_the_patch_once_or_many_times(alpha):
    shape = (8, 20, 24)
    patch = patch_of(3, shape)
    drawn = elastic.Warp(alpha, 3.0, seed=5)
    field = elastic.displacement(drawn, shape)
    places = np.indices(shape).astype(float)
    places[1:] += field
    assert np.abs(field).max() > 24
    expected = ndimage.map_coordinates(patch, places, order=1, mode="reflect")
    np.testing.assert_allclose(elastic.warp(patch, drawn), expected, atol=2e-4 if alpha > 1e4 else 2e-5)


def test_the_warp_stays_in_its_plane():
    patch = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32)[:, None, None], (16, 24, 24))
    warped = elastic.warp(patch, elastic.draw(np.random.default_rng(2), ELASTIC, patch.shape))
    np.testing.assert_allclose(warped, patch, atol=1e-6)


def test_displacement_and_its_grain_go_with_the_patch():
    half, whole = (
        elastic.draw(np.random.default_rng(0), ELASTIC, shape) for shape in ((16, 32, 32), PUBLISHED)
    )
    spread = [drawn.alpha / drawn.sigma**1.5 for drawn in (half, whole)]
    assert spread[1] / spread[0] == pytest.approx(2)
    assert whole.sigma / half.sigma == 2


# ---------------------------------------------------------------------------------------------- flip


@given(seeds, st.lists(st.integers(0, 2), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_a_flip_done_twice_is_none(seed, axes):
    patch = patch_of(seed, (8, 9, 10))
    drawn = flip.Flips(tuple(axes))
    np.testing.assert_array_equal(flip.flip(flip.flip(patch, drawn), drawn), patch)


def test_a_flip_along_z_reverses_the_slices():
    patch = patch_of(0, (8, 9, 10))
    np.testing.assert_array_equal(flip.flip(patch, flip.Flips((0,))), patch[::-1])


def test_flips_go_on_with_their_probability_along_any_axis():
    drawn = [flip.draw(np.random.default_rng(seed), FLIP).axes for seed in range(2000)]
    counts = [sum(len(axes) == length for axes in drawn) for length in (1, 2, 3)]
    assert stats.chisquare(counts, [2000 * p for p in (0.6, 0.4 * 0.6, 0.4 * 0.4)]).pvalue > 1e-3
    axes = np.concatenate(drawn)
    assert stats.chisquare(np.bincount(axes)).pvalue > 1e-3


# ----------------------------------------------------------------------------------------- shuffling


@settings(max_examples=30, deadline=None)
@given(seeds, shapes.map(lambda shape: tuple(3 * side for side in shape)))
def test_a_shuffled_window_holds_the_same_voxels_and_the_rest_is_untouched(seed, shape):
    patch = patch_of(seed, shape)
    drawn = shuffling.Windows(1, seed)
    shuffled = shuffling.shuffle(patch, drawn)
    (start,), (side,) = shuffling.places(drawn, shape)
    window = tuple(slice(first, first + length) for first, length in zip(start, side, strict=True))
    np.testing.assert_array_equal(np.sort(shuffled[window], axis=None), np.sort(patch[window], axis=None))
    outside = np.ones(shape, bool)
    outside[window] = False
    np.testing.assert_array_equal(shuffled[outside], patch[outside])


def test_many_windows_are_each_read_from_the_original_and_the_last_one_is_whole():
    patch = patch_of(0, PUBLISHED)
    drawn = shuffling.Windows(10_000, 7)
    shuffled = shuffling.shuffle(patch, drawn)
    starts, sides = shuffling.places(drawn, PUBLISHED)
    covered = np.zeros(PUBLISHED, bool)
    for start, side in zip(starts, sides, strict=True):
        window = tuple(slice(first, first + length) for first, length in zip(start, side, strict=True))
        covered[window] = True
    np.testing.assert_array_equal(np.sort(shuffled[window], axis=None), np.sort(patch[window], axis=None))
    np.testing.assert_array_equal(shuffled[~covered], patch[~covered])
    # Published: 10,000 windows touch 81 % of the voxels.
    assert covered.mean() == pytest.approx(0.81, abs=0.02)


def test_windows_measure_1_to_a_tenth_of_each_side_anywhere_in_the_patch():
    starts, sides = shuffling.places(shuffling.Windows(20_000, 1), PUBLISHED)
    for axis, most in enumerate((3, 6, 6)):
        assert stats.chisquare(np.bincount(sides[:, axis], minlength=most + 1)[1:]).pvalue > 1e-3
        assert starts[:, axis].min() == 0
        assert (starts + sides)[:, axis].max() == PUBLISHED[axis]
    assert set(shuffling.places(shuffling.Windows(50, 1), (8, 8, 8))[1].ravel()) == {1}


def test_every_order_of_a_window_is_equally_likely():
    patch = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    orders = []
    for seed in range(2000):
        words = np.random.default_rng(seed).integers(2**32, size=3, dtype=np.uint32)
        out = patch.copy()
        shuffling._permute(patch, np.zeros((1, 3), int), np.array([[1, 1, 3]]), words, out)
        orders.append(tuple(out.ravel()))
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


# ----------------------------------------------------------------------------------------- intensity


def published_bezier(controls, falling, values):
    """The published map, written out: 100,000 points of the curve, sorted, interpolated."""
    t = np.linspace(0, 1, 100_000)
    points = np.array([(0, 0), *controls, (1, 1)], float)
    bernstein = np.array([t**3, 3 * t**2 * (1 - t), 3 * t * (1 - t) ** 2, (1 - t) ** 3])
    x, y = (bernstein.T @ points).T  # from (1, 1) at t = 0 to (0, 0)
    return np.interp(values, np.sort(x), y if falling else np.sort(y))


unit = st.floats(0, 1)
points = st.tuples(unit, unit)


@settings(max_examples=30, deadline=None)
@given(st.tuples(points, points), st.booleans())
def test_the_bezier_map_is_the_published_one_of_a_value_within_a_quarter_of_a_hu(controls, falling):
    values = np.linspace(0, 1, 2001, dtype=np.float32)
    mapped = intensity.remap(values, intensity.Curve(controls, falling))
    beside = [
        published_bezier(controls, falling, np.clip(values.astype(float) + step, 0, 1))
        for step in (-1 / 8192, 1 / 8192)
    ]
    assert np.all(mapped >= np.minimum(*beside) - 1e-6)
    assert np.all(mapped <= np.maximum(*beside) + 1e-6)


def test_an_ordinary_curve_is_the_published_one_within_a_millionth():
    controls = ((0.3, 0.8), (0.6, 0.1))
    patch = patch_of(0, (8, 16, 16))
    for falling in (False, True):
        mapped = intensity.remap(patch, intensity.Curve(controls, falling))
        np.testing.assert_allclose(mapped, published_bezier(controls, falling, patch), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.tuples(points, points), st.booleans())
def test_the_bezier_map_is_monotone_and_keeps_or_swaps_the_ends(controls, falling):
    values = np.linspace(0, 1, 2001, dtype=np.float32)
    mapped = intensity.remap(values, intensity.Curve(controls, falling))
    steps = np.diff(mapped.astype(float))
    assert np.all(steps <= 0) if falling else np.all(steps >= 0)
    assert (mapped[0], mapped[-1]) == ((1, 0) if falling else (0, 1))


def test_controls_on_the_diagonal_at_thirds_give_the_identity():
    patch = patch_of(0, (8, 8, 8))
    curve = intensity.Curve(((1 / 3, 1 / 3), (2 / 3, 2 / 3)), falling=False)
    np.testing.assert_allclose(intensity.remap(patch, curve), patch, atol=1e-6)


def test_half_of_the_curves_fall():
    falling = sum(intensity.draw(np.random.default_rng(seed), INTENSITY).falling for seed in range(1000))
    assert stats.binomtest(falling, 1000, 0.5).pvalue > 1e-3


def test_values_out_of_range_are_taken_for_its_ends():
    values = np.array([-3, 7, np.nan, np.inf], np.float32)
    curve = intensity.Curve(((0.2, 0.7), (0.5, 0.1)), falling=False)
    np.testing.assert_array_equal(intensity.remap(values, curve), [0, 1, 0, 1])


# ------------------------------------------------------------------------------------------ painting


@settings(max_examples=30, deadline=None)
@given(seeds, shapes)
def test_in_painting_changes_voxels_in_its_boxes_only(seed, shape):
    patch = np.full(shape, 2, np.float32)  # a value that no noise has
    drawn = painting.draw_painted(np.random.default_rng(seed), INPAINT, shape)
    inside = boxes_of(drawn, shape)
    painted = painting.paint_in(patch, drawn)
    assert np.all(painted[inside] < 1)
    assert np.all(painted[~inside] == 2)


@settings(max_examples=30, deadline=None)
@given(seeds, shapes)
def test_out_painting_keeps_exactly_its_boxes(seed, shape):
    patch = np.full(shape, 2, np.float32)
    drawn = painting.draw_kept(np.random.default_rng(seed), OUTPAINT, shape)
    inside = boxes_of(drawn, shape)
    painted = painting.paint_out(patch, drawn)
    assert np.all(painted[inside] == 2)
    assert np.all(painted[~inside] < 1)


def boxes_of(drawn, shape):
    inside = np.zeros(shape, bool)
    for box in drawn.boxes:
        inside[box.slices] = True
        assert min(box.start) >= 0
        assert all(first + side <= most for first, side, most in zip(box.start, box.side, shape, strict=True))
    return inside


@pytest.mark.parametrize(
    ("draw_boxes", "effect", "bounds"),
    [
        (painting.draw_painted, INPAINT, [(5, 10), (10, 21), (10, 21)]),
        (painting.draw_kept, OUTPAINT, [(14, 19), (28, 37), (28, 37)]),
    ],
)
def test_boxes_of_a_published_patch_have_the_published_sides_and_margins(draw_boxes, effect, bounds):
    drawn = [draw_boxes(np.random.default_rng(seed), effect, PUBLISHED).boxes[0] for seed in range(1500)]
    for axis, (low, high) in enumerate(bounds):
        sides = np.array([box.side[axis] for box in drawn])
        ends = np.array([box.start[axis] + box.side[axis] for box in drawn])
        assert (sides.min(), sides.max()) == (low, high)
        assert stats.chisquare(np.bincount(sides)[low:]).pvalue > 1e-3
        assert min(box.start[axis] for box in drawn) == 3
        assert ends.max() == PUBLISHED[axis] - 3


def test_one_box_as_semantic_genesis_and_up_to_five_as_models_genesis():
    one = INPAINT.model_copy(update={"boxes": 1, "again": 0.0})
    assert {
        len(painting.draw_painted(np.random.default_rng(s), one, PUBLISHED).boxes) for s in range(50)
    } == {1}
    counts = [
        len(painting.draw_kept(np.random.default_rng(s), OUTPAINT, PUBLISHED).boxes) for s in range(2000)
    ]
    expected = [2000 * 0.95 ** (n - 1) * 0.05 for n in (1, 2, 3, 4)] + [2000 * 0.95**4]
    assert stats.chisquare(np.bincount(counts, minlength=6)[1:], expected).pvalue > 1e-3


def test_the_noise_is_uniform_in_0_to_1():
    noise = painting.paint_out(np.zeros((16, 16, 16), np.float32), painting.Kept((), 3))
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3


# ------------------------------------------------------------------------------------------ compiled


def test_the_compiled_loops_work_where_no_machine_code_can_be_kept(tmp_path):
    package = tmp_path / "code" / "sg"
    shutil.copytree(Path(sg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    home.mkdir()
    for folder in (package / "perturbations", home):
        folder.chmod(0o500)
    lines = (
        "import numpy as np; from sg.perturbations import shuffling;"
        "patch = np.arange(8, dtype=np.float32).reshape(2, 2, 2);"
        "print(shuffling.__file__, shuffling.shuffle(patch, shuffling.Windows(3, 1)).sum())"
    )
    environment = {"HOME": str(home), "PYTHONPATH": str(tmp_path / "code"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", lines],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        preexec_fn=_give_up_root,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(package / "perturbations" / "shuffling.py"), "28.0"]
    assert not list(tmp_path.rglob("*.nbi"))


def _give_up_root() -> None:
    """Root writes into read-only folders all the same, unless it gives up the capability that lets it."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP: exec then leaves them out
                raise OSError(ctypes.get_errno(), "prctl")
