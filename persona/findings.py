"""What a run's reports say: read and checked, put into numbers and words, and what changed between systems.

The reports are dictionaries as evaluation_report.json, training_loss.json and predictions.jsonl hold them.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from persona import runlog
from persona.errors import UserError
from persona.metric_names import in_percent, is_small_share, label_of, unit_of

HARD = "\N{NO-BREAK SPACE}"
"""Between words that stay on one line."""


@dataclass(frozen=True)
class Change:
    """How one metric moved from one system to another, in percent of its value for the former."""

    name: str
    better: str
    direction: int
    """1 where more is better, -1 where less is, 0 where the report does not say."""
    percent: float
    ci95: tuple[float, float] | None
    verdict: str
    """better, worse or unclear (the interval holds zero, or there is none)."""
    n: int | None


# --- reading -------------------------------------------------------------------------------------------


def read_report(path: Path, remedy: str) -> dict:
    """The evaluation report, checked as far as drawing relies on it."""
    report = runlog.read_json(path, "the evaluation report", remedy)
    metrics = report.get("metrics") if isinstance(report, dict) else None
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: no metrics, so not an evaluation report; make it again with: {remedy}")
    for name, metric in metrics.items():
        values = metric.get("values") if isinstance(metric, dict) else None
        if not isinstance(values, dict) or not all(isinstance(each, dict | None) for each in values.values()):
            raise UserError(f"{path}: metric {name} has no values by system; make it again with: {remedy}")
    return report


def read_loss(path: Path, remedy: str) -> dict | None:
    """The loss curve; None where it was not extracted."""
    loss = runlog.read_json(path, "the loss curve", remedy) if path.is_file() else None
    needed = {"train", "evaluation", "phases", "epochs", "milestones"}
    if loss is not None and not (isinstance(loss, dict) and needed <= set(loss)):
        raise UserError(f"{path}: not a loss curve; make it again with: {remedy} --force")
    return loss


def read_predictions(path: Path, remedy: str) -> list[dict]:
    """The answers of all systems, item by item; none where the file is missing."""
    rows = []
    for i, line in enumerate(path.open(encoding="utf-8") if path.is_file() else (), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {i}: not JSON ({error}); make it again with: {remedy}") from error
        if row is not None and not (isinstance(row, dict) and isinstance(row.get("answers"), dict)):
            raise UserError(f"{path}, line {i}: no answers; make it again with: {remedy}")
        rows += [row] if row else []
    return rows


def answers_sha256(rows: list[dict], ids: list[str], systems: list[str]) -> str:
    """A hash of what systems answered to items: it tells whether judged answers are still the run's."""
    answers = {row.get("id"): row["answers"] for row in rows}
    said = [[i, [answers.get(i, {}).get(system) for system in sorted(systems)]] for i in ids]
    return runlog.sha256_of(json.dumps(said))


# --- words and numbers ----------------------------------------------------------------------------------


def number_text(value: float | None, name: str = "") -> str:
    """Three significant digits or so, in percent where the metric is read that way; a dash for nothing."""
    if value is None:
        return "–"
    if in_percent(name):
        return f"{100 * value:.{2 if is_small_share(name) else 1}f}%"
    size = abs(value)
    if size >= 1e5 or 0 < size < 5e-4:
        return f"{value:.2e}"
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"


def better_text(metric: dict, name: str) -> str:
    """Which way is better, in words."""
    better, target = metric.get("better"), metric.get("target")
    if better == "target" and finite(target):
        return f"closest to {number_text(target, name)} is best"
    return f"{better} is better" if better in ("lower", "higher") else ""


def unit_text(metric: dict, name: str) -> str:
    """Unit of the metric's axis, and which way is better: `share of all words (%); higher is better`."""
    return "; ".join(filter(None, [unit_of(name), better_text(metric, name)]))


