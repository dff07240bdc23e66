"""The sieve: who speaks each quote, from tags down to alternation.

Every paragraph's quotes become turns. Tags, beats of action, vocatives and mentions score each person who may have
spoken a turn; exchanges score sequences (A-B-A-B, nobody answers himself). The forward-backward algorithm then gives
the probability of each speaker at each turn, so that a sure tag decides its neighbours in both directions.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from persona.card import Card
from persona.mentions import (
    DETERMINER,
    NAME,
    NOUN,
    NOUNS,
    NO_SUBJECT_BEFORE,
    NOT_NAMES,
    SPEECH_VERBS,
    TITLES,
    Entity,
    Mention,
    People,
    find_people,
    fold,
    mentions,
    squeeze,
)
from persona.spans import Paragraph, Span

VERB = r"(?:" + "|".join(sorted(SPEECH_VERBS, key=len, reverse=True)) + r")"
PRONOUN = r"(?:I|he|she|they|we|one|it)"
PARTICLE = r"(?:(?:out|in|up|on|off|forth|back|again|at last|at length|aloud|\w+ly) )?"
STOP = r"(?:with|in|as|and|to|from|at|on|who|when|while|which|after|upon|for|but|by|over|behind|then|through|\w+ing|\w+ly)"
SENTENCE = re.compile(r"(?<=[a-z0-9)\]'][.!?]) +(?=[A-Z])")

# Scores are natural logarithms of how much likelier a cue makes somebody the speaker; set on one annotated novel.
TAG = 9.0
PRONOUN_TAG = 6.0
BEAT = 3.0
BEAT_POSSESSIVE = 2.2
ADDRESSED = -4.0
NAMED_BY_SELF = -1.2


@dataclass
class Cue:
    """What the narration beside a quote says of its speaker."""

    kind: str  # explicit, description, pronoun, action
    entity: Entity | None = None
    pronoun: str | None = None
    strength: float = TAG


@dataclass
class Turn:
    """Quotes of one paragraph that one person speaks, and what is known of the speaker."""

    spans: list[Span]
    paragraph: int
    cues: list[Cue] = field(default_factory=list)
    addressed: list[Entity] = field(default_factory=list)
    named: list[Entity] = field(default_factory=list)
    formal: bool = False
    """It says "sir" or "Mr. Holmes" to somebody: the narrator, a friend, does not unless he is seen to."""
    told: list[Entity] = field(default_factory=list)
    """Whom the narration beside the quote says it is spoken to."""
    trailing: bool = False
    """Its paragraph ends in an action, after which the same person may go on in the next."""
    scores: dict[int, float] = field(default_factory=dict)
    speaker: Entity | None = None
    addressee: Entity | None = None
    probability: float = 0.0
    posterior: dict[int, float] = field(default_factory=dict)
    tier: str = "unknown"
    same_paragraph: bool = False
    run: int = 1
    """Number of paragraphs in the unclosed run that this turn belongs to."""


class Sieve:
    """One text's attribution; `turns` holds the result."""

    def __init__(self, text: str, paragraphs: list[Paragraph], card: Card, other_narrator: bool) -> None:
        self.text, self.paragraphs, self.card, self.other_narrator = text, paragraphs, card, other_narrator
        self.before: dict[int, str] = {}  # id of a span -> narration before it in its paragraph
        self.after: dict[int, str] = {}
        self.narration: list[list[str]] = [self._narration(p) for p in paragraphs]
        self.people: People = find_people(text, [s for n in self.narration for s in n if s], card, other_narrator)
        self.unspoken: set[int] = set()
        self.turns: list[Turn] = []
        self._found: dict[int, list[Mention]] = {}

    def run(self) -> None:
        for paragraph in self.paragraphs:
            if paragraph.spans:
                self._mark_unspoken(paragraph)
                self._make_turns(paragraph)
        self._join_runs()
        for turn in self.turns:
            self._read_speech(turn)
        self._note_presence()
        self._score()
        decode(self.turns, self.people)
        if LEXICAL:
            self._learn_voices()
            decode(self.turns, self.people)
        self._finish()

    # Narration beside the quotes

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

    def _mark_unspoken(self, paragraph: Paragraph) -> None:
        """Titles, letters and words under discussion: quotes that narration runs through, or announces as written."""
        for i, span in enumerate(paragraph.spans):
            quote, before, after = squeeze(self.text[span.start : span.end]).strip(), self.before[id(span)], self.after[id(span)]
            if span.continues:
                previous = self._previous_span(paragraph)
                if previous is not None and id(previous) in self.unspoken:
                    self.unspoken.add(id(span))
                continue
            if quote.isupper() and len(quote.split()) > 1:  # a headline or a chapter's title
                self.unspoken.add(id(span))
                continue
            announced = before
            if not announced and i == 0 and paragraph.index:
                announced = self.narration[paragraph.index - 1][-1]
                if not WRITTEN_END.search(announced):
                    announced = ""
            if announced and announced.endswith(":") or WRITTEN_END.search(announced):
                clause = re.split(r"[,;]| and ", SENTENCE.split(announced)[-1])[-1]
                if WRITTEN.search(clause) and not re.search(rf"\b(?:{VERB}|{SPEAKING}|aloud|voice|words)\b", clause.replace(" read", "")):
                    self.unspoken.add(id(span))
                    continue
            if not before:
                continue
            if i and self._interrupted(paragraph.spans[i - 1]):
                continue
            terminal = bool(re.search(r"[.,!?;:-]['_)]*$", quote))
            mid_sentence = not re.search(r"[.!?:,;)-]$", before)
            last = SENTENCE.split(before)[-1]
            tagged = after_tag(after, quote) is not None
            spoken_before = re.search(rf"\b{VERB}\b", " ".join(last.split()[-4:])) is not None
            if mid_sentence and not tagged and INTRODUCES_WORDS.search(before):
                self.unspoken.add(id(span))
            elif mid_sentence and not spoken_before and not tagged:
                goes_on = not after or after[0].islower() or after[0] in ",;.)" or not terminal
                if not (terminal and quote[:1].isupper() and len(quote.split()) > 3 and not after[:1].islower()) and goes_on:
                    self.unspoken.add(id(span))
            elif not terminal and len(quote.split()) <= 4 and not tagged and not spoken_before:
                if after and (after[0].islower() or after[0] in ",;.)"):
                    self.unspoken.add(id(span))

    def _interrupted(self, span: Span) -> bool:
        """A spoken quote breaks off in the middle of a sentence, so that the next one goes on with it."""
        quote = squeeze(self.text[span.start : span.end]).rstrip(" _'")
        return id(span) not in self.unspoken and not quote.endswith((".", "!", "?")) and len(quote.split()) > 1

    def _previous_span(self, paragraph: Paragraph) -> Span | None:
        for p in reversed(self.paragraphs[max(0, paragraph.index - 3) : paragraph.index]):
            if p.spans:
                return p.spans[-1]
        return None

    # Turns

    def _make_turns(self, paragraph: Paragraph) -> None:
        turn: Turn | None = None
        for i, span in enumerate(paragraph.spans):
            if id(span) in self.unspoken:
                continue
            quote = squeeze(self.text[span.start : span.end]).strip()
            before, after = self.before[id(span)], self.after[id(span)]
            last = i == len(paragraph.spans) - 1
            cues = []
            if tag := after_tag(after, quote):
                cues.append(self._cue(tag, after))
            lead = before_tag(before) if before else None
            if lead and (i == 0 or not self._tag_used(before, paragraph, i)):
                cues.append(self._cue(lead, before))
            if i == 0 and not before and paragraph.index:
                announced = self.narration[paragraph.index - 1][-1]
                if announced.endswith((":", ",")) and (lead := before_tag(announced)):
                    cues.append(self._cue(lead, announced))
            if not cues:
                if before and (beat := self._beat(before, True, i > 0)):
                    cues.append(beat)
                if after and not last and not cues and (beat := self._beat(after, False, False)):
                    cues.append(beat)
                if after and last and not cues and (beat := self._beat(after, False, False)):
                    cues.append(beat)
            if not cues and i == 0 and not before and paragraph.index and not span.continues:
                if lead_in := self._lead_in(self.narration[paragraph.index - 1], paragraph.index - 1):
                    cues.append(lead_in)
            cues = [c for c in cues if c]
            if turn is None or (i > 0 and self._changes(turn, cues, before)):
                turn = Turn([span], paragraph.index, cues, same_paragraph=turn is not None)
                self.turns.append(turn)
            else:
                turn.spans.append(span)
                turn.cues += cues

    def _tag_used(self, before: str, paragraph: Paragraph, i: int) -> bool:
        """The narration between two quotes is one sentence: a tag of the first quote, not of the second."""
        quote = squeeze(self.text[paragraph.spans[i - 1].start : paragraph.spans[i - 1].end]).strip()
        return after_tag(before, quote) is not None and len(SENTENCE.split(before)) == 1

    def _changes(self, turn: Turn, cues: list[Cue], between: str) -> bool:
        """The narration between shows that somebody else speaks now: a new sentence with another subject."""
        if not between or len(SENTENCE.split(between)) == 1 and not re.search(r"[.!?:]$", between):
            return False
        have = [c for c in turn.cues if c.entity or c.pronoun]
        for new in cues:
            for old in have:
                if old.entity and new.entity and old.entity is not new.entity:
                    return True
                a, b = self._cue_gender(old), self._cue_gender(new)
                if a and b and a != b:
                    return True
        return False

    def _cue_gender(self, cue: Cue) -> str | None:
        if cue.entity is not None:
            return "I" if cue.entity.role == "narrator" else cue.entity.gender
        return cue.pronoun

    def _cue(self, tag: tuple[str, str, float], context: str) -> Cue | None:
        kind, subject, strength = tag
        if kind == "pron":
            word = subject.lower()
            if word == "i":
                return Cue("explicit", self.people.narrator, strength=TAG * strength)
            if word in ("he", "she"):
                return Cue("pronoun", pronoun=word, strength=PRONOUN_TAG * strength)
            return None
        if kind == "name":
            entity = self.people.name(subject)
            return Cue("explicit", entity, strength=TAG * strength) if entity else None
        return self._description_cue(subject, strength)

    def _description_cue(self, words: str, strength: float) -> Cue:
        """The persona's standing descriptions are the card's; any other description is a person of its own."""
        key = words.lower()
        persona = self.people.persona
        if not self.card.narrator_is_persona and any(key == d or key.startswith(d + " ") for d in self.card.persona.descriptions):
            return Cue("description", persona, strength=(0.8 if key.startswith("my ") else 0.3) * TAG * strength)
        titled = re.sub(rf"^{DETERMINER} (?:\w+ )??", "", words)
        entity = self.people.description(words)
        return Cue("description", entity, strength=TAG * strength) if titled else Cue("description", entity)

    def _mentions(self, text: str) -> list[Mention]:
        key = hash(text)
        if key not in self._found:
            self._found[key] = mentions(text, self.people)
        return self._found[key]

    def _beat(self, text: str, before: bool, between: bool) -> Cue | None:
        """Who acts in the sentence nearest the quote."""
        sentences = SENTENCE.split(text)
        sentence = sentences[-1] if before else sentences[0]
        if not before and not sentence[:1].isupper():
            return None
        weak = 1.0 if before else 0.8
        for m in self._mentions(sentence):
            if NO_SUBJECT_BEFORE.search(sentence[: m.start]):
                continue
            possessive = sentence[m.end : m.end + 2] == "'s"
            strength = (BEAT_POSSESSIVE if possessive else BEAT) * weak
            cue = self._cue(("pron" if m.kind == "pron" else m.kind, m.text, 1.0), sentence)
            if cue is None:
                return None
            return Cue("action", cue.entity, cue.pronoun, strength)
        if own := re.match(r"(?:His|Her|My)\b", sentence):
            word = {"His": "he", "Her": "she", "My": "I"}[own.group()]
            if word == "I":
                return Cue("action", self.people.narrator, strength=BEAT_POSSESSIVE * weak)
            return Cue("action", pronoun=word, strength=BEAT_POSSESSIVE * weak)
        return None

    def _lead_in(self, pieces: list[str], index: int) -> Cue | None:
        """Who acts in the paragraph of narration just before: "Holmes shook his head." He likely speaks next, "I" does not."""
        if self.paragraphs[index].spans or not pieces[-1]:
            return None
        beat = self._beat(pieces[-1], True, False)
        if beat is None:
            return None
        if beat.entity is not None and beat.entity.role == "narrator":
            return Cue("reaction", beat.entity, strength=REACTION_I)
        strength = LEAD_IN * (1.0 if len(pieces[-1]) < 200 else 0.5)
        return Cue("lead", beat.entity, beat.pronoun, strength)

    def _join_runs(self) -> None:
        """Carry an unclosed quote on into the next paragraph's first turn."""
        joined: list[Turn] = []
        for turn in self.turns:
            first = turn.spans[0]
            if first.continues and joined and not joined[-1].spans[-1].closed and not turn.same_paragraph:
                joined[-1].spans += turn.spans
                joined[-1].cues += turn.cues
                joined[-1].run += 1
            else:
                joined.append(turn)
        self.turns = joined

    # What the speech itself says

    def _read_speech(self, turn: Turn) -> None:
        """Names in the speech, called or spoken of, and names in the narration of whoever it is spoken to."""
        after = self.after[id(turn.spans[-1])]
        turn.trailing = turn.spans[-1].closed and len(SENTENCE.split(after)) > 1 or (after[:1].isupper() and not any(c.kind in ("explicit", "description", "pronoun") for c in turn.cues))
        contexts = [self.before[id(s)] for s in turn.spans] + [after]
        if turn.paragraph and not contexts[0]:
            contexts.append(SENTENCE.split(self.narration[turn.paragraph - 1][-1])[-1] if not self.paragraphs[turn.paragraph - 1].spans else "")
        for context in contexts:
            for m in TOLD_TO.finditer(context):
                entity = self.people.narrator if m.group(1) in ("me", "us") else self.people.name(m.group(1))
                if entity is not None and all(c.entity is not entity for c in turn.cues):
                    turn.told.append(entity)
        for span in turn.spans:
            quote = squeeze(self.text[span.start : span.end])
            plain = re.sub(r"(?<!\w)'[^']{12,}?'(?!\w)", " ", quote)  # what the speaker quotes is not his own
            for m in re.finditer(NAME, plain):
                entity = self.people.name(m.group())
                if entity is None:
                    continue
                head, tail = plain[: m.start()].rstrip(), plain[m.end() :].lstrip()
                head = re.sub(r"(?:,? ?\b(?:[Mm]y|[Oo]ld|[Dd]ear|[Gg]ood|[Pp]oor|[Mm]on|[Cc]her|[Aa]h|[Oh]h|[Yy]es|[Nn]o|[Ww]ell|[Aa]nd|[Bb]ut|[Nn]ow|[Cc]ome),?)+$", "", head)
                vocative = (not head or head[-1] in ",.!?;:-") and (not tail or tail[0] in ",.!?;:-")
                (turn.addressed if vocative else turn.named).append(entity)
                turn.formal |= vocative and entity is self.people.persona and m.group().split()[0].rstrip(".").lower() in TITLES
            turn.formal |= re.search(r"[,.!?-] ?(?:[Ss]ir|ma'am|[Mm]adam)\b|^Sir,", plain) is not None
        turn.addressed = list({id(e): e for e in turn.addressed}.values())
        turn.named = list({id(e): e for e in turn.named}.values())

    # Who is there

    def _note_presence(self) -> None:
        """For every paragraph: who is mentioned in narration, and who is known to speak."""
        self.presence: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for i, pieces in enumerate(self.narration):
            for piece in pieces:
                for m in self._mentions(piece):
                    if m.kind == "pron":
                        entity = self.people.narrator if m.text == "I" else None
                        weight = 0.2
                    elif m.kind == "name":
                        entity, weight = self.people.name(m.text), 1.0
                    else:
                        cue = self._description_cue(m.text, 1.0)
                        entity, weight = cue.entity, 0.5
                        if entity.role == "described":
                            weight = 0.15
                    if entity is not None:
                        self.presence[i][id(entity)] += weight
        for turn in self.turns:
            for cue in turn.cues:
                if cue.entity is not None:
                    self.presence[turn.paragraph][id(cue.entity)] += 1.0 if cue.kind != "action" else 0.5
            for entity in turn.addressed:
                self.presence[turn.paragraph][id(entity)] += 0.7
            for entity in turn.named:
                self.presence[turn.paragraph][id(entity)] += 0.1

    def _score(self) -> None:
        """Score every person who may speak a turn."""
        entities = {id(e): e for e in [*self.people.entities, *self.people.described.values()]}
        self.by_id = entities
        past: dict[int, float] = defaultdict(float)
        history: list[dict[int, float]] = []
        for i in range(len(self.paragraphs)):
            for k in past:
                past[k] *= PAST_DECAY
            for k, w in self.presence[i].items():
                past[k] += w
            history.append({k: v for k, v in past.items() if v > 0.02})
        future: dict[int, float] = defaultdict(float)
        ahead: list[dict[int, float]] = [{}] * len(self.paragraphs)
        for i in reversed(range(len(self.paragraphs))):
            ahead[i] = {k: v for k, v in future.items() if v > 0.02}
            for k in future:
                future[k] *= FUTURE_DECAY
            for k, w in self.presence[i].items():
                future[k] += w
        self.formal_narrator = any(
            t.formal and any(c.kind == "explicit" and c.entity is self.people.narrator for c in t.cues) for t in self.turns
        )
        for turn in self.turns:
            self._score_turn(turn, history[turn.paragraph], ahead[turn.paragraph])
        for a, b in pairwise(self.turns):
            if b.paragraph - a.spans[-1].paragraph > 2 or b.same_paragraph:
                continue
            for entity in a.addressed:
                if id(entity) in b.scores:
                    b.scores[id(entity)] += NEXT_IS_ADDRESSED
            for entity in a.told:
                if id(entity) in b.scores:
                    b.scores[id(entity)] += NEXT_IS_TOLD
            for entity in b.addressed:
                if id(entity) in a.scores:
                    a.scores[id(entity)] += BEFORE_IS_ADDRESSED

    def _score_turn(self, turn: Turn, past: dict[int, float], future: dict[int, float]) -> None:
        activity = {k: past.get(k, 0.0) + 0.7 * future.get(k, 0.0) for k in past.keys() | future.keys()}
        narrator = self.people.narrator
        if narrator is not None:
            activity[id(narrator)] = max(activity.get(id(narrator), 0.0), 0.5)
        for cue in turn.cues:
            if cue.entity is not None:
                activity.setdefault(id(cue.entity), 0.05)
        ranked = sorted(activity, key=lambda k: (-activity[k], self.by_id[k].name))
        keep = ranked[:MAX_CANDIDATES] + [id(c.entity) for c in turn.cues if c.entity is not None]
        for cue in turn.cues:
            if cue.pronoun and (antecedent := self._antecedent(turn, cue.pronoun)[0]) is not None:
                activity.setdefault(id(antecedent), 0.05)
                activity[id(antecedent)] += 0.3
                keep.append(id(antecedent))
        addressed, named, told = ({id(e) for e in group} for group in (turn.addressed, turn.named, turn.told))
        for k in dict.fromkeys(keep):
            entity = self.by_id[k]
            score = ACTIVITY * math.log(0.05 + min(activity[k], 4.0))
            if entity.role == "described":
                score -= DESCRIBED
            for cue in turn.cues:
                score += self._fit(cue, entity, turn)
            if k in addressed:
                score += ADDRESSED
            if k in told:
                score += TOLD
            if turn.formal and entity is narrator and not self.formal_narrator:
                score += FORMAL
            if k in named:
                score += NAMED_BY_SELF
            turn.scores[k] = score
        turn.scores[0] = UNKNOWN  # somebody whom the text has not named

    def _fit(self, cue: Cue, entity: Entity, turn: Turn) -> float:
        """How much a cue speaks for somebody."""
        if cue.entity is not None:
            if cue.entity is entity:
                return cue.strength
            if cue.entity.role == "described" and entity.role not in ("persona", "narrator"):
                # "The old man" may be somebody with a name.
                if self.people.titled(entity, cue.entity.name.split()[-1]):
                    return 1.05 * cue.strength
                return 0.4 * cue.strength if not cue.entity.gender or cue.entity.gender == entity.gender else 0.0
            return 0.0
        if entity.role == "narrator" and not self.card.narrator_is_persona:
            return 0.0  # the teller is "I", not "he"
        if entity.gender not in (None, cue.pronoun):
            return 0.0
        antecedent, here = self._antecedent(turn, cue.pronoun)
        bonus = 0.0
        if antecedent is entity or (antecedent is not None and antecedent.role == "described" and self.people.titled(entity, antecedent.name.split()[-1])):
            bonus = ANTECEDENT_HERE if here else ANTECEDENT_BEFORE
        return cue.strength + min(bonus, cue.strength) - (NO_GENDER if entity.gender is None else 0.0)

    def _antecedent(self, turn: Turn, pronoun: str) -> tuple[Entity | None, bool]:
        """The person of the pronoun's gender whom narration last named before the turn; whether in its paragraph."""
        texts = [self.before[id(turn.spans[0])]]
        for i in range(turn.paragraph - 1, max(-1, turn.paragraph - 4), -1):
            texts += reversed(self.narration[i])
            if self.paragraphs[i].spans:
                texts = texts[: -len(self.narration[i])] + self.narration[i][-1:] * (self.paragraphs[i].spans[-1].closed and len(SENTENCE.split(self.narration[i][-1])) > 1)
                break
        for depth, text in enumerate(texts):
            for m in reversed(self._mentions(text)):
                if m.kind == "pron":
                    continue
                entity = self.people.name(m.text) if m.kind == "name" else self._description_cue(m.text, 1.0).entity
                if entity is not None and entity.gender == pronoun and text[m.end : m.end + 2] != "'s" and not NO_SUBJECT_BEFORE.search(text[: m.start]):
                    return entity, depth == 0
        return None, False

    def _learn_voices(self) -> None:
        """Score again by the words of the persona's, the narrator's and everybody else's tagged quotes in this text.

        Multinomial naive Bayes with a half-count prior; the log-likelihood ratio is damped and clipped, since the words of
        a speech depend on one another.
        """
        roles = ("persona", "narrator", "other")
        counts: dict[str, Counter[str]] = {r: Counter() for r in roles}
        words = [self._words(turn) for turn in self.turns]
        for turn, bag in zip(self.turns, words, strict=True):
            if turn.speaker is not None and turn.probability > 0.9:
                counts[turn.speaker.role if turn.speaker.role in roles else "other"].update(bag)
        totals = {r: sum(c.values()) for r, c in counts.items()}
        if min(totals.values()) < 50:
            return
        everything = counts["persona"] + counts["narrator"] + counts["other"]
        size = sum(everything.values())
        for turn, bag in zip(self.turns, words, strict=True):
            likelihood = {}
            sure = turn.speaker is not None and turn.probability > 0.9
            for r in roles:
                own = turn.speaker.role if sure and turn.speaker.role in roles else "other" if sure else None
                score = 0.0
                for w in bag:
                    prior = everything[w] / size
                    n = counts[r][w] - (own == r)  # leave the turn itself out
                    score += math.log((n + LEXICAL_PRIOR * (prior + 1e-6)) / (totals[r] + LEXICAL_PRIOR) / (prior + 1e-6) + 1e-9)
                likelihood[r] = score
            mean = sum(likelihood.values()) / len(roles)
            for k in turn.scores:
                if k == 0:
                    continue
                entity = self.by_id[k]
                r = entity.role if entity.role in roles else "other"
                turn.scores[k] += max(-LEXICAL_CLIP, min(LEXICAL_CLIP, LEXICAL * (likelihood[r] - mean) / math.sqrt(len(bag) + 1)))

    def _words(self, turn: Turn) -> set[str]:
        text = " ".join(squeeze(self.text[s.start : s.end]) for s in turn.spans[:6]).lower()
        return set(re.findall(r"[a-z]+(?:'[a-z]+)?|\?", text))

    # Result

    def _finish(self) -> None:
        previous: Turn | None = None
        for turn in self.turns:
            turn.speaker = turn.speaker if turn.speaker is None or turn.speaker.name else None
            near = previous is not None and turn.paragraph - previous.paragraph <= 2
            if turn.addressed:
                turn.addressee = turn.addressed[0]
            elif near and previous.speaker is not turn.speaker:
                turn.addressee = previous.speaker
            kinds = {c.kind: c for c in turn.cues if c.kind not in ("lead", "reaction")}
            best = next((k for k in ("explicit", "description", "pronoun", "action") if k in kinds), None)
            if turn.run >= 3:
                turn.tier = "monologue"
            elif turn.speaker is None:
                turn.tier = "unknown"
            elif best:
                turn.tier = best
            elif turn.addressed:
                turn.tier = "vocative"
            else:
                turn.tier = "alternation"
            previous = turn


