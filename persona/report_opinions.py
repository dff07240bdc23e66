"""What a judge and people say of a run's answers: two sections of the report page with a figure each.

The reports are dictionaries as evaluation.py --judge (judge_report.json) and --import-ratings
(ratings_report.json) write them. How far an opinion is to be trusted stands before what it is.
"""

from html import escape
from pathlib import Path

from persona import findings, runlog
from persona.dot_figures import Dots, Row
from persona.errors import UserError
from persona.findings import finite, number_text
from persona.metric_names import label_of, words_of
from persona.pictures import Picture
from persona.report_page import figure
from persona.report_tables import entry_text, metrics_table, table
from persona.suite_pictures import picture_of, scaled

JUDGE, PEOPLE = "What a judge says", "What people say"
TRUE_REPLY = "true reply"
REPORTS = {
    "judge": ("judge_report.json", "a judge's report", "--judge NAME"),
    "people": ("ratings_report.json", "a report of ratings", "--import-ratings FILE ..."),
}
"""The file of each opinion, what it is, and the flag of evaluation.py that makes it."""
NEEDED = {
    "judge": {"judge", "n", "qualification", "metrics", "preferences", "controls", "items", "warnings"},
    "people": {"systems", "n", "raters", "preference", "agreement", "correlations", "items", "warnings"},
}
UNIT = "answers preferred to {before}'s (%); ties count half"
SHARE = "choice_accuracy"
"""A metric that is read in percent with one decimal, as preferences are."""


def read_opinions(folder: Path, evaluate: str) -> dict[str, dict]:
    """The reports of a run's folder: of the judge, of people, or of neither.

    Raises:
        UserError: a file that is no such report.
    """
    found = {}
    for who, (name, what, flag) in REPORTS.items():
        path, remedy = folder / name, f"{evaluate} {flag}"
        if path.is_file():
            found[who] = runlog.read_json(path, what, remedy)
            if not (isinstance(found[who], dict) and NEEDED[who] <= set(found[who])):
                raise UserError(f"{path}: not {what}; make it again with: {remedy}")
    return found


def sections(opinions: dict[str, dict], rows: list[dict], drawn: dict[Path, Picture]) -> dict[str, str]:
    """HTML by title; `rows` are the answers that the page shows, `drawn` the figures of `pictures_of`."""
    html = {}
    for who, (title, made) in {"judge": (JUDGE, judge_section), "people": (PEOPLE, people_section)}.items():
        if who in opinions:
            shown = "".join(figure(path, picture) for path, picture in drawn.items() if path.stem == who)
            html[title] = made(opinions[who], doubts(opinions[who], rows), shown)
    return html


def doubts(found: dict, rows: list[dict]) -> str:
    """The report's own warnings, and one where the run has answered otherwise since."""
    lines = list(found["warnings"])
    ids, asked = [item["id"] for item in found["items"]], found.get("answers_sha256")
    if rows and asked and asked != findings.answers_sha256(rows, ids, systems_of(found)):
        lines.append(
            "The run was evaluated again since, and answers otherwise: this is of answers that are gone."
        )
    listed = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    return f'<div class="warnings"><ul>\n{listed}</ul></div>\n' if lines else ""


def systems_of(found: dict) -> list[str]:
    """The systems whose answers were judged or rated."""
    return found.get("systems") or list(next(iter(found["metrics"].values()))["values"])


# --- a judge --------------------------------------------------------------------------------------------


def judge_section(found: dict, doubted: str, shown: str) -> str:
    """Agreement with known answers, preferences, scores."""
    name, pairs = str(found["judge"]), tuned_first(found["preferences"])
    told = [preferred(f"The judge ({name})", key, entry) for key, entry in pairs.items()]
    html = qualification(name, found["qualification"]) + doubted + shown
    html += f"<p>{escape(' '.join(told[:1]))}</p>\n" + preferences_table(pairs)
    true = found["controls"].get("true_replies") or {}
    metrics = {
        key: {**metric, "values": {TRUE_REPLY: true.get(key), **metric["values"]}}
        for key, metric in found["metrics"].items()
    }
    caption = "Scores from 1 to 5, each answer by itself; the true replies were scored, too"
    return html + metrics_table({**found, "metrics": metrics}, list(metrics), caption)


