"""Every method of fine_tune.py trains, goes on exactly, loads, chats and is measured."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from scripts import error_line, toy_base, toy_data, warm

import config
from persona import footprint, methods, modeling
from persona.errors import UserError

torch = pytest.importorskip("torch")

CPU = modeling.Device("cpu", torch.float32, "a test")
STEPS = 4
FLAGS = ("--corpus", "embedded", "--max-steps", STEPS, "--evals", 2, "--warmup-steps", 1, "--keep", "last")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base") / "toy", spread=0.1)


@pytest.fixture
def workspace(tmp_path) -> Path:
    toy_data(tmp_path / "workspace")
    return tmp_path / "workspace"


def train(workspace: Path, base: Path, *flags: object):
    done = warm(workspace, "fine_tune.py", "--model", base, "--run", "r", *FLAGS, *flags)
    assert done.code == 0, done.err
    return done


def stage(workspace: Path) -> dict:
    return json.loads((workspace / "result" / "r" / "run.json").read_text())["stages"]["fine_tune"]


# --- what goes together ---------------------------------------------------------------------------------


def settings(**changed) -> SimpleNamespace:
    """The flags that a method looks at, with fine_tune.py's defaults."""
    plain = {"method": "qlora", "four_bit": None, "activation_checkpointing": None, "use_rslora": False}
    plain |= {"loraplus_ratio": None, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "low_memory": False}
    return SimpleNamespace(**(plain | changed))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "lora", "four_bit": True}, "--method qlora is LoRA in NF4"),
        ({"method": "full", "four_bit": True}, "weights in NF4 do not train"),
        ({"four_bit": False}, "--method lora is that"),
        ({"method": "prompt", "use_rslora": True}, "--method prompt has none"),
        ({"method": "ia3", "loraplus_ratio": 16.0}, "--method ia3 does not have"),
        ({"method": "prefix", "activation_checkpointing": True}, "keeps its prefix in the cache"),
        ({"method": "prompt", "low_memory": True}, "keeps off the GPU what --method prompt needs"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(changed, said):
    methods.check(settings())
    with pytest.raises(UserError, match=said):
        methods.check(settings(**changed))


def test_fine_tune_refuses_them_in_one_line(tmp_path, base):
    toy_data(tmp_path / "workspace")
    flags = ("--method", "full", "--four-bit", "True")
    line = error_line(warm(tmp_path / "workspace", "fine_tune.py", "--model", base, *flags))
    assert line == "error: --method full does not go with --four-bit True: weights in NF4 do not train"


# --- what trains ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(base):
    """`loaded(method)`: the toy base with a fresh adapter of the method, and its flags."""
    from peft import get_peft_model

    def make(method: str, **changed):
        args = settings(method=method, **changed)
        model = modeling.load_base(config.resolve_model(str(base), cuda=False), CPU, four_bit=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return get_peft_model(model, methods.adapter_config(args, model, steps=40)), args

    return make


IN_AND_OUT = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
"""Inputs and outputs of a toy layer's projections: q and o 64 to 64, k and v 64 to 32, three of the MLP."""


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("qlora", 2 * 4 * IN_AND_OUT),
        ("dora", 2 * (4 * IN_AND_OUT + 2 * 64 + 2 * 32 + 2 * 128 + 64)),  # and a magnitude an output
        ("adalora", 2 * (6 * IN_AND_OUT + 7 * 6)),  # r 3/2 of 4, and r singular values a projection
        ("prefix", 20 * 2 * 2 * 32),  # tokens, key and value, layers, size of the key heads together
        ("prompt", 20 * 64),
        ("ia3", 2 * (32 + 32 + 128)),  # outputs of k and v, inputs of down
        ("adapters", 2 * 2 * (64 * 64 * 2 + 64 + 64)),  # two a layer, down and up with biases
    ],
)
def test_trainable_parameters_are_those_of_the_formula(loaded, method, expected):
    assert footprint.parameter_counts(loaded(method)[0])[0] == expected


def test_rslora_scales_by_the_square_root_of_the_rank(loaded):
    def scaling(**changed):
        return loaded("qlora", **changed)[0].base_model.model.model.layers[0].mlp.up_proj.scaling["default"]

    assert scaling() == 8 / 4
    assert scaling(use_rslora=True) == 8 / 4**0.5


def test_loraplus_gives_b_a_learning_rate_of_its_own(loaded):
    model, _ = loaded("qlora")
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(weight_decay=0.1),
        get_optimizer_cls_and_kwargs=lambda args, model: (torch.optim.AdamW, {"lr": 1e-3}),
        optimizer=None,
    )
    methods.begin(trainer, settings(loraplus_ratio=16.0))
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    found = {("lora_B" in name, rates[id(p)]) for name, p in model.named_parameters() if p.requires_grad}
    assert found == {(False, 1e-3), (True, 1.6e-2)}


def test_a_bottleneck_adds_up_gelu_down_of_its_input(loaded):
    layer = loaded("adapters")[0].base_model.model.model.layers[0].mlp.down_proj
    x = torch.linspace(-1, 1, 128)[None]
    plain = layer.base_layer(x)
    assert torch.equal(layer(x), plain), "an untrained one changes nothing"
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    with torch.no_grad():
        up.weight.fill_(0.01)
        up.bias.fill_(0.5)
        inner = torch.nn.functional.gelu(plain @ down.weight.T + down.bias)
    assert torch.allclose(layer(x), plain + 0.5 + 0.01 * inner.sum(), atol=1e-5)


def test_a_model_of_another_family_is_refused_by_name(base):
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16))
    with pytest.raises(UserError, match=r"\(gpt2\) has no q_proj, k_proj, .*take --method prompt or full"):
        methods.adapter_config(settings(), other, steps=4)


