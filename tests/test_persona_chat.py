"""Synthetic-Persona-Chat: what is read from its files, the prompt forms, the splits, and what overlaps."""

import csv
import logging
from collections import Counter
from pathlib import Path

import pytest

import config
from persona import download
from persona.card import load_card
from persona.errors import UserError
from persona.persona_chat import (
    FORMS,
    Line,
    build_persona_chat,
    messages_of,
    persona_chat_rows,
    read_conversations,
    source_files,
)
from persona.rows import answer_of, problem_of, row_id

HEADER = ["user 1 personas", "user 2 personas", "Best Generated Conversation"]
PERSONA_1 = "I keep bees.\nI play the cello."
PERSONA_2 = "I drive a tram.\nI collect stamps."
LINES = (
    "Hello!",
    "Good morning.",
    "I keep bees.",
    "How many?",
    "Two hives.",
    "That is a crowd.",
    "What do you do?",
    "I drive a tram.",
    "Which one?",
    "Number nine.",
)


def spoken(texts: tuple[str, ...] = LINES, first: int = 1) -> str:
    """Lines of the two in turn."""
    return "\n".join(f"User {(i + first + 1) % 2 + 1}: {text}" for i, text in enumerate(texts))


def write(path: Path, *records: list[str], header: list[str] = HEADER, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *records])
    return path


def talk(reply: str = LINES[7]) -> list[str]:
    """A record whose eighth line is this reply."""
    return [PERSONA_1, PERSONA_2, spoken((*LINES[:7], reply, *LINES[8:]))]


def only(tmp_path: Path, conversation: str):
    """The one conversation of a file, and what is malformed in it."""
    conversations, malformed = read_conversations(
        write(tmp_path / "x_test.csv", [PERSONA_1, PERSONA_2, conversation])
    )
    assert len(conversations) == 1
    return conversations[0], malformed


# --- reading ----------------------------------------------------------------------------------------------


def test_a_record_is_two_personas_and_the_lines_of_both(tmp_path):
    conversation, malformed = only(tmp_path, spoken())
    assert conversation.personas == (
        ("I keep bees.", "I play the cello."),
        ("I drive a tram.", "I collect stamps."),
    )
    assert [(line.speaker, line.text) for line in conversation.lines] == list(
        zip((1, 2) * 5, LINES, strict=True)
    )
    assert conversation.number == 1
    assert malformed == []


def test_commas_quotes_and_colons_stay_in_the_text(tmp_path):
    conversation, _ = only(tmp_path, 'User 1: "Bees, mostly," he said: why?')
    assert conversation.lines == (Line(1, '"Bees, mostly," he said: why?'),)


@pytest.mark.parametrize(
    ("text", "speaker", "said"),
    [
        ("*User 1:* Hi there!", 1, "Hi there!"),
        ("* User 2: My name is *Ben*. *", 2, "My name is *Ben*."),
        ("* * User 2: * * Hello!", 2, "Hello!"),
        ("  User 1 :  Hi  ", 1, "Hi"),
        ("User 2: Hi\r", 2, "Hi"),
    ],
)
def test_a_line_set_in_markdown_is_read_without_it(tmp_path, text, speaker, said):
    conversation, malformed = only(tmp_path, text)
    assert (conversation.lines, malformed) == ((Line(speaker, said),), [])


def test_blank_lines_and_rules_between_lines_are_nothing(tmp_path):
    conversation, malformed = only(tmp_path, "\n\nUser 1: Hi\n\n* * *\nUser 2: Hello\n")
    assert conversation.lines == (Line(1, "Hi"), Line(2, "Hello"))
    assert malformed == []


def test_a_line_without_a_speaker_is_left_out_and_named_by_its_line_of_the_file(tmp_path):
    # line 1 is the header; the personas fill lines 2 to 4, so the conversation begins on line 4
    conversation, malformed = only(
        tmp_path, "User 1: Hi\n[The next day]\nUser 2: Hello\nUser 3: Me!\nUser 2:"
    )
    assert conversation.lines == (Line(1, "Hi"), Line(2, "Hello"))
    assert malformed == [
        "line 5: neither User 1 nor User 2 speaks: '[The next day]'",
        "line 7: neither User 1 nor User 2 speaks: 'User 3: Me!'",
        "line 8: neither User 1 nor User 2 speaks: 'User 2:'",
    ]
    lines = (tmp_path / "x_test.csv").read_text().splitlines()
    assert (lines[4], lines[6]) == ("[The next day]", "User 3: Me!")


