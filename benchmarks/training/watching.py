"""Run a training script as a process of its own and keep every checkpoint's adapter with its time."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from persona.errors import UserError


@dataclass
class Ran:
    """A training run, watched from outside; seconds count from the start of its process."""

    seconds: float
    """Until the process ended, or was ended."""
    cpu_seconds: float
    peak_gib: float
    """Most memory resident in the process, libraries included."""
    finished: bool
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    """`step`, `seconds` until it was complete, and the `adapter` kept of it."""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def watched(
    command: list[str], folder: Path, marker: str, kept: Path, log: Path, limit: float, threads: int | None
) -> Ran:
    """Run `command`, which writes `folder`/checkpoint-<step>, for at most `limit` seconds.

    A checkpoint counts when `marker`, the file in it that is written last, is there; its adapter is copied
    to `kept`, for trainers remove old ones.

    Raises:
        UserError: the process failed; its last words are in the message.
    """
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    found: list[dict[str, Any]] = []
    with log.open("w", encoding="utf-8") as out:
        begun = time.time()
        process = subprocess.Popen(
            [sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        try:
            status, usage = None, None
            while status is None:
                time.sleep(0.1)
                ended, code, usage = os.wait4(process.pid, os.WNOHANG)
                status = os.waitstatus_to_exitcode(code) if ended else None
                _collect(folder, marker, kept, begun, found)
                if status is None and time.time() - begun > limit:
                    process.kill()
                    _, _, usage = os.wait4(process.pid, 0)
                    status = 0
                    break
            over = time.time() - begun
        except BaseException:
            process.kill()
            raise
        finally:
            process.returncode = 0  # waited for here, not by Popen
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise UserError(f"{Path(command[0]).name} failed: {lines[-1][:300]!r}; all in {log}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(over, cpu, usage.ru_maxrss / 2**20, over <= limit, found)


def _collect(folder: Path, marker: str, kept: Path, begun: float, found: list[dict[str, Any]]) -> None:
    known = {checkpoint["step"] for checkpoint in found}
    for path in folder.glob("checkpoint-*"):
        step = int(path.name.partition("-")[2])
        if step in known:
            continue
        with contextlib.suppress(FileNotFoundError):  # not complete yet, or removed already
            at = (path / marker).stat().st_mtime
            adapter = kept / str(step)
            adapter.mkdir(exist_ok=True)
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copy(path / name, adapter)
            found.append({"step": step, "seconds": at - begun, "adapter": str(adapter)})
    found.sort(key=lambda checkpoint: checkpoint["step"])
