"""visual.py as a user runs it; its figures measured: pixel sizes, findings, no text over text."""

import copy
import json
import math
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from matplotlib.text import Text
from PIL import Image

import visual
from persona import figures, findings, pictures

ROOT = Path(__file__).resolve().parents[1]
ALL = ("dashboard", "loss", "perplexity", "similarity", "term_frequency", "improvement")


# --- sample inputs --------------------------------------------------------------------------------------


def entry(value: float | None, spread: float | None, n: int = 118) -> dict:
    """A value with an interval of `spread` on both sides; none where spread is None."""
    return {
        "value": value,
        "ci95": None if spread is None else [value - spread, value + spread * 1.2],
        "n": n,
    }


def sample_loss(
    points: int = 190, epochs: float = 3.0, evaluations: int = 6, nulls: tuple[int, ...] = ()
) -> dict:
    """A loss curve like the reference's: 1.55 down to 0.2, cosine learning rate with warm-up."""
    rng, train = random.Random(7), []
    for i in range(1, points + 1):
        part = i / points
        rate = 2e-4 * min(1.0, part / 0.05) * (0.5 * (1 + math.cos(math.pi * part)))
        value = 0.2 + 1.35 * math.exp(-4.5 * part) + rng.gauss(0, 0.04)
        point = {"step": 10 * i, "epoch": epochs * part, "loss": None if i in nulls else value}
        train.append(point | {"learning_rate": rate, "grad_norm": 0.5, "token_accuracy": 0.4 + 0.5 * part})
    evaluation = [
        {
            "step": 10 * points * k // evaluations,
            "epoch": epochs * k / evaluations,
            "loss": 0.3 + 1.2 * 0.4**k,
            "token_accuracy": None,
        }
        for k in range(1, evaluations + 1)
    ]
    borders = [0.0, epochs / 6, epochs / 2, epochs]
    names = ("rapid adaptation", "refinement", "convergence")
    phases = [
        {"name": name, "from_epoch": borders[i], "to_epoch": borders[i + 1], "loss_from": 1.0, "loss_to": 0.5}
        for i, name in enumerate(names)
    ]
    milestones = [{"epoch": 0.5, "loss": 0.896, "token_accuracy": 0.88, "step": 310}]
    head = {"run": "sherlock-tiny", "total_steps": 10 * points, "epochs": epochs, "milestones": milestones}
    return head | {"phases": phases, "train": train, "evaluation": evaluation}


def sample_report() -> dict:
    """Base against tuned, with a metric of every direction."""

    def metric(better, base, tuned, spread, difference, target=None):
        shift = {
            "tuned-base": {
                "value": tuned - base,
                "ci95": [tuned - base - difference, tuned - base + difference],
            }
        }
        values = {"base": entry(base, spread), "tuned": entry(tuned, spread)}
        return {"better": better, "target": target, "values": values, "differences": shift}

    return {
        "run": "sherlock-tiny",
        "protocol": "held-out stories, teacher forcing and greedy decoding",
        "n": 118,
        "seeds": [42, 43, 44],
        "items_sha256": "9f" * 32,
        "systems": {
            "base": {"model": "Qwen/Qwen2.5-7B-Instruct", "adapter": None, "prompt": "persona"},
            "tuned": {
                "model": "Qwen/Qwen2.5-7B-Instruct",
                "adapter": "result/sherlock-tiny/adapter",
                "prompt": "persona",
            },
        },
        "metrics": {
            "conditional_perplexity": metric("lower", 38.4, 21.7, 1.9, 1.6),
            "conditional_perplexity/modern": metric("lower", 19.2, 20.4, 1.4, 1.9),
            "bits_per_byte": metric("lower", 1.21, 1.02, 0.03, 0.02),
            "token_accuracy": metric("higher", 0.361, 0.428, 0.012, 0.01),
            "evaluation_loss": metric("lower", 3.648, 3.077, 0.05, 0.04),
            "jaccard": metric("higher", 0.074, 0.091, 0.006, 0.006),
            "rouge_l": metric("higher", 0.102, 0.105, 0.008, 0.009),
            "victorian_term_frequency": metric("target", 0.0061, 0.0284, 0.0021, 0.003, target=0.0319),
            "term_frequency_distance": metric("lower", 1.654, 0.116, 0.1, 0.2),
            "distinct_2": metric("higher", 0.81, 0.74, 0.02, 0.02),
        },
        "controls": {
            "shuffled_reference": {"jaccard": 0.07, "rouge_l": 0.09},
            "note": "other lines as references",
        },
        "leakage": {"eight_gram_overlap": {"base": 0.0, "tuned": 0.012}, "identical_rows": 0},
    }


