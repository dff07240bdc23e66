"""Who is named in a piece of narration: names, titles, standing descriptions and pronouns, with their gender.

Nothing here knows a book. Characters come from the card and from the text itself: a capitalised name counts
as a person once it carries a title or stands beside a verb of speech.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from persona.card import Card, Person
from persona.vocabulary import NOT_NAMES, NOUNS, SPEECH_VERBS, TITLES

CAPITAL = r"[A-ZÀ-Þ]\w*(?:(?:-|['’](?!s\b))\w+)*"
TITLE = r"(?:" + "|".join(sorted((t.capitalize() for t in TITLES), key=len, reverse=True)) + r")"
NAME = (
    rf"(?:{TITLE}\.? )*(?:{CAPITAL}|[A-Z]\.)"
    rf"(?: (?!{TITLE}\b)(?:(?:de|du|von|van|der|la|le|St\.) )?(?:{CAPITAL}|[A-Z]\.))*"
)
DETERMINER = r"(?:[Tt]he|[Mm]y|[Oo]ur|[Hh]is|[Hh]er|[Aa]n?|[Tt]heir|[Aa]nother|[Tt]his|[Tt]hat)"
NOUN = r"(?i:" + "|".join(sorted(NOUNS, key=len, reverse=True)) + r")"
DESCRIPTION = rf"{DETERMINER} (?:[\w’'-]+,? ){{0,3}}?{NOUN}\b"
MENTION = re.compile(
    rf"(?P<desc>\b{DESCRIPTION})|(?P<name>\b{NAME})|(?P<pron>\b(?:I|[Hh]e|[Ss]he|[Tt]hey|[Ww]e)\b)"
)
# A person after one of these is no subject: "turned to Holmes", "with my friend", "Holmes and Lestrade".
NO_SUBJECT_BEFORE = re.compile(
    r"(?:\b(?:to|at|of|with|upon|by|from|for|towards?|in|into|on|and|or|like|than|behind|beside|after|before"
    r"|over|against|between|through|around|about|past|near|that|which|where|as|if|when|while|until|till"
    r"|because|what|how)|\w's)\s+$",
    re.I,
)


@dataclass
class Entity:
    """Somebody who may speak.

    `name` is what the caller sees; `gender` "he", "she" or None where nothing shows it.
    """

    name: str
    gender: str | None = None
    role: str = "other"  # protagonist, narrator, card, named, described


@dataclass(frozen=True)
class Mention:
    """A person at `start:end` of a normalised piece of narration."""

    start: int
    end: int
    kind: str  # name, description, pronoun
    text: str


def squeeze(text: str) -> str:
    """One line, straight apostrophes, no underscores for italics.

    What the patterns of this package expect.
    """
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("‘", "'").replace("_", ""))


def fold(name: str) -> str:
    """A name as it is looked up: no dots, no possessive, "Mr" and "Mister" alike."""
    words = re.sub(r"'s$|\.", "", squeeze(name)).strip().split()
    return " ".join({"Doctor": "Dr", "Mister": "Mr", "Monsieur": "M"}.get(w, w) for w in words)


@dataclass
class People:
    """All persons of a text, and which of them a name or a description means."""

    card: Card
    protagonist: Entity
    """Whom the stories are about and the standing descriptions mean: mostly the persona."""
    descriptions: tuple[str, ...]
    narrator: Entity | None
    entities: list[Entity] = field(default_factory=list)
    by_name: dict[str, Entity] = field(default_factory=dict)
    ambiguous: dict[str, list[Entity]] = field(default_factory=dict)
    described: dict[str, Entity] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def name(self, text: str) -> Entity | None:
        """Whom a printed name means; None if it is nobody's (a place, a day)."""
        key = fold(text)
        while key:
            if key in self.by_name:
                return self.by_name[key]
            head, _, rest = key.partition(" ")
            # "Nonsense Holmes", "Then Holmes": drop what only looks like a part of the name.
            if not rest or head.lower() in TITLES:
                return None
            key = rest
        return None

    def titled(self, entity: Entity, title: str) -> bool:
        """Whether the text gives the person this title: "the inspector" is Inspector Lestrade."""
        title = fold(title.capitalize()).lower()
        return any(title == k.split(" ")[0].lower() for k, e in self.by_name.items() if e is entity)

    def description(self, text: str) -> Entity:
        """The entity of a description such as "the old man"; the same words are the same person."""
        text = squeeze(text)
        words = text.split()
        key = (
            " ".join(words[1:]).lower()
            if words[0].lower() in ("the", "a", "an", "this", "that")
            else text.lower()
        )
        if key not in self.described:
            head = next((w.lower() for w in reversed(words) if w.lower() in NOUNS), words[-1])
            gender = NOUNS.get(head)
            if any(w in ("woman", "lady", "girl", "she") for w in words):
                gender = "she"
            shown = " ".join(
                ["the" if words[0].lower() in ("a", "an", "the") else words[0].lower(), *words[1:]]
            )
            self.described[key] = Entity(shown, gender, "described")
        return self.described[key]


