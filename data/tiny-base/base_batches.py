"""Batches of the embedded base model: which rows each step sees, whole texts in parts of like length."""

POOL = 16
"""Steps whose rows are sorted by length together."""


def token_shares(args, step: int) -> dict[str, float]:
    """The share of a step's tokens by kind of text."""
    decaying = step >= args.steps - args.decay_steps
    talk, assistant = (args.talk_share_decay, args.assistant_share) if decaying else (args.talk_share, 0.0)
    shares = {"prose": 1 - talk - assistant, "talk": talk, "assistant": assistant}
    return {kind: share for kind, share in shares.items() if share > 1e-9}


def kinds(args) -> list[str]:
    """The kinds of text that have a share at some step."""
    return list(token_shares(args, 0) | token_shares(args, args.steps - 1))


def plan(args, rows: dict[str, list]) -> list[list[list]]:
    """The rows of every step, in parts: some `batch` x `context` tokens a step, from the seed alone.

    The rows of a kind come in shuffled order, none again before all have come. Those of POOL steps are
    sorted by length and cut into parts of at most `micro_batch` x `context` places, padding included;
    these are dealt out to the steps at random.
    """
    import numpy as np

    rng = np.random.default_rng(args.seed)

    def shuffled(kind: str):
        while True:
            yield from (rows[kind][i] for i in rng.permutation(len(rows[kind])))

    sources = {kind: shuffled(kind) for kind in rows}
    due = dict.fromkeys(rows, 0.0)  # tokens
    steps: list[list[list]] = []
    while len(steps) < args.steps:
        pool = []
        pooled = range(len(steps), min(len(steps) + POOL, args.steps))
        for step in pooled:
            for kind, share in token_shares(args, step).items():
                due[kind] += share * args.batch * args.context
                while due[kind] > 0:
                    pool.append(next(sources[kind]))
                    due[kind] -= len(pool[-1]) - 1
        parts: list[list] = []
        for row in sorted(pool, key=len, reverse=True):
            if not parts or (len(parts[-1]) + 1) * len(parts[-1][0]) > args.micro_batch * args.context:
                parts.append([])
            parts[-1].append(row)
        order = rng.permutation(len(parts))
        steps += [[parts[i] for i in dealt] for dealt in np.array_split(order, len(pooled))]
    return steps


def predicted(parts: list[list]) -> int:
    """Tokens of a step that have a token before them."""
    return sum(len(row) - 1 for part in parts for row in part)


def padded(part: list):
    """Rows as one tensor (rows, longest) of token ids; what pads is -100."""
    import numpy as np
    import torch

    longest = max(map(len, part))
    wide = [np.pad(row.astype(np.int64), (0, longest - len(row)), constant_values=-100) for row in part]
    return torch.from_numpy(np.stack(wide))
