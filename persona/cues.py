"""Cues of the narration beside a quote.

Speech tags in both orders, announcements, and the words of written matter.
Functions of one piece of normalised narration (`mentions.squeeze`) each; who is meant is decided elsewhere.
"""

import re
from typing import NamedTuple

from persona.mentions import DETERMINER, NAME, NOUN
from persona.vocabulary import NOT_NAMES, NOUNS, SPEECH_VERBS, TITLES

VERB = r"(?:" + "|".join(sorted(SPEECH_VERBS, key=len, reverse=True)) + r")"
SPEAKING = (
    r"(?:saying|remarking|whispering|adding|murmuring|exclaiming|crying|asking|calling|muttering|shouting"
    r"|answering|addressed|addressing|ejaculating|observing|replying|declaring|repeating)"
)
SENTENCE = re.compile(r"(?<=[a-z0-9)\]'][.!?]) +(?=[A-Z])")
"""Between two sentences.

The lower-case letter before the mark keeps "Mr." and "Dr." of one piece with their names.
"""

_PRONOUN = r"(?:I|he|she|they|we|one|it)"
_PARTICLE = r"(?:(?:out|in|up|on|off|forth|back|again|at last|at length|aloud|\w+ly) )?"
_ADVERB = r"(?:,[^,.;]{1,60},)? (?:(?:had|has|only|then|again|at last|also|\w+ly|once more) )*"
_STOP = (
    r"(?:with|in|as|and|to|from|at|on|who|when|while|which|after|upon|for|but|by|over|behind|then|through"
    r"|\w+ing|\w+ly)"
)
_PREPOSITION = re.compile(
    r"(?:\b(?:to|at|of|with|upon|by|from|for|towards?|in|into|on|like|than|behind|beside|over|against|between"
    r"|through|around|about|past|near)|\w's)\s+$",
    re.I,
)
_SUBJECT = re.compile(
    rf"(?P<pronoun>\b(?:I|[Hh]e|[Ss]he)\b)"
    rf"|(?P<description>\b{DETERMINER} (?:[\w'-]+ ){{0,3}}?{NOUN}\b)|(?P<name>\b{NAME})"
)
_VERB_FIRST = re.compile(
    rf"{VERB} {_PARTICLE}"
    rf"(?:(?P<pronoun>{_PRONOUN})\b|(?P<name>{NAME})|(?P<description>{DETERMINER} \w.*))"
)
_IT_WAS = re.compile(
    rf"It was (?:(?P<pronoun>I)|(?P<name>{NAME})|(?P<description>{DETERMINER} [\w' -]{{3,40}}?))"
    rf" (?:who|that) (?:spoke|had spoken|{VERB})\b"
)
_SUBJECT_FIRST = re.compile(
    rf"(?:(?P<pronoun>I|[Hh]e|[Ss]he)|(?P<description>{DETERMINER} (?:[\w'-]+ ){{0,4}}?[\w'-]+)"
    rf"|(?P<name>{NAME}))"
    rf"{_ADVERB}{VERB}\b"
)
_WRITTEN = re.compile(
    r"\b(?:letters?|notes?|telegrams?|read|ran|written|wrote|paper|inscription|message|advertisement"
    r"|paragraph|entry|inscribed|labelled|sheet|document|postcard|scrawled|printed|lines|wire|writing"
    r"|handwriting|cable|despatch|dispatch|label|script|placard|notice|diary|epistle|headlines)\b",
    re.I,
)
_ANNOUNCED = re.compile(r"(?::|\b(?:as follows|ran thus|read thus|in this way)[.:])$")
# Before a title or a word under discussion: the "Gloria Scott", the word "Rache".
_INTRODUCES_WORDS = re.compile(
    r"\b(?:the|an?|of|my|his|her|its|their|our|this|that|these|those|called|named|entitled|words?|name)$",
    re.I,
)
TOLD_TO = re.compile(
    r"\b(?:(?:said|turned|turning|remarked|cried|explained|added|whispered|replied|called|spoke|nodded|round"
    rf"|back) (?:\w+ )?(?:to|upon|on|towards)|asked|addressed|addressing) (me|us|{NAME})\b"
)
"""Whom a speech is addressed to, by the narration: group 1."""


class Tag(NamedTuple):
    """The subject of a verb of speech."""

    kind: str
    """pronoun, name or description"""
    words: str
    strength: float = 1.0
    """1 for a verb of speech, less where only a colon announces the quote."""


