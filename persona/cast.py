"""Who is in a book that has no card yet: the forms of a name, standing descriptions, pronoun, narrator.

Counts of what the text prints, in narration and in speech. `persona.new_card` drafts a card from them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from persona.mentions import DETERMINER, NAME, NOUN, Entity, People, fold, mentions, squeeze
from persona.spans import paragraphs
from persona.vocabulary import NOT_NAMES, NOUNS, TITLES

MIN_EVIDENCE = 3
"""Times that a name must be called to be the narrator's, and a first name be printed to be somebody's."""
NEARBY_PARAGRAPHS = 3
"""How far back the person may be named whom a description means."""
CALLED_PER_NARRATED = 4
"""How many times more often the narrator is called by name than named in the narration."""
COMPANIONS = frozenset(
    ["friend", "companion", "colleague", "partner", "fellow-lodger", "room-mate", "chief", "master"]
)
"""Nouns by which a narrator speaks of one and the same person throughout a book."""
DESCRIPTION_SHARE = 0.6
"""Of a description's uses, how many must mean the persona."""

_SHORT_DESCRIPTION = rf"{DETERMINER} (?:[\w'-]+ ){{0,2}}{NOUN}\b"
_APPOSITION = re.compile(rf"\b(?P<name>{NAME}), (?P<description>{_SHORT_DESCRIPTION})(?=[,.;])")
_INTRODUCED = re.compile(rf"\b(?P<description>{_SHORT_DESCRIPTION}),? (?P<name>{NAME})")
_VOCATIVE = re.compile(
    r"(?:^|[,.!?;:-] ?)"
    r"(?:(?i:my|old|dear|good|poor|mon|ami|cher|ah|oh|yes|no|well|and|but|now|come|friend),? )*"
    rf"(?P<name>{NAME})(?=[,.!?;:-]|$)"
)
_SENTENCE_END = re.compile(r"\b(?!(?:Mr|Mrs|Ms|Dr|M|Mme|Mlle)\.)\w\w+\. ")
_PRONOUN = re.compile(r"\b(he|his|him|himself|she|her|herself)\b")


@dataclass(frozen=True)
class Passage:
    """A paragraph, normalised: narration outside quotation marks, and speech inside."""

    narration: tuple[str, ...]
    """Before the first quote, between quotes, after the last; "" where there is nothing."""
    speech: tuple[str, ...]


@dataclass(frozen=True)
class Forms:
    """The printed forms of a person's name with their counts, most frequent first."""

    counts: dict[str, int]
    doubtful: dict[str, int] = field(default_factory=dict)
    """Forms that others in the book may share."""


def passages(text: str) -> list[Passage]:
    """The paragraphs of a text, speech and narration apart."""
    found = []
    for paragraph in paragraphs(text):
        cuts = [paragraph.start]
        for span in paragraph.spans:
            cuts += [span.start - 1, min(span.end + 1, paragraph.end)]
        cuts.append(paragraph.end)
        narration = (squeeze(text[a:b]).strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True))
        speech = (squeeze(text[s.start : s.end]).strip() for s in paragraph.spans)
        found.append(Passage(tuple(narration), tuple(speech)))
    return found


def split_name(name: str) -> tuple[list[str], list[str]]:
    """Titles and the words after them: "Mr. John Cavendish" is (["Mr"], ["John", "Cavendish"])."""
    words = fold(name).split()
    titles = 0
    while titles < len(words) and words[titles].lower() in TITLES:
        titles += 1
    return words[:titles], words[titles:]


def title_gender(name: str) -> str | None:
    """The gender that the titles of a name show."""
    return next((TITLES[t.lower()] for t in split_name(name)[0] if TITLES[t.lower()]), None)


def printed_names(text: str) -> Counter[str]:
    """Every capitalised name of a text as printed, words such as "Then" and "Yes" at its ends left out."""
    counts: Counter[str] = Counter()
    for match in re.finditer(rf"\b{NAME}", text):
        name = _trimmed(match.group())
        if name and not _SENTENCE_END.search(name):  # "... the Colonel. Watson rose": two names
            counts[name] += 1
    return counts


