"""How a network learns a target task: its head, its batches, its loss, and what it predicts for the test patients.

Recipes of the paper: classification is global average pooling of the bottleneck and one linear layer; segmentation
is the whole U-Net under a soft Dice loss with smooth 1 over the flattened batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sg.intensity import to_unit
from sg.networks.classifier import Classifier
from sg.networks.unet import NetworkSize, UNet
from sg.prediction import patch_scores, voxel_probabilities
from sg.storage import create_h5, open_h5, write_array
from sg.targets.taskfile import TaskFile, growing_masks, write_mask
from sg.training import index_batches

THRESHOLD = 0.5


class Work(Protocol):
    """What the kinds of tasks do each in their own way."""

    def network(self, size: NetworkSize) -> nn.Module:
        """The network, with whatever weights."""

    def head(self, model: nn.Module) -> nn.Module:
        """The part that no pre-training has seen: it starts afresh in every trial."""

    def batch(self, indices: np.ndarray, flips: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Inputs in [0, 1] and truth of the patches of those numbers; `flips` draws the augmentation, None for none."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch, as the training engine wants it."""

    def predict(self, model: nn.Module, path: Path, batch: int, device: str) -> None:
        """Write what the network says of the test patients."""

    def gather(self, paths: list[Path], file: h5py.File) -> None:
        """Put the predictions of all trials into one file, beside the truth."""


class Classification:
    """One logit a patch, binary cross entropy."""

    def __init__(self, task: TaskFile) -> None:
        self.task = task

    def network(self, size: NetworkSize) -> nn.Module:
        """See Work."""
        return Classifier(size, classes=1, hidden=0)

    def head(self, model: nn.Module) -> nn.Module:
        """See Work."""
        return model.classify

    def batch(self, indices: np.ndarray, flips: np.random.Generator | None) -> dict[str, np.ndarray]:
        """See Work. A nodule has no handedness, so that each patch is flipped along each axis with probability 1/2."""
        x = to_unit(self.task.patches(indices), self.task.hu_min, self.task.hu_max)
        if flips is not None:
            for patch, drawn in zip(x, flips.random((len(x), 3)) < 0.5, strict=True):
                patch[...] = np.flip(patch, np.flatnonzero(drawn)).copy()
        return {"x": x[:, None], "label": self.task.rows["label"][indices].astype(np.float32)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See Work."""
        return {"loss": functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], batch["label"])}

    def predict(self, model: nn.Module, path: Path, batch: int, device: str) -> None:
        """See Work."""
        parts = index_batches(self.task.of_split("test"), batch)
        scores = [patch_scores(model, self.batch(part, None)["x"], device) for part in parts]
        with create_h5(path) as file:
            write_array(file, "scores", np.concatenate(scores))

    def gather(self, paths: list[Path], file: h5py.File) -> None:
        """See Work: `truth` u1, `scan`, `patient` (m,) and `scores` float32 (trials, m)."""
        rows = self.task.rows[self.task.of_split("test")]
        for name, column in (("truth", "label"), ("scan", "scan"), ("patient", "patient")):
            write_array(file, name, rows[column])
        scores = []
        for path in paths:
            with open_h5(path) as one:
                scores.append(one["scores"][...])
        write_array(file, "scores", np.stack(scores))


class Segmentation:
    """One logit a voxel, soft Dice loss; no augmentation, because organs have their sides."""

    def __init__(self, task: TaskFile) -> None:
        self.task = task
        self.dice = soft_dice_loss()

    def network(self, size: NetworkSize) -> nn.Module:
        """See Work."""
        return UNet(size, channels_out=1)

    def head(self, model: nn.Module) -> nn.Module:
        """See Work."""
        return model.out

    def batch(self, indices: np.ndarray, flips: np.random.Generator | None) -> dict[str, np.ndarray]:
        """See Work."""
        x = to_unit(self.task.patches(indices), self.task.hu_min, self.task.hu_max)
        return {"x": x[:, None], "mask": self.task.masks(indices)[:, None].astype(np.float32)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See Work."""
        return {"loss": self.dice(model(batch["x"]).float(), batch["mask"])}

    def predict(self, model: nn.Module, path: Path, batch: int, device: str) -> None:
        """See Work: masks where the probability is over 0.5."""
        with create_h5(path) as file:
            for scan in self.task.test_scans():
                image = to_unit(self.task.volume(scan, "image"), self.task.hu_min, self.task.hu_max)
                probabilities = voxel_probabilities(model, image, self.task.window, self.task.overlap, device)
                write_mask(file, scan, probabilities > THRESHOLD)

    def gather(self, paths: list[Path], file: h5py.File) -> None:
        """See Work: for each scan `truth` u1 (z, y, x) and `predicted` u1 (trials, z, y, x)."""
        for scan in self.task.test_scans():
            group = file.create_group(scan)
            truth = self.task.volume(scan, "truth")
            write_mask(group, "truth", truth)
            predicted = growing_masks(group, "predicted", (len(paths), *truth.shape))
            for trial, path in enumerate(paths):
                with open_h5(path) as one:
                    predicted[trial] = one[scan][...]
            group.attrs["patient"] = self.task.patient(scan)


def soft_dice_loss() -> nn.Module:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) over all voxels of a batch, p being the sigmoid of the logits."""
    from monai.losses import DiceLoss  # seconds; only segmentation pays for it

    return DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)


def work_of(task: TaskFile) -> Work:
    """The way of this task's kind."""
    return {"nodule-classification": Classification, "segmentation": Segmentation}[task.kind](task)


def count_parameters(model: nn.Module) -> int:
    """Learned values of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def device_of(accelerator: str) -> str:
    """torch's name of the device that a training's `accelerator` means."""
    return str(torch.device(accelerator))
