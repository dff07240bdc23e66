"""From third person to first: every rule on a passage of its own, and what must be refused."""

import pytest

from persona import verbs
from persona.card import load_card
from persona.mentions import find_people
from persona.narration import sentences
from persona.narrative_frames import second_person
from persona.rewrite import first_person


@pytest.fixture(scope="module")
def holmes():
    return load_card("sherlock")


@pytest.fixture(scope="module")
def poirot():
    return load_card("poirot")


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ("Holmes rose and lit his pipe.", "I rose and lit my pipe."),
        ("Mr. Sherlock Holmes was at breakfast.", "I was at breakfast."),
        ("Holmes has a pipe in the drawer.", "I have a pipe in the drawer."),
        ("Holmes is at home on Fridays.", "I am at home on Fridays."),
        ("Holmes carries a lens.", "I carry a lens."),
        ("Holmes never does it twice.", "I never do it twice."),
        ("My companion filled a glass.", "I filled a glass."),
        ("My friend Sherlock Holmes filled a glass.", "I filled a glass."),
        ("The letter lay upon Holmes's knee.", "The letter lay upon my knee."),
        ("The pipe was Holmes's.", "The pipe was mine."),
        ("Holmes closed the door behind him.", "I closed the door behind me."),
        ("Holmes blamed himself for it.", "I blamed myself for it."),
        ("Holmes opened the box. He was pleased.", "I opened the box. I was pleased."),
        ("As Holmes drew the blind, his lamp went out.", "As I drew the blind, my lamp went out."),
        ("The wind caught Holmes on the stair.", "The wind caught me on the stair."),
        ("Holmes opened every bag but his.", "I opened every bag but mine."),
    ],
)
def test_the_persona_says_i(holmes, passage, expected):
    assert first_person(passage, holmes) == expected


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ("I followed Holmes into the yard.", "Watson followed me into the yard."),
        ("Holmes handed me the key.", "I handed Watson the key."),
        ("Holmes handed me my hat.", "I handed Watson his hat."),
        ("Holmes and I crossed the road.", "Watson and I crossed the road."),
        ("The rain drenched Holmes and me.", "The rain drenched Watson and me."),
        ("Holmes said nothing as we drove.", "I said nothing as we drove."),
        ("My chair was empty, and Holmes took it.", "Watson's chair was empty, and I took it."),
    ],
)
def test_the_narrator_gets_his_name_and_then_a_pronoun(holmes, passage, expected):
    assert first_person(passage, holmes) == expected


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ('Holmes rose. "It is late," said he.', 'I rose. "It is late," I said.'),
        ('"Where is it?" Holmes asked.', '"Where is it?" I asked.'),
        ('"No," said my companion, closing his eyes.', '"No," I said, closing my eyes.'),
        (
            '"He is gone," said Holmes. "Holmes is never late."',
            '"He is gone," I said. "Holmes is never late."',
        ),
        ("Holmes and Lestrade went down.", "Lestrade and I went down."),
        ("Lestrade laughed. Holmes took his hat.", "Lestrade laughed. I took my hat."),
        ("The inspector sat, and Holmes shook his head.", "The inspector sat, and I shook my head."),
    ],
)
def test_tags_and_other_people(holmes, passage, expected):
    assert first_person(passage, holmes) == expected


@pytest.mark.parametrize(
    "passage",
    [
        "Holmes turned to the inspector. He laughed.",  # who laughed?
        "Lestrade came in with Holmes, and he sat down.",
        "He rose and lit a pipe.",  # nobody named
        "Holmes shook him by the hand.",  # somebody else's hand
        "Holmes looked at Lestrade and took his notes.",
        "Holmes listened to his story.",
        "Holmes was sure that he was guilty.",
        "Holmes joined us at the gate.",  # "us" without the persona
        "We followed Holmes to the gate.",
        "I remember that Holmes was out.",  # the narrator's own present
        "Mycroft Holmes was in his chair.",
        "My friend Lestrade rose.",
        "Holmes was one of the most remarkable men in London.",  # praise
        "Holmes's eyes shone.",  # how one looks from outside
        "Holmes seemed to be asleep.",
        "Poor old Holmes was tired.",
        "A loud voice cried that Holmes sat there, he and the sergeant.",
        "So spoke Holmes and left.",
        "Holmes's companions rose.",
        "Holmes stood at Ferrol's back while he cried out.",
        "We kept at Holmes's heels.",
        "Holmes's voice broke in upon us.",
        "Holmes and Jones sat with their hands upon their knees.",
        "The letter was from my friend and comrade.",
        "Holmes looked round. From a nail, with his scarf round his neck, hung the sailor.",
        "Holmes had gone. Ferrol called to me, and we went home.",
    ],
)
def test_doubt_is_refused(holmes, passage):
    assert first_person(passage, holmes) is None


def test_a_name_of_the_story_makes_a_pronoun_doubtful(holmes):
    story = "Mr. Ferrol bowed. Ferrol laughed and took his stick."
    people = find_people(story, [story], holmes, False)
    assert first_person("Holmes met Ferrol. He bowed.", holmes, people) is None


def test_a_pronoun_at_the_start_needs_the_one_before(holmes):
    assert first_person("He lit his pipe.", holmes) is None
    assert first_person("He lit his pipe.", holmes, continues=True) == "I lit my pipe."


def test_standing_descriptions_only_where_they_mean_the_persona(holmes):
    assert first_person("My companion lit a pipe.", holmes, descriptions=()) is None


def test_looks_are_left_out(holmes):
    assert first_person("Holmes stretched his long, thin legs.", holmes) == "I stretched my legs."


def test_another_persona(poirot):
    assert first_person("Poirot put on his hat.", poirot) == "I put on my hat."
    assert first_person("I told Poirot everything.", poirot) == "Hastings told me everything."
    assert first_person("Japp nodded to Poirot. He smiled.", poirot) is None


def test_sentences_keep_titles_tags_and_quotations_whole():
    text = 'Mr. Hale came. "Is it so? Yes." He left. "Where?" he asked.'
    assert [text[a:b] for a, b in sentences(text)] == [
        "Mr. Hale came.",
        '"Is it so? Yes."',
        "He left.",
        '"Where?" he asked.',
    ]


def test_verbs():
    assert verbs.first_person_form("carries") == "carry"
    assert verbs.first_person_form("watches") == "watch"
    assert verbs.first_person_form("has") == "have"
    assert verbs.first_person_form("took") == "took"
    assert verbs.first_person_form("this") is None
    assert not verbs.is_past("indeed")


def test_second_person():
    assert second_person("I was late, and Watson lost my key.") == "You were late, and Watson lost your key."
    assert second_person("We reached our rooms.") == "You reached your rooms."
    assert second_person("She gave me the key.") is None
    assert second_person("He gave me the key.") is None
