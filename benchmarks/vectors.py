"""Extraction against the plain way: time, and peak memory, on the same samples.

The plain way generates one answer after another and runs prompt and answer again, one by one, keeping all
hidden states of all layers (`output_hidden_states=True`). Ours generates in batches, reads every layer in
one forward pass without the output head, and keeps running means.

    python benchmarks/vectors.py                     # the embedded base, 100 samples
    python benchmarks/vectors.py --samples 200 --model qwen2.5-0.5b
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import config


@dataclass(frozen=True)
class Args(config.RunArgs):
    samples: int = 100
    """Answers on either side together; even."""
    max_new_tokens: int = 32
    batch_size: int = 64
    only: Literal["plain", "ours"] | None = None
    """Measure one way in this process; without it each has a process of its own, for its peak memory."""


def plain(model, tokenizer, contrasts, sampling):
    """(layers, hidden): one by one, all hidden states kept until the end."""
    import torch

    from persona.activations import turn_of
    from persona.generation import answer_batch

    kept: dict[str, list] = {"positive": [], "negative": []}
    for side, states_kept in kept.items():
        for k, contrast in enumerate(contrasts):
            messages = getattr(contrast, side)
            answer = answer_batch(model, tokenizer, [messages], replace(sampling, seed=k), 1)[0]
            turn = turn_of(tokenizer, messages, answer, 4096)
            if not turn.n_response:
                continue
            ids = torch.tensor([turn.input_ids], device=model.device)
            with torch.inference_mode():
                states = model(ids, output_hidden_states=True).hidden_states
            states_kept.append((torch.stack([s[0].float().cpu() for s in states[1:]]), turn.n_prompt))
    means = {side: torch.stack([s[:, n:].mean(1) for s, n in found]).mean(0) for side, found in kept.items()}
    return means["positive"] - means["negative"]


def ours(model, tokenizer, contrasts, sampling, batch_size: int):
    """The same by persona.extraction."""
    from persona.extraction import extract

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "partial.safetensors"
        vector, _ = extract(model, tokenizer, "benchmark", contrasts, sampling, state, {}, batch_size)
    return vector.direction()


def measure(args: Args) -> None:
    """Print seconds and peak memory of one way."""
    from persona import card as cards
    from persona import footprint, modeling, runlog, traits
    from persona.chat import Sampling

    entry = runlog.resolve_model(args)
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, modeling.pick_device()).eval()
    trait = traits.load_trait("openness", cards.load_card(args.persona))
    contrasts = traits.contrasts(trait, "extraction", "generated")[: args.samples // 2]
    sampling = Sampling(1.0, 1.0, args.max_new_tokens, seed=args.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ways = {"plain": plain, "ours": partial(ours, batch_size=args.batch_size)}
    ways[args.only](model, tokenizer, contrasts[:1], sampling)  # imports and first allocations
    start, cpu = time.perf_counter(), time.process_time()
    ways[args.only](model, tokenizer, contrasts, sampling)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = footprint.peak_gib(modeling.pick_device())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"RESULT {seconds:.2f} {cpu:.2f} {peak:.3f} {grown:.3f}")


def main(args: Args) -> None:
    if args.only:
        measure(args)
        return
    found = {}
    for way in ("plain", "ours"):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--only", way],
            capture_output=True,
            text=True,
            check=False,
        )
        line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT")), None)
        if line is None:
            sys.exit(f"{way}: no result\n{done.stderr[-2000:]}")
        found[way] = [float(x) for x in line.split()[1:]]
        seconds, cpu, peak, grown = found[way]
        print(f"{way:<8}{seconds:>9.1f} s, CPU {cpu:.1f} s, peak {peak:.2f} GiB, of which grown {grown:.3f}")
    wall, cpu = (found["plain"][k] / found["ours"][k] for k in (0, 1))
    print(f"{wall:.1f} times as fast on {args.samples} samples ({cpu:.1f} times by CPU seconds)")


if __name__ == "__main__":
    config.run_script(main, Args)
