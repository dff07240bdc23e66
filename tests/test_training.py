"""fine_tune.py on a toy base: what it writes and computes, and that broken runs end like unbroken ones."""

import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from scripts import (
    ROOT,
    SIGNAL_AT_STEP,
    Done,
    error_line,
    run,
    snapshot,
    toy_adapter,
    toy_base,
    toy_data,
    warm,
)

import config
import fine_tune
from persona import attention, footprint, modeling
from persona.chat import IGNORED, encode
from persona.rows import read_rows

torch = pytest.importorskip("torch")

STEPS, EVERY = 24, 6
SETTINGS = (
    "--corpus", "embedded", "--max-steps", STEPS, "--evals", STEPS // EVERY, "--lr", 5e-3,
    "--micro-batch", 4, "--warmup-steps", 2,
)  # fmt: skip
CPU = modeling.Device("cpu", torch.float32, "a test")


def train(workspace: Path, base: Path, *flags: object, run_name: str = "r", start=warm, **how) -> Done:
    return start(workspace, "fine_tune.py", "--model", base, "--run", run_name, *SETTINGS, *flags, **how)


def weights(workspace: Path, run_name: str = "r") -> bytes:
    return (workspace / "result" / run_name / "adapter" / "adapter_model.safetensors").read_bytes()


def state_of(workspace: Path, run_name: str = "r") -> dict:
    return json.loads((workspace / "result" / run_name / "trainer_state.json").read_text())