def long_report(systems: int = 10) -> dict:
    """Ten systems, long names, metrics of many sizes, intervals partly missing."""
    rng, report = random.Random(3), sample_report()
    names = ["base", "tuned"] + [
        f"sherlock-qwen2.5-7b-instruct-lora-rank-{2**i}-prompted-{i}" for i in range(systems - 2)
    ]
    names[-1] = "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"
    report["run"] = "a-run-with-quite-a-long-name-" * 4
    report["systems"] = {name: {"model": "m", "adapter": None, "prompt": ""} for name in names}
    long = "a_metric_with_a_name_that_goes_on_and_on_for_longer_than_any_axis_could_hold_in_one_line"
    for metric in report["metrics"].values():
        values = metric["values"]
        for system in names[2:]:
            value = values["base"]["value"] * math.exp(rng.gauss(0, 0.4))
            values[system] = entry(value, None if rng.random() < 0.3 else 0.1 * value, n=rng.randint(30, 118))
    for extra in (long, f"rouge_l/{long}", f"jaccard/{long}"):
        report["metrics"][extra] = copy.deepcopy(report["metrics"]["distinct_2"])
    report["metrics"][long]["differences"]["tuned-base"] = {"value": 4000.0, "ci95": [-1e9, 1e9]}
    return report


def sample_predictions() -> list[dict]:
    """Two dialogues and a probe; an answer that would be markup if it were not escaped."""
    evil = '<script src="http://example.com/x.js">alert(1)</script> & "quoted"'
    return [
        {
            "id": f"{kind}-{i}",
            "story": story,
            "kind": kind,
            "prompt": "What is your method, Mr. Holmes?",
            "reference": None if kind == "probe" else "It is founded upon the observation of trifles.",
            "answers": {
                "base": evil,
                "tuned": "You see, but you do not observe.\n\nThe distinction is clear.",
            },
        }
        for i, (kind, story) in enumerate(
            [("dialogue", "the-speckled-band"), ("dialogue", "silver-blaze"), ("probe", None)]
        )
    ]


def one_system() -> dict:
    """The base model alone, without intervals."""
    report = sample_report()
    report["systems"].pop("tuned")
    for metric in report["metrics"].values():
        metric["values"] = {"base": {"value": metric["values"]["base"]["value"], "ci95": None, "n": 118}}
        metric["differences"] = {}
    return report


def no_intervals() -> dict:
    """Base against tuned, all intervals null."""
    report = sample_report()
    for metric in report["metrics"].values():
        for each in (*metric["values"].values(), *metric["differences"].values()):
            each["ci95"] = None
    return report


def few_metrics() -> dict:
    """Jaccard alone, and a perplexity that could not be measured."""
    report = sample_report()
    report["metrics"] = {name: report["metrics"][name] for name in ("conditional_perplexity", "jaccard")}
    report["metrics"]["conditional_perplexity"]["values"] = {
        "base": {"value": None, "ci95": None},
        "tuned": None,
    }
    report["metrics"]["conditional_perplexity"]["differences"] = {}
    return report


