"""persona/ratings.py: the page goes out blind, ratings come back, and what they say is worked out by hand."""

import json
import math
import re

import pytest
import scripts
from browser import CONTRASTS, chromium

from persona import opinions, ratings
from persona.agreement import krippendorff_alpha, rank_correlation, same_share
from persona.answered import Answered, answer_metrics
from persona.card import load_card
from persona.errors import UserError
from persona.metrics import Metric
from persona.ratings import checksum, export_blind, import_ratings
from persona.scoring import Item


def an_answered(number: int, tuned: str | None = None, base: str | None = None) -> Answered:
    messages = [{"role": "user", "content": f"Question {number}?"}]
    item = Item(f"item-{number}", "dialogue", messages, f"True reply {number}.")
    return Answered(item, {"base": base or f"Plain {number}.", "tuned": tuned or f"Singular {number}."})


def exported(tmp_path, n: int = 6, seed: int = 42):
    """(page, key) of n items."""
    key = export_blind([an_answered(k) for k in range(n)], "Holmes", tmp_path / "p.html", tmp_path, seed)
    return (tmp_path / "p.html").read_text(), key


def download(folder, key: dict, rater: str, choices: list, edits: dict | None = None):
    """A file as the page makes it, edited afterwards."""
    made = {"kind": ratings.KIND, "page": key["page"], "rater": rater, "choices": choices}
    made |= {"checksum": checksum(key["page"], rater, choices)} | (edits or {})
    path = folder / f"{rater}.json"
    path.write_text(json.dumps(made))
    return path


def preferring(key: dict, votes: list) -> list:
    """Choices that mean tuned (1), base (0), neither (0.5) or nothing (None), item by item."""
    sides = [item["a"] == "tuned" for item in key["items"]]
    return [
        None if v is None else 0 if v == 0.5 else 1 if (v == 1) == tuned_left else 2
        for v, tuned_left in zip(votes, sides, strict=True)
    ]


# The page


def test_the_page_is_blind_whole_and_the_same_for_the_same_seed(tmp_path):
    page, key = exported(tmp_path)
    for word in ("tuned", "base", "item-0", "seed"):
        assert not re.search(rf"\b{word}\b", page), word
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", page)
    assert re.findall(r"@[A-Z]+@", page) == []
    assert sorted(re.findall(r"<p class=\"text\">(.*?)</p>", page)) == sorted(
        [f"Plain {k}." for k in range(6)] + [f"Singular {k}." for k in range(6)]
    )
    assert exported(tmp_path) == (page, key)
    other, other_key = exported(tmp_path, seed=1)
    assert other != page and other_key["page"] != key["page"]


def test_each_system_is_on_the_left_in_half_of_the_items_and_the_key_tells_where(tmp_path):
    page, key = exported(tmp_path, 10)
    assert [item["a"] for item in key["items"]].count("tuned") == 5
    assert [item["id"] for item in key["items"]] != [f"item-{k}" for k in range(10)]
    lefts = re.findall(r"Answer A</h3><p class=\"text\">(\w+) (\d)\.", page)
    words = {"Singular": "tuned", "Plain": "base"}
    assert [{"id": f"item-{k}", "a": words[w]} for w, k in lefts] == key["items"]
    on_disk = json.loads(ratings.key_path(tmp_path, key["page"]).read_text())
    assert {k: v for k, v in on_disk.items() if k != "sha256"} == key


