"""How fast base and tuned are evaluated: this project's batches against one item at a time.

The reference system's loop answers one prompt at a time (generate, 128 tokens, no padding) and takes a
forward pass for each perplexity. Ours puts items of like length together. Same items, same weights, both on
this machine, one after the other; nothing is read from the cache of answers.

Reads   data/dataset/<persona>-<corpus>/test.jsonl
Writes  result/benchmarks/evaluation.json

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --limit 16 --max-new-tokens 32
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import config
from persona.errors import UserError


@dataclass(frozen=True)
class Args(config.RunArgs):
    limit: int = 64
    """Most items; 0 for all."""
    max_new_tokens: int = 128
    batch_size: int = 32
    """Conversations that ours answers at once."""
    four_bit: bool = True
    """Load the base in NF4."""


def one_at_a_time(model, tokenizer, items: list, max_new_tokens: int) -> tuple[list[str], list[float]]:
    """Answers, and perplexities of the conversations, item by item, as the reference system takes them."""
    import torch
    from tqdm import tqdm

    from persona.chat import prompt_ids
    from persona.generation import stop_ids

    answers, perplexities = [], []
    with torch.no_grad():
        for item in tqdm(items, desc="one at a time"):
            ids = torch.tensor([prompt_ids(tokenizer, item.messages)], device=model.device)
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=stop_ids(model, tokenizer),
                pad_token_id=tokenizer.pad_token_id,
            )
            answers.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
            said = [*item.messages, {"role": "assistant", "content": item.reference}]
            whole = tokenizer.apply_chat_template(said, tokenize=False)
            text = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"].to(
                model.device
            )
            perplexities.append(float(model(input_ids=text, labels=text).loss.exp()))
    return answers, perplexities


def main(args: Args) -> None:
    import torch

    from persona import modeling, runlog, scoring
    from persona.card import load_card
    from persona.chat import Sampling, context_length
    from persona.rows import read_rows

    config.require_positive(args, "max_new_tokens", "batch_size")
    config.require_limit(args)
    load_card(args.persona)
    entry, device = runlog.resolve_model(args), modeling.pick_device()
    data = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, device, four_bit=args.four_bit).eval()
    room = context_length(model, tokenizer) - args.max_new_tokens
    items = scoring.fitted(
        tokenizer, scoring.items_of(scoring.asked_rows(read_rows(data / "test.jsonl"))), room
    )
    items = items[: args.limit or None]
    if not items:
        raise UserError(f"{data / 'test.jsonl'}: nothing to answer")
    sampling = Sampling(temperature=0.0, max_new_tokens=args.max_new_tokens)

    scoring.score(model, tokenizer, items[:2], Sampling(temperature=0.0, max_new_tokens=4), 2, "warm-up")
    start = time.perf_counter()
    alone, _ = one_at_a_time(model, tokenizer, items, args.max_new_tokens)
    middle = time.perf_counter()
    records = scoring.score(model, tokenizer, items, sampling, args.batch_size, "ours")
    end = time.perf_counter()

    same = sum(a == r.answer for a, r in zip(alone, records, strict=True))
    found = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "items": len(items),
        "max_new_tokens": args.max_new_tokens,
        "batch_size": args.batch_size,
        "seconds": {"one at a time": middle - start, "ours": end - middle},
        "ratio": (middle - start) / (end - middle),
        "same_answers": same,
    }
    out = config.RESULT / "benchmarks" / "evaluation.json"
    runlog.write_json(out, found)
    print(
        f"{len(items)} items, {found['threads']} threads: one at a time {middle - start:.1f} s, ours "
        f"{end - middle:.1f} s, {found['ratio']:.1f} times faster; {same} same answers\nwritten to {out}"
    )


if __name__ == "__main__":
    config.run_script(main, Args)
