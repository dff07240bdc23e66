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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

LABELS = {
    "conditional_perplexity": ("Perplexity", "perplexity per token"),
    "bits_per_byte": ("Bits per byte", "bits per byte"),
    "token_accuracy": ("Token accuracy", "correct tokens (%)"),
    "evaluation_loss": ("Evaluation loss", "loss (nats per token)"),
    "jaccard": ("Jaccard", "overlap with the reference answer (0 to 1)"),
    "rouge_l": ("ROUGE-L", "overlap with the reference answer (0 to 1)"),
    "victorian_term_frequency": ("Victorian term frequency", "share of all words (%)"),
    "term_frequency_distance": ("Distance to the canon's rate", "|log ratio of rates|"),
}
VERDICTS = {
    "better": (BLUE, "o", "better"),
    "worse": (VERMILION, "D", "worse"),
    "unclear": ("white", "s", "unclear (interval holds 0, or none)"),
}
"""Colour, marker and words for what became of a metric."""
HARD = "\N{NO-BREAK SPACE}"
PERCENT = {"token_accuracy", "victorian_term_frequency"}
"""Metrics that the report holds as fractions and that are read in percent."""


@dataclass(frozen=True)
class Change:
    """How one metric moved between two systems, relative to the first, in percent."""

    name: str
    better: str
    direction: int
    """1 where more is better, -1 where less is, 0 where the report does not say."""
    percent: float
    ci95: tuple[float, float] | None
    verdict: str
    """better, worse or unclear (the interval holds zero, or there is none)."""
    n: int | None


# --- words and numbers ----------------------------------------------------------------------------------


def label_of(name: str) -> str:
    """`conditional_perplexity/modern` -> `Perplexity (modern)`."""
    plain, _, variant = name.partition("/")
    label = LABELS.get(plain, (plain.replace("_", " ").capitalize(),))[0]
    return f"{label} ({variant.replace('_', ' ')})" if variant else label


def number_text(value: float | None, name: str = "") -> str:
    """Three significant digits or so, in percent where the metric is read that way; a dash for nothing."""
    if value is None:
        return "–"
    if name.partition("/")[0] in PERCENT:
        return f"{100 * value:.2f}%"
    size = abs(value)
    if size >= 1e5 or 0 < size < 5e-4:
        return f"{value:.2e}"
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"


def better_text(metric: dict, name: str) -> str:
    """Which way is better, in words."""
    if metric.get("better") == "target":
        return (
            f"closest to {number_text(metric['target'], name)} is best"
            if finite(metric.get("target"))
            else ""
        )
    return f"{metric['better']} is better" if metric.get("better") in ("lower", "higher") else ""


def finite(value: Any) -> bool:
    """Whether a value from a report is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def interval(entry: dict | None) -> tuple[float, float] | None:
    """The ci95 of a value, or None."""
    ci = (entry or {}).get("ci95")
    return (ci[0], ci[1]) if isinstance(ci, list | tuple) and len(ci) == 2 and all(map(finite, ci)) else None


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
                ends = range(1, len(word) + 1)
                cut = max(
                    1, bisect_right(ends, inches, key=lambda end: text_inches(word[:end], points, bold))
                )
                cut = 1 + max(word.rfind(mark, cut // 2, cut) for mark in "-/_.") or cut
                rows, word = [*rows, word[:cut]], word[cut:]
    return [*rows, row] if row else rows


def fit(text: str, inches: float, points: float, lines: int = 2, bold: bool = False) -> str:
    """`text` in at most `lines` lines of a width; else without its middle, as names differ at the ends."""
    if len(broken(text, inches, points, bold)) <= lines:
        return "\n".join(broken(text, inches, points, bold))

    def shortened(keep: int) -> list[str]:
        start, end = text[: keep // 2].rstrip(), text[len(text) - (keep + 1) // 2 :].lstrip()
        return broken(f"{start}…{end}", inches, points, bold)

    keep = bisect_right(range(2, len(text)), lines, key=lambda keep: len(shortened(keep))) + 1
    while keep > 2 and len(shortened(keep)) > lines:  # soft breaks: the count of lines is not quite monotonic
        keep -= 1
    return "\n".join(shortened(keep))


def balanced(text: str, inches: float, points: float, lines: int = 3) -> str:
    """A bold title in lines of about one length, as few as `fit` needs."""
    rows = fit(text, inches, points, lines, bold=True)
    if rows.replace("\n", " ") != text:
        return rows
    tenths = (inches * part / 20 for part in range(8, 21))
    return next(
        "\n".join(b) for each in tenths if len(b := broken(text, each, points, True)) <= rows.count("\n") + 1
    )


# --- what a report holds --------------------------------------------------------------------------------


def measured(metric: dict) -> dict[str, dict]:
    """The systems that have a number for this metric, in the report's order."""
    return {system: entry for system, entry in metric["values"].items() if finite((entry or {}).get("value"))}


