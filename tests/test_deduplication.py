"""Repeats, near-duplicates, stock phrases: what goes, what stays, and why."""

import random

from persona.deduplication import figures_of, remove_near_duplicates, remove_stock_phrases, shingles
from persona.rows import make_row


def prose(seed: int, n: int = 60) -> str:
    """So many made-up words, different ones for each seed."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choice("aeioubdfgklmnprst") for _ in range(7)) for _ in range(n))


def change(text: str, n: int) -> str:
    """The text with its last `n` words replaced."""
    return " ".join([*text.split()[:-n], *(f"other{i}" for i in range(n))])


def row(question: str, answer: str, system: str = "Be Holmes."):
    roles = ("system", "user", "assistant")
    return make_row(
        [{"role": r, "content": c} for r, c in zip(roles, (system, question, answer), strict=True)],
        "dialogue",
    )


def removed_from(train=(), validation=(), test=()):
    rows = {"train": list(train), "validation": list(validation), "test": list(test)}
    counts = remove_near_duplicates(rows)
    return rows, dict(counts)


def test_a_training_row_with_nearly_the_question_or_the_answer_of_a_held_out_row_goes():
    held = row(prose(1), prose(2))
    same_question = row(change(prose(1), 1), prose(3))  # 57 of 59 shingles shared: 0.97
    same_answer = row(prose(4), change(prose(2), 1))
    other = row(change(prose(1), 30), change(prose(2), 30))  # 28 of 88 shingles shared: 0.32
    for split in ("test", "validation"):
        rows, counts = removed_from(train=[same_question, other, same_answer], **{split: [held]})
        assert rows["train"] == [other]
        assert rows[split] == [held]
        assert counts == {"train: near a held-out row": 2}


def test_a_validation_row_near_a_test_row_goes_and_the_test_row_stays():
    held, near = row(prose(1), prose(2)), row(prose(3), change(prose(2), 1))
    rows, counts = removed_from(validation=[near], test=[held])
    assert (rows["validation"], rows["test"], counts) == ([], [held], {"validation: near a held-out row": 1})


def test_question_and_answer_are_not_compared_with_each_other_and_the_system_turn_is_not_compared():
    held = row(prose(1), prose(2), system=prose(9))
    crossed = row(prose(2), prose(1), system=prose(9))
    assert removed_from(train=[crossed], test=[held]) == (
        {"train": [crossed], "validation": [], "test": [held]},
        {},
    )


def test_the_instruction_is_all_turns_before_the_answer():
    def talk(*contents):
        roles = ["user", "assistant"] * (len(contents) // 2)
        return make_row([{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)], "dialogue")

    held = talk(prose(1), prose(2), prose(3), prose(4))
    near, far = (
        talk(prose(1), prose(2), change(prose(3), 1), prose(5)),
        talk(prose(6), prose(7), prose(3), prose(8)),
    )
    rows, counts = removed_from(train=[near, far], test=[held])
    assert (rows["train"], counts) == ([far], {"train: near a held-out row": 1})


def test_of_one_split_no_row_repeats_and_no_answers_are_near_without_being_the_same():
    one, alike = row(prose(1), prose(2)), row(prose(1), change(prose(2), 1))
    rows, counts = removed_from(train=[one, alike, one], test=[row(prose(5), prose(6))] * 2)
    assert rows["train"] == [one]
    assert counts == {"test: repeated": 1, "train: repeated": 1, "train: near another answer": 1}
    far = row(prose(1), change(prose(2), 30))
    assert removed_from(train=[one, far])[0]["train"] == [one, far]  # questions may resemble each other


def test_an_answer_stands_in_three_rows_at_most():
    rows = [row(prose(i), prose(9)) for i in range(5)]
    kept, counts = removed_from(train=rows)
    assert (kept["train"], counts) == (rows[:3], {"train: answer in 3 rows already": 2})


def test_passages_that_answer_the_same_request_are_compared_by_what_they_say():
    # every chunk row asks "Pray go on with your account.": that alone is no leak
    def chunk(answer: str):
        return row("Pray go on with your account.", answer) | {
            "meta": make_row([], "chunk", story="s")["meta"]
        }

    held, near, far = chunk(prose(1)), chunk(change(prose(1), 1)), chunk(prose(2))
    rows, counts = removed_from(train=[near, far], test=[held])
    assert (rows["train"], counts) == ([far], {"train: near a held-out row": 1})


def test_short_texts_are_near_only_if_they_are_the_same_words():
    held = row("Well, Watson?", "Yes, indeed.")
    same, other = row("well Watson", prose(1)), row("Well, Lestrade?", "No, indeed.")
    rows, counts = removed_from(train=[same, other], test=[held])
    assert (rows["train"], counts) == ([other], {"train: near a held-out row": 1})


# Stock phrases


def answers(*texts: str, **meta: str) -> list[dict]:
    return [
        make_row(
            [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": t}],
            "qa",
            **meta,
        )
        for i, t in enumerate(texts)
    ]


def test_of_rows_that_begin_with_the_same_five_words_the_first_ones_stay():
    same = answers(*(f"I am not at all surprised, {prose(i, 4)}." for i in range(8)))
    others = answers(*(prose(100 + i, 9) for i in range(40)))
    kept, removed = remove_stock_phrases([*same, *others])
    assert kept == [*same[:5], *others]  # five at least; 0.4% of 48 rows would be none
    assert removed == {"stock opening": 3}
    many = answers(*(prose(1000 + i, 9) for i in range(1993)))
    assert remove_stock_phrases([*same, *many]) == ([*same, *many], {})  # 0.4% of 2,001 rows is 8


def test_closings_count_as_openings_do_and_short_answers_have_neither():
    same = answers(*(f"{prose(i, 4)} that is all I know." for i in range(7)))
    short = answers(*["That is all, Watson."] * 9)
    kept, removed = remove_stock_phrases([*same, *short])
    assert (kept, removed) == ([*same[:5], *short], {"stock closing": 2})


def test_a_question_frame_is_in_few_rows_of_its_strategy_and_real_questions_are_no_frame():
    framed = answers(*(prose(i, 9) for i in range(9)), frame="what-of")
    asked = answers(*(prose(50 + i, 9) for i in range(9)), frame="asked")
    kept, removed = remove_stock_phrases([*framed, *asked])
    assert (kept, removed) == ([*framed[:5], *asked], {"stock frame": 4})


# Figures


def test_figures_of_a_data_set_by_hand():
    rows = [
        *answers("Pray take a seat, my dear fellow.", "Pray take a seat, my dear fellow.", frame="a"),
        *answers('"I see," said Holmes.', frame="b"),
        *answers("Pray take a seat, my lord.", frame="b"),
    ]
    assert figures_of(rows) == {
        "rows": 4,
        "distinct_answers": 3,
        "most_rows_an_answer": 2,
        "commonest_opening": 0.75,  # pray take a seat my
        "commonest_closing": 0.5,
        "commonest_frame": 0.5,
        "narration_left": 0.25,
    }
    assert figures_of([])["rows"] == 0


def test_made_up_words_are_far_apart():
    # what the tests above rest on
    assert not shingles(prose(1)) & shingles(prose(2))
    assert len(shingles(prose(1)) & shingles(change(prose(1), 1))) == 57
