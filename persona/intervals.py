"""Bootstrap intervals for ratios of sums, resampled by cluster (story or scene), paired across systems."""

import math
import warnings
from collections.abc import Sequence

from persona.metrics import Metric

RESAMPLES = 10_000


def clustered(values: Sequence[float], clusters: Sequence[str]) -> list[float]:
    """Sums by cluster, in the order of the clusters' first appearance."""
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    return list(sums.values())


def interval(metric: Metric, clusters: Sequence[str], seed: int = 0) -> list[float] | None:
    """95% interval of a metric; None with fewer than two clusters."""
    data = [clustered(metric.numerators, clusters), clustered(metric.denominators, clusters)]
    return _bootstrap(data, lambda n, d: metric.transform(_ratio(n, d)), seed)


def difference(a: Metric, b: Metric, clusters: Sequence[str], seed: int = 0) -> dict:
    """a minus b on the same items: {"value", "ci95"}."""
    if len(a.numerators) != len(b.numerators):
        raise ValueError("a difference needs the same items on both sides")
    data = [clustered(v, clusters) for m in (a, b) for v in (m.numerators, m.denominators)]
    ci = _bootstrap(
        data, lambda na, da, nb, db: a.transform(_ratio(na, da)) - b.transform(_ratio(nb, db)), seed
    )
    return {"value": finite(a.value - b.value), "ci95": ci}


def finite(value: float) -> float | None:
    """A number as JSON can hold it: None for nan (no denominator)."""
    return None if math.isnan(value) else value


def _ratio(numerators, denominators):
    """Sum over sum along the last axis; a resample without a denominator is left out as nan."""
    import numpy as np

    below = denominators.sum(axis=-1)
    return np.where(below > 0, numerators.sum(axis=-1) / np.where(below > 0, below, 1), np.nan)


def _bootstrap(data: list[list[float]], statistic, seed: int) -> list[float] | None:
    """Bias-corrected and accelerated interval (Efron 1987) over clusters.

    Percentiles where BCa is not defined. `data` holds lists of one length, one value a cluster; they are
    resampled together.
    """
    import numpy as np
    from scipy.stats import bootstrap

    columns = np.asarray(data, dtype=float)  # (numerators and denominators of each metric, clusters)
    arrays = list(columns[:, (columns[1::2] > 0).any(axis=0)])  # a cluster without a denominator says nothing
    if len(arrays[0]) < 2:
        return None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = bootstrap(
                arrays,
                lambda *columns, axis=-1: statistic(*columns),
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=1000,
                method=method,
                rng=np.random.default_rng(seed),
            )
        found = result.confidence_interval
        if not (math.isnan(found.low) or math.isnan(found.high)):
            return [float(found.low), float(found.high)]
    resamples = result.bootstrap_distribution[~np.isnan(result.bootstrap_distribution)]
    return [float(x) for x in np.percentile(resamples, [2.5, 97.5])] if len(resamples) else None
