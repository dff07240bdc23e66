"""Questions and answers by rules: what the persona says in the text, and a question that it answers.

An answer (persona.answers) is one to five whole sentences of one speech, as they stand. A question asks for
what it tells: to its clause (persona.clauses) or about something that it names (persona.question_frames).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from persona import metrics
from persona.answers import Answer, answers
from persona.card import Card, Person
from persona.clauses import about_the_asker, clause_questions, lead, perceived
from persona.corpus import Story
from persona.phrases import (
    BE,
    POSSESSIVES,
    TITLE_WORDS,
    Names,
    Phrase,
    adjectives,
    names_of,
    nouns,
    phrases,
    tokens,
)
from persona.question_frames import FRAMES, NOT_TOLD, kind_of
from persona.question_words import AUXILIARIES, EMPTY_HEADS, FUNCTION, PAST, PREPOSITIONS, WEAK_HEADS
from persona.quotes import Quote
from persona.rows import Row, make_row
from persona.sentences import sentences
from persona.strategies import Utterance, utterances

VARIANTS = 3
"""Questions an answer has at most, each of another frame; --quality keeps the first."""
LEAST_SCORE = 0.4
"""A topic that is worth less (persona.phrases) says too little to be asked about."""

MAX_ASKED = 30
"""Words of a question of the persona's: a longer one tells rather than asks."""
NAMED_SCORE = 1.5
"""What is worth so much is a topic after "about", "for" and the like, too."""
ABOUT = ("about", "with", "against", "by", "upon")
SOMEBODY = {"boy", "friend", "gentleman", "gentlemen", "fellow", "companion"}
_POINTS_BACK = {
    "other",
    "others",
    "second",
    "first",
    "third",
    "next",
    "latter",
    "former",
    "same",
    "rest",
    "only",
}
_SPOKEN_OF = re.compile(
    r"\b(?:hear|heard|speak|spoke|spoken|think|thought|know|knew|known|learned|told|sure|certain) of$"
)
_SUBORDINATE = re.compile(
    r"\b(?:when|while|if|who|which|whom|whose|whoever|whatever|where|as|before|after|until|till|because|than|like"
    r"|unless|though|although|since|what|how|\w{3,}ing)\b|--|[;:]",
    re.IGNORECASE,
)
"""After one of these, a phrase belongs to something said by the way."""

_BEFORE_OBJECT = 9
"""A direct object begins after at most so many words."""
_THAT = re.compile(
    r"(?:I (?:\w+ly |do not |don't |should |cannot |can't |can |have )?(?:\w+ |have no doubt |take it )"
    r"|I am (?:\w+ )?(?:sure|certain|convinced|afraid|inclined to think|aware|told) |(?:You|We) (?:\w+ )?\w+ "
    r"|It (?:is|was|seems|appears)(?: \w+){1,3} |There (?:is|can be) (?:no doubt|little doubt) |No doubt "
    r"|Perhaps |Possibly |Apparently |Evidently )(?:that )?$"
)
"""What comes before the subject of what is thought or known: "I fear that", "It is clear that"."""
_OBJECT = re.compile(
    r"(?:I|We|You)(?:'ve|'ll| have| had| shall| will| must| may| can| could| do not| did not| don't| didn't"
    r"| cannot| could not)?(?: \w+ly| already| once| also| never| just| at once| soon| only)?"
    r"(?: (?:want|wish|like|prefer|anxious|intend|propose|mean|have|ought|going|wished|wanted|hope|able) to)?"
    r" (\w+)(?: (?:a|an|no|some|great|every|little|much|the|my|any)(?: \w+){1,2}"
    r" (?:of|about|upon|for|against|with))?"
    r"(?: (?:of|about|upon|into|at|for|with|to|through|over))?$"
)
"""What comes before the object of what the persona does: "I have examined", "I never heard of"."""
_FRONTED = re.compile(r"(?:In|With|From|For|Upon|On|At|To|Of|As to|As for|Between|Among|Under|Behind|Near)$")
_QUESTION_START = re.compile(
    r"(?:What|Who|Whom|Whose|Where|When|Why|How|Which|Is|Are|Was|Were|Do|Does|Did|Has|Have|Had|Should|Must"
    r"|(?:Can|Could|Would) you (?:\w+ )?(?:tell|describe|remember|recall|recognise|recognize|swear|explain"
    r"|give|say)|(?:May|Might) I ask|You (?:have|had|know|knew|did|saw|heard|were|never))\b"
)


