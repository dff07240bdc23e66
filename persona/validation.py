"""Checks of data set files: rows line by line, and exports by the rules of the tools that read them.

The rules come from the pydantic schemas of Axolotl 0.19 (axolotl.utils.schemas), the parsers and converters
of LLaMA-Factory 0.9.5 (llamafactory.data), OpenAI's guide to supervised fine-tuning and its format-check
notebook, Mistral's fine-tuning guide and the request validator of mistral-common.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from persona.errors import UserError
from persona.rows import SPLITS, STRATEGIES, Row, problem_of, row_id

MAX_UPLOAD_BYTES = 512_000_000
"""Largest file that OpenAI and Mistral take."""
OPENAI_LEAST_EXAMPLES = 10
OPENAI_MAX_TOKENS = 65_536
"""Longest training example of the gpt-4.1 and gpt-4o-mini families; longer ones are cut by the service."""
CHARACTERS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English."""
MISTRAL_MAX_VALIDATION_BYTES = 1_000_000


def validate(path: Path, limit: int = 10) -> list[str]:
    """What is wrong with a JSONL file of rows, or of plain `messages`: the first `limit` bad lines by number.

    A last entry says how many more there are. Rows with an id or meta must be whole rows of this project.

    Raises:
        UserError: no such file.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    rows, found = 0, []
    for number, value, problem in _lines(path):
        rows += 1
        problem = problem or problem_of(value) or _provenance_problem(value)
        if problem:
            found.append(f"line {number}: {problem}")
    if not rows:
        return ["the file is empty"]
    rest = len(found) - limit
    return found if rest <= 0 else [*found[:limit], f"and {rest:,} more bad line{'s' if rest > 1 else ''}"]


def problems(kind: str, path: Path) -> list[str]:
    """What the tool would refuse in the export that lies in the folder `path`; empty where nothing is."""
    check, files = _RULES[kind]
    missing = [f"{path / name}: missing" for name in files if not (path / name).is_file()]
    return missing or list(check(path))


# --- lines ------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, Any, str | None]]:
    """Number, value and problem of every line that is not blank."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                yield 1, None, "UTF-16 text: save the file as UTF-8"
                return
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                yield 1, None, "begins with a byte order mark: save the file as UTF-8 without one"
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, *_parsed(line.rstrip(b"\r\n"))


def _parsed(line: bytes) -> tuple[Any, str | None]:
    try:
        value = json.loads(line.decode("utf-8"))
        if b"\\ud" in line.lower():  # half of a surrogate pair is JSON, but no text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error.reason} at byte {error.start} of the line)"
    except UnicodeEncodeError:
        return None, "half of a surrogate pair (\\ud800 to \\udfff), which is no character"
    except json.JSONDecodeError as error:
        return None, f"not JSON ({error.msg} at column {error.colno})"
    except (ValueError, RecursionError) as error:
        return None, f"not JSON that can be read ({error})"
    return value, None


def _provenance_problem(row: Row) -> str | None:
    """What is wrong with id and meta; plain messages have neither."""
    if "id" not in row and "meta" not in row:
        return None
    meta = row.get("meta")
    if not isinstance(meta, dict):
        return 'no object "meta"'
    if row.get("id") != row_id(row["messages"]):
        return f'"id" is {row.get("id")!r}, the messages give {row_id(row["messages"])!r}'
    if meta.get("strategy") not in STRATEGIES:
        return f'"strategy" is {meta.get("strategy")!r}, not one of {", ".join(STRATEGIES)}'
    for name in ("story", "tier", "teacher"):
        if name not in meta:
            return f'"{name}" is missing from meta (null where there is none)'
        if meta[name] is not None and (not isinstance(meta[name], str) or not meta[name].strip()):
            return f'"{name}" is {meta[name]!r}: text or null'
    span = meta.get("span", "missing")
    if span is None:
        return None
    whole = isinstance(span, list) and len(span) == 2 and all(type(offset) is int for offset in span)
    return None if whole and 0 <= span[0] < span[1] else f'"span" is {span!r}: [start, end] or null'


# --- the tools' rules -------------------------------------------------------------------------------------


def _file_problems(
    path: Path,
    problem_in: Callable[[Any], str | None] = problem_of,
    *,
    least: int = 1,
    most_bytes: int | None = None,
) -> Iterator[str]:
    """Bad lines of an exported JSONL file, and its size."""
    n = 0
    for number, value, problem in _lines(path):
        n += 1
        problem = problem or problem_in(value)
        if problem:
            yield f"{path.name}, line {number}: {problem}"
    if n < least:
        yield f"{path.name}: {n} examples, at least {least} are needed"
    if most_bytes and path.stat().st_size > most_bytes:
        yield f"{path.name}: {path.stat().st_size:,} bytes, at most {most_bytes:,} are taken"


def _service_problem(row: Any) -> str | None:
    """OpenAI and Mistral: nothing but messages, these with nothing but role and content."""
    problem = problem_of(row)
    if problem:
        return problem
    extra = sorted(set(row) - {"messages"}) + sorted(
        k for m in row["messages"] for k in m.keys() - {"role", "content"}
    )
    return f'"{extra[0]}" is not taken' if extra else None


def _openai_problem(row: Any) -> str | None:
    problem = _service_problem(row)
    if problem:
        return problem
    tokens = sum(len(m["content"]) for m in row["messages"]) // CHARACTERS_PER_TOKEN
    return f"about {tokens:,} tokens, at most {OPENAI_MAX_TOKENS:,}" if tokens > OPENAI_MAX_TOKENS else None


