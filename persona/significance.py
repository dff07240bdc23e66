"""What the differences of evaluation reports prove: exact tests, Holm's correction, power, seeds, other runs.

Reports are dictionaries as evaluation_report.json holds them. Runs and seeds are compared cluster by cluster,
from each metric's "jackknife": {system: {cluster: the metric without that cluster}}.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from persona.errors import UserError
from persona.intervals import RESAMPLES, difference, p_value
from persona.metrics import Metric

COMPARABLE = {
    "items_sha256": "items",
    "protocol": "protocols",
    "canon_term_rate": "canon term rates",
}
"""What reports must share to be compared."""


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> dict:
    """McNemar's exact test (1947) on yes/no items: {"only_a", "only_b", "p"}, two-sided.

    Only items on which the systems part count: under "no difference" each goes either way with probability
    1/2. Items are taken as independent; where they are not (many of one story), the clustered p-value holds.
    """
    from scipy.stats import binomtest

    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    parted = only_a + only_b
    p = float(binomtest(only_a, parted).pvalue) if parted else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of a family of tests (Holm 1979), in the order given.

    All below 0.05: the chance of one false finding or more in the family is below 0.05, however the tests
    depend on one another.
    """
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def with_holm(metrics: dict) -> dict:
    """A report's metrics with "p_holm" beside each "p"; a family is one pair of systems over all metrics."""
    families: dict[str, dict[str, float]] = {}
    for name, metric in metrics.items():
        for pair, found in metric["differences"].items():
            if found.get("p") is not None:
                families.setdefault(pair, {})[name] = found["p"]
    adjusted = {pair: holm(family) for pair, family in families.items()}
    return {
        name: metric
        | {
            "differences": {
                pair: found | {"p_holm": adjusted.get(pair, {}).get(name)}
                for pair, found in metric["differences"].items()
            }
        }
        for name, metric in metrics.items()
    }


def rule_of_three(n: int) -> float:
    """Highest failure rate, at 95%, that no failure in n independent tries allows: 3/n, at most 1.

    Hanley and Lippman-Hand (1983); (1 - p)^n = 0.05 gives p = -ln(0.05)/n, nearly.
    """
    if n < 1:
        raise ValueError("the rule of three needs at least one try")
    return min(1.0, 3 / n)


