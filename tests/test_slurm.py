"""run_persona.sh under a real SLURM: two nodes on this machine (tests/slurm/cluster.sh)."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import ROOT, environment, toy_base, toy_corpus, warm

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
STEPS = ("--max-steps", 100, "--evals", 10)
"""More than a minute of training, so that a time limit of one minute meets it."""


class Slurm:
    """Jobs of this test's own cluster."""

    def __init__(self, config: str):
        self.config = config

    def __call__(self, *words: object, **extra: str) -> str:
        env = environment(Path("/nowhere"), SLURM_CONF=self.config, **extra)
        done = subprocess.run(list(map(str, words)), env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def submit(self, folder: Path, workspace: Path, words: tuple, flags: tuple, **extra: str) -> int:
        """sbatch run_persona.sh from `folder`, with this cluster's partition and no GPU."""
        own = {"PERSONA_PYTHON": sys.executable, "PERSONA_WORKSPACE": str(workspace)}
        options = ("--parsable", f"--chdir={folder}", "--partition=test", "--gres=none", *words)
        return int(self("sbatch", *options, ROOT / "run_persona.sh", *flags, **own, **extra))

    def facts(self, job: int) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self("scontrol", "show", "job", job)))

    def wait(self, job: int, log: Path, seen: Callable[[dict], bool], seconds: float = 900) -> dict[str, str]:
        """The job's facts once `seen` says yes to them; fails when the job does."""
        end = time.monotonic() + seconds
        while not seen(facts := self.facts(job)):
            said = log.read_text()[-3000:] if log.is_file() else "no log"
            state = facts["JobState"]
            assert state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), (state, said)
            assert time.monotonic() < end, (facts, said)
            time.sleep(0.5)
        return facts

    def start_again_now(self, job: int, log: Path, *changes: str) -> None:
        """Let a requeued job start in a moment: SLURM keeps it back for two minutes.

        Not in the same second: slurmd refuses what was allowed before the end of the job's last start.
        """
        self.wait(job, log, lambda facts: facts["JobState"] == "PENDING")
        self("scontrol", "update", f"JobId={job}", "StartTime=now+3", *changes)

    def cancel(self, job: int, log: Path) -> None:
        """scancel, which a job must not answer by requeueing itself as it does before the time limit."""
        before = self.facts(job)["Restarts"]
        self("scancel", job)
        facts = self.wait(job, log, lambda facts: facts["JobState"] == "CANCELLED")
        assert facts["Restarts"] == before


# --- the commands, by stand-ins for Python and SLURM -----------------------------------------------------

PYTHON = """#!/usr/bin/env bash
[ "$1" = fine_tune.py ] || [ "$2" = accelerate.commands.accelerate_cli ] && echo "$@" >>"$LOG"
exit 0
"""
SRUN = """#!/usr/bin/env bash
echo "srun ${*:1:5}" >>"$LOG"
shift 5
SLURM_NODEID=1 SLURM_LAUNCH_NODE_IPADDR=10.0.0.1 exec "$@"
"""


def command_lines(folder: Path, *flags: str, **extra: str) -> list[str]:
    """What run_persona.sh starts for the training: srun's options, then the words that Python gets."""
    stand_ins = {
        "python": PYTHON,
        "srun": SRUN,
        "scontrol": f"#!/bin/sh\necho ' Command={ROOT}/run_persona.sh'\n",
    }
    for name, text in stand_ins.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    own = {"PERSONA_PYTHON": str(folder / "python"), "LOG": str(folder / "log")}
    env = environment(folder / "workspace") | own | {"PATH": f"{folder}:{os.environ['PATH']}"} | extra
    words = ["bash", str(ROOT / "run_persona.sh"), *flags]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "log").read_text().splitlines()


LAUNCH = "-m accelerate.commands.accelerate_cli launch"


