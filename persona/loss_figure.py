"""The loss curve of a run and its learning rate, drawn from training_loss.json."""

import math
from typing import TYPE_CHECKING, Any

from persona import findings
from persona.figures import BLUE, GREEN, GREY, INK, VERMILION, fit, round_steps
from persona.findings import HARD, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