def family(report: dict, *plain: str) -> list[str]:
    """Names of the measured metrics called `plain` or `plain/...`, plain ones first."""
    names = [
        name
        for name in report["metrics"]
        if name.partition("/")[0] in plain and measured(report["metrics"][name])
    ]
    return sorted(names, key=lambda name: ("/" in name, plain.index(name.partition("/")[0])))


def compared_pair(report: dict) -> tuple[str, str] | None:
    """The pair that the change figure compares: (tuned, base), else the first pair with a difference."""
    keys = [key for metric in report["metrics"].values() for key in metric.get("differences") or {}]
    systems = {system for metric in report["metrics"].values() for system in metric["values"]}
    if {"tuned", "base"} <= systems:
        return "tuned", "base"
    for key in keys:
        for i in (i for i, mark in enumerate(key) if mark == "-"):
            if key[:i] in systems and key[i + 1 :] in systems:
                return key[:i], key[i + 1 :]
    return None


def changes(report: dict) -> list[Change]:
    """Relative change of every metric that both systems have and whose value for the first is not zero."""
    pair, found = compared_pair(report), []
    for name, metric in report["metrics"].items() if pair else ():
        values = measured(metric)
        if not set(pair) <= set(values) or values[pair[1]]["value"] == 0:
            continue
        after, before = (values[system]["value"] for system in pair)
        entry = (metric.get("differences") or {}).get("-".join(pair)) or {}
        difference = entry["value"] if finite(entry.get("value")) else after - before
        scale, target = 100 / abs(before), metric.get("target")
        ci = interval(entry)
        direction = {"higher": 1, "lower": -1}.get(metric.get("better"), 0)
        improved = direction * difference > 0
        if metric.get("better") == "target" and finite(target):
            direction = 1 if target > before else -1
            improved = abs(after - target) < abs(before - target)
        clear = direction and ci and not ci[0] <= 0 <= ci[1]
        verdict = ("better" if improved else "worse") if clear else "unclear"
        ci = (ci[0] * scale, ci[1] * scale) if ci else None
        counts = [values[system]["n"] for system in pair if finite(values[system].get("n"))]
        better = better_text(metric, name)
        found.append(
            Change(name, better, direction, difference * scale, ci, verdict, min(counts, default=None))
        )
    return found


def count_text(counts: list, report: dict) -> str:
    """`n = 120`, `n = 30 to 120`, or the report's own n."""
    counts = [count for count in counts if finite(count)] or [report["n"]] * finite(report.get("n"))
    if not counts:
        return "n not given"
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def interval_text(intervals: list) -> str:
    """What the whiskers are."""
    if not any(intervals):
        return "the report gives no intervals"
    return "whiskers: 95% bootstrap interval" + ("" if all(intervals) else ", where the report gives one")


# --- panels: the same code draws a figure of its own and a part of the dashboard ------------------------


