"""Deductions in a speech, by their cues alone: observation, then inference, then conclusion.

Precise rather than complete: sentences are taken whole, side by side and in order, and what begins with a
word that points at something out of sight is left. Cues are those of English reasoning, not of one book.
"""

import re
from dataclasses import dataclass

from persona.sentences import sentences

MAX_SENTENCES = 3
"""Most sentences of an observation or an inference."""
MAX_WORDS = 90
"""Longest part, in words."""

_CERTAIN = (
    r"it (?:is|was|became|seems|seemed)"
    r"(?:,? (?:therefore|then|also|quite|perfectly|equally|at once|surely),?)*"
    r" (?:clear|evident|obvious|plain|certain)(?: to me)?(?:,? therefore,?)? that"
)
_CONCLUDES = re.compile(
    rf"\b(?:therefore|hence|thus|evidently|obviously|undoubtedly|doubtless|{_CERTAIN}|must have|"
    r"(?:could|can) only (?:be|mean|have)|no doubt that|"
    r"I (?:gather|infer|inferred|conclude|concluded|deduce|deduced)\b)",
    re.IGNORECASE,
)
_REASONS = re.compile(
    r"\b(?:since|because|must|cannot|could not|could hardly|can hardly|"
    r"(?:would|should) (?:\w+ )?(?:have|be|not|never)|"
    r"otherwise|unless|unlikely|impossible|improbable|inconceivable|seldom|usually)\b"
    r"|, for (?=(?:he|she|it|they|I|you|there)\b)",
    re.IGNORECASE,
)
_NO_OBSERVATION = re.compile(
    r"\b(?:must|cannot|may|might|could|would|should|shall|perhaps|if|theory|probabl[ey]|suppos\w+|presum\w+|infer\w*|deduc\w*|"
    r"conclu\w+|hope|believe|think|fancy|wish|case|problem|reason|mystery|"
    r"explain\w*|motive)\b|(?<!you )\bwill\b",
    re.IGNORECASE,
)
_PLAN = re.compile(
    r"\b(?:shall|let us|let me|afraid|hope|beg|wish|please|thank|glad|sorry|congratulate|propose|"
    r"to-morrow|so much|(?:I|we) (?:must|will|can|may|might|would|should)|"
    r"you (?:must|can|may|should|will (?!observe|perceive|see|notice|remember))|"
    r"I (?:therefore|was forced))\b",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"(?:(?:therefore|so|then|thus|hence|now|well|clearly|evidently|obviously|undoubtedly|doubtless|"
    r"of course),? )+",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:{_CERTAIN}|I (?:\w+ )?(?:gather|infer(?:red)?|concluded?|deduced?) that) ", re.IGNORECASE
)
_POINTS_AWAY = re.compile(
    r"(?:he|she|it|they|him|this|that|these|those|his|her|its|their|such|both|neither|either|one|none|some|all|another|"
    r"others?|here|the (?:latter|former|other|others|same|second|rest))\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"(?:but|and|or|nor|yet|for|still|which|also|as to|again|only|even)\b", re.IGNORECASE)

_SWAP = {
    "i": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
    "am": "are",
}
_PERSON = re.compile(
    r"\b(you (?:were|are|have|had|will|would|could|did|can)|"
    r"i|me|my|mine|myself|your|yours|yourself|am|you)\b",
    re.IGNORECASE,
)
_YOU_VERB = {"you were": "I was", "you are": "I am"}
_ASK = ("How do you know that {}?", "What leads you to say that {}?", "By what steps did you find that {}?")
MAX_ASKED_WORDS = 28


@dataclass(frozen=True)
class Steps:
    """A deduction as it stands in a speech, in three parts."""

    observation: str
    inference: str
    conclusion: str
    first: int
    """Index of the speech's sentence that it begins with."""


def stands_alone(sentence: str) -> bool:
    """Whether a sentence begins with neither a pronoun without antecedent nor a conjunction."""
    lead = _LEAD.match(sentence)
    rest = sentence[lead.end() :] if lead else sentence
    if re.match(_CERTAIN, rest, re.IGNORECASE) or re.match(r"it follows that", rest, re.IGNORECASE):
        return True
    return not _POINTS_AWAY.match(rest) and not _GOES_ON.match(rest)


def _plain(sentence: str) -> bool:
    """A whole statement: no question, exclamation, fragment, quotation or plan."""
    return (
        sentence[0].isupper()
        and sentence.endswith(".")
        and len(sentence.split()) >= 5
        and not re.search(r"[?!\"]|(?<!\w)'|'(?!\w)", sentence)
        and not _PLAN.search(sentence)
    )


def deductions(speech: str) -> list[Steps]:
    """Deductions of a speech that do not overlap: sentences that observe, then infer, then conclude."""
    said = sentences(speech)
    found: list[Steps] = []
    start = 0
    while start < len(said) - 2:
        steps, end = _deduction(said, start)
        if steps:
            found.append(steps)
        start = end
    return found


def _deduction(said: list[str], start: int) -> tuple[Steps | None, int]:
    """The shortest deduction whose observation begins at `start`, and where to look for the next."""
    if not stands_alone(said[start]):
        return None, start + 1
    for middle in range(start + 1, min(start + MAX_SENTENCES, len(said) - 2) + 1):
        if (
            not _plain(said[middle - 1])
            or _NO_OBSERVATION.search(said[middle - 1])
            or _CONCLUDES.search(said[middle - 1])
        ):
            break
        if _GOES_ON.match(said[middle]) or not _REASONS.search(said[middle]):
            continue
        for end in range(middle + 1, min(middle + MAX_SENTENCES, len(said) - 1) + 1):
            if not _plain(said[end - 1]):
                break
            if _plain(said[end]) and _CONCLUDES.search(said[end]) and not _GOES_ON.match(said[end]):
                parts = (" ".join(said[start:middle]), " ".join(said[middle:end]), said[end])
                if all(len(p.split()) <= MAX_WORDS for p in parts):
                    return Steps(*parts, start), end + 1
    return None, start + 1


def question_about(conclusion: str, names: tuple[str, ...] = ()) -> str | None:
    """A question that the conclusion answers, put by the other side; None where none can be made safely.

    `names`: words that keep their capital at the beginning of a clause.
    """
    clause = _LEAD.sub("", conclusion, count=1) if _LEAD.match(conclusion) else conclusion
    clause = clause.rstrip(". ")
    stated = _STATED.match(clause)
    if stated:
        clause = clause[stated.end() :]
    else:
        clause = re.sub(r",? (?:therefore|evidently|obviously|undoubtedly|doubtless|thus)\b,?", "", clause)
    if (
        not clause
        or re.search(r"[;:]|--", clause)
        or len(clause.split()) > MAX_ASKED_WORDS
        or _POINTS_AWAY.match(clause)
        or not re.match(r"(?:the|a|an|I|you|we|your|my|there|[A-Z]\w+)\b", clause)
        or re.match(r"(?:As|If|When|Since|On|In|From|At|What|Having|Being)\b", clause)
    ):
        return None
    first = clause.split()[0].strip(",'")
    if first.removesuffix("'s") not in names and first != "I":
        clause = clause[0].lower() + clause[1:]
    swapped = _PERSON.sub(_swap, clause)
    if swapped is None or re.search(r"\byou\?", swapped):
        return None
    return _ASK[len(clause) % len(_ASK)].format(swapped)


def _swap(found: re.Match[str]) -> str:
    word = found[0].lower()
    if word in _YOU_VERB:
        return _YOU_VERB[word]
    if word.startswith("you "):
        return "I " + word[4:]
    return "I" if word == "you" and found.string[found.end() :][:1] == " " else _SWAP.get(word, "me")
