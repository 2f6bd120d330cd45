"""Every whole scan as a vector: the bottleneck of an auto-encoder, averaged over space.

An auto-encoder learns to give back the thumbnails of the training scans; scans with like anatomy then lie near
each other. Published: the U-Net itself, loss MSE after a sigmoid, 512 values, compared unnormalised by Euclidean
distance (Haghighi et al., Transferable Visual Words, IEEE TMI 2021). Departures: no skip connections (see
sg/networks/autoencoder.py), and the learning rate is halved by epochs and not by plateaus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sg import console, logs
from sg.errors import InputError
from sg.intensity import to_unit
from sg.networks.autoencoder import AutoEncoder, untrained
from sg.params import Embed
from sg.randomness import generator
from sg.roles import PRETRAIN, Role, Roles
from sg.storage import create_h5, open_h5, write_array
from sg.training import Batch, Fitted, fit, index_batches
from sg.weights import save_tensors

SHOWN = 4


class Thumbnails:
    """The rows of an open thumbnails.h5 that may be embedded, in its order; images are read as they are asked for.

    InputError if the file and the roles disagree.
    """

    def __init__(self, file: h5py.File, roles: Roles) -> None:
        self._images = file["thumbnails"]
        self.shape = tuple(int(side) for side in self._images.shape[1:])  # (z, y, x) of one
        patient, split, serves = (file[name][...] for name in ("patient", "split", "pretrain"))
        roles.check(file.filename, patient[serves], split[serves], PRETRAIN)
        roles.check(file.filename, patient[~serves], split[~serves])
        self._rows = np.flatnonzero(serves & roles.mask(patient, "embed"))
        self.scan = file["scan"][...][self._rows]
        self.patient = patient[self._rows]
        self.split = split[self._rows]
        self._roles = roles
        self.hu_min = float(file.attrs["hu_min"])
        self.hu_max = float(file.attrs["hu_max"])

    def __len__(self) -> int:
        return len(self._rows)

    def of_role(self, role: Literal["pretrain", "early_stopping"]) -> np.ndarray:
        """Indices of the scans that the auto-encoder learns from, or is stopped by. InputError if there is none."""
        indices = np.flatnonzero(self._roles.mask(self.patient, role))
        if len(indices) == 0:
            split = {"pretrain": "train", "early_stopping": "validation"}[role]
            raise InputError(
                f"data/resampled/thumbnails.h5: the auto-encoder needs {split} scans that serve pretrain, there is none "
                f"among {len(self)}; add patients or change cohort.splits"
            )
        return indices

    def read(self, indices: np.ndarray, role: Role) -> np.ndarray:
        """Images (n, 1, z, y, x) in [0, 1], float32, in the order of `indices`; logged as read in that role."""
        for index in indices:
            logs.opened(self.scan[index].decode(), role, PRETRAIN)
        rows = [self._images[self._rows[index]] for index in indices]
        return to_unit(np.stack(rows), self.hu_min, self.hu_max)[:, None]


@dataclass(frozen=True)
class Learned:
    """What came of the auto-encoder."""

    scans: int
    channels: int
    fitted: Fitted
    warnings: tuple[str, ...]


def learn_embedding(
    thumbnails: Path, roles: Roles, folder: Path, settings: Embed, seed: int, state: Path
) -> Learned:
    """Train the auto-encoder on the scans that may be learned from and write what `embed` gives into `folder`.

    embeddings.h5 (vectors of all scans that may be embedded, test scans too, which nothing is learned from),
    autoencoder.safetensors, card.json, history.csv, reconstructions.h5. `state` is where a killed run goes on.
    InputError without training or validation scans, or if thumbnails and roles disagree.
    """
    with open_h5(thumbnails) as file:
        scans = Thumbnails(file, roles)
        model = untrained(settings.width, settings.depth, seed)
        fitted = train_autoencoder(model, scans, settings, seed, state, folder / "history.csv")
        vectors = embed(model, scans)
        warnings = tuple(_doubts(vectors))
        _write_embeddings(folder / "embeddings.h5", vectors, scans)
        _write_reconstructions(folder / "reconstructions.h5", model, scans)
    save_tensors(folder / "autoencoder.safetensors", model.state_dict())
    _write_card(folder / "card.json", settings, scans, model, fitted, warnings)
    for warning in warnings:
        console.warn(warning)
    return Learned(len(scans), model.channels, fitted, warnings)


def train_autoencoder(
    model: AutoEncoder, scans: Thumbnails, settings: Embed, seed: int, state: Path, history: Path
) -> Fitted:
    """Fit the auto-encoder to the scans to learn from, stopping by those to stop by; drawn anew is only their order."""
    learned, stopping = scans.of_role("pretrain"), scans.of_role("early_stopping")
    size = settings.training.batch

    def batches(epoch: int) -> Iterator[Batch]:
        order = generator(seed, "embed", "", f"epoch {epoch}").permutation(learned)
        return ({"scan": scans.read(indices, "pretrain")} for indices in index_batches(order, size))

    def validated() -> Iterator[Batch]:
        return ({"scan": scans.read(indices, "early_stopping")} for indices in index_batches(stopping, size))

    return fit(
        model,
        reconstruction_loss,
        batches,
        validated,
        settings.training,
        state=state,
        history=history,
        live="embed",
        what="auto-encoder",
    )


def reconstruction_loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean squared error between the scans (n, 1, z, y, x) in [0, 1] and what the model gives back."""
    scan = batch["scan"]
    return {"loss": functional.mse_loss(torch.sigmoid(model(scan)), scan)}


