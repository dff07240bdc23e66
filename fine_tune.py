"""Fine-tune a base model into the persona by QLoRA.

Reads   data/dataset/<persona>-<corpus>/{train,validation}.jsonl (built first where they are not there)
Writes  result/<run>/adapter, checkpoints, trainer_state.json, run.json

    python fine_tune.py                             # Qwen2.5-7B-Instruct with CUDA, the embedded base without
    python fine_tune.py --model qwen2.5-0.5b --epochs 1
    python fine_tune.py --model tiny --corpus DIR --max-steps 300

Stopped at any moment, the same command goes on from the last complete checkpoint and ends with the same
weights; RESUME_CHECKPOINT names another one. On SIGTERM or Ctrl-C it saves at the end of the step and exits
with code 75.
"""

import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import config
from persona.errors import UserError

INTERRUPTED = 75
"""EX_TEMPFAIL: the work is not done, starting again goes on with it."""


@dataclass(frozen=True)
class Args(config.RunArgs):
    epochs: float | None = None
    """Passes over the training rows. Default: the model's, 3 for large ones."""
    max_steps: int = -1
    """Stop after this many optimiser steps; -1 for all epochs."""
    strategies: tuple[str, ...] = ()
    """Train on rows of these strategies alone. Default: the model's; all for large ones, dialogue, curated
    and guard for the tiny one, which learns who it is before it learns what the narrator saw."""
    questions: int | None = None
    """Most rows with one answer: 1 takes its best question. Default: the model's, 1 for the tiny one."""
    identity_weight: int | None = None
    """How often an epoch sees each row of the card's identity topics.
    Default: the model's, 1 for large ones; a small one needs to hear more often who it is."""
    lr: float | None = None
    """Peak learning rate. Default: the model's, 2e-4 for large ones."""
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    batch_size: int = 8
    """Rows an optimiser step."""
    micro_batch: int = 8
    """Rows at a time; divides the batch size. Lower it where memory is short."""
    warmup_steps: int = 100
    """Warm-up, at most a tenth of the run."""
    weight_decay: float = 0.0
    max_length: int | None = None
    """Longest row in tokens. Default: the model's."""
    eval_rows: int = 32
    """Fixed random subset of the validation rows that is evaluated during training; all of them at the end.
    """
    evals: int = 6
    """Evaluations, and checkpoints, over the whole run."""
    keep: Literal["best", "last"] | None = None
    """The adapter of the best evaluation, or of the last step. Default: the model's, best for large ones."""
    patience: int = 3
    """With --keep best: stop after this many evaluations without a better loss; 0 never stops early."""
    four_bit: bool = True
    """Load the base in NF4 with double quantisation."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass. Default: on a GPU yes, on a CPU no."""


def settled(args: Args, entry: config.ModelEntry, on_gpu: bool) -> Args:
    """The arguments with the model's own defaults filled in."""
    names = ("epochs", "strategies", "questions", "identity_weight", "lr", "max_length", "keep")
    chosen = {name: getattr(entry, name) for name in names if getattr(args, name) in (None, ())}
    if args.activation_checkpointing is None:
        chosen["activation_checkpointing"] = on_gpu
    return replace(args, **chosen)


def training_rows(args: Args, folder: Path, tokenizer, said_often: Collection[str]) -> dict:
    """Encoded rows: {"train", "validation", "subset"}.

    The subset of the validation rows is fixed by the seed.
    """
    from datasets import Dataset

    from persona import chat
    from persona.rows import read_rows

    sets = {}
    for split in ("train", "validation"):
        rows = [
            r
            for r in read_rows(folder / f"{split}.jsonl")
            if (not args.strategies or r["meta"]["strategy"] in args.strategies)
            and r["meta"].get("variant", 0) < args.questions
        ]
        if split == "train":
            rows = [
                r
                for r in rows
                for _ in range(args.identity_weight if r["meta"].get("topic") in said_often else 1)
            ]
        encoded, counts = chat.encode_rows(tokenizer, rows, args.max_length)
        tokens = sum(len(e.input_ids) for e in encoded)
        print(
            f"{split}: {counts['rows']:,} rows, {tokens:,} tokens; "
            f"{counts['shortened']} shortened on a turn boundary, "
            f"{counts['dropped']} longer than {args.max_length} tokens dropped"
        )
        if not encoded:
            raise UserError(
                f"{folder}/{split}.jsonl: no row of these strategies fits {args.max_length} tokens; "
                "raise --max-length, or give other --strategies"
            )
        for item in encoded:
            if tokenizer.eos_token_id not in item.labels:
                raise UserError(
                    f"{folder}/{split}.jsonl: a row teaches no end of turn; the chat template does not fit"
                )
        sets[split] = Dataset.from_list([{"input_ids": e.input_ids, "labels": e.labels} for e in encoded])
        if split == "train":
            print("one example, with loss on what stands in ⟦ ⟧:\n" + chat.show_mask(tokenizer, encoded[0]))
    n = len(sets["validation"])
    chosen = sorted(random.Random(args.seed).sample(range(n), min(args.eval_rows, n)))
    return {**sets, "subset": sets["validation"].select(chosen)}


