"""The trials: one target task, fine-tuned several times from one initialization.

Trial t draws its batches and the weights of its head from keys that do not name the initialization, so that the
trials of two initializations differ in nothing but what they start from. `scratch` draws all its weights, afresh
in every trial; what a method's weights leave out is drawn likewise.

A trial that does not converge is kept like any other. No test score is computed here.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sg.errors import InputError
from sg.networks.initial import initialize
from sg.params import Network, Training
from sg.randomness import generator, torch_generator
from sg.storage import create_h5
from sg.targets.learning import Work, count_parameters, device_of, work_of
from sg.targets.taskfile import TaskFile
from sg.training import Fitted, fit, index_batches
from sg.weights import load_into, read_card, save

SCRATCH = "scratch"


@dataclass(frozen=True)
class Series:
    """What all trials of a task from one initialization have in common."""

    task: TaskFile
    work: Work
    initialization: str
    weights: Path  # folder of the method's weights and card
    network: Network
    settings: Training
    seed: int
    trials: int
    state: Path  # folder that outlives a killed run


def finetune(
    target: Path,
    initialization: str,
    weights: Path,
    trials: int,
    settings: Training,
    seed: int,
    *,
    state: Path,
    folder: Path,
) -> str:
    """Run the trials and write trials.csv, history.csv, predictions.h5 and best/ into `folder`; a line of facts.

    `target` is the task's file, `weights` the folder of the method's card (and weights, unless it is `scratch`).
    Finished trials and the state of the running one are kept in `state`: a killed run goes on to the same bytes.
    """
    with TaskFile(target) as task:
        card = read_card(weights)
        check_card(weights, card, task)
        network = Network(**{name: card["network"][name] for name in ("width", "depth", "norm")})
        series = Series(task, work_of(task), initialization, weights, network, settings, seed, trials, state)
        fitted = [trial(series, number) for number in range(trials)]
        _write_trials(folder / "trials.csv", fitted)
        _write_history(folder / "history.csv", series)
        _write_predictions(folder / "predictions.h5", series)
        best = best_of(fitted)
        shutil.copytree(_finished(series, best) / "best", folder / "best")
    losses = [one.best_validation for one in fitted]
    return (
        f"{trials} trials of {task.task} from {initialization}: validation loss {min(losses):.4f} to {max(losses):.4f} "
        f"after {min(one.best_epoch for one in fitted)} to {max(one.best_epoch for one in fitted)} epochs"
    )


def check_card(folder: Path, card: dict[str, Any], task: TaskFile) -> None:
    """InputError unless the weights are of an architecture that can be fine-tuned, and know the task's units."""
    architecture = card["network"].get("architecture")
    if architecture != "unet":
        raise InputError(
            f"{folder}/card.json: network.architecture: must be unet to be fine-tuned, got {architecture!r}"
        )
    for name in ("hu_min", "hu_max"):
        if name in card and card[name] != getattr(task, name):
            raise InputError(
                f"{folder}/card.json: {name}: must be that of {task.path} ({getattr(task, name):g}), got {card[name]:g}; "
                "weights know their inputs scaled from their own range: run `dvc repro` to make both alike"
            )


def start(series: Series, number: int) -> nn.Module:
    """The network as trial `number` starts with it."""
    key = (series.seed, "finetune", f"{series.task.task}/trial {number}")
    model = series.work.network(series.network)
    initialize(model, torch_generator(*key, "weights"))
    if series.initialization != SCRATCH:
        load_into(model, series.weights)
    # After loading: the output convolution of a restoration has the name of a segmentation's.
    initialize(series.work.head(model), torch_generator(*key, "head"))
    return model


def batches(series: Series, number: int, epoch: int) -> Iterator[dict[str, np.ndarray]]:
    """The training batches of one epoch of a trial, the same whatever the initialization."""
    key = (series.seed, "finetune", f"{series.task.task}/trial {number}")
    order = generator(*key, f"order {epoch}").permutation(series.task.of_split("train"))
    flips = generator(*key, f"flips {epoch}")
    for part in index_batches(order, series.settings.batch):
        yield series.work.batch(part, flips)


