"""From stories to rows: utterances, context, chunks, splits, near-duplicates, manifest, "up to date".

Who speaks is given here by hand, so that nothing depends on the attribution (tests/test_quotes.py).
"""

import contextlib
import json
import random
import re
import shutil
import signal
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import config
from persona import dataset, metrics, runlog, strategies
from persona.card import load_card
from persona.corpus import Chapter, Corpus, Story
from persona.dataset import leak_report, story_splits
from persona.errors import UserError
from persona.quotes import Quote
from persona.rows import answer_of, make_row, read_rows, row_id
from persona.strategies import chunk_rows, curated_rows, dialogue_rows, scene_starts, utterances

H, W, L = "Sherlock Holmes", "Dr. Watson", "Inspector Lestrade"


def quotes(
    text: str, *speakers: str | None, tiers: str = "", keep: str = "", addressees: str = ""
) -> list[Quote]:
    """The quotes of a text, spoken by `speakers` in order.

    `tiers`, `keep` ("yn"), `addressees` ("W", "L", or "-" for unknown): one for each.
    """
    found, at = [], 0
    for paragraph, line in enumerate(text.split("\n\n")):
        found += [(at + m.start(1), at + m.end(1), paragraph) for m in re.finditer(r'"([^"]*)(?:"|$)', line)]
        at += len(line) + 2
    assert len(found) == len(speakers), found
    tier_of = tiers.split() or ["explicit"] * len(found)
    kept = [letter == "y" for letter in keep] or [True] * len(found)
    said_to = [{"W": W, "L": L, "-": None}[a] for a in addressees.split()] or [None] * len(found)
    return [
        Quote(start, end, text[start:end], who, whom, tier, 1.0, good, paragraph)
        for (start, end, paragraph), who, whom, tier, good in zip(
            found, speakers, said_to, tier_of, kept, strict=True
        )
    ]


def story(text: str, name: str = "a-story") -> Story:
    return Story(name, name, text, (Chapter("", "", 0, len(text)),), f"{name}.txt")


