"""Passages, the order of stories, search and its limits, prompts with passages, recall on real questions."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from persona import retrieval
from persona.card import CorpusCard, Source, load_card
from persona.chat import Sampling, Session, prompt_ids
from persona.corpus import Chapter, Story, load_corpus
from persona.errors import UserError
from persona.headings import core
from persona.retrieval import Passage, Retriever, augment, cite, cut, in_order
from persona.scoring import Item
from persona.systems import with_corpus

pytest.importorskip("bm25s")

SHERLOCK = load_card("sherlock")
QUESTIONS = [
    json.loads(line)
    for line in (SHERLOCK.folder / "retrieval.jsonl").read_text(encoding="utf-8").splitlines()
]


def story(name: str, *chapters: str) -> Story:
    text, spans = "", []
    for i, chapter in enumerate(chapters):
        spans.append(Chapter(f"chapter-{i + 1}", "", len(text), len(text) + len(chapter)))
        text += f"{chapter}\n\n"
    return Story(name, name.replace("-", " ").title(), text.rstrip(), tuple(spans), "book.txt")


def sentence(words: int, first: str = "Word") -> str:
    return " ".join([first, *["word"] * (words - 1)]) + "."


# --- passages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([30, 30, 30, 50], [90, 50]),  # the sentence that reaches 80 ends it
        ([50, 75, 60], [50, 75, 60]),  # 125 and 135 would be over 120
        ([30, 100], [130]),  # 30 are too few to stand alone
        ([90, 39], [129]),  # a rest of under 40 joins the one before
        ([90, 40], [90, 40]),
        ([150, 90], [150, 90]),
        ([10], [10]),
    ],
)
def test_passages_end_with_sentences_at_80_to_120_words(lengths, expected):
    one = story("a", " ".join(sentence(n) for n in lengths))
    assert [len(p.text.split()) for p in cut(one)] == expected


def test_passages_stay_within_chapters_and_nothing_is_lost():
    one = story("a", f"{sentence(50, 'One')}\n\n{sentence(20, 'Two')}", sentence(60, "Three"))
    passages = list(cut(one))
    assert [(p.story, p.title, p.number, p.text.split()[0]) for p in passages] == [
        ("a", "A", 1, "One"),
        ("a", "A", 2, "Three"),
    ]
    assert " ".join(p.text for p in passages).split() == one.text.split()


def test_stories_stand_in_the_order_in_which_they_appeared():
    sources = (
        Source("Later", ("The Adventure of the Third", "The Fourth"), year=1905),
        Source("First", ("The First",), year=1887),
        Source("Undated", ("The Unknown",)),
        Source("Middle", ("The Second",), year=1890),
    )
    card = replace(SHERLOCK, corpora={"c": CorpusCard("c", None, sources, (), (), ())})
    names = ("the-unknown", "the-fourth", "the-adventure-of-the-third", "the-second", "other", "the-first")
    ordered = [s.id for s in in_order([story(name, "x") for name in names], card)]
    assert ordered == [
        "the-first", "the-second", "the-adventure-of-the-third", "the-fourth", "the-unknown", "other",
    ]  # fmt: skip


def test_the_card_dates_every_book_of_the_canon():
    years = {s.title: s.year for s in SHERLOCK.corpora["canon"].sources}
    assert years["A Study in Scarlet"] == 1887 < years["The Sign of the Four"] == 1890
    assert sorted(years.values()) == [1887, 1890, 1892, 1893, 1902, 1905, 1915, 1917]


# --- search ---------------------------------------------------------------------------------------------

TEXTS = {
    "the-red-lamp": "The lamp burned red in the window. A sailor had lit it. He waited for the tide.",
    "the-blue-door": "The door was painted blue. A sailor knocked upon it with his stick and nobody came.",
    "the-grey-goose": "A goose was stolen from the farmer. It had swallowed a pearl.",
}


@pytest.fixture
def corpus(tmp_path):
    """Three short books in a folder, and their index."""
    folder = tmp_path / "books"
    folder.mkdir()
    for i, (name, text) in enumerate(TEXTS.items()):
        title = name.replace("-", " ").upper()
        filler = " ".join(f"Nothing number{i}x{n} happened." for n in range(60))
        (folder / f"{i}.txt").write_text(f"{title}\n\n{text}\n\n{filler}\n")
    return folder


@pytest.fixture
def retriever(corpus, tmp_path):
    return Retriever.open(SHERLOCK, str(corpus), tmp_path / "cache")


def stories_of(passages: list[Passage]) -> list[str]:
    return [p.story for p in passages]


def test_a_question_finds_the_passage_that_shares_its_words_whatever_their_form(retriever):
    best = retriever.search("Who steals geese from farmers?", k=1)[0]
    assert (best.story, best.number) == ("the-grey-goose", 1)
    assert "swallowed a pearl" in best.text
    assert retriever.search("What is it that you were doing?") == [], "function words alone find nothing"
    assert retriever.search("zeppelin") == []
    assert retriever.search("") == []


def test_a_story_is_found_by_its_title(retriever):
    assert set(stories_of(retriever.search("Tell me of the Blue Door", k=2))) == {"the-blue-door"}


def test_up_to_keeps_later_stories_out(retriever):
    assert retriever.stories == tuple(TEXTS)
    question = "What did the sailor do?"
    assert set(stories_of(retriever.search(question))) == {"the-red-lamp", "the-blue-door"}
    assert stories_of(retriever.search(question, up_to="The Red Lamp")) == ["the-red-lamp"]
    assert stories_of(retriever.search(question, without={"the-red-lamp"})) == ["the-blue-door"]
    assert retriever.search("Where was the pearl?", up_to="the-blue-door") == []


def test_an_unknown_story_is_refused_with_those_of_like_name(retriever):
    assert retriever.find_story("The Adventure of the Grey Goose") == "the-grey-goose"
    with pytest.raises(
        UserError, match=r"no story 'the gray goose' in this corpus: there is the-grey-goose$"
    ):
        retriever.search("goose", up_to="the gray goose")
    with pytest.raises(UserError, match=r"there is the-red-lamp, \.\.\., the-grey-goose$"):
        retriever.find_story("qqq")


def test_the_index_is_built_once_and_anew_when_a_book_changes(corpus, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = Retriever.open(SHERLOCK, str(corpus), cache)
    built = []
    build = retrieval._build
    monkeypatch.setattr(retrieval, "_build", lambda *args: (built.append(1), build(*args)))
    again = Retriever.open(SHERLOCK, str(corpus), cache)
    assert (built, again.passages) == ([], first.passages)
    assert again.search("the sailor's lamp", k=1) == first.search("the sailor's lamp", k=1) != []
    with (corpus / "2.txt").open("a") as book:
        book.write("\nThe zeppelin came at last, long after everybody had gone to bed.\n")
    assert stories_of(Retriever.open(SHERLOCK, str(corpus), cache).search("zeppelin")) == ["the-grey-goose"]
    assert built == [1]
    assert len(list((cache / "retrieval").iterdir())) == 2, "no half-made folder stays"


def test_without_the_package_one_line_says_what_to_install(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UserError, match="retrieval needs bm25s: pip install"):
        Retriever.open(SHERLOCK, str(corpus))


# --- prompts --------------------------------------------------------------------------------------------

TWO = [
    Passage("a", "The Red Lamp", 3, "The lamp burned red. A sailor had lit it for the ship."),
    Passage("b", "The Blue Door", 1, 'He said: "Come in."'),
]


def test_passages_go_before_the_last_questions_words():
    earlier = [
        {"role": "system", "content": "You are Holmes."},
        {"role": "user", "content": "Hm?"},
        {"role": "assistant", "content": "Well."},
    ]
    asked = {"role": "user", "content": "Who lit it?"}
    found = augment([*earlier, asked], TWO)
    assert found[:3] == earlier
    assert found[3]["content"] == (
        "From the records of your cases:\n\n"
        "[1] The Red Lamp, passage 3\nThe lamp burned red. A sailor had lit it for the ship.\n\n"
        '[2] The Blue Door, passage 1\nHe said: "Come in."\n\n'
        "Who lit it?"
    )
    assert asked["content"] == "Who lit it?"
    assert augment([*earlier, asked], []) == [*earlier, asked]


def test_citations_name_story_passage_and_first_words():
    assert cite(TWO) == (
        '[1] The Red Lamp, passage 3: "The lamp burned red. A sailor had lit ..."\n'
        "[2] The Blue Door, passage 1: \"He said: 'Come in.'\""
    )
    assert cite([]) == ""


def test_an_item_is_not_given_its_own_story(retriever, tiny_tokenizer):
    def item(story: str | None) -> Item:
        return Item(
            "1", "dialogue", [{"role": "user", "content": "What of the sailor?"}], "He lit it.", story
        )

    dress = with_corpus(retriever, tiny_tokenizer, context=1024, max_new_tokens=64)
    own, other = dress(item("the-red-lamp")), dress(item(None))
    assert "[1] The Blue Door, passage 1" in own[0]["content"]
    assert "The Red Lamp" not in own[0]["content"]
    assert "[1] The Blue Door" in other[0]["content"] + own[0]["content"]
    assert "The Red Lamp, passage 1" in other[0]["content"]
    assert own[0]["content"].endswith("\n\nWhat of the sailor?")
    # a reply of 250 words leaves the passages no room in a short context
    long = replace(item(None), reference="He lit it. " * 100)
    assert with_corpus(retriever, tiny_tokenizer, 330, 64)(long) == long.messages


def test_passages_that_do_not_fit_the_context_are_left_out_last_first(tiny_tokenizer):
    question = [{"role": "user", "content": "Who lit it?"}]
    one = len(prompt_ids(tiny_tokenizer, augment(question, TWO[:1])))
    both = len(prompt_ids(tiny_tokenizer, augment(question, TWO)))

    def shown(room: int) -> list[Passage]:
        model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=room + 10))
        session = Session(model, tiny_tokenizer, None, Sampling(max_new_tokens=10))
        session.messages("Who lit it?", TWO)
        return session.shown

    assert [len(shown(room)) for room in (both, both - 1, one, one - 1)] == [2, 1, 1, 0]


# --- recall ---------------------------------------------------------------------------------------------


def test_half_of_the_questions_name_nobody_and_none_names_its_story():
    canon = [q for q in QUESTIONS if q["corpus"] == "canon"]
    embedded = [q for q in QUESTIONS if q["corpus"] == "embedded"]
    assert len(canon) >= 60 and len(embedded) >= 20
    assert len({q["id"] for q in QUESTIONS}) == len({q["question"] for q in QUESTIONS}) == len(QUESTIONS)
    for part in (canon, embedded):
        assert sum(not q["names"] for q in part) >= len(part) / 2
    for q in QUESTIONS:
        assert core(q["story"]) not in re.sub(r"[\W_]", "", q["question"].lower()), q
        if not q["names"]:  # a sentence's first word alone is written large
            assert not re.search(r"(?<![.?!] )(?<!^)\b[A-Z]", q["question"]), q


def recall(retriever: Retriever, corpus: str, k: int) -> dict[bool, float]:
    """Share of questions whose story is among those of k passages; True: of those that name somebody."""
    hits = {True: [], False: []}
    for q in QUESTIONS:
        if q["corpus"] == corpus:
            hits[q["names"]].append(q["story"] in stories_of(retriever.search(q["question"], k)))
    return {names: sum(found) / len(found) for names, found in hits.items()} | {
        "all": sum(map(sum, hits.values())) / sum(map(len, hits.values()))
    }


def test_recall_on_the_embedded_cases(tmp_path):
    retriever = Retriever.open(SHERLOCK, "embedded", tmp_path)
    assert len(retriever.stories) == 12
    assert {q["story"] for q in QUESTIONS if q["corpus"] == "embedded"} <= set(retriever.stories)
    found = recall(retriever, "embedded", 5)
    print(found)
    assert found["all"] >= 0.9 and found[True] == 1.0 and found[False] >= 0.85


def test_recall_on_the_real_canon(shared, tmp_path):
    retriever = Retriever.open(SHERLOCK, str(shared / "corpus"), tmp_path)
    assert len(retriever.stories) == 47
    assert retriever.stories[:3] == ("a-study-in-scarlet", "the-sign-of-the-four", "a-scandal-in-bohemia")
    assert retriever.stories[-1] == "his-last-bow"
    found = recall(retriever, "canon", 5)
    print(found)
    assert found["all"] >= 0.95 and found[True] == 1.0 and found[False] >= 0.9
    before = retriever.search(
        "Who was it that shot an air-gun at your wax bust?", 5, up_to="The Final Problem"
    )
    after = retriever.search("Who was it that shot an air-gun at your wax bust?", 5)
    assert "the-adventure-of-the-empty-house" in stories_of(after)
    assert "the-adventure-of-the-empty-house" not in stories_of(before) != []


def test_the_words_of_a_corpus_are_all_in_its_passages():
    corpus = load_corpus(SHERLOCK, "embedded")
    for one in corpus.stories[:3]:
        assert " ".join(p.text for p in cut(one)).split() == one.text.split()
