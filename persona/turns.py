"""Turns: the quotes of a paragraph that one person speaks, with the cues beside and inside them."""

import re
from dataclasses import dataclass, field

from persona.card import Card
from persona.cues import (
    SENTENCE,
    TOLD_TO,
    Tag,
    after_tag,
    announces_writing,
    before_tag,
    is_read_off,
    runs_through,
)
from persona.mentions import (
    NAME,
    NO_SUBJECT_BEFORE,
    Entity,
    Mention,
    People,
    find_people,
    mentions,
    squeeze,
)
from persona.spans import Paragraph, Span
from persona.speech import is_deferent, is_formal, names_in, own_words
from persona.vocabulary import TITLES

# Natural logarithms of how much likelier a cue makes somebody the speaker, set on one annotated novel.
TAG = 9.0
PRONOUN_TAG = 6.0
STANDING = 0.8  # of a tag: "my companion"
DOUBTFUL = 0.3  # of a tag: "the detective", or "my friend" where another friend was just introduced
BEAT, BEAT_POSSESSIVE = 3.0, 2.2  # "Holmes rose.", "Holmes's eyes twinkled."
AFTER_QUOTE = 0.8  # of a beat that follows the quote
LEAD_IN, REACTION_I = 1.8, -1.6  # a beat in the paragraph before
OTHER_FRIEND_PARAGRAPHS = 12

_OTHER_FRIEND = re.compile(rf"\b[Mm]y (?:\w+ ){{0,2}}(?:friend|companion|colleague),? ({NAME})")


@dataclass
class Cue:
    """What the narration beside a quote says of its speaker."""

    kind: str
    """explicit, description, pronoun, action; "lead" and "reaction": an action in the paragraph before"""
    entity: Entity | None = None
    pronoun: str | None = None
    strength: float = TAG


@dataclass
class Turn:
    """Quotes that one person speaks without a break, and what is known of the speaker."""

    spans: list[Span]
    paragraph: int
    cues: list[Cue] = field(default_factory=list)
    addressed: list[Entity] = field(default_factory=list)
    """Called by name in the speech."""
    named: list[Entity] = field(default_factory=list)
    """Spoken of in the speech."""
    told: list[Entity] = field(default_factory=list)
    """Whom the narration beside the quote says it is spoken to."""
    formal: bool = False
    """It says "sir" or "Mr. Holmes" to somebody: the narrator, a friend, does not unless he is seen to."""
    deferent: bool = False
    """It begins with "Yes, sir": a servant or a policeman, unless the protagonist is seen to talk so."""
    same_paragraph: bool = False
    """Another turn stands before it in its paragraph."""
    after_open: bool = False
    """The quote before was not closed."""
    trailing: bool = False
    """Its paragraph ends in an action, after which the same person may go on in the next."""
    run: int = 1
    """Number of paragraphs in the unclosed run that this turn is."""
    scores: dict[int, float] = field(default_factory=dict)
    """id of an entity -> score; 0 is somebody whom the text has not named."""
    protagonist_near: bool = True
    """The protagonist was mentioned not long before."""
    speaker: Entity | None = None
    addressee: Entity | None = None
    probability: float = 0.0
    tier: str = "unknown"

    def tagged(self) -> list[Entity]:
        """Speakers that tags give by name or description."""
        return [c.entity for c in self.cues if c.kind in ("explicit", "description") and c.entity is not None]


