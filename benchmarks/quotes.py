"""Measure quote attribution against gold speakers in the format of the Project Dialogism Novel Corpus.

Reads   DIR/novel_text.txt, DIR/quotation_info.csv, DIR/character_info.csv

    python benchmarks/quotes.py --gold ../shared/quotes/styles
    python benchmarks/quotes.py --gold DIR --persona sherlock --errors errors.txt

A gold quotation is found if a quote overlaps it; a quote is right if its speaker is the gold speaker's name
or one of his aliases. A description ("the Coroner") has no gold name: it counts for the character that it
means most often.
"""

import ast
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

import config
from persona.card import Card, load_card
from persona.errors import UserError
from persona.mentions import fold
from persona.quotes import Quote, attribute
from persona.vocabulary import TITLES


@dataclass(frozen=True)
class Args:
    """Settings of the measurement."""

    gold: Path = config.ROOT.parent / "shared" / "quotes" / "styles"
    """Folder of an annotated novel."""
    persona: str = "poirot"
    """The card whose persona and narrator are in it."""
    errors: Path | None = None
    """Write every wrong quote, with its surroundings, to this file."""


@dataclass(frozen=True)
class Gold:
    """A gold quotation piece."""

    start: int
    end: int
    speaker: str
    type: str


@dataclass
class Figures:
    """What was measured; shares are 0..1."""

    recall_spoken: float
    precision_spoken: float
    accuracy: float
    accuracy_by_type: dict[str, tuple[int, int]]
    persona_precision: float
    persona_recall: float
    by_tier: dict[str, list[int]]
    """Tier -> quotes, right, kept, kept and right, kept as the persona's, of these his."""
    wrong: list[tuple[Quote, Gold | None]]


def read_gold(folder: Path) -> tuple[str, list[Gold], dict[str, set[str]]]:
    """Text, gold pieces by position, and each character's folded names."""
    for name in ("novel_text.txt", "quotation_info.csv", "character_info.csv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; give a folder in the PDNC format")
    text = (folder / "novel_text.txt").read_text(encoding="utf-8")
    with open(folder / "character_info.csv", encoding="utf-8", newline="") as file:
        aliases = {
            row["Main Name"]: {fold(a).lower() for a in (*ast.literal_eval(row["Aliases"]), row["Main Name"])}
            for row in csv.DictReader(file)
        }
    # The annotation names one person in two ways where a main name is missing from the list of characters.
    main = {fold(name).lower(): name for name in aliases}
    for name, names in aliases.items():
        main |= {n: name for n in names if n not in main}
    with open(folder / "quotation_info.csv", encoding="utf-8", newline="") as file:
        gold = [
            Gold(start, end, main.get(fold(row["speaker"]).lower(), row["speaker"]), row["quoteType"])
            for row in csv.DictReader(file)
            for start, end in ast.literal_eval(row["quoteByteSpans"])
        ]
    return text, sorted(gold, key=lambda g: g.start), aliases


def measure(folder: Path, persona: str) -> Figures:
    """Attribute the novel and compare."""
    text, gold, aliases = read_gold(folder)
    speakers = {g.speaker for g in gold}
    aliases = {name: names for name, names in aliases.items() if name in speakers}
    card = load_card(persona)
    quotes = attribute(text, card)
    pairs = _pair(quotes, gold)
    spoken = [q for q in quotes if q.tier != "unspoken"]
    found = {id(g) for q in spoken for g in pairs[id(q)]}
    voiced = [q for q in quotes if q.speaker is not None]

    names = _names(card, aliases, voiced, pairs)
    persona_gold = names(card.persona.name)
    right: dict[int, bool] = {}
    by_type: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong: list[tuple[Quote, Gold | None]] = []
    speaker_of = {id(g): q.speaker for q in spoken for g in pairs[id(q)]}
    for piece in gold:
        ok = names(speaker_of.get(id(piece)) or "") == piece.speaker
        by_type[piece.type][0] += 1
        by_type[piece.type][1] += ok
    by_tier: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    for q in quotes:
        mine = pairs[id(q)]
        right[id(q)] = bool(mine) and q.speaker is not None and names(q.speaker) == mine[0].speaker
        his = bool(mine) and mine[0].speaker == persona_gold
        kept_his = q.keep and q.speaker == card.persona.name
        for i, value in enumerate(
            (1, right[id(q)], q.keep, q.keep and right[id(q)], kept_his, kept_his and his)
        ):
            by_tier[q.tier][i] += value
        if not right[id(q)] and (mine or q.speaker is not None):
            wrong.append((q, mine[0] if mine else None))
    kept = sum(v[4] for v in by_tier.values())
    his_kept = {
        id(g)
        for q in quotes
        if q.keep and q.speaker == card.persona.name
        for g in pairs[id(q)]
        if g.speaker == persona_gold
    }
    his = [g for g in gold if g.speaker == persona_gold]
    return Figures(
        recall_spoken=len(found) / len(gold),
        precision_spoken=sum(bool(pairs[id(q)]) for q in voiced) / len(voiced),
        accuracy=sum(v[1] for v in by_type.values()) / len(gold),
        accuracy_by_type={k: (v[0], v[1]) for k, v in by_type.items()},
        persona_precision=sum(v[5] for v in by_tier.values()) / max(1, kept),
        persona_recall=len(his_kept) / max(1, len(his)),
        by_tier=dict(by_tier),
        wrong=wrong,
    )


