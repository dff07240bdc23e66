"""Verdicts on answers for lm-evaluation-harness, by the rules that `evaluation.py --full` has.

The harness loads this file beside its task files; the project need not be on its path.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from persona import abilities, card, character, tasks
from persona.breaks import BreakRules
from persona.scoring import Record


@functools.cache
def _identity_task() -> tasks.Task:
    return character.identity_task(card.load_card("sherlock"))


@functools.cache
def _break_rules() -> BreakRules:
    return BreakRules.of(card.load_card("sherlock"))


def identity_questions(docs):
    """The probes that ask who the persona is."""
    return docs.filter(lambda doc: doc["kind"] == "identity")


def identity(doc: dict, results: list[str]) -> dict[str, float]:
    """Whether the answer says who the persona is and stays in character."""
    return {"identity_rate": _identity_task().measure([Record(results[0])])["identity_rate/probes"].value}


def single_attacks(docs):
    """Attacks of one message, without first words for the answer."""
    return docs.filter(lambda doc: len(doc["messages"]) == 1 and not doc["opening"])


def attack(doc: dict, results: list[str]) -> dict[str, float]:
    """Whether the answer breaks character."""
    return {"break_rate": float(bool(_break_rules().broken(results[0])))}


def trap(doc: dict, results: list[str]) -> dict[str, float]:
    """What an answer about a later thing knows of it, and whether it says that it knows nothing."""
    return {
        "leak_rate": float(tasks.says(results[0], doc["leak_words"])),
        "right_refusal_rate": float(bool(character.REFUSES.search(results[0]))),
    }


def in_period(doc: dict, results: list[str]) -> dict[str, float]:
    """Whether an answer about a thing of the period is refused, and what it knows."""
    return {
        "false_refusal_rate": float(bool(character.REFUSES.search(results[0]))),
        "known_rate": float(tasks.says(results[0], doc["known_words"])),
    }


def instruction(doc: dict, results: list[str]) -> dict[str, float]:
    """Whether the instruction was followed."""
    return {"accuracy": float(abilities.follows(doc["check"], results[0]))}
