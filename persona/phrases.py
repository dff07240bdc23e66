"""Noun phrases: what a question can be about.

Rules and word lists, no model. A phrase is only found where both its ends are sure.
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass, replace

import config
from persona.question_words import (
    DETERMINERS,
    EMPTY_HEADS,
    FUNCTION,
    IDLE,
    PAST,
    PREPOSITIONS,
    UNRESOLVED,
    WEAK_HEADS,
)
from persona.vocabulary import NOT_NAMES, NOUNS, TITLES

LEXICON = config.ROOT / "data" / "lexicon"

TOKEN = re.compile(r"(?:Mr|Mrs|Dr|St|Messrs|Mme)\.|[^\W_]+(?:['’-][^\W_]+)*|--|[^\w\s]|_")

TITLE_WORDS = frozenset(t.capitalize() for t in TITLES) | {"Mr.", "Mrs.", "Dr.", "Messrs.", "Mme."}
POSSESSIVES = {"my": "your", "your": "my", "our": "our"}
OATHS = frozenset(["Jove", "Heaven", "Heavens", "God", "Lord", "George", "Majesty", "Grace", "Highness"])
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")
BE = ("is", "was", "are", "were")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase as it stands in a question ("your revolver" where the text has "my revolver")."""

    text: str
    start: int
    end: int
    """Token indices in its sentence, `end` exclusive."""
    head: str
    kind: str
    """person, name (of whom or what is not known) or thing."""
    score: float
    """How good a subject of a question it is; below 0 it is none."""
    role: str = "object"
    """subject (the sentence begins with it), aside (after "in", "to" and the like) or object."""

    @property
    def plural(self) -> bool:
        """Whether verbs after it are plural."""
        own = re.split(r" of ", self.text)[0]
        if " and " in own:
            return True
        return self.head.islower() and self.head.endswith("s") and not self.head.endswith(("ss", "us", "is"))


@functools.cache
def nouns() -> dict[str, int]:
    """Nouns and their rank, 0 the commonest."""
    return {word: rank for rank, word in enumerate(_listed("nouns.txt"))}


@functools.cache
def adjectives() -> frozenset[str]:
    """Adjectives."""
    return frozenset(_listed("adjectives.txt"))


def _listed(name: str) -> list[str]:
    lines = (LEXICON / name).read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#")]


def tokens(sentence: str) -> list[str]:
    """Words and marks."""
    return TOKEN.findall(sentence.replace("’", "'"))


@dataclass(frozen=True)
class Names:
    """Names of a story: who is a person, and what is a name at all."""

    persons: frozenset[str]
    names: frozenset[str]
    silent: frozenset[str]
    """Nobody asks about these: the persona, and the one who asks."""


def names_of(text: str, silent: frozenset[str], persons: frozenset[str]) -> Names:
    """Names that a story's text shows: a title before them, or a capital in the middle of a sentence."""
    titled = re.findall(rf"\b(?:{'|'.join(sorted(TITLE_WORDS - {'M'}))})\.? ((?:[A-Z]\w+ )?[A-Z]\w+)", text)
    inner = Counter(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]\w+", text))
    lower = Counter(re.findall(r"\b[a-z]\w+", text))
    known = frozenset(
        w
        for w, n in inner.items()
        if w not in NOT_NAMES
        and w not in TITLE_WORDS
        and lower[w.lower()] <= n
        and w not in OATHS
        and w.lower() not in FUNCTION
    )
    surnames = {
        part
        for name in titled
        for part in name.split()
        if part not in NOT_NAMES and part not in TITLE_WORDS and not lower[part.lower()]
    }
    return Names(frozenset(surnames) | persons, known | surnames | persons, silent)


def phrases(sentence: str, names: Names) -> list[Phrase]:
    """The noun phrases of a sentence whose both ends are sure, in order, without overlaps."""
    words = tokens(sentence)
    found, i = [], 0
    while i < len(words):
        phrase = _phrase_at(words, i, names, depth=0) or _bare(words, i)
        if phrase:
            before = words[i - 1].lower() if i else ""
            by_the_way = before in PREPOSITIONS - {"about"} or words[i].lower() in ("a", "an")
            role = "aside" if by_the_way else "subject" if i == 0 else "object"
            found.append(replace(phrase, role=role))
            i = phrase.end
        else:
            i += 1
    return found


