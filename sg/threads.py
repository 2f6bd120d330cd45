"""Work done ahead by threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, most: int
) -> Iterator[Result]:
    """`function` of every item, in the items' order, made by `workers` threads.

    At most `most` results are made or waiting besides the one that was handed out. Without workers each is made
    in the caller when it is asked for. What the function raises is raised in its turn.
    """
    if workers == 0:
        yield from map(function, items)
        return
    left = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        made = deque(pool.submit(function, item) for item in islice(left, most))
        while made:
            result = made.popleft().result()
            made.extend(pool.submit(function, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
