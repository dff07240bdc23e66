"""Draw a run's reports: figures for the README, and one self-contained page with tables and answers.

Reads   result/<run>/evaluation_report.json; training_loss.json and predictions.jsonl where they are there
Writes  result/<run>/figures/*.png, result/<run>/report.html

    python visual.py
    python visual.py --run sherlock-qwen2.5-7b --answers 200
    python visual.py --model tiny --force
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import config
from persona import figures, findings, runlog

FIGURES = ("dashboard", "loss", "perplexity", "similarity", "term_frequency", "improvement")
"""Every figure that this stage may write, in the order of the page."""
FAMILIES = {
    "perplexity": ("conditional_perplexity",),
    "similarity": ("jaccard", "rouge_l"),
    "term_frequency": ("victorian_term_frequency",),
}
"""Bar figures and the metrics that each shows, with their variants on other items (`jaccard/probes`)."""
DASHBOARD_METRICS = 8


@dataclass(frozen=True)
class Args(config.RunArgs):
    answers: int = 60
    """Answers shown side by side in the page, spread over kinds; 0 for none."""


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


# --- pictures -------------------------------------------------------------------------------------------


def loss_pictures(loss: dict, run: str) -> dict[str, Picture]:
    """The loss curve, and the learning rate for the dashboard; none where nothing was logged as a number."""
    if not any(findings.finite(point["loss"]) for point in [*loss["train"], *loss["evaluation"]]):
        return {}
    caption = f"{run} · {loss.get('total_steps')} steps, {len(loss['train'])} logged points"
    caption += " · phases end at 1/6, 1/2 and the end of the run"
    title = findings.loss_title(loss)
    pictures = {"loss": Picture(title, caption, 4.8, 2.9, partial(figures.draw_loss, loss=loss))}
    rates = [point["learning_rate"] for point in loss["train"] if findings.finite(point.get("learning_rate"))]
    if rates:
        title = f"Learning rate: {max(rates):.2g} at its highest, {rates[-1]:.2g} at the end"
        pictures["learning_rate"] = Picture(title, "", 0.0, 2.9, partial(figures.draw_rate, loss=loss))
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
        figures.draw_bars(panel, report, short if compact else names, compact)

    tall, low = (len(findings.bar_rows(report, each)) for each in (names, short))
    title = findings.metric_title(report, names)
    return Picture(title, caption, 1.55 + 0.34 * max(tall, 3), 1.2 + 0.3 * low, draw)


def change_picture(report: dict, rows: list[findings.Change], run: str) -> Picture:
    """Relative changes between two systems; the dashboard shows the first few metrics."""
    pair, some = findings.compared_pair(report), rows[:DASHBOARD_METRICS]
    caption = f"{run} · {findings.count_text([row.n for row in rows], report)} · "
    caption += f"{findings.interval_text([row.ci95 for row in rows])} · ◀ ▶ and shading: the better direction"

    def draw(panel: Any, compact: bool) -> None:
        figures.draw_changes(panel, some if compact else rows, pair[1], compact)

    title = findings.change_title(pair, rows)
    return Picture(title, caption, 1.9 + 0.42 * len(rows), 1.2 + 0.32 * len(some), draw)


def plan(report: dict, loss: dict | None) -> tuple[dict[str, Picture], dict[str, str]]:
    """The pictures that the data allow, in the order of the dashboard, and why others are skipped."""
    run, skipped = str(report.get("run", "run")), {}
    pictures = loss_pictures(loss, run) if loss else {}
    if not pictures:
        what = "training_loss.json holds no loss" if loss else "no training_loss.json (extract_loss.py)"
        skipped["loss"] = what
    for figure, plain in FAMILIES.items():
        if names := findings.family(report, *plain):
            pictures[figure] = bar_picture(report, names, run)
        else:
            skipped[figure] = f"the report holds no {' or '.join(plain)}"
    if rows := findings.changes(report):
        pictures["improvement"] = change_picture(report, rows, run)
    else:
        skipped["improvement"] = "no metric with two systems to compare"
    return pictures, skipped


def dashboard(report: dict, pictures: dict[str, Picture]) -> Picture:
    """All panels on one picture, three in a row."""
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


# --- the page -------------------------------------------------------------------------------------------

CSS = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, h4 { line-height: 1.2; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; } figcaption { font-size: .9rem; }
figure img { width: 100%; min-width: 40rem; max-width: 75rem; background: #fff; border-radius: .4rem; }
.scroll { overflow-x: auto; margin: .5rem 0; } table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .7rem; text-align: left; vertical-align: top; }
td { min-width: 5rem; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
article { border-top: 2px solid var(--line); padding: .5rem 0 1rem; }
.answers { display: grid; gap: .75rem; margin-top: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
.answers section { background: var(--soft); border-radius: .4rem; padding: .7rem; }
.answers h4 { margin: 0 0 .4rem; } .text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
"""
LIMIT = '<main data-answers="{}">'  # so that another --answers is not taken for up to date
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def table(heads: list[str], rows: list[list[Any]], caption: str) -> str:
    """A table that scrolls by itself on a narrow screen; cells are escaped, the first heads its row."""

    def cell(value: Any) -> str:
        text = findings.number_text(value) if isinstance(value, float | None) else str(value)
        start = '<td class="number">' if re.match(r"[-+]?\d", text) else "<td>"
        return f"{start}{escape(text)}</td>"

    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    lines = [
        f'<tr><th scope="row">{escape(str(name))}</th>{"".join(map(cell, row))}</tr>' for name, *row in rows
    ]
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    scroll += f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
    return scroll + "\n".join(lines) + "\n</tbody></table></div>\n"