def smallest_detectable(spread: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that a two-sided paired test on n clusters finds with probability `power`.

    (t(1 - alpha/2) + t(power)) * spread / sqrt(n), t quantiles of n - 1 degrees of freedom (Bloom 1995);
    `spread` is the standard deviation of the clusters' differences.
    """
    from scipy.stats import t

    if n < 2:
        raise ValueError("power needs at least two clusters")
    return float((t.ppf(1 - alpha / 2, n - 1) + t.ppf(power, n - 1)) * spread / math.sqrt(n))


def power_note(metric: dict, system: str, base: str) -> dict | None:
    """What a report's metric could have found: {"clusters", "spread", "smallest_difference", "text"}.

    The spread is that of the jackknife's pseudo-values (for a mean, of the clusters' differences). None where
    fewer than two clusters tell anything.
    """
    import numpy as np

    names = _clusters([metric], (system, base))
    if len(names) < 2:
        return None
    each = _pseudo_values(metric, system, names) - _pseudo_values(metric, base, names)
    spread = float(np.std(each, ddof=1))
    smallest = smallest_detectable(spread, len(names))
    text = (
        f"With {len(names)} clusters a true difference of {smallest:.3g} is found in 8 of 10 tries at the "
        "5% level; smaller ones are more likely missed."
    )
    return {"clusters": len(names), "spread": spread, "smallest_difference": smallest, "text": text}


def over_seeds(reports: list[dict]) -> dict:
    """One report from those of several seeds on the same items.

    Value is the mean over seeds, "sd" the standard deviation over seeds, "by_seed" the values. "ci95" holds
    both sources of chance: each of 10,000 resamples draws seeds, and clusters, with replacement. Clusters are
    drawn once for all seeds, because all answer the same items (seeds and clusters are crossed: Owen 2007,
    "The pigeonhole bootstrap"); deviations are widened by sqrt(n / (n - 1)), since n drawn from n spread too
    little (Davison and Hinkley 1997, section 3.8). Two seeds are few all the same: simulated intervals held
    the truth in 90 to 94% of 400 tries, not 95%. The reports' own seeds must differ, and be those of training
    for the interval to speak of training.
    """
    if len(reports) < 2:
        raise UserError("statistics over seeds need at least two evaluation reports")
    labels = _labels(reports)
    _require_comparable(reports, labels)
    seeds = [report["seeds"] for report in reports]
    for seed, count in Counter(s for of in seeds for s in of).items():
        if count > 1:
            twice = [label for label, of in zip(labels, seeds, strict=True) if seed in of]
            raise UserError(f"{' and '.join(twice)} have the same seed {seed}: evaluate runs of other seeds")
    metrics, untold = {}, {}
    for name, metric in reports[0]["metrics"].items():
        if _has_gaps(reports, name):
            untold[name] = "not every seed has a value"
            continue
        found = [_entry(r, name, metric["values"], label) for r, label in zip(reports, labels, strict=True)]
        metrics[name] = {
            "better": metric["better"],
            "target": metric["target"],
            "values": {
                system: _over_seeds(found, system) | {"n": of["n"]} for system, of in metric["values"].items()
            },
            "differences": {
                f"{system}-{base}": _over_seeds(found, system, base)
                for system, base in _pairs(metric, metric["differences"])
            },
        }
    return {
        **{key: reports[0].get(key) for key in (*COMPARABLE, "n", "clusters", "stories", "decoding")},
        "run": " + ".join(labels),
        "seeds": [seed for of in seeds for seed in of],
        "systems": reports[0]["systems"],
        "metrics": metrics,
        "not_measured": reports[0].get("not_measured", {}) | untold,
    }


def side_by_side(reports: list[dict]) -> dict:
    """Several reports on the same items as one, each system against the first report's base.

    A system that every report which has it describes and measures alike is there once; others that share a
    name become "run/system". A difference is the report's own where its base is the first one's, else it is
    paired cluster by cluster over the pseudo-values. Holm's correction is over the metrics of each pair.
    """
    if not reports:
        raise UserError("no evaluation report to compare")
    labels = _labels(reports)
    _require_comparable(reports, labels)
    renamed = _unique_names(reports, labels)
    base = renamed[0].get("base") or next(iter(renamed[0].values()))
    systems, answers, metrics, own = {}, {}, {}, {}
    for report, names, label in zip(reports, renamed, labels, strict=True):
        leaked = report.get("leakage", {}).get("answers", {})
        for old, new in names.items():
            facts = {"run": label, "decoding": report.get("decoding")}
            systems.setdefault(new, report["systems"][old] | facts)
            answers |= {new: leaked[old]} if old in leaked else {}
        old_names = {new: old for old, new in names.items()}
        for name, metric in report["metrics"].items():
            empty = {key: metric[key] for key in ("better", "target")} | {"values": {}, "jackknife": {}}
            merged = metrics.setdefault(name, empty)
            for old in [s for s in names if s in metric["values"]]:
                merged["values"].setdefault(names[old], metric["values"][old])
                merged["jackknife"].setdefault(names[old], metric.get("jackknife", {}).get(old, {}))
                pair = metric["differences"].get(f"{old}-{old_names.get(base)}")
                own |= {(name, names[old]): pair} if pair else {}
    for name, metric in metrics.items():
        others = [s for s in metric["values"] if s != base] if base in metric["values"] else []
        metric["differences"] = {
            f"{s}-{base}": own.get((name, s)) or _difference(metric, s, base) for s in others
        }
    warnings = [
        f"{label}: {w}" for label, r in zip(labels, reports, strict=True) for w in r.get("warnings", [])
    ]
    return reports[0] | {
        "run": " + ".join(labels),
        "warnings": warnings,
        "seeds": sorted({seed for report in reports for seed in report["seeds"]}),
        "systems": systems,
        "metrics": with_holm(metrics),
        "controls": {
            label: r["controls"] for label, r in zip(labels, reports, strict=True) if r.get("controls")
        },
        "leakage": reports[0].get("leakage", {}) | ({"answers": answers} if answers else {}),
    }


def _labels(reports: Sequence[dict]) -> list[str]:
    """The reports' run names, with a number where one comes again."""
    seen: Counter[str] = Counter()
    labels = []
    for place, report in enumerate(reports, 1):
        missing = {"run", "seeds", "items_sha256", "systems", "metrics"} - set(report)
        if missing:
            raise UserError(f"report {place} is no evaluation report: it lacks {', '.join(sorted(missing))}")
        seen[report["run"]] += 1
        again = seen[report["run"]]
        labels.append(report["run"] if again == 1 else f"{report['run']} ({again})")
    return labels


def _require_comparable(reports: Sequence[dict], labels: Sequence[str]) -> None:
    """UserError for reports that did not measure the same thing."""
    for report, label in zip(reports[1:], labels[1:], strict=True):
        for key, what in COMPARABLE.items():
            first, other = reports[0].get(key), report.get(key)
            if first != other:
                raise UserError(
                    f"{labels[0]} and {label} cannot be compared: other {what} ({str(first)[:12]} and "
                    f"{str(other)[:12]}); evaluate both on the same data set with the same settings"
                )


