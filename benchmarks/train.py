"""How fast ours trains: against the reference's recipe and a plain SFTTrainer script, and why.

Three processes, one after the other, on the same rows, epochs, learning rate and NF4 base: (a) the reference
system's recipe, (b) SFTTrainer as TRL documents it, with answer-only loss, (c) fine_tune.py. Each is watched
from outside; the adapters of its checkpoints are then scored on the same held-out answers. Time counts from
the start of the process. Then ours again for a few steps, each time without one of its gains.

Reads   a data set's train.jsonl and validation.jsonl (--data; default: the persona's own, built if missing)
Writes  result/benchmarks/train.json (or train-random-weights.json), logs in result/benchmarks/train/

    python benchmarks/train.py --data FOLDER                # under 20 minutes on two cores
    python benchmarks/train.py --corpus DIR --rows 200
    python benchmarks/train.py --model qwen2.5-7b --random-weights --data FOLDER --tokenizer FOLDER
"""

import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[0]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

import config
from persona.errors import UserError

SCRIPTS = config.ROOT / "benchmarks" / "training"


@dataclass(frozen=True)
class Args(config.RunArgs):
    data: Path | None = None
    """Folder with train.jsonl and validation.jsonl."""
    rows: int = 400
    """Training rows, drawn at random; a ninth as many validation rows. 0 for all."""
    epochs: float = 1.0
    lr: float | None = None
    """Peak learning rate of all three. Default: the model's."""
    scored: int = 64
    """Held-out rows on which checkpoints are scored, at most."""
    without_steps: int = 12
    """Steps of each run without one gain; 0 leaves these runs out."""
    minutes: float = 20.0
    """What is not done by then is left out, and said to be."""
    threads: int | None = None
    """OMP_NUM_THREADS of all processes. Default: as it is."""
    random_weights: bool = False
    """Measure a 7B's steps without its weights."""
    tokenizer: Path | None = None
    """With --random-weights: folder with the tokenizer's files. Default: from the hub."""
    low_memory: bool = False
    """With --random-weights: measure the setting for small GPUs alone."""
    steps: int = 20
    """With --random-weights: optimiser steps, the first quarter of which is not counted."""
    batch_size: int = 32
    """With --random-weights: rows a step of ours."""
    layers: int | None = None
    """With --random-weights: fewer layers, to try it out."""
    hidden: int | None = None
    """With --random-weights: another hidden size, a multiple of 64, to try it out."""


