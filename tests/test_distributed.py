"""Training by several processes: two (CPU, gloo) reach what one reaches, stop together, change in number."""

import json
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from scripts import ROOT, SIGNAL_AT_STEP, Done, run, toy_base, toy_data, warm

from persona import processes
from persona.errors import UserError

STEPS, EVERY = 12, 3
FLAGS = (
    "--corpus", "embedded", "--run", "r", "--max-steps", STEPS, "--evals", STEPS // EVERY, "--lr", 5e-3,
    "--micro-batch", 4, "--warmup-steps", 2, "--lora-dropout", 0,
)  # fmt: skip
EXACT = {"PERSONA_DTYPE": "float32"}
"""What is summed in another order comes out the same to 1e-5; in bf16 it rounds to something else."""
TERM_FOR_THE_SECOND = """
import os, transformers

step = transformers.Trainer.training_step

def training_step(self, *args, **kwargs):
    if self.state.global_step == 4 and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), 15)
    return step(self, *args, **kwargs)

transformers.Trainer.training_step = training_step
"""
"""A patch: one process alone gets SIGTERM, in the fifth step."""
SHARD_ON_CPUS = """
import os

if os.environ.get("RANK"):
    import accelerate.state, transformers
    from accelerate.utils import DistributedType
    from torch.distributed.tensor import DTensor

    start, step = accelerate.state.PartialState.__init__, transformers.Trainer.training_step

    def started(self, *args, **kwargs):
        start(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    def training_step(self, model, *args, **kwargs):
        assert all(isinstance(p, DTensor) for p in model.parameters()), "the weights lie in shards"
        if self.state.global_step == {kill_at}:
            os.kill(os.getpid(), 9)
        return step(self, model, *args, **kwargs)

    accelerate.state.PartialState.__init__ = started
    transformers.Trainer.training_step = training_step
"""
"""A patch: accelerate shards on GPUs alone, so these CPUs pass for some; in step `kill_at` they die."""


@pytest.mark.parametrize(
    ("n", "batch", "micro", "expected"),
    [(1, 8, 8, (8, 1)), (1, 8, 2, (2, 4)), (2, 8, 8, (4, 1)), (2, 8, 2, (2, 2)), (8, 8, 4, (1, 1))],
)
def test_a_step_has_the_same_rows_however_many_processes_share_them(n, batch, micro, expected, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(n))
    assert processes.rows_at_a_time(batch, micro) == expected
    assert n * expected[0] * expected[1] == batch


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"^--batch-size 8 is not a multiple of --micro-batch 3$"):
        processes.rows_at_a_time(8, 3)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(
        UserError, match="--batch-size 8 is not a multiple of 3 processes with --micro-batch 2"
    ):
        processes.rows_at_a_time(8, 4)


def test_one_process_is_the_main_one_and_asks_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.count(), processes.is_main()) == (1, True)
    assert processes.any_of(True) is True and processes.any_of(False) is False
    assert processes.from_main(lambda: 57) == 57
    processes.wait_for_all()


# --- two processes --------------------------------------------------------------------------------------


def two(workspace: Path, base: Path, patch: str = "", config: str = "ddp") -> Done:
    """fine_tune.py as `accelerate launch` starts it, in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch")
    options = ("--config_file", ROOT / "configs" / f"{config}.yaml", "--num_processes", 2)
    words = (*launcher, *options, "--main_process_port", port, ROOT / "fine_tune.py", "--model", base, *FLAGS)
    return run(workspace, *words, patch=patch, **EXACT)


def one(workspace: Path, base: Path, patch: str = "") -> Done:
    return warm(workspace, "fine_tune.py", "--model", base, *FLAGS, patch=patch, **EXACT)


def weights(workspace: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(workspace / "result" / "r" / "adapter" / "adapter_model.safetensors")


def furthest(a: dict, b: dict) -> float:
    """The largest difference between two adapters' weights."""
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def losses(workspace: Path) -> list[tuple]:
    history = json.loads((workspace / "result" / "r" / "trainer_state.json").read_text())["log_history"]
    return [(e["step"], e.get("loss", e.get("eval_loss"))) for e in history if {"loss", "eval_loss"} & {*e}]


def going_on_from(done: Done) -> int:
    return int(re.search(r"\bon from \S+/checkpoint-(\d+)$", done.out, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base") / "toy")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, base) -> Path:
    """The workspace of one process' undisturbed run."""
    workspace = tmp_path_factory.mktemp("alone") / "workspace"
    toy_data(workspace)
    done = one(workspace, base)
    assert done.code == 0, done.err
    return workspace


@pytest.fixture
def workspace(tmp_path) -> Path:
    toy_data(tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.mark.slow
def test_two_processes_reach_the_losses_and_weights_of_one_with_the_same_batch(workspace, base, alone):
    """Rows differ in length: a mean of the processes' means would not be the mean over tokens."""
    done = two(workspace, base)
    assert done.code == 0, done.err
    ours, theirs = losses(alone), losses(workspace)
    assert [step for step, _ in theirs] == [step for step, _ in ours]
    assert [loss for _, loss in theirs] == pytest.approx([loss for _, loss in ours], abs=1e-5)
    assert furthest(weights(workspace), weights(alone)) < 1e-5
    assert max(w.abs().max().item() for w in weights(alone).values()) > 0.1, "weights have moved"

    assert done.out.count("adapter written to") == 1, "one process talks"
    run_folder = workspace / "result" / "r"
    assert not list(run_folder.rglob("*.tmp"))
    checkpoint = run_folder / "checkpoints" / f"checkpoint-{STEPS}"
    sealed = json.loads((checkpoint / "complete.json").read_text())["sha256"]
    assert {"rng_state_0.pth", "rng_state_1.pth"} < sealed.keys(), "sealed when both had written"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_one_step_and_one_process_goes_on(workspace, base, alone):
    stopped = two(workspace, base, patch=TERM_FOR_THE_SECOND)
    assert stopped.code != 0
    assert stopped.err.count("SIGTERM: saving at the end of this step") == 1
    assert f"stopped at step 5 of {STEPS}: start again to go on" in stopped.err
    done = one(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == 5
    assert furthest(weights(workspace), weights(alone)) < 1e-5


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(workspace, base, alone):
    killed = one(workspace, base, patch=SIGNAL_AT_STEP.format(step=7, signal=signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    done = two(workspace, base)
    assert done.code == 0, done.err
    assert going_on_from(done) == 6
    assert furthest(weights(workspace), weights(alone)) < 1e-5


@pytest.mark.slow
def test_fsdp2_shards_reach_one_processs_weights_and_go_on_after_a_kill(workspace, base, alone):
    killed = two(workspace, base, patch=SHARD_ON_CPUS.format(kill_at=7), config="fsdp2_qlora")
    assert killed.code != 0
    assert "AssertionError" not in killed.err, killed.err
    done = two(workspace, base, patch=SHARD_ON_CPUS.format(kill_at=-1), config="fsdp2_qlora")
    assert done.code == 0, done.err
    assert going_on_from(done) == 6
    assert losses(workspace) == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in losses(alone)]
    assert furthest(weights(workspace), weights(alone)) < 1e-5
