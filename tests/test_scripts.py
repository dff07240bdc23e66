"""The scripts at their edges: help without torch, and bad input, which gets one line and changes nothing."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import (
    DISK_FULL,
    ROOT,
    WITHOUT_TORCH,
    error_line,
    run,
    snapshot,
    toy_adapter,
    toy_base,
    toy_corpus,
    toy_data,
    warm,
)

SCRIPTS = (
    *("generate_dataset", "fine_tune", "base_model", "evaluation", "extract_loss", "visual", "test"),
    *("ablation", "serve"),
)
LIGHT = ("generate_dataset.py", "extract_loss.py", "visual.py")
"""Scripts that refuse without torch, so that a process of their own costs little; others run in forks."""
COMPUTES = {
    *("batching", "bottleneck", "room", "serving_cache", "serving_sampling"),
    *("serving_app", "serving_plan", "serving_responses", "serving_text"),
    *("web_page", "web_sidebar"),
}
"""The inside of the server, of torch modules, of the page: imported once a model, or the page, is wanted."""
MODULES = sorted(
    p.stem for p in (ROOT / "persona").glob("*.py") if p.stem != "__init__" and p.stem not in COMPUTES
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base") / "toy")


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A workspace with a finished toy data set; tests compare all of its bytes before and after."""
    toy_data(tmp_path / "workspace")
    return tmp_path / "workspace"


def without_run_log(files: dict[str, str]) -> dict[str, str]:
    return {name: sha256 for name, sha256 in files.items() if not name.endswith("checkpoints/inputs.json")}


# --- help, flags, imports -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_answers_without_torch_and_names_the_shared_flags(name, tmp_path):
    done = run(tmp_path / "w", f"{name}.py", "--help", patch=WITHOUT_TORCH)
    assert (done.code, done.err) == (0, "")
    first_line = (ROOT / f"{name}.py").read_text().split('"""')[1].splitlines()[0]
    assert first_line in " ".join(done.out.split()), "the docstring is the description"
    for flag in ("--persona", "--corpus", "--model", "--run", "--seed", "--force"):
        assert re.search(rf"(?<!\w){flag}\b", done.out), flag
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_flag_is_a_usage_error(name, tmp_path):
    done = run(
        tmp_path / "w", f"{name}.py", "--persona", "sherlock", "--flag-of-no-script", "1", patch=WITHOUT_TORCH
    )
    assert done.code == 2
    assert "--flag-of-no-script" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "w").exists()


def test_no_module_of_persona_imports_torch_transformers_or_trl(tmp_path):
    assert {"modeling", "generation", "attention", "scoring", "chat"} <= set(MODULES)
    code = f"import importlib\nfor m in {MODULES}: importlib.import_module('persona.' + m)\n"
    code += "print('all imported')"
    done = run(tmp_path, sys.executable, "-c", code, patch=WITHOUT_TORCH)
    assert (done.out, done.err) == ("all imported\n", "")


def test_the_blocker_blocks(tmp_path):
    done = run(tmp_path, sys.executable, "-c", "import torch", patch=WITHOUT_TORCH)
    assert "ImportError: torch is not installed here" in done.err


# --- bad input: one line, exit code 2, nothing changed ---------------------------------------------------


def refused(workspace: Path, *command: object, **how) -> str:
    """The error line of a command that must be refused and must leave every byte as it was."""
    before = snapshot(workspace)
    done = (run if command[0] in LIGHT or how else warm)(workspace, *command, **how)
    line = error_line(done)
    assert snapshot(workspace) == before
    return line


