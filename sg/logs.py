"""What stages did, in logs/: these never enter an artifact.

Times, memory and hosts, one JSON line a run, in logs/<stage>.jsonl; the scans that the last run of a stage opened, one
line each, in logs/reads/<stage>.jsonl.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import time
from pathlib import Path

LOGS = Path("logs")
READS = LOGS / "reads"

# Names the log of reads to the processes that a stage starts.
_DESTINATION = "SG_READS"
_opened: set[tuple[str, str, str]] = set()


class Clock:
    """Wall time since it was made, and the memory and CPU time of this process and its children."""

    def __init__(self) -> None:
        self.started = time.time()
        self._start = time.monotonic()

    def reading(self) -> dict[str, float]:
        """Seconds and MiB so far. The memory is the larger of this process and its largest child."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "wall_s": round(time.monotonic() - self._start, 3),
            "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
            "peak_mib": round(max(_own_peak_kib(own), children.ru_maxrss) / 1024, 1),
        }


def _own_peak_kib(own: resource.struct_rusage) -> int:
    """The most this program has held; `own` says it where there is no /proc, but counts who started it, too."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return own.ru_maxrss
    return next(
        (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), own.ru_maxrss
    )


def record(stage: str, clock: Clock, outcome: str, **more: object) -> None:
    """Append one line to logs/<stage>.jsonl."""
    line = {
        "stage": stage,
        "outcome": outcome,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.started)),
        **clock.reading(),
        "host": platform.node(),
        "pid": os.getpid(),
        **more,
    }
    # A line of a log is not worth a run, nor the sentence on why the run failed: on a full disk there is none.
    with contextlib.suppress(OSError):
        LOGS.mkdir(exist_ok=True)
        with open(LOGS / f"{stage}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def begin_reads(stage: str) -> None:
    """Begin logs/reads/<stage>.jsonl anew, for this process and for those that it starts from here on."""
    destination = READS.absolute() / f"{stage}.jsonl"
    os.environ[_DESTINATION] = str(destination)
    _opened.clear()
    with contextlib.suppress(OSError):
        destination.unlink(missing_ok=True)


def opened(scan: str, role: str, use: str) -> None:
    """Append to the stage's log of reads that a scan was opened in a role (sg/roles.py) for a use; once a process.

    Outside of a stage nothing is logged, nor on workers of a Dask cluster that was there before the stage.
    """
    destination = os.environ.get(_DESTINATION)
    if destination is None or (scan, role, use) in _opened:
        return
    _opened.add((scan, role, use))
    line = json.dumps({"stage": Path(destination).stem, "scan": scan, "role": role, "use": use}) + "\n"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        # One write to the end of the file, so that lines of several processes do not mix.
        file = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
