"""Tables of the persona vector reports, for the terminal."""

from collections.abc import Sequence


def _row(cells: Sequence, widths: Sequence[int]) -> str:
    return "".join(
        f" {c!s:>{w - 1}}" if k else f"{c!s:<{w}}" for k, (c, w) in enumerate(zip(cells, widths, strict=True))
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(found: dict | None, digits: int = 3) -> str:
    """`+0.155 [+0.117, +0.183]` of a difference; - where there is none."""
    if not found or found["difference"]["value"] is None:
        return "-"
    value, interval = found["difference"]["value"], found["difference"]["ci95"]
    bounds = f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]" if interval else ""
    return f"{value:+.{digits}f}{bounds}"


def score_table(reports: Sequence[dict]) -> str:
    """A line a trait, condition and layer."""
    widths = (16, 24, 7, 8, 18, 12, 12, 12, 16)
    head = ("trait", "condition", "layer", "AUC", "95%", "band", "separation", "in sd", "random 5-95%")
    lines = [_row(head, widths)]
    for report in reports:
        for condition, found in report["conditions"].items():
            for layer in found["layers"]:
                ci, chance = layer["auc_ci95"], layer["random"]
                lines.append(
                    _row(
                        (
                            report["trait"],
                            condition,
                            layer["layer"],
                            _number(layer["auc"]),
                            f"[{ci[0]:.2f}, {ci[1]:.2f}]" if ci else "-",
                            layer["band"],
                            _number(layer["separation"], 2),
                            _number(layer["separation_in_sd"], 2),
                            f"{chance['p5']:.2f}-{chance['p95']:.2f}",
                        ),
                        widths,
                    )
                )
            if best := found["best"]:
                quality = best["quality"]
                lines.append(
                    f"{'':16}best layer for quality {quality['layer']}: AUC {quality['auc_chosen_on']:.3f} "
                    "on the "
                    f"half that chose it, {quality['auc_on_the_other_half']:.3f} on the other"
                )
    return "\n".join(lines)


def steer_table(report: dict) -> str:
    """A line a layer and coefficient; differences to the unsteered model."""
    widths = (7, 8, 28, 28, 28, 12, 10)
    head = ("layer", "coef", "likelihood margin", "expression", "style score", "perplexity", "wrong")
    lines = [_row(head, widths)]
    for row in report["cells"]:
        measured = row["margin"] or row["expression"]
        ratio = row["perplexity_ratio"]
        lines.append(
            _row(
                (
                    row["layer"],
                    f"{row['coefficient']:+g}",
                    with_interval(row["margin"]),
                    with_interval(row["expression"], 2),
                    with_interval(row["style"]),
                    "-" if ratio is None else f"x{ratio:.2f}",
                    "-" if not measured else f"{measured['moved_wrong']:.0%}",
                ),
                widths,
            )
        )
    best = report["recommended"]
    if best:
        lines.append(
            f"recommended: layer {best['layer']}, coefficient {best['coefficient']:g} ({best['by']} "
            f"{best['effect_chosen_on']:+.3f} on the half that chose it, "
            f"{best['effect_on_the_other_half']:+.3f} on the other)"
        )
    else:
        lines.append("no setting keeps the answers within 1.5 times the unsteered perplexity")
    return "\n".join(lines)


def shift_table(report: dict) -> str:
    """A line a trait and checkpoint, at the trait's layer, and what the data predict."""
    widths = (16, 42, 14, 7, 30, 10)
    lines = [_row(("trait", "model", "read at", "layer", "shift", "in sd"), widths)]
    for name, kinds in report["traits"].items():
        layer = report["layers"][name]
        for kind, models in kinds.items():
            for model, layers in models.items():
                found = layers[layer]
                told = with_interval({"difference": found["shift"]}, 2)
                lines.append(_row((name, model, kind, layer, told, _number(found["shift_in_sd"], 2)), widths))
        if report["predicted"] and (forecast := report["predicted"]["traits"][name])["layers"]:
            lines.append(
                _row(
                    (
                        name,
                        "predicted from data",
                        "response_avg",
                        layer,
                        f"{forecast['layers'][layer]:+.2f}",
                        "",
                    ),
                    widths,
                )
            )
    return "\n".join(lines)


def trait_table(report: dict) -> str:
    """TRAIT scores and questionnaire ratings, a line a model."""
    lines = []
    for part, unit, mass in (
        ("trait", "0 to 100", "letter_mass"),
        ("questionnaire", "1 to 5", "figure_mass"),
    ):
        for model, scores in report[part].items():
            for name, found in scores.items():
                ci = found["score_ci95"]
                bounds = f" [{ci[0]:.2f}, {ci[1]:.2f}]" if ci else ""
                agree = f", orders agree {found['orders_agree']:.0%}" if "orders_agree" in found else ""
                lines.append(
                    f"{model:<44}{name:<20}{found['score']:>8.2f}{bounds} ({unit}, n {found['n']}"
                    f"{agree}, mass on the options {found[mass]:.1%})"
                )
    return "\n".join(lines)


def study_table(report: dict) -> str:
    """A line a model and trait: separability, layers, steering by coefficient, linearity."""
    steps = [f"{c:+g}" for c in report["coefficients"]]
    widths = (34, 18, 17, 8, 9, 8, *(10 for _ in steps), 8, 10)
    head = ("model", "trait", "AUC, other half", "in sd", "quality", "effect", *steps, "R2", "spearman")
    lines = [_row(head, widths)]
    for row in report["rows"]:
        effects = [_number(row["effects"].get(step)) for step in steps]
        straight = row["linearity"] or {}
        lines.append(
            _row(
                (
                    row["model"],
                    row["trait"],
                    _number(row["auc_on_the_other_half"]),
                    _number(row["separation_in_sd"], 2),
                    row["quality_layer"],
                    "-" if row["effect_layer"] is None else row["effect_layer"],
                    *effects,
                    _number(straight.get("r2"), 2),
                    _number(straight.get("spearman"), 2),
                ),
                widths,
            )
        )
    return "\n".join(lines)
