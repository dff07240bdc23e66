"""Attention for padding-free batches: each row attends to itself alone, without a mask over the whole batch.

transformers' own padding-free path under SDPA builds one (tokens, tokens) mask for the flattened batch and computes all of it:
for eight rows seven eighths of the products are thrown away.
"""

NAME = "segmented"


def register() -> str:
    """Make the attention known to transformers; returns its name for `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segmented_attention)
    return NAME


def segmented_attention(module, query, key, value, attention_mask, dropout: float = 0.0, scaling: float | None = None, cu_seq_lens_q=None, **kwargs):
    """SDPA over every row of a flattened batch by itself.

    query (1, heads, tokens, size), key and value (1, kv heads, tokens, size), cu_seq_lens_q (rows + 1) row borders. Returns
    ((1, tokens, heads, size), None). Without borders it is plain SDPA with the mask as given.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None or attention_mask is not None or query.shape[0] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    borders = cu_seq_lens_q.tolist()
    grouped = query.shape[1] != key.shape[1]
    rows = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=grouped
        )
        for a, b in zip(borders, borders[1:], strict=False)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None
