"""How a model does on a set of items.

Likelihood of the true reply, its own answer, and the metrics that follow. base_model.py and evaluation.py
share this one code path, so that base and tuned differ in their weights alone.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from persona import metrics, significance
from persona.card import Card
from persona.chat import Sampling, context_length, fit, prompt_ids
from persona.errors import UserError
from persona.intervals import difference, finite, interval, jackknife, p_value
from persona.likelihood import true_reply_likelihood
from persona.metrics import Metric
from persona.rows import Message, Row, answer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIKELIHOOD_METRICS = ("conditional_perplexity", "bits_per_byte", "token_accuracy", "evaluation_loss")
STORIES_FOR_CLUSTERS = 10
"""From this many held-out stories on, intervals resample stories; below, scenes of at least 400 words."""


@dataclass(frozen=True)
class Item:
    """One thing to answer: the conversation up to the reply, and the true reply where there is one."""

    id: str
    kind: str
    """dialogue, curated or probe."""
    messages: list[Message]
    reference: str | None
    story: str | None = None
    scene: str | None = None
    opening: str = ""
    """First words that are put into the answer."""
    then: tuple[str, ...] = ()
    """What the user goes on to say, turn by turn, whatever the answers are."""


@dataclass(frozen=True)
class Record:
    """What one system did on one item. Likelihood fields are 0 where there is no true reply."""

    answer: str
    """The last one, where there are several turns."""
    nll: float = 0.0
    """Negative log-likelihood of the true reply, nats, summed over its tokens and the end of turn."""
    tokens: int = 0
    correct: int = 0
    """Tokens of the true reply that were the likeliest one."""
    text_nll: float = 0.0
    """The same over every token of the conversation but the first (the reference system's way)."""
    text_tokens: int = 0
    said: tuple[str, ...] = ()
    """All answers in order, where there are several turns."""


def asked_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that are evaluated: dialogue with all its context, and what was written by hand."""
    return [
        r
        for r in rows
        if r["meta"]["strategy"] in ("dialogue", "curated", "guard") and not r["meta"].get("variant")
    ]


def items_of(rows: Sequence[Row]) -> list[Item]:
    """Items from data set rows.

    Everything before the last assistant turn asks, that turn is the true reply.
    """
    return [
        Item(
            row["id"],
            "dialogue" if row["meta"]["strategy"] == "dialogue" else "curated",
            row["messages"][:-1],
            row["messages"][-1]["content"],
            row["meta"].get("story"),
            row["meta"].get("scene"),
        )
        for row in rows
    ]


def probes_of(card: Card) -> list[Item]:
    """The card's probes, asked with its system prompt."""
    path = card.folder / "probes.jsonl"
    if not path.is_file():
        return []
    system = {"role": "system", "content": card.system_prompt}
    with path.open(encoding="utf-8") as lines:
        return [
            Item(raw["id"], "probe", [system, *raw["messages"]], None) for raw in _parse_probes(lines, path)
        ]


def _parse_probes(lines, path: Path) -> list[dict]:
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                raw = json.loads(line)
                found.append({"id": raw["id"], "messages": raw["messages"]})
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}: not a probe ({error})") from error
    return found


def fitted(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Item], room: int) -> list[Item]:
    """The items with the oldest exchanges left out until `room` tokens hold the prompt.

    Without those whose last turn alone is longer, such as a client's story over several pages.
    """
    found = [(i, fit(tokenizer, i.messages, room)) for i in items]
    return [replace(item, messages=messages) for item, messages in found if messages]


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    sampling: Sampling,
    batch_size: int = 16,
    label: str = "",
) -> list[Record]:
    """Likelihood of every true reply and an answer to every item, in order.

    A prompt and its reply go through the model together, once, where the tokens of one begin the other.
    """
    from persona.generation import answer_batch
    from persona.reading import Reader, replies_after

    length = context_length(model, tokenizer)
    prompts = [prompt_ids(tokenizer, i.messages) for i in items]
    reader = Reader(model, prompts, replies_after(model, tokenizer, prompts, items, length))
    answers = answer_batch(
        model, tokenizer, [i.messages for i in items], sampling, batch_size, f"{label} answers", read=reader
    )
    found = reader.likelihoods
    apart = [k for k, i in enumerate(items) if i.reference and not reader.replies[k]]
    if apart:
        alone = [items[k] for k in apart]
        more = true_reply_likelihood(model, tokenizer, alone, length, f"{label} likelihood")
        for k, numbers in zip(apart, more, strict=True):
            found[k] = numbers
    return [Record(answer, *numbers) for answer, numbers in zip(answers, found, strict=True)]


