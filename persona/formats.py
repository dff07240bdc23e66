"""A data set in the form that other tools read.

For Axolotl and LLaMA-Factory with the settings of fine_tune.py, for the fine-tuning services of OpenAI and
Mistral, and as parquet.
"""

import json
import logging
import tempfile
from pathlib import Path

import config
from persona import runlog
from persona.errors import UserError
from persona.rows import SPLITS, Row, read_rows, row_id
from persona.validation import MISTRAL_MAX_VALIDATION_BYTES, problems

logger = logging.getLogger(__name__)

MISTRAL_VALIDATION_SHARE = 0.05
"""Validation file over training file, as Mistral advises."""
BASE = config.MODELS["qwen2.5-7b"]
# The defaults of fine_tune.py; tests compare them.
BATCH_SIZE, WARMUP_STEPS, EVALUATIONS, PATIENCE, SEED = 8, 100, 6, 3, 42
LORA_R, LORA_ALPHA, LORA_DROPOUT = 16, 32, 0.05


def export(folder: Path, to: Path, kind: str) -> list[Path]:
    """Write the data set in `folder` to the folder `to` in the form of `kind`; returns the files written.

    Rows keep `meta` where the tool takes other fields than messages. Nothing is written where `problems`
    finds something.

    Raises:
        UserError: unknown kind, no data set, a bad row, or rows that the tool would refuse.
    """
    if kind not in _WRITERS:
        raise UserError(f"unknown format {kind!r}: there is {', '.join(_WRITERS)}")
    if to.resolve() == folder.resolve():
        raise UserError(f"{to}: the export would write over the data set; give another folder")
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: a file is in the way; give another folder")
    rows = {split: read_rows(folder / f"{split}.jsonl") for split in SPLITS}
    if not rows["train"]:
        raise UserError(f"{folder}/train.jsonl: no rows to export")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as temporary:
        draft = Path(temporary)
        _WRITERS[kind](rows, draft)
        found = problems(kind, draft)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise UserError(f"{folder}: {kind} would refuse this data set: {found[0]}{more}")
        to.mkdir(exist_ok=True)
        return [path.replace(to / path.name) for path in sorted(draft.iterdir())]


def _messages_only(rows: list[Row]) -> list[Row]:
    return [{"messages": [{"role": m["role"], "content": m["content"]} for m in r["messages"]]} for r in rows]


