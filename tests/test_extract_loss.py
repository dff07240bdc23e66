"""extract_loss.py as a user runs it, on small trainer states with values worked out by hand."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(workspace: Path, *flags: str) -> subprocess.CompletedProcess:
    """extract_loss.py as a user runs it."""
    command = [sys.executable, str(ROOT / "extract_loss.py"), "--run", "r", *flags]
    environment = os.environ | {"PERSONA_WORKSPACE": str(workspace)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=workspace, check=False
    )


def logged(step: int, epoch: float, loss: float, **more) -> dict:
    """A training entry of transformers' Trainer."""
    return {"step": step, "epoch": epoch, "loss": loss, "learning_rate": 1e-4, "grad_norm": 0.5, **more}


# Three epochs of 60 steps, a point every 15 (a quarter of an epoch); the loss falls by 0.1 a point from 2.0.
HISTORY = [
    logged(1, 1 / 60, 2.1, mean_token_accuracy=0.30),
    *(
        logged(15 * i, i / 4, 2.1 - 0.1 * i, mean_token_accuracy=0.3 + 0.05 * i, entropy=1.0)
        for i in range(1, 13)
    ),
    {"step": 60, "epoch": 1.0, "eval_loss": 1.75, "eval_mean_token_accuracy": 0.45, "eval_runtime": 2.5},
    {"step": 180, "epoch": 3.0, "eval_loss": 1.25, "eval_runtime": 2.0},
    {"step": 180, "epoch": 3.0, "train_runtime": 99.0, "train_loss": 1.4, "total_flos": 1.0},
]


def state(history: list[dict], epoch: float = 3.0, step: int = 180, max_steps: int = 180) -> dict:
    """A trainer_state.json."""
    return {"epoch": epoch, "global_step": step, "max_steps": max_steps, "log_history": history}


