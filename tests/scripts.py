"""What the script-level tests share: scripts run as a user does, a toy base model, data set and corpus."""

import atexit
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TINY_BASE = ROOT / "data" / "tiny-base"
SYSTEM = "You are Sherlock Holmes."

WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "trl"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
"""
"""A patch: a machine on which torch, transformers and trl are not installed."""

DISK_FULL = """
import errno, pathlib

def full(self, target):
    raise OSError(errno.ENOSPC, "No space left on device", str(target))

pathlib.Path.replace = pathlib.Path.rename = full
"""
"""A patch: no file reaches its final name because the disk is full."""


SIGNAL_AT_STEP = """
import os, transformers

step = transformers.Trainer.training_step

def training_step(self, *args, **kwargs):
    if self.state.global_step == {step}:
        os.kill(os.getpid(), {signal:d})
    return step(self, *args, **kwargs)

transformers.Trainer.training_step = training_step
"""
"""A patch: the process gets a signal in the middle of an optimiser step, when `step` steps are done."""


class Done(NamedTuple):
    """A script that has ended."""

    code: int
    out: str
    err: str


def environment(workspace: Path, patch: str = "", **extra: str) -> dict[str, str]:
    """The environment of a script; `patch` is Python that runs before it, by a sitecustomize of its own."""
    own = ("RESUME_CHECKPOINT", "SLURM", "PERSONA_", "OPENAI", "MISTRAL", "PYTHONPATH")
    env = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    env |= {
        "PERSONA_WORKSPACE": str(workspace),
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "COLUMNS": "200",
    }
    env["CUDA_VISIBLE_DEVICES"] = ""  # tests are about the CPU
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    if patch:
        folder = Path(tempfile.mkdtemp(dir=workspace.parent, prefix="patch-"))
        (folder / "sitecustomize.py").write_text(patch)
        env["PYTHONPATH"] = f"{folder}:{ROOT}"
    return env | extra


def run(
    workspace: Path, *command: object, stdin: str = "", cwd: Path = ROOT, patch: str = "", **extra: str
) -> Done:
    """Run a script of the checkout (*.py) or another command to its end; it writes into `workspace`."""
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        words = [sys.executable, str(ROOT / words[0]), *words[1:]]
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=1200, cwd=cwd,
        env=environment(workspace, patch, **extra),
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


WARM = """
import atexit, json, os, runpy, sys, traceback
import torch, transformers, trl, peft, datasets, bitsandbytes, safetensors.torch

torch.set_num_threads(1)

def child(job):
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        os.dup2(os.open(job[name], flags), number)
    sys.stdin = open(0, encoding="utf-8")
    sys.stdout, sys.stderr = open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = job["argv"]
    sys.path[0] = os.path.dirname(job["argv"][0])
    code = 0
    try:
        exec(job["patch"], {})
        runpy.run_path(job["argv"][0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        child(job)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""A process that has imported torch, transformers and trl, and forks for every script that it is to run."""


@functools.cache
def _warm_process() -> subprocess.Popen:
    env = environment(Path(tempfile.gettempdir()))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WARM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    atexit.register(process.kill)
    assert process.stdout.readline() == "ready\n"
    return process


def warm(
    workspace: Path,
    script: str,
    *words: object,
    stdin: str = "",
    cwd: Path = ROOT,
    patch: str = "",
    **extra: str,
) -> Done:
    """`run`, in a fork of a process that has the heavy imports behind it: ten seconds less a script."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    files = {name: folder / name for name in ("stdin", "out", "err")}
    for name, path in files.items():
        path.write_text(stdin if name == "stdin" else "")
    job = {name: str(path) for name, path in files.items()} | {
        "argv": [str(ROOT / script), *map(str, words)], "cwd": str(cwd), "patch": patch,
        "env": environment(workspace) | extra,
    }  # fmt: skip
    process = _warm_process()
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    out, err = files["out"].read_text(), files["err"].read_text()
    shutil.rmtree(folder)
    return Done(code, out, err)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes, but for the cache of encoded rows.

    Any start of fine_tune.py may fill that, also one that is refused later.
    """
    kept = folder / "data" / "cache" / "encoded"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and kept not in p.parents)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def error_line(done: Done) -> str:
    """The one error line of a script that refused its input; fails where there is more than that."""
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.out + done.err, done.err
    assert (done.code, len(lines)) == (2, 1), (done.code, done.err)
    assert done.err.splitlines()[-1] == lines[0], "the error is the last thing that is said"
    return lines[0]


def toy_base(folder: Path, hidden: int = 64, tokenizer=None, tied: bool = True, spread: float = 0.02) -> Path:
    """A two-layer Qwen2 with random weights in a folder; with the embedded tokenizer unless one is given.

    Weights of a wide `spread` make likeliest tokens that vary; with narrow ones the last token comes again.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True)
    if tokenizer is None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(TINY_BASE / name, folder)
    else:
        tokenizer.save_pretrained(folder)
    settings = Qwen2Config(
        vocab_size=len(tokenizer) if tokenizer else 6144, hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=tied, bos_token_id=None, initializer_range=spread,
        eos_token_id=tokenizer.eos_token_id if tokenizer else 2,
        pad_token_id=tokenizer.pad_token_id if tokenizer else 0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(settings).save_pretrained(folder)
    return folder


def toy_row(number: int, answer: str = "") -> dict:
    """A data set row; rows of a length apart, so that batches differ."""
    from persona.rows import make_row

    question = (
        f"What do you make of case number {number}" + ", which came by the morning post" * (number % 3) + "?"
    )
    answer = answer or f"It is the affair of the {number} lamps, Watson." + " Pray be seated." * (number % 4)
    messages = [("system", SYSTEM), ("user", question), ("assistant", answer)]
    story = f"story-{number % 4}"
    return make_row(
        [{"role": r, "content": c} for r, c in messages], "dialogue", story=story, scene=f"{story}#{number}"
    )


def toy_data(workspace: Path, answer: str = "") -> Path:
    """A finished data set for `--corpus embedded`: 24 rows train, 8 validate (with `answer`), 6 test."""
    folder = workspace / "data" / "dataset" / "sherlock-embedded"
    folder.mkdir(parents=True)
    rows = (
        [toy_row(n) for n in range(24)]
        + [toy_row(n, answer) for n in range(24, 32)]
        + [toy_row(n) for n in range(32, 38)]
    )
    for split, part in (("train", rows[:24]), ("validation", rows[24:32]), ("test", rows[32:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "manifest.json").write_text("{}\n")
    return folder


def toy_corpus(folder: Path) -> Path:
    """Four of the embedded stories: two train, one validates, one tests."""
    folder.mkdir(parents=True)
    for name in ("the-chalk-horse", "the-paper-orchid", "the-second-umbrella", "the-night-mail"):
        shutil.copy(ROOT / "data" / "corpus" / "embedded" / f"{name}.txt", folder)
    return folder


def toy_adapter(folder: Path, base: Path) -> Path:
    """An adapter on a toy base, with weights that change its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    import config

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tuned = get_peft_model(
            model, LoraConfig(r=4, target_modules=list(config.LORA_TARGETS), init_lora_weights=False)
        )
    tuned.save_pretrained(folder)
    return folder
