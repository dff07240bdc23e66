"""Long replies in parts: where they are cut, and what stands before each part."""

from persona.continued import GO_ON, continued_rows, parts_of
from persona.rows import make_row
from persona.sentences import sentences

FIRST = "I have known Mr. Harding for ten years, and he never yet forgot a debt."  # 15 words
SECOND = "He pays on the first of the month. Always in silver."  # 8 and 3
THIRD = "Now he owes two quarters, and his boots are new from sole to lace."  # 14


def row(reply: str, *before: str) -> dict:
    said = [*(before or ("What of Harding?",)), reply]
    roles = ["user", "assistant"] * (len(said) // 2)
    turns = [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]
    return make_row(
        [{"role": "system", "content": "Be Holmes."}, *turns],
        "dialogue",
        story="s",
        tier="explicit",
        variant=0,
    )


def test_sentences_end_at_marks_but_not_at_titles_or_initials():
    assert sentences(f"{FIRST} {SECOND}") == [
        FIRST,
        "He pays on the first of the month.",
        "Always in silver.",
    ]
    assert sentences('"Ask J. H. Watson!" he said to M. Dubois. Then silence.') == [
        '"Ask J. H. Watson!" he said to M. Dubois.',
        "Then silence.",
    ]
    assert sentences("") == []


def test_a_part_ends_with_the_sentence_that_brings_it_to_nine_words():
    assert parts_of(f"{FIRST} {SECOND} {THIRD}") == [FIRST, SECOND, THIRD]
    assert parts_of(FIRST) == [FIRST]


def test_a_last_part_of_few_words_joins_the_one_before():
    assert parts_of(f"{FIRST} He is dead.") == [f"{FIRST} He is dead."]
    assert parts_of(f"{FIRST} {THIRD} He is dead.") == [FIRST, f"{THIRD} He is dead."]


def test_the_first_part_answers_the_question_and_each_later_one_the_wish_to_hear_more():
    whole = row(f"{FIRST} {SECOND} {THIRD}")
    found = [[m["content"] for m in r["messages"][1:]] for r in continued_rows([whole])]
    assert found[0] == ["What of Harding?", FIRST]
    wishes = {r[-2] for r in found[1:]}
    assert wishes <= set(GO_ON)
    assert [[*r[:-2], r[-1]] for r in found[1:]] == [
        ["What of Harding?", FIRST, SECOND],
        ["What of Harding?", FIRST, SECOND],
        ["What of Harding?", FIRST, SECOND],
        ["What of Harding?", f"{FIRST} {SECOND}", THIRD],
        ["What of Harding?", f"{FIRST} {SECOND}", THIRD],
        ["What of Harding?", SECOND, THIRD],
    ]
    for made in continued_rows([whole]):
        meta = made["meta"]
        assert (meta["strategy"], meta["story"], meta["tier"]) == ("dialogue", "s", "explicit")
        assert meta["variant"] > 0, "never evaluated, never among the best"
        assert made["messages"][0] == whole["messages"][0]


def test_with_a_longer_context_it_is_offered_with_less_of_it():
    found = continued_rows([row(f"{FIRST} {THIRD}", "Who is he?", "A clerk.", "What of him?")])
    assert [[m["content"] for m in r["messages"][1:]] for r in found if "frame" not in r["meta"]] == [
        ["Who is he?", "A clerk.", "What of him?", FIRST],
        ["What of him?", FIRST],
    ]
    assert [len(r["messages"]) for r in found if "frame" in r["meta"]] == [7, 5, 5]


def test_a_short_reply_is_left_whole_and_the_same_rows_come_again():
    assert continued_rows([row(FIRST)]) == []
    whole = row(f"{FIRST} {SECOND} {THIRD}")
    assert continued_rows([whole]) == continued_rows([whole])


def test_no_wish_is_so_common_that_the_cap_on_frames_would_take_rows_out():
    assert len(set(GO_ON)) == len(GO_ON) >= 60
