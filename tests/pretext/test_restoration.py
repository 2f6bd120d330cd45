import numpy as np
import pytest
import torch

from sg.pretext import restoration


def test_loss_is_the_mean_square_of_a_sigmoid_less_the_target():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(2, 1, 3, 4, 5)), rng.random((2, 1, 3, 4, 5))
    expected = np.mean((1 / (1 + np.exp(-logits)) - target) ** 2)
    assert restoration.loss(torch.tensor(logits), torch.tensor(target)).item() == pytest.approx(expected)


def test_a_grey_answer_to_a_black_and_white_patch_costs_a_quarter():
    target = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2)
    assert restoration.loss(torch.zeros(1, 1, 1, 1, 2), target).item() == pytest.approx(0.25)


def test_restored_patches_lie_in_0_to_1_however_large_the_logits():
    restored = restoration.restored(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]))
    torch.testing.assert_close(restored, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
