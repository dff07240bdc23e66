"""Paragraphs and the runs between quotation marks.

Straight or curly, closed or carried on into the next paragraph.
"""

import re
from dataclasses import dataclass, field

OPENING, CLOSING = "“„", "”"
MARKS = re.compile(r'["“”„]')
BLANK = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")


@dataclass
class Span:
    """A quote, `text[start:end]` without its marks."""

    start: int
    end: int
    paragraph: int
    closed: bool = True
    """False where the paragraph ends before the quote does."""
    continues: bool = False
    """True where the quote before was not closed, and this one carries it on."""


@dataclass
class Paragraph:
    """A paragraph and its quotes in order."""

    index: int
    start: int
    end: int
    spans: list[Span] = field(default_factory=list)


def paragraphs(text: str) -> list[Paragraph]:
    """Split at blank lines and find the quotes of each paragraph."""
    found, start = [], 0
    for match in [*BLANK.finditer(text), None]:
        end = match.start() if match else len(text)
        if text[start:end].strip():
            found.append(Paragraph(len(found), start, end))
        start = match.end() if match else end
    open_before = False
    for paragraph in found:
        _find_spans(text, paragraph)
        spans = paragraph.spans
        if not spans:
            # A letter or a heading inside a speech does not end it, but plain narration does.
            open_before = False
            continue
        starts = not text[paragraph.start : spans[0].start - 1].strip(" \t\r\n_*[(")
        spans[0].continues = open_before and starts
        open_before = not spans[-1].closed
    return found


def _find_spans(text: str, paragraph: Paragraph) -> None:
    """Marks toggle.

    The shape around a mark decides where a toggle would go wrong after one that is missing.
    """
    opened: int | None = None
    for match in MARKS.finditer(text, paragraph.start, paragraph.end):
        i = match.start()
        if opened is None:
            if _may_open(text, i, paragraph):
                opened = i + 1
        elif match.group() in OPENING or (match.group() == '"' and _must_open(text, i, paragraph)):
            # The closing mark before this one is missing: what is between belongs to the first quote.
            if _has_words(text[opened:i]):
                paragraph.spans.append(Span(opened, _trim(text, opened, i), paragraph.index))
            opened = i + 1
        else:
            if _has_words(text[opened:i]):
                paragraph.spans.append(Span(opened, i, paragraph.index))
            opened = None
    if opened is not None and _has_words(text[opened : paragraph.end]):
        end = _trim(text, opened, paragraph.end)
        paragraph.spans.append(Span(opened, end, paragraph.index, closed=False))


def _has_words(text: str) -> bool:
    """Whether there is more than marks of a quote within a quote."""
    return any(c.isalnum() for c in text) or len(text.strip()) > 1


def _may_open(text: str, i: int, paragraph: Paragraph) -> bool:
    """A curly closing mark opens nothing; a straight one does unless it ends the paragraph."""
    if text[i] in CLOSING:
        return False
    return text[i] in OPENING or bool(text[i + 1 : paragraph.end].strip())


def _must_open(text: str, i: int, paragraph: Paragraph) -> bool:
    """A straight mark with a space before and a letter after, where the next mark closes."""
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if not (before.isspace() and (after.isalnum() or after in "'_")):
        return False
    following = MARKS.search(text, i + 1, paragraph.end)
    return following is None or not text[following.start() - 1].isspace()


def _trim(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isspace():
        end -= 1
    return end
