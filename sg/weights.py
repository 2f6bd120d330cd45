"""Weights with the card that says what they are: weights.safetensors and card.json in one folder.

safetensors holds tensors and nothing that could run; equal tensors give equal bytes. The card of a method is
{"method", "network": {"architecture", "width", "depth", "norm", "channels_in"}, "hu_min", "hu_max", "patch_size",
"patterns", "losses", "epochs", "best_epoch", "best_validation", "parameters"}; that of `scratch` has only the
first two, and no weights lie beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from sg.errors import InputError

WEIGHTS = "weights.safetensors"
CARD = "card.json"


def save(folder: Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Write weights.safetensors and card.json into `folder`, which exists. Values must be JSON's, and finite."""
    save_tensors(folder / WEIGHTS, tensors)
    text = json.dumps(card, indent=2, sort_keys=True, allow_nan=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors as safetensors, each in the default memory order, whatever its layout and device."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Not safetensors' own save_file, which leaves a file that only its owner may read, whatever the umask.
    path.write_bytes(to_bytes(plain))


def read_card(folder: Path) -> dict[str, Any]:
    """The card in `folder`. InputError if there is none, or none that can be read."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error}); make it again") from None
    if not isinstance(card, dict) or "method" not in card or not isinstance(card.get("network"), dict):
        raise InputError(f"{path}: a card must name its `method` and its `network`; make it again")
    return card


def load_into(model: nn.Module, folder: Path) -> int:
    """Copy every tensor of the folder's weights whose name `model` has into it; the number of them.

    What only the file has (the heads of a pretext task) and what only the model has (a new output) stays as it
    is. InputError if a common name has two shapes, or if there is none in common.
    """
    return load_tensors(model, Path(folder) / WEIGHTS)


def load_tensors(model: nn.Module, path: Path) -> int:
    """`load_into` from one safetensors file."""
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there are no weights; run `dvc repro` to make them") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); make it again") from None
    own = model.state_dict()
    common = [name for name in own if name in stored]
    for name in common:
        if stored[name].shape != own[name].shape:
            raise InputError(
                f"{path}: {name} must have the shape {tuple(own[name].shape)} in this network, got "
                f"{tuple(stored[name].shape)}; the weights are of another width, depth or number of outputs"
            )
    if not common:
        raise InputError(
            f"{path}: none of its {len(stored)} tensors has a name of this network (it has "
            f"{next(iter(sorted(stored)), 'none')!r}, the network {next(iter(sorted(own)), 'none')!r}); "
            "these are weights of something else"
        )
    with torch.no_grad():
        for name in common:
            own[name].copy_(stored[name])
    return len(common)