def clusters_of(items: Sequence[Item]) -> tuple[list[str], str]:
    """The cluster of every item for the bootstrap, and what a cluster is.

    Story, scene, or item where there are no stories.
    """
    stories = {i.story for i in items if i.story}
    if len(stories) >= STORIES_FOR_CLUSTERS:
        return [i.story or i.id for i in items], "story"
    if stories:
        return [i.scene or i.story or i.id for i in items], "scene"
    return [i.id for i in items], "item"


def metrics_of(
    items: Sequence[Item], records: Sequence[Record], card: Card, canon_rate: float
) -> dict[str, Metric]:
    """Every metric of one system. Likelihoods count the items whose true reply fits the context."""
    import numpy as np

    nll = [r.nll for r in records]
    tokens = [float(r.tokens) for r in records]
    size = [
        float(len((i.reference or "").encode())) if r.tokens else 0.0
        for i, r in zip(items, records, strict=True)
    ]
    pairs = [(r.answer, i.reference) for i, r in zip(items, records, strict=True) if i.reference]
    ones = [1.0] * len(pairs)
    terms = [float(metrics.term_count(r.answer, card.lexicon)) for r in records]
    n_words = [float(len(metrics.words(r.answer))) for r in records]
    found = {"term_rate": Metric("target", terms, n_words, target=canon_rate)}
    if pairs:
        found = {
            "conditional_perplexity": Metric("lower", nll, tokens, np.exp),
            "bits_per_byte": Metric("lower", [x / math.log(2) for x in nll], size),
            "token_accuracy": Metric("higher", [float(r.correct) for r in records], tokens),
            "evaluation_loss": Metric("lower", nll, tokens),
            "jaccard": Metric("higher", [metrics.jaccard(a, b) for a, b in pairs], ones),
            "rouge_l": Metric("higher", metrics.rouge_l(*map(list, zip(*pairs, strict=True))), ones),
            "victorian_term_frequency": found["term_rate"],
            "term_frequency_distance": Metric("lower", terms, n_words, lambda rate: abs(rate - canon_rate)),
        }
    return found


def reference_metrics(items: Sequence[Item], records: Sequence[Record], card: Card) -> dict[str, Metric]:
    """The reference system's own definitions.

    Mean of per-row perplexities over the whole text, Jaccard split at spaces, term rate.
    """
    ones = [1.0] * len(items)
    rows = list(zip(items, records, strict=True))
    return {
        "reference_perplexity": Metric(
            "lower",
            [math.exp(r.text_nll / r.text_tokens) if r.text_tokens else 0.0 for r in records],
            [float(r.text_tokens > 0) for r in records],
        ),
        "reference_jaccard": Metric(
            "higher", [metrics.reference_jaccard(r.answer, i.reference) for i, r in rows], ones
        ),
        "rouge_l": Metric(
            "higher", metrics.rouge_l([r.answer for r in records], [i.reference for i in items]), ones
        ),
        "victorian_term_frequency": Metric(
            "higher",
            [float(metrics.term_count(r.answer, card.lexicon)) for r in records],
            [float(len(metrics.words(r.answer))) for r in records],
        ),
    }


def compare(systems: dict[str, dict[str, Metric]], clusters: list[str], base: str = "base") -> dict:
    """The report's "metrics": values with 95% intervals for each system, and paired differences to `base`.

    A system without a metric (an API gives no likelihoods) is left out there. A p-value is McNemar's exact
    one for yes/no metrics of items that stand alone, else the bootstrap's; parts of other metrics have none.
    """
    report = {}
    for name in dict.fromkeys(name for found in systems.values() for name in found):
        of = {system: found[name] for system, found in systems.items() if name in found}
        first = next(iter(of.values()))
        report[name] = {
            "better": first.better,
            "target": first.target,
            "values": {system: _valued(metric, clusters) for system, metric in of.items()},
            "differences": {
                f"{system}-{base}": _differing(metric, of[base], clusters)
                for system, metric in of.items()
                if base in of and system != base
            },
            "jackknife": {system: jackknife(metric, clusters) for system, metric in of.items()},
        }
    return report