def far_apart() -> dict:
    """Perplexities over six powers of ten, changes of all sizes, names that look like mathematics."""
    report = sample_report()
    values = {"base": entry(2_345_678.9, 1e5), "tuned": entry(3.21, 0.1), "$x_1$ & <b>": entry(40.0, None)}
    report["metrics"]["conditional_perplexity"] |= {"values": values, "differences": {}}
    report["metrics"]["jaccard"]["values"]["base"]["value"] = 1e-9
    report["metrics"]["distinct_2"] |= {"better": "higher", "differences": {"tuned-base": {"value": 99.0}}}
    return report


REPORTS = {
    "typical": sample_report,
    "ten systems": long_report,
    "one system": one_system,
    "no intervals": no_intervals,
    "few metrics": few_metrics,
    "far apart": far_apart,
}
LOSSES = {
    "typical": sample_loss(),
    "long": sample_loss(2000, 3.0, 12, nulls=(50, 700)),
    "short": sample_loss(3, 0.07, 0),
    "five epochs": sample_loss(40, 5.0, 1),
}


# --- figures --------------------------------------------------------------------------------------------


def figures_of(report: dict, loss: dict | None) -> dict:
    """All figures that visual.py would write, composed, by name."""
    made, _ = visual.plan(report, loss)
    composed = {}
    for name in ALL:
        if name != "dashboard" and name not in made:
            continue
        picture = pictures.dashboard(report, made) if name == "dashboard" else made[name]
        size = (figures.DASHBOARD_WIDTH if name == "dashboard" else figures.WIDTH, picture.height)
        draw = lambda figure, picture=picture: picture.draw(figure, compact=False)  # noqa: E731
        composed[name] = figures.compose(size, picture.title, picture.caption, draw)
    return composed


def shown_texts(figure) -> list[Text]:
    """Every text that is drawn: no empty or hidden ones, no tick labels outside the view."""
    outside = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - slack <= tick.get_loc() <= high + slack:
                    outside |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if text not in outside]


