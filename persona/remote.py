"""A model behind an OpenAI-compatible endpoint as a system of the evaluation: it answers, no more."""

import asyncio
import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING

from persona import endpoint
from persona.answer_cache import AnswerCache, key_of
from persona.endpoint import Dialect
from persona.errors import UserError
from persona.rows import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

CONCURRENCY = 8
TRIES = 6
TIMEOUT_SECONDS = 120.0
BACKOFF_SECONDS = 0.5
MAX_WAIT_SECONDS = 60.0


class EndpointDoor:
    """Asks a server for greedy answers (temperature 0, which not every server takes to the letter).

    First words cannot be put into a chat model's mouth by this protocol: they are asked for in so many words,
    and taken off the answer where it begins with them.
    """

    def __init__(self, url: str, model: str, cache: Path) -> None:
        """`cache` is a folder; answers are kept in it by address and model."""
        self.model = model
        self.base_url, self.shown_url = endpoint.address(url, "server")
        self._cache = AnswerCache(cache / f"{key_of(self.base_url, model)[:24]}.jsonl")
        self._dialect = Dialect(response_format="text")

    def answers(
        self, conversations: list[list[Message]], openings: list[str], max_new_tokens: int, label: str
    ) -> list[str]:
        """One answer to each conversation, as the server gives it.

        Raises:
            UserError: the server refuses, or stays silent.
        """
        asked = [_begun(m, o) for m, o in zip(conversations, openings, strict=True)]
        keys = [key_of("answer", m, max_new_tokens) for m in asked]
        todo = {key: m for key, m in zip(keys, asked, strict=True) if key not in self._cache}
        if todo:
            asyncio.run(self._ask_all(todo, max_new_tokens, label))
        said = [self._cache[key] for key in keys]
        return [a.removeprefix(o).strip() if o else a for a, o in zip(said, openings, strict=True)]

    async def _ask_all(self, todo: dict[str, list[Message]], max_new_tokens: int, label: str) -> None:
        from tqdm import tqdm

        with tqdm(total=len(todo), desc=label) as bar:
            async with endpoint.open_client(self.base_url, TIMEOUT_SECONDS, "server") as client:

                async def work(item: tuple[str, list[Message]]) -> None:
                    key, messages = item
                    self._cache.keep(key, await self._answer(client, key, messages, max_new_tokens))
                    bar.update()

                await endpoint.in_parallel(todo.items(), CONCURRENCY, work)

    async def _answer(
        self, client: "AsyncOpenAI", key: str, messages: list[Message], max_new_tokens: int
    ) -> str:
        import openai

        draw = random.Random(key)
        for attempt in range(TRIES):
            dialect = self._dialect
            fields = {dialect.limit: max_new_tokens} | ({"temperature": 0.0} if dialect.temperature else {})
            try:
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model, messages=messages, **fields
                )
                return endpoint.read_reply(response.http_response)[0].text.strip()
            except openai.APIStatusError as error:
                if error.status_code == 400 and dialect != self._dialect:
                    continue  # another worker has heard of it already
                if error.status_code == 400 and (other := endpoint.lesser(dialect, error.message)):
                    self._dialect = other
                    continue
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise endpoint.fatal(error, self.shown_url, self.model, "server") from error
                pause = endpoint.retry_after(error.response.headers)
            except openai.APIConnectionError:
                pause = None
            wait = pause if pause is not None else BACKOFF_SECONDS * 2**attempt * draw.uniform(0.75, 1.25)
            await asyncio.sleep(min(wait, MAX_WAIT_SECONDS))
        raise UserError(
            f"{self.shown_url} gives no answer after {TRIES} tries: see that it runs, start again"
        )


def _begun(messages: list[Message], opening: str) -> list[Message]:
    """The conversation, with a request to begin the answer in given words."""
    if not opening:
        return messages
    last = messages[-1]
    asks = f'{last["content"]}\n\n(Begin your answer with exactly these words: "{opening}")'
    return [*messages[:-1], {**last, "content": asks}]