def mentions(text: str, people: People) -> list[Mention]:
    """Persons in normalised narration, in order; capitalised words that are nobody are left out."""
    found = []
    for m in MENTION.finditer(text):
        if m["name"]:
            name, start = m["name"], m.start()
            if name.split(" ")[0] in NOT_NAMES and " " in name and name.split(" ")[0].lower() not in TITLES:
                start += len(name.split(" ")[0]) + 1
                name = text[start : m.end()]
            if name == "I":
                found.append(Mention(start, m.end(), "pronoun", "I"))
            elif name in ("He", "She", "They", "We"):
                found.append(Mention(start, m.end(), "pronoun", name.lower()))
            elif people.name(name):
                found.append(Mention(start, m.end(), "name", name))
        elif m["desc"]:
            found.append(Mention(m.start(), m.end(), "description", m["desc"]))
        else:
            word = m["pron"]
            found.append(Mention(m.start(), m.end(), "pronoun", "I" if word == "I" else word.lower()))
    return found


def find_people(text: str, narration: list[str], card: Card, other_narrator: bool) -> People:
    """The card's persons and those that the text names.

    `narration` are its normalised pieces outside quotes.
    """
    hero = _protagonist(card)
    protagonist = Entity(hero.name, _gender(hero, card), "protagonist")
    if other_narrator or card.narrator is None:
        narrator = Entity("", None, "narrator")  # speaks, but under no name
    else:
        narrator = Entity(card.narrator.name, None, "narrator")
    people = People(card, protagonist, hero.descriptions, narrator, [protagonist, narrator])
    for alias in (*hero.aliases, hero.name):
        people.by_name[fold(alias)] = protagonist
    if card.narrator:
        # With another teller the card's narrator is a person like others.
        teller = Entity(card.narrator.name, None, "card") if narrator.name == "" else narrator
        if teller is not narrator:
            people.entities.append(teller)
        for alias in (*card.narrator.aliases, card.narrator.name):
            people.by_name.setdefault(fold(alias), teller)
    for person in (*([] if card.narrator_is_persona else [card.persona]), *card.people):
        if person is hero:
            continue
        entity = Entity(person.name, _gender(person, card), "card")
        people.entities.append(entity)
        for alias in (*person.aliases, person.name):
            people.by_name.setdefault(fold(alias), entity)
    _add_names(squeeze(text), narration, people)
    _guess_genders(narration, people)
    return people


def _protagonist(card: Card) -> Person:
    """Whom the stories are about: who has standing descriptions, else the persona, unless he is "I"."""
    nobody = Person("", ()) if card.narrator_is_persona else card.persona
    return next((p for p in (card.persona, *card.people) if p.descriptions), nobody)


def _gender(person: Person, card: Card) -> str | None:
    pronoun = card.pronoun if person is card.persona else person.pronoun
    return pronoun or _title_gender(person.name)


def _title_gender(name: str) -> str | None:
    return TITLES.get(fold(name).split(" ")[0].lower())


def _add_names(text: str, narration: list[str], people: People) -> None:
    """Enter persons that the text names.

    With a title, beside a verb of speech, or doing something beside a quote.
    """
    lower = Counter(re.findall(r"\b[a-z][\w'-]*", text))
    verbs = "|".join(SPEECH_VERBS)
    tagged: Counter[str] = Counter()
    for piece in narration:
        for m in re.finditer(rf"\b(?:{verbs}) ({NAME})|\b({NAME}) (?:\w+ly )?(?:{verbs})\b", piece):
            tagged[_clean(m[1] or m[2], lower)] += 1
        for m in re.finditer(
            rf"(?:^|[.!?] )({NAME}) (?:\w+ed|was|had|rose|sat|took|gave|shook|stood)\b", piece
        ):
            tagged[_clean(m[1], lower)] += 1
    titled: Counter[str] = Counter()
    for m in re.finditer(rf"\b(?:{TITLE}\.? )+{CAPITAL}(?: {CAPITAL})*", text):
        titled[_clean(m.group(), lower)] += 1
    full: Counter[str] = Counter()
    for m in re.finditer(rf"\b{CAPITAL} {CAPITAL}\b", text):
        full[_clean(m.group(), lower)] += 1
    names = {n for n in titled | tagged if n}
    lasts = {n.split()[-1] for n in names}
    names |= {
        n for n, k in full.items() if k > 1 and len(n.split()) == 2 and (set(n.split()) & (lasts | names))
    }
    counts = titled + tagged + full
    votes = _gender_votes(narration)

    # Longest first, so that "John" finds "John Cavendish" and "Mrs Cavendish" finds "Mary Cavendish".
    def size(n: str) -> tuple[int, bool, int, str]:
        words = [w for w in n.split() if w.lower() not in TITLES]
        return (-len(words), len(words) == len(n.split()), -counts[n], n)

    for name in sorted(names, key=size):
        if name in people.by_name:
            continue
        words = name.split()
        bare = [w for w in words if w.lower() not in TITLES]
        if not bare:
            continue
        gender = next((TITLES[w.lower()] for w in words if w.lower() in TITLES), None) or votes.get(name)
        matches = _same_person(bare, len(bare) < len(words), gender, people)
        if len(matches) == 1:
            entity = matches[0]
            entity.gender = entity.gender or gender
        else:
            entity = Entity(_printed(words), gender, "named")
            people.entities.append(entity)
        people.by_name[name] = entity


