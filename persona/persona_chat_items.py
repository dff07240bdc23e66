"""What is asked of a model of Synthetic-Persona-Chat, and the controls that no model answers.

Items by prompt form, the same with another person's persona, replies to choose from; a TF-IDF retrieval
baseline and the commonest utterance.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from persona.errors import UserError
from persona.fidelity import Choice
from persona.item_files import ITEMS_SEED, sampled
from persona.rows import Message, Row, answer_of
from persona.scoring import Item

PUBLISHED_FORMS = ("one-persona", "both-personas")
"""The prompt forms that published figures stand for; the first one's metrics have plain names."""
DISTRACTORS = 19
"""hits@1 picks the true reply out of twenty, as PersonaChat does (Zhang et al. 2018, section 5)."""
_PERSONA = re.compile(r"Persona of User 2:(?:\n- [^\n]*)+")


def items_of(test: Sequence[Row], conversations: int = 0) -> list[Item]:
    """Items of both forms, of as many `conversations`, drawn by a fixed seed; 0 for all.

    `kind` is the form, with "/overlapping" where the true reply stands word for word in training; `story` is
    the conversation, which intervals are resampled by.

    Raises:
        UserError: the rows hold no conversation in every form.
    """
    by_form: dict[str, dict[int, Row]] = {form: {} for form in PUBLISHED_FORMS}
    for row in test:
        if row["meta"].get("form") in by_form:
            by_form[row["meta"]["form"]][row["meta"]["conversation"]] = row
    numbers = sorted(set.intersection(*(set(rows) for rows in by_form.values())))
    if not numbers:
        raise UserError(
            "the test split holds no conversation of Synthetic-Persona-Chat: make the data set again with "
            "python generate_dataset.py --persona spc --force"
        )
    chosen = sampled(numbers, conversations, ITEMS_SEED)
    return [_item(rows[number], form) for form, rows in by_form.items() for number in chosen]


def _item(row: Row, form: str) -> Item:
    kind = form + ("/overlapping" if row["meta"]["overlap"] else "")
    return Item(
        row["id"],
        kind,
        row["messages"][:-1],
        answer_of(row),
        story=f"conversation {row['meta']['conversation']}",
    )


def persona_of(item: Item) -> str:
    """User 2's persona as the prompt states it.

    Raises:
        ValueError: the prompt states none.
    """
    found = next((m for m in (_PERSONA.search(t["content"]) for t in item.messages) if m), None)
    if found is None:
        raise ValueError(f"item {item.id} states no persona of User 2")
    return found[0]


def with_another_persona(items: Sequence[Item]) -> list[Item]:
    """The items, each with the persona of another conversation's User 2, the same one in both forms.

    Personas go round in an order drawn by a fixed seed, past those that say the same.
    """
    own = {item.story: persona_of(item) for item in items}
    order = sorted(own)
    random.Random(f"{ITEMS_SEED}-personas").shuffle(order)
    other = {}
    for place, name in enumerate(order):
        rest = order[place + 1 :] + order[:place]
        other[name] = next((own[n] for n in rest if own[n] != own[name]), own[name])
    return [
        replace(item, messages=[_with_persona(turn, other[item.story]) for turn in item.messages])
        for item in items
    ]


def _with_persona(turn: Message, persona: str) -> Message:
    return {"role": turn["role"], "content": _PERSONA.sub(lambda _: persona, turn["content"])}


def choices_of(items: Sequence[Item], distractors: int = DISTRACTORS) -> list[Choice]:
    """Each item's true reply among User 2's replies of other conversations; the same ones in both forms.

    Fewer distractors where there are not so many other replies.
    """
    replies = sorted({i.reference for i in items})
    choices = []
    for item in items:
        pool = [r for r in replies if r != item.reference]
        draw = random.Random(f"{ITEMS_SEED}-{item.story}")
        chosen = draw.sample(pool, min(distractors, len(pool)))
        choices.append(Choice(item, "same-speaker", tuple(chosen)))
    return choices


class TfidfRetrieval:
    """Answers with the training reply that shares most words with persona and conversation, by TF-IDF.

    PersonaChat's information-retrieval baseline: the cosine of the two texts' vectors ranks replies.
    """

    def __init__(self, train: Sequence[Row]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._replies = sorted({answer_of(r) for r in train})
        self._vectorizer = TfidfVectorizer(sublinear_tf=True).fit(self._replies)
        self._matrix = self._vectorizer.transform(self._replies)

    def answers(self, items: Sequence[Item]) -> list[str]:
        """The best training reply to each item."""
        queries = self._vectorizer.transform([i.messages[-1]["content"] for i in items])
        best = (queries @ self._matrix.T).toarray().argmax(1)  # (items, replies) before argmax
        return [self._replies[k] for k in best]

    def picks(self, choices: Sequence[Choice]) -> list[bool]:
        """Whether the true reply of each choice ranks first; one that is tied does not."""
        found = []
        for choice in choices:
            candidates = [c.reference for c in choice.candidates]
            query = self._vectorizer.transform([choice.item.messages[-1]["content"]])
            scores = (self._vectorizer.transform(candidates) @ query.T).toarray()[:, 0]
            found.append(bool((scores[0] > scores[1:]).all()))
        return found


def commonest_utterance(train: Sequence[Row]) -> str:
    """The reply that stands most often in training, each conversation counted once."""
    replies = {r["meta"]["conversation"]: answer_of(r) for r in train}
    counted = Counter(replies.values())
    return min(counted, key=lambda reply: (-counted[reply], reply))