def finite(value: Any) -> bool:
    """Whether a value from a report is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def interval(entry: dict | None) -> tuple[float, float] | None:
    """The ci95 of a value, or None."""
    ci = (entry or {}).get("ci95")
    return (ci[0], ci[1]) if isinstance(ci, list | tuple) and len(ci) == 2 and all(map(finite, ci)) else None


def percent_text(value: float, decimals: int) -> str:
    """`+12.3`, `-48`; powers of ten where the number would be long."""
    return f"{value:+.{0 if abs(value) >= 100 else decimals}f}" if abs(value) < 1e5 else f"{value:+.0e}"


def moving_mean(values: list[float], window: int) -> list[float]:
    """Centred mean over the finite values of a window of points."""
    half, means = window // 2, []
    for i in range(len(values)):
        near = [value for value in values[max(0, i - half) : i + half + 1] if not math.isnan(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


def length_in_epochs(loss: dict) -> float:
    """How long the run was, where its last point stands."""
    return max([loss["epochs"], *(point["epoch"] for point in [*loss["train"], *loss["evaluation"]])]) or 1


# --- what the evaluation report holds -------------------------------------------------------------------


def measured(metric: dict) -> dict[str, dict]:
    """The systems that have a number for this metric, in the report's order."""
    return {system: entry for system, entry in metric["values"].items() if finite((entry or {}).get("value"))}


def family(report: dict, *plain: str) -> list[str]:
    """Names of the measured metrics called `plain` or `plain/...`, plain ones first."""
    metrics = report["metrics"].items()
    names = [name for name, metric in metrics if name.partition("/")[0] in plain and measured(metric)]
    return sorted(names, key=lambda name: ("/" in name, plain.index(name.partition("/")[0])))


def compared_pair(report: dict) -> tuple[str, str] | None:
    """The pair that is compared, (after, before): (tuned, base), else the first with a difference.

    A tuned system goes before others.
    """
    metrics = report["metrics"].values()
    systems = list(dict.fromkeys(system for metric in metrics for system in metric["values"]))
    if {"tuned", "base"} <= set(systems):
        return "tuned", "base"
    pairs = {"-".join(pair): pair for pair in permutations(systems, 2)}
    keys = dict.fromkeys(key for metric in metrics for key in metric.get("differences") or {})
    found = [pairs[key] for key in keys if key in pairs]
    return next((pair for pair in found if is_tuned(pair[0])), found[0] if found else None)


def is_tuned(system: str) -> bool:
    """Whether a system is a run's tuned one with its prompt: `tuned`, in comparisons `run/tuned`."""
    return system.rpartition("/")[2] == "tuned"


def compared_pairs(report: dict) -> list[tuple[str, str]]:
    """The compared pair; of a comparison the tuned system of every run with the same base."""
    pair = compared_pair(report)
    others = [s for s in report.get("systems") or {} if pair and is_tuned(s) and s not in pair]
    return [pair, *((system, pair[1]) for system in others)] if pair else []


def changes(report: dict) -> list[Change]:
    """Relative change of every metric that both systems of the compared pair have, where it was not zero."""
    pair = compared_pair(report)
    rows = (_change(name, metric, pair) for name, metric in report["metrics"].items() if pair)
    return [row for row in rows if row]


def _change(name: str, metric: dict, pair: tuple[str, str]) -> Change | None:
    """How the metric moved between (after, before); None where one lacks it or it was zero before."""
    values, target = measured(metric), metric.get("target")
    if not set(pair) <= set(values) or values[pair[1]]["value"] == 0:
        return None
    after, before = (values[system]["value"] for system in pair)
    entry = (metric.get("differences") or {}).get("-".join(pair)) or {}
    difference = entry["value"] if finite(entry.get("value")) else after - before
    if metric.get("better") == "target" and finite(target):
        direction = 1 if target > before else -1
        improved = abs(after - target) < abs(before - target)
    else:
        direction = {"higher": 1, "lower": -1}.get(metric.get("better"), 0)
        improved = direction * difference > 0
    scale, ci = 100 / abs(before), interval(entry)
    clear = direction and ci and not ci[0] <= 0 <= ci[1]
    counts = [values[system]["n"] for system in pair if finite(values[system].get("n"))]
    return Change(
        name=name,
        better=better_text(metric, name),
        direction=direction,
        percent=difference * scale,
        ci95=(ci[0] * scale, ci[1] * scale) if ci else None,
        verdict=("better" if improved else "worse") if clear else "unclear",
        n=min(counts, default=None),
    )


