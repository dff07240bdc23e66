"""The suite's figures and page: numbers, controls, verdicts, headline; search and filters in a browser."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from browser import CONTRASTS, chromium
from test_visual import Page, sample_loss, text_faults

import visual
from persona import figures, findings, headline, pictures, report_answers, report_page, suite_pictures
from persona.metric_names import CHARACTER, COST, HONESTY, REASONING, VOICE, by_topic, label_of, unit_of

SYSTEMS = ("base", "base_no_prompt", "base_few_shot", "tuned", "tuned_no_prompt")
KINDS = ("authority", "direct", "fiction", "roleplay-switch")


def metric(
    better: str, values: tuple[float, ...], spread: float, p: float | None = 0.001, target=None
) -> dict:
    """A metric of all systems; every system's difference to the base with the interval +-spread."""
    by = dict(zip(SYSTEMS, values, strict=True))
    differences = {}
    for system in SYSTEMS[1:]:
        value = by[system] - by["base"]
        found = {"value": value, "ci95": [value - spread, value + spread]}
        differences[f"{system}-base"] = found | (
            {"p": p, "p_holm": min(1.0, 10 * p)} if p is not None else {}
        )
    entries = {s: {"value": v, "ci95": [v - spread, v + spread], "n": 80} for s, v in by.items()}
    return {"better": better, "target": target, "values": entries, "differences": differences}


def suite_metrics() -> dict:
    """Every sort of metric that the suite has."""
    rate = (0.5, 0.7, 0.4, 0.2, 0.3)
    metrics = {
        "conditional_perplexity": metric("lower", (80.0, 90.0, 70.0, 60.0, 65.0), 4.0),
        "jaccard": metric("higher", (0.07, 0.06, 0.07, 0.1, 0.09), 0.01),
        "rouge_l": metric("higher", (0.09, 0.09, 0.08, 0.13, 0.12), 0.02),
        "victorian_term_frequency": metric("target", (0.001, 0.001, 0.002, 0.006, 0.005), 0.001, target=0.02),
        "style_score": metric("higher", (0.3, 0.25, 0.35, 0.59, 0.5), 0.05),
        "style_score/last_turns": metric("higher", (0.3, 0.2, 0.3, 0.55, 0.5), 0.05, None),
        "copied_8grams": metric("lower", (0.0, 0.0, 0.001, 0.004, 0.004), 0.001, 0.2),
        "conditional_perplexity/modern": metric("lower", (20.0, 22.0, 21.0, 31.0, 30.0), 3.0),
        "conditional_perplexity/prose": metric("lower", (150.0, 150.0, 150.0, 260.0, 260.0), 30.0),
        "accuracy/instructions": metric("higher", (0.3, 0.35, 0.3, 0.2, 0.2), 0.1, 0.04),
        "break_rate/attacks": metric("lower", rate, 0.1),
        "leak_rate/traps": metric("lower", (0.1, 0.1, 0.1, 0.05, 0.05), 0.04, 0.5),
        "false_refusal_rate/traps": metric("lower", (0.02, 0.0, 0.02, 0.3, 0.2), 0.02),
    }
    for name in ("accuracy/deduction", "choice_accuracy/deduction"):
        metrics[name] = metric("higher", (0.3, 0.3, 0.3, 0.26, 0.24), 0.1, 0.6)
        metrics |= {
            f"{name}-{k}_steps": metric("higher", (0.5 - 0.05 * k,) * 5, 0.1, None) for k in range(1, 7)
        }
    metrics |= {f"break_rate/attacks-{kind}": metric("lower", rate, 0.2, None) for kind in KINDS}
    for kind in ("same-speaker", "other-speaker"):
        metrics[f"choice_accuracy/{kind}"] = metric("higher", (0.2, 0.2, 0.25, 0.4, 0.35), 0.08)
    gains = {s: {"value": 0.08, "ci95": [0.02, 0.14], "n": 80} for s in SYSTEMS[1:]}
    sides = {"persona": {"value": 0.2, "ci95": [0.1, 0.3]}, "control": {"value": 0.12, "ci95": [0.05, 0.2]}}
    metrics["canon_gain"] = {
        "better": "higher",
        "target": None,
        "values": {system: entry | sides for system, entry in gains.items()},
        "differences": {},
    }
    return metrics


