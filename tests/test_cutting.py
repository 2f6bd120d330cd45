from __future__ import annotations

import shutil
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from sg import cutting
from sg.admissible import admissible
from sg.coordinates import discover
from sg.crops import CROP
from sg.cutting import cut, write_caches
from sg.errors import InputError
from sg.params import Patches
from sg.patches import PatchCache
from sg.resampled import read_resampled
from tests.hand_made import in_a_row, name, noise, scan_row, settings, write_scan

SIZE = (2, 4, 4)


def patches_settings(**changes) -> Patches:
    values = {
        "sub_volumes": 5,
        "sub_volumes_validation": 2,
        "rule": {"border": (1, 1, 1), "tissue_hu": -150.0, "tissue_min": 0.3, "tissue_max": 0.9},
        "compression": "none",
    }
    return Patches(**(values | changes))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "resampled"
    folder.mkdir()
    for i in range(8):
        write_scan(folder, i, noise(i, (7, 12 + i % 3, 14)))
    return folder


ROWS = [scan_row(i, "train" if i < 6 else "validation") for i in range(8)]


def make(
    folder: Path, scans: Path, workers: int = 1, patterns: int = 4, rows=ROWS, **changes
) -> cutting.Caches:
    found = discover(in_a_row(6, 2), scans, settings(patterns=patterns), 1, 1)
    folder.mkdir()
    crops = np.concatenate(found.crops)
    return write_caches(
        folder, crops, patterns, SIZE, *apart(rows), scans, patches_settings(**changes), 1, workers
    )


def apart(rows):
    """Those to learn from, and those to stop by."""
    return ([row for row in rows if row.split == split] for split in ("train", "validation"))


# ------------------------------------------------------------------------------------------- one patch


def plain(box: np.ndarray, size) -> np.ndarray:
    """Linear interpolation of a box at every new voxel's centre, written out with loops."""
    out = np.empty(size)
    for index in np.ndindex(*size):
        at = [
            min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
            for i, old, new in zip(index, box.shape, size, strict=True)
        ]
        value = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight, voxel = 1.0, []
            for place, side, old in zip(at, corner, box.shape, strict=True):
                low = int(place)
                weight *= (place - low) if side else 1 - (place - low)
                voxel.append(min(low + side, old - 1))
            value += weight * box[tuple(voxel)]
        out[index] = value
    return out


@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 2**32),
)
def test_a_resized_patch_is_that_of_plain_trilinear_interpolation(extent, size, seed):
    image = noise(seed, (8, 8, 8))
    patch = cut(image, (1, 0, 2), extent, size)
    assert (patch.dtype, patch.shape) == (np.int16, size)
    expected = plain(image[1 : 1 + extent[0], : extent[1], 2 : 2 + extent[2]].astype(float), size)
    assert np.abs(patch - expected).max() <= 0.5 + 1e-3


def in_single_precision(box: np.ndarray, size) -> np.ndarray:
    """The same, one axis after the other for the whole box, rounded to single precision after every operation."""
    values = box.astype(np.float32)
    for axis, (old, new) in enumerate(zip(box.shape, size, strict=True)):
        if old == new:
            continue
        lines = np.moveaxis(values, axis, 0)
        made = []
        for i in range(new):
            at = min(max((i + 0.5) * (old / new) - 0.5, 0), old - 1)
            low = min(int(at), max(0, old - 2))
            below, above = lines[low], lines[min(low + 1, old - 1)]
            made.append(below + (above - below) * np.float32(at - low))
        values = np.moveaxis(np.array(made), 0, axis)
    return np.rint(values).astype(np.int16)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sets(st.sampled_from(range(3))),
    st.integers(0, 2**32),
)
def test_a_resized_patch_has_the_bits_of_single_precision_axis_by_axis(extent, size, kept, seed):
    # Caches of earlier versions, which worked so, can be cut again.
    size = tuple(extent[axis] if axis in kept else size[axis] for axis in range(3))
    image = np.random.default_rng(seed).integers(-(2**15), 2**15, (9, 10, 11)).astype(np.int16)
    box = image[: extent[0], 1 : 1 + extent[1], 2 : 2 + extent[2]]
    np.testing.assert_array_equal(cut(image, (0, 1, 2), extent, size), in_single_precision(box, size))


@pytest.mark.parametrize("axis", range(3))
def test_an_axis_that_keeps_its_length_is_not_rounded_again(axis):
    # Of its two voxels, the second would be the first and the whole of a difference: a few in 20,000 come out otherwise.
    size, extent = [150, 150, 150], [100, 100, 100]
    size[axis] = extent[axis] = 2
    image = np.random.default_rng(1).integers(-(2**15), 2**15, extent).astype(np.int16)
    np.testing.assert_array_equal(cut(image, (0, 0, 0), extent, size), in_single_precision(image, size))


