"""benchmarks/train.py: its arithmetic by hand, its parts on toy models."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import config
from tests import scripts

sys.path.insert(0, str(config.ROOT / "benchmarks"))

from training import curves, plain_text, timing

MESSAGES = [
    {"role": "system", "content": "You are Holmes."},
    {"role": "user", "content": "Who came?"},
    {"role": "assistant", "content": "A sailor."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Nobody."},
]


def test_plain_text_names_the_speakers_and_leaves_the_system_turn_out():
    text, spans = plain_text.as_plain_text(MESSAGES, "Holmes")
    assert text == "Human: Who came?\n\nHolmes: A sailor.\n\nHuman: And then?\n\nHolmes: Nobody."
    assert [text[a:b] for a, b in spans] == ["A sailor.", "Nobody."]


CURVE = [(0.0, 4.0), (10.0, 3.0), (20.0, 3.2), (30.0, 2.6)]


def test_seconds_to_a_loss_lie_on_the_line_between_two_checkpoints():
    assert curves.seconds_to(CURVE, 4.5) == 0.0, "the base has it already"
    assert curves.seconds_to(CURVE, 3.25) == pytest.approx(7.5)
    assert curves.seconds_to(CURVE, 3.0) == pytest.approx(10.0)
    assert curves.seconds_to(CURVE, 2.9) == pytest.approx(25.0)
    assert curves.seconds_to(CURVE, 2.6) == pytest.approx(30.0)
    assert curves.seconds_to(CURVE, 2.5) is None


def test_loss_at_a_time_lies_on_the_line_and_stays_at_the_ends():
    assert [curves.loss_at(CURVE, t) for t in (-1, 0, 99)] == [4.0, 4.0, 2.6]
    assert curves.loss_at(CURVE, 5) == pytest.approx(3.5)
    assert curves.loss_at(CURVE, 15) == pytest.approx(3.1)


def test_batches_are_counted_with_and_without_padding():
    torch = pytest.importorskip("torch")
    padded = {
        "input_ids": torch.zeros(2, 5, dtype=torch.long),
        "labels": torch.tensor([[-100, -100, 3, 4, 5], [-100, 6, -100, -100, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }
    assert timing.batch_counts(padded) == {"rows": 2, "tokens": 7, "computed": 10, "learned": 4}
    shared = {  # a beginning of 3, then rows of 2, 1 and 4 more
        "input_ids": torch.zeros(1, 10, dtype=torch.long),
        "labels": torch.tensor([[-100] * 4 + [1, 2] + [-100] * 4]),
        "row_borders": torch.tensor([3, 5, 6, 10]),
    }
    assert timing.batch_counts(shared) == {"rows": 3, "tokens": 16, "computed": 10, "learned": 2}


def test_steps_and_parts_of_the_start_are_read_from_their_file(tmp_path):
    lines = [
        {"part": "tokenizer and rows", "begin": 104.0},
        {"part": "base", "begin": 106.5},
        {"step": 0, "begin": 110.0, "tokens": 7},
        {"step": 1, "begin": 112.0, "tokens": 8},
        {"begin": 115.0},
    ]
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(s["tokens"], s["seconds"]) for s in timing.read_steps(path)] == [(7, 2.0), (8, 3.0)]
    found = timing.startup_of(path, 100.0)
    assert found == {"imports": 4.0, "tokenizer and rows": 2.5, "base and trainer": 3.5}


SMALL = SimpleNamespace(
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=8,
    vocab_size=10,
)


def test_floating_point_operations_by_hand():
    from training import large

    # q, o: 16 each; k, v: 8 each; gate, up, down: 32 each
    frozen = 4 * (16 + 16 + 8 + 8 + 3 * 32)
    attention = 12 * 4 * 6 / 2
    head = 4 * 0.5 * 4 * 10
    assert large.flops_a_token(SMALL, trainable=5, length=6, learned=0.5) == frozen + 30 + attention + head
    # q, o: 4 + 4; k, v: 4 + 2; gate, up, down: 4 + 8
    assert large.trainable_parameters(SMALL, rank=3) == 3 * (8 + 8 + 6 + 6 + 12 + 12 + 12)


def test_the_7b_has_the_published_sizes():
    from training import large, random_weights

    seven = SimpleNamespace(**random_weights.QWEN2_5_7B)
    assert large.trainable_parameters(seven) == 40_370_176, "as peft counts for r 16 on Qwen2.5-7B"
    gflop = large.flops_a_token(seven, 40_370_176, length=0, learned=1) / 1e9
    assert gflop == pytest.approx(4 * (6.525 + 0.545) + 6 * 0.0404, rel=1e-3)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder of the 7B's kind, two layers, with the embedded tokenizer and no weights."""
    pytest.importorskip("bitsandbytes")
    from training import random_weights

    path = random_weights.write_folder(tmp_path / "model", scripts.TINY_BASE, layers=2, hidden=64)
    settings = json.loads((path / "config.json").read_text())
    small = {"vocab_size": 6144, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    (path / "config.json").write_text(json.dumps(settings | small))
    return path


def test_random_weights_are_in_nf4_and_learn(folder):
    import bitsandbytes
    import torch
    from training import random_weights

    from persona import footprint

    model = random_weights.build(folder, "cpu", torch.float32)
    assert not [name for name, p in (*model.named_parameters(), *model.named_buffers()) if p.is_meta]
    linear = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(linear) == 2 * 7, "all linear layers but the head"
    assert all(m.weight.quant_state.nested for m in linear), "double quantisation"
    weight = bitsandbytes.functional.dequantize_4bit(linear[0].weight.data, linear[0].weight.quant_state)
    assert weight.shape == (64, 64)
    assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
    again = random_weights.build(folder, "cpu", torch.float32)
    ids = torch.arange(5, 25)[None]
    logits = model(ids).logits
    torch.testing.assert_close(logits, again(ids).logits, rtol=0, atol=0)

    moved = footprint.keep_embeddings_on_cpu(again)
    torch.testing.assert_close(moved(ids).logits, logits, rtol=0, atol=0)


def test_low_memory_embeddings_stay_on_the_cpu_and_give_their_rows_to_the_device(folder):
    import torch
    from training import random_weights

    from persona import footprint

    model = footprint.keep_embeddings_on_cpu(random_weights.build(folder, "cpu", torch.float32))
    table = model.get_input_embeddings()
    row = table.weight[7].clone()
    assert torch.equal(table(torch.tensor([[7]]))[0, 0], row)
    assert not list(table.parameters()), "nothing that a trainer could move or train"
    table.to("meta")  # stands for a GPU: shapes alone
    assert table.weight.device.type == "cpu"
    table.device = torch.device("meta")
    assert table(torch.tensor([[7, 8]])).device.type == "meta"


def test_held_out_loss_is_of_the_answers_words(tmp_path):
    torch = pytest.importorskip("torch")
    from training import held_out
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = scripts.toy_base(tmp_path / "base")
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base).eval()
    args = held_out.Args(tmp_path, tmp_path, tmp_path, speaker="Holmes")
    for how in ("chat", "text"):
        row = held_out.encoded(tokenizer, [{"messages": MESSAGES}], how, args)[0]
        words = tokenizer.decode(
            [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label >= 0]
        )
        assert "".join(words.split()) == "Asailor.Nobody.", "neither prompts nor the end of turn"
        ids = torch.tensor(row["input_ids"])
        with torch.no_grad():
            likely = model(ids[None]).logits[0].log_softmax(-1)
        by_hand = -sum(float(likely[i - 1, t]) for i, t in enumerate(row["labels"]) if t >= 0)
        assert held_out.nats(model, [row, row]) == pytest.approx([by_hand, by_hand], rel=1e-5)
    short = dataclasses.replace(args, max_length=8)
    assert held_out.encoded(tokenizer, [{"messages": MESSAGES}], "chat", short) == [None]


