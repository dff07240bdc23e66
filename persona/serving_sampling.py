"""The next token of each row of a batch, and log-probabilities.

A row draws with a number of its own in [0, 1), so that its answer does not depend on its neighbours.
"""

from dataclasses import dataclass

import torch

COLDEST = 1e-4
"""Temperatures below this take the likeliest token."""
LIKELIEST = 512
"""Tokens looked at first for a nucleus: sorting a whole vocabulary costs as much as a small model."""


@dataclass(frozen=True)
class TokenScore:
    """Log-probability of a token as the model gives it (temperature 1), with the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def penalised(logits: torch.Tensor, penalties: list[float], seen: list[torch.Tensor | None]) -> torch.Tensor:
    """Logits (rows, vocabulary) after each row's repetition penalty; `seen` marks its tokens, (vocabulary,).

    What was seen is divided by the penalty where it is above 0 and multiplied where it is not (Keskar et al.
    2019, section 4.1, in the form of transformers' RepetitionPenaltyLogitsProcessor). Rows of None stay.
    """
    rows = [row for row, marks in enumerate(seen) if marks is not None]
    if not rows:
        return logits
    factors = torch.tensor([[penalties[row]] for row in rows], device=logits.device, dtype=logits.dtype)
    factors = factors.clamp(1e-6, 1e6)  # beyond, the effect is the same and the numbers overflow
    given, marked = logits[rows], torch.stack([seen[row] for row in rows])
    changed = logits.clone()
    changed[rows] = torch.where(marked, torch.where(given > 0, given / factors, given * factors), given)
    return changed


def forbidden(logits: torch.Tensor, never: list[list[int]], said: list[list[int]]) -> torch.Tensor:
    """Logits (rows, vocabulary) by which no row completes one of the token sequences `never`, the base's
    `bad_words_ids`; `said` are the rows' own tokens so far."""
    ended = [
        (row, sequence[-1])
        for row, ids in enumerate(said)
        for sequence in never
        if ids[len(ids) - len(sequence) + 1 :] == sequence[:-1]
    ]
    if not ended:
        return logits
    changed = logits.clone()
    rows, tokens = zip(*ended, strict=True)
    changed[list(rows), list(tokens)] = -torch.inf
    return changed


def choose(
    logits: torch.Tensor, temperatures: list[float], top_ps: list[float], drawn: list[float]
) -> list[int]:
    """One token a row from logits (rows, vocabulary).

    Nucleus sampling (Holtzman et al. 2020): from the smallest set of likeliest tokens whose probability
    reaches top_p, by the inverse of its cumulative distribution at `drawn`. How a row is computed depends on
    that row alone.
    """
    chosen = logits.argmax(-1)
    warm = [row for row, t in enumerate(temperatures) if t >= COLDEST]
    if not warm:
        return chosen.tolist()

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor([[values[row]] for row in warm], device=logits.device, dtype=logits.dtype)

    probability = torch.softmax(logits[warm] / column(temperatures), -1)
    top_p, target = column(top_ps), column(drawn)
    picked = torch.empty(len(warm), dtype=torch.long, device=logits.device)
    whole = top_p[:, 0] >= 1
    if whole.any():  # no set to find: the tokens can stay in their order
        picked[whole] = _inverse(probability[whole], top_p[whole], target[whole])[:, 0]
    likeliest, order = probability.topk(min(LIKELIEST, probability.shape[-1]))
    within = ~whole & (likeliest.sum(-1) >= top_p[:, 0])
    if within.any():
        place = _inverse(likeliest[within], top_p[within], target[within])
        picked[within] = order[within].gather(-1, place)[:, 0]
    flat = ~whole & ~within
    if flat.any():
        ordered, order = probability[flat].sort(dim=-1, descending=True, stable=True)
        picked[flat] = order.gather(-1, _inverse(ordered, top_p[flat], target[flat]))[:, 0]
    chosen[warm] = picked
    return chosen.tolist()


def _inverse(probability: torch.Tensor, top_p: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Where the cumulative distribution of the first entries that reach top_p passes `drawn`, (rows, 1)."""
    below = probability.cumsum(-1)
    kept = (below - probability) < top_p
    kept[:, 0] = True
    target = drawn * (probability * kept).sum(-1, keepdim=True)
    return (below <= target).sum(-1, keepdim=True).minimum(kept.sum(-1, keepdim=True) - 1)


def score(logits: torch.Tensor, token: int, top: int) -> TokenScore:
    """The score of `token` under logits (vocabulary,), with the `top` likeliest."""
    logprobs = torch.log_softmax(logits, -1)
    values, ids = logprobs.topk(top)
    return TokenScore(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