def after_tag(after: str, quote: str) -> Tag | None:
    """The tag that follows a quote: "said Holmes", "Holmes said", "It was Holmes who spoke"."""
    text = after.lstrip(" ,-")
    if m := _VERB_FIRST.match(text) or _IT_WAS.match(text):
        return _tag(m)
    # A sentence of its own after a full stop ("Yes." He asked for his hat.) is an action, not a tag.
    goes_on = re.search(r"[,!?:;-]['_]?$", quote) is not None or text[:1].islower()
    m = _SUBJECT_FIRST.match(text) if goes_on else None
    return _tag(m) if m else None


def _tag(match: re.Match[str]) -> Tag:
    if match["pronoun"]:
        return Tag("pronoun", match["pronoun"].lower())
    if match["name"]:
        return Tag("name", match["name"])
    return Tag("description", noun_phrase(match["description"]))


def noun_phrase(words: str) -> str:
    """The noun phrase at the start of `words`: "the old man" of "the old man, rising"."""
    phrase = re.split(rf"[,.;:!?]|--|(?<= \w) {_STOP}\b|(?<=\w\w\w\w) {_STOP}\b", words)[0].split()[:6]
    nouns = [i for i, w in enumerate(phrase) if w.lower() in NOUNS]
    if nouns:
        last = nouns[-1] if nouns[-1] > 1 or len(nouns) == 1 else nouns[0]
        phrase = phrase[: last + 1]
    return " ".join(phrase)


def before_tag(before: str) -> Tag | None:
    """The tag that announces a quote: the last subject before the verb of speech, or before the colon."""
    sentence = SENTENCE.split(before)[-1]
    if not sentence.endswith((":", ",", "-")):
        return None
    verbs = list(re.finditer(rf"\b(?:{VERB}|{SPEAKING})\b", sentence))
    if not verbs and not sentence.endswith(":"):
        return None
    limit = verbs[-1].start() if verbs else len(sentence)
    found = None
    for m in _SUBJECT.finditer(sentence[:limit]):
        start, words = m.start(), m.group()
        if m["name"]:
            first, _, rest = words.partition(" ")
            if first in NOT_NAMES and first.lower() not in TITLES:  # "Then Holmes"
                if not rest:
                    continue
                start, words = start + len(first) + 1, rest
        if _PREPOSITION.search(sentence[:start]) or sentence[m.end() : m.end() + 2] == "'s":
            continue
        if re.search(r"\w and $", sentence[:start]) and not m["pronoun"]:
            continue
        kind = "description" if m["description"] else "name"
        if m["pronoun"] or words in ("I", "He", "She"):
            kind, words = "pronoun", words.lower()
        found = Tag(kind, words, 1.0 if verbs else 0.5)
    return found


def announces_writing(narration: str) -> bool:
    """The narration ends by announcing a letter, a telegram, an inscription: "It ran:"."""
    if not _ANNOUNCED.search(narration):
        return False
    clause = re.split(r"[,;]| and ", SENTENCE.split(narration)[-1])[-1]
    spoken = re.search(rf"\b(?:{VERB}|{SPEAKING}|aloud|voice|words)\b", clause.replace(" read", ""))
    return _WRITTEN.search(clause) is not None and spoken is None


def is_read_off(after: str) -> bool:
    """A paper says it, not a person: "Come at once," it said."""
    return (
        re.match(
            r"[ ,-]*(?:it (?:said|ran|read|began|went on)"
            r"|(?:ran|read) (?:it|the (?:note|letter|telegram|message)))\b",
            after,
        )
        is not None
    )


def runs_through(before: str, quote: str, after: str) -> bool:
    """The sentence of the narration runs through the quote.

    A title, a word under discussion, words written.
    """
    if after_tag(after, quote) is not None:
        return False
    if re.search(r"\b(?:wrote|written|inscribed|printed|scrawled|labelled|marked|headed)(?: \w+)?$", before):
        return True
    terminal = re.search(r"[.,!?;:-]['_)]*$", quote) is not None
    goes_on = bool(after) and (after[0].islower() or after[0] in ",;.)")
    spoken = re.search(rf"\b{VERB}\b", " ".join(SENTENCE.split(before)[-1].split()[-4:])) is not None
    if re.search(r"[.!?:,;)-]$", before):  # the quote begins where a sentence or a clause does
        return not terminal and len(quote.split()) <= 4 and not spoken and goes_on
    if _INTRODUCES_WORDS.search(before):
        return True
    sentence = terminal and quote[:1].isupper() and len(quote.split()) > 3
    if spoken or (sentence and not after[:1].islower()):
        return False
    return goes_on or not after or not terminal
