"""An OpenAI-compatible endpoint: its address and key, which fields it takes, what its refusals mean."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from persona.errors import UserError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

Item = TypeVar("Item")

OPENAI_URL = "https://api.openai.com/v1"
FORMATS = ("json_schema", "json_object", "text")
"""How an answer's shape is asked for, best first."""


@dataclass(frozen=True)
class Dialect:
    """Which of the optional fields of a request the server takes."""

    response_format: str = FORMATS[0]
    limit: str = "max_tokens"
    temperature: bool = True


@dataclass(frozen=True)
class Reply:
    """What the model said, empty where it was nonsense."""

    text: str
    cut: bool = False
    """Ended by the limit on its length."""
    refused: bool = False
    """The model or a filter declined."""


@dataclass(frozen=True)
class Refusal:
    """Why a request brought nothing, where asking again may help."""

    reason: str
    wait_seconds: float | None = None
    """How long the server asks to wait; None where it says nothing."""
    ask_otherwise: bool = False
    """A field of the request was refused, and is given up now."""


def lesser(dialect: Dialect, said: str) -> Dialect | None:
    """The dialect without what the server names in its refusal, or with the next way to ask for JSON."""
    if dialect.limit == "max_tokens" and "max_tokens" in said:
        return replace(dialect, limit="max_completion_tokens")
    if dialect.temperature and "temperature" in said:
        return replace(dialect, temperature=False)
    following = FORMATS.index(dialect.response_format) + 1
    return replace(dialect, response_format=FORMATS[following]) if following < len(FORMATS) else None


def read_reply(response: Any) -> tuple[Reply, tuple[int, int] | None]:
    """A reply, and its prompt and completion tokens where the server tells them."""
    try:
        body = response.json()
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, declined = message.get("content"), bool(message.get("refusal")) or finish == "content_filter"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Reply(""), None
    usage = body.get("usage")
    told = None
    if isinstance(usage, dict):
        tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        told = tokens if all(isinstance(n, int) and n >= 0 for n in tokens) else None
    return Reply(text if isinstance(text, str) else "", finish == "length", declined), told


def retry_after(headers: Any) -> float | None:
    """Seconds that the Retry-After header asks for (a number, or a date)."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def address(base_url: str | None, what: str) -> tuple[str, str]:
    """The address to ask, and what of it may be shown; errors, here and below, call it the `what`.

    Raises:
        UserError: no http address, or one with a password in it.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{shown}: no address of a {what}: give http://HOST:PORT/v1, or set OPENAI_BASE_URL")
    if parts.username or parts.password:
        raise UserError(f"{shown}: a password in the address: give the key in OPENAI_API_KEY instead")
    return (url.rstrip("/") + "/v1" if parts.path in ("", "/") else url), shown


def open_client(base_url: str, timeout_seconds: float, what: str) -> "AsyncOpenAI":
    """A client with the key of the environment.

    Raises:
        UserError: OpenAI's own address, and no key.
    """
    from openai import AsyncOpenAI

    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and base_url == OPENAI_URL:
        raise UserError(
            f"the {what} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own"
        )
    # servers that want no key take any; retries are ours: they are seeded, counted, and within the budget
    return AsyncOpenAI(api_key=key or "none", base_url=base_url, timeout=timeout_seconds, max_retries=0)


def fatal(error: "APIStatusError", shown_url: str, model: str, what: str) -> UserError:
    """The line for what asking again will not mend; the server's own words without anything like a key."""
    status = error.status_code
    where = f"the {what} at {shown_url}"
    if error.code == "insufficient_quota" or status == 402:
        return UserError(
            f"{where} says that the account has no credit left ({status}): add some, start again"
        )
    if status == 401:
        return UserError(f"{where} refuses the key (401): set OPENAI_API_KEY to one that is valid there")
    if status == 403:
        return UserError(f"{where} does not let this key use {model} (403): take another model or key")
    if status == 404:
        return UserError(
            f"{where} has no model {model!r} (404): give a name from its list ({shown_url}/models), "
            "or mend OPENAI_BASE_URL"
        )
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    said = error.message.replace(key, "[key]") if key else error.message
    said = " ".join(re.sub(r"\bsk-\S+", "[key]", said).split())[:200]
    return UserError(f"{where} refuses the request ({status}): {said}")


async def in_parallel(
    items: Iterable[Item], at_once: int, work: Callable[[Item], Coroutine[Any, Any, None]]
) -> None:
    """`work` for every item, `at_once` at a time; the first error stops all and is raised."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def only_model(url: str, timeout_seconds: float, what: str) -> str:
    """The model of a server that has one; `what` is also the name of the flag that takes a model's name."""
    import openai

    base_url, shown = address(url, what)
    try:
        async with open_client(base_url, timeout_seconds, what) as client:
            models = [model.id async for model in client.models.list()]
    except openai.APIStatusError as error:
        raise fatal(error, shown, "its own list", what) from error
    except openai.APIConnectionError as error:
        raise UserError(f"the {what} at {shown} gives no answer: see that it runs") from error
    if len(models) != 1:
        raise UserError(
            f"the {what} at {shown} has {len(models)} models ({', '.join(sorted(models)[:8])}): set "
            f"OPENAI_BASE_URL to that address and give one of them as --{what}"
        )
    return models[0]
