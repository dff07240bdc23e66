"""What a speech itself tells: whom it calls or speaks of, and how formal it is.

Functions of one normalised speech (`mentions.squeeze`) each.
"""

import re
from collections.abc import Iterator

from persona.mentions import NAME

_BEFORE_NAME = re.compile(
    r"(?:,? ?\b(?:[Mm]y|[Oo]ld|[Dd]ear|[Gg]ood|[Pp]oor|[Mm]on|[Cc]her|[Aa]h|[Oo]h|[Yy]es|[Nn]o|[Ww]ell|[Aa]nd"
    r"|[Bb]ut|[Nn]ow|[Cc]ome),?)+$"
)
_FORMAL = re.compile(r"[,.!?-] ?(?:[Ss]ir|ma'am|[Mm]adam)\b|^Sir,")
_DEFERENT = re.compile(r"(?:Yes|No|Oh,? no|Oh,? yes|Not),? (?:\w+,? )?(?:sir|ma'am|m'm|madam|miss)\b")


def own_words(speech: str) -> str:
    """The speech without what the speaker quotes in his turn."""
    return re.sub(r"(?<!\w)'[^']{12,}?'(?!\w)", " ", speech)


def is_formal(speech: str) -> bool:
    """It calls somebody "sir" or "madam"."""
    return _FORMAL.search(speech) is not None


def is_deferent(speech: str) -> bool:
    """It begins with "Yes, sir" or the like."""
    return _DEFERENT.match(speech) is not None


def names_in(speech: str) -> Iterator[tuple[str, bool]]:
    """Every name in the speech, and whether somebody is called by it (else he is spoken of)."""
    for m in re.finditer(NAME, speech):
        before, after = _BEFORE_NAME.sub("", speech[: m.start()].rstrip()), speech[m.end() :].lstrip()
        called = (not before or before[-1] in ",.!?;:-") and (not after or after[0] in ",.!?;:-")
        yield m.group(), called