def metrics_table(report: dict) -> str:
    """Every metric of every system with its interval, and the differences."""
    metrics = report["metrics"]
    systems = list(dict.fromkeys(system for each in metrics.values() for system in each["values"]))
    pairs = list(dict.fromkeys(pair for each in metrics.values() for pair in each.get("differences") or {}))

    def shown(entry: dict | None, name: str, sign: bool = False) -> str:
        value = (entry or {}).get("value")
        if not findings.finite(value):
            return "–"
        text, ci = findings.number_text(value, name), findings.interval(entry)
        text = f"+{text}" if sign and value > 0 else text
        text += f" [{', '.join(findings.number_text(bound, name) for bound in ci)}]" if ci else ""
        return text.replace("%", " pp") if sign else text  # a difference of percentages is in points

    rows = []
    for name, metric in metrics.items():
        differences = metric.get("differences") or {}
        counts = [entry.get("n") for entry in findings.measured(metric).values()]
        rows.append(
            [findings.label_of(name), findings.better_text(metric, name) or "–"]
            + [shown(metric["values"].get(system), name) for system in systems]
            + [shown(differences.get(pair), name, sign=True) for pair in pairs]
            + [findings.count_text(counts, report).removeprefix("n = ")]
        )
    heads = ["Metric", "Better", *systems, *(f"difference {pair}" for pair in pairs), "n"]
    return table(heads, rows, "Metrics, with 95% bootstrap intervals in brackets where the report gives them")


def nested(value: dict, name: str) -> str:
    """Controls and leakage as they stand in the report: single values in a table, groups below it."""
    flat = [[key, each] for key, each in value.items() if not isinstance(each, dict)]
    html = table(["Name", "Value"], flat, name) if flat else ""
    groups = ((str(key), each) for key, each in value.items() if isinstance(each, dict))
    return html + "".join(f"<h3>{escape(key)}</h3>\n{nested(each, key)}" for key, each in groups)


def answers_of(row: dict, systems: list[str]) -> str:
    """One item: the question, then the reference and every system's answer side by side."""
    title = " · ".join(str(row[key]) for key in ("kind", "id", "story") if row.get(key))
    html = f"<article><h3>{escape(title)}</h3>\n"
    html += f'<p class="text"><strong>Question:</strong> {escape(str(row.get("prompt") or "–"))}</p>\n'
    html += '<div class="answers">\n'
    texts = {"reference": row.get("reference"), **dict.fromkeys(systems), **row["answers"]}
    for system, text in texts.items():
        if text is not None:
            body = escape(str(text)) if str(text).strip() else "<em>(empty)</em>"
            html += f'<section><h4>{escape(system)}</h4><p class="text">{body}</p></section>\n'
    return html + "</div></article>\n"


