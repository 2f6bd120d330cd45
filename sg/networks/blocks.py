"""What the networks are built of: normalisations, the convolution unit, and the encoder they share.

Tensors are (n, channel, z, y, x) throughout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sg.errors import InputError


def norm_of(kind: str, channels: int) -> nn.Module:
    """The normalisation named `kind` for that many channels; eps 1e-5 and, where running, momentum 0.1.

    `batch` uses running statistics in evaluation; `current-batch` the statistics of the batch at hand, in
    evaluation too, as the published networks do (their predictions then depend on the batch); `instance` those of
    each sample and channel; `group` those of each sample and group of channels, in 8 groups or in as many fewer
    as divide the channels. All have a learned scale and shift.
    """
    if kind == "batch":
        return nn.BatchNorm3d(channels, eps=1e-5, momentum=0.1)
    if kind == "current-batch":
        return nn.BatchNorm3d(channels, eps=1e-5, track_running_stats=False)
    if kind == "instance":
        return nn.InstanceNorm3d(channels, eps=1e-5, affine=True)
    if kind == "group":
        groups = next(groups for groups in range(8, 0, -1) if channels % groups == 0)
        return nn.GroupNorm(groups, channels, eps=1e-5)
    raise InputError(f"network.norm: must be batch, current-batch, instance or group, got {kind!r}")


class Unit(nn.Module):
    """Convolution 3x3x3 with padding and bias, normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels, kernel_size=3, padding=1)
        self.norm = norm_of(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, z, y, x) -> (n, channels, z, y, x)."""
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class Pair(nn.Module):
    """Two convolution units, one level of an encoder or decoder."""

    def __init__(self, channels_in: int, channels_between: int, channels: int, norm: str) -> None:
        super().__init__()
        self.first = Unit(channels_in, channels_between, norm)
        self.second = Unit(channels_between, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, z, y, x) -> (n, channels, z, y, x)."""
        return self.second(self.first(x))


class Encoder(nn.Module):
    """`depth` levels of two convolutions with max pooling between them.

    Level i widens its input to width * 2^i and then to width * 2^(i+1) channels; the last level is the
    bottleneck, at 1 / 2^(depth-1) of the resolution.
    """

    def __init__(self, width: int, depth: int, norm: str, channels_in: int = 1) -> None:
        super().__init__()
        self.norm = norm
        self.channels = [width * 2 ** (level + 1) for level in range(depth)]
        sources = [channels_in, *self.channels[:-1]]
        self.levels = nn.ModuleList(
            Pair(source, width * 2**level, self.channels[level], norm) for level, source in enumerate(sources)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(n, channels_in, z, y, x) -> the bottleneck and the levels before it, highest resolution first.

        InputError if a side does not halve evenly at every level, or leaves too little at the bottleneck for its
        normalisation.
        """
        self._check(x)
        skips = []
        for level in self.levels[:-1]:
            x = level(x)
            skips.append(x)
            x = max_pool(x)
        return self.levels[-1](x), skips

    def _check(self, x: Tensor) -> None:
        step = 2 ** (len(self.levels) - 1)
        sides = tuple(x.shape[2:])
        if len(sides) != 3 or any(side % step or side == 0 for side in sides):
            raise InputError(
                f"network.depth: with {len(self.levels)} levels every side (z, y, x) must be a multiple of {step}, "
                f"got an input of {sides}; choose another patch size or depth"
            )
        if math.prod(sides) == step**3:
            self._check_spread(len(x), sides)

    def _check_spread(self, n: int, sides: tuple[int, ...]) -> None:
        """InputError if, of inputs with one voxel at the bottleneck, a statistic there is over one value."""
        norm = self.levels[-1].first.norm
        values = {
            "batch": n if self.training else None,
            "current-batch": n,
            "instance": 1,
            "group": norm.num_channels // norm.num_groups if self.norm == "group" else None,
        }[self.norm]
        if values == 1:
            raise InputError(
                f"network.norm: inputs of {sides} in batches of {n} are one voxel at the bottleneck of "
                f"{len(self.levels)} levels, where {self.norm!r} norm would take its statistics of one value; "
                "use larger patches or fewer levels"
            )


def max_pool(x: Tensor) -> Tensor:
    """The greatest of every 2x2x2 voxels: (n, c, z, y, x) -> (n, c, z/2, y/2, x/2); even sides."""
    if not x.is_cuda:
        return functional.max_pool3d(x, 2)
    # torch has no deterministic gradient of max_pool3d on a GPU and refuses it; this has one.
    return blockwise_max(x)


def blockwise_max(x: Tensor) -> Tensor:
    """`max_pool` by a reduction; where voxels tie, they share the gradient."""
    n, c, z, y, w = x.shape
    return x.reshape(n, c, z // 2, 2, y // 2, 2, w // 2, 2).amax(dim=(3, 5, 7))


def spatial_mean(x: Tensor) -> Tensor:
    """Global average pooling: (n, channel, z, y, x) -> (n, channel)."""
    return torch.mean(x, dim=(2, 3, 4))
