"""The server as clients see it: routes, errors, limits, key, real clients, shutdown."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import openai
import pytest
import requests
from scripts import ROOT, environment, error_line, run, toy_base
from serving import ask, content, is_ready, serving, toy_adapters, toy_bank, wait_until

import config
from persona.batching import Engine
from persona.card import load_card
from persona.serving_extras import Extra
from persona.serving_plan import Limits

KEY = "a-key-of-the-tests"


class Shout(Extra):
    """An extra that changes the question and says so."""

    def check(self, value, model_id):
        if value not in (True, "loud"):
            raise ValueError("give true or loud")
        return value

    def rewrite(self, value, messages, room):
        *before, last = messages
        return [*before, last | {"content": last["content"].upper()}], {"room": room}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return toy_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def served(bank):
    """A server without a key, and its engine."""
    engine = Engine(bank, slots=4, queue=8, extras={"rag": Shout()})
    with serving(lambda: engine, limits=Limits(messages=8, answers=4, max_tokens=24, temperature=0.0)) as url:
        wait_until(lambda: is_ready(url))
        yield SimpleNamespace(url=url, engine=engine, bank=bank)


@pytest.fixture
def url(served) -> str:
    return served.url


def error_of(response: requests.Response, status: int) -> dict:
    """The OpenAI error object of a response with this status."""
    assert response.status_code == status, (response.status_code, response.text)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def events(response: requests.Response) -> list[dict]:
    """The JSON events of a stream; it must end in [DONE]."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix(b"data: ") for line in response.content.split(b"\n") if line]
    assert data[-1] == b"[DONE]"
    return [json.loads(line) for line in data[:-1]]


def test_models_adapters_first_and_the_base_last(url) -> None:
    listed = requests.get(f"{url}/v1/models").json()
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == ["sherlock", "other", "base"]
    assert requests.get(f"{url}/models").json() == listed
    assert requests.get(f"{url}/v1/models/other").json()["id"] == "other"
    assert error_of(requests.get(f"{url}/v1/models/nobody"), 404)["code"] == "model_not_found"


def test_a_chat_answer_whole_and_as_a_stream(url) -> None:
    whole = ask(url).json()
    assert (whole["object"], whole["model"]) == ("chat.completion", "sherlock")
    choice = whole["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    usage = whole["usage"]
    assert usage["completion_tokens"] == 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + 24

    chunks = events(ask(url, stream=True, stream_options={"include_usage": True}))
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
    assert text == choice["message"]["content"] != ""
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], usage)


def test_each_id_answers_by_itself_and_the_persona_has_its_prompt(served) -> None:
    texts = {m: content(ask(served.url, model=m)) for m in ("sherlock", "other", "base")}
    assert len(set(texts.values())) == 3
    prompt = load_card("sherlock").system_prompt
    conversation = [{"role": "system", "content": prompt}, {"role": "user", "content": "Who are you?"}]
    assert content(ask(served.url, messages=conversation)) == texts["sherlock"]
    # "other" is no persona of the project: no system prompt
    asked = ask(served.url, model="other").json()["usage"]["prompt_tokens"]
    assert asked == ask(served.url, model="base").json()["usage"]["prompt_tokens"]


def test_completions(url) -> None:
    def complete(**fields):
        return requests.post(f"{url}/v1/completions", json={"model": "base", **fields})

    one = complete(prompt="It was a dark", max_tokens=5, logprobs=2).json()
    assert (one["object"], one["usage"]["completion_tokens"]) == ("text_completion", 5)
    choice = one["choices"][0]
    assert len(choice["logprobs"]["tokens"]) == 5 == len(choice["logprobs"]["token_logprobs"])
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert [len(top) for top in choice["logprobs"]["top_logprobs"]] == [2] * 5
    both = complete(prompt=["It was a dark", "Holmes said"], max_tokens=5, n=2).json()["choices"]
    assert [c["index"] for c in both] == [0, 1, 2, 3]
    assert both[0]["text"] == both[1]["text"] == choice["text"] != both[2]["text"]
    assert complete(prompt="Well").json()["usage"]["completion_tokens"] == 16  # OpenAI's default
    assert events(complete(prompt="It was a dark", max_tokens=5, stream=True))[-1]["choices"][0][
        "finish_reason"
    ] == ("length")
    error_of(complete(prompt=""), 400)
    error_of(complete(prompt=[6144]), 400)
    assert "prompts" in error_of(complete(prompt=["x"] * 17), 400)["message"]


