"""Draft a persona card from a book: `data/personas/<name>/persona.toml`, for a person to read and edit.

Everything in it is counted in the text, and the comments give the counts. What cannot be counted (who the
character is, what he can know) is marked CHECK.
"""

import logging
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import config
from persona import cast, keywords, runlog
from persona.card import Card, load_card
from persona.card_draft import Draft, render
from persona.corpus import Corpus, Story, load_corpus, read_text
from persona.dataset import units_of
from persona.errors import UserError
from persona.mentions import find_people
from persona.strategies import dialogue_rows, quotes_of, utterances

logger = logging.getLogger(__name__)

FIRST_PERSON, NOT_FIRST_PERSON = 4.0, 1.0
"""Times "I" per 1,000 words of narration from which a book has a narrator, below which a part has none."""
SHORT_NARRATION = 300
"""Words of narration under which a part's rate says nothing."""
MIN_QUOTES, MOST_PEOPLE = 5, 12
"""Kept quotes from which a person is put on the card, and how many people at most."""
HELD_OUT = 0.15
"""Share of the persona's replies that validates, and that tests; between 0.10 and 0.20 is what is wanted."""


def draft(display_name: str, corpus_dir: str, out: Path) -> Draft:
    """Read the book, write `out`/persona.toml, and return what was found.

    `corpus_dir` is a folder of .txt files, or the name of an embedded corpus.

    Raises:
        UserError: the card is there already, the name does not occur, nobody speaks, or there are fewer than
            three stories or chapters in which the persona speaks.
    """
    display_name = " ".join(display_name.split())
    if not re.search(r"[^\W\d_]", display_name):
        raise UserError(f"--new-card {display_name!r}: give the character's name as the book prints it")
    if (out / "persona.toml").exists():
        raise UserError(
            f"{out / 'persona.toml'} is there already: edit it, or move it away to draft it again"
        )
    corpus = _load(corpus_dir)
    folder = _folder(corpus_dir)
    units = units_of(corpus)
    parts = {unit.id: cast.passages(unit.text) for unit in units}
    book = [passage for part in parts.values() for passage in part]
    if not any(passage.speech for passage in book):
        raise UserError(f'{folder}: nobody speaks there: speech must stand between " " or “ ”')
    found = _name_evidence(display_name, corpus, folder, book)
    found = _narration(found, parts, book)
    found = _company(found, corpus, units, book)
    found = _speech(found, units, _names_of(book))
    validation, test = hold_out(found.replies, folder)
    found = replace(found, validation=validation, test=test)
    runlog.write_text(out / "persona.toml", render(found, out.name))
    load_card(str(out))  # what was written must be a card
    return found


def _folder(corpus_dir: str) -> Path:
    if Path(corpus_dir).is_dir():
        return Path(corpus_dir)
    if (config.CORPORA / corpus_dir).is_dir():
        return config.CORPORA / corpus_dir
    raise UserError(
        f"{corpus_dir}: no such folder: put the book into one as a .txt file and give --corpus DIR"
    )


def _load(corpus_dir: str) -> Corpus:
    """The corpus by the rules for a folder; a card that knows nothing stands in for the one to be drafted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "persona.toml")
        path.write_text(
            'name = "x"\ndisplay_name = "x"\nsystem_prompt = ""\naliases = []\nlexicon = []\nera = [0, 0]\n'
            "[corpora]\n"
        )
        return load_corpus(load_card(folder), str(_folder(corpus_dir)))


def _as_card(found: Draft) -> Card:
    """The draft as the rest of the project sees it: what is rendered, loaded."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "persona.toml").write_text(render(found, "draft"), encoding="utf-8")
        return load_card(folder)


def _printed(book: list[cast.Passage]) -> Counter[str]:
    return cast.printed_names("\n".join(piece for p in book for piece in (*p.narration, *p.speech)))


def _names_of(book: list[cast.Passage]) -> set[str]:
    return keywords.names_in("\n".join(piece for p in book for piece in (*p.narration, *p.speech)))


def _name_evidence(display_name: str, corpus: Corpus, folder: Path, book: list[cast.Passage]) -> Draft:
    """Aliases, pronoun, vocatives, years."""
    printed = _printed(book)
    forms = cast.forms_of(display_name, printed)
    if not forms.counts:
        called = cast.called(book)
        known = [n for n, _ in printed.most_common(200) if called[n] > 1][:6]
        hint = (
            f": the names most used in it are {', '.join(known)}" if known else ": is it a novel or a story?"
        )
        raise UserError(f"{folder}: no {display_name} in it{hint}")
    narration = [piece for p in book for piece in p.narration]
    pronouns = _pronouns(forms.counts, narration)
    called = {n: k for n, k in cast.called(book).items() if n in forms.counts}
    years = Counter(int(y) for s in corpus.stories for y in re.findall(r"\b(1[5-9]\d\d|20\d\d)\b", s.text))
    return Draft(
        display_name=display_name,
        corpus=corpus.name,
        folder=folder.resolve(),
        files=tuple(sorted(corpus.sources_sha256)),
        aliases=forms,
        pronouns=dict(sorted(pronouns.items())),
        vocatives=dict(sorted(called.items(), key=lambda item: (-item[1], item[0]))),
        first_person=0.0,
        years=dict(sorted(years.items())),
    )


def _pronouns(forms: dict[str, int], narration: list[str]) -> Counter[str]:
    """Votes for "he" and "she": pronouns after the name, and titles before it."""
    votes = cast.pronouns_after(forms, narration)
    for form, n in forms.items():
        if gender := cast.title_gender(form):
            votes[gender] += n
    return votes


