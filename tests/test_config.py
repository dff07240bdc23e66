"""Settings: the registry, names of runs and data sets, and what becomes of errors at the boundary."""

import dataclasses
import errno
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import config
from config import RunArgs, resolve_model, run_name
from persona.errors import UserError


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=config.ROOT,
        env=dict(environment),
        check=False,
    )


def test_importing_config_loads_nothing_heavy_and_writes_nothing(tmp_path):
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "numpy", "tyro"}
    code = f"import config, sys; print(sorted({heavy} & set(sys.modules)))"
    done = python(code, PERSONA_WORKSPACE=str(tmp_path / "new"), PYTHONDONTWRITEBYTECODE="1")
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not (tmp_path / "new").exists()


def test_workspace_moves_generated_things_and_leaves_the_checkout(tmp_path):
    code = "import config as c; print(c.DATASETS, c.CACHE, c.RESULT, c.PERSONAS, c.CORPORA, sep='\\n')"
    found = python(code, PERSONA_WORKSPACE=str(tmp_path)).stdout.splitlines()
    data = config.ROOT / "data"
    assert found == [
        f"{tmp_path}/data/dataset",
        f"{tmp_path}/data/cache",
        f"{tmp_path}/result",
        f"{data}/personas",
        f"{data}/corpus",
    ]
    assert python(code).stdout.splitlines()[0] == f"{data}/dataset"


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunArgs().seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.MODELS["tiny"].lr = 1.0


def test_the_default_model_follows_from_the_device():
    assert resolve_model(None, cuda=True).name == "qwen2.5-7b"
    assert resolve_model(None, cuda=True).source == "Qwen/Qwen2.5-7B-Instruct"
    assert resolve_model(None, cuda=False).name == "tiny"
    assert resolve_model("tiny", cuda=True).source == str(config.ROOT / "data" / "tiny-base")


@pytest.mark.parametrize("name", list(config.MODELS))
def test_registry_entries_resolve_to_themselves_with_their_name(name):
    entry = resolve_model(name, cuda=False)
    assert dataclasses.replace(entry, name="") == config.MODELS[name]
    assert entry.name == name


def test_hub_models_are_pinned_to_a_commit_and_the_embedded_one_is_a_folder():
    pinned = {name: e.revision for name, e in config.MODELS.items() if name != "tiny"}
    assert set(pinned) == {"qwen2.5-7b", "qwen2.5-14b", "qwen2.5-0.5b", "llama-3-8b", "mistral-7b"}
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in pinned.values())
    assert config.MODELS["tiny"].revision is None and Path(config.MODELS["tiny"].source).is_dir()
    assert {name: e.corpus for name, e in config.MODELS.items()} == dict.fromkeys(pinned, "canon") | {
        "tiny": "embedded"
    }


def test_a_hub_id_and_a_folder_are_models_of_their_own(tmp_path):
    hub = resolve_model("Qwen/Qwen2.5-3B-Instruct", cuda=False)
    assert (hub.source, hub.name, hub.revision) == ("Qwen/Qwen2.5-3B-Instruct", "qwen2.5-3b-instruct", None)
    (tmp_path / "My-Model").mkdir()
    folder = resolve_model(str(tmp_path / "My-Model") + "/", cuda=False)
    assert (folder.source, folder.name, folder.corpus) == (str(tmp_path / "My-Model"), "My-Model", "canon")


@pytest.mark.parametrize("name", ["qwen", "./nowhere/model", "/nowhere/model", "a/b/c", "../x"])
def test_an_unknown_model_is_refused_with_the_names_that_there_are(name):
    with pytest.raises(UserError, match=r"unknown model .*qwen2\.5-7b, .*tiny"):
        resolve_model(name, cuda=False)


def test_a_corpus_folder_is_named_after_itself(tmp_path, monkeypatch):
    assert config.corpus_name("embedded") == "embedded"
    assert config.corpus_name("canon") == "canon"
    assert config.corpus_name(f"{tmp_path}/letters/") == "letters"
    monkeypatch.chdir(tmp_path)
    assert config.corpus_name(".") == tmp_path.name


def test_a_data_set_folder_names_persona_and_corpus():
    assert config.dataset_folder("sherlock", "canon") == config.DATASETS / "sherlock-canon"
    assert config.dataset_folder("poirot", "/texts/styles") == config.DATASETS / "poirot-styles"


@pytest.mark.parametrize("given", ["data/personas/sherlock", str(config.PERSONAS / "sherlock")])
def test_a_persona_given_as_a_folder_keeps_its_data_set_and_run_in_the_workspace(given):
    assert config.dataset_folder(given, "embedded") == config.DATASETS / "sherlock-embedded"
    assert run_name(RunArgs(persona=given), resolve_model("tiny", cuda=False)) == "sherlock-tiny"


@pytest.mark.parametrize(
    ("model", "corpus", "expected"),
    [
        ("tiny", None, "sherlock-tiny"),
        ("tiny", "embedded", "sherlock-tiny"),
        ("tiny", "canon", "sherlock-tiny-canon"),
        ("tiny", "/texts/letters", "sherlock-tiny-letters"),
        ("qwen2.5-7b", None, "sherlock-qwen2.5-7b"),
        ("qwen2.5-7b", "canon", "sherlock-qwen2.5-7b"),
        ("qwen2.5-7b", "embedded", "sherlock-qwen2.5-7b-embedded"),
    ],
)
def test_a_run_is_named_after_persona_model_and_a_corpus_that_is_not_the_models_own(model, corpus, expected):
    assert run_name(RunArgs(corpus=corpus), resolve_model(model, cuda=False)) == expected
    assert run_name(RunArgs(corpus=corpus, run="mine"), resolve_model(model, cuda=False)) == "mine"


@dataclass(frozen=True)
class Args(RunArgs):
    steps: int = 7
    """How many."""


def test_run_script_hands_over_parsed_settings(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage.py", "--steps", "3", "--persona", "watson", "--force"])
    given = []
    config.run_script(given.append, Args)
    assert given == [Args(steps=3, persona="watson", force=True)]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no card: make one"), 2, "error: no card: make one\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y.json"),
            2,
            "error: no space left on the disk (/x/y.json): free some and start again\n",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y.json"),
            2,
            "error: no space left on the disk (/x/y.json): free some and start again\n",
        ),
        (KeyboardInterrupt(), 130, "\nstopped; start again to go on\n"),
    ],
)
def test_run_script_turns_what_the_user_can_mend_into_one_line(monkeypatch, capsys, error, code, line):
    def main(args):
        raise error

    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(SystemExit) as left:
        config.run_script(main, Args)
    assert left.value.code == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "denied"), ValueError("a bug")])
def test_run_script_does_not_hide_other_errors(monkeypatch, error):
    def main(args):
        raise error

    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(type(error)):
        config.run_script(main, Args)


def test_an_unknown_flag_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage.py", "--stepz", "3"])
    ran = []
    with pytest.raises(SystemExit) as left:
        config.run_script(ran.append, Args)
    assert left.value.code == 2 and ran == []
    assert "--stepz" in capsys.readouterr().err