def test_malformed_records_are_left_out_named_and_keep_their_number(tmp_path):
    path = write(
        tmp_path / "x_test.csv",
        talk(),  # lines 2 to 13
        ["I keep bees.", "I drive a tram."],
        ["", "I drive a tram.", spoken()],  # lines 15 to 24
        ["I keep bees.", " \n ", spoken()],  # lines 25 to 35
        ["I keep bees.", "I drive a tram.", "Hi there!\n\nHello."],  # lines 36 to 38
        talk(),
    )
    conversations, malformed = read_conversations(path)
    assert malformed == [
        "line 14: 2 columns, 3 are needed",
        "line 15: no persona of User 1",
        "line 25: no persona of User 2",
        "line 36: a conversation without a line of User 1 or User 2",
    ]
    assert [c.number for c in conversations] == [1, 5], "a record of too few columns has no number"


def test_an_open_quote_does_not_swallow_what_was_read_before(tmp_path):
    path = write(tmp_path / "x_test.csv", talk())
    path.write_text(path.read_text() + '"I keep bees.,"I drive a tram.",User 1: Hi\n')
    conversations, malformed = read_conversations(path)
    assert len(conversations) == 1
    assert malformed and malformed[0].startswith("line 14: not CSV (")


def test_columns_are_found_by_name_in_any_order_and_case(tmp_path):
    path = write(
        tmp_path / "x_test.csv",
        ["7", "User 1: Hi", "I keep bees.", "I drive a tram."],
        header=["", "best generated conversation", "User 1 Personas", " user 2 personas"],
        encoding="utf-8-sig",
    )
    conversations, _ = read_conversations(path)
    assert conversations[0].personas == (("I keep bees.",), ("I drive a tram.",))
    assert conversations[0].lines == (Line(1, "Hi"),)


def test_files_that_hold_no_conversation_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^no file at .*gone\.csv$"):
        read_conversations(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"no column 'best generated conversation' in its first line; give a"):
        read_conversations(write(tmp_path / "a.csv", ["a", "b"], header=HEADER[:2]))
    with pytest.raises(UserError, match=r"b\.csv: no conversations: it holds none$"):
        read_conversations(write(tmp_path / "b.csv"))
    with pytest.raises(UserError, match=r"no conversations: all are malformed; the first, line 2: 1 columns"):
        read_conversations(write(tmp_path / "c.csv", ["one"], ["two"]))
    (tmp_path / "d.csv").write_bytes(b"user 1 personas,caf\xe9\n")
    with pytest.raises(UserError, match=r"d\.csv: not UTF-8 text \(invalid continuation byte at byte 19\)"):
        read_conversations(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"e\.csv: no conversations: it holds none$"):
        read_conversations(tmp_path / "e.csv")


# --- the reply and the forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speakers", "index"),
    [
        ("1212121212", 7),  # line 7 is User 1's, line 8 the reply
        ("2121212121", 6),  # User 2 begins, so the reply follows at once
        ("1212122", 6),
        ("121212112", 8),
        ("1212121", None),
        ("1212", None),
    ],
)
def test_the_reply_is_user_2s_first_line_after_six(tmp_path, speakers, index):
    conversation, _ = only(tmp_path, "\n".join(f"User {s}: line {i}" for i, s in enumerate(speakers)))
    assert conversation.reply_index() == index


SAID = """The conversation so far:
User 1: Hello!
User 2: Good morning.
User 1: I keep bees.
User 2: How many?
User 1: Two hives.
User 2: That is a crowd.
User 1: What do you do?"""
ONE = "Persona of User 1:\n- I keep bees.\n- I play the cello."
TWO = "Persona of User 2:\n- I drive a tram.\n- I collect stamps."


@pytest.mark.parametrize(
    ("form", "system", "user"),
    [
        (
            "one-persona",
            f"The user is User 1, and you are User 2.\n\n{TWO}\n\nStay in character and answer with one line "
            "of conversation, without your name before it.",
            f"{TWO}\n\n{SAID}",
        ),
        (
            "both-personas",
            "Two people talk, User 1 and User 2. Your goal is to answer as User 2 would, true to their "
            "persona and to what has been said.",
            f"{ONE}\n\n{TWO}\n\n{SAID}\n\nGive the next line of User 2, and nothing else.",
        ),
        (
            "inferred",
            "The user is User 1, and you are User 2. Nobody tells you who User 2 is: gather it from what "
            "they say, and go on as the same person, with one line of conversation.",
            SAID,
        ),
    ],
)
def test_the_forms_word_for_word(tmp_path, form, system, user):
    conversation, _ = only(tmp_path, spoken())
    assert messages_of(conversation, form) == [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": "I drive a tram."},
    ]