class Reader:
    """Reads a text into turns: `turns`, `people`, `unspoken` (ids of spans that nobody speaks)."""

    def __init__(self, text: str, paragraphs: list[Paragraph], card: Card, other_narrator: bool) -> None:
        self.text, self.paragraphs, self.card = text, paragraphs, card
        self.before: dict[int, str] = {}  # id of a span -> narration before it in its paragraph
        self.after: dict[int, str] = {}
        self.narration: list[list[str]] = [self._narration(p) for p in paragraphs]
        pieces = [piece for pieces in self.narration for piece in pieces if piece]
        self.people: People = find_people(text, pieces, card, other_narrator)
        self._mentions: dict[str, list[Mention]] = {}
        self._other_friends = [
            i for i, pieces in enumerate(self.narration) if self._introduces_friend(pieces)
        ]
        self.unspoken: set[int] = set()
        self.turns: list[Turn] = []
        for paragraph in paragraphs:
            for i, span in enumerate(paragraph.spans):
                if self._is_unspoken(paragraph, i, span):
                    self.unspoken.add(id(span))
            self._make_turns(paragraph)
        self._join_runs()
        for turn in self.turns:
            self._read_speech(turn)

    def mentions(self, text: str) -> list[Mention]:
        """Persons in a piece of narration."""
        if text not in self._mentions:
            self._mentions[text] = mentions(text, self.people)
        return self._mentions[text]

    def quote(self, span: Span) -> str:
        """The normalised text of a quote."""
        return squeeze(self.text[span.start : span.end]).strip()

    def _narration(self, paragraph: Paragraph) -> list[str]:
        """Normalised narration of a paragraph: before the first quote, between quotes, after the last."""
        cuts = [paragraph.start]
        for span in paragraph.spans:
            cuts += [span.start - 1, min(span.end + 1, paragraph.end)]
        cuts.append(paragraph.end)
        pieces = [squeeze(self.text[a:b]).strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        for i, span in enumerate(paragraph.spans):
            self.before[id(span)], self.after[id(span)] = pieces[i], pieces[i + 1]
        return pieces

    def _introduces_friend(self, pieces: list[str]) -> bool:
        """ "My friend Mr. Phelps": for a while "my friend" need not be the protagonist."""
        named = [self.people.name(m[1]) for piece in pieces for m in _OTHER_FRIEND.finditer(piece)]
        return any(e is not None and e is not self.people.protagonist for e in named)

    def _is_unspoken(self, paragraph: Paragraph, i: int, span: Span) -> bool:
        """Titles, letters and words under discussion."""
        if span.continues:
            before = next((p.spans for p in self.paragraphs[paragraph.index - 1 :: -1] if p.spans), None)
            return before is not None and id(before[-1]) in self.unspoken
        quote, before = self.quote(span), self.before[id(span)]
        if quote.isupper() and len(quote.split()) > 1:  # a headline or a chapter's title
            return True
        if is_read_off(self.after[id(span)]) or (i and is_read_off(before) and before.endswith(",")):
            return True
        if not before:
            return (
                i == 0 and paragraph.index > 0 and announces_writing(self.narration[paragraph.index - 1][-1])
            )
        if announces_writing(before):
            return True
        return not (i and self._breaks_off(paragraph.spans[i - 1])) and runs_through(
            before, quote, self.after[id(span)]
        )

    def _breaks_off(self, span: Span) -> bool:
        """A spoken quote stops in the middle of a sentence, so that the next one goes on with it."""
        quote = self.quote(span).rstrip(" _'")
        return (
            id(span) not in self.unspoken and not quote.endswith((".", "!", "?")) and len(quote.split()) > 1
        )

    # Turns and their cues

    def _make_turns(self, paragraph: Paragraph) -> None:
        turn: Turn | None = None
        for i, span in enumerate(paragraph.spans):
            if id(span) in self.unspoken:
                continue
            cues = self._cues(paragraph, i, span)
            if turn is None or (i > 0 and self._changes(turn, cues, self.before[id(span)])):
                turn = Turn([span], paragraph.index, cues, same_paragraph=turn is not None)
                self.turns.append(turn)
            else:
                turn.spans.append(span)
                turn.cues += cues

    def _cues(self, paragraph: Paragraph, i: int, span: Span) -> list[Cue]:
        """Tags beside a quote.

        Without one the action beside it; without that the action in the paragraph before.
        """
        before, after = self.before[id(span)], self.after[id(span)]
        first, index = i == 0 and not before and paragraph.index > 0, paragraph.index
        previous = self.narration[index - 1] if first else []
        tags = [after_tag(after, self.quote(span))]
        if before and not (i and self._tag_used(before, paragraph.spans[i - 1])):
            tags.append(before_tag(before))
        if first and previous[-1].endswith((":", ",")):
            tags.append(before_tag(previous[-1]))
        if any(tags):
            cues = [self._cue(tag, index) for tag in tags if tag]
        else:
            cues = [self._beat(before, index, True) or self._beat(after, index, False)]
            if cues == [None] and first and not span.continues and not self.paragraphs[index - 1].spans:
                cues = [self._lead_in(previous[-1], index)]
        return [c for c in cues if c is not None]

    def _tag_used(self, between: str, span: Span) -> bool:
        """The narration between two quotes is one sentence, the tag of the quote before."""
        return len(SENTENCE.split(between)) == 1 and after_tag(between, self.quote(span)) is not None

    def _cue(self, tag: Tag, paragraph: int) -> Cue | None:
        if tag.kind == "description":
            return self.described(tag.words, paragraph, tag.strength)
        if tag.kind == "name":
            entity = self.people.name(tag.words)
            return Cue("explicit", entity, strength=TAG * tag.strength) if entity else None
        if tag.words.lower() == "i":
            return Cue("explicit", self.people.narrator, strength=TAG * tag.strength)
        if tag.words in ("he", "she"):
            return Cue("pronoun", pronoun=tag.words, strength=PRONOUN_TAG * tag.strength)
        return None

    def described(self, words: str, paragraph: int, strength: float = 1.0) -> Cue:
        """The protagonist's standing descriptions are the card's.

        Any other description is a person of its own.
        """
        if not self.is_standing(words):
            return Cue("description", self.people.description(words), strength=TAG * strength)
        # "My companion" is the protagonist; "the detective" may as well be one from the police.
        other = any(0 <= paragraph - i <= OTHER_FRIEND_PARAGRAPHS for i in self._other_friends)
        if (words.lower().startswith("my ") and not other) or len(words.split()) > 2:
            return Cue("description", self.people.protagonist, strength=STANDING * TAG * strength)
        return Cue("description", self.people.description(words), strength=DOUBTFUL * TAG * strength)

    def is_standing(self, words: str) -> bool:
        """The card lists the description as the protagonist's."""
        key = words.lower()
        return any(key == d or key.startswith(d + " ") for d in self.people.descriptions)

    def _beat(self, text: str, paragraph: int, before: bool) -> Cue | None:
        """Who acts in the sentence nearest the quote."""
        if not text:
            return None
        sentence = SENTENCE.split(text)[-1 if before else 0]
        if not before and not sentence[:1].isupper():
            return None
        weight = 1.0 if before else AFTER_QUOTE
        for m in self.mentions(sentence):
            if NO_SUBJECT_BEFORE.search(sentence[: m.start]):
                continue
            cue = self._cue(Tag(m.kind, m.text), paragraph)
            if cue is None:
                return None
            strength = BEAT_POSSESSIVE if sentence[m.end : m.end + 2] == "'s" else BEAT
            return Cue("action", cue.entity, cue.pronoun, strength * weight)
        own = re.match(r"(?:His|Her|My)\b", sentence)
        if own is None:
            return None
        pronoun = {"His": "he", "Her": "she"}.get(own.group())
        entity = None if pronoun else self.people.narrator
        return Cue("action", entity, pronoun, BEAT_POSSESSIVE * weight)

    def _lead_in(self, text: str, paragraph: int) -> Cue | None:
        """Who acts in the narration just before: "Holmes shook his head."

        He likely speaks next, "I" does not.
        """
        beat = self._beat(text, paragraph, True)
        if beat is None:
            return None
        if beat.entity is not None and beat.entity.role == "narrator":
            return Cue("reaction", beat.entity, strength=REACTION_I)
        return Cue("lead", beat.entity, beat.pronoun, LEAD_IN * (1.0 if len(text) < 200 else 0.5))

    def _changes(self, turn: Turn, cues: list[Cue], between: str) -> bool:
        """The narration between two quotes shows another speaker.

        A sentence of its own with another subject.
        """
        if len(SENTENCE.split(between)) == 1 and not between.endswith((".", "!", "?", ":")):
            return False

        def sex(cue: Cue) -> str | None:
            if cue.entity is None:
                return cue.pronoun
            return "I" if cue.entity.role == "narrator" else cue.entity.gender

        for new in cues:
            for old in turn.cues:
                if old.entity and new.entity and old.entity is not new.entity:
                    return True
                if sex(old) and sex(new) and sex(old) != sex(new):
                    return True
        return False

    def _join_runs(self) -> None:
        """Carry an unclosed quote on into the next paragraph's first turn."""
        joined: list[Turn] = []
        for turn in self.turns:
            last = joined[-1] if joined else None
            turn.after_open = (
                last is not None
                and turn.spans[0].continues
                and not last.spans[-1].closed
                and not turn.same_paragraph
            )
            # A paragraph that names another speaker: the closing mark is missing in the one before.
            retagged = (
                last is not None
                and turn.tagged()
                and not any(a is b for a in turn.tagged() for b in last.tagged())
            )
            if turn.after_open and not retagged:
                last.spans += turn.spans
                last.cues += turn.cues
                last.run += 1
            else:
                joined.append(turn)
        self.turns = joined

    # What the speech says, and to whom

    def _read_speech(self, turn: Turn) -> None:
        """Names in the speech, called or spoken of, and whom the narration says it is spoken to."""
        after = self.after[id(turn.spans[-1])]
        tagged = any(c.kind in ("explicit", "description", "pronoun") for c in turn.cues)
        ends = turn.spans[-1].closed and len(SENTENCE.split(after)) > 1
        turn.trailing = ends or (after[:1].isupper() and not tagged)
        contexts = [*(self.before[id(s)] for s in turn.spans), after]
        if turn.paragraph and not contexts[0] and not self.paragraphs[turn.paragraph - 1].spans:
            contexts.append(SENTENCE.split(self.narration[turn.paragraph - 1][-1])[-1])
        for m in (m for context in contexts for m in TOLD_TO.finditer(context)):
            entity = self.people.narrator if m[1] in ("me", "us") else self.people.name(m[1])
            if entity is not None and all(c.entity is not entity for c in turn.cues):
                turn.told.append(entity)
        for span in turn.spans:
            speech = own_words(squeeze(self.text[span.start : span.end]))
            turn.formal |= is_formal(speech)
            turn.deferent |= is_deferent(speech)
            for name, called in names_in(speech):
                if (entity := self.people.name(name)) is None:
                    continue
                group = turn.addressed if called else turn.named
                if not any(entity is e for e in group):
                    group.append(entity)
                titled = name.split()[0].rstrip(".").lower() in TITLES
                turn.formal |= called and titled and entity is self.people.protagonist
