"""Fine-tune a base model into the persona, by QLoRA or another method.

Reads   data/dataset/<persona>-<corpus>/{train,validation}.jsonl (built first where they are not there)
Writes  result/<run>/adapter, checkpoints, trainer_state.json, run.json

    python fine_tune.py                             # Qwen2.5-7B-Instruct with CUDA, the embedded base without
    python fine_tune.py --model qwen2.5-0.5b --epochs 1
    python fine_tune.py --model tiny --corpus DIR --max-steps 300
    python fine_tune.py --method dora               # or lora, adalora, full, prefix, prompt, ia3, adapters
    python fine_tune.py --backend openai            # or mistral: a provider trains, paid; see docs/managed.md

Stopped at any moment, the same command goes on from the last complete checkpoint and ends with the same
weights; RESUME_CHECKPOINT names another one. On SIGTERM or Ctrl-C it saves at the end of the step and exits
with code 75.
"""

import logging
import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import config
from persona.managed import Backend
from persona.methods import METHODS, MethodName


@dataclass(frozen=True)
class Args(config.RunArgs):
    method: MethodName = "qlora"
    """Which weights train: LoRA matrices over a base in NF4 (qlora) or not quantised (lora), its relatives,
    a soft prompt or prefix, scales (ia3), bottleneck adapters, or the whole model (full)."""
    epochs: float | None = None
    """Passes over the training rows. Default: the model's, 3 for large ones; 1.5 for the tiny one, or as many
    as its most_steps (config.py) allow."""
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
    """Peak learning rate. Default: the model's, 2e-4 for large ones, times a factor of the method's."""
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    use_rslora: bool = False
    """Scale LoRA by alpha over the square root of r (rsLoRA)."""
    loraplus_ratio: float | None = None
    """Learning rate of LoRA's B in units of A's (LoRA+); 16 is its authors' choice."""
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
    four_bit: bool | None = None
    """Load the base in NF4 with double quantisation. Default: yes, but for lora and full."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass. Default: on a GPU yes (but for prefix), on a CPU no."""
    low_memory: bool = False
    """For a small GPU: one row at a time, activations recomputed, input embeddings in the CPU's memory."""
    prevent: str | None = None
    """TRAIT:COEFFICIENT: preventative steering. The base's persona vector is added while training, so that
    the weights need not learn the trait, and left out afterwards."""
    data: Path | None = None
    """Folder with train.jsonl and validation.jsonl to train on, of any strategy.
    Default: the persona's data set. The run is then called after the folder."""
    backend: Backend = "local"
    """Who trains: this machine, or a provider, which costs money; --model is then its name of a base."""
    cancel: bool = False
    """With a provider as --backend: end the run's job."""
    lr_multiplier: float | None = None
    """--backend openai: on the learning rate that it picks."""
    allow_changed_settings: bool = False
    """Go on from a checkpoint that was made with other settings or data, instead of refusing."""


def settled(args: Args, entry: config.ModelEntry, on_gpu: bool) -> Args:
    """The arguments with the model's and the method's own defaults filled in."""
    method = METHODS[args.method]
    names = ("epochs", "strategies", "questions", "identity_weight", "max_length", "keep")
    chosen = {name: getattr(entry, name) for name in names if getattr(args, name) in (None, ())}
    if args.data:
        run = args.run or f"{args.data.resolve().name}-{entry.name}"
        chosen |= {"strategies": args.strategies, "run": run}
    own = {"lr": entry.lr * method.lr_factor, "four_bit": method.four_bit}
    own["activation_checkpointing"] = (on_gpu and args.method != "prefix") or args.low_memory
    chosen |= {name: value for name, value in own.items() if getattr(args, name) is None}
    if args.low_memory:
        chosen["micro_batch"] = 1
    return replace(args, **chosen)


def build_if_missing(card, corpus: str, folder: Path) -> None:
    """Make the data set where there is none; one that is there is taken as it is."""
    from persona import dataset

    if not (folder / "manifest.json").is_file():
        print(f"no data set at {folder}: building it")
        dataset.ensure(card, corpus, folder)


