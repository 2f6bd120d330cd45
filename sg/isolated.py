"""Work on files that are not to be trusted, each piece in a process of its own.

Whatever a file does to the libraries that read it (a crash, endless work, all the memory) costs that piece and
nothing else. No answer depends on the number of processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from sg.formats.files import Refusal

# What another process beside it may be to blame for is tried a second time, alone
TWICE = ("crashed", "time", "memory")

MEMORY_SHARE = 3  # as stored, as wanted, and what lies between
MEMORY_FLOOR = 512 * 2**20


def each(work: Callable[..., Any], jobs: Sequence[tuple], workers: int, seconds: float) -> Iterator[Any]:
    """`work(*job)` of every job, each in a new process, at most `workers` at a time; answers in the order of the jobs.

    A Refusal that the work raises is an answer; so is a process that ends without one (rule `crashed`), takes longer
    than `seconds` (`time`) or more memory than it may (`memory`), each of them only after a second try with nothing
    beside it. Any other exception is a bug and is raised here. `work` must be a function of a module.
    """
    answers: dict[int, Any] = {}
    again: list[int] = []
    given = 0
    for number, answer in _run(work, dict(enumerate(jobs)), workers, seconds):
        if isinstance(answer, Refusal) and answer.rule in TWICE:
            again.append(number)
        else:
            answers[number] = answer
        while given in answers:
            yield answers.pop(given)
            given += 1
    for number, answer in _run(work, {number: jobs[number] for number in sorted(again)}, 1, seconds):
        answers[number] = answer
        while given in answers:
            yield answers.pop(given)
            given += 1


def memory_for(declared: int) -> int:
    """Bytes that reading voxels of `declared` bytes may take: three times as many, never more than the machine has.

    The floor is what the libraries take for themselves, however small the scan.
    """
    return min(MEMORY_FLOOR + MEMORY_SHARE * declared, machine_memory())


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that the control group of this process may take of them."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such group, or no limit (`max`)
            most = min(most, int(Path(name).read_text()))
    return most


def bound_memory(more: int) -> None:
    """Let this process take at most `more` bytes of address space beyond what it has; MemoryError follows beyond.

    May be called again with another bound.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _run(
    work: Callable[..., Any], jobs: dict[int, tuple], workers: int, seconds: float
) -> Iterator[tuple[int, Any]]:
    """Numbers and answers as they come."""
    # A fork server's processes begin without this one's threads and open files
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", work.__module__])
    waiting = deque(jobs.items())
    running: dict[Connection, _Piece] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                piece = _Piece(context, work, *waiting.popleft(), seconds)
                running[piece.connection] = piece
            first = min(piece.deadline for piece in running.values())
            ready = wait(list(running), timeout=max(0.0, first - time.monotonic()))
            for piece in [*running.values()]:
                if piece.connection in ready or piece.deadline <= time.monotonic():
                    del running[piece.connection]
                    yield piece.number, piece.answer(piece.connection in ready, seconds)
    finally:
        for piece in running.values():
            piece.end()


class _Piece:
    """One job in its process."""

    def __init__(
        self, context: Any, work: Callable[..., Any], number: int, job: tuple, seconds: float
    ) -> None:
        self.number = number
        self.connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(theirs, work, job), daemon=True)
        self._process.start()
        theirs.close()  # else the end of the process would not be seen
        self.deadline = time.monotonic() + seconds

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def answer(self, ready: bool, seconds: float) -> Any:
        """What the process sent, or the refusal of what it did instead."""
        try:
            kind, answer = self.connection.recv() if ready else ("late", None)
        except (EOFError, OSError):
            kind, answer = "crashed", None
            self._process.join()
        code = self._process.exitcode
        self.end()
        if kind == "bug":
            raise RuntimeError(f"a process that works on one file failed:\n{answer}")
        if kind == "late":
            return Refusal(
                "time", f"Reading the file took more than {seconds / 60:.3g} minutes and was given up."
            )
        if kind == "crashed":
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            return Refusal("crashed", f"The program that reads the file broke down over it, twice ({how}).")
        return answer


def _child(connection: Connection, work: Callable[..., Any], job: tuple) -> None:
    """Do one job and send the answer."""
    # Libraries in C say of a damaged file on standard error what nobody can act on
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        message = ("answer", work(*job))
    except Refusal as refusal:
        message = ("answer", refusal)
    except MemoryError:
        reason = "Reading the file takes far more memory than its voxels explain."
        message = ("answer", Refusal("memory", reason))
    except Exception:
        message = ("bug", f"{job!r}\n{traceback.format_exc()}")
    connection.send(message)
    connection.close()


def _end_with_parent() -> None:
    """Wait for the end of whoever asked for this process, and end it: the fork server, its real parent, lives on."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
