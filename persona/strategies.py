"""What makes rows from a story or from the card: dialogue, chunks, curated rows."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from persona import metrics
from persona.card import Card
from persona.corpus import Story
from persona.quotes import Quote, attribute
from persona.rows import SPLITS, Message, Row, make_row, parse_rows
from persona.sentences import sentences
from persona.spans import paragraphs

SCENE_WORDS = 400
MIN_REPLY_WORDS = 3
SCENE_BOUND_WORDS = 15
"""Up to this length a reply with a word that points at the scene says nothing without the page."""
LAST_WORDS = 6
"""The end of a speech is only given alone if it has so many words."""
LEANING = re.compile(
    r"^(?:And|But|So|Then|Or|Nor|Yet|For|Because|Which|Who|He|She|They|His|Her|Their|This|That|These|Those|Such)\b"
    r"|^(?:\S+ ){0,7}(?:he|she|him|they|them|these|those)\b",
    re.IGNORECASE,
)
"""A beginning that leans on what was said before it."""
CONTROL_TIERS = ("explicit", "description", "pronoun", "action", "vocative")
"""Of replies told by alternation alone about a quarter are the persona's own, which no control may be."""
POINTING = re.compile(
    r"(?i:\b(?:yonder|hush|hark|hullo|halloa|hist|quick|look|listen|(?:over|out|in|down|up) (?:here|there)"
    r"|(?:here|there) (?:he|she|it|they|we|you) (?:is|are|comes?|goes?)|this way|now, now|come on)\b)"
)


@dataclass(frozen=True)
class Utterance:
    """What one person says in one go.

    All quotes of a paragraph, or of a run of unclosed ones, without the narration between.
    """

    speaker: str | None
    addressee: str | None
    text: str
    keep: bool
    tier: str
    start: int
    end: int
    first_paragraph: int
    last_paragraph: int


def utterances(text: str, quotes: Iterable[Quote]) -> list[Utterance]:
    """Group a story's spoken quotes into utterances, in order.

    Quotes of one speaker in one paragraph belong together, and so does a speech that runs over several
    paragraphs.
    """
    groups: list[list[Quote]] = []
    for quote in quotes:
        if quote.tier == "unspoken":
            continue
        last = groups[-1][-1] if groups else None
        same = last is not None and last.speaker == quote.speaker
        runs_on = (
            last is not None
            and quote.paragraph == last.paragraph + 1
            and quote.tier in ("monologue", "continuation")
        )
        if same and (quote.paragraph == last.paragraph or runs_on):
            groups[-1].append(quote)
        else:
            groups.append([quote])
    return [
        Utterance(
            g[0].speaker,
            g[0].addressee,
            _joined(text, g),
            all(q.keep for q in g),
            g[0].tier,
            g[0].start,
            g[-1].end,
            g[0].paragraph,
            g[-1].paragraph,
        )
        for g in groups
    ]


def _joined(text: str, quotes: list[Quote]) -> str:
    """The quotes of an utterance as one text.

    A comma that stood only for "said he" becomes what it stood for.
    """
    parts: list[str] = []
    for i, quote in enumerate(quotes):
        part = " ".join(quote.text.split()).strip('"“”')
        following = quotes[i + 1] if i + 1 < len(quotes) else None
        if part.endswith(","):
            between = text[quote.end : following.start] if following else ""
            new_sentence = following is None or (
                re.search(r"[.!?][\"”]?\s*[\"“]?\s*$", between) and following.text.lstrip()[:1].isupper()
            )
            if new_sentence or "\n\n" in between:
                part = part[:-1] + "."
        parts.append(part)
    return " ".join(parts)


def told_by_others(story: Story, card: Card) -> list[tuple[int, int]]:
    """Ranges of the text that the card says somebody other than the narrator tells."""
    entries = {e for c in card.corpora.values() for e in c.other_narrators}
    if any(f"{story.id}/".startswith(f"{e}/") for e in entries):
        return [(0, len(story.text))]
    parts = tuple(e.removeprefix(f"{story.id}/") for e in entries if e.startswith(f"{story.id}/"))
    return [(c.start, c.end) for c in story.chapters for p in parts if c.id == p or c.id.startswith(f"{p}/")]


