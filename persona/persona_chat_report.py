"""The report on Synthetic-Persona-Chat: base and tuned in both published prompt forms, beside controls."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from persona import character, leaks, persona_chat_metrics, runlog, scoring, significance
from persona import metrics as texts
from persona.card import Card
from persona.deduplication import answer_grams
from persona.fidelity import Choice, bits_per_byte, candidates_of, choice_metrics, fitting_candidates
from persona.metrics import Metric
from persona.persona_chat_items import (
    PUBLISHED_FORMS,
    TfidfRetrieval,
    choices_of,
    commonest_utterance,
    items_of,
    with_another_persona,
)
from persona.rows import Row
from persona.scoring import Item, Record
from persona.systems import System

SHUFFLED = "tuned_shuffled"
WITHOUT_MODEL = ("tfidf", "commonest")
BERTSCORE = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
KINDS = {
    PUBLISHED_FORMS[0]: "",
    PUBLISHED_FORMS[1]: f"/{PUBLISHED_FORMS[1]}",
    f"{PUBLISHED_FORMS[0]}/overlapping": "/overlapping",
    f"{PUBLISHED_FORMS[1]}/overlapping": f"/{PUBLISHED_FORMS[1]}-overlapping",
}
"""What stands behind the names of the metrics of each kind of items."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of BERTScore."""

    model: str
    layers: int
    device: str


@dataclass(frozen=True)
class Outcome:
    """What one system did: a record an item, and whether it picked the true reply where it was asked to."""

    records: list[Record]
    choices: list[Choice] = field(default_factory=list)
    likelihood: list = field(default_factory=list)
    picks: list[bool] = field(default_factory=list)
    bertscore: list[tuple[float, float, float]] = field(default_factory=list)

    def hits(self, places: Sequence[int]) -> Metric | None:
        """hits@1 of some items; None where the system chose nothing."""
        if self.picks:
            return Metric("higher", [float(self.picks[k]) for k in places], [1.0] * len(places), yes_no=True)
        if not self.likelihood:
            return None
        chosen = [self.choices[k] for k in places]
        by_reply = {
            (c.id, c.reference): numbers
            for c, numbers in zip(candidates_of(self.choices), self.likelihood, strict=True)
        }
        numbers = [by_reply[c.id, c.reference] for c in candidates_of(chosen)]
        return replace(choice_metrics(chosen, numbers)["choice_accuracy/same-speaker"], yes_no=True)


def report(
    card: Card,
    train: list[Row],
    test: list[Row],
    systems: Iterable[System],
    fit: Callable[[list[Item]], list[Item]],
    conversations: int,
    max_new_tokens: int,
    encoder: Encoder | None,
    facts: dict,
) -> tuple[dict, list[dict]]:
    """Report and predictions. `fit` cuts items to the context; `conversations` 0 asks all of the test split.

    Of `systems` those that get the items as they are count ("base", "tuned", an endpoint's model); the tuned
    one is asked again with another person's persona.
    """
    wanted = items_of(test, conversations)
    items = fit(wanted)
    choices = choices_of(items)
    known, found = _asked(systems, items, choices, max_new_tokens)
    commonest = commonest_utterance(train)
    found |= _without_model(train, items, choices, commonest)
    known |= {name: {"model": None, "adapter": None, "prompt": None} for name in WITHOUT_MODEL}
    answers = {name: [r.answer for r in outcome.records] for name, outcome in found.items()}
    if encoder:
        found = _with_bertscore(found, answers, [i.reference for i in items], encoder)
    grams = answer_grams(train)
    result = {
        **facts,
        "protocol": "persona-chat",
        "n": sum(i.kind == PUBLISHED_FORMS[0] for i in items),
        "n_asked": {kind: sum(i.kind == kind for i in items) for kind in KINDS},
        "n_too_long": len(wanted) - len(items),
        "items_sha256": _hash_of(items, choices),
        "clusters": "conversation",
        "stories": [],
        "systems": known,
        "decoding": {"temperature": 0.0, "max_new_tokens": max_new_tokens},
        "metrics": significance.with_holm(measured(items, found, character.speaker_labels(card))),
        "bleu_signature": persona_chat_metrics.bleu_signature(),
        "bertscore": asdict(encoder) if encoder else None,
        "controls": {
            "commonest_utterance": commonest,
            "chance": {"hits_at_1": 1 / (1 + min(len(c.distractors) for c in choices))},
        },
        "leakage": {
            "n": leaks.WORDS,
            "true_replies": leaks.shares([i.reference for i in items], grams),
            "answers": {name: leaks.shares(of, grams) for name, of in answers.items()},
        },
        "not_measured": not_measured(found, encoder),
    }
    return result, scoring.predictions(items, {name: o.records for name, o in found.items()})


