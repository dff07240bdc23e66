"""Fine-tune a base model into the persona by QLoRA.

Reads   data/dataset/<persona>-<corpus>/{train,validation}.jsonl (built first where they are not there)
Writes  result/<run>/adapter, result/<run>/checkpoints, result/<run>/run.json

    python fine_tune.py                                  # Qwen2.5-7B-Instruct where CUDA is there, the embedded base where it is not
    python fine_tune.py --model qwen2.5-0.5b --epochs 1
    python fine_tune.py --max-steps 300 --corpus DIR --model tiny

Stopped at any moment, the same command goes on from the last complete checkpoint and ends with the same weights. RESUME_CHECKPOINT
names a checkpoint to go on from. On SIGTERM or Ctrl-C it saves at the end of the step and exits with code 75: start it again.
"""

import json
import logging
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

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
    eval_rows: int = 48
    """Fixed random subset of the validation rows that is evaluated during training; all of them at the end."""
    evals: int = 6
    """Evaluations, and checkpoints, over the whole run."""
    patience: int = 3
    """Stop early after this many evaluations without a better loss; 0 never stops early."""
    four_bit: bool = True
    """Load the base in NF4 with double quantisation."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass. Default: on a GPU yes, on a CPU no."""


def training_rows(args: Args, entry: config.ModelEntry, tokenizer, max_length: int):
    """Encoded train and validation sets, the fixed evaluation subset, and the hash of both files."""
    import random

    from datasets import Dataset

    from persona import card as cards
    from persona import chat, dataset, rows, runlog

    corpus = args.corpus or entry.corpus
    folder = config.dataset_folder(args.persona, args.corpus or entry.corpus)
    if not (folder / "manifest.json").is_file():
        print(f"no data set at {folder}: building it")
        dataset.ensure(cards.load_card(args.persona), corpus, folder)
    sets = {}
    for split in ("train", "validation"):
        encoded, counts = chat.encode_rows(tokenizer, rows.read_rows(folder / f"{split}.jsonl"), max_length)
        print(f"{split}: {counts['rows']:,} rows, {counts['shortened']} shortened on a turn boundary, {counts['dropped']} longer than {max_length} tokens dropped, {sum(len(e.input_ids) for e in encoded):,} tokens")
        if not encoded:
            raise UserError(f"{folder}/{split}.jsonl: no row fits {max_length} tokens; raise --max-length")
        sets[split] = Dataset.from_list([{"input_ids": e.input_ids, "labels": e.labels} for e in encoded])
        if split == "train":
            print("one example, with loss on what stands in ⟦ ⟧:\n" + chat.show_mask(tokenizer, encoded[0]))
    chosen = random.Random(args.seed).sample(range(len(sets["validation"])), min(args.eval_rows, len(sets["validation"])))
    hashes = runlog.sha256_of(folder / "train.jsonl", folder / "validation.jsonl")
    return sets["train"], sets["validation"], sets["validation"].select(sorted(chosen)), hashes


def guard_labels(train, tokenizer) -> None:
    """Refuse a training set that cannot teach stopping, or has rows that teach nothing."""
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError("padding equals the end of turn: the model could not learn to stop")
    for labels in train["labels"]:
        if all(label == -100 for label in labels) or tokenizer.eos_token_id not in labels:
            raise UserError("a training row has no token with loss, or none that ends the turn: the chat template does not fit the model")


