"""The recipe of the embedded base model: from text files to a model that speaks, killed half-way."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import config

RECIPE = config.ROOT / "data" / "tiny-base" / "train_base.py"
STEPS, EVERY = 20, 10
FLAGS = [
    *("--vocab-size", "2048", "--steps", str(STEPS), "--decay-steps", "12", "--warmup-steps", "4"),
    *("--checkpoint-steps", str(EVERY), "--lr", "4e-3", "--muon-lr", "4e-3"),
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Stories and assistant rows of the project, two stories and thirty rows held out."""
    folder = tmp_path_factory.mktemp("texts")
    stories = sorted((config.CORPORA / "embedded").glob("*.txt"))
    rows = (RECIPE.parent / "assistant.jsonl").read_text(encoding="utf-8").splitlines()
    for path in stories[2:]:
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "chat.jsonl").write_text("\n".join(rows[30:]), encoding="utf-8")
    held = [{"text": path.read_text(encoding="utf-8")} for path in stories[:2]]
    talk = [{**json.loads(row), "source": "assistant"} for row in rows[:30]]
    for name, found in (("heldout-prose", held), ("heldout-chat", talk)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return folder


def command(texts: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, str(RECIPE), "--data", str(texts), "--out", str(out), *FLAGS, *more]


def train(texts: Path, out: Path, *more: str) -> dict:
    done = subprocess.run(command(texts, out, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((out / "figures.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_clean_run_learns_speaks_and_after_a_kill_ends_with_the_same_bytes(texts, tmp_path):
    figures = train(texts, tmp_path / "whole")
    # whole rows: each of three kinds may be less than one over
    assert 0 <= figures["tokens"] - STEPS * 8 * 1024 < 3 * 1024
    log = [json.loads(line) for line in (tmp_path / "whole" / "training_log.jsonl").open()]
    assert [entry["step"] for entry in log] == [10, 20]
    assert log[-1]["loss"] < log[0]["loss"] < 7.6  # ln 2048: knows nothing
    held = figures["heldout_bits_per_byte"]
    assert set(held) == {"heldout-prose", "heldout-chat"}
    # English needs about 4.1 bits a byte where letters are guessed by their frequency alone
    assert held["heldout-prose"]["all"] < 3.6 and held["heldout-chat"]["assistant"] < 3.6

    killed = tmp_path / "killed"
    process = subprocess.Popen(command(texts, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not (killed / "checkpoint.pt").is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "model.safetensors").exists()
    train(texts, killed)
    model = "model.safetensors"
    assert (killed / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(killed)
    assert (tokenizer.pad_token_id, tokenizer.eos_token, len(tokenizer)) == (0, "<|im_end|>", 2048)
    loaded = AutoModelForCausalLM.from_pretrained(killed)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = loaded.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(texts, tmp_path):
    """The same rows, their gradients added up in another order (in bf16 that rounds to something else); in
    many steps the second process has none."""
    import torch
    from safetensors.torch import load_file

    small = ("--layers", "2", "--hidden", "64", "--heads", "2", "--intermediate", "128", "--context", "256")
    small += ("--micro-batch", "8", "--dtype", "float32")
    train(texts, tmp_path / "one", *small)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *command(texts, tmp_path / "two", *small)[1:]],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0.02, atol=0.02)


@pytest.fixture
def batches(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE.parent))
    import base_batches

    return base_batches


def test_a_step_holds_whole_rows_of_like_length_none_twice_before_all_came(batches):
    rng = np.random.default_rng(0)
    rows = {
        kind: [np.full(rng.integers(longest // 4, longest + 1), at) for at in range(count)]
        for kind, count, longest in (("prose", 100, 256), ("talk", 400, 128), ("assistant", 5, 32))
    }
    args = argparse.Namespace(
        steps=40, decay_steps=20, seed=3, batch=8, context=256, micro_batch=2,
        talk_share=0.4, talk_share_decay=0.5, assistant_share=0.1,
    )  # fmt: skip
    steps = batches.plan(args, rows)
    assert len(steps) == 40
    parts = [part for step in steps for part in step]
    places = [len(part) * max(map(len, part)) for part in parts]
    assert max(places) <= 2 * 256
    tokens = sum(batches.predicted(step) for step in steps)
    assert 0 <= tokens - 40 * 8 * 256 < 3 * 256
    assert sum(places) < 1.1 * tokens
    seen = {kind: Counter() for kind in rows}
    of_kind = {id(row): kind for kind, found in rows.items() for row in found}
    for part in parts:
        for row in part:
            seen[of_kind[id(row)]][int(row[0])] += 1
    for kind, counted in seen.items():
        assert len(counted) == len(rows[kind]), kind
        assert max(counted.values()) - min(counted.values()) <= 1, kind
    again = batches.plan(args, rows)
    assert [[id(row) for part in step for row in part] for step in again] == [
        [id(row) for part in step for row in part] for step in steps
    ]
    args.talk_share = args.talk_share_decay = 0.9
    assert set(batches.kinds(args)) == {"prose", "talk", "assistant"}  # prose until the learning rate falls
    args.talk_share = args.talk_share_decay = args.assistant_share = 0.0
    assert batches.kinds(args) == ["prose"]
    assert len(batches.plan(args, {"prose": rows["prose"]})) == 40
    wide = batches.padded(parts[0])
    assert [row[row != -100].tolist() for row in wide] == [row.tolist() for row in parts[0]]


def test_a_setting_that_is_no_number_is_refused_by_its_flag(texts, tmp_path):
    done = subprocess.run(command(texts, tmp_path, "--steps", "many"), capture_output=True, text=True)
    assert done.returncode == 2 and "Error parsing --steps" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_refused_in_one_line(texts, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "chat.jsonl").write_text((texts / "chat.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    for data, more, said in (
        (tmp_path / "nowhere", (), f"--data {tmp_path / 'nowhere'}: no such folder"),
        (texts, ("--init", str(silent)), f"--init {silent}: holds no model"),
        (silent, (), f"--data {silent}: no prose in its files"),
        (texts, ("--talk-share-decay", "0.9"), "the shares of talk and assistant rows are more than 1"),
    ):
        done = subprocess.run(command(data, tmp_path / "out", *more), capture_output=True, text=True)
        assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, said)
