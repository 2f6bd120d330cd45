"""A method's run on a small cache of four kinds of stripes, which a network of some thousand weights can learn."""

import csv
import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sg import params, pretraining, weights
from sg.errors import InputError
from sg.networks.unet import UNet
from sg.patches import ROW, PatchCache, write_cache
from sg.pretraining import Feed, Pretext, pretrain
from sg.randomness import generator
from sg.stage import load

SHAPE = (8, 16, 16)
PATTERNS = 4


def stripes(pattern: int, rng: np.random.Generator) -> np.ndarray:
    """HU of one patch, int16: waves across z, y or x, or none, at a random phase, with noise."""
    place = np.indices(SHAPE)[pattern] if pattern < 3 else np.zeros(SHAPE)
    waves = np.sin(2 * np.pi * (place / 8 + rng.random()))
    return (700 * waves + rng.normal(0, 60, SHAPE)).clip(-1000, 1000).astype(np.int16)


def write_stripes(path: Path, train: int, validation: int, patterns: int = PATTERNS) -> Path:
    rng = np.random.default_rng(0)
    rows = np.zeros(train + validation, ROW)
    rows["pattern"] = np.arange(len(rows)) % PATTERNS if patterns else -1
    rows["split"] = [b"train"] * train + [b"validation"] * validation
    patches = (stripes(number % PATTERNS, rng) for number in range(len(rows)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cache(
        path,
        rows,
        enumerate(patches),
        hu_min=-1000.0,
        hu_max=1000.0,
        patterns=patterns,
        patch_size=SHAPE,
        compression="none",
    )
    return path


ELASTIC = params.Elastic(effect="elastic", weight=1.0, alpha=991.0, sigma=8.0)
SHUFFLE = params.Shuffle(effect="shuffle", weight=1.0, windows=5)
INPAINT = params.Inpaint(effect="inpaint", weight=1.0, boxes=1, again=0.0)
FLIP = params.Flip(effect="flip", weight=1.0, again=0.4, most=3)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder of one's own with both caches, to which paths are relative."""
    monkeypatch.chdir(tmp_path)
    write_stripes(Path("data/patches/patterns.h5"), train=32, validation=12)
    write_stripes(Path("data/patches/random.h5"), train=32, validation=12, patterns=0)
    return tmp_path


def shared(epochs: int = 2, **changes) -> params.PretrainShared:
    training = params.Training(
        epochs=epochs,
        batch=8,
        learning_rate=0.01,
        step_epochs=100,
        patience=epochs,
        threads=1,
        accelerator="cpu",
        precision="32-true",
    )
    network = params.Network(**{"width": 4, "depth": 3, "norm": "batch", **changes})
    return params.PretrainShared(network=network, training=training)


def recipe(
    restoration: float, classification: float, steps=None, reads: str = "data/patches/patterns.h5"
) -> params.MethodRecipe:
    return params.MethodRecipe(
        reads=reads,
        losses=params.Losses(restoration=restoration, classification=classification),
        perturbations=[params.Step(p=1.0, one_of=[ELASTIC]), params.Step(p=1.0, one_of=[SHUFFLE, INPAINT])]
        if steps is None
        else steps,
    )


def run(
    method: str,
    settings: params.PretrainShared,
    rules: params.MethodRecipe,
    seed: int = 1,
    workers: int = 2,
    name="",
    clip=(-1000.0, 1000.0),
):
    folder = Path("made", name or method)
    folder.mkdir(parents=True)
    done = pretrain(
        method,
        settings,
        rules,
        seed,
        clip=clip,
        state=Path("state", name or method),
        folder=folder,
        workers=workers,
    )
    return done, folder


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def history(folder: Path) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------ learning


def test_restoration_and_classification_are_learned_and_everything_is_written():
    done, folder = run("both", shared(epochs=8), recipe(1.0, 0.5))
    rows = history(folder)
    assert rows[-1]["train"] < 0.8 * rows[0]["train"]
    assert min(row["validation_restoration"] for row in rows) < rows[0]["validation_restoration"]
    # Chance is 1 in 4.
    assert max(row["validation_accuracy"] for row in rows) > 0.6
    for row in rows:
        assert row["train"] == pytest.approx(
            row["train_restoration"] + 0.5 * row["train_classification"], rel=1e-5
        )
    assert weights.read_card(folder) == {
        "method": "both",
        "network": {"architecture": "unet", "channels_in": 1, "width": 4, "depth": 3, "norm": "batch"},
        "hu_min": -1000.0,
        "hu_max": 1000.0,
        "patch_size": list(SHAPE),
        "patterns": PATTERNS,
        "losses": {"restoration": 1.0, "classification": 0.5},
        "epochs": 8,
        "best_epoch": done.fitted.best_epoch,
        "best_validation": done.fitted.best_validation,
        "parameters": done.parameters,
    }
    assert done.fitted.best_validation == min(row["validation"] for row in rows)
    tensors = load_file(folder / "weights.safetensors")
    network = UNet(shared().network)
    assert set(network.state_dict()) == {name for name in tensors if not name.startswith("head.")}
    assert weights.load_into(network, folder) == len(network.state_dict())
    model = Pretext(shared().network, params.Losses(restoration=1.0, classification=0.5), PATTERNS)
    assert done.parameters == sum(tensor.numel() for tensor in model.parameters())

    with h5py.File(folder / "examples.h5") as file:
        examples = {name: file[name][...] for name in file}
    assert {name: (array.dtype, array.shape) for name, array in examples.items()} == dict.fromkeys(
        ("original", "perturbed", "restored"), (np.dtype("f4"), (4, *SHAPE))
    )
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(examples["perturbed"][:, None]))
    np.testing.assert_allclose(examples["restored"], torch.sigmoid(logits)[:, 0], atol=1e-5)


def test_a_method_that_only_classifies_does_not_run_the_decoder_and_leaves_it_out(monkeypatch):
    monkeypatch.setattr(UNet, "decode", lambda *_: pytest.fail("the decoder ran"))
    done, folder = run("classes", shared(), recipe(0.0, 1.0))
    names = set(load_file(folder / "weights.safetensors"))
    assert {name.split(".")[0] for name in names} == {"encoder", "head"}
    assert set(history(folder)[0]) >= {"train_classification", "validation_accuracy"}
    assert "train_restoration" not in history(folder)[0]
    with h5py.File(folder / "examples.h5") as file:
        assert set(file) == {"original", "perturbed"}
    model = Pretext(shared().network, params.Losses(restoration=0.0, classification=1.0), PATTERNS)
    assert done.parameters == sum(
        t.numel() for n, t in model.named_parameters() if "decoder" not in n and ".out." not in n
    )


def test_a_method_that_only_restores_needs_no_patterns_and_has_no_head():
    _, folder = run(
        "restores",
        shared(),
        recipe(1.0, 0.0, [params.Step(p=0.5, one_of=[FLIP])], reads="data/patches/random.h5"),
    )
    assert not [name for name in load_file(folder / "weights.safetensors") if name.startswith("head.")]
    assert weights.read_card(folder)["patterns"] == 0
    with h5py.File(folder / "examples.h5") as file:
        # A flip turns the original along with the perturbed patch.
        np.testing.assert_array_equal(file["original"][...], file["perturbed"][...])


def test_all_methods_start_from_the_same_network_and_each_from_its_own_head(monkeypatch):
    started = {}

    def fit(model, *_, history, what, **__):
        started[what] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return pretraining.Fitted(1, 1, 0.5)

    monkeypatch.setattr(pretraining, "fit", fit)
    for method, rules in (
        ("one", recipe(1.0, 0.01)),
        ("two", recipe(0.0, 1.0)),
        ("three", recipe(1.0, 0.0, [], "data/patches/random.h5")),
    ):
        run(method, shared(), rules)
    one, two, three = started["one"], started["two"], started["three"]
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("unet."))
    assert all(torch.equal(one[name], tensor) for name, tensor in three.items())
    assert not torch.equal(one["head.classification.linear.weight"], two["head.classification.linear.weight"])
    run("one", shared(), recipe(1.0, 0.01), seed=2, name="other seed")
    assert not torch.equal(started["one"]["unet.out.weight"], one["unet.out.weight"])