def test_chat_logprobs(url) -> None:
    choice = ask(url, logprobs=True, top_logprobs=3, max_tokens=4).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert len(entries) == 4
    for entry in entries:
        assert len(entry["top_logprobs"]) == 3
        # greedy: the token is the likeliest one
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] <= 0
    streamed = events(ask(url, logprobs=True, top_logprobs=3, max_tokens=4, stream=True))
    found = [e for c in streamed for e in (c["choices"][0]["logprobs"] or {}).get("content", [])]
    assert found == entries


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None),
        ({"messages": [{"role": "user", "content": "x"}] * 9}, "messages"),
        ({"messages": [{"role": "user", "content": "lamp " * 600}]}, "messages"),
        ({"max_tokens": 100_000}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": -1.5}, "repetition_penalty"),
        ({"repetition_penalty": "1.2"}, "repetition_penalty"),
        ({"n": 5}, "n"),
        ({"n": 10**9}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, None),
        ({"presence_penalty": 0.5}, None),
        ({"temprature": 0.5}, "temprature"),
        ({"steer": {"trait": 1}}, "steer"),
        ({"rag": 3}, "rag"),
        ({"model": 3}, "model"),
    ],
)
def test_wrong_fields_are_refused_with_400(url, fields, param) -> None:
    error = error_of(ask(url, **fields), 400)
    assert error["type"] == "invalid_request_error"
    assert param is None or (error["param"] or "").startswith(param), error


def test_the_error_says_what_is_wrong(url) -> None:
    assert error_of(ask(url, model="moriarty"), 404) == {
        "message": "the model 'moriarty' does not exist here; there is sherlock, other, base",
        "type": "not_found_error", "param": "model", "code": "model_not_found",
    }  # fmt: skip
    too_long = error_of(ask(url, "lamp " * 600), 400)
    assert too_long["code"] == "context_length_exceeded" and "512" in too_long["message"]
    assert error_of(ask(url, temprature=1), 400)["message"] == "unknown field temprature"
    assert "tools" in error_of(ask(url, tools=[{}]), 400)["message"]
    assert error_of(ask(url, rag=3), 400)["message"] == "rag: give true or loud"
    assert error_of(ask(url, steer={"x": 1}), 400)["message"] == "steer is not available on this server"
    assert error_of(requests.get(f"{url}/v1/nothing"), 404)["message"].startswith("GET /v1/nothing")
    error_of(requests.get(f"{url}/v1/chat/completions"), 405)


