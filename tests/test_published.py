"""`sg patches import`: the authors' arrays, made here as their code writes them, become a cache or are refused in words."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sg import params, published
from sg.errors import InputError
from sg.patches import PatchCache
from sg.pretraining import pretrain
from sg.published import write_published
from sg.soundness import damaged_patches, structure
from tests.networks.sizes import network
from tests.test_cli import sg

SIZE = (16, 16, 8)  # x, y, z
TRAIN, LABEL = "train_data1_vwGen_ex_ref_fold1.0.npy", "train_label1_vwGen_ex_ref_fold1.0.npy"
CLASSES, NEIGHBOURS, STOPPING = 3, 5, 2


def write_arrays(
    folder: Path, folds: int = 1, dtype=np.float64, lost: int = 1, suffix: str = ".0"
) -> dict[str, np.ndarray]:
    """The arrays of so many folds; the last patch of each fold is lost. HU (n, x, y, z) by file name."""
    folder.mkdir(exist_ok=True)
    rng, hu = np.random.default_rng(1), {}
    for fold in range(folds):
        classes = np.arange(fold * CLASSES, (fold + 1) * CLASSES)
        for kind, crops, many in (("train", (1, 2, 3), NEIGHBOURS), ("val", (1,), STOPPING)):
            for crop in crops:
                labels = np.repeat(classes, many)
                labels = labels[: len(labels) - lost]
                whole = rng.integers(-1000, 1001, (len(labels), *SIZE))
                end = f"{crop}_vwGen_ex_ref_fold{fold + 1}{suffix}.npy"
                np.save(folder / f"{kind}_data{end}", ((whole + 1000) / 2000).astype(dtype))
                np.save(folder / f"{kind}_label{end}", labels[:, None].astype(dtype))
                hu[f"{kind}_data{end}"] = whole
    return hu


def edit(path: Path, change) -> None:
    np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("dtype", "lost", "suffix"), [(np.float64, 1, ".0"), (np.float32, 0, ""), (">f8", 1, ".0")]
)
def test_every_patch_comes_back_in_hu_with_its_class(tmp_path, dtype, lost, suffix):
    hu = write_arrays(tmp_path / "in", folds=2, dtype=dtype, lost=lost, suffix=suffix)
    done = write_published(tmp_path / "in", tmp_path / "c.h5")
    train, stopping = CLASSES * NEIGHBOURS - lost, CLASSES * STOPPING - lost
    assert (done.patches, done.validation, done.patterns) == (2 * (3 * train + stopping), 2 * stopping, 6)
    cache = PatchCache(tmp_path / "c.h5")
    assert (cache.patch_size, cache.hu_min, cache.hu_max, cache.patterns) == (SIZE[::-1], -1000, 1000, 6)
    expected = np.concatenate([hu[name] for name in sorted(hu)]).transpose(0, 3, 2, 1)
    found = cache.read(range(len(cache)))
    by_bytes = sorted(patch.tobytes() for patch in expected.astype(np.int16))
    assert sorted(patch.tobytes() for patch in found) == by_bytes
    # Fold 2, jittered crop 3: the classes go on, the crop is resolution 2
    rows = cache.rows
    at = np.flatnonzero((rows["pattern"] == 4) & (rows["resolution"] == 2))
    np.testing.assert_array_equal(rows["rank"][at], range(NEIGHBOURS))
    source = hu[f"train_data3_vwGen_ex_ref_fold2{suffix}.npy"][NEIGHBOURS : 2 * NEIGHBOURS]
    np.testing.assert_array_equal(cache.read(at), source.transpose(0, 3, 2, 1))


def test_rows_tell_what_the_arrays_tell_and_leave_the_rest_open(tmp_path):
    write_arrays(tmp_path / "in")
    write_published(tmp_path / "in", tmp_path / "c.h5")
    rows = PatchCache(tmp_path / "c.h5").rows
    assert set(rows["scan"].tolist()) == set(rows["patient"].tolist()) == {b""}
    assert (rows["corner"] == -1).all()
    z, y, x = SIZE[::-1]
    assert np.unique(rows["extent"][rows["resolution"] == 0], axis=0).tolist() == [[z, y, x]]
    assert np.unique(rows["extent"][rows["resolution"] > 0], axis=0).tolist() == [[z, -1, -1]]
    stopping = rows[rows["split"] == b"validation"]
    assert stopping["rank"].tolist() == [1, 2, 1, 2, 1]
    assert set(stopping["resolution"].tolist()) == {0}


def test_the_rank_stays_open_where_classes_are_mixed(tmp_path):
    write_arrays(tmp_path / "in")
    edit(tmp_path / "in" / LABEL, lambda labels: np.arange(len(labels))[:, None] % 3)
    write_published(tmp_path / "in", tmp_path / "c.h5")
    rows = PatchCache(tmp_path / "c.h5").rows
    mixed = (rows["split"] == b"train") & (rows["resolution"] == 0)
    assert set(rows["rank"][mixed].tolist()) == {-1}
    assert rows["rank"][~mixed].min() == 0


def test_an_imported_cache_is_sound_and_a_method_trains_from_it(tmp_path, monkeypatch):
    write_arrays(tmp_path / "in", folds=2)
    monkeypatch.chdir(tmp_path)
    Path("imports").mkdir()
    path = Path("imports/theirs.h5")
    done = write_published(tmp_path / "in", path)
    assert structure(path) == (done.patches, {})
    assert damaged_patches(path, 0, done.patches) == {}
    training = params.Training(
        epochs=1, batch=16, learning_rate=0.01, step_epochs=9, patience=1, threads=1, accelerator="cpu",
        precision="32-true",
    )  # fmt: skip
    recipe = params.MethodRecipe(
        reads=str(path), losses=params.Losses(restoration=1.0, classification=0.01), perturbations=[]
    )
    Path("made").mkdir()
    learned = pretrain(
        "published", params.PretrainShared(network=network(), training=training), recipe, 1,
        clip=(-1000.0, 1000.0), state=Path("state"), folder=Path("made"), workers=1,
    )  # fmt: skip
    assert learned.fitted.epochs == 1
    assert Path("made/weights.safetensors").is_file()


@given(
    hu=arrays(np.int16, array_shapes(min_dims=1, max_dims=1, max_side=50), elements=st.integers(-1000, 1000))
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_hu_survive_scaling_to_the_unit_range_and_back(hu, dtype, tmp_path_factory):
    folder = tmp_path_factory.mktemp("law")
    np.save(folder / "data.npy", (((hu + 1000.0) / 2000).astype(dtype)).reshape(1, 1, 1, -1))
    np.save(folder / "label.npy", np.zeros((1, 1)))
    part = published._part(folder / "data.npy", folder / "label.npy", b"train", 0)
    (patch,) = published._patches(part)
    np.testing.assert_array_equal(patch.ravel(), hu)


def test_values_that_rounding_put_just_outside_are_taken_and_others_are_not(tmp_path):
    write_arrays(tmp_path / "in")
    name = "train_data2_vwGen_ex_ref_fold1.0.npy"
    for value, fine in (
        (1 + 1e-9, True),
        (-1e-9, True),
        (1.001, False),
        (-0.5, False),
        (np.nan, False),
        (np.inf, False),
    ):

        def put(array, value=value):
            array[7, 3, 2, 1] = value
            return array

        edit(tmp_path / "in" / name, put)
        if fine:
            write_published(tmp_path / "in", tmp_path / "c.h5")
        else:
            with pytest.raises(
                InputError, match=rf"{name}: values must be .* row 7 at voxel \(3, 2, 1\), the first of 1"
            ):
                write_published(tmp_path / "in", tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (LABEL, lambda a: a[:-1], r"one label for each of the 14 patches of train_data1.*got \(13, 1\)"),
        (LABEL, lambda a: a + 0.5, r"label must be a whole number .* got 0\.5 in row 0"),
        (LABEL, lambda a: a * np.nan, r"label must be a whole number .* got nan in row 0"),
        (LABEL, lambda a: a - 1, r"label must be a whole number .* got -1\.0 in row 0"),
        (LABEL, lambda a: a.astype("U3"), "labels must be numbers, got <U3"),
        (LABEL, lambda a: a * 2, "class|classes of training patches must run from 0"),
        ("val_label1_vwGen_ex_ref_fold1.0.npy", lambda a: a + 1, "class 3 must have training patches too"),
        (
            TRAIN,
            lambda a: a[..., 0],
            r"patches must be float32 or float64 \(n, x, y, z\).* got float64 \(14, 16, 16\)",
        ),
        (TRAIN, lambda a: a[:0], r"got float64 \(0, 16, 16, 8\)"),
        (TRAIN, lambda a: a.astype(np.float16), "got float16"),
        (TRAIN, lambda a: (a * 255).astype(np.uint8), "got uint8"),
        (TRAIN, lambda a: a.astype(object), "not a whole .npy file of numbers"),
        (TRAIN, lambda a: a[:, :8], r"all patches must have one size, \(8, 16, 8\).* got \(16, 16, 8\)"),
    ],
)
def test_arrays_of_another_kind_or_that_disagree_are_refused_with_name_and_numbers(
    tmp_path, name, change, words
):
    write_arrays(tmp_path / "in")
    edit(tmp_path / "in" / name, change)
    with pytest.raises(InputError, match=words):
        write_published(tmp_path / "in", tmp_path / "c.h5")


@pytest.mark.parametrize("name", [TRAIN, LABEL])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999, 1.01])
def test_an_array_that_was_cut_or_goes_on_is_refused(tmp_path, name, share):
    write_arrays(tmp_path / "in")
    path = tmp_path / "in" / name
    whole = path.read_bytes()
    path.write_bytes((whole + bytes(len(whole)))[: int(share * len(whole))])
    with pytest.raises(InputError, match=name):
        write_published(tmp_path / "in", tmp_path / "c.h5")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("change", [-1000, -1, 1])
def test_a_length_that_the_header_does_not_account_for_is_said_with_both_numbers(tmp_path, version, change):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.zeros((20, 30)), version)
    whole = path.read_bytes()
    path.write_bytes((whole + b"x")[: len(whole) + change])
    words = rf"a\.npy: its header accounts for {len(whole)} bytes, the file has {len(whole) + change};"
    with pytest.raises(InputError, match=words):
        published._mapped(path)


@given(data=st.data())
def test_no_damage_of_a_header_is_more_than_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("header")
    np.save(folder / "a.npy", np.zeros((2, 3)))
    whole = bytearray((folder / "a.npy").read_bytes())
    for at in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=3)):
        whole[at] = data.draw(st.integers(0, 255))
    (folder / "a.npy").write_bytes(whole)
    with suppress(InputError):
        published._mapped(folder / "a.npy")


def test_what_is_missing_is_named(tmp_path):
    folder = tmp_path / "in"
    with pytest.raises(InputError, match="in: there is no such folder"):
        write_published(folder, tmp_path / "c.h5")
    write_arrays(folder, folds=2)
    (folder / LABEL).rename(tmp_path / LABEL)
    with pytest.raises(InputError, match=rf"{TRAIN}: its labels must lie beside it, there is no {LABEL}"):
        write_published(folder, tmp_path / "c.h5")
    (tmp_path / LABEL).rename(folder / LABEL)
    for crop in (1, 2, 3):
        for what in ("data", "label"):
            (folder / f"train_{what}{crop}_vwGen_ex_ref_fold1.0.npy").unlink()
    with pytest.raises(InputError, match="must run from 0 without a gap, 0 is missing below 5"):
        write_published(folder, tmp_path / "c.h5")
    for path in folder.glob("val*"):
        path.unlink()
    with pytest.raises(InputError, match="to stop by, got no val_data1"):
        write_published(folder, tmp_path / "c.h5")


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    write_arrays(tmp_path / "in")
    (tmp_path / "in" / TRAIN).rename(tmp_path / "elsewhere.npy")
    (tmp_path / "in" / TRAIN).symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(InputError, match="leads out of the data folder"):
        write_published(tmp_path / "in", tmp_path / "c.h5")


def test_memory_does_not_grow_with_the_arrays(tmp_path):
    write_arrays(tmp_path / "in")
    for kind, count in (("train", 800), ("val", 1)):
        np.save(
            tmp_path / "in" / f"{kind}_data1_vwGen_ex_ref_fold1.0.npy",
            np.zeros((count, 64, 64, 32), np.float32),
        )
        np.save(tmp_path / "in" / f"{kind}_label1_vwGen_ex_ref_fold1.0.npy", np.zeros(count))
    for path in (tmp_path / "in").glob("train_*[23]_*"):
        path.unlink()
    tracemalloc.start()
    write_published(tmp_path / "in", tmp_path / "c.h5")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20  # of 420 MB


def test_the_command_writes_the_cache_whole_or_not_at_all(tmp_path):
    write_arrays(tmp_path / "in")
    (tmp_path / "in" / "other.npy").write_bytes(b"")
    done = sg("patches", "import", "in", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "in/patterns.h5: 47 patches of 8 x 16 x 16 voxels (z, y, x) in 3 patterns, 5 of them for validation\n"
    )
    assert "1 other .npy files in in are none of the authors' arrays" in done.stderr
    first = (tmp_path / "in" / "patterns.h5").read_bytes()
    done = sg("patches", "import", "in", cwd=tmp_path)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    edit(tmp_path / "in" / "val_data1_vwGen_ex_ref_fold1.0.npy", lambda array: array * np.nan)
    done = sg("patches", "import", "in", "--force", cwd=tmp_path)
    assert done.returncode == 2
    assert "val_data1_vwGen_ex_ref_fold1.0.npy: values must be numbers" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "in" / "patterns.h5").read_bytes() == first
    assert not list((tmp_path / "in").glob(".*"))
