"""Reading the artifacts' tables and JSON files, and numbers in words, for the page."""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg.errors import InputError


@dataclass(frozen=True)
class Tally:
    """What of a kind there is: in each source, in the order of the columns, and in all."""

    kind: str
    counts: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class Tallies:
    """A table of counts: its columns (sources; none where one source alone has any), its rows, most first."""

    columns: tuple[str, ...]
    rows: tuple[Tally, ...]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least these columns; InputError where it lacks one or is not there."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{path}: the table must have the columns {missing}; run `dvc repro` to make it again"
                )
            return list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds; InputError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None
    except ValueError as error:
        raise InputError(
            f"{path}: not a JSON file ({error}); delete it and run `dvc repro` to make it again"
        ) from None


def number(cell: str | float | None) -> float:
    """A number of a table; NaN for an empty cell."""
    return math.nan if cell is None or cell == "" else float(cell)


def text(value: bytes | str) -> str:
    """A fixed-length text of an HDF5 table; a character cut at its end is shown as a replacement mark."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def percent(value: float) -> str:
    """A score, s.d. or difference between 0 and 1 in percent with two decimals, as published; a dash where there is none."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}".replace("-", "−")


def whole_percent(value: float) -> str:
    """A share in whole percent; a dash where there is none. Never −0."""
    return "–" if math.isnan(value) else f"{round(100 * value) + 0:d}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value with three decimals; a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def figure(value: float) -> str:
    """Any other number with three significant figures."""
    return "–" if value is None or math.isnan(value) else f"{value:.3g}".replace("-", "−")


def correlation(value: float) -> str:
    """A correlation near 1 with four decimals, rounded down, so that 1 is said of equal pictures alone."""
    return "–" if math.isnan(value) else f"{math.floor(value * 10_000 + 1e-6) / 10_000:.4f}".replace("-", "−")


def short(name: str, most: int = 14) -> str:
    """The end of a long name: series UIDs, which many patients are called by, differ there."""
    return name if len(name) <= most else "…" + name[1 - most :].lstrip(".")


def number_in_words(value: float) -> str:
    """A number as short as it can be said, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def said(value: Any) -> str:
    """A value of a JSON file in words; a list with × between its parts, because lists there are shapes."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {said(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " × ".join(map(said, value))
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.5g}".replace("-", "−") if isinstance(value, float) else str(value)


def visible(value: str) -> str:
    """A text with its control characters spelled out: they could hide, or turn round, what stands beside them."""
    if value.isprintable():
        return value
    return "".join(
        c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in value
    )


def tally(cells: Counter[tuple[str, str]], sources: Sequence[str]) -> Tallies:
    """A table of what was counted by (source, kind); its columns are those of the sources that have any."""
    here = {source for source, _ in cells}
    columns = (*(name for name in sources if name in here), *sorted(here.difference(sources)))
    rows = []
    for kind in sorted({kind for _, kind in cells}):
        counts = tuple(cells[source, kind] for source in columns)
        rows.append(Tally(kind, counts if len(columns) > 1 else (), sum(counts)))
    return Tallies(columns if len(columns) > 1 else (), tuple(sorted(rows, key=lambda row: -row.total)))


def many(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun: 1 patient, 1,200 patients."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..count-1, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
