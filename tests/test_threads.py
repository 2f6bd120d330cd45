from __future__ import annotations

import time
from threading import Lock

import pytest

from sg.threads import ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_at_most_so_many_are_ahead(workers):
    lock, started, most = Lock(), [0], 4

    def work(item: int) -> int:
        with lock:
            started[0] += 1
        time.sleep(0.001 * (item % 3))
        return item * item

    results = []
    for result in ahead(work, iter(range(20)), workers, most):
        results.append(result)
        assert started[0] <= len(results) + most
    assert results == [item * item for item in range(20)]


def test_an_error_is_raised_in_its_turn_and_who_stops_early_waits_for_little():
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        return item

    made = ahead(work, range(10), 2, 3)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(made)
    early = ahead(work, range(10), 2, 3)
    assert next(early) == 0
    early.close()