def qualification(name: str, found: dict) -> str:
    """How far the judge agrees with answers that are known, all in all and by kind of fault."""
    if not finite(found.get("preferences")):
        return "<p>How far this judge agrees with known answers was not measured.</p>\n"
    verdict = "qualified" if found["qualified"] else "not qualified"
    place = (found.get("first") or 0) + (found.get("second") or 0)
    told = (
        f"Before it was believed, {name} judged {found['n']} pairs with a known answer: it prefers the right "
        f"one in {found['preferences']:.0%}, and scores it higher in {found['scores']:.0%} "
        f"({found['needed']:.0%} of each is needed: {verdict}). The place alone decided {place:.0%} of them."
    )
    kinds = sorted(found["by_kind"].items(), key=lambda kind: kind[1]["preferences"] + kind[1]["scores"])
    cells = [[words_of(k), f"{of['preferences']:.0%}", f"{of['scores']:.0%}", of["n"]] for k, of in kinds]
    heads = ["Kind of fault", "right one preferred", "right one scored higher", "pairs"]
    inside = table(heads, cells, "Agreement with known answers by kind of fault, the weakest first")
    folded = f"<details><summary>By kind of fault: {len(cells)} rows</summary>\n{inside}</details>\n"
    return f"<p>{escape(told)}</p>\n{folded}"


def preferences_table(pairs: dict[str, dict]) -> str:
    """Every system against the base, with how much the answers' places decided."""
    rows = [
        [key.replace("-", " to ", 1).replace("_", " "), entry_text(of, SHARE)]
        + [of[name] for name in ("wins", "ties", "losses", "same")]
        + [f"{of[place]:.0%}" if finite(of[place]) else "–" for place in ("first", "second")]
        for key, of in pairs.items()
    ]
    heads = ["Pair", "preferred", "better", "ties", "worse", "same words"]
    heads += ["first place alone", "second place alone"]
    caption = "Preferences, asked in both orders (a tie where they disagree), with 95% bootstrap intervals"
    return table(heads, rows, caption) if rows else ""


# --- people ---------------------------------------------------------------------------------------------


def people_section(found: dict, doubted: str, shown: str) -> str:
    """Who rated, how far they agree, what they prefer, which metrics order the answers as they do."""
    told = preferred("People", "-".join(found["systems"]), found["preference"])
    html = f"<p>{escape(agreement_text(found))}</p>\n{doubted}{shown}<p>{escape(told)}</p>\n"
    return html + correlations_table(found["correlations"])


def agreement_text(found: dict) -> str:
    """Raters and ratings, and what their agreement rests on; raters are counted and not named."""
    given, agreed = list(found["raters"].values()), found["agreement"]
    told = f"{sum(given)} blind ratings of {found['n']} pairs of answers by {len(given)} "
    told += "rater" if len(given) == 1 else "raters"
    same = found.get("same_answers")
    told += f"; left out: {same} with the same answer twice." if same else "."
    if finite(agreed["same_share"]):
        alpha = agreed["krippendorff_alpha"]
        told += f" Of the {agreed['n']} pairs rated twice or more, two raters chose the same in "
        told += f"{agreed['same_share']:.0%}; Krippendorff's alpha is "
        told += f"{alpha:.2f} (0: chance, 1: perfect)." if finite(alpha) else "not defined."
    else:
        told += " No pair was rated twice: how far people agree is not known."
    if finite(found.get("left")):
        told += f" The left side was chosen in {found['left']:.0%} of the decided ratings (50% is no bias)."
    return told


def correlations_table(found: dict[str, dict]) -> str:
    """Every metric's rank correlation with the raters, highest first; folded away where it may be none."""
    heads, caption = ["Metric", "rank correlation", "pairs"], "Spearman's correlation with 95% interval"
    order = sorted(found.items(), key=lambda item: -item[1]["rho"] if finite(item[1]["rho"]) else 2)
    clear, unclear = [], []
    for name, of in order:
        ci = findings.interval(of)
        kept = unclear if ci is None or ci[0] <= 0 <= ci[1] else clear
        kept.append([label_of(name), entry_text({"value": of["rho"], "ci95": of["ci95"]}), of["n"]])
    told = (
        f"Of {len(found)} metrics {len(clear)} order the pairs as people do, or against them, by an interval "
        "that leaves out 0 (1: the same order, -1: the opposite). One in twenty would do so by chance."
    )
    html = f"<p>{escape(told)}</p>\n" + (table(heads, clear, caption) if clear else "")
    if unclear:
        inside = table(heads, unclear, f"{caption}; –: too few pairs, or no difference between the answers")
        html += f"<details><summary>Not told from 0: {len(unclear)} more rows</summary>\n{inside}</details>\n"
    return html


