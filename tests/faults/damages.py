"""Damage to bytes, as disks, networks and people do it. Each draws where from the generator that it is given."""

from __future__ import annotations

import numpy as np


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(0, len(content))]


def flip_bit(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for position in rng.integers(0, len(content), rng.integers(1, 6)):
        damaged[position] = rng.integers(256)
    return bytes(damaged)


def zero_block(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _block(content, rng)
    return content[:start] + bytes(stop - start) + content[stop:]


def drop_block(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _block(content, rng)
    return content[:start] + content[stop:]


def insert_block(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _block(content, rng)
    other, more = _block(content, rng)
    # Noise, or a piece of the file itself, as when a copy is repeated
    piece = rng.bytes(stop - start) if rng.integers(2) else content[other:more]
    return content[:start] + piece + content[start:]


def swap_blocks(content: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.integers(1, max(2, len(content) // 8)))
    first, second = sorted(rng.choice(len(content) // size, 2, replace=False) * size)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


def _block(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(content)))
    return start, min(len(content), start + int(rng.integers(1, max(2, len(content) // 8))))


ANYWHERE = {
    "cut": cut,
    "zeroed block": zero_block,
    "dropped block": drop_block,
    "inserted block": insert_block,
    "swapped blocks": swap_blocks,
}
OF_A_PLACE = {"bit": flip_bit, "bytes": change_bytes}
