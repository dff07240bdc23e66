"""Questions and answers by rules: what the persona says in the text, and a question that it answers.

An answer (persona.answers) is one to five whole sentences of one speech, as they stand. A question asks for
what it tells: to its clause (persona.clauses) or about something that it names (persona.question_frames).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from persona import metrics
from persona.answers import MAX_WORDS, Answer, answers
from persona.card import Card, Person
from persona.clauses import about_the_asker, clause_questions, lead, perceived
from persona.corpus import Story
from persona.inversion import inversions
from persona.phrases import TITLE_WORDS, Names, names_of, phrases, tokens
from persona.question_frames import FRAMES, NOT_TOLD, kind_of
from persona.question_words import WEAK_HEADS
from persona.quotes import Quote
from persona.rows import Row, make_row
from persona.sentences import sentences
from persona.strategies import Utterance, utterances
from persona.topics import judged_in, named_in, topic_of
from persona.word_classes import nouns

MAX_ASKED = 30
"""Words of a question of the persona's: a longer one tells rather than asks."""
_NO_DEED = re.compile(
    r"\b(?:shall|will|must|'ll) (?:\w+ly |only |soon |also )?"
    r"(?:come to the|see|be|have|find|know|hear|need|want|say)\b"
)
"""What is to be, but is no deed that anybody plans."""
VARIANTS = 3
"""Questions an answer has at most, each of another frame; --quality keeps the first."""


def questions(answer: Answer, names: Names) -> list[tuple[str, str, bool]]:
    """(frame, question, to the clause) for an answer; those to the clause come first, the surest before."""
    first = lead(answer.sentences[0])
    kind = kind_of(first)
    if kind == "you":
        return [(frame, q, True) for frame, q in about_the_asker(tokens(first))]
    if (
        kind in NOT_TOLD
        or (kind == "want" and " you " in first)
        or (kind == "asks" and len(first.split()) > MAX_ASKED)
    ):
        return []
    asked: list[tuple[str, str, bool]] = []
    if not answer.antecedent and kind != "asks":
        asked += [(frame, q, True) for frame, q in clause_questions(first, phrases(first, names))]
    topic = topic_of(answer, names)
    if topic:
        broad = topic.text.startswith("my ") or topic.head in WEAK_HEADS
        judged = kind != "asks" and not answer.antecedent and judged_in(tokens(first), topic)
        for frame in FRAMES:
            if "plan" in frame.kinds and _NO_DEED.search(first):
                continue
            fits = kind in frame.kinds or (not frame.kinds and kind != "asks" and broad <= frame.of_any)
            if fits or (judged and "judged" in frame.kinds):
                wording = frame.wordings[_pick(answer.text + frame.name, len(frame.wordings))]
                asked.append((frame.name, wording.format(x=topic.text), False))
        seen = perceived(tokens(first))
        if seen and topic.role == "object" and topic.start <= 3:
            asked.append(("perceived", f"What did you {seen} {topic.text}?", True))
    asked = [(f, q, c) for f, q, c in asked if _gives_nothing_away(q, answer.text)]
    if not answer.antecedent and kind != "asks":
        length = len(answer.text.split())
        for frame, question in inversions(first, lambda clause: named_in(clause, names), length):
            asked.append((frame, question, not frame.startswith("told_")))
    return [(f, _sentence_case(q), c) for f, q, c in asked]


def _gives_nothing_away(question: str, answer: str) -> bool:
    """Whether the question leaves something to tell: at most 70% of the answer's words are in it."""
    said = set(metrics.words(answer))
    return len(said & set(metrics.words(question))) <= 0.7 * len(said)


def _sentence_case(question: str) -> str:
    return question[:1].upper() + question[1:]


def _pick(text: str, n: int) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) % n