@contextlib.contextmanager
def at_most(seconds: int):
    """Fail in place of running forever."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Utterances


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ('"Come," said Holmes, "sit down."', "Come, sit down."),
        ('"I see," said he. "You came by train."', "I see. You came by train."),
        ('"Come," said Holmes.', "Come."),
        ('"Really?" said he. "Then go."', "Really? Then go."),
        ('"You are," said he, "I presume, a doctor."', "You are, I presume, a doctor."),
        ('"I think," said he; "it rains."', "I think, it rains."),
        ('"It is--" He stopped. "No."', "It is-- No."),
        ('"One," said he, "two," said he, "three," said he. "Four," he said.', "One, two, three. Four."),
        ('"I see," said he. "you came   by\ntrain."', "I see, you came by train."),
        ('"I see," said Mr. Holmes, looking up. "Tell me."', "I see. Tell me."),
    ],
)
def test_what_one_person_says_in_a_paragraph_is_joined_without_the_narration(text, joined):
    found = quotes(text, *[H] * (text.count('"') // 2))
    assert [u.text for u in utterances(text, found)] == [joined]
    [one] = utterances(text, found)
    assert (one.speaker, one.keep, one.start, one.end) == (H, True, found[0].start, found[-1].end)


def test_two_speakers_in_a_paragraph_and_two_paragraphs_of_one_speaker_stay_apart():
    text = '"Is it he?" said I. "It is," said Holmes.\n\n"Come now," said Holmes.'
    assert [(u.speaker, u.text) for u in utterances(text, quotes(text, W, H, H))] == [
        (W, "Is it he?"),
        (H, "It is."),
        (H, "Come now."),
    ]


@pytest.mark.parametrize("tier", ["monologue", "continuation"])
def test_a_speech_that_runs_over_paragraphs_is_one_utterance(tier):
    text = (
        '"It began in May,\n\n"and it ended in June.\n\n"That is all," said he.\n\n"Thank you," said Holmes.'
    )
    found = utterances(text, quotes(text, L, L, L, H, tiers=f"explicit {tier} {tier} explicit"))
    assert [(u.speaker, u.text) for u in found] == [
        (L, "It began in May. and it ended in June. That is all."),
        (H, "Thank you."),
    ]
    assert (
        text[found[0].start : found[0].end].startswith("It began")
        and found[0].end == text.index('," said he') + 1
    )


def test_words_that_nobody_speaks_are_left_out():
    text = 'The word "Rache" was there. "A name," said Holmes. It said "Rache." "Or not."'
    found = quotes(text, None, H, None, H, tiers="unspoken explicit unspoken explicit")
    assert [(u.speaker, u.text) for u in utterances(text, found)] == [(H, "A name. Or not.")]


def test_an_utterance_is_kept_if_all_of_it_is():
    text = '"Come," said he, "sit down."\n\n"No," said I.'
    assert [u.keep for u in utterances(text, quotes(text, H, H, W, keep="yny"))] == [False, True]


# Dialogue


@pytest.fixture
def rows_of():
    """`rows_of(text, *speakers)`: conversations with all their context as "u: ...", "a: ...".

    System turns are checked and left out. `variant=1`: the rows with one exchange of context less.
    """
    card = load_card("sherlock")

    def make(
        text: str,
        *speakers: str | None,
        context_turns: int = 3,
        raw: bool = False,
        variant: int = 0,
        **hints: str,
    ):
        found = dialogue_rows(story(text), card, quotes(text, *speakers, **hints), context_turns)
        rows = [r for r in found if r["meta"]["variant"] == variant]
        assert all(r["messages"][0] == {"role": "system", "content": card.system_prompt} for r in rows)
        return rows if raw else [[f"{m['role'][0]}: {m['content']}" for m in r["messages"][1:]] for r in rows]

    return make


TALK = (
    '"What do you make of it?" I asked.\n\n"It is a pretty problem," said Holmes.\n\n'
    '"And the hat?" said I.\n\n"The hat is everything," said he.'
)


def test_a_reply_has_the_turns_before_it_as_context(rows_of):
    first = ["u: What do you make of it?", "a: It is a pretty problem."]
    assert rows_of(TALK, W, H, W, H) == [first, [*first, "u: And the hat?", "a: The hat is everything."]]


def test_context_begins_with_somebody_else_and_has_at_most_so_many_turns(rows_of):
    for turns in (1, 2):  # a second turn would be Holmes's own, with nothing before it
        assert rows_of(TALK, W, H, W, H, context_turns=turns)[1] == [
            "u: And the hat?",
            "a: The hat is everything.",
        ]


def test_a_reply_with_a_longer_context_is_offered_with_less_of_it_too(rows_of):
    assert rows_of(TALK, W, H, W, H, variant=1) == [["u: And the hat?", "a: The hat is everything."]]
    assert rows_of(TALK, W, H, W, H, variant=2) == []


LONG_TALK = (
    '"The hat was found at noon. It is old. What do you make of such a hat?" I asked.\n\n'
    '"It is a pretty problem," said Holmes.'
)


def test_a_reply_to_a_long_speech_is_offered_with_its_last_words_alone(rows_of):
    assert rows_of(LONG_TALK, W, H, variant=1) == [
        ["u: What do you make of such a hat?", "a: It is a pretty problem."]
    ]
    assert rows_of(LONG_TALK, W, H)[0][0].startswith("u: The hat was found at noon.")


@pytest.mark.parametrize(
    ("speech", "words"),
    [
        ("The hat was found at noon. What do you make of it?", "What do you make of it?"),  # six words
        ("The hat was found at noon. And now? What then?", None),  # five, and the rest leans
        ("Harding is a clerk. He lives alone in the old house.", None),  # who lives?
        ("I sent for the clerk. Do you think that he will come?", None),
        ("What do you make of the hat?", None),  # all of it
    ],
)
def test_last_words_lean_on_nothing_before_them(speech, words):
    assert strategies.last_words(speech) == words


@pytest.mark.parametrize(
    "reply",
    ["There he is at last!", "Hush! Not a sound.", "Quick, the door!", "I suspect that the man was--"],
)
def test_a_reply_that_points_at_the_scene_or_is_cut_short_makes_no_row(rows_of, reply):
    assert rows_of(f'"What do you make of it?" I asked.\n\n"{reply}" said Holmes.', W, H) == []


def test_a_long_reply_may_point_at_the_scene(rows_of):
    reply = "Look at the facts in their order, Watson, and you will see that only one man could have come in."
    assert len(rows_of(f'"What do you make of it?" I asked.\n\n"{reply}" said Holmes.', W, H)) == 1


def test_a_reply_to_somebody_else_than_who_has_just_spoken_makes_no_row(rows_of):
    text = '"I shall go home," said Lestrade.\n\n"It is a strange case, Watson," said Holmes.'
    assert rows_of(text, L, H, addressees="- W") == []
    assert len(rows_of(text, L, H, addressees="- L")) == len(rows_of(text, L, H)) == 1


def test_a_row_says_where_it_comes_from(rows_of):
    row = rows_of(TALK, W, H, W, H, tiers="explicit pronoun explicit alternation", raw=True)[1]
    start = TALK.index("The hat is")
    assert row["meta"] == {
        "strategy": "dialogue",
        "story": "a-story",
        "tier": "alternation",
        "span": [start, start + len("The hat is everything,")],
        "teacher": None,
        "scene": "a-story#0",
        "variant": 0,
    }
    assert row["id"] == row_id(row["messages"])


def test_a_reply_needs_somebody_elses_speech_close_before_it(rows_of):
    ask, reply = '"What do you make of it?" I asked.', '"It is a pretty problem," said Holmes.'
    narration = "\n\nHe rose."
    assert rows_of(reply, H) == []
    for between, n in ((0, 1), (1, 1), (2, 1), (3, 0)):
        text = f"{ask}{narration * between}\n\n{reply}"
        assert len(rows_of(text, W, H)) == n, between
    # the same holds within the context
    text = f'"Well?" said Holmes.{narration * 3}\n\n{ask}\n\n{reply}'
    assert rows_of(text, H, W, H) == [["u: What do you make of it?", "a: It is a pretty problem."]]


def test_a_long_speech_is_as_close_to_the_question_as_its_first_paragraph(rows_of):
    parts = [f'"Part {i} of the matter is plain.' for i in range(5)]
    text = (
        '"What do you make of it?" I asked.\n\n'
        + "\n\n".join(parts)
        + '"\n\n"And the hat?" I asked.\n\n"It is his hat," said he.'
    )
    tiers = "explicit " + "monologue " * 5 + "explicit explicit"
    found = rows_of(text, W, *[H] * 5, W, H, tiers=tiers)
    speech = " ".join(f"Part {i} of the matter is plain." for i in range(5))
    first = ["u: What do you make of it?", f"a: {speech}"]
    assert found == [first, [*first, "u: And the hat?", "a: It is his hat."]]


def test_short_or_doubtful_replies_make_no_row(rows_of):
    assert rows_of('"Is it he?" said I.\n\n"It is," said Holmes.', W, H) == []  # two words
    assert rows_of(TALK, W, H, W, H, keep="ynyy") == [["u: And the hat?", "a: The hat is everything."]]


def test_two_speeches_of_one_side_end_the_context(rows_of):
    text = (
        '"I saw it," said Lestrade.\n\n"And I," said I.\n\n"Then we are three," said Holmes.\n\n"It was he."'
    )
    assert rows_of(text, L, W, H, H) == [["u: And I.", "a: Then we are three."]]


def test_an_unknown_speaker_may_ask_but_is_never_the_persona(rows_of):
    text = '"Who is there at the door?"\n\n"It is only the wind," said Holmes.\n\n"I do not think so, sir."'
    assert rows_of(text, None, H, None) == [["u: Who is there at the door?", "a: It is only the wind."]]


# Scenes


def paragraph(n_words: int) -> str:
    return " ".join(["word"] * n_words)


def test_a_scene_has_400_words_and_a_short_rest_joins_the_last():
    sizes = [300, 100, 50, 400, 10]
    text = "\n\n".join(map(paragraph, sizes))
    assert scene_starts(text) == [0, len(paragraph(300)) + len(paragraph(100)) + 4]
    assert scene_starts("\n\n".join([text, paragraph(390)]))[2:] == [text.rindex("\n\n") + 2]
    assert scene_starts(paragraph(399)) == [0]
    assert scene_starts(paragraph(4000)) == [0]  # a paragraph is not cut


def test_replies_are_numbered_by_scene(rows_of):
    text = "\n\n".join([paragraph(400), TALK, paragraph(500), TALK, paragraph(400)])
    assert [r["meta"]["scene"] for r in rows_of(text, *[W, H] * 4, raw=True)] == [
        *["a-story#1"] * 2,  # the first 400 words are a scene
        *["a-story#2"] * 2,
    ]


# Chunks


def passages(text: str, **settings: int) -> list[tuple[list[int], str]]:
    with at_most(5):
        rows = chunk_rows(story(text), load_card("sherlock"), **settings)
    return [(r["meta"]["span"], answer_of(r)) for r in rows]


def sentences(*lengths: int) -> str:
    """Sentences of so many characters, full stop included, a space between."""
    return " ".join(("go on " * n)[: n - 2].strip().ljust(n - 2, "n") + "n." for n in lengths)


def test_a_passage_ends_with_the_last_sentence_within_500_characters():
    text = sentences(*[100] * 9)  # ends at 100, 201, 302, 403, 504 ...
    assert passages(text) == [
        ([0, 403], text[:403]),
        ([404, 807], text[404:807]),
        ([808, 908], text[808:]),
    ]


def test_passages_share_the_sentences_of_their_last_50_characters():
    text = sentences(*[40] * 24)  # ends at 40, 81, ... 491, 532 ...
    assert [span for span, _ in passages(text)] == [[0, 491], [451, 942], [902, 983]]
    text = sentences(
        *[20] * 40
    )  # ends at 20, 41, ... 440, 461, 482, 503 ...: two sentences lie in the last 50
    assert [span for span, _ in passages(text)] == [[0, 482], [441, 839]]
    assert [span for span, _ in passages(text, size=250, overlap=0)][:2] == [[0, 230], [231, 461]]


def test_a_sentence_longer_than_a_passage_stays_whole():
    text = sentences(700, 100, 600)
    assert [span for span, _ in passages(text)] == [[0, 700], [701, 801], [802, 1402]]


def test_short_sentences_before_a_very_long_one_do_not_stop_the_work():
    text = sentences(12, 30, 700, 100)
    found = passages(text)
    assert found[0][0] == [0, 43]
    assert found[-1][0][1] == len(text)
    assert [text[a:b] for (a, b), _ in found if b - a > 500] == [text[44:744]]


def test_abbreviated_marks_and_line_breaks_are_handled_as_text():
    text = 'He said "Stop here now!" Then he went. Was it 3.5 miles? (It was.)\n\nA new day came'
    assert passages(text, size=40, overlap=0) == [
        ([0, 38], 'He said "Stop here now!" Then he went.'),
        ([39, 66], "Was it 3.5 miles? (It was.)"),
        ([68, 82], "A new day came"),
    ]


def test_the_narrator_is_asked_to_begin_and_then_to_go_on():
    rows = chunk_rows(story(sentences(*[100] * 9)), load_card("sherlock"))
    assert [r["messages"][1]["content"] for r in rows] == [
        "Pray begin your account.",
        "Pray go on with your account.",
        "Pray go on with your account.",
    ]
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[0]["meta"]["strategy"] == "chunk" and rows[0]["meta"]["story"] == "a-story"


def test_chunks_of_a_story_cover_it_and_end_with_sentences():
    from persona.corpus import clean

    path = config.CORPORA / "embedded" / "the-chalk-horse.txt"
    [one] = clean(path.read_text(encoding="utf-8"), path.name, None)[0]
    with at_most(20):
        spans = [r["meta"]["span"] for r in chunk_rows(one, load_card("sherlock"))]
    assert spans[0][0] == 0 and spans[-1][1] == len(one.text)
    for (start, end), (following, _) in pairwise(spans):
        assert start < following <= end + 2
        assert not one.text[end:following].strip()
        assert re.search(r"[.!?][\"')]*$", one.text[start:end])


# Curated rows


@pytest.fixture
def persona(tmp_path) -> Path:
    """A persona's folder: Holmes with a few curated rows, a topic each for validation and test."""
    folder = tmp_path / "persona" / "holmes"
    folder.mkdir(parents=True)
    (folder / "persona.toml").write_text(
        'name = "holmes"\ndisplay_name = "Sherlock Holmes"\naliases = ["Holmes"]\n'
        'system_prompt = "Be Holmes."\nera = [1854, 1914]\nlexicon = ["pray"]\n'
        '[curated]\nvalidation = ["tea"]\ntest = ["hats"]\n[corpora]\n',
        encoding="utf-8",
    )
    write_curated(folder, ["violins", "tea", "hats", "phones"])
    return folder