TOLD_TO = re.compile(rf"\b(?:(?:said|turned|turning|remarked|cried|explained|added|whispered|replied|called|spoke|nodded|round|back) (?:\w+ )?(?:to|upon|on|towards)|asked|addressed|addressing) (me|us|{NAME})\b")
# Before a title or a word under discussion: the "Gloria Scott", the word "Rache".
INTRODUCES_WORDS = re.compile(r"\b(?:the|an?|of|my|his|her|its|their|our|this|that|these|those|called|named|entitled|words?|name)$", re.I)
SPEAKING = r"(?:saying|remarking|whispering|adding|murmuring|exclaiming|crying|asking|calling|muttering|shouting|answering|addressed|addressing|ejaculating|observing|replying|declaring|repeating)"
WRITTEN = re.compile(r"\b(?:letters?|notes?|telegrams?|read|ran|written|wrote|paper|inscription|message|advertisement|paragraph|entry|inscribed|labelled|sheet|document|postcard|scrawled|printed|lines|wire|writing|handwriting|cable|despatch|dispatch|label|script|placard|notice|diary|epistle|headlines)\b", re.I)
WRITTEN_END = re.compile(r"(?::|\b(?:as follows|ran thus|read thus|in this way)[.:])$")
PAST_DECAY, FUTURE_DECAY = 0.85, 0.75
MAX_CANDIDATES = 7
ACTIVITY = 1.1
LEAD_IN, REACTION_I = 1.8, -1.6
TOLD, NEXT_IS_TOLD, NEXT_IS_ADDRESSED, BEFORE_IS_ADDRESSED = -1.5, 0.8, 0.8, 0.4
TRAILING_BEAT = 1.5
ANTECEDENT_HERE, ANTECEDENT_BEFORE = 2.5, 2.0
NO_GENDER = 1.5
FORMAL = -1.2
LEXICAL, LEXICAL_CLIP, LEXICAL_PRIOR = 0.6, 3.0, 300.0
DESCRIBED = 0.8
UNKNOWN = -4.0
SAME_ADJACENT, SAME_APART, SAME_PARAGRAPH, ALTERNATE = -3.6, -0.5, 2.8, 2.1


