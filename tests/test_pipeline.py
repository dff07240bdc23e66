"""run_persona.sh and setup_environment.sh: what they start and how they end, then whole pipelines."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import ROOT, environment, snapshot, toy_base, toy_corpus

PIPELINE = ROOT / "run_persona.sh"
STAGES = ("generate_dataset.py", "fine_tune.py", "extract_loss.py", "evaluation.py", "visual.py")

STAND_IN = """#!/usr/bin/env bash
# takes Python's place: writes down how it was called, fails or waits where it is told to
echo "$*" >>"$LOG"
[ "$1" = fine_tune.py ] && echo "$PWD|${RESUME_CHECKPOINT-unset}" >"$LOG.fine_tune"
[ "$*" = "-m persona.checkpoints last" ] && printf '%s' "${LAST-}"
[ "$1" = "${FAILING-}" ] && exit 7
if [ "$1" = "${WAITING-}" ]; then
    [ "${ON_TERM-75}" = 75 ] && trap 'echo "TERM came" >>"$LOG"; exit 75' TERM
    echo $$ >"$LOG.waiting"
    for _ in $(seq 600); do sleep 0.1; done
fi
exit 0
"""

SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$LOG"
[ "$1" = show ] && printf 'JobId=7 JobName=persona\\n   Command=%s --seed 7\\n   WorkDir=/\\n' "$ORIGINAL"
exit 0
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Calls:
    """run_persona.sh with the stand-in; what was called stands in `log`."""

    def __init__(self, tmp_path: Path):
        self.elsewhere = tmp_path / "elsewhere"
        self.elsewhere.mkdir()
        self.log = tmp_path / "log"
        self.log.touch()
        python = executable(tmp_path / "bin" / "python", STAND_IN)
        executable(tmp_path / "bin" / "scontrol", SCONTROL)
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        self.env = environment(tmp_path / "workspace") | {
            "PERSONA_PYTHON": str(python),
            "LOG": str(self.log),
            "PATH": path,
        }

    def start(
        self, *flags: object, script: Path = PIPELINE, cwd: Path | None = None, **extra: str
    ) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(script), *map(str, flags)], cwd=cwd or self.elsewhere, env=self.env | extra,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *flags: object, **extra) -> tuple[int, str, str]:
        process = self.start(*flags, **extra)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines()

    def waiting(self) -> int:
        """The process id of the stage that waits, once it does."""
        path = Path(f"{self.log}.waiting")
        end = time.monotonic() + 60
        while not (path.is_file() and path.read_text().strip()):
            assert time.monotonic() < end, self.called
            time.sleep(0.05)
        return int(path.read_text())


@pytest.fixture
def calls(tmp_path) -> Calls:
    return Calls(tmp_path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what is started ------------------------------------------------------------------------------------


def test_stages_come_in_order_and_get_their_flags(calls):
    code, out, err = calls.run(
        "--persona",
        "poirot",
        "--max-steps",
        6,
        "--seed",
        7,
        "--epochs",
        1,
        "--run",
        "r",
        "--model",
        "tiny",
        "--force",
    )
    assert (code, err) == (0, "")
    shared = "--persona poirot --seed 7 --run r --model tiny --force"
    assert calls.called == [
        f"-m persona.checkpoints last {shared}",
        f"generate_dataset.py {shared}",
        f"fine_tune.py {shared} --max-steps 6 --epochs 1",
        f"extract_loss.py {shared}",
        f"evaluation.py {shared}",
        f"visual.py {shared}",
        f"-m persona.checkpoints clean {shared}",
    ]
    assert [line.removeprefix("=== ") for line in out.splitlines() if line.startswith("=== ")] == list(STAGES)


def test_reference_adds_the_evaluation_on_rows_seen_in_training(calls):
    assert calls.run("--reference")[0] == 0
    assert calls.called[4:6] == ["evaluation.py", "evaluation.py --protocol reference"]


def test_it_works_in_the_checkout_and_finds_a_corpus_from_where_the_user_stands(calls):
    (calls.elsewhere / "texts").mkdir()
    assert calls.run("--corpus", "texts")[0] == 0
    assert f"generate_dataset.py --corpus {calls.elsewhere}/texts" in calls.called
    assert Path(f"{calls.log}.fine_tune").read_text().split("|")[0] == str(ROOT)


def test_embedded_canon_and_absolute_corpora_are_passed_as_they_are(calls):
    for corpus in ("embedded", "canon", "/srv/texts"):
        calls.log.write_text("")
        assert calls.run("--corpus", corpus)[0] == 0
        assert f"visual.py --corpus {corpus}" in calls.called


def test_a_model_folder_is_found_from_where_the_user_stands(calls):
    (calls.elsewhere / "my-base").mkdir()
    assert calls.run("--model", "my-base")[0] == 0
    assert f"fine_tune.py --model {calls.elsewhere}/my-base" in calls.called
    calls.log.write_text("")
    assert calls.run("--model", "Qwen/Qwen2.5-0.5B-Instruct")[0] == 0
    assert "fine_tune.py --model Qwen/Qwen2.5-0.5B-Instruct" in calls.called


def test_a_flag_with_an_equals_sign_goes_to_every_stage_too(calls):
    """tyro takes `--run=r` as it takes `--run r`: stages must not work on different runs."""
    assert calls.run("--run=r", "--max-steps=6")[0] == 0
    words = [call.replace("--run=r", "--run r") for call in calls.called]
    assert words[1] == "generate_dataset.py --run r"
    assert words[2].replace("=", " ") == "fine_tune.py --run r --max-steps 6"
    assert words[5] == "visual.py --run r"


@pytest.mark.parametrize("flag", ["--corpus", "--model", "--persona", "--run", "--seed"])
def test_a_flag_without_its_value_is_refused(flag, calls):
    assert calls.run(flag) == (2, "", f"error: {flag} needs a value\n")
    assert calls.called == []


def test_help_is_the_comment_at_the_top_from_any_directory(calls):
    wanted = ["The whole pipeline: data set", "--corpus DIR --max-steps 400", "sbatch run_persona.sh"]
    for script, cwd in ((PIPELINE, calls.elsewhere), (Path(ROOT.name) / PIPELINE.name, ROOT.parent)):
        code, out, err = calls.run("--help", script=script, cwd=cwd)
        assert (code, err, calls.called) == (0, "", [])
        assert out.startswith(wanted[0])
        assert all(part in out for part in wanted)
        assert "#" not in out
        assert "set -uo pipefail" not in out


def test_the_last_complete_checkpoint_is_handed_on_unless_the_user_names_one(calls):
    calls.run(LAST="/result/checkpoint-12")
    assert Path(f"{calls.log}.fine_tune").read_text() == f"{ROOT}|/result/checkpoint-12\n"
    calls.log.write_text("")
    calls.run(RESUME_CHECKPOINT="/mine/checkpoint-3")
    assert Path(f"{calls.log}.fine_tune").read_text() == f"{ROOT}|/mine/checkpoint-3\n"
    assert "-m persona.checkpoints last" not in calls.called


# --- how it ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_failing_stage_is_named_with_its_code_and_nothing_comes_after_it(stage, calls):
    code, _, err = calls.run(FAILING=stage)
    assert (code, err) == (7, f"run_persona.sh: stage {stage} failed with exit code 7\n")
    assert calls.called[-1] == stage


def test_sigterm_is_forwarded_to_the_stage_and_its_code_is_told(calls):
    process = calls.start(WAITING="fine_tune.py")
    calls.waiting()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, calls.called[-1]) == (75, "TERM came")
    assert "run_persona.sh: stage fine_tune.py failed with exit code 75" in err


def test_control_c_leaves_no_stage_behind(calls):
    """The stages are background jobs of a shell without job control: they ignore the terminal's SIGINT."""
    process = calls.start(WAITING="evaluation.py", ON_TERM="default")
    stage = calls.waiting()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)
    end = time.monotonic() + 5
    while alive(stage) and time.monotonic() < end:
        time.sleep(0.05)
    left = alive(stage)
    os.killpg(process.pid, signal.SIGKILL) if left else None
    assert not left, "the stage went on alone"
    assert process.returncode != 0
    assert "visual.py" not in calls.called


