"""Timing the two sides of a bench in turn, so that whatever else the machine does falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def in_turn(
    sides: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each side in each of some rounds, one side after the other; `before` each, untimed."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            before()
            start = time.perf_counter()
            side()
            taken[name].append(time.perf_counter() - start)
    return taken


def line(name: str, taken: list[float], scale: float = 1.0) -> str:
    """A side's median and all its rounds; `scale` takes a timed share to the whole."""
    each = ", ".join(f"{scale * seconds:.3g}" for seconds in taken)
    return f"{name}: {scale * median(taken):.3g} s ({each})"
