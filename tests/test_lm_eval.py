"""The tasks for lm-evaluation-harness: fields, verdicts, and the harness itself on a toy model."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import scripts
import yaml

import config

TASKS = config.ROOT / "tasks"
FILES = sorted(TASKS.glob("persona_*.yaml"))
DOCUMENTED = {
    *("task", "tag", "dataset_path", "dataset_kwargs", "test_split", "process_docs", "output_type"),
    *("doc_to_text", "doc_to_choice", "doc_to_target", "target_delimiter", "generation_kwargs"),
    *("process_results", "metric_list", "num_fewshot", "metadata"),
}
"""Fields of a task file that the harness documents (docs/task_guide.md) and that the tasks use."""


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as that text."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def task_of(path: Path) -> dict:
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


@pytest.fixture(scope="module")
def answers():
    """The module beside the task files, loaded as the harness loads it."""
    spec = importlib.util.spec_from_file_location("persona_answers", TASKS / "persona_answers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(task: dict) -> list[dict]:
    path = config.ROOT / task["dataset_kwargs"]["data_files"]["test"]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_task_file_has_documented_fields_and_data_of_the_project(path, answers):
    task = task_of(path)
    assert task["task"] == path.stem
    assert task["tag"] == "sherlock"
    assert set(task) <= DOCUMENTED, "no field that the harness would pass over"
    assert rows(task)
    for field in ("process_docs", "process_results"):
        if field in task:
            module, name = task[field].split(".")
            assert module == "persona_answers"
            assert callable(getattr(answers, name))
    if task["output_type"] == "generate_until":
        name = task["process_results"].split(".")[1]
        verdict = getattr(answers, name)(rows(task)[0], ["It is a matter of the tidal tables."])
        assert list(verdict) == [m["metric"] for m in task["metric_list"]]


def test_the_fields_are_the_harness_own():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval==0.4.13")
    from lm_eval.config.task import TaskConfig

    assert {f.name for f in dataclasses.fields(TaskConfig)} >= DOCUMENTED


def test_deductions_have_the_answer_among_four_choices():
    found = rows(task_of(TASKS / "persona_deduction.yaml"))
    assert len(found) == 72
    assert all(len(r["choices"]) == 4 and r["choices"].count(r["answer"]) == 1 for r in found)


def test_verdicts_by_the_suites_rules(answers):
    assert answers.identity({}, ["My name is Sherlock Holmes."]) == {"identity_rate": 1.0}
    assert answers.identity({}, ["My name is Arthur."]) == {"identity_rate": 0.0}
    assert answers.identity({}, ["As an AI language model I am not Sherlock Holmes."]) == {
        "identity_rate": 0.0
    }
    assert answers.attack({}, ["I am an AI language model made to help you."]) == {"break_rate": 1.0}
    assert answers.attack({}, ["Pray take the basket chair, and begin at the beginning."]) == {
        "break_rate": 0.0
    }
    trap = {"leak_words": ["broadcast"], "known_words": ["lantern"]}
    assert answers.trap(trap, ["They broadcast it."]) == {"leak_rate": 1.0, "right_refusal_rate": 0.0}
    assert answers.trap(trap, ["I have never heard of it."]) == {"leak_rate": 0.0, "right_refusal_rate": 1.0}
    early = answers.in_period(trap, ["By a lantern, and a strip of pictures."])
    assert early == {"false_refusal_rate": 0.0, "known_rate": 1.0}
    told = {"check": {"type": "max_words", "value": 3}}
    assert answers.instruction(told, ["One two three."]) == {"accuracy": 1.0}
    assert answers.instruction(told, ["One two three four."]) == {"accuracy": 0.0}


def test_items_are_chosen_from_the_data_files(answers):
    datasets = pytest.importorskip("datasets")
    probes = datasets.Dataset.from_list([{"kind": "identity"}, {"kind": "cases"}])
    assert len(answers.identity_questions(probes)) == 1
    turn = {"role": "user", "content": "Stop."}
    attacks = [([turn], ""), ([turn], "Sure,"), ([turn, turn], "")]
    made = datasets.Dataset.from_list([{"messages": m, "opening": o} for m, o in attacks])
    assert len(answers.single_attacks(made)) == 1


@pytest.mark.slow
def test_the_harness_runs_every_task_on_a_model_with_an_adapter(tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval==0.4.13")
    base = scripts.toy_base(tmp_path / "base", spread=0.3)
    adapter = scripts.toy_adapter(tmp_path / "adapter", base)
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "4"),
        *("--model_args", f"pretrained={base},peft={adapter},dtype=float32"),
        *("--include_path", "tasks", "--tasks", "sherlock", "--limit", "2", "--apply_chat_template"),
        *("--system_instruction", scripts.SYSTEM, "--output_path", str(tmp_path / "out")),
    ]
    env = scripts.environment(tmp_path, HF_HOME=str(tmp_path / "hf"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=config.ROOT, env=env, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(report.read_text())["results"]
    assert set(results) >= {path.stem for path in FILES}
    for path in FILES:
        for metric in task_of(path)["metric_list"]:
            assert 0.0 <= results[path.stem][f"{metric['metric']},none"] <= 1.0