# --- under SLURM ----------------------------------------------------------------------------------------


def test_a_copy_in_slurms_spool_works_in_the_original_checkout(calls, tmp_path):
    copy = executable(tmp_path / "spool" / "job00007" / "slurm_script", PIPELINE.read_text())
    code, _, err = calls.run(script=copy, SLURM_JOB_ID="7", ORIGINAL=str(PIPELINE))
    assert (code, err) == (0, "")
    assert calls.called[0] == "scontrol show job 7"
    assert Path(f"{calls.log}.fine_tune").read_text().split("|")[0] == str(ROOT)

    executable(tmp_path / "bin" / "scontrol", "#!/bin/sh\nexit 1\n")  # no answer: where the job was submitted
    Path(f"{calls.log}.fine_tune").unlink()
    assert calls.run(script=copy, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))[0] == 0
    assert Path(f"{calls.log}.fine_tune").read_text().split("|")[0] == str(ROOT)


@pytest.mark.parametrize(
    ("stage", "on_term"), [("fine_tune.py", "75"), ("evaluation.py", "default")], ids=["saves", "just dies"]
)
def test_slurms_warning_stops_the_stage_and_requeues_the_job(stage, on_term, calls):
    """Whatever stage the time limit meets: fine_tune.py answers with 75, the others die and start over."""
    process = calls.start(SLURM_JOB_ID="7", ORIGINAL=str(PIPELINE), WAITING=stage, ON_TERM=on_term)
    calls.waiting()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert calls.called[-1] == "scontrol requeue 7"
    assert process.returncode == 0


