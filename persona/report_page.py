"""The report as one HTML page with nothing outside it: headline, warnings, figures, tables, answers.

Every sentence on a result is made from the report's numbers (headline.py). The page needs no script to be
read; report_page.js, allowed by its hash alone, serves search and filters.
"""

import base64
import hashlib
from html import escape
from pathlib import Path

from persona import findings, report_answers
from persona.headline import count_sentences, headline, summary
from persona.metric_names import CHARACTER, COST, OTHER, REASONING, VOICE, Topic, by_topic
from persona.pictures import Picture
from persona.report_tables import differences_table, metrics_table, nested, summary_table, table, tests_table

CSS, SCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".css", ".js"))
PLACES = {
    **dict.fromkeys(("perplexity", "canon", "choice", "style", "similarity", "term_frequency"), VOICE),
    **dict.fromkeys(("breaks", "character", "turns"), CHARACTER),
    "deduction": REASONING,
    "cost": COST,
}
"""Where the figures stand; the others stand in the overview."""
MOST_BYTES = 2_900_000
"""Of the page without its style and script; answers beyond are left out and counted."""


def page(
    report: dict,
    loss: dict | None,
    rows: list[dict],
    drawn: dict[Path, Picture],
    limit: int,
    mark: str,
    opinions: dict[str, str] | None = None,
) -> str:
    """The whole page. `mark` goes into it as it is and tells what it was made from; `opinions` are sections
    by title."""
    elsewhere = {*PLACES, "loss", *(["dashboard"] if report.get("protocol") == "full" else [])}
    overview = {path: p for path, p in drawn.items() if path.stem not in elsewhere}
    parts = {
        "At a glance": at_a_glance(report) + "".join(figure(path, p) for path, p in overview.items()),
        **topics(report, drawn),
        **(opinions or {}),
        "Training": training(loss, drawn) if loss else "",
        "Tests and power": tests(report),
        "Controls": group(report, "controls"),
        "Leakage": group(report, "leakage"),
        "What was compared, and how": protocol(report),
    }
    parts = {title: html for title, html in parts.items() if html}
    shown = bool(rows) and limit > 0
    body = opening(report) + warnings(report)
    body += contents([*parts, *(["Answers side by side"] if shown else [])])
    for title, html in parts.items():
        name = anchor(title)
        body += f'<section id="{name}" aria-labelledby="{name}-title">\n'
        body += f'<h2 id="{name}-title">{escape(title)}</h2>\n{html}</section>\n'
    if shown:
        room = MOST_BYTES - len(body.encode())
        pair = findings.compared_pair(report) or ()
        systems = sorted(report.get("systems") or {}, key=lambda system: system not in pair)
        body += report_answers.section(rows, systems, limit, room)
    return document(str(report.get("run", "run")), f"{mark}\n{body}</main>")


def document(title: str, body: str) -> str:
    """Head and body, with a policy that lets nothing in but the page's own style and script."""
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>\n{CSS.read_text(encoding='utf-8')}</style></head>\n"
        f"<body>{body}<script>{script}</script></body></html>\n"
    )


