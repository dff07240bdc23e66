"""Measure the tuned model against the untouched base on stories that neither has seen.

Reads   data/dataset/<persona>-<corpus>/{train,test}.jsonl, result/<run>/adapter, the persona's probes.jsonl
Writes  result/<run>/evaluation_report.json, predictions.jsonl

    python evaluation.py
    python evaluation.py --run sherlock-tiny --limit 50
    python evaluation.py --protocol reference     # as the reference system did, on rows seen in training:
                                                  # how much is memory?

Both systems get the same messages, system prompt included, and decode greedily. Intervals are bootstrapped
by story, or by scene where fewer than ten stories are held out.
"""

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import config
from persona.errors import UserError


@dataclass(frozen=True)
class Args(config.RunArgs):
    protocol: Literal["held-out", "reference"] = "held-out"
    """held-out: stories kept from training.
    reference: rows seen in training and the reference system's definitions."""
    limit: int = 0
    """Most items from the data set; 0 for all (30 with --protocol reference, as there)."""
    max_new_tokens: int = 128
    batch_size: int = 32
    """Conversations answered at once."""
    four_bit: bool = True
    """Load the base in NF4, as it was trained on."""


def chosen_rows(args: Args, folder: Path) -> tuple[list, list]:
    """(rows to evaluate, training rows).

    Dialogue and curated rows of the test split, or training rows for the reference protocol.
    """
    from persona import scoring
    from persona.rows import read_rows

    train = read_rows(folder / "train.jsonl")
    rows = train if args.protocol == "reference" else read_rows(folder / "test.jsonl")
    rows = scoring.asked_rows(rows)
    limit = args.limit or (30 if args.protocol == "reference" else 0)
    if limit and limit < len(rows):
        rows = random.Random(args.seed).sample(rows, limit)
    return rows, train


def leakage(replies: list[str], train: list, answers: dict[str, list[str]]) -> dict:
    """Word 8-grams of true replies, and of each system's answers, that stand in training answers."""
    from persona import metrics
    from persona.deduplication import answer_grams

    known = answer_grams(train)

    def shares(texts: list[str]) -> dict:
        found = [metrics.overlap_share(t, known) for t in texts]
        return {
            "mean": sum(found) / len(found),
            "max": max(found),
            "over_20_percent": sum(x > 0.2 for x in found),
            "n": len(found),
        }

    return {
        "n": 8,
        "true_replies": shares(replies),
        "answers": {s: shares(a) for s, a in answers.items()},
    }


def systems_of(args: Args, entry: config.ModelEntry, folder: Path) -> Iterator[tuple]:
    """(name, model, tokenizer): the base, then base and adapter. One base in memory serves both."""
    from persona import modeling

    device = modeling.pick_device()
    print(f"base {entry.source} on {device}, 4-bit {'NF4' if args.four_bit else 'off'}")
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, device, four_bit=args.four_bit).eval()
    yield "base", model, tokenizer
    yield "tuned", modeling.attach_adapter(model, folder / "adapter"), tokenizer


