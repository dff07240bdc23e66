"""Every setting once.

Paths, the model registry, the flags that stages share, and the names that follow from them.

Imports nothing heavy and does no I/O, so that `--help` of every script answers at once, without torch.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from persona.errors import UserError

VERSION = "0.1.0"

ROOT = Path(__file__).resolve().parent
"""The checkout: code, personas, the embedded corpus and the embedded base model."""
WORKSPACE = Path(os.environ.get("PERSONA_WORKSPACE", ROOT)).resolve()
"""Where generated things go (data/dataset, data/cache, result).

The checkout unless PERSONA_WORKSPACE says otherwise.
"""
PERSONAS = ROOT / "data" / "personas"
CORPORA = ROOT / "data" / "corpus"
DATASETS = WORKSPACE / "data" / "dataset"
CACHE = WORKSPACE / "data" / "cache"
RESULT = WORKSPACE / "result"

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ModelEntry:
    """A base model: where it comes from and the settings that fit it."""

    source: str
    """Hub id, or a folder (the embedded base lies in the checkout)."""
    revision: str | None = None
    """Commit of the hub repository; None for a folder."""
    corpus: str = "canon"
    """The corpus that belongs to this model by default."""
    lr: float = 2e-4
    epochs: float = 3.0
    most_steps: int | None = None
    """Where neither epochs nor steps are asked for, a large data set stops after this many."""
    identity_weight: int = 1
    """How often an epoch sees each row of the card's identity topics."""
    strategies: tuple[str, ...] = ()
    """Rows to train on, by strategy; () for all."""
    questions: int = 3
    """Most rows with one answer: its best question, or others, too."""
    keep: Literal["best", "last"] = "best"
    """The adapter of the best evaluation, or of the last step."""
    max_length: int = 1024
    """Longest training row, in tokens."""
    name: str = ""
    """Short name, as it stands in run names; filled in by `resolve_model`."""


MODELS: dict[str, ModelEntry] = {
    "qwen2.5-7b": ModelEntry("Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28"),
    "qwen2.5-14b": ModelEntry(
        "Qwen/Qwen2.5-14B-Instruct", "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8", lr=1e-4
    ),
    "qwen2.5-0.5b": ModelEntry("Qwen/Qwen2.5-0.5B-Instruct", "7ae557604adf67be50417f59c2c2f167def9a775"),
    "llama-3-8b": ModelEntry(
        "meta-llama/Meta-Llama-3-8B-Instruct", "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2"
    ),
    "mistral-7b": ModelEntry(
        "mistralai/Mistral-7B-Instruct-v0.3", "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db"
    ),
    "tiny": ModelEntry(
        # It learns manners in 50 steps and who it is only later,
        # when the validation loss already rises a little.
        str(ROOT / "data" / "tiny-base"),
        corpus="embedded",
        lr=2.5e-3,
        epochs=1.5,
        most_steps=409,  # three quarters of an epoch of the embedded Holmes
        identity_weight=6,
        strategies=("dialogue", "curated", "guard"),
        questions=1,
        keep="last",
    ),
}


@dataclass(frozen=True)
class RunArgs:
    """Flags that stages share."""

    persona: str = "sherlock"
    """Persona: a folder of data/personas."""
    corpus: str | None = None
    """embedded, canon, or a folder of text files. Default: embedded for the tiny model, canon for others."""
    model: str | None = None
    """Short name from the registry, a folder, or a hub id.
    Default: qwen2.5-7b where CUDA is there, tiny where it is not."""
    run: str | None = None
    """Name of the run folder under result/.
    Default: <persona>-<model>, with -<corpus> where it is not the model's own."""
    seed: int = 42
    """Seed of everything random."""
    force: bool = False
    """Do it again from the start, although a finished result for the same inputs is there."""


def resolve_model(name: str | None, cuda: bool) -> ModelEntry:
    """The entry for a short name, a folder, or a hub id; None picks by device."""
    name = name or ("qwen2.5-7b" if cuda else "tiny")
    if name in MODELS:
        entry = MODELS[name]
        return ModelEntry(**{**{f.name: getattr(entry, f.name) for f in fields(entry)}, "name": name})
    if Path(name).is_dir():
        return ModelEntry(str(Path(name).resolve()), name=Path(name).resolve().name)
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return ModelEntry(name, name=name.split("/")[1].lower())
    raise UserError(
        f"unknown model {name!r}: give one of {', '.join(MODELS)}, a folder, "
        "or a hub id such as Qwen/Qwen2.5-7B-Instruct"
    )


def corpus_name(corpus: str) -> str:
    """The corpus' short name, as it stands in folder names: embedded, canon, or the folder's own name."""
    return corpus if corpus in ("embedded", "canon") else Path(corpus).resolve().name


def dataset_folder(persona: str, corpus: str) -> Path:
    """Where the data set of a persona from a corpus lies."""
    return DATASETS / f"{Path(persona).name}-{corpus_name(corpus)}"


def run_name(args: RunArgs, entry: ModelEntry) -> str:
    """`sherlock-tiny` for a model with its own corpus, `sherlock-tiny-canon` otherwise."""
    if args.run:
        return args.run
    corpus = corpus_name(args.corpus or entry.corpus)
    return f"{Path(args.persona).name}-{entry.name}" + ("" if corpus == entry.corpus else f"-{corpus}")


def require_positive(args: Any, *names: str) -> None:
    """Refuse settings of 0 or below; None stands for a default."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value}")


def require_limit(args: Any) -> None:
    """Refuse a --limit below 0, which stands for all."""
    if args.limit < 0:
        raise UserError(f"--limit must be 0 (all) or above, not {args.limit}")


def disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error: libraries wrap ENOSPC and EDQUOT in errors of their own."""
    if error is None:
        return False
    said = str(error)
    told = (
        "No space left" in said
        or "os error 28" in said
        or "PytorchStreamWriter failed" in said
        or "inline_container" in said
    )
    if told or (isinstance(error, OSError) and error.errno in (28, 122)):
        return True
    return disk_full(error.__cause__ or error.__context__)


def run_script(main: Callable[[Any], None], args_type: type) -> None:
    """Parse the command line and run `main`; a UserError becomes one line on stderr and exit code 2."""
    import warnings

    import tyro

    warnings.filterwarnings("ignore", category=FutureWarning)  # the libraries' own renamings
    # on a CPU that computes in bf16 it misses a package for packed 4-bit weights, which are not used here
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    args = tyro.cli(args_type, description=sys.modules["__main__"].__doc__)
    try:
        main(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not disk_full(error):
            raise
        print(
            f"error: no space left on the disk ({getattr(error, 'filename', None) or type(error).__name__}): "
            "free some and start again",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; start again to go on", file=sys.stderr)
        sys.exit(130)