def test_one_gpu_needs_no_launcher(tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1"}
    assert command_lines(tmp_path, "--max-steps", "5", **job) == ["fine_tune.py --max-steps 5"]


def test_several_gpus_of_one_node_train_under_one_launcher(tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "4"}
    shape = "--num_processes 4 --num_machines 1 --main_process_port 20007"
    assert command_lines(tmp_path, "--max-steps", "5", **job) == [
        f"{LAUNCH} --config_file configs/ddp.yaml {shape} fine_tune.py --max-steps 5"
    ]


def test_without_slurm_the_number_of_processes_and_the_configuration_are_the_users(tmp_path):
    own = {"PERSONA_PROCESSES": "2", "PERSONA_ACCELERATE": "configs/fsdp2_qlora.yaml"}
    assert command_lines(tmp_path, **own) == [
        f"{LAUNCH} --config_file configs/fsdp2_qlora.yaml --num_processes 2 --num_machines 1 fine_tune.py"
    ]


def test_srun_starts_a_launcher_on_each_node_that_knows_its_rank_and_the_first_node(tmp_path):
    job = {
        "SLURM_JOB_ID": "20007",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "16",
    }
    node = "--machine_rank 1 --main_process_ip 10.0.0.1"
    shape = "--num_processes 8 --num_machines 2 --main_process_port 20007"
    assert command_lines(tmp_path, "--max-steps", "5", **job) == [
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1",
        f"{LAUNCH} {node} --config_file configs/ddp.yaml {shape} fine_tune.py --max-steps 5",
    ]


# --- a cluster ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("a SLURM cluster of its own needs root")
    installed = subprocess.run(["bash", CLUSTER, "install"], capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"SLURM's packages cannot be installed: {installed.stderr.strip()[-300:]}")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(["bash", CLUSTER, "start", folder], capture_output=True, text=True, timeout=120)
    assert started.returncode == 0, started.stderr
    yield Slurm(started.stdout.strip().splitlines()[-1])
    subprocess.run(["bash", CLUSTER, "stop", folder], check=True, timeout=120)


def adapter(workspace: Path, run: str) -> Path:
    return workspace / "result" / run / "adapter" / "adapter_model.safetensors"


def trained(workspace: Path, run: str) -> bool:
    path = workspace / "result" / run / "run.json"
    if not path.is_file():
        return False
    return json.loads(path.read_text())["stages"].get("fine_tune", {}).get("status") == "done"


@pytest.fixture(scope="module")
def whole(slurm, tmp_path_factory) -> tuple[Path, Path, int]:
    """(workspace, folder, job): the embedded defaults by sbatch, undisturbed."""
    folder = tmp_path_factory.mktemp("submitted-here")
    workspace = folder / "workspace"
    job = slurm.submit(folder, workspace, (), ("--run", "whole", *STEPS))
    slurm.wait(job, folder / f"persona-{job}.log", lambda facts: facts["JobState"] == "COMPLETED")
    return workspace, folder, job


@pytest.mark.slow
def test_a_job_makes_everything_and_its_log_lies_where_it_was_submitted(slurm, whole):
    workspace, folder, job = whole
    facts = slurm.facts(job)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "0")
    assert (facts["MinMemoryNode"], facts["CPUs/Task"] if "CPUs/Task" in facts else facts["Task"]) == (
        "32G",
        "4",
    ), "the script's own lines hold where the command line says nothing else"
    log = (folder / f"persona-{job}.log").read_text()
    stages = ("generate_dataset.py", "fine_tune.py", "extract_loss.py", "evaluation.py", "visual.py")
    assert re.findall(r"^=== (\S+)$", log, re.MULTILINE) == list(stages)
    run = workspace / "result" / "whole"
    assert adapter(workspace, "whole").is_file()
    assert json.loads((run / "evaluation_report.json").read_text())["systems"].keys() >= {"base", "tuned"}
    assert not (run / "checkpoints").exists(), "a finished run's checkpoints are removed"


@pytest.mark.slow
def test_a_time_limit_too_short_means_checkpoint_requeue_and_the_same_adapter(slurm, whole):
    workspace, folder, _ = whole
    words = ("--time=1", "--signal=B:TERM@1")  # TERM comes after 30 to 60 seconds
    job = slurm.submit(folder, workspace, words, ("--run", "broken", *STEPS))
    log = folder / f"persona-{job}.log"
    for start in range(1, 5):
        slurm.wait(job, log, lambda facts, n=start: facts["Restarts"] == str(n))
        text = log.read_text()
        assert text.count(f"requeueing job {job}") == start
        if "SIGTERM: saving at the end of this step" in text:
            break
        assert not trained(workspace, "broken"), "training was over before the time limit: give it more steps"
        # the limit met the start-up: this machine is slow
        slurm.start_again_now(job, log, f"TimeLimit={start + 1}")
    stopped = int(re.findall(r"stopped at step (\d+) of 100: start again to go on", text)[-1])
    assert 0 < stopped < 100
    slurm.start_again_now(job, log, "TimeLimit=60")
    slurm.wait(job, log, lambda facts: trained(workspace, "broken"))
    assert f"/checkpoint-{stopped}\n" in log.read_text().rpartition("=== fine_tune.py")[2], (
        "it went on from there"
    )
    assert adapter(workspace, "broken").read_bytes() == adapter(workspace, "whole").read_bytes()
    slurm.cancel(job, log)  # the stages after the training are those of the other test


@pytest.mark.slow
def test_training_over_two_nodes_stops_on_term_and_goes_on_to_one_processs_weights(slurm, tmp_path):
    from safetensors.torch import load_file

    base, corpus = toy_base(tmp_path / "toy"), toy_corpus(tmp_path / "texts")
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--model", base, "--corpus", corpus, "--run", "r", "--lora-dropout", 0, "--micro-batch", 4)
    flags += ("--max-steps", 120, "--evals", 40, "--lr", 5e-3, "--patience", 0, "--eval-rows", 4)
    words = ("--nodes=2", "--cpus-per-task=1", "--mem=1G")
    job = slurm.submit(tmp_path, two, words, flags, PERSONA_PROCESSES="1", OMP_NUM_THREADS="1")
    log = tmp_path / f"persona-{job}.log"
    kept = two / "result" / "r" / "checkpoints"
    slurm.wait(job, log, lambda _: bool(list(kept.glob("checkpoint-*/complete.json"))))
    slurm("scancel", "--batch", "--signal=TERM", job)
    slurm.wait(job, log, lambda facts: facts["Restarts"] == "1")
    text = log.read_text()
    assert "SIGTERM: saving at the end of this step" in text
    assert text.count("stopped at step") == 1, "one process talks, when all have saved"
    stopped = int(re.findall(r"stopped at step (\d+) of 120", text)[-1])
    slurm.start_again_now(job, log)
    slurm.wait(job, log, lambda _: trained(two, "r"))
    slurm.cancel(job, log)
    assert re.search(rf"on from \S+/checkpoint-{stopped}$", log.read_text(), re.MULTILINE)

    shutil.copytree(two / "data", one / "data")
    done = warm(one, "fine_tune.py", *flags)
    assert done.code == 0, done.err
    theirs, ours = load_file(adapter(two, "r")), load_file(adapter(one, "r"))
    for name, weight in ours.items():
        assert math.isclose((theirs[name] - weight).abs().max().item(), 0, abs_tol=1e-4), name
