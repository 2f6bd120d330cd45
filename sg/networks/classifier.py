"""A classifier of patches on the U-Net's encoder."""

from __future__ import annotations

from torch import Tensor, nn

from sg.networks.blocks import Encoder, spatial_mean
from sg.networks.unet import NetworkSize


class Classifier(nn.Module):
    """Encoder, global average pooling of the bottleneck, and a linear head.

    The encoder's tensors have the names they have in `UNet`, so that pre-trained weights fit. `hidden` is the
    width of a layer with ReLU between the two, 0 for none: the published target tasks have none in PyTorch and
    1024 in Keras.
    """

    def __init__(self, network: NetworkSize, classes: int, hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(network.width, network.depth, network.norm)
        channels = self.encoder.channels[-1]
        between = [nn.Linear(channels, hidden), nn.ReLU(inplace=True)] if hidden else []
        self.classify = nn.Sequential(*between, nn.Linear(hidden or channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, z, y, x) in [0, 1] -> logits (n, classes)."""
        bottleneck, _ = self.encoder(x)
        return self.classify(spatial_mean(bottleneck))
