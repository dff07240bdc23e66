"""Make the embedded base model: text and chat in, tokenizer, weights and figures out.

Reads   a folder of .txt, .jsonl, .jsonl.xz files: rows {"text": ...} are prose,
        rows {"messages": [...]} are talk;
        files whose name begins with "heldout" are never trained on, they measure
Writes  OUT/model.safetensors with tokenizer and chat template, OUT/training_log.jsonl, OUT/figures.json;
        OUT/checkpoint.pt to go on from

    # tokenizer and model from scratch
    python data/tiny-base/train_base.py --data FOLDER --out OUT
    # go on from these weights
    python data/tiny-base/train_base.py --data FOLDER --out OUT --init data/tiny-base
    # on several processes (two cores are quicker as two processes of one thread; or one GPU each)
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 data/tiny-base/train_base.py --data FOLDER --out OUT
    # held-out bits per byte and answers to fixed prompts
    python data/tiny-base/train_base.py --data FOLDER --out OUT --eval-only --init MODEL

The learning rate warms up, stays flat, and falls linearly over the last `--decay-steps`; talk has a larger
share there. Stopped at any moment, the same command goes on from the last checkpoint. The data order
follows from the seed and the step alone. Beside this script: base_text.py reads and renders the text,
base_batches.py deals it out to the steps, base_figures.py measures.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from base_batches import kinds, padded, plan, predicted
from base_figures import figures
from base_text import make_tokenizer, never_said, refuse, token_rows

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun


@dataclass(frozen=True)
class Args:
    data: Path
    """Folder of training text."""
    out: Path
    """Where the model goes."""
    init: Path | None = None
    """Go on from this model (its tokenizer is kept)."""
    vocab_size: int = 6144
    layers: int = 8
    hidden: int = 256
    heads: int = 4
    intermediate: int = 768
    context: int = 1024
    """Tokens of a training row: a whole text, or a part of a longer one."""
    batch: int = 8
    """Tokens a step, as a multiple of --context."""
    micro_batch: int = 2
    """Tokens at a time, likewise: few stay in a CPU's cache; take --batch on a GPU."""
    steps: int = 3500
    decay_steps: int = 900
    warmup_steps: int = 100
    lr: float = 2e-3
    """AdamW's learning rate: embeddings and norms."""
    muon_lr: float = 2e-3
    """Muon's learning rate for the matrices inside the blocks (update scaled to AdamW's RMS)."""
    weight_decay: float = 0.1
    talk_share: float = 0.4
    """Share of the tokens that are talk."""
    talk_share_decay: float = 0.5
    """The same while the learning rate falls."""
    assistant_share: float = 0.15
    """Share of the tokens that are the hand-written assistant rows, while the learning rate falls."""
    checkpoint_steps: int = 100
    seed: int = 1
    compile: bool = False
    """torch.compile the model: worth it on a GPU, and on a CPU that computes in bf16."""
    average_with: Path | None = None
    """Save the weights averaged with those of this model (Wortsman et al. 2022), of one line of training."""
    average_share: float = 0.3
    """That model's share."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What it computes in (auto: bf16 where the hardware does, else float32); weights stay in float32."""
    eval_only: bool = False


def make_model(args: Args, tokenizer):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if args.init:
        return Qwen2ForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    torch.manual_seed(args.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=args.hidden,
            intermediate_size=args.intermediate,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=2,
            bos_token_id=None,
        )
    )


def lr_factor(args: Args, step: int) -> float:
    return min((step + 1) / args.warmup_steps, 1.0, max((args.steps - step) / args.decay_steps, 0.02))


def arithmetic(args: Args, device: str) -> "torch.dtype":  # noqa: F821
    """--dtype, or bf16 where the hardware has it; emulated, it is a hundred times slower than float32."""
    import torch

    if args.dtype != "auto":
        return getattr(torch, args.dtype)
    if device == "cuda":
        found = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if found else torch.float32


def orthogonalise(matrices, dtype, steps: int = 5):
    """Newton-Schulz iteration to the nearest semi-orthogonal matrices (Jordan et al. 2024, Muon).

    (n, rows, columns) -> same, computed in `dtype`. torch.optim.Muon computes this in bfloat16 one matrix at
    a time, which takes 20 seconds a step on CPUs without bf16 arithmetic; here all of one shape go together.
    """
    import torch

    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(dtype)
    wide = x.size(1) <= x.size(2)
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