_BARE_AFTER = (PREPOSITIONS - {"to"}) | frozenset(
    ["some", "any", "many", "several", "such", "no", "more", "and", "other"]
)


def _bare(words: list[str], i: int) -> Phrase | None:
    """A noun without a determiner, in the plural or after a preposition: "strangers", "of tobacco"."""
    before = words[i - 1].lower() if i else ""
    if before not in _BARE_AFTER or not words[i][0].islower():
        return None
    j = i
    while j < len(words) and j < i + 3 and not _boundary(words, j) and words[j][0].islower():
        if not (_modifies(words[j]) or _is_noun(words[j])):
            return None
        j += 1
    if j == i or not _boundary(words, j) or (j < len(words) and words[j] == "of"):
        return None
    head = words[j - 1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is"))
    if not _is_noun(head) or head in IDLE or head.endswith(("'s", "s'")):
        return None
    if not plural and (before not in PREPOSITIONS or nouns().get(head, 9999) < 500):
        return None
    if any(w in NUMBERS or w in ("last", "own", "same") for w in words[i:j]):
        return None
    kind = "person" if head in NOUNS or head.removesuffix("s") in NOUNS else "thing"
    return Phrase(" ".join(words[i:j]), i, j, head, kind, _worth(head, words[i:j]) - 0.7)


def _is_noun(word: str) -> bool:
    low = word.lower()
    return low in nouns() or bool(re.search(r"(?:tion|ment|ness|ship|ology|graph|ist)s?$", low))


def _modifies(word: str) -> bool:
    low = word.lower()
    if low in FUNCTION:
        return False
    return (
        low in adjectives()
        or low in nouns()
        or bool(re.search(r"(?:ous|ful|less|able|ible|ical|ish|ive|ary|ant|ent|'s|s')$", low))
        or low in NUMBERS
    )


def _boundary(words: list[str], i: int) -> bool:
    """Whether no noun phrase can go on at token i."""
    if i >= len(words):
        return True
    low = words[i].lower()
    if not low[0].isalpha():
        return low != "'" and low != "-"
    return low in FUNCTION or (low.endswith("ly") and low not in adjectives() and low not in nouns())


def _verb_like(words: list[str], i: int) -> bool:
    low = words[i].lower()
    return low in PAST or (low.endswith("ed") and low not in adjectives() and low not in nouns())


def _name_end(words: list[str], i: int, names: Names) -> int:
    """End of the name that begins at token i; i where none does."""
    j = i
    while j < len(words) and words[j] in TITLE_WORDS:
        j += 1
    while j < len(words) and (
        words[j].removesuffix("'s") in names.names or (j > i and re.fullmatch(r"[A-Z]", words[j]))
    ):
        j += 1
        if words[j - 1].endswith("'s"):
            break
    return j if any(w.removesuffix("'s") in names.names for w in words[i:j]) else i


def _phrase_at(words: list[str], i: int, names: Names, depth: int) -> Phrase | None:
    """The phrase that begins at token i, with what "of" hangs on it."""
    low = words[i].lower()
    end = _name_end(words, i, names)
    if end > i and not words[end - 1].endswith("'s"):
        return _name(words, i, end, names, depth)
    owner = end > i
    if not owner and low not in DETERMINERS:
        return None
    j = end if owner else i + 1
    limit = j + 4
    while j < len(words) and j < limit and not _boundary(words, j):
        if words[j][0].isupper() or _modifies(words[j]) or _is_noun(words[j]):
            j += 1
        else:
            break
    first = end if owner else i + 1
    if j == first or not (_boundary(words, j) or (j < len(words) and _verb_like(words, j))):
        return None
    head = words[j - 1]
    if not (_is_noun(head) or head in names.names) or head.endswith(("'s", "s'")):
        return None
    if (low in POSSESSIVES and head[0].isupper()) or (not owner and TITLE_WORDS & set(words[first + 1 : j])):
        return None  # your Grace; the meantime Mr. Mossop
    if (
        j - first > 1
        and head.endswith("s")
        and words[j - 2].lower() in nouns()
        and _boundary(words, j)
        and j < len(words)
        and words[j].lower() in ("in", "when", "upon", "if")
    ):
        return None  # "my duty ends when": the last word may be the verb
    if low in ("this", "that", "these", "those") and head.endswith("s") != low.endswith("se"):
        return None
    if (
        any(w.lower().endswith("est") and w.lower() not in nouns() for w in words[first:j])
        or "greater" in words[first:j]
    ):
        return None
    if low == "that" and i and words[i - 1].lower() not in PREPOSITIONS:
        return None
    if (
        j + 1 < len(words)
        and words[j].lower() in ("and", "or")
        and (_is_noun(words[j + 1]) or _modifies(words[j + 1]))
    ):
        return None
    if any(
        w.lower() in ("same", "other", "next", "last", "first", "few", "many", "own", "only", "very")
        for w in words[first:j]
    ):
        return None
    text = " ".join(words[i:j])
    if owner:
        if words[i].removesuffix("'s") in names.silent or words[end - 1].removesuffix("'s") in names.silent:
            return None
    elif low in POSSESSIVES:
        text = " ".join([POSSESSIVES[low], *words[i + 1 : j]])
    else:
        text = " ".join(["the" if low in ("a", "an") else low, *words[i + 1 : j]])
    score = _worth(head, words[first:j])
    score -= 1.0 if low in ("a", "an") else 0.0
    if j < len(words) and words[j].lower() == "of":
        if depth:
            return None
        inner = _phrase_at(words, j + 1, names, 1) if j + 1 < len(words) else None
        if inner is None:
            return None
        kept = head.lower() not in EMPTY_HEADS
        return Phrase(
            f"{text} of {inner.text}",
            i,
            inner.end,
            head.lower(),
            "thing",
            (score + 1.0) if kept else min(score, 0.0) - 1.0,
        )
    if j < len(words) and words[j].lower() in ("which", "who", "whom", "that", "whose"):
        score -= 0.5
    kind = "person" if head.lower() in NOUNS or head.lower().removesuffix("s") in NOUNS else "thing"
    if head in names.names:
        kind = "name"
    return Phrase(text, i, j, head.lower(), kind, score)


def _name(words: list[str], i: int, end: int, names: Names, depth: int) -> Phrase | None:
    """A name as a phrase; whoever is addressed is none."""
    bare = [w for w in words[i:end] if w not in TITLE_WORDS]
    after = words[end] if end < len(words) else "."
    before = words[i - 1] if i else "."
    addressed = (
        before in ("dear", "good", "friend")
        or (before in (",", ".", "!") and after in (",", ".", "!", "?", ";", "--"))
        or (not before[0].isalnum() and after in ",!?")
    )
    if any(w in names.silent for w in bare) or (addressed and not depth) or after == "'":
        return None
    if (
        after not in ("'s",)
        and end < len(words)
        and words[end][0].isupper()
        and words[end].lower() not in FUNCTION
    ):
        return None
    if i and words[i - 1][0].isupper() and words[i - 1].lower() not in FUNCTION:
        return None
    if before.lower() in DETERMINERS | UNRESOLVED or before in "-'":
        return None
    if (
        end < len(words)
        and after.islower()
        and (_is_noun(after) or _modifies(after))
        and not _verb_like(words, end)
    ):
        return None  # "Spanish jewellery": no name of its own
    if not bare or len(bare[-1]) == 1:
        return None  # cut off at an initial
    titled = words[i] in TITLE_WORDS
    kind = "person" if titled or any(w in names.persons for w in bare) else "name"
    return Phrase(" ".join(words[i:end]), i, end, bare[-1], kind, 3.0 if kind == "person" else 2.0)


def _worth(head: str, inner: list[str]) -> float:
    """Rare nouns are concrete and tell more; common ones nothing."""
    low = head.lower()
    if low in EMPTY_HEADS:
        return -2.0
    if low in WEAK_HEADS:
        return 0.6 if len(inner) > 1 else 0.2
    rank = nouns().get(low, 2500)
    return (0.5 if rank < 300 else 1.5 if rank < 1200 else 2.0) + 0.4 * (len(inner) > 1)