def sampled(args: Args, source: Path, out: Path) -> tuple[Path, dict[str, int]]:
    """A folder with the rows that all three train on and are held out: of the latter one for each answer."""
    from persona import runlog
    from persona.rows import chosen_rows, read_rows

    draw = random.Random(args.seed)
    counts = {}
    held_out = max(args.scored, -(-args.rows // 9)) if args.rows else 0
    for split, n in (("train", args.rows), ("validation", held_out)):
        rows = read_rows(source / f"{split}.jsonl")
        rows = rows if split == "train" else chosen_rows(rows, (), 1)
        rows = draw.sample(rows, min(n or len(rows), len(rows)))
        runlog.write_jsonl(out / f"{split}.jsonl", rows)
        counts[split] = len(rows)
    return out, counts


def source_of(args: Args) -> Path:
    """The data set's folder, built first where it is the persona's own and not there."""
    if args.data:
        return args.data
    from persona import card as cards
    from persona import dataset

    corpus = args.corpus or "canon"
    folder = config.dataset_folder(args.persona, corpus)
    dataset.ensure(cards.load_card(args.persona), corpus, folder)
    return folder


def commands(args: Args, data: Path, work: Path, lr: float, speaker: str) -> dict[str, tuple]:
    """System -> (command, folder of its checkpoints, file that is written last in each)."""
    shared = ["--data", str(data), "--epochs", str(args.epochs), "--lr", str(lr), "--seed", str(args.seed)]
    found = {}
    for name, recipe in (("a", "reference"), ("b", "plain")):
        out = work / recipe
        own = ["--recipe", recipe, "--out", str(out), "--model", args.model, "--speaker", speaker]
        found[name] = ([str(SCRIPTS / "baseline.py"), *own, *shared], out, "trainer_state.json")
    run = "benchmarks/train/ours"
    ours = ["--run", run, "--model", args.model, "--questions", "1000", "--identity-weight", "1"]
    ours += ["--keep", "last", "--force", *shared]
    found["c"] = (
        [str(config.ROOT / "fine_tune.py"), *ours],
        config.RESULT / run / "checkpoints",
        "complete.json",
    )
    return found


def score(args: Args, ran: dict[str, dict], data: Path, work: Path, speaker: str) -> dict:
    """Put `curve`, (seconds, held-out loss) from the untouched base on, into each system's facts.

    And `nats`, those of every held-out row by the last checkpoint.
    """
    from persona import runlog

    jobs, places = [], []
    for name, facts in ran.items():
        how = "text" if name == "a" else "chat"
        for point in [{"seconds": 0.0, "adapter": None}, *facts["checkpoints"]]:
            jobs.append({"format": how, "adapter": point["adapter"]})
            places.append((name, point["seconds"]))
    runlog.write_json(work / "jobs.json", jobs)
    command = [sys.executable, str(SCRIPTS / "held_out.py"), "--jobs", str(work / "jobs.json")]
    command += ["--rows", str(data / "validation.jsonl"), "--out", str(work / "losses.json")]
    command += ["--model", args.model, "--speaker", speaker, "--limit", str(args.scored)]
    subprocess.run(command, check=True)
    scored = runlog.read_json(work / "losses.json", "the losses")
    for facts in ran.values():
        facts["curve"] = []
    tokens = scored["tokens"]
    for (name, seconds), nats in zip(places, scored["nats"], strict=True):
        ran[name]["curve"].append((seconds, sum(nats) / sum(tokens)))
        ran[name]["nats"] = nats
    return {"rows": len(tokens), "tokens": sum(tokens), "tokens_of_rows": tokens}


def compared(ran: dict[str, dict], tokens: list[int]) -> dict[str, dict]:
    """Ours against each other system: time to its final loss, loss when ours was done, and the last losses'
    difference with its interval (paired bootstrap over rows); `tokens` of each held-out row."""
    from training.curves import loss_at, seconds_to

    from persona.intervals import difference
    from persona.metrics import Metric

    ours = ran["c"]["curve"]
    found = {}
    for name in ("a", "b"):
        if name not in ran or len(ran[name]["curve"]) < 2:
            continue
        there, loss = ran[name]["curve"][-1]
        reached = seconds_to(ours, loss)
        if reached == 0:  # the untouched base, asked through the chat template, has it already
            reached = next((seconds for seconds, own in ours[1:] if own <= loss), None)
        found[name] = {
            "seconds": there,
            "loss": loss,
            "ours_seconds_to_that_loss": reached,
            "times_faster": there / reached if reached else None,
            "times_faster_to_the_end": there / ours[-1][0],
            "loss_when_ours_ended": loss_at(ran[name]["curve"], ours[-1][0]),
            "ours_loss": ours[-1][1],
            "difference": difference(
                *(Metric("lower", ran[system]["nats"], tokens) for system in ("c", name)),
                [str(row) for row in range(len(tokens))],
            ),
        }
    return found


def without_each_gain(args: Args, data: Path, work: Path, lr: float, end: float) -> dict[str, dict]:
    """Median seconds a step of ours, and of ours without each of its gains; start-up's parts of the first."""
    from training.ours import GAINS
    from training.timing import read_steps, startup_of
    from training.watching import watched

    found: dict[str, dict] = {}
    for name in ("nothing", *GAINS):
        left = end - time.time()
        if left < 30:
            found[name] = {"left_out": "no time left"}
            continue
        timing, run = work / f"without-{name}.jsonl", f"benchmarks/train/without-{name}"
        timing.unlink(missing_ok=True)
        own = [] if name == "nothing" else ["--without", name]
        flags = ["--data", str(data), "--model", args.model, "--run", run, "--lr", str(lr)]
        flags += ["--questions", "1000", "--identity-weight", "1", "--keep", "last", "--force"]
        flags += ["--evals", "1", "--eval-rows", "1", "--max-steps", str(args.without_steps)]
        flags += ["--seed", str(args.seed)]
        command = [str(SCRIPTS / "ours.py"), *own, "--timing", str(timing), "--", *flags]
        folder = config.RESULT / run
        log = work / f"without-{name}.log"
        begun = time.time()
        ran = watched(command, folder / "none", "none", work / "none", log, left, args.threads)
        if not timing.is_file():
            found[name] = {"left_out": "no time left"}
            continue
        steps = read_steps(timing)
        found[name] = {
            "seconds_a_step": statistics.median(s["seconds"] for s in steps[1:-1] or steps),
            "computed_a_step": statistics.mean(s["computed"] for s in steps),
            "peak_gib": ran.peak_gib,
        }
        if name == "nothing":
            found[name]["startup"] = startup_of(timing, begun)
    return found


def few_validation(data: Path, rows: int) -> Path:
    """The same training rows with few validation rows, for runs of a few steps."""
    from persona import runlog
    from persona.rows import read_rows

    out = data.with_name("data-few")
    for split, n in (("train", None), ("validation", rows)):
        runlog.write_jsonl(out / f"{split}.jsonl", read_rows(data / f"{split}.jsonl")[:n])
    return out


def run_each(args: Args, planned: dict[str, tuple], work: Path, until: float) -> dict[str, dict]:
    """System -> facts of its run; those that are not done at `until` (seconds since 1970) are stopped."""
    from training import report
    from training.watching import watched

    from persona import runlog

    ran: dict[str, dict] = {}
    for name in ("c", "b", "a"):
        command, folder, marker = planned[name]
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{report.TITLES[name]} ...", flush=True)
        limit, log = max(1.0, until - time.time()), work / f"{name}.log"
        facts = watched(command, folder, marker, work / f"{name}-kept", log, limit, args.threads).facts()
        if name != "c" and facts["finished"]:
            own = runlog.read_json(folder / "run.json", "the run")
            facts["evaluation_seconds"] = own["evaluation_seconds"]
        ran[name] = facts
        print(f"    {facts['seconds']:.0f} s{'' if facts['finished'] else ', stopped: no time left'}")
    return ran


def tokens_of(data: Path, entry: config.ModelEntry) -> int:
    """Tokens of the training rows in the model's chat template.

    Counted after the runs, so that fine_tune.py does not find its rows encoded already.
    """
    from persona import encoding, modeling
    from persona.rows import read_rows

    rows = read_rows(data / "train.jsonl")
    encoded, _ = encoding.encode_once(modeling.load_tokenizer(entry), rows, entry.max_length)
    return sum(map(len, encoded["input_ids"]))


def compare(args: Args) -> dict:
    """All of the comparison; the facts that are written as JSON."""
    import torch

    from persona import card as cards
    from persona import modeling, runlog

    begun = time.time()
    entry = runlog.resolve_model(args)
    args = replace(args, model=args.model or entry.name)
    lr = args.lr or entry.lr
    speaker = cards.load_card(args.persona).persona.name
    work = config.RESULT / "benchmarks" / "train"
    work.mkdir(parents=True, exist_ok=True)
    data, counts = sampled(args, source_of(args), work / "data")
    # a quarter of the time is for scoring and for the runs without one gain
    ran = run_each(args, commands(args, data, work, lr, speaker), work, begun + 45 * args.minutes)
    tokens = tokens_of(data, entry) * args.epochs
    for facts in ran.values():
        facts["tokens_a_second"] = tokens / facts["checkpoints"][-1]["seconds"] if facts["finished"] else None
    held_out = score(args, ran, data, work, speaker)
    gains = {}
    if args.without_steps:
        end = begun + 60 * args.minutes
        gains = without_each_gain(args, few_validation(data, 8), work, lr, end)
    return {
        "device": str(modeling.pick_device()),
        "threads": args.threads or torch.get_num_threads(),
        "environment": runlog.environment(),
        "settings": runlog.settings_of(args) | {"lr": lr},
        "rows": counts,
        "tokens": tokens,
        "held_out": held_out,
        "systems": ran,
        "compared": compared(ran, held_out["tokens_of_rows"]),
        "without": gains,
        "minutes": (time.time() - begun) / 60,
    }


def main(args: Args) -> None:
    from training import report

    from persona import runlog

    config.require_positive(
        args, "epochs", "lr", "scored", "minutes", "steps", "batch_size", "layers", "hidden"
    )
    if args.rows < 0:
        raise UserError(f"--rows must be 0 (all) or above, not {args.rows}")
    name = "train-random-weights" if args.random_weights else "train"
    out = config.RESULT / "benchmarks" / f"{name}.json"
    if args.random_weights:
        from training import large

        found = large.measure(args, source_of(args))
        print(report.large_table(found))
    else:
        found = compare(args)
        print(report.comparison_table(found))
    runlog.write_json(out, found)
    print(f"written to {out}")


if __name__ == "__main__":
    config.run_script(main, Args)
