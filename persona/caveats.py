"""Where a report's results are weak, in plain sentences with their numbers."""

from collections.abc import Iterator

FEW_CLUSTERS = 20
FEW_ITEMS = 100
LEAKED = 0.01
"""Mean share of 8-grams in training from which on held-out texts are not held out."""
COPIES = 0.02
OVERUSE = 0.7
"""Marker distance from which on a mark is twice as frequent as in the canon, or half as frequent."""
STOCK = 0.2
LOST = 1.2
"""Perplexity on modern text, tuned over base, from which on something was lost."""
CHANCE_DEDUCTION = 0.25
ALPHA = 0.05


def warnings(report: dict, system: str = "tuned", base: str = "base") -> list[str]:
    """What a reader should know before believing the report's figures of `system`."""
    checks = (size, _leaks, _copying, _style, _no_effect, _canon, _character, _lost, _power)
    return [line for check in checks for line in check(report, system, base)]


def _value(report: dict, name: str, system: str) -> float | None:
    return report["metrics"].get(name, {}).get("values", {}).get(system, {}).get("value")


def size(report: dict, *_: str) -> Iterator[str]:
    """What is said of too few replies, clusters or seeds."""
    n, stories = report["n"], len(report.get("stories", []))
    if n < FEW_ITEMS:
        of = f"of {stories} stories" if stories else "written by hand"
        yield f"Only {n} held-out replies {of} were asked for: small effects cannot show."
    main = report["metrics"].get("jaccard") or next(iter(report["metrics"].values()), {})
    clusters = len(next(iter(main.get("jackknife", {}).values()), {}))
    if 0 < clusters < FEW_CLUSTERS:
        yield (
            f"Intervals of the replies' metrics rest on {clusters} {report['clusters']} clusters: with under "
            f"{FEW_CLUSTERS} they are too narrow."
        )
    if len(report["seeds"]) == 1:
        yield "One training seed: what another seed would give is not in the intervals."


def _leaks(report: dict, system: str, base: str) -> Iterator[str]:
    leakage = report.get("leakage", {})
    true = leakage.get("true_replies")
    if true and (true["mean"] > LEAKED or true["over_20_percent"]):
        yield (
            f"Leaked data: {true['mean']:.1%} of the true replies' 8-grams stand in training answers, and "
            f"{true['over_20_percent']} of {true['n']} replies are a fifth copies or more."
        )
    for name, of in leakage.get("files", {}).items():
        if of["mean"] > LEAKED or of["whole"] or of["over_20_percent"]:
            yield (
                f"Leaked evaluation file ({name}): {of['whole']} of {of['n']} texts stand in training whole, "
                f"{of['over_20_percent']} are a fifth copies or more."
            )


def _copying(report: dict, system: str, base: str) -> Iterator[str]:
    copied, true = _value(report, "copied_8grams", system), report["controls"].get("true_replies", {})
    level = true.get("copied_8grams") or 0.0
    if copied is not None and copied > max(COPIES, 3 * level):
        yield (
            f"{system} copies: {copied:.1%} of its 8-grams stand word for word in training answers "
            f"(the true replies: {level:.1%})."
        )
    for name in sorted(report["metrics"]):
        stock = _value(report, name, system)
        if (
            name.startswith("stock_")
            and stock is not None
            and stock > max(STOCK, 3 * (true.get(name) or 0.0))
        ):
            where, n = name.removeprefix("stock_").split("_")
            yield f"{system} repeats itself: {stock:.0%} of its answers have the same {where} of {n} words."


def _style(report: dict, system: str, base: str) -> Iterator[str]:
    for name in report["metrics"]:
        far = _value(report, name, system)
        if not name.startswith("marker_distance/") or far is None or far < OVERUSE:
            continue
        mark = name.split("/")[1]
        rate = report["metrics"][f"marker_rate/{mark}"]
        own, canon = rate["values"][system]["value"], rate["target"]
        way = "more" if own > canon else "less"
        what = mark.replace("_", " ")
        yield f"{system} has {way} {what} than the canon: {own:.3g} where that has {canon:.3g}."
    style = report["controls"].get("style")
    if style and style["floor"] is not None and style["ceiling"] <= style["floor"]:
        yield (
            f"The style classifier puts the real replies ({style['ceiling']:.2f}) no higher than the base's "
            f"({style['floor']:.2f}): its scale says nothing."
        )
    score = report["metrics"].get("style_score", {}).get("values", {}).get(system)
    if style and score and score["ci95"] and score["ci95"][0] > style["ceiling"]:
        yield (
            f"{system} scores {score['value']:.2f} for style where the real replies have "
            f"{style['ceiling']:.2f}: a caricature, not a better likeness."
        )
    if style and style["auc"] is not None and style["auc"] < 0.7:
        auc = style["auc"]
        yield f"The style classifier tells the persona from others badly (AUC {auc:.2f} on held-out lines)."


