"""Questions to the clause: what a sentence says of its subject, asked back with who, what, where, why or how.

Each rule takes a sentence and its noun phrases and gives (frame, question) pairs that the sentence answers.
"""

import re

from persona.phrases import BE, Phrase, tokens
from persona.predicates import Asked, predicate_questions
from persona.question_words import (
    AUXILIARIES,
    DEGREES,
    NO_PLACE,
    PARTICIPLES,
    PAST,
    PLACE,
    PREPOSITIONS,
    STRUCK,
)
from persona.viewpoint import joined, turned
from persona.word_classes import NUMBERS, adjectives, nouns

_OPENER = re.compile(
    r"^(?:(?:Well|Now|Ah|Oh|Yes|No|Exactly|Precisely|Quite so|Indeed|Of course|Then|You see|You know|Surely"
    r"|My dear \w+|Certainly|Undoubtedly|However|Meanwhile|Come|Why|In fact|Besides|Pray|Tut|Excellent"
    r"|Above all|I think"
    r"|On the contrary|At present|So far|Fortunately|Unfortunately|As a rule"
    r"|My (?:dear|good) \w+(?: \w+)?|(?:Mr|Mrs|Miss|Dr)\. \w+"
    r"|(?!(?:Perhaps|Therefore|Hence|Thus|Meanwhile|Again|Then|Also|Otherwise|Afterwards|Still|Next|Presently"
    r"|Once|\w+ly)\b)[A-Z][a-z]+(?= ?, (?:I|you|we|there|my|our)\b)"
    r"), (?:then, )?)+"
)
_SEE = {
    "find": "find about", "found": "find about", "saw": "see of", "observed": "observe about",
    "noticed": "notice about", "heard": "hear of", "learned": "learn of", "learnt": "learn of",
    "discovered": "discover about", "examined": "find out about", "perceived": "perceive about",
}  # fmt: skip


_SEEN = r"(?:see|perceive|observe|understand|know|notice|perceived|observed|knew|presume|fancy)"


def lead(sentence: str) -> str:
    """The sentence without "Well," and its like before it."""
    rest = _OPENER.sub("", sentence)
    return rest[:1].upper() + rest[1:]


def clause_questions(sentence: str, found: list[Phrase]) -> Asked:
    """All questions that the rules of this module find for a sentence, the surest first."""
    words = tokens(sentence)
    yield from _conditions(sentence)
    yield from _as_to(words, found)
    yield from _there(words, found)
    yield from _it_is(words)
    yield from _why(sentence, found)
    if found and found[0].start == 0:
        yield from predicate_questions(words, found[0])
    yield from _you_will(words, found)
    yield from about_the_asker(words)


def _conditions(sentence: str) -> Asked:
    """If and when: the condition is the question, what follows the answer."""
    m = re.match(r"(If|When|Before|After|As soon as|While|Unless|Until) ([^,;:.!?]{8,90}), (.+)", sentence)
    if not m or not 4 <= len(m[2].split()) <= 15 or len(m[3].split()) < 3:
        return
    if re.search(
        r"\b(?:he|she|it|they|him|her|them|his|its|their|this|that|so|not|there|these|those|one"
        r"|ever|two|like|please|will)\b",
        m[2],
        re.I,
    ):
        return
    clause, word = turned(m[2]), m[1].lower()
    if clause is None:
        return
    main = m[3].split()[0].lower()
    if main in PREPOSITIONS or main in ("and", "or", "but", "which", "who", "that"):
        return
    if word in ("if", "unless"):
        if word == "if":
            yield (
                "if_suppose",
                f"But suppose that {clause}?" if " were " not in clause else f"And if {clause}?",
            )
            yield "if_then", f"And if {clause}, what then?"
        if main in ("you", "we", "let", "come", "go", "take", "keep") and not re.search(
            r"\b(?:had|would|were)\b", clause
        ):
            yield "if_do", f"What is to be done {word} {clause}?"
    elif re.search(r"\b(?:was|were|had|\w+ed|" + "|".join(PAST) + r")\b", m[2]) and not re.search(
        r"\b(?:have|has|are|is|am)\b", m[2]
    ):
        yield (
            "when_past",
            f"What did you do {word} {clause}?"
            if main == "i" and "I" not in clause.split()
            else f"What happened {word} {clause}?",
        )
    elif word in ("when", "while", "as soon as"):
        yield "when_now", f"And {word} {clause}, what then?"


def _as_to(words: list[str], found: list[Phrase]) -> Asked:
    """As to your practice, ...: "And as to my practice?"."""
    low = [w.lower() for w in words[:3]]
    start = (
        2
        if low[:2] in (["as", "to"], ["as", "for"], ["as", "regards"])
        else 3
        if low == ["with", "regard", "to"]
        else 0
    )
    phrase = next((p for p in found if start and p.start == start), None)
    if phrase and phrase.end < len(words) and words[phrase.end] == ",":
        yield "as_to", f"And as to {phrase.text}?"
        yield "as_to_what", f"And what do you say as to {phrase.text}?"


