"""Small jobs for a language model: what is asked, what it may cost, and the answers kept on disk."""

import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from persona.rows import Message

logger = logging.getLogger(__name__)

MESSAGE_TOKENS = 16
"""More than any chat template puts around one message."""


@dataclass(frozen=True)
class Job:
    """One question to a model, and the shape of its answer."""

    name: str
    """Letters, digits, underscores: servers see it as the name of the answer's schema."""
    messages: tuple[Message, ...]
    answer: type[BaseModel]
    max_tokens: int
    """Longest answer, in tokens."""
    tag: Any = None
    """What the caller knows the job by; neither sent nor hashed."""

    @property
    def schema(self) -> dict:
        """JSON schema of the answer."""
        return self.answer.model_json_schema()

    def key(self, model: str, settings: dict) -> str:
        """Hash of the model, the question and the settings: the same question is asked once."""
        asked = [model, settings, list(self.messages), self.name, self.schema, self.max_tokens]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of what is sent."""
        texts = [m["content"] for m in self.messages]
        return sum(len(t.encode()) for t in texts) + len(json.dumps(self.schema))


def parse_answer(text: str, answer: type[BaseModel]) -> BaseModel | None:
    """The first JSON object in a model's text that has the answer's shape; None where there is none.

    Models put fences, remarks and <think> blocks around what they were asked for.
    """
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", text):
        try:
            return answer.model_validate(decoder.raw_decode(text, brace.start())[0])
        except (ValueError, ValidationError, RecursionError):
            continue
    return None


@dataclass
class Spend:
    """Tokens used, and the budget that they may not exceed.

    What an answer may cost at most is reserved before it is asked for. Nobody but the server can count a
    prompt's tokens: a third of its bytes is more than tokenizers make of English, and a server that counts
    more than that raises the estimate.
    """

    budget_tokens: int | None = None
    """Most prompt and completion tokens together; None for no limit."""
    prices: tuple[float, float] | None = None
    """US dollars for a million prompt tokens, and for a million completion tokens."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reserved: int = 0
    tokens_per_byte: float = 1 / 3

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens used."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def dollars(self) -> float | None:
        """What the tokens cost; None where no prices are known."""
        if self.prices is None:
            return None
        return (self.prompt_tokens * self.prices[0] + self.completion_tokens * self.prices[1]) / 1e6

    def prompt_bound(self, job: Job) -> int:
        """Tokens that a prompt takes at most."""
        return math.ceil(job.bytes * self.tokens_per_byte) + MESSAGE_TOKENS * len(job.messages)

    def fits(self, tokens: int) -> bool:
        """Whether so many more tokens keep within the budget."""
        return self.budget_tokens is None or self.tokens + self.reserved + tokens <= self.budget_tokens

    def count(self, job: Job, prompt_tokens: int, completion_tokens: int, told: bool) -> None:
        """Add what was used; where the server has `told`, learn from it."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        if told:
            self.tokens_per_byte = max(self.tokens_per_byte, prompt_tokens / job.bytes)

    def __str__(self) -> str:
        cost = "" if self.dollars is None else f", ${self.dollars:.2f}"
        return f"{self.tokens:,} tokens{cost}"


class AnswerCache:
    """Answers on disk, one JSON object a line, so that a run which was stopped goes on where it was.

    A line is written at once; a torn one (a crash, a full disk) is passed over.
    """

    def __init__(self, path: Path):
        self.path = path
        self.answers: dict[str, Any] = {}
        self._out = None
        for line in self._lines():
            try:
                record = json.loads(line)
                self.answers[record["key"]] = record["answer"]
            except (ValueError, KeyError, TypeError):
                logger.info("%s: a torn line is passed over", path)

    def _lines(self) -> Iterator[bytes]:
        if self.path.is_file():
            yield from self.path.read_bytes().splitlines()

    def get(self, job: Job, key: str) -> BaseModel | None:
        """The kept answer to a job."""
        try:
            return job.answer.model_validate(self.answers[key]) if key in self.answers else None
        except ValidationError:
            return None

    def add(self, key: str, answer: BaseModel) -> None:
        """Keep an answer."""
        self.answers[key] = answer.model_dump(mode="json")
        record = {"key": key, "answer": self.answers[key]}
        if self._out is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
            self._out = self.path.open("ab", buffering=0)
            if torn and self.path.stat().st_size:
                self._out.write(b"\n")  # else the new line would be torn as well
        self._out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file; another `add` opens it again."""
        if self._out is not None:
            self._out.close()
            self._out = None


def slug(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


class Asker:
    """What teachers share: counts, spend, kept answers, the order of the answers."""

    what = "teacher"
    """What it is called when something goes wrong."""

    def __init__(self, model: str, cache: Path, settings: dict, spend: Spend):
        self.id = model
        self.settings = settings
        self.spend = spend
        self.cache = AnswerCache(cache / f"{slug(model)}.jsonl")
        self.counts: Counter[str] = Counter()
        """Jobs: "asked", "kept from before", "failed: <reason>", "left: budget"."""

    def ask(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, BaseModel | None]]:
        """Every job with its answer, in order; None where it failed or the budget ended before it.

        Raises:
            UserError: the endpoint cannot be used. KeyboardInterrupt passes through, with what was answered
                kept.
        """
        keys = [(job, job.key(self.id, self.settings)) for job in jobs]
        kept = {key for job, key in keys if self.cache.get(job, key) is not None}
        todo = {key: job for job, key in keys if key not in kept}
        self.counts["kept from before"] += len(kept)
        if todo:
            try:
                with self._bar(len(kept) + len(todo), len(kept)):
                    self._work(todo)
            except KeyboardInterrupt:
                logger.warning(
                    "stopped with %s; %d answers are kept in %s: the same command goes on from there",
                    self.spend,
                    len(self.cache.answers),
                    self.cache.path,
                )
                raise
            finally:
                self.cache.close()
        if left := self.counts["left: budget"]:
            logger.warning(
                "the budget of %s tokens ends here (%s), %d jobs are left: the same command goes on",
                f"{self.spend.budget_tokens:,}",
                self.spend,
                left,
            )
        for job, key in keys:
            yield job, self.cache.get(job, key)

    def _work(self, todo: dict[str, Job]) -> None:
        raise NotImplementedError

    @contextmanager
    def _bar(self, total: int, done: int) -> Iterator[None]:
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=f"{self.what} {self.id}", unit="job") as self._progress:
            yield

    def _keep(self, key: str, answer: BaseModel) -> None:
        self.cache.add(key, answer)
        self._ended("asked")

    def _ended(self, how: str) -> None:
        self.counts[how] += 1
        failed = sum(n for what, n in self.counts.items() if what.startswith("failed"))
        self._progress.set_postfix_str(f"{failed} failed, {self.spend}" if failed else str(self.spend), False)
        self._progress.update(not how.startswith("left"))