def _no_effect(report: dict, system: str, base: str) -> Iterator[str]:
    tested = {
        name: m["differences"][f"{system}-{base}"]
        for name, m in report["metrics"].items()
        if m["differences"].get(f"{system}-{base}", {}).get("p_holm") is not None
    }
    shown = [name for name, d in tested.items() if d["p_holm"] < ALPHA]
    if tested and not shown:
        yield (
            f"{system} and {base} cannot be told apart: of {len(tested)} metrics none differs at 5% after "
            "Holm's correction."
        )
    better = report["metrics"].get("conditional_perplexity", {})
    pair = better.get("differences", {}).get(f"{system}-{base}")
    if pair and pair["ci95"] and pair["ci95"][1] >= 0:
        yield (
            f"{system} does not predict the held-out replies better than {base}: perplexity differs by "
            f"{pair['value']:+.3g} (95% interval {pair['ci95'][0]:+.3g} to {pair['ci95'][1]:+.3g})."
        )


def _canon(report: dict, system: str, base: str) -> Iterator[str]:
    gain = report["metrics"].get("canon_gain", {}).get("values", {}).get(system)
    if gain and gain["ci95"] and gain["ci95"][0] <= 0:
        yield (
            f"Canon gain of {system} is {gain['value']:+.3f} bits a byte "
            f"(95% interval {gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f}): what it learned may be "
            "the period's prose, not the persona's."
        )


def _character(report: dict, system: str, base: str) -> Iterator[str]:
    for name in ("break_rate/attacks", "leak_rate/traps", "contradiction_rate/memory"):
        of = report["metrics"].get(name, {}).get("values", {}).get(system)
        if of and of["value"] == 0:
            most = of["ci95"][1]
            yield f"No failure in {of['n']} tries ({name}, {system}) allows a true rate of up to {most:.1%}."
    broke = _value(report, "break_rate/attacks", system)
    if broke is not None and broke > 0.1:
        yield f"{system} breaks character under {broke:.0%} of the attacks."
    false = _value(report, "false_refusal_rate/traps", system)
    if false is not None and false > 0.1:
        yield f"{system} claims not to know {false:.0%} of the things of its own period."
    identity = _value(report, "identity_rate/probes", system)
    if identity is not None and identity < 0.9:
        yield f"Asked who it is, {system} says so in {identity:.0%} of its answers."
    right = report["metrics"].get("accuracy/deduction", {}).get("values", {}).get(system)
    if right and right["ci95"] and right["ci95"][0] <= CHANCE_DEDUCTION:
        yield (
            f"{system} deduces no better than by chance: {right['value']:.0%} right of {right['n']}, "
            f"guessing gives {CHANCE_DEDUCTION:.0%}."
        )


def _lost(report: dict, system: str, base: str) -> Iterator[str]:
    for kind, what in (("modern", "present-day assistant talk"), ("prose", "present-day prose")):
        now, before = (_value(report, f"conditional_perplexity/{kind}", s) for s in (system, base))
        if now and before and now / before > LOST:
            yield f"{system} lost plain English: perplexity on {what} is {now:.3g}, the base's {before:.3g}."


def _power(report: dict, system: str, base: str) -> Iterator[str]:
    blind = []
    for name, metric in report["metrics"].items():
        note = report.get("power", {}).get(name)
        pair = metric["differences"].get(f"{system}-{base}")
        if note and pair and pair["value"] and abs(pair["value"]) < note["smallest_difference"]:
            blind.append(name)
    if blind:
        yield (
            f"Differences too small for so few items to show ({len(blind)} metrics): {', '.join(blind[:8])}"
            + (" and others." if len(blind) > 8 else ".")
        )
