"""The figure of a sweep: one row a setting, its value with interval, the seeds as small dots."""

from typing import TYPE_CHECKING

from persona import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("perplexity", "perplexity of held-out replies\n(lower is better)"),
    ("jaccard", "Jaccard with held-out replies\n(higher is better)"),
)


def draw(report: dict) -> "Figure":
    """Perplexity and Jaccard side by side; the default as a dashed line, the base model as a dotted one."""
    rows = report["rows"]
    names = ["default" if r["factor"] == "default" else f"{r['factor']} {r['level']}" for r in rows]
    default = rows[0]["metrics"] if rows[0]["factor"] == "default" else None
    base = report["base"]["metrics"] if report["base"] else None

    def draw_panels(panel) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        both = panel.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, label) in zip(both, PANELS, strict=True):
            for found, style, who in ((default, "--", "default"), (base, ":", "base model")):
                if found:
                    x = found[metric]["value"]
                    axes.axvline(x, color=figures.INK, linestyle=style, linewidth=1, label=who)
            for y, row in enumerate(rows):
                _mark(axes, y, row["metrics"][metric])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_yticks(range(len(rows)), names)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
            values = [row["metrics"][metric]["value"] for row in rows]
            if max(values) > 5 * min(values) > 0:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            else:
                axes.xaxis.set_major_locator(figures.round_steps(5))
            axes.set_xlabel(label)
        both[0].legend(fontsize=7.5, framealpha=0.9, edgecolor="none")

    seeds = max(len(r["seeds"]) for r in rows)
    caption = (
        f"Dots: value over {seeds} seed{'s' * (seeds > 1)}, with 95% interval by bootstrap over held-out "
        "scenes and seeds; small crosses: each seed. Blue circles: the interval of the difference to the "
        "default leaves 0 out."
    )
    return figures.compose((figures.WIDTH, 1.6 + 0.26 * len(rows)), title(report), caption, draw_panels)


def _mark(axes, y: int, metric: dict) -> None:
    """One setting's value, interval and seeds."""
    if metric["ci95"]:
        figures.whisker(axes, metric["ci95"], y)
    axes.plot(metric["by_seed"], [y] * len(metric["by_seed"]), "x", color=figures.GREY, markersize=4)
    apart = differs(metric)
    style = {"marker": "o", "color": figures.BLUE} if apart else {"marker": "s", "color": "white"}
    axes.plot(metric["value"], y, markeredgecolor=figures.INK, zorder=3, linestyle="", **style)


def differs(metric: dict) -> bool:
    """Whether the interval of the difference to the default leaves 0 out."""
    ci = (metric.get("to_default") or {}).get("ci95")
    return bool(ci) and not ci[0] <= 0 <= ci[1]


def title(report: dict) -> str:
    """What the sweep found, in words."""
    rows = report["rows"]
    best = min(rows, key=lambda r: r["metrics"]["perplexity"]["value"])
    clear = [r for r in rows if differs(r["metrics"]["perplexity"])]
    lower = sum(r["metrics"]["perplexity"]["to_default"]["value"] < 0 for r in clear)
    name = "the default" if best["factor"] == "default" else f"{best['factor']} {best['level']}"
    return (
        f"Lowest perplexity: {name}; of the settings {lower} clearly below the default, "
        f"{len(clear) - lower} above, {len(rows) - 1 - len(clear)} not told apart"
    )
