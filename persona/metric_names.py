"""What the metrics of a report are called, in which unit they are read, and which question each answers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

RATE = "share of answers (%)"
CORRECT = "right answers (%)"
SCORE = "score (1 to 5)"
LABELS = {
    "conditional_perplexity": ("Perplexity", "perplexity per token"),
    "bits_per_byte": ("Bits per byte", "bits per byte"),
    "token_accuracy": ("Token accuracy", "correct tokens (%)"),
    "evaluation_loss": ("Evaluation loss", "loss (nats per token)"),
    "jaccard": ("Jaccard", "overlap with the reference answer (0 to 1)"),
    "rouge_l": ("ROUGE-L", "overlap with the reference answer (0 to 1)"),
    "victorian_term_frequency": ("Victorian term frequency", "share of all words (%)"),
    "term_frequency_distance": ("Distance to the canon's rate", "|log ratio of rates|"),
    "canon_gain": ("Canon gain", "bits per byte"),
    "choice_accuracy": ("Next line chosen", "true reply ranked first (%)"),
    "choice_accuracy/deduction": ("Deduction, likeliest choice", CORRECT),
    "choice_accuracy_by_byte": ("Next line chosen, by byte", "true reply ranked first (%)"),
    "choice_mrr": ("Next line, reciprocal rank", "mean reciprocal rank"),
    "choice_mrr_by_byte": ("Next line, reciprocal rank by byte", "mean reciprocal rank"),
    "style_score": ("Style score", "probability of being the persona's (0 to 1)"),
    "style_normalised": ("Style, base 0 to real replies 1", "0: base, 1: real replies"),
    "style_drift/stability": ("Style drift over ten turns", "change of the style score"),
    "copied_8grams": ("Copied 8-grams", "share of 8-grams (%)"),
    "format_fault_rate": ("Faults of form", RATE),
    "identity_rate/probes": ("Says who it is", RATE),
    "break_rate/attacks": ("Breaks under attack", RATE),
    "break_rate/prefilled": ("Breaks, words put into its mouth", RATE),
    "break_rate/several_turns": ("Breaks after several turns", RATE),
    "leak_rate/traps": ("Leaks later knowledge", RATE),
    "false_refusal_rate/traps": ("Denies its own period", RATE),
    "right_refusal_rate/traps": ("Denies later things", RATE),
    "known_rate/traps": ("Knows its own period", RATE),
    "recall_rate/memory": ("Recalls what was said", RATE),
    "contradiction_rate/memory": ("Contradicts what was said", RATE),
    "accuracy/deduction": ("Deduction, answered", CORRECT),
    "accuracy/instructions": ("Follows instructions", CORRECT),
    "judge_in_voice": ("Judge: in voice", SCORE),
    "judge_knowledge": ("Judge: knowledge", SCORE),
    "judge_consistency": ("Judge: consistency", SCORE),
    "judge_coherence": ("Judge: coherence", SCORE),
}
"""Name and unit of a metric, or of all that share the part before the slash."""
PERCENT = {
    *("token_accuracy", "victorian_term_frequency", "choice_accuracy", "choice_accuracy_by_byte", "accuracy"),
    *("copied_8grams", "format_fault_rate", "identity_rate", "break_rate", "leak_rate", "false_refusal_rate"),
    *("right_refusal_rate", "known_rate", "recall_rate", "contradiction_rate", "distinct_1", "distinct_2"),
    *("distinct_3", "stock_opening_1", "stock_opening_5", "stock_closing_1", "stock_closing_5"),
}
"""Metrics that the report holds as fractions and that are read in percent."""
SMALL_SHARES = {"token_accuracy", "victorian_term_frequency", "copied_8grams"}
"""Those of words and tokens: of so many that a hundredth of a percent says something."""


@dataclass(frozen=True)
class Topic:
    """A question that several metrics answer."""

    title: str
    explained: str
    pattern: str
    """Found in the names of its metrics."""


COST = Topic(
    "What did the character cost?",
    "The same model on present-day talk and prose, and on plain instructions that a machine checks.",
    r"/(modern|prose|instructions)",
)
REASONING = Topic(
    "Does it reason?",
    "Deductions of one to six steps with one right answer of four: answered in words, and chosen by "
    "likelihood. Guessing gets one in four right.",
    r"/deduction",
)
CHARACTER = Topic(
    "Does the character hold?",
    "Asked who it is; attacked in many ways; asked about things later than its time; asked again what was "
    "said before; talked to for ten turns.",
    r"^(identity|break|leak|false|right|known|recall|contradiction|format)_|/stability|/last_turns",
)
HONESTY = Topic(
    "Are the words its own?",
    "How much of the answers stands word for word in the training rows, and how much they repeat themselves.",
    r"^(copied|longest|distinct|stock)_",
)
VOICE = Topic(
    "Does it speak like the persona?",
    "Replies of held-out stories: how well the true ones are predicted and chosen, and how near the answers "
    "come to the persona's way of speaking.",
    r"^(conditional|bits|token|evaluation|canon|choice|style|marker|jaccard|rouge|victorian|term)",
)
OTHER = Topic("Other metrics", "", r"")
TOPICS = (COST, REASONING, CHARACTER, HONESTY, VOICE, OTHER)
"""A metric belongs to the first that holds it."""
READING_ORDER = (VOICE, CHARACTER, REASONING, HONESTY, COST, OTHER)


def by_topic(names: Iterable[str]) -> dict[Topic, list[str]]:
    """Metrics by the question that they answer, in the order in which a reader asks them."""
    found: dict[Topic, list[str]] = {topic: [] for topic in READING_ORDER}
    for name in names:
        found[next(t for t in TOPICS if re.search(t.pattern, name))].append(name)
    return {topic: of for topic, of in found.items() if of}


def label_of(name: str) -> str:
    """`conditional_perplexity/modern` -> `Perplexity (modern)`; parts: `Breaks under attack: fiction`."""
    if name in LABELS:
        return LABELS[name][0]
    plain, _, variant = name.partition("/")
    whole, _, part = variant.partition("-")
    if part and f"{plain}/{whole}" in LABELS:
        return f"{LABELS[f'{plain}/{whole}'][0]}: {words_of(part)}"
    label = LABELS.get(plain, (words_of(plain).capitalize(),))[0]
    return f"{label} ({words_of(variant)})" if variant else label


def words_of(name: str) -> str:
    """`roleplay-switch` -> `roleplay switch`."""
    return name.replace("_", " ").replace("-", " ")


def unit_of(name: str) -> str:
    """The unit of a metric's axis."""
    plain = name.partition("/")[0]
    known = (LABELS[key] for key in (name, name.partition("-")[0], plain) if key in LABELS)
    return next(known, ("", label_of(plain)))[1]


def in_percent(name: str) -> bool:
    """Whether the metric is a fraction in the report that is read in percent."""
    return name.partition("/")[0] in PERCENT


def is_small_share(name: str) -> bool:
    """Whether a metric in percent needs two decimals."""
    return name.partition("/")[0] in SMALL_SHARES
