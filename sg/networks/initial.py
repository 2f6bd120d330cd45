"""First weights from a generator of one's own, instead of torch's global one."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Set every weight of `module` as torch's defaults would, drawing from `generator` (a CPU one) alone.

    Convolutions (transposed ones too) and linear layers: weight and bias uniform in +-1/sqrt(fan_in), which is
    what torch's kaiming_uniform with a = sqrt(5) comes to, fan_in being the number of values in weight[0].
    Normalisations: scale 1, shift 0, running mean 0 and variance 1. Equal modules and generators give equal
    weights, whatever was drawn from torch's global generator. A layer of another kind: TypeError.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            _fill(layer.weight, bound, generator)
            if layer.bias is not None:
                _fill(layer.bias, bound, generator)
        elif isinstance(layer, _NormBase | nn.GroupNorm):
            layer.reset_parameters()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"{name}: no rule for the first weights of a {type(layer).__name__}")


def _fill(tensor: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    # Drawn in the default memory order and on the CPU, so that the layout and place of the layer play no part.
    drawn = torch.empty(tensor.shape, dtype=tensor.dtype).uniform_(-bound, bound, generator=generator)
    with torch.no_grad():
        tensor.copy_(drawn)
