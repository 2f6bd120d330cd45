"""Work spread over processes: every job has its result, or is known to be lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import pytest

from sg.processes import Lost, spread


def square(number: int) -> int:
    return number * number


def eaten_by_the_system(job: tuple[int, Path]) -> int:
    """Dies as a process without memory does, for job 2; notes every attempt."""
    number, notes = job
    with open(notes / str(number), "a") as file:
        file.write("tried\n")
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise MemoryError
    return number * number


def fails(number: int) -> int:
    raise ValueError(f"a bug at {number}")


def test_every_job_comes_back_once_with_its_result_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for workers in (1, 2):
        assert sorted(spread(square, range(7), workers)) == [(n, n * n) for n in range(7)]
    assert list(spread(square, [], 2)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_takes_its_process_down_is_lost_after_a_second_try_and_no_other_is(tmp_path, capfd):
    results = {
        number: result
        for (number, _), result in spread(eaten_by_the_system, [(n, tmp_path) for n in range(6)], 2)
    }
    assert {n for n, result in results.items() if isinstance(result, Lost)} == {2, 3}
    assert {n: result for n, result in results.items() if n not in (2, 3)} == {0: 0, 1: 1, 4: 16, 5: 25}
    assert (tmp_path / "2").read_text() == (tmp_path / "3").read_text() == "tried\n" * 2
    assert capfd.readouterr() == ("", "")  # Dask says nothing of its own


def test_memory_that_runs_out_in_this_process_loses_only_that_job(tmp_path):
    results = {
        number: result
        for (number, _), result in spread(eaten_by_the_system, [(n, tmp_path) for n in (1, 3, 4)], 1)
    }
    assert isinstance(results.pop(3), Lost)
    assert results == {1: 1, 4: 16}


def test_any_other_exception_is_raised():
    for workers in (1, 2):
        with pytest.raises(ValueError, match="a bug at"):
            list(spread(fails, [1, 2], workers))


def test_a_cluster_that_dask_is_configured_with_is_used():
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp://"
        ) as cluster,
        dask.config.set({"scheduler-address": cluster.scheduler_address}),
    ):
        assert sorted(spread(square, [2, 3], 1)) == [(2, 4), (3, 9)]
        assert cluster.scheduler.transition_counter > 0