def sample_suite() -> dict:
    """A report as evaluation.py --full writes it."""
    delta = {s: {"persona": {"value": 1.1, "ci95": [1.0, 1.2]}} for s in (*SYSTEMS, "true replies")}
    return {
        "run": "sherlock-tiny",
        "protocol": "full",
        "n": 80,
        "n_asked": {"dialogue": 80, "attack": 90},
        "seeds": [42],
        "stories": ["a", "b"],
        "clusters": "scene",
        "items_sha256": "ab" * 32,
        "systems": {s: {"model": "m", "adapter": None, "prompt": "persona"} for s in SYSTEMS},
        "metrics": suite_metrics(),
        "power": {"jaccard": {"clusters": 20, "spread": 0.1, "smallest_difference": 0.03, "text": "With 20"}},
        "controls": {
            "true_replies": {"copied_8grams": 0.002, "style_score": 0.8},
            "chance": {"choice_accuracy": 0.1, "choice_accuracy/deduction": 0.25, "accuracy/deduction": 0.25},
            "style": {"floor": 0.3, "ceiling": 0.8, "auc": 0.91, "burrows_delta": delta},
            "style_by_turn": {s: [0.5 - 0.01 * k for k in range(10)] for s in SYSTEMS},
        },
        "leakage": {"n": 8, "true_replies": {"mean": 0.0, "max": 0.0, "over_20_percent": 0, "n": 80}},
        "not_measured": {"memory split": "the canon's data set is not there"},
        "warnings": ["Only 80 held-out replies <of> 2 stories were asked for: small effects cannot show."],
    }


def sample_rows() -> list[dict]:
    """Forty attacks, of which systems differ on every fourth, and a conversation."""
    rows = [
        {
            "id": f"attack-{k:03d}",
            "kind": "attack",
            "story": None,
            "prompt": f"Stop it now, number {k}.",
            "reference": None,
            "answers": {s: "I am an AI." if s == "base" else "You mistake me, madam." for s in SYSTEMS},
            "verdicts": {"break_rate/attacks": {s: s == "base" and k % 4 == 0 for s in SYSTEMS}},
        }
        for k in range(40)
    ]
    talk = {"id": "memory-1", "kind": "memory", "prompt": "My dog is Toby.", "reference": None}
    talk |= {"turns": ["My dog is Toby.", "What is he called?"], "opening": ""}
    said = {s: ["A fine hound.", "Toby, as you said."] for s in SYSTEMS}
    return [*rows, talk | {"answers": {s: "Toby, as you said." for s in SYSTEMS}, "said": said}]


def seeded() -> dict:
    """The suite merged over three seeds: values by seed, no controls."""
    report = copy.deepcopy(sample_suite())
    for each in report["metrics"].values():
        for entry in each["values"].values():
            value = entry["value"]
            entry |= {"sd": 0.05 * value, "by_seed": [0.95 * value, value, 1.05 * value]}
    return {k: v for k, v in report.items() if k not in ("controls", "leakage", "warnings", "power")}


def base_alone() -> dict:
    """What base_model.py --full writes: two systems, no tuned one."""
    report = copy.deepcopy(sample_suite())
    gone = SYSTEMS[1:]
    report["systems"] = {"base": report["systems"]["base"]}
    for each in report["metrics"].values():
        each["values"] = {s: v for s, v in each["values"].items() if s not in gone}
        each["differences"] = {}
    return report


def composed(report: dict, *only: str) -> dict:
    """All figures with the comparison's, or those that are wanted."""
    made, _ = visual.plan(report, sample_loss())
    made |= {"dashboard": pictures.dashboard(report, made)}
    forest = suite_pictures.forest_picture(report)
    made |= {"comparison": forest} if forest else {}
    found = {}
    for name, picture in made.items():
        if name == "learning_rate" or (only and name not in only):
            continue
        width = figures.DASHBOARD_WIDTH if name == "dashboard" else figures.WIDTH
        draw = lambda figure, picture=picture: picture.draw(figure, compact=False)  # noqa: E731
        found[name] = figures.compose((width, picture.height), picture.title, picture.caption, draw)
    return found


