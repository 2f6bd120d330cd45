"""What skip connections and early stopping do to the auto-encoder whose bottleneck patients are compared by.

    python -m bench.autoencoder [--data data] [--learned 60] [--stopping 20] [--held 40] [--width 4] [--epochs 30]

Both variants have the same encoder and the same decoder but for the concatenations (the U-Net's), the same first weights'
law, the same order of the same scans, and are trained three times each. Scans are phantoms made on the spot, or those of
--data, a folder `data/` after `dvc repro resample` (only read). Figures are of held-out patients, whom nothing was
learned from or stopped by; beside each mean over the seeds, its least and greatest.

Error: mean squared error of what comes back, intensities in [0, 1]. It is measured as it is, with the bottleneck of
another held-out patient in place of the patient's own, and with the mean bottleneck of the learned ones; what changes the
output little is not what the output is made of.

Ranking: Spearman's correlation, over pairs of held-out patients, of the vectors' L2 distance with how far apart in the
atlas two scans are that show, averaged over space, (a) at one place of their voxel grids, which is what a crop carried from
one to the other suffers, and (b) at one place of the patients' own coordinates, where the field of view plays no part.

Best and last: the weights of the epoch of the least error on the patients to stop by, within the demo's patience, and those
after all epochs. The last line is by how many times another's bottleneck multiplies the error without skip connections,
over the same with them.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from bench.phantoms import CHESTS, rendered
from sg import paths
from sg.cohorts.phantom.truth import write_truth
from sg.embedding import reconstruction_loss
from sg.errors import InputError
from sg.intensity import to_unit
from sg.networks.autoencoder import AutoEncoder
from sg.networks.blocks import spatial_mean
from sg.networks.initial import initialize
from sg.networks.unet import UNet
from sg.params import Network
from sg.randomness import generator, torch_generator
from sg.resampling import thumbnail
from sg.storage import open_h5
from sg.training import index_batches
from sg.truth import read_truth

SHAPE = (24, 32, 32)  # the demo's thumbnails
HU = (-1000.0, 1000.0)
DEPTH, BATCH, RATE, HALVED_AFTER, PATIENCE = 4, 4, 1e-3, 10, 5  # the demo's
SEEDS = 3
OTHERS = 5  # patients whose bottleneck each held-out patient is given in turn
LATTICE = 12  # places along each axis of a scan at which two are compared
AXES_MM = (
    np.arange(-150, 151, 25.0),
    np.arange(-100, 101, 25.0),
    np.arange(-150, 76, 25.0),
)  # x, y, z of a patient
VARIANTS = ("without skips", "with skips")


@dataclass(frozen=True)
class Cohort:
    """Scans in three parts, one after the other: learned from, stopped by, held out."""

    images: np.ndarray  # float32 (n, 1, z, y, x) in [0, 1]
    in_voxels: (
        np.ndarray
    )  # (n, place, 3): atlas position, mm, at places of the scan's grid; NaN where there is none
    in_body: np.ndarray  # the same at places of the patient's coordinates
    parts: tuple[int, int, int]

    @property
    def ranges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of the three parts."""
        learned, stopping, _ = self.parts
        return tuple(np.split(np.arange(len(self.images)), [learned, learned + stopping]))


