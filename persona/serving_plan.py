"""From a checked request body to what the engine computes: tokens, sampling, limits.

Everything that is wrong with a request and needs the model to see it ends here with a 400 or 404.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from persona import chat
from persona.batching import Request, ServingError
from persona.rows import Message
from persona.serving_extras import FIELDS, Extra
from persona.serving_models import ModelBank, Served
from persona.serving_schema import ChatRequest, Common, CompletionRequest

COMPLETION_TOKENS = 16
"""OpenAI's default length of a completion."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and what it gets where it does not say."""

    messages: int = 256
    prompts: int = 16
    """Prompts of one completion request."""
    answers: int = 16
    """Answers of one request (n times prompts)."""
    max_tokens: int = 256
    """Length of an answer where the request does not say."""
    temperature: float = 0.7
    top_p: float = 0.9


@dataclass(frozen=True)
class Plan:
    """What the engine is to compute for one HTTP request."""

    requests: list[Request]
    logprobs: bool
    reports: dict[str, Any]

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.prompt) for request in self.requests)

    @property
    def answers(self) -> int:
        return sum(request.n for request in self.requests)


class Planner:
    """Plans requests for one model bank."""

    def __init__(self, bank: ModelBank, extras: Mapping[str, Extra], limits: Limits):
        self.bank, self.extras, self.limits = bank, extras, limits

    def chat(self, body: ChatRequest) -> Plan:
        """A conversation.

        Raises:
            ServingError: 404 for an unknown model, 400 for what does not fit.
        """
        served = self._served(body.model)
        values = self._extras(body)
        if len(body.messages) > self.limits.messages:
            raise _bad(f"at most {self.limits.messages} messages, not {len(body.messages)}", "messages")
        if body.top_logprobs is not None and not body.logprobs:
            raise _bad("top_logprobs needs logprobs: true", "top_logprobs")
        wanted = body.max_completion_tokens or body.max_tokens
        messages, reports = self._rewritten(self._messages(body, served), values, wanted)
        try:
            if body.truncation == "auto":
                room = self.bank.context - (wanted or self.limits.max_tokens)
                messages = chat.fit(self.bank.tokenizer, messages, room) or messages
            prompt = chat.prompt_ids(self.bank.tokenizer, messages)
        except TemplateError as error:
            raise _bad(f"the model's chat template refuses this conversation: {error}", "messages") from error
        top = (body.top_logprobs or 0) if body.logprobs else None
        request = self._request(body, prompt, wanted, self.limits.max_tokens, top, values, "messages")
        return Plan([request], bool(body.logprobs), reports)

    def completion(self, body: CompletionRequest) -> Plan:
        """One or several prompts to go on with.

        Raises:
            ServingError: as `chat`.
        """
        self._served(body.model)
        values = self._extras(body)
        if "rag" in values:
            raise _bad("rag needs a conversation: use /v1/chat/completions", "rag")
        prompts = self._prompts(body)
        if not prompts or len(prompts) > self.limits.prompts:
            raise _bad(f"1 to {self.limits.prompts} prompts, not {len(prompts)}", "prompt")
        requests = [
            self._request(body, p, body.max_tokens, COMPLETION_TOKENS, body.logprobs, values, "prompt")
            for p in prompts
        ]
        if sum(r.n for r in requests) > self.limits.answers:
            raise _bad(f"at most {self.limits.answers} answers a request (n times prompts)", "n")
        return Plan(requests, body.logprobs is not None, {})

    def _served(self, model: str) -> Served:
        if model not in self.bank.served:
            known = ", ".join(self.bank.served)
            raise ServingError(
                404,
                f"the model {model[:100]!r} does not exist here; there is {known}",
                "model_not_found",
                "model",
            )
        return self.bank.served[model]

    def _extras(self, body: Common) -> dict[str, Any]:
        values = {}
        for name in FIELDS:
            given = getattr(body, name)
            if given is None or given is False:
                continue
            if name not in self.extras:
                raise _bad(f"{name} is not available on this server", name)
            try:
                values[name] = self.extras[name].check(given, body.model)
            except ValueError as error:
                raise _bad(f"{name}: {error}", name) from error
        return values

    @staticmethod
    def _messages(body: ChatRequest, served: Served) -> list[Message]:
        roles = {"developer": "system"}
        messages: list[Message] = [
            {"role": roles.get(m.role, m.role), "content": m.text()} for m in body.messages
        ]
        if served.system_prompt and not any(m["role"] == "system" for m in messages):
            messages.insert(0, {"role": "system", "content": served.system_prompt})
        return messages

    def _rewritten(
        self, messages: list[Message], values: dict[str, Any], wanted: int | None
    ) -> tuple[list[Message], dict[str, Any]]:
        reports = {}
        room = max(0, self.bank.context - (wanted or self.limits.max_tokens))
        for name, value in values.items():
            messages, report = self.extras[name].rewrite(value, messages, room)
            if report is not None:
                reports[name] = report
        return messages, reports

    def _prompts(self, body: CompletionRequest) -> list[list[int]]:
        given = body.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        vocabulary = self.bank.inner.get_input_embeddings().num_embeddings
        prompts = []
        for prompt in given:
            ids = self.bank.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
            if any(i >= vocabulary for i in ids):
                raise _bad(f"token ids must be below {vocabulary}", "prompt")
            prompts.append(ids)
        return prompts

    def _request(
        self,
        body: Common,
        prompt: list[int],
        wanted: int | None,
        default: int,
        top_logprobs: int | None,
        values: dict[str, Any],
        param: str,
    ) -> Request:
        room = self.bank.context - len(prompt)
        if not prompt:
            raise _bad("the prompt is empty", param)
        if room < (wanted or 1):
            raise ServingError(
                400,
                f"the prompt has {len(prompt)} tokens and the answer may have {wanted or 1}: "
                f"together more than the {self.bank.context} that fit",
                "context_length_exceeded",
                param,
            )
        n = body.n or 1
        if n > self.limits.answers:
            raise _bad(f"at most {self.limits.answers} answers a request, not {n}", "n")
        temperature = self.limits.temperature if body.temperature is None else body.temperature
        return Request(
            model=body.model,
            prompt=prompt,
            max_tokens=wanted or min(default, room),
            n=n,
            temperature=temperature,
            top_p=self.limits.top_p if body.top_p is None else body.top_p,
            repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
            seed=body.seed,
            stop=body.stops(),
            top_logprobs=top_logprobs,
            extras=values,
        )


def _bad(message: str, param: str) -> ServingError:
    return ServingError(400, message, param=param)
