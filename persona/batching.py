"""Continuous batching: one thread decodes all running answers together, token by token.

A new request joins between two steps: its prompt is read by itself, then its rows take part in every step
until they end. An answer therefore does not depend on its neighbours but for rounding.
"""

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from persona import serving_extras
from persona.serving_cache import SlotCache
from persona.serving_extras import Extra
from persona.serving_models import ModelBank
from persona.serving_sampling import TokenScore, choose, forbidden, penalised, score
from persona.serving_text import AnswerText

logger = logging.getLogger(__name__)


class ServingError(Exception):
    """A request that is not answered: HTTP status, OpenAI's error code, and seconds until another try."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param, self.retry_after = param, retry_after


SHUTTING_DOWN = ServingError(503, "the server is shutting down", "shutting_down", retry_after=5)
TIMED_OUT = ServingError(504, "the answer took longer than the server allows", "timeout")


@dataclass(frozen=True)
class Request:
    """What the engine computes: `n` answers to one prompt."""

    model: str
    prompt: list[int]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    """None: no log-probabilities."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Checked values of further fields, by name."""


@dataclass(frozen=True)
class Piece:
    """More of answer `index`; the last one says why it ends."""

    index: int
    text: str
    scores: tuple[TokenScore, ...] = ()
    finish_reason: str | None = None
    tokens: int = 0
    """With the last piece: tokens of the whole answer, the end of turn not among them."""


@dataclass
class Job:
    """A request in the engine.

    `emit` is called from the engine's thread: pieces of answers, or one error instead of the rest.
    """

    request: Request
    emit: Callable[[Piece | ServingError], None]
    deadline: float
    """time.monotonic() at which it is given up."""
    cancelled: bool = False

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.cancelled = True


@dataclass
class _Row:
    """One answer on its way; its index in the engine's list is its slot."""

    job: Job
    index: int
    adapter: str
    random: random.Random
    text: AnswerText
    position: int
    """Tokens in the slot."""
    started: float
    tokens: int = 0
    last: int = 0
    """The token that the next step reads."""
    seen: torch.Tensor | None = None
    """Which tokens prompt and answer hold, (vocabulary,), where their repetition has a penalty."""