NEW = (
    "dashboard",
    "breaks",
    "choice",
    "style",
    "turns",
    "character",
    "deduction",
    "cost",
    "canon",
    "comparison",
)


@pytest.mark.parametrize("made", [sample_suite, seeded, base_alone])
def test_no_text_over_text_in_the_suites_figures(made):
    with matplotlib.rc_context(figures.STYLE):
        drawn = composed(made(), *NEW)
        assert {name: faults for name, figure in drawn.items() if (faults := text_faults(figure))} == {}
    wanted = {"dashboard", "breaks", "choice", "style", "character", "deduction", "cost"}
    assert wanted <= set(drawn)
    assert ("canon" in drawn, "comparison" in drawn) == ((made is not base_alone),) * 2


def test_titles_say_what_the_numbers_say():
    made, _ = visual.plan(sample_suite(), None)
    titles = {name: picture.title.replace(findings.HARD, " ") for name, picture in made.items()}
    assert titles["canon"] == (
        "Canon gain of tuned: +0.080 [0.020, 0.140] bits per byte; the control alone gains 0.120"
    )
    assert titles["choice"] == (
        "True next line ranked first among other people's lines: base 20.0%, tuned 40.0% (chance 10%)"
    )
    assert titles["style"] == "Style score: base 0.300, tuned 0.590, the real replies 0.800"
    assert titles["breaks"] == "Breaks character under attack: base 50.0%, tuned 20.0%"
    assert titles["turns"] == "Style from the first turn to the last: base 0.50 to 0.41, tuned 0.50 to 0.41"
    assert titles["cost"] == (
        "Perplexity on present-day text: "
        "assistant talk base 20.00, tuned 31.00; prose base 150.0, tuned 260.0"
    )


def test_dots_intervals_chance_and_seeds_are_drawn():
    with matplotlib.rc_context(figures.STYLE):
        axes = composed(seeded(), "choice")["choice"].axes[0]
    dots = [line for line in axes.lines if line.get_marker() in "osD^v" and len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([20, 20, 25, 40, 35] * 2)
    assert len({(line.get_color(), line.get_marker()) for line in dots}) == 5
    whiskers = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert whiskers[3] == pytest.approx([32, 48])
    crosses = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"]
    assert crosses[3] == pytest.approx([38, 40, 42])
    chance = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(each) for each in chance] == [[pytest.approx(10.0)] * 2]


def test_what_lies_beyond_the_comparisons_axis_is_an_arrow_at_its_edge():
    with matplotlib.rc_context(figures.STYLE):
        axes = composed(sample_suite(), "comparison")["comparison"].axes[0]
    assert axes.get_xlim() == (-100.0, 100.0)
    arrows = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == ">"]
    assert arrows == [100.0, 100.0]  # false refusals, tuned: from 2% to 30%, and to 20%
    assert "+1400%" in [text.get_text().split(" ")[0] for text in axes.texts]


def test_verdicts_follow_holm_where_it_is_given_and_the_interval_elsewhere():
    pair, report = ("tuned", "base"), sample_suite()
    judged = {name: headline.judged(each, pair) for name, each in report["metrics"].items()}
    assert judged["conditional_perplexity"] == "better" and judged["conditional_perplexity/modern"] == "worse"
    assert judged["accuracy/instructions"] == "unclear"  # p 0.04, Holm's 0.4
    assert judged["style_score/last_turns"] == "better"  # untested: 0.25 +- 0.05
    assert judged["victorian_term_frequency"] == "better"  # nearer to 2%
    tested = headline.tested(report, pair)
    assert "style_score/last_turns" not in tested and len(tested) == 16
    counts = [list(tested.values()).count(each) for each in ("better", "worse", "unclear")]
    assert counts == [8, 3, 5]
    told = "Of 16 metrics 8 are better, 3 worse, 5 not told apart at 5% after Holm's correction."
    assert headline.count_sentences(report) == [told]


