"""Trials: paired across initializations, equal bytes again and after SIGKILL, and what is refused."""

import csv
import hashlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from sg.errors import InputError
from sg.storage import open_h5
from sg.targets import finetuning
from sg.targets.learning import soft_dice_loss, work_of
from sg.targets.taskfile import TaskFile
from sg.weights import read_card
from tests.closure import ROOT
from tests.targets import samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both task files, and the folders of two initializations."""
    root = tmp_path_factory.mktemp("made")
    samples.classification(root / "ncc.h5")
    samples.segmentation(root / "lcs.h5")
    samples.scratch(root / "scratch")
    samples.method(root / "pretrained")
    return root


def run(made, task, initialization, out, trials=2, **settings):
    out.mkdir(parents=True)
    facts = finetuning.finetune(
        made / f"{task}.h5",
        initialization,
        made / initialization,
        trials,
        samples.training(**settings),
        1,
        state=out.with_name(out.name + "-state"),
        folder=out,
    )
    return out, facts


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Live metrics go to logs/ of the working directory."""
    monkeypatch.chdir(tmp_path)


def digests(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def series_of(made, task, initialization):
    settings = samples.training()
    return finetuning.Series(
        task,
        work_of(task),
        initialization,
        made / initialization,
        samples.NETWORK,
        settings,
        1,
        2,
        made / "state",
    )


def test_trials_of_two_initializations_share_batches_and_head_and_nothing_else(made):
    with TaskFile(made / "ncc.h5") as task:
        scratch, other = series_of(made, task, "scratch"), series_of(made, task, "pretrained")
        for first, second in zip(
            finetuning.batches(scratch, 1, 0), finetuning.batches(other, 1, 0), strict=True
        ):
            assert all(np.array_equal(first[name], second[name]) for name in first)
        first, second = finetuning.start(scratch, 1).state_dict(), finetuning.start(other, 1).state_dict()
    equal = {name for name in first if torch.equal(first[name], second[name])}
    assert {"classify.0.weight", "classify.0.bias"} <= equal
    assert not any(name.endswith("conv.weight") for name in equal)


def test_trials_and_epochs_have_orders_of_their_own(made):
    with TaskFile(made / "ncc.h5") as task:
        series = series_of(made, task, "scratch")
        orders = [
            np.concatenate(
                [batch["x"].sum(axis=(1, 2, 3, 4)) for batch in finetuning.batches(series, trial, epoch)]
            )
            for trial, epoch in ((0, 0), (0, 1), (1, 0))
        ]
        heads = [finetuning.start(series, trial).classify[0].weight for trial in (0, 1)]
    assert all(np.allclose(np.sort(orders[0]), np.sort(order)) for order in orders)  # the same patches
    assert not np.allclose(orders[0], orders[1])
    assert not np.allclose(orders[0], orders[2])
    assert not torch.equal(*heads)


def test_scratch_draws_other_weights_in_every_trial_and_a_method_the_same_encoder(made):
    with TaskFile(made / "lcs.h5") as task:
        for name, same in (("scratch", False), ("pretrained", True)):
            series = series_of(made, task, name)
            first, second = (finetuning.start(series, trial).state_dict() for trial in (0, 1))
            weights = "encoder.levels.0.first.conv.weight"
            assert torch.equal(first[weights], second[weights]) == same
            assert not torch.equal(first["out.weight"], second["out.weight"])


def test_the_dice_loss_is_the_published_formula():
    rng = np.random.default_rng(3)
    logits, truth = rng.normal(size=(3, 1, 2, 4, 4)), (rng.random((3, 1, 2, 4, 4)) < 0.3).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    got = soft_dice_loss()(torch.from_numpy(logits), torch.from_numpy(truth))
    assert float(got) == pytest.approx(expected)


def test_flips_keep_the_voxels_and_the_label(made):
    with TaskFile(made / "ncc.h5") as task:
        work, some = work_of(task), np.arange(8)
        plain, flipped = work.batch(some, None), work.batch(some, np.random.default_rng(0))
    assert not np.array_equal(plain["x"], flipped["x"])
    assert np.array_equal(plain["label"], flipped["label"])
    for one, other in zip(plain["x"], flipped["x"], strict=True):
        assert np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
        assert any(np.array_equal(np.flip(one, axes), other) for axes in _all_axes())


def _all_axes():
    return [tuple(axis for axis in (1, 2, 3) if bits >> axis & 1) for bits in range(0, 16, 2)]


@pytest.mark.parametrize(("task", "initialization"), [("ncc", "pretrained"), ("lcs", "scratch")])
def test_a_second_run_gives_equal_bytes(made, tmp_path, task, initialization):
    first, facts = run(made, task, initialization, tmp_path / "first")
    second, _ = run(made, task, initialization, tmp_path / "second")
    assert digests(first) == digests(second)
    assert set(digests(first)) == {
        *("trials.csv", "history.csv", "predictions.h5", "best/card.json", "best/weights.safetensors")
    }
    assert facts.startswith(f"2 trials of {task} from {initialization}: validation loss ")


def test_predictions_are_of_the_test_patients_with_their_truth(made, tmp_path):
    out, _ = run(made, "ncc", "scratch", tmp_path / "out")
    with open_h5(out / "predictions.h5") as file, TaskFile(made / "ncc.h5") as task:
        rows = task.rows[task.of_split("test")]
        assert np.array_equal(file["truth"][...], rows["label"])
        assert np.array_equal(file["scan"][...], rows["scan"])
        assert np.array_equal(file["patient"][...], rows["patient"])
        assert file["scores"].shape == (2, len(rows))
        assert file["scores"].dtype == np.float32
        assert dict(file.attrs) == {
            **{"task": "ncc", "kind": "nodule-classification", "metric": "AUC"},
            **{"initialization": "scratch", "trials": 2},
        }


def test_segmentations_are_of_whole_test_scans_with_their_truth(made, tmp_path):
    out, _ = run(made, "lcs", "pretrained", tmp_path / "out")
    with open_h5(out / "predictions.h5") as file, TaskFile(made / "lcs.h5") as task:
        assert sorted(file) == task.test_scans()
        for scan in file:
            assert np.array_equal(file[scan]["truth"][...], task.volume(scan, "truth"))
            assert file[scan]["predicted"].shape == (2, 8, 12, 12)
            assert str(file[scan].attrs["patient"]) == task.patient(scan)


def test_what_can_be_learned_is_learned(made, tmp_path):
    out, _ = run(made, "ncc", "scratch", tmp_path / "ncc", trials=1, epochs=12, patience=12, batch=4)
    with open_h5(out / "predictions.h5") as file:
        truth, scores = file["truth"][...].astype(bool), file["scores"][0]
    assert scores[truth].min() > scores[~truth].max()


def test_best_is_the_trial_with_the_smallest_validation_loss(made, tmp_path):
    out, _ = run(made, "ncc", "scratch", tmp_path / "out", trials=3)
    with open(out / "trials.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    best = min(trials, key=lambda row: float(row["best_validation"]))
    card = read_card(out / "best")
    assert card["trial"] == int(best["trial"])
    assert card["best_validation"] == float(best["best_validation"])
    assert [row["trial"] for row in trials] == ["0", "1", "2"]
    with open(out / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in trials:
        mine = [float(one["validation"]) for one in rows if one["trial"] == row["trial"]]
        assert len(mine) == int(row["epochs"])
        assert min(mine) == float(row["best_validation"])


KILLED = """
import sys
from pathlib import Path
from tests.targets import samples
from sg.targets.finetuning import finetune
made, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(exist_ok=True)
finetune(made / "ncc.h5", "pretrained", made / "pretrained", 2, samples.training(epochs=12, patience=12), 1,
         state=out.with_name("state"), folder=out)
"""


def test_trials_killed_midway_go_on_to_equal_bytes(made, tmp_path):
    settings = {"trials": 2, "epochs": 12, "patience": 12}
    whole, _ = run(made, "ncc", "pretrained", tmp_path / "whole", **settings)
    state, out = tmp_path / "state", tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(made), str(out)], cwd=ROOT)
    # one trial finished, the second in the middle of its epochs
    deadline = time.monotonic() + 60
    while not (state / "training-1" / "training.pt").exists() and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (state / "trial-0").is_dir()
    assert not (out / "trials.csv").exists()
    finetuning.finetune(
        made / "ncc.h5",
        "pretrained",
        made / "pretrained",
        2,
        samples.training(epochs=12, patience=12),
        1,
        state=state,
        folder=out,
    )
    assert digests(out) == digests(whole)


def test_weights_of_another_architecture_or_range_are_refused(made, tmp_path):
    cases = {
        "other": (
            {"network": {"architecture": "i3d"}},
            "network.architecture: must be unet to be fine-tuned, got 'i3d'",
        ),
        "range": ({"hu_max": 400.0}, r"hu_max: must be that of .*ncc.h5 \(1000\), got 400"),
    }
    for name, (change, message) in cases.items():
        weights = samples.method(tmp_path / name, **change)
        with pytest.raises(InputError, match=message):
            finetuning.finetune(
                made / "ncc.h5",
                name,
                weights,
                1,
                samples.training(),
                1,
                state=tmp_path / "s",
                folder=tmp_path,
            )


def test_a_damaged_patch_is_named(made, tmp_path):
    path = samples.classification(tmp_path / "ncc.h5")
    content = bytearray(path.read_bytes())
    with TaskFile(path) as task:
        patch = task.patches([0]).tobytes()
    content[content.index(patch)] ^= 1
    path.write_bytes(content)
    with (
        TaskFile(path) as task,
        pytest.raises(InputError, match=r"ncc.h5: damaged: a stored block fails its checksum"),
    ):
        task.patches([0])
