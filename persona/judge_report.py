"""What a judge says of systems' answers: scores as metrics, preferences, and how far to trust them."""

import json
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel

from persona import runlog, scoring, significance
from persona.answered import Answered, hash_of
from persona.card import Card
from persona.jobs import Asker
from persona.judge import FACETS, asked_of, both_orders, by_place, outcome, pair_jobs, rubric_job, scene_of
from persona.metrics import Metric

TRUE_REPLY = "true reply"
"""Name under which the true replies are scored, as a ceiling."""
FAILED = 0.05
"""Share of judgements without an answer from which on the report warns."""
BIASED = 0.2
"""Share of pairs decided by the answers' places from which on the report warns."""


def judged(judge: Asker, card: Card, items: Sequence[Answered], qualification: dict) -> dict:
    """The judge's report: scores as metrics of each system, preferences to the base, true replies as ceiling.

    "metrics" is as in evaluation_report.json; "preferences": {"tuned-base": {"value": win rate, ties half,
    "ci95", "n", "wins", "ties", "losses", "first", "second": shares decided by place}}.
    """
    systems = list(items[0].answers)
    others = [s for s in systems if s != "base"] if "base" in systems else []
    jobs = []
    for k, one in enumerate(items):
        scene = scene_of(one.earlier, one.question, card.display_name)
        answers = one.answers | ({TRUE_REPLY: one.item.reference} if one.item.reference else {})
        jobs += [rubric_job(card, scene, text, (k, name)) for name, text in answers.items()]
        for name in (s for s in others if one.answers[s] != one.answers["base"]):
            jobs += pair_jobs(card, scene, one.answers[name], one.answers["base"], (k, name, "base"))
    found = asked_of(judge, jobs)
    clusters, what = scoring.clusters_of([one.item for one in items])
    metrics = {name: _scores_of(found, name, len(items)) for name in [*systems, TRUE_REPLY]}
    true = scoring.compare({TRUE_REPLY: metrics.pop(TRUE_REPLY)}, clusters)
    preferences = {f"{s}-base": _preference(found, s, items, clusters) for s in others}
    report = {
        "judge": judge.id,
        "n": len(items),
        "items_sha256": runlog.sha256_of(json.dumps([[one.item.id, one.item.messages] for one in items])),
        "answers_sha256": hash_of(items, systems),
        "clusters": what,
        "qualification": qualification,
        "metrics": significance.with_holm(scoring.compare(metrics, clusters)),
        "preferences": preferences,
        "controls": {"true_replies": {name: m["values"][TRUE_REPLY] for name, m in true.items()}},
        "n_failed": len(jobs) - len(found),
    }
    return report | {"warnings": _warnings(report, len(jobs)), "items": _by_item(found, items, others)}


def _scores_of(found: dict[tuple, BaseModel], system: str, n: int) -> dict[str, Metric]:
    """The four metrics of a system; an item whose judgement failed counts for nothing."""
    of = [found.get((k, system)) for k in range(n)]
    told = [float(scores is not None) for scores in of]
    return {
        f"judge_{facet}": Metric("higher", [float(getattr(s, facet, 0)) for s in of], told)
        for facet in FACETS
    }


def _preference(
    found: dict[tuple, BaseModel], system: str, items: Sequence[Answered], clusters: list[str]
) -> dict:
    """Win rate over the base. The same words twice are a tie, and say nothing of places."""
    orders = [both_orders(found, (k, system, "base")) for k in range(len(items))]
    same = [one.answers[system] == one.answers["base"] for one in items]
    told = [o is not None or s for o, s in zip(orders, same, strict=True)]
    won = [outcome(o) if o else 0.5 * s for o, s in zip(orders, same, strict=True)]
    counts = Counter(w for w, t in zip(won, told, strict=True) if t)
    rate = Metric("higher", won, [float(t) for t in told], yes_no=not counts[0.5])
    return {
        **scoring.compare({system: {"win_rate": rate}}, clusters)["win_rate"]["values"][system],
        **{"wins": counts[1.0], "ties": counts[0.5], "losses": counts[0.0], "same": sum(same)},
        **by_place(orders),
    }


def _by_item(found: dict[tuple, BaseModel], items: Sequence[Answered], others: Sequence[str]) -> list[dict]:
    """Every judgement, for readers and for correlation with people."""
    rows = []
    for k, one in enumerate(items):
        scores = {s: found[k, s].model_dump() for s in [*one.answers, TRUE_REPLY] if (k, s) in found}
        orders = {f"{s}-base": o for s in others if (o := both_orders(found, (k, s, "base")))}
        preferences = {pair: {"orders": list(o), "value": outcome(o)} for pair, o in orders.items()}
        rows.append({"id": one.item.id, "scores": scores, "preferences": preferences})
    return rows


def _warnings(report: dict, asked: int) -> list[str]:
    """What a reader should know before believing the judge."""
    lines = []
    if not report["qualification"]["qualified"]:
        lines.append("The judge is not qualified: it was asked for all the same.")
    if report["n_failed"] > FAILED * asked:
        lines.append(f"{report['n_failed']} of {asked} judgements failed; their items count for nothing.")
    for pair, found in report["preferences"].items():
        place = (found["first"] or 0) + (found["second"] or 0)
        if place > BIASED:
            lines.append(f"{pair}: {place:.0%} of the pairs were decided by the answers' places (ties here).")
    return lines


def table(report: dict) -> str:
    """What is printed: the scores, the preferences, the warnings."""
    shown = {"systems": next(iter(report["metrics"].values()))["values"], "metrics": report["metrics"]}
    lines = [scoring.table(shown)]
    for pair, found in report["preferences"].items():
        ci = "none" if found["ci95"] is None else "[{:.3g}, {:.3g}]".format(*found["ci95"])
        value = "none" if found["value"] is None else format(found["value"], ".3g")
        lines.append(
            f"preference {pair}: win rate {value}, 95% interval {ci} ({found['wins']} better, "
            f"{found['ties']} ties, {found['losses']} worse)"
        )
    return "\n".join([*lines, *(f"weak: {line}" for line in report["warnings"])])
