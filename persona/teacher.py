"""A teacher: a language model that is asked many small jobs, at an endpoint or on this machine.

Any server that speaks OpenAI's chat completions will do; the key comes from the environment variable
OPENAI_API_KEY alone and is neither kept nor shown. Every answer is kept on disk at once: a run that was
stopped, or whose budget ended, goes on with the same command and asks nothing twice.
"""

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

import config
from persona import endpoint
from persona.endpoint import Dialect, Refusal, Reply
from persona.errors import UserError
from persona.jobs import Asker, Job, Spend, parse_answer

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

logger = logging.getLogger(__name__)

NONSENSE_TRIES = 3
TRIES = 6
"""How often a busy or broken server is asked before a job counts as failed."""
BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 600.0


class _Left(Exception):
    """The budget does not hold the job."""


class _Failed(Exception):
    """The job has no answer; the reason in words."""


class Teacher(Asker):
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(
        self,
        model: str,
        cache: Path,
        *,
        base_url: str | None = None,
        concurrency: int = 8,
        budget_tokens: int | None = None,
        prices: tuple[float, float] | None = None,
        timeout_seconds: float = 120.0,
        temperature: float = 0.3,
        seed: int = 42,
    ):
        """`cache` is a folder; `timeout_seconds` is for one request from start to end."""
        super().__init__(model, cache, {"temperature": temperature}, Spend(budget_tokens, prices))
        self.base_url, self.shown_url = endpoint.address(base_url, self.what)
        self.concurrency = concurrency
        self.timeout_seconds = timeout_seconds
        self.temperature = temperature
        self.seed = seed
        self.dialect = Dialect()
        self._not_before = 0.0  # on the monotonic clock: a server that asks for a pause gets it from all
        self._silent = 0  # jobs without any answer from the server, one after another

    def _work(self, todo: dict[str, Job]) -> None:
        asyncio.run(self._ask_all(todo))

    async def _ask_all(self, todo: dict[str, Job]) -> None:
        self._settled = asyncio.Condition()
        async with endpoint.open_client(self.base_url, self.timeout_seconds, self.what) as client:

            async def work(item: tuple[str, Job]) -> None:
                key, job = item
                try:
                    self._keep(key, await self._answer(client, job, key))
                except _Left:
                    self._ended("left: budget")
                except _Failed as failure:
                    self._ended(f"failed: {failure}")

            await endpoint.in_parallel(todo.items(), self.concurrency, work)

    async def _answer(self, client: "AsyncOpenAI", job: Job, key: str) -> BaseModel:
        """Ask until there is an answer of the right shape."""
        draw = random.Random(f"{self.seed}-{key}")
        broken = nonsense = 0
        max_tokens = job.max_tokens
        while True:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            reply = await self._request(client, job, max_tokens)
            if isinstance(reply, Reply):
                self._silent = 0
                if reply.refused:
                    raise _Failed("declined by the model")
                if (answer := parse_answer(reply.text, job.answer)) is not None:
                    return answer
                nonsense += 1
                if nonsense == NONSENSE_TRIES:
                    raise _Failed(
                        "cut off at its longest" if reply.cut else "not the JSON that was asked for"
                    )
                max_tokens *= 2 if reply.cut else 1
                continue
            broken += not reply.ask_otherwise
            if broken == TRIES:
                self._silent += 1
                if not self.counts["asked"] or self._silent > 2 * self.concurrency:
                    raise UserError(
                        f"the {self.what} at {self.shown_url} gives no answer ({reply.reason}, {TRIES} "
                        "tries): see that it runs; what it has answered is kept, the same command goes on "
                        "from there"
                    )
                raise _Failed(reply.reason)
            if reply.wait_seconds is not None:
                self._not_before = max(self._not_before, time.monotonic() + reply.wait_seconds)
            elif not reply.ask_otherwise:
                longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (broken - 1))
                await asyncio.sleep(longest * (0.5 + draw.random() / 2))

    async def _request(self, client: "AsyncOpenAI", job: Job, max_tokens: int) -> Reply | Refusal:
        """One request, paid from the budget."""
        import openai

        most = await self._reserve(job, max_tokens)
        spent, told = (most - max_tokens, max_tokens), False  # what a server that falls silent may have used
        sent = self.dialect
        try:
            async with asyncio.timeout(self.timeout_seconds):
                raw = await client.chat.completions.with_raw_response.create(
                    **self._fields(job, max_tokens, sent)
                )
            reply, usage = endpoint.read_reply(raw.http_response)
            spent, told = usage or spent, usage is not None
            return reply
        except (TimeoutError, openai.APITimeoutError):
            return Refusal("timeout")
        except openai.APIStatusError as error:
            spent = (0, 0)
            return self._refused(error, sent)
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError":
                spent = (0, 0)
                return Refusal("connection refused")
            return Refusal("connection dropped")
        finally:
            async with self._settled:
                self.spend.reserved -= most
                self.spend.count(job, *spent, told)
                self._settled.notify_all()

    async def _reserve(self, job: Job, max_tokens: int) -> int:
        """Set aside the tokens that the job may take, when enough of those set aside are free again."""
        async with self._settled:
            most = self.spend.prompt_bound(job) + max_tokens
            await self._settled.wait_for(lambda: self.spend.fits(most) or not self.spend.reserved)
            if not self.spend.fits(most):
                raise _Left
            self.spend.reserved += most
            return most

    def _fields(self, job: Job, max_tokens: int, dialect: Dialect) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.id,
            "messages": list(job.messages),
            dialect.limit: max_tokens,
        }
        if dialect.temperature:
            fields["temperature"] = self.temperature
        if dialect.response_format == "json_schema":
            described = {"name": job.name, "schema": job.schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": described}
        elif dialect.response_format == "json_object":
            fields["response_format"] = {"type": "json_object"}
        return fields

    def _refused(self, error: "APIStatusError", sent: Dialect) -> Refusal:
        """Why a request was refused, where it is worth asking again.

        Raises:
            UserError: it will be refused for ever. _Failed: this one will.
        """
        status, said = error.status_code, error.message.lower()
        if status in (401, 402, 403, 404) or error.code == "insufficient_quota":
            raise endpoint.fatal(error, self.shown_url, self.id, self.what)
        if status in (408, 409, 425, 429) or status >= 500:
            wait = endpoint.retry_after(error.response.headers)
            if wait is not None and wait > MAX_RETRY_AFTER_SECONDS:
                raise UserError(
                    f"the {self.what} at {self.shown_url} asks to wait for {wait:,.0f} seconds ({status}): "
                    "start the same command again then, it goes on where it stopped"
                )
            return Refusal(f"status {status}", wait)
        if error.code == "context_length_exceeded" or "context length" in said:
            raise _Failed("longer than the model's context")
        if error.code == "content_filter":
            raise _Failed("declined by the model")
        if self.dialect == sent:
            if self.counts["asked"]:  # it is this text that the server does not like
                raise _Failed(f"status {status}")
            if (lesser := endpoint.lesser(sent, said)) is None:
                raise endpoint.fatal(error, self.shown_url, self.id, self.what)
            logger.info("the %s refuses %s (%d): asked otherwise", self.what, sent, status)
            self.dialect = lesser
        return Refusal(f"status {status}", ask_otherwise=True)


def open_teacher(
    name: str,
    cache: Path,
    *,
    concurrency: int = 8,
    budget_tokens: int | None = None,
    prices: tuple[float, float] | None = None,
    timeout_seconds: float = 120.0,
    seed: int = 42,
) -> Asker:
    """A model on this machine for a folder or a name of the registry; else the model of that name at
    OPENAI_BASE_URL (OpenAI's own address where it is not set), or the only model of the server at a URL.

    Raises:
        UserError: a server that cannot be used or has several models, a folder without a model.
    """
    if name in config.MODELS or Path(name).is_dir():
        from persona.local_teacher import LocalTeacher

        return LocalTeacher(
            config.resolve_model(name, cuda=False), cache, budget_tokens=budget_tokens, seed=seed
        )
    url = name if name.startswith(("http://", "https://")) else None
    return Teacher(
        asyncio.run(endpoint.only_model(url, timeout_seconds, Teacher.what)) if url else name,
        cache,
        base_url=url,
        concurrency=concurrency,
        budget_tokens=budget_tokens,
        prices=prices,
        timeout_seconds=timeout_seconds,
        seed=seed,
    )
