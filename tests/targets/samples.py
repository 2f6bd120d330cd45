"""Tiny task files, weights and settings: two easy tasks that a network of a few channels learns in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sg.networks.initial import initialize
from sg.networks.unet import UNet
from sg.params import Network, Training
from sg.storage import create_h5, write_array
from sg.targets.taskfile import (
    PATCH_OF_CLASSIFICATION,
    PATCH_OF_SEGMENTATION,
    write_head,
    write_mask,
    write_volume,
)
from sg.weights import save

NETWORK = Network(width=2, depth=2, norm="batch")
HU = (-1000.0, 1000.0)
SPLITS = ("train", "validation", "test")


def training(**other) -> Training:
    values = {
        "epochs": 2,
        "batch": 8,
        "learning_rate": 0.01,
        "step_epochs": 10,
        "patience": 2,
        "threads": 1,
        "accelerator": "cpu",
        "precision": "32-true",
    }
    return Training(**{**values, **other})


def classification(path: Path, patients: int = 4, each: int = 4) -> Path:
    """Bright balls (nodules) and dark ones, `each` in so many patients of every split; 8 voxels a side."""
    rng = np.random.default_rng(1)
    rows, patches = [], []
    for split in SPLITS:
        for patient in range(patients):
            for number in range(each):
                label = (patient + number) % 2
                patch = rng.normal(-700, 60, (8, 8, 8))
                patch[2:6, 2:6, 2:6] += 500 if label else 60
                patches.append(np.clip(patch, *HU).astype("<i2"))
                name = f"{split}{patient}"
                rows.append((f"{name:x<12}", name, split, label, (number, patient, 0)))
    rows = np.array(rows, PATCH_OF_CLASSIFICATION)
    with create_h5(path) as file:
        write_array(file, "patches", np.stack(patches), chunks=(1, 8, 8, 8), fletcher32=True)
        write_head(file, "ncc", "nodule-classification", "AUC", (8, 8, 8), HU)
        write_array(file, "rows", rows)
        labels = rows["label"][rows["split"] == b"test"]
        stored = write_array(file, "baseline/truth", labels.astype("f4"))
        stored.attrs["description"] = "the truth itself"
    return path


def segmentation(path: Path) -> Path:
    """A bright box in noise, other in every patient; patches of 8 voxels a side, test volumes of (8, 12, 12)."""
    rng = np.random.default_rng(2)

    def scene(shape):
        mask = np.zeros(shape, np.int16)
        z, y, x = rng.integers(0, 4, 3)
        mask[z : z + 4, y : y + 5, x : x + 5] = 1
        return np.clip(rng.normal(-600, 50, shape) + 600 * mask, *HU).astype("<i2"), mask.astype(np.uint8)

    rows, scenes = [], []
    for split in SPLITS[:2]:
        for patient in range(4):
            scenes.append(scene((8, 8, 8)))
            name = f"{split}{patient}"
            rows.append((f"{name:x<12}", name, split, (0, 0, 0)))
    with create_h5(path) as file:
        for name, arrays in zip(("patches", "masks"), zip(*scenes, strict=True), strict=True):
            write_array(file, name, np.stack(arrays), chunks=(1, 8, 8, 8), fletcher32=True)
        group = file.create_group("baseline/all")
        group.attrs["description"] = "every voxel"
        for patient in range(2):
            scan = f"test{patient}".ljust(12, "x")
            image, mask = scene((8, 12, 12))
            volume = file.create_group(f"volumes/{scan}")
            write_volume(volume, image, mask, f"test{patient}", (1.0, 1.0, 1.0))
            write_mask(group, scan, np.ones_like(mask))
        write_head(file, "lcs", "segmentation", "IoU", (8, 8, 8), HU)
        file.attrs["window"], file.attrs["overlap"] = np.array((8, 8, 8), "i4"), 0.25
        write_array(file, "rows", np.array(rows, PATCH_OF_SEGMENTATION))
    return path


def scratch(folder: Path) -> Path:
    """The folder of `scratch`: a card alone."""
    folder.mkdir(parents=True)
    card = {
        "method": "scratch",
        "network": {"architecture": "unet", "channels_in": 1, **NETWORK.model_dump()},
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def method(folder: Path, size: Network = NETWORK, **other) -> Path:
    """The folder of a method: weights of a U-Net drawn from a generator, and its card."""
    folder.mkdir(parents=True)
    model = UNet(size)
    initialize(model, torch.Generator().manual_seed(7))
    card = {
        "method": folder.name,
        "network": {"architecture": "unet", "channels_in": 1, **size.model_dump()},
    }
    save(folder, model.state_dict(), {**card, "hu_min": HU[0], "hu_max": HU[1], **other})
    return folder