def _schedule(rows: int) -> tuple[int, int]:
    """Steps of warm-up, and steps between two evaluations, as fine_tune.py sets them."""
    steps = max(1, int(-(-rows // BATCH_SIZE) * BASE.epochs))
    return min(WARMUP_STEPS, max(1, steps // 10)), max(1, steps // EVALUATIONS)


def _write_yaml(path: Path, comment: str, settings: dict) -> None:
    import yaml

    runlog.write_text(path, f"# {comment}\n" + yaml.safe_dump(settings, sort_keys=False, width=110))


def _write_axolotl(rows: dict[str, list[Row]], to: Path) -> None:
    for split in SPLITS:
        runlog.write_jsonl(to / f"{split}.jsonl", rows[split])

    def source(split: str) -> dict:
        return {
            "path": f"{split}.jsonl",
            "ds_type": "json",
            "split": "train",  # a lone file has no other
            "type": "chat_template",
            "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"},
            "roles": {role: [role] for role in ("system", "user", "assistant")},
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }

    warmup, every = _schedule(len(rows["train"]))
    settings = {
        "base_model": BASE.source,
        "revision_of_model": BASE.revision,
        "load_in_4bit": True,  # NF4 with double quantisation, by Axolotl's own default
        "adapter": "qlora",
        "lora_r": LORA_R,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": LORA_DROPOUT,
        "lora_target_modules": list(config.LORA_TARGETS),
        "chat_template": "tokenizer_default",
        "datasets": [source("train")],
        "test_datasets": [source("validation")],
        "sequence_len": BASE.max_length,
        "sample_packing": False,
        "train_on_inputs": False,
        "micro_batch_size": BATCH_SIZE,
        "gradient_accumulation_steps": 1,
        "num_epochs": BASE.epochs,
        "learning_rate": BASE.lr,
        "lr_scheduler": "cosine",
        "warmup_steps": warmup,
        "weight_decay": 0.0,
        "optimizer": "paged_adamw_32bit",
        "bf16": "auto",
        "attn_implementation": "sdpa",
        "gradient_checkpointing": True,
        "eval_steps": every,
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "early_stopping_patience": PATIENCE,
        "logging_steps": max(1, every // 5),
        "seed": SEED,
        "output_dir": "./output",
    }
    _write_yaml(to / "axolotl.yaml", "In this folder: axolotl train axolotl.yaml", settings)


def _write_llama_factory(rows: dict[str, list[Row]], to: Path) -> None:
    for split in SPLITS:  # its datasets release (up to 4.0) gives a column one type, which meta has not
        runlog.write_jsonl(to / f"{split}.jsonl", _messages_only(rows[split]))
    runlog.write_json(to / "dataset_info.json", _llama_factory_data_sets())
    comment = "In this folder: llamafactory-cli train llama_factory.yaml"
    _write_yaml(to / "llama_factory.yaml", comment, _llama_factory_settings(len(rows["train"])))


def _llama_factory_data_sets() -> dict:
    """How LLaMA-Factory reads the files.

    "sharegpt" with these tags reads role and content; "openai" would add a sentence to every system turn.
    """
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    return {
        f"persona_{split}": {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        }
        for split in SPLITS
    }


def _llama_factory_settings(rows: int) -> dict:
    """fine_tune.py's settings for so many training rows, as LLaMA-Factory calls them."""
    warmup, every = _schedule(rows)
    return {
        "model_name_or_path": BASE.source,
        "model_revision": BASE.revision,
        "quantization_method": "bnb",
        "quantization_bit": 4,
        "quantization_type": "nf4",
        "double_quantization": True,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": LORA_R,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": LORA_DROPOUT,
        "lora_target": ",".join(config.LORA_TARGETS),
        "dataset_dir": ".",
        "dataset": "persona_train",
        "eval_dataset": "persona_validation",
        "template": "qwen",
        "cutoff_len": BASE.max_length,
        "train_on_prompt": False,
        "mask_history": False,
        "per_device_train_batch_size": BATCH_SIZE,
        "per_device_eval_batch_size": BATCH_SIZE,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": BASE.epochs,
        "learning_rate": BASE.lr,
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup,
        "weight_decay": 0.0,
        "optim": "paged_adamw_32bit",
        "bf16": True,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "early_stopping_steps": PATIENCE,
        "logging_steps": max(1, every // 5),
        "report_to": "none",
        "seed": SEED,
        "output_dir": "./output",
    }


def _write_openai(rows: dict[str, list[Row]], to: Path) -> None:
    for split in SPLITS:
        runlog.write_jsonl(to / f"{split}.jsonl", _messages_only(rows[split]))


def _write_mistral(rows: dict[str, list[Row]], to: Path) -> None:
    _write_openai(rows, to)
    share = int((to / "train.jsonl").stat().st_size * MISTRAL_VALIDATION_SHARE)
    most = min(MISTRAL_MAX_VALIDATION_BYTES, share)
    kept, size = [], 0
    for row in _messages_only(rows["validation"]):
        size += len(json.dumps(row, ensure_ascii=False).encode()) + 1
        if kept and size > most:
            break
        kept.append(row)
    if len(kept) < len(rows["validation"]):
        logger.warning(
            "validation.jsonl: the first %d of %d rows, %d bytes at most",
            len(kept),
            len(rows["validation"]),
            most,
        )
    runlog.write_jsonl(to / "validation.jsonl", kept)


def _write_parquet(rows: dict[str, list[Row]], to: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    everything = [
        {"id": row_id(r["messages"]), "meta": None, **r} for split in SPLITS for r in rows[split]
    ]  # one table, so that all splits have one schema
    try:
        table = pyarrow.Table.from_pylist([{k: r[k] for k in ("id", "messages", "meta")} for r in everything])
    except pyarrow.ArrowException as error:
        raise UserError(f"parquet needs one type a field: {error}; mend the rows' meta") from error
    start = 0
    for split in SPLITS:
        parquet.write_table(table.slice(start, len(rows[split])), to / f"{split}.parquet")
        start += len(rows[split])


_WRITERS = {
    "axolotl": _write_axolotl,
    "llama-factory": _write_llama_factory,
    "openai": _write_openai,
    "mistral": _write_mistral,
    "parquet": _write_parquet,
}
