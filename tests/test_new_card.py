"""Drafting a card from a book: the evidence rule by rule, the card as a whole, and what is refused."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from persona import cast, dataset, keywords, new_card
from persona.card import load_card
from persona.card_draft import render, summary
from persona.errors import UserError

BOOK = """THE MISSING LADDER

CHAPTER I

I had known Madame Odile Ferrand for a year when the ladder went. My friend Madame Ferrand kept the
bakery, and she kept an eye on the whole street. I found her at her counter in the spring of 1905.

"You are late, Captain Bright," said Madame Ferrand. "The loaves are cold, and so is the trail."

"What trail do you mean?" I asked.

"The ladder, parbleu!" cried Madame Ferrand. She wiped her hands. "Somebody has carried it off."

"Who would want a ladder?" said Mr. Moss, who had come in for rolls.

"Parbleu, a man with a wall before him," said Madame Ferrand.

"I want my rolls," said Mr. Moss.

CHAPTER II

I walked to the orchard with Madame Ferrand. She looked at the grass for some time, and then she looked at me.

"Look there, Bright," said Madame Ferrand. "Two holes, and the flour upon them. Parbleu!"

"It is dust," I said.

"It is flour, mon capitaine," said Madame Ferrand. "A baker knows flour. Who buys flour in this street?"

"Mr. Moss does," I answered.

"Then we shall call upon Mr. Moss," said my friend. She took my arm.

"Are you coming here again?" shouted Mr. Moss from his gate.

"Only to borrow a ladder," said Madame Ferrand.

CHAPTER III

I have seldom seen so clean a shed as the one that Mr. Moss kept. In 1906 he painted it green.

"You see nothing," said Mr. Moss. "I told you, Captain Bright."

"I see too little, parbleu," said Madame Ferrand. "A shed with no cobweb, mon capitaine!"

"I sweep it," said Mr. Moss.

"You sweep it very well," I said.

"With flour on the broom?" asked Madame Ferrand. She held it up, and I saw that the bristles were white.

"I bake now and then," said Mr. Moss.

"Parbleu, then you are my rival," said Madame Ferrand.

CHAPTER IV

I was there when it ended. It was the summer of 1907 by then, and the wall had been whitewashed twice.

"Good evening, Bright," said Madame Ferrand. "The ladder is home again, mon capitaine."

"Who brought it?" I asked.

"Mr. Moss," said Madame Ferrand. "He climbed my wall to learn how I bake. Parbleu, he could have asked!"

"Would you have told me?" said Mr. Moss.

"No," said Madame Ferrand, "but I should have lent you the ladder."
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    folder = tmp_path / "ladder"
    folder.mkdir()
    (folder / "ladder.txt").write_text(BOOK, encoding="utf-8")
    return folder


# The forms of a name


def test_forms_are_titles_and_parts_of_the_name():
    printed = Counter({"Odile Ferrand": 5, "Ferrand": 9, "Madame Ferrand": 7, "Odile": 2, "Jules Roy": 4})
    assert cast.forms_of("Odile Ferrand", printed).counts == {
        "Ferrand": 9,
        "Madame Ferrand": 7,
        "Odile Ferrand": 5,
        "Odile": 2,
    }


def test_a_form_of_the_other_gender_is_another_person():
    forms = cast.forms_of("Mr. Moss", Counter({"Mr. Moss": 4, "Mrs. Moss": 3, "Moss": 2}))
    assert forms.counts == {"Mr. Moss": 4, "Moss": 2}


def test_a_wife_does_not_get_the_bare_last_name():
    forms = cast.forms_of("Mrs. Moss", Counter({"Mr. Moss": 4, "Mrs. Moss": 3, "Moss": 2}))
    assert (forms.counts, forms.doubtful) == ({"Mrs. Moss": 3}, {"Moss": 2})


def test_a_last_name_that_others_carry_more_often_is_doubtful():
    forms = cast.forms_of("Paul Roy", Counter({"Paul Roy": 2, "Jules Roy": 5, "Roy": 6, "Paul": 3}))
    assert (forms.counts, forms.doubtful) == ({"Paul": 3, "Paul Roy": 2}, {"Roy": 6})


def test_a_lone_last_name_finds_its_first_name():
    forms = cast.forms_of("Ferrand", Counter({"Odile Ferrand": 6, "Jules Ferrand": 1, "Ferrand": 2}))
    assert forms.counts == {"Odile Ferrand": 6, "Ferrand": 2}


def test_a_doctors_mrs_is_his_wife():
    assert "Mrs. Webb" not in cast.forms_of("Dr. Webb", Counter({"Dr. Webb": 1, "Mrs. Webb": 3})).counts


def test_names_are_trimmed_and_do_not_run_over_sentences():
    printed = cast.printed_names("Then Bright came. I saw the Colonel. Moss rose. Yes Bright rose.")
    assert printed["Bright"] == 2
    assert "Then Bright" not in printed and "Colonel. Moss" not in printed


