"""Measure the tuned model against the untouched base on stories that neither has seen.

Reads   data/dataset/<persona>-<corpus>/{train,test}.jsonl, result/<run>/adapter, the persona's probes.jsonl
        with --full: traps.jsonl, attacks.jsonl, deduction.jsonl, memory.jsonl of the persona, data/evaluation
Writes  result/<run>/evaluation_report.json, predictions.jsonl; with --compare result/comparison.json
        of a finished evaluation: judge_report.json; blind.html and its key; ratings_report.json

    python evaluation.py
    python evaluation.py --run sherlock-tiny --limit 50
    python evaluation.py --full                   # the whole suite: fidelity, character, reasoning, losses
    python evaluation.py --full --endpoint http://localhost:8000/v1 --endpoint-model NAME
    python evaluation.py --compare RUN RUN ...    # finished reports on the same items, side by side
    python evaluation.py --persona spc --bertscore-model FOLDER --bertscore-layers 9  # Synthetic-Persona-Chat
    python evaluation.py --judge NAME             # a judge's opinion of the answers of a finished evaluation
    python evaluation.py --export-blind           # a page for people to rate them on, blind
    python evaluation.py --import-ratings FILE ...
    python evaluation.py --protocol reference     # as the reference system did, on rows seen in training:
                                                  # how much is memory?

All systems get the same messages and decode greedily. Intervals are bootstrapped by story, or by scene where
fewer than ten stories are held out.
"""

import json
import logging
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import config
from persona.errors import UserError

REPORT_CODE = (
    *("scoring", "metrics", "intervals", "significance", "likelihood", "chat", "generation", "room", "leaks"),
)
"""Modules that the quick report follows from; the suite follows from these, too."""
SUITE_CODE = (
    *REPORT_CODE,
    *("suite", "suite_report", "systems", "tasks", "character", "abilities", "breaks", "held_out"),
    *("retrieval", "caveats", "fidelity", "markers", "copying", "style", "style_report", "item_files"),
)
PERSONA_CHAT_CODE = tuple(f"persona_chat_{part}" for part in ("report", "items", "metrics"))


@dataclass(frozen=True)
class Args(config.RunArgs):
    protocol: Literal["held-out", "reference"] = "held-out"
    """held-out: stories kept from training.
    reference: rows seen in training and the reference system's definitions."""
    full: bool = False
    """The whole suite, on five systems: base and tuned, with and without prompt, base with examples."""
    compare: tuple[str, ...] = ()
    """Finished runs to set side by side; runs that differ in their seed alone are merged."""
    endpoint: str | None = None
    """With --full: an OpenAI-compatible endpoint that answers in the place of a model of this machine."""
    endpoint_model: str | None = None
    """The name of the endpoint's model."""
    rag: bool = False
    """With --full: the tuned model with the corpus at hand, too (its other stories, not an item's own)."""
    judge: str | None = None
    """A model that judges the answers of a finished evaluation: its name at OPENAI_BASE_URL, the address of
    a server that has one model, or a model of this machine. It is qualified on known answers first."""
    judge_budget: int | None = None
    """Most tokens, prompt and completion together, for the judge. What it has judged is kept."""
    judge_anyway: bool = False
    """Ask a judge although it agrees too little with the known answers."""
    export_blind: bool = False
    """Make a page on which people rate answers of a finished evaluation, tuned against base, blind."""
    import_ratings: tuple[Path, ...] = ()
    """Ratings that were downloaded from the page, one file a rater."""
    limit: int = 0
    """Most items; 0 for all (--protocol reference: 30, as there; --full: 200; to be judged or rated: 100)."""
    max_new_tokens: int = 128
    batch_size: int = 32
    """Conversations answered at once; more are quicker on a large GPU."""
    four_bit: bool = True
    """Load the base in NF4, as it was trained on."""
    bertscore_model: str | None = None
    """With --persona spc: encoder of BERTScore, a folder or a hub id. Without it it is not measured."""
    bertscore_layers: int | None = None
    """The layer of the encoder whose vectors are compared."""


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
    from persona import leaks
    from persona.deduplication import answer_grams

    known = answer_grams(train)
    return {
        "n": leaks.WORDS,
        "true_replies": leaks.shares(replies, known),
        "answers": {s: leaks.shares(a, known) for s, a in answers.items()},
    }


def systems_of(args: Args, entry: config.ModelEntry, folder: Path) -> Iterator[tuple]:
    """(name, model, tokenizer): the base, then base and adapter. One base in memory serves both."""
    from persona import modeling

    device = modeling.pick_device()
    print(f"base {entry.source} on {device}, 4-bit {'NF4' if args.four_bit else 'off'}")
    model = modeling.load_base(entry, device, four_bit=args.four_bit).eval()
    tokenizer = modeling.load_tokenizer(entry)
    yield "base", model, tokenizer
    yield "tuned", modeling.attach_adapter(model, folder / "adapter"), tokenizer


