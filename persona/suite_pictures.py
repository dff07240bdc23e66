"""The figures of the whole suite and of comparisons: what each shows, and its finding as the title."""

from collections.abc import Iterable
from functools import partial

from persona import dot_figures, findings
from persona.dot_figures import Dots, Lines, Row
from persona.findings import finite, measured, number_text
from persona.metric_names import RATE, in_percent, label_of, unit_of, words_of
from persona.pictures import Picture

KEY_METRICS = (
    *("conditional_perplexity", "bits_per_byte", "choice_accuracy/same-speaker"),
    *("choice_accuracy/other-speaker", "style_score", "jaccard", "rouge_l", "term_frequency_distance"),
    *("identity_rate/probes", "break_rate/attacks", "break_rate/prefilled", "leak_rate/traps"),
    *("false_refusal_rate/traps", "recall_rate/memory", "contradiction_rate/memory"),
    *("accuracy/deduction", "choice_accuracy/deduction", "copied_8grams", "accuracy/instructions"),
    *("conditional_perplexity/modern", "conditional_perplexity/prose"),
)
"""What one looks at first; all others stand in the tables."""
RATES = (
    *("break_rate/attacks", "identity_rate/probes", "leak_rate/traps", "false_refusal_rate/traps"),
    *("recall_rate/memory", "contradiction_rate/memory", "right_refusal_rate/traps", "known_rate/traps"),
)
"""Whether the character holds; the dashboard has room for the first few."""
REACH = 100.0
"""Percent; a comparison's axis shows changes up to this."""


def suite_pictures(report: dict) -> dict[str, Picture]:
    """The figures that the report's metrics and controls allow, by file name."""
    made = {
        "canon": canon_picture(report),
        "choice": choice_picture(report),
        "style": style_picture(report),
        "turns": turns_picture(report),
        "breaks": breaks_picture(report),
        "character": rates_picture(report),
        "deduction": deduction_picture(report),
        "cost": cost_picture(report),
    }
    return {name: picture for name, picture in made.items() if picture}


def controls_of(report: dict) -> dict:
    """The report's controls; of a comparison, which has them by run, those of the first."""
    controls = report.get("controls") or {}
    if "chance" in controls or not controls:
        return controls
    first = next(iter(controls.values()))
    return first if isinstance(first, dict) and "chance" in first else controls


def series_of(report: dict) -> dict[str, str]:
    """Every system with its name in words."""
    return {name: name.replace("_", " ") for name in report.get("systems") or {}}


def brief_of(report: dict) -> tuple[str, ...]:
    """The two systems that are compared, for figures with no room for more."""
    pair = findings.compared_pair(report)
    return (pair[1], pair[0]) if pair else ()


# --- rows -----------------------------------------------------------------------------------------------


def scaled(entry: dict, factor: float) -> dict:
    """An entry in percent, or in whatever unit the axis has."""
    ci = findings.interval(entry)
    seeds = [x * factor for x in entry.get("by_seed") or ()]
    return {
        "value": entry["value"] * factor,
        "ci95": [x * factor for x in ci] if ci else None,
        "by_seed": seeds,
    }


def with_interval(entry: dict, name: str = "", sign: bool = False) -> str:
    """`26.4 [24.1, 28.8]`, as it stands beside a dot."""
    ci = findings.interval(entry)
    plus = "+" if sign and entry["value"] > 0 else ""
    text = plus + number_text(entry["value"], name)
    return text + (f" [{', '.join(number_text(x, name).rstrip('%') for x in ci)}]" if ci else "")


def rows_of(report: dict, names: Iterable[str], systems: Iterable[str], label=label_of) -> list[Row]:
    """A row a metric with the systems that were measured, in percent where it is read so."""
    rows = []
    for name in names:
        factor = 100.0 if in_percent(name) else 1.0
        known = measured(report["metrics"].get(name) or {"values": {}})
        found = {s: known[s] for s in systems if s in known}
        if found:
            entries = {s: scaled(e, factor) for s, e in found.items()}
            rows.append(Row(label(name), entries, {s: with_interval(e, name) for s, e in found.items()}))
    return rows