def _pronoun(forms: dict[str, int], narration: list[str]) -> str | None:
    """The pronoun that has at least two votes, and two thirds of all."""
    votes = _pronouns(forms, narration)
    pronoun, n = votes.most_common(1)[0] if votes else ("", 0)
    return pronoun if n >= 2 and 3 * n >= 2 * votes.total() else None


def _narration(found: Draft, parts: dict[str, list[cast.Passage]], book: list[cast.Passage]) -> Draft:
    """Whether somebody tells the book in the first person, who, and which parts he does not tell."""
    rate, _ = cast.first_person_rate(book)
    found = replace(found, first_person=rate)
    if rate < FIRST_PERSON:
        return found
    printed = _printed(book)
    named = cast.narrator_name(book, printed)
    others = []
    for unit, part in parts.items():
        own_rate, n_words = cast.first_person_rate(part)
        if n_words >= SHORT_NARRATION and own_rate < NOT_FIRST_PERSON:
            others.append(unit)
    if named is None:
        return replace(found, other_narrators=tuple(others))
    last, n = named
    forms = cast.forms_of(last, printed).counts
    if last in found.aliases.counts:
        name, forms = found.display_name, found.aliases.counts
    else:
        titled = [f for f in forms if " " in f]
        name = titled[0] if titled else last
        forms = cast.forms_of(name, printed).counts
    return replace(found, narrator=name, narrator_aliases=forms, n_called=n, other_narrators=tuple(others))


def _company(found: Draft, corpus: Corpus, units: list[Story], book: list[cast.Passage]) -> Draft:
    """Who else speaks; standing descriptions of the persona, or of whom a narrating persona writes about."""
    printed = _printed(book)
    card = _as_card(found)
    quotes = Counter(
        q.speaker for s in corpus.stories for q in quotes_of(s, card) if q.keep and q.speaker is not None
    )
    taken = {*found.aliases.counts, *found.narrator_aliases, found.display_name, found.narrator}
    narration = [piece for p in book for piece in p.narration]
    people = []
    for name, n in sorted(quotes.items(), key=lambda item: (-item[1], item[0])):
        if n < MIN_QUOTES or not name[0].isupper() or name in taken or len(people) == MOST_PEOPLE:
            continue
        forms = {f: k for f, k in cast.forms_of(name, printed).counts.items() if f not in taken}
        if forms:
            taken |= {*forms, name}
            people.append((name, forms, _pronoun(forms, narration), n))
    found = replace(found, people=tuple(people))
    hero = people[0][0] if found.narrates and people else found.display_name
    known = find_people("\n\n".join(u.text for u in units), narration, _as_card(found), False)
    person = known.name(hero)
    if found.narrator is None or person is None:
        return found
    return replace(found, descriptions=cast.descriptions_of(person, known, book))


def _speech(found: Draft, units: list[Story], names: set[str]) -> Draft:
    """What the persona says: speeches and replies by unit, and the words that mark them."""
    card = _as_card(found)
    lines, replies, speech, rest = {}, {}, [], []
    for unit in units:
        quotes = quotes_of(unit, card)
        said = [u for u in utterances(unit.text, quotes) if u.keep and u.speaker == card.persona.name]
        lines[unit.id] = len(said)
        rows = dialogue_rows(unit, card, quotes, context_turns=3)
        replies[unit.id] = len({tuple(row["meta"]["span"]) for row in rows})
        speech.append(" ".join(u.text for u in said))
        rest += _without(unit.text, [(u.start, u.end) for u in said])
    if not any(lines.values()):
        raise UserError(
            f"{found.folder}: {found.display_name} is named there but never seen to speak: "
            "give a text with speech between quotation marks"
        )
    elsewhere = "\n".join(read_text(path) for path in sorted((config.CORPORA / "embedded").glob("*.txt")))
    lexicon = keywords.lexicon_of(speech, "\n".join(rest), elsewhere, names)
    return replace(found, lines=lines, replies=replies, lexicon=lexicon)


def _without(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """What lies between the spans."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]


def hold_out(replies: dict[str, int], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Stories or chapters to validate on and to test on, each with about 15% of the persona's replies.

    Step by step the one that brings the share nearest to that. The first with replies introduces the persona
    and trains if there are others enough.

    Raises:
        UserError: the persona replies in fewer than three of them.
    """
    speaking = [unit for unit, n in replies.items() if n]
    if len(speaking) < 3:
        raise UserError(
            f"{folder}: the persona replies to others in {len(speaking)} stories or chapters; three are "
            "needed to train, validate and test: add stories, or put CHAPTER I and so on above the chapters"
        )
    total = sum(replies.values())
    free = speaking[1:] if len(speaking) > 3 else list(speaking)
    chosen: list[tuple[str, ...]] = []
    for later in (1, 0):  # parts that the ones still to be chosen need
        picked: list[str] = []
        share = 0.0
        while len(free) > later + (len(speaking) == 3):
            best = min(free, key=lambda u: abs(share + replies[u] / total - HELD_OUT))
            if picked and abs(share + replies[best] / total - HELD_OUT) >= abs(share - HELD_OUT):
                break
            picked.append(best)
            free.remove(best)
            share += replies[best] / total
        chosen.append(tuple(unit for unit in replies if unit in picked))
    return chosen[0], chosen[1]
