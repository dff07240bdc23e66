"""How likely a model finds given texts: true replies, candidates after the same turns, plain prose.

Every result is (nll, tokens, correct, text_nll, text_tokens): negative log-likelihood in nats, its tokens and
how many of them were the likeliest, of the reply with its end of turn; and the same over every token of the
conversation but the first (the reference system's way).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from persona.chat import IGNORED, Encoded, encode
from persona.methods import has_virtual_tokens
from persona.rows import Message

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from persona.scoring import Item

Likelihood = tuple[float, int, int, float, int]
NOTHING: Likelihood = (0.0, 0, 0, 0.0, 0)
BATCH_TOKENS = 2048


def true_reply_likelihood(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: "Sequence[Item]",
    max_length: int,
    label: str,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Likelihood]:
    """The likelihood of every item's true reply; zeros where it has none or does not fit."""
    encoded = [reply_encoded(tokenizer, i.messages, i.reference, max_length) for i in items]
    return _likelihoods(model, tokenizer, encoded, label, batch_tokens)


def text_likelihood(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    max_length: int,
    label: str,
) -> list[Likelihood]:
    """The likelihood of plain texts, in no conversation; the first token is given. Zeros for what is longer
    than `max_length` tokens."""
    encoded: list[Encoded | None] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        encoded.append(Encoded(ids, [IGNORED, *ids[1:]]) if 1 < len(ids) <= max_length else None)
    return _likelihoods(model, tokenizer, encoded, label, BATCH_TOKENS)


def shared_turns_likelihood(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: "Sequence[Item]",
    max_length: int,
    label: str,
) -> list[Likelihood]:
    """As `true_reply_likelihood`, but neighbours with the same turns go through the model together, and
    their turns once. The numbers over the whole text are left at zero.

    A model that keeps virtual tokens in the place of the turns' keys (prefix tuning) scores one by one.
    """
    import torch
    from tqdm import tqdm

    if has_virtual_tokens(model):
        return true_reply_likelihood(model, tokenizer, items, max_length, label)
    encoded = [reply_encoded(tokenizer, i.messages, i.reference, max_length) for i in items]
    found = [NOTHING] * len(items)
    with torch.inference_mode(), tqdm(total=len(items), desc=label) as bar:
        for _, places in groupby(range(len(items)), key=lambda k: items[k].messages):
            group = list(places)
            told = [k for k in group if encoded[k]]
            for k, numbers in zip(told, _after_prefix(model, [encoded[k] for k in told]), strict=True):
                found[k] = numbers
            bar.update(len(group))
    return found


def reply_encoded(
    tokenizer: "PreTrainedTokenizerBase", messages: list[Message], reply: str | None, max_length: int
) -> Encoded | None:
    """A conversation with its true reply, loss on that alone; None where there is none or it does not fit."""
    said = [*messages, {"role": "assistant", "content": reply}]
    return encode(tokenizer, said, max_length, last_only=True) if reply else None


def _likelihoods(
    model, tokenizer, encoded: Sequence[Encoded | None], label: str, batch_tokens: int
) -> list[Likelihood]:
    """Texts of like length go together, up to `batch_tokens` with their padding."""
    import torch
    from tqdm import tqdm

    order = sorted((k for k, e in enumerate(encoded) if e), key=lambda k: len(encoded[k].input_ids))
    found = [NOTHING] * len(encoded)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode(), tqdm(total=len(order), desc=label) as bar:
        first = 0
        while first < len(order):
            n = 1
            while (
                first + n < len(order) and (n + 1) * len(encoded[order[first + n]].input_ids) <= batch_tokens
            ):
                n += 1
            chosen = order[first : first + n]
            ids, labels, mask = (t.to(model.device) for t in _batch([encoded[k] for k in chosen], pad))
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            said = labels[:, 1:] != IGNORED
            for k, numbers in zip(chosen, sums(logits, ids[:, 1:], said, mask[:, 1:]), strict=True):
                found[k] = numbers
            first += n
            bar.update(n)
    return found


def _batch(encoded: Sequence[Encoded], pad: int):
    """input_ids, labels, attention_mask, each (rows, longest), padded on the right."""
    import torch

    longest = max(len(e.input_ids) for e in encoded)
    ids = torch.full((len(encoded), longest), pad)
    labels = torch.full((len(encoded), longest), IGNORED)
    mask = torch.zeros_like(ids)
    for row, e in enumerate(encoded):
        n = len(e.input_ids)
        ids[row, :n], labels[row, :n], mask[row, :n] = torch.tensor(e.input_ids), torch.tensor(e.labels), 1
    return ids, labels, mask


def sums(
    logits: "torch.Tensor", ids: "torch.Tensor", said: "torch.Tensor", real: "torch.Tensor"
) -> list[Likelihood]:
    """Sums by row; logits (rows, tokens, vocabulary), the others (rows, tokens), of the same places.

    `said` is true for the tokens of the reply, `real` for all that count as text.
    """
    import torch

    logits = logits.float()
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    hit = logits.argmax(-1) == ids
    said, real = said.bool(), real.bool()
    found = [(nll * said).sum(1), said.sum(1), (hit & said).sum(1), (nll * real).sum(1), real.sum(1)]
    columns = (column.tolist() for column in found)
    return [(a, int(b), int(c), d, int(e)) for a, b, c, d, e in zip(*columns, strict=True)]


def _after_prefix(model, encoded: Sequence[Encoded]) -> list[Likelihood]:
    """Replies after the tokens that all begin with, which are computed once."""
    import torch

    if not encoded:
        return []
    first, last = min(e.input_ids for e in encoded), max(e.input_ids for e in encoded)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    # the last token before a reply predicts its first one: it is computed with the replies
    shared = min(same, *(next(i for i, x in enumerate(e.labels) if x != IGNORED) - 1 for e in encoded))
    rest = [Encoded(e.input_ids[shared:], e.labels[shared:]) for e in encoded]
    ids, labels, mask = (t.to(model.device) for t in _batch(rest, 0))
    seen, cache = mask, None
    if shared > 0:
        prefix = torch.tensor([encoded[0].input_ids[:shared]], device=model.device)
        cache = model(input_ids=prefix, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(rest))
        seen = torch.cat([torch.ones(len(rest), shared, dtype=mask.dtype, device=mask.device), mask], 1)
    logits = model(input_ids=ids, attention_mask=seen, past_key_values=cache).logits[:, :-1]
    found = sums(logits, ids[:, 1:], labels[:, 1:] != IGNORED, mask[:, 1:])
    return [(nll, tokens, correct, 0.0, 0) for nll, tokens, correct, _, _ in found]