def share_axis(rows: Iterable[Row], *levels: float) -> tuple[float, float]:
    """From zero to a little beyond the highest end of all intervals, at most 100%."""
    entries = [entry for row in rows for entry in row.entries.values()]
    tops = [max(entry["value"], *(entry["ci95"] or (0.0,))) for entry in entries]
    return 0.0, min(100.0, 1.1 * max([*tops, *levels])) or 100.0


def picture_of(report: dict, title: str, dots: Dots, names: Iterable[str], note: str = "") -> Picture:
    """A picture of dots with n and the kind of interval in its caption."""
    entries = [e for name in names for e in measured(report["metrics"].get(name) or {"values": {}}).values()]
    caption = f"{report.get('run', 'run')} · {findings.count_text([e.get('n') for e in entries], report)} · "
    caption += findings.interval_text(
        [findings.interval(e) for row in dots.rows for e in row.entries.values()]
    )
    if any(len(e["by_seed"]) > 1 for row in dots.rows for e in row.entries.values() if "by_seed" in e):
        caption += " · crosses: single training seeds"
    caption += f" · {note}" if note else ""
    draw = partial(dot_figures.draw_dots, dots=dots)
    return Picture(title, caption, 1.75 + dots.height, 1.5 + dots.short().height, draw)


def values_text(report: dict, name: str) -> str:
    """`base 42.4, tuned 26.4`, of the compared pair where there is one."""
    known = measured(report["metrics"][name])
    pair = findings.compared_pair(report)
    shown = [s for s in (pair[1], pair[0])] if pair and set(pair) <= set(known) else list(known)[:2]
    return ", ".join(f"{s}{findings.HARD}{number_text(known[s]['value'], name)}" for s in shown)


# --- figures --------------------------------------------------------------------------------------------


def canon_picture(report: dict) -> Picture | None:
    """What tuning saves on the persona's replies, on other people's, and the difference."""
    values = {s: v for s, v in measured(report["metrics"].get("canon_gain") or {"values": {}}).items()}
    sides = {"persona": "the persona's replies", "control": "other people's replies", "gain": "canon gain"}
    rows = []
    for system, entry in values.items():
        entries = {key: entry.get(key) for key in ("persona", "control")} | {"gain": entry}
        found = {key: e for key, e in entries.items() if finite((e or {}).get("value"))}
        numbers = {key: with_interval(e, sign=True) for key, e in found.items()}
        rows.append(Row(system.replace("_", " "), {k: scaled(e, 1.0) for k, e in found.items()}, numbers))
    if not rows:
        return None
    first = findings.compared_pair(report)
    system = first[0] if first and first[0] in values else next(iter(values))
    entry = values[system]
    title = f"Canon gain of {system}: {with_interval(entry, sign=True)} bits per byte"
    if finite((entry.get("control") or {}).get("value")):
        title += f"; the control alone gains {number_text(entry['control']['value'])}"
    unit = "bits per byte saved against base; canon gain: the persona's less other people's"
    dots = Dots(rows, unit, sides, {"no gain": 0.0}, brief=("persona", "control", "gain"))
    return picture_of(report, title, dots, ["canon_gain"])


def choice_picture(report: dict) -> Picture | None:
    """Next-line choice against chance."""
    names = [f"choice_accuracy/{kind}-speaker" for kind in ("same", "other")]
    wording = {names[0]: "the persona's own lines", names[1]: "other people's lines"}
    rows = rows_of(report, names, report["systems"], wording.__getitem__)
    if not rows:
        return None
    chance = 100 * (controls_of(report).get("chance") or {}).get("choice_accuracy", 0.1)
    known = [name for name in names if name in report["metrics"]]
    title = f"True next line ranked first among {wording[known[-1]]}: {values_text(report, known[-1])}"
    title += f" (chance {chance:.0f}%)"
    lines = {f"chance, {chance:.0f}%": chance}
    limits = share_axis(rows, chance)
    dots = Dots(rows, unit_of(names[0]), series_of(report), lines, limits, brief=brief_of(report))
    return picture_of(report, title, dots, names)


