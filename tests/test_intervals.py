"""Bootstrap intervals: cases with known answers, pairing, clusters, and coverage."""

import random

import numpy as np
import pytest

from persona.intervals import clustered, difference, interval
from persona.metrics import Metric


def mean(values, **settings) -> Metric:
    return Metric("higher", [float(v) for v in values], [1.0] * len(values), **settings)


def names(n: int) -> list[str]:
    return [f"s{i}" for i in range(n)]


def test_clusters_are_summed_in_the_order_in_which_they_appear():
    assert clustered([1.0, 2.0, 4.0, 8.0], ["b", "a", "b", "c"]) == [5.0, 2.0, 8.0]
    with pytest.raises(ValueError):
        clustered([1.0], ["a", "b"])


def test_equal_items_give_an_interval_without_width():
    assert interval(mean([3, 3, 3, 3]), names(4)) == [3.0, 3.0]
    assert interval(Metric("lower", [2.0, 4.0], [1.0, 2.0], np.exp), names(2)) == pytest.approx([np.e**2] * 2)


def test_one_cluster_or_none_has_no_interval():
    assert interval(mean([1, 2, 3]), ["a"] * 3) is None
    assert interval(mean([]), []) is None
    assert difference(mean([1, 2]), mean([0, 0]), ["a", "a"]) == {"value": 1.5, "ci95": None}


def test_two_clusters_give_both_ends():
    # a resample is (0,0), (0,1), (1,0) or (1,1): means 0, 1/2, 1 with 1/4, 1/2, 1/4
    assert interval(mean([0, 1]), ["a", "b"]) == [0.0, 1.0]


def test_a_rare_cluster_gives_known_percentiles():
    # twenty clusters, one of them 1: the sum of a resample is Binomial(20, 1/20), with 2.5% and 97.5% points
    # 0 and 3; acceleration moves the upper one to 4 or 5 twentieths at most, and the lower one cannot fall
    low, high = interval(mean([1] + [0] * 19), names(20))
    assert low == 0.0
    assert high in (3 / 20, 4 / 20, 5 / 20)


def test_many_clusters_give_the_normal_interval():
    rng = random.Random(1)
    values = [rng.gauss(10, 2) for _ in range(400)]
    low, high = interval(mean(values), names(400))
    centre, half = np.mean(values), 1.96 * np.std(values) / 20
    assert low == pytest.approx(centre - half, abs=0.1 * half)
    assert high == pytest.approx(centre + half, abs=0.1 * half)


def test_resampling_is_by_cluster_not_by_item():
    # each story's items are alike, so that 100 items say no more than 4 do
    values = [v for v in (0, 1, 2, 3) for _ in range(25)]
    stories = [f"s{v}" for v in values]
    assert interval(mean(values), stories) == interval(mean([0, 1, 2, 3]), names(4))
    low, high = interval(mean(values), names(100))
    assert high - low < 0.5 < 1.0 < np.subtract(*interval(mean(values), stories)[::-1])


def test_long_items_weigh_as_much_as_their_denominators_say():
    # ratios 1, 1 and 4/2: sums 1/1, 1/1, 4/2 -> value 6/4; resamples of the third alone reach 2, never above
    metric = Metric("lower", [1.0, 1.0, 4.0], [1.0, 1.0, 2.0])
    assert metric.value == 1.5
    assert interval(metric, names(3)) == [1.0, 2.0]


def test_the_transform_is_applied_to_each_resample():
    plain, doubled = mean([0, 1, 3, 7, 9]), mean([0, 1, 3, 7, 9], transform=lambda ratio: 2 * ratio + 1)
    low, high = interval(plain, names(5))
    assert interval(doubled, names(5)) == pytest.approx([2 * low + 1, 2 * high + 1])


def test_a_cluster_without_a_denominator_is_left_out():
    # the reply of "c" did not fit the context: the interval is that of the other two, not nothing
    assert interval(Metric("lower", [1.0, 2.0, 0.0], [1.0, 1.0, 0.0]), ["a", "b", "c"]) == [1.0, 2.0]
    both = Metric("lower", [3.0, 3.0, 0.0], [1.0, 1.0, 0.0])
    one = Metric("lower", [1.0, 2.0, 0.0], [1.0, 1.0, 0.0])
    assert difference(both, one, ["a", "b", "c"]) == {"value": 1.5, "ci95": [1.0, 2.0]}


def test_a_metric_differs_from_itself_by_nothing():
    metric = mean([1, 5, 2, 8, 3])
    assert difference(metric, metric, names(5)) == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_a_constant_gain_on_very_different_items_has_no_width():
    values = [1, 50, 2, 80, 3, 1000]
    found = difference(mean([v + 2 for v in values]), mean(values), names(6))
    assert found["value"] == 2.0
    assert found["ci95"] == pytest.approx([2.0, 2.0], abs=1e-9)


def test_a_difference_is_the_first_minus_the_second():
    found = difference(mean([3, 6]), mean([2, 2]), ["a", "b"])
    assert found == {"value": 2.5, "ci95": [1.0, 4.0]}  # per cluster 1 and 4
    assert difference(mean([2, 2]), mean([3, 6]), ["a", "b"]) == {"value": -2.5, "ci95": [-4.0, -1.0]}


def test_a_difference_needs_the_same_items():
    with pytest.raises(ValueError, match="same items"):
        difference(mean([1, 2]), mean([1, 2, 3]), names(2))


def test_the_same_seed_gives_the_same_interval():
    metric = mean([1, 5, 2, 8, 3, 9, 4, 4, 7, 1.5])
    assert interval(metric, names(10)) == interval(metric, names(10))
    assert interval(metric, names(10), seed=3) == interval(metric, names(10), seed=3)
    assert interval(metric, names(10), seed=3) != interval(metric, names(10), seed=4)
    assert difference(metric, mean(range(10)), names(10), 5) == difference(
        metric, mean(range(10)), names(10), 5
    )


def test_about_95_of_100_intervals_hold_the_truth():
    rng = random.Random(42)
    held = 0
    for seed in range(100):
        low, high = interval(mean([rng.gauss(1, 1) for _ in range(40)]), names(40), seed=seed)
        held += low <= 1 <= high
    assert 89 <= held <= 99