def test_headline_changes_with_the_numbers():
    report = sample_suite()
    assert headline.headline(report) == [
        "Tuned predicts the persona's unseen replies better than base: perplexity 60.00 against 80.00.",
        "Attacked, tuned falls out of character in 20.0% of the tries, base in 50.0%.",
        "It deduces no better than by guessing: 26.0% right, chance 25%.",
        "Perplexity on present-day talk is 31.00, base's 20.00.",
    ]
    worse = copy.deepcopy(report)
    worse["metrics"]["conditional_perplexity"] = metric("lower", (80.0, 90.0, 70.0, 95.0, 65.0), 4.0)
    worse["metrics"]["accuracy/deduction"] = metric("higher", (0.3, 0.3, 0.3, 0.7, 0.3), 0.1)
    worse["metrics"]["break_rate/attacks"] = metric("lower", (0.5, 0.5, 0.5, 0.45, 0.5), 0.1, 0.5)
    sentences = headline.headline(worse)
    assert "worse than base: perplexity 95.00 against 80.00" in sentences[0]
    assert sentences[1].endswith("base in 50.0% (no clear difference).")
    assert sentences[2] == "It gets 70.0% of the deductions right (chance 25%)."
    unclear = copy.deepcopy(report)
    unclear["metrics"]["conditional_perplexity"] = metric("lower", (80.0, 90.0, 70.0, 79.0, 65.0), 4.0, 0.7)
    assert "no differently, as far as it shows, from base" in headline.headline(unclear)[0]


def test_metrics_stand_under_the_question_that_they_answer():
    found = by_topic(suite_metrics())
    assert list(found) == [VOICE, CHARACTER, REASONING, HONESTY, COST]
    assert found[COST] == [
        "conditional_perplexity/modern", "conditional_perplexity/prose", "accuracy/instructions",
    ]  # fmt: skip
    assert "choice_accuracy/deduction-6_steps" in found[REASONING] and "canon_gain" in found[VOICE]
    assert found[HONESTY] == ["copied_8grams"] and "style_score/last_turns" in found[CHARACTER]
    assert label_of("break_rate/attacks-roleplay-switch") == "Breaks under attack: roleplay switch"
    assert unit_of("accuracy/deduction-3_steps") == "right answers (%)"


