"""Runs that trained all weights, served as models of their own beside the base and its adapters."""

import queue
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from scripts import ROOT, environment, toy_base
from serving import ask, content, exact_bank, is_ready, serving, toy_adapters, wait_until

import config
from persona import generation, serving_vllm
from persona.batching import Engine, Job, Piece, Request
from persona.errors import UserError
from persona.serving_models import BASE, AdapterSource, adapter_sources, load_bank
from persona.serving_steer import Steer
from persona.vectors import PersonaVector, save

QUESTIONS = [f"What do you make of case {n}" + ", if I may ask" * (n % 3) + "?" for n in range(6)]


def whole_model(base, folder):
    """What --method full leaves in a run's adapter folder: the base with every weight changed."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, folder)
    return model.eval()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A base, a LoRA adapter, a whole model, and the bank that serves them; the whole one also as a run."""
    folder = tmp_path_factory.mktemp("full")
    base = toy_base(folder / "base", spread=0.3)
    adapters = toy_adapters(folder, base, ("sherlock",))
    model = whole_model(base, folder / "result" / "r" / "adapter")
    pairs = [f"watson={folder / 'result' / 'r' / 'adapter'}", *adapters]
    bank = exact_bank(base, pairs)
    return SimpleNamespace(folder=folder, base=base, pairs=pairs, bank=bank, model=model)


def ids_of(bank, question: str) -> list[int]:
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return bank.tokenizer(text)["input_ids"]


def alone(toy, question: str, name: str, tokens: int = 16) -> str:
    """The greedy answer that transformers gives with this model by itself."""
    bank, ids = toy.bank, torch.tensor([ids_of(toy.bank, question)])
    bank._names = [bank.served[name].adapter]
    model = toy.model if name == "watson" else bank.inner
    settings = generation._settings(bank.inner, bank.tokenizer, generation.GREEDY)
    settings.max_new_tokens = tokens
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, use_cache=True
    )
    return bank.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def answers(engine: Engine, requests: list[Request]) -> list[str]:
    """The texts of requests that were all submitted before the first was read."""
    came = [queue.Queue() for _ in requests]
    for one, where in zip(requests, came, strict=True):
        engine.submit(Job(one, where.put, time.monotonic() + 60))
    texts = []
    for where in came:
        pieces: list[Piece] = [where.get(timeout=60)]
        while pieces[-1].finish_reason is None:
            pieces.append(where.get(timeout=60))
        texts.append("".join(piece.text for piece in pieces))
    return texts


def test_rows_of_a_whole_model_take_a_pass_of_their_own(toy) -> None:
    bank = toy.bank
    assert list(bank.served) == ["watson", "sherlock", "base"] and list(bank.wholes) == ["adapter0"]
    assert bank.groups(["adapter1", "adapter0", BASE, "adapter0"]) == [[0, 2], [1, 3]]
    assert bank.groups(["adapter0"]) == [[0]]
    assert bank.served["watson"].system_prompt and bank.served["base"].system_prompt is None


def test_greedy_answers_in_one_batch_are_those_of_each_model_alone(toy) -> None:
    models = ["watson", "sherlock", "base"] * 2
    engine = Engine(toy.bank, slots=6)
    try:
        asked = [
            Request(model=m, prompt=ids_of(toy.bank, q), max_tokens=16)
            for m, q in zip(models, QUESTIONS, strict=True)
        ]
        together = answers(engine, asked)
    finally:
        engine.close()
    assert together == [alone(toy, q, m) for m, q in zip(models, QUESTIONS, strict=True)]
    assert len({alone(toy, QUESTIONS[0], m) for m in models[:3]}) == 3


def test_vectors_steer_a_whole_model_and_nobody_beside_it(toy, tmp_path) -> None:
    width = toy.bank.inner.config.hidden_size
    difference, none = torch.zeros(2, width), torch.zeros(2, width)
    difference[:, 3] = 10.0
    save(
        PersonaVector("north", {"response_avg": difference}, none + 1.0, none, {}),
        tmp_path / "north.safetensors",
    )
    steer = Steer([toy.bank.inner, *toy.bank.wholes.values()], tmp_path)
    value = {"steer": steer.check("north@1=4", "watson")}
    engine = Engine(toy.bank, slots=4, extras={"steer": steer})
    try:
        prompt = ids_of(toy.bank, QUESTIONS[0])
        steered, plain, beside = answers(
            engine,
            [
                Request(model="watson", prompt=prompt, max_tokens=16, extras=value),
                Request(model="watson", prompt=prompt, max_tokens=16),
                Request(model="base", prompt=prompt, max_tokens=16),
            ],
        )
    finally:
        engine.close()
    assert (plain, beside) == (alone(toy, QUESTIONS[0], "watson"), alone(toy, QUESTIONS[0], "base"))
    assert steered != plain


def test_a_whole_model_answers_over_http_with_its_personas_prompt(toy) -> None:
    with serving(lambda: Engine(toy.bank, slots=4)) as url:
        wait_until(lambda: is_ready(url))
        said = {model: content(ask(url, model=model)) for model in toy.bank.served}
        prompt = toy.bank.served["watson"].system_prompt
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "Who are you?"}]
        assert content(ask(url, model="watson", messages=messages)) == said["watson"]
    assert len(set(said.values())) == 3


def test_the_script_serves_a_run_that_trained_all_weights(toy) -> None:
    command = [sys.executable, str(ROOT / "serve.py"), "--model", str(toy.base), "--run", "r", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-four-bit", "--temperature", "0"], cwd=toy.folder,
        env=environment(toy.folder, PERSONA_DTYPE="float32"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = process.stdout.readline().split()[2].removesuffix("/v1")
        assert process.stdout.readline() == "ready: sherlock, base; context 512 tokens\n"
        wait_until(lambda: is_ready(url))
        # a completion takes no chat template: the whole model goes on with the same tokens as by itself
        prompt = ids_of(toy.bank, QUESTIONS[1])
        import requests

        body = {"model": "sherlock", "prompt": prompt, "max_tokens": 16}
        given = requests.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
        assert given == alone(toy, QUESTIONS[1], "watson")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "is a whole model" in errors and "Traceback" not in errors, errors


def test_a_whole_model_of_another_shape_is_refused_in_one_line(toy, tmp_path) -> None:
    narrow = config.resolve_model(str(toy_base(tmp_path / "narrow", hidden=32)), cuda=False)
    with pytest.raises(
        UserError, match=r"\(watson\) is of another shape than .*: give --model the base that"
    ):
        load_bank(narrow, adapter_sources(toy.pairs[:1]), four_bit=False)


def test_what_is_neither_adapter_nor_model_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no adapter at"):
        adapter_sources([f"x={tmp_path}"])
    (tmp_path / "model.safetensors").touch()
    assert adapter_sources([f"x={tmp_path}"]) == [AdapterSource("x", tmp_path, whole=True)]


def test_vllm_serves_a_whole_model_in_the_bases_place_and_alone(toy) -> None:
    entry = config.resolve_model(str(toy.base), cuda=False)
    settings = {"host": "h", "port": 9, "four_bit": True, "slots": 4, "context": 512, "seed": 1}
    sources = adapter_sources(toy.pairs)
    assert serving_vllm.command(entry, sources[:1], **settings) == [
        "vllm", "serve", str(toy.folder / "result" / "r" / "adapter"), "--served-model-name", "watson",
        "--host", "h", "--port", "9", "--seed", "1", "--max-num-seqs", "4", "--max-model-len", "512",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"\(watson\) is a whole model, and vLLM serves one: give --adapters"):
        serving_vllm.command(entry, sources, **settings)