def embed(model: AutoEncoder, scans: Thumbnails) -> np.ndarray:
    """Vectors (n, channels), float32, of all scans, in order.

    One scan at a time, so that a scan's vector is the same, bit by bit, whichever others there are.
    """
    model.eval()
    with torch.inference_mode():
        rows = [
            model.embed(torch.from_numpy(scans.read(np.array([index]), "embed")))[0].numpy()
            for index in range(len(scans))
        ]
    return np.stack(rows)


def _doubts(vectors: np.ndarray) -> Iterator[str]:
    """Sentences on vectors by which no scan can be told from another."""
    if len(vectors) > 1 and np.all(vectors == vectors[0]):
        yield (
            f"all {len(vectors)} scans have the same embedding: the auto-encoder learned nothing that tells them apart, "
            "so nearest patients are arbitrary; change embed.training or embed.width"
        )


def _write_embeddings(path: Path, vectors: np.ndarray, scans: Thumbnails) -> None:
    with create_h5(path) as file:
        write_array(file, "vectors", vectors, fletcher32=True)
        for name in ("scan", "patient", "split"):
            write_array(file, name, getattr(scans, name))


def _write_reconstructions(path: Path, model: AutoEncoder, scans: Thumbnails) -> None:
    """Up to four validation scans as they went in and as they came out, for the report."""
    indices = scans.of_role("early_stopping")[:SHOWN]
    given = scans.read(indices, "early_stopping")
    model.eval()
    with torch.inference_mode():
        returned = [torch.sigmoid(model(torch.from_numpy(scan[None])))[0, 0].numpy() for scan in given]
    with create_h5(path) as file:
        write_array(file, "inputs", given[:, 0], fletcher32=True)
        write_array(file, "outputs", np.stack(returned), fletcher32=True)
        write_array(file, "scan", scans.scan[indices])


def _write_card(
    path: Path,
    settings: Embed,
    scans: Thumbnails,
    model: AutoEncoder,
    fitted: Fitted,
    warnings: tuple[str, ...],
) -> None:
    card = {
        "architecture": "autoencoder",
        "width": settings.width,
        "depth": settings.depth,
        "thumbnail_shape": list(scans.shape),
        "hu_min": scans.hu_min,
        "hu_max": scans.hu_max,
        "channels": model.channels,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "scans": {
            split: int(np.sum(scans.split == split.encode())) for split in ("train", "validation", "test")
        },
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "best_validation": fitted.best_validation,
        "warnings": list(warnings),
    }
    path.write_text(json.dumps(card, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
