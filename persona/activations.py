"""What the blocks of a model carry: averages over the response, over the prompt, and the prompt's last token.

One forward pass reads every layer. Index i is the output of block i, which transformers calls
`hidden_states[i + 1]` (save for the last block, where transformers shows it after the final norm and this is
before). Averages are taken inside the hooks, so that no layer's hidden states outlive its block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persona.chat import IGNORED, encode, prompt_ids
from persona.errors import UserError
from persona.methods import has_virtual_tokens
from persona.rows import Message

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KINDS = ("response_avg", "prompt_avg", "prompt_last")
"""What is kept of a conversation, in the order of the second axis of `read`."""
CONVENTION = (
    "index i is the output of block i, before any final norm (hidden_states[i + 1] of transformers); "
    "shape (layers, hidden)"
)


@dataclass(frozen=True)
class Turn:
    """A conversation as tokens: the prompt, then the response without its end-of-turn token."""

    input_ids: list[int]
    n_prompt: int
    """Tokens before the response."""

    @property
    def n_response(self) -> int:
        """Tokens of the response."""
        return len(self.input_ids) - self.n_prompt


def turn_of(
    tokenizer: "PreTrainedTokenizerBase", messages: list[Message], answer: str | None, max_length: int
) -> Turn | None:
    """A prompt and its answer as tokens (no answer: the prompt alone); None where they do not fit."""
    if answer is None:
        ids = prompt_ids(tokenizer, messages)
        return Turn(ids, len(ids)) if len(ids) <= max_length else None
    encoded = encode(
        tokenizer, [*messages, {"role": "assistant", "content": answer}], max_length, last_only=True
    )
    if encoded is None:
        return None
    n_prompt = next(i for i, label in enumerate(encoded.labels) if label != IGNORED)
    return Turn(encoded.input_ids[:-1], n_prompt)  # the last token is the end of turn


def blocks_of(model: "torch.nn.Module") -> list["torch.nn.Module"]:
    """The decoder blocks, first to last, of a model with or without an adapter.

    Raises:
        UserError: no list of as many modules as the model's configuration has layers.
    """
    import torch

    wanted = model.config.get_text_config().num_hidden_layers
    found = [
        (name.count("."), name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == wanted
    ]
    if not found:
        raise UserError(
            f"{type(model).__name__}: no list of {wanted} decoder blocks in it, so that there is nothing to "
            "read or steer; give a decoder-only model of transformers"
        )
    return list(min(found, key=lambda f: f[:2])[2])


def hidden_size(model: "torch.nn.Module") -> int:
    """Width of the residual stream."""
    return model.config.get_text_config().hidden_size


def decoder_of(model: "PreTrainedModel") -> "torch.nn.Module":
    """The model without its output head: nothing of the vocabulary's size is computed.

    Raises:
        UserError: an adapter that puts virtual tokens before the prompt, which moves all positions.
    """
    if has_virtual_tokens(model):
        kind = model.active_peft_config.peft_type.value
        raise UserError(f"an adapter of the kind {kind} has no activations of its own: use LoRA")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_decoder()


def states_of(output) -> "torch.Tensor":
    """The hidden states (batch, tokens, hidden) in what a block returns."""
    return output[0] if isinstance(output, tuple) else output


def with_states(output, states: "torch.Tensor"):
    """What a block puts out, with other states in the place of its own."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


def padded(turns: Sequence[Turn], pad: int, device) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Right-padded (input_ids, attention_mask), each (batch, longest)."""
    import torch

    longest = max(len(t.input_ids) for t in turns)
    ids = torch.full((len(turns), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, turn in enumerate(turns):
        ids[row, : len(turn.input_ids)] = torch.tensor(turn.input_ids)
        mask[row, : len(turn.input_ids)] = 1
    return ids.to(device), mask.to(device)


def _weights(turns: Sequence[Turn], longest: int) -> "torch.Tensor":
    """(kinds, batch, longest): what each position counts in each average; zeros without a response."""
    import torch

    weights = torch.zeros(len(KINDS), len(turns), longest)
    for row, turn in enumerate(turns):
        if turn.n_response:
            weights[0, row, turn.n_prompt : len(turn.input_ids)] = 1 / turn.n_response
        weights[1, row, : turn.n_prompt] = 1 / turn.n_prompt
        weights[2, row, turn.n_prompt - 1] = 1
    return weights


@contextmanager
def _averages(blocks: list, weights: "torch.Tensor") -> Iterator[list]:
    """While open, every block leaves its (batch, kinds, hidden) averages in the list."""
    import torch

    found: list = [None] * len(blocks)

    def hook(i: int):
        def keep(module, arguments, output) -> None:
            found[i] = torch.einsum("kbs,bsh->bkh", weights, states_of(output).float())

        return keep

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def read(model: "PreTrainedModel", turns: Sequence[Turn], pad: int) -> "torch.Tensor":
    """Averages of one batch in one forward pass: (batch, kinds, layers, hidden), float32, on the CPU."""
    import torch

    ids, mask = padded(turns, pad, model.device)
    weights = _weights(turns, ids.shape[1]).to(model.device)
    with torch.inference_mode(), _averages(blocks_of(model), weights) as found:
        decoder_of(model)(input_ids=ids, attention_mask=mask, use_cache=False)
        return torch.stack(found, dim=2).cpu()


def pad_of(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that fills batches; it is masked, so that any will do."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def read_all(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Turn],
    batch_size: int = 16,
    label: str | None = None,
) -> Iterator[tuple[list[int], "torch.Tensor"]]:
    """(places, averages) of batch after batch, turns of similar length together.

    Averages are (batch, kinds, layers, hidden): reduce them as they come, they are not kept.
    """
    from tqdm import tqdm

    order = sorted(range(len(turns)), key=lambda k: (len(turns[k].input_ids), k))
    pad = pad_of(tokenizer)
    with tqdm(total=len(turns), desc=label, disable=None if label else True) as bar:
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            yield places, read(model, [turns[k] for k in places], pad)
            bar.update(len(places))


def reply_likelihoods(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Turn],
    batch_size: int = 16,
    steering=None,
) -> list[float]:
    """Negative log-likelihood of each response in nats, summed over its tokens; teacher-forced.

    `steering` is an open `Steering` of this model: it is told where the responses are.
    """
    import torch

    found = [0.0] * len(turns)
    order = sorted(range(len(turns)), key=lambda k: (len(turns[k].input_ids), k))
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        batch = [turns[k] for k in places]
        ids, mask = padded(batch, pad_of(tokenizer), model.device)
        response = torch.zeros_like(ids, dtype=torch.bool)
        for row, turn in enumerate(batch):
            response[row, turn.n_prompt - 1 : len(turn.input_ids)] = True
        if steering is not None:
            steering.response = response
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        if steering is not None:
            steering.response = None
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        scored = response[:, :-1] & (mask[:, 1:] == 1)
        for k, value in zip(places, (nll * scored).sum(1).tolist(), strict=True):
            found[k] = value
    return found