def _unique_names(reports: Sequence[dict], labels: Sequence[str]) -> list[dict[str, str]]:
    """For each report its systems' names in the merged one."""
    known: dict[tuple[str, str | None], dict] = {}  # what a system is, and each metric's values of it
    parted = set()
    for report in reports:
        for system, facts in report["systems"].items():
            found = {n: m["values"][system] for n, m in report["metrics"].items() if system in m["values"]}
            told = {(system, None): facts} | {(system, name): values for name, values in found.items()}
            if any(known.setdefault(key, what) != what for key, what in told.items()):
                parted.add(system)
    return [
        {s: f"{label}/{s}" if s in parted else s for s in report["systems"]}
        for report, label in zip(reports, labels, strict=True)
    ]


def _has_gaps(reports: Sequence[dict], name: str) -> bool:
    """Whether a metric that every report has was measured nowhere in one of them (too little to measure)."""
    found = [r["metrics"].get(name) for r in reports]
    return None not in found and any(v["value"] is None for m in found for v in m["values"].values())


def _entry(report: dict, name: str, systems: Mapping, label: str) -> dict:
    """A report's metric; UserError where it, or one of `systems`, was not measured there."""
    metric = report["metrics"].get(name)
    if metric is None or any(metric["values"].get(s, {}).get("value") is None for s in systems):
        raise UserError(
            f"{label} has no {name} of {' and '.join(systems)}: evaluate it with the same settings"
        )
    return metric


def _pairs(metric: dict, keys: Mapping) -> list[tuple[str, str]]:
    """(system, base) of each key "system-base"; names may hold hyphens themselves."""
    values = metric["values"]
    return [(a, b) for key in keys for a in values for b in values if f"{a}-{b}" == key]


def _clusters(entries: Sequence[dict], systems: Sequence[str]) -> list[str]:
    """All clusters that tell something of one of the systems, in the reports' order."""
    return list(dict.fromkeys(c for e in entries for s in systems for c in e.get("jackknife", {}).get(s, {})))


def _pseudo_values(metric: dict, system: str, clusters: Sequence[str]):
    """One value a cluster whose mean is the metric and whose spread is the clusters' (Tukey's, centred).

    Exact for a mean over equal clusters, linearised for any other metric. A cluster without a denominator
    changes nothing by leaving.
    """
    import numpy as np

    value, without = metric["values"][system]["value"], metric.get("jackknife", {}).get(system, {})
    left = np.array([without.get(c, value) for c in clusters])
    return value + (len(clusters) - 1) * (left.mean() - left)


def _difference(metric: dict, system: str, base: str) -> dict:
    """{"value", "ci95", "p"} of system minus base, each from any report on the same items."""
    values = [metric["values"][s]["value"] for s in (system, base)]
    clusters = _clusters([metric], (system, base))
    if None in values or len(clusters) < 2:
        value = None if None in values else values[0] - values[1]
        return {"value": value, "ci95": None, "p": None}
    ones = [1.0] * len(clusters)
    a, b = (Metric("higher", list(_pseudo_values(metric, s, clusters)), ones) for s in (system, base))
    found = difference(a, b, clusters)
    return found | {"value": values[0] - values[1], "p": p_value(a, b, clusters)}


def _over_seeds(entries: Sequence[dict], system: str, base: str | None = None) -> dict:
    """{"value", "sd", "ci95", "by_seed"} of a system over the seeds' entries, or of its lead on `base`."""
    import numpy as np

    both = [system] if base is None else [system, base]
    clusters = _clusters(entries, both)
    by_seed = np.array(
        [e["values"][system]["value"] - (e["values"][base]["value"] if base else 0) for e in entries]
    )
    ci = None
    if len(clusters) >= 2:
        signs = dict(zip(both, (1, -1), strict=False))
        table = np.array(
            [sum(signs[s] * _pseudo_values(e, s, clusters) for s in both) for e in entries]
        )  # (seeds, clusters)
        n_seeds, n_clusters = table.shape
        seed_part = (by_seed - by_seed.mean()) * math.sqrt(n_seeds / (n_seeds - 1))
        cluster_part = (table - by_seed[:, None]) * math.sqrt(n_clusters / (n_clusters - 1))
        rng = np.random.default_rng(0)
        seeds = rng.multinomial(n_seeds, [1 / n_seeds] * n_seeds, RESAMPLES) / n_seeds
        drawn = rng.multinomial(n_clusters, [1 / n_clusters] * n_clusters, RESAMPLES) / n_clusters
        resamples = by_seed.mean() + seeds @ seed_part + ((seeds @ cluster_part) * drawn).sum(axis=1)
        ci = [float(x) for x in np.percentile(resamples, [2.5, 97.5])]
    return {
        "value": float(by_seed.mean()),
        "sd": float(by_seed.std(ddof=1)),
        "ci95": ci,
        "by_seed": [float(x) for x in by_seed],
    }
