"""Whether an answer that somebody else wrote (a teacher model) may stand beside those from the text."""

import re

from persona import metrics
from persona.card import Card
from persona.phrases import FUNCTION
from persona.vocabulary import SPEECH_VERBS

MIN_WORDS = 4
MAX_WORDS = 200
GROUNDED = 0.5
"""Least share of the answer's content words that stand, as word stems, in passage or question.

Half leaves room for the persona's own way of putting it; inventions fall well below.
"""
CONTENT_LETTERS = 4
"""Shorter words say too little to count."""
STEM_LETTERS = 5
"""Words count as the same that begin with the same five letters: observe, observed, observation."""

_META = re.compile(
    r"\bas an ai\b|\b(?:ai|language) model\b|\bi(?: am|'m) an? (?:ai|chatbot|assistant|virtual"
    r"|computer program)\b"
    r"|\bopenai\b|\bchatgpt\b"
    r"|\b(?:the|this|that|provided|given) (?:passage|excerpt|context|source text)\b"
    r"|\b(?:the|this) (?:text|narrator|author|story) (?:says|states|mentions|describes|tells"
    r"|suggests|does not)\b"
    r"|\baccording to the (?:text|passage|story|author)\b|\b(?:fictional|the) character of\b|\bthe novel\b"
    r"|\bi (?:cannot|can't|can not) (?:role-?play|help with that request)\b",
    re.IGNORECASE,
)

SINCE = {
    "radio": 1920, "wireless set": 1920, "television": 1930, "tv": 1935, "computer": 1945, "computers": 1945,
    "laptop": 1983, "internet": 1985, "online": 1985, "website": 1991, "email": 1985, "e-mail": 1985,
    "smartphone": 1995, "cell phone": 1975, "mobile phone": 1975, "google": 1998, "wi-fi": 1997, "app": 2000,
    "software": 1958, "database": 1962, "download": 1970, "video": 1937, "cctv": 1945, "webcam": 1993,
    "dna": 1944, "genetic": 1910, "antibiotic": 1942, "antibiotics": 1942,
    "penicillin": 1929, "insulin": 1921,
    "helicopter": 1935, "jet plane": 1940, "airport": 1919, "airliner": 1915, "parking lot": 1920,
    "nuclear": 1940, "atomic bomb": 1945, "radar": 1940, "laser": 1960, "satellite": 1957, "astronaut": 1957,
    "robot": 1921, "robots": 1921, "plastic bag": 1950, "nylon": 1938, "polyester": 1941, "microwave": 1950,
    "world war": 1914, "nazi": 1923, "soviet": 1917, "cold war": 1945, "hollywood": 1913, "movie": 1912,
    "movies": 1912, "teenager": 1940, "okay": 1930, "scenario": 1960, "feedback": 1950, "profiler": 1970,
    "serial killer": 1970, "mindset": 1920, "credit card": 1950, "supermarket": 1933, "photocopy": 1945,
    "ballpoint": 1943, "zipper": 1923, "air-conditioning": 1910, "traffic light": 1914, "barcode": 1960,
    "gps": 1975, "drone": 1946, "selfie": 2005, "blog": 1999, "podcast": 2004, "social media": 2000,
    "algorithm": 1940, "artificial intelligence": 1956, "psychopath": 1930, "brainstorm": 1940,
}  # fmt: skip
"""Things and words, and the first year of their common use; later than the card's era is out of period."""


def problem_of_answer(question: str, answer: str, passage: str, card: Card) -> str | None:
    """Why an answer may not train the persona; None where it may.

    In this order: "empty", "too short" (under 4 words), "too long" (over 200), "breaks character" (speaks of
    itself as a program or of the passage as a text), "narration left" ("said Holmes" outside quoted speech),
    "not first person" (the persona by name in the third person), "out of period" (a thing after the card's
    last year that the passage does not name), "not grounded" (fewer than half of the content words in passage
    or question).
    """
    said = metrics.words(answer)
    if not said:
        return "empty"
    if len(said) < MIN_WORDS:
        return "too short"
    if len(said) > MAX_WORDS:
        return "too long"
    plain = answer.replace("’", "'")
    if _META.search(plain):
        return "breaks character"
    own = _without_quotes(plain)
    if _narrated(own, card):
        return "narration left"
    if _third_person(own, card):
        return "not first person"
    if out_of_period(answer, card) - out_of_period(passage, card):
        return "out of period"
    if grounded_share(answer, f"{passage} {question}", card) < GROUNDED:
        return "not grounded"
    return None


def grounded_share(answer: str, source: str, card: Card) -> float:
    """Share of the answer's content words that the source holds; 1 for an answer without any.

    Content words have four letters and more, are no function words, not in the card's lexicon (the persona's
    manner of speech), and are compared by their first five letters.
    """
    manner = set(card.lexicon)
    content = {
        w
        for w in metrics.words(answer)
        if len(w) >= CONTENT_LETTERS and w not in FUNCTION and w not in manner
    }
    known = {w[:STEM_LETTERS] for w in metrics.words(source)}
    return sum(w[:STEM_LETTERS] in known for w in content) / len(content) if content else 1.0


def out_of_period(text: str, card: Card) -> set[str]:
    """Words of the text for things that came after the card's era."""
    words = f" {' '.join(metrics.words(text))} "
    return {thing for thing, year in SINCE.items() if year > card.era[1] and f" {thing} " in words}


def _without_quotes(text: str) -> str:
    """The answer without what it quotes of others."""
    return re.sub(r"[\"“][^\"“”]*[\"”]", " ", text)


def _named(card: Card) -> str:
    names = {card.persona.name, *card.persona.aliases}
    return "(?:" + "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True)) + ")"


def _narrated(text: str, card: Card) -> bool:
    """A tag of speech: "said Holmes", "Holmes replied", "said he", a pronoun's too."""
    verbs = "(?:said|replied|answered|remarked|cried|asked|exclaimed|murmured|observed|continued|muttered)"
    some = "|".join(sorted(SPEECH_VERBS))
    return bool(
        re.search(rf"[,.!?]\s+{verbs} (?:he|she|I|my companion|my friend)\b", text)
        or re.search(rf"\b(?:{some}) {_named(card)}\s*(?:[,.;:!?]|$)", text)
        or re.search(rf"\b{_named(card)},? {verbs}\b", text)
    )


def _third_person(text: str, card: Card) -> bool:
    """The persona as somebody else: its name before a verb, or as an owner.

    "I am Sherlock Holmes", "my name is ..." and a name that is called are no such thing.
    """
    name = _named(card)
    verb = (
        r"(?:is|was|has|had|does|did|would|will|could|can|must|should|took|went|saw|thinks|thought|believes"
        r"|knew|knows|\w+ed)"
    )
    return bool(
        re.search(rf"\b{name} (?:\w+ly |then |also |never |himself |herself )?{verb}\b(?! by me)", text)
        or re.search(rf"\b{name}['’]s? (?!brother|sister|family)\w+", text)
    )