def evaluate(
    args: Args, card, entry: config.ModelEntry, folder: Path, rows: list, train: list
) -> tuple[dict, list]:
    """The report and the predictions."""
    from persona import runlog, scoring, significance
    from persona.chat import Sampling, context_length

    reference = args.protocol == "reference"
    items, probes = scoring.items_of(rows), [] if reference else scoring.probes_of(card)
    if reference:
        items = [replace(i, kind="dialogue", story=None) for i in items]  # one group, resampled item by item
    sampling = Sampling(temperature=0.0, max_new_tokens=args.max_new_tokens)
    wanted, records = len(items), {}
    for name, model, tokenizer in systems_of(args, entry, folder):
        items = scoring.fitted(tokenizer, items, context_length(model, tokenizer) - args.max_new_tokens)
        asked = [*items, *probes]
        records[name] = scoring.score(model, tokenizer, asked, sampling, args.batch_size, label=name)
    rate = scoring.canon_rate(train, card)

    def measure(group: list, of: list) -> dict:
        return (
            scoring.reference_metrics(group, of, card)
            if reference
            else scoring.metrics_of(group, of, card, rate)
        )

    metrics, resampled = scoring.metrics_by_kind(items, records, measure)
    answers = {name: [r.answer for r in of[: len(items)]] for name, of in records.items()}
    systems = {
        name: {"model": entry.source, "adapter": None, "prompt": card.system_prompt} for name in records
    }
    systems["tuned"]["adapter"] = str(folder / "adapter")
    report = {
        "run": folder.name,
        "protocol": args.protocol,
        "n": next(iter(metrics.values()))["values"]["base"]["n"],
        "n_probes": len(probes),
        "n_too_long": wanted - len(items),
        "seeds": [args.seed],
        "items_sha256": runlog.sha256_of(json.dumps([asdict(i) for i in asked], sort_keys=True)),
        "clusters": resampled,
        "stories": sorted({i.story for i in items if i.story}),
        "canon_term_rate": rate,
        "systems": systems,
        "decoding": asdict(sampling),
        "metrics": significance.with_holm(metrics),
        "controls": {},
        "leakage": leakage([i.reference for i in items], train, answers),
    }
    return report, scoring.predictions(asked, records)


def main(args: Args) -> None:
    from persona import card as cards
    from persona import runlog, scoring

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    config.require_positive(args, "max_new_tokens", "batch_size")
    config.require_limit(args)
    card = cards.load_card(args.persona)
    entry = runlog.resolve_model(args)
    folder = config.RESULT / config.run_name(args, entry)
    adapter = folder / "adapter" / "adapter_model.safetensors"
    if not adapter.is_file():
        raise UserError(f"no adapter at {adapter.parent}: make one with python fine_tune.py")
    data = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    rows, train = chosen_rows(args, data)
    suffix = "_reference" if args.protocol == "reference" else ""
    outputs = [folder / f"evaluation_report{suffix}.json", folder / f"predictions{suffix}.jsonl"]

    settings = {k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")}
    code = [
        config.ROOT / "persona" / f"{m}.py"
        for m in ("scoring", "metrics", "intervals", "significance", "chat", "generation")
    ]
    probes = [p for p in [card.folder / "probes.jsonl"] if p.is_file()]
    inputs = runlog.sha256_of(
        adapter,
        data / "train.jsonl",
        data / "test.jsonl",
        *probes,
        *code,
        Path(__file__),
        json.dumps(settings, sort_keys=True),
    )
    stage = f"evaluation{suffix}"
    if not args.force and runlog.is_current(folder, stage, inputs, outputs):
        report = runlog.read_json(outputs[0], "the evaluation report")
        print(f"{outputs[0]} is up to date (--force evaluates again)")
    else:
        start = runlog.now()
        report, predictions = evaluate(args, card, entry, folder, rows, train)
        runlog.write_jsonl(outputs[1], predictions)
        runlog.write_json(outputs[0], report)
        runlog.record_stage(
            folder,
            stage,
            status="done",
            start=start,
            end=runlog.now(),
            inputs_sha256=inputs,
            settings=settings,
        )
    where = "rows seen in training" if suffix else f"replies of {len(report['stories'])} held-out stories"
    over = {"story": "stories", "scene": "scenes"}.get(report["clusters"], f"{report['clusters']}s")
    long = f" ({report['n_too_long']} more do not fit the context)" if report["n_too_long"] else ""
    print(
        f"\n{report['n']} {where}{long}; 95% intervals by bootstrap over {over}\n\n{scoring.table(report)}\n"
    )
    true = report["leakage"]["true_replies"]
    print(
        f"8-grams of true replies that stand in training answers: mean {true['mean']:.2%}, "
        f"highest {true['max']:.2%}; written to {outputs[0]}"
    )


if __name__ == "__main__":
    config.run_script(main, Args)