def topic_of(answer: Answer, names: Names) -> Phrase | None:
    """What an answer tells of.

    It is the subject of its first sentence or of what is thought there, what stands before the subject
    ("In the garden ..."), or what the persona did something with. A question is about what it names best.
    """
    if answer.antecedent:
        return Phrase(answer.antecedent, 0, 1, answer.antecedent.split()[-1], "person", 9.0, "subject")
    first = lead(answer.sentences[0])
    words = tokens(first)
    found = _nameable(words, first, names)
    if kind_of(first) != "asks":
        return next((p for p in found if _told_of(words, p)), None)
    asked = [p for p in found if _asked_about(words, p)] if _QUESTION_START.match(first) else []
    return min(asked, key=lambda p: (p.role == "aside", -p.score), default=None)


def _nameable(words: list[str], sentence: str, names: Names) -> list[Phrase]:
    """The phrases that whoever asks can name: neither "this house" nor half of "the doctor and I"."""
    found = phrases(sentence, names)
    if not found or found[0].start:
        found = [*_long_subject(words), *found]
    return [
        p
        for p in found
        if not re.match(r"(?:this|that|these|those)\b", p.text)
        and words[p.start].lower() not in ("a", "an")
        and "".join(words[p.end : p.end + 1]).lower() not in ("and", "or", "'")
        and (p.start == 0 or words[p.start - 1].lower() not in ("and", "or"))
        and (p.score >= LEAST_SCORE or (p.start == 0 and p.head in WEAK_HEADS | SOMEBODY))
    ]


def _long_subject(words: list[str]) -> Iterator[Phrase]:
    """Everything before the first auxiliary: "the writing on the old wall" was ..."""
    end = next((i for i, w in enumerate(words) if w.lower() in AUXILIARIES), 0)
    inner = [w.lower() for w in words[1:end]]
    if words[0] not in ("The", "My", "Your", "Our") or not 1 <= len(inner) <= 8:
        return
    if words[0] != "The" and words[1][0].isupper():
        return  # your Grace
    linked = {"of", "in", "on", "the", "my", "your", "our"}
    if any((w in FUNCTION and w not in linked) or w in PAST for w in inner):
        return
    if not all(w.isalpha() or "-" in w or "'" in w for w in inner) or inner[0] in _POINTS_BACK:
        return
    head = next((inner[i - 1] for i, w in enumerate(inner) if i and w in ("of", "in", "on")), inner[-1])
    if (head in nouns() or head.endswith("ing")) and head not in EMPTY_HEADS:
        text = " ".join([POSSESSIVES.get(words[0].lower(), words[0].lower()), *words[1:end]])
        if " my " not in text and " your " not in text:
            yield Phrase(text, 0, end, head, "thing", 1.0, "subject")


def _asked_about(words: list[str], phrase: Phrase) -> bool:
    before = "".join(words[phrase.start - 1 : phrase.start]).lower()
    if phrase.kind == "name" and before in ("in", "at", "to", "from", "through"):
        return False
    return phrase.text[0].isupper() or words[phrase.start].lower() in ("the", "my", "your", "our")


