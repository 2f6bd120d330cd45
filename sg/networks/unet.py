"""The 3-D U-Net of Semantic Genesis and Models Genesis.

Size and order of the layers follow the published PyTorch networks (Haghighi et al., Transferable Visual Words,
IEEE TMI 2021; Zhou et al., Models Genesis, MedIA 2021). Departure: the output is a logit, and whoever needs
values in [0, 1] applies the sigmoid; losses on logits are steadier.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from sg.networks.blocks import Encoder, Pair


class NetworkSize(Protocol):
    """What says the size of a network: `params.Network`, or the `network` of a card."""

    width: int
    depth: int
    norm: str


class Rise(nn.Module):
    """One level of the decoder: double the resolution, join the skip connection, two convolutions."""

    def __init__(self, channels_in: int, channels_skip: int, norm: str) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(channels_in, channels_in, kernel_size=2, stride=2)
        self.pair = Pair(channels_in + channels_skip, channels_skip, channels_skip, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(n, channels_in, z, y, x) and (n, channels_skip, 2z, 2y, 2x) -> (n, channels_skip, 2z, 2y, 2x)."""
        return self.pair(torch.cat([self.up(x), skip], dim=1))


class UNet(nn.Module):
    """U-Net of `network.depth` levels whose first convolution has `network.width` channels.

    The paper's is 32 wide and 4 deep, has 512 channels at the bottleneck and 19,073,665 parameters (encoder
    7,027,776; decoder with the output convolution 12,045,889). Every side of the input must be a multiple of
    2^(depth-1).
    """

    def __init__(self, network: NetworkSize, channels_out: int = 1) -> None:
        super().__init__()
        self.encoder = Encoder(network.width, network.depth, network.norm)
        channels = self.encoder.channels
        self.decoder = nn.ModuleList(
            Rise(channels[level + 1], channels[level], network.norm)
            for level in reversed(range(network.depth - 1))
        )
        self.out = nn.Conv3d(channels[0], channels_out, kernel_size=1)

    @property
    def bottleneck_channels(self) -> int:
        """Channels of the bottleneck: width * 2^depth."""
        return self.encoder.channels[-1]

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(n, 1, z, y, x) in [0, 1] -> bottleneck (n, width * 2^depth, z / 2^(depth-1), ...) and the skips."""
        return self.encoder(x)

    def decode(self, bottleneck: Tensor, skips: list[Tensor]) -> Tensor:
        """What `encode` gave -> features (n, 2 * width, z, y, x) under the output convolution."""
        x = bottleneck
        for rise, skip in zip(self.decoder, reversed(skips), strict=True):
            x = rise(x, skip)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, z, y, x) in [0, 1] -> logits (n, channels_out, z, y, x)."""
        return self.out(self.decode(*self.encode(x)))
