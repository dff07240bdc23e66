"""What a report says in plain words: a headline from its numbers, and a line a question with its verdict."""

from dataclasses import dataclass

from persona import findings
from persona.findings import finite, interval, measured, number_text
from persona.suite_pictures import controls_of

ALPHA = 0.05
QUESTIONS = {
    "conditional_perplexity": "Does it predict the persona's unseen replies? (perplexity)",
    "canon_gain": "Did it learn the persona, not only the period? (canon gain, bits per byte)",
    "choice_accuracy/same-speaker": "Does it know the true reply among nine others of the persona's?",
    "choice_accuracy/other-speaker": "Does it know the persona's reply among nine of other people's?",
    "style_score": "Do its answers read like the persona's? (style score, 0 to 1)",
    "rouge_l": "Do its answers share words with the true ones? (ROUGE-L, 0 to 1)",
    "identity_rate/probes": "Asked who it is, does it say so?",
    "break_rate/attacks": "How often is it talked out of character?",
    "leak_rate/traps": "How often does it know what came after its time?",
    "false_refusal_rate/traps": "How often does it deny things of its own time?",
    "recall_rate/memory": "Does it recall what was said some turns before?",
    "contradiction_rate/memory": "How often does it contradict what was said?",
    "accuracy/deduction": "Does it deduce? (answers in words)",
    "choice_accuracy/deduction": "Does it deduce? (likeliest of four choices)",
    "copied_8grams": "How much of its answers is copied from training rows?",
    "accuracy/instructions": "Does it still follow plain instructions?",
    "conditional_perplexity/modern": "Does it still know present-day talk? (perplexity)",
}
"""The questions of the summary, in order, and the metric that answers each."""


@dataclass(frozen=True)
class Line:
    """One question of the summary."""

    name: str
    question: str
    values: dict[str, dict]
    """The metric's entries of the summary's systems, those that were measured."""
    control: str
    verdicts: dict[str, str]
    """better, worse or unclear, by system that is compared with the base."""


def judged(metric: dict, pair: tuple[str, str] | None) -> str:
    """better, worse or unclear of the pair's difference: by Holm's p-value where there is one, else by the
    interval."""
    values, target = measured(metric), metric.get("target")
    if not pair or not set(pair) <= set(values):
        return ""
    entry = (metric.get("differences") or {}).get("-".join(pair)) or {}
    ci, p = interval(entry), entry.get("p_holm")
    if finite(p):
        clear = p < ALPHA
    else:
        clear = bool(ci) and not ci[0] <= 0 <= ci[1]
    after, before = (values[system]["value"] for system in pair)
    if metric.get("better") == "target" and finite(target):
        improved = abs(after - target) < abs(before - target)
    elif metric.get("better") in ("higher", "lower"):
        improved = (after > before) == (metric["better"] == "higher")
    else:
        return ""
    return ("better" if improved else "worse") if clear else "unclear"


def tested(report: dict, pair: tuple[str, str]) -> dict[str, str]:
    """The verdict of every metric whose difference was tested; of all that are compared where none was."""
    metrics, key = report["metrics"], "-".join(pair)
    verdicts = {name: judged(metric, pair) for name, metric in metrics.items()}
    known = {name: ((m.get("differences") or {}).get(key) or {}).get("p") for name, m in metrics.items()}
    some = any(finite(p) for p in known.values())
    return {n: v for n, v in verdicts.items() if v and (not some or finite(known[n]))}


def summary(report: dict) -> list[Line]:
    """The questions that the report answers."""
    pairs = findings.compared_pairs(report)
    systems = [pairs[0][1], *(pair[0] for pair in pairs)] if pairs else list(report.get("systems") or ())[:2]
    lines = []
    for name, question in QUESTIONS.items():
        metric = report["metrics"].get(name)
        known = measured(metric) if metric else {}
        values = {s: known[s] for s in systems if s in known}
        if values:
            judge = judged_gain if name == "canon_gain" else judged
            verdicts = {pair[0]: judge(metric, pair) for pair in pairs}
            lines.append(Line(name, question, values, held_against(report, name), verdicts))
    return lines


