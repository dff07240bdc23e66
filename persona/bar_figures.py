"""Panels of the quick report: bars of a family of metrics, and relative changes between two systems.

The same code draws a figure of its own and a part of the dashboard.
"""

from typing import TYPE_CHECKING

from persona import findings
from persona.figures import (
    BLUE,
    COMPACT_POINTS,
    GREY,
    HATCHES,
    INK,
    PALETTE,
    POINTS,
    VERMILION,
    colour_places,
    fit,
    list_rows,
    round_steps,
    whisker,
)
from persona.findings import HARD, Change, interval, number_text, percent_text
from persona.metric_names import in_percent, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

VERDICTS = {
    "better": (BLUE, "o", "better"),
    "worse": (VERMILION, "D", "worse"),
    "unclear": ("white", "s", "unclear (interval holds 0, or none)"),
}
"""Colour, marker and words for what became of a metric."""


def draw_bars(panel: "FigureBase", report: dict, names: list[str], compact: bool) -> None:
    """A bar a system with its interval; a heading a metric; the target as a dashed line. One unit for all.

    Where values differ by more than a factor of 50 the axis is logarithmic, with points in place of bars.
    """
    axes, rows = panel.subplots(), findings.bar_rows(report, names)
    points, scale = COMPACT_POINTS if compact else POINTS, 100 if in_percent(names[0]) else 1
    systems = dict.fromkeys([*(report.get("systems") or {}), *(name for _, name, entry in rows if entry)])
    order = colour_places(systems)
    values = [entry["value"] * scale for *_, entry in rows if entry]
    logarithmic = min(values) > 0 and max(values) > 50 * min(values)
    labels, numbers = {}, {}
    for y, (name, system, entry) in enumerate(rows):
        if entry:
            draw_value(axes, y, entry, scale, order.get(system), logarithmic)
            labels[y] = fit(system, 0.72 if compact else 1.5, points)
            numbers[y] = number_text(entry["value"], name)
            if (ci := interval(entry)) and not compact:
                numbers[y] += " [" + ", ".join(number_text(bound, name).rstrip("%") for bound in ci) + "]"
        elif system:
            target = report["metrics"][name]["target"]
            axes.axvline(target * scale, color=INK, linestyle="--", linewidth=1)
            axes.plot(target * scale, y, marker="D", color="white", markeredgecolor=INK, clip_on=False)
            labels[y], numbers[y] = "canon (target)", number_text(target, name)
        else:
            room = {"inches": 1.2, "lines": 2} if compact else {"inches": 3.2, "lines": 1}
            heading = fit(label_of(name), points=points, bold=True, **room)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            style = {"transform": axes.get_yaxis_transform(), "va": "center", "fontweight": "bold"}
            axes.text(0.012, y, heading, fontsize=points, bbox=box, **style)
    scale_values(axes, values, logarithmic, compact)
    list_rows(axes, labels, numbers, len(rows), compact)
    unit = findings.unit_text(report["metrics"][names[0]], names[0])
    unit += "; logarithmic axis" if logarithmic else ""
    axes.set_xlabel(fit(unit, 2.2 if compact else 5.5, 8, lines=3), fontsize=8)


def draw_value(axes: "Axes", y: int, entry: dict, scale: int, i: int | None, logarithmic: bool) -> None:
    """The value of the system number `i` (None for the base model) with its interval."""
    value, ci = entry["value"] * scale, interval(entry)
    colour = GREY if i is None else PALETTE[i % len(PALETTE)]
    if logarithmic:
        marker = "o" if i is None else "sD^vPX*p"[i % 8]
        axes.plot(value, y, marker=marker, color=colour, markeredgecolor=INK, zorder=3)
    else:
        hatch = "" if i is None else HATCHES[i % len(HATCHES)]
        axes.barh(y, value, height=0.62, color=colour, edgecolor=INK, hatch=hatch, linewidth=0.6, zorder=2)
    if ci:
        whisker(axes, [bound * scale for bound in ci], y)


def scale_values(axes: "Axes", values: list[float], logarithmic: bool, compact: bool) -> None:
    """The axis of values: logarithmic, or from zero."""
    from matplotlib import ticker

    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(numticks=3 if compact else 7))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.set_xlim(left=axes.get_xlim()[0] if min(values) < 0 else 0.0)
        axes.xaxis.set_major_locator(round_steps(3 if compact else 6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def draw_changes(panel: "FigureBase", rows: list[Change], before: str, compact: bool) -> None:
    """Relative change of each metric with its interval, a line at zero, the better side of each row shaded.

    What lies beyond `findings.change_range` becomes an arrow at the edge, with its number beside it.
    """
    axes, points = panel.subplots(), COMPACT_POINTS if compact else POINTS
    low, high = findings.change_range(rows)
    axes.set_xlim(low, high)
    axes.axvline(0, color=INK, linewidth=1)
    labels, numbers = {}, {}
    for y, row in enumerate(rows):
        if row.direction:
            axes.barh(y, high if row.direction > 0 else low, height=0.86, color=BLUE, alpha=0.09, linewidth=0)
        if row.ci95:
            whisker(axes, list(row.ci95), y)
        (colour, marker, _), x = VERDICTS[row.verdict], row.percent
        if not low <= x <= high:
            marker, x = ("<", 0.97 * low) if x < 0 else (">", 0.97 * high)
        axes.plot(x, y, marker=marker, color=colour, markeredgecolor=INK, zorder=3)
        numbers[y] = percent_text(row.percent, 1) + "%"
        if row.ci95 and not compact:
            numbers[y] += " [" + ", ".join(percent_text(bound, 0) for bound in row.ci95) + "]"
        arrow = {1: f"{HARD}▶", -1: f"{HARD}◀", 0: ""}[row.direction]
        room = {"inches": 0.82, "lines": 2} if compact else {"inches": 2.1, "lines": 1}
        side = "" if compact else f"\n{row.better or 'no better side'}"
        labels[y] = fit(label_of(row.name), points=points, **room) + side + arrow
    list_rows(axes, labels, numbers, len(rows), compact)
    axes.xaxis.set_major_locator(round_steps(3 if compact else 7))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    label = f"change relative to {fit(before, 1.5, 8, lines=1)} (%); shaded: better side"
    axes.set_xlabel(fit(label, 2.2 if compact else 5.5, 8), fontsize=8)
    if not compact:
        for colour, marker, meaning in VERDICTS.values():
            axes.plot([], [], marker=marker, color=colour, markeredgecolor=INK, linestyle="", label=meaning)
        corner = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
        axes.legend(ncols=3, frameon=False, fontsize=8, borderpad=0.1, **corner)