# ------------------------------------------------------------------------------------------- batches


def feed(workers: int = 2, batch: int = 8, method: str = "m", seed: int = 1) -> Feed:
    return Feed(
        PatchCache(Path("data/patches/patterns.h5")),
        method,
        seed,
        tuple(recipe(1, 0).perturbations),
        batch,
        workers,
    )


def joined(batches) -> dict[str, np.ndarray]:
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_an_epoch_shows_every_training_patch_once_in_another_order_each_time():
    cache = PatchCache(Path("data/patches/patterns.h5"))
    expected = (cache.read(np.arange(32)).astype(float) + 1000) / 2000
    orders = []
    for epoch in (0, 1):
        target = joined(feed().batches(epoch))["target"][:, 0]
        order = [int(np.argmin(np.abs(expected - patch).sum((1, 2, 3)))) for patch in target]
        assert sorted(order) == list(range(32))
        np.testing.assert_allclose(target, expected[order], atol=1e-6)
        np.testing.assert_array_equal(joined(feed().batches(epoch))["pattern"], cache.rows["pattern"][order])
        orders.append(order)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_batches_do_not_depend_on_the_workers_and_are_the_same_again():
    first = joined(feed(workers=1).batches(3))
    for other in (feed(workers=5), feed(workers=1)):
        for name, array in joined(other.batches(3)).items():
            np.testing.assert_array_equal(array, first[name])


