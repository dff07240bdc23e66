"""Figures of the embedded base model: held-out bits per byte, and answers to fixed prompts."""

import json
import math
from pathlib import Path

from base_text import HERE, STRAIGHT, chatml, files_of, rows_of


def bits_per_byte(model, tokenizer, path: Path, limit: int = 1024) -> dict[str, float]:
    """Held-out bits per UTF-8 byte by source.

    First `limit` tokens of each text; talk as ChatML without a system turn.
    """
    import torch

    model.eval()
    bits: dict[str, float] = {}
    size: dict[str, int] = {}
    device = next(model.parameters()).device
    for row in rows_of(path):
        text = row["text"].translate(STRAIGHT) if "text" in row else chatml(row["messages"])
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:limit]
        with torch.no_grad():
            # <|endoftext|> before the text, so that its first token counts
            inputs = torch.tensor([[0, *ids]], device=device)
            logits = model(input_ids=inputs).logits[0, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="sum").item()
        source = "prose" if "text" in row else row["source"]
        for key in {source, "all"}:
            bits[key] = bits.get(key, 0.0) + nll / math.log(2)
            size[key] = size.get(key, 0) + len(tokenizer.decode(ids).encode())
    model.train()
    return {key: bits[key] / size[key] for key in sorted(bits)}


def answers(model, tokenizer) -> list[str]:
    """Answers to the prompts beside this file: temperature 0.7, top_p 0.9, each from the same seed."""
    import torch

    found = []
    for prompt in json.loads((HERE / "prompts.json").read_text(encoding="utf-8")):
        messages = [{"role": role, "content": text} for role, text in prompt.items()]
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        torch.manual_seed(1)
        output = model.generate(
            **inputs.to(model.device),
            max_new_tokens=60,
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            top_k=0,
            eos_token_id=2,
            pad_token_id=0,
        )
        said = output[0, inputs["input_ids"].shape[1] :]
        found.append(tokenizer.decode(said, skip_special_tokens=True).strip())
    return found


def figures(data: Path, model, tokenizer) -> dict:
    """Held-out bits per byte by file and source, and answers to the fixed prompts."""
    measured = {
        p.name.split(".")[0]: bits_per_byte(model, tokenizer, p) for p in files_of(data, heldout=True)
    }
    model.eval()
    found = {"heldout_bits_per_byte": measured, "answers": answers(model, tokenizer)}
    print(json.dumps(found, indent=1))
    return found