def test_a_run_is_watched_and_its_checkpoints_kept(tmp_path):
    from training.watching import watched

    script = tmp_path / "train.py"
    script.write_text(
        "import pathlib, shutil, sys, time\n"
        "for step in (2, 10):\n"
        "    folder = pathlib.Path(sys.argv[1]) / f'checkpoint-{step}'\n"
        "    folder.mkdir(parents=True)\n"
        "    for name in ('adapter_config.json', 'adapter_model.safetensors', 'last'):\n"
        "        (folder / name).write_text(str(step))\n"
        "    time.sleep(0.4)\n"
        "    shutil.rmtree(folder)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    kept, log = tmp_path / "kept", tmp_path / "log"
    ran = watched([str(script), str(tmp_path / "run"), "0"], tmp_path / "run", "last", kept, log, 60, None)
    assert ran.finished
    assert [c["step"] for c in ran.checkpoints] == [2, 10]
    assert [(Path(c["adapter"]) / "adapter_config.json").read_text() for c in ran.checkpoints] == ["2", "10"]
    assert 0 < ran.checkpoints[0]["seconds"] < ran.checkpoints[1]["seconds"] < ran.seconds
    cut = watched([str(script), str(tmp_path / "cut"), "60"], tmp_path / "cut", "last", kept, log, 2, None)
    assert not cut.finished
    assert cut.seconds < 10
    script.write_text("raise SystemExit('no such thing')")
    with pytest.raises(config.UserError, match="no such thing"):
        watched([str(script)], tmp_path / "run", "last", kept, log, 60, None)


def test_a_run_that_was_cut_short_is_compared_where_it_stopped():
    spec = importlib.util.spec_from_file_location("train_benchmark", config.ROOT / "benchmarks" / "train.py")
    train = importlib.util.module_from_spec(spec)
    sys.modules["train_benchmark"] = train
    spec.loader.exec_module(train)
    ran = {
        "c": {"curve": [(0.0, 4.0), (10.0, 3.0)], "nats": [8.0, 22.0]},
        "a": {"curve": [(0.0, 4.2), (20.0, 3.5)], "nats": [11.0, 24.0]},
        "b": {"curve": [(0.0, 4.0), (30.0, 2.9)], "nats": [7.0, 22.0]},
    }
    tokens = [4, 6]
    found = train.compared(ran, tokens)
    assert found["a"]["difference"]["value"] == pytest.approx(-0.5)
    low, high = found["a"]["difference"]["ci95"]
    assert low <= -0.5 <= high < 0
    assert found["b"]["difference"]["value"] == pytest.approx(0.1)
    assert found["a"]["ours_seconds_to_that_loss"] == pytest.approx(5.0)
    assert found["a"]["times_faster"] == pytest.approx(4.0)
    assert found["a"]["times_faster_to_the_end"] == pytest.approx(2.0)
    assert found["a"]["loss_when_ours_ended"] == pytest.approx(3.85)
    assert found["b"]["times_faster"] is None, "ours never came down to it"
    ran["a"]["curve"][-1] = (20.0, 4.1)
    assert train.compared(ran, tokens)["a"]["times_faster"] == pytest.approx(2.0), (
        "not before the first checkpoint"
    )


def test_help_answers_without_torch(tmp_path):
    for name in ("train.py", "training/baseline.py", "training/ours.py", "training/held_out.py"):
        done = scripts.run(tmp_path, f"benchmarks/{name}", "--help", patch=scripts.WITHOUT_TORCH)
        assert done.code == 0, done.err


@pytest.mark.slow
def test_the_comparison_runs_by_one_command(tmp_path):
    base, data = scripts.toy_base(tmp_path / "base"), scripts.toy_data(tmp_path / "ws")
    done = scripts.run(
        tmp_path / "ws", "benchmarks/train.py", "--data", data, "--model", base, "--rows", 16,
        "--scored", 2, "--without-steps", 3,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "ws" / "result" / "benchmarks" / "train.json").read_text())
    assert found["rows"] == {"train": 16, "validation": 2}
    for name, facts in found["systems"].items():
        assert facts["finished"], name
        assert [c["step"] for c in facts["checkpoints"]] == [1, 2]
        assert len(facts["curve"]) == 3
    assert found["systems"]["b"]["curve"][0][1] == found["systems"]["c"]["curve"][0][1], "the same base"
    assert not [f for f in found["without"].values() if "left_out" in f]
    computed = {name: f["computed_a_step"] for name, f in found["without"].items()}
    assert computed["shared-prefix"] > computed["nothing"]
    assert "(c) ours" in done.out
    assert "start-up to the first step" in done.out
