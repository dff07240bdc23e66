"""Checkpoints that can be trusted.

Complete ones carry a marker with hashes, written last; others are set aside.

python -m persona.checkpoints last --persona sherlock     # prints the last complete one of a run, or nothing
python -m persona.checkpoints clean --persona sherlock    # removes a finished run's checkpoints
"""

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import config
from persona import runlog
from persona.errors import UserError

logger = logging.getLogger(__name__)

MARKER = "complete.json"


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 for anything else."""
    found = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(found[1]) if found else -1


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest step first."""
    return sorted(
        (p for p in folder.glob("checkpoint-*") if p.is_dir() and step_of(p) >= 0), key=step_of, reverse=True
    )


def seal(checkpoint: Path) -> None:
    """Sync a finished checkpoint to disk and write its marker: the hash of every file."""
    hashes = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARKER):
        with path.open("rb") as written:
            os.fsync(written.fileno())
        hashes[str(path.relative_to(checkpoint))] = runlog.sha256_of(path)
    runlog.write_json(checkpoint / MARKER, {"step": step_of(checkpoint), "sha256": hashes})


def fault(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used; None where it can."""
    marker = checkpoint / MARKER
    if not marker.is_file():
        return "it was not finished (no marker)"
    try:
        stated = json.loads(marker.read_text(encoding="utf-8"))
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        step, best = state["global_step"], state.get("best_global_step") or state["global_step"]
        hashes, stated_step = dict(stated["sha256"]), stated["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # ValueError: not UTF-8, or not JSON
        return f"its marker or trainer state cannot be read ({error})"
    if step != step_of(checkpoint) or step != stated_step:
        return f"its trainer state says step {step}"
    for name, expected in hashes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if runlog.sha256_of(path) != expected:
            return f"{name} does not have the hash that was recorded"
    if best != step and (why := fault(checkpoint.with_name(f"checkpoint-{best}"))):
        return f"the best checkpoint so far, of step {best}, is lost: {why}"
    return None


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint that is complete.

    Broken newer ones are renamed to broken-... and a line says why.
    """
    for checkpoint in checkpoints(folder):
        why = fault(checkpoint)
        if why is None:
            return checkpoint
        aside = checkpoint.with_name(f"broken-{checkpoint.name}")
        n = 1
        while aside.exists():
            n += 1
            aside = checkpoint.with_name(f"broken-{checkpoint.name}-{n}")
        checkpoint.rename(aside)
        logger.warning("checkpoint %s set aside as %s: %s", checkpoint.name, aside.name, why)
    return None


def require_good(checkpoint: Path) -> Path:
    """A checkpoint that was asked for by path (RESUME_CHECKPOINT).

    Raises:
        UserError: it is not there or not complete.
    """
    if not checkpoint.is_dir():
        raise UserError(
            f"RESUME_CHECKPOINT names {checkpoint}, which is not there: "
            "unset it, or name a checkpoint-N folder"
        )
    why = fault(checkpoint)
    if why:
        raise UserError(
            f"RESUME_CHECKPOINT names {checkpoint}, but {why}: unset it to go on from the last good one"
        )
    return checkpoint


@dataclass(frozen=True)
class Args(config.RunArgs):
    do: Annotated[Literal["last", "clean"], tyro.conf.Positional] = "last"
    """last prints the last complete checkpoint; clean removes the checkpoints of a finished run."""


def main(args: Args) -> None:
    """For run_persona.sh."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    entry = config.resolve_model(args.model, runlog.cuda_available() if args.model is None else False)
    run = config.RESULT / config.run_name(args, entry)
    folder = run / "checkpoints"
    if args.do == "last":
        found = None if args.force else last_good(folder)
        print(found or "", end="")
    elif folder.is_dir() and runlog.stage_facts(run, "fine_tune").get("status") == "done":
        shutil.rmtree(folder)
        print(f"intermediate checkpoints removed from {folder}")


if __name__ == "__main__":
    config.run_script(main, Args)
