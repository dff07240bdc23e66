"""Draw a run's reports: figures for the README, and one self-contained page with tables and answers.

Reads   result/<run>/evaluation_report.json; where they are there training_loss.json, predictions.jsonl,
        judge_report.json (a judge's opinion) and ratings_report.json (people's)
        with --comparison: result/comparison.json, as evaluation.py --compare wrote it
Writes  result/<run>/figures/*.png, result/<run>/report.html
        with --comparison: result/figures/comparison.png, result/comparison.html

    python visual.py
    python visual.py --run sherlock-qwen2.5-7b --answers 200
    python visual.py --model tiny --force
    python visual.py --comparison
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import config
from persona import figures, findings, pictures, report_opinions, report_page, runlog, suite_pictures
from persona.pictures import FAMILIES, Picture

SUITE_FIGURES = ("canon", "choice", "style", "breaks", "character", "turns", "deduction", "cost")
FIGURES = (
    *("dashboard", "loss", "perplexity", "similarity", "term_frequency", "improvement", *SUITE_FIGURES),
    *report_opinions.REPORTS,
)
"""Every figure that this stage may write of a run, in the order of the page."""


@dataclass(frozen=True)
class Args(config.RunArgs):
    answers: int = 1000
    """Most answers shown side by side in the page, spread over kinds, as far as 3 MB reach; 0 for none."""
    comparison: bool = False
    """Draw the comparison of several runs in place of one run."""


def plan(report: dict, loss: dict | None) -> tuple[dict[str, Picture], dict[str, str]]:
    """The pictures that the data allow, in the order of the dashboard, and why others are skipped."""
    run, skipped, full = str(report.get("run", "run")), {}, report.get("protocol") == "full"
    made = pictures.loss_pictures(loss, run) if loss else {}
    if not made:
        what = "training_loss.json holds no loss" if loss else "no training_loss.json (extract_loss.py)"
        skipped["loss"] = what
    for figure, plain in FAMILIES.items():
        if names := findings.family(report, *plain):
            if full:  # five systems: other items have figures of their own, or stand in the tables
                names = [name for name in names if "/" not in name] or names
            made[figure] = pictures.bar_picture(report, names, run)
        else:
            skipped[figure] = f"the report holds no {' or '.join(plain)}"
    rows = findings.changes(report)
    if full:
        rows = [row for row in rows if row.name in suite_pictures.KEY_METRICS]
    if rows:
        made["improvement"] = pictures.change_picture(report, rows, run)
    else:
        skipped["improvement"] = "no metric with two systems to compare"
    return made | (suite_pictures.suite_pictures(report) if full else {}), skipped


def draw(picture: Picture, path: Path) -> None:
    """Write one figure."""
    width = figures.DASHBOARD_WIDTH if path.stem == "dashboard" else figures.WIDTH
    content = partial(picture.draw, compact=False)
    figures.save(figures.compose((width, picture.height), picture.title, picture.caption, content), path)
    print(f"wrote {path}")


def mark_of(args: Args) -> str:
    """Stands in the page, so that another --answers is not taken for up to date."""
    return f'<main data-answers="{args.answers}">'


def is_current(args: Args, inputs: list[Path], outputs: list[Path], html: Path) -> bool:
    """Whether all outputs are newer than all inputs, and the page shows as many answers."""
    newest = max(path.stat().st_mtime_ns for path in inputs if path.is_file())
    newer = all(path.is_file() and path.stat().st_mtime_ns > newest for path in [*outputs, html])
    return newer and not args.force and mark_of(args) in html.read_text(encoding="utf-8")


def draw_comparison(args: Args) -> None:
    """Table and forest plot of several runs."""
    source = config.RESULT / "comparison.json"
    report = findings.read_report(source, "python evaluation.py --compare RUN RUN")
    html, path = config.RESULT / "comparison.html", config.RESULT / "figures" / "comparison.png"
    picture = suite_pictures.forest_picture(report)
    if is_current(args, [source], [path] if picture else [], html):
        print(f"{html} is up to date (--force draws it again)")
        return
    drawn = {}
    if picture:
        draw(picture, path)
        drawn[path] = picture
    runlog.write_text(html, report_page.page(report, None, [], drawn, 0, mark_of(args)))
    print(f"wrote {html}")


def main(args: Args) -> None:
    if args.comparison:
        return draw_comparison(args)
    folder = runlog.run_folder(args)
    inputs = [folder / name for name in ("evaluation_report.json", "training_loss.json", "predictions.jsonl")]
    inputs += [folder / name for name, _, _ in report_opinions.REPORTS.values()]
    evaluate, extract = (runlog.command_for(script, args) for script in ("evaluation.py", "extract_loss.py"))
    report = findings.read_report(inputs[0], evaluate)
    loss = findings.read_loss(inputs[1], extract)
    rows = findings.read_predictions(inputs[2], evaluate)
    opinions = report_opinions.read_opinions(folder, evaluate)
    made, skipped = plan(report, loss)
    of_opinions = report_opinions.pictures_of(opinions)
    if not rows:
        skipped["answers side by side"] = "no predictions.jsonl (evaluation.py)"

    wanted = [name for name in FIGURES if name in made | of_opinions or (name == "dashboard" and made)]
    every, html = {name: folder / "figures" / f"{name}.png" for name in FIGURES}, folder / "report.html"
    paths, gone = {name: every[name] for name in wanted}, [every[n] for n in FIGURES if n not in wanted]
    if is_current(args, inputs, list(paths.values()), html) and not any(path.is_file() for path in gone):
        print(f"{html} and {len(paths)} figures are up to date (--force draws them again)")
        return

    drawn = {}
    for name, path in paths.items():
        drawn[path] = pictures.dashboard(report, made) if name == "dashboard" else (made | of_opinions)[name]
        draw(drawn[path], path)
    for path in gone:
        if path.is_file():
            path.unlink()
            print(f"removed {path}: it showed another state of the run")
    said = report_opinions.sections(opinions, rows, drawn)
    of_report = {path: picture for path, picture in drawn.items() if path.stem not in of_opinions}
    page = report_page.page(report, loss, rows, of_report, args.answers, mark_of(args), said)
    runlog.write_text(html, page)
    print(f"wrote {html}")
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


if __name__ == "__main__":
    config.run_script(main, Args)