def test_answers_are_text_and_nothing_else(tmp_path):
    items = [an_answered(0, "<script>alert(1)</script> @PAGE@ & co", "  ")]
    export_blind(items, "Holmes", tmp_path / "p.html", tmp_path, 42)
    page = (tmp_path / "p.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; @PAGE@ &amp; co" in page
    assert page.count("<script>") == 1 and "(no answer)" in page


def test_the_same_answer_twice_is_left_out_and_counted(tmp_path):
    items = [an_answered(0), an_answered(1, "Quite so.", " Quite so.")]
    key = export_blind(items, "Holmes", tmp_path / "p.html", tmp_path, 42)
    assert (len(key["items"]), key["same_answers"]) == (1, 1)
    with pytest.raises(UserError, match="nothing to rate"):
        export_blind(items[1:], "Holmes", tmp_path / "q.html", tmp_path, 42)
    with pytest.raises(UserError, match="no answers of steered to rate: the predictions are of base, tuned"):
        export_blind(items, "Holmes", tmp_path / "q.html", tmp_path, 42, ("steered", "base"))
    assert not (tmp_path / "q.html").exists()


# Ratings back


def test_choices_are_turned_into_votes_by_the_key(tmp_path):
    _, key = exported(tmp_path, 4)
    a = download(tmp_path, key, "Ada", preferring(key, [1, 0, 0.5, None]))
    b = download(tmp_path, key, "Zoë", preferring(key, [1, 1, None, None]))
    _, votes = import_ratings([a, b], tmp_path)
    assert votes == [{"Ada": 1.0, "Zoë": 1.0}, {"Ada": 0.0, "Zoë": 1.0}, {"Ada": 0.5}, {}]


def test_foreign_edited_and_broken_files_are_refused(tmp_path):
    _, key = exported(tmp_path, 3)
    good = download(tmp_path, key, "Ada", [1, 2, 0])

    def refused(match: str, *paths):
        with pytest.raises(UserError, match=match) as caught:
            import_ratings(paths, tmp_path)
        assert "\n" not in str(caught.value)

    refused("edited after", download(tmp_path, key, "Bob", [1, 2, 0], {"choices": [1, 2, 2]}))
    refused("edited after", download(tmp_path, key, "Cy", [1, 2, 0], {"rater": "Ada"}))
    refused("a choice is 1, 2, 0 or null", download(tmp_path, key, "Di", [1, 2, 3]))
    refused("a choice is 1, 2, 0 or null", download(tmp_path, key | {"page": "../key"}, "Ed", [1, 2, 0]))
    refused("3 items", download(tmp_path, key, "Flo", [1, 2]))
    refused("did not export", download(tmp_path, {"page": "a" * 64}, "Gus", [1, 2, 0]))
    refused("no ratings as the page downloads them", download(tmp_path, key, "Hal", [1], {"kind": "poem"}))
    refused("is missing", tmp_path / "none.json")
    twin = tmp_path / "twin.json"
    twin.write_bytes(good.read_bytes())
    refused("Ada has rated already", good, twin)
    refused("nothing is rated", download(tmp_path, key, "Ivy", [None] * 3))
    _, other = exported(tmp_path, 4)
    refused("one page at a time", good, download(tmp_path, other, "Jo", [1, 2, 0, 1]))
    path = ratings.key_path(tmp_path, key["page"])
    path.write_text(path.read_text().replace('"a": "tuned"', '"a": "base"', 1))
    refused("edited since the page was exported", good)


def test_ratings_of_answers_that_are_gone_are_refused(tmp_path):
    _, key = exported(tmp_path, 3)
    items = [an_answered(k) for k in range(5)]
    assert [one.item.id for one in ratings.items_of(key, items, "Holmes")] == [i["id"] for i in key["items"]]
    for others in (items[1:], [an_answered(0, "Quite another."), *items[1:]]):
        with pytest.raises(UserError, match="evaluated again after the page was exported"):
            ratings.items_of(key, others, "Holmes")


# Agreement and correlation


def test_alpha_is_krippendorffs_own_example():
    """Krippendorff (2011), section C: four observers, twelve units; 0.849 with the interval metric."""
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[float(r[k]) for r in rows if r[k] != "."] for k in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.849, abs=0.0005)


def test_alpha_by_hand():
    """Pairs (1,1), (0,1), (0,0): observed 2, expected 18, six values: 1 - 5 * 2 / 18."""
    units = [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.5]]
    assert krippendorff_alpha(units) == pytest.approx(4 / 9)
    assert same_share(units) == pytest.approx(2 / 3)
    assert krippendorff_alpha([[1.0], [0.0]]) is None and same_share([[1.0]]) is None
    assert krippendorff_alpha([[1.0, 1.0], [1.0, 1.0]]) is None
    assert krippendorff_alpha([[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(-0.5)


def test_rank_correlation_by_hand():
    """Two neighbours of ten exchanged: 1 - 6 * 2 / (10 * 99)."""
    found = rank_correlation([float(k) for k in range(10)], [1.0, 0.0, *map(float, range(2, 10))])
    rho = 1 - 12 / 990
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / 7)
    assert found["rho"] == pytest.approx(rho) and found["n"] == 10
    assert found["ci95"] == pytest.approx(
        [math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)]
    )
    assert rank_correlation([1.0] * 10, list(map(float, range(10))))["rho"] is None
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) == {"rho": None, "ci95": None, "n": 2}
    assert rank_correlation(*[[float(k) for k in range(10)]] * 2)["ci95"] == pytest.approx([1.0, 1.0])


