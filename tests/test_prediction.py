"""Whole scans: the windows put together give back what each of them saw."""

import numpy as np
import pytest
import torch
from torch import nn

from sg import prediction
from sg.prediction import patch_scores, voxel_probabilities


class Logit(nn.Module):
    """Sigmoid of it is the input again."""

    def forward(self, x):
        return torch.logit(x)


class Mean(nn.Module):
    """One logit a patch: its mean."""

    def forward(self, x):
        return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize("shape", [(8, 8, 8), (11, 16, 21), (5, 8, 9)])
def test_a_network_that_gives_back_its_input_reproduces_the_scan(shape):
    image = np.random.default_rng(0).uniform(0.05, 0.95, shape).astype(np.float32)
    got = voxel_probabilities(Logit(), image, (8, 8, 8), 0.25, "cpu")
    assert got.shape == shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, image, atol=1e-5)


def test_how_many_windows_are_computed_at_a_time_plays_no_part(monkeypatch):
    image = np.random.default_rng(1).random((9, 14, 20)).astype(np.float32)
    model = nn.Conv3d(1, 1, 3, padding=1)
    found = []
    for voxels in (1, 3 * 8**3, 2**19):
        monkeypatch.setattr(prediction, "VOXELS_AT_A_TIME", voxels)
        found.append(voxel_probabilities(model, image, (8, 8, 8), 0.25, "cpu"))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def test_a_patch_scores_the_sigmoid_of_its_logit():
    patches = np.stack([np.full((1, 4, 4, 4), value, np.float32) for value in (0.0, 1.0, -2.0)])
    expected = 1 / (1 + np.exp(-np.array([0.0, 1.0, -2.0])))
    np.testing.assert_allclose(patch_scores(Mean(), patches, "cpu"), expected, rtol=1e-6)
