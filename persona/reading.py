"""Prompts read together with their true replies.

One pass gives the likelihood of the replies and the keys and values that answers go on from.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from persona.likelihood import BATCH_TOKENS, NOTHING, Likelihood, reply_encoded, sums
from persona.methods import has_virtual_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

    from persona.scoring import Item


def replies_after(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    items: "Sequence[Item]",
    max_length: int,
) -> list[list[int]]:
    """The tokens that follow each prompt where the item's true reply does.

    Empty where there is no reply, where both do not fit `max_length` tokens, and for a model that keeps
    virtual tokens in the place of keys and values.
    """
    if has_virtual_tokens(model):
        return [[] for _ in prompts]
    found = []
    for prompt, item in zip(prompts, items, strict=True):
        encoded = reply_encoded(tokenizer, item.messages, item.reference, max_length)
        ids, labels = (encoded.input_ids, encoded.labels) if encoded else ([], [])
        n = len(prompt)  # where turns were left out for the length, the text begins otherwise
        found.append(ids[n:] if ids[:n] == prompt and labels[n:] == ids[n:] else [])
    return found


class Reader:
    """Reads prompts with the replies that follow them, where they have one."""

    def __init__(
        self, model: "PreTrainedModel", prompts: Sequence[list[int]], replies: Sequence[list[int]]
    ) -> None:
        """Tokens of prompts and replies; a reply may be empty."""
        self.model, self.prompts, self.replies = model, prompts, replies
        self.likelihoods: list[Likelihood] = [NOTHING] * len(prompts)
        """Of the replies that were read, in the order of the prompts."""

    def __call__(self, places: list[int]) -> "Cache":
        """Keys and values of these prompts but their last tokens, padded on the left to the longest."""
        from persona import room

        width = max(len(self.prompts[k]) for k in places)
        columns = width + max(len(self.replies[k]) for k in places)
        rows = max(1, BATCH_TOKENS // columns)
        whole = self._read(places[:rows], width)
        for first in range(rows, len(places), rows):
            room.join(whole, self._read(places[first : first + rows], width), width - 1)
        return whole

    def _read(self, places: list[int], width: int) -> "Cache":
        """One pass: prompts end at column `width`, replies begin there and are padded on the right."""
        import torch

        from persona import room

        behind = max(len(self.replies[k]) for k in places)
        ids = torch.zeros(len(places), width + behind, dtype=torch.long)
        said, real = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, k in enumerate(places):
            start, end = width - len(self.prompts[k]), width + len(self.replies[k])
            ids[row, start:end] = torch.tensor([*self.prompts[k], *self.replies[k]])
            said[row, width:end] = 1
            real[row, start:end] = 1
        ids, said, real = (rows.to(self.model.device) for rows in (ids, said, real))
        cache = room.roomy_cache()
        logits = self.model(
            input_ids=ids,
            attention_mask=real,
            position_ids=(real.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            logits_to_keep=0 if behind else 1,
        ).logits
        if behind:
            # the first real token follows padding: nothing predicts it
            told = real[:, 1:] * real[:, :-1]
            for k, numbers in zip(places, sums(logits[:, :-1], ids[:, 1:], said[:, 1:], told), strict=True):
                if self.replies[k]:
                    self.likelihoods[k] = numbers
        cache.crop(-(behind + 1))
        return cache
