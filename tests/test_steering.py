"""Steering: exactly coefficient x vector, where and when it is asked for, and never afterwards."""

import json
import math

import pytest
import torch

from persona import steering, vector_exports, vectors
from persona.activations import Turn, blocks_of, read, reply_likelihoods
from persona.chat import Sampling
from persona.errors import UserError
from persona.generation import answer_batch
from persona.steering import Addition, Steering, Wish, parse
from persona.steering_sweep import Cell, Prompt, Setting, compared, linearity, perplexity, recommend
from persona.vectors import PersonaVector

ASKED = [[{"role": "user", "content": q}] for q in ("Who are you?", "What is that on the table over there?")]
GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


@pytest.fixture
def model(tiny_tokenizer, tiny_qwen2):
    return tiny_qwen2(tiny_tokenizer)


@pytest.fixture(scope="module")
def vector() -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(5))


class Watch:
    """The outputs of one block, pass by pass."""

    def __init__(self, model, layer: int) -> None:
        self.passes: list[torch.Tensor] = []
        self.handle = blocks_of(model)[layer].register_forward_hook(self.keep)

    def keep(self, module, arguments, output) -> None:
        self.passes.append((output[0] if isinstance(output, tuple) else output).clone())


def outputs(model, layer: int, run) -> list[torch.Tensor]:
    """What a block puts out while `run` runs; hooks of an open Steering come first."""
    watch = Watch(model, layer)
    with torch.inference_mode():
        run()
    watch.handle.remove()
    return watch.passes


def hooks(model) -> int:
    return sum(len(m._forward_hooks) for m in model.modules())


def test_adds_exactly_coefficient_times_vector_at_every_token(model, vector) -> None:
    ids = torch.tensor([[5, 9, 44, 7]])
    before = outputs(model, 0, lambda: model(ids))[0]
    with Steering(model, [Addition(0, vector, 1.5)]):
        after = outputs(model, 0, lambda: model(ids))[0]
    assert torch.equal(after, before + 1.5 * vector)
    assert torch.equal(outputs(model, 0, lambda: model(ids))[0], before)
    assert hooks(model) == 0


def test_several_add_up_in_one_and_in_nested_contexts(model, vector) -> None:
    ids = torch.tensor([[5, 9]])
    other = vector.flip(0)
    before = outputs(model, 0, lambda: model(ids))[0]
    with Steering(model, [Addition(0, vector, 2.0), Addition(0, other, -1.0)]):
        together = outputs(model, 0, lambda: model(ids))[0]
    with Steering(model, [Addition(0, vector, 2.0)]), Steering(model, [Addition(0, other, -1.0)]):
        nested = outputs(model, 0, lambda: model(ids))[0]
    torch.testing.assert_close(together, before + 2 * vector - other)
    torch.testing.assert_close(nested, together)
    assert hooks(model) == 0


def test_the_hook_goes_also_after_an_error(model, vector) -> None:
    with pytest.raises(ZeroDivisionError), Steering(model, [Addition(1, vector, 1.0)]):
        assert hooks(model) == 1
        raise ZeroDivisionError
    assert hooks(model) == 0
    steered = Steering(model, [Addition(1, vector, 1.0)])
    with steered, pytest.raises(RuntimeError, match="open already"):
        steered.__enter__()
    assert hooks(model) == 0


@pytest.mark.parametrize("positions", ["all", "prompt", "response"])
def test_positions_with_cache_and_left_padded_batches(model, vector, tiny_tokenizer, positions) -> None:
    def run() -> None:
        answer_batch(model, tiny_tokenizer, ASKED, GREEDY)

    seen: list = []

    def record(module, arguments, output):
        seen.append(output if isinstance(output, torch.Tensor) else output[0])

    before = blocks_of(model)[0].register_forward_hook(record)  # sees what steering gets
    with Steering(model, [Addition(0, vector, 1.0)], positions):
        after = outputs(model, 0, run)
    before.remove()
    assert [p.shape[1] for p in after[1:]] == [1] * 5  # the cache: one token a pass after the prompt's
    longest = after[0].shape[1]
    changed = [(b - a).abs().amax(-1) > 0 for a, b in zip(seen, after, strict=True)]
    prompt = {
        "all": [True] * longest,
        "prompt": [True] * longest,
        "response": [False] * (longest - 1) + [True],
    }
    assert changed[0].tolist() == [prompt[positions]] * 2
    assert all(c.all() == (positions != "prompt") for c in changed[1:])
    torch.testing.assert_close(after[0][:, -1], seen[0][:, -1] + vector)


