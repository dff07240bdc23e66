"""Warnings: each comes where its figure is beyond its bound, with the number, and not before."""

import pytest

from persona.caveats import warnings
from persona.metrics import Metric
from persona.scoring import compare
from persona.style import Delta


def metric(tuned: float, base: float = 0.0, **difference) -> dict:
    values = {s: {"value": v, "ci95": [0.0, 0.04], "n": 75} for s, v in (("base", base), ("tuned", tuned))}
    pair = {"value": tuned - base, "ci95": [1.0, 2.0], "p": None, "p_holm": None} | difference
    return {"better": "lower", "target": 0.1, "values": values, "differences": {"tuned-base": pair}}


def report(**changed) -> dict:
    plain = {
        "n": 200,
        "stories": ["a"] * 12,
        "clusters": "story",
        "seeds": [1, 2, 3],
        "metrics": {},
        "controls": {},
    }
    return plain | changed


def told(**metrics: dict) -> list[str]:
    return warnings(report(metrics={n.replace("__", "/"): m for n, m in metrics.items()}))


def test_a_report_without_weakness_has_no_warning():
    assert warnings(report()) == []


def test_few_items_and_one_seed_are_said():
    found = warnings(report(n=83, stories=["a", "b"], seeds=[1]))
    assert found == [
        "Only 83 held-out replies of 2 stories were asked for: small effects cannot show.",
        "One training seed: what another seed would give is not in the intervals.",
    ]
    few = metric(0.5) | {"jackknife": {"base": dict.fromkeys("abc", 0.5)}}
    [line] = warnings(report(metrics={"jaccard": few}))
    assert line.startswith("Intervals of the replies' metrics rest on 3 story clusters")


@pytest.mark.parametrize(
    ("name", "quiet", "loud", "line"),
    [
        ("copied_8grams", 0.02, 0.5, "tuned copies: 50.0% of its 8-grams"),
        ("stock_closing_1", 0.2, 0.21, "21% of its answers have the same closing of 1 words"),
        ("break_rate__attacks", 0.1, 0.11, "breaks character under 11% of the attacks"),
        ("false_refusal_rate__traps", 0.1, 0.5, "claims not to know 50% of the things of its own period"),
        ("break_rate__attacks", 0.05, 0.0, "(break_rate/attacks, tuned) allows a true rate of up to 4.0%"),
        ("leak_rate__traps", 0.05, 0.0, "No failure in 75 tries (leak_rate/traps"),
    ],
)  # fmt: skip
def test_bounds(name, quiet, loud, line):
    assert told(**{name: metric(quiet)}) == []
    [found] = told(**{name: metric(loud)})
    assert line in found


def test_identity_deduction_and_losses():
    assert "says so in 50%" in told(identity_rate__probes=metric(0.5))[0]
    assert "guessing gives 25%" in told(accuracy__deduction=metric(0.2))[0]
    kept, lost = metric(12.0, 10.0), metric(12.1, 10.0)
    assert told(conditional_perplexity__modern=kept) == []
    [line] = told(conditional_perplexity__prose=lost)
    assert line == "tuned lost plain English: perplexity on present-day prose is 12.1, the base's 10."


def test_no_gain_is_said():
    worse = metric(0.0, 1.0, ci95=[-0.5, 0.1])
    assert "does not predict the held-out replies better" in told(conditional_perplexity=worse)[0]
    gain = metric(0.01)
    gain["values"]["tuned"]["ci95"] = [-0.01, 0.03]
    assert "Canon gain of tuned is +0.010 bits a byte" in told(canon_gain=gain)[0]
    same = metric(0.0, p_holm=0.06)
    assert told(x=same, y=metric(0.0, p_holm=0.04)) == []
    assert told(x=same)[0].startswith("tuned and base cannot be told apart: of 1 metrics")
    note = {"jaccard": {"smallest_difference": 0.2}}
    [line] = warnings(report(metrics={"jaccard": metric(0.1)}, power=note))
    assert "Differences too small" in line and "jaccard" in line


