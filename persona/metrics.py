"""Metrics of answers, each as per-item numerators and denominators.

So totals and bootstrap resamples are ratios of sums. The reference system's own definitions stand beside
ours, under names that begin with "reference_".
"""

import functools
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Lower-case words.

    Punctuation parts them, apostrophes and hyphens inside stay: "Don't, Dr. X!" -> don't dr x.
    """
    return [w.lower().replace("’", "'") for w in WORD.findall(text)]


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order."""
    w = words(text)
    return [tuple(w[i : i + n]) for i in range(len(w) - n + 1)]


def jaccard(a: str, b: str) -> float:
    """Shared distinct words over all distinct words; 1 for two empty texts."""
    x, y = set(words(a)), set(words(b))
    return len(x & y) / len(x | y) if x | y else 1.0


def reference_jaccard(a: str, b: str) -> float:
    """Jaccard as the reference system computes it.

    Lower-cased, split at spaces, so that "case," is not "case".
    """
    x, y = set(a.lower().split()), set(b.lower().split())
    return len(x & y) / len(x | y) if x | y else 0.0


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of each pair (Lin 2004).

    By rouge-score with stemming, through `evaluate` without the hub.
    """
    return _rouge_metric().compute(predictions=list(answers), references=list(references))["rougeL"]


@functools.cache
def _rouge_metric():
    import datasets
    import evaluate
    from rouge_score.rouge_scorer import RougeScorer

    class RougeL(evaluate.Metric):
        """`evaluate.load("rouge")` fetches its script from the hub; the class alone needs no network."""

        def _info(self) -> evaluate.MetricInfo:
            text = datasets.Value("string")
            features = datasets.Features({"predictions": text, "references": text})
            return evaluate.MetricInfo(description="ROUGE-L", citation="Lin 2004", features=features)

        def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
            scorer = RougeScorer(["rougeL"], use_stemmer=True)
            return {
                "rougeL": [
                    scorer.score(r, p)["rougeL"].fmeasure
                    for p, r in zip(predictions, references, strict=True)
                ]
            }

    return RougeL()


def term_count(text: str, lexicon: Collection[str]) -> int:
    """How many words of the text are in the lexicon; each occurrence counts."""
    terms = frozenset(lexicon)
    return sum(w in terms for w in words(text))


def term_rate(texts: Sequence[str], lexicon: Collection[str]) -> float:
    """Lexicon words per word over all texts; nan where there are no words."""
    total = sum(len(words(t)) for t in texts)
    return sum(term_count(t, lexicon) for t in texts) / total if total else math.nan


def overlap_share(text: str, known: Collection[tuple[str, ...]], n: int = 8) -> float:
    """Share of the text's word n-grams that stand in `known`; 0 for a text shorter than n words."""
    grams = ngrams(text, n)
    return sum(g in known for g in grams) / len(grams) if grams else 0.0


def _ratio_itself(ratio):
    return ratio


@dataclass(frozen=True)
class Metric:
    """One metric of one system on the items: value = transform(sum(numerators) / sum(denominators))."""

    better: Literal["lower", "higher", "target"]
    numerators: list[float]
    denominators: list[float]
    transform: Callable = _ratio_itself
    target: float | None = None
    """The value that would be best, where neither lower nor higher is."""
    yes_no: bool = False
    """A share of items that stand alone, each 1 or 0: an exact test fits it."""
    part: bool = False
    """A part of another metric (one kind of its items), or the same on another scale: it is not tested."""

    @property
    def value(self) -> float:
        """The metric over all items; nan where the denominators are 0."""
        total = sum(self.denominators)
        return float(self.transform(sum(self.numerators) / total)) if total else math.nan