def _openai_problems(path: Path) -> Iterator[str]:
    for split in SPLITS:
        least = OPENAI_LEAST_EXAMPLES if split == "train" else 0
        yield from _file_problems(
            path / f"{split}.jsonl", _openai_problem, least=least, most_bytes=MAX_UPLOAD_BYTES
        )


def _mistral_problems(path: Path) -> Iterator[str]:
    for split in SPLITS:
        most = MISTRAL_MAX_VALIDATION_BYTES if split == "validation" else MAX_UPLOAD_BYTES
        yield from _file_problems(
            path / f"{split}.jsonl", _service_problem, least=split == "train", most_bytes=most
        )


def _tool_problems(path: Path, name: str, required: dict[str, type | tuple]) -> tuple[dict, list[str]]:
    """The settings in a tool's YAML file, and which of the required ones are missing or of another type."""
    import yaml

    try:
        settings = yaml.safe_load((path / name).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return {}, [f"{name}: not YAML ({' '.join(str(error).split())})"]
    if not isinstance(settings, dict):
        return {}, [f"{name}: no settings"]
    wrong = [
        f"{name}: {key} is {settings.get(key)!r}"  # learning_rate: 2e-4 is a string in YAML, 0.0002 a number
        for key, kind in required.items()
        if not isinstance(settings.get(key), kind) or (kind is not bool and isinstance(settings[key], bool))
    ]
    return settings, wrong


def _axolotl_problems(path: Path) -> Iterator[str]:
    name, number = "axolotl.yaml", (int, float)
    required = {"base_model": str, "datasets": list, "learning_rate": number, "num_epochs": number}
    required |= {"micro_batch_size": int, "gradient_accumulation_steps": int, "sequence_len": int}
    settings, wrong = _tool_problems(path, name, required)
    yield from wrong
    if settings.get("adapter") == "qlora" and not settings.get("load_in_4bit"):
        yield f"{name}: adapter qlora needs load_in_4bit"
    if not settings.get("adapter") and settings.get("load_in_4bit"):
        yield f"{name}: load_in_4bit needs an adapter"
    if settings.get("test_datasets") and settings.get("val_set_size"):
        yield f"{name}: test_datasets and val_set_size exclude each other"
    if settings.get("eval_steps") and settings.get("evals_per_epoch"):
        yield f"{name}: eval_steps and evals_per_epoch exclude each other"
    for source in [*(settings.get("datasets") or []), *(settings.get("test_datasets") or [])]:
        if source.get("type") != "chat_template" or source.get("field_messages") != "messages":
            yield f"{name}: {source.get('path')} must be of type chat_template with field_messages messages"
        if not (path / str(source.get("path"))).is_file():
            yield f"{name}: no file {source.get('path')}"
    for split in SPLITS:
        yield from _file_problems(path / f"{split}.jsonl", least=split == "train")


def _llama_factory_problems(path: Path) -> Iterator[str]:
    name, number = "llama_factory.yaml", (int, float)
    required = {"model_name_or_path": str, "stage": str, "template": str, "dataset": str, "cutoff_len": int}
    required |= {"do_train": bool, "output_dir": str, "learning_rate": number, "num_train_epochs": number}
    settings, wrong = _tool_problems(path, name, required)
    yield from wrong
    if settings.get("eval_dataset") and settings.get("val_size"):
        yield f"{name}: eval_dataset and val_size exclude each other"
    if settings.get("quantization_bit") and settings.get("finetuning_type") not in ("lora", "oft"):
        yield f"{name}: quantization_bit needs finetuning_type lora or oft"
    try:
        known = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
    except ValueError as error:
        yield f"dataset_info.json: not JSON ({error})"
        return
    named = f"{settings.get('dataset') or ''},{settings.get('eval_dataset') or ''}".split(",")
    yield from (
        f"{name}: {n.strip()} is not in dataset_info.json" for n in named if n and n.strip() not in known
    )
    tags = {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}
    for entry, facts in known.items():
        if facts.get("formatting") != "sharegpt" or not facts.get("columns", {}).get("messages"):
            yield f"dataset_info.json: {entry} needs formatting sharegpt and the column of its messages"
        # it fills in no default where "tags" is there
        yield from (f"dataset_info.json: {entry}: no {t}" for t in sorted(tags - set(facts.get("tags", {}))))
        if not (path / facts.get("file_name", "")).is_file():
            yield f"dataset_info.json: {entry}: no file {facts.get('file_name')}"
    for split in SPLITS:
        yield from _file_problems(path / f"{split}.jsonl", least=split == "train")


def _parquet_problems(path: Path) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    schemas = {}
    for split in SPLITS:
        name = f"{split}.parquet"
        try:
            table = parquet.read_table(path / name, columns=["messages"])
            schemas[name] = parquet.read_schema(path / name)
        except (pyarrow.ArrowException, OSError) as error:
            yield f"{name}: not a parquet file with a column messages ({error})"
            continue
        for number, row in enumerate(table.to_pylist(), 1):
            problem = problem_of(row)
            if problem:
                yield f"{name}, row {number}: {problem}"
    first = next(iter(schemas), None)
    yield from (
        f"{name}: its columns differ from {first}" for name in schemas if schemas[name] != schemas[first]
    )


_JSONL = tuple(f"{split}.jsonl" for split in SPLITS)
_RULES: dict[str, tuple[Callable[[Path], Iterator[str]], tuple[str, ...]]] = {
    "axolotl": (_axolotl_problems, (*_JSONL, "axolotl.yaml")),
    "llama-factory": (_llama_factory_problems, (*_JSONL, "dataset_info.json", "llama_factory.yaml")),
    "openai": (_openai_problems, _JSONL),
    "mistral": (_mistral_problems, _JSONL),
    "parquet": (_parquet_problems, tuple(f"{split}.parquet" for split in SPLITS)),
}