def quotes_of(story: Story, card: Card) -> list[Quote]:
    """The story's quotes with their speakers.

    Where somebody other than the narrator tells the tale, the persona's quotes are kept only if tagged by
    name.
    """
    elsewhere = told_by_others(story, card)
    whole = elsewhere == [(0, len(story.text))]
    return [
        replace(q, keep=False)
        if q.speaker == card.persona.name
        and q.tier != "explicit"
        and any(a <= q.start < b for a, b in elsewhere)
        else q
        for q in attribute(story.text, card, other_narrator=whole)
    ]


def needs_the_page(reply: Utterance, before: Utterance) -> bool:
    """Whether a reply makes no sense to who has only the speech before it.

    It is cut short, is said to somebody else than who has just spoken, or points at the scene.
    """
    turned_away = None not in (reply.addressee, before.speaker) and reply.addressee != before.speaker
    return turned_away or says_nothing_alone(reply.text)


def says_nothing_alone(reply: str) -> bool:
    """Whether a reply is cut short, or is short and points at the scene."""
    pointing = len(reply.split()) <= SCENE_BOUND_WORDS and POINTING.search(reply)
    return bool(pointing) or reply.endswith(("--", "—", "-"))


def contexts(turns: list[Message]) -> list[list[Message]]:
    """A reply's context, then the same with less: without its earliest turns, then the other's last words
    alone where a long speech ends in them."""
    found = [turns[dropped:] for dropped in range(0, len(turns), 2)]
    if words := last_words(turns[-1]["content"]):
        found.append([{"role": "user", "content": words}])
    return found


def last_words(speech: str) -> str | None:
    """The last sentences of a speech, LAST_WORDS or more; None where that is all of it, or where they
    speak of somebody or something that only the sentences before them name."""
    said = sentences(speech)
    for n in range(1, len(said)):
        words = " ".join(said[-n:])
        if len(words.split()) >= LAST_WORDS and not LEANING.search(words):
            return words
    return None


def dialogue_rows(story: Story, card: Card, quotes: Iterable[Quote], context_turns: int) -> list[Row]:
    """The persona's replies with one to `context_turns` turns of real context before them.

    A reply needs somebody else's speech before it, with at most two paragraphs of narration between; the
    context goes back while speeches follow one another so closely. Unknown speakers may stand in the
    context as the other side, never as the persona. `variant` 0 has the longest context, the next ones the
    same reply with less (`contexts`).
    """
    scenes = scene_starts(story.text)
    return [
        _reply_row(story, card, scenes, reply, less, variant=min(variant, 2))
        for reply, context in _replies(story, quotes, context_turns)
        if reply.speaker == card.persona.name
        for variant, less in enumerate(contexts(context))
    ]


def control_rows(story: Story, card: Card, quotes: Iterable[Quote], context_turns: int) -> list[Row]:
    """Replies of everybody else who is named, by the rules of `dialogue_rows`, `speaker` with each.

    They stand in the persona's place, under its system prompt, with all their context: controls that tell
    the persona's voice from its period's. Never to be trained on. Speakers told by nothing but turns that
    alternate are left out.
    """
    scenes = scene_starts(story.text)
    return [
        _reply_row(story, card, scenes, reply, context, variant=0, speaker=reply.speaker)
        for reply, context in _replies(story, quotes, context_turns)
        if reply.speaker != card.persona.name
        and reply.speaker[0].isupper()  # "the stranger" may be the persona in disguise
        and reply.tier in CONTROL_TIERS
    ]


def _replies(
    story: Story, quotes: Iterable[Quote], context_turns: int
) -> Iterator[tuple[Utterance, list[Message]]]:
    """Every reply of a named speaker that can be understood, and the turns before it, the speaker's own as
    the assistant's."""
    said = utterances(story.text, quotes)
    for i, reply in enumerate(said):
        if (
            reply.speaker is None
            or not reply.keep
            or len(metrics.words(reply.text)) < MIN_REPLY_WORDS
            or not i
            or needs_the_page(reply, said[i - 1])
        ):
            continue
        context: list[Message] = []
        later = reply
        for earlier in reversed(said[:i]):
            if later.first_paragraph - earlier.last_paragraph > 3:
                break
            role = "assistant" if earlier.speaker == reply.speaker else "user"
            if role == "assistant" and not earlier.keep:
                break
            if (context and context[0]["role"] == role) or (not context and role == "assistant"):
                break  # two speeches of one side: what stands between is narration that the row does not have
            context.insert(0, {"role": role, "content": earlier.text})
            later = earlier
            if len(context) == context_turns:
                break
        if context and context[0]["role"] == "assistant":
            context.pop(0)
        if context:
            yield reply, context


