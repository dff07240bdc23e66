"""Each reason for which a taught answer is refused, on a passage of its own."""

import pytest

from persona.card import load_card
from persona.grounding import grounded_share, out_of_period, problem_of_answer

PASSAGE = (
    "Holmes knelt beside the broken window and examined the gravel through his lens. "
    "The footmarks were those of a tall man, and beside them lay the stump of an Indian cigar."
)
QUESTION = "What did you find beside the window?"


@pytest.fixture(scope="module")
def card():
    return load_card("sherlock")


def judged(answer: str, card, passage: str = PASSAGE) -> str | None:
    return problem_of_answer(QUESTION, answer, passage, card)


def test_a_grounded_answer_in_the_first_person_stands(card):
    assert (
        judged("I found the footmarks of a tall man in the gravel, and the stump of an Indian cigar.", card)
        is None
    )


def test_empty_and_length(card):
    assert judged(" ... ", card) == "empty"
    assert judged("A broken window.", card) == "too short"
    assert judged("gravel window footmarks lens " * 50, card) is None  # 200 words are the most
    assert judged("gravel window footmarks lens " * 50 + "cigar", card) == "too long"


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI I have no window to examine.",
        "According to the passage the gravel held footmarks.",
        "The text says that the gravel held footmarks.",
        "I’m a language model and cannot see the footmarks.",
    ],
)
def test_breaking_character(card, answer):
    assert judged(answer, card) == "breaks character"


@pytest.mark.parametrize(
    "answer",
    [
        "The footmarks in the gravel, said Holmes, were those of a tall man.",
        "I examined the gravel beside the window, said he.",
        "Holmes replied that the gravel held footmarks.",
    ],
)
def test_narration_that_was_left(card, answer):
    assert judged(answer, card) == "narration left"


@pytest.mark.parametrize(
    "answer",
    [
        "Holmes examined the gravel beside the broken window.",
        "It was Holmes's lens that showed the footmarks in the gravel.",
        "Sherlock Holmes is certain that a tall man broke the window.",
    ],
)
def test_the_persona_in_the_third_person(card, answer):
    assert judged(answer, card) == "not first person"


@pytest.mark.parametrize(
    "answer",
    [
        "I am Sherlock Holmes, and beside the window I examined the gravel.",
        'Beside the window a tall man cried, "Holmes is in the gravel!"',
    ],
)
def test_the_persona_may_name_itself_and_be_quoted(card, answer):
    assert judged(answer, card) is None


def test_out_of_period_by_the_cards_last_year(card):
    assert (
        judged("I examined the gravel beside the window and the footmarks by radar.", card) == "out of period"
    )
    assert out_of_period("A computer and the Internet, and a movie.", card) == {"computer", "internet"}
    assert out_of_period("A computer and a radio.", load_card("poirot")) == {"computer"} | (
        {"radio"} if load_card("poirot").era[1] < 1920 else set()
    )


def test_what_the_passage_names_is_in_period(card):
    assert (
        judged("I found the radar beside the broken window.", card, PASSAGE + " There stood a radar.") is None
    )


def test_an_invention_is_not_grounded(card):
    assert (
        judged("I played my violin and dined upon oysters with the Bishop yesterday.", card) == "not grounded"
    )


def test_grounded_share_counts_content_words_by_their_first_five_letters(card):
    # tall (in), examination (examined: in), oysters (out), violin (out); "with" and "the" do not count
    assert grounded_share("tall examination with the oysters violin", PASSAGE, card) == 0.5
    assert grounded_share("so it is", PASSAGE, card) == 1.0
