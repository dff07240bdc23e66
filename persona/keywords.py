"""Which words a speaker prefers: log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn (2008), "Fightin' Words", section 3.5.1.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence

from persona import metrics
from persona.vocabulary import NOT_NAMES, TITLES

PRIOR_WORDS = 1000.0
"""How many words of background the prior weighs."""
MIN_COUNT = 3
"""Occurrences from which a word may be somebody's own."""

_SMALL_WORDS = """
about above across almost along already also although always am among and another anything are around
aside ask asked away back be became become been begin best better both bring brought can cannot come
comes could day days did does done down each either else end enough ever every far feel felt few find for
found gave get gets give given go goes going gone got had half has have he hear heard help her herself
him himself his hour hours how if in into is it its itself just keep kept knew know known knows left less
let like long made make makes man many may maybe me men might mind mine more most much must myself near
need never new next nor now of off often one ones onto or other others ought our ours ourselves out own
part people perhaps place please put quite rather really right said same sat saw say says see seem seemed
seems seen set several shall she should show shown side since sit some someone soon stand still such sure
take taken tell than thank thanks that the them themselves then they thing things think thought time
times to told too took toward towards tried try two under until up us use used very wait want was way we
well went were what whatever when where which while who whole whom why will with without woman word words
would year years yet you yours yourself
"""
FUNCTION_WORDS = frozenset(_SMALL_WORDS.split()) | {
    w.lower()
    for w in NOT_NAMES
    if w not in ("God", "Heaven", "Heavens", "Pooh", "Tut", "Halloa", "Hullo", "Evidently")
}
"""Words that carry grammar rather than a voice."""


def log_odds(own: Counter[str], other: Counter[str], background: Counter[str]) -> dict[str, float]:
    """z-score of every word of `own`: above 0 where the speaker uses it more than `other` does.

    `background` gives the prior; it must hold every word of both.
    """
    n_own, n_other, size = own.total(), other.total(), background.total()
    scores = {}
    for word, count in own.items():
        prior = PRIOR_WORDS * background[word] / size
        mine, theirs = count + prior, other[word] + prior
        difference = math.log(mine / (n_own + PRIOR_WORDS - mine)) - math.log(
            theirs / (n_other + PRIOR_WORDS - theirs)
        )
        scores[word] = difference / math.sqrt(1 / mine + 1 / theirs)
    return scores


def names_in(text: str) -> set[str]:
    """Lower-case words that within sentences mostly begin with a capital: people and places; no titles."""
    inside = Counter(re.findall(r"(?<=[a-z,;] )[A-ZÀ-Þ]\w+", text))
    lower = Counter(re.findall(r"\b[a-zà-ÿ]\w+", text))
    return {w.lower() for w, n in inside.items() if n >= lower[w.lower()] and w.lower() not in TITLES}


def lexicon_of(
    speech: Sequence[str], other: str, elsewhere: str, names: Collection[str], most: int = 60
) -> dict[str, float]:
    """The words that mark a speaker, with their z-scores, strongest first.

    `speech`: what he says, by chapter or story; `other`: the rest of the book; `elsewhere`: other prose for
    the background. A word counts if he says it three times, in a fifth of the chapters that he speaks in and
    two at least, and it is neither a name nor a function word.
    """
    counts = [Counter(metrics.words(text)) for text in speech]
    own = sum(counts, Counter())
    rest = Counter(metrics.words(other))
    scores = log_odds(own, rest, own + rest + Counter(metrics.words(elsewhere)))
    spread = Counter(word for chapter in counts for word in chapter)
    n_units = sum(bool(c) for c in counts)
    widespread = min(n_units, max(2, n_units // 5))
    fit = {
        w: z
        for w, z in scores.items()
        if z > 0 and own[w] >= MIN_COUNT and spread[w] >= widespread and w.isalpha() and len(w) > 1
        if w not in FUNCTION_WORDS and w not in names
    }
    return dict(sorted(fit.items(), key=lambda item: (-item[1], item[0]))[:most])
