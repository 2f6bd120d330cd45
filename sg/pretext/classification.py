"""Classification: from a perturbed patch, which of the discovered patterns it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sg.networks.blocks import Unit, spatial_mean


class Head(nn.Module):
    """On the bottleneck: a 3x3x3 convolution to twice the channels, norm, ReLU, mean over space, linear layer.

    14,203,948 parameters on the paper's 512 channels with its 44 patterns. Source: the published PyTorch network
    of Haghighi et al., 2020, less its softmax, which the loss holds.
    """

    def __init__(self, channels: int, patterns: int, norm: str) -> None:
        super().__init__()
        self.unit = Unit(channels, 2 * channels, norm)
        self.linear = nn.Linear(2 * channels, patterns)

    def forward(self, bottleneck: Tensor) -> Tensor:
        """(n, channels, z, y, x) -> logits (n, patterns)."""
        return self.linear(spatial_mean(self.unit(bottleneck)))


def loss(logits: Tensor, pattern: Tensor) -> Tensor:
    """Mean cross entropy of logits (n, patterns) against pattern numbers (n,), in nats.

    As log-sum-exp of the logits less the pattern's logit: a departure from the published log of a softmax, which is
    minus infinity for a logit some 104 below the highest.
    """
    return functional.cross_entropy(logits, pattern)


def accuracy(logits: Tensor, pattern: Tensor) -> Tensor:
    """Share of the patches whose highest logit is their pattern's."""
    return torch.mean((logits.argmax(dim=1) == pattern).to(logits.dtype))
