"""Work on single scans in processes of their own, through Dask; what a process takes down with it is known."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from distributed import Client

Job = TypeVar("Job")
Result = TypeVar("Result")

# One job a process at a time, in memory and never swapped to files by Dask. A process that takes nearly all of its
# share is ended before the system ends another one.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    # In place of Dask's own choice, which besides has the allocator give memory back at every turn: work on arrays
    # then takes three times as long.
    "distributed.nanny.pre-spawn-environ": {
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
    },
    "distributed.admin.tick.limit": "1h",
}


class Lost:
    """In place of a result: the job took its process down, twice, the second time with no other job beside it."""


def spread(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | Lost]]:
    """Each job with its result, as they come to an end.

    `function` and the jobs must be picklable, and the results independent of where they are made. They run in a
    Dask cluster of `workers` local processes of one thread each, which listen on the loopback interface only; in
    the cluster that Dask's own configuration names (`scheduler-address`), if it does; or in this process, if
    there is only one worker or one job. A job whose process is killed (by the system, when the memory runs out)
    or that ends in MemoryError is tried once more, alone, with all the memory; then it is Lost. Any other
    exception of a job is raised.
    """
    import dask

    address = dask.config.get("scheduler-address", None)
    if address is None and min(workers, len(jobs)) <= 1:
        for job in jobs:
            try:
                yield job, function(job)
            except MemoryError:
                yield job, Lost()
        return
    lost: list[Job] = []
    with _cluster(min(workers, len(jobs)), address) as client:
        for job, result in _together(client, function, jobs):
            if isinstance(result, Lost):
                lost.append(job)
            else:
                yield job, result
    if lost:
        with _cluster(1, address) as client:
            for job in lost:
                yield from _together(client, function, [job])


def _together(
    client: Client, function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result | Lost]]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    waiting = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(list(waiting)):
        job = waiting.pop(future)
        error = future.exception()
        if error is None:
            yield job, future.result()
        elif isinstance(error, KilledWorker | MemoryError):
            yield job, Lost()
        else:
            raise error


@contextmanager
def _cluster(workers: int, address: str | None) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if address is not None:
            yield stack.enter_context(Client(address))
            return
        place = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="sg-dask-", ignore_cleanup_errors=True)
        )
        stack.enter_context(dask.config.set({**_SETTINGS, "temporary-directory": place}))
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            scheduler_kwargs={"dashboard": False},
            local_directory=place,
            silence_logs=logging.CRITICAL,
        )
        stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))