def after_tag(after: str, quote: str) -> tuple[str, str, float] | None:
    """The tag that follows a quote: what kind of subject, its words, and how sure (1 or less)."""
    text = after.lstrip(" ,-")
    if m := re.match(rf"{VERB} {PARTICLE}(?:(?P<pron>{PRONOUN})\b|(?P<name>{NAME})|(?P<desc>{DETERMINER} \w.*))", text):
        if m["desc"]:
            return _described(m["desc"])
        return ("pron", m["pron"], 1.0) if m["pron"] else ("name", m["name"], 1.0)
    if m := re.match(rf"It was (?P<name>{NAME}) (?:who|that) (?:spoke|had spoken|{VERB})\b", text):
        return "name", m["name"], 1.0
    if m := re.match(rf"It was (?P<desc>{DETERMINER} [\w' -]{{3,40}}?) (?:who|that) (?:spoke|had spoken|{VERB})\b", text):
        return _described(m["desc"])
    if re.match(r"It was I (?:who|that) (?:spoke|had spoken)", text):
        return "pron", "I", 1.0
    ends = bool(re.search(r"[,!?:;-]['_]?$", quote))
    if not (ends or text[:1].islower()):
        return None
    adverb = r"(?:,[^,.;]{1,60},)? (?:(?:had|has|only|then|again|at last|also|\w+ly|once more) )*"
    if m := re.match(rf"(?P<pron>(?:I|[Hh]e|[Ss]he)){adverb}{VERB}\b", text):
        return "pron", m["pron"].lower(), 1.0
    if m := re.match(rf"(?P<name>{NAME}){adverb}{VERB}\b", text):
        return "name", m["name"], 1.0
    if m := re.match(rf"(?P<desc>{DETERMINER} (?:[\w'-]+ ){{0,4}}?[\w'-]+){adverb}{VERB}\b", text):
        return _described(m["desc"])
    return None


