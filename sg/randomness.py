"""Where every draw comes from: a generator keyed by (seed, stage, item, purpose).

Nothing here depends on the order of calls, the number of workers or the clock: the same key gives the same
numbers on any machine (NumPy's PCG64 and SeedSequence are stable across versions by NumPy's policy NEP 19).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def sequence(seed: int, stage: str, item: str, purpose: str) -> np.random.SeedSequence:
    """The seed sequence of one key. Each part is told from the next, so ("a", "bc") is not ("ab", "c")."""
    text = "\0".join((stage, item, purpose))
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
    return np.random.SeedSequence([seed, *(int(word) for word in words)])


def generator(seed: int, stage: str, item: str = "", purpose: str = "") -> np.random.Generator:
    """A NumPy generator of its own for one key."""
    return np.random.Generator(np.random.PCG64(sequence(seed, stage, item, purpose)))


def torch_generator(seed: int, stage: str, item: str = "", purpose: str = "") -> torch.Generator:
    """A torch generator (CPU) of its own for one key."""
    import torch

    state = sequence(seed, stage, item, purpose).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