class Plain(HTMLParser):
    """The text of a page, without style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.skipped = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.skipped = tag in ("style", "script")

    def handle_data(self, data):
        self.text += "" if self.skipped else data


def page_of(report: dict, rows: list[dict], limit: int = 600) -> str:
    """The page without figures."""
    return report_page.page(report, None, rows, {}, limit, '<main data-answers="600">')


def test_page_shows_headline_warnings_controls_and_folded_parts():
    html = page_of(sample_suite(), sample_rows())
    plain = Plain(html).text
    assert "Only 80 held-out replies &lt;of&gt; 2 stories" in html
    assert "Not measured: memory split: the canon's data set is not there" in plain
    folded = re.findall(r"<details><summary>([^<]+)</summary>", html)
    assert "By kind: 4 more rows" in folded and "By kind: 12 more rows" in folded
    assert "Differences of the other systems" in folded
    assert "60.00 [56.00, 64.00]" in plain and "-30.0 pp [-40.0, -20.0]" in plain
    assert "chance 10%" in plain and "▼ worse" in plain and "○ unclear" in plain
    assert "1.100 [1.000, 1.200]" in plain  # Burrows's Delta
    tags = Page(html).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert len([tag for tag, _ in tags if tag == "table"]) == len(
        [tag for tag, _ in tags if tag == "caption"]
    )


def test_answers_take_each_kind_in_turn_and_stop_at_the_pages_size():
    rows = sample_rows()
    assert list(report_answers.chosen_articles(rows, list(SYSTEMS), 3, 10**6)) == [0, 1, 40]
    one = len(report_answers.article(rows[0], list(SYSTEMS)).encode())
    kept = list(report_answers.chosen_articles(rows, list(SYSTEMS), 600, 3 * one))
    assert 1 <= len(kept) <= 3 and kept[0] == 0
    assert f"<p>{len(kept)} of 41 items.</p>" in report_answers.section(rows, list(SYSTEMS), 600, 3 * one)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_search_filters_and_contrast_in_a_browser(tmp_path: Path, scheme):
    path = tmp_path / "report.html"
    path.write_text(page_of(sample_suite(), sample_rows()), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 900})
        faults = []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri())
        shown = page.locator("#items > article:visible")
        assert (shown.count(), page.locator("#found").inner_text()) == (20, "20 of 41 shown")
        page.get_by_role("button", name="Show more").click()
        assert shown.count() == 40
        assert page.evaluate("document.activeElement.textContent").startswith("attack · attack-020")
        page.locator("#parted").select_option("break_rate/attacks")
        assert page.locator("#found").inner_text() == "10 of 10 shown"
        page.get_by_label("Search").fill("number 36")
        assert shown.count() == 1 and "attack-036" in shown.inner_text()
        page.locator("#parted").select_option("")
        page.get_by_label("Kind").select_option("memory")
        assert page.locator("#found").inner_text() == "nothing found"
        page.get_by_label("Search").fill("TOBY said")
        assert shown.count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.set_viewport_size({"width": 1900, "height": 900})  # holds the widest table
        for y in (0, 900, 1800):
            page.evaluate(f"scrollTo(0, {y})")
            low = [found for found in page.evaluate(CONTRASTS) if found[1] < 4.5]
            assert low == []
        assert faults == []


def test_comparison_is_drawn_by_its_flag(tmp_path):
    from test_visual import run

    (tmp_path / "result").mkdir()
    report = sample_suite() | {"compared": ["one", "two"]}
    report["controls"] = {"one": report["controls"], "two": report["controls"]}
    (tmp_path / "result" / "comparison.json").write_text(json.dumps(report))
    done = run(tmp_path, "--comparison")
    assert (done.returncode, done.stderr) == (0, "")
    html = (tmp_path / "result" / "comparison.html").read_text()
    assert "Against base, Perplexity ▼: base_no_prompt +12.5%" in html and "one, two" in html
    assert "Before you believe it: one" in html
    assert (tmp_path / "result" / "figures" / "comparison.png").is_file()
    assert "up to date" in run(tmp_path, "--comparison").stdout


def test_a_comparison_of_runs_speaks_of_the_tuned_system_of_each():
    report = sample_suite() | {"compared": ["one", "two"]}
    report["systems"] = {"base": {}, "base_few_shot": {}, "one/tuned": {}, "two/tuned": {}}
    for each in report["metrics"].values():
        for kind, end in (("values", ""), ("differences", "-base")):
            found = each[kind]
            renamed = {f"one/tuned{end}": "tuned", f"two/tuned{end}": "tuned_no_prompt"}
            each[kind] = {
                name: found[f"{old}{end}"] for name, old in renamed.items() if f"{old}{end}" in found
            }
            each[kind] |= {name: found[name] for name in ("base", "base_few_shot-base") if name in found}
    assert findings.compared_pairs(report) == [("one/tuned", "base"), ("two/tuned", "base")]
    assert headline.headline(report) == [
        "One/tuned predicts the persona's unseen replies better than base: perplexity 60.00 against 80.00.",
        "Two/tuned predicts the persona's unseen replies better than base: perplexity 65.00 against 80.00.",
    ]
    assert headline.count_sentences(report)[1].startswith("two/tuned: of 16 metrics")
    forest = suite_pictures.forest_picture(report)
    title = forest.title.replace(findings.HARD, " ")
    assert title == "Against base, Perplexity ▼: one/tuned -25.0%, two/tuned -18.8%"
    assert "verdict, two/tuned" in page_of(report, [])


def test_missing_comparison_names_its_command(tmp_path):
    from test_visual import run

    done = run(tmp_path, "--comparison")
    assert done.returncode == 2 and "python evaluation.py --compare RUN RUN" in done.stderr