def test_the_cache_changes_nothing(model, vector, tiny_tokenizer) -> None:
    with Steering(model, [Addition(1, vector, 3.0)], "all"):
        ids = tiny_tokenizer("Pray take a seat.", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            cached = model(ids[:, :3], use_cache=True)
            step = model(ids[:, 3:], past_key_values=cached.past_key_values).logits[:, -1]
            whole = model(ids).logits[:, -1]
    torch.testing.assert_close(step, whole, atol=1e-4, rtol=1e-4)


def test_teacher_forced_responses_are_told_by_a_mask(model, vector, tiny_tokenizer) -> None:
    turns = [Turn([5, 9, 44, 7, 8], 3), Turn([5, 9, 6], 2)]
    with Steering(model, [Addition(0, vector, 1.0)], "response") as open_steering:
        found = reply_likelihoods(model, tiny_tokenizer, turns, 2, open_steering)
        assert open_steering.response is None
    # by hand: the first prompt token's output stays, from the last prompt token on it is moved
    where = torch.zeros(5, 1)
    where[2:] = 1

    def by_hand(module, arguments, output):
        return output + vector * where

    handle = blocks_of(model)[0].register_forward_hook(by_hand)
    with torch.inference_mode():
        logits = model(torch.tensor([turns[0].input_ids])).logits[0].log_softmax(-1)
    handle.remove()
    assert found[0] == pytest.approx(-float(logits[2, 7] + logits[3, 8]), rel=1e-4)
    alone = reply_likelihoods(model, tiny_tokenizer, turns, 2)
    assert alone[0] != pytest.approx(found[0], rel=1e-3)


def test_under_lora_and_on_a_four_bit_base(tiny_tokenizer, tiny_qwen2, vector) -> None:
    import bitsandbytes
    from peft import LoraConfig, get_peft_model

    base = tiny_qwen2(tiny_tokenizer)
    for block in base.model.layers:  # a real NF4 layer, as modeling.load_base leaves it on a GPU
        linear = block.mlp.gate_proj
        quantised = bitsandbytes.nn.Linear4bit(
            32, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32
        )
        quantised.weight = bitsandbytes.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4"
        )
        quantised.support_avx512bf16_for_cpu = False  # as modeling.load_base sets it
        block.mlp.gate_proj = quantised.to("cpu")
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    ids = torch.tensor([[5, 9, 44]])
    before = outputs(tuned, 1, lambda: tuned(ids))[0]
    with Steering(tuned, [Addition(1, vector, -2.0)]):
        after = outputs(tuned, 1, lambda: tuned(ids))[0]
    assert torch.equal(after, before - 2.0 * vector)
    assert read(tuned, [Turn([5, 9, 44], 1)], 0).shape == (1, 3, 2, 32)
    assert hooks(tuned) == 0


def test_only_in_training_and_the_same_with_activation_checkpointing(model, vector) -> None:
    ids = torch.tensor([[5, 9, 44, 7]])
    plain = model(ids, labels=ids).loss
    with Steering(model, [Addition(0, vector, 4.0)], only_in_training=True):
        assert torch.equal(model(ids, labels=ids).loss, plain)
        model.train()
        losses, gradients = [], []
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            model.zero_grad()
            loss = model(ids, labels=ids, use_cache=False).loss
            loss.backward()
            losses.append(loss.detach())
            gradients.append(model.model.layers[0].mlp.up_proj.weight.grad.clone())
    model.gradient_checkpointing_disable()
    assert not torch.isclose(losses[0], plain)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bad_settings_are_refused(model, vector) -> None:
    for additions, line in (
        ([], "nothing to steer with"),
        ([Addition(2, vector, 1.0)], "no layer 2 to steer: the model has layers 0 to 1"),
        ([Addition(0, vector[:8], 1.0)], r"shape \(8,\) does not fit a model of width 32"),
    ):
        with pytest.raises(UserError, match=line):
            Steering(model, additions)
    lonely = torch.nn.Linear(2, 2)
    lonely.config = model.config
    with pytest.raises(UserError, match="no list of 2 decoder blocks"):
        Steering(lonely, [Addition(0, vector, 1.0)])


