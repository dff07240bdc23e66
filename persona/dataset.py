"""From rows to a data set: splits by story, near-duplicates out, leak report, manifest.

What makes the rows is in persona.strategies, narrative, questions and reasoning.
"""

import json
import logging
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import config
from persona import leaks, runlog
from persona.card import Card
from persona.continued import continued_rows
from persona.corpus import Corpus, Story, load_corpus
from persona.data_card import data_card
from persona.deduplication import answer_grams, figures_of, remove_near_duplicates, remove_stock_phrases
from persona.errors import UserError
from persona.follow_ups import follow_up_rows
from persona.narrative import narrative_rows
from persona.questions import qa_rows
from persona.reasoning import curated_reasoning_rows, in_plain_voice, reasoning_rows
from persona.rows import SPLITS, Row, answer_of
from persona.strategies import chunk_rows, curated_rows, dialogue_rows, quotes_of

if TYPE_CHECKING:
    from persona.jobs import Asker

logger = logging.getLogger(__name__)

FILES = ("train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json", "README.md")
PREFERENCE = ("dialogue", "curated", "guard", "reasoning", "narrative", "qa", "chunk")
"""Of two rows that exclude each other, the one whose strategy comes first stays."""
SECOND_PREFERENCE = ("curated", "guard", "reasoning", "qa", "narrative", "chunk", "dialogue")
"""The same for second and third questions: dialogue has so many that the others lose nothing to it."""
STRATEGIES = ("dialogue", "curated", "reasoning", "narrative", "qa", "chunk")
"""What --strategies takes; guard rows come with the curated ones."""
TAUGHT = ("narrative", "qa")
"""What a teacher model writes where one is given."""
BEST_TIERS = (None, "explicit", "description", "pronoun", "marked", "rules", "teacher")
"""What --quality keeps: speakers told by name, description or pronoun, and one question an answer."""


def units_of(corpus: Corpus) -> list[Story]:
    """What is split whole: the stories.

    Where there are fewer than three, their chapters ("chapter-3", or "story/chapter-3").
    """
    if len(corpus.stories) >= 3:
        return list(corpus.stories)
    alone = len(corpus.stories) == 1
    return [
        Story(c.id if alone else f"{s.id}/{c.id}", c.title, s.text[c.start : c.end], (), s.source)
        for s in corpus.stories
        for c in s.chapters
    ]


