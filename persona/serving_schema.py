"""What the server takes: OpenAI's request bodies, checked field by field.

Fields of that API that the server does not have are accepted at the value that means nothing and refused at
any other, so that no client believes in an effect that is not there.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MOST_ANSWERS = 128
NEUTRAL: dict[str, tuple] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
}
"""Fields without an effect here, and the values at which they mean none."""
IGNORED = (
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
    "parallel_tool_calls",
)  # fmt: skip
"""Fields that say nothing about the answer."""


def _encodable(text: str) -> str:
    """Half a surrogate pair, as JSON may escape it, is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("encoding", "holds half of a surrogate pair, which is no text") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]
TokenId = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """No conversion of types, no NaN, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(BaseModel):
    """OpenAI's stream_options."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """A turn. What clients send back with an answer (refusal, annotations ...) is left aside."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class Common(Strict):
    """What chat and completion requests share; None takes the server's default."""

    model: Text
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    repetition_penalty: float | None = Field(None, gt=0)
    """vLLM's and TGI's extension: above 1, tokens of the prompt and the answer so far become less likely."""
    n: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    max_tokens: int | None = Field(None, ge=1)
    rag: Any = None
    """Passed to the engine's extra of this name."""
    steer: Any = None
    """Passed to the engine's extra of this name."""

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, values in NEUTRAL.items():
            if name in given and given[name] not in values:
                raise PydanticCustomError("unsupported", f"{name} is not supported by this server")
        return {k: v for k, v in given.items() if k not in NEUTRAL and k not in IGNORED}

    def stops(self) -> tuple[str, ...]:
        """Stop strings, none of them empty."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncation: Literal["auto", "disabled"] | None = None
    """auto: oldest exchanges are left out where the conversation is too long."""


class CompletionRequest(Common):
    """POST /v1/completions."""

    prompt: Text | list[Text] | list[TokenId] | list[list[TokenId]]
    logprobs: int | None = Field(None, ge=0, le=5)