def test_what_a_user_writes() -> None:
    assert parse("holmes=1.5, openness@4=-1") == [Wish("holmes", 1.5), Wish("openness", -1.0, 4)]
    assert parse("holmes-watson=.5") == [Wish("holmes-watson", 0.5)]
    for wrong in ("holmes", "holmes=much", "=1", "", "a=1,,b=2", "holmes@x=1"):
        with pytest.raises(UserError, match="TRAIT=COEFFICIENT"):
            parse(wrong)


def saved(folder, name: str = "holmes", layers: int = 4) -> PersonaVector:
    kinds = {"response_avg": torch.arange(float(layers * 32)).reshape(layers, 32)}
    found = PersonaVector(name, kinds, torch.ones(layers, 32), torch.zeros(8, layers, 32))
    vectors.save(found, folder / f"{name}.safetensors")
    return found


def test_the_layer_is_the_sweeps_then_the_scores_then_the_middle(tmp_path) -> None:
    vector = saved(tmp_path)

    def layer() -> int:
        return steering.additions_of(parse("holmes=2"), tmp_path)[0].layer

    assert layer() == 2
    (tmp_path / "holmes.score.json").write_text(json.dumps({"recommended": {"layer": 1}}))
    assert layer() == 1
    (tmp_path / "holmes.steer.json").write_text(json.dumps({"recommended": {}}))
    assert layer() == 1
    (tmp_path / "holmes.steer.json").write_text(json.dumps({"recommended": {"layer": 3}}))
    assert layer() == 3
    found = steering.additions_of(parse("holmes@0=2"), tmp_path)[0]
    assert (found.layer, found.coefficient) == (0, 2.0)
    assert torch.equal(found.vector, vector.direction()[0])
    with pytest.raises(UserError, match="layers 0 to 3, not 9"):
        steering.additions_of(parse("holmes@9=2"), tmp_path)
    with pytest.raises(UserError, match="no persona vector at"):
        steering.additions_of(parse("arrogance=2"), tmp_path)


def test_the_export_for_lm_eval_does_what_steering_does(model, vector, tmp_path) -> None:
    path = tmp_path / "holmes.pt"
    vector_exports.write_lm_eval(model, Addition(1, vector, 1.5), path, torch.float32, "cpu")
    stated = torch.load(path, weights_only=True)
    assert list(stated) == ["layers.1"]
    entry = stated["layers.1"]
    assert (entry["action"], entry["steering_coefficient"], entry["bias"]) == ("add", 1.5, None)
    ids = torch.tensor([[5, 9, 44]])
    block = dict(model.base_model.named_modules())["layers.1"]  # how the harness finds it
    handle = block.register_forward_hook(
        lambda m, a, out: out + entry["steering_coefficient"] * entry["steering_vector"]
    )
    harness = model(ids).logits
    handle.remove()
    with Steering(model, [Addition(1, vector, 1.5)]):
        assert torch.equal(model(ids).logits, harness)
    with pytest.raises(UserError, match=r"\.pt or \.pth"):
        vector_exports.write_lm_eval(
            model, Addition(1, vector, 1.5), tmp_path / "x.csv", torch.float32, "cpu"
        )


def test_the_export_for_llama_cpp(tmp_path) -> None:
    from gguf import GGUFReader

    vector, path = saved(tmp_path), tmp_path / "holmes.gguf"
    vector_exports.write_gguf(vector, path, "qwen2", coefficient=0.5)
    there = GGUFReader(path)
    assert [t.name for t in there.tensors] == ["direction.1", "direction.2", "direction.3"]
    assert torch.equal(torch.tensor(there.tensors[1].data), vector.direction()[2] * 0.5)
    assert there.fields["general.architecture"].contents() == "controlvector"
    assert there.fields["controlvector.model_hint"].contents() == "qwen2"
    assert there.fields["controlvector.layer_count"].contents() == 3
    with pytest.raises(UserError, match="begin at layer 1"):
        vector_exports.write_gguf(vector, path, "qwen2", [0])