def write_curated(folder: Path, topics: list[str]) -> None:
    text = {
        "violins": (
            "Do you play any instrument at all?",
            "The violin, and at hours that my friend deplores.",
        ),
        "tea": (
            "Will you take something warm to drink?",
            "Mrs. Hudson has just brought up the tray, thank you.",
        ),
        "hats": (
            "Whose hat lies upon your table, sir?",
            "It belonged to a man who has come down in the world.",
        ),
        "phones": (
            "What is a mobile telephone, in your opinion?",
            "I know of no such contrivance; describe it to me.",
        ),
        "dogs": (
            "Why did nobody hear the dog last night?",
            "Because the animal knew its visitor very well indeed.",
        ),
    }
    lines = [
        json.dumps(
            {
                "kind": "guard" if topic == "phones" else "knowledge",
                "topic": topic,
                "messages": [
                    {"role": "user", "content": text[topic][0]},
                    {"role": "assistant", "content": text[topic][1]},
                ],
            }
        )
        for topic in topics
    ]
    (folder / "curated.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_curated_rows_are_split_by_topic_and_guards_are_told_apart(persona):
    found = curated_rows(load_card(str(persona)))
    meta = {
        split: [(r["meta"]["topic"], r["meta"]["kind"], r["meta"]["strategy"]) for r in rows]
        for split, rows in found.items()
    }
    assert meta == {
        "train": [("violins", "knowledge", "curated"), ("phones", "guard", "guard")],
        "validation": [("tea", "knowledge", "curated")],
        "test": [("hats", "knowledge", "curated")],
    }
    assert found["test"][0]["messages"] == [
        {"role": "system", "content": "Be Holmes."},
        {"role": "user", "content": "Whose hat lies upon your table, sir?"},
        {"role": "assistant", "content": "It belonged to a man who has come down in the world."},
    ]
    assert found["test"][0]["meta"]["story"] is None


def test_other_wordings_of_a_question_make_rows_with_the_same_answer(persona):
    row = {"topic": "tea", "kind": "knowledge", "also": ["Tea, sir?", "A cup?"]}
    row["messages"] = [
        {"role": "user", "content": "Will you have tea?"},
        {"role": "assistant", "content": "Gladly."},
        {"role": "user", "content": "Milk?"},
        {"role": "assistant", "content": "Never."},
    ]
    (persona / "curated.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = curated_rows(load_card(str(persona)))["validation"]
    assert [[m["content"] for m in r["messages"][1:]] for r in found] == [
        [first, "Gladly.", "Milk?", "Never."] for first in ("Will you have tea?", "Tea, sir?", "A cup?")
    ]


def test_a_persona_without_curated_rows_has_none(persona):
    (persona / "curated.jsonl").unlink()
    assert curated_rows(load_card(str(persona))) == {"train": [], "validation": [], "test": []}


@pytest.mark.parametrize("lacking", ["topic", "kind", "messages"])
def test_a_curated_row_that_lacks_a_field_is_named_by_line(persona, lacking):
    rows = [json.loads(x) for x in (persona / "curated.jsonl").read_text(encoding="utf-8").splitlines()]
    del rows[2][lacking]
    (persona / "curated.jsonl").write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(UserError, match=rf"curated\.jsonl, line 5: .*{lacking}"):
        curated_rows(load_card(str(persona)))


# Splits


def splits_of(*ids: str) -> dict[str, str]:
    return story_splits("letters", [story("x", i) for i in ids], load_card("sherlock"))


def test_the_card_decides_for_the_stories_that_it_names_in_any_corpus():
    assert splits_of(
        "silver-blaze", "the-naval-treaty", "the-adventure-of-the-night-mail", "my-own-story"
    ) == {
        "silver-blaze": "test",
        "the-naval-treaty": "validation",
        "the-adventure-of-the-night-mail": "test",
        "my-own-story": "train",
    }


def test_without_named_stories_the_last_tenth_tests_and_the_tenth_before_validates():
    assert splits_of("c", "a", "b") == {"a": "train", "b": "validation", "c": "test"}
    ids = [f"s{i:02}" for i in range(25)]
    held = dict.fromkeys(ids[21:23], "validation") | dict.fromkeys(ids[23:], "test")
    assert splits_of(*random.Random(1).sample(ids, 25)) == dict.fromkeys(ids, "train") | held


def test_too_few_stories_or_none_to_train_on_are_refused():
    for ids in (("a",), ("a", "b")):
        with pytest.raises(UserError, match=f"corpus letters has {len(ids)} stories .* three are needed"):
            splits_of(*ids)
    with pytest.raises(UserError, match="every story is held out by the card, nothing is left to train on"):
        splits_of("silver-blaze", "the-naval-treaty")


def in_chapters(name: str, **texts: str) -> Story:
    """A story of the given chapters; "_" in a name is a hyphen, "__" a slash."""
    chapters, at = [], 0
    for chapter, text in texts.items():
        chapters.append(Chapter(chapter.replace("__", "/").replace("_", "-"), "", at, at + len(text)))
        at += len(text) + 2
    return Story(name, name, "\n\n".join(texts.values()), tuple(chapters), f"{name}.txt")


def test_three_stories_are_split_whole_and_fewer_by_chapter():
    novel = in_chapters("styles", chapter_1="One.", chapter_2="Two two.", chapter_3="Three.")
    other = in_chapters("links", part_1="Four.")
    for stories, expected in (
        ([novel], [("chapter-1", "One."), ("chapter-2", "Two two."), ("chapter-3", "Three.")]),
        (
            [novel, other],
            [
                ("styles/chapter-1", "One."),
                ("styles/chapter-2", "Two two."),
                ("styles/chapter-3", "Three."),
                ("links/part-1", "Four."),
            ],
        ),
        ([novel, other, story("Five.")], [("styles", novel.text), ("links", "Four."), ("a-story", "Five.")]),
    ):
        units = dataset.units_of(Corpus("letters", tuple(stories), (), {}))
        assert [(u.id, u.text) for u in units] == expected


NOT_WATSON = [
    # id, chapters, is all of it told by somebody else, replies kept of two a chapter (one by a pronoun)
    ("a-study-in-scarlet", ("part-1/chapter-1", "part-2/chapter-1", "part-2/chapter-2"), False, (2, 1, 1)),
    ("the-gloria-scott", ("",), True, (1,)),
    ("silver-blaze", ("part-1/chapter-1", "part-2/chapter-1"), False, (2, 2)),
    ("a-study-in-scarlet/part-1/chapter-1", ("",), False, (2,)),  # a chapter that is split by itself
    ("a-study-in-scarlet/part-2/chapter-1", ("",), True, (1,)),
]


@pytest.mark.parametrize(("name", "chapters", "whole", "kept"), NOT_WATSON, ids=[n for n, *_ in NOT_WATSON])
def test_where_somebody_else_tells_the_tale_only_replies_tagged_by_name_count(
    monkeypatch, name, chapters, whole, kept
):
    asked = []

    def attribute(text, card, other_narrator=False):
        asked.append(other_narrator)
        n = len(chapters)
        return quotes(text, *[W, H, W, H] * n, tiers="explicit explicit explicit pronoun " * n)

    monkeypatch.setattr(strategies, "attribute", attribute)
    one = in_chapters(name, **dict.fromkeys((c.replace("/", "__").replace("-", "_") for c in chapters), TALK))
    card = load_card("sherlock")
    rows = [
        r for r in dialogue_rows(one, card, strategies.quotes_of(one, card), 3) if not r["meta"]["variant"]
    ]
    assert asked == [whole]
    places = [r["meta"]["span"][0] for r in rows]
    assert tuple(sum(c.start <= at < c.end for at in places) for c in one.chapters) == kept


# Leaks


def prose(seed: int, n: int = 60) -> str:
    """So many made-up words, different ones for each seed."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choice("aeioubdfgklmnprst") for _ in range(7)) for _ in range(n))


def row(question: str, answer: str, system: str = "Be Holmes."):
    roles = ("system", "user", "assistant")
    return make_row(
        [{"role": r, "content": c} for r, c in zip(roles, (system, question, answer), strict=True)],
        "dialogue",
    )


def test_the_leak_report_counts_eight_grams_of_held_out_answers_in_training_answers():
    eight = "one two three four five six seven eight"
    rows = {
        "train": [
            make_row(
                [
                    {"role": "user", "content": "a b c d e f g h"},  # questions do not count
                    {"role": "assistant", "content": eight},
                    {"role": "user", "content": "And?"},
                    {"role": "assistant", "content": "Quite so."},
                ],
                "dialogue",
            )
        ],
        "validation": [row("x", "a b c d e f g h")],
        "test": [
            row("x", f"{eight.upper()}, nine."),
            row("x", eight),
            row("x", "Quite so."),
            row("x", f"Nine {eight[4:]}"),
        ],
    }
    assert leak_report(rows) == {
        "validation": {"rows": 1, "mean": 0.0, "max": 0.0},
        "test": {"rows": 4, "mean": (0.5 + 1 + 0 + 0) / 4, "max": 1.0},
    }
    assert leak_report({"train": [], "validation": [], "test": []})["test"] == {
        "rows": 0,
        "mean": 0.0,
        "max": 0.0,
    }


# The whole data set


def tell(seed: int, speaker: str = "Holmes") -> str:
    """Six questions of Watson's with an answer each, in made-up words."""
    parts = []
    for i in range(6):
        parts += [
            f'"{prose(1000 * seed + i, 9)}?" asked Watson.',
            f'"{prose(1000 * seed + 500 + i, 12)}," said {speaker}.',
        ]
    return "\n\n".join(parts)


def by_tag(text: str, card, other_narrator: bool = False) -> list[Quote]:
    tags = [
        H if tag == "said Holmes" else W if tag == "asked Watson" else L
        for tag in re.findall(r"(?:said|asked) \w+", text)
    ]
    return quotes(text, *tags)


@pytest.fixture
def texts(tmp_path, monkeypatch) -> Path:
    """A folder of five stories whose tags say who speaks."""
    monkeypatch.setattr(strategies, "attribute", by_tag)
    folder = tmp_path / "letters"
    folder.mkdir()
    for seed, name in enumerate(("alpha", "beta", "gamma", "delta", "epsilon"), 1):
        (folder / f"{name}.txt").write_text(tell(seed), encoding="utf-8")
    return folder


def data(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in dataset.FILES}


def test_a_data_set_is_made_whole(persona, texts, tmp_path):
    out = tmp_path / "out"
    manifest = dataset.build(load_card(str(persona)), str(texts), out)
    assert sorted(p.name for p in out.iterdir()) == sorted(dataset.FILES)
    rows = {split: read_rows(out / f"{split}.jsonl") for split in dataset.SPLITS}
    # five stories of six replies, the last two in the order of their names held out; curated rows by topic
    # all but a story's first reply with a shorter context, too
    assert {s: {"rows": len(r), **Counter(x["meta"]["strategy"] for x in r)} for s, r in rows.items()} == {
        "train": {"rows": 35, "dialogue": 33, "curated": 1, "guard": 1},
        "validation": {"rows": 12, "dialogue": 11, "curated": 1},
        "test": {"rows": 12, "dialogue": 11, "curated": 1},
    }
    stories = {s: {x["meta"]["story"] for x in r} - {None} for s, r in rows.items()}
    assert stories == {"train": {"alpha", "beta", "delta"}, "validation": {"epsilon"}, "test": {"gamma"}}
    for split in rows:
        for one in rows[split]:
            assert set(one) == {"id", "messages", "meta"} and one["id"] == row_id(one["messages"])
            assert one["messages"][0] == {"role": "system", "content": "Be Holmes."}
            assert {"strategy", "story", "tier", "span", "teacher"} <= set(one["meta"])

    assert manifest == json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["counts"]["train"] == {"rows": 35, "dialogue": 33, "curated": 1, "guard": 1}
    assert manifest["distinct_answers"] == {"train": 20, "validation": 7, "test": 7}
    assert manifest["stories"]["gamma"] == {"split": "test", "dialogue": 11}
    assert manifest["stories"]["(none)"] == {"split": "by topic", "curated": 3, "guard": 1}
    assert manifest["settings"] == {
        "strategies": ["dialogue", "curated"],
        "context_turns": 3,
        "rows": None,
        "quality": False,
        "trace": True,
        "teacher": None,
        "passages_per_story": None,
        "seed": 42,
    }
    assert (manifest["persona"], manifest["corpus"], manifest["version"]) == (
        "holmes",
        "letters",
        config.VERSION,
    )
    assert manifest["removed"] == {}
    assert manifest["figures"]["rows"] == 59 and manifest["figures"]["most_rows_an_answer"] == 2
    assert manifest["leak_report"]["test"] == {"rows": 12, "mean": 0.0, "max": 0.0}
    import hashlib

    for name, digest in manifest["files_sha256"].items():
        assert digest == runlog.sha256_of(out / name)
    assert manifest["sources_sha256"]["alpha.txt"] == hashlib.sha256(tell(1).encode()).hexdigest()

    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage: en\n")
    assert "| train | 35 | 1 | 33 | 1 | 20 |" in card  # curated, dialogue, guard
    assert "> **assistant**: The violin, and at hours that my friend deplores." in card


def test_the_same_seed_gives_the_same_bytes_and_another_one_the_same_rows_in_another_order(
    persona, texts, tmp_path
):
    card = load_card(str(persona))
    for name, seed in (("a", 42), ("b", 42), ("c", 7)):
        dataset.build(card, str(texts), tmp_path / name, seed=seed)
    a, b, c = (data(tmp_path / name) for name in "abc")
    assert a == b
    assert a["train.jsonl"] != c["train.jsonl"]
    assert sorted(a["train.jsonl"].splitlines()) == sorted(c["train.jsonl"].splitlines())
    kinds = [r["meta"]["strategy"] for r in read_rows(tmp_path / "a" / "train.jsonl")]
    assert kinds != sorted(kinds, key=["dialogue", "curated", "guard"].index)  # shuffled


def test_rows_of_another_kind_do_not_change_the_order_of_the_rest(persona, texts, tmp_path):
    card = load_card(str(persona))
    for name, kinds in (("a", ("dialogue",)), ("b", ("dialogue", "curated"))):
        dataset.build(card, str(texts), tmp_path / name, strategies=kinds)
    alone, among = (
        [r["id"] for r in read_rows(tmp_path / n / "train.jsonl") if r["meta"]["strategy"] == "dialogue"]
        for n in "ab"
    )
    assert alone == among and len(alone) == 33


def test_first_questions_come_first_and_dialogue_yields_second_ones():
    def placed(strategy: str, variant: int) -> dict:
        made = row(f"{strategy} {variant}?", prose(1))
        made["meta"] |= {"strategy": strategy, "variant": variant}
        return made

    rows = [placed(s, v) for v in (2, 0, 1) for s in ("qa", "dialogue", "narrative")]
    order = [(r["meta"]["variant"], r["meta"]["strategy"]) for r in sorted(rows, key=dataset.preference)]
    second = ["qa", "narrative", "dialogue"]
    assert order == [
        *((0, s) for s in ("dialogue", "narrative", "qa")),
        *((1, s) for s in second),
        *((2, s) for s in second),
    ]


def test_strategies_choose_what_is_made(persona, texts, tmp_path):
    card = load_card(str(persona))
    manifest = dataset.build(card, str(texts), tmp_path / "a", strategies=("chunk",))
    assert {k for c in manifest["counts"].values() for k in c} == {"rows", "chunk"}
    # stories of 6 x (9 + 12) words of seven letters: about 1,200 characters, three passages each
    assert all(n["chunk"] in (3, 6, 9) for n in manifest["counts"].values())
    manifest = dataset.build(card, str(texts), tmp_path / "b", strategies=("dialogue",), context_turns=1)
    assert manifest["counts"]["train"] == {"rows": 18, "dialogue": 18}
    assert {len(r["messages"]) for r in read_rows(tmp_path / "b" / "train.jsonl")} == {3}


def test_so_many_rows_as_are_asked_for_the_best_first_and_no_padding(persona, texts, tmp_path):
    card = load_card(str(persona))
    manifest = dataset.build(card, str(texts), tmp_path / "a", rows=34)
    # 59 rows: 35, 12, 12; those with all their context (34 with the curated ones) come first
    assert {s: c["rows"] for s, c in manifest["counts"].items()} == {"train": 20, "validation": 7, "test": 7}
    rows = [r for s in dataset.SPLITS for r in read_rows(tmp_path / "a" / f"{s}.jsonl")]
    assert not any(r["meta"].get("variant") for r in rows)
    assert manifest["removed"]["train: more than were asked for"] == 15
    manifest = dataset.build(card, str(texts), tmp_path / "b", rows=5000)
    assert manifest["figures"]["rows"] == 59 and manifest["removed"] == {}


def test_quality_keeps_the_best_tiers_and_one_question_an_answer(persona, texts, tmp_path, monkeypatch):
    def doubtful(text, card, other_narrator=False):
        found = by_tag(text, card)
        return [replace(q, tier="alternation") if i % 4 == 3 else q for i, q in enumerate(found)]

    monkeypatch.setattr(strategies, "attribute", doubtful)  # every other reply of Holmes's
    manifest = dataset.build(load_card(str(persona)), str(texts), tmp_path / "a", quality=True)
    assert manifest["counts"]["train"] == {"rows": 11, "dialogue": 9, "curated": 1, "guard": 1}
    rows = read_rows(tmp_path / "a" / "train.jsonl")
    assert {(r["meta"]["tier"], r["meta"].get("variant", 0)) for r in rows} == {("explicit", 0), (None, 0)}


def test_quality_keeps_the_deductions_that_were_marked_by_hand():
    marked = row("How?", prose(1))
    marked["meta"] |= {"strategy": "reasoning", "tier": "marked"}
    rows = {"train": [marked], "validation": [], "test": []}
    assert dataset.select(rows, None, quality=True) == {}
    assert rows["train"] == [marked]


@pytest.mark.parametrize(
    "settings", [{"strategies": ("dialogue", "poems")}, {"context_turns": 0}, {"context_turns": -1}]
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_written(
    persona, texts, tmp_path, settings
):
    with pytest.raises(
        UserError, match="context" if "context_turns" in settings else "unknown strategy 'poems'"
    ):
        dataset.build(load_card(str(persona)), str(texts), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("curated", [False, True], ids=["dialogue", "dialogue-and-curated"])
def test_a_corpus_in_which_the_persona_never_speaks_is_refused(persona, texts, tmp_path, curated):
    for seed, path in enumerate(sorted(texts.iterdir()), 1):
        path.write_text(tell(seed, speaker="Lestrade"), encoding="utf-8")
    strategies = ("dialogue", "curated") if curated else ("dialogue",)
    with pytest.raises(UserError, match=r"corpus letters: .*Sherlock Holmes"):
        dataset.build(load_card(str(persona)), str(texts), tmp_path / "out", strategies=strategies)
    assert not (tmp_path / "out").exists()


def test_a_held_out_split_without_rows_is_refused(persona, texts, tmp_path):
    (texts / "gamma.txt").write_text(tell(3, speaker="Lestrade"), encoding="utf-8")
    with pytest.raises(UserError, match="no rows for test"):
        dataset.build(load_card(str(persona)), str(texts), tmp_path / "out", strategies=("dialogue",))


# Up to date?


@pytest.fixture
def made(persona, texts, tmp_path):
    """`made(**settings)` ensures the data set in tmp_path/out and says whether it was made now."""

    def ensure(**settings) -> bool:
        manifest, now = dataset.ensure(load_card(str(persona)), str(texts), tmp_path / "out", **settings)
        assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
        return now

    return ensure


def test_an_up_to_date_data_set_is_left_alone(made, tmp_path):
    assert made(seed=1)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()}
    assert not made(seed=1)
    assert before == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()}
    assert made(seed=1, force=True)


@pytest.mark.parametrize("name", dataset.FILES)
def test_a_missing_file_is_made_again(made, tmp_path, name):
    made()
    before = data(tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    assert made() and not made()
    assert data(tmp_path / "out") == before


def test_a_changed_data_file_is_made_again(made, tmp_path):
    made()
    before = data(tmp_path / "out")
    path = tmp_path / "out" / "validation.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    assert made() and not made()
    assert data(tmp_path / "out") == before


def test_a_changed_or_new_source_curated_row_or_card_makes_it_again(made, persona, texts, tmp_path):
    made()
    (texts / "alpha.txt").write_text(tell(77), encoding="utf-8")
    assert made() and not made()
    assert prose(77_000, 9) in (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8")
    (texts / "beta-2.txt").write_text(tell(78), encoding="utf-8")
    assert made() and not made()
    write_curated(persona, ["violins", "tea", "hats", "dogs"])
    assert made() and not made()
    path = persona / "persona.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("Be Holmes.", "Be Sherlock."), encoding="utf-8")
    assert made() and not made()
    assert '"Be Sherlock."' in (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8")


def test_changed_settings_make_it_again(made):
    assert made(seed=1)
    assert made(seed=2)
    assert made(seed=2, context_turns=1)
    assert not made(seed=2, context_turns=1)


def test_an_interrupted_build_is_made_again(made, tmp_path, monkeypatch):
    made(seed=1)
    monkeypatch.setattr(runlog, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        made(seed=2)
    monkeypatch.undo()
    monkeypatch.setattr(strategies, "attribute", by_tag)
    assert made(seed=2) and not made(seed=2)


MODULES = (
    "corpus",
    "quotes",
    "attribution",
    "mentions",
    "spans",
    "card",
    "dataset",
    "strategies",
    "metrics",
    "rows",
)


@pytest.mark.parametrize("module", MODULES)
def test_changed_code_that_decides_what_the_rows_are_makes_it_again(
    persona, texts, tmp_path, monkeypatch, module
):
    shutil.copytree(config.ROOT / "persona", tmp_path / "checkout" / "persona")
    monkeypatch.setattr(config, "ROOT", tmp_path / "checkout")
    card = load_card(str(persona))
    before = dataset.inputs_sha256(card, str(texts), {})
    assert dataset.inputs_sha256(card, str(texts), {}) == before
    with (tmp_path / "checkout" / "persona" / f"{module}.py").open("a") as code:
        code.write("# changed\n")
    assert dataset.inputs_sha256(card, str(texts), {}) != before


def test_made_up_words_are_far_apart():
    # what the tests above rest on
    assert metrics.jaccard(prose(1), prose(2)) == 0.0