def round_steps(count: int) -> Any:
    """Ticks at round numbers, `count` of them or fewer."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


def moving_mean(values: list[float], window: int) -> list[float]:
    """Centred mean over the finite values of a window of points."""
    half, means = window // 2, []
    for i in range(len(values)):
        near = [value for value in values[max(0, i - half) : i + half + 1] if not math.isnan(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


def draw_loss(panel: "FigureBase", loss: dict, compact: bool) -> None:
    """Loss over epochs with the phases shaded; on its own, the learning rate below it."""
    train, checks = loss["train"], [point for point in loss["evaluation"] if finite(point["loss"])]
    epochs = [point["epoch"] for point in train]
    values = [point["loss"] if finite(point["loss"]) else math.nan for point in train]
    length = max([loss["epochs"], *epochs, *(point["epoch"] for point in checks)]) or 1
    below = not compact and any(finite(point.get("learning_rate")) for point in train)
    if below:
        axes, lowest = panel.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        plot_rate(lowest, train, "learning rate\n")
    else:
        axes = lowest = panel.subplots()

    if len(values) > 200:
        window = max(5, len(values) // 100) | 1
        name = None if compact else "training, each logged point"
        axes.plot(epochs, values, color=BLUE, alpha=0.35, linewidth=0.7, label=name)
        means = moving_mean(values, window)
        axes.plot(epochs, means, color=BLUE, linewidth=1.4, label=f"training, mean of {window}")
    elif values:
        marker = {"marker": "o", "markersize": 2.5} if len(values) <= 60 else {}
        axes.plot(epochs, values, color=BLUE, linewidth=1.4, label="training", **marker)
    if checks:
        style = {"linestyle": "--", "marker": "s", "markersize": 4, "markeredgecolor": "white"}
        xs, ys = [point["epoch"] for point in checks], [point["loss"] for point in checks]
        axes.plot(xs, ys, color=VERMILION, linewidth=1.2, label="evaluation", clip_on=False, **style)
    gaps = [epoch for epoch, value in zip(epochs, values, strict=True) if math.isnan(value)]
    if gaps:
        style = {"linestyle": "", "marker": "x", "markersize": 5, "clip_on": False}
        axes.plot(gaps, [0] * len(gaps), color=INK, label=f"not a number ({len(gaps)})", **style)

    axes.set_xlim(0, length)
    axes.set_ylim(bottom=axes.get_ylim()[0] if any(value < 0 for value in values) else 0.0)
    axes.set_ylabel("loss (nats per token)")
    axes.yaxis.set_major_locator(round_steps(5 if compact else 8))
    axes.grid(axis="y")
    axes.legend(loc="best", fontsize=7.5 if compact else 8, framealpha=0.9, edgecolor="none")
    key = shade_phases([axes, lowest] if below else [axes], loss["phases"], length, 1.6 if compact else 6.0)
    lowest.set_xlabel(fit(f"epoch{key}", 2.3 if compact else 6.0, 8.5, lines=4))
    lowest.xaxis.set_major_locator(round_steps(4 if compact else 8))


def shade_phases(every: list["Axes"], phases: list[dict], length: float, inches: float) -> str:
    """Shade the phases on every axes and name them above the first; by number where a name does not fit.

    Returns the key to the numbers, for the label of the x axis; empty where the names stand in full.
    """
    phases = [phase for phase in phases if phase["to_epoch"] > phase["from_epoch"]]
    room = [0.92 * inches * (phase["to_epoch"] - phase["from_epoch"]) / length for phase in phases]
    names = [fit(phase["name"], width, 8) for phase, width in zip(phases, room, strict=True)]
    numbered = any(
        name.replace("\n", " ") != phase["name"] for name, phase in zip(names, phases, strict=True)
    )
    for i, phase in enumerate(phases):
        start, end = phase["from_epoch"], phase["to_epoch"]
        for axes in every:
            axes.axvspan(start, end, color=INK, alpha=(0.11, 0.06, 0.015)[i % 3], linewidth=0)
            axes.axvline(end, color=GREY, linewidth=0.7, linestyle=":")
        style = {"transform": every[0].get_xaxis_transform(), "ha": "center", "va": "bottom", "color": INK}
        every[0].text((start + end) / 2, 1.015, str(i + 1) if numbered else names[i], fontsize=8, **style)
    if not numbered:
        return ""
    return " (phases: " + ", ".join(f"{i}{HARD}{p['name']}" for i, p in enumerate(phases, start=1)) + ")"


def plot_rate(axes: "Axes", train: list[dict], label: str) -> None:
    """The learning rate, in units of a power of ten that the label names."""
    known = [
        (point["epoch"], point["learning_rate"]) for point in train if finite(point.get("learning_rate"))
    ]
    top = max(rate for _, rate in known)
    power = math.floor(math.log10(top)) if top > 0 else 0
    marker = {"marker": "o", "markersize": 2.5} if len(known) <= 60 else {}
    xs, ys = [epoch for epoch, _ in known], [rate / 10.0**power for _, rate in known]
    axes.plot(xs, ys, color=GREEN, linewidth=1.4, **marker)
    axes.set_ylim(0, 1.12 * max(ys) or 1)
    axes.yaxis.set_major_locator(round_steps(3 if "\n" in label else 5))
    exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    axes.set_ylabel(f"{label}(×{HARD}10{exponent})")
    axes.grid(axis="y")


def draw_rate(panel: "FigureBase", loss: dict, compact: bool) -> None:
    """The learning rate over epochs, as a panel of its own."""
    axes = panel.subplots()
    plot_rate(axes, loss["train"], "learning rate ")
    axes.set_xlim(0, max([loss["epochs"], *(point["epoch"] for point in loss["train"])]) or 1)
    axes.xaxis.set_major_locator(round_steps(4 if compact else 8))
    axes.set_xlabel("epoch")


def list_rows(
    axes: "Axes", labels: dict[int, str], numbers: dict[int, str], count: int, compact: bool
) -> None:
    """Rows from the top down: names on the left, numbers in a column on the right, none too thick."""
    points = COMPACT_POINTS if compact else POINTS
    for y, number in numbers.items():
        axes.text(1.03, y, number, transform=axes.get_yaxis_transform(), va="center", fontsize=points)
    spare = max(0.0, ((4 if compact else 3) - count) / 2)
    axes.set_ylim(count - 0.4 + spare, -0.6 - spare)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=points)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def whisker(axes: "Axes", ends: list[float], y: float) -> None:
    """An interval with a cap at each end."""
    axes.plot(ends, [y, y], color="black", linewidth=1.2, marker="|", markeredgewidth=1.2, zorder=2.5)


def bar_rows(report: dict, names: list[str]) -> list[tuple[str, str, dict | None]]:
    """Rows of a bar panel as (metric, system, entry); a heading has no system, the target's row no entry."""
    rows = []
    for name in names:
        rows += [(name, "", None)] if len(names) > 1 else []
        rows += [(name, system, entry) for system, entry in measured(report["metrics"][name]).items()]
        rows += [(name, "target", None)] if finite(report["metrics"][name].get("target")) else []
    return rows