def bar_rows(report: dict, names: list[str]) -> list[tuple[str, str, dict | None]]:
    """Rows of a bar panel as (metric, system, entry); a heading has no system, the target's row no entry."""
    rows = []
    for name in names:
        rows += [(name, "", None)] if len(names) > 1 else []
        rows += [(name, system, entry) for system, entry in measured(report["metrics"][name]).items()]
        rows += [(name, "target", None)] if finite(report["metrics"][name].get("target")) else []
    return rows


def change_range(rows: list[Change]) -> tuple[float, float]:
    """Ends, in percent, of an axis that shows changes and intervals up to 4 times their median reach."""
    ends = [[row.percent, *(row.ci95 or ())] for row in rows]
    reach = sorted(max(map(abs, each)) for each in ends)
    limit = min(reach[-1], 4 * reach[len(reach) // 2] or reach[-1]) or 1.0
    left, right = -min(map(min, ends)), max(map(max, ends))
    low, high = (1.08 * min(limit, max(end, 0.3 * limit)) for end in (left, right))
    return -low, high


def count_text(counts: list, report: dict) -> str:
    """`n = 120`, `n = 30 to 120`, or the report's own n."""
    counts = [count for count in counts if finite(count)] or [report.get("n")] * finite(report.get("n"))
    if not counts:
        return "n not given"
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def interval_text(intervals: list) -> str:
    """What the whiskers are."""
    if not any(intervals):
        return "the report gives no intervals"
    return "whiskers: 95% bootstrap interval" + ("" if all(intervals) else ", where the report gives one")


# --- titles ---------------------------------------------------------------------------------------------


def loss_title(loss: dict) -> str:
    """`Training loss fell from 1.55 to 0.197 in 3 epochs; evaluation loss 0.246 at the end`."""
    values = [point["loss"] for point in loss["train"] if finite(point["loss"])]
    checks = [point["loss"] for point in loss["evaluation"] if finite(point["loss"])]
    parts = []
    if values:
        first, last = number_text(values[0]), number_text(values[-1])
        verb = "fell" if values[-1] < values[0] else "rose"
        change = f"stayed at {last}" if first == last else f"{verb} from {first} to {last}"
        parts.append(f"Training loss {change} in {loss['epochs']:.3g} epochs")
    if checks:
        parts.append(f"{'evaluation' if parts else 'Evaluation'} loss {number_text(checks[-1])} at the end")
    return "; ".join(parts)


def metric_title(report: dict, names: list[str]) -> str:
    """What the metrics of a figure say, two at most, in words that take no side."""
    parts = []
    for name in [name for name in names if "/" not in name][:2] or names[:1]:
        metric, label = report["metrics"][name], label_of(name)
        values = {system: entry["value"] for system, entry in measured(metric).items()}
        shown = {system: f"{system}{HARD}{number_text(value, name)}" for system, value in values.items()}
        if {"base", "tuned"} <= set(values):
            ci = interval((metric.get("differences") or {}).get("tuned-base"))
            doubt = " (no clear difference)" if ci and ci[0] <= 0 <= ci[1] else ""
            parts.append(f"{label}: {shown['base']}, {shown['tuned']}{doubt}")
        else:
            ends = (shown[min(values, key=values.get)], shown[max(values, key=values.get)])
            parts.append(f"{label}: {' to '.join(dict.fromkeys(ends))}")
    return "; ".join(parts)


def change_title(pair: tuple[str, str], rows: list[Change]) -> str:
    """`Tuned against base: 5 of 7 metrics better, 1 worse, 1 unclear`."""
    count = Counter(row.verdict for row in rows)
    after = pair[0][:1].upper() + pair[0][1:]
    head = f"{after} against {pair[1]}: {count['better']} of {len(rows)} metrics better"
    return head + "".join(f", {count[each]} {each}" for each in ("worse", "unclear") if count[each])