def trainer_settings(args: Args, folder: Path, device, steps: int):
    """TRL's settings.

    Rows were fitted by persona.chat.encode and become batches in persona.attention.collate.
    """
    from trl import SFTConfig

    from persona import processes

    on_gpu = device.type == "cuda"
    mixed = str(device.dtype).removeprefix("torch.") if args.method == "full" else None
    every = max(1, steps // args.evals)
    micro, times = processes.rows_at_a_time(args.batch_size, args.micro_batch)
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=times,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps,
        learning_rate=args.lr,
        lr_scheduler_type="cosine",
        warmup_steps=min(args.warmup_steps, max(1, steps // 10)),
        weight_decay=args.weight_decay,
        optim="adamw_torch" if processes.sharded() else "paged_adamw_32bit",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=args.activation_checkpointing,
        bf16=mixed == "bfloat16",  # a frozen base computes in its own dtype, what trains stays in float32
        fp16=mixed == "float16",
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
        ddp_find_unused_parameters=False,
        seed=args.seed,
        data_seed=args.seed,
    )


def make_trainer(job: "Job", settings, model, resume: Path | None):
    """SFTTrainer with what the method trains, in float32."""
    from transformers import EarlyStoppingCallback

    from persona import methods, modeling
    from persona.callbacks import training_callbacks

    args = job.args
    early = [EarlyStoppingCallback(args.patience)] if args.keep == "best" and args.patience else []
    trainer = methods.trainer_class(args.method)(
        model,
        settings,
        data_collator=methods.collator(args.method, job.tokenizer),
        train_dataset=job.sets["train"],
        eval_dataset=job.sets["subset"],
        processing_class=job.tokenizer,
        peft_config=methods.adapter_config(args, model, job.steps),
        callbacks=[*methods.callbacks(args.method, resume), *training_callbacks(), *early],
    )
    methods.begin(trainer, args)
    if settings.use_cpu:
        modeling.speed_up_dropout(trainer.model)
    return trainer


@dataclass(frozen=True)
class Job:
    """A run before anything heavy is loaded: settings, rows, and what the result depends on."""

    args: Args
    entry: config.ModelEntry
    device: Any
    folder: Path
    data: Path
    tokenizer: Any
    sets: dict
    inputs: dict
    """Settings and hashes; another run with the same ones gives the same weights."""
    inputs_sha256: str

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return steps_of(self.args, len(self.sets["train"]))

    def note(self, **facts: Any) -> None:
        """Record facts of this stage in run.json."""
        from persona import processes, runlog

        if processes.is_main():
            runlog.record_stage(self.folder, "fine_tune", **facts)


def steps_of(args: Args, rows: int) -> int:
    """Optimiser steps of a run over so many rows, counted as the trainer counts them."""
    per_epoch = -(-rows // args.batch_size)
    return args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.epochs)


def check(args: Args) -> None:
    """Refuse settings that make no sense."""
    from persona import methods, processes

    above_zero = ("epochs", "questions", "lr", "lora_r", "loraplus_ratio", "max_length")
    config.require_positive(args, *above_zero, "batch_size", "micro_batch", "evals", "eval_rows")
    processes.rows_at_a_time(args.batch_size, args.micro_batch)
    methods.check(args)


def prepare(args: Args) -> Job:
    """Settle the settings, build the data set where it is not there, encode its rows."""
    from persona import card as cards
    from persona import checkpoints, encoding, modeling, processes, runlog, steering, vectors

    entry = runlog.resolve_model(args)
    device = modeling.pick_device()
    processes.start(device.type == "cuda")
    card = cards.load_card(args.persona)
    if "persona_chat" in card.strategies:  # one answer stands under several prompt forms
        args = replace(args, strategies=args.strategies or ("persona_chat",), questions=args.questions or 3)
    open_end = args.epochs is None and args.max_steps <= 0
    args = settled(args, entry, device.type == "cuda")
    corpus = args.corpus or entry.corpus
    data = args.data or config.dataset_folder(args.persona, corpus)
    if not args.data:
        processes.from_main(lambda: build_if_missing(card, corpus, data))
    tokenizer = modeling.load_tokenizer(entry)
    sets = encoding.training_sets(
        data,
        tokenizer,
        strategies=args.strategies,
        questions=args.questions,
        max_length=args.max_length,
        repeats=dict.fromkeys(card.curated_topics.get("identity", ()), args.identity_weight),
        eval_rows=args.eval_rows,
        seed=args.seed,
    )
    if open_end and entry.most_steps and steps_of(args, len(sets["train"])) > entry.most_steps:
        args = replace(args, max_steps=entry.most_steps)

    apart = ("force", "run", "data", "allow_changed_settings", "backend", "cancel", "lr_multiplier")
    inputs = {k: v for k, v in runlog.settings_of(args).items() if k not in (*apart, "low_memory")}
    inputs |= {"base": entry.source, "revision": entry.revision, "dtype": str(device.dtype)}
    inputs["data_sha256"] = runlog.sha256_of(data / "train.jsonl", data / "validation.jsonl")
    if args.prevent:
        inputs["prevent_sha256"] = steering.wished_sha256(args.prevent, vectors.folder_of(entry))
    folder = config.RESULT / config.run_name(args, entry)
    return Job(args, entry, device, folder, data, tokenizer, sets, inputs, checkpoints.inputs_hash(inputs))


def build(job: Job, resume: Path | None):
    """Load the base and put the trainer around it."""
    from persona import footprint, modeling
    from persona.attention import register

    args, method = job.args, METHODS[job.args.method]
    attention = "sdpa (rows padded, for a prompt before each)" if method.padded else register()
    print(
        f"{method.title} on {job.entry.source}, {job.device}, 4-bit {'NF4' if args.four_bit else 'off'}, "
        f"attention {attention}"
    )
    device = modeling.in_float32(job.device) if args.method == "full" else job.device
    model = modeling.load_base(job.entry, device, four_bit=args.four_bit)
    if args.low_memory:
        model = footprint.keep_embeddings_on_cpu(model)
    if not method.padded:
        model.set_attn_implementation(register())
    model.config.use_cache = False
    return make_trainer(job, trainer_settings(args, job.folder, job.device, job.steps), model, resume)


def train(job: Job, trainer, resume: Path | None) -> None:
    """Train to the end, or leave with the code that asks for another start where a signal came."""
    from persona import checkpoints, processes, runlog, steering
    from persona.callbacks import INTERRUPTED

    if resume and checkpoints.training_is_over(resume, job.steps):
        checkpoints.take_up(trainer, resume)
    else:
        processes.part_random_numbers(job.args.seed)
        with steering.preventing(trainer.model, job.args.prevent, job.entry):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if any(getattr(callback, "stopped", False) for callback in trainer.callback_handler.callbacks):
        job.note(status="interrupted", end=runlog.now())
        if processes.is_main():
            at = trainer.state.global_step
            print(f"stopped at step {at} of {job.steps}: start again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def finish(job: Job, trainer, size: tuple[int, int]) -> None:
    """Evaluate on all validation rows; write adapter, card and state."""
    from persona import footprint, processes, publish, runlog

    state = trainer.state
    loss = trainer.evaluate(job.sets["validation"], metric_key_prefix="final")["final_loss"]
    data = f"{job.data.name}, {len(job.sets['train']):,} rows an epoch"
    measured = publish.measured_facts(job.inputs, data, size, state, loss)
    sharded = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not processes.is_main():
        return
    card = publish.model_card(job.folder.name, job.inputs, job.entry, measured)
    publish.save_adapter(trainer.model, job.tokenizer, job.folder, job.entry, card, sharded)
    kept = ("global_step", "epoch", "max_steps", "log_history", "best_metric", "best_global_step")
    runlog.write_json(job.folder / "trainer_state.json", {k: getattr(state, k) for k in kept})
    job.note(status="done", end=runlog.now(), measured=measured, peak_gib=footprint.peak_gib(job.device))
    print(f"adapter written to {job.folder / 'adapter'}; validation loss {loss:.3f}")


def train_by_provider(args: Args) -> None:
    """Have a provider's service train on the data set; a second start follows the job of the first."""
    from persona import card as cards
    from persona import managed

    folder = managed.run_folder(args)
    if args.cancel:
        managed.cancel(args, folder, tell=print)
        return
    card = cards.load_card(args.persona)
    corpus = args.corpus or "canon"
    data = args.data or config.dataset_folder(args.persona, corpus)
    if not args.data:
        build_if_missing(card, corpus, data)
    managed.train(args, folder, data, tell=print)


def main(args: Args) -> None:
    from persona import managed

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    managed.check(args)
    if args.backend != "local":
        train_by_provider(args)
        return
    from persona.callbacks import leave_on_signal

    leave_on_signal()
    from transformers import set_seed

    from persona import checkpoints, footprint, managed_record, modeling, processes, runlog

    check(args)
    job = prepare(args)
    managed_record.refuse_mixture(job.folder, "local")
    args, written = job.args, modeling.weights_of(job.folder / "adapter")
    if not args.force and runlog.is_current(job.folder, "fine_tune", job.inputs_sha256, [written]):
        print(f"{written.parent} is finished for these data and settings (--force trains it again)")
        return
    kept, named = job.folder / "checkpoints", os.environ.get("RESUME_CHECKPOINT")
    resume = processes.from_main(
        lambda: checkpoints.to_resume(kept, job.inputs, args.force, args.allow_changed_settings, named)
    )

    set_seed(args.seed)
    trainer = build(job, resume)
    size = footprint.parameter_counts(trainer.model)
    longest = sum(sorted(map(len, job.sets["train"]["input_ids"]), reverse=True)[: args.micro_batch])
    print(footprint.size_table(trainer.model, longest, args.activation_checkpointing))
    going_on = f"; on from {resume}" if resume else ""
    print(f"{job.steps} steps of {args.batch_size} rows, learning rate {args.lr:g}{going_on}")
    facts = {"start": runlog.now(), "settings": job.inputs, "inputs_sha256": job.inputs_sha256}
    job.note(status="running", **facts, device=str(job.device))
    train(job, trainer, resume)
    finish(job, trainer, size)


if __name__ == "__main__":
    config.run_script(main, Args)
