import math

import numpy as np
import pytest
import torch

from sg.networks.initial import initialize
from sg.pretext import classification


def head(norm: str = "batch", patterns: int = 5) -> classification.Head:
    made = classification.Head(4, patterns, norm)
    initialize(made, torch.Generator().manual_seed(0))
    return made


def test_the_papers_head_has_14_203_948_parameters():
    # Convolution 512 * 1024 * 27 + 1024, norm 2 * 1024, linear layer 1024 * 44 + 44.
    made = classification.Head(512, 44, "batch")
    assert sum(tensor.numel() for tensor in made.parameters()) == 14_203_948


@pytest.mark.parametrize("norm", ["batch", "current-batch", "instance", "group"])
def test_one_logit_a_pattern_for_a_bottleneck_of_any_size(norm):
    for shape in ((1, 2, 2), (2, 3, 4)):
        assert head(norm)(torch.rand(3, 4, *shape)).shape == (3, 5)


def test_the_head_is_a_convolution_norm_relu_mean_and_linear_layer():
    made = head().eval()
    x = torch.rand(2, 4, 3, 3, 3)
    unit, linear = made.unit, made.linear
    features = torch.relu(
        unit.norm(torch.nn.functional.conv3d(x, unit.conv.weight, unit.conv.bias, padding=1))
    )
    assert features.shape == (2, 8, 3, 3, 3)
    expected = features.mean((2, 3, 4)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(made(x), expected)


def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_patterns():
    assert classification.loss(torch.zeros(3, 44), torch.tensor([0, 7, 43])).item() == pytest.approx(
        math.log(44)
    )


def test_loss_is_minus_the_mean_log_of_the_softmax():
    rng = np.random.default_rng(0)
    logits, pattern = rng.normal(size=(6, 4)), np.array([0, 1, 2, 3, 3, 0])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(softmax[np.arange(6), pattern]))
    assert classification.loss(torch.tensor(logits), torch.tensor(pattern)).item() == pytest.approx(expected)


def test_loss_stays_finite_where_the_softmax_is_0():
    logits = torch.tensor([[0.0, 1000.0]])
    assert torch.softmax(logits, dim=1)[0, 0] == 0
    assert classification.loss(logits, torch.tensor([0])).item() == 1000


def test_accuracy_counts_the_highest_logits():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    assert classification.accuracy(logits, torch.tensor([0, 1, 1, 1])).item() == 0.75
