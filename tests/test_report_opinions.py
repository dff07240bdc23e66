"""What a judge and people say, on the report page: trust first, then preferences, scores, correlations."""

import json
import re
from collections import Counter
from pathlib import Path

import matplotlib
import pytest
from browser import CONTRASTS, chromium
from test_judge import HOLMES, PAIRS, an_answered, knowing
from test_ratings import download, preferring
from test_report_page import Plain, sample_suite
from test_visual import Page, few_metrics, run, text_faults

import visual
from persona import figures, findings, judge, judge_report, ratings, report_opinions, report_page
from persona.answered import Answered, hash_of
from persona.errors import UserError
from persona.metrics import Metric

ITEMS = [
    an_answered(
        k, f"Singular, Watson, {k}!" if k < 10 else f"Well {k}.", f"It is {k}." if k < 11 else "Well 11."
    )
    for k in range(12)
]
"""Tuned is the better one in ten, the worse one in one, and says the same in one."""


class Judge:
    """An asker that knows the qualification's answers, prefers "Singular", then "It is", and scores so."""

    id, counts = "m", Counter()

    def ask(self, jobs):
        likes, score = knowing()
        for job in jobs:
            text = job.messages[-1]["content"]
            said = [part.split("\n</")[0] for part in text.split("answer>\n")[1::2]]
            if job.name == "preference":
                rank = [s.startswith("Singular") * 2 + s.startswith("It is") for s in said]
                better = likes(*said) if rank[0] == rank[1] else "first" if rank[0] > rank[1] else "second"
                yield job, judge.Preference(reason="So.", better=better)
            else:
                scores = score(said[0]) | ({"in_voice": 2} if said[0].startswith("It is") else {})
                yield job, judge.Scores(reason="So.", **scores)


def judged(pairs=PAIRS) -> dict:
    """judge_report.json as evaluation.py --judge makes it."""
    known = judge.qualify(Judge(), HOLMES, pairs)
    return json.loads(json.dumps({"run": "r", **judge_report.judged(Judge(), HOLMES, ITEMS, known)}))


def rated(folder: Path, raters: dict[str, list]) -> dict:
    """ratings_report.json as evaluation.py --import-ratings makes it, of the eleven pairs that differ."""
    key = ratings.export_blind(ITEMS, "Holmes", folder / "p.html", folder, 42)
    files = [download(folder, key, rater, preferring(key, votes)) for rater, votes in raters.items()]
    key, votes = ratings.import_ratings(files, folder)
    wins = [sum(v.values()) / max(1, len(v)) for v in votes]
    metrics = {
        "tuned": {
            "rouge_l": Metric("higher", wins, [1.0] * 11),
            "judge_in_voice": Metric("higher", [5.0] * 11, [1.0] * 11),
            "copied_8grams": Metric("lower", wins, [1.0] * 11),
        },
        "base": {name: Metric("higher", [0.0] * 11, [1.0] * 11) for name in ("rouge_l", "judge_in_voice")}
        | {"copied_8grams": Metric("lower", [0.0] * 11, [1.0] * 11)},
    }
    found = {"run": "r", **ratings.report(key, votes, metrics)}
    answered = {one.item.id: one for one in ITEMS}
    found["answers_sha256"] = hash_of([answered[i["id"]] for i in key["items"]], key["systems"])
    return json.loads(json.dumps(found))


ADA = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0.5, 1]
BO = [1, 1, 1, 1, 1, 1, None, None, None, None, 0]


def predictions(items: list[Answered]) -> list[dict]:
    return [{"id": one.item.id, "kind": "dialogue", "prompt": "?", "answers": one.answers} for one in items]


def plain(opinions: dict, rows: list[dict]) -> dict[str, str]:
    """The text of each section."""
    return {title: Plain(html).text for title, html in report_opinions.sections(opinions, rows, {}).items()}


def test_the_judges_section_worked_out_by_hand() -> None:
    text = plain({"judge": judged()}, predictions(ITEMS))[report_opinions.JUDGE]
    told = "m judged 32 pairs with a known answer: it prefers the right one in 100%, and scores it higher in"
    assert f"{told} 100% (80% of each is needed: qualified). The place alone decided 0% of them." in text
    assert text.index("32 pairs") < text.index("The judge (m) prefers") < text.index("Judge: in voice")
    # ten won, one lost, one the same words: 10.5 of 12
    assert "The judge (m) prefers tuned to base: tuned is preferred in 87.5% [" in text
    assert "of 12 pairs, ties counted half (10 better, 1 ties, 1 worse)." in text
    # base says "It is" eleven times (2) and "Well" once (5); tuned never does; true replies have 5
    assert "5.000" in text and "2.250" in text  # (11 * 2 + 5) / 12
    assert "true reply" in text
    assert "evaluated again" not in text and "not qualified" not in text


