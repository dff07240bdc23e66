"""Persona cards: what is read, what may be left out, and what is refused in one line."""

import tomllib

import pytest

import config
from persona.card import CorpusCard, Person, Source, load_card
from persona.errors import UserError

FULL = """
name = "mary"
display_name = "Mary Morstan"
aliases = ["Mary", "Miss Morstan"]
descriptions = ["our visitor"]
pronoun = "she"
system_prompt = "You are Mary Morstan."
era = [1861, 1890]
lexicon = ["Pearl", "governess"]
strategies = ["dialogue"]
vocatives = ["Miss Morstan"]

[narrator]
name = "Dr. Watson"
aliases = ["Watson"]

[[people]]
name = "Thaddeus Sholto"
aliases = ["Sholto", "Thaddeus"]

[curated]
validation = ["pearls"]
test = ["letters", "tea"]

[corpora.embedded]
path = "data/corpus/embedded"
validation = ["one"]
test = ["two", "three"]

[corpora.canon]
validation = []
test = ["the-sign-of-the-four"]
other_narrators = ["a/part-2"]

[[corpora.canon.sources]]
title = "The Sign of the Four"
ebook = 2097
licence = "public domain"
chapters = 12
stories = ["The Sign of the Four"]
"""
LEAST = """
name = "mary"
display_name = "Mary Morstan"
aliases = ["Mary"]
system_prompt = "You are Mary Morstan."
era = [1861, 1890]
lexicon = []
[corpora]
"""


def load(tmp_path, text: str):
    (tmp_path / "persona.toml").write_text(text, encoding="utf-8")
    return load_card(str(tmp_path))


def test_every_field_of_a_card_is_read(tmp_path):
    card = load(tmp_path, FULL)
    assert (card.name, card.display_name, card.folder, card.era) == (
        "mary",
        "Mary Morstan",
        tmp_path,
        (1861, 1890),
    )
    assert (card.system_prompt, card.pronoun) == ("You are Mary Morstan.", "she")
    assert card.persona == Person("Mary Morstan", ("Mary", "Miss Morstan"), ("our visitor",))
    assert card.narrator == Person("Dr. Watson", ("Watson",))
    assert card.narrator_is_persona is False
    assert card.vocatives == ("Miss Morstan",)
    assert card.people == (Person("Thaddeus Sholto", ("Sholto", "Thaddeus")),)
    assert card.lexicon == ("pearl", "governess")  # lower-case, as words are compared
    assert card.strategies == ("dialogue",)
    assert card.curated_topics == {"validation": ("pearls",), "test": ("letters", "tea")}
    source = Source("The Sign of the Four", ("The Sign of the Four",), 2097, None, "public domain", 12)
    assert card.corpora == {
        "embedded": CorpusCard("embedded", config.CORPORA / "embedded", (), ("one",), ("two", "three"), ()),
        "canon": CorpusCard("canon", None, (source,), (), ("the-sign-of-the-four",), ("a/part-2",)),
    }


def test_what_may_be_left_out_has_a_default(tmp_path):
    card = load(tmp_path, LEAST)
    assert (card.narrator, card.narrator_is_persona, card.pronoun) == (None, False, "he")
    assert (card.people, card.vocatives, card.persona.descriptions, card.curated_topics) == ((), (), (), {})
    assert card.strategies == ("dialogue", "curated")
    assert card.corpora == {}


def test_a_persona_who_tells_the_stories_is_the_narrator(tmp_path):
    text = LEAST.replace("[corpora]", '[narrator]\nname = "Mary Morstan"\naliases = ["Mary"]\n[corpora]')
    assert load(tmp_path, text).narrator_is_persona is True


@pytest.mark.parametrize(
    "field", ["name", "display_name", "aliases", "system_prompt", "era", "lexicon", "corpora"]
)
def test_a_missing_field_is_named_with_the_file(tmp_path, field):
    lines = [x for x in LEAST.splitlines() if x != f"[{field}]" and not x.startswith(f"{field} =")]
    with pytest.raises(UserError, match=rf"persona\.toml: the field '{field}' is missing$"):
        load(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("[narrator]\nname = 'Dr. Watson'\n[corpora]", "aliases"),
        ("[corpora.embedded]\nvalidation = []", "test"),
        ("[corpora.embedded]\ntest = []", "validation"),
        ("[corpora.canon]\nvalidation = []\ntest = []\n[[corpora.canon.sources]]\ntitle = 'X'", "stories"),
    ],
)
def test_a_missing_field_of_a_section_is_named(tmp_path, section, field):
    with pytest.raises(UserError, match=rf"persona\.toml: the field '{field}' is missing$"):
        load(tmp_path, LEAST.replace("[corpora]", section))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("era = [1861, 1890]", "era = 1861"),
        ("era = [1861, 1890]", "era = [1861]"),
        ('aliases = ["Mary"]', 'aliases = "Mary"'),
        ("[corpora]", "corpora = 3"),
        ("[corpora]", "narrator = 'Dr. Watson'\n[corpora]"),
        (
            "[corpora]",
            "[corpora.canon]\nvalidation = []\ntest = []\n"
            "[[corpora.canon.sources]]\ntitle = 'X'\nstories = []\nisbn = 3",
        ),
    ],
)
def test_a_field_of_the_wrong_kind_is_one_line_that_names_the_file(tmp_path, right, wrong):
    with pytest.raises(UserError, match=r"persona\.toml: "):
        load(tmp_path, LEAST.replace(right, wrong))


def test_broken_toml_is_named_with_its_place(tmp_path):
    with pytest.raises(UserError, match=r"persona\.toml: not valid TOML: .*line 2"):
        load(tmp_path, 'name = "mary"\nera = = 3\n')


def test_an_unknown_persona_is_refused_with_the_names_that_there_are():
    with pytest.raises(
        UserError, match=r"^unknown persona 'marple': there is .*poirot, sherlock.*; a new one is a folder"
    ):
        load_card("marple")


@pytest.mark.parametrize("path", sorted(config.PERSONAS.glob("*/persona.toml")), ids=lambda p: p.parent.name)
def test_the_cards_of_the_project_are_right(path):
    card = load_card(path.parent.name)
    assert card.name == path.parent.name
    assert card.folder == path.parent
    assert card.era[0] < card.era[1]
    assert card.display_name in card.system_prompt
    for corpus in card.corpora.values():
        assert not set(corpus.validation) & set(corpus.test)
        assert corpus.path is None or corpus.path.is_dir()
    assert not set(card.curated_topics.get("validation", ())) & set(card.curated_topics.get("test", ()))
    known = {
        "name",
        "display_name",
        "aliases",
        "descriptions",
        "pronoun",
        "system_prompt",
        "era",
        "strategies",
    }
    known |= {"vocatives", "lexicon", "narrator", "people", "curated", "corpora"}
    assert set(tomllib.loads(path.read_text(encoding="utf-8"))) <= known


def test_sherlock_has_the_system_prompt_of_the_design():
    assert load_card("sherlock").system_prompt == (
        "You are Sherlock Holmes, an expert consulting detective. Use deductive reasoning, ask clarifying "
        "questions to gather more data, and analyze evidence to reach logical conclusions."
    )