def style_picture(report: dict) -> Picture | None:
    """The style score between the base's and the real replies'."""
    names = ["style_score", "style_score/last_turns"]
    wording = {names[0]: "held-out replies", names[1]: "last turns of ten"}
    rows = rows_of(report, names, report["systems"], wording.__getitem__)
    if not rows or "style_score" not in report["metrics"]:
        return None
    style = controls_of(report).get("style") or {}
    wanted = {"floor: base": style.get("floor"), "real replies": style.get("ceiling")}
    ends = {name: value for name, value in wanted.items() if finite(value)}
    title = f"Style score: {values_text(report, 'style_score')}"
    title += f", the real replies {style['ceiling']:.3f}" if finite(style.get("ceiling")) else ""
    dots = Dots(rows, unit_of("style_score"), series_of(report), ends, (0.0, 1.0), brief=brief_of(report))
    note = f"classifier's AUC {style['auc']:.2f} on held-out lines" if finite(style.get("auc")) else ""
    return picture_of(report, title, dots, names, note)


def turns_picture(report: dict) -> Picture | None:
    """The style score turn by turn, over conversations of ten turns."""
    by_turn = controls_of(report).get("style_by_turn") or {}
    points = {
        system: [(k, {"value": v}) for k, v in enumerate(values, 1) if finite(v)]
        for system, values in by_turn.items()
    }
    points = {system: of for system, of in points.items() if of}
    if not points:
        return None
    series = {name: name.replace("_", " ") for name in by_turn}
    plot = Lines("", "turn of the conversation", "style score (0 to 1)", points, series, limits=(0.0, 1.0))
    shown = [s for s in brief_of(report) if s in points] or list(points)[:2]
    ends = [
        f"{s}{findings.HARD}{points[s][0][1]['value']:.2f} to {points[s][-1][1]['value']:.2f}" for s in shown
    ]
    title = f"Style from the first turn to the last: {', '.join(ends)}"
    caption = f"{report.get('run', 'run')} · mean over conversations; no intervals, a turn is read as a whole"
    return Picture(title, caption, 3.4, 2.6, partial(dot_figures.draw_lines, plots=[plot]))


def breaks_picture(report: dict) -> Picture | None:
    """Break rates over all attacks and by kind, of the compared pair."""
    name = "break_rate/attacks"
    if name not in report["metrics"]:
        return None
    kinds = sorted(n for n in report["metrics"] if n.startswith(f"{name}-"))
    pair = brief_of(report) or tuple(report["systems"])[:1]
    whole = rows_of(report, [name], report["systems"], lambda _: "all attacks")
    parts = rows_of(report, kinds, pair, lambda n: words_of(n.removeprefix(f"{name}-")))
    title = f"Breaks character under attack: {values_text(report, name)}"
    dots = Dots(
        [*whole, *parts], unit_of(name), series_of(report), {}, share_axis([*whole, *parts]), brief=pair
    )
    return picture_of(report, title, dots, [name, *kinds], "rules miss some breaks: rates are lower bounds")


def rates_picture(report: dict) -> Picture | None:
    """Leaks, refusals, identity, memory, form."""
    rows = rows_of(report, RATES, report["systems"], lambda n: f"{label_of(n)} {arrow(report, n)}")
    if not rows:
        return None
    named = [name for name in RATES if name in report["metrics"]][:2]
    told = "; ".join(f"{label_of(name)}: {values_text(report, name)}" for name in named)
    told = told[:1] + told[1:].replace("; S", "; s")
    dots = Dots(rows, RATE, series_of(report), {}, share_axis(rows), brief=brief_of(report))
    note = "▲ higher, ▼ lower is better"
    return picture_of(report, told or "Whether the character holds", dots, RATES, note)


def arrow(report: dict, name: str) -> str:
    """Which way is better."""
    return {"higher": "▲", "lower": "▼"}.get(report["metrics"][name].get("better"), "")


