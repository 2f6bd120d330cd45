from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sg.errors import InputError
from sg.networks.unet import UNet
from tests.networks.sizes import network, noise, parameters, seeded


def test_the_network_of_the_paper_has_its_19073665_parameters():
    with torch.device("meta"):
        unet = UNet(network(width=32, depth=4))
    assert parameters(unet.encoder) == 7_027_776
    assert parameters(unet.decoder) + parameters(unet.out) == 12_045_889
    assert parameters(unet) == 19_073_665
    assert unet.bottleneck_channels == 512


def test_the_convolutions_of_the_paper_have_its_channels():
    with torch.device("meta"):
        unet = UNet(network(width=32, depth=4))
    convolutions = [
        (layer.in_channels, layer.out_channels)
        for layer in unet.modules()
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d)
    ]
    down = [(1, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    up = [
        (512, 512),
        (768, 256),
        (256, 256),
        (256, 256),
        (384, 128),
        (128, 128),
        (128, 128),
        (192, 64),
        (64, 64),
    ]
    assert convolutions == [*down, *up, (64, 1)]


def test_only_the_output_convolution_is_named_out():
    names = [name for name, _ in UNet(network()).named_parameters() if name.startswith("out")]
    assert names == ["out.weight", "out.bias"]


@pytest.mark.parametrize("norm", ["batch", "current-batch", "instance", "group"])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_patch_comes_out_in_its_own_shape(depth, norm):
    side = 2**depth
    unet = seeded(UNet(network(width=2, depth=depth, norm=norm), channels_out=3))
    x = noise(2, 1, side, side, 2 * side)
    bottleneck, skips = unet.encode(x)
    assert bottleneck.shape == (2, 2 * 2**depth, 2, 2, 4)
    assert [tuple(skip.shape[1:3]) for skip in skips] == [
        (2 * 2 ** (i + 1), side // 2**i) for i in range(depth - 1)
    ]
    assert unet.decode(bottleneck, skips).shape == (2, 4, side, side, 2 * side)
    assert unet(x).shape == (2, 3, side, side, 2 * side)


def plain(state: dict[str, torch.Tensor], x: torch.Tensor, depth: int) -> torch.Tensor:
    """The published table, written down once more with torch's functions; batch norm with running statistics."""

    def unit(name: str, x: torch.Tensor) -> torch.Tensor:
        x = functional.conv3d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)
        mean, variance = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        per_channel = (1, -1, 1, 1, 1)
        x = (x - mean.view(per_channel)) / torch.sqrt(variance.view(per_channel) + 1e-5)
        x = x * state[f"{name}.norm.weight"].view(per_channel) + state[f"{name}.norm.bias"].view(per_channel)
        return x.clamp(min=0)

    skips = []
    for level in range(depth):
        x = unit(f"encoder.levels.{level}.second", unit(f"encoder.levels.{level}.first", x))
        if level < depth - 1:
            skips.append(x)
            x = functional.max_pool3d(x, kernel_size=2, stride=2)
    for level in range(depth - 1):
        name = f"decoder.{level}"
        x = functional.conv_transpose3d(x, state[f"{name}.up.weight"], state[f"{name}.up.bias"], stride=2)
        x = torch.cat((x, skips.pop()), dim=1)
        x = unit(f"{name}.pair.second", unit(f"{name}.pair.first", x))
    return functional.conv3d(x, state["out.weight"], state["out.bias"])


def test_the_network_computes_the_published_table():
    unet = seeded(UNet(network(width=2, depth=4)))
    with torch.no_grad():
        for _ in range(3):
            unet(noise(3, 1, 8, 16, 16))  # training mode: the running statistics move away from 0 and 1
        unet.eval()
        x = noise(2, 1, 8, 16, 16, seed=5)
        assert torch.allclose(unet(x), plain(unet.state_dict(), x, depth=4), atol=1e-5)


def test_a_side_that_does_not_halve_is_refused_with_the_multiple_it_needs():
    with pytest.raises(
        InputError, match=r"4 levels every side \(z, y, x\) must be a multiple of 8, got .*\(8, 12, 16\)"
    ):
        UNet(network(depth=4))(noise(1, 1, 8, 12, 16))


def test_a_network_learns_one_patch_by_heart():
    unet = seeded(UNet(network(width=4, depth=2)))
    x = noise(1, 1, 8, 8, 8)
    y = (noise(1, 1, 8, 8, 8, seed=3) > 0.5).float()
    optimizer = torch.optim.Adam(unet.parameters(), lr=0.03)
    for _ in range(60):
        loss = functional.binary_cross_entropy_with_logits(unet(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # guessing gives log(2), 0.69
