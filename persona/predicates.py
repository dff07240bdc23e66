"""Questions to the predicate: what a sentence says of the noun phrase that it begins with."""

from collections.abc import Iterator

from persona.phrases import BE, Phrase
from persona.question_words import BETWEEN, FEELING, HARMED, NO_PLACE, PAST, PLACE
from persona.word_classes import adjectives

Asked = Iterator[tuple[str, str]]
"""Frame and question."""

_STANDING = {
    "lies": "lie", "lay": "lie", "stands": "stand", "stood": "stand", "lives": "live", "lived": "live",
}  # fmt: skip
_SHOWING = {
    "shows": "show", "showed": "show", "suggests": "suggest", "suggested": "suggest",
    "proves": "prove", "proved": "prove", "means": "mean", "meant": "mean",
}  # fmt: skip
_MODALS = ("will", "would", "may", "must", "might", "could", "can")
_NO_DEEDS = (
    "had", "saw", "heard", "felt", "thought", "knew", "seemed", "appeared", "looked", "meant", "died", "lost",
    "lived", "lay",
)  # fmt: skip


def predicate_questions(words: list[str], subject: Phrase) -> Asked:
    """What the subject is, where it is, what became of it; or what it does."""
    rest = [w.lower() for w in words[subject.end : subject.end + 5]] + [""] * 5
    following = rest[2] if rest[1] in BETWEEN else rest[1]
    if rest[0] in BE:
        yield from _being(subject, rest, following)
    elif subject.score > 0:
        yield from _doing(subject, rest[0], following)


def _being(subject: Phrase, rest: list[str], following: str) -> Asked:
    """After "is" and its like: `rest` from the verb on, `following` the first word of weight after it."""
    x, past = subject.text, rest[0] in ("was", "were")
    be = ("were" if past else "are") if subject.plural else ("was" if past else "is")
    if (
        subject.kind == "thing"
        and following in ("that", "to", "this")
        and x.startswith(("the ", "your ", "my "))
    ):
        yield "what_is_that", f"What {be} {x}?"
    elif subject.score <= 0:
        return
    elif rest[1] in ("a", "an", "the", "my", "one") and rest[2] not in ("few", "little", "hurry"):
        if subject.kind == "person" and subject.head[0].isupper():
            yield "who_is", f"Who {be} {x}?"
            yield "what_manner", f"What manner of person {be} {x}?"
        elif subject.kind == "person":
            yield "who_was_the", f"Who {be} {x}?"
    elif (
        following in PLACE
        and not {rest[2], rest[3]} & NO_PLACE
        and rest[2] in ("the", "a", "an", "my", "your", "our", "his", "her", "this")
    ):
        yield "where_is", f"Where {be} {x}?"
    elif following in HARMED and past:
        yield "happened_to", f"What happened to {x}?"
    elif following in adjectives() and not following.endswith("ing") and subject.kind != "name":
        yield "how_strike", f"How {'did' if past else 'do' if subject.plural else 'does'} {x} strike you?"


def _doing(subject: Phrase, verb: str, following: str) -> Asked:
    """After any other verb."""
    x, person, past = subject.text, subject.kind == "person", not verb.endswith("s")
    if verb in _STANDING and following in PLACE:
        yield "where_lie", f"Where {'did' if past else 'does'} {x} {_STANDING[verb]}?"
    elif verb in ("told", "informed", "assured") and following in ("me", "us"):
        yield "told", f"What did {x} tell you?"
    elif verb in _SHOWING:
        yield (
            "what_shows",
            f"What {'did' if past else 'do' if subject.plural else 'does'} {x} {_SHOWING[verb]}?",
        )
    elif person and verb in _MODALS and following not in ("have", "be"):
        yield "what_will", f"What {verb} {x} do?"
    elif person and verb not in _NO_DEEDS and (verb in PAST or (verb.endswith("ed") and verb not in FEELING)):
        yield "what_did", f"What did {x} do?"