def _reply_row(
    story: Story, card: Card, scenes: list[int], reply: Utterance, context: list[Message], **meta
) -> Row:
    messages = [
        {"role": "system", "content": card.system_prompt},
        *context,
        {"role": "assistant", "content": reply.text},
    ]
    return make_row(
        messages,
        "dialogue",
        story=story.id,
        tier=reply.tier,
        span=[reply.start, reply.end],
        scene=f"{story.id}#{sum(start <= reply.start for start in scenes) - 1}",
        **meta,
    )


def scene_starts(text: str) -> list[int]:
    """Offsets at which scenes begin.

    Paragraphs are gathered until a scene has 400 words; a short rest joins the last one.
    """
    starts, count, position = [0], 0, 0
    for paragraph in text.split("\n\n"):
        if count >= SCENE_WORDS:
            starts.append(position)
            count = 0
        count += len(paragraph.split())
        position += len(paragraph) + 2
    if count < SCENE_WORDS and len(starts) > 1:
        starts.pop()
    return starts


def chunk_rows(story: Story, card: Card, size: int = 500, overlap: int = 50) -> list[Row]:
    """Passages of the narrator's as the assistant's turn.

    About `size` characters each, cut at sentence ends, `overlap` shared. A persona who is the narrator gets
    only what he tells himself: no passage that another teller's part touches, none that is mostly speech.
    """
    own = card.narrator_is_persona
    elsewhere = told_by_others(story, card) if own else []
    speech = [(s.start, s.end) for p in paragraphs(story.text) for s in p.spans] if own else []
    ends = [m.end() for m in re.finditer(r"[.!?][\"')]*(?=\s)", story.text)] + [len(story.text)]
    rows, start = [], 0
    while start < len(story.text):
        end = max((e for e in ends if start < e <= start + size), default=min(e for e in ends if e > start))
        passage = " ".join(story.text[start:end].split())
        told = not _shared(start, end, elsewhere) and 2 * _shared(start, end, speech) <= end - start
        if told and len(metrics.words(passage)) >= MIN_REPLY_WORDS:
            messages = [
                {"role": "system", "content": card.system_prompt},
                {
                    "role": "user",
                    "content": "Pray begin your account." if start == 0 else "Pray go on with your account.",
                },
                {"role": "assistant", "content": passage},
            ]
            rows.append(make_row(messages, "chunk", story=story.id, span=[start, end]))
        if end == len(story.text):
            break
        # go back only where the passage from there reaches beyond this one's end
        overlapping = [
            e for e in ends if end - overlap <= e < end and any(end < later <= e + size for later in ends)
        ]
        back = min(overlapping, default=end)
        start = back + len(story.text[back:]) - len(story.text[back:].lstrip())
    return rows


def _shared(start: int, end: int, ranges: Iterable[tuple[int, int]]) -> int:
    """How many characters of `start:end` lie in ranges that do not overlap one another."""
    return sum(max(0, min(end, b) - max(start, a)) for a, b in ranges)


def curated_rows(card: Card) -> dict[str, list[Row]]:
    """Curated rows by split.

    A topic is in one split alone, as the card's [curated] lists say (train where they say nothing). A row's
    "also" holds other wordings of its first turn: each makes a row with the same answer.
    """
    path = card.folder / "curated.jsonl"
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8") as lines:
        for raw in parse_rows(lines, str(path), fields=("topic", "kind")):
            split = next(
                (s for s in ("validation", "test") if raw["topic"] in card.curated_topics.get(s, ())), "train"
            )
            system, first, *rest = {"role": "system", "content": card.system_prompt}, *raw["messages"]
            strategy = "guard" if raw["kind"] == "guard" else "curated"
            for words in (first["content"], *raw.get("also", ())):
                messages = [system, {**first, "content": words}, *rest]
                found[split].append(make_row(messages, strategy, kind=raw["kind"], topic=raw["topic"]))
    return found
