from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sg.errors import InputError
from sg.networks.blocks import Encoder, blockwise_max, max_pool, norm_of
from sg.networks.unet import UNet
from tests.networks.sizes import network, noise, seeded


def test_batch_norm_in_evaluation_uses_the_running_statistics():
    norm = norm_of("batch", 1)
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)  # mean 2, unbiased variance 2
    norm.train()(x)
    mean, variance = 0.9 * 0 + 0.1 * 2, 0.9 * 1 + 0.1 * 2
    expected = (x - mean) / (variance + 1e-5) ** 0.5
    assert torch.allclose(norm.eval()(x), expected)


def test_current_batch_norm_gives_in_evaluation_what_it_gives_in_training():
    unet = seeded(UNet(network(norm="current-batch")))
    x = noise(3, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(unet.train()(x), unet.eval()(x))


def test_current_batch_norm_uses_the_statistics_of_the_batch_at_hand():
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)  # mean 2, variance over the batch 1
    expected = (x - 2) / (1 + 1e-5) ** 0.5
    assert torch.allclose(norm_of("current-batch", 1).eval()(x), expected)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_a_prediction_does_not_depend_on_its_batch(norm):
    unet = seeded(UNet(network(norm=norm))).eval()
    x = noise(3, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(unet(x)[:1], unet(x[:1]), atol=1e-6)


def test_the_published_normalisation_makes_a_prediction_depend_on_its_batch():
    unet = seeded(UNet(network(norm="current-batch"))).eval()
    x = noise(3, 1, 8, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(unet(x)[:1], unet(x[:1]), atol=1e-3)


@given(st.integers(1, 512))
def test_groups_are_at_most_eight_and_divide_the_channels(channels):
    groups = norm_of("group", channels).num_groups
    assert channels % groups == 0
    assert not any(channels % more == 0 for more in range(groups + 1, 9))


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(InputError, match=r"network\.norm: must be .*, got 'layer'"):
        norm_of("layer", 8)


@pytest.mark.parametrize("norm", ["batch", "current-batch"])
def test_a_batch_of_one_that_ends_in_one_voxel_is_refused_in_words(norm):
    encoder = Encoder(2, 3, norm)
    with pytest.raises(
        InputError,
        match=r"batches of 1 are one voxel at the bottleneck of 3 levels.*larger patches or fewer levels",
    ):
        encoder(noise(1, 1, 4, 4, 4))
    encoder(noise(2, 1, 4, 4, 4))  # two have a spread


def test_running_statistics_need_no_spread():
    bottleneck, _ = Encoder(2, 3, "batch").eval()(noise(1, 1, 4, 4, 4))
    assert bottleneck.shape == (1, 16, 1, 1, 1)


def test_one_voxel_is_refused_for_instance_norm_and_for_groups_of_one_channel():
    for norm in ("instance", "group"):
        with pytest.raises(InputError, match=f"'{norm}' norm would take its statistics of one value"):
            Encoder(2, 3, norm)(noise(2, 1, 4, 4, 4))
    Encoder(4, 3, "group")(noise(1, 1, 4, 4, 4))  # 16 channels: groups of two


def test_the_pooling_for_a_gpu_equals_the_one_for_a_cpu():
    x = noise(2, 3, 4, 6, 8)
    gradients = []
    for pool in (max_pool, blockwise_max):
        leaf = x.clone().requires_grad_()
        y = pool(leaf)
        (y**2).sum().backward()
        gradients.append(leaf.grad)
        assert torch.equal(y, torch.nn.MaxPool3d(2)(x))
    assert torch.equal(*gradients)  # no two voxels tie in noise
