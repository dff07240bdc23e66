"""Word classes by list and ending: whether a word is a noun, goes before one, or ends a noun phrase."""

import functools
import re

import config
from persona.question_words import FUNCTION, PAST

LEXICON = config.ROOT / "data" / "lexicon"
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")


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


def is_noun(word: str) -> bool:
    """Whether it is on the list, or ends as nouns do."""
    low = word.lower()
    return low in nouns() or bool(re.search(r"(?:tion|ment|ness|ship|ology|graph|ist)s?$", low))


def modifies(word: str) -> bool:
    """Whether it can stand before a noun: an adjective, a number, a possessive, another noun."""
    low = word.lower()
    if low in FUNCTION:
        return False
    return (
        low in adjectives()
        or low in nouns()
        or bool(re.search(r"(?:ous|ful|less|able|ible|ical|ish|ive|ary|ant|ent|'s|s')$", low))
        or low in NUMBERS
    )


def ends_phrase(words: list[str], i: int) -> bool:
    """Whether no noun phrase can go on at token i."""
    if i >= len(words):
        return True
    low = words[i].lower()
    if not low[0].isalpha():
        return low != "'" and low != "-"
    return low in FUNCTION or (low.endswith("ly") and low not in adjectives() and low not in nouns())


def verb_like(word: str) -> bool:
    """Whether it looks like a verb in the past."""
    low = word.lower()
    return low in PAST or (low.endswith("ed") and low not in adjectives() and low not in nouns())