def draw_bars(panel: "FigureBase", report: dict, names: list[str], compact: bool) -> None:
    """A bar a system with its interval; a heading a metric; the target as a dashed line. One unit for all.

    Where values differ by more than a factor of 50 the axis is logarithmic, with points in place of bars.
    """
    from matplotlib import ticker

    axes, rows = panel.subplots(), bar_rows(report, names)
    plain, scale = names[0].partition("/")[0], 100 if names[0].partition("/")[0] in PERCENT else 1
    order = list(
        dict.fromkeys([*(report.get("systems") or {}), *(system for _, system, entry in rows if entry)])
    )
    order = [system for system in order if system != "base"]
    values = [entry["value"] * scale for *_, entry in rows if entry]
    logarithmic = min(values) > 0 and max(values) > 50 * min(values)
    points, labels, numbers = COMPACT_POINTS if compact else POINTS, {}, {}
    for y, (name, system, entry) in enumerate(rows):
        if entry:
            i, value, ci = (
                order.index(system) if system != "base" else -1,
                entry["value"] * scale,
                interval(entry),
            )
            colour = PALETTE[i % len(PALETTE)] if i >= 0 else GREY
            style = {"color": colour, "zorder": 3 if logarithmic else 2}
            if logarithmic:
                axes.plot(value, y, marker="sD^vPX*p"[i % 8] if i >= 0 else "o", markeredgecolor=INK, **style)
            else:
                style["hatch"] = HATCHES[i % len(HATCHES)] if i >= 0 else ""
                axes.barh(y, value, height=0.62, edgecolor=INK, linewidth=0.6, **style)
            if ci:
                whisker(axes, [bound * scale for bound in ci], y)
            labels[y], numbers[y] = (
                fit(system, 0.72 if compact else 1.5, points),
                number_text(entry["value"], name),
            )
            if ci and not compact:
                numbers[y] += " [" + ", ".join(number_text(bound, name).rstrip("%") for bound in ci) + "]"
        elif system:
            target = report["metrics"][name]["target"]
            axes.axvline(target * scale, color=INK, linestyle="--", linewidth=1)
            axes.plot(target * scale, y, marker="D", color="white", markeredgecolor=INK, clip_on=False)
            labels[y], numbers[y] = "canon (target)", number_text(target, name)
        else:
            heading = fit(
                label_of(name), 1.2 if compact else 3.2, points, lines=2 if compact else 1, bold=True
            )
            style = {"transform": axes.get_yaxis_transform(), "va": "center", "fontweight": "bold"}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(0.012, y, heading, fontsize=points, bbox=box, **style)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(numticks=3 if compact else 7))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.set_xlim(left=axes.get_xlim()[0] if min(values) < 0 else 0.0)
        axes.xaxis.set_major_locator(round_steps(3 if compact else 6))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    list_rows(axes, labels, numbers, len(rows), compact)
    notes = [better_text(report["metrics"][names[0]], names[0]), "logarithmic axis" if logarithmic else ""]
    unit = "; ".join([LABELS.get(plain, ("", label_of(plain)))[1], *filter(None, notes)])
    axes.set_xlabel(fit(unit, 2.2 if compact else 5.5, 8, lines=3), fontsize=8)


