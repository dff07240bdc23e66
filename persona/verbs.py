"""Which words are verbs in the past, and what a verb of the third person becomes in the first."""

import re


def words(text: str) -> frozenset[str]:
    """The set of words that a text lists."""
    return frozenset(text.split())


AUXILIARIES = words(
    """was were had did could would should might must ought may can shall will is has does has're
    wasn't hadn't didn't couldn't wouldn't"""
)
"""Finite whoever the subject is, or (is, has, does) with a form of their own for "I"."""

PAST_ONLY = words(
    """arose ate awoke bade began bent blew bore bought broke brought built burnt came carried caught chose
    clung crept cried dealt drank dragged drew drove fell fled flew flung forbade forgot froze gave glanced
    grew heard held hung kept knelt knew laid lay leaned leant leapt led left lit lost made meant met paid
    ran rang rose said sang sank sat saw sent shook shot slept slid slipped sold spent spoke sprang sprung
    spun stole stood stooped stopped strode struck stuck strove swam swept swore swung took taught thought
    threw told tore trod understood went woke won wore wound wove wrote wrung found fought felt flicked
    bound bit bore bred clad dug fed ground hid rode sought shone shrank slung smelt sped spat split
    spread stung swelled tied tried wept withdrew mistook overtook undertook overheard became ran"""
)
"""Irregular pasts (and a few common regular ones)."""

UNCHANGED_PAST = words("put set cut let read shut cast hit hurt burst beat thrust cost rid")
"""Past and present alike."""

NOT_PAST = words(
    """indeed hundred sacred naked wicked bed red shed need seed speed deed feed breed weed reed wretched
    rugged aged beloved kindred embed bleed"""
)
"""Words in -ed that are no verbs in the past."""

ADVERB = re.compile(
    r"(?:\w+ly|again|also|still|then|never|always|ever|once|only|now|soon|just|already|however|therefore"
    r"|himself|alone|too|often|even|both|merely|at once|at last|at length|meanwhile|yet|all|almost|rather"
    r"|not)"
)

_THIRD = {"is": "am", "has": "have", "does": "do", "isn't": "am not", "hasn't": "have not", "goes": "go"}


def is_past(word: str) -> bool:
    """Whether a lower-case word can be a finite verb in the past, or an auxiliary."""
    return (
        word in AUXILIARIES
        or word in PAST_ONLY
        or word in UNCHANGED_PAST
        or (len(word) > 3 and word.endswith("ed") and word not in NOT_PAST)
    )


def first_person_form(word: str) -> str | None:
    """ "has" -> "have", "carries" -> "carry"; None for a word that is no verb of the third person."""
    if word in _THIRD:
        return _THIRD[word]
    if is_past(word):
        return word
    if not re.fullmatch(r"[a-z]{2,}s", word) or word.endswith(("ss", "us", "is", "as")):
        return None
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def third_person_past(word: str) -> bool:
    """Whether "I <word>" can become "he <word>" as it is: a past or an auxiliary without person."""
    return is_past(word) and word not in ("is", "has", "does")
