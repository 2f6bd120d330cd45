"""The training engine: Adam, halved learning rates, early stopping, and state from which a killed run goes on.

Departures from the published training, both so that a result can be made again: deterministic algorithms, and
float32 unless the parameters ask for mixed precision.
"""

from __future__ import annotations

import csv
import io
import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sg.console import Progress
from sg.errors import InputError
from sg.params import Training

LIVE = Path("logs/live")
STATE = "training.pt"

Batch = dict[str, np.ndarray]
Loss = Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Fitted:
    """How a training ended. Epochs count from 1."""

    epochs: int
    best_epoch: int
    best_validation: float


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    settings: Training,
    *,
    state: Path,
    history: Path,
    live: str,
    what: str,
) -> Fitted:
    """Train `model` in place until no epoch of the last `settings.patience` was better; best weights afterwards.

    `loss(model, batch)` gives named scalars: "loss" is minimised, the others are its parts, for the records; it
    must draw nothing. `batches(epoch)`, epochs counted from 0 here, gives dictionaries of arrays with the samples
    along the first axis and must depend on the epoch alone; `validation()` gives the same ones each time. An
    epoch's values are means over its samples. Better means a smaller validation "loss".

    `state` is a folder that outlives the process: after every epoch all that is needed to go on is written there,
    aside and renamed, and a run that finds it goes on from there to byte-equal weights and history. `history` is
    written at the end, one row an epoch: epoch (from 1), learning_rate, train, validation, train_<part>,
    validation_<part>. Curves to watch meanwhile are under logs/live/<live>. `what` names the training in words.

    The model is left on the CPU, in evaluation mode and in the channels-last layout, in which convolutions are
    1.1 to 1.7 times as fast as in the default one (2 cores, width 8 and 16).

    InputError if there is nothing to train or validate on, if the loss is no longer a finite number, or if
    there is no GPU where one is asked for.
    """
    reproducible(settings.threads)
    fabric = _fabric(settings)
    if next(iter(validation()), None) is None:
        raise InputError(
            f"{what}: there is nothing to validate on, so nothing can say when to stop; give validation patients"
        )
    model.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    _, optimizer = fabric.setup(model, optimizer)
    halving = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, settings.step_epochs, gamma=0.5)
    progress = _Records(best=_copy(model))
    _resume(state, model, optimizer.optimizer, halving, fabric, progress)
    curves = _Curves(live)
    for row in progress.rows:
        curves.add(row)
    with Progress(what, settings.epochs, "epochs", before=len(progress.rows)) as bar:
        while len(progress.rows) < settings.epochs and progress.since_best < settings.patience:
            epoch = len(progress.rows)
            rate = optimizer.param_groups[0]["lr"]
            train = _train(model, loss, batches(epoch), optimizer, fabric)
            if not train:
                raise InputError(f"{what}: there is nothing to train on; give training patients")
            validated = _validate(model, loss, validation(), fabric)
            _finite(what, epoch, settings.learning_rate, train, validated)
            halving.step()
            progress.add(_row(epoch, rate, train, validated), model)
            _save(state, model, optimizer.optimizer, halving, fabric, progress)
            curves.add(progress.rows[-1])
            bar.step(
                note=f"train {train['loss']:.4g}, validation {validated['loss']:.4g}, best {progress.best_validation:.4g}"
            )
    model.cpu()
    model.load_state_dict(progress.best)
    model.eval()
    _write_history(history, progress.rows)
    return Fitted(len(progress.rows), progress.best_epoch, progress.best_validation)


def reproducible(threads: int) -> None:
    """Have torch give equal bytes in every run: deterministic algorithms, and always so many CPU threads."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # A safeguard against reading memory that was never written, which no operation here does; it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # Else a GPU would round the inputs of float32 convolutions to 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    # cuBLAS is deterministic only with a work space of fixed size, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def index_batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut an order of sample indices into batches of `size`; a single sample left over joins the batch before it.

    Alone it would give batch norm a batch of one, whose statistics say nothing and do not exist for one voxel.
    """
    cuts = list(range(size, len(order), size))
    if size > 1 and cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts) if len(order) else []


@dataclass
class _Records:
    """What an epoch leaves behind, besides the weights as they are now."""

    best: dict[str, Tensor]
    best_epoch: int = 0
    best_validation: float = math.inf

    def __post_init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    @property
    def since_best(self) -> int:
        return len(self.rows) - self.best_epoch

    def add(self, row: dict[str, float], model: nn.Module) -> None:
        self.rows.append(row)
        if row["validation"] < self.best_validation:
            self.best, self.best_epoch, self.best_validation = _copy(model), len(self.rows), row["validation"]