def text_faults(figure) -> list[str]:
    """Texts that overlap by more than a pixel, or stick out of the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown_texts(figure)]
    width, height = figure.get_size_inches() * figure.dpi
    faults = [
        f"{text!r} sticks out: {box}"
        for text, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
                faults.append(f"{one!r} over {other!r}")
    return faults


CASES = [(report, "typical") for report in REPORTS] + [
    ("typical", loss) for loss in LOSSES if loss != "typical"
]


@pytest.mark.parametrize(("report", "loss"), CASES)
def test_no_text_over_text_and_none_cut_off(report, loss):
    with matplotlib.rc_context(figures.STYLE):
        for name, figure in figures_of(REPORTS[report](), LOSSES[loss]).items():
            assert len(shown_texts(figure)) > 5
            assert text_faults(figure) == [], name


def test_the_measure_of_overlap_finds_one():
    figure = figures.compose(
        (5, 3), "A title", "A caption", lambda panel: panel.subplots().text(0.5, 0.5, "over")
    )
    figure.axes[0].text(0.5, 0.5, "under")
    assert text_faults(figure) == ["'over' over 'under'"]


def test_titles_state_the_finding():
    report = sample_report()
    titles = {
        name: picture.title.replace(findings.HARD, " ")
        for name, picture in visual.plan(report, None)[0].items()
    }
    assert titles == {
        "perplexity": "Perplexity: base 38.40, tuned 21.70",
        "similarity": "Jaccard: base 0.074, tuned 0.091; "
        "ROUGE-L: base 0.102, tuned 0.105 (no clear difference)",
        "term_frequency": "Victorian term frequency: base 0.61%, tuned 2.84%",
        "improvement": "Tuned against base: 7 of 10 metrics better, 1 worse, 2 unclear",
    }
    loss = sample_loss()
    loss["train"][0]["loss"], loss["train"][-1]["loss"], loss["evaluation"][-1]["loss"] = 1.546, 0.197, 0.246
    title = visual.plan(report, loss)[0]["loss"].title
    assert title == "Training loss fell from 1.546 to 0.197 in 3 epochs; evaluation loss 0.246 at the end"
    assert "n = 118 · whiskers: 95% bootstrap interval" in visual.plan(report, None)[0]["perplexity"].caption
    assert (
        "n = 118 · the report gives no intervals"
        in visual.plan(no_intervals(), None)[0]["similarity"].caption
    )


def test_changes_are_relative_to_base_and_judged_by_direction_and_interval():
    rows = {row.name: row for row in findings.changes(sample_report())}
    perplexity = rows["conditional_perplexity"]  # 38.4 -> 21.7, difference -16.7 +- 1.6
    assert perplexity.percent == pytest.approx(-16.7 / 38.4 * 100)
    assert perplexity.ci95 == pytest.approx((-18.3 / 38.4 * 100, -15.1 / 38.4 * 100))
    verdicts = {name: (row.direction, row.verdict) for name, row in rows.items()}
    assert verdicts["conditional_perplexity"] == (-1, "better")
    assert verdicts["conditional_perplexity/modern"] == (-1, "unclear")
    assert verdicts["token_accuracy"] == (1, "better")
    assert verdicts["victorian_term_frequency"] == (1, "better")  # nearer to 3.19%
    assert verdicts["distinct_2"] == (1, "worse")
    assert {row.verdict for row in findings.changes(no_intervals())} == {"unclear"}

    beyond = sample_report()
    metric = beyond["metrics"]["victorian_term_frequency"]
    metric["values"]["tuned"]["value"] = 0.09
    metric["differences"]["tuned-base"] = {"value": 0.0839, "ci95": [0.08, 0.09]}
    assert {row.name: row.verdict for row in findings.changes(beyond)}["victorian_term_frequency"] == "worse"


def test_systems_differ_by_colour_and_hatch_and_intervals_are_drawn():
    figure = figures_of(long_report(), None)["term_frequency"]
    bars = [bar for bar in figure.axes[0].patches if bar.get_width() > 0]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(bars) == 10
    figure = figures_of(sample_report(), None)["term_frequency"]
    whiskers = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert whiskers[0] == pytest.approx([0.4, 0.862])  # percent
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [pytest.approx([3.19, 3.19])]


def test_fit_keeps_both_ends_of_a_name_and_its_lines_in_the_width():
    name = "sherlock-qwen2.5-7b-instruct-lora-rank-16"
    lines = figures.fit(name, 1.0, 8).split("\n")
    assert len(lines) == 2 and "…" in "".join(lines)
    assert lines[0].startswith("sherlock") and lines[1].endswith("16")
    assert all(figures.text_inches(line, 8) <= 1.0 for line in lines)
    assert figures.fit("rapid adaptation", 0.8, 8) == "rapid\nadaptation"
    assert figures.fit("base", 1.0, 8) == "base"


# --- the script -----------------------------------------------------------------------------------------


def run(workspace: Path, *flags: str) -> subprocess.CompletedProcess:
    """visual.py as a user runs it."""
    command = [sys.executable, str(ROOT / "visual.py"), "--run", "r", *flags]
    environment = os.environ | {"PERSONA_WORKSPACE": str(workspace)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=workspace, check=False
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run folder with all three inputs."""
    folder = tmp_path / "result" / "r"
    folder.mkdir(parents=True)
    (folder / "evaluation_report.json").write_text(json.dumps(sample_report()))
    (folder / "training_loss.json").write_text(json.dumps(sample_loss()))
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, sample_predictions())) + "\n")
    return folder