def test_steered_against_unsteered_by_hand() -> None:
    ids = ["a", "b", "c", "d"]
    found = compared([1.0, 2.0, 0.0, math.nan], [0.0, 1.0, 1.0, 5.0], ids, 1.0)
    assert found["n"] == 3 and found["value"] == 1.0
    assert found["difference"]["value"] == pytest.approx(1 / 3)
    assert found["moved_wrong"] == pytest.approx(1 / 3)
    down = compared([1.0, 2.0, 0.0, math.nan], [0.0, 1.0, 1.0, 5.0], ids, -1.0)
    assert down["moved_wrong"] == pytest.approx(2 / 3)
    assert compared([math.nan], [1.0], ["a"], 1.0) is None


def cell(margin, nll: float = 2.0) -> Cell:
    return Cell(["x"] * 2, [nll, nll], [2, 2], [0.0, 0.0], [], margin)


def test_perplexity_linearity_and_the_recommended_setting() -> None:
    assert perplexity(cell([], 2.0)) == pytest.approx(math.e)  # 4 nats over 4 tokens

    def row(c: float, value: float) -> dict:
        return {"coefficient": c, "margin": {"difference": {"value": value}}}

    straight = linearity([row(-1, -0.5), row(1, 0.5), row(2, 1.0)], "margin")
    assert straight["slope"] == pytest.approx(0.5) and straight["r2"] == pytest.approx(1.0)
    assert straight["spearman"] == pytest.approx(1.0)
    assert linearity([row(1, 0.5)], "margin") is None
    base = cell([0.0, 0.0])
    cells = {
        (0, 1.0): cell([0.2, 0.1]),
        (1, 1.0): cell([0.3, -0.1]),  # chosen on the first half, told on the second
        (1, 2.0): cell([0.9, 0.9], nll=4.0),  # perplexity e^2 / e: not coherent
        (0, -1.0): cell([5.0, 5.0]),  # not an effect in the vector's direction
    }
    assert recommend(None, base, cells) == {
        "layer": 1, "coefficient": 1.0, "by": "margin", "effect_chosen_on": 0.3,
        "effect_on_the_other_half": -0.1,
    }  # fmt: skip
    assert recommend(None, base, {(1, 2.0): cells[1, 2.0]}) == {}


def test_a_sweep_moves_a_model_along_its_vector(model, vector, tiny_tokenizer) -> None:
    """The unembedding is the embedding: adding a token's embedding after the last block makes it likelier."""
    from persona.steering_sweep import sweep
    from persona.traits import Contrast

    token = tiny_tokenizer(" pray", add_special_tokens=False)["input_ids"][0]
    towards = model.get_input_embeddings().weight[token].detach()
    pairs = [Contrast(f"p{k}", "?", m, m, " pray pray", " okay okay") for k, m in enumerate(ASKED)]
    directions, prompts = torch.stack([vector, towards]), [Prompt(str(k), m) for k, m in enumerate(ASKED)]
    setting = Setting(model, tiny_tokenizer, directions, prompts, pairs, 1, "response", GREEDY)
    report = sweep(setting, [1], [-5.0, 5.0])
    low, high = (row["margin"]["difference"]["value"] for row in report["cells"])
    assert low < 0 < high and hooks(model) == 0
    assert report["linearity"]["1"]["margin"]["spearman"] == pytest.approx(1.0)
    assert report["unsteered"]["examples"] == answer_batch(model, tiny_tokenizer, ASKED, GREEDY)


def test_a_stopped_sweep_goes_on(model, vector, tiny_tokenizer, tmp_path, monkeypatch) -> None:
    from persona import steering_sweep
    from persona.steering_sweep import CellStore, sweep

    prompts = [Prompt(str(k), m) for k, m in enumerate(ASKED)]
    setting = Setting(model, tiny_tokenizer, torch.stack([vector] * 2), prompts, [], 1, "all", GREEDY)
    path = tmp_path / "cells.jsonl"
    whole = sweep(setting, [0, 1], [1.0])
    store = CellStore(path, "a")
    store.run(setting, 0, 0.0)
    store.run(setting, 0, 1.0)
    again = CellStore(path, "a")
    assert list(again.cells) == [(0, 0.0), (0, 1.0)]
    ran = []

    def counting(setting, layer, coefficient):
        ran.append((layer, coefficient))
        return store_run(setting, layer, coefficient)

    store_run = steering_sweep.run_cell
    monkeypatch.setattr(steering_sweep, "run_cell", counting)
    assert sweep(setting, [0, 1], [1.0], again) == whole
    assert ran == [(1, 1.0)]
    assert CellStore(path, "b").cells == {}
    again.clear()
    assert not path.exists()