def validation(series: Series) -> Iterator[dict[str, np.ndarray]]:
    """The validation batches: the same at every epoch of every trial."""
    for part in index_batches(series.task.of_split("validation"), series.settings.batch):
        yield series.work.batch(part, None)


def trial(series: Series, number: int) -> Fitted:
    """Run a trial, unless it is finished already, and leave it in the state's folder, whole."""
    finished = _finished(series, number)
    if finished.is_dir():
        return _read_fitted(finished)
    aside = series.state / f"trial-{number}.aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    running = series.state / f"training-{number}"
    model = start(series, number)
    fitted = fit(
        model,
        series.work.loss,
        lambda epoch: batches(series, number, epoch),
        lambda: validation(series),
        series.settings,
        state=running,
        history=aside / "history.csv",
        live=f"finetune-{series.task.task}-{series.initialization}-{number}",
        what=f"{series.task.task} from {series.initialization}, trial {number + 1} of {series.trials}",
    )
    earlier = [_read_fitted(_finished(series, one)) for one in range(number)]
    if best_of([*earlier, fitted]) == number:  # weights of others are never asked for
        (aside / "best").mkdir()
        save(aside / "best", model.state_dict(), _card(series, number, fitted, model))
    device = device_of(series.settings.accelerator)
    series.work.predict(model, aside / "predictions.h5", series.settings.batch, device)
    (aside / "fitted.json").write_text(json.dumps(asdict(fitted), allow_nan=False), encoding="utf-8")
    for file in sorted(aside.rglob("*")):
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
    os.rename(aside, finished)
    shutil.rmtree(running, ignore_errors=True)
    return fitted


def best_of(fitted: list[Fitted]) -> int:
    """The number of the trial with the smallest validation loss, the first of equals."""
    return min(range(len(fitted)), key=lambda number: (fitted[number].best_validation, number))


def _finished(series: Series, number: int) -> Path:
    return series.state / f"trial-{number}"


def _read_fitted(folder: Path) -> Fitted:
    return Fitted(**json.loads((folder / "fitted.json").read_text(encoding="utf-8")))


def _card(series: Series, number: int, fitted: Fitted, model: nn.Module) -> dict[str, Any]:
    return {
        "method": series.initialization,
        "network": {"architecture": "unet", "channels_in": 1, **series.network.model_dump(mode="json")},
        "task": series.task.task,
        "kind": series.task.kind,
        "trial": number,
        "hu_min": series.task.hu_min,
        "hu_max": series.task.hu_max,
        "patch_size": list(series.task.patch_size),
        "parameters": count_parameters(model),
        **asdict(fitted),
    }


def _write_trials(path: Path, fitted: list[Fitted]) -> None:
    header = ["trial", "epochs", "best_epoch", "best_validation"]
    _write_table(path, header, [[number, *asdict(one).values()] for number, one in enumerate(fitted)])


def _write_history(path: Path, series: Series) -> None:
    """The histories of all trials under each other, with the trial's number before each row."""
    header, rows = [], []
    for number in range(series.trials):
        with open(_finished(series, number) / "history.csv", encoding="utf-8", newline="") as file:
            names, *lines = csv.reader(file)
        header = ["trial", *names]
        rows += [[number, *line] for line in lines]
    _write_table(path, header, rows)


def _write_predictions(path: Path, series: Series) -> None:
    paths = [_finished(series, number) / "predictions.h5" for number in range(series.trials)]
    with create_h5(path) as file:
        for name in ("task", "kind", "metric"):
            file.attrs[name] = getattr(series.task, name)
        file.attrs["initialization"] = series.initialization
        file.attrs["trials"] = series.trials
        series.work.gather(paths, file)


def _write_table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
