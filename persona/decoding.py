"""Decoding a list of prompts in one running batch: who has ended leaves, who waits takes the place.

A step costs nearly the same whether four rows take part or sixteen, so that a full batch is what counts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persona.methods import has_virtual_tokens

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
    from transformers.cache_utils import Cache

ROUND = 16
"""Tokens between two looks at which answers have ended."""


def _near(prompt: list[int], width: int) -> bool:
    """Whether a prompt may join rows of this width: each step reads rows as wide as the longest."""
    return len(prompt) <= 1.5 * width + 64


@dataclass
class Batch:
    """Answers on their way."""

    ids: "torch.Tensor"
    """Prompts and what was made of their answers, (rows, tokens), padded on the left."""
    mask: "torch.Tensor"
    """1 where `ids` are text, 0 where they are padding, (rows, tokens)."""
    cache: "Cache | None"
    """Keys and values of all tokens but the last. None: each call reads everything anew."""
    places: list[int]
    """Of each row, in the list of prompts."""
    made: list[int]
    """Tokens of each row's answer."""


def padded(
    prompts: Sequence[list[int]], pad: int, device: "torch.device"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Ids and attention mask, (prompts, longest), padded on the left."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def decode(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    settings: "GenerationConfig",
    batch_size: int,
    processors: "Callable[[int], LogitsProcessorList]",
    refill: bool,
    read: "Callable[[list[int]], Cache] | None" = None,
) -> "Iterator[tuple[int, torch.Tensor]]":
    """Place in the list and tokens (tokens,) of every answer, as they end; those behind the first stop token
    mean nothing.

    `processors` are made for each call, from the length of the prompts with their padding. `refill`: waiting
    prompts join a running batch; without it they wait until it is empty, so that drawn answers and penalties
    on repetition see one batch from its beginning to its end. `read` gives, for places in the list, keys and
    values of all tokens but the last; without it the model reads each prompt whole.
    """
    limit = settings.max_new_tokens
    waiting, running = deque(range(len(prompts))), None
    while waiting or running:
        free = batch_size - (len(running.places) if running else 0)
        enough = refill and free >= max(1, batch_size // 4)
        if waiting and (running is None or (enough and _near(prompts[waiting[0]], running.ids.shape[1]))):
            places = [waiting.popleft()]
            shortest = len(prompts[places[0]])
            while waiting and len(places) < free and (not refill or _near(prompts[waiting[0]], shortest)):
                places.append(waiting.popleft())
            joining = _begun(model, [prompts[k] for k in places], places, settings, read)
            start = joining.ids.shape[1]
            ended, joining = _go_on(
                model, joining, settings, 1 if refill else ROUND, limit, processors(start)
            )
            both = running and joining
            running = _joined(running, joining, settings.pad_token_id) if both else running or joining
        else:
            ended, running = _go_on(model, running, settings, ROUND, limit, processors(start))
        yield from ended


def _begun(model, prompts: list[list[int]], places: list[int], settings, read) -> Batch:
    from persona import room

    if has_virtual_tokens(model):
        cache = None
    else:
        cache = read(places) if read else room.roomy_cache()
    return Batch(*padded(prompts, settings.pad_token_id, model.device), cache, places, [0] * len(places))


def _go_on(
    model, batch: Batch, settings, tokens: int, limit: int, processors
) -> "tuple[list[tuple[int, torch.Tensor]], Batch | None]":
    """The answers that end within `tokens` more, and the batch of the others."""
    import torch

    left = limit - max(batch.made)
    settings.max_new_tokens = left if batch.cache is None else min(tokens, left)
    kept = {} if batch.cache is None else {"past_key_values": batch.cache}
    found = model.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        generation_config=settings,
        logits_processor=processors,
        **kept,
    )
    new = found[:, batch.ids.shape[1] :]
    made = [n + new.shape[1] for n in batch.made]
    stopped = torch.isin(new, torch.tensor(settings.eos_token_id, device=new.device)).any(1).tolist()
    over = [stop or n >= limit for stop, n in zip(stopped, made, strict=True)]
    ended = [(batch.places[row], found[row, -made[row] :]) for row, end in enumerate(over) if end]
    going = [row for row, end in enumerate(over) if not end]
    if not going:
        return ended, None
    rows = torch.tensor(going, device=found.device)
    if len(going) < len(over):
        batch.cache.batch_select_indices(rows)
    mask = torch.cat([batch.mask, torch.ones_like(new)], 1)[rows]
    places = [batch.places[row] for row in going]
    return ended, Batch(found[rows], mask, batch.cache, places, [made[row] for row in going])


def _joined(running: Batch, joining: Batch, pad: int) -> Batch:
    """One batch of the rows of both, as wide as its longest row."""
    import torch

    from persona import room

    both = (running, joining)
    width = max(int(batch.mask.sum(1).max()) for batch in both)

    def aligned(rows: "torch.Tensor", fill: int) -> "torch.Tensor":
        more = max(0, width - rows.shape[1])
        return torch.nn.functional.pad(rows[:, -width:], (more, 0), value=fill)

    room.join(running.cache, joining.cache, width - 1)
    return Batch(
        torch.cat([aligned(batch.ids, pad) for batch in both]),
        torch.cat([aligned(batch.mask, 0) for batch in both]),
        running.cache,
        running.places + joining.places,
        running.made + joining.made,
    )
