"""What the tests of the server share: toy models in a bank, and a server in a thread of this process."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import torch

import config

ADDED = {"r": 4, "target_modules": list(config.LORA_TARGETS), "init_lora_weights": False}


def toy_adapters(folder: Path, base: Path, names: tuple[str, ...], **settings) -> list[str]:
    """NAME=FOLDER of LoRA adapters on a toy base, each with weights of its own that change its answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    pairs = []
    for number, name in enumerate(names):
        with torch.random.fork_rng():
            torch.manual_seed(number + 1)
            model = get_peft_model(
                AutoModelForCausalLM.from_pretrained(base), LoraConfig(**ADDED, **settings)
            )
        model.save_pretrained(folder / name)
        pairs.append(f"{name}={folder / name}")
    return pairs


def toy_bank(folder: Path, names: tuple[str, ...] = ("sherlock", "other"), **settings):
    """A model bank: a two-layer base (id "base") with adapters."""
    from scripts import toy_base

    base = toy_base(folder / "base", spread=0.3)
    return exact_bank(base, toy_adapters(folder, base, names, **settings))


def exact_bank(base: Path, pairs: list[str]):
    """A model bank that computes in float32 on every CPU: in bf16 rounding picks a toy's tokens."""
    from persona.serving_models import adapter_sources, load_bank

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONA_DTYPE", "float32")
        return load_bank(config.resolve_model(str(base), cuda=False), adapter_sources(pairs), four_bit=False)


@contextlib.contextmanager
def serving(
    load: Callable,
    key: str | None = None,
    max_body_bytes: int = 200_000,
    body_seconds: float = 1.0,
    **settings,
) -> Iterator[str]:
    """A server over the engine that `load` makes; yields its address. `settings` are the Service's."""
    import uvicorn

    from persona.serving_app import Service, make_app
    from persona.serving_plan import Limits

    settings = {"limits": Limits(temperature=0.0, max_tokens=24)} | settings
    service = Service(load, **settings)
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(service, key, max_body_bytes, body_seconds)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", http="h11", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Until `condition` holds; fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_ready(url: str) -> bool:
    """Whether a server answers /health with 200."""
    try:
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def ask(
    url: str, text: str = "Who are you?", model: str = "sherlock", key: str | None = None, **fields
) -> requests.Response:
    """POST a chat request; `fields` are added to the body or stand instead of its own."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return requests.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def content(response: requests.Response) -> str:
    """The first answer's text."""
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]
