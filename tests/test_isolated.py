"""Whatever becomes of a process that works on one file, the others go on."""

import os
import signal
import time

import numpy as np
import pytest

from sg.isolated import bound_memory, each
from sg.scans import Refusal


def work(what):
    """One of these jobs runs in a process of its own."""
    if what == "refuse":
        raise Refusal("format", "This is no scan.")
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "quit":
        os._exit(3)
    if what == "hang":
        time.sleep(60)
    if what == "eat":
        bound_memory(2**26)
        np.ones(2**28)
    if what == "bug":
        raise KeyError("a bug of ours")
    time.sleep(what)
    return os.getpid(), what


def dies_when_not_alone(folder, number):
    """Dies at the first try, as a process does that the system ends because others took the memory."""
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_answers_come_in_the_order_of_the_jobs_each_from_a_process_of_its_own():
    seconds = [0.3, 0.0, 0.1, 0.0]
    answers = list(each(work, [(s,) for s in seconds], workers=3, seconds=60))
    assert [answer[1] for answer in answers] == seconds
    assert len({answer[0] for answer in answers} | {os.getpid()}) == 5


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_that_dies_hangs_or_eats_the_memory_costs_its_own_job(workers):
    jobs = [(0.0,), ("die",), ("refuse",), ("quit",), ("eat",), ("hang",), (0.0,)]
    answers = list(each(work, jobs, workers, seconds=2))
    rules = [answer.rule if isinstance(answer, Refusal) else answer[1] for answer in answers]
    assert rules == [0.0, "crashed", "format", "crashed", "memory", "time", 0.0]
    assert "SIGSEGV" in answers[1].reason
    assert "exit code 3" in answers[3].reason


def test_a_job_that_dies_once_is_tried_again_alone(tmp_path):
    assert list(each(dies_when_not_alone, [(tmp_path, 0), (tmp_path, 1)], 2, 60)) == [0, 1]


def test_a_bug_is_raised_with_its_traceback():
    with pytest.raises(RuntimeError, match="a bug of ours"):
        list(each(work, [("bug",), (0.0,)], 1, 60))


def test_no_jobs_are_no_answers():
    assert list(each(work, [], 2, 60)) == []