def answers_section(rows: list[dict], systems: list[str], limit: int) -> str:
    """Items with all systems' answers beside one another, taken from each kind in turn up to `limit`."""
    kinds: dict[str, list[dict]] = {}
    for row in rows:
        kinds.setdefault(str(row.get("kind")), []).append(row)
    turns = [(i, kind) for kind, items in kinds.items() for i in range(len(items))]
    taken = set(sorted(turns, key=lambda turn: turn[0])[:limit])
    chosen = [kinds[kind][i] for i, kind in turns if (i, kind) in taken]
    head = f"<h2>Answers side by side</h2>\n<p>{len(chosen)} of {len(rows)} items.</p>\n"
    return head + "".join(answers_of(row, systems) for row in chosen)


def page(report: dict, loss: dict | None, rows: list[dict], drawn: dict[Path, Picture], limit: int) -> str:
    """The whole HTML page, with nothing outside it."""
    run, systems = escape(str(report.get("run", "run"))), report.get("systems") or {}
    facts = [[name, report.get(name)] for name in ("protocol", "n", "seeds", "items_sha256")]
    body = f"<h1>{run}</h1>\n<h2>Evaluation</h2>\n" + table(["Fact", "Value"], facts, "Protocol")
    keys = list(dict.fromkeys(key for system in systems.values() for key in system or {}))
    cells = [[name, *((system or {}).get(key) for key in keys)] for name, system in systems.items()]
    body += table(["System", *keys], cells, "Systems") if cells else ""
    body += "<h2>Metrics</h2>\n" + metrics_table(report) + "<h2>Figures</h2>\n"
    for path, picture in drawn.items():
        image = base64.b64encode(path.read_bytes()).decode()
        alt = escape(f"{picture.title}. {picture.caption}")
        body += f'<figure><div class="scroll" tabindex="0"><img src="data:image/png;base64,{image}"'
        body += f' alt="{alt}"></div><figcaption>{escape(picture.title)}</figcaption></figure>\n'
    body += "<h2>Training</h2>\n" if loss else ""
    for name in ("milestones", "phases") if loss else ():
        keys = list(loss[name][0]) if loss[name] else []
        cells = [[row.get(key) for key in keys] for row in loss[name]]
        body += table(keys, cells, name.capitalize()) if cells else ""
    for name in ("controls", "leakage"):
        if isinstance(report.get(name), dict) and report[name]:
            body += f"<h2>{name.capitalize()}</h2>\n" + nested(report[name], name.capitalize())
    body += answers_section(rows, list(systems), limit) if rows and limit > 0 else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{run}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{CSS}</style></head>\n<body>{LIMIT.format(limit)}\n{body}</main></body></html>\n"
    )


def main(args: Args) -> None:
    folder = runlog.run_folder(args)
    inputs = [folder / name for name in ("evaluation_report.json", "training_loss.json", "predictions.jsonl")]
    evaluate, extract = (runlog.command_for(script, args) for script in ("evaluation.py", "extract_loss.py"))
    report = findings.read_report(inputs[0], evaluate)
    loss = findings.read_loss(inputs[1], extract)
    rows = findings.read_predictions(inputs[2], evaluate)
    pictures, skipped = plan(report, loss)
    if not rows:
        skipped["answers side by side"] = "no predictions.jsonl (evaluation.py)"

    wanted = [name for name in FIGURES if name in pictures or (name == "dashboard" and pictures)]
    paths, html = {name: folder / "figures" / f"{name}.png" for name in wanted}, folder / "report.html"
    newest = max(path.stat().st_mtime_ns for path in inputs if path.is_file())
    current = all(path.is_file() and path.stat().st_mtime_ns > newest for path in [*paths.values(), html])
    if current and not args.force and LIMIT.format(args.answers) in html.read_text(encoding="utf-8"):
        print(f"{html} and {len(paths)} figures are up to date (--force draws them again)")
        return

    drawn = {}
    for name, path in paths.items():
        picture = dashboard(report, pictures) if name == "dashboard" else pictures[name]
        size = (figures.DASHBOARD_WIDTH if name == "dashboard" else figures.WIDTH, picture.height)
        draw = partial(picture.draw, compact=False)
        figures.save(figures.compose(size, picture.title, picture.caption, draw), path)
        drawn[path] = picture
        print(f"wrote {path}")
    for path in (folder / "figures" / f"{name}.png" for name in FIGURES if name not in wanted):
        if path.is_file():
            path.unlink()
            print(f"removed {path}: it showed another state of the run")
    runlog.write_text(html, page(report, loss, rows, drawn, args.answers))
    print(f"wrote {html}")
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


if __name__ == "__main__":
    config.run_script(main, Args)
