"""The two recipes that ours is measured against, each as a script of its own would do it.

reference   what the reference system does: plain text with names and colons, loss on every token, two rows
            padded to the longer one, four times a step, activation checkpointing, and an evaluation of a
            tenth of all rows every 100 steps. It is given TRL's present trainer, which it did not have, and
            the learning rate and warm-up of ours.
plain       SFTTrainer as TRL's documentation shows it, at TRL's defaults, with loss on the answers alone.

Reads   DATA/train.jsonl, and for reference DATA/validation.jsonl
Writes  OUT/checkpoint-<step>, OUT/run.json

    python benchmarks/training/baseline.py --recipe plain --data DIR --out DIR
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file from anywhere

import config

MARKED_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML with the marks that `assistant_only_loss` asks for."""


@dataclass(frozen=True)
class Args:
    recipe: Literal["reference", "plain"]
    data: Path
    """Folder with train.jsonl and validation.jsonl."""
    out: Path
    model: str = "tiny"
    """As fine_tune.py's, or a folder of training/random_weights.py with --random-weights."""
    speaker: str = "Sherlock Holmes"
    """The persona's name before its answers, for reference."""
    epochs: float = 1.0
    max_steps: int = -1
    lr: float = 2e-3
    saves: int = 6
    """Checkpoints over the whole run."""
    max_length: int = 1024
    seed: int = 42
    random_weights: bool = False
    timing: Path | None = None
    """Note the time of every step in this file."""


def settings(args: Args, on_gpu: bool, rows: int):
    """(TRL's settings of the recipe, its data sets)."""
    import torch
    from datasets import Dataset
    from training.plain_text import texts_of
    from trl import SFTConfig

    from persona.rows import read_rows

    steps = args.max_steps if args.max_steps > 0 else max(1, int(rows * args.epochs) // 8)
    common = {
        "output_dir": str(args.out),
        "num_train_epochs": args.epochs,
        "max_steps": args.max_steps,
        "learning_rate": args.lr,
        "max_length": args.max_length,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "use_cpu": not on_gpu,
        "save_steps": max(1, steps // args.saves),
        "seed": args.seed,
        "report_to": "none",
    }
    if args.recipe == "plain":
        sets = {"train_dataset": Dataset.from_list(messages_of(read_rows(args.data / "train.jsonl")))}
        return SFTConfig(assistant_only_loss=True, **common), sets
    texts = {split: texts_of(args.data / f"{split}.jsonl", args.speaker) for split in ("train", "validation")}
    tenth = texts["validation"][: max(1, rows // 9)]  # of all rows, those held out included
    sets = {
        "train_dataset": Dataset.from_dict({"text": texts["train"]}),
        "eval_dataset": Dataset.from_dict({"text": tenth}),
    }
    chosen = SFTConfig(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        optim="paged_adamw_32bit",
        lr_scheduler_type="cosine",
        warmup_steps=min(100, max(1, steps // 10)),
        eval_strategy="steps",
        eval_steps=100,
        **common,
    )
    return chosen, sets


def messages_of(rows: list[dict]) -> list[dict]:
    """The conversations alone, as TRL takes them."""
    return [{"messages": row["messages"]} for row in rows]


def load(args: Args, on_gpu: bool):
    """The base in NF4 with double quantisation, as transformers' documentation shows it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from persona import runlog

    dtype = torch.bfloat16 if on_gpu else torch.float32
    if args.random_weights:
        from training.random_weights import build

        return build(Path(args.model), "cuda" if on_gpu else "cpu", dtype)
    entry = runlog.resolve_model(args)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        entry.source,
        revision=entry.revision,
        dtype=dtype,
        quantization_config=quantised,
        device_map={"": 0} if on_gpu else None,
    )


def main(args: Args) -> None:
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    from persona import footprint, modeling, runlog
    from persona.rows import read_rows

    on_gpu = torch.cuda.is_available()
    if args.timing:
        from training.timing import note_steps

        note_steps(args.timing, on_gpu)
    entry = runlog.resolve_model(args)
    tokenizer = AutoTokenizer.from_pretrained(entry.source, revision=entry.revision)
    if args.recipe == "reference":
        tokenizer.pad_token = tokenizer.eos_token
    else:
        tokenizer.chat_template = MARKED_TEMPLATE
    chosen, sets = settings(args, on_gpu, len(read_rows(args.data / "train.jsonl")))
    trainer = SFTTrainer(
        model=load(args, on_gpu),
        args=chosen,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.05,
            target_modules=list(config.LORA_TARGETS),
            task_type="CAUSAL_LM",
        ),
        **sets,
    )
    trainer.train()
    history = trainer.state.log_history
    device = modeling.Device("cuda" if on_gpu else "cpu", torch.float32, "")
    facts = {"peak_gib": footprint.peak_gib(device), "steps": trainer.state.global_step}
    facts["evaluation_seconds"] = sum(entry.get("eval_runtime", 0.0) for entry in history)
    runlog.write_json(args.out / "run.json", facts)


if __name__ == "__main__":
    config.run_script(main, Args)