def steps_of(args: Args, n_rows: int, epochs: float) -> int:
    if args.max_steps > 0:
        return args.max_steps
    return max(1, int(-(-n_rows // args.batch_size) * epochs))


def trainer_settings(args: Args, folder: Path, device, lr: float, epochs: float, steps: int, checkpointing: bool):
    from trl import SFTConfig

    every = max(1, steps // args.evals)
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=args.micro_batch,
        per_device_eval_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.batch_size // args.micro_batch,
        num_train_epochs=epochs,
        max_steps=args.max_steps,
        learning_rate=lr,
        lr_scheduler_type="cosine",
        warmup_steps=min(args.warmup_steps, max(1, steps // 10)),
        weight_decay=args.weight_decay,
        optim="paged_adamw_32bit",
        max_grad_norm=1.0,
        max_length=None,  # rows were fitted by persona.chat.encode; persona.attention.collate makes padding-free batches of them
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=checkpointing,
        bf16=False,  # the base computes in its own dtype; adapters stay in float32
        use_cpu=device.type == "cpu",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=max(1, every // 5),
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        dataloader_pin_memory=device.type == "cuda",
        seed=args.seed,
        data_seed=args.seed,
    )


def callbacks(patience: int) -> list:
    """Seal finished checkpoints; save and stop on SIGTERM or Ctrl-C; stop early."""
    from transformers import EarlyStoppingCallback, TrainerCallback

    from persona import checkpoints

    class Seal(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    class StopOnSignal(TrainerCallback):
        stopped = False

        def on_train_begin(self, args, state, control, **kwargs):
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, self.stop)

        def stop(self, number, frame):
            print(f"\n{signal.Signals(number).name}: saving at the end of this step", file=sys.stderr)
            type(self).stopped = True

        def on_step_end(self, args, state, control, **kwargs):
            if self.stopped:
                control.should_save = control.should_training_stop = True

    found = [Seal(), StopOnSignal()]
    return [*found, EarlyStoppingCallback(patience)] if patience else found


def checkpoint_to_resume(args: Args, folder: Path, inputs: dict) -> Path | None:
    """The checkpoint to go on from; refuses one made with other settings, and removes all with --force."""
    from persona import checkpoints, runlog

    kept = folder / "checkpoints"
    stamp = kept / "inputs.json"
    if args.force and kept.exists():
        shutil.rmtree(kept)
    if stamp.is_file():
        before = runlog.read_json(stamp, "the settings of the unfinished run", "python fine_tune.py --force")
        changed = sorted(k for k in {*before, *inputs} if before.get(k) != inputs.get(k))
        if changed and checkpoints.checkpoints(kept):
            listed = ", ".join(f"{k} ({before.get(k)} -> {inputs.get(k)})" for k in changed)
            raise UserError(f"{kept} holds an unfinished run with other settings: {listed}; take the old settings, another --run, or --force to begin again")
    runlog.write_json(stamp, inputs)
    named = os.environ.get("RESUME_CHECKPOINT")
    return checkpoints.require_good(Path(named)) if named and not args.force else checkpoints.last_good(kept)


def save_adapter(model, tokenizer, folder: Path, entry: config.ModelEntry) -> None:
    """Write adapter, tokenizer and template to a temporary folder, then rename it to adapter/."""
    making = folder / ".adapter.tmp"
    shutil.rmtree(making, ignore_errors=True)
    model.save_pretrained(making)
    tokenizer.save_pretrained(making)
    stated = json.loads((making / "adapter_config.json").read_text())
    stated["base_model_name_or_path"], stated["revision"] = entry.source, entry.revision
    (making / "adapter_config.json").write_text(json.dumps(stated, indent=2, sort_keys=True))
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    making.rename(folder / "adapter")


def model_card(run: str, args: Args, entry: config.ModelEntry, facts: dict) -> str:
    lines = [
        "---", f"base_model: {entry.source if entry.revision else entry.name}", "library_name: peft", "language: en", "tags: [lora, qlora, persona, sft]", "---", "",
        f"# {run}", "", f"LoRA adapter that gives {entry.name} the persona {args.persona}. Made by fine_tune.py {config.VERSION}.", "",
        "| setting | value |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in facts.items()), "",
        "Measured against the untouched base in evaluation_report.json beside the adapter's folder. The character is a role: what it says of facts may be invented.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main(args: Args) -> None:
    from persona import modeling, runlog
    from persona.attention import register

    if args.batch_size % args.micro_batch:
        raise UserError(f"--batch-size {args.batch_size} is not a multiple of --micro-batch {args.micro_batch}")
    entry = runlog.resolve_model(args)
    folder = config.RESULT / config.run_name(args, entry)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    lr, epochs, max_length = args.lr or entry.lr, args.epochs or entry.epochs, args.max_length or entry.max_length

    from transformers import set_seed

    device = modeling.pick_device()
    tokenizer = modeling.load_tokenizer(entry)
    train, validation, subset, data_sha256 = training_rows(args, entry, tokenizer, max_length)
    guard_labels(train, tokenizer)

    settings = {k: v for k, v in runlog.settings_of(args).items() if k not in ("force", "run")}
    inputs = settings | {"lr": lr, "epochs": epochs, "max_length": max_length, "base": entry.source, "revision": entry.revision, "data": data_sha256, "dtype": str(device.dtype)}
    inputs_sha256 = runlog.sha256_of(json.dumps(inputs, sort_keys=True))
    if not args.force and runlog.is_current(folder, "fine_tune", inputs_sha256, [folder / "adapter" / "adapter_model.safetensors"]):
        print(f"{folder / 'adapter'} is finished for these data and settings (--force trains it again)")
        return
    resume = checkpoint_to_resume(args, folder, inputs)

    set_seed(args.seed)
    print(f"base {entry.source} on {device}, 4-bit {'NF4' if args.four_bit else 'off'}, attention {register()}")
    model = modeling.load_base(entry, device, four_bit=args.four_bit)
    model.set_attn_implementation(register())
    model.config.use_cache = False
    checkpointing = device.type == "cuda" if args.activation_checkpointing is None else args.activation_checkpointing
    steps = steps_of(args, len(train), epochs)
    trainer = make_trainer(args, model, tokenizer, train, subset, trainer_settings(args, folder, device, lr, epochs, steps, checkpointing))
    trainable, total = modeling.parameter_counts(trainer.model)
    longest = sum(sorted((len(ids) for ids in train["input_ids"]), reverse=True)[: args.micro_batch])
    memory = modeling.estimated_memory(trainer.model, longest, checkpointing)
    print(f"trainable {trainable:,} of {total:,} parameters ({trainable / total:.2%}); {steps} steps of {args.batch_size} rows, learning rate {lr:g}")
    print("estimated memory, GiB: " + ", ".join(f"{k} {v:.2f}" for k, v in memory.items()) + f"; together {sum(memory.values()):.2f}")
    if resume:
        print(f"going on from {resume}")
    runlog.record_stage(folder, "fine_tune", status="running", start=runlog.now(), settings=inputs, inputs_sha256=inputs_sha256, device=str(device))

    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if any(getattr(c, "stopped", False) for c in trainer.callback_handler.callbacks):
        runlog.record_stage(folder, "fine_tune", status="interrupted", end=runlog.now())
        print(f"stopped at step {trainer.state.global_step} of {steps}: start again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)

    final = trainer.evaluate(validation) if len(validation) > len(subset) else {"eval_loss": trainer.state.best_metric}
    facts = {
        "data set": f"{args.persona}-{config.corpus_name(args.corpus or entry.corpus)}, {len(train):,} rows, sha256 {data_sha256[:16]}", "method": f"QLoRA r {args.lora_r}, alpha {args.lora_alpha}, dropout {args.lora_dropout}" + ("" if args.four_bit else ", base not quantised"),
        "trainable parameters": f"{trainable:,}", "learning rate": lr, "epochs": round(trainer.state.epoch or 0, 2), "steps": trainer.state.global_step,
        "best validation loss (subset)": trainer.state.best_metric, "validation loss (all rows)": final["eval_loss"], "seed": args.seed,
    }  # fmt: skip
    save_adapter(trainer.model, tokenizer, folder, entry)
    runlog.write_text(folder / "adapter" / "README.md", model_card(folder.name, args, entry, facts))
    runlog.write_json(folder / "trainer_state.json", {k: v for k, v in vars(trainer.state).items() if k in ("global_step", "epoch", "max_steps", "log_history", "best_metric", "best_global_step")})
    runlog.record_stage(folder, "fine_tune", status="done", end=runlog.now(), facts=facts, trainable_parameters=trainable, total_parameters=total)
    print(f"adapter written to {folder / 'adapter'}; validation loss {final['eval_loss']:.3f}")


def make_trainer(args: Args, model, tokenizer, train, subset, settings):
    """SFTTrainer with a LoRA adapter whose weights stay in float32."""
    import torch
    from peft import LoraConfig
    from trl import SFTTrainer

    from persona.attention import collate

    lora = LoraConfig(
        r=args.lora_r, lora_alpha=args.lora_alpha, lora_dropout=args.lora_dropout, target_modules=list(config.LORA_TARGETS), task_type="CAUSAL_LM"
    )
    trainer = SFTTrainer(
        model, settings, data_collator=collate, train_dataset=train, eval_dataset=subset, processing_class=tokenizer,
        peft_config=lora, callbacks=callbacks(args.patience),
    )  # fmt: skip
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # SFTTrainer casts to bf16, in which small updates round to nothing and a resumed run differs from an unbroken one
            parameter.data = parameter.data.to(torch.float32)
    return trainer


if __name__ == "__main__":
    config.run_script(main, Args)