def _asked(
    systems: Iterable[System], items: list[Item], choices: list[Choice], max_new_tokens: int
) -> tuple[dict[str, dict], dict[str, Outcome]]:
    """Facts and outcome of every system by name; the tuned one's with another person's persona beside it."""
    known, found = {}, {}
    for system in systems:
        known[system.name] = system.facts
        found[system.name] = ask(system, items, choices, max_new_tokens)
        if system.name == "tuned":
            other = with_another_persona(items)
            swapped = [replace(c, item=i) for c, i in zip(choices, other, strict=True)]
            known[SHUFFLED] = system.facts | {"prompt": "another conversation's persona"}
            found[SHUFFLED] = ask(replace(system, name=SHUFFLED), other, swapped, max_new_tokens)
    return known, found


def _without_model(
    train: list[Row], items: list[Item], choices: list[Choice], commonest: str
) -> dict[str, Outcome]:
    """What the controls answer and pick: retrieval by TF-IDF, and the commonest utterance every time."""
    retrieval = TfidfRetrieval(train)
    retrieved = Outcome([Record(a) for a in retrieval.answers(items)], picks=retrieval.picks(choices))
    return {"tfidf": retrieved, "commonest": Outcome([Record(commonest)] * len(items))}


def ask(system: System, items: list[Item], choices: list[Choice], max_new_tokens: int) -> Outcome:
    """Answers; where the model is at hand, likelihoods of the true replies and of those to choose from."""
    records = system.records(items, max_new_tokens, "replies")
    if system.local is None:
        return Outcome(records)
    candidates = fitting_candidates(system.local.tokenizer, system.local.context, choices)
    likelihood = system.local.candidate_likelihoods(candidates, f"{system.name}: choice of 20")
    return Outcome(records, choices, likelihood)


def _with_bertscore(
    found: dict[str, Outcome], answers: dict[str, list[str]], references: list[str], encoder: Encoder
) -> dict[str, Outcome]:
    """All systems' answers go through the encoder together."""
    together = [a for of in answers.values() for a in of]
    scores = persona_chat_metrics.bert_scores(together, references * len(answers), **asdict(encoder))
    n = len(references)
    parts = [scores[k : k + n] for k in range(0, len(scores), n)]
    return {name: replace(o, bertscore=of) for (name, o), of in zip(found.items(), parts, strict=True)}


def measured(items: list[Item], found: dict[str, Outcome], labels: re.Pattern) -> dict:
    """The report's metrics; those of overlapping replies are parts, and not tested."""
    result: dict = {}
    for kind, suffix in KINDS.items():
        places = [k for k, i in enumerate(items) if i.kind == kind]
        if not places:
            continue
        group = [items[k] for k in places]
        clusters, part = [i.story for i in group], kind.endswith("/overlapping")
        of = {name: _metrics(group, places, outcome, labels, part) for name, outcome in found.items()}
        told = {name: [outcome.records[k].answer for k in places] for name, outcome in found.items()}
        here = scoring.compare(of, clusters)
        here["bleu"] = _bleu(told, group, clusters, part, "base")
        if SHUFFLED in of:  # what the persona is worth to the tuned system
            pair = {name: of[name] for name in ("tuned", SHUFFLED)}
            effect = scoring.compare(pair, clusters, SHUFFLED)
            effect["bleu"] = _bleu({name: told[name] for name in pair}, group, clusters, part, SHUFFLED)
            for name, metric in effect.items():
                here[name]["differences"] |= metric["differences"]
        result |= {name + suffix: metric for name, metric in here.items()}
    return result


