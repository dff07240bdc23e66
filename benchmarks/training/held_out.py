"""Loss on the answers of held-out rows, for every checkpoint that a training run left behind.

Nats a token of the answers' words, the end of turn left out, each system with the prompt that it was trained
on. All are divided by the same number of tokens (the chat template's), so that the figures can be compared
where the prompts are cut into tokens in another way.

Reads   JOBS, a JSON list of {"format": "chat" or "text", "adapter": folder or null}; ROWS, a data set's file
Writes  OUT, JSON: the answer tokens of each row, and for each job in order the nats of each row

    python benchmarks/training/held_out.py --jobs jobs.json --rows validation.jsonl --out losses.json
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file from anywhere

import config
from persona.errors import UserError

Format = Literal["chat", "text"]
IGNORED = -100


@dataclass(frozen=True)
class Args:
    jobs: Path
    rows: Path
    out: Path
    model: str = "tiny"
    speaker: str = "Sherlock Holmes"
    limit: int = 64
    """Most rows; 0 for all."""
    max_length: int = 1024


def encoded(tokenizer, rows: list[dict], how: Format, args: Args) -> list[dict | None]:
    """input_ids and labels of each row, labels on the words of the answers; None where it is too long."""
    from training.plain_text import as_plain_text

    from persona.chat import answer_spans

    found: list[dict | None] = []
    for row in rows:
        if how == "chat":
            text, spans = answer_spans(tokenizer, row["messages"])
            spans = [(a, b - len(tokenizer.eos_token)) for a, b in spans]
        else:
            text, spans = as_plain_text(row["messages"], args.speaker)
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
        # a token may begin before the answer (" I") or end after it (".\n\n")
        labels = [
            t if any(a < end and start < b for a, b in spans) else IGNORED for t, (start, end) in places
        ]
        fits = len(labels) <= args.max_length
        found.append({"input_ids": tokens["input_ids"], "labels": labels} if fits else None)
    return found


def nats(model, rows: Iterable[dict]) -> list[float]:
    """Negative log-likelihood of all labelled tokens of each row."""
    import torch

    found = []
    with torch.inference_mode():
        for row in rows:
            ids, labels = (torch.tensor(row[name], device=model.device) for name in ("input_ids", "labels"))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits, labels[1:], ignore_index=IGNORED, reduction="sum"
            )
            found.append(float(loss))
    return found


def main(args: Args) -> None:
    from tqdm import tqdm

    from persona import modeling, runlog
    from persona.rows import read_rows

    jobs = runlog.read_json(args.jobs, "the list of checkpoints")
    entry, device = runlog.resolve_model(args), modeling.pick_device()
    tokenizer = modeling.load_tokenizer(entry)
    rows = read_rows(args.rows)[: args.limit or None]
    sets = {how: encoded(tokenizer, rows, how, args) for how in ("chat", "text")}
    both = [i for i in range(len(rows)) if sets["chat"][i] and sets["text"][i]]
    if not both:
        raise UserError(f"{args.rows}: no row fits {args.max_length} tokens")
    tokens = [sum(label != IGNORED for label in sets["chat"][i]["labels"]) for i in both]
    model = modeling.load_base(entry, device).eval()
    found = []
    for number, job in enumerate(tqdm(jobs, desc="held-out loss")):
        chosen = [sets[job["format"]][i] for i in both]
        if job["adapter"] is None:
            found.append(nats(model, chosen))
            continue
        tuned = modeling.attach_adapter(model, Path(job["adapter"]), f"job{number}")
        found.append(nats(tuned, chosen))
        model = tuned.unload()
    runlog.write_json(args.out, {"tokens": tokens, "nats": found})


if __name__ == "__main__":
    config.run_script(main, Args)
