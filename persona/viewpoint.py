"""A clause from the other side of the talk: what one says of "my dog", the other asks of "your dog"."""

import re

from persona.phrases import tokens
from persona.question_words import AUXILIARIES, SUBJECT_BEFORE


def turned(clause: str) -> str | None:
    """A clause from the other side of the talk: "if you hear my dog" -> "if I hear your dog".

    None where it cannot be said whether a "you" is subject or object, or a person stays unnamed.
    """
    words = tokens(clause)
    out: list[str] = []
    for i, word in enumerate(words):
        low = word.lower()
        before = words[i - 1].lower() if i else ""
        after = words[i + 1].lower() if i + 1 < len(words) else ""
        if low in ("i", "we", "you") and after in AUXILIARIES | {"'"}:
            pass
        if "'" in low and not low.endswith(("n't", "'s", "o'clock")):
            return None
        if low in ("i", "myself", "mine", "me", "my"):
            out.append({"i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself"}[low])
        elif low == "you":
            subject = i == 0 or before in SUBJECT_BEFORE or before == ","
            if not subject and after in AUXILIARIES:
                return None
            if subject and not after.isalpha():
                return None
            out.append("I" if subject else "me")
        elif low in ("your", "yours", "yourself"):
            out.append({"your": "my", "yours": "mine", "yourself": "myself"}[low])
        elif low in ("am", "was", "are", "were") and before in ("i", "you"):
            last = out[-1]
            table = {("I", "are"): "am", ("I", "were"): "was", ("you", "am"): "are", ("you", "was"): "were"}
            out.append(table.get((last, low), low))
        else:
            out.append(word)
    return joined(out)


def joined(words: list[str]) -> str:
    """Tokens as running text."""
    text = " ".join(words)
    text = re.sub(r" ([,;:.!?')])", r"\1", text)
    return re.sub(r"\s*--\s*", "--", text)
