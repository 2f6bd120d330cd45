"""Restoration: from a perturbed patch, the patch as it was."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def restored(logits: Tensor) -> Tensor:
    """The network's patch in [0, 1], of the logits' shape (n, 1, z, y, x)."""
    return torch.sigmoid(logits)


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the restored patches over all voxels; both (n, 1, z, y, x), the target in [0, 1].

    Source: Zhou et al., "Models Genesis", 2021, and Haghighi et al., 2020: the mean squared error of a sigmoid.
    """
    return functional.mse_loss(restored(logits), target)