# The report


def test_the_report_worked_out_by_hand(tmp_path):
    """Twelve items; tuned wins eight, loses three, one is even; a second rater rates the first two only."""
    _, key = exported(tmp_path, 12)
    votes = [{"Ada": 1.0}] * 8 + [{"Ada": 0.0}] * 3 + [{"Ada": 0.5}]
    votes = [votes[0] | {"Bo": 1.0}, votes[1] | {"Bo": 0.0}, *votes[2:]]
    of_tuned = [float(sum(v.values()) / len(v)) for v in votes]
    metrics = {
        "tuned": {
            "good": Metric("higher", of_tuned, [1.0] * 12),
            "bad": Metric("lower", of_tuned, [1.0] * 12),
            "near": Metric("target", of_tuned, [1.0] * 12, target=1.0),
            "rare": Metric("higher", of_tuned, [1.0] * 3 + [0.0] * 9),
        },
        "base": {
            "good": Metric("higher", [0.0] * 12, [1.0] * 12),
            "bad": Metric("lower", [0.0] * 12, [1.0] * 12),
            "near": Metric("target", [1.0] * 12, [1.0] * 12, target=1.0),
            "rare": Metric("higher", [0.0] * 12, [1.0] * 12),
        },
    }
    found = ratings.report(key, votes, metrics)
    preference = found["preference"]
    assert preference["value"] == pytest.approx((8 + 0.5 + 1 + 0) / 14)
    assert (preference["wins"], preference["ties"], preference["losses"], preference["n"]) == (9, 1, 4, 12)
    low, high = preference["ci95"]
    assert 0.3 < low < preference["value"] < high < 1.0
    assert found["raters"] == {"Ada": 12, "Bo": 2}
    # two items with two votes, (1, 1) and (1, 0): observed 2, expected 3 * 1 * 2, four values
    assert found["agreement"] == {"krippendorff_alpha": pytest.approx(0.0), "same_share": 0.5, "n": 2}
    rho = {name: r["rho"] for name, r in found["correlations"].items()}
    assert rho == {
        "good": pytest.approx(1.0),
        "bad": pytest.approx(-1.0),
        "near": pytest.approx(1.0),
        "rare": None,
    }
    assert found["correlations"]["rare"]["n"] == 3
    sides = [item["a"] == "tuned" for item in key["items"]]
    left = sum(
        (value == 1) == side
        for v, side in zip(votes, sides, strict=True)
        for value in v.values()
        if value != 0.5
    )
    assert found["left"] == pytest.approx(left / 13)
    assert found["warnings"] == [
        "Only 14 ratings: small preferences cannot show.",
        "The raters hardly agree (Krippendorff's alpha 0.00).",
    ]
    printed = ratings.table(found)
    assert "14 ratings of 12 items by 2 raters" in printed and "tuned-base: 0.679" in printed
    assert "rare" not in printed


def test_a_judges_scores_are_correlated_where_it_judged():
    judged = [{"id": "x", "scores": {"tuned": {"reason": "", "in_voice": 4, "knowledge": 2}}}]
    found = ratings.judge_metrics(judged, ["y", "x"], "tuned")
    assert found["judge_in_voice"].numerators == [0.0, 4.0]
    assert found["judge_in_voice"].denominators == [0.0, 1.0]
    assert found["judge_coherence"].denominators == [0.0, 0.0]


def test_metrics_of_answers_item_by_item():
    """Without a true reply nothing is compared to one; everything else is measured."""
    card = load_card("sherlock")
    train = [scripts.toy_row(n) for n in range(4)]
    probe = Answered(
        Item("p", "probe", [{"role": "user", "content": "Who?"}], None), {"tuned": "Pray, sit down."}
    )
    row = Answered(
        Item("r", "dialogue", [{"role": "user", "content": "Who?"}], "One two three four."),
        {"tuned": "One two."},
    )
    found = answer_metrics([probe, row], "tuned", card, train)
    assert (found["jaccard"].numerators, found["jaccard"].denominators) == ([0.0, 0.5], [0.0, 1.0])
    assert found["answer_words"].numerators == [3.0, 2.0]
    assert found["marker_rate/lexicon"].numerators == [1.0, 0.0]
    assert "conditional_perplexity" not in found
    assert all(len(m.numerators) == len(m.denominators) == 2 for m in found.values())


# As a user does it