def test_a_judge_that_is_not_qualified_and_answers_that_are_gone_are_told_before_all_else() -> None:
    swapped = [p | {"right": p["wrong"], "wrong": p["right"]} for p in PAIRS[:16]] + PAIRS[16:]
    found = judged(swapped)
    changed = predictions(ITEMS)
    changed[3]["answers"] = changed[3]["answers"] | {"tuned": "Something else."}
    text = plain({"judge": found}, changed)[report_opinions.JUDGE]
    assert (
        "prefers the right one in 50%, and scores it higher in 50% (80% of each is needed: not qualified)"
        in text
    )
    for warning in (
        "The judge is not qualified: it was asked for all the same.",
        "this is of answers that are gone",
    ):
        assert text.index(warning) < text.index("The judge (m) prefers")
    assert "The judge is not qualified" in report_opinions.pictures_of({"judge": found})[
        "judge"
    ].caption.replace("the judge is", "The judge is")
    untold = {k: v for k, v in found.items() if k != "answers_sha256"}  # a report of an earlier version
    assert "are gone" not in plain({"judge": untold}, changed)[report_opinions.JUDGE]


def test_peoples_section_worked_out_by_hand(tmp_path) -> None:
    found = rated(tmp_path, {"Ada": ADA, "Bo": BO})
    text = plain({"people": found}, predictions(ITEMS))[report_opinions.PEOPLE]
    assert (
        "18 blind ratings of 11 pairs of answers by 2 raters; left out: 1 with the same answer twice." in text
    )
    # seven rated twice, all alike but the last: (1, 0)
    assert "Of the 7 pairs rated twice or more, two raters chose the same in 86%" in text
    # fourteen values, 13 of 1 and one of 0: observed 2, expected 2 * 13 over 13
    assert found["agreement"]["krippendorff_alpha"] == pytest.approx(1 - 13 * 2 / 26)
    assert "Krippendorff's alpha is 0.00 (0: chance, 1: perfect)." in text
    # Ada 9.5 of 11, Bo 6 of 7
    assert "People prefer tuned to base: tuned is preferred in 86.1% [" in text
    assert "of 18 ratings, ties counted half (15 better, 1 ties, 2 worse)." in text
    rows = [label for label in ("ROUGE-L", "Copied 8-grams", "Judge: in voice") if label in text]
    places = [text.index(label) for label in rows]
    assert len(rows) == 3 and places == sorted(places), "highest first, what cannot be told last"
    assert "1.000 [1.000, 1.000]" in text and "-1.000 [-1.000, -1.000]" in text
    assert "Ada" not in text and "Bo" not in text, "raters are counted, not named"
    assert "Only 18 ratings" in text


def test_one_rater_has_nobody_to_agree_with(tmp_path) -> None:
    text = plain({"people": rated(tmp_path, {"Ada": [None, *ADA[1:]]})}, [])[report_opinions.PEOPLE]
    assert (
        "by 1 rater; left" in text and "No pair was rated twice: how far people agree is not known." in text
    )


@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ([0.6, 0.9], "The judge prefers tuned no prompt to base"),
        ([0.1, 0.4], "The judge prefers base to tuned no prompt"),
        ([0.4, 0.8], "The judge shows no clear preference between tuned no prompt and base"),
        (None, "The judge shows no clear preference between tuned no prompt and base"),
    ],
)
def test_a_preference_is_claimed_where_its_interval_leaves_out_one_half(ci, said) -> None:
    assert report_opinions.leaning("The judge", "tuned_no_prompt-base", {"ci95": ci}) == said
    assert (
        report_opinions.leaning("People", "tuned-base", {"ci95": [0.6, 0.9]}) == "People prefer tuned to base"
    )