def test_a_patch_is_perturbed_by_its_epoch_and_row_however_the_batches_are_cut():
    order = generator(1, "pretrain", "m", "epoch 0 order").permutation(32)
    in_eights, in_fives = (joined(feed(batch=batch).batches(0))["perturbed"] for batch in (8, 5))
    np.testing.assert_array_equal(in_eights, in_fives)
    np.testing.assert_array_equal(in_eights[3:4], feed().make(order[3:4], "epoch 0")["perturbed"])
    assert not np.array_equal(in_eights[3:4], feed().make(order[3:4], "epoch 1")["perturbed"])
    assert not np.array_equal(in_eights, joined(feed(method="n").batches(0))["perturbed"])
    assert not np.array_equal(in_eights, joined(feed(seed=2).batches(0))["perturbed"])


def test_validation_is_perturbed_and_the_same_every_time():
    one = feed()
    first, second = joined(one.validation()), joined(one.validation())
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert len(first["target"]) == 12
    assert not any(np.array_equal(*pair) for pair in zip(first["perturbed"], first["target"], strict=True))


def test_a_last_patch_alone_joins_the_batch_before():
    sizes = [len(batch["pattern"]) for batch in feed(batch=31).batches(0)]
    assert sizes == [32]
    sizes = [len(batch["pattern"]) for batch in feed(batch=10).batches(0)]
    assert sizes == [10, 10, 10, 2]


def test_batches_left_half_used_end_their_threads():
    batches = feed().batches(0)
    next(batches)
    batches.close()
    assert next(iter(feed().validation()))["perturbed"].shape == (8, 1, *SHAPE)


# ----------------------------------------------------------------------------------------- bad input


def test_a_depth_that_the_patches_do_not_halve_to_is_refused_with_the_numbers():
    with pytest.raises(
        InputError,
        match=r"every side .* multiple of 16, because .*depth is 5, got \(8, 16, 16\)",
    ):
        run("deep", shared(depth=5), recipe(1.0, 0.0))


@pytest.mark.parametrize(("train", "validation", "split"), [(8, 0, "validation"), (0, 8, "train")])
def test_a_cache_without_a_split_is_refused_with_what_to_do(train, validation, split):
    write_stripes(Path("data/patches/patterns.h5"), train, validation)
    with pytest.raises(
        InputError, match=f"patches of {split} patients, got none among 8; see .* cohort.splits"
    ):
        run("lacking", shared(), recipe(1.0, 0.0))