def evaluate(
    args: Args, card, entry: config.ModelEntry, folder: Path, rows: list, train: list
) -> tuple[dict, list]:
    """The report and the predictions."""
    from persona import caveats, runlog, scoring, significance
    from persona.chat import Sampling, context_length
    from persona.suite_report import training_of

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
        "seeds": [training_of(folder).get("seed", args.seed)],
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
    return report | {"warnings": list(caveats.size(report))}, scoring.predictions(asked, records)


def asked_systems(args: Args, card, entry: config.ModelEntry, folder: Path, train: list) -> Iterator:
    """The endpoint's model, or the base and what was trained on it in all the ways that are compared."""
    from persona import modeling
    from persona.retrieval import Retriever
    from persona.systems import endpoint_system, local_systems

    if args.endpoint:
        cache = config.CACHE / "evaluation"
        return iter([endpoint_system(args.endpoint, args.endpoint_model, card, cache)])
    print(f"base {entry.source} on {modeling.pick_device()}, 4-bit {'NF4' if args.four_bit else 'off'}")
    return local_systems(
        entry,
        folder / "adapter",
        card,
        train,
        four_bit=args.four_bit,
        batch_size=args.batch_size,
        retriever=Retriever.open(card, args.corpus or entry.corpus) if args.rag else None,
        max_new_tokens=args.max_new_tokens,
    )


def evaluate_fully(
    args: Args, card, entry: config.ModelEntry, folder: Path, data: Path, train: list
) -> tuple[dict, list]:
    """The suite's report and predictions."""
    from persona import modeling, suite_report
    from persona.rows import read_rows
    from persona.suite import Sizes
    from persona.systems import context_of

    test = read_rows(data / "test.jsonl")
    tokenizer = modeling.load_tokenizer(entry)
    made, too_long = suite_report.prepare(
        card,
        args.corpus or entry.corpus,
        train,
        test,
        tokenizer,
        context_of(entry, tokenizer),
        args.max_new_tokens,
        Sizes(replies=args.limit or Sizes.replies),
    )
    training = suite_report.training_of(folder)
    facts = {
        "run": folder.name,
        "n_too_long": too_long,
        "seeds": [training.get("seed", args.seed)],
        "decoding": {"temperature": 0.0, "max_new_tokens": args.max_new_tokens},
        "training": training,
    }
    return suite_report.report(made, asked_systems(args, card, entry, folder, train), train, test, facts)


def evaluate_persona_chat(
    args: Args, card, entry: config.ModelEntry, folder: Path, data: Path, train: list
) -> tuple[dict, list]:
    """The report on Synthetic-Persona-Chat and its predictions; --limit counts conversations."""
    from persona import modeling, persona_chat_report, scoring, suite_report
    from persona.rows import read_rows
    from persona.systems import context_of

    tokenizer = modeling.load_tokenizer(entry)
    room = context_of(entry, tokenizer) - args.max_new_tokens
    training = suite_report.training_of(folder)
    facts = {"run": folder.name, "seeds": [training.get("seed", args.seed)], "training": training}
    systems = asked_systems(args, card, entry, folder, train)
    if not args.endpoint:
        systems = (s for s in systems if s.name in ("base", "tuned"))
    encoder = None
    if args.bertscore_model:
        device = modeling.pick_device().type
        encoder = persona_chat_report.Encoder(args.bertscore_model, args.bertscore_layers, device)
    return persona_chat_report.report(
        card,
        train,
        read_rows(data / "test.jsonl"),
        systems,
        lambda items: scoring.fitted(tokenizer, items, room),
        args.limit,
        args.max_new_tokens,
        encoder,
        facts,
    )


def compare_runs(args: Args) -> None:
    """Print and write finished reports side by side."""
    from persona import runlog, scoring
    from persona.comparison import compared, read_report

    if len(args.compare) < 2:
        raise UserError("--compare needs two runs or more")
    found = compared([read_report(config.RESULT, run) for run in args.compare])
    out = config.RESULT / "comparison.json"
    runlog.write_json(out, found)
    print(f"{', '.join(found['compared'])}: {found['n']} items\n\n{scoring.table(found)}\n\nwritten to {out}")


def ask_for_opinions(args: Args) -> None:
    """A judge's or people's opinion of the answers of a finished evaluation."""
    from persona import card as cards
    from persona import opinions, runlog

    card, entry = cards.load_card(args.persona), runlog.resolve_model(args)
    data = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    run = opinions.Finished(card, config.RESULT / config.run_name(args, entry), data)
    if args.judge:
        opinions.ask_judge(run, args.judge, args.limit, args.judge_budget, args.judge_anyway, print)
    elif args.export_blind:
        print(opinions.export_blind(run, args.limit, args.seed))
    else:
        print(opinions.import_ratings(run, args.import_ratings))


