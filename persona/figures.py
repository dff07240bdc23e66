"""What all figures share: style, text that is measured before it is set, rows, whiskers, whole figures.

Every figure has its finding in the title, units on the axes, n and the kind of interval in a caption. Systems
differ by colour (Okabe and Ito's palette, safe for the colour-blind) and by hatch or marker, and carry their
names. What is too long wraps, or loses its middle, and runs into no other text.
matplotlib is imported where it is needed, with the Agg canvas and without pyplot's global state.
"""

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
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


# --- parts of panels ------------------------------------------------------------------------------------


def round_steps(count: int) -> Any:
    """Ticks at round numbers, `count` of them or fewer."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


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


def colour_places(systems: Iterable[str]) -> dict[str, int]:
    """Every system's place in palette, hatches and markers; the base, which is grey, has none.

    The tuned one comes first, so that it looks the same in every figure.
    """
    others = sorted((name for name in systems if name != "base"), key=lambda name: name != "tuned")
    return {name: i for i, name in enumerate(others)}


def whisker(axes: "Axes", ends: list[float], y: float) -> None:
    """An interval with a cap at each end."""
    axes.plot(ends, [y, y], color="black", linewidth=1.2, marker="|", markeredgewidth=1.2, zorder=2.5)


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