def going_on_from(done: Done) -> int:
    """The step from which a resumed run says that it goes on."""
    return int(re.search(r"\bon from \S+/checkpoint-(\d+)$", done.out, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base") / "toy")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, base) -> tuple[Path, Done]:
    """A workspace with a run that nobody disturbed; tests leave it as it is."""
    workspace = tmp_path_factory.mktemp("unbroken") / "workspace"
    toy_data(workspace)
    done = train(
        workspace, base, start=run
    )  # a process of its own, as a user starts it; most others are forks
    assert done.code == 0, done.err
    return workspace, done


@pytest.fixture
def workspace(tmp_path) -> Path:
    toy_data(tmp_path / "workspace")
    return tmp_path / "workspace"


# --- what a run writes ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_adapter_folder_is_complete_and_its_weights_are_float32(unbroken, base):
    from safetensors.torch import load_file

    folder = unbroken[0] / "result" / "r" / "adapter"
    wanted = {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
    }
    assert {p.name for p in folder.iterdir()} == wanted
    assert not (folder.parent / ".adapter.tmp").exists()
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2, "A and B of seven projections in two layers"
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert sum(t.numel() for t in tensors.values()) == 16 * 2 * (
        64 + 64 + 64 + 32 + 64 + 32 + 64 + 64 + 3 * (64 + 128)
    )
    stated = json.loads((folder / "adapter_config.json").read_text())
    assert (stated["base_model_name_or_path"], stated["r"], stated["lora_alpha"]) == (str(base), 16, 32)
    assert set(stated["target_modules"]) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert (folder / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    assert "base_model: toy" in (folder / "README.md").read_text().split("---")[1]


def head_commit() -> str | None:
    """HEAD, read without git."""
    git = ROOT / ".git"
    head = (git / "HEAD").read_text().strip() if (git / "HEAD").is_file() else ""
    if not head.startswith("ref: "):
        return head or None
    name = head.removeprefix("ref: ")
    packed = (git / "packed-refs").read_text() if (git / "packed-refs").is_file() else ""
    found = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed, re.MULTILINE)
    return (git / name).read_text().strip() if (git / name).is_file() else found[1] if found else None


@pytest.mark.slow
def test_run_json_says_what_the_result_depends_on(unbroken, base):
    workspace, _ = unbroken
    record = json.loads((workspace / "result" / "r" / "run.json").read_text())
    assert record["run"] == "r"
    facts = record["stages"]["fine_tune"]
    assert facts["command"] == ["fine_tune.py", "--model", str(base), "--run", "r", *map(str, SETTINGS)]
    assert facts["git"]["commit"] == head_commit()
    assert facts["git"]["dirty"] in (True, False)
    packages = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
    assert {name: facts["environment"]["packages"][name] for name in packages} == {
        name: version(name) for name in packages
    }
    data = workspace / "data" / "dataset" / "sherlock-embedded"
    digests = [
        hashlib.sha256((data / f"{split}.jsonl").read_bytes()).digest() for split in ("train", "validation")
    ]
    assert facts["settings"]["data_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    assert (facts["settings"]["seed"], facts["settings"]["lora_r"], facts["settings"]["max_steps"]) == (
        42,
        16,
        STEPS,
    )
    assert facts["status"] == "done"
    start, end = (datetime.fromisoformat(facts[name]) for name in ("start", "end"))
    assert start.utcoffset().total_seconds() == 0
    assert 0 < (end - start).total_seconds() < 1200
    assert facts["device"].startswith(("cpu, ", "cuda, "))
    assert facts["measured"]["trainable parameters"] == "32,768 of 500,288"
    assert facts["measured"]["steps, epochs"] == f"{STEPS}, {STEPS / 3:.2f}", (
        "24 rows are three steps an epoch"
    )


def test_a_large_data_set_ends_early_where_no_length_is_asked_for(workspace, base, monkeypatch):
    small = replace(config.MODELS["tiny"], source=str(base), most_steps=2)
    monkeypatch.setitem(config.MODELS, "tiny", small)
    args = fine_tune.Args(model="tiny", data=workspace / "data" / "dataset" / "sherlock-embedded")

    def steps(**asked) -> int:
        return fine_tune.prepare(replace(args, **asked)).steps

    assert steps() == 2
    assert steps(epochs=1.5) == 5, "24 rows are three steps an epoch"
    assert steps(max_steps=3) == 3
    monkeypatch.setitem(config.MODELS, "tiny", replace(small, most_steps=20))
    assert steps() == 5


@pytest.mark.slow
def test_a_part_of_an_epoch_is_counted_as_the_trainer_counts_it(workspace, base):
    done = train(workspace, base, "--max-steps", -1, "--epochs", 1.5)
    assert done.code == 0, done.err
    assert (state_of(workspace)["max_steps"], state_of(workspace)["global_step"]) == (5, 5)
    assert "\n5 steps of 8 rows" in done.out


@pytest.mark.slow
def test_the_loss_falls_and_is_told(unbroken):
    workspace, done = unbroken
    history = state_of(workspace)["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    checks = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[0] == pytest.approx(8.72, abs=0.15), (
        "random weights guess among 6,144 tokens: ln 6144 = 8.72"
    )
    assert losses[-1] < losses[0] - 0.8
    assert len(checks) == STEPS // EVERY
    assert checks == sorted(checks, reverse=True)
    table = dict(re.findall(r"^(\w[\w ,]*?) {2,}(\S.*)$", done.out, re.MULTILINE))
    assert (table["trainable parameters"], table["all parameters"], table["share"]) == (
        "32,768",
        "500,288",
        "6.55%",
    )
    assert f"{STEPS} steps of 8 rows, learning rate 0.005" in done.out
    assert "⟦It is the affair of the" in done.out, "one example with its mask"
    assert "4-bit NF4" in done.out


@pytest.mark.slow
def test_a_finished_run_is_skipped_until_force_trains_it_again_to_the_same_bytes(unbroken, base, tmp_path):
    workspace = tmp_path / "copy"
    shutil.copytree(unbroken[0], workspace)
    before = snapshot(workspace)
    done = train(workspace, base)
    assert done.code == 0
    assert f"{workspace}/result/r/adapter is finished for these data and settings" in done.out
    assert snapshot(workspace) == before

    stamp = workspace / "result" / "r" / "adapter" / "adapter_model.safetensors"
    os.utime(stamp, (0, 0))
    again = train(workspace, base, "--force")
    assert again.code == 0, again.err
    assert "on from" not in again.out
    assert stamp.stat().st_mtime > 0, "it was written anew"
    assert weights(workspace) == weights(unbroken[0])
    curves = [
        [e.get("loss", e.get("eval_loss")) for e in state_of(w)["log_history"]]
        for w in (workspace, unbroken[0])
    ]
    assert curves[0] == curves[1], "same seed, same curve"


@pytest.mark.slow
def test_another_seed_gives_other_weights(unbroken, workspace, base):
    done = train(workspace, base, "--seed", 43)
    assert done.code == 0, done.err
    assert weights(workspace) != weights(unbroken[0])


# --- what a run computes --------------------------------------------------------------------------------


def token_losses(model, tokenizer, rows: list) -> tuple[float, int]:
    """Summed cross-entropy on answer tokens, and their number: row by row, plain attention."""
    total, count = 0.0, 0
    for row in rows:
        item = encode(tokenizer, row["messages"], 512)
        labels = torch.tensor(item.labels[1:])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([item.input_ids])).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=IGNORED, reduction="sum"
        ).item()
        count += int((labels != IGNORED).sum())
    return total, count