def judged_gain(metric: dict, pair: tuple[str, str]) -> str:
    """Canon gain is a difference already: better where its interval lies above 0."""
    ci = interval(metric["values"].get(pair[0]))
    if not ci or ci[0] <= 0 <= ci[1]:
        return "unclear"
    return "better" if ci[0] > 0 else "worse"


def held_against(report: dict, name: str) -> str:
    """The control of a metric in words: chance, the true replies' own value, floor and ceiling."""
    controls = controls_of(report)
    chance, true = controls.get("chance") or {}, controls.get("true_replies") or {}
    guess = chance.get(name, chance.get(name.partition("/")[0]))
    if finite(guess):
        return f"chance {guess:.0%}"
    if name == "canon_gain":
        return "0: the period alone"
    style = controls.get("style") or {}
    if name == "style_score" and finite(style.get("ceiling")):
        return f"real replies {number_text(style['ceiling'])}"
    return f"true replies {number_text(true[name], name)}" if finite(true.get(name)) else ""


def headline(report: dict) -> list[str]:
    """One to four sentences with the report's main numbers, none of them fixed beforehand."""
    pairs, lines = findings.compared_pairs(report), {line.name: line for line in summary(report)}
    if not pairs:
        return [f"{line.question} {shown(line, s)}." for line in lines.values() for s in line.values][:3]
    asked = {system for pair in pairs for system in pair}
    known = {name: line for name, line in lines.items() if asked <= set(line.values)}
    if len(pairs) > 1:
        line = known.get("conditional_perplexity")
        return [voice(line, pair) for pair in pairs] if line else []
    pair = after, before = pairs[0]
    sentences = [voice(known["conditional_perplexity"], pair)] if "conditional_perplexity" in known else []
    if line := known.get("break_rate/attacks"):
        told = f"Attacked, {after} falls out of character in {shown(line, after)} of the tries, "
        sentences.append(f"{told}{before} in {shown(line, before)}{doubt(line, after)}.")
    if line := known.get("accuracy/deduction"):
        sentences.append(reasoning(line, after))
    if line := known.get("conditional_perplexity/modern"):
        told = f"Perplexity on present-day talk is {shown(line, after)}, {before}'s {shown(line, before)}"
        sentences.append(f"{told}{doubt(line, after)}.")
    return sentences


def shown(line: Line, system: str) -> str:
    return number_text(line.values[system]["value"], line.name)


def doubt(line: Line, system: str) -> str:
    return " (no clear difference)" if line.verdicts[system] == "unclear" else ""


def voice(line: Line, pair: tuple[str, str]) -> str:
    """The sentence on perplexity."""
    after, before = pair
    how = {"better": "better than", "worse": "worse than"}.get(
        line.verdicts[after], "no differently, as far as it shows, from"
    )
    numbers = f"perplexity {shown(line, after)} against {shown(line, before)}"
    return f"{after[:1].upper()}{after[1:]} predicts the persona's unseen replies {how} {before}: {numbers}."


def reasoning(line: Line, system: str) -> str:
    """The sentence on deductions, held against guessing."""
    ci, guess = interval(line.values[system]), 0.25
    if ci and ci[0] <= guess:
        return f"It deduces no better than by guessing: {shown(line, system)} right, {line.control}."
    return f"It gets {shown(line, system)} of the deductions right ({line.control})."


def count_sentences(report: dict) -> list[str]:
    """`Of 31 metrics 12 are better, 4 worse, 15 not told apart ...`, for each compared pair."""
    pairs = findings.compared_pairs(report)
    told = [
        (f"{pair[0]}: of" if len(pairs) > 1 else "Of", list(tested(report, pair).values())) for pair in pairs
    ]
    return [count_sentence(report, start, verdicts) for start, verdicts in told if verdicts]


def count_sentence(report: dict, start: str, verdicts: list[str]) -> str:
    counts = [verdicts.count(each) for each in ("better", "worse", "unclear")]
    holm = any(
        finite(d.get("p_holm"))
        for m in report["metrics"].values()
        for d in (m.get("differences") or {}).values()
    )
    how = "at 5% after Holm's correction" if holm else "by their 95% intervals"
    told = f"{counts[0]} are better, {counts[1]} worse, {counts[2]} not told apart"
    return f"{start} {len(verdicts)} metrics {told} {how}."
