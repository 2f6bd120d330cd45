"""Times, memory and hosts of stages, one JSON line a run in logs/: these never enter an artifact."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import time
from pathlib import Path

LOGS = Path("logs")


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
            "peak_mib": round(max(own.ru_maxrss, children.ru_maxrss) / 1024, 1),
        }


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