def anchor(title: str) -> str:
    """The id of a section."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def opening(report: dict) -> str:
    """Run, headline, and what the figures rest on."""
    run = escape(str(report.get("run", "run")))
    html = f"<header><h1>Evaluation of {run}</h1>\n"
    first, *others = [*headline(report), *count_sentences(report)] or [""]
    html += f'<p class="lead">{escape(first)}</p>\n' if first else ""
    rest = " ".join(filter(None, others))
    html += f'<p class="lead">{escape(rest)}</p>\n' if rest else ""
    facts = [findings.count_text([], report)]
    if report.get("stories"):
        facts.append(f"replies of {len(report['stories'])} held-out stories")
    if report.get("clusters"):
        facts.append(f"95% intervals by bootstrap over {report['clusters']} clusters")
    if seeds := report.get("seeds"):
        facts.append(f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    return html + f'<p class="quiet">{escape(" · ".join(facts))}</p></header>\n'


def warnings(report: dict) -> str:
    """Where a result is weak, and what was not measured."""
    lines = [escape(line) for line in report.get("warnings") or []]
    lines += [f"Not measured: {escape(f'{k}: {v}')}" for k, v in (report.get("not_measured") or {}).items()]
    if not lines:
        return ""
    listed = "".join(f"<li>{line}</li>\n" for line in lines)
    html = '<section class="warnings" aria-labelledby="weak-title">\n'
    whose = f": {report['compared'][0]}" if report.get("compared") else ""
    html += f'<h2 id="weak-title">Before you believe it{escape(whose)}</h2>\n'
    return f"{html}<ul>\n{listed}</ul></section>\n"


def contents(titles: list[str]) -> str:
    """Links to the sections."""
    names = {title: "answers" if title == "Answers side by side" else anchor(title) for title in titles}
    listed = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for title, name in names.items())
    return f'<nav aria-label="Contents"><ul>{listed}</ul></nav>\n'


def at_a_glance(report: dict) -> str:
    """The summary: a question a row."""
    lines = summary(report)
    systems = list(dict.fromkeys(system for line in lines for system in line.values))
    return summary_table(lines, systems) if lines else ""


def topics(report: dict, drawn: dict[Path, Picture]) -> dict[str, str]:
    """For each question its figures and tables; parts (single kinds, single steps) folded away."""
    found = {}
    for topic, names in by_topic(report["metrics"]).items():
        shown = [figure(path, p) for path, p in drawn.items() if PLACES.get(path.stem, OTHER) is topic]
        html = f"<p>{escape(topic.explained)}</p>\n" if topic.explained else ""
        found[topic.title] = (
            html + "".join(shown if topic is not OTHER else []) + tables_of(report, topic, names)
        )
    return found


def tables_of(report: dict, topic: Topic, names: list[str]) -> str:
    """The metrics of a topic; those of single kinds in a table that unfolds."""
    parts = [name for name in names if is_part(name, names)]
    whole = [name for name in names if name not in parts]
    html = metrics_table(report, whole, f"{topic.title} Metrics, with 95% bootstrap intervals in brackets")
    if parts:
        inside = metrics_table(report, parts, "Parts of the metrics above; shown and not tested")
        html += f"<details><summary>By kind: {len(parts)} more rows</summary>\n{inside}</details>\n"
    return html


def is_part(name: str, names: list[str]) -> bool:
    """Whether a metric is of one kind of another one's items (`break_rate/attacks-fiction`)."""
    return any(name.startswith(f"{whole}-") for whole in names)


def figure(path: Path, picture: Picture) -> str:
    """A figure in the page, with its finding and caption for those who do not see it."""
    image = base64.b64encode(path.read_bytes()).decode()
    title = picture.title.replace(findings.HARD, " ")
    html = f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
    html += f'<img src="data:image/png;base64,{image}" alt="{escape(f"{title}. {picture.caption}")}"></div>'
    return f"{html}</figure>\n"


def training(loss: dict, drawn: dict[Path, Picture]) -> str:
    """The loss curve, its milestones and phases."""
    html = "".join(figure(path, p) for path, p in drawn.items() if path.stem == "loss")
    for name in ("milestones", "phases"):
        keys = list(loss[name][0]) if loss[name] else []
        cells = [[row.get(key) for key in keys] for row in loss[name]]
        html += table([key.replace("_", " ") for key in keys], cells, name.capitalize()) if cells else ""
    return html


def tests(report: dict) -> str:
    """p-values, what could have been found, and the differences of other systems, folded away."""
    tables = {
        "Tests of the main comparison": tests_table(report),
        "Differences of the other systems": differences_table(report),
    }
    return "".join(
        f"<details><summary>{title}</summary>\n{html}</details>\n" for title, html in tables.items() if html
    )


def group(report: dict, name: str) -> str:
    """Controls or leakage."""
    found = report.get(name)
    return nested(found, name) if isinstance(found, dict) and found else ""


def protocol(report: dict) -> str:
    """Systems, protocol and settings."""
    names = (
        "protocol",
        "n",
        "n_asked",
        "seeds",
        "clusters",
        "stories",
        "decoding",
        "items_sha256",
        "compared",
    )
    html = table(["Fact", "Value"], [[name, report[name]] for name in names if name in report], "Protocol")
    systems = report.get("systems") or {}
    keys = list(dict.fromkeys(key for system in systems.values() for key in system or {}))
    cells = [[name, *((system or {}).get(key) for key in keys)] for name, system in systems.items()]
    html += table(["System", *keys], cells, "Systems") if cells else ""
    trained = report.get("training") or {}
    return html + (
        table(["Setting", "Value"], [[k, v] for k, v in trained.items()], "Training") if trained else ""
    )
