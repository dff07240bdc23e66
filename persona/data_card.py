"""The card of a data set: what it holds, how it was made, what its rows look like."""

import random

from persona.card import Card
from persona.rows import SPLITS, Row, answer_of

EXAMPLES = 5
MOST_CHARACTERS = 600
KINDS = {
    "dialogue": "The persona's replies in the text, with one to three turns of what was said before.",
    "narrative": "What the narrator tells of the persona, told by the persona.",
    "qa": "Questions that a passage answers, answered in the persona's own words.",
    "reasoning": "Observation, inference and conclusion set out; the system turn asks for them.",
    "curated": "Written by hand for this project.",
    "guard": "Written by hand: things after the persona's time, attempts to make it drop the character.",
    "chunk": "Passages of the narrator's.",
    "persona_chat": "Conversations of two people with short personas.",
}


def data_card(card: Card, manifest: dict, rows: dict[str, list[Row]]) -> str:
    """The card as Markdown with the hub's header: counts, how it was made, leaks, five examples a strategy.

    Examples are drawn at random by the manifest's seed.
    """
    counts, figures = manifest["counts"], manifest["figures"]
    kinds = sorted({k for c in counts.values() for k in c} - {"rows"})
    leaks = [f"{s} mean {r['mean']:.2%}, highest {r['max']:.2%}" for s, r in manifest["leak_report"].items()]
    whole = (
        "Stories are split whole, before anything is made from them; curated rows by topic. Near-duplicates "
        "(Jaccard on word 3-shingles) of held-out rows are taken out of training, and of a split's answers "
        "all but one."
    )
    if "persona_chat" in kinds:
        whole = (
            "Split by conversation. A reply that a training row holds word for word has `overlap` in `meta`."
        )
    lines = [
        "---",
        "language: en",
        "task_categories: [text-generation]",
        f"pretty_name: {card.display_name} ({manifest['corpus']})",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(f"  - {{split: {s}, path: {s}.jsonl}}" for s in SPLITS),
        "---",
        "",
        f"# {card.display_name}, corpus {manifest['corpus']}",
        "",
        f"Conversations in which the assistant is {card.display_name}. Made by generate_dataset.py, "
        f"version {manifest['version']}; every row says in `meta` where it comes from.",
        "",
        "| split | rows | " + " | ".join(kinds) + " | distinct answers |",
        "| --- " * (len(kinds) + 3) + "|",
        *(
            f"| {s} | {counts[s]['rows']:,} | "
            + " | ".join(f"{counts[s].get(k, 0):,}" for k in kinds)
            + f" | {manifest['distinct_answers'][s]:,} |"
            for s in SPLITS
        ),
        "",
        whole,
        "",
        f"{figures['rows']:,} rows, {figures['distinct_answers']:,} distinct answers, no answer in more than "
        f"{figures['most_rows_an_answer']} rows. Share of rows whose answer begins with the commonest five "
        f"words: {figures['commonest_opening']:.2%}; ends with them: {figures['commonest_closing']:.2%}. "
        f"Commonest question frame: {figures['commonest_frame']:.2%} of its strategy's rows. Answers with "
        f"narration left in them: {figures['narration_left']:.2%}.",
        "",
        "Share of a held-out answer's word 8-grams that stand in training answers: " + ", ".join(leaks) + ".",
        "",
    ]
    for kind in kinds:
        found = [r for r in rows["train"] if r["meta"]["strategy"] == kind]
        lines += _kind_section(kind, found, f"{manifest['settings']['seed']}-{kind}")
    return "\n".join(lines)


def _kind_section(kind: str, rows: list[Row], seed: str) -> list[str]:
    """What a strategy's training rows are, and some of them."""
    answers = {answer_of(r) for r in rows}
    lines = [
        f"## {kind}",
        "",
        f"{KINDS.get(kind, '')} In training {len(rows):,} rows with {len(answers):,} distinct answers.",
        "",
    ]
    for row in random.Random(seed).sample(rows, min(EXAMPLES, len(rows))):
        lines += [*(f"> **{m['role']}**: {_short(m['content'])}\n>" for m in row["messages"][1:]), ""]
    return lines


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."