def make_optimizers(args: Args, model, dtype) -> list:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases and norms."""
    import torch

    class Muon(torch.optim.Optimizer):
        def __init__(self, params, lr: float, weight_decay: float, momentum: float = 0.95):
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

        @torch.no_grad()
        def step(self):
            group = self.param_groups[0]
            by_shape: dict = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():
                for p in params:
                    self.state[p].setdefault("momentum", torch.zeros_like(p)).lerp_(
                        p.grad, 1 - group["momentum"]
                    )
                looked_ahead = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in params]
                scale = 0.2 * max(rows, columns) ** 0.5  # the RMS of an AdamW update (Liu et al. 2025)
                for p, update in zip(params, orthogonalise(torch.stack(looked_ahead), dtype), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    adamw = torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    return [Muon(inside, args.muon_lr, args.weight_decay), adamw]


def save(args: Args, model, tokenizer, log: dict) -> None:
    """Write the model in bf16 with tokenizer, and its figures."""
    import copy

    import torch

    final = copy.deepcopy(model)
    if args.average_with:
        other = type(model).from_pretrained(args.average_with, dtype=torch.float32).to(model.device)
        with torch.no_grad():
            for p, q in zip(final.parameters(), other.parameters(), strict=True):
                p.lerp_(q, args.average_share)
    final = final.to(torch.bfloat16)
    final.generation_config.update(do_sample=True, temperature=0.7, top_p=0.9, eos_token_id=2, pad_token_id=0)
    final.generation_config.bad_words_ids = never_said(tokenizer)
    final.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    report = {
        **log,
        **figures(args.data, final.float(), tokenizer),
        "settings": {k: str(v) for k, v in asdict(args).items()},
    }
    (args.out / "figures.json").write_text(json.dumps(report, indent=1))


def sum_over_processes(model, loss: float) -> float:
    """Add up the gradients, and the loss, of all processes in one exchange; one may have had no rows."""
    import torch

    parameters = list(model.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), gradients[0].new_tensor([loss])])
    torch.distributed.all_reduce(flat)
    for p, summed in zip(parameters, flat[:-1].split([p.numel() for p in parameters]), strict=True):
        p.grad = summed.view_as(p)
    return flat[-1].item()


def keep(checkpoint: Path, model, optimizers: list, step: int, seconds: float) -> None:
    """Write a checkpoint, whole or not at all."""
    import torch

    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state | {"step": step, "seconds": seconds}, checkpoint.with_suffix(".tmp"))
    checkpoint.with_suffix(".tmp").replace(checkpoint)


def resume(checkpoint: Path, model, optimizers: list, device: str) -> tuple[int, float]:
    """Put a checkpoint into model and optimizers; steps done, and seconds that they took."""
    import torch

    state = torch.load(checkpoint, weights_only=True, map_location=device)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    print(f"going on from step {state['step']}")
    return state["step"], state["seconds"]


def learn(forward, labels, size: int, dtype) -> float:
    """Add the gradient of these rows (rows, longest), padded with -100, and return their share of the loss
    of a step of `size` predicted tokens, computed in `dtype`."""
    import torch

    with torch.autocast(labels.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = forward(
            input_ids=labels.clamp(min=0), labels=labels, num_items_in_batch=size, use_cache=False
        ).loss
    loss.backward()
    return loss.item()


def train(args: Args, model, tokenizer, device: str, dtype) -> dict:
    """The training loop; goes on from OUT/checkpoint.pt. Returns tokens seen and seconds."""
    import torch
    from tqdm import tqdm

    rows = {
        kind: token_rows(args.data, kind, tokenizer, args.seed, args.context, args.out / "tokens", RANK)
        for kind in kinds(args)
    }
    batches = plan(args, rows)
    sizes = [predicted(parts) for parts in batches]
    optimizers = make_optimizers(args, model, dtype)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = resume(checkpoint, model, optimizers, device) if checkpoint.is_file() else (0, 0.0)
    forward = torch.compile(model, dynamic=True) if args.compile else model
    model.train()
    with (
        (args.out / "training_log.jsonl").open("a") as log,
        tqdm(total=args.steps, initial=step, disable=RANK > 0) as bar,
    ):
        began = time.monotonic() - seconds
        while step < args.steps:
            for optimizer, lr in zip(optimizers, (args.muon_lr, args.lr), strict=True):
                optimizer.param_groups[0]["lr"] = lr * lr_factor(args, step)
            total = 0.0
            for part in batches[step][RANK::WORLD]:
                total += learn(forward, padded(part).to(device), sizes[step], dtype)
            if WORLD > 1:
                total = sum_over_processes(model, total)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()
            if step % 10 == 0 and RANK == 0:
                seconds = time.monotonic() - began
                rate = sum(sizes[:step]) / seconds
                log.write(
                    json.dumps({"step": step, "loss": round(total, 4), "tokens_per_second": round(rate)})
                    + "\n"
                )
                log.flush()
                bar.set_postfix(loss=f"{total:.3f}")
            if RANK == 0 and (step % args.checkpoint_steps == 0 or step == args.steps):
                keep(checkpoint, model, optimizers, step, seconds)
    return {
        "steps": step,
        "tokens": sum(sizes),
        "seconds": round(time.monotonic() - began),
        "device": f"{device}, {dtype}",
    }


def main(args: Args) -> None:
    if not args.data.is_dir():
        refuse(f"--data {args.data}: no such folder")
    for flag, folder in (("init", args.init), ("average-with", args.average_with)):
        if folder and not (folder / "config.json").is_file():
            refuse(f"--{flag} {folder}: holds no model")
    if args.talk_share > 1 or args.talk_share_decay + args.assistant_share > 1:
        refuse("the shares of talk and assistant rows are more than 1")

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if WORLD > 1:
        torch.distributed.init_process_group()
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(args.data, args.vocab_size, args.init)
    model = make_model(args, tokenizer).to(device)
    dtype = arithmetic(args, device)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {len(tokenizer):,} tokens, on {device}, {dtype}")
    if args.eval_only:
        (args.out / "figures.json").write_text(json.dumps(figures(args.data, model, tokenizer), indent=1))
        return
    log = train(args, model, tokenizer, device, dtype)
    if RANK == 0:
        save(args, model, tokenizer, log)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
