"""The page's charts, drawn by matplotlib as SVG that takes its colours and fonts from the page.

Equal values give equal text: nothing of the user's matplotlib settings is used, and the SVG carries neither date
nor program. The colours below are placeholders that become variables of the page's style sheet, so that one chart
serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

INK, SOFT, LINE, PAPER = "#010203", "#020304", "#030405", "#040506"
SERIES = ("#050607", "#060708", "#070809", "#08090a", "#090a0b", "#0a0b0c")
# As matplotlib draws them, and as the page's words do.
MARKS, MARK_SIGNS = ("o", "s", "D", "^", "v", "P"), ("●", "■", "◆", "▲", "▼", "✚")
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11.5,
    "axes.labelsize": 11.5,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "axes.axisbelow": True,
    # A name may hold a dollar sign; it is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sg",
}


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    svg: Markup
    alt: str
    width: int  # CSS pixels at which the text has the page's size


@dataclass(frozen=True)
class Group:
    """The trials of one initialization on one task."""

    name: str
    scores: Sequence[float]
    mean: float
    sd: float  # NaN where there is one trial
    mark: str


@dataclass(frozen=True)
class Dot:
    """One value with its interval, in a row of a chart of dots."""

    row: int
    value: float
    low: float  # NaN where there is no interval
    high: float
    series: int = 0


@dataclass(frozen=True)
class Curve:
    """One line of a chart of curves."""

    y: Sequence[float]
    series: int = 0  # which colour
    dashed: bool = False
    best: int | None = None  # index of the point to mark
    x: Sequence[float] = field(default_factory=tuple)  # epochs from 1 where none are given

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of the points that can be drawn (finite)."""
        y = np.asarray(self.y, float)
        x = np.asarray(self.x, float) if len(self.x) else np.arange(1, len(y) + 1, dtype=float)
        seen = np.isfinite(y)
        return x[seen], y[seen]


