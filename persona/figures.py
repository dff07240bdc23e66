"""The figures of a run, drawn from the dictionaries of training_loss.json and evaluation_report.json.

Every figure has its finding in the title, units on the axes, n and the kind of interval in a caption. Systems
differ by colour (Okabe and Ito's palette, safe for the colour-blind) and by hatch, and carry their names.
Text is measured before it is set: what is too long wraps, or loses its middle, and runs into no other text.
matplotlib is imported where it is needed, with the Agg canvas and without pyplot's global state.
"""

import math
import os
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona import findings
from persona.findings import HARD, Change, finite, in_percent, interval, label_of, number_text, percent_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

DPI = 150
WIDTH = 7.2
"""Inches; 1080 pixels."""
DASHBOARD_WIDTH = 8.0
"""Inches; 1200 pixels."""
POINTS, COMPACT_POINTS = 8.5, 7.5
"""Sizes of text in a figure of its own and in the dashboard."""

GREY, INK = "#999999", "#333333"
BLUE, GREEN, VERMILION = "#0072B2", "#009E73", "#D55E00"
PALETTE = (BLUE, "#E69F00", GREEN, "#CC79A7", "#56B4E9", VERMILION, "#F0E442")
HATCHES = ("///", "...", "\\\\\\", "xxx", "---", "ooo", "|||", "++", "**")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8.5,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "lines.markersize": 6,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}

VERDICTS = {
    "better": (BLUE, "o", "better"),
    "worse": (VERMILION, "D", "worse"),
    "unclear": ("white", "s", "unclear (interval holds 0, or none)"),
}
"""Colour, marker and words for what became of a metric."""
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# --- text, measured ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def renderer() -> Any:
    """One Agg renderer to measure text with."""
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


@lru_cache(maxsize=65536)
def text_inches(text: str, points: float, bold: bool = False) -> float:
    """Width of one line of text as it will be drawn."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=points, weight="bold" if bold else "normal")
    return renderer().get_text_width_height_descent(text, font, False)[0] / DPI


def broken(text: str, inches: float, points: float, bold: bool) -> list[str]:
    """`text` in lines of a width, broken at spaces (not hard ones), and inside a word wider than a line."""
    rows, row = [], ""
    for word in text.split(" "):
        while word:
            joined = f"{row} {word}" if row else word
            if text_inches(joined, points, bold) <= inches:
                row, word = joined, ""
            elif row:
                rows, row = [*rows, row], ""
            else:
                starts = [word[:end] for end in range(1, len(word) + 1)]
                cut = bisect_right(starts, inches, key=lambda start: text_inches(start, points, bold)) or 1
                cut = 1 + max(word.rfind(mark, cut // 2, cut) for mark in "-/_.") or cut
                rows, word = [*rows, word[:cut]], word[cut:]
    return [*rows, row] if row else rows


def fit(text: str, inches: float, points: float, lines: int = 2, bold: bool = False) -> str:
    """`text` in at most `lines` lines of a width; else without its middle, as names differ at the ends."""
    if len(rows := broken(text, inches, points, bold)) <= lines:
        return "\n".join(rows)

    def shortened(keep: int) -> list[str]:
        start, end = text[: keep // 2].rstrip(), text[len(text) - (keep + 1) // 2 :].lstrip()
        return broken(f"{start}…{end}", inches, points, bold)

    keep = bisect_right(range(2, len(text)), lines, key=lambda keep: len(shortened(keep))) + 1
    while keep > 2 and len(shortened(keep)) > lines:  # soft breaks: the count of lines is not quite monotonic
        keep -= 1
    return "\n".join(shortened(keep))


def balanced(text: str, inches: float, points: float, lines: int = 3) -> str:
    """A bold title in lines of about one length, as few as `fit` needs."""
    fitted = fit(text, inches, points, lines, bold=True)
    if fitted.replace("\n", " ") != text:
        return fitted
    narrower = (broken(text, inches * part / 20, points, bold=True) for part in range(8, 21))
    return next("\n".join(rows) for rows in narrower if len(rows) <= fitted.count("\n") + 1)


# --- panels: the same code draws a figure of its own and a part of the dashboard ------------------------


def round_steps(count: int) -> Any:
    """Ticks at round numbers, `count` of them or fewer."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


