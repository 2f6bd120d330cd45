"""Small networks for tests."""

from __future__ import annotations

import torch

from sg.networks.initial import initialize
from sg.params import Network


def network(width: int = 2, depth: int = 3, norm: str = "batch") -> Network:
    return Network(width=width, depth=depth, norm=norm)


def seeded(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    initialize(module, torch.Generator().manual_seed(seed))
    return module


def noise(*shape: int, seed: int = 2) -> torch.Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