def finished_run(workspace, n: int = 6):
    scripts.toy_data(workspace)
    folder = workspace / "result" / "sherlock-tiny"
    folder.mkdir(parents=True)
    rows = [scripts.toy_row(k) for k in range(32, 32 + n)]
    lines = [
        {
            "id": row["id"], "story": row["meta"]["story"], "kind": "dialogue",
            "prompt": row["messages"][-2]["content"], "reference": row["messages"][-1]["content"],
            "answers": {"base": f"It is {k}.", "tuned": f"Singular, Watson: {k} of them!"},
        }
        for k, row in enumerate(rows)
    ]  # fmt: skip
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_out_and_in_by_the_script(tmp_path):
    folder = finished_run(tmp_path)
    done = scripts.run(tmp_path, "evaluation.py", "--model", "tiny", "--export-blind")
    assert done.code == 0, done.err
    assert "6 items to rate" in done.out and str(folder / "blind.html") in done.out
    (path,) = (folder / "blind_keys").iterdir()
    key = json.loads(path.read_text())
    ada = download(tmp_path, key, "Ada", preferring(key, [1, 1, 1, 1, 0, 0.5]))
    bo = download(tmp_path, key, "Bo", preferring(key, [1, 1, 1, 0, 0, 0.5]))
    done = scripts.run(tmp_path, "evaluation.py", "--model", "tiny", "--import-ratings", ada, bo)
    assert done.code == 0, done.err
    assert "12 ratings of 6 items by 2 raters" in done.out and "(7 better, 2 neither, 3 worse)" in done.out
    report = json.loads((folder / "ratings_report.json").read_text())
    assert report["preference"]["value"] == pytest.approx(8 / 12)
    assert report["correlations"]["jaccard"] == {"rho": None, "ci95": None, "n": 6}
    ada.write_text(ada.read_text().replace("Ada", "Eve"))
    before = scripts.snapshot(folder)
    run = opinions.Finished(load_card("sherlock"), folder, tmp_path / "data")
    with pytest.raises(UserError, match="edited after it was downloaded"):
        opinions.import_ratings(run, [ada])
    assert scripts.snapshot(folder) == before


def test_the_page_in_a_browser(tmp_path):
    """Keys and mouse, kept over a reload, and a download that comes back in."""
    items = [an_answered(k) for k in range(4)]
    key = export_blind(items, "Holmes", tmp_path / "p.html", tmp_path, 42)
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto((tmp_path / "p.html").as_uri())
            assert all(contrast >= 4.5 for _, contrast in page.evaluate(CONTRASTS))
            assert page.locator(".item:visible").count() == 1
            page.keyboard.press("1")
            page.keyboard.press("2")
            page.keyboard.press("0")
            assert page.locator(".item:visible h2").inner_text() == "4 of 4"
            assert page.locator("#told").inner_text() == "3 of 4 rated"
            page.reload()
            assert page.locator("#told").inner_text() == "3 of 4 rated"
            page.keyboard.press("ArrowLeft")
            assert page.locator(".item:visible input:checked").get_attribute("value") == "0"
            page.get_by_text("Next unrated").click()
            page.locator(".item:visible").get_by_text("B is better").click()
            assert page.locator("#told").inner_text().startswith("All 4 rated")
            page.get_by_text("Download ratings").click()
            assert page.locator("#problem").inner_text() == "Please give a name or initials first."
            page.get_by_label("Your name").fill(f" Zoë 1 {scheme}")
            with page.expect_download() as waiting:
                page.get_by_text("Download ratings").click()
            assert waiting.value.suggested_filename == f"ratings-Zoë-1-{scheme}-{key['page'][:8]}.json"
            waiting.value.save_as(tmp_path / f"{scheme}.json")
            page.emulate_media(media="print")
            assert page.locator(".item:visible").count() == 4
            assert not page.locator("#save").is_visible()
            assert errors == []
            page.close()
    made = json.loads((tmp_path / "light.json").read_text())
    assert (made["rater"], made["choices"]) == ("Zoë 1 light", [1, 2, 0, 2])
    _, votes = import_ratings([tmp_path / "light.json", tmp_path / "dark.json"], tmp_path)
    left = [1.0 if item["a"] == "tuned" else 0.0 for item in key["items"]]
    expected = [left[0], 1 - left[1], 0.5, 1 - left[3]]
    assert [v["Zoë 1 light"] for v in votes] == expected == [v["Zoë 1 dark"] for v in votes]
