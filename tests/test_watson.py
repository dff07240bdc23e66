"""Dr. Watson, who tells the stories himself, and the cards that share their books with Sherlock's."""

from collections import Counter

import pytest

import config
from persona import dataset
from persona.card import load_card
from persona.corpus import Chapter, Story, load_corpus
from persona.errors import UserError
from persona.quotes import attribute
from persona.rows import read_rows
from persona.strategies import chunk_rows

WATSON, HOLMES = "Dr. Watson", "Sherlock Holmes"
SHARING = ["watson", "lestrade", "moriarty", "mycroft"]


@pytest.fixture(scope="module")
def watson():
    return load_card("watson")


def kept(text: str, card) -> list[str]:
    """The texts that are good enough to train on as Watson's."""
    return [q.text for q in attribute(text, card) if q.speaker == WATSON and q.keep]


# The card


def test_watson_is_the_narrator_and_the_companion_is_holmes(watson):
    assert watson.narrator_is_persona
    assert watson.persona.name == watson.narrator.name == WATSON
    assert [p.name for p in watson.people if p.descriptions] == [HOLMES]
    assert watson.strategies == ("dialogue", "curated", "chunk")


@pytest.mark.parametrize("persona", SHARING)
def test_cards_that_name_sherlocks_corpora_have_the_same_books_and_held_out_stories(persona):
    assert load_card(persona).corpora == load_card("sherlock").corpora


@pytest.mark.parametrize(
    ("name", "message"),
    [("marple", "there is no .*marple"), ("watson", "takes them from 'sherlock', name it instead")],
)
def test_corpora_of_a_card_that_has_none_of_its_own_are_refused(tmp_path, name, message):
    (tmp_path / "persona.toml").write_text(
        'name = "x"\ndisplay_name = "X"\naliases = ["X"]\nsystem_prompt = "You are X."\n'
        f'era = [1861, 1890]\nlexicon = []\ncorpora = "{name}"\n',
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=message):
        load_card(str(tmp_path))


# Who speaks


@pytest.mark.parametrize("persona", SHARING)
def test_speakers_are_the_same_whoever_of_the_cast_is_the_persona(persona):
    path = config.CORPORA / "embedded" / "the-second-umbrella.txt"
    text = path.read_text(encoding="utf-8")

    def found(card):
        return [(q.start, q.speaker, q.addressee, q.tier, q.confidence) for q in attribute(text, card)]

    theirs = found(load_card(persona))
    assert theirs == found(load_card("sherlock"))
    assert {speaker for _, speaker, *_ in theirs} >= {WATSON, HOLMES}


@pytest.mark.parametrize(
    ("tag", "speaker"),
    [
        ("said I", WATSON),
        ("I asked", WATSON),
        ("said my companion", HOLMES),
        ("my friend remarked", HOLMES),
        ("cried Holmes", HOLMES),
    ],
)
def test_i_is_watson_and_my_companion_is_holmes(watson, tag, speaker):
    (quote,) = attribute(f'Holmes and I went up the stair. "We are too late," {tag}.', watson)
    assert (quote.speaker, quote.keep) == (speaker, True)


def test_an_answer_to_a_question_for_watson_by_name_is_his(watson):
    text = (
        'Holmes sat down beside me. "What do you see, Watson?" said he.\n\n"A dark patch."\n\n'
        '"And beyond it?" asked Holmes.\n\n"Nothing at all."'
    )
    assert kept(text, watson) == ["A dark patch.", "Nothing at all."]


@pytest.mark.parametrize(
    "call", ["Inspector", "sir", "my lad", "Colonel"], ids=lambda call: call.replace(" ", "-")
)
def test_an_answer_to_a_question_for_somebody_else_is_not_watsons_to_train_on(watson, call):
    text = f'I stood by. "What do you see, {call}?" said Holmes.\n\n"A dark patch."'
    assert "A dark patch." not in kept(text, watson)


def test_an_answer_that_nothing_shows_to_be_watsons_is_not_trained_on(watson):
    text = '"When did he go?" asked Holmes.\n\n"At nine."\n\n"And the dog?" asked Holmes.\n\n"It slept."'
    assert kept(text, watson) == []


def test_whoever_calls_holmes_by_his_bare_name_may_be_watson(watson):
    said = '"Look out over the pond," said Holmes, and he took my arm.\n\n"Good heavens, Holmes! It moves!"'
    assert kept(said, watson) == ["Good heavens, Holmes! It moves!"]


# Chunks


def story(text: str, *chapters: Chapter, name: str = "a-story") -> Story:
    return Story(name, "A Story", text, chapters, "test")


def passages(found: Story, card) -> list[str]:
    return [r["messages"][-1]["content"] for r in chunk_rows(found, card, size=60, overlap=0)]


def test_a_passage_that_is_mostly_speech_is_not_the_narrators_own(watson):
    mine = "It was a wet night, and the wind cried in the chimney."
    theirs = '"I was born at Lee, sir, and I have lived there always."'
    half = 'Holmes rose from his chair. "It is late," said he.'
    text = f"{mine} {theirs} {half}"
    assert passages(story(text), watson) == [mine, half]
    assert passages(story(text), load_card("sherlock")) == [mine, theirs, half]


def test_what_another_teller_tells_is_not_the_narrators(watson):
    mine = "It was a wet night, and the wind cried in the chimney."
    theirs = "The desert lay before them, white and without a road."
    parts = (
        Chapter("part-1", "I", 0, len(mine)),
        Chapter("part-2", "II", len(mine) + 2, len(mine) + 2 + len(theirs)),
    )
    text = f"{mine}\n\n{theirs}"
    assert passages(story(text, *parts, name="a-study-in-scarlet"), watson) == [mine]
    assert passages(story(text, name="the-gloria-scott"), watson) == []


# The data set


def test_watsons_data_set_has_all_his_kinds_of_rows(watson, tmp_path):
    dataset.build(watson, "embedded", tmp_path)
    rows = {split: read_rows(tmp_path / f"{split}.jsonl") for split in dataset.SPLITS}
    for split, least in (("train", 60), ("validation", 10), ("test", 15)):
        counts = Counter(r["meta"]["strategy"] for r in rows[split])
        assert set(counts) == {"dialogue", "chunk", "curated", "guard"}
        assert counts["dialogue"] + counts["chunk"] >= least
        assert all(
            r["messages"][0] == {"role": "system", "content": watson.system_prompt} for r in rows[split]
        )
    held = {s.id for s in load_corpus(watson, "embedded").stories} - {
        r["meta"]["story"] for r in rows["train"]
    }
    embedded = watson.corpora["embedded"]
    assert held == {*embedded.validation, *embedded.test}
