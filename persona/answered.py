"""Answers of several systems to the same items, with what was said before: what judges and people compare."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from persona import scoring
from persona.card import Card
from persona.copying import TrainingText, copying_metrics, repetition_metrics
from persona.errors import UserError
from persona.findings import answers_sha256, read_predictions
from persona.item_files import ITEMS_SEED, sampled
from persona.markers import marker_metrics, marker_rates
from persona.metrics import Metric, words
from persona.rows import Message, Row, answer_of, read_rows
from persona.scoring import Item, Record
from persona.style import StyleClassifier, lines_of

KINDS = ("dialogue", "curated", "probe")
"""Items of predictions.jsonl that are one question and one answer; attacks, traps and long talks have rules
of their own."""
EARLIER = 4
"""Turns before the question that are shown; with the question they make the scene clear."""


@dataclass(frozen=True)
class Answered:
    """An item as `scoring` knows it, the true reply included where there is one, and each system's answer."""

    item: Item
    answers: dict[str, str]

    @property
    def question(self) -> str:
        """The user's last turn."""
        return self.item.messages[-1]["content"]

    @property
    def earlier(self) -> list[Message]:
        """What was said before the question, the last turns of it, without the system prompt."""
        return [m for m in self.item.messages[:-1] if m["role"] != "system"][-EARLIER:]


def read_answered(folder: Path, data: Path, most: int) -> list[Answered]:
    """What the systems of a finished evaluation answered, at most so many items (0: all).

    Every run, and judge and people alike, get the same draw.

    Raises:
        UserError: nothing was evaluated there.
    """
    remedy = f"python evaluation.py --run {folder.name}"
    predictions = read_predictions(folder / "predictions.jsonl", remedy)
    if not predictions:
        raise UserError(f"no answers in {folder / 'predictions.jsonl'}: make them with {remedy}")
    return answered(predictions, read_rows(data / "test.jsonl"), most, ITEMS_SEED)


def answered(predictions: Sequence[dict], test: Sequence[Row], most: int, seed: int) -> list[Answered]:
    """The rows of predictions.jsonl that can be compared, at most so many (0: all), drawn by the seed.

    Conversations and scenes come from the data set's `test` rows.

    Raises:
        UserError: there are none, or they answer rows that the data set does not hold.
    """
    rows = {row["id"]: row for row in test}
    found = []
    for raw in predictions:
        if raw.get("kind") not in KINDS:
            continue
        row = rows.get(raw["id"])
        if row is None and raw["kind"] != "probe":
            raise UserError(
                f"predictions.jsonl answers row {raw['id']}, which the data set's test split does not hold: "
                "evaluate again with python evaluation.py --force"
            )
        asked = [{"role": "user", "content": raw["prompt"]}]
        item = Item(
            raw["id"],
            raw["kind"],
            row["messages"][:-1] if row else asked,
            raw["reference"],
            raw["story"],
            row["meta"].get("scene") if row else None,
        )
        found.append(Answered(item, raw["answers"]))
    if not found:
        raise UserError("predictions.jsonl holds no dialogue, curated or probe items: nothing to compare")
    return sampled(found, most, seed)


def hash_of(items: Sequence[Answered], systems: Sequence[str]) -> str:
    """The hash by which the report page knows these answers again in predictions.jsonl."""
    rows = [{"id": one.item.id, "answers": one.answers} for one in items]
    return answers_sha256(rows, [row["id"] for row in rows], systems)


def answer_metrics(
    items: Sequence[Answered], system: str, card: Card, train: Sequence[Row]
) -> dict[str, Metric]:
    """What the evaluation measures of a system's answers alone, item by item; and their length.

    Where an item has no true reply, metrics that need one say nothing of it.
    """
    answers = [one.answers[system] for one in items]
    places = [k for k, one in enumerate(items) if one.item.reference]
    own = [answer_of(r) for r in scoring.asked_rows(train) or train]
    training = TrainingText(m["content"] for r in train for m in r["messages"] if m["role"] == "assistant")
    of_replies = scoring.metrics_of(
        [items[k].item for k in places],
        [Record(answers[k]) for k in places],
        card,
        scoring.canon_rate(train, card),
    )
    found = {
        name: _spread(m, places, len(items))
        for name, m in of_replies.items()
        if name not in scoring.LIKELIHOOD_METRICS
    }
    found |= copying_metrics(answers, training) | repetition_metrics(answers)
    found |= marker_metrics(answers, card, marker_rates(own, card))
    found["answer_words"] = Metric("higher", [float(len(words(a))) for a in answers], [1.0] * len(items))
    try:
        style = StyleClassifier(card).fit(*lines_of(train))
    except UserError:
        return found  # too little dialogue to learn a style from
    return found | {"style_score": style.metric(answers, [one.item.id for one in items])}


def _spread(metric: Metric, places: Sequence[int], n: int) -> Metric:
    """A metric of some of n items as one of all, which says nothing of the others."""
    above, below = [0.0] * n, [0.0] * n
    for k, a, b in zip(places, metric.numerators, metric.denominators, strict=True):
        above[k], below[k] = a, b
    return replace(metric, numerators=above, denominators=below)