def deduction_picture(report: dict) -> Picture | None:
    """Accuracy by number of steps, answered and chosen, with the level of guessing."""
    metrics, pair = report["metrics"], brief_of(report) or tuple(report["systems"])[:1]
    wording = {
        "accuracy/deduction": "in words",
        "choice_accuracy/deduction": "likeliest of four choices",
    }
    plots = []
    for name, title in wording.items():
        parts = sorted(n for n in metrics if n.startswith(f"{name}-") and n.endswith("_steps"))
        points: dict[str, list] = {}
        for part in parts:
            steps = int(part.removeprefix(f"{name}-").removesuffix("_steps"))
            known = measured(metrics[part])
            for system in (s for s in pair if s in known):
                points.setdefault(system, []).append((steps, scaled(known[system], 100.0)))
        guess = 100 * (controls_of(report).get("chance") or {}).get(name, 0.25)
        level = (f"guessing, {guess:.0f}%", guess)
        if points:
            across, unit = "steps of the deduction", "right answers (%)"
            plots.append(Lines(title, across, unit, points, series_of(report), level, (-3.0, 103.0)))
    if not plots:
        return None
    told = [f"{wording[n]}: {values_text(report, n)}" for n in reversed(wording) if n in metrics]
    counts = [e.get("n") for n in wording if n in metrics for e in measured(metrics[n]).values()]
    caption = f"{report.get('run', 'run')} · {findings.count_text(counts, report)} · "
    caption += findings.interval_text([True])
    title = f"Deduction, {'; '.join(told)}"
    return Picture(title, caption, 3.6, 2.9, partial(dot_figures.draw_lines, plots=plots))


def cost_picture(report: dict) -> Picture | None:
    """Perplexity on present-day text."""
    names = [f"conditional_perplexity/{kind}" for kind in ("modern", "prose")]
    wording = {names[0]: "assistant talk", names[1]: "prose"}
    rows = rows_of(report, names, report["systems"], wording.__getitem__)
    if not rows:
        return None
    known = [name for name in names if name in report["metrics"]]
    told = "; ".join(f"{wording[name]} {values_text(report, name)}" for name in known)
    values = [e["value"] for row in rows for e in row.entries.values()]
    logarithmic = max(values) > 5 * min(values)
    unit = "perplexity per token; lower is better" + ("; logarithmic axis" if logarithmic else "")
    dots = Dots(rows, unit, series_of(report), logarithmic=logarithmic, brief=brief_of(report))
    return picture_of(report, f"Perplexity on present-day text: {told}", dots, names)


# --- comparisons ----------------------------------------------------------------------------------------


def forest_picture(report: dict) -> Picture | None:
    """Changes of every system against the first one's base, in percent, metric by metric."""
    pairs = {s: b for s in report["systems"] for b in report["systems"] if _has_pair(report, s, b)}
    if len(runs := {s: b for s, b in pairs.items() if findings.is_tuned(s)}) > 1:
        pairs = runs  # the runs themselves; what else each asked stands in the tables
    rows = []
    for name in (n for n in KEY_METRICS if n in report["metrics"]):
        known, entries, numbers = measured(report["metrics"][name]), {}, {}
        for system, base in pairs.items():
            entry = report["metrics"][name]["differences"].get(f"{system}-{base}") or {}
            if finite(entry.get("value")) and base in known and known[base]["value"]:
                entries[system] = scaled(entry, 100 / abs(known[base]["value"]))
                ci = findings.interval(entries[system])
                numbers[system] = findings.percent_text(entries[system]["value"], 1) + "%"
                numbers[system] += f" [{', '.join(findings.percent_text(x, 0) for x in ci)}]" if ci else ""
        rows += [Row(f"{label_of(name)} {arrow(report, name)}", entries, numbers)] if entries else []
    if not rows:
        return None
    base = next(iter(pairs.values()))
    unit = f"change relative to {base} (%); arrows at the edge: more than {REACH:.0f}%"
    dots = Dots(rows, unit, series_of(report), {"no change": 0.0}, (-REACH, REACH))
    found = [f"{s}{findings.HARD}{number.partition(' ')[0]}" for s, number in rows[0].numbers.items()]
    title = f"Against {base}, {rows[0].label}: {', '.join(found)}"
    return picture_of(report, title, dots, KEY_METRICS, "▲ higher, ▼ lower is better")


def _has_pair(report: dict, system: str, base: str) -> bool:
    return any(f"{system}-{base}" in (m.get("differences") or {}) for m in report["metrics"].values())