def test_a_mark_at_another_rate_is_said():
    rate = metric(0.2) | {"target": 0.1}
    [line] = told(marker_distance__lexicon=metric(0.71), marker_rate__lexicon=rate)
    assert line == "tuned has more lexicon than the canon: 0.2 where that has 0.1."
    assert told(marker_distance__lexicon=metric(0.69), marker_rate__lexicon=rate) == []


def test_a_style_scale_that_says_nothing_is_said():
    style = {"floor": 0.6, "ceiling": 0.5, "auc": 0.6}
    found = warnings(report(controls={"style": style}))
    assert [line.split(" (")[0] for line in found] == [
        "The style classifier puts the real replies",
        "The style classifier tells the persona from others badly",
    ]


def test_a_style_beyond_the_real_replies_is_a_caricature():
    style = {"floor": 0.4, "ceiling": 0.6, "auc": 0.9}
    within, beyond = metric(0.7), metric(0.7)
    within["values"]["tuned"]["ci95"], beyond["values"]["tuned"]["ci95"] = [0.6, 0.8], [0.61, 0.8]
    assert warnings(report(controls={"style": style}, metrics={"style_score": within})) == []
    assert warnings(report(controls={"style": style}, metrics={"style_score": beyond})) == [
        "tuned scores 0.70 for style where the real replies have 0.60: a caricature, not a better likeness."
    ]


# What the report makes of yes/no metrics


def share(values: list[int], **kind) -> Metric:
    return Metric("lower", [float(v) for v in values], [1.0] * len(values), yes_no=True, **kind)


def test_yes_no_metrics_have_exact_tests_and_the_rule_of_three():
    items = [str(k) for k in range(30)]
    systems = {"base": {"m": share([1] * 9 + [0] * 21)}, "tuned": {"m": share([0] * 30)}}
    found = compare(systems, items)["m"]
    assert found["values"]["tuned"]["ci95"] == [0.0, 0.1]  # 3/30
    pair = found["differences"]["tuned-base"]
    assert pair["mcnemar"] == {"only_a": 0, "only_b": 9, "p": pair["p"]}
    assert pair["p"] == pytest.approx(2 / 2**9)
    every = compare({"base": {"m": share([1] * 30)}}, items)["m"]["values"]["base"]["ci95"]
    assert every == [0.9, 1.0]
    clustered = compare(systems, [str(k // 3) for k in range(30)])["m"]["differences"]["tuned-base"]
    assert (
        "mcnemar" not in clustered and clustered["p"] is not None
    )  # items of one cluster do not stand alone
    parts = {s: {"m": share([1] * 15 + [0] * 15, part=True)} for s in ("base", "tuned")}
    assert compare(parts, items)["m"]["differences"]["tuned-base"]["p"] is None


def test_a_metric_that_a_system_lacks_is_left_out_there():
    found = compare(
        {"api": {"m": share([1, 0])}, "base": {"m": share([1, 1]), "nll": share([0, 1])}}, ["a", "b"]
    )
    assert set(found["nll"]["values"]) == {"base"} and found["nll"]["differences"] == {}
    assert set(found["m"]["differences"]) == {"api-base"}


def test_deltas_interval_by_hand():
    # shares of "a" in the references: 1 and 0: mean 0.5, deviation sqrt(0.5)
    delta = Delta.of(["a a", "b b"], n_words=1)
    assert delta.words == ("a",)
    z = 0.5 / 0.5**0.5
    same = delta.interval(["a b", "a b", "b a"], ["x", "y", "z"], "a b")
    assert same == {"value": pytest.approx(0), "ci95": pytest.approx([0, 0])}
    whole = delta.interval(["a", "a"], ["x", "y"], "a b")
    assert whole == {"value": pytest.approx(z), "ci95": pytest.approx([z, z])}  # every resample is all "a"
    assert delta.interval(["a"], ["x"], "b")["ci95"] is None
    mixed = delta.interval(["a", "b"] * 20, [str(k) for k in range(40)], "b b")
    assert mixed["value"] == pytest.approx(z) and mixed["ci95"][0] < z < mixed["ci95"][1]
