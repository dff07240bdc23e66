"""Held-out loss over wall-clock time: when a loss was reached, which loss a time had."""

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]
"""(seconds, loss), in order of time."""


def seconds_to(curve: Sequence[Point], loss: float) -> float | None:
    """When the curve first came down to `loss`, between two points on the straight line; None if never."""
    for (before, above), (after, below) in pairwise(curve):
        if above <= loss:
            return before
        if below <= loss:
            return before + (above - loss) / (above - below) * (after - before)
    return curve[-1][0] if curve[-1][1] <= loss else None


def loss_at(curve: Sequence[Point], seconds: float) -> float:
    """Loss at a time, between two points on the straight line; the first or last one's beyond them."""
    if seconds <= curve[0][0]:
        return curve[0][1]
    for (before, above), (after, below) in pairwise(curve):
        if seconds <= after:
            return above + (below - above) * (seconds - before) / (after - before)
    return curve[-1][1]