def _valued(metric: Metric, clusters: list[str]) -> dict:
    """{"value", "ci95", "n"}; where all or none of n say yes, the interval is the rule of three's."""
    n = int(sum(d > 0 for d in metric.denominators))
    ci = interval(metric, clusters)
    if metric.yes_no and n and metric.value in (0.0, 1.0):
        beyond = significance.rule_of_three(n)
        ci = [0.0, beyond] if metric.value == 0 else [1 - beyond, 1.0]
    return {"value": finite(metric.value), "ci95": ci, "n": n}


def _differing(metric: Metric, of_base: Metric, clusters: list[str]) -> dict:
    """{"value", "ci95", "p"}, and McNemar's counts for yes/no metrics of items that stand alone."""
    found = difference(metric, of_base, clusters)
    if metric.part:
        return found | {"p": None}
    if metric.yes_no and len(set(clusters)) == len(clusters):
        columns = (metric.numerators, of_base.numerators, metric.denominators, of_base.denominators)
        both = [(a > 0, b > 0) for a, b, n, m in zip(*columns, strict=True) if n and m]
        tested = significance.mcnemar([a for a, _ in both], [b for _, b in both])
        return found | {"p": tested["p"], "mcnemar": tested}
    return found | {"p": p_value(metric, of_base, clusters)}


def canon_rate(train: Sequence[Row], card: Card) -> float:
    """The persona's own rate of lexicon words.

    In its lines in the training stories, or in all answers where it has none.
    """
    asked = asked_rows(train) or train
    spoken = [answer_of(r) for r in asked if r["meta"]["strategy"] == "dialogue"]
    return metrics.term_rate(spoken or [answer_of(r) for r in asked], card.lexicon)


def metrics_by_kind(
    items: Sequence[Item],
    records: dict[str, list[Record]],
    measure: Callable[[list[Item], list[Record]], dict[str, Metric]],
) -> tuple[dict, str]:
    """The report's metrics, and what the bootstrap resampled for the main items.

    Dialogue items are the main ones and have their metrics under plain names, curated ones under
    ".../curated"; where there are no dialogue items, the curated ones are the main ones. `records` may go
    on behind the items (probes).
    """
    kinds = sorted({i.kind for i in items}, key=["dialogue", "curated"].index)
    report, resampled = {}, ""
    for kind in kinds:
        places = [k for k, i in enumerate(items) if i.kind == kind]
        group = [items[k] for k in places]
        clusters, what = clusters_of(group)
        resampled = resampled or what
        found = compare(
            {system: measure(group, [of[k] for k in places]) for system, of in records.items()}, clusters
        )
        report |= {name if kind == kinds[0] else f"{name}/{kind}": metric for name, metric in found.items()}
    return report, resampled


def predictions(items: Sequence[Item], records: dict[str, list[Record]]) -> list[dict]:
    """Every system's answer to every item, side by side: the rows of predictions.jsonl."""
    return [
        {
            "id": item.id,
            "story": item.story,
            "kind": item.kind,
            "prompt": item.messages[-1]["content"],
            "reference": item.reference,
            "answers": {name: of[k].answer for name, of in records.items()},
        }
        for k, item in enumerate(items)
    ]


def table(report: dict) -> str:
    """The report's metrics as lines of text: value of each system, difference with its interval.

    With more than two systems: the difference of tuned and base alone, and no parts of other metrics.
    """
    systems = list(report["systems"])
    width = max(12, *(len(s) + 2 for s in systems))
    several = len(systems) > 2
    head = (
        f"{'metric':<36}"
        + "".join(f"{s:>{width}}" for s in systems)
        + f"{'difference':>14}{'95% interval':>24}"
    )
    lines = [head, "-" * len(head)]
    for name, metric in report["metrics"].items():
        pairs = metric["differences"]
        if several and "tuned-base" in pairs:
            pairs = {"tuned-base": pairs["tuned-base"]}
        if several and pairs and all(d.get("p") is None for d in pairs.values()):
            continue
        values = [metric["values"].get(s, {"value": None})["value"] for s in systems]
        line = f"{name:<36}" + "".join(
            f"{'none' if v is None else format(v, '.4g'):>{width}}" for v in values
        )
        for d in pairs.values():
            ci = "none" if d["ci95"] is None else f"[{d['ci95'][0]:+.4g}, {d['ci95'][1]:+.4g}]"
            line += f"{'none' if d['value'] is None else format(d['value'], '+.4g'):>14}{ci:>24}"
        lines.append(line)
    return "\n".join(lines)