def _told_of(words: list[str], phrase: Phrase) -> bool:
    before = " ".join(words[: phrase.start])
    after = "".join(words[phrase.end : phrase.end + 1])
    if phrase.start == 0:
        vague = phrase.head in WEAK_HEADS and after.lower() in ("who", "whom", "which", "that", "about")
        return after != "," and not vague
    if _FRONTED.match(before):
        return after == "," and words[phrase.end + 1 : phrase.end + 2] != ["I"]
    if _THAT.match(before) and after.lower() in AUXILIARIES | PAST.keys():
        return True
    if (m := _OBJECT.match(before)) and phrase.start <= _BEFORE_OBJECT:
        return m[1].lower() not in PREPOSITIONS | AUXILIARIES
    if phrase.kind == "person" and phrase.text[0].isupper():
        return not re.search(r"\b(?:while|when|as|of|for|since|to)\b|--", before)
    narrowed = after.lower() in ("that", "which", "who", "whom", "whose", "for", "of")
    if narrowed or _SUBORDINATE.search(before) or not _asked_about(words, phrase):
        return False
    if phrase.role == "object":
        return True
    said_of = words[phrase.start - 1].lower() in ABOUT or _SPOKEN_OF.search(before) is not None
    return said_of and phrase.score >= NAMED_SCORE


def _judged(words: list[str], topic: Phrase) -> bool:
    """Whether the sentence says what the topic is like: it has "is" or "seems" and an adjective or noun."""
    verb, *rest = [w.lower() for w in words[topic.end : topic.end + 4]] or [""]
    if verb not in (*BE, "seems", "seemed", "appears", "appeared") or topic.role == "aside":
        return False
    return any(w in adjectives() or w in ("a", "an") for w in rest)


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
        judged = kind != "asks" and not answer.antecedent and _judged(tokens(first), topic)
        for frame in FRAMES:
            fits = kind in frame.kinds or (not frame.kinds and kind != "asks" and broad <= frame.of_any)
            if fits or (judged and "judged" in frame.kinds):
                wording = frame.wordings[_pick(answer.text + frame.name, len(frame.wordings))]
                asked.append((frame.name, wording.format(x=topic.text), False))
        seen = perceived(tokens(first))
        if seen and topic.role == "object" and topic.start <= 3:
            asked.append(("perceived", f"What did you {seen} {topic.text}?", True))
    return [(f, _sentence_case(q), c) for f, q, c in asked if _gives_nothing_away(q, answer.text)]


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
    silent = _name_parts(person for person in (card.persona, card.narrator) if person)
    names = names_of(story.text, silent, _name_parts(card.people) - silent)
    used: Counter[str] = Counter()
    put: Counter[str] = Counter()
    rows: list[Row] = []
    said = utterances(story.text, quotes)
    for i, utterance in enumerate(said):
        if utterance.speaker != card.persona.name or not utterance.keep:
            continue
        for n, answer in enumerate(answers(utterance, names)):
            if answer.text in put:
                continue
            choices = questions(answer, names)
            real = (
                _really_asked(said, i) if n == 0 and answer.utterance.text.startswith(answer.text) else None
            )
            if real and not (answer.whole and real == said[i - 1].text):
                choices.insert(0, ("asked", real, True))
            chosen = _choose(choices, used, put, answer.text)
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


def _name_parts(people: Iterable[Person]) -> frozenset[str]:
    """The words of names and aliases, without titles."""
    words = {w for p in people for name in (p.name, *p.aliases) for w in name.split()}
    return frozenset(words - TITLE_WORDS)


def _choose(
    choices: list[tuple[str, str, bool]], used: Counter[str], put: Counter[str], key: str
) -> list[tuple[str, str]]:
    """Up to VARIANTS questions of different frames; works `used` and `put` on."""
    chosen: list[tuple[str, str]] = []
    ranked = sorted(
        (
            (not to_clause, used[frame], _pick(key + frame, 1000), frame, question)
            for frame, question, to_clause in choices
        )
    )
    for *_, frame, question in ranked:
        if len(chosen) == VARIANTS:
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
