"""Noun phrases: what a question can be about.

Rules and word lists, no model. A phrase is only found where both its ends are sure.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace

from persona.question_words import (
    DETERMINERS,
    EMPTY_HEADS,
    FUNCTION,
    IDLE,
    PREPOSITIONS,
    UNRESOLVED,
    WEAK_HEADS,
)
from persona.vocabulary import NOT_NAMES, NOUNS, TITLES
from persona.word_classes import NUMBERS, ends_phrase, is_noun, modifies, nouns, verb_like

TOKEN = re.compile(r"(?:Mr|Mrs|Dr|St|Messrs|Mme)\.|[^\W_]+(?:['’-][^\W_]+)*|--|[^\w\s]|_")

TITLE_WORDS = frozenset(t.capitalize() for t in TITLES) | {"Mr.", "Mrs.", "Dr.", "Messrs.", "Mme."}
POSSESSIVES = {"my": "your", "your": "my", "our": "our"}
OATHS = frozenset(["Jove", "Heaven", "Heavens", "God", "Lord", "George", "Majesty", "Grace", "Highness"])
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
    while j < len(words) and j < i + 3 and not ends_phrase(words, j) and words[j][0].islower():
        if not (modifies(words[j]) or is_noun(words[j])):
            return None
        j += 1
    if j == i or not ends_phrase(words, j) or (j < len(words) and words[j] == "of"):
        return None
    head = words[j - 1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is"))
    if not is_noun(head) or head in IDLE or head.endswith(("'s", "s'")):
        return None
    if not plural and (before not in PREPOSITIONS or nouns().get(head, 9999) < 500):
        return None
    if any(w in NUMBERS or w in ("last", "own", "same") for w in words[i:j]):
        return None
    kind = "person" if head in NOUNS or head.removesuffix("s") in NOUNS else "thing"
    return Phrase(" ".join(words[i:j]), i, j, head, kind, _worth(head, words[i:j]) - 0.7)


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
    owner_end = _name_end(words, i, names)
    if owner_end > i and not words[owner_end - 1].endswith("'s"):
        return _name(words, i, owner_end, names, depth)
    owned = owner_end > i
    if not owned and words[i].lower() not in DETERMINERS:
        return None
    first = owner_end if owned else i + 1
    end = _group_end(words, first)
    if end == first:
        return None
    head, group = words[end - 1], words[first:end]
    if not (is_noun(head) or head in names.names) or head.endswith(("'s", "s'")):
        return None
    if owned and names.silent & {words[i].removesuffix("'s"), words[owner_end - 1].removesuffix("'s")}:
        return None
    if not owned and _determiner_misleads(words, i, group):
        return None
    if _picks_out(group) or _goes_on(words, first, end):
        return None
    text = " ".join(words[i:end]) if owned else _turned_determiner(words[i], group)
    score = _worth(head, group) - (1.0 if words[i].lower() in ("a", "an") else 0.0)
    after = words[end].lower() if end < len(words) else ""
    if after == "of":
        core = Phrase(text, i, end, head.lower(), "thing", score)
        return None if depth else _with_of(words, core, names)
    if after in ("which", "who", "whom", "that", "whose"):
        score -= 0.5
    kind = "person" if head.lower() in NOUNS or head.lower().removesuffix("s") in NOUNS else "thing"
    return Phrase(text, i, end, head.lower(), "name" if head in names.names else kind, score)


def _group_end(words: list[str], first: int) -> int:
    """End of the noun and of what stands before it, from token `first`; `first` where it is not sure."""
    j = first
    while j < len(words) and j < first + 4 and not ends_phrase(words, j):
        if not (words[j][0].isupper() or modifies(words[j]) or is_noun(words[j])):
            break
        j += 1
    return j if ends_phrase(words, j) or verb_like(words[j]) else first


def _determiner_misleads(words: list[str], i: int, group: list[str]) -> bool:
    """Whether the word at token i does not belong to the words after it as their determiner."""
    low, head = words[i].lower(), group[-1]
    if (low in POSSESSIVES and head[0].isupper()) or TITLE_WORDS & set(group[1:]):
        return True  # your Grace; the meantime Mr. Mossop
    if low in ("this", "that", "these", "those") and head.endswith("s") != low.endswith("se"):
        return True
    return low == "that" and i > 0 and words[i - 1].lower() not in PREPOSITIONS


_PICKING = frozenset(["same", "other", "next", "last", "first", "few", "many", "own", "only", "very"])


def _picks_out(group: list[str]) -> bool:
    """Whether it is one of several that the text told of before: the tallest, the same, the last."""
    low = [w.lower() for w in group]
    return "greater" in group or any(w in _PICKING or (w.endswith("est") and w not in nouns()) for w in low)


def _goes_on(words: list[str], first: int, end: int) -> bool:
    """Whether the phrase is cut off at `end`, or its last word is of the clause that follows."""
    after = words[end].lower() if end < len(words) else ""
    if (
        end - first > 1
        and words[end - 1].endswith("s")
        and words[end - 2].lower() in nouns()
        and after in ("in", "when", "upon", "if")
    ):
        return True  # "my duty ends when": the last word may be the verb
    joins = after in ("and", "or") and end + 1 < len(words)
    return joins and (is_noun(words[end + 1]) or modifies(words[end + 1]))


def _turned_determiner(determiner: str, group: list[str]) -> str:
    """The phrase as the other one says it: "your revolver" for "my revolver", "the dog" for "a dog"."""
    low = determiner.lower()
    return " ".join([POSSESSIVES.get(low, "the" if low in ("a", "an") else low), *group])


def _with_of(words: list[str], core: Phrase, names: Names) -> Phrase | None:
    """The phrase with the one after its "of"; None where that one's end is not sure."""
    inner = _phrase_at(words, core.end + 1, names, 1) if core.end + 1 < len(words) else None
    if inner is None:
        return None
    score = core.score + 1.0 if core.head not in EMPTY_HEADS else min(core.score, 0.0) - 1.0
    return replace(core, text=f"{core.text} of {inner.text}", end=inner.end, score=score)


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
        and (is_noun(after) or modifies(after))
        and not verb_like(words[end])
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