def _described(words: str) -> tuple[str, str, float]:
    """The noun phrase at the start of `words`."""
    phrase = re.split(rf"[,.;:!?]|--|(?<= \w) {STOP}\b|(?<=\w\w\w\w) {STOP}\b", words)[0].split()[:6]
    nouns = [i for i, w in enumerate(phrase) if w in NOUNS]
    if nouns:
        phrase = phrase[: nouns[-1] + 1] if nouns[-1] > 1 or len(nouns) == 1 else phrase[: nouns[0] + 1]
    return "desc", " ".join(phrase), 1.0


SUBJECT = re.compile(
    rf"(?P<pron>\b(?:I|[Hh]e|[Ss]he)\b)|(?P<desc>\b{DETERMINER} (?:[\w'-]+ ){{0,3}}?{NOUN}\b)|(?P<name>\b{NAME})"
)
PREPOSITION = re.compile(r"(?:\b(?:to|at|of|with|upon|by|from|for|towards?|in|into|on|like|than|behind|beside|over|against|between|through|around|about|past|near)|\w's)\s+$", re.I)


def before_tag(before: str) -> tuple[str, str, float] | None:
    """The tag that announces a quote: the last subject before the verb of speech, or before the colon."""
    sentence = SENTENCE.split(before)[-1]
    if not sentence.endswith((":", ",", "-")):
        return None
    verbs = list(re.finditer(rf"\b(?:{VERB}|{SPEAKING})\b", sentence))
    if not verbs and not sentence.endswith(":"):
        return None
    limit = verbs[-1].start() if verbs else len(sentence)
    found = None
    for m in SUBJECT.finditer(sentence[:limit]):
        start, words = m.start(), m.group()
        if m["name"] and " " in words and words.split()[0] in NOT_NAMES and words.split()[0].lower() not in TITLES:
            start += len(words.split()[0]) + 1
            words = sentence[start : m.end()]
        elif m["name"] and words in NOT_NAMES:
            continue
        if PREPOSITION.search(sentence[:start]) or sentence[m.end() : m.end() + 2] == "'s":
            continue
        if re.search(r"\w and $", sentence[:start]) and not m["pron"]:
            continue
        kind = "pron" if m["pron"] or words in ("I", "He", "She") else "desc" if m["desc"] else "name"
        found = (kind, words, 1.0 if verbs else 0.5)
    if found and found[0] == "pron":
        found = ("pron", found[1].lower(), found[2])
    return found


