"""What the suite holds a system against, beside the data set.

Lines of others in the held-out stories, the narrator's prose, replies of the persona's other corpus.
"""

import logging
from dataclasses import dataclass, replace

import config
from persona.card import Card
from persona.errors import UserError
from persona.item_files import sampled
from persona.rows import read_rows
from persona.scoring import Item, asked_rows, items_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What the stories give besides the persona's replies."""

    controls: list[Item]
    """Replies of other people in the held-out stories, asked for in the persona's place."""
    narration: list[str]
    """What the narrator tells in the training stories."""
    reason: str = ""
    """Why there is nothing, where there is nothing."""


def surroundings(card: Card, corpus: str, most: int, seed: int, context_turns: int = 3) -> Surroundings:
    """Read the corpus again: by the data set's split, with its rules of attribution."""
    from persona.corpus import load_corpus
    from persona.dataset import story_splits, units_of
    from persona.strategies import control_rows, quotes_of
    from persona.style import narration_of

    try:
        found = load_corpus(card, corpus)
        units = units_of(found)
        splits = story_splits(found.name, units, card)
    except UserError as error:
        return Surroundings([], [], str(error))
    rows = [
        row
        for story in units
        if splits[story.id] == "test"
        for row in control_rows(story, card, quotes_of(story, card), context_turns)
    ]
    controls = [replace(i, kind="control") for i in sampled(items_of(rows), most, seed)]
    told = [narration_of(story) for story in units if splits[story.id] == "train"]
    return Surroundings(controls, told, "" if controls else "nobody else is told by name in the test stories")


def memory_items(card: Card, corpus: str, items: list[Item], most: int, seed: int) -> tuple[list[Item], str]:
    """Held-out dialogue of this corpus and of the persona's other one; and why, where there is none.

    One must be published, so that a base may have read it, and one written for this project, so that it
    cannot have. `kind` of the items is "known" or "unknown".
    """
    own = config.corpus_name(corpus)
    found: dict[str, list[Item]] = {}
    for name, described in card.corpora.items():
        kind = "unknown" if described.path else "known"
        path = config.dataset_folder(card.name, name) / "test.jsonl"
        if name == own:
            of = [i for i in items if i.kind == "dialogue"]
        else:
            of = (
                [i for i in items_of(asked_rows(read_rows(path))) if i.kind == "dialogue"]
                if path.is_file()
                else []
            )
        found[kind] = found.get(kind, []) + [replace(i, kind=kind) for i in sampled(of, most, seed)]
    if all(found.get(kind) for kind in ("known", "unknown")):
        return [*found["known"], *found["unknown"]], ""
    missing = "a corpus written for this project" if found.get("known") else "a published corpus"
    return [], f"no data set of {missing}: make both with generate_dataset.py --corpus NAME"
