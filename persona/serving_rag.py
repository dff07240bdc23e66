"""The request field `rag`: passages of the persona's corpus before the last question, and their sources.

`"rag": true` searches the whole corpus, `"rag": {"up_to": "The Final Problem"}` leaves later stories out.
The answer lists what was shown: `"rag": {"sources": [{"story", "title", "passage", "citation"}]}`.
"""

from typing import TYPE_CHECKING, Any

from persona.errors import UserError
from persona.retrieval import Retriever, with_passages
from persona.rows import Message
from persona.serving_extras import Extra

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rag(Extra):
    """Retrieval over one corpus, for every model of the server."""

    def __init__(self, retriever: Retriever, tokenizer: "PreTrainedTokenizerBase"):
        self.retriever, self.tokenizer = retriever, tokenizer

    def check(self, value: Any, model_id: str) -> dict[str, str | None]:
        """True or {"up_to": STORY}; returns {"up_to": the story's id, or None}."""
        if value is True:
            return {"up_to": None}
        if not isinstance(value, dict) or set(value) != {"up_to"} or not isinstance(value["up_to"], str):
            raise ValueError('give true, or {"up_to": STORY}')
        try:
            return {"up_to": self.retriever.find_story(value["up_to"])}
        except UserError as error:
            raise ValueError(str(error)) from error

    def rewrite(
        self, value: dict[str, str | None], messages: list[Message], room: int
    ) -> tuple[list[Message], Any]:
        """The passages that fit before the last user turn; whole exchanges stay, passages give way first."""
        shown, found = with_passages(self.retriever, self.tokenizer, messages, room, value["up_to"])
        sources = [
            {"story": p.story, "title": p.title, "passage": p.number, "citation": p.citation()} for p in found
        ]
        return shown, {"sources": sources}