def _printed(words: list[str]) -> str:
    return " ".join(w + "." if w in ("Mr", "Mrs", "Dr", "M", "Mme", "Mlle") else w for w in words)


def _clean(name: str, lower: Counter[str]) -> str:
    """The name without capitalised words that are none; "" if nothing is left."""
    words = fold(name).split()
    while words and (words[0] in NOT_NAMES and words[0].lower() not in TITLES):
        words = words[1:]
    while words and words[-1] in NOT_NAMES:
        words = words[:-1]
    if all(w.lower() in NOUNS or w.lower() in TITLES for w in words):
        return ""  # "the Coroner", "the Colonel": a description
    bare = [w for w in words if w.lower() not in TITLES]
    if not bare or (len(bare) == len(words) == 1 and (lower[bare[0].lower()] > 2 or len(bare[0]) < 3)):
        return ""
    return " ".join(words)


def _same_person(bare: list[str], titled: bool, gender: str | None, people: People) -> list[Entity]:
    """Persons already known who may carry this shorter name."""
    found: dict[int, Entity] = {}
    for key, entity in people.by_name.items():
        if gender and entity.gender and gender != entity.gender:
            continue
        words = key.split()
        own = [w for w in words if w.lower() not in TITLES]
        if not own:
            continue
        if own == bare:
            # A bare surname is a man's; Mrs. X is not X.
            if len(own) == 1 and not titled and entity.gender == "she" and len(own) < len(words):
                continue
            if len(own) == 1 and titled and gender == "she" and entity.gender is None:
                continue
            same = True
        elif len(bare) == 1 and len(own) > 1:
            if own[0] == bare[0] and (not titled or own[0] != own[-1]):
                same = True
            else:
                same = (
                    own[-1] == bare[0]
                    and (titled or entity.gender != "she")
                    and not (gender == "she" and entity.gender is None)
                )
        else:
            same = (
                len(bare) > 1
                and len(own) == 1
                and own[0] == bare[-1]
                and len(words) > 1
                and not _clash(bare, entity, people)
            )
        if same:
            found[id(entity)] = entity
    return list(found.values())


def _clash(bare: list[str], entity: Entity, people: People) -> bool:
    """The person already has another first name."""
    return any(
        e is entity
        and len(own := [w for w in k.split() if w.lower() not in TITLES]) > 1
        and own[0] != bare[0]
        for k, e in people.by_name.items()
    )


def _gender_votes(narration: list[str]) -> dict[str, str]:
    """The gender of the pronouns that follow a name in its sentence, where they agree two to one."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    pronoun = re.compile(r"\b(he|his|him|himself|she|her|herself)\b")
    for piece in narration:
        for m in re.finditer(rf"\b{NAME}", piece):
            after = re.split(rf"[;!?\"]|\b{TITLE}\b|(?<= )[A-Z]", piece[m.end() : m.end() + 90])[0]
            if p := pronoun.search(after):
                votes[fold(m.group())]["she" if p.group().startswith(("she", "her")) else "he"] += 1
    found = {}
    for name, count in votes.items():
        (gender, n), *rest = count.most_common()
        if n >= 2 and n >= 2 * sum(k for _, k in rest):
            found[name] = gender
    return found


def _guess_genders(narration: list[str], people: People) -> None:
    """Where no title shows it, a person has the gender that the text's pronouns give to one of the names."""
    for name, gender in _gender_votes(narration).items():
        entity = people.by_name.get(name)
        if entity is not None and entity.gender is None:
            entity.gender = gender
    for name, entity in people.by_name.items():
        # Books of the period give these titles to men.
        if entity.gender is None and name.split(" ")[0].lower() in ("dr", "professor", "judge", "detective"):
            entity.gender = "he"