class Page(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_draws_everything_then_finds_it_up_to_date(folder, tmp_path):
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "skipped" not in done.stdout
    widths = {}
    for name in ALL:
        with Image.open(folder / "figures" / f"{name}.png") as image:
            widths[name] = image.size[0]
            assert 300 <= image.size[1] <= 1300
            assert image.format == "PNG" and [round(each) for each in image.info["dpi"]] == [150, 150]
    assert widths == {name: 1200 if name == "dashboard" else 1080 for name in ALL}
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(
        f"{name}.png" for name in ALL
    )

    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    times = {path: path.stat().st_mtime_ns for path in before}
    assert "up to date" in run(tmp_path).stdout
    assert times == {path: path.stat().st_mtime_ns for path in before}
    assert "wrote" in run(tmp_path, "--force").stdout
    assert before == {path: path.read_bytes() for path in before}  # same inputs, same bytes
    assert "wrote" in run(tmp_path, "--answers", "1").stdout
    assert "1 of 3 items" in (folder / "report.html").read_text()

    (folder / "training_loss.json").unlink()
    done = run(tmp_path, "--force")
    assert "skipped loss: no training_loss.json" in done.stdout and "loss.png: it showed" in done.stdout
    assert not (folder / "figures" / "loss.png").exists()


def test_page_stands_alone_and_escapes_answers(folder, tmp_path):
    run(tmp_path)
    text = (folder / "report.html").read_text()
    tags = Page(text).tags
    references = [value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href")]
    links = [each for each in references if each.startswith("#")]
    assert len(references) - len(links) == len(ALL)
    assert all(each.startswith("data:image/png;base64,") for each in references if each not in links)
    assert {each[1:] for each in links} <= {attrs.get("id") for _, attrs in tags}
    assert not {"link", "iframe", "object"} & {tag for tag, _ in tags}
    assert [attrs for tag, attrs in tags if tag == "script"] == [{}]  # the page's own
    assert "&lt;script src=&quot;http://example.com/x.js&quot;&gt;alert(1)&lt;/script&gt; &amp;" in text
    assert all(len(attrs["alt"]) > 20 for tag, attrs in tags if tag == "img")
    headings = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert ("html", {"lang": "en"}) in tags and "width=device-width" in text and "light dark" in text
    sections = text.split("<article ")[1:]
    assert len(sections) == 3 and all(
        f"<h4>{name}</h4>" in sections[0] for name in ("reference", "base", "tuned")
    )
    assert "<h4>reference</h4>" not in sections[2]  # a probe has none
    assert "+6.70 pp <small>[5.70, 7.70]</small>" in text
    assert "38.40 <small>[36.50, 40.68]</small>" in text


def test_report_alone_is_enough(folder, tmp_path):
    (folder / "training_loss.json").unlink()
    (folder / "predictions.jsonl").unlink()
    (folder / "evaluation_report.json").write_text(json.dumps(few_metrics()))
    done = run(tmp_path)
    assert done.returncode == 0
    assert sorted(path.stem for path in (folder / "figures").iterdir()) == [
        "dashboard",
        "improvement",
        "similarity",
    ]
    skipped = re.findall(r"^skipped ([a-z_ ]+):", done.stdout, flags=re.M)
    assert skipped == ["loss", "perplexity", "term_frequency", "answers side by side"]


def test_a_report_without_any_metric_still_gives_a_page(folder, tmp_path):
    (folder / "training_loss.json").unlink()
    (folder / "evaluation_report.json").write_text(json.dumps({"run": "r", "metrics": {}}))
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "<h1>Evaluation of r</h1>" in (folder / "report.html").read_text()
        and not (folder / "figures").exists()
    )


BROKEN = {
    "evaluation_report.json": ["{", "[]", '{"metrics": {"jaccard": {"better": "higher"}}}'],
    "training_loss.json": ["{", '{"train": []}'],
    "predictions.jsonl": ['{"id": 1, "answers": {}}\n{', '{"answers": {}}\n{"id": 2}'],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_broken_input_is_one_line_and_exit_code_2(folder, tmp_path, name, text):
    (folder / name).write_text(text)
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert name in done.stderr and "python " in done.stderr
    assert ("line 2" in done.stderr) == (name == "predictions.jsonl")
    assert not (folder / "report.html").exists() and not (folder / "figures").exists()


def test_help_and_settings_load_no_plotting_library():
    code = "import sys, visual, extract_loss; print({'matplotlib', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_missing_report_names_the_command_that_makes_it(tmp_path):
    done = run(tmp_path, "--corpus", "canon")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "python evaluation.py --corpus canon --run r" in done.stderr
