"""Tests, corrections, power, seeds and comparisons of runs, against values worked out by hand."""

import copy
import json
import math

import numpy as np
import pytest

from persona import scoring
from persona.errors import UserError
from persona.intervals import difference, interval, jackknife, p_value
from persona.metrics import Metric
from persona.significance import (
    holm,
    mcnemar,
    over_seeds,
    power_note,
    rule_of_three,
    side_by_side,
    smallest_detectable,
    with_holm,
)


def mean(values, **settings) -> Metric:
    return Metric("higher", [float(v) for v in values], [1.0] * len(values), **settings)


def names(n: int) -> list[str]:
    return [f"s{i}" for i in range(n)]


def entry(systems: dict[str, Metric], clusters: list[str]) -> dict:
    """One metric of a report: every system with its jackknife, and what differs from "base"."""
    return {
        "better": "higher",
        "target": None,
        "values": {
            s: {"value": m.value, "ci95": interval(m, clusters), "n": len(clusters)}
            for s, m in systems.items()
        },
        "differences": {
            f"{s}-base": difference(m, systems["base"], clusters)
            | {"p": p_value(m, systems["base"], clusters)}
            for s, m in systems.items()
            if s != "base" and "base" in systems
        },
        "jackknife": {s: jackknife(m, clusters) for s, m in systems.items()},
    }


def report(run: str, seed: int, **systems: list) -> dict:
    """A report with one metric, a mean over one item a cluster; `systems` gives each one's values."""
    n = len(next(iter(systems.values())))
    return {
        "run": run,
        "protocol": "held-out",
        "n": n,
        "seeds": [seed],
        "items_sha256": "0123456789abcdef",
        "clusters": "story",
        "canon_term_rate": 0.02,
        "systems": {
            s: {"model": "m", "adapter": None if s == "base" else f"{run}/adapter", "prompt": "p"}
            for s in systems
        },
        "metrics": {"jaccard": entry({s: mean(v) for s, v in systems.items()}, names(n))},
        "controls": {},
        "leakage": {"n": 8, "answers": {s: {"mean": 0.0} for s in systems}},
    }


# Yes/no items, families of tests, zero failures


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 6, 2 * (1 + 7) / 2**7),
        (6, 1, 2 * (1 + 7) / 2**7),
        (0, 5, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_counts_the_items_on_which_the_systems_part(only_a, only_b, p):
    both_right, both_wrong = 4, 9
    a = [True] * (only_a + both_right) + [False] * (only_b + both_wrong)
    b = [False] * only_a + [True] * (both_right + only_b) + [False] * both_wrong
    assert mcnemar(a, b) == {"only_a": only_a, "only_b": only_b, "p": pytest.approx(p)}


def test_mcnemar_needs_the_same_items():
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])


def test_holm_on_four_p_values():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 = 0.04, which may not be below the one before it
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]


def test_holm_stops_at_one_and_takes_ties_alike():
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.02, "b": 0.02}) == {"a": 0.04, "b": 0.04}
    assert holm({"a": 0.02}) == {"a": 0.02}
    assert holm({}) == {}


def test_a_family_is_one_pair_over_all_metrics():
    def metric(**p):
        return {"better": "lower", "differences": {k: {"value": 1.0, "p": v} for k, v in p.items()}}

    before = {"x": metric(a=0.01, b=0.04), "y": metric(a=0.03, b=None), "z": metric()}
    kept = copy.deepcopy(before)
    found = with_holm(before)
    assert found["x"]["differences"]["a"] == {"value": 1.0, "p": 0.01, "p_holm": 0.02}
    assert found["y"]["differences"]["a"]["p_holm"] == 0.03
    assert found["x"]["differences"]["b"]["p_holm"] == 0.04  # alone in its family
    assert found["y"]["differences"]["b"]["p_holm"] is None
    assert before == kept and list(found) == ["x", "y", "z"]


def test_the_rule_of_three():
    assert rule_of_three(100) == 0.03
    assert rule_of_three(72) == pytest.approx(1 / 24)
    assert rule_of_three(2) == 1.0
    assert rule_of_three(1000) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=0.003)
    with pytest.raises(ValueError):
        rule_of_three(0)


# The p-value of a difference


def test_no_difference_has_p_1():
    metric = mean([1, 5, 2, 8, 3, 4, 4])
    assert p_value(metric, metric, names(7)) == 1.0


def test_one_cluster_has_no_p():
    assert p_value(mean([1, 2]), mean([0, 0]), ["a", "a"]) is None


