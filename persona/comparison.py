"""Finished evaluations side by side: any runs that answered the same items."""

import json
from collections.abc import Sequence
from pathlib import Path

from persona import runlog
from persona.errors import UserError
from persona.significance import over_seeds, side_by_side

REPORTS = ("evaluation_report.json", "base_report.json")
OF_THE_RUN = ("seed", "run", "force", "model")
"""Settings that may differ between runs of one setting; "base" says which model `model` stood for."""


def read_report(result: Path, run: str) -> dict:
    """The report of a run: a name under `result`, a run's folder, or a report's file.

    Raises:
        UserError: there is none.
    """
    place = Path(run)
    folder = place if place.exists() else result / run
    files = [folder] if folder.is_file() else [folder / name for name in REPORTS]
    found = next((f for f in files if f.is_file()), None)
    if found is None:
        raise UserError(
            f"no evaluation report in {folder}: make one with python evaluation.py --full --run {run}"
        )
    return runlog.read_json(found, "the evaluation report")


def setting_of(report: dict) -> str:
    """What a run was trained and asked with, its seed apart: runs that share it are merged over seeds."""
    trained = {k: v for k, v in (report.get("training") or {}).items() if k not in OF_THE_RUN}
    systems = {
        name: {k: v for k, v in facts.items() if k != "adapter"} for name, facts in report["systems"].items()
    }
    return json.dumps([trained, systems, report.get("decoding")], sort_keys=True)


def compared(reports: Sequence[dict]) -> dict:
    """One report of all: seeds of one setting merged, then settings side by side.

    Where several seeds are merged, "by_seed" and "sd" stand with each value.

    Raises:
        UserError: the reports are not of the same items.
    """
    groups: dict[str, list[dict]] = {}
    for report in reports:
        groups.setdefault(setting_of(report), []).append(report)
    merged = [over_seeds(of) if len(of) > 1 else of[0] for of in groups.values()]
    found = side_by_side(merged) if len(merged) > 1 else merged[0]
    return found | {"compared": [report["run"] for report in reports]}
