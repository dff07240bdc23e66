"""The figures that any report allows: title, caption, size, and what draws it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from persona import bar_figures, figures, findings, loss_figure

FAMILIES = {
    "perplexity": ("conditional_perplexity",),
    "similarity": ("jaccard", "rouge_l"),
    "term_frequency": ("victorian_term_frequency",),
}
"""Bar figures and the metrics that each shows, with their variants on other items (`jaccard/probes`)."""
DASHBOARD_METRICS = 8
DASHBOARD_OF_SUITE = ("loss", "perplexity", "choice", "style", "character", "deduction")


@dataclass(frozen=True)
class Picture:
    """A figure that the data allow: what stands on it, how tall it is, and what draws it."""

    title: str
    caption: str
    height: float
    panel_height: float
    """Inches, on its own and as a panel of the dashboard."""
    draw: Callable[..., None]
    """Called with a matplotlib figure (or a panel of one) and `compact`, which says that space is scarce."""


def loss_pictures(loss: dict, run: str) -> dict[str, Picture]:
    """The loss curve, and the learning rate for the dashboard; none where nothing was logged as a number."""
    if not any(findings.finite(point["loss"]) for point in [*loss["train"], *loss["evaluation"]]):
        return {}
    caption = f"{run} · {loss.get('total_steps')} steps, {len(loss['train'])} logged points"
    caption += " · phases end at 1/6, 1/2 and the end of the run"
    title = findings.loss_title(loss)
    pictures = {"loss": Picture(title, caption, 4.8, 2.9, partial(loss_figure.draw_loss, loss=loss))}
    rates = [point["learning_rate"] for point in loss["train"] if findings.finite(point.get("learning_rate"))]
    if rates:
        title = f"Learning rate: {max(rates):.2g} at its highest, {rates[-1]:.2g} at the end"
        pictures["learning_rate"] = Picture(title, "", 0.0, 2.9, partial(loss_figure.draw_rate, loss=loss))
    return pictures


def bar_picture(report: dict, names: list[str], run: str) -> Picture:
    """Bars of a family of metrics; the dashboard has no room for the variants on other items."""
    metrics, short = report["metrics"], [name for name in names if "/" not in name] or names
    entries = [entry for name in names for entry in findings.measured(metrics[name]).values()]
    caption = f"{run} · {findings.count_text([entry.get('n') for entry in entries], report)}"
    caption += f" · {findings.interval_text([findings.interval(entry) for entry in entries])}"
    if any(findings.finite(metrics[name].get("target")) for name in names):
        caption += " · dashed line: the canon's own rate"

    def draw(panel: Any, compact: bool) -> None:
        bar_figures.draw_bars(panel, report, short if compact else names, compact)

    tall, low = (len(findings.bar_rows(report, each)) for each in (names, short))
    title = findings.metric_title(report, names)
    return Picture(title, caption, 1.55 + 0.34 * max(tall, 3), 1.2 + 0.3 * low, draw)


def change_picture(report: dict, rows: list[findings.Change], run: str) -> Picture:
    """Relative changes between two systems; the dashboard shows the first few metrics."""
    pair, some = findings.compared_pair(report), rows[:DASHBOARD_METRICS]
    caption = f"{run} · {findings.count_text([row.n for row in rows], report)} · "
    caption += f"{findings.interval_text([row.ci95 for row in rows])} · ◀ ▶ and shading: the better direction"
    if report.get("protocol") == "full":  # where the page counts verdicts after Holm's correction
        caption += " · verdicts by single intervals, not corrected for many metrics"

    def draw(panel: Any, compact: bool) -> None:
        bar_figures.draw_changes(panel, some if compact else rows, pair[1], compact)

    title = findings.change_title(pair, rows)
    return Picture(title, caption, 1.9 + 0.42 * len(rows), 1.2 + 0.32 * len(some), draw)


def dashboard(report: dict, pictures: dict[str, Picture]) -> Picture:
    """All panels on one picture, three in a row; of the suite's many the ones that say most."""
    if report.get("protocol") == "full":
        pictures = {name: pictures[name] for name in DASHBOARD_OF_SUITE if name in pictures} or pictures
    panels = list(pictures.values())
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(panel.panel_height for panel in line) for line in lines]

    def draw(figure: Any, compact: bool) -> None:
        grid = figure.subfigures(len(lines), columns, height_ratios=heights, squeeze=False)
        for line, cells in zip(lines, grid, strict=True):
            for panel, cell in zip(line, cells, strict=False):
                panel.draw(cell, compact=True)
                figures.head(cell, panel.title, figures.DASHBOARD_WIDTH / columns, points=8.5)

    run, systems = report.get("run", "run"), list(report.get("systems") or {})
    caption = next((p.caption for name, p in pictures.items() if name in FAMILIES), str(run))
    if "improvement" in pictures:
        caption += f" · change: ● better, ◆ worse, □ unclear, at most {DASHBOARD_METRICS} metrics"
    named = ", ".join(systems) if len(systems) < 4 else f"{len(systems)} systems"
    return Picture(f"{run}: {named}", caption, 0.8 + sum(heights), 0.0, draw)
