from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sg.networks.initial import initialize
from sg.networks.unet import UNet
from tests.networks.sizes import network


def of(module: nn.Module, seed: int) -> nn.Module:
    initialize(module, torch.Generator().manual_seed(seed))
    return module


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(3, 5, 3),
        nn.Conv3d(4, 4, 1),
        nn.ConvTranspose3d(6, 2, 2, stride=2),
        nn.Linear(7, 3),
        nn.Linear(7, 3, bias=False),
    ],
    ids=str,
)
def test_a_layer_gets_exactly_what_torch_would_draw_for_it(layer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        layer.reset_parameters()
    expected = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    of(layer, 5)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_weights_fill_their_bounds_of_one_over_the_root_of_fan_in():
    layer = of(nn.Conv3d(8, 64, 3), 1)
    bound = 1 / math.sqrt(8 * 27)
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_equal_generators_give_equal_weights_whatever_the_global_seed():
    torch.manual_seed(1)
    first = of(UNet(network()), 7).state_dict()
    torch.manual_seed(2)
    second = of(UNet(network()), 7).state_dict()
    third = of(UNet(network()), 8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["out.weight"], third["out.weight"])


def test_the_global_generator_is_left_alone():
    unet = UNet(network())
    before = torch.get_rng_state()
    of(unet, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_layout_in_memory_plays_no_part():
    plain = of(nn.Conv3d(4, 4, 3), 3)
    last = of(nn.Conv3d(4, 4, 3).to(memory_format=torch.channels_last_3d), 3)
    assert torch.equal(plain.weight, last.weight)


def test_normalisations_start_at_scale_one_and_forget_what_they_saw():
    norm = nn.BatchNorm3d(2)
    norm(torch.randn(4, 2, 2, 2, 2, generator=torch.Generator().manual_seed(1)))
    nn.init.constant_(norm.weight, 5)
    of(norm, 1)
    assert norm.weight.tolist() == [1, 1]
    assert norm.bias.tolist() == [0, 0]
    assert norm.running_mean.tolist() == [0, 0]
    assert norm.running_var.tolist() == [1, 1]
    assert norm.num_batches_tracked == 0


def test_a_layer_without_a_rule_is_an_error_instead_of_a_global_draw():
    with pytest.raises(TypeError, match="0: no rule for the first weights of a PReLU"):
        of(nn.Sequential(nn.PReLU()), 1)