@pytest.mark.parametrize(("n", "least"), [(2, 1 / 2), (5, 1 / 16), (6, 1 / 32), (40, 2 / 10_000)])
def test_p_is_never_below_what_so_few_clusters_can_show(n, least):
    assert p_value(mean([2] * n), mean([1] * n), names(n)) == least


def test_clusters_that_say_nothing_do_not_count():
    a, b = (Metric("lower", [v, v, v, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]) for v in (2.0, 1.0))
    assert p_value(a, b, names(5)) == 1 / 4  # three clusters


@pytest.mark.parametrize(("z", "p"), [(1.0, 0.317), (1.96, 0.05), (2.576, 0.01), (-1.96, 0.05)])
def test_many_clusters_give_the_normal_p(z, p):
    spread = np.array([-1.0, 1.0] * 200)  # standard deviation 1, so that the mean's is 1/20
    assert p_value(mean(spread + z / 20), mean([0] * 400), names(400)) == pytest.approx(p, rel=0.15)


def test_p_is_below_5_percent_where_the_interval_leaves_zero_out():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12):
        a, b = mean(rng.normal(0.5, 1, 12) ** 3), mean([0] * 12)
        low, high = difference(a, b, names(12))["ci95"]
        clear = not low <= 0 <= high
        seen.add(clear)
        assert (p_value(a, b, names(12)) < 0.05) == clear
    assert seen == {True, False}


# The metric without each cluster


def test_the_jackknife_leaves_out_each_cluster_in_turn():
    assert jackknife(mean([1, 2, 3, 6]), ["b", "a", "c", "a"]) == pytest.approx(
        {"b": 11 / 3, "a": 2.0, "c": 3.0}
    )
    ratio = Metric("lower", [1.0, 4.0, 9.0], [1.0, 2.0, 0.5], lambda r: 10 * r)
    assert jackknife(ratio, names(3)) == pytest.approx({"s0": 52.0, "s1": 10 * 10 / 1.5, "s2": 10 * 5 / 3})


def test_the_jackknife_leaves_out_what_says_nothing():
    assert jackknife(Metric("lower", [1.0, 2.0, 0.0], [1.0, 1.0, 0.0]), names(3)) == {"s0": 2.0, "s1": 1.0}
    assert jackknife(mean([1, 2]), ["a", "a"]) == {}
    with np.errstate(divide="ignore"):
        assert jackknife(mean([0, 1], transform=np.log), names(2)) == {}  # log 0: no number for a report


# Power


def test_the_smallest_difference_by_formula():
    # t quantiles of a table: 9 degrees 2.2622 and 0.8834, 1 degree 12.7062 and 1.3764
    assert smallest_detectable(2.0, 10) == pytest.approx((2.2622 + 0.8834) * 2 / math.sqrt(10), rel=1e-4)
    assert smallest_detectable(1.0, 2) == pytest.approx((12.7062 + 1.3764) / math.sqrt(2), rel=1e-4)
    assert smallest_detectable(0.0, 10) == 0.0
    with pytest.raises(ValueError):
        smallest_detectable(1.0, 1)


def test_many_clusters_need_the_normal_multiple():
    assert smallest_detectable(1.0, 10_000) == pytest.approx((1.95996 + 0.84162) / 100, rel=1e-3)


def test_the_power_note_takes_the_spread_of_the_paired_differences():
    # differences 1, 2, 3, 4 between items that are far apart: variance 5/3; 3 degrees 3.1824 and 0.9785
    base = [10, 500, 20, 900]
    metric = entry(
        {"base": mean(base), "tuned": mean([b + d for b, d in zip(base, (1, 2, 3, 4), strict=True)])},
        names(4),
    )
    note = power_note(metric, "tuned", "base")
    assert (note["clusters"], note["spread"]) == (4, pytest.approx(math.sqrt(5 / 3)))
    assert note["smallest_difference"] == pytest.approx(4.1609 * math.sqrt(5 / 3) / 2, rel=1e-4)
    assert note["text"].startswith("With 4 clusters a true difference of 2.69 is found")


def test_one_cluster_has_no_power_note():
    metric = entry({"base": mean([1, 2]), "tuned": mean([2, 2])}, ["a", "a"])
    assert power_note(metric, "tuned", "base") is None


# Several seeds


def of_seeds(reports: list[dict]) -> dict:
    return over_seeds(reports)["metrics"]["jaccard"]


