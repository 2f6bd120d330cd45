"""What a stage says while it runs: a moving bar in a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

QUIET_SECONDS = 20.0
WIDTH = 110  # of tables where there is no terminal


def say(text: str) -> None:
    """One line on standard output."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A sentence on standard error, in red where there is a terminal."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="bold red", markup=False)


def warn(text: str) -> None:
    """A warning on standard error; whoever warns also counts it in its artifact, so that the report shows it."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"warning: {text}", style="yellow", markup=False
    )


def counts(sources: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output: what is counted, its number in each source, if there are several, and in all."""
    from rich.console import Console
    from rich.table import Table

    several = len(sources) > 1
    table = Table(box=None, pad_edge=False, show_header=several)
    table.add_column("", no_wrap=True)
    for name in [*sources, "all"] if several else ["all"]:
        table.add_column(name, justify="right", overflow="fold")
    for what, *numbers in rows:
        table.add_row(what, *map(str, numbers if several else numbers[-1:]))
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)


class Progress:
    """How far a known number of steps has come, with rate and remaining time.

    In a terminal a bar that vanishes at the end; elsewhere nothing for the first seconds and then a line at
    most every `QUIET_SECONDS`, so that logs stay readable.
    """

    def __init__(self, what: str, total: int, unit: str, before: int = 0) -> None:
        """`before` of the `total` were done by an earlier run and say nothing about the rate."""
        self.what, self.total, self.unit = what, total, unit
        self.before = self.done = before
        self._bar = None

    def __enter__(self) -> Progress:
        self._start = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            # In a narrow terminal the rate and its note are cut off first, never what is done and what is left.
            wide = len(f"{self.what} {self.total}/{self.total}")
            self._bar = Bar(
                TextColumn(
                    "{task.description} {task.completed:.0f}/{task.total:.0f}",
                    markup=False,
                    table_column=Column(no_wrap=True, min_width=wide),
                ),
                BarColumn(bar_width=16, table_column=Column(min_width=16)),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
                TextColumn("{task.fields[rate]}", markup=False, table_column=Column(no_wrap=True)),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.before, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, count: int = 1, note: str = "") -> None:
        """`count` more are done; `note` (a loss, say) is shown behind the rate."""
        self.done += count
        now = time.monotonic()
        rate = (self.done - self.before) / max(now - self._start, 1e-9)
        speed = (
            f"{rate:.1f} {self.unit}/s"
            if rate >= 1
            else f"{1 / max(rate, 1e-9):.1f} s/{self.unit.rstrip('s')}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{speed} {note}".rstrip())
        elif now - self._said >= QUIET_SECONDS:
            self._said = now
            left = (self.total - self.done) / max(rate, 1e-9)
            print(
                f"{self.what}: {self.done}/{self.total}, {speed}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )


def track(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """The same items, with their progress shown."""
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.step()