def draw_loss(panel: "FigureBase", loss: dict, compact: bool) -> None:
    """Loss over epochs with the phases shaded; on its own, the learning rate below it."""
    train, checks = loss["train"], [point for point in loss["evaluation"] if finite(point["loss"])]
    length = findings.length_in_epochs(loss)
    if not compact and any(finite(point.get("learning_rate")) for point in train):
        axes, lowest = panel.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        plot_rate(lowest, train, "learning rate\n")
    else:
        axes = lowest = panel.subplots()
    plot_training(axes, train, compact)
    if checks:
        style = {"linestyle": "--", "marker": "s", "markersize": 4, "markeredgecolor": "white"}
        xs, ys = [point["epoch"] for point in checks], [point["loss"] for point in checks]
        axes.plot(xs, ys, color=VERMILION, linewidth=1.2, label="evaluation", clip_on=False, **style)
    losses = [point["loss"] for point in [*train, *checks] if finite(point["loss"])]
    if 0 <= min(losses) < max(losses) / 2:  # else an axis from zero would flatten the curve
        axes.set_ylim(bottom=0.0)
    axes.set_xlim(0, length)
    axes.set_ylabel("loss (nats per token)")
    axes.yaxis.set_major_locator(round_steps(5 if compact else 8))
    axes.grid(axis="y")
    axes.legend(loc="best", fontsize=7.5 if compact else 8, framealpha=0.9, edgecolor="none")
    key = shade_phases(panel.axes, loss["phases"], length, 1.6 if compact else 6.0)
    lowest.set_xlabel(fit(f"epoch{key}", 2.3 if compact else 6.0, 8.5, lines=4))
    lowest.xaxis.set_major_locator(round_steps(4 if compact else 8))


def plot_training(axes: "Axes", train: list[dict], compact: bool) -> None:
    """The training loss, under its moving mean where it is long; crosses below where it is not a number."""
    epochs = [point["epoch"] for point in train]
    values = [point["loss"] if finite(point["loss"]) else math.nan for point in train]
    if len(values) > 200:
        window = max(5, len(values) // 100) | 1
        name = None if compact else "training, each logged point"
        axes.plot(epochs, values, color=BLUE, alpha=0.35, linewidth=0.7, label=name)
        means = findings.moving_mean(values, window)
        axes.plot(epochs, means, color=BLUE, linewidth=1.4, label=f"training, mean of {window}")
    elif values:
        axes.plot(epochs, values, color=BLUE, linewidth=1.4, label="training", **dots(len(values)))
    if gaps := [point["epoch"] for point in train if not finite(point["loss"])]:
        style = {"linestyle": "", "marker": "x", "markersize": 5, "clip_on": False, "color": INK}
        style |= {"label": f"not a number ({len(gaps)})", "transform": axes.get_xaxis_transform()}
        axes.plot(gaps, [0] * len(gaps), **style)


def dots(count: int) -> dict[str, Any]:
    """Style of a line of `count` points: with a dot at each where they are few."""
    return {"marker": "o", "markersize": 2.5} if count <= 60 else {}


def shade_phases(every: list["Axes"], phases: list[dict], length: float, inches: float) -> str:
    """Shade the phases on every axes and name them above the first; by number where a name does not fit.

    Returns the key to the numbers, for the label of the x axis; empty where the names stand in full.
    """
    phases = [phase for phase in phases if phase["to_epoch"] > phase["from_epoch"]]
    room = [0.92 * inches * (phase["to_epoch"] - phase["from_epoch"]) / length for phase in phases]
    names = [fit(phase["name"], width, 8) for phase, width in zip(phases, room, strict=True)]
    numbered = [name.replace("\n", " ") for name in names] != [phase["name"] for phase in phases]
    for i, phase in enumerate(phases):
        start, end = phase["from_epoch"], phase["to_epoch"]
        for axes in every:
            axes.axvspan(start, end, color=INK, alpha=(0.11, 0.06, 0.015)[i % 3], linewidth=0)
            axes.axvline(end, color=GREY, linewidth=0.7, linestyle=":")
        style = {"transform": every[0].get_xaxis_transform(), "ha": "center", "va": "bottom", "color": INK}
        every[0].text((start + end) / 2, 1.015, str(i + 1) if numbered else names[i], fontsize=8, **style)
    key = ", ".join(f"{i}{HARD}{phase['name']}" for i, phase in enumerate(phases, start=1))
    return f" (phases: {key})" if numbered else ""


def plot_rate(axes: "Axes", train: list[dict], label: str) -> None:
    """The learning rate, in units of a power of ten that the label names."""
    known = [point for point in train if finite(point.get("learning_rate"))]
    top = max(point["learning_rate"] for point in known)
    power = math.floor(math.log10(top)) if top > 0 else 0
    xs, ys = [point["epoch"] for point in known], [point["learning_rate"] / 10.0**power for point in known]
    axes.plot(xs, ys, color=GREEN, linewidth=1.4, **dots(len(known)))
    axes.set_ylim(0, 1.12 * max(ys) or 1)
    axes.yaxis.set_major_locator(round_steps(3 if "\n" in label else 5))
    axes.set_ylabel(f"{label}(×{HARD}10{str(power).translate(SUPERSCRIPT)})")
    axes.grid(axis="y")


def draw_rate(panel: "FigureBase", loss: dict, compact: bool) -> None:
    """The learning rate over epochs, as a panel of its own."""
    axes = panel.subplots()
    plot_rate(axes, loss["train"], "learning rate ")
    axes.set_xlim(0, findings.length_in_epochs(loss))
    axes.xaxis.set_major_locator(round_steps(4 if compact else 8))
    axes.set_xlabel("epoch")


def list_rows(axes: "Axes", labels: dict[int, str], numbers: dict[int, str], n: int, compact: bool) -> None:
    """Rows from the top down: names on the left, numbers in a column on the right, none too thick."""
    points = COMPACT_POINTS if compact else POINTS
    for y, number in numbers.items():
        axes.text(1.03, y, number, transform=axes.get_yaxis_transform(), va="center", fontsize=points)
    spare = max(0.0, ((4 if compact else 3) - n) / 2)
    axes.set_ylim(n - 0.4 + spare, -0.6 - spare)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=points)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def whisker(axes: "Axes", ends: list[float], y: float) -> None:
    """An interval with a cap at each end."""
    axes.plot(ends, [y, y], color="black", linewidth=1.2, marker="|", markeredgewidth=1.2, zorder=2.5)


