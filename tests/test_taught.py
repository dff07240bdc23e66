"""persona/passages.py and persona/taught.py: what is asked of a teacher, and what becomes of its answers."""

import json
from collections import Counter
from dataclasses import replace

import chat_server
import pytest

from persona import taught
from persona.card import Card, Person, load_card
from persona.corpus import Chapter, Story
from persona.errors import UserError
from persona.passages import MAX_WORDS, MIN_WORDS, passages, tells_of_persona
from persona.rows import problem_of
from persona.taught import Account, Pairs, taught_rows
from persona.teacher import Teacher

server = chat_server.server

PASSAGE = (
    "It was past midnight when Holmes rose from his chair and lit his old clay pipe. He crossed to the "
    "window, drew the curtain aside and looked down into Baker Street for a long while. "
    '"The cab has gone," said he. I had begun to doze over my book. Holmes took the violin from its case, '
    "but he did not play; he laid it upon his knees and plucked at the strings while the rain beat against "
    "the glass. Then he threw himself into the armchair, closed his eyes, and said no more until the clock "
    "upon the mantelpiece struck three."
)
ACCOUNT = (
    "It was past midnight when I rose from my chair and lit my old clay pipe. I crossed to the window, drew "
    "the curtain aside and looked down into Baker Street for a long while. Watson had begun to doze over his "
    "book. I took the violin from its case, but I did not play; I laid it upon my knees and plucked at the "
    "strings."
)
QUESTION = "How did you pass that night, Mr. Holmes, when the rain beat against the glass?"


@pytest.fixture(scope="module")
def card() -> Card:
    return load_card("sherlock")


class Scripted:
    """A teacher that says what it is given, one answer a job."""

    id = "scripted-1"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.jobs = []
        self.counts = Counter({"failed: timeout": 5})  # from before

    def ask(self, jobs):
        for job in jobs:
            self.jobs.append(job)
            answer = self.answers.pop(0) if self.answers else None
            if answer is None:
                self.counts["failed: timeout"] += 1
            yield job, answer


def story(text: str, name: str = "a-case", chapters: tuple[Chapter, ...] = ()) -> Story:
    return Story(name, "A Case", text, chapters, "a.txt")


def sentence(n: int, mark: str = "a") -> str:
    """A sentence of n words."""
    return " ".join([mark.upper(), *[mark] * (n - 1)]) + "."


def texts(given: Story, card: Card) -> list[str]:
    return [p.text for p in passages(given, card)]


def pair(question: str, answer: str) -> dict:
    return {"question": question, "answer": answer}


def test_a_passage_ends_with_the_first_paragraph_that_makes_it_long_enough(card):
    a, b, c, d = sentence(50, "a"), sentence(40, "b"), sentence(79, "c"), sentence(1, "d")
    assert texts(story(f"{a}\n\n{b}\n\n{c}\n\n{d}"), card) == [f"{a}\n\n{b}", f"{c}\n\n{d}"]


def test_a_long_paragraph_is_cut_where_a_sentence_ends(card):
    many = [sentence(60, letter) for letter in "abcdef"]
    assert texts(story(" ".join(many)), card) == [" ".join(many[:3]), " ".join(many[3:])]


def test_titles_and_initials_end_no_sentence(card):
    first = f"{sentence(90, 'a')[:-1]} with Dr. J. Watson and Mr. Holmes at St. Pancras."
    second = sentence(110, "b")
    assert texts(story(f"{first} {second}"), card) == [first, second]


def test_a_short_rest_joins_the_piece_before_it_or_is_left_out(card):
    a, rest = sentence(80, "a"), sentence(79, "b")
    assert texts(story(f"{a}\n\n{rest}"), card) == [f"{a}\n\n{rest}"]
    long = sentence(180, "a")
    assert texts(story(f"{long}\n\n{sentence(21, 'b')}"), card) == [long]
    assert texts(story(sentence(79)), card) == []


def test_a_sentence_longer_than_a_passage_is_left_out(card):
    a, b = sentence(90, "a"), sentence(90, "b")
    assert texts(story(f"{a}\n\n{sentence(201, 'x')}\n\n{b}"), card) == [a, b]
    short = sentence(20, "c")
    assert texts(story(f"{short}\n\n{sentence(201, 'x')}\n\n{b}"), card) == [b]


def test_no_passage_runs_into_the_next_chapter(card):
    a, b = sentence(70, "a"), sentence(90, "b")
    ends = len(a)
    chapters = (Chapter("chapter-1", "", 0, ends), Chapter("chapter-2", "", ends + 2, ends + 2 + len(b)))
    assert texts(story(f"{a}\n\n{b}", chapters=chapters), card) == [b]


def test_passages_are_the_storys_own_text_and_within_bounds(card):
    from persona.corpus import load_corpus
    from persona.metrics import words

    found = load_corpus(card, "embedded").stories
    pieces = [p for s in found for p in passages(s, card)]
    assert all(MIN_WORDS <= len(words(p.text)) <= MAX_WORDS for p in pieces)
    assert sum(len(words(p.text)) for p in pieces) > 0.97 * sum(len(words(s.text)) for s in found)
    assert all(p.text == p.text.strip() for p in pieces)