def test_pronouns_after_a_name_stop_at_the_next_name():
    pieces = ["Ferrand put down her knife.", "Ferrand saw Moss take his hat.", "Ferrand's hat was his."]
    assert cast.pronouns_after(["Ferrand"], pieces) == {"she": 1}


# Who tells the book


def test_passages_part_speech_from_narration():
    (passage,) = cast.passages('He rose. "Come," he said, "at once."')
    assert passage == cast.Passage(("He rose.", "he said,", ""), ("Come,", "at once."))


def test_first_person_rate_counts_narration_only():
    rate, n_words = cast.first_person_rate(cast.passages('"I am here, I say," said I to him.'))
    assert (rate, n_words) == (250.0, 4)


def test_the_narrator_is_called_by_name_but_not_narrated():
    text = "\n\n".join(
        ['"Good day, Bright."', '"My dear Bright, no."', '"Come, Captain Bright!"']
        + ['"Listen, Moss."', '"Well, Moss?"', '"No, Moss."', "Moss sat down."] * 2
    )
    passages = cast.passages(text)
    printed = cast.printed_names(text.replace('"', " "))
    assert cast.narrator_name(passages, printed) == ("Bright", 3)
    assert cast.narrator_name(passages[1:], printed) is None  # called twice only


# Words


def test_log_odds_by_hand():
    # prior of a: 1000 * 3 / 8 = 375; (ln(377 / 627) - ln(376 / 628)) / sqrt(1 / 377 + 1 / 376)
    scores = keywords.log_odds(Counter(a=2, b=2), Counter(a=1, b=3), Counter(a=3, b=5))
    assert scores["a"] == pytest.approx(0.0583, abs=1e-4)
    # prior of b: 625; (ln(627 / 377) - ln(628 / 376)) / sqrt(1 / 627 + 1 / 628)
    assert scores["b"] == pytest.approx(-0.0753, abs=1e-4)


def test_lexicon_wants_three_uses_in_two_chapters_and_no_names():
    speech = ["parbleu parbleu flour ladder ladder ladder paris the", "parbleu flour paris paris the the"]
    words = keywords.lexicon_of(speech, "the grass was green and the wall was white", "", {"paris"})
    assert list(words) == ["parbleu"]  # flour twice, ladder in one chapter, "the" carries grammar


def test_names_within_sentences_are_found_and_titles_are_not():
    assert keywords.names_in("we saw Paris and, Madame, the wall. Walls stand.") == {"paris"}


# What is held out


def test_held_out_shares_are_near_fifteen_percent():
    replies = {"chapter-1": 40, "chapter-2": 15, "chapter-3": 16, "chapter-4": 29, "chapter-5": 0}
    assert new_card.hold_out(replies, Path("x")) == (("chapter-2",), ("chapter-3",))


def test_small_parts_are_put_together():
    replies = {f"story-{i}": 5 for i in range(20)}  # 5% each
    validation, test = new_card.hold_out(replies, Path("x"))
    assert (validation, test) == (("story-1", "story-2", "story-3"), ("story-4", "story-5", "story-6"))


def test_three_parts_give_one_to_each_split():
    assert new_card.hold_out({"a": 9, "b": 2, "c": 3}, Path("x")) == (("b",), ("c",))


def test_two_parts_are_too_few():
    with pytest.raises(UserError, match="in 2 stories or chapters; three are needed"):
        new_card.hold_out({"a": 9, "b": 2, "c": 0}, Path("x"))


# The card


def test_draft_of_a_small_book(book: Path, tmp_path: Path):
    out = tmp_path / "odile-ferrand"
    found = new_card.draft("Odile Ferrand", str(book), out)
    card = load_card(str(out))
    assert card.name == "odile-ferrand"
    assert set(card.persona.aliases) == {"Madame Ferrand", "Madame Odile Ferrand"}
    assert card.persona.descriptions == ("my friend",)
    assert card.pronoun == "she"
    assert (card.narrator.name, card.narrator_is_persona) == ("Captain Bright", False)
    assert set(card.narrator.aliases) == {"Bright", "Captain Bright"}
    assert [p.name for p in card.people] == ["Mr. Moss"]
    assert card.era == (1847, 1907)
    assert "parbleu" in card.lexicon and "moss" not in card.lexicon
    assert found.lines == {"chapter-1": 3, "chapter-2": 4, "chapter-3": 3, "chapter-4": 3}
    held = {*card.corpora["ladder"].validation, *card.corpora["ladder"].test}
    assert len(held) == 2 and "chapter-1" not in held
    assert card.corpora["ladder"].path == book
    assert summary(found)[-1].split()[:2] == ["all", "13"]


