"""How far raters agree, with one another and with metrics."""

import math
from collections.abc import Sequence
from itertools import combinations, permutations

FEW = 10
"""Fewer items tell nothing of a correlation."""


def krippendorff_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha with the interval metric (2011, "Computing Krippendorff's Alpha-Reliability").

    `units` holds, for each item, the values of those who rated it. 1 - observed over expected squared
    difference; items with one value say nothing. None where no item has two, or all values are the same.
    """
    paired = [u for u in units if len(u) > 1]
    values = [v for u in paired for v in u]
    expected = sum((a - b) ** 2 for a, b in combinations(values, 2)) * 2
    if not expected:
        return None
    observed = sum(sum((a - b) ** 2 for a, b in permutations(u, 2)) / (len(u) - 1) for u in paired)
    return 1 - (len(values) - 1) * observed / expected


def same_share(units: Sequence[Sequence[float]]) -> float | None:
    """Share of the pairs of raters, item by item, who chose the same; None without such pairs."""
    pairs = [a == b for u in units for a, b in combinations(u, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> dict:
    """Spearman's correlation: {"rho", "ci95", "n"}.

    The interval is Fisher's, with Bonett and Wright's standard error (2000). None where there are fewer than
    ten items or one side never varies.
    """
    from scipy.stats import spearmanr

    n = len(a)
    if n < FEW or len(set(a)) < 2 or len(set(b)) < 2:
        return {"rho": None, "ci95": None, "n": n}
    rho = float(spearmanr(a, b).statistic)
    if abs(rho) > 1 - 1e-12:
        return {"rho": rho, "ci95": [rho, rho], "n": n}
    middle, half = math.atanh(rho), 1.96 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return {"rho": rho, "ci95": [math.tanh(middle - half), math.tanh(middle + half)], "n": n}