def _trimmed(name: str) -> str:
    words = name.split()
    while words and words[0] in NOT_NAMES and words[0].lower() not in TITLES:
        words = words[1:]
    while words and words[-1].rstrip(".") in NOT_NAMES:
        words = words[:-1]
    return " ".join(words)


def forms_of(name: str, printed: Counter[str]) -> Forms:
    """The forms in which the text prints a name: titles before it, first name or last name alone.

    A last name that others carry more often, with first names of their own, is doubtful. For a name without
    a first name, the first name that by far most forms carry is taken to be the person's.
    """
    own = [w for w in split_name(name)[1] if len(w) > 1]
    if not own:
        return Forms({})
    firsts = _first_names(own[-1], printed)
    total = sum(firsts.values())
    titles = split_name(name)[0]
    # A doctor's or a professor's "Mrs." is his wife.
    gender = title_gender(name) or ({"Nurse": "she"}.get(titles[0], "he") if titles else None)
    first, n_first = firsts.most_common(1)[0] if firsts else ("", 0)
    if len(own) == 1 and gender != "she" and n_first >= MIN_EVIDENCE and 3 * n_first >= 2 * total:
        own = [first, *own]
    mine = firsts[own[0]] if len(own) > 1 else 0
    namesakes = total - mine
    elsewhere = sum(
        n
        for p, n in printed.items()
        if (w := split_name(p)[1])[:1] == own[:1] and len(w) > 1 and w[-1] != own[-1]
    )
    gender = gender or _titles_show(own, printed, alone=not split_name(name)[1][1:])
    husbands = any(title_gender(p) == "he" and split_name(p)[1][-1:] == own[-1:] for p in printed)
    counts: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    for form, n in printed.items():
        words = [w for w in split_name(form)[1] if len(w) > 1]
        if words not in (own, own[-1:], own[:1]):
            continue
        if gender and (title_gender(form) or gender) != gender:
            continue
        wife = gender == "she" and husbands and words == own[-1:] and form == words[0]
        shared = (words == own[-1:] and namesakes > mine) or (
            words == own[:1] != own[-1:] and elsewhere > mine
        )
        (doubtful if wife or (shared and len(own) > 1) else counts)[form] += n
    return Forms(*(dict(sorted(c.items(), key=lambda item: (-item[1], item[0]))) for c in (counts, doubtful)))


def _first_names(last: str, printed: Counter[str]) -> Counter[str]:
    """First names before a last name."""
    firsts: Counter[str] = Counter()
    for form, n in printed.items():
        words = [w for w in split_name(form)[1] if len(w) > 1]
        if len(words) > 1 and words[-1] == last:
            firsts[words[0]] += n
    return firsts


def _titles_show(own: list[str], printed: Counter[str], alone: bool) -> str | None:
    """The gender of most titles before the full or the first name, or the last one if it is `alone`."""
    wanted = [own, own[:1], *([own[-1:]] if alone else [])]
    votes: Counter[str] = Counter()
    for form, n in printed.items():
        if split_name(form)[1] in wanted and (gender := title_gender(form)):
            votes[gender] += n
    return votes.most_common(1)[0][0] if votes else None


def pronouns_after(forms: Collection[str], narration: Iterable[str]) -> Counter[str]:
    """How often "he" and "she" (in any case) come first after a name.

    Before another name, within 90 characters.
    """
    alias = re.compile(rf"\b(?:{_either(forms)})\b(?!')")
    counts: Counter[str] = Counter()
    for piece in narration:
        for match in alias.finditer(piece):
            after = re.split(r"[;!?\"]|(?<= )[A-Z]", piece[match.end() : match.end() + 90])[0]
            if found := _PRONOUN.search(after):
                counts["she" if found.group().startswith(("she", "her")) else "he"] += 1
    return counts