def corpus_with(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "embedded"  # the name of the data set that is there already
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_an_empty_corpus_folder_is_refused(workspace, tmp_path):
    folder = corpus_with(tmp_path, {})
    line = refused(workspace, "generate_dataset.py", "--corpus", folder)
    assert line.startswith(f"error: {folder}: no .txt or .md file there")


def test_a_corpus_folder_that_is_not_there_is_refused(workspace, tmp_path):
    line = refused(workspace, "generate_dataset.py", "--corpus", tmp_path / "nowhere")
    assert line.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")


def test_a_binary_file_in_the_corpus_is_named(workspace, tmp_path):
    story = (ROOT / "data/corpus/embedded/the-night-mail.txt").read_bytes()
    folder = corpus_with(tmp_path, {"a.txt": story, "picture.txt": bytes(range(256)) * 20})
    line = refused(workspace, "generate_dataset.py", "--corpus", folder, "--force")
    assert line.startswith(f"error: {folder / 'picture.txt'}: not text")


def test_fine_tune_refuses_a_corpus_that_it_cannot_read_before_it_trains(workspace, base, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    line = refused(workspace, "fine_tune.py", "--model", base, "--corpus", empty)
    assert line.startswith(f"error: {empty}: no .txt or .md file there")


@pytest.mark.parametrize("script", ["fine_tune.py", "base_model.py"])
@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ('{"id": "1", "messages": [', "not JSON"),
        (json.dumps({"messages": [{"content": "Who are you?"}], "meta": {}}), 'message 0 has no "role"'),
        (
            json.dumps({"messages": [{"role": "user", "content": "Well?"}], "meta": {}}),
            "turns must be user, assistant",
        ),
    ],
)
def test_a_broken_data_row_is_named_by_file_and_line(script, broken, problem, workspace, base):
    path = workspace / "data/dataset/sherlock-embedded/train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], broken, *lines[7:]]) + "\n")
    line = refused(workspace, script, "--model", base, "--corpus", "embedded")
    assert line.startswith(f"error: {path}, line 7: {problem}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_model_is_refused_with_the_names_that_there_are(script, workspace):
    line = refused(workspace, f"{script}.py", "--model", "gpt-9")
    assert line.startswith("error: unknown model 'gpt-9': give one of qwen2.5-7b, ")
    assert "tiny" in line


@pytest.mark.parametrize("script", ["generate_dataset", "base_model", "evaluation", "test", "fine_tune"])
def test_an_unknown_persona_is_refused_with_the_names_that_there_are(script, workspace, base):
    more = ["--model", base] if script != "generate_dataset" else []
    line = refused(workspace, f"{script}.py", "--persona", "marple", "--corpus", "embedded", *more)
    assert line.startswith("error: unknown persona 'marple': there is ")
    assert "poirot, sherlock" in line


def test_an_unknown_strategy_is_refused(workspace):
    line = refused(
        workspace, "generate_dataset.py", "--corpus", "embedded", "--strategies", "gossip", "--force"
    )
    there = "dialogue, curated, reasoning, narrative, qa, chunk"
    assert line == f"error: unknown strategy 'gossip': there is {there}"


def test_a_batch_that_micro_batches_do_not_divide_is_refused(workspace, base):
    line = refused(workspace, "fine_tune.py", "--model", base, "--batch-size", 8, "--micro-batch", 3)
    assert line == "error: --batch-size 8 is not a multiple of --micro-batch 3"


@pytest.mark.parametrize(
    "flags",
    [
        ("--micro-batch", 0),
        ("--batch-size", -8),
        ("--evals", 0),
        ("--eval-rows", 0),
        ("--lora-r", 0),
        ("--epochs", 0),
        ("--lr", 0),
    ],
    ids=lambda flags: f"{flags[0]}={flags[1]}",
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(flags, workspace, base):
    """`--epochs 0` must not silently become the default either."""
    line = refused(
        workspace, "fine_tune.py", "--model", base, "--corpus", "embedded", "--max-steps", 2, *flags
    )
    assert flags[0] in line


def test_evaluation_refuses_a_negative_limit(workspace, base):
    toy_adapter(workspace / "result" / "r" / "adapter", base)
    line = refused(
        workspace, "evaluation.py", "--model", base, "--corpus", "embedded", "--run", "r", "--limit", -1
    )
    assert "--limit" in line


@pytest.mark.parametrize(
    "flags", [("--max-new-tokens", 0), ("--temperature", -1), ("--top-p", 0)], ids=lambda flags: flags[0]
)
def test_the_chat_refuses_sampling_that_cannot_be(flags, workspace, base):
    assert flags[0] in refused(workspace, "test.py", "--model", base, "--base", "--ask", "Well?", *flags)


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_the_number_format_can_be_chosen(wanted, base, monkeypatch):
    import config
    from persona import modeling

    monkeypatch.setenv("PERSONA_DTYPE", wanted)
    device = modeling.pick_device()
    assert str(device) == f"{device.type}, {wanted} (by PERSONA_DTYPE)"
    model = modeling.load_base(config.ModelEntry(str(base)), device, four_bit=False)
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{wanted}"}


def test_a_number_format_that_is_none_is_refused(workspace, base):
    flags = ("--model", base, "--corpus", "embedded", "--max-steps", 2)
    line = refused(workspace, "fine_tune.py", *flags, PERSONA_DTYPE="float8")
    assert line == "error: PERSONA_DTYPE must be float32 or bfloat16, not 'float8'"


# --- adapters and models --------------------------------------------------------------------------------


def test_evaluation_without_an_adapter_names_the_command(workspace, base):
    line = refused(workspace, "evaluation.py", "--model", base, "--corpus", "embedded", "--run", "r")
    assert line == f"error: no adapter at {workspace}/result/r/adapter: make one with python fine_tune.py"


def test_an_adapter_folder_that_is_not_there_is_named(workspace, base):
    line = refused(workspace, "test.py", "--model", base, "--adapter", workspace / "none", "--ask", "Well?")
    assert line.startswith(f"error: no adapter at {workspace}/none; python fine_tune.py makes one")
    assert "--base" in line


@pytest.mark.parametrize("script", ["evaluation.py", "test.py"])
def test_an_adapter_of_another_hidden_size_is_refused(script, workspace, base, tmp_path):
    narrow = toy_base(tmp_path / "narrow", hidden=32)
    adapter = toy_adapter(workspace / "result" / "r" / "adapter", narrow)
    how = ["--ask", "Well?"] if script == "test.py" else []
    line = refused(workspace, script, "--model", base, "--corpus", "embedded", "--run", "r", *how)
    assert line.startswith(
        f"error: the adapter at {adapter} does not fit {base} (it was trained on {narrow}): size mismatch"
    )


@pytest.mark.parametrize("damage", ["truncated", "not JSON"])
def test_a_broken_adapter_is_refused(damage, workspace, base):
    adapter = toy_adapter(workspace / "result" / "r" / "adapter", base)
    if damage == "truncated":
        os.truncate(adapter / "adapter_model.safetensors", 5000)
    else:
        (adapter / "adapter_config.json").write_text("{")
    line = refused(workspace, "test.py", "--model", base, "--run", "r", "--ask", "Well?")
    assert str(adapter) in line


@pytest.mark.parametrize("damage", ["truncated", "no weights", "no template"])
def test_a_broken_base_model_is_refused_by_its_folder(damage, workspace, base, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    if damage == "truncated":
        os.truncate(broken / "model.safetensors", 5000)
    else:
        (broken / {"no weights": "model.safetensors", "no template": "chat_template.jinja"}[damage]).unlink()
    line = refused(workspace, "test.py", "--model", broken, "--base", "--ask", "Well?")
    assert str(broken) in line
    assert ("chat template" in line) == (damage == "no template")


def test_a_hub_model_without_network_is_refused_with_the_way_out(workspace, tmp_path):
    how = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    line = refused(
        workspace, "fine_tune.py", "--model", "nobody/nothing-at-all", "--corpus", "embedded", **how
    )
    assert line.startswith("error: cannot load nobody/nothing-at-all from the hub: ")
    assert line.endswith("or take --model tiny, which needs neither")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_canon_without_network_is_refused_with_the_way_out(workspace):
    address = f"http://127.0.0.1:{closed_port()}/pg{{ebook}}.txt"
    no_waiting = "import time\ntime.sleep = lambda seconds: None\n"
    line = refused(
        workspace, "generate_dataset.py", "--corpus", "canon", patch=no_waiting,
        PERSONA_GUTENBERG_URL=address, NO_PROXY="127.0.0.1",
    )  # fmt: skip
    assert line.startswith(
        f"error: {address.replace('{ebook}', '1661')}: not reached in 4 tries (no connection"
    )
    assert line.endswith("work offline by --corpus embedded or --corpus DIR")


# --- resuming -------------------------------------------------------------------------------------------


def test_resume_checkpoint_that_names_nothing_is_refused(workspace, base):
    before = snapshot(workspace)
    done = warm(
        workspace,
        "fine_tune.py",
        "--model",
        base,
        "--corpus",
        "embedded",
        "--run",
        "r",
        RESUME_CHECKPOINT=str(workspace / "checkpoint-9"),
    )
    assert error_line(done).startswith(
        f"error: RESUME_CHECKPOINT names {workspace}/checkpoint-9, which is not there"
    )
    assert without_run_log(snapshot(workspace)) == before


def test_resume_checkpoint_that_is_not_complete_is_refused(workspace, base):
    checkpoint = workspace / "result" / "r" / "checkpoints" / "checkpoint-9"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 9}')
    before = snapshot(workspace)
    done = warm(
        workspace,
        "fine_tune.py",
        "--model",
        base,
        "--corpus",
        "embedded",
        "--run",
        "r",
        RESUME_CHECKPOINT=str(checkpoint),
    )
    assert "RESUME_CHECKPOINT names" in error_line(done)
    assert "not finished (no marker)" in error_line(done)
    assert without_run_log(snapshot(workspace)) == before


def test_other_settings_do_not_go_on_with_an_unfinished_run(workspace, base):
    kept = workspace / "result" / "r" / "checkpoints"
    (kept / "checkpoint-9").mkdir(parents=True)
    command = ["fine_tune.py", "--model", base, "--corpus", "embedded", "--run", "r", "--lora-r", 8]
    # what the first start wrote, had it been with rank 16 and on other data
    first = {"lora_r": 16, "data_sha256": "0" * 64}
    (kept / "inputs.json").write_text(json.dumps(first))
    line = refused(workspace, *command)
    assert line.startswith(f"error: {kept} holds an unfinished run with other settings: ")
    assert "lora_r (16 -> 8)" in line
    assert f"data_sha256 ({'0' * 64} -> " in line
    assert line.endswith("take the old settings, another --run, or --force to begin again")


# --- full disk ------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_data_set_whole(workspace, tmp_path):
    corpus = toy_corpus(tmp_path / "embedded")
    old = snapshot(workspace)
    done = run(workspace, "generate_dataset.py", "--corpus", corpus, "--force", patch=DISK_FULL)
    assert error_line(done).startswith("error: no space left on the disk (")
    assert snapshot(workspace) == old, "neither half a file nor a temporary one"


@pytest.mark.parametrize("kilobytes", [150, 300, 700])
def test_a_disk_that_fills_while_a_checkpoint_is_written_gets_one_line(kilobytes, workspace, base, tmp_path):
    """safetensors, tokenizers and torch.save each have an error of their own; the sizes hit one each."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here: a small tmpfs cannot be mounted")
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small} && cp -r {workspace}/data {small}"
    train = f"{sys.executable} fine_tune.py --model {base} --corpus embedded --max-steps 2 --evals 2"
    done = run(
        workspace, "unshare", "-rm", "bash", "-c", f"{mount} && PERSONA_WORKSPACE={small} exec {train}"
    )
    assert error_line(done).startswith("error: no space left on the disk")