def test_a_patch_is_cut_into_the_place_it_is_given_and_any_image_is_left_as_it_is():
    image = noise(0, (6, 8, 8))
    before = image.copy()
    for extent in ((2, 4, 4), (3, 5, 2)):
        room = np.zeros((3, *SIZE), np.int16)
        made = cut(image.T.T[:, ::-1], (1, 1, 0), extent, SIZE, room[1])
        assert made.base is room
        np.testing.assert_array_equal(room[1], cut(image[:, ::-1].copy(), (1, 1, 0), extent, SIZE))
        assert not room[[0, 2]].any()
        np.testing.assert_array_equal(image, before)


def test_a_patch_of_its_own_size_is_the_box_itself():
    image = noise(0, (6, 6, 6))
    np.testing.assert_array_equal(cut(image, (1, 2, 3), (2, 3, 3), (2, 3, 3)), image[1:3, 2:5, 3:6])


def test_voxel_centres_are_aligned_so_that_halving_averages_pairs_and_a_ramp_stays_one():
    ramp = np.arange(0, 800, 100, dtype=np.int16).reshape(1, 1, 8)
    assert cut(ramp, (0, 0, 0), (1, 1, 8), (1, 1, 4)).ravel().tolist() == [50, 250, 450, 650]
    # From 4 to 8: quarters between, the outermost voxels reach over the edge.
    assert cut(ramp, (0, 0, 2), (1, 1, 4), (1, 1, 8)).ravel().tolist() == [
        200,
        225,
        275,
        325,
        375,
        425,
        475,
        500,
    ]


@pytest.mark.parametrize(
    ("corner", "extent"), [((-1, 0, 0), (2, 2, 2)), ((0, 0, 5), (2, 2, 2)), ((5, 0, 0), (2, 1, 1))]
)
def test_a_box_that_leaves_the_image_is_never_cut_short(corner, extent):
    with pytest.raises(ValueError, match="leaves the image"):
        cut(noise(0, (6, 6, 6)), corner, extent, SIZE)


# ------------------------------------------------------------------------------------------ both caches


def test_every_patch_of_both_caches_is_cut_again_from_its_scan_voxel_by_voxel(scans, tmp_path):
    done = make(tmp_path / "out", scans)
    for file, count in (("patterns.h5", done.patterns), ("random.h5", done.random)):
        cache = PatchCache(tmp_path / "out" / file)
        assert len(cache) == count > 0
        for row, patch in zip(cache.rows, cache.read(range(count)), strict=True):
            image = read_resampled(scans / f"{row['scan'].decode()}.h5").image
            np.testing.assert_array_equal(patch, cut(image, row["corner"], row["extent"], SIZE))


@st.composite
def crops_anywhere(draw, shapes) -> np.ndarray:
    """Crops of scans of these shapes: corners and extents anywhere inside, the edges more often than by chance."""
    crops = np.zeros(draw(st.integers(1, 30)), CROP)
    for number, crop in enumerate(crops):
        scan = draw(st.integers(0, len(shapes) - 1))
        crop["pattern"], crop["scan"], crop["patient"] = number, name(scan), f"patient-{scan}"
        crop["split"] = ROWS[scan].split
        for axis, side in enumerate(shapes[scan]):
            extent = draw(st.integers(1, min(side, 8)))
            last = side - extent
            crop["extent"][axis] = extent
            crop["corner"][axis] = draw(st.sampled_from([0, last]) | st.integers(0, last))
    return crops


@given(
    crops=crops_anywhere([(7, 12 + i % 3, 14) for i in range(8)]),
    workers=st.integers(1, 3),
    together=st.integers(1, 5),
)
@settings_of_hypothesis(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_reproduce_their_patches_wherever_they_were_cut(scans, tmp_path, crops, workers, together):
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "BATCH_BYTES", together * 2 * int(np.prod(SIZE)))
        write_caches(
            folder, crops, len(crops), SIZE, *apart(ROWS), scans, patches_settings(), 1, workers
        )  # fmt: skip
    cache = PatchCache(folder / "patterns.h5")
    assert cache.rows["corner"].tolist() == crops["corner"].tolist()
    for row, patch in zip(cache.rows, cache.read(range(len(crops))), strict=True):
        image = read_resampled(scans / f"{row['scan'].decode()}.h5").image
        box = image[tuple(slice(c, c + e) for c, e in zip(row["corner"], row["extent"], strict=True))]
        assert box.shape == tuple(row["extent"])
        np.testing.assert_array_equal(patch, in_single_precision(box, SIZE))
    cache.close()