def checked(args: Args) -> None:
    """Refuse settings that do not go together."""
    config.require_positive(args, "max_new_tokens", "batch_size", "judge_budget")
    config.require_limit(args)
    if args.full and args.protocol == "reference":
        raise UserError("--full is of held-out items: leave --protocol reference out")
    if bool(args.endpoint) != bool(args.endpoint_model):
        raise UserError("--endpoint and --endpoint-model go together: an address, and a model's name there")
    if bool(args.bertscore_model) != bool(args.bertscore_layers):
        raise UserError("--bertscore-model and --bertscore-layers go together: an encoder, and its layer")
    if args.rag and (not args.full or args.endpoint):
        raise UserError("--rag adds a system to --full, on this machine")
    if args.endpoint and not args.full:
        raise UserError("--endpoint needs --full: the quick report compares base and tuned on this machine")
    opinions = sum(map(bool, (args.judge, args.export_blind, args.import_ratings)))
    if opinions > 1 or (opinions and args.protocol == "reference"):
        raise UserError("--judge, --export-blind, --import-ratings: one at a time, of held-out items")


def run_folder(args: Args, entry: config.ModelEntry) -> Path:
    """The run's folder; an endpoint's model has one of its own.

    Raises:
        UserError: nothing was trained there.
    """
    from persona import modeling

    if args.endpoint:
        name = re.sub(r"[^a-z0-9.]+", "-", args.endpoint_model.lower()).strip("-.")
        return config.RESULT / (args.run or f"{Path(args.persona).name}-{name}")
    folder = config.RESULT / config.run_name(args, entry)
    if not modeling.weights_of(folder / "adapter").is_file():
        raise UserError(f"no adapter at {folder / 'adapter'}: make one with python fine_tune.py")
    return folder


def inputs_of(args: Args, card, folder: Path, data: Path) -> str:
    """A hash of everything that the report follows from."""
    from persona import modeling, runlog

    shown = {k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")}
    own = [] if args.endpoint else [modeling.weights_of(folder / "adapter")]
    asked = sorted(card.folder.glob("*.jsonl"))
    if args.full:
        shared = (config.ROOT / "data" / "evaluation").glob("*.jsonl")
        asked += sorted(p for p in shared if p.name != "judge_qualification.jsonl")  # of the judge alone
    else:
        asked = [p for p in asked if p.name == "probes.jsonl"]
    modules = SUITE_CODE if args.full else REPORT_CODE
    if "persona_chat" in card.strategies:
        modules = (*SUITE_CODE, *PERSONA_CHAT_CODE)
    code = [config.ROOT / "persona" / f"{m}.py" for m in modules]
    files = [*own, data / "train.jsonl", data / "test.jsonl", *asked, *code, Path(__file__)]
    return runlog.sha256_of(*files, json.dumps(shown, sort_keys=True))


def finished(args: Args, card, folder: Path, data: Path, stage: str, outputs: list[Path]) -> bool:
    """Whether the report is there; the suite's report is a quick one, too."""
    from persona import runlog

    ways = [args] if args.full or args.protocol == "reference" else [args, replace(args, full=True)]
    return any(runlog.is_current(folder, stage, inputs_of(a, card, folder, data), outputs) for a in ways)


def main(args: Args) -> None:
    from persona import card as cards
    from persona import report_text, runlog

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if args.compare:
        return compare_runs(args)
    checked(args)
    if args.judge or args.export_blind or args.import_ratings:
        return ask_for_opinions(args)
    card = cards.load_card(args.persona)
    entry = runlog.resolve_model(args)
    folder = run_folder(args, entry)
    data = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    rows, train = chosen_rows(args, data)
    suffix = "_reference" if args.protocol == "reference" else ""
    outputs = [folder / f"evaluation_report{suffix}.json", folder / f"predictions{suffix}.jsonl"]
    stage = f"evaluation{suffix}"
    if not args.force and finished(args, card, folder, data, stage, outputs):
        report = runlog.read_json(outputs[0], "the evaluation report")
        print(f"{outputs[0]} is up to date (--force evaluates again)")
    else:
        start, inputs = runlog.now(), inputs_of(args, card, folder, data)
        if "persona_chat" in card.strategies:
            report, predictions = evaluate_persona_chat(args, card, entry, folder, data, train)
        elif args.full:
            report, predictions = evaluate_fully(args, card, entry, folder, data, train)
        else:
            report, predictions = evaluate(args, card, entry, folder, rows, train)
        runlog.write_jsonl(outputs[1], predictions)
        runlog.write_json(outputs[0], report)
        runlog.record_stage(
            folder, stage, status="done", start=start, end=runlog.now(), inputs_sha256=inputs,
            settings={k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")},
        )  # fmt: skip
    print(report_text.summary(report, outputs[0]))


if __name__ == "__main__":
    config.run_script(main, Args)
