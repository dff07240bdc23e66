"""Steps of a 7B with random weights: seconds, tokens, share of the device's peak, memory.

Each setting runs in a process of its own through the real fine_tune.py (or the plain recipe), on rows of a
real data set, so that lengths are realistic.
"""

import importlib.util
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import config
from persona.errors import UserError

SCRIPTS = Path(__file__).resolve().parent
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 FLOP/s of tensor cores, from the makers' data sheets (SXM where there are several)."""


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    name: str
    title: str
    flags: tuple[str, ...] = ()
    """Of fine_tune.py."""


def settings_of(args: Any) -> list[Setting]:
    """What is measured, in this order."""
    low_memory = Setting("low-memory", "ours, low memory (8 x 1 rows)", ("--batch-size", "8", "--low-memory"))
    if args.low_memory:
        return [low_memory]
    n = str(args.batch_size)
    batch = ("--batch-size", n, "--micro-batch", n)
    return [
        Setting("kept", f"ours, {n} rows", (*batch, "--activation-checkpointing", "False")),
        Setting(
            "again",
            f"ours, {n} rows, activation checkpointing",
            (*batch, "--activation-checkpointing", "True"),
        ),
        low_memory,
        Setting("plain", "plain SFTTrainer (8 rows)"),
        Setting("unsloth", "Unsloth"),
    ]


def flops_a_token(settings: Any, trainable: int, length: float, learned: float) -> float:
    """Useful floating-point operations of a training step, a computed token.

    A frozen weight costs 2 forward and 2 for the gradient of its input, a trainable one 2 more for its own
    (Kaplan et al. 2020, without the frozen weights' gradients). Attention: 4 x hidden x context forward and
    twice that backward, and half of it as it is causal. The head counts for the share `learned` of tokens.
    Recomputed activations, de-quantising and padding are no use and do not count.
    """
    hidden, layers = settings.hidden_size, settings.num_hidden_layers
    head_size = hidden // settings.num_attention_heads
    kv = settings.num_key_value_heads * head_size
    frozen = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * settings.intermediate_size)
    attention = layers * 12 * hidden * length / 2
    return 4 * frozen + 6 * trainable + attention + 4 * learned * hidden * settings.vocab_size


def trainable_parameters(settings: Any, rank: int = 16) -> int:
    """LoRA's parameters on all linear layers: rank x (in + out) each."""
    hidden, inner = settings.hidden_size, settings.intermediate_size
    kv = settings.num_key_value_heads * (hidden // settings.num_attention_heads)
    shapes = [(hidden, hidden)] * 2 + [(hidden, kv)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    return settings.num_hidden_layers * rank * sum(a + b for a, b in shapes)


def command_of(setting: Setting, args: Any, model: Path, data: Path, timing: Path) -> tuple[list[str], Path]:
    """(command, its folder with run.json)."""
    shared = ["--data", str(data), "--model", str(model), "--max-steps", str(args.steps)]
    shared += ["--lr", "2e-4", "--seed", str(args.seed)]
    if setting.name == "plain":
        out = timing.with_suffix("")
        own = ["--recipe", "plain", "--out", str(out), "--random-weights", "--timing", str(timing)]
        return [str(SCRIPTS / "baseline.py"), *own, "--saves", "1", *shared], out
    run = f"benchmarks/train/large-{setting.name}"
    own = ["--random-weights", "--timing", str(timing)]
    flags = ["--run", run, "--force", "--keep", "last", "--evals", "1", "--eval-rows", "1", *setting.flags]
    return [str(SCRIPTS / "ours.py"), *own, "--", *flags, *shared], config.RESULT / run


def figures(args: Any, settings: Any, timing: Path, device: str) -> dict[str, Any]:
    """A setting's figures, from the steps after the first quarter."""
    from training.timing import read_steps

    steps = read_steps(timing)
    steps = steps[len(steps) // 4 : -1] or steps
    seconds = statistics.median(s["seconds"] for s in steps)
    names = ("rows", "tokens", "computed", "learned")
    mean = {name: statistics.mean(s[name] for s in steps) for name in names}
    rate = sum(s["tokens"] for s in steps) / sum(s["seconds"] for s in steps)
    length = mean["tokens"] / mean["rows"]
    useful = min(mean["computed"], mean["tokens"])
    flops = flops_a_token(settings, trainable_parameters(settings), length, mean["learned"] / useful)
    peak = next((most for name, most in PEAK_FLOPS.items() if name in device), None)
    return {
        "steps": len(steps),
        "seconds_a_step": seconds,
        "tokens_a_step": mean["tokens"],
        "computed_a_step": mean["computed"],
        "learned_a_step": mean["learned"],
        "rows_a_step": mean["rows"],
        "tokens_a_second": rate,
        "gflop_a_token": flops / 1e9,
        "peak_share": flops * useful / seconds / peak if peak else None,
    }


def measure(args: Any, source: Path) -> dict[str, Any]:
    """All settings, one after the other; the facts that are written as JSON."""
    from training.random_weights import write_folder
    from training.watching import watched
    from transformers import AutoConfig

    from persona import modeling, runlog
    from persona.rows import read_rows

    if args.model not in (None, "qwen2.5-7b"):
        raise UserError(f"--random-weights knows the architecture of qwen2.5-7b, not of {args.model}")
    work = config.RESULT / "benchmarks" / "train"
    work.mkdir(parents=True, exist_ok=True)
    model = write_folder(work / "qwen2.5-7b", args.tokenizer, args.layers, args.hidden)
    rows = read_rows(source / "train.jsonl")
    wanted = min(len(rows), args.rows or len(rows))
    runlog.write_jsonl(work / "data-large" / "train.jsonl", rows[:: max(1, len(rows) // wanted)][:wanted])
    validation = read_rows(source / "validation.jsonl")[:8]
    runlog.write_jsonl(work / "data-large" / "validation.jsonl", validation)
    settings, device = AutoConfig.from_pretrained(model), modeling.pick_device()
    found = []
    for setting in settings_of(args):
        facts: dict[str, Any] = {"name": setting.name, "title": setting.title}
        found.append(facts)
        if setting.name == "unsloth":
            facts["not_measured"] = _why_no_unsloth()
            continue
        timing = work / f"large-{setting.name}.jsonl"
        timing.unlink(missing_ok=True)
        command, folder = command_of(setting, args, model, work / "data-large", timing)
        print(f"{setting.title} ...", flush=True)
        log = timing.with_suffix(".log")
        try:
            watched(command, folder / "none", "none", work / "none", log, 60 * args.minutes, args.threads)
        except UserError as error:
            facts["not_measured"] = str(error)
            continue
        if not timing.is_file():
            facts["not_measured"] = f"no result within {args.minutes:g} minutes"
            continue
        stages = runlog.read_json(folder / "run.json", "the run")
        facts |= figures(args, settings, timing, device.reason)
        facts["peak_gib"] = stages.get("peak_gib") or stages["stages"]["fine_tune"]["peak_gib"]
    return {
        "model": "Qwen2.5-7B" if not (args.layers or args.hidden) else "Qwen2.5-7B made smaller",
        "layers": settings.num_hidden_layers,
        "device": str(device),
        "environment": runlog.environment(),
        "command": sys.argv,
        "settings_measured": found,
    }


def _why_no_unsloth() -> str:
    if importlib.util.find_spec("unsloth") is None:
        return "it is not installed"
    return "it loads weights from files alone, of which there are none here"