def scores(
    groups: Sequence[Group], baselines: Sequence[tuple[str, float]], metric: str, alt: str, number: int
) -> Chart:
    """One row an initialization: its trials as points, mean and s.d. as a bar with whiskers, its mark at the right.

    Below them one row a baseline. `number` tells the charts of a page apart.
    """
    rows = [*(group.name for group in groups), *(name for name, _ in baselines)]
    width, left = 480, min(200, 26 + 7.2 * max(map(len, rows), default=0))
    with _drawing(width, 62 + 38 * len(rows), left=left, right=40, top=10, bottom=48) as (figure, axes):
        for row, group in enumerate(groups):
            colour = SERIES[row % len(SERIES)]
            percent = 100 * np.asarray(group.scores, float)
            # Below the bar, so that it hides none of them.
            axes.scatter(
                percent,
                np.full(len(percent), row + 0.26),
                s=26,
                facecolor="none",
                edgecolor=colour,
                linewidth=1.3,
            )
            axes.errorbar(
                [100 * group.mean],
                [row - 0.08],
                xerr=None if np.isnan(group.sd) else [100 * group.sd],
                fmt="|",
                markersize=17,
                markeredgewidth=3.5,
                elinewidth=2,
                capsize=5,
                capthick=2,
                color=colour,
                zorder=4,
            )
            axes.annotate(
                group.mark.replace("-", "−"),
                (1, row),
                (12, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=18,
                annotation_clip=False,
            )
        for row, (_, score) in enumerate(baselines, len(groups)):
            axes.axvline(100 * score, color=SOFT, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
            axes.plot([100 * score], [row], marker="D", markersize=7, color=INK, zorder=3, linestyle="none")
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.set_xlabel(f"{metric}, %")
    return _chart(figure, alt, width, f"scores-{number}")


def curves(
    lines: Sequence[Curve],
    x_label: str,
    y_label: str,
    alt: str,
    name: str,
    *,
    limits: tuple[float, float] | None = None,
    log: bool = False,
    width: int = 420,
) -> Chart:
    """Lines over epochs; with `log` on a logarithmic axis, which drops values that are not positive."""
    with _drawing(width, 250, left=66, right=14, top=12, bottom=48) as (figure, axes):
        for line in lines:
            x, y = line.points()
            style = (0, (4, 3)) if line.dashed else "-"
            colour = SERIES[line.series % len(SERIES)]
            axes.plot(x, y, color=colour, linewidth=1.8, linestyle=style, marker="." if len(x) == 1 else None)
            if line.best is not None and 0 <= line.best < len(line.y) and np.isfinite(line.y[line.best]):
                at = line.x[line.best] if len(line.x) else line.best + 1
                axes.plot(
                    [at], [line.y[line.best]], marker="o", markersize=6, color=colour, markeredgecolor=PAPER
                )
        if log:
            axes.set_yscale("log")
        if limits is not None:
            axes.set_ylim(limits)
        if log:
            _plain_decades(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return _chart(figure, alt, width, name)


def against_chance(
    crops_mm: Sequence[float], random_mm: Sequence[float], labels: Sequence[str], alt: str
) -> Chart:
    """One point a pattern: distance of its crops (upwards) over that of random patients' (to the right), mm."""
    width = 420
    with _drawing(width, 400, left=58, right=16, top=12, bottom=52) as (figure, axes):
        most = 1.12 * max([1.0, *crops_mm, *random_mm])
        axes.fill_between([0, most], [0, most], 0, color=LINE, alpha=0.45, linewidth=0)
        axes.plot([0, most], [0, most], color=SOFT, linewidth=1)
        axes.scatter(random_mm, crops_mm, s=34, color=SERIES[0], edgecolor=PAPER, linewidth=0.8, zorder=3)
        for x, y, label in zip(random_mm, crops_mm, labels, strict=True):
            axes.annotate(label, (x, y), (5, 4), textcoords="offset points", fontsize=10)
        axes.set_xlim(0, most)
        axes.set_ylim(0, most)
        axes.set_aspect("equal")
        axes.set_xlabel("the same place in random patients, mm from the reference")
        axes.set_ylabel("in the nearest patients, mm")
    return _chart(figure, alt, width, "against-chance")


def dots(values: Sequence[Dot], rows: Sequence[str], x_label: str, alt: str, name: str) -> Chart:
    """Values with intervals, one row a name; series beside each other in a row, told by colour and mark."""
    width, left = 480, min(200, 26 + 7.2 * max(map(len, rows), default=0))
    there = sorted({dot.series for dot in values})
    with _drawing(width, 62 + 38 * len(rows), left=left, right=16, top=10, bottom=48) as (figure, axes):
        for dot in values:
            y = dot.row + 0.24 * (there.index(dot.series) - (len(there) - 1) / 2)
            colour = SERIES[dot.series % len(SERIES)]
            if np.isfinite([dot.low, dot.high]).all():
                axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=1.8)
            axes.plot([dot.value], [y], marker=MARKS[dot.series % len(MARKS)], markersize=6.5, color=colour,
                      markeredgecolor=PAPER, markeredgewidth=0.7, linestyle="none", zorder=3)  # fmt: skip
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(
            0, 1.06 * max((v for dot in values for v in (dot.value, dot.high) if v == v), default=1)
        )
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
        axes.set_xlabel(x_label)
    return _chart(figure, alt, width, name)


def scatter(
    groups: Sequence[tuple[np.ndarray, int, int]], x_label: str, y_label: str, alt: str, name: str
) -> Chart:
    """Points (n, 2) in groups, each with the number of its colour and of its mark."""
    width = 420
    with _drawing(width, 330, left=30, right=14, top=12, bottom=30) as (figure, axes):
        for points, series, mark in groups:
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=30,
                marker=MARKS[mark % len(MARKS)],
                color=SERIES[series],
                edgecolor=PAPER,
                linewidth=0.7,
                zorder=3,
            )
        axes.grid()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            # The embedding's unit means nothing; how far points lie apart, relative to each other, does.
            axis.set_major_formatter(NullFormatter())
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return _chart(figure, alt, width, name)


def limits_of(lines: Sequence[Curve], log: bool) -> tuple[float, float] | None:
    """Common limits of an axis that is to show all these lines; None where nothing can be drawn."""
    values = np.concatenate([line.points()[1] for line in lines]) if lines else np.array([])
    values = values[values > 0] if log else values
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if log:
        return low / 1.15, high * 1.15
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def spans_decades(lines: Sequence[Curve]) -> bool:
    """Whether the values are positive and differ by more than tenfold, so that a logarithmic axis shows more."""
    values = np.concatenate([line.points()[1] for line in lines]) if lines else np.array([])
    return bool(len(values)) and values.min() > 0 and values.max() > 10 * values.min()


def _plain_decades(axes: Axes) -> None:
    """Label a logarithmic y axis with plain numbers, some of each decade where there are few decades."""
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"


@contextmanager
def _drawing(
    width: int, height: int, *, left: float, right: float, top: float, bottom: float
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one pair of axes; sizes and margins in CSS pixels (the SVG's unit, 1/72 inch, is shown as one)."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        yield figure, axes


def _chart(figure: Figure, alt: str, width: int, name: str) -> Chart:
    """The figure as an <svg> element to stand in the page, with ids that no other chart has."""
    file = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # The <style> would hold for the whole page; the page's own sheet says the same for charts.
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)[0]
    text = re.sub(r"<svg[^>]*>", f'<svg {view} aria-hidden="true" focusable="false">', text, count=1)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return Chart(Markup("\n".join(line.strip() for line in text.splitlines() if line.strip())), alt, width)
