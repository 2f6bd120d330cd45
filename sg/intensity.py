"""Hounsfield units in front of a network."""

from __future__ import annotations

import numpy as np


def to_unit(hu: np.ndarray, hu_min: float, hu_max: float) -> np.ndarray:
    """HU clipped to [hu_min, hu_max] and scaled to [0, 1], float32, of the same shape."""
    unit = np.clip(hu, hu_min, hu_max).astype(np.float32)
    unit -= np.float32(hu_min)
    unit /= np.float32(hu_max - hu_min)
    return unit
