"""From rows to a data set: splits by story, near-duplicates out, leak report, manifest and card.

What makes the rows themselves is in persona.strategies.
"""

import json
import logging
from collections import Counter, defaultdict
from pathlib import Path

import config
from persona import metrics, runlog
from persona.card import Card
from persona.corpus import Corpus, Story, load_corpus
from persona.errors import UserError
from persona.rows import SPLITS, Row, answer_of
from persona.strategies import chunk_rows, curated_rows, dialogue_rows

logger = logging.getLogger(__name__)

FILES = ("train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json", "README.md")
NEAR = 0.8
"""MinHash Jaccard on word 3-shingles from which two texts count as near-duplicates."""


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


def remove_near_duplicates(rows: dict[str, list[Row]]) -> Counter:
    """Take out rows whose instruction or response is near one held out; works in place.

    Out of train, and out of validation against test. Instruction: all turns before the answer. Rows that
    repeat another row of their own split word for word go, too.
    """
    from datasketch import MinHash, MinHashLSH

    removed: Counter = Counter()

    def sketches(row: Row) -> list[tuple[str, MinHash]]:
        instruction = " ".join(m["content"] for m in row["messages"][:-1] if m["role"] != "system")
        found = []
        texts = {"instruction": instruction, "response": answer_of(row)}
        if row["meta"]["strategy"] == "chunk":  # all chunks have the same two requests
            del texts["instruction"]
        for kind, text in texts.items():
            w = metrics.words(text)
            shingles = {" ".join(w[i : i + 3]) for i in range(max(1, len(w) - 2))}
            sketch = MinHash(num_perm=64, seed=1)
            sketch.update_batch([s.encode() for s in shingles])
            found.append((kind, sketch))
        return found

    indexes = {kind: MinHashLSH(threshold=NEAR - 0.1, num_perm=64) for kind in ("instruction", "response")}
    kept_sketches: dict[str, MinHash] = {}
    for split in ("test", "validation", "train"):
        kept, seen, fresh = [], set(), []
        for row in rows[split]:
            if row["id"] in seen:
                removed[f"{split}: repeated"] += 1
                continue
            seen.add(row["id"])
            pair = sketches(row)
            near = any(
                sketch.jaccard(kept_sketches[f"{key}/{kind}"]) >= NEAR
                for kind, sketch in pair
                for key in indexes[kind].query(sketch)
            )
            if near:
                removed[f"{split}: near a held-out row"] += 1
                continue
            kept.append(row)
            fresh += [(kind, row["id"], sketch) for kind, sketch in pair]
        rows[split] = kept
        for kind, key, sketch in fresh:  # rows of one split may resemble each other
            if f"{key}/{kind}" not in kept_sketches:
                kept_sketches[f"{key}/{kind}"] = sketch
                indexes[kind].insert(key, sketch)
    return removed


def leak_report(rows: dict[str, list[Row]]) -> dict:
    """How much of the held-out answers stands in training answers, by word 8-grams."""
    known = {
        g
        for row in rows["train"]
        for m in row["messages"]
        if m["role"] == "assistant"
        for g in metrics.ngrams(m["content"], 8)
    }
    report = {}
    for split in ("validation", "test"):
        shares = [metrics.overlap_share(answer_of(row), known) for row in rows[split]]
        report[split] = {
            "rows": len(shares),
            "mean": sum(shares) / len(shares) if shares else 0.0,
            "max": max(shares, default=0.0),
        }
    return report


def build(
    card: Card,
    corpus_name: str,
    out: Path,
    *,
    strategies: tuple[str, ...] = (),
    context_turns: int = 3,
    seed: int = 42,
) -> dict:
    """Make a data set in `out`: train, validation and test rows, manifest.json, README.md.

    Returns the manifest. Everything is decided by sources, card and settings; the seed orders the rows. Files
    appear only when all are ready.
    """
    import random

    strategies = strategies or card.strategies
    unknown = [s for s in strategies if s not in ("dialogue", "curated", "chunk")]
    if unknown:
        raise UserError(f"unknown strategy {unknown[0]!r}: there is dialogue, curated, chunk")
    if context_turns < 1:
        raise UserError(f"--context-turns {context_turns}: a reply needs at least one turn of context")
    corpus = load_corpus(card, corpus_name)
    units = units_of(corpus)
    splits = story_splits(corpus.name, units, card)
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for story in units:
        if "dialogue" in strategies:
            rows[splits[story.id]] += dialogue_rows(story, card, context_turns)
        if "chunk" in strategies:
            rows[splits[story.id]] += chunk_rows(story, card)
    if "dialogue" in strategies and not any(
        r["meta"]["strategy"] == "dialogue" for of in rows.values() for r in of
    ):
        raise UserError(
            f"corpus {corpus.name}: {card.display_name} never speaks there; "
            "give another corpus, or --strategies without dialogue"
        )
    if "curated" in strategies:
        for split, extra in curated_rows(card).items():
            rows[split] += extra
    removed = remove_near_duplicates(rows)
    for split in SPLITS:
        if not rows[split]:
            raise UserError(
                f"corpus {corpus.name}: no rows for {split}; "
                f"the persona {card.display_name} hardly speaks there, or its stories are missing"
            )
        random.Random(f"{seed}-{split}").shuffle(rows[split])
    return _write(
        card,
        corpus,
        rows,
        splits,
        removed,
        out,
        {"strategies": list(strategies), "context_turns": context_turns, "seed": seed},
    )


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


def data_card(card: Card, manifest: dict, rows: dict[str, list[Row]]) -> str:
    """The data set card: hub header, counts, how it was made, leaks, examples."""
    counts = manifest["counts"]
    kinds = sorted({k for c in counts.values() for k in c} - {"rows"})
    leaks = [f"{s} mean {r['mean']:.2%}, highest {r['max']:.2%}" for s, r in manifest["leak_report"].items()]
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
        "Stories are split whole, before anything is made from them; curated rows by topic. Near-duplicates "
        "(MinHash Jaccard >= 0.8 on word 3-shingles) of held-out rows are taken out of training.",
        "",
        "Share of a held-out answer's word 8-grams that stand in training answers: " + ", ".join(leaks) + ".",
        "",
    ]
    for kind in kinds:
        example = next((r for r in rows["train"] if r["meta"]["strategy"] == kind), None)
        if example:
            lines += [
                f"## {kind}",
                "",
                *(f"> **{m['role']}**: {m['content']}\n>" for m in example["messages"][1:]),
                "",
            ]
    return "\n".join(lines)


def inputs_sha256(card: Card, corpus_name: str, settings: dict) -> str:
    """Hash of what a data set depends on besides a downloaded corpus.

    Card, curated rows, local sources, settings, the code.
    """
    local = card.corpora[corpus_name].path if corpus_name in card.corpora else Path(corpus_name)
    files = [card.folder / "persona.toml", card.folder / "curated.jsonl"]
    files += sorted(p for p in local.iterdir() if p.is_file()) if local and local.is_dir() else []
    files += sorted((config.ROOT / "persona").glob("*.py"))
    return runlog.sha256_of(
        corpus_name, json.dumps(settings, sort_keys=True), *(p for p in files if p.is_file())
    )


def ensure(card: Card, corpus_name: str, out: Path, *, force: bool = False, **settings) -> tuple[dict, bool]:
    """The manifest of an up-to-date data set in `out`, made first where it is not there.

    True where it was made now.
    """
    inputs = inputs_sha256(card, corpus_name, settings)
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
    manifest = build(card, corpus_name, out, **settings)
    runlog.write_text(stamp, inputs)
    return manifest, True