def _bleu(told: dict, group: list[Item], clusters: list[str], part: bool, base: str) -> dict:
    return persona_chat_metrics.bleu_report(told, [i.reference for i in group], clusters, base, part)


def _metrics(
    group: list[Item], places: list[int], outcome: Outcome, labels: re.Pattern, part: bool
) -> dict[str, Metric]:
    """Every metric of one system on items of one kind, but BLEU."""
    import numpy as np

    records = [outcome.records[k] for k in places]
    answers, references = [r.answer for r in records], [i.reference for i in group]
    ones = [1.0] * len(group)
    found = {
        "rouge_l": Metric("higher", texts.rouge_l(answers, references), ones),
        "word_f1": Metric(
            "higher",
            [persona_chat_metrics.word_f1(a, r) for a, r in zip(answers, references, strict=True)],
            ones,
        ),
        "format_fault_rate": Metric(
            "lower",
            [float(character.format_fault(a, labels) is not None) for a in answers],
            ones,
            yes_no=True,
        ),
        "answer_words": Metric(
            "target",
            [float(len(texts.words(a))) for a in answers],
            ones,
            target=sum(len(texts.words(r)) for r in references) / len(references),
        ),
    }
    if outcome.bertscore:
        scores = [outcome.bertscore[k] for k in places]
        found |= {name: Metric("higher", [s[k] for s in scores], ones) for k, name in enumerate(BERTSCORE)}
    if any(r.tokens for r in records):
        nll, tokens = [r.nll for r in records], [float(r.tokens) for r in records]
        found |= {
            "conditional_perplexity": Metric("lower", nll, tokens, np.exp),
            "bits_per_byte": bits_per_byte(group, records),
        }
    hits = outcome.hits(places)
    if hits:
        found["hits_at_1"] = hits
    return {name: replace(metric, part=part) for name, metric in found.items()}


def not_measured(found: dict[str, Outcome], encoder: Encoder | None) -> dict[str, str]:
    """What the report lacks, and why."""
    missing = {}
    if encoder is None:
        missing["BERTScore"] = "it needs an encoder: --bertscore-model FOLDER --bertscore-layers N"
    for name, outcome in found.items():
        if name not in WITHOUT_MODEL and not outcome.likelihood:
            missing[f"perplexity and hits@1 of {name}"] = "an endpoint answers, no more"
    return missing


def _hash_of(items: list[Item], choices: list[Choice]) -> str:
    asked = [[asdict(i) for i in items], [c.distractors for c in choices]]
    return runlog.sha256_of(json.dumps(asked, sort_keys=True))


def markdown_table(report: dict) -> str:
    """The report's systems in both forms, in the columns of the published tables."""
    columns = {
        "BLEU": ("bleu",),
        "ROUGE-L": ("rouge_l",),
        "BERTScore P / R / F1": BERTSCORE,
        "perplexity": ("conditional_perplexity",),
        "hits@1": ("hits_at_1",),
        "word F1": ("word_f1",),
    }
    lines = [f"| {' | '.join(['System', 'form', *columns])} |", f"|{' --- |' * (2 + len(columns))}"]
    for form in PUBLISHED_FORMS:
        for system in report["systems"]:
            values = [
                " / ".join(_shown(report, name + KINDS[form], system) for name in of)
                if of[0] in report["metrics"]
                else "not measured"
                for of in columns.values()
            ]
            lines.append(f"| {' | '.join([system, form, *values])} |")
    return "\n".join(lines)


def _shown(report: dict, name: str, system: str) -> str:
    """A value with its interval; a dash where the system has none, as a retrieval has no perplexity."""
    entry = report["metrics"].get(name, {}).get("values", {}).get(system)
    if not entry or entry["value"] is None:
        return "-"
    ci = entry["ci95"]
    return f"{entry['value']:.4g}" + (f" [{ci[0]:.3g}, {ci[1]:.3g}]" if ci else "")