def write(workspace: Path, content: dict, place: str = "trainer_state.json") -> Path:
    """Put a trainer state into the run's folder; NaN is written as Python and transformers write it."""
    path = workspace / "result" / "r" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def report_of(workspace: Path) -> dict:
    """training_loss.json, read as strict JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in training_loss.json")

    return json.loads((workspace / "result" / "r" / "training_loss.json").read_text(), parse_constant=refuse)


def test_values_milestones_and_phases_of_a_three_epoch_run(tmp_path):
    source = write(tmp_path, state(HISTORY))
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = report_of(tmp_path)
    assert (report["run"], report["total_steps"], report["epochs"]) == ("r", 180, 3.0)
    assert len(report["train"]) == 13
    assert report["train"][1] == {
        "step": 15,
        "epoch": 0.25,
        "loss": pytest.approx(2.0),
        "learning_rate": 1e-4,
        "grad_norm": 0.5,
        "token_accuracy": pytest.approx(0.35),
    }
    assert report["evaluation"] == [
        {"step": 60, "epoch": 1.0, "loss": 1.75, "token_accuracy": 0.45, "runtime": 2.5},
        {"step": 180, "epoch": 3.0, "loss": 1.25, "token_accuracy": None, "runtime": 2.0},
    ]
    # The nearest point at or after each epoch: 0.01 -> 1/60, 0.1 -> 0.25 (step 15), 0.5 -> step 30 ...
    found = [(row["epoch"], row["step"], round(row["loss"], 6)) for row in report["milestones"]]
    wanted = [
        (0.01, 1, 2.1),
        (0.1, 15, 2.0),
        (0.5, 30, 1.9),
        (1, 60, 1.7),
        (1.5, 90, 1.5),
        (2, 120, 1.3),
        (3, 180, 0.9),
    ]
    assert found == wanted
    assert report["milestones"][3]["token_accuracy"] == pytest.approx(0.5)
    assert report["phase_borders_epochs"] == [0.5, 1.5, 3.0]
    phases = [tuple(phase.values()) for phase in report["phases"]]
    assert phases == [
        ("rapid adaptation", 0.0, 0.5, pytest.approx(2.1), pytest.approx(1.9)),
        ("refinement", 0.5, 1.5, pytest.approx(1.9), pytest.approx(1.5)),
        ("convergence", 1.5, 3.0, pytest.approx(1.5), pytest.approx(0.9)),
    ]
    assert list(report["phases"][0]) == ["name", "from_epoch", "to_epoch", "loss_from", "loss_to"]
    assert report["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert "  0.5       30   1.9000           40.0%" in done.stdout


def test_phases_scale_with_the_run_and_milestones_end_with_it(tmp_path):
    write(
        tmp_path,
        state([entry for entry in HISTORY if entry["epoch"] <= 1.2], epoch=1.2, step=72, max_steps=72),
    )
    run(tmp_path)
    report = report_of(tmp_path)
    assert report["phase_borders_epochs"] == [0.2, 0.6, 1.2]
    # Points at 1/60, 0.25, 0.5, 0.75, 1.0: borders 0.2 -> 0.25, 0.6 -> 0.75, and 1.2 takes the last one, 1.0.
    assert [phase["loss_to"] for phase in report["phases"]] == pytest.approx([2.0, 1.8, 1.7])
    assert [row["epoch"] for row in report["milestones"]] == [0.01, 0.1, 0.5, 1]


def test_a_milestone_at_the_end_takes_the_last_point_logged_before_it(tmp_path):
    write(tmp_path, state([entry for entry in HISTORY if entry["step"] < 180]))
    run(tmp_path)
    last = report_of(tmp_path)["milestones"][-1]
    assert (last["epoch"], last["step"]) == (3, 165)


def test_of_duplicated_steps_the_last_one_counts_and_steps_are_in_order(tmp_path):
    again = [logged(15, 0.25, 7.0), logged(30, 0.5, 8.0), {"step": 60, "epoch": 1.0, "eval_loss": 9.0}]
    write(tmp_path, state([*HISTORY, *again]))
    run(tmp_path)
    report = report_of(tmp_path)
    assert [point["step"] for point in report["train"]] == [1, *range(15, 181, 15)]
    assert [point["loss"] for point in report["train"][:4]] == pytest.approx([2.1, 7.0, 8.0, 1.8])
    assert [point["loss"] for point in report["evaluation"]] == [9.0, 1.25]


def test_nan_and_infinity_are_null_with_a_warning(tmp_path):
    path = write(tmp_path, state([*HISTORY, logged(30, 0.5, float("nan"), mean_token_accuracy=0.4)]))
    assert "NaN" in path.read_text()
    path.write_text(path.read_text().replace('"grad_norm": 0.5', '"grad_norm": Infinity', 1))
    done = run(tmp_path)
    assert done.returncode == 0
    assert "warning: 1 losses are not a number, kept as null (steps 30)" in done.stdout.splitlines()
    report = report_of(tmp_path)
    assert report["train"][2]["loss"] is None and report["train"][0]["grad_norm"] is None
    milestone = next(row for row in report["milestones"] if row["epoch"] == 0.5)
    assert milestone == {"epoch": 0.5, "loss": None, "token_accuracy": 0.4, "step": 30}
    # The border at 0.5 takes the next number, at 0.75.
    assert report["phases"][0]["loss_to"] == report["phases"][1]["loss_from"] == pytest.approx(1.8)


def test_the_newest_checkpoint_stands_in_for_a_run_that_was_stopped(tmp_path):
    for step in (60, 120, 9):
        part = [entry for entry in HISTORY if entry["step"] <= step]
        write(
            tmp_path,
            state(part, epoch=step / 60, step=step),
            f"checkpoints/checkpoint-{step}/trainer_state.json",
        )
    (tmp_path / "result/r/checkpoints/checkpoint-999").mkdir()  # no state in it
    done = run(tmp_path)
    assert "note: step 120 of 180" in done.stdout
    report = report_of(tmp_path)
    assert report["source"] == "checkpoints/checkpoint-120/trainer_state.json"
    assert (report["total_steps"], report["epochs"]) == (120, 2.0)
    write(tmp_path, state(HISTORY))  # the run's own state comes before any checkpoint's
    run(tmp_path)
    assert report_of(tmp_path)["source"] == "trainer_state.json"


def test_skips_what_is_up_to_date_and_only_that(tmp_path):
    write(tmp_path, state(HISTORY))
    run(tmp_path)
    output = tmp_path / "result" / "r" / "training_loss.json"
    first, time = output.read_bytes(), output.stat().st_mtime_ns
    done = run(tmp_path)
    assert "up to date" in done.stdout and "1.9000" in done.stdout
    assert output.stat().st_mtime_ns == time
    assert "wrote" in run(tmp_path, "--force").stdout
    assert output.read_bytes() == first
    output.write_text('{"half')
    assert "making it again" in run(tmp_path).stdout
    assert output.read_bytes() == first
    write(tmp_path, state(HISTORY[:5]))
    assert "wrote" in run(tmp_path).stdout
    assert len(report_of(tmp_path)["train"]) == 5


def test_a_run_shorter_than_its_logging_interval_gives_an_empty_curve_and_a_warning(tmp_path):
    write(tmp_path, state([{"step": 2, "epoch": 0.1, "train_loss": 2.0}], epoch=0.1, step=2, max_steps=2))
    done = run(tmp_path)
    assert done.returncode == 0 and "warning" in done.stdout
    report = report_of(tmp_path)
    assert report["train"] == report["evaluation"] == report["phases"] == report["milestones"] == []


def test_missing_state_names_the_command_that_makes_it(tmp_path):
    done = run(tmp_path, "--corpus", "my texts")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "python fine_tune.py --corpus 'my texts' --run r" in done.stderr
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"log_history": 3}', '{"log_history": [{"loss": 1.0}]}'])
def test_a_broken_state_is_one_line_and_leaves_the_old_curve(tmp_path, text):
    path = write(tmp_path, state(HISTORY))
    run(tmp_path)
    before = report_of(tmp_path)
    path.write_text(text)
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(path) in done.stderr and "python fine_tune.py --run r" in done.stderr
    assert report_of(tmp_path) == before
