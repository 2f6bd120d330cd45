from __future__ import annotations

import torch

from sg.networks.autoencoder import AutoEncoder
from sg.networks.unet import UNet
from tests.networks.sizes import network, noise, parameters, seeded


def test_at_full_width_an_embedding_has_512_values():
    with torch.device("meta"):
        model = AutoEncoder(32, 4)
    assert model.channels == 512
    assert parameters(model.encoder) == 7_027_776


def test_it_has_the_parameters_of_the_unet_less_those_that_read_the_skips():
    with torch.device("meta"):
        unet, model = UNet(network(width=32, depth=4)), AutoEncoder(32, 4)
    # Per level: the skip's channels in, as many out, kernels of 27.
    skips = sum(channels * channels * 27 for channels in (256, 128, 64))
    assert parameters(model) == 19_073_665 - skips
    assert parameters(unet) - parameters(model) == skips


def test_scans_come_out_in_their_own_shape():
    assert AutoEncoder(2, 3)(noise(2, 1, 4, 8, 12)).shape == (2, 1, 4, 8, 12)


def test_nothing_reaches_the_output_but_through_the_bottleneck():
    model = seeded(AutoEncoder(2, 3)).eval()
    last = model.encoder.levels[-1].second.norm
    with torch.no_grad():
        torch.nn.init.constant_(last.weight, 0)  # the bottleneck says nothing now
        first, second = model(noise(2, 1, 8, 8, 8))
    assert torch.equal(first, second)


def test_an_embedding_is_the_spatial_mean_of_the_bottleneck_and_independent_of_its_batch():
    model = seeded(AutoEncoder(2, 3)).eval()
    x = noise(3, 1, 8, 8, 8)
    with torch.no_grad():
        bottleneck, _ = model.encoder(x)
        assert torch.allclose(model.embed(x), bottleneck.sum(dim=(2, 3, 4)) / 8)
        assert torch.allclose(model.embed(x)[1], model.embed(x[1:2])[0], atol=1e-6)
