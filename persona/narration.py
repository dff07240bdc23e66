"""Narration apart from speech: quotations masked, sentences found."""

import re

from persona.cues import after_tag
from persona.vocabulary import TITLES

MASK = "\x01"
QUOTE = re.compile(r'["“][^"“”]*["”]')
BOUNDARY = re.compile(rf"(?:[.!?]['\")\]]*|(?<=[.!?]){MASK}) +(?=[A-Z{MASK}'(])")
ABBREVIATION = re.compile(
    r"\b(?:" + "|".join(sorted((t.capitalize() for t in TITLES), key=len)) + r"|St|Esq|No|[A-Z])\.$"
)


def mask_quotes(text: str) -> str:
    """The text with every character of a quotation replaced, its marks too; the same length."""
    return QUOTE.sub(lambda m: MASK * len(m.group()), text)


def quotes_ending(text: str) -> str:
    """The masked text, with a full stop at the end of every quotation whose words end a sentence."""
    return QUOTE.sub(
        lambda m: (
            MASK * (len(m.group()) - 2) + "." + MASK
            if len(m.group()) > 2 and m.group()[-2] in ".!?"
            else MASK * len(m.group())
        ),
        text,
    )


def _tag_follows(text: str, flat: str, position: int) -> bool:
    """Whether a quotation ends before `position` and a tag follows: "Where?" Holmes asked."""
    quote = re.search(rf"{MASK}+\.?{MASK} *$", flat[:position])
    return (
        quote is not None
        and after_tag(text[position : position + 60], text[quote.start() : position].strip(' "')) is not None
    )


def sentences(text: str) -> list[tuple[int, int]]:
    """Offsets of the sentences; a quotation stays in one piece and ends a sentence where its words do."""
    flat = quotes_ending(text)
    found, start = [], 0
    for m in BOUNDARY.finditer(flat):
        if ABBREVIATION.search(flat[start : m.end()].rstrip()) or _tag_follows(text, flat, m.end()):
            continue
        found.append((start, m.start() + len(m.group().rstrip())))
        start = m.end()
    if text[start:].strip():
        found.append((start, len(text.rstrip())))
    return found
