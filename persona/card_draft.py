"""A drafted persona card: what was found in a book, and its text in TOML with the evidence as comments."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import config
from persona.cast import Forms

DEFAULT_ERA = (1850, 1920)
LIFE = 60
"""Years before the latest printed one that a character may remember."""
MIN_YEARS = 3
"""How many years a book must print to tell its time."""


@dataclass(frozen=True)
class Draft:
    """A card as far as the text shows it, with the evidence."""

    display_name: str
    corpus: str
    folder: Path
    """Of the corpus."""
    files: tuple[str, ...]
    aliases: Forms
    pronouns: dict[str, int]
    """"he" and "she" after the name."""
    vocatives: dict[str, int]
    first_person: float
    """Times "I" per 1,000 words of narration."""
    narrator: str | None = None
    narrator_aliases: dict[str, int] = field(default_factory=dict)
    n_called: int = 0
    """How often the narrator is called by name."""
    descriptions: dict[str, int] = field(default_factory=dict)
    """Of the persona; of `people[0]` where the persona narrates."""
    people: tuple[tuple[str, dict[str, int], str | None, int], ...] = ()
    """Name, aliases, "he" or "she" (None where nothing shows it), kept quotes."""
    lexicon: dict[str, float] = field(default_factory=dict)
    years: dict[int, int] = field(default_factory=dict)
    """Years that the text prints, with counts."""
    other_narrators: tuple[str, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    """Kept speeches of the persona by story, or by chapter of a lone novel."""
    replies: dict[str, int] = field(default_factory=dict)
    """Of these, how many make rows: replies to somebody."""
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def pronoun(self) -> str:
        """ "he" or "she"."""
        counts = self.pronouns
        return "she" if counts.get("she", 0) > counts.get("he", 0) else "he"

    @property
    def narrates(self) -> bool:
        """The persona tells the story."""
        return self.narrator == self.display_name

    @property
    def era(self) -> tuple[int, int]:
        """First and last year that the character may know."""
        told = sum(self.years.values()) >= MIN_YEARS
        return (max(self.years) - LIFE, max(self.years)) if told else DEFAULT_ERA


def render(found: Draft, name: str) -> str:
    """The card's text. `name` is the persona's folder."""
    pronoun, (first, last) = found.pronoun, found.era
    lines = [
        f"# The persona card of {found.display_name}, drafted from {', '.join(found.files)}.",
        "# Numbers are counts in the text. Read what is marked CHECK, mend it, add what you know.",
        f"name = {_text(name)}",
        f"display_name = {_text(found.display_name)}",
        "",
        "# Every form in which the book prints the name.",
        *_counted("aliases", found.aliases.counts),
        *(f"# CHECK, others may be called so: {_text(f)} ({n})" for f, n in found.aliases.doubtful.items()),
        "",
        "# What the narrator calls the persona without a name.",
        *_counted("descriptions", {} if found.narrates else found.descriptions),
        f"pronoun = {_text(pronoun)}  # {_votes(found.pronouns)}",
        "",
        "# CHECK: say who this is and how the character talks. The model always reads this.",
        f"system_prompt = {_text(system_prompt(found))}",
        "# First and last year that the character can know.",
        f"era = [{first}, {last}]  # CHECK: {_years(found)}",
        f"strategies = {_array(['dialogue', 'curated'] + ['chunk'] * found.narrates)}",
        "",
        "# How the persona is addressed.",
        *_counted("vocatives", found.vocatives),
        "",
        "# Words that mark the persona's speech against the rest of the book, strongest first.",
        "# CHECK: take out what belongs to the plot.",
        *_wrapped("lexicon", found.lexicon),
        "",
        *_narrator(found),
        *_people(found),
        *_corpus(found),
    ]
    return "\n".join(lines) + "\n"


def summary(found: Draft) -> list[str]:
    """What a terminal shows of a draft: the persona, the narrator, the speeches kept by chapter."""
    told = f"told by {found.narrator}" if found.narrator else "nobody named tells it"
    lines = [
        f"{found.display_name} ({found.pronoun}): {', '.join(list(found.aliases.counts)[:6])}; {told}; "
        f"{len(found.people)} others",
        f"{'chapter or story':<48}{'speeches':>9}{'replies':>9}",
    ]
    for unit, n in found.lines.items():
        held = "  validation" if unit in found.validation else "  test" if unit in found.test else ""
        lines.append(f"{unit:<48}{n:>9,}{found.replies[unit]:>9,}{held}")
    total, replies = sum(found.lines.values()), sum(found.replies.values())
    return [*lines, f"{'all':<48}{total:>9,}{replies:>9,}"]


def system_prompt(found: Draft) -> str:
    """One to start from: name, manner, and the last year known."""
    return (
        f"You are {found.display_name}. Speak as {found.display_name} speaks, in the first person, "
        f"and know nothing of what came after {found.era[1]}."
    )


def _narrator(found: Draft) -> list[str]:
    rate = f'"I" {found.first_person:.0f} times per 1,000 words of narration'
    if found.narrator is None:
        known = "the narrator's name was not found" if found.first_person >= 1 else "told in the third person"
        return [
            f"# {rate}: {known}. If somebody tells the book, CHECK:",
            "# [narrator]",
            '# name = "..."',
            '# aliases = ["..."]',
            "",
        ]
    return [
        f"# {rate}; the narrator is called by name {found.n_called} times.",
        "[narrator]",
        f"name = {_text(found.narrator)}",
        *_counted("aliases", found.narrator_aliases),
        "",
    ]


def _people(found: Draft) -> list[str]:
    lines = ["# Others who speak, with how many of their quotes were sure. CHECK: one person, one entry."]
    for i, (name, aliases, pronoun, quotes) in enumerate(found.people):
        lines += [
            f"[[people]]  # {quotes} quotes",
            f"name = {_text(name)}",
            f"aliases = {_array(aliases)}",
            *([f"pronoun = {_text(pronoun)}"] if pronoun else []),
        ]
        if found.narrates and i == 0 and found.descriptions:
            lines += ["# Whom the narrator means by these.", *_counted("descriptions", found.descriptions)]
        lines.append("")
    return lines if found.people else []


def _corpus(found: Draft) -> list[str]:
    inside = found.folder.is_relative_to(config.ROOT)
    path = found.folder.relative_to(config.ROOT) if inside else found.folder
    key = found.corpus if re.fullmatch(r"[\w-]+", found.corpus, re.ASCII) else _text(found.corpus)
    total = sum(found.replies.values())
    lines = [f"# {sum(found.lines.values())} speeches are sure enough to keep; {total} reply to somebody:"]
    for unit, n in found.lines.items():
        held = "validation" if unit in found.validation else "test" if unit in found.test else ""
        lines.append(f"#   {unit}: {n} speeches, {found.replies[unit]} replies {held}".rstrip())
    lines += [f"[corpora.{key}]", f"path = {_text(path.as_posix())}"]
    for split, units in (("validation", found.validation), ("test", found.test)):
        share = sum(found.replies[unit] for unit in units) / max(1, total)
        lines.append(f"{split} = {_array(units)}  # {share:.0%} of the replies")
    if found.other_narrators:
        lines += [
            '# Hardly an "I" in the narration: told by somebody else.',
            f"other_narrators = {_array(found.other_narrators)}",
        ]
    return lines


def _array(values: Iterable[str]) -> str:
    """A TOML array of strings on one line."""
    return f"[{', '.join(map(_text, values))}]"


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)


def _counted(key: str, counts: dict[str, int]) -> list[str]:
    """An array with a count beside each string."""
    if not counts:
        return [f"{key} = []"]
    return [f"{key} = [", *(f"  {_text(form)},  # {n}" for form, n in counts.items()), "]"]


def _wrapped(key: str, words: Iterable[str]) -> list[str]:
    """An array of strings, ten to a line."""
    quoted = [_text(word) for word in words]
    rows = (", ".join(quoted[i : i + 10]) for i in range(0, len(quoted), 10))
    return [f"{key} = [", *(f"  {row}," for row in rows), "]"]


def _votes(counts: dict[str, int]) -> str:
    votes = ", ".join(f"{pronoun} {n}" for pronoun, n in counts.items())
    return f"pronouns and titles: {votes}" if votes else "CHECK: nothing shows it"


def _years(found: Draft) -> str:
    if not found.years:
        return "a guess, the book prints no year"
    guess = "a guess, " if found.era == DEFAULT_ERA else ""
    printed = ", ".join(f"{year} ({n})" for year, n in list(found.years.items())[-8:])
    return f"{guess}years printed: {printed}"