def descriptions_of(person: Entity, people: People, book: list[Passage]) -> dict[str, int]:
    """Standing descriptions of a person and how often the text shows that they are his, most frequent first.

    By apposition ("Poirot, the little Belgian,", "my friend Poirot"), and for "my friend", "my companion" and
    the like by whom of that gender the narration named last. Those that as often mean others are left out.
    """
    uses: dict[str, Counter[int]] = defaultdict(Counter)

    def count(words: str, meant: Entity | None) -> None:
        description = _standing(words, person.gender)
        if description and meant is not None and meant is not people.narrator:
            uses[description][id(meant)] += 1

    named: list[list[Entity]] = []  # of every paragraph so far, in order
    for passage in book:
        here: list[Entity] = []
        for piece in passage.narration:
            introduced = [*_APPOSITION.finditer(piece), *_INTRODUCED.finditer(piece)]
            for match in introduced:
                count(match["description"], people.name(_trimmed(match["name"])))
            for mention in mentions(piece, people):
                if mention.kind == "name":
                    entity = people.name(mention.text)
                    here += [entity] if entity and entity is not people.narrator else []
                elif mention.kind == "description" and mention.text.split()[-1] in COMPANIONS:
                    before = [e for entities in (*named[-NEARBY_PARAGRAPHS:], here) for e in entities]
                    fitting = [e for e in before if e.gender in (None, person.gender)]
                    if (
                        fitting
                        and mention.text.lower().startswith("my ")
                        and not any(m.start() <= mention.start < m.end() for m in introduced)
                    ):
                        count(mention.text, fitting[-1])
        named.append(here)
    kept = {
        d: n[id(person)]
        for d, n in uses.items()
        if n[id(person)] >= 2 and n[id(person)] >= DESCRIPTION_SHARE * n.total()
    }
    return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0])))


def _standing(words: str, gender: str | None) -> str | None:
    """ "a little Belgian" as "the little Belgian"; None for what may be anyone: "his wife", "the doctor"."""
    first, *rest = words.split()
    if first.lower() not in ("the", "my", "a", "an") or not rest or rest[-1] not in NOUNS:
        return None
    if NOUNS[rest[-1]] not in (None, gender) or (first.lower() != "my" and len(rest) == 1):
        return None
    return " ".join(["my" if first.lower() == "my" else "the", *rest])


def first_person_rate(book: Iterable[Passage]) -> tuple[float, int]:
    """How often the narration says "I", per 1,000 words of it, and how many words it has."""
    narration = [piece for passage in book for piece in passage.narration]
    n_words = sum(len(piece.split()) for piece in narration)
    said = sum(len(re.findall(r"\bI\b(?!\.)", piece)) for piece in narration)
    return (1000 * said / n_words if n_words else 0.0), n_words


def called(book: Iterable[Passage]) -> Counter[str]:
    """Names as they are called out in speech ("Good morning, Hastings!"), as printed."""
    counts: Counter[str] = Counter()
    for passage in book:
        for speech in passage.speech:
            for match in _VOCATIVE.finditer(speech):
                if name := _trimmed(match["name"]):
                    counts[name] += 1
    return counts


def narrator_name(book: list[Passage], printed: Counter[str]) -> tuple[str, int] | None:
    """The last name by which others call the "I" of the narration, and how often they do.

    The narrator is spoken to by name but hardly named in the narration, where he is "I".
    """
    lower = Counter(
        w for p in book for piece in (*p.narration, *p.speech) for w in re.findall(r"\b[a-z]+\b", piece)
    )
    vocatives: Counter[str] = Counter()
    for name, n in called(book).items():
        bare = split_name(name)[1]
        if bare and bare[-1] not in NOT_NAMES and lower[bare[-1].lower()] <= printed[bare[-1]]:
            vocatives[bare[-1]] += n
    narrated: Counter[str] = Counter()
    for passage in book:
        for piece in passage.narration:
            for match in re.finditer(rf"\b{NAME}", piece):
                if bare := split_name(_trimmed(match.group()))[1]:
                    narrated[bare[-1]] += 1
    scores = {
        name: n - CALLED_PER_NARRATED * narrated[name]
        for name, n in vocatives.items()
        if n >= MIN_EVIDENCE and n > CALLED_PER_NARRATED * narrated[name]
    }
    best = min(scores, key=lambda n: (-scores[n], n), default=None)
    return (best, vocatives[best]) if best else None


def _either(forms: Iterable[str]) -> str:
    return "|".join(re.escape(f) for f in sorted(forms, key=lambda f: (-len(f), f)))
