from __future__ import annotations

import csv
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from sg.errors import InputError
from sg.networks.initial import initialize
from sg.networks.unet import UNet
from sg.params import Network, Training
from sg.training import Fitted, fit, index_batches
from sg.weights import save_tensors
from tests.closure import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Live curves go below the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**changed: object) -> Training:
    plain = {
        "epochs": 4,
        "batch": 2,
        "learning_rate": 0.01,
        "step_epochs": 2,
        "patience": 50,
        "threads": 1,
        "accelerator": "cpu",
        "precision": "32-true",
    }
    return Training(**{**plain, **changed})


class Scripted(nn.Module):
    """One weight; its validation losses are written down in advance, its training loss is the weight times `slope`."""

    def __init__(self, validation: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.script = iter(validation)


def scripted_loss(model: Scripted, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    if model.training:
        return {"loss": model.weight * batch["slope"].mean()}
    return {"loss": torch.tensor(next(model.script))}


def run_script(
    validation: list[float], slopes: list[list[float]] | None = None, **changed: object
) -> tuple[Scripted, Fitted]:
    model = Scripted(validation)
    training = [{"slope": np.array(values, np.float32)} for values in (slopes or [[1.0]])]
    fitted = fit(
        model,
        scripted_loss,
        lambda epoch: training,
        lambda: [{"slope": np.ones(1, np.float32)}],
        settings(epochs=len(validation), **changed),
        state=Path("state"),
        history=Path("history.csv"),
        live="scripted",
        what="scripted",
    )
    return model, fitted


def history() -> list[dict[str, float]]:
    with open("history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------- by hand


def test_training_stops_when_patience_ends_and_keeps_the_best_epoch():
    # Better at 1, 2 and 4; an equal loss at 5 is not better; 6 is the second epoch in vain.
    model, fitted = run_script([5, 4, 6, 3, 3, 7, 0, 0], patience=2, step_epochs=100, learning_rate=0.1)
    assert fitted == Fitted(epochs=6, best_epoch=4, best_validation=3)
    assert [row["validation"] for row in history()] == [5, 4, 6, 3, 3, 7]
    # Adam moves by the learning rate when the gradient never changes: 0.1 down in each of four epochs.
    assert model.weight.item() == pytest.approx(-0.4, abs=1e-6)
    assert not model.training


def test_training_ends_after_its_epochs_however_good_they_are():
    _, fitted = run_script([3, 2, 1])
    assert fitted == Fitted(epochs=3, best_epoch=3, best_validation=1)


def test_the_learning_rate_is_halved_every_step():
    run_script([5, 4, 3, 2, 1], learning_rate=0.08, step_epochs=2)
    assert [row["learning_rate"] for row in history()] == [0.08, 0.08, 0.04, 0.04, 0.02]


def test_a_halved_rate_halves_adams_step():
    model, _ = run_script([4, 3, 2, 1], learning_rate=0.08, step_epochs=2)
    assert model.weight.item() == pytest.approx(-(0.08 + 0.08 + 0.04 + 0.04), abs=1e-6)


def test_an_epochs_loss_is_the_mean_over_samples_and_not_over_batches():
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": batch["x"].mean() + 0 * model.weight, "part": 2 * batch["x"].mean()}

    batches = [{"x": np.array([1, 2, 3], np.float32)}, {"x": np.array([10], np.float32)}]
    fit(
        Scripted([]),
        loss,
        lambda epoch: batches,
        lambda: batches[1:],
        settings(epochs=1),
        state=Path("state"),
        history=Path("history.csv"),
        live="means",
        what="means",
    )
    assert Path("history.csv").read_text() == (
        "epoch,learning_rate,train,validation,train_part,validation_part\n1,0.01,4.0,10.0,8.0,20.0\n"
    )


@given(st.integers(0, 60), st.integers(1, 12))
def test_index_batches_keep_the_order_and_leave_no_sample_alone(count, size):
    cut = index_batches(np.arange(count), size)
    assert [index for part in cut for index in part] == list(range(count))
    assert all(len(part) <= size + 1 for part in cut)
    if count > 1 and size > 1:
        assert all(len(part) > 1 for part in cut)


def test_a_single_sample_left_over_joins_the_batch_before_it():
    assert [list(part) for part in index_batches(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [list(part) for part in index_batches(np.arange(8), 3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [list(part) for part in index_batches(np.arange(1), 3)] == [[0]]


# -------------------------------------------------------------------------------- killed and resumed

EPOCHS = 5


class Interrupted(Exception):
    """Stands for what ends a process, where a test need not end one."""


def interrupt() -> None:
    raise Interrupted


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def restore(
    stop_in: int | None, folder: Path, stop: Callable[[], None] = interrupt, **changed: object
) -> Fitted:
    """Train a small U-Net to give back noise; `stop` is called in the second batch of epoch `stop_in` (from 0)."""
    model = UNet(Network(width=2, depth=2, norm="batch"))
    initialize(model, torch.Generator().manual_seed(1))
    x = np.random.default_rng(2).random((6, 1, 4, 8, 8), dtype=np.float32)

    def batches(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        order = np.random.default_rng([3, epoch]).permutation(4)
        for number, indices in enumerate(index_batches(order, 2)):
            if epoch == stop_in and number == 1:
                stop()
            yield {"x": x[indices]}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = functional.mse_loss(torch.sigmoid(model(batch["x"])), batch["x"])
        return {"loss": 2 * error, "restoration": error}

    fitted = fit(
        model,
        loss,
        batches,
        lambda: [{"x": x[4:]}],
        settings(epochs=EPOCHS, **changed),
        state=folder / "state",
        history=folder / "history.csv",
        live="restore",
        what="restoration",
    )
    save_tensors(folder / "weights.safetensors", model.state_dict())
    return fitted


def result(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "weights.safetensors").read_bytes(), (folder / "history.csv").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        restore(None, folder)
    return result(folder)


def test_two_runs_give_equal_bytes(uninterrupted, tmp_path):
    restore(None, tmp_path)
    assert result(tmp_path) == uninterrupted


def test_a_run_killed_in_a_drawn_epoch_goes_on_to_equal_bytes(uninterrupted, tmp_path):
    epoch = 1 + secrets.randbelow(EPOCHS - 1)
    program = f"from pathlib import Path; from tests.test_training import kill, restore; restore({epoch}, Path.cwd(), kill)"
    killed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(torch.load(tmp_path / "state" / "training.pt", weights_only=True)["rows"]) == epoch
    (tmp_path / "state" / "training.pt.aside").write_bytes(b"what a process killed while writing leaves")
    restore(None, tmp_path)
    assert result(tmp_path) == uninterrupted, f"killed in epoch {epoch}"


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_a_run_interrupted_in_any_epoch_goes_on_to_equal_bytes(uninterrupted, tmp_path, epoch):
    with pytest.raises(Interrupted):
        restore(epoch, tmp_path)
    restore(None, tmp_path)
    assert result(tmp_path) == uninterrupted


def test_a_run_killed_after_its_last_epoch_trains_no_more(uninterrupted, tmp_path):
    restore(None, tmp_path)
    before = (tmp_path / "state" / "training.pt").stat().st_mtime_ns
    fitted = restore(0, tmp_path)  # would die in its first epoch
    assert fitted.epochs == EPOCHS
    assert (tmp_path / "state" / "training.pt").stat().st_mtime_ns == before
    assert result(tmp_path) == uninterrupted


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"nonsense"]
)
def test_state_that_cannot_be_read_is_as_good_as_none(uninterrupted, tmp_path, damage):
    restore(None, tmp_path)
    state = tmp_path / "state" / "training.pt"
    state.write_bytes(damage(state.read_bytes()))
    restore(None, tmp_path)
    assert result(tmp_path) == uninterrupted


# ------------------------------------------------------------------------------------------ refusals


def test_a_loss_that_is_no_number_ends_training_in_words():
    with pytest.raises(
        InputError, match=r"scripted: the training loss of epoch 1 must be a finite number, got nan; lower"
    ):
        run_script([1.0, 1.0], slopes=[[math.nan]])
    with pytest.raises(
        InputError, match=r"validation loss of epoch 2 .* got inf; lower .*learning_rate.* 0\.01"
    ):
        run_script([1.0, math.inf])


def test_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match="nothing to train on"):
        fit(
            Scripted([1.0]),
            scripted_loss,
            lambda epoch: [],
            lambda: [{"slope": np.ones(1, np.float32)}],
            settings(),
            state=Path("state"),
            history=Path("history.csv"),
            live="empty",
            what="empty",
        )


def test_nothing_to_validate_on_is_refused_before_training():
    def never(epoch: int) -> list[dict[str, np.ndarray]]:
        raise AssertionError("trained without validation data")

    with pytest.raises(InputError, match="nothing to validate on"):
        fit(
            Scripted([]),
            scripted_loss,
            never,
            lambda: [],
            settings(),
            state=Path("state"),
            history=Path("history.csv"),
            live="empty",
            what="empty",
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_with_its_parameter():
    with pytest.raises(InputError, match=r"training\.accelerator: is cuda, but torch sees no GPU"):
        run_script([1.0], accelerator="cuda")


# -------------------------------------------------------------------------------------- live curves


def test_live_curves_show_every_epoch_also_after_a_kill():
    class Killed(Exception):
        pass

    def script() -> Iterator[float]:
        yield from (3.0, 2.0)
        raise Killed

    def run(validation: Iterator[float]) -> None:
        model = Scripted([])
        model.script = validation
        fit(
            model,
            scripted_loss,
            lambda epoch: [{"slope": np.ones(1, np.float32)}],
            lambda: [{"slope": np.ones(1, np.float32)}],
            settings(epochs=3),
            state=Path("state"),
            history=Path("history.csv"),
            live="task-a",
            what="live",
        )

    with pytest.raises(Killed):
        run(script())
    curve = Path("logs/live/task-a/plots/metrics/validation/loss.tsv")
    assert curve.read_text() == "step\tloss\n0\t3.0\n1\t2.0\n"
    run(iter([1.0]))
    assert curve.read_text() == "step\tloss\n0\t3.0\n1\t2.0\n2\t1.0\n"


def test_live_curves_leave_git_and_dvc_alone(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n[studio]\n    token = abc\n")
    (tmp_path / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "start")
    # As under `dvc exp run`, where DVCLive would add its files to the index at its end.
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", git("rev-parse", "HEAD").strip())
    run_script([2.0, 1.0])
    assert git("status", "--porcelain") == "?? history.csv\n?? logs/\n?? state/\n"
    assert git("for-each-ref").count("\n") == 1
    assert not list(tmp_path.rglob("dvc.yaml"))


def test_live_curves_go_nowhere_even_where_a_studio_is_set_up(monkeypatch):
    tried = []

    def connect(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise OSError("no network here")

    monkeypatch.delenv("DVC_STUDIO_OFFLINE", raising=False)
    for name, value in (
        ("TOKEN", "abc"),
        ("REPO_URL", "git@localhost:a/b.git"),
        ("URL", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(f"DVC_STUDIO_{name}", value)
    monkeypatch.setattr(socket.socket, "connect", connect)
    run_script([2.0, 1.0])
    assert tried == []