def test_seeds_alone_make_the_interval_where_clusters_are_alike():
    # seeds 1 and 3: a resample is both 1, mixed or both 3; deviations of 1 widened by sqrt 2
    found = of_seeds([report("a", 1, tuned=[1, 1, 1]), report("b", 2, tuned=[3, 3, 3])])["values"]["tuned"]
    assert found == {
        "value": 2.0,
        "sd": pytest.approx(math.sqrt(2)),
        "ci95": pytest.approx([2 - math.sqrt(2), 2 + math.sqrt(2)]),
        "by_seed": [1.0, 3.0],
        "n": 3,
    }


def test_clusters_alone_make_the_interval_where_seeds_are_alike():
    found = of_seeds([report("a", 1, tuned=[0, 1]), report("b", 2, tuned=[0, 1])])["values"]["tuned"]
    assert (found["value"], found["sd"]) == (0.5, 0.0)
    assert found["ci95"] == pytest.approx([0.5 - math.sqrt(2) / 2, 0.5 + math.sqrt(2) / 2])


def test_clusters_are_drawn_once_for_all_seeds():
    # the seeds see the same clusters: four seeds that agree know no more of the clusters than one
    values = list(range(30))
    found = of_seeds([report(f"r{k}", k, tuned=values) for k in range(4)])["values"]["tuned"]["ci95"]
    half = 1.96 * np.std(values, ddof=1) / math.sqrt(30)
    assert found == pytest.approx([14.5 - half, 14.5 + half], rel=0.05)


def test_both_sources_of_chance_add_up():
    # seed means spread by 1, cluster means by 1: the variance of the mean is 1/20 + 1/20
    pattern = np.array([-1.0, 1.0] * 10) * math.sqrt(19 / 20)  # standard deviation 1
    reports = [report(f"r{k}", k, tuned=list(pattern + seed)) for k, seed in enumerate(pattern)]
    low, high = of_seeds(reports)["values"]["tuned"]["ci95"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.1), rel=0.05)


def test_differences_over_seeds_are_paired():
    reports = [
        report("a", 1, base=[1, 50, 7], tuned=[2, 51, 8]),
        report("b", 2, base=[1, 50, 7], tuned=[2, 51, 8]),
    ]
    found = of_seeds(reports)
    low, high = found["values"]["tuned"]["ci95"]
    assert high - low > 10
    assert found["differences"] == {
        "tuned-base": {"value": 1.0, "sd": 0.0, "ci95": pytest.approx([1.0, 1.0]), "by_seed": [1.0, 1.0]}
    }


def test_one_cluster_has_values_over_seeds_but_no_interval():
    found = of_seeds([report("a", 1, tuned=[1]), report("b", 2, tuned=[2])])["values"]["tuned"]
    assert (found["value"], found["ci95"]) == (1.5, None)


def test_the_report_over_seeds_says_what_it_is_of():
    reports = [report("a", 1, base=[1, 2], tuned=[2, 2]), report("b", 2, base=[1, 2], tuned=[3, 2])]
    kept = copy.deepcopy(reports)
    found = over_seeds(reports)
    assert (found["run"], found["seeds"], found["items_sha256"]) == ("a + b", [1, 2], "0123456789abcdef")
    assert "jaccard" in scoring.table(found) and json.dumps(found) == json.dumps(over_seeds(reports))
    assert reports == kept


# Several runs


def test_runs_stand_side_by_side_with_one_base():
    a = report("a", 1, base=[0, 1, 5], tuned=[1, 3, 5])
    b = report("b", 2, base=[0, 1, 5], tuned=[4, 4, 9])
    kept = copy.deepcopy([a, b])
    found = side_by_side([a, b])
    metric = found["metrics"]["jaccard"]
    assert list(found["systems"]) == list(metric["values"]) == ["base", "a/tuned", "b/tuned"]
    assert (found["run"], found["seeds"], found["systems"]["b/tuned"]["run"]) == ("a + b", [1, 2], "b")
    own = [r["metrics"]["jaccard"]["differences"]["tuned-base"] for r in (a, b)]  # one metric: Holm is p
    assert metric["differences"] == {
        "a/tuned-base": own[0] | {"p_holm": own[0]["p"]},
        "b/tuned-base": own[1] | {"p_holm": own[1]["p"]},
    }
    assert list(found["leakage"]["answers"]) == ["base", "a/tuned", "b/tuned"]
    assert [a, b] == kept
    assert "a/tuned" in scoring.table(found)


