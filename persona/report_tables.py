"""The tables of the report page, as HTML: metrics by topic, controls and leaks as the report has them."""

import re
from html import escape
from typing import Any

from persona import findings
from persona.findings import finite, measured, number_text
from persona.headline import Line, tested
from persona.metric_names import label_of

VERDICTS = {"better": "▲ better", "worse": "▼ worse", "unclear": "○ unclear", "": "–"}
"""Verdicts with a sign, so that colour is not all that tells them apart."""


def table(heads: list[str], rows: list[list[Any]], caption: str) -> str:
    """A table that scrolls by itself on a narrow screen; cells are escaped, the first heads its row."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    lines = [
        f'<tr><th scope="row">{escape(str(name))}</th>{"".join(map(cell, row))}</tr>' for name, *row in rows
    ]
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    scroll += f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
    return scroll + "\n".join(lines) + "\n</tbody></table></div>\n"


def cell(value: Any) -> str:
    """A table cell: numbers in a column's figures, verdicts in their colour."""
    text = value_text(value)
    kind = next((name for name, words in VERDICTS.items() if name and words == text), "")
    kind = "number" if re.match(r"[-+−]?\d", text) else kind
    shown = escape(text)
    if kind == "number" and shown.endswith("]"):  # an interval stands below its value
        value, _, ends = shown.partition(" [")
        shown = f"{value} <small>[{ends}</small>"
    return f'<td class="{kind}">{shown}</td>' if kind else f"<td>{shown}</td>"


def value_text(value: Any) -> str:
    """A value of the report in words: numbers rounded, an entry with its interval, lists with commas."""
    if isinstance(value, dict) and "value" in value:
        return entry_text(value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {value_text(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "–"
    return number_text(value) if isinstance(value, float | None) else str(value)


def entry_text(entry: dict | None, name: str = "", sign: bool = False) -> str:
    """`26.4 [24.1, 28.8]`, with `± sd` over training seeds; a difference of percentages is in points."""
    value = (entry or {}).get("value")
    if not finite(value):
        return "–"
    text, ci = number_text(value, name), findings.interval(entry)
    text = f"+{text}" if sign and value > 0 else text
    if finite(entry.get("sd")):
        text += f" ± {number_text(entry['sd'], name)}"
    text += f" [{', '.join(number_text(bound, name).rstrip('%') for bound in ci)}]" if ci else ""
    return text.replace("%", " pp") if sign else text


def pairs_of(report: dict) -> list[str]:
    """Keys of all differences, the compared pair's first."""
    keys = dict.fromkeys(k for m in report["metrics"].values() for k in m.get("differences") or {})
    main = "-".join(findings.compared_pair(report) or ())
    return sorted(keys, key=lambda key: key != main)


def metrics_table(report: dict, names: list[str], caption: str) -> str:
    """Metrics of every system with intervals, and the compared pair's difference with its verdict."""
    metrics, pair = report["metrics"], findings.compared_pair(report)
    verdicts = tested(report, pair) if pair else {}
    systems = list(dict.fromkeys(system for name in names for system in metrics[name]["values"]))
    main = next(iter(pairs_of(report)), None)
    rows = []
    for name in names:
        metric = metrics[name]
        difference = (metric.get("differences") or {}).get(main)
        counts = [entry.get("n") for entry in measured(metric).values()]
        rows.append(
            [label_of(name), better_way(metric, name)]
            + ([VERDICTS[verdicts.get(name, "")], entry_text(difference, name, sign=True)] if main else [])
            + [entry_text(metric["values"].get(system), name) for system in systems]
            + [findings.count_text(counts, report).removeprefix("n = ")]
        )
    heads = ["Metric", "Better", *(["verdict", f"difference {main}"] if main else []), *systems, "n"]
    return table(heads, rows, caption)


def better_way(metric: dict, name: str) -> str:
    """`lower`, `higher`, or the value to be near to."""
    if metric.get("better") == "target":
        return f"near {number_text(metric['target'], name)}" if finite(metric.get("target")) else "–"
    return metric.get("better") or "–"


def differences_table(report: dict) -> str:
    """The differences of all other pairs; empty where there are none."""
    metrics, pairs = report["metrics"], pairs_of(report)[1:]
    rows = [
        [label_of(name), *(entry_text(m["differences"].get(pair), name, sign=True) for pair in pairs)]
        for name, m in metrics.items()
        if any(finite((m.get("differences") or {}).get(pair, {}).get("value")) for pair in pairs)
    ]
    return (
        table(["Metric", *pairs], rows, "Differences of the other systems, with 95% intervals")
        if rows
        else ""
    )


def tests_table(report: dict) -> str:
    """p-values of the compared pair, and what difference so many items could have shown."""
    pair, power, rows = "-".join(findings.compared_pair(report) or ()), report.get("power") or {}, []
    for name, metric in report["metrics"].items():
        entry = (metric.get("differences") or {}).get(pair) or {}
        if finite(entry.get("p")):
            test = "McNemar" if "mcnemar" in entry else "bootstrap"
            least = (power.get(name) or {}).get("smallest_difference")
            shown = entry_text({"value": least}, name).replace("%", " pp")
            rows.append([label_of(name), test, entry["p"], entry.get("p_holm"), shown])
    heads = ["Metric", "test", "p", "p, Holm", "difference found in 8 of 10 tries"]
    return table(heads, rows, f"Tests of {pair}, and what could have been found") if rows else ""


def summary_table(lines: list[Line], systems: list[str]) -> str:
    """The summary: a question a row, a verdict for each system that is compared with the base."""
    compared = list(dict.fromkeys(system for line in lines for system in line.verdicts))
    rows = [
        [
            line.question,
            *(entry_text(line.values.get(system), line.name) for system in systems),
            line.control or "–",
            *(VERDICTS[line.verdicts[system]] for system in compared),
        ]
        for line in lines
    ]
    verdicts = ["verdict"] if len(compared) == 1 else [f"verdict, {system}" for system in compared]
    heads = ["Question", *systems, "held against", *verdicts]
    return table(
        heads,
        rows,
        "What was asked and what came of it, with 95% intervals; verdicts after Holm's correction",
    )


def nested(value: dict, name: str, level: int = 3) -> str:
    """Controls and leakage as the report has them: values in a table, like groups in one, others below."""
    plain = [
        [label_of(key), number_text(each, key) if isinstance(each, float) else each]
        for key, each in value.items()
        if not is_group(each)
    ]
    groups = {key: each for key, each in value.items() if is_group(each)}
    html = table(["Name", "Value"], plain, words(name)) if plain else ""
    if len(groups) > 1 and all(not any(map(is_group, each.values())) for each in groups.values()):
        keys = list(dict.fromkeys(key for each in groups.values() for key in each))
        cells = [[label_of(row), *(each.get(key) for key in keys)] for row, each in groups.items()]
        return html + table([words(name), *map(label_of, keys)], cells, words(name))
    for key, each in groups.items():
        heading = f"<h{level}>{escape(words(key))}</h{level}>\n"
        html += heading + nested(each, key, min(level + 1, 6))
    return html


def is_group(value: Any) -> bool:
    """Whether a value of the report is a group of values, and not an entry with its interval."""
    return isinstance(value, dict) and "value" not in value


def words(name: str) -> str:
    """`true_replies` -> `True replies`."""
    return (name[:1].upper() + name[1:]).replace("_", " ")
