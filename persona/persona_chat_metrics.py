"""Metrics of a reply against the true one, as papers on persona dialogue report them.

Corpus BLEU (sacrebleu), PersonaChat's word F1, BERTScore. ROUGE-L is in persona.metrics.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from persona.errors import UserError
from persona.intervals import RESAMPLES

if TYPE_CHECKING:
    import numpy as np

ORDERS = 4
"""BLEU counts runs of one to four tokens."""
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
LONGEST_TEXT = 100_000
"""Tokens; a tokenizer that allows more states no length at all, which bert-score cannot handle."""


def f1_words(text: str) -> list[str]:
    """Words as PersonaChat's F1 counts them: lower case, punctuation and articles to spaces.

    ParlAI, parlai/core/metrics.py, `normalize_answer`.
    """
    return _ARTICLES.sub(" ", _PUNCTUATION.sub(" ", text.lower())).split()


def word_f1(answer: str, reference: str) -> float:
    """F1 of shared words, each as often as both have it; 0 where there are none.

    PersonaChat (Zhang et al. 2018) and ParlAI's `F1Metric`.
    """
    said, true = Counter(f1_words(answer)), Counter(f1_words(reference))
    shared = (said & true).total()
    return 2 * shared / (said.total() + true.total()) if shared else 0.0


def bert_scores(
    answers: Sequence[str], references: Sequence[str], model: str, layers: int, device: str
) -> list[tuple[float, float, float]]:
    """BERTScore precision, recall and F1 of each pair (Zhang et al. 2020), not rescaled; 0 for empty answers.

    `model` is a folder or a hub id of an encoder, `layers` the layer whose vectors are compared.

    Raises:
        UserError: no such encoder, fewer layers, or a tokenizer that states no longest text.
    """
    from bert_score import BERTScorer
    from transformers import AutoTokenizer

    try:
        if AutoTokenizer.from_pretrained(model).model_max_length > LONGEST_TEXT:
            raise UserError(
                f"--bertscore-model {model}: bert-score needs model_max_length in its tokenizer_config.json; "
                "write the encoder's longest input there, for example 512"
            )
        scorer = BERTScorer(model_type=str(model), num_layers=layers, device=device)
    except (OSError, ValueError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(f"--bertscore-model {model}, {layers} layers: no encoder ({first})") from error
    told = [k for k, answer in enumerate(answers) if answer.strip()]
    scores = [(0.0, 0.0, 0.0)] * len(answers)
    if told:
        found = scorer.score([answers[k] for k in told], [references[k] for k in told])
        for k, *of in zip(told, *(f.tolist() for f in found), strict=True):
            scores[k] = tuple(of)
    return scores


def bleu_counts(answers: Sequence[str], references: Sequence[str]) -> "np.ndarray":
    """What BLEU is computed from: (items, 10) matching runs by order, runs by order, both lengths."""
    import numpy as np
    from sacrebleu.metrics import BLEU

    sentence = BLEU(effective_order=True)  # the counts are those of the corpus measure
    scores = [sentence.sentence_score(a, [r]) for a, r in zip(answers, references, strict=True)]
    rows = [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores]
    return np.asarray(rows, dtype=int).reshape(len(rows), 2 * ORDERS + 2)


def bleu_of(counts: Sequence[int]) -> float:
    """Corpus BLEU, 0 to 1, of summed counts; sacrebleu's default smoothing."""
    from sacrebleu.metrics import BLEU

    sums = [int(x) for x in counts]
    matching, runs = sums[:ORDERS], sums[ORDERS : 2 * ORDERS]
    return BLEU.compute_bleu(matching, runs, *sums[2 * ORDERS :], smooth_method="exp").score / 100


def bleu_signature() -> str:
    """sacrebleu's own words on how BLEU was computed, one reference an item."""
    from sacrebleu.metrics import BLEU

    measure = BLEU()
    measure.corpus_score(["a"], [["a"]])  # the signature tells the number of references
    return str(measure.get_signature())


def bleu_report(
    answers: dict[str, list[str]],
    references: Sequence[str],
    clusters: Sequence[str],
    base: str,
    part: bool = False,
    seed: int = 0,
) -> dict:
    """The report's entry for corpus BLEU: values, paired differences to `base`, the jackknife.

    BLEU is no ratio of two sums, so it has intervals of its own: percentiles of a bootstrap over clusters,
    drawn for all systems alike, and twice the smaller share of draws on one side of 0 as the p-value
    (Koehn 2004). A `part` is not tested.
    """
    import numpy as np

    names = list(dict.fromkeys(clusters))
    places = np.asarray([names.index(c) for c in clusters], dtype=int)
    sums = {}
    for system, of in answers.items():
        sums[system] = np.zeros((len(names), 2 * ORDERS + 2), dtype=int)
        np.add.at(sums[system], places, bleu_counts(of, references))
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), RESAMPLES)
    resampled = {s: np.asarray([bleu_of(row) for row in drawn @ of]) for s, of in sums.items()}

    def percentiles(values: "np.ndarray") -> list[float] | None:
        return [float(x) for x in np.percentile(values, [2.5, 97.5])] if len(names) > 1 else None

    values = {s: bleu_of(of.sum(0)) for s, of in sums.items()}
    differences = {}
    for system in (s for s in answers if s != base and base in answers):
        apart = resampled[system] - resampled[base]
        p = min(1.0, max(2 / RESAMPLES, 2 * min((apart <= 0).mean(), (apart >= 0).mean())))
        differences[f"{system}-{base}"] = {
            "value": values[system] - values[base],
            "ci95": percentiles(apart),
            "p": None if part or len(names) < 2 else float(p),
        }
    return {
        "better": "higher",
        "target": None,
        "values": {
            s: {"value": values[s], "ci95": percentiles(resampled[s]), "n": len(references)} for s in answers
        },
        "differences": differences,
        "jackknife": {
            s: {name: bleu_of(of.sum(0) - of[k]) for k, name in enumerate(names)} if len(names) > 1 else {}
            for s, of in sums.items()
        },
    }
