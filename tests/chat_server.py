"""A chat-completions server on this machine that checks every request against OpenAI's own types.

It answers as its plan says, with failures of all kinds.
"""

import functools
import json
import threading
import time
from pathlib import Path

import certifi
import pytest
from checking_server import CheckingHandler, CheckingServer
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from persona import teacher

KEY = "sk-test-Zq7-not-a-real-key"
PROMPT_TOKENS, COMPLETION_TOKENS = 40, 10
REQUEST = TypeAdapter(CompletionCreateParamsNonStreaming)
FIELDS = set(CompletionCreateParamsNonStreaming.__annotations__) | {
    name
    for base in CompletionCreateParamsNonStreaming.__orig_bases__
    for name in getattr(base, "__annotations__", {})
}


def completion(text: str | None, finish: str = "stop", usage: bool = True, **message) -> str:
    """A chat completion as OpenAI documents it, built by the client's own types."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "logprobs": None,
        "message": {"role": "assistant", "content": text, "refusal": None, **message},
    }
    used = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }
    return ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": used if usage else None,
        }
    ).model_dump_json()


def refusal(message: str, **fields) -> str:
    return json.dumps(
        {"error": {"message": message, "type": "invalid_request_error", "code": None, **fields}}
    )


class Server(CheckingServer):
    """`plan(number of the request, last word of the prompt)` says what comes: "answer" is that word in
    capitals, "drop" and "stall" no answer, other text the body, and a tuple status, body, Retry-After."""

    def __init__(self):
        super().__init__(Handler)
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.models = ["m"]
        self.running = self.most_running = 0
        self.plan = lambda number, word: "answer"
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(CheckingHandler):
    def do_GET(self):
        listed = [{"id": m, "object": "model", "created": 1, "owned_by": "us"} for m in self.server.models]
        self.send(200, json.dumps({"object": "list", "data": listed}))

    def do_POST(self):
        server = self.server
        request = json.loads(self.read_body())
        try:
            REQUEST.validate_python(request)
            extra = set(request) - FIELDS
            problem = f"unknown fields {extra}" if extra else None
        except ValueError as error:
            problem = str(error)
        word = request["messages"][-1]["content"].rpartition(" ")[2]
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers["Authorization"])
            server.times.append(time.monotonic())
            server.bad += [problem] if problem else []
            number = len(server.requests)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            self.act(server.plan(number, word), word)
        finally:
            with server.lock:
                server.running -= 1

    def act(self, what, word: str) -> None:
        if what == "answer":
            self.send(200, completion(json.dumps({"word": word.upper()})))
        elif what == "drop":
            self.drop()
        elif what == "stall":
            time.sleep(0.7)
            self.close_connection = True
        elif isinstance(what, str):
            self.send(200, what)
        else:
            self.send(*what)


@functools.cache
def one_certificate(folder: Path) -> Path:
    """Clients read all certificates of the world each time, a tenth of a second long; http needs none."""
    first = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    path = folder / "one.pem"
    path.write_text(first[0] + first[1] + "\n")
    return path


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    """A running server that OPENAI_BASE_URL and OPENAI_API_KEY point to."""
    httpd = Server()
    monkeypatch.setenv("SSL_CERT_FILE", str(one_certificate(tmp_path_factory.getbasetemp())))
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", httpd.url)
    monkeypatch.setattr(teacher, "BACKOFF_SECONDS", 0.002)
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    assert not httpd.bad, httpd.bad[0]  # every request followed OpenAI's schema
    assert set(httpd.keys) <= {f"Bearer {KEY}"}
