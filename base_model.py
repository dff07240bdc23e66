"""Answers and metrics of the untouched base model.

What there is before training, and what a prompt alone can do.

Reads   data/dataset/<persona>-<corpus>/{train,test}.jsonl, the persona's probes.jsonl
Writes  result/<run>/base_report.json, base_predictions.jsonl

    python base_model.py                       # with the persona's system prompt, and without any
    python base_model.py --model qwen2.5-0.5b --limit 50
"""

import json
import logging
from dataclasses import asdict, dataclass, replace

import config


@dataclass(frozen=True)
class Args(config.RunArgs):
    limit: int = 0
    """Most items; 0 for all."""
    max_new_tokens: int = 128
    batch_size: int = 32
    """Conversations answered at once."""
    four_bit: bool = True
    """Load the base in NF4, as the adapters are trained on it."""


def without_system(items: list) -> list:
    """The same items without their system turn."""
    return [replace(i, messages=[m for m in i.messages if m["role"] != "system"]) for i in items]


def main(args: Args) -> None:
    from persona import card as cards
    from persona import modeling, runlog, scoring
    from persona.chat import Sampling, context_length
    from persona.rows import read_rows

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    config.require_positive(args, "max_new_tokens", "batch_size")
    config.require_limit(args)
    card = cards.load_card(args.persona)
    entry = runlog.resolve_model(args)
    folder = config.RESULT / config.run_name(args, entry)
    data = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    train, rows = read_rows(data / "train.jsonl"), read_rows(data / "test.jsonl")
    items = scoring.items_of(scoring.asked_rows(rows))
    items = [i for i in items if i.kind == "dialogue"] or items
    items, probes = items[: args.limit or None], scoring.probes_of(card)
    outputs = [folder / "base_report.json", folder / "base_predictions.jsonl"]
    settings = {k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")}
    inputs = runlog.sha256_of(
        data / "train.jsonl", data / "test.jsonl", json.dumps([settings, entry.source, entry.revision])
    )
    if not args.force and runlog.is_current(folder, "base_model", inputs, outputs):
        print(
            f"{outputs[0]} is up to date (--force evaluates again)\n\n"
            + scoring.table(runlog.read_json(outputs[0], "the report"))
        )
        return

    start, device = runlog.now(), modeling.pick_device()
    print(f"base {entry.source} on {device}, 4-bit {'NF4' if args.four_bit else 'off'}")
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, device, four_bit=args.four_bit).eval()
    sampling = Sampling(temperature=0.0, max_new_tokens=args.max_new_tokens)
    items = scoring.fitted(tokenizer, items, context_length(model, tokenizer) - args.max_new_tokens)
    variants = {"base": [*items, *probes], "base_no_prompt": without_system([*items, *probes])}
    records = {
        name: scoring.score(model, tokenizer, asked, sampling, args.batch_size, label=name)
        for name, asked in variants.items()
    }
    rate = scoring.canon_rate(train, card)
    metrics, resampled = scoring.metrics_by_kind(
        items, records, lambda group, of: scoring.metrics_of(group, of, card, rate)
    )
    prompts = {"base": card.system_prompt, "base_no_prompt": None}
    report = {
        "run": folder.name,
        "protocol": "held-out",
        "n": len(items),
        "clusters": resampled,
        "canon_term_rate": rate,
        "decoding": asdict(sampling),
        "systems": {
            name: {"model": entry.source, "adapter": None, "prompt": prompts[name]} for name in variants
        },
        "metrics": metrics,
    }
    predictions = scoring.predictions([*items, *probes], records)
    runlog.write_jsonl(outputs[1], predictions)
    runlog.write_json(outputs[0], report)
    runlog.record_stage(
        folder,
        "base_model",
        status="done",
        start=start,
        end=runlog.now(),
        inputs_sha256=inputs,
        settings=settings,
    )
    print(
        f"\n{len(items)} replies; 95% intervals by bootstrap over {resampled}s\n\n"
        f"{scoring.table(report)}\n\nwritten to {outputs[0]}"
    )


if __name__ == "__main__":
    config.run_script(main, Args)