def percent_text(value: float, decimals: int) -> str:
    """`+12.3`, `-48`; powers of ten where the figure would be long."""
    return f"{value:+.{0 if abs(value) >= 100 else decimals}f}" if abs(value) < 1e5 else f"{value:+.0e}"


def draw_changes(panel: "FigureBase", rows: list[Change], before: str, compact: bool) -> None:
    """Relative change of each metric with its interval, a line at zero, the better side of each row shaded.

    What lies beyond 20 times the median becomes an arrow at the edge, with its number beside it.
    """
    from matplotlib import ticker

    axes, points = panel.subplots(), COMPACT_POINTS if compact else POINTS
    ends = {i: [row.percent, *(row.ci95 or ())] for i, row in enumerate(rows)}
    reach = sorted(max(map(abs, each)) for each in ends.values())
    limit = min(reach[-1], 20 * reach[len(reach) // 2] or reach[-1]) or 1.0
    low = -min(limit, max(-min(map(min, ends.values())), 0.3 * limit)) * 1.08
    high = min(limit, max(max(map(max, ends.values())), 0.3 * limit)) * 1.08
    axes.set_xlim(low, high)
    axes.axvline(0, color=INK, linewidth=1)
    labels, numbers = {}, {}
    for y, row in enumerate(rows):
        if row.direction:
            axes.barh(y, high if row.direction > 0 else low, height=0.86, color=BLUE, alpha=0.09, linewidth=0)
        if row.ci95:
            whisker(axes, list(row.ci95), y)
        colour, marker, _ = VERDICTS[row.verdict]
        if not low <= row.percent <= high:
            marker = "<" if row.percent < 0 else ">"
        x = min(max(row.percent, 0.97 * low), 0.97 * high) if marker in "<>" else row.percent
        axes.plot(x, y, marker=marker, color=colour, markeredgecolor=INK, zorder=3)
        numbers[y] = percent_text(row.percent, 1) + "%"
        if row.ci95 and not compact:
            numbers[y] += " [" + ", ".join(percent_text(bound, 0) for bound in row.ci95) + "]"
        arrow = {1: f"{HARD}▶", -1: f"{HARD}◀", 0: ""}[row.direction]
        if compact:
            labels[y] = fit(label_of(row.name), 0.82, points) + arrow
        else:
            labels[y] = (
                fit(label_of(row.name), 2.1, points, lines=1) + f"\n{row.better or 'no better side'}{arrow}"
            )
    list_rows(axes, labels, numbers, len(rows), compact)
    axes.xaxis.set_major_locator(round_steps(3 if compact else 7))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    label = f"change relative to {fit(before, 1.5, 8, lines=1)} (%); shaded: better side"
    axes.set_xlabel(fit(label, 2.2 if compact else 5.5, 8), fontsize=8)
    if not compact:
        for colour, marker, meaning in VERDICTS.values():
            axes.plot([], [], marker=marker, color=colour, markeredgecolor=INK, linestyle="", label=meaning)
        corner = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
        axes.legend(ncols=3, frameon=False, fontsize=8, borderpad=0.1, **corner)


# --- whole figures --------------------------------------------------------------------------------------


def compose(
    size: tuple[float, float], title: str, caption: str, draw: Callable[["FigureBase"], None]
) -> "Figure":
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
    panel.suptitle(
        balanced(title, inches - 0.25, points), x=0.01, ha="left", fontsize=points, fontweight="bold"
    )


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
