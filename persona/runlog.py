"""A run folder.

Whole-or-not-at-all JSON, run.json with everything that a result depends on, and "is it up to date?".
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import config
from persona.errors import UserError

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "rouge-score",
    "scipy",
)


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name, sync, rename.

    A reader sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path, what: str, remedy: str = "") -> Any:
    """Read JSON; `what` names the thing and `remedy` the command that makes it.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    if not path.is_file():
        raise UserError(f"{what} is missing: {path}" + (f"; make it with: {remedy}" if remedy else ""))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid JSON ({error})" + (f"; make it again with: {remedy}" if remedy else "")
        ) from error


def sha256_of(*parts: Path | bytes | str) -> str:
    """One hash over files and strings, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
        else:
            digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()


def settings_of(args: Any) -> dict:
    """A dataclass of settings as plain JSON values."""
    values = asdict(args) if is_dataclass(args) else dict(args)
    return json.loads(json.dumps(values, default=str))


def run_folder(args: config.RunArgs) -> Path:
    """The folder of this run, result/<run>.

    Resolves the default model by device (imports torch only where it must).
    """
    if args.run:
        return config.RESULT / args.run
    return config.RESULT / config.run_name(args, resolve_model(args))


def command_for(script: str, args: config.RunArgs) -> str:
    """The command that runs another stage for the same run.

    `script` with the shared flags that were given.
    """
    shared = [field for field in fields(config.RunArgs) if field.name != "force"]
    given = [field.name for field in shared if getattr(args, field.name) != field.default]
    flags = [word for name in given for word in (f"--{name}", str(getattr(args, name)))]
    return shlex.join(["python", script, *flags])


def resolve_model(args: config.RunArgs) -> config.ModelEntry:
    """The base model of this run.

    Says so where the embedded one stands in because there is no CUDA device.
    """
    if args.model:
        return config.resolve_model(args.model, cuda=False)
    cuda = cuda_available()
    if not cuda:
        print("no CUDA device: using the embedded base model (--model tiny)")
    return config.resolve_model(None, cuda)


def cuda_available() -> bool:
    """Whether torch sees a CUDA device; False where torch is not installed."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def git_state() -> dict:
    """Commit and dirty flag of the checkout; None where it is no git checkout."""

    def git(*words: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(config.ROOT), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except FileNotFoundError:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def environment() -> dict:
    """Package versions, Python, machine."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "project": config.VERSION,
    }


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_stage(folder: Path, stage: str, **facts: Any) -> None:
    """Add or update one stage's entry in run.json: command, git state, environment and `facts`."""
    path = folder / "run.json"
    record = read_json(path, "run.json") if path.is_file() else {"run": folder.name, "stages": {}}
    entry = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_state(),
        "environment": environment(),
    }
    record["stages"][stage] = {**record["stages"].get(stage, {}), **entry, **facts}
    write_json(path, record)


def stage_facts(folder: Path, stage: str) -> dict:
    """What run.json says of a stage; empty where it says nothing."""
    path = folder / "run.json"
    return read_json(path, "run.json")["stages"].get(stage, {}) if path.is_file() else {}


def is_current(folder: Path, stage: str, inputs: str, outputs: Iterable[Path]) -> bool:
    """Whether the stage finished for these very inputs and its outputs are there."""
    facts = stage_facts(folder, stage)
    return (
        facts.get("status") == "done"
        and facts.get("inputs_sha256") == inputs
        and all(p.exists() for p in outputs)
    )