def test_neutral_fields_of_other_clients_are_taken(url) -> None:
    plain = content(ask(url))
    neutral = {"tools": None, "presence_penalty": 0, "response_format": {"type": "text"}, "user": "me"}
    assert content(ask(url, **neutral, n=1, stop=None, top_p=None, rag=False)) == plain
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    assert content(ask(url, messages=parts)) == plain
    # developer is OpenAI's later name of system
    texts = [
        content(
            ask(url, messages=[{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hm?"}])
        )
        for role in ("system", "developer")
    ]
    assert texts[0] == texts[1]


def test_the_repetition_penalty_is_taken_by_both_routes(url) -> None:
    plain, penalised = ask(url), ask(url, repetition_penalty=0.3)
    assert content(penalised) != content(plain) == content(ask(url, repetition_penalty=1))
    assert content(ask(url, repetition_penalty=None)) == content(plain)
    # the log-probability stays the model's own: that of an answer's first token, penalised or not
    fields = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    both = [
        ask(url, **fields, repetition_penalty=p).json()["choices"][0]["logprobs"]["content"][0]
        for p in (1, 0.3)
    ]
    assert both[0]["top_logprobs"] == both[1]["top_logprobs"]

    def complete(**more) -> str:
        body = {"model": "sherlock", "prompt": "It was a dark and", "max_tokens": 20, **more}
        return requests.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"]

    assert complete(repetition_penalty=0.3) != complete() == complete(repetition_penalty=1.0)
    refused = requests.post(
        f"{url}/v1/completions", json={"model": "sherlock", "prompt": "x", "repetition_penalty": 0}
    )
    assert error_of(refused, 400)["param"] == "repetition_penalty"


def test_truncation_auto_leaves_out_the_oldest_exchange(url) -> None:
    old = [{"role": "user", "content": "lamp " * 300}, {"role": "assistant", "content": "ink " * 300}]
    new = [{"role": "user", "content": "Who are you?"}]
    error_of(ask(url, messages=old + new), 400)
    assert content(ask(url, messages=old + new, truncation="auto")) == content(ask(url, messages=new))


def test_extras_rewrite_the_conversation_and_report(url) -> None:
    loud = ask(url, "who are you?", rag=True)
    assert content(loud) == content(ask(url, "WHO ARE YOU?")) != content(ask(url, "who are you?"))
    assert loud.json()["rag"] == {"room": 512 - 24}
    chunks = events(ask(url, "who are you?", rag="loud", stream=True))
    assert [c.get("rag") for c in chunks[:2]] == [{"room": 488}, None]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1, 2]", b"null", b'"text"', b"\xff\xfe", b"[" * 50_000, b'{"model": "sherlock"}',
        b'{"model": "sherlock", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\udfff", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "sherlock", "\\ud800": 1, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "sherlock", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "sherlock", "seed": ' + b"9" * 6000 + b', "messages": []}',
    ],
    ids=range(13),
)  # fmt: skip
def test_bodies_that_are_no_request(url, body) -> None:
    posted = requests.post(
        f"{url}/v1/chat/completions", data=body, headers={"content-type": "application/json"}
    )
    error_of(posted, 400)


def test_odd_but_valid_text_is_answered(url) -> None:
    for text in ("\x00\x01", "\u202e\u200f\ufeff", "🕵️‍♂️" * 20, "<|im_end|><|im_start|>system", " "):
        assert content(ask(url, text))


def raw(url: str) -> socket.socket:
    """A connection to write bytes on."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def test_bodies_too_large_or_too_slow(url) -> None:
    assert error_of(ask(url, "x" * 300_000), 413)["code"] == "body_too_large"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with raw(url) as slow:  # a byte, then nothing
        slow.sendall(head + b"content-length: 100\r\n\r\n{")
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (408, "body_timeout")
    with raw(url) as chunked:  # no stated length
        chunked.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(25):
                chunked.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        answer = http.client.HTTPResponse(chunked)
        answer.begin()
        assert answer.status == 413


def test_a_client_that_leaves_stops_its_generation(served) -> None:
    def running() -> int:
        return len(served.engine.rows)

    for stream in (False, True):
        body = {"model": "base", "max_tokens": 450, "stream": stream}
        body = json.dumps(body | {"messages": [{"role": "user", "content": "Go on"}]}).encode()
        with raw(served.url) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                + f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            wait_until(lambda: running() == 1)
            position = served.engine.rows[0].position
        wait_until(lambda: running() == 0)
        assert position < 400, "it left in the middle"


def test_metrics_count_what_was_done(url) -> None:
    def value(name: str) -> float:
        lines = requests.get(f"{url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    generated = 'persona_generated_tokens_total{model="sherlock"}'
    refused = 'persona_responses_total{path="/v1/chat/completions",status="404"}'
    before = value(generated), value(refused)
    ask(url, max_tokens=7)
    ask(url, model="nobody")
    assert (value(generated), value(refused)) == (before[0] + 7, before[1] + 1)
    assert value("persona_first_token_seconds_count") >= 1
    assert value("persona_running_answers") == 0


def test_queue_time_and_loading_have_their_statuses(bank) -> None:
    ready = threading.Event()
    engines = []

    def load() -> Engine:
        assert ready.wait(60)
        engines.append(Engine(bank, slots=1, queue=1))
        return engines[0]

    with serving(load, timeout=1.5) as url:
        wait_until(lambda: _answers(url))
        assert requests.get(f"{url}/health").json() == {"status": "loading"}
        loading = ask(url)
        assert error_of(loading, 503)["code"] == "loading" and int(loading.headers["retry-after"]) > 0
        ready.set()
        wait_until(lambda: is_ready(url))

        slow = bank.forward

        def forward(*given):
            time.sleep(0.05)
            return slow(*given)

        engines[0].bank.forward = forward
        try:
            results: list[requests.Response] = []
            askers = [
                threading.Thread(target=lambda: results.append(ask(url, max_tokens=400))) for _ in range(2)
            ]
            askers[0].start()
            wait_until(lambda: len(engines[0].rows) == 1)
            askers[1].start()
            wait_until(lambda: len(engines[0].waiting) == 1)
            full = ask(url)
            assert error_of(full, 429)["code"] == "queue_full" and int(full.headers["retry-after"]) >= 1
            for asker in askers:
                asker.join()
            assert [error_of(r, 504)["code"] for r in results] == ["timeout"] * 2
            late = ask(url, max_tokens=400, stream=True)  # the status is sent, the error is an event
            assert events(late)[-1]["error"]["code"] == "timeout"
        finally:
            bank.forward = slow


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return bool(requests.get(f"{url}/health").status_code)
    return False


def test_the_key_guards_all_but_health(bank) -> None:
    with serving(lambda: Engine(bank, slots=2), key=KEY) as url:
        wait_until(lambda: is_ready(url))
        for headers in ({}, {"authorization": KEY}, {"authorization": "Bearer wrong"},
                        {"authorization": f"Basic {KEY}"}, {"authorization": f"Bearer {KEY}x"}):  # fmt: skip
            for path in ("/v1/models", "/models", "/metrics", "/openapi.json", "/nothing"):
                refused = requests.get(url + path, headers=headers)
                assert error_of(refused, 401)["code"] == "invalid_api_key"
        error_of(ask(url), 401)
        assert content(ask(url, key=KEY))

        # Open WebUI: it probes {base}/models with the key, then streams a chat
        session = requests.Session()
        session.headers["authorization"] = f"Bearer {KEY}"
        models = [m["id"] for m in session.get(f"{url}/v1/models").json()["data"]]
        assert models == [m["id"] for m in session.get(f"{url}/models").json()["data"]]
        question = {
            "model": models[0], "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "Who are you?"}],
        }  # fmt: skip
        chunks = events(session.post(f"{url}/v1/chat/completions", json=question))
        assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_the_openai_package(url) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    assert [m.id for m in client.models.list()] == ["sherlock", "other", "base"]
    question = {"model": "sherlock", "messages": [{"role": "user", "content": "Who are you?"}]}
    answer = client.chat.completions.create(**question)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 24
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(**question | {"model": "nobody"})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**question, n=100)
    assert client.completions.create(model="base", prompt="It was", max_tokens=3).choices[0].text

    async def stream() -> list[str]:
        asynchronous = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

        async def one() -> str:
            chunks = await asynchronous.chat.completions.create(**question, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        return await asyncio.gather(*(one() for _ in range(5)))

    assert asyncio.run(stream()) == [answer.choices[0].message.content] * 5


def test_the_llm_command(url, tmp_path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: holmes\n  model_name: sherlock\n  api_base: {url}/v1\n"
    )
    settings = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [Path(sys.executable).with_name("llm"), "-m", "holmes", "Who are you?"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == content(ask(url)).strip()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A base and two adapters in folders, for the script."""
    folder = tmp_path_factory.mktemp("toy")
    base = toy_base(folder / "base", spread=0.3)
    return SimpleNamespace(
        workspace=folder,
        base=base,
        adapters=toy_adapters(folder, base, ("sherlock", "other"), lora_dropout=0.1),
    )


def test_the_script_serves_and_stops_when_its_answers_are_done(toy) -> None:
    command = [sys.executable, str(ROOT / "serve.py"), "--model", str(toy.base), "--port", "0"]
    command += ["--adapters", *toy.adapters, "--temperature", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(toy.workspace),
        cwd=toy.workspace,
    )  # fmt: skip
    try:
        url = process.stdout.readline().split()[2].removesuffix("/v1")
        assert process.stdout.readline() == "ready: sherlock, other, base; context 512 tokens\n"
        wait_until(lambda: is_ready(url))
        with requests.post(
            f"{url}/v1/chat/completions", stream=True, timeout=60,
            json={"model": "other", "max_tokens": 300, "stream": True,
                  "messages": [{"role": "user", "content": "Go on."}]},
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == b"data: [DONE]"
        assert json.loads(rest[-2].removeprefix(b"data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(30) == 0
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors, errors


def test_a_failure_to_load_ends_the_script_with_one_line(toy, tmp_path) -> None:
    narrow = toy_base(tmp_path / "narrow", hidden=32)
    done = run(toy.workspace, "serve.py", "--model", narrow, "--adapters", toy.adapters[0], "--port", "0")
    assert "does not fit" in error_line(done)


def test_the_script_refuses_other_machines_without_a_key_in_one_line(toy) -> None:
    done = run(toy.workspace, "serve.py", "--model", toy.base, "--base", "--host", "0.0.0.0")
    assert "PERSONA_API_KEY" in error_line(done)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--base", "--host", "0.0.0.0"), "PERSONA_API_KEY"),
        (("--base", "--host", "::"), "PERSONA_API_KEY"),
        (("--base", "--key-file", "nokey"), "cannot read the key file"),
        ((), "no adapter at"),
        (("--adapters", "sherlock"), "give NAME=FOLDER"),
        (("--adapters", "x=nowhere"), "no adapter at nowhere"),
        (("--adapters", "{0}", "{0}"), "twice"),
        (("--base", "--adapters", "{0}"), "leave one of"),
        (("--base", "--slots", "0"), "--slots must be above 0"),
        (("--base", "--dry-run"), "--engine vllm"),
        (("--engine", "vllm", "--base"), "pip install vllm"),
    ],
)
def test_settings_that_are_refused(toy, words, said, monkeypatch) -> None:
    import serve
    from persona.errors import UserError

    monkeypatch.delenv("PERSONA_API_KEY", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir(toy.workspace)
    args = _parsed("--model", str(toy.base), *(w.format(*toy.adapters) for w in words))
    with pytest.raises(UserError, match=said):
        serve.main(args)


def _parsed(*words: str):
    import tyro

    import serve

    return tyro.cli(serve.Args, args=list(words))


def test_a_port_in_use_is_one_line(url) -> None:
    import serve
    from persona.errors import UserError

    with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1"):
        serve.listen("127.0.0.1", urlsplit(url).port)


def test_adapters_that_do_not_fit_are_named(toy, tmp_path) -> None:
    from persona.errors import UserError
    from persona.serving_models import adapter_sources, load_bank

    narrow = toy_base(tmp_path / "narrow", hidden=32)
    entry = config.resolve_model(str(narrow), cuda=False)
    with pytest.raises(UserError, match=r"\(sherlock\) does not fit .*size mismatch"):
        load_bank(entry, adapter_sources(toy.adapters[:1]), four_bit=False)
    prompt = tmp_path / "prompt"
    prompt.mkdir()
    (prompt / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    with pytest.raises(UserError, match="a PROMPT_TUNING adapter"):
        adapter_sources([f"x={prompt}"])


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch) -> None:
    from persona.errors import UserError
    from persona.serving_gate import is_loopback, read_key

    monkeypatch.setenv("PERSONA_API_KEY", "one")
    assert read_key(None) == "one"
    (tmp_path / "key").write_text("two \nthree\n")
    assert read_key(tmp_path / "key") == "two"
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="first line"):
        read_key(tmp_path / "empty")
    monkeypatch.setenv("PERSONA_API_KEY", "")
    assert read_key(None) is None
    hosts = ("127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "example.org", "")
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 5


def test_the_vllm_command(toy, capsys) -> None:
    import serve

    serve.main(_parsed("--model", str(toy.base), "--adapters", *toy.adapters, "--engine", "vllm", "--dry-run",
                       "--port", "9", "--slots", "32", "--context", "500"))  # fmt: skip
    folder = toy.workspace
    assert capsys.readouterr().out == (
        f"vllm serve {toy.base} --served-model-name base --host 127.0.0.1 --port 9 --seed 42 "
        "--max-num-seqs 32 --max-model-len 500 --quantization bitsandbytes "
        "--enable-lora --max-loras 2 --max-lora-rank 8 "
        f"--lora-modules sherlock={folder}/sherlock other={folder}/other\n"
    )


def test_vllm_is_run_in_our_place_with_the_key_in_its_environment(toy) -> None:
    folder = toy.workspace / "bin"
    folder.mkdir()
    (folder / "vllm").write_text('#!/bin/sh\necho "$VLLM_API_KEY: $*"\n')
    (folder / "vllm").chmod(0o755)
    words = ("--model", "qwen2.5-7b", "--base", "--no-four-bit", "--engine", "vllm")
    path = f"{folder}:{os.environ['PATH']}"
    done = run(toy.workspace, "serve.py", *words, PATH=path, PERSONA_API_KEY="secret")
    assert done.code == 0, done.err
    arguments = done.out.splitlines()[-1]
    assert arguments.startswith("secret: serve Qwen/Qwen2.5-7B-Instruct --served-model-name qwen2.5-7b")
    assert "--revision a09a35458c702b33eeacc393d103063234e8bc28" in arguments
    assert (
        "quantization" not in arguments
        and "lora" not in arguments
        and "secret" not in done.out.splitlines()[0]
    )
