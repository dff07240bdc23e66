"""Panels of the suite: systems as dots with their intervals, row by row; and lines over steps or turns.

The same code draws a figure of its own and a part of the dashboard.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from persona.figures import (
    COMPACT_POINTS,
    GREY,
    INK,
    PALETTE,
    colour_places,
    fit,
    round_steps,
    text_inches,
    whisker,
)
from persona.findings import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

MARKERS = "sD^vPX*p"
PITCH, GAP = 0.155, 0.9
"""Inches from one dot's line to the next, and free lines between two rows."""
SHORT = 5
"""Rows that the dashboard has room for."""
DASHES = ("--", ":", "-.")


@dataclass(frozen=True)
class Row:
    """One row: what is measured, and each series' number as it stands beside its dot."""

    label: str
    entries: dict[str, dict]
    """{"value", "ci95", perhaps "by_seed"} by series; in the axis' unit."""
    numbers: dict[str, str]


@dataclass(frozen=True)
class Dots:
    """A panel of rows."""

    rows: list[Row]
    unit: str
    series: dict[str, str]
    """Every series with its name in the legend; what draws its colour from the order."""
    lines: dict[str, float] = field(default_factory=dict)
    """Values to hold the dots against, by name."""
    limits: tuple[float, float] | None = None
    """Ends of the axis; dots beyond are shown as arrows at its edge."""
    logarithmic: bool = False
    brief: tuple[str, ...] = ()
    """The series that the dashboard has room for; () for all."""

    def short(self) -> "Dots":
        """What the dashboard shows."""
        kept = self.brief or tuple(self.series)
        rows = [replace(r, entries={s: e for s, e in r.entries.items() if s in kept}) for r in self.rows]
        return replace(self, rows=[r for r in rows if r.entries][:SHORT])

    @property
    def height(self) -> float:
        """Inches that the rows take."""
        return PITCH * sum(len(r.entries) + GAP for r in self.rows)


def style_of(series: dict[str, str], name: str) -> tuple[str, str]:
    """(colour, marker) of a series: grey circles for the base, else by its place."""
    if name == "base":
        return GREY, "o"
    i = colour_places(series)[name]
    return PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]


def draw_dots(panel: "FigureBase", dots: Dots, compact: bool) -> None:
    """Rows from the top down, a dot a series with its interval, numbers in a column on the right."""
    dots = dots.short() if compact else dots
    axes, labels, y = panel.subplots(), {}, 0.0
    points = COMPACT_POINTS if compact else 8
    for row in dots.rows:
        n = len(row.entries)
        width = 1.0 if compact else 2.1
        labels[y + (n - 1) / 2] = fit(row.label, width, points, lines=max(1, n))
        for name, entry in row.entries.items():
            draw_dot(axes, dots, name, entry, y)
            number = row.numbers[name]
            number = number.split(" [")[0] if compact else number
            axes.text(1.03, y, number, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
            y += 1
        y += GAP
        if row is not dots.rows[-1]:
            axes.axhline(y - (GAP + 1) / 2, color="#dddddd", linewidth=0.6)
    for (name, x), dash in zip(dots.lines.items(), DASHES, strict=False):
        axes.axvline(x, color=INK, linestyle=dash, linewidth=1, label=name, zorder=1)
    axes.set_ylim(y - GAP - 0.2, -0.8)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=points)
    axes.tick_params(axis="y", length=0, pad=7)  # a dot at the axis' end is wider than the axis
    axes.grid(axis="x")
    scale(axes, dots, compact)
    shown = [name for name in dots.series if any(name in row.entries for row in dots.rows)]
    legend(axes, dots, shown, 1.9 if compact else 4.2)


