"""Make the data set of a persona from a body of text.

Reads   data/personas/<persona>/ (card and curated rows) and a corpus: embedded, the downloaded canon,
        or a folder of text files
Writes  data/dataset/<persona>-<corpus>/{train,validation,test}.jsonl, manifest.json, README.md

    python generate_dataset.py                          # Sherlock Holmes on the embedded corpus
    python generate_dataset.py --corpus canon           # downloads the canon from Project Gutenberg once
    python generate_dataset.py --corpus DIR --out OUT   # your own text files
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import config


@dataclass(frozen=True)
class Args(config.RunArgs):
    out: Path | None = None
    """Write the files straight into this folder. Default: data/dataset/<persona>-<corpus>."""
    strategies: tuple[str, ...] = ()
    """dialogue, curated, reasoning, narrative, qa, chunk. Default: the card's."""
    context_turns: int = 3
    """Most turns of context before a reply."""
    rows: int | None = None
    """So many rows in all, the best ones. Default: all."""
    quality: bool = False
    """Keep the best tiers alone: speakers told by name, description or pronoun, one question an answer."""


def main(args: Args) -> None:
    from persona import card as cards
    from persona import dataset, runlog

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    card = cards.load_card(args.persona)
    corpus = (
        args.corpus or runlog.resolve_model(args).corpus
    )  # the model decides nothing but the default corpus
    folder = args.out or config.dataset_folder(args.persona, corpus)
    manifest, made = dataset.ensure(
        card,
        corpus,
        folder,
        force=args.force,
        strategies=args.strategies,
        context_turns=args.context_turns,
        rows=args.rows,
        quality=args.quality,
        seed=args.seed,
    )
    if not made:
        print(f"{folder} is up to date (--force makes it again)")
        return
    kinds = sorted({k for c in manifest["counts"].values() for k in c} - {"rows"})
    print(f"{'split':<12}{'rows':>8}" + "".join(f"{k:>10}" for k in kinds) + f"{'distinct':>10}")
    for split, counts in manifest["counts"].items():
        print(
            f"{split:<12}{counts['rows']:>8,}"
            + "".join(f"{counts.get(k, 0):>10,}" for k in kinds)
            + f"{manifest['distinct_answers'][split]:>10,}"
        )
    for reason, n in manifest["removed"].items():
        print(f"taken out, {reason}: {n}")
    figures = manifest["figures"]
    if args.rows and figures["rows"] < args.rows:
        print(f"{args.rows:,} rows were asked for; the corpus has {figures['rows']:,}, and nothing is padded")
    leak = manifest["leak_report"]["test"]
    print(
        f"8-grams of test answers that stand in training answers: mean {leak['mean']:.2%}, "
        f"highest {leak['max']:.2%}"
    )
    print(f"written to {folder}")


if __name__ == "__main__":
    config.run_script(main, Args)
