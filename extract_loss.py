"""Take the loss curve out of a run's trainer state: every logged point, milestones, phases of training.

Reads   result/<run>/trainer_state.json, else result/<run>/checkpoints/checkpoint-<highest>/trainer_state.json
Writes  result/<run>/training_loss.json

    python extract_loss.py
    python extract_loss.py --run sherlock-qwen2.5-7b
    python extract_loss.py --model tiny --force
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import config
from persona.errors import UserError

MILESTONES = (0.01, 0.1, 0.5, 1, 1.5, 2, 3)
"""Epochs at which the reference system reports its loss."""
MILESTONE_FIELDS = ("loss", "token_accuracy", "step")
PHASES = (("rapid adaptation", 1 / 6), ("refinement", 1 / 2), ("convergence", 1.0))
"""Name and end of each phase as a share of the run: epochs 0.5, 1.5 and 3 of the reference's three."""


@dataclass(frozen=True)
class Args(config.RunArgs):
    """The flags that all stages share are all that this one needs."""


def find_state(folder: Path, remedy: str) -> Path:
    """The run's own trainer_state.json, else the one of the checkpoint with the highest number."""
    own = folder / "trainer_state.json"
    if own.is_file():
        return own
    numbered = [
        (int(number), path)
        for path in folder.glob("checkpoints/checkpoint-*/trainer_state.json")
        if (number := path.parent.name.removeprefix("checkpoint-")).isdecimal()
    ]
    if not numbered:
        raise UserError(f"no trainer state in {folder} or its checkpoints/; make it with: {remedy}")
    return max(numbered)[1]


def number(value: Any) -> float | None:
    """A finite float; None for what is missing, not a number, or infinite (JSON has no NaN)."""
    try:
        return float(value) if math.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return None


def training_points(history: list[dict]) -> list[dict]:
    """Training entries in step order; of entries with the same step (after a resume) the last one counts."""
    points = {
        entry["step"]: {
            "step": entry["step"],
            "epoch": entry["epoch"],
            "loss": number(entry["loss"]),
            "learning_rate": number(entry.get("learning_rate")),
            "grad_norm": number(entry.get("grad_norm")),
            "token_accuracy": number(entry.get("mean_token_accuracy")),
        }
        for entry in history
        if "loss" in entry
    }
    return [points[step] for step in sorted(points)]


def evaluation_points(history: list[dict]) -> list[dict]:
    """Evaluation entries likewise, with what else the trainer measured under its name without `eval_`."""
    points = {}
    for entry in history:
        if "eval_loss" not in entry:
            continue
        names = [name for name in entry if name.startswith("eval_")]
        measured = {name.removeprefix("eval_"): number(entry[name]) for name in names}
        points[entry["step"]] = {
            "step": entry["step"],
            "epoch": entry["epoch"],
            "loss": measured.pop("loss"),
            "token_accuracy": measured.pop("mean_token_accuracy", None),
            **measured,
        }
    return [points[step] for step in sorted(points)]


def point_at(points: list[dict], epoch: float) -> dict | None:
    """The nearest point at or after `epoch`; the last one where logging stopped short of it."""
    after = (point for point in points if point["epoch"] >= epoch - 1e-9)
    return next(after, points[-1] if points else None)


def phases(points: list[dict], borders: list[float]) -> list[dict]:
    """The phases, each from the loss where the one before ended; losses that are no numbers do not count."""
    finite = [point for point in points if point["loss"] is not None]
    starts = [0.0, *borders[:-1]]
    losses = [point["loss"] if (point := point_at(finite, epoch)) else None for epoch in (0.0, *borders)]
    return [
        {"name": name, "from_epoch": start, "to_epoch": end, "loss_from": losses[i], "loss_to": losses[i + 1]}
        for i, ((name, _), start, end) in enumerate(zip(PHASES, starts, borders, strict=True))
    ]


def milestones(points: list[dict], epochs: float) -> list[dict]:
    """Loss and accuracy at the reference's epochs as far as the run went (2.9997 epochs are three)."""
    reached = [epoch for epoch in MILESTONES if epoch <= epochs * 1.001] if points else []
    found = [(epoch, point_at(points, epoch)) for epoch in reached]
    return [{"epoch": epoch} | {name: point[name] for name in MILESTONE_FIELDS} for epoch, point in found]


def summarise(run: str, state: dict) -> dict:
    """The whole of training_loss.json, but for where it came from."""
    history = state["log_history"]
    train, evaluation = training_points(history), evaluation_points(history)
    logged = [*train, *evaluation]
    epochs = state.get("epoch") or max((point["epoch"] for point in logged), default=0.0)
    borders = [round(share * epochs, 6) for _, share in PHASES]
    return {
        "run": run,
        "total_steps": state.get("global_step") or max((point["step"] for point in logged), default=0),
        "epochs": epochs,
        "phase_borders_epochs": borders,
        "train": train,
        "evaluation": evaluation,
        "phases": phases(train, borders) if train else [],
        "milestones": milestones(train, epochs),
    }


def read_state(path: Path, remedy: str) -> dict:
    """The trainer state, checked as far as `summarise` relies on it."""
    from persona import runlog

    state = runlog.read_json(path, "the trainer state", remedy)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise UserError(f"{path}: no log_history, so not a trainer state; make it again with: {remedy}")
    for i, entry in enumerate(history):
        position = [entry.get("step"), entry.get("epoch")] if isinstance(entry, dict) else [None]
        if any(number(value) is None for value in position):
            raise UserError(f"{path}: log_history[{i}] has no step and epoch; make it again with: {remedy}")
    return state


def print_table(report: dict) -> None:
    """The milestones as a table."""

    def shown(value: float | None, spec: str) -> str:
        return "-" if value is None else format(value, spec)

    print(f"{'epoch':>6} {'step':>8} {'loss':>8} {'token accuracy':>15}")
    for row in report["milestones"]:
        accuracy = shown(row["token_accuracy"], ".1%")
        print(f"{row['epoch']:>6g} {row['step']:>8} {shown(row['loss'], '.4f'):>8} {accuracy:>15}")


def main(args: Args) -> None:
    from persona import runlog

    folder = runlog.run_folder(args)
    remedy = runlog.command_for("fine_tune.py", args)
    source, output = find_state(folder, remedy), folder / "training_loss.json"
    source_sha256 = runlog.sha256_of(source.read_bytes())

    if output.is_file() and not args.force:
        try:
            report = runlog.read_json(output, "the loss curve")
        except UserError as error:
            print(f"making it again: {error}")
        else:
            if isinstance(report, dict) and report.get("source_sha256") == source_sha256:
                print_table(report)
                print(f"{output} is up to date with {source.relative_to(folder)} (--force does it again)")
                return

    state = read_state(source, remedy)
    report = summarise(folder.name, state)
    report |= {"source": str(source.relative_to(folder)), "source_sha256": source_sha256}
    runlog.write_json(output, report)

    points = report["train"] + report["evaluation"]
    broken = [str(point["step"]) for point in points if point["loss"] is None]
    if broken:
        steps = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        print(f"warning: {len(broken)} losses are not a number, kept as null (steps {steps})")
    if not report["train"]:
        print(f"warning: {source} holds no training loss: the run was shorter than its logging interval")
    if report["total_steps"] < (state.get("max_steps") or 0):
        print(
            f"note: step {report['total_steps']} of {state['max_steps']}; phases are shares of what was run"
        )
    print_table(report)
    print(
        f"wrote {output}: {len(report['train'])} training and {len(report['evaluation'])} evaluation points"
    )


if __name__ == "__main__":
    config.run_script(main, Args)