def grid_places(axes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Every combination of three axes, (n, 3)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def fractions() -> np.ndarray:
    """Places (n, 3) of a lattice as fractions (x, y, z) of a scan."""
    return grid_places(((np.arange(LATTICE) + 0.5) / LATTICE,) * 3)


def atlas_positions(truth: Path, places_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atlas positions at world positions (n, 3), and at the patient's own coordinates."""
    known = read_truth(truth)
    own = (grid_places(AXES_MM)[:, None, :] * known.rotation[None]).sum(axis=2) + known.offset_mm
    return known.atlas_at(places_mm), known.atlas_at(own)


def made(parts: tuple[int, int, int]) -> Cohort:
    """Phantoms made on the spot."""
    images, positions = [], []
    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        for scan in rendered(CHESTS, sum(parts), 0):
            truth = Path(name) / "truth.h5"
            write_truth(truth, scan, 20.0)
            grid = scan.grid
            low = np.array([axis[0] for axis in (grid.lattice.x, grid.lattice.y, grid.lattice.z)])
            size, spacing = np.array(grid.size), np.array(grid.lattice.spacing_mm)
            positions.append(
                atlas_positions(truth, grid.world(low + (fractions() * size - 0.5) * spacing)),
            )
            images.append(to_unit(thumbnail(scan.hu, SHAPE), *HU)[None])
            truth.unlink()
    in_voxels, in_body = (np.stack(side) for side in zip(*positions, strict=True))
    return Cohort(np.stack(images), in_voxels, in_body, parts)


def read(data: Path, parts: tuple[int, int, int]) -> Cohort:
    """The first scans of a study's data/, by split: training patients to learn from, validation ones for the rest."""
    root = data.resolve().parent
    with open_h5(root / paths.THUMBNAILS) as file:
        scans, split = file["scan"][...], file["split"][...]
        chosen = []
        for name, count in ((b"train", parts[0]), (b"validation", parts[1] + parts[2])):
            here = np.flatnonzero(split == name)
            if len(here) < count:
                raise InputError(
                    f"{data}: must have {count} {name.decode()} scans, has {len(here)}; ask for fewer"
                )
            chosen += list(here[:count])
        hu = file["thumbnails"][sorted(chosen)][np.argsort(np.argsort(chosen))]
        images = to_unit(hu, float(file.attrs["hu_min"]), float(file.attrs["hu_max"]))[:, None]
    positions = []
    for index in chosen:
        scan = scans[index].decode()
        with h5py.File(root / paths.scan(scan)) as file:
            size = np.array(file["image"].shape[::-1])
            places = file.attrs["origin_mm"] + (fractions() * size - 0.5) * file.attrs["spacing_mm"]
        positions.append(atlas_positions(root / paths.TRUTH / f"{scan}.h5", places))
    in_voxels, in_body = (np.stack(side) for side in zip(*positions, strict=True))
    return Cohort(images, in_voxels, in_body, parts)


# ------------------------------------------------------------------------------------------ networks


def network(variant: str, width: int, seed: int) -> nn.Module:
    """A network with its first weights."""
    if variant == "with skips":
        model = UNet(Network(width=width, depth=DEPTH, norm="batch"))
    else:
        model = AutoEncoder(width, DEPTH)
    initialize(model, torch_generator(seed, "bench", variant, "weights"))
    return model.to(memory_format=torch.channels_last_3d)


def decode(model: nn.Module, bottleneck: Tensor, skips: list[Tensor]) -> Tensor:
    """Scans from a bottleneck and, where the network has skip connections, from what goes by them."""
    if isinstance(model, UNet):
        return torch.sigmoid(model.out(model.decode(bottleneck, skips)))
    for level in model.decoder:
        bottleneck = level(bottleneck)
    return torch.sigmoid(model.out(bottleneck))


@dataclass(frozen=True)
class Trained:
    """A training: errors on the patients to stop by, epoch by epoch, and weights."""

    stopping: list[float]
    best_epoch: int  # from 1, within the patience
    best: dict[str, Tensor]
    last: dict[str, Tensor]


def train(model: nn.Module, cohort: Cohort, epochs: int, seed: int) -> Trained:
    """All epochs; the best weights are those with which a training with patience would have ended."""
    learned, stopping, _ = cohort.ranges
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, HALVED_AFTER, gamma=0.5)
    errors: list[float] = []
    best, best_epoch = copy.deepcopy(model.state_dict()), 0
    for epoch in range(epochs):
        model.train()
        order = generator(seed, "bench", "", f"epoch {epoch}").permutation(learned)
        for indices in index_batches(order, BATCH):
            loss = reconstruction_loss(model, {"scan": tensor(cohort, indices)})["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        halving.step()
        model.eval()
        with torch.inference_mode():
            errors.append(
                float(
                    np.mean(
                        [
                            reconstruction_loss(model, {"scan": tensor(cohort, [index])})["loss"]
                            for index in stopping
                        ]
                    )
                )
            )
        if errors[-1] == min(errors) and epoch - best_epoch < PATIENCE:
            best, best_epoch = copy.deepcopy(model.state_dict()), epoch + 1
    return Trained(errors, best_epoch, best, copy.deepcopy(model.state_dict()))


def tensor(cohort: Cohort, indices: np.ndarray | list[int]) -> Tensor:
    """Scans (n, 1, z, y, x)."""
    return torch.from_numpy(cohort.images[indices]).contiguous(memory_format=torch.channels_last_3d)


# ------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Figures:
    """What is measured of weights on the held-out patients."""

    error: float
    another: float  # with another patient's bottleneck
    mean: float  # with the mean bottleneck of the learned patients
    in_voxels: float  # Spearman's correlations
    in_body: float


@torch.inference_mode()
def figures(model: nn.Module, cohort: Cohort, apart: dict[str, np.ndarray]) -> Figures:
    """Errors and rankings of a network; `apart` holds what its vectors' distances are held against."""
    model.eval()
    learned, _, held = cohort.ranges
    middle = torch.stack([model.encoder(tensor(cohort, [index]))[0][0] for index in learned]).mean(dim=0)[
        None
    ]
    given = [tensor(cohort, [index]) for index in held]
    encoded = [model.encoder(scan) for scan in given]
    own, others, average = [], [], []
    for place, (scan, (bottleneck, skips)) in enumerate(zip(given, encoded, strict=True)):
        own.append(_error(decode(model, bottleneck, skips), scan))
        average.append(_error(decode(model, middle, skips), scan))
        for step in range(1, OTHERS + 1):
            other = encoded[(place + step) % len(encoded)][0]
            others.append(_error(decode(model, other, skips), scan))
    vectors = np.stack([spatial_mean(bottleneck)[0].numpy() for bottleneck, _ in encoded])
    return Figures(
        *(float(np.mean(errors)) for errors in (own, others, average)),
        *(ranking(vectors, apart[name]) for name in ("in_voxels", "in_body")),
    )


def _error(returned: Tensor, scan: Tensor) -> float:
    return float(torch.mean((returned - scan) ** 2))


def ranking(vectors: np.ndarray, apart: np.ndarray) -> float:
    """Spearman's correlation of L2 distances of vectors (n, values) with other distances of the same pairs."""
    distances = [np.linalg.norm(vectors[a] - vectors[b]) for a, b in combinations(range(len(vectors)), 2)]
    return float(spearmanr(distances, apart).statistic)


def distances(positions: np.ndarray) -> np.ndarray:
    """Mean distance, mm, between atlas positions (n, place, 3) of every pair, over the places known in both."""
    return np.array(
        [
            np.nanmean(np.linalg.norm(positions[a] - positions[b], axis=1))
            for a, b in combinations(range(len(positions)), 2)
        ]
    )


# -------------------------------------------------------------------------------------------- tables


def line(name: str, rows: list[Figures]) -> str:
    """A variant's figures: the mean over the seeds, the least and the greatest."""
    cells = []
    for field, form in (
        ("error", ".5f"),
        ("another", ".5f"),
        ("mean", ".5f"),
        ("in_voxels", ".2f"),
        ("in_body", ".2f"),
    ):
        values = [getattr(row, field) for row in rows]
        cells.append(f"{np.mean(values):{form}} ({min(values):{form}}-{max(values):{form}})")
    return f"{name:22s}" + "  ".join(f"{cell:26s}" for cell in cells)


def controls(cohort: Cohort, width: int, apart: dict[str, np.ndarray]) -> Iterator[str]:
    """What no training gives: the mean scan, the scans themselves as vectors, and the encoder as it is drawn."""
    learned, _, held = cohort.ranges
    mean = cohort.images[learned].mean(axis=0)
    error = float(np.mean((cohort.images[held] - mean) ** 2))
    another = np.mean(
        [
            np.mean((cohort.images[a] - cohort.images[b]) ** 2)
            for n, a in enumerate(held)
            for b in [held[(n + step) % len(held)] for step in range(1, OTHERS + 1)]
        ]
    )
    yield f"error of the learned patients' mean scan: {error:.5f}; of another held-out patient's scan: {another:.5f}"
    raw = [ranking(cohort.images[held].reshape(len(held), -1), apart[name]) for name in apart]
    yield f"ranking by the scans themselves (L2 of thumbnails): {raw[0]:.2f} and {raw[1]:.2f}"
    untrained = []
    for seed in range(SEEDS):
        model = network(VARIANTS[0], width, seed).eval()
        with torch.inference_mode():
            vectors = np.stack(
                [spatial_mean(model.encoder(tensor(cohort, [index]))[0])[0].numpy() for index in held]
            )
        untrained.append([ranking(vectors, apart[name]) for name in apart])
    voxels, body = np.mean(untrained, axis=0)
    yield f"ranking by the encoder as it is drawn, not trained: {voxels:.2f} and {body:.2f} (mean of {SEEDS})"


def compare(cohort: Cohort, width: int, epochs: int) -> float:
    """Train and print; by how many times more another's bottleneck multiplies the error without skips than with."""
    learned, stopping, held = (len(part) for part in cohort.ranges)
    shape = " x ".join(map(str, cohort.images.shape[2:]))
    print(
        f"{learned} patients learned from, {stopping} stopped by, {held} held out ({held * (held - 1) // 2} pairs); "
        f"scans of {shape}; width {width}, {width * 2**DEPTH} values; {epochs} epochs; {SEEDS} seeds"
    )
    kept = cohort.ranges[2]
    apart = {"in_voxels": distances(cohort.in_voxels[kept]), "in_body": distances(cohort.in_body[kept])}
    print("\n".join(controls(cohort, width, apart)))
    print(
        f"{'':22s}"
        + "  ".join(
            f"{name:26s}" for name in ("error", "another's", "mean", "rank, voxel grid", "rank, body")
        )
    )
    best: dict[str, list[Figures]] = {}
    for variant in VARIANTS:
        rows: dict[str, list[Figures]] = {"best": [], "last": []}
        ends = []
        for seed in range(SEEDS):
            model = network(variant, width, seed)
            trained = train(model, cohort, epochs, seed)
            ends.append(
                f"{trained.best_epoch} ({trained.stopping[trained.best_epoch - 1]:.5f}; last {trained.stopping[-1]:.5f})"
            )
            for name in rows:
                model.load_state_dict(getattr(trained, name))
                rows[name].append(figures(model, cohort, apart))
        for name, some in rows.items():
            print(line(f"{variant}, {name}", some), flush=True)
        print(f"{'':22s}best epochs, and errors on the patients to stop by: {', '.join(ends)}")
        best[variant] = rows["best"]
    without, with_skips = (
        np.mean([row.another for row in best[variant]]) / np.mean([row.error for row in best[variant]])
        for variant in VARIANTS
    )
    print(
        f"another's bottleneck multiplies the error by {without:.2f} without skips, by {with_skips:.2f} with them"
    )
    return float(without / with_skips)


def main() -> None:
    """Train both on one cohort, print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="a study's data/ folder, resampled; phantoms made here without"
    )
    parser.add_argument("--learned", type=int, default=60, help="patients to learn from")
    parser.add_argument("--stopping", type=int, default=20, help="patients to stop by")
    parser.add_argument("--held", type=int, default=40, help="patients to measure on")
    parser.add_argument("--width", type=int, default=4, help="channels of the first convolution")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = (options.learned, options.stopping, options.held)
    cohort = read(options.data, parts) if options.data else made(parts)
    print(f"ratio {compare(cohort, options.width, options.epochs):.2f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
