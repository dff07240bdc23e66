"""What a judge or people say of a finished evaluation: read its answers, write their reports beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import config
from persona import judge, judge_report, ratings, runlog
from persona.answered import answer_metrics, hash_of, read_answered
from persona.card import Card, load_card
from persona.rows import read_rows

ITEMS = 100
"""Items that a judge or people are asked about, unless told otherwise."""


@dataclass(frozen=True)
class Finished:
    """A finished evaluation."""

    card: Card
    folder: Path
    """The run's; it holds predictions.jsonl."""
    data: Path
    """The data set's."""


def ask_judge(
    run: Finished, name: str, most: int, budget: int | None, anyway: bool, tell: Callable[[str], None]
) -> None:
    """Qualify a judge, `tell` how it did, have it judge, write judge_report.json.

    Raises:
        UserError: it is not qualified, cannot be used, or its budget ended; nothing evaluated to judge.
    """
    items = read_answered(run.folder, run.data, most or ITEMS)
    asked = judge.open_judge(name, config.CACHE / "judge", budget)
    known = judge.qualify(asked, load_card(judge.QUALIFICATION_PERSONA), judge.read_qualification())
    tell(judge.qualification_line(asked.id, known))
    if not anyway:
        judge.require_qualified(asked.id, known)
    found = {"run": run.folder.name, **judge_report.judged(asked, run.card, items, known)}
    out = run.folder / "judge_report.json"
    runlog.write_json(out, found)
    tell(f"\n{judge_report.table(found)}\n\n{asked.spend} used now; written to {out}")


def export_blind(run: Finished, most: int, seed: int) -> str:
    """Write the page for blind rating into the run's folder; where it and its key are."""
    items, page = read_answered(run.folder, run.data, most or ITEMS), run.folder / "blind.html"
    key = ratings.export_blind(items, run.card.display_name, page, keys_of(run), seed)
    return (
        f"{len(key['items'])} items to rate ({key['same_answers']} more have the same answer twice): {page}\n"
        f"give raters that file alone; its key stays in {ratings.key_path(keys_of(run), key['page'])}"
    )


def import_ratings(run: Finished, files: Sequence[Path]) -> str:
    """Turn downloaded ratings into ratings_report.json; its table."""
    key, votes = ratings.import_ratings(files, keys_of(run))
    items = ratings.items_of(key, read_answered(run.folder, run.data, 0), run.card.display_name)
    train, judged = read_rows(run.data / "train.jsonl"), run.folder / "judge_report.json"
    metrics = {system: answer_metrics(items, system, run.card, train) for system in key["systems"]}
    if judged.is_file():
        of, ids = runlog.read_json(judged, "the judge's report")["items"], [one.item.id for one in items]
        metrics = {system: m | ratings.judge_metrics(of, ids, system) for system, m in metrics.items()}
    found = {"run": run.folder.name, **ratings.report(key, votes, metrics)}
    found["answers_sha256"] = hash_of(items, key["systems"])
    out = run.folder / "ratings_report.json"
    runlog.write_json(out, found)
    return f"{ratings.table(found)}\n\nwritten to {out}"


def keys_of(run: Finished) -> Path:
    """The folder of the keys of the pages that were exported."""
    return run.folder / "blind_keys"
