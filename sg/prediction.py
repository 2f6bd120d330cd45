"""What a network says: a score for a patch, a probability for every voxel of a whole scan.

Networks are in evaluation mode and compute in float32; inputs are in [0, 1].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

# A voxel's probability is the mean over its windows, weighted by a Gaussian around their centres: near its edge a
# window knows least of what surrounds a voxel.
WEIGHTING = "gaussian"
# As many windows at a time as have so many voxels: small ones one by one would leave the processor waiting.
VOXELS_AT_A_TIME = 2**19


def patch_scores(model: nn.Module, patches: np.ndarray, device: str) -> np.ndarray:
    """Sigmoid of the one logit of each patch: float32 (n, 1, z, y, x) -> float32 (n,)."""
    model.to(device).eval()
    with torch.inference_mode():
        x = torch.from_numpy(patches).to(device).contiguous(memory_format=torch.channels_last_3d)
        return torch.sigmoid(model(x)[:, 0]).float().cpu().numpy()


def voxel_probabilities(
    model: nn.Module, image: np.ndarray, window: tuple[int, int, int], overlap: float, device: str
) -> np.ndarray:
    """Sigmoid of the one logit of each voxel of a whole scan, by windows: float32 (z, y, x) -> float32 (z, y, x).

    Neighbouring windows share `overlap` of each side (a quarter is about 2.5 times the work of none, a half 7 times).
    A scan smaller than the window is filled up with 0, which is air.
    """
    from monai.inferers.utils import sliding_window_inference  # seconds; only segmentation pays for it

    def probabilities(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(model(x.contiguous(memory_format=torch.channels_last_3d)))

    model.to(device).eval()
    with torch.inference_mode():
        whole = sliding_window_inference(
            torch.from_numpy(image)[None, None],
            roi_size=window,
            sw_batch_size=max(1, VOXELS_AT_A_TIME // math.prod(window)),
            predictor=probabilities,
            overlap=overlap,
            mode=WEIGHTING,
            padding_mode="constant",
            cval=0.0,
            sw_device=device,
            device="cpu",
        )
    return whole[0, 0].numpy()