def test_drafting_twice_gives_the_same_bytes(book: Path, tmp_path: Path):
    for name in ("a/ferrand", "b/ferrand"):
        new_card.draft("Odile Ferrand", str(book), tmp_path / name)
    first, second = ((tmp_path / n / "ferrand" / "persona.toml").read_bytes() for n in "ab")
    assert first == second


def test_a_drafted_card_makes_a_data_set(book: Path, tmp_path: Path):
    new_card.draft("Odile Ferrand", str(book), tmp_path / "card")
    card = load_card(str(tmp_path / "card"))
    manifest = dataset.build(card, str(book), tmp_path / "data")
    assert all(manifest["counts"][split]["rows"] > 0 for split in ("train", "validation", "test"))


def test_a_persona_who_tells_the_book(book: Path, tmp_path: Path):
    new_card.draft("Captain Bright", str(book), tmp_path / "bright")
    card = load_card(str(tmp_path / "bright"))
    assert card.narrator_is_persona
    assert "chunk" in card.strategies
    hero = next(p for p in card.people if p.descriptions)
    assert (hero.name, hero.descriptions, hero.pronoun) == ("Madame Odile Ferrand", ("my friend",), "she")


def test_a_book_that_nobody_tells(book: Path, tmp_path: Path):
    text = re.sub(r"(?<!CHAPTER )\bI\b", "Bright", BOOK).replace("1906", "May").replace("1907", "that year")
    (book / "ladder.txt").write_text(text, encoding="utf-8")
    found = new_card.draft("Odile Ferrand", str(book), tmp_path / "card")
    card = load_card(str(tmp_path / "card"))
    assert (found.first_person, card.narrator, card.persona.descriptions) == (0.0, None, ())
    assert (found.years, card.era) == ({1905: 1}, (1850, 1920))  # one year tells too little


def test_a_chapter_without_i_is_told_by_somebody_else(book: Path, tmp_path: Path):
    street = "The street lay still, and the ovens cooled one by one. " * 30
    (book / "ladder.txt").write_text(f"{BOOK}\nCHAPTER V\n\n{street}\n", encoding="utf-8")
    new_card.draft("Odile Ferrand", str(book), tmp_path / "card")
    card = load_card(str(tmp_path / "card"))
    assert card.corpora["ladder"].other_narrators == ("chapter-5",)
    assert card.narrator.name == "Captain Bright"


def test_quotation_marks_in_names_stay_toml(book: Path, tmp_path: Path):
    found = new_card.draft("Odile Ferrand", str(book), tmp_path / "card")
    text = render(found, 'the "baker"')
    assert tomllib.loads(text)["name"] == 'the "baker"'


# What is refused


def test_a_card_is_never_written_over(book: Path, tmp_path: Path):
    card = tmp_path / "card" / "persona.toml"
    card.parent.mkdir()
    card.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        new_card.draft("Odile Ferrand", str(book), card.parent)
    assert card.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Hector Quill", BOOK, r"no Hector Quill in it: the names most used .*Bright"),
        ("Odile Ferrand", BOOK.replace('"', ""), r"nobody speaks there"),
        ("Odile Ferrand", "Ovens and flour, Ferrand wrote. " * 60, r"nobody speaks there"),
        ("?!", BOOK, r"give the character's name"),
        ("Odile Ferrand", BOOK.replace("CHAPTER", "Part of"), r"in 1 stories or chapters; three are needed"),
        ("Paris", BOOK.replace("orchard", "Paris orchard"), r"never seen to speak"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, name: str, text: str, message: str):
    folder = tmp_path / "book"
    folder.mkdir()
    (folder / "book.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        new_card.draft(name, str(folder), tmp_path / "card")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "card").exists()


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        new_card.draft("Odile Ferrand", str(tmp_path / "nowhere"), tmp_path / "card")


def test_the_mysterious_affair_at_styles(shared: Path, tmp_path: Path):
    (tmp_path / "styles").mkdir()
    text = (shared / "quotes" / "styles" / "novel_text.txt").read_text(encoding="utf-8")
    (tmp_path / "styles" / "styles.txt").write_text(text, encoding="utf-8")
    found = new_card.draft("Hercule Poirot", str(tmp_path / "styles"), tmp_path / "poirot")
    card = load_card(str(tmp_path / "poirot"))
    assert {"Poirot", "Monsieur Poirot", "Mr. Poirot", "Hercule Poirot"} == set(card.persona.aliases)
    assert card.narrator.aliases[:2] == ("Hastings", "Mr. Hastings")
    assert {"mon", "ami", "mademoiselle"} <= set(card.lexicon)
    assert {"Japp", "Mary Cavendish"} <= {p.name for p in card.people}
    total = sum(found.replies.values())
    for held in (found.validation, found.test):
        assert 0.10 <= sum(found.replies[unit] for unit in held) / total <= 0.20