def test_adalora_s_penalty_is_zero_for_orthonormal_matrices_and_grows_from_there(loaded):
    model, _ = loaded("adalora")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p.copy_(torch.eye(*p.shape))
        assert methods.orthogonality(model) == 0
        for name, p in model.named_parameters():
            if "lora_A" in name:
                p.mul_(2)  # A A^T - I = 3 I of size 6: norm 3 sqrt(6), B adds nothing
    assert methods.orthogonality(model).item() == pytest.approx(3 * 6**0.5 / 2)


def test_adalora_s_importances_are_kept_and_found_again(loaded, tmp_path):
    model, _ = loaded("adalora")
    allocator = model.base_model.rankallocator
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    allocator.update_ipt(model.base_model.model)
    methods._save_ranks(allocator, tmp_path / methods.RANKS_STATE)
    kept = {kind: dict(getattr(allocator, kind)) for kind in methods._AVERAGES}
    allocator.reset_ipt()
    methods._restore_ranks(allocator, tmp_path / methods.RANKS_STATE, torch.device("cpu"))
    for kind, tensors in kept.items():
        found = getattr(allocator, kind)
        assert found.keys() == tensors.keys() and len(tensors) == 2 * 7 * 3
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with pytest.raises(UserError, match="AdaLoRA cannot go on from this checkpoint"):
        methods._restore_ranks(allocator, tmp_path / "none", torch.device("cpu"))


# --- soft prompts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["prefix", "prompt"])
def soft(request, base, loaded, tmp_path_factory):
    """A model with a soft prompt that changes what it says, loaded as the chat loads it."""
    model, _ = loaded(request.param)
    with torch.no_grad():
        for p in model.prompt_encoder.parameters():
            p.mul_(0.1 if request.param == "prefix" else 3)
    folder = tmp_path_factory.mktemp("soft")
    model.save_pretrained(folder)
    return modeling.attach_adapter(
        modeling.load_base(config.resolve_model(str(base), cuda=False), CPU, four_bit=False), folder
    )


def test_batches_of_soft_prompts_are_padded_on_the_right(tiny_tokenizer):
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = methods.collator("prompt", tiny_tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_logits_lie_under_the_tokens_that_were_given(soft):
    ids = torch.arange(100, 112)[None]
    with torch.no_grad():
        whole, part = soft(ids).logits, soft(ids[:, :7]).logits
    assert whole.shape == (1, 12, 6144)
    assert torch.allclose(whole[:, :7], part, atol=1e-4)


def test_generation_takes_the_likeliest_token_each_time(soft):
    ids = torch.arange(100, 112)[None]
    step = ids
    with torch.no_grad():
        for _ in range(5):
            step = torch.cat([step, soft(step).logits[:, -1:].argmax(-1)], 1)
        plain = soft.base_model(ids).logits[:, -1].argmax(-1)
    said = soft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy(5))
    assert said.tolist() == step.tolist()
    assert said[0, 12] != plain[0], "the prompt matters"


def test_answers_in_a_padded_batch_are_those_of_each_prompt_alone(soft):
    rows = [[7, 8, 9, 10, 11, 12, 13, 14], [30, 31]]
    ids = torch.tensor([rows[0], [0] * 6 + rows[1]])
    mask = torch.tensor([[1] * 8, [0] * 6 + [1] * 2])
    together = soft.generate(input_ids=ids, attention_mask=mask, **greedy(6))
    assert together.shape == (2, 14)
    for k, row in enumerate(rows):
        alone = torch.tensor([row])
        single = soft.generate(input_ids=alone, attention_mask=torch.ones_like(alone), **greedy(6))
        assert together[k, 8:].tolist() == single[0, len(row) :].tolist()


def greedy(tokens: int) -> dict:
    from transformers import GenerationConfig

    return {
        "generation_config": GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=2
        )
    }


# --- whole runs -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", get_args(methods.MethodName))
def test_each_method_trains_goes_on_exactly_loads_and_chats(method, workspace, base):
    train(workspace, base, "--method", method, "--lr", 5e-3)
    folder = workspace / "result" / "r"
    weights = modeling.weights_of(folder / "adapter")
    assert weights.name == ("model.safetensors" if method == "full" else "adapter_model.safetensors")
    unbroken = weights.read_bytes()

    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    done = train(workspace, base, "--method", method, "--lr", 5e-3)
    assert "on from" in done.out and "checkpoint-2" in done.out
    assert weights.read_bytes() == unbroken

    entry = config.resolve_model(str(base), cuda=False)
    ids = torch.arange(100, 130)[None]
    four_bit = methods.METHODS[method].four_bit
    with torch.no_grad():
        before = modeling.load_base(entry, CPU, four_bit=four_bit).eval()(ids).logits
        tuned = modeling.attach_adapter(modeling.load_base(entry, CPU, four_bit=four_bit), folder / "adapter")
        after = tuned(ids).logits
    assert after.shape == before.shape
    assert (after - before).abs().max() > 1e-3

    asked = warm(workspace, "test.py", "--model", base, "--run", "r", "--ask", "Who?", "--max-new-tokens", 4)
    assert asked.code == 0 and asked.out.strip(), asked.err
    flags = ("--corpus", "embedded", "--limit", 3, "--max-new-tokens", 4)
    measured = warm(workspace, "evaluation.py", "--model", base, "--run", "r", *flags)
    assert measured.code == 0, measured.err
    values = json.loads((folder / "evaluation_report.json").read_text())["metrics"]["conditional_perplexity"]
    assert values["values"]["tuned"]["value"] < values["values"]["base"]["value"]