def _pair(quotes: list[Quote], gold: list[Gold]) -> dict[int, list[Gold]]:
    """Gold pieces that overlap each quote."""
    pairs: dict[int, list[Gold]] = {id(q): [] for q in quotes}
    first = 0
    for q in quotes:
        while first < len(gold) and gold[first].end <= q.start:
            first += 1
        for piece in gold[first:]:
            if piece.start >= q.end:
                break
            pairs[id(q)].append(piece)
    return pairs


def _names(
    card: Card, aliases: dict[str, set[str]], voiced: list[Quote], pairs: dict[int, list[Gold]]
) -> Callable[[str], str | None]:
    """A function from our speaker names to gold names."""
    table: dict[str, str | None] = {}
    for person in (card.persona, card.narrator, *card.people):
        if person is None:
            continue
        own = {fold(a).lower() for a in (*person.aliases, person.name)}
        table[person.name] = next((g for g, names in aliases.items() if own & names), None)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for q in voiced:
        if pairs[id(q)]:
            votes[q.speaker][pairs[id(q)][0].speaker] += 1

    def lookup(name: str) -> str | None:
        if name not in table:
            key = fold(name).lower()
            bare = key.split(" ", 1)[1] if key.split(" ")[0] in TITLES and " " in key else key
            hits = [g for g, names in aliases.items() if key in names] or [
                g for g, names in aliases.items() if bare in names
            ]
            lower = name[:1].islower() or key == "coroner"
            table[name] = (
                hits[0]
                if len(hits) == 1
                else (votes[name].most_common(1)[0][0] if lower and votes[name] else None)
            )
        return table[name]

    return lookup


def write_errors(path: Path, text: str, wrong: list[tuple[Quote, Gold | None]]) -> None:
    """Wrong quotes with what stands around them, for reading."""
    lines = []
    for q, piece in wrong:
        lines.append(
            f"=== {q.start} {q.tier} {q.confidence} keep={q.keep} ours={q.speaker} "
            f"gold={piece.speaker if piece else None} {piece.type if piece else ''}"
        )
        lines.append(
            text[max(0, q.start - 250) : q.start]
            + "[["
            + text[q.start : q.end][:200]
            + "]]"
            + text[q.end : q.end + 150]
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(args: Args) -> None:
    figures = measure(args.gold, args.persona)
    print(f"spoken quotations found   {figures.recall_spoken:.4f}")
    print(f"precision with a speaker  {figures.precision_spoken:.4f}")
    print(f"speaker right             {figures.accuracy:.4f}")
    for kind, (n, right) in sorted(figures.accuracy_by_type.items()):
        print(f"  {kind:<12} {right:5d} of {n:5d}  {right / n:.3f}")
    print(
        f"kept as the persona's: precision {figures.persona_precision:.4f}, "
        f"recall {figures.persona_recall:.4f}"
    )
    print(f"{'tier':<14}{'quotes':>8}{'right':>8}{'kept':>8}{'right':>8}{'persona':>9}{'his':>6}")
    for tier, row in sorted(figures.by_tier.items(), key=lambda item: -item[1][0]):
        print(f"{tier:<14}{row[0]:>8}{row[1]:>8}{row[2]:>8}{row[3]:>8}{row[4]:>9}{row[5]:>6}")
    if args.errors:
        text = (args.gold / "novel_text.txt").read_text(encoding="utf-8")
        write_errors(args.errors, text, figures.wrong)


if __name__ == "__main__":
    config.run_script(main, Args)
