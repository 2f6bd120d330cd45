"""Pre-training of one method: a cache of patches, perturbations and pretext tasks, put together as its recipe says.

All methods start from the same U-Net weights and differ only by their recipe. What a patch goes through in an
epoch is keyed by the epoch and the patch's row, so that it depends neither on the order of patches nor on the
number of workers; validation patches are perturbed alike in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sg import intensity, params, perturbations, weights
from sg.errors import InputError
from sg.networks.initial import initialize
from sg.networks.unet import UNet
from sg.patches import PatchCache
from sg.pretext import classification, restoration
from sg.randomness import generator, torch_generator
from sg.storage import create_h5, write_array
from sg.threads import ahead
from sg.training import Fitted, fit, index_batches

EXAMPLES = 4
# Batches in the making at a time; each takes some 100 MB at the published patch and batch sizes.
AHEAD = 3

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pretrained:
    """What came of a method's run."""

    fitted: Fitted
    parameters: int


class Pretext(nn.Module):
    """The U-Net and the heads of the pretext tasks that count in the loss."""

    def __init__(self, network: params.Network, losses: params.Losses, patterns: int) -> None:
        super().__init__()
        self.restores = losses.restoration > 0
        self.unet = UNet(network)
        self.head = nn.ModuleDict()
        if losses.classification > 0:
            self.head["classification"] = classification.Head(
                self.unet.bottleneck_channels, patterns, network.norm
            )

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(n, 1, z, y, x) in [0, 1] -> logits by pretext task; the decoder runs only for restoration."""
        bottleneck, skips = self.unet.encode(patches)
        logits = {}
        if self.restores:
            logits["restoration"] = self.unet.out(self.unet.decode(bottleneck, skips))
        for task, head in self.head.items():
            logits[task] = head(bottleneck)
        return logits


def weighted_loss(model: nn.Module, batch: dict[str, Tensor], losses: params.Losses) -> dict[str, Tensor]:
    """Scalars by name: `loss`, the weighted sum of the pretext losses, then each of these, and the accuracy."""
    logits = model(batch["perturbed"])
    parts, total = {}, 0
    if "restoration" in logits:
        parts["restoration"] = restoration.loss(logits["restoration"], batch["target"])
        total = total + losses.restoration * parts["restoration"]
    if "classification" in logits:
        parts["classification"] = classification.loss(logits["classification"], batch["pattern"])
        total = total + losses.classification * parts["classification"]
        parts["accuracy"] = classification.accuracy(logits["classification"], batch["pattern"])
    return {"loss": total, **parts}


@dataclass(frozen=True)
class Feed:
    """The batches of one method's training and validation, from its cache.

    `workers` threads read and perturb ahead of the training; they change nothing in the batches.
    """

    cache: PatchCache
    method: str
    seed: int
    steps: Sequence[params.Step]
    batch: int
    workers: int

    def rows_of(self, split: str) -> np.ndarray:
        """The cache's row numbers of one split."""
        return self.cache.select(splits=[split])

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The training batches of an epoch (from 0), shuffled; the same whenever they are asked for."""
        rng = generator(self.seed, "pretrain", self.method, f"epoch {epoch} order")
        rows = rng.permutation(self.rows_of("train"))
        return self._made(rows, f"epoch {epoch}")

    def validation(self) -> Iterator[Batch]:
        """The validation batches, the same at every call."""
        return self._made(self.rows_of("validation"), "validation")

    def examples(self, most: int) -> Batch:
        """One batch of at most so many validation patches, evenly spread over the cache's rows."""
        rows = self.rows_of("validation")
        chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
        return self.make(rows[chosen], "validation")

    def make(self, rows: np.ndarray, occasion: str) -> Batch:
        """Those rows, perturbed as on that occasion: `perturbed` and `target` float32 (n, 1, z, y, x), `pattern`."""
        hu = self.cache.read(rows)
        patches = intensity.to_unit(hu, self.cache.hu_min, self.cache.hu_max)
        perturbed, target = np.empty_like(patches), np.empty_like(patches)
        for index, row in enumerate(rows):
            rng = generator(self.seed, "pretrain", self.method, f"{occasion} row {row}")
            drawn = perturbations.draw(rng, self.steps, patches.shape[1:])
            perturbed[index], target[index] = perturbations.apply(patches[index], drawn)
        pattern = self.cache.rows["pattern"][rows].astype(np.int64)
        return {"perturbed": perturbed[:, None], "target": target[:, None], "pattern": pattern}

    def _made(self, rows: np.ndarray, occasion: str) -> Iterator[Batch]:
        """The batches in order, made by threads a few ahead of the one that is asked for."""
        groups = index_batches(rows, self.batch)
        return ahead(lambda group: self.make(group, occasion), groups, self.workers, AHEAD)


def pretrain(
    method: str,
    shared: params.PretrainShared,
    recipe: params.MethodRecipe,
    seed: int,
    *,
    clip: tuple[float, float],
    state: Path,
    folder: Path,
    workers: int,
) -> Pretrained:
    """Run one method and write weights.safetensors, card.json, history.csv and examples.h5 into `folder`.

    `state` is where a killed run is taken up again; `workers` threads prepare patches, and no result depends on
    how many. The U-Net's first weights are keyed by the seed alone, the same for all methods; each head's by the
    method. `clip` is the range of HU that the study's scans are clipped to. InputError if the cache's patches do not
    suit the network, the perturbations or that range, or a split is empty.
    """
    cache = PatchCache(Path(recipe.reads))
    check(cache, shared.network, recipe, clip)
    model = Pretext(shared.network, recipe.losses, cache.patterns)
    initialize(model.unet, torch_generator(seed, "pretrain", "", "weights"))
    for task, head in model.head.items():
        initialize(head, torch_generator(seed, "pretrain", method, f"head {task}"))
    feed = Feed(cache, method, seed, tuple(recipe.perturbations), shared.training.batch, workers)
    fitted = fit(
        model,
        partial(weighted_loss, losses=recipe.losses),
        feed.batches,
        feed.validation,
        shared.training,
        state=state,
        history=folder / "history.csv",
        live=f"pretrain-{method}",
        what=method,
    )
    learned = learned_tensors(model)
    parameters = sum(learned[name].numel() for name in _parameter_names(model) if name in learned)
    weights.save(folder, learned, card(method, shared.network, recipe.losses, cache, fitted, parameters))
    write_examples(folder / "examples.h5", model, feed.examples(EXAMPLES))
    return Pretrained(fitted, parameters)


