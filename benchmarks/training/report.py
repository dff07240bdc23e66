"""The tables of benchmarks/train.py, from its JSON."""

import math

TITLES = {"a": "(a) reference's recipe", "b": "(b) plain SFTTrainer", "c": "(c) ours"}
WANTED = {"a": 4.0, "b": 2.0}
"""How many times as fast ours is to be on a CPU."""


def comparison_table(found: dict) -> str:
    """Three systems, ours against each, and what each gain is worth."""
    from training.ours import GAINS

    rows, held = found["rows"], found["held_out"]
    lines = [
        "",
        f"{rows['train']} rows, {found['tokens']:,.0f} tokens in all, {found['device']}, "
        f"{found['threads']} threads; held-out loss over {held['tokens']:,} tokens of {held['rows']} rows",
        "",
        f"{'':<24}{'to last step':>15}{'whole run':>11}{'tokens/s':>10}{'peak':>10}{'loss':>8}{'base':>8}",
    ]
    for name in ("a", "b", "c"):
        facts = found["systems"][name]
        curve = facts["curve"]
        there = f"{curve[-1][0]:.0f} s" if facts["finished"] else f"over {facts['seconds']:.0f} s"
        speed = f"{facts['tokens_a_second']:,.0f}" if facts["finished"] else "-"
        lines.append(
            f"{TITLES[name]:<24}{there:>15}{facts['seconds']:>9.0f} s{speed:>10}"
            f"{facts['peak_gib']:>6.2f} GiB{curve[-1][1]:>8.3f}{curve[0][1]:>8.3f}"
        )
    spent = found["systems"]["a"].get("evaluation_seconds")
    lines += [f"(a) spent {spent:.0f} s of it evaluating" if spent else "", ""]
    for name, facts in found["compared"].items():
        reached = facts["ours_seconds_to_that_loss"]
        if reached is None:
            how = f"ours does not come down to its {facts['loss']:.3f}, but ends at {facts['ours_loss']:.3f}"
        else:
            verdict = "met" if facts["times_faster"] >= WANTED[name] else "MISSED"
            how = (
                f"its {facts['loss']:.3f} after {facts['seconds']:.0f} s, ours after {reached:.0f} s: "
                f"{facts['times_faster']:.1f} times as fast (wanted {WANTED[name]:g}: {verdict})"
            )
        lines += [
            f"{TITLES[name]}: {how}; to the end {facts['times_faster_to_the_end']:.1f} times",
            f"    at the end of ours: {facts['ours_loss']:.3f} against {facts['loss_when_ours_ended']:.3f}",
            f"    ours less its loss, both at their ends: {_interval(facts['difference'])}",
        ]
    return "\n".join([*lines, *_gains(found["without"], GAINS)])


def _interval(difference: dict) -> str:
    low, high = difference["ci95"] or (math.nan, math.nan)
    return f"{difference['value']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _gains(without: dict, gains: dict) -> list[str]:
    if "seconds_a_step" not in without.get("nothing", {}):
        return []
    whole = without["nothing"]
    lines = ["", f"{'ours without':<70}{'s a step':>9}{'times':>7}{'computed':>10}{'peak':>10}"]
    for name, facts in without.items():
        title = "(nothing taken out)" if name == "nothing" else gains[name].title
        if "left_out" in facts:
            lines.append(f"{title:<70}  not measured: {facts['left_out']}")
            continue
        times = facts["seconds_a_step"] / whole["seconds_a_step"]
        lines.append(
            f"{title:<70}{facts['seconds_a_step']:>9.2f}{times:>7.2f}"
            f"{facts['computed_a_step']:>10,.0f}{facts['peak_gib']:>6.2f} GiB"
        )
    parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in whole["startup"].items())
    total = sum(whole["startup"].values())
    return [*lines, "", f"start-up to the first step: {total:.1f} s ({parts})"]


def large_table(found: dict) -> str:
    """One line a setting of the model with random weights."""
    lines = [
        "",
        f"{found['model']}, {found['layers']} layers, random weights in NF4, {found['device']}",
        "",
        f"{'':<42}{'tokens a step':>14}{'s a step':>10}{'tokens/s':>10}{'of peak':>9}{'memory':>11}",
    ]
    for facts in found["settings_measured"]:
        if "not_measured" in facts:
            lines.append(f"{facts['title']:<42}  not measured: {facts['not_measured']}")
            continue
        share = "-" if facts["peak_share"] is None else f"{facts['peak_share']:.1%}"
        lines.append(
            f"{facts['title']:<42}{facts['tokens_a_step']:>14,.0f}{facts['seconds_a_step']:>10.3f}"
            f"{facts['tokens_a_second']:>10,.0f}{share:>9}{facts['peak_gib']:>7.2f} GiB"
        )
    return "\n".join(lines)
