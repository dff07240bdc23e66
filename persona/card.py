"""The persona card, `data/personas/<name>/persona.toml`.

Who the character is, who tells the stories, and where they come from.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import config
from persona.errors import UserError


@dataclass(frozen=True)
class Source:
    """One book of a corpus, downloaded by its Project Gutenberg number or by address."""

    title: str
    stories: tuple[str, ...]
    """Titles of the stories that the file must hold; one title alone is a novel."""
    ebook: int | None = None
    url: str | None = None
    licence: str = ""
    chapters: int | None = None
    """For a novel: how many chapters it has."""
    year: int | None = None
    """When the book first appeared; what comes later can be kept from the persona (`--up-to`)."""


@dataclass(frozen=True)
class CorpusCard:
    """A named corpus: its sources, which stories are held out, and which are told by somebody else."""

    name: str
    path: Path | None
    """Folder in the checkout; None where `sources` are downloaded."""
    sources: tuple[Source, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    other_narrators: tuple[str, ...]
    """Stories, or story/chapter, told by somebody other than the narrator.

    Nothing is attributed by "I" there.
    """


@dataclass(frozen=True)
class Person:
    """A name and what else the text calls them."""

    name: str
    aliases: tuple[str, ...]
    descriptions: tuple[str, ...] = ()
    """Standing descriptions: "my companion", "the detective"."""
    pronoun: str | None = None
    """"he" or "she"; None where the text itself must show it."""


@dataclass(frozen=True)
class Card:
    """A persona as `persona.toml` states it."""

    name: str
    display_name: str
    folder: Path
    system_prompt: str
    era: tuple[int, int]
    """First and last year that the character can know."""
    pronoun: str
    persona: Person
    narrator: Person | None
    """Who tells the stories; None where nobody in them does."""
    narrator_is_persona: bool
    vocatives: tuple[str, ...]
    """How others address the persona, and the narrator: whoever is addressed is not the one who speaks."""
    people: tuple[Person, ...]
    """Other people who recur, each with their aliases.

    Where the stories are about one of them and not about the persona, that one has the descriptions.
    """
    lexicon: tuple[str, ...]
    """Words that mark the period and the voice, lower-case."""
    strategies: tuple[str, ...]
    curated_topics: dict[str, tuple[str, ...]]
    """Topics of curated rows: "validation" and "test" (the others train), and "identity", the first words
    with him, which small models see more often."""
    corpora: dict[str, CorpusCard]


def load_card(name: str) -> Card:
    """Read a persona's card.

    Raises:
        UserError: unknown persona, or a card that lacks a field.
    """
    folder = Path(name) if Path(name, "persona.toml").is_file() else config.PERSONAS / name
    path = folder / "persona.toml"
    if not path.is_file():
        known = sorted(p.parent.name for p in config.PERSONAS.glob("*/persona.toml"))
        raise UserError(
            f"unknown persona {name!r}: there is {', '.join(known)}; "
            f"a new one is a folder {config.PERSONAS}/NAME with a persona.toml"
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw["corpora"], str):
            raw["corpora"] = _corpora_of(raw["corpora"])
        return _card(raw, folder)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    except KeyError as error:
        raise UserError(f"{path}: the field {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}: a field has the wrong kind of value ({error}); "
            f"compare with {config.PERSONAS}/sherlock/persona.toml"
        ) from error


def _corpora_of(persona: str) -> dict:
    """The corpora of another persona's card: the same books, and the same stories held out.

    Raises:
        ValueError: no such card, or it takes its own from a third one.
    """
    path = config.PERSONAS / persona / "persona.toml"
    if not path.is_file():
        raise ValueError(f"corpora of {persona!r}: there is no {path}")
    corpora = tomllib.loads(path.read_text(encoding="utf-8"))["corpora"]
    if isinstance(corpora, str):
        raise ValueError(f"corpora of {persona!r}: that card takes them from {corpora!r}, name it instead")
    return corpora


def _card(raw: dict, folder: Path) -> Card:
    for field in ("aliases", "lexicon", "era"):
        if not isinstance(raw[field], list):
            raise TypeError(f"{field} must be a list")
    narrator = raw.get("narrator")
    corpora = {
        name: CorpusCard(
            name=name,
            path=config.ROOT / c["path"] if "path" in c else None,
            sources=tuple(Source(**{**s, "stories": tuple(s["stories"])}) for s in c.get("sources", [])),
            validation=tuple(c["validation"]),
            test=tuple(c["test"]),
            other_narrators=tuple(c.get("other_narrators", [])),
        )
        for name, c in raw["corpora"].items()
    }
    persona = Person(raw["display_name"], tuple(raw["aliases"]), tuple(raw.get("descriptions", [])))
    teller = Person(narrator["name"], tuple(narrator["aliases"])) if narrator else None
    return Card(
        name=raw["name"],
        display_name=raw["display_name"],
        folder=folder,
        system_prompt=raw["system_prompt"],
        era=(raw["era"][0], raw["era"][1]),
        pronoun=raw.get("pronoun", "he"),
        persona=persona,
        narrator=teller,
        narrator_is_persona=teller is not None and teller.name == persona.name,
        vocatives=tuple(raw.get("vocatives", [])),
        people=tuple(
            Person(p["name"], tuple(p["aliases"]), tuple(p.get("descriptions", [])), p.get("pronoun"))
            for p in raw.get("people", [])
        ),
        lexicon=tuple(w.lower() for w in raw["lexicon"]),
        strategies=tuple(raw.get("strategies", ["dialogue", "curated"])),
        curated_topics={split: tuple(topics) for split, topics in raw.get("curated", {}).items()},
        corpora=corpora,
    )