def _fabric(settings: Training) -> Any:
    from lightning_fabric import Fabric

    if settings.accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "training.accelerator: is cuda, but torch sees no GPU on this machine; set it to cpu"
        )
    return Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)


def _train(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], optimizer: Any, fabric: Any
) -> dict[str, float]:
    """One pass of optimisation; the mean of every part of the loss, empty if there was no batch."""
    model.train()
    means = _Means()
    for batch in _tensors(batches, fabric):
        with fabric.autocast():
            parts = loss(model, batch)
        optimizer.zero_grad()
        fabric.backward(parts["loss"])
        optimizer.step()
        means.add(parts, batch)
    return means.values()


def _validate(model: nn.Module, loss: Loss, batches: Iterable[Batch], fabric: Any) -> dict[str, float]:
    model.eval()
    means = _Means()
    with torch.no_grad():
        for batch in _tensors(batches, fabric):
            with fabric.autocast():
                parts = loss(model, batch)
            means.add(parts, batch)
    return means.values()


def _tensors(batches: Iterable[Batch], fabric: Any) -> Iterator[dict[str, Tensor]]:
    for batch in batches:
        tensors = {name: torch.from_numpy(array).to(fabric.device) for name, array in batch.items()}
        yield {
            name: tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.ndim == 5 else tensor
            for name, tensor in tensors.items()
        }


class _Means:
    """Means over samples. Values stay on their device until the end, so that a GPU need not wait for each."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Tensor]] = []
        self.counts: list[int] = []

    def add(self, parts: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        self.parts.append({name: value.detach() for name, value in parts.items()})
        self.counts.append(len(next(iter(batch.values()))))

    def values(self) -> dict[str, float]:
        names = self.parts[0] if self.parts else ()
        return {
            name: math.fsum(
                count * float(parts[name]) for count, parts in zip(self.counts, self.parts, strict=True)
            )
            / sum(self.counts)
            for name in names
        }


def _finite(
    what: str, epoch: int, learning_rate: float, train: dict[str, float], validated: dict[str, float]
) -> None:
    for name, value in (("training", train["loss"]), ("validation", validated["loss"])):
        if not math.isfinite(value):
            raise InputError(
                f"{what}: the {name} loss of epoch {epoch + 1} must be a finite number, got {value}; "
                f"lower the learning_rate of this training, which is {learning_rate:g}"
            )


def _row(epoch: int, rate: float, train: dict[str, float], validated: dict[str, float]) -> dict[str, float]:
    row = {"epoch": epoch + 1, "learning_rate": rate, "train": train["loss"], "validation": validated["loss"]}
    for side, values in (("train", train), ("validation", validated)):
        row |= {f"{side}_{name}": value for name, value in values.items() if name != "loss"}
    return row


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    halving: Any,
    fabric: Any,
    records: _Records,
) -> None:
    """Put the whole state at its place, whole."""
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "halving": halving.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
        "best": records.best,
        "best_epoch": records.best_epoch,
        "best_validation": records.best_validation,
        "rows": records.rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    # By way of memory, because torch hides from its caller that a disk is full.
    packed = io.BytesIO()
    torch.save(content, packed)
    aside = folder / f"{STATE}.aside"
    try:
        with open(aside, "wb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, folder / STATE)


def _resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    halving: Any,
    fabric: Any,
    records: _Records,
) -> None:
    """Go on from the state in `folder`, if there is any; one that cannot be read is as good as none."""
    try:
        content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        # Left by a power cut, say. Training from the start gives the same bytes, only later.
        return
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    halving.load_state_dict(content["halving"])
    fabric.strategy.precision.load_state_dict(content["precision"])
    records.best = content["best"]
    records.best_epoch = content["best_epoch"]
    records.best_validation = content["best_validation"]
    records.rows = content["rows"]


class _Curves:
    """The epochs so far as files of DVCLive, for `dvc plots` and editors; no artifact, and nothing depends on it."""

    def __init__(self, name: str) -> None:
        # DVCLive would otherwise send the numbers to DVC Studio for users who are logged in there.
        os.environ["DVC_STUDIO_OFFLINE"] = "true"
        from dvclive import Live

        self._live = Live(dir=str(LIVE / name), save_dvc_exp=False, dvcyaml=None, report=None)

    def add(self, row: dict[str, float]) -> None:
        """One epoch. The files are complete after each; `Live.end` is not called, it may run `git add` on them."""
        for name, value in row.items():
            if name == "epoch":
                continue
            side, _, part = name.partition("_")
            self._live.log_metric(
                f"{side}/{part or 'loss'}" if side in ("train", "validation") else name, value
            )
        self._live.next_step()