def draw_dot(axes: "Axes", dots: Dots, name: str, entry: dict, y: float) -> None:
    """One value with its interval, and the values of single seeds as crosses."""
    (colour, marker), value = style_of(dots.series, name), entry["value"]
    low, high = dots.limits or (value, value)
    if not min(low, high) <= value <= max(low, high) and dots.limits:
        value, marker = (low, "<") if value < low else (high, ">")
    if ci := interval(entry):
        ends = [min(max(end, low), high) for end in ci] if dots.limits else list(ci)
        whisker(axes, ends, y)
    if len(entry.get("by_seed") or ()) > 1:
        axes.plot(entry["by_seed"], [y] * len(entry["by_seed"]), "x", color=INK, markersize=3, zorder=2.6)
    style = {"markeredgecolor": INK, "markersize": 5.5, "zorder": 3, "clip_on": False, "linestyle": ""}
    axes.plot(value, y, marker=marker, color=colour, **style)


def scale(axes: "Axes", dots: Dots, compact: bool) -> None:
    """The axis of values, with its unit."""
    from matplotlib import ticker

    if dots.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=5 if compact else 9))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.xaxis.set_major_locator(round_steps(3 if compact else 7))
    if dots.limits:
        axes.set_xlim(*dots.limits)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(fit(dots.unit, 2.2 if compact else 5.0, 8, lines=3), fontsize=8)


def legend(axes: "Axes", dots: Dots, shown: list[str], inches: float) -> None:
    """The series and lines by name, above the axes, in as many columns as fit."""
    for name in shown:
        colour, marker = style_of(dots.series, name)
        style = {"markeredgecolor": INK, "linestyle": "", "markersize": 5.5}
        axes.plot(
            [], [], marker=marker, color=colour, label=fit(dots.series[name], inches - 0.5, 7.5, 1), **style
        )
    handles, names = axes.get_legend_handles_labels()
    widest = max((text_inches(name, 7.5) for name in names), default=0.0) + 0.45
    columns = max(1, min(len(names), int(inches / widest)))
    place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderpad": 0.1}
    style = {
        "frameon": False,
        "fontsize": 7.5,
        "handlelength": 1.6,
        "columnspacing": 1.0,
        "labelspacing": 0.25,
    }
    axes.legend(handles, names, ncols=columns, **place, **style)


@dataclass(frozen=True)
class Lines:
    """Values over steps or turns, a line a series."""

    title: str
    across: str
    unit: str
    points: dict[str, list[tuple[int, dict]]]
    """(x, {"value", "ci95"}) by series."""
    series: dict[str, str]
    level: tuple[str, float] | None = None
    limits: tuple[float, float] | None = None


def draw_lines(panel: "FigureBase", plots: list[Lines], compact: bool) -> None:
    """Plots side by side on one scale; the dashboard has room for the last."""
    plots = plots[-1:] if compact else plots
    every = panel.subplots(1, len(plots), sharey=True, squeeze=False)[0]
    for axes, plot in zip(every, plots, strict=True):
        for k, (name, points) in enumerate(plot.points.items()):
            colour, marker = style_of(plot.series, name)
            aside = 0.12 * (k - (len(plot.points) - 1) / 2)
            xs, ys = [x + aside for x, _ in points], [entry["value"] for _, entry in points]
            style = {"marker": marker, "markersize": 5, "markeredgecolor": INK, "linewidth": 1.3}
            axes.plot(xs, ys, color=colour, label=plot.series[name], zorder=3, clip_on=False, **style)
            for x, (_, entry) in zip(xs, points, strict=True):
                if ci := interval(entry):
                    axes.plot([x, x], ci, color="black", linewidth=1, marker="_", markersize=5, zorder=2.5)
        if plot.level:
            axes.axhline(plot.level[1], color=INK, linestyle="--", linewidth=1, label=plot.level[0])
        if plot.limits:
            axes.set_ylim(*plot.limits)
        axes.set_xticks(sorted({x for points in plot.points.values() for x, _ in points}))
        axes.yaxis.set_major_locator(round_steps(5))
        axes.grid(axis="y")
        axes.set_xlabel(plot.across)
        if len(plots) > 1:
            axes.text(0, 1.02, plot.title, transform=axes.transAxes, fontsize=8.5, va="bottom")
    every[0].set_ylabel(fit(plots[0].unit, 2.0, 8.5))
    every[-1].legend(loc="best", fontsize=7.5, framealpha=0.9, edgecolor="none", handlelength=1.8)