@pytest.mark.slow
def test_the_loss_of_a_step_is_the_mean_over_its_answer_tokens_however_rows_are_parted(workspace, base):
    """24 rows in one step of four parts with different numbers of tokens; B is 0, so it is the base's."""
    flags = ("--batch-size", 24, "--micro-batch", 6, "--max-steps", 1)
    done = train(workspace, base, *flags, PERSONA_DTYPE="float32")
    assert done.code == 0, done.err
    entry = config.resolve_model(str(base), cuda=False)
    model, tokenizer = modeling.load_base(entry, CPU), modeling.load_tokenizer(entry)
    rows = read_rows(workspace / "data" / "dataset" / "sherlock-embedded" / "train.jsonl")
    total, count = token_losses(model.eval(), tokenizer, rows)
    logged = next(e["loss"] for e in state_of(workspace)["log_history"] if "loss" in e)
    assert logged == pytest.approx(total / count, rel=2e-5)


@pytest.mark.slow
def test_low_memory_changes_where_things_lie_and_not_what_is_learned(workspace, base):
    assert train(workspace, base, "--low-memory", run_name="low").code == 0
    alike = ("--micro-batch", 1, "--activation-checkpointing", "True")
    assert train(workspace, base, *alike, run_name="alike").code == 0
    assert weights(workspace, "low") == weights(workspace, "alike")


@pytest.mark.slow
def test_early_stopping_stops_and_the_best_weights_are_the_ones_saved(tmp_path, base):
    workspace = tmp_path / "workspace"
    toy_data(
        workspace, answer="Quite so, Lestrade."
    )  # nothing in training tells this answer: validation soon gets worse
    flags = ("--max-steps", 120, "--evals", 20, "--patience", 2, "--lr", 1e-2, "--micro-batch", 8)
    done = train(workspace, base, *flags, PERSONA_DTYPE="float32")
    assert done.code == 0, done.err
    state = state_of(workspace)
    checks = {e["step"]: e["eval_loss"] for e in state["log_history"] if "eval_loss" in e}
    best = min(checks, key=checks.get)
    assert state["best_metric"] == checks[best]
    assert state["global_step"] == best + 2 * 6 < 120, "two evaluations after the best one, six steps apart"
    assert state["max_steps"] == 120
    folder = workspace / "result" / "r"
    saved = folder / "adapter" / "adapter_model.safetensors"
    assert saved.read_bytes() == (folder / "checkpoints" / f"checkpoint-{best}" / saved.name).read_bytes()

    entry = config.resolve_model(str(base), cuda=False)
    tuned = modeling.attach_adapter(modeling.load_base(entry, CPU), folder / "adapter")
    rows = read_rows(workspace / "data" / "dataset" / "sherlock-embedded" / "validation.jsonl")
    total, count = token_losses(tuned, modeling.load_tokenizer(entry), rows)
    assert total / count == pytest.approx(state["best_metric"], rel=1e-4)