# --- rows and splits --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    return {
        "train": write(tmp_path / "x_train.csv", talk("I sell maps."), talk("I drive a tram.")),
        "validation": write(tmp_path / "x_valid.csv", talk("Number nine."), talk("I bake.")),
        "test": write(tmp_path / "x_test.csv", talk("Two hives."), talk("two hives."), talk("I bake.")),
    }


def test_every_conversation_gives_a_row_of_each_form(files):
    rows, _ = persona_chat_rows(files)
    assert {split: len(of) for split, of in rows.items()} == {"train": 6, "validation": 6, "test": 9}
    assert [(r["meta"]["conversation"], r["meta"]["form"]) for r in rows["train"]] == [
        (n, form) for n in (1, 2) for form in FORMS
    ]
    first = rows["train"][0]
    assert first["id"] == row_id(first["messages"])
    assert first["meta"] == {
        "strategy": "persona_chat",
        "story": None,
        "tier": None,
        "span": None,
        "teacher": None,
        "form": "one-persona",
        "conversation": 1,
        "overlap": False,
    }
    assert [answer_of(r) for r in rows["test"][::3]] == ["Two hives.", "two hives.", "I bake."]
    assert all(problem_of(r) is None for of in rows.values() for r in of)


def test_replies_that_stand_in_the_training_conversations_are_marked(files):
    rows, _ = persona_chat_rows(files)
    marked = {
        split: [r["meta"]["overlap"] for r in of if r["meta"]["form"] == "inferred"]
        for split, of in rows.items()
    }
    # "Two hives." and "Number nine." are lines of the training conversations, of either speaker, anywhere;
    # "I bake." is in the validation file only; training rows are not held out
    assert marked == {
        "train": [False, False],
        "validation": [True, False],
        "test": [True, False, False],
    }


def test_a_short_conversation_gives_no_row(files, tmp_path):
    files["test"] = write(tmp_path / "y_test.csv", [PERSONA_1, PERSONA_2, spoken(LINES[:7])], talk())
    rows, left_out = persona_chat_rows(files)
    assert [r["meta"]["conversation"] for r in rows["test"]] == [2, 2, 2]
    assert left_out == {"test: conversation too short": 1}


@pytest.mark.parametrize("given", ["train", "validation"])
def test_without_a_file_a_tenth_of_the_conversations_validates(tmp_path, given):
    files = {
        given: write(tmp_path / f"x_{given}.csv", *(talk(f"Reply {i}.") for i in range(30))),
        "test": write(tmp_path / "x_test.csv", talk()),
    }
    rows, _ = persona_chat_rows(files)
    numbers = {s: {r["meta"]["conversation"] for r in rows[s]} for s in ("train", "validation")}
    assert (len(numbers["train"]), len(numbers["validation"])) == (27, 3)
    assert numbers["train"] | numbers["validation"] == set(range(1, 31)), "whole conversations, each once"
    assert len(rows["validation"]) == 9
    assert persona_chat_rows(files)[0] == rows
    other = {r["meta"]["conversation"] for r in persona_chat_rows(files, seed=7)[0]["validation"]}
    assert other != numbers["validation"]


def test_missing_files_and_a_lone_conversation_are_refused(files, tmp_path):
    with pytest.raises(
        UserError, match=r"needs a file that ends in _test\.csv .*; there is x_train\.csv, x_v"
    ):
        persona_chat_rows({k: v for k, v in files.items() if k != "test"})
    with pytest.raises(UserError, match=r"there is none$"):
        persona_chat_rows({})
    with pytest.raises(UserError, match="one conversation cannot be split"):
        persona_chat_rows({"test": files["test"], "validation": write(tmp_path / "y_valid.csv", talk())})


def test_malformed_lines_are_reported_first_and_counted(tmp_path, files, caplog):
    records = [[PERSONA_1, PERSONA_2, spoken() + "\n[Later]" * 7], talk("I bake.")]
    files["validation"] = write(tmp_path / "y_valid.csv", *records)
    with caplog.at_level(logging.WARNING):
        _, left_out = persona_chat_rows(files)
    assert left_out == {"y_valid.csv: malformed line": 7}
    assert len(caplog.messages) == 6
    assert caplog.messages[0].endswith(
        "y_valid.csv, line 14: neither User 1 nor User 2 speaks: '[Later]': left out"
    )
    assert caplog.messages[5].endswith("y_valid.csv: 2 more malformed lines left out")


# --- sources and the data set -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card():
    return load_card("spc")