def check(
    cache: PatchCache, network: params.Network, recipe: params.MethodRecipe, clip: tuple[float, float]
) -> None:
    """InputError unless the cache's patches suit the network, the perturbations, the study and the pretext tasks.

    `clip` is the range of HU of the study's scans: weights learned on another would see all else too bright or too
    dark.
    """
    _check_size(cache, network, recipe)
    if (cache.hu_min, cache.hu_max) != clip:
        remedy = _remedy(
            recipe,
            "run `dvc repro patches`",
            f"set resample.hu_min and resample.hu_max to {cache.hu_min:g} and {cache.hu_max:g}, or take another cache",
        )
        raise InputError(
            f"{recipe.reads}: its patches must be clipped as the scans of this study, to {clip[0]:g} to {clip[1]:g} HU, "
            f"got {cache.hu_min:g} to {cache.hu_max:g}; {remedy}"
        )
    for split in ("train", "validation"):
        if not np.any(cache.rows["split"] == split.encode()):
            remedy = _remedy(
                recipe,
                "see data/cohort/summary.json for the splits, and cohort.splits to change them",
                "take a cache with patients to learn from and patients to stop by",
            )
            raise InputError(
                f"{recipe.reads}: there must be patches of {split} patients, got none among {len(cache.rows)}; {remedy}"
            )
    pattern = cache.rows["pattern"]
    if recipe.losses.classification > 0 and (
        cache.patterns < 2 or pattern.min() < 0 or pattern.max() >= cache.patterns
    ):
        remedy = _remedy(recipe, "raise coordinates.patterns", "take a cache of patterns")
        raise InputError(
            f"{recipe.reads}: to classify there must be at least 2 patterns, numbered from 0, got "
            f"{cache.patterns} with numbers {pattern.min()} to {pattern.max()}; {remedy} or "
            "set losses.classification of this method to 0"
        )


def _check_size(cache: PatchCache, network: params.Network, recipe: params.MethodRecipe) -> None:
    size = tuple(int(side) for side in cache.patch_size)
    step = 2 ** (network.depth - 1)
    if any(side % step for side in size):
        remedy = _remedy(recipe, "change coordinates.patch_size or the depth", "change the depth")
        raise InputError(
            f"{recipe.reads}: every side of a patch must be a multiple of {step}, because "
            f"pretrain.shared.network.depth is {network.depth}, got {size}; {remedy}"
        )
    if recipe.perturbations and min(size) < perturbations.SIDE_MIN:
        remedy = _remedy(recipe, "make coordinates.patch_size larger", "take a cache of larger patches")
        raise InputError(
            f"{recipe.reads}: to be perturbed a patch must have sides of at least {perturbations.SIDE_MIN} voxels, "
            f"got {size}; {remedy}, or leave the recipe's perturbations empty"
        )


def _remedy(recipe: params.MethodRecipe, of_the_study: str, brought: str) -> str:
    """What to do about a cache that the study makes, or about one brought along."""
    return of_the_study if recipe.reads in (params.DISCOVERED, params.RANDOM) else brought


def learned_tensors(model: Pretext) -> dict[str, Tensor]:
    """The weights to keep, by name: the U-Net's under their own names, the heads' under head.<task>.

    A decoder that took no part in the loss is left out, so that whoever starts from these weights draws its own.
    """
    return {
        name.removeprefix("unet."): tensor
        for name, tensor in model.state_dict().items()
        if model.restores or not name.startswith(("unet.decoder.", "unet.out."))
    }


def card(
    method: str,
    network: params.Network,
    losses: params.Losses,
    cache: PatchCache,
    fitted: Fitted,
    parameters: int,
) -> dict[str, Any]:
    """What the weights are: the network, what its patches were, and how the training ended."""
    return {
        "method": method,
        "network": {"architecture": "unet", "channels_in": 1, **network.model_dump(mode="json")},
        "hu_min": float(cache.hu_min),
        "hu_max": float(cache.hu_max),
        "patch_size": [int(side) for side in cache.patch_size],
        "patterns": int(cache.patterns),
        "losses": losses.model_dump(mode="json"),
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "best_validation": fitted.best_validation,
        "parameters": parameters,
    }


def write_examples(path: Path, model: Pretext, batch: Batch) -> None:
    """Write `original`, `perturbed` and, where the method restores, `restored`: float32 (m, z, y, x) in [0, 1].

    The original is what was to be restored, so after a flip it is flipped too.
    """
    examples = {"original": batch["target"], "perturbed": batch["perturbed"]}
    if model.restores:
        with torch.no_grad():
            logits = model(torch.from_numpy(batch["perturbed"]))["restoration"]
        examples["restored"] = restoration.restored(logits).numpy()
    with create_h5(path) as file:
        for name, patches in examples.items():
            write_array(file, name, np.ascontiguousarray(patches[:, 0]))


def _parameter_names(model: Pretext) -> list[str]:
    return [name.removeprefix("unet.") for name, _ in model.named_parameters()]