def _there(words: list[str], found: list[Phrase]) -> Asked:
    """There is: what is there, and how many."""
    if len(words) < 5 or words[0] != "There" or words[1].lower() not in BE:
        return
    if re.search(r"\b(?:no|nothing|never|not|neither)\b", " ".join(words[2:5]).lower()):
        negative = True
    else:
        negative = False
    past = words[1].lower() in ("was", "were")
    if (
        words[2].lower() in NUMBERS
        and words[3].lower() in nouns()
        and words[3].endswith("s")
        and words[4].lower() != "of"
    ):
        yield "how_many", f"How many {words[3].lower()} {'were' if past else 'are'} there?"
    for phrase in found:
        before = words[phrase.start - 1].lower()
        after = words[phrase.end] if phrase.end < len(words) else "."
        if (
            before in PLACE - {"in", "at"}
            and after in ".,;!"
            and phrase.start > 3
            and phrase.score > 0
            and phrase.kind == "thing"
            and phrase.head not in NO_PLACE
        ):
            if negative:
                yield "there_anything", f"{'Was' if past else 'Is'} there anything {before} {phrase.text}?"
            else:
                yield "there_what", f"What {'was' if past else 'is'} there {before} {phrase.text}?"
            return


def _it_is(words: list[str]) -> Asked:
    """It is probable that, it is a mistake to."""
    if len(words) < 7 or words[0] not in ("It", "it") or words[1] not in ("is", "was", "seems", "seemed"):
        return
    i = 3 if words[2].lower() in DEGREES else 2
    adjective = words[i].lower()
    if i + 1 < len(words) and words[i + 1] in ("that", "to", "how", "for", "whether", "why", "what"):
        past = words[1] in ("was", "seemed")
        if adjective in STRUCK and adjective != "well":
            yield "struck", f"What {'struck' if past else 'strikes'} you as {adjective}?"
            yield "struck_call", f"What {'did' if past else 'do'} you find {adjective}?"
    if words[i].lower() in ("a", "an"):
        j = i + 1
        while (
            j < len(words) and j < i + 4 and (words[j].lower() in adjectives() or words[j].lower() in nouns())
        ):
            j += 1
        noun = words[j - 1].lower()
        if (
            j > i + 1
            and noun in nouns()
            and j < len(words)
            and words[j] in ("to", "that", "which", "for")
            and noun not in ("man", "time", "pity")
        ):
            yield "what_a", f"What do you call {joined([w.lower() for w in words[i:j]])}?"
            yield "what_would_a", f"What would be {joined([w.lower() for w in words[i:j]])}, in your view?"


def _why(sentence: str, found: list[Phrase]) -> Asked:
    """A main clause with an auxiliary, and "because": why, with the order of a question."""
    m = re.match(r"([^,;:.!?]{6,80}),? because\b", sentence)
    if not m:
        return
    words = tokens(m[1])
    if words[0].lower() in ("i", "you", "we"):
        end = 1
    elif found and found[0].start == 0:
        end = found[0].end
    else:
        return
    rest = words[end:]
    if not rest or rest[0].lower() not in AUXILIARIES:
        return
    if re.search(r"\b(?:he|she|it|they|him|her|them|his|its|their|this|that)\b", " ".join(rest), re.I):
        return
    if (
        rest[0].lower() in ("have", "has", "had")
        and len(rest) > 1
        and not (rest[1].endswith("ed") or rest[1] in PARTICIPLES or rest[1] == "not")
    ):
        return
    clause = turned(" ".join(words if end == 1 else words[end:]))
    if clause is None:
        return
    said = clause.split()
    if end == 1:
        yield "why", f"Why {said[1]} {' '.join([said[0], *said[2:]])}?"
    else:
        yield "why", f"Why {said[0]} {found[0].text} {' '.join(said[1:])}?"


def _you_will(words: list[str], found: list[Phrase]) -> Asked:
    """You will find a key upon the shelf: where shall I find it?"""
    if [w.lower() for w in words[:3]] not in (["you", "will", "find"], ["you", "will", "see"]) or not found:
        return
    after = "".join(words[found[0].end : found[0].end + 1]).lower()
    if found[0].start == 3 and found[0].score > 0 and after in PLACE:
        yield f"where_{words[2].lower()}", f"Where shall I {words[2].lower()} {found[0].text}?"


def about_the_asker(words: list[str]) -> Asked:
    """What I perceive about you, "I see that you have ..." or "You have ..., I see": what do you see?"""
    text = " ".join(words)
    m = re.match(
        rf"I {_SEEN} (?:that )?you (?:are|have|had|were|came) (?!right|in the right|a little)(?:[^ ]+ ){{3}}",
        text,
    )
    if m or re.match(rf"You (?:are|have|had|were|came) .{{12,}}, I {_SEEN} [.,]", text):
        yield "about_me", "What do you perceive about me?"
        yield "read_in_me", "What can you read in me?"
        yield "my_looks", "What do my looks tell you?"
        yield "about_myself", "Can you tell me something about myself?"


def perceived(words: list[str]) -> str | None:
    """The verb and preposition to ask with where the speaker tells what was found: "find about"."""
    low = [w.lower() for w in words[:4]]
    if not low or low[0] != "i":
        return None
    return next((_SEE[w] for w in low[1:3] if w in _SEE), None)
