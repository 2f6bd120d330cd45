"""Whatever becomes of a process that works on one file, the others go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sg import isolated
from sg.isolated import bound_memory, each, machine_memory, memory_for
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
    if what == "eat later":
        bound_memory(2**26)
        bound_memory(2**30)
        return float(np.ones(2**25)[0]), what
    if what == "complain":
        os.write(2, b"Tile part length size inconsistent")
        return 0, what
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


def test_a_process_that_dies_hangs_or_eats_the_memory_costs_its_own_job():
    jobs = [(0.0,), ("die",), ("refuse",), ("quit",), ("eat",), ("hang",), (0.0,)]
    answers = list(each(work, jobs, 3, seconds=3))
    rules = [answer.rule if isinstance(answer, Refusal) else answer[1] for answer in answers]
    assert rules == [0.0, "crashed", "format", "crashed", "memory", "time", 0.0]
    assert "SIGSEGV" in answers[1].reason
    assert "exit code 3" in answers[3].reason


def test_a_job_that_dies_once_is_tried_again_alone(tmp_path):
    assert list(each(dies_when_not_alone, [(tmp_path, 0), (tmp_path, 1)], 2, 60)) == [0, 1]


def test_a_bug_is_raised_with_its_traceback():
    with pytest.raises(RuntimeError, match="a bug of ours"):
        list(each(work, [("bug",), (0.0,)], 1, 60))


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    script = tmp_path / "hangs.py"
    script.write_text(
        "from tests.test_isolated import work_that_says_so\n"
        "from sg.isolated import each\n"
        "if __name__ == '__main__':\n"
        f"    list(each(work_that_says_so, [({str(tmp_path)!r}, n) for n in range(2)], 2, 60))\n"
    )
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        _wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    finally:
        process.kill()
        process.wait()
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    _wait_until(lambda: not any(_lives(pid) for pid in pids))


def work_that_says_so(folder, number):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def _lives(pid):
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_no_jobs_are_no_answers():
    assert list(each(work, [], 2, 60)) == []


def test_a_bound_of_memory_can_be_raised_once_the_size_is_known():
    assert list(each(work, [("eat later",)], 1, 60)) == [(1.0, "eat later")]


def test_memory_is_three_times_the_declared_size_and_never_more_than_the_machine(monkeypatch):
    monkeypatch.setattr(isolated, "machine_memory", lambda: 16 * 2**30)
    assert memory_for(2**30) - memory_for(0) == 3 * 2**30
    assert memory_for(0) < 2**30
    assert memory_for(2**40) == 16 * 2**30


def test_the_memory_of_this_machine_is_what_the_kernel_says():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 2**28 < machine_memory() <= total


def test_what_libraries_in_c_say_of_a_file_does_not_reach_the_console(capfd):
    assert list(each(work, [("complain",)], 1, 60)) == [(0, "complain")]
    assert capfd.readouterr().err == ""
