"""Rows: ids, provenance, and what is wrong with a bad line."""

import hashlib
import json

import pytest

from persona.errors import UserError
from persona.rows import answer_of, make_row, parse_rows, problem_of, read_rows, row_id

ASK, REPLY = {"role": "user", "content": "Who calls?"}, {"role": "assistant", "content": "A client."}
SYSTEM = {"role": "system", "content": "You are Holmes."}


def test_an_id_is_the_first_16_hex_digits_of_the_hash_of_the_conversation():
    text = '[{"role": "user", "content": "Voilà?"}]'
    expected = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    assert row_id([{"role": "user", "content": "Voilà?"}]) == expected
    assert row_id([ASK, REPLY]) != row_id([ASK, {**REPLY, "content": "A client!"}])


def test_a_row_has_its_conversation_id_and_full_provenance():
    row = make_row(
        [SYSTEM, ASK, REPLY], "dialogue", story="silver-blaze", tier="explicit", span=[3, 9], scene="s#0"
    )
    assert row == {
        "id": row_id([SYSTEM, ASK, REPLY]),
        "messages": [SYSTEM, ASK, REPLY],
        "meta": {
            "strategy": "dialogue",
            "story": "silver-blaze",
            "tier": "explicit",
            "span": [3, 9],
            "teacher": None,
            "scene": "s#0",
        },
    }
    assert make_row([ASK, REPLY], "guard")["meta"] == {
        "strategy": "guard",
        "story": None,
        "tier": None,
        "span": None,
        "teacher": None,
    }


def test_provenance_does_not_change_the_id():
    assert make_row([ASK, REPLY], "guard")["id"] == make_row([ASK, REPLY], "dialogue", story="x")["id"]


def test_the_answer_is_the_last_turn():
    last = {"role": "assistant", "content": "Quite so."}
    assert answer_of(make_row([ASK, REPLY, ASK, last], "dialogue")) == "Quite so."


@pytest.mark.parametrize("messages", [[ASK, REPLY], [SYSTEM, ASK, REPLY], [ASK, REPLY, ASK, REPLY]])
def test_conversations_that_alternate_are_right(messages):
    assert problem_of({"messages": messages}) is None


TURNS = "turns must be user, assistant, user, assistant ... after an optional system turn, got "


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (None, 'no list "messages"'),
        ([ASK, REPLY], 'no list "messages"'),
        ({}, 'no list "messages"'),
        ({"messages": []}, 'no list "messages"'),
        ({"messages": "Who calls?"}, 'no list "messages"'),
        ({"messages": [ASK, "A client."]}, 'message 1 has no "role" out of system, user, assistant'),
        ({"messages": [{"content": "?"}]}, 'message 0 has no "role" out of system, user, assistant'),
        (
            {"messages": [ASK, {**REPLY, "role": "tool"}]},
            'message 1 has no "role" out of system, user, assistant',
        ),
        ({"messages": [ASK, {"role": "assistant"}]}, "message 1 (assistant) has no text"),
        ({"messages": [ASK, {**REPLY, "content": " \n"}]}, "message 1 (assistant) has no text"),
        ({"messages": [ASK, {**REPLY, "content": 3}]}, "message 1 (assistant) has no text"),
        ({"messages": [SYSTEM]}, TURNS + "system"),
        ({"messages": [ASK]}, TURNS + "user"),
        ({"messages": [REPLY, ASK]}, TURNS + "assistant, user"),
        ({"messages": [ASK, REPLY, ASK]}, TURNS + "user, assistant, user"),
        ({"messages": [ASK, ASK, REPLY, REPLY]}, TURNS + "user, user, assistant, assistant"),
        ({"messages": [ASK, REPLY, SYSTEM]}, TURNS + "user, assistant, system"),
        ({"messages": [SYSTEM, SYSTEM, ASK, REPLY]}, TURNS + "system, system, user, assistant"),
    ],
)
def test_a_bad_row_is_told_in_words(row, problem):
    assert problem_of(row) == problem


def line(*messages) -> str:
    return json.dumps({"messages": messages}) + "\n"


def test_blank_lines_are_passed_over():
    assert list(parse_rows(["\n", line(ASK, REPLY), "  \n", line(SYSTEM, ASK, REPLY)], "x")) == [
        {"messages": [ASK, REPLY]},
        {"messages": [SYSTEM, ASK, REPLY]},
    ]


def test_a_bad_line_is_named_by_file_and_number_blank_lines_counted():
    rows = parse_rows([line(ASK, REPLY), "\n", line(ASK)], "train.jsonl")
    assert next(rows) == {"messages": [ASK, REPLY]}
    with pytest.raises(UserError, match=r"^train\.jsonl, line 3: turns must be .*; mend or delete the line$"):
        next(rows)


def test_a_line_that_is_not_json_is_named_with_the_column():
    with pytest.raises(UserError, match=r"^t\.jsonl, line 2: not JSON \(Expecting value at column 14\)"):
        list(parse_rows([line(ASK, REPLY), '{"messages": }'], "t.jsonl"))


def test_rows_are_read_from_a_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "Où?"}, {"role": "assistant", "content": "Là."}]}\n',
        encoding="utf-8",
    )
    assert [answer_of(r) for r in read_rows(path)] == ["Là."]


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(
        UserError, match=r"no data set at .*/train\.jsonl: make it with python generate_dataset\.py"
    ):
        read_rows(tmp_path / "train.jsonl")


def test_a_file_in_another_encoding_is_named_with_the_byte(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"messages": "\xe9"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl: not UTF-8 text \(.* at byte 14\)"):
        read_rows(path)