def trainer_settings(args: Args, folder: Path, on_gpu: bool, steps: int):
    """TRL's settings.

    Rows were fitted by persona.chat.encode and become batches in persona.attention.collate.
    """
    from trl import SFTConfig

    every = max(1, steps // args.evals)
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=args.micro_batch,
        per_device_eval_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.batch_size // args.micro_batch,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps,
        learning_rate=args.lr,
        lr_scheduler_type="cosine",
        warmup_steps=min(args.warmup_steps, max(1, steps // 10)),
        weight_decay=args.weight_decay,
        optim="paged_adamw_32bit",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=args.activation_checkpointing,
        bf16=False,  # the base computes in its own dtype, adapters stay in float32
        use_cpu=not on_gpu,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=max(1, every // 5),
        load_best_model_at_end=args.keep == "best",
        metric_for_best_model="eval_loss" if args.keep == "best" else None,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        dataloader_pin_memory=on_gpu,
        seed=args.seed,
        data_seed=args.seed,
    )


def make_trainer(args: Args, settings, model, tokenizer, sets: dict):
    """SFTTrainer with a LoRA adapter whose weights stay in float32."""
    import torch
    from peft import LoraConfig
    from transformers import EarlyStoppingCallback
    from trl import SFTTrainer

    from persona import modeling
    from persona.attention import collate
    from persona.callbacks import training_callbacks

    early = [EarlyStoppingCallback(args.patience)] if args.keep == "best" and args.patience else []
    trainer = SFTTrainer(
        model,
        settings,
        data_collator=collate,
        train_dataset=sets["train"],
        eval_dataset=sets["subset"],
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules=list(config.LORA_TARGETS),
            task_type="CAUSAL_LM",
        ),
        callbacks=[*training_callbacks(), *early],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # SFTTrainer casts to bf16, in which small updates round to nothing and a resumed run differs
            parameter.data = parameter.data.to(torch.float32)
    if settings.use_cpu:
        modeling.speed_up_dropout(trainer.model)
    return trainer


def checkpoint_to_resume(args: Args, folder: Path, inputs: dict) -> Path | None:
    """The checkpoint to go on from; refuses one made with other settings, removes all with --force."""
    from persona import checkpoints, runlog

    kept = folder / "checkpoints"
    stamp = kept / "inputs.json"
    if args.force and kept.exists():
        shutil.rmtree(kept)
    if stamp.is_file() and checkpoints.checkpoints(kept):
        before = runlog.read_json(stamp, "the settings of the unfinished run", "python fine_tune.py --force")
        changed = [
            f"{k} ({before.get(k)} -> {inputs.get(k)})"
            for k in sorted({*before, *inputs})
            if before.get(k) != inputs.get(k)
        ]
        if changed:
            raise UserError(
                f"{kept} holds an unfinished run with other settings: {', '.join(changed)}; "
                "take the old settings, another --run, or --force to begin again"
            )
    runlog.write_json(stamp, inputs)
    named = os.environ.get("RESUME_CHECKPOINT")
    if named and not args.force:
        return checkpoints.require_good(Path(named))
    return checkpoints.last_good(kept)


def print_size(model, sets: dict, args: Args) -> tuple[int, int]:
    """Print the true parameter counts and the estimated memory; returns (trainable, all)."""
    from persona import modeling

    trainable, total = modeling.parameter_counts(model)
    longest = sum(sorted((len(ids) for ids in sets["train"]["input_ids"]), reverse=True)[: args.micro_batch])
    memory = modeling.estimated_memory(model, longest, args.activation_checkpointing)
    lines = {"trainable parameters": f"{trainable:,}", "all parameters": f"{total:,}"}
    lines |= {"share": f"{trainable / total:.2%}"}
    memory["together"] = sum(memory.values())
    lines |= {f"estimated memory, {k}": f"{gib:.2f} GiB" for k, gib in memory.items()}
    print("\n" + "\n".join(f"{k:<46}{v:>14}" for k, v in lines.items()) + "\n")
    return trainable, total


def save_adapter(model, tokenizer, folder: Path, entry: config.ModelEntry, card: str) -> None:
    """Write adapter, tokenizer, template and model card to a temporary folder, then rename it to adapter/."""
    making = folder / ".adapter.tmp"
    shutil.rmtree(making, ignore_errors=True)
    model.save_pretrained(making)
    tokenizer.save_pretrained(making)
    stated = json.loads((making / "adapter_config.json").read_text())
    stated["base_model_name_or_path"], stated["revision"] = entry.source, entry.revision
    (making / "adapter_config.json").write_text(json.dumps(stated, indent=2, sort_keys=True))
    (making / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    making.rename(folder / "adapter")


def model_card(run: str, args: Args, entry: config.ModelEntry, facts: dict) -> str:
    """The model card with the hub's header."""
    return f"""---
base_model: {entry.source if entry.revision else entry.name}
library_name: peft
language: en
tags: [lora, qlora, persona, sft]
---

# {run}

LoRA adapter that gives {entry.name} the persona {args.persona}. Made by fine_tune.py {config.VERSION}.

| setting | value |
| --- | --- |
{chr(10).join(f"| {k} | {v} |" for k, v in facts.items())}

Measured against the untouched base in evaluation_report.json of the same run. \
The character is a role: what it says
of facts may be invented.
"""


def main(args: Args) -> None:
    from transformers import set_seed

    from persona import card as cards
    from persona import dataset, modeling, runlog
    from persona.attention import register

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    config.require_positive(
        args,
        "epochs",
        "questions",
        "lr",
        "lora_r",
        "batch_size",
        "micro_batch",
        "evals",
        "eval_rows",
        "max_length",
    )
    if args.batch_size % args.micro_batch:
        raise UserError(
            f"--batch-size {args.batch_size} is not a multiple of --micro-batch {args.micro_batch}"
        )
    entry = runlog.resolve_model(args)
    device = modeling.pick_device()
    on_gpu = device.type == "cuda"
    args = settled(args, entry, on_gpu)
    folder = config.RESULT / config.run_name(args, entry)

    card = cards.load_card(args.persona)
    corpus = args.corpus or entry.corpus
    data = config.dataset_folder(args.persona, corpus)
    if not (data / "manifest.json").is_file():
        print(f"no data set at {data}: building it")
        dataset.ensure(card, corpus, data)
    tokenizer = modeling.load_tokenizer(entry)
    sets = training_rows(args, data, tokenizer, card.curated_topics.get("identity", ()))

    inputs = {k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")}
    inputs |= {"base": entry.source, "revision": entry.revision, "dtype": str(device.dtype)}
    inputs["data_sha256"] = runlog.sha256_of(data / "train.jsonl", data / "validation.jsonl")
    inputs_sha256 = runlog.sha256_of(json.dumps(inputs, sort_keys=True))
    written = folder / "adapter" / "adapter_model.safetensors"
    if not args.force and runlog.is_current(folder, "fine_tune", inputs_sha256, [written]):
        print(f"{written.parent} is finished for these data and settings (--force trains it again)")
        return
    resume = checkpoint_to_resume(args, folder, inputs)

    set_seed(args.seed)
    print(
        f"base {entry.source} on {device}, 4-bit {'NF4' if args.four_bit else 'off'}, attention {register()}"
    )
    model = modeling.load_base(entry, device, four_bit=args.four_bit)
    model.set_attn_implementation(register())
    model.config.use_cache = False
    per_epoch = -(-len(sets["train"]) // args.batch_size)
    steps = args.max_steps if args.max_steps > 0 else max(1, int(per_epoch * args.epochs))
    trainer = make_trainer(args, trainer_settings(args, folder, on_gpu, steps), model, tokenizer, sets)
    trainable, total = print_size(trainer.model, sets, args)
    print(
        f"{steps} steps of {args.batch_size} rows, learning rate {args.lr:g}"
        + (f"; on from {resume}" if resume else "")
    )
    facts = {"start": runlog.now(), "settings": inputs, "inputs_sha256": inputs_sha256, "device": str(device)}
    runlog.record_stage(folder, "fine_tune", status="running", **facts)

    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    state = trainer.state
    stopped = any(getattr(callback, "stopped", False) for callback in trainer.callback_handler.callbacks)
    if stopped and state.global_step < state.max_steps:
        runlog.record_stage(folder, "fine_tune", status="interrupted", end=runlog.now())
        print(f"stopped at step {state.global_step} of {steps}: start again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)

    loss = trainer.evaluate(sets["validation"], metric_key_prefix="final")["final_loss"]
    checks = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    quantised = "" if args.four_bit else ", base not quantised"
    measured = {
        "data set": f"{data.name}, {len(sets['train']):,} rows an epoch, sha256 {inputs['data_sha256'][:16]}",
        "method": f"QLoRA r {args.lora_r}, alpha {args.lora_alpha}, dropout {args.lora_dropout}{quantised}",
        "trainable parameters": f"{trainable:,} of {total:,}",
        "learning rate, batch, seed": f"{args.lr:g}, {args.batch_size}, {args.seed}",
        "steps, epochs": f"{state.global_step}, {state.epoch:.2f}",
        "kept": args.keep,
        "best validation loss on the subset": min(checks) if checks else None,
        "validation loss of the kept adapter, all rows": loss,
    }
    save_adapter(trainer.model, tokenizer, folder, entry, model_card(folder.name, args, entry, measured))
    kept = ("global_step", "epoch", "max_steps", "log_history", "best_metric", "best_global_step")
    runlog.write_json(folder / "trainer_state.json", {k: getattr(state, k) for k in kept})
    runlog.record_stage(folder, "fine_tune", status="done", end=runlog.now(), measured=measured)
    print(f"adapter written to {written.parent}; validation loss {loss:.3f}")


if __name__ == "__main__":
    config.run_script(main, Args)