def test_the_card_is_of_this_kind_and_names_the_three_files(card):
    assert card.strategies == ("persona_chat",)
    assert card.narrator is None
    names = [Path(source.url).name for source in card.corpora["canon"].sources]
    assert names == [f"Synthetic-Persona-Chat_{split}.csv" for split in ("train", "valid", "test")]
    assert {source.licence for source in card.corpora["canon"].sources} == {"CC BY 4.0"}


def test_downloaded_files_are_told_by_their_addresses(card, monkeypatch, tmp_path):
    def fetched(source, cache):
        assert cache == config.CACHE
        return tmp_path / f"{Path(source.url).stem}-0123abcd.txt"

    monkeypatch.setattr(download, "fetch", fetched)
    assert source_files(card, "canon") == (
        "canon",
        {
            "train": tmp_path / "Synthetic-Persona-Chat_train-0123abcd.txt",
            "validation": tmp_path / "Synthetic-Persona-Chat_valid-0123abcd.txt",
            "test": tmp_path / "Synthetic-Persona-Chat_test-0123abcd.txt",
        },
    )


def test_a_folder_gives_the_files_that_end_in_a_splits_name(card, tmp_path):
    for name in ("a_Train.csv", "a_validation.csv", "a_test.csv", "a_test.txt", "notes.csv", "latest.csv"):
        write(tmp_path / "mine" / name)
    name, found = source_files(card, str(tmp_path / "mine"))
    assert name == "mine"
    assert {split: path.name for split, path in found.items()} == {
        "train": "a_Train.csv",
        "validation": "a_validation.csv",
        "test": "a_test.csv",
    }
    write(tmp_path / "mine" / "b_test.csv")
    with pytest.raises(UserError, match=r"mine: two files for test, a_test\.csv and b_test\.csv"):
        source_files(card, str(tmp_path / "mine"))


def test_an_unknown_corpus_is_refused(card):
    with pytest.raises(UserError, match=r"^no corpus 'embedded' for spc: give --corpus canon, which is down"):
        source_files(card, "embedded")


def test_a_data_set_is_in_the_seeds_order_without_repeats(card, tmp_path):
    folder = tmp_path / "spc"
    write(folder / "x_train.csv", *(talk(f"Reply {i}.") for i in range(20)), talk("Reply 0."))
    write(folder / "x_valid.csv", talk("Reply 1."))
    write(folder / "x_test.csv", talk("Reply 2."))
    corpus, rows, removed = build_persona_chat(card, str(folder))
    assert (corpus.name, corpus.stories) == ("spc", ())
    assert sorted(corpus.sources_sha256) == ["x_test.csv", "x_train.csv", "x_valid.csv"]
    assert removed == {"train: repeated": 3}
    assert Counter(answer_of(r) for r in rows["train"]) == {f"Reply {i}.": 3 for i in range(20)}
    again, other = (build_persona_chat(card, str(folder), seed=seed)[1]["train"] for seed in (42, 43))
    assert again == rows["train"]
    assert other != rows["train"] and sorted(other, key=str) == sorted(rows["train"], key=str)


def test_conversations_that_are_too_short_for_a_split_are_refused(card, tmp_path):
    folder = tmp_path / "spc"
    for split in ("train", "valid"):
        write(folder / f"x_{split}.csv", talk())
    write(folder / "x_test.csv", [PERSONA_1, PERSONA_2, "User 1: Hi"])
    with pytest.raises(UserError, match="corpus spc: no rows for test; its conversations are too short"):
        build_persona_chat(card, str(folder))


def test_the_published_files(card, shared):
    folder = shared / "spc"
    corpus, rows, removed = build_persona_chat(card, str(folder))
    assert {split: len(of) for split, of in rows.items()} == {"train": 2700, "validation": 300, "test": 2898}
    assert Counter(r["meta"]["form"] for r in rows["test"]) == dict.fromkeys(FORMS, 966)
    assert all(problem_of(r) is None for of in rows.values() for r in of)
    assert removed == {
        "Synthetic-Persona-Chat_valid.csv: malformed line": 81,
        "Synthetic-Persona-Chat_test.csv: malformed line": 65,
    }
    assert len(corpus.sources_sha256) == 2
    tested, malformed = read_conversations(folder / "Synthetic-Persona-Chat_test.csv")
    known, _ = read_conversations(folder / "Synthetic-Persona-Chat_valid.csv")
    assert (len(tested), len(known), len(malformed)) == (966, 1000, 65)
    said = {line.text for c in known for line in c.lines}
    spoken_in_test = [line.text for c in tested for line in c.lines]
    share = sum(text in said for text in spoken_in_test) / len(spoken_in_test)
    assert share == pytest.approx(0.31, abs=0.005), "the published share of repeated utterances"
