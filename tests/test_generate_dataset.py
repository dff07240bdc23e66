"""generate_dataset.py by its flags: a teacher, other tools' forms, checking a file, a new card."""

import json

import chat_server
import pytest
from chat_server import completion
from scripts import run, snapshot, toy_corpus

import config
import generate_dataset
from persona.errors import UserError
from persona.rows import read_rows

server = chat_server.server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE", tmp_path / "cache")
    return tmp_path / "out"


def made(folder, tmp_path, **flags):
    corpus = tmp_path / "letters"
    if not corpus.is_dir():
        toy_corpus(corpus)
    generate_dataset.main(generate_dataset.Args(corpus=str(corpus), model="tiny", out=folder, **flags))
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_a_file_is_checked_and_its_bad_lines_named(tmp_path, capsys):
    good = tmp_path / "good.jsonl"
    line = json.dumps({"messages": [{"role": r, "content": "Hm."} for r in ("user", "assistant")]})
    good.write_text(line, encoding="utf-8")
    generate_dataset.main(generate_dataset.Args(validate=good))
    assert capsys.readouterr().out == f"{good}: every line is a conversation\n"
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f"{line}\n{{]\n{line}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        generate_dataset.main(generate_dataset.Args(validate=bad))
    assert stopped.value.code == 2
    assert capsys.readouterr().out.startswith(f"{bad}, line 2: ")


def test_a_new_card_needs_a_book():
    with pytest.raises(UserError, match="--new-card needs the book: give --corpus DIR"):
        generate_dataset.main(generate_dataset.Args(new_card="Hercule Poirot"))


def test_rows_that_are_not_there_are_not_made_up(folder, tmp_path, capsys):
    manifest = made(folder, tmp_path, rows=100_000, strategies=("dialogue", "curated"))
    said = capsys.readouterr().out
    rows = manifest["figures"]["rows"]
    assert f"100,000 rows were asked for; the corpus has {rows:,}, and nothing is padded" in said


def test_an_export_lies_in_the_data_set_and_is_made_from_an_up_to_date_one(folder, tmp_path, capsys):
    made(folder, tmp_path, strategies=("curated", "dialogue"), export="openai")
    said, files = capsys.readouterr().out, list((folder / "export" / "openai").iterdir())
    assert files and all(f"written {path}\n" in said for path in files)
    before = snapshot(folder)
    made(folder, tmp_path, strategies=("curated", "dialogue"), export="openai")
    assert snapshot(folder) == before


def test_a_teacher_writes_in_place_of_the_rules_and_an_unfinished_set_is_gone_on_with(
    folder,
    tmp_path,
    server,
    capsys,
):
    """The server answers what no check accepts: rows are counted by the reason why they were refused."""
    answer = completion(json.dumps({"pairs": [{"question": "Who?", "answer": "No."}]}))
    server.plan = lambda number, word: answer
    flags = {"strategies": ("dialogue", "curated", "qa"), "teacher": "m", "passages_per_story": 1}
    manifest = made(folder, tmp_path, **flags, teacher_budget=3000)
    asked = len(server.requests)
    assert manifest["settings"]["teacher"] == "m"
    assert not any(r["meta"]["tier"] == "rules" for r in read_rows(folder / "train.jsonl"))
    left = sum(n for reason, n in manifest["removed"].items() if reason.startswith("teacher: left"))
    rejected = sum(n for reason, n in manifest["removed"].items() if reason.startswith("qa: "))
    assert (asked > 0) and rejected > 0
    manifest = made(folder, tmp_path, **flags)
    assert not any(reason.startswith("teacher: left") for reason in manifest["removed"])
    assert len(server.requests) == asked + left, "what was answered is not asked again"
    capsys.readouterr()
    made(folder, tmp_path, **flags)
    assert "is up to date" in capsys.readouterr().out and len(server.requests) == asked + left


def test_the_flags_stand_in_the_help(tmp_path):
    said = run(tmp_path, "generate_dataset.py", "--help").out
    for flag in ("--teacher", "--export", "--validate", "--new-card", "--rows", "--quality"):
        assert flag in said