def decode(turns: list[Turn], people: People) -> None:
    """Most probable speaker of each turn by forward-backward over pairs of speakers."""
    import numpy as np

    by_id: dict[int, Entity | None] = {id(e): e for e in [*people.entities, *people.described.values()]}
    by_id[0] = None
    if not turns:
        return
    states = [sorted(t.scores, key=lambda k: (-t.scores[k], by_id[k].name if by_id[k] else "")) for t in turns]
    emissions = [np.array([t.scores[k] for k in s]) for t, s in zip(turns, states, strict=True)]

    def equal(a: int, b: int) -> "np.ndarray":
        return np.array(states[a])[:, None] == np.array(states[b])[None, :]

    def step(t: int) -> "np.ndarray":
        """Transition scores (speaker two back, one back, now)."""
        gap = turns[t].paragraph - turns[t - 1].spans[-1].paragraph
        same = equal(t - 1, t)
        if turns[t].same_paragraph:
            pair = np.where(same, SAME_PARAGRAPH, 0.0)
        elif gap <= 1:
            pair = np.where(same, SAME_ADJACENT + (TRAILING_BEAT if turns[t - 1].trailing else 0.0), 0.0)
        else:
            pair = np.where(same, SAME_APART / (gap - 1), 0.0)
        out = np.repeat(pair[None], len(states[t - 2]) if t > 1 else 1, axis=0)
        if t > 1:
            wide = gap + turns[t - 1].paragraph - turns[t - 2].spans[-1].paragraph
            back = np.array(states[t - 2])[:, None] == np.array(states[t])[None, :]
            bonus = ALTERNATE if wide <= 2 else ALTERNATE * 0.6 if wide <= 4 else 0.2
            out = out + np.where(back[:, None, :] & ~same[None], bonus, 0.0)
        return out

    def lse(a: "np.ndarray", axis: int) -> "np.ndarray":
        top = a.max(axis=axis, keepdims=True)
        return (top + np.log(np.exp(a - top).sum(axis=axis, keepdims=True))).squeeze(axis)

    steps = [None, *[step(t) for t in range(1, len(turns))]]
    forward = [emissions[0][None]]  # (speaker before, speaker now)
    for t in range(1, len(turns)):
        forward.append(lse(forward[t - 1][:, :, None] + steps[t], 0) + emissions[t][None])
    backward = [np.zeros((1, 1))] * len(turns)
    backward[-1] = np.zeros_like(forward[-1])
    for t in range(len(turns) - 1, 0, -1):
        backward[t - 1] = lse(steps[t] + emissions[t][None, None] + backward[t][None], 2)
    for t, turn in enumerate(turns):
        total = lse(forward[t] + backward[t], 0)
        p = np.exp(total - total.max())
        p /= p.sum()
        best = int(p.argmax())
        turn.speaker, turn.probability = by_id[states[t][best]], float(p[best])
        turn.posterior = dict(zip(states[t], p.tolist(), strict=True))