def story_splits(name: str, units: list[Story], card: Card) -> dict[str, str]:
    """Story id -> split.

    The card decides for every story that any of its corpora names; where it names none, the last tenths are
    held out.

    Raises:
        UserError: nothing is left to train on, or nothing is held out.
    """
    held = {
        split: {s for c in card.corpora.values() for s in getattr(c, split)}
        for split in ("validation", "test")
    }
    splits = {s.id: next((name for name, ids in held.items() if s.id in ids), "train") for s in units}
    if not {"validation", "test"} & set(splits.values()):
        # no story is named on the card: the last tenth (at least one) tests, the tenth before it validates
        ids = sorted(splits)
        if len(ids) < 3:
            raise UserError(
                f"corpus {name} has {len(ids)} stories or chapters and the card names none of them: "
                "three are needed to train, validate and test"
            )
        share = max(1, len(ids) // 10)
        splits |= dict.fromkeys(ids[-share:], "test") | dict.fromkeys(ids[-2 * share : -share], "validation")
    if "train" not in splits.values():
        raise UserError(f"corpus {name}: every story is held out by the card, nothing is left to train on")
    return splits


def leak_report(rows: dict[str, list[Row]]) -> dict:
    """How much of the held-out answers stands in training answers, by word 8-grams."""
    known = answer_grams(rows["train"])
    report = {}
    for split in ("validation", "test"):
        shares = leaks.shares([answer_of(row) for row in rows[split]], known)
        report[split] = {"rows": shares["n"], "mean": shares["mean"], "max": shares["max"]}
    return report


def rows_of(story: Story, card: Card, strategies: tuple[str, ...], context_turns: int) -> list[Row]:
    """All rows of a story by rules."""
    quotes = quotes_of(story, card)
    found = []
    if "dialogue" in strategies:
        replies = dialogue_rows(story, card, quotes, context_turns)
        found += replies + continued_rows([r for r in replies if not r["meta"]["variant"]])
    if "reasoning" in strategies:
        found += reasoning_rows(story, card, quotes)
    if "narrative" in strategies:
        found += narrative_rows(story, card, quotes)
    if "qa" in strategies:
        found += qa_rows(story, card, quotes) + follow_up_rows(
            story, card, dialogue_rows(story, card, quotes, 1)
        )
    if "chunk" in strategies:
        found += chunk_rows(story, card)
    return found


def preference(row: Row) -> tuple:
    """Sorts rows by how gladly they are kept: a strategy's first question before second ones."""
    meta = row["meta"]
    variant = meta.get("variant", 0)
    order = SECOND_PREFERENCE if variant else PREFERENCE
    return variant, order.index(meta["strategy"]), row["id"]


def build(
    card: Card,
    corpus_name: str,
    out: Path,
    *,
    strategies: tuple[str, ...] = (),
    context_turns: int = 3,
    rows: int | None = None,
    quality: bool = False,
    trace: bool = True,
    passages_per_story: int | None = None,
    teacher: "Asker | None" = None,
    seed: int = 42,
) -> dict:
    """Make a data set in `out`: train, validation and test rows, manifest.json, README.md.

    Returns the manifest. `rows`: so many in all, the best ones; `quality`: the best tiers alone; without
    `trace` reasoning rows conclude alone; `teacher` writes the narrative and question rows in place of the
    rules. Everything is decided by sources, card, settings and the teacher's answers; the seed orders the
    rows. Files appear only when all are ready.
    """
    strategies = strategies or card.strategies
    if strategies == ("persona_chat",):
        from persona.persona_chat import build_persona_chat

        corpus, found, removed = build_persona_chat(card, corpus_name, seed=seed)
        return _write(card, corpus, found, {}, removed, out, {"strategies": list(strategies), "seed": seed})
    _check_asked(strategies, context_turns)
    corpus = load_corpus(card, corpus_name)
    units = units_of(corpus)
    splits = story_splits(corpus.name, units, card)
    found, unusable = _gathered(card, units, splits, strategies, context_turns, passages_per_story, teacher)
    if "dialogue" in strategies and not any(
        r["meta"]["strategy"] == "dialogue" for of in found.values() for r in of
    ):
        raise UserError(
            f"corpus {corpus.name}: {card.display_name} never speaks there; "
            "give another corpus, or --strategies without dialogue"
        )
    if not trace:
        for of in found.values():
            of[:] = [in_plain_voice(r, card) if r["meta"]["strategy"] == "reasoning" else r for r in of]
    removed = select(found, rows, quality) + unusable
    _check_filled(card, corpus, found)
    for split in SPLITS:
        # a row's place follows from itself, so that more rows of one kind leave the order of the others alone
        found[split].sort(key=lambda row: runlog.sha256_of(f"{seed}-{split}-{row['id']}"))
    settings = {
        "strategies": list(strategies),
        "context_turns": context_turns,
        "rows": rows,
        "quality": quality,
        "trace": trace,
        "teacher": teacher.id if teacher else None,
        "passages_per_story": passages_per_story,
        "seed": seed,
    }
    return _write(card, corpus, found, splits, removed, out, settings)


def _check_asked(strategies: tuple[str, ...], context_turns: int) -> None:
    if unknown := [s for s in strategies if s not in STRATEGIES]:
        raise UserError(f"unknown strategy {unknown[0]!r}: there is {', '.join(STRATEGIES)}")
    if context_turns < 1:
        raise UserError(f"--context-turns {context_turns}: a reply needs at least one turn of context")


def _check_filled(card: Card, corpus: Corpus, rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        if not rows[split]:
            raise UserError(
                f"corpus {corpus.name}: no rows for {split}; "
                f"the persona {card.display_name} hardly speaks there, or its stories are missing"
            )


def _gathered(
    card: Card,
    units: list[Story],
    splits: dict[str, str],
    strategies: tuple[str, ...],
    context_turns: int,
    passages_per_story: int | None,
    teacher: "Asker | None",
) -> tuple[dict[str, list[Row]], Counter]:
    """All rows by split, of the stories, the teacher and the card; and what of the teacher's was unusable."""
    from tqdm import tqdm

    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    by_rules = tuple(s for s in strategies if not (teacher and s in TAUGHT))
    for story in tqdm(units, desc="stories", disable=None):
        found[splits[story.id]] += rows_of(story, card, by_rules, context_turns)
    unusable: Counter = Counter()
    if teacher and set(strategies) & set(TAUGHT):
        from persona.taught import taught_rows

        taught, unusable = taught_rows(units, card, teacher, strategies, passages_per_story)
        for row in taught:
            found[splits[row["meta"]["story"]]].append(row)
    for name, make in (("curated", curated_rows), ("reasoning", curated_reasoning_rows)):
        if name in strategies:
            for split, extra in make(card).items():
                found[split] += extra
    return found, unusable


def select(rows: dict[str, list[Row]], wanted: int | None, quality: bool) -> Counter:
    """Choose what stays of all rows; works in place, returns how many went and why."""
    removed: Counter = Counter()
    for split in SPLITS:
        rows[split].sort(key=preference)
        if quality:
            best = [
                r for r in rows[split] if r["meta"]["tier"] in BEST_TIERS and not r["meta"].get("variant")
            ]
            removed[f"{split}: not of the best quality"] += len(rows[split]) - len(best)
            rows[split] = best
    removed += remove_near_duplicates(rows)
    for split in SPLITS:
        rows[split], stock = remove_stock_phrases(rows[split])
        removed += Counter({f"{split}: {reason}": n for reason, n in stock.items()})
    total = sum(map(len, rows.values()))
    if wanted is not None and wanted < total:
        for split in SPLITS:
            n = max(1, round(len(rows[split]) * wanted / total))
            removed[f"{split}: more than were asked for"] += len(rows[split]) - n
            rows[split] = rows[split][:n]
    return +removed


def _write(
    card: Card,
    corpus: Corpus,
    rows: dict[str, list[Row]],
    splits: dict[str, str],
    removed: Counter,
    out: Path,
    settings: dict,
) -> dict:
    out.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for split in SPLITS:
        runlog.write_jsonl(out / f"{split}.jsonl", rows[split])
        hashes[f"{split}.jsonl"] = runlog.sha256_of(out / f"{split}.jsonl")
    by_story: dict[str, Counter] = defaultdict(Counter)
    for split in SPLITS:
        for row in rows[split]:
            by_story[row["meta"]["story"] or "(none)"][row["meta"]["strategy"]] += 1
    manifest = {
        "version": config.VERSION,
        "persona": card.name,
        "corpus": corpus.name,
        "settings": settings,
        "counts": {
            s: {"rows": len(rows[s]), **Counter(r["meta"]["strategy"] for r in rows[s])} for s in SPLITS
        },
        "distinct_answers": {s: len({answer_of(r) for r in rows[s]}) for s in SPLITS},
        "figures": figures_of([r for s in SPLITS for r in rows[s]]),
        "stories": {
            story: {"split": splits.get(story, "by topic"), **counts}
            for story, counts in sorted(by_story.items())
        },
        "removed": dict(sorted(removed.items())),
        "leak_report": leak_report(rows),
        "files_sha256": hashes,
        "sources_sha256": corpus.sources_sha256,
    }
    runlog.write_text(out / "README.md", data_card(card, manifest, rows))
    runlog.write_json(out / "manifest.json", manifest)
    return manifest


def inputs_sha256(card: Card, corpus_name: str, settings: dict) -> str:
    """Hash of what a data set depends on besides a downloaded corpus.

    Cards, hand-written rows, word lists, local sources, settings, the code.
    """
    local = card.corpora[corpus_name].path if corpus_name in card.corpora else Path(corpus_name)
    files = sorted(p for p in card.folder.iterdir() if p.is_file())
    files += sorted(
        p for folder in (config.PERSONAS, config.ROOT / "data" / "lexicon") for p in folder.rglob("*.t*t*")
    )
    files += sorted(p for p in local.iterdir() if p.is_file()) if local and local.is_dir() else []
    files += sorted((config.ROOT / "persona").glob("*.py"))
    return runlog.sha256_of(
        corpus_name, json.dumps(settings, sort_keys=True), *(p for p in files if p.is_file())
    )


def ensure(
    card: Card,
    corpus_name: str,
    out: Path,
    *,
    force: bool = False,
    teacher: "Asker | None" = None,
    **settings,
) -> tuple[dict, bool]:
    """The manifest of an up-to-date data set in `out`, made first where it is not there.

    True where it was made now. One for which the teacher did not answer everything is made again next time.
    """
    inputs = inputs_sha256(card, corpus_name, {**settings, "teacher": teacher.id if teacher else None})
    stamp = out / ".inputs"
    if (
        not force
        and stamp.is_file()
        and stamp.read_text() == inputs
        and all((out / f).is_file() for f in FILES)
    ):
        manifest = runlog.read_json(out / "manifest.json", "the manifest")
        if all(
            runlog.sha256_of(out / name) == expected for name, expected in manifest["files_sha256"].items()
        ):
            return manifest, False
    stamp.unlink(missing_ok=True)
    manifest = build(card, corpus_name, out, teacher=teacher, **settings)
    if not any(reason.startswith(("teacher: left", "teacher: failed")) for reason in manifest["removed"]):
        runlog.write_text(stamp, inputs)
    return manifest, True