def test_rows_of_patterns_are_ordered_by_pattern_rank_and_resolution(scans, tmp_path):
    make(tmp_path / "out", scans)
    cache = PatchCache(tmp_path / "out" / "patterns.h5")
    keys = [(r["pattern"], r["split"] == b"validation", r["rank"], r["resolution"]) for r in cache.rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert (cache.patterns, cache.hu_min, cache.hu_max) == (4, -1000, 1000)


def test_random_sub_volumes_are_admissible_distinct_and_as_many_as_asked_for_in_each_scan(scans, tmp_path):
    done = make(tmp_path / "out", scans)
    cache = PatchCache(tmp_path / "out" / "random.h5")
    assert (cache.patterns, done.random, done.warnings) == (0, 6 * 5 + 2 * 2, [])
    assert Counter(cache.rows["scan"].tolist()) == {name(i).encode(): 5 if i < 6 else 2 for i in range(8)}
    assert set(cache.rows["pattern"].tolist()) == set(cache.rows["rank"].tolist()) == {-1}
    for row in ROWS:
        mine = cache.rows[cache.rows["scan"] == row.scan.encode()]
        assert set(mine["split"].tolist()) == {row.split.encode()}
        assert set(mine["patient"].tolist()) == {row.patient.encode()}
        tissue = read_resampled(scans / f"{row.scan}.h5").image >= -150
        places = admissible(tissue, SIZE, patches_settings().rule)
        allowed = {places.corner(number) for number in range(len(places))}
        drawn = [tuple(corner) for corner in mine["corner"].tolist()]
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= allowed


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_any_number_of_workers_and_patches_cut_together_gives_the_same_bytes(
    scans, tmp_path, monkeypatch, compression
):
    make(tmp_path / "one", scans, 1, compression=compression)
    for workers, together in ((2, 1000), (2, 3), (5, 1), (1, 2)):
        monkeypatch.setattr(cutting, "BATCH_BYTES", together * 2 * int(np.prod(SIZE)))
        made = tmp_path / f"{workers}-{together}"
        make(made, scans, workers, compression=compression)
        for file in ("patterns.h5", "random.h5", "metrics.json"):
            assert (tmp_path / "one" / file).read_bytes() == (made / file).read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_memory_is_bounded_by_the_workers_in_scans_and_in_patches(scans, tmp_path, monkeypatch, workers):
    images, batches = [], []
    most = {"images": 0, "batches": 0}

    def alive(references) -> int:
        return sum(reference() is not None for reference in references)

    def watched(path):
        volume = read_resampled(path)
        images.append(weakref.ref(volume.image))
        most["images"] = max(most["images"], alive(images))
        return volume

    def followed(image, corner, extent, size, out):
        if all(reference() is not out.base for reference in batches):
            batches.append(weakref.ref(out.base))
            most["batches"] = max(most["batches"], alive(batches))
        return cut(image, corner, extent, size, out)

    monkeypatch.setattr(cutting, "read_resampled", watched)
    monkeypatch.setattr(cutting, "cut", followed)
    monkeypatch.setattr(cutting, "BATCH_BYTES", 2 * 2 * int(np.prod(SIZE)))
    make(tmp_path / "out", scans, workers, patterns=6, sub_volumes=30)
    assert len(images) == 8
    assert len(batches) > 80
    assert most["images"] <= workers + 1
    assert most["batches"] <= 2 * workers + 1


def test_other_patterns_leave_the_random_sub_volumes_as_they_are(scans, tmp_path):
    make(tmp_path / "few", scans, patterns=2)
    make(tmp_path / "many", scans, patterns=5)
    assert (tmp_path / "few" / "random.h5").read_bytes() == (tmp_path / "many" / "random.h5").read_bytes()
    assert (tmp_path / "few" / "patterns.h5").read_bytes() != (tmp_path / "many" / "patterns.h5").read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_scan_is_opened_once(scans, tmp_path, monkeypatch, workers):
    opened = Counter()

    def counted(path):
        opened[path.stem] += 1
        return read_resampled(path)

    monkeypatch.setattr(cutting, "read_resampled", counted)
    make(tmp_path / "out", scans, workers, patterns=6, sub_volumes=20)
    assert opened == {name(i): 1 for i in range(8)}


def test_every_scan_is_logged_in_the_role_in_which_it_is_cut(scans, tmp_path, monkeypatch):
    said = set()
    monkeypatch.setattr(cutting, "logs", SimpleNamespace(opened=lambda *line: said.add(line)))
    make(tmp_path / "out", scans)
    roles = ["pretrain"] * 6 + ["early_stopping"] * 2
    assert said == {(name(i), role, "pretrain") for i, role in enumerate(roles)}


@pytest.mark.parametrize("rows", [ROWS[:5] + ROWS[6:], [*ROWS[:5], scan_row(5, "validation"), *ROWS[6:]]])
def test_crops_of_a_scan_that_has_not_the_role_are_refused_before_it_is_opened(
    scans, tmp_path, monkeypatch, rows
):
    discovered = discover(in_a_row(6, 2), scans, settings(patterns=6), 1, 1)
    monkeypatch.setattr(cutting, "read_resampled", None)
    message = rf"crops\.csv: pattern \d has a crop of scan {name(5)} for train, .* does not give it; run `dvc repro coord"
    with pytest.raises(InputError, match=message):
        write_caches(
            tmp_path, np.concatenate(discovered.crops), 6, SIZE, *apart(rows), scans, patches_settings(), 1, 1
        )


def test_a_scan_with_fewer_admissible_positions_gives_those_it_has_and_is_counted(scans, tmp_path):
    air = np.full((7, 13, 14), -1000, np.int16)
    air[3, 6, 6] = 0
    write_scan(scans, 1, air)
    rule = {"border": (1, 1, 1), "tissue_hu": -150.0, "tissue_min": 0.04, "tissue_max": 0.9}
    done = make(tmp_path / "out", scans, sub_volumes=40, rule=rule)
    rows = PatchCache(tmp_path / "out" / "random.h5").rows
    corners = rows["corner"][rows["scan"] == name(1).encode()]
    # One voxel of tissue and, by half, the one below it: 1.5 of 32 where the patch holds both, which it does in 16.
    assert sorted(map(tuple, corners.tolist())) == [(2, y, x) for y in range(3, 7) for x in range(3, 7)]
    assert done.random == len(rows) == 5 * 40 + 16 + 2 * 2
    assert done.warnings == [
        "in 1 of 8 scans patches.rule admits fewer positions than sub-volumes are asked for; all of them were taken: "
        f"{name(1)} (16)"
    ]


@pytest.mark.parametrize(("border", "split"), [((3, 1, 1), "6 train"), ((9, 9, 9), "6 train")])
def test_no_admissible_position_anywhere_names_the_rule(scans, tmp_path, border, split):
    rule = {"border": border, "tissue_hu": -150.0, "tissue_min": 0.3, "tissue_max": 0.9}
    with pytest.raises(InputError, match=rf"patches\.rule: no position in any of {split} scans satisfies it"):
        make(tmp_path / "out", scans, rule=rule)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_admissible_position_is_said_with_how_many_each_rule_refused(scans, tmp_path, workers):
    for i in range(6, 8):  # those to stop by: air and bone, 7 x 13 x 14, of which 6 x 10 x 11 corners
        image = np.full((7, 13, 14), -1000, np.int16)
        image[:, :, 7:] = 700
        write_scan(scans, i, image)
    # Of 4 x 8 x 9 corners inside the border, y and z matter nothing. A patch has (x - 3) / 4 of bone where it reaches
    # over 7: x of 1 to 3 none, then 1/4, 1/2, 3/4, and x of 7 to 9 all. None lies between 0.3 and 0.4.
    rule = {"border": (1, 1, 1), "tissue_hu": -150.0, "tissue_min": 0.3, "tissue_max": 0.4}
    with pytest.raises(InputError, match=r"any of 2 validation scans .* at or over -150 HU") as caught:
        make(tmp_path / "out", scans, workers, rule=rule)
    refused = f"border {2 * (660 - 288)}, tissue_min {2 * 4 * 8 * 4}, tissue_max {2 * 4 * 8 * 5}"
    assert f"Of {2 * 660} positions the rules refused: {refused}. Make" in str(caught.value)


def test_scans_clipped_differently_are_refused(scans, tmp_path):
    write_scan(scans, 7, noise(7, (7, 13, 14)), clip=(-1000.0, 900.0))
    with pytest.raises(
        InputError, match=r"must be clipped alike, at \[-1000.0, 1000.0\] HU, got \[-1000.0, 900.0\]"
    ):
        make(tmp_path / "out", scans)


def test_an_error_in_a_scan_read_ahead_is_the_error_of_the_stage(scans, tmp_path):
    discovered = discover(in_a_row(6, 2), scans, settings(patterns=2), 1, 1)
    (scans / f"{name(5)}.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=f"{name(5)}.h5"):
        write_caches(
            tmp_path,
            np.concatenate(discovered.crops),
            2,
            SIZE,
            *apart(ROWS),
            scans,
            patches_settings(),
            1,
            workers=2,
        )
