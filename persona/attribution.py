"""The sieve: who speaks each quote, from tags down to alternation.

Every paragraph's quotes become turns (`turns`). Tags, actions, vocatives, mentions and the words of the
speech score each person who may have spoken a turn; exchanges score sequences: A-B-A-B, and nobody answers
himself. The forward-backward algorithm (Rabiner 1989, section III) over pairs of speakers then gives the
probability of each speaker at each turn, so that a sure tag decides its neighbours in both directions.
"""

import math
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from persona.card import Card
from persona.cues import SENTENCE
from persona.mentions import NO_SUBJECT_BEFORE, Entity, squeeze
from persona.spans import Paragraph
from persona.turns import Cue, Reader, Turn

# Natural logarithms of how much likelier a cue makes somebody the speaker, set on one annotated novel.
ACTIVITY, PAST_DECAY, FUTURE_DECAY = 1.1, 0.85, 0.75  # of being mentioned nearby; decay per paragraph
MAX_CANDIDATES = 7
DESCRIBED, UNKNOWN = -0.8, -4.0  # a person without a name; somebody whom the text has not named
ADDRESSED, NAMED, TOLD, FORMAL, DEFERENT = (
    -4.0,
    -1.2,
    -1.5,
    -1.2,
    -1.5,
)  # against whoever is called, spoken of, spoken to
NEXT_IS_TOLD, NEXT_IS_ADDRESSED, BEFORE_IS_ADDRESSED = 0.8, 0.8, 0.4
ANTECEDENT_HERE, ANTECEDENT_BEFORE, NO_GENDER = 3.5, 3.0, -1.5
SAME_PERSON, ANY_OF_GENDER = 1.05, 0.4  # of a description's strength, for a named person whom it may mean
PROTAGONIST_ABSENT = 0.4  # of a description's strength, where the protagonist has not been mentioned for long
SAME_PARAGRAPH, SAME_ADJACENT, SAME_APART, SAME_AFTER_OPEN = 2.8, -3.6, -0.5, 1.0
TRAILING_BEAT, ALTERNATE = 1.5, 2.1
VOICE, VOICE_CLIP, VOICE_PRIOR = 0.6, 3.0, 300.0
SURE = 0.9  # turns from whose words the voices are learnt

ROLES = ("protagonist", "narrator", "other")


