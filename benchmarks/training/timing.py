"""When each optimiser step of a transformers Trainer began, what was in its batches, and what came before."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any


def note_steps(path: Path, sync: bool) -> None:
    """Have every Trainer of this process note its steps in `path`, a JSON line each, at the end of training.

    A line: `step`, `begin` (seconds since 1970), and over its micro-batches `rows`, `tokens` (of the rows as
    they are, shared beginnings counted for each), `computed` (positions computed, padding included),
    `learned` (with loss). A last line has `begin` alone: the end of the last step. Lines before have `part`
    and `begin`: of loading tokenizer and base. With `sync` the GPU is waited for.
    """
    import torch
    import transformers

    from persona import modeling

    plain_step, plain_train = transformers.Trainer.training_step, transformers.Trainer.train
    steps: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []

    def now() -> float:
        if sync:
            torch.cuda.synchronize()
        return time.time()

    def noted(part: str, load):
        def loading(*args, **kwargs):
            parts.append({"part": part, "begin": time.time()})
            return load(*args, **kwargs)

        return loading

    def training_step(self, model, inputs, *args, **kwargs):
        if not steps or steps[-1]["step"] != self.state.global_step:
            counts = dict.fromkeys(("rows", "tokens", "computed", "learned"), 0)
            steps.append({"step": self.state.global_step, "begin": now(), **counts})
        for name, count in batch_counts(inputs).items():
            steps[-1][name] += count
        return plain_step(self, model, inputs, *args, **kwargs)

    def train(self, *args, **kwargs):
        outcome = plain_train(self, *args, **kwargs)
        lines = [*parts, *steps, {"begin": now()}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return outcome

    transformers.Trainer.training_step, transformers.Trainer.train = training_step, train
    modeling.load_tokenizer = noted("tokenizer and rows", modeling.load_tokenizer)
    modeling.load_base = noted("base", modeling.load_base)


def batch_counts(inputs: dict[str, Any]) -> dict[str, int]:
    """`rows`, `tokens`, `computed` and `learned` of a batch, see `note_steps`."""
    rows, computed = len(inputs["input_ids"]), inputs["input_ids"].numel()
    tokens = computed
    if inputs.get("row_borders") is not None:
        rows = len(inputs["row_borders"]) - 1
        tokens += int(inputs["row_borders"][0]) * (rows - 1)
    elif inputs.get("attention_mask") is not None:
        tokens = int(inputs["attention_mask"].sum())
    learned = int((inputs["labels"] != -100).sum())
    return {"rows": rows, "tokens": tokens, "computed": computed, "learned": learned}


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Steps with `seconds` each, from a file of `note_steps`."""
    lines = [line for line in _lines(path) if "part" not in line]
    return [{**line, "seconds": after["begin"] - line["begin"]} for line, after in pairwise(lines)]


def startup_of(path: Path, begun: float) -> dict[str, float]:
    """Seconds of each part of fine_tune.py's start-up, from `begun` (since 1970) to the first step."""
    lines = _lines(path)
    marks = [line["begin"] for line in lines if "part" in line]
    first = next(line["begin"] for line in lines if "step" in line)
    names = ["imports", *(line["part"] for line in lines if "part" in line)]
    names[-1] += " and trainer"
    return {
        name: after - at for name, (at, after) in zip(names, pairwise([begun, *marks, first]), strict=True)
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