def test_the_figures_show_preferences_against_one_half(tmp_path) -> None:
    opinions = {"judge": judged(), "people": rated(tmp_path, {"Ada": ADA, "Bo": BO})}
    opinions["judge"]["preferences"] |= {
        f"{system}-base": {"value": v, "ci95": [v - 0.1, v + 0.1], "n": 12, "wins": 1, "ties": 0, "losses": 1}
        for system, v in (("tuned_no_prompt", 0.7), ("base_no_prompt", 0.3), ("base_few_shot", 0.5))
    }
    made = report_opinions.pictures_of(opinions)
    titles = {name: picture.title for name, picture in made.items()}
    assert titles == {
        "judge": "The judge prefers tuned to base: 87.5%",
        "people": "People prefer tuned to base: 86.1%",
    }
    with matplotlib.rc_context(figures.STYLE):
        for name, dots in (("judge", [87.5, 70, 30, 50]), ("people", [86.1, 87.5])):
            picture = made[name]
            draw = lambda figure, picture=picture: picture.draw(figure, compact=False)  # noqa: E731
            figure = figures.compose((figures.WIDTH, picture.height), picture.title, picture.caption, draw)
            assert text_faults(figure) == []
            axes = figure.axes[0]
            shown = [x for x in axes.lines if x.get_marker() in "osD^v" and len(x.get_xdata()) == 1]
            assert [x.get_xdata()[0] for x in shown] == pytest.approx(dots, abs=0.05)
            assert shown[0].get_color() == figures.BLUE, "tuned looks the same in every figure"
            assert [list(x.get_xdata()) for x in axes.lines if x.get_linestyle() == "--"] == [[50.0, 50.0]]
            assert axes.get_xlim() == (0.0, 100.0)


def test_the_page_has_the_sections_where_the_files_are(tmp_path) -> None:
    folder = tmp_path / "result" / "r"
    folder.mkdir(parents=True)
    (folder / "evaluation_report.json").write_text(json.dumps(few_metrics()))
    lines = [json.dumps(row | {"reference": None, "story": None}) + "\n" for row in predictions(ITEMS)]
    (folder / "predictions.jsonl").write_text("".join(lines))
    assert run(tmp_path).returncode == 0
    html = (folder / "report.html").read_text()
    assert not any(title in html for title in (report_opinions.JUDGE, report_opinions.PEOPLE))

    opinions = {"judge": judged(), "people": rated(tmp_path, {"Ada": ADA, "Bo": BO})}
    for who, (name, _, _) in report_opinions.REPORTS.items():
        (folder / name).write_text(json.dumps(opinions[who]))
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    html = (folder / "report.html").read_text()
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert headings.index(report_opinions.JUDGE) + 1 == headings.index(report_opinions.PEOPLE)
    assert '<a href="#what-a-judge-says">' in html and "are gone" not in html
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"judge", "people"}
    tags = Page(html).tags
    assert sum(tag == "img" for tag, _ in tags) == len(list((folder / "figures").iterdir()))
    assert "up to date" in run(tmp_path).stdout

    for name, _, _ in report_opinions.REPORTS.values():
        (folder / name).unlink()
    assert "removed" in run(tmp_path).stdout
    assert report_opinions.JUDGE not in (folder / "report.html").read_text()
    assert not (folder / "figures" / "judge.png").exists()


def test_a_file_that_is_no_report_is_one_line(tmp_path) -> None:
    (tmp_path / "judge_report.json").write_text('{"metrics": {}}')
    with pytest.raises(UserError, match=r"judge_report\.json: not a judge's report; make it .* --judge NAME"):
        report_opinions.read_opinions(tmp_path, "python evaluation.py")
    assert report_opinions.read_opinions(tmp_path / "nowhere", "") == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sections_on_a_phone(tmp_path, scheme) -> None:
    opinions = {"judge": judged(), "people": rated(tmp_path, {"Ada": ADA, "Bo": BO})}
    drawn = {tmp_path / f"{name}.png": p for name, p in report_opinions.pictures_of(opinions).items()}
    for path, picture in drawn.items():
        visual.draw(picture, path)
    said = report_opinions.sections(opinions, [], drawn)
    html = report_page.page(sample_suite(), None, [], {}, 0, '<main data-answers="0">', said)
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 900})
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.get_by_text("By kind of fault: 8 rows").click()
        for name in ("what-a-judge-says", "what-people-say"):
            page.locator(f"#{name}").scroll_into_view_if_needed()
            page.evaluate(f"document.getElementById('{name}').scrollIntoView()")
            assert [found for found in page.evaluate(CONTRASTS) if found[1] < 4.5] == []


def test_the_hash_knows_the_answers_of_some_systems_whatever_their_order() -> None:
    rows = [
        {"id": "a", "answers": {"base": "1", "tuned": "2"}},
        {"id": "b", "answers": {"base": "3", "tuned": "4"}},
    ]
    same = findings.answers_sha256(rows, ["b", "a"], ["tuned", "base"])
    assert same == findings.answers_sha256(rows[::-1], ["b", "a"], ["base", "tuned"])
    assert same != findings.answers_sha256(rows, ["a", "b"], ["tuned", "base"])
    assert findings.answers_sha256(rows[:1], ["a"], ["base"]) == findings.answers_sha256(
        [{"id": "a", "answers": {"base": "1", "tuned": "changed"}}], ["a"], ["base"]
    )
    assert same != findings.answers_sha256(rows[:1], ["b", "a"], ["tuned", "base"]), "an item is gone"