def qa_rows(story: Story, card: Card, quotes: list[Quote]) -> list[Row]:
    """Questions and answers from the persona's kept speech, up to VARIANTS questions an answer.

    `form` says how sure the question is (`form_of`); `variant` 0 is the best. Frames are taken in
    turn: among those that fit, the one least used in the story.
    """
    names = story_names(story, card)
    used: Counter[str] = Counter()
    put: Counter[str] = Counter()
    rows: list[Row] = []
    said = utterances(story.text, quotes)
    for i, utterance in enumerate(said):
        if utterance.speaker != card.persona.name or not utterance.keep:
            continue
        for n, (answer, choices) in enumerate(with_questions(answers(utterance, names), names)):
            if answer.text in put:
                continue
            real = (
                _really_asked(said, i) if n == 0 and answer.utterance.text.startswith(answer.text) else None
            )
            if real and not (answer.whole and real == said[i - 1].text):
                choices.insert(0, ("asked", real, True))
            chosen = choose(choices, used, put, answer.text)
            for variant, (frame, question) in enumerate(chosen):
                messages = [
                    {"role": "system", "content": card.system_prompt},
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer.text},
                ]
                span = [utterance.start, utterance.end]
                meta = {"frame": frame, "form": form_of(frame), "variant": variant}
                rows.append(make_row(messages, "qa", story=story.id, tier="rules", span=span, **meta))
            if chosen:
                put[answer.text] += 1
    return rows


def with_questions(found: list[Answer], names: Names) -> Iterator[tuple[Answer, list[tuple[str, str, bool]]]]:
    """The answers of a speech and their questions.

    One that nothing asks for, because it says no more than yes, takes the next one along if none asks for
    that either.
    """
    asked = [questions(answer, names) for answer in found]
    skip = False
    for i, (answer, choices) in enumerate(zip(found, asked, strict=True)):
        if skip:
            skip = False
            continue
        following = found[i + 1] if i + 1 < len(found) else None
        if not choices and following and not asked[i + 1] and _adjoin(answer, following):
            both = replace(answer, sentences=answer.sentences + following.sentences)
            if choices := questions(both, names):
                answer, skip = both, True
        yield answer, choices


def _adjoin(answer: Answer, following: Answer) -> bool:
    """Whether two answers stand side by side in the speech, and the second one goes on with the first."""
    text = f"{answer.text} {following.text}"
    turns = kind_of(lead(following.sentences[0])) in (*NOT_TOLD, "asks")
    return text in answer.utterance.text and len(text.split()) <= MAX_WORDS and not turns


def story_names(story: Story, card: Card) -> Names:
    """The names of a story; nobody asks about the persona, nor about the narrator, who asks."""
    silent = _name_parts(person for person in (card.persona, card.narrator) if person)
    return names_of(story.text, silent, _name_parts(card.people) - silent)


def _name_parts(people: Iterable[Person]) -> frozenset[str]:
    """The words of names and aliases, without titles."""
    words = {w for p in people for name in (p.name, *p.aliases) for w in name.split()}
    return frozenset(words - TITLE_WORDS)


def choose(
    choices: list[tuple[str, str, bool]],
    used: Counter[str],
    put: Counter[str],
    key: str,
    most: int = VARIANTS,
) -> list[tuple[str, str]]:
    """Up to `most` questions of different frames; works `used` and `put` on."""
    chosen: list[tuple[str, str]] = []
    ranked = sorted(
        (
            (not to_clause, used[frame], _pick(key + frame, 1000), frame, question)
            for frame, question, to_clause in choices
        )
    )
    for *_, frame, question in ranked:
        if len(chosen) == most:
            break
        if put[question] or frame in {f for f, _ in chosen}:
            continue
        chosen.append((frame, question))
        put[question] += 1
        used[frame] += 1
    return chosen


def _really_asked(said: list[Utterance], i: int) -> str | None:
    """The question that somebody else asks right before, if it says what it asks about."""
    if (
        not i
        or said[i - 1].speaker == said[i].speaker
        or said[i].first_paragraph - said[i - 1].last_paragraph > 1
    ):
        return None
    last = sentences(said[i - 1].text)[-1]
    if (
        re.search(r"\b(?:these|those|he|she|him|her|they|them|so|then|there|one)\b", last, re.I)
        or not {w.lower() for w in tokens(last)} & nouns().keys()
    ):
        return None
    if not last.endswith("?") or not 4 <= len(last.split()) <= 25 or '"' in last:
        return None
    return last if re.match(r"(?:What|Who|Where|When|Why|How|Which)\b", last) else None


def form_of(frame: str) -> str:
    """How a question was made: asked (in the text), topic (about what the answer tells of), clause."""
    if frame == "asked":
        return "asked"
    return "topic" if frame in {f.name for f in FRAMES} else "clause"