# --- broken off and started again ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("step", random.Random(7).sample(range(EVERY, STEPS), 2))
def test_killed_at_a_random_step_and_started_again_it_ends_with_the_same_bytes(
    step, workspace, base, unbroken
):
    killed = train(workspace, base, patch=SIGNAL_AT_STEP.format(step=step, signal=signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    assert not (workspace / "result" / "r" / "adapter").exists()
    record = json.loads((workspace / "result" / "r" / "run.json").read_text())
    assert record["stages"]["fine_tune"]["status"] == "running"
    done = train(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == step - step % EVERY
    assert weights(workspace) == weights(unbroken[0])
    assert state_of(workspace)["log_history"][-1]["step"] == STEPS


KILLED_BEFORE_THE_MARKER = """
import os
from persona import checkpoints

seal = checkpoints.seal

def sealed(checkpoint):
    if checkpoint.name == "checkpoint-12":
        os.kill(os.getpid(), 9)
    seal(checkpoint)

checkpoints.seal = sealed
"""


@pytest.mark.slow
def test_a_checkpoint_without_its_marker_is_set_aside(workspace, base, unbroken):
    assert train(workspace, base, patch=KILLED_BEFORE_THE_MARKER).code == -signal.SIGKILL
    done = train(workspace, base)
    assert done.code == 0, done.err
    assert "checkpoint-12 set aside as broken-checkpoint-12: it was not finished (no marker)" in done.err
    assert going_on_from(done) == 6
    assert weights(workspace) == weights(unbroken[0])


@pytest.mark.slow
def test_a_truncated_checkpoint_is_set_aside_and_the_one_before_it_used(workspace, base, unbroken):
    assert (
        train(workspace, base, patch=SIGNAL_AT_STEP.format(step=20, signal=signal.SIGKILL)).code
        == -signal.SIGKILL
    )
    broken = workspace / "result" / "r" / "checkpoints" / "checkpoint-18" / "optimizer.pt"
    os.truncate(broken, broken.stat().st_size // 2)
    done = train(workspace, base)
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if "set aside" in line]
    assert len(said) == 1
    assert (
        "checkpoint-18 set aside as broken-checkpoint-18: "
        "optimizer.pt does not have the hash that was recorded" in said[0]
    )
    assert going_on_from(done) == 12
    assert weights(workspace) == weights(unbroken[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_end_of_the_step_and_the_next_start_goes_on_from_there(
    name, workspace, base, unbroken
):
    stopped = train(workspace, base, patch=SIGNAL_AT_STEP.format(step=14, signal=name))
    assert stopped.code == 75, stopped.err
    assert f"{name.name}: saving at the end of this step" in stopped.err
    assert stopped.err.splitlines()[-1] == f"stopped at step 15 of {STEPS}: start again to go on"
    record = json.loads((workspace / "result" / "r" / "run.json").read_text())
    assert record["stages"]["fine_tune"]["status"] == "interrupted"
    done = train(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == 15
    assert weights(workspace) == weights(unbroken[0])


@pytest.mark.slow
def test_resume_checkpoint_goes_on_from_the_one_that_it_names(workspace, base, unbroken):
    assert (
        train(workspace, base, patch=SIGNAL_AT_STEP.format(step=20, signal=signal.SIGKILL)).code
        == -signal.SIGKILL
    )
    named = workspace / "result" / "r" / "checkpoints" / "checkpoint-12"
    done = train(workspace, base, RESUME_CHECKPOINT=str(named))
    assert done.code == 0, done.err
    assert going_on_from(done) == 12
    assert weights(workspace) == weights(unbroken[0])


@pytest.mark.slow
def test_an_unfinished_run_refuses_other_settings_and_keeps_its_checkpoints(workspace, base):
    assert (
        train(workspace, base, patch=SIGNAL_AT_STEP.format(step=8, signal=signal.SIGKILL)).code
        == -signal.SIGKILL
    )
    before = snapshot(workspace)
    line = error_line(train(workspace, base, "--lr", 1e-3))
    assert "holds an unfinished run with other settings: lr (0.005 -> 0.001); " in line
    assert snapshot(workspace) == before


@pytest.mark.slow
def test_changed_settings_are_taken_where_the_user_allows_it(workspace, base):
    killed = train(workspace, base, patch=SIGNAL_AT_STEP.format(step=8, signal=signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    done = train(workspace, base, "--lr", 1e-3, "--evals", 12, "--allow-changed-settings")
    assert done.code == 0, done.err
    assert "going on with changed settings: evals (4 -> 12), lr (0.005 -> 0.001)" in done.err
    assert going_on_from(done) == 6
    history = state_of(workspace)["log_history"]
    rates = {e["step"]: e["learning_rate"] for e in history if "learning_rate" in e}
    for step, peak in ((5, 5e-3), (8, 1e-3), (20, 1e-3)):  # two steps of warm-up, then a cosine over 22
        share = 0.5 * (1 + math.cos(math.pi * (step - 1 - 2) / (STEPS - 2)))
        assert rates[step] == pytest.approx(peak * share), step
    checked = [e["step"] for e in history if "eval_loss" in e]
    assert checked == [6, *range(8, STEPS + 1, 2)], "every two steps from there on"

    fixed = error_line(train(workspace, base, "--lora-r", 8, "--allow-changed-settings"))
    assert "cannot go on with another lora_r: " in fixed
    assert "lora_r (16 -> 8)" in fixed


# --- signals and mishaps at every other moment -----------------------------------------------------------

SIGNAL_WHEN = """
import os, transformers

{what} = {owner}.{what}

def {what}_disturbed(self, *args, **kwargs):
    if {condition}:
        os.kill(os.getpid(), {signal:d})
    return {what}(self, *args, **kwargs)

{owner}.{what} = {what}_disturbed
"""
TRAINER, HANDLER = "transformers.Trainer", "transformers.trainer_callback.CallbackHandler"
IN_EVALUATION = ("on_prediction_step", HANDLER, "args[1].global_step == 12")
IN_A_CHECKPOINT = ("_save_rng_state", TRAINER, "self.state.global_step == 12")
IN_THE_FINAL_EVALUATION = ("evaluate", TRAINER, 'kwargs.get("metric_key_prefix") == "final"')
IN_THE_START = ("__init__", TRAINER, "True")


def when(moment: tuple[str, str, str], name: int) -> str:
    what, owner, condition = moment
    return SIGNAL_WHEN.format(what=what, owner=owner, condition=condition, signal=name)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [IN_EVALUATION, IN_A_CHECKPOINT], ids=["evaluation", "checkpoint"])
def test_a_signal_while_it_evaluates_or_saves_stops_at_that_step(moment, workspace, base, unbroken):
    stopped = train(workspace, base, patch=when(moment, signal.SIGTERM))
    assert stopped.code == 75, stopped.err
    assert stopped.err.splitlines()[-1] == f"stopped at step 12 of {STEPS}: start again to go on"
    done = train(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == 12
    assert weights(workspace) == weights(unbroken[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_it_at_once(name, workspace, base):
    stopped = train(workspace, base, patch=when(IN_THE_START, name))
    assert stopped.code == 75, stopped.err
    assert stopped.err.splitlines()[-1] == f"{name.name}: stopped; start again to go on"
    assert "Traceback" not in stopped.err


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_after_the_last_step_it_makes_no_other(name, workspace, base, tmp_path):
    """The trainer itself would make a 26th step: 25 are not a whole number of epochs."""
    whole = tmp_path / "whole"
    toy_data(whole)
    assert train(whole, base, "--max-steps", 25).code == 0
    stopped = train(workspace, base, "--max-steps", 25, patch=when(IN_THE_FINAL_EVALUATION, name))
    assert stopped.code == (75 if name == signal.SIGTERM else -name), stopped.err
    done = train(workspace, base, "--max-steps", 25)
    assert done.code == 0, done.err
    assert going_on_from(done) == 25
    assert state_of(workspace)["global_step"] == 25
    assert weights(workspace) == weights(whole)


@pytest.mark.slow
def test_killed_after_early_stopping_it_does_not_train_on(tmp_path, base):
    flags = ["--max-steps", 120, "--evals", 20, "--patience", 2, "--lr", 1e-2, "--micro-batch", 8]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for workspace in (whole, broken):
        toy_data(workspace, answer="Quite so, Lestrade.")
    assert train(whole, base, *flags).code == 0
    killed = train(broken, base, *flags, patch=when(IN_THE_FINAL_EVALUATION, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    done = train(broken, base, *flags)
    assert done.code == 0, done.err
    assert state_of(broken)["global_step"] == state_of(whole)["global_step"] < 120
    assert weights(broken) == weights(whole)


FILL_THE_DISK = """
import os, transformers

step = transformers.Trainer.training_step

def training_step(self, *args, **kwargs):
    if self.state.global_step == 14:
        with open({filler!r}, "wb", buffering=0) as out:
            try:
                while out.write(bytes(4096)):
                    pass
            except OSError:
                out.truncate(out.tell() - 65536)  # the next checkpoint begins to be written
    return step(self, *args, **kwargs)

transformers.Trainer.training_step = training_step
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_it_with_one_line_and_the_last_checkpoint_is_good(
    small_disk, base, unbroken
):
    workspace = small_disk / "workspace"
    toy_data(workspace)
    filler = small_disk / "filler"
    line = error_line(train(workspace, base, patch=FILL_THE_DISK.format(filler=str(filler))))
    assert line.startswith("error: no space left on the disk (")
    filler.unlink()
    done = train(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == 12
    assert "checkpoint-18 set aside as broken-checkpoint-18: it was not finished (no marker)" in done.err
    assert weights(workspace) == weights(unbroken[0])


@pytest.fixture(scope="module")
def worse_soon(tmp_path_factory, base) -> Path:
    """A finished workspace whose best step is an early one, as in the test of early stopping."""
    workspace = tmp_path_factory.mktemp("worse") / "workspace"
    toy_data(workspace, answer="Quite so, Lestrade.")
    done = train(workspace, base, "--lr", 1e-2, "--patience", 0, "--max-steps", 48, "--evals", 8)
    assert done.code == 0, done.err
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("mishap", ["the best checkpoint is truncated", "the workspace was moved"])
def test_the_best_weights_are_found_again_after_a_mishap(mishap, tmp_path, base, worse_soon):
    """The trainer's state names the best checkpoint by an absolute path; the newest one alone is checked."""
    flags = ["--lr", 1e-2, "--patience", 0, "--max-steps", 48, "--evals", 8]
    state = state_of(worse_soon)
    best = state["best_global_step"]
    assert best + 12 <= 48, "the best checkpoint is neither the last nor the one before"
    workspace = tmp_path / "workspace"
    toy_data(workspace, answer="Quite so, Lestrade.")
    assert (
        train(workspace, base, *flags, patch=SIGNAL_AT_STEP.format(step=47, signal=signal.SIGKILL)).code
        == -signal.SIGKILL
    )
    if mishap == "the workspace was moved":
        workspace = workspace.rename(tmp_path / "elsewhere")
    else:
        os.truncate(
            workspace / "result" / "r" / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors",
            5000,
        )
    done = train(workspace, base, *flags)
    assert done.code == 0, done.err[-2000:]
    assert weights(workspace) == weights(worse_soon)


# --- the real vocabulary --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_qwen_vocabulary_trains_resumes_and_answers_by_the_same_code(tmp_path, qwen_tokenizer):
    base = toy_base(tmp_path / "qwen-toy", tokenizer=qwen_tokenizer)
    flags = ["--max-steps", 8, "--evals", 4]
    workspaces = [tmp_path / "whole", tmp_path / "broken"]
    for workspace in workspaces:
        toy_data(workspace)
    whole = train(workspaces[0], base, *flags)
    assert whole.code == 0, whole.err
    assert (
        train(workspaces[1], base, *flags, patch=SIGNAL_AT_STEP.format(step=5, signal=signal.SIGKILL)).code
        == -signal.SIGKILL
    )
    done = train(workspaces[1], base, *flags)
    assert done.code == 0, done.err
    assert going_on_from(done) == 4
    assert weights(workspaces[0]) == weights(workspaces[1])
    losses = [e["loss"] for e in state_of(workspaces[0])["log_history"] if "loss" in e]
    assert losses[0] == pytest.approx(11.93, abs=0.15), "ln 151646 = 11.93"
    assert losses[-1] < losses[0] - 0.1
    ask = [
        "test.py",
        "--model",
        base,
        "--run",
        "r",
        "--ask",
        "Who are you?",
        "--temperature",
        1,
        "--max-new-tokens",
        12,
    ]
    answers = [warm(workspaces[0], *ask, *more) for more in ([], ["--base"])]
    assert [a.code for a in answers] == [0, 0], answers[0].err + answers[1].err
    assert answers[0].out != answers[1].out


# --- NF4 and adapters -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def quantised(request, tmp_path_factory):
    """(original, bitsandbytes' own NF4 model, the de-quantised one that a CPU gets) of a toy base."""
    from transformers import AutoModelForCausalLM

    folder = toy_base(tmp_path_factory.mktemp("nf4") / "toy", tied=request.param)
    entry = config.resolve_model(str(folder), cuda=False)
    patch = pytest.MonkeyPatch()
    patch.setattr(modeling, "DEQUANTISED_ON_CPU", 0)
    packed = modeling.load_base(entry, CPU).eval()
    patch.undo()
    return AutoModelForCausalLM.from_pretrained(folder).eval(), packed, modeling.load_base(entry, CPU).eval()


def projections() -> set[str]:
    attention_ones, mlp_ones = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    names = [f"self_attn.{n}" for n in attention_ones] + [f"mlp.{n}" for n in mlp_ones]
    return {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in names}


def test_only_the_seven_projections_are_quantised(quantised):
    import bitsandbytes

    original, packed, plain = quantised
    assert {
        n for n, m in packed.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)
    } == projections()
    assert not [n for n, m in plain.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    changed = {
        n.removesuffix(".weight")
        for n, p in original.named_parameters()
        if not torch.equal(p, plain.get_parameter(n))
    }
    assert changed == projections()


def test_the_dequantised_base_computes_what_linear4bit_computes(quantised):
    _, packed, plain = quantised
    torch.manual_seed(0)
    for name in sorted(projections()):
        theirs, ours = packed.get_submodule(name), plain.get_submodule(name)
        x = torch.randn(5, ours.in_features)
        with torch.inference_mode():
            difference = (theirs(x) - ours(x)).abs().max()
        assert difference < 1e-5, name
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(
            packed(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )


def test_the_weights_are_nf4_in_blocks_of_64(quantised):
    original, _, plain = quantised
    for name in projections():
        blocks = plain.get_submodule(name).weight.detach().reshape(-1, 64)
        exact = original.get_submodule(name).weight.detach().reshape(-1, 64)
        assert max(len(block.unique()) for block in blocks) <= 16
        scale = exact.abs().amax(1, keepdim=True)
        # the widest gap of NF4 is that between -1 and -0.6962: no weight moves by more than half of it,
        # but for what the quantised scales lose
        assert ((blocks - exact).abs() / scale).max() < 0.152 + 0.02
        assert ((blocks - exact).abs() / scale).mean() > 0.01, "it is quantised"


def test_parameters_are_counted_by_their_real_entries(quantised):
    original, packed, plain = quantised
    total = sum(p.numel() for p in original.parameters())
    for model in (packed, plain):
        for p in model.parameters():
            p.requires_grad_(False)
        assert footprint.parameter_counts(model) == (0, total)


# rank 16 times (inputs + outputs) of q, k, v, o, gate, up, down, times layers: 16 * 2 * 1024 for the toy, and
# 16 * 28 * (7168 + 4096 + 4096 + 7168 + 3 * 22528) for Qwen2.5-7B
@pytest.mark.parametrize(
    ("hidden", "intermediate", "heads", "kv_heads", "layers", "expected"),
    [(64, 128, 4, 2, 2, 32_768), (3584, 18944, 28, 4, 28, 40_370_176)],
    ids=["toy", "7b"],
)
def test_trainable_parameters_follow_the_formula(hidden, intermediate, heads, kv_heads, layers, expected):
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        shape = Qwen2Config(
            vocab_size=512, hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads,
            num_key_value_heads=kv_heads, num_hidden_layers=layers,
        )  # fmt: skip
        model = Qwen2ForCausalLM(shape)
        tuned = get_peft_model(model, LoraConfig(r=16, target_modules=list(config.LORA_TARGETS)))
    assert footprint.parameter_counts(tuned)[0] == expected


def test_an_adapter_changes_what_the_base_says_and_an_untrained_one_does_not(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    entry = config.resolve_model(str(base), cuda=False)
    ids = torch.arange(3, 40)[None]
    plain = modeling.load_base(entry, CPU).eval()
    with torch.inference_mode():
        before = plain(input_ids=ids).logits
    get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path / "untrained")
    for folder, same in ((tmp_path / "untrained", True), (toy_adapter(tmp_path / "trained", base), False)):
        tuned = modeling.attach_adapter(modeling.load_base(entry, CPU), folder)
        assert not tuned.training
        with torch.inference_mode():
            assert torch.equal(tuned(input_ids=ids).logits, before) == same


@pytest.mark.parametrize("shape", [(3, 7, 11), (4000,), (2, 40, 64)])
def test_the_faster_dropout_is_dropout(shape):
    torch.manual_seed(0)
    plain, fast = torch.nn.Dropout(0.25), torch.nn.Sequential(torch.nn.Dropout(0.25))
    modeling.speed_up_dropout(fast)
    x = torch.ones(shape, requires_grad=True)
    y = fast(x)
    assert (y.shape, y.dtype) == (plain(x).shape, plain(x).dtype)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 4 / 3])
    n = y.numel()
    assert abs((y == 0).sum().item() - n / 4) < 4 * (n * 3 / 16) ** 0.5, (
        "four standard deviations of a binomial"
    )
    y.sum().backward()
    assert torch.equal(x.grad, y.detach()), "the gradient passes the same mask"
    torch.manual_seed(1)
    first, second = fast(x), fast(x)
    torch.manual_seed(1)
    assert torch.equal(fast(x), first), "the mask comes from PyTorch's generator"
    assert not torch.equal(first, second)
    assert fast.eval()(x) is x


def test_the_faster_dropout_keeps_the_number_format():
    fast = torch.nn.Sequential(torch.nn.Dropout(0.25))
    modeling.speed_up_dropout(fast)
    assert fast(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_memory_estimate_counts_weights_and_optimizer_states_exactly(base):
    entry = config.resolve_model(str(base), cuda=False)
    model = modeling.load_base(entry, CPU, four_bit=False)
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("q_proj.weight"))
    memory = footprint.estimated_memory(model, tokens=100, checkpointing=False)
    assert memory["weights"] * 2**30 == pytest.approx(4 * sum(p.numel() for p in model.parameters()))
    assert memory["gradients and optimizer"] * 2**30 == pytest.approx(12 * 2 * 64 * 64), (
        "gradient and two moments, four bytes each"
    )
    assert memory["activations"] * 2**30 == pytest.approx(17 * 4 * 64 * 100 * 2)


def test_the_segmented_attention_is_plain_attention_where_no_borders_are_given(base):
    """One model trains with borders and evaluates without: both must be the same function."""
    entry = config.resolve_model(str(base), cuda=False)
    model = modeling.load_base(entry, CPU, four_bit=False).eval()
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        model.set_attn_implementation(attention.register())
        assert torch.equal(model(input_ids=ids).logits, plain)
        rows = [{"input_ids": ids[0].tolist(), "labels": [IGNORED] * 30 + ids[0, 30:].tolist()}] * 2
        batch = attention.collate(rows)
        batch.pop("labels")
        together = model(**batch, use_cache=False).logits[0]
    torch.testing.assert_close(together[-7:], plain[0, -7:], rtol=1e-5, atol=1e-5)