def told(text: str, card: Card) -> bool:
    return tells_of_persona(taught.Passage(story(text), 0, len(text), False), card)


def test_passages_that_tell_of_the_persona(card):
    assert told("Then Holmes rose.", card)
    assert told("My companion rose.", card)
    assert not told("Lestrade rose. He said nothing.", card)
    assert not told('"Where is Holmes?" asked Lestrade.', card)
    assert not told('"Where is Holmes?\n\n"Gone," said Lestrade.', card)
    assert not tells_of_persona(taught.Passage(story("Holmes rose."), 0, 12, True), card)


def test_a_persona_who_narrates_is_told_of_by_i(card):
    watson = replace(card, narrator_is_persona=True)
    assert told("I rose and went out.", watson)
    assert not told('"I am late," said Lestrade.', watson)


def test_the_teacher_is_told_who_speaks_and_what_to_send(card):
    whole = taught.Passage(story(PASSAGE), 0, len(PASSAGE), False)
    for job, form in (
        (taught.rewrite_job(whole, card), '{"question": "...", "account": "..."}'),
        (taught.questions_job(whole, card), '{"pairs": [{"question": "...", "answer": "..."}]}'),
    ):
        rules, asked = (m["content"] for m in job.messages)
        assert form in rules and "JSON" in rules
        assert '"I" in the narration of this passage is Dr. Watson, not Sherlock Holmes.' in asked
        assert asked.endswith(PASSAGE)
    foreign = taught.Passage(story(PASSAGE), 0, len(PASSAGE), True)
    assert "not Dr. Watson but somebody else" in taught.questions_job(foreign, card).messages[1]["content"]


def test_an_account_becomes_a_row(card):
    rows, counts = taught_rows(
        [story(PASSAGE)], card, Scripted(Account(question=QUESTION, account=ACCOUNT)), ("narrative",), None
    )
    assert counts == {}
    assert [r["messages"] for r in rows] == [
        [
            {"role": "system", "content": card.system_prompt},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ACCOUNT},
        ]
    ]
    assert rows[0]["meta"] == {
        "strategy": "narrative",
        "story": "a-case",
        "tier": "teacher",
        "span": [0, len(PASSAGE)],
        "teacher": "scripted-1",
    }
    assert problem_of(rows[0]) is None


@pytest.mark.parametrize(
    "account, reason",
    [
        ("", "nothing to tell"),
        ("I rose and lit my old clay pipe.", "too short"),
        (ACCOUNT + " I rose." * 60, "longer than the passage"),
        (ACCOUNT + " That is all the narrator says.", "speaks of the text"),
        (ACCOUNT.replace("I crossed", "Holmes crossed"), "third person left"),
        (ACCOUNT + ' "Good night," said Holmes.', "third person left"),
        (ACCOUNT.replace("I ", "he ").replace("my", "his"), "no first person"),
        (ACCOUNT.replace("Baker Street", "Oxford Street"), "names that the passage lacks"),
        (ACCOUNT.replace("midnight", "11 that night"), "names that the passage lacks"),
        (
            "I sprang furiously downstairs, grasped a heavy hunting whip and chased several ruffians through "
            "muddy gardens towards the harbour.",
            "not grounded",
        ),
        (ACCOUNT + ' "Are you there, Holmes?" he cried.', None),
        (ACCOUNT + " Mycroft Holmes rose.", "names that the passage lacks"),
        (ACCOUNT + " Then Dr. Watson rose.", None),
        (ACCOUNT + " My landlady, Mrs. Turner, rose.", "names that the passage lacks"),
        (ACCOUNT, None),
    ],
)
def test_accounts_that_will_not_do(card, account, reason):
    assert taught.problem_of_account(account, PASSAGE, card) == reason


@pytest.mark.parametrize(
    "question, reason",
    [
        ("What did you see in the street?", None),
        ("What did you see, Holmes?", None),
        ("Mr. Sherlock Holmes, what did you see?", None),
        ("Pray, my dear Holmes, what did you see?", None),
        ("What of your brother, Mycroft Holmes?", None),
        ("What did Holmes see?", "question speaks of the persona"),
        ("Why was Sherlock Holmes at the window?", "question speaks of the persona"),
        ("Tell me what you saw.", "no question"),
        ("", "no question"),
        ("What does the passage say of the cab?", "question speaks of the text"),
        ("What " + "very " * 40 + "long thing is this?", "question too long"),
    ],
)
def test_questions_that_will_not_do(card, question, reason):
    assert taught.problem_of_question(question, PASSAGE, card) == reason


def test_a_house_may_have_passages(card):
    inside = "Holmes stood in the narrow passage of the house."
    assert taught.problem_of_question("Why did you stand in the passage?", inside, card) is None
    assert (
        taught.problem_of_question("Why does the text say passage?", inside, card)
        == "question speaks of the text"
    )


