"""Exports to other tools, the tools' own rules, and rows checked line by line."""

import json
import math
from pathlib import Path

import pytest
import yaml

import config
from persona import formats, runlog, validation
from persona.errors import UserError
from persona.rows import make_row, row_id
from persona.validation import problems, validate

KINDS = ("axolotl", "llama-factory", "openai", "mistral", "parquet")
SYSTEM = {"role": "system", "content": "You are Holmes."}


def row(i: int, answer: str = "A client, and a worried one.", **meta) -> dict:
    """A dialogue row; rows of odd number have a field that the others lack, as real ones do."""
    messages = [
        SYSTEM,
        {"role": "user", "content": f"Who calls at {i} o’clock?"},
        {"role": "assistant", "content": answer},
    ]
    scene = {"scene": f"s#{i}"} if i % 2 else {}
    return make_row(messages, "dialogue", **({"story": "silver-blaze", "span": [i, i + 9]} | scene | meta))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A data set of 12, 3 and 2 rows."""
    start = 0
    for split, n in (("train", 12), ("validation", 3), ("test", 2)):
        runlog.write_jsonl(tmp_path / "data" / f"{split}.jsonl", [row(start + i) for i in range(n)])
        start += n
    return tmp_path / "data"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def edit_yaml(path: Path, **changes) -> None:
    settings = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))


# --- every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("axolotl", ["axolotl.yaml", "test.jsonl", "train.jsonl", "validation.jsonl"]),
        (
            "llama-factory",
            ["dataset_info.json", "llama_factory.yaml", "test.jsonl", "train.jsonl", "validation.jsonl"],
        ),
        ("openai", ["test.jsonl", "train.jsonl", "validation.jsonl"]),
        ("mistral", ["test.jsonl", "train.jsonl", "validation.jsonl"]),
        ("parquet", ["test.parquet", "train.parquet", "validation.parquet"]),
    ],
)
def test_an_export_has_the_tools_files_and_nothing_else(folder, tmp_path, kind, files):
    out = tmp_path / "out"
    assert formats.export(folder, out, kind) == [out / name for name in files]
    assert sorted(path.name for path in out.iterdir()) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"], "no draft is left behind"
    assert problems(kind, out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_bytes(folder, tmp_path, kind):
    first = formats.export(folder, tmp_path / "one", kind)
    second = formats.export(folder, tmp_path / "two", kind)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("kind", ["axolotl", "parquet"])
def test_rows_stay_as_they_are_where_the_tool_takes_other_fields(folder, tmp_path, kind):
    out = tmp_path / "out"
    formats.export(folder, out, kind)
    if kind == "axolotl":
        assert (out / "train.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()
    else:
        from pyarrow import parquet

        rows = parquet.read_table(out / "test.parquet").to_pylist()
        assert [r["id"] for r in rows] == [r["id"] for r in read(folder / "test.jsonl")]
        assert rows[1]["meta"]["span"] == [16, 25]
        assert [r["meta"]["scene"] for r in rows] == ["s#15", None], "one schema: what a row lacks is null"


@pytest.mark.parametrize("kind", ["llama-factory", "openai", "mistral"])
def test_rows_are_messages_alone_where_it_does_not(folder, tmp_path, kind):
    formats.export(folder, tmp_path / "out", kind)
    assert read(tmp_path / "out" / "test.jsonl") == [
        {"messages": r["messages"]} for r in read(folder / "test.jsonl")
    ]


def test_a_message_keeps_role_and_content_only_where_a_service_reads_it(folder, tmp_path):
    rows = read(folder / "train.jsonl")
    rows[0]["messages"][1]["mood"] = "grave"
    runlog.write_jsonl(folder / "train.jsonl", rows)
    formats.export(folder, tmp_path / "out", "openai")
    assert read(tmp_path / "out" / "train.jsonl")[0]["messages"][1] == {
        "role": "user",
        "content": "Who calls at 0 o’clock?",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_plain_messages_can_be_exported_too_and_other_files_are_left_alone(folder, tmp_path, kind):
    for split in ("train", "validation", "test"):
        path = folder / f"{split}.jsonl"
        runlog.write_jsonl(path, [{"messages": r["messages"]} for r in read(path)])
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    formats.export(folder, out, kind)
    assert problems(kind, out) == []
    assert (out / "notes.txt").read_text() == "mine"


def test_an_unknown_format_is_refused(folder, tmp_path):
    with pytest.raises(
        UserError, match=r"^unknown format 'csv': there is axolotl, llama-factory, openai, mi"
    ):
        formats.export(folder, tmp_path / "out", "csv")


def test_an_export_never_goes_over_the_data_set_or_a_file(folder, tmp_path):
    before = (folder / "train.jsonl").read_bytes()
    with pytest.raises(UserError, match="would write over the data set"):
        formats.export(folder, folder / ".." / "data", "openai")
    assert (folder / "train.jsonl").read_bytes() == before
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="a file is in the way"):
        formats.export(folder, tmp_path / "notes", "openai")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_missing_split_is_refused_with_the_command_that_makes_it(folder, tmp_path):
    (folder / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"no data set at .*validation\.jsonl: make it with python generate"):
        formats.export(folder, tmp_path / "out", "axolotl")


def test_an_empty_training_file_is_refused(folder, tmp_path):
    (folder / "train.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"train\.jsonl: no rows to export"):
        formats.export(folder, tmp_path / "out", "parquet")


def test_what_the_tool_would_refuse_is_not_written_over_an_older_export(folder, tmp_path):
    out = tmp_path / "out"
    formats.export(folder, out, "openai")
    before = (out / "train.jsonl").read_bytes()
    runlog.write_jsonl(folder / "train.jsonl", [row(i) for i in range(9)])
    with pytest.raises(
        UserError,
        match=r"openai would refuse this data set: train\.jsonl: 9 examples, at least 10 are needed$",
    ):
        formats.export(folder, out, "openai")
    assert (out / "train.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


# --- Axolotl and LLaMA-Factory: the settings of fine_tune.py ---------------------------------------------


def fine_tune_defaults():
    """Rank, alpha, dropout, batch, learning rate, epochs, length, seed as fine_tune.py has them for 7B."""
    import fine_tune

    args = fine_tune.Args()
    return fine_tune.settled(args, config.MODELS["qwen2.5-7b"], on_gpu=True)


# Fields of axolotl.utils.schemas, release 0.19, with their types, as far as the export uses them.
AXOLOTL = {
    "base_model": str,
    "revision_of_model": str,
    "load_in_4bit": bool,
    "adapter": str,
    "lora_r": int,
    "lora_alpha": int,
    "lora_dropout": float,
    "lora_target_modules": list,
    "chat_template": str,
    "datasets": list,
    "test_datasets": list,
    "sequence_len": int,
    "sample_packing": bool,
    "train_on_inputs": bool,
    "micro_batch_size": int,
    "gradient_accumulation_steps": int,
    "num_epochs": float,
    "learning_rate": float,
    "lr_scheduler": str,
    "warmup_steps": int,
    "weight_decay": float,
    "optimizer": str,
    "bf16": str,
    "attn_implementation": str,
    "gradient_checkpointing": bool,
    "eval_steps": int,
    "save_steps": int,
    "save_total_limit": int,
    "load_best_model_at_end": bool,
    "metric_for_best_model": str,
    "greater_is_better": bool,
    "early_stopping_patience": int,
    "logging_steps": int,
    "seed": int,
    "output_dir": str,
}


def test_axolotls_settings_are_those_of_fine_tune(folder, tmp_path):
    formats.export(folder, tmp_path / "out", "axolotl")
    settings = yaml.safe_load((tmp_path / "out" / "axolotl.yaml").read_text())
    assert {name: type(value) for name, value in settings.items()} == AXOLOTL
    ours = fine_tune_defaults()
    assert settings["base_model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert (settings["adapter"], settings["load_in_4bit"]) == ("qlora", ours.four_bit)
    names = {
        "lora_r": "lora_r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "num_epochs": "epochs",
        "learning_rate": "lr",
        "sequence_len": "max_length",
        "weight_decay": "weight_decay",
        "early_stopping_patience": "patience",
        "gradient_checkpointing": "activation_checkpointing",
        "seed": "seed",
    }
    assert {k: settings[k] for k in names} == {k: getattr(ours, name) for k, name in names.items()}
    assert settings["micro_batch_size"] * settings["gradient_accumulation_steps"] == ours.batch_size
    assert settings["lora_target_modules"] == list(config.LORA_TARGETS)
    # 12 rows are 2 steps an epoch, 6 in all: a tenth warms up (at least 1), a sixth is 1
    assert (settings["warmup_steps"], settings["eval_steps"], settings["save_steps"]) == (1, 1, 1)


def test_axolotl_trains_on_the_assistants_turns_of_a_chat_template_data_set(folder, tmp_path):
    formats.export(folder, tmp_path / "out", "axolotl")
    settings = yaml.safe_load((tmp_path / "out" / "axolotl.yaml").read_text())
    assert settings["datasets"] == [
        {
            "path": "train.jsonl",
            "ds_type": "json",
            "split": "train",
            "type": "chat_template",
            "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"},
            "roles": {"system": ["system"], "user": ["user"], "assistant": ["assistant"]},
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
    ]
    assert settings["test_datasets"] == [settings["datasets"][0] | {"path": "validation.jsonl"}]


def test_the_schedule_grows_with_the_rows_as_fine_tune_reckons_it():
    assert formats._schedule(8_001) == (100, math.floor(1_001 * 3 / 6)), (
        "1,001 steps an epoch, the last short"
    )
    assert formats._schedule(80) == (3, 5), "30 steps: a tenth warms up, a sixth between evaluations"


def test_axolotls_own_schema_takes_the_settings(folder, tmp_path, monkeypatch):
    schemas = pytest.importorskip("axolotl.utils.schemas.config", reason="axolotl is not installed")
    formats.export(folder, tmp_path / "out", "axolotl")
    monkeypatch.chdir(tmp_path / "out")
    settings = yaml.safe_load(Path("axolotl.yaml").read_text())
    assert set(settings) <= set(schemas.AxolotlInputConfig.model_fields)
    assert schemas.AxolotlInputConfig(**settings).datasets[0].type == "chat_template"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"learning_rate": "2e-4"}, "axolotl.yaml: learning_rate is '2e-4'"),  # YAML 1.1 reads 2e-4 as text
        ({"micro_batch_size": True}, "axolotl.yaml: micro_batch_size is True"),
        ({"base_model": None}, "axolotl.yaml: base_model is None"),
        ({"load_in_4bit": False}, "axolotl.yaml: adapter qlora needs load_in_4bit"),
        ({"adapter": None}, "axolotl.yaml: load_in_4bit needs an adapter"),
        ({"val_set_size": 0.1}, "axolotl.yaml: test_datasets and val_set_size exclude each other"),
        ({"evals_per_epoch": 2}, "axolotl.yaml: eval_steps and evals_per_epoch exclude each other"),
    ],
)
def test_axolotls_rules(folder, tmp_path, changes, problem):
    formats.export(folder, tmp_path / "out", "axolotl")
    edit_yaml(tmp_path / "out" / "axolotl.yaml", **changes)
    assert problems("axolotl", tmp_path / "out") == [problem]


def test_axolotl_needs_its_files_and_the_right_type(folder, tmp_path):
    out = tmp_path / "out"
    formats.export(folder, out, "axolotl")
    edit_yaml(out / "axolotl.yaml", test_datasets=[{"path": "dev.jsonl", "type": "alpaca"}])
    assert problems("axolotl", out) == [
        "axolotl.yaml: dev.jsonl must be of type chat_template with field_messages messages",
        "axolotl.yaml: no file dev.jsonl",
    ]
    (out / "axolotl.yaml").write_text("a: [1")
    assert problems("axolotl", out)[0].startswith("axolotl.yaml: not YAML (")
    (out / "train.jsonl").unlink()
    assert problems("axolotl", out) == [f"{out / 'train.jsonl'}: missing"]


# Arguments of LLaMA-Factory 0.9.5 (llamafactory.hparams, TrainingArguments); it refuses others.
LLAMA_FACTORY = {
    *("model_name_or_path", "model_revision", "quantization_method", "quantization_bit", "quantization_type"),
    *("double_quantization", "stage", "do_train", "finetuning_type", "lora_rank", "lora_alpha"),
    *("lora_dropout", "lora_target", "dataset_dir", "dataset", "eval_dataset", "template", "cutoff_len"),
    *("train_on_prompt", "mask_history", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type"),
    *("warmup_steps", "weight_decay", "optim", "bf16", "eval_strategy", "eval_steps", "save_strategy"),
    *("save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model"),
    *("greater_is_better", "early_stopping_steps", "logging_steps", "report_to", "seed", "output_dir"),
}


def test_llama_factorys_settings_are_those_of_fine_tune(folder, tmp_path):
    formats.export(folder, tmp_path / "out", "llama-factory")
    settings = yaml.safe_load((tmp_path / "out" / "llama_factory.yaml").read_text())
    assert set(settings) == LLAMA_FACTORY
    ours = fine_tune_defaults()
    names = {
        "lora_rank": "lora_r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "num_train_epochs": "epochs",
        "learning_rate": "lr",
        "cutoff_len": "max_length",
        "weight_decay": "weight_decay",
        "early_stopping_steps": "patience",
        "per_device_train_batch_size": "batch_size",
        "seed": "seed",
    }
    assert {k: settings[k] for k in names} == {k: getattr(ours, name) for k, name in names.items()}
    assert settings["lora_target"].split(",") == list(config.LORA_TARGETS)
    assert (settings["quantization_bit"], settings["quantization_type"]) == (4, "nf4")
    assert not settings["train_on_prompt"] and not settings["mask_history"]


def llama_factory_reads(entry: dict, example: dict) -> tuple[str, list[dict]]:
    """System turn and other turns as LLaMA-Factory 0.9.5 gets them out of a row.

    After parser.DatasetAttr.join (a tag that is missing where "tags" is there becomes None) and
    converter.SharegptDatasetConverter (turns must alternate, and be even in number).
    """
    tags = entry.get("tags", {})
    role, content = tags.get("role_tag"), tags.get("content_tag")
    messages = example[entry["columns"]["messages"]]
    system = ""
    if tags.get("system_tag") and messages[0][role] == tags["system_tag"]:
        system, messages = messages[0][content], messages[1:]
    accepted = (tags.get("user_tag"), tags.get("assistant_tag"))
    assert all(m[role] == accepted[i % 2] for i, m in enumerate(messages)) and len(messages) % 2 == 0
    return system, [m[content] for m in messages]


def test_llama_factory_finds_system_question_and_answer(folder, tmp_path):
    formats.export(folder, tmp_path / "out", "llama-factory")
    entries = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert list(entries) == ["persona_train", "persona_validation", "persona_test"]
    entry = entries["persona_train"]
    assert (entry["file_name"], entry["formatting"]) == ("train.jsonl", "sharegpt")
    assert llama_factory_reads(entry, read(tmp_path / "out" / entry["file_name"])[3]) == (
        "You are Holmes.",
        ["Who calls at 3 o’clock?", "A client, and a worried one."],
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dataset": "sherlock"}, "llama_factory.yaml: sherlock is not in dataset_info.json"),
        ({"template": None}, "llama_factory.yaml: template is None"),
        ({"val_size": 0.1}, "llama_factory.yaml: eval_dataset and val_size exclude each other"),
        (
            {"finetuning_type": "full"},
            "llama_factory.yaml: quantization_bit needs finetuning_type lora or oft",
        ),
    ],
)
def test_llama_factorys_rules(folder, tmp_path, changes, problem):
    formats.export(folder, tmp_path / "out", "llama-factory")
    edit_yaml(tmp_path / "out" / "llama_factory.yaml", **changes)
    assert problems("llama-factory", tmp_path / "out") == [problem]


def test_llama_factorys_data_sets_need_all_tags_and_their_files(folder, tmp_path):
    out = tmp_path / "out"
    formats.export(folder, out, "llama-factory")
    entries = json.loads((out / "dataset_info.json").read_text())
    del entries["persona_train"]["tags"]["role_tag"]
    entries["persona_test"]["file_name"] = "gone.jsonl"
    entries["persona_validation"]["formatting"] = "alpaca"
    runlog.write_json(out / "dataset_info.json", entries)
    assert problems("llama-factory", out) == [
        "dataset_info.json: persona_train: no role_tag",
        "dataset_info.json: persona_validation needs formatting sharegpt and the column of its messages",
        "dataset_info.json: persona_test: no file gone.jsonl",
    ]


# --- OpenAI and Mistral -----------------------------------------------------------------------------------


@pytest.fixture
def openai(folder, tmp_path) -> Path:
    formats.export(folder, tmp_path / "out", "openai")
    return tmp_path / "out"


def with_first(out: Path, value: object) -> None:
    rows = read(out / "train.jsonl")
    runlog.write_jsonl(out / "train.jsonl", [value, *rows[1:]])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["no object"], 'no list "messages"'),
        ({"messages": row(0)["messages"], "meta": None}, '"meta" is not taken'),
        (
            {
                "messages": [
                    SYSTEM,
                    {"role": "user", "content": "Who?", "mood": "grave"},
                    row(0)["messages"][2],
                ]
            },
            '"mood" is not taken',
        ),
        (
            {"messages": row(0)["messages"][:2]},
            "turns must be user, assistant, user, assistant ... after an optional system turn, got system, u",
        ),
        (
            {"messages": [{"role": "butler", "content": "Sir?"}]},
            'message 0 has no "role" out of system, user, assistant',
        ),
        ({"messages": [*row(0)["messages"][:2], {"role": "assistant", "content": " "}]}, "message 2 (assist"),
    ],
)
@pytest.mark.parametrize("kind", ["openai", "mistral"])
def test_the_services_rules_for_an_example(openai, kind, value, problem):
    with_first(openai, value)
    found = problems(kind, openai)
    assert len(found) == 1 and found[0].startswith(f"train.jsonl, line 1: {problem}")


def test_openai_takes_examples_of_65536_tokens_by_four_characters_each(openai):
    messages = [{"role": "user", "content": "?" * 4}, {"role": "assistant", "content": "x" * (4 * 65_535)}]
    with_first(openai, {"messages": messages})
    assert problems("openai", openai) == []
    messages[1]["content"] += "more"
    with_first(openai, {"messages": messages})
    assert problems("openai", openai) == ["train.jsonl, line 1: about 65,537 tokens, at most 65,536"]


def test_openai_takes_ten_training_examples_and_any_number_of_others(openai):
    runlog.write_jsonl(openai / "train.jsonl", read(openai / "train.jsonl")[:10])
    (openai / "test.jsonl").write_text("")
    assert problems("openai", openai) == []
    runlog.write_jsonl(openai / "train.jsonl", read(openai / "train.jsonl")[:9])
    assert problems("openai", openai) == ["train.jsonl: 9 examples, at least 10 are needed"]


@pytest.mark.parametrize("kind", ["openai", "mistral"])
def test_the_services_take_512_megabytes_a_file(openai, kind):
    path = openai / "train.jsonl"
    with path.open("r+b") as file:  # sparse: blank space to the size, written by nobody
        file.seek(0, 2)
        file.write(b"\n" * 10)
    size = path.stat().st_size
    assert problems(kind, openai) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "MAX_UPLOAD_BYTES", size)
        assert problems(kind, openai) == []
        patch.setattr(validation, "MAX_UPLOAD_BYTES", size - 1)
        assert problems(kind, openai) == [f"train.jsonl: {size:,} bytes, at most {size - 1:,} are taken"]
    assert validation.MAX_UPLOAD_BYTES == 512_000_000


def test_mistrals_validation_file_is_a_twentieth_of_the_training_file(folder, tmp_path, caplog):
    runlog.write_jsonl(folder / "train.jsonl", [row(i) for i in range(100)])
    runlog.write_jsonl(folder / "validation.jsonl", [row(i) for i in range(100, 130)])
    out = tmp_path / "out"
    formats.export(folder, out, "mistral")
    train, held_out = (out / f"{split}.jsonl" for split in ("train", "validation"))
    # 10 of the 100 training rows have an hour of one digit, validation rows have three: 4.9 rows fit
    assert len(read(held_out)) == 4
    assert held_out.stat().st_size <= train.stat().st_size / 20 < held_out.stat().st_size / 4 * 5
    assert [r["messages"] for r in read(held_out)] == [row(i)["messages"] for i in range(100, 104)]
    assert "the first 4 of 30 rows" in caplog.text


def test_mistrals_validation_file_ends_at_a_megabyte(folder, tmp_path, monkeypatch):
    assert validation.MISTRAL_MAX_VALIDATION_BYTES == 1_000_000
    for module in (formats, validation):
        monkeypatch.setattr(module, "MISTRAL_MAX_VALIDATION_BYTES", 1_000)
    runlog.write_jsonl(folder / "train.jsonl", [row(i, "a" * 2_200) for i in range(10)])
    runlog.write_jsonl(folder / "validation.jsonl", [row(i, "a" * 300) for i in range(5)])
    formats.export(folder, tmp_path / "out", "mistral")
    rows = read(tmp_path / "out" / "validation.jsonl")
    assert len(rows) == 2, "476 bytes a row: two make 952, while a twentieth of training would be 1,188"


def test_a_validation_row_too_long_for_mistral_is_refused(folder, tmp_path):
    runlog.write_jsonl(folder / "validation.jsonl", [row(0, "a" * 1_000_000)])
    with pytest.raises(UserError, match=r"validation\.jsonl: 1,000,\d{3} bytes, at most 1,000,000 are taken"):
        formats.export(folder, tmp_path / "out", "mistral")


# --- parquet ----------------------------------------------------------------------------------------------


def test_parquet_splits_have_one_schema_though_a_field_is_null_in_one(folder, tmp_path):
    from pyarrow import parquet

    runlog.write_jsonl(folder / "train.jsonl", [row(i, span=None, story=None) for i in range(0, 20, 2)])
    out = tmp_path / "out"
    formats.export(folder, out, "parquet")
    schemas = [parquet.read_schema(out / f"{split}.parquet") for split in ("train", "validation", "test")]
    assert schemas[0] == schemas[1] == schemas[2]
    messages = schemas[0].field("messages").type.value_type
    assert [messages.field(i).name for i in range(messages.num_fields)] == ["role", "content"]


def test_parquet_loads_with_datasets(folder, tmp_path):
    from datasets import load_dataset

    formats.export(folder, tmp_path / "out", "parquet")
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "validation": 3, "test": 2}
    assert loaded["train"][5]["messages"] == row(5)["messages"]


def test_parquet_needs_one_type_a_field(folder, tmp_path):
    runlog.write_jsonl(folder / "train.jsonl", [row(0, grade=1), row(2, grade="high")])
    with pytest.raises(UserError, match="parquet needs one type a field: "):
        formats.export(folder, tmp_path / "out", "parquet")


def test_parquets_rules(folder, tmp_path):
    import pyarrow
    from pyarrow import parquet

    out = tmp_path / "out"
    formats.export(folder, out, "parquet")
    parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": row(0)["messages"][:2]}]), out / "test.parquet"
    )
    found = problems("parquet", out)
    assert found[0].startswith("test.parquet, row 1: turns must be user, assistant")
    assert found[1:] == ["test.parquet: its columns differ from train.parquet"]
    (out / "train.parquet").write_bytes(b"no parquet")
    assert problems("parquet", out)[0].startswith("train.parquet: not a parquet file with a column messages")


# --- our rows as they are: datasets and TRL --------------------------------------------------------------


def test_datasets_loads_the_rows_as_they_are(folder, tmp_path):
    from datasets import load_dataset

    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "validation": 3, "test": 2}
    assert loaded["train"][7]["messages"] == row(7)["messages"]
    assert loaded["train"][7]["id"] == row(7)["id"]


def test_trl_prepares_the_rows_as_they_are(folder, tmp_path, tiny_tokenizer, tiny_qwen2):
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import is_conversational

    rows = load_dataset(
        "json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert is_conversational(rows[0])
    settings = SFTConfig(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, bf16=False)
    trainer = SFTTrainer(
        tiny_qwen2(tiny_tokenizer), settings, train_dataset=rows, processing_class=tiny_tokenizer
    )
    prepared = tiny_tokenizer.decode(trainer.train_dataset[2]["input_ids"])
    assert prepared == tiny_tokenizer.apply_chat_template(row(2)["messages"], tokenize=False)
    assert prepared.count("A client, and a worried one.") == 1


# --- validate ---------------------------------------------------------------------------------------------


def validated(tmp_path, *lines: str | bytes | dict, limit: int = 10) -> list[str]:
    """What `validate` says of a file of these lines."""
    raw = [json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else line for line in lines]
    raw = [line if isinstance(line, bytes) else line.encode() for line in raw]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return validate(path, limit)


PLAIN = {"messages": row(0)["messages"]}


def test_good_rows_plain_messages_and_blank_lines_have_no_problem(tmp_path):
    assert validated(tmp_path, row(0), "", PLAIN, row(1, span=None, story=None, tier="explicit"), "  ") == []


def test_an_empty_file_and_a_file_of_blank_lines(tmp_path):
    assert validated(tmp_path) == ["the file is empty"]
    assert validated(tmp_path, "", " ") == ["the file is empty"]


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^no file at .*gone\.jsonl$"):
        validate(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": ', "not JSON (Expecting value at column 14)"),
        ("[1, 2]", 'no list "messages"'),
        (b'{"messages": "caf\xe9"}', "not UTF-8 (invalid continuation byte at byte 17 of the line)"),
        (
            '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
            "half of a surrogate pair (\\ud800 to \\udfff), which is no character",
        ),
        pytest.param("[" * 100_000, "not JSON that can be read (", id="deep"),
        ({"messages": [SYSTEM]}, "turns must be user, assistant"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_still_read(tmp_path, line, problem):
    found = validated(tmp_path, PLAIN, "", line, row(1))
    assert len(found) == 1 and found[0].startswith(f"line 3: {problem}")


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    user, assistant = (
        '{"role": "user", "content": "\\ud83d\\ude00"}',
        '{"role": "assistant", "content": "ok"}',
    )
    line = f'{{"messages": [{user}, {assistant}]}}'
    assert validated(tmp_path, line) == []


def test_a_byte_order_mark_is_a_problem_of_its_own(tmp_path):
    good = json.dumps(PLAIN).encode()
    said = "begins with a byte order mark: save the file as UTF-8 without one"
    assert validated(tmp_path, b"\xef\xbb\xbf" + good, good) == [f"line 1: {said}"]
    assert validated(tmp_path, json.dumps(PLAIN).encode("utf-16")) == [
        "line 1: UTF-16 text: save the file as UTF-8"
    ]


def test_only_the_first_bad_lines_are_named(tmp_path):
    assert validated(tmp_path, *["no"] * 4, limit=2) == [
        "line 1: not JSON (Expecting value at column 1)",
        "line 2: not JSON (Expecting value at column 1)",
        "and 2 more bad lines",
    ]
    assert len(validated(tmp_path, *["no"] * 10)) == 10
    assert validated(tmp_path, *["no"] * 11)[-1] == "and 1 more bad line"


def changed(**meta) -> dict:
    return row(0) | {"meta": row(0)["meta"] | meta}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({k: v for k, v in row(0).items() if k != "meta"}, 'no object "meta"'),
        (
            row(0) | {"id": "0" * 16},
            f"\"id\" is '{'0' * 16}', the messages give '{row_id(row(0)['messages'])}'",
        ),
        ({k: v for k, v in row(0).items() if k != "id"}, '"id" is None, the messages give'),
        (changed(strategy="gossip"), "\"strategy\" is 'gossip', not one of dialogue, narrative, qa"),
        (changed(story=7), '"story" is 7: text or null'),
        (changed(story=" "), "\"story\" is ' ': text or null"),
        (changed(tier=["explicit"]), "\"tier\" is ['explicit']: text or null"),
        (changed(teacher=True), '"teacher" is True: text or null'),
        (changed(span=[3]), '"span" is [3]: [start, end] or null'),
        (changed(span=[9, 3]), '"span" is [9, 3]: [start, end] or null'),
        (changed(span=[0, 1.5]), '"span" is [0, 1.5]: [start, end] or null'),
        (changed(span=[False, True]), '"span" is [False, True]: [start, end] or null'),
        (changed(span="3-9"), "\"span\" is '3-9': [start, end] or null"),
    ],
)
def test_id_and_provenance_of_our_rows(tmp_path, line, problem):
    found = validated(tmp_path, line)
    assert len(found) == 1 and found[0].startswith(f"line 1: {problem}")


@pytest.mark.parametrize("name", ["story", "tier", "teacher", "span"])
def test_provenance_is_stated_even_where_there_is_none(tmp_path, name):
    line = row(0) | {"meta": {k: v for k, v in row(0)["meta"].items() if k != name}}
    found = validated(tmp_path, line)
    assert len(found) == 1 and f'"{name}" is ' in found[0] and "missing" in found[0]
