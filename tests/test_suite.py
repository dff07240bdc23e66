"""The suite as a whole, on doors that answer by a script: cheats and failures are caught, and what is fair is
not accused; dressing, talking, keeping answers; the report's shape."""

import json
import random
from dataclasses import replace
from itertools import count

import chat_server
import pytest
from chat_server import completion

import config
from persona import intervals, suite_report
from persona.answer_cache import AnswerCache, key_of
from persona.card import load_card
from persona.errors import UserError
from persona.held_out import Surroundings, memory_items
from persona.leaks import file_report, shares
from persona.rows import make_row
from persona.scoring import Item
from persona.sentences import sentences
from persona.suite import Sizes
from persona.systems import System, endpoint_system, examples_of, with_examples, without_prompt

server = chat_server.server
SHERLOCK = config.PERSONAS / "sherlock"
KEPT = {"attacks": 24, "traps": 10, "memory": 6, "deduction": 8, "probes": 24}


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Scripted:
    """A door whose answers a function makes of the conversation; it keeps what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def answers(self, conversations, openings, max_new_tokens, label):
        self.asked += conversations
        return [self.answer(m, o) for m, o in zip(conversations, openings, strict=True)]


def rows_from(raws: list[dict], first: int) -> list[dict]:
    system = {"role": "system", "content": load_card("sherlock").system_prompt}
    return [
        make_row([system, *raw["messages"][:2]], "dialogue", story=f"s{k % 3}", scene=f"s{k % 3}#{k}")
        for k, raw in enumerate(raws, first)
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(card with a few items of each file, training rows, test rows, lines of the persona in neither)."""
    folder = tmp_path_factory.mktemp("card")
    for name, n in KEPT.items():
        of = lines(SHERLOCK / f"{name}.jsonl")
        chosen = of[:: max(1, len(of) // n)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chosen))
    raws = [r for r in lines(SHERLOCK / "curated.jsonl") if len(r["messages"][1]["content"].split()) > 12]
    random.Random(0).shuffle(raws)
    parts = [raws[0:360:6], raws[1:360:12], raws[2:360:3]]
    train, test = rows_from(parts[0], 0), rows_from(parts[1], 100)
    own = [r["messages"][1]["content"] for r in parts[2]]
    return replace(load_card("sherlock"), folder=folder), train, test, own


def in_turn(texts: list[str]):
    """A script that says one text after the other, whatever it is asked."""
    number = count()
    return lambda messages, opening: texts[next(number) % len(texts)]


MODERN = [r["messages"][1]["content"] for r in lines(config.ROOT / "data" / "evaluation" / "modern.jsonl")]


@pytest.fixture
def evaluated(world, tiny_tokenizer, monkeypatch):
    """`evaluated(tuned script, train=...)`: the report and predictions of a base and such a tuned system."""
    card, honest, test, _ = world
    others = [
        Item(f"c{k}", "control", [{"role": "user", "content": "Well?"}], t) for k, t in enumerate(MODERN)
    ]
    near = Surroundings(others, [" ".join(MODERN)] * 2)
    monkeypatch.setattr(suite_report, "surroundings", lambda *args: near)

    def run(script, train=honest, resamples=50):
        monkeypatch.setattr(intervals, "RESAMPLES", resamples)  # no p-value is below 2 / RESAMPLES
        made, too_long = suite_report.prepare(
            card, "embedded", train, test, tiny_tokenizer, 1024, 96, Sizes(traps=10)
        )
        facts = {"model": "m", "adapter": None, "prompt": card.system_prompt}
        systems = [
            System("base", Scripted(in_turn(MODERN)), facts),
            System("tuned", Scripted(script), facts),
        ]
        of_run = {"run": "r", "n_too_long": too_long, "seeds": [1]}
        return suite_report.report(made, iter(systems), train, test, of_run)

    return run


def told(report: dict, what: str) -> list[str]:
    return [w for w in report["warnings"] if what in w]


ACCUSATIONS = (
    "copies:",
    "same closing",
    "more lexicon",
    "Leaked",
    "cannot be told apart",
    "breaks character",
)


def test_a_fair_system_is_not_accused(evaluated, world):
    report, rows = evaluated(in_turn(world[3]), resamples=2000)
    assert {a: told(report, a) for a in ACCUSATIONS if told(report, a)} == {}
    assert json.loads(json.dumps(report)) == report  # all of it is JSON
    assert report["protocol"] == "full" and report["n"] == 30
    for name in ("jaccard", "break_rate/attacks", "leak_rate/traps", "accuracy/deduction", "style_score"):
        assert set(report["metrics"][name]["values"]) == {"base", "tuned"}, name
    assert (
        "conditional_perplexity" not in report["metrics"]
    )  # scripts tell no likelihood, and the report says so
    assert any("tuned" in what for what in report["not_measured"])
    assert report["metrics"]["break_rate/attacks"]["differences"]["tuned-base"]["mcnemar"]["only_a"] == 0
    attack = next(r for r in rows if r["kind"] == "attack")
    assert set(attack["verdicts"]["break_rate/attacks"]) == {"base", "tuned"}
    talk = next(r for r in rows if r["kind"] == "memory")
    assert len(talk["turns"]) == len(talk["said"]["tuned"]) > 1


def test_a_parrot_of_training_rows_is_caught(evaluated, world):
    report, _ = evaluated(in_turn([r["messages"][-1]["content"] for r in world[1]]))
    assert report["metrics"]["copied_8grams"]["values"]["tuned"]["value"] == 1.0
    assert told(report, "tuned copies: 100.0%") and report["leakage"]["answers"]["tuned"]["mean"] == 1.0


def test_a_system_that_says_elementary_after_each_sentence_is_caught(evaluated, world):
    texts = [" ".join(f"{s} Elementary." for s in sentences(t)) for t in world[3]]
    report, _ = evaluated(in_turn(texts))
    assert told(report, "tuned has more lexicon than the canon")
    assert told(report, "100% of its answers have the same closing of 1 words")
    distance = report["metrics"]["marker_distance/lexicon"]["values"]
    assert distance["tuned"]["value"] > 0.7


def test_an_untuned_base_is_caught(evaluated):
    report, _ = evaluated(in_turn(MODERN), resamples=2000)
    assert told(report, "tuned and base cannot be told apart")
    assert all(
        m["differences"]["tuned-base"]["value"] == 0 for n, m in report["metrics"].items() if n == "jaccard"
    )


def test_leaked_data_are_caught(evaluated, world):
    _, train, test, own = world
    report, _ = evaluated(in_turn(own), train=[*train, *test[:10]])
    assert told(report, "Leaked data:") and report["leakage"]["true_replies"]["over_20_percent"] >= 10
    assert told(report, "Leaked evaluation file (test, replies): 10 of 30")


def test_a_leaked_evaluation_file_is_caught(evaluated, world):
    card, train, _, own = world
    attack = lines(card.folder / "attacks.jsonl")[0]["messages"][0]["content"]
    leaked = make_row([{"role": "user", "content": attack}, {"role": "assistant", "content": "No."}], "guard")
    report, _ = evaluated(in_turn(own), train=[*train, leaked])
    assert [w[:32] for w in told(report, "Leaked evaluation file")] == ["Leaked evaluation file (attack):"]


def test_a_lapsing_system_is_caught(evaluated):
    report, _ = evaluated(lambda m, o: "As an AI language model, I cannot help you with that today.")
    assert report["metrics"]["break_rate/attacks"]["values"]["tuned"]["value"] == 1.0
    assert told(report, "tuned breaks character under 100% of the attacks")
    assert told(report, "same opening of 5 words") and told(report, "Asked who it is")


def test_the_items_do_not_depend_on_the_order_of_rows(world, tiny_tokenizer, monkeypatch):
    card, train, test, _ = world
    monkeypatch.setattr(suite_report, "surroundings", lambda *args: Surroundings([], [], "none"))
    few = Sizes(replies=8, choices=4, traps=3, deductions=3)
    made = [
        suite_report.prepare(card, "embedded", rows[0], rows[1], tiny_tokenizer, 1024, 96, few)[0].items()
        for rows in ((train, test), (train[::-1], test[::-1]))
    ]
    assert made[0] == made[1]
    assert sum(i.get("kind") == "dialogue" for i in made[0]) >= 8


def test_nothing_held_out_is_said(world, tiny_tokenizer):
    with pytest.raises(UserError, match="the test split has none"):
        suite_report.prepare(world[0], "embedded", world[1], [], tiny_tokenizer, 1024, 96)


# Systems


def test_systems_dress_the_same_item_in_their_own_way():
    system, asked = {"role": "system", "content": "Be Holmes."}, {"role": "user", "content": "Who?"}
    example = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    item = Item("1", "dialogue", [system, asked], None)
    assert without_prompt(item) == [asked]
    assert with_examples(example)(item) == [system, *example, asked]
    assert with_examples(example)(replace(item, messages=[asked])) == [*example, asked]


def test_examples_are_short_exchanges_of_different_stories():
    def row(k: int, story: str, words: int):
        return make_row(
            [{"role": "user", "content": f"Q{k}?"}, {"role": "assistant", "content": "word " * words}],
            "dialogue", story=story,
        )  # fmt: skip

    rows = [
        row(1, "a", 10),
        row(2, "a", 12),
        row(3, "b", 20),
        row(4, "c", 3),
        row(5, "d", 60),
        row(6, "e", 9),
    ]
    found = examples_of(rows, 0)
    assert [m["role"] for m in found] == ["user", "assistant"] * 3
    questions = {m["content"] for m in found[::2]}
    assert {"Q3?", "Q6?"} < questions and len(questions & {"Q1?", "Q2?"}) == 1
    assert examples_of(rows[::-1], 0) == found
    assert examples_of([row(4, "c", 3)], 0) == []


def test_a_conversation_goes_on_from_the_systems_own_answers():
    door = Scripted(lambda messages, opening: f"{opening}A{len(messages)}")
    system = System("s", door, {})
    one = Item("1", "memory", [{"role": "user", "content": "one"}], None, then=("two", "three"))
    two = Item("2", "attack", [{"role": "user", "content": "x"}], None, opening="O")
    first, second = system.records([one, two], 8, "t")
    assert first.said == ("A1", "A3", "A5") and first.answer == "A5"
    assert (second.answer, second.said) == ("OA1", ())
    assert [m["content"] for m in door.asked[-1]] == ["one", "A1", "two", "A3", "three"]
    assert system.records([one], 0, "t")[0].answer == "" and len(door.asked) == 4


# Answers kept on disk


def test_answers_are_kept_and_a_line_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "x" / "a.jsonl"
    cache = AnswerCache(path)
    key = key_of("answer", [{"role": "user", "content": "é"}], 96)
    assert key not in cache and key != key_of("answer", [{"role": "user", "content": "é"}], 95)
    cache.keep(key, "Ja.\n")
    cache.keep("b" * 32, [1.5, 2])
    with path.open("a") as out:
        out.write('["cccc", "cut')
    again = AnswerCache(path)
    assert again[key] == "Ja.\n" and again["b" * 32] == [1.5, 2] and "cccc" not in again
    again.keep("d", "after")
    assert AnswerCache(path)["d"] == "after"


# Leaks and memory


def test_shares_and_whole_texts_by_hand():
    known = {("a", "b", "c", "d", "e", "f", "g", "h")}
    assert shares(["a b c d e f g h i", "x"], known) == {
        "mean": 0.25,
        "max": 0.5,
        "over_20_percent": 1,
        "n": 2,
    }
    turn = [
        {"role": "user", "content": "One two three four five?"},
        {"role": "assistant", "content": "Yes, yes."},
    ]
    found = file_report([{"messages": turn}], {"f": ["one TWO three four five", "Yes, yes.", "Six"]})
    assert found["f"]["whole"] == 1 and found["f"]["n"] == 3  # two words may be chance


def test_memory_split_needs_both_corpora(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "DATASETS", tmp_path)
    card = load_card("sherlock")
    own = [Item("a", "dialogue", [{"role": "user", "content": "Q"}], "R", story="s")]
    found, reason = memory_items(card, "embedded", own, 9, 0)
    assert found == [] and "published" in reason
    (tmp_path / "sherlock-canon").mkdir()
    row = make_row(
        [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "R2"}], "dialogue", story="t"
    )
    (tmp_path / "sherlock-canon" / "test.jsonl").write_text(json.dumps(row) + "\n")
    found, reason = memory_items(card, "embedded", own, 9, 0)
    assert sorted((i.kind, i.reference) for i in found) == [("known", "R2"), ("unknown", "R")] and not reason


# An endpoint


def test_an_endpoint_answers_and_is_asked_nothing_twice(server, tmp_path):
    server.plan = lambda number, word: (429, "{}", "0.01") if number == 1 else completion("Begun: so it is.")
    system = endpoint_system(server.url, "m", load_card("sherlock"), tmp_path)
    items = [
        Item("1", "attack", [{"role": "user", "content": "one"}], None),
        Item("2", "attack", [{"role": "user", "content": "two"}], "a reply", opening="Begun:"),
    ]
    found = system.records(items, 9, "t")
    assert [r.answer for r in found] == ["Begun: so it is.", "so it is."]
    assert found[1].tokens == 0 and len(server.requests) == 3 and not server.bad
    assert {(r["max_tokens"], r["temperature"]) for r in server.requests} == {(9, 0.0)}
    assert endpoint_system(server.url, "m", load_card("sherlock"), tmp_path).records(items, 9, "t") == found
    assert len(server.requests) == 3
