"""An evaluation report as the lines that a terminal shows."""

from pathlib import Path

from persona import scoring


def summary(report: dict, out: Path) -> str:
    """What was asked, the table with intervals, what is weak or was not measured, where it was written."""
    stories = len(report["stories"])
    held_out = f"replies of {stories} held-out stories" if stories else "held-out replies written by hand"
    others = {"reference": "rows seen in training", "persona-chat": "new conversations"}
    where = others.get(report["protocol"], held_out)
    over = {"story": "stories", "scene": "scenes"}.get(report["clusters"], f"{report['clusters']}s")
    long = f" ({report['n_too_long']} more do not fit the context)" if report["n_too_long"] else ""
    lines = [f"\n{report['n']} {where}{long}; 95% intervals by bootstrap over {over}", scoring.table(report)]
    if report["protocol"] == "persona-chat":
        from persona.persona_chat_report import markdown_table

        lines.append(markdown_table(report))
    told = [f"not measured: {what}: {why}" for what, why in report.get("not_measured", {}).items()]
    told += [f"weak: {line}" for line in report.get("warnings", [])]
    true = report["leakage"]["true_replies"]
    told.append(
        f"8-grams of true replies that stand in training answers: mean {true['mean']:.2%}, "
        f"highest {true['max']:.2%}; written to {out}"
    )
    return "\n\n".join([*lines, "\n".join(told)])