def test_force_holds_for_the_first_start_of_a_job_alone(calls):
    """A requeued job gets the same command line: --force would throw its own checkpoints away each time."""
    calls.run("--force", SLURM_JOB_ID="7", ORIGINAL=str(PIPELINE))
    assert "fine_tune.py --force" in calls.called
    calls.log.write_text("")
    calls.run("--force", SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1", ORIGINAL=str(PIPELINE))
    assert "fine_tune.py" in calls.called
    assert not [call for call in calls.called if "--force" in call]


# --- setup_environment.sh -------------------------------------------------------------------------------

VENV_PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
[ "$1 $2" = "-m pip" ] && exit "${PIP_CODE-0}"
exit 0
"""


@pytest.fixture
def set_up(tmp_path):
    """`set_up()` sources setup_environment.sh; returns (code, stderr, calls of the venv's Python)."""
    executable(tmp_path / "venv" / "bin" / "python", VENV_PYTHON)
    (tmp_path / "needed.txt").write_text("torch==2.13.0\n")
    log = tmp_path / "log"

    def source(**extra: str) -> tuple[int, str, list[str]]:
        log.write_text("")
        code = f'. {ROOT}/setup_environment.sh; setup_environment needed.txt; "$python" done'
        env = environment(tmp_path) | {"PERSONA_VENV": str(tmp_path / "venv"), "LOG": str(log)} | extra
        done = subprocess.run(
            ["bash", "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr, log.read_text().splitlines()

    return source


def test_packages_are_installed_once_and_again_when_the_file_changes(set_up, tmp_path):
    install = "-m pip install --quiet --disable-pip-version-check -r needed.txt"
    assert set_up() == (0, "", [install, "done"])
    assert set_up() == (0, "", ["done"])
    (tmp_path / "needed.txt").write_text("torch==2.13.1\n")
    assert set_up() == (0, "", [install, "done"])


def test_a_failed_installation_is_told_and_tried_again(set_up):
    code, err, called = set_up(PIP_CODE="1")
    assert (code, err) == (2, "error: installing needed.txt failed\n")
    assert called[-1] != "done"
    assert len(set_up()[2]) == 2, "no stamp was left"


def test_an_interpreter_of_the_users_is_taken_as_it_is(set_up, tmp_path):
    own = executable(tmp_path / "own", VENV_PYTHON)
    assert set_up(PERSONA_PYTHON=str(own)) == (0, "", ["done"])


# --- whole pipelines ------------------------------------------------------------------------------------


def pipeline(workspace: Path, cwd: Path, *flags: object) -> subprocess.Popen:
    env = environment(workspace, PERSONA_PYTHON=sys.executable)
    return subprocess.Popen(
        ["bash", str(PIPELINE), *map(str, flags)], cwd=cwd, env=env, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, out[-3000:]
    return out


SKIPPED = (
    "is up to date (--force makes it again)",
    "is finished for these data",
    "is up to date with",
    "is up to date (--force evaluates again)",
)


@pytest.mark.slow
def test_the_embedded_defaults_make_everything_and_a_second_run_skips_every_stage(tmp_path):
    workspace = tmp_path / "workspace"
    out = finished(pipeline(workspace, tmp_path, "--max-steps", 6, "--epochs", 1))
    assert "no CUDA device: using the embedded base model (--model tiny)" in out
    folder = workspace / "result" / "sherlock-tiny"
    made = {p.name for p in folder.iterdir()}
    assert made >= {
        "run.json",
        "adapter",
        "training_loss.json",
        "evaluation_report.json",
        "predictions.jsonl",
        "figures",
        "report.html",
    }
    assert "checkpoints" not in made, "a finished run's checkpoints are removed"
    wanted = {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }
    assert {p.name for p in (folder / "adapter").iterdir()} >= wanted
    data = {p.name for p in (workspace / "data" / "dataset" / "sherlock-embedded").iterdir()}
    assert data >= {"train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json", "README.md"}
    stages = json.loads((folder / "run.json").read_text())["stages"]
    assert {name: stages[name]["status"] for name in ("fine_tune", "evaluation")} == {
        "fine_tune": "done",
        "evaluation": "done",
    }
    assert json.loads((folder / "training_loss.json").read_text())["total_steps"] == 6
    report = json.loads((folder / "evaluation_report.json").read_text())
    assert set(report["systems"]) == {"base", "tuned"}
    assert report["stories"] == ["the-adventure-of-the-night-mail", "the-adventure-of-the-silent-bell"]
    predictions = (folder / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == len({json.loads(line)["id"] for line in predictions})
    assert set(json.loads(predictions[0])["answers"]) == {"base", "tuned"}
    assert (folder / "figures" / "dashboard.png").read_bytes().startswith(b"\x89PNG")

    before = snapshot(workspace)
    again = finished(pipeline(workspace, tmp_path, "--max-steps", 6, "--epochs", 1))
    parts = again.split("=== ")[1:]
    assert [part.split()[0] for part in parts] == list(STAGES)
    for part, skipped in zip(parts, SKIPPED, strict=False):
        assert skipped in part
    assert "up to date" in parts[4]
    assert snapshot(workspace) == before


@pytest.mark.slow
def test_killed_in_training_and_started_again_the_adapter_is_that_of_an_unbroken_run(tmp_path):
    base, corpus = toy_base(tmp_path / "toy"), toy_corpus(tmp_path / "texts")
    flags = [
        "--model",
        base,
        "--corpus",
        "texts",
        "--run",
        "r",
        "--max-steps",
        60,
        "--evals",
        6,
        "--lr",
        5e-3,
    ]
    assert corpus.parent == tmp_path
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(pipeline(whole, tmp_path, *flags))

    process = pipeline(broken, tmp_path, *flags)
    checkpoints = broken / "result" / "r" / "checkpoints"
    end = time.monotonic() + 1800
    while not list(checkpoints.glob("checkpoint-*/complete.json")):
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the power goes
    process.communicate()
    assert not (broken / "result" / "r" / "adapter").exists()

    out = finished(pipeline(broken, tmp_path, *flags))
    assert "on from" in out.split("=== fine_tune.py")[1].split("===")[0]
    adapter = Path("result/r/adapter/adapter_model.safetensors")
    assert (broken / adapter).read_bytes() == (whole / adapter).read_bytes()
    reports = [
        json.loads((w / "result" / "r" / "evaluation_report.json").read_text()) for w in (whole, broken)
    ]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    shutil.rmtree(whole)
