"""Padding-free batches that encode a common beginning once, and the attention that goes with them.

All rows of a batch lie one after another in one sequence. Where they begin alike (they all carry the
persona's system prompt), that beginning stands there once and every row attends to it: a fifth of the
tokens of a Sherlock batch. The result is the same as with a copy in each row, dropout masks apart.
transformers' own padding-free path under SDPA builds one (tokens, tokens) mask for the flattened batch and
computes all of it; here each row is computed by itself.
"""

from itertools import pairwise
from typing import Any

from persona.chat import IGNORED

NAME = "segmented"
MIN_PREFIX = 8


def register() -> str:
    """Make the attention known to transformers; returns its name for `set_attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segmented_attention)
    return NAME


def common_prefix(rows: list[dict[str, Any]]) -> int:
    """Tokens that all rows begin with and that nothing is learned from.

    No loss on them nor on the token after them.
    """
    first, last = min(r["input_ids"] for r in rows), max(r["input_ids"] for r in rows)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    learned = min(
        next((i for i, label in enumerate(r["labels"]) if label != IGNORED), len(r["labels"])) for r in rows
    )
    length = min(same, learned - 1, *(len(r["input_ids"]) - 1 for r in rows))
    return length if length >= MIN_PREFIX and len(rows) > 1 else 0


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Flatten rows into one sequence.

    input_ids, labels, position_ids (1, tokens); row_borders (rows + 1), from the prefix's end on.
    """
    import torch

    shared = common_prefix(rows)
    ids, labels, positions, borders = (
        rows[0]["input_ids"][:shared],
        [IGNORED] * shared,
        list(range(shared)),
        [shared],
    )
    for row in rows:
        ids = ids + row["input_ids"][shared:]
        labels += [IGNORED, *row["labels"][shared + 1 :]]  # the token before a row's first is another row's
        positions += range(shared, len(row["input_ids"]))
        borders.append(len(ids))
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "row_borders": torch.tensor(borders, dtype=torch.int32),
    }


def segmented_attention(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_borders=None,
    **kwargs,
):
    """SDPA over the common prefix, then over every row with the prefix before it.

    query (1, heads, tokens, size), key and value (1, kv heads, tokens, size).
    Returns ((1, tokens, heads, size), None). Without borders it is plain SDPA with the mask as given.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if row_borders is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )

    def attend(q, k, v, **how):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, enable_gqa=q.shape[1] != k.shape[1], **how
        )

    borders = row_borders.tolist()
    shared = borders[0]
    prefix_key, prefix_value = key[:, :, :shared], value[:, :, :shared]
    outputs = [attend(query[:, :, :shared], prefix_key, prefix_value, is_causal=True)] if shared else []
    for a, b in pairwise(borders):
        q, k, v = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
        if shared:
            mask = torch.ones(b - a, shared + b - a, dtype=torch.bool, device=query.device).tril(shared)
            outputs.append(
                attend(q, torch.cat([prefix_key, k], 2), torch.cat([prefix_value, v], 2), attn_mask=mask)
            )
        else:
            outputs.append(attend(q, k, v, is_causal=True))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None