class Sieve:
    """Attribution of one text: `turns` with speaker, probability, tier and addressee."""

    def __init__(self, text: str, paragraphs: list[Paragraph], card: Card, other_narrator: bool) -> None:
        self.text, self.paragraphs, self.card = text, paragraphs, card
        self.reader = Reader(text, paragraphs, card, other_narrator)
        self.people, self.turns = self.reader.people, self.reader.turns
        self._score()
        self._decode()
        self._add_voices()
        self._decode()
        self._finish()

    # Who is there

    def _presence(self) -> list[dict[int, float]]:
        """For every paragraph: who is mentioned in it, and who is known to speak in it, by weight."""
        presence: list[dict[int, float]] = [defaultdict(float) for _ in self.paragraphs]
        for i, pieces in enumerate(self.reader.narration):
            for m in (m for piece in pieces for m in self.reader.mentions(piece)):
                if m.kind == "pronoun":
                    entity, weight = self.people.narrator if m.text == "I" else None, 0.2
                elif m.kind == "name":
                    entity, weight = self.people.name(m.text), 1.0
                else:
                    entity, weight = self.reader.described(m.text, i).entity, 0.15
                if entity is not None and (m.kind != "description" or entity.role == "described"):
                    presence[i][id(entity)] += weight
        for turn in self.turns:
            for cue in turn.cues:
                # "My companion" alone does not show that the protagonist is there at all.
                if cue.entity is not None and (
                    cue.kind != "description" or cue.entity is not self.people.protagonist
                ):
                    presence[turn.paragraph][id(cue.entity)] += 0.5 if cue.kind == "action" else 1.0
            for entity in turn.addressed:
                presence[turn.paragraph][id(entity)] += 0.7
            for entity in turn.named:
                presence[turn.paragraph][id(entity)] += 0.1
        return presence

    def _score(self) -> None:
        """Score every person who may speak a turn."""
        presence = self._presence()
        self.by_id: dict[int, Entity] = {
            id(e): e for e in [*self.people.entities, *self.people.described.values()]
        }
        past = _decayed(presence, PAST_DECAY)
        future = [{}, *_decayed(presence[::-1], FUTURE_DECAY)[:-1]][::-1]  # without the paragraph itself
        narrator = self.people.narrator
        self._formal_narrator = any(
            t.formal and any(c.kind == "explicit" and c.entity is narrator for c in t.cues)
            for t in self.turns
        )
        protagonist = self.people.protagonist
        self._deferent_protagonist = any(
            t.deferent and any(c.kind == "explicit" and c.entity is protagonist for c in t.cues)
            for t in self.turns
        )
        for turn in self.turns:
            self._score_turn(turn, past[turn.paragraph], future[turn.paragraph])
        for a, b in pairwise(self.turns):
            if b.paragraph - a.spans[-1].paragraph > 2 or b.same_paragraph:
                continue
            for turn, entities, score in (
                (b, a.addressed, NEXT_IS_ADDRESSED),
                (b, a.told, NEXT_IS_TOLD),
                (a, b.addressed, BEFORE_IS_ADDRESSED),
            ):
                for entity in entities:
                    if id(entity) in turn.scores:
                        turn.scores[id(entity)] += score

    def _score_turn(self, turn: Turn, past: dict[int, float], future: dict[int, float]) -> None:
        activity = {k: past.get(k, 0.0) + 0.7 * future.get(k, 0.0) for k in {**past, **future}}
        narrator = id(self.people.narrator)
        activity[narrator] = max(activity.get(narrator, 0.0), 0.5)
        ranked = sorted(activity, key=lambda k: (-activity[k], self.by_id[k].name))[:MAX_CANDIDATES]
        antecedents: dict[str, tuple[Entity | None, bool]] = {}
        for cue in turn.cues:
            if cue.pronoun and cue.pronoun not in antecedents:
                antecedents[cue.pronoun] = entity, _ = self._antecedent(turn, cue.pronoun)
                if entity is not None:
                    activity[id(entity)] = activity.get(id(entity), 0.05) + 0.3
                    ranked.append(id(entity))
            elif cue.entity is not None:
                activity.setdefault(id(cue.entity), 0.05)
                ranked.append(id(cue.entity))
        turn.protagonist_near = past.get(id(self.people.protagonist), 0.0) >= 0.03
        for k in dict.fromkeys(ranked):
            entity = self.by_id[k]
            score = ACTIVITY * math.log(0.05 + min(activity[k], 4.0))
            for cue in turn.cues:
                if cue.pronoun:
                    score += self._fit_pronoun(cue, entity, *antecedents[cue.pronoun])
                else:
                    score += self._fit(cue, entity) * (
                        PROTAGONIST_ABSENT if not turn.protagonist_near and cue.kind == "description" else 1.0
                    )
            score += DESCRIBED * (entity.role == "described")
            score += ADDRESSED * any(entity is e for e in turn.addressed)
            score += NAMED * any(entity is e for e in turn.named)
            score += TOLD * any(entity is e for e in turn.told)
            score += FORMAL * (turn.formal and k == narrator and not self._formal_narrator)
            score += DEFERENT * (
                turn.deferent and entity.role == "protagonist" and not self._deferent_protagonist
            )
            turn.scores[k] = score
        turn.scores[0] = UNKNOWN

    def _fit(self, cue: Cue, entity: Entity) -> float:
        """How much a name or a description speaks for somebody."""
        if cue.entity is entity:
            return cue.strength
        if cue.entity.role != "described" or entity.role == "narrator":
            return 0.0
        if entity is self.people.protagonist:
            return cue.strength if self.reader.is_standing(cue.entity.name) else 0.0
        # "The old man" may be somebody with a name; "the inspector" is Inspector Lestrade.
        if self.people.titled(entity, cue.entity.name.split()[-1]):
            return SAME_PERSON * cue.strength
        agrees = cue.entity.gender is None or cue.entity.gender == entity.gender
        return ANY_OF_GENDER * cue.strength if agrees else 0.0

    def _fit_pronoun(self, cue: Cue, entity: Entity, antecedent: Entity | None, here: bool) -> float:
        """How much a pronoun speaks for somebody: gender, and whom the narration named before it."""
        if entity.role == "narrator" or entity.gender not in (None, cue.pronoun):
            return 0.0
        same = antecedent is entity or (
            antecedent is not None
            and antecedent.role == "described"
            and self.people.titled(entity, antecedent.name.split()[-1])
        )
        bonus = (ANTECEDENT_HERE if here else ANTECEDENT_BEFORE) if same else 0.0
        return cue.strength + min(bonus, cue.strength) + (NO_GENDER if entity.gender is None else 0.0)

    def _antecedent(self, turn: Turn, pronoun: str) -> tuple[Entity | None, bool]:
        """The subject of the pronoun's gender that narration last named before the turn.

        And whether in its paragraph. Narration that lies before other speech counts only where its
        paragraph goes on after the speech: otherwise the speaker two turns back is likelier.
        """
        texts = [self.reader.before[id(turn.spans[0])]]
        for i in range(turn.paragraph - 1, max(-1, turn.paragraph - 4), -1):
            spans, last = self.paragraphs[i].spans, self.reader.narration[i][-1]
            if not spans:
                texts.append(last)
                continue
            if spans[-1].closed and len(SENTENCE.split(last)) > 1:
                texts.append(last)
            break
        for depth, text in enumerate(texts):
            for m in reversed(self.reader.mentions(text)):
                if m.kind == "pronoun" or text[m.end : m.end + 2] == "'s":
                    continue
                if NO_SUBJECT_BEFORE.search(text[: m.start]) and not text[m.end :].startswith(", who "):
                    continue
                if m.kind == "name":
                    entity = self.people.name(m.text)
                else:
                    entity = self.reader.described(m.text, turn.paragraph).entity
                if entity is not None and entity.gender == pronoun:
                    return entity, depth == 0
        return None, False

    # How they talk

    def _add_voices(self) -> None:
        """Score again by how the protagonist, the narrator and all others talk in turns already sure.

        Naive Bayes over the set of a turn's words, smoothed towards the text's own word frequencies. The
        words of a speech depend on one another, so the sum grows with the square root of their number, and
        is clipped.
        """
        bags = [self._words(turn) for turn in self.turns]
        sure = [_role(t.speaker) if t.speaker and t.probability > SURE else None for t in self.turns]
        counts: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
        for bag, role in zip(bags, sure, strict=True):
            if role:
                counts[role].update(bag)
        totals = {role: sum(c.values()) for role, c in counts.items()}
        if min(totals.values()) < 50:  # too little to learn from
            return
        every, size = sum(counts.values(), Counter()), sum(totals.values())
        for turn, bag, own in zip(self.turns, bags, sure, strict=True):
            log_ratio = dict.fromkeys(ROLES, 0.0)
            for word in bag:
                frequency = every[word] / size + 1e-6
                for role in ROLES:
                    n = counts[role][word] - (own == role)  # the turn itself is no evidence
                    log_ratio[role] += math.log(
                        (n + VOICE_PRIOR * frequency) / (totals[role] + VOICE_PRIOR) / frequency
                    )
            mean = sum(log_ratio.values()) / len(ROLES)
            for k in turn.scores:
                if k:
                    score = VOICE * (log_ratio[_role(self.by_id[k])] - mean) / math.sqrt(len(bag) + 1)
                    turn.scores[k] += max(-VOICE_CLIP, min(VOICE_CLIP, score))

    def _words(self, turn: Turn) -> list[str]:
        """The different words of a turn, in a fixed order so that sums come out the same in every process."""
        text = " ".join(squeeze(self.text[s.start : s.end]) for s in turn.spans[:6]).lower()
        return sorted(set(re.findall(r"[a-z]+(?:'[a-z]+)?|\?", text)))

    # Who speaks

    def _decode(self) -> None:
        """The most probable speaker of each turn: forward-backward over pairs of successive speakers."""
        turns = self.turns
        if not turns:
            return
        states = [np.array(list(t.scores), dtype=np.int64) for t in turns]
        emissions = [np.array(list(t.scores.values())) for t in turns]
        steps = [None, *(self._transition(t, states) for t in range(1, len(turns)))]
        forward = [emissions[0][None]]  # (speaker before, speaker now)
        for t in range(1, len(turns)):
            forward.append(_log_sum(forward[-1][:, :, None] + steps[t], 0) + emissions[t][None])
        backward = [np.zeros_like(forward[-1])]
        for t in range(len(turns) - 1, 0, -1):
            backward.append(_log_sum(steps[t] + emissions[t][None, None] + backward[-1][None], 2))
        for turn, keys, a, b in zip(turns, states, forward, reversed(backward), strict=True):
            total = _log_sum(a + b, 0)
            probability = np.exp(total - _log_sum(total, 0))
            best = int(probability.argmax())
            turn.speaker = self.by_id.get(int(keys[best]))
            turn.probability = float(probability[best])

    def _transition(self, t: int, states: list[np.ndarray]) -> np.ndarray:
        """Scores of (speaker two turns back, speaker before, speaker now)."""
        before, turn = self.turns[t - 1], self.turns[t]
        gap = turn.paragraph - before.spans[-1].paragraph
        same = states[t - 1][:, None] == states[t][None, :]
        if turn.after_open:
            again = SAME_AFTER_OPEN
        elif turn.same_paragraph:
            again = SAME_PARAGRAPH
        elif gap <= 1:
            again = SAME_ADJACENT + TRAILING_BEAT * before.trailing
        else:
            again = SAME_APART / (gap - 1)
        scores = np.where(same, again, 0.0)[None]
        if t == 1:
            return scores
        width = (
            turn.paragraph
            - self.turns[t - 2].spans[-1].paragraph
            - (before.spans[-1].paragraph - before.paragraph)
        )
        bonus = ALTERNATE * (1.0 if width <= 2 else 0.6 if width <= 4 else 0.1)
        back = states[t - 2][:, None] == states[t][None, :]
        return scores + np.where(back[:, None, :] & ~same[None], bonus, 0.0)

    def _finish(self) -> None:
        """Name the evidence and the addressee; somebody without a name is nobody known."""
        previous: Turn | None = None
        for turn in self.turns:
            if turn.speaker is not None and not turn.speaker.name:
                turn.speaker = None
            near = previous is not None and turn.paragraph - previous.spans[-1].paragraph <= 2
            if turn.addressed:
                turn.addressee = turn.addressed[0]
            elif near and previous.speaker is not turn.speaker:
                turn.addressee = previous.speaker
            kinds = {c.kind for c in turn.cues}
            tags = [k for k in ("explicit", "description", "pronoun", "action") if k in kinds]
            if turn.run >= 3:
                turn.tier = "monologue"
            elif turn.speaker is None:
                turn.tier = "unknown"
            else:
                turn.tier = tags[0] if tags else "vocative" if turn.addressed else "alternation"
            previous = turn


def _role(entity: Entity) -> str:
    return entity.role if entity.role in ROLES else "other"


def _decayed(presence: list[dict[int, float]], decay: float) -> list[dict[int, float]]:
    """Sums over all paragraphs up to each, older ones weighing less; what has faded is left out."""
    sums: list[dict[int, float]] = []
    current: dict[int, float] = {}
    for weights in presence:
        current = {k: v * decay for k, v in current.items() if v * decay > 0.02}
        for k, weight in weights.items():
            current[k] = current.get(k, 0.0) + weight
        sums.append(current)
    return sums


def _log_sum(a: np.ndarray, axis: int) -> np.ndarray:
    """log(sum(exp(a))) along an axis, without overflow."""
    top = a.max(axis=axis, keepdims=True)
    return (top + np.log(np.exp(a - top).sum(axis=axis, keepdims=True))).squeeze(axis)
