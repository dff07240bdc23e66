"""Run folders: whole-or-not-at-all files, run.json, and what counts as up to date."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import config
from persona import runlog
from persona.errors import UserError


def test_text_is_written_under_its_name_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b.txt"
    runlog.write_text(path, "Voilà\n")
    assert path.read_bytes() == "Voilà\n".encode()
    runlog.write_text(path, "two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    runlog.write_json(path, {"value": 1})
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        runlog.write_json(path, {"value": 2})
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda descriptor: full(None, "disk"))
    with pytest.raises(OSError, match="No space left"):
        runlog.write_json(path, {"value": 2})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]


def test_nothing_is_written_where_the_value_cannot_be_made_into_text(tmp_path):
    def rows():
        yield {"a": 1}
        raise UserError("line 2 is bad")

    with pytest.raises(UserError):
        runlog.write_jsonl(tmp_path / "train.jsonl", rows())
    assert os.listdir(tmp_path) == []


def test_json_keeps_letters_and_turns_paths_into_text(tmp_path):
    runlog.write_json(tmp_path / "x.json", {"name": "outré", "path": tmp_path})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == (
        f'{{\n "name": "outré",\n "path": "{tmp_path}"\n}}\n'
    )


def test_jsonl_has_an_object_a_line(tmp_path):
    runlog.write_jsonl(tmp_path / "x.jsonl", [{"a": "é\n"}, {"b": [1, 2]}])
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == '{"a": "é\\n"}\n{"b": [1, 2]}\n'
    runlog.write_jsonl(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_missing_or_bad_json_is_named_with_its_remedy(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(
        UserError, match=r"^the report is missing: .*/report\.json; make it with: python evaluation\.py$"
    ):
        runlog.read_json(path, "the report", "python evaluation.py")
    with pytest.raises(UserError, match=r"^the report is missing: .*/report\.json$"):
        runlog.read_json(path, "the report")
    path.write_text('{"a": ')
    with pytest.raises(
        UserError, match=r"report\.json: not valid JSON .*; make it again with: python evaluation\.py$"
    ):
        runlog.read_json(path, "the report", "python evaluation.py")
    path.write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UserError, match="not valid JSON"):
        runlog.read_json(path, "the report")
    path.write_text('{"a": 1}')
    assert runlog.read_json(path, "the report") == {"a": 1}


def test_a_hash_is_over_strings_as_they_are_and_over_the_digests_of_files(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"content")
    assert runlog.sha256_of("a", b"b") == hashlib.sha256(b"ab").hexdigest()
    digest = hashlib.sha256(b"content").digest()
    assert runlog.sha256_of(path) == hashlib.sha256(digest).hexdigest()
    assert runlog.sha256_of("a", path, "é") == hashlib.sha256(b"a" + digest + "é".encode()).hexdigest()
    assert runlog.sha256_of("a", path) != runlog.sha256_of(path, "a")


@dataclass(frozen=True)
class Args(config.RunArgs):
    out: Path | None = None
    rates: tuple[float, ...] = (1.5, 2.0)


def test_settings_are_plain_values():
    assert runlog.settings_of(Args(out=Path("/x"))) == {
        "persona": "sherlock",
        "corpus": None,
        "model": None,
        "run": None,
        "seed": 42,
        "force": False,
        "out": "/x",
        "rates": [1.5, 2.0],
    }
    assert runlog.settings_of({"a": Path("b")}) == {"a": "b"}


def test_a_run_folder_is_named_by_flag_or_by_persona_and_model():
    assert runlog.run_folder(Args(run="mine")) == config.RESULT / "mine"
    assert runlog.run_folder(Args(model="tiny")) == config.RESULT / "sherlock-tiny"
    assert runlog.run_folder(Args(model="tiny", corpus="canon")) == config.RESULT / "sherlock-tiny-canon"


def test_the_embedded_model_stands_in_without_cuda_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(runlog, "cuda_available", lambda: False)
    assert runlog.resolve_model(Args()).name == "tiny"
    assert capsys.readouterr().out == "no CUDA device: using the embedded base model (--model tiny)\n"
    monkeypatch.setattr(runlog, "cuda_available", lambda: True)
    assert runlog.resolve_model(Args()).name == "qwen2.5-7b"
    assert runlog.resolve_model(Args(model="tiny")).name == "tiny"
    assert capsys.readouterr().out == ""


@pytest.fixture
def fake_git(tmp_path, monkeypatch):
    """`fake_git(commit, status, code)` puts a `git` on the path that answers so and notes the questions."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def answer(commit: str = "", status: str = "", code: int = 0) -> Path:
        lines = [
            "#!/bin/sh",
            f'echo "$@" >> "{folder}/asked"',
            f'case "$3" in rev-parse) echo "{commit}";; status) printf "{status}";; esac',
            f"exit {code}",
        ]
        (folder / "git").write_text("\n".join(lines) + "\n")
        (folder / "git").chmod(0o755)
        return folder / "asked"

    return answer