class Engine:
    """The scheduler. `slots` answers at once, `queue` more requests that wait."""

    def __init__(
        self,
        bank: ModelBank,
        slots: int = 16,
        queue: int = 64,
        extras: Mapping[str, Extra] | None = None,
    ):
        self.bank, self.slots, self.queue = bank, slots, queue
        self.extras = dict(extras or {})
        self.cache = SlotCache(bank.layers, slots, bank.inner.device)
        self.waiting: deque[Job] = deque()
        self.rows: list[_Row] = []
        self.draining = False
        self._seconds = 1.0  # a running mean of what an answer takes
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._stopped = False
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ServingError: 429 when the queue is full, 503 when the engine is shutting down.
        """
        with self._changed:
            if self.draining:
                raise SHUTTING_DOWN
            if len(self.waiting) >= self.queue:
                wait = math.ceil(self._seconds * len(self.waiting) / self.slots)
                raise ServingError(
                    429,
                    f"{self.queue} requests are waiting already, try again later",
                    "queue_full",
                    retry_after=max(1, min(wait, 60)),
                )
            self.waiting.append(job)
            self._changed.notify()

    def drain(self, grace: float) -> None:
        """Take nothing more; what waits is refused, what runs has `grace` seconds."""
        with self._changed:
            self.draining = True
            refused = list(self.waiting)
            self.waiting.clear()
            end = time.monotonic() + grace
            for row in self.rows:
                row.job.deadline = min(row.job.deadline, end)
            self._changed.notify()
        for job in refused:
            job.emit(SHUTTING_DOWN)

    def close(self) -> None:
        """Stop at once; answers under way end with 503."""
        with self._changed:
            self.draining = self._stopped = True
            self._changed.notify()
        self._thread.join()

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self.waiting or self.rows or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    break
            try:
                self._leave()
                self._admit()
                if self.rows:
                    self._step()
            except Exception:  # the thread must live: the answers under way are lost, the next are not
                logger.exception("a decoding step failed")
                self._fail_all(ServingError(500, "the model failed on this batch", "internal_error"))
        self._fail_all(SHUTTING_DOWN)

    def _fail_all(self, error: ServingError) -> None:
        jobs = {id(row.job): row.job for row in self.rows}
        for slot, row in enumerate(self.rows):
            self.cache.clear(slot, row.position)
        self.rows.clear()
        with self._changed:
            if self._stopped:
                jobs |= {id(job): job for job in self.waiting}
                self.waiting.clear()
        for job in jobs.values():
            job.emit(error)

    def _leave(self) -> None:
        """Drop what nobody waits for and what has run out of time."""
        now = time.monotonic()
        with self._changed:
            late = [job for job in self.waiting if job.cancelled or job.deadline <= now]
            for job in late:
                self.waiting.remove(job)
        ended = {id(row.job): row.job for row in self.rows if row.job.cancelled or row.job.deadline <= now}
        self._remove([slot for slot, row in enumerate(self.rows) if id(row.job) in ended])
        for job in (*late, *ended.values()):
            if not job.cancelled:
                job.emit(SHUTTING_DOWN if self.draining else TIMED_OUT)

    def _remove(self, slots: list[int]) -> None:
        """Give up slots; the last rows move into the gaps."""
        for slot in sorted(slots, reverse=True):
            row = self.rows[slot]
            last = self.rows.pop()
            if last is not row:
                self.cache.clear(slot, row.position)
                self.cache.copy(len(self.rows), slot, last.position)
                self.rows[slot] = last
            self.cache.clear(len(self.rows), last.position)

    def _admit(self) -> None:
        """Read the prompts of waiting requests, first come first served, while their rows have slots."""
        while True:
            with self._changed:
                if not self.waiting or len(self.rows) + self.waiting[0].request.n > self.slots:
                    return
                job = self.waiting.popleft()
            if job.cancelled:
                continue
            first = len(self.rows)
            try:
                self._read_prompt(job)
            except Exception:  # this request alone is lost
                logger.exception("a prompt could not be read")
                self._remove(list(range(first, len(self.rows))))
                job.emit(ServingError(500, "the model failed on this request", "internal_error"))

    def _read_prompt(self, job: Job) -> None:
        request = job.request
        first, length = len(self.rows), len(request.prompt)
        seed = request.seed if request.seed is not None else random.SystemRandom().getrandbits(64)
        adapter = self.bank.served[request.model].adapter
        for index in range(request.n):
            # a generator for each answer, whatever else runs
            drawn = random.Random(f"{seed}:{index}")
            text = AnswerText(self._decode, request.stop)
            self.rows.append(_Row(job, index, adapter, drawn, text, length, time.monotonic()))
        ids = torch.tensor([request.prompt], device=self.cache.device)
        positions = torch.arange(length, device=self.cache.device)
        mask = (positions[:, None] >= positions)[None, None]
        self.cache.plan_prompt(first, length)
        with serving_extras.applied(self.extras, [request.extras]):
            logits = self.bank.forward(ids, positions[None], mask, self.cache, [adapter])
        for slot in range(first + 1, first + request.n):
            self.cache.copy(first, slot, length)
        if request.repetition_penalty != 1:
            for row in self.rows[first:]:
                row.seen = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
                row.seen[ids[0]] = True
        self._take(list(range(first, first + request.n)), logits.expand(request.n, -1))

    def _decode(self, ids: list[int]) -> str:
        return self.bank.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _step(self) -> None:
        """One token for every row."""
        count, device = len(self.rows), self.cache.device
        logits: list[torch.Tensor | None] = [None] * count
        for slots in self.bank.groups([row.adapter for row in self.rows]):
            rows = [self.rows[slot] for slot in slots]
            self.cache.plan_step(slots, [row.position for row in rows])
            positions = self.cache.plan.positions[:, None]
            mask = torch.arange(self.cache.plan.length, device=device) <= positions
            with serving_extras.applied(self.extras, [row.job.request.extras for row in rows]):
                part = self.bank.forward(
                    torch.tensor([[row.last] for row in rows], device=device),
                    positions,
                    mask[:, None, None],
                    self.cache,
                    [row.adapter for row in rows],
                )
            for slot, row_logits in zip(slots, part, strict=True):
                self.rows[slot].position += 1
                logits[slot] = row_logits
        self._take(list(range(count)), torch.stack(logits))

    def _take(self, slots: list[int], logits: torch.Tensor) -> None:
        """Choose the next token of each slot and give out what it makes certain; ended rows leave."""
        rows = [self.rows[slot] for slot in slots]
        wanted = penalised(logits, [r.job.request.repetition_penalty for r in rows], [r.seen for r in rows])
        chosen = choose(
            forbidden(wanted, self.bank.never_said, [row.text.ids for row in rows]),
            [row.job.request.temperature for row in rows],
            [row.job.request.top_p for row in rows],
            [row.random.random() for row in rows],
        )
        finite = torch.isfinite(logits.amax(-1))
        broken = {id(row.job): row.job for row, good in zip(rows, finite.tolist(), strict=True) if not good}
        for job in broken.values():
            job.emit(ServingError(500, "the model gave no finite numbers for this request", "not_finite"))
            job.cancel()
        ended = [
            slot
            for slot, row, token, row_logits in zip(slots, rows, chosen, logits, strict=True)
            if id(row.job) in broken or self._accept(row, token, row_logits)
        ]
        self._remove(ended)

    def _accept(self, row: _Row, token: int, logits: torch.Tensor) -> bool:
        """Add a token to an answer; True where the answer ends with it."""
        request = row.job.request
        reason, text, scores = None, "", []
        if token in self.bank.stop_ids:
            reason = "stop"
        else:
            wanted = request.top_logprobs
            scored = None if wanted is None else score(logits, token, wanted)
            text, scores = row.text.push(token, scored)
            row.tokens, row.last = row.tokens + 1, token
            if row.seen is not None:
                row.seen[token] = True
            if row.text.stopped:
                reason = "stop"
            elif row.tokens >= request.max_tokens:
                reason = "length"
        if reason:
            rest, more = row.text.finish()
            text, scores = text + rest, [*scores, *more]
            reason = "stop" if row.text.stopped else reason
            self._seconds += 0.1 * (time.monotonic() - row.started - self._seconds)
        if text or scores or reason:
            row.job.emit(Piece(row.index, text, tuple(scores), reason, row.tokens if reason else 0))
        return reason is not None
