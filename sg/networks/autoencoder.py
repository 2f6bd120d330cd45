"""The auto-encoder of whole scans whose bottleneck is the space in which patients are compared.

Departure from the published feature extractor, which is the U-Net itself: there are no skip connections. Through
them the input reaches the output without passing the bottleneck, which then need not describe the scan.
"""

from __future__ import annotations

from torch import Tensor, nn

from sg.networks.blocks import Encoder, Pair, spatial_mean
from sg.networks.initial import initialize
from sg.randomness import torch_generator


class AutoEncoder(nn.Module):
    """The U-Net's encoder, and its decoder without the concatenations; batch norm.

    Every side of the input must be a multiple of 2^(depth-1).
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = Encoder(width, depth, "batch")
        channels = self.encoder.channels
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose3d(channels[level + 1], channels[level + 1], kernel_size=2, stride=2),
                Pair(channels[level + 1], channels[level], channels[level], "batch"),
            )
            for level in reversed(range(depth - 1))
        )
        self.out = nn.Conv3d(channels[0], 1, kernel_size=1)

    @property
    def channels(self) -> int:
        """Length of an embedding: width * 2^depth; 512 in the paper."""
        return self.encoder.channels[-1]

    def embed(self, x: Tensor) -> Tensor:
        """(n, 1, z, y, x) in [0, 1] -> (n, channels): the bottleneck averaged over space."""
        return spatial_mean(self.encoder(x)[0])

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, z, y, x) in [0, 1] -> logits (n, 1, z, y, x) of the same scans."""
        x, _ = self.encoder(x)
        for level in self.decoder:
            x = level(x)
        return self.out(x)


def untrained(width: int, depth: int, seed: int) -> AutoEncoder:
    """The auto-encoder with the weights that its training begins with in a study of that seed."""
    model = AutoEncoder(width, depth)
    initialize(model, torch_generator(seed, "embed", "", "weights"))
    return model