def test_another_base_is_set_against_the_first_cluster_by_cluster():
    # by cluster 4 - 1 and 7 - 2; resamples of the mean reach 3 and 5
    a, b = report("a", 1, base=[1, 2], tuned=[9, 9]), report("b", 1, base=[4, 7], tuned=[0, 3])
    metric = side_by_side([a, b])["metrics"]["jaccard"]
    assert list(metric["values"]) == ["a/base", "a/tuned", "b/base", "b/tuned"]
    of = metric["differences"]
    assert list(of) == ["a/tuned-a/base", "b/base-a/base", "b/tuned-a/base"]
    assert of["b/base-a/base"] == {"value": 4.0, "ci95": pytest.approx([3.0, 5.0]), "p": 0.5, "p_holm": 0.5}
    assert of["b/tuned-a/base"]["ci95"] == pytest.approx([-1.0, 1.0])


def test_a_ratio_is_paired_by_what_each_cluster_adds():
    # 1/1 and 4/2 make 5/3, without s0 2, without s1 1: pseudo-values 5/3 -+ 1/2; the other is 1
    a, b = report("a", 1, base=[1, 1]), report("b", 2, base=[9, 9])
    b["metrics"]["jaccard"] = entry({"base": Metric("higher", [1.0, 4.0], [1.0, 2.0])}, names(2))
    found = side_by_side([a, b])["metrics"]["jaccard"]["differences"]["b/base-a/base"]
    assert found["value"] == pytest.approx(2 / 3)
    assert found["ci95"] == pytest.approx([2 / 3 - 1 / 2, 2 / 3 + 1 / 2])


def test_without_values_by_cluster_a_difference_has_no_interval():
    a, b = report("a", 1, base=[1, 2]), report("b", 2, base=[4, 7])
    del b["metrics"]["jaccard"]["jackknife"]
    del a["metrics"]["jaccard"]["jackknife"]
    found = side_by_side([a, b])["metrics"]["jaccard"]["differences"]["b/base-a/base"]
    assert found == {"value": 4.0, "ci95": None, "p": None, "p_holm": None}


def test_the_same_run_twice_gets_a_number():
    found = side_by_side([report("a", 1, base=[1, 2], tuned=[t, 2]) for t in (3, 4)])
    assert list(found["systems"]) == ["base", "a/tuned", "a (2)/tuned"]


def test_a_metric_that_one_report_lacks_has_the_other_s_values():
    a, b = report("a", 1, base=[1, 2], tuned=[3, 4]), report("b", 2, base=[1, 2], other=[5, 6])
    b["metrics"]["rouge_l"] = b["metrics"]["jaccard"]
    found = side_by_side([a, b])["metrics"]
    assert list(found["jaccard"]["differences"]) == ["tuned-base", "other-base"]
    assert list(found["rouge_l"]["values"]) == ["base", "other"]


# What cannot be compared


@pytest.mark.parametrize("compare", [over_seeds, side_by_side])
@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("items_sha256", "fedcba9876543210", r"run-a and run-b .* items \(0123456789ab and fedcba987654\)"),
        ("protocol", "reference", r"run-a and run-b .* protocols \(held-out and reference\)"),
        ("canon_term_rate", 0.03, r"run-a and run-b .* canon term rates \(0.02 and 0.03\)"),
    ],
)
def test_reports_that_measured_other_things_are_refused(compare, key, value, line):
    a, b = report("run-a", 1, base=[1, 2]), report("run-b", 2, base=[1, 2])
    with pytest.raises(UserError, match=line):
        compare([a, b | {key: value}])


def test_seeds_must_differ_and_be_more_than_one():
    a, b = report("run-a", 42, base=[1, 2]), report("run-b", 42, base=[1, 2])
    with pytest.raises(UserError, match="run-a and run-b have the same seed 42"):
        over_seeds([a, b])
    with pytest.raises(UserError, match="at least two"):
        over_seeds([a])
    with pytest.raises(UserError, match="no evaluation report"):
        side_by_side([])


@pytest.mark.parametrize("compare", [over_seeds, side_by_side])
def test_what_is_no_report_is_refused(compare):
    a, b = report("a", 1, base=[1, 2]), report("b", 2, base=[1, 2])
    del b["items_sha256"]
    with pytest.raises(UserError, match="report 2 is no evaluation report: it lacks items_sha256"):
        compare([a, b])


def test_a_seed_without_one_of_the_systems_is_refused():
    a, b = report("a", 1, base=[1, 2], tuned=[1, 2]), report("b", 2, base=[1, 2])
    with pytest.raises(UserError, match="b has no jaccard of base and tuned"):
        over_seeds([a, b])
