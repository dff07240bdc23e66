"""Where sentences end."""

import re

_END = re.compile(
    r"(?<!\bMr)(?<!\bDr)(?<!\bMrs)(?<!\bSt)(?<!\bRev)(?<!\bNo)(?<!\bM)(?<!\bMme)(?<!\b[A-HJ-Z])"
    r"([.!?][\"'”’)]*)\s+(?=[\"'“‘(]?[A-ZÀ-Þ])"
)


def sentences(text: str) -> list[str]:
    """The sentences of a speech, each an exact part of it; titles and initials do not end one."""
    ends = [m.end(1) for m in _END.finditer(text)]
    cut = [text[a:b].strip() for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [s for s in cut if s]