def draw_bars(panel: "FigureBase", report: dict, names: list[str], compact: bool) -> None:
    """A bar a system with its interval; a heading a metric; the target as a dashed line. One unit for all.

    Where values differ by more than a factor of 50 the axis is logarithmic, with points in place of bars.
    """
    axes, rows = panel.subplots(), findings.bar_rows(report, names)
    points, scale = COMPACT_POINTS if compact else POINTS, 100 if in_percent(names[0]) else 1
    systems = dict.fromkeys([*(report.get("systems") or {}), *(name for _, name, entry in rows if entry)])
    order = {name: i for i, name in enumerate(name for name in systems if name != "base")}
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


# --- whole figures --------------------------------------------------------------------------------------


def compose(size: tuple[float, float], title: str, caption: str, draw: Callable[..., None]) -> "Figure":
    """A figure of `size` inches with a title, what `draw` puts on it, and a caption line below."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        head(figure, title, size[0], points=10.5)
        foot = fit(caption, size[0] - 0.2, 7.5, lines=4)
        figure.supxlabel(foot, x=0.01, ha="left", fontsize=7.5, color="#555555")
        figure.canvas.draw()  # ticks are made while drawing and take their style from the context
        thin_ticks(figure)
    return figure


def thin_ticks(figure: "Figure") -> None:
    """Hide every label of an x axis that would touch the one before it."""
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        end, pad = -math.inf, 0.04 * DPI
        for label in axes.get_xticklabels():
            if low <= label.get_position()[0] <= high and label.get_text():
                box = label.get_window_extent()
                label.set_visible(box.x0 > end + pad)
                end = box.x1 if label.get_visible() else end


def head(panel: "FigureBase", title: str, inches: float, points: float) -> None:
    """A title over the whole width of a figure or of one panel of the dashboard."""
    text = balanced(title, inches - 0.25, points)
    panel.suptitle(text, x=0.01, ha="left", fontsize=points, fontweight="bold")


def save(figure: "Figure", path: Path) -> None:
    """Write the PNG whole or not at all; the same figure gives the same bytes."""
    from matplotlib import rc_context

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with rc_context(STYLE):
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