def test_classifying_without_patterns_is_refused():
    write_stripes(Path("data/patches/patterns.h5"), 8, 8, patterns=0)
    with pytest.raises(
        InputError, match=r"at least 2 patterns, numbered from 0, got 0 with numbers -1 to -1"
    ):
        run("unlabelled", shared(), recipe(1.0, 0.01))


def test_a_cache_clipped_to_another_range_than_the_study_is_refused_with_both():
    with pytest.raises(
        InputError, match=r"patterns\.h5: .* to -1000 to 400 HU, got -1000 to 1000; run `dvc repro patches`"
    ):
        run("dark", shared(), recipe(1.0, 0.01), clip=(-1000.0, 400.0))


@pytest.mark.parametrize(
    ("patterns", "splits", "depth", "clip", "said"),
    [
        (0, (8, 8), 2, (-1000.0, 1000.0), "at least 2 patterns, .* got 0 .*; take a cache of patterns or set losses"),
        (4, (8, 8), 5, (-1000.0, 1000.0), r"multiple of 16, .* got \(8, 16, 16\); change the depth"),
        (4, (8, 8), 2, (-1000.0, 400.0), "set resample.hu_min and resample.hu_max to -1000 and 1000, or take another"),
        (4, (8, 0), 2, (-1000.0, 1000.0), "patches of validation patients, got none among 8; take a cache"),
    ],
)  # fmt: skip
def test_a_cache_brought_along_is_named_and_no_parameter_of_discovery_blamed(
    patterns, splits, depth, clip, said
):
    brought = write_stripes(Path("imports/theirs.h5"), *splits, patterns=patterns)
    with pytest.raises(InputError, match=f"^imports/theirs.h5: .*{said}") as caught:
        run("brought", shared(depth=depth), recipe(1.0, 0.01, reads=str(brought)), clip=clip)
    assert "coordinates" not in str(caught.value)


def test_a_damaged_patch_stops_the_method_and_is_named():
    path = Path("data/patches/patterns.h5")
    damaged = PatchCache(path).read([20]).tobytes()
    content = path.read_bytes()
    at = content.index(damaged)
    path.write_bytes(content[: at + 10] + b"\xff" + content[at + 11 :])
    with pytest.raises(InputError, match=r"patterns.h5: the patch of row 20 .* damaged"):
        run("damaged", shared(), recipe(1.0, 0.0))


# ----------------------------------------------------------------------------------------- the stage


def test_a_stage_killed_and_taken_up_again_gives_the_bytes_of_an_uninterrupted_run(project, monkeypatch):
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(
        text.replace("epochs: 2\n      batch: 8", "epochs: 8\n      batch: 8", 1)
    )
    monkeypatch.chdir(project.root)
    study = load()
    assert study.pretrain.shared.training.epochs == 8
    method, rules = "semantic-genesis", study.pretrain.recipes["semantic-genesis"]
    write_stripes(Path(rules.reads), train=48, validation=12)

    process = subprocess.Popen([sys.executable, "stages/pretrain.py", method], env=project.environment())
    while process.poll() is None and not (found := list(Path(".state").glob("*/*/training.pt"))):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not Path("data/pretrain").exists()
    done_before = len(torch.load(found[0], weights_only=True)["rows"])
    assert 0 < done_before < 8

    for folder, state in (("again", found[0].parent), ("whole", Path("other-state"))):
        Path(folder).mkdir()
        pretrain(
            method,
            study.pretrain.shared,
            rules,
            study.seed,
            clip=(study.resample.hu_min, study.resample.hu_max),
            state=state,
            folder=Path(folder),
            workers=1,
        )
    assert digests(Path("again")) == digests(Path("whole"))
    assert set(digests(Path("whole"))) == {"weights.safetensors", "card.json", "history.csv", "examples.h5"}