def test_git_state_is_the_commit_and_whether_files_were_changed(fake_git):
    assert runlog.git_state() == {"commit": None, "dirty": None}  # no git on the path
    asked = fake_git("0123abcd")
    assert runlog.git_state() == {"commit": "0123abcd", "dirty": False}
    assert asked.read_text() == f"-C {config.ROOT} rev-parse HEAD\n-C {config.ROOT} status --porcelain\n"
    fake_git("0123abcd", " M config.py\\n")
    assert runlog.git_state() == {"commit": "0123abcd", "dirty": True}
    fake_git(code=128)  # no checkout
    assert runlog.git_state() == {"commit": None, "dirty": None}


def test_the_environment_lists_the_versions_that_are_installed():
    import scipy
    import torch

    found = runlog.environment()
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["scipy"] == scipy.__version__
    assert set(found["packages"]) == set(runlog.PACKAGES)
    assert found["project"] == config.VERSION
    assert found["python"].startswith("3.")


def test_times_are_utc_to_the_second():
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", runlog.now())


@pytest.fixture
def at_commit(monkeypatch):
    monkeypatch.setattr(runlog, "git_state", lambda: {"commit": "0123abcd", "dirty": False})


def test_stages_are_recorded_beside_each_other_and_updated(tmp_path, monkeypatch, at_commit):
    monkeypatch.setattr("sys.argv", ["/x/fine_tune.py", "--seed", "3"])
    folder = tmp_path / "sherlock-tiny"
    runlog.record_stage(folder, "fine_tune", status="running", start="t0")
    monkeypatch.setattr("sys.argv", ["/x/evaluation.py"])
    runlog.record_stage(folder, "evaluation", status="done")
    runlog.record_stage(folder, "fine_tune", status="done", end="t1")
    record = json.loads((folder / "run.json").read_text())
    assert record["run"] == "sherlock-tiny"
    assert list(record["stages"]) == ["fine_tune", "evaluation"]
    tuned = record["stages"]["fine_tune"]
    assert (tuned["status"], tuned["start"], tuned["end"]) == ("done", "t0", "t1")
    assert record["stages"]["evaluation"]["command"] == ["evaluation.py"]
    assert tuned["git"] == {"commit": "0123abcd", "dirty": False}
    assert set(tuned) == {"command", "git", "environment", "status", "start", "end"}
    runlog.record_stage(tmp_path / "other", "fine_tune", status="done")
    assert runlog.stage_facts(tmp_path / "other", "fine_tune")["command"] == ["evaluation.py"]
    assert runlog.stage_facts(folder, "visual") == {}
    assert runlog.stage_facts(tmp_path / "nowhere", "fine_tune") == {}


def test_a_stage_is_current_when_it_finished_for_the_same_inputs_and_its_outputs_are_there(
    tmp_path, at_commit
):
    output = tmp_path / "report.json"
    assert not runlog.is_current(tmp_path, "evaluation", "abc", [output])
    output.write_text("{}")
    assert not runlog.is_current(tmp_path, "evaluation", "abc", [output])
    runlog.record_stage(tmp_path, "evaluation", status="running", inputs_sha256="abc")
    assert not runlog.is_current(tmp_path, "evaluation", "abc", [output])
    runlog.record_stage(tmp_path, "evaluation", status="done")
    assert runlog.is_current(tmp_path, "evaluation", "abc", [output])
    assert not runlog.is_current(tmp_path, "evaluation", "abd", [output])
    assert not runlog.is_current(tmp_path, "base_model", "abc", [output])
    assert not runlog.is_current(tmp_path, "evaluation", "abc", [output, tmp_path / "predictions.jsonl"])
    output.unlink()
    assert not runlog.is_current(tmp_path, "evaluation", "abc", [output])