# --- preferences in words and as figures ------------------------------------------------------------------


def tuned_first(pairs: dict[str, dict]) -> dict[str, dict]:
    """The pairs in the order in which one wants to know of them."""
    order = sorted(pairs, key=lambda key: (not key.startswith("tuned-"), not key.startswith("tuned")))
    return {key: pairs[key] for key in order}


def sides(key: str) -> tuple[str, str]:
    """`tuned-base` -> (tuned, base): the one that is preferred or not, and what it is compared with."""
    after, _, before = key.rpartition("-")
    return after.replace("_", " "), before.replace("_", " ")


def leaning(who: str, key: str, entry: dict) -> str:
    """`People prefer tuned to base`, or that they cannot tell, by the interval."""
    (after, before), ci, verb = sides(key), findings.interval(entry), "" if who == "People" else "s"
    if ci and ci[0] > 0.5:
        return f"{who} prefer{verb} {after} to {before}"
    if ci and ci[1] < 0.5:
        return f"{who} prefer{verb} {before} to {after}"
    return f"{who} show{verb} no clear preference between {after} and {before}"


def preferred(who: str, key: str, entry: dict) -> str:
    """A preference in a sentence, with its interval and what it is made of."""
    after, _ = sides(key)
    if not finite(entry.get("value")):
        return f"{who}: nothing was judged of {after}."
    counts = [entry[name] for name in ("wins", "ties", "losses")]
    of = f"{sum(counts)} {'ratings' if who == 'People' else 'pairs'}"
    return (
        f"{leaning(who, key, entry)}: {after} is preferred in {entry_text(entry, SHARE)} of {of}, "
        f"ties counted half ({counts[0]} better, {counts[1]} ties, {counts[2]} worse)."
    )


def pictures_of(opinions: dict[str, dict]) -> dict[str, Picture]:
    """A figure of preferences for each opinion; people's shows the judge on the same pair beside them."""
    judge, people, made = opinions.get("judge"), opinions.get("people"), {}
    pairs = tuned_first((judge or {}).get("preferences", {}))
    pairs = {key: entry for key, entry in pairs.items() if finite(entry.get("value"))}
    if pairs:
        rows = [preference_row(words_of(key.rpartition("-")[0]), key, entry) for key, entry in pairs.items()]
        note = "" if judge["qualification"]["qualified"] else "the judge is not qualified"
        made["judge"] = preferences_picture(judge, "The judge", rows, pairs, note)
    if people and finite(people["preference"].get("value")):
        key, raters = "-".join(people["systems"]), len(people["raters"])
        entries = {f"people ({raters})": people["preference"]}
        entries |= {f"judge {judge['judge']}": pairs[key]} if key in pairs else {}
        rows = [preference_row(label, key, entry) for label, entry in entries.items()]
        made["people"] = preferences_picture(people, "People", rows, {key: people["preference"]}, "")
    return made


def preference_row(label: str, key: str, entry: dict) -> Row:
    """A system's share of preferences, in percent."""
    system = key.rpartition("-")[0]
    return Row(label, {system: scaled(entry, 100.0)}, {system: entry_text(entry, SHARE)})


def preferences_picture(found: dict, who: str, rows: list[Row], pairs: dict[str, dict], note: str) -> Picture:
    """Dots with intervals, held against no preference; the title is of the first pair."""
    key, entry = next(iter(pairs.items()))
    title = f"{leaning(who, key, entry)}: {number_text(entry['value'], SHARE)}"
    named = [*systems_of(found), *(system for row in rows for system in row.entries)]
    series = {
        system: words_of(system) for system in named
    }  # in the order that gives the other figures' colours
    unit = UNIT.format(before=sides(key)[1])
    dots = Dots(rows, unit, series, {"no preference": 50.0}, (0.0, 100.0))
    metrics = {pair: {"values": {pair: of}} for pair, of in pairs.items()}
    return picture_of({**found, "metrics": metrics}, title, dots, metrics, note)
