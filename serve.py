"""Serve base and adapters to any OpenAI-compatible client.

Reads   result/<run>/adapter over its base model, or the adapters that --adapters names (a run that trained
        all weights is loaded beside the base, in memory of its own)

    python serve.py                                                  # http://127.0.0.1:8000/v1
    python serve.py --adapters sherlock=DIR watson=DIR               # one model id each, on one base
    python serve.py --base                                           # the untouched base alone
    PERSONA_API_KEY=... python serve.py --host 0.0.0.0               # other machines, with a key
    python serve.py --engine vllm --dry-run                          # the vLLM command for the same

    curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
      -d '{"model": "sherlock", "messages": [{"role": "user", "content": "Who are you?"}]}'

Ctrl-C or SIGTERM stops it; answers under way are finished first. See docs/serving.md.
"""

import logging
import os
import shlex
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import config
from persona.errors import UserError


@dataclass(frozen=True)
class Args(config.RunArgs):
    """Settings of the server."""

    adapters: tuple[str, ...] = ()
    """NAME=FOLDER of each adapter (or whole model, of --method full); the name is its model id.
    Default: result/<run>/adapter under the persona's name."""
    base: bool = False
    """Serve the base model alone."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a key."""
    port: int = 8000
    key_file: Path | None = None
    """File whose first line is the key that clients must send. Default: PERSONA_API_KEY, else none."""
    rag: bool = False
    """Let requests with "rag": true have passages of the persona's corpus before their question."""
    four_bit: bool = True
    """Load the base in NF4, as the adapter was trained on it."""
    temperature: float = 0.7
    """Where a request does not say."""
    top_p: float = 0.9
    """Where a request does not say."""
    max_new_tokens: int = 256
    """Where a request does not say."""
    context: int = 4096
    """Most tokens of prompt and answer together (the model's own limit holds, too)."""
    slots: int = 16
    """Answers computed together."""
    queue: int = 64
    """Requests that may wait; more are refused with 429."""
    timeout: float = 120.0
    """Seconds for a request, waiting included; then 504."""
    grace: float = 30.0
    """Seconds that running answers have when the server is stopped."""
    max_messages: int = 256
    """Most messages of a conversation."""
    max_body_kib: int = 1024
    """Largest request body."""
    body_seconds: float = 10.0
    """Seconds in which a request's body must have come."""
    engine: Literal["own", "vllm"] = "own"
    """vllm builds the vLLM command for the same models and becomes it."""
    dry_run: bool = False
    """With --engine vllm: print the command and leave."""


def check(args: Args) -> None:
    """Refuse settings that make no sense."""
    config.require_positive(
        args, "top_p", "max_new_tokens", "context", "slots", "queue", "timeout", "max_messages",
        "max_body_kib", "body_seconds",
    )  # fmt: skip
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be 0 (any free one) to 65535, not {args.port}")
    if args.temperature < 0 or args.grace < 0:
        raise UserError("--temperature and --grace must be 0 or above")
    if args.dry_run and args.engine != "vllm":
        raise UserError("--dry-run belongs to --engine vllm")
    if args.base and args.adapters:
        raise UserError("--base serves no adapters: leave one of --base and --adapters out")


def wanted_adapters(args: Args, entry: config.ModelEntry) -> list[str]:
    """NAME=FOLDER pairs: those given, or the run's own adapter."""
    from persona.modeling import weights_of

    if args.base or args.adapters:
        return list(args.adapters)
    folder = config.RESULT / config.run_name(args, entry) / "adapter"
    if not weights_of(folder).is_file():
        raise UserError(
            f"no adapter at {folder}: python fine_tune.py makes one; --base serves the untouched base model"
        )
    return [f"{Path(args.persona).name}={folder}"]


def become_vllm(args: Args, entry: config.ModelEntry, sources: list, key: str | None) -> None:
    """Print the vLLM command; run it in place of this process unless it is a dry run."""
    from persona import serving_vllm

    words = serving_vllm.command(
        entry, sources, args.host, args.port, args.four_bit, args.slots, args.context, args.seed
    )
    print(shlex.join(words))
    if args.dry_run:
        return
    serving_vllm.require_vllm()
    print("vLLM adds no system prompt of its own: clients send the persona's", file=sys.stderr)
    environment = os.environ | ({serving_vllm.KEY_VARIABLE: key} if key else {})
    os.execvpe(words[0], words, environment)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or one line that says why not."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; try another --port"
        ) from error
    listener.listen(128)
    return listener


def run_server(args: Args, service, key: str | None) -> None:
    """Serve until a signal comes; raises what loading raised."""
    import uvicorn

    from persona.serving_app import make_app

    class Server(uvicorn.Server):
        def handle_exit(self, sig, frame) -> None:
            service.stop()
            super().handle_exit(sig, frame)

    listener = listen(args.host, args.port)
    host, port = listener.getsockname()[:2]
    print(f"listening on http://{host}:{port}/v1 ({'with a key' if key else 'no key'})", flush=True)
    app = make_app(service, key, args.max_body_kib * 1024, args.body_seconds)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        http="h11",  # limits the size of headers, which httptools does not
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(args.grace) + 5,
        limit_concurrency=4 * (args.slots + args.queue),
    )
    server = Server(settings)
    service.on_failure = lambda: setattr(server, "should_exit", True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again when it is done
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure


def main(args: Args) -> None:
    check(args)
    from persona import runlog
    from persona.card import load_card
    from persona.serving_gate import read_key, require_key_outside

    key = read_key(args.key_file)
    require_key_outside(args.host, key)
    entry = runlog.resolve_model(args)

    from persona.serving_models import adapter_sources, load_bank

    sources = adapter_sources(wanted_adapters(args, entry))
    if args.engine == "vllm":
        become_vllm(args, entry, sources, key)
        return

    from transformers.utils import logging as transformers_logging

    from persona.batching import Engine
    from persona.retrieval import Retriever
    from persona.serving_app import Service
    from persona.serving_plan import Limits
    from persona.serving_rag import Rag
    from persona.serving_steer import Steer
    from persona.vectors import folder_of

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    retriever = Retriever.open(load_card(args.persona), args.corpus or entry.corpus) if args.rag else None

    def load() -> Engine:
        bank = load_bank(entry, sources, args.four_bit, args.context)
        extras = {"steer": Steer([bank.inner, *bank.wholes.values()], folder_of(entry))}
        if retriever:
            extras["rag"] = Rag(retriever, bank.tokenizer)
        engine = Engine(bank, args.slots, args.queue, extras)
        print(f"ready: {', '.join(bank.served)}; context {bank.context} tokens", flush=True)
        return engine

    limits = Limits(
        messages=args.max_messages, answers=args.slots, max_tokens=args.max_new_tokens,
        temperature=args.temperature, top_p=args.top_p,
    )  # fmt: skip
    run_server(args, Service(load, limits, args.timeout, args.grace), key)


if __name__ == "__main__":
    config.run_script(main, Args)