def test_pairs_are_rows_and_each_rejection_is_counted(card):
    good = pair("What did you do with the violin?", "I laid it upon my knees and plucked at the strings.")
    pairs = Pairs.model_validate(
        {
            "pairs": [
                good,
                pair("What did Holmes play?", "I did not play."),
                pair("And the cab?", "Several ruffians chased the governess through muddy gardens."),
                good,
                pair("At what hour  did you\nspeak?", " Not until the clock struck three. "),
            ]
        }
    )
    rows, counts = taught_rows([story(PASSAGE)], card, Scripted(pairs), ("qa",), None)
    assert [[m["content"] for m in r["messages"][1:]] for r in rows] == [
        [good["question"], good["answer"]],
        ["At what hour did you speak?", "Not until the clock struck three."],
    ]
    assert {r["meta"]["strategy"] for r in rows} == {"qa"}
    assert counts == {"qa: question speaks of the persona": 1, "qa: not grounded": 1, "qa: repeated": 1}


def test_an_account_and_its_question_meet_the_checks_of_answers(card):
    late = Account(question=QUESTION, account=ACCOUNT + " I have no radio.")
    tag = Account(question=QUESTION, account=ACCOUNT + ' "The cab has gone," said he.')
    order = Account(question="Tell me of that night.", account=ACCOUNT)
    fine = Account(question=QUESTION, account=ACCOUNT)
    stories = [story(PASSAGE, name) for name in "abcd"]
    rows, counts = taught_rows(stories, card, Scripted(late, tag, order, fine), ("narrative",), None)
    assert counts == {
        "narrative: out of period": 1,
        "narrative: narration left": 1,
        "narrative: no question": 1,
    }
    assert [r["meta"]["story"] for r in rows] == ["d"]


def test_what_the_teacher_did_not_answer_is_counted(card):
    rows, counts = taught_rows(
        [story(PASSAGE)], card, Scripted(None, Pairs(pairs=[])), ("narrative", "qa"), None
    )
    assert rows == []
    assert counts == {"teacher: failed: timeout": 1, "qa: nothing to ask": 1}


def test_passages_per_story_are_spread_over_the_story(card):
    many = "\n\n".join(sentence(80, letter) for letter in "abcdefghij")
    teacher = Scripted()
    taught_rows([story(many, "a"), story(many, "b")], card, teacher, ("qa",), 4)
    assert [(j.tag[1].story.id, j.tag[1].text[0]) for j in teacher.jobs] == [
        (name, letter) for name in "ab" for letter in "ACFH"
    ]
    with pytest.raises(UserError, match="passages-per-story 0"):
        taught_rows([story(many)], card, Scripted(), ("qa",), 0)


def test_another_character():
    poirot = replace(
        load_card("sherlock"),
        display_name="Hercule Poirot",
        persona=Person("Hercule Poirot", ("Poirot", "Monsieur Poirot"), ()),
        narrator=Person("Captain Hastings", ("Hastings",)),
        vocatives=("Poirot", "Monsieur Poirot"),
        people=(),
    )
    assert told("Poirot smiled.", poirot)
    assert not told("Holmes smiled.", poirot)
    assert taught.problem_of_question("What is it, Poirot?", "", poirot) is None
    assert taught.problem_of_question("What is Poirot?", "", poirot) == "question speaks of the persona"
    whole = taught.Passage(story(PASSAGE), 0, len(PASSAGE), False)
    asked = " ".join(m["content"] for m in taught.rewrite_job(whole, poirot).messages)
    assert "Hercule Poirot, who tells of himself" in asked and "Captain Hastings becomes" in asked
    assert "Sherlock" not in asked


def test_rows_from_a_server_are_the_same_bytes_each_time(card, server, tmp_path):
    def plan(number, word):
        if number % 4 == 2:
            return (500, chat_server.refusal("oh"), "0")
        if server.requests[number - 1]["response_format"]["json_schema"]["name"] == "account":
            said = {"question": QUESTION, "account": ACCOUNT}
        else:
            said = {"pairs": [pair("What did you smoke?", "It was my old clay pipe that I lit.")]}
        return chat_server.completion(json.dumps(said))

    server.plan = plan
    stories = [story(PASSAGE, name) for name in ("a", "b", "c")]
    rows, counts = taught_rows(stories, card, Teacher("m", tmp_path / "1"), ("narrative", "qa"), None)
    # one text in three stories is one question to the teacher, and one row of each kind
    assert [r["meta"]["strategy"] for r in rows] == ["narrative", "qa"]
    assert {r["meta"]["teacher"] for r in rows} == {"m"}
    assert counts == {"narrative: repeated": 2, "qa: repeated": 2}
    again, _ = taught_rows(stories, card, Teacher("m", tmp_path / "2"), ("narrative", "qa"), None)
    asked = len(server.requests)
    kept, _ = taught_rows(stories, card, Teacher("m", tmp_path / "1"), ("narrative", "qa"), None)
    assert json.dumps(rows) == json.dumps(again) == json.dumps(kept)
    assert len(server.requests) == asked
